//! Small records between their append and the flush that writes them: a ring of memory that many threads copy into at
//! once, so that an append makes no system call, and that a flush takes everything out of, so that it makes one.
//!
//! ```text
//!              taken                              end          taken + length
//!   -- zeros ----+------- copied, or zeros ---------+-- zeros ---+---------------- no room yet ---
//!                         where a record is in
//!                         the file already
//! ```
//!
//! Position p has the word at (p / 8) modulo the ring's length. Words that nobody copied into are zero, as a segment is
//! where nothing was written: what is taken out can be written as it is, whatever padding and filler lies in it.
//!
//! Why not copy into a map of the segment, which needs no taking out: each flush makes its pages clean, so that the next
//! copy into one enters the kernel for a fault, and the flush looks at every processor's tables. A commit of a small record
//! took 5 to 7 µs longer.
//!
//! Who copies to a position reserved it, and whoever takes it out waited for the copy: `reservation` orders the two. The
//! other way round, [`taken`](Buffer::taken) does: words are stored to again only after it was seen to have passed
//! them. So the words themselves need no order. `tests/wal_reservation.rs` runs both under loom. Positions are
//! plain numbers here, as in `reservation`.

use super::primitives::{AtomicU64, Ordering};

const WORD_BYTES: usize = size_of::<u64>();

/// The ring.
pub(super) struct Buffer {
    /// A power of two of them.
    words: Box<[AtomicU64]>,
    /// Everything before it was taken out.
    taken: AtomicU64,
}

impl Buffer {
    /// A ring of `len_bytes`, a power of two, for a log that ends at `position`.
    pub(super) fn new(position: u64, len_bytes: usize) -> Buffer {
        debug_assert!(len_bytes.is_power_of_two() && len_bytes >= WORD_BYTES);
        let words = (0..len_bytes / WORD_BYTES).map(|_| AtomicU64::new(0)).collect();
        Buffer { words, taken: AtomicU64::new(position) }
    }

    /// Everything before this was taken out.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Whether there is room for what lies before `end`. Once there is, there is.
    pub(super) fn has_room(&self, end: u64) -> bool {
        end.saturating_sub(self.taken()) <= (self.words.len() * WORD_BYTES) as u64
    }

    /// Copies `bytes` to `position`, a multiple of eight. The caller has reserved this space, up to a multiple of eight,
    /// and there is room.
    pub(super) fn put(&self, position: u64, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
        let mut last = [0; WORD_BYTES];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let words = whole.iter().chain((!rest.is_empty()).then_some(&last));
        for (word, bytes) in self.words_from(position).zip(words) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }

    /// Moves what was copied to `position` and behind it into `bytes`, a multiple of eight of them. Only one thread may
    /// do so at a time, and everything before the end of it must be complete.
    pub(super) fn take(&self, position: u64, bytes: &mut [u8]) {
        let (words, _) = bytes.as_chunks_mut::<WORD_BYTES>();
        for (word, bytes) in self.words_from(position).zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Says that everything before `position` was taken out: there is room for as much again.
    pub(super) fn set_taken(&self, position: u64) {
        // Release: who sees it finds the words zero, and stores after that.
        self.taken.store(position, Ordering::Release);
    }

    /// The words from a position on, once round the ring.
    fn words_from(&self, position: u64) -> impl Iterator<Item = &AtomicU64> {
        let first = (position / WORD_BYTES as u64) as usize & (self.words.len() - 1);
        let (before, from) = self.words.split_at(first);
        from.iter().chain(before)
    }
}
