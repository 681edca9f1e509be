//! The parts of the open transaction, and how much they take.
//!
//! They stay in memory until the transaction ends, as one record takes all of them. So what is captured from now on has only as
//! much room as they leave of its `Limit`, whatever savepoints the transaction was cut into.

use super::super::payload::Part;

/// What a transaction did so far, in the order of effects.
#[derive(Default)]
pub(super) struct Parts {
    list: Vec<Part>,
    /// What all of the list takes.
    len_bytes: usize,
}

impl Parts {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// What they take, in memory, which is no less than they do in a record.
    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn push(&mut self, part: Part) {
        self.len_bytes = self.len_bytes.saturating_add(part_bytes(&part));
        self.list.push(part);
    }

    /// Forgets all but the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        let gone: usize = self.list.drain(count.min(self.list.len())..).map(|part| part_bytes(&part)).sum();
        self.len_bytes = self.len_bytes.saturating_sub(gone);
    }

    pub(super) fn clear(&mut self) {
        *self = Parts::default();
    }

    /// All of them, of which none stays.
    pub(super) fn take(&mut self) -> Vec<Part> {
        std::mem::take(self).list
    }
}

/// The counters are few: one for each table.
fn part_bytes(part: &Part) -> usize {
    let body = match part {
        Part::Changeset(bytes) => bytes.len(),
        Part::Ddl(text) => text.len(),
        Part::Sequences(_) => 0,
    };
    size_of::<Part>().saturating_add(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_taken_off_again() {
        let each = size_of::<Part>();
        let mut parts = Parts::default();
        parts.push(Part::Changeset(vec![0; 100]));
        parts.push(Part::Ddl("DROP TABLE t".to_owned()));
        parts.push(Part::Changeset(vec![0; 10]));
        assert_eq!((parts.count(), parts.len_bytes()), (3, 3 * each + 122));
        parts.truncate(5);
        assert_eq!(parts.len_bytes(), 3 * each + 122);
        parts.truncate(1);
        assert_eq!((parts.count(), parts.len_bytes()), (1, each + 100));
        assert_eq!(parts.take(), [Part::Changeset(vec![0; 100])]);
        assert_eq!((parts.is_empty(), parts.len_bytes()), (true, 0));
    }
}
