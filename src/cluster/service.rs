//! What a member answers: to operators and to nodes that want in ([`Formation`]), to other members ([`Peers`]), and to
//! other processes about the metadata ([`MetadataService`]).

use std::sync::Arc;
use std::time::Duration;

use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::check::check;
use super::core::Core;
use super::metrics;
use super::peers::{MESSAGE_LIMIT_BYTES, proposal_refused};
use super::proto::formation_server::{Formation, FormationServer};
use super::proto::peers_server::{Peers, PeersServer};
use super::proto::{
    AnnounceRequest, AnnounceResponse, CheckRequest, CheckResponse, Claim, CreateTokenRequest, CreateTokenResponse,
    DescribeRequest, Description, InitRequest, JoinRequest, JoinResponse, Joined, Phase, ProposeRequest,
    ProposeResponse, RemoveRequest, RemoveResponse, SetVoteRequest, SetVoteResponse, announce_response, join_response,
    propose_response,
};
use super::record::addresses;
use super::remove::remove;
use super::rpc::proto::StatusResponse;
use super::rpc::requests::patience;
use super::rpc::service::{MetadataService, Observed, raft_group};
use super::vote::set_vote;
use crate::ident::{Incarnation, NodeId};
use crate::meta::METADATA_GROUP;
use crate::meta::limits::{MAX_REASON_BYTES, MAX_TEXT_BYTES};
use crate::meta::proto::{Refusal, Refused, StartMember};
use crate::meta::service::{MetaError, Metadata};
use crate::meta::token::JoinToken;
use crate::net::connection::PeerInfo;
use crate::raftstore::context::Attempt;

/// How long letting a node in may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long taking notice of a start may take: whoever started waits for it.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The services of a member.
pub(super) struct Services(Arc<Core>);

impl Services {
    pub(super) fn routes(core: &Arc<Core>) -> Routes {
        let (formation, peers) = (Services(Arc::clone(core)), Services(Arc::clone(core)));
        let peers = PeersServer::new(peers)
            .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
            .max_encoding_message_size(MESSAGE_LIMIT_BYTES);
        let metadata = MetadataService::new(
            Arc::clone(&core.metadata) as Arc<dyn Metadata>,
            Arc::clone(core) as Arc<dyn Observed>,
        );
        Routes::new(FormationServer::new(formation)).add_service(peers).add_service(metadata.into_server())
    }

    fn description(&self) -> Result<Description, Status> {
        let core = &self.0;
        let members = core.members().map_err(|error| Status::internal(error.to_string()))?;
        let membership = core.membership;
        Ok(Description {
            phase: Phase::Member.into(),
            cluster: membership.cluster.get(),
            node: membership.node.get(),
            system: membership.system.get(),
            leader: core.leader().map_or(0, NodeId::get),
            member: members.into_iter().find(|member| member.id == membership.node.get()),
        })
    }

    /// Who calls, if it is a member of this cluster that means this node.
    fn caller<T>(&self, request: &Request<T>, claim: Option<&Claim>) -> Result<crate::net::identity::Claim, Status> {
        let info = request.extensions().get::<PeerInfo>().ok_or_else(|| Status::internal("who calls?"))?;
        let claim = claim.ok_or_else(|| Status::permission_denied("the request does not say who asks"))?;
        let identity = self.0.peers.identity();
        let proved = claim.claim().and_then(|claim| {
            identity.check(&claim, &info.certified, None)?;
            Ok(claim)
        });
        proved.map_err(|refusal| {
            tracing::warn!(address = %info.address, "a node was refused: {refusal}");
            Status::permission_denied(format!("you are refused: {refusal}"))
        })
    }
}

/// Text of others, as the event log takes it.
fn actor(text: &str) -> &str {
    cut(text, MAX_TEXT_BYTES)
}

fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

fn invalid(message: String) -> Refused {
    Refused { why: Refusal::Invalid.into(), message, ..Refused::default() }
}

/// What a caller hears of a request to the metadata group that came to nothing. The code says what may be done next.
pub(super) fn status(error: &MetaError) -> Status {
    let message = error.to_string();
    match error {
        MetaError::Refused(refused) => match refused.why() {
            Refusal::NoSuchMember | Refusal::NoSuchToken => Status::not_found(message),
            Refusal::Invalid => Status::invalid_argument(message),
            Refusal::OutOfRange => Status::out_of_range(message),
            Refusal::TooMany => Status::resource_exhausted(message),
            _ => Status::failed_precondition(message),
        },
        MetaError::TooLarge { .. } => Status::invalid_argument(message),
        MetaError::Unavailable { .. } | MetaError::Stopped(_) => Status::unavailable(message),
        MetaError::Unknown { .. } | MetaError::AnswerLost => Status::deadline_exceeded(message),
        _ => Status::internal(message),
    }
}

impl Observed for Core {
    fn status(&self) -> StatusResponse {
        let identity = self.peers.identity();
        StatusResponse {
            node: identity.node.get(),
            cluster_id: identity.cluster.get(),
            incarnation: identity.incarnation.get(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            groups: vec![raft_group(METADATA_GROUP, &self.metadata.group().view())],
        }
    }
}

#[tonic::async_trait]
impl Formation for Services {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        self.description().map(Response::new)
    }

