//! Three real processes of the example, on loopback, each in a directory of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};

use crate::hosts::{HOSTS, Hosts, address};
use crate::proto::kv_client::KvClient;
use crate::proto::{PutRequest, StatusRequest, StatusResponse};
use crate::register::History;

/// How long anything may take that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Cluster {
    directory: tempfile::TempDir,
    raft: Vec<String>,
    clients: Vec<String>,
    processes: Vec<Option<Child>>,
    /// The first so many nodes found the group; the others join it.
    founders: usize,
    /// What every node is told besides.
    options: Vec<String>,
    /// The network namespace of each node; none: they share ours.
    hosts: Option<Hosts>,
}

impl Cluster {
    pub fn start(size: usize) -> Cluster {
        Cluster::with_spares(size, 0)
    }

    /// The founders run; there is room for as many more.
    pub fn with_spares(founders: usize, spares: usize) -> Cluster {
        Cluster::with_options(founders, spares, &[])
    }

    /// The same, and every node is told more.
    pub fn with_options(founders: usize, spares: usize, options: &[&str]) -> Cluster {
        let size = founders + spares;
        // Held until all are chosen, so that no port is chosen twice.
        let listeners: Vec<TcpListener> = (0..2 * size).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut addresses: Vec<String> =
            listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        drop(listeners);
        let clients = addresses.split_off(size);
        let processes = (0..size).map(|_| None).collect();
        let directory = tempfile::tempdir().unwrap();
        let options = options.iter().map(ToString::to_string).collect();
        let mut cluster = Cluster { directory, raft: addresses, clients, processes, founders, options, hosts: None };
        for node in 0..founders {
            cluster.restart(node);
        }
        cluster
    }

    /// Each node on a host of its own.
    pub fn start_on(hosts: Hosts) -> Cluster {
        let addresses = |port: u16| (0..HOSTS).map(|node| format!("{}:{port}", address(node))).collect();
        let mut cluster = Cluster {
            directory: tempfile::tempdir().unwrap(),
            raft: addresses(7100),
            clients: addresses(7200),
            processes: (0..HOSTS).map(|_| None).collect(),
            founders: HOSTS,
            options: Vec::new(),
            hosts: Some(hosts),
        };
        for node in 0..HOSTS {
            cluster.restart(node);
        }
        cluster
    }

    pub fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().unwrap()
    }

    pub fn size(&self) -> usize {
        self.processes.len()
    }

    pub fn data(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("node{}", node + 1))
    }

    pub fn restart(&mut self, node: usize) {
        let mut command = match &self.hosts {
            None => Command::new(example()),
            Some(hosts) => {
                let mut command = hosts.command(node);
                command.arg(example()).args(["--allow-plaintext", "yes"]);
                command
            }
        };
        command.args(["serve", "--node", &(node + 1).to_string(), "--raft", &self.raft[node]]);
        command.args(["--clients", &self.clients[node], "--data"]).arg(self.data(node));
        for (peer, address) in self.raft.iter().enumerate() {
            let option = if peer < self.founders { "--peer" } else { "--known" };
            command.args([option, &format!("{}={address}", peer + 1)]);
        }
        if node >= self.founders {
            command.args(["--join", "yes"]);
        }
        command.args(&self.options);
        let path = self.directory.path().join(format!("node{}.log", node + 1));
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        command.stdout(Stdio::from(log.try_clone().unwrap())).stderr(Stdio::from(log));
        self.processes[node] = Some(command.spawn().unwrap());
    }

    pub fn is_running(&self, node: usize) -> bool {
        self.processes[node].is_some()
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        let mut process = self.processes[node].take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn signal(&self, node: usize, name: &str) {
        let process = self.processes[node].as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    }

    pub fn client(&self, node: usize) -> KvClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.clients[node])).unwrap();
        KvClient::new(endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(6)).connect_lazy())
    }

    pub async fn status(&self, node: usize) -> Option<StatusResponse> {
        let mut client = self.client(node);
        let asked = client.status(StatusRequest::default());
        let answered = tokio::time::timeout(Duration::from_secs(1), asked).await;
        Some(answered.ok()?.ok()?.into_inner())
    }

    /// The node, from 0, that says that it leads in the highest term.
    pub async fn leader(&self) -> Option<usize> {
        let mut best: Option<StatusResponse> = None;
        for node in 0..self.size() {
            if self.processes[node].is_none() {
                continue;
            }
            let Some(status) = self.status(node).await else { continue };
            if status.leader == status.node && best.as_ref().is_none_or(|best| status.term > best.term) {
                best = Some(status);
            }
        }
        best.map(|status| status.node as usize - 1)
    }

    pub async fn await_leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.leader().await {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns once a write was acknowledged by any node.
    pub async fn await_write(&self) {
        let running: Vec<usize> = (0..self.size()).filter(|node| self.processes[*node].is_some()).collect();
        self.await_write_by(&running).await;
    }

    /// Returns once a write was acknowledged by one of these nodes.
    pub async fn await_write_by(&self, nodes: &[usize]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for node in nodes.iter().copied() {
                let put = PutRequest { key: b"probe".into(), value: b"probe".into(), client: 0, sequence: 0 };
                let mut client = self.client(node);
                let answered = tokio::time::timeout(Duration::from_secs(1), client.put(put)).await;
                if matches!(answered, Ok(Ok(_))) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "nothing is acknowledged any more:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns once a node has applied what another had when this was called.
    pub async fn await_caught_up(&self, node: usize, with: usize) {
        let goal = self.status(with).await.map_or(0, |status| status.applied);
        let deadline = Instant::now() + PATIENCE;
        while self.status(node).await.is_none_or(|status| status.applied < goal) {
            assert!(Instant::now() < deadline, "node {} does not catch up:\n{}", node + 1, self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns once so many more writes of clients were acknowledged.
    pub async fn await_clients(&self, history: &History, more: u64) {
        let acknowledged = || history.acknowledged.load(Ordering::SeqCst);
        let (goal, deadline) = (acknowledged() + more, Instant::now() + PATIENCE);
        while acknowledged() < goal {
            assert!(Instant::now() < deadline, "the clients do not get on:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lines of a node's log that say something.
    pub fn count_in_log(&self, node: usize, what: &str) -> usize {
        let path = self.directory.path().join(format!("node{}.log", node + 1));
        std::fs::read_to_string(path).unwrap_or_default().lines().filter(|line| line.contains(what)).count()
    }

    pub fn logs(&self) -> String {
        let read = |node: &usize| {
            let path = self.directory.path().join(format!("node{}.log", node + 1));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(10).collect();
            format!("node {}: {}\n", node + 1, tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        (0..self.size()).map(|node| read(&node)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            // One that has ended needs no end.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Cargo builds examples before it runs tests, two folders above ours.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let example = target.join("examples/raft_kv");
    assert!(example.exists(), "{} was not built", example.display());
    example
}
