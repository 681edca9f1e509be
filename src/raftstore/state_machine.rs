//! What an embedder of the raftstore implements.
//!
//! A machine lives in one of two places. One **in tables** writes all its state into the batch that it is given, and has
//! effects and applied index in one write, sessions, snapshots and consistency checks without further thought. One that
//! **keeps its own position** has a store of its own and says itself where it has got to
//! ([`own_applied`](StateMachine::own_applied)); it writes nothing into the batch, and gives and takes snapshots if it
//! implements [`MachineSnapshots`]. How the two stores agree whatever a crash leaves is told in
//! [`super::snapshot`].

use std::collections::HashMap;

use bytes::Bytes;

use super::log_store::{KeyValue, StoreError, Table, TableStore, TableWrite};
use crate::ident::{GroupId, LogIndex};

/// A committed command.
#[derive(Clone, Debug)]
pub struct Command<'a> {
    /// Where it stands in the log.
    pub index: LogIndex,
    /// What was proposed.
    pub data: &'a [u8],
}

/// A deterministic machine that a group replicates. Equal commands in equal order give equal states and responses on
/// every replica: no clock, no randomness, no map with a random order.
pub trait StateMachine: Send + 'static {
    /// Where the machine itself says it has got to, if it keeps its own position; `None` if it writes all its state
    /// into the batch, and so has effects and applied index in one write without further thought. Always the one or always
    /// the other. Of a replica that was just made it is 0: a machine is not handed from one replica to another.
    ///
    /// # Errors
    /// The group does not start.
    fn own_applied(&self) -> Result<Option<LogIndex>, ApplyError> {
        Ok(None)
    }

    /// Applies commands in order and answers each, in order.
    ///
    /// # Errors
    /// The group stops on this replica: a command is never skipped. Of [damage](StoreError::Damaged) in a group that takes
    /// snapshots it waits for one instead.
    fn apply(&mut self, commands: &[Command<'_>], batch: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError>;

    /// The tables were replaced by those of a snapshot, which holds the effects of everything up to `index`: what the
    /// machine keeps in memory of them has to be read again. Never asked of machines that keep their own position.
    ///
    /// # Errors
    /// The group stops on this replica.
    fn restored(&mut self, index: LogIndex) -> Result<(), ApplyError> {
        let _ = index;
        Ok(())
    }

    /// What the last [`apply`](StateMachine::apply) put into the batch can be read in the store from now on.
    fn written(&mut self) {}

    /// Makes durable what the machine keeps outside of the batch, and says up to where. Only asked of machines that
    /// keep their own position, before the log is compacted.
    ///
    /// # Errors
    /// The group stops on this replica.
    fn flush(&mut self) -> Result<LogIndex, ApplyError> {
        Ok(LogIndex::default())
    }

    /// How a machine that keeps its own position gives and takes its state. `None`: not at all. Then nobody joins its
    /// group, its log is kept for the slowest follower, and what its replicas hold is never compared. Always the one or
    /// always the other; never asked of a machine in tables, whose tables say it all.
    fn snapshots(&mut self) -> Option<&mut dyn MachineSnapshots> {
        None
    }
}

/// How a machine that keeps its own position gives its state to others and takes it from them. Both happen between two
/// batches of commands.
pub trait MachineSnapshots {
    /// The state as of everything that was applied, visible or durable. It does not change while the machine goes on, and is
    /// read meanwhile on other threads. Equal states give equal pairs, whatever way led to them: they are compared.
    ///
    /// # Errors
    /// As of [`StateMachine::apply`].
    fn capture(&mut self) -> Result<Box<dyn MachineState>, ApplyError>;

    /// Replaces everything by another replica's state, which holds the effects of everything up to `index`. On return it is
    /// durable, and [`own_applied`](StateMachine::own_applied) answers `index`.
    ///
    /// If we die before, the machine must open again and say that it is at `index` at most, and whatever it holds then is
    /// replaced: this is called once more, with the same state, before anything else. So it may come twice, also to a machine
    /// that is at `index` already, and also to one that has met damage.
    ///
    /// # Errors
    /// The group stops on this replica, and tries again when it is opened next.
    fn install(&mut self, index: LogIndex, state: &dyn MachineState) -> Result<(), ApplyError>;
}

/// The state of a machine that keeps its own position, as pairs in the rising order of their keys. What they mean is the
/// machine's to know.
pub trait MachineState: Send + Sync {
    /// The pairs behind a key, or from the first on, up to about `limit_bytes` of keys and values but at least one. Empty at
    /// the end.
    ///
    /// # Errors
    /// See [`StoreError`]. [`Damaged`](StoreError::Damaged): the state here is wrong, and a snapshot has to replace it.
    fn read(&self, after: Option<&[u8]>, limit_bytes: usize) -> Result<Vec<KeyValue>, StoreError>;
}

/// Why a command could not be applied: the group stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine cannot go on.
    #[error("{0}")]
    Machine(String),
}

/// Collects the effects of commands; they become visible and durable together with the applied index. Reading through
/// it shows what earlier commands of the same batch wrote.
pub struct ApplyBatch<'a> {
    store: &'a dyn TableStore,
    group: GroupId,
    writes: Vec<TableWrite>,
    /// The latest write of each key: its place in `writes`.
    latest: HashMap<(Table, Vec<u8>), usize>,
}

impl<'a> ApplyBatch<'a> {
    /// An empty batch.
    pub fn new(store: &'a dyn TableStore, group: GroupId) -> ApplyBatch<'a> {
        ApplyBatch { store, group, writes: Vec::new(), latest: HashMap::new() }
    }

    /// Sets a key.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let key = key.into();
        self.latest.insert((table, key.clone()), self.writes.len());
        self.writes.push(TableWrite::Put(table, key, value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        let key = key.into();
        self.latest.insert((table, key.clone()), self.writes.len());
        self.writes.push(TableWrite::Delete(table, key));
    }

    /// The value of a key as of the last command.
    ///
    /// # Errors
    /// The store failed.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.latest.get(&(table, key.to_vec())).and_then(|place| self.writes.get(*place)) {
            Some(TableWrite::Put(_, _, value)) => Ok(Some(value.clone())),
            Some(TableWrite::Delete(..)) => Ok(None),
            None => self.store.get(self.group, table, key),
        }
    }

    /// What was collected, in order.
    pub fn writes(&self) -> &[TableWrite] {
        &self.writes
    }
}
