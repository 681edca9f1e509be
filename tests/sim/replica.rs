//! One node: a driver around the pure group, on the simulated disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::disk::{Disk, Op};
use super::rng::{Digest, Rng};
use super::seen::Happening;
use super::snapshots::Captured;
use super::watch::Mark;
use super::world::{Checked, Event, TICK, Violation, World, violated};
use crate::ident::LogIndex;
use crate::raftstore::beat::Word;
use crate::raftstore::entry::Membership;
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::group::{
    Answer, Committed, Group, GroupConfig, LogRead, Persist, PersistId, Positions, Role, TermRuns,
};
use crate::raftstore::sleepers::Sleepers;

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
    fn digest(&self) -> u64 {
        let fold = |digest: Digest, (key, value): (&u8, &u64)| digest.number(u64::from(*key)).number(*value);
        self.registers.iter().fold(Digest::new(), fold).0
    }
}

pub(super) struct Node {
    pub(super) id: u64,
    config: GroupConfig,
    /// `None` while it is down.
    pub(super) group: Option<Group>,
    /// Counts starts and crashes.
    pub(super) life: u32,
    pub(super) disk: Disk,
    pub(super) machine: Machine,
    /// What survives of a machine that keeps its own position.
    flushed: Machine,
    pub(super) paused_until: u64,
    pub(super) stalled_until: u64,
    pub(super) next_write_fails: bool,
    pub(super) next_apply_fails: bool,
    to_write: VecDeque<Persist>,
    writing: Vec<Persist>,
    to_apply: VecDeque<Work>,
    applying: Vec<Work>,
    pub(super) captured: Option<Captured>,
    /// The log that a snapshot stands for, while that is taken over.
    pub(super) taking: Option<Vec<Mark>>,
    /// From Raft's word until the machine knows.
    pub(super) is_taking_over: bool,
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
    /// What others said since the last tick.
    pub(super) words: BTreeMap<usize, Word>,
    pub(super) sleepers: Sleepers,
    /// The replica has ended, and the process goes on.
    pub(super) lives_without: bool,
    /// Ticks that it slept without a leader.
    pub(super) unnoticed: u64,
    /// The length of its ticks: clocks do not agree.
    tick: u64,
}

impl Work {
    fn command(self) -> Option<Committed> {
        match self {
            Work::Apply(committed) => Some(*committed),
            Work::Restore(_) => None,
        }
    }
}

impl Node {
    pub(super) fn new(id: u64, config: GroupConfig, membership: Membership, rng: &mut Rng) -> Node {
        Node {
            id,
            config,
            group: None,
            life: 0,
            disk: Disk::founded(membership),
            machine: Machine::default(),
            flushed: Machine::default(),
            paused_until: 0,
            stalled_until: 0,
            next_write_fails: false,
            next_apply_fails: false,
            to_write: VecDeque::new(),
            writing: Vec::new(),
            to_apply: VecDeque::new(),
            applying: Vec::new(),
            captured: None,
            taking: None,
            is_taking_over: false,
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
            words: BTreeMap::new(),
            sleepers: Sleepers::new(0),
            lives_without: false,
            unnoticed: 0,
            tick: rng.range(TICK - 10, TICK + 10),
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.group.is_some() && self.positions.role == Role::Leader
    }
}

impl World {
    /// The process starts.
    pub(super) fn start(&mut self, node: usize) -> Checked {
        let (seed, word) = (self.rng.next(), self.rng.next());
        let own = self.plan.own_machine;
        if self.nodes[node].disk.forget_filling() {
            self.seen.note(Happening::CrashedFilling);
        }
        let it = &mut self.nodes[node];
        it.life += 1;
        (it.captured, it.taking, it.is_taking_over) = (None, None, false);
        it.mirrored = PersistId::default();
        (it.sleepers, it.lives_without) = (Sleepers::new(word), false);
        it.words.clear();
        it.machine = match own {
            true => it.flushed.clone(),
            false => Machine { applied: it.disk.current.applied, registers: it.disk.current.registers.clone() },
        };
        let store = &it.disk.current;
        let stored = store.stored(it.id, store.applied);
        let own = own.then_some(LogIndex::new(it.machine.applied));
        if own.unwrap_or(stored.applied) < stored.truncated.index
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
        let it = &mut self.nodes[node];
        it.group = Some(group.map_err(|error| Violation { check: "it opens", what: error.to_string() })?);
        let (life, tick, id) = (it.life, it.tick, it.id);
        if stored.applied < stored.last.index && life > 1 {
            self.seen.note(Happening::Replayed);
        }
        self.note(|world| format!("{id}: starts, {:?}", world.nodes[node].group.as_ref().map(Group::positions)));
        let marks = self.nodes[node].mirror.clone();
        let mut before = 0;
        for (index, mark) in (1..).zip(marks) {
            self.watch.entry(index, mark, before)?;
            before = mark.term;
        }
        let after = self.rng.below(tick) + 1;
        self.after(after, Event::Tick { node, life });
        self.drive(node)
    }

