//! Replicas that sleep, and nodes that say to each other that they live: over the same network as everything else, and
//! always, as if there were other groups that sleep.

use super::seen::Happening;
use super::world::{Checked, Event, TICK, World, violated};
use crate::ident::{GroupId, NodeId};
use crate::raftstore::beat::Word;
use crate::raftstore::group::{Group, Sleep};

/// The one group that there is.
const GROUP: GroupId = GroupId::new(1);

fn node_id(node: usize) -> NodeId {
    NodeId::new(node as u64 + 1)
}

impl World {
    /// Time passes on a node, for all its groups together.
    pub(super) fn tick_lives(&mut self, node: usize) -> Checked {
        if self.plan.hibernate_after == 0 {
            return Ok(());
        }
        let it = &mut self.nodes[node];
        let words = std::mem::take(&mut it.words);
        let broken: Vec<GroupId> =
            words.into_iter().flat_map(|(from, word)| it.sleepers.hear(node_id(from), word)).collect();
        let silent = it.sleepers.tick();
        let word = it.sleepers.own();
        if let Some(group) = &mut it.group {
            group.speak_as(word);
        }
        for (groups, happening) in [(broken, Happening::WokenByWord), (silent, Happening::WokenBySilence)] {
            if !groups.is_empty() {
                self.rouse(node, happening);
            }
        }
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            self.send_word(node, to, word);
        }
        self.check_noticed(node)
    }

    fn send_word(&mut self, from: usize, to: usize, word: Word) {
        if self.blocked[from][to] || (!self.healed && self.rng.chance(self.plan.dropped)) {
            return;
        }
        let copies = 1 + u64::from(!self.healed && self.rng.chance(self.plan.duplicated));
        for _ in 0..copies {
            let delay = self.message_delay();
            self.after(delay, Event::Word { from, node: to, word });
        }
    }

    /// A node's word has arrived.
    pub(super) fn word(&mut self, from: usize, node: usize, word: Word) {
        if !self.blocked[from][node] {
            self.nodes[node].words.insert(from, word);
        }
    }

    /// Something is about to happen to a replica.
    pub(super) fn rouse(&mut self, node: usize, why: Happening) {
        let it = &mut self.nodes[node];
        let Some(group) = it.group.as_mut().filter(|group| group.sleep().is_some()) else { return };
        group.wake(|node| it.sleepers.silence(GROUP, node));
        it.sleepers.woke(GROUP);
        self.seen.note(why);
        self.note(|_| format!("{}: {}", node + 1, why.words()));
    }

    /// A replica may have fallen asleep.
    pub(super) fn lull(&mut self, node: usize) -> Checked {
        let it = &mut self.nodes[node];
        let Some((group, sleep)) = it.group.as_ref().and_then(|group| Some((group, group.sleep()?))) else {
            it.sleepers.woke(GROUP);
            return Ok(());
        };
        if it.sleepers.contains(GROUP) {
            return Ok(());
        }
        let (nodes, patience) = (group.other_nodes(), group.patience_ticks());
        let restless = it.sleepers.fell_asleep(GROUP, sleep, nodes, patience);
        self.note(|_| format!("{}: falls asleep, {sleep:?}", node + 1));
        self.seen.note(if sleep == Sleep::Leading { Happening::LeaderSlept } else { Happening::FollowerSlept });
        if !restless.is_empty() {
            self.rouse(node, Happening::WokenByWord);
        }
        self.check_sleep(node, sleep)
    }

    /// Who sleeps leaves nobody waiting, and nobody behind.
    fn check_sleep(&self, node: usize, sleep: Sleep) -> Checked {
        let it = &self.nodes[node];
        if !self.watch.rules {
            return Ok(());
        }
        if !it.requests.is_empty() {
            return violated("nobody waits for who sleeps", format!("{}: {:?}", node + 1, it.requests));
        }
        let last = it.positions.last.get();
        let lacks = |other: &u64| {
            let other = &self.nodes[*other as usize - 1];
            other.disk.durable.position(last) != it.disk.current.position(last)
        };
        let behind = it.membership.nodes.keys().map(|replica| replica.get()).find(lacks);
        match behind.filter(|_| sleep == Sleep::Leading) {
            Some(behind) => violated("nobody is behind who sleeps", format!("{}: {behind} lacks entry {last}", it.id)),
            None => Ok(()),
        }
    }

    /// Nobody sleeps for long when there is no leader. Whatever is lost, delayed or cut.
    fn check_noticed(&mut self, node: usize) -> Checked {
        let asleep = self.nodes[node].group.as_ref().is_some_and(|group| group.sleep().is_some());
        let somebody_leads = self.nodes.iter().any(super::node::Node::leads);
        let it = &mut self.nodes[node];
        it.unnoticed = if asleep && !somebody_leads { it.unnoticed + 1 } else { 0 };
        let bound = self.plan.long_delay / TICK + 6 * self.plan.election_ticks + 20;
        match it.unnoticed > bound {
            true => violated("a dead leader is noticed", format!("{} slept on for {bound} ticks", node + 1)),
            false => Ok(()),
        }
    }

    /// A replica ends, a leader if there is one, and its node goes on living; after a while it is opened again.
    pub(super) fn stop_replica(&mut self) -> Checked {
        let drawn = self.rng.below(self.nodes.len() as u64) as usize;
        let node = (0..self.nodes.len()).find(|node| self.nodes[*node].leads()).unwrap_or(drawn);
        let Some(group) = &self.nodes[node].group else { return Ok(()) };
        if group.sleep() == Some(Sleep::Leading) {
            self.seen.note(Happening::EndedAsleep);
        }
        let gave_word = group.gave_word();
        self.crash(node, false)?;
        let it = &mut self.nodes[node];
        it.lives_without = true;
        it.sleepers.woke(GROUP);
        if gave_word {
            it.sleepers.break_word();
        }
        let life = it.life;
        self.after(TICK, Event::Tick { node, life });
        let delay = self.rng.range(10, 120) * TICK;
        self.after(delay, Event::Restart { node, life });
        Ok(())
    }

    /// Whether a node's process lives.
    pub(super) fn is_up(&self, node: usize, life: u32) -> bool {
        let it = &self.nodes[node];
        it.life == life && (it.group.is_some() || it.lives_without)
    }
}

impl super::node::Node {
    /// Whether it would not even notice this message.
    pub(super) fn sleeps_through(&self, message: &crate::raftstore::message::Message) -> bool {
        self.group.as_ref().is_some_and(|group: &Group| group.sleeps_through(message))
    }
}
