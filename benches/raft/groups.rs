//! Many groups on three nodes of this process, on RocksDB, without sockets between them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mainstay::ident::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use mainstay::raftstore::entry::{Entry, HardState, Membership, Position};
use mainstay::raftstore::group::{GroupConfig, Role};
use mainstay::raftstore::log_store::{AppliedTo, GroupStore, LogStore, LogWrite, TableStore};
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::store::{GroupHandle, RaftStore, StoreConfig};
use mainstay::raftstore::transport::MemoryNetwork;
use mainstay::storage::Storage;
use mainstay_benches::quantile;
use tokio::time::timeout;

use crate::engine::{Nothing, led, propose};

const NODES: u64 = 3;
/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// Ticks after which groups sleep here, so that nobody has to wait for long.
const SLEEP_AFTER_TICKS: u64 = 20;

/// Three nodes with the same groups.
pub struct Nodes {
    stores: Vec<RaftStore>,
    network: MemoryNetwork,
    /// By node, then by group.
    groups: Vec<Vec<GroupHandle>>,
}

impl Nodes {
    /// Three nodes without groups.
    ///
    /// # Errors
    /// The store refused something.
    pub fn start(directory: &Path) -> anyhow::Result<Nodes> {
        let network = MemoryNetwork::new();
        let mut stores = Vec::new();
        fs::create_dir_all(directory)?;
        for node in 1..=NODES {
            let storage = Storage::open(&directory.join(node.to_string()), 8 << 20)?;
            let store: Arc<dyn GroupStore> = Arc::new(RocksStore::open(Arc::new(storage))?);
            let raft = RaftStore::start(StoreConfig::default(), store, Arc::new(network.transport(NodeId::new(node))))?;
            network.join(NodeId::new(node), raft.inbox());
            stores.push(raft);
        }
        Ok(Nodes { stores, network, groups: vec![Vec::new(); NODES as usize] })
    }

    /// Makes and opens so many groups, and waits until each has a leader.
    ///
    /// # Errors
    /// The raftstore refused something.
    pub async fn open(&mut self, count: u64) -> anyhow::Result<()> {
        let members = Membership::of_voters((1..=NODES).map(|node| (ReplicaId::new(node), NodeId::new(node))));
        for group in 1..=count {
            for (place, store) in self.stores.iter().enumerate() {
                let replica = ReplicaId::new(place as u64 + 1);
                store.create_group(GroupId::new(group), replica, members.clone())?;
                let mut config = GroupConfig::new(replica);
                config.hibernate_after_ticks = SLEEP_AFTER_TICKS;
                self.groups[place].push(store.open_group(GroupId::new(group), config, Nothing)?);
            }
        }
        for group in 0..count as usize {
            self.leader(group).await?;
        }
        Ok(())
    }

    /// The handle of a group where it is led.
    async fn leader(&self, group: usize) -> anyhow::Result<GroupHandle> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let handles = self.groups.iter().map(|groups| &groups[group]);
            let leads = |handle: &&GroupHandle| {
                let view = handle.view();
                view.status.positions.role == Role::Leader && view.status.positions.applied.get() > 0
            };
            if let Some(handle) = handles.into_iter().find(leads) {
                return Ok(handle.clone());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("group {group} has no leader")
    }

    /// Waits until all groups sleep everywhere.
    ///
    /// # Errors
    /// One does not.
    pub async fn asleep(&self) -> anyhow::Result<()> {
        for handle in self.groups.iter().flatten() {
            let mut view = handle.watch();
            let asleep = view.wait_for(|view| view.status.is_asleep);
            timeout(PATIENCE, asleep).await.context("a group does not fall asleep")??;
        }
        Ok(())
    }

    /// Synced writes of all nodes so far.
    fn syncs(&self) -> u64 {
        self.stores.iter().map(|store| store.written().syncs).sum()
    }

    /// Proposals per second to all groups, and synced writes of all nodes for each.
    ///
    /// # Errors
    /// A group has no leader.
    pub async fn load(&self, clients: u64, duration: Duration) -> anyhow::Result<(f64, f64)> {
        let mut leaders = Vec::new();
        for group in 0..self.groups[0].len() {
            let (leader, first) = (self.leader(group).await?, &self.groups[0][group]);
            // All in one place, as with one group: else more nodes take part in each sync.
            if leader.transfer_leader(ReplicaId::new(1)).await.is_ok() {
                timeout(PATIENCE, led(first)).await??;
            }
            leaders.push(first.clone());
        }
        let before = self.syncs();
        let (total, took) = propose(&leaders, clients, duration).await?;
        let rate = total as f64 / took.as_secs_f64();
        Ok((rate, (self.syncs() - before) as f64 / total as f64))
    }

