//! The driver of all groups of a node: it takes inputs out of the mailbox and carries out what follows. Nothing in it waits. Who
//! turns it is for [`seat`](super::seat) to say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::apply::{ApplyItem, ApplyTask};
use super::checks::{CheckWaiter, Schedule};
use super::clock::TickClock;
use super::error::{GroupFailure, ProposeError, ReadError, StoreStopped};
use super::handle::{GroupView, ProposalWaiter, ReadWaiter};
use super::health::{GroupTrouble, Troubles, Watched, show};
use super::hibernation::Lives;
use super::mailbox::{Closing, Input, Mailbox, Share, Waiting};
use super::membership::Met;
use super::metrics;
use super::persist::{PersistTask, ReadTask, Workers};
use super::snapshots::Filling;
use super::turn::Turn;
use crate::ident::{GroupId, LogIndex, NodeId, ReplicaId};
use crate::raftstore::context::Attempt;
use crate::raftstore::group::{Answer, Committed, Effects, Group, Refusal, Rejected, RequestId, Role};
use crate::raftstore::message::Message;
use crate::raftstore::sessions::Sessions;
use crate::raftstore::snapshot::Captured;
use crate::raftstore::state_machine::StateMachine;
use crate::raftstore::transport::Transport;

/// Inputs taken before their effects are carried out.
const MAX_INPUTS_PER_TURN: usize = 4096;

/// A group on its way into the driver.
pub(super) struct OpenedGroup {
    pub(super) id: GroupId,
    pub(super) group: Group,
    pub(super) machine: Box<dyn StateMachine>,
    pub(super) sessions: Option<Sessions>,
    pub(super) own: Option<LogIndex>,
    pub(super) noted: LogIndex,
    pub(super) is_broken: bool,
    pub(super) view: watch::Sender<GroupView>,
    pub(super) max_command_bytes: usize,
    pub(super) share: Share,
}

/// See the module.
pub(super) struct Driver {
    pub(super) receiver: Receiver<Input>,
    pub(super) waiting: Arc<Waiting>,
    pub(super) outside: Outside,
    pub(super) tick: Duration,
    pub(super) next_tick: Instant,
    pub(super) max_queued_bytes: usize,
    pub(super) failure: watch::Sender<Option<Arc<GroupFailure>>>,
    pub(super) groups: BTreeMap<GroupId, Slot>,
    /// Those of them that something happened to, each once.
    pub(super) dirty: Vec<GroupId>,
    /// Those that time passes for.
    pub(super) awake: BTreeSet<GroupId>,
    pub(super) lives: Lives,
    pub(super) next_request: u64,
    pub(super) clock: TickClock,
    pub(super) schedule: Schedule,
    /// The disk makes no progress.
    pub(super) is_stalled: bool,
    pub(super) watched: Watched,
}

/// What the driver reaches.
pub(super) struct Outside {
    pub(super) workers: Workers,
    pub(super) transport: Arc<dyn Transport>,
    /// Bytes handed to the persist thread and not written.
    pub(super) queued_bytes: Arc<AtomicUsize>,
    /// Its own, for what comes back.
    pub(super) mailbox: Mailbox,
    pub(super) troubles: Troubles,
}

/// A group and who waits for what of it.
pub(super) struct Slot {
    name: String,
    /// `None` once it has failed.
    pub(super) group: Option<Group>,
    pub(super) proposals: HashMap<RequestId, ProposalWaiter>,
    reads: HashMap<RequestId, ReadWaiter>,
    view: watch::Sender<GroupView>,
    max_command_bytes: usize,
    share: Share,
    /// Its state as captured last, for followers that are far behind.
    pub(super) captured: Option<Arc<dyn Captured>>,
    /// Who waits for a consistency check.
    pub(super) checks: Vec<CheckWaiter>,
    /// What is wrong here, as shown last.
    pub(super) trouble: Option<GroupTrouble>,
    pub(super) met: Met,
    /// A snapshot that is being filled for it.
    pub(super) filling: Option<Filling>,
    /// It stands in the driver's list.
    pub(super) is_dirty: bool,
}

