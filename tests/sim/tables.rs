//! What a machine's tables hold. Whoever runs on them reads what its node's disk shows now.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

use super::rng::Digest;
use crate::ident::GroupId;
use crate::raftstore::log_store::{ApplyWrite, KeyValue, StoreError, Table, TableStore, TableWrite};

type Pairs = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Tables. A copy has a life of its own.
#[derive(Default)]
pub(super) struct Tables(Arc<Shown>);

/// What others see of tables.
#[derive(Default)]
pub(super) struct Shown(Mutex<Contents>);

#[derive(Clone, Default)]
struct Contents {
    pairs: Pairs,
    /// The digests of all pairs, added up: whatever was written in whatever order.
    digests: BTreeMap<Table, u64>,
}

impl Clone for Tables {
    fn clone(&self) -> Tables {
        Tables(Arc::new(Shown(Mutex::new(self.0.0.lock().clone()))))
    }
}

fn digest(key: &[u8], value: &[u8]) -> u64 {
    Digest::new().bytes(key).number(key.len() as u64).bytes(value).number(value.len() as u64).0
}

impl Contents {
    fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let (pairs, sum) = (self.pairs.entry(table).or_default(), self.digests.entry(table).or_default());
        let before = match value {
            Some(value) => {
                *sum = sum.wrapping_add(digest(key, value));
                pairs.insert(key.to_vec(), value.to_vec())
            }
            None => pairs.remove(key),
        };
        *sum = sum.wrapping_sub(before.map_or(0, |before| digest(key, &before)));
    }
}

impl Tables {
    /// The same tables, for whoever runs on them.
    pub(super) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.0)
    }

    pub(super) fn write(&self, writes: &[TableWrite]) {
        let mut contents = self.0.0.lock();
        for write in writes {
            match write {
                TableWrite::Put(table, key, value) => contents.set(*table, key, Some(value)),
                TableWrite::Delete(table, key) => contents.set(*table, key, None),
            }
        }
    }

    /// Takes over what others hold; whoever runs on these sees it at once.
    pub(super) fn replace(&self, other: &Tables) {
        let contents = other.0.0.lock().clone();
        *self.0.0.lock() = contents;
    }

    /// All pairs, as they would be written.
    pub(super) fn contents(&self) -> Vec<TableWrite> {
        let contents = self.0.0.lock();
        let of = |(table, pairs): (&Table, &BTreeMap<Vec<u8>, Vec<u8>>)| {
            let table = *table;
            pairs.iter().map(move |(key, value)| TableWrite::Put(table, key.clone(), value.clone())).collect::<Vec<_>>()
        };
        contents.pairs.iter().flat_map(of).collect()
    }

    /// What it all comes down to.
    pub(super) fn digest(&self) -> u64 {
        self.digest_of(&Table::ALL)
    }

    /// What some of them come down to.
    pub(super) fn digest_of(&self, tables: &[Table]) -> u64 {
        let contents = self.0.0.lock();
        let of = |table: &Table| contents.digests.get(table).copied().unwrap_or_default();
        tables.iter().fold(Digest::new(), |digest, table| digest.number(of(table))).0
    }

    /// As a machine would have written them that keeps these registers and nothing else.
    pub(super) fn of(registers: &BTreeMap<u8, u64>) -> Tables {
        let tables = Tables::default();
        tables.write(&registers.iter().map(|(key, value)| register(*key, *value)).collect::<Vec<_>>());
        tables
    }

    /// The registers of a machine that keeps nothing else.
    pub(super) fn registers(&self) -> BTreeMap<u8, u64> {
        let contents = self.0.0.lock();
        let pairs = contents.pairs.get(&Table::Kv).into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((*key.first()?, u64::from_le_bytes(value[..].try_into().ok()?)))).collect()
    }
}

/// A register is set.
pub(super) fn register(key: u8, value: u64) -> TableWrite {
    TableWrite::Put(Table::Kv, vec![key], value.to_le_bytes().to_vec())
}

impl TableStore for Shown {
    fn get(&self, _: GroupId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().pairs.get(&table).and_then(|pairs| pairs.get(key)).cloned())
    }

    fn scan(
        &self,
        _: GroupId,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        if crate::raftstore::rules::is_empty(range) {
            return Ok(Vec::new());
        }
        let contents = self.0.lock();
        let pairs = contents.pairs.get(&table).into_iter().flat_map(|pairs| pairs.range::<[u8], _>(range));
        Ok(pairs.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply_all(&self, _: &[ApplyWrite<'_>]) -> Result<(), StoreError> {
        Err(StoreError::Refused("the simulator's disk is written by its driver".to_owned()))
    }
}
