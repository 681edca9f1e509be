//! The records one after another, also behind damage: there it goes on at the next part of a record whose checksum,
//! which covers its position, and timeline fit.

use mainstay::lsn::Lsn;
use mainstay::wal::{AnyRecord, Cursor, Damage, Step, WalError};
use serde::Serialize;

use crate::directory::{DataDirectory, Survey};

/// Bytes at and behind this are never looked at: there are none.
pub const EVERYTHING: Lsn = Lsn::new(u64::MAX);

/// What stands at the walk's position.
pub enum Met {
    /// A record; the walk stands behind it.
    Record(AnyRecord),
    /// No whole record.
    Gap(Gap),
    /// The end of what was to be read.
    End,
}

/// A place where a record should be and none is.
#[derive(Debug)]
pub struct Gap {
    pub from: Lsn,
    /// Where the walk goes on; `None` if it does not, because it shall not or because no whole record follows.
    pub to: Option<Lsn>,
    /// Whether plain zeros, or no segment, are what is there.
    pub blank: bool,
    pub damage: Damage,
}

/// Bytes passed over.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// The first of them.
    pub from: String,
    /// The first behind them.
    pub to: String,
    /// How many.
    pub bytes: u64,
}

impl Gap {
    /// What was passed over, if the walk went on.
    pub fn skipped(&self) -> Option<Skipped> {
        self.to.map(|to| Skipped { from: self.from.to_string(), to: to.to_string(), bytes: to.bytes_since(self.from) })
    }

    /// For people, in one line.
    pub fn line(&self) -> String {
        let Damage { expected, found, .. } = &self.damage;
        let skipped = match self.to {
            Some(to) if to > self.from => format!("; {} bytes skipped, up to {to}", to.bytes_since(self.from)),
            Some(_) => "; nothing skipped".into(),
            None => String::new(),
        };
        format!("no whole record at {}: expected {expected}, found {found}{skipped}", self.from)
    }
}

/// A walk from one record to the next.
pub struct Walk<'a> {
    directory: &'a DataDirectory,
    cursor: Cursor,
    end: Lsn,
    go_on: bool,
}

impl<'a> Walk<'a> {
    /// A walk from `cursor` to `end`, or the first damage unless it is to go on.
    pub fn new(directory: &'a DataDirectory, cursor: Cursor, end: Lsn, go_on: bool) -> Walk<'a> {
        Walk { directory, cursor, end, go_on }
    }

    /// A walk from the first record that starts in the oldest segment to the log's end, behind all damage. `None` if
    /// there is no segment.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn whole_log(directory: &'a DataDirectory, survey: &Survey) -> Result<Option<Walk<'a>>, WalError> {
        let Some(first) = directory.segments.list()?.first().copied() else { return Ok(None) };
        Ok(Some(Walk::new(directory, directory.first_record_from(first)?, survey.end(), true)))
    }

    /// Where the next record starts, if there is one.
    pub fn position(&self) -> Lsn {
        self.cursor.position()
    }

    /// Reads one record, or passes over what is none.
    ///
    /// # Errors
    /// The directory cannot be listed, or there are no file descriptors.
    pub fn next(&mut self) -> Result<Met, WalError> {
        let from = self.position();
        if from >= self.end {
            return Ok(Met::End);
        }
        let layout = self.directory.layout();
        let (blank, damage, search_from) = match self.cursor.next(self.end) {
            Ok(Step::Record(record)) => return Ok(Met::Record(record)),
            Ok(Step::Nothing(gap)) => (gap.blank, gap.damage, from.advanced(1)),
            Err(error) => {
                let damage = error.into_damage()?;
                // Its segment has a wrong header or length; the record itself may be whole.
                let is_here = layout.segment_of(damage.lsn) == layout.segment_of(from);
                (false, damage, if is_here { from } else { from.advanced(1) })
            }
        };
        let to = if self.go_on { self.pass(search_from)? } else { None };
        Ok(Met::Gap(Gap { from, to, blank, damage }))
    }

    /// Moves to the first record at `from` or behind it.
    fn pass(&mut self, mut from: Lsn) -> Result<Option<Lsn>, WalError> {
        while let Some(found) = self.cursor.resynchronise(from, self.end)? {
            match self.cursor.skip_continued(self.end) {
                Ok(()) => return Ok(Some(self.position())),
                // The header of the segment in which that record goes on.
                Err(error) => {
                    error.into_damage()?;
                    from = self.position().max(found.advanced(1));
                }
            }
        }
        Ok(None)
    }
}
