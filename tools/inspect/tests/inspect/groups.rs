//! Many Raft groups in an order, and everything of one.

use std::sync::Arc;

use mainstay::ident::{GroupId, LogIndex, ReplicaId, Term};
use mainstay::raftstore::entry::{Entry, HardState, Position};
use mainstay::raftstore::log_store::{AppliedTo, LogStore, LogWrite, Table, TableStore, TableWrite};
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::snapshot::{Pair, Place as At, Restore, SnapshotId, SnapshotMeta, SnapshotStore};
use mainstay::storage::Family;
use serde_json::{Value, json};

use super::raft::{entry, membership, place, state_key, storage, tamper};
use super::support::*;

/// Group 7 as everywhere, and others that are each the most of something.
fn many() -> Place {
    let place = place();
    let store = RocksStore::open(Arc::new(storage(&place))).unwrap();
    let make = |group: u64, term: u64, commit: u64, entries: Vec<Entry>| LogWrite {
        create: Some((ReplicaId::new(1), membership())),
        hard_state: Some(HardState { term: Term::new(term), vote: None, commit: LogIndex::new(commit) }),
        entries,
        ..LogWrite::new(GroupId::new(group))
    };
    let short = |count: u64| (1..=count).map(|index| entry(index, 1)).collect::<Vec<_>>();
    let large = vec![Entry::command(Position::new(1, 1), vec![7; 5000], Vec::new())];
    let writes = [make(20, 1, 20, short(20)), make(21, 1, 1, large), make(22, 9, 0, short(3))];
    store.write(&writes, true).unwrap();
    store.apply(GroupId::new(20), &[], &AppliedTo { index: LogIndex::new(5), membership: None }).unwrap();
    place
}

fn order(report: &Value) -> Vec<u64> {
    report["groups"].as_array().unwrap().iter().map(|line| line["group"].as_u64().unwrap()).collect()
}

#[test]
fn groups_are_listed_in_the_order_that_is_asked_for() {
    let place = many();
    let cases: [(&str, [u64; 5]); 7] = [
        ("group", [0, 7, 20, 21, 22]),
        ("entries", [20, 7, 22, 21, 0]),
        ("bytes", [21, 20, 7, 22, 0]),
        ("unapplied", [20, 7, 21, 0, 22]),
        ("uncommitted", [22, 7, 0, 20, 21]),
        ("last", [20, 7, 22, 21, 0]),
        ("term", [22, 7, 20, 21, 0]),
    ];
    for (key, expected) in cases {
        let (code, report) = place.inspect_json(&["raft", "groups", "--sort", key]);
        assert_eq!((code, order(&report)), (0, expected.to_vec()), "{key}: {report:#}");
        // Logs are only read if their sizes are wanted.
        assert_eq!(report["groups"][0].get("log_bytes").is_some(), key == "bytes", "{key}");
    }
    let (_, report) = place.inspect_json(&["raft", "groups", "--sort", "bytes", "--limit", "2"]);
    assert_eq!((order(&report), &report["total"]), (vec![21, 20], &5.into()), "{report:#}");
    assert_eq!(report["groups"][0]["log_bytes"], 5000);
    let text = place.inspect(&["raft", "groups", "--sort", "bytes", "--limit", "2"]).text;
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("log bytes") && lines[1].ends_with(" 5000") && lines[3] == "2 of 5 groups", "{text}");
    assert_eq!(lines[0].len(), lines[1].len(), "columns are aligned: {text}");
    // What is damaged comes first, whatever is looked for.
    tamper(&place, |batch| batch.put(Family::RaftState, &state_key(21, 2), &[9]));
    let (code, report) = place.inspect_json(&["raft", "groups", "--sort", "entries"]);
    assert_eq!((code, order(&report)), (1, vec![21, 20, 7, 22, 0]), "{report:#}");
    assert!(place.inspect(&["raft", "groups"]).text.contains("\n      21  damaged, see below\n"));
    assert_eq!(place.inspect(&["raft", "groups", "--sort", "colour"]).code, 2);
}

