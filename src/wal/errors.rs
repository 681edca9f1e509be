//! What can go wrong with the log, told apart by what the caller should do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::retention::Invalidation;
use crate::ident::SystemId;
use crate::lsn::Lsn;

/// Bytes that are not what must be there. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The first bad byte's offset in it.
    pub offset: u64,
    /// The position in the log.
    pub lsn: Lsn,
    /// What must be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { path, offset, lsn, expected, found } = self;
        write!(f, "{} is damaged at offset {offset} (LSN {lsn}): expected {expected}, found {found}", path.display())
    }
}

/// Why the log cannot be opened or read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// *This node must stop*: stored bytes are wrong. The path, offset, expected and found are named.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// *Retry elsewhere*: that part of the log has been recycled.
    #[error("the log before {oldest} has been recycled; {wanted} was asked for")]
    Recycled {
        /// The position asked for.
        wanted: Lsn,
        /// The oldest that is there.
        oldest: Lsn,
    },
    /// *Retry elsewhere*: the log was kept for this holder, which needed more of it than it may keep.
    #[error("{invalidation}; the log before {oldest} may be gone")]
    Invalidated {
        /// Who, and why.
        invalidation: Box<Invalidation>,
        /// The oldest position that is there.
        oldest: Lsn,
    },
    /// *Retry here*, when one of those who hold the log has let go of it.
    #[error("the log is held for {limit} readers, slots and others already")]
    TooManyHolders {
        /// How many may hold it.
        limit: usize,
    },
    /// *Your mistake*: a later version of Mainstay wrote this.
    #[error("{path}, offset {offset} (LSN {lsn}): written by a later version of Mainstay: {what}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The position in the log.
        lsn: Lsn,
        /// What this version does not know.
        what: String,
    },
    /// *Your mistake*: the log belongs to another system.
    #[error("{path} (LSN {lsn} on): belongs to system {found}, not to {expected}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Where the segment begins.
        lsn: Lsn,
        /// This node's system.
        expected: SystemId,
        /// The file's.
        found: SystemId,
    },
    /// *This node must stop*: the device does not give back what is stored there.
    #[error("{path} cannot be read at offset {offset} (LSN {lsn}): {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The first byte that cannot be read.
        offset: u64,
        /// The position in the log.
        lsn: Lsn,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// *This node must stop*: the operating system refused something.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// *This node must stop*: a write or sync failed before.
    #[error("{0}")]
    Poisoned(Failure),
    /// *Retry elsewhere*: the log was closed, or its node dropped.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WalError + use<> {
        let path = path.to_owned();
        move |source| WalError::Io { doing, path, source: Arc::new(source) }
    }

    /// Whether the process or the system ran out of file descriptors or memory, which says nothing about the disk.
    pub(super) fn is_scarce(&self) -> bool {
        let WalError::Io { source, .. } = self else { return false };
        let errno = source.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }

    /// Whether it did so before anything was done: the same may succeed later.
    pub(crate) fn is_passing(&self) -> bool {
        // Not a write or a sync: nobody knows what those that failed have done.
        const FIRST_STEPS: [&str; 3] = ["create", "list", "open"];
        self.is_scarce() && matches!(self, WalError::Io { doing, .. } if FIRST_STEPS.contains(doing))
    }

    /// What this says of the bytes of one segment: where they are, and what is wrong with them.
    ///
    /// # Errors
    /// Itself, if it is about something else.
    pub fn into_damage(self) -> Result<Damage, WalError> {
        let (path, offset, lsn, expected, found) = match self {
            WalError::Damaged(damage) => return Ok(*damage),
            WalError::Unreadable { path, offset, lsn, source } => {
                (path, offset, lsn, "bytes that can be read".to_owned(), source.to_string())
            }
            WalError::Newer { path, offset, lsn, what } => {
                (path, offset, lsn, "what this version knows".to_owned(), format!("{what}, of a later version"))
            }
            WalError::Foreign { path, lsn, expected, found } => {
                (path, 0, lsn, format!("a segment of system {expected}"), format!("one of system {found}"))
            }
            other => return Err(other),
        };
        Ok(Damage { path, offset, lsn, expected, found })
    }
}

/// What made the log fail for good. After a failed sync nobody knows what is on the disk: the kernel may have dropped
/// the pages it could not write, and a later sync would answer "fine".
#[derive(Clone, Debug)]
pub struct Failure(Arc<WalError>);

impl Failure {
    pub(super) fn new(cause: WalError) -> Failure {
        Failure(Arc::new(cause))
    }

    /// Whether this is the same event as `other`.
    pub(super) fn is(&self, other: &Failure) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref() {
            WalError::Closed => write!(f, "{}", self.0),
            cause => write!(f, "the log failed and takes nothing more: {cause}"),
        }
    }
}

/// Why a record was not appended. Nothing of it is in the log, but for [`AppendError::Unknown`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// *Retry here*, after [`room`](crate::node::Primary::room).
    #[error("the log has no room for {len_bytes} more bytes now")]
    Busy {
        /// What was to be appended.
        len_bytes: usize,
    },
    /// *Retry here*, when there is room on the disk again; the log notices by itself.
    #[error("the disk is full")]
    DiskFull,
    /// *Your mistake.*
    #[error("a record of {len_bytes} bytes is larger than the limit of {limit_bytes}")]
    TooLarge {
        /// Its length.
        len_bytes: usize,
        /// The limit.
        limit_bytes: u64,
    },
    /// *Retry elsewhere*: this node is not the primary any more.
    #[error("this node is not the primary")]
    Fenced,
    /// *This node must stop*: a write or sync failed before.
    #[error("{0}")]
    Poisoned(Failure),
    /// *This node must stop*: writing failed half way. Of several records the first ones may be whole, and be found when
    /// the log is opened again: unknown is neither success nor failure.
    #[error("whether the records are in the log is not known: {0}")]
    Unknown(Failure),
}

/// Why it is not known that a record is committed. It may still become so: unknown is never success.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// *Retry elsewhere*: the handle became void while waiting.
    #[error("this node is not the primary any more; whether the transaction committed is not known")]
    Fenced,
    /// *This node must stop*: a write or sync failed.
    #[error("whether the transaction committed is not known: {0}")]
    Poisoned(Failure),
    /// *Your mistake*: nothing has been appended up to there.
    #[error("the log ends at {end}; {wanted} does not exist")]
    BeyondEnd {
        /// The position asked for.
        wanted: Lsn,
        /// Where the log ends.
        end: Lsn,
    },
}
