//! The heartbeat between two nodes, one for all groups together: "I live, and who sleeps on my word may go on".
//!
//! A beat travels as an envelope of a group that never exists, [`NODE_GROUP`], from and to replica 0; a node that does not
//! know of beats drops it. Its message is the [`Word`]:
//!
//! ```text
//! offset  size
//!      0     8  life   little-endian; drawn at random when the raftstore starts
//!      8     8  epoch  little-endian
//! ```

use bytes::Bytes;

use super::message::Envelope;
use crate::ident::{GroupId, ReplicaId};

/// What concerns a node and not a group. No group has this number.
pub const NODE_GROUP: GroupId = GroupId::new(u64::MAX);

/// Bytes of a word.
pub(super) const WORD_BYTES: usize = 16;

/// Under which a node speaks for the groups that it leads asleep: whoever sleeps on one word wakes when he hears another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Which life of the node: after a restart it leads nothing.
    pub life: u64,
    /// Rises within a life when a group ends that the node may have led asleep.
    pub epoch: u64,
}

impl Word {
    /// Whether who sleeps on this word cannot go on after `later`.
    pub(super) fn is_broken_by(self, later: Word) -> bool {
        later.life != self.life || later.epoch > self.epoch
    }

    pub(super) fn encode(self) -> [u8; WORD_BYTES] {
        let mut bytes = [0; WORD_BYTES];
        let (life, epoch) = bytes.split_at_mut(8);
        life.copy_from_slice(&self.life.to_le_bytes());
        epoch.copy_from_slice(&self.epoch.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Word> {
        let (life, epoch) = bytes.split_at_checked(8)?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
        Some(Word { life: number(life)?, epoch: number(epoch)? })
    }

    /// As it travels.
    pub(super) fn envelope(self) -> Envelope {
        let nobody = ReplicaId::new(0);
        let message = Bytes::copy_from_slice(&self.encode());
        Envelope { group: NODE_GROUP, from: nobody, to: nobody, message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::raftstore::message::Message;

    #[test]
    fn golden() {
        let word = Word { life: 0x0102_0304_0506_0708, epoch: 9 };
        let bytes = [8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(word.encode(), bytes);
        let envelope = word.envelope();
        assert_eq!(envelope.message, &bytes[..]);
        assert_eq!((envelope.group, envelope.from.get(), envelope.to.get()), (NODE_GROUP, 0, 0));
    }

    #[test]
    fn another_life_or_a_later_epoch_breaks_a_word() {
        let word = Word { life: 5, epoch: 3 };
        assert!(!word.is_broken_by(word));
        assert!(!word.is_broken_by(Word { epoch: 2, ..word }), "it was said before");
        assert!(word.is_broken_by(Word { epoch: 4, ..word }));
        assert!(word.is_broken_by(Word { life: 4, ..word }));
    }

    proptest! {
        #[test]
        fn words_are_read_back(life: u64, epoch: u64) {
            let word = Word { life, epoch };
            prop_assert_eq!(Word::decode(&word.encode()), Some(word));
            // Whoever does not know of beats takes it for no message of anybody, or one for a group that is not there.
            if let Some(message) = Message::decode(&word.encode()) {
                prop_assert_eq!(message.entries().count(), 0);
            }
        }

        #[test]
        fn only_words_are_words(bytes: Vec<u8>) {
            prop_assert_eq!(Word::decode(&bytes).is_some(), bytes.len() == WORD_BYTES);
        }
    }
}
