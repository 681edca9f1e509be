//! Every crash point of a scripted workload, with every kind of loss.

use std::path::Path;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::disk::lossy::{Faults, Loss, LossyDisk, Random};
use crate::lsn::Lsn;

/// What a run did before the machine died.
#[derive(Default, Clone)]
struct History {
    /// Every record that was appended, in order, and where it ended.
    appended: Vec<(Lsn, Vec<u8>)>,
    /// How many of them were acknowledged as durable.
    acknowledged: usize,
    /// What was noted durably elsewhere, as the node does it.
    checkpoint: Lsn,
    clean_end: Option<Lsn>,
}

impl History {
    fn evidence(&self) -> Evidence {
        let reached = self.checkpoint.max(self.clean_end.unwrap_or(Lsn::NONE));
        Evidence { verify_from: self.checkpoint, reached, clean_end: self.clean_end }
    }
}

/// Lengths that make the workload interesting: empty, small, filling a segment to its end, spanning several.
const LENGTHS: [usize; 14] = [64, 304, 104, 600, 1504, 3, 5000, 700, 550, 1950, 0, 300, 2500, 16];

/// Appends, flushes, recycles and reopens until the machine dies or the script ends.
fn run(disk: &LossyDisk, history: &mut History) -> Result<(), Box<dyn std::error::Error>> {
    for _life in 0..2 {
        let found = scan(directory(disk, Path::new("/wal")), history.evidence())?;
        history.clean_end = None;
        let wal = Wal::open(found, config())?;
        for (index, len) in LENGTHS.into_iter().enumerate() {
            let bytes = payload(history.appended.len() as u64, len);
            let end = append(&wal, &bytes)?;
            history.appended.push((end, bytes));
            // Several records to a flush, so that a torn one leaves whole records behind holes.
            if [5, 6, 12].contains(&index) {
                wal.make_durable(end)?;
                history.acknowledged = history.appended.len();
            }
            if index == 9 {
                history.checkpoint = end;
                wal.recycle(history.checkpoint)?;
            }
        }
        let end = wal.close()?;
        history.acknowledged = history.appended.len();
        history.clean_end = Some(end);
    }
    Ok(())
}

/// Opens after a crash and checks that the log holds a prefix of what was appended with all that was acknowledged.
/// Answers the log and how many records survived; nothing if the machine died meanwhile.
fn check(disk: &LossyDisk, history: &History, what: &str) -> Option<(Wal, usize)> {
    let wal = match open(disk, history.evidence()) {
        Err(_) if disk.is_dead() => return None,
        other => other.unwrap_or_else(|error| panic!("{what}: {error}")),
    };
    let skipped = history.appended.iter().take_while(|(end, _)| *end <= history.checkpoint).count();
    let records =
        read_all(&wal, if history.checkpoint.is_none() { layout().first_record() } else { history.checkpoint });
    let records = records.unwrap_or_else(|error| panic!("{what}: {error}"));
    let survived = skipped + records.len();
    assert!(survived >= history.acknowledged, "{what}: {survived} of {} acknowledged records", history.acknowledged);
    assert!(survived <= history.appended.len(), "{what}: more records than were appended");
    for (record, (end, bytes)) in records.iter().zip(&history.appended[skipped..]) {
        assert_eq!((record.end, &record.payload), (*end, bytes), "{what}");
    }
    Some((wal, survived))
}

#[test]
pub fn every_crash_point_keeps_what_was_acknowledged_and_invents_nothing() {
    try_every_crash_point(1_000_003);
}

#[test]
#[ignore = "soak: every crash point with a thousand seeds"]
fn every_crash_point_with_a_thousand_seeds() {
    for seed in 0..1000 {
        println!("seed {seed}");
        try_every_crash_point(0x9E37_79B9 + seed * 7919);
    }
}

