//! Pure: what the machine reads, and what it is about to write on top of it.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use crate::ident::GroupId;
use crate::raftstore::log_store::{KeyValue, StoreError, Table, TableStore};
use crate::raftstore::rocks::RocksView;

/// Tables that can be read.
pub trait View: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// The store failed.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The pairs of a range, in order, `limit` at most.
    ///
    /// # Errors
    /// The store failed.
    fn scan(&self, table: Table, range: Range<&[u8]>, limit: usize) -> Result<Vec<KeyValue>, StoreError>;
}

/// The tables of a group in a store. Cheap to clone.
#[derive(Clone)]
pub struct StoreView {
    /// The store.
    pub store: Arc<dyn TableStore>,
    /// The group.
    pub group: GroupId,
}

impl View for StoreView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(self.group, table, key)
    }

    fn scan(&self, table: Table, range: Range<&[u8]>, limit: usize) -> Result<Vec<KeyValue>, StoreError> {
        self.store.scan(self.group, table, (Bound::Included(range.start), Bound::Excluded(range.end)), limit)
    }
}

/// The tables of a group in a data directory on which no node runs.
pub struct OfflineView<'a> {
    /// The store.
    pub store: &'a RocksView,
    /// The group.
    pub group: GroupId,
}

impl View for OfflineView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(self.group, table, key)
    }

    fn scan(&self, table: Table, range: Range<&[u8]>, limit: usize) -> Result<Vec<KeyValue>, StoreError> {
        self.store.scan(self.group, table, (Bound::Included(range.start), Bound::Excluded(range.end)), limit)
    }
}

/// Tables in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTables(BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>);

impl MemoryTables {
    /// Carries out writes.
    pub fn write(&mut self, writes: Writes) {
        for (table, writes) in writes {
            let pairs = self.0.entry(table).or_default();
            for (key, value) in writes {
                match value {
                    Some(value) => drop(pairs.insert(key, value)),
                    None => drop(pairs.remove(&key)),
                }
            }
        }
    }
}

impl View for MemoryTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&table).and_then(|pairs| pairs.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: Range<&[u8]>, limit: usize) -> Result<Vec<KeyValue>, StoreError> {
        // A map panics when asked for a range that is none.
        let Some(pairs) = self.0.get(&table).filter(|_| range.start < range.end) else { return Ok(Vec::new()) };
        let pairs = pairs.range::<[u8], _>((Bound::Included(range.start), Bound::Excluded(range.end))).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// Writes by key; `None` removes it.
pub type Writes = BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// A view with writes on top, which reads show.
pub struct Overlay<'a> {
    base: &'a dyn View,
    writes: Writes,
}

impl<'a> Overlay<'a> {
    /// Nothing on top yet.
    pub fn new(base: &'a dyn View) -> Overlay<'a> {
        Overlay { base, writes: Writes::new() }
    }

    /// Sets a key.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.writes.entry(table).or_default().insert(key, Some(value));
    }

    /// Removes a key.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.entry(table).or_default().insert(key, None);
    }

    /// Takes over what was written on top of this.
    pub fn absorb(&mut self, writes: Writes) {
        for (table, writes) in writes {
            self.writes.entry(table).or_default().extend(writes);
        }
    }

    /// What was written.
    pub fn into_writes(self) -> Writes {
        self.writes
    }
}

impl View for Overlay<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(&table).and_then(|writes| writes.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(&self, table: Table, range: Range<&[u8]>, limit: usize) -> Result<Vec<KeyValue>, StoreError> {
        // A map panics when asked for a range that is none.
        let writes = self.writes.get(&table).filter(|_| range.start < range.end);
        let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
        let on_top: Vec<_> = writes.map(|writes| writes.range::<[u8], _>(bounds).collect()).unwrap_or_default();
        if on_top.is_empty() {
            return self.base.scan(table, range, limit);
        }
        // Each write hides one pair of the base at most, so these are enough.
        let base = self.base.scan(table, range, limit.saturating_add(on_top.len()))?;
        let mut merged: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
            base.into_iter().map(|(key, value)| (key, Some(value))).collect();
        merged.extend(on_top.into_iter().map(|(key, value)| (key.clone(), value.clone())));
        Ok(merged.into_iter().filter_map(|(key, value)| Some((key, value?))).take(limit).collect())
    }
}

#[cfg(test)]
#[path = "view_test.rs"]
mod tests;
