//! raft-rs behind inputs and effects.

use std::collections::VecDeque;

use raft::eraftpb;
use raft::prelude::MessageType;
use raft::storage::RaftState;
use raft::{RawNode, StateRole};

use super::compaction::LogBytes;
use super::config::GroupConfig;
use super::consistency::Checks;
use super::effects::{Answer, LogRead, PersistId, Refusal, RequestId};
use super::health::Health;
use super::hibernation::Hibernation;
use super::inflight::{Change, Inflight};
use super::lease::Lease;
use super::log_view::LogView;
use super::membership::Heard;
use super::persisting::Persisting;
use super::requests::{Proposals, Reads};
use super::snapshots::{Capturing, Takeover};
use super::terms::TermRuns;
use super::validate::{self, Known, Rejected};
use crate::ident::{LogIndex, NodeId, ReplicaId, Term};
use crate::raftstore::bridge;
use crate::raftstore::context::{Attempt, Context};
use crate::raftstore::entry::{Cause, Entry, Membership, Position};
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::log_store::StoredGroup;
use crate::raftstore::message::Message;
use crate::raftstore::snapshot::header::Content;

/// What a replica asks for that knows nothing yet: a snapshot of this entry or a later one.
pub(super) const ANY_SNAPSHOT: u64 = 1;

/// One replica of one group. See the [module](super).
pub struct Group {
    pub(super) config: GroupConfig,
    pub(super) node: RawNode<LogView>,
    pub(super) membership: Membership,
    /// The membership that was stored is as of this entry.
    pub(super) membership_at: LogIndex,
    pub(super) seed: u64,
    /// How often it stood for election; each draws another time-out.
    pub(super) elections: u64,
    /// Ticks since it was opened.
    pub(super) now: u64,
    pub(super) persisting: Persisting,
    /// Term and vote as last handed out for writing.
    pub(super) written_vote: (Term, Option<ReplicaId>),
    pub(super) proposals: Proposals,
    pub(super) reads: Reads,
    pub(super) inflight: Inflight,
    pub(super) answers: Vec<Answer>,
    /// What is written besides Readies.
    pub(super) truncations: Vec<Position>,
    pub(super) applied: LogIndex,
    /// Bytes of what was handed out for applying and is not applied, by last index.
    pub(super) applying: VecDeque<(LogIndex, usize)>,
    pub(super) applying_bytes: usize,
    /// Compactions that were handed out for applying, by the index of their command.
    pub(super) compactions: VecDeque<(LogIndex, LogIndex)>,
    /// Bytes of the log that are applied and not compacted.
    pub(super) log_bytes: LogBytes,
    pub(super) capturing: Capturing,
    pub(super) takeover: Option<Takeover>,
    pub(super) heard: Heard,
    pub(super) lease: Lease,
    pub(super) hibernation: Hibernation,
    pub(super) checks: Checks,
    pub(super) health: Health,
    /// What a snapshot of it is of: a state machine may keep its state outside of the store.
    pub(super) content: Content,
    /// The state can be captured.
    pub(super) can_capture: bool,
    /// The snapshot's entry that the machine is to be told of.
    pub(super) restored: Option<LogIndex>,
    pub(super) compaction_proposed: bool,
    /// The log is being read back up to its end: what is not applied has to be in memory before Raft may begin.
    pub(super) replaying: bool,
    pub(super) replay_asked: bool,
    pub(super) led: (u64, u64, StateRole),
    pub(super) transfer_not_before: u64,
    /// Why it cannot go on.
    pub(super) failure: Option<GroupError>,
}

/// Of a state machine that keeps its own position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPosition {
    /// Where it says it has got to.
    pub applied: LogIndex,
    /// Whether it gives and takes snapshots.
    pub gives_snapshots: bool,
}

/// Why a replica cannot be opened, or cannot go on. *This node must stop.*
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The configuration makes no sense.
    #[error("the configuration of the group makes no sense: {0}")]
    Config(String),
    /// What is stored contradicts itself.
    #[error("what is stored of the group contradicts itself: {0}")]
    Stored(String),
    /// An entry that this version does not understand.
    #[error("entry {0} was written by a newer version")]
    NewerEntry(LogIndex),
}

