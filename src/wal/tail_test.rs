//! Records in memory, and those that find no room there. The segments are long here: in the short ones of the other tests
//! the next segment is waited for, and with it a flush, before the buffer is full.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use super::testing::{append, config, payload, poll, read_all, settle};
use super::*;
use crate::config::WalConfig;
use crate::disk::lossy::{Faults, Loss, LossyDisk, Random};
use crate::ident::SystemId;
use crate::lsn::TimelineId;

const LONG_SEGMENT_BYTES: u64 = 64 << 10;

/// What every log here begins with, durably.
const FIRST: &[u8] = b"first";

fn layout() -> Layout {
    Layout::new(LONG_SEGMENT_BYTES)
}

fn open(disk: &LossyDisk) -> Wal {
    let disk = Arc::new(disk.clone());
    let directory = SegmentDirectory::new(disk, PathBuf::from("/wal"), layout(), SystemId::new(7), TimelineId::FIRST);
    let found = scan(directory, Evidence::default()).unwrap();
    Wal::open(found, WalConfig { segment_size_bytes: LONG_SEGMENT_BYTES, ..config() }).unwrap()
}

/// A log with one record, in which nothing happens by itself.
fn fresh() -> (LossyDisk, Wal) {
    let disk = LossyDisk::new(Faults::default());
    let wal = open(&disk);
    wal.make_durable(append(&wal, FIRST).unwrap()).unwrap();
    settle(&wal);
    (disk, wal)
}

/// The log holds these records behind the first, and no others.
fn assert_holds(wal: &Wal, expected: &[Vec<u8>], when: &str) {
    let records = read_all(wal, layout().first_record());
    let records = records.unwrap_or_else(|error| panic!("records are lost or mixed {when}: {error}"));
    assert_eq!(records.len(), 1 + expected.len(), "records are lost or mixed {when}");
    assert_eq!(records[0].payload, FIRST);
    for (record, expected) in records[1..].iter().zip(expected) {
        assert_eq!(&record.payload, expected, "records are lost or mixed {when}, at {}", record.start);
    }
}

/// The same, now and after the power failed.
fn assert_keeps(disk: &LossyDisk, wal: Wal, expected: &[Vec<u8>]) {
    assert_holds(&wal, expected, "when they were flushed");
    drop(wal);
    assert_holds(&open(&disk.crash(Loss::Everything, Faults::default())), expected, "after a crash");
}

/// Mostly small, sometimes large, and different from all others.
fn draw_payload(random: &mut Random) -> Vec<u8> {
    let len = if random.below(12) == 0 { random.below(1500) } else { random.below(90) };
    (0..len).map(|_| random.draw() as u8).collect()
}

#[test]
pub fn what_finds_no_room_in_the_buffer_is_written_at_once() {
    let (disk, wal) = fresh();
    let mut expected = Vec::new();
    let (before, start) = (disk.operations(), wal.end());
    // Two and a half times as much as there is room for.
    while wal.end().bytes_since(start) < 10 << 10 {
        let bytes = payload(expected.len() as u64, 60);
        wal.append(&bytes).unwrap();
        if wal.end().bytes_since(start) <= 4 << 10 {
            assert_eq!(disk.operations(), before, "there was room");
        } else {
            assert!(disk.operations() > before, "there was no room");
        }
        expected.push(bytes);
    }
    let written = (disk.operations() - before) as usize / 2;
    assert!(written > expected.len() / 2, "{written} of {} had no room: a header and a payload each", expected.len());
    wal.sync().unwrap();
    assert_holds(&wal, &expected, "when they were flushed");
    // On and on, with flushes here and there.
    let mut random = Random(11);
    for _ in 0..600 {
        let bytes = draw_payload(&mut random);
        let end = append(&wal, &bytes).unwrap();
        if random.below(100) == 0 {
            wal.make_durable(end).unwrap();
        }
        expected.push(bytes);
    }
    wal.sync().unwrap();
    assert_keeps(&disk, wal, &expected);
}

