//! Three nodes of one process, over the network in memory, and single ones that restart.

use std::ops::{Bound, Range};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::super::METADATA_GROUP;
use super::super::client::{Meta, compare, ops};
use super::super::conformance;
use super::super::proto::action::Kind;
use super::super::proto::{self, Compact, EventKind, GrantLease, Init, MemberSpec, Put, Refusal, Txn};
use super::super::raft::{Forward, RaftMetadata};
use super::super::service::{MetaError, Metadata};
use super::super::timekeeper::Timekeeper;
use super::super::watch::KvUpdate;
use super::*;
use crate::ident::{ClusterId, GroupId, LogIndex, NodeId, ReplicaId, SystemId, Term};
use crate::raftstore::context::Attempt;
use crate::raftstore::entry::{Entry, Membership, Unhealthy};
use crate::raftstore::group::{GroupConfig, Role};
use crate::raftstore::log_store::{ApplyWrite, GroupStore, KeyValue, LogStore, LogWrite, StoredGroup, TableStore};
use crate::raftstore::memory::MemoryStore;
use crate::raftstore::rocks::RocksStore;
use crate::raftstore::snapshot::{Captured, Pair, Place, SnapshotId, SnapshotMeta, SnapshotStore};
use crate::raftstore::store::{GroupHandle, ProposeError, RaftStore, StoreConfig};
use crate::raftstore::transport::MemoryNetwork;
use crate::storage::Storage;

const PATIENCE: Duration = Duration::from_secs(30);

/// The ways between the nodes.
#[derive(Default)]
struct Ways {
    nodes: Mutex<std::collections::HashMap<NodeId, GroupHandle>>,
    /// So many answers get lost on their way.
    loses: AtomicU64,
}

#[tonic::async_trait]
impl Forward for Ways {
    async fn propose(&self, leader: NodeId, attempt: Attempt, command: Vec<u8>) -> Result<Bytes, ProposeError> {
        let way = self.nodes.lock().get(&leader).cloned();
        let answer = way.ok_or(ProposeError::NotLeader { leader: None })?.propose_once(attempt, command).await;
        match self.loses.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(ProposeError::Unknown { why: "the connection broke" }),
            Err(_) => answer,
        }
    }
}

struct Running {
    raft: RaftStore,
    metadata: Arc<RaftMetadata>,
    timekeeper: Timekeeper,
}

struct Nodes {
    network: MemoryNetwork,
    ways: Arc<Ways>,
    stores: Vec<Arc<MemoryStore>>,
    running: Vec<Option<Running>>,
}

fn start(store: Arc<impl GroupStore>, network: &MemoryNetwork, ways: &Arc<Ways>, place: u64, count: u64) -> Running {
    let (node, replica) = (NodeId::new(place + 1), ReplicaId::new(place + 11));
    let config = StoreConfig { tick: Duration::from_millis(10), ..StoreConfig::default() };
    let groups: Arc<dyn GroupStore> = Arc::clone(&store) as _;
    let raft = RaftStore::start(config, groups, Arc::new(network.transport(node))).unwrap();
    if raft.groups().unwrap().is_empty() {
        let members = (0..count).map(|n| (ReplicaId::new(n + 11), NodeId::new(n + 1)));
        raft.create_group(METADATA_GROUP, replica, Membership::of_voters(members)).unwrap();
    }
    let tables: Arc<dyn TableStore> = store as _;
    let forward = Some(Arc::clone(ways) as Arc<dyn Forward>);
    let metadata = Arc::new(RaftMetadata::open(&raft, tables, GroupConfig::new(replica), forward).unwrap());
    network.join(node, raft.inbox());
    ways.nodes.lock().insert(node, metadata.group().clone());
    let timekeeper = Timekeeper::start(Arc::clone(&metadata));
    Running { raft, metadata, timekeeper }
}

