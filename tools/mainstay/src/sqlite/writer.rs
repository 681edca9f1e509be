//! The one connection that writes, and what its open transaction did so far.
//!
//! A transaction becomes an ordered list of parts. Row changes gather as they are [captured](super::captured) and are drained
//! into a part before each DDL statement and at each savepoint, so that the list up to a savepoint is exactly what rolling back
//! to it leaves. What all of them take together is bounded ([`parts`]): nothing but a record takes them off.
//!
//! How it is committed is in [`commit`].

use std::sync::Arc;

use mainstay::server::pg::{CommandTag, OwnedValue, ResultSink, SqlError, SqlState};
use mainstay::wal::Record;
use rusqlite::{Connection, ErrorCode};

use super::captured::Capture;
use super::catalog::Home;
use super::errors::{self, from_sqlite};
use super::ffi;
use super::health::Health;
use super::measures::Measures;
use super::names::quoted;
use super::payload::Part;
use super::policy::{self, Policy, Verb};
use super::sequences::Sequences;
use super::{apply, command, sequences, values};

mod commit;
mod ddl;
pub(super) mod filling;
pub(super) mod lent;
mod parts;
pub(super) mod rows;

pub(super) use commit::NotCommitted;
use parts::Parts;
use rows::PlainRows;

/// The savepoint of a statement that shares a transaction.
const SET_APART: &str = "SAVEPOINT mainstay_apart";
const UNDO_APART: &str = "ROLLBACK TO mainstay_apart";
const END_APART: &str = "RELEASE mainstay_apart";

/// The writing connection.
pub(super) struct Writer {
    connection: Connection,
    capture: Capture,
    policy: Policy,
    parts: Parts,
    /// While COPY inserts into a plain table: its rows so far, and nothing else is captured.
    rows: Option<PlainRows>,
    /// A statement that may change something has begun, and did not succeed: what it did may still be there, or be captured though
    /// SQLite undid it, so it has to be undone before anything is committed. What was not even compiled, and what only reads,
    /// leaves nothing, however it fails.
    must_undo: bool,
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

struct Savepoint {
    name: String,
    /// Parts when it was set.
    parts: usize,
}

impl Writer {
    /// Takes over a connection whose schema exists.
    pub(super) fn new(mut connection: Connection, health: Arc<Health>) -> rusqlite::Result<Writer> {
        let policy = Policy::install(&mut connection)?;
        let capture = Capture::install(&mut connection)?;
        Ok(Writer {
            connection,
            capture,
            policy,
            parts: Parts::default(),
            rows: None,
            must_undo: false,
            savepoints: Vec::new(),
            sequences: Sequences::new(),
            schema_changed: false,
            state: State::Agreed,
            health,
            measures: Measures::new(),
        })
    }

    fn connection(&self) -> &Connection {
        &self.connection
    }

    #[cfg(test)]
    pub(super) fn limit_to(&self, len_bytes: usize) {
        self.capture.limit_to(len_bytes);
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
            self.sequences = self.counters()?;
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
        self.must_undo = false;
        if !self.connection().is_autocommit()
            && let Err(error) = self.roll_back()
        {
            self.fail(format!("a transaction could not be rolled back: {error}"));
        }
        if std::mem::take(&mut self.schema_changed) {
            self.schema_moved();
        }
    }

    /// Ends SQLite's transaction. An interrupt for the statement before may come so late that it meets this; SQLite forgets it
    /// with that, so each costs one more try.
    fn roll_back(&self) -> rusqlite::Result<()> {
        loop {
            let outcome = self.policy.own(|| self.connection().execute_batch("ROLLBACK"));
            let code = outcome.as_ref().err().and_then(rusqlite::Error::sqlite_error_code);
            if code != Some(ErrorCode::OperationInterrupted) {
                return outcome;
            }
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
        let before = self.must_undo;
        let outcome = self.run_statement(sql, parameters, sink);
        if outcome.is_ok() {
            self.must_undo = before;
        }
        outcome
    }

    fn run_statement(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
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
        let connection = &self.connection;
        let (verb, rows) = if known.is_some() || first == "SELECT" {
            let (mut statement, actions) = self.policy.watch(|| connection.prepare_cached(sql))?;
            if actions.ddl {
                statement.discard();
                return Err(hidden_ddl());
            }
            self.must_undo |= !statement.readonly();
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
            self.must_undo |= !statement.readonly();
            let verb = actions.verb.filter(|_| !statement.readonly());
            (verb, run(connection, &mut statement, sql, parameters, sink)?)
        };
        self.capture.check()?;
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
    /// # Errors
    /// It failed. If [the transaction ended](Writer::is_ended) with it, what ran before is gone too.
    pub(super) fn execute_apart(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        self.own(SET_APART)?;
        let mark = self.capture.mark();
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
        if outcome.is_err() {
            self.capture.back_to(&mark);
            self.must_undo = false;
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
        self.drain();
        self.batch(&format!("SAVEPOINT {}", quoted(name)))?;
        self.savepoints.push(Savepoint { name: name.to_owned(), parts: self.parts.count() });
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
        if self.schema_changed {
            self.schema_moved();
        }
        self.start_capture().map_err(|error| from_sqlite(&error))?;
        self.must_undo = false;
        Ok(())
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
        self.capture.start(&self.connection, Vec::new(), self.parts.len_bytes())
    }

    /// Moves what was captured into a part.
    fn drain(&mut self) {
        let changeset = self.capture.take();
        if !changeset.is_empty() {
            self.parts.push(Part::Changeset(changeset));
            self.capture.note_before(self.parts.len_bytes());
        }
    }

    /// Where the AUTOINCREMENT counters stand.
    fn counters(&self) -> rusqlite::Result<Sequences> {
        if self.capture.has_counters() { sequences::read(&self.connection) } else { Ok(Sequences::new()) }
    }

    /// Learns the schema again. Compiled statements go: SQLite would compile them anew only while they run, after their
    /// columns were announced.
    fn schema_moved(&self) {
        self.connection().flush_prepared_statement_cache();
        self.capture.schema_moved();
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
        self.schema_moved();
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
    values::run(statement, &columns, sink, |error| errors::of_statement(connection, Home::Stored, error))
}

/// No savepoint of that name.
pub(super) fn no_savepoint(name: &str) -> SqlError {
    SqlError::new(SqlState("3B001"), format!("savepoint \"{name}\" does not exist"))
}

/// SQLite takes the statement for more than its first word says.
fn hidden_ddl() -> SqlError {
    policy::refused("a statement that changes the schema begins with CREATE, DROP, ALTER, REINDEX or ANALYZE")
}
