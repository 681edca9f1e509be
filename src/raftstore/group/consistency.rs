//! The check whether all replicas hold the same, as one replica sees it. What is hashed, and how it is judged, is
//! [`crate::raftstore::consistency`].
//!
//! A leader proposes an entry that asks; every replica that applies it hashes its state as of there and tells whoever
//! leads. The leader asks those that did not say, again and again: a replica that was restarted, or that got past the entry
//! by a snapshot, answers that it has no digest. When everyone has said that can be reached, or time is up, the leader
//! proposes a second entry with what it knows, if a majority said anything; else it gives up. Whoever leads by then does
//! so: each replica knows of the check by the entry.
//!
//! Neither entry is proposed before every member has said that its build knows them: one that does not would stop there.
//! Members that have not said so are asked again and again, from when this replica began to lead.
//!
//! What the second entry says holds for all alike. A replica that differs from the majority is
//! [unhealthy](crate::raftstore::entry::Unhealthy) from there on, unless it has taken over a snapshot since.

use std::collections::{BTreeMap, BTreeSet};

use raft::StateRole;

use super::effects::{Effects, Refusal};
use super::replica::Group;
use crate::ident::{LogIndex, ReplicaId};
use crate::raftstore::consistency::{
    CheckMessage, CheckRefusal, CheckWord, DIGEST_VERSION, Digest, GivenUp, Verdict, is_majority,
};
use crate::raftstore::context::Context;
use crate::raftstore::entry::{Cause, Position, Unhealthy};

/// Who did not say is asked again after so many election time-outs.
const ASK_ELECTIONS: u64 = 2;
/// Who was silent for so many election time-outs is not waited for.
const SILENT_ELECTIONS: u64 = 2;
/// The second entry may take so many election time-outs to come back.
const VERIFY_ELECTIONS: u64 = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Checks {
    /// The entry that asks, as it was proposed here, until it is committed or something else is in its place.
    proposed: Option<Position>,
    current: Option<Check>,
    /// Since when the same replica leads.
    led_since: u64,
    /// Replicas that have said here that their build knows checks.
    knowing: BTreeSet<ReplicaId>,
    /// When those that have not are asked next.
    ask_at: u64,
    /// What the last one showed.
    last: Option<Verdict>,
    /// Replicas that differed then and were not sent a snapshot since.
    suspects: BTreeSet<u64>,
    /// What became of one, for those who wait for it.
    finished: Option<Result<Verdict, GivenUp>>,
    say: Vec<(ReplicaId, CheckMessage)>,
}

/// A check that is under way.
struct Check {
    at: Position,
    begun: u64,
    asked: u64,
    /// What this replica has to say; `None` while it hashes.
    own: Option<CheckWord>,
    /// What was heard here.
    heard: BTreeMap<ReplicaId, CheckWord>,
    /// The term in which the second entry was proposed here.
    verified_in: Option<u64>,
}

impl Checks {
    pub(super) fn last(&self) -> Option<&Verdict> {
        self.last.as_ref()
    }

    /// Whether a replica's state is known to be wrong.
    pub(super) fn suspects(&self, replica: u64) -> bool {
        self.suspects.contains(&replica)
    }

    /// A replica was sent the right state.
    pub(super) fn trust(&mut self, replica: u64) {
        self.suspects.remove(&replica);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none() && self.finished.is_none() && self.say.is_empty()
    }

    /// Another leads, or nobody.
    pub(super) fn leader_changed(&mut self, now: u64) {
        (self.led_since, self.ask_at) = (now, now);
    }
}

impl Check {
    fn digests(&self) -> Vec<(ReplicaId, Digest)> {
        let digest = |(replica, word): (&ReplicaId, &CheckWord)| match word {
            CheckWord::Digest(digest) => Some((*replica, *digest)),
            _ => None,
        };
        self.heard.iter().filter_map(digest).collect()
    }
}

