//! What holds for any commands.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::meta::proto::op::Kind as OpKind;
use crate::meta::proto::{self, Compact, Compare, KeepAlive, Relation, RevokeLease, RevokeToken};

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', 0xff]), 1..3)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop_oneof![Just(vec![]), Just(vec![0]), key()]).prop_map(|(key, end)| KeyRange { key, end })
}

fn any_put() -> impl Strategy<Value = Put> {
    (key(), prop::collection::vec(any::<u8>(), 0..3), prop_oneof![3 => Just(0u64), 1 => 1u64..5])
        .prop_map(|(key, value, lease)| Put { key, value, lease })
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        3 => any_put().prop_map(OpKind::Put),
        1 => range().prop_map(|range| OpKind::Delete(Delete { range: Some(range) })),
        1 => (range(), 0u32..3).prop_map(|(range, limit)| OpKind::Get(proto::Get { range: Some(range), limit })),
    ];
    kind.prop_map(|kind| Op { kind: Some(kind) })
}

fn txn() -> impl Strategy<Value = Txn> {
    let target = prop_oneof![
        (0u64..4).prop_map(proto::compare::Target::Version),
        (0u64..9).prop_map(proto::compare::Target::ModRevision),
        prop::collection::vec(any::<u8>(), 0..2).prop_map(proto::compare::Target::Value),
    ];
    let compare = (key(), 1i32..5, target).prop_map(|(key, relation, target)| Compare {
        key,
        relation: Relation::try_from(relation).unwrap().into(),
        target: Some(target),
    });
    let ops = || prop::collection::vec(op(), 0..4);
    (prop::collection::vec(compare, 0..2), ops(), ops()).prop_map(|(compares, then, otherwise)| Txn {
        compares,
        then,
        otherwise,
    })
}

fn member_action() -> impl Strategy<Value = Kind> {
    let states = 0i32..5;
    prop_oneof![
        (1u8..6, 1u8..9).prop_map(|(secret, token)| {
            Kind::AddMember(AddMember { member: Some(spec(secret)), token_hash: hash(token) })
        }),
        (1u8..9).prop_map(|byte| Kind::CreateToken(CreateToken { hash: hash(byte), ttl_ms: 0 })),
        (1u64..9).prop_map(|id| Kind::RevokeToken(RevokeToken { id })),
        (1u64..6, 1u8..6, 0u64..6).prop_map(|(id, secret, incarnation)| {
            let addresses = if incarnation % 2 == 0 { vec![] } else { spec(secret).addresses };
            Kind::StartMember(StartMember { id, secret_hash: hash(secret), incarnation, version: 1, addresses })
        }),
        (1u64..6, states).prop_map(|(id, to)| Kind::SetMemberState(proto::SetMemberState { id, from: 0, to })),
        (1u64..6).prop_map(|id| Kind::RemoveMember(proto::RemoveMember { id })),
        (1u64..6, any::<bool>()).prop_map(|(id, votes)| Kind::SetMemberVote(proto::SetMemberVote { id, votes })),
        (1u64..6, "[ab]?").prop_map(|(id, name)| {
            let (addresses, attributes, locality) = Default::default();
            Kind::UpdateMember(proto::UpdateMember { id, name: Some(name), addresses, attributes, locality })
        }),
        prop::sample::select(vec!["1", "200", "2000000"]).prop_map(|value| set("events.max_count", value)),
        Just(Kind::ResetSetting(proto::ResetSetting { name: "events.max_count".into() })),
    ]
}

fn any_action() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => any_put().prop_map(Kind::Put),
        2 => range().prop_map(|range| Kind::Delete(Delete { range: Some(range) })),
        4 => txn().prop_map(Kind::Txn),
        1 => (0u64..40).prop_map(|revision| Kind::Compact(Compact { revision })),
        2 => (0u64..5).prop_map(|id| grant(id, 1000)),
        1 => (1u64..5).prop_map(|id| Kind::KeepAlive(KeepAlive { id })),
        1 => (1u64..5).prop_map(|id| Kind::RevokeLease(RevokeLease { id })),
        1 => (1u64..5, 1u64..30, 1u64..5).prop_map(|(id, renewal, token)| {
            Kind::Expire(Expire { leases: vec![DueLease { id, renewal }], tokens: vec![token] })
        }),
        5 => member_action(),
    ]
}

fn any_commands() -> impl Strategy<Value = Vec<Vec<Kind>>> {
    prop::collection::vec(
        prop_oneof![3 => prop::collection::vec(any_action(), 1..2), 1 => prop::collection::vec(any_action(), 2..5)],
        1..60,
    )
}

fn all(replica: &Replica, table: Table, range: std::ops::Range<Vec<u8>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    replica.tables.scan(table, &range.start..&range.end, usize::MAX).unwrap()
}