    /// Microseconds of the first write to each group while it sleeps, and of a round trip: a read's, when it is awake.
    ///
    /// # Errors
    /// A group has no leader, or refuses.
    pub async fn wake(&self) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let (mut writes, mut trips) = (Vec::new(), Vec::new());
        for group in 0..self.groups[0].len() {
            let leader = self.leader(group).await?;
            anyhow::ensure!(leader.view().status.is_asleep, "group {group} is awake");
            let begun = Instant::now();
            leader.propose(vec![7; 256]).await?;
            writes.push(begun.elapsed().as_secs_f64() * 1e6);
            let begun = Instant::now();
            leader.read_barrier().await?;
            trips.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok((writes, trips))
    }

    /// Ends it.
    ///
    /// # Errors
    /// A thread panicked.
    pub async fn stop(self) -> anyhow::Result<()> {
        for node in 1..=NODES {
            self.network.leave(NodeId::new(node));
        }
        Ok(tokio::task::spawn_blocking(move || self.stores.iter().for_each(RaftStore::shutdown)).await?)
    }
}

/// What 1 000 idle groups on three nodes cost: the share of a core on each node, and bytes of each group on each node.
///
/// # Errors
/// The raftstore refused something.
pub async fn idle(directory: &Path, count: u64, duration: Duration) -> anyhow::Result<(f64, f64)> {
    let mut nodes = Nodes::start(directory)?;
    let before = resident_bytes()?;
    nodes.open(count).await?;
    nodes.asleep().await?;
    let memory = (resident_bytes()? - before) / (count * NODES) as f64;
    let (begun, spent) = (Instant::now(), processor_seconds()?);
    tokio::time::sleep(duration).await;
    let share = (processor_seconds()? - spent) / begun.elapsed().as_secs_f64() / NODES as f64;
    nodes.stop().await?;
    Ok((share, memory))
}

/// The 99th percentile of first writes to groups that sleep, and of three round trips, in microseconds.
///
/// # Errors
/// The raftstore refused something.
pub async fn wake(directory: &Path, count: u64) -> anyhow::Result<(f64, f64)> {
    let mut nodes = Nodes::start(directory)?;
    nodes.open(count).await?;
    nodes.asleep().await?;
    let (writes, trips) = nodes.wake().await?;
    nodes.stop().await?;
    Ok((quantile(&writes, 0.99), 3.0 * quantile(&trips, 0.99)))
}

/// Makes groups of one replica with logs of so many entries of 128 bytes, all applied.
///
/// # Errors
/// The store refused something.
pub fn make_logs(directory: &Path, groups: u64, entries: u64) -> anyhow::Result<()> {
    let store = RocksStore::open(Arc::new(Storage::open(directory, 8 << 20)?))?;
    let replica = ReplicaId::new(1);
    for group in (1..=groups).map(GroupId::new) {
        let mut write = LogWrite::new(group);
        write.create = Some((replica, Membership::of_voters([(replica, NodeId::new(1))])));
        store.write(&[write], false)?;
        let mut write = LogWrite::new(group);
        write.hard_state = Some(HardState { term: Term::new(1), vote: Some(replica), commit: LogIndex::new(entries) });
        write.entries =
            (1..=entries).map(|index| Entry::command(Position::new(index, 1), vec![7; 128], Vec::new())).collect();
        store.write(&[write], false)?;
        store.apply(group, &[], &AppliedTo { index: LogIndex::new(entries), membership: None })?;
    }
    Ok(store.settle()?)
}

/// Seconds from nothing open until all groups have a leader that has applied its first entry.
///
/// # Errors
/// They do not open.
pub async fn open_all(directory: &Path, groups: u64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let store: Arc<dyn GroupStore> = Arc::new(RocksStore::open(Arc::new(Storage::open(directory, 8 << 20)?))?);
    let transport = Arc::new(MemoryNetwork::new().transport(NodeId::new(1)));
    let raft = RaftStore::start(StoreConfig::default(), store, transport)?;
    let mut handles = Vec::new();
    for group in (1..=groups).map(GroupId::new) {
        handles.push(raft.open_group(group, GroupConfig::new(ReplicaId::new(1)), Nothing)?);
    }
    for handle in &handles {
        timeout(PATIENCE, led(handle)).await??;
    }
    let took = begun.elapsed().as_secs_f64();
    tokio::task::spawn_blocking(move || raft.shutdown()).await?;
    Ok(took)
}

/// Of this process, without what is shared with others.
fn resident_bytes() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("RssAnon")).context("no RssAnon in /proc/self/status")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib * 1024.0)
}

/// That this process has spent on all cores (proc(5): utime and stime, in hundredths).
fn processor_seconds() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let rest = text.rsplit_once(')').context("no name in /proc/self/stat")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let (user, system) = fields.get(11).zip(fields.get(12)).context("too few fields in /proc/self/stat")?;
    Ok((user.parse::<f64>()? + system.parse::<f64>()?) / 100.0)
}
