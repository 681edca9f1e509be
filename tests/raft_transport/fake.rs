//! Peers that say what they like. They know the protocol from `proto/raft.proto`, not from our code.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeHello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(fixed64, tag = "2")]
    pub cluster: u64,
    #[prost(uint64, tag = "3")]
    pub node: u64,
    #[prost(uint64, tag = "4")]
    pub expects: u64,
    #[prost(uint64, tag = "5")]
    pub incarnation: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeFrame {
    #[prost(message, optional, tag = "1")]
    pub hello: Option<FakeHello>,
    #[prost(message, optional, tag = "2")]
    pub batch: Option<FakeBatch>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeBatch {
    #[prost(message, repeated, tag = "1")]
    pub envelopes: Vec<FakeEnvelope>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeEnvelope {
    #[prost(uint64, tag = "1")]
    pub group: u64,
    #[prost(uint64, tag = "2")]
    pub from: u64,
    #[prost(uint64, tag = "3")]
    pub to: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub message: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeSnapshotFrame {
    #[prost(message, optional, tag = "1")]
    pub hello: Option<FakeHello>,
    #[prost(message, optional, tag = "2")]
    pub offer: Option<FakeOffer>,
    #[prost(message, optional, tag = "3")]
    pub chunk: Option<FakeChunk>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeOffer {
    #[prost(fixed64, tag = "1")]
    pub snapshot: u64,
    #[prost(message, optional, tag = "2")]
    pub envelope: Option<FakeEnvelope>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeChunk {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(fixed32, tag = "2")]
    pub checksum: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub chunk: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeSnapshotAnswer {
    #[prost(message, optional, tag = "1")]
    pub hello: Option<FakeHello>,
    #[prost(message, optional, tag = "2")]
    pub accepted: Option<FakeAccepted>,
    #[prost(message, optional, tag = "3")]
    pub refusal: Option<FakeRefusal>,
    #[prost(message, optional, tag = "4")]
    pub finished: Option<FakeFinished>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeAccepted {
    #[prost(message, optional, tag = "1")]
    pub resume_after: Option<FakePlace>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakePlace {
    #[prost(uint32, tag = "1")]
    pub table: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeRefusal {
    #[prost(bool, tag = "1")]
    pub is_busy: bool,
    #[prost(string, tag = "2")]
    pub reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FakeFinished {}

pub fn hello(node: u64, expects: u64, incarnation: u64) -> FakeHello {
    FakeHello { version: 1, cluster: super::CLUSTER, node, expects, incarnation }
}

pub fn batch(numbers: impl IntoIterator<Item = u64>) -> FakeFrame {
    let envelopes = numbers.into_iter().map(|group| FakeEnvelope { group, from: 1, to: 2, message: b"m".to_vec() });
    FakeFrame { hello: None, batch: Some(FakeBatch { envelopes: envelopes.collect() }) }
}

/// A node that calls.
pub struct Calling<F, A> {
    pub frames: mpsc::Sender<F>,
    pub answers: Streaming<A>,
}

pub type FakeCaller = Calling<FakeFrame, FakeHello>;
pub type FakeSnapshotCaller = Calling<FakeSnapshotFrame, FakeSnapshotAnswer>;

pub async fn channel(address: SocketAddr) -> Channel {
    Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap()
}

impl FakeCaller {
    /// Calls, with this as its first frame.
    pub async fn call(address: SocketAddr, first: FakeFrame) -> Result<FakeCaller, Status> {
        FakeCaller::begin(address, "/mainstay.raft.v1.Raft/Deliver", first).await
    }

    /// Calls as a node that is welcome.
    pub async fn welcome(address: SocketAddr, first: FakeHello) -> FakeCaller {
        let frame = FakeFrame { hello: Some(first.clone()), batch: None };
        let mut caller = FakeCaller::call(address, frame).await.unwrap();
        let answer = caller.answers.message().await.unwrap().unwrap();
        assert_eq!((answer.node, answer.expects), (first.expects, first.node));
        caller
    }
}

impl FakeSnapshotCaller {
    /// Calls, with this as its first frame.
    pub async fn call(address: SocketAddr, first: FakeSnapshotFrame) -> Result<FakeSnapshotCaller, Status> {
        FakeSnapshotCaller::begin(address, "/mainstay.raft.v1.Raft/Snapshot", first).await
    }

    /// Calls as a node that is welcome.
    pub async fn welcome(address: SocketAddr, first: FakeHello) -> FakeSnapshotCaller {
        let frame = FakeSnapshotFrame { hello: Some(first.clone()), ..FakeSnapshotFrame::default() };
        let mut caller = FakeSnapshotCaller::call(address, frame).await.unwrap();
        let answer = caller.answers.message().await.unwrap().unwrap().hello.unwrap();
        assert_eq!((answer.node, answer.expects), (first.expects, first.node));
        caller
    }
}

impl<F, A> Calling<F, A>
where
    F: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    async fn begin(address: SocketAddr, path: &'static str, first: F) -> Result<Calling<F, A>, Status> {
        let (frames, queued) = mpsc::channel(16);
        assert!(frames.send(first).await.is_ok());
        let mut client = tonic::client::Grpc::new(channel(address).await).max_encoding_message_size(usize::MAX);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = ProstCodec::<F, A>::default();
        let answers = client.streaming(Request::new(ReceiverStream::new(queued)), path, codec).await?.into_inner();
        Ok(Calling { frames, answers })
    }

    /// How the call ends.
    pub async fn end(mut self) -> Status {
        let ended = async {
            loop {
                match self.answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok(""),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(super::PATIENCE, ended).await.expect("the call goes on")
    }
}

/// A node that is called, gives this answer to all calls, and keeps what it is told.
#[derive(Clone)]
pub struct FakeNode {
    pub answer: FakeHello,
    pub told: Arc<Mutex<Vec<FakeFrame>>>,
    pub told_of_snapshots: Arc<Mutex<Vec<FakeSnapshotFrame>>>,
}

impl FakeNode {
    pub async fn start(answer: FakeHello) -> (FakeNode, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = FakeNode { answer, told: Arc::default(), told_of_snapshots: Arc::default() };
        let server = Server::builder().serve_with_incoming(node.clone(), TcpListenerStream::new(listener));
        tokio::spawn(server);
        (node, address)
    }
}

impl NamedService for FakeNode {
    const NAME: &'static str = "mainstay.test.Fake";
}

impl Service<http::Request<Body>> for FakeNode {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let FakeNode { answer, told, told_of_snapshots } = self.clone();
        Box::pin(async move {
            if request.uri().path().ends_with("/Snapshot") {
                let answer = FakeSnapshotAnswer { hello: Some(answer), ..FakeSnapshotAnswer::default() };
                let codec = ProstCodec::<FakeSnapshotAnswer, FakeSnapshotFrame>::default();
                let listening = Listening { answer, told: told_of_snapshots };
                return Ok(tonic::server::Grpc::new(codec).streaming(listening, request).await);
            }
            let codec = ProstCodec::<FakeHello, FakeFrame>::default();
            Ok(tonic::server::Grpc::new(codec).streaming(Listening { answer, told }, request).await)
        })
    }
}

/// On one call: an answer, and what is told.
struct Listening<A, F> {
    answer: A,
    told: Arc<Mutex<Vec<F>>>,
}

impl<A: Clone + Send + 'static, F: Send + 'static> StreamingService<F> for Listening<A, F> {
    type Response = A;
    type ResponseStream = ReceiverStream<Result<A, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<F>>) -> Self::Future {
        let (answer, told) = (self.answer.clone(), Arc::clone(&self.told));
        Box::pin(async move {
            let (sender, answers) = mpsc::channel(1);
            assert!(sender.try_send(Ok(answer)).is_ok());
            let mut frames = request.into_inner();
            tokio::spawn(async move {
                while let Some(Ok(frame)) = frames.next().await {
                    told.lock().push(frame);
                }
                drop(sender);
            });
            Ok(Response::new(ReceiverStream::new(answers)))
        })
    }
}
