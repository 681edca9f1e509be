//! `mainstay demo`: a real node in a process of its own, clients that write to it, SIGKILL in the middle, and a count of
//! what was lost.
//!
//! It knows nothing of the node's inside: it starts this same executable with `start` and speaks PostgreSQL to it, as
//! any driver does.

mod child;
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
use load::{Clients, Findings};
use report::Report;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Runs the demonstration and prints what it found.
///
/// # Errors
/// An acknowledged row was lost, or something did not run.
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
        Ok(Some(report)) => {
            writeln!(io::stdout(), "{report}")?;
            if report.is_good() {
                return Ok(());
            }
            let kept = home.keep();
            bail!("rows are missing or wrong; the data directory and the node's log are kept in {}", kept.display())
        }
        Ok(None) => bail!("interrupted"),
        Err(error) => bail!("the demo failed: {error:#}; the node's log is kept in {}", home.keep().display()),
    }
}

async fn demonstrate(args: &DemoArgs, home: &Path) -> anyhow::Result<Report> {
    let progress = Progress::new(args.seconds);
    let half = Duration::from_secs(args.seconds) / 2;
    let mut child = Child::start(home).await?;
    progress.say(&format!("node {} serves SQL on {} from {}", child.id(), child.address, home.display()));
    let mut clients = Clients::connect(&child.address, args.clients).await?;
    clients.create_table().await?;

    let before = progress.load(&clients.start(), half).await;
    clients.still_writing().await?;
    let killed = Instant::now();
    child.kill()?;
    progress.say(&format!("SIGKILL after {before} acknowledged rows, while {} clients were writing", args.clients));

    child = Child::start(home).await?;
    clients.broken().await?;
    clients.reconnect(&child.address).await?;
    let recovery = killed.elapsed();
    let after_kill = clients.check().await?;
    progress.say(&format!(
        "restarted; first answer {:.0} ms after the kill; {} rows found, {} lost",
        recovery.as_secs_f64() * 1000.0,
        after_kill.found,
        after_kill.lost
    ));

    progress.load(&clients.start(), half).await;
    clients.stop().await?;
    let findings: Findings = clients.check().await?;
    progress.done();
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

    /// Moves the bar for that long while clients write, and answers how many rows were acknowledged by then.
    async fn load(&self, acknowledged: &load::Counter, length: Duration) -> u64 {
        let begun = Instant::now();
        let already_ms = self.bar.position();
        let mut ticks = tokio::time::interval(TICK);
        while begun.elapsed() < length {
            ticks.tick().await;
            let passed_ms = begun.elapsed().min(length).as_millis() as u64;
            self.bar.set_position(already_ms + passed_ms);
            self.bar.set_message(format!("{} rows acknowledged", acknowledged.get()));
        }
        acknowledged.get()
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}
