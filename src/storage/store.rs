//! Opening a data directory, and RocksDB in it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rocksdb::{
    ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel, Options, WriteBatch,
    WriteOptions,
};

use super::error::StorageError;
use super::evidence::{self, SequenceEvidence};
use super::identity::{self, Identity};
use super::layout::{IDENTITY_FILE, MADE_BEFORE_IDENTITY, META_DIR};
use super::lock::DirectoryLock;
use super::notes;
use crate::lsn::Lsn;

/// The column families. Keys are composite and shared: a family per group would not scale.
const FAMILIES: [&str; 7] = [LOCAL, "raft_log", "raft_state", "catalog", "cluster", "slots", "kv"];
const LOCAL: &str = "local";

/// Memory for all families' unflushed writes together.
const WRITE_BUFFER_BYTES: usize = 32 << 20;
/// RocksDB's own log is flushed and dropped beyond this.
const MAX_WAL_BYTES: u64 = 128 << 20;
const MAX_OPEN_FILES: i32 = 256;
const BACKGROUND_JOBS: i32 = 2;

/// An open data directory. The lock is held until it is dropped.
pub struct Storage {
    identity: Identity,
    meta: PathBuf,
    db: DB,
    evidence: Mutex<SequenceEvidence>,
    /// Declared last, so that it is released after RocksDB is closed.
    _lock: DirectoryLock,
}

/// A data directory as its files say, read without changing any of them.
#[derive(Debug)]
pub struct StorageView {
    /// Who it belongs to.
    pub identity: Identity,
    /// See [`Storage::checkpoint`].
    pub checkpoint: Lsn,
    /// See [`Storage::clean_end`].
    pub clean_end: Option<Lsn>,
    /// No node can start while the view exists.
    _lock: Option<DirectoryLock>,
}

impl Storage {
    /// Takes the directory's lock, makes or checks its identity, and opens RocksDB. The directory is made if it does
    /// not exist; its parent must.
    ///
    /// # Errors
    /// The directory is another process's, something else's, damaged, or cannot be written.
    pub fn open(directory: &Path, segment_size_bytes: u64) -> Result<Storage, StorageError> {
        make_directory(directory)?;
        // Looked at before the lock file is made, so that a wrong path stays as it was.
        if Identity::read(directory)?.is_none() {
            refuse_foreign(directory)?;
        }
        let lock = DirectoryLock::take(directory)?;
        let identity = Identity::read(directory)?;
        match identity {
            Some(identity) => check_segment_size(directory, identity, segment_size_bytes)?,
            // An earlier start may have died before it made the directory's own name durable.
            None => sync_parent(directory)?,
        }
        let meta = directory.join(META_DIR);
        let db = open_checked(&meta, identity.is_some())?;
        let identity = settle_identity(directory, &meta, &db, identity, segment_size_bytes)?;
        let evidence = Mutex::new(SequenceEvidence::open(&meta, db.latest_sequence_number())?);
        Ok(Storage { identity, meta, db, evidence, _lock: lock })
    }

    /// Who the directory belongs to.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Everything before this is in the engine's files; [`Lsn::NONE`] before the first checkpoint.
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn checkpoint(&self) -> Result<Lsn, StorageError> {
        Ok(get_lsn(&self.db, &self.meta, notes::CHECKPOINT)?.unwrap_or(Lsn::NONE))
    }

    /// Where the WAL ended, if the last stop was clean.
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn clean_end(&self) -> Result<Option<Lsn>, StorageError> {
        get_lsn(&self.db, &self.meta, notes::CLEAN_END)
    }

    /// Notes a checkpoint, durably.
    ///
    /// # Errors
    /// RocksDB failed: it is not known whether the note holds.
    pub fn note_checkpoint(&self, lsn: Lsn) -> Result<(), StorageError> {
        self.write(|batch, local| batch.put_cf(local, notes::CHECKPOINT, notes::encode_lsn(lsn)))
    }

    /// Notes a clean stop, durably. The node does nothing afterwards but close.
    ///
    /// # Errors
    /// RocksDB failed: it is not known whether the note holds.
    pub fn note_clean_end(&self, lsn: Lsn) -> Result<(), StorageError> {
        self.write(|batch, local| batch.put_cf(local, notes::CLEAN_END, notes::encode_lsn(lsn)))?;
        self.evidence.lock().settle(self.db.latest_sequence_number())
    }

