//! Keys, values, transactions, leases, watches.

use std::time::Duration;

use super::{Meta, Outcome, found, the};
use crate::meta::proto::action::Kind;
use crate::meta::proto::{
    Compact, Delete, GrantLease, KeepAlive, KeyRange, KeyValue, KvHeader, Lease, Put, RevokeLease, Txn, TxnDone,
};
use crate::meta::query::proto::query::Kind as Query;
use crate::meta::query::proto::{Everything, Get, Leases, Numbered};
use crate::meta::query::range_query;
use crate::meta::service::{KvUpdates, MetaError};

/// A watch says how far it is after this long without a change.
const NOTICE_EVERY: Duration = Duration::from_secs(10);

/// The small KV.
pub struct Kv<'a>(pub(super) &'a Meta);

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// One.
    One(Vec<u8>),
    /// All that begin so.
    Prefix(Vec<u8>),
    /// From one on, up to another that is not of them.
    Between(Vec<u8>, Vec<u8>),
    /// From one on.
    From(Vec<u8>),
}

impl From<&str> for Keys {
    fn from(key: &str) -> Keys {
        Keys::One(key.into())
    }
}

impl From<Keys> for KeyRange {
    fn from(keys: Keys) -> KeyRange {
        match keys {
            Keys::One(key) => KeyRange { key, end: Vec::new() },
            Keys::From(key) => KeyRange { key, end: vec![0] },
            Keys::Prefix(key) => {
                let mut end = key.clone();
                // The least key behind all that begin so: the last byte that can be raised is.
                while end.last() == Some(&u8::MAX) {
                    end.pop();
                }
                match end.last_mut() {
                    Some(last) => *last += 1,
                    None => end = vec![0],
                }
                KeyRange { key, end }
            }
            // No end and the end of everything are written alike: nothing lies before either.
            Keys::Between(_, end) if end.is_empty() || end == [0] => KeyRange { key: vec![1], end: vec![1] },
            Keys::Between(key, end) => KeyRange { key, end },
        }
    }
}

/// Pairs as of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    /// In the order of their keys.
    pub pairs: Vec<KeyValue>,
    /// There are more than were asked for, or fit.
    pub more: bool,
    /// The revision: ask for more at this one, and watch from the one behind it.
    pub revision: u64,
}

