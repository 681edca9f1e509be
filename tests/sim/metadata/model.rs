//! What commands mean, written down a second time and as simply as can be: keys, values, leases, and which numbers were
//! given.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::super::tables::Tables;
use super::super::world::{Checked, violated};
use super::commands::{HISTORY, QUOTA};
use crate::ident::GroupId;
use crate::meta::fault;
use crate::meta::proto::action::Kind;
use crate::meta::proto::compare::Target;
use crate::meta::proto::op::Kind as OpKind;
use crate::meta::proto::op_done::Kind as OpOutcome;
use crate::meta::proto::result::Kind as Outcome;
use crate::meta::proto::{AddMember, Command, Compare, Done, KeyRange, KeyValue, Op, Put, Refusal, Refused, Relation};
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
    /// The secrets that they were added with.
    secrets: BTreeMap<u64, Vec<u8>>,
    pub(super) is_formed: bool,
    /// Whether one member goes on alone.
    pub(super) knows_forced: bool,
    /// Numbers that were given, of leases only those that were not asked for.
    given: BTreeSet<(&'static str, u64)>,
    used_tokens: BTreeSet<Vec<u8>>,
    /// Settings that are not what they are by default: the quota, and the bound of the history.
    room: BTreeMap<&'static str, u64>,
    /// The least that the history was bounded by since the command began.
    least_history: u64,
    /// Whether it was shortened by itself.
    pub(super) was_shortened: bool,
    /// Whether this action has changed anything yet.
    changes: bool,
}

const MIB: u64 = 1 << 20;
const WHAT: &str = "commands do what they say";

impl Model {
    pub(super) fn apply(&mut self, index: u64, command: &Command, done: &Done) -> Checked {
        self.ended.clear();
        (self.least_history, self.was_shortened) = (self.bound(HISTORY), false);
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
                self.put(put)?;
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
            // A node that asks again hears of itself, also in the same command.
            (Kind::AddMember(add), Outcome::Member(member)) if member.added == index && !self.knows(add, member.id) => {
                if !self.used_tokens.insert(add.token_hash.clone()) {
                    return violated("tokens are good once", format!("member {} came with one again", member.id));
                }
                let secret = add.member.as_ref().map(|member| member.secret_hash.clone());
                self.secrets.insert(member.id, secret.unwrap_or_default());
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
            (Kind::SetMemberVote(set), Outcome::Member(member)) => {
                expect("whether a member is not to vote", (member.id, member.non_voting), (set.id, !set.votes))
            }
            (Kind::RemoveMember(_), Outcome::Member(member)) => {
                self.members.remove(&member.id);
                self.secrets.remove(&member.id);
                Ok(())
            }
            (Kind::ForceNew(force), _) => {
                self.knows_forced = true;
                self.members.retain(|id, _| *id == force.survivor);
                self.secrets.retain(|id, _| *id == force.survivor);
                Ok(())
            }
            (Kind::SetSetting(set), _) => {
                if let Some(name) = [QUOTA, HISTORY].into_iter().find(|name| *name == set.name) {
                    let mib: u64 = set.value.trim_end_matches(" MiB").parse().unwrap_or_default();
                    self.room.insert(name, mib * MIB);
                    self.least_history = self.least_history.min(self.bound(HISTORY));
                }
                Ok(())
            }
            (Kind::ResetSetting(reset), _) => {
                self.room.remove(reset.name.as_str());
                self.least_history = self.least_history.min(self.bound(HISTORY));
                Ok(())
            }
            (Kind::CreateToken(_), Outcome::Token(token)) => self.give("a token", token.id),
            _ => Ok(()),
        }
    }

    /// Whether the node that is to be added is the member of this number.
    fn knows(&self, add: &AddMember, id: u64) -> bool {
        let secret = add.member.as_ref().map(|member| &member.secret_hash);
        secret.is_some_and(|secret| self.secrets.get(&id) == Some(secret))
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

    /// What a setting of what is kept comes to.
    fn bound(&self, name: &'static str) -> u64 {
        let default = if name == QUOTA { 256 * MIB } else { 64 * MIB };
        fault::shrunk(self.room.get(name).copied().unwrap_or(default))
    }

    /// Whether there is room for a put, or it needs no more than what it replaces.
    fn has_room(&self, put: &Put) -> bool {
        let (size, freed) = (bytes(&put.key, &put.value), self.pairs.get(&put.key).map_or(0, bytes_of));
        let live: u64 = self.pairs.values().map(bytes_of).sum();
        live - freed + size <= self.bound(QUOTA) || size <= freed
    }

    /// A command was refused, and has changed nothing.
    pub(super) fn refused(&mut self, command: &Command, refused: &Refused) -> Checked {
        self.ended.clear();
        let first = command.actions.first().and_then(|action| action.kind.as_ref());
        match first {
            Some(Kind::Put(put)) if refused.why() == Refusal::Quota && refused.action == 0 && self.has_room(put) => {
                violated("what fits is taken", format!("{put:?}: {refused:?}"))
            }
            _ => Ok(()),
        }
    }

    /// The history was shortened by itself, if it says so: up to a revision whose changes and all later ones were too much.
    pub(super) fn shortened(&mut self, compacted: u64) -> Checked {
        if compacted <= self.compacted {
            return expect("what is compacted", compacted, self.compacted);
        }
        let kept: u64 = self.history.range(compacted..).flat_map(|(_, changes)| changes).map(bytes_of_change).sum();
        (self.compacted, self.was_shortened) = (compacted, true);
        match kept > self.least_history {
            true => Ok(()),
            false => violated("only what is too much is forgotten", format!("{compacted}, behind it {kept} bytes")),
        }
    }

    pub(super) fn has_more_than_registers(&self) -> bool {
        self.pairs.keys().any(|key| key.starts_with(b"k/"))
    }

    fn put(&mut self, put: &Put) -> Checked {
        if !self.has_room(put) {
            return violated("nothing is taken that does not fit", format!("{put:?}"));
        }
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
        Ok(())
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
                self.put(put)?;
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

/// What a key and its value count for, beside which each takes a little more.
fn bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + 64
}

fn bytes_of(pair: &KeyValue) -> u64 {
    bytes(&pair.key, &pair.value)
}

fn bytes_of_change(change: &KvChange) -> u64 {
    match change {
        KvChange::Put(pair) => bytes_of(pair),
        KvChange::Deleted { key } => bytes(key, &[]),
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Checked {
    match found == expected {
        true => Ok(()),
        false => violated(WHAT, format!("{what}: expected {expected:?}, found {found:?}")),
    }
}
