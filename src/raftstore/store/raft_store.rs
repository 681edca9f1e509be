//! Opening, starting, stopping.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::apply::{ApplyTask, ApplyThread};
use super::checks::{HashTask, HashThread, Schedule, hash_queue};
use super::clock::TickClock;
use super::driver::{Driver, OpenedGroup, Outside};
use super::error::{GroupFailure, OpenError, StoreStopped};
use super::handle::{GroupHandle, GroupView};
use super::health::{Health, Progress, Troubles, Watchdog, Worker};
use super::hibernation::Lives;
use super::mailbox::{Closing, Input, Mailbox, MailboxConfig, Share};
use super::persist::{LogReader, PersistThread, Workers, Written};
use super::snapshots::StoreInbox;
use crate::ident::{GroupId, ReplicaId};
use crate::raftstore::beat::NODE_GROUP;
use crate::raftstore::entry::{Cause, Membership, Unhealthy};
use crate::raftstore::group::{Group, GroupConfig, OwnPosition, TermRuns};
use crate::raftstore::log_store::{GroupStore, LogWrite, StoreError, StoredGroup};
use crate::raftstore::sessions::Sessions;
use crate::raftstore::snapshot::own;
use crate::raftstore::state_machine::StateMachine;
use crate::raftstore::transport::{Inbox, Transport};

/// Settings of a raftstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// How long a tick is: 100 ms by default, 1 ms to 10 s. Heartbeats and time-outs of groups are counted in ticks.
    pub tick: Duration,
    /// What may wait for the driver.
    pub mailbox: MailboxConfig,
    /// Bytes of entries that may wait to be written, 64 MiB by default. Beyond it proposals are refused and entries of
    /// peers dropped.
    pub max_persist_queue_bytes: usize,
    /// Threads that apply commands, 2 by default, 1 to 64. Each applies those of its groups, so that a slow state machine
    /// does not hold up those of other threads.
    pub apply_threads: usize,
    /// Room on the disk that no snapshot takes, 256 MiB by default: it is put off until there is more.
    pub snapshot_reserve_bytes: u64,
    /// How often what the replicas of a group hold is compared: once in 24 hours by default, from 1 s; zero: never by itself.
    /// Checks of one node's groups follow each other. Needs nodes that all know of checks: one that does not stops the
    /// replicas of a group that is checked.
    pub check_period: Duration,
    /// How much of a state is read in a second to be hashed for a check, 16 MiB by default, from 64 KiB.
    pub check_bytes_per_second: u64,
    /// How long a write of the log, a turn of the driver or a batch of commands may take, 5 s by default, 10 ms to 10 min.
    /// What takes longer counts as [stalled](super::Health); a node whose log is stalled gives leadership away.
    pub stall_limit: Duration,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            tick: Duration::from_millis(100),
            mailbox: MailboxConfig::default(),
            max_persist_queue_bytes: 64 << 20,
            apply_threads: 2,
            snapshot_reserve_bytes: 256 << 20,
            check_period: Duration::from_secs(24 * 60 * 60),
            check_bytes_per_second: 16 << 20,
            stall_limit: Duration::from_secs(5),
        }
    }
}

impl StoreConfig {
    fn validate(&self) -> Result<(), OpenError> {
        let mut problems = Vec::new();
        if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&self.tick) {
            problems.push(format!("tick is {:?}; must be 1 ms to 10 s", self.tick));
        }
        if !(1..=64).contains(&self.apply_threads) {
            problems.push(format!("apply_threads is {}; must be 1 to 64", self.apply_threads));
        }
        if !self.check_period.is_zero() && self.check_period < Duration::from_secs(1) {
            problems.push(format!("check_period is {:?}; must be zero, or 1 s or more", self.check_period));
        }
        if self.check_bytes_per_second < 64 << 10 {
            problems.push(format!("check_bytes_per_second is {}; must be 65536 or more", self.check_bytes_per_second));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(600)).contains(&self.stall_limit) {
            problems.push(format!("stall_limit is {:?}; must be 10 ms to 10 min", self.stall_limit));
        }
        let bounds = [
            ("mailbox.max_requests", self.mailbox.max_requests),
            ("mailbox.max_group_requests", self.mailbox.max_group_requests),
            ("mailbox.max_messages", self.mailbox.max_messages),
            ("mailbox.max_message_bytes", self.mailbox.max_message_bytes),
            ("max_persist_queue_bytes", self.max_persist_queue_bytes),
        ];
        problems
            .extend(bounds.iter().filter(|(_, value)| *value == 0).map(|(name, _)| format!("{name} must not be 0")));
        if problems.is_empty() { Ok(()) } else { Err(OpenError::Config(problems.join("; "))) }
    }
}

