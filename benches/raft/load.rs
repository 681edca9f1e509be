//! Clients in closed loops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::servers::{Client, Servers};

/// Connections that the clients share.
const CONNECTIONS: usize = 16;
/// Keys that are written and read.
const KEYS: u64 = 100_000;
/// Not measured: connections are made, caches filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Set keys to 256 bytes, a request each.
    Put,
    /// The same, through a client library that gathers what its callers put.
    PutGathered,
    /// Read keys, linearizably.
    Get,
}

/// What was seen.
pub struct Seen {
    /// Requests answered per second.
    pub rate: f64,
    /// How long each took, in microseconds.
    pub latencies_us: Vec<f64>,
}

/// Lets clients work on the leader for a while.
///
/// # Errors
/// Nobody leads, or a request fails.
pub async fn run(servers: &Servers, work: Work, clients: u64, duration: Duration) -> anyhow::Result<Seen> {
    let leader = servers.leader().await?;
    let connections: Vec<Client> = match work {
        Work::PutGathered => vec![servers.batching_client(leader)?],
        _ => (0..CONNECTIONS.min(clients as usize)).map(|_| servers.client(leader)).collect::<Result<_, _>>()?,
    };
    let (stop, measured) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let failed = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for id in 0..clients {
        let mut client = connections[id as usize % connections.len()].clone();
        let (stop, measured, failed) = (Arc::clone(&stop), Arc::clone(&measured), Arc::clone(&failed));
        tasks.spawn(async move {
            let (mut latencies_us, mut turn) = (Vec::new(), id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            while !stop.load(Ordering::Relaxed) {
                turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let key = ((turn >> 33) % KEYS).to_be_bytes().to_vec();
                let begun = Instant::now();
                let answer = match work {
                    Work::Put | Work::PutGathered => client.put(key, vec![turn as u8; 256]).await,
                    Work::Get => client.get(key).await,
                };
                match answer {
                    Ok(()) if measured.load(Ordering::Relaxed) => {
                        latencies_us.push(begun.elapsed().as_secs_f64() * 1e6)
                    }
                    Ok(()) => {}
                    Err(_) => {
                        failed.fetch_add(1, Ordering::Relaxed);
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
