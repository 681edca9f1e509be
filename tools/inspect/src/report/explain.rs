//! `wal explain`: what stands at a position.

use std::collections::BTreeSet;
use std::io::{self, Write};

use mainstay::disk::Access;
use mainstay::lsn::Lsn;
use mainstay::wal::{AnyRecord, Cursor, Flags, Kind, Layout, Part, SegmentNumber, WalError};
use serde::Serialize;

use super::{Exit, Findings, Report, text};
use crate::directory::{DataDirectory, Survey};
use crate::walk::{Met, Walk};

/// What `wal explain` shows.
#[derive(Debug, Serialize)]
pub struct Explanation {
    lsn: String,
    /// Absent if there is no such segment.
    file: Option<String>,
    segment: u64,
    offset: u64,
    place: Place,
    /// The same for people.
    meaning: String,
    /// The record that covers the position, or what is left of it.
    record: Option<Record>,
    before: Option<Neighbour>,
    after: Option<Neighbour>,
    /// Where the first record starts that can be read; absent if there is no segment.
    oldest: Option<String>,
    /// Unknown if the log is damaged.
    end: Option<String>,
    #[serde(flatten)]
    findings: Findings,
}

/// What kind of place it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Place {
    Record,
    /// Of a segment.
    Header,
    /// Too few bytes at a segment's end for a record.
    Filler,
    /// No whole record covers it, but one should.
    Damaged,
    /// What it held is not there any more, or never was.
    BeforeTheLog,
    /// Behind the end.
    PastTheEnd,
    /// The log should go on here and its segment is not there.
    Missing,
}

#[derive(Debug, Serialize)]
struct Record {
    start: String,
    /// Unknown if it is damaged.
    end: Option<String>,
    /// Several if it goes on in the next segment.
    parts: Vec<PartLine>,
}

#[derive(Debug, Serialize)]
struct PartLine {
    lsn: String,
    offset: u64,
    kind: String,
    payload_bytes: usize,
    flags: Vec<&'static str>,
    timeline: u32,
    crc_ok: bool,
    /// Of its bytes; unknown if its length reaches beyond the segment, or not all of it can be read.
    crc_computed: Option<String>,
    /// According to its header.
    crc_stated: String,
}

/// A record beside it.
#[derive(Debug, Serialize)]
struct Neighbour {
    start: String,
    end: String,
    kind: &'static str,
    payload_bytes: usize,
}

struct Explainer<'a> {
    directory: &'a DataDirectory,
    numbers: BTreeSet<SegmentNumber>,
    survey: Survey,
    lsn: Lsn,
    explanation: Explanation,
}

/// Explains a position.
pub fn explain(directory: &DataDirectory, lsn: Lsn) -> anyhow::Result<Explanation> {
    let (layout, numbers, survey) = (directory.layout(), directory.segments.list()?, directory.survey()?);
    let number = layout.segment_of(lsn);
    let file = numbers.contains(&number).then(|| layout.file_name(directory.segments.timeline(), number));
    let mut findings = Findings::of(directory);
    if let Survey::Damaged(damage) = &survey {
        findings.add(damage);
    }
    let oldest = directory.oldest()?;
    let explanation = Explanation {
        lsn: lsn.to_string(),
        file,
        segment: number.0,
        offset: layout.offset_of(lsn),
        place: Place::BeforeTheLog,
        meaning: String::new(),
        record: None,
        before: None,
        after: None,
        oldest: oldest.map(|lsn| lsn.to_string()),
        end: survey.known_end().map(|end| end.to_string()),
        findings,
    };
    let mut explainer = Explainer { directory, numbers, survey, lsn, explanation };
    explainer.fill(oldest)?;
    Ok(explainer.explanation)
}

