//! Nodes in this process: real stores, real threads, a network in memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay::ident::{GroupId, NodeId, ReplicaId};
use mainstay::raftstore::entry::Membership;
use mainstay::raftstore::group::{GroupConfig, Role};
use mainstay::raftstore::log_store::{AppliedTo, GroupStore, KeyValue, Table, TableWrite};
use mainstay::raftstore::memory::MemoryStore;
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};
use mainstay::raftstore::store::{GroupHandle, ProposeError, RaftStore, StoreConfig};
use mainstay::raftstore::transport::MemoryNetwork;
use mainstay::storage::Storage;
use tempfile::TempDir;

use crate::ledger::{Ledger, Shared};

pub const GROUP: GroupId = GroupId::new(7);
/// How long anything may take that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sets keys: `key=value`, but for one that a trap names. What it has in memory is how many commands it ever saw, which the table knows too.
#[derive(Default)]
struct Map {
    store: Option<Arc<dyn GroupStore>>,
    count: u64,
}

const COUNT: &[u8] = b"#count";
/// Nobody but a tamperer sets it.
pub const TRAP: &[u8] = b"trap";

impl Map {
    fn read_count(&mut self) -> Result<(), ApplyError> {
        let Some(store) = &self.store else { return Ok(()) };
        let value = store.get(GROUP, Table::Kv, COUNT)?;
        self.count = value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes);
        Ok(())
    }
}

impl StateMachine for Map {
    fn apply(&mut self, commands: &[Command<'_>], batch: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        for command in commands {
            let at = command.data.iter().position(|byte| *byte == b'=').unwrap_or(command.data.len());
            let (key, value) = command.data.split_at(at);
            if batch.get(Table::Catalog, TRAP)?.as_deref() == Some(key) {
                return Err(ApplyError::Machine("trapped".into()));
            }
            batch.put(Table::Kv, key, value);
            self.count += 1;
        }
        batch.put(Table::Kv, COUNT, self.count.to_le_bytes());
        Ok(commands.iter().map(|_| Bytes::copy_from_slice(&self.count.to_le_bytes())).collect())
    }

    fn restored(&mut self, _: mainstay::ident::LogIndex) -> Result<(), ApplyError> {
        self.read_count()
    }
}

/// Where nodes keep what they know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Rocks,
    /// RocksDB for the log, and a state machine that keeps its own position in a file.
    Own,
}

/// A node: its store outlives its process.
pub struct Node {
    pub replica: ReplicaId,
    store: Option<Arc<dyn GroupStore>>,
    directory: Option<TempDir>,
    running: Option<(RaftStore, GroupHandle)>,
    /// What a machine that keeps its own position has.
    ledger: Option<Arc<Shared>>,
}

/// Some nodes of one cluster.
pub struct Nodes {
    pub network: MemoryNetwork,
    kind: Kind,
    pub tune: fn(&mut GroupConfig),
    pub tune_store: fn(&mut StoreConfig),
    nodes: BTreeMap<u64, Node>,
}

impl Nodes {
    /// As many founders, each replica with the number of its node.
    pub fn found(kind: Kind, count: u64, tune: fn(&mut GroupConfig)) -> Nodes {
        Nodes::found_in(kind, count, tune, |_| ())
    }

    /// The same, with stores of other settings.
    pub fn found_in(kind: Kind, count: u64, tune: fn(&mut GroupConfig), tune_store: fn(&mut StoreConfig)) -> Nodes {
        let (network, nodes) = (MemoryNetwork::new(), BTreeMap::new());
        let mut nodes = Nodes { network, kind, tune, tune_store, nodes };
        let members = (1..=count).map(|number| (ReplicaId::new(number), NodeId::new(number)));
        let membership = Membership::of_voters(members);
        for number in 1..=count {
            nodes.make(number, ReplicaId::new(number), Some(&membership));
        }
        nodes
    }

    /// A node that knows nothing, with a replica that waits to be added.
    pub fn join(&mut self, number: u64, replica: u64) {
        self.make(number, ReplicaId::new(replica), None);
    }

    fn make(&mut self, number: u64, replica: ReplicaId, membership: Option<&Membership>) {
        let directory = (self.kind != Kind::Memory).then(|| tempfile::tempdir().unwrap());
        let store = (self.kind == Kind::Memory).then(|| Arc::new(MemoryStore::new()) as Arc<dyn GroupStore>);
        self.nodes.insert(number, Node { replica, store, directory, running: None, ledger: None });
        self.start(number, |raft| match membership {
            Some(membership) => raft.create_group(GROUP, replica, membership.clone()).unwrap(),
            None => raft.join_group(GROUP, replica).unwrap(),
        });
    }

    pub fn restart(&mut self, number: u64) {
        self.start(number, |_| ());
    }

