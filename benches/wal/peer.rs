//! Against raft-engine, as it comes but without compression of bytes that do not compress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay_benches::{Goal, On, Row, add};
use raft_engine::{Config, Engine, LogBatch, ReadableSize};

use crate::writing::{task_rate, wait_prepared};
use crate::{Bench, append, config, noise, open};

/// The two take turns of this, so many in a round: the machine's load changes faster than a round.
const TURN: Duration = Duration::from_millis(100);
const TURNS: usize = 7;

/// Runs `commit` on so many threads for a turn; answers how often a second it was done.
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
        std::thread::sleep(TURN);
        let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(rate)
    })
}

fn raft_engine(engine: &Engine, writers: usize, payload: &[u8]) -> anyhow::Result<f64> {
    rate(writers, &|writer| {
        let mut batch = LogBatch::default();
        batch.put(writer as u64 + 1, b"key".to_vec(), payload.to_vec())?;
        engine.write(&mut batch, true)?;
        Ok(())
    })
}

/// What one round found, a second.
struct Round {
    ours: f64,
    /// The same with tasks on two threads: what our callers may do, and raft-engine's cannot.
    tasks: f64,
    theirs: f64,
}

fn round(bench: &mut Bench, writers: usize, payload: &[u8]) -> anyhow::Result<Round> {
    let (our_path, their_path) = (bench.fresh_path(), bench.fresh_path());
    let log = Arc::new(open(&our_path, config())?);
    let config = Config {
        dir: their_path.to_string_lossy().into_owned(),
        batch_compression_threshold: ReadableSize(0),
        ..Config::default()
    };
    let engine = Engine::open(config)?;
    let mut sums = Round { ours: 0.0, tasks: 0.0, theirs: 0.0 };
    for _ in 0..TURNS {
        // What is prepared after a turn costs the other nothing.
        wait_prepared(&our_path)?;
        sums.ours += rate(writers, &|_| Ok(log.make_durable(append(&log, payload)?)?))?;
        wait_prepared(&our_path)?;
        sums.theirs += raft_engine(&engine, writers, payload)?;
        if writers == 64 {
            sums.tasks += task_rate(Arc::clone(&log), writers, payload, TURN)?;
        }
        log.recycle(log.durable())?;
    }
    drop((log, engine));
    std::fs::remove_dir_all(our_path)?;
    std::fs::remove_dir_all(their_path)?;
    let turns = TURNS as f64;
    Ok(Round { ours: sums.ours / turns, tasks: sums.tasks / turns, theirs: sums.theirs / turns })
}

/// Writers that each wait for their record: one, 16 and 64 threads; and 64 tasks of ours against the 64 threads.
pub fn vs_raft_engine(bench: &mut Bench) -> anyhow::Result<()> {
    for writers in [1, 16, 64] {
        for (name, len) in [("128", 128), ("4k", 4 << 10), ("128k", 128 << 10)] {
            let payload = noise(len);
            let (mut ours, mut tasks) = (Vec::new(), Vec::new());
            let (mut theirs, mut ceiling) = (Vec::new(), Vec::new());
            for _ in 0..bench.rounds {
                let found = round(bench, writers, &payload)?;
                ours.push(found.ours);
                theirs.push(found.theirs);
                if writers == 64 {
                    tasks.push(found.tasks);
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
