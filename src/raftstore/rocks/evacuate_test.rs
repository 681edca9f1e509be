//! A bit that flips in a table file of real RocksDB, which several groups share.

use std::fs::File;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::ident::{LogIndex, NodeId, ReplicaId, Term};
use crate::raftstore::entry::{HardState, Membership, Position};
use crate::raftstore::log_store::{AppliedTo, KeyValue, LogStore, LogWrite, Table, TableStore, TableWrite};
use crate::raftstore::rocks::RocksView;
use crate::raftstore::snapshot::{Pair, Place, Restore, SnapshotId, SnapshotMeta, SnapshotStore};
use crate::storage::{Storage, StorageView};

const KEYS: [&[u8]; 3] = [b"a", b"m", b"z"];
const HARMED: GroupId = GroupId::new(2);
const PATIENCE: Duration = Duration::from_secs(60);

fn open(directory: &Path) -> RocksStore {
    RocksStore::open(Arc::new(Storage::open(directory, 1 << 20).unwrap())).unwrap()
}

/// More than a block of a table file: each value has one of its own.
const LONG: usize = 5000;
/// Some share a block, also with those of other groups.
const SHORT: usize = 1000;

/// Cannot be compressed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn value(len: usize, group: GroupId, key: &[u8]) -> Vec<u8> {
    noise(len, group.get() * 1000 + u64::from(key[0]))
}

fn membership(members: u64) -> Membership {
    Membership::of_voters((1..=members).map(|number| (ReplicaId::new(number), NodeId::new(number))))
}

fn put(store: &RocksStore, group: GroupId, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
    change(store, group, TableWrite::Put(Table::Kv, key.to_vec(), value))
}

fn change(store: &RocksStore, group: GroupId, write: TableWrite) -> Result<(), StoreError> {
    let index = store.load(group)?.map_or(LogIndex::default(), |stored| stored.applied);
    store.apply(group, &[write], &AppliedTo { index, membership: None })
}

fn shown(store: &RocksStore, group: GroupId) -> Result<Vec<KeyValue>, StoreError> {
    store.scan(group, Table::Kv, (Bound::Unbounded, Bound::Unbounded), 99)
}

fn whole(len: usize, group: GroupId) -> Vec<KeyValue> {
    KEYS.iter().map(|key| (key.to_vec(), value(len, group, key))).collect()
}

/// Three groups whose pairs share table files.
fn found(directory: &Path, members: u64, len: usize) {
    let store = open(directory);
    for number in 1..=3 {
        let group = GroupId::new(number);
        let hard_state = HardState { term: Term::new(2), vote: None, commit: LogIndex::default() };
        let create = Some((ReplicaId::new(1), membership(members)));
        store.write(&[LogWrite { create, hard_state: Some(hard_state), ..LogWrite::new(group) }], true).unwrap();
        for key in KEYS {
            put(&store, group, key, value(len, group, key)).unwrap();
        }
    }
    drop(store);
    // What a log has, an opening writes to tables.
    drop(open(directory));
}

/// Flips a bit of a value where it lies, and says in which file.
fn flip(directory: &Path, value: &[u8]) -> PathBuf {
    let files = std::fs::read_dir(directory.join("meta")).unwrap().map(|file| file.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|end| end == "sst"));
    let found = tables.filter_map(|path| {
        let content = std::fs::read(&path).unwrap();
        let at = content.windows(100).position(|window| window == &value[500..600])?;
        Some((path, at))
    });
    let found: Vec<_> = found.collect();
    let [(path, at)] = found.as_slice() else { panic!("not in one table: {found:?}") };
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, *at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], *at as u64).unwrap();
    path.clone()
}

fn is_damaged<T: std::fmt::Debug>(read: Result<T, StoreError>) -> bool {
    matches!(read, Err(StoreError::Damaged { what, .. }) if what.contains(".sst"))
}

/// A snapshot of a group, from the first pair to the last.
fn repair(store: &RocksStore, len: usize, group: GroupId, number: u64) {
    let (id, position) = (SnapshotId(number), Position::new(number, 2));
    let meta = SnapshotMeta { id, position, membership: membership(2) };
    assert_eq!(store.begin_fill(group, &meta).unwrap(), None);
    let place = |key: &[u8]| Place { table: Table::Kv, key: key.to_vec() };
    let pairs = KEYS.map(|key| Pair { place: place(key), value: value(len, group, key) });
    store.fill(group, id, &pairs, true).unwrap();
    let restore = Some(Restore { id, position, membership: meta.membership });
    store.write(&[LogWrite { restore, ..LogWrite::new(group) }], true).unwrap();
}

