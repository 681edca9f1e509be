//! Who may write. SQLite has one writer at a time: whoever wants to write queues here, in order, for a bounded time.
//!
//! Holding the turn (a [`Ticket`]) and using the writer are two things. A transaction keeps its turn between statements, but
//! borrows the writer only while a statement runs, so that a demoted node can end it and take the writer back.
//!
//! Threads that may block wait for their turn themselves. For everybody else one thread, the *clerk* ([`super::clerk`]),
//! takes [`Work`] from here: statements that are transactions by themselves, many of which share a turn; transactions
//! whose turn has come; and errands of whoever has the turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// So many statements share a turn.
pub(super) const GROUP_STATEMENTS: usize = 256;

/// The right to write, until it is given back or revoked; before that, a place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Why the turn did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    TooLong,
    Cancelled,
    /// The engine is closed.
    Closed,
}

/// What the clerk does once, for a session that does not wait on a thread of its own.
pub(super) type Errand = Box<dyn FnOnce() + Send>;
/// What a transaction does when its turn has come, or does not come.
pub(super) type Start = Box<dyn FnOnce(Result<Ticket, Waited>) + Send>;

/// A statement that is a transaction by itself.
pub(super) trait Single: Send {
    /// Its turn does not come.
    fn give_up(self, waited: Waited);
    /// So much it counts against the bound of a group.
    fn len_bytes(&self) -> usize;
}

/// The writer `W`, and the queue of statements `S` and others before it.
pub(super) struct Turnstile<W, S> {
    queue: Mutex<Queue<S>>,
    /// There may be work for the clerk.
    work: Condvar,
    writer: Mutex<W>,
}

struct Queue<S> {
    owner: Option<Ticket>,
    waiting: VecDeque<Place<S>>,
    errands: VecDeque<Errand>,
    given: u64,
    /// Which statement of a group runs now.
    running: Option<Ticket>,
    closed: bool,
}

struct Place<S> {
    ticket: Ticket,
    deadline: Instant,
    who: Who<S>,
}

enum Who<S> {
    Thread(Arc<Condvar>),
    Statement(S),
    Transaction(Start),
}

/// What the clerk does next.
pub(super) enum Work<S> {
    Errand(Errand),
    /// These statements share a turn, which is to be given back.
    Group(Ticket, Vec<(Ticket, S)>),
    /// A transaction has the turn now.
    Transaction(Start, Ticket),
    /// This one's turn does not come.
    Late(Late<S>),
}

/// Whose turn does not come.
pub(super) enum Late<S> {
    Statement(S),
    Transaction(Start),
}

impl<S: Single> Late<S> {
    fn of(who: Who<S>) -> Option<Late<S>> {
        match who {
            Who::Thread(_) => None,
            Who::Statement(statement) => Some(Late::Statement(statement)),
            Who::Transaction(start) => Some(Late::Transaction(start)),
        }
    }

    /// Says so.
    pub(super) fn tell(self, waited: Waited) {
        match self {
            Late::Statement(statement) => statement.give_up(waited),
            Late::Transaction(start) => start(Err(waited)),
        }
    }
}

impl<S: Single> Queue<S> {
    fn place(&mut self, limit: Duration, who: Who<S>) -> Ticket {
        self.given += 1;
        let ticket = Ticket(self.given);
        self.waiting.push_back(Place { ticket, deadline: Instant::now() + limit, who });
        ticket
    }

    fn take(&mut self, ticket: Ticket) -> Option<Place<S>> {
        let at = self.waiting.iter().position(|place| place.ticket == ticket)?;
        self.waiting.remove(at)
    }

    /// The turn is free, or the first in the queue is another one now.
    fn turn_moved(&self, work: &Condvar) {
        match self.waiting.front().filter(|_| self.owner.is_none()) {
            Some(Place { who: Who::Thread(turn), .. }) => {
                turn.notify_one();
            }
            Some(_) => {
                work.notify_one();
            }
            None => {}
        }
    }

    /// The statements that stand in the queue now, as many as share a turn. Those behind others too: they are over soon.
    fn group(&mut self, limit_bytes: usize) -> Vec<(Ticket, S)> {
        let (mut group, mut bytes) = (Vec::new(), 0_usize);
        let mut kept = VecDeque::new();
        while let Some(place) = self.waiting.pop_front() {
            let Place { ticket, deadline, who } = place;
            match who {
                Who::Statement(statement)
                    if group.is_empty() || group.len() < GROUP_STATEMENTS && bytes < limit_bytes =>
                {
                    bytes = bytes.saturating_add(statement.len_bytes());
                    group.push((ticket, statement));
                }
                who => kept.push_back(Place { ticket, deadline, who }),
            }
        }
        self.waiting = kept;
        group
    }
}

