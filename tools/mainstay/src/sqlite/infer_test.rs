use super::*;

/// Half of the stack that the runtime gives the threads that sessions run on.
const STACK_BYTES: usize = 1024 * 1024;

/// Statements as long as `length` that grow in depth and not in nesting.
fn deep(length: usize) -> Vec<String> {
    let shapes = [
        ("SELECT 1", " IS NULL", ""),
        ("SELECT 1", "+1", ""),
        ("SELECT a", "||a", ""),
        ("SELECT 1", "::a", ""),
        ("SELECT a", " AND a", ""),
        ("SELECT a", "[1]", ""),
        ("SELECT a", ".a", ""),
        ("SELECT a", " COLLATE b", ""),
        ("SELECT a", " NOTNULL", ""),
        ("SELECT a", " IN()", ""),
        ("SELECT a", "->a", ""),
        ("SELECT 1", " UNION SELECT 1", ""),
        ("SELECT 1 FROM a", " JOIN a", ""),
        ("SELECT 1", ",1", ""),
        ("SELECT ", "-", "1"),
        ("SELECT ", "- ", "1"),
        ("SELECT ", "NOT ", "1"),
        ("SELECT ", "(", ""),
        ("SELECT ", "CASE WHEN ", ""),
        ("SELECT 1 FROM ", "(SELECT 1 FROM ", ""),
    ];
    let whole = |(head, part, tail): (&str, &str, &str)| {
        let count = (length - head.len() - tail.len()) / part.len();
        format!("{head}{}{tail}", part.repeat(count))
    };
    shapes.into_iter().map(whole).collect()
}

#[test]
fn no_statement_takes_more_stack_than_a_session_has() {
    let infers = || {
        let connection = Connection::open_in_memory().unwrap();
        let lengths = [STATEMENT_LIMIT_BYTES / 2, STATEMENT_LIMIT_BYTES, 100 * STATEMENT_LIMIT_BYTES];
        for sql in &lengths.map(deep).concat() {
            infer(&connection, sql);
            parameter_types(&connection, &sql.replace('1', "$1"), 1);
        }
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(infers).unwrap().join().unwrap();
}

#[test]
fn certain_types_are_inferred() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, price REAL, data BLOB, done BOOLEAN, amount NUMERIC);
             CREATE TABLE u (id BIGINT, price INT); CREATE VIEW v AS SELECT id, name FROM t",
        )
        .unwrap();
    let (int, real, text) = (Some(PgType::INT8), Some(PgType::FLOAT8), Some(PgType::TEXT));
    let (bytes, truth, decimal) = (Some(PgType::BYTEA), Some(PgType::BOOL), Some(PgType::NUMERIC));
    for (sql, expected) in [
        ("SELECT count(*), -2, 1.5, 'x', x'00', TRUE", vec![int, int, real, text, bytes, truth]),
        ("SELECT max(id), min(price), max(name), max(data), max(done) FROM t", vec![int, real, text, bytes, truth]),
        ("SELECT sum(id), sum(price), avg(id), total(id), sum(name) FROM t", vec![int, real, real, real, None]),
        ("SELECT MAX(x.id) + 1, x.price * 2, id / 2, name || id FROM t AS x", vec![int, real, int, text]),
        ("SELECT max(rowid), max(t.rowid), max(missing) FROM t", vec![int, int, None]),
        ("SELECT max(id), max(price), max(u.price) FROM t JOIN u USING (id)", vec![int, None, int]),
        ("SELECT max(n), m FROM (SELECT count(*) AS n, max(price) AS m FROM t)", vec![int, real]),
        ("WITH w (a) AS (SELECT max(id) FROM t) SELECT a, a > 1, (SELECT max(a) FROM w) FROM w", vec![int, truth, int]),
        ("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n", vec![int]),
        ("SELECT coalesce(max(id), 0), ifnull(name, 0), coalesce(NULL, 1) FROM t", vec![int, None, int]),
        (
            "SELECT CASE WHEN id > 1 THEN price ELSE 0.5 END, CASE id WHEN 1 THEN 'a' ELSE 2 END FROM t",
            vec![real, None],
        ),
        ("SELECT CAST(name AS INTEGER), CAST(id AS varchar(9)), CAST(id AS NUMERIC) FROM t", vec![int, text, decimal]),
        ("SELECT id IS NULL, name LIKE 'a', id IN (1), NOT id, EXISTS (SELECT 1) FROM t", vec![truth; 5]),
        ("SELECT max(id) FROM t UNION ALL SELECT 1", vec![int]),
        ("SELECT max(id) FROM t UNION ALL SELECT 'x'", vec![None]),
        ("VALUES (1, 'a'), (2, 3)", vec![int, None]),
        ("SELECT *, count(*) FROM u", vec![int, int, int]),
        ("SELECT u.*, max(v.id) FROM u, v", vec![int, int, int]),
        ("SELECT row_number() OVER (ORDER BY id), lag(price) OVER (ORDER BY id) FROM t", vec![int, real]),
    ] {
        assert_eq!(expression_types(&connection, sql, expected.len()), expected, "{sql}");
    }
    assert!(expression_types(&connection, "SELECT *, 1 FROM t JOIN u USING (id)", 8).is_empty());
}

