//! Where the log ends after a crash: the one place that decides between a torn tail and damage (rule 7).
//!
//! The log ends where no valid record starts. If nothing says that it ever reached further, what lies behind is a
//! *torn tail*: records of a flush that never finished, perhaps with whole ones behind holes, because pages and sectors
//! reach the disk in any order. None of it was acknowledged, and it is cut. If something does say so, it is
//! *damage*, and nothing is changed. What may say so:
//!
//! - a valid mark behind the end that states a higher durable LSN: each flush carries one that states where the flush
//!   before it got to;
//! - positions that the caller kept elsewhere ([`Evidence`]), and the engine's applied LSN ([`Scan::require`]).
//!
//! A flip inside the very last flush cannot be told from a tear: no later mark exists. The other nodes have it.
//!
//! [`scan`] only reads. [`Scan::cut`] then makes the end final before the first append: zeros to the segment's
//! end, later segments removed, everything behind the last known durable LSN written and synced again. If we die inside
//! the cut, the next scan finds the same end: before it, only the same bytes were written.

use std::collections::BTreeSet;
use std::io;

use super::cursor::{AnyRecord, Cursor, Gap, Step, read_exactly};
use super::directory::SegmentDirectory;
use super::errors::{Damage, WalError};
use super::fault::{Fault, active};
use super::layout::SegmentNumber;
use super::record::{self, Kind};
use super::segment;
use crate::disk::{Access, File};
use crate::lsn::Lsn;

const EVERYTHING: Lsn = Lsn::new(u64::MAX);
const CHUNK_BYTES: u64 = 1 << 20;

/// What is known about the log from outside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// A record boundary; everything before it is in the engine's files and is not verified now.
    /// [`Lsn::NONE`]: verify all there is.
    pub verify_from: Lsn,
    /// The log reached at least this far.
    pub reached: Lsn,
    /// The last stop was clean, and the log ended exactly here.
    pub clean_end: Option<Lsn>,
}

/// The log as found. Nothing has been changed yet.
#[derive(Debug)]
pub struct Scan {
    directory: SegmentDirectory,
    segments: BTreeSet<SegmentNumber>,
    oldest: Lsn,
    end: Lsn,
    known_durable: Lsn,
    gap: Option<Gap>,
}

/// Finds the end of the log.
///
/// # Errors
/// The log is damaged, foreign, of a later version, or cannot be read.
pub fn scan(directory: SegmentDirectory, evidence: Evidence) -> Result<Scan, WalError> {
    scan_with(directory, evidence, &mut |_| {})
}

/// [`scan`] that shows every record it reads, in order, to `visit`.
///
/// # Errors
/// As [`scan`]; what was read before was shown.
pub fn scan_with(
    directory: SegmentDirectory,
    evidence: Evidence,
    visit: &mut dyn FnMut(&AnyRecord),
) -> Result<Scan, WalError> {
    let layout = directory.layout();
    let segments = directory.list()?;
    let from = evidence.verify_from;
    let oldest = check_contiguous(&directory, &segments, from)?;
    let mut cursor = Cursor::new(directory.clone(), from.max(oldest));
    if from < oldest {
        cursor.skip_continued(EVERYTHING)?;
    }
    let mut end = if from < oldest { cursor.position() } else { from };
    let mut known_durable = oldest.max(from);
    let gap = loop {
        match cursor.next(EVERYTHING)? {
            Step::Record(record) => {
                end = record.end;
                visit(&record);
                if record.kind == Kind::Mark {
                    known_durable = known_durable.max(record::decode_mark(&record.payload).unwrap_or(Lsn::NONE));
                }
            }
            Step::Nothing(gap) => break *gap,
        }
    };
    let mut scan = Scan { directory, segments, oldest, end, known_durable, gap: None };
    if evidence.clean_end != Some(end) {
        if let Some((at, stated)) = cursor.find_mark_above(gap.start, EVERYTHING, end)? {
            return Err(contradicted(&gap, &format!("a mark at {at} states that the log was durable up to {stated}")));
        }
        scan.gap = Some(gap);
    }
    scan.require(evidence.reached, "the node's own notes")?;
    debug_assert!(scan.end >= layout.first_record());
    Ok(scan)
}

