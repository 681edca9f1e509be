//! RocksDB's families as tables for the floors above: point reads, ordered scans, one atomic batch. What keys and
//! values mean is theirs to know.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamily, DB, DBRawIterator, ReadOptions, Snapshot, WriteBatch};

use super::error::StorageError;
use super::families::Families;

/// For a family that holds damage.
const PAUSED: [(&str, &str); 1] = [("disable_auto_compactions", "true")];

const FOUND: &str =
    "a table file is damaged: its family is not compacted any more, until a start has moved what is whole";

/// A column family of the floors above. Keys are composite and shared: a family per group would not scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Entries of Raft logs.
    RaftLog,
    /// What is kept beside each Raft log.
    RaftState,
    /// Databases, tablespaces, roles, descriptors.
    Catalog,
    /// Members, epochs, timelines, shards, placements, leases, settings, events.
    Cluster,
    /// Replication slots.
    Slots,
    /// Keys and values.
    Kv,
    /// Which commands of which clients were applied.
    Sessions,
}

impl Family {
    /// All of them, in the order of their declaration.
    pub(super) const ALL: [Family; 7] = [
        Family::RaftLog,
        Family::RaftState,
        Family::Catalog,
        Family::Cluster,
        Family::Slots,
        Family::Kv,
        Family::Sessions,
    ];

    /// Its name in RocksDB.
    pub const fn name(self) -> &'static str {
        match self {
            Family::RaftLog => "raft_log",
            Family::RaftState => "raft_state",
            Family::Catalog => "catalog",
            Family::Cluster => "cluster",
            Family::Slots => "slots",
            Family::Kv => "kv",
            Family::Sessions => "sessions",
        }
    }

    /// The families of tables: what a snapshot can bring again.
    pub(super) const TABLES: [Family; 5] =
        [Family::Catalog, Family::Cluster, Family::Slots, Family::Kv, Family::Sessions];
}

/// How much of a write has to be durable when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: it is there after a kill, and after a power cut if anything written later is.
    Buffered,
    /// It, and everything written before.
    Synced,
    /// The same, and a later loss of it is sure to be noticed: the evidence beside RocksDB covers it exactly. Takes a
    /// second sync.
    Evident,
}

/// RocksDB, open for writing or not.
#[derive(Debug)]
pub struct Tables {
    pub(super) meta: PathBuf,
    pub(super) db: DB,
    pub(super) families: Families,
    /// Whether what is found may be noted.
    pub(super) is_writable: bool,
}

/// The tables as they are, or as they were at one moment.
#[derive(Clone, Copy)]
pub struct TablesAt<'a> {
    tables: &'a Tables,
    /// `None`: as they are.
    moment: Option<&'a Snapshot<'a>>,
}

/// Changes that are written at once or not at all, in their order.
pub struct Batch<'a> {
    pub(super) changes: WriteBatch,
    /// In the order of [`Family::ALL`].
    families: [&'a ColumnFamily; Family::ALL.len()],
}

impl Tables {
    /// Where RocksDB's files are.
    pub fn path(&self) -> &Path {
        &self.meta
    }

