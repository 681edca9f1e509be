//! Sectors that cannot be read, and segments that are not this log's: what is whole beside them is found.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cursor::read_sectors;
use super::segment::SegmentHeader;
use super::testing::*;
use super::*;
use crate::disk::lossy::{Denied, Faults, LossyDisk};
use crate::disk::{Access, Disk};
use crate::ident::SystemId;
use crate::lsn::{Lsn, TimelineId};

const EVERYTHING: Lsn = Lsn::new(u64::MAX);
const SECTOR_BYTES: u64 = 512;

/// A log of short records across several segments, still open, each acknowledged; and where they end.
fn filled() -> (LossyDisk, Wal, Vec<Lsn>) {
    let disk = LossyDisk::new(Faults::default());
    let wal = open(&disk, Evidence::default()).unwrap();
    let acknowledged = |number| {
        let end = append(&wal, &payload(number, 100)).unwrap();
        wal.make_durable(end).unwrap();
        end
    };
    let ends = (0..60).map(acknowledged).collect::<Vec<_>>();
    assert!(layout().segment_of(ends[59]).0 >= 5);
    (disk, wal, ends)
}

fn segment(disk: &LossyDisk, number: u64) -> PathBuf {
    directory(disk, "/wal").segment_path(SegmentNumber(number))
}

/// A position and the path and offset that belong to it.
fn place(disk: &LossyDisk, number: u64, offset: u64) -> (Lsn, PathBuf) {
    (layout().segment_start(SegmentNumber(number)).advanced(offset), segment(disk, number))
}

fn names_place(error: WalError, disk: &LossyDisk, number: u64, offset: u64) {
    let (lsn, path) = place(disk, number, offset);
    let text = error.to_string();
    assert!(text.contains(&format!("{} cannot be read at offset {offset} (LSN {lsn}): ", path.display())), "{text}");
    let damage = error.into_damage().unwrap();
    assert_eq!((damage.path, damage.offset, damage.lsn), (path, offset, lsn));
}

/// All records that can be read, over whatever is in the way.
fn read_on(disk: &LossyDisk) -> Vec<AnyRecord> {
    let mut cursor = Cursor::new(directory(disk, "/wal"), layout().first_record());
    let (mut records, mut steps) = (Vec::new(), 0);
    loop {
        steps += 1;
        assert!(steps < 10_000, "it makes no progress at {}", cursor.position());
        match cursor.next(EVERYTHING) {
            Ok(Step::Record(record)) => records.push(record),
            stopped => {
                drop(stopped);
                let from = cursor.position().advanced(1);
                if cursor.resynchronise(from, EVERYTHING).unwrap().is_none() {
                    return records;
                }
                let _ = cursor.skip_continued(EVERYTHING);
            }
        }
    }
}

/// The same segment of another system's log, whose records have the same positions.
fn replace_by_foreign(disk: &LossyDisk, number: u64) {
    let foreign =
        SegmentDirectory::new(Arc::new(disk.clone()), "/other".into(), layout(), SystemId::new(8), TimelineId::FIRST);
    let wal = Wal::open(scan(foreign.clone(), Evidence::default()).unwrap(), config()).unwrap();
    for count in 0..60 {
        let end = append(&wal, &payload(count, 100)).unwrap();
        wal.make_durable(end).unwrap();
    }
    let bytes = disk.contents(&foreign.segment_path(SegmentNumber(number)));
    disk.open(&segment(disk, number), Access::Write).unwrap().write_at(&bytes, 0).unwrap();
}

/// A header that a later format would have.
fn make_newer(disk: &LossyDisk, number: u64) {
    let header = SegmentHeader::new(layout(), SystemId::new(7), TimelineId::FIRST, SegmentNumber(number));
    let mut bytes = header.encode();
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..60]).to_le_bytes();
    bytes[60..].copy_from_slice(&crc);
    disk.open(&segment(disk, number), Access::Write).unwrap().write_at(&bytes, 0).unwrap();
}

