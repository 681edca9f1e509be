//! Hibernation: a group that nobody uses sleeps, and costs neither messages nor ticks.
//!
//! A leader at rest for a while asks its followers to sleep, with heartbeats of a kind of their own. A follower that is at
//! rest, too, and has all the leader's entries falls asleep with its answer. When all have answered, the leader sleeps;
//! while it asks, all its heartbeats ask, so that none wakes who sleeps already; it gives up for a while when an answer
//! is missing, and then they wake. Any input wakes a replica: the leader sends heartbeats at once, and a follower pokes
//! its leader, unless it was him who woke it.
//!
//! Whom nobody wakes must not sleep for ever, so **as long as all voters that can be reached sleep, their leader sleeps,
//! on a node that lives**: a follower sleeps on the [`Word`] of the leader's node, which it got with the request, and
//! [`crate::raftstore::sleepers`] wakes it when the node is silent or says another. A leader that ends leading in any other
//! way than with its node leaves somebody awake behind (whoever was elected, or wants to be), or ends with its replica:
//! then the driver breaks the node's word.
//!
//! Raft-rs counts ticks, and they stand still meanwhile. So a follower that wakes has heard of its leader when it last
//! heard of the leader's node: it stands for election, and votes, as if that had been a heartbeat. A leader that wakes has
//! heard nobody since it fell asleep, and an election time-out to hear a quorum.

use std::collections::BTreeSet;

use raft::eraftpb;
use raft::prelude::MessageType;
use raft::{ProgressState, StateRole};

use super::replica::Group;
use crate::ident::{NodeId, ReplicaId};
use crate::raftstore::beat::{WORD_BYTES, Word};
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::message::Message;

/// The context of a heartbeat that asks to sleep, and of the answer that agrees: the number of the request, little-endian,
/// and the word of the leader's node. Nobody else's context has this length.
pub(super) const SLEEP_CONTEXT_BYTES: usize = 8 + WORD_BYTES;

/// How a replica sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// It leads, and all others sleep too.
    Leading,
    /// On the word of its leader's node.
    Following {
        /// The leader's node.
        node: NodeId,
        /// What that said.
        word: Word,
    },
}

/// See the module.
#[derive(Default)]
pub(super) struct Hibernation {
    asleep: Option<Sleep>,
    /// Of the node here.
    word: Word,
    idle_ticks: u64,
    /// Requests to sleep so far.
    requests: u64,
    is_asking: bool,
    asked_ticks: u64,
    agreed: BTreeSet<u64>,
    gave_word: bool,
    /// The leader that is to be told that this replica woke, and his term.
    to_poke: Option<(u64, u64)>,
}

impl Hibernation {
    /// Something happens: the time to sleep is put off.
    pub(super) fn stir(&mut self) {
        self.idle_ticks = 0;
        self.is_asking = false;
    }
}

impl Group {
    /// How it sleeps, if it does. While it sleeps it needs no ticks, and has nothing to do.
    pub fn sleep(&self) -> Option<Sleep> {
        self.hibernation.asleep
    }

    /// Under which word its node speaks now: to be said before each tick.
    pub fn speak_as(&mut self, word: Word) {
        self.hibernation.word = word;
    }

    /// Whether replicas may sleep on this node's word for this group's sake.
    pub fn gave_word(&self) -> bool {
        self.hibernation.gave_word
    }

    /// Whether a message is nothing to wake for: a follower agrees to sleep, as others did before.
    pub fn sleeps_through(&self, message: &Message) -> bool {
        let Message(message) = message;
        self.hibernation.asleep == Some(Sleep::Leading)
            && message.get_msg_type() == MessageType::MsgHeartbeatResponse
            && message.context.len() == SLEEP_CONTEXT_BYTES
            && message.term == self.node.raft.term
    }

    /// After how many ticks of silence of the leader's node it has to be woken.
    pub fn patience_ticks(&self) -> u64 {
        self.config.election_ticks as u64
    }

    /// The nodes of the other replicas.
    pub fn other_nodes(&self) -> Box<[NodeId]> {
        let others = self.membership.nodes.iter().filter(|(replica, _)| **replica != self.config.replica);
        others.map(|(_, node)| *node).collect()
    }

