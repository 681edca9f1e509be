//! Directories of nodes, and what tests do with members.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mainstay::cluster::operator::Operator;
use mainstay::cluster::{ClusterConfig, ClusterError, ClusterNode, Entrance, TokenSource, Waiting};
use mainstay::ident::NodeId;
use mainstay::meta::proto::{Member, MemberState};
use mainstay::net::{Address, NetConfig};
use tokio::task::JoinHandle;

/// Anything that takes longer is a failure.
pub const LIMIT: Duration = Duration::from_secs(30);
pub const SEGMENT: u64 = 1 << 20;

/// Directories for nodes.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub async fn open(&self, name: &str, config: ClusterConfig) -> Result<Entrance, ClusterError> {
        Entrance::open(self.path(name), SEGMENT, config).await
    }

    pub async fn waiting(&self, name: &str, config: ClusterConfig) -> Waiting {
        match self.open(name, config).await.unwrap() {
            Entrance::Waiting(waiting) => *waiting,
            Entrance::Alone(_) => panic!("it is alone"),
        }
    }

    /// A node that was a member before, without being told anything.
    pub async fn again(&self, name: &str) -> ClusterNode {
        within(self.waiting(name, ClusterConfig::default()).await.member()).await.unwrap()
    }

    /// A first member.
    pub async fn form(&self, name: &str) -> ClusterNode {
        let waiting = self.waiting(name, listening()).await;
        let operator = operator(&[waiting.local_addr().to_string()]);
        let member = tokio::spawn(waiting.member());
        operator.init().await.unwrap();
        within(member).await.unwrap().unwrap()
    }

    /// One that is let in by that member.
    pub async fn join(&self, name: &str, by: &ClusterNode) -> ClusterNode {
        let address = by.local_addr().to_string();
        let token = operator(&[address.clone()]).create_token(None, "a test").await.unwrap().token;
        let waiting = self.waiting(name, joining(&[address], &token)).await;
        within(waiting.member()).await.unwrap()
    }
}

pub fn listening() -> ClusterConfig {
    ClusterConfig { listen: Some("127.0.0.1:0".parse().unwrap()), ..ClusterConfig::default() }
}

pub fn joining(addresses: &[String], token: &str) -> ClusterConfig {
    let join: Vec<Address> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    ClusterConfig { join, token: TokenSource::Given(token.parse().unwrap()), ..listening() }
}

pub fn operator(addresses: &[String]) -> Operator {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Operator::new(addresses, &NetConfig::default(), LIMIT).unwrap()
}

pub fn spawn(waiting: Waiting) -> JoinHandle<Result<ClusterNode, ClusterError>> {
    tokio::spawn(waiting.member())
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it takes too long")
}

/// Polls until a condition holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until all of these are voters and active members, as this one sees it.
pub async fn settled(node: &ClusterNode, members: &[u64]) {
    eventually("all are voters and active", async || {
        let voters: Vec<u64> = node.group().status.membership.voters.iter().map(|voter| voter.get()).collect();
        voters == members && !node.group().status.membership.is_joint() && active(node).await == members
    })
    .await;
}

/// The members that take part in full.
pub async fn active(node: &ClusterNode) -> Vec<u64> {
    let members = node.meta().local().members().list().await.unwrap();
    members.iter().filter(|member| member.state() == MemberState::Active).map(|member| member.id).collect()
}

pub async fn member(node: &ClusterNode, id: u64) -> Option<Member> {
    node.meta().members().get(NodeId::new(id)).await.unwrap()
}

/// The one of these that leads.
pub async fn leader<'a>(nodes: &[&'a ClusterNode]) -> &'a ClusterNode {
    let mut found = None;
    eventually("one of them leads", async || {
        found = nodes.iter().copied().find(|node| node.group().leader_node() == Some(node.membership().node));
        found.is_some()
    })
    .await;
    found.unwrap()
}
