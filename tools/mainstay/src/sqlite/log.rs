//! What the writer needs of the WAL.

use mainstay::lsn::Lsn;
use mainstay::node::Primary;
use mainstay::wal::{AppendError, CommitError, WalError, WalStatus};

/// The log as the writer sees it: the node's, or one in memory whose records a test replays.
pub(super) trait Log: Send + Sync {
    /// Puts a record into the log and says where it ends. Never waits.
    fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError>;
    /// Waits until there is room for a record.
    fn room(&self, len_bytes: usize) -> Result<(), AppendError>;
    /// Waits until everything before `end` is committed.
    fn commit(&self, end: Lsn) -> Result<(), CommitError>;
    /// Where it stands, if it is one that stands anywhere.
    ///
    /// # Errors
    /// The free space of its disk cannot be read.
    fn status(&self) -> Result<Option<WalStatus>, WalError> {
        Ok(None)
    }
}

impl Log for Primary {
    fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        Primary::append(self, payload)
    }

    fn room(&self, len_bytes: usize) -> Result<(), AppendError> {
        self.room_blocking(len_bytes)
    }

    fn commit(&self, end: Lsn) -> Result<(), CommitError> {
        self.commit_blocking(end)
    }

    fn status(&self) -> Result<Option<WalStatus>, WalError> {
        self.log_status().map(Some)
    }
}
