//! One round of effects: what raft-rs has ready, taken apart.

use raft::prelude::MessageType;
use raft::{StateRole, eraftpb};

use super::effects::{Committed, Effects, LogRead, Persist};
use super::log_view;
use super::replica::{Group, GroupError};
use crate::ident::LogIndex;
use crate::raftstore::context::Context;
use crate::raftstore::entry::{Entry, EntryKind, HardState};
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::message::Message;
use crate::raftstore::snapshot::Restore;

impl Group {
    /// What is to be done now. To be called after inputs; several may come first.
    ///
    /// # Errors
    /// The replica cannot go on.
    pub fn effects(&mut self) -> Result<Effects, GroupError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut effects = Effects::default();
        for context in self.node.mut_store().begin_round() {
            self.node.on_entries_fetched(context);
        }
        self.ask_reads();
        self.poke_leader();
        loop {
            let budget = match self.can_apply() {
                true => self.config.max_unapplied_bytes.saturating_sub(self.applying_bytes),
                false => 0,
            };
            let view = self.node.store();
            view.apply_budget_bytes.set(budget);
            if !self.node.has_ready() {
                break;
            }
            let did = self.take_ready(&mut effects)?;
            // Raft-rs goes on offering what there is no room to apply.
            if !did {
                break;
            }
            self.settle();
        }
        for position in std::mem::take(&mut self.truncations) {
            let id = self.persisting.begin_other();
            let truncate = Some(position);
            let (restore, hard_state, entries) = Default::default();
            let persist = Persist { id, restore, hard_state, entries, truncate, must_sync: false, votes: false };
            self.hand_write(persist, &mut effects);
        }
        self.advance_takeover(&mut effects);
        self.capture(&mut effects);
        self.hand_checks(&mut effects);
        effects.send = self.persisting.sendable();
        effects.read_log = self.reads_of_log();
        effects.answers = std::mem::take(&mut self.answers);
        Ok(effects)
    }

    /// Takes one Ready apart; says whether there was anything in it.
    fn take_ready(&mut self, effects: &mut Effects) -> Result<bool, GroupError> {
        self.node.store().applying.set(true);
        let mut ready = self.node.ready();
        self.node.store().applying.set(false);
        let number = ready.number();
        let entries = ready.take_entries();
        let (immediate, promising) = (ready.take_messages(), ready.take_persisted_messages());
        let hard_state = ready.hs().map(HardState::from);
        let reads = ready.take_read_states();
        let committed = ready.take_committed_entries();
        let restore = Some(ready.snapshot()).filter(|it| !it.is_empty()).and_then(|it| self.begin_takeover(it));
        let did = ready.ss().is_some()
            || restore.is_some()
            || hard_state.is_some()
            || !(entries.is_empty()
                && immediate.is_empty()
                && promising.is_empty()
                && reads.is_empty()
                && committed.is_empty());
        self.node.mut_store().append(&entries);
        let nothing_open = self.write(number, ready.must_sync(), restore, hard_state, entries, effects);
        for message in immediate {
            // What it said before it led promises durability all the same.
            let promises = !leaders_say(message.get_msg_type());
            self.enqueue(message, promises);
        }
        for message in promising {
            self.enqueue(message, true);
        }
        self.node.advance_append_async(ready);
        if fault::active(Fault::LeaderCountsItselfEarly)
            || (fault::active(Fault::SoleVoterEarly) && self.is_sole_voter())
            || nothing_open
        {
            self.node.on_persist_ready(number);
        }
        for read in reads {
            if let Some(asked_at) = self.reads.indexed(&read.request_ctx, LogIndex::new(read.index)) {
                self.renew_lease(asked_at);
            }
        }
        self.hand_out(committed, effects)?;
        self.reads.applied(self.applied, &mut self.answers);
        Ok(did)
    }

    /// Writes what a Ready holds; says whether there was nothing to write and nothing is being written.
    fn write(
        &mut self,
        ready: u64,
        must_sync: bool,
        restore: Option<Restore>,
        hard_state: Option<HardState>,
        entries: Vec<eraftpb::Entry>,
        effects: &mut Effects,
    ) -> bool {
        if restore.is_none() && hard_state.is_none() && entries.is_empty() {
            return self.persisting.pass(ready);
        }
        let ends = entries.first().zip(entries.last()).map(|(first, last)| (first.index, last.index));
        let voted = hard_state.map(|state| (state.term, state.vote));
        let votes = voted.is_some_and(|voted| voted != self.written_vote);
        self.written_vote = voted.unwrap_or(self.written_vote);
        let decides = hard_state.is_some_and(|state| self.decides_change(state.commit.get()));
        let id = self.persisting.begin(ready, ends, votes || decides);
        if let Some(Restore { position, .. }) = &restore {
            self.hold_writes(id, position.index);
        }
        // The machine may have a store of its own: what it installs must not be lost here again.
        let must_sync =
            (must_sync || restore.is_some() || decides) && !(restore.is_some() && fault::active(Fault::FlipNotDurable));
        let entries = entries.into_iter().map(Entry).collect();
        let persist = Persist { id, restore, hard_state, entries, truncate: None, must_sync, votes };
        self.hand_write(persist, effects);
        false
    }

    /// Whether a leader learns that a change of the membership is committed, which nobody may hear before it is durable here:
    /// a replica that hears that it was removed is gone, and a leader that forgot it would still need its vote.
    fn decides_change(&self, commit: u64) -> bool {
        let raft = &self.node.raft;
        let pending = raft.pending_conf_index;
        raft.state == StateRole::Leader && self.applied.get() < pending && pending <= commit
    }

    fn enqueue(&mut self, mut message: eraftpb::Message, promises: bool) {
        self.ask_with(&mut message);
        for message in split(message, self.config.max_message_bytes) {
            if let (MessageType::MsgAppend, Some(last)) = (message.get_msg_type(), message.entries.last()) {
                let bytes = message.entries.iter().map(log_view::size).sum();
                let change = self.inflight.sent(message.to, last.index, bytes, self.config.max_inflight_bytes);
                self.pace(message.to, change);
            }
            self.persisting.send(Message(message), promises);
        }
    }

    /// Hands committed entries out for applying.
    fn hand_out(&mut self, committed: Vec<eraftpb::Entry>, effects: &mut Effects) -> Result<(), GroupError> {
        let Some(last) = committed.last().map(|entry| LogIndex::new(entry.index)) else { return Ok(()) };
        let leader = self.leader();
        let mut bytes = 0;
        for entry in committed {
            let entry = Entry(entry);
            bytes += entry.size_bytes();
            let request = self.proposals.committed(entry.position(), leader, &mut self.answers);
            let Some(context) = Context::decode(entry.context()) else {
                return Err(GroupError::NewerEntry(entry.index()));
            };
            let membership = match entry.kind() {
                EntryKind::ConfChange => self.take_change(&entry, &context)?,
                EntryKind::Command => None,
            };
            let (mut compact_to, mut hash, mut unhealthy) = (None, false, None);
            match context {
                Context::Compact(to) => {
                    self.compactions.push_back((entry.index(), to));
                    compact_to = Some(to);
                }
                Context::Hash(version) => hash = self.begin_check(entry.position(), version),
                Context::Verify { at, digests } => unhealthy = self.judge(at, &digests),
                Context::Plain | Context::Once(_) | Context::Members(_) => {}
            }
            effects.apply.push(Committed { entry, request, compact_to, membership, hash, unhealthy });
        }
        self.applying.push_back((last, bytes));
        self.applying_bytes += bytes;
        self.log_bytes.add(last, bytes as u64);
        Ok(())
    }

    fn ask_reads(&mut self) {
        if !(self.reads.are_waiting() || self.wants_lease()) || self.replaying {
            return;
        }
        let time = self.lease_asked_at();
        let raft = &self.node.raft;
        if fault::active(Fault::ReadBeforeCommit) && raft.state == StateRole::Leader && !raft.commit_to_current_term() {
            let index = LogIndex::new(raft.raft_log.committed);
            let context = self.reads.ask(self.now, time);
            self.reads.indexed(&context, index);
            return;
        }
        // Raft-rs drops what it cannot answer yet without a word.
        let can_ask = match raft.state {
            StateRole::Leader => raft.commit_to_current_term(),
            _ => raft.leader_id != 0,
        };
        if can_ask {
            let context = self.reads.ask(self.now, time);
            self.node.read_index(context);
        }
    }

    fn reads_of_log(&mut self) -> Vec<LogRead> {
        if !self.replaying {
            return self.node.mut_store().wanted();
        }
        let committed = self.node.raft.raft_log.committed;
        let view = self.node.store();
        // What is applied stays cached up to a bound of its own.
        let bound = self.config.max_unapplied_bytes.saturating_add(self.config.cache_bytes);
        let room = view.cache_bytes() < bound || view.cached_to() > committed;
        if self.replay_asked || !room {
            return Vec::new();
        }
        self.replay_asked = true;
        let range = LogIndex::new(view.cached_to())..LogIndex::new(view.last() + 1);
        vec![LogRead { range, limit_bytes: self.config.max_apply_batch_bytes }]
    }
}

