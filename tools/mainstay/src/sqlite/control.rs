//! What a statement needs wherever it runs: the turn to write, and the way to stop it from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use mainstay::server::pg::{Activity, Interrupt, SqlError, SqlState};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::InterruptHandle;

use super::engine::Shared;
use super::turnstile::{Ticket, Waited};
use super::writer::Writer;

/// The turn to write. Dropped, it rolls back what was not committed and gives the turn back.
pub(super) struct Turn {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Turn {
    pub(super) fn new(shared: Arc<Shared>, ticket: Ticket) -> Turn {
        Turn { shared, ticket }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The writer, unless the turn was revoked.
    pub(super) fn writer(&self) -> Option<MutexGuard<'_, Writer>> {
        self.shared.turnstile.writer(self.ticket)
    }

    /// Begins a transaction of SQLite's with these savepoints.
    pub(super) fn begin(&self, savepoints: &[String]) -> Result<(), SqlError> {
        let mut writer = self.writer().ok_or_else(revoked)?;
        let begun = writer.begin().and_then(|()| savepoints.iter().try_for_each(|name| writer.savepoint(name)));
        begun.map_err(|error| unless_demoted(&self.shared, error))
    }

    /// Commits.
    pub(super) fn commit(self) -> Result<(), SqlError> {
        // Held until the commit is over: demoting waits for it, so that the log is not used afterwards.
        let log = self.shared.log.read();
        let mut writer = self.writer().ok_or_else(revoked)?;
        Ok(writer.commit(log.as_deref().ok_or_else(revoked)?)?)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writer() {
            writer.rollback();
        }
        self.shared.turnstile.release(self.ticket);
    }
}

/// What another thread needs to stop a session's statement.
pub(super) struct Control {
    shared: Arc<Shared>,
    cancelled: AtomicBool,
    /// The connection that runs the statement.
    running: Mutex<Option<Arc<InterruptHandle>>>,
    /// Where it stands in the queue before the writer, or stood when the clerk took it.
    place: Mutex<Option<Ticket>>,
    /// Where it is seen that it waits there.
    activity: OnceLock<Arc<Activity>>,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>) -> Control {
        Control {
            shared,
            cancelled: AtomicBool::new(false),
            running: Mutex::default(),
            place: Mutex::default(),
            activity: OnceLock::new(),
        }
    }

    /// From now on it is seen when it waits for the writer.
    pub(super) fn enter(&self, activity: Arc<Activity>) {
        // Told once; a second time changes nothing.
        let _ = self.activity.set(activity);
    }

    /// It begins to wait for the writer, or has its answer.
    pub(super) fn note_waiting(&self, waits: bool) {
        if let Some(activity) = self.activity.get() {
            activity.wait_for_writer(waits);
        }
    }

    /// A new query: no interrupt was meant for it.
    pub(super) fn begin(&self) {
        self.cancelled.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Set by an interrupt, for those who wait.
    pub(super) fn cancelled_flag(&self) -> &AtomicBool {
        &self.cancelled
    }

    /// Runs `work`, which an interrupt through `handle` stops.
    pub(super) fn run<T>(
        &self,
        handle: &Arc<InterruptHandle>,
        work: impl FnOnce() -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.note_waiting(false);
        *self.running.lock() = Some(Arc::clone(handle));
        let result = if self.is_cancelled() { Err(cancelled()) } else { work() };
        *self.running.lock() = None;
        if Arc::ptr_eq(handle, &self.shared.writer_interrupt) {
            result.map_err(|error| self.cause_of(error))
        } else {
            result
        }
    }

    /// What its client is told of an error on the writer. An interrupt that is not the client's own came of a demotion.
    pub(super) fn cause_of(&self, error: SqlError) -> SqlError {
        if self.is_cancelled() { error } else { unless_demoted(&self.shared, error) }
    }

    /// Notes the place in the queue that `queue` answers, so that no interrupt comes between. One that came before found no
    /// place, so it is obeyed here.
    pub(super) fn queue(&self, queue: impl FnOnce() -> Ticket) {
        let mut place = self.place.lock();
        self.note_waiting(true);
        *place = Some(queue());
        drop(place);
        if self.is_cancelled() {
            self.interrupt();
        }
    }

    /// It stands nowhere any more.
    pub(super) fn leave_queue(&self) {
        *self.place.lock() = None;
    }
}

impl Interrupt for Control {
    fn interrupt(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        if let Some(handle) = self.running.lock().as_ref() {
            handle.interrupt();
        }
        if let Some(ticket) = *self.place.lock() {
            self.shared.turnstile.cancel(ticket, || self.shared.writer_interrupt.interrupt());
        }
        self.shared.turnstile.wake();
    }
}

/// Why the turn to write did not come, for the client.
pub(super) fn not_granted(waited: Waited) -> SqlError {
    match waited {
        Waited::Cancelled => cancelled(),
        Waited::TooLong => SqlError::new(SqlState::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
            .with_detail("Others have held the writer all the while.")
            .with_hint("Try again."),
        Waited::Closed => SqlError::new(SqlState::ADMIN_SHUTDOWN, "the database is closed"),
    }
}

/// Whether nothing can be committed any more, or that is about to be so.
pub(super) fn is_demoted(shared: &Shared) -> bool {
    // Who has the writer never waits for the log: it may be held by who waits for the writer, and a demotion stand between.
    // That a demotion waits is as good as that it is over.
    shared.log.try_read().is_none_or(|log| log.is_none())
}

/// The same error, unless it says that somebody cancelled what a demotion ended.
pub(super) fn unless_demoted(shared: &Shared, error: SqlError) -> SqlError {
    if error.state == SqlState::QUERY_CANCELED && is_demoted(shared) { revoked() } else { error }
}

pub(super) fn cancelled() -> SqlError {
    SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
}

pub(super) fn revoked() -> SqlError {
    let message = "the transaction was rolled back: this node is not the primary any more";
    SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, message)
}