impl Group {
    /// Opens a replica as it was stored. `own` is where a machine that keeps its own position says it has got to: behind
    /// what was noted, and it gets those entries once more; or ahead of it, and it knows those that it gets. What it was to
    /// install it has installed. `seed` must not repeat from one opening to the next: it tells the reads of this life from
    /// those of earlier ones, and draws the election time-outs.
    ///
    /// # Errors
    /// The configuration or what is stored makes no sense.
    pub fn open(
        mut config: GroupConfig,
        stored: &StoredGroup,
        own: Option<OwnPosition>,
        terms: TermRuns,
        seed: u64,
    ) -> Result<Group, GroupError> {
        check_config(&config, stored)?;
        let membership_at = stored.applied;
        let mut stored = stored.clone();
        let can_capture = own.is_none_or(|own| own.gives_snapshots);
        config.snapshots &= can_capture;
        let content = if own.is_some() { Content::Machine } else { Content::Tables };
        check_stored(&stored)?;
        if let Some(OwnPosition { applied, .. }) = own {
            // What was noted as applied was committed, also what the machine has forgotten. The membership is as of there, and
            // whoever does not know yet that he votes by now hears it only from who knows that it is committed.
            stored.hard_state.commit = stored.hard_state.commit.max(applied).max(stored.applied);
            stored.applied = stored.applied.min(applied);
            // As of which entry the state was found to be wrong says nothing of what the machine has forgotten since.
            check_stored(&StoredGroup { unhealthy: None, ..stored.clone() })?;
        }
        // Rule of durable order 3: the applied index is what was written with the effects, never what is committed.
        let applied = match fault::active(Fault::AppliedFromCommit) {
            true => stored.hard_state.commit.max(stored.applied),
            false => stored.applied,
        };
        let mut hard_state = eraftpb::HardState::from(&stored.hard_state);
        hard_state.commit = hard_state.commit.max(applied.get());
        let initial = RaftState { hard_state, conf_state: stored.membership.to_conf_state() };
        // What cannot be applied is not needed in memory.
        let is_broken = stored.unhealthy.is_some_and(|unhealthy| unhealthy.cause == Cause::Damaged);
        let cached_from = if is_broken { stored.last.index } else { applied };
        let view = LogView::new(initial, terms, cached_from, content, &config);
        let node = RawNode::new(&raft_config(&config, applied), view, &bridge::logger(config.replica))
            .map_err(|error| GroupError::Stored(error.to_string()))?;
        let mut group = Group {
            membership: stored.membership.clone(),
            membership_at,
            seed,
            elections: 0,
            now: 0,
            persisting: Persisting::default(),
            written_vote: (stored.hard_state.term, stored.hard_state.vote),
            proposals: Proposals::default(),
            reads: Reads::new(mix(seed ^ mix(config.replica.get()))),
            inflight: Inflight::default(),
            answers: Vec::new(),
            truncations: Vec::new(),
            applied,
            applying: VecDeque::new(),
            applying_bytes: 0,
            compactions: VecDeque::new(),
            log_bytes: LogBytes::default(),
            capturing: Capturing::default(),
            takeover: None,
            heard: Heard::default(),
            lease: Lease::default(),
            hibernation: Hibernation::default(),
            checks: Checks::default(),
            health: Health::default(),
            content,
            can_capture,
            restored: None,
            compaction_proposed: false,
            replaying: applied < stored.last.index && !is_broken,
            replay_asked: false,
            led: (0, 0, StateRole::Follower),
            transfer_not_before: 0,
            failure: None,
            config,
            node,
        };
        group.open_unhealthy(stored.unhealthy);
        group.settle();
        Ok(group)
    }

    /// A message has arrived.
    ///
    /// # Errors
    /// It was dropped, and why. Raft goes on as if it had been lost.
    pub fn step(&mut self, message: Message) -> Result<(), Rejected> {
        let mut message = message.0;
        validate::check(&message, &self.known())?;
        if self.replaying {
            return Err(Rejected::Starting);
        }
        self.admit(&message)?;
        self.rouse_for(&message);
        if fault::active(Fault::OldAppendTruncates) && message.get_msg_type() == MessageType::MsgAppend {
            self.truncate_by_mistake(&message);
        }
        // Before raft-rs sees it, which sends more at once if it may.
        self.made_room(&message);
        self.agreed_to_sleep(&mut message);
        let sleep = self.asked_to_sleep(&mut message);
        // What raft-rs refuses here it refuses because nothing is to be done.
        let _ = self.node.step(message);
        self.settle();
        self.fall_asleep_following(sleep);
        self.fall_asleep_leading();
        Ok(())
    }

