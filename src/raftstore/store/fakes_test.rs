//! Stores, ways and machines that do as a test tells them, and nodes made of them.

use std::collections::BTreeSet;

use super::*;

/// Sums what it is given: the response is the sum so far. `poison` cannot be applied.
pub(super) struct Sum;

pub(super) const SUM: &[u8] = b"sum";

pub(super) fn sum_in(store: &dyn GroupStore) -> u64 {
    let value = store.get(GROUP, Table::Kv, SUM).unwrap();
    value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()))
}

impl StateMachine for Sum {
    fn apply(&mut self, commands: &[Command<'_>], batch: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        let mut responses = Vec::new();
        for command in commands {
            if command.data == b"poison" {
                return Err(ApplyError::Machine("poisoned".into()));
            }
            let before = batch.get(Table::Kv, SUM)?.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()));
            let sum = (before + u64::from(command.data[0])).to_le_bytes();
            batch.put(Table::Kv, SUM, sum);
            responses.push(Bytes::copy_from_slice(&sum));
        }
        Ok(responses)
    }
}

pub(super) fn number(response: &Bytes) -> u64 {
    u64::from_le_bytes(response[..].try_into().unwrap())
}

/// A store whose log writes can be made to wait or to fail.
#[derive(Default)]
pub(super) struct Fickle {
    pub(super) inner: MemoryStore,
    /// Writes wait while it is closed.
    pub(super) closed: Mutex<bool>,
    pub(super) opened: Condvar,
    pub(super) fails: AtomicBool,
    /// Reading tables meets damage.
    pub(super) rots: AtomicBool,
    /// Reading the log does.
    pub(super) log_rots: AtomicBool,
    pub(super) free_bytes: Mutex<Option<u64>>,
    pub(super) synced: AtomicU64,
    pub(super) batches: AtomicU64,
    /// Writes of effects.
    pub(super) applies: AtomicU64,
}

impl Fickle {
    pub(super) fn close(&self) {
        *self.closed.lock() = true;
    }

    pub(super) fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }
}

pub(super) fn damaged_if(rots: &AtomicBool) -> Result<(), StoreError> {
    match rots.load(Ordering::SeqCst) {
        true => Err(StoreError::Damaged { place: "a block".into(), what: "it has rotted".into() }),
        false => Ok(()),
    }
}

impl LogStore for Fickle {
    fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        self.inner.groups()
    }
    fn load(&self, group: GroupId) -> Result<Option<StoredGroup>, StoreError> {
        self.inner.load(group)
    }
    fn write(&self, writes: &[LogWrite], sync: bool) -> Result<(), StoreError> {
        self.opened.wait_while(&mut self.closed.lock(), |closed| *closed);
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Failed("no space".into()));
        }
        self.synced.fetch_add(u64::from(sync), Ordering::SeqCst);
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.inner.write(writes, sync)
    }
    fn destroy(&self, group: GroupId) -> Result<(), StoreError> {
        self.opened.wait_while(&mut self.closed.lock(), |closed| *closed);
        self.inner.destroy(group)
    }
    fn tombstones(&self) -> Result<Vec<(GroupId, ReplicaId)>, StoreError> {
        self.inner.tombstones()
    }
    fn mark_unhealthy(&self, group: GroupId, unhealthy: Unhealthy, sync: bool) -> Result<(), StoreError> {
        self.inner.mark_unhealthy(group, unhealthy, sync)
    }
    fn entries(&self, group: GroupId, range: Range<LogIndex>, limit_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        damaged_if(&self.log_rots)?;
        self.inner.entries(group, range, limit_bytes)
    }
    fn term(&self, group: GroupId, index: LogIndex) -> Result<Option<Term>, StoreError> {
        self.inner.term(group, index)
    }
}

impl SnapshotStore for Fickle {
    fn capture(&self, group: GroupId, id: SnapshotId) -> Result<Box<dyn Captured>, StoreError> {
        self.inner.capture(group, id)
    }
    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(*self.free_bytes.lock())
    }
    fn begin_fill(&self, group: GroupId, meta: &SnapshotMeta) -> Result<Option<Place>, StoreError> {
        self.inner.begin_fill(group, meta)
    }
    fn fill(&self, group: GroupId, id: SnapshotId, pairs: &[Pair], is_last: bool) -> Result<(), StoreError> {
        self.inner.fill(group, id, pairs, is_last)
    }
    fn abandon_fill(&self, group: GroupId, id: SnapshotId) -> Result<(), StoreError> {
        self.inner.abandon_fill(group, id)
    }
    fn clear(&self, group: GroupId) -> Result<(), StoreError> {
        self.inner.clear(group)
    }
}

