//! Consistency checks between driver, apply threads and the thread that hashes.
//!
//! An apply thread captures the state behind the entry that asks for it, and hands it over. One thread hashes one state after
//! the other, no faster than [`StoreConfig::check_bytes_per_second`](super::StoreConfig::check_bytes_per_second); few may
//! wait for it, since each holds on to what RocksDB would remove else. What has no room is not hashed, and its replica says
//! so.
//!
//! Each group that this node leads is checked about once in a [period](super::StoreConfig::check_period), one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::driver::{Driver, Outside, Slot};
use super::error::CheckError;
use super::handle::GroupHandle;
use super::mailbox::{Input, Mailbox};
use super::metrics;
use crate::ident::{GroupId, NodeId, ReplicaId};
use crate::net::throttle::Throttle;
use crate::raftstore::consistency::{CheckMessage, CheckRefusal, Digest, GivenUp, StateHasher, Verdict};
use crate::raftstore::group::{Effects, Group, Role};
use crate::raftstore::log_store::StoreError;
use crate::raftstore::message::Envelope;
use crate::raftstore::snapshot::{Captured, Pair, Place, SnapshotMeta};

/// States that may wait to be hashed.
const MAX_WAITING: usize = 16;
/// Bytes of a state read at once.
const PAGE_BYTES: usize = 256 << 10;
/// What a pause lets through at once.
const BURST: Duration = Duration::from_millis(50);
/// Between two looks for a group whose check is due.
const LOOK: Duration = Duration::from_secs(1);

/// A state to be hashed.
pub(super) struct HashTask {
    pub(super) group: GroupId,
    pub(super) captured: Box<dyn Captured>,
}

/// Where states to be hashed go, and where they are taken out.
pub(super) fn hash_queue() -> (SyncSender<HashTask>, Receiver<HashTask>) {
    sync_channel(MAX_WAITING)
}

/// Hashes until the apply threads are gone, or it is stopped.
pub(super) struct HashThread {
    pub(super) tasks: Receiver<HashTask>,
    pub(super) mailbox: Mailbox,
    pub(super) bytes_per_second: u64,
    /// Nothing comes here; it ends when the raftstore is stopped.
    pub(super) stop: Receiver<()>,
}

/// Why a state was not hashed.
enum Unhashed {
    Stopped,
    Store(StoreError),
}

impl From<StoreError> for Unhashed {
    fn from(error: StoreError) -> Unhashed {
        Unhashed::Store(error)
    }
}

impl HashThread {
    pub(super) fn run(self) {
        while let Ok(HashTask { group, captured }) = self.tasks.recv() {
            let at = captured.meta().position.index;
            let begun = Instant::now();
            let digest = match self.hash(&*captured) {
                Ok(digest) => Some(digest),
                Err(Unhashed::Stopped) => return,
                Err(Unhashed::Store(error)) => {
                    tracing::error!(%group, %at, %error, "the state of a group could not be read to be hashed");
                    if let StoreError::Damaged { .. } = error {
                        self.mailbox.tell(Input::Damaged { group, at, error });
                    }
                    None
                }
            };
            metrics::hashed(begun.elapsed());
            self.mailbox.tell(Input::Hashed { group, at, digest });
        }
    }

    fn hash(&self, captured: &dyn Captured) -> Result<Digest, Unhashed> {
        let mut hasher = StateHasher::new(captured.meta());
        let mut throttle = Throttle::new(self.bytes_per_second, BURST, Instant::now());
        let mut after = None;
        loop {
            let pairs = captured.read(after.as_ref(), PAGE_BYTES)?;
            let Some(last) = pairs.last() else { return Ok(hasher.finish()) };
            hasher.add(&pairs);
            let bytes: usize = pairs.iter().map(|pair| pair.size_bytes()).sum();
            after = Some(last.place.clone());
            let now = Instant::now();
            let pause = throttle.book(bytes as u64, now).saturating_duration_since(now);
            match self.stop.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return Err(Unhashed::Stopped),
            }
        }
    }
}

