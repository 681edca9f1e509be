//! Opening a data directory, and RocksDB in it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

use parking_lot::Mutex;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel, Options, WriteBatch,
};

use super::error::StorageError;
use super::evidence::{self, SequenceEvidence};
use super::families::{self, Families, Homes, Others};
use super::identity::{self, Identity};
use super::layout::{IDENTITY_FILE, MADE_BEFORE_IDENTITY, META_DIR};
use super::lock::DirectoryLock;
use super::log_space::{self, LogSpace};
use super::notes;
use super::tables::{Batch, Durability, Family, Tables};
use super::unsettled::Unsettled;
use crate::ident::Incarnation;
use crate::lsn::Lsn;

/// The family of our own notes.
pub(super) const LOCAL: &str = "local";

/// Memory for all families' unflushed writes together.
pub(super) const WRITE_BUFFER_BYTES: usize = 32 << 20;
/// RocksDB's own log is flushed and dropped beyond this.
const MAX_WAL_BYTES: u64 = 128 << 20;
const MAX_OPEN_FILES: i32 = 256;
const BACKGROUND_JOBS: i32 = 2;

/// An open data directory. The lock is held until it is dropped.
pub struct Storage {
    identity: Identity,
    tables: Tables,
    /// Held during each sync, so that none begins after one that failed.
    evidence: Mutex<SequenceEvidence>,
    /// Why RocksDB cannot be written any more.
    poisoned: OnceLock<String>,
    /// For stores whose commits people wait for.
    pub(super) log_space: OnceLock<LogSpace>,
    /// Families that somebody has begun to move.
    pub(super) evacuated: AtomicU32,
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
    tables: Tables,
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
        Unsettled::open(directory, segment_size_bytes)?.settle(None)
    }

    /// An opened directory that has its identity.
    pub(super) fn of(identity: Identity, tables: Tables, lock: DirectoryLock) -> Result<Storage, StorageError> {
        let evidence = Mutex::new(SequenceEvidence::open(&tables.meta, tables.db.latest_sequence_number())?);
        let (poisoned, log_space, evacuated) = (OnceLock::new(), OnceLock::new(), AtomicU32::new(0));
        Ok(Storage { identity, tables, evidence, poisoned, log_space, evacuated, _lock: lock })
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
        Ok(get_lsn(&self.tables, notes::CHECKPOINT)?.unwrap_or(Lsn::NONE))
    }

    /// Where the WAL ended, if the last stop was clean.
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn clean_end(&self) -> Result<Option<Lsn>, StorageError> {
        get_lsn(&self.tables, notes::CLEAN_END)
    }

    /// Notes a checkpoint, durably.
    ///
    /// # Errors
    /// RocksDB failed: it is not known whether the note holds.
    pub fn note_checkpoint(&self, lsn: Lsn) -> Result<(), StorageError> {
        self.note(Durability::Synced, |batch, local| batch.put_cf(local, notes::CHECKPOINT, notes::encode_lsn(lsn)))
    }

    /// Notes a clean stop, durably. The node does nothing afterwards but close.
    ///
    /// # Errors
    /// RocksDB failed: it is not known whether the note holds.
    pub fn note_clean_end(&self, lsn: Lsn) -> Result<(), StorageError> {
        self.note(Durability::Evident, |batch, local| batch.put_cf(local, notes::CLEAN_END, notes::encode_lsn(lsn)))
    }

    /// Takes back the note of a clean stop, durably: from here on the WAL may end elsewhere.
    ///
    /// # Errors
    /// RocksDB failed: it is not known whether the note is gone.
    pub fn forget_clean_end(&self) -> Result<(), StorageError> {
        // Were RocksDB to lose this write, an old end would be believed.
        self.note(Durability::Evident, |batch, local| batch.delete_cf(local, notes::CLEAN_END))
    }

    /// Counts one more start of this node as a member of a cluster, durably, and says which it is; the first is 1. Peers
    /// refuse one lower than they have seen.
    ///
    /// # Errors
    /// RocksDB failed, or holds something else: the node cannot say who it is.
    pub fn raise_incarnation(&self) -> Result<Incarnation, StorageError> {
        let decode = |bytes: &[u8]| notes::decode_incarnation(bytes).ok_or_else(|| bytes.to_vec());
        let before = match self.tables.note(notes::INCARNATION, decode)? {
            None => 0,
            Some(Ok(incarnation)) => incarnation.get(),
            Some(Err(bytes)) => {
                let what = format!("expected an incarnation, found {bytes:02x?}");
                return Err(StorageError::Damaged { path: self.tables.meta.clone(), what });
            }
        };
        let incarnation = Incarnation::new(before + 1);
        let note = notes::encode_incarnation(incarnation);
        // Were RocksDB to lose this write, a life that peers know would begin again.
        self.note(Durability::Evident, |batch, local| batch.put_cf(local, notes::INCARNATION, note))?;
        Ok(incarnation)
    }

    /// What was noted of this node as a member of a cluster: bytes whose meaning their writer knows.
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn member_note(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.tables.note(notes::MEMBER, <[u8]>::to_vec)
    }

    /// Notes what this node is as a member of a cluster, durably, in place of what was noted before.
    ///
    /// # Errors
    /// RocksDB failed: it is not known which of the two holds.
    pub fn note_member(&self, note: &[u8]) -> Result<(), StorageError> {
        self.note(Durability::Evident, |batch, local| batch.put_cf(local, notes::MEMBER, note))
    }

    /// Makes everything written so far durable, and a later loss of it sure to be noticed.
    ///
    /// # Errors
    /// RocksDB failed: it is not known what is durable, and every later write is refused.
    pub fn settle(&self) -> Result<(), StorageError> {
        self.commit(WriteBatch::default(), Durability::Evident)
    }

    /// Copies all of RocksDB, with the evidence beside it, to a directory that does not exist: in place of `meta/` it
    /// would bring everything back to how it is now. Files that RocksDB never changes again are linked, not copied.
    ///
    /// # Errors
    /// The directory exists or cannot be written, or RocksDB failed. What is there then is no copy.
    pub fn copy_tables(&self, to: &Path) -> Result<(), StorageError> {
        self.settle()?;
        let copied = Checkpoint::new(&self.tables.db).and_then(|now| now.create_checkpoint(to));
        copied.map_err(StorageError::rocksdb(to))?;
        let evidence = to.join(evidence::FILE);
        fs::copy(self.tables.meta.join(evidence::FILE), &evidence).map_err(StorageError::io("copy", &evidence))?;
        for path in [&evidence, to] {
            let file = fs::File::open(path).and_then(|file| file.sync_all());
            file.map_err(StorageError::io("sync", path))?;
        }
        sync_parent(to)
    }

    /// What RocksDB holds for the floors above.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// An empty batch.
    ///
    /// # Errors
    /// A column family is missing.
    pub fn batch(&self) -> Result<Batch<'_>, StorageError> {
        self.tables.batch()
    }

    /// Writes a batch, all or nothing. RocksDB keeps one log for all families, so what a crash leaves is a prefix of
    /// all batches, and at least everything up to the last synced one.
    ///
    /// # Errors
    /// RocksDB failed: it is not known what was written, and every later write is refused.
    pub fn write(&self, batch: Batch<'_>, durability: Durability) -> Result<(), StorageError> {
        self.commit(batch.changes, durability)
    }

    fn note(
        &self,
        durability: Durability,
        fill: impl FnOnce(&mut WriteBatch, &rocksdb::ColumnFamily),
    ) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        fill(&mut batch, self.tables.family(LOCAL)?);
        self.commit(batch, durability)
    }

    pub(super) fn commit(&self, changes: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        self.refuse_if_poisoned()?;
        let bytes = changes.size_in_bytes();
        self.poisoning(self.tables.write(changes))?;
        if let Some(log_space) = self.log_space.get() {
            log_space.wrote(bytes);
        }
        if durability == Durability::Buffered {
            return Ok(());
        }
        // Written first and synced then, so that the number that is noted covers this batch and nothing that another
        // thread writes during the sync: noting what is not durable would make damage of a power cut. It is also no
        // slower than RocksDB's own synced write, and who writes without a sync does not wait for ours: beside batches
        // of 256 KiB, twice as much was applied.
        let mut evidence = self.evidence.lock();
        self.refuse_if_poisoned()?;
        let sequence = self.tables.db.latest_sequence_number();
        self.poisoning(self.tables.sync())?;
        let noted = match durability {
            Durability::Evident => evidence.settle(sequence),
            _ => evidence.note(sequence),
        };
        self.poisoning(noted)
    }

    /// Rule of durable order 5: after a failed write or sync nobody knows what reached the disk, also if a later one
    /// succeeds. RocksDB would try to recover by itself; the node shall not.
    pub(super) fn poisoning<T>(&self, written: Result<T, StorageError>) -> Result<T, StorageError> {
        written.inspect_err(|error| {
            // A compaction met it, and RocksDB does not say where. If nothing were noted, it would meet it again after each
            // start.
            if let (StorageError::Damaged { what, .. }, None) = (error, self.poisoned.get()) {
                tracing::error!(what, "RocksDB has met damage in a table file, and takes no writes any more");
                self.tables.note_damage(&Family::TABLES);
            }
            drop(self.poisoned.set(error.to_string()));
        })
    }

    pub(super) fn refuse_if_poisoned(&self) -> Result<(), StorageError> {
        match self.poisoned.get() {
            None => Ok(()),
            Some(what) => Err(StorageError::Poisoned { path: self.tables.meta.clone(), what: what.clone() }),
        }
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
        let tables = open_read_only(&meta)?;
        check_evidence(&tables)?;
        check_copy(directory, &tables, identity)?;
        Ok(StorageView {
            identity,
            checkpoint: get_lsn(&tables, notes::CHECKPOINT)?.unwrap_or(Lsn::NONE),
            clean_end: get_lsn(&tables, notes::CLEAN_END)?,
            tables,
            _lock: lock,
        })
    }

    /// See [`Storage::member_note`].
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn member_note(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.tables.note(notes::MEMBER, <[u8]>::to_vec)
    }

    /// What RocksDB holds for the floors above.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }
}

