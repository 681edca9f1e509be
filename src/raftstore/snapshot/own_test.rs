use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::ident::{NodeId, ReplicaId, Term};
use crate::raftstore::entry::{Entry, HardState, Membership};
use crate::raftstore::log_store::{AppliedTo, LogStore, LogWrite, TableStore};
use crate::raftstore::memory::MemoryStore;
use crate::raftstore::snapshot::{Restore, SnapshotStore};
use crate::raftstore::state_machine::{ApplyBatch, Command, MachineSnapshots};

const GROUP: GroupId = GroupId::new(3);
const ID: SnapshotId = SnapshotId(9);

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Holds what it is given to install.
#[derive(Default)]
struct Shelf {
    applied: u64,
    map: Map,
    installs: u64,
    /// Says after an install that it is behind by so many entries.
    lies_by: u64,
}

struct Pairs(Vec<KeyValue>);

impl MachineState for Pairs {
    fn read(&self, after: Option<&[u8]>, limit_bytes: usize) -> Result<Vec<KeyValue>, StoreError> {
        let start = after.map_or(0, |after| self.0.partition_point(|(key, _)| key.as_slice() <= after));
        let mut bytes = 0;
        let fits = |(key, value): &&KeyValue| {
            let first = bytes == 0;
            bytes += key.len() + value.len() + 1;
            first || bytes <= limit_bytes
        };
        Ok(self.0[start..].iter().take_while(fits).cloned().collect())
    }
}

impl StateMachine for Shelf {
    fn own_applied(&self) -> Result<Option<LogIndex>, ApplyError> {
        Ok(Some(LogIndex::new(self.applied - self.lies_by)))
    }

    fn apply(&mut self, commands: &[Command<'_>], _: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        Ok(commands.iter().map(|_| Bytes::new()).collect())
    }

    fn snapshots(&mut self) -> Option<&mut dyn MachineSnapshots> {
        Some(self)
    }
}

impl MachineSnapshots for Shelf {
    fn capture(&mut self) -> Result<Box<dyn MachineState>, ApplyError> {
        Ok(Box::new(Pairs(self.map.clone().into_iter().collect())))
    }

