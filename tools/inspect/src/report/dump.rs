//! `wal dump`: the records, written as they are read, so that memory is bounded by the largest one.

use std::io::Write;

use anyhow::bail;
use mainstay::lsn::Lsn;
use mainstay::wal::{AnyRecord, Cursor, Kind, Step, WalError, decode_mark};
use serde::Serialize;

use super::{Exit, Findings, text};
use crate::directory::{DataDirectory, Survey};
use crate::walk::{EVERYTHING, Gap, Met, Skipped, Walk};

/// How much of a payload is shown.
const GLIMPSE_BYTES: usize = 16;

/// Where to start.
struct Start {
    cursor: Cursor,
    /// What was asked for, if no record starts there.
    moved_from: Option<Lsn>,
}

/// Why the dump stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Stop {
    /// As many records as wanted were shown; more may follow.
    Limit,
    /// The log ends here.
    End,
    /// No whole record is here, but should be.
    Damage,
    /// No record is here; the log is damaged before, so that nobody knows whether it ends here.
    Nothing,
    /// The file cannot be read.
    Error,
}

#[derive(Serialize)]
struct RecordLine {
    start: String,
    end: String,
    kind: &'static str,
    payload_bytes: usize,
    /// For a mark: the LSN known durable when it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<String>,
    /// The first bytes of the payload.
    payload_head_hex: String,
}

/// What follows the records.
#[derive(Serialize)]
struct Trailer {
    shown: u64,
    /// Where the next record starts, or would.
    next: String,
    stopped_by: Stop,
    torn_tail_bytes: Option<u64>,
    /// What was passed over, with `--continue`.
    skipped: Vec<Skipped>,
    /// What could not be read, if that stopped it.
    error: Option<String>,
    #[serde(flatten)]
    findings: Findings,
}

/// What to dump.
pub struct DumpWanted {
    /// Where to start; without it, at the oldest record.
    pub from: Option<Lsn>,
    /// How many records at most.
    pub limit: u64,
    /// Whether to go on behind damage.
    pub go_on: bool,
}

/// Writes the records that are wanted.
///
/// # Errors
/// There is nothing at `from`, a file cannot be read, or the output cannot be written. Once records were written,
/// what cannot be read is part of the document.
pub fn dump(directory: &DataDirectory, wanted: &DumpWanted, json: bool, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let survey = directory.survey()?;
    // Asked before anything is written, for an error would come too late.
    let torn_tail_bytes = match &survey {
        Survey::Whole(scan) => Some(scan.torn_bytes()?),
        Survey::Damaged(_) => None,
    };
    let start = locate(directory, &survey, wanted.from)?;
    let mut walk = Walk::new(directory, start.cursor, survey.end(), wanted.go_on);
    let mut printer = Printer { json, out, shown: 0 };
    printer.begin(walk.position(), start.moved_from, survey.known_end())?;
    let (mut findings, mut skipped, mut error) = (Findings::of(directory), Vec::new(), None);
    let stopped_by = loop {
        if printer.shown == wanted.limit {
            break Stop::Limit;
        }
        match walk.next() {
            Ok(Met::Record(record)) => printer.record(&record)?,
            Ok(Met::End) => break Stop::End,
            Ok(Met::Gap(gap)) if survey.leaves_open(&gap) => break Stop::Nothing,
            Ok(Met::Gap(gap)) => {
                printer.gap(&gap)?;
                skipped.extend(gap.skipped());
                let is_last = gap.to.is_none();
                findings.add(&survey.explained(gap.damage));
                if is_last {
                    break Stop::Damage;
                }
            }
            Err(cause) => {
                error = Some(cause.to_string());
                break Stop::Error;
            }
        }
    };
    if let Survey::Damaged(damage) = &survey {
        findings.add(damage);
    }
    let exit = match findings.exit() {
        Exit::Clean if error.is_some() => Exit::Unreadable,
        exit => exit,
    };
    let next = walk.position().to_string();
    let trailer = Trailer { shown: printer.shown, next, stopped_by, torn_tail_bytes, skipped, error, findings };
    printer.finish(&trailer)?;
    Ok(exit)
}

/// Finds the record to start with.
fn locate(directory: &DataDirectory, survey: &Survey, from: Option<Lsn>) -> anyhow::Result<Start> {
    let layout = directory.layout();
    let oldest = match (survey, directory.segments.list()?.first()) {
        (Survey::Whole(scan), _) => scan.oldest(),
        (Survey::Damaged(_), Some(first)) => layout.first_record_in(*first),
        (Survey::Damaged(_), None) => layout.first_record(),
    };
    let wanted = from.unwrap_or(oldest);
    if let Survey::Whole(scan) = survey
        && wanted > scan.end()
    {
        bail!("no record at or behind {wanted}: the log ends at {}", scan.end());
    }
    // Whoever names a record gets it, also behind damage.
    if wanted > oldest && starts_record(directory, wanted)? {
        return Ok(Start { cursor: Cursor::new(directory.segments.clone(), wanted), moved_from: None });
    }
    let segment = layout.segment_of(wanted.max(oldest));
    let mut cursor = Cursor::new(directory.segments.clone(), layout.first_record_in(segment));
    match walk_to(&mut cursor, wanted) {
        // Damage on the way is met again, and reported, when the dump starts.
        Ok(()) => {}
        Err(error) => drop(error.into_damage()?),
    }
    let moved = from.is_some_and(|from| from != cursor.position());
    Ok(Start { cursor, moved_from: from.filter(|_| moved) })
}

