//! What a database implements to be made durable: the [`Engine`] trait.

use std::error::Error as StdError;
use std::fmt;

use crate::ident::SystemId;
use crate::lsn::Lsn;
use crate::primary::Primary;
use crate::wal::Record;

/// A database that Mainstay makes durable.
///
/// The node opens the engine after lock, identity and recovery, hands it every record from [`applied`](Engine::applied)
/// on, and then [promotes](Engine::promote) it. Methods are called from threads that may block, one at a time but for
/// [`checkpoint`](Engine::checkpoint), which may run while the engine's own sessions write.
///
/// **The order that keeps promises.** A transaction is appended, made durable ([`Primary::commit_blocking`]), and only
/// then put into the engine's own files; the client is answered last. So the engine's files are never ahead of the WAL.
pub trait Engine: Send + Sync + 'static {
    /// Where replay continues: the effects of every record before this LSN are in the engine's files as opened.
    /// [`Lsn::NONE`] if they are empty.
    ///
    /// # Errors
    /// The engine's files cannot be read; the node does not start.
    fn applied(&self) -> Result<Lsn, EngineError>;

    /// Which system the engine's files belong to, if they say so: files of another one are refused before anything is
    /// applied to them. An engine learns its system from [`Primary::system`].
    ///
    /// # Errors
    /// The engine's files cannot be read; the node does not start.
    fn system(&self) -> Result<Option<SystemId>, EngineError> {
        Ok(None)
    }

    /// Applies committed records in order. Their effects are visible on return, not necessarily durable.
    ///
    /// # Errors
    /// A record cannot be applied; the node stops, because skipping it would lose data.
    fn apply(&self, records: &[Record]) -> Result<(), EngineError>;

    /// Makes everything applied so far durable in the engine's files and answers up to which LSN that reaches.
    /// Only this lets WAL be recycled.
    ///
    /// # Errors
    /// The files could not be made durable. The node keeps the WAL and tries again later.
    fn checkpoint(&self) -> Result<Lsn, EngineError>;

    /// This node may write now: `primary` is the only handle that can append.
    ///
    /// # Errors
    /// The engine cannot take writes; the node does not start.
    fn promote(&self, primary: Primary) -> Result<(), EngineError>;

    /// The handle given by [`promote`](Engine::promote) is void: it refuses to append. Transactions that were not
    /// committed end as unknown. Returns when the engine has stopped using it.
    fn demote(&self);
}

/// An engine's own failure, kept as the source of the node's error.
pub struct EngineError(Box<dyn StdError + Send + Sync>);

impl EngineError {
    /// Wraps what went wrong in the engine.
    pub fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> EngineError {
        EngineError(cause.into())
    }
}

impl fmt::Debug for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl StdError for EngineError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}
