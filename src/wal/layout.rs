//! Where things lie: positions, segments and file names. Pure arithmetic.
//!
//! ```text
//! LSN space   |<------------- segment 1 ------------->|<------------- segment 2 ------------->| …
//!             S                                      2S                                      3S     S = segment size
//!             [header][record][record][record ..first][header][last ..][record]         [fill]
//! ```
//!
//! Headers lie inside LSN space. Records start at multiples of 8. Fewer than [`record::HEADER_BYTES`] bytes at a
//! segment's end are filler: the next record starts behind the next segment's header.

use std::path::{Path, PathBuf};

use super::{record, segment};
use crate::lsn::{Lsn, TimelineId};

/// The shape of a log: everything that follows from the segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    segment_bytes: u64,
}

/// A segment's number. The first is 1; segment n holds the positions from n times the segment size on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The first of a log.
    pub const FIRST: SegmentNumber = SegmentNumber(1);

    /// The one behind it.
    pub fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }
}

/// The part of a record that lies in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where its header starts.
    pub start: Lsn,
    /// Bytes of payload in it.
    pub len: usize,
    /// Where it ends, padding included.
    pub end: Lsn,
}

impl Layout {
    /// The layout for a segment size, which must be a power of two of at least 1 KiB.
    pub fn new(segment_bytes: u64) -> Layout {
        debug_assert!(segment_bytes.is_power_of_two() && segment_bytes >= 1024);
        Layout { segment_bytes }
    }

    /// The size of a segment in bytes.
    pub fn segment_bytes(self) -> u64 {
        self.segment_bytes
    }

    /// Where the first record of a log starts.
    pub fn first_record(self) -> Lsn {
        self.first_record_in(SegmentNumber::FIRST)
    }

    /// Where the first record of a segment starts, or goes on: behind the header.
    pub fn first_record_in(self, number: SegmentNumber) -> Lsn {
        self.record_start(self.segment_start(number))
    }

    /// The segment that a position lies in.
    pub fn segment_of(self, lsn: Lsn) -> SegmentNumber {
        SegmentNumber(lsn.get() / self.segment_bytes)
    }

    /// The position of a segment's first byte.
    pub fn segment_start(self, number: SegmentNumber) -> Lsn {
        Lsn::new(number.0.saturating_mul(self.segment_bytes))
    }

