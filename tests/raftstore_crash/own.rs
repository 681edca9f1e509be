//! Crashes while a machine that keeps its own position takes over a snapshot: its file and RocksDB are two stores, and a
//! crash may come between any two steps of either. Whatever it leaves, the next start ends with the state before or with
//! the one behind the snapshot, and with nothing else. The order of the steps is that of `raftstore::snapshot`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay::raftstore::entry::{Cause, Unhealthy};
use mainstay::raftstore::group::GroupConfig;
use mainstay::raftstore::memory::MemoryStore;
use mainstay::raftstore::snapshot::{Pair, Place, Restore, SnapshotId, SnapshotMeta, SnapshotStore};
use mainstay::raftstore::state_machine::{ApplyBatch, Command, MachineSnapshots, MachineState, StateMachine};
use mainstay::raftstore::store::{OpenError, RaftStore, StoreConfig};
use mainstay::raftstore::transport::MemoryNetwork;

use super::*;
use crate::ledger::{Ledger, Map};

const ID: SnapshotId = SnapshotId(0xABCD);
const PATIENCE: Duration = Duration::from_secs(30);
/// The entry of the snapshot, and the last one behind it.
const AT: u64 = 40;
const LAST: u64 = 42;

/// What another replica has as of the snapshot: enough for several pages.
fn donated() -> Map {
    (0..60u8).map(|key| (vec![b'k', key], vec![key ^ 0x55; 4000])).collect()
}

struct Donated(Map);

impl MachineState for Donated {
    fn read(&self, after: Option<&[u8]>, limit_bytes: usize) -> Result<Vec<KeyValue>, StoreError> {
        let behind = self.0.iter().filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after));
        let most = (limit_bytes / 5000).max(1);
        Ok(behind.take(most).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// As they come from a leader: first what they are of, then the machine's own.
fn pairs() -> Vec<Pair> {
    let pair = |key: Vec<u8>, value: Vec<u8>| Pair { place: Place { table: Table::Kv, key }, value };
    let mut header = vec![1];
    header.extend(AT.to_le_bytes());
    header.extend(2u64.to_le_bytes());
    let machine = donated().into_iter().map(|(key, value)| pair([&[1], key.as_slice()].concat(), value));
    [pair(vec![0], header)].into_iter().chain(machine).collect()
}

fn meta() -> SnapshotMeta {
    let voters = [1, 2, 4].map(|id| (ReplicaId::new(id), NodeId::new(id)));
    SnapshotMeta { id: ID, position: Position::new(AT, 2), membership: Membership::of_voters(voters) }
}

/// Takes the snapshot over, with two entries behind it that are committed.
fn take_over() -> LogWrite {
    let SnapshotMeta { id, position, membership } = meta();
    LogWrite { restore: Some(Restore { id, position, membership }), ..append(GROUPS[0], AT + 1, LAST, 2, 200) }
}

/// Gives the machine some entries of [`append`], and makes it durable.
fn give(ledger: &mut Ledger, entries: std::ops::RangeInclusive<u64>, bytes: usize) {
    let store = MemoryStore::new();
    for index in entries {
        let data = vec![index as u8; bytes];
        let command = Command { index: LogIndex::new(index), data: &data };
        ledger.apply(&[command], &mut ApplyBatch::new(&store, GROUPS[0])).expect("an apply");
    }
    ledger.flush().expect("a flush");
}

/// Entries up to 22 are committed, 15 are applied, and the machine has so many on its disk.
fn before(directory: &Path, flushed: u64) -> (RocksStore, Ledger) {
    let store = open(directory);
    let [one, two] = GROUPS;
    store.write(&[create(one), create(two), append(one, 1, 22, 1, 100)], true).expect("a write");
    store.apply(one, &[], &AppliedTo { index: LogIndex::new(15), membership: None }).expect("an apply");
    store.write(&[append(two, 1, 5, 1, 100)], true).expect("a write");
    let mut ledger = Ledger::open(directory).expect("a ledger");
    give(&mut ledger, 1..=flushed, 100);
    (store, ledger)
}

/// What a machine holds that was given all committed entries, and of a snapshot all behind it.
fn expected(is_new: bool) -> Map {
    let place = TempDir::new().expect("a directory");
    let mut ledger = Ledger::open(place.path()).expect("a ledger");
    match is_new {
        true => {
            ledger.install(LogIndex::new(AT), &Donated(donated())).expect("an install");
            give(&mut ledger, AT + 1..=LAST, 200);
        }
        false => give(&mut ledger, 1..=22, 100),
    }
    Map::clone(&ledger.shared().held().map)
}

/// Starts on a directory as a node does, and says what its machine comes to; twice, and nothing is left to be done.
fn started(directory: &Path, what: &str) -> bool {
    let mut came_to = None;
    for round in 1..=2 {
        let store = Arc::new(open(directory));
        let config = StoreConfig { tick: Duration::from_millis(10), ..StoreConfig::default() };
        let transport = Arc::new(MemoryNetwork::new().transport(NodeId::new(1)));
        let raft = RaftStore::start(config, Arc::clone(&store) as _, transport).expect("a raftstore");
        let ledger = Ledger::open(directory).expect("a ledger");
        let shared = ledger.shared();
        let group = raft.open_group(GROUPS[0], GroupConfig::new(ReplicaId::new(1)), ledger);
        let group = group.unwrap_or_else(|error| panic!("{what}, round {round}: {error}"));
        let since = Instant::now();
        let is_new = loop {
            let status = group.view().status;
            let positions = status.positions;
            let is_new = positions.first.get() > AT;
            if positions.applied.get() == if is_new { LAST } else { 22 } {
                assert_eq!(status.membership.nodes.contains_key(&ReplicaId::new(4)), is_new, "{what}");
                break is_new;
            }
            assert!(since.elapsed() < PATIENCE, "{what}, round {round}: {positions:?}");
            std::thread::yield_now();
        };
        assert!(*shared.held().map == expected(is_new), "{what}, round {round}: {:?}", shared.held().map.keys());
        let left = store.scan(GROUPS[0], Table::Kv, (Bound::Unbounded, Bound::Unbounded), 1).expect("a table");
        assert_eq!(left, [], "{what}, round {round}");
        assert_eq!(*came_to.get_or_insert(is_new), is_new, "{what}");
        raft.shutdown();
        drop((raft, group));
        assert_consistent(&store);
    }
    came_to.expect("two rounds")
}

/// Copies the directory at each read.
struct Watched<'a> {
    state: Donated,
    at_read: &'a (dyn Fn() + Sync),
}

