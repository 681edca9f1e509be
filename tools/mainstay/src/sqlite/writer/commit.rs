//! The end of a transaction.
//!
//! **The order** ([`Writer::commit`]): nothing enters SQLite's files before it is committed in the WAL.

use std::time::Instant;

use mainstay::lsn::Lsn;
use mainstay::server::pg::{SqlError, SqlState};
use mainstay::wal::{AppendError, CommitError, Record};

use super::super::errors::{self, from_sqlite};
use super::super::log::Log;
use super::super::payload::{Part, Payload};
use super::super::{DATABASE, apply, ffi, sequences};
use super::{State, Writer};

/// Why a transaction was not committed.
#[derive(Debug)]
pub(in super::super) enum NotCommitted {
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

impl Writer {
    /// Commits the open transaction: WAL first, SQLite second; the caller answers the client third.
    ///
    /// If we die before `append`, nothing happened. Between it and SQLite's COMMIT, replay brings the transaction, if it
    /// became durable. After COMMIT, replay starts behind it, because the LSN is stored in the same transaction.
    ///
    /// # Errors
    /// The transaction left nothing, except for 08007: it is not known whether it did.
    pub(in super::super) fn commit(&mut self, log: &dyn Log) -> Result<(), NotCommitted> {
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
        if self.must_undo {
            return Err(SqlError::new(SqlState::INTERNAL_ERROR, "a statement failed, and was not undone"));
        }
        self.capture.check()?;
        let failed = |error: rusqlite::Error| from_sqlite(&error);
        // What stands there is of no meaning yet; that it can be written is.
        apply::store_lsn(self.connection(), Lsn::NONE).map_err(failed)?;
        if ffi::deferred_foreign_keys(self.connection()).map_err(failed)? != 0 {
            return Err(errors::foreign_key());
        }
        self.drain();
        let changes = sequences::changes(&self.sequences, &self.counters().map_err(failed)?);
        if !changes.is_empty() {
            self.parts.push(Part::Sequences(changes));
        }
        if self.parts.is_empty() {
            return Ok(None);
        }
        let payload = Payload { database: DATABASE, parts: self.parts.take() };
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
        self.schema_moved();
        match applied {
            Ok(()) => self.state = State::Agreed,
            Err(error) => {
                self.fail(format!("a committed transaction could not be put into SQLite ({cause}; {error})"));
            }
        }
    }
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
