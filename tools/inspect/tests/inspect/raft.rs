//! Raft groups: what is shown of whole ones, and what is said of damaged ones.

use std::fs;
use std::sync::Arc;

use mainstay::ident::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use mainstay::raftstore::entry::{Entry, EntryKind, HardState, Membership, Position};
use mainstay::raftstore::log_store::{AppliedTo, LogStore, LogWrite, Table, TableStore, TableWrite};
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::snapshot::{Pair, Place as At, SnapshotId, SnapshotMeta, SnapshotStore};
use mainstay::storage::{Batch, Durability, Family, Storage};
use serde_json::{Value, json};

use super::support::*;

const COMMANDS: [&[&str]; 9] = [
    &["raft", "groups"],
    &["raft", "groups", "--sort", "bytes"],
    &["raft", "group", "7"],
    &["raft", "snapshots"],
    &["raft", "tombstones"],
    &["raft", "state"],
    &["raft", "log", "7"],
    &["raft", "verify"],
    &["summary"],
];

pub fn membership() -> Membership {
    let voters = [1, 2, 3].map(|id| (ReplicaId::new(id), NodeId::new(id + 10)));
    Membership::of_voters(voters).with_learner(ReplicaId::new(4), NodeId::new(14))
}

pub fn entry(index: u64, term: u64) -> Entry {
    Entry::command(Position::new(index, term), format!("secret {index}").into_bytes(), b"ctx".to_vec())
}

/// A directory with an empty group 0, and a group 7 with entries 4 to 9.
pub fn place() -> Place {
    let place = Place::clean();
    let store = RocksStore::open(Arc::new(storage(&place))).unwrap();
    let create = |group, replica| LogWrite {
        create: Some((ReplicaId::new(replica), membership())),
        ..LogWrite::new(GroupId::new(group))
    };
    let mut entries: Vec<_> = (1..9).map(|index| entry(index, 1 + index / 5)).collect();
    entries.push(Entry::new(EntryKind::ConfChange, Position::new(9, 2), b"change".to_vec(), vec![]));
    let hard_state = HardState { term: Term::new(3), vote: Some(ReplicaId::new(2)), commit: LogIndex::new(8) };
    let log = LogWrite { hard_state: Some(hard_state), entries, ..create(7, 3) };
    store.write(&[create(0, 1), log], true).unwrap();
    let effects = [TableWrite::Put(Table::Kv, b"key".to_vec(), b"value".to_vec())];
    store.apply(GroupId::new(7), &effects, &AppliedTo { index: LogIndex::new(6), membership: None }).unwrap();
    let truncate = Some(Position::new(3, 1));
    store.write(&[LogWrite { truncate, ..LogWrite::new(GroupId::new(7)) }], true).unwrap();
    place
}

pub fn storage(place: &Place) -> Storage {
    Storage::open(place.path(), MIB).unwrap()
}

