//! Reading what a store holds, whether it is open for writing or only looked at.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow, Range};

use crate::ident::{GroupId, LogIndex, ReplicaId, Term};
use crate::raftstore::entry::{Entry, HardState, Membership, Position, Unhealthy};
use crate::raftstore::format::{self, Generation, Marker, Mismatch, Replica, Tag};
use crate::raftstore::log_store::{KeyValue, StoreError, StoredGroup, Table};
use crate::raftstore::rules;
use crate::raftstore::snapshot::{Pair, Place};
use crate::storage::{Family, StorageError, TablesAt};

/// All of a log. No entry has the last index there is.
pub(super) const EVERYTHING: Range<LogIndex> = LogIndex::new(0)..LogIndex::new(u64::MAX);

/// Damaged places named at once; more of them say nothing new.
const MAX_DAMAGE: usize = 20;

/// What is stored of a group, and which of its tables are the ones to be seen.
pub(super) struct Loaded {
    pub stored: StoredGroup,
    pub generation: Generation,
    /// A snapshot was being filled.
    pub marker: Option<Marker>,
}

/// The tables, as the raftstore reads them.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub TablesAt<'a>);

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> StoreError {
        match error {
            StorageError::Damaged { path, what } => StoreError::Damaged { place: path.display().to_string(), what },
            StorageError::Poisoned { what, .. } => StoreError::Poisoned(what),
            other => StoreError::Failed(other.to_string()),
        }
    }
}

/// The families that hold tables.
pub(super) const FAMILIES: [Family; 5] =
    [Family::Cluster, Family::Catalog, Family::Slots, Family::Kv, Family::Sessions];

/// The family of a table.
pub(super) fn family(table: Table) -> Family {
    match table {
        Table::Cluster => Family::Cluster,
        Table::Catalog => Family::Catalog,
        Table::Slots => Family::Slots,
        Table::Kv => Family::Kv,
        Table::Sessions => Family::Sessions,
    }
}

