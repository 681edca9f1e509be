//! `make bench BENCH=wal`: the log against the device's ceiling and against raft-engine.
//!
//! `WAL_ROUNDS` (5) and `WAL_RECOVERY_GIB` (4) make a run longer or shorter; `WAL_ONLY=commit` runs the measures whose
//! names contain that. The files are made in `TMPDIR`.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay::config::WalConfig;
use mainstay::disk::RealDisk;
use mainstay::ident::SystemId;
use mainstay::lsn::{Lsn, TimelineId};
use mainstay::wal::{self, AppendError, Evidence, Layout, Scan, SegmentDirectory, Wal};
use mainstay_benches::raw::RawFile;
use mainstay_benches::{Row, median, number, print_head, write};

#[path = "wal/peer.rs"]
mod peer;
#[path = "wal/reading.rs"]
mod reading;
#[path = "wal/writing.rs"]
mod writing;

/// What every measure gets.
pub struct Bench {
    /// Where the files are made.
    pub directory: PathBuf,
    /// How often everything is measured.
    pub rounds: usize,
    /// The device's own speed.
    pub raw: RawFile,
    /// What was measured so far.
    pub rows: Vec<Row>,
    logs: usize,
}

impl Bench {
    /// A path that nothing has.
    pub fn fresh_path(&mut self) -> PathBuf {
        self.logs += 1;
        self.directory.join(format!("log-{}", self.logs))
    }
}

/// The settings of the measured logs: the defaults, but nothing is kept behind a checkpoint.
pub fn config() -> WalConfig {
    WalConfig { keep_bytes: 0, ..WalConfig::default() }
}

/// What is found at `path`.
pub fn scan(path: &Path, config: &WalConfig, evidence: Evidence) -> anyhow::Result<Scan> {
    Ok(wal::scan(segments(path, config), evidence)?)
}

/// The segments at `path`.
pub fn segments(path: &Path, config: &WalConfig) -> SegmentDirectory {
    let layout = Layout::new(config.segment_size_bytes);
    SegmentDirectory::new(Arc::new(RealDisk), path.to_owned(), layout, SystemId::new(1), TimelineId::FIRST)
}

/// Opens the log at `path`, a new one if there is none.
pub fn open(path: &Path, config: WalConfig) -> anyhow::Result<Wal> {
    Ok(Wal::open(scan(path, &config, Evidence::default())?, config)?)
}

/// Appends, waiting for room.
pub fn append(log: &Wal, payload: &[u8]) -> Result<Lsn, AppendError> {
    loop {
        match log.append(payload) {
            Err(AppendError::Busy { len_bytes }) => log.room_blocking(len_bytes)?,
            other => return other,
        }
    }
}

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

fn main() -> anyhow::Result<()> {
    let place = tempfile::Builder::new().prefix("mainstay-bench").tempdir()?;
    let mut raw = RawFile::new(&place.path().join("raw"), 256 << 20)?;
    let sync_us = median(&raw.latencies(&noise(4096), 2000)?);
    let rounds: usize = number("WAL_ROUNDS", 5);
    println!("wal, {rounds} rounds, sync of one page {sync_us:.0} us, in {}", place.path().display());
    print_head();
    let mut bench = Bench { directory: place.path().to_owned(), rounds, raw, rows: Vec::new(), logs: 0 };
    type Measure = fn(&mut Bench) -> anyhow::Result<()>;
    let measures: [(&str, Measure); 8] = [
        ("commit", writing::commit),
        ("bandwidth", writing::bandwidth),
        ("group", writing::group),
        ("device_bytes", writing::device_bytes),
        ("vs_raft_engine", peer::vs_raft_engine),
        ("readers", reading::readers),
        ("rotation", writing::rotation),
        ("recovery", reading::recovery),
    ];
    let only = env::var("WAL_ONLY").unwrap_or_default();
    for (name, measure) in measures {
        if name.contains(&only) {
            measure(&mut bench)?;
        }
    }
    if only.is_empty() {
        write("wal", place.path(), sync_us, &bench.rows)?;
    }
    Ok(())
}
