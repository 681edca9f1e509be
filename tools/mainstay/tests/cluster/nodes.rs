//! Nodes of a cluster as processes.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use mainstay::cluster::rpc::channel::Nodes;
use mainstay::cluster::rpc::client::Client;
use mainstay::cluster::rpc::proto::RaftGroup;
use mainstay::meta::client::Meta;
use mainstay::meta::proto::{Member, MemberState};
use mainstay::net::NetConfig;
use tokio_postgres::SimpleQueryMessage;

use crate::support::{LIMIT, Output, eventually, mainstay, run, runtime};

/// How long commands wait that have to succeed, and are not about waiting: somewhat less than [`LIMIT`], after which they are
/// killed.
const PATIENCE: &str = "25s";
/// How long a process may go on after a signal, or after it has failed.
const POLL: Duration = Duration::from_millis(5);

/// Where nodes listen for each other: any port. Where loopback is a whole network, each test has an address of its own there:
/// nobody else listens on it, and no connection begins on it, so that a port is still free when its node comes back.
pub static LISTEN: LazyLock<String> = LazyLock::new(|| {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    match cfg!(target_os = "linux") {
        true => format!("127.{}.{middle}.{low}:0", 64 + high % 64),
        false => "127.0.0.1:0".to_owned(),
    }
});

/// Directories, and addresses that nobody else has.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts a node on this directory, on free ports.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Node {
        Node::launch(&self.path(name), arguments)
    }

    /// A cluster's first member.
    pub fn form(&self, name: &str) -> Node {
        let mut node = self.start(name, &["--cluster-listen", &LISTEN]);
        let address = node.waiting();
        let formed = run(mainstay().args(["cluster", "init", "--addr", &address, "--timeout", PATIENCE]));
        assert_eq!(formed.code, Some(0), "{formed:?}");
        assert!(formed.stdout.contains("its first member is node 1"), "{formed:?}");
        node.ready();
        node
    }

    /// A node that asks the member to be let in; not yet ready.
    pub fn joining(&self, name: &str, by: &Node) -> Node {
        let token = token(&by.cluster);
        self.start_with_token(name, &["--cluster-listen", &LISTEN, "--join", &by.cluster], &token)
    }

    pub fn start_with_token(&self, name: &str, arguments: &[&str], token: &str) -> Node {
        let mut command = command(&self.path(name), arguments);
        // Where `ps` does not show it.
        command.env("MAINSTAY_JOIN_TOKEN", token);
        Node::spawn(command)
    }

    pub fn join(&self, name: &str, by: &Node) -> Node {
        let mut node = self.joining(name, by);
        node.ready();
        node
    }
}

/// Addresses of loopback that are free now.
pub fn free_addresses(count: usize) -> Vec<String> {
    let ports: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind(LISTEN.as_str()).unwrap()).collect();
    ports.iter().map(|port| port.local_addr().unwrap().to_string()).collect()
}

/// Makes a join token.
pub fn token(address: &str) -> String {
    let made = run(mainstay().args(["cluster", "token", "create", "--addr", address, "--timeout", PATIENCE]));
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stderr.contains("lets one node in, once"), "{made:?}");
    made.stdout.trim().to_owned()
}

pub fn remove(address: &str, node: u64) -> Output {
    run(mainstay().args(["cluster", "remove", &node.to_string(), "--addr", address]))
}

