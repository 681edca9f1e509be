//! Committing, alone and in groups; bandwidth; what reaches the device; rotation.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay::config::WalConfig;
use mainstay::lsn::Lsn;
use mainstay::wal::{AnyRecord, AppendError, Evidence, Kind, Wal, scan_with};
use mainstay_benches::raw::device_bytes_written;
use mainstay_benches::{Goal, On, Row, add, median, quantile};

use crate::{Bench, append, config, noise, open, segments};

const MIB: u64 = 1 << 20;

/// Appends and makes durable `count` times; answers microseconds of each.
fn commits(log: &Wal, payload: &[u8], count: usize) -> anyhow::Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        log.make_durable(append(log, payload)?)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}

/// One thread, 128 B, each made durable.
pub fn commit(bench: &mut Bench) -> anyhow::Result<()> {
    let path = bench.fresh_path();
    let log = open(&path, config())?;
    let (payload, page) = (noise(128), noise(4096));
    let (mut ours, mut ceiling) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        // Finely interleaved: the machine's load changes faster than a round.
        let (mut our_round, mut raw_round) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            our_round.extend(commits(&log, &payload, 100)?);
            raw_round.extend(bench.raw.latencies(&page, 100)?);
        }
        ours.push(median(&our_round));
        ceiling.push(median(&raw_round));
    }
    let goal = (Goal::AtMost(1.15), On::Ratio);
    let row = Row { measure: "wal.commit.p50".into(), unit: "us", ours, peer: None, ceiling: Some(ceiling), goal };
    add(&mut bench.rows, row);
    Ok(())
}

/// Records of 128 KiB, made durable one by one and eight at a time: into segments that were prepared before, as the
/// ceiling's file was; then for so long that preparing them is part of it, recycling as much at a time as a checkpoint with
/// the default settings does. Before that, two segments are filled with
/// such records: the log prepares segments for what it saw lately.
pub fn bandwidth(bench: &mut Bench) -> anyhow::Result<()> {
    let cases = [("", 256 * MIB, 96 * MIB), (".sustained", 64 * MIB, 256 * MIB)];
    for (name, segment_bytes, round_bytes) in cases {
        for (size, per_flush) in [(".128k", 1), ("", 8)] {
            let ours_and_raw = bandwidth_of(bench, per_flush, segment_bytes, round_bytes)?;
            let (ours, ceiling) = ours_and_raw;
            let goal = (Goal::AtLeast(0.9), On::Ratio);
            let measure = format!("wal.bandwidth{name}{size}");
            add(&mut bench.rows, Row { measure, unit: "MiB/s", ours, peer: None, ceiling: Some(ceiling), goal });
        }
    }
    Ok(())
}

fn bandwidth_of(
    bench: &mut Bench,
    per_flush: usize,
    segment_bytes: u64,
    round_bytes: u64,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    const RECORD_BYTES: usize = 128 << 10;
    let (payload, flush) = (noise(RECORD_BYTES), noise(RECORD_BYTES * per_flush));
    let path = bench.fresh_path();
    let log = open(&path, WalConfig { segment_size_bytes: segment_bytes, ..config() })?;
    fill(&log, &payload, 2 * segment_bytes)?;
    let (mut ours, mut ceiling) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        wait_prepared(&path)?;
        let start = Instant::now();
        for _ in 0..round_bytes / flush.len() as u64 {
            let mut end = Lsn::NONE;
            for _ in 0..per_flush {
                end = append(&log, &payload)?;
            }
            log.make_durable(end)?;
        }
        ours.push(round_bytes as f64 / start.elapsed().as_secs_f64() / MIB as f64);
        log.recycle(log.durable())?;
        ceiling.push(bench.raw.bandwidth(&flush, round_bytes)? / MIB as f64);
    }
    drop(log);
    std::fs::remove_dir_all(&path)?;
    Ok((ours, ceiling))
}

/// Appends so many bytes of such records, makes them durable and recycles them.
fn fill(log: &Wal, payload: &[u8], bytes: u64) -> anyhow::Result<()> {
    let until = log.end().advanced(bytes);
    while log.end() < until {
        append(log, payload)?;
    }
    log.make_durable(log.end())?;
    log.recycle(log.durable())?;
    Ok(())
}

/// Waits until no segment is being prepared.
pub fn wait_prepared(path: &Path) -> anyhow::Result<()> {
    loop {
        // It may be about to begin with the next one.
        std::thread::sleep(Duration::from_millis(20));
        if !path.join("preparing.tmp").exists() {
            return Ok(());
        }
    }
}

/// How many records a second so many tasks on two threads commit, each waiting for its own before the next.
pub fn task_rate(log: Arc<Wal>, committers: usize, payload: &[u8], time: Duration) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let spawn = |_| {
        let (log, stop, done) = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&done));
        let payload = payload.to_vec();
        runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let end = match log.append(&payload) {
                    Ok(end) => end,
                    Err(AppendError::Busy { len_bytes }) => {
                        log.room(len_bytes).await?;
                        continue;
                    }
                    Err(error) => return Err(anyhow::Error::from(error)),
                };
                log.wait_durable(end).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let tasks: Vec<_> = (0..committers).map(spawn).collect();
    std::thread::sleep(time);
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        runtime.block_on(task)??;
    }
    Ok(rate)
}

