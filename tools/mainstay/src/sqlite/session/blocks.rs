//! Transaction blocks: how one begins and ends, and the modes it has.

use mainstay::server::pg::{ResultSink, Severity, SqlError, SqlState};

use super::super::command::{self, Asked};
use super::super::policy;
use super::{SqliteSession, Transaction};

impl SqliteSession {
    pub(super) fn begin(&mut self, modes: Asked, sink: &mut dyn ResultSink) -> Result<(), SqlError> {
        let Some(transaction) = &mut self.transaction else {
            self.open(true, self.defaults.with(modes));
            return Ok(());
        };
        if transaction.block {
            let message = "there is already a transaction in progress";
            sink.notice(&warning(SqlState::ACTIVE_SQL_TRANSACTION, message))?;
        }
        transaction.modes = transaction.modes.changed(modes, transaction.started)?;
        // What ran before in the same query string becomes part of the block.
        transaction.block = true;
        Ok(())
    }

    pub(super) fn end_block(
        &mut self,
        commit: bool,
        chain: bool,
        sink: &mut dyn ResultSink,
    ) -> Result<&'static str, SqlError> {
        let modes = self.modes();
        if !self.transaction.as_ref().is_some_and(|transaction| transaction.block) {
            let message = "there is no transaction in progress";
            sink.notice(&warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, message))?;
        }
        let committed = self.end(commit)?;
        if chain {
            self.open(true, modes);
        }
        Ok(if committed { "COMMIT" } else { "ROLLBACK" })
    }

    pub(super) fn block(&mut self, what: &str) -> Result<&mut Transaction, SqlError> {
        self.transaction.as_mut().filter(|transaction| transaction.block).ok_or_else(|| {
            let message = format!("{what} can only be used in transaction blocks");
            SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, message)
        })
    }

    pub(super) fn set_transaction(&mut self, modes: Asked, sink: &mut dyn ResultSink) -> Result<(), SqlError> {
        let Some(transaction) = &mut self.transaction else {
            let message = "SET TRANSACTION can only be used in transaction blocks";
            return sink.notice(&warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, message));
        };
        transaction.modes = transaction.modes.changed(modes, transaction.started)?;
        Ok(())
    }

    pub(super) fn set_defaults(&mut self, modes: Asked) -> Result<(), SqlError> {
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.savepoints.is_empty()) {
            // Rolling back to it would have to bring the old ones back.
            return Err(policy::refused("the default modes of transactions cannot be changed after a savepoint"));
        }
        self.defaults = self.defaults.with(modes);
        Ok(())
    }
}

pub(super) fn warning(state: SqlState, message: &str) -> SqlError {
    SqlError { severity: Severity::Warning, ..SqlError::new(state, message) }
}

pub(super) fn read_only(sql: &str) -> SqlError {
    let message = format!("cannot execute {} in a read-only transaction", command::leading_words(sql));
    SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, message)
}
