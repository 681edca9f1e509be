//! One client's session on the server's side: its prepared statements, its portals, and what its messages do to them.
//!
//! Nothing here knows of sockets or tasks: a batch of messages comes in, replies go to the [`Outbox`]. It runs on a
//! thread that may block, because sessions do. The simple protocol is in [`super::simple`], the extended one in
//! [`super::extended`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::activity::Activity;
use super::backend::{CommandTag, Scope, Session, TransactionStatus};
use super::budget::Budget;
use super::cursors::{self, Cursors, Run};
use super::error::{Severity, SqlError, SqlState};
use super::extended::{Portal, Prepared};
use super::frame::{Batch, Frame, Kind};
use super::intake::Intake;
use super::message::{self, Message};
use super::outbox::Outbox;
use super::quick::Elsewhere;
use super::sink::{Expected, RowSink, SpoolSink};
use super::slow::Watch;
use super::timeouts::{Clock, Timeouts};
use super::types::OwnedValue;

/// Whether a connection goes on after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// It ends, and everything has been said.
    End,
}

/// A session and what the protocol remembers for it.
pub(super) struct Conversation {
    pub(super) session: Box<dyn Session>,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    pub(super) cursors: Cursors,
    pub(super) budget: Budget,
    /// A statement ran in [`Scope::Implicit`] whose end is still to come.
    pub(super) implicit_open: bool,
    /// After an error in the extended protocol: everything up to the Sync is passed over.
    pub(super) skipping: bool,
    /// The statement that runs elsewhere.
    pub(super) elsewhere: Option<Elsewhere>,
    /// What the client sent and is still to be done.
    pub(super) intake: Intake,
    /// Those of a session that has none of its own.
    timeouts: Timeouts,
    /// The clock of the statement that runs, if it has one.
    clock: Arc<Clock>,
    is_timed: bool,
    /// The statement that runs, for those who look in.
    pub(super) watch: Watch,
    /// The server stops and waits no longer: no statement is begun, and an interrupted one was interrupted by us.
    stopping: Arc<AtomicBool>,
}

impl Conversation {
    pub(super) fn new(
        session: Box<dyn Session>,
        budget: Budget,
        timeouts: Timeouts,
        clock: Arc<Clock>,
        stopping: Arc<AtomicBool>,
    ) -> Conversation {
        Conversation {
            session,
            statements: HashMap::new(),
            portals: HashMap::new(),
            cursors: Cursors::default(),
            budget,
            implicit_open: false,
            skipping: false,
            elsewhere: None,
            intake: Intake::default(),
            timeouts,
            clock,
            is_timed: false,
            watch: Watch::default(),
            stopping,
        }
    }

    /// The timeouts in force.
    pub(super) fn timeouts(&self) -> Timeouts {
        self.session.timeouts().unwrap_or(self.timeouts)
    }

    /// A statement begins.
    pub(super) fn start_clock(&mut self) {
        let timeout = self.timeouts().statement;
        self.is_timed = !timeout.is_zero();
        if self.is_timed {
            self.clock.start(timeout);
        }
    }

    /// The statement did not run; answers whether its time ran out.
    pub(super) fn reset_clock(&mut self) -> bool {
        std::mem::take(&mut self.is_timed) && self.clock.stop()
    }

    /// The statement is over; says why, if its time ran out.
    pub(super) fn stop_clock(&mut self, result: Result<CommandTag, SqlError>) -> Result<CommandTag, SqlError> {
        if !self.reset_clock() {
            return result;
        }
        match result {
            Err(error) if error.state == SqlState::QUERY_CANCELED => {
                Err(SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout"))
            }
            result => {
                // The interrupt came too late for this one, and is not meant for the next one of its query.
                self.session.forget_interrupts();
                result
            }
        }
    }

    /// From now on it is seen what this connection does.
    pub(super) fn enter(&mut self, activity: Arc<Activity>) {
        self.session.entered(Arc::clone(&activity));
        self.watch.activity = Some(activity);
    }

    /// Whether a transaction is open, of a block or of statements whose Sync is still to come.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.implicit_open || self.session.transaction_status() != TransactionStatus::Idle
    }

