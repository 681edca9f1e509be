//! What commands mean, written down a second time and as simply as can be: keys, values, leases, and which numbers were
//! given.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::super::tables::Tables;
use super::super::world::{Checked, violated};
use crate::ident::GroupId;
use crate::meta::proto::action::Kind;
use crate::meta::proto::compare::Target;
use crate::meta::proto::op::Kind as OpKind;
use crate::meta::proto::op_done::Kind as OpOutcome;
use crate::meta::proto::result::Kind as Outcome;
use crate::meta::proto::{Command, Compare, Done, KeyRange, KeyValue, Op, Put, Relation};
use crate::meta::read;
use crate::meta::view::StoreView;
use crate::meta::watch::KvChange;

/// A lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) ttl_ms: u64,
    /// The entry that granted or renewed it last.
    pub(super) renewal: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Model {
    pairs: BTreeMap<Vec<u8>, KeyValue>,
    pub(super) revision: u64,
    pub(super) compacted: u64,
    /// What each revision changed.
    pub(super) history: BTreeMap<u64, Vec<KvChange>>,
    pub(super) leases: BTreeMap<u64, Lease>,
    /// Leases that the last command let expire.
    pub(super) ended: Vec<(u64, Lease)>,
    pub(super) members: BTreeMap<u64, u64>,
    pub(super) is_formed: bool,
    /// Numbers that were given, of leases only those that were not asked for.
    given: BTreeSet<(&'static str, u64)>,
    used_tokens: BTreeSet<Vec<u8>>,
    /// Whether this action has changed anything yet.
    changes: bool,
}

const WHAT: &str = "commands do what they say";

impl Model {
    pub(super) fn apply(&mut self, index: u64, command: &Command, done: &Done) -> Checked {
        self.ended.clear();
        if done.results.len() != command.actions.len() {
            return violated("batches are atomic", format!("{done:?} for {command:?}"));
        }
        for (action, result) in command.actions.iter().zip(&done.results) {
            self.changes = false;
            if let (Some(kind), Some(outcome)) = (&action.kind, &result.kind) {
                self.act(index, kind, outcome)?;
            }
        }
        expect("the revision afterwards", done.revision, self.revision)
    }

    fn act(&mut self, index: u64, kind: &Kind, outcome: &Outcome) -> Checked {
        match (kind, outcome) {
            (Kind::Put(put), Outcome::Put(done)) => {
                self.put(put);
                expect("the revision of a put", done.revision, self.revision)
            }
            (Kind::Delete(delete), Outcome::Delete(done)) => {
                let deleted = self.delete(delete.range.as_ref());
                expect("what was deleted", (done.revision, done.deleted), (self.revision, deleted))
            }
            (Kind::Txn(txn), Outcome::Txn(done)) => {
                let holds = txn.compares.iter().all(|compare| self.holds(compare));
                expect("whether a transaction's compares hold", done.succeeded, holds)?;
                let ops = if holds { &txn.then } else { &txn.otherwise };
                expect("the operations of a transaction", done.ops.len(), ops.len())?;
                for (op, outcome) in ops.iter().zip(&done.ops) {
                    self.op(op, outcome.kind.as_ref())?;
                }
                expect("the revision of a transaction", done.revision, self.revision)
            }
            (Kind::Compact(compact), _) => {
                self.compacted = compact.revision;
                Ok(())
            }
            (Kind::GrantLease(grant), Outcome::Lease(done)) => {
                if grant.id == 0 {
                    self.give("a lease", done.id)?;
                }
                let lease = Lease { ttl_ms: grant.ttl_ms, renewal: index };
                let before = self.leases.insert(done.id, lease);
                expect("a lease of that number before", before.is_some(), false)
            }
            (Kind::KeepAlive(keep), Outcome::Lease(done)) => match self.leases.get_mut(&keep.id) {
                Some(lease) => {
                    lease.renewal = index;
                    expect("the time to live", done.ttl_ms, lease.ttl_ms)
                }
                None => violated(WHAT, format!("lease {} is kept alive, and there is none", keep.id)),
            },
            (Kind::RevokeLease(revoke), Outcome::Delete(done)) => {
                let deleted = self.end_lease(revoke.id);
                expect("what a lease took along", (done.revision, done.deleted), (self.revision, deleted))
            }
            (Kind::Expire(_), Outcome::Expired(done)) => {
                for id in &done.leases {
                    let Some(lease) = self.leases.get(id).copied() else {
                        return violated(WHAT, format!("lease {id} expires, and there is none"));
                    };
                    self.ended.push((*id, lease));
                    self.end_lease(*id);
                }
                Ok(())
            }
            _ => self.of_cluster(index, kind, outcome),
        }
    }

    fn of_cluster(&mut self, index: u64, kind: &Kind, outcome: &Outcome) -> Checked {
        match (kind, outcome) {
            (Kind::Init(_), Outcome::Member(member)) => {
                expect("whether the cluster was formed before", self.is_formed, false)?;
                self.is_formed = true;
                self.members.insert(member.id, member.incarnation);
                self.give("a member", member.id)
            }
            // A node that asks again hears of itself.
            (Kind::AddMember(add), Outcome::Member(member)) if member.added == index => {
                if !self.used_tokens.insert(add.token_hash.clone()) {
                    return violated("tokens are good once", format!("member {} came with one again", member.id));
                }
                self.members.insert(member.id, member.incarnation);
                self.give("a member", member.id)
            }
            (Kind::StartMember(start), Outcome::Member(member)) => {
                let before = self.members.insert(member.id, start.incarnation).unwrap_or_default();
                match before < start.incarnation {
                    true => Ok(()),
                    false => violated("incarnations rise", format!("member {}: {before}, then {start:?}", member.id)),
                }
            }
            (Kind::RemoveMember(_), Outcome::Member(member)) => {
                self.members.remove(&member.id);
                Ok(())
            }
            (Kind::CreateToken(_), Outcome::Token(token)) => self.give("a token", token.id),
            _ => Ok(()),
        }
    }

    /// Numbers are given once.
    fn give(&mut self, what: &'static str, number: u64) -> Checked {
        match self.given.insert((what, number)) {
            true => Ok(()),
            false => violated("numbers are given once", format!("{what} {number}")),
        }
    }

    fn begin_change(&mut self) {
        self.revision += u64::from(!std::mem::replace(&mut self.changes, true));
    }

    fn note(&mut self, change: KvChange) {
        self.history.entry(self.revision).or_default().push(change);
    }

    fn put(&mut self, put: &Put) {
        self.begin_change();
        let revision = self.revision;
        let before = self.pairs.get(&put.key);
        let pair = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: before.map_or(revision, |before| before.create_revision),
            mod_revision: revision,
            version: before.map_or(0, |before| before.version) + 1,
            lease: put.lease,
        };
        self.pairs.insert(put.key.clone(), pair.clone());
        self.note(KvChange::Put(pair));
    }

    fn delete(&mut self, range: Option<&KeyRange>) -> u64 {
        let keys: Vec<_> = self.pairs.keys().filter(|key| range.is_some_and(|it| is_in(it, key))).cloned().collect();
        self.remove(&keys)
    }

    fn remove(&mut self, keys: &[Vec<u8>]) -> u64 {
        for key in keys {
            self.begin_change();
            self.pairs.remove(key);
            self.note(KvChange::Deleted { key: key.clone() });
        }
        keys.len() as u64
    }

    fn end_lease(&mut self, id: u64) -> u64 {
        self.leases.remove(&id);
        let held = self.pairs.values().filter(|pair| pair.lease == id).map(|pair| pair.key.clone());
        let held: Vec<_> = held.collect();
        self.remove(&held)
    }

    fn op(&mut self, op: &Op, outcome: Option<&OpOutcome>) -> Checked {
        match (&op.kind, outcome) {
            (Some(OpKind::Put(put)), Some(OpOutcome::Put(done))) => {
                self.put(put);
                expect("the revision of a put in a transaction", done.revision, self.revision)
            }
            (Some(OpKind::Delete(delete)), Some(OpOutcome::Delete(done))) => {
                let deleted = self.delete(delete.range.as_ref());
                expect("what a transaction deleted", done.deleted, deleted)
            }
            (Some(OpKind::Get(get)), Some(OpOutcome::Get(done))) => {
                let pairs = self.pairs.values().filter(|pair| {
                    let range = get.range.as_ref();
                    range.is_some_and(|range| is_in(range, &pair.key))
                });
                let expected: Vec<_> = pairs.cloned().collect();
                expect("what a transaction read", &done.pairs, &expected)
            }
            _ => violated(WHAT, format!("{outcome:?} for {op:?}")),
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pair = self.pairs.get(&compare.key);
        let number = |of: fn(&KeyValue) -> u64| pair.map_or(0, of);
        let ordering = match compare.target.as_ref() {
            Some(Target::Version(version)) => number(|pair| pair.version).cmp(version),
            Some(Target::CreateRevision(revision)) => number(|pair| pair.create_revision).cmp(revision),
            Some(Target::ModRevision(revision)) => number(|pair| pair.mod_revision).cmp(revision),
            Some(Target::Lease(lease)) => number(|pair| pair.lease).cmp(lease),
            Some(Target::Value(value)) => match pair {
                Some(pair) => pair.value.cmp(value),
                None => return false,
            },
            None => return false,
        };
        match compare.relation() {
            Relation::Equal => ordering == Ordering::Equal,
            Relation::NotEqual => ordering != Ordering::Equal,
            Relation::Greater => ordering == Ordering::Greater,
            Relation::Less => ordering == Ordering::Less,
            Relation::Unspecified => false,
        }
    }

    /// The tables show what the model knows.
    pub(super) fn check(&self, tables: &Tables) -> Checked {
        let view = StoreView { store: tables.shown(), group: GroupId::new(1) };
        let everything = KeyRange { key: Vec::new(), end: vec![0] };
        let found = read::range(&view, &everything, u64::MAX, usize::MAX, usize::MAX);
        let (found, _) = found.unwrap_or_else(|error| panic!("tables in memory: {error}"));
        let expected: Vec<_> = self.pairs.values().cloned().collect();
        expect("keys and values", &found, &expected)
    }
}

/// Whether a key is of a range.
pub(super) fn is_in(range: &KeyRange, key: &[u8]) -> bool {
    match range.end.as_slice() {
        [] => key == range.key,
        [0] => key >= range.key.as_slice(),
        end => key >= range.key.as_slice() && key < end,
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Checked {
    match found == expected {
        true => Ok(()),
        false => violated(WHAT, format!("{what}: expected {expected:?}, found {found:?}")),
    }
}
