//! The one connection that writes, and what its open transaction did so far.
//!
//! A transaction becomes an ordered list of parts. Row changes gather in SQLite's session and are drained into a part
//! before each DDL statement and at each savepoint, so that the list up to a savepoint is exactly what rolling back
//! to it leaves.
//!
//! **The order of a commit** ([`Writer::commit`]): nothing enters SQLite's files before it is committed in the WAL.

use std::sync::Arc;
use std::time::Instant;

use mainstay::lsn::Lsn;
use mainstay::server::pg::{CommandTag, OwnedValue, ResultSink, SqlError, SqlState};
use mainstay::wal::{AppendError, CommitError, Record};
use parking_lot::Mutex;
use rusqlite::Connection;

use super::errors::{self, from_sqlite};
use super::ffi::{self, CaptureConnection};
use super::health::Health;
use super::keys::{KeyWatch, quoted};
use super::log::Log;
use super::measures::Measures;
use super::payload::{Part, Payload};
use super::policy::{self, Policy, Verb};
use super::sequences::Sequences;
use super::{DATABASE, apply, command, sequences, values};

mod ddl;
pub(super) mod filling;
pub(super) mod lent;
pub(super) mod rows;

use rows::PlainRows;

/// The savepoint of a statement that shares a transaction.
const SET_APART: &str = "SAVEPOINT mainstay_apart";
const UNDO_APART: &str = "ROLLBACK TO mainstay_apart";
const END_APART: &str = "RELEASE mainstay_apart";

/// The writing connection.
pub(super) struct Writer {
    capture: CaptureConnection,
    policy: Policy,
    keys: KeyWatch,
    /// Tables that the running session leaves out.
    excluded: Arc<Mutex<Vec<String>>>,
    parts: Vec<Part>,
    /// While COPY inserts into a plain table: its rows so far, and no session captures.
    rows: Option<PlainRows>,
    savepoints: Vec<Savepoint>,
    /// The AUTOINCREMENT counters when the transaction began.
    sequences: Sequences,
    /// The transaction changed the schema, so what is known of it has to be read again if it is rolled back.
    schema_changed: bool,
    state: State,
    health: Arc<Health>,
    measures: Measures,
}

/// Whether SQLite holds what the WAL holds.
enum State {
    /// It does.
    Agreed,
    /// A record was, or is about to be, appended that SQLite does not have yet. Seen at any other time, it says that a
    /// commit panicked: the next transaction would step over its record.
    Committing,
    /// They could not be brought together, and why; nothing may be written any more.
    Halted(String),
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(super) enum NotCommitted {
    /// By what it did; the log was not asked, or takes no record of this length.
    Unfit(SqlError),
    /// The log does not take records now, or failed.
    Refused(SqlError),
}

impl From<NotCommitted> for SqlError {
    fn from(reason: NotCommitted) -> SqlError {
        match reason {
            NotCommitted::Unfit(error) | NotCommitted::Refused(error) => error,
        }
    }
}

struct Savepoint {
    name: String,
    /// Parts when it was set.
    parts: usize,
}

impl Writer {
    /// Takes over a connection whose schema exists.
    pub(super) fn new(mut connection: Connection, health: Arc<Health>) -> rusqlite::Result<Writer> {
        let policy = Policy::install(&mut connection)?;
        let keys = KeyWatch::install(&mut connection)?;
        keys.refresh(&connection)?;
        Ok(Writer {
            capture: CaptureConnection::new(connection),
            policy,
            keys,
            excluded: Arc::default(),
            parts: Vec::new(),
            rows: None,
            savepoints: Vec::new(),
            sequences: Sequences::new(),
            schema_changed: false,
            state: State::Agreed,
            health,
            measures: Measures::new(),
        })
    }

    fn connection(&self) -> &Connection {
        self.capture.connection()
    }