    /// Wakes it, if it sleeps. `silence` says for how many ticks nothing was heard of a node. To be called before any
    /// input; one that comes without it wakes it as if nothing were known of any node.
    pub fn wake(&mut self, silence: impl Fn(NodeId) -> u64) {
        let Some(sleep) = self.hibernation.asleep.take() else { return };
        self.hibernation.stir();
        let own = self.config.replica;
        let election_ticks = self.config.election_ticks;
        match sleep {
            Sleep::Leading => {
                let others = self.membership.nodes.iter().filter(|(replica, _)| **replica != own);
                for (replica, node) in others {
                    self.heard.was_silent(replica.get(), silence(*node), self.now);
                }
                let raft = &mut self.node.raft;
                for (replica, progress) in raft.mut_prs().iter_mut() {
                    progress.recent_active = *replica == own.get();
                }
                raft.election_elapsed = 0;
                raft.ping();
            }
            Sleep::Following { node, .. } => {
                let silence = usize::try_from(silence(node)).unwrap_or(usize::MAX).min(election_ticks);
                self.node.raft.election_elapsed = silence;
                let led = (self.node.raft.leader_id, self.node.raft.term);
                self.hibernation.to_poke = (silence < election_ticks).then_some(led);
            }
        }
        self.settle();
    }

    /// Before an input that is more than a heartbeat.
    pub(super) fn rouse(&mut self) {
        self.wake(|_| u64::MAX);
        self.hibernation.stir();
    }

    /// Before a message.
    pub(super) fn rouse_for(&mut self, message: &eraftpb::Message) {
        match message.get_msg_type() {
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => self.wake(|_| u64::MAX),
            _ => self.rouse(),
        }
        if message.from == self.node.raft.leader_id {
            self.hibernation.to_poke = None;
        }
    }

    /// A follower that was woken tells its leader, with an answer to a heartbeat that was not sent.
    pub(super) fn poke_leader(&mut self) {
        let Some((to, term)) = self.hibernation.to_poke.take() else { return };
        let raft = &self.node.raft;
        // A new term may not be durable yet, and has another leader.
        if raft.state != StateRole::Follower || raft.leader_id != to || raft.term != term {
            return;
        }
        let mut message = eraftpb::Message {
            to,
            from: raft.id,
            term: raft.term,
            commit: raft.raft_log.committed,
            ..Default::default()
        };
        message.set_msg_type(MessageType::MsgHeartbeatResponse);
        self.persisting.send(Message(message), true);
    }

    /// Nothing waits, is on its way, or is not done, as far as this replica knows.
    fn is_at_rest(&self) -> bool {
        let raft = &self.node.raft;
        let (log, last) = (&raft.raft_log, raft.raft_log.last_index());
        let is_done = log.committed == last && log.persisted == last && self.applied.get() == last;
        let nobody_waits =
            (self.proposals.len() == 0 && self.reads.len() == 0) || fault::active(Fault::SleepsWithRequests);
        is_done
            && nobody_waits
            && !self.replaying
            && self.failure.is_none()
            && self.persisting.is_at_rest()
            && self.answers.is_empty()
            && self.truncations.is_empty()
            && !self.is_taking_over()
            && !self.capturing.is_asked()
            && !self.node.store().has_captured()
            && !self.membership.is_joint()
            && self.checks.is_idle()
            && self.health.unhealthy().is_none()
            && !self.health.is_stalled()
            && raft.pending_request_snapshot == 0
    }

    /// Whether all followers are where the leader is, and were heard of lately.
    fn leads_at_rest(&self) -> bool {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        let own = self.config.replica.get();
        let follows = |(replica, progress): (&u64, &raft::Progress)| {
            let keeps_up = progress.matched == last
                && progress.committed_index == last
                && progress.state == ProgressState::Replicate;
            let is_there = self.heard.within(*replica, self.now, self.config.election_ticks as u64);
            *replica == own || (is_there && (keeps_up || fault::active(Fault::SleepsBehind)))
        };
        raft.state == StateRole::Leader
            && raft.commit_to_current_term()
            && raft.lead_transferee.is_none()
            && raft.read_only.pending_read_count() == 0
            && self.is_at_rest()
            && raft.prs().iter().all(follows)
    }

