//! A replica that must not lead: its state is [wrong](Unhealthy), or its disk makes no progress.
//!
//! It does not stand for election and takes no leadership that is offered. If it leads, it hands leadership to the voter
//! that has most of the log and is not known to be unhealthy itself; if that has not happened after an election time-out it
//! steps down, and the others elect somebody. It goes on to vote and to acknowledge: its log is as good as any.
//!
//! **An unhealthy replica** answers no reads, those that wait included, takes no proposals and gives no snapshots. It asks
//! its leader for one, as replicas do that are new. While it asks it takes no entries, so it asks for a while only, and then
//! follows the log for as long before it asks again: a group that cannot be without it goes on, however long its leader has
//! none to give. The snapshot it takes must not be behind *its last entry*, since it may have acknowledged all of them, and
//! taking over a snapshot is forgetting the log.
//!
//! **A replica whose state is damaged** applies nothing any more: what it would apply to is not there. Entries that were
//! handed out are as good as lost, and it takes entries only up to its bounds, until a snapshot replaces the state.

use raft::StateRole;

use super::replica::Group;
use crate::ident::{LogIndex, ReplicaId};
use crate::raftstore::entry::{Cause, Unhealthy};
use crate::raftstore::fault::{self, Fault};

/// A leader that must not lead steps down after so many election time-outs.
const STEP_DOWN_ELECTIONS: u64 = 1;
/// A snapshot is asked for during so many election time-outs, and then entries are taken for as long.
const ASK_ELECTIONS: u64 = 20;

/// See the module.
#[derive(Default)]
pub(super) struct Health {
    unhealthy: Option<Unhealthy>,
    /// Nothing can be applied before a snapshot was taken over.
    is_broken: bool,
    is_stalled: bool,
    /// The entry of the last snapshot that was taken over since the replica was opened.
    restored_at: LogIndex,
    /// That one replaces a state that is wrong, and the machine does not have it yet.
    is_being_replaced: bool,
    /// When a leader that must not lead steps down.
    step_down_at: Option<u64>,
    /// Until when a snapshot is asked for.
    asks_until: Option<u64>,
    /// From when on it may be asked for again.
    asks_from: u64,
}

impl Health {
    pub(super) fn unhealthy(&self) -> Option<Unhealthy> {
        self.unhealthy
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    pub(super) fn is_being_replaced(&self) -> bool {
        self.is_being_replaced
    }

    pub(super) fn restored_at(&self) -> LogIndex {
        self.restored_at
    }
}

impl Group {
    /// Why its state is wrong, if it is.
    pub fn unhealthy(&self) -> Option<Unhealthy> {
        self.health.unhealthy
    }

    /// Whether it may lead.
    pub(super) fn may_lead(&self) -> bool {
        let is_stalled = self.health.is_stalled && !fault::active(Fault::StallIgnored);
        (self.health.unhealthy.is_none() || fault::active(Fault::MarkedStands)) && !is_stalled
    }

    /// Whether what is committed can be applied.
    pub(super) fn can_apply(&self) -> bool {
        !self.health.is_broken
    }

    /// The disk of this node makes no progress, or does again.
    pub fn stall(&mut self, is_stalled: bool) {
        self.health.is_stalled = is_stalled;
        self.settle();
    }

    /// Its state is known to be wrong.
    pub(super) fn set_unhealthy(&mut self, unhealthy: Unhealthy) {
        self.health.unhealthy = Some(unhealthy);
        self.health.asks_from = self.now;
        if !fault::active(Fault::MarkedReads) {
            self.reads.refuse_all(&mut self.answers);
        }
        if fault::active(Fault::MarkedGives) {
            return;
        }
        self.capturing.withhold();
        let view = self.node.mut_store();
        view.set_captured(None);
        view.set_withheld(true);
    }

    /// Something in its state cannot be read as of an entry. Says so if the state is wrong from here on, which is to be kept
    /// durably: it was not known before, and no snapshot has replaced the state since.
    ///
    /// # Errors
    /// There is nobody to get the right state from: the replica has to stop.
    pub fn damaged(&mut self, as_of: LogIndex) -> Result<Option<Unhealthy>, NoRepair> {
        self.rouse();
        if as_of < self.health.restored_at || self.is_taking_over() || self.health.is_broken {
            return Ok(None);
        }
        self.break_off()
    }

    /// What was handed out for applying last is not applied, nor is anything behind it, because of the state here. Says as
    /// [`Group::damaged`] does whether the state is wrong from here on.
    ///
    /// # Errors
    /// As there.
    pub fn cannot_apply(&mut self) -> Result<Option<Unhealthy>, NoRepair> {
        self.rouse();
        let unhealthy = self.break_off()?;
        self.applying.clear();
        self.applying_bytes = 0;
        self.compactions.clear();
        Ok(unhealthy)
    }

