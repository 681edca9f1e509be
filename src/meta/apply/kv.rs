//! Keys and values: put, delete, compare-and-swap transactions. What an action changes is one revision, and each key
//! changes once in it.

use super::recent::Known;
use super::{Fault, Step, ensure, refused};
use crate::meta::fault::{self, Fault as Broken};
use crate::meta::keys::{self, Kv};
use crate::meta::limits::{
    MAX_ANSWER_BYTES, MAX_ANSWER_PAIRS, MAX_DELETED_KEYS, MAX_KEY_BYTES, MAX_TXN_OPS, PAIR_OVERHEAD_BYTES,
};
use crate::meta::proto::compare::Target;
use crate::meta::proto::op::Kind as OpKind;
use crate::meta::proto::op_done::Kind as OpOutcome;
use crate::meta::proto::{
    Change, Compare, Delete, DeleteDone, Get, GetDone, KeyRange, KeyValue, Op, OpDone, Put, PutDone, Refusal, Relation,
    Txn, TxnDone, Version,
};
use crate::meta::read;
use crate::meta::settings::Name;
use crate::raftstore::log_store::Table;

impl Step<'_> {
    pub(super) fn put(&mut self, put: &Put) -> Result<PutDone, Fault> {
        check_key(&put.key)?;
        let max_bytes = self.setting(Name::KvMaxValueBytes);
        ensure(put.value.len() as u64 <= max_bytes, Refusal::TooLarge, || {
            format!("the value has {} bytes; {max_bytes} are allowed (kv.max_value_bytes)", put.value.len())
        })?;
        let before = self.known(&put.key)?;
        let (size, freed) = (size_bytes(&put.key, &put.value), before.map_or(0, |before| before.bytes));
        let (quota, live) =
            (fault::shrunk(self.setting(Name::KvQuotaBytes)), self.state.kv.live_bytes.saturating_sub(freed));
        // What takes no more room than it did is welcome also when there is too much.
        ensure(live + size <= quota || size <= freed, Refusal::Quota, || {
            format!("keys and values take {} bytes of {quota} (kv.quota_bytes): delete some", self.state.kv.live_bytes)
        })?;
        let attached = before.map_or(0, |before| before.lease);
        if put.lease != attached {
            self.detach(attached, &put.key)?;
            self.attach(put.lease, &put.key)?;
        }
        let revision = self.change(&put.key, size, false)?;
        let version = Version {
            create_revision: before.map_or(revision, |before| before.create_revision),
            version: before.map_or(0, |before| before.version) + 1,
            lease: put.lease,
            value: put.value.clone(),
        };
        let Version { create_revision, version: number, lease, .. } = version;
        let known = Known { create_revision, version: number, lease, bytes: size };
        self.changed.insert(put.key.clone(), Some(known));
        self.put_record(Table::Kv, keys::version(&put.key, revision), &version);
        self.state.kv.keys += u64::from(before.is_none());
        self.state.kv.live_bytes = live + size;
        Ok(PutDone { revision })
    }

    pub(super) fn delete(&mut self, delete: &Delete) -> Result<DeleteDone, Fault> {
        let range = checked_range(delete.range.as_ref())?;
        let (pairs, more) = read::range(&self.view, range, u64::MAX, MAX_DELETED_KEYS, usize::MAX)?;
        ensure(!more, Refusal::TooMany, || format!("more than {MAX_DELETED_KEYS} keys cannot be deleted at once"))?;
        for pair in &pairs {
            self.delete_pair(pair)?;
        }
        Ok(DeleteDone { revision: self.state.kv.revision, deleted: pairs.len() as u64 })
    }

    pub(super) fn delete_pair(&mut self, pair: &KeyValue) -> Result<(), Fault> {
        self.detach(pair.lease, &pair.key)?;
        let revision = self.change(&pair.key, size_bytes(&pair.key, &[]), true)?;
        self.put_record(Table::Kv, keys::version(&pair.key, revision), &Version::default());
        if !fault::active(Broken::DeletedRemembered) {
            self.changed.insert(pair.key.clone(), None);
        }
        self.state.kv.keys = self.state.kv.keys.saturating_sub(1);
        if !fault::active(Broken::DeletedCounts) {
            self.state.kv.live_bytes = self.state.kv.live_bytes.saturating_sub(size_of(pair));
        }
        Ok(())
    }

    /// How a key is now, if it is there.
    fn known(&self, key: &[u8]) -> Result<Option<Known>, Fault> {
        if let Some(known) = self.changed.get(key).copied().or_else(|| self.recent.get(key)) {
            return Ok(known);
        }
        let pair = read::latest(&self.view, key)?;
        Ok(pair.map(|pair| Known {
            create_revision: pair.create_revision,
            version: pair.version,
            lease: pair.lease,
            bytes: size_of(&pair),
        }))
    }

    /// Notes that a key changes, and says in which revision.
    fn change(&mut self, key: &[u8], bytes: u64, deleted: bool) -> Result<u64, Fault> {
        if self.change.revision == 0 {
            self.state.kv.revision += 1;
            self.change.revision = self.state.kv.revision;
        }
        let revision = self.change.revision;
        let place = u32::try_from(self.change.keys.len()).unwrap_or(u32::MAX);
        ensure(self.change.keys.insert(key.to_vec()), Refusal::DuplicateKey, || {
            "a key changes twice in one transaction".to_owned()
        })?;
        self.state.kv.history_bytes += bytes;
        let change = Change { key: key.to_vec(), bytes, deleted };
        self.put_record(Table::Kv, keys::change(revision, place), &change);
        Ok(revision)
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> Result<TxnDone, Fault> {
        let longest = txn.compares.len().max(txn.then.len()).max(txn.otherwise.len());
        ensure(longest <= MAX_TXN_OPS, Refusal::TooMany, || {
            format!("a transaction has {MAX_TXN_OPS} compares and operations at most, not {longest}")
        })?;
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded &= self.holds(compare)?;
        }
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        let ops = branch.iter().map(|op| self.op(op)).collect::<Result<_, _>>()?;
        Ok(TxnDone { succeeded, revision: self.state.kv.revision, ops })
    }

    fn op(&mut self, op: &Op) -> Result<OpDone, Fault> {
        let kind = match &op.kind {
            Some(OpKind::Put(put)) => OpOutcome::Put(self.put(put)?),
            Some(OpKind::Delete(delete)) => OpOutcome::Delete(self.delete(delete)?),
            Some(OpKind::Get(get)) => OpOutcome::Get(self.get(get)?),
            None => return Err(refused(Refusal::Invalid, "an operation that says nothing")),
        };
        Ok(OpDone { kind: Some(kind) })
    }

    fn get(&mut self, get: &Get) -> Result<GetDone, Fault> {
        let range = checked_range(get.range.as_ref())?;
        let limit = if get.limit == 0 { MAX_ANSWER_PAIRS } else { MAX_ANSWER_PAIRS.min(get.limit as usize) };
        let room = MAX_ANSWER_BYTES.saturating_sub(self.answer_bytes);
        let (pairs, more) = read::range(&self.view, range, u64::MAX, limit, room)?;
        self.answer_bytes += pairs.iter().map(read::pair_bytes).sum::<usize>();
        // The first pair is answered whatever its size, once.
        ensure(self.answer_bytes <= 2 * MAX_ANSWER_BYTES, Refusal::TooLarge, || {
            format!("a transaction answers {MAX_ANSWER_BYTES} bytes at most")
        })?;
        Ok(GetDone { pairs, more })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, Fault> {
        check_key(&compare.key)?;
        let pair = read::latest(&self.view, &compare.key)?;
        let number = |of: fn(&KeyValue) -> u64| pair.as_ref().map_or(0, of);
        let ordering = match &compare.target {
            Some(Target::Version(version)) => number(|pair| pair.version).cmp(version),
            Some(Target::CreateRevision(revision)) => number(|pair| pair.create_revision).cmp(revision),
            Some(Target::ModRevision(revision)) => number(|pair| pair.mod_revision).cmp(revision),
            Some(Target::Lease(lease)) => number(|pair| pair.lease).cmp(lease),
            Some(Target::Value(value)) => match &pair {
                Some(pair) => pair.value.cmp(value),
                None => return Ok(false),
            },
            None => return Err(refused(Refusal::Invalid, "a compare that says nothing")),
        };
        match compare.relation() {
            Relation::Equal => Ok(ordering.is_eq()),
            Relation::NotEqual => Ok(ordering.is_ne()),
            Relation::Greater => Ok(ordering.is_gt()),
            Relation::Less => Ok(ordering.is_lt()),
            Relation::Unspecified => Err(refused(Refusal::Invalid, "a compare without a relation")),
        }
    }

    fn attach(&mut self, lease: u64, key: &[u8]) -> Result<(), Fault> {
        if lease == 0 {
            return Ok(());
        }
        let mut held = self.lease(lease)?;
        ensure(held.keys < MAX_DELETED_KEYS as u64, Refusal::TooMany, || {
            format!("lease {lease} holds {MAX_DELETED_KEYS} keys already")
        })?;
        held.keys += 1;
        self.put_record(Table::Kv, Kv::Lease.numbered(lease), &held);
        self.view.put(Table::Kv, keys::lease_key(lease, key), Vec::new());
        Ok(())
    }

    fn detach(&mut self, lease: u64, key: &[u8]) -> Result<(), Fault> {
        if lease == 0 {
            return Ok(());
        }
        let mut held = self.lease(lease)?;
        held.keys = held.keys.saturating_sub(1);
        self.put_record(Table::Kv, Kv::Lease.numbered(lease), &held);
        self.view.delete(Table::Kv, keys::lease_key(lease, key));
        Ok(())
    }
}

fn check_key(key: &[u8]) -> Result<(), Fault> {
    ensure((1..=MAX_KEY_BYTES).contains(&key.len()), Refusal::Invalid, || {
        format!("a key has 1 to {MAX_KEY_BYTES} bytes, not {}", key.len())
    })
}

fn checked_range(range: Option<&KeyRange>) -> Result<&KeyRange, Fault> {
    let range = range.ok_or_else(|| refused(Refusal::Invalid, "a range is not said"))?;
    // A range of one key; others may begin with nothing.
    if range.end.is_empty() {
        check_key(&range.key)?;
    }
    let longest = range.key.len().max(range.end.len());
    ensure(longest <= MAX_KEY_BYTES, Refusal::Invalid, || format!("a key has {MAX_KEY_BYTES} bytes at most"))?;
    Ok(range)
}

fn size_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + PAIR_OVERHEAD_BYTES
}

fn size_of(pair: &KeyValue) -> u64 {
    size_bytes(&pair.key, &pair.value)
}
