//! Pure: what the leader of the metadata group has to do so that its replicas are those of the members.
//!
//! The replica of a member has the member's number: neither is ever given again. Raft takes only numbers that rise, so that
//! members are added in their order, and each at once, whether its node is up or not: one that was overtaken could never
//! take part. They begin as learners, and become voters when they keep up, unless their records say that they are not to
//! vote; a voter whose record says so becomes a learner, and hands leadership over before, if it leads.

use crate::ident::{NodeId, ReplicaId};
use crate::meta::fault::{self, Fault};
use crate::meta::proto::{Member, MemberState};
use crate::raftstore::group::GroupStatus;

/// Voters at most: a majority of more would only be slower. Further members stay learners.
pub(crate) const MAX_VOTERS: usize = 7;
/// A learner that stays one is a full member once it lacks no more entries than this.
const MAX_LAG: u64 = 1000;
/// Who was heard of within so many ticks is there: a leader's heartbeats are answered every tick.
pub(super) const ALIVE_TICKS: u64 = 3;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A replica without a member goes.
    Remove(ReplicaId),
    /// A member gets its replica, as a learner.
    Add(NodeId),
    /// A learner becomes a voter, if it keeps up.
    Promote(ReplicaId),
    /// A member takes part in full.
    Activate(NodeId),
    /// The leader is not to vote: this one is to lead.
    HandOver(ReplicaId),
    /// A voter becomes a learner.
    Demote(ReplicaId),
}

/// The replica of a member.
pub(crate) fn replica_of(node: NodeId) -> ReplicaId {
    ReplicaId::new(node.get())
}

/// What is to be done, in order. The members were read after the status.
pub(crate) fn plan(status: &GroupStatus, members: &[Member]) -> Vec<Step> {
    let membership = &status.membership;
    if membership.is_joint() {
        return Vec::new();
    }
    let state_of = |node: NodeId| members.iter().find(|member| member.id == node.get()).map(Member::state);
    // An old table would make strangers of everybody.
    if membership.node_of(status.replica).and_then(state_of).is_none() {
        return Vec::new();
    }
    let is_gone = |state: Option<MemberState>| matches!(state, None | Some(MemberState::Decommissioned));
    let gone = membership.nodes.iter().filter(|(_, node)| is_gone(state_of(**node)));
    let mut steps: Vec<Step> = gone.map(|(replica, _)| Step::Remove(*replica)).collect();
    steps.retain(|step| *step != Step::Remove(status.replica));

    let takes_part = |member: &&Member| matches!(member.state(), MemberState::Joining | MemberState::Active);
    for member in members.iter().filter(takes_part) {
        let node = NodeId::new(member.id);
        let replica = replica_of(node);
        let is_joining = member.state() == MemberState::Joining;
        if membership.voters.contains(&replica) {
            steps.extend(is_joining.then_some(Step::Activate(node)));
        } else if membership.learners.contains(&replica) {
            let follower = status.followers.iter().find(|follower| follower.replica == replica);
            let Some(follower) = follower.filter(|follower| follower.recently_active) else { continue };
            let votes = !member.non_voting || fault::active(Fault::PromotedAnyway);
            if votes && membership.voters.len() < MAX_VOTERS {
                steps.push(Step::Promote(replica));
            } else if is_joining && follower.matched.get() + MAX_LAG >= status.positions.committed.get() {
                steps.push(Step::Activate(node));
            }
        } else if replica > membership.highest {
            steps.push(Step::Add(node));
        }
    }
    steps.extend(demotions(status, members));
    steps
}

/// Voters whose members are not to vote. Last: whoever votes instead of them is to do so before.
fn demotions(status: &GroupStatus, members: &[Member]) -> Vec<Step> {
    let takes_part = |member: &&Member| member.non_voting && member.state() != MemberState::Decommissioned;
    let replicas = members.iter().filter(takes_part).map(|member| replica_of(NodeId::new(member.id)));
    let voters = replicas.filter(|replica| status.membership.voters.contains(replica));
    let step = |replica| match replica == status.replica {
        true if fault::active(Fault::LeaderKeepsVote) => None,
        true => successor(status, members).map(Step::HandOver),
        false => Some(Step::Demote(replica)),
    };
    voters.filter_map(step).collect()
}

