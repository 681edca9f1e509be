//! Capturing and taking snapshots in RocksDB.
//!
//! **Captured** is a snapshot of RocksDB: effects, applied index and membership are one batch, so that any moment shows
//! them together, and the generation to be seen with them.
//!
//! **Filled** is the generation behind the one to be seen. The marker that says so is written first, in one batch with the
//! removal of what lay there. If we die while it is filled, the next start finds the marker and removes both; without a
//! marker there is nothing to be found, because a directory recovers to a prefix of the batches.
//!
//! **Taken over** it is by one batch: generation, applied index, membership and truncated position change, the log and all
//! older generations go, and the marker with them. If we die before it is durable, the old state is there and the marker;
//! if behind, the new one and no marker.
//!
//! **Late fills.** What is being filled is known in memory alone, under a lock that each fill holds while it writes.
//! Destroying a group, taking over and beginning another snapshot hold it too, and forget it: whatever comes later is
//! refused, and nothing of it is written.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::read::Reader;
use super::{RocksStore, delete_entries, put, read};
use crate::ident::GroupId;
use crate::raftstore::entry::Position;
use crate::raftstore::format::{self, Generation, Marker, Replica, Tag};
use crate::raftstore::log_store::{StoreError, StoredGroup};
use crate::raftstore::rules;
use crate::raftstore::rules::Step;
use crate::raftstore::rules::fill::{self, Begun, Fill};
use crate::raftstore::snapshot::{Captured, Pair, Place, Restore, SnapshotId, SnapshotMeta, SnapshotStore};
use crate::storage::{Batch, Durability, Family, Frozen};

/// What is being filled, of each group.
pub(super) type Filling = HashMap<GroupId, GenerationFill>;

pub(super) struct GenerationFill {
    fill: Fill,
    generation: Generation,
}

/// A group's tables as of one moment.
struct RocksCaptured {
    meta: SnapshotMeta,
    group: GroupId,
    generation: Generation,
    tables: Frozen,
}

impl Captured for RocksCaptured {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn read(&self, after: Option<&Place>, limit_bytes: usize) -> Result<Vec<Pair>, StoreError> {
        let (group, generation, after) = (self.group, self.generation, after.cloned());
        self.tables.read(move |tables| Reader(tables).pairs(group, generation, after.as_ref(), limit_bytes))?
    }
}

impl SnapshotStore for RocksStore {
    fn capture(&self, group: GroupId, id: SnapshotId) -> Result<Box<dyn Captured>, StoreError> {
        let tables = Frozen::new(self.storage.clone())?;
        let found = tables.read(move |tables| {
            let loaded = rules::check_made(group, Reader(tables).load(group)?)?;
            let StoredGroup { applied, membership, .. } = loaded.stored;
            let term = Reader(tables).term(group, applied)?.ok_or_else(|| rules::missing(group, applied))?;
            let position = Position { index: applied, term };
            Ok::<_, StoreError>((SnapshotMeta { id, position, membership }, loaded.generation))
        });
        let (meta, generation) = found??;
        Ok(Box::new(RocksCaptured { meta, group, generation, tables }))
    }

    fn begin_fill(&self, group: GroupId, meta: &SnapshotMeta) -> Result<Option<Place>, StoreError> {
        let mut filling = self.filling.lock();
        let before = filling.get(&group).map(|filling| &filling.fill);
        let fill = match fill::begin(group, self.outline(group), before, meta)? {
            Begun::Before(last) => return Ok(last),
            Begun::Anew(fill) => fill,
        };
        let seen = rules::check_made(group, self.generation(group))?;
        let generation = seen.next().ok_or_else(|| StoreError::Refused(format!("group {group}: no more snapshots")))?;
        let marker = Marker { generation, id: meta.id, position: meta.position };
        // Whatever happens to this write: what was filled before is not there any more.
        filling.remove(&group);
        let mut batch = self.storage.batch()?;
        delete_generation(&mut batch, group, generation);
        put(&mut batch, group, Tag::Marker, &marker.encode());
        self.storage.write(batch, Durability::Buffered)?;
        filling.insert(group, GenerationFill { fill, generation });
        Ok(None)
    }

