//! The live end of the log: where the next record goes, and the mapped segments it goes into.
//!
//! Positions: `reserved ≥ complete ≥ durable`. The first is the word in [`Reservations`], which many threads move
//! without a lock; each then copies its record into segments that were prepared beforehand, so that between
//! reserving space and completing it nothing can fail for want of space. Room for one mark is always kept behind the
//! last record, because a flush writes one.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use super::layout::{Layout, SegmentNumber};
use super::record::{self, Flags, FragmentHeader, Kind, MARK_PAYLOAD_BYTES};
use super::reservation::{CLOSED, Copying, FAILED, Refused, Reservations};
use crate::disk::{File, Folios, Map};
use crate::lsn::{Lsn, TimelineId};

/// How many threads can be in the middle of a copy at a time; one more spins until one of them is done.
const COPIES: usize = 64;

/// From this length on a fragment is written by a system call: copying through the map enters the kernel for each new
/// page, too. Measured: 64 writers of 4 KiB commit 1.4 times as often. Such fragments are what a segment for large records
/// is prepared for: counting only those from 16 KiB on made the same writers slower. Less in the crash tests, whose
/// segments are small.
pub(super) const WRITTEN_FROM_BYTES: usize = if cfg!(test) { 600 } else { 4 << 10 };

/// How many segments beyond the one that is written are prepared.
const AHEAD: u64 = 1;

/// A segment that records can be copied into.
pub(super) struct WritableSegment {
    pub number: SegmentNumber,
    pub file: Arc<dyn File>,
    /// For small writes. None where a flush of them would write whole large folios: the segment was prepared for large
    /// records, or was there when the log was opened. Then everything is written by system calls.
    pub map: Option<Box<dyn Map>>,
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
    /// How many bytes of large records there were.
    large_bytes: AtomicU64,
    supply: Mutex<Supply>,
    /// The preparing thread has something to do.
    supply_changed: Condvar,
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
    /// Segments that are written to no more. Unmapping them takes time, which no committer shall spend.
    retired: Vec<Arc<WritableSegment>>,
    /// What the last segment was prepared for, where the log ended then, and how many bytes of large records there were.
    judged: (Folios, Lsn, u64),
}

impl Supply {
    /// The segment to prepare next, if one is wanted.
    pub(super) fn to_prepare(&self) -> Option<SegmentNumber> {
        (self.next_number <= self.wanted).then_some(self.next_number)
    }

    /// Takes what is written to no more.
    pub(super) fn take_retired(&mut self) -> Vec<Arc<WritableSegment>> {
        std::mem::take(&mut self.retired)
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
            large_bytes: AtomicU64::new(0),
            supply: Mutex::new(Supply {
                next_number,
                wanted,
                affordable: u64::MAX,
                retired: Vec::new(),
                judged: (Folios::Small, end, 0),
            }),
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

    /// Reserves space from the end of the log to where `decide` says, unless a gate in `gates` is closed. So many bytes of what
    /// it is for are large records.
    pub(super) fn reserve(
        &self,
        gates: u64,
        large_bytes: u64,
        decide: impl Fn(Lsn) -> Result<Lsn, Obstacle>,
    ) -> Result<Copying<'_>, Refused<Obstacle>> {
        let decide = |at| decide(Lsn::new(at)).map(Lsn::get);
        let copying = self.reservations.reserve(thread_hint(), gates, decide)?;
        // Before a segment is wanted: who prepares it knows what for.
        if large_bytes > 0 {
            self.large_bytes.fetch_add(large_bytes, Ordering::Relaxed);
        }
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
        self.reserve(0, 0, |at| if at > durable { Ok(self.mark_end(at)) } else { Err(Obstacle::Nothing) })
    }

    /// Reserves space for the mark that ends the log at a clean stop, if there is room for it.
    pub(super) fn reserve_last_mark(&self) -> Result<Copying<'_>, Refused<Obstacle>> {
        self.reserve(0, 0, |at| {
            let end = self.mark_end(at);
            self.check_prepared(end).map(|()| end).map_err(|_| Obstacle::Nothing)
        })
    }

    fn mark_end(&self, at: Lsn) -> Lsn {
        self.layout.record_end(at, MARK_PAYLOAD_BYTES)
    }

    /// Copies a record in at `at`, which was reserved for it, and answers where it ends. Fragments of `written_from`
    /// bytes and more are written by a system call, smaller ones through the map.
    ///
    /// # Errors
    /// The segment refuses, or is not there: a fault of ours, after which the log takes nothing more.
    pub(super) fn copy(&self, kind: Kind, at: Lsn, payload: &[u8], written_from: usize) -> io::Result<Lsn> {
        let (mut at, mut rest, mut first) = (at, payload, true);
        loop {
            let fragment = self.layout.fragment(at, rest.len());
            let (part, remaining) = rest.split_at(fragment.len);
            let flags = Flags::default().with(Flags::CONTINUES, !remaining.is_empty()).with(Flags::CONTINUED, !first);
            let header = FragmentHeader::new(fragment.start, self.timeline, kind, flags, part).encode();
            let offset = self.layout.offset_of(fragment.start);
            let segment = self.segment(self.layout.segment_of(fragment.start))?;
            match &segment.map {
                Some(map) if part.len() < written_from => {
                    map.write(offset, &header)?;
                    map.write(offset + record::HEADER_BYTES as u64, part)?;
                }
                _ => {
                    let mut parts = [io::IoSlice::new(&header), io::IoSlice::new(part)];
                    segment.file.write_vectored_at(&mut parts, offset)?;
                }
            }
            (at, rest, first) = (fragment.end, remaining, false);
            if rest.is_empty() {
                return Ok(at);
            }
        }
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
        self.supply.lock().retired.extend(retired);
        self.supply_changed.notify_one();
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

    /// What the next segment should be prepared for: what most bytes were lately. Little is no reason to change.
    pub(super) fn judge(&self) -> Folios {
        let (end, large_bytes) = (self.end(), self.large_bytes.load(Ordering::Relaxed));
        let mut supply = self.supply.lock();
        let (_, before, large_before) = supply.judged;
        let appended = end.bytes_since(before);
        if appended >= self.layout.segment_bytes() / 8 {
            let is_large = large_bytes.saturating_sub(large_before).saturating_mul(2) >= appended;
            supply.judged = (if is_large { Folios::Large } else { Folios::Small }, end, large_bytes);
        }
        supply.judged.0
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
