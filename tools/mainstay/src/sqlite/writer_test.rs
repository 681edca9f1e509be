//! SQLite's COMMIT fails although the transaction is in the WAL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mainstay::server::pg::{Column, ResultSink, SqlError, SqlState, Value};
use mainstay::wal::AppendError;
use rusqlite::Connection;

use super::STATE_TABLE;
use super::health::Health;
use super::test_support::{Database, MemoryLog, Seen};
use super::writer::Writer;

/// A writer whose next `failures` SQLite commits fail, as a full disk would make them.
fn writer() -> (Writer, Arc<AtomicUsize>) {
    let (writer, failures, _) = writer_and_health();
    (writer, failures)
}

fn writer_and_health() -> (Writer, Arc<AtomicUsize>, Arc<Health>) {
    let mut connection = Connection::open_in_memory().unwrap();
    let sql = format!("CREATE TABLE {STATE_TABLE} (applied); INSERT INTO {STATE_TABLE} VALUES (0); CREATE TABLE t (a)");
    connection.execute_batch(&sql).unwrap();
    let failures = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&failures);
    let fail = move || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    connection.commit_hook(Some(fail)).unwrap();
    let health = Arc::new(Health::new());
    (Writer::new(connection, Arc::clone(&health)).unwrap(), failures, health)
}

