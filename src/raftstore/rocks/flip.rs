//! Taking over a snapshot that was filled, and reading while that happens.
//!
//! One batch changes generation, applied index, membership and truncated position, and removes the log, the older
//! generation, the marker, and the word that the replica is unhealthy. If we die before it is durable, the old state is there and the marker; if behind, the new one
//! and no marker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::read::Reader;
use super::snapshot::{Filling, Fills, delete_through};
use super::{RocksStore, delete_entries, put};
use crate::ident::GroupId;
use crate::raftstore::entry::Position;
use crate::raftstore::format::{self, Generation, Replica, Tag};
use crate::raftstore::log_store::{LogWrite, StoreError};
use crate::raftstore::rules;
use crate::raftstore::rules::Step;
use crate::raftstore::rules::fill;
use crate::raftstore::snapshot::{Restore, SnapshotId};
use crate::storage::{Batch, Durability, Family};

/// While groups take over what was filled: nothing is applied or filled meanwhile, and readers look twice.
pub(super) struct Flip<'a> {
    store: &'a RocksStore,
    _applier: MutexGuard<'a, ()>,
    fills: BTreeMap<usize, MutexGuard<'a, Filling>>,
    taken: Vec<(GroupId, Generation)>,
}

impl<'a> Flip<'a> {
    /// Waits for what is being applied, and filled for the groups that take over something; `None` if none does.
    pub fn begin(store: &'a RocksStore, writes: &[LogWrite]) -> Option<Flip<'a>> {
        let groups = writes.iter().filter(|write| write.restore.is_some()).map(|write| write.group);
        let shards: BTreeSet<_> = groups.map(Fills::shard).collect();
        if shards.is_empty() {
            return None;
        }
        let applier = store.applier.lock();
        let fills = shards.into_iter().map(|shard| (shard, store.fills.lock(shard))).collect();
        Some(Flip { store, _applier: applier, fills, taken: Vec::new() })
    }

    /// What was filled of a group, if all of it is there.
    pub fn filled(&self, group: GroupId) -> Option<(SnapshotId, Position)> {
        self.fills.get(&Fills::shard(group))?.get(&group)?.fill.filled()
    }

    /// Puts into a batch what taking over a snapshot is: rules of durable order 3 and 4, so all of it is in this one.
    pub fn put(
        &mut self,
        batch: &mut Batch<'_>,
        group: GroupId,
        restore: &Restore,
        step: &Step,
    ) -> Result<(), StoreError> {
        let before = rules::check_made(group, self.store.reader().replica(group)?)?;
        let filled = self.fills.get(&Fills::shard(group)).and_then(|filling| filling.get(&group));
        let generation = filled.ok_or_else(|| fill::not_filling(group, restore.id))?.generation();
        let Restore { position, membership, .. } = restore;
        let replica = Replica { replica: before.replica, generation };
        put(batch, group, Tag::Replica, &replica.encode());
        put(batch, group, Tag::Membership, &format::encode_membership(membership));
        put(batch, group, Tag::Applied, &format::encode_applied(position.index));
        put(batch, group, Tag::Truncated, &format::encode_truncated(*position));
        if let Some(replaced) = &step.replaced {
            delete_entries(batch, group, replaced.clone());
        }
        delete_through(batch, group, before.generation);
        batch.delete(Family::RaftState, &format::state_key(group, Tag::Marker));
        batch.delete(Family::RaftState, &format::state_key(group, Tag::Unhealthy));
        self.taken.push((group, generation));
        Ok(())
    }

    /// Writes the batch; not synced, so that whoever applies or fills does not wait for that. If it fails, readers look at
    /// moments ever after.
    pub fn write(&self, batch: Batch<'_>) -> Result<(), StoreError> {
        self.store.flips.fetch_or(1, Ordering::SeqCst);
        Ok(self.store.storage.write(batch, Durability::Buffered)?)
    }

    /// The batch was written: everybody sees the new generations from here on.
    pub fn finish(mut self) {
        let mut known = self.store.known.write();
        for (group, generation) in &self.taken {
            if let Some(filling) = self.fills.get_mut(&Fills::shard(*group)) {
                filling.remove(group);
            }
            if let Some(known) = known.get_mut(group) {
                known.generation = *generation;
                known.outline.is_unhealthy = false;
            }
        }
        drop(known);
        self.store.flips.fetch_add(1, Ordering::SeqCst);
    }
}

impl RocksStore {
    /// Reads the tables of a group; `None` if it was never made. While a generation is flipped in RocksDB, and is not yet
    /// in memory, the one that is known there is empty: whoever may have met that looks again, at one moment.
    pub(super) fn read_tables<T>(
        &self,
        group: GroupId,
        read: impl Fn(Reader<'_>, Generation) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let before = self.flips.load(Ordering::SeqCst);
        if before.is_multiple_of(2) {
            let Some(generation) = self.generation(group) else { return Ok(None) };
            let found = read(self.reader(), generation)?;
            if self.flips.load(Ordering::SeqCst) == before {
                return Ok(Some(found));
            }
        }
        self.storage.tables().at_this_moment(|tables| {
            let replica = Reader(tables).replica(group)?;
            replica.map(|replica| read(Reader(tables), replica.generation)).transpose()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;
    use std::sync::Arc;

    use super::*;
    use crate::ident::{LogIndex, NodeId, ReplicaId, Term};
    use crate::raftstore::entry::{HardState, Membership};
    use crate::raftstore::log_store::{LogStore, Table, TableStore};
    use crate::raftstore::snapshot::{Pair, Place, SnapshotMeta, SnapshotStore};
    use crate::storage::Storage;

    /// The old generation is gone from RocksDB already, and memory still says that it is the one to be seen.
    #[test]
    fn whoever_reads_in_the_middle_of_a_flip_sees_the_new_state() {
        let place = tempfile::tempdir().unwrap();
        let store = RocksStore::open(Arc::new(Storage::open(place.path(), 1 << 20).unwrap())).unwrap();
        let group = GroupId::new(1);
        let membership = Membership::of_voters([(ReplicaId::new(1), NodeId::new(1))]);
        let hard_state = HardState { term: Term::new(2), vote: None, commit: LogIndex::default() };
        let create = Some((ReplicaId::new(1), membership.clone()));
        store.write(&[LogWrite { create, hard_state: Some(hard_state), ..LogWrite::new(group) }], true).unwrap();
        let flip_to = |number: u64| {
            let (id, position) = (SnapshotId(number), Position::new(number, 2));
            let meta = SnapshotMeta { id, position, membership: membership.clone() };
            store.begin_fill(group, &meta).unwrap();
            let place = Place { table: Table::Kv, key: b"key".to_vec() };
            store.fill(group, id, &[Pair { place, value: vec![number as u8] }], true).unwrap();
            let restore = Some(Restore { id, position, membership: membership.clone() });
            LogWrite { restore, ..LogWrite::new(group) }
        };
        let seen = || {
            let all = store.scan(group, Table::Kv, (Bound::Unbounded, Bound::Unbounded), 9).unwrap();
            assert_eq!(store.get(group, Table::Kv, b"key").unwrap(), all.first().map(|(_, value)| value.clone()));
            all.into_iter().map(|(_, value)| value[0]).collect::<Vec<_>>()
        };
        store.write(&[flip_to(1)], false).unwrap();
        assert_eq!(seen(), [1]);
        let writes = [flip_to(2)];
        let mut flip = Flip::begin(&store, &writes).unwrap();
        let mut batch = store.storage.batch().unwrap();
        flip.put(&mut batch, group, writes[0].restore.as_ref().unwrap(), &Step::default()).unwrap();
        assert_eq!(seen(), [1]);
        flip.write(batch).unwrap();
        assert_eq!(seen(), [2]);
        flip.finish();
        assert_eq!(seen(), [2]);
        assert!(store.flips.load(Ordering::SeqCst).is_multiple_of(2), "readers look at moments no more");
    }
}
