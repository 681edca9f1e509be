//! The one connection that writes, and what its open transaction did so far.
//!
//! A transaction becomes an ordered list of parts. Row changes gather in SQLite's session and are drained into a part
//! before each DDL statement and at each savepoint, so that the list up to a savepoint is exactly what rolling back
//! to it leaves.
//!
//! **The order of a commit** ([`Writer::commit`]): nothing enters SQLite's files before it is committed in the WAL.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay::lsn::Lsn;
use mainstay::server::pg::{CommandTag, OwnedValue, ResultSink, SqlError, SqlState};
use mainstay::wal::{AppendError, CommitError, Record};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};

use super::errors::{self, from_sqlite};
use super::ffi::{self, CaptureConnection};
use super::keys::{KeyWatch, UNTYPED, quoted};
use super::log::Log;
use super::payload::{Part, Payload, SequenceChange};
use super::policy::{self, Actions, Policy, Verb};
use super::{DATABASE, RESERVED_PREFIX, STATE_TABLE, apply, command, values};

/// The writing connection.
pub(super) struct Writer {
    capture: CaptureConnection,
    policy: Policy,
    keys: KeyWatch,
    /// Tables that the running session leaves out.
    excluded: Arc<Mutex<Vec<String>>>,
    parts: Vec<Part>,
    savepoints: Vec<Savepoint>,
    /// The AUTOINCREMENT counters when the transaction began.
    sequences: Sequences,
    /// The transaction changed the schema, so what is known of it has to be read again if it is rolled back.
    schema_changed: bool,
    /// Why nothing may be written any more: SQLite's files and the WAL could not be brought together.
    halted: Option<String>,
}

struct Savepoint {
    name: String,
    /// Parts when it was set.
    parts: usize,
}

type Sequences = BTreeMap<String, i64>;

