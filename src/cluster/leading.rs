//! Who leads the metadata group: found, asked, and handed over; and what only the leader can do to the group.

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{ConnectError, Status};

use super::core::Core;
use super::peers::CallError;
use super::plan::{ALIVE_TICKS, any_successor, replica_of, successor};
use crate::ident::{NodeId, ReplicaId};
use crate::raftstore::entry::Membership;
use crate::raftstore::group::{ChangeRefusal, GroupStatus, MembershipChange, Role};
use crate::raftstore::store::ChangeError;

/// How long each request to the metadata group may take.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(8);
/// How long handing over leadership may.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same when the node is about to stop, for which somebody waits.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);
/// So much longer than [`ALIVE_TICKS`] that all of them begin after the question.
const ALIVE_SINCE: Duration = Duration::from_millis(500);
/// How long it is waited for that.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often a request is passed on before it is given up: leadership wanders.
const MAX_HOPS: u32 = 4;

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

/// How a request that only the leader can do is passed on to it.
pub(super) struct Hop {
    /// How often it was, with this one.
    pub(super) hops: u32,
    /// The time that is left.
    pub(super) limit: Duration,
    /// The same, for the request.
    pub(super) timeout_ms: u64,
}

impl Hop {
    /// One more, unless there were too many.
    pub(super) fn next(hops: u32, until: Instant) -> Result<Hop, Status> {
        if hops >= MAX_HOPS {
            return Err(Status::unavailable("leadership changes all the time"));
        }
        let limit = until.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
        Ok(Hop { hops: hops + 1, limit, timeout_ms })
    }
}

/// What is said of a request that was passed on and not answered, or with a refusal.
pub(super) fn unanswered(by: NodeId, error: CallError) -> Status {
    match error {
        CallError::Status(status) if was_lost(&status) => {
            Status::deadline_exceeded(format!("node {by}, which leads, was lost: {}", status.message()))
        }
        CallError::Status(status) => *status,
        CallError::Silent => Status::deadline_exceeded(format!("node {by}, which leads, did not answer in time")),
        other => Status::unavailable(format!("node {by}, which leads, cannot be asked: {other}")),
    }
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

/// Refuses unless a majority of the voters but this one is there now: a change that is begun without them is not ended without
/// them, and nothing else is decided meanwhile. They were woken by the read before, and have a moment to say so; what was
/// heard of them before that does not count.
pub(super) async fn majority_without(core: &Core, node: NodeId, what: &str) -> Result<(), Status> {
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
    if voters == 0 {
        return Err(Status::failed_precondition(format!("node {node} cannot {what} now: nobody else votes")));
    }
    Err(Status::failed_precondition(format!(
        "node {node} cannot {what} now: without it {voters} voters are left, and only {alive} of them can be reached, \
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

/// While this node drains, it leads no longer than until an active member can. Asked again and again.
pub(super) async fn step_aside(core: &Core) {
    let group = core.metadata.group();
    let status = group.view().status;
    if status.positions.role != Role::Leader {
        return;
    }
    let Some(to) = successor(&status, &core.members().unwrap_or_default()) else {
        return tracing::debug!("this node drains and leads on: no active member can take over");
    };
    match group.transfer_leader(to).await {
        Ok(()) => tracing::info!(%to, "hands leadership over, for this node drains"),
        Err(error) => tracing::debug!(%error, "leadership is not handed over yet"),
    }
}

/// Hands leadership over; says to whom it went.
pub(super) async fn hand_over(core: &Core, until: Instant) -> Result<NodeId, Status> {
    let group = core.metadata.group();
    let until = until.min(Instant::now() + TRANSFER_TIMEOUT);
    loop {
        let view = group.view();
        if let Some(leader) = view.leader_node().filter(|leader| *leader != core.node()) {
            return Ok(leader);
        }
        if view.status.positions.role == Role::Leader {
            let members = core.members().unwrap_or_default();
            match successor(&view.status, &members).or_else(|| any_successor(&view.status)) {
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
    if status.positions.role != Role::Leader || any_successor(&status).is_none() {
        return;
    }
    match hand_over(core, Instant::now() + RESIGN_TIMEOUT).await {
        Ok(leader) => tracing::info!(%leader, "handed leadership over"),
        Err(status) => tracing::info!(why = status.message(), "leadership was not handed over"),
    }
}

/// Changes who takes part in the group, unless `is_so` says that it is so already.
///
/// # Errors
/// A failed precondition, if the group refuses it; else it may have been done, or may yet be.
pub(super) async fn change_members(
    core: &Core,
    change: MembershipChange,
    is_so: impl Fn(&Membership) -> bool,
    until: Instant,
) -> Result<(), Status> {
    let group = core.metadata.group();
    loop {
        if is_so(&group.view().status.membership) {
            return Ok(());
        }
        let patience = until.saturating_duration_since(Instant::now()).min(STEP_TIMEOUT);
        match group.change_membership(change.clone(), patience).await {
            Ok(_) => return Ok(()),
            // What the group knows is shown a moment later.
            Err(ChangeError::Refused(
                ChangeRefusal::Pending | ChangeRefusal::NoMember(_) | ChangeRefusal::NoVoter(_),
            )) => {}
            Err(ChangeError::Busy) => {}
            Err(ChangeError::Refused(why)) => return Err(Status::failed_precondition(why.to_string())),
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
}