/// 64 tasks on two threads, 128 B, each waits for its record. The ceiling writes 64 records with one sync.
pub fn group(bench: &mut Bench) -> anyhow::Result<()> {
    const COMMITTERS: usize = 64;
    let packed = noise(COMMITTERS * 144);
    let (mut rates, mut per_sync, mut ceiling) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let path = bench.fresh_path();
        let log = Arc::new(open(&path, config())?);
        rates.push(task_rate(log, COMMITTERS, &noise(128), Duration::from_millis(1500))?);
        // Each flush writes one mark.
        let (mut records, mut marks) = (0u64, 0u64);
        let mut visit = |record: &AnyRecord| match record.kind {
            Kind::Mark => marks += 1,
            _ => records += 1,
        };
        scan_with(segments(&path, &config()), Evidence::default(), &mut visit)?;
        per_sync.push(records as f64 / marks as f64);
        std::fs::remove_dir_all(&path)?;
        let raw = bench.raw.latencies(&packed, 2000)?;
        ceiling.push(COMMITTERS as f64 * 1e6 * raw.len() as f64 / raw.iter().sum::<f64>());
    }
    let goal = (Goal::AtLeast(300_000.0), On::Ours);
    let row =
        Row { measure: "wal.group.rate".into(), unit: "1/s", ours: rates, peer: None, ceiling: Some(ceiling), goal };
    add(&mut bench.rows, row);
    let goal = (Goal::AtLeast(40.0), On::Ours);
    let measure = "wal.group.records_per_sync".into();
    add(&mut bench.rows, Row { measure, unit: "records", ours: per_sync, peer: None, ceiling: None, goal });
    Ok(())
}

/// What one commit of a small record writes to the device. Others write there too, so the least of many batches is the
/// best guess.
fn bytes_per_commit(log: &Wal, place: &Path) -> anyhow::Result<f64> {
    const BATCH: usize = 20;
    let mut least = f64::NAN;
    for _ in 0..100 {
        let Some(before) = device_bytes_written(place) else { return Ok(f64::NAN) };
        commits(log, &noise(128), BATCH)?;
        let after = device_bytes_written(place).unwrap_or(before);
        least = least.min((after - before) as f64 / BATCH as f64);
    }
    Ok(least)
}

/// On a segment just made, after recovery, on one used before, and on one that was prepared for large records.
pub fn device_bytes(bench: &mut Bench) -> anyhow::Result<()> {
    let small = WalConfig { segment_size_bytes: 8 * MIB, ..config() };
    let (mut fresh, mut recovered, mut recycled, mut for_large) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let path = bench.fresh_path();
        let log = open(&path, small.clone())?;
        fresh.push(bytes_per_commit(&log, &path)?);
        drop(log);
        // As after a kill: everything is scanned and made final.
        let log = open(&path, small.clone())?;
        recovered.push(bytes_per_commit(&log, &path)?);
        // Through several segments, each recycled.
        for (payload, into) in [(noise(8 << 20), &mut for_large), (noise(128), &mut recycled)] {
            for _ in 0..5 {
                fill(&log, &payload, 8 * MIB)?;
            }
            wait_prepared(&path)?;
            into.push(bytes_per_commit(&log, &path)?);
        }
    }
    let cases = [("fresh", fresh), ("recovered", recovered), ("recycled", recycled), ("for_large", for_large)];
    for (name, ours) in cases {
        let goal = (Goal::AtMost(8192.0), On::Ours);
        let measure = format!("wal.device_bytes.{name}");
        let ceiling = Some(vec![4096.0; ours.len()]);
        add(&mut bench.rows, Row { measure, unit: "bytes", ours, peer: None, ceiling, goal });
    }
    Ok(())
}

/// The 99.9th percentile of 4 KiB commits where every 250th meets a new segment, against none that does. The ratio is
/// the difference in syncs of one page.
pub fn rotation(bench: &mut Bench) -> anyhow::Result<()> {
    let payload = noise(4096);
    let small = WalConfig { segment_size_bytes: MIB, ..config() };
    let (path_with, path_without) = (bench.fresh_path(), bench.fresh_path());
    let (with, without) = (open(&path_with, small)?, open(&path_without, config())?);
    let (mut ours, mut still, mut sync) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let (mut with_round, mut without_round, mut raw_round) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..10 {
            with_round.extend(commits(&with, &payload, 1000)?);
            with.recycle(with.durable())?;
            without_round.extend(commits(&without, &payload, 1000)?);
            without.recycle(without.durable())?;
            raw_round.extend(bench.raw.latencies(&payload, 100)?);
        }
        ours.push(quantile(&with_round, 0.999));
        still.push(quantile(&without_round, 0.999));
        sync.push(median(&raw_round));
    }
    let extra: Vec<f64> = ours.iter().zip(&still).map(|(with, without)| (with - without).max(0.0)).collect();
    for (name, values) in [("wal.rotation.p999.across", ours), ("wal.rotation.p999.without", still)] {
        let goal = (Goal::None, On::Ours);
        add(&mut bench.rows, Row { measure: name.into(), unit: "us", ours: values, peer: None, ceiling: None, goal });
    }
    let goal = (Goal::AtMost(1.0), On::Ratio);
    let measure = "wal.rotation.p999".into();
    add(&mut bench.rows, Row { measure, unit: "us", ours: extra, peer: None, ceiling: Some(sync), goal });
    Ok(())
}
