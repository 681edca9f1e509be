//! When a checkpoint is due, on a disk that is full.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::WalConfig;
use crate::disk::lossy::{Faults, LossyDisk};
use crate::engine::EngineError;
use crate::primary::Primary;
use crate::wal::testing::{SEGMENT_BYTES, config, open_with, payload, poll};
use crate::wal::{AppendError, Evidence, Record};

/// Has applied whatever is durable, and counts its checkpoints.
struct Counting {
    wal: Arc<Wal>,
    checkpoints: AtomicUsize,
}

impl Engine for Counting {
    fn applied(&self) -> Result<Lsn, EngineError> {
        Ok(self.wal.durable())
    }

    fn apply(&self, _records: &[Record]) -> Result<(), EngineError> {
        Ok(())
    }

    fn checkpoint(&self) -> Result<Lsn, EngineError> {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(self.wal.durable())
    }

    fn promote(&self, _primary: Primary) -> Result<(), EngineError> {
        Ok(())
    }

    fn demote(&self) {}
}

/// What the thread works on, with a log on a disk that has room for twelve segments, and the engine.
fn work(place: &std::path::Path, keep_bytes: u64) -> (Work, Arc<Counting>) {
    let disk = LossyDisk::new(Faults { capacity_bytes: Some(12 * SEGMENT_BYTES), ..Faults::default() });
    let wal = open_with(&disk, Evidence::default(), WalConfig { keep_bytes, ..config() }).unwrap();
    let wal = Arc::new(wal);
    let engine = Arc::new(Counting { wal: Arc::clone(&wal), checkpoints: AtomicUsize::new(0) });
    let work = Work {
        config: CheckpointConfig { wal_bytes: 1 << 30, interval: Duration::from_secs(3600) },
        engine: Arc::clone(&engine) as Arc<dyn Engine>,
        wal,
        storage: Arc::new(Storage::open(place, SEGMENT_BYTES).unwrap()),
        tried: (Instant::now(), Lsn::NONE),
        noted: Lsn::NONE,
    };
    (work, engine)
}

fn fill(wal: &Wal) {
    loop {
        match wal.append(&payload(1, 900)) {
            Ok(end) => wal.make_durable(end).unwrap(),
            Err(AppendError::Busy { .. }) => std::thread::yield_now(),
            Err(AppendError::DiskFull) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_disk_is_relieved_by_a_checkpoint_and_not_by_many() {
    let place = tempfile::tempdir().unwrap();
    let (mut work, engine) = work(place.path(), 0);
    let count = || engine.checkpoints.load(Ordering::Relaxed);
    let long_ago = || Instant::now().checked_sub(RELIEF_INTERVAL).unwrap();
    work.wal
        .make_durable(loop {
            if let Ok(end) = work.wal.append(&payload(0, 900)) {
                break end;
            }
        })
        .unwrap();
    work.tried.0 = long_ago();
    work.step().unwrap();
    assert_eq!(count(), 0, "the disk is not full");
    fill(&work.wal);
    work.tried.0 = Instant::now();
    work.step().unwrap();
    assert_eq!(count(), 0, "one was tried a moment ago");
    work.tried.0 = long_ago();
    work.step().unwrap();
    assert_eq!(count(), 1, "the disk stays full");
    assert!(work.tried.0.elapsed() < RELIEF_INTERVAL && work.noted == work.wal.durable());
    poll("writes do not resume", || !work.wal.is_full());
    work.tried.0 = long_ago();
    work.step().unwrap();
    assert_eq!(count(), 1, "nothing was written since");
}

#[test]
fn a_full_disk_is_no_reason_for_a_checkpoint_that_frees_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (mut work, engine) = work(place.path(), 1 << 30);
    fill(&work.wal);
    work.tried.0 = Instant::now().checked_sub(RELIEF_INTERVAL).unwrap();
    work.step().unwrap();
    assert_eq!(engine.checkpoints.load(Ordering::Relaxed), 0);
}
