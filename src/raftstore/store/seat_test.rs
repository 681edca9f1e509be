//! Who turns the driver, and that nothing is left behind in the mailbox.

use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;

use super::*;
use crate::raftstore::store::mailbox::FEW_REQUESTS;

/// Proposes on a thread of this name, and waits there.
fn propose_on(thread: &str, group: &GroupHandle) -> Result<Bytes, ProposeError> {
    let group = group.clone();
    let propose = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, group.propose([1])).await.unwrap() })
    };
    thread::Builder::new().name(thread.to_owned()).spawn(propose).unwrap().join().unwrap()
}

/// The threads that turned the drivers of all nodes meanwhile, as far as those sent something.
fn senders(nodes: &Nodes) -> Vec<BTreeSet<String>> {
    nodes.gates.iter().map(|gate| std::mem::take(&mut *gate.senders.lock())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_command_turns_the_driver_by_itself_and_many_call_its_thread() {
    let nodes = Nodes::start(3);
    nodes.add(1).await;
    let leader = nodes.leader().await;
    let group = nodes.group(leader);
    // The seat may be taken at that moment, as for a tick.
    let begun = Instant::now();
    loop {
        senders(&nodes);
        propose_on("proposer", group).unwrap();
        let senders = senders(&nodes);
        for place in (0..3).filter(|place| *place != leader) {
            assert!(!senders[place].contains("proposer"), "nodes of one process do not turn each other");
        }
        if senders[leader].contains("proposer") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{senders:?}");
    }
    let others: Vec<_> = (0..FEW_REQUESTS).map(|_| group.mailbox.begin_request()).collect();
    for _ in 0..20 {
        senders(&nodes);
        propose_on("proposer", group).unwrap();
        let senders = senders(&nodes);
        assert!(!senders[leader].contains("proposer"), "{senders:?}");
    }
    drop(others);
}

/// With ticks of ten seconds an input that nobody took would wait for as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_behind_when_several_find_the_seat_taken() {
    let nodes = Nodes::tuned_in(1, |_| {}, |store| store.tick = Duration::from_secs(10));
    nodes.add(1).await;
    let proposers: Vec<_> = (0..4)
        .map(|_| {
            let group = nodes.group(0).clone();
            tokio::spawn(async move {
                for _ in 0..500 {
                    let proposed = tokio::time::timeout(Duration::from_secs(5), group.propose([0]));
                    proposed.await.expect("left behind").unwrap();
                }
            })
        })
        .collect();
    for proposer in proposers {
        proposer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_panics_in_passing_stops_the_store_and_not_who_turned_it() {
    let mut nodes = Nodes::start(3);
    nodes.add(1).await;
    let leader = nodes.leader().await;
    *nodes.gates[leader].panics_for.lock() = Some("proposer".to_owned());
    let (raft, group) = nodes.running[leader].take().unwrap();
    let begun = Instant::now();
    let refused = loop {
        match propose_on("proposer", &group) {
            // The driver's thread was faster.
            Ok(_) => assert!(begun.elapsed() < PATIENCE, "nobody turned the driver in passing"),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ProposeError::Unknown { .. }), "{refused}");
    let failure = tokio::time::timeout(PATIENCE, raft.failed()).await.unwrap();
    assert!(matches!(*failure, GroupFailure::Panicked("driver")), "{failure}");
    assert!(matches!(group.propose([1]).await, Err(ProposeError::Stopped(_))));
    raft.shutdown();
}