/// What only a leader says. It promises no more than his term and vote.
fn leaders_say(kind: MessageType) -> bool {
    use MessageType::{MsgAppend, MsgHeartbeat, MsgReadIndexResp, MsgSnapshot, MsgTimeoutNow};
    matches!(kind, MsgAppend | MsgHeartbeat | MsgReadIndexResp | MsgSnapshot | MsgTimeoutNow)
}

/// Raft-rs adds entries to an append that has not left yet, whatever its size: receivers would refuse it. Cuts it up.
fn split(mut message: eraftpb::Message, limit_bytes: usize) -> Vec<eraftpb::Message> {
    let total: usize = message.entries.iter().map(log_view::size).sum();
    if message.get_msg_type() != MessageType::MsgAppend || total <= limit_bytes {
        return vec![message];
    }
    let entries = std::mem::take(&mut message.entries);
    let header = message.clone();
    let (mut parts, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let size = log_view::size(&entry);
        if let Some(last) = message.entries.last().filter(|_| bytes + size > limit_bytes) {
            let next = eraftpb::Message { index: last.index, log_term: last.term, ..header.clone() };
            parts.push(std::mem::replace(&mut message, next));
            bytes = 0;
        }
        bytes += size;
        message.entries.push(entry);
    }
    parts.push(message);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_append_is_cut_up_without_a_gap() {
        let entry =
            |index: u64, bytes| eraftpb::Entry { index, term: index / 3, data: vec![0; bytes], ..Default::default() };
        let entries: Vec<_> = (6..=12).map(|index| entry(index, if index == 9 { 5000 } else { 400 })).collect();
        let mut message = eraftpb::Message { index: 5, log_term: 1, commit: 7, to: 2, entries, ..Default::default() };
        message.set_msg_type(MessageType::MsgAppend);
        let parts = split(message.clone(), 1000);
        let (mut index, mut term) = (5, 1);
        for part in &parts {
            assert_eq!((part.index, part.log_term, part.commit, part.to), (index, term, 7, 2));
            let bytes: usize = part.entries.iter().map(log_view::size).sum();
            assert!(bytes <= 1000 || part.entries.len() == 1, "{bytes}");
            let last = part.entries.last().unwrap();
            (index, term) = (last.index, last.term);
        }
        assert!(parts.len() > 3);
        let again: Vec<_> = parts.into_iter().flat_map(|part| part.entries).collect();
        assert_eq!(again, message.entries);
        assert_eq!(split(message.clone(), 100_000), [message]);
    }
}
