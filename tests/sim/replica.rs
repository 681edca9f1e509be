//! One replica: a driver around the pure group, on its node's disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::checks::Trust;
use super::disk::{Op, Store};
use super::host::Task;
use super::metadata::MetaReplica;
use super::scenario::Plan;
use super::seen::Happening;
use super::snapshots::Captured;
use super::tables;
use super::watch::Mark;
use super::world::{Checked, Event, Violation, World, violated};
use crate::ident::LogIndex;
use crate::raftstore::entry::{EntryKind, Membership};
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::group::{
    Answer, Committed, Group, GroupConfig, LogRead, OwnPosition, PersistId, Positions, Role, TermRuns,
};
use crate::raftstore::log_store::TableWrite;

/// What the machine is to do.
pub(super) enum Work {
    Apply(Box<Committed>),
    /// Its tables were replaced, as of this entry.
    Restore(u64),
}

/// The registers, and up to where they are.
#[derive(Clone, Default)]
pub(super) struct Machine {
    pub(super) applied: u64,
    pub(super) registers: BTreeMap<u8, u64>,
}

impl Machine {
    pub(super) fn of(store: &Store) -> Machine {
        Machine { applied: store.applied, registers: store.tables.registers() }
    }
}

pub(super) struct Replica {
    /// Of which group, from 0, and on which node.
    pub(super) cell: usize,
    pub(super) host: usize,
    pub(super) id: u64,
    config: GroupConfig,
    /// `None` while it is down, or not made.
    pub(super) group: Option<Group>,
    /// Counts starts and ends.
    pub(super) life: u32,
    /// It is being destroyed.
    pub(super) is_closing: bool,
    pub(super) was_destroyed: bool,
    pub(super) machine: Machine,
    /// The metadata's machine, where that takes the registers' place.
    pub(super) meta: Option<MetaReplica>,
    /// What survives of a machine that keeps its own position.
    pub(super) flushed: Machine,
    pub(super) next_apply_fails: bool,
    to_apply: VecDeque<Work>,
    applying: Vec<Work>,
    pub(super) captured: Option<Captured>,
    /// The log that a snapshot stands for, while that is taken over.
    pub(super) taking: Option<Vec<Mark>>,
    /// From Raft's word until the machine knows.
    pub(super) is_taking_over: bool,
    /// As of the last snapshot that it took over in this life.
    pub(super) restored_to: u64,
    pub(super) trust: Trust,
    /// Up to where writes are in `mirror`.
    pub(super) mirrored: PersistId,
    /// The log as the group sees it, from index 1 on.
    pub(super) mirror: Vec<Mark>,
    pub(super) positions: Positions,
    /// As of the step before.
    pub(super) membership: Membership,
    /// As of the last change that was handed out.
    pub(super) config_now: Membership,
    /// The operations that wait here and the terms in which they came, by request.
    pub(super) requests: BTreeMap<u64, (usize, u64)>,
    /// Requests for a change of the membership.
    pub(super) changes: BTreeSet<u64>,
    pub(super) offered_leadership: bool,
    /// The highest term that it told anybody of.
    pub(super) told_term: u64,
    replays: u64,
    /// Ticks that it slept without a leader.
    pub(super) unnoticed: u64,
}

impl Work {
    fn command(self) -> Option<Committed> {
        match self {
            Work::Apply(committed) => Some(*committed),
            Work::Restore(_) => None,
        }
    }
}

