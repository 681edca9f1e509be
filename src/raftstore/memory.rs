//! A store in memory, for tests and for what need not outlive the process. It keeps every rule of a durable one.
//! `snapshot` captures and takes snapshots.

mod snapshot;

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range};
use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::{Entry, HardState, Membership, Position, Unhealthy};
use super::log_store::{
    AppliedTo, ApplyWrite, KeyValue, LogStore, LogWrite, StoreError, StoredGroup, Table, TableStore, TableWrite,
};
use super::rules::fill::Fill;
use super::rules::{self, Outline};
use super::snapshot::SnapshotId;
use crate::ident::{GroupId, LogIndex, ReplicaId, Term};

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    groups: Mutex<BTreeMap<GroupId, Group>>,
    /// Taken behind `groups`.
    tombstones: Mutex<BTreeMap<GroupId, ReplicaId>>,
}

struct Group {
    replica: ReplicaId,
    hard_state: HardState,
    membership: Membership,
    applied: LogIndex,
    truncated: Position,
    /// Everything behind `truncated`, without a gap.
    log: VecDeque<Entry>,
    tables: Tables,
    unhealthy: Option<Unhealthy>,
    /// A snapshot that is being filled.
    filling: Option<Filling>,
}

/// Shared with who captured it: the first write to a table afterwards is to a copy.
type Tables = BTreeMap<Table, Arc<BTreeMap<Vec<u8>, Vec<u8>>>>;

struct Filling {
    fill: Fill,
    tables: Tables,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }
}

impl Group {
    fn new(replica: ReplicaId, membership: Membership) -> Group {
        Group {
            replica,
            hard_state: HardState::default(),
            membership,
            applied: LogIndex::default(),
            truncated: Position::default(),
            log: VecDeque::new(),
            tables: BTreeMap::new(),
            unhealthy: None,
            filling: None,
        }
    }

    fn stored(&self) -> StoredGroup {
        let stored = StoredGroup {
            replica: self.replica,
            hard_state: self.hard_state,
            membership: self.membership.clone(),
            applied: self.applied,
            truncated: self.truncated,
            last: self.outline().last,
            unhealthy: self.unhealthy,
        };
        stored.with_applied_committed()
    }

    fn outline(&self) -> Outline {
        let Group { hard_state, applied, truncated, unhealthy, .. } = *self;
        let last = self.log.back().map_or(truncated, Entry::position);
        Outline { hard_state, applied, truncated, last, is_unhealthy: unhealthy.is_some() }
    }

    /// Where in `log` an entry lies, or would.
    fn place(&self, index: LogIndex) -> Option<usize> {
        usize::try_from(index.get().checked_sub(self.truncated.index.next().get())?).ok()
    }

    fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.truncated.index {
            return Some(self.truncated.term);
        }
        self.log.get(self.place(index)?).map(Entry::term)
    }

    fn apply(&mut self, writes: &[TableWrite], applied: &AppliedTo) {
        for write in writes {
            match write {
                TableWrite::Put(table, key, value) => {
                    Arc::make_mut(self.tables.entry(*table).or_default()).insert(key.clone(), value.clone());
                }
                TableWrite::Delete(table, key) => {
                    Arc::make_mut(self.tables.entry(*table).or_default()).remove(key);
                }
            }
        }
        self.applied = applied.index;
        if let Some(membership) = &applied.membership {
            self.membership = membership.clone();
        }
    }

    fn filled(&self) -> Option<(SnapshotId, Position)> {
        self.filling.as_ref()?.fill.filled()
    }
}