impl<W, S: Single> Turnstile<W, S> {
    pub(super) fn new(writer: W) -> Turnstile<W, S> {
        let queue = Queue {
            owner: None,
            waiting: VecDeque::new(),
            errands: VecDeque::new(),
            given: 0,
            running: None,
            closed: false,
        };
        Turnstile { queue: Mutex::new(queue), work: Condvar::new(), writer: Mutex::new(writer) }
    }

    /// Waits for the turn, at most `limit`, and no longer once `cancelled` is set and [`wake`](Turnstile::wake) called.
    pub(super) fn acquire(&self, limit: Duration, cancelled: &AtomicBool) -> Result<Ticket, Waited> {
        let deadline = Instant::now() + limit;
        let turn = Arc::new(Condvar::new());
        let mut queue = self.queue.lock();
        let ticket = queue.place(limit, Who::Thread(Arc::clone(&turn)));
        let outcome = loop {
            let due = queue.owner.is_none() && queue.waiting.front().is_some_and(|place| place.ticket == ticket);
            if due {
                queue.owner = Some(ticket);
                break Ok(ticket);
            }
            if cancelled.load(Ordering::SeqCst) {
                break Err(Waited::Cancelled);
            }
            if Instant::now() >= deadline {
                break Err(Waited::TooLong);
            }
            turn.wait_until(&mut queue, deadline);
        };
        queue.take(ticket);
        queue.turn_moved(&self.work);
        outcome
    }

    /// How many are in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Queues a statement; the clerk runs it. Answers its place, by which it can be [cancelled](Turnstile::cancel).
    pub(super) fn queue_statement(&self, limit: Duration, statement: S) -> Ticket {
        self.queue_work(limit, Who::Statement(statement))
    }

    /// Queues a transaction; the clerk starts it.
    pub(super) fn queue_transaction(&self, limit: Duration, start: Start) -> Ticket {
        self.queue_work(limit, Who::Transaction(start))
    }

    fn queue_work(&self, limit: Duration, who: Who<S>) -> Ticket {
        let mut queue = self.queue.lock();
        let ticket = queue.place(limit, who);
        if queue.closed {
            let late = queue.take(ticket).and_then(|place| Late::of(place.who));
            drop(queue);
            late.into_iter().for_each(|late| late.tell(Waited::Closed));
        } else {
            let works = |place: &&Place<S>| !matches!(place.who, Who::Thread(_));
            // The first of its kind has a deadline that the clerk does not know of yet.
            if queue.owner.is_none() || queue.waiting.iter().filter(works).take(2).count() == 1 {
                self.work.notify_one();
            }
        }
        ticket
    }

