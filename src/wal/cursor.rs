//! Reading records one after another, through any damage up to where they stop making sense.
//!
//! The cursor decides nothing: where no valid record starts it says so, with all details, and whoever reads (recovery,
//! a live reader, the inspector) knows whether that is the end, a torn tail or damage. Memory is bounded by the
//! largest record.

use std::io;
use std::sync::Arc;

use super::directory::SegmentDirectory;
use super::errors::{Damage, WalError};
use super::layout::SegmentNumber;
use super::record::{self, Flags, FragmentFault, FragmentHeader, Kind, MAX_PAYLOAD_BYTES};
use super::resync::SearchBudget;
use crate::disk::{Access, File};
use crate::lsn::{Lsn, TimelineId};

/// How much is read from a file at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// What a device fails to read at least: so exactly the place is named where a read failed.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A record of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyRecord {
    /// Where it starts.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// What it is for.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// What the cursor found at its position.
#[derive(Clone, Debug)]
pub enum Step {
    /// A record; the cursor stands behind it.
    Record(AnyRecord),
    /// No record that is whole; the cursor stands where it stood.
    Nothing(Box<Gap>),
}

/// A place where a record should be and none is.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Where the record would start.
    pub start: Lsn,
    /// Whether plain zeros, or no segment, are what is there: how an undamaged log ends.
    pub blank: bool,
    /// Where exactly it fails, which for a record of several fragments may be a later segment.
    pub damage: Damage,
}

/// A part of a record, of which most have one only, as its header states it; it need not be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where its header starts.
    pub start: Lsn,
    /// Where it ends, padding included, if its length is right.
    pub end: Lsn,
    /// Bytes of payload in it.
    pub payload_bytes: usize,
    /// The number of its kind; see [`Kind::from_number`].
    pub kind: u8,
    /// Its flags.
    pub flags: Flags,
    /// The timeline it was written on.
    pub timeline: TimelineId,
    /// The checksum that it states.
    pub stated_crc: u32,
    /// The checksum of its bytes; `None` if its length reaches beyond its segment, or they cannot be read.
    pub computed_crc: Option<u32>,
}

impl Part {
    /// Where its payload starts.
    pub fn payload_start(&self) -> Lsn {
        self.start.advanced(record::HEADER_BYTES as u64)
    }
}

/// Reads records from a position on.
pub struct Cursor {
    pub(super) directory: SegmentDirectory,
    pub(super) at: Lsn,
    pub(super) segment: Option<OpenSegment>,
    buffer: Vec<u8>,
    buffer_start: Lsn,
    /// What a search may still do.
    pub(super) budget: SearchBudget,
}

/// The segment that is being read.
pub(super) struct OpenSegment {
    number: SegmentNumber,
    file: Arc<dyn File>,
    /// How long the file is.
    len_bytes: u64,
    /// The offset that could not be read when it was last tried.
    unreadable: Option<(u64, Arc<io::Error>)>,
}

/// A fragment that checked out.
struct Checked {
    kind: Kind,
    flags: Flags,
    end: Lsn,
}

/// Why there is no fragment.
enum Missing {
    Gap { blank: bool, damage: Damage },
    Error(WalError),
}

impl From<WalError> for Missing {
    fn from(error: WalError) -> Missing {
        Missing::Error(error)
    }
}

impl Cursor {
    /// A cursor at `at`, which must be where a record starts or the one before it ends.
    pub fn new(directory: SegmentDirectory, at: Lsn) -> Cursor {
        let budget = SearchBudget::default();
        Cursor { directory, at, segment: None, buffer: Vec::new(), buffer_start: Lsn::NONE, budget }
    }

    /// Where the next record starts, if there is one.
    pub fn position(&self) -> Lsn {
        self.directory.layout().record_start(self.at)
    }

