//! Links that work, break and come back.

use std::sync::atomic::{AtomicBool, Ordering};

use mainstay::net::breaker::BreakerState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_arrive_in_order_and_say_who_sent_them() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    two.knows(1, one.address());
    for number in 0..10_000 {
        one.send(2, envelope(number, 256)).unwrap();
        if number % 10 == 0 {
            two.send(1, envelope(number, 16)).unwrap();
        }
    }
    eventually("all arrive", || two.arrivals.count() == 10_000 && one.arrivals.count() == 1000).await;
    assert_eq!(two.arrivals.numbers(), (0..10_000).collect::<Vec<_>>());
    let arrivals = two.arrivals.envelopes.lock();
    assert!(arrivals.iter().all(|(from, envelope)| *from == NodeId::new(1) && envelope.message.len() == 256));
    assert_eq!(arrivals[3].1, envelope(3, 256));
    assert!(one.arrivals.envelopes.lock().iter().all(|(from, _)| *from == NodeId::new(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_travel_alone_and_too_large_ones_not_at_all() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    let sizes = [0, 1 << 20, 9 << 20, 20 << 20, 3];
    for (number, size) in sizes.into_iter().enumerate() {
        one.send(2, envelope(number as u64, size)).unwrap();
    }
    eventually("all arrive", || two.arrivals.count() == sizes.len()).await;
    let arrived: Vec<_> = two.arrivals.envelopes.lock().iter().map(|(_, envelope)| envelope.message.len()).collect();
    assert_eq!(arrived, sizes);
    assert_eq!(one.send(2, envelope(9, 64 << 20)), Err(Unsent::TooLarge));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_restarts_on_its_port_is_found_again() {
    let one = Node::start(config(), identity(1, 1)).await;
    let mut two = Node::start(config(), identity(2, 1)).await;
    let listen = two.address();
    one.knows(2, listen);
    for incarnation in 2..5 {
        two.knows(1, one.address());
        one.reaches(2, &two).await;
        two.reaches(1, &one).await;
        one.arrivals.unreachable.lock().clear();
        two.transport.shutdown().await;
        eventually("the loss is told", || one.arrivals.unreachable.lock().contains(&NodeId::new(2))).await;
        two = Node::start(NetConfig { listen, ..config() }, identity(2, incarnation)).await;
    }
    one.reaches(2, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_address_that_works_is_taken() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let name = format!("localhost:{}", two.address().port()).parse().unwrap();
    one.transport.set_peer(NodeId::new(2), vec![nobody.into(), name]).unwrap();
    one.reaches(2, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_moves_is_followed_and_one_that_is_removed_is_left() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    one.reaches(2, &two).await;
    let moved = Node::start(config(), identity(2, 2)).await;
    one.knows(2, moved.address());
    one.reaches(2, &moved).await;
    one.transport.remove_peer(NodeId::new(2));
    assert_eq!(one.send(2, envelope(0, 1)), Err(Unsent::UnknownNode));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_fills_its_queue_then_opens_its_breaker_which_closes_by_itself() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = hanging.local_addr().unwrap();
    let connect_timeout = Duration::from_millis(300);
    let settings = NetConfig { connect_timeout, queue_envelopes: 100, breaker_failures: 2, ..config() };
    let one = Node::start(settings, identity(1, 1)).await;
    one.knows(2, listen);
    for number in 0..100 {
        one.send(2, envelope(number, 1)).unwrap();
    }
    assert_eq!(one.send(2, envelope(100, 1)), Err(Unsent::QueueFull));
    assert_eq!(one.peer(2).queued, 100);
    let mut accepted = Vec::new();
    // It is connected to again and again, and nobody sends anything.
    for _ in 0..3 {
        accepted.push(hanging.accept().await.unwrap());
    }
    eventually("the breaker is open", || one.peer(2).breaker == BreakerState::Open).await;
    assert_eq!(one.send(2, envelope(101, 1)), Err(Unsent::Unreachable));
    assert_eq!(one.peer(2).queued, 0);
    assert!(one.last_failure(2).contains("did not answer in time"), "{}", one.last_failure(2));
    assert!(one.arrivals.unreachable.lock().len() >= 2);

    drop((hanging, accepted));
    let two = Node::start(NetConfig { listen, ..config() }, identity(2, 1)).await;
    eventually("connected again", || one.peer(2).is_connected).await;
    assert_eq!(one.peer(2).breaker, BreakerState::Closed);
    assert_eq!(two.arrivals.count(), 0, "what waited is gone");
    one.send(2, envelope(102, 1)).unwrap();
    eventually("it arrives", || two.arrivals.numbers() == [102]).await;
}

/// Passes bytes on until told not to; then it neither passes nor closes.
pub(super) async fn through_a_black_hole(target: SocketAddr, swallow: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(target).await else { continue };
            let (client, server) = (client.into_split(), server.into_split());
            for (mut from, mut to) in [(client.0, server.1), (server.0, client.1)] {
                let swallow = Arc::clone(&swallow);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = from.read(&mut buffer).await {
                        if !swallow.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_vanishes_without_a_word_is_noticed() {
    let quick = Duration::from_millis(100);
    let settings = NetConfig { keepalive_interval: quick, keepalive_timeout: 2 * quick, ..config() };
    let settings = NetConfig { connect_timeout: 5 * quick, ..settings };
    let one = Node::start(settings, identity(1, 1)).await;
    // The other side must not be the one that notices.
    let slow = Duration::from_secs(60);
    let patient = NetConfig { keepalive_interval: slow, keepalive_timeout: slow, ..config() };
    let two = Node::start(patient, identity(2, 1)).await;
    let swallow = Arc::new(AtomicBool::new(false));
    one.knows(2, through_a_black_hole(two.address(), Arc::clone(&swallow)).await);
    one.reaches(2, &two).await;
    swallow.store(true, Ordering::SeqCst);
    // An idle link too: nothing is sent.
    eventually("noticed", || one.peer(2).breaker == BreakerState::Open).await;
    swallow.store(false, Ordering::SeqCst);
    one.reaches(2, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_takes_a_moment_whatever_the_peers_do_and_can_be_undone() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    let swallow = Arc::new(AtomicBool::new(false));
    // Both ways through holes, a stream that takes nothing, a listener that says nothing, and a client that does not.
    one.knows(2, through_a_black_hole(two.address(), Arc::clone(&swallow)).await);
    two.knows(1, through_a_black_hole(one.address(), Arc::clone(&swallow)).await);
    one.reaches(2, &two).await;
    two.reaches(1, &one).await;
    swallow.store(true, Ordering::SeqCst);
    for number in 0..60 {
        one.send(2, envelope(number, 1 << 20)).unwrap();
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.knows(3, silent.local_addr().unwrap());
    one.send(3, envelope(0, 1)).unwrap();
    let _client = TcpStream::connect(one.address()).await.unwrap();

    let begun = Instant::now();
    one.transport.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(Arc::strong_count(&one.arrivals), 1, "the inbox is let go");
    assert_eq!(one.send(2, envelope(0, 1)), Err(Unsent::UnknownNode));
    assert!(TcpStream::connect(one.address()).await.is_err());
    one.knows(2, two.address());
    assert!(one.transport.peers().is_empty());
    one.transport.shutdown().await;

    let listen = one.address();
    swallow.store(false, Ordering::SeqCst);
    let again = Node::start(NetConfig { listen, ..config() }, identity(1, 2)).await;
    two.reaches(1, &again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_receiver_loses_envelopes_but_not_the_link() {
    let one = Node::start(config(), identity(1, 1)).await;
    let limited = Arrivals { limit: Some(10), ..Arrivals::default() };
    let two = Node::start_with(config(), identity(2, 1), limited).await;
    one.knows(2, two.address());
    for number in 0..100 {
        one.send(2, envelope(number, 1)).unwrap();
    }
    eventually("some arrive", || two.arrivals.count() == 10).await;
    two.arrivals.envelopes.lock().clear();
    one.reaches(2, &two).await;
    assert!(one.arrivals.unreachable.lock().is_empty());
}
