//! When the log is compacted, and up to where: a leader proposes it as an entry, every replica follows when it has
//! applied that. Never beyond what every replica has, so that nobody ever needs what is gone.

use raft::StateRole;

use super::replica::Group;
use crate::ident::LogIndex;
use crate::raftstore::context::Context;
use crate::raftstore::entry::Position;

impl Group {
    /// A leader that has applied enough proposes to compact the log up to where every replica has it.
    pub(super) fn propose_compaction(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || self.compaction_proposed {
            return;
        }
        let first = self.node.store().first();
        let others = raft.prs().iter().filter(|(id, _)| **id != self.config.replica.get());
        let everywhere = others.map(|(_, progress)| progress.matched).min().unwrap_or(u64::MAX);
        let to = self.applied.get().saturating_sub(self.config.keep_entries).min(everywhere);
        let entries = (to + 1).saturating_sub(first);
        let enough = entries >= self.config.compact_entries || self.applied_bytes_since >= self.config.compact_bytes;
        if entries > 0 && enough {
            let command = Context::Compact(LogIndex::new(to));
            self.compaction_proposed = self.try_propose(None, Vec::new(), command).is_ok();
        }
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
        self.applied_bytes_since = 0;
    }
}