    /// What a message is held against.
    pub(super) fn known(&self) -> Known<'_> {
        Known {
            replica: self.config.replica.get(),
            membership: &self.membership,
            last: self.node.raft.raft_log.last_index(),
            content: self.content,
            term: self.node.raft.term,
            leads: self.node.raft.state == StateRole::Leader,
            max_message_bytes: self.config.max_message_bytes,
            max_entry_bytes: self.config.max_entry_bytes,
        }
    }

    /// A follower answers: so much less is on its way to it.
    fn made_room(&mut self, message: &eraftpb::Message) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || message.term != raft.term {
            return;
        }
        let (from, bound) = (message.from, self.config.max_inflight_bytes);
        self.heard.note(from, self.now);
        let change = match message.get_msg_type() {
            MessageType::MsgAppendResponse if message.reject => self.inflight.lost(from),
            MessageType::MsgAppendResponse => self.inflight.acknowledged(from, message.index, bound),
            MessageType::MsgHeartbeatResponse => self.inflight.heard(from, bound),
            _ => Change::None,
        };
        self.pace(from, change);
    }

    /// Time passes, unless it sleeps.
    pub fn tick(&mut self) {
        if self.sleep().is_some() {
            return;
        }
        self.now += 1;
        self.proposals.expire(self.now, &mut self.answers);
        self.reads.tick(self.now, self.config.election_ticks as u64, &mut self.answers);
        let leads = self.node.raft.state == StateRole::Leader;
        // A sole voter elects itself at once; raft-rs panics if it does so while entries are not durable.
        let must_wait = self.is_sole_voter() && !leads && self.is_writing();
        self.age_captured();
        self.watch_followers();
        self.tick_health();
        self.advance_check();
        if self.replaying || must_wait || self.takeover.is_some() {
            return self.settle();
        }
        self.hold_back();
        if self.node.tick() && !leads {
            self.elections += 1;
        }
        self.settle();
        self.doze();
    }

    /// Stands for election now, without waiting for the time-out: for a group that was just made.
    pub fn campaign(&mut self) {
        self.rouse();
        let can = !self.replaying && !self.is_writing() && self.takeover.is_none() && self.node.raft.promotable();
        if !can || !self.may_lead() {
            return;
        }
        self.elections += 1;
        // It refuses only what is none of its business.
        let _ = self.node.campaign();
        self.settle();
    }

    /// Proposes a command. The answer comes with [`Committed::request`](super::Committed::request), or as an [`Answer`].
    pub fn propose(&mut self, request: RequestId, command: Vec<u8>, attempt: Option<Attempt>) {
        self.rouse();
        let context = attempt.map_or(Context::Plain, Context::Once);
        if let Err(refusal) = self.try_propose(Some(request), command, context) {
            self.answers.push(Answer::Refused(request, refusal));
        }
    }

    pub(super) fn try_propose(
        &mut self,
        request: Option<RequestId>,
        data: Vec<u8>,
        context: Context,
    ) -> Result<(), Refusal> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Err(Refusal::NotLeader { leader: self.leader() });
        }
        if raft.lead_transferee.is_some() {
            return Err(Refusal::Transferring);
        }
        if self.health.unhealthy().is_some() {
            return Err(Refusal::Unhealthy);
        }
        if data.len() > self.config.max_entry_bytes {
            return Err(Refusal::TooLarge);
        }
        let full = self.proposals.len() >= self.config.max_waiting_requests
            || self.unapplied_bytes() >= self.config.max_unapplied_bytes;
        if full || self.node.propose(context.encode(), data).is_err() {
            return Err(Refusal::Busy);
        }
        if let Some(request) = request {
            let raft = &self.node.raft;
            let position = Position::new(raft.raft_log.last_index(), raft.term);
            self.proposals.push(position, request, self.now + self.config.request_ticks);
        }
        Ok(())
    }

    /// Asks from where on the state machine here shows everything that was acknowledged before, anywhere (ReadIndex,
    /// Raft thesis 6.4). All that ask before the next effects are answered by one round to the quorum.
    pub fn read(&mut self, request: RequestId) {
        self.rouse();
        let is_wrong = self.health.unhealthy().is_some() || self.health.is_being_replaced();
        if is_wrong && !fault::active(Fault::MarkedReads) {
            self.answers.push(Answer::Refused(request, Refusal::Unhealthy));
            return;
        }
        if self.reads.len() >= self.config.max_waiting_requests {
            self.answers.push(Answer::Refused(request, Refusal::Busy));
            return;
        }
        if self.read_by_lease(request) {
            return;
        }
        self.reads.push(request, self.now + self.config.request_ticks);
    }

    /// Hands leadership to another voter. It has happened when the status says so.
    ///
    /// # Errors
    /// Nothing was begun.
    pub fn transfer_leader(&mut self, to: ReplicaId) -> Result<(), Refusal> {
        self.rouse();
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Err(Refusal::NotLeader { leader: self.leader() });
        }
        if to == self.config.replica || !self.membership.voters.contains(&to) {
            return Err(Refusal::NoSuchVoter);
        }
        // One that failed is not repeated at once: each stops proposals for up to an election time-out.
        if raft.lead_transferee.is_some() || self.now < self.transfer_not_before {
            return Err(Refusal::Transferring);
        }
        if self.checks.suspects(to.get()) {
            return Err(Refusal::Unhealthy);
        }
        let lag = raft.raft_log.last_index().saturating_sub(self.matched(to.get()));
        if lag > self.config.max_transfer_lag {
            return Err(Refusal::TooFarBehind { lag });
        }
        self.transfer_not_before = self.now + 2 * self.config.election_ticks as u64;
        self.void_lease();
        self.node.transfer_leader(to.get());
        self.settle();
        Ok(())
    }

    /// A write is done, and all before it: durable if it had to be.
    pub fn persisted(&mut self, id: PersistId) {
        if let Some(ready) = self.persisting.done(id) {
            self.node.on_persist_ready(ready);
        }
        self.takeover_written(id);
        self.settle();
    }

    /// Everything up to `through` is applied and visible; what is applied up to `durable` survives a crash, or is
    /// written before whatever is written from now on.
    pub fn applied(&mut self, through: LogIndex, durable: LogIndex) {
        // A snapshot may be of the entry that was applied last, in place of what was wrong.
        if through < self.applied || (through == self.applied && self.takeover.is_none()) {
            return;
        }
        self.applied = through;
        while self.applying.front().is_some_and(|(last, _)| *last <= through) {
            self.applying_bytes -= self.applying.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        self.node.advance_apply_to(through.get());
        self.takeover_applied(through);
        self.reads.applied(through, &mut self.answers);
        while self.compactions.front().is_some_and(|(at, _)| *at <= through) {
            let Some((_, to)) = self.compactions.pop_front() else { break };
            self.compaction_proposed = false;
            let durable = durable.min(through);
            let to = if fault::active(Fault::CompactBeyondApplied) { through } else { to.min(durable) };
            self.compact(to);
        }
        self.evict();
        self.propose_compaction();
        self.settle();
    }

    /// A part of the log that was asked for. Empty if it is gone.
    pub fn log_read(&mut self, read: &LogRead, entries: Vec<Entry>) {
        let start = read.range.start.get();
        let view = self.node.store();
        let is_there = start > view.truncated().index.get() && start <= self.node.raft.raft_log.persisted;
        if entries.is_empty() && is_there {
            // Asking again would give the same answer for ever.
            self.failure = Some(GroupError::Stored(format!("expected entry {start} in the log, found none")));
        }
        if self.replaying {
            self.replay_asked = false;
            let view = self.node.mut_store();
            view.append_replayed(entries);
            self.replaying = view.cached_to() <= view.last();
        } else {
            for context in self.node.mut_store().chunk_read(read.range.start, entries) {
                self.node.on_entries_fetched(context);
            }
        }
        self.settle();
    }

    /// What was sent to a replica lately did not arrive.
    pub fn unreachable(&mut self, replica: ReplicaId) {
        self.node.report_unreachable(replica.get());
        let change = self.inflight.lost(replica.get());
        self.pace(replica.get(), change);
        self.settle();
    }

    /// The replica stops: everyone who waits hears that nobody will say.
    pub fn stop(&mut self) -> Vec<Answer> {
        self.proposals.fail_all(&mut self.answers);
        self.reads.fail_all(&mut self.answers);
        std::mem::take(&mut self.answers)
    }

    /// After every input: what raft-rs would do behind our back, done our way.
    pub(super) fn settle(&mut self) {
        let timeout = self.election_timeout();
        let raft = &mut self.node.raft;
        if raft.randomized_election_timeout() != timeout {
            raft.set_randomized_election_timeout(timeout);
        }
        // The log does not say who founded the group: whoever joins it needs a snapshot.
        if self.membership.nodes.is_empty() && raft.raft_log.unstable_snapshot().is_none() {
            raft.pending_request_snapshot = ANY_SNAPSHOT;
        }
        let led = (raft.term, raft.leader_id, raft.state);
        if led != self.led {
            let led_before = self.led.2 == StateRole::Leader;
            self.led = led;
            self.reads.ask_again();
            self.compaction_proposed = false;
            self.heard.clear();
            self.end_lease();
            self.hibernation.stir();
            self.checks.leader_changed(self.now);
            if led_before || led.2 == StateRole::Leader {
                self.node.mut_store().forget_sends();
                for follower in self.inflight.clear() {
                    self.pace(follower, Change::Resume);
                }
            }
        }
    }

    /// Raft-rs draws it from a random number generator of its own; here it comes from the seed, so that a simulation
    /// can be repeated.
    fn election_timeout(&self) -> usize {
        let ticks = self.config.election_ticks;
        if !self.may_lead() {
            return 2 * ticks - 1;
        }
        let mixed = mix(self.seed ^ mix(self.node.raft.term ^ (self.elections << 32)) ^ self.config.replica.get());
        ticks + (mixed % ticks as u64) as usize
    }

    pub(super) fn pace(&mut self, follower: u64, change: Change) {
        let messages = match change {
            Change::None => return,
            Change::Pause => 0,
            Change::Resume => self.config.max_inflight_messages,
        };
        self.node.raft.adjust_max_inflight_msgs(follower, messages);
    }

    pub(super) fn matched(&self, replica: u64) -> u64 {
        self.node.raft.prs().get(replica).map_or(0, |progress| progress.matched)
    }

    pub(super) fn unapplied_bytes(&self) -> usize {
        self.applying_bytes
    }

    fn is_writing(&self) -> bool {
        !self.persisting.is_idle() || !self.node.raft.raft_log.unstable_entries().is_empty()
    }

    pub(super) fn is_sole_voter(&self) -> bool {
        self.membership.voters == [self.config.replica] && self.membership.voters_outgoing.is_empty()
    }

    pub(super) fn leader(&self) -> Option<ReplicaId> {
        let leader = self.node.raft.leader_id;
        (leader != 0).then(|| ReplicaId::new(leader))
    }

    fn truncate_by_mistake(&mut self, message: &eraftpb::Message) {
        let log = &mut self.node.raft.raft_log;
        if !message.entries.is_empty()
            && message.index >= log.committed
            && log.match_term(message.index, message.log_term)
        {
            log.append(&message.entries);
        }
    }

    /// Whether its state machine keeps its own position.
    pub fn keeps_own_position(&self) -> bool {
        self.content == Content::Machine
    }

    /// Which replica it is.
    pub fn replica(&self) -> ReplicaId {
        self.config.replica
    }

    /// The node of a replica of the group.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.membership.node_of(replica)
    }

    /// The replicas of the group that live on a node.
    pub fn replicas_on(&self, node: NodeId) -> Vec<ReplicaId> {
        let nodes = self.membership.nodes.iter();
        nodes.filter(|(_, lives_on)| **lives_on == node).map(|(replica, _)| *replica).collect()
    }
}

