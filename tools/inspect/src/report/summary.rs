//! `summary`: whose directory it is, how the last stop was, how far the log reaches.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use mainstay::lsn::Lsn;
use mainstay::storage::{ENGINE_DIR, FORMAT_VERSION, META_DIR, WAL_DIR};
use serde::Serialize;

use super::raft::groups;
use super::{Exit, Findings, Report, text};
use crate::directory::{DataDirectory, Survey};

/// What `summary` shows.
#[derive(Debug, Serialize)]
pub struct Summary {
    directory: String,
    /// A string: JSON's numbers end before this one does.
    system_id: String,
    node_id: u64,
    format_version: u32,
    segment_size_bytes: u64,
    notes: Option<NotesSummary>,
    wal: WalSummary,
    /// Unknown if RocksDB cannot be read.
    raft_groups: Option<usize>,
    size_bytes: Sizes,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
struct NotesSummary {
    /// Absent before the first checkpoint.
    checkpoint: Option<String>,
    /// Where the log ended, if the last stop was clean.
    clean_end: Option<String>,
}

#[derive(Debug, Serialize)]
struct WalSummary {
    segments: usize,
    segments_bytes: u64,
    /// The rest is unknown if the log is damaged.
    oldest: Option<String>,
    reaches_start: Option<bool>,
    end: Option<String>,
    prepared_segments: Option<usize>,
    torn_tail_bytes: Option<u64>,
}

/// Lengths of all files; unknown where one cannot be looked at.
#[derive(Debug, Serialize)]
struct Sizes {
    meta: Option<u64>,
    wal: Option<u64>,
    engine: Option<u64>,
}

/// Sums up a directory.
pub fn summary(directory: &DataDirectory) -> anyhow::Result<Summary> {
    let mut findings = Findings::of(directory);
    let identity = directory.identity;
    let notes = directory.notes.as_ref().ok().map(|notes| NotesSummary {
        checkpoint: Some(notes.checkpoint).filter(|lsn| !lsn.is_none()).map(|lsn| lsn.to_string()),
        clean_end: notes.clean_end.map(|lsn| lsn.to_string()),
    });
    let wal = wal_summary(directory, &mut findings)?;
    let raft_groups = match &directory.raft {
        Some(view) => Some(groups(view, &mut findings)?.len()),
        None => None,
    };
    Ok(Summary {
        directory: directory.path.display().to_string(),
        system_id: identity.system.to_string(),
        node_id: identity.node.get(),
        // Another one would have been refused.
        format_version: FORMAT_VERSION,
        segment_size_bytes: identity.segment_size_bytes,
        notes,
        wal,
        raft_groups,
        size_bytes: Sizes {
            meta: size_of(&directory.path.join(META_DIR))?,
            wal: size_of(&directory.path.join(WAL_DIR))?,
            engine: size_of(&directory.path.join(ENGINE_DIR))?,
        },
        findings,
    })
}

fn wal_summary(directory: &DataDirectory, findings: &mut Findings) -> anyhow::Result<WalSummary> {
    let segments = directory.segments.list()?;
    directory.missing(&segments).iter().for_each(|damage| findings.add(damage));
    let mut summary = WalSummary {
        segments: segments.len(),
        segments_bytes: segments.len() as u64 * directory.layout().segment_bytes(),
        oldest: None,
        reaches_start: None,
        end: None,
        prepared_segments: None,
        torn_tail_bytes: None,
    };
    match directory.survey()? {
        Survey::Whole(scan) => {
            let last = directory.layout().segment_of(Lsn::new(scan.end().get() - 1));
            summary.oldest = Some(directory.oldest()?.unwrap_or(scan.oldest()).to_string());
            summary.reaches_start = Some(scan.reaches_start());
            summary.end = Some(scan.end().to_string());
            summary.prepared_segments = Some(segments.range(last.next()..).count());
            summary.torn_tail_bytes = Some(scan.torn_bytes()?);
        }
        Survey::Damaged(damage) => findings.add(&damage),
    }
    Ok(summary)
}

/// The length of all files below a directory, unless one cannot be looked at; 0 if it is not there.
fn size_of(directory: &Path) -> anyhow::Result<Option<u64>> {
    let mut total = 0;
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.with_context(|| format!("cannot list {}", path.display()))?,
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
            // Of the entry itself: a link is not followed.
            let Ok(metadata) = entry.metadata() else { return Ok(None) };
            if metadata.is_dir() {
                pending.push(entry.path());
            } else {
                total += metadata.len();
            }
        }
    }
    Ok(Some(total))
}

impl Report for Summary {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "data directory  {}", self.directory)?;
        writeln!(out, "system id       {}", self.system_id)?;
        writeln!(out, "node id         {}", self.node_id)?;
        writeln!(out, "format version  {}", self.format_version)?;
        if let Some(notes) = &self.notes {
            let checkpoint = notes.checkpoint.as_deref().unwrap_or("none yet");
            match &notes.clean_end {
                Some(end) => writeln!(out, "last stop       clean, at {end}")?,
                None => writeln!(out, "last stop       not clean: the next start recovers")?,
            }
            writeln!(out, "checkpoint      {checkpoint}")?;
        }
        self.wal.write_text(out, self.segment_size_bytes)?;
        if let Some(groups) = self.raft_groups {
            writeln!(out, "\nraft groups     {groups}")?;
        }
        let Sizes { meta, wal, engine } = self.size_bytes;
        writeln!(out, "\nfiles")?;
        for (name, bytes) in [(META_DIR, meta), (WAL_DIR, wal), (ENGINE_DIR, engine)] {
            let size = bytes.map_or("unknown".into(), text::size);
            writeln!(out, "  {:<14}{size}", format!("{name}/"))?;
        }
        self.findings.write_text(out)
    }
}

impl WalSummary {
    fn write_text(&self, out: &mut dyn Write, segment_size_bytes: u64) -> io::Result<()> {
        writeln!(out, "\nwrite-ahead log")?;
        let (one, all) = (text::size(segment_size_bytes), text::size(self.segments_bytes));
        let prepared = match self.prepared_segments {
            Some(0) | None => String::new(),
            Some(prepared) => format!("; {prepared} prepared ahead"),
        };
        writeln!(out, "  segments      {} of {one}, {all} in all{prepared}", self.segments)?;
        let (Some(oldest), Some(end)) = (&self.oldest, &self.end) else {
            return writeln!(out, "  end           unknown: the log is damaged, see below");
        };
        let reach =
            if self.reaches_start == Some(true) { "the log's very start" } else { "what was before is recycled" };
        writeln!(out, "  oldest        {oldest}, {reach}")?;
        writeln!(out, "  end           {end}")?;
        match self.torn_tail_bytes {
            Some(0) | None => writeln!(out, "  torn tail     none"),
            Some(bytes) => writeln!(out, "  torn tail     {}, which the next start cuts", text::count(bytes, "byte")),
        }
    }
}
