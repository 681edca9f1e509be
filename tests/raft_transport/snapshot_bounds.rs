//! How fast, how many and how often.

use tokio::net::TcpListener;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_no_faster_than_allowed_taken_together() {
    let rate = 4 << 20;
    let one = Node::start(NetConfig { snapshot_bytes_per_second: rate, ..config() }, identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    let begun = Instant::now();
    let outcomes: Vec<_> = (1..=2).map(|id| one.send_snapshot(2, &Made::new(id, 2 << 20), id).unwrap()).collect();
    for outcome in outcomes {
        outcome.get().await.unwrap();
    }
    // 4 MiB at 4 MiB/s, of which a tenth of a second's worth has gathered before.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_are_sent_at_once_some_wait_and_the_rest_is_refused() {
    let one = Node::start(NetConfig { max_snapshots_out: 2, ..config() }, identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    two.shelf().stop_after(0);
    let mut outcomes = Vec::new();
    let refused = loop {
        let id = outcomes.len() as u64;
        match one.send_snapshot(2, &Made::new(id, 1 << 20), id) {
            Ok(outcome) => outcomes.push(outcome),
            Err(refused) => break refused,
        }
        assert!(outcomes.len() < 100);
    };
    assert_eq!((refused, outcomes.len()), (Unsent::QueueFull, 2 + 16));
    eventually("two are on their way", || two.shelf().holds_up(2)).await;
    two.shelf().go_on();
    for outcome in outcomes {
        outcome.get().await.unwrap();
    }
    assert_eq!(two.shelf().open(), (0, 2));
    one.send_snapshot(2, &Made::new(99, 0), 99).unwrap().get().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_are_taken_at_once_and_the_others_come_again() {
    let [one, three] = [1, 3].map(|node| Node::start(config(), identity(node, 1)));
    let (one, three) = (one.await, three.await);
    let two = Node::start(NetConfig { max_snapshots_in: 1, ..config() }, identity(2, 1)).await;
    let mut outcomes = Vec::new();
    for (node, ids) in [(&one, [1, 2]), (&three, [3, 4])] {
        node.knows(2, two.address());
        outcomes.extend(ids.map(|id| node.send_snapshot(2, &Made::new(id, 2 << 20), id).unwrap()));
    }
    for outcome in outcomes {
        outcome.get().await.unwrap();
    }
    assert_eq!(two.shelf().open(), (0, 1));
    assert!((1..=4).all(|id| two.shelf().stored(id).is_complete));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_given_up_when_nothing_helps() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    one.knows(2, two.address());
    one.knows(3, nobody);
    let unwanted = SnapshotRefused::Unwanted("it is older than what is committed".to_owned());
    for (refused, expected) in [
        (unwanted, "the receiver refused the snapshot: it is older than what is committed"),
        (SnapshotRefused::Busy, "the snapshot could not be sent: the receiver was busy 64 times in a row"),
    ] {
        *two.shelf().refusal.lock() = Some(refused);
        let told = one.send_snapshot(2, &Made::new(1, 1 << 20), 1).unwrap().get().await.unwrap_err();
        assert_eq!(told.to_string(), expected);
    }
    *two.shelf().refusal.lock() = None;
    let damaged = Made::damaged(2, 2 << 20, Some(1000));
    let told = one.send_snapshot(2, &damaged, 1).unwrap().get().await.unwrap_err();
    assert!(told.to_string().contains("the disk is on fire"), "{told}");
    assert!(!two.shelf().stored(2).is_complete);
    let told = one.send_snapshot(3, &Made::new(1, 1 << 20), 1).unwrap().get().await.unwrap_err();
    assert!(told.to_string().contains("8 attempts failed, the last one: cannot connect"), "{told}");
    one.never_reaches(3).await;
    eventually("it is known not to be there", || {
        matches!(one.send_snapshot(3, &Made::new(1, 1 << 20), 1), Err(Unsent::Unreachable))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_snapshot_takes_the_place_of_an_older_one() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(NetConfig { max_snapshots_in: 1, ..config() }, identity(2, 1)).await;
    one.knows(2, two.address());
    two.shelf().stop_after(1);
    let older = one.send_snapshot(2, &Made::new(1, 10 << 20), 1).unwrap();
    eventually("it is on its way", || two.shelf().holds_up(1)).await;
    let newer = one.send_snapshot(2, &Made::new(2, 10 << 20), 1).unwrap();
    assert!(older.get().await.unwrap_err().to_string().contains("a newer one took its place"));
    two.shelf().go_on();
    newer.get().await.unwrap();
    assert!(two.shelf().stored(2).is_complete && !two.shelf().stored(1).is_complete);
    assert_eq!(two.shelf().open(), (0, 1), "one after the other");
}
