//! Groups whose machines keep their own position, each in a file of its own: replicas join by snapshot, are compared, and
//! repaired.

use mainstay::ident::{NodeId, ReplicaId};
use mainstay::raftstore::group::Role;
use mainstay::raftstore::store::GroupTrouble;

use crate::consistency::{at_rest, check, healthy, replicas};
use crate::nodes::{GROUP, Kind, Nodes, PATIENCE, until};
use crate::short;

/// Nothing waits in the tables for a machine.
fn all_installed(nodes: &Nodes, among: &[u64]) {
    for number in among {
        assert_eq!(nodes.shown_in_tables(*number), vec![], "node {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_joins_by_snapshot_and_holds_the_same() {
    let mut nodes = Nodes::found(Kind::Own, 3, short);
    nodes.put(&[1, 2, 3], 0..400, &"x".repeat(300)).await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let first = nodes.group(leader).view().status.positions.first.get();
    assert!(first > 100, "the log is not compacted: it begins with {first}");
    nodes.join(4, 4);
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    nodes.group(leader).add_voter(ReplicaId::new(4), NodeId::new(4), PATIENCE).await.unwrap();
    nodes.put(&[1, 2, 3, 4], 400..450, "while it joins").await;
    nodes.agree(leader, 4).await;
    at_rest(&nodes, &[1, 2, 3, 4]).await;
    let verdict = check(&nodes, &[1, 2, 3, 4]).await;
    assert_eq!((verdict.is_good(), verdict.digests.len(), verdict.missing), (true, 4, vec![]));
    all_installed(&nodes, &[1, 2, 3, 4]);
    // What it installed is durable, and it goes on as any.
    nodes.stop(4);
    nodes.restart(4);
    nodes.put(&[1, 2, 3], 450..460, "later").await;
    nodes.agree(leader, 4).await;
    let leader = nodes.leader_of(&[1, 2, 3, 4]).await;
    if leader != 4 {
        nodes.group(leader).transfer_leader(ReplicaId::new(4)).await.unwrap();
    }
    let leads = || nodes.group(4).view().status.positions.role == Role::Leader;
    until("it to lead", || leads().then_some(())).await;
    nodes.put(&[4], 460..470, "led by it").await;
    at_rest(&nodes, &[4, 1, 2, 3]).await;
    assert!(check(&nodes, &[1, 2, 3, 4]).await.is_good());
}

/// Snapshots while writes and checks go on, one soon after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_follower_takes_one_snapshot_after_the_other() {
    let mut nodes = Nodes::found(Kind::Own, 3, short);
    nodes.put(&[1, 2, 3], 0..20, "before").await;
    let late = nodes.leader_of(&[1, 2, 3]).await % 3 + 1;
    let others: Vec<u64> = (1..=3).filter(|number| *number != late).collect();
    let mut began = 0;
    for round in 1..=3u64 {
        nodes.network.isolate(NodeId::new(late), true);
        nodes.put(&others, 5..200, &format!("{round}")).await;
        nodes.network.isolate(NodeId::new(late), false);
        let first = || nodes.group(late).view().status.positions.first.get();
        began = until("a log that begins behind a snapshot", || Some(first()).filter(|first| *first > began)).await;
        nodes.agree(others[0], late).await;
    }
    nodes.stop(late);
    nodes.restart(late);
    nodes.put(&[1, 2, 3], 200..210, "again").await;
    at_rest(&nodes, &[others[0], others[1], late]).await;
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.is_good(), verdict.missing), (true, vec![]));
    all_installed(&nodes, &[1, 2, 3]);
}

/// The machine fails while it installs what was taken over: its group stops here, and finishes that when it is opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_install_that_failed_is_finished_at_the_next_start() {
    let mut nodes = Nodes::found(Kind::Own, 3, short);
    nodes.put(&[1, 2, 3], 0..300, &"x".repeat(300)).await;
    nodes.join(4, 4);
    nodes.ledger(4).break_next_install();
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let joined = tokio::spawn({
        let group = nodes.group(leader).clone();
        async move { group.add_voter(ReplicaId::new(4), NodeId::new(4), PATIENCE).await }
    });
    until("its machine to fail", || {
        let health = nodes.raft(4).health();
        matches!(health.groups.get(&GROUP), Some(GroupTrouble::Stopped(_))).then_some(())
    })
    .await;
    assert_eq!((nodes.shown(4).len(), nodes.ledger(4).held().applied), (0, 0));
    assert!(!nodes.shown_in_tables(4).is_empty(), "what it has to install is kept");
    nodes.stop(4);
    nodes.restart(4);
    // It was installed before the group was opened.
    assert!(nodes.ledger(4).held().applied > 100);
    all_installed(&nodes, &[4]);
    joined.await.unwrap().unwrap();
    nodes.put(&[1, 2, 3, 4], 300..310, "later").await;
    at_rest(&nodes, &[1, 2, 3, 4]).await;
    assert!(check(&nodes, &[1, 2, 3, 4]).await.is_good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_differs_is_named_and_repaired() {
    let mut nodes = Nodes::found(Kind::Own, 3, short);
    nodes.put(&[1, 2, 3], 0..100, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (bad, good) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    nodes.ledger(bad).tamper(b"000003", b"=wrong");
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.differing(), verdict.missing), (replicas(&[bad]), vec![]));
    healthy(&nodes, bad).await;
    nodes.agree(good, bad).await;
    nodes.put(&[1, 2, 3], 100..110, "later").await;
    nodes.stop(bad);
    nodes.restart(bad);
    nodes.put(&[1, 2, 3], 110..120, "again").await;
    at_rest(&nodes, &[leader, bad, good]).await;
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.is_good(), verdict.missing), (true, vec![]));
    all_installed(&nodes, &[1, 2, 3]);
}
