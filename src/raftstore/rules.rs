//! What a store refuses to write, and what a write means for the entries that are there. Pure, and the same for every
//! store of this crate. Those of snapshots are in `fill`.
//!
//! A refused write is a bug of the caller, met before anything is written. Each rule keeps true one that
//! [`super::check`] would otherwise find broken at the next start.

pub(super) mod fill;

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use super::entry::{Entry, HardState, Membership, Position, Unhealthy};
use super::log_store::{AppliedTo, LogWrite, StoreError, StoredGroup};
use super::snapshot::SnapshotId;
use crate::ident::{GroupId, LogIndex, ReplicaId, Term};

/// What has to be known of a group to judge a write without reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub hard_state: HardState,
    pub applied: LogIndex,
    pub truncated: Position,
    pub last: Position,
    pub is_unhealthy: bool,
}

impl From<&StoredGroup> for Outline {
    fn from(stored: &StoredGroup) -> Outline {
        let StoredGroup { hard_state, applied, truncated, last, unhealthy, .. } = *stored;
        Outline { hard_state, applied, truncated, last, is_unhealthy: unhealthy.is_some() }
    }
}

impl Outline {
    /// Takes over what a log write changes.
    pub fn set_log(&mut self, planned: &Outline) {
        // Effects may have been applied since the write was planned; a snapshot that it takes over is not behind them. And
        // the state may have been found to be wrong: only a snapshot changes that.
        let (applied, is_unhealthy) = (self.applied.max(planned.applied), self.is_unhealthy);
        *self = Outline { applied, is_unhealthy, ..*planned };
    }
}

/// What writing one [`LogWrite`] takes, beyond putting what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// A snapshot is taken over: these entries go before any other is put.
    pub replaced: Option<Range<LogIndex>>,
    /// Rule of durable order 4: these entries go, behind the last of the new ones.
    pub stale: Option<Range<LogIndex>>,
    /// These are compacted away, and this becomes the position truncated last.
    pub truncate: Option<(Range<LogIndex>, Position)>,
}

/// What writing a list of [`LogWrite`] takes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// One for each write.
    pub steps: Vec<Step>,
    /// How the groups look afterwards.
    pub outlines: BTreeMap<GroupId, Outline>,
    /// Whether a term or a vote changes.
    pub votes: bool,
}

/// Judges writes. `known` says what is stored of a group, `destroyed` its tombstone, `filled` which snapshot was filled
/// completely, `term` the term of a stored entry.
///
/// # Errors
/// One of them is refused, or `term` failed.
pub(super) fn plan(
    writes: &[LogWrite],
    known: impl Fn(GroupId) -> Option<Outline>,
    destroyed: impl Fn(GroupId) -> Option<ReplicaId>,
    filled: impl Fn(GroupId) -> Option<(SnapshotId, Position)>,
    term: impl Fn(GroupId, LogIndex) -> Result<Option<Term>, StoreError>,
) -> Result<Plan, StoreError> {
    let mut plan = Plan { steps: Vec::with_capacity(writes.len()), ..Plan::default() };
    for (place, write) in writes.iter().enumerate() {
        let group = write.group;
        let before = plan.outlines.get(&group).copied().or_else(|| known(group));
        let mut outline = begin(write, before, &destroyed)?;
        let mut step = Step::default();
        if let Some(restore) = &write.restore {
            fill::check_restore(group, &outline, filled(group), restore)?;
            let Outline { truncated, last, .. } = outline;
            step.replaced = (last.index > truncated.index).then(|| truncated.index.next()..last.index.next());
            let Position { index: applied, .. } = restore.position;
            let (truncated, last) = (restore.position, restore.position);
            outline = Outline { applied, truncated, last, is_unhealthy: false, ..outline };
        }
        let committed = outline.hard_state.commit;
        if let Some(state) = &write.hard_state {
            plan.votes |= (state.term, state.vote) != (outline.hard_state.term, outline.hard_state.vote);
            check_vote(group, &outline.hard_state, state)?;
            outline.hard_state = *state;
        }
        if let Some(restore) = write.restore.as_ref().filter(|restore| restore.position.term > outline.hard_state.term)
        {
            let (position, term) = (restore.position, outline.hard_state.term);
            return Err(refused(
                group,
                format!("a snapshot at {position} is of a later term than the replica, {term}"),
            ));
        }
        // What an earlier write of this very list, or this one, has put is not stored yet.
        let term =
            |outline: &Outline, index| match [outline.last, outline.truncated].iter().find(|at| at.index == index) {
                Some(position) => Ok(position.term),
                None => match staged_term(&writes[..=place], group, index) {
                    Some(term) => Ok(term),
                    None => term(group, index)?.ok_or_else(|| missing(group, index)),
                },
            };
        if let [first, ..] = write.entries.as_slice() {
            check_place(group, &outline, committed.max(outline.applied), first.position())?;
            let previous = first.index().previous();
            let previous = Position { index: previous, term: term(&outline, previous)? };
            let last = check_entries(group, outline.hard_state.term, previous, &write.entries)?;
            step.stale = (last.index < outline.last.index).then(|| last.index.next()..outline.last.index.next());
            outline.last = last;
        }
        if outline.hard_state.commit > outline.last.index || outline.hard_state.commit < committed {
            let (commit, last) = (outline.hard_state.commit, outline.last.index);
            return Err(refused(group, format!("commit {commit} after {committed}, with the log's last entry {last}")));
        }
        if let Some(to) = write.truncate.filter(|to| to.index > outline.truncated.index) {
            if to.index > outline.applied || to.index > outline.last.index {
                let what = format!("{to} cannot be truncated: applied {}, last {}", outline.applied, outline.last);
                return Err(refused(group, what));
            }
            let stored = term(&outline, to.index)?;
            if stored != to.term {
                return Err(refused(group, format!("{to} cannot be truncated: the entry is of term {stored}")));
            }
            step.truncate = Some((outline.truncated.index.next()..to.index.next(), to));
            outline.truncated = to;
        }
        plan.outlines.insert(group, outline);
        plan.steps.push(step);
    }
    Ok(plan)
}

