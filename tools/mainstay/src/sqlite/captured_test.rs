//! What is captured holds the same as what SQLite's own session captures, and as what was done.

use proptest::prelude::*;
use rusqlite::session::Session;

use super::super::health::Health;
use super::super::payload::{CHANGES_LIMIT_BYTES, Part, Payload};
use super::super::test_support::{Contents, MemoryLog, Seen, contents_of};
use super::super::writer::Writer;
use super::super::{DATABASE, apply};
use super::*;
use mainstay::lsn::Lsn;
use mainstay::wal::Record;

fn database(schema: &str) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    let state = format!("CREATE TABLE {STATE_TABLE} (applied); INSERT INTO {STATE_TABLE} VALUES (0)");
    connection.execute_batch(&state).unwrap();
    connection.execute_batch(schema).unwrap();
    connection
}

/// What a copy holds after the changes.
fn replayed(schema: &str, payload: Vec<u8>) -> Contents {
    let copy = database(schema);
    apply::apply(&copy, &[Record { start: Lsn::new(1), end: Lsn::new(2), payload }]).unwrap();
    contents_of(&copy)
}

/// What a session captures of statements, as a payload; what fails is undone.
fn by_session(connection: &Connection, statements: &[&str]) -> Vec<u8> {
    let mut session = Session::new(connection).unwrap();
    session.table_filter(Some(|table: &str| !is_never_captured(table)));
    session.attach(None::<&str>).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for sql in statements {
        connection.execute_batch(&format!("SAVEPOINT s; {sql}; RELEASE s")).unwrap();
    }
    let mut changeset = Vec::new();
    session.changeset_strm(&mut changeset).unwrap();
    connection.execute_batch("COMMIT").unwrap();
    Payload { database: DATABASE, parts: vec![Part::Changeset(changeset)] }.encode().unwrap()
}

/// Runs statements as a group does, with a hook, and those that succeeded again on another database, with a session. Fails
/// unless both can be replayed, and all four databases hold the same.
fn check_all_ways(schema: &str, statements: &[String]) {
    let log = MemoryLog::default();
    let mut writer = Writer::new(database(schema), Arc::new(Health::new())).unwrap();
    writer.begin().unwrap();
    let succeeds = |sql: &&String| writer.execute_apart(sql, &[], &mut Seen::default()).is_ok();
    let statements: Vec<&str> = statements.iter().filter(succeeds).map(String::as_str).collect();
    writer.commit(&log).unwrap();
    let captured = log.0.lock().records.pop().map(|record| record.payload);
    let expected = contents_of(writer.for_describe().0);
    // Nothing is committed if nothing was captured, so this also says that it rightly was nothing.
    assert_eq!(captured.map_or_else(|| contents_of(&database(schema)), |payload| replayed(schema, payload)), expected);
    let other = database(schema);
    let payload = by_session(&other, &statements);
    assert_eq!((contents_of(&other), replayed(schema, payload)), (expected.clone(), expected), "{statements:?}");
}

/// All have columns `k`, the key, `u` and `v`.
const SCHEMAS: &[&str] = &[
    "CREATE TABLE t (k INTEGER PRIMARY KEY, u UNIQUE, v)",
    "CREATE TABLE t (v, k TEXT PRIMARY KEY, u NUMERIC UNIQUE); CREATE INDEX i ON t (v, u) WHERE v > 2",
    "CREATE TABLE t (u REAL, v INT, k INT, PRIMARY KEY (k, u)) WITHOUT ROWID",
    "CREATE TABLE t (k ANY PRIMARY KEY, u REAL, v TEXT) STRICT",
    "CREATE TABLE t (g AS (v + 1), k INT PRIMARY KEY, h AS (typeof(u)) STORED, u UNIQUE, v)",
    "CREATE TABLE t (k INT PRIMARY KEY); INSERT INTO t VALUES (0), (1), (2);
     ALTER TABLE t ADD COLUMN u REAL DEFAULT 3; ALTER TABLE t ADD COLUMN v DEFAULT 'none'",
    "CREATE TABLE t (k INTEGER PRIMARY KEY, u, v); CREATE TABLE log (k INTEGER PRIMARY KEY, what, v);
     CREATE TRIGGER a AFTER INSERT ON t BEGIN INSERT INTO log (what, v) VALUES ('new', new.v); END;
     CREATE TRIGGER b BEFORE UPDATE ON t BEGIN UPDATE log SET v = old.v WHERE k = new.u; END;
     CREATE TRIGGER c AFTER DELETE ON t BEGIN DELETE FROM log WHERE k = old.k; END;
     CREATE TRIGGER d AFTER UPDATE OF v ON t WHEN new.v = 3 BEGIN SELECT raise(FAIL, 'three'); END",
    "CREATE TABLE t (k INTEGER PRIMARY KEY, u, v REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE);
     CREATE TABLE child (n INTEGER PRIMARY KEY, k DEFAULT 1 REFERENCES t ON DELETE SET NULL ON UPDATE SET DEFAULT);
     INSERT INTO t VALUES (0, 0, NULL), (1, 1, 0), (2, 2, 1); INSERT INTO child (k) VALUES (0), (1), (2)",
    "CREATE TABLE t (k INTEGER PRIMARY KEY, u, v REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..5_i32).prop_map(|number| number.to_string()),
        1 => Just("NULL".to_owned()),
        1 => Just("1.5".to_owned()),
        1 => Just("-0.0".to_owned()),
        1 => Just("'2'".to_owned()),
        1 => Just("'ß'".to_owned()),
        1 => Just("x'00ff'".to_owned()),
        1 => Just("zeroblob(300)".to_owned()),
    ]
}