impl MachineState for Watched<'_> {
    fn read(&self, after: Option<&[u8]>, limit_bytes: usize) -> Result<Vec<KeyValue>, StoreError> {
        (self.at_read)();
        self.state.read(after, limit_bytes)
    }
}

#[test]
fn a_kill_at_any_step_of_a_takeover_ends_with_one_state_or_the_other() {
    for flushed in [15, 12, 22] {
        let directory = TempDir::new().expect("a directory");
        let (store, mut ledger) = before(directory.path(), flushed);
        let number = AtomicU64::new(0);
        let killed = |is_new: bool, what: &str| {
            // Where the machine was before matters to few of them.
            if flushed != 15 && !["flipped", "installed", "cleared"].contains(&what) {
                return;
            }
            number.fetch_add(1, Ordering::SeqCst);
            let killed = copy(directory.path());
            assert_eq!(started(killed.path(), &format!("{what}, flushed {flushed}")), is_new, "{what}");
        };
        killed(false, "before");
        store.begin_fill(GROUPS[0], &meta()).expect("a fill");
        store.fill(GROUPS[0], ID, &pairs()[..30], false).expect("a fill");
        killed(false, "half filled");
        store.fill(GROUPS[0], ID, &pairs()[30..], true).expect("a fill");
        killed(false, "filled");
        store.write(&[take_over()], true).expect("a flip");
        killed(true, "flipped");
        let watched = Watched { state: Donated(donated()), at_read: &|| killed(true, "installing") };
        ledger.install(LogIndex::new(AT), &watched).expect("an install");
        killed(true, "installed");
        // It gets on before it is removed durably what it installed.
        give(&mut ledger, AT + 1..=AT + 1, 200);
        killed(true, "ahead of what it installed");
        store.clear(GROUPS[0]).expect("a clear");
        killed(true, "cleared");
        store.apply(GROUPS[0], &[], &AppliedTo { index: LogIndex::new(LAST), membership: None }).expect("an apply");
        killed(true, "gone on");
        assert!(number.into_inner() > if flushed == 15 { 10 } else { 2 });
    }
}

