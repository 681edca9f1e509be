//! What a node knows of other nodes' lives, and which of its groups sleep: pure, so that the simulator runs it.
//!
//! A follower that sleeps does not notice that its leader died. So it sleeps on the [`Word`] of the leader's node, which
//! that node says again with each tick, once for all groups. The follower is woken when the node falls silent for an
//! election time-out, or says another word: it lives again after a crash, or a group that it led has ended.
//!
//! What it costs: with each tick, time for each node, and none for each group that sleeps.

use std::collections::{BTreeMap, BTreeSet};

use super::beat::Word;
use super::fault::{self, Fault};
use super::group::Sleep;
use crate::ident::{GroupId, NodeId};

/// Nodes whose words are remembered before those are forgotten that were not heard of lately.
const MAX_NODES: usize = 1024;
/// Ticks that count as lately.
const REMEMBERED_TICKS: u64 = 1000;

/// See the module.
pub(super) struct Sleepers {
    own: Word,
    /// Ticks since the start.
    now: u64,
    heard: BTreeMap<NodeId, Heard>,
    asleep: BTreeMap<GroupId, Sleeper>,
    /// The followers among them, by the nodes of their leaders.
    followers: BTreeMap<NodeId, BTreeSet<GroupId>>,
    /// How many of them have replicas on each node.
    shared: BTreeMap<NodeId, usize>,
}

#[derive(Clone, Copy)]
struct Heard {
    word: Word,
    at: u64,
}

struct Sleeper {
    since: u64,
    /// A follower: the node of its leader, and on which word it sleeps.
    on: Option<(NodeId, Word)>,
    /// Ticks of silence that it bears.
    patience: u64,
    /// Where the other replicas are.
    nodes: Box<[NodeId]>,
}

impl Sleepers {
    pub(super) fn new(life: u64) -> Sleepers {
        Sleepers {
            own: Word { life, epoch: 0 },
            now: 0,
            heard: BTreeMap::new(),
            asleep: BTreeMap::new(),
            followers: BTreeMap::new(),
            shared: BTreeMap::new(),
        }
    }

    /// What this node says.
    pub(super) fn own(&self) -> Word {
        self.own
    }

    /// A group ended whose followers may sleep on this node's word.
    pub(super) fn break_word(&mut self) {
        self.own.epoch += 1;
    }

    /// The nodes that are to hear this node's word: those that share groups which sleep.
    pub(super) fn told(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.shared.keys().copied()
    }

    pub(super) fn contains(&self, group: GroupId) -> bool {
        self.asleep.contains_key(&group)
    }

    pub(super) fn len(&self) -> usize {
        self.asleep.len()
    }

    /// Time passes. Says who is to be woken, for his leader's node is silent.
    pub(super) fn tick(&mut self) -> Vec<GroupId> {
        self.now += 1;
        if fault::active(Fault::SilenceUnheard) {
            return Vec::new();
        }
        let this = &*self;
        let mut restless = Vec::new();
        for (node, groups) in &this.followers {
            if this.heard.get(node).is_some_and(|heard| heard.at + 1 >= this.now) {
                continue;
            }
            let bears = |group: &GroupId| {
                this.asleep.get(group).is_some_and(|sleeper| this.silence(*group, *node) < sleeper.patience)
            };
            restless.extend(groups.iter().filter(|group| !bears(group)));
        }
        restless
    }

    /// A node said its word. Says who is to be woken, for he slept on another.
    pub(super) fn hear(&mut self, node: NodeId, word: Word) -> Vec<GroupId> {
        let now = self.now;
        if !self.heard.contains_key(&node) && self.heard.len() >= MAX_NODES {
            self.heard.retain(|_, heard| heard.at + REMEMBERED_TICKS > now);
        }
        let heard = self.heard.entry(node).or_insert(Heard { word, at: now });
        // It was said before what is known, and came later.
        if heard.word.life == word.life && word.epoch < heard.word.epoch {
            return Vec::new();
        }
        let is_same = std::mem::replace(heard, Heard { word, at: now }).word == word;
        if is_same || fault::active(Fault::WordUnchecked) {
            return Vec::new();
        }
        let slept_on = |group: &GroupId| self.asleep.get(group).and_then(|sleeper| sleeper.on);
        let is_restless = |group: &&GroupId| slept_on(group).is_some_and(|(_, on)| on.is_broken_by(word));
        self.followers.get(&node).into_iter().flatten().filter(is_restless).copied().collect()
    }

    /// A group fell asleep here. Says who is to be woken for what that says of the leader's node.
    pub(super) fn fell_asleep(
        &mut self,
        group: GroupId,
        sleep: Sleep,
        nodes: Box<[NodeId]>,
        patience: u64,
    ) -> Vec<GroupId> {
        self.woke(group);
        let on = match sleep {
            Sleep::Leading => None,
            Sleep::Following { node, word } => Some((node, word)),
        };
        for node in nodes.iter() {
            *self.shared.entry(*node).or_default() += 1;
        }
        if let Some((node, _)) = on {
            self.followers.entry(node).or_default().insert(group);
        }
        self.asleep.insert(group, Sleeper { since: self.now, on, patience, nodes });
        let Some((node, word)) = on else { return Vec::new() };
        // The word came with the leader's message: it counts as said now, unless it is known to be broken.
        let known = self.heard.get(&node).map(|heard| heard.word);
        match known.is_some_and(|known| known.life == word.life && known.epoch > word.epoch) {
            true if fault::active(Fault::WordUnchecked) => Vec::new(),
            true => vec![group],
            false => self.hear(node, word),
        }
    }