    /// The power goes.
    pub(super) fn crash(&mut self, node: usize, restart: bool) -> Checked {
        if self.nodes[node].group.is_none() {
            return Ok(());
        }
        self.note(|_| format!("{}: crashes", node + 1));
        let it = &mut self.nodes[node];
        it.group = None;
        it.life += 1;
        it.paused_until = 0;
        it.next_write_fails = false;
        it.next_apply_fails = false;
        let in_flight = it.writing.drain(..).map(Op::Log).collect();
        it.to_write.clear();
        it.to_apply.clear();
        it.applying.clear();
        it.disk.crash(in_flight, &mut self.rng);
        let term = it.positions.term.get();
        if it.disk.durable.hard_state.term.get() < term && it.told_term < term {
            self.watch.forget_leader(it.id, term);
        }
        for (operation, _) in std::mem::take(&mut it.requests).into_values() {
            self.unknown(operation);
        }
        let life = self.nodes[node].life;
        if restart {
            let most = self.rng.pick(&[1, 5 * TICK, self.plan.outage_ticks * TICK]);
            let delay = self.rng.below(most) + 1;
            self.after(delay, Event::Restart { node, life });
        }
        Ok(())
    }

    pub(super) fn tick(&mut self, node: usize) -> Checked {
        let (life, tick) = (self.nodes[node].life, self.nodes[node].tick);
        self.after(tick, Event::Tick { node, life });
        self.tick_lives(node)?;
        let clock = self.clock(node);
        if let Some(group) = &mut self.nodes[node].group {
            group.clock(clock);
            group.tick();
        }
        self.drive(node)
    }

    /// What time it is there: as fast as its ticks.
    pub(super) fn clock(&self, node: usize) -> u64 {
        self.now * 1000 / self.nodes[node].tick
    }

    /// Carries out what the group wants done, and looks at it.
    pub(super) fn drive(&mut self, node: usize) -> Checked {
        let Some(group) = &mut self.nodes[node].group else { return Ok(()) };
        let effects = match group.effects() {
            Ok(effects) => effects,
            Err(error) => return violated("it goes on", error.to_string()),
        };
        self.mirror(node, &effects)?;
        self.watch_changes(node, &effects)?;
        self.watch_node(node)?;
        let crash = !self.healed && !effects.is_empty() && self.rng.chance(self.plan.crash_in_effects);
        let mut left = if crash { self.rng.below(effects.send.len() as u64 + 4) } else { u64::MAX };
        for message in effects.send {
            if left == 0 {
                break;
            }
            left -= 1;
            self.send(node, message)?;
        }
        let mut may = || {
            let may = left > 0;
            left = left.saturating_sub(1);
            may
        };
        if may() {
            self.nodes[node].to_write.extend(effects.persist);
            self.begin_write(node);
        }
        if may() {
            let it = &mut self.nodes[node];
            it.to_apply.extend(effects.restored.map(|index| Work::Restore(index.get())));
            it.to_apply.extend(effects.apply.into_iter().map(|committed| Work::Apply(Box::new(committed))));
            self.begin_apply(node);
        }
        if effects.release {
            self.nodes[node].captured = None;
        }
        if let Some(id) = effects.capture {
            let life = self.nodes[node].life;
            let delay = self.delay(node, self.plan.read_delay);
            self.after(delay, Event::Capture { node, life, id });
        }
        if may() {
            self.read_log(node, effects.read_log);
            for answer in effects.answers {
                self.answer(node, &answer)?;
            }
        }
        if crash {
            self.seen.note(Happening::CrashedInEffects);
            return self.crash(node, true);
        }
        self.lull(node)
    }

