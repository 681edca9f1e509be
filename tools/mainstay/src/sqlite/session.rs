//! One client: where its statements run, and where its transaction stands.
//!
//! What only reads runs on the session's own connection and waits for nobody. A transaction takes the writer at its first
//! write, or at its first statement if it began with BEGIN IMMEDIATE, and from then on runs everything there. One that is to
//! see one state throughout holds it on its own connection until then, and begins to write only if that is still the last
//! state (40001 otherwise): so it is as if it had been alone from the beginning.

use std::sync::Arc;
use std::task::{Context, Poll};

use mainstay::server::pg::{
    self, Activity, ClientInfo, CommandTag, CursorCommand, Description, Interrupt, OwnedValue, PgType, Reply,
    ResultSink, Roles, Scope, Session, SqlError, SqlState, Started, Timeouts, TransactionStatus,
};

use super::catalog;
use super::command::{self, Asked, Command, Modes};
use super::control::{Control, Turn, not_granted, revoked};
use super::engine::Shared;
use super::errors::from_sqlite;
use super::turnstile::Ticket;
use super::{dialect, lexer, memory, values};

mod blocks;
mod catalogs;
mod copy;
mod parameters;
mod reader;
mod savepoints;
mod settings;
mod slow;
mod start;
mod temporary;
mod timeouts;
mod translated;

use blocks::{read_only, warning};
use reader::{OneState, Position, Reader};
use start::Pending;
use temporary::Temporary;
use timeouts::SessionTimeouts;

pub use slow::SlowLog;
pub(super) use slow::SlowSetting;

/// A client's session.
pub(super) struct SqliteSession {
    shared: Arc<Shared>,
    reader: Option<Reader>,
    /// Where its temporary tables are, from the first one on.
    temporary: Option<Temporary>,
    control: Arc<Control>,
    transaction: Option<Transaction>,
    /// The modes of transactions that do not ask for others.
    defaults: Modes,
    timeouts: SessionTimeouts,
    /// What the clerk does for this session.
    pending: Option<Pending>,
    /// Which of its statements are logged for having taken long.
    slow: SlowLog,
    /// Where it is seen what it does.
    activity: Option<Arc<Activity>>,
    /// Who else can log in.
    roles: Roles,
    /// So many clients may be connected.
    connection_limit: usize,
}

/// A transaction, of a block or implicit.
#[derive(Default)]
struct Transaction {
    /// The client began it with BEGIN.
    block: bool,
    modes: Modes,
    /// The session's, which come back if it is rolled back.
    defaults_before: Modes,
    /// Likewise.
    slow_before: SlowLog,
    failed: bool,
    /// A statement ran in it, so its modes are settled.
    started: bool,
    /// The client was told something of the state that it sees throughout.
    has_seen: bool,
    /// Savepoints set so far; the writer has them too, once it takes part.
    savepoints: Vec<String>,
    /// The turn to write, from the first write on.
    turn: Option<Turn>,
    /// What it wrote is gone, or what it saw throughout, though it has not ended for the client: only ROLLBACK is left.
    lost: bool,
}

impl SqliteSession {
    /// One for that client.
    ///
    /// # Errors
    /// Its startup packet sets something to what it cannot be.
    pub(super) fn new(shared: Arc<Shared>, client: &ClientInfo) -> Result<SqliteSession, SqlError> {
        let slow = *shared.slow_log.lock();
        Ok(SqliteSession {
            timeouts: SessionTimeouts::new(client)?,
            control: Arc::new(Control::new(Arc::clone(&shared))),
            shared,
            reader: None,
            temporary: None,
            transaction: None,
            defaults: Modes::default(),
            pending: None,
            slow,
            activity: None,
            roles: client.roles.clone(),
            connection_limit: client.connection_limit,
        })
    }

    fn reader(&mut self) -> Result<&Reader, SqlError> {
        if self.reader.is_none() {
            let opened = self.shared.open_reader().and_then(|connection| Reader::new(connection, &self.control));
            self.reader = Some(opened.map_err(|error| from_sqlite(&error))?);
        }
        self.reader.as_ref().ok_or_else(|| SqlError::new(SqlState::INTERNAL_ERROR, "no connection to read with"))
    }