#[test]
fn everything_of_one_group_is_shown() {
    let place = place();
    let group = GroupId::new(7);
    let store = RocksStore::open(Arc::new(storage(&place))).unwrap();
    let session = TableWrite::Put(Table::Sessions, 5u64.to_be_bytes().to_vec(), vec![1; 18]);
    store.apply(group, &[session], &AppliedTo { index: LogIndex::new(6), membership: None }).unwrap();
    let meta = SnapshotMeta { id: SnapshotId(0xABC), position: Position::new(12, 3), membership: membership() };
    store.begin_fill(group, &meta).unwrap();
    drop(store);
    let (code, report) = place.inspect_json(&["raft", "group", "7"]);
    let log = json!({"first": 4, "last": 9, "entries": 6, "bytes": 61, "unapplied": 2, "uncommitted": 1});
    let snapshot = json!({"id": "0000000000000abc", "index": 12, "term": 3, "generation": 2});
    assert_eq!((code, &report["log"], &report["snapshot"]), (0, &log, &snapshot), "{report:#}");
    assert_eq!((&report["sessions"], &report["destroyed"]), (&1.into(), &Value::Null), "{report:#}");
    assert_eq!(report["state"], place.inspect_json(&["raft", "state", "7"]).1["groups"][0]);
    let text = place.inspect(&["raft", "group", "7"]).text;
    for line in [
        "  vote             replica 2",
        "  log              4 to 9: 6 entries, 61 bytes",
        "  not applied      2 of the committed",
        "  not committed    1, as far as this replica knows",
        "  snapshot         0000000000000abc, as of 12 of term 3, was being filled into generation 2; the next start \
         removes it",
        "  sessions         1 client",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
    }
    let text = place.inspect(&["raft", "group", "0"]).text;
    assert!(text.contains("  log              empty\n") && text.contains("  snapshot         none"), "{text}");
    // An entry that is none is damage of the group.
    let key = [7u64.to_be_bytes(), 8u64.to_be_bytes()].concat();
    tamper(&place, |batch| batch.put(Family::RaftLog, &key, &[1]));
    let (code, report) = place.inspect_json(&["raft", "group", "7"]);
    assert_eq!((code, report["damage"].as_array().unwrap().len()), (1, 1), "{report:#}");
}

#[test]
fn a_group_that_was_destroyed_says_so_and_one_that_is_back_shows_both() {
    let place = place();
    let store = RocksStore::open(Arc::new(storage(&place))).unwrap();
    store.destroy(GroupId::new(7)).unwrap();
    drop(store);
    let (code, report) = place.inspect_json(&["raft", "group", "7"]);
    assert_eq!((code, &report["destroyed"], &report["state"]), (0, &3.into(), &Value::Null), "{report:#}");
    let text = place.inspect(&["raft", "group", "7"]).text;
    assert!(text.contains("group 7\n  replica          none, it was destroyed here\n"), "{text}");
    assert!(text.contains("  tombstone        no replica up to 3 is made here again\n"), "{text}");
    let store = RocksStore::open(Arc::new(storage(&place))).unwrap();
    let create = Some((ReplicaId::new(9), membership()));
    store.write(&[LogWrite { create, ..LogWrite::new(GroupId::new(7)) }], true).unwrap();
    drop(store);
    let (code, report) = place.inspect_json(&["raft", "group", "7"]);
    assert_eq!((code, &report["destroyed"], &report["state"]["replica"]), (0, &3.into(), &9.into()), "{report:#}");
}

/// A node that was killed between taking a snapshot over and its machine's having installed it.
#[test]
fn a_state_that_waits_for_its_machine_is_shown() {
    let place = place();
    let group = GroupId::new(7);
    let (code, report) = place.inspect_json(&["raft", "group", "7"]);
    assert_eq!((code, &report["install"]), (0, &Value::Null), "{report:#}");
    assert!(!place.inspect(&["raft", "group", "7"]).text.contains("  install "));
    let store = RocksStore::open(Arc::new(storage(&place))).unwrap();
    let (id, position) = (SnapshotId(5), Position::new(12, 3));
    let meta = SnapshotMeta { id, position, membership: membership() };
    store.begin_fill(group, &meta).unwrap();
    let header = [&[1][..], &12u64.to_le_bytes(), &3u64.to_le_bytes()].concat();
    let pair =
        |key: &[u8], value: &[u8]| Pair { place: At { table: Table::Kv, key: key.to_vec() }, value: value.to_vec() };
    store.fill(group, id, &[pair(&[0], &header), pair(b"\x01key", b"value"), pair(b"\x01other", b"")], true).unwrap();
    let restore = Some(Restore { id, position, membership: membership() });
    store.write(&[LogWrite { restore, ..LogWrite::new(group) }], true).unwrap();
    drop(store);
    let (code, report) = place.inspect_json(&["raft", "group", "7"]);
    assert_eq!((code, &report["install"]), (0, &json!({"index": 12, "term": 3})), "{report:#}");
    let text = place.inspect(&["raft", "group", "7"]).text;
    let line = "  install          the state as of 12 of term 3 was taken over, and its state machine has yet to install it; \
                the next start does";
    assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
    // What its machine has installed is cleared away.
    let store = RocksStore::open(Arc::new(storage(&place))).unwrap();
    store.clear(group).unwrap();
    drop(store);
    assert_eq!(place.inspect_json(&["raft", "group", "7"]).1["install"], Value::Null);
    // Tables of another machine may have such a key.
    tamper(&place, |batch| {
        batch.put(Family::Kv, &[&7u64.to_be_bytes()[..], &2u32.to_be_bytes(), &[0]].concat(), &header)
    });
    tamper(&place, |batch| batch.put(Family::Kv, &[&7u64.to_be_bytes()[..], &2u32.to_be_bytes(), b"2"].concat(), b""));
    assert_eq!(place.inspect_json(&["raft", "group", "7"]).1["install"], Value::Null);
}