fn count(writer: &Writer) -> i64 {
    writer.for_describe().0.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn applied(writer: &Writer) -> u64 {
    super::apply::stored_lsn(writer.for_describe().0).unwrap().get()
}

#[test]
fn the_transaction_is_applied_from_its_record() {
    let (mut writer, failures) = writer();
    let log = MemoryLog::default();
    writer.begin().unwrap();
    writer.execute("INSERT INTO t VALUES (1), (2)", &[], &mut Seen::default()).unwrap();
    failures.store(1, Ordering::SeqCst);
    writer.commit(&log).unwrap();
    let end = log.0.lock().records[0].end.get();
    assert_eq!((failures.load(Ordering::SeqCst), count(&writer), applied(&writer)), (0, 2, end));
    writer.begin().unwrap();
    writer.execute("DELETE FROM t", &[], &mut Seen::default()).unwrap();
    writer.commit(&log).unwrap();
    assert_eq!(count(&writer), 0);
}

#[tokio::test]
async fn if_that_fails_too_nothing_is_written_any_more_and_it_is_still_committed() {
    let (mut writer, failures, health) = writer_and_health();
    let log = MemoryLog::default();
    writer.begin().unwrap();
    writer.execute("INSERT INTO t VALUES (1)", &[], &mut Seen::default()).unwrap();
    failures.store(2, Ordering::SeqCst);
    writer.commit(&log).unwrap();
    assert_eq!((failures.load(Ordering::SeqCst), count(&writer), applied(&writer)), (0, 0, 0));
    assert_eq!(writer.begin().unwrap_err().state.0, "58030");
    assert_eq!(log.0.lock().records.len(), 1);
    let reason = health.failed().await;
    assert!(reason.contains("could not be put into SQLite"), "{reason}");
}

#[tokio::test]
async fn a_commit_that_panics_lets_nobody_step_over_its_record() {
    let (mut writer, _, health) = writer_and_health();
    let log = MemoryLog::default();
    log.0.lock().on_commit = Some(Box::new(|| panic!("in the middle of a commit")));
    writer.begin().unwrap();
    writer.execute("INSERT INTO t VALUES (1)", &[], &mut Seen::default()).unwrap();
    let commit = std::panic::AssertUnwindSafe(|| writer.commit(&log));
    std::panic::catch_unwind(commit).unwrap_err();
    // As the session does when it unwinds.
    writer.rollback();
    assert_eq!(writer.begin().unwrap_err().state.0, "58030");
    assert!(health.failed().await.contains("a commit ended"));
}

#[test]
fn a_log_that_took_nothing_does_not_stop_writes() {
    let (mut writer, _) = writer();
    let log = MemoryLog::default();
    log.0.lock().append_failures.push(AppendError::DiskFull);
    writer.begin().unwrap();
    writer.execute("INSERT INTO t VALUES (1)", &[], &mut Seen::default()).unwrap();
    assert_eq!(SqlError::from(writer.commit(&log).unwrap_err()).state.0, "53100");
    writer.begin().unwrap();
    writer.execute("INSERT INTO t VALUES (2)", &[], &mut Seen::default()).unwrap();
    writer.commit(&log).unwrap();
    assert_eq!(count(&writer), 1);
}

#[test]
fn what_sqlite_cannot_store_is_noticed_before_the_log() {
    let (mut writer, _) = writer();
    let log = MemoryLog::default();
    let trigger = "CREATE TRIGGER g BEFORE UPDATE ON mainstay_state BEGIN SELECT raise(ABORT, 'no'); END";
    let (connection, policy) = writer.for_describe();
    policy.own(|| connection.execute_batch(trigger)).unwrap();
    writer.begin().unwrap();
    writer.execute("INSERT INTO t VALUES (1)", &[], &mut Seen::default()).unwrap();
    writer.commit(&log).unwrap_err();
    assert_eq!((log.0.lock().records.len(), count(&writer)), (0, 0));
}

/// `OR FAIL` leaves the rows before the one that failed.
#[test]
fn what_a_failed_statement_left_is_not_committed() {
    let (mut writer, _) = writer();
    let log = MemoryLog::default();
    writer.begin().unwrap();
    let fails = "INSERT OR FAIL INTO t VALUES (1), (abs(-9223372036854775808))";
    writer.execute(fails, &[], &mut Seen::default()).unwrap_err();
    writer.commit(&log).unwrap_err();
    assert_eq!((log.0.lock().records.len(), count(&writer)), (0, 0));
    writer.begin().unwrap();
    writer.savepoint("s").unwrap();
    writer.execute(fails, &[], &mut Seen::default()).unwrap_err();
    writer.rollback_to("s").unwrap();
    writer.execute("INSERT INTO t VALUES (2)", &[], &mut Seen::default()).unwrap();
    writer.commit(&log).unwrap();
    assert_eq!((log.0.lock().records.len(), count(&writer)), (1, 1));
}

/// SQLite's statement journal takes back what the capture has written down. What gives rows may have changed some.
#[test]
fn what_sqlite_undid_by_itself_is_not_committed_either() {
    for fails in [
        "INSERT INTO t VALUES (1), (abs(-9223372036854775808))",
        "INSERT INTO t VALUES (1), (2) RETURNING a",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT abs(-9223372036854775808) FROM x",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x RETURNING a",
        "CREATE TABLE t (a)",
    ] {
        let (mut writer, _) = writer();
        let log = MemoryLog::default();
        writer.begin().unwrap();
        writer.execute("INSERT INTO t VALUES (0)", &[], &mut Seen::default()).unwrap();
        writer.execute(fails, &[], &mut Full).unwrap_err();
        // Neither a read that succeeds nor one that fails makes it good.
        writer.execute("SELECT 1", &[], &mut Seen::default()).unwrap();
        writer.execute("SELECT 1", &[], &mut Full).unwrap_err();
        writer.execute("INSERT INTO t VALUES (0)", &[], &mut Seen::default()).unwrap();
        writer.commit(&log).unwrap_err();
        assert_eq!((log.0.lock().records.len(), count(&writer)), (0, 0), "{fails}");
    }
}

#[test]
fn what_failed_and_left_nothing_is_no_reason_not_to_commit() {
    let (mut writer, _) = writer();
    let log = MemoryLog::default();
    writer.begin().unwrap();
    writer.execute("INSERT INTO t VALUES (1)", &[], &mut Seen::default()).unwrap();
    for fails in ["SELECT a FROM t", "WITH x AS (SELECT 1) SELECT * FROM x", "VALUES (1)", "PRAGMA table_info(t)"] {
        writer.execute(fails, &[], &mut Full).unwrap_err();
    }
    for fails in ["DELETE FROM nowhere", "WITH x AS (SELECT 1) DELETE FROM nowhere", "SELECT abs(-9223372036854775808)"]
    {
        writer.execute(fails, &[], &mut Seen::default()).unwrap_err();
    }
    writer.commit(&log).unwrap();
    assert_eq!((log.0.lock().records.len(), count(&writer)), (1, 1));
}

/// As a reply that has no room for a row.
struct Full;

impl ResultSink for Full {
    fn columns(&mut self, _: &[Column]) -> Result<(), SqlError> {
        Ok(())
    }

    fn row(&mut self, _: &[Value<'_>]) -> Result<(), SqlError> {
        Err(SqlError::new(SqlState::INTERNAL_ERROR, "full"))
    }

    fn notice(&mut self, _: &SqlError) -> Result<(), SqlError> {
        Ok(())
    }
}

#[test]
fn a_transaction_that_reads_more_than_a_reply_holds_is_committed() {
    let database = Database::new();
    let mut client = database.session();
    client.ok("CREATE TABLE t (a INTEGER PRIMARY KEY, b)");
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) SELECT i FROM n";
    client.ok(&format!("INSERT INTO t (b) {many}"));
    for (before, behind) in [("", ""), ("SAVEPOINT s; ", "; RELEASE s")] {
        client.ok(&format!("BEGIN; INSERT INTO t (b) VALUES (0); {before}SELECT a, b FROM t{behind}"));
        assert_eq!(client.tag("COMMIT"), "COMMIT");
    }
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["9002"]]);
    // No table has a counter yet.
    client.ok("BEGIN; INSERT INTO t (b) VALUES (0); TRUNCATE t RESTART IDENTITY; INSERT INTO t (b) VALUES (1)");
    assert_eq!(client.tag("COMMIT"), "COMMIT");
    assert_eq!(client.tag("TRUNCATE t RESTART IDENTITY"), "TRUNCATE TABLE");
    assert_eq!(client.rows("SELECT count(*) FROM t"), [["0"]]);
    database.assert_replays();
}

#[test]
fn an_interrupt_does_not_stop_a_rollback() {
    let (mut writer, _) = writer();
    let interrupt = writer.for_describe().0.get_interrupt_handle();
    let over = AtomicBool::new(false);
    let refused = std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                interrupt.interrupt();
            }
        });
        // A rollback that failed leaves a writer that refuses everything.
        let refused = (0..10_000).find_map(|_| {
            let refused = writer.begin().err().filter(|error| error.state.0 != "57014");
            writer.rollback();
            refused
        });
        over.store(true, Ordering::SeqCst);
        refused
    });
    assert!(refused.is_none(), "{refused:?}");
}
