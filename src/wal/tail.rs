//! The live end of the log: where the next record goes, and the segments it goes into.
//!
//! Positions: `reserved ≥ complete ≥ written ≥ durable`. The first is the word in [`Reservations`], which many threads
//! move without a lock. Each then copies its record, into the [`Buffer`] if it is small, else into segments that were
//! prepared beforehand; a flush writes what is in the buffer to them. So between reserving space and completing it nothing
//! can fail for want of space. Room for one mark is always kept behind the last record, because a flush writes one.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use super::buffer::Buffer;
use super::layout::{Fragment, Layout, SegmentNumber};
use super::record::{self, Flags, FragmentHeader, Kind, MARK_PAYLOAD_BYTES};
use super::reservation::{CLOSED, Copying, FAILED, Refused, Reservations};
use crate::disk::File;
use crate::lsn::{Lsn, TimelineId};

/// How many threads can be in the middle of a copy at a time; one more spins until one of them is done.
const COPIES: usize = 64;

/// From this length on a fragment is written to its segment by who appends it. Less in the crash tests, whose segments
/// are small.
const WRITTEN_FROM_BYTES: usize = if cfg!(test) { 600 } else { 4 << 10 };

/// How far small fragments can be ahead of what was written; one that is further is written by who appends it. That is
/// much more than comes during a flush, and little enough to stay in a processor's cache.
const BUFFER_BYTES: usize = if cfg!(test) { 4 << 10 } else { 4 << 20 };

/// How much of the buffer is written at once.
const WRITE_BYTES: u64 = if cfg!(test) { 256 } else { 64 << 10 };

/// How many segments beyond the one that is written are prepared.
const AHEAD: u64 = 1;

/// A segment that records can be written to.
pub(super) struct WritableSegment {
    pub number: SegmentNumber,
    pub file: Arc<dyn File>,
}

/// Why a record cannot be appended now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Too many bytes wait for a sync.
    Unsynced,
    /// The segments up to this one are not prepared.
    Unprepared(SegmentNumber),
    /// There is nothing to do: for a mark.
    Nothing,
}

/// The live end.
pub(super) struct Tail {
    layout: Layout,
    timeline: TimelineId,
    reservations: Reservations,
    /// Where what is prepared ends.
    prepared_end: AtomicU64,
    /// Those that may be written: the one that the durable LSN lies in, and all behind it.
    segments: RwLock<VecDeque<Arc<WritableSegment>>>,
    /// Small fragments that are not in their segments yet.
    buffer: Buffer,
    /// Where fragments begin and end that are there already, though what is before them may not be. They are entered before
    /// they count as complete.
    written_ahead: Mutex<BTreeMap<Lsn, Lsn>>,
    supply: Mutex<Supply>,
    /// The preparing thread has something to do.
    supply_changed: Condvar,
}

/// Somebody takes what was appended out of memory to write it. If he unwinds, nobody has it any more, and the log has failed.
struct Taking<'a>(&'a Tail);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.close_gates(FAILED);
    }
}

/// What the preparing thread works by.
pub(super) struct Supply {
    /// Number of the next segment to prepare.
    next_number: SegmentNumber,
    /// Number of the last one that somebody wants.
    wanted: SegmentNumber,
    /// How many more segments the free space allows without going below the reserve, when last looked at. None: the
    /// disk is full.
    pub affordable: u64,
}

impl Supply {
    /// The segment to prepare next, if one is wanted.
    pub(super) fn to_prepare(&self) -> Option<SegmentNumber> {
        (self.next_number <= self.wanted).then_some(self.next_number)
    }
}

/// A number that differs between threads, for as long as there are few of them.
fn thread_hint() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static HINT: Cell<usize> = const { Cell::new(usize::MAX) });
    HINT.with(|hint| {
        if hint.get() == usize::MAX {
            hint.set(THREADS.fetch_add(1, Ordering::Relaxed) % COPIES);
        }
        hint.get()
    })
}

