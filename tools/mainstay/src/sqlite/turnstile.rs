//! Who may write. SQLite has one writer at a time: sessions queue here, in order, for a bounded time.
//!
//! Holding the turn (a [`Ticket`]) and using the writer are two things. A transaction keeps its turn between statements, but
//! borrows the writer only while a statement runs, so that a demoted node can end it and take the writer back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// The right to write, until it is given back or revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Why the turn did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    TooLong,
    Cancelled,
}

/// The writer `W`, and the queue before it.
pub(super) struct Turnstile<W> {
    queue: Mutex<Queue>,
    changed: Condvar,
    writer: Mutex<W>,
}

#[derive(Default)]
struct Queue {
    owner: Option<Ticket>,
    waiting: VecDeque<Ticket>,
    given: u64,
}

impl<W> Turnstile<W> {
    pub(super) fn new(writer: W) -> Turnstile<W> {
        Turnstile { queue: Mutex::default(), changed: Condvar::new(), writer: Mutex::new(writer) }
    }

    /// Waits for the turn, at most `limit`, and no longer once `cancelled` is set and [`wake`](Turnstile::wake) called.
    pub(super) fn acquire(&self, limit: Duration, cancelled: &AtomicBool) -> Result<Ticket, Waited> {
        let deadline = Instant::now() + limit;
        let mut queue = self.queue.lock();
        queue.given += 1;
        let ticket = Ticket(queue.given);
        queue.waiting.push_back(ticket);
        let outcome = loop {
            if queue.owner.is_none() && queue.waiting.front() == Some(&ticket) {
                queue.owner = Some(ticket);
                break Ok(ticket);
            }
            if cancelled.load(Ordering::SeqCst) {
                break Err(Waited::Cancelled);
            }
            if self.changed.wait_until(&mut queue, deadline).timed_out() && Instant::now() >= deadline {
                let due = queue.owner.is_none() && queue.waiting.front() == Some(&ticket);
                if !due {
                    break Err(Waited::TooLong);
                }
            }
        };
        queue.waiting.retain(|other| *other != ticket);
        drop(queue);
        self.changed.notify_all();
        outcome
    }

    /// Lets those who wait look whether they were cancelled.
    pub(super) fn wake(&self) {
        // Taking the lock orders this after the look of whoever is just about to wait.
        drop(self.queue.lock());
        self.changed.notify_all();
    }

    /// The writer, for one statement; `None` if the turn was revoked.
    pub(super) fn writer(&self, ticket: Ticket) -> Option<MutexGuard<'_, W>> {
        let writer = self.writer.lock();
        let owns = self.queue.lock().owner == Some(ticket);
        owns.then_some(writer)
    }

    /// Gives the turn back.
    pub(super) fn release(&self, ticket: Ticket) {
        let mut queue = self.queue.lock();
        if queue.owner == Some(ticket) {
            queue.owner = None;
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Ends whoever has the turn: `end` cleans up behind it. Answers `false`, with nothing done, if a statement that runs
    /// does not end within `limit`.
    pub(super) fn revoke(&self, limit: Duration, end: impl FnOnce(&mut W)) -> bool {
        let Some(mut writer) = self.writer.try_lock_for(limit) else { return false };
        let owned = self.queue.lock().owner.take().is_some();
        if owned {
            end(&mut writer);
        }
        drop(writer);
        self.changed.notify_all();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn one_at_a_time_and_bounded() {
        let turnstile = Turnstile::new(());
        let never = AtomicBool::new(false);
        let first = turnstile.acquire(SOON, &never).unwrap();
        assert_eq!(turnstile.acquire(SOON, &never), Err(Waited::TooLong));
        turnstile.release(first);
        let second = turnstile.acquire(SOON, &never).unwrap();
        assert!(turnstile.writer(first).is_none() && turnstile.writer(second).is_some());
    }

    #[test]
    fn in_order() {
        let turnstile = Arc::new(Turnstile::new(Vec::new()));
        let first = turnstile.acquire(LONG, &AtomicBool::new(false)).unwrap();
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let shared = Arc::clone(&turnstile);
                let thread = std::thread::spawn(move || {
                    let ticket = shared.acquire(LONG, &AtomicBool::new(false)).unwrap();
                    shared.writer(ticket).unwrap().push(number);
                    shared.release(ticket);
                });
                while turnstile.queue.lock().waiting.len() <= number {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        turnstile.release(first);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*turnstile.writer.lock(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn waiting_can_be_cancelled() {
        let turnstile = Arc::new(Turnstile::new(()));
        let cancelled = Arc::new(AtomicBool::new(false));
        let first = turnstile.acquire(LONG, &cancelled).unwrap();
        let (shared, flag) = (Arc::clone(&turnstile), Arc::clone(&cancelled));
        let thread = std::thread::spawn(move || shared.acquire(LONG, &flag));
        cancelled.store(true, Ordering::SeqCst);
        turnstile.wake();
        assert_eq!(thread.join().unwrap(), Err(Waited::Cancelled));
        turnstile.release(first);
    }

    #[test]
    fn a_turn_can_be_revoked() {
        let turnstile = Turnstile::new(1);
        let never = AtomicBool::new(false);
        let first = turnstile.acquire(SOON, &never).unwrap();
        assert!(turnstile.revoke(SOON, |writer| *writer += 1));
        assert!(turnstile.writer(first).is_none());
        let second = turnstile.acquire(SOON, &never).unwrap();
        turnstile.release(first);
        assert_eq!(turnstile.writer(second).as_deref(), Some(&2));
    }
}
