//! Devices and systems that hang or fail beside the flushes: in recycling, in preparation, for want of descriptors.

use std::time::Instant;

use super::retention::HolderKind;
use super::testing::*;
use super::*;
use crate::config::WalConfig;
use crate::disk::lossy::{Faults, LossyDisk};
use crate::lsn::Lsn;

/// A log of ten records of two to a segment, all durable, with nothing to prepare, and where they end.
fn filled(config: WalConfig) -> (LossyDisk, Wal, Vec<Lsn>) {
    let disk = LossyDisk::new(Faults::default());
    let wal = open_with(&disk, Evidence::default(), config).unwrap();
    let ends: Vec<_> = (0..10).map(|number| append(&wal, &payload(number, 900)).unwrap()).collect();
    wal.make_durable(ends[9]).unwrap();
    settle(&wal);
    (disk, wal, ends)
}

/// Appends and makes durable, as soon as there is room: that must not take long.
fn commit_soon(wal: &Wal, payload: &[u8]) -> Lsn {
    let deadline = Instant::now() + PATIENCE;
    let end = loop {
        match wal.append(payload) {
            Err(AppendError::Busy { .. }) => assert!(Instant::now() < deadline, "there is no room"),
            other => break other.unwrap(),
        }
        std::thread::yield_now();
    };
    wal.make_durable(end).unwrap();
    end
}

#[test]
fn nobody_waits_for_recycling_that_hangs() {
    let (disk, wal, ends) = filled(WalConfig { max_retained_bytes: 2 * SEGMENT_BYTES, ..config() });
    let start = layout().first_record();
    let slot = wal.hold(HolderKind::Slot, "slow", start).unwrap();
    let reader = wal.reader(ends[8]);
    std::thread::scope(|scope| {
        let hanging = disk.hang_next_sync_dir();
        let recycler = scope.spawn(|| wal.recycle(ends[9]));
        poll("nothing is recycled", || hanging.is_reached());
        // Over several segments, each of which has to be prepared.
        for number in 0..10 {
            commit_soon(&wal, &payload(number, 900));
        }
        assert!(wal.status().unwrap().oldest > start);
        assert!(matches!(slot.check(), Err(WalError::Invalidated { .. })));
        assert!(matches!(wal.hold(HolderKind::Slot, "late", start), Err(WalError::Recycled { .. })));
        assert!(matches!(wal.reader(start).next_durable(), Err(WalError::Recycled { .. })));
        assert_eq!(read_all(&wal, ends[8]).unwrap().len(), 11);
        drop((slot, reader));
        assert!(wal.retention(ends[9]).invalidated().next().is_none());
        drop(hanging);
        assert!(recycler.join().unwrap().unwrap() > 1);
    });
    assert!(wal.recycle(wal.durable()).unwrap() > 1);
}