fn try_every_crash_point(seed: u64) {
    let whole = LossyDisk::new(Faults::default());
    run(&whole, &mut History::default()).unwrap();
    let total = whole.operations();
    assert!(total > 200, "the workload is too small to show anything: {total} operations");
    for die_at in 1..=total {
        let disk = LossyDisk::new(Faults { die_at: Some(die_at), ..Faults::default() });
        let mut history = History::default();
        let _ = run(&disk, &mut history);
        let seed = die_at.wrapping_mul(seed);
        let random = [Loss::Random(seed), Loss::Random(!seed), Loss::Pages(seed)];
        for loss in [Loss::Everything, Loss::Nothing, Loss::Older(seed)].into_iter().chain(random) {
            crash_and_go_on(&disk, history.clone(), Death::PowerCut(loss), &format!("died at {die_at}, lost {loss:?}"));
        }
        crash_and_go_on(&disk, history, Death::Kill(seed), &format!("killed at {die_at}"));
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// The process is killed; what it wrote stays in the page cache.
    Kill(u64),
    /// The machine loses power.
    PowerCut(Loss),
}

impl Death {
    fn seed(self) -> u64 {
        match self {
            Death::Kill(seed) | Death::PowerCut(Loss::Random(seed) | Loss::Pages(seed) | Loss::Older(seed)) => seed,
            Death::PowerCut(_) => 1,
        }
    }

    fn strike(self, disk: &LossyDisk, faults: Faults) -> LossyDisk {
        match self {
            Death::Kill(_) => disk.kill(faults),
            Death::PowerCut(loss) => disk.crash(loss, faults),
        }
    }
}

/// Crashes, checks, appends more, crashes again at some operation, checks again: what was cut never comes back.
fn crash_and_go_on(disk: &LossyDisk, mut history: History, death: Death, what: &str) {
    let mut random = Random(death.seed());
    let second = Faults { die_at: Some(1 + random.below(60)), ..Faults::default() };
    let disk = death.strike(disk, second);
    // The second crash may come during recovery; then recovery is tried again on what that left.
    if let Some((wal, survived)) = check(&disk, &history, what) {
        let cut = history.appended.split_off(survived);
        history.clean_end = None;
        // Everything that was found is durable now.
        history.acknowledged = survived;
        // Each new record and the mark behind it are as long as one that was cut: were its bytes still there, the
        // records behind it would fit on again.
        let mark_bytes = record::HEADER_BYTES + record::MARK_PAYLOAD_BYTES;
        for (_, lost) in cut.iter().take(1 + random.below(3) as usize) {
            let len = lost.len().saturating_sub(mark_bytes);
            let bytes = payload(1000 + history.appended.len() as u64, len);
            let Ok(end) = append(&wal, &bytes) else { break };
            history.appended.push((end, bytes));
            if wal.make_durable(end).is_err() {
                break;
            }
            history.acknowledged = history.appended.len();
        }
    }
    let second_loss = if matches!(death, Death::Kill(_)) || random.below(2) == 0 {
        Loss::Everything
    } else {
        Loss::Random(random.draw())
    };
    let disk = disk.crash(second_loss, Faults::default());
    check(&disk, &history, &format!("{what}; then died again, lost {second_loss:?}"));
}

/// A flush of many records, torn in a way that leaves whole ones behind holes, over several segments.
#[test]
pub fn nothing_of_a_cut_tail_is_left_on_the_disk() {
    let mut torn = 0;
    for seed in 0..200 {
        let disk = LossyDisk::new(Faults::default());
        let wal = open(&disk, Evidence::default()).unwrap();
        // Long enough to be written when they are appended: of what waits in memory nothing can be left.
        for number in 0..30 {
            append(&wal, &payload(number, 700)).unwrap();
        }
        let disk = disk.crash(Loss::Random(seed), Faults::default());
        drop(wal);
        let end = open(&disk, Evidence::default()).unwrap().end();
        let after = disk.crash(Loss::Everything, Faults::default());
        let directory = directory(&after, Path::new("/wal"));
        for number in directory.list().unwrap() {
            let start = layout().segment_start(number);
            let contents = after.contents(&directory.segment_path(number));
            let from = end.max(start.advanced(64)).bytes_since(start) as usize;
            assert!(contents.get(from..).unwrap_or(&[]).iter().all(|byte| *byte == 0), "seed {seed}, {number:?}");
        }
        torn += u32::from(end > layout().first_record());
    }
    assert!(torn > 50, "too few torn tails to show anything: {torn}");
}

/// One thread stands still in the middle of writing a large record while others go on, and the process is killed.
#[test]
pub fn a_hole_between_parallel_copies_hides_the_whole_records_behind_it() {
    const RECORDS: usize = 12;
    const THIRDS: [usize; 3] = [640, 640, 656];
    assert_eq!(THIRDS.iter().sum::<usize>(), SEGMENT_BYTES as usize - segment::HEADER_BYTES - 3 * record::HEADER_BYTES);
    for stalled_write in 0..2 * RECORDS {
        let disk = LossyDisk::new(Faults::default());
        let wal = open(&disk, Evidence::default()).unwrap();
        // Three records fill a segment to its end, or this one, its mark and two: no small fragments come, which would
        // make holes of their own, because they are written with a flush.
        let first = payload(100, THIRDS[0] - record::HEADER_BYTES - record::MARK_PAYLOAD_BYTES);
        let durable = append(&wal, &first).unwrap();
        wal.make_durable(durable).unwrap();
        disk.stall_in(stalled_write as u64);
        let mut history = History { appended: vec![(durable, first)], ..History::default() };
        for number in 0..RECORDS {
            let bytes = payload(number as u64, THIRDS[(number + 1) % 3]);
            let at = loop {
                // Without waiting for a flush, which would wait for the copy.
                match wal.append(&bytes) {
                    Err(AppendError::Busy { .. }) => std::thread::yield_now(),
                    other => break other.unwrap(),
                }
            };
            history.appended.push((at, bytes));
        }
        history.acknowledged = 1;
        let killed = disk.kill(Faults::default());
        let what = format!("write {stalled_write} stalled");
        let (found, survived) = check(&killed, &history, &what).unwrap();
        assert!(survived < history.appended.len(), "{what}: no hole");
        assert_eq!(survived, 1 + stalled_write / 2, "{what}: header and payload are a write each");
        drop(found);
        crash_and_go_on(&disk, history, Death::Kill(stalled_write as u64), &what);
    }
}

#[test]
pub fn after_a_failed_sync_nothing_is_acknowledged_and_what_was_stays() {
    let whole = LossyDisk::new(Faults::default());
    run(&whole, &mut History::default()).unwrap();
    for fail_sync in 1..=whole.syncs() {
        let faults = Faults { fail_sync: Some(fail_sync), ..Faults::default() };
        commit_until_failed(faults, fail_sync, &format!("sync {fail_sync} failed"));
    }
}

/// The same for whatever a flush does besides: what it took out of memory is not there for another try.
#[test]
pub fn after_a_failed_write_nothing_is_acknowledged_and_what_was_stays() {
    let whole = LossyDisk::new(Faults::default());
    run(&whole, &mut History::default()).unwrap();
    let fails = |fail_at: &u64| {
        let faults = Faults { fail_at: Some(*fail_at), ..Faults::default() };
        commit_until_failed(faults, *fail_at, &format!("operation {fail_at} failed"))
    };
    let failures = (1..=whole.operations()).filter(fails).count();
    assert!(failures > 50, "too few failures to show anything: {failures}");
}

/// Appends and commits, though something fails once, and dies. Answers whether that was noticed.
fn commit_until_failed(faults: Faults, seed: u64, what: &str) -> bool {
    let disk = LossyDisk::new(faults);
    let mut history = History::default();
    let mut failed = false;
    if let Ok(wal) = open(&disk, Evidence::default()) {
        for number in 0..40 {
            let bytes = payload(number, LENGTHS[number as usize % LENGTHS.len()]);
            let Ok(end) = append(&wal, &bytes) else {
                failed = true;
                break;
            };
            history.appended.push((end, bytes));
            match wal.make_durable(end) {
                Ok(()) => {
                    assert!(!failed, "{what}: acknowledged after that");
                    history.acknowledged = history.appended.len();
                }
                Err(_) => {
                    // Nobody else flushes: before each append all was durable.
                    assert!(failed || wal.durable() < end, "{what}: durable in spite of that");
                    failed = true;
                }
            }
        }
        if failed {
            assert!(matches!(wal.append(b"x"), Err(AppendError::Poisoned(_))), "{what}");
            assert!(wal.close().is_err(), "{what}");
        }
    }
    check(&disk.crash(Loss::Everything, Faults::default()), &history, what);
    // The process starts again under the same machine: what a failed sync lost is still in memory, and clean.
    crash_and_go_on(&disk, history, Death::Kill(seed), what);
    failed
}

/// A sync of the directory that fails loses the names that it was to write, and later ones do not bring them back.
#[test]
fn after_a_failed_sync_of_the_directory_what_was_acknowledged_stays() {
    let whole = LossyDisk::new(Faults::default());
    run(&whole, &mut History::default()).unwrap();
    assert!(whole.dir_syncs() > 20, "{}", whole.dir_syncs());
    for fail_sync_dir in 1..=whole.dir_syncs() {
        let disk = LossyDisk::new(Faults { fail_sync_dir: Some(fail_sync_dir), ..Faults::default() });
        let mut history = History::default();
        let _ = run(&disk, &mut history);
        for loss in [Loss::Everything, Loss::Nothing, Loss::Random(fail_sync_dir)] {
            let what = format!("sync {fail_sync_dir} of the directory failed, lost {loss:?}");
            crash_and_go_on(&disk, history.clone(), Death::PowerCut(loss), &what);
        }
    }
}

#[test]
fn a_failed_operation_is_never_an_acknowledged_record_lost() {
    let whole = LossyDisk::new(Faults::default());
    run(&whole, &mut History::default()).unwrap();
    for (fail_at, fails_full) in (1..=whole.operations()).flat_map(|fail_at| [(fail_at, false), (fail_at, true)]) {
        let disk = LossyDisk::new(Faults { fail_at: Some(fail_at), fails_full, ..Faults::default() });
        let mut history = History::default();
        let _ = run(&disk, &mut history);
        let what = format!("operation {fail_at} failed, because the disk was full: {fails_full}");
        check(&disk.crash(Loss::Everything, Faults::default()), &history, &what);
    }
}

/// A read that comes short says nothing about what is on the disk: it is never taken for the end of the log.
#[test]
fn a_short_read_is_an_error_and_never_the_end_of_the_log() {
    let (disk, records, _) = flushed_log();
    let found = |disk: &LossyDisk| {
        let mut last = None;
        let scan = scan_with(directory(disk, "/wal"), Evidence::default(), &mut |record| last = Some(record.end))?;
        Ok((scan.end(), last))
    };
    let whole: Result<_, WalError> = found(&disk);
    let (end, last) = whole.unwrap();
    assert!(Some(end) == last && end >= records[records.len() - 1].end);
    let (mut errors, reads) = (0, disk.reads());
    for short_read in 1..=reads {
        let disk = disk.kill(Faults { short_read: Some(short_read), ..Faults::default() });
        match found(&disk) {
            Ok((found, _)) => assert_eq!(found, end, "read {short_read} came short"),
            Err(WalError::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::UnexpectedEof);
                errors += 1;
            }
            Err(error) => panic!("read {short_read} came short: {error}"),
        }
    }
    assert!(errors > 2, "{errors} of {reads} reads");
}

