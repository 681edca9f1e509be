//! The disk is full at each allocation and each write of each kind of work: who hears what, that reads go on, what makes
//! writes resume, and that nothing is there by half. `docs/wal-faults.md` has it as a table.
//!
//! Where a segment is prepared, the log goes on and resumes by itself. Anywhere else space was there before the work
//! began, so its want is an error of the device like any other: the log has failed, and is whole when it is opened again.

use std::io;
use std::path::Path;

use super::retention::HolderKind;
use super::testing::*;
use super::*;
use crate::disk::Disk;
use crate::disk::lossy::{Faults, Loss, LossyDisk};
use crate::disk::shortage::Action;
use crate::lsn::Lsn;

/// Records and where they end.
type Records = Vec<(Lsn, Vec<u8>)>;

/// Makes a disk with a log, and answers what of it is durable.
type Make<'a> = &'a dyn Fn() -> (LossyDisk, Records);

/// A log in which nothing happens by itself.
struct Log {
    disk: LossyDisk,
    wal: Wal,
    /// What was noted elsewhere.
    checkpoint: Lsn,
    /// All behind the checkpoint, durable.
    records: Records,
}

impl Log {
    /// One of several segments.
    fn new() -> Log {
        let disk = LossyDisk::new(Faults::default());
        let wal = open(&disk, Evidence::default()).unwrap();
        let commit = |number| {
            let bytes = payload(number, 900);
            let end = append(&wal, &bytes).unwrap();
            wal.make_durable(end).unwrap();
            (end, bytes)
        };
        let records = (0..10).map(commit).collect();
        settle(&wal);
        Log { disk, wal, checkpoint: Lsn::NONE, records }
    }

    /// The same, with segments that were recycled and can be used again.
    fn with_spares() -> Log {
        let mut log = Log::new();
        log.note_checkpoint();
        assert!(log.wal.recycle(log.checkpoint).unwrap() > 1);
        log
    }

    fn note_checkpoint(&mut self) {
        self.checkpoint = self.records[7].0;
        self.records.drain(..=7);
    }

    /// Appends small records, none of them durable, into the segment that was prepared: the one behind it is wanted.
    fn append_into_next_segment(&self) -> Records {
        let next = layout().segment_start(layout().segment_of(self.wal.end()).next());
        let mut appended = Vec::new();
        while self.wal.end() <= next {
            let bytes = payload(100 + appended.len() as u64, 100);
            appended.push((self.wal.append(&bytes).unwrap(), bytes));
        }
        appended
    }

    fn evidence(&self) -> Evidence {
        Evidence { verify_from: self.checkpoint, reached: self.checkpoint, clean_end: None }
    }

    /// The log holds what is durable and then any number of the first of `more`, whole. Answers how many.
    fn assert_holds(&self, wal: &Wal, more: &[(Lsn, Vec<u8>)], what: &str) -> usize {
        let records = read_all(wal, self.checkpoint.max(layout().first_record())).unwrap();
        let found: Vec<_> = records.into_iter().map(|record| (record.end, record.payload)).collect();
        let all: Vec<_> = self.records.iter().chain(more).cloned().collect();
        assert!(found.len() >= self.records.len(), "{what}: {} of {} records", found.len(), self.records.len());
        assert!(found.len() <= all.len() && found == all[..found.len()], "{what}: something else is there");
        found.len() - self.records.len()
    }

    /// However the process ends, and with room again: the log opens, holds this, and goes on.
    fn assert_survives(&self, more: &[(Lsn, Vec<u8>)], seed: u64, what: &str) {
        let losses = [Loss::Everything, Loss::Nothing, Loss::Random(seed), Loss::Pages(seed), Loss::Older(seed)];
        let crashed = losses.map(|loss| (format!("{what}, lost {loss:?}"), self.disk.crash(loss, Faults::default())));
        let killed = (format!("{what}, killed"), self.disk.kill(Faults::default()));
        for (what, disk) in crashed.into_iter().chain([killed]) {
            let wal = open(&disk, self.evidence()).unwrap_or_else(|error| panic!("{what}: {error}"));
            self.assert_holds(&wal, more, &what);
            let end = append(&wal, b"goes on").unwrap();
            wal.make_durable(end).unwrap();
            wal.recycle(self.checkpoint).unwrap();
        }
    }