/// What is there is as it should be.
fn all_there(store: &RocksStore, len: usize) {
    for number in 1..=3 {
        let group = GroupId::new(number);
        assert_eq!(shown(store, group).unwrap(), whole(len, group), "group {group}");
    }
}

/// And what is not is not, wherever it would be.
fn nothing_else(store: &RocksStore, len: usize, group: GroupId) {
    for key in [&b""[..], b"0", b"b", b"zz", &[0xff; 9]] {
        assert_eq!(store.get(group, Table::Kv, key).unwrap(), None, "group {group}, {key:?}");
    }
    for (from, left) in [(&b"b"[..], 2), (b"n", 1), (b"zz", 0)] {
        let found = store.scan(group, Table::Kv, (Bound::Included(from), Bound::Unbounded), 9).unwrap();
        assert_eq!(found, whole(len, group)[KEYS.len() - left..], "group {group}, {from:?}");
    }
}

fn all_whole(store: &RocksStore, len: usize) {
    all_there(store, len);
    (1..=3).for_each(|group| nothing_else(store, len, GroupId::new(group)));
}

fn repaired_beside_others(key: &[u8]) {
    let place = tempfile::tempdir().unwrap();
    found(place.path(), 2, LONG);
    let file = flip(place.path(), &value(LONG, HARMED, key));
    let store = open(place.path());
    assert_eq!(store.storage.damaged_families(), [], "nobody has read it");
    let (first, last) = (GroupId::new(1), GroupId::new(3));
    let captured = store.capture(last, SnapshotId(7)).unwrap();
    assert!(is_damaged(shown(&store, HARMED)));
    assert_eq!(store.storage.damaged_families(), [Family::Kv]);
    assert_eq!((shown(&store, first).unwrap(), shown(&store, last).unwrap()), (whole(LONG, first), whole(LONG, last)));
    store.mark_unhealthy(HARMED, Unhealthy { cause: Cause::Damaged, index: LogIndex::default() }, true).unwrap();
    drop((store, captured));
    let store = open(place.path());
    assert_eq!(store.storage.damaged_families(), [Family::Kv], "it is known before anybody reads");
    let captured = store.capture(last, SnapshotId(7)).unwrap();
    for number in 1..=2 {
        repair(&store, LONG, HARMED, number);
        all_there(&store, LONG);
        nothing_else(&store, LONG, HARMED);
    }
    put(&store, last, b"m", noise(LONG, 1)).unwrap();
    let read: Vec<Vec<u8>> = captured.read(None, 1 << 20).unwrap().into_iter().map(|pair| pair.value).collect();
    assert_eq!(read, KEYS.map(|key| value(LONG, last, key)), "what is being sent stays as it was");
    put(&store, last, b"m", value(LONG, last, b"m")).unwrap();
    drop((store, captured));
    // More files than RocksDB compacts by itself.
    for _ in 0..6 {
        let store = open(place.path());
        all_there(&store, LONG);
        nothing_else(&store, LONG, HARMED);
        put(&store, first, b"a", value(LONG, first, b"a")).unwrap();
    }
    assert!(file.exists());
    let store = open(place.path());
    store.evacuate().unwrap();
    assert_eq!(store.storage.damaged_families(), []);
    all_whole(&store, LONG);
    put(&store, first, b"n", noise(LONG, 5)).unwrap();
    drop(store);
    let view = RocksView::new(StorageView::open(place.path()).unwrap());
    let all = (Bound::Unbounded, Bound::Unbounded);
    assert_eq!(view.scan(HARMED, Table::Kv, all, 9).unwrap(), whole(LONG, HARMED), "who only looks finds it, too");
    drop(view);
    let store = open(place.path());
    assert!(!file.exists(), "the damaged file is there still");
    change(&store, first, TableWrite::Delete(Table::Kv, b"n".to_vec())).unwrap();
    all_whole(&store, LONG);
    repair(&store, LONG, HARMED, 3);
    all_whole(&store, LONG);
}

#[test]
fn a_replica_harmed_at_its_first_pair_is_repaired_beside_others() {
    repaired_beside_others(b"a");
}

#[test]
fn a_replica_harmed_in_the_middle_is_repaired_beside_others() {
    repaired_beside_others(b"m");
}

