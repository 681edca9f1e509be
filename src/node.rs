//! The node.

use crate::lsn::{Epoch, Lsn};
use crate::wal::{AppendError, CommitError};

/// The right to write: held by the engine of the primary, and void once it is not the primary any more.
pub struct Primary {}

impl Primary {
    /// The epoch in which this node is primary.
    pub fn epoch(&self) -> Epoch {
        todo!()
    }

    /// Puts one record into the log and answers where it ends. Never waits. From here on the transaction only goes
    /// forward.
    ///
    /// # Errors
    /// Nothing was appended; [`AppendError`] says what to do.
    pub fn append(&self, _payload: &[u8]) -> Result<Lsn, AppendError> {
        todo!()
    }

    /// Waits until a record of `len_bytes` would not be [`AppendError::Busy`].
    ///
    /// # Errors
    /// Waiting is pointless; [`AppendError`] says why.
    pub fn room_blocking(&self, _len_bytes: usize) -> Result<(), AppendError> {
        todo!()
    }

    /// Waits until everything before `end` is committed.
    ///
    /// # Errors
    /// It is unknown whether it is, and [`CommitError`] says why.
    pub fn commit_blocking(&self, _end: Lsn) -> Result<(), CommitError> {
        todo!()
    }
}
