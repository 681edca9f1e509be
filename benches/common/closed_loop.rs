//! Clients in closed loops: each asks again as soon as it is answered.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Keys that are written and read.
const KEYS: u64 = 100_000;
/// Not measured: connections are made, caches filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// What was seen.
pub struct Seen {
    /// Requests answered per second.
    pub rate: f64,
    /// How long each took, in microseconds.
    pub latencies_us: Vec<f64>,
}

/// Lets clients work for a while. Client `i` has connection `i` modulo their number; `request` is given that, a key and a byte
/// that values may be made of.
///
/// # Errors
/// A request failed.
pub async fn run<C, F, E>(
    connections: &[C],
    clients: u64,
    duration: Duration,
    request: impl Fn(C, Vec<u8>, u8) -> F + Clone + Send + 'static,
) -> anyhow::Result<Seen>
where
    C: Clone + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let (stop, measured) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let failed = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for id in 0..clients {
        let client = connections[id as usize % connections.len()].clone();
        let (stop, measured, failed) = (Arc::clone(&stop), Arc::clone(&measured), Arc::clone(&failed));
        let request = request.clone();
        tasks.spawn(async move {
            let (mut latencies_us, mut turn) = (Vec::new(), id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            while !stop.load(Ordering::Relaxed) {
                turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let key = ((turn >> 33) % KEYS).to_be_bytes().to_vec();
                let begun = Instant::now();
                match request(client.clone(), key, turn as u8).await {
                    Ok(()) if measured.load(Ordering::Relaxed) => {
                        latencies_us.push(begun.elapsed().as_secs_f64() * 1e6);
                    }
                    Ok(()) => {}
                    Err(error) => {
                        if failed.fetch_add(1, Ordering::Relaxed) == 0 {
                            eprintln!("a request failed: {error}");
                        }
                    }
                }
            }
            latencies_us
        });
    }
    tokio::time::sleep(WARM_UP).await;
    measured.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    tokio::time::sleep(duration).await;
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut latencies_us = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies_us.extend(task?);
    }
    anyhow::ensure!(failed.load(Ordering::Relaxed) == 0, "{} requests failed", failed.load(Ordering::Relaxed));
    Ok(Seen { rate: latencies_us.len() as f64 / took.as_secs_f64(), latencies_us })
}
