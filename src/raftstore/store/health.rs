//! How the raftstore is, and the watchdog: a thread that looks whether the others get on.
//!
//! A write of the log that does not come back fails nothing by itself; everybody waits for it, and a leader goes on sending
//! heartbeats meanwhile, so that nobody takes over. So each thread notes when it begins something, and when one thing takes
//! longer than [`stall_limit`](super::StoreConfig::stall_limit), the watchdog says so: in a line of the log, a metric and
//! [`RaftStore::health`](super::RaftStore::health). Of a write of the log it tells the driver too, which gives all leadership
//! away: to whoever has most of a group's log, or, when that takes longer than an election time-out, by stepping down.
//! Until the disk moves again, none of this node's replicas stands for election.
//!
//! A driver that does not turn can do nothing of that. It sends no heartbeats either, so that the others elect somebody; and
//! the leases of its replicas end by the clock. A state machine that takes long takes as long on the next leader: that is
//! only said.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::driver::{Driver, Outside, Slot};
use super::error::GroupFailure;
use super::mailbox::{Input, Mailbox};
use super::metrics;
use super::persist::PersistTask;
use crate::ident::{GroupId, LogIndex};
use crate::raftstore::entry::Unhealthy;
use crate::raftstore::group::{NoRepair, Role};
use crate::raftstore::log_store::StoreError;

/// The longest and the shortest time between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(1));

/// So many groups are named where it is said what is wrong.
const SHOWN_GROUPS: usize = 3;

/// Nothing is being done.
const IDLE: u64 = 0;

/// How a raftstore is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Health {
    /// What does not get on. It may recover.
    pub stalled: Vec<Stall>,
    /// The groups that are not well here, each with what is wrong.
    pub groups: BTreeMap<GroupId, GroupTrouble>,
    /// Why it has stopped, if it has.
    pub failure: Option<Arc<GroupFailure>>,
}

impl Health {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.stalled.is_empty() && self.groups.is_empty() && self.failure.is_none()
    }

    /// What is wrong, in a line, if anything is; of many groups the first ones.
    pub fn why_not_good(&self) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(format!("the raftstore has stopped: {failure}"));
        }
        let shown = self.groups.iter().take(SHOWN_GROUPS).map(|(group, trouble)| format!("group {group}: {trouble}"));
        let mut all: Vec<String> = self.stalled.iter().map(Stall::to_string).chain(shown).collect();
        let left = self.groups.len().saturating_sub(SHOWN_GROUPS);
        all.extend((left > 0).then(|| format!("and {left} groups more")));
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Something that takes longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Which thread does it.
    pub worker: Worker,
    /// For how long by now.
    pub since: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.worker {
            Worker::Driver => "the driver of the Raft groups does not turn",
            Worker::Persist => "a write of the Raft log does not come back",
            Worker::Apply => "commands are being applied and do not end",
        };
        write!(f, "{what}, for {} s now", self.since.as_secs())
    }
}

/// The threads that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worker {
    /// It turns inputs into effects.
    Driver,
    /// It writes the logs: the disk hangs.
    Persist,
    /// It applies commands: a state machine takes long, or the disk hangs.
    Apply,
}

impl Worker {
    pub(super) const ALL: [Worker; 3] = [Worker::Driver, Worker::Persist, Worker::Apply];

    /// As in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Worker::Driver => "driver",
            Worker::Persist => "persist",
            Worker::Apply => "apply",
        }
    }
}

/// What is wrong with a group on this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GroupTrouble {
    /// What the replica here holds is wrong. It does not lead, and waits for a snapshot.
    Unhealthy(Unhealthy),
    /// Replicas differ, and no majority agrees.
    Undecided {
        /// As of this entry.
        index: LogIndex,
    },
    /// The group has stopped here.
    Stopped(Arc<GroupFailure>),
}

impl fmt::Display for GroupTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupTrouble::Unhealthy(unhealthy) => write!(f, "{unhealthy}"),
            GroupTrouble::Undecided { index } => {
                write!(f, "its replicas differ as of entry {index}, and no majority of them agrees")
            }
            GroupTrouble::Stopped(failure) => write!(f, "it has stopped here: {failure}"),
        }
    }
}

