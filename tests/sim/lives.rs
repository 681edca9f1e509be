//! Replicas are made, removed, destroyed, and made again under new numbers. What was destroyed stays so: whatever arrives
//! late, whoever asks for it again, and wherever the power goes.

use super::disk::Op;
use super::host::Task;
use super::replica::{Machine, Replica};
use super::seen::Happening;
use super::world::{Checked, Event, TICK, World, violated};
use crate::ident::{GroupId, NodeId, ReplicaId};
use crate::raftstore::entry::Membership;
use crate::raftstore::log_store::LogWrite;
use crate::raftstore::rules::{self, Outline};

/// Out of a thousand replicas that are made, how many meet a crash.
const CRASH_IN_MAKING: u64 = 50;

impl Replica {
    pub(super) fn group_id(&self) -> GroupId {
        GroupId::new(self.cell as u64 + 1)
    }

    pub(super) fn destruction(&self) -> Op {
        Op::Destroy { group: self.group_id(), replica: self.id }
    }
}

impl World {
    /// At each start a node makes the replicas that it is to have at first, as if it had never been up before.
    pub(super) fn found(&mut self, host: usize) -> Checked {
        for group in 0..self.cells.len() {
            let place = self.place(group, ReplicaId::new(host as u64 + 1));
            let membership = self.plan.founding(self.replicas[place].id);
            if self.made_on(host, group).is_none() {
                self.make(place, membership)?;
            }
        }
        Ok(())
    }

    /// A replica is made, if the rules that every store keeps allow it.
    fn make(&mut self, place: usize, membership: Membership) -> Checked {
        let Replica { id, host, cell, was_destroyed, .. } = self.replicas[place];
        if !self.hosts[host].is_up {
            return Ok(());
        }
        let mut write = LogWrite::new(self.replicas[place].group_id());
        write.create = Some((ReplicaId::new(id), membership.clone()));
        let known = self.made_on(host, cell).map(|_| Outline::default());
        let tombstone = self.hosts[host].disk.current.tombstone(write.group).map(ReplicaId::new);
        let judged = rules::plan(&[write], |_| known, |_| tombstone, |_| None, |_, _| Ok(None));
        if judged.is_err() {
            if was_destroyed && known.is_none() {
                self.seen.note(Happening::RemakeRefused);
            }
            return Ok(());
        }
        if was_destroyed && self.rules {
            return violated("destroyed stays destroyed", format!("{} of group {} is made again", id, cell + 1));
        }
        self.note(|_| format!("{}: made", place + 1));
        self.write(place, Op::Make(membership));
        if !self.healed && self.rng.chance(CRASH_IN_MAKING) {
            return self.crash(host, true);
        }
        self.hosts[host].disk.sync();
        self.start(place)
    }

    /// An order that comes late.
    pub(super) fn make_again(&mut self, place: usize) -> Checked {
        self.make(place, Membership::default())
    }

    /// Some node that has no replica of some group gets one, under a number that is new.
    pub(super) fn remake(&mut self, host: usize) -> Checked {
        let group = self.draw_group();
        if self.made_on(host, group).is_some() {
            return Ok(());
        }
        let known = self.places_of(group).filter_map(|place| self.replicas[place].group.as_ref());
        let highest = known.map(|group| group.status().membership.highest.get()).max().unwrap_or(0);
        let tombstone = self.hosts[host].disk.current.tombstone(GroupId::new(group as u64 + 1));
        let highest = highest.max(tombstone.unwrap_or(0));
        let is_new = |place: &usize| {
            let it = &self.replicas[*place];
            it.host == host && it.id > highest && !it.was_destroyed
        };
        let Some(place) = self.places_of(group).find(is_new) else { return Ok(()) };
        self.seen.note(Happening::Remade);
        let late = self.rng.range(1, 60) * TICK;
        self.after(late, Event::Make { place });
        self.make(place, Membership::default())
    }

    /// A replica that was removed from some group, as somebody knows, is destroyed.
    pub(super) fn destroy_removed(&mut self) -> Checked {
        let group = self.draw_group();
        let removed = |place: &usize| {
            let id = ReplicaId::new(self.replicas[*place].id);
            let knows = |other: usize| self.replicas[other].group.as_ref().is_some_and(|it| it.knows_removed(id));
            self.replicas[*place].group.is_some() && self.places_of(group).any(knows)
        };
        let found: Vec<usize> = self.places_of(group).filter(removed).collect();
        match found.is_empty() {
            true => Ok(()),
            false => {
                let place = self.rng.pick(&found);
                self.destroy(place)
            }
        }
    }

    /// A replica that was removed spoke up: it is told so, if that is settled.
    pub(super) fn tell_removed(&mut self, by: usize, place: usize) {
        let (id, (from, to)) =
            (ReplicaId::new(self.replicas[place].id), (self.replicas[by].host, self.replicas[place].host));
        let knows = self.replicas[by].group.as_ref().is_some_and(|group| group.knows_removed(id));
        if self.plan.lives > 1 && knows && !self.blocked[from][to] {
            let delay = self.message_delay();
            self.after(delay, Event::Removed { place, by });
        }
    }

    /// Somebody tells a replica that it was removed.
    pub(super) fn removed(&mut self, place: usize, by: usize) -> Checked {
        let Replica { id, host: node, .. } = self.replicas[by];
        let knows = |group: &crate::raftstore::group::Group| {
            group.node_of(ReplicaId::new(id)) == Some(NodeId::new(node as u64 + 1))
        };
        match self.replicas[place].group.as_ref().is_some_and(knows) {
            true => self.destroy(place),
            false => Ok(()),
        }
    }

    /// It hears nothing any more; then its tombstone is written behind all that was to be written of it.
    fn destroy(&mut self, place: usize) -> Checked {
        self.note(|_| format!("{}: is to be destroyed", place + 1));
        self.end_here(place);
        let host = self.replicas[place].host;
        self.replicas[place].is_closing = true;
        self.hosts[host].to_write.push_back(Task::Destroy { place });
        self.begin_write(host);
        Ok(())
    }

    /// Whoever asked for it hears that it is done.
    pub(super) fn destroyed(&mut self, place: usize) {
        self.note(|_| format!("{}: destroyed", place + 1));
        self.seen.note(Happening::Destroyed);
        let op = self.replicas[place].destruction();
        self.write(place, op);
        let it = &mut self.replicas[place];
        // What a machine keeps itself goes, too.
        (it.was_destroyed, it.flushed) = (true, Machine::default());
    }

    /// After a crash it may be gone although nobody heard so.
    pub(super) fn note_destroyed(&mut self, place: usize) {
        let Replica { host, is_closing, .. } = self.replicas[place];
        let is_gone = is_closing && self.hosts[host].disk.current.get(place).is_none();
        self.replicas[place].was_destroyed |= is_gone;
    }
}
