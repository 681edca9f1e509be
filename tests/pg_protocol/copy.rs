//! COPY in both directions, message by message.

use std::time::Duration;

use mainstay::server::pg::PgConfig;
use tokio_postgres::NoTls;

use crate::raw::{Socket, bind, execute, message, parse, sync};
use crate::{Rig, psql};

fn data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

fn done() -> Vec<u8> {
    message(b'c', b"")
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_taken_up_to_its_end() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("take").await;
    // The client is asked before anything else happens.
    assert_eq!(socket.read_message().await.unwrap(), (b'G', vec![0, 0, 2, 0, 0, 0, 0]));
    for piece in ["one", "two"] {
        socket.send(&data(piece)).await;
    }
    socket.send(&[message(b'H', b""), sync(), data("three"), done(), message(b'Q', b"select 5\0")].concat()).await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.types() == "CZ" && replies.has_tag("COPY 1"), "{replies:?}");
    assert_eq!(socket.read_until_ready_or_end().await.types(), "TDCZ");
    assert_eq!(rig.fake.committed(), ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_copy_passes_over_the_sync_behind_it() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    let begin = [parse("", "take"), bind("", ""), execute(""), sync()].concat();
    socket.send(&begin).await;
    socket.send(&[data("one"), done(), sync()].concat()).await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "12GCZ");
    // All at once, without a Sync before the data, as a pipelining client may.
    socket.send(&[&begin[..begin.len() - 5], &data("two"), &done(), &sync()].concat()).await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "12GCZ");
    assert_eq!(rig.fake.committed(), ["one", "two"]);
    // What follows an error is passed over up to the Sync behind the data.
    socket.send(&begin).await;
    socket.send(&[data("bad"), data("three"), done(), sync(), message(b'Q', b"select 5\0")].concat()).await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.types() == "12GEZ" && replies.has_error("22P04"), "{replies:?}");
    assert_eq!(socket.read_until_ready_or_end().await.types(), "TDCZ");
    assert_eq!(rig.fake.committed(), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_that_fails_leaves_nothing_and_the_connection_goes_on() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    let failing = [
        (vec![data("one"), message(b'f', b"changed my mind\0")], "57014"),
        (vec![data("one"), data("bad"), data("two"), done()], "22P04"),
        (vec![data("one"), message(b'f', b"no end")], "08P01"),
    ];
    for (messages, state) in failing {
        socket.query("take").await;
        socket.send(&messages.concat()).await;
        let replies = socket.read_until_ready_or_end().await;
        assert!(replies.types() == "GEZ" && replies.has_error(state), "{state}: {replies:?}");
        socket.query("select 1").await;
        assert_eq!(socket.read_until_ready_or_end().await.types(), "TDCZ", "{state}");
    }
    // Another statement instead of data: it is answered too.
    socket.query("take").await;
    socket.query("select 1").await;
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.has_error("08P01"), "{replies:?}");
    assert_eq!(socket.read_until_ready_or_end().await.types(), "TDCZ");
    assert!(rig.fake.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_data_than_is_read_ahead_streams_through() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("take").await;
    let large = "x".repeat(1_000_000);
    for _ in 0..20 {
        socket.send(&data(&large)).await;
    }
    for number in 0..20_000 {
        socket.send(&data(&number.to_string())).await;
    }
    socket.send(&done()).await;
    assert_eq!(socket.read_until_ready_or_end().await.types(), "GCZ");
    let committed = rig.fake.committed();
    assert_eq!((committed.len(), committed[0].len(), committed[20_019].as_str()), (20_020, 1_000_000, "19999"));
}

#[tokio::test(flavor = "multi_thread")]
async fn message_longer_than_the_limit_ends_the_connection() {
    let rig = Rig::with(PgConfig { message_limit_bytes: 100_000, ..PgConfig::default() }).await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("take").await;
    socket.send(&data(&"x".repeat(100_001))).await;
    assert!(socket.read_to_end().await.has_error("54000"));
    rig.sessions(0).await;
    assert!(rig.fake.committed().is_empty());
    rig.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_during_copy_is_noticed() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("take").await;
    socket.send(&data("one")).await;
    assert_eq!(socket.read_message().await.unwrap().0, b'G');
    drop(socket);
    rig.sessions(0).await;
    assert!(rig.fake.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_stalls_during_copy_is_disconnected() {
    let timeout = Duration::from_millis(200);
    let rig = Rig::with(PgConfig { idle_in_transaction_timeout: timeout, ..PgConfig::default() }).await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("take").await;
    // Parts of a message do not put it off.
    socket.send(&data("one")[..6]).await;
    let replies = socket.read_to_end().await;
    assert!(replies.types() == "GE" && replies.has_error("25P03"), "{replies:?}");
    rig.sessions(0).await;
    assert!(rig.fake.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_that_waits_for_its_client_can_be_cancelled() {
    let rig = Rig::start().await;
    let client = rig.connect().await;
    let token = client.cancel_token();
    let sink: tokio_postgres::CopyInSink<bytes::Bytes> = client.copy_in("take").await.unwrap();
    token.cancel_query(NoTls).await.unwrap();
    rig.still_serves().await;
    drop(sink);
    assert_eq!(client.query("select 1", &[]).await.unwrap().len(), 1);
    assert!(rig.fake.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_given_as_data() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("give 2").await;
    assert_eq!(socket.read_message().await.unwrap(), (b'H', vec![0, 0, 1, 0, 0]));
    assert_eq!(socket.read_message().await.unwrap(), (b'd', b"0\n".to_vec()));
    let replies = socket.read_until_ready_or_end().await;
    assert!(replies.types() == "dcCZ" && replies.has_tag("COPY 2"), "{replies:?}");
    let (ok, output, errors) = psql(rig.port(), &["-c", "give 100000"]).await;
    let expected: String = (0..100_000).map(|line| format!("{line}\n")).collect();
    assert!(ok && output == expected, "{} bytes, {errors}", output.len());
}
