//! The receiving end of streams: who may speak, and into whose inbox it goes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::grpc::Shared;
use super::metrics::{self, Received};
use super::snapshots::receiver::{self as snapshots, Takings};
use super::wire::raft_server::Raft;
use super::wire::{Batch, Frame, Hello, Kind, SnapshotAnswer, SnapshotFrame, SnapshotKind};
use crate::ident::{GroupId, NodeId};
use crate::net::connection::PeerInfo;
use crate::net::identity::{Claim, Identity, Incarnations, Refusal};

/// The hello, and why the stream ended.
const ANSWERS: usize = 2;

/// Who has spoken to this node, and who does.
#[derive(Default)]
pub(super) struct Admissions {
    incarnations: Incarnations,
    /// The one stream of each node. It ends when its sender is dropped.
    streams: HashMap<NodeId, (StreamId, oneshot::Sender<Infallible>)>,
    last: u64,
    pub(super) takings: Takings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StreamId(u64);

impl Admissions {
    /// Lets a node's stream begin, in place of the one it had.
    fn begin(&mut self, peer: Identity) -> Result<(StreamId, oneshot::Receiver<Infallible>), Refusal> {
        self.see(peer)?;
        self.last += 1;
        let (stop, stopped) = oneshot::channel();
        self.streams.insert(peer.node, (StreamId(self.last), stop));
        Ok((StreamId(self.last), stopped))
    }

    fn end(&mut self, node: NodeId, stream: StreamId) {
        if self.streams.get(&node).is_some_and(|(id, _)| *id == stream) {
            self.streams.remove(&node);
        }
    }

    /// A node was met. What an earlier life of it began, ends: its stream, and its snapshots.
    pub(super) fn see(&mut self, peer: Identity) -> Result<(), Refusal> {
        if self.incarnations.admit(peer.node, peer.incarnation)? {
            self.streams.remove(&peer.node);
            self.takings.stop(peer.node);
        }
        Ok(())
    }

    /// Lets a node send a snapshot of a group; nothing if one of the same is being taken, which ends then.
    pub(super) fn begin_snapshot(
        &mut self,
        peer: Identity,
        group: GroupId,
    ) -> Result<Option<oneshot::Receiver<Infallible>>, Refusal> {
        self.see(peer)?;
        Ok(self.takings.begin(peer.node, group))
    }
}

/// The service that other nodes call.
pub(super) struct Receiver {
    pub(super) shared: Arc<Shared>,
}

impl Receiver {
    /// Who calls, as far as the connection tells.
    fn caller<F>(request: &Request<Streaming<F>>) -> Result<PeerInfo, Status> {
        request.extensions().get().cloned().ok_or_else(|| Status::internal("who calls?"))
    }

    /// The first frame of a call.
    async fn first<F>(&self, frames: &mut Streaming<F>) -> Result<Option<F>, Status> {
        let first = timeout(self.shared.config.connect_timeout, frames.message()).await;
        first.map_err(|_| Status::deadline_exceeded("no hello came"))?
    }

    /// Lets a caller in that proves who it is.
    fn admit<T>(
        &self,
        info: &PeerInfo,
        hello: Option<Hello>,
        begin: impl FnOnce(&mut Admissions, Identity) -> Result<T, Refusal>,
    ) -> Result<(Identity, T), Status> {
        let hello = hello.ok_or_else(|| Status::invalid_argument("the first frame must be a hello"))?;
        let admitted = hello.claim().and_then(|claim| {
            self.shared.identity.check(&claim, &info.certified, None)?;
            Ok((claim.identity, begin(&mut self.shared.admissions.lock(), claim.identity)?))
        });
        admitted.map_err(|refusal| {
            metrics::refused("caller");
            tracing::warn!(address = %info.address, "a node was refused: {refusal}");
            status(&refusal)
        })
    }

    /// What this node says of itself to one that was let in.
    fn claim(&self, peer: Identity) -> Claim {
        self.shared.identity.claim(peer.node)
    }

    /// Goes on with a call beside its handler, until the transport stops.
    fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut streams = self.shared.streams.lock();
        while streams.try_join_next().is_some() {}
        streams.spawn(call);
    }
}