/// Segments are recycled and used again, and the power fails at each operation: every name that was not synced is back
/// as it was, and what is found under a segment's name is that segment.
#[test]
pub fn a_recycled_segment_is_durably_out_of_the_log_before_it_is_used_again() {
    let script = |disk: &LossyDisk| -> Result<(), Box<dyn std::error::Error>> {
        let wal = open(disk, Evidence::default())?;
        let mut checkpoint = layout().first_record();
        for number in 0..12 {
            let end = append(&wal, &payload(number, 900))?;
            wal.make_durable(end)?;
            wal.recycle(checkpoint)?;
            checkpoint = end;
        }
        Ok(())
    };
    let whole = LossyDisk::new(Faults::default());
    script(&whole).unwrap();
    for die_at in 1..=whole.operations() {
        let disk = LossyDisk::new(Faults { die_at: Some(die_at), ..Faults::default() });
        let _ = script(&disk);
        let after = disk.crash(Loss::Everything, Faults::default());
        let directory = directory(&after, Path::new("/wal"));
        for segment in directory.list().unwrap() {
            let opened = directory.open(segment, crate::disk::Access::Read);
            assert!(matches!(opened, Ok(Some(_))), "died at {die_at}, {segment:?}: {:?}", opened.err());
        }
    }
}

