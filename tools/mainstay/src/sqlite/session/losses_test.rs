//! What SQLite ends by itself, in the middle of a transaction, when a statement fails for want of disk.

use std::sync::Arc;

use mainstay::server::pg::{ClientInfo, Scope, Session};
use rusqlite::ffi;
use rusqlite::functions::{Context, FunctionFlags};

use super::super::super::test_support::{Client, Database, Seen};
use super::SqliteSession;

/// A session that has run `sql`, which opens the connections that it needs.
fn session(database: &Database, sql: &str) -> SqliteSession {
    let mut session = SqliteSession::new(Arc::clone(&database.engine.shared), &ClientInfo::default()).unwrap();
    session.execute(sql, &[], Scope::Single, &mut Seen::default()).unwrap();
    session
}

/// A session whose reads fail where they call `no_space()`, as those do that need more room to sort than there is.
fn without_space(database: &Database) -> Client {
    let session = session(database, "SELECT 1");
    let connection = &session.reader.as_ref().unwrap().connection;
    let full = |_: &Context<'_>| -> rusqlite::Result<i64> {
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None))
    };
    connection.create_scalar_function("no_space", 0, FunctionFlags::SQLITE_UTF8, full).unwrap();
    Client(Box::new(session))
}

#[test]
fn a_transaction_whose_one_state_is_gone_sees_no_other() {
    for modes in ["SERIALIZABLE", "REPEATABLE READ", "SERIALIZABLE READ ONLY"] {
        let database = Database::new();
        let mut other = database.session();
        other.ok("CREATE TABLE t (n); INSERT INTO t VALUES (100)");
        let mut client = without_space(&database);
        client.ok(&format!("BEGIN ISOLATION LEVEL {modes}"));
        assert_eq!(client.rows("SELECT n FROM t"), [["100"]]);
        client.ok("SAVEPOINT s");
        assert_eq!(client.fails("SELECT no_space() FROM t"), "53100");
        other.ok("UPDATE t SET n = 50");
        assert_eq!(client.fails("ROLLBACK TO s"), "25P02");
        assert_eq!(client.fails("SELECT n FROM t"), "25P02");
        assert_eq!(client.fails("UPDATE t SET n = 70"), "25P02");
        assert_eq!(client.tag("COMMIT"), "ROLLBACK");
        client.ok("BEGIN ISOLATION LEVEL SERIALIZABLE");
        assert_eq!(client.rows("SELECT n FROM t"), [["50"]]);
        client.ok("COMMIT");
    }
}

/// A session whose temporary tables, of which `keep` is one, have little room.
fn with_little_room(database: &Database) -> Client {
    let session = session(database, "CREATE TEMP TABLE keep (a)");
    let temporary = session.temporary.as_ref().unwrap();
    temporary.policy.own(|| temporary.connection.execute_batch("PRAGMA temp.max_page_count = 40")).unwrap();
    Client(Box::new(session))
}

const NUMBERS: &str = "WITH RECURSIVE i (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i LIMIT 1000) SELECT n FROM i";

#[test]
fn a_transaction_whose_temporary_changes_are_gone_commits_nothing() {
    let made = format!("CREATE TEMP TABLE big AS SELECT zeroblob(1000) FROM ({NUMBERS}), stored");
    let inserted = format!("INSERT INTO keep SELECT zeroblob(1000) FROM ({NUMBERS})");
    for (first, fails) in [
        // Of what the writer selects.
        ("INSERT INTO stored VALUES (1)", made.as_str()),
        ("SELECT 1", made.as_str()),
        // Which SQLite may undo by itself; then the block goes on.
        ("INSERT INTO stored VALUES (1)", inserted.as_str()),
    ] {
        let database = Database::new();
        database.session().ok("CREATE TABLE stored (n); INSERT INTO stored VALUES (0)");
        let mut client = with_little_room(&database);
        client.ok(&format!("BEGIN; INSERT INTO keep VALUES (1); {first}; SAVEPOINT s"));
        assert_eq!(client.fails(fails), "53100", "{fails}");
        let go_on = "ROLLBACK TO s; INSERT INTO stored SELECT 100 + count(*) FROM keep; COMMIT";
        let counted = match client.run(go_on) {
            Ok(_) => ["101", "1"],
            Err(error) => {
                assert_eq!(error.state.0, "25P02", "{fails}");
                assert_eq!(client.fails("SELECT * FROM keep"), "25P02");
                assert_eq!(client.tag("COMMIT"), "ROLLBACK");
                ["0", "0"]
            }
        };
        let seen = client.rows("SELECT (SELECT max(n) FROM stored), (SELECT count(*) FROM keep)");
        assert_eq!(seen, [counted], "{fails}");
        // And it begins anew.
        client.ok("BEGIN; INSERT INTO keep VALUES (2); CREATE TEMP TABLE big (a); SAVEPOINT s; ROLLBACK TO s; COMMIT");
        client.ok("DROP TABLE big");
    }
}

#[test]
fn nor_does_one_of_which_a_statement_rolled_back_its_temporary_changes() {
    let database = Database::new();
    database.session().ok("CREATE TABLE stored (n)");
    let mut client = database.session();
    client.ok("CREATE TEMP TABLE keep (a PRIMARY KEY); BEGIN; INSERT INTO keep VALUES (1)");
    client.ok("INSERT INTO stored VALUES (1); SAVEPOINT s");
    assert_eq!(client.fails("INSERT OR ROLLBACK INTO keep VALUES (1)"), "23505");
    // Others need not wait for the end of what is over.
    database.session().ok("INSERT INTO stored VALUES (2)");
    assert_eq!(client.fails("ROLLBACK TO s"), "25P02");
    assert_eq!(client.tag("COMMIT"), "ROLLBACK");
    assert_eq!(client.rows("SELECT n, (SELECT count(*) FROM keep) FROM stored"), [["2", "0"]]);
}

#[test]
fn a_read_that_fails_elsewhere_ends_nothing() {
    let database = Database::new();
    database.session().ok("CREATE TABLE t (n); INSERT INTO t VALUES (100)");
    let mut client = without_space(&database);
    // Each statement sees what is committed then.
    client.ok("BEGIN ISOLATION LEVEL READ COMMITTED; SAVEPOINT s");
    assert_eq!(client.fails("SELECT no_space() FROM t"), "53100");
    client.ok("ROLLBACK TO s; UPDATE t SET n = n + 1; COMMIT");
    // SQLite goes on after other errors.
    client.ok("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT n FROM t; SAVEPOINT s");
    client.fails("SELECT abs(-9223372036854775808 + n - n) FROM t");
    client.ok("ROLLBACK TO s; UPDATE t SET n = n + 1; COMMIT");
    assert_eq!(client.rows("SELECT n FROM t"), [["102"]]);
}