    /// Gives the clerk an errand of whoever has the turn.
    pub(super) fn send(&self, errand: Errand) {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            return errand();
        }
        queue.errands.push_back(errand);
        self.work.notify_one();
    }

    /// What the clerk is to do next; `None` once closed.
    pub(super) fn next(&self, limit_bytes: usize) -> Option<Work<S>> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(errand) = queue.errands.pop_front() {
                return Some(Work::Errand(errand));
            }
            if queue.closed {
                let late = queue.waiting.iter().position(|place| !matches!(place.who, Who::Thread(_)));
                let place = late.and_then(|at| queue.waiting.remove(at));
                queue.turn_moved(&self.work);
                return place.and_then(|place| Late::of(place.who)).map(Work::Late);
            }
            let first = queue.waiting.iter().find(|place| !matches!(place.who, Who::Thread(_)));
            let deadline = first.map(|place| (place.ticket, place.deadline));
            if queue.owner.is_none() {
                match queue.waiting.front().map(|place| &place.who) {
                    Some(Who::Thread(turn)) => {
                        turn.notify_one();
                    }
                    Some(Who::Statement(_)) => {
                        queue.given += 1;
                        let ticket = Ticket(queue.given);
                        queue.owner = Some(ticket);
                        return Some(Work::Group(ticket, queue.group(limit_bytes)));
                    }
                    Some(Who::Transaction(_)) => {
                        if let Some(Place { ticket, who: Who::Transaction(start), .. }) = queue.waiting.pop_front() {
                            queue.owner = Some(ticket);
                            return Some(Work::Transaction(start, ticket));
                        }
                    }
                    None => {}
                }
            }
            let Some((ticket, deadline)) = deadline else {
                self.work.wait(&mut queue);
                continue;
            };
            if self.work.wait_until(&mut queue, deadline).timed_out() && Instant::now() >= deadline {
                let late = queue.take(ticket).and_then(|place| Late::of(place.who));
                queue.turn_moved(&self.work);
                if let Some(late) = late {
                    return Some(Work::Late(late));
                }
            }
        }
    }

    /// The clerk begins with a statement of a group, or is done with it.
    pub(super) fn set_running(&self, ticket: Option<Ticket>) {
        self.queue.lock().running = ticket;
    }

    /// Cancels what stands at that place: gives it up if it still waits, and calls `stop` if it is a statement that runs.
    pub(super) fn cancel(&self, ticket: Ticket, stop: impl FnOnce()) {
        let mut queue = self.queue.lock();
        let late = queue.take(ticket).and_then(|place| Late::of(place.who));
        if queue.running == Some(ticket) {
            // Under the lock, so that it meets no other statement.
            stop();
        }
        queue.turn_moved(&self.work);
        drop(queue);
        late.into_iter().for_each(|late| late.tell(Waited::Cancelled));
    }

    /// Lets those who wait on threads look whether they were cancelled.
    pub(super) fn wake(&self) {
        for place in &self.queue.lock().waiting {
            if let Who::Thread(turn) = &place.who {
                turn.notify_one();
            }
        }
    }

    /// The writer, for one statement; `None` if the turn was revoked.
    pub(super) fn writer(&self, ticket: Ticket) -> Option<MutexGuard<'_, W>> {
        let owns = || self.queue.lock().owner == Some(ticket);
        // Before, so that who lost the turn does not wait for the statements of others; after, because it may be lost
        // meanwhile.
        let writer = owns().then(|| self.writer.lock())?;
        owns().then_some(writer)
    }

    /// Gives the turn back.
    pub(super) fn release(&self, ticket: Ticket) {
        let mut queue = self.queue.lock();
        if queue.owner == Some(ticket) {
            queue.owner = None;
            queue.turn_moved(&self.work);
        }
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
        self.queue.lock().turn_moved(&self.work);
        true
    }

    /// Whether it was [closed](Turnstile::close).
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    /// Lets the clerk go, once it has told everybody who waits for it.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Single for Nobody {
        fn give_up(self, _: Waited) {}

        fn len_bytes(&self) -> usize {
            0
        }
    }

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn one_at_a_time_and_bounded() {
        let turnstile = Turnstile::<_, Nobody>::new(());
        let never = AtomicBool::new(false);
        let first = turnstile.acquire(SOON, &never).unwrap();
        assert_eq!(turnstile.acquire(SOON, &never), Err(Waited::TooLong));
        turnstile.release(first);
        let second = turnstile.acquire(SOON, &never).unwrap();
        assert!(turnstile.writer(first).is_none() && turnstile.writer(second).is_some());
    }

    #[test]
    fn in_order() {
        let turnstile = Arc::new(Turnstile::<_, Nobody>::new(Vec::new()));
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
        let turnstile = Arc::new(Turnstile::<_, Nobody>::new(()));
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
        let turnstile = Turnstile::<_, Nobody>::new(1);
        let never = AtomicBool::new(false);
        let first = turnstile.acquire(SOON, &never).unwrap();
        assert!(turnstile.revoke(SOON, |writer| *writer += 1));
        assert!(turnstile.writer(first).is_none());
        let second = turnstile.acquire(SOON, &never).unwrap();
        turnstile.release(first);
        assert_eq!(turnstile.writer(second).as_deref(), Some(&2));
    }

    #[test]
    fn who_lost_the_turn_does_not_wait_for_the_writer() {
        let turnstile = Arc::new(Turnstile::<_, Nobody>::new(()));
        let never = AtomicBool::new(false);
        let lost = turnstile.acquire(SOON, &never).unwrap();
        assert!(turnstile.revoke(SOON, |()| ()));
        let owner = turnstile.acquire(SOON, &never).unwrap();
        let used = turnstile.writer(owner).unwrap();
        let shared = Arc::clone(&turnstile);
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || tell.send(shared.writer(lost).is_none()).unwrap());
        assert_eq!(told.recv_timeout(LONG), Ok(true));
        drop(used);
        thread.join().unwrap();
    }

    #[test]
    fn who_waits_on_a_thread_gets_the_turn_of_a_closed_engine() {
        let turnstile = Arc::new(Turnstile::<_, Nobody>::new(()));
        let first = turnstile.acquire(LONG, &AtomicBool::new(false)).unwrap();
        turnstile.queue_statement(LONG, Nobody);
        let shared = Arc::clone(&turnstile);
        let begun = Instant::now();
        let thread = std::thread::spawn(move || shared.acquire(LONG, &AtomicBool::new(false)).is_ok());
        while turnstile.queue.lock().waiting.len() < 2 {
            std::thread::yield_now();
        }
        turnstile.close();
        turnstile.release(first);
        assert!(matches!(turnstile.next(0), Some(Work::Late(_))));
        assert!(thread.join().unwrap() && begun.elapsed() < LONG);
    }
}
