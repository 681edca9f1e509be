//! Real processes for the tests: started, watched, bounded in time, and never left behind.
//!
//! Every test binary compiles this module for itself and uses a part of it.
#![allow(dead_code)]

pub mod certificates;
pub mod contents;
pub mod dice;
pub mod ledger;
pub mod model;
pub mod programs;
pub mod raw;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Anything that takes longer is a failure.
pub const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// The settings under which a node makes many segments and checkpoints out of little data.
pub const SMALL: [&str; 6] =
    ["--wal-segment-size-bytes", "1MiB", "--checkpoint-wal-bytes", "1MiB", "--checkpoint-interval-s", "1s"];

/// Waits until a condition holds.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Random numbers (SplitMix64) whose seed is printed, and taken from `TEST_SEED` to run the same choices again.
pub struct Random(u64);

impl Random {
    pub fn new(test: &str) -> Random {
        let seed = match std::env::var("TEST_SEED") {
            Ok(seed) => seed.parse().expect("TEST_SEED is no number"),
            Err(_) => RandomState::new().hash_one(test),
        };
        println!("{test}: TEST_SEED={seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below that one.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A generator of its own for another thread.
    pub fn split(&mut self) -> Random {
        Random(self.next())
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A row as text; a missing value is `NULL`.
pub type Row = Vec<String>;

/// How a process ended and what it printed.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary, with no settings from the environment of whoever runs the tests.
pub fn mainstay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MAINSTAY_") {
            command.env_remove(name);
        }
    }
    piped(&mut command);
    command
}

/// Lets a test read what a command prints.
pub fn piped(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    let mut process = Guard(command.spawn().unwrap());
    let stdout = read_all(process.0.stdout.take().unwrap());
    let stderr = read_all(process.0.stderr.take().unwrap());
    let code = process.wait();
    Output { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Kills the process when a test ends early.
struct Guard(Child);

impl Guard {
    fn wait(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < LIMIT, "the process did not end within {LIMIT:?}");
            std::thread::sleep(POLL);
        }
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

/// A node that was started and has not been heard of yet.
pub struct Starting {
    process: Guard,
    begun: Instant,
    first_line: Receiver<String>,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
}

impl Starting {
    /// Starts a node on any free port.
    pub fn launch(data_dir: &Path, arguments: &[&str]) -> Starting {
        Starting::launch_at("127.0.0.1:0", data_dir, arguments)
    }

    /// Starts a node that listens there.
    pub fn launch_at(listen: &str, data_dir: &Path, arguments: &[&str]) -> Starting {
        let mut command = mainstay();
        command.args(["start", "--sql-listen", listen, "--data-dir"]).arg(data_dir).args(arguments);
        let begun = Instant::now();
        let mut process = Guard(command.spawn().unwrap());
        let stderr = read_all(process.0.stderr.take().unwrap());
        let mut output = BufReader::new(process.0.stdout.take().unwrap());
        let (sender, first_line) = channel();
        let stdout = spawn(move || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            let _ = sender.send(line);
            let mut rest = String::new();
            output.read_to_string(&mut rest).unwrap();
            rest
        });
        Starting { process, begun, first_line, stdout, stderr }
    }

    /// Waits for the ready line, or for the end of a node that refuses to start.
    pub fn ready(mut self) -> Result<Running, Output> {
        let ready = self.first_line.recv_timeout(LIMIT).expect("no ready line");
        let start_time = self.begun.elapsed();
        let Some(rest) = ready.strip_prefix("mainstay ready sql=") else {
            let code = self.process.wait();
            return Err(Output { code, stdout: ready, stderr: self.stderr.join().unwrap() });
        };
        let address = rest.split_whitespace().next().unwrap().to_owned();
        Ok(Running { process: self.process, ready, address, start_time, stdout: self.stdout, stderr: self.stderr })
    }

    /// Kills it after that time; answers whether that was before it was ready.
    pub fn kill_after(mut self, time: Duration) -> bool {
        let said = self.first_line.recv_timeout(time);
        assert!(self.process.0.try_wait().unwrap().is_none(), "it ended by itself: {}", self.stderr.join().unwrap());
        self.process.kill();
        let early = matches!(said, Err(RecvTimeoutError::Timeout));
        early && self.first_line.recv().is_ok_and(|line| line.is_empty())
    }
}

/// The end of a node that must refuse to start: exit status 1, and one line on standard error, which is answered.
pub fn refused(data_dir: &Path, arguments: &[&str]) -> String {
    let arguments = [&["--log-level", "off"], arguments].concat();
    match Starting::launch(data_dir, &arguments).ready() {
        Ok(_) => panic!("it started on {data_dir:?} with {arguments:?}"),
        Err(output) => one_clear_line(&output),
    }
}

/// What a process that could not run says: nothing on standard output, one line on standard error, exit status 1.
pub fn one_clear_line(output: &Output) -> String {
    println!("refused: {}", output.stderr.trim_end());
    let lines = output.stderr.lines().count();
    assert_eq!((output.code, output.stdout.as_str(), lines), (Some(1), "", 1), "{output:?}");
    assert!(!output.stderr.contains("panicked"), "{output:?}");
    output.stderr.clone()
}

/// A node that said it is ready.
pub struct Running {
    process: Guard,
    /// The ready line.
    pub ready: String,
    /// Where it serves SQL.
    pub address: String,
    /// From starting the process to its ready line.
    pub start_time: Duration,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
}

impl Running {
    /// Starts a node on any free port and waits for its ready line.
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Running {
        match Starting::launch(data_dir, arguments).ready() {
            Ok(node) => node,
            Err(output) => panic!("it did not start: {output:?}"),
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// The port on 127.0.0.1 where it serves SQL.
    pub fn port(&self) -> String {
        self.address.rsplit_once(':').unwrap().1.to_owned()
    }

    /// Whether its process is there.
    pub fn is_alive(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }

    /// Kills it with SIGKILL; answers its log.
    pub fn kill(mut self) -> String {
        assert!(self.is_alive(), "it ended before it was killed: {}", self.stderr.join().unwrap());
        self.process.kill();
        self.stderr.join().unwrap()
    }

    /// Runs SQL as a client of its own and answers its rows in their order, or the error.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        runtime().block_on(async {
            let client = connect(&self.address).await;
            let messages = tokio::time::timeout(LIMIT, client.simple_query(sql)).await.expect("no answer")?;
            Ok(messages.into_iter().filter_map(row).collect())
        })
    }

    /// Runs SQL that must succeed and answers its rows in their order.
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Runs SQL that must fail and answers the SQLSTATE.
    pub fn sqlstate(&self, sql: &str) -> String {
        match self.try_rows(sql) {
            Ok(rows) => panic!("{sql} succeeded: {rows:?}"),
            Err(error) => error.code().unwrap_or_else(|| panic!("{sql}: {error:?}")).code().to_owned(),
        }
    }

    /// Runs SQL and answers its rows as a set.
    pub fn query(&self, sql: &str) -> BTreeSet<Row> {
        self.rows(sql).into_iter().collect()
    }

    /// Starts SQL that nobody waits for.
    pub fn query_in_background(&self, sql: &'static str) {
        let address = self.address.clone();
        let (sender, started) = channel();
        spawn(move || {
            runtime().block_on(async {
                let client = connect(&address).await;
                client.simple_query("SELECT 1").await.unwrap();
                sender.send(()).unwrap();
                client.simple_query(sql).await.unwrap_err();
            });
        });
        started.recv_timeout(LIMIT).unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let id = self.process.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
    }

    /// Sends a signal again and again until the process has ended.
    pub fn insist(mut self, signal: &str) -> Output {
        while self.process.0.try_wait().unwrap().is_none() {
            self.signal(signal);
            std::thread::sleep(POLL);
        }
        self.ended()
    }

    /// Sends a signal and waits for the end.
    pub fn stop(self, signal: &str) -> Output {
        self.signal(signal);
        self.ended()
    }

    /// Waits for the end; `stdout` is what followed the ready line.
    pub fn ended(mut self) -> Output {
        let code = self.process.wait();
        Output { code, stdout: self.stdout.join().unwrap(), stderr: self.stderr.join().unwrap() }
    }
}

/// A runtime for one thread of a test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// How to connect to the node at an address.
pub fn settings(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap();
    format!("host={host} port={port} user=postgres dbname=postgres")
}

/// Connects a client.
pub async fn try_connect(address: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&settings(address), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Connects a client that must be let in.
pub async fn connect(address: &str) -> tokio_postgres::Client {
    try_connect(address).await.unwrap()
}

/// The row in a message, if it is one.
pub fn row(message: SimpleQueryMessage) -> Option<Row> {
    match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or("NULL").to_owned()).collect())
        }
        _ => None,
    }
}

