//! A store that is only looked at: nothing is written, and damage in one group hides no other.

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use super::read::{EVERYTHING, Loaded, Reader};
use crate::ident::{GroupId, LogIndex, ReplicaId};
use crate::raftstore::check::{self, LogCheck, Violation};
use crate::raftstore::entry::{Entry, Position};
use crate::raftstore::format::{self, Marker};
use crate::raftstore::log_store::{KeyValue, StoreError, StoredGroup, Table};
use crate::raftstore::snapshot::{SnapshotId, own};
use crate::storage::StorageView;

/// Sets of tables of a group that are named at once; more of them say nothing new.
const MAX_GENERATIONS: usize = 10;

/// Pairs that tell whose tables they are.
const FIRST_PAIRS: usize = 2;

/// A store in a data directory on which no node runs.
#[derive(Debug)]
pub struct RocksView {
    storage: StorageView,
}

/// What lies in a log.
#[derive(Debug)]
pub enum StoredEntry {
    /// An entry.
    Whole(Entry),
    /// Something that is none.
    Damaged(LogIndex, StoreError),
}

/// A snapshot that was being filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFill {
    /// The set of tables that it is filled into: the one behind the one to be seen.
    pub generation: u32,
    /// Its name.
    pub id: SnapshotId,
    /// The last entry whose effects are in it.
    pub position: Position,
}

/// What checking a group showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Entries found in its log, and readable.
    pub entries: u64,
    /// Their bytes, of data and context.
    pub payload_bytes: u64,
    /// The rules that do not hold.
    pub violations: Vec<Violation>,
}

impl RocksView {
    /// Looks at a data directory.
    pub fn new(storage: StorageView) -> RocksView {
        RocksView { storage }
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader(self.storage.tables().now())
    }

    /// Where RocksDB's files are.
    pub fn path(&self) -> &Path {
        self.storage.tables().path()
    }

    /// The groups, in order, and the damage that belongs to none of them.
    ///
    /// # Errors
    /// RocksDB failed, or a key of a log is damaged.
    pub fn groups(&self) -> Result<(Vec<GroupId>, Vec<StoreError>), StoreError> {
        let reader = self.reader();
        let (groups, mut damage) = reader.groups()?;
        let strays = reader.logs()?.into_iter().filter(|group| groups.binary_search(group).is_err());
        damage.extend(strays.map(|group| reader.without_replica(group, "its log")));
        Ok((groups, damage))
    }

    /// What is stored of a group; `None` if it was never made.
    ///
    /// # Errors
    /// RocksDB failed, or a record is damaged.
    pub fn load(&self, group: GroupId) -> Result<Option<StoredGroup>, StoreError> {
        Ok(self.reader().load(group)?.map(|loaded| loaded.stored.with_applied_committed()))
    }

    /// The groups of which replicas were destroyed here, in order, and the last of each.
    ///
    /// # Errors
    /// See [`RocksView::load`].
    pub fn tombstones(&self) -> Result<Vec<(GroupId, ReplicaId)>, StoreError> {
        self.reader().tombstones()
    }

    /// Which of a group's sets of tables is the one to be seen; `None` if it was never made. The first is 1.
    ///
    /// # Errors
    /// See [`RocksView::load`].
    pub fn generation(&self, group: GroupId) -> Result<Option<u32>, StoreError> {
        Ok(self.reader().load(group)?.map(|loaded| loaded.generation.0))
    }

    /// The snapshot that was being filled; `None` if none was, or the group was never made. A start removes it.
    ///
    /// # Errors
    /// See [`RocksView::load`].
    pub fn filling(&self, group: GroupId) -> Result<Option<StoredFill>, StoreError> {
        let marker = self.reader().load(group)?.and_then(|loaded| loaded.marker);
        Ok(marker.map(|Marker { generation, id, position }| StoredFill { generation: generation.0, id, position }))
    }

    /// As of which entry a state was taken over that a machine which keeps its own position has yet to install; `None` if none
    /// waits, or the group was never made. The next start installs it.
    ///
    /// # Errors
    /// See [`RocksView::load`].
    pub fn waiting_install(&self, group: GroupId) -> Result<Option<Position>, StoreError> {
        let Some(Loaded { stored, generation, .. }) = self.reader().load(group)? else { return Ok(None) };
        let all = (Bound::Unbounded, Bound::Unbounded);
        own::seen(&stored, |table| self.reader().scan(group, generation, table, all, FIRST_PAIRS))
    }

    /// The value of a key in a group's table.
    ///
    /// # Errors
    /// See [`RocksView::load`].
    pub fn get(&self, group: GroupId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.reader().load(group)? {
            Some(Loaded { generation, .. }) => self.reader().get(group, generation, table, key),
            None => Ok(None),
        }
    }

    /// The pairs of a group's table whose keys lie in a range, in order, `limit` at most.
    ///
    /// # Errors
    /// See [`RocksView::load`].
    pub fn scan(
        &self,
        group: GroupId,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        match self.reader().load(group)? {
            Some(Loaded { generation, .. }) => self.reader().scan(group, generation, table, range, limit),
            None => Ok(Vec::new()),
        }
    }

    /// Visits what lies in a group's log from an index on, until the visitor breaks off.
    ///
    /// # Errors
    /// RocksDB failed, or a key is damaged.
    pub fn visit_log(
        &self,
        group: GroupId,
        from: LogIndex,
        mut visit: impl FnMut(StoredEntry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let reader = self.reader();
        reader.visit(group, from..EVERYTHING.end, |index, value| {
            visit(match format::decode_entry(index, value) {
                Ok(entry) => StoredEntry::Whole(entry),
                Err(mismatch) => StoredEntry::Damaged(index, reader.damaged_entry(group, index, mismatch)),
            })
        })
    }

    /// Checks everything that is stored of a group, entry by entry, whether it is where it should be or not.
    ///
    /// # Errors
    /// RocksDB failed, or a record is damaged.
    pub fn check(&self, group: GroupId) -> Result<Checked, StoreError> {
        let Some(Loaded { stored, generation, marker }) = self.reader().load(group)? else {
            return Err(StoreError::Refused(format!("there is no group {group}")));
        };
        let stored = stored.with_applied_committed();
        let mut checked = Checked { entries: 0, payload_bytes: 0, violations: check::check_bounds(&stored) };
        let mut log = LogCheck::new(&stored);
        self.reader().visit(group, EVERYTHING, |index, value| {
            match format::decode_entry_term(value) {
                Ok(term) => {
                    log.entry(Position { index, term });
                    checked.entries += 1;
                    checked.payload_bytes += format::payload_bytes(value) as u64;
                }
                Err(mismatch) => {
                    let found = format!("{} at entry {index}", mismatch.found);
                    log.unreadable(index, Violation { expected: mismatch.expected, found });
                }
            }
            ControlFlow::Continue(())
        })?;
        checked.violations.extend(log.finish());
        let filled = marker.map(|marker| marker.generation);
        let found = self.reader().generations(group, MAX_GENERATIONS)?;
        checked.violations.extend(check::check_generations(generation, filled, &found));
        Ok(checked)
    }
}
