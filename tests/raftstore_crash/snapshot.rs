//! Crashes while a snapshot is filled and taken over: the old state whole or the new one whole, and nothing else is left.

use mainstay::raftstore::rocks::RocksView;
use mainstay::raftstore::snapshot::{Pair, Place, Restore, SnapshotId, SnapshotMeta, SnapshotStore};
use mainstay::storage::StorageView;

use super::*;

const ID: SnapshotId = SnapshotId(0xABCD);

fn meta(id: SnapshotId, at: u64, term: u64) -> SnapshotMeta {
    let voters = [1, 2, 4].map(|id| (ReplicaId::new(id), NodeId::new(id)));
    SnapshotMeta { id, position: Position::new(at, term), membership: Membership::of_voters(voters) }
}

/// Takes a snapshot over, with two entries behind it.
fn take_over(group: GroupId, meta: &SnapshotMeta) -> LogWrite {
    let SnapshotMeta { id, position, membership } = meta.clone();
    let (at, term) = (position.index.get(), position.term.get());
    LogWrite { restore: Some(Restore { id, position, membership }), ..append(group, at + 1, at + 2, term, 200) }
}

/// Pairs in three tables, in order.
fn pairs() -> Vec<Pair> {
    let of =
        |table| (0..6u8).map(move |key| Pair { place: Place { table, key: vec![key] }, value: vec![key ^ 0x55; 300] });
    [Table::Cluster, Table::Kv, Table::Sessions].into_iter().flat_map(of).collect()
}

/// A store with two groups whose last write was synced.
fn store_in(directory: &Path) -> RocksStore {
    let store = open(directory);
    let [one, two] = GROUPS;
    store
        .write(&[create(one), create(two), append(one, 1, 20, 1, 100), append(two, 1, 5, 1, 100)], true)
        .expect("a write");
    apply(&store, one, 15);
    store.write(&[append(one, 21, 22, 1, 100)], true).expect("a write");
    store
}

/// What a closed directory holds beside what it shows: what was being filled, and whatever breaks a rule.
fn leftovers(directory: &Path) -> (Vec<SnapshotId>, Vec<String>) {
    let view = RocksView::new(StorageView::open(directory).expect("a data directory"));
    let groups = view.groups().expect("groups").0;
    let filling = groups.iter().filter_map(|group| view.filling(*group).expect("a marker"));
    let filling: Vec<_> = filling.map(|filling| filling.id).collect();
    let broken = groups.iter().flat_map(|group| view.check(*group).expect("a group").violations);
    (filling, broken.map(|violation| violation.to_string()).collect())
}

/// Ends with writes that were not synced: a snapshot is filled and taken over, the group goes on, and another is begun.
/// Says also how long the log was before and after it was taken over.
fn crashed() -> (Crashed, u64, u64) {
    let directory = TempDir::new().expect("a directory");
    let store = store_in(directory.path());
    let [one, two] = GROUPS;
    let (synced_len, mut all) = (log_len(directory.path()), vec![contents(&store)]);
    let mut step = |done: &mut dyn FnMut()| {
        done();
        all.push(contents(&store));
        log_len(directory.path())
    };
    let (first, second) = (meta(ID, 40, 2), meta(SnapshotId(1), 60, 2));
    step(&mut || assert_eq!(store.begin_fill(one, &first).expect("a fill"), None));
    for (chunk, index) in pairs().chunks(5).zip(1..) {
        let is_last = chunk.last() == pairs().last();
        step(&mut || store.fill(one, ID, chunk, is_last).expect("a fill"));
        step(&mut || apply(&store, two, index));
    }
    let before = step(&mut || apply(&store, one, 16));
    let after = step(&mut || store.write(&[take_over(one, &first)], false).expect("a flip"));
    step(&mut || apply(&store, one, 41));
    step(&mut || assert_eq!(store.begin_fill(one, &second).expect("a fill"), None));
    step(&mut || store.fill(one, second.id, &pairs()[..9], false).expect("a fill"));
    step(&mut || store.write(&[append(one, 43, 45, 2, 300)], false).expect("a write"));
    step(&mut || apply(&store, one, 42));
    (Crashed { directory: copy(directory.path()), synced_len, contents: all }, before, after)
}

