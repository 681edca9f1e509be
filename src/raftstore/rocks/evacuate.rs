//! Getting rid of damaged table files, before the first group is opened.
//!
//! Damage in a file concerns the replicas whose state lies there: each gets another from its peers, by a snapshot. What is
//! left is the file, in which there may be much that is whole, of this replica and of others. So a start copies what is to be
//! seen of each group into a new home of the family; the old one goes with all of its files, once all replicas on this node
//! are well again: of a group that loses all others before, there is still whatever can be read. Of one that has no others
//! nothing is moved.
//!
//! It reads all that is to be seen in the family, and so finds each replica that is harmed: also where it was a compaction
//! that met the damage, and nobody knows where. What the new home holds of a harmed one is nothing.

use std::ops::{ControlFlow, Range};

use super::{RocksStore, put};
use crate::ident::GroupId;
use crate::raftstore::entry::{Cause, Unhealthy};
use crate::raftstore::format::{self, Generation, Tag};
use crate::raftstore::log_store::{StoreError, StoredGroup};
use crate::storage::{Durability, Evacuation, Family, Movable, StorageError};

/// A group, and where what is to be seen of it lies.
struct Seen {
    group: GroupId,
    generation: Generation,
    stored: StoredGroup,
}

impl Seen {
    fn keys(&self) -> Range<Vec<u8>> {
        format::generation_range(self.group, self.generation)
    }

    /// There is no other replica that could send the state: what can be read is all there is.
    fn is_alone(&self) -> bool {
        let StoredGroup { replica, membership, .. } = &self.stored;
        membership.nodes.len() < 2 || (membership.voters == [*replica] && membership.voters_outgoing.is_empty())
    }
}

impl RocksStore {
    /// Moves what is to be seen out of damaged files, and notes the replicas of which it cannot be read.
    pub(super) fn evacuate(&self) -> Result<(), StoreError> {
        let damaged = self.storage.damaged_families();
        if damaged.is_empty() && !self.storage.keeps_old_homes() {
            return Ok(());
        }
        let (_writer, _applier) = (self.writer.lock(), self.applier.lock());
        let mut groups = Vec::new();
        for group in self.reader().all_groups()? {
            let loaded = self.reader().load(group)?;
            groups.extend(loaded.map(|loaded| Seen { group, generation: loaded.generation, stored: loaded.stored }));
        }
        let is_any_unhealthy = groups.iter().any(|seen| seen.stored.unhealthy.is_some());
        if self.storage.keeps_old_homes() && !is_any_unhealthy {
            self.storage.keep_no_old_homes()?;
        }
        for family in damaged {
            self.evacuate_family(family, &groups, is_any_unhealthy)?;
        }
        Ok(())
    }

    fn evacuate_family(&self, family: Family, groups: &[Seen], is_any_unhealthy: bool) -> Result<(), StoreError> {
        let name = family.name();
        let mut evacuation = match self.storage.evacuate(family)? {
            Movable::Whole => return Ok(()),
            Movable::NotNow(why) => {
                tracing::warn!(family = name, why, "a damaged table file stays; its family is not compacted");
                return Ok(());
            }
            Movable::Now(evacuation) => evacuation,
        };
        tracing::info!(family = name, "what is whole is moved away from a damaged table file");
        let (mut harmed, mut stays) = (Vec::new(), false);
        for seen in groups {
            match self.copy(family, seen, &mut evacuation) {
                Ok(()) => {}
                Err(Uncopied::Unreadable(what)) => {
                    let (group, is_alone) = (seen.group, seen.is_alone());
                    tracing::error!(%group, family = name, %what, is_alone, "the state of a group is damaged here");
                    evacuation.forget(&seen.keys().start..&seen.keys().end);
                    stays |= is_alone;
                    harmed.push(seen);
                }
                Err(Uncopied::Failed(error)) => return Err(error),
            }
        }
        harmed.retain(|seen| !seen.is_alone());
        self.note_harmed(&harmed)?;
        if stays {
            tracing::error!(family = name, "a damaged table file stays: no other replica could send what is in it");
            return Ok(());
        }
        Ok(evacuation.finish(is_any_unhealthy || !harmed.is_empty())?)
    }

    /// Reads what is to be seen of a group, and copies it.
    fn copy(&self, family: Family, seen: &Seen, to: &mut Evacuation<'_>) -> Result<(), Uncopied> {
        let keys = seen.keys();
        let mut failed = None;
        let read =
            self.storage.tables().now().scan(family, &keys.start..&keys.end, |key, value| match to.put(key, value) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            });
        match (failed, read) {
            (Some(error), _) => Err(Uncopied::Failed(error.into())),
            (None, Err(StorageError::Damaged { what, .. })) => Err(Uncopied::Unreadable(what)),
            (None, Err(error)) => Err(Uncopied::Failed(error.into())),
            (None, Ok(())) => Ok(()),
        }
    }

    /// They know that they need another state.
    fn note_harmed(&self, harmed: &[&Seen]) -> Result<(), StoreError> {
        if harmed.is_empty() {
            return Ok(());
        }
        let mut batch = self.storage.batch()?;
        for Seen { group, stored, .. } in harmed {
            let unhealthy = Unhealthy { cause: Cause::Damaged, index: stored.applied };
            put(&mut batch, *group, Tag::Unhealthy, &format::encode_unhealthy(unhealthy));
        }
        self.storage.write(batch, Durability::Synced)?;
        let mut known = self.known.write();
        for Seen { group, .. } in harmed {
            if let Some(known) = known.get_mut(group) {
                known.outline.is_unhealthy = true;
            }
        }
        Ok(())
    }
}

/// Why a group's state was not copied.
enum Uncopied {
    /// It cannot be read.
    Unreadable(String),
    /// The store failed.
    Failed(StoreError),
}

#[cfg(test)]
#[path = "evacuate_test.rs"]
mod tests;