/// Who waits for a check.
pub(super) type CheckWaiter = oneshot::Sender<Result<Verdict, CheckError>>;

/// When groups are checked.
pub(super) struct Schedule {
    /// Zero: never by itself.
    period: Duration,
    next_look: Instant,
    /// When each is due.
    due: BTreeMap<GroupId, Instant>,
    /// The one that this node has begun by itself.
    running: Option<GroupId>,
}

impl Schedule {
    pub(super) fn new(period: Duration) -> Schedule {
        Schedule { period, next_look: Instant::now(), due: BTreeMap::new(), running: None }
    }

    /// A group is open. Groups that are opened together are not due together: each has a place of its own in the period.
    pub(super) fn opened(&mut self, group: GroupId) {
        let place = u32::try_from(group.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or_default();
        let first = self.period.mul_f64(f64::from(place) / f64::from(u32::MAX));
        self.due.insert(group, Instant::now() + first);
    }

    pub(super) fn closed(&mut self, group: GroupId) {
        self.due.remove(&group);
        self.running.take_if(|running| *running == group);
    }

    /// A group was checked, whoever asked for it.
    fn checked(&mut self, group: GroupId) {
        if let Some(due) = self.due.get_mut(&group) {
            *due = Instant::now() + self.period;
        }
        self.running.take_if(|running| *running == group);
    }

    /// The groups that are due, if it is time to look.
    fn look(&mut self) -> Vec<GroupId> {
        let now = Instant::now();
        if self.period.is_zero() || now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + LOOK.min(self.period);
        self.due.iter().filter(|(_, due)| **due <= now).map(|(group, _)| *group).collect()
    }
}

impl Driver {
    /// Begins the next check that is due, with each tick.
    pub(super) fn schedule_checks(&mut self) {
        let due = self.schedule.look();
        // One that was begun here and that another has to finish is forgotten.
        if let Some(running) = self.schedule.running {
            if self.leads(running) {
                return;
            }
            self.schedule.running = None;
        }
        for group in due {
            if !self.leads(group) {
                continue;
            }
            match self.running(group).map(Group::check_consistency) {
                Some(Ok(())) => {
                    self.schedule.checked(group);
                    self.schedule.running = Some(group);
                    return;
                }
                Some(Err(CheckRefusal::KeepsOwnPosition)) => self.schedule.closed(group),
                // It is tried again with the next look.
                _ => {}
            }
        }
    }

    fn leads(&self, group: GroupId) -> bool {
        let raft = self.groups.get(&group).and_then(|slot| slot.group.as_ref());
        raft.is_some_and(|raft| raft.positions().role == Role::Leader)
    }

    pub(super) fn check(&mut self, group: GroupId, waiter: CheckWaiter) {
        let Some(slot) = self.slot(group) else {
            drop(waiter.send(Err(super::driver::destroyed(group).into())));
            return;
        };
        let begun = match &mut slot.group {
            None => Err(slot.stopped().into()),
            Some(raft) => raft.check_consistency().map_err(|refusal| slot.unchecked(refusal)),
        };
        match begun {
            Ok(()) => slot.checks.push(waiter),
            // Whoever asked may have gone.
            Err(error) => drop(waiter.send(Err(error))),
        }
    }

    /// A replica says something about a check.
    pub(super) fn check_said(&mut self, from: NodeId, envelope: &Envelope) {
        let Some(message) = CheckMessage::decode(&envelope.message) else { return metrics::shed("garbage") };
        let Some(slot) = self.slot(envelope.group) else { return metrics::shed("refused") };
        // A node speaks for the replicas that live on it.
        let speaks = slot.node_of(envelope.from) == Some(from);
        match slot.group.as_mut().filter(|raft| speaks && raft.replica() == envelope.to) {
            Some(raft) => raft.check_said(envelope.from, message),
            None => metrics::shed("refused"),
        }
    }