    fn delay(&mut self, node: usize, most: u64) -> u64 {
        let most = if self.healed { 10 } else { most };
        let stalled = self.nodes[node].stalled_until.saturating_sub(self.now);
        1 + stalled + self.rng.below(most)
    }

    fn begin_write(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if !it.writing.is_empty() || it.to_write.is_empty() {
            return;
        }
        let count = if self.rng.chance(self.plan.whole_batches) { it.to_write.len() } else { 1 };
        it.writing = it.to_write.drain(..count).collect();
        let life = it.life;
        let delay = self.delay(node, self.plan.write_delay);
        self.after(delay, Event::Written { node, life });
    }

    /// A batch of log writes is done.
    pub(super) fn written(&mut self, node: usize) -> Checked {
        let ignored = fault::active(Fault::PersistErrorIgnored);
        let failed = std::mem::take(&mut self.nodes[node].next_write_fails);
        if failed {
            self.note(|_| format!("{}: a write fails", node + 1));
            self.seen.note(Happening::WriteFailed);
            if !ignored {
                // Rule of durable order 5: what was written is not known, and nothing is written ever after.
                return self.crash(node, true);
            }
        }
        let batch = std::mem::take(&mut self.nodes[node].writing);
        let ids: Vec<_> = batch.iter().map(|persist| persist.id).collect();
        let must_sync = batch.iter().any(|persist| persist.must_sync);
        for persist in batch {
            if !failed {
                self.nodes[node].disk.write(Op::Log(persist));
            }
        }
        if must_sync {
            self.nodes[node].disk.sync();
        }
        self.note(|_| format!("{}: {ids:?} written{}", node + 1, if must_sync { " and synced" } else { "" }));
        let last = ids.last().copied();
        let one_by_one = self.rng.chance(300);
        for id in ids {
            if one_by_one || Some(id) == last {
                let Some(group) = &mut self.nodes[node].group else { return Ok(()) };
                group.persisted(id);
                self.drive(node)?;
            }
        }
        self.begin_write(node);
        Ok(())
    }

    fn begin_apply(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if !it.applying.is_empty() || it.to_apply.is_empty() {
            return;
        }
        let most = self.rng.range(1, it.to_apply.len() as u64) as usize;
        // What comes with a snapshot comes alone.
        let commands = it.to_apply.iter().take(most).take_while(|work| matches!(work, Work::Apply(_))).count();
        it.applying = it.to_apply.drain(..commands.max(1)).collect();
        let life = it.life;
        let delay = self.delay(node, self.plan.apply_delay);
        self.after(delay, Event::Applied { node, life });
    }

    /// A batch of commands is applied.
    pub(super) fn applied(&mut self, node: usize) -> Checked {
        let batch = std::mem::take(&mut self.nodes[node].applying);
        if let [Work::Restore(index)] = batch.as_slice() {
            return self.restored(node, *index);
        }
        let batch: Vec<Committed> = batch.into_iter().filter_map(Work::command).collect();
        if self.nodes[node].next_apply_fails && batch.iter().any(|committed| !committed.entry.data().is_empty()) {
            self.note(|_| format!("{}: a command cannot be applied", node + 1));
            self.seen.note(Happening::ApplyFailed);
            if !fault::active(Fault::ApplyErrorSkipped) {
                return self.crash(node, true);
            }
        }
        let mut writes = Vec::new();
        let mut responses = Vec::new();
        for committed in &batch {
            self.apply(node, committed, &mut writes)?;
            responses.extend(committed.request.map(|request| (request.0, committed.entry.data().to_vec())));
        }
        let index = self.nodes[node].machine.applied;
        let mut durable = index;
        let kept = batch.iter().rev().find_map(|committed| committed.membership.clone());
        let membership = kept.filter(|_| !fault::active(Fault::MembershipNotKept));
        let through = batch.last().map_or(0, |committed| committed.entry.index().get());
        if self.plan.own_machine {
            let disk = &mut self.nodes[node].disk;
            disk.write(Op::Apply { index: disk.current.applied.max(through), writes: Vec::new(), membership });
            if self.rng.chance(200) {
                self.nodes[node].flushed = self.nodes[node].machine.clone();
            }
            durable = self.nodes[node].flushed.applied;
        } else {
            self.nodes[node].disk.write(Op::Apply { index, writes, membership });
        }
        self.note(|_| format!("{}: applied up to {index}", node + 1));
        for (request, data) in responses {
            if self.change_answered(node, request, None) {
                continue;
            }
            self.acknowledged(node, request, &data)?;
        }
        let Some(group) = &mut self.nodes[node].group else { return Ok(()) };
        group.applied(LogIndex::new(through), LogIndex::new(durable));
        self.check_memory(node)?;
        self.drive(node)?;
        self.begin_apply(node);
        Ok(())
    }

