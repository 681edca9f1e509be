//! Cutting a log where an operator says, also where acknowledged records are lost by it: the last resort.
//!
//! The steps are types, so that their order cannot be wrong: [`Cut::find`] only reads; [`Cut::keep`] makes durable
//! copies; [`KeptCut::erase`] makes the log end at the cut; [`ErasedCut::finish`] removes the last of what lay behind.
//! If we die
//! - *before the first byte is erased*, and several segments lie behind the cut, one that is out already leaves a gap:
//!   no node starts, and the repair can be run again. Otherwise the log is as it was;
//! - *while erasing*, the record at the cut is gone first, durably: from then on the log ends at the cut or, as long as
//!   anything says that it once reached further, is refused, and the repair can be run again;
//! - *before the last segment is removed*, the same; whoever opens the log removes that segment, and it was copied.
//!
//! Copies end in [`BROKEN`]; none is ever overwritten, and nobody else looks at them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::cursor::{Cursor, SECTOR_BYTES, Step, read_sectors};
use super::directory::SegmentDirectory;
use super::errors::{Damage, WalError};
use super::layout::SegmentNumber;
use super::record;
use super::recovery::missing;
use super::resync::next_sector;
use crate::disk::{Access, File};
use crate::lsn::Lsn;

/// Ending of the names of copies.
const BROKEN: &str = ".broken";
/// Name of a copy that is not durable yet.
const COPYING: &str = "repair.tmp";
const EVERYTHING: Lsn = Lsn::new(u64::MAX);
const CHUNK_BYTES: u64 = 1 << 20;
/// How many sectors of a segment are tried that cannot be read, in search of marks.
const BAD_SECTORS_LIMIT: u32 = 256;

/// Why a log cannot be cut somewhere. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// *Your mistake*: a record lies across that position.
    #[error("{wanted} is no record boundary; the nearest ones are {before} and {after}")]
    NoBoundary {
        /// The position asked for.
        wanted: Lsn,
        /// The last boundary before it.
        before: Lsn,
        /// The first boundary behind it.
        after: Lsn,
    },
    /// *Your mistake*: the log would not be whole up to there, because it ends or is damaged before.
    #[error(
        "the log cannot be cut at {wanted}, because it is whole only up to {boundary}: at offset {offset} of {path} (LSN \
         {lsn}), expected {expected}, found {found}; the last position to cut it at is {boundary}",
        offset = .damage.offset, path = .damage.path.display(), lsn = .damage.lsn, expected = .damage.expected,
        found = .damage.found
    )]
    Behind {
        /// The position asked for.
        wanted: Lsn,
        /// The last boundary before it that can be cut at.
        boundary: Lsn,
        /// What is there.
        damage: Box<Damage>,
    },
    /// *Your mistake*: that part of the log is gone.
    #[error("the log begins at {oldest}; {wanted} lies before it")]
    Gone {
        /// The position asked for.
        wanted: Lsn,
        /// The oldest position that can be cut at.
        oldest: Lsn,
    },
    /// What is left would not be a log: its beginning cannot be read, or belongs elsewhere.
    #[error(transparent)]
    Wal(#[from] WalError),
}

/// A cut that can be made. Nothing has been changed yet.
#[derive(Debug)]
pub struct Cut {
    directory: SegmentDirectory,
    at: Lsn,
    /// Where the log begins, if whoever reads it does not begin at a checkpoint.
    oldest: Lsn,
    last: SegmentNumber,
    later: Vec<SegmentNumber>,
}

/// A cut of which everything that it destroys was copied.
#[derive(Debug)]
pub struct KeptCut {
    cut: Cut,
    copies: Vec<Kept>,
}

/// What is kept of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// How many bytes of the segment could not be read: zeros stand for them.
    pub unread_bytes: u64,
}

/// A cut that was made, but for the last of the segments behind it.
#[derive(Debug)]
pub struct ErasedCut {
    directory: SegmentDirectory,
    newest: Option<SegmentNumber>,
    copies: Vec<Kept>,
}

