//! What is always true of what is stored of a group: checked at each opening, and by the inspector in the same words.
//!
//! Each holds after any crash because a store recovers to a prefix of what was written to it, and because of the order
//! in which it is written:
//!
//! | rule | because |
//! |---|---|
//! | commit ≤ last | a commit is written with the entries it covers, or after them |
//! | applied ≤ commit | what is applied was committed: a commit noted before that counts as that much |
//! | truncated ≤ applied | only what is applied is compacted away |
//! | unhealthy as of ≤ applied | what is judged is what was applied |
//! | last term ≤ term | a replica takes entries of a term only once it is in that term, or with the same write |
//! | no gap, terms never fall | entries replace everything behind them (rule of durable order 4) |
//! | no tables but those to be seen, and those that the marker names | a marker is written before what it names, and goes with it |
//!
//! `rules` refuses to write what would break one of them, so that a bug of ours is met where it happens and not as
//! damage at the next start.
//!
//! Pure: it reads nothing itself.

use std::collections::BTreeSet;
use std::fmt;

use super::entry::{Membership, Position};
use super::format::Generation;
use super::log_store::{LogStore, StoreError, StoredGroup};
use crate::ident::{GroupId, LogIndex, ReplicaId};

/// Violations named of one log; more of them say nothing new.
const MAX_VIOLATIONS: usize = 20;
/// Entries read at once when a whole log is checked.
const READ_BYTES: usize = 1 << 20;

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What must be.
    pub expected: String,
    /// What is.
    pub found: String,
}