    /// A group does not sleep any more, or is not there.
    pub(super) fn woke(&mut self, group: GroupId) {
        let Some(sleeper) = self.asleep.remove(&group) else { return };
        for node in sleeper.nodes.iter() {
            if let Some(count) = self.shared.get_mut(node) {
                *count -= 1;
                if *count == 0 {
                    self.shared.remove(node);
                }
            }
        }
        if let Some((node, _)) = sleeper.on
            && let Some(groups) = self.followers.get_mut(&node)
        {
            groups.remove(&group);
            if groups.is_empty() {
                self.followers.remove(&node);
            }
        }
    }

    /// For how many ticks nothing was heard of a node since a group fell asleep. Without end of its leader's node if that
    /// broke its word.
    pub(super) fn silence(&self, group: GroupId, node: NodeId) -> u64 {
        // It has fallen asleep just now.
        let Some(sleeper) = self.asleep.get(&group) else { return 0 };
        let heard = self.heard.get(&node);
        let is_broken =
            |heard: &Heard| sleeper.on.is_some_and(|(on, word)| on == node && word.is_broken_by(heard.word));
        if heard.is_some_and(is_broken) {
            return u64::MAX;
        }
        self.now - heard.map_or(0, |heard| heard.at).max(sleeper.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::new(2);
    const WORD: Word = Word { life: 70, epoch: 1 };
    const ONE: GroupId = GroupId::new(1);
    const TWO: GroupId = GroupId::new(2);

    fn following(word: Word) -> Sleep {
        Sleep::Following { node: NODE, word }
    }

    fn nodes() -> Box<[NodeId]> {
        Box::new([NODE, NodeId::new(3)])
    }

    #[test]
    fn a_silent_node_wakes_whoever_sleeps_on_its_word() {
        let mut sleepers = Sleepers::new(1);
        assert!(sleepers.fell_asleep(ONE, following(WORD), nodes(), 5).is_empty());
        assert!(sleepers.fell_asleep(TWO, Sleep::Leading, nodes(), 5).is_empty());
        for _ in 0..3 {
            assert!(sleepers.tick().is_empty());
        }
        assert_eq!(sleepers.silence(ONE, NODE), 3);
        assert!(sleepers.hear(NODE, WORD).is_empty());
        assert_eq!(sleepers.silence(ONE, NODE), 0);
        for _ in 0..4 {
            assert!(sleepers.tick().is_empty());
        }
        assert_eq!(sleepers.tick(), [ONE], "a leader sleeps on his own word");
        sleepers.woke(ONE);
        assert!(sleepers.tick().is_empty());
    }

    #[test]
    fn another_word_wakes_and_an_older_one_does_not_count() {
        let mut sleepers = Sleepers::new(1);
        assert!(sleepers.fell_asleep(ONE, following(WORD), nodes(), 5).is_empty());
        let later = Word { epoch: 2, ..WORD };
        assert!(sleepers.fell_asleep(TWO, following(WORD), nodes(), 5).is_empty());
        assert_eq!(sleepers.hear(NODE, later), [ONE, TWO]);
        assert_eq!(sleepers.silence(ONE, NODE), u64::MAX);
        sleepers.woke(ONE);
        sleepers.woke(TWO);
        assert_eq!(sleepers.fell_asleep(ONE, following(WORD), nodes(), 5), [ONE], "it was broken before it came");
        assert!(sleepers.fell_asleep(ONE, following(later), nodes(), 5).is_empty());
        sleepers.tick();
        assert!(sleepers.hear(NODE, WORD).is_empty());
        assert_eq!(sleepers.silence(ONE, NODE), 1, "an old word is no sign of life");
        assert_eq!(sleepers.hear(NODE, Word { life: 71, epoch: 0 }), [ONE]);
    }

    #[test]
    fn only_nodes_that_share_a_sleeping_group_are_told() {
        let mut sleepers = Sleepers::new(1);
        sleepers.fell_asleep(ONE, following(WORD), nodes(), 5);
        sleepers.fell_asleep(TWO, Sleep::Leading, Box::new([NODE]), 5);
        assert_eq!(sleepers.told().collect::<Vec<_>>(), [NODE, NodeId::new(3)]);
        sleepers.woke(ONE);
        sleepers.woke(ONE);
        assert_eq!(sleepers.told().collect::<Vec<_>>(), [NODE]);
        sleepers.woke(TWO);
        assert_eq!(sleepers.told().count(), 0);
        assert_eq!(sleepers.len(), 0);
    }
}
