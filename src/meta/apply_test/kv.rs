//! Keys, values, leases, compaction.

use super::*;
use crate::meta::proto::compare::Target;
use crate::meta::proto::op::Kind as OpKind;
use crate::meta::proto::op_done::Kind as OpOutcome;
use crate::meta::proto::{Compact, Compare, Get, KeepAlive, Relation, RevokeLease};

fn op(kind: OpKind) -> Op {
    Op { kind: Some(kind) }
}

fn put_op(key: &str, value: &str) -> Op {
    op(OpKind::Put(leased(key, value, 0)))
}

fn compare(key: &str, relation: Relation, target: Target) -> Compare {
    Compare { key: key.into(), relation: relation.into(), target: Some(target) }
}

fn compact(revision: u64) -> Kind {
    Kind::Compact(Compact { revision })
}

fn pair(replica: &Replica, key: &str) -> KeyValue {
    read::latest(&replica.tables, key.as_bytes()).unwrap().unwrap()
}

/// How many records of a kind there are.
fn count(replica: &Replica, kind: Kv) -> usize {
    let range = kind.all();
    replica.tables.scan(Table::Kv, &range.start..&range.end, usize::MAX).unwrap().len()
}

#[test]
fn revisions_rise_and_keys_know_theirs() {
    let mut replica = Replica::formed();
    assert_eq!(the!(Put, replica.done(put("a", "1"))).revision, 1);
    replica.done(put("b", "1"));
    replica.done(put("a", "2"));
    let a = pair(&replica, "a");
    assert_eq!((a.create_revision, a.mod_revision, a.version), (1, 3, 2));
    let deleted = the!(Delete, replica.done(delete("a", "")));
    assert_eq!((deleted.revision, deleted.deleted), (4, 1));
    let deleted = the!(Delete, replica.done(delete("a", "")));
    assert_eq!((deleted.revision, deleted.deleted), (4, 0), "what changes nothing is no revision");
    replica.done(put("a", "3"));
    let a = pair(&replica, "a");
    assert_eq!((a.create_revision, a.mod_revision, a.version), (5, 5, 1), "it was created anew");
    assert_eq!(replica.kv().keys, 2);
}

#[test]
fn ranges_are_read_as_of_any_revision() {
    let mut replica = Replica::formed();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("b", "4")] {
        replica.done(put(key, value));
    }
    replica.done(delete("a", "b\0"));
    let pairs = |expected: &[(&str, &str)]| {
        expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(replica.range_at("", "\0", 0), []);
    assert_eq!(replica.range_at("", "\0", 3), pairs(&[("a", "1"), ("b", "2"), ("c", "3")]));
    assert_eq!(replica.range_at("a", "c", 4), pairs(&[("a", "1"), ("b", "4")]));
    assert_eq!(replica.range_at("", "\0", 5), pairs(&[("c", "3")]));
    assert_eq!(replica.range_at("b", "a", 4), []);
    let range = KeyRange { key: b"a".to_vec(), end: vec![0] };
    let (found, more) = read::range(&replica.tables, &range, 4, 2, usize::MAX).unwrap();
    assert_eq!((found.len(), more), (2, true));
    let (found, more) = read::range(&replica.tables, &range, 4, 9, 1).unwrap();
    assert_eq!((found.len(), more), (1, true), "one pair, whatever its size");
}

