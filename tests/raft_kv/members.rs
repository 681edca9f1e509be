//! Nodes join and leave while clients write, and are killed in the middle of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PATIENCE};
use crate::proto::member_request::Action;
use crate::proto::{MemberRequest, PutManyRequest, PutRequest};
use crate::{History, start_clients};

/// Nodes that join in the test, one after the other; `RAFT_JOINS` sets another number.
const JOINS: usize = 6;
/// What a snapshot holds at least.
const BULK_VALUES: u64 = 400;
const BULK_VALUE_BYTES: usize = 8 << 10;

/// The voters that the leader knows of, from 0.
async fn voters(cluster: &Cluster) -> Vec<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = cluster.await_leader().await;
        if let Some(status) = cluster.status(leader).await.filter(|status| status.leader == status.node) {
            return status.voters.iter().map(|voter| *voter as usize - 1).collect();
        }
        assert!(Instant::now() < deadline, "nobody says who takes part:\n{}", cluster.logs());
    }
}

/// Asks whoever leads until the change is there.
async fn change(cluster: &Cluster, node: usize, action: Action) {
    let deadline = Instant::now() + 2 * PATIENCE;
    let wanted = action == Action::Add;
    let mut last = String::new();
    while voters(cluster).await.contains(&node) != wanted {
        assert!(Instant::now() < deadline, "{action:?} {}: {last}\n{}", node + 1, cluster.logs());
        let leader = cluster.await_leader().await;
        let request = MemberRequest { action: action.into(), node: node as u64 + 1, ..MemberRequest::default() };
        if let Err(status) = cluster.client(leader).member(request).await {
            last = status.message().to_owned();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn fill(cluster: &Cluster) {
    let leader = cluster.await_leader().await;
    for from in (0..BULK_VALUES).step_by(50) {
        let put = |key: u64| PutRequest {
            key: [&b"bulk"[..], &key.to_be_bytes()].concat(),
            value: vec![key as u8; BULK_VALUE_BYTES],
            client: 0,
            sequence: 0,
        };
        let puts = (from..from + 50).map(put).collect();
        let outcomes = cluster.client(leader).put_many(PutManyRequest { puts }).await.unwrap().into_inner().outcomes;
        assert!(outcomes.iter().all(|outcome| outcome.code == 0), "{outcomes:?}");
    }
}

/// One node after the other is replaced, under load: in turn the leader is killed in the middle, the node that joins, or
/// nobody. Whoever was removed is killed and gone for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_and_leave_under_kills() {
    let joins = std::env::var("RAFT_JOINS").ok().and_then(|joins| joins.parse().ok()).unwrap_or(JOINS);
    let mut cluster = Cluster::with_spares(3, joins);
    fill(&cluster).await;
    let (history, stop) = (Arc::new(History::default()), Arc::new(AtomicBool::new(false)));
    let mut tasks = start_clients(&cluster, &history, &stop);
    for joiner in 3..3 + joins {
        cluster.restart(joiner);
        let leader = cluster.await_leader().await;
        let victim = [Some(leader), Some(joiner), None][joiner % 3];
        if let Some(victim) = victim {
            // Begun, and cut off: whoever goes on finds it half done, or not at all.
            let request =
                MemberRequest { action: Action::Add.into(), node: joiner as u64 + 1, ..MemberRequest::default() };
            let mut client = cluster.client(leader);
            let begun = tokio::spawn(async move { client.member(request).await });
            cluster.await_write().await;
            cluster.kill(victim);
            drop(begun.await);
            cluster.restart(victim);
        }
        change(&cluster, joiner, Action::Add).await;
        let with = cluster.await_leader().await;
        cluster.await_caught_up(joiner, with).await;
        let oldest = voters(&cluster).await.into_iter().min().unwrap();
        change(&cluster, oldest, Action::Remove).await;
        if cluster.is_running(oldest) {
            cluster.kill(oldest);
        }
        cluster.await_write().await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let acknowledged = history.acknowledged.load(Ordering::SeqCst);
    println!("{joins} nodes replaced, {acknowledged} writes acknowledged");
    assert!(acknowledged > 10 * joins as u64, "only {acknowledged} writes");
    let last: Vec<usize> = voters(&cluster).await;
    assert_eq!(last, (joins..joins + 3).collect::<Vec<_>>());
    history.check();
    bulk_is_there(&cluster).await;
}

/// What was written before everybody was replaced is still there, everywhere.
async fn bulk_is_there(cluster: &Cluster) {
    for node in voters(cluster).await {
        for key in (0..BULK_VALUES).step_by(37) {
            let request = crate::GetRequest { key: [&b"bulk"[..], &key.to_be_bytes()].concat() };
            let response = cluster.client(node).get(request).await.unwrap().into_inner();
            assert_eq!(response.value, vec![key as u8; BULK_VALUE_BYTES], "key {key} on node {}", node + 1);
        }
    }
}
