//! `mainstay demo`, in two acts. The first: a real node in a process of its own, clients that write rows to it, SIGKILL in the
//! middle, and a count of what was lost. The [second](cluster): three nodes as a cluster, clients that write keys, and the
//! leader of the metadata killed.
//!
//! It knows nothing of a node's inside: it starts this same executable with `start` and speaks PostgreSQL and gRPC to it, as
//! any other process does.

mod child;
mod cluster;
mod keys;
mod load;
mod report;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::DemoArgs;
use child::Child;
use cluster::Act;
use load::{Clients, Findings};
use report::Report;

/// The data directory of the node that is alone.
const ALONE: &str = "data";
/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Runs the demonstration and prints what it found.
///
/// # Errors
/// What was acknowledged was lost, or something did not run.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let home = tempfile::Builder::new().prefix("mainstay-demo-").tempdir().context("cannot make a directory")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = demonstrate(args, home.path()) => result.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    });
    // A connection may still be waiting for an answer; nothing of it is needed any more.
    runtime.shutdown_background();
    match result {
        Ok(Some((rows, keys))) => {
            writeln!(io::stdout(), "{rows}\n{keys}")?;
            if rows.is_good() && keys.is_good() {
                return Ok(());
            }
            let kept = home.keep();
            bail!(
                "something is missing or wrong; the data directories and the nodes' logs are kept in {}",
                kept.display()
            )
        }
        Ok(None) => bail!("interrupted"),
        Err(error) => bail!("the demo failed: {error:#}; the nodes' logs are kept in {}", home.keep().display()),
    }
}

async fn demonstrate(args: &DemoArgs, home: &Path) -> anyhow::Result<(Report, Act)> {
    let progress = Progress::new(2 * args.seconds);
    let rows = rows(&progress, args, home).await?;
    progress.say("");
    let keys = cluster::act(&progress, home, args.clients, Duration::from_secs(args.seconds)).await?;
    progress.done();
    Ok((rows, keys))
}

/// The first act.
async fn rows(progress: &Progress, args: &DemoArgs, home: &Path) -> anyhow::Result<Report> {
    let half = Duration::from_secs(args.seconds) / 2;
    let mut child = Child::spawn(home, ALONE, &[])?;
    let address = child.ready().await?;
    progress.say(&format!("node {} serves SQL on {address} from {}", child.id(), home.display()));
    let mut clients = Clients::connect(&address, args.clients).await?;
    clients.create_table().await?;

    let before = progress.load(&clients.start(), half, "rows").await;
    clients.still_writing().await?;
    let killed = Instant::now();
    child.kill()?;
    progress.say(&format!("SIGKILL after {before} acknowledged rows, while {} clients were writing", args.clients));

    child = Child::spawn(home, ALONE, &[])?;
    let address = child.ready().await?;
    clients.broken().await?;
    clients.reconnect(&address).await?;
    let recovery = killed.elapsed();
    let after_kill = clients.check().await?;
    progress.say(&format!(
        "restarted; first answer {:.0} ms after the kill; {} rows found, {} lost",
        recovery.as_secs_f64() * 1000.0,
        after_kill.found,
        after_kill.lost
    ));

    progress.load(&clients.start(), half, "rows").await;
    clients.stop().await?;
    let findings: Findings = clients.check().await?;
    child.stop().await?;
    Ok(Report { findings, lost_after_kill: after_kill.lost, recovery, writing: 2 * half })
}

/// A bar on standard error, if that is a terminal; plain lines in any case.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(seconds: u64) -> Progress {
        let bar = if io::stderr().is_terminal() { ProgressBar::new(seconds * 1000) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}") {
            bar.set_style(style);
        }
        Progress { bar }
    }

    /// One line that stays.
    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Moves the bar for that long while clients write, and answers how much was acknowledged by then.
    async fn load(&self, acknowledged: &load::Counter, length: Duration, what: &str) -> u64 {
        let begun = Instant::now();
        let already_ms = self.bar.position();
        let mut ticks = tokio::time::interval(TICK);
        while begun.elapsed() < length {
            ticks.tick().await;
            let passed_ms = begun.elapsed().min(length).as_millis() as u64;
            self.bar.set_position(already_ms + passed_ms);
            self.bar.set_message(format!("{} {what} acknowledged", acknowledged.get()));
        }
        acknowledged.get()
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}