#[test]
fn a_transaction_compares_and_takes_one_branch_in_one_revision() {
    let mut replica = Replica::formed();
    let txn = |compares: Vec<Compare>| {
        Kind::Txn(Txn {
            compares,
            then: vec![
                put_op("a", "new"),
                put_op("b", "new"),
                op(OpKind::Get(Get { range: Some(KeyRange { key: b"a".to_vec(), end: vec![0] }), limit: 0 })),
            ],
            otherwise: vec![op(OpKind::Get(Get {
                range: Some(KeyRange { key: b"a".to_vec(), end: vec![] }),
                limit: 0,
            }))],
        })
    };
    let free = || vec![compare("a", Relation::Equal, Target::CreateRevision(0))];
    let done = the!(Txn, replica.done(txn(free())));
    assert!(done.succeeded);
    assert_eq!(done.revision, 1);
    let Some(OpOutcome::Get(found)) = &done.ops[2].kind else { panic!("{done:?}") };
    assert_eq!(found.pairs.len(), 2, "it sees what it has put");
    assert!(found.pairs.iter().all(|pair| pair.mod_revision == 1));
    let done = the!(Txn, replica.done(txn(free())));
    assert!(!done.succeeded, "of two that race, one wins");
    let Some(OpOutcome::Get(found)) = &done.ops[0].kind else { panic!("{done:?}") };
    assert_eq!(found.pairs[0].value, b"new");
    assert_eq!(replica.kv().revision, 1);
    use Relation::{Equal, Greater, Less, NotEqual};
    let holds = [
        compare("a", Equal, Target::Value(b"new".to_vec())),
        compare("a", NotEqual, Target::Value(b"old".to_vec())),
        compare("a", Greater, Target::Version(0)),
        compare("a", Less, Target::ModRevision(2)),
        compare("a", Equal, Target::Lease(0)),
        compare("none", Equal, Target::Version(0)),
    ];
    let fails = [
        compare("a", Equal, Target::Value(b"old".to_vec())),
        compare("none", NotEqual, Target::Value(b"x".to_vec())),
        compare("a", Greater, Target::ModRevision(1)),
        compare("a", Less, Target::Version(1)),
    ];
    let try_it = |replica: &mut Replica, compares| {
        the!(Txn, replica.done(Kind::Txn(Txn { compares, then: vec![], otherwise: vec![] }))).succeeded
    };
    assert!(try_it(&mut replica, holds.to_vec()));
    for fails in fails {
        for both in [vec![holds[0].clone(), fails.clone()], vec![fails.clone(), holds[0].clone()]] {
            assert!(!try_it(&mut replica, both), "{fails:?}");
        }
    }
    let twice = Txn { compares: vec![], then: vec![put_op("a", "1"), put_op("a", "2")], otherwise: vec![] };
    assert_eq!(replica.why(Kind::Txn(twice)), Refusal::DuplicateKey);
    let empty = Txn { compares: vec![], then: vec![Op { kind: None }], otherwise: vec![] };
    assert_eq!(replica.why(Kind::Txn(empty)), Refusal::Invalid);
    let long = Txn { compares: vec![], then: vec![], otherwise: vec![put_op("a", "1"); 129] };
    assert_eq!(replica.why(Kind::Txn(long)), Refusal::TooMany);
}

#[test]
fn sizes_are_bounded_and_the_quota_recovers_after_deletes() {
    let mut replica = Replica::formed();
    replica.done(set("kv.quota_bytes", "1 MiB"));
    let large = |key: &str, bytes: usize| put(key, &"x".repeat(bytes));
    assert_eq!(replica.why(large("a", (1 << 20) + 1)), Refusal::TooLarge);
    assert_eq!(replica.why(put(&"k".repeat(4097), "")), Refusal::Invalid);
    replica.done(large("a", 600 << 10));
    let refused = replica.refused(large("b", 600 << 10));
    assert_eq!(refused.why(), Refusal::Quota);
    assert!(refused.message.contains("kv.quota_bytes"), "{}", refused.message);
    replica.done(large("a", 700 << 10));
    assert_eq!(replica.why(large("a", 1 << 20)), Refusal::Quota);
    replica.done(large("a", 10 << 10));
    replica.done(large("b", 600 << 10));
    assert_eq!(replica.why(large("c", 600 << 10)), Refusal::Quota);
    replica.done(delete("b", ""));
    replica.done(large("c", 600 << 10));
    replica.done(delete("", "\0"));
    assert_eq!((replica.kv().live_bytes, replica.kv().keys), (0, 0));
    // With too much there already, because the quota was lowered, what shrinks is welcome.
    replica.done(set("kv.quota_bytes", "8 MiB"));
    for key in ["a", "b", "c"] {
        replica.done(large(key, 1 << 20));
    }
    replica.done(set("kv.quota_bytes", "1 MiB"));
    replica.done(large("a", (1 << 20) - 1));
    replica.done(delete("c", ""));
    assert_eq!(replica.why(put("c", "")), Refusal::Quota);
}