    fn start(&mut self, number: u64, before: impl FnOnce(&RaftStore)) {
        let id = NodeId::new(number);
        let node = self.nodes.get_mut(&number).unwrap();
        let store = match (&node.store, &node.directory) {
            (Some(store), _) => Arc::clone(store),
            (None, Some(directory)) => {
                let storage = Storage::open(directory.path(), 1 << 20).unwrap();
                Arc::new(RocksStore::open(Arc::new(storage)).unwrap())
            }
            _ => unreachable!("a node has a store or a directory"),
        };
        let mut config = StoreConfig { tick: Duration::from_millis(10), ..StoreConfig::default() };
        (self.tune_store)(&mut config);
        let raft = RaftStore::start(config, Arc::clone(&store), Arc::new(self.network.transport(id))).unwrap();
        before(&raft);
        let mut config = GroupConfig::new(node.replica);
        (self.tune)(&mut config);
        let group = match self.kind {
            Kind::Own => {
                let ledger = Ledger::open(node.directory.as_ref().unwrap().path()).unwrap();
                node.ledger = Some(ledger.shared());
                raft.open_group(GROUP, config, ledger).unwrap()
            }
            _ => {
                let mut map = Map { store: Some(Arc::clone(&store)), count: 0 };
                map.read_count().unwrap();
                raft.open_group(GROUP, config, map).unwrap()
            }
        };
        self.network.join(id, raft.inbox());
        (node.store, node.running) = (Some(store), Some((raft, group)));
    }

    pub fn stop(&mut self, number: u64) {
        self.network.leave(NodeId::new(number));
        let node = self.nodes.get_mut(&number).unwrap();
        let (raft, _) = node.running.take().unwrap();
        raft.shutdown();
        drop(raft);
        if node.directory.is_some() {
            node.store = None;
        }
    }

    /// Lets the replica of a stopped node go on alone, as the inspector does.
    pub fn recover_alone(&self, number: u64) {
        let directory = self.nodes[&number].directory.as_ref().unwrap().path();
        let storage = Arc::new(Storage::open(directory, 1 << 20).unwrap());
        let store = RocksStore::open(storage).unwrap();
        store.recover_alone(GROUP, &directory.join("meta.1.broken")).unwrap();
    }

    pub fn raft(&self, number: u64) -> &RaftStore {
        &self.nodes[&number].running.as_ref().unwrap().0
    }

    pub fn group(&self, number: u64) -> &GroupHandle {
        &self.nodes[&number].running.as_ref().unwrap().1
    }

    /// All that a node shows.
    pub fn shown(&self, number: u64) -> Vec<KeyValue> {
        if let Some(ledger) = &self.nodes[&number].ledger {
            return ledger.held().map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        self.shown_in_tables(number)
    }

    pub fn directory(&self, number: u64) -> &std::path::Path {
        self.nodes[&number].directory.as_ref().unwrap().path()
    }

    pub fn ledger(&self, number: u64) -> &Shared {
        self.nodes[&number].ledger.as_ref().unwrap()
    }

    /// All that the tables of a node show.
    pub fn shown_in_tables(&self, number: u64) -> Vec<KeyValue> {
        let store = self.nodes[&number].store.as_ref().unwrap();
        store.scan(GROUP, Table::Kv, (Bound::Unbounded, Bound::Unbounded), usize::MAX).unwrap()
    }

    /// Changes what a node's store holds, behind the back of its replica. Nothing else must be applied meanwhile.
    pub fn tamper(&self, number: u64, write: TableWrite) {
        let store = self.nodes[&number].store.as_ref().unwrap();
        let index = store.load(GROUP).unwrap().unwrap().applied;
        store.apply(GROUP, &[write], &AppliedTo { index, membership: None }).unwrap();
    }

    /// The node that leads, of these.
    pub async fn leader_of(&self, among: &[u64]) -> u64 {
        until("a leader", || {
            among.iter().copied().find(|number| {
                let Some((_, group)) = &self.nodes[number].running else { return false };
                let view = group.view();
                view.status.positions.role == Role::Leader && view.failure.is_none()
            })
        })
        .await
    }

    /// Sets keys through whoever leads, each acknowledged.
    pub async fn put(&self, among: &[u64], keys: std::ops::Range<u64>, value: &str) {
        for key in keys {
            let command = format!("{key:06}={value}");
            let put = async {
                loop {
                    let leader = self.leader_of(among).await;
                    match self.group(leader).propose(command.clone()).await {
                        Ok(_) => return,
                        // Setting a key twice does no harm.
                        Err(ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::Unknown { .. }) => {
                            tokio::task::yield_now().await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            };
            within("a write", put).await;
        }
    }

    /// Waits until two nodes show the same.
    pub async fn agree(&self, one: u64, other: u64) {
        until("two nodes that agree", || (self.shown(one) == self.shown(other)).then_some(())).await;
    }
}

/// Polls a condition until it holds.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let polled = async {
        loop {
            if let Some(found) = condition() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, polled).await
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}
