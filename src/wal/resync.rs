//! Searching forward, word by word, for what is whole: the next part of a record behind damage, and marks behind the log's
//! end.
//!
//! What is searched may be any bytes, also such that somebody chose to make the search long, and the device may fail to
//! read them. So it does a bounded amount of work per segment ([`SearchBudget`]) and then goes on at the next one.

use super::cursor::{Cursor, SECTOR_BYTES};
use super::errors::WalError;
use super::layout::SegmentNumber;
use super::record::{self, FragmentHeader, Kind};
use super::segment;
use crate::lsn::Lsn;

/// How many bytes are read for checksums in one segment, in sizes of it. Records of an undamaged log take one; each header
/// that only looks like one takes as much as it states.
const CHECKSUMMED_SEGMENTS: u64 = 16;
/// How many sectors of one segment are tried that cannot be read: a device that fails takes seconds for each.
const UNREADABLE_SECTORS_LIMIT: u32 = 256;

/// What a search may still do in a segment. It is kept from one search to the next, so that many of them do not do more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SearchBudget {
    /// None was searched yet.
    number: Option<SegmentNumber>,
    checksum_bytes: u64,
    unreadable_sectors: u32,
}

impl SearchBudget {
    /// Takes so many bytes; answers whether they were left.
    fn take_bytes(&mut self, bytes: usize) -> bool {
        let left = self.checksum_bytes.checked_sub(bytes as u64);
        self.checksum_bytes = left.unwrap_or(0);
        left.is_some()
    }

    /// Takes a sector that cannot be read; answers whether one was left.
    fn take_sector(&mut self) -> bool {
        let left = self.unreadable_sectors.checked_sub(1);
        self.unreadable_sectors = left.unwrap_or(0);
        left.is_some()
    }
}