    /// Reads the next record. Bytes at `limit` and behind it are not looked at.
    ///
    /// # Errors
    /// A file cannot be read, belongs elsewhere, or was written by a later version.
    pub fn next(&mut self, limit: Lsn) -> Result<Step, WalError> {
        let start = self.position();
        let mut payload = Vec::new();
        let mut at = start;
        let mut kind = None;
        loop {
            let fragment = match self.fragment(at, limit, &mut payload) {
                Ok(fragment) => fragment,
                Err(Missing::Error(error)) => return Err(self.failed(error)),
                Err(Missing::Gap { blank, damage }) => {
                    let blank = blank && at == start;
                    return Ok(Step::Nothing(Box::new(Gap { start, blank, damage })));
                }
            };
            let first = at == start;
            let belongs = self.is_in_place(at, &fragment)
                && fragment.flags.contains(Flags::CONTINUED) != first
                && kind.is_none_or(|kind| kind == fragment.kind)
                && payload.len() as u64 <= MAX_PAYLOAD_BYTES;
            if !belongs {
                let expected = if first { "the start of a record" } else { "the next part of the record" };
                let found = format!("a part of a {} record, flags {:#04x}", fragment.kind.name(), fragment.flags.0);
                let damage = self.damage(at, expected.into(), found);
                return Ok(Step::Nothing(Box::new(Gap { start, blank: false, damage })));
            }
            kind = Some(fragment.kind);
            if !fragment.flags.contains(Flags::CONTINUES) {
                self.at = fragment.end;
                return Ok(Step::Record(AnyRecord { start, end: fragment.end, kind: fragment.kind, payload }));
            }
            at = self.directory.layout().record_start(fragment.end);
        }
    }

    /// Moves to the first record that starts at `from` or behind it in the same segment, passing over the rest of a
    /// record that began in an earlier one. `from` must be where a fragment starts.
    ///
    /// # Errors
    /// As [`next`](Cursor::next).
    pub fn skip_continued(&mut self, limit: Lsn) -> Result<(), WalError> {
        let mut payload = Vec::new();
        loop {
            payload.clear();
            match self.fragment(self.position(), limit, &mut payload) {
                Ok(fragment)
                    if fragment.flags.contains(Flags::CONTINUED) && self.is_in_place(self.position(), &fragment) =>
                {
                    self.at = fragment.end;
                    // A record of more than two segments fills this one whole.
                    if !fragment.flags.contains(Flags::CONTINUES) {
                        return Ok(());
                    }
                }
                Ok(_) | Err(Missing::Gap { .. }) => return Ok(()),
                Err(Missing::Error(error)) => return Err(self.failed(error)),
            }
        }
    }

    /// Checks the fragment at its position and moves behind it, whether a record starts there or goes on.
    ///
    /// # Errors
    /// There is none that is whole, or the file cannot be read.
    pub(super) fn check_fragment(&mut self, limit: Lsn) -> Result<(), WalError> {
        let at = self.position();
        match self.fragment(at, limit, &mut Vec::new()) {
            Ok(fragment) if self.is_in_place(at, &fragment) => {
                self.at = fragment.end;
                Ok(())
            }
            Ok(fragment) => {
                let found = format!("a part of a {} record, flags {:#04x}", fragment.kind.name(), fragment.flags.0);
                Err(WalError::Damaged(Box::new(self.damage(at, "a part of a record that lies here".into(), found))))
            }
            Err(Missing::Gap { damage, .. }) => Err(WalError::Damaged(Box::new(damage))),
            Err(Missing::Error(error)) => Err(self.failed(error)),
        }
    }

