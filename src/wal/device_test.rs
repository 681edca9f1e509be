//! Devices and systems that hang or fail beside the flushes: in recycling, in preparation, for want of descriptors.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::retention::HolderKind;
use super::testing::*;
use super::watchdog::Watchdog;
use super::*;
use crate::config::WalConfig;
use crate::disk::lossy::{Faults, Loss, LossyDisk};
use crate::disk::{Access, Disk};
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

#[test]
pub fn a_failed_sync_of_the_directory_in_recycling_poisons_the_log() {
    let (disk, wal, ends) = filled(config());
    disk.fail_next_sync_dir();
    wal.recycle(ends[9]).unwrap_err();
    assert!(matches!(wal.append(b"x"), Err(AppendError::Poisoned(_))));
    assert!(matches!(wal.recycle(ends[9]), Err(WalError::Poisoned(_))), "the second one is believed");
    assert!(matches!(wal.health(), Health::Failed(_)));
    // Nothing of what was to go was overwritten: its names are back.
    let after = directory(&disk.crash(Loss::Nothing, Faults::default()), "/wal");
    for number in after.list().unwrap() {
        assert!(after.open(number, Access::Read).unwrap().is_some());
    }
    assert!(after.list().unwrap().contains(&SegmentNumber::FIRST));
}

#[test]
fn a_segment_that_finds_no_place_for_its_spare_name_is_removed() {
    let (disk, wal, ends) = filled(config());
    let names = || disk.list(Path::new("/wal")).unwrap();
    let before = names().len();
    disk.fail_next(true);
    assert!(wal.recycle(ends[9]).unwrap() > 2);
    assert!(matches!(wal.health(), Health::Good));
    assert!(names().len() < before - 2 && names().iter().any(|name| name.ends_with(".spare")));
}

#[test]
fn a_device_that_hangs_in_preparation_is_noticed_when_somebody_is_refused_for_it() {
    let (disk, wal, _) = filled(WalConfig { sync_limit: Duration::from_millis(50), ..config() });
    let hanging = disk.hang_next_sync_dir();
    // Into the next segment, so that the one behind it is wanted.
    let next = layout().segment_start(layout().segment_of(wal.end()).next());
    while wal.end() <= next {
        let end = wal.append(&payload(1, 100)).unwrap();
        wal.make_durable(end).unwrap();
    }
    poll("nothing is prepared", || hanging.is_reached());
    let Watchdog { preparation, limit, .. } = &wal.shared.watchdog;
    poll("nobody looks", || preparation.exceeds(*limit).is_some());
    assert!(matches!(wal.health(), Health::Good), "there is room: {:?}", wal.health());
    let deadline = Instant::now() + PATIENCE;
    while let Ok(end) = wal.append(&payload(1, 100)) {
        assert!(Instant::now() < deadline);
        wal.make_durable(end).unwrap();
    }
    assert!(matches!(wal.append(&payload(1, 100)), Err(AppendError::Busy { .. })));
    poll("not noticed", || matches!(wal.health(), Health::Hangs { .. }));
    drop(hanging);
    commit_soon(&wal, b"x");
    poll("not forgotten", || matches!(wal.health(), Health::Good));
}

#[test]
fn a_device_that_hangs_in_recycling_is_noticed_when_the_disk_is_full() {
    let (disk, wal, ends) = filled(WalConfig { sync_limit: Duration::from_millis(50), ..config() });
    std::thread::scope(|scope| {
        let hanging = disk.hang_next_sync_dir();
        let recycler = scope.spawn(|| wal.recycle(ends[9]));
        poll("nothing is recycled", || hanging.is_reached());
        let Watchdog { recycling, limit, .. } = &wal.shared.watchdog;
        poll("nobody looks", || recycling.exceeds(*limit).is_some());
        assert!(matches!(wal.health(), Health::Good), "there is room: {:?}", wal.health());
        disk.set_capacity(Some(0));
        poll("not noticed", || matches!(wal.health(), Health::Hangs { .. }));
        assert!(matches!(wal.append(b"x"), Err(AppendError::DiskFull)));
        drop(hanging);
        assert!(recycler.join().unwrap().unwrap() > 0);
    });
    assert!(matches!(wal.health(), Health::Good));
}

/// Neither writes nor reads nor syncs need them.
const OUT_OF: [Errno; 3] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];

#[test]
fn a_log_without_descriptors_prepares_its_next_segment_when_there_are_some_again() {
    for (errno, lists) in OUT_OF.into_iter().flat_map(|errno| [(errno, true), (errno, false)]) {
        let (disk, wal, ends) = filled(config());
        disk.refuse_opening(errno.raw_os_error(), lists);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(end) = wal.append(&payload(1, 100)) {
            assert!(Instant::now() < deadline);
            wal.make_durable(end).unwrap();
        }
        // The names of what is prepared do not have to wait for it.
        wal.shared.directory.sync().unwrap();
        // More than once: the first attempt fails nothing, nor does the next.
        let refused = disk.refused();
        poll("not tried again", || {
            let busy = wal.append(&payload(1, 100));
            assert!(matches!(busy, Err(AppendError::Busy { .. })), "{errno}: {busy:?}");
            disk.refused() > refused + 2
        });
        assert!(!lists || matches!(wal.recycle(ends[9]), Err(WalError::Io { .. })));
        assert!(matches!(wal.health(), Health::Good), "{:?}", wal.health());
        disk.allow_opening();
        commit_soon(&wal, &payload(1, 1500));
        assert!(wal.recycle(ends[9]).unwrap() > 0);
    }
}

#[test]
fn a_scrub_without_descriptors_finds_no_damage() {
    for errno in OUT_OF {
        let (disk, wal, _) = filled(WalConfig { scrub_bytes_per_second: 1 << 30, ..config() });
        // Nothing is to be prepared: what is refused is refused to the scrub.
        disk.refuse_opening(errno.raw_os_error(), false);
        // The second attempt is made when the first one is judged.
        poll("nothing is read", || disk.refused() >= 2);
        assert!(matches!(wal.health(), Health::Good), "{:?}", wal.health());
    }
}
