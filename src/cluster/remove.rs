//! Takes a member out of the cluster for good.
//!
//! The leader does it. If the member to go is the leader, it first hands leadership to another and passes the request on.
//! Then: the member drains, its replica leaves the group, it is decommissioned, and its record goes. Each part is found done
//! or not done when it is asked for again, so that whatever dies on the way, asking again ends it. A change that would leave
//! the group without a majority that lives is refused by the group, and the member goes on as it was.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::core::Core;
use super::leading::{Hop, STEP_TIMEOUT, change_members, hand_over, leader, majority_without, unanswered};
use super::metrics;
use super::plan::replica_of;
use super::proto::RemoveRequest;
use super::rpc::requests::patience_within;
use super::service::status;
use crate::ident::NodeId;
use crate::meta::client::Meta;
use crate::meta::proto::{Member, MemberState, Refusal};
use crate::raftstore::entry::Membership;
use crate::raftstore::group::MembershipChange;

/// How long it may take in all.
pub(super) const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);

impl RemoveRequest {
    /// As it is asked first.
    pub(super) fn of(node: NodeId, actor: &str) -> RemoveRequest {
        RemoveRequest { node: node.get(), actor: actor.to_owned(), ..RemoveRequest::default() }
    }
}

/// Removes a member; says how it was. A request that finds nothing left of it is "not found".
pub(super) async fn remove(core: &Core, request: RemoveRequest) -> Result<Option<Member>, Status> {
    let patience = patience_within(request.timeout_ms, REMOVE_TIMEOUT);
    let until = Instant::now() + patience;
    let node = NodeId::new(request.node);
    if node == super::FIRST_MEMBER {
        return Err(Status::failed_precondition(format!(
            "node {node} is the SQL primary, and its rows live nowhere else: it cannot be removed"
        )));
    }
    let leader = leader(core, until).await?;
    if leader != core.node() {
        return pass_on(core, leader, request, until).await;
    }
    let meta = core.meta.acting(&request.actor, "removed").within(patience.min(STEP_TIMEOUT));
    let found = meta.members().get(node).await.map_err(|error| status(&error))?;
    let member = found.ok_or_else(|| Status::not_found(format!("there is no member {node}")))?;
    majority_without(core, node, "be removed").await?;
    if member.state() == MemberState::Active {
        set_state(&meta, node, MemberState::Active, MemberState::Draining).await?;
    }
    let went = match node == core.node() {
        true => hand_over(core, until).await.map(Some),
        false => leave(core, node, until).await.map(|()| None),
    };
    let next = match went {
        Ok(next) => next,
        Err(refused) => {
            // What may yet happen is not taken back.
            if member.state() == MemberState::Active && refused.code() != Code::DeadlineExceeded {
                // It goes on as it was; if it cannot be told so now, somebody will remove it after all.
                let back = set_state(&meta, node, MemberState::Draining, MemberState::Active).await;
                back.unwrap_or_else(|error| tracing::warn!(%node, %error, "a member stays draining"));
            }
            return Err(refused);
        }
    };
    if let Some(leader) = next {
        return pass_on(core, leader, request, until).await;
    }
    if member.state() != MemberState::Decommissioned {
        decommission(&meta, node).await?;
    }
    match meta.members().remove(node).await {
        Ok(_) => metrics::removed(),
        Err(error) if error.refusal() == Some(Refusal::NoSuchMember) => {}
        Err(error) => return Err(status(&error)),
    }
    tracing::info!(%node, name = member.name, "a member was removed");
    Ok(Some(member))
}

async fn set_state(meta: &Meta, node: NodeId, from: MemberState, to: MemberState) -> Result<(), Status> {
    meta.members().set_state(node, from, to).await.map(drop).map_err(|error| status(&error))
}

/// A start ends draining, and one may have come meanwhile.
async fn decommission(meta: &Meta, node: NodeId) -> Result<(), Status> {
    let gone = meta.members().set_state(node, MemberState::Unspecified, MemberState::Decommissioned).await;
    match gone {
        Ok(_) => Ok(()),
        Err(error) if error.refusal() == Some(Refusal::MemberState) => {
            set_state(meta, node, MemberState::Active, MemberState::Draining).await?;
            set_state(meta, node, MemberState::Draining, MemberState::Decommissioned).await
        }
        Err(error) => Err(status(&error)),
    }
}

async fn pass_on(core: &Core, to: NodeId, request: RemoveRequest, until: Instant) -> Result<Option<Member>, Status> {
    let Hop { hops, limit, timeout_ms } = Hop::next(request.hops, until)?;
    let request = RemoveRequest { hops, timeout_ms, ..request };
    core.peers.remove(to, request, limit).await.map_err(|error| unanswered(to, error))
}

/// Takes a member's replica out of the group.
async fn leave(core: &Core, node: NodeId, until: Instant) -> Result<(), Status> {
    let replica = replica_of(node);
    let change = MembershipChange { remove: vec![replica], ..MembershipChange::default() };
    let has_left = |membership: &Membership| !membership.nodes.contains_key(&replica);
    change_members(core, change, has_left, until).await.map_err(|refused| match refused.code() {
        Code::FailedPrecondition => {
            Status::failed_precondition(format!("node {node} cannot be removed now: {}", refused.message()))
        }
        _ => refused,
    })
}
