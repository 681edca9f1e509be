//! What each function answers; the expected values are PostgreSQL 15's.

use mainstay::server::pg::SqlState;

use super::super::errors::from_sqlite;
use super::*;

fn evaluate(expression: &str) -> Result<String> {
    let connection = Connection::open_in_memory().unwrap();
    register(&connection).unwrap();
    let value: Value = connection.query_row(&format!("SELECT {expression}"), [], |row| row.get(0))?;
    Ok(match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => format!("{value:?}"),
        Value::Text(value) => value,
        Value::Blob(bytes) => format!("{bytes:?}"),
    })
}

#[test]
fn values_are_those_of_postgresql() {
    for (expression, value) in [
        ("floor(-2.5)", "-3.0"),
        ("ceil(2.1)", "3.0"),
        ("ceiling(NULL)", "NULL"),
        ("sqrt(16)", "4.0"),
        ("power(2, 10)", "1024.0"),
        ("pow('2', -1)", "0.5"),
        ("mod(7, 3)", "1"),
        ("mod(-7, 3)", "-1"),
        ("mod(5.5, 2)", "1.5"),
        ("mod(-9223372036854775808, -1)", "0"),
        ("greatest(1, NULL, 2.5, 2)", "2.5"),
        ("least('b', 'a', NULL)", "a"),
        ("greatest(NULL, NULL)", "NULL"),
        ("left('größer', 3)", "grö"),
        ("left('größer', -2)", "größ"),
        ("left('abc', -9)", ""),
        ("right('größer', 3)", "ßer"),
        ("right('abcde', -2)", "cde"),
        ("right('abc', 9)", "abc"),
        ("md5('')", "d41d8cd98f00b204e9800998ecf8427e"),
        ("md5('größer')", "3b1f5bccdd98086ae8f1852fd2aabe54"),
        ("md5(x'616263')", "900150983cd24fb0d6963f7d28e17f72"),
        ("md5(NULL)", "NULL"),
        ("date_trunc('hour', '2026-02-03 04:05:06.789')", "2026-02-03 04:00:00"),
        ("date_trunc('Week', '2026-02-01 04:05')", "2026-01-26 00:00:00"),
        ("date_trunc('week', '2026-01-26')", "2026-01-26 00:00:00"),
        ("date_trunc('week', '1999-12-31')", "1999-12-27 00:00:00"),
        ("date_trunc('quarter', '2026-12-31')", "2026-10-01 00:00:00"),
        ("date_trunc('year', '2026-12-31 01:00')", "2026-01-01 00:00:00"),
        ("date_trunc('milliseconds', '2026-12-31 01:00:00.123456')", "2026-12-31 01:00:00.123"),
        ("date_trunc('day', '-infinity')", "-infinity"),
        ("length(gen_random_uuid())", "36"),
        ("substr(gen_random_uuid(), 15, 1)", "4"),
        ("gen_random_uuid() = gen_random_uuid()", "0"),
    ] {
        assert_eq!(evaluate(expression).unwrap(), value, "{expression}");
    }
}

#[test]
fn casts_make_values_of_their_types() {
    for (expression, value) in [
        ("bool_in('T')", "1"),
        ("bool_in(' fal ')", "0"),
        ("bool_in('of')", "0"),
        ("bool_in(7)", "1"),
        ("bool_in(NULL)", "NULL"),
        ("int4_in(' -5 ')", "-5"),
        ("int4_in(2.5)", "3"),
        ("int4_in(-2.5)", "-3"),
        ("int2_in(32767)", "32767"),
        ("int8_in('+9223372036854775807')", "9223372036854775807"),
        ("float8_in('1e3')", "1000.0"),
        ("float8_in('Infinity')", "inf"),
        ("float8_in(1)", "1.0"),
        ("numeric_in(' 12.50')", "12.5"),
        ("numeric_in('12')", "12"),
        ("bytea_in('\\x41fF')", "[65, 255]"),
        ("bytea_in('a\\\\b\\101')", "[97, 92, 98, 65]"),
        ("bytea_in(x'00')", "[0]"),
        ("uuid_in('{00112233445566778899AABBCCDDEEFF}')", "00112233-4455-6677-8899-aabbccddeeff"),
        ("date_in('2026-01-31')", "2026-01-31"),
        ("date_in('2026-01-31 23:30:00.5-05')", "2026-01-31"),
        ("time_in('2026-01-31 23:30:00.50')", "23:30:00.5"),
        ("time_in('23:30')", "23:30:00"),
        ("timestamp_in('2026-01-31')", "2026-01-31 00:00:00"),
        ("timestamp_in('2026-01-31T10:00:00.999999+05', 3)", "2026-01-31 10:00:01"),
        ("timestamp_in('2026-01-31 10:00:00.5', 0)", "2026-01-31 10:00:01"),
        ("timestamp_in('infinity', 0)", "infinity"),
        ("timestamptz_in('2026-01-31 10:00:00+05')", "2026-01-31 05:00:00"),
        ("json_in('{\"a\": [1, 2]}')", "{\"a\": [1, 2]}"),
        ("json_in(NULL)", "NULL"),
    ] {
        assert_eq!(evaluate(expression).unwrap(), value, "{expression}");
    }
}

#[test]
fn what_is_no_value_fails_as_in_postgresql() {
    for (expression, state) in [
        ("bool_in('garbage')", "22P02"),
        ("bool_in('')", "22P02"),
        ("bool_in('o')", "22P02"),
        ("int4_in('abc')", "22P02"),
        ("int4_in('1.5')", "22P02"),
        ("int4_in(99999999999)", "22003"),
        ("int4_in('99999999999')", "22003"),
        ("int8_in('9223372036854775808')", "22003"),
        ("int8_in(1e19)", "22003"),
        ("int4_in(x'00')", "42846"),
        ("float8_in('NaN')", "0A000"),
        ("float8_in('1e999')", "22003"),
        ("numeric_in('12,5')", "22P02"),
        ("bytea_in('\\x4')", "22P02"),
        ("bytea_in('\\9')", "22P02"),
        ("uuid_in('x')", "22P02"),
        ("date_in('2026-02-29')", "22007"),
        ("date_in(2026)", "42846"),
        ("time_in('25:00')", "22007"),
        ("timestamp_in('garbage')", "22007"),
        ("timestamptz_in('2026-01-01 10:00x')", "22007"),
        ("json_in('{')", "22P02"),
        ("sqrt(-1)", "2201F"),
        ("power(0, -1)", "2201F"),
        ("power(-8, 0.5)", "2201F"),
        ("power(10, 400)", "22003"),
        ("mod(1, 0)", "22012"),
        ("date_trunc('fortnight', '2026-01-01')", "22023"),
        ("date_trunc('day', 'x')", "22007"),
        ("floor('x')", "22P02"),
    ] {
        let error = from_sqlite(&evaluate(expression).unwrap_err());
        assert_eq!(error.state, SqlState(state), "{expression}: {error}");
    }
}

#[test]
fn only_what_is_the_same_everywhere_is_kept_in_indexes() {
    let connection = Connection::open_in_memory().unwrap();
    register(&connection).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (a, b AS (date_in(a)) STORED, CHECK (sqrt(4) = 2));
             CREATE INDEX i ON t (floor(a)); CREATE VIEW v AS SELECT power(a, 2), gen_random_uuid() FROM t;",
        )
        .unwrap();
    for sql in ["CREATE INDEX j ON t (power(a, 2))", "CREATE TABLE u (a, b AS (gen_random_uuid()))"] {
        assert!(connection.execute_batch(sql).is_err(), "{sql}");
    }
}