    /// How far into its segment a position lies.
    pub fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.get() & (self.segment_bytes - 1)
    }

    /// Where a record that may start at `lsn` or later really starts: behind the header, not in the filler.
    pub fn record_start(self, lsn: Lsn) -> Lsn {
        let offset = self.offset_of(lsn);
        if offset < segment::HEADER_BYTES as u64 {
            lsn.advanced(segment::HEADER_BYTES as u64 - offset)
        } else if self.segment_bytes - offset < record::HEADER_BYTES as u64 {
            self.segment_start(self.segment_of(lsn).next()).advanced(segment::HEADER_BYTES as u64)
        } else {
            lsn
        }
    }

    /// How many payload bytes fit behind a record header at `start` in the same segment.
    pub fn payload_room(self, start: Lsn) -> usize {
        (self.segment_bytes - self.offset_of(start)).saturating_sub(record::HEADER_BYTES as u64) as usize
    }

    /// The first fragment of `len` bytes of payload that starts at `lsn` or behind it.
    pub fn fragment(self, lsn: Lsn, len: usize) -> Fragment {
        let start = self.record_start(lsn);
        let len = len.min(self.payload_room(start));
        let end = start.advanced((record::HEADER_BYTES + len).next_multiple_of(record::ALIGNMENT) as u64);
        Fragment { start, len, end }
    }

    /// Where a record of `len` payload bytes ends that is appended at `lsn`.
    pub fn record_end(self, lsn: Lsn, len: usize) -> Lsn {
        let mut fragment = self.fragment(lsn, len);
        let mut rest = len - fragment.len;
        while rest > 0 {
            fragment = self.fragment(fragment.end, rest);
            rest -= fragment.len;
        }
        fragment.end
    }

    /// The file name of a segment, in PostgreSQL's form: timeline, high and low part of the number, in hexadecimal.
    /// The low part counts up to 4 GiB of segments.
    pub fn file_name(self, timeline: TimelineId, number: SegmentNumber) -> String {
        let per_high = (1 << 32) / self.segment_bytes;
        format!("{:08X}{:08X}{:08X}", timeline.get(), number.0 / per_high, number.0 % per_high)
    }

    /// The path of a segment in its directory.
    pub fn path(self, directory: &Path, timeline: TimelineId, number: SegmentNumber) -> PathBuf {
        directory.join(self.file_name(timeline, number))
    }

    /// The timeline and number that a file name stands for; `None` if it is no segment's name.
    pub fn parse_file_name(self, name: &str) -> Option<(TimelineId, SegmentNumber)> {
        let hex = |range| name.get(range).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let (timeline, high, low) = (hex(0..8)?, hex(8..16)?, hex(16..24)?);
        let per_high = (1u64 << 32) / self.segment_bytes;
        let number = SegmentNumber(high.checked_mul(per_high)?.checked_add(low)?);
        let timeline = TimelineId::new(u32::try_from(timeline).ok()?);
        // Only the one spelling that we write counts: no sign, no lower case, no low part that should have carried.
        (number >= SegmentNumber::FIRST && self.file_name(timeline, number) == name).then_some((timeline, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAYOUT: fn() -> Layout = || Layout::new(1024);

    #[test]
    fn the_first_record_lies_behind_the_first_header() {
        assert_eq!(Layout::new(64 << 20).first_record().to_string(), "0/4000040");
    }

    #[test]
    fn names_are_those_of_postgresql() {
        let layout = Layout::new(16 << 20);
        let name = layout.file_name(TimelineId::FIRST, SegmentNumber(0x1_02));
        assert_eq!(name, "000000010000000100000002");
        assert_eq!(layout.parse_file_name(&name), Some((TimelineId::FIRST, SegmentNumber(0x102))));
        for wrong in [
            "",
            "00000001000000000000000",
            "000000010000000000000100",
            "00000001000000000000000g",
            "0000000100000000000000+1",
        ] {
            assert_eq!(layout.parse_file_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_record_that_does_not_fit_goes_on_behind_the_next_header() {
        let layout = LAYOUT();
        let at = Lsn::new(2048 - 32);
        let first = layout.fragment(at, 100);
        assert_eq!((first.start, first.len, first.end), (at, 16, Lsn::new(2048)));
        let last = layout.fragment(first.end, 84);
        assert_eq!((last.start, last.len, last.end), (Lsn::new(2048 + 64), 84, Lsn::new(2048 + 64 + 104)));
        assert_eq!(layout.record_end(at, 100), last.end);
        assert_eq!(layout.record_start(Lsn::new(2048 - 8)), Lsn::new(2048 + 64), "filler");
    }

    proptest! {
        #[test]
        fn fragments_cover_the_payload_and_never_cross_a_segment(at in 128u64..5000, len in 0usize..10_000) {
            let layout = LAYOUT();
            let (mut lsn, mut rest) = (Lsn::new(1024 + at * 8), len);
            let end = layout.record_end(lsn, len);
            loop {
                let fragment = layout.fragment(lsn, rest);
                prop_assert!(fragment.start >= lsn && fragment.start.get().is_multiple_of(8));
                prop_assert!(layout.offset_of(fragment.start) >= 64);
                prop_assert_eq!(layout.segment_of(fragment.start), layout.segment_of(Lsn::new(fragment.end.get() - 1)));
                rest -= fragment.len;
                lsn = fragment.end;
                if rest == 0 { break }
            }
            prop_assert_eq!(lsn, end);
        }
    }
}
