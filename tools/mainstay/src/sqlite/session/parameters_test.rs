use super::*;

#[test]
fn types_are_those_of_the_columns() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, price REAL, data BLOB, done BOOLEAN, free);
             CREATE TABLE u (id BIGINT, name INT)",
        )
        .unwrap();
    let (int, text, real) = (Some(PgType::INT8), Some(PgType::TEXT), Some(PgType::FLOAT8));
    let (bytes, truth) = (Some(PgType::BYTEA), Some(PgType::BOOL));
    for (sql, expected) in [
        ("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)", vec![int, text, real, bytes, truth, text]),
        ("INSERT INTO main.t (price, \"id\") VALUES ($2, $1), ($4, $3)", vec![int, real, int, real]),
        ("INSERT OR IGNORE INTO t VALUES (abs($1), $2 || 'x', 1 + $3, $4)", vec![None, text, int, bytes]),
        ("INSERT INTO t (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET price = $2", vec![int, real]),
        ("INSERT INTO t (id) SELECT $1", vec![int]),
        ("UPDATE OR IGNORE t SET price = $1, done = $2 WHERE t.id = $3", vec![real, truth, int]),
        ("DELETE FROM t WHERE $1 <= id AND (price > $2 OR done != $3)", vec![int, real, truth]),
        ("SELECT * FROM t WHERE price + id = $1 AND id = $2 + 1 AND f(id) = $3", vec![real, int, None]),
        ("SELECT * FROM t WHERE id = $1 OR name = $1 LIMIT $2 OFFSET $3", vec![None, int, int]),
        ("SELECT * FROM t JOIN u ON t.id = u.id WHERE u.id = $1 AND t.name = $2", vec![int, text]),
        ("SELECT * FROM t WHERE '$1' = id AND missing = $1 AND id = ?2", vec![None, None]),
        ("SELECT $1", vec![None]),
        (
            "SELECT CAST($1 AS int4), CAST ( $2 AS boolean), CAST($3 AS INTEGER), CAST($4 + 1 AS REAL)",
            vec![Some(PgType::INT4), truth, int, int],
        ),
        ("INSERT INTO t (id) VALUES (CAST($1 AS varchar))", vec![Some(PgType::VARCHAR)]),
    ] {
        assert_eq!(types(&connection, sql, expected.len()), expected, "{sql}");
    }
}