impl Replica {
    pub(super) fn new(cell: usize, id: u64, plan: &Plan) -> Replica {
        Replica {
            cell,
            host: plan.host_of(id),
            id,
            config: plan.config(id),
            group: None,
            life: 0,
            is_closing: false,
            was_destroyed: false,
            machine: Machine::default(),
            meta: None,
            flushed: Machine::default(),
            next_apply_fails: false,
            to_apply: VecDeque::new(),
            applying: Vec::new(),
            captured: None,
            taking: None,
            is_taking_over: false,
            restored_to: 0,
            trust: Trust::default(),
            mirrored: PersistId::default(),
            mirror: Vec::new(),
            positions: Positions::default(),
            membership: Membership::default(),
            config_now: Membership::default(),
            requests: BTreeMap::new(),
            changes: BTreeSet::new(),
            offered_leadership: false,
            told_term: 0,
            replays: 0,
            unnoticed: 0,
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.group.is_some() && self.positions.role == Role::Leader
    }
}

impl World {
    /// A replica is opened.
    pub(super) fn start(&mut self, place: usize) -> Checked {
        let seed = self.rng.next();
        let own = self.plan.own_machine;
        let Replica { host, was_destroyed, .. } = self.replicas[place];
        if was_destroyed && self.rules {
            return violated("destroyed stays destroyed", format!("{} is opened", place + 1));
        }
        if self.hosts[host].disk.forget_filling(place) {
            self.seen.note(Happening::CrashedFilling);
        }
        if own && !fault::active(Fault::InstallForgotten) && !self.finish_install(place)? {
            return Ok(());
        }
        let it = &mut self.replicas[place];
        it.life += 1;
        (it.captured, it.taking, it.is_taking_over, it.restored_to) = (None, None, false, 0);
        it.mirrored = PersistId::default();
        let store = self.hosts[host].disk.current.of(place);
        it.machine = match own {
            true => it.flushed.clone(),
            false => Machine::of(store),
        };
        let stored = store.stored(it.id, store.applied);
        let gives_snapshots = self.plan.own_snapshots;
        let own = own.then_some(OwnPosition { applied: LogIndex::new(it.machine.applied), gives_snapshots });
        if own.map_or(stored.applied, |own| own.applied) < stored.truncated.index
            || own.is_some_and(|own| own.applied > stored.last.index)
            || stored.applied < stored.truncated.index
            || stored.applied > stored.last.index
        {
            let what = format!("{} starts with {stored:?}", it.id);
            return violated("what is stored agrees", what);
        }
        let terms = TermRuns::find(stored.truncated, stored.last, |index| {
            let missing = Violation { check: "what is stored agrees", what: format!("no entry {index}") };
            store.term(index).ok_or(missing)
        })?;
        it.mirror = store.log.iter().map(Mark::of).collect();
        it.positions = Positions::default();
        it.replays = 0;
        it.requests.clear();
        it.changes.clear();
        let group = Group::open(it.config.clone(), &stored, own, terms, seed);
        (it.membership, it.config_now) = (stored.membership.clone(), stored.membership.clone());
        if stored.membership.is_joint() {
            self.seen.note(Happening::StartedJoint);
        }
        let it = &mut self.replicas[place];
        let mut group = group.map_err(|error| Violation { check: "it opens", what: error.to_string() })?;
        group.stall(self.hosts[host].disk_watch.is_stalled);
        it.group = Some(group);
        let (life, cell) = (it.life, it.cell);
        if stored.applied < stored.last.index && life > 1 {
            self.seen.note(Happening::Replayed);
        }
        self.note(|world| {
            let positions = world.replicas[place].group.as_ref().map(Group::positions);
            format!("{}: starts, {positions:?}", place + 1)
        });
        let marks = self.replicas[place].mirror.clone();
        let mut before = 0;
        for (index, mark) in (1..).zip(marks) {
            self.cells[cell].watch.entry(index, mark, before)?;
            before = mark.term;
        }
        self.start_metadata(place)?;
        self.start_checked(place)?;
        self.drive(place)
    }

    /// A replica ends, with its process or without. What it knew is gone, but for what its node's disk shows.
    pub(super) fn end(&mut self, place: usize) {
        let it = &mut self.replicas[place];
        if it.group.take().is_none() {
            return;
        }
        it.life += 1;
        it.meta = None;
        it.next_apply_fails = false;
        it.to_apply.clear();
        it.applying.clear();
        let term = it.positions.term.get();
        let store = self.hosts[it.host].disk.current.get(place);
        if store.map_or(0, |store| store.hard_state.term.get()) < term && it.told_term < term {
            self.cells[it.cell].watch.forget_leader(it.id, term);
        }
        for (operation, _) in std::mem::take(&mut it.requests).into_values() {
            self.unknown(operation);
        }
    }