impl Cut {
    /// Looks whether the log can be cut at `wanted`. What lies before `checkpoint` is not looked at, unless that is
    /// [`Lsn::NONE`] or lies behind the cut.
    ///
    /// # Errors
    /// A record lies across `wanted`, or the log is not whole up to there.
    pub fn find(directory: SegmentDirectory, checkpoint: Lsn, wanted: Lsn) -> Result<Cut, CutError> {
        let layout = directory.layout();
        let segments = directory.list()?;
        let mut run = segments.range(..=layout.segment_of(wanted)).rev().copied();
        let mut first = run.next().or(segments.first().copied()).unwrap_or(SegmentNumber::FIRST);
        first = run.fold(first, |first, number| if number.next() == first { number } else { first });
        let is_older_there = segments.first().is_some_and(|oldest| *oldest < first);
        let reaches_checkpoint = !checkpoint.is_none() && layout.segment_of(Lsn::new(checkpoint.get() - 1)) >= first;
        if is_older_there && !reaches_checkpoint {
            // No node would start on what is left.
            return Err(missing(&directory, SegmentNumber(first.0 - 1)).into());
        }
        let mut cursor = Cursor::new(directory.clone(), layout.first_record_in(first));
        // What lies before a checkpoint may be damaged: no start reads it.
        if let Err(error) = cursor.skip_continued(EVERYTHING)
            && !(cursor.position()..=wanted).contains(&checkpoint)
        {
            return Err(error.into());
        }
        let oldest = cursor.position();
        if wanted < oldest {
            return Err(CutError::Gone { wanted, oldest });
        }
        let mut at = oldest;
        if (oldest..=wanted).contains(&checkpoint) {
            cursor = Cursor::new(directory.clone(), checkpoint);
            at = checkpoint;
        }
        // A cut behind a header is one at the end of the record before it.
        while at != wanted && cursor.position() != wanted {
            if cursor.position() > wanted {
                return Err(CutError::NoBoundary { wanted, before: at, after: cursor.position() });
            }
            let damage = match cursor.next(EVERYTHING) {
                Ok(Step::Record(record)) if record.end > wanted => {
                    return Err(CutError::NoBoundary { wanted, before: at, after: record.end });
                }
                Ok(Step::Record(record)) => {
                    at = record.end;
                    continue;
                }
                Ok(Step::Nothing(gap)) => Box::new(gap.damage),
                Err(error) => Box::new(error.into_damage()?),
            };
            return Err(CutError::Behind { wanted, boundary: at, damage });
        }
        let last = layout.segment_of(Lsn::new(at.get() - 1));
        // Its header must be whole: the log shall end in it.
        if directory.open(last, Access::Read)?.is_none() {
            return Err(missing(&directory, last).into());
        }
        let later = segments.range(last.next()..).copied().collect();
        Ok(Cut { directory, at, oldest, last, later })
    }

    /// Where the log will end.
    pub fn at(&self) -> Lsn {
        self.at
    }

    /// Where the log begins.
    pub fn oldest(&self) -> Lsn {
        self.oldest
    }

    /// The segment in which the log will end.
    pub fn last(&self) -> SegmentNumber {
        self.last
    }

    /// The segments behind it, which will be taken out.
    pub fn later(&self) -> &[SegmentNumber] {
        &self.later
    }

