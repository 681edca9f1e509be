//! The apply thread: committed commands into state machines, effects and applied index in one write (rule of durable
//! order 3), then the responses. A machine that keeps its own position writes its effects itself; it is captured, and
//! given snapshots, here too, between two batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use bytes::Bytes;

use super::checks::HashTask;
use super::error::{GroupFailure, ProposeError};
use super::handle::ProposalWaiter;
use super::health::Watched;
use super::mailbox::{Closing, Input, Mailbox};
use super::metrics;
use crate::ident::{GroupId, LogIndex};
use crate::raftstore::context::Context;
use crate::raftstore::entry::{Entry, EntryKind, Membership, Unhealthy};
use crate::raftstore::log_store::{AppliedTo, GroupStore, StoreError};
use crate::raftstore::sessions::{Admitted, Sessions};
use crate::raftstore::snapshot::{Captured, SnapshotId, own};
use crate::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};

/// Commands gathered into one write at most.
const MAX_BATCH_COMMANDS: usize = 4096;

/// What the driver hands over.
pub(super) enum ApplyTask {
    /// A group was opened.
    Open {
        group: GroupId,
        machine: Box<dyn StateMachine>,
        sessions: Option<Sessions>,
        own: Option<LogIndex>,
        noted: LogIndex,
        is_broken: bool,
    },
    /// A group is destroyed.
    Close(Closing),
    /// The tables of a group were replaced by those of a snapshot, as of this entry.
    Restore { group: GroupId, index: LogIndex },
    /// Captures the state of a machine that keeps its own position.
    Capture { group: GroupId, id: SnapshotId },
    /// Entries of a group, in order.
    Apply { group: GroupId, items: Vec<ApplyItem> },
}

/// A committed entry and who waits for its response.
pub(super) struct ApplyItem {
    pub(super) entry: Entry,
    pub(super) compacts: bool,
    pub(super) membership: Option<Membership>,
    pub(super) hash: bool,
    pub(super) unhealthy: Option<Unhealthy>,
    pub(super) waiter: Option<ProposalWaiter>,
}

/// Runs until the driver is gone or the store fails.
pub(super) struct ApplyThread {
    pub(super) tasks: Receiver<ApplyTask>,
    pub(super) store: Arc<dyn GroupStore>,
    pub(super) mailbox: Mailbox,
    pub(super) machines: BTreeMap<GroupId, Machine>,
    pub(super) hash: SyncSender<HashTask>,
    pub(super) watched: Watched,
}

pub(super) struct Machine {
    machine: Box<dyn StateMachine>,
    /// `None`: it keeps its own position, and a repeated command cannot be told from a new one.
    sessions: Option<Sessions>,
    /// A machine that keeps its own position knew everything up to here when it was opened: it gets none of that.
    knows: LogIndex,
    /// The applied index as it was written last.
    noted: LogIndex,
    /// The last entry that it was given here, or knew as of when it was opened.
    through: LogIndex,
    /// A machine that keeps its own position is to be captured under this name, once it is as of the entry that is noted.
    wanted: Option<SnapshotId>,
    /// It could not go on: nothing is applied until a snapshot has replaced its state.
    is_broken: bool,
}