    /// The connection and the policy on it, to describe a statement in the open transaction.
    pub(super) fn for_describe(&self) -> (&Connection, &Policy) {
        (self.connection(), &self.policy)
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// SQLite refused, or nothing may be written any more.
    pub(super) fn begin(&mut self) -> Result<(), SqlError> {
        if let State::Halted(reason) = &self.state {
            return Err(SqlError::new(SqlState::IO_ERROR, format!("writes are refused until a restart: {reason}")));
        }
        self.own("BEGIN IMMEDIATE")?;
        let started = self.start_capture().and_then(|()| {
            self.sequences = sequences::read(self.connection())?;
            Ok(())
        });
        if let Err(error) = started {
            self.rollback();
            return Err(from_sqlite(&error));
        }
        Ok(())
    }

    /// Ends the transaction, if one is open, as if it had never been.
    pub(super) fn rollback(&mut self) {
        self.undo();
        if matches!(self.state, State::Committing) {
            self.fail("a commit ended before SQLite had what is in the WAL".to_owned());
        }
    }

    fn undo(&mut self) {
        self.capture.stop();
        self.rows = None;
        self.parts.clear();
        self.savepoints.clear();
        if !self.connection().is_autocommit()
            && let Err(error) = self.policy.own(|| self.connection().execute_batch("ROLLBACK"))
        {
            self.fail(format!("a transaction could not be rolled back: {error}"));
        }
        if std::mem::take(&mut self.schema_changed)
            && let Err(error) = self.schema_moved()
        {
            self.fail(format!("the schema could not be read: {error}"));
        }
    }

    /// Whether SQLite ended the transaction by itself, as `INSERT OR ROLLBACK` makes it.
    pub(super) fn is_ended(&self) -> bool {
        self.connection().is_autocommit()
    }

    /// Runs a statement in the open transaction.
    ///
    /// # Errors
    /// It failed; the transaction should be rolled back, whole or to a savepoint.
    pub(super) fn execute(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        self.refuse_among_rows()?;
        let words = command::leading_words(sql);
        let first = words.split(' ').next().unwrap_or_default();
        if matches!(first, "CREATE" | "DROP" | "ALTER" | "REINDEX" | "ANALYZE") {
            return self.execute_ddl(sql, &words, parameters, sink);
        }
        let known = match first {
            "INSERT" | "REPLACE" => Some(Verb::Insert),
            "UPDATE" => Some(Verb::Update),
            "DELETE" => Some(Verb::Delete),
            _ => None,
        };
        self.keys.forget();
        let connection = self.capture.connection();
        let (verb, rows) = if known.is_some() || first == "SELECT" {
            let (mut statement, actions) = self.policy.watch(|| connection.prepare_cached(sql))?;
            if actions.ddl {
                statement.discard();
                return Err(hidden_ddl());
            }
            (known, run(connection, &mut statement, sql, parameters, sink)?)
        } else {
            // WITH may lead any of them: only the authorizer knows, and only of what is not in the cache.
            let (mut statement, actions) = self.policy.watch(|| connection.prepare(sql))?;
            if actions.ddl && statement.is_explain() == 0 {
                if first == "PRAGMA" {
                    drop(statement);
                    return self.execute_ddl(sql, &words, parameters, sink);
                }
                return Err(hidden_ddl());
            }
            let verb = actions.verb.filter(|_| !statement.readonly());
            (verb, run(connection, &mut statement, sql, parameters, sink)?)
        };
        self.keys.check(connection, &[])?;
        let changes = connection.changes();
        Ok(CommandTag(match verb {
            Some(Verb::Insert) => format!("INSERT 0 {changes}"),
            Some(Verb::Update) => format!("UPDATE {changes}"),
            Some(Verb::Delete) => format!("DELETE {changes}"),
            None if first == "EXPLAIN" => words,
            None => format!("SELECT {rows}"),
        }))
    }

    /// Runs a statement that changes rows as a transaction of its own would be, within the open one: if it fails, or leaves a
    /// constraint violated, nothing of it stays.
    ///
    /// The session that captures needs no telling. Of each row it keeps what was there when it was first touched, and asks
    /// at the end what is there now; a row that was put back as it was is no change.
    ///
    /// # Errors
    /// It failed. If [the transaction ended](Writer::is_ended) with it, what ran before is gone too.
    pub(super) fn execute_apart(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        self.own(SET_APART)?;
        let outcome = self.execute(sql, parameters, sink).and_then(|tag| {
            // A transaction of its own would fail at its end.
            match ffi::deferred_foreign_keys(self.connection()).map_err(|error| from_sqlite(&error))? {
                0 => Ok(tag),
                _ => Err(errors::foreign_key()),
            }
        });
        if self.is_ended() {
            return outcome;
        }
        let undone = if outcome.is_err() { self.own(UNDO_APART) } else { Ok(()) };
        if let Err(error) = undone.and_then(|()| self.own(END_APART)) {
            // Where the savepoint stands is not known, so all goes.
            self.rollback();
            return Err(error);
        }
        outcome
    }

    /// Runs a statement of ours, compiled once.
    fn own(&self, sql: &str) -> Result<(), SqlError> {
        let run = || self.connection().prepare_cached(sql)?.execute([]);
        self.policy.own(run).map(drop).map_err(|error| from_sqlite(&error))
    }

    /// Sets a savepoint.
    pub(super) fn savepoint(&mut self, name: &str) -> Result<(), SqlError> {
        self.drain().map_err(|error| from_sqlite(&error))?;
        self.batch(&format!("SAVEPOINT {}", quoted(name)))?;
        self.savepoints.push(Savepoint { name: name.to_owned(), parts: self.parts.len() });
        Ok(())
    }

    /// Forgets a savepoint and those after it, keeping what was done since.
    pub(super) fn release(&mut self, name: &str) -> Result<(), SqlError> {
        let position = self.find(name)?;
        self.batch(&format!("RELEASE {}", quoted(name)))?;
        self.savepoints.truncate(position);
        Ok(())
    }

    /// Undoes what was done since a savepoint, which stays.
    pub(super) fn rollback_to(&mut self, name: &str) -> Result<(), SqlError> {
        let position = self.find(name)?;
        self.batch(&format!("ROLLBACK TO {}", quoted(name)))?;
        self.rows = None;
        self.savepoints.truncate(position + 1);
        if let Some(savepoint) = self.savepoints.last() {
            self.parts.truncate(savepoint.parts);
        }
        let again = self.schema_moved().and_then(|()| self.start_capture());
        again.map_err(|error| from_sqlite(&error))
    }

    /// Nothing would capture what is done now.
    fn refuse_among_rows(&self) -> Result<(), SqlError> {
        match self.rows {
            None => Ok(()),
            Some(_) => Err(SqlError::new(SqlState::INTERNAL_ERROR, "a COPY has not ended")),
        }
    }

    fn find(&self, name: &str) -> Result<usize, SqlError> {
        let same = |savepoint: &Savepoint| savepoint.name.eq_ignore_ascii_case(name);
        self.savepoints.iter().rposition(same).ok_or_else(|| no_savepoint(name))
    }

    fn batch(&self, sql: &str) -> Result<(), SqlError> {
        self.policy.own(|| self.connection().execute_batch(sql)).map_err(|error| from_sqlite(&error))
    }

    fn start_capture(&mut self) -> rusqlite::Result<()> {
        self.excluded.lock().clear();
        self.capture.start(Arc::clone(&self.excluded))
    }

    /// Moves what the session captured into a part and begins a new one, in any case: a session remembers tables that
    /// were touched without effect, and would ask for them after they were dropped.
    fn drain(&mut self) -> rusqlite::Result<()> {
        self.keep_captured()?;
        self.start_capture()
    }

    fn keep_captured(&mut self) -> rusqlite::Result<()> {
        let changeset = self.policy.own(|| self.capture.changeset())?;
        if !changeset.is_empty() {
            self.parts.push(Part::Changeset(changeset));
        }
        Ok(())
    }

    /// Commits the open transaction: WAL first, SQLite second; the caller answers the client third.
    ///
    /// If we die before `append`, nothing happened. Between it and SQLite's COMMIT, replay brings the transaction, if it
    /// became durable. After COMMIT, replay starts behind it, because the LSN is stored in the same transaction.
    ///
    /// # Errors
    /// The transaction left nothing, except for 08007: it is not known whether it did.
    pub(super) fn commit(&mut self, log: &dyn Log) -> Result<(), NotCommitted> {
        let began = Instant::now();
        let payload = self.before_append().inspect_err(|_| self.rollback()).map_err(NotCommitted::Unfit)?;
        let Some(payload) = payload else {
            // Nothing was captured, so nothing may stay: what is not in the WAL is not in SQLite.
            self.rollback();
            return Ok(());
        };
        self.capture.stop();
        self.state = State::Committing;
        let end = match append(log, &payload) {
            Ok(end) => end,
            Err(error) => {
                self.state = State::Agreed;
                self.rollback();
                return Err(error);
            }
        };
        let appended = Instant::now();
        if let Err(error) = log.commit(end) {
            self.undo();
            // The log has told the node itself.
            self.halt(error.to_string());
            return Err(NotCommitted::Refused(unknown(&error)));
        }
        let synced = Instant::now();
        let stored = apply::store_lsn(self.connection(), end);
        let commit = || self.connection().prepare_cached("COMMIT")?.execute([]).map(drop);
        let committed = stored.and_then(|()| self.policy.own(commit));
        if let Err(error) = committed {
            self.commit_from_payload(payload, end, &error);
            return Ok(());
        }
        self.measures.committed(began, appended, synced);
        self.state = State::Agreed;
        self.parts.clear();
        self.savepoints.clear();
        self.schema_changed = false;
        Ok(())
    }

    /// What can still fail without harm.
    fn before_append(&mut self) -> Result<Option<Vec<u8>>, SqlError> {
        if self.is_ended() {
            return Err(SqlError::new(SqlState("40000"), "the transaction was rolled back by one of its statements"));
        }
        self.refuse_among_rows()?;
        let failed = |error: rusqlite::Error| from_sqlite(&error);
        // What stands there is of no meaning yet; that it can be written is.
        apply::store_lsn(self.connection(), Lsn::NONE).map_err(failed)?;
        if ffi::deferred_foreign_keys(self.connection()).map_err(failed)? != 0 {
            return Err(errors::foreign_key());
        }
        self.keep_captured().map_err(failed)?;
        let changes = sequences::changes(&self.sequences, &sequences::read(self.connection()).map_err(failed)?);
        if !changes.is_empty() {
            self.parts.push(Part::Sequences(changes));
        }
        if self.parts.is_empty() {
            return Ok(None);
        }
        let payload = Payload { database: DATABASE, parts: std::mem::take(&mut self.parts) };
        let bytes = payload.encode();
        bytes.map(Some).map_err(|error| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, error.to_string()))
    }

