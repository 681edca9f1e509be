//! Why a data directory cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use super::identity::Identity;

/// Why a data directory cannot be used. Nothing was changed, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// *Your mistake*: another process has the directory.
    #[error("{path} is in use by another process{holder}")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// ` (the last node on it: process N)` if it is known; or that it only reads.
        holder: String,
    },
    /// *Your mistake*: the path is not a directory.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// *Your mistake*: the directory holds something else.
    #[error("{path} is not a Mainstay data directory and is not empty: it contains {example:?}")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        example: String,
    },
    /// *Your mistake*: there is no data directory.
    #[error("{0} is not a Mainstay data directory: it has no identity")]
    NoIdentity(PathBuf),
    /// *Your mistake*: a later version of Mainstay made it.
    #[error("{path}: format version {found} is newer than this version of Mainstay, which knows {known}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// *Your mistake*: parts of the directory come from different nodes.
    #[error("{path} belongs to {identity}, but its RocksDB belongs to {copy}: were they mixed up?")]
    Mismatch {
        /// The directory.
        path: PathBuf,
        /// According to the file `identity`.
        identity: Identity,
        /// According to RocksDB.
        copy: Identity,
    },
    /// *Your mistake*: the segment size is fixed at the first start.
    #[error(
        "{path} was made with wal.segment_size_bytes = {made_with}, not {configured}; it cannot change: \
         start with the former"
    )]
    SegmentSize {
        /// The directory.
        path: PathBuf,
        /// What it was made with.
        made_with: u64,
        /// What was asked for.
        configured: u64,
    },
    /// *This node must stop*: stored bytes are wrong.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// Expected and found.
        what: String,
    },
    /// *This node must stop*: the operating system refused something.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// *This node must stop*: RocksDB failed.
    #[error("{path}: {source}")]
    RocksDb {
        /// Its directory.
        path: PathBuf,
        /// The cause.
        source: rocksdb::Error,
    },
    /// *This node must stop*: RocksDB failed before, and what it holds is no longer known.
    #[error("{path} failed earlier: {what}")]
    Poisoned {
        /// Its directory.
        path: PathBuf,
        /// The first failure.
        what: String,
    },
}

impl StorageError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError + use<> {
        let path = path.to_owned();
        move |source| StorageError::Io { doing, path, source }
    }

    pub(super) fn rocksdb(path: &Path) -> impl FnOnce(rocksdb::Error) -> StorageError + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            rocksdb::ErrorKind::Corruption => StorageError::Damaged { path, what: source.into_string() },
            _ => StorageError::RocksDb { path, source },
        }
    }
}