    /// Takes back the note of a clean stop, durably: from here on the WAL may end elsewhere.
    ///
    /// # Errors
    /// RocksDB failed: it is not known whether the note is gone.
    pub fn forget_clean_end(&self) -> Result<(), StorageError> {
        self.write(|batch, local| batch.delete_cf(local, notes::CLEAN_END))?;
        // Were RocksDB to lose this write, an old end would be believed.
        self.evidence.lock().settle(self.db.latest_sequence_number())
    }

    /// One batch, synced.
    fn write(&self, fill: impl FnOnce(&mut WriteBatch, &rocksdb::ColumnFamily)) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        fill(&mut batch, family(&self.db, &self.meta, LOCAL)?);
        write_synced(&self.db, &self.meta, batch)?;
        self.evidence.lock().note(self.db.latest_sequence_number())
    }
}

impl StorageView {
    /// Reads a data directory without creating or changing a file in it. Keeps nodes from starting meanwhile.
    ///
    /// # Errors
    /// A node runs on it, it is no data directory, it is damaged, or cannot be read.
    pub fn open(directory: &Path) -> Result<StorageView, StorageError> {
        if !directory.is_dir() {
            return Err(StorageError::NotADirectory(directory.to_owned()));
        }
        let lock = DirectoryLock::take_shared(directory)?;
        let identity = Identity::read(directory)?.ok_or_else(|| StorageError::NoIdentity(directory.to_owned()))?;
        let meta = directory.join(META_DIR);
        if !has_rocksdb(&meta) {
            return Err(without_rocksdb(&meta));
        }
        let db = open_read_only(&meta)?;
        check_evidence(&meta, &db)?;
        check_copy(directory, &meta, &db, identity)?;
        Ok(StorageView {
            identity,
            checkpoint: get_lsn(&db, &meta, notes::CHECKPOINT)?.unwrap_or(Lsn::NONE),
            clean_end: get_lsn(&db, &meta, notes::CLEAN_END)?,
            _lock: lock,
        })
    }
}

fn make_directory(directory: &Path) -> Result<(), StorageError> {
    // What people stored is for nobody else's eyes.
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(_) if directory.is_dir() => return Ok(()),
        Err(_) if directory.exists() => return Err(StorageError::NotADirectory(directory.to_owned())),
        Err(error) => return Err(StorageError::io("create", directory)(error)),
    }
    sync_parent(directory)
}

fn sync_parent(directory: &Path) -> Result<(), StorageError> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    identity::sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Refuses a directory without identity that holds what no first start of ours could have left.
fn refuse_foreign(directory: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(directory).map_err(StorageError::io("list", directory))? {
        let name = entry.map_err(StorageError::io("list", directory))?.file_name();
        let name = name.to_string_lossy();
        if !MADE_BEFORE_IDENTITY.contains(&name.as_ref()) {
            return Err(StorageError::NotEmpty { path: directory.to_owned(), example: name.into_owned() });
        }
    }
    Ok(())
}

/// Opens RocksDB after looking at it read-only: what recovers to less than it is known to have held is damaged.
fn open_checked(meta: &Path, must_exist: bool) -> Result<DB, StorageError> {
    if has_rocksdb(meta) {
        check_evidence(meta, &open_read_only(meta)?)?;
    } else if must_exist {
        return Err(without_rocksdb(meta));
    }
    let mut options = options();
    options.create_if_missing(!must_exist);
    options.create_missing_column_families(true);
    let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    DB::open_cf_descriptors(&options, meta, families).map_err(StorageError::rocksdb(meta))
}

fn has_rocksdb(meta: &Path) -> bool {
    meta.join("CURRENT").exists()
}

fn without_rocksdb(meta: &Path) -> StorageError {
    StorageError::Damaged { path: meta.to_owned(), what: "expected RocksDB's files, found none".into() }
}

fn open_read_only(meta: &Path) -> Result<DB, StorageError> {
    let options = options();
    // A first start that was interrupted may not have made all families yet; only what is there is looked at.
    let names = DB::list_cf(&options, meta).map_err(StorageError::rocksdb(meta))?;
    DB::open_cf_for_read_only(&options, meta, names, false).map_err(StorageError::rocksdb(meta))
}

