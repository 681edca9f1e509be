//! What an operator asks of a node: to form a cluster, to make a join token, to take a member or its vote out, to compare the
//! members.
//!
//! Any member will do but for forming, which is asked of one node by name: asked of another because the first was slow to
//! answer, two clusters would come about.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::proto::formation_client::FormationClient;
use super::proto::{
    CheckRequest, CheckResponse, CreateTokenRequest, DescribeRequest, Description, InitRequest, Phase, RemoveRequest,
    SetVoteRequest, SetVoteResponse,
};
use super::rpc::channel::{CallError, Line, Nodes, Purpose, Repeat};
use super::rpc::client::timeout_ms;
use crate::ident::{ClusterId, GroupId, NodeId};
use crate::meta::proto::Member;
use crate::net::{Address, NetConfig, NetError};

/// What is waited before it is looked again whether the first member leads.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why nothing came of what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// *Your mistake*: these settings or files cannot be used.
    #[error("{0}")]
    Settings(String),
    /// *Your mistake*, or it cannot be done now; it had no effect.
    #[error("{0}")]
    Refused(String),
    /// *Your mistake*: there is no such thing. Asked before, it may have been done.
    #[error("{0}")]
    NotFound(String),
    /// *Retry*: nobody could be asked in time. It had no effect.
    #[error("no node could do it in time: {0}")]
    Unavailable(String),
    /// It may or may not have been done, or may yet be.
    #[error("it is not known whether it was done: {0}")]
    Unknown(String),
}

impl From<CallError> for OperatorError {
    fn from(error: CallError) -> OperatorError {
        match error {
            CallError::Net(error) => OperatorError::Settings(error.to_string()),
            CallError::Refused(status) => OperatorError::from(&*status),
            CallError::Unavailable { why } => OperatorError::Unavailable(why),
            CallError::Unknown { why } => OperatorError::Unknown(why),
        }
    }
}

impl From<&Status> for OperatorError {
    fn from(status: &Status) -> OperatorError {
        let why = status.message().to_owned();
        match status.code() {
            Code::NotFound => OperatorError::NotFound(why),
            Code::Unavailable => OperatorError::Unavailable(why),
            Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Internal => OperatorError::Unknown(why),
            _ => OperatorError::Refused(why),
        }
    }
}

/// A join token as it was made.
pub struct NewToken {
    /// The token: whoever has it can let one node in.
    pub token: String,
    /// Its number, by which it is revoked.
    pub id: u64,
    /// How long it is good for.
    pub ttl: Duration,
}

/// What became of a member's vote.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// The member, whose record says whether it is to vote.
    pub member: Member,
    /// It said so before.
    pub was_so: bool,
    /// The group is so already. If it is not, whoever leads makes it so as soon as that can be.
    pub is_done: bool,
}

impl TryFrom<SetVoteResponse> for Vote {
    type Error = OperatorError;

    fn try_from(response: SetVoteResponse) -> Result<Vote, OperatorError> {
        let SetVoteResponse { member, was_so, is_done } = response;
        let member = member.ok_or_else(|| OperatorError::Unknown("the answer says nothing".to_owned()))?;
        Ok(Vote { member, was_so, is_done })
    }
}

/// Asks nodes.
pub struct Operator {
    nodes: Nodes,
    timeout: Duration,
}

impl Operator {
    /// One that asks at these addresses, with the certificates and the permissions of these settings, for so long.
    ///
    /// # Errors
    /// Your mistake: addresses or TLS files that cannot be used.
    pub fn new(addresses: Vec<Address>, net: &NetConfig, timeout: Duration) -> Result<Operator, NetError> {
        Ok(Operator { nodes: Nodes::new(addresses, net)?, timeout })
    }