/// What PostgreSQL answers, but for its narrower integers.
#[test]
fn parameters_have_the_types_of_what_they_stand_beside() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, price REAL, amount NUMERIC, done BOOLEAN, day DATE, at TIMESTAMP,
                             twice INT AS (id * 2));
             CREATE TABLE u (id BIGINT, name INT);
             CREATE VIEW v (n, m) AS SELECT count(*), max(amount) FROM t",
        )
        .unwrap();
    let (int, text, real, decimal) =
        (Some(PgType::INT8), Some(PgType::TEXT), Some(PgType::FLOAT8), Some(PgType::NUMERIC));
    let (truth, day, at) = (Some(PgType::BOOL), Some(PgType::DATE), Some(PgType::TIMESTAMP));
    for (sql, expected) in [
        // Comparisons.
        ("SELECT 1 FROM t WHERE length(name) = $1 AND $2 < id % 3 AND max(id) >= $3", vec![int, int, int]),
        ("SELECT 1 FROM t WHERE id IN ($1, $2) AND $3 NOT IN (day, 'x') AND (price) = ($4)", vec![int, int, day, real]),
        ("SELECT 1 FROM t WHERE at BETWEEN $1 AND $2 AND $3 BETWEEN '2026-01-01' AND day", vec![at, at, day]),
        ("SELECT 1 FROM t WHERE id IS DISTINCT FROM $1 AND $2 IS NOT DISTINCT FROM price", vec![int, real]),
        ("SELECT 1 FROM t WHERE id IS $1 AND price IS NOT $2 AND name == $3", vec![int, real, text]),
        ("SELECT 1 FROM t WHERE (id, name) = ($1, $2) AND ($3, $4) < (amount, day)", vec![int, text, decimal, day]),
        ("SELECT 1 FROM t WHERE (id, day) IN (SELECT $1, $2) AND $3 IN (SELECT at FROM t)", vec![int, day, at]),
        ("SELECT 1 FROM t WHERE (SELECT max(day) FROM t) = $1 AND (id > 1) = $2 AND rowid = $3", vec![day, truth, int]),
        ("SELECT 1 FROM t WHERE (id, day) = (SELECT $1, max(day) FROM t WHERE x.id + 0 = $2)", vec![int, None]),
        ("SELECT 1 FROM t WHERE sum(amount) > $1 AND abs(-amount) < $2 AND twice = $3", vec![decimal, decimal, int]),
        ("SELECT 1 FROM t WHERE $1 IS NULL OR id + 0 = $1 OR price = $1", vec![int]),
        ("SELECT 1 FROM v WHERE n = $1 AND m > $2", vec![int, decimal]),
        // Truth, counting, text.
        ("SELECT 1 FROM t WHERE $1 AND NOT $2 OR done IN ($3)", vec![truth, truth, truth]),
        (
            "SELECT id + $1, $2 * price, 1.5 - $3, -$4 / amount, id & $5, id << $6",
            vec![None, None, real, None, int, int],
        ),
        ("SELECT id + $1, $2 * price, -$3 / amount, $4 % id FROM t", vec![int, real, decimal, int]),
        ("SELECT 1 FROM t WHERE name || $1 LIKE $2 AND id = $3 + $4", vec![text, text, None, None]),
        (
            "SELECT substr(name, $1, $2), round(price, $3), lag(day, $4, $5) OVER () FROM t",
            vec![int, int, int, int, day],
        ),
        // One of several.
        (
            "SELECT coalesce(id, $1) = $2, nullif($3, day), max(amount, $4), ifnull($5, 0) FROM t",
            vec![int, int, day, decimal, int],
        ),
        ("SELECT iif($1, id, $2), CASE WHEN $3 THEN $4 ELSE price END FROM t", vec![truth, int, truth, real]),
        ("SELECT CASE day WHEN $1 THEN 1 WHEN $2 THEN $3 END FROM t", vec![day, day, int]),
        (
            "SELECT 1 FROM t WHERE id = coalesce($1, $2) AND day > CASE WHEN done THEN $3 ELSE (SELECT $4) END",
            vec![int, int, day, day],
        ),
        ("SELECT id FROM t UNION SELECT $1 UNION ALL VALUES ($2), (3)", vec![int, int]),
        // Queries within others.
        ("WITH RECURSIVE s (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM s WHERE k < $1) SELECT k FROM s", vec![int]),
        ("WITH w AS (SELECT id * 2 AS x FROM t WHERE day = $1) SELECT 1 FROM w WHERE x = $2", vec![day, int]),
        ("SELECT 1 FROM (SELECT row_number() OVER () AS rn FROM t WHERE price > $1) WHERE rn = $2", vec![real, int]),
        (
            "SELECT 1 FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.id = t.id AND day + 0 < $1 AND at IN ($2))",
            vec![None, at],
        ),
        ("SELECT 1 FROM t LEFT JOIN (u JOIN v ON n = $1) ON u.name + 0 = $2 AND t.done = $3", vec![int, int, truth]),
        (
            "SELECT count(*) FILTER (WHERE day IN ($1)) AS n FROM t GROUP BY id + $2 HAVING n > $3 ORDER BY price * $4 LIMIT $5",
            vec![day, int, int, real, int],
        ),
        ("SELECT 1 FROM json_each('[1]') WHERE EXISTS (SELECT 1 FROM json_each('[2]') WHERE id = $1)", vec![None]),
        // What is stored.
        ("INSERT INTO t (id, done) SELECT $1, $2", vec![int, truth]),
        (
            "INSERT INTO t SELECT $1, $2, $3, $4, $5, $6, $7 WHERE $8",
            vec![int, text, real, decimal, truth, day, at, truth],
        ),
        ("INSERT INTO t (day, id) VALUES (coalesce($1, $2), $3 + 1)", vec![day, day, int]),
        (
            "INSERT INTO t AS x (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET price = x.price + $1, day = CASE WHEN excluded.id IN ($2) THEN $3 END WHERE x.amount BETWEEN $4 AND 7",
            vec![real, int, day, decimal],
        ),
        ("UPDATE t SET (id, day) = ($1, $2), done = coalesce($3, done) WHERE id IN ($4)", vec![int, day, truth, int]),
        (
            "UPDATE t SET (price, at) = (SELECT $1, $2), id = id + $3 FROM u WHERE u.name IN ($4)",
            vec![real, at, int, int],
        ),
        (
            "REPLACE INTO t (id, at) SELECT max(id) + $1, $2 FROM t RETURNING id = $3, price * $4",
            vec![int, at, int, real],
        ),
        ("DELETE FROM t AS x WHERE x.day IN ($1) RETURNING x.id * $2", vec![day, int]),
        ("WITH w AS (SELECT $1 AS k) DELETE FROM t WHERE id IN ($2, 3)", vec![None, int]),
        ("EXPLAIN QUERY PLAN SELECT 1 FROM t WHERE id IN ($1)", vec![int]),
        // Types of one kind: the first. Of several: none.
        ("SELECT 1 FROM t WHERE price * 2 > $1 OR id + 1 = $1", vec![real]),
        ("SELECT 1 FROM t WHERE day IN ($1) OR id + 1 = $1", vec![None]),
        // What the parser does not know leaves what the tokens say.
        ("SELECT 1 FROM t INDEXED BY i WHERE id = $1 AND price IN ($2)", vec![int, None]),
    ] {
        assert_eq!(types(&connection, sql, expected.len()), expected, "{sql}");
    }
}

#[test]
fn statements_that_end_early_are_no_trouble() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (id INTEGER)").unwrap();
    let whole =
        "INSERT OR IGNORE INTO main.t (id) VALUES ($1), ($2) ON CONFLICT DO UPDATE SET t.id >= $1 = t.id LIMIT $2";
    for end in 0..whole.len() {
        types(&connection, &whole[..end], 2);
        types(&connection, &whole[end..], 2);
    }
}