fn check_config(config: &GroupConfig, stored: &StoredGroup) -> Result<(), GroupError> {
    config.validate().map_err(|problems| GroupError::Config(problems.join("; ")))?;
    if config.replica == stored.replica {
        return Ok(());
    }
    let what = format!("replica {} is stored, replica {} was asked for", stored.replica, config.replica);
    Err(GroupError::Config(what))
}

fn check_stored(stored: &StoredGroup) -> Result<(), GroupError> {
    let violations = crate::raftstore::check::check_bounds(&stored.clone().with_applied_committed());
    if violations.is_empty() {
        return Ok(());
    }
    let what: Vec<String> = violations.iter().map(ToString::to_string).collect();
    Err(GroupError::Stored(what.join("; ")))
}

/// Raft-rs' defaults are unsafe for us: no pre-vote, no check of the quorum, no bounds.
fn raft_config(config: &GroupConfig, applied: LogIndex) -> raft::Config {
    raft::Config {
        id: config.replica.get(),
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        applied: applied.get(),
        max_size_per_msg: config.max_message_bytes as u64,
        max_inflight_msgs: config.max_inflight_messages,
        check_quorum: true,
        pre_vote: true,
        batch_append: true,
        priority: config.priority,
        max_uncommitted_size: config.max_uncommitted_bytes as u64,
        max_committed_size_per_ready: config.max_apply_batch_bytes as u64,
        ..raft::Config::default()
    }
}

/// A finaliser of SplitMix64 (Steele, Lea, Flood 2014): spreads a number over all bits.
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
