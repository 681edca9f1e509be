//! What the tests of this room share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::config::WalConfig;
use crate::disk::Disk;
use crate::ident::SystemId;
use crate::lsn::{Lsn, TimelineId};

pub const SEGMENT_BYTES: u64 = 2048;

/// The longest that a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn layout() -> Layout {
    Layout::new(SEGMENT_BYTES)
}

pub fn directory(disk: &(impl Disk + Clone), path: impl Into<PathBuf>) -> SegmentDirectory {
    SegmentDirectory::new(Arc::new(disk.clone()), path.into(), layout(), SystemId::new(7), TimelineId::FIRST)
}

pub fn config() -> WalConfig {
    WalConfig {
        segment_size_bytes: SEGMENT_BYTES,
        max_record_bytes: 1 << 20,
        max_unsynced_bytes: 64 << 10,
        reserve_bytes: 0,
        keep_bytes: 0,
        max_retained_bytes: 0,
        sync_limit: Duration::from_secs(10),
        scrub_bytes_per_second: 0,
    }
}

pub fn open(disk: &(impl Disk + Clone), evidence: Evidence) -> Result<Wal, WalError> {
    open_with(disk, evidence, config())
}

pub fn open_with(disk: &(impl Disk + Clone), evidence: Evidence, config: WalConfig) -> Result<Wal, WalError> {
    Wal::open(scan(directory(disk, Path::new("/wal")), evidence)?, config)
}

/// Appends, waiting for room as long as it takes.
pub fn append(wal: &Wal, payload: &[u8]) -> Result<Lsn, AppendError> {
    loop {
        match wal.append(payload) {
            Err(AppendError::Busy { len_bytes }) => wal.room_blocking(len_bytes)?,
            other => return other,
        }
    }
}

/// Asks until the answer is yes.
pub fn poll(what: &str, is_reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_reached() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Waits until every segment that was wanted is prepared: no sync but one of ours comes until another one is.
pub fn settle(wal: &Wal) {
    poll("a segment is not prepared", || wal.shared.tail.supply().to_prepare().is_none());
}

/// All records that can be read from `from` on.
pub fn read_all(wal: &Wal, from: Lsn) -> Result<Vec<Record>, WalError> {
    let mut reader = wal.reader(from);
    std::iter::from_fn(|| reader.next_durable().transpose()).collect()
}

/// A payload that says which it is.
pub fn payload(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number as usize * 31 + at / 7) as u8 | 1).collect()
}
