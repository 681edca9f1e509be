//! What a node answers to other processes about the metadata: the service of `proto/meta_rpc.proto`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::batch::{BatchRequest, answerer};
use super::feed::{self, Feed};
use super::proto::metadata_server::{Metadata as Served, MetadataServer};
use super::proto::{
    ExecuteRequest, ExecuteResponse, FollowRequest, FollowResponse, RaftGroup, ReadRequest, ReadResponse, Replica,
    StatusRequest, StatusResponse, WatchRequest, WatchResponse,
};
use super::requests::{Requests, deadline};
use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, NOTICE_EVERY};
use crate::ident::{GroupId, NodeId};
use crate::meta::proto::KeyRange;
use crate::meta::service::Metadata;
use crate::raftstore::group::Role;
use crate::raftstore::store::GroupView;

/// Streams of requests at a time, of all clients together.
const MAX_STREAMS: usize = 4096;
/// Watches of keys and of events at a time, of all clients together.
const MAX_FEEDS: usize = 4096;
/// Nobody needs to hear more often how far a watch is.
const MIN_NOTICE: Duration = Duration::from_millis(10);
/// Nor keeps a stream for which nothing comes from a node that may be gone.
const MAX_NOTICE: Duration = Duration::from_secs(60);

/// What a node knows of itself beside the metadata: who leads, how far each replica is.
pub trait Observed: Send + Sync + 'static {
    /// How it stands.
    fn status(&self) -> StatusResponse;
}

/// A replica, for [`Observed::status`].
pub fn raft_group(group: GroupId, view: &GroupView) -> RaftGroup {
    let (status, positions) = (&view.status, &view.status.positions);
    let membership = &status.membership;
    let leads = positions.role == Role::Leader;
    let replica = |(replica, node): (&_, &NodeId)| {
        let follower = status.followers.iter().find(|follower| follower.replica == *replica);
        let is_self = *replica == status.replica;
        Replica {
            replica: replica.get(),
            node: node.get(),
            is_learner: membership.learners.contains(replica),
            matched: if is_self && leads { Some(positions.last.get()) } else { follower.map(|it| it.matched.get()) },
            is_heard: if is_self && leads { Some(true) } else { follower.map(|it| it.recently_active) },
        }
    };
    RaftGroup {
        group: group.get(),
        leader: view.leader_node().map_or(0, NodeId::get),
        term: positions.term.get(),
        role: match positions.role {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
        }
        .to_owned(),
        last: positions.last.get(),
        committed: positions.committed.get(),
        applied: positions.applied.get(),
        replicas: membership.nodes.iter().map(replica).collect(),
        is_asleep: status.is_asleep,
    }
}

/// The service.
pub struct MetadataService {
    metadata: Arc<dyn Metadata>,
    observed: Arc<dyn Observed>,
    streams: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
}

impl MetadataService {
    /// One over a metadata group.
    pub fn new(metadata: Arc<dyn Metadata>, observed: Arc<dyn Observed>) -> MetadataService {
        let (streams, feeds) = (Arc::new(Semaphore::new(MAX_STREAMS)), Arc::new(Semaphore::new(MAX_FEEDS)));
        MetadataService { metadata, observed, streams, feeds }
    }

    /// Ready to be put among a server's routes.
    pub fn into_server(self) -> MetadataServer<MetadataService> {
        MetadataServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_RESPONSE_BYTES)
    }

    fn feed(&self, notice_every_ms: u64) -> Result<Feed, Status> {
        // Elsewhere there may be room.
        let place = Arc::clone(&self.feeds).try_acquire_owned();
        let place = place.map_err(|_| Status::unavailable(format!("{MAX_FEEDS} watches are open on this node")))?;
        let notice_every = match notice_every_ms {
            0 => NOTICE_EVERY,
            milliseconds => Duration::from_millis(milliseconds).clamp(MIN_NOTICE, MAX_NOTICE),
        };
        Ok(Feed { metadata: Arc::clone(&self.metadata), notice_every, _place: place })
    }
}

#[tonic::async_trait]
impl Served for MetadataService {
    type BatchStream = answerer::Answers;
    type WatchStream = feed::Stream<WatchResponse>;
    type FollowStream = feed::Stream<FollowResponse>;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let requests = Requests::of(&self.metadata, request.extensions());
        requests.execute(request.into_inner()).await.map(Response::new)
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let requests = Requests::of(&self.metadata, request.extensions());
        let request = request.into_inner();
        if !request.is_local {
            requests.barrier(deadline(request.timeout_ms)).await?;
        }
        requests.find(request.query).map(Response::new)
    }

    async fn batch(&self, request: Request<Streaming<BatchRequest>>) -> Result<Response<Self::BatchStream>, Status> {
        // Nothing of it was taken: elsewhere there may be room.
        let place = Arc::clone(&self.streams).try_acquire_owned();
        let place = place.map_err(|_| Status::unavailable(format!("{MAX_STREAMS} streams are open on this node")))?;
        let requests = Requests::of(&self.metadata, request.extensions());
        Ok(Response::new(answerer::answer(requests, request.into_inner(), place)))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let range: KeyRange = request.range.ok_or_else(|| Status::invalid_argument("there is no range"))?;
        Ok(Response::new(self.feed(request.notice_every_ms)?.keys(range, request.from)))
    }

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.feed(request.notice_every_ms)?.events(request.from)))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.observed.status()))
    }
}
