//! The names in a data directory.

/// Held by flock while a node runs on the directory.
pub const LOCK_FILE: &str = "mainstay.lock";
/// Who the directory belongs to.
pub const IDENTITY_FILE: &str = "identity";
/// RocksDB.
pub const META_DIR: &str = "meta";
/// WAL segments.
pub const WAL_DIR: &str = "wal";
/// The embedding database's own files.
pub const ENGINE_DIR: &str = "engine";

/// What an interrupted first start may have left: such a directory is still new.
pub(super) const MADE_BEFORE_IDENTITY: [&str; 3] = [LOCK_FILE, META_DIR, super::identity::TEMPORARY_FILE];
