//! What a node answers to other processes about the metadata: the service of `proto/meta_rpc.proto`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tonic::{Extensions, Request, Response, Status};

use super::failure;
use super::feed::{self, Feed};
use super::proto::metadata_server::{Metadata as Served, MetadataServer};
use super::proto::{
    ExecuteRequest, ExecuteResponse, FollowRequest, FollowResponse, RaftGroup, ReadRequest, ReadResponse, Replica,
    StatusRequest, StatusResponse, WatchRequest, WatchResponse,
};
use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MAX_TIMEOUT, NOTICE_EVERY};
use crate::ident::{GroupId, NodeId};
use crate::meta::client::DEFAULT_TIMEOUT;
use crate::meta::limits::MAX_TEXT_BYTES;
use crate::meta::proto::action::Kind as Action;
use crate::meta::proto::result::Kind as Outcome;
use crate::meta::proto::{Command, Done, KeyRange, Member, Refusal, Refused, Token};
use crate::meta::query::proto::Found;
use crate::meta::query::proto::found::Kind as Answer;
use crate::meta::service::{Backend, Here, MetaError, Metadata};
use crate::net::connection::PeerInfo;
use crate::raftstore::context::Attempt;
use crate::raftstore::group::Role;
use crate::raftstore::store::GroupView;

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
    here: Here,
    observed: Arc<dyn Observed>,
    feeds: Arc<Semaphore>,
}

impl MetadataService {
    /// One over a metadata group.
    pub fn new(metadata: Arc<dyn Metadata>, observed: Arc<dyn Observed>) -> MetadataService {
        let here = Here(Arc::clone(&metadata));
        MetadataService { metadata, here, observed, feeds: Arc::new(Semaphore::new(MAX_FEEDS)) }
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

/// How long the node tries.
pub(in crate::cluster) fn patience(timeout_ms: u64) -> Duration {
    match timeout_ms {
        0 => DEFAULT_TIMEOUT,
        milliseconds => Duration::from_millis(milliseconds).min(MAX_TIMEOUT),
    }
}

/// Until when the node tries.
fn deadline(timeout_ms: u64) -> Instant {
    Instant::now() + patience(timeout_ms)
}

/// Who acts: whom the certificate names, if it names anybody, and whom the client says.
fn actor(extensions: &Extensions, claimed: &str) -> String {
    let certified = extensions.get::<PeerInfo>().and_then(|info| info.subject.as_deref());
    let mut actor = match (certified, claimed) {
        (None, claimed) => claimed.to_owned(),
        (Some(name), "") => name.to_owned(),
        (Some(name), claimed) => format!("{claimed} ({name})"),
    };
    let end = (0..=MAX_TEXT_BYTES).rev().find(|end| actor.is_char_boundary(*end));
    actor.truncate(end.unwrap_or_default());
    actor
}

/// What only nodes propose: what their clock finds due, and that they were forced.
fn check(command: &Command) -> Result<(), MetaError> {
    let is_ours = |action: &_| matches!(action, Some(Action::Expire(_) | Action::ForceNew(_)));
    match command.actions.iter().position(|action| is_ours(&action.kind)) {
        None => Ok(()),
        Some(place) => Err(MetaError::Refused(Refused {
            why: Refusal::Invalid.into(),
            action: u32::try_from(place).unwrap_or(u32::MAX),
            message: "only nodes let leases and tokens expire, and force clusters".to_owned(),
            number: 0,
        })),
    }
}

fn hide_member(member: &mut Member) {
    member.secret_hash.clear();
}

fn hide_token(token: &mut Token) {
    token.hash.clear();
}

/// Takes away the hashes of secrets: what is proposed with them does not ask for the secrets themselves.
fn hide_done(done: &mut Done) {
    for result in &mut done.results {
        match &mut result.kind {
            Some(Outcome::Member(member)) => hide_member(member),
            Some(Outcome::Token(token)) => hide_token(token),
            _ => {}
        }
    }
}

fn hide_found(found: &mut Found) {
    match &mut found.kind {
        Some(Answer::Member(found)) => found.member.iter_mut().for_each(hide_member),
        Some(Answer::Members(found)) => found.members.iter_mut().for_each(hide_member),
        Some(Answer::Tokens(found)) => found.tokens.iter_mut().for_each(hide_token),
        _ => {}
    }
}

#[tonic::async_trait]
impl Served for MetadataService {
    type WatchStream = feed::Stream<WatchResponse>;
    type FollowStream = feed::Stream<FollowResponse>;

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let mut command = request.command.ok_or_else(|| Status::invalid_argument("there is no command"))?;
        command.actor = actor(&extensions, &command.actor);
        let deadline = deadline(request.timeout_ms);
        let executed = async {
            check(&command)?;
            match request.client {
                0 => self.metadata.execute(command, deadline).await,
                client => {
                    let attempt = Attempt { client, sequence: request.sequence };
                    self.metadata.execute_named(attempt, command, deadline).await
                }
            }
        };
        let mut done = executed.await.map_err(|error| failure::status(&error))?;
        hide_done(&mut done);
        Ok(Response::new(ExecuteResponse { done: Some(done) }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let request = request.into_inner();
        let asked = self.here.ask(request.query.unwrap_or_default(), request.is_local, deadline(request.timeout_ms));
        let mut found = asked.await.map_err(|error| failure::status(&error))?;
        hide_found(&mut found);
        Ok(Response::new(ReadResponse { found: Some(found) }))
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
