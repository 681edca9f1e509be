//! The map is cut into groups: each has a log, a leader and members of its own, and a key belongs to one of them. All
//! groups of a node share its disk's syncs, its connections and its threads.
//!
//! A replica that was removed from its group is destroyed here. If the node is to take part again, it makes a new
//! replica, under a number that was never used in the group.

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroU64;
use std::sync::Arc;

use mainstay::ident::{GroupId, NodeId, ReplicaId};
use mainstay::raftstore::entry::Membership;
use mainstay::raftstore::group::GroupConfig;
use mainstay::raftstore::log_store::{LogStore, Table, TableStore};
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::store::{GroupFailure, GroupHandle, GroupView, RaftStore};
use parking_lot::RwLock;
use tokio::sync::watch;
use tonic::Status;

use crate::Map;
use crate::proto::PutRequest;

/// Why something did not work, in words.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The groups of this node.
pub struct Groups {
    /// How many the map is cut into. The same on all nodes, for good: it says where a key is.
    count: NonZeroU64,
    /// See [`GroupConfig::compact_entries`].
    log_entries: Option<u64>,
    store: Arc<RocksStore>,
    raft: Arc<RaftStore>,
    open: RwLock<BTreeMap<GroupId, (ReplicaId, GroupHandle)>>,
    /// Why a group cannot go on, and so this node.
    failure: watch::Sender<Option<Arc<GroupFailure>>>,
}

/// How a node takes part in a group that it has never had.
pub enum Founding {
    /// These nodes found it; each has a replica with its own number.
    Members(Vec<NodeId>),
    /// It waits to be added.
    Join,
}

impl Groups {
    pub fn new(
        (count, log_entries): (NonZeroU64, Option<u64>),
        store: Arc<RocksStore>,
        raft: Arc<RaftStore>,
    ) -> Arc<Groups> {
        let (failure, _) = watch::channel(None);
        Arc::new(Groups { count, log_entries, store, raft, open: RwLock::default(), failure })
    }

    /// At the start: makes those that were never here, and opens all.
    pub fn open_all(self: &Arc<Self>, node: NodeId, founding: &Founding) -> Result<(), Failure> {
        let replica = |node: NodeId| ReplicaId::new(node.get());
        let mut made = self.raft.groups()?;
        // One that was destroyed here is not made again by itself: somebody else may have its place.
        let destroyed = self.raft.tombstones()?;
        for group in (1..=self.count.get()).map(GroupId::new) {
            if made.contains(&group) || destroyed.iter().any(|(other, _)| *other == group) {
                continue;
            }
            match founding {
                Founding::Join => self.raft.join_group(group, replica(node))?,
                Founding::Members(nodes) => {
                    let members = Membership::of_voters(nodes.iter().map(|node| (replica(*node), *node)));
                    self.raft.create_group(group, replica(node), members)?;
                }
            }
            made.push(group);
        }
        made.into_iter().try_for_each(|group| self.open(group))
    }

    /// Makes a replica that waits to be added, with this number or a higher one that was never used here; says which. One
    /// that waits in vain, because its number was given to another, gives way.
    pub async fn join(self: &Arc<Self>, group: GroupId, least: ReplicaId) -> Result<ReplicaId, Failure> {
        let open = self.open.read().get(&group).cloned();
        match open {
            Some((open, _)) if open >= least => return Ok(open),
            Some((_, handle)) if handle.view().status.membership.nodes.is_empty() => {
                self.open.write().remove(&group);
                self.destroy(group).await?;
            }
            Some((open, _)) => return Err(format!("replica {open} of group {group} is here").into()),
            None => {}
        }
        let destroyed = self.raft.tombstones()?.into_iter().find(|(other, _)| *other == group);
        let unused = destroyed.map_or(least, |(_, replica)| least.max(ReplicaId::new(replica.get() + 1)));
        self.raft.join_group(group, unused)?;
        self.open(group)?;
        Ok(unused)
    }

