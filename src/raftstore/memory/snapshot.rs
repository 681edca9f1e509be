//! Capturing and taking snapshots in memory.

use std::ops::Bound;
use std::sync::Arc;

use super::{Filling, Group, MemoryStore, Tables};
use crate::ident::GroupId;
use crate::raftstore::entry::Position;
use crate::raftstore::log_store::{StoreError, Table};
use crate::raftstore::rules;
use crate::raftstore::rules::fill::{self, Begun};
use crate::raftstore::snapshot::{Captured, Pair, Place, Restore, SnapshotId, SnapshotMeta, SnapshotStore};

/// Tables as of one moment. A group that goes on writes to copies.
struct MemoryCaptured {
    meta: SnapshotMeta,
    tables: Tables,
}

impl Captured for MemoryCaptured {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn read(&self, after: Option<&Place>, limit_bytes: usize) -> Result<Vec<Pair>, StoreError> {
        let first = after.map_or(Table::Cluster, |after| after.table);
        let tables = self.tables.range(first..).flat_map(|(table, pairs)| {
            let behind = after.filter(|after| after.table == *table);
            let start = behind.map_or(Bound::Unbounded, |after| Bound::Excluded(after.key.as_slice()));
            let pairs = pairs.range::<[u8], _>((start, Bound::Unbounded));
            pairs.map(|(key, value)| Pair { place: Place { table: *table, key: key.clone() }, value: value.clone() })
        });
        let mut page = Vec::new();
        let mut size_bytes = 0;
        for pair in tables {
            size_bytes += pair.size_bytes();
            if size_bytes > limit_bytes && !page.is_empty() {
                break;
            }
            page.push(pair);
        }
        Ok(page)
    }
}

impl Group {
    /// Takes over what was filled; the rules have allowed it.
    pub(super) fn restore(&mut self, restore: &Restore) {
        // Rule of durable order 3: all of it at once, under the lock.
        self.tables = self.filling.take().map(|filling| filling.tables).unwrap_or_default();
        self.applied = restore.position.index;
        self.truncated = restore.position;
        self.membership = restore.membership.clone();
        self.unhealthy = None;
        // Rule of durable order 4: nothing of the log before stands behind the snapshot.
        self.log.clear();
    }
}

impl SnapshotStore for MemoryStore {
    fn capture(&self, group: GroupId, id: SnapshotId) -> Result<Box<dyn Captured>, StoreError> {
        let groups = self.groups.lock();
        let group = rules::check_made(group, groups.get(&group))?;
        let term = group.term(group.applied).unwrap_or_default();
        let position = Position { index: group.applied, term };
        let meta = SnapshotMeta { id, position, membership: group.membership.clone() };
        Ok(Box::new(MemoryCaptured { meta, tables: group.tables.clone() }))
    }

    fn begin_fill(&self, group: GroupId, meta: &SnapshotMeta) -> Result<Option<Place>, StoreError> {
        let mut groups = self.groups.lock();
        let stored = groups.get_mut(&group);
        let outline = stored.as_ref().map(|group| group.outline());
        let before = stored.as_ref().and_then(|group| group.filling.as_ref()).map(|filling| &filling.fill);
        match fill::begin(group, outline, before, meta)? {
            Begun::Before(last) => Ok(last),
            Begun::Anew(fill) => {
                rules::check_made(group, stored)?.filling = Some(Filling { fill, tables: Tables::new() });
                Ok(None)
            }
        }
    }

    fn fill(&self, group: GroupId, id: SnapshotId, pairs: &[Pair], is_last: bool) -> Result<(), StoreError> {
        let mut groups = self.groups.lock();
        let Some(filling) = groups.get_mut(&group).and_then(|group| group.filling.as_mut()) else {
            return Err(fill::not_filling(group, id));
        };
        filling.fill.check(group, id, pairs)?;
        for Pair { place: Place { table, key }, value } in pairs {
            Arc::make_mut(filling.tables.entry(*table).or_default()).insert(key.clone(), value.clone());
        }
        filling.fill.advance(pairs, is_last);
        Ok(())
    }

    fn abandon_fill(&self, group: GroupId, id: SnapshotId) -> Result<(), StoreError> {
        if let Some(group) = self.groups.lock().get_mut(&group) {
            group.filling.take_if(|filling| filling.fill.id() == id);
        }
        Ok(())
    }

    fn clear(&self, group: GroupId) -> Result<(), StoreError> {
        rules::check_made(group, self.groups.lock().get_mut(&group))?.tables = Tables::new();
        Ok(())
    }
}
