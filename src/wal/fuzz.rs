//! What the fuzzer runs on bytes of its choosing, see `fuzz/`. Each target states what must hold for any input; ordinary
//! tests run them on the committed corpora.
//!
//! Random bytes fail at the first checksum. So the inputs are scripts where that matters: the target builds something
//! valid by them, then damages it by them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::cursor::{AnyRecord, Cursor, Step};
use super::directory::SegmentDirectory;
use super::errors::WalError;
use super::layout::{Layout, SegmentNumber};
use super::record::{self, Flags, FragmentHeader, Kind};
use super::recovery::{Evidence, scan_with};
use super::search::record_at_or_before;
use super::segment::{self, SegmentHeader};
use crate::disk::lossy::{Faults, LossyDisk};
use crate::disk::{Access, Disk};
use crate::ident::SystemId;
use crate::lsn::{Lsn, TimelineId};

/// As small as segments can be, so that records cross them.
const SEGMENT_BYTES: u64 = 1024;
const SYSTEM: SystemId = SystemId::new(7);
const EVERYTHING: Lsn = Lsn::new(u64::MAX);
/// More than this in one log finds nothing new.
const RECORDS_LIMIT: usize = 64;
const DAMAGES_LIMIT: usize = 16;

/// Bytes that are taken one after another; zeros when there are no more.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.u16()) % bound.max(1)
    }
}

/// A fragment of a record: `control | LSN, 8 bytes | header, 16 bytes | payload`. If `control` is odd, the checksum is
/// made to fit.
pub fn fragment(data: &[u8]) {
    let Some((control, rest)) = data.split_first() else { return };
    let Some((lsn, rest)) = rest.split_first_chunk() else { return };
    let Some((head, payload)) = rest.split_first_chunk::<{ record::HEADER_BYTES }>() else { return };
    let lsn = Lsn::new(u64::from_le_bytes(*lsn));
    let Ok(mut header) = FragmentHeader::decode(head, payload.len()) else { return };
    assert_eq!(header.encode(), *head, "reading a header loses nothing");
    let payload = payload.get(..header.payload_len).unwrap_or_default();
    if control & 1 == 1 {
        let mut head = *head;
        head[4..8].copy_from_slice(&header.checksum(lsn, payload).to_le_bytes());
        let Ok(fitting) = FragmentHeader::decode(&head, payload.len()) else { return };
        header = fitting;
    }
    match header.check(lsn, payload, TimelineId::FIRST) {
        Err(fault) => assert_ne!(fault.expected_found(), (String::new(), String::new())),
        Ok(kind) => {
            assert_eq!(FragmentHeader::new(lsn, TimelineId::FIRST, kind, header.flags, payload), header);
            let elsewhere = Lsn::new(lsn.get() ^ record::ALIGNMENT as u64);
            assert!(header.check(elsewhere, payload, TimelineId::FIRST).is_err(), "it is whole in one place only");
            assert!(header.check(lsn, payload, TimelineId::new(2)).is_err(), "and on one timeline");
            if let Some(stated) = record::decode_mark(payload) {
                assert_eq!(record::encode_mark(stated), payload);
            }
        }
    }
}

/// A segment file: `control | its first bytes`. If `control` is odd, the header's checksum is made to fit; its other bits
/// say how long the file is.
pub fn segment_header(data: &[u8]) {
    let Some((control, bytes)) = data.split_first() else { return };
    let mut contents = bytes.to_vec();
    if let (1, Some(head)) = (control & 1, contents.first_chunk_mut::<{ segment::HEADER_BYTES }>()) {
        let crc = crc32fast::hash(&head[..segment::HEADER_BYTES - 4]).to_le_bytes();
        head[segment::HEADER_BYTES - 4..].copy_from_slice(&crc);
    }
    let layout = Layout::new(SEGMENT_BYTES);
    let expected = SegmentHeader::new(layout, SYSTEM, TimelineId::FIRST, SegmentNumber::FIRST);
    let decoded = contents.first_chunk().map(SegmentHeader::decode);
    if let Some(Ok(header)) = &decoded {
        assert_eq!(SegmentHeader::decode(&header.encode()).as_ref(), Ok(header));
        assert_eq!(header.difference(&expected).is_none(), *header == expected);
    }
    // Half of the files have the right length.
    let len = if control & 2 == 0 { SEGMENT_BYTES as usize } else { usize::from(control >> 2) * 32 };
    contents.resize(len, 0);
    let log = Log { segments: vec![contents] };
    let opened = log.directory().open(SegmentNumber::FIRST, Access::Read);
    let is_ours = len as u64 == SEGMENT_BYTES && decoded == Some(Ok(expected));
    assert_eq!(matches!(opened, Ok(Some(_))), is_ours, "a segment is believed exactly if it says what its name says");
}

