//! Searching backwards: the record at or before a position.
//!
//! Records chain forward only, so the search reads forward from where its segment begins, and steps to the segment before
//! if no record starts there soon enough. It holds one record in memory at a time, and reads a segment once.

use super::cursor::{AnyRecord, Cursor, Step};
use super::directory::SegmentDirectory;
use super::errors::WalError;
use super::layout::SegmentNumber;
use super::recovery::missing;
use crate::lsn::Lsn;

/// The last record that starts at `lsn` or before it, of whatever kind; `None` if the log has none there. `end` is
/// where the log ends, as [`Scan::end`](super::Scan::end) and [`Wal::durable`](super::Wal::durable) say, and
/// nothing behind it is looked at.
///
/// # Errors
/// [`WalError::Recycled`] where the log does not reach back far enough, [`WalError::Damaged`] where something else than
/// a record stands before `lsn` in its segment, or a file cannot be read.
pub fn record_at_or_before(directory: &SegmentDirectory, lsn: Lsn, end: Lsn) -> Result<Option<AnyRecord>, WalError> {
    let layout = directory.layout();
    if lsn < layout.first_record() || end <= layout.first_record() {
        return Ok(None);
    }
    let lsn = lsn.min(Lsn::new(end.get() - 1));
    let mut number = layout.segment_of(lsn);
    while number >= SegmentNumber::FIRST {
        if directory.open(number, crate::disk::Access::Read)?.is_none() {
            return Err(no_segment(directory, number, lsn)?);
        }
        if let Some(record) = last_in_segment(directory, number, lsn, end)? {
            return Ok(Some(record));
        }
        number = SegmentNumber(number.0 - 1);
    }
    Ok(None)
}

/// The last record that starts in this segment, at `lsn` or before it.
fn last_in_segment(
    directory: &SegmentDirectory,
    number: SegmentNumber,
    lsn: Lsn,
    end: Lsn,
) -> Result<Option<AnyRecord>, WalError> {
    let layout = directory.layout();
    let next_segment = layout.segment_start(number.next());
    let mut cursor = Cursor::new(directory.clone(), layout.segment_start(number));
    // A record may fill many segments. None but this one is read for it here, or a search would read them all for each.
    cursor.skip_continued(end.min(next_segment))?;
    let mut last = None;
    while cursor.position() <= lsn && cursor.position() < next_segment {
        match cursor.next(end)? {
            Step::Record(record) => last = Some(record),
            Step::Nothing(gap) if gap.start >= end => break,
            Step::Nothing(gap) => return Err(WalError::Damaged(Box::new(gap.damage))),
        }
    }
    Ok(last)
}

