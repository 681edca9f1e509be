//! A disk that loses what is not synced. Logs and tables of all groups of a node are one sequence of writes, as in RocksDB:
//! a crash keeps a prefix of it, and at least everything up to the last sync.

use std::collections::BTreeMap;

use super::rng::Rng;
use super::snapshots::{Fill, Filling};
use super::tables::Tables;
use crate::ident::{GroupId, LogIndex, ReplicaId, Term};
use crate::raftstore::entry::{Entry, HardState, Membership, Position, Unhealthy};
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::group::Persist;
use crate::raftstore::log_store::{StoredGroup, TableWrite};
use crate::raftstore::recover::Recovery;
use crate::raftstore::snapshot::{Restore, SnapshotId};

/// One write to a replica.
#[derive(Clone)]
pub(super) enum Op {
    Make(Membership),
    /// Everything of it goes, and the group's tombstone comes.
    Destroy {
        group: GroupId,
        replica: u64,
    },
    Log(Persist),
    Apply {
        index: u64,
        writes: Vec<TableWrite>,
        membership: Option<Membership>,
    },
    Fill(Fill),
    /// The replica goes on alone.
    Recover(Box<Recovery>),
    /// What it holds is wrong.
    Mark(Unhealthy),
    /// What a machine that keeps its own position has installed goes.
    Clear,
    /// Only a broken driver moves a replica to a snapshot that Raft did not ask for.
    Moved(SnapshotId, Position),
}

/// What a store holds. Compacted entries stay in `log` for the checks, but nobody is given them.
#[derive(Clone, Default)]
pub(super) struct Store {
    pub(super) hard_state: HardState,
    /// The entry of index 1 comes first.
    pub(super) log: Vec<Entry>,
    pub(super) truncated: u64,
    pub(super) applied: u64,
    pub(super) tables: Tables,
    /// The tables are those of a snapshot as of this entry, to be installed by a machine that keeps its own position.
    pub(super) staged: Option<u64>,
    pub(super) filling: Option<Filling>,
    pub(super) membership: Membership,
    pub(super) unhealthy: Option<Unhealthy>,
    /// As of the last snapshot that was taken over.
    pub(super) restored: u64,
}

impl Store {
    pub(super) fn of(membership: Membership) -> Store {
        Store { membership, ..Store::default() }
    }

    pub(super) fn write(&mut self, op: &Op) {
        match op {
            // Those of the disk.
            Op::Make(_) | Op::Destroy { .. } => {}
            Op::Log(persist) => self.write_log(persist),
            Op::Apply { index, writes, membership } => {
                self.applied = *index;
                self.membership = membership.as_ref().unwrap_or(&self.membership).clone();
                self.tables.write(writes);
            }
            Op::Fill(Fill::Begin(id, transfer, log)) => {
                let (id, transfer, log) = (*id, *transfer, log.clone());
                self.filling = Some(Filling { id, transfer, tables: Tables::default(), log, is_complete: false });
            }
            Op::Fill(Fill::Part(id, part)) => {
                if let Some(filling) = self.filling.as_mut().filter(|filling| filling.id == *id) {
                    filling.tables.write(part);
                }
            }
            Op::Fill(Fill::Last(id)) => {
                if let Some(filling) = self.filling.as_mut().filter(|filling| filling.id == *id) {
                    filling.is_complete = true;
                }
            }
            Op::Recover(recovery) => {
                self.hard_state = recovery.hard_state;
                self.membership = recovery.membership.clone();
                for position in &recovery.dropped_changes {
                    self.log[position.index.get() as usize - 1] = Recovery::without_effect(*position);
                }
            }
            Op::Mark(unhealthy) => self.unhealthy = Some(*unhealthy),
            Op::Clear => {
                self.tables.replace(&Tables::default());
                self.staged = None;
            }
            Op::Moved(id, position) => self.restore(*id, *position, None),
        }
    }

    /// Everything at once: tables, applied, truncated, and a log that is empty.
    fn restore(&mut self, id: SnapshotId, position: Position, membership: Option<&Membership>) {
        self.membership = membership.unwrap_or(&self.membership).clone();
        let filling = self.filling.take().filter(|filling| filling.id == id && filling.is_complete);
        let Some(filling) = filling else { panic!("{position:?} is taken over without a whole snapshot") };
        self.tables.replace(&filling.tables);
        self.log = filling.log;
        self.staged = Some(position.index.get());
        (self.unhealthy, self.restored) = (None, position.index.get());
        (self.applied, self.truncated) = (position.index.get(), position.index.get());
    }

    fn write_log(&mut self, persist: &Persist) {
        if let Some(Restore { id, position, membership }) = &persist.restore {
            self.restore(*id, *position, Some(membership));
        }
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = persist.entries.first() {
            let start = first.index().get() as usize - 1;
            // Rule of durable order 4: nothing stays behind what is replaced.
            if !fault::active(Fault::StaleTail) {
                self.log.truncate(start);
            }
            for (place, entry) in (start..).zip(&persist.entries) {
                match self.log.get_mut(place) {
                    Some(old) => *old = entry.clone(),
                    None => self.log.push(entry.clone()),
                }
            }
        }
        if let Some(position) = persist.truncate {
            self.truncated = self.truncated.max(position.index.get());
        }
    }

