//! Groups that sleep, on nodes in this process.

use super::*;

/// Shares its nodes with the other.
const NEIGHBOUR: GroupId = GroupId::new(8);

fn sleepy(config: &mut GroupConfig) {
    config.hibernate_after_ticks = 5;
}

async fn asleep(group: &GroupHandle) {
    let mut view = group.watch();
    tokio::time::timeout(PATIENCE, view.wait_for(|view| view.status.is_asleep)).await.unwrap().unwrap();
}

/// Three nodes whose group sleeps on all of them, and the place of the one that leads it.
async fn three_asleep() -> (Nodes, usize) {
    let nodes = Nodes::tuned(3, sleepy);
    assert_eq!(nodes.add(1).await, 1);
    for place in 0..3 {
        asleep(nodes.group(place)).await;
    }
    let leader = nodes.leader().await;
    (nodes, leader)
}

/// Somebody else leads, without that anybody asked.
async fn led_by_another(nodes: &Nodes, before: usize) {
    let others: Vec<_> = (0..3).filter(|place| *place != before).collect();
    let looked = async {
        loop {
            let leads = |place: &&usize| nodes.group(**place).view().status.positions.role == Role::Leader;
            if others.iter().any(|place| leads(&place)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect("the followers sleep on without a leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_nobody_uses_sleeps_until_it_is_used() {
    let (nodes, leader) = three_asleep().await;
    let term = nodes.group(leader).view().status.positions.term;
    let follower = (leader + 1) % 3;
    nodes.group(follower).read_barrier().await.unwrap();
    assert_eq!(nodes.leader().await, leader);
    assert_eq!(nodes.add(2).await, 3);
    for place in 0..3 {
        asleep(nodes.group(place)).await;
        assert_eq!(nodes.group(place).view().status.positions.term, term, "nobody had to be elected");
    }
    nodes.group(leader).transfer_leader(ReplicaId::new(follower as u64 + 11)).await.unwrap();
    let mut view = nodes.group(follower).watch();
    let led = view.wait_for(|view| view.status.positions.role == Role::Leader);
    tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_while_all_sleep_is_noticed() {
    let (mut nodes, leader) = three_asleep().await;
    nodes.stop(leader);
    led_by_another(&nodes, leader).await;
    assert_eq!(nodes.add(2).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_asleep_on_a_node_that_lives_is_noticed() {
    let (nodes, leader) = three_asleep().await;
    let members = || Membership::of_voters((1..=3).map(|n| (ReplicaId::new(n + 10), NodeId::new(n))));
    let mut neighbours = Vec::new();
    for (place, running) in nodes.running.iter().enumerate() {
        let (raft, replica) = (&running.as_ref().unwrap().0, ReplicaId::new(place as u64 + 11));
        raft.create_group(NEIGHBOUR, replica, members()).unwrap();
        let mut config = GroupConfig::new(replica);
        sleepy(&mut config);
        neighbours.push(raft.open_group(NEIGHBOUR, config, Sum).unwrap());
    }
    // So all nodes go on saying that they live.
    for neighbour in &neighbours {
        asleep(neighbour).await;
    }
    for place in 0..3 {
        asleep(nodes.group(place)).await;
    }
    nodes.running[leader].as_ref().unwrap().0.destroy_group(GROUP).unwrap();
    led_by_another(&nodes, leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_member_is_away_stays_awake() {
    let mut nodes = Nodes::tuned(3, sleepy);
    nodes.add(1).await;
    let away = (nodes.leader().await + 1) % 3;
    nodes.stop(away);
    nodes.add(1).await;
    let leader = nodes.leader().await;
    // Time has to pass for it to fall asleep by mistake: many times as long as it would take.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!nodes.group(leader).view().status.is_asleep);
    nodes.open(away);
    for place in 0..3 {
        asleep(nodes.group(place)).await;
    }
    assert_eq!(sum_in(&*nodes.stores[away]), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooded_group_leaves_time_for_its_neighbour() {
    let nodes = Nodes::tuned(3, sleepy);
    nodes.add(0).await;
    let members = || Membership::of_voters((1..=3).map(|n| (ReplicaId::new(n + 10), NodeId::new(n))));
    let mut neighbours = Vec::new();
    for (place, running) in nodes.running.iter().enumerate() {
        let (raft, replica) = (&running.as_ref().unwrap().0, ReplicaId::new(place as u64 + 11));
        raft.create_group(NEIGHBOUR, replica, members()).unwrap();
        neighbours.push(raft.open_group(NEIGHBOUR, GroupConfig::new(replica), Sum).unwrap());
    }
    let leader = nodes.leader().await;
    let flooded = nodes.group(leader).clone();
    let done = Arc::new(AtomicU64::new(0));
    let flood: Vec<_> = (0..200)
        .map(|_| {
            let (group, done) = (flooded.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                loop {
                    if group.propose([1]).await.is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut quiet = 0;
    let all = async {
        while quiet < 50 {
            for neighbour in &neighbours {
                if neighbour.view().status.positions.role == Role::Leader && neighbour.propose([1]).await.is_ok() {
                    quiet += 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the neighbour starves");
    for task in &flood {
        task.abort();
    }
    assert!(done.load(Ordering::Relaxed) > 50, "{done:?} proposals are no flood");
}

/// Waits until it may go on.
struct Slow(Arc<(Mutex<bool>, Condvar)>);

impl StateMachine for Slow {
    fn apply(&mut self, commands: &[Command<'_>], _: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        let (is_open, opened) = &*self.0;
        opened.wait_while(&mut is_open.lock(), |is_open| !*is_open);
        Ok(commands.iter().map(|_| Bytes::new()).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_state_machine_does_not_hold_up_a_neighbour() {
    let nodes = Nodes::start(1);
    nodes.add(1).await;
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let raft = &nodes.running[0].as_ref().unwrap().0;
    let replica = ReplicaId::new(11);
    raft.create_group(NEIGHBOUR, replica, Membership::of_voters([(replica, NodeId::new(1))])).unwrap();
    let slow = raft.open_group(NEIGHBOUR, GroupConfig::new(replica), Slow(Arc::clone(&gate))).unwrap();
    let mut view = slow.watch();
    let led = view.wait_for(|view| view.status.positions.role == Role::Leader);
    tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
    let mut stuck = Box::pin(slow.propose([1]));
    assert!(poll_fn(|context| Poll::Ready(stuck.as_mut().poll(context))).await.is_pending());
    for value in 2..20 {
        assert_eq!(nodes.add(1).await, value);
    }
    *gate.0.lock() = true;
    gate.1.notify_all();
    stuck.await.unwrap();
}