/// As [`Crashed::survives`], and nothing is left of what was being filled; another snapshot can be taken.
fn survives(crashed: &Crashed, what: &str, tear: impl Fn(&File, u64)) -> usize {
    let torn = copy(crashed.directory.path());
    let log = File::options().read(true).write(true).open(rocksdb_log(torn.path())).expect("the log");
    tear(&log, log.metadata().expect("a file").len());
    let (filling, broken) = leftovers(torn.path());
    assert_eq!(broken, [""; 0], "{what}: before the start, with {filling:?}");
    let store = open(torn.path());
    let found = contents(&store);
    drop(store);
    assert_eq!(leftovers(torn.path()), (vec![], vec![]), "{what}: after the start");
    let store = open(torn.path());
    assert_eq!(contents(&store), found, "{what}");
    let next = meta(SnapshotId(2), 90, 7);
    assert_eq!(store.begin_fill(GROUPS[0], &next), Ok(None), "{what}");
    store.fill(GROUPS[0], next.id, &pairs()[3..], true).expect("a fill");
    store.write(&[take_over(GROUPS[0], &next)], true).expect("a flip");
    let taken = contents(&store);
    assert_eq!(taken.0[0].2.len(), pairs().len() - 3, "{what}");
    drop(store);
    assert_eq!(contents(&open(torn.path())), taken, "{what}");
    crashed.survives(what, tear)
}

#[test]
fn a_kill_while_a_snapshot_is_filled_leaves_the_old_state_and_after_the_flip_the_new_one() {
    let directory = TempDir::new().expect("a directory");
    let store = store_in(directory.path());
    let old = contents(&store);
    let killed = |expected: &Contents, filling: &[SnapshotId], what: &str| {
        let killed = copy(directory.path());
        assert_eq!(leftovers(killed.path()), (filling.to_vec(), vec![]), "{what}");
        let reopened = open(killed.path());
        assert!(contents(&reopened) == *expected, "{what}: {:?}", contents(&reopened));
        drop(reopened);
        assert_eq!(leftovers(killed.path()), (vec![], vec![]), "{what}, after a start");
    };
    let (one, first, next) = (GROUPS[0], meta(ID, 40, 2), meta(SnapshotId(2), 80, 2));
    killed(&old, &[], "before");
    store.begin_fill(one, &first).expect("a fill");
    killed(&old, &[ID], "begun");
    for (number, chunk) in pairs().chunks(7).enumerate() {
        store.fill(one, ID, chunk, chunk.last() == pairs().last()).expect("a fill");
        killed(&old, &[ID], &format!("chunk {number}"));
    }
    store.write(&[take_over(one, &first)], true).expect("a flip");
    let new = contents(&store);
    assert_eq!(new.0[0].2.len(), pairs().len());
    killed(&new, &[], "taken over");
    // One that is abandoned, and one whose group is destroyed.
    store.begin_fill(one, &next).expect("a fill");
    store.fill(one, next.id, &pairs()[..9], false).expect("a fill");
    store.abandon_fill(one, next.id).expect("an end");
    killed(&new, &[], "abandoned");
    store.begin_fill(one, &next).expect("a fill");
    store.fill(one, next.id, &pairs(), true).expect("a fill");
    store.destroy(one).expect("a destruction");
    assert!(store.fill(one, next.id, &pairs(), true).is_err());
    killed(&contents(&store), &[], "destroyed");
    let survivor = copy(directory.path());
    let later = LogWrite { create: Some((ReplicaId::new(9), first.membership)), ..LogWrite::new(one) };
    open(survivor.path()).write(&[later], true).expect("a write");
    assert_eq!(leftovers(survivor.path()), (vec![], vec![]), "nothing waits for a later replica");
}