impl Group {
    /// Begins to compare the states of all replicas, or joins a check that is under way. What became of it comes with
    /// [`Effects::checked`].
    ///
    /// # Errors
    /// Nothing was begun.
    pub fn check_consistency(&mut self) -> Result<(), CheckRefusal> {
        self.rouse();
        if !self.can_capture {
            return Err(CheckRefusal::KeepsOwnPosition);
        }
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Err(CheckRefusal::NotLeader { leader: self.leader() });
        }
        if self.checks.current.is_some() || self.checks.proposed.is_some_and(|at| at.term.get() == raft.term) {
            return Ok(());
        }
        if self.membership.is_joint() || raft.has_pending_conf() {
            return Err(CheckRefusal::Changing);
        }
        if let Some(replica) = self.unknowing().next() {
            return Err(CheckRefusal::NotKnown { replica });
        }
        let asked = self.try_propose(None, Vec::new(), Context::Hash(DIGEST_VERSION));
        asked.map_err(|refusal| match refusal {
            Refusal::NotLeader { leader } => CheckRefusal::NotLeader { leader },
            _ => CheckRefusal::Busy,
        })?;
        let raft = &self.node.raft;
        self.checks.proposed = Some(Position::new(raft.raft_log.last_index(), raft.term));
        self.settle();
        Ok(())
    }

    /// Members whose build may not know checks: it would stop at an entry of one.
    fn unknowing(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        let is_unknowing =
            |replica: &ReplicaId| *replica != self.config.replica && !self.checks.knowing.contains(replica);
        self.membership.replicas().filter(is_unknowing)
    }

    /// With each tick: a leader asks them, so that it knows when a check is due.
    fn ask_unknowing(&mut self) {
        if self.node.raft.state != StateRole::Leader || self.now < self.checks.ask_at || !self.can_capture {
            return;
        }
        self.checks.ask_at = self.now + ASK_ELECTIONS * self.config.election_ticks as u64;
        // Numbers are never used again.
        let Group { checks, membership, .. } = self;
        checks.knowing.retain(|replica| membership.nodes.contains_key(replica));
        let unknowing: Vec<ReplicaId> = self.unknowing().collect();
        let question = CheckMessage { at: Position::default(), word: CheckWord::Ask };
        self.checks.say.extend(unknowing.into_iter().map(|replica| (replica, question)));
    }

    /// The entry that asks was committed. Says whether the state is to be hashed as of there; else there is no digest.
    pub(super) fn begin_check(&mut self, at: Position, version: u8) -> bool {
        let can_hash = version == DIGEST_VERSION && self.can_capture && self.can_apply();
        self.checks.proposed.take_if(|proposed| proposed.index <= at.index);
        let (heard, asked) = (BTreeMap::new(), self.now);
        let own = (!can_hash).then_some(CheckWord::None);
        self.checks.current = Some(Check { at, begun: self.now, asked, own, heard, verified_in: None });
        can_hash
    }

    /// The state as of the entry that asked is hashed, or it cannot be.
    pub fn hashed(&mut self, at: LogIndex, digest: Option<Digest>) {
        let leader = self.leader();
        let Some(check) = self.checks.current.as_mut().filter(|check| check.at.index == at) else { return };
        let word = digest.map_or(CheckWord::None, CheckWord::Digest);
        check.own = Some(word);
        if let Some(leader) = leader.filter(|leader| *leader != self.config.replica) {
            self.checks.say.push((leader, CheckMessage { at: check.at, word }));
        }
        self.advance_check();
    }

    /// Another replica says something about a check.
    pub fn check_said(&mut self, from: ReplicaId, message: CheckMessage) {
        self.rouse();
        if from == self.config.replica || !self.membership.nodes.contains_key(&from) {
            return;
        }
        let CheckMessage { at, word } = message;
        let current = self.checks.current.as_mut().filter(|check| check.at == at);
        match (word, current) {
            (CheckWord::Question, Some(check)) => {
                let answer = check.own.map(|word| (from, CheckMessage { at, word }));
                self.checks.say.extend(answer);
            }
            (CheckWord::Question, None) => {
                // What is applied was not hashed, or is forgotten. What is not will be.
                if at.index <= self.applied {
                    self.checks.say.push((from, CheckMessage { at, word: CheckWord::None }));
                }
            }
            (CheckWord::Ask, _) => self.checks.say.push((from, CheckMessage { at, word: CheckWord::Known })),
            (CheckWord::Known, _) => {
                self.checks.knowing.insert(from);
            }
            (word, Some(check)) => {
                check.heard.insert(from, word);
                self.advance_check();
            }
            (_, None) => {}
        }
    }

    /// Goes on with a check as far as it can go.
    pub(super) fn advance_check(&mut self) {
        self.ask_unknowing();
        let Some(check) = &mut self.checks.current else { return };
        let election = self.config.election_ticks as u64;
        let age = self.now.saturating_sub(check.begun);
        if age > self.config.check_ticks + VERIFY_ELECTIONS * election {
            return self.give_up_check();
        }
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || check.verified_in == Some(raft.term) {
            return;
        }
        check.heard.extend(check.own.map(|own| (self.config.replica, own)));
        let is_late = age >= self.config.check_ticks;
        let is_settled = self.now >= self.checks.led_since + SILENT_ELECTIONS * election;
        let silent = |replica: ReplicaId| {
            is_settled
                && replica != self.config.replica
                && !self.heard.within(replica.get(), self.now, SILENT_ELECTIONS * election)
        };
        let is_waited_for = |replica: &ReplicaId| !check.heard.contains_key(replica) && !silent(*replica);
        let waited_for: Vec<ReplicaId> = self.membership.replicas().filter(is_waited_for).collect();
        if !is_late && !waited_for.is_empty() {
            if check.asked + ASK_ELECTIONS * election <= self.now {
                check.asked = self.now;
                let question = CheckMessage { at: check.at, word: CheckWord::Question };
                let others = waited_for.into_iter().filter(|replica| *replica != self.config.replica);
                self.checks.say.extend(others.map(|replica| (replica, question)));
            }
            return;
        }
        let digests = check.digests();
        let has_said = |replica| digests.iter().any(|(who, _)| *who == replica);
        if !is_majority(&self.membership, has_said) {
            return self.give_up_check();
        }
        let (at, term) = (check.at, raft.term);
        // Who led before knew of all, and a member may have come since.
        if self.unknowing().next().is_some() {
            return;
        }
        // Refused for want of room it is tried again with the next tick.
        if self.try_propose(None, Vec::new(), Context::Verify { at, digests }).is_ok()
            && let Some(check) = &mut self.checks.current
        {
            check.verified_in = Some(term);
        }
    }

    fn give_up_check(&mut self) {
        let Some(check) = self.checks.current.take() else { return };
        let heard: BTreeSet<ReplicaId> = check.digests().into_iter().map(|(replica, _)| replica).collect();
        let voters = &self.membership.voters;
        let heard = voters.iter().filter(|voter| heard.contains(voter)).count();
        let given_up = GivenUp { index: check.at.index, heard, voters: voters.len() };
        self.checks.finished = Some(Err(given_up));
    }

    /// The entry with the digests was committed. Says so if this replica is unhealthy from here on.
    pub(super) fn judge(&mut self, at: Position, digests: &[(ReplicaId, Digest)]) -> Option<Unhealthy> {
        let verdict = Verdict::of(at.index, digests, &self.membership);
        let differing = verdict.differing();
        self.checks.suspects = differing.iter().map(|replica| replica.get()).collect();
        self.checks.current.take_if(|check| check.at.index <= at.index);
        self.checks.last = Some(verdict.clone());
        self.checks.finished = Some(Ok(verdict));
        let was_replaced = self.health.restored_at() >= at.index;
        if !differing.contains(&self.config.replica) || was_replaced {
            return None;
        }
        let unhealthy = Unhealthy { cause: Cause::Differs, index: at.index };
        self.set_unhealthy(unhealthy);
        Some(unhealthy)
    }

    /// What a check wants done.
    pub(super) fn hand_checks(&mut self, effects: &mut Effects) {
        effects.checks = std::mem::take(&mut self.checks.say);
        effects.checked = self.checks.finished.take();
    }
}
