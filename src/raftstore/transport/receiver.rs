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
use super::wire::raft_server::Raft;
use super::wire::{Batch, Frame, Hello, Kind};
use crate::ident::NodeId;
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StreamId(u64);

impl Admissions {
    /// Lets a node's stream begin, in place of the one it had.
    fn begin(&mut self, peer: Identity) -> Result<(StreamId, oneshot::Receiver<Infallible>), Refusal> {
        self.incarnations.admit(peer.node, peer.incarnation)?;
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

    /// A node was met that this one called. A stream of an earlier life of it ends.
    pub(super) fn see(&mut self, peer: Identity) -> Result<(), Refusal> {
        if self.incarnations.admit(peer.node, peer.incarnation)? {
            self.streams.remove(&peer.node);
        }
        Ok(())
    }
}

/// The service that other nodes call.
pub(super) struct Receiver {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Raft for Receiver {
    type DeliverStream = ReceiverStream<Result<Hello, Status>>;

    async fn deliver(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::DeliverStream>, Status> {
        let shared = &self.shared;
        let info = request.extensions().get::<PeerInfo>().cloned().ok_or_else(|| Status::internal("who calls?"))?;
        let mut frames = request.into_inner();
        let first = timeout(shared.config.connect_timeout, frames.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(Kind::Hello(hello)) = first.and_then(|frame| frame.kind) else {
            return Err(Status::invalid_argument("the first frame must be a hello"));
        };
        let admitted = hello.claim().and_then(|claim| {
            shared.identity.check(&claim, &info.certified, None)?;
            Ok((claim, shared.admissions.lock().begin(claim.identity)?))
        });
        let (Claim { identity: peer, .. }, (stream, stopped)) = admitted.map_err(|refusal| {
            metrics::refused("caller");
            tracing::warn!(address = %info.address, "a node was refused: {refusal}");
            status(&refusal)
        })?;
        tracing::debug!(peer = %peer.node, incarnation = %peer.incarnation, address = %info.address, "a node speaks");

        let (answer, answers) = mpsc::channel(ANSWERS);
        // There is room for the first.
        let _ = answer.try_send(Ok(Hello::of(&shared.identity.claim(peer.node))));
        let incoming = Incoming { shared: Arc::clone(shared), node: peer.node, stream, answer };
        let mut streams = shared.streams.lock();
        while streams.try_join_next().is_some() {}
        streams.spawn(incoming.run(frames, stopped));
        drop(streams);
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Refusals are final until somebody changes something, and so are the codes.
fn status(refusal: &Refusal) -> Status {
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
        let (count, bytes) = (batch.envelopes.len(), batch.encoded_len());
        let dropped = match self.shared.inbox() {
            None => count,
            Some(inbox) => {
                let deliver = |envelope| inbox.deliver(self.node, envelope).is_err();
                batch.envelopes.into_iter().map(deliver).filter(|dropped| *dropped).count()
            }
        };
        counts.batch(count, bytes, dropped);
    }
}