impl LogStore for MemoryStore {
    fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        Ok(self.groups.lock().keys().copied().collect())
    }

    fn load(&self, group: GroupId) -> Result<Option<StoredGroup>, StoreError> {
        Ok(self.groups.lock().get(&group).map(Group::stored))
    }

    fn write(&self, writes: &[LogWrite], _sync: bool) -> Result<(), StoreError> {
        let mut groups = self.groups.lock();
        // Everything is judged before anything is changed.
        let plan = rules::plan(
            writes,
            |group| groups.get(&group).map(Group::outline),
            |group| self.tombstones.lock().get(&group).copied(),
            |group| groups.get(&group).and_then(Group::filled),
            |group, index| Ok(groups.get(&group).and_then(|group| group.term(index))),
        )?;
        for (write, step) in writes.iter().zip(plan.steps) {
            if let Some((replica, membership)) = &write.create {
                groups.insert(write.group, Group::new(*replica, membership.clone()));
            }
            let Some(group) = groups.get_mut(&write.group) else { continue };
            if let Some(restore) = &write.restore {
                group.restore(restore);
            }
            group.hard_state = write.hard_state.unwrap_or(group.hard_state);
            if let Some(place) = write.entries.first().and_then(|first| group.place(first.index())) {
                // Rule of durable order 4: all that is behind goes.
                group.log.truncate(place);
                group.log.extend(write.entries.iter().cloned());
            }
            if let Some((_, position)) = step.truncate {
                let count = group.place(position.index.next()).unwrap_or(0).min(group.log.len());
                group.log.drain(..count);
                group.truncated = position;
            }
        }
        Ok(())
    }

    fn destroy(&self, group: GroupId) -> Result<(), StoreError> {
        let mut groups = self.groups.lock();
        let Group { replica, .. } = rules::check_made(group, groups.remove(&group))?;
        self.tombstones.lock().insert(group, replica);
        Ok(())
    }

    fn tombstones(&self) -> Result<Vec<(GroupId, ReplicaId)>, StoreError> {
        Ok(self.tombstones.lock().iter().map(|(group, replica)| (*group, *replica)).collect())
    }

    fn mark_unhealthy(&self, group: GroupId, unhealthy: Unhealthy, _sync: bool) -> Result<(), StoreError> {
        let mut groups = self.groups.lock();
        rules::check_unhealthy(group, groups.get(&group).map(Group::outline), unhealthy)?;
        if let Some(group) = groups.get_mut(&group) {
            group.unhealthy = Some(unhealthy);
        }
        Ok(())
    }

    fn entries(&self, group: GroupId, range: Range<LogIndex>, limit_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let groups = self.groups.lock();
        let Some(group) = groups.get(&group) else { return Ok(Vec::new()) };
        let Some(place) = group.place(range.start).filter(|place| *place < group.log.len()) else {
            return Ok(Vec::new());
        };
        let mut size_bytes = 0;
        let mut fits = |entry: &Entry| {
            size_bytes += entry.size_bytes();
            entry.index() < range.end && (size_bytes <= limit_bytes || entry.index() == range.start)
        };
        Ok(group.log.range(place..).take_while(|entry| fits(entry)).cloned().collect())
    }

    fn term(&self, group: GroupId, index: LogIndex) -> Result<Option<Term>, StoreError> {
        Ok(self.groups.lock().get(&group).and_then(|group| group.term(index)))
    }
}

impl TableStore for MemoryStore {
    fn get(&self, group: GroupId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let groups = self.groups.lock();
        Ok(groups.get(&group).and_then(|group| group.tables.get(&table)?.get(key).cloned()))
    }

    fn scan(
        &self,
        group: GroupId,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        // A map panics when asked for a range that is none.
        if rules::is_empty(range) {
            return Ok(Vec::new());
        }
        let groups = self.groups.lock();
        let Some(table) = groups.get(&group).and_then(|group| group.tables.get(&table)) else { return Ok(Vec::new()) };
        let pairs = table.range::<[u8], _>(range).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply_all(&self, writes: &[ApplyWrite<'_>]) -> Result<(), StoreError> {
        let mut groups = self.groups.lock();
        for ApplyWrite { group, applied, .. } in writes {
            rules::check_applied(*group, groups.get(group).map(Group::outline), applied)?;
        }
        for write in writes {
            if let Some(group) = groups.get_mut(&write.group) {
                group.apply(write.writes, write.applied);
            }
        }
        Ok(())
    }
}
