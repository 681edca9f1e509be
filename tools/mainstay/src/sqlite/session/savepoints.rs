//! The savepoints of a transaction: found by name, and set on the writer once it takes part. And what to do when SQLite has
//! ended something by itself, so that there is no way back to any.

use mainstay::server::pg::{SqlError, SqlState};

use super::super::control::revoked;
use super::super::writer::{Writer, no_savepoint};
use super::reader::Reader;
use super::temporary::Temporary;
use super::{SqliteSession, Transaction};

/// So many may stand at once. SQLite keeps for each which pages changed since, and looks at all of them when one changes.
const MAX_SAVEPOINTS: usize = 65_536;

impl Transaction {
    pub(super) fn find(&self, name: &str) -> Result<usize, SqlError> {
        if self.lost {
            return Err(lost());
        }
        let same = |savepoint: &String| savepoint.eq_ignore_ascii_case(name);
        self.savepoints.iter().rposition(same).ok_or_else(|| no_savepoint(name))
    }

    /// Does the same on the writer, if it takes part.
    pub(super) fn on_writer(&self, work: impl FnOnce(&mut Writer) -> Result<(), SqlError>) -> Result<(), SqlError> {
        let Some(turn) = &self.turn else { return Ok(()) };
        work(&mut *turn.writer().ok_or_else(revoked)?)
    }
}

/// SQLite ended something of the transaction, so that the rest cannot go on.
pub(super) fn lost() -> SqlError {
    let message = "the transaction was rolled back by one of its statements and can only be ended";
    SqlError::new(SqlState::IN_FAILED_SQL_TRANSACTION, message)
}

impl SqliteSession {
    /// SQLite may have ended what the transaction holds beside the writer. Without, nothing of it may go on.
    pub(super) fn note_losses(&mut self) {
        let of_reader = self.reader.as_ref().is_some_and(Reader::has_lost_state);
        if (of_reader || self.temporary.as_ref().is_some_and(Temporary::has_lost_transaction))
            && let Some(transaction) = &mut self.transaction
        {
            transaction.lost = true;
            transaction.failed = true;
            transaction.turn = None;
        }
    }

    pub(super) fn savepoint(&mut self, name: String) -> Result<&'static str, SqlError> {
        let block = self.block("SAVEPOINT")?;
        if block.savepoints.len() >= MAX_SAVEPOINTS {
            let message = format!("a transaction cannot have more than {MAX_SAVEPOINTS} savepoints");
            let told = SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message);
            return Err(told.with_hint("RELEASE those that are not needed any more."));
        }
        block.on_writer(|writer| writer.savepoint(&name))?;
        block.savepoints.push(name.clone());
        self.at_temporary_savepoint("SAVEPOINT", &name)?;
        self.timeouts.savepoint();
        Ok("SAVEPOINT")
    }

    pub(super) fn release(&mut self, name: &str) -> Result<&'static str, SqlError> {
        let block = self.block("RELEASE SAVEPOINT")?;
        let position = block.find(name)?;
        block.on_writer(|writer| writer.release(name))?;
        block.savepoints.truncate(position);
        self.at_temporary_savepoint("RELEASE", name)?;
        self.timeouts.release(position);
        Ok("RELEASE")
    }

    pub(super) fn roll_back_to(&mut self, name: &str) -> Result<&'static str, SqlError> {
        let block = self.block("ROLLBACK TO SAVEPOINT")?;
        let position = block.find(name)?;
        block.on_writer(|writer| writer.rollback_to(name))?;
        block.savepoints.truncate(position + 1);
        block.failed = false;
        self.at_temporary_savepoint("ROLLBACK TO", name)?;
        self.timeouts.roll_back_to(position);
        Ok("ROLLBACK")
    }
}