#[tonic::async_trait]
impl Raft for Receiver {
    type DeliverStream = ReceiverStream<Result<Hello, Status>>;
    type SnapshotStream = ReceiverStream<Result<SnapshotAnswer, Status>>;

    async fn deliver(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::DeliverStream>, Status> {
        let info = Receiver::caller(&request)?;
        let mut frames = request.into_inner();
        let hello = match self.first(&mut frames).await?.and_then(|frame| frame.kind) {
            Some(Kind::Hello(hello)) => Some(hello),
            _ => None,
        };
        let place = hello.as_ref().and_then(Hello::place);
        let (peer, (stream, stopped)) = self.admit(&info, hello, Admissions::begin)?;
        if let Some(address) = place {
            self.shared.meet(peer, address);
        }
        tracing::debug!(peer = %peer.node, incarnation = %peer.incarnation, address = %info.address, "a node speaks");

        let (answer, answers) = mpsc::channel(ANSWERS);
        // There is room for the first.
        let _ = answer.try_send(Ok(Hello::of(&self.claim(peer))));
        let incoming = Incoming { shared: Arc::clone(&self.shared), node: peer.node, stream, answer };
        self.spawn(incoming.run(frames, stopped));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotFrame>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let info = Receiver::caller(&request)?;
        let mut frames = request.into_inner();
        let hello = match self.first(&mut frames).await?.and_then(|frame| frame.kind) {
            Some(SnapshotKind::Hello(hello)) => Some(hello),
            _ => None,
        };
        let (peer, ()) = self.admit(&info, hello, Admissions::see)?;
        let (answer, answers) = mpsc::channel(snapshots::ANSWERS);
        // There is room for the first.
        let _ = answer.try_send(Ok(SnapshotAnswer::hello(&self.claim(peer))));
        let call = snapshots::Call { shared: Arc::clone(&self.shared), peer, answers: answer };
        self.spawn(call.run(frames));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Refusals are final until somebody changes something, and so are the codes.
pub(super) fn status(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Cluster { .. } | Refusal::Certificate(_) | Refusal::Myself(_) => Code::PermissionDenied,
        Refusal::TooMany => Code::ResourceExhausted,
        Refusal::NotMe { .. } | Refusal::NotThem { .. } | Refusal::Stale { .. } | Refusal::Version { .. } => {
            Code::FailedPrecondition
        }
    };
    Status::new(code, format!("you are refused: {refusal}"))
}

/// A stream of a node that proved who it is.
struct Incoming {
    shared: Arc<Shared>,
    node: NodeId,
    stream: StreamId,
    answer: mpsc::Sender<Result<Hello, Status>>,
}

impl Incoming {
    async fn run(self, mut frames: Streaming<Frame>, mut stopped: oneshot::Receiver<Infallible>) {
        let counts = Received::from(self.node);
        let reason = loop {
            let frame = tokio::select! {
                biased;
                _ = &mut stopped => break Status::aborted("a newer stream of your node took over"),
                frame = frames.message() => frame,
            };
            match frame {
                Ok(Some(Frame { kind: Some(Kind::Batch(batch)) })) if !batch.is_cut => self.deliver(batch, &counts),
                Ok(Some(_)) => {
                    break Status::invalid_argument("a batch was expected, of no more envelopes than allowed");
                }
                Ok(None) => break Status::ok("as you wish"),
                Err(status) => break status,
            }
        };
        tracing::debug!(peer = %self.node, "a node speaks no longer: {}", reason.message());
        self.shared.admissions.lock().end(self.node, self.stream);
        // There is room; or nobody waits for it.
        let _ = self.answer.try_send(Err(reason));
    }

    fn deliver(&self, batch: Batch, counts: &Received) {
        let (count, bytes) = (batch.messages.len(), batch.encoded_len());
        let dropped = match self.shared.inbox() {
            None => count,
            Some(inbox) => inbox.deliver_all(self.node, batch.messages).len(),
        };
        counts.batch(count, bytes, dropped);
    }
}