    /// Has the node at the one address form a cluster, and waits until it leads it.
    ///
    /// # Errors
    /// See [`OperatorError`]; refused if the node is a member already.
    pub async fn init(&self) -> Result<ClusterId, OperatorError> {
        let deadline = Instant::now() + self.timeout;
        let mut addresses = self.nodes.addresses();
        let (Some(address), None) = (addresses.next(), addresses.next()) else {
            return Err(OperatorError::Settings("a cluster is formed with one node: give one address".to_owned()));
        };
        let found = self.description(deadline).await?;
        if found.phase() == Phase::Member {
            return Err(OperatorError::Refused(format!(
                "{address} is node {} of cluster {:016x} already",
                found.node, found.cluster
            )));
        }
        // A repeated request is answered as the first one was.
        let formed = self.nodes.call(Purpose::Call, Repeat::Safe, deadline, |line, until| async move {
            formation(&line).init(timed(InitRequest {}, until)).await
        });
        let cluster = formed.await?.into_inner().cluster;
        let unsure = |why: String| OperatorError::Unknown(format!("the node does not lead its cluster yet: {why}"));
        loop {
            // The port changes hands meanwhile.
            let now = self.description(deadline).await.map_err(|error| unsure(error.to_string()))?;
            if now.cluster == cluster && now.leader == now.node && now.member.is_some() {
                return Ok(ClusterId::new(cluster));
            }
            if Instant::now() + LOOK_AGAIN >= deadline {
                return Err(unsure("it took too long".to_owned()));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// What the first node says of itself that answers.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn describe(&self) -> Result<Description, OperatorError> {
        self.description(Instant::now() + self.timeout).await
    }

    async fn description(&self, deadline: Instant) -> Result<Description, OperatorError> {
        let asked = self.nodes.call(Purpose::Call, Repeat::Safe, deadline, |line, until| async move {
            formation(&line).describe(timed(DescribeRequest {}, until)).await
        });
        Ok(asked.await?.into_inner())
    }

    /// Makes a join token, good for this long; `None`: as long as the cluster's setting says.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn create_token(&self, ttl: Option<Duration>, actor: &str) -> Result<NewToken, OperatorError> {
        let ttl_ms = ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
        let request = CreateTokenRequest { ttl_ms, actor: actor.to_owned(), timeout_ms: 0 };
        // A second one would be one that nobody knows.
        let deadline = Instant::now() + self.timeout;
        let made = self.nodes.call(Purpose::Call, Repeat::Never, deadline, |line, until| {
            let request = CreateTokenRequest { timeout_ms: timeout_ms(until), ..request.clone() };
            async move { formation(&line).create_token(request).await }
        });
        let made = made.await?.into_inner();
        Ok(NewToken { token: made.token, id: made.id, ttl: Duration::from_millis(made.ttl_ms) })
    }

    /// Takes a member out of the cluster for good; says how it was.
    ///
    /// # Errors
    /// See [`OperatorError`]; refused if the cluster would not have a majority without it.
    pub async fn remove(&self, node: NodeId, actor: &str) -> Result<Member, OperatorError> {
        let request = RemoveRequest::of(node, actor);
        let deadline = Instant::now() + self.timeout;
        let removed = self.nodes.call(Purpose::Call, Repeat::Never, deadline, |line, until| {
            let request = RemoveRequest { timeout_ms: timeout_ms(until), ..request.clone() };
            async move { formation(&line).remove(request).await }
        });
        let removed = removed.await?.into_inner().removed;
        removed.ok_or_else(|| OperatorError::Unknown("the answer says nothing".to_owned()))
    }

    /// Has a member vote in a Raft group, or only follow.
    ///
    /// # Errors
    /// See [`OperatorError`]; refused if nobody else votes, or no majority would without it.
    pub async fn set_vote(
        &self,
        group: GroupId,
        node: NodeId,
        votes: bool,
        actor: &str,
        reason: &str,
    ) -> Result<Vote, OperatorError> {
        let request = SetVoteRequest::of(group, node, votes, actor, reason);
        let deadline = Instant::now() + self.timeout;
        let set = self.nodes.call(Purpose::Call, Repeat::Never, deadline, |line, until| {
            let request = SetVoteRequest { timeout_ms: timeout_ms(until), ..request.clone() };
            async move { formation(&line).set_vote(request).await }
        });
        Vote::try_from(set.await?.into_inner())
    }

    /// Compares what all members hold of the metadata, as of one entry, while everything goes on. One that differs from the
    /// majority is not to lead, and gets a snapshot by itself.
    ///
    /// # Errors
    /// See [`OperatorError`]; unavailable if too few members said what they hold.
    pub async fn check(&self) -> Result<CheckResponse, OperatorError> {
        let deadline = Instant::now() + self.timeout;
        // One that is under way is joined.
        let checked = self.nodes.call(Purpose::Call, Repeat::Safe, deadline, |line, until| {
            let request = CheckRequest { timeout_ms: timeout_ms(until), hops: 0 };
            async move { formation(&line).check(timed(request, until)).await }
        });
        match checked.await {
            // It changes nothing that could be unknown.
            Err(CallError::Unknown { why }) => Err(OperatorError::Unavailable(why)),
            checked => Ok(checked?.into_inner()),
        }
    }
}

fn formation(line: &Line) -> FormationClient<Channel> {
    FormationClient::new(line.channel())
}

/// A request that says how long it is waited for.
fn timed<T>(message: T, until: Instant) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(until.saturating_duration_since(Instant::now()));
    request
}