impl Driver {
    /// Takes what is in the mailbox, ticks if it is time, and carries out what follows. `None`: it has stopped.
    pub(super) fn turn_and_tick(self: Box<Driver>) -> Option<Box<Driver>> {
        self.turn_round(MAX_INPUTS_PER_TURN, true)
    }

    /// The same between ticks, with so many inputs at most.
    pub(super) fn turn_inputs(self: Box<Driver>, most: usize) -> Option<Box<Driver>> {
        self.turn_round(most, false)
    }

    fn turn_round(mut self: Box<Driver>, most: usize, may_tick: bool) -> Option<Box<Driver>> {
        self.watched.begin();
        let mut taken = 0;
        while taken < most
            && let Ok(next) = self.receiver.try_recv()
        {
            self.taken(&next);
            if let Input::Stop(failure) = next {
                self.stop(failure);
                return None;
            }
            taken += next.len();
            self.take(next);
        }
        if taken >= most {
            // There may be more.
            self.outside.mailbox.call_driver();
        }
        let now = Instant::now();
        let ticks = may_tick && now >= self.next_tick;
        if ticks {
            // After a pause time does not pass all at once: what arrived meanwhile is heard first.
            self.next_tick = now + self.tick;
            metrics::queues(&self.waiting, self.outside.queued_bytes.load(Ordering::Relaxed));
        }
        if let Err(failure) = self.turn(ticks) {
            self.stop(failure);
            return None;
        }
        self.watched.end();
        Some(self)
    }

    /// An input is out of the mailbox.
    fn taken(&self, input: &Input) {
        self.waiting.taken(input);
        if let Some(slot) = input.requests().and_then(|group| self.groups.get(&group)) {
            slot.share.taken();
        }
    }

