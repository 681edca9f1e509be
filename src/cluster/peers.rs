//! What members ask each other beside Raft: to propose a command where the leader is, and to take notice of a start.
//!
//! Each proves who it is as it does for Raft's messages: by cluster, number and incarnation, and by its certificate if there
//! is TLS. On a new connection both greet each other before anything is said; every request names its sender again. A
//! connection is kept per peer, and made anew when it fails. Every call has a deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::dial;
use super::proto;
use super::proto::formation_client::FormationClient;
use super::proto::peers_client::PeersClient;
use super::proto::{
    AnnounceRequest, CheckRequest, CheckResponse, ProposalRefusal, ProposalRefused, ProposeRequest, RemoveRequest,
    SetVoteRequest, SetVoteResponse, announce_response, propose_response,
};
use crate::ident::{ClusterId, Incarnation, NodeId};
use crate::meta::command::MAX_COMMAND_BYTES;
use crate::meta::proto::{Member, Refused, StartMember};
use crate::meta::raft::Forward;
use crate::net::connection::Holder;
use crate::net::identity::{Claim, Identity, Refusal};
use crate::net::tls::Tls;
use crate::net::{Address, NetConfig, NetError};
use crate::raftstore::context::Attempt;
use crate::raftstore::store::ProposeError;

/// The version of what members say to each other here.
const PROTOCOL_VERSION: u32 = 1;
/// Largest message of these services: a command and what is around it.
pub(super) const MESSAGE_LIMIT_BYTES: usize = MAX_COMMAND_BYTES + (64 << 10);
/// Longer than a leader takes to say that it does not know.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(6);
/// Peers whose connections are kept; more than a cluster has members.
const MAX_PEERS: usize = 4096;

impl proto::Claim {
    pub(super) fn of(claim: &Claim) -> proto::Claim {
        proto::Claim {
            version: PROTOCOL_VERSION,
            cluster: claim.identity.cluster.get(),
            node: claim.identity.node.get(),
            expects: claim.expects.get(),
            incarnation: claim.identity.incarnation.get(),
        }
    }

    pub(super) fn claim(&self) -> Result<Claim, Refusal> {
        if self.version != PROTOCOL_VERSION {
            return Err(Refusal::Version { theirs: self.version, ours: PROTOCOL_VERSION });
        }
        let identity = Identity {
            cluster: ClusterId::new(self.cluster),
            node: NodeId::new(self.node),
            incarnation: Incarnation::new(self.incarnation),
        };
        Ok(Claim { identity, expects: NodeId::new(self.expects) })
    }
}

/// Why a peer was not reached, or answered nothing of use.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody knows where it is.
    #[error("no address of node {0} is known")]
    Unknown(NodeId),
    /// It heard nothing.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Somebody else answered.
    #[error("who answers is not listened to: {0}")]
    Stranger(#[from] Refusal),
    /// It answered this, or the connection failed.
    #[error("{}", .0.message())]
    Status(Box<Status>),
    /// It may have heard it.
    #[error("it did not answer in time")]
    Silent,
}

impl From<Status> for CallError {
    fn from(status: Status) -> CallError {
        CallError::Status(Box::new(status))
    }
}

impl CallError {
    /// Whether the peer surely did nothing.
    fn had_no_effect(&self) -> bool {
        match self {
            CallError::Unknown(_) | CallError::Net(_) | CallError::Stranger(_) => true,
            // Said before anything is done.
            CallError::Status(status) => matches!(status.code(), Code::PermissionDenied | Code::FailedPrecondition),
            CallError::Silent => false,
        }
    }

    /// Whether the peer may have done what it was asked.
    pub(super) fn may_have_had_effect(&self) -> bool {
        !self.had_no_effect()
    }

    /// Whether the connection is of no more use.
    fn is_broken(&self) -> bool {
        match self {
            CallError::Status(status) => !matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied),
            CallError::Silent => true,
            _ => false,
        }
    }
}

/// A connection to a peer that proved who it is.
#[derive(Clone)]
struct Line {
    _holder: Arc<Holder>,
    channel: Channel,
}

/// The other members, and connections to them.
pub(super) struct Peers {
    identity: RwLock<Identity>,
    net: NetConfig,
    tls: Option<Arc<Tls>>,
    addresses: RwLock<BTreeMap<NodeId, Vec<Address>>>,
    /// Each is held while a connection is made, so that those who wait use the same one.
    lines: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<Option<Line>>>>>,
}

impl Peers {
    pub(super) fn new(identity: Identity, net: NetConfig, tls: Option<Arc<Tls>>) -> Peers {
        Peers { identity: RwLock::new(identity), net, tls, addresses: RwLock::default(), lines: Mutex::default() }
    }

    pub(super) fn identity(&self) -> Identity {
        *self.identity.read()
    }

    pub(super) fn set_incarnation(&self, incarnation: Incarnation) {
        self.identity.write().incarnation = incarnation;
    }