    /// Carries out what the group wants done, and looks at it.
    pub(super) fn drive(&mut self, place: usize) -> Checked {
        let Some(group) = &mut self.replicas[place].group else { return Ok(()) };
        let effects = match group.effects() {
            Ok(effects) => effects,
            Err(error) => return violated("it goes on", error.to_string()),
        };
        self.mirror(place, &effects)?;
        self.watch_changes(place, &effects)?;
        self.watch_replica(place)?;
        let crash = !self.healed && !effects.is_empty() && self.rng.chance(self.plan.crash_in_effects);
        let mut left = if crash { self.rng.below(effects.send.len() as u64 + 4) } else { u64::MAX };
        for message in effects.send {
            if left == 0 {
                break;
            }
            left -= 1;
            self.send(place, message)?;
        }
        let mut may = || {
            let may = left > 0;
            left = left.saturating_sub(1);
            may
        };
        if may() {
            let Replica { host, life, .. } = self.replicas[place];
            let tasks = effects.persist.into_iter().map(Box::new);
            let tasks = tasks.map(|persist| Task::Write { place, life, persist });
            self.hosts[host].to_write.extend(tasks);
            self.begin_write(host);
        }
        if may() {
            let it = &mut self.replicas[place];
            it.to_apply.extend(effects.restored.map(|index| Work::Restore(index.get())));
            it.to_apply.extend(effects.apply.into_iter().map(|committed| Work::Apply(Box::new(committed))));
            self.begin_apply(place);
        }
        if effects.release {
            self.replicas[place].captured = None;
        }
        if let Some(id) = effects.capture {
            let life = self.replicas[place].life;
            let delay = self.delay(self.replicas[place].host, self.plan.read_delay);
            self.after(delay, Event::Capture { place, life, id });
        }
        if may() {
            self.carry_out_checks(place, effects.checks, effects.checked)?;
            self.read_log(place, effects.read_log);
            for answer in effects.answers {
                self.answer(place, &answer)?;
            }
        }
        if crash {
            self.seen.note(Happening::CrashedInEffects);
            return self.crash(self.replicas[place].host, true);
        }
        self.lull(place)
    }

    fn begin_apply(&mut self, place: usize) {
        let it = &mut self.replicas[place];
        if !it.applying.is_empty() || it.to_apply.is_empty() {
            return;
        }
        let most = self.rng.range(1, it.to_apply.len() as u64) as usize;
        // What comes with a snapshot comes alone; a state that is to be hashed is as of its entry and nothing behind it.
        let is_hashed = |work: &Work| matches!(work, Work::Apply(committed) if committed.hash);
        let most = it.to_apply.iter().take(most).position(is_hashed).map_or(most, |at| at + 1);
        let commands = it.to_apply.iter().take(most).take_while(|work| matches!(work, Work::Apply(_))).count();
        it.applying = it.to_apply.drain(..commands.max(1)).collect();
        let life = it.life;
        let delay = self.delay(self.replicas[place].host, self.plan.apply_delay);
        self.after(delay, Event::Applied { place, life });
    }

    /// A batch of commands is applied.
    pub(super) fn applied(&mut self, place: usize) -> Checked {
        let batch = std::mem::take(&mut self.replicas[place].applying);
        if let [Work::Restore(index)] = batch.as_slice() {
            return self.restored(place, *index);
        }
        let batch: Vec<Committed> = batch.into_iter().filter_map(Work::command).collect();
        if self.replicas[place].next_apply_fails && batch.iter().any(|committed| !committed.entry.data().is_empty()) {
            self.note(|_| format!("{}: a command cannot be applied", place + 1));
            self.seen.note(Happening::ApplyFailed);
            if !fault::active(Fault::ApplyErrorSkipped) {
                return self.crash(self.replicas[place].host, true);
            }
        }
        let (mut writes, mut responses) = (Vec::new(), Vec::new());
        if self.replicas[place].meta.is_some() {
            (writes, responses) = self.apply_metadata(place, &batch)?;
        } else {
            for committed in &batch {
                self.apply(place, committed, &mut writes)?;
                responses.extend(committed.request.map(|request| (request.0, committed.entry.data().to_vec())));
            }
        }
        let index = self.replicas[place].machine.applied;
        let mut durable = index;
        let kept = batch.iter().rev().find_map(|committed| committed.membership.clone());
        let membership = kept.filter(|_| !fault::active(Fault::MembershipNotKept));
        let through = batch.last().map_or(0, |committed| committed.entry.index().get());
        self.write_mark(place, &batch);
        if self.plan.own_machine {
            let index = self.store(place).applied.max(through);
            self.write(place, Op::Apply { index, writes: Vec::new(), membership });
            if self.rng.chance(200) {
                self.replicas[place].flushed = self.replicas[place].machine.clone();
            }
            durable = self.replicas[place].flushed.applied;
        } else {
            self.write(place, Op::Apply { index, writes, membership });
        }
        self.metadata_written(place)?;
        self.note(|_| format!("{}: applied up to {index}", place + 1));
        for (request, data) in responses {
            if self.change_answered(place, request, None) {
                continue;
            }
            self.acknowledged(place, request, &data)?;
        }
        if batch.last().is_some_and(|committed| committed.hash) {
            self.hash(place, through);
        }
        let Some(group) = &mut self.replicas[place].group else { return Ok(()) };
        group.applied(LogIndex::new(through), LogIndex::new(durable));
        self.check_memory(place)?;
        self.drive(place)?;
        self.begin_apply(place);
        Ok(())
    }

