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

/// A node that is open. Dropping it without [`shutdown`](Node::shutdown) stops it as a crash would.
pub struct Node<E> {
    _engine: std::sync::Arc<E>,
}

/// Why a node did not open, or what stopped it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {}

impl<E: crate::engine::Engine> Node<E> {
    /// Opens the node.
    ///
    /// # Errors
    /// It cannot run; the message is one line that says why.
    pub async fn open(
        _config: crate::config::NodeConfig,
        _open_engine: impl Fn(&std::path::Path) -> Result<E, crate::engine::EngineError> + Send + Sync + 'static,
    ) -> Result<Node<E>, NodeError> {
        todo!()
    }

    /// The engine.
    pub fn engine(&self) -> &std::sync::Arc<E> {
        todo!()
    }

    /// Resolves if the node fails while it runs, such as after a failed sync; the node should then be shut down.
    pub async fn failed(&self) -> NodeError {
        todo!()
    }

    /// Drains, checkpoints, closes; opening again works in the same process.
    ///
    /// # Errors
    /// Something could not be made durable or closed; nothing acknowledged is lost.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        todo!()
    }
}