/// The block stands for what would be behind it, too.
#[test]
fn a_replica_harmed_at_its_last_pair_is_repaired_beside_others() {
    repaired_beside_others(b"z");
}

/// RocksDB takes no writes then, and says which file it is; the next start goes on without compacting it.
#[test]
fn a_compaction_that_meets_it_stops_the_store_once() {
    let place = tempfile::tempdir().unwrap();
    found(place.path(), 2, LONG);
    let file = flip(place.path(), &value(LONG, HARMED, b"m"));
    let first = GroupId::new(1);
    let begun = Instant::now();
    let error = 'failed: loop {
        // Each opening writes a file, and more than a few are compacted.
        let store = open(place.path());
        let opened = Instant::now();
        while opened.elapsed() < Duration::from_millis(500) {
            if let Err(error) = put(&store, first, b"a", value(LONG, first, b"a")) {
                break 'failed error;
            }
            std::thread::yield_now();
        }
        assert!(begun.elapsed() < PATIENCE, "no compaction has met it");
    };
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(matches!(&error, StoreError::Damaged { what, .. } if what.contains(name)), "{error}");
    let store = open(place.path());
    assert_eq!(
        store.storage.damaged_families().len(),
        super::super::read::FAMILIES.len(),
        "it is not known where it is"
    );
    store.evacuate().unwrap();
    assert_eq!(store.storage.damaged_families(), []);
    let harmed: Vec<bool> =
        (1..=3).map(|number| store.load(GroupId::new(number)).unwrap().unwrap().unhealthy.is_some()).collect();
    assert_eq!(harmed, [false, true, false]);
    assert_eq!(store.load(HARMED).unwrap().unwrap().unhealthy.unwrap().cause, Cause::Damaged);
    drop(store);
    for _ in 0..6 {
        put(&open(place.path()), first, b"a", value(LONG, first, b"a")).unwrap();
    }
    let store = open(place.path());
    store.evacuate().unwrap();
    assert_eq!(shown(&store, HARMED).unwrap(), [], "nothing that is not all there");
    repair(&store, LONG, HARMED, 1);
    all_whole(&store, LONG);
    drop(store);
    let store = open(place.path());
    assert!(file.exists(), "what can be read there may be all there is");
    store.evacuate().unwrap();
    drop(store);
    let store = open(place.path());
    assert!(!file.exists() && store.storage.damaged_families().is_empty());
    all_whole(&store, LONG);
}

/// What no other replica can send is not thrown away.
#[test]
fn of_a_group_that_is_alone_everything_stays() {
    let place = tempfile::tempdir().unwrap();
    found(place.path(), 1, LONG);
    let file = flip(place.path(), &value(LONG, HARMED, b"z"));
    let store = open(place.path());
    assert!(is_damaged(shown(&store, HARMED)));
    drop(store);
    for _ in 0..2 {
        let store = open(place.path());
        store.evacuate().unwrap();
        assert_eq!(store.load(HARMED).unwrap().unwrap().unhealthy, None);
        assert_eq!(store.get(HARMED, Table::Kv, b"a").unwrap(), Some(value(LONG, HARMED, b"a")));
        assert_eq!(shown(&store, GroupId::new(3)).unwrap(), whole(LONG, GroupId::new(3)));
        assert_eq!(store.storage.damaged_families(), [Family::Kv]);
    }
    assert!(file.exists());
}

/// A block that several groups share harms each of them, and not all may be repaired beside it: a start moves away from it.
#[test]
fn groups_that_share_a_damaged_block_are_all_repaired() {
    let place = tempfile::tempdir().unwrap();
    found(place.path(), 2, SHORT);
    let file = flip(place.path(), &value(SHORT, HARMED, b"a"));
    let store = open(place.path());
    assert!(is_damaged(shown(&store, HARMED)));
    drop(store);
    let store = open(place.path());
    store.evacuate().unwrap();
    assert_eq!(store.storage.damaged_families(), []);
    let is_harmed = |group: &GroupId| store.load(*group).unwrap().unwrap().unhealthy.is_some();
    let harmed: Vec<GroupId> = (1..=3).map(GroupId::new).filter(is_harmed).collect();
    assert!(harmed.len() > 1 && harmed.contains(&HARMED), "{harmed:?}");
    for group in harmed {
        repair(&store, SHORT, group, 1);
    }
    all_whole(&store, SHORT);
    drop(store);
    open(place.path()).evacuate().unwrap();
    all_whole(&open(place.path()), SHORT);
    assert!(!file.exists());
}
