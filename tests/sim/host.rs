//! One node: its disk, its clock, and what its replicas share. All their writes go one after the other, many at once.

use std::collections::{BTreeMap, VecDeque};

use super::disk::{Disk, Op};
use super::replica::Replica;
use super::rng::Rng;
use super::seen::Happening;
use super::stalls::DiskWatch;
use super::world::{Checked, Event, TICK, World};
use crate::raftstore::beat::Word;
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::group::{Persist, PersistId};
use crate::raftstore::sleepers::Sleepers;

/// What waits for the disk.
pub(super) enum Task {
    /// Of a life of a replica.
    Write { place: usize, life: u32, persist: Box<Persist> },
    /// Nothing of it comes behind.
    Destroy { place: usize },
}

impl Task {
    fn place(&self) -> usize {
        match self {
            Task::Write { place, .. } | Task::Destroy { place } => *place,
        }
    }
}

pub(super) struct Host {
    /// Counts starts and crashes.
    pub(super) life: u32,
    pub(super) is_up: bool,
    /// For good.
    pub(super) is_gone: bool,
    pub(super) disk: Disk,
    pub(super) paused_until: u64,
    pub(super) stalled_until: u64,
    pub(super) next_write_fails: bool,
    pub(super) to_write: VecDeque<Task>,
    writing: Vec<Task>,
    pub(super) disk_watch: DiskWatch,
    /// What others said since the last tick.
    pub(super) words: BTreeMap<usize, Word>,
    pub(super) sleepers: Sleepers,
    /// The length of its ticks: clocks do not agree.
    pub(super) tick: u64,
}

impl Host {
    pub(super) fn new(rng: &mut Rng) -> Host {
        Host {
            life: 0,
            is_up: false,
            is_gone: false,
            disk: Disk::default(),
            paused_until: 0,
            stalled_until: 0,
            next_write_fails: false,
            to_write: VecDeque::new(),
            writing: Vec::new(),
            disk_watch: DiskWatch::default(),
            words: BTreeMap::new(),
            sleepers: Sleepers::new(0),
            tick: rng.range(TICK - 10, TICK + 10),
        }
    }

    pub(super) fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// What a replica wanted to be written is not.
    pub(super) fn forget_writes(&mut self, of: usize) {
        self.to_write.retain(|task| task.place() != of);
        self.writing.retain(|task| task.place() != of);
    }
}

impl World {
    pub(super) fn places_on(&self, host: usize) -> Vec<usize> {
        let here = |place: &usize| self.replicas[*place].host == host;
        (0..self.replicas.len()).filter(here).collect()
    }

    /// The process starts.
    pub(super) fn start_host(&mut self, host: usize) -> Checked {
        if self.hosts[host].is_gone {
            return Ok(());
        }
        let word = self.rng.next();
        let it = &mut self.hosts[host];
        it.life += 1;
        it.is_up = true;
        it.sleepers = Sleepers::new(word);
        it.words.clear();
        it.disk_watch = DiskWatch::default();
        let (life, tick) = (it.life, it.tick);
        let after = self.rng.below(tick) + 1;
        self.after(after, Event::Tick { host, life });
        for place in self.places_on(host) {
            self.replicas[place].is_closing = false;
            if self.is_made(place) && self.is_up(host, life) {
                self.start(place)?;
            }
        }
        self.found(host)
    }

    /// The power goes.
    pub(super) fn crash(&mut self, host: usize, restart: bool) -> Checked {
        if !self.hosts[host].is_up {
            return Ok(());
        }
        self.note(|_| format!("node {}: crashes", host + 1));
        let it = &mut self.hosts[host];
        it.is_up = false;
        it.life += 1;
        it.paused_until = 0;
        it.next_write_fails = false;
        it.to_write.clear();
        let mut in_flight = Vec::new();
        for task in it.writing.drain(..) {
            in_flight.push(match task {
                Task::Write { place, persist, .. } => (place, Op::Log(*persist)),
                Task::Destroy { place } => (place, self.replicas[place].destruction()),
            });
        }
        if in_flight.iter().any(|(_, op)| matches!(op, Op::Destroy { .. })) {
            self.seen.note(Happening::CrashedDestroying);
        }
        self.hosts[host].disk.crash(in_flight, &mut self.rng);
        for place in self.places_on(host) {
            self.end(place);
            self.note_destroyed(place);
        }
        let life = self.hosts[host].life;
        if restart {
            let most = self.rng.pick(&[1, 5 * TICK, self.plan.outage_ticks * TICK]);
            let delay = self.rng.below(most) + 1;
            self.after(delay, Event::Restart { host, life });
        }
        Ok(())
    }