    /// Nobody gets anything out of the log any more but what was durable.
    fn assert_failed(&self, named: (Action, &Path), what: &str) {
        let doing = match named.0 {
            Action::Write => "cannot write to",
            Action::Sync | Action::SyncDir => "cannot sync",
            Action::Remove => "cannot remove",
            other => panic!("{what}: {other:?}"),
        };
        let Health::Failed(failure) = self.wal.health() else { panic!("{what}: {:?}", self.wal.health()) };
        let text = failure.to_string();
        assert!(text.contains(&format!("{doing} {}", named.1.display())) && text.contains("storage"), "{what}: {text}");
        let wal = &self.wal;
        assert!(matches!(wal.append(b"x"), Err(AppendError::Poisoned(_))), "{what}");
        assert!(matches!(wal.append_many(&[b"x"]), Err(AppendError::Poisoned(_))), "{what}");
        assert!(matches!(wal.room_blocking(1), Err(AppendError::Poisoned(_))), "{what}");
        assert!(matches!(wal.recycle(self.checkpoint), Err(WalError::Poisoned(_))), "{what}");
        assert!(wal.durable() == wal.end() || matches!(wal.sync(), Err(CommitError::Poisoned(_))), "{what}");
        self.assert_holds(wal, &[], what);
        assert!(wal.hold(HolderKind::Slot, "one who reads on", wal.durable()).is_ok(), "{what}");
    }
}

/// How many operations this takes.
fn operations(log: &Log, work: impl FnOnce(&Log)) -> u64 {
    let before = log.disk.operations();
    work(log);
    log.disk.operations() - before
}

