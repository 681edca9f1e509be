//! Changing who takes part (Raft thesis, chapter 4).
//!
//! Always by joint consensus: one entry enters the joint configuration, in which the old voters and the new ones decide
//! each by their majority, and a second one, which the leader proposes by itself, leaves it. New replicas begin as
//! learners; a learner becomes a voter once it has kept up for an election time-out. The number of a replica is never
//! used again: it may have voted, and what it said may still be on its way.
//!
//! A change is refused while another is on its way, and if it could not be carried through: unless a majority of the
//! old voters and a majority of the new ones were heard of lately, it would be committed by nobody.
//!
//! Raft-rs takes a configuration over when it is told to; here that is when the entry is committed and handed out for
//! applying. It panics when a leader that takes no part any more gets word of its own writes, so that leader steps down
//! in the same round, behind a last append that tells the others what is committed.

use std::collections::{BTreeMap, BTreeSet};

use raft::StateRole;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};

use super::effects::{Answer, Refusal, RequestId};
use super::replica::{Group, GroupError};
use crate::ident::{NodeId, ReplicaId};
use crate::raftstore::context::Context;
use crate::raftstore::entry::{Entry, Membership, Position};
use crate::raftstore::fault::{self, Fault};

/// Replicas that one change may name.
const MAX_CHANGED: usize = 64;

/// A change of the membership: all of it, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipChange {
    /// Replicas that are new, with their nodes. They begin as learners.
    pub add: Vec<(ReplicaId, NodeId)>,
    /// Learners that become voters.
    pub promote: Vec<ReplicaId>,
    /// Voters that become learners.
    pub demote: Vec<ReplicaId>,
    /// Replicas that take no part any more.
    pub remove: Vec<ReplicaId>,
}

/// Why a change of the membership was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeRefusal {
    /// *Retry here*: another change is on its way, or the leader is too new to know.
    #[error("another change of the membership is on its way")]
    Pending,
    /// *Your mistake*: nothing, or too much, is to be changed.
    #[error("a change names 1 to {MAX_CHANGED} replicas")]
    Size,
    /// *Your mistake*: a replica is named twice.
    #[error("replica {0} is named twice")]
    Twice(ReplicaId),
    /// *Your mistake*: the number is, or was, that of another replica.
    #[error("replica {replica} cannot be added: numbers up to {highest} were used")]
    Used {
        /// The number.
        replica: ReplicaId,
        /// The highest that was used.
        highest: ReplicaId,
    },
    /// *Your mistake*: a new replica begins with a snapshot, and there are none of this group.
    #[error("no replica can be added, because the state machine keeps its own position and gives no snapshots")]
    NoSnapshots,
    /// *Your mistake*: there is a replica on this node already.
    #[error("node {0} has a replica of the group already")]
    NodeTaken(NodeId),
    /// *Your mistake*: only a learner becomes a voter.
    #[error("replica {0} is no learner")]
    NoLearner(ReplicaId),
    /// *Your mistake*: only a voter becomes a learner.
    #[error("replica {0} is no voter")]
    NoVoter(ReplicaId),
    /// *Your mistake*: it takes no part.
    #[error("replica {0} takes no part in the group")]
    NoMember(ReplicaId),
    /// *Your mistake*: nobody could decide anything any more.
    #[error("no voter would be left")]
    NoVoterLeft,
    /// *Retry here*: a learner does not keep up yet.
    #[error("replica {replica} does not keep up: it is {lag} entries behind, or was lately")]
    Behind {
        /// Which.
        replica: ReplicaId,
        /// How far it is behind now.
        lag: u64,
    },
    /// *Retry here*: so many voters were not heard of lately that the change would be committed by nobody.
    #[error("only {alive} of the {voters} {which} voters were heard of lately")]
    NoMajority {
        /// `present` or `new`.
        which: &'static str,
        /// How many were.
        alive: usize,
        /// How many there are.
        voters: usize,
    },
}

/// What a leader knows of its followers' lives.
#[derive(Default)]
pub(super) struct Heard {
    /// When each was heard of last.
    at: BTreeMap<u64, u64>,
    /// Since when each keeps up.
    keeps_up_since: BTreeMap<u64, u64>,
}

impl Heard {
    pub(super) fn note(&mut self, replica: u64, now: u64) {
        self.at.insert(replica, now);
    }

    /// Whether a replica was heard of within the last so many ticks.
    pub(super) fn within(&self, replica: u64, now: u64, ticks: u64) -> bool {
        self.at.get(&replica).is_some_and(|at| at + ticks > now)
    }