    fn install(&mut self, index: LogIndex, state: &dyn MachineState) -> Result<(), ApplyError> {
        self.installs += 1;
        self.map.clear();
        loop {
            let page = state.read(self.map.keys().next_back().map(Vec::as_slice), 20)?;
            if page.is_empty() {
                self.applied = index.get();
                return Ok(());
            }
            self.map.extend(page);
        }
    }
}

fn shelf(applied: u64, keys: &[&str]) -> Shelf {
    let map = keys.iter().map(|key| (key.as_bytes().to_vec(), key.repeat(3).into_bytes())).collect();
    Shelf { applied, map, ..Shelf::default() }
}

/// A group of which so much is applied, of twenty entries.
fn store(applied: u64) -> MemoryStore {
    let store = MemoryStore::new();
    let entry = |index| Entry::command(Position::new(index, 2), vec![1], Vec::new());
    let write = LogWrite {
        create: Some((ReplicaId::new(1), Membership::of_voters([(ReplicaId::new(1), NodeId::new(1))]))),
        hard_state: Some(HardState { term: Term::new(2), vote: None, commit: LogIndex::new(20) }),
        entries: (1..=20).map(entry).collect(),
        ..LogWrite::new(GROUP)
    };
    store.write(&[write], true).unwrap();
    store.apply(GROUP, &[], &AppliedTo { index: LogIndex::new(applied), membership: None }).unwrap();
    store
}

fn all(captured: &dyn Captured, limit_bytes: usize) -> Vec<Pair> {
    let mut all: Vec<Pair> = Vec::new();
    loop {
        let page = captured.read(all.last().map(|pair| &pair.place), limit_bytes).unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn captured(machine: &mut Shelf, store: &MemoryStore) -> Box<dyn Captured> {
    let through = LogIndex::new(machine.applied);
    capture(store, GROUP, machine, through, ID).unwrap().unwrap()
}

/// Fills and flips, so that the tables hold what a machine has to install as of entry 30.
fn flipped(pairs: &[Pair]) -> MemoryStore {
    let store = store(10);
    let membership = Membership::of_voters([(ReplicaId::new(1), NodeId::new(1))]);
    let meta = SnapshotMeta { id: ID, position: Position::new(30, 2), membership };
    store.begin_fill(GROUP, &meta).unwrap();
    store.fill(GROUP, ID, pairs, true).unwrap();
    let SnapshotMeta { id, position, membership } = meta;
    let restore = Some(Restore { id, position, membership });
    store.write(&[LogWrite { restore, ..LogWrite::new(GROUP) }], true).unwrap();
    store
}

/// What a machine at entry 30 gives.
fn pairs_of(machine: &Shelf) -> Vec<Pair> {
    let header = Pair { place: place(vec![0]), value: encode(Position::new(30, 2)) };
    let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| Pair { place: place(machine_key(key)), value: value.clone() };
    [header].into_iter().chain(machine.map.iter().map(pair)).collect()
}

#[test]
fn golden_bytes() {
    let mut machine = shelf(10, &["", "ab"]);
    let found = all(&*captured(&mut machine, &store(10)), usize::MAX);
    let golden: [(&[u8], &[u8]); 3] =
        [(&[0], &[1, 10, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]), (&[1], b""), (&[1, b'a', b'b'], b"ababab")];
    let found: Vec<_> = found.iter().map(|pair| (pair.place.table, &*pair.place.key, &*pair.value)).collect();
    assert_eq!(found, golden.map(|(key, value)| (Table::Kv, key, value)));
    assert_eq!(decode(golden[0].1), Some(Position::new(10, 2)));
    for wrong in [&golden[0].1[..16], &[golden[0].1, &[0]].concat(), &[&[2], &golden[0].1[1..]].concat()] {
        assert_eq!(decode(wrong), None, "{wrong:?}");
    }
}

#[test]
fn a_captured_machine_is_read_in_pages_from_anywhere() {
    let mut machine = shelf(10, &["a", "b", "cc", "d"]);
    let captured = captured(&mut machine, &store(10));
    let whole = all(&*captured, usize::MAX);
    assert_eq!((whole.len(), captured.meta().position), (5, Position::new(10, 2)));
    for limit_bytes in [0, 1, 30, 60, 90] {
        assert_eq!(all(&*captured, limit_bytes), whole, "{limit_bytes} bytes");
    }
    let at = |table, key: &[u8]| captured.read(Some(&Place { table, key: key.to_vec() }), usize::MAX).unwrap();
    assert_eq!(at(Table::Cluster, b"zz"), whole);
    assert_eq!(at(Table::Kv, b""), whole);
    assert_eq!(at(Table::Kv, &[0]), whole[1..]);
    assert_eq!(at(Table::Kv, &[0, 7]), whole[1..]);
    assert_eq!(at(Table::Kv, &[1]), whole[1..]);
    assert_eq!(at(Table::Kv, &[1, b'b', b'b']), whole[3..]);
    assert_eq!(at(Table::Kv, &[2]), []);
    assert_eq!(at(Table::Sessions, &[]), []);
}

#[test]
fn what_is_not_as_of_one_entry_is_not_captured() {
    let mut machine = shelf(9, &["a"]);
    assert!(capture(&store(10), GROUP, &mut machine, LogIndex::new(9), ID).unwrap().is_none());
}

#[test]
fn keys_that_do_not_rise_are_refused() {
    for keys in [["b", "a"], ["a", "a"]] {
        let pairs = keys.map(|key| (key.as_bytes().to_vec(), Vec::new())).to_vec();
        let meta = store(10).capture(GROUP, ID).unwrap().meta().clone();
        let captured = OwnCaptured { meta, state: Box::new(Pairs(pairs)) };
        assert!(matches!(captured.read(None, usize::MAX), Err(StoreError::Refused(_))), "{keys:?}");
    }
}

#[test]
fn a_state_is_installed_whole_and_then_cleared() {
    let donor = shelf(30, &["a", "b", "long enough for a page of its own", "z"]);
    let store = flipped(&pairs_of(&donor));
    assert_eq!(pending(&store, GROUP).unwrap(), Some(Position::new(30, 2)));
    let mut machine = shelf(10, &["b", "old"]);
    let pages = std::sync::atomic::AtomicU64::new(0);
    let progress = || {
        pages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    install(&store, GROUP, &mut machine, LogIndex::new(30), &progress).unwrap();
    assert_eq!((&machine.map, machine.applied), (&donor.map, 30));
    assert!(pages.into_inner() > 2);
    assert_eq!(pending(&store, GROUP).unwrap(), None);
    assert!(all(&*store.capture(GROUP, ID).unwrap(), usize::MAX).is_empty());
    let stored = store.load(GROUP).unwrap().unwrap();
    assert_eq!((stored.applied.get(), stored.truncated), (30, Position::new(30, 2)));
}

#[test]
fn an_empty_state_is_installed_too() {
    let store = flipped(&pairs_of(&shelf(30, &[])));
    let mut machine = shelf(10, &["old"]);
    install(&store, GROUP, &mut machine, LogIndex::new(30), &|| ()).unwrap();
    assert_eq!((machine.map.len(), machine.applied), (0, 30));
}

#[test]
fn nothing_is_cleared_that_is_not_installed() {
    let donor = shelf(30, &["a"]);
    let store = flipped(&pairs_of(&donor));
    let is_there = || assert_eq!(pending(&store, GROUP).unwrap(), Some(Position::new(30, 2)));
    let mut machine = shelf(10, &["old"]);
    let other = install(&store, GROUP, &mut machine, LogIndex::new(31), &|| ());
    assert!(matches!(other, Err(ApplyError::Store(StoreError::Damaged { .. }))), "{other:?}");
    assert_eq!(machine.installs, 0);
    is_there();
    machine.lies_by = 1;
    let elsewhere = install(&store, GROUP, &mut machine, LogIndex::new(30), &|| ()).unwrap_err();
    assert_eq!(elsewhere.to_string(), "with a snapshot at 30 installed, the state machine is at 29");
    is_there();
}

#[test]
fn what_is_no_machines_state_is_damage() {
    for pairs in [vec![], pairs_of(&shelf(30, &["a"]))[1..].to_vec()] {
        let found = install(&flipped(&pairs), GROUP, &mut shelf(10, &[]), LogIndex::new(30), &|| ());
        assert!(matches!(found, Err(ApplyError::Store(StoreError::Damaged { .. }))), "{pairs:?}: {found:?}");
    }
    let mut pairs = pairs_of(&shelf(30, &["a"]));
    pairs.push(Pair { place: Place { table: Table::Sessions, key: vec![1] }, value: vec![] });
    let found = install(&flipped(&pairs), GROUP, &mut shelf(10, &[]), LogIndex::new(30), &|| ());
    assert!(matches!(found, Err(ApplyError::Store(StoreError::Damaged { .. }))), "{found:?}");
}

/// A replica whose state was wrong may be at the very entry of the snapshot: that it is there says nothing.
#[test]
fn an_interrupted_install_is_finished_unless_the_machine_is_behind_it() {
    let donor = shelf(30, &["a", "b"]);
    for (own, installs) in [(10, 1), (30, 1), (31, 0)] {
        let store = flipped(&pairs_of(&donor));
        let stored = store.load(GROUP).unwrap().unwrap();
        let mut machine = shelf(own, &["wrong"]);
        let now = complete(&store, GROUP, &mut machine, LogIndex::new(own), &stored).unwrap();
        assert_eq!((now.get(), machine.installs), (own.max(30), installs), "at {own}");
        assert_eq!(machine.map == donor.map, installs == 1, "at {own}");
        assert_eq!(pending(&store, GROUP).unwrap(), None, "at {own}");
        // There is nothing to be finished after that.
        let again = complete(&store, GROUP, &mut machine, now, &stored).unwrap();
        assert_eq!((again, machine.installs), (now, installs), "at {own}");
    }
}

#[test]
fn an_install_that_cannot_have_been_interrupted_is_damage() {
    let store = flipped(&pairs_of(&shelf(30, &["a"])));
    let mut stored = store.load(GROUP).unwrap().unwrap();
    stored.applied = LogIndex::new(31);
    let found = complete(&store, GROUP, &mut shelf(10, &[]), LogIndex::new(10), &stored);
    assert!(matches!(found, Err(ApplyError::Store(StoreError::Damaged { .. }))), "{found:?}");
}