impl Tail {
    /// The tail of a log that ends at `end`, in `current` if there is one.
    pub(super) fn new(layout: Layout, timeline: TimelineId, end: Lsn, current: Option<WritableSegment>) -> Tail {
        let next_number = match &current {
            Some(segment) => segment.number.next(),
            None => layout.segment_of(end),
        };
        let wanted = match &current {
            Some(segment) => SegmentNumber(segment.number.0 + AHEAD),
            None => next_number,
        };
        Tail {
            layout,
            timeline,
            reservations: Reservations::new(end.get(), COPIES),
            prepared_end: AtomicU64::new(layout.segment_start(next_number).get()),
            segments: RwLock::new(current.map(Arc::new).into_iter().collect()),
            buffer: Buffer::new(end.get(), BUFFER_BYTES),
            written_ahead: Mutex::new(BTreeMap::new()),
            supply: Mutex::new(Supply { next_number, wanted, affordable: u64::MAX }),
            supply_changed: Condvar::new(),
        }
    }

    /// Where the log ends: everything before it is reserved.
    pub(super) fn end(&self) -> Lsn {
        Lsn::new(self.reservations.state().0)
    }

    /// The gates that are closed.
    pub(super) fn gates(&self) -> u64 {
        self.reservations.state().1
    }

    /// Closes gates and answers where the log ended then.
    pub(super) fn close_gates(&self, gates: u64) -> Lsn {
        let end = Lsn::new(self.reservations.close_gates(gates));
        self.wake_preparing();
        end
    }

    /// Opens gates.
    pub(super) fn open_gates(&self, gates: u64) {
        self.reservations.open_gates(gates);
    }

    /// Waits until everything before `upto` was copied in, or given up: then [`FAILED`] is closed.
    pub(super) fn wait_complete(&self, upto: Lsn) {
        self.reservations.wait_complete(upto.get());
    }

    /// Where records of these lengths, appended at `at`, end, if they and a mark behind them fit into what is prepared.
    pub(super) fn fit(&self, at: Lsn, lens: impl Iterator<Item = usize>) -> Result<Lsn, Obstacle> {
        let end = lens.fold(at, |at, len| self.layout.record_end(at, len));
        self.check_prepared(self.layout.record_end(end, MARK_PAYLOAD_BYTES)).map(|()| end)
    }