fn check_evidence(meta: &Path, db: &DB) -> Result<(), StorageError> {
    let (reached, known) = (db.latest_sequence_number(), evidence::read(meta)?.unwrap_or(0));
    if reached < known {
        let what = format!("expected to recover sequence number {known} or more, found {reached}");
        return Err(StorageError::Damaged { path: meta.to_owned(), what });
    }
    Ok(())
}

/// The directory's identity: the one it has, checked; or the one a first start left unfinished; or a new one.
fn settle_identity(
    directory: &Path,
    meta: &Path,
    db: &DB,
    found: Option<Identity>,
    segment_size_bytes: u64,
) -> Result<Identity, StorageError> {
    let copy = read_copy(meta, db)?;
    let identity = match (found, copy) {
        (Some(found), _) => {
            check_copy(directory, meta, db, found)?;
            found
        }
        (None, Some(copy)) => copy,
        (None, None) => {
            let identity = Identity::draw(segment_size_bytes)?;
            let mut batch = WriteBatch::default();
            batch.put_cf(family(db, meta, LOCAL)?, notes::IDENTITY, identity.encode());
            write_synced(db, meta, batch)?;
            identity
        }
    };
    if found.is_none() {
        check_segment_size(directory, identity, segment_size_bytes)?;
        identity.write(directory)?;
    }
    Ok(identity)
}

fn check_segment_size(directory: &Path, identity: Identity, configured: u64) -> Result<(), StorageError> {
    let made_with = identity.segment_size_bytes;
    match made_with == configured {
        true => Ok(()),
        false => Err(StorageError::SegmentSize { path: directory.to_owned(), made_with, configured }),
    }
}

fn check_copy(directory: &Path, meta: &Path, db: &DB, identity: Identity) -> Result<(), StorageError> {
    match read_copy(meta, db)? {
        Some(copy) if copy == identity => Ok(()),
        Some(copy) => Err(StorageError::Mismatch { path: directory.to_owned(), identity, copy }),
        None => {
            let what = format!("expected a copy of {}, found none", directory.join(IDENTITY_FILE).display());
            Err(StorageError::Damaged { path: meta.to_owned(), what })
        }
    }
}

fn read_copy(meta: &Path, db: &DB) -> Result<Option<Identity>, StorageError> {
    if db.cf_handle(LOCAL).is_none() {
        return Ok(None);
    }
    let copy = db.get_pinned_cf(family(db, meta, LOCAL)?, notes::IDENTITY).map_err(StorageError::rocksdb(meta))?;
    copy.map(|bytes| Identity::decode(&bytes, meta)).transpose()
}

fn get_lsn(db: &DB, meta: &Path, key: &[u8]) -> Result<Option<Lsn>, StorageError> {
    let value = db.get_pinned_cf(family(db, meta, LOCAL)?, key).map_err(StorageError::rocksdb(meta))?;
    let decode = |bytes: rocksdb::DBPinnableSlice<'_>| {
        notes::decode_lsn(&bytes).ok_or_else(|| StorageError::Damaged {
            path: meta.to_owned(),
            what: format!("expected an LSN under {:?}, found {:02x?}", String::from_utf8_lossy(key), &*bytes),
        })
    };
    value.map(decode).transpose()
}

fn family<'db>(db: &'db DB, meta: &Path, name: &str) -> Result<&'db rocksdb::ColumnFamily, StorageError> {
    db.cf_handle(name).ok_or_else(|| StorageError::Damaged {
        path: meta.to_owned(),
        what: format!("expected a column family {name:?}, found none"),
    })
}

fn write_synced(db: &DB, meta: &Path, batch: WriteBatch) -> Result<(), StorageError> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(batch, &options).map_err(StorageError::rocksdb(meta))
}

/// The options that are not negotiable, and a few that keep a small node small.
fn options() -> Options {
    let mut options = Options::default();
    // A prefix of what was written, or nothing: with `evidence` this refuses what neither "tolerate corrupted tail"
    // nor "absolute consistency" gets right.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_db_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(MAX_WAL_BYTES);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    // RocksDB's words go to our log instead of files of its own.
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |level, message| match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "rocksdb", "{}", message.trim()),
        LogLevel::Warn => tracing::warn!(target: "rocksdb", "{}", message.trim()),
        // At each opening it lists every option it has.
        _ => tracing::trace!(target: "rocksdb", "{}", message.trim()),
    }));
    options
}

#[cfg(test)]
#[path = "store_test.rs"]
mod tests;
