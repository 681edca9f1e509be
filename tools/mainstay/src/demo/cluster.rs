//! The second act: three nodes form a cluster, clients write to its KV, and whoever leads the metadata is killed meanwhile and
//! comes back later.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mainstay::cluster::operator::Operator;
use mainstay::cluster::rpc::channel::Nodes;
use mainstay::cluster::rpc::client::Client;
use mainstay::net::{Address, NetConfig};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Progress;
use super::child::Child;
use super::keys::{self, Findings, Writers};

/// Nodes of the cluster.
const NODES: u64 = 3;
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at who leads.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a node may take to say who leads.
const LOOK_LIMIT: Duration = Duration::from_millis(200);

/// What was seen.
pub struct Act {
    /// The keys, counted at the end.
    pub findings: Findings,
    /// The longest time without an acknowledged write, over all clients.
    pub longest_gap: Duration,
    /// Which node led from when on, counted from the first write.
    pub reigns: Vec<(Duration, u64)>,
    /// How long clients were writing.
    pub writing: Duration,
}

/// A node of the cluster.
struct Member {
    number: u64,
    address: Address,
    /// Nothing while it is killed.
    process: Option<Child>,
}

impl Member {
    fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    fn spawn(&mut self, home: &Path, further: &[String]) -> anyhow::Result<()> {
        let mut arguments = vec!["--cluster-listen".to_owned(), self.address.to_string()];
        arguments.extend_from_slice(further);
        self.process = Some(Child::spawn(home, &self.name(), &arguments)?);
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<String> {
        self.process.as_mut().context("it does not run")?.ready().await
    }
}

/// All nodes.
struct Cluster {
    home: PathBuf,
    members: Vec<Member>,
}

impl Cluster {
    /// Starts the nodes and makes them one cluster.
    async fn form(home: &Path) -> anyhow::Result<Cluster> {
        let mut members = Vec::new();
        for number in 1..=NODES {
            members.push(Member { number, address: free_address()?, process: None });
        }
        let mut cluster = Cluster { home: home.to_owned(), members };
        let Some((first, others)) = cluster.members.split_first_mut() else { bail!("a cluster has nodes") };
        first.spawn(home, &[])?;
        let operator = Operator::new(vec![first.address.clone()], &NetConfig::default(), PATIENCE)?;
        operator.init().await?;
        first.ready().await?;
        for member in others {
            let token_file = home.join(format!("{}.token", member.name()));
            std::fs::write(&token_file, operator.create_token(None, "mainstay demo").await?.token)?;
            let further = ["--join", first.address.as_str(), "--join-token-file", &token_file.to_string_lossy()];
            member.spawn(home, &further.map(str::to_owned))?;
            member.ready().await?;
        }
        cluster.all_vote().await?;
        Ok(cluster)
    }

    /// A node that joined votes once it has caught up.
    async fn all_vote(&self) -> anyhow::Result<()> {
        let (client, deadline) = (self.client()?, Instant::now() + PATIENCE);
        loop {
            let status = client.status(deadline).await?;
            let voters = status.groups.iter().flat_map(|group| &group.replicas).filter(|replica| !replica.is_learner);
            if voters.count() as u64 == NODES {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not all nodes had a vote after {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A client with a connection of its own, of any node.
    fn client(&self) -> anyhow::Result<Arc<Client>> {
        let addresses = self.members.iter().map(|member| member.address.clone()).collect();
        Ok(Client::new(Nodes::new(addresses, &NetConfig::default())?))
    }

    fn member(&mut self, number: u64) -> anyhow::Result<&mut Member> {
        self.members.iter_mut().find(|member| member.number == number).context("there is no such node")
    }

    /// The rows are on node 1. To be seen apart, the metadata is led by another: node 1 is stopped for a moment.
    async fn leader_beside_the_rows(&mut self) -> anyhow::Result<u64> {
        let home = self.home.clone();
        let first = self.member(1)?;
        first.process.take().context("node 1 does not run")?.stop().await?;
        let deadline = Instant::now() + PATIENCE;
        let leader = loop {
            match leader(&*self.client()?).await {
                Some(leader) if leader != 1 => break leader,
                _ if Instant::now() > deadline => bail!("no other node led after {} s", PATIENCE.as_secs()),
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        let first = self.member(1)?;
        first.spawn(&home, &[])?;
        first.ready().await?;
        Ok(leader)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        for process in self.members.iter_mut().filter_map(|member| member.process.take()) {
            process.stop().await?;
        }
        Ok(())
    }
}

/// Runs the act.
///
/// # Errors
/// Something did not run.
pub async fn act(progress: &Progress, home: &Path, clients: u64, writing: Duration) -> anyhow::Result<Act> {
    let mut cluster = Cluster::form(home).await?;
    progress.say(&format!("{NODES} nodes are a cluster; node 1 has the rows"));
    let leader = cluster.leader_beside_the_rows().await?;
    let mut writers = Writers::new((0..clients).map(|_| cluster.client()).collect::<anyhow::Result<_>>()?);
    let (counter, began) = (writers.start(), Instant::now());
    let watch = Watch::start(cluster.client()?, began);

    let killed_after = progress.load(&counter, writing / 2, "keys").await;
    cluster.member(leader)?.process.take().context("the leader does not run")?.kill()?;
    progress
        .say(&format!("SIGKILL of node {leader}, which led the metadata, after {killed_after} acknowledged writes"));
    progress.load(&counter, writing / 4, "keys").await;
    let home = cluster.home.clone();
    let member = cluster.member(leader)?;
    member.spawn(&home, &[])?;
    member.ready().await?;
    progress.say(&format!("node {leader} is back"));
    progress.load(&counter, writing / 4, "keys").await;

    let (written, longest_gap) = writers.stop().await?;
    let reigns = watch.stop();
    let writing = began.elapsed();
    let findings = keys::check(&cluster.client()?, &written).await?;
    cluster.stop().await?;
    Ok(Act { findings, longest_gap, reigns, writing })
}

/// Looks who leads.
struct Watch {
    task: JoinHandle<()>,
    reigns: Arc<Mutex<Vec<(Duration, u64)>>>,
}

impl Watch {
    fn start(client: Arc<Client>, began: Instant) -> Watch {
        let reigns = Arc::<Mutex<Vec<(Duration, u64)>>>::default();
        let seen = Arc::clone(&reigns);
        let task = tokio::spawn(async move {
            loop {
                if let Some(leader) = leader(&client).await {
                    let mut seen = seen.lock();
                    if seen.last().is_none_or(|(_, last)| *last != leader) {
                        seen.push((began.elapsed(), leader));
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
        Watch { task, reigns }
    }

    fn stop(self) -> Vec<(Duration, u64)> {
        self.task.abort();
        std::mem::take(&mut *self.reigns.lock())
    }
}

/// Who leads the metadata, as the first node says that answers.
async fn leader(client: &Client) -> Option<u64> {
    let status = client.status(Instant::now() + LOOK_LIMIT).await.ok()?;
    status.groups.first().map(|group| group.leader).filter(|leader| *leader != 0)
}

fn free_address() -> anyhow::Result<Address> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string().parse()?)
}
