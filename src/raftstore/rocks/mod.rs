//! A store in RocksDB.
//!
//! | file | what it holds |
//! |---|---|
//! | `read` | reading, the same for a store and for a look at one |
//! | `snapshot` | capturing and filling snapshots |
//! | `flip` | taking them over |
//! | `evacuate` | getting rid of damaged table files |
//! | `recover` | a group whose majority was lost goes on alone |
//! | `view` | a store that is only looked at |
//!
//! Keys and values are those of `format`, what may be written is judged by `rules`, and damage by
//! [`super::check`] at each opening; what is left for here is to put it all into one batch.
//!
//! **What a crash leaves.** RocksDB keeps one log for all its families, so a directory recovers to a prefix of the
//! batches, of logs and tables alike, and at least to the last synced one ([`Storage::write`]). So a batch of effects
//! needs no sync: if it is lost, so is every later truncation of the log, and the entries are applied once more. And
//! rule of durable order 3 holds because effects, applied index and membership are one batch. That RocksDB writes out
//! the memory of one family before that of another changes nothing: before it does, it syncs the logs that fed it.
//!
//! **Threads.** `write` belongs to one thread at a time, `apply` to one as well, and neither waits for the other, but for
//! a write that takes over a snapshot: it lets nothing be applied or filled until it is done. Reading waits for nobody. A read may see what is written but not yet durable: whoever says so to others waits for
//! `write` to return.
//!
//! It knows the last entry of each group, so that appending neither reads nor leaves tombstones.

mod evacuate;
mod flip;
mod read;
mod recover;
mod snapshot;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use super::check;
use super::entry::{Entry, HardState, Membership, Position, Unhealthy};
use super::format::{self, Generation, Replica, Tag};
use super::log_store::{
    ApplyWrite, KeyValue, LogStore, LogWrite, StoreError, StoredGroup, Table, TableStore, TableWrite,
};
use super::rules::{self, Outline, Step};
use crate::ident::{GroupId, LogIndex, ReplicaId, Term};
use crate::storage::{Batch, Durability, Family, Storage};
use flip::Flip;
use read::{Loaded, Reader};
use snapshot::Fills;
pub use view::{Checked, RocksView, StoredEntry, StoredFill};

/// A larger buffer is not kept for the next write.
const MAX_BUFFER_BYTES: usize = 1 << 20;

/// A store in RocksDB.
pub struct RocksStore {
    storage: Arc<Storage>,
    /// What is known of each group without reading. Taken for moments only.
    known: RwLock<HashMap<GroupId, Known>>,
    /// Groups of which replicas were destroyed, and the last of each. Taken for moments only.
    tombstones: RwLock<BTreeMap<GroupId, ReplicaId>>,
    /// Held during a log write, with a buffer for the values of its entries.
    writer: Mutex<Vec<u8>>,
    /// Held during an apply, and while it is noted that a state is wrong. Taken behind `writer`.
    applier: Mutex<()>,
    /// What is being filled. Taken behind `applier`.
    fills: Fills,
    /// Odd while generations are flipped, and another afterwards.
    flips: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Known {
    outline: Outline,
    /// The one to be seen.
    generation: Generation,
    /// The last of which anything was written.
    generations_until: Generation,
}

impl RocksStore {
    /// The store in a data directory. Checks all of its groups, without reading their logs.
    ///
    /// # Errors
    /// RocksDB failed, or what is stored of a group is damaged.
    pub fn open(storage: Arc<Storage>) -> Result<RocksStore, StoreError> {
        let reader = Reader(storage.tables().now());
        let (mut known, mut markers) = (HashMap::new(), Vec::new());
        for group in reader.all_groups()? {
            let Some(Loaded { stored, generation, marker }) = reader.load(group)? else { continue };
            markers.extend(marker.map(|marker| (group, marker)));
            let generations_until = marker.map_or(generation, |marker| marker.generation);
            known.insert(group, Known { outline: Outline::from(&stored), generation, generations_until });
            check::refuse(
                || format!("group {group} in {}", storage.tables().path().display()),
                &check::check_bounds(&stored.with_applied_committed()),
            )?;
        }
        if let Some(group) = reader.logs()?.into_iter().find(|group| !known.contains_key(group)) {
            return Err(reader.without_replica(group, "its log"));
        }
        let tombstones = RwLock::new(reader.tombstones()?.into_iter().collect());
        let (writer, applier, fills) = (Mutex::default(), Mutex::default(), Fills::default());
        let (known, flips) = (RwLock::new(known), AtomicU64::new(0));
        let store = RocksStore { storage, known, tombstones, writer, applier, fills, flips };
        snapshot::remove_leftovers(&store, &markers)?;
        Ok(store)
    }

