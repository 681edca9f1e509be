//! Floor 1: the data directory, and RocksDB in it.
//!
//! [`Storage::open`] takes the directory's lock, makes or checks its identity, and opens RocksDB under `meta/` with the
//! families of the design. What RocksDB holds here so far are the node's own notes ([`Storage::checkpoint`],
//! [`Storage::clean_end`]); the Raft log and the tables of the metadata machine join in the same families.
//!
//! Durable facts and their order: RocksDB's copy of the identity, synced, then the file `identity`, its name synced
//! last. If we die in between, the next start finishes with the copy. A directory that has neither is new; one that
//! has the file but no RocksDB has lost it, and is refused.

mod error;
mod evidence;
mod identity;
mod layout;
mod lock;
mod notes;
mod store;

pub use error::StorageError;
pub use identity::{FORMAT_VERSION, Identity};
pub use layout::{ENGINE_DIR, IDENTITY_FILE, LOCK_FILE, META_DIR, WAL_DIR};
pub use lock::DirectoryLock;
pub use store::{Storage, StorageView};