impl Nodes {
    fn start(count: u64) -> Nodes {
        let stores = (0..count).map(|_| Arc::default()).collect();
        let running = (0..count).map(|_| None).collect();
        let mut nodes = Nodes { network: MemoryNetwork::new(), ways: Arc::default(), stores, running };
        (0..count).for_each(|place| nodes.open(place));
        nodes
    }

    fn open(&mut self, place: u64) {
        let store = Arc::clone(&self.stores[place as usize]);
        let running = start(store, &self.network, &self.ways, place, self.stores.len() as u64);
        self.running[place as usize] = Some(running);
    }

    /// Stops a node as if it were killed: nobody is told.
    fn kill(&mut self, place: usize) {
        let running = self.running[place].take().unwrap();
        self.network.leave(NodeId::new(place as u64 + 1));
        self.ways.nodes.lock().remove(&NodeId::new(place as u64 + 1));
        running.raft.shutdown();
        drop(running.timekeeper);
    }

    fn meta(&self, place: usize) -> Meta {
        let metadata = Arc::clone(&self.running[place].as_ref().unwrap().metadata);
        Meta::new(metadata, "a test").within(PATIENCE)
    }

    async fn leader(&self) -> usize {
        let leads = |running: &Option<Running>| {
            let role = |running: &Running| running.metadata.group().view().status.positions.role;
            running.as_ref().is_some_and(|running| role(running) == Role::Leader)
        };
        until(|| self.running.iter().position(leads)).await
    }

    /// Waits until all nodes that run have applied the same, and compares every byte of their tables.
    async fn equal(&self) {
        let barriers = self.running.iter().flatten().map(|running| &running.metadata);
        for metadata in barriers {
            metadata.barrier(Instant::now() + PATIENCE).await.unwrap();
        }
        let running = self.running.iter().zip(&self.stores).filter(|(running, _)| running.is_some());
        let applied = |store: &Arc<MemoryStore>| store.load(METADATA_GROUP).unwrap().unwrap().applied;
        let stores: Vec<_> = running.map(|(_, store)| store).collect();
        until(|| stores.iter().all(|store| applied(store) == applied(stores[0])).then_some(())).await;
        let contents = |store: &Arc<MemoryStore>| {
            use std::ops::Bound::Unbounded;
            [Table::Cluster, Table::Kv, Table::Sessions]
                .map(|table| store.scan(METADATA_GROUP, table, (Unbounded, Unbounded), usize::MAX).unwrap())
        };
        for store in &stores {
            assert!(contents(store) == contents(stores[0]), "tables differ");
        }
    }
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looked = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap()
}

fn first() -> MemberSpec {
    MemberSpec {
        addresses: vec!["10.0.0.1:7000".into()],
        secret_hash: vec![1; 32],
        version: 1,
        ..MemberSpec::default()
    }
}

async fn form(meta: &Meta) {
    meta.members().form(ClusterId::new(7), SystemId::new(8), first()).await.unwrap();
}

/// A store that a machine can hold, too.
#[derive(Clone, Default)]
struct Shared(Arc<MemoryStore>);

impl LogStore for Shared {
    fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        self.0.groups()
    }
    fn load(&self, group: GroupId) -> Result<Option<StoredGroup>, StoreError> {
        self.0.load(group)
    }
    fn write(&self, writes: &[LogWrite], sync: bool) -> Result<(), StoreError> {
        self.0.write(writes, sync)
    }
    fn destroy(&self, group: GroupId) -> Result<(), StoreError> {
        self.0.destroy(group)
    }
    fn tombstones(&self) -> Result<Vec<(GroupId, ReplicaId)>, StoreError> {
        self.0.tombstones()
    }
    fn mark_unhealthy(&self, group: GroupId, unhealthy: Unhealthy, sync: bool) -> Result<(), StoreError> {
        self.0.mark_unhealthy(group, unhealthy, sync)
    }
    fn entries(&self, group: GroupId, range: Range<LogIndex>, limit_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        self.0.entries(group, range, limit_bytes)
    }
    fn term(&self, group: GroupId, index: LogIndex) -> Result<Option<Term>, StoreError> {
        self.0.term(group, index)
    }
}

