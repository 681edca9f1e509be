//! The rows of a cursor, to be gone over in any direction.
//!
//! Its query has run to its end when it is declared, and its rows wait here, in a little memory and, behind that, in a file
//! without a name that goes with the cursor. Each is followed by its length, so that the one before it is found as well as
//! the one behind:
//!
//! ```text
//!  row 1 | its length u32 | row 2 | its length u32 | …        a row is a whole message: D, length u32, contents
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use super::budget::Reserved;
use super::error::SqlError;
use super::spool::{FILE_LIMIT_BYTES, failed, too_large};

/// So much waits in memory.
const FIRST_BYTES: usize = 192 * 1024;
/// So much of the file is read, or written, at once, unless a row is longer.
const WINDOW_BYTES: usize = 64 * 1024;
/// What is to be set aside for the rows of a cursor.
pub(super) const MEMORY_BYTES: usize = FIRST_BYTES + WINDOW_BYTES;
/// Of each so many-th row it is known where it begins.
const MARK_ROWS: u64 = 1024;
const LENGTH_BYTES: usize = 4;
/// A type byte and the length field, which counts itself.
const HEAD_BYTES: usize = 1 + LENGTH_BYTES;

/// Rows in order, counted from 1. All come in before the first is looked at.
pub(super) struct Scroll {
    first: Vec<u8>,
    file: Option<File>,
    /// A part of what is behind `first`, and where it begins among all bytes. While rows come in, what is not in the file yet.
    window: Vec<u8>,
    window_start: u64,
    bytes: u64,
    rows: u64,
    /// Where rows 1, 1 + [`MARK_ROWS`], … begin.
    marks: Vec<u64>,
    /// The row that was looked at last, and where it begins.
    at: (u64, u64),
    _reserved: Reserved,
}

impl Scroll {
    /// None yet; for their memory this is set aside.
    pub(super) fn new(reserved: Reserved) -> Scroll {
        Scroll {
            first: Vec::new(),
            file: None,
            window: Vec::new(),
            window_start: 0,
            bytes: 0,
            rows: 0,
            marks: Vec::new(),
            at: (1, 0),
            _reserved: reserved,
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.rows
    }

    /// Takes a row.
    ///
    /// # Errors
    /// There is no place for it (53400), or the file fails.
    pub(super) fn push(&mut self, message: &[u8]) -> Result<(), SqlError> {
        let length = u32::try_from(message.len()).map_err(|_| too_large())?.to_be_bytes();
        if self.rows.is_multiple_of(MARK_ROWS) {
            self.marks.push(self.bytes);
        }
        self.rows += 1;
        let size = message.len() + LENGTH_BYTES;
        self.bytes += size as u64;
        let in_memory = self.file.is_none() && self.first.len() + size <= FIRST_BYTES;
        let place = if in_memory { &mut self.first } else { &mut self.window };
        place.extend_from_slice(message);
        place.extend_from_slice(&length);
        if in_memory {
            return Ok(());
        }
        if self.bytes - self.first.len() as u64 > FILE_LIMIT_BYTES {
            return Err(too_large());
        }
        if self.file.is_none() || self.window.len() >= WINDOW_BYTES {
            self.write().map_err(|error| failed(&error))
        } else {
            Ok(())
        }
    }

    /// Writes what is not in the file yet.
    fn write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.window)?;
        self.window = Vec::new();
        Ok(())
    }

    /// All rows have come.
    ///
    /// # Errors
    /// The file fails.
    pub(super) fn finish(&mut self) -> Result<(), SqlError> {
        if self.file.is_some() { self.write().map_err(|error| failed(&error)) } else { Ok(()) }
    }

    /// The row of that number; `None` if there is none.
    ///
    /// # Errors
    /// The file fails.
    pub(super) fn row(&mut self, number: u64) -> Result<Option<&[u8]>, SqlError> {
        if number == 0 || number > self.rows {
            return Ok(None);
        }
        let range = self.find(number).map_err(|error| failed(&error))?;
        self.read(range).map(Some).map_err(|error| failed(&error))
    }

    /// Where a row is: from the one looked at last, or from the nearest mark before it.
    fn find(&mut self, number: u64) -> io::Result<Range<u64>> {
        let mark = (number - 1) / MARK_ROWS;
        let marked = usize::try_from(mark).ok().and_then(|mark| self.marks.get(mark)).copied();
        let from_mark = number - mark * MARK_ROWS;
        if let Some(start) = marked.filter(|_| self.at.0.abs_diff(number) > from_mark) {
            self.at = (mark * MARK_ROWS + 1, start);
        }
        while self.at.0 > number {
            let (at, start) = self.at;
            let length = self.read(start.saturating_sub(LENGTH_BYTES as u64)..start)?;
            let length = u64::from(number_in(length)?) + LENGTH_BYTES as u64;
            self.at = (at - 1, start.checked_sub(length).ok_or_else(damaged)?);
        }
        loop {
            let (at, start) = self.at;
            let head = self.read(start..start + HEAD_BYTES as u64)?;
            // The length counts itself, but not the type before it.
            let end = start + 1 + u64::from(number_in(head.get(1..).unwrap_or_default())?);
            if at == number {
                return Ok(start..end);
            }
            self.at = (at + 1, end + LENGTH_BYTES as u64);
        }
    }

    /// Those bytes. What is read of the file beside them lies in the direction in which they were not there.
    fn read(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        let in_first = self.first.len() as u64;
        if range.end <= in_first {
            return slice(&self.first, &range, 0);
        }
        let window = self.window_start..self.window_start + self.window.len() as u64;
        if range.start < window.start || range.end > window.end {
            let wanted = range.start.checked_sub(in_first).ok_or_else(damaged)?;
            let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?.max(WINDOW_BYTES);
            let end = range.end - in_first;
            let start = if range.start < window.start { end.saturating_sub(length as u64) } else { wanted };
            let file = self.file.as_mut().ok_or_else(damaged)?;
            file.seek(SeekFrom::Start(start))?;
            self.window = Vec::with_capacity(length);
            self.window_start = in_first + start;
            file.take(length as u64).read_to_end(&mut self.window)?;
        }
        slice(&self.window, &range, self.window_start)
    }
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u64>, start: u64) -> io::Result<&'a [u8]> {
    let index = |at: u64| usize::try_from(at.checked_sub(start)?).ok();
    index(range.start).zip(index(range.end)).and_then(|(from, to)| bytes.get(from..to)).ok_or_else(damaged)
}