    async fn init(&self, _: Request<InitRequest>) -> Result<Response<Description>, Status> {
        let membership = self.0.membership;
        if membership.node == super::FIRST_MEMBER {
            // The answer to an earlier request may have been lost.
            return self.description().map(Response::new);
        }
        Err(Status::already_exists(format!(
            "this is node {} of cluster {:016x} already",
            membership.node,
            membership.cluster.get()
        )))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let JoinRequest { member, token, segment_size_bytes } = request.into_inner();
        let core = &self.0;
        let answer = |outcome| Ok(Response::new(JoinResponse { outcome: Some(outcome) }));
        let refused = |why: Refused| answer(join_response::Outcome::Refused(why));
        let Some(member) = member else { return refused(invalid("the request does not say who asks".to_owned())) };
        let ours = core.storage.identity().segment_size_bytes;
        if segment_size_bytes != ours {
            return refused(invalid(format!(
                "the WAL of this cluster has segments of {ours} bytes, not {segment_size_bytes}: set \
                 wal.segment_size_bytes"
            )));
        }
        let token: JoinToken = match token.parse() {
            Ok(token) => token,
            Err(error) => return refused(invalid(format!("{error}"))),
        };
        let actor = actor(member.addresses.first().map_or("", String::as_str)).to_owned();
        let meta = core.meta.acting(&actor, "joins").within(JOIN_TIMEOUT);
        let joined = match meta.members().join(member, &token).await {
            Ok(joined) => joined,
            Err(MetaError::Refused(why)) => return refused(why),
            Err(error) => return Err(status(&error)),
        };
        tracing::info!(node = joined.id, addresses = ?joined.addresses, "a node joins");
        metrics::let_in();
        // Not what this node knows by itself: it may have come just now, and know nothing yet. Who is not told where the
        // leader is cannot answer it, and would never take part.
        let members = meta.members().list().await.map_err(|error| status(&error))?;
        answer(join_response::Outcome::Joined(Joined {
            cluster: core.membership.cluster.get(),
            system: core.membership.system.get(),
            node: joined.id,
            members: addresses(&members),
        }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let request = request.into_inner();
        // Who asks hears in time that nobody leads, and need not wonder whether there is a token.
        let meta = self.0.meta.acting(actor(&request.actor), "").within(patience(request.timeout_ms));
        let (token, record) = meta.tokens().create(request.ttl_ms).await.map_err(|error| status(&error))?;
        let (id, ttl_ms) = (record.id, record.ttl_ms);
        Ok(Response::new(CreateTokenResponse { token: token.reveal(), id, ttl_ms }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        let mut request = request.into_inner();
        request.actor = actor(&request.actor).to_owned();
        let _removal = self.0.begin_removal();
        let removed = remove(&self.0, request).await?;
        Ok(Response::new(RemoveResponse { removed }))
    }

    async fn set_vote(&self, request: Request<SetVoteRequest>) -> Result<Response<SetVoteResponse>, Status> {
        let mut request = request.into_inner();
        request.actor = actor(&request.actor).to_owned();
        request.reason = cut(&request.reason, MAX_REASON_BYTES).to_owned();
        set_vote(&self.0, request).await.map(Response::new)
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        check(&self.0, request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Peers for Services {
    async fn greet(&self, request: Request<Claim>) -> Result<Response<Claim>, Status> {
        let claim = self.caller(&request, Some(request.get_ref()))?;
        Ok(Response::new(Claim::of(&self.0.peers.identity().claim(claim.identity.node))))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let claim = self.caller(&request, request.get_ref().claim.as_ref())?;
        if !self.0.peers.knows(claim.identity.node) {
            return Err(Status::permission_denied(format!("node {} is no member", claim.identity.node)));
        }
        let ProposeRequest { client, sequence, command, .. } = request.into_inner();
        let group = self.0.metadata.group();
        let outcome = match group.propose_once(Attempt { client, sequence }, command).await {
            Ok(answer) => propose_response::Outcome::Answer(answer.into()),
            Err(error) => propose_response::Outcome::Refused(proposal_refused(&error)),
        };
        Ok(Response::new(ProposeResponse { outcome: Some(outcome) }))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceResponse>, Status> {
        let claim = self.caller(&request, request.get_ref().claim.as_ref())?;
        let start = request.into_inner().start.unwrap_or_default();
        let StartMember { id, secret_hash, incarnation, version, addresses } = start;
        if id != claim.identity.node.get() {
            return Err(Status::permission_denied("a node speaks for itself alone"));
        }
        if self.0.leader().is_none() {
            // Whoever starts may be the one without whom there is none.
            return Err(Status::failed_precondition("no leader is known"));
        }
        let (meta, version) = (self.0.meta.within(ANNOUNCE_TIMEOUT), u16::try_from(version).unwrap_or(u16::MAX));
        let members = meta.members();
        let (node, incarnation) = (NodeId::new(id), Incarnation::new(incarnation));
        let outcome = match members.started(node, secret_hash, incarnation, version, addresses).await {
            Ok(member) => announce_response::Outcome::Member(member),
            Err(MetaError::Refused(refused)) => announce_response::Outcome::Refused(refused),
            Err(error) => return Err(status(&error)),
        };
        Ok(Response::new(AnnounceResponse { outcome: Some(outcome) }))
    }
}
