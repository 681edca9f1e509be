use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::*;
use crate::ident::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use crate::raftstore::context::Attempt;
use crate::raftstore::entry::{Entry, Membership, Unhealthy};
use crate::raftstore::group::{GroupConfig, Role};
use crate::raftstore::log_store::{
    ApplyWrite, GroupStore, KeyValue, LogStore, LogWrite, StoreError, StoredGroup, Table, TableStore,
};
use crate::raftstore::memory::MemoryStore;
use crate::raftstore::message::Envelope;
use crate::raftstore::snapshot::{Captured, Pair, Place, SnapshotId, SnapshotMeta, SnapshotStore};
use crate::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};
use crate::raftstore::transport::memory::MemoryTransport;
use crate::raftstore::transport::{MemoryNetwork, Outgoing, Transport, Unsent};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::{future::poll_fn, task::Poll};

#[path = "fakes_test.rs"]
mod fakes;
#[path = "health_test.rs"]
mod health;
#[path = "hibernation_test.rs"]
mod hibernation;
#[path = "seat_test.rs"]
mod seat;

use fakes::*;

const GROUP: GroupId = GroupId::new(7);
/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_shows_what_was_acknowledged_to_a_linearizable_read() {
    let nodes = Nodes::start(3);
    assert_eq!(nodes.add(1).await, 1);
    assert_eq!(nodes.add(2).await, 3);
    for place in 0..3 {
        nodes.group(place).read_barrier().await.unwrap();
        assert_eq!(sum_in(&*nodes.stores[place]), 3, "node {}", place + 1);
    }
    let leader = nodes.leader().await;
    let follower = (leader + 1) % 3;
    let refused = nodes.group(follower).propose([1]).await.unwrap_err();
    let expected = NodeId::new(leader as u64 + 1);
    assert!(matches!(refused, ProposeError::NotLeader { leader: Some(node) } if node == expected), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_commands_each_has_its_own_answer_in_order_and_they_share_a_write() {
    let nodes = Nodes::start(1);
    nodes.add(1).await;
    let store = &nodes.stores[0];
    let before = store.batches.load(Ordering::SeqCst);
    let attempt = Attempt { client: 3, sequence: 1 };
    let mut commands: Vec<_> = (0..100).map(|_| (vec![1], None)).collect();
    commands[10] = (Vec::new(), None);
    commands[20] = (vec![1], Some(attempt));
    commands[21] = (vec![1], Some(attempt));
    store.close();
    let waiting = tokio::spawn({
        let group = nodes.group(0).clone();
        async move { group.propose_many(commands).await }
    });
    // All are with the driver before the first write is done.
    while nodes.group(0).view().status.positions.last.get() < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.open();
    let answers = waiting.await.unwrap();
    assert_eq!(answers.len(), 100);
    assert!(matches!(answers[10], Err(ProposeError::Empty)), "{:?}", answers[10]);
    let sum = |place: usize| number(answers[place].as_ref().unwrap());
    assert_eq!((sum(0), sum(9), sum(11)), (2, 11, 12), "one after the other, past the one that was refused");
    assert_eq!(sum(20), sum(21), "an attempt that stands twice applies once");
    assert_eq!(sum(99), 99);
    let batches = store.batches.load(Ordering::SeqCst) - before;
    assert!(batches < 10, "{batches} writes of the log for one request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_groups_share_writes_of_the_log_and_of_effects() {
    let nodes = Nodes::start(1);
    nodes.add(1).await;
    let (raft, _) = nodes.running[0].as_ref().unwrap();
    let members = Membership::of_voters([(ReplicaId::new(1), NodeId::new(1))]);
    let mut groups = Vec::new();
    for group in (11..=18).map(GroupId::new) {
        raft.create_group(group, ReplicaId::new(1), members.clone()).unwrap();
        let group = raft.open_group(group, GroupConfig::new(ReplicaId::new(1)), Sum).unwrap();
        let mut view = group.watch();
        view.wait_for(|view| view.status.positions.role == Role::Leader).await.unwrap();
        assert_eq!(number(&group.propose([1]).await.unwrap()), 1);
        groups.push(group);
    }
    let store = &nodes.stores[0];
    let count = || (store.batches.load(Ordering::SeqCst), store.applies.load(Ordering::SeqCst));
    let before = count();
    store.close();
    let waiting: Vec<_> =
        groups.iter().cloned().map(|group| tokio::spawn(async move { group.propose([2]).await })).collect();
    // All are with the driver before the first write is done.
    for group in &groups {
        while group.view().status.positions.last.get() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    store.open();
    for answer in waiting {
        assert_eq!(number(&answer.await.unwrap().unwrap()), 3);
    }
    // That of the first, and that of all others: these by two threads. And one of commit indexes now and then.
    let (batches, applies) = (count().0 - before.0, count().1 - before.1);
    assert!((1..=4).contains(&batches) && (1..=4).contains(&applies), "{batches} of the log, {applies} of effects");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_the_same_process_and_goes_on() {
    let mut nodes = Nodes::start(3);
    nodes.add(5).await;
    for place in 0..3 {
        nodes.stop(place);
    }
    for place in 0..3 {
        nodes.open(place);
    }
    assert_eq!(nodes.add(1).await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_repeated_on_another_leader_and_after_a_restart_applies_once() {
    let mut nodes = Nodes::start(3);
    let attempt = Attempt { client: 9, sequence: 1 };
    let leader = nodes.leader().await;
    let first = nodes.group(leader).propose_once(attempt, [7]).await.unwrap();
    nodes.stop(leader);
    let next = nodes.leader().await;
    assert_eq!(nodes.group(next).propose_once(attempt, [7]).await.unwrap(), first);
    nodes.open(leader);
    for place in 0..3 {
        if place != leader {
            nodes.stop(place);
            nodes.open(place);
        }
    }
    let next = nodes.leader().await;
    let again = async {
        loop {
            match nodes.group(nodes.leader().await).propose_once(attempt, [7]).await {
                Ok(response) => return response,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, again).await.unwrap(), first, "asked of node {}", next + 1);
    let later = Attempt { client: 9, sequence: 2 };
    let leader = nodes.group(nodes.leader().await);
    assert_eq!(number(&leader.propose_once(later, [1]).await.unwrap()), 8);
    let old = leader.propose_once(attempt, [7]).await;
    assert!(matches!(old, Err(ProposeError::Superseded)), "{old:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_acknowledges_nothing_before_it_is_durable() {
    let nodes = Nodes::start(1);
    nodes.add(1).await;
    nodes.stores[0].close();
    let mut proposal = Box::pin(nodes.group(0).propose([1]));
    // Time has to pass for it to be acknowledged by mistake.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut proposal).await;
    nodes.stores[0].open();
    assert!(early.is_err(), "{early:?}");
    assert_eq!(number(&proposal.await.unwrap()), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposals_share_a_sync() {
    let nodes = Nodes::start(1);
    nodes.add(0).await;
    nodes.stores[0].close();
    let before = nodes.stores[0].synced.load(Ordering::SeqCst);
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(nodes.group(0).propose([1]))).collect();
    for proposal in &mut waiting {
        // Once asked, it is in the mailbox.
        assert!(poll_fn(|context| Poll::Ready(proposal.as_mut().poll(context))).await.is_pending());
    }
    nodes.stores[0].open();
    for proposal in waiting {
        proposal.await.unwrap();
    }
    let syncs = nodes.stores[0].synced.load(Ordering::SeqCst) - before;
    assert!(syncs <= 10, "{syncs} syncs for 100 proposals that came while one write was under way");
    assert_eq!(sum_in(&*nodes.stores[0]), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_stops_the_store_and_answers_everyone() {
    let nodes = Nodes::start(1);
    nodes.add(1).await;
    nodes.stores[0].fails.store(true, Ordering::SeqCst);
    let answer = nodes.group(0).propose([1]).await;
    assert!(matches!(answer, Err(ProposeError::Unknown { .. })), "{answer:?}");
    let (raft, group) = nodes.running[0].as_ref().unwrap();
    let failure = tokio::time::timeout(PATIENCE, raft.failed()).await.unwrap();
    assert!(matches!(*failure, GroupFailure::Store(_)), "{failure}");
    nodes.stores[0].fails.store(false, Ordering::SeqCst);
    let batches = nodes.stores[0].batches.load(Ordering::SeqCst);
    // Waits for the threads to end.
    raft.shutdown();
    assert!(matches!(group.propose([1]).await, Err(ProposeError::Stopped(_))));
    assert!(matches!(group.read_barrier().await, Err(ReadError::Stopped(_))));
    assert_eq!(nodes.stores[0].batches.load(Ordering::SeqCst), batches, "it went on writing");
    assert_eq!(sum_in(&*nodes.stores[0]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_applied_stops_the_group_and_is_not_skipped() {
    let mut nodes = Nodes::start(1);
    nodes.add(1).await;
    let answer = nodes.group(0).propose(*b"poison").await;
    assert!(matches!(answer, Err(ProposeError::Unknown { .. })), "{answer:?}");
    let mut view = nodes.group(0).watch();
    let stopped = tokio::time::timeout(PATIENCE, view.wait_for(|view| view.failure.is_some())).await;
    let failure = stopped.unwrap().unwrap().failure.clone().unwrap();
    assert!(matches!(*failure, GroupFailure::Apply { .. }), "{failure}");
    assert!(matches!(nodes.group(0).propose([1]).await, Err(ProposeError::Stopped(_))));
    let applied = nodes.stores[0].load(GROUP).unwrap().unwrap().applied;
    // And it stops there again, whatever is restarted.
    nodes.stop(0);
    nodes.open(0);
    let mut view = nodes.group(0).watch();
    tokio::time::timeout(PATIENCE, view.wait_for(|view| view.failure.is_some())).await.unwrap().unwrap();
    let after = nodes.stores[0].load(GROUP).unwrap().unwrap().applied;
    assert!(after <= applied.next(), "applied went from {applied} to {after}");
    assert_eq!(sum_in(&*nodes.stores[0]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_without_an_election_timeout() {
    let nodes = Nodes::start(3);
    nodes.add(1).await;
    let leader = nodes.leader().await;
    let to = (leader + 1) % 3;
    nodes.group(leader).transfer_leader(ReplicaId::new(to as u64 + 11)).await.unwrap();
    let mut view = nodes.group(to).watch();
    let led = view.wait_for(|view| view.status.positions.role == Role::Leader);
    tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
    let stranger = nodes.group(to).transfer_leader(ReplicaId::new(99)).await;
    assert!(stranger.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_compacted_on_every_node_and_a_restart_finds_the_rest() {
    let tune = |config: &mut GroupConfig| {
        config.compact_entries = 50;
        config.keep_entries = 10;
    };
    let mut nodes = Nodes::tuned(3, tune);
    for _ in 0..200 {
        nodes.add(1).await;
    }
    for place in 0..3 {
        let mut view = nodes.group(place).watch();
        let compacted = view.wait_for(|view| view.status.positions.first.get() > 50);
        tokio::time::timeout(PATIENCE, compacted).await.unwrap().unwrap();
    }
    for place in 0..3 {
        nodes.stop(place);
        assert!(nodes.stores[place].load(GROUP).unwrap().unwrap().truncated.index.get() >= 50);
        nodes.open(place);
    }
    assert_eq!(nodes.add(1).await, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_answers_no_read_and_its_proposals_are_not_invented() {
    let nodes = Nodes::start(3);
    nodes.add(1).await;
    let old = nodes.leader().await;
    nodes.network.isolate(NodeId::new(old as u64 + 1), true);
    let (read, proposal) = tokio::join!(nodes.group(old).read_barrier(), nodes.group(old).propose([100]));
    assert!(matches!(read, Err(ReadError::Expired)), "{read:?}");
    assert!(matches!(proposal, Err(ProposeError::Unknown { .. } | ProposeError::NotLeader { .. })), "{proposal:?}");
    nodes.network.isolate(NodeId::new(old as u64 + 1), false);
    let sum = nodes.add(1).await;
    assert!(sum == 2 || sum == 102, "{sum}");
    for place in 0..3 {
        nodes.group(place).read_barrier().await.unwrap();
        assert_eq!(sum_in(&*nodes.stores[place]), sum);
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_named() {
    let nodes = Nodes::start(1);
    let (raft, group) = nodes.running[0].as_ref().unwrap();
    assert!(matches!(group.propose([]).await, Err(ProposeError::Empty)));
    let large = group.propose(vec![0; (8 << 20) + 1]).await;
    assert!(matches!(large, Err(ProposeError::TooLarge { limit_bytes }) if limit_bytes == 8 << 20), "{large:?}");
    let config = || GroupConfig::new(ReplicaId::new(11));
    assert!(matches!(raft.open_group(GROUP, config(), Sum), Err(OpenError::AlreadyOpen(_))));
    assert!(matches!(raft.open_group(GroupId::new(8), config(), Sum), Err(OpenError::NoSuchGroup(_))));
    let stranger = raft.create_group(GroupId::new(8), ReplicaId::new(1), Membership::default());
    assert!(matches!(stranger, Err(StoreError::Refused(_))));
    let nonsense = StoreConfig {
        tick: Duration::ZERO,
        max_persist_queue_bytes: 0,
        check_period: Duration::from_millis(1),
        check_bytes_per_second: 1,
        stall_limit: Duration::ZERO,
        ..StoreConfig::default()
    };
    let network = MemoryNetwork::new();
    let started = RaftStore::start(nonsense, Arc::new(MemoryStore::new()), Arc::new(network.transport(NodeId::new(1))));
    let problems = started.err().unwrap().to_string();
    for field in ["tick", "max_persist_queue_bytes", "check_period", "check_bytes_per_second", "stall_limit"] {
        assert!(problems.contains(field), "{field}: {problems}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_group_is_gone_with_all_that_was_under_way() {
    let nodes = Nodes::start(1);
    nodes.add(1).await;
    let (store, group) = (&nodes.stores[0], nodes.group(0).clone());
    let raft = &nodes.running[0].as_ref().unwrap().0;
    // Proposals are on their way to the disk while the group is destroyed.
    store.close();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let group = group.clone();
            tokio::spawn(async move { group.propose([1]).await })
        })
        .collect();
    while group.view().status.positions.last.get() < 50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::thread::scope(|scope| {
        let destroyed = scope.spawn(|| raft.destroy_group(GROUP));
        while !matches!(group.view().failure.as_deref(), Some(GroupFailure::Destroyed(GROUP))) {
            std::thread::yield_now();
        }
        store.open();
        destroyed.join().unwrap().unwrap();
    });
    for answer in waiting {
        assert!(matches!(answer.await.unwrap(), Err(ProposeError::Unknown { .. })));
    }
    let late = group.propose([1]).await;
    assert!(
        matches!(&late, Err(ProposeError::Stopped(StoreStopped(why))) if matches!(**why, GroupFailure::Destroyed(_))),
        "{late:?}"
    );
    assert!(matches!(group.read_barrier().await, Err(ReadError::Stopped(_))));
    assert_eq!(raft.groups().unwrap(), []);
    let replica = ReplicaId::new(11);
    assert_eq!(raft.tombstones().unwrap(), [(GROUP, replica)]);
    assert!(matches!(raft.destroy_group(GROUP), Err(OpenError::NoSuchGroup(GROUP))));
    assert!(matches!(raft.open_group(GROUP, GroupConfig::new(replica), Sum), Err(OpenError::NoSuchGroup(_))));

    // The store goes on. The same replica is refused, a later one begins with nothing.
    let members = |replica| Membership::of_voters([(replica, NodeId::new(1))]);
    assert!(matches!(raft.create_group(GROUP, replica, members(replica)), Err(StoreError::Refused(_))));
    let replica = ReplicaId::new(12);
    raft.create_group(GROUP, replica, members(replica)).unwrap();
    let group = raft.open_group(GROUP, GroupConfig::new(replica), Sum).unwrap();
    let mut view = group.watch();
    view.wait_for(|view| view.status.positions.role == Role::Leader).await.unwrap();
    assert_eq!(number(&group.propose([5]).await.unwrap()), 5, "nothing of the old sum is left");
    assert_eq!(group.view().status.positions.term, Term::new(1));
}

/// What arrives late for a group that was destroyed finds nobody, and makes nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_do_not_bring_a_destroyed_replica_back() {
    let nodes = Nodes::start(3);
    nodes.add(1).await;
    let leader = nodes.leader().await;
    let gone = (leader + 1) % 3;
    let raft = &nodes.running[gone].as_ref().unwrap().0;
    raft.destroy_group(GROUP).unwrap();
    // The leader goes on sending to it.
    for value in 1..20 {
        nodes.add(value).await;
    }
    assert_eq!(raft.groups().unwrap(), []);
    assert_eq!(nodes.stores[gone].load(GROUP).unwrap(), None);
    assert!(nodes.stores[gone].entries(GROUP, LogIndex::new(1)..LogIndex::new(9), 1000).unwrap().is_empty());
    assert_eq!(raft.tombstones().unwrap().len(), 1);
}
