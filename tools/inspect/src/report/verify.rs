//! `wal verify`: everything from the oldest segment on.
//!
//! Where the log ends, and whether what stops it is damage, is decided by [`scan_with`] with all evidence there is.
//! Behind damage it goes on at the next segment in which a record starts, so that one run names every damaged segment;
//! or, with `--continue`, at the next whole record, so that it names every damaged place.

use std::collections::BTreeSet;
use std::io::{self, Write};

use mainstay::disk::Access;
use mainstay::lsn::Lsn;
use mainstay::wal::{AnyRecord, Cursor, Damage, Kind, SegmentNumber, Step, WalError, scan_with};
use serde::Serialize;

use super::{Exit, Findings, Report, text};
use crate::directory::{DataDirectory, Survey};
use crate::walk::{EVERYTHING, Met, Skipped};

/// What `wal verify` shows.
#[derive(Debug, Serialize)]
pub struct Verification {
    segments: usize,
    /// Where the log begins; absent if there is no segment.
    oldest: Option<String>,
    /// Unknown if the log is damaged.
    end: Option<String>,
    torn_tail_bytes: Option<u64>,
    records: Vec<Tally>,
    /// Whether `--continue` would read whole records that were not read.
    is_partial: bool,
    /// What was passed over; only with `--continue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Vec<Skipped>>,
    #[serde(flatten)]
    findings: Findings,
}

/// Whole records of one kind.
#[derive(Debug, Serialize)]
struct Tally {
    kind: &'static str,
    count: u64,
    payload_bytes: u64,
}

/// Where the log ends and how many bytes of a torn tail follow, unless damage hides it.
type KnownEnd = Option<(Lsn, u64)>;

struct Verifier<'a> {
    directory: &'a DataDirectory,
    findings: Findings,
    tallies: Vec<Tally>,
    /// Whether whole records were not read, because they follow damage in the same segment.
    is_partial: bool,
}

/// Verifies the log; behind damage it goes on at the next segment or, if wanted, at the next record.
pub fn verify(directory: &DataDirectory, go_on: bool) -> anyhow::Result<Verification> {
    let numbers = directory.segments.list()?;
    let findings = Findings::of(directory);
    let mut verifier = Verifier { directory, findings, tallies: Vec::new(), is_partial: false };
    for damage in directory.missing(&numbers) {
        verifier.findings.add(&damage);
    }
    let (end, skipped) = match go_on {
        true => verifier.read_on().map(|(end, skipped)| (end, Some(skipped)))?,
        false => (verifier.read_runs(&numbers)?, None),
    };
    let (end, torn_tail_bytes) = end.unzip();
    // Those behind the end were not opened yet.
    for number in &numbers {
        if let Err(error) = directory.segments.open(*number, Access::Read) {
            verifier.findings.add_of_header(directory, end, *number, &error.into_damage()?);
        }
    }
    Ok(Verification {
        segments: numbers.len(),
        oldest: directory.oldest()?.map(|lsn| lsn.to_string()),
        end: end.map(|lsn: Lsn| lsn.to_string()),
        torn_tail_bytes,
        records: verifier.tallies,
        is_partial: verifier.is_partial,
        skipped,
        findings: verifier.findings,
    })
}