    fn reader(&self) -> Reader<'_> {
        Reader(self.storage.tables().now())
    }

    fn outline(&self, group: GroupId) -> Option<Outline> {
        self.known.read().get(&group).map(|known| known.outline)
    }

    fn generation(&self, group: GroupId) -> Option<Generation> {
        self.known.read().get(&group).map(|known| known.generation)
    }
}

impl LogStore for RocksStore {
    fn prepare(&self) -> Result<(), StoreError> {
        self.evacuate()?;
        Ok(self.storage.keep_log_space()?)
    }

    fn settle(&self) -> Result<(), StoreError> {
        Ok(self.storage.settle()?)
    }

    fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        self.reader().all_groups()
    }

    fn load(&self, group: GroupId) -> Result<Option<StoredGroup>, StoreError> {
        // Records and log are two reads: nothing is written between them.
        let (_writer, _applier) = (self.writer.lock(), self.applier.lock());
        Ok(self.reader().load(group)?.map(|loaded| loaded.stored.with_applied_committed()))
    }

    fn write(&self, writes: &[LogWrite], sync: bool) -> Result<(), StoreError> {
        let mut buffer = self.writer.lock();
        let mut flip = Flip::begin(self, writes);
        let plan = rules::plan(
            writes,
            |group| self.outline(group),
            |group| self.tombstones.read().get(&group).copied(),
            |group| flip.as_ref()?.filled(group),
            |group, index| self.reader().term(group, index),
        )?;
        let mut batch = self.storage.batch()?;
        for (write, step) in writes.iter().zip(&plan.steps) {
            put_log_write(&mut batch, write, step, flip.as_mut(), &mut buffer)?;
        }
        let durability = match (sync, plan.votes) {
            (false, _) => Durability::Buffered,
            (true, false) => Durability::Synced,
            // A vote that is lost unnoticed is given twice.
            (true, true) => Durability::Evident,
        };
        match &flip {
            None => self.storage.write(batch, durability)?,
            Some(flip) => flip.write(batch)?,
        }
        if buffer.capacity() > MAX_BUFFER_BYTES {
            *buffer = Vec::new();
        }
        let mut known = self.known.write();
        for (group, outline) in &plan.outlines {
            known.entry(*group).or_default().outline.set_log(outline);
        }
        drop(known);
        if let Some(flip) = flip {
            flip.finish();
            if durability != Durability::Buffered {
                self.storage.write(self.storage.batch()?, durability)?;
            }
        }
        Ok(())
    }

    fn destroy(&self, group: GroupId) -> Result<(), StoreError> {
        let (_writer, _applier, mut filling) = (self.writer.lock(), self.applier.lock(), self.fills.of(group));
        let Loaded { stored, generation, .. } = rules::check_made(group, self.reader().load(group)?)?;
        let mut batch = self.storage.batch()?;
        for tag in Tag::OF_A_GROUP.into_iter().chain([Tag::Marker, Tag::Unhealthy]) {
            batch.delete(Family::RaftState, &format::state_key(group, tag));
        }
        delete_entries(&mut batch, group, read::EVERYTHING);
        // A snapshot may be being filled: a fill that comes later finds it forgotten.
        filling.remove(&group);
        let until = self.known.read().get(&group).map_or(generation, |known| known.generations_until);
        snapshot::delete_through(&mut batch, group, until);
        put(&mut batch, group, Tag::Tombstone, &format::encode_tombstone(stored.replica));
        // A tombstone that is lost unnoticed lets a vote be given twice.
        self.storage.write(batch, Durability::Evident)?;
        self.known.write().remove(&group);
        self.tombstones.write().insert(group, stored.replica);
        Ok(())
    }

    fn tombstones(&self) -> Result<Vec<(GroupId, ReplicaId)>, StoreError> {
        Ok(self.tombstones.read().iter().map(|(group, replica)| (*group, *replica)).collect())
    }

    fn mark_unhealthy(&self, group: GroupId, unhealthy: Unhealthy, sync: bool) -> Result<(), StoreError> {
        // Until it is known in memory, too: a snapshot that is taken over comes before or behind both.
        let _applier = self.applier.lock();
        rules::check_unhealthy(group, self.outline(group), unhealthy)?;
        let mut batch = self.storage.batch()?;
        put(&mut batch, group, Tag::Unhealthy, &format::encode_unhealthy(unhealthy));
        self.storage.write(batch, if sync { Durability::Synced } else { Durability::Buffered })?;
        if let Some(known) = self.known.write().get_mut(&group) {
            known.outline.is_unhealthy = true;
        }
        Ok(())
    }

    fn entries(&self, group: GroupId, range: Range<LogIndex>, limit_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        self.reader().entries(group, range, limit_bytes)
    }

    fn term(&self, group: GroupId, index: LogIndex) -> Result<Option<Term>, StoreError> {
        self.reader().term(group, index)
    }
}

