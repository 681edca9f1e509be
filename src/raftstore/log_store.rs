//! Where logs and applied state are kept, as the raftstore sees it. [`super::rocks`] keeps them in RocksDB,
//! [`super::memory`] in memory; [`super::conformance`] is what any other has to pass.

use std::ops::{Bound, Range};

use super::entry::{Entry, HardState, Membership, Position, Unhealthy};
use super::snapshot::{Restore, SnapshotStore};
use crate::ident::{GroupId, LogIndex, ReplicaId, Term};

/// What is stored of a group, as found when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// The replica that this store holds.
    pub replica: ReplicaId,
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// The membership as of `applied`.
    pub membership: Membership,
    /// Up to where effects are in the tables. For a machine that keeps its own position, what was noted last.
    pub applied: LogIndex,
    /// The last entry that was compacted away; the log goes on behind it.
    pub truncated: Position,
    /// The last entry; `truncated` if there is none.
    pub last: Position,
    /// Its applied state is not to be trusted.
    pub unhealthy: Option<Unhealthy>,
}

impl StoredGroup {
    /// Commit and applied index are written by different threads: what is applied was committed, whatever was noted.
    #[must_use]
    pub(super) fn with_applied_committed(mut self) -> StoredGroup {
        self.hard_state.commit = self.hard_state.commit.max(self.applied);
        self
    }
}

/// What is written of a group, in this order, in one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LogWrite {
    /// Which group.
    pub group: GroupId,
    /// Makes the group. Refused if there is one, or if this replica or a later one was destroyed here.
    pub create: Option<(ReplicaId, Membership)>,
    /// Takes over a snapshot that was filled: its tables become the ones to be seen, its position is applied and
    /// truncated, and the whole log before goes. What was wrong with the state is wrong no more. Refused unless that very
    /// snapshot was filled completely, is ahead of what is applied (of an unhealthy replica: not behind it), and not behind
    /// what is committed. Nothing is applied to the group meanwhile.
    pub restore: Option<Restore>,
    /// Replaces term, vote and commit.
    pub hard_state: Option<HardState>,
    /// Consecutive entries; they replace everything from the first one's index on.
    pub entries: Vec<Entry>,
    /// Compacts the log: this entry and all before it go, its position stays known. Never beyond what is applied; what
    /// is compacted already is left alone.
    pub truncate: Option<Position>,
}

impl LogWrite {
    /// Writes nothing yet.
    pub fn new(group: GroupId) -> LogWrite {
        LogWrite { group, create: None, restore: None, hard_state: None, entries: Vec::new(), truncate: None }
    }
}

/// Keeps the logs of all groups of a node.
///
/// After a crash a store holds a *prefix* of all that was written to it, logs and tables together, and at least
/// everything up to the last synced write.
pub trait LogStore: Send + Sync + 'static {
    /// Called once before the first group is opened: makes ready what writes need to be fast from the first on, and gets rid of
    /// what is damaged, if all that is wanted was repaired.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Called when nothing was written for a moment, and last of all: makes sure that a later loss of what was synced so
    /// far is noticed at the next opening.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The groups that were made, in order.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn groups(&self) -> Result<Vec<GroupId>, StoreError>;

    /// What is stored of a group; `None` if it was never made.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn load(&self, group: GroupId) -> Result<Option<StoredGroup>, StoreError>;

    /// Writes in order, all or nothing. With `sync` this and everything written before is durable on return. A change of
    /// term or vote is covered by evidence then: a directory that lost it does not open again.
    ///
    /// # Errors
    /// See [`StoreError`]. What is [`Refused`](StoreError::Refused) was not written. After any other error it is not
    /// known what was written, and every later write fails too (rule of durable order 5).
    fn write(&self, writes: &[LogWrite], sync: bool) -> Result<(), StoreError>;

    /// Removes a group for good: log, records and tables. What stays is a tombstone: no replica of the group up to this
    /// one is made here again, whatever arrives late. Durable on return, and covered by evidence as a vote is.
    ///
    /// # Errors
    /// See [`StoreError`]; [`Refused`](StoreError::Refused) if there is no such group.
    fn destroy(&self, group: GroupId) -> Result<(), StoreError>;

    /// The groups of which replicas were destroyed here, in order, and the last of each.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn tombstones(&self) -> Result<Vec<(GroupId, ReplicaId)>, StoreError>;

    /// Notes that a replica's state is wrong, until a snapshot is taken over. May be called on any thread. With `sync` it is
    /// durable on return; without, whatever is written later is not there without it.
    ///
    /// # Errors
    /// See [`StoreError`]; [`Refused`](StoreError::Refused) if there is no such group, or it is of an entry that was not
    /// applied.
    fn mark_unhealthy(&self, group: GroupId, unhealthy: Unhealthy, sync: bool) -> Result<(), StoreError>;

    /// The entries of a range, from its start up to `limit_bytes` but at least one, fewer than asked for if the log
    /// ends before. An empty answer means that the first one is not there.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn entries(&self, group: GroupId, range: Range<LogIndex>, limit_bytes: usize) -> Result<Vec<Entry>, StoreError>;

    /// The term of an entry, or of the one truncated last; `None` if it is not there.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn term(&self, group: GroupId, index: LogIndex) -> Result<Option<Term>, StoreError>;
}