impl Cursor {
    /// Moves to the first place at `from` or behind it, and before `limit`, where a part of a record is whole: its
    /// checksum, which covers its position, and its timeline fit. Answers that place; `None` if there is none in any
    /// segment that is there. Follow it by [`skip_continued`](Cursor::skip_continued): the part may be a later one of a
    /// record whose beginning is lost.
    ///
    /// Headers of segments need not be whole, so that the records behind a damaged one can still be read; but a segment
    /// of another system or a later format is passed over, and so are sectors that cannot be read, and segments that
    /// cannot be opened. Where damage is so heavy, or so well made, that the search would take too long, the rest of its
    /// segment is passed over, too.
    ///
    /// # Errors
    /// The directory cannot be read, a read came short, or there are no file descriptors.
    pub fn resynchronise(&mut self, from: Lsn, limit: Lsn) -> Result<Option<Lsn>, WalError> {
        let layout = self.directory.layout();
        let from = Lsn::new(from.get().div_ceil(record::ALIGNMENT as u64).saturating_mul(record::ALIGNMENT as u64));
        for number in self.directory.list()?.range(layout.segment_of(from)..) {
            let is_there = match self.open_unchecked(*number) {
                Err(WalError::Unreadable { .. }) => false,
                other => other?,
            };
            if !is_there || self.is_of_others(*number)? {
                continue;
            }
            self.begin_search(*number);
            let mut at = layout.record_start(from.max(layout.segment_start(*number)));
            let end = layout.segment_start(number.next()).min(limit);
            while at < end {
                match self.is_part(at, end) {
                    Ok(Some(false)) => at = at.advanced(record::ALIGNMENT as u64),
                    Ok(Some(true)) => {
                        self.at = at;
                        return Ok(Some(at));
                    }
                    Ok(None) => break,
                    Err(WalError::Unreadable { lsn, .. }) if self.budget.take_sector() => at = next_sector(lsn),
                    Err(WalError::Unreadable { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.segment = None;
        Ok(None)
    }

    fn begin_search(&mut self, number: SegmentNumber) {
        if self.budget.number != Some(number) {
            self.budget = SearchBudget {
                number: Some(number),
                checksum_bytes: self.directory.layout().segment_bytes().saturating_mul(CHECKSUMMED_SEGMENTS),
                unreadable_sectors: UNREADABLE_SECTORS_LIMIT,
            };
        }
    }

    /// Whether the open segment's header says that its records are not this log's.
    fn is_of_others(&mut self, number: SegmentNumber) -> Result<bool, WalError> {
        let (start, layout) = (self.directory.layout().segment_start(number), self.directory.layout());
        match self.bytes(start, segment::HEADER_BYTES, layout.segment_start(number.next())) {
            Ok(bytes) => {
                let header = bytes.first_chunk().copied();
                Ok(header.is_some_and(|header| self.directory.is_of_others(&header)))
            }
            Err(WalError::Unreadable { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a whole part of a record starts at `at` in the open segment; `None` if not even a header is there, or no
    /// more checksums are to be made here.
    fn is_part(&mut self, at: Lsn, end: Lsn) -> Result<Option<bool>, WalError> {
        let timeline = self.directory.timeline();
        let Some(head) = self.bytes(at, record::HEADER_BYTES, end)?.first_chunk().copied() else { return Ok(None) };
        let room = (end.bytes_since(at) as usize).saturating_sub(record::HEADER_BYTES);
        // Cheap tests first: this runs over every word of up to a whole log.
        let Ok(header) = FragmentHeader::decode(&head, room) else { return Ok(Some(false)) };
        if header.timeline != timeline || Kind::from_number(header.kind).is_none() {
            return Ok(Some(false));
        }
        let len = record::HEADER_BYTES + header.payload_len;
        if !self.budget.take_bytes(len) {
            return Ok(None);
        }
        match self.bytes(at, len, end) {
            Ok(whole) => {
                let body = whole.get(record::HEADER_BYTES..).unwrap_or(&[]);
                Ok(Some(body.len() == header.payload_len && header.check(at, body, timeline).is_ok()))
            }
            // What is behind its header cannot be read; a shorter one may lie before that.
            Err(WalError::Unreadable { .. }) => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    /// Looks for a valid mark at `from` or behind it, and before `limit`, in this segment and all later ones that are
    /// there, that states more than `above`, and answers where it stands and what it states.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn find_mark_above(
        &mut self,
        from: Lsn,
        limit: Lsn,
        above: Lsn,
    ) -> Result<Option<(Lsn, Lsn)>, WalError> {
        let layout = self.directory.layout();
        let first = layout.segment_of(from);
        for number in self.directory.list()?.range(first..) {
            if layout.segment_start(*number) >= limit {
                break;
            }
            // A damaged header does not keep the marks behind it from being evidence, so the header is not checked.
            if !self.open_unchecked(*number)? {
                continue;
            }
            let mut at = layout.record_start(from.max(layout.segment_start(*number)));
            let end = layout.segment_start(number.next()).min(limit);
            while layout.segment_of(at) == *number && at < end {
                if let Some(stated) = self.mark_at(at, end)?.filter(|stated| *stated > above) {
                    return Ok(Some((at, stated)));
                }
                at = at.advanced(record::ALIGNMENT as u64);
            }
        }
        self.segment = None;
        Ok(None)
    }

    /// What a mark at `at` states, if one is there. The segment must be open.
    fn mark_at(&mut self, at: Lsn, end: Lsn) -> Result<Option<Lsn>, WalError> {
        const LEN: usize = record::HEADER_BYTES + record::MARK_PAYLOAD_BYTES;
        let timeline = self.directory.timeline();
        let bytes = self.bytes(at, LEN, end)?;
        let Some((head, payload)) = bytes.split_first_chunk::<{ record::HEADER_BYTES }>() else { return Ok(None) };
        // Cheap test first: this runs over every word of up to a whole segment.
        if head[0] as usize != record::MARK_PAYLOAD_BYTES || head[12] != Kind::Mark as u8 {
            return Ok(None);
        }
        let mark =
            FragmentHeader::decode(head, payload.len()).ok().filter(|header| header.payload_len == payload.len());
        let mark = mark.filter(|header| header.check(at, payload, timeline) == Ok(Kind::Mark));
        Ok(mark.and_then(|_| record::decode_mark(payload)))
    }
}

/// Behind the sector that a position lies in.
pub(super) fn next_sector(lsn: Lsn) -> Lsn {
    lsn.advanced(SECTOR_BYTES - lsn.get() % SECTOR_BYTES)
}
