//! What a replica does to its log and membership, followed effect by effect, before any of it is written.

use super::seen::Happening;
use super::watch::Mark;
use super::world::{Checked, World, violated};
use crate::raftstore::group::{Effects, Group, Persist};

impl World {
    pub(super) fn watch_changes(&mut self, place: usize, effects: &Effects) -> Checked {
        for committed in &effects.apply {
            if let Some(now) = &committed.membership {
                let before = std::mem::replace(&mut self.replicas[place].config_now, now.clone());
                self.changed(place, &before, now)?;
            }
            self.judged(place, committed)?;
        }
        if let Some(restore) = effects.persist.iter().find_map(|persist| persist.restore.as_ref()) {
            let before = std::mem::replace(&mut self.replicas[place].config_now, restore.membership.clone());
            if before.nodes.is_empty() {
                self.seen.note(Happening::Joined);
            }
        }
        Ok(())
    }

    /// Follows what the group does to its log.
    pub(super) fn mirror(&mut self, place: usize, effects: &Effects) -> Checked {
        // What is kept back is in the group's log already.
        let cell = self.replicas[place].cell;
        let held: Vec<Persist> = self.replicas[place].group.iter().flat_map(Group::held_writes).cloned().collect();
        if !held.is_empty() {
            self.seen.note(Happening::SnapshotWaited);
        }
        for persist in effects.persist.iter().chain(&held) {
            if persist.id <= self.replicas[place].mirrored {
                continue;
            }
            self.replicas[place].mirrored = persist.id;
            if persist.truncate.is_some() {
                self.seen.note(Happening::Compacted);
            }
            if let Some(restore) = &persist.restore {
                self.replicas[place].restored_to = restore.position.index.get();
                let Some(taking) = self.replicas[place].taking.take() else {
                    return violated("a snapshot was filled", format!("{}: {persist:?}", place + 1));
                };
                self.replicas[place].mirror = taking;
                self.replicas[place].is_taking_over = true;
            }
            let Some(first) = persist.entries.first() else { continue };
            let start = first.index().get() as usize - 1;
            let mirror = &mut self.replicas[place].mirror;
            if start > mirror.len() {
                return violated("log matching", format!("{}: a gap before entry {}", place + 1, start + 1));
            }
            if start < mirror.len() {
                mirror.truncate(start);
                self.seen.note(Happening::Conflict);
            }
            for entry in &persist.entries {
                let mark = Mark::of(entry);
                let mirror = &mut self.replicas[place].mirror;
                let before = mirror.last().map_or(0, |mark| mark.term);
                mirror.push(mark);
                if entry.index().get() != mirror.len() as u64 {
                    return violated("log matching", format!("{}: a gap at entry {}", place + 1, entry.index()));
                }
                self.cells[cell].watch.entry(entry.index().get(), mark, before)?;
            }
        }
        Ok(())
    }
}
