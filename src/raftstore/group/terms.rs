//! The terms of a whole log in a few bytes: raft-rs asks for the term of any index at any time, also of entries that
//! are not in memory. Terms only rise along a log, so the places where they change say everything.

use crate::ident::{LogIndex, Term};
use crate::raftstore::entry::Position;

/// Where each term begins, from the last truncated entry on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermRuns {
    /// The first index of each term, in order; the first is the truncated entry's.
    starts: Vec<Position>,
    last: LogIndex,
}

impl TermRuns {
    /// Finds where the terms change between two positions of a stored log, in about as many look-ups as there are
    /// terms times the logarithm of the length.
    ///
    /// # Errors
    /// What the look-up says. It must know every index asked for.
    pub fn find<E>(
        truncated: Position,
        last: Position,
        mut term_of: impl FnMut(LogIndex) -> Result<Term, E>,
    ) -> Result<TermRuns, E> {
        let mut starts = vec![truncated];
        let mut known = truncated;
        while known.term < last.term {
            // The first index whose term is above the known one lies in (low, high].
            let (mut low, mut high) = (known.index.get(), last.index.get());
            while low + 1 < high {
                let middle = low + (high - low) / 2;
                if term_of(LogIndex::new(middle))? > known.term { high = middle } else { low = middle }
            }
            let start = LogIndex::new(high);
            let term = term_of(start)?;
            if term <= known.term {
                // Terms that go down: `check` names it; here it only must not loop.
                break;
            }
            known = Position { index: start, term };
            starts.push(known);
        }
        Ok(TermRuns { starts, last: last.index })
    }

    /// A log without entries that goes on behind this one.
    pub fn empty(truncated: Position) -> TermRuns {
        TermRuns { starts: vec![truncated], last: truncated.index }
    }

    /// The last index.
    pub fn last(&self) -> LogIndex {
        self.last
    }

    /// The truncated entry's position.
    pub fn truncated(&self) -> Position {
        self.starts.first().copied().unwrap_or_default()
    }

    /// The term of an index, from the truncated entry's to the last.
    pub fn get(&self, index: LogIndex) -> Option<Term> {
        if index > self.last || index < self.truncated().index {
            return None;
        }
        let after = self.starts.partition_point(|start| start.index <= index);
        self.starts.get(after.checked_sub(1)?).map(|start| start.term)
    }

    /// The log ends with this entry now, whatever came at its index and after.
    pub fn push(&mut self, position: Position) {
        self.last = position.index;
        while self.starts.len() > 1 && self.starts.last().is_some_and(|start| start.index >= position.index) {
            self.starts.pop();
        }
        if self.starts.last().is_none_or(|start| start.term != position.term) {
            self.starts.push(position);
        }
    }

    /// The log begins behind this entry now.
    pub fn truncate(&mut self, position: Position) {
        let after = self.starts.partition_point(|start| start.index <= position.index);
        self.starts.splice(..after, [position]);
        self.last = self.last.max(position.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(terms: &[u64]) -> TermRuns {
        let at = |index: u64| Position::new(index, terms[index as usize]);
        let last = terms.len() as u64 - 1;
        TermRuns::find(at(0), at(last), |index| Ok::<_, ()>(Term::new(terms[index.get() as usize]))).unwrap()
    }

    proptest! {
        /// The runs say for every index what a plain list of terms says, also after appends and truncations.
        #[test]
        fn same_as_a_list(
            steps in prop::collection::vec(0u64..3, 1..60),
            appended in prop::collection::vec((0usize..60, 1u64..3), 0..20),
            cut in 0usize..60,
        ) {
            let mut terms: Vec<u64> = steps.iter().scan(0, |term, step| { *term += step; Some(*term) }).collect();
            let mut runs = find(&terms);
            for (at, step) in appended {
                let at = at.clamp(1, terms.len());
                terms.truncate(at);
                terms.push(terms[at - 1] + step);
                runs.push(Position::new(at as u64, terms[at]));
            }
            let cut = cut.min(terms.len() - 1);
            runs.truncate(Position::new(cut as u64, terms[cut]));
            prop_assert_eq!(runs.last().get(), terms.len() as u64 - 1);
            for (index, term) in terms.iter().enumerate() {
                let expected = (index >= cut).then_some(Term::new(*term));
                prop_assert_eq!(runs.get(LogIndex::new(index as u64)), expected, "index {}", index);
            }
            prop_assert_eq!(runs.get(LogIndex::new(terms.len() as u64)), None);
        }
    }

    #[test]
    fn a_million_entries_take_few_look_ups() {
        let term = |index: LogIndex| 1 + index.get() / 250_000;
        let mut asked = 0;
        let runs = TermRuns::find(Position::new(0, 1), Position::new(999_999, 4), |index| {
            asked += 1;
            Ok::<_, ()>(Term::new(term(index)))
        });
        assert_eq!(runs.unwrap().get(LogIndex::new(499_999)), Some(Term::new(2)));
        assert!(asked < 100, "{asked}");
    }
}