impl Kv<'_> {
    /// The pair of a key.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Option<KeyValue>, MetaError> {
        Ok(found!(Get, self.0.ask(Query::Get(Get { key: key.into() })).await?)?.pair)
    }

    /// The pairs of a range, `limit` at most; 0: as many as fit, 10 000 pairs and 2 MiB.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn range(&self, keys: impl Into<Keys>, limit: usize) -> Result<Pairs, MetaError> {
        self.range_at(keys, limit, 0).await
    }

    /// The same as of a revision; 0: the last one.
    ///
    /// # Errors
    /// See [`MetaError`]. A revision that was compacted is a
    /// [`WatchError::Compacted`](crate::meta::watch::WatchError::Compacted).
    pub async fn range_at(&self, keys: impl Into<Keys>, limit: usize, revision: u64) -> Result<Pairs, MetaError> {
        let asked = range_query(keys.into().into(), limit, revision);
        let found = found!(Range, self.0.ask(asked).await?)?;
        Ok(Pairs { pairs: found.pairs, more: found.more, revision: found.revision })
    }

    /// Sets a key; says in which revision.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<u64, MetaError> {
        self.put_leased(key, value, 0).await
    }

    /// Sets a key that goes with a lease; 0: with none.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn put_leased(
        &self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        lease: u64,
    ) -> Result<u64, MetaError> {
        let put = Put { key: key.into(), value: value.into(), lease };
        Ok(the!(Put, self.0.one(Kind::Put(put)).await?)?.revision)
    }

    /// Deletes keys, and says how many there were.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn delete(&self, keys: impl Into<Keys>) -> Result<u64, MetaError> {
        let delete = Delete { range: Some(keys.into().into()) };
        Ok(the!(Delete, self.0.one(Kind::Delete(delete)).await?)?.deleted)
    }

    /// Compares, and does one thing or the other, at once. [`compare`] and [`ops`] make the parts.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn txn(&self, txn: Txn) -> Result<TxnDone, MetaError> {
        the!(Txn, self.0.one(Kind::Txn(txn)).await?)
    }

    /// Forgets what was replaced or deleted up to a revision.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn compact(&self, revision: u64) -> Result<(), MetaError> {
        the!(Nothing, self.0.one(Kind::Compact(Compact { revision })).await?).map(drop)
    }

    /// Watches keys from a revision on, or from 0, from what is known here now.
    pub fn watch(&self, keys: impl Into<Keys>, from: u64) -> Box<dyn KvUpdates> {
        self.watch_noticed(keys, from, NOTICE_EVERY)
    }

    /// The same, with word of how far it is after this long without a change.
    pub fn watch_noticed(&self, keys: impl Into<Keys>, from: u64, notice_every: Duration) -> Box<dyn KvUpdates> {
        self.0.backend.watch(keys.into().into(), from, notice_every)
    }

    /// Grants a lease: keys put with it go when nobody keeps it alive for this long.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn grant_lease(&self, ttl: Duration) -> Result<Lease, MetaError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        the!(Lease, self.0.one(Kind::GrantLease(GrantLease { id: 0, ttl_ms })).await?)
    }

    /// Makes a lease last its time from now on again.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn keep_alive(&self, lease: u64) -> Result<Lease, MetaError> {
        the!(Lease, self.0.one(Kind::KeepAlive(KeepAlive { id: lease })).await?)
    }

    /// Ends a lease and deletes its keys; says how many.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn revoke_lease(&self, lease: u64) -> Result<u64, MetaError> {
        Ok(the!(Delete, self.0.one(Kind::RevokeLease(RevokeLease { id: lease })).await?)?.deleted)
    }

    /// Leases from a number on, in order, `limit` at most; 0: as many as fit, 10 000.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn leases(&self, from: u64, limit: usize) -> Result<Vec<Lease>, MetaError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Ok(found!(Leases, self.0.ask(Query::Leases(Leases { from, limit })).await?)?.leases)
    }

    /// How many keys there are, how large they are, how far the history goes.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn size(&self) -> Result<KvHeader, MetaError> {
        found!(Kv, self.0.ask(Query::Kv(Everything {})).await?)
    }

    /// A lease, if there is one.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn lease(&self, lease: u64) -> Result<Option<Lease>, MetaError> {
        Ok(found!(Lease, self.0.ask(Query::Lease(Numbered { number: lease })).await?)?.lease)
    }
}

/// What a transaction compares.
pub mod compare {
    use crate::meta::proto::compare::Target;
    use crate::meta::proto::{Compare, Relation};

    fn equal(key: impl Into<Vec<u8>>, target: Target) -> Compare {
        Compare { key: key.into(), relation: Relation::Equal.into(), target: Some(target) }
    }

    /// There is no such key.
    pub fn absent(key: impl Into<Vec<u8>>) -> Compare {
        equal(key, Target::Version(0))
    }

    /// The key has this value.
    pub fn value(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Compare {
        equal(key, Target::Value(value.into()))
    }

    /// The key was put last in this revision.
    pub fn mod_revision(key: impl Into<Vec<u8>>, revision: u64) -> Compare {
        equal(key, Target::ModRevision(revision))
    }
}

/// What a transaction does.
pub mod ops {
    use super::Keys;
    use crate::meta::proto::op::Kind;
    use crate::meta::proto::{Delete, Get, Op, Put};

    /// Sets a key.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Op {
        Op { kind: Some(Kind::Put(Put { key: key.into(), value: value.into(), lease: 0 })) }
    }

    /// Deletes keys.
    pub fn delete(keys: impl Into<Keys>) -> Op {
        Op { kind: Some(Kind::Delete(Delete { range: Some(keys.into().into()) })) }
    }

    /// Reads keys.
    pub fn get(keys: impl Into<Keys>) -> Op {
        Op { kind: Some(Kind::Get(Get { range: Some(keys.into().into()), limit: 0 })) }
    }
}