/// Writes what no store would.
pub fn tamper(place: &Place, fill: impl FnOnce(&mut Batch<'_>)) {
    let storage = storage(place);
    let mut batch = storage.batch().unwrap();
    fill(&mut batch);
    storage.write(batch, Durability::Synced).unwrap();
}

fn log_key(group: u64, index: u64) -> Vec<u8> {
    [group.to_be_bytes(), index.to_be_bytes()].concat()
}

pub fn state_key(group: u64, tag: u8) -> Vec<u8> {
    [&group.to_be_bytes()[..], &[tag]].concat()
}

#[test]
fn groups_are_listed() {
    let place = place();
    let (code, report) = place.inspect_json(&["raft", "groups"]);
    assert_eq!(code, 0, "{report:#}");
    let expected = json!([
        {"group": 0, "replica": 1, "term": 0, "vote": null, "commit": 0, "applied": 0, "unapplied": 0,
         "first": null, "last": 0, "entries": 0, "voters": 3, "learners": 1},
        {"group": 7, "replica": 3, "term": 3, "vote": 2, "commit": 8, "applied": 6, "unapplied": 2,
         "first": 4, "last": 9, "entries": 6, "voters": 3, "learners": 1},
    ]);
    assert_eq!((&report["groups"], &report["damage"]), (&expected, &json!([])));
    let text = place.inspect(&["raft", "groups"]);
    let lines: Vec<_> = text.text.lines().collect();
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(words(lines[2]), ["7", "3", "3", "2", "8", "6", "2", "4", "9", "6", "3", "1"]);
    assert_eq!(lines[0].len(), lines[2].len(), "columns are aligned: {}", text.text);
    assert_eq!(lines[3], "2 groups");

    assert_eq!(place.inspect_json(&["summary"]).1["raft_groups"], 2);
    assert!(place.inspect(&["summary"]).text.contains("\nraft groups     2\n"));
    // A node that has none.
    let place = Place::clean();
    assert_eq!(
        place.inspect_json(&["raft", "groups"]),
        (0, json!({"groups": [], "total": 0, "damage": [], "rocksdb_error": null}))
    );
    assert!(place.inspect(&["raft", "state"]).text.contains("there are no groups"));
    assert!(place.inspect(&["raft", "verify"]).text.ends_with("\nno damage\n"));
}

#[test]
fn tombstones_are_listed_and_are_no_groups() {
    let place = place();
    let none = place.inspect(&["raft", "tombstones"]);
    assert!(
        none.text.ends_with("0 tombstones\n\nno damage\n") || none.text.ends_with("0 tombstones\n"),
        "{}",
        none.text
    );
    RocksStore::open(Arc::new(storage(&place))).unwrap().destroy(GroupId::new(7)).unwrap();
    let (code, report) = place.inspect_json(&["raft", "tombstones"]);
    assert_eq!((code, &report["tombstones"]), (0, &json!([{"group": 7, "replica": 3}])), "{report:#}");
    let text = place.inspect(&["raft", "tombstones"]).text;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[1].trim(), lines[2]), ("7          replica 3", "1 tombstone"), "{text}");
    assert_eq!(place.inspect_json(&["raft", "groups"]).1["groups"].as_array().unwrap().len(), 1);
    assert_eq!(place.inspect_json(&["raft", "verify"]).0, 0);
    // One that is damaged is named.
    tamper(&place, |batch| batch.put(Family::RaftState, &state_key(7, 7), &[9]));
    let (code, report) = place.inspect_json(&["raft", "tombstones"]);
    assert_eq!((code, report["damage"].as_array().unwrap().len()), (1, 1), "{report:#}");
}

