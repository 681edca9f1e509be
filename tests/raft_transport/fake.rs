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

pub fn hello(node: u64, expects: u64, incarnation: u64) -> FakeHello {
    FakeHello { version: 1, cluster: super::CLUSTER, node, expects, incarnation }
}

pub fn batch(numbers: impl IntoIterator<Item = u64>) -> FakeFrame {
    let envelopes = numbers.into_iter().map(|group| FakeEnvelope { group, from: 1, to: 2, message: b"m".to_vec() });
    FakeFrame { hello: None, batch: Some(FakeBatch { envelopes: envelopes.collect() }) }
}

/// A node that calls.
pub struct FakeCaller {
    pub frames: mpsc::Sender<FakeFrame>,
    pub answers: Streaming<FakeHello>,
}

pub async fn channel(address: SocketAddr) -> Channel {
    Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap()
}

impl FakeCaller {
    /// Calls, with this as its first frame.
    pub async fn call(address: SocketAddr, first: FakeFrame) -> Result<FakeCaller, Status> {
        let (frames, queued) = mpsc::channel(16);
        frames.send(first).await.unwrap();
        let mut client = tonic::client::Grpc::new(channel(address).await).max_encoding_message_size(usize::MAX);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/mainstay.raft.v1.Raft/Deliver");
        let codec = ProstCodec::<FakeFrame, FakeHello>::default();
        let answers = client.streaming(Request::new(ReceiverStream::new(queued)), path, codec).await?.into_inner();
        Ok(FakeCaller { frames, answers })
    }

    /// Calls as a node that is welcome.
    pub async fn welcome(address: SocketAddr, first: FakeHello) -> FakeCaller {
        let frame = FakeFrame { hello: Some(first.clone()), batch: None };
        let mut caller = FakeCaller::call(address, frame).await.unwrap();
        let answer = caller.answers.message().await.unwrap().unwrap();
        assert_eq!((answer.node, answer.expects), (first.expects, first.node));
        caller
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

/// A node that is called, gives this answer, and keeps what it is told.
#[derive(Clone)]
pub struct FakeNode {
    pub answer: FakeHello,
    pub told: Arc<Mutex<Vec<FakeFrame>>>,
}

impl FakeNode {
    pub async fn start(answer: FakeHello) -> (FakeNode, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = FakeNode { answer, told: Arc::default() };
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
        let node = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<FakeHello, FakeFrame>::default();
            Ok(tonic::server::Grpc::new(codec).streaming(node, request).await)
        })
    }
}

impl StreamingService<FakeFrame> for FakeNode {
    type Response = FakeHello;
    type ResponseStream = ReceiverStream<Result<FakeHello, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<FakeFrame>>) -> Self::Future {
        let node = self.clone();
        Box::pin(async move {
            let (sender, answers) = mpsc::channel(1);
            sender.send(Ok(node.answer.clone())).await.unwrap();
            let mut frames = request.into_inner();
            tokio::spawn(async move {
                while let Some(Ok(frame)) = frames.next().await {
                    node.told.lock().push(frame);
                }
                drop(sender);
            });
            Ok(Response::new(ReceiverStream::new(answers)))
        })
    }
}
