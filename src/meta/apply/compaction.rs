//! What the history forgets.
//!
//! A revision is compacted at once: from then on nobody reads or watches behind it. What it leaves is removed a little
//! with each command, so that no command takes long, and always at least as fast as it comes. Each change that is swept
//! takes the version before it along, and a deletion also itself; what a key is now always stays.

use super::{Fault, Step, ensure, refused_with};
use crate::meta::fault::{self, Fault as Broken};
use crate::meta::keys;
use crate::meta::limits::SWEPT_PER_COMMAND;
use crate::meta::proto::{Change, Refusal};
use crate::meta::settings::Name;
use crate::meta::view::View;
use crate::raftstore::log_store::Table;

impl Step<'_> {
    pub(super) fn compact(&mut self, revision: u64) -> Result<(), Fault> {
        let kv = &mut self.state.kv;
        if revision <= kv.compacted {
            let message = format!("everything up to revision {} was compacted before", kv.compacted);
            return Err(refused_with(Refusal::Compacted, message, kv.compacted + 1));
        }
        let last = kv.revision;
        ensure(revision <= last, Refusal::FutureRevision, || {
            format!("revision {revision} is not there yet: {last} is")
        })?;
        kv.compacted = revision;
        Ok(())
    }

    /// Removes some of what was compacted, and compacts when the history is too large.
    pub(super) fn sweep(&mut self) -> Result<(), Fault> {
        let max_bytes = fault::shrunk(self.setting(Name::KvHistoryBytes));
        if self.state.kv.compacted <= self.state.kv.swept && self.state.kv.history_bytes <= max_bytes {
            return Ok(());
        }
        let budget = SWEPT_PER_COMMAND + 2 * self.change.keys.len();
        let range = keys::changes_from(self.state.kv.swept + 1);
        let changes = self.view.scan(Table::Kv, &range.start..&range.end, budget)?;
        let mut is_through = changes.len() < budget;
        for (key, value) in changes {
            let (revision, _) =
                keys::decode_change(&key).ok_or_else(|| keys::damaged(Table::Kv, &key, "a change's key", &value))?;
            if revision > self.state.kv.compacted {
                if self.state.kv.history_bytes <= max_bytes {
                    is_through = true;
                    break;
                }
                if !fault::active(Broken::ShortenedUntold) {
                    self.state.kv.compacted = revision;
                }
            }
            let change: Change = keys::decode(Table::Kv, &key, &value)?;
            self.sweep_change(revision, &change)?;
            self.view.delete(Table::Kv, key);
            // Of this revision there may be more.
            self.state.kv.swept = revision - 1;
        }
        if is_through {
            self.state.kv.swept = self.state.kv.compacted;
        }
        Ok(())
    }

    fn sweep_change(&mut self, revision: u64, change: &Change) -> Result<(), Fault> {
        let older = keys::versions(&change.key, revision - 1);
        for (key, _) in self.view.scan(Table::Kv, &older.start..&older.end, 1)? {
            self.view.delete(Table::Kv, key);
        }
        if change.deleted || fault::active(Broken::SweepTakesPresent) {
            self.view.delete(Table::Kv, keys::version(&change.key, revision));
        }
        self.state.kv.history_bytes = self.state.kv.history_bytes.saturating_sub(change.bytes);
        Ok(())
    }
}
