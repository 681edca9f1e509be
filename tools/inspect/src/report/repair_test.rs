//! A repair that dies half way, where no process can be made to die.

use mainstay::config::WalConfig;
use mainstay::wal::{self, Evidence, Wal};
use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

/// A directory left by a crash: ten records flushed at once, the sixth of them damaged, and a checkpoint behind the ninth.
/// Nothing but the checkpoint says that the log went on behind the damage. Answers where the records end, too.
fn damaged() -> (TempDir, Vec<Lsn>) {
    let place = tempfile::tempdir().unwrap();
    let storage = Storage::open(place.path(), MIB).unwrap();
    let segments = DataDirectory::of(place.path(), &storage).unwrap().segments;
    let config = WalConfig { segment_size_bytes: MIB, reserve_bytes: MIB, ..WalConfig::default() };
    let log = Wal::open(wal::scan(segments.clone(), Evidence::default()).unwrap(), config).unwrap();
    log.room_blocking(1000).unwrap();
    let ends: Vec<_> = (0..10u8).map(|number| log.append(&[number; 100]).unwrap()).collect();
    log.sync().unwrap();
    storage.note_checkpoint(ends[8]).unwrap();
    drop((log, storage));
    let file = std::fs::File::options().write(true).open(segments.segment_path(SegmentNumber::FIRST)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"?", segments.layout().offset_of(ends[5]) - 8).unwrap();
    (place, ends)
}

#[test]
fn one_that_dies_when_it_moved_the_checkpoint_leaves_a_log_that_no_node_takes_for_whole() {
    let (place, ends) = damaged();
    let storage = Storage::open(place.path(), MIB).unwrap();
    let plan = plan(&DataDirectory::of(place.path(), &storage).unwrap(), ends[2]).unwrap();
    assert_eq!(plan.checkpoint, Some(plan.cut.oldest()));
    assert!(move_checkpoint(&storage, &plan.report.notes, plan.checkpoint).unwrap());
    drop(storage);
    // Here it died, and somebody moved engine/ away, so that no engine says how far the log reached.
    let directory = DataDirectory::open(place.path()).unwrap();
    match directory.survey().unwrap() {
        Survey::Damaged(damage) => assert_eq!(damage.lsn, ends[4]),
        Survey::Whole(scan) => panic!("the log was taken to end at {}, where it is damaged", scan.end()),
    }
    let wanted = RepairWanted { cut_at: ends[2], is_confirmed: true };
    assert_eq!(repair(directory, wanted, false, &mut Vec::new()).unwrap(), Exit::Clean);
    let directory = DataDirectory::open(place.path()).unwrap();
    assert_eq!(directory.survey().unwrap().known_end(), Some(ends[2]));
    let notes = directory.notes.unwrap();
    assert_eq!((notes.clean_end, notes.checkpoint <= ends[2]), (None, true));
}