/// Checks that no segment is missing at `from` or behind it, and answers where the oldest readable record may start.
fn check_contiguous(
    directory: &SegmentDirectory,
    segments: &BTreeSet<SegmentNumber>,
    from: Lsn,
) -> Result<Lsn, WalError> {
    let layout = directory.layout();
    // The segment that holds the last byte before `from` must be there; the one behind it need not be.
    let needed = layout.segment_of(Lsn::new(from.get().saturating_sub(1)));
    let mut run = segments.iter().rev().copied();
    let Some(newest) = run.next() else {
        return match from <= layout.first_record() {
            true => Ok(layout.first_record()),
            false => Err(missing(directory, needed)),
        };
    };
    let mut oldest = newest;
    for number in run {
        if number.next() != oldest {
            break;
        }
        oldest = number;
    }
    let below_first_gap = segments.first().is_some_and(|first| *first < oldest);
    if !from.is_none() && (needed < oldest || needed > newest) {
        return Err(missing(directory, if needed > newest { needed } else { SegmentNumber(oldest.0 - 1) }));
    }
    if below_first_gap && from.is_none() {
        return Err(missing(directory, SegmentNumber(oldest.0 - 1)));
    }
    Ok(layout.first_record_in(oldest))
}

pub(super) fn missing(directory: &SegmentDirectory, number: SegmentNumber) -> WalError {
    let lsn = directory.layout().segment_start(number);
    WalError::Damaged(Box::new(Damage {
        path: directory.segment_path(number),
        offset: 0,
        lsn,
        expected: "a segment".into(),
        found: "no such file".into(),
    }))
}

fn contradicted(gap: &Gap, evidence: &str) -> WalError {
    let mut damage = gap.damage.clone();
    damage.found = format!("{}; but {evidence}", damage.found);
    WalError::Damaged(Box::new(damage))
}

impl Scan {
    /// Where the log ends.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// The oldest position that can be read.
    pub fn oldest(&self) -> Lsn {
        self.oldest
    }

    /// Whether the log can be read from `lsn` on.
    pub fn reaches_back_to(&self, lsn: Lsn) -> bool {
        self.directory.layout().record_start(lsn) >= self.oldest
    }

    /// Whether the log still reaches back to its very first record.
    pub fn reaches_start(&self) -> bool {
        self.oldest == self.directory.layout().first_record()
    }

    /// The segments that are there.
    pub fn segments(&self) -> &BTreeSet<SegmentNumber> {
        &self.segments
    }

