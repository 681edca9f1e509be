//! When the log is compacted, and up to where: a leader proposes it as an entry, every replica follows when it has
//! applied that. What a follower still lacks stays, unless that is too much: then it gets a snapshot.

use std::collections::VecDeque;

use raft::{ProgressState, StateRole};

use super::replica::Group;
use crate::ident::LogIndex;
use crate::raftstore::context::Context;
use crate::raftstore::entry::Position;

/// Bytes that are counted as one.
const RUN_BYTES: u64 = 64 << 10;
/// A follower that takes a snapshot may fall behind this many times as far: were the log compacted meanwhile, the
/// snapshot would have been sent for nothing.
const SNAPSHOT_PATIENCE: u64 = 4;

/// Of the end of the log that all have, kept for whoever follows the next leader.
const CACHE_END_BYTES: usize = 64 << 10;

/// How large the applied part of the log is, from any entry on: exact to 64 KiB, and of this life of the replica.
#[derive(Default)]
pub(super) struct LogBytes {
    /// The last index and the bytes of consecutive runs of entries.
    runs: VecDeque<(LogIndex, u64)>,
}

impl LogBytes {
    pub(super) fn add(&mut self, last: LogIndex, bytes: u64) {
        match self.runs.back_mut() {
            Some((end, run)) if *run < RUN_BYTES => (*end, *run) = (last, *run + bytes),
            _ => self.runs.push_back((last, bytes)),
        }
    }

    /// The log begins anew.
    pub(super) fn restart(&mut self) {
        self.runs.clear();
    }

    fn truncate(&mut self, through: LogIndex) {
        while self.runs.pop_front_if(|(last, _)| *last <= through).is_some() {}
    }

    fn through(&self, index: LogIndex) -> u64 {
        self.runs.iter().take_while(|(last, _)| *last <= index).map(|(_, bytes)| bytes).sum()
    }

    fn behind(&self, index: LogIndex) -> u64 {
        self.runs.iter().rev().take_while(|(last, _)| *last > index).map(|(_, bytes)| bytes).sum()
    }
}

impl Group {
    /// A leader that has applied enough proposes to compact the log.
    pub(super) fn propose_compaction(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || self.compaction_proposed {
            return;
        }
        let first = self.node.store().first();
        let kept = self.applied.get().saturating_sub(self.config.keep_entries);
        let to = kept.min(self.needed_by_followers());
        let entries = (to + 1).saturating_sub(first);
        let enough = entries >= self.config.compact_entries
            || self.log_bytes.through(LogIndex::new(to)) >= self.config.compact_bytes;
        if entries > 0 && enough {
            let command = Context::Compact(LogIndex::new(to));
            self.compaction_proposed = self.try_propose(None, Vec::new(), command).is_ok();
        }
    }

    /// Up to where every follower has the log that is to get it from the log.
    fn needed_by_followers(&self) -> u64 {
        let others = self.node.raft.prs().iter().filter(|(id, _)| **id != self.config.replica.get());
        let has = others.filter_map(|(_, progress)| {
            let (has, patience) = match progress.state {
                ProgressState::Snapshot => (progress.matched.max(progress.pending_snapshot), SNAPSHOT_PATIENCE),
                _ => (progress.matched, 1),
            };
            let entries = self.applied.get().saturating_sub(has);
            let too_far = entries > self.config.max_lag_entries.saturating_mul(patience)
                || self.log_bytes.behind(LogIndex::new(has)) > self.config.max_lag_bytes.saturating_mul(patience);
            (!too_far || !self.config.snapshots).then_some(has)
        });
        has.min().unwrap_or(u64::MAX)
    }

    /// What is applied leaves memory, but for a short end, and for what followers lack that can be reached, up to the bound.
    pub(super) fn evict(&mut self) {
        let raft = &self.node.raft;
        let done = self.applied.get().min(raft.raft_log.persisted);
        let others = raft.prs().iter().filter(|(id, _)| **id != self.config.replica.get());
        let had_by_all = others
            .filter(|_| raft.state == StateRole::Leader)
            .filter(|(_, progress)| progress.recent_active || progress.state == ProgressState::Replicate)
            .map(|(_, progress)| progress.matched)
            .min();
        let view = self.node.mut_store();
        view.evict(done.min(had_by_all.unwrap_or(done)), CACHE_END_BYTES.min(self.config.cache_bytes));
        view.evict(done, self.config.cache_bytes);
    }

    pub(super) fn compact(&mut self, to: LogIndex) {
        let view = self.node.mut_store();
        if to <= view.truncated().index {
            return;
        }
        let Some(term) = view.term_of(to) else { return };
        let position = Position { index: to, term };
        view.truncate(position);
        self.truncations.push(position);
        self.log_bytes.truncate(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_from_any_entry_on() {
        let mut bytes = LogBytes::default();
        for index in 1..=10 {
            bytes.add(LogIndex::new(index), RUN_BYTES);
        }
        bytes.add(LogIndex::new(11), 5);
        bytes.add(LogIndex::new(12), 6);
        assert_eq!(bytes.through(LogIndex::new(3)), 3 * RUN_BYTES);
        assert_eq!(bytes.behind(LogIndex::new(9)), RUN_BYTES + 11, "small ones are counted together");
        bytes.truncate(LogIndex::new(8));
        assert_eq!(
            (bytes.through(LogIndex::new(10)), bytes.behind(LogIndex::new(0))),
            (2 * RUN_BYTES, 2 * RUN_BYTES + 11)
        );
        bytes.restart();
        assert_eq!(bytes.behind(LogIndex::new(0)), 0);
    }
}