#[test]
fn a_snapshot_that_was_being_filled_is_listed_until_the_next_start() {
    let place = place();
    let none = place.inspect_json(&["raft", "snapshots"]);
    assert_eq!(none, (0, json!({"snapshots": [], "damage": [], "rocksdb_error": null})));
    let fill = |id| {
        let store = RocksStore::open(Arc::new(storage(&place))).unwrap();
        let (id, position) = (SnapshotId(id), Position::new(12, 3));
        store.begin_fill(GroupId::new(7), &SnapshotMeta { id, position, membership: membership() }).unwrap();
        let pair = Pair { place: At { table: Table::Kv, key: b"key".to_vec() }, value: b"secret".to_vec() };
        store.fill(GroupId::new(7), id, &[pair], false).unwrap();
    };
    fill(0xABC);
    let (code, report) = place.inspect_json(&["raft", "snapshots"]);
    let expected = json!([
        {"group": 7, "replica": 3, "generation": 2, "index": 12, "term": 3, "id": "0000000000000abc"}
    ]);
    assert_eq!((code, &report["snapshots"]), (0, &expected), "{report:#}");
    let text = place.inspect(&["raft", "snapshots"]).text;
    let lines: Vec<_> = text.lines().collect();
    let words: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!((words, lines[2]), (vec!["7", "3", "2", "12", "3", "0000000000000abc"], "1 snapshot"), "{text}");
    assert_eq!(lines[0].len(), lines[1].len(), "columns are aligned: {text}");
    // It breaks no rule, and what is to be seen is what was before.
    assert_eq!(place.inspect_json(&["raft", "verify"]).0, 0);
    assert_eq!(place.inspect_json(&["raft", "state", "7"]).1["groups"][0]["generation"], 1);
    drop(RocksStore::open(Arc::new(storage(&place))).unwrap());
    assert_eq!(place.inspect_json(&["raft", "snapshots"]).1["snapshots"], json!([]));
    // A marker that names the tables to be seen would have a start remove them.
    fill(0xDEF);
    let marker = |generation: u8| [&[1, generation, 0, 0, 0][..], &[1; 24]].concat();
    tamper(&place, |batch| batch.put(Family::RaftState, &state_key(7, 6), &marker(1)));
    for command in [["raft", "snapshots"], ["raft", "verify"]] {
        let (code, report) = place.inspect_json(&command);
        let said = report["damage"].to_string();
        assert!(code == 1 && said.contains("expected a generation behind 1, found generation 1"), "{report:#}");
    }
    let error = RocksStore::open(Arc::new(storage(&place))).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("snapshot marker of group 7"), "{error}");
    // Tables that no marker names are found, too.
    tamper(&place, |batch| batch.delete(Family::RaftState, &state_key(7, 6)));
    let (code, report) = place.inspect_json(&["raft", "verify"]);
    let expected = ("tables of generation 1 only".into(), "some of generation 2".into());
    assert_eq!((code, only(&report)), (1, expected));
}

#[test]
fn all_records_of_a_group_are_shown() {
    let place = place();
    let (code, report) = place.inspect_json(&["raft", "state", "7"]);
    let expected = json!([{
        "group": 7, "replica": 3, "generation": 1, "hard_state": {"term": 3, "vote": 2, "commit": 8}, "applied": 6,
        "truncated": {"index": 3, "term": 1}, "last": {"index": 9, "term": 2},
        "membership": {
            "voters": [1, 2, 3], "learners": [4], "voters_outgoing": [], "learners_next": [], "auto_leave": false,
            "nodes": [{"replica": 1, "node": 11}, {"replica": 2, "node": 12}, {"replica": 3, "node": 13},
                      {"replica": 4, "node": 14}],
        },
        "unhealthy": null,
    }]);
    assert_eq!((code, &report["groups"]), (0, &expected));
    assert_eq!(place.inspect_json(&["raft", "state"]).1["groups"].as_array().unwrap().len(), 2);
    let text = place.inspect(&["raft", "state", "7"]).text;
    for line in ["  vote             replica 2", "  truncated        3 of term 1", "  learners         4 on node 14"] {
        assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
    }
}

#[test]
fn entries_are_dumped_without_what_is_in_them() {
    let place = place();
    let (code, dump) = place.inspect_json(&["raft", "log", "7"]);
    let entries = dump["entries"].as_array().unwrap();
    assert_eq!((code, entries.len(), &dump["stopped_by"]), (0, 6, &"end".into()), "{dump:#}");
    assert_eq!(entries[0], json!({"index": 4, "term": 1, "kind": "command", "data_bytes": 8, "context_bytes": 3}));
    assert_eq!(entries[5], json!({"index": 9, "term": 2, "kind": "conf change", "data_bytes": 6, "context_bytes": 0}));
    let hex = "7365637265742034";
    let text = place.inspect(&["raft", "log", "7"]).text;
    assert!(!text.contains("secret") && !text.contains(hex) && !dump.to_string().contains(hex), "{text}");
    assert!(text.ends_with("6 entries; the log ends here\n"), "{text}");

    let limited = ["raft", "log", "7", "--from", "4", "--limit", "2", "--payload"];
    let (code, dump) = place.inspect_json(&limited);
    assert_eq!(
        (code, &dump["entries"][0]["data_hex"], &dump["entries"][0]["context_hex"]),
        (0, &hex.into(), &"637478".into())
    );
    assert_eq!((&dump["shown"], &dump["next"], &dump["stopped_by"]), (&2.into(), &6.into(), &"limit".into()));
    let text = place.inspect(&limited).text;
    assert!(text.contains(&format!("  637478  {hex}\n")) && text.ends_with("2 entries shown; go on with --from 6\n"));
    // One that is truncated, the very last one, and an empty log.
    assert_eq!(place.inspect_json(&["raft", "log", "7", "--from", "2", "--limit", "1"]).1["entries"][0]["index"], 4);
    assert_eq!(place.inspect_json(&["raft", "log", "7", "--from", "9"]).1["shown"], 1);
    assert_eq!(place.inspect_json(&["raft", "log", "0"]).1["entries"], json!([]));
}

