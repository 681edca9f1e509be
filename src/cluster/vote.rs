//! Takes the vote of a member in the metadata group away, or gives it back.
//!
//! The leader does it. What is wanted is noted in the member's record first: from then on whoever leads carries it out
//! ([`plan`](super::plan)), also when this one dies here. A member that leads hands leadership over before it loses its vote, and
//! passes the request on. If the group refuses the change, for too few of its voters live, what was noted is taken back, and
//! the member goes on as it was.
//!
//! A member without a vote is one in all else: its replica follows as a learner, and its node answers like any other.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::core::Core;
use super::leading::{Hop, STEP_TIMEOUT, change_members, hand_over, leader, majority_without, unanswered};
use super::plan::{MAX_VOTERS, replica_of};
use super::proto::{SetVoteRequest, SetVoteResponse};
use super::rpc::requests::patience_within;
use super::service::status;
use crate::ident::{GroupId, NodeId, ReplicaId};
use crate::meta::METADATA_GROUP;
use crate::meta::client::Meta;
use crate::meta::proto::{Member, MemberState};
use crate::raftstore::entry::Membership;
use crate::raftstore::group::{GroupStatus, MembershipChange};

/// How long it may take in all.
const VOTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it is waited for a learner to become a voter.
const PROMOTE_TIMEOUT: Duration = Duration::from_secs(5);

impl SetVoteRequest {
    /// As it is asked first.
    pub(super) fn of(group: GroupId, node: NodeId, votes: bool, actor: &str, reason: &str) -> SetVoteRequest {
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        SetVoteRequest { group: group.get(), node: node.get(), votes, actor, reason, ..SetVoteRequest::default() }
    }
}

/// Has a member vote, or not.
pub(super) async fn set_vote(core: &Core, request: SetVoteRequest) -> Result<SetVoteResponse, Status> {
    if request.group != METADATA_GROUP.get() {
        let what = format!(
            "Raft group {} does not exist: there is group {METADATA_GROUP}, which holds the metadata, and no other",
            request.group
        );
        return Err(Status::not_found(what));
    }
    let patience = patience_within(request.timeout_ms, VOTE_TIMEOUT);
    let until = Instant::now() + patience;
    let leader = leader(core, until).await?;
    if leader != core.node() {
        return pass_on(core, leader, request, until).await;
    }
    let (node, meta) = (NodeId::new(request.node), core.meta.acting(&request.actor, &request.reason));
    let meta = meta.within(patience.min(STEP_TIMEOUT));
    let members = meta.members().list().await.map_err(|error| status(&error))?;
    let Some(before) = members.iter().find(|member| member.id == node.get()) else {
        return Err(Status::not_found(format!("there is no member {node}")));
    };
    let was_so = !request.is_noted && before.non_voting != request.votes;
    // If nobody else is to vote, that is what is said.
    if !request.votes && !was_so && others_vote(&members, node) {
        majority_without(core, node, "lose its vote").await?;
    }
    let member = meta.members().set_vote(node, request.votes).await.map_err(|error| status(&error))?;
    let answer = SetVoteResponse { member: Some(member), was_so, is_done: false };
    let done = match request.votes {
        true => Ok(is_promoted(core, node, until).await),
        false => demote(core, node, request, until).await,
    };
    match done {
        Ok(is_done) => Ok(SetVoteResponse { is_done, ..answer }),
        // It was refused, and not only not done: as if nobody had asked.
        Err(refused) if refused.code() == Code::FailedPrecondition && !was_so && takes_back(&meta, node).await => {
            Err(refused)
        }
        Err(error) => {
            tracing::info!(%node, why = error.message(), "a vote is to be taken away, and is not yet");
            Ok(answer)
        }
    }
}

/// Whether an active member besides this one is to vote.
fn others_vote(members: &[Member], node: NodeId) -> bool {
    let mut others = members.iter().filter(|member| member.id != node.get());
    others.any(|member| member.state() == MemberState::Active && !member.non_voting)
}

async fn pass_on(core: &Core, to: NodeId, request: SetVoteRequest, until: Instant) -> Result<SetVoteResponse, Status> {
    let Hop { hops, limit, timeout_ms } = Hop::next(request.hops, until)?;
    let request = SetVoteRequest { hops, timeout_ms, ..request };
    core.peers.set_vote(to, request, limit).await.map_err(|error| unanswered(to, error))
}

/// What was noted is taken back; whether it could be.
async fn takes_back(meta: &Meta, node: NodeId) -> bool {
    let back = meta.acting("mainstay", "the group refused to take its vote").members().set_vote(node, true).await;
    back.inspect_err(|error| tracing::warn!(%node, %error, "a member stays without a vote")).is_ok()
}

/// Makes a learner of a member that is noted not to vote; says whether it is one now.
async fn demote(core: &Core, node: NodeId, request: SetVoteRequest, until: Instant) -> Result<bool, Status> {
    let replica = replica_of(node);
    let is_no_voter = |membership: &Membership| !membership.is_joint() && !membership.voters.contains(&replica);
    if node == core.node() && !is_no_voter(&core.metadata.group().view().status.membership) {
        let leader = hand_over(core, until).await?;
        let request = SetVoteRequest { is_noted: true, ..request };
        return pass_on(core, leader, request, until).await.map(|answer| answer.is_done);
    }
    let change = MembershipChange { demote: vec![replica], ..MembershipChange::default() };
    let changed = change_members(core, change, is_no_voter, until).await;
    changed.map(|()| true).map_err(|refused| match refused.code() {
        Code::FailedPrecondition => {
            Status::failed_precondition(format!("node {node} cannot lose its vote now: {}", refused.message()))
        }
        _ => refused,
    })
}

/// Waits a while until a learner is a voter, if it can become one; says whether it is.
async fn is_promoted(core: &Core, node: NodeId, until: Instant) -> bool {
    let replica = replica_of(node);
    let mut view = core.metadata.group().watch();
    let is_over = |status: &GroupStatus| votes(status, replica) || !may_vote(status, replica);
    let until = until.min(Instant::now() + PROMOTE_TIMEOUT);
    let left = until.saturating_duration_since(Instant::now());
    let over = timeout(left, view.wait_for(|view| view.failure.is_some() || is_over(&view.status))).await;
    over.is_ok_and(|view| view.is_ok_and(|view| votes(&view.status, replica)))
}

fn votes(status: &GroupStatus, replica: ReplicaId) -> bool {
    !status.membership.is_joint() && status.membership.voters.contains(&replica)
}

/// Whether a learner is in the group, and there is room for one more voter. Whether it lives is seen by the outcome: the leader
/// may not have heard of it yet since it looked last.
fn may_vote(status: &GroupStatus, replica: ReplicaId) -> bool {
    let has_room = status.membership.is_joint() || status.membership.voters.len() < MAX_VOTERS;
    has_room && status.followers.iter().any(|follower| follower.replica == replica)
}