impl Explainer<'_> {
    fn fill(&mut self, oldest: Option<Lsn>) -> anyhow::Result<()> {
        let (layout, lsn) = (self.directory.layout(), self.lsn);
        let (Some(oldest), Some(first)) = (oldest, self.numbers.first().copied()) else {
            match &self.survey {
                Survey::Whole(_) => self.is(Place::PastTheEnd, "there is no log yet".into()),
                Survey::Damaged(_) => self.is(Place::Missing, "the log is not there".into()),
            }
            return Ok(());
        };
        let number = layout.segment_of(lsn);
        if number < first {
            let what = if first == SegmentNumber::FIRST { "before the log's very first record" } else { "recycled" };
            self.is(Place::BeforeTheLog, format!("{what}; the oldest LSN available is {oldest}"));
            return Ok(());
        }
        if !self.numbers.contains(&number) && self.numbers.last().is_some_and(|last| *last > number) {
            self.is(Place::Missing, "its segment is not there, and later ones are".into());
            self.directory.missing(&self.numbers).iter().for_each(|damage| self.explanation.findings.add(damage));
            return self.walk();
        }
        // What lies behind the known end is no part of the log, whatever it looks like.
        if let Survey::Whole(scan) = &self.survey
            && lsn >= scan.end()
        {
            let (end, torn_bytes) = (scan.end(), scan.torn_bytes()?);
            let meaning = if lsn == end {
                "the log ends here".into()
            } else if lsn < end.advanced(torn_bytes) {
                format!("in a torn tail, which the next start cuts: the log ends at {end}")
            } else {
                format!("past the end of the log, which is at {end}")
            };
            self.is(Place::PastTheEnd, meaning);
            return self.walk();
        }
        if !self.numbers.contains(&number) {
            self.is(Place::PastTheEnd, "past the last segment; where the log ends is unknown".into());
            return Ok(());
        }
        if lsn < layout.first_record_in(number) {
            let checks = match self.directory.segments.open(number, Access::Read) {
                Ok(_) => "which is whole".into(),
                Err(error) => {
                    let (damage, end) = (error.into_damage()?, self.survey.known_end());
                    self.explanation.findings.add_of_header(self.directory, end, number, &damage);
                    format!("which is damaged: expected {}, found {}", damage.expected, damage.found)
                }
            };
            self.is(Place::Header, format!("in the header of its segment, {checks}"));
        }
        self.walk()
    }

    fn is(&mut self, place: Place, meaning: String) {
        (self.explanation.place, self.explanation.meaning) = (place, meaning);
    }

    /// Finds the record, if the place is not known yet, and the neighbours.
    fn walk(&mut self) -> anyhow::Result<()> {
        let is_known = !self.explanation.meaning.is_empty();
        let mut walk = Walk::new(self.directory, self.start()?, self.survey.end(), true);
        let nothing_from = loop {
            match walk.next()? {
                Met::Record(record) if record.end <= self.lsn => self.explanation.before = Some(Neighbour::of(&record)),
                Met::Record(record) if record.start <= self.lsn && !is_known => self.found(&record)?,
                // One that lies across the header that was asked for is on both sides of it.
                Met::Record(record) => {
                    self.explanation.after = Some(Neighbour::of(&record));
                    if self.explanation.meaning.is_empty() {
                        self.is(Place::Filler, "in the filler at its segment's end: no record fits there".into());
                    }
                    return Ok(());
                }
                Met::Gap(gap) if self.survey.leaves_open(&gap) => break gap.from,
                Met::Gap(gap) => {
                    let covers = gap.from <= self.lsn && gap.to.is_none_or(|to| to > self.lsn);
                    if covers && self.explanation.meaning.is_empty() {
                        self.is(Place::Damaged, gap.line());
                        let part = self.part(gap.from)?;
                        let parts = part.iter().map(|part| PartLine::of(self.directory.layout(), part)).collect();
                        self.explanation.record = Some(Record { start: gap.from.to_string(), end: None, parts });
                    }
                    if covers || gap.from > self.lsn {
                        self.explanation.findings.add(&self.survey.explained(gap.damage));
                    }
                    if gap.to.is_none() || gap.from > self.lsn {
                        break gap.from;
                    }
                }
                Met::End => break walk.position(),
            }
        };
        self.beyond(nothing_from);
        Ok(())
    }

    /// Nothing more follows.
    fn beyond(&mut self, from: Lsn) {
        if self.explanation.meaning.is_empty() {
            let (place, meaning) = match self.lsn < from {
                true => (Place::Filler, "in the filler at its segment's end: no record fits there".into()),
                false => (Place::PastTheEnd, format!("nothing at or behind {from}; where the log ends is unknown")),
            };
            self.is(place, meaning);
        }
    }

    fn found(&mut self, record: &AnyRecord) -> anyhow::Result<()> {
        let layout = self.directory.layout();
        let (mut parts, mut where_in_it) = (Vec::new(), "");
        let (mut cursor, mut at) = (self.cursor(record.start), record.start);
        while at < record.end
            && let Some(part) = cursor.part(at)?
        {
            parts.push(PartLine::of(layout, &part));
            if (part.start..part.end).contains(&self.lsn) {
                where_in_it = match self.lsn {
                    lsn if lsn == record.start => "it starts here",
                    lsn if lsn < part.payload_start() => "in its header",
                    lsn if lsn < part.payload_start().advanced(part.payload_bytes as u64) => "in its payload",
                    _ => "in the padding behind it",
                };
            }
            at = layout.record_start(part.end);
        }
        let (kind, bytes) = (record.kind.name(), text::count(record.payload.len() as u64, "byte"));
        self.is(Place::Record, format!("a {kind} record of {bytes}: {where_in_it}"));
        let (start, end) = (record.start.to_string(), Some(record.end.to_string()));
        self.explanation.record = Some(Record { start, end, parts });
        Ok(())
    }

    fn cursor(&self, at: Lsn) -> Cursor {
        Cursor::new(self.directory.segments.clone(), at)
    }

    /// A cursor that meets the record before the position: in the segment before it or, if a record fills that whole, in
    /// the one where it begins.
    fn start(&self) -> Result<Cursor, WalError> {
        let layout = self.directory.layout();
        let newest = self.numbers.last().copied().unwrap_or(SegmentNumber::FIRST);
        let mut number = layout.segment_of(self.lsn).min(layout.segment_of(self.survey.end())).min(newest);
        let mut is_first_step = true;
        while let Some(before) = number.0.checked_sub(1).map(SegmentNumber)
            && self.numbers.contains(&before)
        {
            let at = layout.first_record_in(number);
            let is_filled = self.part(at)?.is_some_and(|part| part.flags.contains(Flags::CONTINUES));
            if !is_first_step && !is_filled {
                break;
            }
            (number, is_first_step) = (before, false);
        }
        self.directory.first_record_from(number)
    }

    /// What is left of a part of a record, if anything can be read.
    fn part(&self, at: Lsn) -> Result<Option<Part>, WalError> {
        match self.cursor(at).part(at) {
            Ok(part) => Ok(part),
            Err(error) => error.into_damage().map(|_| None),
        }
    }
}