#[test]
fn what_lies_before_a_bad_sector_is_delivered_and_the_sector_named() {
    let (disk, wal, ends) = filled();
    let (bad, path) = place(&disk, 3, 1024);
    let contents = disk.contents(&path);
    disk.spoil(&path, 1300);
    let before: Vec<_> = ends.iter().copied().filter(|end| *end <= bad).collect();
    assert!(before.len() > 20 && before.len() < 40);

    let mut reader = wal.reader(layout().first_record());
    for expected in &before {
        assert_eq!(reader.next_durable().unwrap().unwrap().end, *expected);
    }
    names_place(reader.next_durable().unwrap_err(), &disk, 3, 1024);
    // Whoever asks again asks the device again.
    disk.open(&path, Access::Write).unwrap().write_at(&contents[1024..1536], 1024).unwrap();
    let rest: Vec<_> =
        std::iter::from_fn(|| reader.next_durable().transpose()).map(|record| record.unwrap().end).collect();
    assert_eq!(rest, ends[before.len()..]);

    // A start, which replays: it is refused, and nothing is taken for the log's end.
    drop((reader, wal));
    disk.spoil(&path, 1300);
    let mut replayed = Vec::new();
    let scanned = scan_with(directory(&disk, "/wal"), Evidence::default(), &mut |record| {
        replayed.extend((record.kind == Kind::Data).then_some(record.end));
    });
    names_place(scanned.unwrap_err(), &disk, 3, 1024);
    assert_eq!(replayed, before);
}

#[test]
fn a_large_read_finds_the_sector_too() {
    let disk = LossyDisk::new(Faults::default());
    disk.create_dir(std::path::Path::new("/wal")).unwrap();
    let path = std::path::Path::new("/wal/file");
    let file = disk.create(path).unwrap();
    file.write_at(&[7; 1 << 20], 0).unwrap();
    disk.spoil(path, 600_000);
    let mut buffer = vec![0; (1 << 20) - 100];
    let (readable, _) = read_sectors(file.as_ref(), &mut buffer, 100).unwrap();
    assert_eq!(readable as u64 + 100, 600_000 / SECTOR_BYTES * SECTOR_BYTES);
    assert!(buffer[..readable].iter().all(|byte| *byte == 7));
    assert!(disk.reads() < 600, "in large pieces first: {}", disk.reads());
}

#[test]
fn reading_goes_on_behind_bad_sectors() {
    let (disk, wal, _) = filled();
    drop(wal);
    let all = read_on(&disk);
    assert!(all.len() > 100);
    // In the middle, the last of a segment, the first, with its header, and two in a row.
    let bad = [(1, 512), (2, 1536), (3, 0), (4, 512), (4, 1024)];
    for (number, offset) in bad {
        disk.spoil(&segment(&disk, number), offset);
    }
    let overlaps = |record: &&AnyRecord| {
        !bad.iter().any(|(number, offset)| {
            let (from, _) = place(&disk, *number, *offset);
            record.start < from.advanced(SECTOR_BYTES) && record.end > from
        })
    };
    let readable: Vec<_> = all.iter().filter(overlaps).cloned().collect();
    assert!(readable.len() < all.len() - 10);
    assert_eq!(read_on(&disk), readable);
}