    fn turn(&self) -> Option<Ticket> {
        self.transaction.as_ref().and_then(|transaction| transaction.turn.as_ref()).map(Turn::ticket)
    }

    fn modes(&self) -> Modes {
        self.transaction.as_ref().map_or(self.defaults, |transaction| transaction.modes)
    }

    /// A transaction of these modes.
    fn open(&mut self, block: bool, modes: Modes) -> &mut Transaction {
        self.timeouts.begin();
        let (defaults_before, slow_before) = (self.defaults, self.slow);
        let transaction = Transaction { block, modes, defaults_before, slow_before, ..Transaction::default() };
        self.transaction.insert(transaction)
    }

    /// The transaction; outside a block, that of the statements that succeed or fail together with this one.
    fn open_if_implicit(&mut self, scope: Scope) {
        if self.transaction.is_none() && scope == Scope::Implicit {
            self.open(false, self.defaults);
        }
    }

    fn refuse_if_failed(&self) -> Result<(), SqlError> {
        if self.transaction.as_ref().is_some_and(|transaction| transaction.failed) {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(SqlError::new(SqlState::IN_FAILED_SQL_TRANSACTION, message));
        }
        Ok(())
    }

    /// Runs a statement that is SQLite's.
    fn run_sql(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        self.refuse_if_failed()?;
        self.open_if_implicit(scope);
        if catalog::is_suspected(sql)
            && let Some(outcome) = self.run_catalogs(sql, parameters, sink)
        {
            self.note_started();
            return outcome;
        }
        let (written, words) = (sql, dialect::in_sqlites_words(sql));
        if let Some(outcome) = self.run_temporary(&words, parameters, sink) {
            return outcome;
        }
        let sql = &*self.with_user(words);
        let modes = self.modes();
        // A statement by itself sees one state anyway.
        let stable = modes.stable() && self.transaction.is_some();
        let snapshot = stable && modes.snapshot();
        if let Some(ticket) = self.turn().filter(|_| modes.read_only) {
            self.refuse_if_it_writes(sql, ticket)?;
        } else if self.turn().is_none() && (snapshot || !stable) {
            if snapshot {
                OneState::hold(self.reader()?)?.keep();
            }
            let read = match self.run_reading(sql, parameters, sink) {
                Err(error) if catalog::is_of_names(&error) => {
                    self.run_catalogs(written, parameters, sink).unwrap_or(Err(error)).map(Some)
                }
                read => read,
            };
            if let Some(tag) = read? {
                self.note_read();
                return Ok(tag);
            }
            if modes.read_only {
                return Err(read_only(sql));
            }
            self.refuse_unless_primary(sql)?;
        }
        self.note_started();
        if self.transaction.is_some() {
            return self.run_in_transaction(sql, parameters, sink);
        }
        let turn = self.take_turn(&[])?;
        let tag = self.run_writing(turn.ticket(), sql, parameters, sink)?;
        self.commit(turn)?;
        Ok(tag)
    }

