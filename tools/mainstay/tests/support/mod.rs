//! Real processes for the tests: started, watched, bounded in time, and never left behind.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Anything that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// A row as text.
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
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
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
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

/// A node that said it is ready.
pub struct Running {
    process: Guard,
    /// The ready line.
    pub ready: String,
    /// Where it serves SQL.
    pub address: String,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
}

impl Running {
    /// Starts a node on any free port and waits for its ready line.
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Running {
        let mut command = mainstay();
        command.args(["start", "--sql-listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir).args(arguments);
        let mut process = Guard(command.spawn().unwrap());
        let stderr = read_all(process.0.stderr.take().unwrap());
        let mut output = BufReader::new(process.0.stdout.take().unwrap());
        let (sender, receiver) = channel();
        let stdout = spawn(move || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            sender.send(line).unwrap();
            let mut rest = String::new();
            output.read_to_string(&mut rest).unwrap();
            rest
        });
        let ready = receiver.recv_timeout(LIMIT).expect("no ready line");
        let Some(rest) = ready.strip_prefix("mainstay ready sql=") else {
            let code = process.wait();
            panic!("it did not start: {code:?} {ready:?} {}", stderr.join().unwrap());
        };
        let address = rest.split_whitespace().next().unwrap().to_owned();
        Running { process, ready, address, stdout, stderr }
    }

    /// Runs SQL and answers its rows.
    pub fn query(&self, sql: &str) -> BTreeSet<Row> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = connect(&self.address).await;
            let messages = client.simple_query(sql).await.unwrap();
            let rows = messages.into_iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|column| row.get(column).unwrap_or("NULL").to_owned()).collect())
                }
                _ => None,
            });
            rows.collect()
        })
    }

    /// Starts SQL that nobody waits for.
    pub fn query_in_background(&self, sql: &'static str) {
        let address = self.address.clone();
        let (sender, started) = channel();
        spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
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
    fn ended(mut self) -> Output {
        let code = self.process.wait();
        Output { code, stdout: self.stdout.join().unwrap(), stderr: self.stderr.join().unwrap() }
    }
}

async fn connect(address: &str) -> tokio_postgres::Client {
    let (host, port) = address.rsplit_once(':').unwrap();
    let config = format!("host={host} port={port} user=postgres dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
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