#[test]
fn a_log_cut_within_fill_and_flip_holds_the_old_state_or_the_new_one() {
    let (crashed, before, after) = crashed();
    let len = log_len(crashed.directory.path());
    let mut places = Vec::new();
    // Finely where it is taken over, of which nothing may be there without the rest.
    let step = (len - crashed.synced_len) / 10;
    let cuts = (crashed.synced_len..before).step_by(step as usize).chain((before..after).step_by(48));
    for cut in cuts.chain((after..=len).step_by(step as usize)).chain([len]) {
        let place = survives(&crashed, &format!("cut at {cut}"), |log, _| log.set_len(cut).expect("a cut"));
        places.push((cut, place));
    }
    assert!(places.is_sorted_by_key(|(_, place)| *place), "{places:?}");
    let is_new = |place: usize| crashed.contents[place].0[0].2.iter().any(|(_, value)| value.len() == 300);
    for (cut, place) in &places {
        assert_eq!(is_new(*place), *cut >= after, "cut at {cut}: {before} to {after}");
    }
    assert!(places.iter().any(|(cut, _)| *cut >= after) && places.iter().any(|(cut, _)| *cut < before));
}

#[test]
fn a_log_that_is_zero_or_garbage_within_fill_and_flip_holds_the_old_state_or_the_new_one() {
    let (crashed, before, after) = crashed();
    let len = log_len(crashed.directory.path());
    for fill in [0u8, 0x5A] {
        let step = (len - crashed.synced_len) / 6;
        for from in (crashed.synced_len..len).step_by(step as usize).chain([before, (before + after) / 2, after]) {
            let torn = |log: &File, len: u64| {
                log.write_all_at(&vec![fill; (len - from) as usize], from).expect("a write");
            };
            survives(&crashed, &format!("{fill:#x} from {from}"), torn);
        }
    }
}

/// What was told the leader is there: rule of durable order 2, for a log that is replaced by a snapshot.
#[test]
fn a_synced_flip_is_there_whatever_is_torn_behind_it() {
    let directory = TempDir::new().expect("a directory");
    let store = store_in(directory.path());
    let (one, meta) = (GROUPS[0], meta(ID, 40, 2));
    store.begin_fill(one, &meta).expect("a fill");
    store.fill(one, ID, &pairs(), true).expect("a fill");
    let before = log_len(directory.path());
    // It also changes the term: its loss is sure to be noticed.
    store.write(&[take_over(one, &meta)], true).expect("a flip");
    let (synced_len, new) = (log_len(directory.path()), contents(&store));
    for cut in (before..synced_len).step_by(100) {
        let torn = copy(directory.path());
        File::options().write(true).open(rocksdb_log(torn.path())).expect("the log").set_len(cut).expect("a cut");
        assert!(matches!(storage(torn.path()), Err(StorageError::Damaged { .. })), "cut at {cut}: not noticed");
    }
    store.write(&[append(one, 43, 60, 2, 300)], false).expect("a write");
    let len = log_len(directory.path());
    let crashed = Crashed { directory: copy(directory.path()), synced_len, contents: vec![new] };
    for cut in (synced_len..len).step_by(500) {
        assert_eq!(survives(&crashed, &format!("cut at {cut}"), |log, _| log.set_len(cut).expect("a cut")), 0);
    }
}

