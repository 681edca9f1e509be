//! A node joins a group that has state: how long that takes, and what clients notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mainstay_benches::quantile;

use crate::servers::kv::member_request::Action;
use crate::servers::kv::{PutManyRequest, PutRequest};
use crate::servers::{Client, Servers};

/// A value of the state.
const VALUE_BYTES: usize = 16 << 10;
/// Values in a request.
const VALUES: u64 = 64;
/// How long clients are looked at before.
const UNDISTURBED: Duration = Duration::from_secs(2);

/// What was seen.
pub struct Joined {
    /// From the request until the new node is a voter.
    pub voter_s: f64,
    /// From the request until it has applied what the leader had then.
    pub caught_up_s: f64,
    /// The 99th percentile of one client's puts meanwhile, against that before.
    pub disturbance: f64,
}

/// Fills three nodes with this much, and adds a fourth.
pub async fn join(directory: std::path::PathBuf, state_bytes: u64) -> anyhow::Result<Joined> {
    let mut servers = Servers::start(true, directory).await?;
    let leader = servers.leader().await?;
    fill(&servers, leader, state_bytes).await?;
    let before = putting(&servers, leader)?;
    tokio::time::sleep(UNDISTURBED).await;
    let undisturbed = before.stop().await?;

    let joiner = servers.join().await?;
    let goal = servers.status(leader).await.map_or(0, |status| status.applied);
    let meanwhile = putting(&servers, leader)?;
    let begun = Instant::now();
    let caught_up = async {
        while servers.status(joiner).await.is_none_or(|status| status.applied < goal) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed().as_secs_f64()
    };
    let added = async {
        servers.member(leader, Action::Add, joiner).await?;
        anyhow::Ok(begun.elapsed().as_secs_f64())
    };
    let (caught_up_s, added) = tokio::join!(caught_up, added);
    let disturbed = meanwhile.stop().await?;
    let disturbance = quantile(&disturbed, 0.99) / quantile(&undisturbed, 0.99);
    Ok(Joined { voter_s: added?, caught_up_s, disturbance })
}

async fn fill(servers: &Servers, leader: usize, state_bytes: u64) -> anyhow::Result<()> {
    let Client::Ours(mut client) = servers.client(leader)? else { anyhow::bail!("only ours is filled") };
    let requests = state_bytes.div_ceil(VALUES * VALUE_BYTES as u64);
    for request in 0..requests {
        let put = |key: u64| {
            // What does not compress, cheaply.
            let mut value = Vec::with_capacity(VALUE_BYTES);
            let mut word = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            while value.len() < VALUE_BYTES {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                value.extend(word.to_le_bytes());
            }
            PutRequest { key: key.to_be_bytes().into(), value, client: 0, sequence: 0 }
        };
        let puts = (request * VALUES..(request + 1) * VALUES).map(put).collect();
        let outcomes = client.put_many(PutManyRequest { puts }).await?.into_inner().outcomes;
        anyhow::ensure!(outcomes.iter().all(|outcome| outcome.code == 0), "a put failed: {:?}", outcomes.first());
    }
    Ok(())
}

/// One client that puts, and how long each put took.
struct Putting {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<anyhow::Result<Vec<f64>>>,
}

fn putting(servers: &Servers, leader: usize) -> anyhow::Result<Putting> {
    let (stop, mut client) = (Arc::new(AtomicBool::new(false)), servers.client(leader)?);
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let mut latencies_us = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let begun = Instant::now();
            client.put(b"latency".into(), vec![7; 256]).await?;
            latencies_us.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(latencies_us)
    });
    Ok(Putting { stop, task })
}

impl Putting {
    async fn stop(self) -> anyhow::Result<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}
