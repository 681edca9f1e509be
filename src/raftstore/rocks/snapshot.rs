//! Capturing and filling snapshots in RocksDB. Taking one over is `flip`.
//!
//! **Captured** is a snapshot of RocksDB: effects, applied index and membership are one batch, so that any moment shows
//! them together, and the generation to be seen with them.
//!
//! **Filled** is a generation behind the one to be seen. The marker that names it is written first. If we die while it is
//! filled, the next start finds the marker and removes both. What is small is filled by batches: without a marker there is
//! nothing of it to be found, because a directory recovers to a prefix of the batches. What is large is filled by files,
//! which RocksDB takes over beside its log: so the marker is synced before the first of them.
//!
//! **Late fills.** What is being filled is known in memory alone, under a lock that each fill holds while it writes.
//! Destroying a group, taking over and beginning another snapshot hold it too, and forget it: whatever comes later is
//! refused, and nothing of it is written.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::read::Reader;
use super::{Known, RocksStore, put, read};
use crate::ident::GroupId;
use crate::raftstore::entry::Position;
use crate::raftstore::format::{self, Generation, Marker, Tag};
use crate::raftstore::log_store::{StoreError, StoredGroup};
use crate::raftstore::rules;
use crate::raftstore::rules::fill::{self, Begun, Fill};
use crate::raftstore::snapshot::{Captured, Pair, Place, SnapshotId, SnapshotMeta, SnapshotStore};
use crate::storage::{Batch, Durability, Family, Frozen, Ingesting, SortedFile, Storage};

/// What comes first of a snapshot goes through batches: most are smaller, and a file costs several syncs.
const MAX_BATCHED_BYTES: usize = 4 << 20;
/// Files are about as large: whoever destroys a group or begins another snapshot waits for the sync of one at most.
const FILE_BYTES: u64 = 32 << 20;
/// Locks for what is being filled. Groups share one only by chance.
const SHARDS: usize = 64;

/// What is being filled, of each group of a shard.
pub(super) type Filling = HashMap<GroupId, GenerationFill>;

/// What is being filled, of each group.
pub(super) struct Fills([Mutex<Filling>; SHARDS]);

/// A generation that is being filled.
pub(super) struct GenerationFill {
    pub fill: Fill,
    marker: Marker,
    /// All pairs so far, in files or not.
    size_bytes: usize,
    /// Whether the marker is durable.
    is_synced: bool,
    file: Option<SortedFile>,
    /// The file before. Dropping this waits for it: before what is there is removed, never after.
    ingesting: Option<Ingesting>,
}

impl Default for Fills {
    fn default() -> Fills {
        Fills(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Fills {
    /// Which lock is a group's.
    pub fn shard(group: GroupId) -> usize {
        usize::try_from(group.get() % SHARDS as u64).unwrap_or_default()
    }

    /// A shard, and nobody else has it meanwhile. Whoever takes several takes them in their order.
    pub fn lock(&self, shard: usize) -> MutexGuard<'_, Filling> {
        self.0[shard % SHARDS].lock()
    }

    /// The shard of a group.
    pub fn of(&self, group: GroupId) -> MutexGuard<'_, Filling> {
        self.lock(Fills::shard(group))
    }
}

impl GenerationFill {
    pub fn generation(&self) -> Generation {
        self.marker.generation
    }

    /// Adds pairs that were found to be in order.
    fn add(&mut self, storage: &Arc<Storage>, group: GroupId, pairs: &[Pair], is_last: bool) -> Result<(), StoreError> {
        let generation = self.marker.generation;
        self.size_bytes = pairs.iter().fold(self.size_bytes, |sum, pair| sum.saturating_add(pair.size_bytes()));
        if self.size_bytes <= MAX_BATCHED_BYTES {
            let mut batch = storage.batch()?;
            for Pair { place: Place { table, key }, value } in pairs {
                batch.put(read::family(*table), &format::table_key(group, generation, key), value);
            }
            return if batch.is_empty() { Ok(()) } else { Ok(storage.write(batch, Durability::Buffered)?) };
        }
        for Pair { place: Place { table, key }, value } in pairs {
            let family = read::family(*table);
            let is_full = |file: &SortedFile| file.family() != family || file.size_bytes() >= FILE_BYTES;
            if self.file.as_ref().is_some_and(is_full) {
                self.finish_file(storage, group)?;
            }
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(storage.sorted_file(family)?),
            };
            file.put(&format::table_key(group, generation, key), value)?;
        }
        if is_last {
            self.finish_file(storage, group)?;
            self.wait()?;
        }
        Ok(())
    }