    /// Ticks if it is time, and carries out the effects of all that came in.
    fn turn(&mut self, ticks: bool) -> Result<(), Arc<GroupFailure>> {
        let now = if ticks { self.clock.thousandths() } else { 0 };
        if ticks {
            self.tick_lives();
            self.schedule_checks();
        }
        let mut turned = std::mem::take(&mut self.dirty);
        if ticks {
            turned.extend(&self.awake);
            turned.sort_unstable();
            turned.dedup();
        }
        let mut turn = Turn::default();
        for id in turned {
            let Some(slot) = self.groups.get_mut(&id) else { continue };
            slot.is_dirty = false;
            let Some(group) = &mut slot.group else { continue };
            if ticks {
                group.clock(now);
                group.speak_as(self.lives.own());
                group.tick();
            }
            let mut effects = match group.effects() {
                Ok(effects) => effects,
                Err(source) => {
                    self.fail(id, Arc::new(GroupFailure::Group { group: id, source }));
                    continue;
                }
            };
            let is_checked = slot.carry_out_checks(id, &mut effects, &self.outside);
            slot.carry_out(id, effects, &mut turn, &self.outside)?;
            if ticks {
                slot.age_filling(id, &self.outside);
            }
            slot.publish(id, ticks, &self.outside);
            if slot.is_dirty {
                self.dirty.push(id);
            }
            if is_checked {
                self.note_checked(id);
            }
            self.lull(id);
        }
        self.hand_out(turn)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Propose { group, command, attempt, waiter } => self.propose(group, command, attempt, waiter),
            Input::Read { group, waiter } => self.read(group, waiter),
            Input::Change { group, change, waiter } => self.change(group, &change, waiter),
            Input::Removed { from, envelope } => self.removed(from, &envelope),
            Input::Messages { from, messages } => {
                messages.into_iter().for_each(|(group, message)| self.receive(from, group, message));
            }
            Input::Unreachable(node) => self.unreachable(node),
            Input::Transfer { group, to, answer } => {
                let refused = Err(Refusal::NotLeader { leader: None });
                let result = self.running(group).map_or(refused, |raft| raft.transfer_leader(to));
                // Whoever asked may have gone.
                let _ = answer.send(result);
            }
            Input::Campaign(group) => self.with(group, Group::campaign),
            Input::Persisted(done) => {
                for (group, id) in done {
                    self.with(group, |raft| raft.persisted(id));
                }
            }
            Input::Applied(done) => {
                for (group, through, durable) in done {
                    self.with(group, |raft| raft.applied(through, durable));
                }
            }
            Input::ApplyFailed { group, failure } => {
                self.cannot_apply(group, failure);
            }
            Input::LogRead { group, read, entries } => self.with(group, |raft| raft.log_read(&read, entries)),
            Input::Offer(offer) => self.offered(*offer),
            Input::Filled { group, message } => self.filled(group, *message),
            Input::Captured { group, captured } => self.captured(group, captured),
            Input::SnapshotSent { group, to, arrived } => self.snapshot_sent(group, to, arrived),
            Input::Check { group, waiter } => self.check(group, waiter),
            Input::CheckSaid { from, envelope } => self.check_said(from, &envelope),
            Input::Hashed { group, at, digest } => self.with(group, |raft| raft.hashed(at, digest)),
            Input::Damaged { group, at, error } => self.damaged(group, at, error),
            Input::LogDamaged { group, error } => {
                tracing::error!(%group, %error, "the log of a group is damaged; the group stops here");
                self.fail(group, Arc::new(GroupFailure::Damaged { group, source: error }));
            }
            Input::Stalled(is_stalled) => self.stalled(is_stalled),
            Input::Open(opened) => self.open(*opened),
            Input::Destroy(closing) => self.close(closing),
            // A worker that is gone says so by its own.
            Input::NothingToApply(closing) => drop(self.outside.workers.log_reader.send(ReadTask::Close(closing))),
            Input::NothingToRead(closing) => drop(self.outside.workers.persist.send(PersistTask::Destroy(closing))),
            // Taken by the loop.
            Input::Stop(_) => {}
        }
    }

    fn propose(&mut self, group: GroupId, command: Vec<u8>, attempt: Option<Attempt>, waiter: ProposalWaiter) {
        metrics::taken(waiter.since.elapsed());
        let request = self.request();
        let is_full = self.is_persist_queue_full();
        let Some(slot) = self.slot(group) else { return waiter.resolve(Err(destroyed(group).into())) };
        match &mut slot.group {
            None => waiter.resolve(Err(slot.stopped().into())),
            Some(_) if is_full => waiter.resolve(Err(ProposeError::Busy)),
            Some(raft) => {
                slot.proposals.insert(request, waiter);
                raft.propose(request, command, attempt);
            }
        }
    }

    fn read(&mut self, group: GroupId, waiter: ReadWaiter) {
        metrics::taken(waiter.since.elapsed());
        let clock = self.clock;
        let request = self.request();
        let Some(slot) = self.slot(group) else { return waiter.resolve(Err(destroyed(group).into())) };
        match &mut slot.group {
            None => waiter.resolve(Err(slot.stopped().into())),
            Some(raft) => {
                slot.reads.insert(request, waiter);
                // After a pause a lease may be over: looked at for each read.
                raft.clock(clock.thousandths());
                raft.read(request);
            }
        }
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// Something happens to a group: it wakes.
    pub(super) fn slot(&mut self, group: GroupId) -> Option<&mut Slot> {
        self.wake(group);
        let slot = self.groups.get_mut(&group)?;
        if !std::mem::replace(&mut slot.is_dirty, true) {
            self.dirty.push(group);
        }
        Some(slot)
    }

    /// A group that failed needs no news.
    fn with(&mut self, group: GroupId, act: impl FnOnce(&mut Group)) {
        if let Some(raft) = self.running(group) {
            act(raft);
        }
    }

    pub(super) fn running(&mut self, group: GroupId) -> Option<&mut Group> {
        self.slot(group)?.group.as_mut()
    }

    fn is_persist_queue_full(&self) -> bool {
        self.outside.queued_bytes.load(Ordering::Relaxed) > self.max_queued_bytes
    }

    fn receive(&mut self, from: NodeId, group: GroupId, message: Message) {
        let is_full = self.is_persist_queue_full();
        if self
            .groups
            .get(&group)
            .and_then(|slot| slot.group.as_ref())
            .is_some_and(|raft| raft.sleeps_through(&message))
        {
            return;
        }
        let Some(slot) = self.slot(group) else { return metrics::shed("refused") };
        let sender = message.from();
        // A node speaks for the replicas that live on it.
        let speaks = slot.node_of(sender).is_none_or(|node| node == from);
        let Some(raft) = slot.group.as_mut().filter(|_| speaks) else { return metrics::shed("refused") };
        if is_full && message.entries_size_bytes() > 0 {
            return metrics::shed("message");
        }
        let is_known = raft.node_of(sender).is_some();
        let result = raft.step(message);
        match result {
            Ok(()) if is_known => {}
            Ok(()) => slot.met.note(sender, from),
            Err(error) => {
                metrics::shed("refused");
                tracing::debug!(%group, %from, %error, "dropped a message");
                if error == Rejected::Removed
                    && let Some(slot) = self.groups.get(&group)
                {
                    slot.tell_removed(group, sender, from, &self.outside);
                }
            }
        }
    }

    fn unreachable(&mut self, node: NodeId) {
        // Nothing is on its way to replicas of a group that sleeps.
        for id in &self.awake {
            let Some(slot) = self.groups.get_mut(id) else { continue };
            let Some(raft) = &mut slot.group else { continue };
            if !std::mem::replace(&mut slot.is_dirty, true) {
                self.dirty.push(*id);
            }
            for replica in raft.replicas_on(node) {
                raft.unreachable(replica);
            }
        }
    }

    fn open(&mut self, opened: OpenedGroup) {
        let OpenedGroup { id, mut group, machine, sessions, own, noted, is_broken, view, max_command_bytes, share } =
            opened;
        // The apply thread goes only after us.
        let task = ApplyTask::Open { group: id, machine, sessions, own, noted, is_broken };
        let _ = self.outside.workers.apply(id).send(task);
        group.stall(self.is_stalled);
        self.schedule.opened(id);
        let slot = Slot {
            name: id.to_string(),
            group: Some(group),
            proposals: HashMap::new(),
            reads: HashMap::new(),
            view,
            max_command_bytes,
            share,
            captured: None,
            checks: Vec::new(),
            trouble: None,
            filling: None,
            met: Met::default(),
            is_dirty: true,
        };
        self.groups.insert(id, slot);
        self.dirty.push(id);
        self.awake.insert(id);
    }

    /// From here on the group hears nothing, and hands out nothing.
    fn close(&mut self, closing: Closing) {
        self.fail(closing.group, Arc::new(GroupFailure::Destroyed(closing.group)));
        self.groups.remove(&closing.group);
        self.schedule.closed(closing.group);
        show(&self.outside.troubles, closing.group, None);
        drop(self.outside.workers.apply(closing.group).send(ApplyTask::Close(closing)));
    }

    fn stop(mut self: Box<Driver>, failure: Arc<GroupFailure>) {
        // Said first: whoever hears "unknown" and looks for the reason finds it.
        self.failure.send_replace(Some(Arc::clone(&failure)));
        for slot in self.groups.values_mut() {
            slot.fail(Arc::clone(&failure));
        }
        // What came meanwhile was not proposed, and says so. What comes after this hears "unknown", which is no lie.
        while let Ok(input) = self.receiver.try_recv() {
            self.waiting.taken(&input);
            let stopped = StoreStopped(Arc::clone(&failure));
            match input {
                Input::Propose { waiter, .. } => waiter.resolve(Err(stopped.into())),
                Input::Read { waiter, .. } => waiter.resolve(Err(stopped.into())),
                _ => {}
            }
        }
    }
}

