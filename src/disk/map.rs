//! Memory maps of real files: the library's only `unsafe`.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::Map;

const WORD_BYTES: usize = size_of::<u64>();

/// A mapped file.
pub(super) struct RealMap {
    pages: MmapRaw,
}

impl RealMap {
    /// Maps the first `len_bytes` of a file that is at least that long.
    pub(super) fn new(file: &std::fs::File, len_bytes: u64) -> io::Result<RealMap> {
        let len = usize::try_from(len_bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < len_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter than its map"));
        }
        let pages = MmapOptions::new().len(len).map_raw(file)?;
        // No read-ahead: a fault would otherwise bring in large folios, see `Folios`.
        pages.advise(Advice::Random)?;
        Ok(RealMap { pages })
    }
}

impl Map for RealMap {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "a write outside the map");
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = start.checked_add(bytes.len()).filter(|end| *end <= self.pages.len()).ok_or_else(outside)?;
        // Whole words where the map has them, single bytes before and behind.
        let head_end = start.next_multiple_of(WORD_BYTES).min(end);
        let (head, rest) = bytes.split_at(head_end - start);
        let (words, tail) = rest.as_chunks::<WORD_BYTES>();
        // SAFETY: every address lies in the map: `start..end` was checked above against its length, and the map lives
        // as long as `self`. The file is not truncated while it is mapped (checked in `new` to be long enough, and the
        // WAL never shortens a segment), so every page of it exists. The map begins on a page and `head_end` is a
        // multiple of eight unless nothing follows, so words are aligned. Threads may write at once,
        // but never to the same word: a fragment of the log starts at a multiple of eight, its space ends at one, and
        // only the thread that reserved this space writes to it. Stores of different sizes therefore never meet; they
        // are atomic because the file is read by system calls meanwhile. Nobody reads through the map, and no reference
        // into it leaves this block.
        #[allow(unsafe_code)]
        unsafe {
            let base = self.pages.as_mut_ptr();
            for (index, byte) in head.iter().enumerate() {
                AtomicU8::from_ptr(base.add(start + index)).store(*byte, Ordering::Relaxed);
            }
            let first_word = base.add(head_end).cast::<u64>();
            for (index, word) in words.iter().enumerate() {
                AtomicU64::from_ptr(first_word.add(index)).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            }
            let tail_start = end - tail.len();
            for (index, byte) in tail.iter().enumerate() {
                AtomicU8::from_ptr(base.add(tail_start + index)).store(*byte, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
