//! Errors.

/// Why a record was not appended. Nothing of it is in the log.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// *Retry here*, after [`room`](crate::node::Primary::room).
    #[error("the log has no room for {0} more bytes now")]
    Busy(usize),
    /// *Retry here*, when there is room on the disk again.
    #[error("the disk is full")]
    DiskFull,
    /// *Your mistake.*
    #[error("a record of {len_bytes} bytes is larger than the limit of {limit_bytes}")]
    TooLarge {
        /// Its length.
        len_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// *Retry elsewhere*: this node is not the primary any more.
    #[error("this node is not the primary")]
    Fenced,
    /// *This node must stop*: a write or sync failed before.
    #[error("the log failed: {0}")]
    Poisoned(String),
}

/// Why it is not known that a record is committed. It may still become so: unknown is never success.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// *Retry elsewhere*: the handle became void while waiting.
    #[error("this node is not the primary any more; whether the transaction committed is not known")]
    Fenced,
    /// *This node must stop*: a write or sync failed.
    #[error("the log failed; whether the transaction committed is not known: {0}")]
    Poisoned(String),
}
