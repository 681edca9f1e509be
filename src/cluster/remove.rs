//! Takes a member out of the cluster for good.
//!
//! The leader does it. If the member to go is the leader, it first hands leadership to another and passes the request on.
//! Then: the member drains, its replica leaves the group, it is decommissioned, and its record goes. Each part is found done
//! or not done when it is asked for again, so that whatever dies on the way, asking again ends it. A change that would leave
//! the group without a majority that lives is refused by the group, and the member goes on as it was.

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, ConnectError, Status};

use super::core::Core;
use super::metrics;
use super::peers::CallError;
use super::plan::replica_of;
use super::proto::RemoveRequest;
use super::service::status;
use crate::ident::{NodeId, ReplicaId};
use crate::meta::client::Meta;
use crate::meta::proto::{Member, MemberState, Refusal};
use crate::raftstore::group::{ChangeRefusal, GroupStatus, MembershipChange, Role};
use crate::raftstore::store::ChangeError;

/// How long it may take in all.
pub(super) const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long each request to the metadata group may.
const STEP_TIMEOUT: Duration = Duration::from_secs(8);
/// How long handing over leadership may.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same when the node is about to stop, for which somebody waits.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);
/// Who was heard of within so many ticks is there: a leader's heartbeats are answered every tick.
const ALIVE_TICKS: u64 = 3;
/// So much longer than those ticks that all of them begin after the question.
const ALIVE_SINCE: Duration = Duration::from_millis(500);
/// How long it is waited for that.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often a request is passed on before it is given up: leadership wanders.
pub(super) const MAX_HOPS: u32 = 4;

/// Removes a member; says how it was. A request that finds nothing left of it is "not found".
pub(super) async fn remove(core: &Core, request: RemoveRequest) -> Result<Option<Member>, Status> {
    let patience = match request.timeout_ms {
        0 => REMOVE_TIMEOUT,
        milliseconds => Duration::from_millis(milliseconds).min(REMOVE_TIMEOUT),
    };
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
    majority_without(core, node).await?;
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

/// Refuses unless a majority of those that stay is there now: a change that is begun without them is not ended without
/// them, and nothing else is decided meanwhile. They were woken by the read before, and have a moment to say so; what was
/// heard of them before that does not count.
async fn majority_without(core: &Core, node: NodeId) -> Result<(), Status> {
    sleep(ALIVE_SINCE).await;
    let mut view = core.metadata.group().watch();
    let replica = replica_of(node);
    let is_there = |status: &GroupStatus| {
        let (alive, voters) = alive_without(status, replica);
        status.positions.role != Role::Leader || !status.membership.voters.contains(&replica) || alive * 2 > voters
    };
    let waited = timeout(ALIVE_TIMEOUT, view.wait_for(|view| view.failure.is_some() || is_there(&view.status)));
    if waited.await.is_ok() {
        return Ok(());
    }
    let (alive, voters) = alive_without(&core.metadata.group().view().status, replica);
    Err(Status::failed_precondition(format!(
        "node {node} cannot be removed now: without it {voters} voters are left, and only {alive} of them can be reached, \
         which is no majority"
    )))
}

/// Of the voters without this one, how many were heard of just now, and how many there are.
fn alive_without(status: &GroupStatus, replica: ReplicaId) -> (usize, usize) {
    let voters = status.membership.voters.iter().filter(|voter| **voter != replica);
    let heard = |voter: &ReplicaId| {
        let follower = status.followers.iter().find(|follower| follower.replica == *voter);
        follower.and_then(|follower| follower.silent_ticks).is_some_and(|ticks| ticks <= ALIVE_TICKS)
    };
    let is_alive = |voter: &&ReplicaId| **voter == status.replica || heard(voter);
    (voters.clone().filter(is_alive).count(), voters.count())
}

/// Waits until somebody leads.
pub(super) async fn leader(core: &Core, until: Instant) -> Result<NodeId, Status> {
    let mut view = core.metadata.group().watch();
    let known =
        timeout_at(until.min(Instant::now() + STEP_TIMEOUT), view.wait_for(|view| view.leader_node().is_some()));
    match known.await {
        Ok(Ok(view)) => view.leader_node().ok_or_else(|| Status::unavailable("no leader is known")),
        Ok(Err(_)) => Err(Status::unavailable("the metadata group has stopped on this node")),
        Err(_) => Err(Status::unavailable("the metadata group has no leader: too few of its members are there")),
    }
}

async fn pass_on(core: &Core, to: NodeId, request: RemoveRequest, until: Instant) -> Result<Option<Member>, Status> {
    if request.hops >= MAX_HOPS {
        return Err(Status::unavailable("leadership changes all the time"));
    }
    let limit = until.saturating_duration_since(Instant::now());
    let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
    let request = RemoveRequest { hops: request.hops + 1, timeout_ms, ..request };
    core.peers.remove(to, request, limit).await.map_err(|error| match error {
        CallError::Status(status) if was_lost(&status) => {
            Status::deadline_exceeded(format!("node {to}, which leads, was lost: {}", status.message()))
        }
        CallError::Status(status) => *status,
        CallError::Silent => Status::deadline_exceeded(format!("node {to}, which leads, did not answer in time")),
        other => Status::unavailable(format!("node {to}, which leads, cannot be asked: {other}")),
    })
}

/// Whether a connection failed once something was asked over it: the status is not the node's own word, and nobody knows what
/// the node has done, or will do when it goes on.
fn was_lost(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return false;
        }
        cause = error.source();
    }
    status.source().is_some()
}

