//! Who does not belong here, or does not speak properly.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use super::fake::{FakeCaller, FakeFrame, FakeHello, FakeNode, batch, hello};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_fit_is_refused_and_learns_why() {
    let two = Node::start(config(), identity(2, 5)).await;
    let stranger = Identity { cluster: ClusterId::new(8), ..identity(1, 1) };
    let stranger = Node::start(config(), stranger).await;
    stranger.knows(2, two.address());
    stranger.is_kept_from(2, "belongs to cluster 0000000000000008, not 0000000000000007").await;

    let one = Node::start(config(), identity(1, 5)).await;
    one.knows(3, two.address());
    one.is_kept_from(3, "expects node 3, but this is node 2").await;
    let twin = Node::start(config(), identity(2, 1)).await;
    twin.knows(2, two.address());
    twin.is_kept_from(2, "claims to be node 2").await;

    one.knows(2, two.address());
    one.reaches(2, &two).await;
    let earlier = Node::start(config(), identity(1, 4)).await;
    earlier.knows(2, two.address());
    earlier.is_kept_from(2, "incarnation 4 of node 1 is over: 5 was seen").await;
    one.reaches(2, &two).await;

    let newer = FakeFrame { hello: Some(FakeHello { version: 2, ..hello(4, 2, 1) }), batch: None };
    let refused = FakeCaller::call(two.address(), newer).await.err().unwrap();
    assert!(refused.message().contains("speaks version 2"), "{refused}");
    assert!(two.arrivals.envelopes.lock().iter().all(|(from, _)| *from == NodeId::new(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callee_that_does_not_fit_is_told_nothing() {
    let one = Node::start(config(), identity(1, 1)).await;
    let good = hello(2, 1, 5);
    for (answer, reason) in [
        (FakeHello { cluster: 8, ..good.clone() }, "belongs to cluster"),
        (FakeHello { node: 3, ..good.clone() }, "it is node 3, not node 2"),
        (FakeHello { expects: 9, ..good.clone() }, "expects node 9"),
        (FakeHello { version: 2, ..good.clone() }, "speaks version 2"),
    ] {
        let (fake, address) = FakeNode::start(answer).await;
        one.knows(2, address);
        one.is_kept_from(2, reason).await;
        assert!(fake.told.lock().iter().all(|frame| frame.batch.is_none()), "{reason}");
        let first = fake.told.lock()[0].clone();
        assert_eq!(first.hello, Some(hello(1, 2, 1)));
    }
    let (fake, address) = FakeNode::start(good.clone()).await;
    one.knows(2, address);
    eventually("a batch comes", || {
        let _ = one.send(2, envelope(42, 3));
        fake.told.lock().iter().any(|frame| frame.batch.is_some())
    })
    .await;
    // It came back as what it was before.
    let (fake, address) = FakeNode::start(FakeHello { incarnation: 4, ..good }).await;
    one.knows(2, address);
    one.is_kept_from(2, "incarnation 4 of node 2 is over: 5 was seen").await;
    assert!(fake.told.lock().iter().all(|frame| frame.batch.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_life_takes_over_the_stream() {
    let two = Node::start(config(), identity(2, 1)).await;
    let first = FakeCaller::welcome(two.address(), hello(1, 2, 1)).await;
    first.frames.send(batch([1])).await.unwrap();
    eventually("the first speaks", || two.arrivals.numbers() == [1]).await;
    let second = FakeCaller::welcome(two.address(), hello(1, 2, 2)).await;
    let frames = first.frames.clone();
    let ended = first.end().await;
    assert_eq!((ended.code(), ended.message()), (Code::Aborted, "a newer stream of your node took over"));
    let _ = frames.send(batch([2])).await;
    second.frames.send(batch([3, 4])).await.unwrap();
    eventually("the second speaks", || two.arrivals.numbers() == [1, 3, 4]).await;
    // The same life again, as after a broken connection.
    let third = FakeCaller::welcome(two.address(), hello(1, 2, 2)).await;
    assert_eq!(second.end().await.code(), Code::Aborted);
    third.frames.send(batch([5])).await.unwrap();
    eventually("the third speaks", || two.arrivals.numbers() == [1, 3, 4, 5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_an_earlier_life_ends_when_the_newer_is_met() {
    let one = Node::start(config(), identity(1, 1)).await;
    let earlier = FakeCaller::welcome(one.address(), hello(2, 1, 1)).await;
    let two = Node::start(config(), identity(2, 2)).await;
    one.knows(2, two.address());
    one.reaches(2, &two).await;
    assert_eq!(earlier.end().await.code(), Code::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_break_the_rules_end_and_nothing_else_does() {
    let one = Node::start(config(), identity(1, 1)).await;
    let two = Node::start(config(), identity(2, 1)).await;
    one.knows(2, two.address());
    one.reaches(2, &two).await;

    let early = FakeCaller::call(two.address(), batch([1])).await.err().unwrap();
    assert_eq!(early.code(), Code::InvalidArgument);
    let empty = FakeCaller::call(two.address(), FakeFrame::default()).await.err().unwrap();
    assert_eq!(empty.code(), Code::InvalidArgument);

    let twice = FakeCaller::welcome(two.address(), hello(3, 2, 1)).await;
    twice.frames.send(FakeFrame { hello: Some(hello(4, 2, 1)), batch: None }).await.unwrap();
    assert_eq!(twice.end().await.code(), Code::InvalidArgument);

    let before = two.arrivals.count();
    let many = FakeCaller::welcome(two.address(), hello(3, 2, 1)).await;
    many.frames.send(batch(0..4097)).await.unwrap();
    assert_eq!(many.end().await.code(), Code::InvalidArgument);
    assert_eq!(two.arrivals.count(), before);

    let large = FakeCaller::welcome(two.address(), hello(3, 2, 1)).await;
    let mut frame = batch([1]);
    frame.batch.as_mut().unwrap().envelopes[0].message = vec![0; 65 << 20];
    large.frames.send(frame).await.unwrap();
    assert_eq!(large.end().await.code(), Code::OutOfRange);

    assert!(one.peer(2).is_connected);
    one.reaches(2, &two).await;
    assert!(one.arrivals.unreachable.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_turned_away() {
    let two = Node::start(config(), identity(2, 1)).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let garbage: [&[u8]; 5] = [
        &[0xff; 100_000],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[preface.as_slice(), &[0xff; 100_000]].concat(),
        &[preface.as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1]].concat(),
    ];
    for bytes in garbage {
        let mut socket = TcpStream::connect(two.address()).await.unwrap();
        // It may be closed before all is written.
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "not closed after {:?}", &bytes[..20]);
    }
    let one = Node::start(config(), identity(1, 1)).await;
    one.knows(2, two.address());
    one.reaches(2, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_bounded_and_closed() {
    let limits = NetConfig { max_connections: 16, connect_timeout: Duration::from_millis(500), ..config() };
    let two = Node::start(limits, identity(2, 1)).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(two.address()).await.unwrap());
    }
    for socket in &mut silent {
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut byte)).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "closed");
    }
    let one = Node::start(config(), identity(1, 1)).await;
    one.knows(2, two.address());
    one.reaches(2, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_services_share_the_port() {
    let (fake, _) = FakeNode::start(hello(9, 9, 9)).await;
    let services = tonic::service::Routes::new(fake.clone());
    let transport = GrpcTransport::start(config(), identity(2, 1), Some(services)).await.unwrap();
    let mut client = tonic::client::Grpc::new(fake::channel(transport.local_addr()).await);
    client.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/mainstay.test.Fake/Any");
    let codec = tonic_prost::ProstCodec::<FakeFrame, FakeHello>::default();
    let request = tonic::Request::new(tokio_stream::once(batch([1])));
    let mut answers = client.streaming(request, path, codec).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap(), Some(hello(9, 9, 9)));
    FakeCaller::welcome(transport.local_addr(), hello(1, 2, 1)).await;
}
