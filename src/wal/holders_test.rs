//! Holders on a real log: what they keep, what they lose, and how they hear of it.

use super::retention::{HolderKind, Keeper};
use super::testing::*;
use super::*;
use crate::config::WalConfig;
use crate::disk::lossy::{Faults, LossyDisk};
use crate::lsn::Lsn;

/// A log of ten records of two to a segment, all durable, and where they end.
fn filled(max_retained_bytes: u64) -> (Wal, Vec<Lsn>) {
    let disk = LossyDisk::new(Faults::default());
    let wal = open_with(&disk, Evidence::default(), WalConfig { max_retained_bytes, ..config() }).unwrap();
    let ends: Vec<_> = (0..10).map(|number| append(&wal, &payload(number, 900)).unwrap()).collect();
    wal.make_durable(ends[9]).unwrap();
    (wal, ends)
}

#[test]
fn what_is_held_stays_until_it_is_let_go() {
    let (wal, ends) = filled(0);
    let start = layout().first_record();
    let slot = wal.hold(HolderKind::Slot, "standby", start).unwrap();
    let archive = wal.hold(HolderKind::Archive, "archive", ends[4]).unwrap();
    assert_eq!(wal.recycle(ends[9]).unwrap(), 0);
    let keepers = |number| wal.retention(ends[9]).keepers(SegmentNumber(number)).cloned().collect::<Vec<_>>();
    let by_slot = Keeper::Holder { kind: HolderKind::Slot, name: "standby".into() };
    assert_eq!(keepers(1), [by_slot]);

    slot.advance(ends[9]).unwrap();
    slot.advance(start).unwrap();
    assert_eq!(slot.needs(), ends[9], "it never goes back");
    assert!(wal.recycle(ends[9]).unwrap() > 0);
    assert_eq!(read_all(&wal, ends[4]).unwrap().len(), 5);
    drop(archive);
    assert!(wal.recycle(ends[9]).unwrap() > 0);
    assert!(matches!(read_all(&wal, ends[4]), Err(WalError::Recycled { .. })));
}

#[test]
fn what_is_gone_cannot_be_held_and_the_oldest_there_is_can() {
    let (wal, ends) = filled(0);
    wal.recycle(ends[9]).unwrap();
    let error = wal.hold(HolderKind::Slot, "late", layout().first_record()).unwrap_err();
    let WalError::Recycled { wanted, oldest } = error else { panic!("{error}") };
    assert_eq!(wanted, layout().first_record());
    let slot = wal.hold(HolderKind::Slot, "in time", oldest).unwrap();
    assert!(slot.invalidated().is_none() && wal.recycle(ends[9]).unwrap() == 0);
}

#[test]
fn a_reader_keeps_what_it_has_not_read() {
    let (wal, ends) = filled(0);
    let mut reader = wal.named_reader("slow", layout().first_record());
    let mut read = Vec::new();
    while let Some(record) = reader.next_durable().unwrap() {
        read.push(record.payload);
        wal.recycle(ends[9]).unwrap();
    }
    assert!(read.iter().eq(&(0..10).map(|number| payload(number, 900)).collect::<Vec<_>>()));
    assert!(matches!(read_all(&wal, layout().first_record()), Err(WalError::Recycled { .. })), "nothing was recycled");
    assert!(wal.retention(ends[9]).explain(layout().segment_of(ends[9])).contains("reader slow"));
    drop(reader);
    assert!(!wal.retention(ends[9]).explain(layout().segment_of(ends[9])).contains("reader"));
}

#[test]
fn who_keeps_too_much_is_told_why_and_what_is_left() {
    let (wal, ends) = filled(2 * SEGMENT_BYTES);
    let slot = wal.hold(HolderKind::Slot, "gone", layout().first_record()).unwrap();
    let near = wal.hold(HolderKind::Slot, "near", ends[8]).unwrap();
    let mut reader = wal.reader(layout().first_record());
    assert_eq!(reader.next_durable().unwrap().unwrap().end, ends[0]);
    assert!(slot.check().is_ok());

    // What the engine still needs is kept for all who hold it.
    assert_eq!(wal.recycle(ends[0]).unwrap(), 0);
    assert!(slot.check().is_ok());

    assert!(wal.recycle(ends[9]).unwrap() > 0);
    let reason = slot.invalidated().unwrap();
    assert_eq!(reason.retained_bytes, wal.durable().bytes_since(layout().first_record()));
    let error = slot.advance(ends[9]).unwrap_err();
    let WalError::Invalidated { invalidation, oldest } = error else { panic!("{error}") };
    assert_eq!(&*invalidation.holder.name, "gone");
    let error = reader.next_durable().unwrap_err();
    assert!(error.to_string().contains("reader from 0/840 was invalidated"), "{error}");
    assert!(matches!(error, WalError::Invalidated { oldest: other, .. } if other == oldest), "{error}");
    assert!(near.check().is_ok());
    // What it was told is there, is there.
    let mut again = wal.reader(oldest);
    assert!(again.next_durable().is_ok() || oldest > ends[0]);
    assert_eq!(read_all(&wal, ends[8]).unwrap().len(), 1);
    // It is not asked again.
    assert_eq!(wal.retention(ends[9]).invalidated().count(), 0);
}

#[test]
fn readers_under_a_writer_that_recycles_read_all_or_are_told() {
    let disk = LossyDisk::new(Faults::default());
    let max_retained_bytes = 4 * SEGMENT_BYTES;
    let wal = open_with(&disk, Evidence::default(), WalConfig { max_retained_bytes, ..config() }).unwrap();
    let start = layout().first_record();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut reader = wal.reader(start);
                let mut next = 0;
                while next < 400 {
                    match reader.next_durable() {
                        Ok(Some(record)) => {
                            assert_eq!(record.payload, payload(next, 700));
                            next += 1;
                        }
                        Ok(None) => std::thread::yield_now(),
                        Err(WalError::Invalidated { oldest, .. }) => {
                            assert!(oldest > start);
                            return;
                        }
                        // The first records may be gone before it is there.
                        Err(WalError::Recycled { .. }) if next == 0 => return,
                        Err(error) => panic!("record {next}: {error}"),
                    }
                }
            });
        }
        for number in 0..400 {
            let end = append(&wal, &payload(number, 700)).unwrap();
            wal.make_durable(end).unwrap();
            wal.recycle(end).unwrap();
        }
    });
}

#[test]
fn the_number_of_holders_has_a_bound() {
    let (wal, ends) = filled(0);
    let hold = || wal.hold(HolderKind::Slot, "one of many", ends[9]);
    let mut holds: Vec<_> = (0..super::holders::MAX_HOLDERS).map(|_| hold().unwrap()).collect();
    assert!(matches!(hold(), Err(WalError::TooManyHolders { limit: 1024 })));
    let mut reader = wal.named_reader("late", ends[4]);
    assert!(matches!(reader.next_durable(), Err(WalError::TooManyHolders { .. })), "a reader is one of them");
    holds.pop();
    hold().unwrap();
    // One that did not get its hold is not counted, nor does it take one away when it goes.
    drop(reader);
    hold().unwrap();
    assert_eq!(holds.len() + 1, super::holders::MAX_HOLDERS);
}