/// How a group stands before a write: as it is, or as one that the write makes.
fn begin(
    write: &LogWrite,
    before: Option<Outline>,
    destroyed: impl Fn(GroupId) -> Option<ReplicaId>,
) -> Result<Outline, StoreError> {
    let group = write.group;
    match (before, &write.create) {
        (None, Some((replica, membership))) if replica.get() != 0 => {
            check_created(group, membership)?;
            check_unused(group, *replica, destroyed(group))?;
            Ok(Outline::default())
        }
        (None, Some(_)) => Err(refused(group, "its replica cannot be 0")),
        (None, None) => Err(never_made(group)),
        (Some(_), Some(_)) => Err(refused(group, "it was made before")),
        (Some(outline), None) => Ok(outline),
    }
}

/// Judges an apply: rule of durable order 3 makes the two one write, this keeps them in order.
pub(super) fn check_applied(group: GroupId, known: Option<Outline>, to: &AppliedTo) -> Result<(), StoreError> {
    let Some(Outline { applied, last, .. }) = known else { return Err(never_made(group)) };
    if to.index < applied || to.index > last.index {
        let what = format!("cannot be applied up to {}: applied {applied}, last {}", to.index, last.index);
        return Err(refused(group, what));
    }
    Ok(())
}

/// Judges the word that a replica's state is wrong.
pub(super) fn check_unhealthy(group: GroupId, known: Option<Outline>, unhealthy: Unhealthy) -> Result<(), StoreError> {
    let Some(Outline { applied, .. }) = known else { return Err(never_made(group)) };
    if unhealthy.index > applied {
        return Err(refused(group, format!("unhealthy as of {}, which is not applied: {applied}", unhealthy.index)));
    }
    Ok(())
}

fn check_created(group: GroupId, membership: &Membership) -> Result<(), StoreError> {
    let has_voter = !membership.voters.is_empty() || *membership == Membership::default();
    if has_voter { Ok(()) } else { Err(refused(group, "its membership has no voter")) }
}

/// A replica that was destroyed may have voted and acknowledged: a new one under its name would have forgotten that.
fn check_unused(group: GroupId, replica: ReplicaId, destroyed: Option<ReplicaId>) -> Result<(), StoreError> {
    match destroyed {
        Some(destroyed) if replica <= destroyed => {
            let what = format!("replica {replica} cannot be made: replica {destroyed} was destroyed here");
            Err(refused(group, what))
        }
        _ => Ok(()),
    }
}

/// The group is there, to be destroyed or captured.
pub(super) fn check_made<T>(group: GroupId, stored: Option<T>) -> Result<T, StoreError> {
    stored.ok_or_else(|| never_made(group))
}

fn never_made(group: GroupId) -> StoreError {
    refused(group, "it was never made")
}

fn check_vote(group: GroupId, before: &HardState, state: &HardState) -> Result<(), StoreError> {
    if state.term < before.term {
        return Err(refused(group, format!("term {} after {}", state.term, before.term)));
    }
    if state.term == before.term && before.vote.is_some() && state.vote != before.vote {
        return Err(refused(group, format!("another vote in term {}", state.term)));
    }
    Ok(())
}

fn check_place(group: GroupId, outline: &Outline, committed: LogIndex, first: Position) -> Result<(), StoreError> {
    let Outline { truncated, last, .. } = outline;
    if first.index > last.index.next() {
        return Err(refused(group, format!("{first} would leave a gap after {last}")));
    }
    if first.index <= truncated.index {
        return Err(refused(group, format!("{first} is truncated, up to {truncated}")));
    }
    if first.index <= committed {
        return Err(refused(group, format!("{first} would replace what is committed, up to {committed}")));
    }
    Ok(())
}

/// Answers the position of the last one.
fn check_entries(group: GroupId, term: Term, previous: Position, entries: &[Entry]) -> Result<Position, StoreError> {
    let mut previous = previous;
    for entry in entries {
        let position = entry.position();
        if position.index != previous.index.next() || position.term < previous.term || position.term.get() == 0 {
            return Err(refused(group, format!("{position} cannot follow {previous}")));
        }
        if position.term > term {
            return Err(refused(group, format!("{position} is of a later term than the replica, {term}")));
        }
        if !entry.is_known() {
            return Err(refused(group, format!("{position} is of a kind that is not kept")));
        }
        previous = position;
    }
    Ok(previous)
}

/// The term of the latest entry of this index among the writes.
fn staged_term(writes: &[LogWrite], group: GroupId, index: LogIndex) -> Option<Term> {
    let of_group = writes.iter().rev().filter(|write| write.group == group);
    let mut entries = of_group.filter_map(|write| {
        let offset = index.get().checked_sub(write.entries.first()?.index().get())?;
        write.entries.get(usize::try_from(offset).ok()?)
    });
    entries.next().map(Entry::term)
}

/// An entry between truncated and last must be there.
pub(super) fn missing(group: GroupId, index: LogIndex) -> StoreError {
    StoreError::Damaged {
        place: format!("the log of group {group}"),
        what: format!("expected entry {index}, found none"),
    }
}

pub(super) fn refused(group: GroupId, what: impl AsRef<str>) -> StoreError {
    StoreError::Refused(format!("group {group}: {}", what.as_ref()))
}

/// Whether no key can lie in a range.
pub(super) fn is_empty((from, to): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}
