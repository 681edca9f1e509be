//! What one turn of the driver hands out, gathered over all groups: one task for the thread that writes, one for each
//! thread that applies, one delivery for each peer.
//!
//! Handed out group by group, each of these would wake for the first of them, and begin a sync, a write or a frame with
//! that one alone, while those of the other groups queue up behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use raft::prelude::MessageType;

use super::apply::{ApplyItem, ApplyTask};
use super::driver::{Driver, Outside, Slot};
use super::error::GroupFailure;
use super::persist::{GroupWrites, PersistTask};
use crate::ident::{GroupId, NodeId, ReplicaId};
use crate::raftstore::entry::Entry;
use crate::raftstore::group::Persist;
use crate::raftstore::message::{Envelope, Message};

/// See the module.
#[derive(Default)]
pub(super) struct Turn {
    /// By peer. There are few of them.
    messages: Vec<(NodeId, Messages)>,
    writes: Vec<GroupWrites>,
    /// By apply thread.
    applies: Vec<Vec<(GroupId, Vec<ApplyItem>)>>,
}

/// What goes to one peer.
#[derive(Default)]
struct Messages {
    envelopes: Vec<Envelope>,
    /// Which of them hold entries, by place, and whom those are for.
    with_entries: Vec<(usize, GroupId, ReplicaId)>,
}

impl Turn {
    /// A message for a peer. If it does not leave, and has entries, Raft is told.
    pub(super) fn send(&mut self, node: NodeId, envelope: Envelope, has_entries: bool) {
        let known = self.messages.iter().position(|(known, _)| *known == node);
        let place = known.unwrap_or_else(|| {
            self.messages.push((node, Messages::default()));
            self.messages.len() - 1
        });
        if let Some((_, messages)) = self.messages.get_mut(place) {
            if has_entries {
                messages.with_entries.push((messages.envelopes.len(), envelope.group, envelope.to));
            }
            messages.envelopes.push(envelope);
        }
    }

    /// What a group wants written, in order.
    pub(super) fn write(&mut self, group: GroupId, persists: Vec<Persist>, outside: &Outside) {
        if persists.is_empty() {
            return;
        }
        let bytes = persists.iter().flat_map(|persist| &persist.entries).map(Entry::size_bytes).sum();
        outside.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.writes.push(GroupWrites { group, persists, bytes });
    }

    /// What a group wants applied, in order.
    pub(super) fn apply(&mut self, group: GroupId, items: Vec<ApplyItem>, outside: &Outside) {
        if items.is_empty() {
            return;
        }
        let thread = outside.workers.apply_thread(group);
        if self.applies.len() <= thread {
            self.applies.resize_with(thread + 1, Vec::new);
        }
        self.applies[thread].push((group, items));
    }
}

impl Driver {
    /// Messages first: they travel while this node writes. But what somebody here waits for is applied before word goes out
    /// that it is committed, which nobody waits for.
    pub(super) fn hand_out(&mut self, turn: Turn) -> Result<(), Arc<GroupFailure>> {
        let Turn { messages, writes, mut applies } = turn;
        let is_answered = applies.iter().flatten().any(|(_, items)| items.iter().any(|item| item.waiter.is_some()));
        if is_answered && messages.iter().all(|(_, messages)| messages.with_entries.is_empty()) {
            self.apply(std::mem::take(&mut applies))?;
        }
        for (node, messages) in messages {
            self.send(node, messages);
        }
        if !writes.is_empty() {
            let task = PersistTask::Write(writes);
            self.outside.workers.persist.send(task).map_err(|_| Arc::new(GroupFailure::Panicked("persist")))?;
        }
        self.apply(applies)
    }

    fn apply(&self, applies: Vec<Vec<(GroupId, Vec<ApplyItem>)>>) -> Result<(), Arc<GroupFailure>> {
        for (thread, work) in self.outside.workers.apply.iter().zip(applies) {
            if !work.is_empty() {
                thread.send(ApplyTask::Apply(work)).map_err(|_| Arc::new(GroupFailure::Panicked("apply")))?;
            }
        }
        Ok(())
    }

    fn send(&mut self, node: NodeId, messages: Messages) {
        let Messages { envelopes, with_entries } = messages;
        for dropped in self.outside.transport.send_all(node, envelopes) {
            // Otherwise raft-rs would go on as if it had arrived, until a later message is refused.
            let Ok(found) = with_entries.binary_search_by_key(&dropped.place, |(place, ..)| *place) else { continue };
            let (_, group, to) = with_entries[found];
            if let Some(raft) = self.running(group) {
                raft.unreachable(to);
            }
        }
    }
}

impl Slot {
    /// A snapshot goes at once: it has a call of its own.
    pub(super) fn send(&mut self, id: GroupId, message: Message, turn: &mut Turn, outside: &Outside) {
        let (from, to) = (message.from(), message.to());
        let Some(node) = self.node_of(to) else { return };
        let envelope = Envelope { group: id, from, to, message: message.encode() };
        if message.kind() != MessageType::MsgSnapshot {
            return turn.send(node, envelope, message.entries_size_bytes() > 0);
        }
        if self.send_snapshot(node, &message, envelope, outside) {
            return;
        }
        if let Some(raft) = &mut self.group {
            raft.snapshot_sent(to, false);
            self.is_dirty = true;
        }
    }
}
