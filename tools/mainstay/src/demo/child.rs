//! A node in a process of its own, which never outlives the demo.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinHandle;

/// How long a start may take, recovery included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a clean stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked whether it has stopped.
const STOP_POLL: Duration = Duration::from_millis(20);

/// What its standard output says first of what it says.
const READY: &str = "mainstay ready ";

/// A running node; killed when dropped.
pub struct Child {
    process: process::Child,
    log: PathBuf,
    /// The line with which it says that it is ready, or the end of its output.
    ready: Option<JoinHandle<io::Result<String>>>,
}

impl Child {
    /// Starts a node on the directory `home/name`, and does not wait for it. Its log goes to `home/name.log`.
    ///
    /// # Errors
    /// There is no process for it.
    pub fn spawn(home: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Child> {
        let log = home.join(format!("{name}.log"));
        let executable = std::env::current_exe().context("cannot find this executable")?;
        let mut process = Command::new(executable)
            .args(["start", "--sql-listen", "127.0.0.1:0", "--data-dir"])
            .arg(home.join(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(OpenOptions::new().create(true).append(true).open(&log)?)
            .spawn()
            .context("cannot start a node")?;
        let output = process.stdout.take();
        // From here on dropping it kills the process.
        let mut child = Child { process, log, ready: None };
        let output = output.context("the node has no standard output")?;
        child.ready = Some(tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(output).lines();
            let ready = lines.find(|line| line.as_ref().map_or(true, |line| line.starts_with(READY)));
            ready.unwrap_or_else(|| Ok(String::new()))
        }));
        Ok(child)
    }

    /// Waits until it says that it is ready; answers where it serves SQL. To be asked once.
    ///
    /// # Errors
    /// It did not start; the log says why.
    pub async fn ready(&mut self) -> anyhow::Result<String> {
        let reading = self.ready.take().context("it was asked before")?;
        let Ok(line) = tokio::time::timeout(START_LIMIT, reading).await else {
            bail!("the node was not ready after {} s", START_LIMIT.as_secs());
        };
        let line = line??;
        let address = line.strip_prefix(READY).and_then(|rest| rest.strip_prefix("sql=")?.split_whitespace().next());
        match address {
            Some(address) => Ok(address.to_owned()),
            None => bail!("the node did not start{}", last_line(&self.log)),
        }
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

/// Why a node ended, as far as its log says.
fn last_line(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log.lines().last().map(|line| format!(": {line}")).unwrap_or_default()
}
