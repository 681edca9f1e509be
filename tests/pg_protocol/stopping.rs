//! Stopping a server, idle and under load.

use std::time::{Duration, Instant};

use mainstay::server::pg::ServerError;
use tokio_postgres::error::SqlState;

use crate::raw::Socket;
use crate::{PATIENCE, Rig, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_sends_idle_clients_away_at_once() {
    let rig = Rig::start().await;
    let mut idle = Socket::connected(rig.port()).await;
    let fake = rig.fake.clone();
    let begun = Instant::now();
    rig.server.shutdown(PATIENCE).await.unwrap();
    assert!(begun.elapsed() < PATIENCE / 2);
    assert!(idle.read_to_end().await.has_error("57P01"));
    assert_eq!(fake.sessions.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_statement_may_finish_within_the_grace_while_newcomers_are_refused() {
    let rig = Rig::start().await;
    let port = rig.port();
    let mut busy = Socket::connected(port).await;
    busy.query("deaf").await;
    rig.waiting(1).await;
    let fake = rig.fake.clone();
    let stop = tokio::spawn(rig.server.shutdown(PATIENCE));
    loop {
        let mut newcomer = Socket::open(port).await;
        newcomer.send_startup(3, 0, &[("user", "postgres")]).await;
        let replies = newcomer.read_until_ready_or_end().await;
        if replies.has_error("57P03") {
            break;
        }
        // It came before the server began to stop.
        assert!(replies.is_ready() || replies.has_error("57P01"));
    }
    fake.release();
    let replies = busy.read_to_end().await;
    assert!(replies.has_tag("DEAF"), "{replies:?}");
    assert!(replies.has_error("57P01"));
    stop.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_under_load_interrupts_what_runs_after_the_grace() {
    let rig = Rig::start().await;
    let mut clients = Vec::new();
    for index in 0..16 {
        let client = rig.connect().await;
        let statement = if index % 2 == 0 { "sleep" } else { "rows 1000000000" };
        clients.push(tokio::spawn(async move { client.batch_execute(statement).await }));
    }
    let mut slow = Socket::connected(rig.port()).await;
    slow.query("rows 1000000000").await;
    rig.waiting(8).await;
    let begun = Instant::now();
    rig.server.shutdown(Duration::from_millis(100)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for (index, client) in clients.into_iter().enumerate() {
        let error = client.await.unwrap().unwrap_err();
        if index % 2 == 0 {
            assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_hears_that_the_server_stops() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("take").await;
    assert_eq!(socket.read_message().await.unwrap().0, b'G');
    rig.server.shutdown(Duration::ZERO).await.unwrap();
    let replies = socket.read_to_end().await;
    assert!(replies.has_error("57P01") && !replies.has_error("08006"), "{replies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_that_heeds_no_interrupt_is_reported() {
    let rig = Rig::start().await;
    let mut busy = Socket::connected(rig.port()).await;
    busy.query("deaf").await;
    rig.waiting(1).await;
    let fake = rig.fake.clone();
    let result = rig.server.shutdown(Duration::ZERO).await;
    assert!(matches!(result, Err(ServerError::StillRunning)));
    fake.release();
    eventually("the session is closed", || fake.sessions.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
}

#[test]
fn runtime_that_is_dropped_leaves_no_statement_running() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (rig, _busy) = runtime.block_on(async {
        let rig = Rig::start().await;
        let mut busy = Socket::connected(rig.port()).await;
        busy.query("sleep").await;
        rig.waiting(1).await;
        (rig, busy)
    });
    runtime.shutdown_timeout(PATIENCE);
    // The server's own threads go on for a moment.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(rig.waiting(0));
}
