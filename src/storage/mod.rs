//! Floor 1: the data directory, and RocksDB in it.
//!
//! [`Storage::open`] takes the directory's lock, makes or checks its identity, and opens RocksDB under `meta/` with the
//! families of the design. It keeps the node's own notes ([`Storage::checkpoint`], [`Storage::clean_end`]) in one, and
//! offers the others to the floors above: [`Tables`] to read, as they are or as of a moment ([`Frozen`]), [`Storage::batch`]
//! and [`Storage::write`] to write. What they keep there is theirs to know; that a failed write is the last one (rule of
//! durable order 5), and that lost writes are noticed at the next start, is enforced here for all of them.
//!
//! Damage in a table file is kept away from compactions, which it would stop for good, until what is wanted was
//! [moved](Storage::evacuate) out of its family.
//!
//! Durable facts and their order: RocksDB's copy of the identity, synced, then the file `identity`, its name synced
//! last. If we die in between, the next start finishes with the copy. A directory that has neither is new; one that
//! has the file but no RocksDB has lost it, and is refused. A node that has yet to be told who it is, opens its directory
//! [unsettled](Unsettled) and settles it then.

mod error;
mod evacuation;
mod evidence;
mod families;
mod frozen;
mod identity;
mod layout;
mod lock;
mod log_space;
mod notes;
mod sorted_file;
mod store;
mod tables;
mod unsettled;

pub use error::StorageError;
pub use evacuation::{Evacuation, Movable};
pub use frozen::Frozen;
pub use identity::{FORMAT_VERSION, Identity};
pub use layout::{ENGINE_DIR, IDENTITY_FILE, LOCK_FILE, META_DIR, WAL_DIR};
pub use lock::DirectoryLock;
pub use sorted_file::{Ingesting, SortedFile};
pub use store::{Storage, StorageView};
pub use tables::{Batch, Durability, Family, Tables, TablesAt};
pub use unsettled::Unsettled;
