//! Who may write. SQLite has one writer at a time: whoever wants to write queues here, in order, for a bounded time.
//!
//! Holding the turn (a [`Ticket`]) and using the writer are two things. A transaction keeps its turn between statements, but
//! borrows the writer only while a statement runs, so that a demoted node can end it and take the writer back.
//!
//! Threads that may block wait for their turn themselves. For everybody else one thread, the *clerk* ([`super::clerk`]),
//! takes [`Work`] from here: statements that are transactions by themselves, many of which share a turn; transactions
//! whose turn has come; and errands of whoever has the turn.
//!
//! **Whoever waits is heard, and hears in time**, though the clerk, and others of its group, may take any time. The statements
//! of a group are gathered when its turn comes and stay here until each runs, so that they can be
//! [cancelled](Turnstile::cancel) and their time can run out. Another thread, the *alarm*, tells those whose time
//! [has](Turnstile::late). It sleeps until the nearest deadline that it knows of and is woken for a nearer one alone. Most
//! wait for the same time, so that deadlines come in order: then it wakes twice in that time, however many statements come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// So many statements share a turn.
pub(super) const GROUP_STATEMENTS: usize = 256;
/// The alarm rests so long at least: each time it looks at all who wait.
const ALARM_REST: Duration = Duration::from_millis(1);

/// The right to write, until it is given back or revoked; before that, a place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The alarm is to go off earlier than it knows.
    sooner: Condvar,
    writer: Mutex<W>,
}

struct Queue<S> {
    owner: Option<Ticket>,
    /// By ticket.
    waiting: VecDeque<Place<S>>,
    /// What is still to run of the group that has the turn.
    group: VecDeque<Member<S>>,
    errands: VecDeque<Errand>,
    given: u64,
    /// Which statement of the group runs now.
    running: Option<Ticket>,
    /// When the alarm goes off.
    alarm: Option<Instant>,
    closed: bool,
}

struct Place<S> {
    ticket: Ticket,
    deadline: Instant,
    who: Who<S>,
}

struct Member<S> {
    ticket: Ticket,
    /// None if it ran before: it does not wait for the writer any more.
    deadline: Option<Instant>,
    /// Shares its transaction with nobody.
    is_alone: bool,
    statement: S,
}

enum Who<S> {
    Thread(Arc<Condvar>),
    Statement(S),
    Transaction(Start),
}

/// What the clerk does next.
pub(super) enum Work {
    Errand(Errand),
    /// A group has this turn, which is to be given back once [all of it ran](Turnstile::run_next).
    Group(Ticket),
    /// A transaction has the turn now.
    Transaction(Start, Ticket),
}

/// How a statement stands in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) is_last: bool,
    pub(super) ran_before: bool,
}

/// Whose turn does not come.
pub(super) enum Late<S> {
    Statement(S),
    Transaction(Start),
}

