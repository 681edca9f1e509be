//! What is measured within this process: the ceiling of the engine without disk and sockets, and opening a long log.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay::ident::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use mainstay::raftstore::entry::{Entry, HardState, Membership, Position};
use mainstay::raftstore::group::{GroupConfig, Role};
use mainstay::raftstore::log_store::{AppliedTo, GroupStore, LogStore, LogWrite, TableStore};
use mainstay::raftstore::memory::MemoryStore;
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};
use mainstay::raftstore::store::{GroupHandle, RaftStore, StoreConfig};
use mainstay::raftstore::transport::MemoryNetwork;
use mainstay::storage::Storage;
use tokio::task::JoinSet;

const GROUP: GroupId = GroupId::new(1);

/// Does nothing, and says so.
pub struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, commands: &[Command<'_>], _: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        Ok(commands.iter().map(|_| Bytes::new()).collect())
    }
}

/// Waits until the replica leads and has applied something.
///
/// # Errors
/// The raftstore stopped.
pub async fn led(group: &GroupHandle) -> anyhow::Result<()> {
    let mut view = group.watch();
    view.wait_for(|view| view.status.positions.role == Role::Leader && view.status.positions.applied.get() > 0).await?;
    Ok(())
}

/// Proposals per second of three replicas in this process, with a store in memory and clients that are tasks.
///
/// # Errors
/// The raftstore refused something.
pub async fn ceiling(clients: u64, duration: Duration) -> anyhow::Result<f64> {
    let network = MemoryNetwork::new();
    let members = Membership::of_voters((1..=3).map(|node| (ReplicaId::new(node), NodeId::new(node))));
    let mut stores = Vec::new();
    let mut groups = Vec::new();
    for node in 1..=3 {
        let transport = Arc::new(network.transport(NodeId::new(node)));
        let store: Arc<dyn GroupStore> = Arc::new(MemoryStore::new());
        let raft = RaftStore::start(StoreConfig::default(), store, transport)?;
        network.join(NodeId::new(node), raft.inbox());
        raft.create_group(GROUP, ReplicaId::new(node), members.clone())?;
        groups.push(raft.open_group(GROUP, GroupConfig::new(ReplicaId::new(node)), Nothing)?);
        stores.push(raft);
    }
    let mut waits = JoinSet::new();
    for (place, group) in groups.iter().cloned().enumerate() {
        waits.spawn(async move { led(&group).await.map(|()| place) });
    }
    let Some(leader) = waits.join_next().await else { anyhow::bail!("no replica was opened") };
    let leader = groups[leader??].clone();
    waits.abort_all();
    let (total, took) = propose(&[leader], clients, duration).await?;
    tokio::task::spawn_blocking(move || stores.iter().for_each(RaftStore::shutdown)).await?;
    Ok(total as f64 / took.as_secs_f64())
}

/// Clients that propose to these groups, one command after the other; says how many were applied, and how long it took.
///
/// # Errors
/// A client panicked.
pub async fn propose(leaders: &[GroupHandle], clients: u64, duration: Duration) -> anyhow::Result<(u64, Duration)> {
    let deadline = Instant::now() + duration;
    let mut tasks = JoinSet::new();
    for leader in leaders.iter().cycle().take(usize::try_from(clients)?) {
        let leader = leader.clone();
        tasks.spawn(async move {
            let mut done = 0u64;
            while Instant::now() < deadline {
                if leader.propose(vec![7; 256]).await.is_ok() {
                    done += 1;
                }
            }
            done
        });
    }
    let (begun, mut total) = (Instant::now(), 0);
    while let Some(done) = tasks.join_next().await {
        total += done?;
    }
    Ok((total, begun.elapsed()))
}

/// Makes a log of so many entries of 128 bytes, all applied, in a new directory.
///
/// # Errors
/// The store refused something.
pub fn make_log(directory: &Path, entries: u64) -> anyhow::Result<()> {
    let store = RocksStore::open(Arc::new(Storage::open(directory, 1 << 20)?))?;
    let replica = ReplicaId::new(1);
    let mut write = LogWrite::new(GROUP);
    write.create = Some((replica, Membership::of_voters([(replica, NodeId::new(1))])));
    store.write(&[write], true)?;
    for first in (1..=entries).step_by(10_000) {
        let last = (first + 9_999).min(entries);
        let mut write = LogWrite::new(GROUP);
        let (term, vote) = (Term::new(1), Some(replica));
        write.hard_state = Some(HardState { term, vote, commit: LogIndex::new(last) });
        write.entries =
            (first..=last).map(|index| Entry::command(Position::new(index, 1), vec![7; 128], Vec::new())).collect();
        store.write(&[write], last == entries)?;
    }
    Ok(store.apply(GROUP, &[], &AppliedTo { index: LogIndex::new(entries), membership: None })?)
}

/// Seconds from nothing open to a leader that has applied its first entry.
///
/// # Errors
/// It does not open.
pub async fn open(directory: &Path) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let store: Arc<dyn GroupStore> = Arc::new(RocksStore::open(Arc::new(Storage::open(directory, 1 << 20)?))?);
    let network = MemoryNetwork::new();
    let transport = Arc::new(network.transport(NodeId::new(1)));
    let raft = RaftStore::start(StoreConfig::default(), store, transport)?;
    let group = raft.open_group(GROUP, GroupConfig::new(ReplicaId::new(1)), Nothing)?;
    led(&group).await?;
    group.propose(vec![7; 128]).await?;
    let took = begun.elapsed().as_secs_f64();
    tokio::task::spawn_blocking(move || raft.shutdown()).await?;
    Ok(took)
}
