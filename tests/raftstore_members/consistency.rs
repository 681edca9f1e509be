//! Replicas whose state is wrong: found by a check or in reading, named, kept from leading, repaired by a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay::ident::{NodeId, ReplicaId};
use mainstay::raftstore::consistency::{CheckRefusal, Verdict};
use mainstay::raftstore::entry::{Cause, Unhealthy};
use mainstay::raftstore::group::{GroupConfig, Role};
use mainstay::raftstore::log_store::{Table, TableWrite};
use mainstay::raftstore::store::{CheckError, GroupTrouble, ReadError};

use crate::nodes::{GROUP, Kind, Nodes, PATIENCE, TRAP, until, within};
use crate::short;

/// A replica whose state is wrong stays as it is.
fn unrepaired(config: &mut GroupConfig) {
    config.snapshots = false;
}

fn wrong() -> TableWrite {
    TableWrite::Put(Table::Kv, b"000003".to_vec(), b"=wrong".to_vec())
}

pub fn replicas(numbers: &[u64]) -> Vec<ReplicaId> {
    numbers.iter().copied().map(ReplicaId::new).collect()
}

/// All of them have applied the same, and all that was acknowledged before.
pub async fn at_rest(nodes: &Nodes, among: &[u64]) {
    // A view may be older than an answer; that of a leader who has answered a read is not.
    let leader = within("a read", async {
        loop {
            let leader = nodes.leader_of(among).await;
            if nodes.group(leader).read_barrier().await.is_ok() {
                return leader;
            }
        }
    });
    let leader = leader.await;
    until("replicas at rest", || {
        let positions = |number: u64| nodes.group(number).view().status.positions;
        let last = positions(leader).last;
        among.iter().all(|number| positions(*number).applied == last).then_some(())
    })
    .await;
}