    fn refuse_unless_primary(&self, sql: &str) -> Result<(), SqlError> {
        if self.shared.log.read().is_none() {
            let message = format!("cannot execute {}: this node is not the primary", command::leading_words(sql));
            return Err(SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, message));
        }
        Ok(())
    }

    /// An error fails the transaction.
    fn note_outcome(&mut self, outcome: &Result<CommandTag, SqlError>) {
        self.note_losses();
        if outcome.is_err()
            && let Some(transaction) = &mut self.transaction
        {
            transaction.failed = true;
        }
    }

    fn note_started(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.started = true;
        }
    }

    fn note_read(&mut self) {
        self.note_started();
        if let Some(transaction) = &mut self.transaction {
            transaction.has_seen = true;
        }
    }

    /// In a transaction that wrote before it became read-only.
    fn refuse_if_it_writes(&self, sql: &str, ticket: Ticket) -> Result<(), SqlError> {
        let writer = self.shared.turnstile.writer(ticket).ok_or_else(revoked)?;
        let (connection, policy) = writer.for_describe();
        let (statement, _) = policy.watch(|| connection.prepare(sql))?;
        if statement.readonly() { Ok(()) } else { Err(read_only(sql)) }
    }

    /// Runs a statement on the reading connection; `None` if it does not only read.
    fn run_reading(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<Option<CommandTag>, SqlError> {
        self.reader()?;
        // Taken out, so that it can be used beside the rest of the session.
        let Some(reader) = self.reader.take() else { return Ok(None) };
        let outcome = self.run_reading_on(&reader, sql, parameters, sink);
        self.reader = Some(reader);
        outcome
    }

    fn run_reading_on(
        &self,
        reader: &Reader,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<Option<CommandTag>, SqlError> {
        let connection = &reader.connection;
        let _state = OneState::hold(reader)?;
        let (mut statement, actions) = reader.policy.watch(|| connection.prepare_cached(sql))?;
        reader.note_calls(sql, &actions);
        if !statement.readonly() || reader.must_block(sql) {
            return Ok(None);
        }
        values::bind(&mut statement, sql, parameters)?;
        let columns = values::columns(connection, &statement, sql);
        let rows = reader.interruptible(|| values::run(&mut statement, &columns, sink, from_sqlite))?;
        let words = command::leading_words(sql);
        let returns_rows = !columns.is_empty() && words != "EXPLAIN";
        Ok(Some(CommandTag(if returns_rows { format!("SELECT {rows}") } else { words })))
    }

    fn run_in_transaction(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        self.with_turn(|session, ticket| session.run_writing(ticket, sql, parameters, sink))
    }

    /// Does something with the turn of the transaction, which is taken if it does not have one yet.
    fn with_turn<T>(
        &mut self,
        work: impl FnOnce(&SqliteSession, Ticket) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let ticket = match self.turn() {
            Some(ticket) => ticket,
            None => {
                let savepoints =
                    self.transaction.as_ref().map(|transaction| transaction.savepoints.clone()).unwrap_or_default();
                let seen = self.position_seen()?;
                let turn = self.take_turn(&savepoints)?;
                self.go_on_writing(seen, &turn)?;
                let ticket = turn.ticket();
                if let Some(transaction) = &mut self.transaction {
                    transaction.turn = Some(turn);
                }
                ticket
            }
        };
        let outcome = work(self, ticket);
        if outcome.is_err() {
            let ended = self.shared.turnstile.writer(ticket).is_none_or(|writer| writer.is_ended());
            if let Some(transaction) = self.transaction.as_mut().filter(|_| ended) {
                transaction.lost = true;
                transaction.turn = None;
            }
        }
        outcome
    }

    /// Up to where the state reaches that the transaction sees throughout, if it has seen anything of it.
    fn position_seen(&self) -> Result<Option<Position>, SqlError> {
        let has_seen = self.transaction.as_ref().is_some_and(|transaction| transaction.has_seen);
        let held = self.reader.as_ref().filter(|reader| has_seen && reader.holds_state());
        held.map(|reader| Position::of(&reader.connection)).transpose()
    }

    /// From now on the transaction sees what the writer does, which is to be the same as before.
    ///
    /// # Errors
    /// 40001: others have committed since.
    fn go_on_writing(&self, seen: Option<Position>, turn: &Turn) -> Result<(), SqlError> {
        if let Some(seen) = seen {
            let writer = turn.writer().ok_or_else(revoked)?;
            if Position::of(writer.for_describe().0)? != seen {
                return Err(reader::overtaken());
            }
        }
        self.reader.as_ref().map_or(Ok(()), Reader::leave_state)
    }

    /// Waits for the turn and begins a transaction of SQLite's with these savepoints.
    fn take_turn(&self, savepoints: &[String]) -> Result<Turn, SqlError> {
        self.control.note_waiting(true);
        let waited = self.shared.turnstile.acquire(self.timeouts.lock(), self.control.cancelled_flag());
        self.control.note_waiting(false);
        let turn = Turn::new(Arc::clone(&self.shared), waited.map_err(not_granted)?);
        turn.begin(savepoints)?;
        Ok(turn)
    }

    fn run_writing(
        &self,
        ticket: Ticket,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        let mut writer = self.shared.turnstile.writer(ticket).ok_or_else(revoked)?;
        self.control.run(&self.shared.writer_interrupt, || writer.execute(sql, parameters, sink))
    }

    fn commit(&self, turn: Turn) -> Result<(), SqlError> {
        turn.commit()?;
        self.shared.copy_if_long();
        Ok(())
    }

    /// Ends the transaction; answers whether it was committed.
    fn end(&mut self, commit: bool) -> Result<bool, SqlError> {
        let Some(mut transaction) = self.transaction.take() else { return Ok(commit) };
        let outcome = self.finish(&mut transaction, commit);
        self.end_temporary(matches!(outcome, Ok(true)));
        self.timeouts.end(matches!(outcome, Ok(true)));
        if !matches!(outcome, Ok(true)) {
            self.defaults = transaction.defaults_before;
            self.slow = transaction.slow_before;
        }
        outcome
    }

    fn finish(&self, transaction: &mut Transaction, commit: bool) -> Result<bool, SqlError> {
        self.reader.as_ref().map_or(Ok(()), Reader::leave_state)?;
        let commit = commit && !transaction.failed;
        match transaction.turn.take() {
            Some(turn) if commit => self.commit(turn).map(|()| true),
            _ => Ok(commit),
        }
    }

    /// Sets everything to what it was at first.
    fn reset_all(&mut self, scope: Scope) -> Result<(), SqlError> {
        self.open_if_implicit(scope);
        self.set_defaults(Asked::ORIGINAL)?;
        self.timeouts.reset();
        self.slow = *self.shared.slow_log.lock();
        Ok(())
    }

    fn run_command(
        &mut self,
        command: Command,
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        if !matches!(command, Command::Commit { .. } | Command::Rollback { .. } | Command::RollbackTo(_)) {
            self.refuse_if_failed()?;
        }
        let tag = match command {
            Command::Begin { modes, tag } => {
                self.begin(modes, sink)?;
                tag
            }
            Command::Commit { chain } => self.end_block(true, chain, sink)?,
            Command::Rollback { chain } => self.end_block(false, chain, sink)?,
            Command::Savepoint(name) => self.savepoint(name)?,
            Command::Release(name) => self.release(&name)?,
            Command::RollbackTo(name) => self.roll_back_to(&name)?,
            Command::SetTransaction(modes) => {
                self.open_if_implicit(scope);
                self.set_transaction(modes, sink)?;
                "SET"
            }
            Command::SetDefaults { modes, tag } => {
                self.open_if_implicit(scope);
                self.set_defaults(modes)?;
                tag
            }
            Command::SetSlow { setting, value, tag } => {
                self.open_if_implicit(scope);
                self.set_slow(setting, value.as_deref())?;
                tag
            }
            Command::SetTimeout { timeout, value, is_local, tag } => {
                self.open_if_implicit(scope);
                self.set_timeout(timeout, value, is_local, sink)?;
                tag
            }
            Command::ResetAll { tag } => {
                self.reset_all(scope)?;
                tag
            }
            Command::Discard { all } => {
                self.discard_temporary(scope)?;
                if all {
                    self.reset_all(scope)?;
                }
                // The server forgets its part by that tag.
                if all { "DISCARD ALL" } else { "DISCARD TEMP" }
            }
            Command::SetName { value, is_local, tag } => {
                self.open_if_implicit(scope);
                self.set_name(value.as_deref(), is_local, sink)?;
                tag
            }
            Command::Set { what, tag } => {
                sink.notice(&SqlError::notice(format!("{what} has no effect here")))?;
                tag
            }
            Command::Copy(copy) => return self.run_copy(&copy, scope, sink),
            Command::Translated(translated) => return self.run_translated(&translated, scope, sink),
            Command::Show(name) => return self.show(name, sink),
        };
        Ok(CommandTag(tag.to_owned()))
    }
}

impl Session for SqliteSession {
    fn split<'a>(&self, sql: &'a str) -> Vec<&'a str> {
        lexer::split(sql)
    }

    fn cursor_command(&self, statement: &str) -> Result<Option<CursorCommand>, SqlError> {
        command::parse_cursor(statement)
    }

    fn describe(&mut self, statement: &str, parameter_types: &[PgType]) -> Result<Description, SqlError> {
        match command::parse(statement)? {
            Some(Command::Show(name)) => return self.describe_show(name),
            Some(_) => return Ok(Description::default()),
            None => self.refuse_if_failed()?,
        }
        let words = dialect::in_sqlites_words(statement);
        let described = match self.describe_temporary(&words, parameter_types) {
            Some(described) => described,
            None => {
                let words = self.with_user(words);
                self.describe_sql(&words, parameter_types)
            }
        };
        match described {
            Err(error) if catalog::is_of_names(&error) => {
                self.describe_catalogs(statement, parameter_types).unwrap_or(Err(error))
            }
            described => described,
        }
    }

    fn execute(
        &mut self,
        statement: &str,
        parameters: &[OwnedValue],
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        let outcome = match command::parse(statement) {
            Ok(Some(command)) => self.run_command(command, scope, sink),
            Ok(None) => self.run_sql(statement, parameters, scope, sink),
            Err(error) => self.refuse_if_failed().and(Err(error)),
        };
        self.note_outcome(&outcome);
        outcome
    }

    fn entered(&mut self, activity: Arc<Activity>) {
        self.control.enter(Arc::clone(&activity));
        self.activity = Some(activity);
    }

    fn start(&mut self, statement: &str, parameters: &Arc<Vec<OwnedValue>>, scope: Scope, reply: Reply) -> Started {
        self.start_statement(statement, parameters, scope, reply)
    }

    fn poll_started(&mut self, context: &mut Context<'_>) -> Poll<(Result<CommandTag, SqlError>, Reply)> {
        self.poll_pending(context)
    }

    fn rest(&mut self) {
        // The reader that is let go may be all that tells of a state that was lost.
        self.note_losses();
        // Opened again with the next statement. A state that a transaction sees cannot be had again.
        let held = self.reader.take();
        let had_one = held.is_some();
        self.reader = held.filter(Reader::holds_state);
        if had_one && self.reader.is_none() {
            memory::give_back_soon();
        }
        if let Some(temporary) = &self.temporary {
            temporary.rest();
        }
    }

    fn describes_at_once(&self) -> bool {
        self.reader.is_some() && self.turn().is_none()
    }

    fn end_implicit(&mut self, commit: bool) -> Result<(), SqlError> {
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.block) {
            self.end(commit)?;
        }
        Ok(())
    }

    fn fail_transaction(&mut self) {
        self.note_losses();
        if let Some(transaction) = self.transaction.as_mut().filter(|transaction| transaction.block) {
            transaction.failed = true;
        }
    }

    fn slow_log(&self) -> Option<pg::SlowLog> {
        self.slow.for_server()
    }

    fn changed_settings(&mut self) -> Vec<(&'static str, String)> {
        self.untold_settings()
    }

    fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            Some(transaction) if transaction.block && transaction.failed => TransactionStatus::Failed,
            Some(transaction) if transaction.block => TransactionStatus::InTransaction,
            _ => TransactionStatus::Idle,
        }
    }

    fn timeouts(&self) -> Option<Timeouts> {
        Some(self.timeouts.now())
    }

    fn forget_interrupts(&mut self) {
        self.control.begin();
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.control) as Arc<dyn Interrupt>
    }
}

#[cfg(test)]
#[path = "session_modes_test.rs"]
mod modes_tests;