impl Slot {
    fn carry_out(
        &mut self,
        id: GroupId,
        effects: Effects,
        turn: &mut Turn,
        outside: &Outside,
    ) -> Result<(), Arc<GroupFailure>> {
        let workers = &outside.workers;
        for message in effects.send {
            self.send(id, message, turn, outside);
        }
        turn.write(id, effects.persist, outside);
        if let Some(index) = effects.restored {
            // At once: what was applied before it was handed over in earlier turns, what comes behind it is not yet.
            let task = ApplyTask::Restore { group: id, index };
            workers.apply(id).send(task).map_err(|_| Arc::new(GroupFailure::Panicked("apply")))?;
        }
        let items = effects.apply.into_iter().map(|committed| self.item(committed)).collect();
        turn.apply(id, items, outside);
        for read in effects.read_log {
            workers
                .log_reader
                .send(ReadTask::Read(id, read))
                .map_err(|_| Arc::new(GroupFailure::Panicked("log reader")))?;
        }
        self.capture(id, effects.capture, effects.release, outside);
        for answer in effects.answers {
            self.answer(answer);
        }
        Ok(())
    }

    fn item(&mut self, committed: Committed) -> ApplyItem {
        let waiter = committed.request.and_then(|request| self.proposals.remove(&request));
        if let Some(waiter) = &waiter {
            metrics::committed(waiter.since.elapsed());
        }
        let Committed { entry, compact_to, membership, hash, unhealthy, .. } = committed;
        ApplyItem { entry, compacts: compact_to.is_some(), membership, hash, unhealthy, waiter }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Readable(request, index) => {
                if let Some(waiter) = self.reads.remove(&request) {
                    metrics::read_done(waiter.since.elapsed());
                    waiter.resolve(Ok(index));
                }
            }
            Answer::Unknown(request) => {
                if let Some(waiter) = self.proposals.remove(&request) {
                    let why = "it was not committed in time";
                    waiter.resolve(Err(ProposeError::Unknown { why }));
                }
            }
            Answer::Refused(request, refusal) => {
                if let Some(waiter) = self.proposals.remove(&request) {
                    waiter.resolve(Err(self.refused(refusal)));
                } else if let Some(waiter) = self.reads.remove(&request) {
                    waiter.resolve(Err(match refusal {
                        Refusal::Busy => ReadError::Busy,
                        Refusal::Unhealthy => ReadError::Unhealthy,
                        _ => ReadError::Expired,
                    }));
                }
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> ProposeError {
        match refusal {
            Refusal::NotLeader { leader } => {
                ProposeError::NotLeader { leader: leader.and_then(|leader| self.node_of(leader)) }
            }
            Refusal::Unhealthy => ProposeError::NotLeader { leader: None },
            Refusal::Change(refusal) => ProposeError::Change(refusal),
            Refusal::TooLarge => ProposeError::TooLarge { limit_bytes: self.max_command_bytes },
            _ => ProposeError::Busy,
        }
    }

    pub(super) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let known = self.group.as_ref().and_then(|raft| raft.node_of(replica));
        known.or_else(|| self.met.node_of(replica))
    }

    /// Shows how the group stands: at once if another leads, it wakes or falls asleep, or is well or not, else with each tick.
    pub(super) fn publish(&mut self, id: GroupId, ticks: bool, outside: &Outside) {
        self.note_trouble(id, outside);
        let Some(raft) = &self.group else { return };
        let (now, is_asleep, unhealthy) = (raft.positions(), raft.sleep().is_some(), raft.unhealthy());
        let (shown, was) = {
            let view = self.view.borrow();
            (view.status.positions, (view.status.is_asleep, view.status.unhealthy))
        };
        let changed =
            (now.term, now.leader, now.role) != (shown.term, shown.leader, shown.role) || (is_asleep, unhealthy) != was;
        if !changed && !ticks {
            return;
        }
        let status = raft.status();
        if now.leader.is_some() && now.leader != shown.leader {
            metrics::leader_changed(&self.name);
        }
        if ticks && now.role == Role::Leader {
            metrics::group(&self.name, &status);
        }
        self.view.send_replace(GroupView { status, failure: None });
    }

    pub(super) fn stopped(&self) -> StoreStopped {
        let failure = self.view.borrow().failure.clone();
        StoreStopped(failure.unwrap_or_else(|| Arc::new(GroupFailure::ShutDown)))
    }

    /// The group stops here. Proposals that wait may still take effect elsewhere.
    pub(super) fn fail(&mut self, failure: Arc<GroupFailure>) {
        self.group = None;
        self.captured = None;
        self.view.send_modify(|view| {
            view.failure = Some(failure);
            view.status.positions.role = Role::Follower;
        });
        let stopped = self.stopped();
        for (_, waiter) in self.proposals.drain() {
            waiter.resolve(Err(ProposeError::Unknown { why: "the group stopped on this node" }));
        }
        for (_, waiter) in self.reads.drain() {
            waiter.resolve(Err(stopped.clone().into()));
        }
        // Whoever waits for a check sees that the group has stopped.
        self.checks.clear();
    }
}

/// Only a group that was destroyed has handles and no slot.
pub(super) fn destroyed(group: GroupId) -> StoreStopped {
    StoreStopped(Arc::new(GroupFailure::Destroyed(group)))
}
