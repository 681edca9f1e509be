//! Replicas that sleep, and nodes that say to each other that they live: over the same network as everything else, and
//! always, as if there were other groups that sleep.

use super::replica::Replica;
use super::seen::Happening;
use super::world::{Checked, Event, TICK, World, violated};
use crate::ident::{GroupId, NodeId, ReplicaId};
use crate::raftstore::beat::Word;
use crate::raftstore::group::{Group, Sleep};

fn node_id(host: usize) -> NodeId {
    NodeId::new(host as u64 + 1)
}

impl World {
    /// Time passes on a node, for all its groups together.
    pub(super) fn tick_lives(&mut self, host: usize) -> Checked {
        if self.plan.hibernate_after == 0 {
            return Ok(());
        }
        let it = &mut self.hosts[host];
        let words = std::mem::take(&mut it.words);
        let broken: Vec<GroupId> =
            words.into_iter().flat_map(|(from, word)| it.sleepers.hear(node_id(from), word)).collect();
        let silent = it.sleepers.tick();
        let word = it.sleepers.own();
        for (groups, happening) in [(broken, Happening::WokenByWord), (silent, Happening::WokenBySilence)] {
            for group in groups {
                if let Some(place) = self.made_on(host, group.get() as usize - 1) {
                    self.rouse(place, happening);
                }
            }
        }
        for to in (0..self.hosts.len()).filter(|to| *to != host) {
            self.send_word(host, to, word);
        }
        self.places_on(host).into_iter().try_for_each(|place| self.check_noticed(place))
    }

    fn send_word(&mut self, from: usize, to: usize, word: Word) {
        if self.blocked[from][to] || (!self.healed && self.rng.chance(self.plan.dropped)) {
            return;
        }
        let copies = 1 + u64::from(!self.healed && self.rng.chance(self.plan.duplicated));
        for _ in 0..copies {
            let delay = self.message_delay();
            self.after(delay, Event::Word { from, host: to, word });
        }
    }

    /// A node's word has arrived.
    pub(super) fn word(&mut self, from: usize, host: usize, word: Word) {
        if !self.blocked[from][host] {
            self.hosts[host].words.insert(from, word);
        }
    }

    /// Something is about to happen to a replica.
    pub(super) fn rouse(&mut self, place: usize, why: Happening) {
        let it = &mut self.replicas[place];
        let (id, sleepers) = (it.group_id(), &mut self.hosts[it.host].sleepers);
        let Some(group) = it.group.as_mut().filter(|group| group.sleep().is_some()) else { return };
        group.wake(|node| sleepers.silence(id, node));
        sleepers.woke(id);
        self.seen.note(why);
        self.note(|_| format!("{}: {}", place + 1, why.words()));
    }

    /// A replica may have fallen asleep.
    pub(super) fn lull(&mut self, place: usize) -> Checked {
        let it = &mut self.replicas[place];
        let (id, sleepers) = (it.group_id(), &mut self.hosts[it.host].sleepers);
        let Some((group, sleep)) = it.group.as_ref().and_then(|group| Some((group, group.sleep()?))) else {
            // Not that of another replica, which has its place now.
            if it.group.is_some() {
                sleepers.woke(id);
            }
            return Ok(());
        };
        if sleepers.contains(id) {
            return Ok(());
        }
        let (nodes, patience) = (group.other_nodes(), group.patience_ticks());
        let restless = sleepers.fell_asleep(id, sleep, nodes, patience);
        self.note(|_| format!("{}: falls asleep, {sleep:?}", place + 1));
        self.seen.note(if sleep == Sleep::Leading { Happening::LeaderSlept } else { Happening::FollowerSlept });
        if !restless.is_empty() {
            self.rouse(place, Happening::WokenByWord);
        }
        self.check_sleep(place, sleep)
    }

    /// Who sleeps leaves nobody waiting, and nobody behind.
    fn check_sleep(&self, place: usize, sleep: Sleep) -> Checked {
        let it = &self.replicas[place];
        if !self.rules {
            return Ok(());
        }
        if !it.requests.is_empty() {
            return violated("nobody waits for who sleeps", format!("{}: {:?}", place + 1, it.requests));
        }
        let last = it.positions.last.get();
        let own = self.store(place).position(last);
        let lacks = |other: &ReplicaId| {
            let other = self.place(it.cell, *other);
            let durable = self.hosts[self.replicas[other].host].disk.durable.get(other);
            durable.is_none_or(|durable| durable.position(last) != own)
        };
        let behind = it.membership.nodes.keys().copied().find(lacks);
        match behind.filter(|_| sleep == Sleep::Leading) {
            Some(behind) => violated("nobody is behind who sleeps", format!("{}: {behind} lacks entry {last}", it.id)),
            None => Ok(()),
        }
    }

    /// Nobody sleeps for long when there is no leader. Whatever is lost, delayed or cut.
    fn check_noticed(&mut self, place: usize) -> Checked {
        let asleep = self.replicas[place].group.as_ref().is_some_and(|group| group.sleep().is_some());
        let somebody_leads = self.leader_of(self.replicas[place].cell).is_some();
        let it = &mut self.replicas[place];
        it.unnoticed = if asleep && !somebody_leads { it.unnoticed + 1 } else { 0 };
        let bound = self.plan.long_delay / TICK + 6 * self.plan.election_ticks + 20;
        match it.unnoticed > bound {
            true => violated("a dead leader is noticed", format!("{} slept on for {bound} ticks", place + 1)),
            false => Ok(()),
        }
    }

    /// A replica ends, a leader if there is one, and its node goes on living; after a while it is opened again.
    pub(super) fn stop_replica(&mut self, host: usize) -> Checked {
        let group = self.draw_group();
        let place = self.leader_of(group).unwrap_or_else(|| self.place_on(host, group));
        if self.replicas[place].group.is_none() {
            return Ok(());
        }
        self.note(|_| format!("{}: ends", place + 1));
        self.end_here(place);
        let Replica { host, life, .. } = self.replicas[place];
        self.hosts[host].forget_writes(place);
        // As long as a node is away at most, or longer.
        let delay = self.rng.range(10, 4 * self.plan.outage_ticks) * TICK;
        self.after(delay, Event::Reopen { place, life });
        Ok(())
    }

    /// A replica ends on a node that goes on.
    pub(super) fn end_here(&mut self, place: usize) {
        let it = &self.replicas[place];
        let sleeps_leading = it.group.as_ref().is_some_and(|group| group.sleep() == Some(Sleep::Leading));
        if sleeps_leading {
            self.seen.note(Happening::EndedAsleep);
        }
        let (id, host) = (it.group_id(), it.host);
        let gave_word = it.group.as_ref().is_some_and(Group::gave_word);
        self.end(place);
        let sleepers = &mut self.hosts[host].sleepers;
        sleepers.woke(id);
        if gave_word {
            sleepers.break_word();
        }
    }
}

impl Replica {
    /// Whether it would not even notice this message.
    pub(super) fn sleeps_through(&self, message: &crate::raftstore::message::Message) -> bool {
        self.group.as_ref().is_some_and(|group: &Group| group.sleeps_through(message))
    }
}
