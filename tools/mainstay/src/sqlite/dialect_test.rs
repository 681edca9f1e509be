//! Rewritten statements, and what SQLite makes of them.

use rusqlite::Connection;

use super::super::functions;
use super::{in_sqlites_words, names_user, unfit_default, with_user};

#[test]
fn what_postgresql_writes_becomes_what_sqlite_compiles() {
    let connection = Connection::open_in_memory().unwrap();
    functions::register(&connection).unwrap();
    connection.execute_batch("CREATE TABLE t (a INT, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, '12')").unwrap();
    for (sql, written, value) in [
        ("SELECT '5'::int4 + 1", "SELECT CAST(int4_in('5') AS int4) + 1", "Integer(6)"),
        ("SELECT $1::INTEGER, 7", "SELECT CAST($1 AS int4), 7", "Null"),
        (
            "SELECT '1'::text::int8::text",
            "SELECT CAST(CAST(int8_in(CAST('1' AS text)) AS int8) AS text)",
            "Text(\"1\")",
        ),
        (
            "SELECT t.b::int FROM t WHERE a::text = '2'",
            "SELECT CAST(int4_in(t.b) AS int4) FROM t WHERE CAST(a AS text) = '2'",
            "Integer(12)",
        ),
        ("SELECT max(a)::double precision FROM t", "SELECT CAST(float8_in(max(a)) AS float8) FROM t", "Real(2.0)"),
        ("SELECT (a > 1)::bool FROM t", "SELECT bool_in((a > 1)) FROM t", "Integer(0)"),
        ("SELECT 'f'::boolean", "SELECT bool_in('f')", "Integer(0)"),
        ("SELECT $1::boolean", "SELECT CAST($1 AS boolean)", "Null"),
        ("SELECT 'größer'::varchar(3)", "SELECT substr(CAST('größer' AS text), 1, 3)", "Text(\"grö\")"),
        ("SELECT '2.345'::numeric(10, 2)", "SELECT round(CAST(numeric_in('2.345') AS numeric), 2)", "Real(2.35)"),
        (
            "SELECT '2026-01-02'::timestamp(3) without time zone",
            "SELECT timestamp_in('2026-01-02', 3)",
            "Text(\"2026-01-02 00:00:00\")",
        ),
        (
            "SELECT CASE WHEN 1 THEN CASE WHEN 1 THEN 2 END END::text",
            "SELECT CAST(CASE WHEN 1 THEN CASE WHEN 1 THEN 2 END END AS text)",
            "Text(\"2\")",
        ),
        (
            "SELECT CAST('2026-01-02 10:00' AS DATE) = '2026-01-02 23:00'::date",
            "SELECT date_in('2026-01-02 10:00' ) = date_in('2026-01-02 23:00')",
            "Integer(1)",
        ),
        ("SELECT cast(CAST($1 AS text) AS date)", "SELECT date_in(CAST($1 AS text) )", "Null"),
        (
            "SELECT CAST('2026-01-02 00:00:00.25+01' AS timestamp (1) with time zone)",
            "SELECT timestamptz_in('2026-01-02 00:00:00.25+01' , 1)",
            "Text(\"2026-01-01 23:00:00.3\")",
        ),
        (
            "SELECT CAST('true' AS boolean), cast(1 as Bytea)",
            "SELECT bool_in('true' ), CAST(bytea_in(1 ) AS blob)",
            "fails",
        ),
        ("SELECT CAST('yes' AS boolean)", "SELECT bool_in('yes' )", "Integer(1)"),
        ("SELECT CAST($1 AS boolean), CAST(?2 AS bool)", "SELECT CAST($1 AS boolean), CAST(?2 AS boolean)", "Null"),
        ("SELECT $1::uuid, CAST($2 AS uuid)", "SELECT uuid_in($1), uuid_in($2 )", "Null"),
        ("SELECT now() >= CURRENT_DATE FROM t", "SELECT CURRENT_TIMESTAMP >= CURRENT_DATE FROM t", "Integer(1)"),
        (
            "SELECT pg_catalog.NOW ( ) = localtimestamp, t.a FROM t",
            "SELECT CURRENT_TIMESTAMP = CURRENT_TIMESTAMP, t.a FROM t",
            "Integer(1)",
        ),
        ("SELECT pg_catalog.abs(-3)", "SELECT abs(-3)", "Integer(3)"),
        ("SELECT x'4142'::pg_catalog.text", "SELECT CAST(x'4142' AS text)", "Text(\"AB\")"),
        ("SELECT 'Ab' NOT ILIKE 'aB'", "SELECT 'Ab' NOT LIKE 'aB'", "Integer(0)"),
        ("SELECT b ilike $1::VARCHAR FROM t", "SELECT b LIKE CAST($1 AS varchar) FROM t", "Null"),
        (
            "SELECT y::int4 FROM (VALUES ('1', 2), ('3', 4)) AS v(x, y) ORDER BY x DESC",
            "SELECT CAST(int4_in(y) AS int4) FROM (WITH v (x, y) AS (VALUES ('1', 2), ('3', 4)) SELECT * FROM v) AS v ORDER BY x DESC",
            "Integer(4)",
        ),
        (
            "SELECT s.b FROM (VALUES (1, 2)) s(a,b)",
            "SELECT s.b FROM (WITH s (a,b) AS (VALUES (1, 2)) SELECT * FROM s) s",
            "Integer(2)",
        ),
    ] {
        assert_eq!(in_sqlites_words(sql), written, "{sql}");
        let mut statement = connection.prepare(written).unwrap();
        let mut rows = statement.raw_query();
        if value == "fails" {
            assert!(rows.next().is_err(), "{sql}");
            continue;
        }
        let found = rows.next().unwrap().map(|row| format!("{:?}", row.get::<_, rusqlite::types::Value>(0).unwrap()));
        assert_eq!(found.unwrap_or_default(), value, "{sql}");
    }
}

