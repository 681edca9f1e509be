//! Segments made ahead of the writer, and the power that fails meanwhile. They are filled in several steps, see
//! `FILL_STEP_BYTES`.

use std::path::Path;

use super::crash_test::flushed_log;
use super::directory::Pace;
use super::testing::*;
use super::*;
use crate::disk::lossy::{Faults, Loss, LossyDisk};
use crate::disk::{Access, Disk};

/// A segment that no log of these tests reaches.
const NEW: SegmentNumber = SegmentNumber(100);

/// A log whose oldest segment is a spare one now, full of records, as `recycle` leaves it between the renaming and the sync.
fn with_spare() -> LossyDisk {
    let (disk, _, _) = flushed_log();
    let path = directory(&disk, Path::new("/wal")).segment_path(SegmentNumber(1));
    Disk::rename(&disk, &path, &path.with_extension("spare")).unwrap();
    disk
}

fn prepare(disk: &LossyDisk, pace: Pace) -> Result<(), WalError> {
    directory(disk, Path::new("/wal")).prepare(NEW, &|| pace).map(drop)
}

/// How many operations a preparation takes, and how many of them are syncs of the file.
fn counted(pace: Pace) -> (u64, u64) {
    let disk = with_spare().kill(Faults::default());
    prepare(&disk, pace).unwrap();
    (disk.operations(), disk.syncs())
}

/// A recycled segment may be prepared again before its new name is durable, on another thread or after a failed sync.
#[test]
fn a_spare_is_not_overwritten_before_it_is_durably_out_of_the_log() {
    let (operations, _) = counted(Pace::Easy);
    for die_at in 1..=operations {
        let disk = with_spare().kill(Faults { die_at: Some(die_at), ..Faults::default() });
        prepare(&disk, Pace::Easy).unwrap_err();
        let after = directory(&disk.crash(Loss::Everything, Faults::default()), Path::new("/wal"));
        for segment in after.list().unwrap() {
            let opened = after.open(segment, Access::Read);
            assert!(matches!(opened, Ok(Some(_))), "died at {die_at}, {segment:?}: {:?}", opened.err());
        }
    }
}

/// The power fails in the middle of a fill, between its syncs, before the renaming and behind it: what has the name of a
/// segment is one, and blank, though a file full of records was used for it.
#[test]
pub fn a_segment_has_its_name_only_when_all_of_it_is_filled() {
    for (pace, least_syncs) in [(Pace::Easy, 4), (Pace::Urgent, 2)] {
        let (operations, syncs) = counted(pace);
        assert!(syncs >= least_syncs, "filled at once: {syncs} syncs");
        let mut named = 0;
        for die_at in 1..=operations + 1 {
            let disk = with_spare().kill(Faults { die_at: Some(die_at), ..Faults::default() });
            let prepared = prepare(&disk, pace).is_ok();
            assert_eq!(prepared, die_at > operations);
            let seed = die_at.wrapping_mul(7919);
            let losses = (0..20).map(|more| Loss::Random(seed + more));
            for loss in [Loss::Everything, Loss::Nothing, Loss::Older(seed)].into_iter().chain(losses) {
                let after = disk.crash(loss, Faults::default());
                let directory = directory(&after, Path::new("/wal"));
                let opened = directory.open(NEW, Access::Read);
                let opened = opened.unwrap_or_else(|error| panic!("died at {die_at}, lost {loss:?}: {error}"));
                assert!(opened.is_some() || !prepared, "died at {die_at}, lost {loss:?}");
                if opened.is_some() {
                    named += 1;
                    let contents = after.contents(&directory.segment_path(NEW));
                    let is_blank = contents[segment::HEADER_BYTES..].iter().all(|byte| *byte == 0);
                    assert!(is_blank, "died at {die_at}, lost {loss:?}: not blank");
                }
            }
        }
        assert!(named > 23, "the segment has its name in {named} cases only, when nothing dies");
    }
}