impl<S: Single> Late<S> {
    fn of(who: Who<S>) -> Option<Late<S>> {
        match who {
            // It looks for itself.
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
    fn place(&mut self, limit: Duration, who: Who<S>) -> (Ticket, Instant) {
        let (ticket, deadline) = (self.next_ticket(), Instant::now() + limit);
        self.waiting.push_back(Place { ticket, deadline, who });
        (ticket, deadline)
    }

    fn next_ticket(&mut self) -> Ticket {
        self.given += 1;
        Ticket(self.given)
    }

    fn take(&mut self, ticket: Ticket) -> Option<Place<S>> {
        let at = self.waiting.binary_search_by_key(&ticket, |place| place.ticket).ok()?;
        self.waiting.remove(at)
    }

    /// Takes out what stands at that place for the clerk, in the queue or in the group.
    fn take_late(&mut self, ticket: Ticket) -> Option<Late<S>> {
        if let Some(place) = self.take(ticket) {
            return Late::of(place.who);
        }
        let at = self.group.iter().position(|member| member.ticket == ticket)?;
        self.group.remove(at).map(|member| Late::Statement(member.statement))
    }

    /// Takes out all that stand there for the clerk and whose deadline, if they have one, is such.
    fn take_all(&mut self, is_such: impl Fn(Option<Instant>) -> bool) -> Vec<Late<S>> {
        let mut late = Vec::new();
        let is_late = |place: &Place<S>| !matches!(place.who, Who::Thread(_)) && is_such(Some(place.deadline));
        if self.waiting.iter().any(is_late) {
            for place in std::mem::take(&mut self.waiting) {
                if is_late(&place) {
                    late.extend(Late::of(place.who));
                } else {
                    self.waiting.push_back(place);
                }
            }
        }
        if self.group.iter().any(|member| is_such(member.deadline)) {
            for member in std::mem::take(&mut self.group) {
                if is_such(member.deadline) {
                    late.push(Late::Statement(member.statement));
                } else {
                    self.group.push_back(member);
                }
            }
        }
        late
    }

    /// The nearest deadline of those that stand there for the clerk.
    fn nearest(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter(|place| !matches!(place.who, Who::Thread(_)));
        waiting.map(|place| place.deadline).chain(self.group.iter().filter_map(|member| member.deadline)).min()
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

    /// Makes a group of the statements that stand in the queue now, as many as share a turn. Those behind others too: they
    /// are over soon.
    fn gather(&mut self, limit_bytes: usize) {
        let mut bytes = 0_usize;
        for place in std::mem::take(&mut self.waiting) {
            let Place { ticket, deadline, who } = place;
            match who {
                Who::Statement(statement)
                    if self.group.is_empty() || self.group.len() < GROUP_STATEMENTS && bytes < limit_bytes =>
                {
                    bytes = bytes.saturating_add(statement.len_bytes());
                    self.group.push_back(Member { ticket, deadline: Some(deadline), is_alone: false, statement });
                }
                who => self.waiting.push_back(Place { ticket, deadline, who }),
            }
        }
    }
}

/// A statement of the group runs until this is dropped.
struct Running<'a, S>(&'a Mutex<Queue<S>>);

impl<S> Drop for Running<'_, S> {
    fn drop(&mut self) {
        self.0.lock().running = None;
    }
}

impl<W, S: Single> Turnstile<W, S> {
    pub(super) fn new(writer: W) -> Turnstile<W, S> {
        let queue = Queue {
            owner: None,
            waiting: VecDeque::new(),
            group: VecDeque::new(),
            errands: VecDeque::new(),
            given: 0,
            running: None,
            alarm: None,
            closed: false,
        };
        Turnstile { queue: Mutex::new(queue), work: Condvar::new(), sooner: Condvar::new(), writer: Mutex::new(writer) }
    }

