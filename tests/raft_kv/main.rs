//! Real processes of `examples/raft_kv`: killed and paused under load, with a checker of linearizability behind them.

#![cfg(test)]

mod cluster;
mod groups;
mod hosts;
mod members;
mod operator;
mod register;
mod register_test;

mod proto {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    tonic::include_proto!("raft_kv");
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::Cluster;
use hosts::Hosts;
use proto::{GetRequest, PutRequest};
use register::{Action, History, NEVER, Operation};
use tokio::task::JoinSet;
use tonic::Code;

const KEYS: u64 = 3;
const CLIENTS: u64 = 6;
/// Kills in the test; `RAFT_KILLS` sets another number.
const KILLS: u64 = 30;
/// Partitions in the test; `RAFT_CUTS` sets another number.
const CUTS: u64 = 6;
/// Writes of clients between two of them.
const CALM: u64 = 50;

/// A number from the environment.
fn told(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|told| told.parse().ok()).unwrap_or(otherwise)
}

/// A client: reads and writes through changing nodes until it is told to stop.
async fn client(
    id: u64,
    clients: Vec<proto::kv_client::KvClient<tonic::transport::Channel>>,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
) {
    let mut node = id as usize % clients.len();
    let mut turn = id;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let key = turn % KEYS;
        let name = key.to_be_bytes().to_vec();
        let mut client = clients[node].clone();
        if turn.is_multiple_of(2) {
            let start = history.now();
            if let Ok(response) = client.get(GetRequest { key: name }).await {
                let response = response.into_inner();
                let bytes = response.value.first_chunk().copied().unwrap_or_default();
                let value = response.found.then_some(u64::from_be_bytes(bytes));
                history.note(key, Operation { action: Action::Read(value), start, end: history.now() });
            } else {
                node = (node + 1) % clients.len();
            }
            continue;
        }
        let value = history.new_value();
        let start = history.now();
        // The same attempt until it is answered: it must not be applied twice.
        let put = PutRequest { key: name, value: value.to_be_bytes().into(), client: id + 1, sequence: value };
        let mut end = NEVER;
        for _ in 0..20 {
            match clients[node].clone().put(put.clone()).await {
                Ok(_) => {
                    end = history.now();
                    history.acknowledged.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Err(status) => {
                    assert_ne!(status.code(), Code::InvalidArgument, "{status}");
                    node = (node + 1) % clients.len();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        history.note(key, Operation { action: Action::Write(value), start, end });
    }
}

fn start_clients(cluster: &Cluster, history: &Arc<History>, stop: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for id in 0..CLIENTS {
        let clients = (0..cluster.size()).map(|node| cluster.client(node)).collect();
        tasks.spawn(client(id, clients, Arc::clone(history), Arc::clone(stop)));
    }
    tasks
}

/// Leaders and followers are killed in turn, and every seventh victim is paused for longer than an election takes
/// instead. No acknowledged write is lost, no read is stale.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_pauses_under_load_lose_nothing() {
    let kills = told("RAFT_KILLS", KILLS);
    let mut cluster = Cluster::start(3);
    cluster.await_leader().await;
    let (history, stop) = (Arc::new(History::default()), Arc::new(AtomicBool::new(false)));
    let mut tasks = start_clients(&cluster, &history, &stop);
    for kill in 0..kills {
        let leader = cluster.await_leader().await;
        let victim = if kill % 2 == 0 { leader } else { (leader + 1 + kill as usize / 2 % 2) % 3 };
        let other = (victim + 1) % 3;
        if kill % 7 == 6 {
            cluster.signal(victim, "-STOP");
            // Longer than an election takes: the others must not notice that it comes back.
            cluster.await_write().await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            cluster.signal(victim, "-CONT");
        } else {
            cluster.kill(victim);
            cluster.await_write().await;
            cluster.restart(victim);
        }
        cluster.await_caught_up(victim, other).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let acknowledged = history.acknowledged.load(Ordering::SeqCst);
    println!("{kills} kills and pauses, {acknowledged} writes acknowledged");
    assert!(acknowledged > 10 * kills, "only {acknowledged} writes in {kills} rounds");
    history.check();
}

/// Without a majority nothing is acknowledged and nothing hangs; with one again, everything goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_acknowledges_nothing() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.await_leader().await;
    cluster.await_write().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for node in others {
        cluster.kill(node);
    }
    let put = PutRequest { key: b"k".into(), value: b"v".into(), client: 0, sequence: 0 };
    let refused = cluster.client(leader).put(put).await.unwrap_err();
    assert!(matches!(refused.code(), Code::DeadlineExceeded | Code::Unavailable), "{refused}");
    let refused = cluster.client(leader).get(GetRequest { key: b"k".into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    cluster.restart(others[0]);
    cluster.await_write().await;
}

/// A leader that is cut off from the others, but not from its clients, answers no read with what is old and acknowledges
/// nothing; the others go on; when it is back, it follows. Also one-way: it can send, and hears nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_lose_nothing_and_let_no_stale_read_through() {
    let hosts = match Hosts::make() {
        Ok(hosts) => hosts,
        Err(why) => return println!("skipped: network namespaces cannot be made here: {why}"),
    };
    let cluster = Cluster::start_on(hosts);
    cluster.await_leader().await;
    let (history, stop) = (Arc::new(History::default()), Arc::new(AtomicBool::new(false)));
    let mut tasks = start_clients(&cluster, &history, &stop);
    for round in 0..told("RAFT_CUTS", CUTS) {
        let leader = cluster.await_leader().await;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        for other in others {
            cluster.hosts().cut(other, leader);
            if round % 3 != 2 {
                cluster.hosts().cut(leader, other);
            }
        }
        cluster.await_write_by(&others).await;
        for other in others {
            cluster.hosts().mend(other, leader);
            if round % 3 != 2 {
                cluster.hosts().mend(leader, other);
            }
        }
        cluster.await_caught_up(leader, others[0]).await;
        // Also the clients get on: there is something to check.
        cluster.await_clients(&history, CALM).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    println!("{} writes acknowledged", history.acknowledged.load(Ordering::SeqCst));
    history.check();
}