    fn fill(&self, group: GroupId, id: SnapshotId, pairs: &[Pair], is_last: bool) -> Result<(), StoreError> {
        let mut filling = self.filling.lock();
        let Some(GenerationFill { fill, generation }) = filling.get_mut(&group) else {
            return Err(fill::not_filling(group, id));
        };
        fill.check(group, id, pairs)?;
        let mut batch = self.storage.batch()?;
        for Pair { place: Place { table, key }, value } in pairs {
            batch.put(read::family(*table), &format::table_key(group, *generation, key), value);
        }
        if !batch.is_empty() {
            self.storage.write(batch, Durability::Buffered)?;
        }
        fill.advance(pairs, is_last);
        Ok(())
    }

    fn abandon_fill(&self, group: GroupId, id: SnapshotId) -> Result<(), StoreError> {
        let mut filling = self.filling.lock();
        let Some(generation) = filling.get(&group).filter(|filling| filling.fill.id() == id).map(|it| it.generation)
        else {
            return Ok(());
        };
        filling.remove(&group);
        let mut batch = self.storage.batch()?;
        delete_fill(&mut batch, group, generation);
        Ok(self.storage.write(batch, Durability::Buffered)?)
    }
}

/// Removes what is left of snapshots that were being filled when the store was closed.
pub(super) fn remove_leftovers(store: &RocksStore, markers: &[(GroupId, Marker)]) -> Result<(), StoreError> {
    if markers.is_empty() {
        return Ok(());
    }
    let mut batch = store.storage.batch()?;
    for (group, Marker { generation, id, position }) in markers {
        tracing::info!(%group, snapshot = %id, %position, "a snapshot that was not all there is removed");
        delete_fill(&mut batch, *group, *generation);
    }
    Ok(store.storage.write(batch, Durability::Buffered)?)
}

fn delete_fill(batch: &mut Batch<'_>, group: GroupId, generation: Generation) {
    delete_generation(batch, group, generation);
    batch.delete(Family::RaftState, &format::state_key(group, Tag::Marker));
}

fn delete_generation(batch: &mut Batch<'_>, group: GroupId, generation: Generation) {
    let keys = format::generation_range(group, generation);
    for family in read::FAMILIES {
        batch.delete_range(family, &keys.start..&keys.end);
    }
}

/// Removes all tables of a group up to a generation.
pub(super) fn delete_through(batch: &mut Batch<'_>, group: GroupId, generation: Generation) {
    let keys = format::tables_through(group, generation);
    for family in read::FAMILIES {
        batch.delete_range(family, &keys.start..&keys.end);
    }
}

/// While groups take over what was filled: nothing is applied or filled meanwhile, and readers look twice.
pub(super) struct Flip<'a> {
    store: &'a RocksStore,
    _applier: MutexGuard<'a, ()>,
    filling: MutexGuard<'a, Filling>,
    taken: Vec<(GroupId, Generation)>,
}

impl<'a> Flip<'a> {
    /// Waits for what is being applied and filled.
    pub fn begin(store: &'a RocksStore) -> Flip<'a> {
        Flip { store, _applier: store.applier.lock(), filling: store.filling.lock(), taken: Vec::new() }
    }

    /// What was filled of a group, if all of it is there.
    pub fn filled(&self, group: GroupId) -> Option<(SnapshotId, Position)> {
        self.filling.get(&group)?.fill.filled()
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
        let Some(filled) = self.filling.get(&group) else { return Err(fill::not_filling(group, restore.id)) };
        let Restore { position, membership, .. } = restore;
        let replica = Replica { replica: before.replica, generation: filled.generation };
        put(batch, group, Tag::Replica, &replica.encode());
        put(batch, group, Tag::Membership, &format::encode_membership(membership));
        put(batch, group, Tag::Applied, &format::encode_applied(position.index));
        put(batch, group, Tag::Truncated, &format::encode_truncated(*position));
        if let Some(replaced) = &step.replaced {
            delete_entries(batch, group, replaced.clone());
        }
        delete_through(batch, group, before.generation);
        batch.delete(Family::RaftState, &format::state_key(group, Tag::Marker));
        self.taken.push((group, filled.generation));
        Ok(())
    }

    /// The batch is written next. If that fails, readers look at moments ever after.
    pub fn announce(&self) {
        self.store.flips.fetch_or(1, Ordering::SeqCst);
    }

    /// The batch was written: everybody sees the new generations from here on.
    pub fn finish(mut self) {
        let mut known = self.store.known.write();
        for (group, generation) in &self.taken {
            self.filling.remove(group);
            if let Some(known) = known.get_mut(group) {
                known.generation = *generation;
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