#[test]
fn what_is_compacted_is_forgotten_and_what_is_stays() {
    let mut replica = Replica::formed();
    for value in ["1", "2", "3"] {
        replica.done(put("a", value));
    }
    replica.done(put("b", "1"));
    replica.done(delete("b", ""));
    assert_eq!(replica.why(compact(6)), Refusal::FutureRevision);
    replica.done(compact(2));
    let refused = replica.refused(compact(2));
    assert_eq!((refused.why(), refused.number), (Refusal::Compacted, 3));
    assert_eq!(replica.range_at("", "\0", 2), [("a".to_string(), "2".to_string())], "the state there is still known");
    assert_eq!((count(&replica, Kv::Version), count(&replica, Kv::Change)), (4, 3));
    replica.done(compact(5));
    assert_eq!((count(&replica, Kv::Version), count(&replica, Kv::Change)), (1, 0));
    assert_eq!(replica.kv().history_bytes, 0);
    assert_eq!(replica.get("a").as_deref(), Some("3"));
    replica.done(put("a", "4"));
    let a = pair(&replica, "a");
    assert_eq!((a.create_revision, a.version), (1, 4));
    assert_eq!(count(&replica, Kv::Version), 2);
}

#[test]
fn a_large_compaction_is_swept_a_little_with_each_command() {
    let mut replica = Replica::formed();
    for number in 0..200 {
        replica.done(put("a", &number.to_string()));
    }
    replica.done(compact(200));
    assert_eq!(count(&replica, Kv::Change), 168);
    assert_eq!(replica.kv().compacted, 200);
    let mut commands = 0;
    while replica.kv().swept < 200 {
        replica.done(grant(0, 1000));
        commands += 1;
    }
    assert_eq!((commands, count(&replica, Kv::Change), count(&replica, Kv::Version)), (6, 0, 1));
}

#[test]
fn the_history_is_bounded_by_itself() {
    let mut replica = Replica::formed();
    replica.done(set("kv.history_bytes", "16 MiB"));
    let value = "x".repeat(1 << 20);
    for _ in 0..40 {
        replica.done(put("a", &value));
        assert!(replica.kv().history_bytes <= 16 << 20);
    }
    assert!(count(&replica, Kv::Version) <= 17, "{}", count(&replica, Kv::Version));
    assert_eq!(replica.kv().compacted, 25);
}

#[test]
fn keys_go_with_their_lease_unless_they_left_it() {
    let mut replica = Replica::formed();
    assert_eq!(replica.why(grant(0, 10)), Refusal::OutOfRange);
    assert_eq!(replica.why(grant(u64::MAX, 1000)), Refusal::Invalid);
    let lease = the!(Lease, replica.done(grant(0, 1000)));
    assert_eq!(lease, Lease { id: 1, ttl_ms: 1000, renewal: replica.index, keys: 0 });
    assert_eq!(replica.why(grant(1, 1000)), Refusal::LeaseExists);
    assert_eq!(the!(Lease, replica.done(grant(7, 1000))).id, 7);
    assert_eq!(the!(Lease, replica.done(grant(0, 1000))).id, 8);
    assert_eq!(replica.why(Kind::Put(leased("a", "1", 99))), Refusal::NoSuchLease);
    for key in ["a", "b", "c", "d"] {
        replica.done(Kind::Put(leased(key, "1", 1)));
    }
    replica.done(put("b", "free"));
    replica.done(Kind::Put(leased("c", "moved", 7)));
    replica.done(delete("d", ""));
    assert_eq!(count(&replica, Kv::LeaseKey), 2);
    let gone = the!(Delete, replica.done(Kind::RevokeLease(RevokeLease { id: 1 })));
    assert_eq!(gone.deleted, 1);
    assert_eq!(["a", "b", "c"].map(|key| replica.get(key)), [None, Some("free".into()), Some("moved".into())]);
    assert_eq!(replica.why(Kind::KeepAlive(KeepAlive { id: 1 })), Refusal::NoSuchLease);
    assert_eq!(replica.kv().leases, 2);
}

