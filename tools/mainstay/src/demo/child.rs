//! The node in a process of its own, which never outlives the demo.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

/// How long a start may take, recovery included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a clean stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked whether it has stopped.
const STOP_POLL: Duration = Duration::from_millis(20);

/// A running node; killed when dropped.
pub struct Child {
    process: process::Child,
    /// Where it serves SQL.
    pub address: String,
}

impl Child {
    /// Starts a node on `home/data` and waits until it says that it is ready. Its log goes to `home/node.log`.
    ///
    /// # Errors
    /// It did not start; the log says why.
    pub async fn start(home: &Path) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(home.join("node.log"))?;
        let executable = std::env::current_exe().context("cannot find this executable")?;
        let mut process = Command::new(executable)
            .args(["start", "--sql-listen", "127.0.0.1:0", "--data-dir"])
            .arg(home.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start a node")?;
        let output = process.stdout.take();
        // From here on dropping it kills the process.
        let mut child = Child { process, address: String::new() };
        let output = output.context("the node has no standard output")?;
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).map(|_| line)
        });
        let Ok(line) = tokio::time::timeout(START_LIMIT, reading).await else {
            bail!("the node was not ready after {} s", START_LIMIT.as_secs());
        };
        let line = line??;
        let address = line.strip_prefix("mainstay ready sql=").and_then(|rest| rest.split_whitespace().next());
        let Some(address) = address else {
            bail!("the node did not start{}", last_line_of_log(home));
        };
        child.address = address.to_owned();
        Ok(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends SIGKILL and waits until the process is gone.
    ///
    /// # Errors
    /// It could not be killed, or had ended by itself.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the node had stopped by itself: {status}");
        }
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for a clean end.
    ///
    /// # Errors
    /// It took too long or answered something other than success.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.process.id().to_string();
        if !Command::new("kill").args(["-TERM", &id]).status()?.success() {
            bail!("SIGTERM could not be sent to the node");
        }
        let waiting = async {
            loop {
                match self.process.try_wait()? {
                    Some(status) if status.success() => return Ok(()),
                    Some(status) => bail!("the node did not stop cleanly: {status}"),
                    None => tokio::time::sleep(STOP_POLL).await,
                }
            }
        };
        match tokio::time::timeout(STOP_LIMIT, waiting).await {
            Ok(result) => result,
            Err(_) => bail!("the node had not stopped {} s after SIGTERM", STOP_LIMIT.as_secs()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if the process is gone already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Why the node ended, as far as its log says.
fn last_line_of_log(home: &Path) -> String {
    let log = std::fs::read_to_string(home.join("node.log")).unwrap_or_default();
    log.lines().last().map(|line| format!(": {line}")).unwrap_or_default()
}
