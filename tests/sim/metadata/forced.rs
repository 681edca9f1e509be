//! Most nodes are gone for good, and one goes on alone, as another cluster: its group by
//! [`recover`](crate::raftstore::recover), its metadata by a command that says so.
//!
//! What the survivor did not have is lost, and what it had stays, whether it was acknowledged or not. So from there on
//! everything is held against its log: what was committed, what the machine made of it, which registers hold what. What
//! clients saw before is checked up to there. Numbers that its log knows of are not given again.

use super::super::disk::Op;
use super::super::seen::Happening;
use super::super::world::{Checked, Event, TICK, Violation, World, violated};
use super::reference::Reference;
use crate::ident::GroupId;
use crate::meta::proto::ForceNew;
use crate::meta::proto::action::Kind;
use crate::raftstore::recover::{self, Recovery};

const GROUP: GroupId = GroupId::new(1);

impl World {
    /// Somebody decides that the others are gone, whether there was need or not.
    pub(in super::super) fn force(&mut self, host: usize) -> Checked {
        let place = self.place_on(host, 0);
        let Some(metadata) = self.metadata.as_ref().filter(|it| it.reference.model.is_formed && !it.is_forced) else {
            return Ok(());
        };
        let is_known = !metadata.reference.model.members.is_empty();
        if !is_known || !self.is_made(place) {
            return Ok(());
        }
        (0..self.hosts.len()).try_for_each(|host| self.crash(host, false))?;
        let store = self.store(place);
        let stored = store.stored(self.replicas[place].id, store.applied).with_applied_committed();
        let changes = recover::changes(&store.log, stored.applied);
        // Whoever is no member, or is alone, has nothing to be forced.
        let Ok(recovery) = Recovery::plan(GROUP, stored, changes) else {
            return (0..self.hosts.len()).try_for_each(|host| self.start_host(host));
        };
        self.note(|_| format!("node {} goes on alone: {recovery:?}", host + 1));
        self.seen.note(Happening::Forced);
        if recovery.unsure_entries() > 0 {
            self.seen.note(Happening::ForcedUnsure);
        }
        for (other, it) in self.hosts.iter_mut().enumerate() {
            it.is_gone = other != host;
        }
        let applied = recovery.stored.applied.get();
        self.write(place, Op::Recover(Box::new(recovery)));
        self.hosts[host].disk.sync();
        self.go_on_alone(place, applied)?;
        let life = self.hosts[host].life;
        let delay = self.rng.range(1, 5 * TICK);
        self.after(delay, Event::Restart { host, life });
        Ok(())
    }

    /// From here on everything is held against the survivor's log.
    fn go_on_alone(&mut self, place: usize, applied: u64) -> Checked {
        self.history.check().or_else(|what| violated("linearizability", what))?;
        let lost = self.cells[0].watch.committed.len() as u64 > self.store(place).log.len() as u64;
        if lost {
            self.seen.note(Happening::ForcedLost);
        }
        let log = self.store(place).log.clone();
        let mut reference = Reference::default();
        for entry in &log[..applied as usize] {
            reference.apply(entry, false)?;
        }
        // What all of the log comes to: the survivor commits it before it answers anybody.
        let mut whole = Reference::default();
        for entry in &log {
            whole.apply(entry, false)?;
        }
        let now = (0..self.plan.keys).map(|key| (key as u8, whole.register(key as u8))).collect();
        self.history.begin_anew(self.events, now);
        let states = (1..=applied).map(|index| reference.digest(index).unwrap_or_default()).collect();
        self.cells[0].watch.cut(states);
        let before = self.store(place).tables.digest();
        let expected = reference.digest(applied);
        if expected != Some(before) {
            let what = format!("{}: other tables after entry {applied}", place + 1);
            return Err(Violation { check: "replicas are equal", what });
        }
        if let Some(metadata) = &mut self.metadata {
            metadata.reference = reference;
            metadata.keepers.clear();
            metadata.activations.clear();
            metadata.led.clear();
            metadata.is_forced = true;
            metadata.watchers.begin_anew();
        }
        Ok(())
    }

    /// Whether the metadata does not know yet that one node goes on alone, and can be told.
    pub(super) fn is_forcing(&self) -> bool {
        let pending = self.metadata.as_ref().filter(|it| it.is_forced && !it.reference.model.knows_forced);
        pending.is_some_and(|it| !it.reference.model.members.is_empty())
    }

    /// What the metadata is to be told, if it does not know yet.
    pub(super) fn forced_command(&mut self) -> Option<Vec<Kind>> {
        let metadata = self.metadata.as_ref().filter(|it| it.is_forced && !it.reference.model.knows_forced)?;
        let survivor = match self.plan.voting {
            true => self.survivor()?,
            false => *metadata.reference.model.members.keys().next()?,
        };
        Some(vec![Kind::ForceNew(ForceNew { cluster_id: self.rng.next() | 1, survivor })])
    }
}