impl TableStore for Fickle {
    fn get(&self, group: GroupId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        damaged_if(&self.rots)?;
        self.inner.get(group, table, key)
    }
    fn scan(
        &self,
        group: GroupId,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        self.inner.scan(group, table, range, limit)
    }
    fn apply_all(&self, groups: &[ApplyWrite<'_>]) -> Result<(), StoreError> {
        self.applies.fetch_add(1, Ordering::SeqCst);
        self.inner.apply_all(groups)
    }
}

/// A way to the others that holds up whoever sends while it is closed.
pub(super) struct Gate {
    pub(super) inner: MemoryTransport,
    pub(super) closed: Mutex<bool>,
    pub(super) opened: Condvar,
    /// The names of the threads that sent.
    pub(super) senders: Mutex<BTreeSet<String>>,
    /// A thread of this name panics.
    pub(super) panics_for: Mutex<Option<String>>,
}

impl Gate {
    pub(super) fn set(&self, closed: bool) {
        *self.closed.lock() = closed;
        self.opened.notify_all();
    }
}

impl Transport for Gate {
    fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), Unsent> {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        assert_ne!(self.panics_for.lock().as_ref(), Some(&thread), "as told");
        self.senders.lock().insert(thread);
        self.opened.wait_while(&mut self.closed.lock(), |closed| *closed);
        self.inner.send(to, envelope)
    }
    fn send_snapshot(&self, to: NodeId, outgoing: Outgoing) -> Result<(), Unsent> {
        self.inner.send_snapshot(to, outgoing)
    }
}

/// Three nodes in this process.
pub(super) struct Nodes {
    pub(super) network: MemoryNetwork,
    pub(super) stores: Vec<Arc<Fickle>>,
    pub(super) running: Vec<Option<(RaftStore, GroupHandle)>>,
    pub(super) gates: Vec<Arc<Gate>>,
    pub(super) tune: fn(&mut GroupConfig),
    pub(super) tune_store: fn(&mut StoreConfig),
}

impl Nodes {
    pub(super) fn start(count: u64) -> Nodes {
        Nodes::tuned(count, |_| {})
    }

    pub(super) fn tuned(count: u64, tune: fn(&mut GroupConfig)) -> Nodes {
        Nodes::tuned_in(count, tune, |_| {})
    }

    pub(super) fn tuned_in(count: u64, tune: fn(&mut GroupConfig), tune_store: fn(&mut StoreConfig)) -> Nodes {
        let network = MemoryNetwork::new();
        let stores = (0..count).map(|_| Arc::default()).collect();
        let running = (0..count).map(|_| None).collect();
        let gate = |number| {
            let (inner, closed, opened) = (network.transport(NodeId::new(number)), Mutex::default(), Condvar::new());
            let (senders, panics_for) = Default::default();
            Arc::new(Gate { inner, closed, opened, senders, panics_for })
        };
        let gates = (1..=count).map(gate).collect();
        let mut nodes = Nodes { network, stores, running, gates, tune, tune_store };
        for place in 0..count as usize {
            nodes.open(place);
        }
        nodes
    }

    pub(super) fn open(&mut self, place: usize) {
        let (node, replica) = (NodeId::new(place as u64 + 1), ReplicaId::new(place as u64 + 11));
        let store = Arc::clone(&self.stores[place]);
        let mut config = StoreConfig { tick: Duration::from_millis(10), ..StoreConfig::default() };
        (self.tune_store)(&mut config);
        let gate = Arc::clone(&self.gates[place]);
        let raft = RaftStore::start(config, store, gate).unwrap();
        if raft.groups().unwrap().is_empty() {
            let members = (0..self.stores.len() as u64).map(|n| (ReplicaId::new(n + 11), NodeId::new(n + 1)));
            raft.create_group(GROUP, replica, Membership::of_voters(members)).unwrap();
        }
        let mut config = GroupConfig::new(replica);
        (self.tune)(&mut config);
        let group = raft.open_group(GROUP, config, Sum).unwrap();
        self.network.join(node, raft.inbox());
        self.running[place] = Some((raft, group));
    }

    pub(super) fn stop(&mut self, place: usize) {
        let (raft, _) = self.running[place].take().unwrap();
        self.network.leave(NodeId::new(place as u64 + 1));
        raft.shutdown();
    }

    pub(super) fn group(&self, place: usize) -> &GroupHandle {
        &self.running[place].as_ref().unwrap().1
    }

    /// The place of a node that leads.
    pub(super) async fn leader(&self) -> usize {
        let looked = async {
            loop {
                for (place, running) in self.running.iter().enumerate() {
                    let leads = |group: &GroupHandle| {
                        let view = group.view();
                        view.status.positions.role == Role::Leader && view.failure.is_none()
                    };
                    if running.as_ref().is_some_and(|(_, group)| leads(group)) {
                        return place;
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looked).await.unwrap()
    }

    /// Proposes until somebody takes it.
    pub(super) async fn add(&self, value: u8) -> u64 {
        let tried = async {
            loop {
                if let Ok(response) = self.group(self.leader().await).propose([value]).await {
                    return number(&response);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, tried).await.unwrap()
    }
}
