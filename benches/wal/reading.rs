//! Readers that follow a writer; recovery.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay::lsn::Lsn;
use mainstay::wal::{Evidence, Wal};
use mainstay_benches::{Goal, On, Row, add, number};

use crate::{Bench, append, config, noise, open, scan, segments};

const ROUND: Duration = Duration::from_millis(1000);

/// How many 4 KiB records a writer appends a second, 16 to a flush, while so many readers follow. Second: how many of
/// them the average reader got.
fn followed(path: &Path, readers: usize) -> anyhow::Result<(f64, f64)> {
    let log = open(path, config())?;
    let start = log.end();
    let (stop, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let written = std::thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| follow(&log, start, &stop, &read));
        }
        let (payload, begun, mut written) = (noise(4096), Instant::now(), 0u64);
        while begun.elapsed() < ROUND {
            let mut end = Lsn::NONE;
            for _ in 0..16 {
                end = append(&log, &payload)?;
            }
            log.make_durable(end)?;
            written += 16;
        }
        let rate = written as f64 / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        // Readers that sleep are woken by one more record.
        log.make_durable(append(&log, b"the end")?)?;
        anyhow::Ok((rate, written))
    });
    drop(runtime);
    let (rate, written) = written?;
    drop(log);
    std::fs::remove_dir_all(path)?;
    let share = read.load(Ordering::Relaxed) as f64 / (written * readers.max(1) as u64) as f64;
    Ok((rate, share))
}

fn follow(log: &Wal, from: Lsn, stop: &AtomicBool, read: &AtomicU64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut reader = log.reader(from);
    while !stop.load(Ordering::Relaxed) {
        match reader.next_durable()? {
            Some(_) => {
                read.fetch_add(1, Ordering::Relaxed);
            }
            None => runtime.block_on(reader.wait())?,
        }
    }
    Ok(())
}

/// A writer at full speed with 1, 4 and 16 readers, against none.
pub fn readers(bench: &mut Bench) -> anyhow::Result<()> {
    for readers in [1, 4, 16] {
        let (mut ours, mut alone, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.rounds {
            let path = bench.fresh_path();
            alone.push(followed(&path, 0)?.0);
            let path = bench.fresh_path();
            let (rate, share) = followed(&path, readers)?;
            ours.push(rate);
            shares.push(share);
        }
        let goal = if readers == 4 { Goal::AtLeast(0.9) } else { Goal::None };
        let (measure, ceiling) = (format!("wal.readers.{readers}"), Some(alone));
        add(&mut bench.rows, Row { measure, unit: "1/s", ours, peer: None, ceiling, goal: (goal, On::Ratio) });
        let (measure, goal) = (format!("wal.readers.{readers}.kept_up"), (Goal::None, On::Ours));
        add(&mut bench.rows, Row { measure, unit: "share", ours: shares, peer: None, ceiling: None, goal });
    }
    Ok(())
}

/// Reads every byte of every segment once.
fn raw_read(path: &Path) -> anyhow::Result<f64> {
    let (mut buffer, mut total, start) = (vec![0; 1 << 20], 0u64, Instant::now());
    for entry in std::fs::read_dir(path)? {
        let file = File::open(entry?.path())?;
        let mut at = 0;
        loop {
            match file.read_at(&mut buffer, at)? {
                0 => break,
                count => at += count as u64,
            }
        }
        total += at;
    }
    Ok(total as f64 / start.elapsed().as_secs_f64() / 1e9)
}

/// Scanning a cached log of 4 KiB records, and opening it after a clean stop.
pub fn recovery(bench: &mut Bench) -> anyhow::Result<()> {
    let path = bench.fresh_path();
    let log = open(&path, config())?;
    let (payload, bytes) = (noise(4000), number::<u64>("WAL_RECOVERY_GIB", 4) << 30);
    let first = log.end();
    while log.end().bytes_since(first) < bytes {
        let mut end = Lsn::NONE;
        for _ in 0..1000 {
            end = append(&log, &payload)?;
        }
        log.make_durable(end)?;
    }
    let mut clean_end = log.close()?;
    drop(log);
    let (mut rates, mut opens, mut ceiling) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let start = Instant::now();
        let found = scan(&path, &config(), Evidence::default())?;
        let scanned = found.end().bytes_since(first);
        rates.push(scanned as f64 / start.elapsed().as_secs_f64() / 1e9);
        anyhow::ensure!(found.end() == clean_end, "the log's end was not found");
        ceiling.push(raw_read(&path)?);
        let start = Instant::now();
        let evidence = Evidence { verify_from: clean_end, reached: clean_end, clean_end: Some(clean_end) };
        let log = Wal::open(mainstay::wal::scan(segments(&path, &config()), evidence)?, config())?;
        // Open is what can append and commit.
        log.make_durable(append(&log, b"first")?)?;
        opens.push(start.elapsed().as_secs_f64() * 1e3);
        clean_end = log.close()?;
    }
    let goal = (Goal::AtLeast(1.5), On::Ours);
    let measure = "wal.recovery.scan".into();
    add(&mut bench.rows, Row { measure, unit: "GB/s", ours: rates, peer: None, ceiling: Some(ceiling), goal });
    let goal = (Goal::AtMost(50.0), On::Ours);
    let measure = "wal.recovery.clean_open".into();
    add(&mut bench.rows, Row { measure, unit: "ms", ours: opens, peer: None, ceiling: None, goal });
    Ok(())
}