    /// The machine reads again what the tables hold.
    fn restored(&mut self, node: usize, index: u64) -> Checked {
        let it = &mut self.nodes[node];
        let store = &it.disk.current;
        it.machine = Machine { applied: store.applied, registers: store.registers.clone() };
        it.is_taking_over = false;
        self.seen.note(Happening::Restored);
        let it = &self.nodes[node];
        if it.machine.applied != index {
            return violated("a snapshot moves forward", format!("{}: {index}, {}", it.id, it.machine.applied));
        }
        let (id, mark, digest) = (it.id, it.mirror[index as usize - 1], it.machine.digest());
        self.note(|_| format!("{id}: goes on from a snapshot at {index}"));
        self.watch.state(id, index, mark, digest)?;
        let Some(group) = &mut self.nodes[node].group else { return Ok(()) };
        group.applied(LogIndex::new(index), LogIndex::new(index));
        self.drive(node)?;
        self.begin_apply(node);
        Ok(())
    }

    fn apply(&mut self, node: usize, committed: &Committed, writes: &mut Vec<(u8, u64)>) -> Checked {
        let it = &mut self.nodes[node];
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
        if let Some((key, value)) = super::clients::decode(data) {
            // Only reached with a failure when that is ignored.
            if !std::mem::take(&mut it.next_apply_fails) {
                it.machine.registers.insert(key, value);
                writes.push((key, value));
            }
            self.history.applied(value).or_else(|what| violated("refused has no effect", what))?;
        }
        let it = &self.nodes[node];
        self.watch.state(it.id, index, Mark::of(&committed.entry), it.machine.digest())
    }

    /// Memory is bounded: what is applied leaves the cache when that is over its bound.
    fn check_memory(&self, node: usize) -> Checked {
        let it = &self.nodes[node];
        let Some(group) = &it.group else { return Ok(()) };
        let now = group.positions();
        let unapplied: usize = it.mirror.iter().skip(now.applied.get() as usize).map(|mark| mark.bytes).sum();
        match now.cache_bytes <= unapplied.max(it.config.cache_bytes) {
            true => Ok(()),
            false => violated("memory is bounded", format!("{}: {now:?}, {unapplied} bytes not applied", it.id)),
        }
    }

    fn read_log(&mut self, node: usize, reads: Vec<LogRead>) {
        for read in reads {
            let life = self.nodes[node].life;
            let delay = self.delay(node, self.plan.read_delay);
            self.after(delay, Event::LogRead { node, life, read });
        }
    }

    pub(super) fn log_read(&mut self, node: usize, read: &LogRead) -> Checked {
        let it = &mut self.nodes[node];
        let entries = it.disk.current.entries(read.range.start.get(), read.range.end.get(), read.limit_bytes);
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
        self.note(|_| format!("{}: read {read:?}", node + 1));
        self.drive(node)
    }

    fn answer(&mut self, node: usize, answer: &Answer) -> Checked {
        self.note(|_| format!("{}: {answer:?}", node + 1));
        match answer {
            Answer::Refused(request, refusal) if self.change_answered(node, request.0, Some(refusal)) => Ok(()),
            Answer::Unknown(request) if self.change_answered(node, request.0, None) => Ok(()),
            Answer::Readable(request, index) => self.readable(node, request.0, index.get()),
            Answer::Refused(request, refusal) => self.refused(node, request.0, *refusal),
            Answer::Unknown(request) => {
                self.seen.note(Happening::Unknown);
                let (operation, _) = self.take_request(node, request.0)?;
                self.unknown(operation);
                Ok(())
            }
        }
    }
}