#[test]
fn what_is_not_there_cannot_be_shown() {
    let place = place();
    for (command, what) in [
        (&["raft", "log", "8"][..], "there is no group 8"),
        (&["raft", "state", "8"], "there is no group 8"),
        (&["raft", "group", "8"], "there is no group 8, and none was destroyed here"),
        (&["raft", "log", "7", "--from", "10"], "no entry at or behind 10: the log of group 7 ends at 9"),
    ] {
        let (code, report) = place.inspect_json(command);
        assert_eq!((code, &report["error"]), (2, &what.into()));
        assert!(place.inspect(command).error.contains(what));
    }
}

#[test]
fn a_whole_directory_is_verified() {
    let place = place();
    let (code, report) = place.inspect_json(&["raft", "verify"]);
    let expected = json!([
        {"group": 0, "entries": 0, "payload_bytes": 0, "violations": 0},
        {"group": 7, "entries": 6, "payload_bytes": 61, "violations": 0},
    ]);
    assert_eq!((code, &report["groups"]), (0, &expected), "{report:#}");
    assert!(place.inspect(&["raft", "verify"]).text.ends_with("\nno damage\n"));
}

/// What `raft verify` says of the only damage, as expected and found.
fn only(report: &Value) -> (String, String) {
    let damage = report["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 1, "{report:#}");
    let part = |name: &str| damage[0][name].as_str().unwrap_or_default().to_owned();
    assert!(part("file").contains("meta"), "{report:#}");
    (part("expected"), part("found"))
}

#[test]
fn logs_that_no_store_would_leave_are_found() {
    let whole = [&[1u8, 0], &2u64.to_le_bytes()[..], &0u32.to_le_bytes(), b"x"].concat();
    let stale = [&[1u8, 0], &1u64.to_le_bytes()[..], &0u32.to_le_bytes(), b"x"].concat();
    let mut newer = whole.clone();
    newer[0] = 2;
    type Tamper<'a> = Box<dyn Fn(&mut Batch<'_>) + 'a>;
    let put = |index: u64, value: &[u8]| -> Tamper<'_> {
        let value = value.to_vec();
        Box::new(move |batch| batch.put(Family::RaftLog, &log_key(7, index), &value))
    };
    let cases: [(Tamper<'_>, &str, &str); 6] = [
        (Box::new(|batch| batch.delete(Family::RaftLog, &log_key(7, 6))), "entry 6", "entry 7"),
        (Box::new(|batch| batch.delete(Family::RaftLog, &log_key(7, 4))), "entry 4", "entry 5"),
        (put(8, &stale), "terms that never fall", "term 1 at 8 after 7 of term 2"),
        (put(11, &whole), "entry 10", "entry 11"),
        (put(8, &newer), "version 1", "version 2 at entry 8"),
        (put(8, b"\x01"), "an entry of 14 bytes or more", "1 bytes at entry 8"),
    ];
    for (change, expected, found) in cases {
        let place = place();
        tamper(&place, change);
        let (code, report) = place.inspect_json(&["raft", "verify"]);
        assert_eq!((code, only(&report)), (1, (expected.into(), found.into())));
        assert!(place.inspect(&["raft", "verify"]).text.ends_with("\n1 damaged place\n"));
    }
    // An entry that is none stands in the dump, and the others around it.
    let place = place();
    tamper(&place, put(8, &newer));
    let (code, dump) = place.inspect_json(&["raft", "log", "7"]);
    assert_eq!((code, &dump["entries"][4], &dump["shown"]), (1, &json!({"index": 8}), &6.into()), "{dump:#}");
    assert!(only(&dump).1.contains("expected version 1, found version 2"), "{dump:#}");
    assert!(place.inspect(&["raft", "log", "7"]).text.contains("\n         8  damaged, see below\n"));
    assert!(RocksStore::open(Arc::new(storage(&place))).is_ok(), "opening reads no log but its end");
}

#[test]
fn records_that_no_store_would_leave_are_found_by_every_command_and_by_a_start() {
    let applied = |index: u64| [&[1u8], &index.to_le_bytes()[..]].concat();
    type Tamper = Box<dyn Fn(&mut Batch<'_>)>;
    let put = |tag: u8, value: Vec<u8>| -> Tamper {
        Box::new(move |batch| batch.put(Family::RaftState, &state_key(7, tag), &value))
    };
    let delete = |tag: u8| -> Tamper { Box::new(move |batch| batch.delete(Family::RaftState, &state_key(7, tag))) };
    let cases: [(Tamper, &str); 7] = [
        (put(4, applied(99)), "commit ≤ last, found commit 99, last 9"),
        (put(4, applied(2)), "truncated ≤ applied, found truncated 3, applied 2"),
        (put(4, vec![1]), "9 bytes, found 1 bytes"),
        (put(9, vec![1]), "a record that this version knows, found tag 9"),
        (delete(1), "its replica, found its hard state only"),
        (delete(2), "its hard state, found none"),
        (Box::new(|batch| batch.put(Family::RaftLog, &log_key(8, 1), &[1; 14])), "its replica, found its log only"),
    ];
    for (change, what) in cases {
        let place = place();
        tamper(&place, change);
        for command in [&["raft", "groups"][..], &["raft", "verify"], &["raft", "state"]] {
            let (code, report) = place.inspect_json(command);
            let damage = report["damage"].as_array().unwrap();
            let said = damage.iter().any(|damage| {
                let (expected, found) = (damage["expected"].as_str(), damage["found"].as_str().unwrap());
                let line = expected.map_or(found.to_owned(), |expected| format!("expected {expected}, found {found}"));
                line.contains(&format!("expected {what}"))
            });
            assert!(code == 1 && said, "{command:?}, {what}: {report:#}");
            // Group 0 is shown all the same.
            assert_eq!(report["groups"][0]["group"], 0, "{command:?}, {what}");
        }
        let error =
            RocksStore::open(Arc::new(storage(&place))).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(&format!("expected {what}")), "{what}: {error}");
    }
}

#[test]
fn without_rocksdb_nothing_is_known() {
    let place = place();
    fs::remove_dir_all(place.path().join("meta")).unwrap();
    for command in COMMANDS {
        let (code, report) = place.inspect_json(command);
        assert_eq!((code, report["damage"].as_array().unwrap().len()), (1, 1), "{report:#}");
        assert!(report["rocksdb_error"].as_str().unwrap().contains("meta"), "{report:#}");
        assert!(place.inspect(command).text.contains("\nRocksDB cannot be read: "));
    }
}

#[test]
fn a_running_node_is_left_alone() {
    let place = place();
    let storage = storage(&place);
    for command in COMMANDS {
        let (code, report) = place.inspect_json(command);
        assert_eq!(code, 2);
        assert!(report["error"].as_str().unwrap().contains("a node runs on"), "{report:#}");
    }
    drop(storage);
}