impl TableStore for RocksStore {
    fn get(&self, group: GroupId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read_tables(group, |reader, generation| reader.get(group, generation, table, key))?.flatten())
    }

    fn scan(
        &self,
        group: GroupId,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let found = self.read_tables(group, |reader, generation| reader.scan(group, generation, table, range, limit));
        Ok(found?.unwrap_or_default())
    }

    fn apply_all(&self, groups: &[ApplyWrite<'_>]) -> Result<(), StoreError> {
        let _applier = self.applier.lock();
        // Rule of durable order 3: one batch.
        let mut batch = self.storage.batch()?;
        for write in groups {
            rules::check_applied(write.group, self.outline(write.group), write.applied)?;
            put_effects(&mut batch, write, self.generation(write.group).unwrap_or_default());
        }
        self.storage.write(batch, Durability::Buffered)?;
        let mut known = self.known.write();
        for write in groups {
            if let Some(known) = known.get_mut(&write.group) {
                known.outline.applied = write.applied.index;
            }
        }
        Ok(())
    }
}

fn put_effects(batch: &mut Batch<'_>, write: &ApplyWrite<'_>, generation: Generation) {
    let ApplyWrite { group, writes, applied } = *write;
    for write in writes {
        match write {
            TableWrite::Put(table, key, value) => {
                batch.put(read::family(*table), &format::table_key(group, generation, key), value);
            }
            TableWrite::Delete(table, key) => {
                batch.delete(read::family(*table), &format::table_key(group, generation, key));
            }
        }
    }
    put(batch, group, Tag::Applied, &format::encode_applied(applied.index));
    if let Some(membership) = &applied.membership {
        put(batch, group, Tag::Membership, &format::encode_membership(membership));
    }
}

fn put_log_write(
    batch: &mut Batch<'_>,
    write: &LogWrite,
    step: &Step,
    flip: Option<&mut Flip<'_>>,
    buffer: &mut Vec<u8>,
) -> Result<(), StoreError> {
    let group = write.group;
    if let Some((replica, membership)) = &write.create {
        put_group(batch, group, *replica, membership);
    }
    if let (Some(restore), Some(flip)) = (&write.restore, flip) {
        flip.put(batch, group, restore, step)?;
    }
    if let Some(state) = &write.hard_state {
        put(batch, group, Tag::HardState, &format::encode_hard_state(state));
    }
    for entry in &write.entries {
        buffer.clear();
        if !format::encode_entry(entry, buffer) {
            return Err(StoreError::Refused(format!("group {group}: {entry:?} has a context too large to keep")));
        }
        batch.put(Family::RaftLog, &format::log_key(group, entry.index()), buffer);
    }
    // Rule of durable order 4: what the new entries do not replace goes with the same batch.
    if let Some(stale) = &step.stale {
        delete_entries(batch, group, stale.clone());
    }
    if let Some((compacted, position)) = &step.truncate {
        put(batch, group, Tag::Truncated, &format::encode_truncated(*position));
        delete_entries(batch, group, compacted.clone());
    }
    Ok(())
}

/// Every group has all records from the start, so that one that is missing is damage.
fn put_group(batch: &mut Batch<'_>, group: GroupId, replica: ReplicaId, membership: &Membership) {
    let replica = Replica { replica, generation: Generation::FIRST };
    put(batch, group, Tag::Replica, &replica.encode());
    put(batch, group, Tag::HardState, &format::encode_hard_state(&HardState::default()));
    put(batch, group, Tag::Membership, &format::encode_membership(membership));
    put(batch, group, Tag::Applied, &format::encode_applied(LogIndex::default()));
    put(batch, group, Tag::Truncated, &format::encode_truncated(Position::default()));
}

fn put(batch: &mut Batch<'_>, group: GroupId, tag: Tag, value: &[u8]) {
    batch.put(Family::RaftState, &format::state_key(group, tag), value);
}

fn delete_entries(batch: &mut Batch<'_>, group: GroupId, range: Range<LogIndex>) {
    let keys = format::log_range(group, range);
    batch.delete_range(Family::RaftLog, &keys.start..&keys.end);
}