impl Reader<'_> {
    /// The groups that have a replica's record, in order, and what stands between them that belongs to none.
    pub fn groups(self) -> Result<(Vec<GroupId>, Vec<StoreError>), StoreError> {
        let (mut groups, mut damage) = (Vec::new(), Vec::new());
        let mut add = |what| {
            if damage.len() < MAX_DAMAGE {
                damage.push(what);
            }
        };
        // A group's records are neighbours, its replica's first.
        let mut orphan = None;
        let all = format::all_states();
        self.0.scan(Family::RaftState, &all.start..&all.end, |key, _| {
            match format::decode_state_key(key) {
                Ok((group, Tag::Replica)) => groups.push(group),
                // It belongs to no group that is there.
                Ok((_, Tag::Tombstone)) => {}
                Ok((group, _)) if groups.last() == Some(&group) || orphan == Some(group) => {}
                Ok((group, tag)) => {
                    orphan = Some(group);
                    add(self.without_replica(group, format_args!("its {tag}")));
                }
                Err(mismatch) => add(self.damaged("a key of raft_state", mismatch)),
            }
            ControlFlow::Continue(())
        })?;
        Ok((groups, damage))
    }

    /// The groups of which replicas were destroyed, in order, and the last of each.
    pub fn tombstones(self) -> Result<Vec<(GroupId, ReplicaId)>, StoreError> {
        let (mut tombstones, mut damage) = (Vec::new(), None);
        let all = format::all_states();
        self.0.scan(Family::RaftState, &all.start..&all.end, |key, value| {
            // Keys that are none are found with the groups.
            if let Ok((group, Tag::Tombstone)) = format::decode_state_key(key) {
                match format::decode_tombstone(value) {
                    Ok(replica) => tombstones.push((group, replica)),
                    Err(mismatch) => {
                        let place = format_args!("the tombstone of group {group}");
                        damage = damage.take().or_else(|| Some(self.damaged(place, mismatch)));
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        damage.map_or(Ok(tombstones), Err)
    }

    /// The groups, if nothing stands between them.
    pub fn all_groups(self) -> Result<Vec<GroupId>, StoreError> {
        let (groups, damage) = self.groups()?;
        damage.into_iter().next().map_or(Ok(groups), Err)
    }

    /// The groups that have entries, in order. A seek for each, however long their logs are.
    pub fn logs(self) -> Result<Vec<GroupId>, StoreError> {
        let (mut logs, mut next) = (Vec::new(), Some(GroupId::default()));
        while let Some(from) = next {
            let keys = format::logs_from(from);
            let (mut found, mut damage) = (None, None);
            self.0.scan(Family::RaftLog, &keys.start..&keys.end, |key, _| {
                match format::decode_log_key(key) {
                    Ok((group, _)) => found = Some(group),
                    Err(mismatch) => damage = Some(self.damaged("a key of raft_log", mismatch)),
                }
                ControlFlow::Break(())
            })?;
            if let Some(damage) = damage {
                return Err(damage);
            }
            logs.extend(found);
            next = found.and_then(|group| group.get().checked_add(1)).map(GroupId::new);
        }
        Ok(logs)
    }

    /// What is left of a group without its most important record.
    pub fn without_replica(self, group: GroupId, found: impl std::fmt::Display) -> StoreError {
        self.damaged(format_args!("group {group}"), Mismatch::new("its replica", format_args!("{found} only")))
    }

    pub fn load(self, group: GroupId) -> Result<Option<Loaded>, StoreError> {
        // All records as of one moment.
        let mut records = Records::default();
        let mut damage = None;
        let range = format::state_range(group);
        self.0.scan(Family::RaftState, &range.start..&range.end, |key, value| {
            match format::decode_state_key(key).and_then(|(_, tag)| records.read(tag, value)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(mismatch) => {
                    damage = Some(self.damaged(format_args!("{} of group {group}", what_is_at(key)), mismatch));
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(damage) = damage {
            return Err(damage);
        }
        let last = self.last(group)?;
        if records == Records::default() && last.is_none() {
            return Ok(None);
        }
        let Records {
            replica: Some(Replica { replica, generation }),
            hard_state: Some(hard_state),
            membership: Some(membership),
            applied: Some(applied),
            truncated: Some(truncated),
            marker,
            unhealthy,
        } = records
        else {
            let missing = records.missing().map_or_else(String::new, |tag| tag.to_string());
            return Err(self.damaged(format_args!("group {group}"), Mismatch::new(format!("its {missing}"), "none")));
        };
        if let Some(marker) = marker.filter(|marker| marker.generation <= generation) {
            // What a start removes by it must not be what is to be seen.
            let place = format_args!("{} of group {group}", Tag::Marker);
            let found = format!("generation {}", marker.generation.0);
            return Err(self.damaged(place, Mismatch::new(format!("a generation behind {}", generation.0), found)));
        }
        let last = last.unwrap_or(truncated);
        let stored = StoredGroup { replica, hard_state, membership, applied, truncated, last, unhealthy };
        Ok(Some(Loaded { stored, generation, marker }))
    }

    /// A group's most important record; `None` if it was never made.
    pub fn replica(self, group: GroupId) -> Result<Option<Replica>, StoreError> {
        let replica = self.0.get(Family::RaftState, &format::state_key(group, Tag::Replica), Replica::decode)?;
        let replica = replica.transpose();
        replica.map_err(|what| self.damaged(format_args!("{} of group {group}", Tag::Replica), what))
    }

    /// The last entry that lies in a group's log. A seek, however long the log is.
    fn last(self, group: GroupId) -> Result<Option<Position>, StoreError> {
        let keys = format::log_range(group, EVERYTHING);
        let last = self.0.last(Family::RaftLog, &keys.start..&keys.end, |key, value| {
            let (_, index) = format::decode_log_key(key).map_err(|what| self.damaged("a key of raft_log", what))?;
            let term = format::decode_entry_term(value).map_err(|what| self.damaged_entry(group, index, what))?;
            Ok(Position { index, term })
        })?;
        last.transpose()
    }

    pub fn entries(self, group: GroupId, range: Range<LogIndex>, limit_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let (mut entries, mut size_bytes, mut damage) = (Vec::new(), 0usize, None);
        let mut next = range.start;
        self.visit(group, range, |index, value| {
            size_bytes = size_bytes.saturating_add(format::entry_size_bytes(value));
            if index != next && entries.is_empty() {
                // The first one is not there.
                return ControlFlow::Break(());
            }
            if !entries.is_empty() && size_bytes > limit_bytes {
                return ControlFlow::Break(());
            }
            let entry = match index == next {
                true => format::decode_entry(index, value),
                false => Err(Mismatch::new(format!("entry {next}"), format_args!("entry {index}"))),
            };
            match entry {
                Ok(entry) => entries.push(entry),
                Err(mismatch) => {
                    damage = Some(self.damaged_entry(group, next, mismatch));
                    return ControlFlow::Break(());
                }
            }
            next = next.next();
            ControlFlow::Continue(())
        })?;
        damage.map_or(Ok(entries), Err)
    }

    /// Visits what lies in a log, whether or not it should.
    pub fn visit(
        self,
        group: GroupId,
        range: Range<LogIndex>,
        mut visit: impl FnMut(LogIndex, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        let keys = format::log_range(group, range);
        let mut damage = None;
        self.0.scan(Family::RaftLog, &keys.start..&keys.end, |key, value| match format::decode_log_key(key) {
            Ok((_, index)) => visit(index, value),
            Err(mismatch) => {
                damage = Some(self.damaged("a key of raft_log", mismatch));
                ControlFlow::Break(())
            }
        })?;
        damage.map_or(Ok(()), Err)
    }

    pub fn term(self, group: GroupId, index: LogIndex) -> Result<Option<Term>, StoreError> {
        let term = self.0.get(Family::RaftLog, &format::log_key(group, index), format::decode_entry_term)?;
        if let Some(term) = term {
            return term.map(Some).map_err(|what| self.damaged_entry(group, index, what));
        }
        // Looked at behind the log, not before: if the entry was compacted away in between, this knows.
        let key = format::state_key(group, Tag::Truncated);
        let truncated = self.0.get(Family::RaftState, &key, format::decode_truncated)?.transpose();
        let truncated =
            truncated.map_err(|what| self.damaged(format_args!("{} of group {group}", Tag::Truncated), what))?;
        Ok(truncated.filter(|truncated| truncated.index == index).map(|truncated| truncated.term))
    }

    pub fn get(
        self,
        group: GroupId,
        generation: Generation,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(family(table), &format::table_key(group, generation, key), <[u8]>::to_vec)?)
    }

    pub fn scan(
        self,
        group: GroupId,
        generation: Generation,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let mut pairs = Vec::new();
        if rules::is_empty(range) || limit == 0 {
            return Ok(pairs);
        }
        let keys = format::table_range(group, generation, range);
        self.0.scan(family(table), &keys.start..&keys.end, |key, value| {
            pairs.push((format::decode_table_key(key).to_vec(), value.to_vec()));
            if pairs.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(pairs)
    }

    /// The pairs of a generation behind a place, up to `limit_bytes` but at least one.
    pub fn pairs(
        self,
        group: GroupId,
        generation: Generation,
        after: Option<&Place>,
        limit_bytes: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let (mut pairs, mut size_bytes, mut is_full) = (Vec::new(), 0usize, false);
        for table in Table::ALL.into_iter().filter(|table| after.is_none_or(|after| after.table <= *table)) {
            let behind = after.filter(|after| after.table == table);
            let start = behind.map_or(Bound::Unbounded, |after| Bound::Excluded(after.key.as_slice()));
            let keys = format::table_range(group, generation, (start, Bound::Unbounded));
            self.0.scan(family(table), &keys.start..&keys.end, |key, value| {
                let place = Place { table, key: format::decode_table_key(key).to_vec() };
                let pair = Pair { place, value: value.to_vec() };
                size_bytes = size_bytes.saturating_add(pair.size_bytes());
                is_full = size_bytes > limit_bytes && !pairs.is_empty();
                if is_full {
                    return ControlFlow::Break(());
                }
                pairs.push(pair);
                ControlFlow::Continue(())
            })?;
            if is_full {
                break;
            }
        }
        Ok(pairs)
    }

    /// The generations of which a group has keys in its tables, in order, `limit` at most. A few seeks for each.
    pub fn generations(self, group: GroupId, limit: usize) -> Result<Vec<Generation>, StoreError> {
        let mut found = BTreeSet::new();
        for family in FAMILIES {
            let keys = format::tables_of(group);
            let mut start = Some(keys.start);
            while let Some(from) = start.take().filter(|_| found.len() < limit) {
                let mut next = None;
                self.0.scan(family, &from..&keys.end, |key, _| {
                    next = format::decode_generation(key);
                    ControlFlow::Break(())
                })?;
                start = next.map(|generation| format::generation_range(group, generation).end);
                found.extend(next);
            }
        }
        Ok(found.into_iter().collect())
    }

    pub fn damaged_entry(self, group: GroupId, index: LogIndex, mismatch: Mismatch) -> StoreError {
        self.damaged(format_args!("entry {index} of group {group}"), mismatch)
    }

    fn damaged(self, place: impl std::fmt::Display, mismatch: Mismatch) -> StoreError {
        StoreError::Damaged { place: format!("{place} in {}", self.0.path().display()), what: mismatch.to_string() }
    }
}

fn what_is_at(key: &[u8]) -> String {
    format::decode_state_key(key).map_or_else(|_| "a record".into(), |(_, tag)| tag.to_string())
}

/// A group's records, as they are read.
#[derive(Default, PartialEq)]
struct Records {
    replica: Option<Replica>,
    hard_state: Option<HardState>,
    membership: Option<Membership>,
    applied: Option<LogIndex>,
    truncated: Option<Position>,
    marker: Option<Marker>,
    unhealthy: Option<Unhealthy>,
}

impl Records {
    fn read(&mut self, tag: Tag, value: &[u8]) -> Result<(), Mismatch> {
        match tag {
            Tag::Replica => self.replica = Some(Replica::decode(value)?),
            Tag::HardState => self.hard_state = Some(format::decode_hard_state(value)?),
            Tag::Membership => self.membership = Some(format::decode_membership(value)?),
            Tag::Applied => self.applied = Some(format::decode_applied(value)?),
            Tag::Truncated => self.truncated = Some(format::decode_truncated(value)?),
            Tag::Marker => self.marker = Some(Marker::decode(value)?),
            Tag::Unhealthy => self.unhealthy = Some(format::decode_unhealthy(value)?),
            // Of an earlier replica.
            Tag::Tombstone => drop(format::decode_tombstone(value)?),
        }
        Ok(())
    }

    /// The first record that every group has and this one has not.
    fn missing(&self) -> Option<Tag> {
        let there = [
            (Tag::Replica, self.replica.is_some()),
            (Tag::HardState, self.hard_state.is_some()),
            (Tag::Membership, self.membership.is_some()),
            (Tag::Applied, self.applied.is_some()),
            (Tag::Truncated, self.truncated.is_some()),
        ];
        there.into_iter().find(|(_, is_there)| !is_there).map(|(tag, _)| tag)
    }
}