/// The Raft groups of a node. Dropped, it stops as with [`RaftStore::shutdown`], and blocks as long.
pub struct RaftStore {
    store: Arc<dyn GroupStore>,
    mailbox: Mailbox,
    threads: Mutex<Vec<JoinHandle<()>>>,
    failure: watch::Receiver<Option<Arc<GroupFailure>>>,
    written: Arc<Mutex<Written>>,
    open: Mutex<BTreeSet<GroupId>>,
    progress: Arc<Progress>,
    troubles: Troubles,
    /// Dropped, what waits between looks and pages ends.
    running: Mutex<Vec<Sender<()>>>,
    snapshot_reserve_bytes: u64,
}

/// The threads that look at what the others do, and compare.
struct Observers {
    /// What is to be hashed; the thread ends with the last of these.
    hash: SyncSender<HashTask>,
    threads: Vec<JoinHandle<()>>,
    /// Dropped, their waits end.
    running: Vec<Sender<()>>,
}

impl Observers {
    fn start(
        config: &StoreConfig,
        mailbox: &Mailbox,
        progress: &Arc<Progress>,
        failed: &watch::Sender<Option<Arc<GroupFailure>>>,
    ) -> Result<Observers, OpenError> {
        let (hash, tasks) = hash_queue();
        let (running_hash, stop) = channel();
        let (running_watchdog, stop_watchdog) = channel();
        let bytes_per_second = config.check_bytes_per_second;
        let hash_thread = HashThread { tasks, mailbox: mailbox.clone(), bytes_per_second, stop };
        let (progress, of_watchdog) = (Arc::clone(progress), mailbox.clone());
        let watchdog = Watchdog { progress, mailbox: of_watchdog, stop: stop_watchdog };
        let threads = vec![
            spawn("raft-hash", "hash", mailbox, failed, move || hash_thread.run())?,
            spawn("raft-watchdog", "watchdog", mailbox, failed, move || watchdog.run())?,
        ];
        Ok(Observers { hash, threads, running: vec![running_hash, running_watchdog] })
    }
}