/// Moves a folder or file away from where a node looks for it.
pub fn set_aside(path: &Path) -> PathBuf {
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    aside
}

/// Exchanges two folders.
pub fn exchange(one: &Path, other: &Path) {
    let aside = set_aside(one);
    std::fs::rename(other, one).unwrap();
    std::fs::rename(aside, other).unwrap();
}

/// Clients that insert `(client, number)` into the table `t` until the node goes away.
pub struct Load {
    rows: Receiver<Row>,
    seen: std::cell::RefCell<BTreeSet<Row>>,
}

/// Starts that many clients.
pub fn load(address: &str, clients: u32) -> Load {
    let (sender, rows) = channel();
    for client in 0..clients {
        let (address, sender) = (address.to_owned(), sender.clone());
        spawn(move || insert_until_refused(&address, client, &sender));
    }
    Load { rows, seen: Default::default() }
}

fn insert_until_refused(address: &str, client: u32, acknowledged: &Sender<Row>) {
    runtime().block_on(async {
        let connection = connect(address).await;
        for number in 0_u64.. {
            let sql = format!("INSERT INTO t (client, number) VALUES ({client}, {number})");
            if connection.simple_query(&sql).await.is_err() {
                return;
            }
            if acknowledged.send(vec![client.to_string(), number.to_string()]).is_err() {
                return;
            }
        }
    });
}

impl Load {
    /// Waits until that many rows were acknowledged.
    pub fn wait_for_rows(&self, count: usize) {
        let mut seen = self.seen.borrow_mut();
        while seen.len() < count {
            seen.insert(self.rows.recv_timeout(LIMIT).expect("the load came to a stop"));
        }
    }

    /// Waits until all clients were refused, and answers every row that was acknowledged.
    pub fn end(self) -> BTreeSet<Row> {
        let mut seen = self.seen.into_inner();
        seen.extend(self.rows.iter());
        seen
    }
}