/// The voter that is furthest and was heard of lately, of those that may lead.
fn successor(status: &GroupStatus, may_lead: impl Fn(ReplicaId) -> bool) -> Option<ReplicaId> {
    let voters = status.followers.iter().filter(|follower| status.membership.voters.contains(&follower.replica));
    let alive = voters.filter(|follower| follower.silent_ticks.is_some_and(|ticks| ticks <= ALIVE_TICKS));
    let able = alive.filter(|follower| may_lead(follower.replica));
    able.max_by_key(|follower| follower.matched).map(|follower| follower.replica)
}

/// The same of the members that are active: one that drains would hand over again.
fn active_successor(core: &Core, status: &GroupStatus) -> Option<ReplicaId> {
    let members = core.members().unwrap_or_default();
    let is_active = |replica| {
        let mut active = members.iter().filter(|member| member.state() == MemberState::Active);
        active.any(|member| replica_of(NodeId::new(member.id)) == replica)
    };
    successor(status, is_active)
}

/// While this node drains, it leads no longer than until an active member can. Asked again and again.
pub(super) async fn step_aside(core: &Core) {
    let group = core.metadata.group();
    let status = group.view().status;
    if status.positions.role != Role::Leader {
        return;
    }
    let Some(to) = active_successor(core, &status) else {
        return tracing::debug!("this node drains and leads on: no active member can take over");
    };
    match group.transfer_leader(to).await {
        Ok(()) => tracing::info!(%to, "hands leadership over, for this node drains"),
        Err(error) => tracing::debug!(%error, "leadership is not handed over yet"),
    }
}