/// The voter that is furthest and was heard of lately, of the members that are active and are to vote: others would hand
/// over again.
pub(crate) fn successor(status: &GroupStatus, members: &[Member]) -> Option<ReplicaId> {
    let may_lead = |replica| {
        let mut able = members.iter().filter(|member| member.state() == MemberState::Active && !member.non_voting);
        able.any(|member| replica_of(NodeId::new(member.id)) == replica)
    };
    furthest(status, may_lead)
}

/// The same of all voters.
pub(super) fn any_successor(status: &GroupStatus) -> Option<ReplicaId> {
    furthest(status, |_| true)
}

fn furthest(status: &GroupStatus, may_lead: impl Fn(ReplicaId) -> bool) -> Option<ReplicaId> {
    let voters = status.followers.iter().filter(|follower| status.membership.voters.contains(&follower.replica));
    let alive = voters.filter(|follower| follower.silent_ticks.is_some_and(|ticks| ticks <= ALIVE_TICKS));
    let able = alive.filter(|follower| may_lead(follower.replica));
    able.max_by_key(|follower| follower.matched).map(|follower| follower.replica)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::LogIndex;
    use crate::raftstore::entry::Membership;
    use crate::raftstore::group::{Follower, Positions, Sending};

    fn member(id: u64, state: MemberState) -> Member {
        Member { id, state: state.into(), ..Member::default() }
    }

    fn follower(id: u64, recently_active: bool) -> Follower {
        let (matched, next) = (LogIndex::new(5), LogIndex::new(6));
        let replica = ReplicaId::new(id);
        Follower { replica, matched, next, sending: Sending::Replicate, recently_active, silent_ticks: Some(0) }
    }

    fn status(voters: &[u64], learners: &[u64]) -> GroupStatus {
        let pair = |id: &u64| (ReplicaId::new(*id), NodeId::new(*id));
        let mut membership = Membership::of_voters(voters.iter().map(pair));
        for (replica, node) in learners.iter().map(pair) {
            membership = membership.with_learner(replica, node);
        }
        let followers = voters.iter().chain(learners).filter(|id| **id != 1).map(|id| follower(*id, true)).collect();
        let positions = Positions { committed: LogIndex::new(2000), ..Positions::default() };
        GroupStatus {
            replica: ReplicaId::new(1),
            positions,
            membership,
            followers,
            is_asleep: false,
            unhealthy: None,
            last_check: None,
        }
    }

    use MemberState::{Active, Decommissioned, Draining, Joining};

    #[test]
    fn members_are_added_in_their_order_and_become_voters() {
        let members = [member(1, Active), member(2, Joining), member(3, Joining)];
        let node = NodeId::new;
        assert_eq!(plan(&status(&[1], &[]), &members), [Step::Add(node(2)), Step::Add(node(3))]);
        let promote = Step::Promote(ReplicaId::new(2));
        assert_eq!(plan(&status(&[1], &[2]), &members), [promote, Step::Add(node(3))]);
        assert_eq!(plan(&status(&[1, 2], &[]), &members), [Step::Activate(node(2)), Step::Add(node(3))]);
        let done = [member(1, Active), member(2, Active)];
        assert_eq!(plan(&status(&[1, 2], &[]), &done), []);
    }

    #[test]
    fn a_learner_that_is_silent_is_left_alone() {
        let mut status = status(&[1], &[2]);
        status.followers = vec![follower(2, false)];
        assert_eq!(plan(&status, &[member(1, Active), member(2, Joining)]), []);
    }

    #[test]
    fn replicas_without_members_go_but_never_the_leaders_own() {
        let members = [member(1, Active), member(3, Decommissioned), member(4, Draining)];
        let expected = [2, 3].map(|id| Step::Remove(ReplicaId::new(id)));
        assert_eq!(plan(&status(&[1, 2, 3, 4], &[]), &members), expected);
        assert_eq!(plan(&status(&[1, 2], &[]), &[member(1, Decommissioned), member(2, Active)]), []);
        // Nobody is known: the table is not there yet.
        assert_eq!(plan(&status(&[1, 2], &[]), &[]), []);
    }

    #[test]
    fn one_that_was_overtaken_or_drains_is_not_added() {
        let members = [member(1, Active), member(2, Active), member(3, Active), member(4, Draining)];
        assert_eq!(plan(&status(&[1, 3], &[]), &members), []);
    }

    #[test]
    fn more_than_enough_voters_leave_others_learners() {
        let members: Vec<_> = (1..=8).map(|id| member(id, if id == 8 { Joining } else { Active })).collect();
        let voters: Vec<_> = (1..=7).collect();
        let mut status = status(&voters, &[8]);
        assert_eq!(plan(&status, &members), []);
        status.followers.iter_mut().for_each(|follower| follower.matched = LogIndex::new(1000));
        assert_eq!(plan(&status, &members), [Step::Activate(NodeId::new(8))]);
    }

    fn non_voting(id: u64, state: MemberState) -> Member {
        Member { non_voting: true, ..member(id, state) }
    }

    #[test]
    fn who_is_not_to_vote_stays_a_learner_or_becomes_one() {
        let (id, node) = (ReplicaId::new, NodeId::new);
        let members = [member(1, Active), non_voting(2, Active), non_voting(3, Draining)];
        assert_eq!(plan(&status(&[1], &[2, 3]), &members), []);
        assert_eq!(plan(&status(&[1, 2, 3], &[]), &members), [Step::Demote(id(2)), Step::Demote(id(3))]);
        // One that joins takes part in full when it lacks little more.
        let members = [member(1, Active), non_voting(2, Joining), non_voting(3, Decommissioned)];
        let mut joins = status(&[1, 3], &[2]);
        assert_eq!(plan(&joins, &members), [Step::Remove(id(3))]);
        joins.followers.iter_mut().for_each(|follower| follower.matched = LogIndex::new(1900));
        assert_eq!(plan(&joins, &members), [Step::Remove(id(3)), Step::Activate(node(2))]);
        // Whoever is to vote instead does so before.
        let members = [member(1, Active), non_voting(2, Active), member(3, Active)];
        assert_eq!(plan(&status(&[1, 2], &[3]), &members), [Step::Promote(id(3)), Step::Demote(id(2))]);
    }

    #[test]
    fn a_leader_that_is_not_to_vote_hands_over_and_does_no_more() {
        let id = ReplicaId::new;
        let members = [non_voting(1, Active), member(2, Active), non_voting(3, Active)];
        assert_eq!(plan(&status(&[1, 2], &[3]), &members), [Step::HandOver(id(2))]);
        assert_eq!(plan(&status(&[1], &[2, 3]), &members), [Step::Promote(id(2))]);
        let mut silent = status(&[1, 2], &[]);
        silent.followers.iter_mut().for_each(|follower| follower.silent_ticks = Some(9));
        assert_eq!(plan(&silent, &members), [Step::Add(NodeId::new(3))], "nobody is there to lead");
    }

    #[test]
    fn leadership_goes_to_the_voter_that_is_furthest_alive_and_to_vote() {
        let mut status = status(&[1, 2, 3, 4], &[5]);
        for (follower, (matched, silent)) in status.followers.iter_mut().zip([(7, 0), (8, 0), (9, 9), (9, 0)]) {
            (follower.matched, follower.silent_ticks) = (LogIndex::new(matched), Some(silent));
        }
        let members = |third| [member(2, Active), third, member(4, Active), member(5, Active)];
        assert_eq!(successor(&status, &members(member(3, Active))), Some(ReplicaId::new(3)));
        assert_eq!(successor(&status, &members(member(3, Draining))), Some(ReplicaId::new(2)));
        assert_eq!(successor(&status, &members(non_voting(3, Active))), Some(ReplicaId::new(2)));
        assert_eq!(any_successor(&status), Some(ReplicaId::new(3)));
        assert_eq!(any_successor(&GroupStatus { followers: Vec::new(), ..status }), None);
    }

    #[test]
    fn nothing_is_begun_in_a_joint_configuration() {
        let mut status = status(&[1], &[]);
        status.membership.voters_outgoing = vec![ReplicaId::new(1)];
        assert_eq!(plan(&status, &[member(1, Active), member(2, Joining)]), []);
    }
}
