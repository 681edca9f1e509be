//! What errors and commits do to transactions, whichever message they come with.

use crate::Rig;
use crate::raw::{Socket, bind, execute, message, parse, sync};

/// Everything that can go wrong without the session having a part in it.
fn failures() -> Vec<(&'static str, Vec<u8>)> {
    let surplus_parameter = message(b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0");
    let wrong_parameter =
        [parse("", "echo int8"), message(b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0"), execute("")].concat();
    vec![
        ("42601", parse("", "select 1; select 2")),
        ("08P01", [parse("", "select 1"), surplus_parameter].concat()),
        ("22P02", wrong_parameter),
        ("08P01", message(b'B', b"\0\0\xff\xff")),
        ("22021", message(b'P', b"\0select \xff\0\0\0")),
        ("26000", bind("", "missing")),
        ("26000", message(b'D', b"Smissing\0")),
        ("34000", message(b'D', b"Pmissing\0")),
        ("34000", execute("missing")),
        ("0A000", message(b'F', b"\0\0\0\x01\0\0\0\0\0\0")),
        ("08P01", message(b'Q', b"no end")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_fails_the_block_it_happens_in() {
    let rig = Rig::start().await;
    for (state, messages) in failures() {
        let mut socket = Socket::connected(rig.port()).await;
        socket.query("begin; put a").await;
        assert_eq!(socket.read_until_ready_or_end().await.status(), Some('T'));
        // Those two are answered without a Sync.
        let alone = matches!(messages[0], b'F' | b'Q');
        socket.send(&if alone { messages } else { [messages, sync()].concat() }).await;
        let replies = socket.read_until_ready_or_end().await;
        assert!(replies.has_error(state), "{state}: {replies:?}");
        assert_eq!(replies.status(), Some('E'), "{state}: {replies:?}");
        socket.query("commit").await;
        let replies = socket.read_until_ready_or_end().await;
        assert!(replies.has_tag("ROLLBACK") && replies.status() == Some('I'), "{state}: {replies:?}");
    }
    assert!(rig.fake.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_outside_a_block_fails_nothing_that_follows() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    for (state, messages) in failures() {
        let alone = matches!(messages[0], b'F' | b'Q');
        socket.send(&if alone { messages } else { [messages, sync()].concat() }).await;
        assert_eq!(socket.read_until_ready_or_end().await.status(), Some('I'), "{state}");
    }
    socket.query("put a").await;
    assert!(socket.read_until_ready_or_end().await.has_tag("INSERT"));
    assert_eq!(rig.fake.committed(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_string_of_statements_commits_before_its_last_one_is_complete() {
    let rig = Rig::start().await;
    let mut socket = Socket::connected(rig.port()).await;
    socket.query("put a; put refused").await;
    let replies = socket.read_until_ready_or_end().await;
    assert_eq!(replies.types(), "CEZ", "{replies:?}");
    assert!(replies.has_error("23503") && replies.status() == Some('I'));
    assert!(rig.fake.committed().is_empty());
}
