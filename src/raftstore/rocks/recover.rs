//! A group whose majority was lost goes on alone: reading what is needed for the decision, and writing it.

use std::path::Path;

use super::read::{EVERYTHING, Reader};
use super::{RocksStore, RocksView, put};
use crate::ident::GroupId;
use crate::raftstore::format::{self, Tag};
use crate::raftstore::log_store::StoreError;
use crate::raftstore::recover::{self, Recovery};
use crate::storage::{Durability, Family};

/// Entries read at once.
const READ_BYTES: usize = 1 << 20;

/// Reads what is needed, part by part.
fn plan(reader: Reader<'_>, group: GroupId) -> Result<Recovery, StoreError> {
    let Some(loaded) = reader.load(group)? else {
        return Err(StoreError::Refused(format!("there is no group {group}")));
    };
    let stored = loaded.stored.with_applied_committed();
    let (mut changes, mut from) = (Vec::new(), stored.applied.next());
    loop {
        let entries = reader.entries(group, from..EVERYTHING.end, READ_BYTES)?;
        let Some(last) = entries.last() else { return Recovery::plan(group, stored, changes) };
        from = last.index().next();
        changes.extend(recover::changes(&entries, stored.applied));
    }
}

impl RocksView {
    /// What would become of a group if its replica here went on alone.
    ///
    /// # Errors
    /// There is no such group, a record or an entry is damaged, or [`Recovery::plan`] refuses.
    pub fn plan_recovery(&self, group: GroupId) -> Result<Recovery, StoreError> {
        plan(self.reader(), group)
    }
}

impl RocksStore {
    /// Lets the replica here go on alone, whatever becomes of the others: see [`Recovery`]. First a copy of all of
    /// RocksDB is made at `copy`, which must not exist; then everything changes in one durable write, which is covered by
    /// evidence as a vote is. The group must not be open.
    ///
    /// # Errors
    /// There is no such group, [`Recovery::plan`] refuses, or the store failed; without the copy nothing is changed.
    pub fn recover_alone(&self, group: GroupId, copy: &Path) -> Result<Recovery, StoreError> {
        let recovery = plan(self.reader(), group)?;
        self.storage.copy_tables(copy)?;
        let (_writer, _applier) = (self.writer.lock(), self.applier.lock());
        let mut batch = self.storage.batch()?;
        put(&mut batch, group, Tag::HardState, &format::encode_hard_state(&recovery.hard_state));
        put(&mut batch, group, Tag::Membership, &format::encode_membership(&recovery.membership));
        for position in &recovery.dropped_changes {
            let mut value = Vec::new();
            if format::encode_entry(&Recovery::without_effect(*position), &mut value) {
                batch.put(Family::RaftLog, &format::log_key(group, position.index), &value);
            }
        }
        self.storage.write(batch, Durability::Evident)?;
        if let Some(known) = self.known.write().get_mut(&group) {
            known.outline.hard_state = recovery.hard_state;
        }
        Ok(recovery)
    }
}