#[test]
fn decimals_times_and_choices_have_types() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (i INT, r REAL, n NUMERIC, d DATE, at TIMESTAMP, s TEXT)").unwrap();
    let (int, real, decimal, truth) =
        (Some(PgType::INT8), Some(PgType::FLOAT8), Some(PgType::NUMERIC), Some(PgType::BOOL));
    let (day, at, now) = (Some(PgType::DATE), Some(PgType::TIMESTAMP), Some(PgType::TIMESTAMPTZ));
    for (sql, expected) in [
        ("sum(n), n * 2, n / 2, abs(n), -n, coalesce(n, 0), CAST(i AS numeric)", vec![decimal; 7]),
        ("CASE WHEN i > 1 THEN n ELSE 0 END, nullif(n, 0), n % i, avg(n), round(n, 2)", vec![decimal; 5]),
        ("n + r, n * 1.5, max(i, 1.5), coalesce(r, 0), iif(i > 1, r, i), avg(i), round(i)", vec![real; 7]),
        ("~i, i << 1, i >> n, i | 2, iif(s, i, 3), coalesce(i, NULL), sum(i)", vec![int; 7]),
        ("i IS DISTINCT FROM 2, i IS s, i IS NOT 3, i IS NULL, s GLOB 'a'", vec![truth; 5]),
        ("date(at), CURRENT_DATE, max(d), min(d, date('now')), coalesce(d, current_date)", vec![day; 5]),
        ("max(at), datetime(d), current_timestamp, time(at)", vec![at, at, now, Some(PgType::TIME)]),
        (
            "sum(s), max(i, s), coalesce(d, at), iif(i, s), iif(i, n, s)",
            vec![None, None, None, Some(PgType::TEXT), None],
        ),
        // A client may say that its parameter is a number of another type.
        ("coalesce(i, $1), i + $1, $1, $1 + $2", vec![None; 4]),
        ("n * $1, coalesce(n, $1), CASE WHEN i THEN $1 ELSE n END", vec![decimal; 3]),
        ("r + $1, coalesce($1, d)", vec![real, day]),
    ] {
        assert_eq!(expression_types(&connection, &format!("SELECT {sql} FROM t"), expected.len()), expected, "{sql}");
    }
    for (sql, expected) in [
        ("SELECT i FROM t UNION SELECT n FROM t", decimal),
        ("VALUES (1), (2.5)", real),
        ("SELECT d FROM t UNION SELECT at FROM t", None),
        ("SELECT (SELECT max(u.i) FROM t AS u WHERE u.n < o.n) FROM t AS o", int),
        ("SELECT (SELECT max(o.d) FROM (SELECT 1) AS u) FROM t AS o", day),
    ] {
        assert_eq!(expression_types(&connection, sql, 1), [expected], "{sql}");
    }
}

#[test]
fn what_is_returned_and_what_views_compute_has_types() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (i INT, n NUMERIC, d DATE, b BOOLEAN, twice NUMERIC AS (n * 2));
             CREATE VIEW v AS SELECT count(*) AS c, sum(i) AS s, max(n), min(d) AS d, i > 1 AS p, i + 1 AS q, lower(d) AS o FROM t;
             CREATE TEMP VIEW w (x, y, z) AS SELECT v.c + 1, \"max(n)\", twice FROM v, t",
        )
        .unwrap();
    let (int, decimal, truth, day) =
        (Some(PgType::INT8), Some(PgType::NUMERIC), Some(PgType::BOOL), Some(PgType::DATE));
    for (sql, expected) in [
        (
            "INSERT INTO t VALUES (1, 2, 3, 4) RETURNING i > 0 AS pos, n * 2, d, t.i + 1, twice",
            vec![truth, decimal, day, int, decimal],
        ),
        ("INSERT INTO t AS x DEFAULT VALUES RETURNING x.i + 1, *", vec![int, int, decimal, day, truth, decimal]),
        ("UPDATE t AS x SET i = 1 FROM v WHERE v.c > x.i RETURNING x.i, NOT b", vec![int, truth]),
        ("WITH w AS (SELECT 1) DELETE FROM main.t RETURNING max(d, d), coalesce(n, i)", vec![day, decimal]),
        ("SELECT c, s, \"max(n)\", d, p, q, o FROM v", vec![int, int, decimal, day, truth, int, None]),
        ("SELECT * FROM w", vec![int, decimal, decimal]),
        ("SELECT y + 1, max(v.d) FROM w, v", vec![decimal, day]),
    ] {
        assert_eq!(expression_types(&connection, sql, expected.len()), expected, "{sql}");
    }
    assert!(expression_types(&connection, "DELETE FROM t", 0).is_empty());
}

#[test]
fn views_of_views_are_looked_at_so_far() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (i INT); CREATE VIEW v0 AS SELECT count(*) AS c FROM t").unwrap();
    for level in 1..40 {
        let names: Vec<String> = (0..8).map(|copy| format!("v{} AS x{copy}", level - 1)).collect();
        let view = format!("CREATE VIEW v{level} AS SELECT x0.c + 1 AS c FROM {}", names.join(", "));
        connection.execute_batch(&view).unwrap();
    }
    let looks = move || {
        assert_eq!(expression_types(&connection, "SELECT c FROM v3", 1), [Some(PgType::INT8)]);
        // Nothing is known of what is too deep, and it takes no time.
        assert_eq!(expression_types(&connection, "SELECT sum(c) FROM v39", 1), [None]);
        parameter_types(&connection, "SELECT 1 FROM v39 WHERE c = $1", 1).unwrap();
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(looks).unwrap().join().unwrap();
}