/// A table of applied state. Each group sees only its own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Members, epochs, timelines, shards, placements, leases, settings, events.
    Cluster,
    /// Databases, tablespaces, roles, descriptors.
    Catalog,
    /// Replication slots.
    Slots,
    /// Keys and values.
    Kv,
    /// Which commands of which clients were applied. The raftstore's own; no state machine writes it.
    Sessions,
}

impl Table {
    /// All of them, in their order.
    pub const ALL: [Table; 5] = [Table::Cluster, Table::Catalog, Table::Slots, Table::Kv, Table::Sessions];
}

/// One change to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableWrite {
    /// Sets a key.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Table, Vec<u8>),
}

/// What an apply batch brings a group to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedTo {
    /// Everything up to here is applied.
    pub index: LogIndex,
    /// The membership, if it changed.
    pub membership: Option<Membership>,
}

/// Effects of a group's commands.
#[derive(Clone, Copy, Debug)]
pub struct ApplyWrite<'a> {
    /// Whose.
    pub group: GroupId,
    /// In order.
    pub writes: &'a [TableWrite],
    /// What they stand for.
    pub applied: &'a AppliedTo,
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Keeps the applied state of groups whose state machines live in tables.
pub trait TableStore: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn get(&self, group: GroupId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The pairs whose keys lie in a range, in order, `limit` at most.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn scan(
        &self,
        group: GroupId,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError>;

    /// Writes effects of several groups, each once, and the applied indexes they stand for: one write, all or nothing,
    /// not synced. The logs are kept until it is.
    ///
    /// # Errors
    /// See [`StoreError`]. What is [`Refused`](StoreError::Refused) was not written, nor was anything else: an index that
    /// goes back, or beyond the last entry. After any other error every later write fails too.
    fn apply_all(&self, groups: &[ApplyWrite<'_>]) -> Result<(), StoreError>;

    /// The same of one group.
    ///
    /// # Errors
    /// See [`apply_all`](TableStore::apply_all).
    fn apply(&self, group: GroupId, writes: &[TableWrite], applied: &AppliedTo) -> Result<(), StoreError> {
        self.apply_all(&[ApplyWrite { group, writes, applied }])
    }
}

/// A store of logs and tables that captures and takes snapshots.
pub trait GroupStore: LogStore + TableStore + SnapshotStore {}
impl<S: LogStore + TableStore + SnapshotStore> GroupStore for S {}

/// Why a store could not do what it was asked to. All of them mean that *this node must stop*.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// Stored bytes are wrong, or contradict each other.
    #[error("{place} is damaged: {what}")]
    Damaged {
        /// Which file, table or key.
        place: String,
        /// What was expected and what was found.
        what: String,
    },
    /// The store failed.
    #[error("{0}")]
    Failed(String),
    /// It failed before, and what it holds is no longer known.
    #[error("the store failed earlier: {0}")]
    Poisoned(String),
    /// The caller asked for what makes no sense, such as entries that leave a gap.
    #[error("refused to write: {0}")]
    Refused(String),
}