pub(super) fn make_directory(directory: &Path) -> Result<(), StorageError> {
    // What people stored is for nobody else's eyes.
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(_) if directory.is_dir() => return Ok(()),
        Err(_) if directory.exists() => return Err(StorageError::NotADirectory(directory.to_owned())),
        Err(error) => return Err(StorageError::io("create", directory)(error)),
    }
    sync_parent(directory)
}

pub(super) fn sync_parent(directory: &Path) -> Result<(), StorageError> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    identity::sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Refuses a directory without identity that holds what no first start of ours could have left.
pub(super) fn refuse_foreign(directory: &Path) -> Result<(), StorageError> {
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
pub(super) fn open_checked(meta: &Path, must_exist: bool) -> Result<Tables, StorageError> {
    let (families, present) = match has_rocksdb(meta) {
        true => {
            let tables = open_read_only(meta)?;
            check_evidence(&tables)?;
            (tables.families, list_families(meta)?)
        }
        false if must_exist => return Err(without_rocksdb(meta)),
        false => (Families::new(Homes::default(), families::read_damaged(meta)?), Vec::new()),
    };
    let mut options = options();
    options.create_if_missing(!must_exist);
    options.create_missing_column_families(true);
    let Others { strays, kept } = families.others(meta, &present)?;
    let mut paused = options.clone();
    paused.set_disable_auto_compactions(true);
    let homes = Family::ALL.map(|family| (families.name(family), families.is_damaged(family)));
    let all =
        [(LOCAL, false)].into_iter().chain(homes).chain(strays.iter().chain(&kept).map(|name| (name.as_str(), true)));
    let all = all.map(|(name, is_damaged)| {
        ColumnFamilyDescriptor::new(name, if is_damaged { paused.clone() } else { options.clone() })
    });
    let mut db = DB::open_cf_descriptors(&options, meta, all).map_err(StorageError::rocksdb(meta))?;
    for stray in strays {
        tracing::info!(column_family = stray, "a column family that is not wanted any more is dropped");
        db.drop_cf(&stray).map_err(StorageError::rocksdb(meta))?;
    }
    for family in Family::ALL.into_iter().filter(|family| families.is_damaged(*family)) {
        if let Some(next) = families.next_name(family) {
            db.create_cf(next, &options).map_err(StorageError::rocksdb(meta))?;
        }
    }
    Ok(Tables { meta: meta.to_owned(), db, families, is_writable: true })
}

fn list_families(meta: &Path) -> Result<Vec<String>, StorageError> {
    DB::list_cf(&options(), meta).map_err(StorageError::rocksdb(meta))
}

fn has_rocksdb(meta: &Path) -> bool {
    meta.join("CURRENT").exists()
}

fn without_rocksdb(meta: &Path) -> StorageError {
    StorageError::Damaged { path: meta.to_owned(), what: "expected RocksDB's files, found none".into() }
}

fn open_read_only(meta: &Path) -> Result<Tables, StorageError> {
    // A first start that was interrupted may not have made all families yet; only what is there is looked at.
    let names = list_families(meta)?;
    let db = DB::open_cf_for_read_only(&options(), meta, names, false).map_err(StorageError::rocksdb(meta))?;
    let damaged = families::read_damaged(meta)?;
    let families = Families::new(Homes::default(), damaged);
    let mut tables = Tables { meta: meta.to_owned(), db, families, is_writable: false };
    tables.families = Families::new(read_homes(&tables)?, damaged);
    Ok(tables)
}

/// Which column families hold the families.
fn read_homes(tables: &Tables) -> Result<Homes, StorageError> {
    if tables.db.cf_handle(LOCAL).is_none() {
        return Ok(Homes::default());
    }
    let decode = |bytes: &[u8]| {
        notes::decode_homes(bytes).ok_or_else(|| StorageError::Damaged {
            path: tables.meta.clone(),
            what: format!("expected the homes of families, found {bytes:02x?}"),
        })
    };
    Ok(tables.note(notes::HOMES, decode)?.transpose()?.unwrap_or_default())
}

fn check_evidence(Tables { meta, db, .. }: &Tables) -> Result<(), StorageError> {
    let (reached, known) = (db.latest_sequence_number(), evidence::read(meta)?.unwrap_or(0));
    if reached < known {
        let what = format!("expected to recover sequence number {known} or more, found {reached}");
        return Err(StorageError::Damaged { path: meta.to_owned(), what });
    }
    Ok(())
}

pub(super) fn check_segment_size(directory: &Path, identity: Identity, configured: u64) -> Result<(), StorageError> {
    let made_with = identity.segment_size_bytes;
    match made_with == configured {
        true => Ok(()),
        false => Err(StorageError::SegmentSize { path: directory.to_owned(), made_with, configured }),
    }
}

pub(super) fn check_copy(directory: &Path, tables: &Tables, identity: Identity) -> Result<(), StorageError> {
    match read_copy(tables)? {
        Some(copy) if copy == identity => Ok(()),
        Some(copy) => Err(StorageError::Mismatch { path: directory.to_owned(), identity, copy }),
        None => {
            let what = format!("expected a copy of {}, found none", directory.join(IDENTITY_FILE).display());
            Err(StorageError::Damaged { path: tables.meta.clone(), what })
        }
    }
}

pub(super) fn read_copy(tables: &Tables) -> Result<Option<Identity>, StorageError> {
    if tables.db.cf_handle(LOCAL).is_none() {
        return Ok(None);
    }
    tables.note(notes::IDENTITY, |bytes| Identity::decode(bytes, &tables.meta))?.transpose()
}

fn get_lsn(tables: &Tables, key: &[u8]) -> Result<Option<Lsn>, StorageError> {
    let decode = |bytes: &[u8]| {
        notes::decode_lsn(bytes).ok_or_else(|| StorageError::Damaged {
            path: tables.meta.clone(),
            what: format!("expected an LSN under {:?}, found {bytes:02x?}", String::from_utf8_lossy(key)),
        })
    };
    tables.note(key, decode)?.transpose()
}

/// The options that are not negotiable, and a few that keep a small node small.
fn options() -> Options {
    let mut options = Options::default();
    // A prefix of what was written, or nothing: with `evidence` this refuses what neither "tolerate corrupted tail"
    // nor "absolute consistency" gets right.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_recycle_log_file_num(log_space::RECYCLED_LOGS);
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