/// What it means that a segment is not there in which, or before which, the record for `lsn` starts.
fn no_segment(directory: &SegmentDirectory, number: SegmentNumber, lsn: Lsn) -> Result<WalError, WalError> {
    let layout = directory.layout();
    Ok(match directory.list()?.first() {
        Some(oldest) if *oldest > number => WalError::Recycled { wanted: lsn, oldest: layout.first_record_in(*oldest) },
        _ => missing(directory, number),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::*;
    use super::super::{Evidence, Kind, Scan, Wal, scan_with};
    use super::*;
    use crate::disk::Disk;
    use crate::disk::lossy::{Faults, LossyDisk};

    /// A closed log of records of these lengths, and all that is in it.
    fn closed(lens: &[usize]) -> (LossyDisk, Scan, Vec<AnyRecord>) {
        let disk = LossyDisk::new(Faults::default());
        let wal = open(&disk, Evidence::default()).unwrap();
        for (number, len) in lens.iter().enumerate() {
            append(&wal, &payload(number as u64, *len)).unwrap();
        }
        wal.close().unwrap();
        let mut records = Vec::new();
        let mut visit = |record: &AnyRecord| records.push(record.clone());
        let scan = scan_with(directory(&disk, "/wal"), Evidence::default(), &mut visit).unwrap();
        (disk, scan, records)
    }

    fn live(lens: &[usize]) -> (LossyDisk, Wal, Vec<Lsn>) {
        let disk = LossyDisk::new(Faults::default());
        let wal = open(&disk, Evidence::default()).unwrap();
        let append = |(number, len): (usize, &usize)| append(&wal, &payload(number as u64, *len)).unwrap();
        let ends: Vec<_> = lens.iter().enumerate().map(append).collect();
        wal.make_durable(ends[ends.len() - 1]).unwrap();
        (disk, wal, ends)
    }

    proptest! {
        /// Whatever the lengths, it finds what reading everything forward finds.
        #[test]
        fn it_finds_what_reading_forward_finds(
            lens in prop::collection::vec(prop_oneof![0usize..300, 1900usize..2100, 0usize..9000], 1..12),
            position: prop::sample::Index,
        ) {
            let (disk, scan, records) = closed(&lens);
            let directory = directory(&disk, "/wal");
            let any = Lsn::new(2048 + position.index(scan.end().get() as usize) as u64);
            let starts = records.iter().flat_map(|record| [record.start, Lsn::new(record.start.get() - 1)]);
            for lsn in starts.chain([any, scan.end(), Lsn::new(u64::MAX), Lsn::NONE]) {
                let expected = records.iter().rfind(|record| record.start <= lsn);
                let found = record_at_or_before(&directory, lsn, scan.end()).unwrap();
                prop_assert_eq!(found.as_ref(), expected, "at or before {}", lsn);
            }
        }
    }

    #[test]
    fn a_live_log_is_searched_up_to_what_is_durable() {
        let (_disk, wal, ends) = live(&[100, 5000, 100]);
        let durable = wal.durable();
        append(&wal, b"not durable").unwrap();
        let last = wal.record_at_or_before(wal.end()).unwrap().unwrap();
        assert!(last.end <= durable && last.kind == Kind::Mark, "{last:?}");
        let found = wal.record_at_or_before(Lsn::new(ends[1].get() - 1)).unwrap().unwrap();
        assert_eq!((found.end, found.payload), (ends[1], payload(1, 5000)));
    }

    #[test]
    fn an_empty_log_has_no_record() {
        let disk = LossyDisk::new(Faults::default());
        let wal = open(&disk, Evidence::default()).unwrap();
        assert_eq!(wal.record_at_or_before(Lsn::new(u64::MAX)).unwrap(), None);
    }

    #[test]
    fn where_the_log_was_recycled_it_says_what_is_left() {
        // The second record begins in what is recycled and ends in what is not.
        let (_disk, wal, ends) = live(&[100, 5000, 1500, 100]);
        assert!(wal.recycle(ends[1]).unwrap() > 0);
        let oldest_left = layout().first_record_in(layout().segment_of(ends[1]));
        for lsn in [layout().first_record(), Lsn::new(ends[1].get() - 1)] {
            let error = wal.record_at_or_before(lsn).unwrap_err();
            let WalError::Recycled { wanted, oldest } = error else { panic!("{error}") };
            assert_eq!((wanted, oldest), (lsn, oldest_left));
        }
        assert_eq!(wal.record_at_or_before(ends[1]).unwrap().unwrap().start, ends[1]);
    }

    #[test]
    fn where_a_closed_log_was_recycled_it_says_what_is_left_too() {
        let (disk, scan, records) = closed(&[100, 5000, 1500, 100]);
        let directory = directory(&disk, "/wal");
        let long = records.iter().position(|record| record.payload.len() == 5000).unwrap();
        // Everything before the segment in which it ends.
        let (oldest, long, next) = (layout().segment_of(records[long].end), &records[long], &records[long + 1]);
        assert!(layout().segment_of(long.start) < oldest && layout().segment_of(next.start) == oldest);
        for number in directory.list().unwrap().range(..oldest) {
            disk.remove(&directory.segment_path(*number)).unwrap();
        }
        for lsn in [layout().first_record(), long.start, Lsn::new(next.start.get() - 1)] {
            let error = record_at_or_before(&directory, lsn, scan.end()).unwrap_err();
            let WalError::Recycled { wanted, oldest: left } = error else { panic!("{error}") };
            assert_eq!((wanted, left), (lsn, layout().first_record_in(oldest)));
        }
        assert_eq!(record_at_or_before(&directory, next.start, scan.end()).unwrap().as_ref(), Some(next));
    }

    #[test]
    fn damage_before_the_position_is_refused_and_behind_it_ignored() {
        let (disk, scan, records) = closed(&[100, 200, 300]);
        let directory = directory(&disk, "/wal");
        let bad = &records[1];
        let path = directory.segment_path(SegmentNumber::FIRST);
        let offset = layout().offset_of(bad.start) + 20;
        disk.open(&path, crate::disk::Access::Write).unwrap().write_at(&[0xff], offset).unwrap();
        let search = |lsn| record_at_or_before(&directory, lsn, scan.end());
        assert_eq!(search(Lsn::new(bad.start.get() - 1)).unwrap().as_ref(), Some(&records[0]));
        let error = search(records[2].start).unwrap_err();
        assert!(matches!(&error, WalError::Damaged(damage) if damage.lsn == bad.start), "{error}");
        // The one prepared ahead, too: else the log could have been recycled up to there.
        for number in directory.list().unwrap() {
            disk.remove(&directory.segment_path(number)).unwrap();
        }
        assert!(matches!(search(bad.start), Err(WalError::Damaged(_))));
    }
}
