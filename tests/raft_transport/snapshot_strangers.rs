//! Snapshots from whom they should not come, and calls that are not as they should be.

use bytes::BufMut;
use tonic::Code;

use super::fake::{
    FakeCaller, FakeChunk, FakeEnvelope, FakeHello, FakeNode, FakeOffer, FakeSnapshotCaller, FakeSnapshotFrame, hello,
};
use super::*;

const SNAPSHOT: u64 = 42;

/// A chunk of so many pairs from a number on, as the page of `chunk.rs` says, of a snapshot that [`offer`] offers.
fn chunk(first: u64, count: u32, is_last: bool) -> Vec<u8> {
    let mut bytes = vec![1, u8::from(is_last)];
    bytes.put_u32_le(count);
    for number in first..first + u64::from(count) {
        bytes.put_u8(if number < 2 { 2 } else { 4 });
        bytes.put_u32_le(8);
        bytes.put_u64(number);
        bytes.put_u32_le(shelf::VALUE_BYTES as u32);
        bytes.put_bytes(number as u8, shelf::VALUE_BYTES);
    }
    bytes
}

fn sealed(snapshot: u64, number: u64, chunk: Vec<u8>) -> FakeSnapshotFrame {
    let place = [snapshot.to_le_bytes(), number.to_le_bytes()].concat();
    let checksum = crc32fast::hash(&[place.as_slice(), &chunk].concat());
    let chunk = FakeChunk { number, checksum, chunk };
    FakeSnapshotFrame { chunk: Some(chunk), ..FakeSnapshotFrame::default() }
}

/// Of four pairs.
fn offer() -> FakeSnapshotFrame {
    let message = [SNAPSHOT.to_le_bytes(), 4_u64.to_le_bytes()].concat();
    let envelope = FakeEnvelope { group: 1, from: 1, to: 2, message };
    let offer = FakeOffer { snapshot: SNAPSHOT, envelope: Some(envelope) };
    FakeSnapshotFrame { offer: Some(offer), ..FakeSnapshotFrame::default() }
}