pub async fn check(nodes: &Nodes, among: &[u64]) -> Verdict {
    let checked = async {
        loop {
            let leader = nodes.leader_of(among).await;
            match nodes.group(leader).check_consistency(PATIENCE).await {
                Ok(verdict) => return verdict,
                Err(CheckError::NotLeader { .. } | CheckError::Busy | CheckError::GivenUp(_)) => {}
                // Nobody has said so yet to a leader that has just begun.
                Err(CheckError::Refused(CheckRefusal::NotKnown { .. })) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    within("a check", checked).await
}

pub fn unhealthy(nodes: &Nodes, number: u64) -> Option<Unhealthy> {
    nodes.group(number).view().status.unhealthy
}

pub async fn healthy(nodes: &Nodes, number: u64) {
    until("a replica that is well", || unhealthy(nodes, number).is_none().then_some(())).await;
    until("a node that is well", || nodes.raft(number).health().is_good().then_some(())).await;
}

async fn a_follower_that_differs(kind: Kind) {
    let mut nodes = Nodes::found(kind, 3, short);
    nodes.put(&[1, 2, 3], 0..40, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (bad, good) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    nodes.tamper(bad, wrong());
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.differing(), verdict.missing.clone()), (replicas(&[bad]), vec![]));
    // Everybody knows who it is.
    for number in 1..=3 {
        let last = || nodes.group(number).view().status.last_check;
        until("the verdict on each node", || last().filter(|last| *last == verdict)).await;
    }
    // What replaces it is what the others have, though nobody writes.
    healthy(&nodes, bad).await;
    nodes.agree(good, bad).await;
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    // And it is as good as any from here on, also after a restart.
    nodes.put(&[1, 2, 3], 40..80, "later").await;
    nodes.stop(bad);
    nodes.restart(bad);
    nodes.put(&[1, 2, 3], 80..90, "again").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    if leader != bad {
        nodes.group(leader).transfer_leader(ReplicaId::new(bad)).await.unwrap();
    }
    let leads = || nodes.group(bad).view().status.positions.role == Role::Leader;
    until("it to lead", || leads().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_differs_is_named_and_repaired_in_memory() {
    a_follower_that_differs(Kind::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_differs_is_named_and_repaired_in_rocksdb() {
    a_follower_that_differs(Kind::Rocks).await;
}

/// Replicas apply the same entries in other batches, and at other times: the states that are compared are as of one entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_while_writes_go_on_find_nothing() {
    let nodes = Nodes::found(Kind::Rocks, 3, short);
    nodes.put(&[1, 2, 3], 0..10, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let group = nodes.group(leader).clone();
    let is_done = Arc::new(AtomicBool::new(false));
    let writes = {
        let (group, is_done) = (group.clone(), Arc::clone(&is_done));
        tokio::spawn(async move {
            let mut count = 0_u64;
            while !is_done.load(Ordering::SeqCst) {
                let commands = (0..64).map(|key| (format!("{key:06}={count}").into_bytes(), None));
                count += group.propose_many(commands).await.iter().filter(|answer| answer.is_ok()).count() as u64;
            }
            count
        })
    };
    let mut verdicts = Vec::new();
    for _ in 0..8 {
        verdicts.push(tokio::time::timeout(PATIENCE, group.check_consistency(PATIENCE)).await);
    }
    is_done.store(true, Ordering::SeqCst);
    let count = writes.await.unwrap();
    let verdicts: Vec<Verdict> = verdicts.into_iter().map(|verdict| verdict.unwrap().unwrap()).collect();
    assert!(verdicts.iter().all(Verdict::is_good), "{verdicts:?}");
    // Where much is built and tested at once, somebody may be silent for a moment.
    let whole = verdicts.iter().filter(|verdict| verdict.missing.is_empty()).count();
    assert!(whole >= 4 && count > 500, "{verdicts:?}, {count} writes");
    assert!(verdicts.is_sorted_by(|one, next| one.index < next.index), "{verdicts:?}");
}

/// The leader is no better than others: the majority is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_differs_hands_leadership_over_and_is_repaired() {
    let nodes = Nodes::found(Kind::Rocks, 3, short);
    nodes.put(&[1, 2, 3], 0..40, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    let bad = nodes.leader_of(&[1, 2, 3]).await;
    let others: Vec<u64> = (1..=3).filter(|number| *number != bad).collect();
    nodes.tamper(bad, wrong());
    let verdict = nodes.group(bad).check_consistency(PATIENCE).await.unwrap();
    assert_eq!(verdict.differing(), replicas(&[bad]));
    nodes.leader_of(&others).await;
    healthy(&nodes, bad).await;
    nodes.agree(others[0], bad).await;
    nodes.put(&[1, 2, 3], 40..60, "later").await;
    nodes.agree(others[0], bad).await;
}

/// Without a snapshot it stays what it is: it answers nothing, does not lead whoever asks and whoever is gone, and knows
/// after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_repaired_does_not_lead_and_does_not_forget() {
    let mut nodes = Nodes::found(Kind::Rocks, 3, unrepaired);
    nodes.put(&[1, 2, 3], 0..10, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (bad, good) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    nodes.tamper(bad, wrong());
    let index = check(&nodes, &[1, 2, 3]).await.index;
    let known = Some(Unhealthy { cause: Cause::Differs, index });
    until("the replica to know", || (unhealthy(&nodes, bad) == known).then_some(())).await;
    let health = nodes.raft(bad).health();
    assert!(matches!(health.groups.get(&GROUP), Some(GroupTrouble::Unhealthy(_))), "{health:?}");
    nodes.stop(bad);
    nodes.restart(bad);
    assert_eq!(unhealthy(&nodes, bad), known, "it has forgotten");
    nodes.put(&[1, 2, 3], 10..20, "later").await;
    let read = within("a read", nodes.group(bad).read_barrier()).await;
    assert!(matches!(read, Err(ReadError::Unhealthy)), "{read:?}");
    let leader = nodes.leader_of(&[leader, good]).await;
    let offered = nodes.group(leader).transfer_leader(ReplicaId::new(bad)).await;
    assert!(offered.is_err(), "leadership is offered to it");
    // It votes, and follows: with it alone the other one leads.
    let other = if leader == good { 6 - bad - good } else { good };
    nodes.stop(leader);
    nodes.put(&[other, bad], 20..30, "with it").await;
    assert_eq!(nodes.leader_of(&[other, bad]).await, other);
    // Alone it does not even try.
    let term = nodes.group(bad).view().status.positions.term;
    nodes.stop(other);
    let lost = || nodes.group(bad).view().status.positions;
    let waited = tokio::time::timeout(Duration::from_millis(500), async {
        until("an election", || (lost().role != Role::Follower || lost().term > term).then_some(())).await;
    });
    assert!(waited.await.is_err(), "it stands for election: {:?}", lost());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_by_itself_finds_and_repairs() {
    let nodes = Nodes::found_in(Kind::Rocks, 3, short, |config| config.check_period = Duration::from_secs(1));
    nodes.put(&[1, 2, 3], 0..40, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (bad, good) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    // Where nothing but checks happens, a write behind its back may meet one: it is as of the entry that was applied.
    nodes.tamper(bad, wrong());
    nodes.agree(good, bad).await;
    healthy(&nodes, bad).await;
    nodes.put(&[1, 2, 3], 40..50, "later").await;
    nodes.agree(good, bad).await;
}

/// Two of three differ, and not in the same way: nobody knows who is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_it_is_said_and_nothing_is_repaired() {
    let nodes = Nodes::found(Kind::Memory, 3, short);
    nodes.put(&[1, 2, 3], 0..40, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    for number in 1..=2 {
        nodes.tamper(number, TableWrite::Put(Table::Kv, b"000003".to_vec(), vec![number as u8]));
    }
    let shown = [1, 2, 3].map(|number| nodes.shown(number));
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.right, verdict.differing(), verdict.digests.len()), (None, vec![], 3));
    for number in 1..=3 {
        until("the word on each node", || {
            let health = nodes.raft(number).health();
            matches!(health.groups.get(&GROUP), Some(GroupTrouble::Undecided { .. })).then_some(())
        })
        .await;
        assert_eq!(unhealthy(&nodes, number), None);
        assert_eq!(nodes.shown(number), shown[number as usize - 1]);
    }
    // A majority that agrees again decides.
    for number in 1..=2 {
        nodes.tamper(number, TableWrite::Put(Table::Kv, b"000003".to_vec(), b"=value".to_vec()));
    }
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    for number in 1..=3 {
        healthy(&nodes, number).await;
    }
}

/// Who cannot be reached is not waited for, and a minority is not enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_goes_on_without_those_that_are_away() {
    let mut nodes = Nodes::found(Kind::Memory, 3, short);
    nodes.put(&[1, 2, 3], 0..40, "value").await;
    // All have said to who leads that they know checks.
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (away, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    nodes.stop(away);
    let verdict = check(&nodes, &[leader, other]).await;
    assert_eq!((verdict.is_good(), verdict.missing), (true, replicas(&[away])));
    let refused = nodes.group(other).check_consistency(PATIENCE).await;
    let node = NodeId::new(leader);
    assert!(matches!(refused, Err(CheckError::NotLeader { leader: Some(leader) }) if leader == node), "{refused:?}");
    nodes.restart(away);
    nodes.put(&[1, 2, 3], 0..5, "later").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    let verdict = check(&nodes, &[1, 2, 3]).await;
    assert_eq!((verdict.is_good(), verdict.missing), (true, vec![]));
}

/// A session that is none is met when the group is opened: its replica does not stop the node, but is repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_is_met_at_the_start_is_repaired() {
    let mut nodes = Nodes::found(Kind::Rocks, 3, short);
    nodes.put(&[1, 2, 3], 0..40, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (bad, good) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    nodes.tamper(bad, TableWrite::Put(Table::Sessions, vec![7; 8], vec![9]));
    nodes.stop(bad);
    nodes.restart(bad);
    nodes.put(&[1, 2, 3], 40..60, "later").await;
    healthy(&nodes, bad).await;
    nodes.agree(good, bad).await;
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
}

/// Its machine fails where those of the others do not: that is no news, and no reason to stop the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_fails_while_it_is_wrong_waits_for_its_repair() {
    let mut nodes = Nodes::found(Kind::Rocks, 3, unrepaired);
    nodes.put(&[1, 2, 3], 0..40, "value").await;
    at_rest(&nodes, &[1, 2, 3]).await;
    let leader = nodes.leader_of(&[1, 2, 3]).await;
    let (bad, good) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    nodes.tamper(bad, TableWrite::Put(Table::Catalog, TRAP.to_vec(), b"000041".to_vec()));
    assert_eq!(check(&nodes, &[1, 2, 3]).await.differing(), replicas(&[bad]));
    // It would take a snapshot from now on, but nobody gives one yet.
    nodes.tune = short;
    nodes.stop(bad);
    nodes.restart(bad);
    nodes.put(&[1, 2, 3], 40..60, "later").await;
    let is_damaged = || unhealthy(&nodes, bad).is_some_and(|unhealthy| unhealthy.cause == Cause::Damaged);
    until("the machine to fail", || is_damaged().then_some(())).await;
    let applied = nodes.group(bad).view().status.positions.applied;
    assert!(nodes.group(bad).view().failure.is_none());
    // Nor is anything applied after a restart.
    nodes.stop(bad);
    nodes.restart(bad);
    assert!(unhealthy(&nodes, bad).is_some_and(|unhealthy| unhealthy.cause == Cause::Damaged));
    nodes.put(&[1, 2, 3], 60..70, "again").await;
    assert_eq!(nodes.group(bad).view().status.positions.applied, applied);
    for number in [leader, good] {
        nodes.stop(number);
        nodes.restart(number);
        nodes.put(&[1, 2, 3], 70..75, "with snapshots").await;
    }
    healthy(&nodes, bad).await;
    nodes.agree(good, bad).await;
    assert!(check(&nodes, &[1, 2, 3]).await.is_good());
}