    /// Says who the other members are, and where; answers what was known before.
    pub(super) fn set(&self, addresses: BTreeMap<NodeId, Vec<Address>>) -> BTreeMap<NodeId, Vec<Address>> {
        let before = std::mem::replace(&mut *self.addresses.write(), addresses.clone());
        self.lines.lock().retain(|node, _| before.get(node) == addresses.get(node));
        before
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.addresses.read().keys().copied().collect()
    }

    pub(super) fn knows(&self, node: NodeId) -> bool {
        self.addresses.read().contains_key(&node)
    }

    /// A connection that stands, or a new one.
    async fn line(&self, node: NodeId) -> Result<Line, CallError> {
        let addresses = self.addresses.read().get(&node).cloned().ok_or(CallError::Unknown(node))?;
        let slot = {
            let mut lines = self.lines.lock();
            if lines.len() >= MAX_PEERS && !lines.contains_key(&node) {
                lines.pop_first();
            }
            Arc::clone(lines.entry(node).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(line) = &*slot {
            return Ok(line.clone());
        }
        let mut last = CallError::Unknown(node);
        for address in &addresses {
            match self.connect(node, address).await {
                Ok(line) => return Ok(slot.insert(line).clone()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect(&self, node: NodeId, address: &Address) -> Result<Line, CallError> {
        let holder = Holder::new();
        let (channel, certified) = dial::connect(address, &self.net, self.tls.as_deref(), &holder).await?;
        let identity = self.identity();
        let mut client = PeersClient::new(channel.clone());
        let greeting = client.greet(proto::Claim::of(&identity.claim(node)));
        let answer = timeout(self.net.connect_timeout, greeting).await;
        // Whatever it says: nothing was asked of it yet.
        let answer = answer.map_err(|_| Status::failed_precondition("it did not greet in time"))?;
        let answer = answer.map_err(|status| Status::failed_precondition(status.message()))?.into_inner();
        identity.check(&answer.claim()?, &certified, Some(node))?;
        Ok(Line { _holder: Arc::new(holder), channel })
    }

    fn forget(&self, node: NodeId) {
        self.lines.lock().remove(&node);
    }

    /// Calls a peer; a connection that fails is not used again.
    async fn call<T>(
        &self,
        node: NodeId,
        limit: Duration,
        call: impl AsyncFnOnce(Channel, proto::Claim) -> Result<T, Status>,
    ) -> Result<T, CallError> {
        let connected = timeout(limit, self.line(node)).await;
        let line = connected.map_err(|_| NetError::Connect {
            address: self.addresses.read().get(&node).and_then(|all| all.first().cloned()).unwrap_or_else(nowhere),
            source: std::io::ErrorKind::TimedOut.into(),
        })??;
        let claim = proto::Claim::of(&self.identity().claim(node));
        let called = timeout(limit, call(line.channel.clone(), claim)).await;
        let answer = called.map_err(|_| CallError::Silent).and_then(|answer| answer.map_err(CallError::from));
        if answer.as_ref().is_err_and(CallError::is_broken) {
            self.forget(node);
        }
        answer
    }

    /// Has a start of this node noted, through a peer.
    pub(super) async fn announce(
        &self,
        node: NodeId,
        start: StartMember,
        limit: Duration,
    ) -> Result<Result<Member, Refused>, CallError> {
        let answer = self.call(node, limit, async |channel, claim| {
            let request = AnnounceRequest { claim: Some(claim), start: Some(start) };
            Ok(PeersClient::new(channel).announce(request).await?.into_inner())
        });
        match answer.await?.outcome {
            Some(announce_response::Outcome::Member(member)) => Ok(Ok(member)),
            Some(announce_response::Outcome::Refused(refused)) => Ok(Err(refused)),
            None => Err(Status::unknown("its answer says nothing").into()),
        }
    }

    /// Passes on a request to remove a member.
    pub(super) async fn remove(
        &self,
        node: NodeId,
        request: RemoveRequest,
        limit: Duration,
    ) -> Result<Option<Member>, CallError> {
        let answer = self.call(node, limit, async |channel, _| {
            Ok(FormationClient::new(channel).remove(request).await?.into_inner())
        });
        Ok(answer.await?.removed)
    }

    /// Passes on a request to have a member vote, or not.
    pub(super) async fn set_vote(
        &self,
        node: NodeId,
        request: SetVoteRequest,
        limit: Duration,
    ) -> Result<SetVoteResponse, CallError> {
        let set = async |channel, _| Ok(FormationClient::new(channel).set_vote(request).await?.into_inner());
        self.call(node, limit, set).await
    }

    /// Passes on a request to compare what the members hold.
    pub(super) async fn check(
        &self,
        node: NodeId,
        request: CheckRequest,
        limit: Duration,
    ) -> Result<CheckResponse, CallError> {
        let check = async |channel, _| Ok(FormationClient::new(channel).check(request).await?.into_inner());
        self.call(node, limit, check).await
    }
}

fn nowhere() -> Address {
    Address::from(std::net::SocketAddr::from(([0, 0, 0, 0], 0)))
}

#[tonic::async_trait]
impl Forward for Peers {
    async fn propose(&self, leader: NodeId, attempt: Attempt, command: Vec<u8>) -> Result<Bytes, ProposeError> {
        let answer = self.call(leader, PROPOSE_TIMEOUT, async |channel, claim| {
            let mut client = PeersClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
            let Attempt { client: name, sequence } = attempt;
            let request = ProposeRequest { claim: Some(claim), client: name, sequence, command };
            Ok(client.propose(request).await?.into_inner())
        });
        let answer = answer.await.map_err(|error| match error.had_no_effect() {
            true => ProposeError::NotLeader { leader: None },
            false => ProposeError::Unknown { why: "the leader did not answer" },
        })?;
        match answer.outcome {
            Some(propose_response::Outcome::Answer(answer)) => Ok(answer.into()),
            Some(propose_response::Outcome::Refused(refused)) => Err(refused_proposal(&refused)),
            None => Err(ProposeError::Unknown { why: "the leader's answer says nothing" }),
        }
    }
}

fn refused_proposal(refused: &ProposalRefused) -> ProposeError {
    let number = refused.number;
    match refused.why() {
        ProposalRefusal::NotLeader => ProposeError::NotLeader { leader: (number != 0).then(|| NodeId::new(number)) },
        ProposalRefusal::Busy => ProposeError::Busy,
        ProposalRefusal::TooLarge => {
            ProposeError::TooLarge { limit_bytes: usize::try_from(number).unwrap_or(usize::MAX) }
        }
        ProposalRefusal::AppliedBefore => ProposeError::AppliedBefore,
        ProposalRefusal::Unknown | ProposalRefusal::Unspecified => {
            ProposeError::Unknown { why: "the leader does not know" }
        }
    }
}

/// What a peer hears of a proposal that came to nothing.
pub(super) fn proposal_refused(error: &ProposeError) -> ProposalRefused {
    let (why, number) = match error {
        ProposeError::NotLeader { leader } => (ProposalRefusal::NotLeader, leader.map_or(0, NodeId::get)),
        ProposeError::Stopped(_) => (ProposalRefusal::NotLeader, 0),
        ProposeError::Busy => (ProposalRefusal::Busy, 0),
        ProposeError::TooLarge { limit_bytes } => (ProposalRefusal::TooLarge, *limit_bytes as u64),
        ProposeError::AppliedBefore => (ProposalRefusal::AppliedBefore, 0),
        _ => (ProposalRefusal::Unknown, 0),
    };
    ProposalRefused { why: why.into(), number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_leader_refuses_means_the_same_to_the_one_who_asked() {
        let refusals = [
            ProposeError::NotLeader { leader: Some(NodeId::new(3)) },
            ProposeError::NotLeader { leader: None },
            ProposeError::Busy,
            ProposeError::TooLarge { limit_bytes: 7 },
            ProposeError::AppliedBefore,
        ];
        for error in refusals {
            assert_eq!(refused_proposal(&proposal_refused(&error)).to_string(), error.to_string());
        }
        // Who may have had an effect stays unsure; what no build so far says, too.
        for error in [ProposeError::Unknown { why: "x" }, ProposeError::Superseded, ProposeError::NotRepeatable] {
            assert!(matches!(refused_proposal(&proposal_refused(&error)), ProposeError::Unknown { .. }), "{error}");
        }
        let later = ProposalRefused { why: 99, number: 0 };
        assert!(matches!(refused_proposal(&later), ProposeError::Unknown { .. }));
    }

    #[test]
    fn what_a_peer_may_have_heard_may_have_had_an_effect() {
        let silent = [CallError::Silent, Status::unavailable("the connection broke").into()];
        assert!(silent.iter().all(CallError::may_have_had_effect));
        let unheard = [
            CallError::Unknown(NodeId::new(2)),
            CallError::Net(NetError::Connect { address: nowhere(), source: std::io::ErrorKind::TimedOut.into() }),
            Status::permission_denied("who are you?").into(),
            Status::failed_precondition("not now").into(),
        ];
        assert!(!unheard.iter().any(CallError::may_have_had_effect));
    }

    #[test]
    fn a_claim_is_read_as_it_was_said_and_other_versions_are_refused() {
        let identity = Identity { cluster: ClusterId::new(7), node: NodeId::new(2), incarnation: Incarnation::new(9) };
        let claim = identity.claim(NodeId::new(1));
        assert_eq!(proto::Claim::of(&claim).claim(), Ok(claim));
        let later = proto::Claim { version: 2, ..proto::Claim::of(&claim) };
        assert!(matches!(later.claim(), Err(Refusal::Version { theirs: 2, ours: 1 })));
    }
}