fn command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = mainstay();
    command.args(["start", "--sql-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data_dir).args(arguments).args(["--wal-segment-size-bytes", "1MiB"]);
    command
}

/// A node's process. Killed when it is dropped.
pub struct Node {
    process: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    /// Where clients connect, once it is ready.
    pub sql: String,
    /// Where it tells health.
    pub http: String,
    /// Where it listens for other nodes.
    pub cluster: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    pub fn launch(data_dir: &Path, arguments: &[&str]) -> Node {
        Node::spawn(command(data_dir, arguments))
    }

    fn spawn(mut command: Command) -> Node {
        let mut process = command.spawn().unwrap();
        let mut errors = process.stderr.take().unwrap();
        let stderr = spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let (sql, http, cluster) = Default::default();
        Node { process, lines, stderr: Some(stderr), sql, http, cluster }
    }

    /// Waits for its next line, which must be of that kind.
    fn line(&mut self, kind: &str) {
        let Ok(line) = self.lines.recv_timeout(LIMIT) else {
            let _ = self.process.kill();
            panic!("no line that it is {kind}: {}", self.stderr.take().unwrap().join().unwrap());
        };
        assert!(line.starts_with(&format!("mainstay {kind}")), "{line}");
        self.take(&line);
    }

    fn take(&mut self, line: &str) {
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            match name {
                "sql" => self.sql = value.to_owned(),
                "http" => self.http = value.to_owned(),
                "cluster" => self.cluster = value.to_owned(),
                _ => {}
            }
        }
    }

    /// Waits until it says that it waits; answers where for other nodes.
    pub fn waiting(&mut self) -> String {
        self.line("waiting");
        self.cluster.clone()
    }

    /// Waits until it is ready, whether it says before that it waits or not.
    pub fn ready(&mut self) {
        while self.sql.is_empty() {
            self.line("");
        }
    }

    /// Takes what it said meanwhile.
    pub fn poll_ready(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.take(&line);
        }
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to stop, and waits for that.
    pub fn stop(self) -> Output {
        self.signal("-TERM");
        self.ended()
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Output {
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status.code();
            }
            assert!(begun.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(POLL);
        };
        let stdout = self.lines.try_iter().collect();
        Output { code, stdout, stderr: self.stderr.take().unwrap().join().unwrap() }
    }

    /// The status and body of an answer over HTTP.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\n"))
    }

    /// The same of a request that shows a token.
    pub fn post(&self, path: &str, token: &str) -> (u16, String) {
        self.ask(&format!("POST {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"))
    }

    fn ask(&self, head: &str) -> (u16, String) {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(&self.http).unwrap();
        write!(stream, "{head}Host: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }
}

/// The typed client, over any of these.
pub fn meta(addresses: &[&str]) -> Meta {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Client::new(Nodes::new(addresses, &NetConfig::default()).unwrap()).meta("a test").within(Duration::from_secs(5))
}

/// How the metadata group stands on the first of these that answers.
pub fn group(addresses: &[&str]) -> Option<RaftGroup> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let client = Client::new(Nodes::new(addresses, &NetConfig::default()).unwrap());
    let status = runtime().block_on(async { client.status(Instant::now() + LIMIT).await.ok() })?;
    status.groups.into_iter().next()
}

/// Who leads, as the first of these knows that answers.
pub fn leader(addresses: &[&str]) -> Option<u64> {
    group(addresses).map(|group| group.leader).filter(|leader| *leader != 0)
}

/// The members, as any of these knows them after it asked the leader.
pub fn members(addresses: &[&str]) -> Option<Vec<Member>> {
    runtime().block_on(async { meta(addresses).members().list().await.ok() })
}

/// Waits until these are the active members, and no others are there.
pub fn settled(addresses: &[&str], expected: &[u64]) {
    let mut last = None;
    eventually(&format!("{expected:?} are the active members"), LIMIT, || {
        last = members(addresses);
        last.as_ref().is_some_and(|members| {
            let active = members.iter().all(|member| member.state() == MemberState::Active);
            active && members.iter().map(|member| member.id).collect::<Vec<_>>() == expected
        })
    });
}

pub fn put(addresses: &[&str], key: &str, value: &str) {
    runtime().block_on(async { meta(addresses).within(LIMIT).kv().put(key, value).await.unwrap() });
}

pub fn value(addresses: &[&str], key: &str) -> Option<Vec<u8>> {
    let got = runtime().block_on(async { meta(addresses).within(LIMIT).kv().get(key).await.unwrap() });
    got.map(|pair| pair.value)
}

/// What a statement comes to, which must be something: one that hangs is named.
fn answer(sql_address: &str, statement: &str) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
    let asked = async { crate::support::connect(sql_address).await.simple_query(statement).await };
    let answered = runtime().block_on(async { tokio::time::timeout(LIMIT, asked).await });
    answered.unwrap_or_else(|_| panic!("no answer within {LIMIT:?}: {statement}"))
}

/// The SQLSTATE, message and hint of what a statement fails with.
pub fn refusal(sql_address: &str, statement: &str) -> (String, String, Option<String>) {
    let error = answer(sql_address, statement).unwrap_err();
    let error = error.as_db_error().unwrap();
    (error.code().code().to_owned(), error.message().to_owned(), error.hint().map(str::to_owned))
}

pub fn execute(sql_address: &str, statement: &str) -> Vec<crate::support::Row> {
    answer(sql_address, statement).unwrap().into_iter().filter_map(crate::support::row).collect()
}