/// Whether it is not opened or not asked for its length, it is named, and what lies before it and behind it is read.
#[test]
fn reading_goes_on_behind_a_segment_that_cannot_be_opened() {
    for denied in [Denied::Opening, Denied::Length] {
        let (disk, wal, ends) = filled();
        let all = read_on(&disk);
        let (from, path) = place(&disk, 3, 0);
        let to = from.advanced(SEGMENT_BYTES);
        disk.deny(&path, denied);
        // Who reads along gets what is before it, and hears where the rest is.
        let mut reader = wal.reader(layout().first_record());
        for expected in ends.iter().filter(|end| **end <= from) {
            assert_eq!(reader.next_durable().unwrap().unwrap().end, *expected);
        }
        names_place(reader.next_durable().unwrap_err(), &disk, 3, 0);
        names_place(wal.record_at_or_before(from.advanced(500)).unwrap_err(), &disk, 3, 0);
        drop((reader, wal));
        let readable: Vec<_> = all.iter().filter(|record| record.end <= from || record.start >= to).cloned().collect();
        assert!(readable.len() > 50 && readable.len() < all.len() - 10);
        assert_eq!(read_on(&disk), readable, "{denied:?}");
        // No start takes it for the end of the log, and a cut before it can be made.
        names_place(scan(directory(&disk, "/wal"), Evidence::default()).unwrap_err(), &disk, 3, 0);
        let cut = Cut::find(directory(&disk, "/wal"), Lsn::NONE, ends[5]).unwrap();
        assert!(cut.not_blank().unwrap().contains(&SegmentNumber(3)));
        assert!(cut.highest_mark().unwrap().unwrap().1 >= to, "of the segments behind it");
        // What wants a descriptor hears that there is none, and takes nothing for damage.
        disk.refuse_opening(rustix::io::Errno::MFILE.raw_os_error(), false);
        let scarce = directory(&disk, "/wal").open(SegmentNumber(3), Access::Read).err().unwrap();
        assert!(scarce.is_passing() && scarce.into_damage().is_err());
    }
}

#[test]
fn segments_of_others_are_passed_over_and_named() {
    let (disk, wal, _) = filled();
    drop(wal);
    let all = read_on(&disk);
    replace_by_foreign(&disk, 2);
    make_newer(&disk, 4);
    let touches = |record: &AnyRecord, number: u64| {
        let (from, _) = place(&disk, number, 0);
        record.start < from.advanced(SEGMENT_BYTES) && record.end > from
    };
    let ours: Vec<_> = all.iter().filter(|record| !touches(record, 2) && !touches(record, 4)).cloned().collect();
    assert_eq!(read_on(&disk), ours);
    for (number, what) in [(2, "belongs to system 8"), (4, "segment format 2")] {
        let error = directory(&disk, "/wal").open(SegmentNumber(number), Access::Read).err().unwrap();
        let (lsn, path) = place(&disk, number, 0);
        let text = error.to_string();
        assert!(text.contains(what) && text.contains(&lsn.to_string()), "{text}");
        let damage = error.into_damage().unwrap();
        assert_eq!((damage.path, damage.lsn), (path, lsn));
    }
    let error = WalError::Closed;
    assert!(matches!(error.into_damage(), Err(WalError::Closed)), "that is about no place");
}

