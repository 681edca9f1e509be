//! What SQLite ends by itself, in the middle of a transaction, when a statement fails for want of disk.

use mainstay::server::pg::{ClientInfo, Scope};
use rusqlite::ffi;
use rusqlite::functions::FunctionFlags;

use super::super::test_support::{Client, Database, Seen};
use super::*;

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
    let full = |_: &rusqlite::functions::Context<'_>| -> rusqlite::Result<i64> {
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