#[test]
fn keys_that_count_are_sqlites_own() {
    for (sql, written) in [
        (
            "CREATE TABLE t (id SERIAL NOT NULL, a TEXT, PRIMARY KEY (id))",
            "CREATE TABLE t (id INTEGER NOT NULL, a TEXT, PRIMARY KEY (id))",
        ),
        (
            "create table t (a decimal(5, 2), \"Id\" bigserial primary key)",
            "create table t (a decimal(5, 2), \"Id\" INTEGER primary key)",
        ),
        (
            "CREATE TABLE t (id SERIAL, b INT, CONSTRAINT c PRIMARY KEY (id, b))",
            "CREATE TABLE t (id SERIAL, b INT, CONSTRAINT c PRIMARY KEY (id, b))",
        ),
        ("CREATE TABLE t (id INT PRIMARY KEY, b SERIAL)", "CREATE TABLE t (id INT PRIMARY KEY, b SERIAL)"),
    ] {
        assert_eq!(in_sqlites_words(sql), written, "{sql}");
    }
}

#[test]
fn what_is_not_understood_stays_as_it_is() {
    for sql in [
        "SELECT '::int4', \"a::b\", [c::d] /* x::int */ -- y::int",
        "SELECT 'x'::regclass",
        "SELECT '{}'::int[]",
        "SELECT CAST('1' AS int4), CAST(a AS TEXT), CAST(1 AS numeric), cast(a AS interval)",
        "SELECT now()",
        "WITH a AS (VALUES (now())) SELECT 1",
        "SELECT t.localtimestamp, t.now(), now(1) FROM t",
        "CREATE TABLE t (localtimestamp TEXT, now, cast TEXT DEFAULT 'now()')",
        "SELECT ::int",
        "SELECT a ilike, 'x' AS ilike FROM t ilike WHERE (ilike.a)",
        "SELECT a::",
        "SELECT (a::int",
        "SELECT a : : int",
        "SELECT * FROM pg_catalog.pg_class",
        "SELECT count(*) AS n FROM t",
        "SELECT * FROM (SELECT 1) AS x WHERE (a) AS y (b)",
        "SELECT * FROM (VALUES (1)) WHERE (column1)",
        "SELECT * FROM (VALUES (1)) JOIN (VALUES (1)) USING (column1)",
        "INSERT INTO t (a) SELECT 1) AS x (",
    ] {
        assert_eq!(
            in_sqlites_words(sql),
            if sql == "SELECT (a::int" { "SELECT (CAST(int4_in(a) AS int4)" } else { sql }
        );
    }
    let whole = "SELECT pg_catalog.f(x::varchar(3)), END::int FROM (VALUES (1)) AS v (a, b)::text";
    for end in 0..=whole.len() {
        in_sqlites_words(&whole[..end]);
        in_sqlites_words(&whole[end..]);
    }
}

#[test]
fn defaults_that_are_calls_or_casts_are_in_parentheses() {
    let connection = Connection::open_in_memory().unwrap();
    functions::register(&connection).unwrap();
    for (number, (column, written)) in [
        ("at timestamptz DEFAULT now() NOT NULL", "at timestamptz DEFAULT CURRENT_TIMESTAMP NOT NULL"),
        ("at timestamp default LocalTimestamp", "at timestamp default CURRENT_TIMESTAMP"),
        ("at date default now()::date", "at date default (date_in(CURRENT_TIMESTAMP))"),
        ("id uuid DEFAULT gen_random_uuid() PRIMARY KEY", "id uuid DEFAULT (gen_random_uuid()) PRIMARY KEY"),
        ("a text DEFAULT 'x'::character varying, b int", "a text DEFAULT (CAST('x' AS varchar)), b int"),
        ("a int DEFAULT (1), b int DEFAULT -1", "a int DEFAULT (1), b int DEFAULT -1"),
        ("a int DEFAULT 1, now text", "a int DEFAULT 1, now text"),
    ]
    .into_iter()
    .enumerate()
    {
        let (sql, written) =
            (format!("CREATE TABLE t{number} ({column})"), format!("CREATE TABLE t{number} ({written})"));
        assert_eq!(in_sqlites_words(&sql), written);
        connection.execute_batch(&written).unwrap();
        connection.execute_batch(&format!("INSERT INTO t{number} DEFAULT VALUES")).unwrap();
    }
}

#[test]
fn users_are_named_where_rows_are_asked_for() {
    assert!(names_user("INSERT INTO t VALUES (current_user)") && names_user("SELECT Session_User FROM t"));
    for sql in ["SELECT current_user", "CREATE TABLE t (current_user)", "SELECT a FROM t"] {
        assert!(!names_user(sql), "{sql}");
    }
    let written = with_user(
        "UPDATE t SET a = CURRENT_USER, b = t.current_user, c = 'current_user' WHERE session_user = 'x'",
        "o'x",
    );
    assert_eq!(written, "UPDATE t SET a = 'o''x', b = t.current_user, c = 'current_user' WHERE 'o''x' = 'x'");
    for (sql, word) in [
        ("CREATE TABLE t (u text DEFAULT current_user)", Some("current_user")),
        ("ALTER TABLE t ADD c DEFAULT Session_User NOT NULL", Some("Session_User")),
        ("CREATE TABLE t (u timestamptz default now)", Some("now")),
        ("CREATE TABLE t (u timestamptz default now ())", None),
        ("CREATE TABLE t (current_user text DEFAULT 'current_user', d DEFAULT true)", None),
    ] {
        assert_eq!(unfit_default(sql), word, "{sql}");
    }
}