    /// Time passes on a node, for all its replicas.
    pub(super) fn tick(&mut self, host: usize) -> Checked {
        let (life, tick) = (self.hosts[host].life, self.hosts[host].tick);
        self.after(tick, Event::Tick { host, life });
        self.tick_lives(host)?;
        self.watch_disk(host)?;
        let (clock, word) = (self.clock(host), self.hosts[host].sleepers.own());
        for place in self.places_on(host) {
            // One of them may have brought the node down.
            if !self.is_up(host, life) {
                return Ok(());
            }
            let Some(group) = &mut self.replicas[place].group else { continue };
            if self.plan.hibernate_after > 0 {
                group.speak_as(word);
            }
            group.clock(clock);
            group.tick();
            self.drive(place)?;
            self.keep_time(place)?;
            self.keep_voters(place)?;
            self.tick_checked(place)?;
        }
        Ok(())
    }

    /// What time it is there: as fast as its ticks.
    pub(super) fn clock(&self, host: usize) -> u64 {
        self.now * 1000 / self.hosts[host].tick
    }

    pub(super) fn delay(&mut self, host: usize, most: u64) -> u64 {
        let most = if self.healed { 10 } else { most };
        let stalled = self.hosts[host].stalled_until.saturating_sub(self.now);
        1 + stalled + self.rng.below(most)
    }

    pub(super) fn begin_write(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        if !it.writing.is_empty() || it.to_write.is_empty() {
            return;
        }
        let most = if self.rng.chance(self.plan.whole_batches) { it.to_write.len() } else { 1 };
        // A replica is destroyed by a write of its own.
        let writes = it.to_write.iter().take(most).take_while(|task| matches!(task, Task::Write { .. })).count();
        it.writing = it.to_write.drain(..writes.max(1)).collect();
        let life = it.life;
        it.disk_watch.writing_since = self.now;
        let delay = self.delay(host, self.plan.write_delay);
        self.after(delay, Event::Written { host, life });
    }

    /// A batch of writes is done.
    pub(super) fn written(&mut self, host: usize) -> Checked {
        let ignored = fault::active(Fault::PersistErrorIgnored);
        let failed = std::mem::take(&mut self.hosts[host].next_write_fails);
        if failed {
            self.note(|_| format!("node {}: a write fails", host + 1));
            self.seen.note(Happening::WriteFailed);
            if !ignored {
                // Rule of durable order 5: what was written is not known, and nothing is written ever after.
                return self.crash(host, true);
            }
        }
        let (mut must_sync, mut done) = (false, Vec::new());
        for task in std::mem::take(&mut self.hosts[host].writing) {
            match task {
                Task::Destroy { place } => {
                    self.destroyed(place);
                    must_sync = true;
                }
                Task::Write { place, life, persist } => {
                    must_sync |= persist.must_sync;
                    done.push((place, life, persist.id));
                    if !failed {
                        self.write(place, Op::Log(*persist));
                    }
                }
            }
        }
        if must_sync {
            self.hosts[host].disk.sync();
        }
        self.note(|_| format!("node {}: {done:?} written{}", host + 1, if must_sync { " and synced" } else { "" }));
        if done.iter().any(|(place, ..)| self.replicas[*place].cell != self.replicas[done[0].0].cell) {
            self.seen.note(Happening::WrittenTogether);
        }
        self.tell_written(host, &done)?;
        self.begin_write(host);
        Ok(())
    }

    fn tell_written(&mut self, host: usize, done: &[(usize, u32, PersistId)]) -> Checked {
        let one_by_one = self.rng.chance(300);
        for (at, (place, life, id)) in done.iter().enumerate() {
            let is_last = !done.iter().skip(at + 1).any(|(other, ..)| other == place);
            if !one_by_one && !is_last || !self.lives(*place, *life) {
                continue;
            }
            if let Some(group) = &mut self.replicas[*place].group {
                group.persisted(*id);
            }
            self.drive(*place)?;
            if !self.hosts[host].is_up {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn is_made(&self, place: usize) -> bool {
        let Replica { host, .. } = &self.replicas[place];
        self.hosts[*host].disk.current.get(place).is_some()
    }
}
