//! The apply thread: committed commands into state machines, effects and applied index in one write (rule of durable
//! order 3), then the responses. A machine that keeps its own position writes its effects itself; it is captured, and
//! given snapshots, here too, between two batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

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
use crate::raftstore::log_store::{AppliedTo, ApplyWrite, GroupStore, StoreError};
use crate::raftstore::sessions::{Admitted, Sessions};
use crate::raftstore::snapshot::{Captured, SnapshotId, own};
use crate::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};

/// No more is gathered into one write with this many commands.
const MAX_BATCH_COMMANDS: usize = 4096;

/// Nor once machines took this long.
const MAX_GATHERING: Duration = Duration::from_millis(2);

/// Entries to be applied, by group.
type Work = BTreeMap<GroupId, Vec<ApplyItem>>;

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
    /// Entries of groups, of each in order.
    Apply(Vec<(GroupId, Vec<ApplyItem>)>),
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
                ApplyTask::Apply(first) => {
                    let work;
                    (work, next) = self.gather(first);
                    if !self.apply(work) {
                        return;
                    }
                }
            }
            self.watched.end();
        }
    }

    /// What waits to be applied, by group, and what else came behind it.
    fn gather(&self, first: Vec<(GroupId, Vec<ApplyItem>)>) -> (Work, Option<ApplyTask>) {
        let (mut work, mut commands) = (Work::new(), 0);
        let mut more = first;
        loop {
            for (group, items) in more {
                commands += items.len();
                work.entry(group).or_default().extend(items);
            }
            if commands >= MAX_BATCH_COMMANDS {
                return (work, None);
            }
            match self.tasks.try_recv() {
                Ok(ApplyTask::Apply(next)) => more = next,
                Ok(other) => return (work, Some(other)),
                Err(_) => return (work, None),
            }
        }
    }

    /// Says whether the store still works.
    fn apply(&mut self, work: Work) -> bool {
        let groups: Vec<GroupId> = work.keys().copied().collect();
        let mut rest = Vec::with_capacity(work.len());
        for (group, mut items) in work {
            // A state that is to be hashed is as of its entry and nothing behind it.
            while let Some(at) = items.iter().position(|item| item.hash) {
                let later = items.split_off(at + 1);
                if !self.apply_together(vec![(group, items)]) {
                    return false;
                }
                items = later;
            }
            if !items.is_empty() {
                rest.push((group, items));
            }
        }
        self.apply_together(rest) && groups.into_iter().all(|group| self.capture_wanted(group))
    }

    /// Applies in one write; in more, if the machines take long, so that a slow one does not keep the answers of others.
    fn apply_together(&mut self, work: Vec<(GroupId, Vec<ApplyItem>)>) -> bool {
        let store = Arc::clone(&self.store);
        let (mut begun, mut done) = (Instant::now(), Vec::with_capacity(work.len()));
        for (group, items) in work {
            // A group that has failed applies nothing any more; whoever waits hears "unknown".
            let Some(machine) = self.machines.get_mut(&group) else { continue };
            if machine.is_broken {
                let why = "the state of the replica is damaged";
                let waiters = items.into_iter().filter_map(|item| item.waiter);
                waiters.for_each(|waiter| waiter.resolve(Err(ProposeError::Unknown { why })));
                continue;
            }
            match machine.apply(&*store, group, items) {
                Ok(effects) => done.push(effects),
                Err(error) => {
                    if !self.failed(group, error) {
                        return false;
                    }
                }
            }
            if begun.elapsed() > MAX_GATHERING {
                if !self.write(begun, std::mem::take(&mut done)) {
                    return false;
                }
                begun = Instant::now();
            }
        }
        done.is_empty() || self.write(begun, done)
    }

    /// Writes the effects of groups, and answers. Says whether the store still works.
    fn write(&mut self, begun: Instant, done: Vec<Applied<'_>>) -> bool {
        let writes: Vec<_> = done.iter().map(Applied::write).collect();
        if let Err(error) = self.store.apply_all(&writes) {
            return self.stop(error);
        }
        metrics::applied(begun.elapsed(), done.iter().map(|effects| effects.entries).sum());
        let mut applied = Vec::with_capacity(done.len());
        for Applied { group, through, compacts, hash, answers, .. } in done {
            let Some(machine) = self.machines.get_mut(&group) else { continue };
            let durable = match machine.written(through, compacts) {
                Ok(durable) => durable,
                Err(error) => match self.failed(group, Unapplied::of_write(error)) {
                    true => continue,
                    false => return false,
                },
            };
            for (waiter, answer) in answers {
                metrics::proposal_done(waiter.since.elapsed());
                waiter.resolve(answer);
            }
            if hash {
                // Before it is said to be applied: nothing takes the place of the state until then.
                self.capture(group, through);
            }
            applied.push((group, through, durable));
        }
        self.mailbox.tell(Input::Applied(applied));
        true
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
                self.mailbox.tell(Input::Applied(vec![(group, index, index)]));
                self.capture_wanted(group)
            }
            // Nothing is written but by a machine that keeps its own position.
            Err(error) => self.failed(group, Unapplied::of_read(error)),
        }
    }

    /// The store does not work any more.
    fn stop(&self, error: StoreError) -> bool {
        tracing::error!(%error, "effects could not be written; the raftstore stops");
        self.mailbox.tell(Input::Stop(Arc::new(GroupFailure::Store(error))));
        false
    }

    /// Says whether the store still works.
    fn failed(&mut self, group: GroupId, error: Unapplied) -> bool {
        match error {
            Unapplied::Write(error) => self.stop(error),
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

/// What applying has brought a group to, and is to be written.
struct Applied<'a> {
    group: GroupId,
    entries: usize,
    effects: ApplyBatch<'a>,
    to: AppliedTo,
    through: LogIndex,
    compacts: bool,
    hash: bool,
    answers: Vec<Answered>,
}

impl Applied<'_> {
    fn write(&self) -> ApplyWrite<'_> {
        ApplyWrite { group: self.group, writes: self.effects.writes(), applied: &self.to }
    }
}

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

    /// Applies entries; says what is to be written, and answered then.
    fn apply<'a>(
        &mut self,
        store: &'a dyn GroupStore,
        group: GroupId,
        items: Vec<ApplyItem>,
    ) -> Result<Applied<'a>, Unapplied> {
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
        let through = items.last().map_or(self.noted, |item| item.entry.index());
        // A machine that keeps its own position may be behind what was noted, and catches up.
        (self.noted, self.through) = (self.noted.max(through), through);
        let membership = items.iter().rev().find_map(|item| item.membership.clone());
        if let Some(unhealthy) = items.iter().find_map(|item| item.unhealthy) {
            // Before its entry counts as applied: if we die in between, the entry says it once more.
            store.mark_unhealthy(group, unhealthy, false).map_err(Unapplied::Write)?;
        }
        let to = AppliedTo { index: self.noted, membership };
        let (entries, compacts) = (items.len(), items.iter().any(|item| item.compacts));
        let hash = items.last().is_some_and(|item| item.hash);
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
        Ok(Applied { group, entries, effects: batch, to, through, compacts, hash, answers })
    }

    /// The effects up to an entry are written; says up to where they are durable, or as good as.
    fn written(&mut self, through: LogIndex, compacts: bool) -> Result<LogIndex, ApplyError> {
        self.machine.written();
        // What is in the batch comes before every later write of this store; what a machine keeps itself does not.
        match (&self.sessions, compacts) {
            (Some(_), _) => Ok(through),
            (None, true) => self.machine.flush(),
            (None, false) => Ok(LogIndex::default()),
        }
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