    /// For so many ticks nothing was heard of it, as far as is known.
    pub(super) fn was_silent(&mut self, replica: u64, ticks: u64, now: u64) {
        match now.checked_sub(ticks) {
            Some(at) => self.at.insert(replica, at),
            None => self.at.remove(&replica),
        };
    }

    pub(super) fn clear(&mut self) {
        *self = Heard::default();
    }

    /// Ticks since a replica was heard of.
    pub(super) fn silent_ticks(&self, replica: u64, now: u64) -> Option<u64> {
        self.at.get(&replica).map(|at| now.saturating_sub(*at))
    }
}

impl Group {
    /// Proposes a change of the membership. The answer comes as that of a proposal; when it does, the joint configuration
    /// is entered, and it is left by itself.
    pub fn change_membership(&mut self, request: RequestId, change: &MembershipChange) {
        self.rouse();
        if let Err(refusal) = self.try_change(request, change) {
            self.answers.push(Answer::Refused(request, refusal));
        }
    }

    fn try_change(&mut self, request: RequestId, change: &MembershipChange) -> Result<(), Refusal> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Err(Refusal::NotLeader { leader: self.leader() });
        }
        if raft.lead_transferee.is_some() {
            return Err(Refusal::Transferring);
        }
        if self.proposals.len() >= self.config.max_waiting_requests {
            return Err(Refusal::Busy);
        }
        self.check_change(change)?;
        let kind = |kind, replica: &ReplicaId| ConfChangeSingle { change_type: kind as i32, node_id: replica.get() };
        let added = change.add.iter().map(|(replica, _)| replica);
        let changes = added.chain(&change.demote).map(|replica| kind(ConfChangeType::AddLearnerNode, replica));
        let changes = changes.chain(change.promote.iter().map(|replica| kind(ConfChangeType::AddNode, replica)));
        let changes = changes.chain(change.remove.iter().map(|replica| kind(ConfChangeType::RemoveNode, replica)));
        let entry = ConfChangeV2 {
            transition: ConfChangeTransition::Implicit as i32,
            changes: changes.collect(),
            context: Vec::new(),
        };
        let context = Context::Members(change.add.clone()).encode();
        self.node.propose_conf_change(context, entry).map_err(|_| Refusal::Busy)?;
        let raft = &self.node.raft;
        let position = Position::new(raft.raft_log.last_index(), raft.term);
        self.proposals.push(position, request, self.now + self.config.request_ticks);
        self.settle();
        Ok(())
    }

    fn check_change(&self, change: &MembershipChange) -> Result<(), ChangeRefusal> {
        let now = &self.membership;
        if self.node.raft.has_pending_conf() || now.is_joint() {
            return Err(ChangeRefusal::Pending);
        }
        let MembershipChange { add, promote, demote, remove } = change;
        let named = add.iter().map(|(replica, _)| replica).chain(promote).chain(demote).chain(remove);
        let named: Vec<ReplicaId> = named.copied().collect();
        if !(1..=MAX_CHANGED).contains(&named.len()) {
            return Err(ChangeRefusal::Size);
        }
        let mut once = BTreeSet::new();
        if let Some(twice) = named.iter().find(|replica| !once.insert(**replica)) {
            return Err(ChangeRefusal::Twice(*twice));
        }
        if !add.is_empty() && !self.config.snapshots {
            return Err(ChangeRefusal::NoSnapshots);
        }
        let mut nodes: BTreeSet<NodeId> = now.nodes.values().copied().collect();
        for (replica, node) in add {
            if *replica <= now.highest {
                return Err(ChangeRefusal::Used { replica: *replica, highest: now.highest });
            }
            if !nodes.insert(*node) {
                return Err(ChangeRefusal::NodeTaken(*node));
            }
        }
        if let Some(other) = promote.iter().find(|replica| !now.learners.contains(replica)) {
            return Err(ChangeRefusal::NoLearner(*other));
        }
        if let Some(other) = demote.iter().find(|replica| !now.voters.contains(replica)) {
            return Err(ChangeRefusal::NoVoter(*other));
        }
        if let Some(other) = remove.iter().find(|replica| !now.nodes.contains_key(replica)) {
            return Err(ChangeRefusal::NoMember(*other));
        }
        let stays = |replica: &&ReplicaId| !demote.contains(replica) && !remove.contains(replica);
        let voters: Vec<ReplicaId> = now.voters.iter().filter(stays).chain(promote).copied().collect();
        if voters.is_empty() {
            return Err(ChangeRefusal::NoVoterLeft);
        }
        if let Some(behind) = promote.iter().find_map(|replica| self.is_behind(*replica)) {
            return Err(behind);
        }
        self.check_majority("present", &now.voters)?;
        self.check_majority("new", &voters)
    }

    fn is_behind(&self, replica: ReplicaId) -> Option<ChangeRefusal> {
        let since = self.heard.keeps_up_since.get(&replica.get());
        let keeps_up = since.is_some_and(|since| since + self.config.election_ticks as u64 <= self.now);
        let lag = self.node.raft.raft_log.last_index().saturating_sub(self.matched(replica.get()));
        (!keeps_up).then_some(ChangeRefusal::Behind { replica, lag })
    }

    fn check_majority(&self, which: &'static str, voters: &[ReplicaId]) -> Result<(), ChangeRefusal> {
        let lately = 2 * self.config.election_ticks as u64;
        let is_alive = |replica: &&ReplicaId| {
            let silent = self.heard.silent_ticks(replica.get(), self.now);
            **replica == self.config.replica || silent.is_some_and(|ticks| ticks <= lately)
        };
        let alive = voters.iter().filter(is_alive).count();
        match alive * 2 > voters.len() {
            true => Ok(()),
            false => Err(ChangeRefusal::NoMajority { which, alive, voters: voters.len() }),
        }
    }

    /// Whether followers keep up is looked at with each tick.
    pub(super) fn watch_followers(&mut self) {
        if self.node.raft.state != StateRole::Leader {
            return;
        }
        let last = self.node.raft.raft_log.last_index();
        for (replica, progress) in self.node.raft.prs().iter() {
            // One that knows nothing may be few entries behind, too, and needs a snapshot first.
            let keeps_up =
                progress.matched > 0 && last.saturating_sub(progress.matched) <= self.config.max_promotion_lag;
            match keeps_up {
                true => self.heard.keeps_up_since.entry(*replica).or_insert(self.now),
                false => {
                    self.heard.keeps_up_since.remove(replica);
                    continue;
                }
            };
        }
    }

    /// Whether it can be said to a replica that it was removed: the new configuration alone decides, and has a leader.
    pub fn knows_removed(&self, replica: ReplicaId) -> bool {
        let settled = self.node.raft.leader_id != 0 && !self.membership.is_joint();
        settled && self.membership.was_removed(replica) && self.membership.nodes.contains_key(&self.config.replica)
    }

    /// An entry that changes the membership is committed: from here on it holds. `None` if it did before.
    pub(super) fn take_change(&mut self, entry: &Entry, context: &Context) -> Result<Option<Membership>, GroupError> {
        // A machine that keeps its own position gets entries once more whose changes were kept.
        if entry.index() <= self.membership_at && !fault::active(Fault::ChangeAppliedTwice) {
            return Ok(None);
        }
        let change: ConfChangeV2 =
            prost_0_11::Message::decode(entry.data()).map_err(|_| GroupError::NewerEntry(entry.index()))?;
        let stored = |error: raft::Error| GroupError::Stored(format!("entry {}: {error}", entry.index()));
        let state = self.node.apply_conf_change(&change).map_err(stored)?;
        let added = match context {
            Context::Members(added) => added.as_slice(),
            _ => &[],
        };
        self.membership = self.membership.changed(&state, added);
        // A replica takes over no snapshot that does not know it.
        self.node.mut_store().set_least_snapshot(entry.index());
        if self.node.raft.state == StateRole::Leader && !self.membership.voters.contains(&self.config.replica) {
            // In a joint configuration it may still lead, if the old voters have it.
            if !self.membership.voters_outgoing.contains(&self.config.replica) {
                let term = self.node.raft.term;
                self.node.raft.bcast_append();
                self.node.raft.become_follower(term, 0);
            }
        }
        Ok(Some(self.membership.clone()))
    }
}

impl Membership {
    /// Whether two sets of voters decide.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// What raft-rs made of it, with the nodes of those who are new.
    fn changed(&self, state: &ConfState, added: &[(ReplicaId, NodeId)]) -> Membership {
        let sorted = |replicas: &[u64]| {
            let mut replicas: Vec<ReplicaId> = replicas.iter().copied().map(ReplicaId::new).collect();
            replicas.sort_unstable();
            replicas
        };
        let (voters, learners) = (sorted(&state.voters), sorted(&state.learners));
        let (voters_outgoing, learners_next) = (sorted(&state.voters_outgoing), sorted(&state.learners_next));
        let highest = added.iter().map(|(replica, _)| *replica).fold(self.highest, ReplicaId::max);
        let mut nodes = self.nodes.clone();
        nodes.extend(added.iter().copied());
        let everyone = [&voters, &learners, &voters_outgoing, &learners_next];
        nodes.retain(|replica, _| everyone.iter().any(|some| some.contains(replica)));
        Membership { voters, learners, voters_outgoing, learners_next, auto_leave: state.auto_leave, nodes, highest }
    }
}