/// Where a log ends. The script makes a log of whole records and marks, damages it, and says what is known from outside.
pub fn end_of_log(data: &[u8]) {
    let mut script = Script(data);
    let intact = Intact::build(&mut script);
    let (damaged, damage) = Damage::done(&intact, &mut script);
    let directory = damaged.directory();
    let boundary = |script: &mut Script<'_>| match intact.records.get(script.below(2 * intact.records.len() + 2)) {
        Some(record) => record.end,
        None => Lsn::NONE,
    };
    let evidence = Evidence { verify_from: boundary(&mut script), reached: boundary(&mut script), clean_end: None };
    let mut visited = Vec::new();
    let scanned = scan_with(directory.clone(), evidence, &mut |record| visited.push(record.clone()));
    read_anywhere(&directory, &mut script);
    let scanned = match scanned {
        Ok(scanned) => scanned,
        Err(error) => {
            let survives = intact.before(damage.first).last().map_or(Lsn::NONE, |record| record.end);
            let is_contradicted = evidence.reached.max(evidence.verify_from) > survives;
            assert!(is_contradicted || !damage.is_harmless(&intact), "refused without damage: {error}");
            return;
        }
    };
    let end = scanned.end();
    assert!(end >= evidence.reached && end >= evidence.verify_from, "the log reached further than {end}");
    if evidence.verify_from.is_none() && damage.removed.is_empty() {
        let before_damage = intact.before(damage.first);
        assert!(visited.starts_with(&before_damage), "whole records were cut: the log ends at {end}");
    }
    for (at, stated) in intact.marks.iter().filter(|(at, _)| damage.spares(*at)) {
        assert!(*at < end || *stated <= end, "the mark at {at} states {stated}, and the log ends at {end}");
    }
    if evidence.verify_from.is_none() {
        find_all(&directory, &visited, end);
    }
    // The end is final: whoever looks again finds the same, and nothing behind it.
    let Ok(cut) = scanned.cut() else { return };
    assert_eq!(cut.end, end);
    let mut again = Vec::new();
    let rescanned = scan_with(directory, evidence, &mut |record| again.push(record.clone()));
    let rescanned = rescanned.unwrap_or_else(|error| unreachable!("a log that was cut is refused: {error}"));
    assert_eq!((rescanned.end(), rescanned.torn_bytes().ok()), (end, Some(0)));
    assert_eq!(again, visited, "cutting changes no record");
}

/// From any position on, reading ends, and says no more than is there.
fn read_anywhere(directory: &SegmentDirectory, script: &mut Script<'_>) {
    let at = Lsn::new(SEGMENT_BYTES + script.below(5 * SEGMENT_BYTES as usize) as u64);
    let mut cursor = Cursor::new(directory.clone(), at);
    let _ = cursor.part(at);
    let mut from = at;
    while let Ok(Some(found)) = cursor.resynchronise(from, EVERYTHING) {
        assert!(found >= from && cursor.position() == found);
        if cursor.skip_continued(EVERYTHING).is_err() {
            return;
        }
        while let Ok(Step::Record(record)) = cursor.next(EVERYTHING) {
            assert!(record.start >= found && record.end > record.start && cursor.position() >= record.end);
        }
        from = cursor.position().max(found).advanced(record::ALIGNMENT as u64);
    }
}

