//! Who waits for the log to become durable, and who makes it so: one at a time.
//!
//! A thread that commits while nobody flushes does it itself at once, because handing the work to another thread and
//! back costs more than the sync on a fast device. Whoever comes meanwhile queues up and is woken once, in the order of
//! positions, when his record is durable; what is left in the queue then is the flusher's, in one batch.
//!
//! No wake is lost: the durable position and the failure are published before the queue is looked through, and who
//! queues up looks at them again under its lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::thread::{self, Thread};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::lsn::Lsn;

/// The queue.
pub(super) struct Waiters {
    state: Mutex<State>,
    /// How many are in the queue, for who looks without the lock.
    len: AtomicUsize,
    /// How many there were in all when the last of them were woken: these and those who still waited.
    last_seen: AtomicUsize,
    /// The flusher has something to do, or nobody flushes any more.
    changed: Condvar,
}

struct State {
    /// Somebody flushes.
    busy: bool,
    /// No flush begins any more, as soon as the one under way is over.
    stopped: bool,
    /// No flush is under way, and none ever will be.
    ended: bool,
    /// How many wait for their turn without a place in the queue.
    turns_wanted: usize,
    /// Up to where somebody wants the log flushed who does not queue up.
    wanted: Lsn,
    queue: BTreeMap<Place, Waiting>,
    next_number: u64,
}

/// Where somebody stands in the queue: by what he waits for, then by when he came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    upto: Lsn,
    number: u64,
}

enum Waiting {
    Task(Waker),
    Thread(Thread),
}

impl Waiting {
    fn wake(self) {
        match self {
            Waiting::Task(waker) => waker.wake(),
            Waiting::Thread(thread) => thread.unpark(),
        }
    }
}

/// What a committing thread is to do.
pub(super) enum Turn<'a> {
    /// Nothing: it is durable, or the log failed.
    Settled,
    /// Flush.
    Flush(Flushing<'a>),
    /// Park until it is settled.
    Wait,
}

impl Waiters {
    pub(super) fn new() -> Waiters {
        let queue = BTreeMap::new();
        let state = State {
            busy: false,
            stopped: false,
            ended: false,
            turns_wanted: 0,
            wanted: Lsn::NONE,
            queue,
            next_number: 0,
        };
        Waiters {
            state: Mutex::new(state),
            len: AtomicUsize::new(0),
            last_seen: AtomicUsize::new(0),
            changed: Condvar::new(),
        }
    }