    fn check_prepared(&self, needed: Lsn) -> Result<(), Obstacle> {
        if needed.get() <= self.prepared_end.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Obstacle::Unprepared(self.layout.segment_of(Lsn::new(needed.get() - 1))))
    }

    /// How much can still be appended into what is prepared.
    pub(super) fn prepared_bytes(&self) -> u64 {
        Lsn::new(self.prepared_end.load(Ordering::Acquire)).bytes_since(self.end())
    }

    /// Reserves space from the end of the log to where `decide` says, unless a gate in `gates` is closed.
    pub(super) fn reserve(
        &self,
        gates: u64,
        decide: impl Fn(Lsn) -> Result<Lsn, Obstacle>,
    ) -> Result<Copying<'_>, Refused<Obstacle>> {
        let decide = |at| decide(Lsn::new(at)).map(Lsn::get);
        let copying = self.reservations.reserve(thread_hint(), gates, decide)?;
        let last = self.layout.segment_of(Lsn::new(copying.end() - 1));
        let is_first = copying.start() == self.layout.first_record().get();
        if is_first || self.layout.segment_of(Lsn::new(copying.start() - 1)) < last {
            self.want(SegmentNumber(last.0 + AHEAD));
        }
        Ok(copying)
    }

    /// Reserves space for a mark behind everything appended since `durable`. Gates keep no mark out: what was
    /// appended before they closed may still become durable.
    pub(super) fn reserve_mark(&self, durable: Lsn) -> Result<Copying<'_>, Refused<Obstacle>> {
        self.reserve(0, |at| if at > durable { Ok(self.mark_end(at)) } else { Err(Obstacle::Nothing) })
    }

    /// Reserves space for the mark that ends the log at a clean stop, if there is room for it.
    pub(super) fn reserve_last_mark(&self) -> Result<Copying<'_>, Refused<Obstacle>> {
        self.reserve(0, |at| {
            let end = self.mark_end(at);
            self.check_prepared(end).map(|()| end).map_err(|_| Obstacle::Nothing)
        })
    }

    fn mark_end(&self, at: Lsn) -> Lsn {
        self.layout.record_end(at, MARK_PAYLOAD_BYTES)
    }

    /// Copies a record in at `at`, which was reserved for it, and answers where it ends.
    ///
    /// # Errors
    /// The segment refuses, or is not there: a fault of ours, after which the log takes nothing more.
    pub(super) fn copy(&self, kind: Kind, at: Lsn, payload: &[u8]) -> io::Result<Lsn> {
        let (mut at, mut rest, mut first) = (at, payload, true);
        loop {
            let fragment = self.layout.fragment(at, rest.len());
            let (part, remaining) = rest.split_at(fragment.len);
            let flags = Flags::default().with(Flags::CONTINUES, !remaining.is_empty()).with(Flags::CONTINUED, !first);
            let header = FragmentHeader::new(fragment.start, self.timeline, kind, flags, part).encode();
            if part.len() < WRITTEN_FROM_BYTES && self.buffer.has_room(fragment.end.get()) {
                self.buffer.put(fragment.start.get(), &header);
                self.buffer.put(fragment.start.get() + record::HEADER_BYTES as u64, part);
            } else {
                self.write_ahead(&fragment, &header, part)?;
            }
            (at, rest, first) = (fragment.end, remaining, false);
            if rest.is_empty() {
                return Ok(at);
            }
        }
    }

    /// Writes a fragment to its segment.
    fn write_ahead(&self, fragment: &Fragment, header: &[u8], part: &[u8]) -> io::Result<()> {
        let segment = self.segment(self.layout.segment_of(fragment.start))?;
        let mut parts = [io::IoSlice::new(header), io::IoSlice::new(part)];
        segment.file.write_vectored_at(&mut parts, self.layout.offset_of(fragment.start))?;
        let mut ahead = self.written_ahead.lock();
        // One entry for neighbours: many small fragments may come where the buffer is full.
        let end = ahead.remove(&fragment.end).unwrap_or(fragment.end);
        match ahead.range_mut(..fragment.start).next_back() {
            Some((_, before)) if *before == fragment.start => *before = end,
            _ => {
                ahead.insert(fragment.start, end);
            }
        }
        Ok(())
    }

    /// Writes what lies before `upto` to its segments, as far as it is not there. Only one thread may do so at a time,
    /// and all of it must be complete.
    ///
    /// # Errors
    /// A segment refuses, or is not there; and the position.
    pub(super) fn write(&self, upto: Lsn) -> Result<(), (Lsn, io::Error)> {
        let taking = Taking(self);
        let written = self.take_and_write(upto);
        std::mem::forget(taking);
        written
    }

    fn take_and_write(&self, upto: Lsn) -> Result<(), (Lsn, io::Error)> {
        let ahead = {
            let mut ahead = self.written_ahead.lock();
            let mut behind = ahead.split_off(&upto);
            // Neighbours on both sides of it have one entry.
            if let Some((_, end)) = ahead.last_key_value().filter(|(_, end)| **end > upto) {
                behind.insert(upto, *end);
            }
            std::mem::replace(&mut *ahead, behind)
        };
        let mut at = Lsn::new(self.buffer.taken());
        for (start, end) in ahead.into_iter().chain([(upto, upto)]) {
            self.write_buffered(at, start)?;
            at = end;
        }
        self.buffer.set_taken(upto.get());
        Ok(())
    }

    /// Writes everything from `from` up to `to` out of the buffer: records, and zeros where none can start.
    fn write_buffered(&self, from: Lsn, to: Lsn) -> Result<(), (Lsn, io::Error)> {
        let mut at = from;
        let mut bytes = Vec::new();
        while at < to {
            let number = self.layout.segment_of(at);
            // The segment's header is there.
            at = at.max(self.layout.first_record_in(number));
            if at >= to {
                break;
            }
            let end = to.min(self.layout.segment_start(number.next())).min(at.advanced(WRITE_BYTES));
            bytes.resize(end.bytes_since(at) as usize, 0);
            self.buffer.take(at.get(), &mut bytes);
            let written =
                self.segment(number).and_then(|segment| segment.file.write_at(&bytes, self.layout.offset_of(at)));
            written.map_err(|error| (at, error))?;
            at = end;
        }
        Ok(())
    }

    fn segment(&self, number: SegmentNumber) -> io::Result<Arc<WritableSegment>> {
        let segments = self.segments.read();
        let index = segments.front().and_then(|front| number.0.checked_sub(front.number.0));
        let found = index.and_then(|index| segments.get(usize::try_from(index).ok()?));
        found.cloned().ok_or_else(|| io::Error::other("a record was appended where no segment was prepared"))
    }

    /// The files that hold what lies from `from` up to `upto`, older first.
    pub(super) fn files(&self, from: Lsn, upto: Lsn) -> Vec<Arc<WritableSegment>> {
        let (first, last) = (self.layout.segment_of(from), self.layout.segment_of(Lsn::new(upto.get() - 1)));
        let segments = self.segments.read();
        segments.iter().filter(|segment| (first..=last).contains(&segment.number)).cloned().collect()
    }

    /// Lets go of segments that end before `durable`.
    pub(super) fn retire(&self, durable: Lsn) {
        let first = self.layout.segment_of(durable);
        if self.segments.read().front().is_none_or(|front| front.number >= first) {
            return;
        }
        let mut segments = self.segments.write();
        let count = segments.partition_point(|segment| segment.number < first);
        let retired: Vec<_> = segments.drain(..count).collect();
        drop(segments);
        // Closed without keeping anybody from the others.
        drop(retired);
    }

    /// Asks for the segments up to `last`.
    fn want(&self, last: SegmentNumber) {
        let mut supply = self.supply.lock();
        supply.wanted = supply.wanted.max(last);
        self.supply_changed.notify_one();
    }

    /// Asks for the segments up to `last`, which a record needs, unless the disk has no room for all of them: preparing
    /// some would take the space from everybody else for nothing.
    pub(super) fn want_if_affordable(&self, last: SegmentNumber) -> bool {
        let mut supply = self.supply.lock();
        let missing = (last.0 + 1).saturating_sub(supply.next_number.0);
        if missing > supply.affordable {
            return false;
        }
        supply.wanted = supply.wanted.max(last);
        self.supply_changed.notify_one();
        true
    }

    /// What the preparing thread works by.
    pub(super) fn supply(&self) -> parking_lot::MutexGuard<'_, Supply> {
        self.supply.lock()
    }

    /// Waits until there may be something to prepare.
    pub(super) fn wait_for_work(&self, supply: &mut parking_lot::MutexGuard<'_, Supply>, limit: std::time::Duration) {
        self.supply_changed.wait_for(supply, limit);
    }

    /// Whether the log takes nothing more, so that nothing needs to be prepared.
    pub(super) fn is_closed(&self) -> bool {
        self.gates() & (CLOSED | FAILED) != 0
    }

    fn wake_preparing(&self) {
        // A thread between looking and waiting holds the lock: passing through it means that it is told.
        drop(self.supply.lock());
        self.supply_changed.notify_all();
    }

    /// Takes a prepared segment.
    pub(super) fn add_prepared(&self, segment: WritableSegment) {
        let mut supply = self.supply.lock();
        debug_assert_eq!(segment.number, supply.next_number);
        supply.next_number = segment.number.next();
        let end = self.layout.segment_start(supply.next_number);
        self.segments.write().push_back(Arc::new(segment));
        // After the segment is there, because who sees this writes into it.
        self.prepared_end.store(end.get(), Ordering::Release);
    }
}
