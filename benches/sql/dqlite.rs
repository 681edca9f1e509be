//! Dqlite, a replicated SQLite, by the benchmark that its own package brings: one member and its clients in one process,
//! with sockets between them. Each INSERT is in its log on the disk before it is answered, as with ours.
//!
//! Clients that meet each other are told that the database is locked and try again, which dqlite leaves to them. Only what was
//! inserted counts.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Comes with Debian's package go-dqlite.
const PROGRAM: &str = "dqlite-benchmark";

/// Whether it is installed.
pub fn is_installed() -> bool {
    let mut help = Command::new(PROGRAM);
    help.arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Inserts per second into a new database in `directory`: keys of 20 bytes, values of 100.
pub fn insert_rate(directory: &Path, clients: usize, seconds: u64) -> anyhow::Result<f64> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let mut load = Command::new(PROGRAM);
    load.args(["--db", &address, "--cluster", &address, "--driver", "--workload", "kvwrite"]);
    load.args(["--key-size", "20", "--value-size", "100"]);
    load.args(["--workers", &clients.to_string(), "--duration", &seconds.to_string(), "--dir"]).arg(directory);
    let output = load.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{load:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut inserted = 0;
    // One report per client, which begins with how often it succeeded.
    let reports = directory.join(&address).join("results");
    for report in fs::read_dir(&reports).with_context(|| format!("no {}", reports.display()))? {
        let text = fs::read_to_string(report?.path())?;
        let count = text.lines().find_map(|line| line.strip_prefix("n ")?.parse::<u64>().ok());
        inserted += count.with_context(|| format!("{PROGRAM} reported no count"))?;
    }
    fs::remove_dir_all(directory)?;
    Ok(inserted as f64 / seconds as f64)
}
