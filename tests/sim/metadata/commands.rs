//! Commands of all kinds, drawn at random; most of them make sense.

use super::super::rng::Rng;
use super::super::scenario::Plan;
use super::model::Model;
use crate::ident::ReplicaId;
use crate::meta::command::{self, action};
use crate::meta::proto::action::Kind;
use crate::meta::proto::compare::Target;
use crate::meta::proto::op::Kind as OpKind;
use crate::meta::proto::{
    AddMember, Attribute, Attributes, Command, Compact, Compare, CreateToken, Delete, Get, GrantLease, Init, KeepAlive,
    KeyRange, MemberSpec, MemberState, Op, Put, RaiseVersion, Relation, RemoveMember, ResetSetting, RevokeLease,
    RevokeToken, SetMemberState, SetMemberVote, SetSetting, StartMember, Strings, Txn, UpdateMember,
};

/// Keys that anything may happen to.
const KEYS: u64 = 8;
/// Settings of what is kept.
pub(super) const QUOTA: &str = "kv.quota_bytes";
pub(super) const HISTORY: &str = "kv.history_bytes";
/// Times to live: short enough that many end within a run.
const TTLS_MS: [u64; 4] = [1000, 1500, 2500, 4000];

/// What those who ask remember.
#[derive(Default)]
pub(super) struct Known {
    /// Secrets and tokens that were made up so far.
    secrets: u64,
    tokens: u64,
}

/// The key of a register, which is only ever put.
pub(super) fn register_key(register: u8) -> Vec<u8> {
    vec![b'r', b'/', b'0' + register]
}

/// Sets a register.
pub(super) fn put_register(register: u8, value: u64, padding: u64) -> Kind {
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(8 + padding as usize, 0);
    Kind::Put(Put { key: register_key(register), value: bytes, lease: 0 })
}

/// A command that knows which operation it is.
pub(super) fn command(operation: usize, kinds: Vec<Kind>) -> Command {
    let actions = kinds.into_iter().map(action).collect();
    Command { actor: "operator".to_owned(), reason: operation.to_string(), unix_ms: operation as u64, actions }
}

pub(super) fn encode(command: &Command) -> Vec<u8> {
    command::encode(command)
}

fn key(rng: &mut Rng) -> Vec<u8> {
    vec![b'k', b'/', b'0' + rng.below(KEYS) as u8]
}

fn range(rng: &mut Rng) -> KeyRange {
    let (one, two) = (key(rng), key(rng));
    match rng.below(3) {
        0 => KeyRange { key: one.clone().min(two.clone()), end: one.max(two) },
        _ => KeyRange { key: one, end: Vec::new() },
    }
}

fn hash(of: &str, number: u64) -> Vec<u8> {
    let mut bytes = format!("{of} {number}").into_bytes();
    bytes.resize(32, 0);
    bytes
}

/// Some number that was given, or one that was not.
fn some(rng: &mut Rng, numbers: impl Iterator<Item = u64>) -> u64 {
    let numbers: Vec<u64> = numbers.collect();
    if numbers.is_empty() || rng.chance(50) { rng.below(30) } else { rng.pick(&numbers) }
}

impl Known {
    /// What one command is to do.
    pub(super) fn draw(&mut self, rng: &mut Rng, model: &Model, plan: &Plan) -> Vec<Kind> {
        if !model.is_formed {
            self.secrets += 1;
            let (cluster_id, system_id) = (rng.next() | 1, rng.next() | 1);
            let mut kinds = vec![Kind::Init(Init { cluster_id, system_id, member: Some(spec(self.secrets)) })];
            if plan.voting {
                (2..=plan.replicas()).for_each(|id| kinds.extend(self.member(id, plan)));
            }
            return kinds;
        }
        if plan.voting && rng.chance(500) {
            return vec![of_votes(rng, plan.replicas())];
        }
        if plan.tight && rng.chance(300) {
            return vec![of_room(rng)];
        }
        let count = if rng.chance(300) { rng.range(2, 4) } else { 1 };
        (0..count).map(|_| self.action(rng, model, plan)).collect()
    }

