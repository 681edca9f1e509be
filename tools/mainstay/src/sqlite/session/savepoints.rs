//! The savepoints of a transaction: found by name, and set on the writer once it takes part.

use mainstay::server::pg::{SqlError, SqlState};

use super::super::control::revoked;
use super::super::writer::{Writer, no_savepoint};
use super::Transaction;

impl Transaction {
    pub(super) fn find(&self, name: &str) -> Result<usize, SqlError> {
        if self.lost {
            let message = "the transaction was rolled back by one of its statements and can only be ended";
            return Err(SqlError::new(SqlState::IN_FAILED_SQL_TRANSACTION, message));
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