impl GroupTrouble {
    fn is_same(&self, other: &GroupTrouble) -> bool {
        match (self, other) {
            (GroupTrouble::Unhealthy(one), GroupTrouble::Unhealthy(other)) => one == other,
            (GroupTrouble::Undecided { index: one }, GroupTrouble::Undecided { index: other }) => one == other,
            (GroupTrouble::Stopped(_), GroupTrouble::Stopped(_)) => true,
            _ => false,
        }
    }
}

/// The groups that are not well.
pub(super) type Troubles = Arc<Mutex<BTreeMap<GroupId, GroupTrouble>>>;

/// Since when each thread does what it does.
pub(super) struct Progress {
    origin: Instant,
    limit: Duration,
    /// Microseconds from `origin`, plus one.
    driver: AtomicU64,
    persist: AtomicU64,
    apply: Vec<AtomicU64>,
}

/// What one thread notes its progress with.
#[derive(Clone)]
pub(super) struct Watched {
    progress: Arc<Progress>,
    worker: Worker,
    number: usize,
}

impl Watched {
    /// Something begins.
    pub(super) fn begin(&self) {
        self.set(micros(self.progress.origin.elapsed()).saturating_add(1));
    }

    /// It is done.
    pub(super) fn end(&self) {
        self.set(IDLE);
    }

    fn set(&self, value: u64) {
        let mark = match self.worker {
            Worker::Driver => Some(&self.progress.driver),
            Worker::Persist => Some(&self.progress.persist),
            Worker::Apply => self.progress.apply.get(self.number),
        };
        if let Some(mark) = mark {
            mark.store(value, Ordering::Relaxed);
        }
    }
}

impl Progress {
    pub(super) fn new(limit: Duration, apply_threads: usize) -> Arc<Progress> {
        let idle = || AtomicU64::new(IDLE);
        let apply = (0..apply_threads).map(|_| idle()).collect();
        Arc::new(Progress { origin: Instant::now(), limit, driver: idle(), persist: idle(), apply })
    }

    pub(super) fn watched(self: &Arc<Progress>, worker: Worker, number: usize) -> Watched {
        Watched { progress: Arc::clone(self), worker, number }
    }

    /// What takes longer than it may.
    pub(super) fn stalls(&self) -> Vec<Stall> {
        let stall = |worker: Worker| {
            let since = match worker {
                Worker::Driver => self.since(&self.driver),
                Worker::Persist => self.since(&self.persist),
                Worker::Apply => self.apply.iter().filter_map(|mark| self.since(mark)).max(),
            };
            since.map(|since| Stall { worker, since })
        };
        Worker::ALL.into_iter().filter_map(stall).collect()
    }

