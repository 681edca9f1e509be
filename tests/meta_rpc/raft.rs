//! Three nodes of a Raft group in this process, each of which serves.

use std::collections::HashMap;

use bytes::Bytes;
use mainstay::ident::{NodeId, ReplicaId};
use mainstay::meta::METADATA_GROUP;
use mainstay::meta::raft::{Forward, RaftMetadata};
use mainstay::raftstore::context::Attempt;
use mainstay::raftstore::entry::Membership;
use mainstay::raftstore::group::{GroupConfig, Role};
use mainstay::raftstore::log_store::{GroupStore, TableStore};
use mainstay::raftstore::memory::MemoryStore;
use mainstay::raftstore::store::{GroupHandle, ProposeError, RaftStore, StoreConfig};
use mainstay::raftstore::transport::MemoryNetwork;
use parking_lot::Mutex;

use super::*;

/// The ways between the nodes.
#[derive(Default)]
struct Ways(Mutex<HashMap<NodeId, GroupHandle>>);

#[tonic::async_trait]
impl Forward for Ways {
    async fn propose(&self, leader: NodeId, attempt: Attempt, command: Vec<u8>) -> Result<Bytes, ProposeError> {
        let way = self.0.lock().get(&leader).cloned();
        way.ok_or(ProposeError::NotLeader { leader: None })?.propose_once(attempt, command).await
    }
}

struct Running {
    raft: RaftStore,
    metadata: Arc<RaftMetadata>,
    host: Host,
}

struct Cluster {
    network: MemoryNetwork,
    ways: Arc<Ways>,
    nodes: Vec<Option<Running>>,
}

impl Cluster {
    async fn start() -> Cluster {
        let mut cluster = Cluster { network: MemoryNetwork::new(), ways: Arc::default(), nodes: Vec::new() };
        for place in 0..3 {
            let node = cluster.open(place).await;
            cluster.nodes.push(Some(node));
        }
        cluster
    }

    async fn open(&self, place: u64) -> Running {
        let (node, replica) = (NodeId::new(place + 1), ReplicaId::new(place + 11));
        let store = Arc::new(MemoryStore::default());
        let config = StoreConfig { tick: Duration::from_millis(10), ..StoreConfig::default() };
        let groups: Arc<dyn GroupStore> = Arc::clone(&store) as _;
        let raft = RaftStore::start(config, groups, Arc::new(self.network.transport(node))).unwrap();
        let members = (0..3).map(|n| (ReplicaId::new(n + 11), NodeId::new(n + 1)));
        raft.create_group(METADATA_GROUP, replica, Membership::of_voters(members)).unwrap();
        let tables: Arc<dyn TableStore> = store;
        let forward = Some(Arc::clone(&self.ways) as Arc<dyn Forward>);
        let metadata = Arc::new(RaftMetadata::open(&raft, tables, GroupConfig::new(replica), forward).unwrap());
        self.network.join(node, raft.inbox());
        self.ways.0.lock().insert(node, metadata.group().clone());
        let host = Host::start(&metadata).await;
        Running { raft, metadata, host }
    }

    async fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            let leads = |node: &Option<Running>| {
                node.as_ref().is_some_and(|node| node.metadata.group().view().status.positions.role == Role::Leader)
            };
            if let Some(place) = self.nodes.iter().position(leads) {
                return place;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn kill(&mut self, place: usize) {
        let Some(mut running) = self.nodes[place].take() else { return };
        let node = NodeId::new(place as u64 + 1);
        self.network.leave(node);
        self.ways.0.lock().remove(&node);
        running.host.stop().await;
        running.raft.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_passes_on_three_nodes_too() {
    let clusters = parking_lot::Mutex::new(Vec::new());
    conformance::check_clients(async || {
        let cluster = Cluster::start().await;
        let meta = meta(cluster.nodes.iter().flatten().map(|node| &node.host));
        clusters.lock().push(cluster);
        meta
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_watches_go_on_when_the_leader_dies_and_stop_honestly_without_a_majority() {
    const COUNT: u64 = 200;
    let mut cluster = Cluster::start().await;
    let meta = meta(cluster.nodes.iter().flatten().map(|node| &node.host)).within(PATIENCE);
    form(&meta).await;
    let mut watch = meta.kv().watch("count", 1);
    let watched = tokio::spawn(async move {
        let mut values = Vec::new();
        while values.len() < COUNT as usize {
            if let KvUpdate::Changes { changes, .. } = soon(watch.next()).await.unwrap() {
                values.extend(changes.into_iter().map(|change| match change {
                    KvChange::Put(pair) => (pair.version, u64::from_be_bytes(pair.value.try_into().unwrap())),
                    KvChange::Deleted { .. } => panic!("nothing is deleted"),
                }));
            }
        }
        values
    });
    for number in 0..COUNT {
        if number == COUNT / 2 {
            let leader = cluster.leader().await;
            cluster.kill(leader).await;
        }
        meta.kv().put("count", number.to_be_bytes()).await.unwrap();
    }
    // Each once: the version counts how often it was put.
    assert_eq!(watched.await.unwrap(), (0..COUNT).map(|number| (number + 1, number)).collect::<Vec<_>>());
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    let begun = Instant::now();
    let put = meta.within(Duration::from_secs(2)).kv().put("count", "x").await.unwrap_err();
    assert!(matches!(put, MetaError::Unavailable { .. } | MetaError::Unknown { .. }), "{put}");
    let read = meta.within(Duration::from_secs(1)).kv().get("count").await.unwrap_err();
    assert!(matches!(read, MetaError::Unavailable { .. }), "{read}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(meta.local().kv().get("count").await.unwrap().unwrap().version, COUNT);
}