/// A call whose offer was accepted.
async fn accepted(to: &Node, incarnation: u64) -> FakeSnapshotCaller {
    let mut caller = FakeSnapshotCaller::welcome(to.address(), hello(1, 2, incarnation)).await;
    caller.frames.send(offer()).await.unwrap();
    let answer = caller.answers.message().await.unwrap().unwrap();
    assert!(answer.accepted.is_some(), "{answer:?}");
    caller
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_as_the_protocol_says_is_understood() {
    let two = Node::start(config(), identity(2, 1)).await;
    let mut caller = accepted(&two, 1).await;
    caller.frames.send(sealed(SNAPSHOT, 0, chunk(0, 3, false))).await.unwrap();
    eventually("it is taken", || two.shelf().stored(SNAPSHOT).pairs == 3).await;
    drop(caller);
    eventually("it is let go", || two.shelf().open().0 == 0).await;

    caller = FakeSnapshotCaller::welcome(two.address(), hello(1, 2, 1)).await;
    caller.frames.send(offer()).await.unwrap();
    let answer = caller.answers.message().await.unwrap().unwrap();
    let place = answer.accepted.unwrap().resume_after.unwrap();
    assert_eq!((place.table, place.key), (4, 2_u64.to_be_bytes().to_vec()));
    caller.frames.send(sealed(SNAPSHOT, 0, chunk(3, 1, true))).await.unwrap();
    let answer = caller.answers.message().await.unwrap().unwrap();
    assert!(answer.finished.is_some());
    assert_eq!(caller.end().await.code(), Code::Ok);
    assert!(two.shelf().stored(SNAPSHOT).is_complete);

    *two.shelf().refusal.lock() = Some(SnapshotRefused::Busy);
    let mut caller = FakeSnapshotCaller::welcome(two.address(), hello(1, 2, 1)).await;
    caller.frames.send(offer()).await.unwrap();
    let refusal = caller.answers.message().await.unwrap().unwrap().refusal.unwrap();
    assert_eq!((refusal.is_busy, refusal.reason.as_str()), (true, "busy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_not_what_was_sent_end_the_call() {
    let two = Node::start(config(), identity(2, 1)).await;
    let mut flipped = sealed(SNAPSHOT, 0, chunk(0, 1, false));
    flipped.chunk.as_mut().unwrap().chunk[20] ^= 1;
    let mut many = vec![1, 0];
    many.put_u32_le(u32::MAX);
    let large = vec![1; 65 << 20];
    for (what, frame, code) in [
        ("a flipped bit", flipped, Code::DataLoss),
        ("of another snapshot", sealed(SNAPSHOT + 1, 0, chunk(0, 1, false)), Code::DataLoss),
        ("a gap", sealed(SNAPSHOT, 1, chunk(0, 1, false)), Code::InvalidArgument),
        ("garbage", sealed(SNAPSHOT, 0, b"garbage".to_vec()), Code::InvalidArgument),
        ("too many pairs", sealed(SNAPSHOT, 0, many), Code::InvalidArgument),
        ("too large", sealed(SNAPSHOT, 0, large), Code::OutOfRange),
        ("nothing", FakeSnapshotFrame::default(), Code::InvalidArgument),
        ("an offer", offer(), Code::InvalidArgument),
    ] {
        let caller = accepted(&two, 1).await;
        caller.frames.send(frame).await.unwrap();
        let ended = caller.end().await;
        assert_eq!(ended.code(), code, "{what}: {ended}");
        assert_eq!(two.shelf().stored(SNAPSHOT).pairs, 0, "{what}");
        eventually("it is let go", || two.shelf().open().0 == 0).await;
    }
    let caller = accepted(&two, 1).await;
    caller.frames.send(sealed(SNAPSHOT, 0, chunk(0, 4, true))).await.unwrap();
    assert_eq!(caller.end().await.code(), Code::Ok);
    assert!(two.shelf().stored(SNAPSHOT).is_complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_bring_no_snapshots() {
    let two = Node::start(config(), identity(2, 5)).await;
    for (hello, code) in [
        (FakeHello { cluster: 8, ..hello(1, 2, 1) }, Code::PermissionDenied),
        (hello(2, 2, 1), Code::PermissionDenied),
        (hello(1, 3, 1), Code::FailedPrecondition),
        (FakeHello { version: 2, ..hello(1, 2, 1) }, Code::FailedPrecondition),
    ] {
        let frame = FakeSnapshotFrame { hello: Some(hello), ..FakeSnapshotFrame::default() };
        let refused = FakeSnapshotCaller::call(two.address(), frame).await.err().unwrap();
        assert_eq!(refused.code(), code, "{refused}");
    }
    for early in [offer(), FakeSnapshotFrame::default()] {
        let refused = FakeSnapshotCaller::call(two.address(), early).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let hasty = FakeSnapshotCaller::welcome(two.address(), hello(1, 2, 1)).await;
    hasty.frames.send(sealed(SNAPSHOT, 0, chunk(0, 4, true))).await.unwrap();
    assert_eq!(hasty.end().await.code(), Code::InvalidArgument);
    assert!(two.shelf().stored.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_offered_no_snapshots() {
    let one = Node::start(config(), identity(1, 1)).await;
    let good = hello(2, 1, 5);
    for (answer, reason) in [
        (FakeHello { cluster: 8, ..good.clone() }, "belongs to cluster"),
        (FakeHello { node: 3, ..good.clone() }, "it is node 3, not node 2"),
        (FakeHello { version: 2, ..good }, "speaks version 2"),
    ] {
        let (fake, address) = FakeNode::start(answer).await;
        one.knows(2, address);
        let told = one.send_snapshot(2, &Made::new(1, 1 << 20), 1).unwrap().get().await.unwrap_err();
        assert!(told.to_string().contains(reason), "{told}");
        let frames = fake.told_of_snapshots.lock();
        assert!(!frames.is_empty(), "{reason}");
        assert!(frames.iter().all(|frame| frame.hello.is_some() && frame.offer.is_none()), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_life_of_a_node_ends_the_snapshots_of_the_earlier_one() {
    let two = Node::start(config(), identity(2, 1)).await;
    let earlier = accepted(&two, 1).await;
    earlier.frames.send(sealed(SNAPSHOT, 0, chunk(0, 1, false))).await.unwrap();
    eventually("it is taken", || two.shelf().stored(SNAPSHOT).pairs == 1).await;
    let _later = FakeCaller::welcome(two.address(), hello(1, 2, 2)).await;
    assert_eq!(earlier.end().await.code(), Code::Aborted);
    eventually("it is let go", || two.shelf().open().0 == 0).await;

    // The other way round, and the same life again: a call that takes the place of one that is not over.
    let stuck = accepted(&two, 3).await;
    let frame = FakeSnapshotFrame { hello: Some(hello(1, 2, 2)), ..FakeSnapshotFrame::default() };
    let stale = FakeSnapshotCaller::call(two.address(), frame).await.err().unwrap();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    let mut again = FakeSnapshotCaller::welcome(two.address(), hello(1, 2, 3)).await;
    again.frames.send(offer()).await.unwrap();
    assert!(again.answers.message().await.unwrap().unwrap().refusal.unwrap().is_busy);
    assert_eq!(stuck.end().await.code(), Code::Aborted);
    eventually("it is let go", || two.shelf().open().0 == 0).await;
    accepted(&two, 3).await;
}
