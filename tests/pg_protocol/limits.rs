//! What a client may not do for ever, or without bound.

use std::time::{Duration, Instant};

use mainstay::server::pg::PgConfig;

use crate::raw::{Socket, bind, execute, message, parse, sync};
use crate::{PATIENCE, Rig};

/// As many connections as may be in their startup.
const STARTUP_LIMIT: usize = 256;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_disconnected_and_leaves_nothing() {
    let send_timeout = Duration::from_millis(100);
    let rig = Rig::with(PgConfig { send_timeout, ..PgConfig::default() }).await;
    let mut deaf = Socket::connected(rig.port()).await;
    deaf.query("begin; put a; rows 1000000000").await;
    rig.sessions(1).await;
    rig.sessions(0).await;
    assert!(rig.fake.committed().is_empty());
    rig.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_replies_is_left_alone_however_long_it_takes() {
    let send_timeout = Duration::from_millis(500);
    let rig = Rig::with(PgConfig { send_timeout, ..PgConfig::default() }).await;
    let mut slow = Socket::connected(rig.port()).await;
    slow.query("rows 1000000000").await;
    let begun = Instant::now();
    // One result that is being taken for longer than the timeout.
    while begun.elapsed() < 3 * send_timeout {
        assert!(slow.read_message().await.is_some(), "after {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_left_alone_ends_with_its_connection() {
    let idle_in_transaction_timeout = Duration::from_millis(100);
    let rig = Rig::with(PgConfig { idle_in_transaction_timeout, ..PgConfig::default() }).await;
    let mut idle = Socket::connected(rig.port()).await;
    let mut failed = Socket::connected(rig.port()).await;
    failed.query("begin; error 23505").await;
    let mut block = Socket::connected(rig.port()).await;
    block.query("begin; put a").await;
    assert_eq!(block.read_until_ready_or_end().await.status(), Some('T'));
    // Parts of a message are no sign of life.
    block.send(b"Q\0\0\0").await;
    let mut implicit = Socket::connected(rig.port()).await;
    implicit.send(&[parse("", "put b"), bind("", ""), execute(""), message(b'H', b"")].concat()).await;
    for socket in [&mut failed, &mut block, &mut implicit] {
        let replies = socket.read_to_end().await;
        assert!(replies.has_error("25P03"), "{replies:?}");
    }
    rig.sessions(1).await;
    assert!(rig.fake.committed().is_empty());
    idle.query("put c").await;
    assert!(idle.read_until_ready_or_end().await.is_ready());
    assert_eq!(rig.fake.committed(), ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_waiting() {
    let rig = Rig::with(PgConfig { startup_timeout: 10 * PATIENCE, ..PgConfig::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Socket::open(rig.port()).await);
    }
    rig.still_serves().await;
    for _ in 100..STARTUP_LIMIT {
        silent.push(Socket::open(rig.port()).await);
    }
    let mut newcomer = Socket::open(rig.port()).await;
    newcomer.send_startup(3, 0, &[("user", "postgres")]).await;
    assert!(newcomer.read_to_end().await.has_error("53300"));
    drop(silent);
    loop {
        let mut client = Socket::open(rig.port()).await;
        client.send_startup(3, 0, &[("user", "postgres")]).await;
        let replies = client.read_until_ready_or_end().await;
        if replies.is_ready() {
            break;
        }
        assert!(replies.has_error("53300"));
    }
}

/// A Bind of the unnamed statement to a portal, with one parameter.
fn bind_bytes(portal: &str, parameter: &[u8]) -> Vec<u8> {
    let mut body = format!("{portal}\0\0").into_bytes();
    body.extend([0, 0, 0, 1]);
    body.extend(u32::try_from(parameter.len()).unwrap().to_be_bytes());
    body.extend(parameter);
    body.extend([0, 0]);
    message(b'B', &body)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_keeps_is_bounded_in_bytes() {
    const MIB: usize = 1024 * 1024;
    let rig = Rig::with(PgConfig { message_limit_bytes: 16 * MIB, ..PgConfig::default() }).await;
    let mut socket = Socket::connected(rig.port()).await;
    let parameter = vec![b'x'; 15 * MIB];
    // In a block, where portals stay. Five of them fit into 64 MiB and the largest message, six do not.
    let mut answer = async |messages: &[Vec<u8>]| {
        socket.send(&[messages.concat(), sync()].concat()).await;
        socket.read_until_ready_or_end().await
    };
    for round in 0..2 {
        let begin = [parse("", "begin"), bind("", ""), execute(""), parse("", "echo text")];
        assert!(answer(&begin).await.is_ready());
        for portal in 0..5 {
            assert_eq!(
                answer(&[bind_bytes(&format!("p{portal}"), &parameter)]).await.types(),
                "2Z",
                "{round} {portal}"
            );
        }
        assert!(answer(&[bind_bytes("p5", &parameter)]).await.has_error("54000"));
        // A transaction that ends sets them free.
        assert!(answer(&[parse("", "rollback"), bind("", ""), execute("")]).await.has_tag("ROLLBACK"));
    }
    // Names, declared types and described columns count as well.
    let columns = format!("echo{}", " text".repeat(2 * MIB));
    let mut kept = 0;
    while answer(&[parse(&format!("s{kept}"), &columns)]).await.types() == "1Z" {
        kept += 1;
        assert!(kept < 8, "{kept} statements of 10 MiB and two million columns each");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bounded() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    let long = "n".repeat(1025);
    for messages in [parse(&long, "select 1"), bind(&long, ""), bind("", &long), execute(&long)] {
        socket.send(&[messages, sync()].concat()).await;
        let replies = socket.read_until_ready_or_end().await;
        assert!(replies.has_error("42622") && replies.status() == Some('I'), "{replies:?}");
    }
    let allowed = "n".repeat(1024);
    socket.send(&[parse(&allowed, "select 1"), bind("", &allowed), execute(""), sync()].concat()).await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "12DCZ");
}