fn statement() -> impl Strategy<Value = String> {
    let verb =
        || proptest::sample::select(&["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL", "REPLACE"]);
    let or = || proptest::sample::select(&["", "OR REPLACE", "OR IGNORE", "OR FAIL"]);
    prop_oneof![
        4 => (verb(), value(), value(), value())
            .prop_map(|(verb, k, u, v)| format!("{verb} INTO t (k, u, v) VALUES ({k}, {u}, {v})")),
        2 => (verb(), value(), value(), value(), value())
            .prop_map(|(verb, a, b, u, v)| format!("{verb} INTO t (v, u, k) VALUES ({v}, {u}, {a}), ({u}, {v}, {b})")),
        2 => (value(), value(), value()).prop_map(|(k, u, v)| {
            format!("INSERT INTO t (k, u, v) VALUES ({k}, {u}, {v}) ON CONFLICT DO UPDATE SET v = excluded.v, u = u RETURNING k, v")
        }),
        1 => verb().prop_map(|verb| format!("{verb} INTO t (k, u, v) SELECT k + 3, u + 3, v FROM t")),
        1 => verb().prop_map(|verb| format!("{verb} INTO t (u, v) VALUES (1, 2)")),
        3 => (or(), value(), value()).prop_map(|(or, from, to)| format!("UPDATE {or} t SET k = {to} WHERE k = {from}")),
        3 => (or(), value(), value()).prop_map(|(or, u, v)| format!("UPDATE {or} t SET u = {u} WHERE v = {v}")),
        2 => (or(), value()).prop_map(|(or, v)| format!("UPDATE {or} t SET v = {v}, k = k")),
        1 => or().prop_map(|or| format!("UPDATE {or} t SET k = k + 1, v = u, u = v")),
        2 => value().prop_map(|k| format!("DELETE FROM t WHERE k = {k}")),
        1 => Just("DELETE FROM t".to_owned()),
    ]
}

proptest! {
    #[test]
    fn what_is_captured_is_what_a_session_captures(
        schema in proptest::sample::select(SCHEMAS),
        statements in proptest::collection::vec(statement(), 1..12),
    ) {
        check_all_ways(schema, &statements);
    }
}

/// Starts capturing, runs statements and answers what was captured.
fn capture(schema: &str, sql: &str) -> Vec<u8> {
    let mut connection = database(schema);
    let capture = Capture::install(&mut connection).unwrap();
    capture.start(&connection, Vec::new(), 0).unwrap();
    connection.execute_batch(sql).unwrap();
    capture.check().unwrap();
    capture.take()
}

#[test]
fn a_change_is_written_as_a_session_writes_it() {
    for sql in [
        "INSERT INTO t (k, u, v) VALUES (7, 3, 'x')",
        "INSERT INTO t (k, u, v) VALUES ('7', '3', NULL)",
        "UPDATE t SET u = 9, v = v WHERE k = 2",
        "UPDATE t SET u = u, v = 'y' WHERE k = 2",
        "UPDATE t SET u = u",
        "DELETE FROM t WHERE k = 2",
        "DELETE FROM t WHERE k = 9",
    ] {
        for schema in SCHEMAS {
            let schema = format!("{schema}; INSERT OR REPLACE INTO t (k, u, v) VALUES (2, 1, 1)");
            // There it is not one change, or no change that the foreign key lets be.
            let has_several = schema.contains("log") && !sql.starts_with("INSERT");
            if has_several || schema.contains("REFERENCES") || (sql.contains("u = 9") && schema.contains("(k, u)")) {
                continue;
            }
            let other = database(&schema);
            let payload = Payload::decode(&by_session(&other, &[sql])).unwrap();
            assert_eq!(payload.parts, [Part::Changeset(capture(&schema, sql))], "{schema}: {sql}");
        }
    }
}