    fn since(&self, mark: &AtomicU64) -> Option<Duration> {
        let began = mark.load(Ordering::Relaxed);
        let since = micros(self.origin.elapsed()).saturating_sub(began.saturating_sub(1));
        (began != IDLE && since > micros(self.limit)).then(|| Duration::from_micros(since))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The watchdog's thread.
pub(super) struct Watchdog {
    pub(super) progress: Arc<Progress>,
    pub(super) mailbox: Mailbox,
    /// Nothing comes here; it ends when the raftstore is stopped.
    pub(super) stop: Receiver<()>,
}

impl Watchdog {
    pub(super) fn run(self) {
        let pause = (self.progress.limit / 4).clamp(LOOKS.1, LOOKS.0);
        let mut stalled = BTreeMap::new();
        while let Err(RecvTimeoutError::Timeout) = self.stop.recv_timeout(pause) {
            let now: BTreeMap<Worker, Duration> =
                self.progress.stalls().into_iter().map(|stall| (stall.worker, stall.since)).collect();
            for worker in Worker::ALL {
                match (stalled.contains_key(&worker), now.get(&worker)) {
                    (false, Some(since)) => self.report(worker, Some(*since)),
                    (true, None) => self.report(worker, None),
                    _ => {}
                }
            }
            stalled = now;
        }
    }

    fn report(&self, worker: Worker, since: Option<Duration>) {
        metrics::stalled(worker.name(), since.is_some());
        let name = worker.name();
        match (worker, since) {
            (Worker::Persist, Some(since)) => {
                tracing::error!(
                    ?since,
                    "a write of the Raft log does not come back: the disk hangs, and leadership is given away"
                );
            }
            (_, Some(since)) => tracing::error!(thread = name, ?since, "a thread of the raftstore does not get on"),
            (_, None) => tracing::info!(thread = name, "a thread of the raftstore gets on again"),
        }
        if worker == Worker::Persist {
            self.mailbox.tell(Input::Stalled(since.is_some()));
        }
    }
}

impl Driver {
    /// The disk makes no progress, or does again.
    pub(super) fn stalled(&mut self, is_stalled: bool) {
        self.is_stalled = is_stalled;
        let mut leading = Vec::new();
        for (id, slot) in &mut self.groups {
            let Some(raft) = &mut slot.group else { continue };
            raft.stall(is_stalled);
            if raft.positions().role == Role::Leader {
                leading.push(*id);
            }
        }
        // Time has to pass for those that give leadership away.
        for id in leading {
            let _ = self.slot(id);
        }
    }

    /// Something in a group's state cannot be read, as of an entry.
    pub(super) fn damaged(&mut self, group: GroupId, at: LogIndex, error: StoreError) {
        self.repair(group, Arc::new(GroupFailure::Damaged { group, source: error }), |raft| raft.damaged(at));
    }

    /// A group's commands cannot be applied any more: what they would be applied to is damaged, or was wrong already.
    pub(super) fn cannot_apply(&mut self, group: GroupId, failure: Arc<GroupFailure>) {
        let is_damage = matches!(*failure, GroupFailure::Damaged { .. });
        let is_unhealthy = self.running(group).is_some_and(|raft| raft.unhealthy().is_some());
        match is_damage || is_unhealthy {
            true => self.repair(group, failure, |raft| raft.cannot_apply()),
            // A bug of the state machine is that of every replica: a snapshot would not help.
            false => self.fail(group, failure),
        }
    }

    fn repair(
        &mut self,
        group: GroupId,
        failure: Arc<GroupFailure>,
        note: impl FnOnce(&mut crate::raftstore::group::Group) -> Result<Option<Unhealthy>, NoRepair>,
    ) {
        match self.running(group).map(note) {
            Some(Ok(Some(unhealthy))) => {
                tracing::error!(%group, %failure, "the state of a group is damaged here; its replica waits for a snapshot");
                drop(self.outside.workers.persist.send(PersistTask::Unhealthy(group, unhealthy)));
            }
            Some(Err(NoRepair)) => {
                tracing::error!(%group, %failure, "the state of a group is damaged, and nobody could send another; the group stops here");
                self.fail(group, failure);
            }
            Some(Ok(None)) | None => {}
        }
    }
}

impl Slot {
    /// Shows whether the group is well, if that has changed.
    pub(super) fn note_trouble(&mut self, id: GroupId, outside: &Outside) {
        let Some(raft) = &self.group else { return };
        let undecided = || raft.undecided().map(|index| GroupTrouble::Undecided { index });
        let now = raft.unhealthy().map(GroupTrouble::Unhealthy).or_else(undecided);
        let is_same = match (&self.trouble, &now) {
            (None, None) => true,
            (Some(before), Some(now)) => before.is_same(now),
            _ => false,
        };
        if is_same {
            return;
        }
        match &now {
            Some(GroupTrouble::Unhealthy(unhealthy)) => {
                tracing::error!(group = %id, "the replica here is unhealthy: {unhealthy}")
            }
            Some(_) => {}
            None => tracing::info!(group = %id, "the replica here is well again"),
        }
        metrics::unhealthy(id, now.is_some());
        show(&outside.troubles, id, now.clone());
        self.trouble = now;
    }
}

/// Shows what is wrong with a group, or that nothing is.
pub(super) fn show(troubles: &Troubles, id: GroupId, trouble: Option<GroupTrouble>) {
    let mut troubles = troubles.lock();
    match trouble {
        Some(trouble) => troubles.insert(id, trouble),
        None => troubles.remove(&id),
    };
}
