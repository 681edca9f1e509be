//! Snapshots within a process.

use mainstay::raftstore::transport::MemoryNetwork;

use super::*;

const ONE: NodeId = NodeId::new(1);
const TWO: NodeId = NodeId::new(2);

fn network() -> (MemoryNetwork, Arc<Arrivals>) {
    let (network, inbox) = (MemoryNetwork::new(), Arc::new(Arrivals::default()));
    network.join(TWO, Arc::clone(&inbox) as Arc<dyn Inbox>);
    (network, inbox)
}

fn send(network: &MemoryNetwork, made: &Arc<Made>) -> Result<Outcome, Unsent> {
    let (outgoing, outcome) = made.outgoing(1);
    network.transport(ONE).send_snapshot(TWO, outgoing).map(|()| Outcome(outcome))
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_goes_on_where_the_link_was_cut() {
    let (network, inbox) = network();
    let shelf = &inbox.shelf;
    let made = Made::new(1, 3 << 20);
    send(&network, &made).unwrap().get().await.unwrap();
    assert!(shelf.stored(1).is_complete);

    for (id, cut) in [(2, (ONE, TWO)), (3, (TWO, ONE))] {
        let made = Made::new(id, 3 << 20);
        shelf.stop_after(2);
        let outcome = send(&network, &made).unwrap();
        eventually("two chunks are there", || shelf.holds_up(1)).await;
        network.cut(cut.0, cut.1);
        shelf.go_on();
        eventually("it is let go", || shelf.open().0 == 0).await;
        let there = shelf.stored(id).pairs;
        assert!(!shelf.stored(id).is_complete && outcome.now().is_none());
        network.mend(cut.0, cut.1);
        outcome.get().await.unwrap();
        assert!(shelf.stored(id).is_complete);
        assert_eq!(shelf.stored(id).offers, [0, there], "it is not begun anew");
    }
}

#[tokio::test]
async fn what_cannot_arrive_is_not_taken_or_given_up() {
    let (network, inbox) = network();
    let made = Made::new(1, 1 << 20);
    network.cut(TWO, ONE);
    assert_eq!(send(&network, &made).err(), Some(Unsent::Unreachable));
    network.mend(TWO, ONE);
    *inbox.shelf.refusal.lock() = Some(SnapshotRefused::Unwanted("old".to_owned()));
    let refused = send(&network, &made).unwrap().get().await;
    assert_eq!(refused, Err(SnapshotUnsent::Refused("old".to_owned())));
    *inbox.shelf.refusal.lock() = None;
    inbox.shelf.stop_after(0);
    let outcome = send(&network, &made).unwrap();
    eventually("it has begun", || inbox.shelf.holds_up(1)).await;
    network.leave(TWO);
    inbox.shelf.go_on();
    assert!(matches!(outcome.get().await, Err(SnapshotUnsent::Failed(_))));
    assert_eq!(send(&network, &made).err(), Some(Unsent::UnknownNode));
    assert_eq!(Arc::strong_count(&made), 1);
}

#[tokio::test]
async fn a_newer_snapshot_takes_the_place_of_an_older_one() {
    let (network, inbox) = network();
    let shelf = &inbox.shelf;
    let (older, newer) = (Made::new(1, 3 << 20), Made::new(2, 3 << 20));
    shelf.stop_after(1);
    let older = send(&network, &older).unwrap();
    eventually("it has begun", || shelf.holds_up(1)).await;
    let newer = send(&network, &newer).unwrap();
    shelf.go_on();
    assert!(older.get().await.unwrap_err().to_string().contains("a newer one took its place"));
    newer.get().await.unwrap();
    assert!(shelf.stored(2).is_complete && !shelf.stored(1).is_complete);
    assert_eq!(shelf.open(), (0, 1), "one after the other");
}