    /// Waits for the turn, at most `limit`, and no longer once `cancelled` is set and [`wake`](Turnstile::wake) called.
    pub(super) fn acquire(&self, limit: Duration, cancelled: &AtomicBool) -> Result<Ticket, Waited> {
        let turn = Arc::new(Condvar::new());
        let mut queue = self.queue.lock();
        let (ticket, deadline) = queue.place(limit, Who::Thread(Arc::clone(&turn)));
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

    /// How many are in the queue, those of the group among them that do not run yet.
    pub(super) fn waiting(&self) -> usize {
        let queue = self.queue.lock();
        queue.waiting.len() + queue.group.len()
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
        if queue.closed {
            let ticket = queue.next_ticket();
            drop(queue);
            Late::of(who).into_iter().for_each(|late| late.tell(Waited::Closed));
            return ticket;
        }
        let (ticket, deadline) = queue.place(limit, who);
        if queue.owner.is_none() {
            self.work.notify_one();
        }
        if queue.alarm.is_none_or(|alarm| deadline < alarm) {
            queue.alarm = Some(deadline);
            self.sooner.notify_one();
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
    pub(super) fn next(&self, limit_bytes: usize) -> Option<Work> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(errand) = queue.errands.pop_front() {
                return Some(Work::Errand(errand));
            }
            if queue.closed {
                return None;
            }
            if queue.owner.is_none() {
                match queue.waiting.front().map(|place| &place.who) {
                    Some(Who::Thread(turn)) => {
                        turn.notify_one();
                    }
                    Some(Who::Statement(_)) => {
                        let ticket = queue.next_ticket();
                        queue.owner = Some(ticket);
                        queue.gather(limit_bytes);
                        return Some(Work::Group(ticket));
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
            self.work.wait(&mut queue);
        }
    }

    /// What the alarm is to do next: tell these that their time has run out; `None` once closed.
    pub(super) fn late(&self) -> Option<Vec<Late<S>>> {
        let mut queue = self.queue.lock();
        while !queue.closed {
            let now = Instant::now();
            match queue.alarm {
                Some(at) if at <= now => {
                    let late = queue.take_all(|deadline| deadline.is_some_and(|deadline| deadline <= now));
                    queue.alarm = queue.nearest().map(|nearest| nearest.max(now + ALARM_REST));
                    if !late.is_empty() {
                        queue.turn_moved(&self.work);
                        return Some(late);
                    }
                }
                Some(at) => {
                    self.sooner.wait_until(&mut queue, at);
                }
                None => self.sooner.wait(&mut queue),
            }
        }
        None
    }

    /// Whether there is more of the group to run, and if so, whether that shares its transaction with nobody.
    pub(super) fn next_is_alone(&self) -> Option<bool> {
        self.queue.lock().group.front().map(|member| member.is_alone)
    }

    /// Takes the next statement out of the group and runs it, so that [`cancel`](Turnstile::cancel) meets it. Answers nothing
    /// where there is none, or one that shares its transaction with nobody though this is not the first of one.
    pub(super) fn run_next<T>(
        &self,
        is_first: bool,
        run: impl FnOnce(&mut S, Standing) -> T,
    ) -> Option<(Ticket, S, T)> {
        let mut queue = self.queue.lock();
        queue.group.front().filter(|next| is_first || !next.is_alone)?;
        let Member { ticket, deadline, mut statement, .. } = queue.group.pop_front()?;
        queue.running = Some(ticket);
        let standing = Standing { is_last: queue.group.is_empty(), ran_before: deadline.is_none() };
        drop(queue);
        let running = Running(&self.queue);
        let result = run(&mut statement, standing);
        drop(running);
        Some((ticket, statement, result))
    }

    /// Puts statements that ran back, in front of the rest of the group, to run again.
    pub(super) fn put_back(&self, statements: Vec<(Ticket, S)>) {
        let mut queue = self.queue.lock();
        for (ticket, statement) in statements.into_iter().rev() {
            queue.group.push_front(Member { ticket, deadline: None, is_alone: false, statement });
        }
    }

    /// Puts a statement that ran behind the rest of the group, to run again and share its transaction with nobody.
    pub(super) fn put_last(&self, ticket: Ticket, statement: S) {
        self.queue.lock().group.push_back(Member { ticket, deadline: None, is_alone: true, statement });
    }

    /// Ends the group: what did not run of it, in order.
    pub(super) fn end_group(&self) -> Vec<S> {
        let group = std::mem::take(&mut self.queue.lock().group);
        group.into_iter().map(|member| member.statement).collect()
    }

    /// Cancels what stands at that place: gives it up if it still waits, and calls `stop` if it is a statement that runs.
    pub(super) fn cancel(&self, ticket: Ticket, stop: impl FnOnce()) {
        let mut queue = self.queue.lock();
        let late = queue.take_late(ticket);
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

    /// Lets the clerk and the alarm go, and tells everybody who waits for them.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        let late = queue.take_all(|_| true);
        queue.turn_moved(&self.work);
        self.work.notify_one();
        self.sooner.notify_one();
        drop(queue);
        late.into_iter().for_each(|late| late.tell(Waited::Closed));
    }
}

#[cfg(test)]
#[path = "turnstile_test.rs"]
mod tests;