    /// As they are, whenever they are looked at.
    pub fn now(&self) -> TablesAt<'_> {
        TablesAt { tables: self, moment: None }
    }

    /// Lets somebody look at them as of this moment, however long that takes.
    pub fn at_this_moment<T>(&self, read: impl FnOnce(TablesAt<'_>) -> T) -> T {
        let moment = self.db.snapshot();
        read(TablesAt { tables: self, moment: Some(&moment) })
    }

    /// Reads one of the storage's own notes.
    pub(super) fn note<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, StorageError> {
        let local = self.family(super::store::LOCAL)?;
        self.now().get_from(local, key, read).map_err(StorageError::rocksdb(&self.meta))
    }

    /// Writes, without a sync.
    pub(super) fn write(&self, changes: WriteBatch) -> Result<(), StorageError> {
        self.db.write(changes).map_err(StorageError::rocksdb(&self.meta))
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.db.flush_wal(true).map_err(StorageError::rocksdb(&self.meta))
    }

    pub(super) fn family(&self, name: &str) -> Result<&ColumnFamily, StorageError> {
        self.db.cf_handle(name).ok_or_else(|| StorageError::Damaged {
            path: self.meta.clone(),
            what: format!("expected a column family {name:?}, found none"),
        })
    }

    /// The column family that holds a family.
    pub(super) fn home(&self, family: Family) -> Result<&ColumnFamily, StorageError> {
        self.family(self.families.name(family))
    }

    /// Reading a family failed. If that was damage in a table, it is kept from compactions from here on.
    fn failed(&self, family: Family, error: rocksdb::Error) -> StorageError {
        let error = StorageError::rocksdb(&self.meta)(error);
        if let StorageError::Damaged { what, .. } = &error
            && Family::TABLES.contains(&family)
            && self.is_writable
            && !self.families.is_damaged(family)
        {
            let paused = self.home(family).map(|home| self.db.set_options_cf(home, &PAUSED));
            tracing::error!(family = family.name(), what, ?paused, "{FOUND}");
            self.note_damage(&[family]);
        }
        error
    }

    /// Damage was found, if not here, then by RocksDB itself.
    pub(super) fn note_damage(&self, families: &[Family]) {
        if let Err(error) = self.families.mark(&self.meta, families) {
            // It is found again, and then noted.
            tracing::error!(%error, "that a table file is damaged could not be noted");
        }
    }

    pub(super) fn batch(&self) -> Result<Batch<'_>, StorageError> {
        let [log, state, catalog, cluster, slots, kv, sessions] = Family::ALL.map(|family| self.home(family));
        let families = [log?, state?, catalog?, cluster?, slots?, kv?, sessions?];
        Ok(Batch { changes: WriteBatch::default(), families })
    }
}

impl<'a> TablesAt<'a> {
    /// Where RocksDB's files are.
    pub fn path(self) -> &'a Path {
        &self.tables.meta
    }

    /// Reads the value of a key where it lies; `None` if there is none.
    ///
    /// # Errors
    /// RocksDB failed, or found damage.
    pub fn get<T>(self, family: Family, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, StorageError> {
        self.get_from(self.tables.home(family)?, key, read).map_err(|error| self.tables.failed(family, error))
    }

    /// Visits the keys of a range and their values, in order, until it ends or the visitor breaks off. All of them are
    /// as of one moment.
    ///
    /// # Errors
    /// RocksDB failed, or found damage.
    pub fn scan(
        self,
        family: Family,
        range: Range<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let mut iterator = self.iterate(family, &range)?;
        iterator.seek(range.start);
        while let Some((key, value)) = iterator.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(|error| self.tables.failed(family, error))
    }

    /// Reads the last key of a range and its value where they lie; `None` if it is empty.
    ///
    /// # Errors
    /// RocksDB failed, or found damage.
    pub fn last<T>(
        self,
        family: Family,
        range: Range<&[u8]>,
        read: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Result<Option<T>, StorageError> {
        let mut iterator = self.iterate(family, &range)?;
        iterator.seek_to_last();
        match iterator.item() {
            Some((key, value)) => Ok(Some(read(key, value))),
            None => iterator.status().map(|()| None).map_err(|error| self.tables.failed(family, error)),
        }
    }

    fn iterate(self, family: Family, range: &Range<&[u8]>) -> Result<DBRawIterator<'a>, StorageError> {
        let mut options = self.options();
        options.set_iterate_lower_bound(range.start);
        options.set_iterate_upper_bound(range.end);
        Ok(self.tables.db.raw_iterator_cf_opt(self.tables.home(family)?, options))
    }

    fn options(self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if let Some(moment) = self.moment {
            options.set_snapshot(moment);
            // Whoever looks at a moment reads much and once: what others read stays in memory.
            options.fill_cache(false);
        }
        options
    }

    fn get_from<T>(
        self,
        family: &ColumnFamily,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, rocksdb::Error> {
        let value = match self.moment {
            None => self.tables.db.get_pinned_cf(family, key),
            Some(_) => self.tables.db.get_pinned_cf_opt(family, key, &self.options()),
        };
        Ok(value?.map(|value| read(&value)))
    }
}

impl<'a> Batch<'a> {
    /// Sets a key.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.changes.put_cf(self.family(family), key, value);
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.changes.delete_cf(self.family(family), key);
    }

    /// Removes all keys of a range; its end is not of it. Costs readers a little: for many keys at once.
    pub fn delete_range(&mut self, family: Family, range: Range<&[u8]>) {
        self.changes.delete_range_cf(self.family(family), range.start, range.end);
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn family(&self, family: Family) -> &'a ColumnFamily {
        self.families[family as usize]
    }
}