    /// SQLite failed after the WAL committed: the transaction *is* committed, so it is applied as replay would. Nobody
    /// else writes meanwhile, because this writer is still held.
    fn commit_from_payload(&mut self, payload: Vec<u8>, end: Lsn, cause: &rusqlite::Error) {
        tracing::warn!(%end, %cause, "SQLite failed to commit a transaction that is in the WAL; applying it from there");
        self.health.note(cause);
        self.schema_changed = true;
        self.undo();
        // The record's start is known to the log alone; it only serves error messages here.
        let record = Record { start: end, end, payload };
        let applied = self.policy.own(|| apply::apply(self.connection(), &[record]));
        match applied.and_then(|()| Ok(self.schema_moved()?)) {
            Ok(()) => self.state = State::Agreed,
            Err(error) => {
                self.fail(format!("a committed transaction could not be put into SQLite ({cause}; {error})"));
            }
        }
    }

    /// Learns the schema again. Compiled statements go: SQLite would compile them anew only while they run, after their
    /// columns were announced.
    fn schema_moved(&self) -> rusqlite::Result<()> {
        self.connection().flush_prepared_statement_cache();
        self.keys.refresh(self.connection())
    }

    /// Nothing may be written any more.
    fn halt(&mut self, reason: String) {
        tracing::error!(%reason, "no more writes until a restart");
        if !matches!(self.state, State::Halted(_)) {
            self.state = State::Halted(reason);
        }
    }

