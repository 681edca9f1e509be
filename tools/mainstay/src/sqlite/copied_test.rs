//! Rows that COPY brought are the same after a replay, however they were captured.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay::server::pg::{Column, Copied, ResultSink, Scope, SqlError, Value};
use proptest::prelude::*;

use super::payload::{Part, Payload};
use super::test_support::{Client, Database};

/// A client that brings rows.
struct Bringing(VecDeque<Copied>);

impl ResultSink for Bringing {
    fn columns(&mut self, _: &[Column]) -> Result<(), SqlError> {
        Ok(())
    }

    fn row(&mut self, _: &[Value<'_>]) -> Result<(), SqlError> {
        Ok(())
    }

    fn notice(&mut self, _: &SqlError) -> Result<(), SqlError> {
        Ok(())
    }

    fn copy_in(&mut self, _: usize) -> Result<(), SqlError> {
        Ok(())
    }

    fn copied(&mut self, _: Duration) -> Result<Copied, SqlError> {
        Ok(self.0.pop_front().unwrap_or(Copied::End))
    }
}

/// Copies rows, and answers the tag, or the SQLSTATE and where it happened.
fn copy(client: &mut Client, table: &str, rows: &str) -> String {
    let mut bringing = Bringing([Copied::Data(rows.to_owned().into())].into());
    match client.0.execute(&format!("COPY {table} FROM STDIN"), &[], Scope::Single, &mut bringing) {
        Ok(tag) => tag.0,
        Err(error) => format!("{} {}", error.state.0, error.context.unwrap_or_default()),
    }
}

/// Tables of all sorts, with three columns `a`, `b` and `c`.
const TABLES: &[&str] = &[
    "CREATE TABLE t (a bigint PRIMARY KEY, b text, c double precision)",
    "CREATE TABLE t (a INTEGER PRIMARY KEY, b numeric, c)",
    "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b timestamp, c blob)",
    "CREATE TABLE t (a text, b int, c real, PRIMARY KEY (c, a))",
    "CREATE TABLE t (a text PRIMARY KEY, b bool, c \"weird_5\") WITHOUT ROWID",
    "CREATE TABLE t (a PRIMARY KEY, b uuid, c date)",
    "CREATE TABLE t (a int, b varchar(3), c bytea)",
    "CREATE TABLE t (a int PRIMARY KEY, b ANY, c text) STRICT",
    "CREATE TABLE t (a int PRIMARY KEY, b text DEFAULT 'x', c float8, d AS (a + 1))",
    "CREATE TABLE t (a int PRIMARY KEY, b text COLLATE NOCASE UNIQUE, c json);
     CREATE TABLE log (a, b); CREATE INDEX i ON t (c, a) WHERE c IS NOT NULL",
    "CREATE TABLE t (a int PRIMARY KEY, b text, c text); CREATE TABLE log (k INTEGER PRIMARY KEY, b);
     CREATE TRIGGER g AFTER INSERT ON t WHEN new.b <> '' BEGIN INSERT INTO log (b) VALUES (new.b); END",
    "CREATE TABLE t (a int PRIMARY KEY, b text, c text);
     CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET c = c || a WHERE a = new.a; END",
];

/// What values may be written like.
const FIELDS: &[&str] = &[
    "\\N",
    "",
    "0",
    "1",
    "-7",
    "9223372036854775807",
    "1.5",
    "-0.0",
    "1e300",
    "NaN",
    "inf",
    " 12 ",
    "+3",
    "0x10",
    "1e5",
    "2020-01-01",
    "2020-01-01 10:00:00",
    "10-5",
    "1-",
    "t",
    "false",
    "a",
    "ß漢",
    "\\\\x00ff",
    "{\"a\":1}",
    "00000000-0000-0000-0000-00000000000a",
    "1_000",
    ".5",
    "5.",
    "12e",
    "e5",
    "-",
    "123456789012345678901234567890",
];

fn field() -> impl Strategy<Value = String> {
    prop_oneof![proptest::sample::select(FIELDS).prop_map(str::to_owned), (0..50_i64).prop_map(|n| n.to_string())]
}

proptest! {
    #[test]
    fn what_is_stored_is_what_is_replayed(
        table in proptest::sample::select(TABLES),
        copies in proptest::collection::vec(proptest::collection::vec([field(), field(), field()], 1..6), 1..8),
    ) {
        let database = Database::new();
        let mut client = database.session();
        client.ok(table);
        for rows in copies {
            let rows: String = rows.iter().map(|row| row.join("\t") + "\n").collect();
            // Many fail, of values that do not fit, or the same key; then nothing stays.
            copy(&mut client, "t (a, b, c)", &rows);
        }
        client.ok("UPDATE t SET b = b WHERE a = 1; DELETE FROM t WHERE a = 2");
        database.assert_replays();
    }
}

#[test]
fn each_table_takes_rows_that_are_replayed() {
    for table in TABLES {
        let database = Database::new();
        let mut client = database.session();
        client.ok(table);
        // What is no value of the type is refused.
        let (yes, no) = if table.contains("uuid") {
            ("00000000-0000-0000-0000-00000000000a\t2020-01-01", "00000000-0000-0000-0000-00000000000b\t\\N")
        } else if table.contains("timestamp") {
            ("2020-01-01 10:00:00\t1", "2020-01-02\t\\N")
        } else {
            ("1\t1", "0\t\\N")
        };
        let tag = copy(&mut client, "t (a, b, c)", &format!("1\t{yes}\n2\t{no}\n"));
        let of_key = table.contains("PRIMARY KEY (c, a)");
        assert_eq!(tag, if of_key { "23502 COPY t, line 2" } else { "COPY 2" }, "{table}");
        let again = copy(&mut client, "t (a, b, c)", &format!("3\t{yes}\n4\t{yes}\n"));
        assert_eq!(again, if table.contains("UNIQUE") { "23505 COPY t, line 1" } else { "COPY 2" }, "{table}");
        client.ok("DELETE FROM t WHERE a = 1; UPDATE t SET c = 5 WHERE a > 1");
        database.assert_replays();
    }
}

/// The changesets of the last record.
fn changesets(database: &Database) -> Vec<Vec<u8>> {
    let payload = Payload::decode(&database.records().last().unwrap().payload).unwrap();
    let changesets = payload.parts.into_iter().filter_map(|part| match part {
        Part::Changeset(bytes) => Some(bytes),
        _ => None,
    });
    changesets.collect()
}

#[test]
fn a_row_is_written_as_sqlites_session_writes_it() {
    let long = "x".repeat(20_000);
    let (names, values) = ("k2 text, r double precision, n int, s text, b bytea, k1 int", "'k', 1.5, NULL");
    let database = Database::new();
    let mut client = database.session();
    client
        .ok(&format!("CREATE TABLE t ({names}, PRIMARY KEY (k1, k2)); CREATE TABLE u ({names}, PRIMARY KEY (k1, k2))"));
    client.ok(&format!("INSERT INTO t VALUES ({values}, '{long}', x'00ff', -5)"));
    let expected = changesets(&database);
    client.ok("DELETE FROM t");
    assert_eq!(copy(&mut client, "t", &format!("k\t1.5\t\\N\t{long}\t\\\\x00ff\t-5\n")), "COPY 1");
    assert_eq!(changesets(&database), expected);
    // In another order the session has it.
    client.ok("DELETE FROM t");
    let row = format!("-5\tk\t1.5\t\\N\t{long}\t\\\\x00ff\n");
    assert_eq!(copy(&mut client, "t (k1, k2, r, n, s, b)", &row), "COPY 1");
    assert_eq!(changesets(&database), expected);
    database.assert_replays();
}

#[test]
fn copies_in_a_block_keep_their_place_among_its_other_changes() {
    let database = Database::new();
    let mut client = database.session();
    // A type that only SQLite has an opinion of: to it, it is numeric.
    client.ok("CREATE TABLE t (a int PRIMARY KEY, b weird); CREATE TABLE u (a int PRIMARY KEY REFERENCES t)");
    client.ok("INSERT INTO t VALUES (1, 'old'), (2, 'old')");
    client.ok("BEGIN; DELETE FROM t WHERE a = 1");
    // The second row is one of which it is not known beforehand what it becomes.
    assert_eq!(copy(&mut client, "t", "1\tnew\n3\t1.50\n4\tx\n"), "COPY 3");
    client.ok("UPDATE t SET b = 'changed' WHERE a IN (1, 4); INSERT INTO u VALUES (3); SAVEPOINT s");
    assert_eq!(copy(&mut client, "t", "5\tgone\n6\tgone\n"), "COPY 2");
    client.ok("UPDATE t SET a = 60 WHERE a = 6; ROLLBACK TO s");
    assert_eq!(copy(&mut client, "t", "7\tx\n3\tx\n"), "23505 COPY t, line 2");
    assert_eq!(client.fails("SELECT 1"), "25P02");
    client.ok("ROLLBACK TO s; INSERT INTO t VALUES (8, 'x')");
    assert_eq!(copy(&mut client, "u", "9\n"), "23503 COPY u, line 1");
    client.ok("ROLLBACK TO s; INSERT INTO t VALUES (9, 'x')");
    assert_eq!(copy(&mut client, "u", "9\n1\n"), "COPY 2");
    assert_eq!(copy(&mut client, "u", ""), "COPY 0");
    client.ok("DELETE FROM t WHERE a = 2; COMMIT; DELETE FROM u WHERE a = 1");
    let rows = client.rows("SELECT group_concat(a || b, ' ') FROM (SELECT * FROM t ORDER BY a)");
    assert_eq!(rows, [["1changed 31.5 4changed 9x"]]);
    database.assert_replays();
}

#[test]
fn what_is_no_value_of_its_type_is_refused_where_it_stands() {
    let database = Database::new();
    let mut client = database.session();
    for (declared, good, bad, state) in [
        ("date", "2020-02-29", "2021-02-29", "22007"),
        ("date", "2020-02-29 10:00:00", "1582934400", "22007"),
        ("time", "23:59:59.5", "24:00:01", "22007"),
        ("timestamp", "infinity", "garbage", "22007"),
        ("timestamptz", "2020-01-01T00:00:00+02:00", "", "22007"),
        ("uuid", "{00000000-0000-0000-0000-00000000000a}", "a", "22P02"),
        ("bool", "yes", "garbage", "22P02"),
        ("numeric(10, 2)", "123456789012345678901234567890.5", "1.2.3", "22P02"),
        ("numeric", "NaN", "garbage", "22P02"),
        ("json", "{\"a\": [1, null]}", "{\"a\":", "22P02"),
        ("jsonb", "\"text\"", "text", "22P02"),
        ("double precision", "-Infinity", "NaN", "0A000"),
        ("bigint", "7", "7.5", "22P02"),
    ] {
        for key in ["a int PRIMARY KEY", "a int"] {
            client.ok(&format!("CREATE TABLE t ({key}, b {declared})"));
            assert_eq!(copy(&mut client, "t", &format!("1\t{good}\n2\t\\N\n")), "COPY 2", "{declared}");
            let refused = copy(&mut client, "t", &format!("3\t{good}\n4\t{bad}\n"));
            assert!(refused.starts_with(&format!("{state} COPY t, line 2, column b")), "{declared} {bad}: {refused}");
            assert_eq!(client.rows("SELECT count(*) FROM t"), [["2"]]);
            // As a literal it is SQLite's to judge.
            client.ok(&format!("INSERT INTO t VALUES (5, '{bad}')"));
            database.assert_replays();
            client.ok("DROP TABLE t");
        }
    }
    client.ok("CREATE TEMP TABLE t (a int, b date)");
    assert_eq!(copy(&mut client, "t", "1\tgarbage\n"), "22007 COPY t, line 1, column b");
}
