//! Three processes of each contestant, on loopback, in directories of the same file system.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// What `examples/raft_kv` says.
pub mod kv {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    tonic::include_proto!("raft_kv");
}
use crate::batching::Batching;
use crate::common::{etcd, free_addresses};
use etcd::proto::kv_client::KvClient as EtcdClient;
use kv::kv_client::KvClient;

/// Nodes of each contestant.
pub const NODES: usize = 3;
/// How long a server may take until it serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client's connection.
#[derive(Clone)]
pub enum Client {
    /// To ours.
    Ours(KvClient<Channel>),
    /// To ours; its clones share requests.
    Batching(Batching),
    /// To etcd.
    Etcd(EtcdClient<Channel>),
}

impl Client {
    /// Sets a key.
    ///
    /// # Errors
    /// What the server says.
    pub async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Status> {
        match self {
            Client::Ours(client) => client.put(kv::PutRequest { key, value, client: 0, sequence: 0 }).await.map(drop),
            Client::Batching(client) => client.put(key, value).await,
            Client::Etcd(client) => client.put(etcd::proto::PutRequest { key, value }).await.map(drop),
        }
    }

    /// Reads a key, linearizably.
    ///
    /// # Errors
    /// What the server says.
    pub async fn get(&mut self, key: Vec<u8>) -> Result<(), Status> {
        match self {
            Client::Ours(client) => client.get(kv::GetRequest { key }).await.map(drop),
            Client::Batching(_) => Err(Status::unimplemented("reads are not gathered")),
            Client::Etcd(client) => client.range(etcd::proto::RangeRequest { key }).await.map(drop),
        }
    }
}

/// Three processes.
pub struct Servers {
    is_ours: bool,
    directory: PathBuf,
    clients: Vec<String>,
    peers: Vec<String>,
    processes: Vec<Option<Child>>,
}

impl Servers {
    /// Starts three of ours, or of etcd, and waits for a leader.
    ///
    /// # Errors
    /// They do not start.
    pub async fn start(is_ours: bool, directory: PathBuf) -> anyhow::Result<Servers> {
        std::fs::create_dir_all(&directory)?;
        let mut addresses = free_addresses(2 * NODES)?;
        let clients = addresses.split_off(NODES);
        let processes = (0..NODES).map(|_| None).collect();
        let mut servers = Servers { is_ours, directory, clients, peers: addresses, processes };
        for node in 0..NODES {
            servers.spawn(node)?;
        }
        servers.leader().await?;
        Ok(servers)
    }

    /// Starts one of them.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn(&mut self, node: usize) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.directory.join(format!("{node}.log")))?;
        let mut command = if self.is_ours {
            self.ours(node)?
        } else {
            etcd::command(&self.directory, node, &self.peers, &self.clients)
        };
        let process = command.stdout(Stdio::null()).stderr(Stdio::from(log)).spawn();
        self.processes[node] = Some(process.with_context(|| format!("cannot start {command:?}"))?);
        Ok(())
    }

    fn ours(&self, node: usize) -> anyhow::Result<Command> {
        let mut command = Command::new(example()?);
        command.args(["serve", "--node", &(node + 1).to_string(), "--raft", &self.peers[node]]);
        command.args(["--clients", &self.clients[node], "--data"]).arg(self.directory.join(node.to_string()));
        for (peer, address) in self.peers.iter().enumerate() {
            let option = if peer < NODES { "--peer" } else { "--known" };
            command.args([option, &format!("{}={address}", peer + 1)]);
        }
        if node >= NODES {
            command.args(["--join", "yes"]);
        }
        Ok(command)
    }

    /// Starts one more of ours, which waits to be added, and tells the others where it is.
    ///
    /// # Errors
    /// It does not start, or one of the others does not answer.
    pub async fn join(&mut self) -> anyhow::Result<usize> {
        let joiner = self.processes.len();
        let [peer, client] = free_addresses(2)?.try_into().map_err(|_| anyhow::anyhow!("no two addresses"))?;
        self.peers.push(peer);
        self.clients.push(client);
        self.processes.push(None);
        self.spawn(joiner)?;
        for node in 0..NODES {
            self.member(node, kv::member_request::Action::Introduce, joiner).await?;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.status(joiner).await.is_none() {
            if Instant::now() > deadline {
                bail!("the node that joins does not answer; see {}", self.directory.display());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(joiner)
    }

    /// Asks a node of ours for a change of who takes part.
    ///
    /// # Errors
    /// What it says.
    pub async fn member(
        &self,
        node: usize,
        action: kv::member_request::Action,
        member: usize,
    ) -> anyhow::Result<kv::MemberResponse> {
        let Client::Ours(mut client) = self.client(node)? else { bail!("only ours is asked so") };
        let address = self.peers[member].clone();
        let request = kv::MemberRequest {
            action: action.into(),
            node: member as u64 + 1,
            address,
            ..kv::MemberRequest::default()
        };
        Ok(client.member(request).await?.into_inner())
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

    /// A connection to a node.
    ///
    /// # Errors
    /// Its address is none.
    pub fn client(&self, node: usize) -> anyhow::Result<Client> {
        let channel = Endpoint::from_shared(format!("http://{}", self.clients[node]))?.connect_lazy();
        Ok(match self.is_ours {
            true => Client::Ours(KvClient::new(channel)),
            false => Client::Etcd(EtcdClient::new(channel)),
        })
    }

    /// A connection to a node of ours that gathers what its clones put.
    ///
    /// # Errors
    /// Its address is none, or these are not ours.
    pub fn batching_client(&self, node: usize) -> anyhow::Result<Client> {
        match self.client(node)? {
            Client::Ours(client) => Ok(Client::Batching(Batching::new(client))),
            _ => bail!("only ours takes many puts in a request"),
        }
    }

    /// How one of ours stands.
    pub async fn status(&self, node: usize) -> Option<kv::StatusResponse> {
        let Ok(Client::Ours(mut client)) = self.client(node) else { return None };
        let asked = tokio::time::timeout(Duration::from_millis(500), client.status(kv::StatusRequest::default()));
        Some(asked.await.ok()?.ok()?.into_inner())
    }

    /// The node that leads. Of etcd any, as soon as it takes writes: each forwards to its leader; the client of `etcdctl`
    /// does no better.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for node in (0..NODES).filter(|node| self.processes[*node].is_some()) {
                let leads = match self.is_ours {
                    true => self.status(node).await.is_some_and(|status| status.leader == node as u64 + 1),
                    false => etcd::leads(&self.clients[node]).await?,
                };
                if leads && self.client(node)?.put(b"probe".into(), b"probe".into()).await.is_ok() {
                    return Ok(node);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("nobody leads; see {}", self.directory.display())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            // One that has ended needs no end.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn example() -> anyhow::Result<PathBuf> {
    let bench = std::env::current_exe()?;
    let target = bench.parent().and_then(Path::parent).context("no target directory")?;
    let example = target.join("examples/raft_kv");
    if !example.exists() {
        bail!("{} is not built: run `make bench BENCH=raft`", example.display());
    }
    Ok(example)
}
