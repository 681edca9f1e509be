//! SQLite's COMMIT fails although the transaction is in the WAL.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;

use super::STATE_TABLE;
use super::test_support::{MemoryLog, Seen};
use super::writer::Writer;

/// A writer whose next `failures` SQLite commits fail, as a full disk would make them.
fn writer() -> (Writer, Arc<AtomicUsize>) {
    let mut connection = Connection::open_in_memory().unwrap();
    let sql = format!("CREATE TABLE {STATE_TABLE} (applied); INSERT INTO {STATE_TABLE} VALUES (0); CREATE TABLE t (a)");
    connection.execute_batch(&sql).unwrap();
    let failures = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&failures);
    let fail = move || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    connection.commit_hook(Some(fail)).unwrap();
    (Writer::new(connection).unwrap(), failures)
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

#[test]
fn if_that_fails_too_nothing_is_written_any_more_and_it_is_still_committed() {
    let (mut writer, failures) = writer();
    let log = MemoryLog::default();
    writer.begin().unwrap();
    writer.execute("INSERT INTO t VALUES (1)", &[], &mut Seen::default()).unwrap();
    failures.store(2, Ordering::SeqCst);
    writer.commit(&log).unwrap();
    assert_eq!((failures.load(Ordering::SeqCst), count(&writer), applied(&writer)), (0, 0, 0));
    assert_eq!(writer.begin().unwrap_err().state.0, "58030");
    assert_eq!(log.0.lock().records.len(), 1);
}