    /// How many bytes behind the end are a torn tail, up to the last one that is not zero: opening the log cuts them.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn torn_bytes(&self) -> Result<u64, WalError> {
        // After a clean stop there is nothing behind the end.
        if self.gap.is_none() {
            return Ok(0);
        }
        let layout = self.directory.layout();
        let last_byte = Lsn::new(self.end.get() - 1);
        let last = layout.segment_of(last_byte);
        for number in self.segments.range(last..).rev() {
            let Some(file) = self.directory.open_unchecked(*number)? else { continue };
            let start = layout.segment_start(*number);
            let from = if *number == last {
                layout.offset_of(last_byte) + 1
            } else {
                layout.offset_of(layout.first_record_in(*number))
            };
            let found = last_nonzero(file.as_ref(), from, layout.segment_bytes());
            if let Some(offset) = found.map_err(WalError::io("read", &self.directory.segment_path(*number)))? {
                return Ok(start.advanced(offset + 1).bytes_since(self.end));
            }
        }
        Ok(0)
    }

    /// Holds one more fact against the log: `who` says that it reached `lsn`.
    ///
    /// # Errors
    /// It does not: damage.
    pub fn require(&self, lsn: Lsn, who: &str) -> Result<(), WalError> {
        if lsn <= self.end {
            return Ok(());
        }
        let says = format!("{who} say that the log reached {lsn}");
        Err(match &self.gap {
            Some(gap) => contradicted(gap, &says),
            None => {
                let layout = self.directory.layout();
                let number = layout.segment_of(self.end);
                let path = self.directory.segment_path(number);
                let found = format!("the end of the log; but {says}");
                let (offset, expected) = (layout.offset_of(self.end), "a record".into());
                WalError::Damaged(Box::new(Damage { path, offset, lsn: self.end, expected, found }))
            }
        })
    }

    /// Makes the end final, and everything before it durable.
    ///
    /// # Errors
    /// The files cannot be written or synced.
    pub(super) fn cut(self) -> Result<CutLog, WalError> {
        let Scan { directory, segments, oldest, end, known_durable, gap } = self;
        let layout = directory.layout();
        directory.create()?;
        let last = layout.segment_of(Lsn::new(end.get() - 1));
        let mut removed_bytes = 0;
        // From the newest back, each removal durable before the next, so that a crash leaves no gap.
        for number in segments.range(last.next()..).rev() {
            if active(Fault::LaterSegmentsKept) {
                continue;
            }
            directory.remove(*number)?;
            removed_bytes += layout.segment_bytes();
        }
        let torn = gap.as_ref().is_some_and(|gap| !gap.blank);
        // After a clean stop there is nothing behind the end, and everything before it was synced.
        if gap.is_some() {
            let first_to_sync = layout.segment_of(Lsn::new(known_durable.get().max(1) - 1));
            for number in segments.range(first_to_sync.min(last)..=last) {
                settle(&directory, *number, known_durable, (*number == last).then_some(end))?;
            }
        }
        directory.sync()?;
        if torn {
            tracing::warn!(%end, "cut a torn tail off the log: records that were never acknowledged");
        }
        tracing::debug!(%oldest, %end, removed_bytes, "the log's end is final");
        let current = segments.contains(&last).then_some(last);
        Ok(CutLog { directory, segments: segments.range(..=last).copied().collect(), end, current })
    }
}

/// Makes what a segment holds from `from` on durable, after cutting it at `end` if the log ends in it.
///
/// Every byte is written again. After a sync that failed, the page cache may hold bytes as clean that never reached the
/// disk, and a process that starts afterwards reads them, syncs, and hears that all is well. Only pages that are dirty
/// again are written again.
fn settle(directory: &SegmentDirectory, number: SegmentNumber, from: Lsn, end: Option<Lsn>) -> Result<(), WalError> {
    let Some(file) = directory.open(number, Access::Write)? else { return Ok(()) };
    let layout = directory.layout();
    let path = directory.segment_path(number);
    let start = layout.segment_start(number);
    let from = from.bytes_since(start).max(segment::HEADER_BYTES as u64);
    let to = end.map_or(layout.segment_bytes(), |end| end.bytes_since(start));
    let from = if active(Fault::NotSettled) { to } else { from };
    rewrite(file.as_ref(), from, to).map_err(WalError::io("write again", &path))?;
    if !active(Fault::TailNotErased) {
        file.zero_fill(to, layout.segment_bytes()).map_err(WalError::io("cut", &path))?;
    }
    file.sync().map_err(WalError::io("sync", &path))
}

/// Writes bytes in place as they are read.
fn rewrite(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES.min(to.saturating_sub(from)) as usize];
    let mut at = from;
    while at < to {
        let want = buffer.len().min((to - at) as usize);
        let part = buffer.get_mut(..want).unwrap_or(&mut []);
        read_exactly(file, part, at)?;
        file.write_at(part, at)?;
        at += want as u64;
    }
    Ok(())
}

/// A log whose end is final.
pub(super) struct CutLog {
    pub directory: SegmentDirectory,
    pub segments: BTreeSet<SegmentNumber>,
    pub end: Lsn,
    /// The segment that holds the end; `None` in a log without segments.
    pub current: Option<SegmentNumber>,
}

/// The offset of the last byte from `from` up to `to` that is not zero.
pub(super) fn last_nonzero(file: &dyn File, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    let mut end = to;
    while from < end {
        let at = end.saturating_sub(CHUNK_BYTES).max(from);
        let Some(part) = buffer.get_mut(..(end - at) as usize) else { return Ok(None) };
        read_exactly(file, part, at)?;
        if let Some(index) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(Some(at + index as u64));
        }
        end = at;
    }
    Ok(None)
}