    async fn destroy(&self, group: GroupId) -> Result<(), Failure> {
        let raft = Arc::clone(&self.raft);
        Ok(tokio::task::spawn_blocking(move || raft.destroy_group(group)).await??)
    }

    fn open(self: &Arc<Self>, group: GroupId) -> Result<(), Failure> {
        let replica = self.store.load(group)?.ok_or("the group is gone")?.replica;
        let mut config = GroupConfig::new(replica);
        if let Some(entries) = self.log_entries {
            (config.compact_entries, config.keep_entries, config.max_lag_entries) = (entries, entries / 4, entries * 2);
        }
        let handle = self.raft.open_group(group, config, Map)?;
        self.open.write().insert(group, (replica, handle.clone()));
        tokio::spawn(Arc::clone(self).accompany(replica, handle));
        Ok(())
    }

    /// Until the replica ends: one that was removed is destroyed, a failure is that of the node.
    async fn accompany(self: Arc<Self>, replica: ReplicaId, handle: GroupHandle) {
        let (group, mut view) = (handle.group(), handle.watch());
        let ended = view.wait_for(|view| view.failure.is_some() || was_removed(view, replica)).await;
        let failure = ended.ok().and_then(|view| view.failure.clone());
        match failure.as_deref() {
            None | Some(GroupFailure::Removed(_)) => {}
            Some(GroupFailure::Destroyed(_)) => return,
            Some(_) => return drop(self.failure.send_replace(failure)),
        }
        self.open.write().remove(&group);
        match self.destroy(group).await {
            Ok(()) => println!("replica {replica} of group {group} was removed"),
            Err(error) => println!("replica {replica} of group {group} was removed, but not destroyed: {error}"),
        }
    }

    /// Resolves when a group cannot go on.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(failure) => failure.as_ref().map_or_else(String::new, |failure| failure.to_string()),
            Err(_) => std::future::pending().await,
        }
    }

    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Where a key belongs.
    pub fn of_key(&self, key: &[u8]) -> GroupId {
        GroupId::new(1 + u64::from(crc32fast::hash(key)) % self.count)
    }

    /// Puts of each group, with their places.
    pub fn by_group(&self, puts: Vec<PutRequest>) -> BTreeMap<GroupId, Vec<(usize, PutRequest)>> {
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for (place, put) in puts.into_iter().enumerate() {
            groups.entry(self.of_key(&put.key)).or_default().push((place, put));
        }
        groups
    }

    pub fn get(&self, group: GroupId) -> Result<GroupHandle, Status> {
        Ok(self.replica(group)?.1)
    }

    fn replica(&self, group: GroupId) -> Result<(ReplicaId, GroupHandle), Status> {
        let open = self.open.read().get(&group).cloned();
        open.ok_or_else(|| Status::unavailable(format!("this node has no replica of group {group}")))
    }

    /// A value, as of all that was acknowledged before, by any node.
    pub async fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Status> {
        let group = self.of_key(key);
        let (replica, handle) = self.replica(group)?;
        if handle.view().status.membership.nodes.is_empty() {
            return Err(Status::unavailable(format!("the replica of group {group} waits to be added")));
        }
        handle.read_barrier().await.map_err(|error| Status::unavailable(error.to_string()))?;
        // The replica may have been destroyed since, and another made, which shows nothing yet. Not while this is held.
        let open = self.open.read();
        match open.get(&group) {
            Some((still, _)) if *still == replica => {
                self.store.get(group, Table::Kv, key).map_err(|error| Status::internal(error.to_string()))
            }
            _ => Err(Status::unavailable(format!("the replica of group {group} was removed"))),
        }
    }
}

/// The replica knows it by its log. One that does not is told by the others, and fails.
fn was_removed(view: &GroupView, replica: ReplicaId) -> bool {
    let membership = &view.status.membership;
    !membership.is_joint() && membership.was_removed(replica)
}