#[test]
fn what_many_append_while_one_flushes_is_read_back_byte_for_byte() {
    let (disk, wal) = fresh();
    let mut appended = std::thread::scope(|scope| {
        let spawn = |appender| {
            let wal = &wal;
            scope.spawn(move || {
                let mut random = Random(appender);
                let mut appended = Vec::new();
                for _ in 0..1000 {
                    let bytes = draw_payload(&mut random);
                    appended.push((append(wal, &bytes).unwrap(), bytes));
                }
                appended
            })
        };
        let appenders: Vec<_> = (0..3).map(spawn).collect();
        while !appenders.iter().all(|appender| appender.is_finished()) {
            wal.sync().unwrap();
        }
        appenders.into_iter().flat_map(|appender| appender.join().unwrap()).collect::<Vec<_>>()
    });
    wal.sync().unwrap();
    appended.sort_unstable();
    let expected: Vec<_> = appended.into_iter().map(|(_, bytes)| bytes).collect();
    assert_keeps(&disk, wal, &expected);
}

/// Others append, to the end of the buffer and beyond, while a flush has taken out only a part of it.
#[test]
pub fn nothing_is_put_where_a_flush_still_takes_from() {
    let (disk, wal) = fresh();
    let mut expected = Vec::new();
    let start = wal.end();
    while wal.end().bytes_since(start) < 3500 {
        expected.push(payload(expected.len() as u64, 60));
        wal.append(&expected[expected.len() - 1]).unwrap();
    }
    let before = disk.operations();
    std::thread::scope(|scope| {
        let hanging = disk.hang_next_write();
        let (disk, wal) = (&disk, &wal);
        let other = scope.spawn(move || {
            poll("no flush writes anything", || hanging.is_reached());
            let appended: Vec<_> = (0..60).map(|number| payload(100 + number, 60)).collect();
            for bytes in &appended {
                wal.append(bytes).unwrap();
            }
            (appended, disk.operations(), hanging)
        });
        let flushing = scope.spawn({
            let fault = fault::current();
            move || {
                fault::set(fault);
                wal.sync()
            }
        });
        let (appended, operations, hanging) = other.join().unwrap();
        drop(hanging);
        flushing.join().unwrap().unwrap();
        expected.extend(appended);
        // With the bug of too much room, it is only seen in what is read.
        assert!(operations > before || fault::current().is_some(), "there was room for all of it");
    });
    wal.sync().unwrap();
    assert_keeps(&disk, wal, &expected);
}

#[test]
pub fn a_flush_that_unwinds_leaves_a_failed_log() {
    let (disk, wal) = fresh();
    wal.append(b"taken out of memory, and written nowhere").unwrap();
    disk.panic_next_write();
    assert!(catch_unwind(AssertUnwindSafe(|| wal.sync())).is_err(), "the flush does not unwind");
    let next = wal.sync();
    assert!(matches!(next, Err(CommitError::Poisoned(_))), "the next flush goes on as if all were written: {next:?}");
    assert!(matches!(wal.append(b"x"), Err(AppendError::Poisoned(_))));
    assert!(matches!(wal.health(), Health::Failed(_)));
    assert!(wal.close().is_err());
    assert_holds(&open(&disk.kill(Faults::default())), &[], "after a kill");
    assert_keeps(&disk, open(&disk.crash(Loss::Nothing, Faults::default())), &[]);
}

/// The small one is only in memory when the write of the large one fails, and no flush comes any more.
#[test]
fn a_large_record_that_fails_takes_the_small_one_before_it_along() {
    let (small, large) = (payload(1, 60), payload(2, 1000));
    for together in [false, true] {
        let (disk, wal) = fresh();
        let before = disk.operations();
        let appended = if together {
            disk.fail_next(false);
            wal.append_many(&[&small, &large])
        } else {
            wal.append(&small).unwrap();
            assert_eq!(disk.operations(), before, "it is in memory");
            disk.fail_next(false);
            wal.append(&large)
        };
        assert!(matches!(appended, Err(AppendError::Unknown(_))), "{appended:?}");
        assert_eq!(disk.operations(), before + 1, "one write, which failed");
        assert!(matches!(wal.append(b"x"), Err(AppendError::Poisoned(_))));
        assert!(matches!(wal.sync(), Err(CommitError::Poisoned(_))));
        drop(wal);
        assert_holds(&open(&disk.kill(Faults::default())), &[], "after a kill");
        assert_holds(&open(&disk.crash(Loss::Nothing, Faults::default())), &[], "after a crash");
    }
}
