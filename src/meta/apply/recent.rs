//! Pure: how the keys are that changed lately, so that the next change of one need not look for it in the tables. It
//! says what they say, or nothing: whatever it has forgotten decides nothing.
//!
//! Two generations. What is noted comes into the younger; when that is full it becomes the older, and what only the older
//! one before held is forgotten.

use std::collections::HashMap;

/// Of each generation.
const MAX_BYTES: usize = 8 << 20;
/// What a key takes beside its own bytes, about.
const ENTRY_BYTES: usize = 80;

/// What the next change of a key has to know of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub create_revision: u64,
    pub version: u64,
    pub lease: u64,
    /// What key and value count for.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// `None`: the key is deleted.
    young: HashMap<Vec<u8>, Option<Known>>,
    young_bytes: usize,
    old: HashMap<Vec<u8>, Option<Known>>,
}

impl Recent {
    /// How a key is; `None`: that is not known here.
    pub fn get(&self, key: &[u8]) -> Option<Option<Known>> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    /// A key is like this from now on, and all that was known of it is wrong.
    pub fn note(&mut self, key: Vec<u8>, known: Option<Known>) {
        let bytes = key.len() + ENTRY_BYTES;
        if self.young.insert(key, known).is_some() {
            return;
        }
        self.young_bytes += bytes;
        if self.young_bytes > MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(version: u64) -> Option<Known> {
        Some(Known { create_revision: 1, version, lease: 0, bytes: 100 })
    }

    #[test]
    fn the_last_note_counts_whichever_generation_holds_it() {
        let mut recent = Recent::default();
        assert_eq!(recent.get(b"a"), None);
        recent.note(b"a".to_vec(), known(1));
        recent.old = std::mem::take(&mut recent.young);
        assert_eq!(recent.get(b"a"), Some(known(1)));
        recent.note(b"a".to_vec(), None);
        assert_eq!(recent.get(b"a"), Some(None), "deleted is known, too");
    }

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let mut recent = Recent::default();
        let key = |number: u64| [&[7; 4000][..], &number.to_be_bytes()].concat();
        let count = 4 * MAX_BYTES as u64 / 4000;
        for number in 0..count {
            recent.note(key(number), known(number));
            let held: usize = recent.young.keys().chain(recent.old.keys()).map(|key| key.len() + ENTRY_BYTES).sum();
            assert!(held <= 2 * MAX_BYTES + 5000, "{held}");
            assert_eq!(recent.get(&key(number)), Some(known(number)));
        }
        assert_eq!(recent.get(&key(0)), None);
        assert!(recent.get(&key(count - 1000)).is_some(), "a generation is kept behind the young one");
    }
}