/// Moves to the first record that starts at `wanted` or behind it, if nothing is in the way.
fn walk_to(cursor: &mut Cursor, wanted: Lsn) -> Result<(), WalError> {
    cursor.skip_continued(EVERYTHING)?;
    while cursor.position() < wanted && matches!(cursor.next(EVERYTHING)?, Step::Record(_)) {}
    Ok(())
}

fn starts_record(directory: &DataDirectory, lsn: Lsn) -> Result<bool, WalError> {
    if directory.layout().record_start(lsn) != lsn {
        return Ok(false);
    }
    match Cursor::new(directory.segments.clone(), lsn).next(EVERYTHING) {
        Ok(step) => Ok(matches!(step, Step::Record(_))),
        Err(error) => error.into_damage().map(|_| false),
    }
}

/// Writes the two forms piece by piece.
struct Printer<'a> {
    json: bool,
    out: &'a mut dyn Write,
    shown: u64,
}

impl Printer<'_> {
    fn begin(&mut self, start: Lsn, moved_from: Option<Lsn>, end: Option<Lsn>) -> anyhow::Result<()> {
        if self.json {
            let from = moved_from.unwrap_or(start).to_string();
            // Digits, and a slash: nothing to escape.
            write!(self.out, "{{\n  \"from\": \"{from}\",\n  \"start\": \"{start}\",\n  \"records\": [")?;
            return Ok(());
        }
        if let Some(from) = moved_from {
            match end == Some(start) {
                true => writeln!(self.out, "no record starts at {from} or behind it: the log ends at {start}")?,
                false => writeln!(self.out, "no record starts at {from}; the next one is at {start}")?,
            }
        }
        let line = ["start", "end", "kind", "length", "payload"];
        writeln!(self.out, "{:<12}  {:<12}  {:<10}  {:>10}  {}", line[0], line[1], line[2], line[3], line[4])?;
        Ok(())
    }

    fn record(&mut self, record: &AnyRecord) -> anyhow::Result<()> {
        let durable = Some(record).filter(|record| record.kind == Kind::Mark);
        let durable = durable.and_then(|record| decode_mark(&record.payload)).map(|lsn| lsn.to_string());
        let head = record.payload.get(..GLIMPSE_BYTES).unwrap_or(&record.payload);
        let (start, end) = (record.start.to_string(), record.end.to_string());
        let (kind, payload_bytes) = (record.kind.name(), record.payload.len());
        if self.json {
            let payload_head_hex = text::hex(head);
            let line = RecordLine { start, end, kind, payload_bytes, durable, payload_head_hex };
            write!(self.out, "{}\n    ", if self.shown == 0 { "" } else { "," })?;
            serde_json::to_writer(&mut *self.out, &line)?;
        } else {
            let shown = match durable {
                Some(durable) => format!("durable up to {durable}"),
                None => {
                    let more = if head.len() < payload_bytes { "…" } else { "" };
                    format!("{:<32}  |{}|{more}", text::hex(head), text::ascii(head))
                }
            };
            writeln!(self.out, "{start:<12}  {end:<12}  {kind:<10}  {payload_bytes:>10}  {shown}")?;
        }
        self.shown += 1;
        Ok(())
    }

    /// In JSON, it is a part of what follows the records.
    fn gap(&mut self, gap: &Gap) -> anyhow::Result<()> {
        if !self.json && gap.to.is_some() {
            writeln!(self.out, "-- {}", gap.line())?;
        }
        Ok(())
    }

    fn finish(&mut self, trailer: &Trailer) -> anyhow::Result<()> {
        if self.json {
            let rest = serde_json::to_string_pretty(trailer)?;
            // Without its opening brace: the trailer's fields go on in the document that `begin` opened.
            let rest = rest.strip_prefix('{').unwrap_or(&rest);
            let close = if self.shown == 0 { "]," } else { "\n  ]," };
            writeln!(self.out, "{close}{rest}")?;
            return Ok(());
        }
        let (shown, next) = (text::count(trailer.shown, "record"), &trailer.next);
        match trailer.stopped_by {
            Stop::Limit => writeln!(self.out, "{shown} shown; go on with --from {next}")?,
            Stop::End => match trailer.torn_tail_bytes {
                None | Some(0) => writeln!(self.out, "{shown}; the log ends at {next}")?,
                Some(bytes) => {
                    let torn = text::count(bytes, "byte");
                    writeln!(self.out, "{shown}; the log ends at {next}, before a torn tail of {torn}")?;
                }
            },
            Stop::Damage => writeln!(self.out, "{shown}; no whole record at {next}")?,
            Stop::Nothing => writeln!(self.out, "{shown}; nothing more at {next}")?,
            Stop::Error => writeln!(self.out, "{shown}; cannot read on at {next}")?,
        }
        if let Some(error) = &trailer.error {
            writeln!(self.out, "{error}")?;
        }
        Ok(trailer.findings.write_text(self.out)?)
    }
}
