//! The contestants: three nodes of the binary `mainstay` that are a cluster, and three of etcd.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mainstay::cluster::operator::Operator;
use mainstay::cluster::rpc::channel::Nodes;
use mainstay::cluster::rpc::client::Client;
use mainstay::meta::client::Meta;
use mainstay::net::{Address, NetConfig};
use tonic::transport::{Channel, Endpoint};

use crate::common::{etcd, free_addresses};

/// Nodes of each contestant.
pub const NODES: usize = 3;
/// How long something may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Ours. Nodes are counted from 0; the cluster numbers them from 1, in the same order.
pub struct Members {
    directory: PathBuf,
    addresses: Vec<Address>,
    processes: Vec<Option<Child>>,
}

impl Members {
    /// Starts three nodes that become a cluster.
    ///
    /// # Errors
    /// They do not.
    pub async fn start(directory: PathBuf) -> anyhow::Result<Members> {
        std::fs::create_dir_all(&directory)?;
        let mut members = Members { directory, addresses: Vec::new(), processes: Vec::new() };
        members.add(None)?;
        let first = members.operator()?;
        patiently("the first node waits for a cluster", || async { first.describe().await.ok() }).await?;
        first.init().await?;
        for _ in 1..NODES {
            members.join().await?;
        }
        Ok(members)
    }

    fn operator(&self) -> anyhow::Result<Operator> {
        Ok(Operator::new(self.addresses.iter().take(1).cloned().collect(), &NetConfig::default(), PATIENCE)?)
    }

    fn add(&mut self, token: Option<&str>) -> anyhow::Result<usize> {
        let node = self.processes.len();
        self.addresses.extend(free_addresses(1)?.iter().map(|address| address.parse()).collect::<Result<Vec<_>, _>>()?);
        self.processes.push(None);
        self.spawn(node, token)?;
        Ok(node)
    }

    /// Starts one more node and waits until it is a voter; answers how long that took.
    ///
    /// # Errors
    /// It does not become one.
    pub async fn join(&mut self) -> anyhow::Result<Duration> {
        let token = self.operator()?.create_token(None, "benchmark").await?.token;
        let begun = Instant::now();
        let node = self.add(Some(&token))?;
        let client = self.client(0)?;
        patiently("the node that joined votes", || async {
            let status = client.status(Instant::now() + PATIENCE).await.ok()?;
            let replicas = &status.groups.first()?.replicas;
            replicas.iter().any(|replica| replica.node == node as u64 + 1 && !replica.is_learner).then_some(())
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Starts a node that was there before.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        self.spawn(node, None)
    }

    fn spawn(&mut self, node: usize, token: Option<&str>) -> anyhow::Result<()> {
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
        let mut command = Command::new(Path::new(&target).join("release/mainstay"));
        command.args(["start", "--log-level", "warn", "--sql-listen", "127.0.0.1:0"]);
        command.args(["--cluster-listen", self.addresses[node].as_str()]);
        command.arg("--data-dir").arg(self.directory.join(node.to_string()));
        if let Some(token) = token {
            command.args(["--join", self.addresses[0].as_str()]).env("MAINSTAY_JOIN_TOKEN", token);
        }
        let log = File::options().append(true).create(true).open(self.directory.join(format!("{node}.log")))?;
        let process = command.stdout(Stdio::null()).stderr(log).spawn();
        self.processes[node] = Some(process.with_context(|| format!("cannot run {command:?}; make build makes it"))?);
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        let mut process = self.processes[node].take().context("the node is not running")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// A client with a connection of its own, that asks this node first.
    ///
    /// # Errors
    /// Its address is none.
    pub fn client(&self, first: usize) -> anyhow::Result<Arc<Client>> {
        let mut addresses = self.addresses.clone();
        addresses.rotate_left(first);
        Ok(Client::new(Nodes::new(addresses, &NetConfig::default())?))
    }

    /// The node that leads.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        patiently("a node leads", || async {
            for node in 0..self.processes.len() {
                let client = Client::new(Nodes::new(vec![self.addresses[node].clone()], &NetConfig::default()).ok()?);
                let Ok(status) = client.status(Instant::now() + LOOK_AGAIN * 20).await else { continue };
                let leads = status.groups.first().is_some_and(|group| group.leader == node as u64 + 1);
                if leads && client.meta("benchmark").kv().put("probe", "probe").await.is_ok() {
                    return Some(node);
                }
            }
            None
        })
        .await
    }

    /// Clients of the node that leads.
    ///
    /// # Errors
    /// There is none.
    pub async fn clients(&self, count: usize) -> anyhow::Result<Vec<Meta>> {
        let leader = self.leader().await?;
        (0..count).map(|_| Ok(self.client(leader)?.meta("benchmark"))).collect()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        stop(&mut self.processes);
    }
}

/// Etcd's.
pub struct Etcd {
    clients: Vec<String>,
    processes: Vec<Option<Child>>,
}

impl Etcd {
    /// Starts three members.
    ///
    /// # Errors
    /// They do not start.
    pub async fn start(directory: &Path) -> anyhow::Result<Etcd> {
        std::fs::create_dir_all(directory)?;
        let mut peers = free_addresses(2 * NODES)?;
        let mut started = Etcd { clients: peers.split_off(NODES), processes: Vec::new() };
        for node in 0..NODES {
            let mut command = etcd::command(directory, node, &peers, &started.clients);
            let log = File::create(directory.join(format!("{node}.log")))?;
            let process = command.stdout(Stdio::null()).stderr(log).spawn().context("cannot run etcd")?;
            started.processes.push(Some(process));
        }
        started.leader().await?;
        Ok(started)
    }

    async fn leader(&self) -> anyhow::Result<&String> {
        patiently("a member of etcd leads", || async {
            for address in &self.clients {
                if etcd::leads(address).await.unwrap_or(false) {
                    return Some(address);
                }
            }
            None
        })
        .await
    }

    /// Connections to the member that leads.
    ///
    /// # Errors
    /// There is none.
    pub async fn connections(&self, count: usize) -> anyhow::Result<Vec<Channel>> {
        let leader = self.leader().await?;
        (0..count).map(|_| Ok(Endpoint::from_shared(format!("http://{leader}"))?.connect_lazy())).collect()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        stop(&mut self.processes);
    }
}

fn stop(processes: &mut [Option<Child>]) {
    for process in processes.iter_mut().flatten() {
        // One that has ended needs no end.
        let _ = process.kill();
        let _ = process.wait();
    }
}

async fn patiently<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("not within {} s: {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