impl SnapshotStore for Shared {
    fn capture(&self, group: GroupId, id: SnapshotId) -> Result<Box<dyn Captured>, StoreError> {
        self.0.capture(group, id)
    }
    fn begin_fill(&self, group: GroupId, meta: &SnapshotMeta) -> Result<Option<Place>, StoreError> {
        self.0.begin_fill(group, meta)
    }
    fn fill(&self, group: GroupId, id: SnapshotId, pairs: &[Pair], is_last: bool) -> Result<(), StoreError> {
        self.0.fill(group, id, pairs, is_last)
    }
    fn abandon_fill(&self, group: GroupId, id: SnapshotId) -> Result<(), StoreError> {
        self.0.abandon_fill(group, id)
    }
    fn clear(&self, group: GroupId) -> Result<(), StoreError> {
        self.0.clear(group)
    }
}

impl TableStore for Shared {
    fn get(&self, group: GroupId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(group, table, key)
    }
    fn scan(
        &self,
        group: GroupId,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        self.0.scan(group, table, range, limit)
    }
    fn apply_all(&self, groups: &[ApplyWrite<'_>]) -> Result<(), StoreError> {
        self.0.apply_all(groups)
    }
}

#[test]
fn it_is_a_state_machine_as_the_raftstore_expects_one() {
    let put = |key: &str, value: &str| Kind::Put(Put { key: key.into(), value: value.into(), lease: 0 });
    let form = Kind::Init(Init { cluster_id: 7, system_id: 8, member: Some(first()) });
    let actions = [
        vec![put("too", "early")],
        vec![form],
        vec![put("a", "1")],
        vec![put("a", "2"), put("b", "1")],
        vec![put("c", "1"), put("", "refused")],
        vec![Kind::GrantLease(GrantLease { id: 0, ttl_ms: 1000 })],
        vec![Kind::Compact(Compact { revision: 2 })],
        vec![put("a", "3")],
    ];
    let encoded = |actions: Vec<Kind>| {
        command::encode(&proto::Command {
            actions: actions.into_iter().map(command::action).collect(),
            ..Default::default()
        })
    };
    let commands: Vec<_> = actions.into_iter().map(encoded).collect();
    let last = std::cell::RefCell::new(Shared::default());
    let make_store = || {
        *last.borrow_mut() = Shared::default();
        last.borrow().clone()
    };
    let make_machine = || {
        let view = StoreView { store: Arc::new(last.borrow().clone()), group: GroupId::new(1) };
        MetaMachine::open(view).unwrap().0
    };
    crate::raftstore::conformance::check_machine(make_store, make_machine, &commands).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_pass_the_conformance_suite_asked_by_a_follower() {
    let mut kept = Vec::new();
    let make = async || {
        let nodes = Nodes::start(3);
        let asked = (nodes.leader().await + 1) % 3;
        let metadata = Arc::clone(&nodes.running[asked].as_ref().unwrap().metadata);
        kept.push(nodes);
        metadata as Arc<dyn Metadata>
    };
    conformance::check(make).await.unwrap();
    for nodes in &kept {
        nodes.equal().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_in_memory_passes_the_conformance_suite() {
    let make = async || Arc::new(super::super::memory::MemoryMetadata::new()) as Arc<dyn Metadata>;
    conformance::check(make).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_done_twice_while_leaders_are_killed() {
    let mut nodes = Nodes::start(3);
    nodes.leader().await;
    form(&nodes.meta(0)).await;
    // Node 3 is never killed: its clients go on, and a watch on it sees everything.
    let asked = 2;
    let mut watch = nodes.meta(asked).kv().watch("count", 1);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let counters: Vec<_> = (0..4)
        .map(|_| {
            let (meta, stop) = (nodes.meta(asked), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut counted = 0u64;
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    // Would show a command that is applied twice, or lost after it was acknowledged.
                    let before = meta.kv().get("count").await.unwrap();
                    let length = before.as_ref().map_or(0, |pair| pair.value.len());
                    let compares = vec![match &before {
                        Some(pair) => compare::mod_revision("count", pair.mod_revision),
                        None => compare::absent("count"),
                    }];
                    let then = vec![ops::put("count", vec![b'+'; length + 1])];
                    let done = meta.kv().txn(Txn { compares, then, otherwise: vec![] }).await.unwrap();
                    counted += u64::from(done.succeeded);
                }
                counted
            })
        })
        .collect();
    for _ in 0..4 {
        let leader = nodes.leader().await;
        if leader == asked {
            let to = ReplicaId::new(11);
            let _ = nodes.running[asked].as_ref().unwrap().metadata.group().transfer_leader(to).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        nodes.kill(leader);
        let meta = nodes.meta(asked);
        meta.kv().put("still", "there").await.unwrap();
        nodes.open(leader as u64);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut counted = 0;
    for counter in counters {
        counted += counter.await.unwrap();
    }
    let value = nodes.meta(asked).kv().get("count").await.unwrap().unwrap();
    assert_eq!(value.value.len() as u64, counted, "what was acknowledged, and what is there");
    assert_eq!(value.version, counted);
    // The watch saw each step once.
    let mut seen = 0;
    while seen < counted {
        if let KvUpdate::Changes { changes, .. } = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap()
        {
            seen += 1;
            let super::super::watch::KvChange::Put(pair) = &changes[0] else { panic!("{changes:?}") };
            assert_eq!((pair.value.len() as u64, changes.len()), (seen, 1));
        }
    }
    nodes.equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_answer_was_lost_takes_effect_once() {
    let nodes = Nodes::start(3);
    let asked = (nodes.leader().await + 1) % 3;
    let meta = nodes.meta(asked);
    form(&meta).await;
    for version in 1..=5 {
        nodes.ways.loses.store(1, SeqCst);
        assert_eq!(meta.kv().put("a", "1").await.unwrap(), version);
        assert_eq!(meta.kv().get("a").await.unwrap().unwrap().version, version);
    }
    assert_eq!(nodes.ways.loses.load(SeqCst), 0, "no answer was lost");
    // If none arrives until the deadline, nobody says that nothing happened.
    nodes.ways.loses.store(u64::MAX, SeqCst);
    let unknown = meta.within(Duration::from_millis(500)).kv().put("b", "1").await.unwrap_err();
    assert!(matches!(unknown, MetaError::Unknown { .. }), "{unknown}");
    nodes.ways.loses.store(0, SeqCst);
    assert_eq!(meta.kv().get("b").await.unwrap().unwrap().value, b"1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_says_so_in_time_and_still_reads_what_it_has() {
    let mut nodes = Nodes::start(3);
    form(&nodes.meta(0)).await;
    nodes.meta(0).kv().put("a", "1").await.unwrap();
    nodes.equal().await;
    nodes.kill(1);
    nodes.kill(2);
    let meta = nodes.meta(0).within(Duration::from_millis(300));
    let begun = Instant::now();
    let written = meta.kv().put("a", "2").await.unwrap_err();
    assert!(matches!(written, MetaError::Unavailable { .. } | MetaError::Unknown { .. }), "{written}");
    let read = meta.kv().get("a").await.unwrap_err();
    assert!(matches!(read, MetaError::Unavailable { .. }), "{read}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(meta.local().kv().get("a").await.unwrap().unwrap().value, b"1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_tokens_run_out_and_no_sooner() {
    let mut nodes = Nodes::start(3);
    let leader = nodes.leader().await;
    let meta = nodes.meta((leader + 1) % 3);
    form(&meta).await;
    meta.settings().set("kv.lease_min_ttl", "100 ms").await.unwrap();
    let ttl = Duration::from_millis(600);
    // Long enough that no pause of a busy machine hides a keep-alive, and waited out below.
    let long = 4 * ttl;
    let kept = meta.kv().grant_lease(long).await.unwrap().id;
    meta.kv().put_leased("kept", "1", kept).await.unwrap();
    let asked = Instant::now();
    let lost = meta.kv().grant_lease(ttl).await.unwrap().id;
    let put = meta.kv().put_leased("lost", "1", lost).await.unwrap();
    let (_, token) = meta.tokens().create(1000).await.unwrap();
    let mut watch = meta.kv().watch("lost", put + 1);
    let keeper = tokio::spawn({
        let meta = meta.clone();
        async move {
            loop {
                meta.kv().keep_alive(kept).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    assert!(asked.elapsed() >= ttl, "it lasted {:?}", asked.elapsed());
    assert_eq!(meta.kv().lease(lost).await.unwrap(), None);
    let mut events = meta.events().follow(1);
    let expired = async {
        loop {
            let event = events.next().await.unwrap();
            if event.kind() == EventKind::TokenExpired {
                return event;
            }
        }
    };
    let event = tokio::time::timeout(PATIENCE, expired).await.unwrap();
    assert_eq!((event.subject, event.actor.as_str()), (token.id.to_string(), "mainstay"));
    // Another leader goes on counting, and what is kept alive stays.
    let before = meta.kv().grant_lease(ttl).await.unwrap().id;
    nodes.kill(leader);
    let meta = nodes.meta((leader + 1) % 3);
    let gone = async {
        while meta.kv().lease(before).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    until(|| (asked.elapsed() > long + ttl).then_some(())).await;
    assert_eq!(meta.kv().get("kept").await.unwrap().unwrap().value, b"1");
    keeper.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_rocksdb_restarts_where_it_was_and_watches_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let storage = Storage::open(directory.path(), 1 << 20).unwrap();
        let store = Arc::new(RocksStore::open(Arc::new(storage)).unwrap());
        start(store, &MemoryNetwork::new(), &Arc::default(), 0, 1)
    };
    let running = open();
    let meta = Meta::new(Arc::clone(&running.metadata) as _, "a test");
    form(&meta).await;
    for number in 0..20u8 {
        meta.kv().put("a", [number]).await.unwrap();
    }
    let mut watch = meta.kv().watch("a", 1);
    for _ in 0..7 {
        watch.next().await.unwrap();
    }
    let position = watch.position();
    running.raft.shutdown();
    assert!(matches!(meta.kv().put("a", "x").await, Err(MetaError::Stopped(_))));
    running.timekeeper.stop().await;
    drop((running.raft, running.metadata, meta, watch));

    let running = open();
    let meta = Meta::new(Arc::clone(&running.metadata) as _, "a test");
    assert_eq!(meta.kv().put("a", "last").await.unwrap(), 21);
    let mut watch = meta.kv().watch("a", position);
    for revision in 8..=21 {
        let KvUpdate::Changes { revision: found, .. } = watch.next().await.unwrap() else { panic!("a notice") };
        assert_eq!(found, revision);
    }
    assert_eq!(meta.members().list().await.unwrap().len(), 1);
    running.raft.shutdown();
    let stopped = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
    assert_eq!(stopped, Err(super::super::watch::WatchError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_before_it_is_proposed() {
    let nodes = Nodes::start(1);
    let meta = nodes.meta(0);
    form(&meta).await;
    let put = |key: u8| Kind::Put(Put { key: vec![key], value: vec![0; 1 << 20], lease: 0 });
    let error = meta.batch((0..5).map(put).collect()).await.unwrap_err();
    assert!(matches!(error, MetaError::TooLarge { .. }), "{error}");
    meta.batch((0..3).map(put).collect()).await.unwrap();
    assert_eq!(meta.kv().put("", "x").await.unwrap_err().refusal(), Some(Refusal::Invalid));
}