    /// A node becomes a member of this number. One that is in the group from the start is active.
    fn member(&mut self, id: u64, plan: &Plan) -> Vec<Kind> {
        (self.secrets, self.tokens) = (self.secrets + 1, self.tokens + 1);
        let token = hash("token", self.tokens);
        let mut kinds = vec![
            Kind::CreateToken(CreateToken { hash: token.clone(), ttl_ms: TTLS_MS[0] }),
            Kind::AddMember(AddMember { member: Some(spec(self.secrets)), token_hash: token }),
        ];
        if plan.membership().nodes.contains_key(&ReplicaId::new(id)) {
            kinds.push(Kind::SetMemberState(to(id, MemberState::Active)));
        }
        kinds
    }

    fn action(&mut self, rng: &mut Rng, model: &Model, plan: &Plan) -> Kind {
        let lease = |rng: &mut Rng| some(rng, model.leases.keys().copied());
        match rng.below(100) {
            0..20 => Kind::Put(Put { key: key(rng), value: vec![rng.next() as u8; 2], lease: 0 }),
            20..30 => Kind::Put(Put { key: key(rng), value: vec![rng.next() as u8; 2], lease: lease(rng) }),
            30..37 => Kind::Delete(Delete { range: Some(range(rng)) }),
            37..47 => Kind::Txn(txn(rng, model)),
            47..51 => Kind::Compact(Compact { revision: model.revision.saturating_sub(rng.below(8)) }),
            51..58 => {
                let id = if rng.chance(200) { rng.range(1, 40) } else { 0 };
                Kind::GrantLease(GrantLease { id, ttl_ms: rng.pick(&TTLS_MS) })
            }
            58..70 => Kind::KeepAlive(KeepAlive { id: lease(rng) }),
            70..73 => Kind::RevokeLease(RevokeLease { id: lease(rng) }),
            73..76 => Kind::Put(Put { key: Vec::new(), value: Vec::new(), lease: 0 }),
            _ if plan.voting => of_votes(rng, plan.replicas()),
            _ => self.of_cluster(rng, model),
        }
    }

    fn of_cluster(&mut self, rng: &mut Rng, model: &Model) -> Kind {
        let id = some(rng, model.members.keys().copied());
        match rng.below(24) {
            0..5 => {
                self.tokens += 1;
                Kind::CreateToken(CreateToken { hash: hash("token", self.tokens), ttl_ms: rng.pick(&TTLS_MS) })
            }
            5 => Kind::RevokeToken(RevokeToken { id: rng.range(1, self.tokens + 1) }),
            6..12 => {
                self.secrets += 1;
                let secret = if rng.chance(100) { rng.range(1, self.secrets) } else { self.secrets };
                let latest = self.tokens.saturating_sub(rng.below(3));
                Kind::AddMember(AddMember { member: Some(spec(secret)), token_hash: hash("token", latest) })
            }
            12 => Kind::UpdateMember(UpdateMember {
                id,
                name: Some(format!("n{}", rng.below(20))),
                addresses: rng.chance(300).then(|| Strings { values: vec![format!("10.0.1.{}:1", rng.below(20))] }),
                attributes: Some(Attributes { values: vec![Attribute { key: "rack".into(), value: "1".into() }] }),
                locality: None,
            }),
            13..16 => {
                let before = model.members.get(&id).copied().unwrap_or_default();
                Kind::StartMember(StartMember {
                    id,
                    // The secret of a member is not known by its number: it is tried.
                    secret_hash: hash("secret", rng.range(1, self.secrets.min(4))),
                    incarnation: before + rng.below(3),
                    version: 1,
                    addresses: Vec::new(),
                })
            }
            16..19 => {
                let states = [MemberState::Active, MemberState::Draining, MemberState::Decommissioned];
                Kind::SetMemberState(to(id, rng.pick(&states)))
            }
            19..21 => Kind::RemoveMember(RemoveMember { id }),
            // To raise the version changes nothing, and need not be tried as often.
            21 if id.is_multiple_of(2) => {
                Kind::SetMemberVote(SetMemberVote { id, votes: model.revision.is_multiple_of(3) })
            }
            21 => Kind::RaiseVersion(RaiseVersion { to: 1 }),
            22 => {
                let value = rng.pick(&["100", "200", "5"]).to_owned();
                Kind::SetSetting(SetSetting { name: "events.max_count".into(), value })
            }
            _ => Kind::ResetSetting(ResetSetting { name: "events.max_count".into() }),
        }
    }
}