/// Bytes of a client that look like headers, each of a record up to nearly the end of the segment.
#[test]
fn a_search_through_bytes_made_to_delay_it_ends() {
    let layout = Layout::new(4 << 20);
    let disk = LossyDisk::new(Faults::default());
    let directory =
        SegmentDirectory::new(Arc::new(disk.clone()), "/wal".into(), layout, SystemId::new(7), TimelineId::FIRST);
    disk.create_dir(std::path::Path::new("/wal")).unwrap();
    for number in [1, 2].map(SegmentNumber) {
        let file = disk.create(&directory.segment_path(number)).unwrap();
        let mut bytes = SegmentHeader::new(layout, SystemId::new(7), TimelineId::FIRST, number).encode().to_vec();
        while number == SegmentNumber(1) && bytes.len() < 4 << 20 {
            let len = (4 << 20) - bytes.len() as u32 - 16;
            bytes.extend([&len.to_le_bytes()[..], b"fake", &1u32.to_le_bytes(), &[1, 0, 0, 0]].concat());
        }
        let at = layout.first_record_in(number);
        let header = record::FragmentHeader::new(at, TimelineId::FIRST, Kind::Data, Flags::default(), b"whole");
        bytes.extend([&header.encode()[..], b"whole"].concat());
        bytes.resize(4 << 20, 0);
        file.write_at(&bytes, 0).unwrap();
    }
    let began = Instant::now();
    let mut cursor = Cursor::new(directory, layout.first_record());
    let found = cursor.resynchronise(layout.first_record(), EVERYTHING).unwrap();
    assert_eq!(found, Some(layout.first_record_in(SegmentNumber(2))), "it goes on in the next segment");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_log_is_cut_before_what_cannot_be_read_and_what_can_is_kept() {
    let (disk, wal, ends) = filled();
    drop(wal);
    let disk = disk.kill(Faults::default());
    let at = ends[5];
    assert_eq!(layout().segment_of(at), SegmentNumber(1));
    let newest = directory(&disk, "/wal").list().unwrap().last().unwrap().0;
    let newest = if directory(&disk, "/wal").is_blank(SegmentNumber(newest)).unwrap() { newest - 1 } else { newest };
    for number in newest + 1..newest + 3 {
        let _ = disk.remove(&segment(&disk, number));
    }
    replace_by_foreign(&disk, 2);
    make_newer(&disk, 4);
    // In the segment that will be cut, in one that is taken out, and in the newest.
    let bad = [(1, 1536), (3, 512), (newest, 512), (newest, 1536)];
    let before = [1, newest].map(|number| disk.contents(&segment(&disk, number)));
    for (number, offset) in bad {
        disk.spoil(&segment(&disk, number), offset);
    }
    let cut = Cut::find(directory(&disk, "/wal"), Lsn::NONE, at).unwrap();
    let (mark, stated) = cut.highest_mark().unwrap().unwrap();
    assert!(layout().segment_of(mark).0 == newest && stated > at, "a mark of ours that can be read");
    assert_eq!(cut.not_blank().unwrap(), (1..=newest).map(SegmentNumber).collect::<Vec<_>>());
    let kept = cut.keep().unwrap().erase().unwrap().finish().unwrap();
    let unread: Vec<_> = kept.iter().map(|kept| kept.unread_bytes).filter(|bytes| *bytes > 0).collect();
    assert_eq!(unread, [512, 1024]);
    for (kept, (mut bytes, holes)) in kept.iter().zip(before.into_iter().zip([&[1536][..], &[512, 1536]])) {
        holes.iter().for_each(|hole: &usize| bytes[*hole..hole + 512].fill(0));
        assert!(disk.contents(&kept.path) == bytes, "{kept:?}");
    }
    let wal = open(&disk, Evidence::default()).unwrap();
    let records = read_all(&wal, layout().first_record()).unwrap();
    assert_eq!(records.iter().map(|record| record.end).collect::<Vec<_>>(), ends[..=5]);
    wal.make_durable(append(&wal, b"it goes on").unwrap()).unwrap();

    // Behind what cannot be read there is no place to cut at, and the refusal names it.
    drop(wal);
    disk.spoil(&segment(&disk, 1), 512);
    let error = Cut::find(directory(&disk, "/wal"), Lsn::NONE, ends[5]).unwrap_err();
    let text = error.to_string();
    assert!(matches!(&error, CutError::Behind { boundary, .. } if *boundary < ends[5]), "{text}");
    assert!(text.contains(&format!("at offset 512 of {}", segment(&disk, 1).display())), "{text}");

    // Before a checkpoint nothing is read.
    let (disk, wal, ends) = filled();
    drop(wal);
    disk.spoil(&segment(&disk, 1), 100);
    let find = |checkpoint| Cut::find(directory(&disk, "/wal"), checkpoint, ends[31]);
    let CutError::Wal(error) = find(Lsn::NONE).unwrap_err() else { panic!("not whole at its beginning") };
    names_place(error, &disk, 1, 0);
    assert_eq!(find(ends[30]).unwrap().at(), ends[31]);
}