fn is_full(error: &WalError) -> bool {
    matches!(error, WalError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The disk is full in the preparation of a segment, after so many operations of it. Answers what was refused.
fn refuse_preparation(make: fn() -> Log, number: u64) -> Action {
    let mut log = make();
    log.disk.fill_in(number);
    let appended = log.append_into_next_segment();
    poll("nothing is refused", || log.wal.is_full());
    let (action, path) = log.disk.refused_for_space().unwrap();
    let what = format!("operation {number}, {action:?} of {}, refused", path.display());
    let Log { disk, wal, .. } = &log;
    // Who appends hears it at once, and does not wait; again and again, for as long as there is no room.
    let tries = disk.operations();
    poll("not tried again", || {
        assert!(matches!(wal.append(b"x"), Err(AppendError::DiskFull)), "{what}");
        assert!(matches!(wal.append_many(&[b"x", b"y"]), Err(AppendError::DiskFull)), "{what}");
        assert!(matches!(wal.room_blocking(1), Err(AppendError::DiskFull)), "{what}");
        assert!(matches!(run(wal.room(1)), Err(AppendError::DiskFull)), "{what}");
        disk.operations() > tries + 2
    });
    assert!(wal.status().unwrap().is_full && matches!(wal.health(), Health::Good), "{what}");
    // Who commits what was appended before does not notice, nor does who reads.
    wal.make_durable(appended[appended.len() - 1].0).unwrap();
    log.records.extend(appended);
    log.assert_holds(&log.wal, &[], &what);
    assert_eq!(log.wal.recycle(log.checkpoint).unwrap(), 0, "{what}");
    log.assert_survives(&[], number, &what);
    log.disk.make_room();
    poll("writes do not resume", || !log.wal.is_full());
    for number in 200..206 {
        let bytes = payload(number, 900);
        let end = append(&log.wal, &bytes).unwrap();
        log.wal.make_durable(end).unwrap();
        log.records.push((end, bytes));
    }
    log.assert_survives(&[], number, &what);
    // That space runs out later is seen as before.
    log.disk.set_capacity(Some(0));
    poll("not looked at any more", || log.wal.is_full());
    log.disk.set_capacity(None);
    poll("writes do not resume", || !log.wal.is_full());
    log.wal.close().unwrap();
    action
}

#[test]
fn in_preparation_writes_are_refused_and_resume_by_themselves() {
    use Action::{Create, Rename, Sync, SyncDir, Write};
    let prepare = |log: &Log| {
        log.append_into_next_segment();
        settle(&log.wal);
    };
    let refused = |make: fn() -> Log| {
        let count = operations(&make(), prepare);
        (0..count).map(|number| refuse_preparation(make, number)).collect::<Vec<_>>()
    };
    // Four steps, and the header in the last.
    let filled = [Write, Sync, Write, Sync, Write, Sync, Write, Write, Sync, Rename, SyncDir];
    assert_eq!(refused(Log::new), [&[Create][..], &filled].concat());
    assert_eq!(refused(Log::with_spares), [&[Rename, SyncDir][..], &filled].concat());
}

#[test]
fn in_a_flush_it_fails_the_log_and_nothing_of_it_is_acknowledged() {
    let make = || {
        let log = Log::new();
        let pending = log.append_into_next_segment();
        settle(&log.wal);
        (log, pending)
    };
    let (whole, _) = make();
    let count = operations(&whole, |log| assert!(log.wal.sync().is_ok()));
    let mut refused = Vec::new();
    for number in 0..count {
        let (log, pending) = make();
        let (end, durable) = (log.wal.end(), log.wal.durable());
        log.disk.fill_in(number);
        let error = log.wal.make_durable(end);
        assert!(matches!(error, Err(CommitError::Poisoned(_))), "operation {number}: {error:?}");
        assert!(matches!(log.wal.health(), Health::Failed(_)), "operation {number}: only its caller heard of it");
        assert!(matches!(run(log.wal.wait_durable(end)), Err(CommitError::Poisoned(_))), "operation {number}");
        assert_eq!(log.wal.durable(), durable, "operation {number}");
        let (action, path) = log.disk.refused_for_space().unwrap();
        let what = format!("operation {number}, {action:?} of {}, refused", path.display());
        log.assert_failed((action, &path), &what);
        // What the failed operation was to do is not known to be done by one that succeeds.
        log.disk.make_room();
        log.assert_failed((action, &path), &what);
        assert!(matches!(log.wal.close(), Err(WalError::Poisoned(_))), "{what}");
        log.assert_survives(&pending, number, &what);
        refused.push(action);
    }
    let syncs = refused.iter().filter(|action| **action == Action::Sync).count();
    assert!(syncs == 2 && refused.len() == 5, "two segments: {refused:?}");
}

#[test]
fn in_the_write_of_a_large_record_it_is_not_known_and_never_found() {
    let large = payload(500, 5000);
    let make = || {
        let log = Log::new();
        // Every segment it needs, and the one that is prepared ahead of it.
        log.wal.room_blocking(large.len() + SEGMENT_BYTES as usize).unwrap();
        settle(&log.wal);
        log.wal.append(b"in memory").unwrap();
        log
    };
    let count = operations(&make(), |log| assert!(log.wal.append(&large).is_ok()));
    assert!(count >= 4, "{count}");
    for number in 0..count {
        let log = make();
        let small = log.wal.end();
        log.disk.fill_in(number);
        let error = log.wal.append(&large);
        assert!(matches!(error, Err(AppendError::Unknown(_))), "operation {number}: {error:?}");
        let Health::Failed(failure) = log.wal.health() else { panic!("operation {number}") };
        assert!(failure.to_string().contains("cannot append to "), "{failure}");
        assert!(matches!(log.wal.append(b"x"), Err(AppendError::Poisoned(_))), "operation {number}");
        assert!(matches!(log.wal.make_durable(small), Err(CommitError::Poisoned(_))), "operation {number}");
        let what = format!("operation {number}");
        log.assert_holds(&log.wal, &[], &what);
        log.assert_survives(&[], number, &what);
    }
}

#[test]
fn in_recycling_a_segment_is_removed_that_finds_no_place_and_all_else_fails_the_log() {
    let make = || {
        let mut log = Log::new();
        log.note_checkpoint();
        log
    };
    let mut recyclable = 0;
    let count = operations(&make(), |log| recyclable = log.wal.recycle(log.checkpoint).unwrap());
    assert!(recyclable > 2, "more than are kept as spare ones");
    let mut refused = Vec::new();
    for number in 0..count {
        let log = make();
        log.disk.fill_in(number);
        let recycled = log.wal.recycle(log.checkpoint);
        let (action, path) = log.disk.refused_for_space().unwrap();
        let what = format!("operation {number}, {action:?} of {}, refused", path.display());
        if action == Action::Rename {
            assert_eq!(recycled.unwrap(), recyclable, "{what}");
            let names = log.disk.list(Path::new("/wal")).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(!names.iter().any(|found| found.starts_with(name)), "{what}: {names:?}");
            let end = append(&log.wal, b"goes on").unwrap();
            log.wal.make_durable(end).unwrap();
            assert_eq!(log.assert_holds(&log.wal, &[(end, b"goes on".to_vec())], &what), 1);
            log.assert_survives(&[(end, b"goes on".to_vec())], number, &what);
        } else {
            assert!(matches!(recycled, Err(WalError::Poisoned(_))), "{what}: {recycled:?}");
            log.assert_failed((action, &path), &what);
            log.assert_survives(&[], number, &what);
        }
        refused.push(action);
    }
    for action in [Action::Rename, Action::Remove, Action::SyncDir] {
        assert!(refused.contains(&action), "{refused:?}");
    }
}

#[test]
fn in_a_clean_stop_it_is_no_clean_stop() {
    let make = || {
        let log = Log::new();
        let pending = vec![(log.wal.append(b"last words").unwrap(), b"last words".to_vec())];
        (log, pending)
    };
    let count = operations(&make().0, |log| assert!(log.wal.close().is_ok()));
    assert_eq!(count, 4, "a write and a sync, for the record and for the last mark");
    for number in 0..count {
        let (mut log, mut pending) = make();
        log.disk.fill_in(number);
        let error = log.wal.close();
        let what = format!("operation {number}: {error:?}");
        assert!(matches!(error, Err(WalError::Poisoned(_))), "{what}");
        assert_eq!(log.wal.durable() >= pending[0].0, number >= 2, "{what}");
        if number >= 2 {
            log.records.append(&mut pending);
        }
        log.assert_holds(&log.wal, &[], &what);
        log.assert_survives(&pending, number, &what);
    }
}

/// Of a new directory, and of a log whose last flush was torn.
#[test]
fn in_opening_it_is_refused_and_can_be_tried_again() {
    let fresh = || (LossyDisk::new(Faults::default()), Vec::new());
    let torn = || {
        let log = Log::new();
        // Nobody waits for room, which would bring a flush, and nothing is prepared beside it.
        log.wal.room_blocking(6 * 700 + 2 * SEGMENT_BYTES as usize).unwrap();
        settle(&log.wal);
        for number in 0..6 {
            log.wal.append(&payload(300 + number, 700)).unwrap();
        }
        let Log { disk, wal, records, .. } = log;
        drop(wal);
        let killed = disk.kill(Faults::default());
        (killed, records)
    };
    let makes: [(Make<'_>, u64); 2] = [(&fresh, 3), (&torn, 8)];
    for (make, least) in makes {
        let found = |disk: &LossyDisk| scan(directory(disk, "/wal"), Evidence::default()).unwrap();
        let whole = make().0;
        found(&whole).cut().unwrap();
        let count = whole.operations();
        assert!(count >= least, "{count}");
        for number in 0..count {
            let (disk, records) = make();
            let end = found(&disk).end();
            disk.fill_in(number);
            let error = open(&disk, Evidence::default()).err().unwrap();
            assert!(is_full(&error), "operation {number}: {error:?}");
            assert_eq!(found(&disk).end(), end, "operation {number}: the end moves");
            let again = |disk: &LossyDisk| {
                let wal = open(disk, Evidence::default()).unwrap();
                let ends: Vec<_> = read_all(&wal, layout().first_record()).unwrap().iter().map(|r| r.end).collect();
                let expected: Vec<_> = records.iter().map(|(end, _)| *end).collect();
                assert!(ends.starts_with(&expected) && wal.end() <= end, "operation {number}: {ends:?}");
                let end = append(&wal, b"goes on").unwrap();
                wal.make_durable(end).unwrap();
            };
            for loss in [Loss::Everything, Loss::Nothing, Loss::Random(number)] {
                again(&disk.crash(loss, Faults::default()));
            }
            disk.make_room();
            again(&disk);
        }
    }
}

#[test]
fn in_a_repair_the_log_is_as_it_was_or_the_repair_goes_on() {
    let make = || {
        let Log { disk, wal, records, .. } = Log::new();
        drop(wal);
        (disk.kill(Faults::default()), records)
    };
    let find = |disk: &LossyDisk, at: Lsn| Cut::find(directory(disk, "/wal"), Lsn::NONE, at).unwrap();
    let (whole, records) = make();
    let at = records[3].0;
    let kept = find(&whole, at).keep().unwrap();
    let for_copies = whole.operations();
    kept.erase().unwrap().finish().unwrap();
    let count = whole.operations();
    assert!(for_copies >= 5 && count > for_copies + 5, "{for_copies}, {count}");
    for number in 0..count {
        let (disk, records) = make();
        disk.fill_in(number);
        let refused = find(&disk, at).keep().and_then(KeptCut::erase).and_then(ErasedCut::finish);
        let error = refused.err().unwrap_or_else(|| panic!("operation {number} is not refused"));
        assert!(is_full(&error), "operation {number}: {error:?}");
        if number < for_copies {
            let wal = open(&disk.kill(Faults::default()), Evidence::default()).unwrap();
            let found = read_all(&wal, layout().first_record()).unwrap();
            assert!(
                found.iter().map(|record| record.end).eq(records.iter().map(|(end, _)| *end)),
                "operation {number}"
            );
        }
        for disk in [disk.kill(Faults::default()), disk.crash(Loss::Everything, Faults::default())] {
            find(&disk, at).keep().unwrap().erase().unwrap().finish().unwrap();
            let wal = open(&disk, Evidence::default()).unwrap();
            let found = read_all(&wal, layout().first_record()).unwrap();
            assert!(found.iter().map(|record| record.end).eq(records[..=3].iter().map(|(end, _)| *end)));
            wal.make_durable(append(&wal, b"goes on").unwrap()).unwrap();
        }
    }
}