impl Neighbour {
    fn of(record: &AnyRecord) -> Neighbour {
        let (start, end) = (record.start.to_string(), record.end.to_string());
        Neighbour { start, end, kind: record.kind.name(), payload_bytes: record.payload.len() }
    }

    fn write_text(neighbour: Option<&Neighbour>, name: &str, out: &mut dyn Write) -> io::Result<()> {
        match neighbour {
            None => writeln!(out, "{name:<9} no record"),
            Some(Neighbour { start, end, kind, payload_bytes }) => {
                let bytes = text::count(*payload_bytes as u64, "byte");
                writeln!(out, "{name:<9} {start} to {end}, {kind}, {bytes}")
            }
        }
    }
}

impl PartLine {
    fn of(layout: Layout, part: &Part) -> PartLine {
        let flags = [
            (Flags::CONTINUED, "continued"),
            (Flags::CONTINUES, "continues"),
            (Flags::COMPRESSED, "compressed"),
            (Flags::AUTHENTICATED, "authenticated"),
        ];
        PartLine {
            lsn: part.start.to_string(),
            offset: layout.offset_of(part.start),
            kind: Kind::from_number(part.kind)
                .map_or_else(|| format!("unknown ({})", part.kind), |kind| kind.name().into()),
            payload_bytes: part.payload_bytes,
            flags: flags.iter().filter(|(flag, _)| part.flags.contains(*flag)).map(|(_, name)| *name).collect(),
            timeline: part.timeline.get(),
            crc_ok: part.computed_crc == Some(part.stated_crc),
            crc_computed: part.computed_crc.map(|crc| format!("{crc:08x}")),
            crc_stated: format!("{:08x}", part.stated_crc),
        }
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let flags = if self.flags.is_empty() { "none".into() } else { self.flags.join(", ") };
        let stated = &self.crc_stated;
        let crc = match (&self.crc_computed, self.crc_ok) {
            (_, true) => format!("{stated} ok"),
            (Some(computed), false) => format!("WRONG: its bytes have {computed}, its header states {stated}"),
            (None, false) => format!("{stated}, unchecked: its length is wrong, or not all of it can be read"),
        };
        writeln!(out, "  part at {}, offset {} ({:#x})", self.lsn, self.offset, self.offset)?;
        writeln!(out, "    kind      {}", self.kind)?;
        writeln!(out, "    length    {}", text::count(self.payload_bytes as u64, "byte"))?;
        writeln!(out, "    flags     {flags}")?;
        writeln!(out, "    timeline  {}", self.timeline)?;
        writeln!(out, "    CRC       {crc}")
    }
}

impl Report for Explanation {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "LSN       {}", self.lsn)?;
        let offset = self.offset;
        match &self.file {
            Some(file) => writeln!(out, "segment   {file}, number {}, offset {offset} ({offset:#x})", self.segment)?,
            None => writeln!(out, "segment   number {}, which is not there", self.segment)?,
        }
        writeln!(out, "here      {}", self.meaning)?;
        if let Some(record) = &self.record {
            match &record.end {
                Some(end) => writeln!(out, "record    {} to {end}", record.start)?,
                None => writeln!(out, "record    from {}; not whole", record.start)?,
            }
            if record.parts.is_empty() {
                writeln!(out, "  no header: zeros, or nothing")?;
            }
            for part in &record.parts {
                part.write_text(out)?;
            }
        }
        Neighbour::write_text(self.before.as_ref(), "before", out)?;
        Neighbour::write_text(self.after.as_ref(), "after", out)?;
        match (&self.oldest, &self.end) {
            (None, _) => {}
            (Some(oldest), Some(end)) => writeln!(out, "log       from {oldest} to {end}")?,
            (Some(oldest), None) => writeln!(out, "log       from {oldest} on; where it ends is unknown")?,
        }
        self.findings.write_text(out)
    }
}
