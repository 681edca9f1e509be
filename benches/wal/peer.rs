//! Against raft-engine, as it comes but without compression of bytes that do not compress.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay_benches::{Goal, On, Row, add};
use raft_engine::{Config, Engine, LogBatch, ReadableSize};

use crate::writing::{task_rate, wait_prepared};
use crate::{Bench, append, config, noise, open};

const ROUND: Duration = Duration::from_millis(700);

/// Runs `commit` on so many threads for a round; answers how often a second it was done.
fn rate(writers: usize, commit: &(dyn Fn(usize) -> anyhow::Result<()> + Sync)) -> anyhow::Result<f64> {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (stop, done) = (&stop, &done);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        commit(writer)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        std::thread::sleep(ROUND);
        let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(rate)
    })
}

fn raft_engine(path: &Path, writers: usize, payload: &[u8]) -> anyhow::Result<f64> {
    let config = Config {
        dir: path.to_string_lossy().into_owned(),
        batch_compression_threshold: ReadableSize(0),
        ..Config::default()
    };
    let engine = Engine::open(config)?;
    let rate = rate(writers, &|writer| {
        let mut batch = LogBatch::default();
        batch.put(writer as u64 + 1, b"key".to_vec(), payload.to_vec())?;
        engine.write(&mut batch, true)?;
        Ok(())
    })?;
    drop(engine);
    std::fs::remove_dir_all(path)?;
    Ok(rate)
}

fn mainstay(path: &Path, writers: usize, payload: &[u8]) -> anyhow::Result<f64> {
    let log = open(path, config())?;
    wait_prepared(path)?;
    let rate = rate(writers, &|_| Ok(log.make_durable(append(&log, payload)?)?))?;
    drop(log);
    std::fs::remove_dir_all(path)?;
    Ok(rate)
}

/// The same with tasks on two threads: what our callers may do, and raft-engine's cannot.
fn mainstay_tasks(path: &Path, writers: usize, payload: &[u8]) -> anyhow::Result<f64> {
    let log = Arc::new(open(path, config())?);
    wait_prepared(path)?;
    let rate = task_rate(log, writers, payload, ROUND)?;
    std::fs::remove_dir_all(path)?;
    Ok(rate)
}

/// Writers that each wait for their record: one, 16 and 64 threads; and 64 tasks of ours against the 64 threads.
pub fn vs_raft_engine(bench: &mut Bench) -> anyhow::Result<()> {
    for writers in [1, 16, 64] {
        for (name, len) in [("128", 128), ("4k", 4 << 10), ("128k", 128 << 10)] {
            let payload = noise(len);
            let (mut ours, mut tasks) = (Vec::new(), Vec::new());
            let (mut theirs, mut ceiling) = (Vec::new(), Vec::new());
            for _ in 0..bench.rounds {
                let path = bench.fresh_path();
                ours.push(mainstay(&path, writers, &payload)?);
                let path = bench.fresh_path();
                theirs.push(raft_engine(&path, writers, &payload)?);
                if writers == 64 {
                    let path = bench.fresh_path();
                    tasks.push(mainstay_tasks(&path, writers, &payload)?);
                }
                // All writers' records with one sync.
                let packed = noise((len * writers).min(4 << 20));
                let per_sync = packed.len() as f64 / len as f64;
                let count = ((64 << 20) / packed.len()).min(2000);
                let raw = bench.raw.latencies(&packed, count)?;
                ceiling.push(per_sync * 1e6 * raw.len() as f64 / raw.iter().sum::<f64>());
            }
            let goal = match writers {
                1 => Goal::AtLeast(1.0),
                64 => Goal::AtLeast(3.0),
                _ => Goal::None,
            };
            let measure = format!("wal.vs_raft_engine.{writers}.{name}");
            let peer = Some(("raft-engine 0.4.2", theirs));
            let ceiling = Some(ceiling);
            let row = Row { measure: measure.clone(), unit: "1/s", ours, peer, ceiling, goal: (goal, On::Ratio) };
            if !tasks.is_empty() {
                let measure = format!("{measure}.tasks");
                let row = Row { measure, ours: tasks, ..row.clone() };
                add(&mut bench.rows, row);
            }
            add(&mut bench.rows, row);
        }
    }
    Ok(())
}