/// What is large goes into files beside RocksDB's log, which knows nothing of them: the marker is synced before the first,
/// and all of them are there before the flip.
#[test]
fn a_large_fill_is_whole_or_gone_whatever_becomes_of_the_log() {
    let directory = TempDir::new().expect("a directory");
    let store = store_in(directory.path());
    let (one, meta) = (GROUPS[0], meta(ID, 40, 2));
    let old = contents(&store);
    store.begin_fill(one, &meta).expect("a fill");
    let pairs = large_pairs();
    for (number, pair) in pairs.iter().enumerate() {
        store.fill(one, ID, std::slice::from_ref(pair), number + 1 == pairs.len()).expect("a fill");
        if number % 60 == 59 || number + 1 == pairs.len() {
            let killed = copy_at_rest(directory.path());
            assert_eq!(leftovers(killed.path()), (vec![ID], vec![]), "pair {number}");
            assert!(contents(&open(killed.path())) == old, "pair {number}");
            assert_eq!(leftovers(killed.path()), (vec![], vec![]), "pair {number}, after a start");
            assert!(!killed.path().join("meta/ingest").exists(), "pair {number}");
        }
    }
    let made = fs::read_dir(directory.path().join("meta/ingest")).expect("a directory");
    assert_eq!(made.count(), 0, "it is complete, and a file is not yet RocksDB's");
    let filled = copy_at_rest(directory.path());
    let before = log_len(directory.path());
    store.write(&[take_over(one, &meta)], false).expect("a flip");
    let (new, after) = (contents(&store), log_len(directory.path()));
    assert_eq!(new.0[0].2.len(), pairs.len());
    // All that the flip needs was there before it but the log.
    fs::copy(rocksdb_log(directory.path()), rocksdb_log(filled.path())).expect("a copy");
    for kept in (before..after).step_by(90).chain([after]) {
        let torn = copy(filled.path());
        File::options().write(true).open(rocksdb_log(torn.path())).expect("the log").set_len(kept).expect("a cut");
        let store = open(torn.path());
        assert!(contents(&store) == if kept == after { &new } else { &old }.clone(), "{kept}: {before} to {after}");
        drop(store);
        assert_eq!(leftovers(torn.path()), (vec![], vec![]), "{kept}: {before} to {after}");
    }
    // The files are covered by evidence: a log that lost what came before the last of them is damaged.
    let torn = copy(filled.path());
    File::options().write(true).open(rocksdb_log(torn.path())).expect("the log").set_len(before - 1).expect("a cut");
    assert!(matches!(storage(torn.path()), Err(StorageError::Damaged { .. })));
}

/// A file may be on its way into RocksDB when somebody puts an end to the fill: nothing of it appears later.
#[test]
fn whoever_ends_a_large_fill_waits_for_its_files() {
    let pairs = large_pairs();
    type End = (&'static str, fn(&RocksStore));
    let ends: [End; 3] = [
        ("abandoned", |store| store.abandon_fill(GROUPS[0], ID).expect("an end")),
        ("destroyed", |store| store.destroy(GROUPS[0]).expect("an end")),
        ("another", |store| {
            let next = meta(SnapshotId(2), 50, 2);
            store.begin_fill(GROUPS[0], &next).expect("a fill");
            store.fill(GROUPS[0], next.id, &large_pairs()[..20], true).expect("a fill");
            store.write(&[take_over(GROUPS[0], &next)], true).expect("a flip");
        }),
    ];
    for (what, end) in ends {
        let directory = TempDir::new().expect("a directory");
        let store = store_in(directory.path());
        store.begin_fill(GROUPS[0], &meta(ID, 40, 2)).expect("a fill");
        // The last one is the first of another table: the file of those before is handed over.
        store.fill(GROUPS[0], ID, &pairs[..29], false).expect("a fill");
        end(&store);
        assert!(store.fill(GROUPS[0], ID, &pairs[29..], true).is_err(), "{what}");
        let shown = contents(&store);
        drop(store);
        assert_eq!(leftovers(directory.path()), (vec![], vec![]), "{what}");
        assert!(contents(&open(directory.path())) == shown, "{what}");
    }
}

/// 47 MiB that cannot be compressed, in two tables: several files of one, and one of the other.
fn large_pairs() -> Vec<Pair> {
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut value = || {
        let mut bytes = Vec::with_capacity(256 << 10);
        while bytes.len() < bytes.capacity() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&(seed >> 32).to_le_bytes()[..4]);
        }
        bytes
    };
    let keys = |table, count: u8| (0..count).map(move |key| Place { table, key: vec![key] });
    let places = keys(Table::Catalog, 28).chain(keys(Table::Kv, 160));
    places.map(|place| Pair { place, value: value() }).collect()
}