    /// The machine reads again what the tables hold.
    fn restored(&mut self, place: usize, index: u64) -> Checked {
        if self.plan.own_machine && !self.install(place)? {
            return Ok(());
        }
        let it = &mut self.replicas[place];
        let store = self.hosts[it.host].disk.current.of(place);
        it.machine = match self.plan.own_machine {
            true => it.flushed.clone(),
            false => Machine::of(store),
        };
        it.is_taking_over = false;
        self.seen.note(Happening::Restored);
        let it = &self.replicas[place];
        if it.machine.applied != index {
            return violated("a snapshot moves forward", format!("{}: {index}, {}", it.id, it.machine.applied));
        }
        let (id, mark) = (it.id, it.mirror[index as usize - 1]);
        self.note(|_| format!("{id}: goes on from a snapshot at {index}"));
        if !self.restore_metadata(place)? {
            self.check_state(place, index, mark, None)?;
        }
        self.replaced(place);
        let Some(group) = &mut self.replicas[place].group else { return Ok(()) };
        group.applied(LogIndex::new(index), LogIndex::new(index));
        self.drive(place)?;
        self.begin_apply(place);
        Ok(())
    }

    fn apply(&mut self, place: usize, committed: &Committed, writes: &mut Vec<TableWrite>) -> Checked {
        let it = &mut self.replicas[place];
        let (index, data) = (committed.entry.index().get(), committed.entry.data());
        // A machine that keeps its own position knows what was noted later.
        if self.plan.own_machine && index <= it.machine.applied {
            return Ok(());
        }
        if index != it.machine.applied + 1 {
            let what = format!("{} applies entry {index} after {}", it.id, it.machine.applied);
            return violated("state-machine safety", what);
        }
        it.machine.applied = index;
        let is_command = committed.entry.kind() == EntryKind::Command;
        let written = super::clients::decode(data).filter(|_| is_command);
        if let Some((key, value)) = written {
            // Only reached with a failure when that is ignored.
            if !std::mem::take(&mut it.next_apply_fails) {
                it.machine.registers.insert(key, value);
                writes.push(tables::register(key, value));
            }
            self.history.applied(value).or_else(|what| violated("refused has no effect", what))?;
        }
        self.check_state(place, index, Mark::of(&committed.entry), written)
    }

    /// Memory is bounded: what is applied leaves the cache when that is over its bound.
    fn check_memory(&self, place: usize) -> Checked {
        let it = &self.replicas[place];
        let Some(group) = &it.group else { return Ok(()) };
        let now = group.positions();
        let unapplied: usize = it.mirror.iter().skip(now.applied.get() as usize).map(|mark| mark.bytes).sum();
        match now.cache_bytes <= unapplied.max(it.config.cache_bytes) {
            true => Ok(()),
            false => violated("memory is bounded", format!("{}: {now:?}, {unapplied} bytes not applied", it.id)),
        }
    }

    fn read_log(&mut self, place: usize, reads: Vec<LogRead>) {
        for read in reads {
            let life = self.replicas[place].life;
            let delay = self.delay(self.replicas[place].host, self.plan.read_delay);
            self.after(delay, Event::LogRead { place, life, read });
        }
    }

    pub(super) fn log_read(&mut self, place: usize, read: &LogRead) -> Checked {
        let it = &mut self.replicas[place];
        let store = self.hosts[it.host].disk.current.of(place);
        let entries = store.entries(read.range.start.get(), read.range.end.get(), read.limit_bytes);
        let Some(group) = &mut it.group else { return Ok(()) };
        if group.is_starting() {
            it.replays += 1;
            if it.replays == 2 {
                self.seen.note(Happening::ReplayPaged);
            }
        } else {
            self.seen.note(Happening::LogRead);
        }
        group.log_read(read, entries);
        self.note(|_| format!("{}: read {read:?}", place + 1));
        self.drive(place)
    }

    fn answer(&mut self, place: usize, answer: &Answer) -> Checked {
        self.note(|_| format!("{}: {answer:?}", place + 1));
        match answer {
            Answer::Refused(request, refusal) if self.change_answered(place, request.0, Some(refusal)) => Ok(()),
            Answer::Unknown(request) if self.change_answered(place, request.0, None) => Ok(()),
            Answer::Readable(request, index) => self.readable(place, request.0, index.get()),
            Answer::Refused(request, refusal) => self.refused(place, request.0, *refusal),
            Answer::Unknown(request) => {
                self.seen.note(Happening::Unknown);
                let (operation, _) = self.take_request(place, request.0)?;
                self.unknown(operation);
                Ok(())
            }
        }
    }
}