    /// The turn of the calling thread, which waits for `upto`; `is_settled` is asked under the lock.
    pub(super) fn enter(&self, upto: Lsn, is_settled: impl Fn() -> bool) -> Turn<'_> {
        let mut state = self.state.lock();
        if is_settled() {
            return Turn::Settled;
        }
        if !state.busy {
            state.busy = true;
            return Turn::Flush(Flushing { waiters: self });
        }
        let place = state.new_place(upto);
        state.queue.insert(place, Waiting::Thread(thread::current()));
        self.note_len(&state);
        Turn::Wait
    }

    /// Queues a task up, or renews its waker; `false` if it is settled.
    pub(super) fn enqueue(
        &self,
        upto: Lsn,
        place: &mut Option<Place>,
        waker: &Waker,
        is_settled: impl Fn() -> bool,
    ) -> bool {
        let mut state = self.state.lock();
        if is_settled() {
            return false;
        }
        let place = *place.get_or_insert_with(|| state.new_place(upto));
        match state.queue.get_mut(&place) {
            Some(Waiting::Task(known)) => known.clone_from(waker),
            _ => {
                state.queue.insert(place, Waiting::Task(waker.clone()));
            }
        }
        self.note_len(&state);
        if !state.busy {
            self.changed.notify_one();
        }
        true
    }

    /// Somebody does not wait any more.
    pub(super) fn leave(&self, place: Place) {
        let mut state = self.state.lock();
        state.queue.remove(&place);
        self.note_len(&state);
    }

    /// Asks for a flush up to `upto`.
    pub(super) fn want(&self, upto: Lsn) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(upto);
        if !state.busy {
            self.changed.notify_one();
        }
    }

    /// Waits until it is the calling thread's turn to flush, whoever waits. Nothing after [`stop`](Waiters::stop).
    pub(super) fn take_turn(&self) -> Option<Flushing<'_>> {
        let mut state = self.state.lock();
        self.wait_for_turn(&mut state).then(|| Flushing { waiters: self })
    }

    fn wait_for_turn(&self, state: &mut MutexGuard<'_, State>) -> bool {
        state.turns_wanted += 1;
        while state.busy && !state.ended {
            self.changed.wait(state);
        }
        state.turns_wanted -= 1;
        state.busy = true;
        !state.ended
    }

    /// The flusher's next turn: waits until somebody wants something that is not durable and nobody else flushes.
    /// Nothing when stopped.
    pub(super) fn next_turn(&self, durable: impl Fn() -> Lsn) -> Option<Flushing<'_>> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            // What is wanted may have become durable before it was asked for.
            if !state.busy && (!state.queue.is_empty() || state.wanted > durable()) {
                state.busy = true;
                return Some(Flushing { waiters: self });
            }
            self.changed.wait(&mut state);
        }
    }

    /// Ends all flushing: one under way ends first, none begins afterwards.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        // The turn is never given back.
        if self.wait_for_turn(&mut state) {
            state.ended = true;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Wakes everybody who waits for no more than `upto`.
    pub(super) fn wake(&self, upto: Lsn) {
        let satisfied = {
            let mut state = self.state.lock();
            if state.wanted <= upto {
                state.wanted = Lsn::NONE;
            }
            let rest = state.queue.split_off(&Place { upto: upto.advanced(1), number: 0 });
            let satisfied = std::mem::replace(&mut state.queue, rest);
            self.note_len(&state);
            self.last_seen.store(satisfied.len() + state.queue.len(), Ordering::Relaxed);
            satisfied
        };
        satisfied.into_values().for_each(Waiting::wake);
    }

    /// How many are in the queue.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// How many there were when some were woken last.
    pub(super) fn last_seen(&self) -> usize {
        self.last_seen.load(Ordering::Relaxed)
    }

    fn note_len(&self, state: &State) {
        self.len.store(state.queue.len(), Ordering::Relaxed);
    }

    fn give_back(&self) {
        let mut state = self.state.lock();
        state.busy = false;
        let expected = state.stopped || state.turns_wanted > 0 || !state.queue.is_empty() || !state.wanted.is_none();
        drop(state);
        if expected {
            // The flusher, and whoever waits for his turn to close the log.
            self.changed.notify_all();
        }
    }
}

impl State {
    fn new_place(&mut self, upto: Lsn) -> Place {
        self.next_number += 1;
        Place { upto, number: self.next_number }
    }
}

/// The right to flush: one at a time.
pub(super) struct Flushing<'a> {
    waiters: &'a Waiters,
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.waiters.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    /// Notes when it is woken.
    struct Noted {
        upto: u64,
        woken: Arc<Mutex<Vec<u64>>>,
    }

    impl Wake for Noted {
        fn wake(self: Arc<Self>) {
            self.woken.lock().push(self.upto);
        }
    }

    #[test]
    fn waiters_wake_in_order_once_and_only_when_satisfied() {
        let (waiters, woken) = (Waiters::new(), Arc::new(Mutex::new(Vec::new())));
        let Turn::Flush(turn) = waiters.enter(Lsn::new(8), || false) else { panic!("nobody flushes") };
        assert!(matches!(waiters.enter(Lsn::new(8), || true), Turn::Settled));
        let mut places = Vec::new();
        for upto in [48, 16, 32, 24, 16, 40] {
            let (waker, mut place) = (Waker::from(Arc::new(Noted { upto, woken: Arc::clone(&woken) })), None);
            // Polled twice, as tasks are.
            assert!(waiters.enqueue(Lsn::new(upto), &mut place, &waker, || false));
            assert!(waiters.enqueue(Lsn::new(upto), &mut place, &waker, || false));
            places.push(place.unwrap());
        }
        assert_eq!(waiters.len(), 6);
        waiters.wake(Lsn::new(32));
        assert_eq!(*woken.lock(), [16, 16, 24, 32]);
        waiters.leave(places[0]);
        waiters.wake(Lsn::new(u64::MAX));
        assert_eq!(*woken.lock(), [16, 16, 24, 32, 40], "who left is not woken");
        drop(turn);
        assert!(matches!(waiters.enter(Lsn::new(8), || false), Turn::Flush(_)));
    }

    #[test]
    fn after_the_stop_nobody_gets_a_turn() {
        let waiters = Waiters::new();
        waiters.stop();
        waiters.stop();
        assert!(waiters.take_turn().is_none());
        assert!(waiters.next_turn(|| Lsn::NONE).is_none());
    }
}
