//! The live end of the log: where the next record goes, and the mapped segments it goes into.
//!
//! Everything here happens under one lock and does no I/O but copying into maps of segments that were prepared
//! beforehand. So between reserving space for a record and completing it nothing can fail for want of space. Room for
//! one mark is always kept behind the last record, because a flush writes one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::layout::{Layout, SegmentNumber};
use super::record::{self, Flags, FragmentHeader, Kind, MARK_PAYLOAD_BYTES};
use crate::disk::{File, Map};
use crate::lsn::{Lsn, TimelineId};

/// A segment that records can be copied into.
pub(super) struct WritableSegment {
    pub number: SegmentNumber,
    pub file: Arc<dyn File>,
    pub map: Box<dyn Map>,
}

/// Whether there is space for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// It can be appended now.
    Prepared,
    /// It can be soon.
    InPreparation,
    /// Not before space on the disk is freed.
    DiskFull,
}

/// The live end.
pub(super) struct Tail {
    layout: Layout,
    timeline: TimelineId,
    /// Where the log ends: everything before it is reserved and, as copies are made under the lock, complete.
    end: Lsn,
    /// What of it was covered by the last flush that began.
    flushed: Lsn,
    current: Option<WritableSegment>,
    prepared: VecDeque<WritableSegment>,
    /// Number of the next segment to prepare.
    next_number: SegmentNumber,
    /// How many prepared segments somebody waits for.
    wanted: usize,
    /// Files written since the last flush, older first.
    unsynced: Vec<(SegmentNumber, Arc<dyn File>)>,
    /// How many more segments the free space allows without going below the reserve, when last looked at. None: the
    /// disk is full.
    pub affordable: u64,
    /// No more records: the log is closing.
    pub closed: bool,
}

impl Tail {
    /// The tail of a log that ends at `end`, in `current` if there is one.
    pub(super) fn new(layout: Layout, timeline: TimelineId, end: Lsn, current: Option<WritableSegment>) -> Tail {
        let next_number = match &current {
            Some(segment) => segment.number.next(),
            None => layout.segment_of(end),
        };
        Tail {
            layout,
            timeline,
            end,
            flushed: end,
            current,
            prepared: VecDeque::new(),
            next_number,
            wanted: 1,
            unsynced: Vec::new(),
            affordable: u64::MAX,
            closed: false,
        }
    }

    /// Where the log ends.
    pub(super) fn end(&self) -> Lsn {
        self.end
    }

    /// The segment to prepare next, if one is wanted.
    pub(super) fn to_prepare(&self) -> Option<SegmentNumber> {
        (self.prepared.len() < self.wanted).then_some(self.next_number)
    }

    /// Takes a prepared segment.
    pub(super) fn add_prepared(&mut self, segment: WritableSegment) {
        debug_assert_eq!(segment.number, self.next_number);
        self.next_number = segment.number.next();
        self.prepared.push_back(segment);
    }

    /// Whether a record of `len` bytes, and a mark behind it, fit into what is prepared. If not, and the disk has
    /// room for them, asks for as many segments as they need.
    pub(super) fn space_for(&mut self, len: usize) -> Space {
        let end = self.layout.record_end(self.layout.record_end(self.end, len), MARK_PAYLOAD_BYTES);
        let last_needed = self.layout.segment_of(Lsn::new(end.get() - 1));
        let missing = (last_needed.0 + 1).saturating_sub(self.next_number.0);
        if missing > self.affordable {
            // Preparing some of them would take the space from everybody else for nothing.
            return Space::DiskFull;
        }
        // One segment beyond what is needed now is always in preparation.
        self.wanted = (self.prepared.len() + missing as usize).max(1);
        if missing == 0 { Space::Prepared } else { Space::InPreparation }
    }

    /// Copies a record in and answers where it ends. [`space_for`](Tail::space_for) must have found it prepared,
    /// or, for a mark, the record before it.
    ///
    /// # Errors
    /// The record lies outside the prepared space: a fault of ours, after which the log takes nothing more.
    pub(super) fn append(&mut self, kind: Kind, payload: &[u8]) -> io::Result<Lsn> {
        let (mut at, mut rest, mut first) = (self.end, payload, true);
        loop {
            let fragment = self.layout.fragment(at, rest.len());
            let (part, remaining) = rest.split_at(fragment.len);
            let flags = Flags::default().with(Flags::CONTINUES, !remaining.is_empty()).with(Flags::CONTINUED, !first);
            let header = FragmentHeader::new(fragment.start, self.timeline, kind, flags, part);
            let offset = self.layout.offset_of(fragment.start);
            let segment = self.segment(self.layout.segment_of(fragment.start))?;
            segment.map.write(offset, &header.encode())?;
            segment.map.write(offset + record::HEADER_BYTES as u64, part)?;
            (at, rest, first) = (fragment.end, remaining, false);
            if rest.is_empty() {
                self.end = at;
                return Ok(at);
            }
        }
    }

    /// The segment to write `number` into, moving on to the next prepared one where it begins.
    fn segment(&mut self, number: SegmentNumber) -> io::Result<&mut WritableSegment> {
        if self.current.as_ref().is_none_or(|current| current.number != number) {
            self.current = self.prepared.pop_front();
        }
        let current = self.current.as_mut().filter(|current| current.number == number);
        let current = current.ok_or_else(|| io::Error::other("a record was appended where no segment was prepared"))?;
        if self.unsynced.last().is_none_or(|(last, _)| *last != number) {
            self.unsynced.push((number, Arc::clone(&current.file)));
        }
        Ok(current)
    }

    /// Begins a flush, if anything was appended since the last one: adds a mark that states `durable`.
    pub(super) fn begin_flush(&mut self, durable: Lsn) -> io::Result<Option<Flush>> {
        if self.end > self.flushed { self.flush_with_mark(durable).map(Some) } else { Ok(None) }
    }

    /// Adds the mark that ends the log at a clean stop, if there is room for it.
    pub(super) fn begin_last_flush(&mut self, durable: Lsn) -> io::Result<Option<Flush>> {
        if self.space_for(0) == Space::Prepared { self.flush_with_mark(durable).map(Some) } else { Ok(None) }
    }

    fn flush_with_mark(&mut self, durable: Lsn) -> io::Result<Flush> {
        self.append(Kind::Mark, &record::encode_mark(durable))?;
        self.flushed = self.end;
        Ok(Flush { files: std::mem::take(&mut self.unsynced), upto: self.end })
    }
}

/// A flush under way.
pub(super) struct Flush {
    /// What to sync, in order.
    pub files: Vec<(SegmentNumber, Arc<dyn File>)>,
    /// What is durable afterwards.
    pub upto: Lsn,
}