/// The power goes: of RocksDB's log a prefix stays, behind what was synced; the machine's file stays as it was.
#[test]
fn a_takeover_whose_last_writes_are_torn_ends_with_the_new_state() {
    let directory = TempDir::new().expect("a directory");
    let (store, mut ledger) = before(directory.path(), 15);
    store.begin_fill(GROUPS[0], &meta()).expect("a fill");
    store.fill(GROUPS[0], ID, &pairs(), true).expect("a fill");
    let unsynced = log_len(directory.path());
    store.write(&[take_over()], true).expect("a flip");
    let synced = log_len(directory.path());
    // Of a flip that was on its way: the machine was told of nothing.
    let torn_at = |cut: u64| {
        let torn = copy(directory.path());
        let log = File::options().write(true).open(rocksdb_log(torn.path())).expect("the log");
        log.set_len(cut).expect("a cut");
        torn
    };
    for cut in (unsynced..synced).step_by(100) {
        // The vote's term went with it: noticed, and not taken for the old state.
        assert!(matches!(storage(torn_at(cut).path()), Err(StorageError::Damaged { .. })), "cut at {cut}");
    }
    ledger.install(LogIndex::new(AT), &Donated(donated())).expect("an install");
    for machine_at in [AT, LAST] {
        if machine_at > AT {
            give(&mut ledger, AT + 1..=machine_at, 200);
            store.clear(GROUPS[0]).expect("a clear");
            let applied = AppliedTo { index: LogIndex::new(machine_at), membership: None };
            store.apply(GROUPS[0], &[], &applied).expect("an apply");
        }
        let len = log_len(directory.path());
        for cut in (synced..len).step_by(24).chain([len]) {
            assert!(started(torn_at(cut).path(), &format!("machine at {machine_at}, cut at {cut} of {synced}..{len}")));
        }
    }
}

/// A replica whose state was wrong gets the right one as of the entry that it is at: its position says nothing then.
#[test]
fn a_repair_as_of_the_same_entry_is_installed_whatever_the_machine_says() {
    let directory = TempDir::new().expect("a directory");
    let store = open(directory.path());
    let one = GROUPS[0];
    store.write(&[create(one), create(GROUPS[1]), append(one, 1, AT, 2, 100)], true).expect("a write");
    store.apply(one, &[], &AppliedTo { index: LogIndex::new(AT), membership: None }).expect("an apply");
    let mut ledger = Ledger::open(directory.path()).expect("a ledger");
    give(&mut ledger, 1..=AT, 100);
    ledger.shared().tamper(b"wrong", b"=1");
    ledger.flush().expect("a flush");
    let unhealthy = Unhealthy { cause: Cause::Differs, index: LogIndex::new(AT) };
    store.mark_unhealthy(one, unhealthy, true).expect("a mark");
    store.begin_fill(one, &meta()).expect("a fill");
    store.fill(one, ID, &pairs(), true).expect("a fill");
    store.write(&[take_over()], true).expect("a flip");
    assert!(started(copy(directory.path()).path(), "flipped"));
}

/// A machine whose file is gone is not taken for one that has yet to install something.
#[test]
fn a_machine_that_lost_its_state_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let (store, mut ledger) = before(directory.path(), 15);
    store.begin_fill(GROUPS[0], &meta()).expect("a fill");
    store.fill(GROUPS[0], ID, &pairs(), true).expect("a fill");
    store.write(&[take_over()], true).expect("a flip");
    ledger.install(LogIndex::new(AT), &Donated(donated())).expect("an install");
    store.clear(GROUPS[0]).expect("a clear");
    drop(store);
    fs::remove_file(directory.path().join(crate::ledger::FILE)).expect("a file");
    let transport = Arc::new(MemoryNetwork::new().transport(NodeId::new(1)));
    let raft = RaftStore::start(StoreConfig::default(), Arc::new(open(directory.path())), transport);
    let raft = raft.expect("a raftstore");
    let ledger = Ledger::open(directory.path()).expect("a ledger");
    let refused = raft.open_group(GROUPS[0], GroupConfig::new(ReplicaId::new(1)), ledger);
    let Err(OpenError::Group(why)) = refused else { panic!("it was opened") };
    assert!(why.to_string().contains("contradicts itself"), "{why}");
}