    pub(super) fn position(&self, index: u64) -> Position {
        let term = (index as usize).checked_sub(1).and_then(|place| self.log.get(place)).map_or(0, term_of);
        Position::new(index, term)
    }

    pub(super) fn last(&self) -> Position {
        self.position(self.log.len() as u64)
    }

    pub(super) fn term(&self, index: LogIndex) -> Option<Term> {
        let known = self.truncated..=self.log.len() as u64;
        known.contains(&index.get()).then(|| self.position(index.get()).term)
    }

    /// As [`crate::raftstore::log_store::LogStore::entries`].
    pub(super) fn entries(&self, start: u64, end: u64, limit_bytes: usize) -> Vec<Entry> {
        if start <= self.truncated {
            return Vec::new();
        }
        let mut bytes = 0;
        let from = self.log.iter().skip(start as usize - 1).take((end - start) as usize);
        from.take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.size_bytes();
            first || bytes <= limit_bytes
        })
        .cloned()
        .collect()
    }

    pub(super) fn stored(&self, replica: u64, applied: u64) -> StoredGroup {
        StoredGroup {
            replica: ReplicaId::new(replica),
            hard_state: self.hard_state,
            membership: self.membership.clone(),
            applied: LogIndex::new(applied),
            truncated: self.position(self.truncated),
            last: self.last(),
            unhealthy: self.unhealthy,
        }
    }
}

fn term_of(entry: &Entry) -> u64 {
    entry.term().get()
}

/// What a disk holds of all replicas, by their places.
#[derive(Clone, Default)]
pub(super) struct Stores {
    stores: BTreeMap<usize, Store>,
    tombstones: BTreeMap<GroupId, u64>,
}

impl Stores {
    pub(super) fn get(&self, place: usize) -> Option<&Store> {
        self.stores.get(&place)
    }

    /// Of a replica that is there.
    pub(super) fn of(&self, place: usize) -> &Store {
        self.get(place).unwrap_or_else(|| panic!("there is no replica at place {place}"))
    }

    pub(super) fn tombstone(&self, group: GroupId) -> Option<u64> {
        self.tombstones.get(&group).copied()
    }

    fn write(&mut self, place: usize, op: &Op) {
        match op {
            Op::Make(membership) => drop(self.stores.insert(place, Store::of(membership.clone()))),
            Op::Destroy { group, replica } => {
                self.stores.remove(&place);
                self.tombstones.insert(*group, *replica);
            }
            _ => match self.stores.get_mut(&place) {
                Some(store) => store.write(op),
                None => panic!("something is written of place {place} behind its tombstone"),
            },
        }
    }
}

/// The disk of one node.
#[derive(Default)]
pub(super) struct Disk {
    /// As the running process sees it.
    pub(super) current: Stores,
    /// What survives everything.
    pub(super) durable: Stores,
    unsynced: Vec<(usize, Op)>,
}

impl Disk {
    pub(super) fn write(&mut self, place: usize, op: Op) {
        self.current.write(place, &op);
        self.unsynced.push((place, op));
    }

    /// Bits flip: in what the process sees, and in what survives.
    pub(super) fn damage(&mut self, place: usize, writes: &[TableWrite]) {
        for stores in [&mut self.current, &mut self.durable] {
            if let Some(store) = stores.stores.get_mut(&place) {
                store.tables.write(writes);
            }
        }
    }

    /// Leftovers of a snapshot are of no use after a start.
    pub(super) fn forget_filling(&mut self, place: usize) -> bool {
        if let Some(store) = self.durable.stores.get_mut(&place) {
            store.filling = None;
        }
        self.current.stores.get_mut(&place).is_some_and(|store| store.filling.take().is_some())
    }

    pub(super) fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        unsynced.iter().for_each(|(place, op)| self.survives(*place, op));
    }

    fn survives(&mut self, place: usize, op: &Op) {
        if matches!(op, Op::Mark(_)) && fault::active(Fault::MarkNotDurable) {
            return;
        }
        self.durable.write(place, op);
        if let Op::Destroy { group, .. } = op
            && fault::active(Fault::TombstoneNotDurable)
        {
            self.durable.tombstones.remove(group);
        }
    }

    /// The power goes: of what is not synced, and what was being written, a prefix stays.
    pub(super) fn crash(&mut self, in_flight: Vec<(usize, Op)>, rng: &mut Rng) {
        self.unsynced.extend(in_flight);
        let kept = rng.below(self.unsynced.len() as u64 + 1) as usize;
        let unsynced = std::mem::take(&mut self.unsynced);
        unsynced.iter().take(kept).for_each(|(place, op)| self.survives(*place, op));
        self.current = self.durable.clone();
    }
}
