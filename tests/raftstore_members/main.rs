//! Snapshots and changes of the membership with real stores and threads: what a person does to a group.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    reason = "a test may stop anywhere"
)]

mod consistency;
mod damage;
#[path = "../support/ledger.rs"]
mod ledger;
mod nodes;
mod own;

use std::time::Duration;

use mainstay::ident::{NodeId, ReplicaId};
use mainstay::raftstore::group::{ChangeRefusal, GroupConfig, MembershipChange, Role};
use mainstay::raftstore::store::{ChangeError, GroupFailure};
use nodes::{GROUP, Kind, Nodes, PATIENCE, until, within};

/// A log that is compacted soon, whoever lacks it.
fn short(config: &mut GroupConfig) {
    (config.compact_entries, config.keep_entries, config.max_lag_entries) = (20, 5, 50);
}

fn remove(replica: u64) -> MembershipChange {
    MembershipChange { remove: vec![ReplicaId::new(replica)], ..MembershipChange::default() }
}

async fn a_late_follower_gets_a_snapshot(kind: Kind) {
    let mut nodes = Nodes::found(kind, 3, short);
    nodes.put(&[1, 2, 3], 0..10, "before").await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let late = leader % 3 + 1;
    let others: Vec<u64> = (1..=3).filter(|number| *number != late).collect();
    nodes.network.isolate(NodeId::new(late), true);
    nodes.put(&others, 5..300, &"x".repeat(300)).await;
    let first = nodes.group(nodes.leader_of(&others).await).view().status.positions.first.get();
    assert!(first > 100, "the log is not kept for who is away: it begins with {first}");
    nodes.network.isolate(NodeId::new(late), false);
    nodes.agree(others[0], late).await;
    let begins = || nodes.group(late).view().status.positions.first.get();
    until("a log that begins behind a snapshot", || (begins() > 100).then_some(())).await;
    // What the machine kept in memory is as of the snapshot: the count goes on.
    nodes.put(&[1, 2, 3], 300..310, "after").await;
    nodes.agree(others[0], late).await;
    nodes.stop(late);
    nodes.restart(late);
    nodes.put(&[1, 2, 3], 310..320, "again").await;
    nodes.agree(others[0], late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_follower_gets_a_snapshot_in_memory() {
    a_late_follower_gets_a_snapshot(Kind::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_follower_gets_a_snapshot_in_rocksdb() {
    a_late_follower_gets_a_snapshot(Kind::Rocks).await;
}

/// A node is replaced: its successor joins, keeps up, becomes a voter; then the old one is removed, hears of it when it
/// comes back, and is destroyed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_replaced() {
    let mut nodes = Nodes::found(Kind::Rocks, 3, short);
    nodes.put(&[1, 2, 3], 0..100, "before").await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let old = leader % 3 + 1;
    nodes.stop(old);
    nodes.join(4, 4);
    let membership = nodes.group(leader).add_voter(ReplicaId::new(4), NodeId::new(4), PATIENCE).await.unwrap();
    assert_eq!(membership.voters.len(), 4);
    nodes.agree(leader, 4).await;
    let membership = nodes.group(leader).change_membership(remove(old), PATIENCE).await.unwrap();
    assert!(membership.was_removed(ReplicaId::new(old)) && !membership.is_joint(), "{membership:?}");
    // It comes back and knows nothing of that.
    nodes.restart(old);
    let mut view = nodes.group(old).watch();
    let failed = within("word for the removed", view.wait_for(|view| view.failure.is_some())).await;
    let failure = failed.unwrap().failure.clone().unwrap();
    assert!(matches!(*failure, GroupFailure::Removed(_)), "{failure}");
    let term = nodes.group(leader).view().status.positions.term;
    nodes.raft(old).destroy_group(GROUP).unwrap();
    assert!(nodes.raft(old).join_group(GROUP, ReplicaId::new(old)).is_err(), "its number is not used again");
    let members: Vec<u64> = (1..=4).filter(|number| *number != old).collect();
    nodes.put(&members, 100..150, "after").await;
    assert_eq!(nodes.group(leader).view().status.positions.term, term, "nobody was disturbed");
    nodes.agree(leader, 4).await;
}

/// A replica whose disk was lost does not come back under its number: it would have forgotten what it voted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_gets_a_new_number() {
    let mut nodes = Nodes::found(Kind::Memory, 3, short);
    nodes.put(&[1, 2, 3], 0..100, "before").await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let wiped = leader % 3 + 1;
    nodes.stop(wiped);
    nodes.join(wiped, 5);
    let group = nodes.group(leader);
    let add = |replica| MembershipChange {
        add: vec![(ReplicaId::new(replica), NodeId::new(wiped))],
        ..MembershipChange::default()
    };
    let taken = group.change_membership(add(5), PATIENCE).await.unwrap_err();
    assert!(matches!(taken, ChangeError::Refused(ChangeRefusal::NodeTaken(_))), "{taken}");
    group.change_membership(remove(wiped), PATIENCE).await.unwrap();
    let used = group.change_membership(add(wiped), PATIENCE).await.unwrap_err();
    assert!(matches!(used, ChangeError::Refused(ChangeRefusal::Used { .. })), "{used}");
    group.add_voter(ReplicaId::new(5), NodeId::new(wiped), PATIENCE).await.unwrap();
    nodes.agree(leader, wiped).await;
}

/// A leader that is removed steps down once that is committed, and another goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_removed() {
    let nodes = Nodes::found(Kind::Memory, 3, short);
    nodes.put(&[1, 2, 3], 0..50, "before").await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let others: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
    let membership = nodes.group(leader).change_membership(remove(leader), PATIENCE).await.unwrap();
    assert_eq!(membership.voters.len(), 2);
    let role = || nodes.group(leader).view().status.positions.role;
    until("the old leader to step down", || (role() != Role::Leader).then_some(())).await;
    nodes.put(&others, 50..100, "after").await;
    nodes.agree(others[0], others[1]).await;
    let two = nodes.group(others[0]).view().status.membership;
    assert_eq!((two.voters.len(), two.is_joint()), (2, false), "{two:?}");
}

async fn refused(nodes: &Nodes, leader: u64, change: MembershipChange) -> String {
    match nodes.group(leader).change_membership(change, PATIENCE).await {
        Err(ChangeError::Refused(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

/// What could not be carried through is refused, with the reason, and nothing has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_break_the_group_is_refused() {
    let mut nodes = Nodes::found(Kind::Memory, 3, short);
    nodes.put(&[1, 2, 3], 0..10, "before").await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (one, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let before = nodes.group(leader).view().status.membership;
    let change = MembershipChange::default;
    assert_eq!(refused(&nodes, leader, change()).await, "a change names 1 to 64 replicas");
    let all = [1, 2, 3].map(ReplicaId::new).to_vec();
    assert_eq!(refused(&nodes, leader, MembershipChange { remove: all, ..change() }).await, "no voter would be left");
    let unknown = ReplicaId::new(9);
    assert_eq!(refused(&nodes, leader, remove(9)).await, "replica 9 takes no part in the group");
    assert_eq!(
        refused(&nodes, leader, MembershipChange { promote: vec![unknown], ..change() }).await,
        "replica 9 is no learner"
    );
    let twice = MembershipChange { demote: vec![ReplicaId::new(one)], ..remove(one) };
    assert_eq!(refused(&nodes, leader, twice).await, format!("replica {one} is named twice"));
    // With one of the two others away, removing the one that is there leaves two voters of whom one lives.
    nodes.stop(one);
    until("the leader to notice", || {
        let followers = nodes.group(leader).view().status.followers;
        let silent = followers.iter().find(|follower| follower.replica.get() == one)?.silent_ticks;
        silent.filter(|ticks| *ticks > 10)
    })
    .await;
    assert_eq!(refused(&nodes, leader, remove(other)).await, "only 1 of the 2 new voters were heard of lately");
    let not_leading = nodes.group(other).change_membership(remove(one), PATIENCE).await.unwrap_err();
    assert!(matches!(not_leading, ChangeError::NotLeader { leader: Some(_) }), "{not_leading}");
    assert_eq!(nodes.group(leader).view().status.membership, before);
}

/// A leader answers reads by its lease while nobody can be asked, and not any more once another may lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_answers_reads_until_another_may_lead() {
    let nodes = Nodes::found(Kind::Memory, 3, |config| {
        // An election time-out of a second: the lease lasts three quarters of that.
        (config.lease_reads, config.election_ticks, config.request_ticks) = (true, 100, 2000);
    });
    nodes.put(&[1, 2, 3], 0..10, "before").await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let others: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
    let soon = Duration::from_millis(250);
    within("a read by asking the others", nodes.group(leader).read_barrier()).await.unwrap();
    nodes.network.isolate(NodeId::new(leader), true);
    let leased = tokio::time::timeout(soon, nodes.group(leader).read_barrier()).await;
    leased.expect("a lease").unwrap();
    nodes.put(&others, 0..10, "after").await;
    let stale = tokio::time::timeout(soon, nodes.group(leader).read_barrier()).await;
    assert!(!matches!(stale, Ok(Ok(_))), "somebody else leads");
    nodes.network.isolate(NodeId::new(leader), false);
    within("a read", nodes.group(leader).read_barrier()).await.unwrap();
    nodes.agree(leader, others[0]).await;
}

/// Two of three are gone for good: the third goes on alone with all that it has, and grows again. One of the lost that
/// turns up after all is not listened to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_after_its_majority_was_lost() {
    let mut nodes = Nodes::found(Kind::Rocks, 3, short);
    nodes.put(&[1, 2, 3], 0..60, "before").await;
    nodes.agree(1, 2).await;
    nodes.agree(1, 3).await;
    for number in 1..=3 {
        nodes.stop(number);
    }
    nodes.recover_alone(2);
    nodes.restart(2);
    nodes.put(&[2], 30..90, "after").await;
    nodes.restart(3);
    nodes.join(4, 4);
    nodes.group(2).add_voter(ReplicaId::new(4), NodeId::new(4), PATIENCE).await.unwrap();
    nodes.agree(2, 4).await;
    let mut view = nodes.group(3).watch();
    let failed = within("word for the lost", view.wait_for(|view| view.failure.is_some())).await.unwrap().clone();
    assert!(matches!(*failed.failure.unwrap(), GroupFailure::Removed(_)));
    nodes.put(&[2, 4], 90..100, "again").await;
    nodes.agree(2, 4).await;
}