    /// Begins to make the file that was written last a part of the generation.
    fn finish_file(&mut self, storage: &Arc<Storage>, group: GroupId) -> Result<(), StoreError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        if !self.is_synced {
            let mut batch = storage.batch()?;
            put(&mut batch, group, Tag::Marker, &self.marker.encode());
            storage.write(batch, Durability::Synced)?;
            self.is_synced = true;
        }
        self.wait()?;
        self.ingesting = Some(storage.ingest(file)?);
        Ok(())
    }

    fn wait(&mut self) -> Result<(), StoreError> {
        Ok(self.ingesting.take().map_or(Ok(()), Ingesting::wait)?)
    }
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

    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(Some(self.storage.free_bytes()?))
    }

    fn begin_fill(&self, group: GroupId, meta: &SnapshotMeta) -> Result<Option<Place>, StoreError> {
        let mut filling = self.fills.of(group);
        let before = filling.get(&group).map(|filling| &filling.fill);
        let fill = match fill::begin(group, self.outline(group), before, meta)? {
            Begun::Before(last) => return Ok(last),
            Begun::Anew(fill) => fill,
        };
        let generation = self.unused_generation(group)?;
        let mut batch = self.storage.batch()?;
        if let Some(before) = filling.remove(&group).map(|before| before.generation()) {
            delete_generation(&mut batch, group, before);
        }
        match self.reader().pairs(group, generation, None, 0) {
            Ok(pairs) if pairs.is_empty() => {}
            // There should be nothing; whatever there is must not become visible.
            Ok(_) => delete_generation(&mut batch, group, generation),
            Err(StoreError::Damaged { .. }) => self.cover(group, generation)?,
            Err(error) => return Err(error),
        }
        let marker = Marker { generation, id: meta.id, position: meta.position };
        put(&mut batch, group, Tag::Marker, &marker.encode());
        self.storage.write(batch, Durability::Buffered)?;
        filling.insert(
            group,
            GenerationFill { fill, marker, size_bytes: 0, is_synced: false, file: None, ingesting: None },
        );
        Ok(None)
    }

    fn fill(&self, group: GroupId, id: SnapshotId, pairs: &[Pair], is_last: bool) -> Result<(), StoreError> {
        let mut filling = self.fills.of(group);
        let Some(found) = filling.get_mut(&group) else { return Err(fill::not_filling(group, id)) };
        found.fill.check(group, id, pairs)?;
        match found.add(&self.storage, group, pairs, is_last) {
            Ok(()) => {
                found.fill.advance(pairs, is_last);
                Ok(())
            }
            Err(error) => {
                // Nobody knows how much of it is there.
                filling.remove(&group);
                Err(error)
            }
        }
    }

    fn abandon_fill(&self, group: GroupId, id: SnapshotId) -> Result<(), StoreError> {
        let mut filling = self.fills.of(group);
        let found = filling.get(&group).filter(|filling| filling.fill.id() == id);
        let Some(generation) = found.map(GenerationFill::generation) else { return Ok(()) };
        filling.remove(&group);
        let mut batch = self.storage.batch()?;
        delete_fill(&mut batch, group, generation);
        Ok(self.storage.write(batch, Durability::Buffered)?)
    }

    fn clear(&self, group: GroupId) -> Result<(), StoreError> {
        // The generation to be seen stays the same meanwhile.
        let _applier = self.applier.lock();
        let generation = rules::check_made(group, self.generation(group))?;
        let mut batch = self.storage.batch()?;
        delete_generation(&mut batch, group, generation);
        Ok(self.storage.write(batch, Durability::Buffered)?)
    }
}

impl RocksStore {
    /// Lets a generation be read though a damaged block lies before it, and everything later of the group.
    ///
    /// A block of a table file stands for all keys up to where the next begins. So what holds the last pairs of a generation is
    /// read by whoever looks for those of the next, which are not in it. Where all of that is removed by a newer word than the
    /// block, RocksDB does not look there: a removed range is sought beyond its end in what is older. That word stays newer,
    /// since what holds damage is not compacted.
    ///
    /// # Errors
    /// Refused: it cannot be read still. The replica stays as it is, and is repaired once the files were moved away from.
    fn cover(&self, group: GroupId, from: Generation) -> Result<(), StoreError> {
        let mut batch = self.storage.batch()?;
        let keys = format::tables_from(group, from);
        for family in read::FAMILIES {
            batch.delete_range(family, &keys.start..&keys.end);
        }
        self.storage.write(batch, Durability::Buffered)?;
        match self.reader().pairs(group, from, None, 0) {
            Ok(_) => Ok(()),
            Err(error @ StoreError::Damaged { .. }) => {
                Err(rules::refused(group, format!("a snapshot of it could not be read here: {error}")))
            }
            Err(error) => Err(error),
        }
    }

    /// A generation of which nothing was ever written, as far as is known: neither pairs, nor a removal of them, beneath
    /// which RocksDB could not lay a file without much ado.
    fn unused_generation(&self, group: GroupId) -> Result<Generation, StoreError> {
        let mut known = self.known.write();
        let Known { generations_until, .. } = rules::check_made(group, known.get_mut(&group))?;
        let unused = generations_until.next();
        *generations_until = unused.ok_or_else(|| rules::refused(group, "its generations are used up"))?;
        Ok(*generations_until)
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