impl ApplyThread {
    pub(super) fn run(mut self) {
        let mut next = None;
        while let Some(task) = next.take().or_else(|| self.tasks.recv().ok()) {
            self.watched.begin();
            match task {
                ApplyTask::Open { group, machine, sessions, own, noted, is_broken } => {
                    let machine = Machine::new(machine, sessions, own, noted, is_broken);
                    self.machines.insert(group, machine);
                }
                ApplyTask::Close(closing) => {
                    self.machines.remove(&closing.group);
                    self.mailbox.tell(Input::NothingToApply(closing));
                }
                ApplyTask::Restore { group, index } => {
                    if !self.restore(group, index) {
                        return;
                    }
                }
                ApplyTask::Capture { group, id } => {
                    if let Some(machine) = self.machines.get_mut(&group) {
                        machine.wanted = Some(id);
                    }
                    if !self.capture_wanted(group) {
                        return;
                    }
                }
                ApplyTask::Apply { group, mut items } => {
                    // What waits for the same group goes into the same write.
                    while items.len() < MAX_BATCH_COMMANDS && next.is_none() {
                        match self.tasks.try_recv() {
                            Ok(ApplyTask::Apply { group: same, items: more }) if same == group => items.extend(more),
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    if !self.apply(group, items) || !self.capture_wanted(group) {
                        return;
                    }
                }
            }
            self.watched.end();
        }
    }

    /// Says whether the store still works.
    fn apply(&mut self, group: GroupId, mut items: Vec<ApplyItem>) -> bool {
        // A state that is to be hashed is as of its entry and nothing behind it.
        while let Some(at) = items.iter().position(|item| item.hash) {
            let later = items.split_off(at + 1);
            if !self.apply_at_once(group, items) {
                return false;
            }
            items = later;
        }
        items.is_empty() || self.apply_at_once(group, items)
    }

    fn apply_at_once(&mut self, group: GroupId, items: Vec<ApplyItem>) -> bool {
        let begun = Instant::now();
        // A group that has failed applies nothing any more; whoever waits hears "unknown".
        let Some(machine) = self.machines.get_mut(&group) else { return true };
        if machine.is_broken {
            let why = "the state of the replica is damaged";
            let waiters = items.into_iter().filter_map(|item| item.waiter);
            waiters.for_each(|waiter| waiter.resolve(Err(ProposeError::Unknown { why })));
            return true;
        }
        let (commands, entries) = (items.len(), items.last().map(|item| item.entry.index()));
        let hash = items.last().is_some_and(|item| item.hash);
        match machine.apply(&*self.store, group, items) {
            Ok((answers, durable)) => {
                metrics::applied(begun.elapsed(), commands);
                for (waiter, answer) in answers {
                    metrics::proposal_done(waiter.since.elapsed());
                    waiter.resolve(answer);
                }
                let through = entries.unwrap_or_default();
                if hash {
                    // Before it is said to be applied: nothing takes the place of the state until then.
                    self.capture(group, through);
                }
                self.mailbox.tell(Input::Applied { group, through, durable });
                true
            }
            Err(error) => self.failed(group, error),
        }
    }

    /// Hands the state over to be hashed.
    fn capture(&mut self, group: GroupId, at: LogIndex) {
        let captured = match self.machines.get_mut(&group).filter(|machine| machine.keeps_own_position()) {
            Some(machine) => machine.capture(&*self.store, group, SnapshotId::default()),
            None => self.store.capture(group, SnapshotId::default()).map(Some).map_err(ApplyError::from),
        };
        let captured = captured.unwrap_or_else(|error| {
            tracing::error!(%group, %at, %error, "the state of a group could not be captured to be hashed");
            if let ApplyError::Store(error @ StoreError::Damaged { .. }) = error {
                self.mailbox.tell(Input::Damaged { group, at, error });
            }
            None
        });
        // What is as of another entry can be compared with nothing, and there may be too much to do.
        let captured = captured.filter(|captured| captured.meta().position.index == at);
        let is_taken = captured.is_some_and(|captured| self.hash.try_send(HashTask { group, captured }).is_ok());
        if !is_taken {
            self.mailbox.tell(Input::Hashed { group, at, digest: None });
        }
    }

    /// Captures a machine that keeps its own position, if a snapshot of it is wanted and it is where it has to be. Says
    /// whether the store still works.
    fn capture_wanted(&mut self, group: GroupId) -> bool {
        let Some(machine) = self.machines.get_mut(&group) else { return true };
        // Of a wrong state no snapshot is given.
        let Some(id) = machine.wanted.filter(|_| !machine.is_broken) else { return true };
        match machine.capture(&*self.store, group, id) {
            Ok(Some(captured)) => {
                machine.wanted = None;
                self.mailbox.tell(Input::Captured { group, captured: Arc::from(captured) });
                true
            }
            Ok(None) => true,
            Err(error) => {
                machine.wanted = None;
                self.failed(group, Unapplied::of_read(error))
            }
        }
    }

    /// Says whether the store still works.
    fn restore(&mut self, group: GroupId, index: LogIndex) -> bool {
        let Some(machine) = self.machines.get_mut(&group) else { return true };
        match machine.restore(&*self.store, group, index, &self.watched) {
            Ok(()) => {
                self.mailbox.tell(Input::Applied { group, through: index, durable: index });
                self.capture_wanted(group)
            }
            Err(error) => self.failed(group, Unapplied::of_write(error)),
        }
    }

    /// Says whether the store still works.
    fn failed(&mut self, group: GroupId, error: Unapplied) -> bool {
        match error {
            Unapplied::Write(error) => {
                tracing::error!(%error, "effects could not be written; the raftstore stops");
                self.mailbox.tell(Input::Stop(Arc::new(GroupFailure::Store(error))));
                false
            }
            Unapplied::Read(source) => {
                tracing::error!(%group, error = %source, "a committed command could not be applied");
                if let Some(machine) = self.machines.get_mut(&group) {
                    machine.is_broken = true;
                }
                let failure = Arc::new(match source {
                    ApplyError::Store(source) => GroupFailure::Damaged { group, source },
                    source => GroupFailure::Apply { group, source },
                });
                self.mailbox.tell(Input::ApplyFailed { group, failure });
                true
            }
        }
    }
}

/// Why commands were not applied.
#[derive(Debug)]
enum Unapplied {
    /// The machine cannot go on, or what it reads is damaged: that concerns its group.
    Read(ApplyError),
    /// The store failed.
    Write(StoreError),
}

impl Unapplied {
    /// In reading, damage is that of a group.
    fn of_read(error: ApplyError) -> Unapplied {
        match error {
            error @ (ApplyError::Machine(_) | ApplyError::Store(StoreError::Damaged { .. })) => Unapplied::Read(error),
            ApplyError::Store(error) => Unapplied::Write(error),
        }
    }

    /// Where something was written it is not known what is there.
    fn of_write(error: ApplyError) -> Unapplied {
        match error {
            ApplyError::Store(error) => Unapplied::Write(error),
            error => Unapplied::Read(error),
        }
    }
}

/// What was to be installed is damaged: that is the group's, and no other snapshot is taken before it is installed.
fn of_group(error: ApplyError) -> ApplyError {
    match error {
        ApplyError::Store(error @ StoreError::Damaged { .. }) => ApplyError::Machine(error.to_string()),
        other => other,
    }
}

/// A response on its way to who waits for it.
type Answered = (ProposalWaiter, Result<Bytes, ProposeError>);

/// Where the response to an entry comes from.
enum Source {
    /// It has none: no command.
    None,
    /// The machine's answer to this command of the batch.
    Machine(usize),
    /// It was applied in an earlier batch.
    Known(Option<Bytes>),
    /// A later command of its client was applied.
    Superseded,
}

impl Machine {
    /// As it was opened.
    fn new(
        machine: Box<dyn StateMachine>,
        sessions: Option<Sessions>,
        own: Option<LogIndex>,
        noted: LogIndex,
        is_broken: bool,
    ) -> Machine {
        let (knows, through) = (own.unwrap_or_default(), own.map_or(noted, |own| own.min(noted)));
        Machine { machine, sessions, knows, noted, through, wanted: None, is_broken }
    }

    fn keeps_own_position(&self) -> bool {
        self.sessions.is_none()
    }

    /// What is kept in memory is read again from the tables, or installed from there.
    fn restore(
        &mut self,
        store: &dyn GroupStore,
        group: GroupId,
        index: LogIndex,
        watched: &Watched,
    ) -> Result<(), ApplyError> {
        match self.keeps_own_position() {
            // However much it is: each page is progress.
            true => own::install(store, group, &mut *self.machine, index, &|| watched.begin()).map_err(of_group)?,
            false => {
                self.sessions = Some(Sessions::load(store, group)?);
                self.machine.restored(index)?;
            }
        }
        (self.noted, self.through) = (index, index);
        self.is_broken = false;
        Ok(())
    }

    /// Of a machine that keeps its own position. `None` if it is not as of the entry that is noted: it may be behind that,
    /// or know more than it was given here.
    fn capture(
        &mut self,
        store: &dyn GroupStore,
        group: GroupId,
        id: SnapshotId,
    ) -> Result<Option<Box<dyn Captured>>, ApplyError> {
        match self.through == self.noted && self.through >= self.knows {
            true => own::capture(store, group, &mut *self.machine, self.through, id),
            false => Ok(None),
        }
    }

    /// Applies entries in one write; says the responses and up to where effects are durable, or as good as.
    fn apply(
        &mut self,
        store: &dyn GroupStore,
        group: GroupId,
        items: Vec<ApplyItem>,
    ) -> Result<(Vec<Answered>, LogIndex), Unapplied> {
        let Some(through) = items.last().map(|item| item.entry.index()) else { return Ok(Default::default()) };
        let (commands, sources) = self.plan(&items);
        let mut batch = ApplyBatch::new(store, group);
        let responses = match commands.is_empty() {
            true => Vec::new(),
            false => self.machine.apply(&commands, &mut batch).map_err(Unapplied::of_read)?,
        };
        if responses.len() != commands.len() {
            let what = format!("it answered {} of {} commands", responses.len(), commands.len());
            return Err(Unapplied::Read(ApplyError::Machine(what)));
        }
        if self.keeps_own_position() && !batch.writes().is_empty() {
            // They would come once more after a crash, and not at all with a snapshot.
            let what = "it keeps its own position, and wrote into the tables".into();
            return Err(Unapplied::Read(ApplyError::Machine(what)));
        }
        if let Some(sessions) = &mut self.sessions {
            for (item, source) in items.iter().zip(&sources) {
                if let (Source::Machine(at), Some(Context::Once(attempt))) =
                    (source, Context::decode(item.entry.context()))
                {
                    let response = responses.get(*at).map_or(&[][..], |response| response);
                    sessions.respond(attempt, item.entry.index(), response);
                }
            }
            sessions.write(&mut batch);
        }
        // A machine that keeps its own position may be behind what was noted, and catches up.
        (self.noted, self.through) = (self.noted.max(through), through);
        let membership = items.iter().rev().find_map(|item| item.membership.clone());
        if let Some(unhealthy) = items.iter().find_map(|item| item.unhealthy) {
            // Before its entry counts as applied: if we die in between, the entry says it once more.
            store.mark_unhealthy(group, unhealthy, false).map_err(Unapplied::Write)?;
        }
        let applied = AppliedTo { index: self.noted, membership };
        store.apply(group, batch.writes(), &applied).map_err(Unapplied::Write)?;
        self.machine.written();
        // What is in the batch comes before every later write of this store; what a machine keeps itself does not.
        let compacts = items.iter().any(|item| item.compacts);
        let durable = match (&self.sessions, compacts) {
            (Some(_), _) => through,
            (None, true) => self.machine.flush().map_err(Unapplied::of_write)?,
            (None, false) => LogIndex::default(),
        };
        let mut answers = Vec::new();
        for (item, source) in items.into_iter().zip(sources) {
            let Some(waiter) = item.waiter else { continue };
            let answer = match source {
                Source::None => Ok(Bytes::new()),
                Source::Machine(at) => Ok(responses.get(at).cloned().unwrap_or_default()),
                Source::Known(Some(response)) => Ok(response),
                Source::Known(None) => Err(ProposeError::AppliedBefore),
                Source::Superseded => Err(ProposeError::Superseded),
            };
            answers.push((waiter, answer));
        }
        Ok((answers, durable))
    }

    /// Which entries are commands for the machine, and where each entry's response comes from.
    fn plan<'a>(&mut self, items: &'a [ApplyItem]) -> (Vec<Command<'a>>, Vec<Source>) {
        let mut commands: Vec<Command<'a>> = Vec::new();
        let mut sources = Vec::with_capacity(items.len());
        for item in items {
            let index = item.entry.index();
            let is_new = item.entry.kind() == EntryKind::Command && index > self.knows;
            let is_command = is_new && !item.entry.data().is_empty();
            let admitted = match (&mut self.sessions, Context::decode(item.entry.context())) {
                (Some(sessions), Some(Context::Once(attempt))) if is_command => sessions.admit(attempt, index),
                _ => Admitted::Now,
            };
            let source = match admitted {
                _ if !is_command => Source::None,
                Admitted::Now => {
                    commands.push(Command { index, data: item.entry.data() });
                    Source::Machine(commands.len() - 1)
                }
                // Earlier in this very batch: its response is still to come.
                Admitted::Before(at, response) => match commands.binary_search_by_key(&at, |command| command.index) {
                    Ok(place) => Source::Machine(place),
                    Err(_) => Source::Known(response),
                },
                Admitted::Superseded => Source::Superseded,
            };
            sources.push(source);
        }
        (commands, sources)
    }
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
