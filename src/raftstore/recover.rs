//! The last resort for a group most of whose voters are gone for good: one replica goes on alone. Offline only.
//!
//! What is decided here is what it believes afterwards. Its whole log stays, also behind what it knows to be committed: there
//! may be entries that were acknowledged. There may be such that were not, and they are committed now; and whatever was
//! acknowledged without this replica is lost. It is the only voter; all others count as removed, so that none of them is
//! listened to, whatever still runs somewhere. Its term rises, and its vote in the new one is its own to give.
//!
//! Changes of the membership that are in the log and were not applied speak of a group that is no more: their entries stay
//! where they are and do nothing. (The log needs to match nobody's: new replicas begin with a snapshot.)
//!
//! Pure: it reads and writes nothing itself.

use super::entry::{Entry, EntryKind, HardState, Membership, Position};
use super::log_store::{StoreError, StoredGroup};
use crate::ident::{GroupId, LogIndex, Term};

/// What becomes of a group that goes on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The group.
    pub group: GroupId,
    /// How it stands.
    pub stored: StoredGroup,
    /// Who takes part afterwards.
    pub membership: Membership,
    /// Term, vote and commit afterwards.
    pub hard_state: HardState,
    /// Changes of the membership in the log that will not happen.
    pub dropped_changes: Vec<Position>,
}

impl Recovery {
    /// Plans it. `changes` are the positions of the entries behind the applied index that change the membership.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: the replica is alone already, or it knows nothing of its group.
    pub fn plan(group: GroupId, stored: StoredGroup, changes: Vec<Position>) -> Result<Recovery, StoreError> {
        let refused = |what: &str| Err(StoreError::Refused(format!("group {group}: {what}")));
        let replica = stored.replica;
        let Some(node) = stored.membership.node_of(replica) else {
            return refused("the replica here takes no part in it, so that its log may be anybody's");
        };
        let alone = Membership::of_voters([(replica, node)]);
        let membership = Membership { highest: stored.membership.highest, ..alone };
        if stored.membership == membership && changes.is_empty() {
            return refused("the replica here is its only member already");
        }
        let term = Term::new(stored.hard_state.term.get() + 1);
        let hard_state = HardState { term, vote: None, commit: stored.hard_state.commit };
        Ok(Recovery { group, stored, membership, hard_state, dropped_changes: changes })
    }

    /// The entries behind what is known to be committed: acknowledged or not, nobody knows.
    pub fn unsure_entries(&self) -> u64 {
        self.stored.last.index.get().saturating_sub(self.stored.hard_state.commit.get())
    }

    /// What stands in place of a change that will not happen.
    pub(in crate::raftstore) fn without_effect(position: Position) -> Entry {
        Entry::new(EntryKind::Command, position, Vec::new(), Vec::new())
    }
}

/// The entries behind `applied` that change the membership.
pub(super) fn changes<'a>(entries: impl IntoIterator<Item = &'a Entry>, applied: LogIndex) -> Vec<Position> {
    let behind = entries.into_iter().filter(|entry| entry.index() > applied);
    behind.filter(|entry| entry.kind() == EntryKind::ConfChange).map(Entry::position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::{NodeId, ReplicaId};

    fn stored() -> StoredGroup {
        let voters = [1, 2, 5].map(|id| (ReplicaId::new(id), NodeId::new(id + 10)));
        StoredGroup {
            replica: ReplicaId::new(2),
            hard_state: HardState { term: Term::new(4), vote: Some(ReplicaId::new(5)), commit: LogIndex::new(7) },
            membership: Membership { voters_outgoing: vec![ReplicaId::new(1)], ..Membership::of_voters(voters) },
            applied: LogIndex::new(6),
            truncated: Position::new(3, 2),
            last: Position::new(9, 4),
            unhealthy: None,
        }
    }

    #[test]
    fn one_goes_on_alone_and_the_others_count_as_removed() {
        let change = Position::new(8, 4);
        let recovery = Recovery::plan(GroupId::new(1), stored(), vec![change]).unwrap();
        assert_eq!(recovery.membership.voters, [ReplicaId::new(2)]);
        assert!(!recovery.membership.is_joint());
        for gone in [1, 5] {
            assert!(recovery.membership.was_removed(ReplicaId::new(gone)));
        }
        let expected = HardState { term: Term::new(5), vote: None, commit: LogIndex::new(7) };
        assert_eq!((recovery.hard_state, recovery.unsure_entries()), (expected, 2));
        assert_eq!(recovery.dropped_changes, [change]);
        let empty = Recovery::without_effect(change);
        assert_eq!((empty.position(), empty.data(), empty.kind()), (change, &[][..], EntryKind::Command));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |stored| Recovery::plan(GroupId::new(1), stored, Vec::new()).unwrap_err().to_string();
        let learned_nothing = StoredGroup { membership: Membership::default(), ..stored() };
        assert!(refused(learned_nothing).contains("takes no part"));
        let recovered = Recovery::plan(GroupId::new(1), stored(), Vec::new()).unwrap();
        assert!(refused(StoredGroup { membership: recovered.membership, ..stored() }).contains("only member already"));
    }

    #[test]
    fn only_changes_that_were_not_applied_are_dropped() {
        let entry = |index, kind| Entry::new(kind, Position::new(index, 1), vec![1], Vec::new());
        let log = [
            entry(5, EntryKind::ConfChange),
            entry(6, EntryKind::Command),
            entry(7, EntryKind::ConfChange),
            entry(8, EntryKind::Command),
        ];
        assert_eq!(changes(&log, LogIndex::new(5)), [Position::new(7, 1)]);
    }
}
