//! The watchdog: disks that hang, drivers that do not turn, and what comes of it.

use super::*;

/// After how long something counts as stalled here.
const LIMIT: Duration = Duration::from_millis(100);
/// Within this, leadership has left a node whose disk hangs: the limit, a look, and a hand-over or an election.
const BOUND: Duration = Duration::from_secs(3);

fn watched(config: &mut StoreConfig) {
    config.stall_limit = LIMIT;
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let polled = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

impl Nodes {
    fn raft(&self, place: usize) -> &RaftStore {
        &self.running[place].as_ref().unwrap().0
    }

    fn role(&self, place: usize) -> Role {
        self.group(place).view().status.positions.role
    }

    fn stalls(&self, place: usize, worker: Worker) -> bool {
        self.raft(place).health().stalled.iter().any(|stall| stall.worker == worker && stall.since > LIMIT)
    }

    async fn is_good(&self, place: usize) {
        until("a node that is well", || self.raft(place).health().is_good()).await;
    }
}

/// Begins a write on a node whose disk hangs.
fn begin_write(nodes: &Nodes, place: usize) -> tokio::task::JoinHandle<Result<Bytes, ProposeError>> {
    let group = nodes.group(place).clone();
    tokio::spawn(async move { group.propose([1]).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_hangs_gives_leadership_away_until_it_moves() {
    let nodes = Nodes::tuned_in(3, |_| {}, watched);
    nodes.add(1).await;
    let hung = nodes.leader().await;
    let others: Vec<usize> = (0..3).filter(|place| *place != hung).collect();
    nodes.is_good(hung).await;
    nodes.stores[hung].close();
    let begun = std::time::Instant::now();
    let waiting = begin_write(&nodes, hung);
    until("another leader", || others.iter().any(|place| nodes.role(*place) == Role::Leader)).await;
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    until("the old leader to know", || nodes.role(hung) != Role::Leader).await;
    assert!(nodes.stalls(hung, Worker::Persist), "{:?}", nodes.raft(hung).health());
    let _ = waiting.await.unwrap();
    // The others go on.
    let sum = nodes.add(10).await;
    // Nobody is heard of, and it does not stand for election all the same.
    let node = NodeId::new(hung as u64 + 1);
    nodes.network.isolate(node, true);
    let stood = tokio::time::timeout(5 * LIMIT, until("an election", || nodes.role(hung) != Role::Follower)).await;
    assert!(stood.is_err(), "it stands for election while its disk hangs");
    // The disk moves again, and so does the node.
    nodes.stores[hung].open();
    nodes.network.isolate(node, false);
    nodes.is_good(hung).await;
    nodes.group(hung).read_barrier().await.unwrap();
    assert_eq!(sum_in(&*nodes.stores[hung]), sum);
    let back = async {
        while nodes.role(hung) != Role::Leader {
            let leader = nodes.group(nodes.leader().await).clone();
            let _ = leader.transfer_leader(ReplicaId::new(hung as u64 + 11)).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
}

/// Groups that sleep are led by somebody who could not wake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_of_sleeping_groups_is_given_away_too() {
    let nodes = Nodes::tuned_in(3, |config| config.hibernate_after_ticks = 20, watched);
    nodes.add(1).await;
    let hung = nodes.leader().await;
    until("sleep", || nodes.group(hung).view().status.is_asleep).await;
    nodes.stores[hung].close();
    // Something else is written: a group is made.
    let store = Arc::clone(&nodes.stores[hung]);
    let raft = nodes.raft(hung);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let members = Membership::of_voters([(ReplicaId::new(1), NodeId::new(hung as u64 + 1))]);
            let other = GroupId::new(8);
            // It is the persist thread's writes that are watched: a group of one elects itself with one.
            store.open();
            raft.create_group(other, ReplicaId::new(1), members).unwrap();
            let opened = raft.open_group(other, GroupConfig::new(ReplicaId::new(1)), Sum).unwrap();
            store.close();
            drop(raft.destroy_group(other));
            drop(opened);
        });
        let deadline = std::time::Instant::now() + PATIENCE;
        let moved = || (0..3).any(|place| place != hung && nodes.role(place) == Role::Leader);
        while !moved() {
            assert!(std::time::Instant::now() < deadline, "nobody else leads the group that slept");
            std::thread::sleep(Duration::from_millis(2));
        }
        nodes.stores[hung].open();
    });
    nodes.is_good(hung).await;
    nodes.add(1).await;
}

/// It sends nothing meanwhile, so that the others elect somebody; and when it turns again its lease is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_does_not_turn_is_noticed_and_has_no_lease() {
    let lease = |config: &mut GroupConfig| (config.lease_reads, config.election_ticks) = (true, 20);
    let nodes = Nodes::tuned_in(3, lease, watched);
    nodes.add(1).await;
    let hung = nodes.leader().await;
    // The lease is fresh.
    nodes.group(hung).read_barrier().await.unwrap();
    nodes.gates[hung].set(true);
    until("the watchdog to bark", || nodes.stalls(hung, Worker::Driver)).await;
    let others: Vec<usize> = (0..3).filter(|place| *place != hung).collect();
    until("another leader", || others.iter().any(|place| nodes.role(*place) == Role::Leader)).await;
    let new = others.iter().copied().find(|place| nodes.role(*place) == Role::Leader).unwrap();
    let written = async {
        loop {
            if let Ok(response) = nodes.group(new).propose([10]).await {
                return number(&response);
            }
        }
    };
    let sum = tokio::time::timeout(PATIENCE, written).await.unwrap();
    // A read that waited for the driver all the while.
    let group = nodes.group(hung).clone();
    let mut read = Box::pin(async move { group.read_barrier().await });
    assert!(poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await.is_pending());
    nodes.gates[hung].set(false);
    if read.await.is_ok() {
        assert_eq!(sum_in(&*nodes.stores[hung]), sum, "it was answered by a lease that is over");
    }
    nodes.is_good(hung).await;
    assert_eq!(nodes.add(1).await, sum + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_has_stopped_is_no_good_health() {
    let nodes = Nodes::start(1);
    nodes.add(1).await;
    nodes.is_good(0).await;
    let _ = nodes.group(0).propose(*b"poison").await;
    until("the word of it", || {
        let health = nodes.raft(0).health();
        matches!(health.groups.get(&GROUP), Some(GroupTrouble::Stopped(_)))
    })
    .await;
    nodes.raft(0).destroy_group(GROUP).unwrap();
    nodes.is_good(0).await;
}

/// A log that is compacted soon, whoever lacks it, and hardly kept in memory.
fn short(config: &mut GroupConfig) {
    (config.compact_entries, config.keep_entries, config.max_lag_entries) = (20, 5, 50);
}

fn shown(nodes: &Nodes, place: usize) -> Vec<KeyValue> {
    let inner = &nodes.stores[place].inner;
    inner.scan(GROUP, Table::Kv, (Bound::Unbounded, Bound::Unbounded), 99).unwrap()
}

/// What one group's machine reads cannot be read: the node goes on, and the replica gets the state from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_is_met_in_applying_is_repaired() {
    let nodes = Nodes::tuned(3, short);
    nodes.add(1).await;
    let bad = (nodes.leader().await + 1) % 3;
    nodes.stores[bad].rots.store(true, Ordering::SeqCst);
    nodes.add(2).await;
    let trouble = || nodes.raft(bad).health().groups.get(&GROUP).cloned();
    until("the damage", || matches!(trouble(), Some(GroupTrouble::Unhealthy(_)))).await;
    assert!(nodes.raft(bad).health().failure.is_none() && nodes.group(bad).view().failure.is_none());
    let stored = || nodes.stores[bad].load(GROUP).unwrap().unwrap().unhealthy;
    until("the damage to be durable", || stored().is_some()).await;
    nodes.stores[bad].rots.store(false, Ordering::SeqCst);
    nodes.is_good(bad).await;
    assert_eq!(stored(), None);
    let sum = nodes.add(3).await;
    nodes.group(bad).read_barrier().await.unwrap();
    assert_eq!(sum_in(&nodes.stores[bad].inner), sum);
}

/// A leader meets the damage: it does not go on, and another leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_state_is_damaged_hands_leadership_over() {
    let nodes = Nodes::tuned(3, short);
    nodes.add(1).await;
    let bad = nodes.leader().await;
    nodes.stores[bad].rots.store(true, Ordering::SeqCst);
    let answer = nodes.group(bad).propose([2]).await;
    assert!(matches!(answer, Err(ProposeError::Unknown { .. })), "{answer:?}");
    until("another leader", || (0..3).any(|place| place != bad && nodes.role(place) == Role::Leader)).await;
    nodes.stores[bad].rots.store(false, Ordering::SeqCst);
    nodes.is_good(bad).await;
    let sum = nodes.add(3).await;
    let other = (bad + 1) % 3;
    for place in [bad, other] {
        nodes.group(place).read_barrier().await.unwrap();
    }
    assert_eq!((sum, shown(&nodes, bad)), (6, shown(&nodes, other)));
}