/// Hands leadership over; says to whom it went.
async fn hand_over(core: &Core, until: Instant) -> Result<NodeId, Status> {
    let group = core.metadata.group();
    let until = until.min(Instant::now() + TRANSFER_TIMEOUT);
    loop {
        let view = group.view();
        if let Some(leader) = view.leader_node().filter(|leader| *leader != core.node()) {
            return Ok(leader);
        }
        if view.status.positions.role == Role::Leader {
            match active_successor(core, &view.status).or_else(|| successor(&view.status, |_| true)) {
                Some(to) => {
                    if let Err(error) = group.transfer_leader(to).await {
                        tracing::debug!(%error, "leadership is not handed over yet");
                    }
                }
                None => tracing::debug!("no other voter was heard of just now"),
            }
        }
        if Instant::now() + RETRY_PAUSE >= until {
            let what = "this node leads, and no other voter took over in time";
            return Err(Status::failed_precondition(what));
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Before this node stops: if it leads, another does so from now on. Those that stay would notice only after an election
/// time-out else, and decide nothing meanwhile.
pub(super) async fn resign(core: &Core) {
    let status = core.metadata.group().view().status;
    if status.positions.role != Role::Leader || successor(&status, |_| true).is_none() {
        return;
    }
    match hand_over(core, Instant::now() + RESIGN_TIMEOUT).await {
        Ok(leader) => tracing::info!(%leader, "handed leadership over"),
        Err(status) => tracing::info!(why = status.message(), "leadership was not handed over"),
    }
}

/// Takes a member's replica out of the group.
async fn leave(core: &Core, node: NodeId, until: Instant) -> Result<(), Status> {
    let (group, replica) = (core.metadata.group(), replica_of(node));
    loop {
        if !group.view().status.membership.nodes.contains_key(&replica) {
            return Ok(());
        }
        let change = MembershipChange { remove: vec![replica], ..MembershipChange::default() };
        let patience = until.saturating_duration_since(Instant::now()).min(STEP_TIMEOUT);
        match group.change_membership(change, patience).await {
            Ok(_) => return Ok(()),
            Err(ChangeError::Refused(ChangeRefusal::Pending) | ChangeError::Busy) => {}
            Err(ChangeError::Refused(ChangeRefusal::NoMember(_))) => return Ok(()),
            Err(ChangeError::Refused(why)) => {
                return Err(Status::failed_precondition(format!("node {node} cannot be removed now: {why}")));
            }
            Err(error @ ChangeError::Unknown { .. }) => return Err(Status::deadline_exceeded(error.to_string())),
            Err(error) => return Err(Status::unavailable(error.to_string())),
        }
        if Instant::now() + RETRY_PAUSE >= until {
            return Err(Status::unavailable("another change of the membership is on its way"));
        }
        sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::LogIndex;
    use crate::raftstore::entry::Membership;
    use crate::raftstore::group::{Follower, Positions, Sending};

    fn status(followers: Vec<Follower>) -> GroupStatus {
        let membership = Membership::of_voters((1..=4).map(|id| (ReplicaId::new(id), NodeId::new(id))))
            .with_learner(ReplicaId::new(5), NodeId::new(5));
        let replica = ReplicaId::new(1);
        GroupStatus {
            replica,
            positions: Positions::default(),
            membership,
            followers,
            is_asleep: false,
            unhealthy: None,
            last_check: None,
        }
    }

    fn follower(id: u64, matched: u64, silent_ticks: Option<u64>) -> Follower {
        Follower {
            replica: ReplicaId::new(id),
            matched: LogIndex::new(matched),
            next: LogIndex::new(matched + 1),
            sending: Sending::Replicate,
            recently_active: silent_ticks.is_some(),
            silent_ticks,
        }
    }

    #[test]
    fn only_who_was_heard_of_just_now_counts_for_the_majority() {
        let status = status(vec![follower(2, 1, Some(0)), follower(3, 1, Some(4)), follower(4, 1, None)]);
        assert_eq!(alive_without(&status, ReplicaId::new(4)), (2, 3));
        assert_eq!(alive_without(&status, ReplicaId::new(2)), (1, 3));
        assert_eq!(alive_without(&status, ReplicaId::new(1)), (1, 3));
    }

    #[test]
    fn leadership_goes_to_the_voter_that_is_furthest_and_alive() {
        let followers =
            vec![follower(2, 7, Some(0)), follower(3, 8, Some(0)), follower(4, 9, None), follower(5, 9, Some(0))];
        let status = status(followers);
        assert_eq!(successor(&status, |_| true), Some(ReplicaId::new(3)));
        assert_eq!(successor(&status, |replica| replica.get() != 3), Some(ReplicaId::new(2)));
        assert_eq!(successor(&GroupStatus { followers: Vec::new(), ..status }, |_| true), None);
    }
}