    /// Does what the messages say, in order. May block.
    pub(super) fn handle(&mut self, batch: Batch, outbox: &mut Outbox) -> Flow {
        self.intake.batch = batch;
        while let Some(frame) = self.intake.batch.frames.pop_front() {
            let kind = frame.kind;
            if kind == Kind::Terminate {
                return Flow::End;
            }
            if self.skipping && kind != Kind::Sync {
                continue;
            }
            let sync_follows = self.intake.batch.frames.front().is_some_and(|next| next.kind == Kind::Sync);
            let result = self.message(frame, sync_follows, outbox);
            if let Err(error) = result
                && self.fail(error, kind, outbox) == Flow::End
            {
                return Flow::End;
            }
        }
        let fault = self.intake.batch.fault.take();
        self.end_batch(fault, outbox)
    }

    /// Ends a batch with what followed its messages and was none.
    pub(super) fn end_batch(&mut self, fault: Option<SqlError>, outbox: &mut Outbox) -> Flow {
        match fault {
            None => Flow::Continue,
            Some(fault) => {
                self.abandon_implicit();
                // If it cannot be sent, the connection ends all the same.
                let _ = outbox.error(&fault);
                Flow::End
            }
        }
    }

    pub(super) fn message(&mut self, frame: Frame, sync_follows: bool, outbox: &mut Outbox) -> Result<(), SqlError> {
        match message::read(frame)? {
            Message::Query(sql) => self.simple_query(&sql, outbox),
            Message::Parse { name, sql, parameter_types } => self.parse(name, &sql, &parameter_types, outbox),
            Message::Bind(bind) => self.bind(bind, outbox),
            Message::Describe(target) => self.describe(&target, outbox),
            Message::Execute { portal, row_limit } => {
                // Nothing ran before it and nothing comes after it, so the statement is alone and commits by itself.
                let alone = sync_follows && !self.implicit_open;
                let scope = if alone { Scope::Single } else { Scope::Implicit };
                self.execute_portal(&portal, row_limit, scope, outbox)
            }
            Message::Close(target) => self.close(&target, outbox),
            Message::Sync => self.sync(outbox),
            Message::FunctionCall => {
                Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "function calls by message are not supported")
                    .with_hint("Call the function in a SELECT."))
            }
            // What was sent goes out at the end of a batch anyway, and a batch ends where no message is waiting.
            Message::Flush => Ok(()),
            // Left over from a COPY that was refused or failed: the protocol asks to pass over it.
            Message::Copy => Ok(()),
            Message::Terminate => Ok(()),
        }
    }

    /// Runs one statement.
    pub(super) fn run(
        &mut self,
        statement: &str,
        parameters: &[OwnedValue],
        scope: Scope,
        expected: Expected<'_>,
        outbox: &mut Outbox,
    ) -> Result<CommandTag, SqlError> {
        self.refuse_if_stopping()?;
        self.implicit_open |= scope == Scope::Implicit;
        self.watch.begin(statement);
        self.start_clock();
        let mut sink = RowSink::new(outbox, expected, &mut self.intake);
        let run = Run { statement, parameters, scope, sink: &mut sink };
        let result =
            cursors::execute(self.session.as_mut(), &mut self.cursors, &mut self.statements, &self.budget, run);
        self.watch.end(self.session.slow_log(), parameters);
        let failure = sink.into_failure();
        self.intake.end_copy();
        let tag = self.stop_clock(failure.map_or(result, Err))?;
        self.note_done(&tag);
        Ok(tag)
    }

    /// A statement is over, which may have ended a transaction. (A rollback to a savepoint calls itself ROLLBACK too.)
    pub(super) fn note_done(&mut self, tag: &CommandTag) {
        match tag.0.as_str() {
            "COMMIT" => self.cursors.end_transaction(true),
            "ROLLBACK" if self.session.transaction_status() == TransactionStatus::Idle => {
                self.cursors.end_transaction(false);
            }
            "DISCARD ALL" => {
                self.cursors.clear();
                self.portals.clear();
                self.statements.clear();
            }
            _ => {}
        }
    }

    /// Runs one statement whose rows are fetched in parts.
    pub(super) fn run_into(
        &mut self,
        statement: &str,
        parameters: &[OwnedValue],
        scope: Scope,
        mut sink: SpoolSink<'_>,
    ) -> Result<CommandTag, SqlError> {
        self.refuse_if_stopping()?;
        self.implicit_open |= scope == Scope::Implicit;
        self.watch.begin(statement);
        self.start_clock();
        let run = Run { statement, parameters, scope, sink: &mut sink };
        let result =
            cursors::execute(self.session.as_mut(), &mut self.cursors, &mut self.statements, &self.budget, run);
        self.watch.end(self.session.slow_log(), parameters);
        let failure = sink.into_failure();
        let tag = self.stop_clock(failure.map_or(result, Err))?;
        self.note_done(&tag);
        Ok(tag)
    }

    /// # Errors
    /// The server stops and begins no statement any more.
    pub(super) fn refuse_if_stopping(&self) -> Result<(), SqlError> {
        if self.stopping.load(Ordering::Acquire) { Err(server_stopping()) } else { Ok(()) }
    }

    fn sync(&mut self, outbox: &mut Outbox) -> Result<(), SqlError> {
        self.skipping = false;
        self.commit_implicit()?;
        self.ready(outbox)
    }

    /// Commits what ran in [`Scope::Implicit`], if anything.
    pub(super) fn commit_implicit(&mut self) -> Result<(), SqlError> {
        if std::mem::take(&mut self.implicit_open) { self.session.end_implicit(true) } else { Ok(()) }
    }

    fn abandon_implicit(&mut self) {
        if std::mem::take(&mut self.implicit_open)
            && let Err(error) = self.session.end_implicit(false)
        {
            tracing::warn!(%error, "rolling back an implicit transaction failed");
        }
    }

    /// Says where the session stands; the client may go on.
    pub(super) fn ready(&mut self, outbox: &mut Outbox) -> Result<(), SqlError> {
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            // Portals live as long as their transaction.
            self.portals.clear();
            self.cursors.end_transaction(true);
        }
        self.watch.rest(status);
        for (name, value) in self.session.changed_settings() {
            outbox.setting(name, &value)?;
        }
        outbox.ready(status)
    }

    /// Tells the client of an error in a message of `kind`.
    pub(super) fn fail(&mut self, error: SqlError, kind: Kind, outbox: &mut Outbox) -> Flow {
        self.abandon_implicit();
        // Whatever went wrong, the client's block is not what the client meant any more. An error of Sync finds none: it
        // is that of an implicit commit.
        self.session.fail_transaction();
        if self.session.transaction_status() == TransactionStatus::Idle {
            self.cursors.end_transaction(false);
        }
        let stopping = self.stopping.load(Ordering::Acquire);
        if outbox.is_closed() {
            // Nobody takes what is sent any more: the client is gone, or the server stops.
            outbox.end_with(&if stopping { server_stopping() } else { error });
            return Flow::End;
        }
        // Interrupted, or a COPY that is fed no more, before it saw the interrupt.
        let by_us = matches!(error.state, SqlState::QUERY_CANCELED | SqlState::CONNECTION_FAILURE);
        let error = if stopping && by_us { server_stopping() } else { error };
        if outbox.error(&error).is_err() || error.severity == Severity::Fatal {
            return Flow::End;
        }
        // After these the client waits for ReadyForQuery; after the others it still has to send a Sync.
        if matches!(kind, Kind::Query | Kind::Sync | Kind::FunctionCall) {
            self.skipping = false;
            if self.ready(outbox).is_err() { Flow::End } else { Flow::Continue }
        } else {
            self.skipping = true;
            Flow::Continue
        }
    }
}

/// What clients are told when the server stops under them.
pub(super) fn server_stopping() -> SqlError {
    SqlError::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection because the server is stopping")
}