/// A log of several flushes over several segments, stopped without a clean end. Answers the disk, its records, and
/// where the last flush began.
pub(super) fn flushed_log() -> (LossyDisk, Vec<Record>, Lsn) {
    let disk = LossyDisk::new(Faults::default());
    let wal = open(&disk, Evidence::default()).unwrap();
    let mut last_flush = Lsn::NONE;
    for (number, len) in [30, 200, 1, 2100, 0, 77, 600].into_iter().enumerate() {
        last_flush = wal.end();
        let end = append(&wal, &payload(number as u64, len)).unwrap();
        wal.make_durable(end).unwrap();
    }
    let records = read_all(&wal, layout().first_record()).unwrap();
    drop(wal);
    (disk.crash(Loss::Everything, Faults::default()), records, last_flush)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2000), ..ProptestConfig::default() })]

    /// Any bit flipped in a segment is harmless, named as damage, or inside the last flush.
    #[test]
    fn a_flipped_bit_is_harmless_or_named_or_in_the_last_flush(segment: prop::sample::Index, bit in 0..SEGMENT_BYTES * 8) {
        let (disk, records, last_flush) = flushed_log();
        let directory = directory(&disk, Path::new("/wal"));
        let segments: Vec<_> = directory.list().unwrap().into_iter().collect();
        let number = *segment.get(&segments);
        disk.flip(&directory.segment_path(number), bit);
        let flipped = layout().segment_start(number).advanced(bit / 8);
        match open(&disk, Evidence::default()).and_then(|wal| read_all(&wal, layout().first_record())) {
            Ok(found) if found == records => {}
            Ok(found) => {
                prop_assert!(flipped >= last_flush, "lost {} records", records.len() - found.len());
                prop_assert_eq!(&found[..], &records[..records.len() - 1]);
            }
            Err(WalError::Damaged(damage)) => {
                let segment_start = layout().segment_start(number);
                prop_assert_eq!(&damage.path, &directory.segment_path(number));
                prop_assert!(damage.lsn >= segment_start && damage.lsn <= flipped, "{damage} but {flipped} was flipped");
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
pub fn a_flip_before_the_last_flush_is_damage() {
    let (disk, records, last_flush) = flushed_log();
    let directory = directory(&disk, Path::new("/wal"));
    for record in records.iter().filter(|record| record.end <= last_flush) {
        // The last bit of its first header's checksum.
        let (path, bit) =
            (directory.segment_path(layout().segment_of(record.start)), layout().offset_of(record.start) * 8 + 63);
        disk.flip(&path, bit);
        let found = scan(directory.clone(), Evidence::default());
        assert!(matches!(found, Err(WalError::Damaged(_))), "{}: {found:?}", record.start);
        disk.flip(&path, bit);
    }
    assert!(scan(directory, Evidence::default()).is_ok());
}

#[test]
fn outside_evidence_turns_a_torn_tail_into_damage_and_nothing_is_changed() {
    let (disk, records, last_flush) = flushed_log();
    let directory = directory(&disk, Path::new("/wal"));
    let last = records.last().unwrap();
    let path = directory.segment_path(layout().segment_of(last.start));
    disk.flip(&path, layout().offset_of(last.start) * 8 + 200);
    let before = disk.contents(&path);
    let evidence = Evidence { reached: last.end, ..Evidence::default() };
    let error = scan(directory.clone(), evidence).unwrap_err();
    assert!(matches!(&error, WalError::Damaged(damage) if damage.lsn == last.start), "{error}");
    assert_eq!(disk.contents(&path), before);
    // Without it, the flip cannot be told from a tear.
    let torn = scan(directory, Evidence::default()).unwrap();
    assert!(torn.end() <= last_flush);
    assert!(torn.require(last.end, "a test").is_err());
}

#[test]
fn a_missing_segment_is_damage() {
    for missing in 0.. {
        let (disk, _, _) = flushed_log();
        let directory = directory(&disk, Path::new("/wal"));
        let segments: Vec<_> = directory.list().unwrap().into_iter().collect();
        // The last one is only prepared.
        let Some(number) = segments[..segments.len() - 1].get(missing) else { break };
        crate::disk::Disk::remove(&disk, &directory.segment_path(*number)).unwrap();
        let evidence = Evidence { reached: Lsn::NONE, verify_from: layout().first_record(), clean_end: None };
        let result = scan(directory.clone(), evidence);
        assert!(matches!(result, Err(WalError::Damaged(_))), "segment {number:?}: {result:?}");
    }
}