/// Counts by hand what the headers say.
fn check_counts(replica: &Replica) {
    let state = State::headers(&replica.tables).unwrap();
    let everything = KeyRange { key: vec![], end: vec![0] };
    let (pairs, _) = read::range(&replica.tables, &everything, u64::MAX, usize::MAX, usize::MAX).unwrap();
    let size = |pair: &KeyValue| (pair.key.len() + pair.value.len()) as u64 + 64;
    assert_eq!((state.kv.keys, state.kv.live_bytes), (pairs.len() as u64, pairs.iter().map(size).sum()));
    let changes = all(replica, Table::Kv, Kv::Change.all());
    let change = |(key, value): &(Vec<u8>, Vec<u8>)| keys::decode::<proto::Change>(Table::Kv, key, value).unwrap();
    assert_eq!(state.kv.history_bytes, changes.iter().map(|found| change(found).bytes).sum::<u64>());
    let leases = all(replica, Table::Kv, Kv::Lease.all());
    assert_eq!(state.kv.leases, leases.len() as u64);
    for (key, value) in &leases {
        let lease: Lease = keys::decode(Table::Kv, key, value).unwrap();
        let held: BTreeSet<_> =
            pairs.iter().filter(|pair| pair.lease == lease.id).map(|pair| pair.key.clone()).collect();
        let noted: BTreeSet<_> = all(replica, Table::Kv, keys::lease_keys(lease.id))
            .iter()
            .map(|(key, _)| keys::decode_lease_key(key).unwrap().to_vec())
            .collect();
        assert_eq!((&held, held.len() as u64), (&noted, lease.keys));
    }
    // A version for each change that is remembered, and one before them for each key: what it was, or is.
    let changed = changes.iter().map(|found| change(found).key);
    let known: BTreeSet<_> = changed.chain(pairs.iter().map(|pair| pair.key.clone())).collect();
    let versions = all(replica, Table::Kv, Kv::Version.all()).len();
    assert!(versions <= changes.len() + known.len(), "{versions} versions, {} changes", changes.len());
    assert!(versions >= pairs.len());
    let events = all(replica, Table::Cluster, Cluster::Event.all()).len() as u64;
    assert_eq!(state.cluster.next_event - state.cluster.first_event, events);
    let tokens = all(replica, Table::Cluster, Cluster::Token.all());
    let token = |(key, value): &(Vec<u8>, Vec<u8>)| keys::decode::<Token>(Table::Cluster, key, value).unwrap();
    let open = tokens.iter().filter(|found| token(found).state() == proto::TokenState::Open).count();
    assert_eq!(state.cluster.tokens, open as u64);
    let members = all(replica, Table::Cluster, Cluster::Member.all());
    assert_eq!(state.cluster.members, members.len() as u64);
    for kind in [Cluster::MemberName, Cluster::MemberSecret, Cluster::MemberAddress] {
        assert_eq!(all(replica, Table::Cluster, kind.all()).len(), members.len(), "{kind:?}");
    }
    let member = |(key, value): &(Vec<u8>, Vec<u8>)| keys::decode::<Member>(Table::Cluster, key, value).unwrap();
    assert!(members.iter().any(|found| member(found).state() == MemberState::Active), "no member is active");
}

proptest! {
    /// Equal logs make equal bytes and answers, in whatever batches, and whatever is remembered from one to the next.
    #[test]
    fn replicas_are_equal_whatever_the_batches(commands in any_commands(), cuts in prop::collection::vec(1usize..9, 1..60)) {
        let commands: Vec<_> = commands.into_iter().map(encoded).collect();
        let (mut one, mut two) = (Replica::formed(), Replica::formed());
        let mut answers = Vec::new();
        for command in &commands {
            answers.extend(one.apply(std::slice::from_ref(command)).unwrap());
        }
        let mut rest = &commands[..];
        let mut others = Vec::new();
        let mut remembered = Remembered { state: State::load(&two.tables).unwrap(), recent: Recent::default() };
        for cut in cuts.iter().cycle() {
            let (batch, more) = rest.split_at((*cut).min(rest.len()));
            let (answers, left) = two.go_on(remembered, batch).unwrap();
            others.extend(answers);
            (rest, remembered) = (more, left);
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(answers, others);
        prop_assert_eq!(one, two);
    }

    /// What is refused has written nothing, whatever its first actions did, and the counts in the headers are right.
    #[test]
    fn commands_are_whole_or_not_at_all(commands in any_commands()) {
        let mut replica = Replica::formed();
        let mut numbers = BTreeSet::new();
        for actions in commands {
            let (before, expected) = (replica.tables.clone(), actions.len());
            match replica.command(actions) {
                Ok(done) => {
                    prop_assert_eq!(done.results.len(), expected);
                    check_counts(&replica);
                }
                Err(refused) => {
                    prop_assert!((refused.action as usize) < expected);
                    prop_assert_eq!(&replica.tables, &before);
                }
            }
            for event in replica.events() {
                if event.kind() == proto::EventKind::MemberAdded {
                    numbers.insert((event.subject.clone(), event.sequence));
                }
            }
        }
        let distinct: BTreeSet<_> = numbers.iter().map(|(number, _)| number).collect();
        prop_assert_eq!(distinct.len(), numbers.len(), "a member's number was given twice");
    }

    /// Every revision that is not compacted reads as it was, and its changes are there without a gap.
    #[test]
    fn every_revision_reads_as_it_was(commands in any_commands()) {
        let mut replica = Replica::formed();
        let everything = KeyRange { key: vec![], end: vec![0] };
        let at = |replica: &Replica, revision| {
            read::range(&replica.tables, &everything, revision, usize::MAX, usize::MAX).unwrap().0
        };
        let mut known: BTreeMap<u64, Vec<KeyValue>> = BTreeMap::new();
        known.insert(0, vec![]);
        for actions in commands {
            // One action each, so that each revision is seen.
            for action in actions {
                let _ = replica.command(vec![action]);
                let kv = replica.kv();
                known.entry(kv.revision).or_insert_with(|| at(&replica, u64::MAX));
                prop_assert_eq!(known.len() as u64, kv.revision + 1);
                for (revision, pairs) in known.range(kv.compacted..) {
                    prop_assert_eq!(&at(&replica, *revision), pairs, "at revision {}", revision);
                }
                let range = keys::changes_from(kv.compacted + 1);
                let revisions: BTreeSet<_> =
                    all(&replica, Table::Kv, range).iter().map(|(key, _)| keys::decode_change(key).unwrap().0).collect();
                prop_assert!(revisions.iter().copied().eq(kv.compacted + 1..kv.revision + 1), "{:?}", revisions);
            }
        }
    }
}