#[test]
fn rows_of_a_table_without_a_key_are_told_apart_by_their_rowid() {
    let schema = "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2), (1, 2)";
    let mut expected = changeset::table("t", &[1, 0, 0]);
    changeset::put_change(&mut expected, Operation::Update, By::Statement);
    changeset::put_value(&mut expected, ValueRef::Integer(2));
    changeset::leave_out(&mut expected);
    changeset::put_value(&mut expected, ValueRef::Integer(2));
    changeset::leave_out(&mut expected);
    changeset::leave_out(&mut expected);
    changeset::put_value(&mut expected, ValueRef::Null);
    changeset::put_change(&mut expected, Operation::Delete, By::Statement);
    for value in [ValueRef::Integer(1), ValueRef::Integer(1), ValueRef::Integer(2)] {
        changeset::put_value(&mut expected, value);
    }
    changeset::put_change(&mut expected, Operation::Delete, By::Statement);
    for value in [ValueRef::Integer(2), ValueRef::Integer(1), ValueRef::Null] {
        changeset::put_value(&mut expected, value);
    }
    changeset::put_change(&mut expected, Operation::Insert, By::Statement);
    for value in [ValueRef::Integer(7), ValueRef::Integer(1), ValueRef::Null] {
        changeset::put_value(&mut expected, value);
    }
    let sql = "UPDATE t SET b = NULL WHERE rowid = 2; DELETE FROM t WHERE rowid = 1; UPDATE t SET rowid = 7";
    assert_eq!(capture(schema, sql), expected);
}

#[test]
fn too_much_is_refused_until_it_is_undone() {
    let mut connection = database("CREATE TABLE t (k INTEGER PRIMARY KEY, v); CREATE TABLE u (k INTEGER PRIMARY KEY)");
    let capture = Capture::install(&mut connection).unwrap();
    capture.start(&connection, Vec::new(), 0).unwrap();
    connection.execute_batch("INSERT INTO t VALUES (1, 2)").unwrap();
    let mark = capture.mark();
    capture.0.lock().len_bytes = CHANGES_LIMIT_BYTES - 100;
    connection.execute_batch("INSERT INTO u VALUES (1); SAVEPOINT s").unwrap();
    capture.check().unwrap();
    connection.execute_batch("INSERT INTO t VALUES (2, zeroblob(80))").unwrap();
    assert_eq!(capture.check().unwrap_err().state, SqlState::PROGRAM_LIMIT_EXCEEDED);
    let taken = |capture: &Capture| capture.0.lock().tables.iter().map(|table| table.changes.len()).sum::<usize>();
    let before = taken(&capture);
    connection.execute_batch("INSERT INTO t VALUES (3, zeroblob(80))").unwrap();
    assert_eq!(taken(&capture), before);
    capture.back_to(&mark);
    capture.check().unwrap();
    let len_bytes = capture.0.lock().len_bytes;
    assert_eq!((len_bytes, capture.mark().0), (taken(&capture), mark.0));
    // What was taken before counts as well.
    capture.start(&connection, Vec::new(), CHANGES_LIMIT_BYTES - 100).unwrap();
    connection.execute_batch("INSERT INTO u VALUES (2)").unwrap();
    capture.check().unwrap();
    capture.note_before(CHANGES_LIMIT_BYTES);
    connection.execute_batch("INSERT INTO u VALUES (3)").unwrap();
    assert_eq!(capture.check().unwrap_err().state, SqlState::PROGRAM_LIMIT_EXCEEDED);
}

#[test]
fn a_table_that_is_not_known_as_it_is_fails_what_changes_it() {
    let mut connection = database("CREATE TABLE t (a)");
    let capture = Capture::install(&mut connection).unwrap();
    for change in ["ALTER TABLE t ADD COLUMN b", "CREATE TABLE u (a)"] {
        capture.start(&connection, Vec::new(), 0).unwrap();
        connection.execute_batch(change).unwrap();
        connection.execute_batch("INSERT INTO t (a) VALUES (1)").unwrap();
        connection.execute_batch(if change.contains("u (") { "INSERT INTO u VALUES (1)" } else { "" }).unwrap();
        assert_eq!(capture.check().unwrap_err().state, SqlState::INTERNAL_ERROR, "{change}");
        capture.schema_moved();
    }
}

#[test]
fn the_zeros_of_both_signs_are_two_values() {
    let schema = "CREATE TABLE t (k INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 0.0)";
    assert!(!capture(schema, "UPDATE t SET v = -0.0").is_empty());
    assert!(capture(schema, "UPDATE t SET v = 0.0").is_empty());
}