/// Searching backwards finds what reading forward found.
fn find_all(directory: &SegmentDirectory, records: &[AnyRecord], end: Lsn) {
    for (index, record) in records.iter().enumerate() {
        let found = record_at_or_before(directory, record.start, end);
        assert_eq!(found.ok().flatten().as_ref(), Some(record));
        // One byte before lies in the record before, or in none.
        let before = record_at_or_before(directory, Lsn::new(record.start.get() - 1), end);
        match (before, index.checked_sub(1)) {
            (Ok(found), before) => assert_eq!(found.as_ref(), before.and_then(|before| records.get(before))),
            // The log begins in the middle of that one.
            (Err(error), None) => assert!(matches!(error, WalError::Recycled { .. } | WalError::Damaged(_)), "{error}"),
            (Err(error), Some(_)) => unreachable!("the record before is there: {error}"),
        }
    }
}

/// Segments of a log, from the first on. An empty one is not there.
#[derive(Clone)]
struct Log {
    segments: Vec<Vec<u8>>,
}

impl Log {
    fn directory(&self) -> SegmentDirectory {
        let disk = LossyDisk::new(Faults::default());
        let layout = Layout::new(SEGMENT_BYTES);
        let _ = disk.create_dir(Path::new("/wal"));
        for (number, bytes) in (SegmentNumber::FIRST.0..).map(SegmentNumber).zip(&self.segments) {
            let path = layout.path(Path::new("/wal"), TimelineId::FIRST, number);
            let made = if bytes.is_empty() { None } else { disk.create(&path).ok() };
            let _ = made.map(|file| file.write_at(bytes, 0));
        }
        SegmentDirectory::new(Arc::new(disk), "/wal".into(), layout, SYSTEM, TimelineId::FIRST)
    }

    /// The byte at a position, if it is there.
    fn byte(&mut self, lsn: Lsn) -> Option<&mut u8> {
        let layout = Layout::new(SEGMENT_BYTES);
        let index = layout.segment_of(lsn).0.checked_sub(SegmentNumber::FIRST.0)?;
        self.segments.get_mut(usize::try_from(index).ok()?)?.get_mut(layout.offset_of(lsn) as usize)
    }

    fn end(&self) -> Lsn {
        Layout::new(SEGMENT_BYTES).segment_start(SegmentNumber(SegmentNumber::FIRST.0 + self.segments.len() as u64))
    }
}

/// A log of whole records.
struct Intact {
    log: Log,
    records: Vec<AnyRecord>,
    /// Where each mark stands, and what it states.
    marks: Vec<(Lsn, Lsn)>,
}

impl Intact {
    fn build(script: &mut Script<'_>) -> Intact {
        let layout = Layout::new(SEGMENT_BYTES);
        let count = u64::from(script.u8() % 4);
        let segments = (1..=count).map(|number| {
            let mut bytes = vec![0; SEGMENT_BYTES as usize];
            let header = SegmentHeader::new(layout, SYSTEM, TimelineId::FIRST, SegmentNumber(number));
            bytes[..segment::HEADER_BYTES].copy_from_slice(&header.encode());
            bytes
        });
        let log = Log { segments: segments.collect() };
        let mut intact = Intact { log, records: Vec::new(), marks: Vec::new() };
        let mut at = layout.first_record();
        while intact.records.len() < RECORDS_LIMIT {
            let end = match script.u8() {
                0 => break,
                1 => {
                    let stated = intact.records.get(script.below(intact.records.len() + 1));
                    let stated = stated.map_or(layout.first_record(), |record| record.end);
                    intact.put(at, Kind::Mark, &record::encode_mark(stated))
                }
                kind => {
                    let kind = if kind & 1 == 0 { Kind::Data } else { Kind::Clock };
                    let payload = vec![script.u8(); script.below(3 * SEGMENT_BYTES as usize)];
                    intact.put(at, kind, &payload)
                }
            };
            let Some(end) = end else { break };
            at = end;
        }
        intact
    }

    /// Writes a record as the log does, if there is room, and answers where it ends.
    fn put(&mut self, at: Lsn, kind: Kind, payload: &[u8]) -> Option<Lsn> {
        let layout = Layout::new(SEGMENT_BYTES);
        let end = layout.record_end(at, payload.len());
        if end > self.log.end() {
            return None;
        }
        let start = layout.record_start(at);
        let (mut at, mut rest) = (start, payload);
        loop {
            let fragment = layout.fragment(at, rest.len());
            let (part, remaining) = rest.split_at(fragment.len);
            let flags = Flags::default().with(Flags::CONTINUES, !remaining.is_empty());
            let flags = flags.with(Flags::CONTINUED, fragment.start != start);
            let header = FragmentHeader::new(fragment.start, TimelineId::FIRST, kind, flags, part).encode();
            for (offset, byte) in header.iter().chain(part).enumerate() {
                if let Some(place) = self.log.byte(fragment.start.advanced(offset as u64)) {
                    *place = *byte;
                }
            }
            if let (Kind::Mark, Some(stated)) = (kind, record::decode_mark(part)) {
                self.marks.push((fragment.start, stated));
            }
            (at, rest) = (fragment.end, remaining);
            if rest.is_empty() {
                self.records.push(AnyRecord { start, end: at, kind, payload: payload.to_vec() });
                return Some(at);
            }
        }
    }

