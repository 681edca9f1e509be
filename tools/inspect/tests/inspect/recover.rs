//! `raft unsafe-recover`: what it says, that it changes nothing unless told to, and what it leaves.

use std::sync::Arc;

use mainstay::ident::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use mainstay::raftstore::entry::{Entry, EntryKind, HardState, Membership, Position};
use mainstay::raftstore::log_store::{LogStore, LogWrite};
use mainstay::raftstore::rocks::RocksStore;
use mainstay::storage::Storage;
use serde_json::json;

use super::support::*;

const GROUP: GroupId = GroupId::new(7);

/// Runs it for real.
fn recover(place: &Place, group: &str) -> Answer {
    let arguments = ["raft", "unsafe-recover", group, "--yes", "--json"];
    answer(inspector().arg(place.path()).args(arguments).output().unwrap())
}

fn store(place: &Place) -> RocksStore {
    RocksStore::open(Arc::new(Storage::open(place.path(), MIB).unwrap())).unwrap()
}

/// Replica 2 of three, with entries 1 to 4: the third changes the membership, two are known to be committed.
fn place() -> Place {
    let place = Place::clean();
    let voters = [1, 2, 3].map(|id| (ReplicaId::new(id), NodeId::new(id + 10)));
    let kind = |index| if index == 3 { EntryKind::ConfChange } else { EntryKind::Command };
    let entry = |index| Entry::new(kind(index), Position::new(index, 1), vec![index as u8], Vec::new());
    let write = LogWrite {
        create: Some((ReplicaId::new(2), Membership::of_voters(voters))),
        hard_state: Some(HardState { term: Term::new(5), vote: Some(ReplicaId::new(1)), commit: LogIndex::new(2) }),
        entries: (1..=4).map(entry).collect(),
        ..LogWrite::new(GROUP)
    };
    store(&place).write(&[write], true).unwrap();
    place
}

#[test]
fn it_says_what_it_means_and_changes_nothing() {
    let place = place();
    let Answer { code, text, .. } = place.inspect(&["raft", "unsafe-recover", "7"]);
    assert_eq!(code, 2, "{text}");
    for words in [
        "Replica 2 of group 7 would go on alone, in term 6.",
        "voters so far   1, 2, 3",
        "removed         1, 3",
        "applied 0, committed 2, last 4",
        "changes of the membership in entries 3",
        "ACKNOWLEDGED DATA MAY BE LOST",
        "2 entries behind the commit",
        "Nothing was changed",
    ] {
        assert!(text.contains(words), "{words:?} is missing:\n{text}");
    }
    let stored = store(&place).load(GROUP).unwrap().unwrap();
    assert_eq!((stored.hard_state.term, stored.membership.voters.len()), (Term::new(5), 3));
}

#[test]
fn told_to_it_leaves_a_group_of_one_and_a_copy_of_what_was() {
    let place = place();
    let done = recover(&place, "7");
    assert_eq!(done.code, 0, "{}", done.error);
    let report = done.json();
    assert_eq!((&report["done"], &report["dropped_changes"]), (&json!(true), &json!([3])));
    let recovered = store(&place);
    let stored = recovered.load(GROUP).unwrap().unwrap();
    assert_eq!(stored.membership.voters, [ReplicaId::new(2)]);
    assert!(stored.membership.was_removed(ReplicaId::new(3)));
    assert_eq!((stored.hard_state.term, stored.hard_state.vote), (Term::new(6), None));
    let entries = recovered.entries(GROUP, LogIndex::new(1)..LogIndex::new(9), usize::MAX).unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind(), entry.data().len())).collect();
    assert_eq!(kinds, [1, 1, 0, 1].map(|bytes| (EntryKind::Command, bytes)), "the log is whole, the change is gone");
    drop(recovered);
    assert_eq!(place.inspect(&["raft", "verify"]).code, 0);
    // A second time there is nothing to do; the copy takes the place of what is there, and all is as before.
    let again = recover(&place, "7");
    assert!(again.code == 2 && again.error.contains("only member already"), "{}", again.error);
    let copy = report["copy"].as_str().unwrap();
    std::fs::remove_dir_all(place.path().join("meta")).unwrap();
    std::fs::rename(copy, place.path().join("meta")).unwrap();
    let stored = store(&place).load(GROUP).unwrap().unwrap();
    assert_eq!((stored.hard_state.term, stored.membership.voters.len()), (Term::new(5), 3));
}

#[test]
fn what_it_cannot_do_it_refuses() {
    let place = place();
    let unknown = recover(&place, "8");
    assert!(unknown.code == 2 && unknown.error.contains("there is no group 8"), "{}", unknown.error);
    let running = store(&place);
    let refused = recover(&place, "7");
    assert!(refused.code == 2 && refused.error.contains("stop it first"), "{}", refused.error);
    drop(running);
}