impl RaftStore {
    /// Makes the store ready and starts the threads. Blocks for about as long as the store takes to write 64 MiB. Groups
    /// are opened one by one.
    ///
    /// # Errors
    /// Settings that make no sense, the store failed, or the operating system has no threads left.
    pub fn start(
        config: StoreConfig,
        store: Arc<dyn GroupStore>,
        transport: Arc<dyn Transport>,
    ) -> Result<RaftStore, OpenError> {
        config.validate()?;
        store.prepare()?;
        let (mailbox, receiver, waiting) = Mailbox::new(config.mailbox.clone());
        let (persist, persist_tasks) = channel();
        let (apply, apply_tasks): (Vec<_>, Vec<_>) = (0..config.apply_threads).map(|_| channel()).unzip();
        let (log_reader, log_reads) = channel();
        let queued_bytes = Arc::clone(&waiting.queued_bytes);
        let written = Arc::new(Mutex::new(Written::default()));
        let (failed, failure) = watch::channel(None);
        let progress = Progress::new(config.stall_limit, config.apply_threads);
        let troubles = Troubles::default();
        let observers = Observers::start(&config, &mailbox, &progress, &failed)?;
        let persist_thread = PersistThread {
            tasks: persist_tasks,
            store: Arc::clone(&store),
            mailbox: mailbox.clone(),
            queued_bytes: Arc::clone(&queued_bytes),
            written: Arc::clone(&written),
            watched: progress.watched(Worker::Persist, 0),
        };
        let apply_threads = apply_threads(apply_tasks, &observers, &progress, &store, &mailbox);
        let log_reader_thread = LogReader { tasks: log_reads, store: Arc::clone(&store), mailbox: mailbox.clone() };
        let Observers { running, mut threads, .. } = observers;
        let workers = Workers { persist, apply, log_reader };
        let shown = Arc::clone(&troubles);
        let outside = Outside { workers, transport, queued_bytes, mailbox: mailbox.clone(), troubles: shown };
        let driver = Driver {
            receiver,
            waiting,
            outside,
            tick: config.tick,
            next_tick: Instant::now() + config.tick,
            max_queued_bytes: config.max_persist_queue_bytes,
            failure: failed.clone(),
            groups: BTreeMap::new(),
            dirty: Vec::new(),
            awake: BTreeSet::new(),
            lives: Lives::new(random()?, mailbox.words.clone()),
            next_request: 0,
            clock: TickClock::new(config.tick),
            schedule: Schedule::new(config.check_period),
            is_stalled: false,
            watched: progress.watched(Worker::Driver, 0),
        };
        threads.push(spawn("raft-persist", "persist", &mailbox, &failed, move || persist_thread.run())?);
        threads.push(spawn("raft-log-reader", "log reader", &mailbox, &failed, move || log_reader_thread.run())?);
        for (number, thread) in apply_threads.into_iter().enumerate() {
            let name = format!("raft-apply-{number}");
            threads.push(spawn(&name, "apply", &mailbox, &failed, move || thread.run())?);
        }
        let seat = mailbox.seat();
        threads.push(spawn("raft-driver", "driver", &mailbox, &failed, move || seat.run(driver))?);
        let threads = Mutex::new(threads);
        let open = Mutex::default();
        let snapshot_reserve_bytes = config.snapshot_reserve_bytes;
        Ok(RaftStore {
            store,
            mailbox,
            threads,
            failure,
            written,
            open,
            progress,
            troubles,
            running: Mutex::new(running),
            snapshot_reserve_bytes,
        })
    }

    /// Where the transport hands over what arrives.
    pub fn inbox(&self) -> Arc<dyn Inbox> {
        let (mailbox, store) = (self.mailbox.clone(), Arc::clone(&self.store));
        Arc::new(StoreInbox { mailbox, store, reserve_bytes: self.snapshot_reserve_bytes })
    }