    /// The segments behind it, and the one that it is in, that hold anything behind it which is not zero, or cannot be
    /// read.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn not_blank(&self) -> Result<Vec<SegmentNumber>, WalError> {
        let layout = self.directory.layout();
        let mut found = Vec::new();
        for number in [self.last].iter().chain(&self.later) {
            let from = self.at.max(layout.first_record_in(*number)).bytes_since(layout.segment_start(*number));
            match self.directory.is_blank_from(*number, from) {
                Ok(true) => {}
                Ok(false) | Err(WalError::Unreadable { .. }) => found.push(*number),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The mark that states the highest durable LSN beyond the cut, if there is any: where it stands and what it states.
    /// Those in segments of other systems say nothing, and what cannot be read is passed over.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn highest_mark(&self) -> Result<Option<(Lsn, Lsn)>, WalError> {
        let layout = self.directory.layout();
        let foreign = |number| matches!(self.directory.open(number, Access::Read), Err(WalError::Foreign { .. }));
        let mut highest = None;
        for number in [self.last].into_iter().chain(self.later.iter().copied().filter(|number| !foreign(*number))) {
            let mut cursor = Cursor::new(self.directory.clone(), self.at);
            let mut from = self.at.max(layout.segment_start(number));
            let end = layout.segment_start(number.next());
            let mut bad_sectors = 0;
            while from < end && bad_sectors < BAD_SECTORS_LIMIT {
                let above = highest.map_or(self.at, |(_, stated)| stated);
                match cursor.find_mark_above(from, end, above) {
                    Ok(Some((at, stated))) => {
                        highest = Some((at, stated));
                        from = at.advanced(record::ALIGNMENT as u64);
                    }
                    Ok(None) => break,
                    Err(WalError::Unreadable { lsn, .. }) => {
                        bad_sectors += 1;
                        from = next_sector(lsn.max(from));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(highest)
    }

    /// Copies the segment that will be cut, and the newest one, durably. Those in between will be renamed.
    ///
    /// # Errors
    /// The copies could not be made; the log is as it was.
    pub fn keep(self) -> Result<KeptCut, WalError> {
        let mut copies = vec![self.copy(self.last)?];
        if let Some(newest) = self.later.last().filter(|newest| !self.is_blank(**newest)) {
            copies.push(self.copy(*newest)?);
        }
        self.directory.sync()?;
        Ok(KeptCut { cut: self, copies })
    }

    /// Copies a segment, as far as it can be read, durably but for the copy's name.
    fn copy(&self, number: SegmentNumber) -> Result<Kept, WalError> {
        let (disk, temporary) = (self.directory.disk(), self.directory.path().join(COPYING));
        match disk.remove(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(WalError::io("remove", &temporary))?,
        }
        let path = self.directory.segment_path(number);
        let from = disk.open(&path, Access::Read).map_err(WalError::io("open", &path))?;
        let to = disk.create(&temporary).map_err(WalError::io("create", &temporary))?;
        let copied = copy_bytes(from.as_ref(), to.as_ref()).and_then(|unread_bytes| to.sync().map(|()| unread_bytes));
        let unread_bytes = copied.map_err(|error| {
            // Best effort: the next attempt removes it, too. On a full disk it would be in the way.
            let _ = disk.remove(&temporary);
            WalError::io("copy", &path)(error)
        })?;
        let copy = self.free_name(number)?;
        disk.rename(&temporary, &copy).map_err(WalError::io("rename to", &copy))?;
        Ok(Kept { path: copy, unread_bytes })
    }

    /// A path for a copy that is not taken.
    fn free_name(&self, number: SegmentNumber) -> Result<PathBuf, WalError> {
        let path = self.directory.path();
        let names = self.directory.disk().list(path).map_err(WalError::io("list", path))?;
        let name = self.directory.layout().file_name(self.directory.timeline(), number);
        let mut free = format!("{name}{BROKEN}");
        let mut count = 1u64;
        while names.contains(&free) {
            count += 1;
            free = format!("{name}.{count}{BROKEN}");
        }
        Ok(path.join(free))
    }

    /// Whether a segment is known to hold nothing.
    fn is_blank(&self, number: SegmentNumber) -> bool {
        self.directory.is_blank(number).unwrap_or(false)
    }

    /// Takes a segment out of the log, durably; its file is kept under another name, unless there is nothing in it.
    fn take_out(&self, number: SegmentNumber) -> Result<Option<Kept>, WalError> {
        if self.is_blank(number) {
            self.directory.remove(number)?;
            return Ok(None);
        }
        let (path, kept) = (self.directory.segment_path(number), self.free_name(number)?);
        self.directory.disk().rename(&path, &kept).map_err(WalError::io("rename", &path))?;
        self.directory.sync()?;
        Ok(Some(Kept { path: kept, unread_bytes: 0 }))
    }
}

impl KeptCut {
    /// Makes the log end at the cut: takes out the segments behind it but for the newest, then erases the rest of the
    /// one that holds it.
    ///
    /// # Errors
    /// A file cannot be written or synced. See the module's front page for what is left then.
    pub fn erase(self) -> Result<ErasedCut, WalError> {
        let KeptCut { cut, mut copies } = self;
        if let Some((_, between)) = cut.later.split_last() {
            for number in between {
                copies.extend(cut.take_out(*number)?);
            }
        }
        let layout = cut.directory.layout();
        let path = cut.directory.segment_path(cut.last);
        let file: Arc<dyn File> =
            cut.directory.disk().open(&path, Access::Write).map_err(WalError::io("open", &path))?;
        let from = cut.at.bytes_since(layout.segment_start(cut.last));
        let end = layout.segment_bytes();
        // The record at the cut goes first: were evidence behind it to go before, a node would find a torn tail there.
        for to in [end.min(from + record::HEADER_BYTES as u64), end] {
            file.zero_fill(from, to).map_err(WalError::io("cut", &path))?;
            file.sync().map_err(WalError::io("sync", &path))?;
        }
        Ok(ErasedCut { newest: cut.later.last().copied(), directory: cut.directory, copies })
    }
}

impl ErasedCut {
    /// Removes the newest segment, which was copied, and answers everything that was kept.
    ///
    /// # Errors
    /// It could not be removed. Opening the log, or repairing it again, does.
    pub fn finish(self) -> Result<Vec<Kept>, WalError> {
        match self.newest {
            Some(newest) => self.directory.remove(newest)?,
            None => self.directory.sync()?,
        }
        Ok(self.copies)
    }
}

/// Copies a file; zeros stand for sectors that cannot be read. Answers how many bytes that are.
fn copy_bytes(from: &dyn File, to: &dyn File) -> io::Result<u64> {
    let len = from.len_bytes()?;
    let mut buffer = vec![0; CHUNK_BYTES.min(len) as usize];
    let (mut at, mut unread_bytes) = (0, 0);
    while at < len {
        let wanted = buffer.len().min((len - at) as usize);
        let part = buffer.get_mut(..wanted).unwrap_or(&mut []);
        let (count, bad_end) = match from.read_at(part, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => (count as u64, None),
            Err(_) => match read_sectors(from, part, at) {
                None => (wanted as u64, None),
                Some((_, error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(error),
                Some((count, _)) => {
                    let bad = at + count as u64;
                    (count as u64, Some(((bad / SECTOR_BYTES + 1) * SECTOR_BYTES).min(len)))
                }
            },
        };
        to.write_at(part.get(..count as usize).unwrap_or(&[]), at)?;
        at += count;
        if let Some(end) = bad_end {
            to.write_at(&vec![0; (end - at) as usize], at)?;
            unread_bytes += end - at;
            at = end;
        }
    }
    Ok(unread_bytes)
}
