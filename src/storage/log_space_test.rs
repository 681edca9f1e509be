use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rocksdb::WriteBatch;
use tempfile::TempDir;

use super::*;
use crate::storage::store::LOCAL;
use crate::storage::{Durability, Family, META_DIR};

const SEGMENT_BYTES: u64 = 16 << 20;

fn open(directory: &Path) -> Arc<Storage> {
    Arc::new(Storage::open(directory, SEGMENT_BYTES).expect("a directory"))
}

/// The bytes of the log in use, and how many of them are on the disk.
fn log_bytes(storage: &Storage) -> (u64, u64) {
    let log = newest_log(storage.tables().path()).expect("a directory").expect("a log");
    let status = log.metadata().expect("a file");
    (status.len(), status.blocks() * 512)
}

fn await_log_of(storage: &Storage, bytes: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while log_bytes(storage).0 < bytes {
        assert!(Instant::now() < deadline, "the log stays at {:?}, not {bytes}", log_bytes(storage));
        thread::yield_now();
    }
}

fn put(storage: &Storage, number: u64, value: &[u8], durability: Durability) {
    let mut batch = storage.batch().expect("a batch");
    batch.put(Family::Kv, &number.to_be_bytes(), value);
    storage.write(batch, durability).expect("a write");
}

/// A directory as a kill leaves it.
fn killed(directory: &Path) -> TempDir {
    let copy = TempDir::new().expect("a directory");
    let copied = std::process::Command::new("cp").arg("-a").arg(directory.join(".")).arg(copy.path()).status();
    assert!(copied.expect("cp").success());
    copy
}

fn is_there(storage: &Storage, number: u64, value: &[u8]) -> bool {
    let read = |bytes: &[u8]| bytes == value;
    storage.tables().now().get(Family::Kv, &number.to_be_bytes(), read).expect("a read") == Some(true)
}

#[test]
fn the_log_has_room_ahead_of_what_is_written_and_no_more_than_it_can_use() {
    let directory = TempDir::new().expect("a directory");
    let storage = open(directory.path());
    assert!(log_bytes(&storage).0 < STEP_BYTES, "there is nothing to show: {:?}", log_bytes(&storage));
    storage.keep_log_space().expect("a thread");
    await_log_of(&storage, AHEAD_BYTES);
    let value = vec![7; 64 << 10];
    for number in 0..64 {
        put(&storage, number, &value, Durability::Buffered);
    }
    await_log_of(&storage, AHEAD_BYTES + (4 << 20) - STEP_BYTES);
    assert!(log_bytes(&storage).0 < AHEAD_BYTES + (7 << 20), "{:?}", log_bytes(&storage));
    assert!(log_bytes(&storage).1 >= log_bytes(&storage).0, "blocks are missing: {:?}", log_bytes(&storage));
    // A new log begins small, and is noticed.
    storage.tables().db.flush_cf(storage.tables().family(Family::Kv.name()).expect("it")).expect("a flush");
    for number in 0..32 {
        put(&storage, number, &value, Durability::Buffered);
    }
    await_log_of(&storage, AHEAD_BYTES + STEP_BYTES);
}

/// Zeros at the end of logs, also of such as others follow, hide nothing and take nothing away.
#[test]
fn nothing_is_lost_to_the_room_in_logs() {
    let directory = TempDir::new().expect("a directory");
    let storage = open(directory.path());
    storage.keep_log_space().expect("a thread");
    let value = |number: u64| number.to_le_bytes().repeat(1 + (number % 1000) as usize);
    let local = |storage: &Storage| {
        // A family that is written out begins a new log, and the others still need the old one.
        let tables = storage.tables();
        let mut batch = WriteBatch::default();
        batch.delete_cf(tables.family(LOCAL).expect("it"), b"nothing");
        storage.commit(batch, Durability::Buffered).expect("a write");
        tables.db.flush_cf(tables.family(LOCAL).expect("it")).expect("a flush");
    };
    let mut logs = 0;
    for number in 0..3000 {
        let durability = if number % 10 == 0 { Durability::Synced } else { Durability::Buffered };
        put(&storage, number, &value(number), durability);
        if number % 700 == 699 {
            local(&storage);
        }
        if number % 450 == 449 {
            let copy = killed(directory.path());
            let paths = std::fs::read_dir(copy.path().join(META_DIR)).expect("files");
            let is_log = |path: &PathBuf| path.extension() == Some(OsStr::new("log"));
            logs = logs.max(paths.map(|entry| entry.expect("an entry").path()).filter(is_log).count());
            let reopened = open(copy.path());
            let missing: Vec<u64> =
                (0..=number).filter(|number| !is_there(&reopened, *number, &value(*number))).collect();
            assert_eq!(missing, [0; 0], "after {number}");
        }
    }
    assert!(logs > 1, "there was never more than one log");
}