#[test]
fn a_lease_renewed_since_the_clock_looked_does_not_expire() {
    let mut replica = Replica::formed();
    let one = the!(Lease, replica.done(grant(1, 1000))).renewal;
    let two = the!(Lease, replica.done(grant(2, 1000))).renewal;
    replica.done(Kind::Put(leased("a", "1", 1)));
    replica.done(Kind::Put(leased("b", "1", 2)));
    let renewed = the!(Lease, replica.done(Kind::KeepAlive(KeepAlive { id: 1 }))).renewal;
    assert!(renewed > one);
    let due = |id, renewal| DueLease { id, renewal };
    let expire = |leases| Kind::Expire(Expire { leases, tokens: vec![] });
    let expired = the!(Expired, replica.done(expire(vec![due(1, one), due(2, two), due(9, 1)])));
    assert_eq!(expired.leases, [2]);
    assert_eq!((replica.get("a").as_deref(), replica.get("b")), (Some("1"), None));
    assert_eq!(the!(Expired, replica.done(expire(vec![due(1, renewed)]))).leases, [1]);
    // One that comes late ends no other lease that was granted under the same number since.
    replica.done(grant(1, 1000));
    assert!(the!(Expired, replica.done(expire(vec![due(1, one), due(1, renewed)]))).leases.is_empty());
    assert_eq!(replica.why(expire(vec![due(1, 1); 1001])), Refusal::TooMany);
}

#[test]
fn one_command_deletes_no_more_than_it_may() {
    let mut replica = Replica::formed();
    let one = the!(Lease, replica.done(grant(1, 1000))).renewal;
    let two = the!(Lease, replica.done(grant(2, 1000))).renewal;
    for part in 0..80 {
        let puts = (0..128).map(|n| put_op(&format!("{part:03}-{n:03}"), "")).collect();
        replica.done(Kind::Txn(Txn { compares: vec![], then: puts, otherwise: vec![] }));
    }
    assert_eq!(replica.why(delete("", "\0")), Refusal::TooMany);
    assert_eq!(the!(Delete, replica.done(delete("000", "040"))).deleted, 40 * 128);
    for part in 40..80 {
        let lease = 1 + u64::from(part >= 41);
        let put = |n| op(OpKind::Put(leased(&format!("{part:03}-{n:03}"), "", lease)));
        let puts = Txn { compares: vec![], then: (0..128).map(put).collect(), otherwise: vec![] };
        replica.done(Kind::Txn(puts));
    }
    for part in 0..40 {
        let put = |n| op(OpKind::Put(leased(&format!("more{part:03}-{n:03}"), "", 2)));
        let puts = Kind::Txn(Txn { compares: vec![], then: (0..128).map(put).collect(), otherwise: vec![] });
        if part < 39 {
            replica.done(puts);
        } else {
            assert_eq!(replica.why(puts), Refusal::TooMany, "a lease holds no more than one command may delete");
        }
    }
    let due = |id, renewal| DueLease { id, renewal };
    let both = || Kind::Expire(Expire { leases: vec![due(1, one), due(2, two)], tokens: vec![] });
    assert_eq!(the!(Expired, replica.done(both())).leases, [1], "the rest waits for the next");
    assert_eq!(the!(Expired, replica.done(both())).leases, [2]);
    assert_eq!((replica.kv().keys, replica.kv().live_bytes), (0, 0));
}