    /// With each tick: a leader that has been at rest for long enough asks the others to sleep.
    pub(super) fn doze(&mut self) {
        let after = self.config.hibernate_after_ticks;
        if after == 0 || self.node.raft.state != StateRole::Leader {
            return;
        }
        if !self.leads_at_rest() {
            return self.hibernation.stir();
        }
        let hibernation = &mut self.hibernation;
        if hibernation.is_asking {
            hibernation.asked_ticks += 1;
            // Somebody does not understand, or not agree. He must not take the heartbeats for missing.
            let most = (self.config.election_ticks / 2).max(self.config.heartbeat_ticks) as u64;
            if hibernation.asked_ticks > most {
                hibernation.stir();
            }
            return;
        }
        hibernation.idle_ticks += 1;
        if hibernation.idle_ticks >= after {
            self.ask_to_sleep();
            self.fall_asleep_leading();
        }
    }

    /// From now on heartbeats ask; also those that have not left yet.
    fn ask_to_sleep(&mut self) {
        let hibernation = &mut self.hibernation;
        hibernation.requests += 1;
        (hibernation.is_asking, hibernation.gave_word, hibernation.asked_ticks) = (true, true, 0);
        hibernation.agreed.clear();
    }

    /// A heartbeat that leaves while it is asked asks.
    pub(super) fn ask_with(&self, message: &mut eraftpb::Message) {
        let hibernation = &self.hibernation;
        let is_plain = message.get_msg_type() == MessageType::MsgHeartbeat && message.context.is_empty();
        if hibernation.is_asking && is_plain {
            message.context = [&hibernation.requests.to_le_bytes()[..], &hibernation.word.encode()].concat();
        }
    }

    /// A message asks to sleep: how this replica will, or not. Its context is what raft-rs answers with, so without it the
    /// answer does not agree.
    pub(super) fn asked_to_sleep(&self, message: &mut eraftpb::Message) -> Option<Sleep> {
        if message.get_msg_type() != MessageType::MsgHeartbeat || message.context.len() != SLEEP_CONTEXT_BYTES {
            return None;
        }
        let sleep = self.would_follow_asleep(message);
        if sleep.is_none() {
            message.context.clear();
        }
        sleep
    }

    fn would_follow_asleep(&self, message: &eraftpb::Message) -> Option<Sleep> {
        let raft = &self.node.raft;
        let follows = raft.state == StateRole::Follower && raft.term == message.term && raft.leader_id == message.from;
        let has_all = raft.raft_log.last_index() == message.commit;
        if self.config.hibernate_after_ticks == 0 || !follows || !has_all || !self.is_at_rest() {
            return None;
        }
        let node = self.membership.node_of(ReplicaId::new(message.from))?;
        let word = Word::decode(message.context.get(8..)?)?;
        Some(Sleep::Following { node, word })
    }

    /// The message was taken: it sleeps from here on.
    pub(super) fn fall_asleep_following(&mut self, sleep: Option<Sleep>) {
        if sleep.is_some() {
            self.hibernation.asleep = sleep;
        }
    }

    /// A follower may agree to sleep.
    pub(super) fn agreed_to_sleep(&mut self, message: &mut eraftpb::Message) {
        if message.get_msg_type() != MessageType::MsgHeartbeatResponse || message.context.len() != SLEEP_CONTEXT_BYTES {
            return;
        }
        let context = std::mem::take(&mut message.context);
        let hibernation = &mut self.hibernation;
        let is_current = context.get(..8) == Some(&hibernation.requests.to_le_bytes()[..]);
        if hibernation.is_asking && is_current && message.term == self.node.raft.term {
            hibernation.agreed.insert(message.from);
        }
    }

    /// A leader sleeps when all others do.
    pub(super) fn fall_asleep_leading(&mut self) {
        if !self.hibernation.is_asking {
            return;
        }
        let (own, agreed) = (self.config.replica.get(), &self.hibernation.agreed);
        let all = self.node.raft.prs().iter().all(|(replica, _)| *replica == own || agreed.contains(replica));
        if all && self.leads_at_rest() {
            self.hibernation.stir();
            self.hibernation.asleep = Some(Sleep::Leading);
        }
    }
}