/// A log that cannot be read is not repaired: what was acknowledged may have been in it. The group stops, the node does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_stops_its_group_alone() {
    let nodes = Nodes::tuned(3, |config| config.cache_bytes = 0);
    nodes.add(1).await;
    let bad = nodes.leader().await;
    let late = NodeId::new((bad as u64 + 1) % 3 + 1);
    nodes.network.isolate(late, true);
    for _ in 0..50 {
        nodes.add(1).await;
    }
    nodes.stores[bad].log_rots.store(true, Ordering::SeqCst);
    nodes.network.isolate(late, false);
    let mut view = nodes.group(bad).watch();
    let stopped = tokio::time::timeout(PATIENCE, view.wait_for(|view| view.failure.is_some())).await.unwrap();
    let failure = stopped.unwrap().failure.clone().unwrap();
    assert!(matches!(*failure, GroupFailure::Damaged { .. }), "{failure}");
    assert!(nodes.raft(bad).health().failure.is_none());
    assert_eq!(nodes.add(1).await, 52);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_waits_for_room_on_the_disk() {
    let nodes = Nodes::tuned_in(3, short, |config| config.snapshot_reserve_bytes = 1000);
    nodes.add(1).await;
    let late = (nodes.leader().await + 1) % 3;
    let node = NodeId::new(late as u64 + 1);
    nodes.network.isolate(node, true);
    for _ in 0..150 {
        nodes.add(1).await;
    }
    *nodes.stores[late].free_bytes.lock() = Some(999);
    nodes.network.isolate(node, false);
    let taken = || nodes.group(late).view().status.positions.first.get() > 50;
    let early = tokio::time::timeout(Duration::from_millis(300), until("a snapshot", taken)).await;
    assert!(early.is_err(), "a full disk was filled");
    assert!(nodes.raft(late).health().failure.is_none());
    *nodes.stores[late].free_bytes.lock() = Some(1000);
    until("a snapshot", taken).await;
    let sum = nodes.add(1).await;
    nodes.group(late).read_barrier().await.unwrap();
    assert_eq!(sum_in(&nodes.stores[late].inner), sum);
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let mut health = Health::default();
    assert_eq!(health.why_not_good(), None);
    health.stalled = vec![Stall { worker: Worker::Persist, since: Duration::from_secs(7) }];
    for group in 0..5 {
        health.groups.insert(GroupId::new(group), GroupTrouble::Undecided { index: LogIndex::new(9) });
    }
    let why = health.why_not_good().unwrap();
    assert!(why.starts_with("a write of the Raft log does not come back, for 7 s now; group 0: "), "{why}");
    assert!(why.ends_with("; and 2 groups more"), "{why}");
}