    /// The groups that were made here.
    ///
    /// # Errors
    /// The store failed.
    pub fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        self.store.groups()
    }

    /// Makes a group on this node, durably. Every founding member makes it with the same membership. It is not open
    /// yet.
    ///
    /// # Errors
    /// It exists, the replica is no member, it or a later one was destroyed here, the number is
    /// [reserved](NODE_GROUP), or the store failed.
    pub fn create_group(&self, group: GroupId, replica: ReplicaId, membership: Membership) -> Result<(), StoreError> {
        if replica.get() == 0 || !membership.nodes.contains_key(&replica) {
            return Err(StoreError::Refused(format!("replica {replica} is no member of group {group}")));
        }
        check_number(group)?;
        let mut write = LogWrite::new(group);
        write.create = Some((replica, membership));
        self.store.write(&[write], true)
    }

    /// Makes a replica of a group that is somewhere else already, durably: it knows nothing, and waits until a leader of
    /// the group has [added](GroupHandle::change_membership) it. It is not open yet. The number of the replica must be
    /// one that was never used in the group.
    ///
    /// # Errors
    /// It exists, it or a later one was destroyed here, or the store failed.
    pub fn join_group(&self, group: GroupId, replica: ReplicaId) -> Result<(), StoreError> {
        check_number(group)?;
        let mut write = LogWrite::new(group);
        write.create = Some((replica, Membership::default()));
        self.store.write(&[write], true)
    }

    /// Opens a group that was made. Blocks while it is read, and while a machine that keeps its own position installs a
    /// snapshot that it had no time for before.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_group(
        &self,
        group: GroupId,
        config: GroupConfig,
        mut machine: impl StateMachine,
    ) -> Result<GroupHandle, OpenError> {
        let mut open = self.open.lock();
        if open.contains(&group) {
            return Err(OpenError::AlreadyOpen(group));
        }
        let mut stored = self.store.load(group)?.ok_or(OpenError::NoSuchGroup(group))?;
        let own = match machine.own_applied()? {
            Some(own) => Some(own::complete(&*self.store, group, &mut machine, own, &stored)?),
            None => None,
        };
        let sessions = match own {
            Some(_) => None,
            None => Some(self.sessions(group, &mut stored, &config)?),
        };
        let is_broken = stored.unhealthy.is_some_and(|unhealthy| unhealthy.cause == Cause::Damaged);
        let noted = stored.applied;
        let terms = self.terms(group, &stored)?;
        let seed = random()?;
        let max_command_bytes = config.max_entry_bytes;
        let gives_snapshots = machine.snapshots().is_some();
        let position = own.map(|applied| OwnPosition { applied, gives_snapshots });
        let raft = Group::open(config, &stored, position, terms, seed)?;
        let (sender, view) = watch::channel(GroupView { status: raft.status(), failure: None });
        let machine: Box<dyn StateMachine> = Box::new(machine);
        let share = Share::default();
        let opened = OpenedGroup {
            id: group,
            group: raft,
            machine,
            sessions,
            own,
            noted,
            is_broken,
            view: sender,
            max_command_bytes,
            share: share.clone(),
        };
        self.mailbox.tell(Input::Open(Box::new(opened)));
        if stored.membership.voters == [stored.replica] {
            // Nobody else could be elected, so there is nothing to wait for.
            self.mailbox.tell(Input::Campaign(group));
        }
        open.insert(group);
        let is_repeatable = own.is_none();
        Ok(GroupHandle { group, mailbox: self.mailbox.clone(), share, view, max_command_bytes, is_repeatable })
    }

    /// Removes a group from this node for good, whether it is open or not: its log, its tables and its records. Who
    /// waits for it hears "unknown", its handles say that it was destroyed, and its tombstone is durable on return: a
    /// message that arrives late finds nobody, and the same replica or an earlier one cannot be made here again. Blocks
    /// until what was handed out for the group is done.
    ///
    /// Unless the replica was removed before, the others go on asking it as if its node were down: a group of three has
    /// one fewer that may fail.
    ///
    /// # Errors
    /// There is no such group, or the raftstore stopped; then it is there or gone when it is opened next, never half.
    pub fn destroy_group(&self, group: GroupId) -> Result<(), OpenError> {
        // Held to the end: nobody opens what is being removed.
        let mut open = self.open.lock();
        if self.store.load(group)?.is_none() {
            return Err(OpenError::NoSuchGroup(group));
        }
        let (answer, answered) = channel();
        self.mailbox.tell(Input::Destroy(Closing { group, answer }));
        if answered.recv().is_err() {
            let failure = self.failure.borrow().clone().unwrap_or_else(|| Arc::new(GroupFailure::ShutDown));
            return Err(StoreStopped(failure).into());
        }
        open.remove(&group);
        Ok(())
    }

    /// The groups of which replicas were destroyed here, in order, and the last of each.
    ///
    /// # Errors
    /// The store failed.
    pub fn tombstones(&self) -> Result<Vec<(GroupId, ReplicaId)>, StoreError> {
        self.store.tombstones()
    }

    /// What is kept of clients in memory. A state that is damaged is waited for.
    fn sessions(&self, group: GroupId, stored: &mut StoredGroup, config: &GroupConfig) -> Result<Sessions, StoreError> {
        let error = match Sessions::load(&*self.store, group) {
            Err(error @ StoreError::Damaged { .. }) => error,
            loaded => return loaded,
        };
        if !config.snapshots || stored.membership.nodes.len() < 2 || stored.membership.voters == [stored.replica] {
            return Err(error);
        }
        tracing::error!(%group, %error, "the state of a group is damaged here; its replica waits for a snapshot");
        let unhealthy = Unhealthy { cause: Cause::Damaged, index: stored.applied };
        self.store.mark_unhealthy(group, unhealthy, true)?;
        stored.unhealthy = Some(unhealthy);
        Ok(Sessions::default())
    }

    fn terms(&self, group: GroupId, stored: &StoredGroup) -> Result<TermRuns, StoreError> {
        TermRuns::find(stored.truncated, stored.last, |index| {
            self.store.term(group, index)?.ok_or_else(|| StoreError::Damaged {
                place: format!("the log of group {group}"),
                what: format!("expected entry {index} between {} and {}, found none", stored.truncated, stored.last),
            })
        })
    }

    /// What was written to the log since the start.
    pub fn written(&self) -> Written {
        *self.written.lock()
    }

    /// How it is: what does not get on, and the groups that are not well. Cheap.
    pub fn health(&self) -> Health {
        let failure = self.failure.borrow().clone();
        Health { stalled: self.progress.stalls(), groups: self.troubles.lock().clone(), failure }
    }

    /// Resolves when the raftstore has failed. Never resolves otherwise.
    pub async fn failed(&self) -> Arc<GroupFailure> {
        let mut failure = self.failure.clone();
        loop {
            let current = failure.borrow_and_update().clone();
            match current {
                Some(failure) if !matches!(*failure, GroupFailure::ShutDown) => return failure,
                _ if failure.changed().await.is_err() => return std::future::pending().await,
                _ => {}
            }
        }
    }

    /// Stops: what was handed out is finished, who waits hears "unknown", and the threads end. Blocks. The store can
    /// be opened again in the same process.
    pub fn shutdown(&self) {
        self.stop();
    }

    /// Waits for the threads: one that outlived this would go on writing beside whoever opens the store next.
    fn stop(&self) {
        self.mailbox.tell(Input::Stop(Arc::new(GroupFailure::ShutDown)));
        self.running.lock().clear();
        for thread in std::mem::take(&mut *self.threads.lock()).into_iter().rev() {
            // One that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check_number(group: GroupId) -> Result<(), StoreError> {
    match group == NODE_GROUP {
        true => Err(StoreError::Refused(format!("no group can have the number {group}"))),
        false => Ok(()),
    }
}

fn random() -> Result<u64, OpenError> {
    getrandom::u64()
        .map_err(|error| OpenError::Io { doing: "draw a random number", source: io::Error::other(error.to_string()) })
}

/// One for each queue.
fn apply_threads(
    tasks: Vec<Receiver<ApplyTask>>,
    observers: &Observers,
    progress: &Arc<Progress>,
    store: &Arc<dyn GroupStore>,
    mailbox: &Mailbox,
) -> Vec<ApplyThread> {
    let of_number = |(number, tasks)| ApplyThread {
        tasks,
        hash: observers.hash.clone(),
        watched: progress.watched(Worker::Apply, number),
        store: Arc::clone(store),
        mailbox: mailbox.clone(),
        machines: BTreeMap::new(),
    };
    tasks.into_iter().enumerate().map(of_number).collect()
}

/// A thread whose panic stops the store instead of leaving everyone waiting.
fn spawn(
    thread_name: &str,
    name: &'static str,
    mailbox: &Mailbox,
    failed: &watch::Sender<Option<Arc<GroupFailure>>>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let (mailbox, failed) = (mailbox.clone(), failed.clone());
    let guarded = move || {
        if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            let failure = Arc::new(GroupFailure::Panicked(name));
            failed.send_replace(Some(Arc::clone(&failure)));
            mailbox.tell(Input::Stop(failure));
        }
    };
    thread::Builder::new()
        .name(thread_name.to_owned())
        .spawn(guarded)
        .map_err(|source| OpenError::Io { doing: "start a thread", source })
}