    /// What the header at `at` states, whether the part is whole or not; `None` if there are only zeros, no such
    /// segment, or no room for a header. The cursor does not move.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn part(&mut self, at: Lsn) -> Result<Option<Part>, WalError> {
        let part = self.part_unchecked(at);
        // The next read checks the segment's header again.
        self.segment = None;
        part
    }

    fn part_unchecked(&mut self, at: Lsn) -> Result<Option<Part>, WalError> {
        let layout = self.directory.layout();
        let number = layout.segment_of(at);
        if layout.record_start(at) != at {
            return Ok(None);
        }
        if !self.open_unchecked(number)? {
            return Ok(None);
        }
        let end = layout.segment_start(number.next());
        let Some(head) = self.bytes(at, record::HEADER_BYTES, end)?.first_chunk().copied() else { return Ok(None) };
        // Any length: one that is wrong is shown, too.
        let Ok(header) = FragmentHeader::decode(&head, usize::MAX) else { return Ok(None) };
        let mut checksums = (header.stated_crc(), None);
        if header.payload_len <= layout.payload_room(at) {
            checksums.1 = match self.bytes(at, record::HEADER_BYTES + header.payload_len, end) {
                Ok(whole) => Some(header.checksum(at, whole.get(record::HEADER_BYTES..).unwrap_or(&[]))),
                Err(WalError::Unreadable { .. }) => None,
                Err(error) => return Err(error),
            };
        }
        let len = (record::HEADER_BYTES + header.payload_len).next_multiple_of(record::ALIGNMENT);
        Ok(Some(Part {
            start: at,
            end: at.advanced(len as u64),
            payload_bytes: header.payload_len,
            kind: header.kind,
            flags: header.flags,
            timeline: header.timeline,
            stated_crc: checksums.0,
            computed_crc: checksums.1,
        }))
    }

    /// Reads the fragment at `at` and appends its payload.
    fn fragment(&mut self, at: Lsn, limit: Lsn, payload: &mut Vec<u8>) -> Result<Checked, Missing> {
        let layout = self.directory.layout();
        if at >= limit {
            let damage = self.damage(at, "a record".into(), "the end of what may be read".into());
            return Err(Missing::Gap { blank: true, damage });
        }
        if !self.open_segment(layout.segment_of(at))? {
            let damage = self.damage(at, "a segment".into(), "no such file".into());
            return Err(Missing::Gap { blank: true, damage });
        }
        let timeline = self.directory.timeline();
        let segment_end = layout.segment_start(layout.segment_of(at).next());
        let readable_end = limit.min(segment_end);
        let head = *self.bytes(at, record::HEADER_BYTES, readable_end)?.first_chunk().unwrap_or(&[0; 16]);
        let room =
            readable_end.bytes_since(at) as usize - record::HEADER_BYTES.min(readable_end.bytes_since(at) as usize);
        let checked = match FragmentHeader::decode(&head, room) {
            Err(fault) => Err(fault),
            Ok(header) => {
                let whole = self.bytes(at, record::HEADER_BYTES + header.payload_len, readable_end)?;
                let body = whole.get(record::HEADER_BYTES..).unwrap_or(&[]);
                header.check(at, body, timeline).map(|kind| {
                    payload.extend_from_slice(body);
                    let len = (record::HEADER_BYTES + header.payload_len).next_multiple_of(record::ALIGNMENT);
                    Checked { kind, flags: header.flags, end: at.advanced(len as u64) }
                })
            }
        };
        checked.map_err(|fault| {
            let (expected, found) = fault.expected_found();
            if let FragmentFault::Unknown { .. } = fault {
                let path = self.directory.segment_path(layout.segment_of(at));
                return WalError::Newer { path, offset: layout.offset_of(at), lsn: at, what: found }.into();
            }
            Missing::Gap { blank: fault == FragmentFault::Blank, damage: self.damage(at, expected, found) }
        })
    }

    /// Whether a fragment lies where one of its kind may: what continues fills its segment, and what is continued
    /// begins one.
    fn is_in_place(&self, at: Lsn, fragment: &Checked) -> bool {
        let layout = self.directory.layout();
        let ends_segment = layout.offset_of(fragment.end) == 0;
        let begins_segment = at == layout.first_record_in(layout.segment_of(at));
        (ends_segment || !fragment.flags.contains(Flags::CONTINUES))
            && (begins_segment || !fragment.flags.contains(Flags::CONTINUED))
    }

    /// Whoever tries again asks the device again, and checks the segment's header.
    fn failed(&mut self, error: WalError) -> WalError {
        self.segment = None;
        error
    }

    fn open_segment(&mut self, number: SegmentNumber) -> Result<bool, WalError> {
        if self.segment.as_ref().is_none_or(|open| open.number != number) {
            let len_bytes = self.directory.layout().segment_bytes();
            let file = self.directory.open(number, Access::Read)?;
            self.segment = file.map(|file| OpenSegment { number, file, len_bytes, unreadable: None });
            self.buffer.clear();
        }
        Ok(self.segment.is_some())
    }

    /// Opens a segment whatever its length and header are; answers whether it is there.
    pub(super) fn open_unchecked(&mut self, number: SegmentNumber) -> Result<bool, WalError> {
        if self.segment.as_ref().is_some_and(|open| open.number == number) {
            return Ok(true);
        }
        self.buffer.clear();
        self.segment = None;
        if let Some(file) = self.directory.open_unchecked(number)? {
            let len_bytes = self.directory.len_bytes(number, file.as_ref())?;
            self.segment = Some(OpenSegment { number, file, len_bytes, unreadable: None });
        }
        Ok(self.segment.is_some())
    }

    /// `len` bytes at `at` of the open segment, fewer where `end` or the file's own length cuts them off. A read that
    /// comes short of both is an error: it says nothing about what is there.
    pub(super) fn bytes(&mut self, at: Lsn, len: usize, end: Lsn) -> Result<&[u8], WalError> {
        let len = len.min(end.bytes_since(at) as usize);
        let have_end = self.buffer_start.advanced(self.buffer.len() as u64);
        if at < self.buffer_start || at.advanced(len as u64) > have_end {
            self.fill(at, len, end)?;
        }
        let from = at.bytes_since(self.buffer_start) as usize;
        let to = (from + len).min(self.buffer.len());
        Ok(self.buffer.get(from..to).unwrap_or(&[]))
    }

    /// Fills the buffer with `len` bytes at `at`, and with more of what follows as long as it can be read: what lies
    /// before a bad sector is never lost with it.
    fn fill(&mut self, at: Lsn, len: usize, end: Lsn) -> Result<(), WalError> {
        if len <= CHUNK_BYTES && self.buffer.capacity() > CHUNK_BYTES {
            // A large fragment is behind us.
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.buffer_start = at;
        let Some(OpenSegment { number, file, len_bytes, unreadable }) = &mut self.segment else { return Ok(()) };
        let offset = self.directory.layout().offset_of(at);
        let available = len_bytes.saturating_sub(offset) as usize;
        let needed = len.min(available);
        let mut wanted = len.max(CHUNK_BYTES).min(end.bytes_since(at) as usize).min(available);
        if let Some((bad, error)) = unreadable.as_ref().filter(|(bad, _)| *bad >= offset) {
            let readable = (bad - offset) as usize;
            if readable < needed {
                return Err(self.directory.unreadable(*number, *bad, Arc::clone(error)));
            }
            wanted = wanted.min(readable);
        }
        self.buffer.resize(wanted, 0);
        let Err(error) = read_exactly(file.as_ref(), &mut self.buffer, offset) else { return Ok(()) };
        let failed = match error.kind() {
            io::ErrorKind::UnexpectedEof => Some((0, error)),
            _ => read_sectors(file.as_ref(), &mut self.buffer, offset),
        };
        let Some((readable, error)) = failed else { return Ok(()) };
        self.buffer.truncate(readable);
        let bad = offset + readable as u64;
        if readable < needed {
            self.buffer.clear();
            return Err(self.directory.unreadable(*number, bad, error));
        }
        *unreadable = Some((bad, Arc::new(error)));
        Ok(())
    }

    fn damage(&self, lsn: Lsn, expected: String, found: String) -> Damage {
        let layout = self.directory.layout();
        let path = self.directory.segment_path(layout.segment_of(lsn));
        Damage { path, offset: layout.offset_of(lsn), lsn, expected, found }
    }
}

/// Fills `buffer` with what stands at `offset` of a file that is known to reach so far.
pub(super) fn read_exactly(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    if file.read_at(buffer, offset)? < buffer.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// The same in smaller pieces, up to the first sector that cannot be read; answers how far that was, and why no further.
pub(super) fn read_sectors(file: &dyn File, buffer: &mut [u8], offset: u64) -> Option<(usize, io::Error)> {
    let mut step_bytes = if buffer.len() > CHUNK_BYTES { CHUNK_BYTES as u64 } else { SECTOR_BYTES };
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let end = buffer.len().min(done + (step_bytes - at % step_bytes) as usize);
        let part = buffer.get_mut(done..end)?;
        match read_exactly(file, part, at) {
            Ok(()) => done = end,
            Err(_) if step_bytes > SECTOR_BYTES => step_bytes = SECTOR_BYTES,
            Err(error) => return Some((done, error)),
        }
    }
    None
}
