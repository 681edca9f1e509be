//! `wal list`: the segments.

use std::fs;
use std::io::{self, Write};

use mainstay::disk::Access;
use mainstay::lsn::Lsn;
use mainstay::wal::{SegmentNumber, WalError};
use serde::Serialize;

use super::{Exit, Findings, Report, text};
use crate::directory::{DataDirectory, Survey};

/// What `wal list` shows.
#[derive(Debug, Serialize)]
pub struct List {
    segments: Vec<Segment>,
    /// Unknown if the log is damaged.
    end: Option<String>,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
struct Segment {
    file: String,
    number: u64,
    first_lsn: String,
    state: State,
    /// Unknown in and behind damage.
    used_bytes: Option<u64>,
    /// Unknown if its file cannot be looked at.
    size_bytes: Option<u64>,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// The log goes on in the next one.
    Full,
    /// The log ends in it.
    Current,
    /// It lies behind the end.
    Prepared,
    /// Its header is not what must be there.
    DamagedHeader,
    /// Its header cannot be read.
    UnreadableHeader,
    /// It belongs to another system.
    Foreign,
    /// A later version wrote it.
    Newer,
    /// Something behind its header is not what must be there.
    Damaged,
    /// It lies behind damage, so that nobody knows where the log ends.
    Unknown,
}

impl State {
    /// That of a segment which cannot be opened.
    fn of(error: &WalError) -> State {
        match error {
            WalError::Unreadable { .. } => State::UnreadableHeader,
            WalError::Foreign { .. } => State::Foreign,
            WalError::Newer { .. } => State::Newer,
            _ => State::DamagedHeader,
        }
    }

    fn name(self) -> &'static str {
        match self {
            State::Full => "full",
            State::Current => "current",
            State::Prepared => "prepared",
            State::DamagedHeader => "damaged header",
            State::UnreadableHeader => "unreadable",
            State::Foreign => "foreign",
            State::Newer => "newer version",
            State::Damaged => "damaged",
            State::Unknown => "unknown",
        }
    }
}

/// Lists the segments.
pub fn list(directory: &DataDirectory) -> anyhow::Result<List> {
    let mut findings = Findings::of(directory);
    let numbers = directory.segments.list()?;
    directory.missing(&numbers).iter().for_each(|damage| findings.add(damage));
    let survey = directory.survey()?;
    if let Survey::Damaged(damage) = &survey {
        findings.add(damage);
    }
    let mut segments = Vec::new();
    for number in numbers {
        let state = match directory.segments.open(number, Access::Read) {
            Ok(_) => state(directory, &survey, number),
            Err(error) => {
                let state = State::of(&error);
                let is_unused = findings.add_of_header(directory, survey.known_end(), number, &error.into_damage()?);
                if is_unused { State::Prepared } else { state }
            }
        };
        segments.push(segment(directory, &survey, number, state));
    }
    let end = survey.known_end().map(|end| end.to_string());
    Ok(List { segments, end, findings })
}

/// What a segment with a whole header holds.
fn state(directory: &DataDirectory, survey: &Survey, number: SegmentNumber) -> State {
    match survey {
        Survey::Whole(scan) => {
            let last = directory.layout().segment_of(last_byte(scan.end()));
            match number.cmp(&last) {
                std::cmp::Ordering::Less => State::Full,
                std::cmp::Ordering::Equal => State::Current,
                std::cmp::Ordering::Greater => State::Prepared,
            }
        }
        Survey::Damaged(damage) => match number.cmp(&directory.layout().segment_of(damage.lsn)) {
            std::cmp::Ordering::Less => State::Full,
            std::cmp::Ordering::Equal => State::Damaged,
            std::cmp::Ordering::Greater => State::Unknown,
        },
    }
}

fn segment(directory: &DataDirectory, survey: &Survey, number: SegmentNumber, state: State) -> Segment {
    let layout = directory.layout();
    let path = directory.segments.segment_path(number);
    let used_bytes = match (state, survey) {
        (State::Full, _) => Some(layout.segment_bytes()),
        (State::Prepared, _) => Some(0),
        (State::Current, Survey::Whole(scan)) => Some(layout.offset_of(last_byte(scan.end())) + 1),
        _ => None,
    };
    Segment {
        file: layout.file_name(directory.segments.timeline(), number),
        number: number.0,
        first_lsn: layout.segment_start(number).to_string(),
        state,
        used_bytes,
        // Who cannot be asked for it cannot be opened, either, and that is named.
        size_bytes: fs::metadata(&path).map(|metadata| metadata.len()).ok(),
    }
}

/// The last position before the end, which is never 0/0: a log begins behind a header.
fn last_byte(end: Lsn) -> Lsn {
    Lsn::new(end.get().saturating_sub(1))
}

impl Report for List {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let (file, lsn) = ("file", "first LSN");
        writeln!(out, "{file:<24}  {:>8}  {lsn:<11}  {:<14}  {:>11}  {:>11}", "number", "state", "used", "size")?;
        for segment in &self.segments {
            let Segment { file, number, first_lsn, state, used_bytes, size_bytes } = segment;
            let [used, size] =
                [used_bytes, size_bytes].map(|bytes| bytes.map_or("?".into(), |bytes| bytes.to_string()));
            let state = state.name();
            writeln!(out, "{file}  {number:>8}  {first_lsn:<11}  {state:<14}  {used:>11}  {size:>11}")?;
        }
        let total = self.segments.iter().filter_map(|segment| segment.size_bytes).sum();
        let count = text::count(self.segments.len() as u64, "segment");
        match &self.end {
            Some(end) => writeln!(out, "{count}, {}; the log ends at {end}", text::size(total))?,
            None => writeln!(out, "{count}, {}; the log is damaged", text::size(total))?,
        }
        self.findings.write_text(out)
    }
}