fn number_in(bytes: &[u8]) -> io::Result<u32> {
    bytes.try_into().map(u32::from_be_bytes).map_err(io::Error::other)
}

fn damaged() -> io::Error {
    io::Error::other("a row that was kept is not there")
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use proptest::prelude::*;

    fn message(number: u64, length: usize) -> Vec<u8> {
        let body = vec![number as u8; length];
        [&b"D"[..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
    }

    fn filled(rows: u64, length: impl Fn(u64) -> usize) -> Scroll {
        let mut scroll = Scroll::new(Budget::new(0).reserve(MEMORY_BYTES).unwrap());
        for number in 1..=rows {
            scroll.push(&message(number, length(number))).unwrap();
        }
        scroll.finish().unwrap();
        scroll
    }

    #[test]
    fn no_rows_and_few_rows_are_in_memory() {
        let mut none = filled(0, |_| 0);
        assert!(none.count() == 0 && none.row(0).unwrap().is_none() && none.row(1).unwrap().is_none());
        let mut three = filled(3, |_| 0);
        assert!(three.file.is_none());
        for number in [3, 1, 2, 2, 3, 1] {
            assert_eq!(three.row(number).unwrap().unwrap(), message(number, 0));
        }
        assert!(three.row(0).unwrap().is_none() && three.row(4).unwrap().is_none());
    }

    #[test]
    fn a_row_longer_than_what_is_read_at_once_is_read() {
        let length = |number| if number % 3 == 0 { 3 * WINDOW_BYTES } else { 10 };
        let mut scroll = filled(30, length);
        assert!(scroll.file.is_some());
        for number in (1..=30).rev().chain(1..=30).chain([30, 3, 29, 1]) {
            assert_eq!(scroll.row(number).unwrap().unwrap(), message(number, length(number)), "{number}");
        }
    }

    proptest! {
        #[test]
        fn any_way_over_the_rows_finds_them(
            seed in 1_usize..401,
            steps in prop::collection::vec(prop_oneof![Just(1_i64), Just(-1), -1500_i64..1500], 1..200),
        ) {
            const ROWS: u64 = 4000;
            let length = |number: u64| (number as usize * seed) % 401;
            let mut scroll = filled(ROWS, length);
            prop_assert!(scroll.file.is_some() && scroll.first.len() <= FIRST_BYTES);
            let mut number = ROWS / 2;
            for step in steps {
                number = number.saturating_add_signed(step).clamp(1, ROWS);
                prop_assert_eq!(scroll.row(number).unwrap().unwrap(), message(number, length(number)));
                prop_assert!(scroll.window.len() <= WINDOW_BYTES);
            }
        }
    }
}