    /// What became of a check.
    pub(super) fn note_checked(&mut self, group: GroupId) {
        self.schedule.checked(group);
    }
}

impl Slot {
    fn unchecked(&self, refusal: CheckRefusal) -> CheckError {
        match refusal {
            CheckRefusal::NotLeader { leader } => {
                CheckError::NotLeader { leader: leader.and_then(|leader| self.node_of(leader)) }
            }
            CheckRefusal::Busy => CheckError::Busy,
            refusal => CheckError::Refused(refusal),
        }
    }

    /// Sends what a check says, and tells who waits what became of it. Says whether one has ended.
    pub(super) fn carry_out_checks(&mut self, group: GroupId, effects: &mut Effects, outside: &Outside) -> bool {
        for (to, message) in std::mem::take(&mut effects.checks) {
            let (Some(node), Some(raft)) = (self.node_of(to), &self.group) else { continue };
            let envelope = Envelope { group, from: raft.replica(), to, message: message.encode() };
            // Whoever misses it asks again.
            let _ = outside.transport.send(node, envelope);
        }
        let Some(checked) = effects.checked.take() else { return false };
        note(group, &checked);
        for waiter in self.checks.drain(..) {
            // Whoever asked may have gone.
            let _ = waiter.send(checked.clone().map_err(CheckError::GivenUp));
        }
        true
    }
}

/// Says what became of a check, once on each node.
fn note(group: GroupId, checked: &Result<Verdict, GivenUp>) {
    let outcome = match checked {
        Err(given_up) => {
            tracing::warn!(%group, "{given_up}");
            "given_up"
        }
        Ok(verdict) if verdict.right.is_none() => {
            let digests = &verdict.digests;
            tracing::error!(%group, index = %verdict.index, ?digests, "replicas differ, and no majority agrees: nobody can say which is right, and nothing is repaired");
            "undecided"
        }
        Ok(verdict) if !verdict.is_good() => {
            let differing: Vec<String> = verdict.differing().iter().map(ReplicaId::to_string).collect();
            let differing = differing.join(", ");
            tracing::error!(%group, index = %verdict.index, %differing, "replicas differ from the majority: they do not lead until a snapshot has replaced what they hold");
            "differs"
        }
        Ok(verdict) => {
            tracing::debug!(%group, index = %verdict.index, missing = ?verdict.missing, "the replicas agree");
            "agrees"
        }
    };
    metrics::checked(outcome);
}

impl GroupHandle {
    /// Compares what all replicas of the group hold, as of one entry, while everything goes on, and says what that has shown
    /// ([how](crate::raftstore::consistency)). A replica that differs from the majority does not lead until a snapshot has
    /// replaced what it holds, which it asks for by itself. Only the leader does that. If a check is under way, it is waited
    /// for.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub async fn check_consistency(&self, patience: Duration) -> Result<Verdict, CheckError> {
        let (waiter, checked) = oneshot::channel();
        self.mailbox.tell(Input::Check { group: self.group, waiter });
        match timeout(patience, checked).await {
            Ok(Ok(checked)) => checked,
            Ok(Err(_)) => Err(self.stopped().into()),
            Err(_) => Err(CheckError::Expired),
        }
    }
}

/// Wraps a captured state, so that damage met by whoever reads it is heard of.
pub(super) struct Overheard {
    pub(super) captured: Arc<dyn Captured>,
    pub(super) group: GroupId,
    pub(super) mailbox: Mailbox,
}

impl Captured for Overheard {
    fn meta(&self) -> &SnapshotMeta {
        self.captured.meta()
    }

    fn read(&self, after: Option<&Place>, limit_bytes: usize) -> Result<Vec<Pair>, StoreError> {
        self.captured.read(after, limit_bytes).inspect_err(|error| {
            if let StoreError::Damaged { .. } = error {
                let at = self.captured.meta().position.index;
                self.mailbox.tell(Input::Damaged { group: self.group, at, error: error.clone() });
            }
        })
    }
}