    /// The records that end before a position.
    fn before(&self, lsn: Lsn) -> Vec<AnyRecord> {
        self.records.iter().take_while(|record| record.end <= lsn).cloned().collect()
    }
}

/// What was done to a log.
struct Damage {
    /// The first byte that is different.
    first: Lsn,
    changed: BTreeSet<Lsn>,
    /// Whether a byte became something else than zero.
    is_written: bool,
    removed: BTreeSet<SegmentNumber>,
}

impl Damage {
    fn done(intact: &Intact, script: &mut Script<'_>) -> (Log, Damage) {
        let layout = Layout::new(SEGMENT_BYTES);
        let mut log = intact.log.clone();
        let size = log.segments.len() * SEGMENT_BYTES as usize;
        let mut damage =
            Damage { first: log.end(), changed: BTreeSet::new(), is_written: false, removed: BTreeSet::new() };
        let start = layout.segment_start(SegmentNumber::FIRST);
        for _ in 0..DAMAGES_LIMIT {
            if script.is_over() || size == 0 {
                break;
            }
            let at = |script: &mut Script<'_>| start.advanced(script.below(size) as u64);
            match script.u8() % 8 {
                0 => break,
                1 | 2 => {
                    let (at, byte) = (at(script), script.u8());
                    damage.write(&mut log, at, byte);
                }
                // A part of a flush that did not reach the disk.
                3 | 4 => {
                    let (at, len) = (at(script), script.below(size) as u64);
                    for offset in 0..len {
                        damage.write(&mut log, at.advanced(offset), 0);
                    }
                }
                // Bytes from elsewhere.
                5 | 6 => {
                    let (from, to, len) = (at(script), at(script), u64::from(script.u8()));
                    for offset in 0..len {
                        let byte = log.byte(from.advanced(offset)).copied().unwrap_or(0);
                        damage.write(&mut log, to.advanced(offset), byte);
                    }
                }
                _ => {
                    let index = script.below(log.segments.len());
                    if let Some(segment) = log.segments.get_mut(index) {
                        segment.clear();
                        let number = SegmentNumber(SegmentNumber::FIRST.0 + index as u64);
                        damage.removed.insert(number);
                        damage.first = damage.first.min(layout.segment_start(number));
                    }
                }
            }
        }
        (log, damage)
    }

    fn write(&mut self, log: &mut Log, at: Lsn, byte: u8) {
        if let Some(place) = log.byte(at).filter(|place| **place != byte) {
            *place = byte;
            self.first = self.first.min(at);
            self.changed.insert(at);
            self.is_written |= byte != 0;
        }
    }

    /// Whether a mark is as it was. One may have been undone: then it counts as changed.
    fn spares(&self, mark: Lsn) -> bool {
        let len = (record::HEADER_BYTES + record::MARK_PAYLOAD_BYTES) as u64;
        let number = Layout::new(SEGMENT_BYTES).segment_of(mark);
        !self.removed.contains(&number) && self.changed.range(mark..mark.advanced(len)).next().is_none()
    }

    /// Whether it is what a crash leaves: zeros behind everything that is stated durable, headers of segments in place.
    fn is_harmless(&self, intact: &Intact) -> bool {
        let layout = Layout::new(SEGMENT_BYTES);
        let durable = intact.marks.iter().map(|(_, stated)| *stated).max().unwrap_or(Lsn::NONE);
        let is_header = |lsn: &Lsn| layout.offset_of(*lsn) < segment::HEADER_BYTES as u64;
        self.removed.is_empty() && !self.is_written && self.first >= durable && !self.changed.iter().any(is_header)
    }
}