impl Violation {
    fn new(expected: impl Into<String>, found: impl Into<String>) -> Violation {
        Violation { expected: expected.into(), found: found.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

/// Checks what can be seen without reading the log.
pub fn check_bounds(stored: &StoredGroup) -> Vec<Violation> {
    let StoredGroup { replica, hard_state, membership, applied, truncated, last, unhealthy } = stored;
    let mut violations = Vec::new();
    let mut require = |holds: bool, expected: &str, found: String| {
        if !holds {
            violations.push(Violation::new(expected, found));
        }
    };
    require(replica.get() != 0, "a replica other than 0", "0".into());
    let commit = hard_state.commit;
    require(commit <= last.index, "commit ≤ last", format!("commit {commit}, last {}", last.index));
    require(*applied <= commit, "applied ≤ commit", format!("applied {applied}, commit {commit}"));
    require(
        truncated.index <= *applied,
        "truncated ≤ applied",
        format!("truncated {}, applied {applied}", truncated.index),
    );
    if let Some(unhealthy) = unhealthy {
        let found = format!("unhealthy as of {}, applied {applied}", unhealthy.index);
        require(unhealthy.index <= *applied, "unhealthy as of ≤ applied", found);
    }
    require(
        truncated.index <= last.index,
        "truncated ≤ last",
        format!("truncated {}, last {}", truncated.index, last.index),
    );
    require(
        last.term <= hard_state.term,
        "last term ≤ term",
        format!("last term {}, term {}", last.term, hard_state.term),
    );
    require(
        truncated.term <= last.term,
        "truncated term ≤ last term",
        format!("truncated term {}, last term {}", truncated.term, last.term),
    );
    for (name, position) in [("truncated", truncated), ("last", last)] {
        let is_none = position.index.get() == 0;
        let has_term = position.term.get() != 0;
        require(is_none != has_term, "a term exactly where there is an entry", format!("{name} {position}"));
    }
    let vote = hard_state.vote.map_or(0, ReplicaId::get);
    require(vote == 0 || hard_state.term.get() != 0, "a vote in a term", format!("vote {vote} in term 0"));
    check_membership(membership, applied.get() == 0, &mut require);
    violations
}

/// Checks a membership by itself, as it comes with a snapshot.
pub(super) fn check_members(membership: &Membership) -> Vec<Violation> {
    let mut violations = Vec::new();
    check_membership(membership, false, &mut |holds, expected, found| {
        if !holds {
            violations.push(Violation::new(expected, found));
        }
    });
    violations
}

/// A replica may begin without any membership, and learns of it from its leader.
fn check_membership(membership: &Membership, is_new: bool, require: &mut dyn FnMut(bool, &str, String)) {
    let Membership { voters, learners, voters_outgoing, learners_next, auto_leave, nodes, highest } = membership;
    if is_new && *membership == Membership::default() {
        return;
    }
    require(!voters.is_empty(), "a voter", "none".into());
    let set = |replicas: &[ReplicaId]| replicas.iter().copied().collect::<BTreeSet<_>>();
    for (name, list) in [
        ("voters", voters),
        ("learners", learners),
        ("outgoing voters", voters_outgoing),
        ("next learners", learners_next),
    ] {
        require(set(list).len() == list.len(), "each replica once", format!("{name} {}", numbers(list)));
        for replica in list {
            require(replica.get() != 0, "replicas other than 0", format!("{name} {}", numbers(list)));
            let has_node = nodes.contains_key(replica);
            require(has_node, "a node for each replica", format!("none for replica {replica} of the {name}"));
        }
    }
    let (all_voters, outgoing) = (&set(voters) | &set(voters_outgoing), set(voters_outgoing));
    for learner in learners {
        require(!all_voters.contains(learner), "voters and learners apart", format!("replica {learner} in both"));
    }
    for learner in learners_next {
        let leaves = outgoing.contains(learner);
        require(leaves, "next learners among the outgoing voters", format!("replica {learner} elsewhere"));
    }
    require(
        !auto_leave || !outgoing.is_empty(),
        "auto leave in a joint configuration only",
        "it without outgoing voters".into(),
    );
    let last = nodes.last_key_value().map(|(replica, _)| *replica).unwrap_or_default();
    require(last <= *highest, "no replica above the highest", format!("replica {last}, highest {highest}"));
}

fn numbers(replicas: &[ReplicaId]) -> String {
    let numbers: Vec<_> = replicas.iter().map(ReplicaId::to_string).collect();
    numbers.join(", ")
}

/// Checks of which generations a group has tables: the one to be seen, and the one that is being filled.
pub(super) fn check_generations(seen: Generation, filled: Option<Generation>, found: &[Generation]) -> Vec<Violation> {
    let strays = found.iter().filter(|found| **found != seen && Some(**found) != filled);
    let expected = match filled {
        None => format!("tables of generation {} only", seen.0),
        Some(filled) => format!("tables of generations {} and {} only", seen.0, filled.0),
    };
    strays.map(|stray| Violation::new(expected.clone(), format!("some of generation {}", stray.0))).collect()
}

/// Checks the entries of a log one after the other.
pub struct LogCheck {
    /// Where the log must end.
    last: Position,
    /// The entry before.
    previous: Position,
    violations: Vec<Violation>,
}

impl LogCheck {
    /// Begins behind what was truncated.
    pub fn new(stored: &StoredGroup) -> LogCheck {
        LogCheck { last: stored.last, previous: stored.truncated, violations: Vec::new() }
    }

    /// The next entry as it lies in the store.
    pub fn entry(&mut self, position: Position) {
        self.index(position.index);
        if position.term < self.previous.term {
            let (found, before) = (position.term, self.previous);
            self.add(Violation::new(
                "terms that never fall",
                format!("term {found} at {} after {before}", position.index),
            ));
        }
        self.previous = position;
    }

    /// The next entry cannot be read.
    pub fn unreadable(&mut self, index: LogIndex, violation: Violation) {
        self.index(index);
        self.add(violation);
        self.previous.index = index;
    }

    /// What was found.
    pub fn finish(mut self) -> Vec<Violation> {
        let (end, last) = (self.previous, self.last);
        if end.index != last.index {
            self.add(Violation::new(format!("the log to end at {}", last.index), end.index.to_string()));
        }
        self.violations
    }

    fn index(&mut self, index: LogIndex) {
        let next = self.previous.index.next();
        if index != next {
            self.add(Violation::new(format!("entry {next}"), format!("entry {index}")));
        }
    }

    fn add(&mut self, violation: Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        }
    }
}

/// Checks everything that a store holds of a group, reading its whole log.
///
/// # Errors
/// The store failed or cannot read an entry, or there is no such group.
pub fn check_group(store: &dyn LogStore, group: GroupId) -> Result<Vec<Violation>, StoreError> {
    let Some(stored) = store.load(group)? else {
        return Err(StoreError::Refused(format!("there is no group {group}")));
    };
    let mut violations = check_bounds(&stored);
    let mut check = LogCheck::new(&stored);
    let mut next = stored.truncated.index.next();
    loop {
        let entries = store.entries(group, next..LogIndex::new(u64::MAX), READ_BYTES)?;
        let Some(last) = entries.last() else { break };
        next = last.index().next();
        entries.iter().for_each(|entry| check.entry(entry.position()));
    }
    violations.extend(check.finish());
    Ok(violations)
}

/// An error that names them, if there are any.
pub(super) fn refuse(place: impl FnOnce() -> String, violations: &[Violation]) -> Result<(), StoreError> {
    if violations.is_empty() {
        return Ok(());
    }
    let what: Vec<_> = violations.iter().map(Violation::to_string).collect();
    Err(StoreError::Damaged { place: place(), what: what.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::{NodeId, Term};
    use crate::raftstore::entry::HardState;

    fn stored() -> StoredGroup {
        let voters = [1, 2, 3].map(|id| (ReplicaId::new(id), NodeId::new(id)));
        StoredGroup {
            replica: ReplicaId::new(1),
            hard_state: HardState { term: Term::new(3), vote: None, commit: LogIndex::new(8) },
            membership: Membership::of_voters(voters),
            applied: LogIndex::new(7),
            truncated: Position::new(5, 1),
            last: Position::new(10, 3),
            unhealthy: None,
        }
    }

    fn found(change: impl FnOnce(&mut StoredGroup)) -> String {
        let mut stored = stored();
        change(&mut stored);
        let violations: Vec<_> = check_bounds(&stored).iter().map(Violation::to_string).collect();
        violations.join("; ")
    }

    #[test]
    fn each_rule_is_checked() {
        assert_eq!(found(|_| ()), "");
        let replica = ReplicaId::new;
        type Case = (&'static str, fn(&mut StoredGroup));
        let cases: [Case; 12] = [
            ("a replica other than 0, found 0", |group| group.replica = ReplicaId::new(0)),
            ("commit ≤ last, found commit 11, last 10", |group| group.hard_state.commit = LogIndex::new(11)),
            ("applied ≤ commit, found applied 9, commit 8", |group| group.applied = LogIndex::new(9)),
            ("truncated ≤ applied, found truncated 8, applied 7", |group| group.truncated = Position::new(8, 1)),
            ("last term ≤ term, found last term 3, term 2", |group| group.hard_state.term = Term::new(2)),
            ("truncated term ≤ last term, found truncated term 4, last term 3", |group| {
                group.truncated = Position::new(5, 4);
            }),
            ("a term exactly where there is an entry, found truncated 5 of term 0", |group| {
                group.truncated = Position::new(5, 0);
            }),
            ("a voter, found none", |group| group.membership.voters.clear()),
            ("each replica once, found voters 1, 2, 3, 1", |group| {
                group.membership.voters.push(ReplicaId::new(1));
            }),
            ("a node for each replica, found none for replica 2 of the voters", |group| {
                group.membership.nodes.remove(&ReplicaId::new(2));
            }),
            ("voters and learners apart, found replica 2 in both", |group| {
                group.membership.learners.push(ReplicaId::new(2));
            }),
            ("auto leave in a joint configuration only, found it without outgoing voters", |group| {
                group.membership.auto_leave = true;
            }),
        ];
        for (expected, change) in cases {
            assert_eq!(found(change), format!("expected {expected}"));
        }
        let elsewhere = found(|group| group.membership.learners_next.push(replica(3)));
        assert_eq!(elsewhere, "expected next learners among the outgoing voters, found replica 3 elsewhere");
        assert!(
            found(|group| group.last = Position::new(4, 3)).contains("truncated ≤ last, found truncated 5, last 4")
        );
        let vote = found(|group| group.hard_state = HardState { vote: Some(replica(1)), ..HardState::default() });
        assert!(vote.contains("a vote in a term, found vote 1 in term 0"));
        // A replica that knows nothing yet.
        let mut new = StoredGroup { membership: Membership::default(), ..stored() };
        (new.hard_state, new.applied) = (HardState::default(), LogIndex::new(0));
        (new.truncated, new.last) = (Position::default(), Position::default());
        assert_eq!(check_bounds(&new), []);
    }

    #[test]
    fn tables_are_of_the_generations_that_records_name() {
        let found = |filled: Option<u32>, found: &[u32]| {
            let found: Vec<_> = found.iter().map(|number| Generation(*number)).collect();
            let violations = check_generations(Generation(2), filled.map(Generation), &found);
            violations.iter().map(Violation::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found(None, &[]), [""; 0]);
        assert_eq!(found(Some(3), &[2, 3]), [""; 0]);
        assert_eq!(found(None, &[2, 3]), ["expected tables of generation 2 only, found some of generation 3"]);
        assert_eq!(
            found(Some(3), &[1, 3]),
            ["expected tables of generations 2 and 3 only, found some of generation 1"]
        );
    }

    #[test]
    fn a_log_is_checked_entry_by_entry() {
        let found = |entries: &[(u64, u64)]| {
            let mut check = LogCheck::new(&stored());
            entries.iter().for_each(|(index, term)| check.entry(Position::new(*index, *term)));
            check.finish().iter().map(Violation::to_string).collect::<Vec<_>>()
        };
        let whole = [(6, 1), (7, 2), (8, 2), (9, 3), (10, 3)];
        assert_eq!(found(&whole), [""; 0]);
        assert_eq!(found(&whole[..4]), ["expected the log to end at 10, found 9"]);
        assert_eq!(found(&whole[1..]), ["expected entry 6, found entry 7"]);
        assert_eq!(found(&[&whole[..2], &whole[3..]].concat()), ["expected entry 8, found entry 9"]);
        let stale = found(&[&whole[..], &[(11, 2)]].concat());
        assert_eq!(
            stale,
            [
                "expected terms that never fall, found term 2 at 11 after 10 of term 3",
                "expected the log to end at 10, found 11"
            ]
        );
        let many: Vec<_> = (0..1000).map(|number| (number * 2, 3)).collect();
        assert_eq!(found(&many).len(), MAX_VIOLATIONS);
    }
}