impl Verifier<'_> {
    /// Reads all segments; answers where the log ends, and how long its torn tail is, unless damage hides it.
    fn read_runs(&mut self, numbers: &BTreeSet<SegmentNumber>) -> Result<KnownEnd, WalError> {
        let runs = self.directory.runs(numbers);
        let (last_run, earlier) = match runs.split_last() {
            Some((last, earlier)) => (last.as_slice(), earlier),
            None => (&[][..], &[][..]),
        };
        for run in earlier {
            self.read_run(run)?;
        }
        self.read_last_run(last_run, earlier.is_empty())
    }

    /// Reads all records, also those behind damage in the same segment; answers the same, and what was passed over.
    fn read_on(&mut self) -> Result<(KnownEnd, Vec<Skipped>), WalError> {
        let survey = self.directory.survey()?;
        let (mut skipped, tallies) = (Vec::new(), &mut self.tallies);
        self.findings.add_of_whole_log(self.directory, &survey, &mut |met| match met {
            Met::Record(record) => count(tallies, record),
            Met::Gap(gap) => skipped.extend(gap.skipped()),
            Met::End => {}
        })?;
        let end = match &survey {
            Survey::Whole(scan) => Some((scan.end(), scan.torn_bytes()?)),
            Survey::Damaged(_) => None,
        };
        Ok((end, skipped))
    }

    /// Reads the segments before one that is missing. The log went on behind them, so they must be whole.
    fn read_run(&mut self, run: &[SegmentNumber]) -> Result<(), WalError> {
        let Some(end) = run.last().map(|last| self.directory.layout().segment_start(last.next())) else {
            return Ok(());
        };
        let mut rest = run;
        while let Some(mut cursor) = self.resume(&mut rest)? {
            let damage = loop {
                match cursor.next(EVERYTHING) {
                    Ok(Step::Record(record)) => count(&mut self.tallies, &record),
                    Ok(Step::Nothing(gap)) => break gap.damage,
                    Err(error) => break error.into_damage()?,
                }
            };
            // That the next segment is missing is known already.
            if damage.lsn < end {
                self.findings.add(&damage);
            }
            self.leave(&mut rest, &damage);
        }
        Ok(())
    }

    /// Reads the newest segments, in which the log ends; answers where, and how long its torn tail is, unless damage
    /// hides it.
    fn read_last_run(&mut self, run: &[SegmentNumber], is_only: bool) -> Result<KnownEnd, WalError> {
        let mut rest = run;
        // From the very beginning the scan itself finds where the first record starts.
        let mut from = if is_only { Some(Lsn::NONE) } else { self.resume(&mut rest)?.map(|cursor| cursor.position()) };
        let mut is_whole = true;
        while let Some(verify_from) = from {
            let (segments, evidence) = (self.directory.segments.clone(), self.directory.evidence(verify_from));
            match scan_with(segments, evidence, &mut |record| count(&mut self.tallies, record)) {
                Ok(scan) if is_whole => return Ok(Some((scan.end(), scan.torn_bytes()?))),
                Ok(_) => return Ok(None),
                Err(error) => {
                    let damage = error.into_damage()?;
                    is_whole = false;
                    self.findings.add(&damage);
                    self.leave(&mut rest, &damage);
                }
            }
            from = self.resume(&mut rest)?.map(|cursor| cursor.position());
        }
        Ok(None)
    }

    /// Leaves out the segments up to the one that is damaged, and notes whether whole records follow in it.
    fn leave(&mut self, rest: &mut &[SegmentNumber], damage: &Damage) {
        let layout = self.directory.layout();
        let damaged = layout.segment_of(damage.lsn);
        let from = layout.first_record_in(damaged).max(damage.lsn);
        let behind = if damage.lsn < from { from } else { from.advanced(1) };
        let mut cursor = Cursor::new(self.directory.segments.clone(), from);
        let found = cursor.resynchronise(behind, layout.segment_start(damaged.next()));
        // Only a hint hangs on it.
        self.is_partial |= matches!(found, Ok(Some(_)));
        let behind = rest.iter().position(|number| *number > damaged).unwrap_or(rest.len());
        // Always on, whatever the damage says of itself.
        *rest = rest.get(behind.max(1)..).unwrap_or(&[]);
    }

    /// A cursor at the first record that starts in the first of these segments, or, while those are damaged where they
    /// begin, in a later one.
    fn resume(&mut self, rest: &mut &[SegmentNumber]) -> Result<Option<Cursor>, WalError> {
        let layout = self.directory.layout();
        while let Some(number) = rest.first() {
            let mut cursor = Cursor::new(self.directory.segments.clone(), layout.first_record_in(*number));
            match cursor.skip_continued(EVERYTHING) {
                Ok(()) => return Ok(Some(cursor)),
                Err(error) => {
                    let damage = error.into_damage()?;
                    self.findings.add(&damage);
                    self.leave(rest, &damage);
                }
            }
        }
        Ok(None)
    }
}

fn count(tallies: &mut Vec<Tally>, record: &AnyRecord) {
    let (kind, bytes) = (Kind::name(record.kind), record.payload.len() as u64);
    match tallies.iter_mut().find(|tally| tally.kind == kind) {
        Some(tally) => {
            tally.count += 1;
            tally.payload_bytes += bytes;
        }
        None => tallies.push(Tally { kind, count: 1, payload_bytes: bytes }),
    }
}

impl Report for Verification {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let segments = text::count(self.segments as u64, "segment");
        match (&self.oldest, &self.end) {
            (None, _) if self.exit() == Exit::Damage => writeln!(out, "{segments}: the log is not there")?,
            (None, _) => writeln!(out, "{segments}: there is no log yet")?,
            (Some(oldest), Some(end)) => writeln!(out, "{segments}, from {oldest} to the log's end at {end}")?,
            (Some(oldest), None) => writeln!(out, "{segments}, from {oldest} on; where the log ends is unknown")?,
        }
        writeln!(out, "\n{:<13}  {:>10}  {:>14}", "whole records", "count", "payload bytes")?;
        for Tally { kind, count, payload_bytes } in &self.records {
            writeln!(out, "{kind:<13}  {count:>10}  {payload_bytes:>14}")?;
        }
        if let Some(bytes) = self.torn_tail_bytes.filter(|bytes| *bytes > 0) {
            let bytes = text::count(bytes, "byte");
            writeln!(out, "\ntorn tail: {bytes} behind the end, which the next start cuts")?;
            writeln!(out, "Nothing says that they were ever acknowledged.")?;
        }
        if let Some(skipped) = self.skipped.as_ref().filter(|skipped| !skipped.is_empty()) {
            writeln!(out, "\npassed over: {}, in", text::count(skipped.iter().map(|skip| skip.bytes).sum(), "byte"))?;
            for Skipped { from, to, bytes } in skipped {
                writeln!(out, "  {from:<12} to {to:<12} {bytes:>12}")?;
            }
        }
        self.findings.write_text(out)?;
        match self.exit() {
            Exit::Clean => writeln!(out, "\nno damage"),
            Exit::Damage => {
                let places = text::count(self.findings.damage.len() as u64, "damaged place");
                match self.skipped {
                    Some(_) => writeln!(out, "\n{places}; the whole records behind were read"),
                    None if self.is_partial => writeln!(
                        out,
                        "\n{places}; whole records that follow damage in the same segment were not read: --continue \
                         reads them"
                    ),
                    None => writeln!(out, "\n{places}"),
                }
            }
            Exit::Unreadable => writeln!(out, "\nno damage seen, but not all evidence could be read"),
        }
    }
}