    fn break_off(&mut self) -> Result<Option<Unhealthy>, NoRepair> {
        if !self.config.snapshots || self.membership.nodes.len() < 2 || self.is_sole_voter() {
            return Err(NoRepair);
        }
        self.health.is_broken = true;
        let unhealthy = Unhealthy { cause: Cause::Damaged, index: self.applied };
        self.set_unhealthy(unhealthy);
        self.settle();
        Ok(Some(unhealthy))
    }

    /// The entry as of which replicas differ without a majority that agrees, if the last check has shown that.
    pub fn undecided(&self) -> Option<LogIndex> {
        let last = self.checks.last()?;
        last.right.is_none().then_some(last.index)
    }

    /// As it was stored.
    pub(super) fn open_unhealthy(&mut self, stored: Option<Unhealthy>) {
        let Some(unhealthy) = stored else { return };
        self.health.is_broken = unhealthy.cause == Cause::Damaged;
        self.set_unhealthy(unhealthy);
    }

    /// A snapshot replaces the state: once it is written, the state is right, durably.
    pub(super) fn heal(&mut self, restored_at: LogIndex) {
        let health = &mut self.health;
        // It may be as of the entry that was applied last, so that nothing else would tell a read to wait.
        health.is_being_replaced = health.unhealthy.is_some();
        (health.restored_at, health.unhealthy, health.is_broken) = (restored_at, None, false);
        (health.asks_until, health.step_down_at) = (None, None);
        self.node.mut_store().set_withheld(false);
    }

    /// The machine has what a snapshot brought.
    pub(super) fn replaced(&mut self) {
        self.health.is_being_replaced = false;
    }

    /// Before time passes for raft-rs: whoever must not lead never comes to the end of its patience, but to the end of its
    /// loyalty, so that it votes for others when its leader is silent.
    pub(super) fn hold_back(&mut self) {
        if self.may_lead() {
            return;
        }
        let raft = &mut self.node.raft;
        if matches!(raft.state, StateRole::Candidate | StateRole::PreCandidate) {
            let term = raft.term;
            raft.become_follower(term, 0);
            self.settle();
        }
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Follower {
            let last = raft.randomized_election_timeout().saturating_sub(2);
            raft.election_elapsed = raft.election_elapsed.min(last);
        }
    }

    /// With each tick.
    pub(super) fn tick_health(&mut self) {
        if self.may_lead() {
            self.health.step_down_at = None;
            return;
        }
        if self.node.raft.state == StateRole::Leader {
            return self.give_leadership_away();
        }
        self.health.step_down_at = None;
        self.ask_for_snapshot();
    }

    fn give_leadership_away(&mut self) {
        // Nobody else could lead.
        if self.is_sole_voter() {
            return;
        }
        let patience = STEP_DOWN_ELECTIONS * self.config.election_ticks as u64;
        let step_down_at = *self.health.step_down_at.get_or_insert(self.now + patience);
        if self.now >= step_down_at {
            self.void_lease();
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
            return self.settle();
        }
        if self.node.raft.lead_transferee.is_none()
            && let Some(successor) = self.successor()
        {
            // Refused it is tried again with the next tick, until there is no more patience.
            let _ = self.transfer_leader(successor);
        }
    }

    /// The voter that is the best to lead, if any is there.
    fn successor(&self) -> Option<ReplicaId> {
        let own = self.config.replica;
        let fits = |replica: &&ReplicaId| {
            let number = replica.get();
            **replica != own
                && !self.checks.suspects(number)
                && self.heard.within(number, self.now, self.config.election_ticks as u64)
        };
        let voters = self.membership.voters.iter().filter(fits);
        voters.copied().max_by_key(|replica| self.matched(replica.get()))
    }

    fn ask_for_snapshot(&mut self) {
        let wants = self.health.unhealthy.is_some() && self.config.snapshots;
        if !wants || self.replaying || self.is_taking_over() {
            return;
        }
        let span = ASK_ELECTIONS * self.config.election_ticks as u64;
        match self.health.asks_until {
            Some(until) if self.now >= until => {
                self.node.raft.pending_request_snapshot = 0;
                (self.health.asks_until, self.health.asks_from) = (None, self.now + span);
            }
            // Raft-rs refuses while it knows no leader, or has no entry of the leader's term.
            None if self.now >= self.health.asks_from && self.node.raft.request_snapshot().is_ok() => {
                self.health.asks_until = Some(self.now + span);
            }
            _ => {}
        }
    }

    /// Whether a snapshot that matches the log may replace the state, and with it the log: of an unhealthy replica, if
    /// nothing is lost by it that may have been acknowledged.
    pub(super) fn is_repaired_by(&self, index: LogIndex) -> bool {
        let log = &self.node.raft.raft_log;
        self.health.unhealthy.is_some() && index.get() >= log.last_index() && index.get() >= log.committed
    }

    /// Before raft-rs is given such a snapshot, which it would take for old else.
    pub(super) fn expect_repair(&mut self) {
        self.node.raft.pending_request_snapshot = super::replica::ANY_SNAPSHOT;
    }
}

/// A state cannot be repaired: no snapshot could come from anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no other replica that could send the state")]
pub struct NoRepair;
