//! `wal retention`: which segments are kept, and by whom.
//!
//! The library decides ([`retention::decide`]), as it does for a running node, by what the files alone can tell: where
//! the log ends, the last checkpoint, and the setting `wal.keep_bytes`, which is not in the files. Readers, slots and
//! the archive hold the log only while a node runs.

use std::io::{self, Write};

use mainstay::wal::retention::{self, Facts};
use serde::Serialize;

use super::{Exit, Findings, Report, text};
use crate::directory::{DataDirectory, Survey};

/// What `wal retention` shows.
#[derive(Debug, Serialize)]
pub struct Retention {
    segments: Vec<Kept>,
    /// Unknown if RocksDB cannot be read.
    checkpoint: Option<String>,
    /// Unknown if the log is damaged: then nothing is ever recycled.
    end: Option<String>,
    keep_bytes: u64,
    /// What the next checkpoint at the latest would take out.
    needed_by_nobody_bytes: u64,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
struct Kept {
    file: String,
    number: u64,
    /// Whoever keeps most first; empty if it may go, unknown if the log is damaged or RocksDB cannot be read.
    kept_by: Option<Vec<String>>,
    explanation: String,
}

/// Says of each segment who keeps it.
///
/// # Errors
/// A file cannot be read or belongs elsewhere.
pub fn retention(directory: &DataDirectory, keep_bytes: u64) -> anyhow::Result<Retention> {
    let (layout, timeline, segments) = (directory.layout(), directory.segments.timeline(), directory.segments.list()?);
    let mut findings = Findings::of(directory);
    directory.missing(&segments).iter().for_each(|damage| findings.add(damage));
    let survey = directory.survey()?;
    if let Survey::Damaged(damage) = &survey {
        findings.add(damage);
    }
    let (checkpoint, end) = (directory.notes.as_ref().ok().map(|notes| notes.checkpoint), survey.known_end());
    let decision = checkpoint.zip(end).map(|(checkpoint, durable)| {
        let holders = &[];
        let segments = &segments;
        retention::decide(&Facts { layout, segments, checkpoint, durable, keep_bytes, max_retained_bytes: 0, holders })
    });
    let explain = |number| match &decision {
        Some(decision) => decision.explain(number),
        None if end.is_none() => "kept: the log is damaged".to_owned(),
        None => "kept: the checkpoint is unknown".to_owned(),
    };
    let kept = segments.iter().map(|number| Kept {
        file: layout.file_name(timeline, *number),
        number: number.0,
        kept_by: decision.as_ref().map(|decision| decision.keepers(*number).map(ToString::to_string).collect()),
        explanation: explain(*number),
    });
    let recyclable = decision.as_ref().map_or(0, |decision| decision.recyclable().len() as u64);
    Ok(Retention {
        segments: kept.collect(),
        checkpoint: checkpoint.map(|lsn| lsn.to_string()),
        end: end.map(|lsn| lsn.to_string()),
        keep_bytes,
        needed_by_nobody_bytes: recyclable * layout.segment_bytes(),
        findings,
    })
}

impl Report for Retention {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let known = |lsn: &Option<String>| lsn.clone().unwrap_or("unknown".to_owned());
        let keep = text::size(self.keep_bytes);
        writeln!(out, "log ends at {}, checkpoint {}, keep_bytes {keep}\n", known(&self.end), known(&self.checkpoint))?;
        for Kept { file, explanation, .. } in &self.segments {
            writeln!(out, "{file}  {explanation}")?;
        }
        let count = text::count(self.segments.len() as u64, "segment");
        writeln!(out, "{count}; {} needed by nobody", text::size(self.needed_by_nobody_bytes))?;
        writeln!(out, "A running node may keep more, for readers, slots and the archive.")?;
        self.findings.write_text(out)
    }
}
