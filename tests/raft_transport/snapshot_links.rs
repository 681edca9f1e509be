//! Snapshots over links that work, break, are slow, and end.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::links::through_a_black_hole;
use super::*;

/// Passes bytes on, until they are cut.
struct Scissors {
    address: SocketAddr,
    cuts: mpsc::Sender<oneshot::Sender<()>>,
}

impl Scissors {
    async fn on_the_way_to(target: SocketAddr) -> Scissors {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, mut wanted) = mpsc::channel::<oneshot::Sender<()>>(1);
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Some(done) = wanted.recv() => {
                        connections.shutdown().await;
                        done.send(()).unwrap();
                    }
                    Ok((mut client, _)) = listener.accept() => {
                        connections.spawn(async move {
                            let mut server = TcpStream::connect(target).await.unwrap();
                            let _ = copy_bidirectional(&mut client, &mut server).await;
                        });
                    }
                }
            }
        });
        Scissors { address, cuts }
    }

    /// Cuts what is connected now.
    async fn cut(&self) {
        let (done, is_done) = oneshot::channel();
        self.cuts.send(done).await.unwrap();
        is_done.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_arrives_whole_with_whatever_it_holds() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    for (id, size_bytes) in [(1, 10 << 20), (2, 0), (3, 1000)] {
        let made = Made::new(id, size_bytes);
        one.send_snapshot(2, &made, id).unwrap().get().await.unwrap();
        let stored = two.shelf().stored(id);
        assert_eq!((stored.is_complete, stored.offers.len()), (true, 1), "{size_bytes}");
        assert_eq!(stored.from, [NodeId::new(1)]);
        assert_eq!(Arc::strong_count(&made), 1, "what was captured is let go");
    }
    assert_eq!(two.shelf().open().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_on_where_the_link_was_cut() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    let scissors = Scissors::on_the_way_to(two.address()).await;
    one.knows(2, scissors.address);
    let shelf = two.shelf();
    shelf.stop_after(3);
    let outcome = one.send_snapshot(2, &Made::new(1, 40 << 20), 1).unwrap();
    for offers in 1..=3 {
        eventually("it is on its way", || shelf.holds_up(1) && shelf.stored(1).offers.len() == offers).await;
        scissors.cut().await;
        // More than was on its way, so that the call notices that nothing more comes.
        shelf.stop_after(14);
    }
    eventually("it is on its way", || shelf.holds_up(1) && shelf.stored(1).offers.len() == 4).await;
    shelf.go_on();
    outcome.get().await.unwrap();
    let stored = shelf.stored(1);
    assert!(stored.is_complete);
    assert!(stored.offers.is_sorted_by(|earlier, later| earlier < later), "{:?}", stored.offers);
}

/// Passes bytes on, but for one bit in the middle of a value.
async fn past_a_flipped_bit(target: SocketAddr, flipped: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = TcpStream::connect(target).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let flipped = Arc::clone(&flipped);
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    // Values are the same byte over and over.
                    let value =
                        buffer[..count].windows(64).position(|run| run[0] != 0 && run.iter().all(|b| *b == run[0]));
                    if let Some(at) = value
                        && !flipped.swap(true, Ordering::SeqCst)
                    {
                        buffer[at + 32] ^= 1;
                    }
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_on_the_way_is_noticed_and_the_snapshot_arrives_whole() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    let flipped = Arc::new(AtomicBool::new(false));
    one.knows(2, past_a_flipped_bit(two.address(), Arc::clone(&flipped)).await);
    one.send_snapshot(2, &Made::new(1, 10 << 20), 1).unwrap().get().await.unwrap();
    assert!(flipped.load(Ordering::SeqCst));
    assert!(two.shelf().stored(1).is_complete);
    assert_eq!(two.shelf().stored(1).offers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_starts_again_gets_the_snapshot_from_where_it_is() {
    // A second for all of it, so that it is in the middle for sure.
    let slow = NetConfig { snapshot_bytes_per_second: 16 << 20, backoff_base: Duration::from_millis(200), ..config() };
    let one = Node::start(NetConfig { backoff_max: Duration::from_millis(200), ..slow }, identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    let listen = two.address();
    one.knows(2, listen);
    let outcome = one.send_snapshot(2, &Made::new(1, 16 << 20), 1).unwrap();
    eventually("it is on its way", || two.shelf().stored(1).pairs > 0).await;
    two.transport.shutdown().await;
    let before = two.shelf().stored(1).pairs;
    assert!(!two.shelf().stored(1).is_complete);
    assert_eq!((two.shelf().open().0, Arc::strong_count(&two.arrivals)), (0, 1), "nothing is taken any more");
    let arrivals = Arrivals { shelf: Arc::clone(two.shelf()), ..Arrivals::default() };
    let again = Node::start_with(NetConfig { listen, ..config() }, identity(2, 2), arrivals).await;
    outcome.get().await.unwrap();
    assert!(again.shelf().stored(1).is_complete);
    assert_eq!(again.shelf().stored(1).offers, [0, before]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_half_open_is_noticed_and_the_snapshot_let_go() {
    let quick = Duration::from_millis(100);
    let attentive = NetConfig { keepalive_interval: quick, keepalive_timeout: 2 * quick, ..config() };
    let slow = Duration::from_secs(60);
    let patient = NetConfig { keepalive_interval: slow, keepalive_timeout: slow, ..config() };
    let one = Node::start(patient, identity(1, 1)).await;
    let two = Node::start(attentive, identity(2, 1)).await;
    let swallow = Arc::new(AtomicBool::new(false));
    one.knows(2, through_a_black_hole(two.address(), Arc::clone(&swallow)).await);
    two.shelf().stop_after(1);
    let outcome = one.send_snapshot(2, &Made::new(1, 40 << 20), 1).unwrap();
    eventually("it is on its way", || two.shelf().holds_up(1)).await;
    swallow.store(true, Ordering::SeqCst);
    two.shelf().go_on();
    eventually("it is let go", || two.shelf().open().0 == 0).await;
    assert!(!two.shelf().stored(1).is_complete && outcome.now().is_none());
}

/// What holds up a snapshot must not hold up a heartbeat: neither a receiver that takes nothing, so that all windows are
/// full, nor bytes that stand before it.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_pass_snapshots() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    one.reaches(2, &two).await;
    two.shelf().stop_after(0);
    let outcomes: Vec<_> = (1..=4).map(|id| one.send_snapshot(2, &Made::new(id, 16 << 20), id).unwrap()).collect();
    eventually("all windows are full", || two.shelf().holds_up(4)).await;
    for _ in 0..100 {
        one.reaches(2, &two).await;
    }
    two.shelf().go_on();
    // 64 MiB are on their way now.
    let mut delays = Vec::new();
    while two.shelf().open().0 > 0 {
        let begun = Instant::now();
        one.reaches(2, &two).await;
        delays.push(begun.elapsed());
    }
    for outcome in outcomes {
        outcome.get().await.unwrap();
    }
    delays.sort_unstable();
    let [median, longest] = [delays.len() / 2, delays.len() - 1].map(|at| delays[at]);
    println!("{} heartbeats beside 64 MiB: median {median:?}, longest {longest:?}", delays.len());
    // A heartbeat is due every 100 ms by default, and an election after 500.
    assert!(median < Duration::from_millis(50) && longest < Duration::from_millis(400), "{median:?} {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_in_the_middle_says_once_that_a_snapshot_was_given_up() {
    let two = Node::start(config(), identity(2, 1)).await;
    two.shelf().stop_after(1);
    for dropped in [false, true] {
        let one = Node::start(NetConfig { max_snapshots_out: 1, ..config() }, identity(1, 1)).await;
        one.knows(2, two.address());
        let (running, waiting) = (Made::new(1, 40 << 20), Made::new(2, 40 << 20));
        let outcomes = [one.send_snapshot(2, &running, 1).unwrap(), one.send_snapshot(2, &waiting, 2).unwrap()];
        eventually("it is on its way", || two.shelf().holds_up(1)).await;
        if dropped {
            drop(one);
        } else {
            one.transport.shutdown().await;
            assert_eq!((Arc::strong_count(&running), Arc::strong_count(&waiting)), (1, 1));
            assert_eq!(one.send_snapshot(2, &waiting, 1).err(), Some(Unsent::UnknownNode));
        }
        for outcome in outcomes {
            assert!(matches!(outcome.get().await, Err(SnapshotUnsent::Failed(_))));
        }
        two.shelf().go_on();
        eventually("it is let go", || two.shelf().open().0 == 0).await;
        two.shelf().stop_after(1);
    }
}
