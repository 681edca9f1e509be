//! What is being written, and what waits for it.
//!
//! *Rule of durable order 1*: while a term or vote is not durable, no message leaves, a leader's included. A leader's
//! first Ready may carry its vote, its first entry and an append at once (one voter and a learner). The same holds while a
//! leader does not know durably that a change of the membership is committed.
//!
//! *Rule of durable order 2*: an acknowledgement leaves after what it acknowledges is durable, and raft-rs counts this
//! replica's own entries only once [`Persisting::done`] has said so; also in a group of one.

use std::collections::VecDeque;

use raft::prelude::MessageType;

use super::effects::PersistId;
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::message::Message;

/// Messages that wait for a write. What comes when there are more is lost, as on a network: a disk may hang for hours
/// while a leader goes on asking.
pub(super) const MAX_HELD_MESSAGES: usize = 4096;

/// See the module.
#[derive(Default)]
pub(super) struct Persisting {
    open: VecDeque<Write>,
    next: u64,
    done: u64,
    /// The last write that holds a new term or vote, or decides a change of the membership.
    last_binding: u64,
    /// A Ready that is durable, but whose entries an open write replaces.
    unreported: Option<u64>,
    /// The highest index that such a Ready, or one before it, wrote.
    highest_unreported: u64,
    outbox: VecDeque<(u64, Message)>,
}

struct Write {
    id: u64,
    /// The last Ready that is done with it.
    ready: u64,
    /// The indexes of its first and last entry.
    entries: Option<(u64, u64)>,
}

impl Persisting {
    /// Begins a write for a Ready; nothing leaves before one that `binds`.
    pub(super) fn begin(&mut self, ready: u64, entries: Option<(u64, u64)>, binds: bool) -> PersistId {
        self.next += 1;
        if binds {
            self.last_binding = self.next;
        }
        self.open.push_back(Write { id: self.next, ready, entries });
        PersistId(self.next)
    }

    /// Begins a write that belongs to no Ready.
    pub(super) fn begin_other(&mut self) -> PersistId {
        self.begin(0, None, false)
    }

    /// A Ready had nothing to write: it is done when everything before it is. Says so if that is now.
    pub(super) fn pass(&mut self, ready: u64) -> bool {
        match self.open.back_mut() {
            Some(write) => {
                write.ready = ready;
                false
            }
            None => true,
        }
    }

    /// Queues a message; one that `promises` durability waits for every write begun so far.
    pub(super) fn send(&mut self, message: Message, promises: bool) {
        let mut after = if promises { self.next } else { self.last_binding };
        let kind = message.kind();
        if (fault::active(Fault::VoteBeforeDurable) && is_vote(kind))
            || (fault::active(Fault::AppendBeforeDurable) && kind == MessageType::MsgAppendResponse)
        {
            after = 0;
        }
        if after <= self.done || self.outbox.len() < MAX_HELD_MESSAGES {
            self.outbox.push_back((after, message));
        }
    }

    /// The messages that may leave now.
    pub(super) fn sendable(&mut self) -> Vec<Message> {
        let done = self.done;
        if self.outbox.iter().all(|(after, _)| *after <= done) {
            return self.outbox.drain(..).map(|(_, message)| message).collect();
        }
        let (now, later) = std::mem::take(&mut self.outbox).into_iter().partition(|(after, _)| *after <= done);
        self.outbox = later;
        let now: VecDeque<(u64, Message)> = now;
        now.into_iter().map(|(_, message)| message).collect()
    }

    /// A write is durable, and with it all before. Says which Ready raft-rs may be told of.
    ///
    /// Entries that an open write replaces are not durable in the end, even if they are again the same: were raft-rs
    /// told of them, it would take the open write's for durable. So such a Ready is told of with the later one.
    pub(super) fn done(&mut self, id: PersistId) -> Option<u64> {
        self.done = self.done.max(id.0);
        let mut last_done = 0;
        let mut finished = self.unreported.take();
        while self.open.front().is_some_and(|write| write.id <= id.0) {
            let Some(write) = self.open.pop_front() else { break };
            finished = finished.max(Some(write.ready));
            last_done = last_done.max(write.entries.map_or(0, |(_, last)| last));
        }
        self.highest_unreported = self.highest_unreported.max(last_done);
        let replaced =
            self.open.iter().any(|write| write.entries.is_some_and(|(first, _)| first <= self.highest_unreported));
        if replaced && !fault::active(Fault::OldCompletion) {
            self.unreported = finished;
            return None;
        }
        self.highest_unreported = 0;
        finished
    }

    /// Whether nothing is being written, and nothing waits to be sent.
    pub(super) fn is_at_rest(&self) -> bool {
        self.open.is_empty() && self.outbox.is_empty() && self.unreported.is_none()
    }

    /// Whether anything is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }
}

fn is_vote(kind: MessageType) -> bool {
    matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestVoteResponse)
}