impl Writer {
    /// Takes over a connection whose schema exists.
    pub(super) fn new(mut connection: Connection) -> rusqlite::Result<Writer> {
        let policy = Policy::install(&mut connection)?;
        let keys = KeyWatch::install(&mut connection)?;
        keys.refresh(&connection)?;
        Ok(Writer {
            capture: CaptureConnection::new(connection),
            policy,
            keys,
            excluded: Arc::default(),
            parts: Vec::new(),
            savepoints: Vec::new(),
            sequences: Sequences::new(),
            schema_changed: false,
            halted: None,
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
        if let Some(reason) = &self.halted {
            return Err(SqlError::new(SqlState::IO_ERROR, format!("writes are refused until a restart: {reason}")));
        }
        self.connection().execute_batch("BEGIN IMMEDIATE").map_err(|error| from_sqlite(&error))?;
        let started = self.start_capture().and_then(|()| {
            self.sequences = sequences(self.connection())?;
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
        self.capture.stop();
        self.parts.clear();
        self.savepoints.clear();
        if !self.connection().is_autocommit()
            && let Err(error) = self.connection().execute_batch("ROLLBACK")
        {
            self.halt(format!("a transaction could not be rolled back: {error}"));
        }
        if std::mem::take(&mut self.schema_changed)
            && let Err(error) = self.schema_moved()
        {
            self.halt(format!("the schema could not be read: {error}"));
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
        let words = command::leading_words(sql);
        let first = words.split(' ').next().unwrap_or_default();
        if matches!(first, "CREATE" | "DROP" | "ALTER" | "REINDEX" | "ANALYZE") {
            return self.execute_ddl(sql, &words, sink);
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
            let (mut statement, _) = self.policy.watch(|| connection.prepare_cached(sql))?;
            (known, run(&mut statement, sql, parameters, sink)?)
        } else {
            // WITH may lead any of them: only the authorizer knows, and only of what is not in the cache.
            let (mut statement, actions) = self.policy.watch(|| connection.prepare(sql))?;
            let verb = actions.verb.filter(|_| !statement.readonly());
            (verb, run(&mut statement, sql, parameters, sink)?)
        };
        self.keys.check(connection)?;
        let changes = connection.changes();
        Ok(CommandTag(match verb {
            Some(Verb::Insert) => format!("INSERT 0 {changes}"),
            Some(Verb::Update) => format!("UPDATE {changes}"),
            Some(Verb::Delete) => format!("DELETE {changes}"),
            None if first == "EXPLAIN" => words,
            None => format!("SELECT {rows}"),
        }))
    }

    fn execute_ddl(&mut self, sql: &str, words: &str, sink: &mut dyn ResultSink) -> Result<CommandTag, SqlError> {
        if words == "CREATE TABLE" && command::has_conflict_clause(sql) {
            let refusal =
                policy::refused("ON CONFLICT in a table's definition is not supported: it would act again at replay");
            return Err(refusal.with_hint("Write INSERT OR …, or INSERT … ON CONFLICT, in the statements instead."));
        }
        self.drain().map_err(|error| from_sqlite(&error))?;
        self.schema_changed = true;
        let outcome = self.run_ddl(sql, sink);
        if outcome.is_err() && !self.is_ended() {
            // What the statement did is undone; the rest of the transaction is in the parts.
            self.start_capture().map_err(|error| from_sqlite(&error))?;
        }
        outcome?;
        Ok(CommandTag(words.to_owned()))
    }

    /// DROP TABLE deletes the rows first, which foreign keys may carry on to other tables. Replay has foreign keys off, so
    /// those changes travel as a changeset behind the statement; those of the dropped table itself do not.
    fn run_ddl(&mut self, sql: &str, sink: &mut dyn ResultSink) -> Result<(), SqlError> {
        let connection = self.capture.connection();
        let (mut statement, actions): (_, Actions) = self.policy.watch(|| connection.prepare(sql))?;
        *self.excluded.lock() = actions.dropped.clone();
        run(&mut statement, sql, &[], sink)?;
        drop(statement);
        let failed = |error: rusqlite::Error| from_sqlite(&error);
        let carried = if actions.dropped.is_empty() { Vec::new() } else { self.capture.changeset().map_err(failed)? };
        check_schema(self.connection())?;
        if actions.ddl {
            self.parts.push(Part::Ddl(sql.to_owned()));
        }
        if !carried.is_empty() {
            self.parts.push(Part::Changeset(carried));
        }
        self.schema_moved().map_err(failed)?;
        self.start_capture().map_err(failed)
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
        self.savepoints.truncate(position + 1);
        if let Some(savepoint) = self.savepoints.last() {
            self.parts.truncate(savepoint.parts);
        }
        let again = self.schema_moved().and_then(|()| self.start_capture());
        again.map_err(|error| from_sqlite(&error))
    }

    fn find(&self, name: &str) -> Result<usize, SqlError> {
        let same = |savepoint: &Savepoint| savepoint.name.eq_ignore_ascii_case(name);
        self.savepoints.iter().rposition(same).ok_or_else(|| no_savepoint(name))
    }

    fn batch(&self, sql: &str) -> Result<(), SqlError> {
        self.connection().execute_batch(sql).map_err(|error| from_sqlite(&error))
    }

    fn start_capture(&mut self) -> rusqlite::Result<()> {
        self.excluded.lock().clear();
        self.capture.start(Arc::clone(&self.excluded))
    }

    /// Moves what the session captured into a part.
    fn drain(&mut self) -> rusqlite::Result<()> {
        let changeset = self.capture.changeset()?;
        if !changeset.is_empty() {
            self.parts.push(Part::Changeset(changeset));
            self.start_capture()?;
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
    pub(super) fn commit(&mut self, log: &dyn Log) -> Result<(), SqlError> {
        let payload = self.before_append().inspect_err(|_| self.rollback())?;
        let Some(payload) = payload else {
            // Nothing was captured, so nothing may stay: what is not in the WAL is not in SQLite.
            self.rollback();
            return Ok(());
        };
        self.capture.stop();
        let end = append(log, &payload).inspect_err(|_| self.rollback())?;
        if let Err(error) = log.commit(end) {
            self.rollback();
            self.halt(error.to_string());
            return Err(unknown(&error));
        }
        let stored = apply::store_lsn(self.connection(), end);
        let committed = stored.and_then(|()| self.connection().execute_batch("COMMIT"));
        if let Err(error) = committed {
            self.commit_from_payload(payload, end, &error);
            return Ok(());
        }
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
        let failed = |error: rusqlite::Error| from_sqlite(&error);
        if ffi::deferred_foreign_keys(self.connection()).map_err(failed)? != 0 {
            return Err(errors::foreign_key());
        }
        self.drain().map_err(failed)?;
        let changes = sequence_changes(&self.sequences, &sequences(self.connection()).map_err(failed)?);
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
        self.schema_changed = true;
        self.rollback();
        // The record's start is known to the log alone; it only serves error messages here.
        let record = Record { start: end, end, payload };
        let applied = apply::apply(self.connection(), &[record]);
        if let Err(error) = applied
            .map_err(|error| error.to_string())
            .and_then(|()| self.schema_moved().map_err(|error| error.to_string()))
        {
            self.halt(format!("a committed transaction could not be put into SQLite ({cause}; {error})"));
        }
    }

    /// Learns the schema again. Compiled statements go: SQLite would compile them anew only while they run, after their
    /// columns were announced.
    fn schema_moved(&self) -> rusqlite::Result<()> {
        self.connection().flush_prepared_statement_cache();
        self.keys.refresh(self.connection())
    }

    fn halt(&mut self, reason: String) {
        tracing::error!(%reason, "no more writes until a restart");
        self.halted.get_or_insert(reason);
    }

    /// Applies records from the WAL; no transaction is open.
    pub(super) fn apply(&mut self, records: &[Record]) -> Result<(), apply::ApplyError> {
        let applied = apply::apply(self.connection(), records);
        self.schema_moved()?;
        applied
    }
}

fn run(
    statement: &mut rusqlite::Statement<'_>,
    sql: &str,
    parameters: &[OwnedValue],
    sink: &mut dyn ResultSink,
) -> Result<u64, SqlError> {
    values::bind(statement, sql, parameters)?;
    let columns = values::columns(statement, sql);
    values::run(statement, &columns, sink)
}

/// No savepoint of that name.
pub(super) fn no_savepoint(name: &str) -> SqlError {
    SqlError::new(SqlState("3B001"), format!("savepoint \"{name}\" does not exist"))
}

fn unknown(error: &CommitError) -> SqlError {
    SqlError::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, error.to_string())
}

fn append(log: &dyn Log, payload: &[u8]) -> Result<Lsn, SqlError> {
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
        let state = match &error {
            AppendError::DiskFull => SqlState::DISK_FULL,
            AppendError::TooLarge { .. } => SqlState::PROGRAM_LIMIT_EXCEEDED,
            AppendError::Fenced => SqlState::READ_ONLY_SQL_TRANSACTION,
            _ => SqlState::IO_ERROR,
        };
        return Err(SqlError::new(state, error.to_string()));
    }
}

/// What the schema must not contain after a DDL statement, whatever the statement was.
fn check_schema(connection: &Connection) -> Result<(), SqlError> {
    let failed = |error: rusqlite::Error| from_sqlite(&error);
    let own = "SELECT name FROM sqlite_schema WHERE lower(substr(name, 1, length(?1))) = ?1 AND name <> ?2";
    let mut statement = connection.prepare_cached(own).map_err(failed)?;
    let prefix = RESERVED_PREFIX;
    let mut rows = statement.query((prefix, STATE_TABLE)).map_err(failed)?;
    if let Some(row) = rows.next().map_err(failed)? {
        return Err(policy::reserved(&row.get::<_, String>(0).map_err(failed)?));
    }
    if let Some(table) = collating_key(connection).map_err(failed)? {
        let message = format!("the primary key of table \"{table}\" has a collation other than BINARY");
        return Err(policy::refused(message).with_hint("Use a UNIQUE constraint with that collation beside the key."));
    }
    if let Some(table) = untyped_key(connection).map_err(failed)? {
        let message = format!("the primary key of table \"{table}\", which is WITHOUT ROWID, has a column of no type");
        return Err(policy::refused(message).with_hint("Declare a type: 1 and 1.0 must not be two keys."));
    }
    // A session tells rows of a table without a key apart by their `_rowid_`, which must then be the real one.
    let hidden = "SELECT t.name FROM pragma_table_list t, pragma_table_xinfo(t.name) c \
                  WHERE t.schema = 'main' AND t.type = 'table' \
                  GROUP BY t.name HAVING max(c.pk) = 0 AND max(c.name = '_rowid_' COLLATE NOCASE)";
    let mut statement = connection.prepare_cached(hidden).map_err(failed)?;
    let mut rows = statement.raw_query();
    let Some(row) = rows.next().map_err(failed)? else { return Ok(()) };
    let table: String = row.get(0).map_err(failed)?;
    let message =
        format!("table \"{table}\" has no primary key and a column called _rowid_, which hides the key it has");
    Err(policy::refused(message).with_hint("Declare a primary key, or choose another name."))
}

/// A session tells rows apart by the bytes of their keys, SQLite by the key's collation: a key changed from `A` to `a` would
/// be one row to SQLite and two in the changeset, which then fits nowhere. ([`KeyWatch`] sees to 1 and 1.0.)
fn collating_key(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT t.name FROM pragma_table_list t, pragma_index_list(t.name) i, pragma_index_xinfo(i.name) c \
               WHERE t.schema = 'main' AND t.type = 'table' AND i.origin = 'pk' AND c.key = 1 \
               AND c.coll <> 'BINARY' COLLATE NOCASE LIMIT 1";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
}

/// In such a key 1 and 1.0 are equal to SQLite and two rows to a session. Rows of other tables are watched one by one, but
/// SQLite does not tell which row of these was written.
fn untyped_key(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = format!(
        "SELECT t.name FROM pragma_table_list t, pragma_table_xinfo(t.name) c \
         WHERE t.schema = 'main' AND t.wr = 1 AND c.pk > 0 AND {UNTYPED} LIMIT 1"
    );
    connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()
}

fn sequences(connection: &Connection) -> rusqlite::Result<Sequences> {
    // The table comes with the first AUTOINCREMENT and never goes.
    if !connection.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")?.exists([])? {
        return Ok(Sequences::new());
    }
    let mut statement = connection.prepare_cached("SELECT name, seq FROM sqlite_sequence")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn sequence_changes(before: &Sequences, after: &Sequences) -> Vec<SequenceChange> {
    let gone = before.keys().filter(|table| !after.contains_key(*table));
    let gone = gone.map(|table| SequenceChange { table: table.clone(), value: None });
    let moved = after.iter().filter(|(table, value)| before.get(*table) != Some(*value));
    gone.chain(moved.map(|(table, value)| SequenceChange { table: table.clone(), value: Some(*value) })).collect()
}
