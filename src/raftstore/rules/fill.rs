//! When a snapshot may be filled and taken over. A replica is never moved back, and never to what is not all there.

use super::{Outline, never_made, refused};
use crate::ident::GroupId;
use crate::raftstore::entry::{Membership, Position};
use crate::raftstore::log_store::StoreError;
use crate::raftstore::snapshot::{Pair, Place, Restore, SnapshotId, SnapshotMeta};

/// A snapshot as far as it was filled.
#[derive(Clone, Debug)]
pub(in crate::raftstore) struct Fill {
    meta: SnapshotMeta,
    last: Option<Place>,
    is_complete: bool,
}

/// What beginning a fill comes to.
#[derive(Debug)]
pub(in crate::raftstore) enum Begun {
    /// This very snapshot was begun before, and is there up to this place.
    Before(Option<Place>),
    /// What was filled so far goes, and this begins.
    Anew(Fill),
}

/// Judges the begin of a fill. `before` is what is being filled.
///
/// # Errors
/// Refused: there is no such group, or the snapshot does not bring it forward, or is another of the same name.
pub(in crate::raftstore) fn begin(
    group: GroupId,
    known: Option<Outline>,
    before: Option<&Fill>,
    meta: &SnapshotMeta,
) -> Result<Begun, StoreError> {
    let outline = known.ok_or_else(|| never_made(group))?;
    check_forward(group, &outline, meta.position, &meta.membership)?;
    match before.filter(|before| before.meta.id == meta.id) {
        Some(before) if before.meta != *meta => {
            let (position, other) = (meta.position, before.meta.position);
            let what = format!("snapshot {} at {position} has the name of another, at {other}", meta.id);
            Err(refused(group, what))
        }
        Some(before) => Ok(Begun::Before(before.last.clone())),
        None => Ok(Begun::Anew(Fill { meta: meta.clone(), last: None, is_complete: false })),
    }
}

/// This snapshot is not being filled, or not any more.
pub(in crate::raftstore) fn not_filling(group: GroupId, id: SnapshotId) -> StoreError {
    refused(group, format!("snapshot {id} is not being filled"))
}

impl Fill {
    /// Its name.
    pub fn id(&self) -> SnapshotId {
        self.meta.id
    }

    /// What is there to be taken over: nothing before all of it is.
    pub fn filled(&self) -> Option<(SnapshotId, Position)> {
        self.is_complete.then_some((self.meta.id, self.meta.position))
    }

    /// Judges pairs of a snapshot that are to be added.
    ///
    /// # Errors
    /// Refused: it is another one or complete, or they are not in order behind those that are there.
    pub fn check(&self, group: GroupId, id: SnapshotId, pairs: &[Pair]) -> Result<(), StoreError> {
        if self.meta.id != id {
            return Err(not_filling(group, id));
        }
        if self.is_complete {
            return Err(refused(group, format!("snapshot {id} is complete")));
        }
        let places = self.last.iter().chain(pairs.iter().map(|pair| &pair.place));
        if !places.is_sorted_by(|one, next| one < next) {
            return Err(refused(group, format!("pairs of snapshot {id} are not in order")));
        }
        Ok(())
    }

    /// They were added.
    pub fn advance(&mut self, pairs: &[Pair], is_last: bool) {
        if let Some(pair) = pairs.last() {
            self.last = Some(pair.place.clone());
        }
        self.is_complete = is_last;
    }
}

/// Judges taking over a snapshot. `filled` is the one of the group that was filled completely.
///
/// # Errors
/// Refused.
pub(super) fn check_restore(
    group: GroupId,
    outline: &Outline,
    filled: Option<(SnapshotId, Position)>,
    restore: &Restore,
) -> Result<(), StoreError> {
    let Restore { id, position, membership } = restore;
    match filled {
        Some((filled, at)) if filled == *id && at == *position => {}
        Some((filled, at)) => {
            let what = format!("snapshot {id} at {position} was not filled, but {filled} at {at}");
            return Err(refused(group, what));
        }
        None => return Err(refused(group, format!("snapshot {id} was not filled completely"))),
    }
    check_forward(group, outline, *position, membership)
}

/// A snapshot is ahead of what is applied, or in place of what is wrong, and no committed entry is lost by it.
fn check_forward(
    group: GroupId,
    outline: &Outline,
    position: Position,
    membership: &Membership,
) -> Result<(), StoreError> {
    let Outline { hard_state, applied, truncated, is_unhealthy, .. } = outline;
    let commit = hard_state.commit;
    // An unhealthy replica may need the right state as of the very entry that its own is of.
    let brings_nothing = position.index < *applied || (position.index == *applied && !is_unhealthy);
    if brings_nothing || position.index < commit {
        let what = format!("a snapshot at {position} does not bring it forward: applied {applied}, commit {commit}");
        return Err(refused(group, what));
    }
    if position.term.get() == 0 || position.term < truncated.term {
        return Err(refused(group, format!("a snapshot at {position} cannot follow {truncated}")));
    }
    if membership.voters.is_empty() {
        return Err(refused(group, format!("the membership of a snapshot at {position} has no voter")));
    }
    Ok(())
}
