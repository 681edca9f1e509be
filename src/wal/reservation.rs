//! Space in the log, handed out to many threads at once, and the knowledge of how far they have filled it.
//!
//! ```text
//!   next    |  position: where the next record may start        | gates |      one word: whoever moves the position
//!           +---------------------------------------------------+-------+      finds the gates open at that moment
//!            63                                                3 2     0
//!
//!   slots   [ 0 ] [ 0/4000A40 ] [ 0 ] [ 0/4000B00 ] …                          one for each copy under way: nothing
//!                                                                              at this position or behind it is sure
//! ```
//!
//! An appender takes a free slot and notes in it the position it saw, *then* moves `next`, copies its record, and gives
//! the slot back. So whoever reads `next` first and the slots afterwards sees every copy under way of what was
//! reserved by then: [`wait_complete`](Reservations::wait_complete) returns when no slot holds an older position. The
//! word `next` is changed by read-modify-write only, so reading it synchronizes with all who reserved before; no
//! stronger ordering than acquire and release is needed. Positions are multiples of 8, which leaves the low bits of
//! `next` to the gates and the lowest of a slot to a request: "somebody sleeps until this is done".
//!
//! A copy that is broken off, by an error or a panic, closes the gate [`FAILED`] before it gives its slot back: who
//! waited for it looks at the gate before it calls anything complete.
//!
//! Nothing here knows of files, records or segments. Positions are plain numbers in this file alone, for the sake of
//! the atomic words. `tests/wal_reservation.rs` runs it under loom.

use super::primitives::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, SPINS, yield_now};

/// No more records: the log is closing.
pub(super) const CLOSED: u64 = 0b001;
/// No more records: the log has failed.
pub(super) const FAILED: u64 = 0b010;
/// No records until there is room on the disk again.
pub(super) const FULL: u64 = 0b100;

const GATES: u64 = CLOSED | FAILED | FULL;
/// In a slot: somebody sleeps until it is free.
const AWAITED: u64 = 0b1;
const FREE: u64 = 0;

/// A slot has a cache line of its own, so that appenders do not slow each other.
#[repr(align(64))]
struct Slot(AtomicU64);

/// The position and who is filling what is before it.
pub(super) struct Reservations {
    next: AtomicU64,
    slots: Box<[Slot]>,
    sleeping: Mutex<()>,
    finished: Condvar,
}

/// Why nothing was reserved.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused<E> {
    /// These gates are closed.
    Gates(u64),
    /// The caller decided so.
    Decided(E),
}

impl Reservations {
    /// Space from `position` on, for at most `slots` copies at a time.
    pub(super) fn new(position: u64, slots: usize) -> Reservations {
        debug_assert!(position & GATES == 0 && position > 0);
        let slots = (0..slots).map(|_| Slot(AtomicU64::new(FREE))).collect();
        Reservations { next: AtomicU64::new(position), slots, sleeping: Mutex::new(()), finished: Condvar::new() }
    }

    /// The position, and the gates that are closed.
    pub(super) fn state(&self) -> (u64, u64) {
        let word = self.next.load(Ordering::Acquire);
        (word & !GATES, word & GATES)
    }

    /// Closes gates and answers the position at that moment: where gates keep everybody out, it moves no more.
    pub(super) fn close_gates(&self, gates: u64) -> u64 {
        self.next.fetch_or(gates & GATES, Ordering::AcqRel) & !GATES
    }

    /// Opens gates.
    pub(super) fn open_gates(&self, gates: u64) {
        self.next.fetch_and(!(gates & GATES), Ordering::AcqRel);
    }

    /// Reserves from the position to where `decide` says, unless one of `gates` is closed. `decide` may be asked again
    /// when somebody else was faster. `hint` picks the slot that is tried first.
    pub(super) fn reserve<E>(
        &self,
        hint: usize,
        gates: u64,
        mut decide: impl FnMut(u64) -> Result<u64, E>,
    ) -> Result<Copying<'_>, Refused<E>> {
        let mut word = self.next.load(Ordering::Acquire);
        let mut copying: Option<Copying<'_>> = None;
        loop {
            let start = word & !GATES;
            let decided = if word & gates == 0 {
                decide(start).map_err(Refused::Decided)
            } else {
                Err(Refused::Gates(word & gates))
            };
            let end = match decided {
                Ok(end) => end,
                Err(refused) => {
                    if let Some(copying) = copying {
                        copying.finish();
                    }
                    return Err(refused);
                }
            };
            // Noted before the position moves, and never later than where the copy will be.
            let mut taken = copying.take().unwrap_or_else(|| self.take_slot(hint, start));
            match self.next.compare_exchange_weak(word, end | word & GATES, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    (taken.start, taken.end) = (start, end);
                    return Ok(taken);
                }
                Err(now) => word = now,
            }
            copying = Some(taken);
        }
    }

    fn take_slot(&self, hint: usize, position: u64) -> Copying<'_> {
        loop {
            for offset in 0..self.slots.len() {
                let index = (hint + offset) % self.slots.len();
                let Some(Slot(slot)) = self.slots.get(index) else { continue };
                if slot.compare_exchange(FREE, position, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return Copying { reservations: self, slot, start: position, end: position };
                }
            }
            // More threads than slots, each in the middle of a copy.
            yield_now();
        }
    }

    /// Waits until everything before `upto`, which must have been reserved, was copied or given up.
    pub(super) fn wait_complete(&self, upto: u64) {
        for _ in 0..SPINS {
            if self.first_before(upto).is_none() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.lock_sleeping();
        while let Some((slot, value)) = self.first_before(upto) {
            // Who gives the slot back takes the lock if it finds the request, so it cannot do so before we sleep.
            let request = slot.compare_exchange(value, value | AWAITED, Ordering::AcqRel, Ordering::Relaxed);
            if request.is_ok() {
                guard = self.finished.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }
    }

    /// A slot whose copy may lie before `upto`.
    fn first_before(&self, upto: u64) -> Option<(&AtomicU64, u64)> {
        self.slots.iter().find_map(|Slot(slot)| {
            let value = slot.load(Ordering::Acquire);
            (value != FREE && value & !AWAITED < upto).then_some((slot, value))
        })
    }

    fn lock_sleeping(&self) -> MutexGuard<'_, ()> {
        self.sleeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A reservation that is being filled. Dropped without [`finish`](Copying::finish), it fails the log.
pub(super) struct Copying<'a> {
    reservations: &'a Reservations,
    slot: &'a AtomicU64,
    start: u64,
    end: u64,
}

impl Copying<'_> {
    /// Where it starts.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Says that everything was copied.
    pub(super) fn finish(self) {
        self.give_back();
        std::mem::forget(self);
    }

    fn give_back(&self) {
        // Release: the copy is seen by whoever sees the slot free.
        if self.slot.swap(FREE, Ordering::AcqRel) & AWAITED != 0 {
            drop(self.reservations.lock_sleeping());
            self.reservations.finished.notify_all();
        }
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.reservations.close_gates(FAILED);
        self.give_back();
    }
}