fn to(id: u64, to: MemberState) -> SetMemberState {
    SetMemberState { id, from: MemberState::Unspecified.into(), to: to.into() }
}

/// What has to do with who votes and who may lead, of so many members.
fn of_votes(rng: &mut Rng, members: u64) -> Kind {
    let id = rng.range(1, members);
    match rng.below(10) {
        0..7 => Kind::SetMemberVote(SetMemberVote { id, votes: rng.chance(400) }),
        7 => Kind::SetMemberState(to(id, MemberState::Draining)),
        // One that joins is activated by the leader, once it takes part.
        _ => Kind::SetMemberState(SetMemberState { from: MemberState::Draining.into(), ..to(id, MemberState::Active) }),
    }
}

/// What has to do with room: much of it is asked for, and it is made wider and narrower.
fn of_room(rng: &mut Rng) -> Kind {
    let set = |name: &str, value: &str| Kind::SetSetting(SetSetting { name: name.into(), value: value.into() });
    match rng.below(12) {
        0 => set(QUOTA, "1 MiB"),
        1 => set(QUOTA, "2 MiB"),
        2 => Kind::ResetSetting(ResetSetting { name: QUOTA.into() }),
        3 => set(HISTORY, "16 MiB"),
        4 => Kind::ResetSetting(ResetSetting { name: HISTORY.into() }),
        5 => Kind::Delete(Delete { range: Some(range(rng)) }),
        _ => Kind::Put(Put { key: key(rng), value: vec![rng.next() as u8; rng.below(120) as usize], lease: 0 }),
    }
}

/// Everything but the registers is to go.
pub(super) fn make_room() -> Kind {
    Kind::Delete(Delete { range: Some(KeyRange { key: b"k/".to_vec(), end: b"k0".to_vec() }) })
}

fn spec(secret: u64) -> MemberSpec {
    MemberSpec {
        addresses: vec![format!("10.0.0.{secret}:7000")],
        secret_hash: hash("secret", secret),
        incarnation: 1,
        version: 1,
        ..MemberSpec::default()
    }
}

fn txn(rng: &mut Rng, model: &Model) -> Txn {
    let target = match rng.below(4) {
        0 => Target::Version(rng.below(3)),
        1 => Target::CreateRevision(0),
        2 => Target::Lease(0),
        _ => Target::ModRevision(model.revision.saturating_sub(rng.below(6))),
    };
    let relations = [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];
    let relation = rng.pick(&relations).into();
    let compares = vec![Compare { key: key(rng), relation, target: Some(target) }];
    let mut ops = || (0..rng.below(4)).map(|_| op(rng)).collect();
    Txn { compares, then: ops(), otherwise: ops() }
}

fn op(rng: &mut Rng) -> Op {
    let kind = match rng.below(4) {
        0 | 1 => OpKind::Put(Put { key: key(rng), value: vec![rng.next() as u8], lease: 0 }),
        2 => OpKind::Delete(Delete { range: Some(range(rng)) }),
        _ => OpKind::Get(Get { range: Some(range(rng)), limit: 0 }),
    };
    Op { kind: Some(kind) }
}