    /// Nothing may be written any more, nor is what can be read what clients were told: this node must stop. At the next
    /// start, replay brings the two together.
    fn fail(&mut self, reason: String) {
        self.health.fail(&reason);
        self.halt(reason);
    }

    /// Applies records from the WAL; no transaction is open.
    pub(super) fn apply(&mut self, records: &[Record]) -> Result<(), apply::ApplyError> {
        let applied = self.policy.own(|| apply::apply(self.connection(), records));
        self.schema_moved()?;
        applied
    }
}

fn run(
    connection: &Connection,
    statement: &mut rusqlite::Statement<'_>,
    sql: &str,
    parameters: &[OwnedValue],
    sink: &mut dyn ResultSink,
) -> Result<u64, SqlError> {
    values::bind(statement, sql, parameters)?;
    let columns = values::columns(connection, statement, sql);
    values::run(statement, &columns, sink)
}

/// No savepoint of that name.
pub(super) fn no_savepoint(name: &str) -> SqlError {
    SqlError::new(SqlState("3B001"), format!("savepoint \"{name}\" does not exist"))
}

/// SQLite takes the statement for more than its first word says.
fn hidden_ddl() -> SqlError {
    policy::refused("a statement that changes the schema begins with CREATE, DROP, ALTER, REINDEX or ANALYZE")
}

fn unknown(error: &CommitError) -> SqlError {
    SqlError::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, error.to_string())
}

/// The disk may show free space nevertheless: some is kept for what must go on.
fn disk_full(log: &dyn Log, error: &AppendError) -> SqlError {
    let told = SqlError::new(SqlState::DISK_FULL, error.to_string());
    match log.status() {
        Ok(Some(status)) => {
            let (free, reserve) = (status.free_bytes, status.reserve_bytes);
            told.with_detail(format!("{free} bytes are free, and {reserve} bytes are kept in reserve."))
        }
        Ok(None) | Err(_) => told,
    }
}

fn append(log: &dyn Log, payload: &[u8]) -> Result<Lsn, NotCommitted> {
    loop {
        let error = match log.append(payload) {
            Ok(end) => return Ok(end),
            // Others fill the log as fast as it drains; each round waits for room, so this ends or fails.
            Err(AppendError::Busy { .. }) => match log.room(payload.len()) {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(error) => error,
        };
        let refused = |state| NotCommitted::Refused(SqlError::new(state, error.to_string()));
        return Err(match &error {
            AppendError::TooLarge { .. } => {
                NotCommitted::Unfit(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, error.to_string()))
            }
            AppendError::DiskFull => NotCommitted::Refused(disk_full(log, &error)),
            AppendError::Fenced => refused(SqlState::READ_ONLY_SQL_TRANSACTION),
            // The log may hold it, and replay it at the next start.
            AppendError::Unknown(_) => refused(SqlState::TRANSACTION_RESOLUTION_UNKNOWN),
            _ => refused(SqlState::IO_ERROR),
        });
    }
}
