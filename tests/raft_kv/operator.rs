//! Whoever moves replicas of many groups between nodes, and knows where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::cluster::PATIENCE;
use crate::proto::kv_client::KvClient;
use crate::proto::member_request::Action;
use crate::proto::{MemberRequest, StatusRequest, StatusResponse};

/// Moves under way at once.
const MOVES: usize = 24;
/// A move may see a failover or two, and the replacement of a whole node.
const MOVE_PATIENCE: Duration = Duration::from_secs(90);

/// See the module. Nodes count from 0.
#[derive(Clone)]
pub struct Operator {
    clients: Vec<KvClient<Channel>>,
    pub moved: Arc<AtomicU64>,
    /// Of those, how many had to begin with a snapshot: the leader's log no longer began at its first entry.
    pub by_snapshot: Arc<AtomicU64>,
}

/// A replica of a group goes from one node to another.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub group: u64,
    pub from: usize,
    pub to: usize,
}

impl Operator {
    pub fn new(clients: Vec<KvClient<Channel>>) -> Operator {
        Operator { clients, moved: Arc::default(), by_snapshot: Arc::default() }
    }

    /// How the replica of a group on a node stands, if there is one.
    pub async fn status(&self, node: usize, group: u64) -> Option<StatusResponse> {
        let mut client = self.clients[node].clone();
        let asked = client.status(StatusRequest { group });
        let answered = tokio::time::timeout(Duration::from_secs(1), asked).await;
        Some(answered.ok()?.ok()?.into_inner())
    }

    /// How its leader stands, and the leader's node.
    pub async fn leader(&self, group: u64) -> Option<(usize, StatusResponse)> {
        let mut best: Option<StatusResponse> = None;
        for node in 0..self.clients.len() {
            let Some(status) = self.status(node, group).await else { continue };
            if status.leader == status.node && best.as_ref().is_none_or(|best| status.term > best.term) {
                best = Some(status);
            }
        }
        best.map(|status| (status.node as usize - 1, status))
    }

    pub async fn await_leader(&self, group: u64) -> (usize, StatusResponse) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.leader(group).await {
                return leader;
            }
            assert!(Instant::now() < deadline, "group {group} has no leader");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The nodes that take part in a group.
    pub async fn members(&self, group: u64) -> Vec<usize> {
        let (_, status) = self.await_leader(group).await;
        status.members.iter().map(|member| member.node as usize - 1).collect()
    }

    /// Returns once all replicas of a group have applied what its leader has.
    pub async fn await_caught_up(&self, group: u64) {
        let deadline = Instant::now() + PATIENCE;
        let (_, status) = self.await_leader(group).await;
        let goal = status.applied;
        for member in status.members {
            let node = member.node as usize - 1;
            while self.status(node, group).await.is_none_or(|status| status.applied < goal) {
                assert!(Instant::now() < deadline, "group {group} does not catch up on node {}", node + 1);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn ask(
        &self,
        node: usize,
        action: Action,
        (group, member, replica): (u64, usize, u64),
    ) -> Result<u64, String> {
        let (action, node_id) = (action.into(), member as u64 + 1);
        let request = MemberRequest { action, node: node_id, address: String::new(), group, replica };
        let answered = self.clients[node].clone().member(request).await;
        answered.map(|answer| answer.into_inner().replica).map_err(|status| status.message().to_owned())
    }

    /// One step of a move; `true` once nothing is left to do.
    async fn step(&self, Move { group, from, to }: Move) -> Result<bool, String> {
        let (leader, status) = self.leader(group).await.ok_or("nobody leads")?;
        let replica_on = |node: usize| {
            let found = status.members.iter().find(|member| member.node == node as u64 + 1);
            found.map(|member| member.replica)
        };
        match (replica_on(to), replica_on(from)) {
            (None, _) => {
                let replica = self.ask(to, Action::Join, (group, to, status.next_replica)).await?;
                self.by_snapshot.fetch_add(u64::from(status.first > 1), Ordering::SeqCst);
                self.ask(leader, Action::Add, (group, to, replica)).await?
            }
            (Some(replica), _) if !status.voters.contains(&replica) => {
                self.ask(leader, Action::Add, (group, to, replica)).await?
            }
            (Some(_), Some(replica)) => self.ask(leader, Action::Remove, (group, from, replica)).await?,
            (Some(_), None) => return Ok(true),
        };
        Ok(false)
    }

    async fn carry_out(self, which: Move) {
        let deadline = Instant::now() + MOVE_PATIENCE;
        loop {
            match self.step(which).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(why) => {
                    assert!(Instant::now() < deadline, "{which:?}: {why}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        self.moved.fetch_add(1, Ordering::SeqCst);
    }

    /// Begins moves; the set is done when all are.
    pub fn begin(&self, moves: Vec<Move>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let places = Arc::new(Semaphore::new(MOVES));
        for which in moves {
            let (operator, places) = (self.clone(), Arc::clone(&places));
            tasks.spawn(async move {
                let _place = places.acquire().await.unwrap();
                operator.carry_out(which).await;
            });
        }
        tasks
    }
}
