//! Groups that sleep, in the driver: whom time passes for, who wakes, and what nodes hear of each other meanwhile.
//!
//! With each tick a node says its word to all nodes that share a group with it which sleeps. Words that arrive do not go
//! through the mailbox: the last of each node is kept until the driver's next tick.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::driver::Driver;
use super::error::GroupFailure;
use super::health::{GroupTrouble, show};
use super::metrics;
use crate::ident::{GroupId, NodeId};
use crate::raftstore::beat::Word;
use crate::raftstore::group::Group;
use crate::raftstore::sleepers::Sleepers;
use crate::raftstore::transport::InboxFull;

/// Nodes whose words are kept until the next tick.
const MAX_NODES: usize = 1024;

/// What other nodes said since the last tick.
#[derive(Clone, Default)]
pub(super) struct Words(Arc<Mutex<BTreeMap<NodeId, Word>>>);

impl Words {
    pub(super) fn note(&self, from: NodeId, word: Word) -> Result<(), InboxFull> {
        let mut words = self.0.lock();
        if words.len() >= MAX_NODES && !words.contains_key(&from) {
            return Err(InboxFull);
        }
        words.insert(from, word);
        Ok(())
    }

    fn take(&self) -> BTreeMap<NodeId, Word> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// The lives of other nodes, and who sleeps on what they say.
pub(super) struct Lives {
    sleepers: Sleepers,
    words: Words,
}

impl Lives {
    pub(super) fn new(life: u64, words: Words) -> Lives {
        Lives { sleepers: Sleepers::new(life), words }
    }

    pub(super) fn own(&self) -> Word {
        self.sleepers.own()
    }
}

impl Driver {
    /// Hears what other nodes said, and says the same.
    pub(super) fn tick_lives(&mut self) {
        let Lives { sleepers, words } = &mut self.lives;
        // First of all: after a pause here nobody is silent who was heard meanwhile.
        let mut restless: Vec<GroupId> =
            words.take().into_iter().flat_map(|(node, word)| sleepers.hear(node, word)).collect();
        restless.extend(sleepers.tick());
        for group in restless {
            let _ = self.slot(group);
        }
        let sleepers = &self.lives.sleepers;
        for node in sleepers.told() {
            // The next one comes soon.
            let _ = self.outside.transport.send(node, sleepers.own().envelope());
        }
        metrics::groups(self.groups.len().saturating_sub(sleepers.len()), sleepers.len());
    }

    /// Before something happens to a group.
    pub(super) fn wake(&mut self, id: GroupId) {
        let Some(raft) = self.groups.get_mut(&id).and_then(|slot| slot.group.as_mut()) else { return };
        if raft.sleep().is_some() {
            let sleepers = &mut self.lives.sleepers;
            raft.wake(|node| sleepers.silence(id, node));
            sleepers.woke(id);
            self.awake.insert(id);
        }
    }

    /// After a group's turn: it may have fallen asleep.
    pub(super) fn lull(&mut self, id: GroupId) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        let Some((raft, sleep)) = slot.group.as_ref().and_then(|raft| Some((raft, raft.sleep()?))) else { return };
        let sleepers = &mut self.lives.sleepers;
        let is_new = !sleepers.contains(id);
        // A snapshot that is not gone on with grows old.
        if slot.filling.is_none() {
            self.awake.remove(&id);
        }
        if !is_new {
            return;
        }
        let restless = sleepers.fell_asleep(id, sleep, raft.other_nodes(), raft.patience_ticks());
        slot.publish(id, true, &self.outside);
        for group in restless {
            let _ = self.slot(group);
        }
    }

    /// A group ends here. Who sleeps on this node's word for its sake has to wake.
    pub(super) fn fail(&mut self, id: GroupId, failure: Arc<GroupFailure>) {
        let Some(slot) = self.slot(id) else { return };
        let gave_word = slot.group.as_ref().is_some_and(Group::gave_word);
        slot.fail(Arc::clone(&failure));
        let has_ended =
            matches!(*failure, GroupFailure::Destroyed(_) | GroupFailure::Removed(_) | GroupFailure::ShutDown);
        show(&self.outside.troubles, id, (!has_ended).then_some(GroupTrouble::Stopped(failure)));
        self.awake.remove(&id);
        self.lives.sleepers.woke(id);
        if gave_word {
            self.lives.sleepers.break_word();
        }
    }
}
