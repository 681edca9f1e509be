//! `wal repair`: cuts the log where an operator says, and says first what that loses.
//!
//! The cut itself is the library's ([`Cut`]). Here is what has to change with it: what the node noted about the log
//! beyond the cut. A checkpoint there is moved back to where the log begins *before* anything is erased, for a start
//! would take it for the end of what it has to verify; a clean stop there is forgotten *after*, for until then it keeps
//! a node from starting on half a repair. Where there was none, one that nothing can meet is noted in its place: the
//! checkpoint may have been the only evidence that the log went on behind its damage, and without it a node whose
//! engine's files were moved away would take the damage for the log's end.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};
use mainstay::lsn::Lsn;
use mainstay::storage::{ENGINE_DIR, Storage, StorageError};
use mainstay::wal::{Cursor, Cut, Kind, SegmentNumber};
use serde::Serialize;

use super::{Exit, Report, text};
use crate::directory::{DataDirectory, Survey};
use crate::walk::{EVERYTHING, Met, Walk};

/// What `wal repair` shows.
#[derive(Debug, Serialize)]
pub struct Repair {
    /// Whether it was done.
    done: bool,
    cut_at: String,
    /// The segment in which the log ends then.
    file: String,
    offset: u64,
    lost: Lost,
    /// The highest position that anything says was durable, if that lies beyond the cut: acknowledged data is lost.
    known_durable: Option<Known>,
    /// The node's notes that are taken back.
    notes: NotesBeyond,
    engine: EngineAdvice,
    /// Where what was changed is kept; empty until it is done.
    copies: Vec<String>,
}

/// What lies behind the cut.
#[derive(Debug, Default, Serialize)]
struct Lost {
    records: u64,
    data_records: u64,
    data_payload_bytes: u64,
    /// Places where no whole record is, though some follow.
    damaged_places: u64,
    damaged_bytes: u64,
    /// From the cut to the last whole record's end.
    log_bytes: u64,
    segments_taken_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Known {
    lsn: String,
    by: String,
}

/// Where the node's notes lie beyond the cut.
#[derive(Debug, Serialize)]
struct NotesBeyond {
    checkpoint: Option<String>,
    clean_end: Option<String>,
}

/// What has to be done about the engine's own files.
#[derive(Debug, Serialize)]
struct EngineAdvice {
    directory: String,
    /// A checkpoint beyond the cut says so. If it is not known, they may still reach there.
    is_beyond_the_cut: bool,
    /// Whether the log alone can rebuild them.
    can_be_rebuilt: bool,
}

/// A cut, and what is to be said about it.
struct Plan {
    cut: Cut,
    report: Repair,
    /// The checkpoint to note instead of one beyond the cut.
    checkpoint: Option<Lsn>,
}

/// Says what a cut loses and, if it is confirmed, makes it.
///
/// # Errors
/// The log cannot be cut there, a node runs, RocksDB cannot be read, or a file cannot be written.
pub fn repair(directory: DataDirectory, cut_at: Lsn, is_confirmed: bool) -> anyhow::Result<Repair> {
    if let Err(error) = &directory.notes {
        bail!(
            "no node would start on this directory, however its log is repaired, for RocksDB cannot be read: {error}"
        );
    }
    let plan = plan(&directory, cut_at)?;
    if !is_confirmed {
        return Ok(plan.report);
    }
    let (path, segment_size_bytes) = (directory.path.clone(), directory.identity.segment_size_bytes);
    // Our shared locks would be in the way of our own.
    drop((plan, directory));
    let storage = Storage::open(&path, segment_size_bytes).context("nothing was changed")?;
    // A node may have run in between.
    let directory = DataDirectory::of(&path, &storage)?;
    carry_out(&storage, &directory, plan_again(&directory, cut_at)?)
}

fn plan_again(directory: &DataDirectory, cut_at: Lsn) -> anyhow::Result<Plan> {
    plan(directory, cut_at).context("the directory has changed meanwhile")
}

fn carry_out(storage: &Storage, directory: &DataDirectory, plan: Plan) -> anyhow::Result<Repair> {
    let Plan { cut, mut report, checkpoint } = plan;
    let at = cut.at();
    let kept = cut.keep().context("cannot make the copies; the log is as it was")?;
    let interrupted = "the repair is not finished: run it again";
    let is_guarded = move_checkpoint(storage, &report.notes, checkpoint).context(interrupted)?;
    let erased = kept.erase().context(interrupted)?;
    if is_guarded {
        storage.forget_clean_end().context(interrupted)?;
    }
    let copies = erased.finish().context(interrupted)?;
    report.copies = copies.iter().map(|path| path.display().to_string()).collect();
    report.done = true;
    match DataDirectory::of(&directory.path, storage)?.survey()? {
        Survey::Whole(scan) if scan.end() == at => Ok(report),
        Survey::Whole(scan) => bail!("the log was cut at {at}, and yet it ends at {}", scan.end()),
        Survey::Damaged(damage) => bail!("the log was cut at {at}, and yet no node will start on it: {damage}"),
    }
}

/// Moves a checkpoint beyond the cut back to `to`; answers whether a note of a clean stop keeps nodes from starting on
/// half a repair.
fn move_checkpoint(storage: &Storage, notes: &NotesBeyond, to: Option<Lsn>) -> Result<bool, StorageError> {
    if let Some(to) = to {
        if notes.clean_end.is_none() {
            // Records end at multiples of eight: no log ends here, though one that is whole may well reach further.
            storage.note_clean_end(storage.checkpoint()?.advanced(1))?;
        }
        storage.note_checkpoint(to)?;
    }
    Ok(to.is_some() || notes.clean_end.is_some())
}

fn plan(directory: &DataDirectory, cut_at: Lsn) -> anyhow::Result<Plan> {
    let (layout, timeline) = (directory.layout(), directory.segments.timeline());
    let (checkpoint, clean_end) = match &directory.notes {
        Ok(notes) => (notes.checkpoint, notes.clean_end),
        Err(_) => (Lsn::NONE, None),
    };
    let cut = Cut::find(directory.segments.clone(), checkpoint, cut_at)?;
    let at = cut.at();
    let name = |number: &SegmentNumber| layout.file_name(timeline, *number);
    let mut lost = lost(directory, at)?;
    lost.segments_taken_out = cut.later().iter().map(name).collect();
    let beyond = |lsn: Lsn| (lsn > at).then(|| lsn.to_string());
    let notes = NotesBeyond { checkpoint: beyond(checkpoint), clean_end: clean_end.and_then(beyond) };
    let engine = EngineAdvice {
        directory: directory.path.join(ENGINE_DIR).display().to_string(),
        is_beyond_the_cut: checkpoint > at,
        can_be_rebuilt: cut.oldest() == layout.first_record(),
    };
    let new_checkpoint = (checkpoint > at).then(|| cut.oldest());
    let report = Repair {
        done: false,
        cut_at: at.to_string(),
        file: name(&cut.last()),
        offset: at.bytes_since(layout.segment_start(cut.last())),
        lost,
        known_durable: known_durable(&cut, checkpoint, clean_end)?,
        notes,
        engine,
        copies: Vec::new(),
    };
    Ok(Plan { cut, report, checkpoint: new_checkpoint })
}

/// What says that the log was durable beyond the cut, the highest of them.
fn known_durable(cut: &Cut, checkpoint: Lsn, clean_end: Option<Lsn>) -> anyhow::Result<Option<Known>> {
    let mark = cut.highest_mark()?.map(|(at, stated)| (stated, format!("a mark at {at}")));
    let known = [
        mark,
        Some((checkpoint, "the node's note of a checkpoint".into())),
        clean_end.map(|lsn| (lsn, "the node's note of a clean stop".into())),
    ];
    let highest = known.into_iter().flatten().max_by_key(|(lsn, _)| *lsn).filter(|(lsn, _)| *lsn > cut.at());
    Ok(highest.map(|(lsn, by)| Known { lsn: lsn.to_string(), by }))
}

/// Reads what lies behind the cut.
fn lost(directory: &DataDirectory, at: Lsn) -> anyhow::Result<Lost> {
    let mut lost = Lost::default();
    let mut walk = Walk::new(directory, Cursor::new(directory.segments.clone(), at), EVERYTHING, true);
    loop {
        match walk.next()? {
            Met::Record(record) => {
                lost.records += 1;
                if record.kind == Kind::Data {
                    lost.data_records += 1;
                    lost.data_payload_bytes += record.payload.len() as u64;
                }
                lost.log_bytes = record.end.bytes_since(at);
            }
            Met::Gap(gap) => match gap.skipped() {
                Some(skipped) => {
                    lost.damaged_places += 1;
                    lost.damaged_bytes += skipped.bytes;
                }
                None => return Ok(lost),
            },
            Met::End => return Ok(lost),
        }
    }
}

impl Report for Repair {
    fn exit(&self) -> Exit {
        // Not done: for scripts, that is no success.
        if self.done { Exit::Clean } else { Exit::Unreadable }
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Repair { file, offset, lost, .. } = self;
        let (ends, is) = if self.done { ("ends", "was") } else { ("would end", "would be") };
        writeln!(out, "The log {ends} at {}: {file}, offset {offset} ({offset:#x}).", self.cut_at)?;
        writeln!(out, "\nWhat {is} lost")?;
        let payload = text::size(lost.data_payload_bytes);
        let others = lost.records - lost.data_records;
        writeln!(out, "  records   {} of data with {payload}, {others} of other kinds", lost.data_records)?;
        if lost.damaged_places > 0 {
            let places = text::count(lost.damaged_places, "damaged place");
            writeln!(out, "            {places} between them, {}", text::size(lost.damaged_bytes))?;
        }
        writeln!(out, "  log       {}", text::size(lost.log_bytes))?;
        let count = text::count(lost.segments_taken_out.len() as u64, "segment");
        writeln!(out, "  segments  {count} behind the cut")?;
        for name in &lost.segments_taken_out {
            writeln!(out, "            {name}")?;
        }
        for (name, lsn) in [("checkpoint", &self.notes.checkpoint), ("clean stop", &self.notes.clean_end)] {
            if let Some(lsn) = lsn {
                writeln!(out, "  note      of a {name} at {lsn}")?;
            }
        }
        self.write_acknowledged(out)?;
        self.engine.write_text(out)?;
        if !self.done {
            return writeln!(out, "\nNothing was changed. To do this, run it again with --yes.");
        }
        writeln!(out, "\nWhat was changed is kept in")?;
        self.copies.iter().try_for_each(|path| writeln!(out, "  {path}"))
    }
}

impl Repair {
    fn write_acknowledged(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.known_durable {
            Some(Known { lsn, by }) => {
                writeln!(out, "\nACKNOWLEDGED DATA {} LOST", if self.done { "IS" } else { "WOULD BE" })?;
                writeln!(
                    out,
                    "The log was durable up to {lsn}, says {by}. Clients were told that what lies between the"
                )?;
                writeln!(out, "cut and there is committed. If another copy of this data exists, use that instead.")
            }
            None if self.lost.records > 0 => {
                writeln!(
                    out,
                    "\nNothing says that this was acknowledged. It may have been: of the very last flush, the"
                )?;
                writeln!(out, "log itself does not know.")
            }
            None => writeln!(out, "\nNothing that was acknowledged is known to lie there."),
        }
    }
}

impl EngineAdvice {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let EngineAdvice { directory, .. } = self;
        let what = match Path::new(directory).exists() {
            false => return Ok(()),
            true if self.is_beyond_the_cut => {
                "The engine's files reach beyond the cut: the node will not start on them."
            }
            true => {
                "The engine's files may reach beyond the cut; only the engine knows. If so, the node will not start on \
                 them, and say so."
            }
        };
        writeln!(out, "\n{what}")?;
        match self.can_be_rebuilt {
            true => writeln!(
                out,
                "Then move {directory} away: the engine is rebuilt from the log, which reaches back to its start."
            ),
            false => writeln!(
                out,
                "Then the engine has to be seeded anew, from a backup or another node: the log does not reach back to its \
                 start, so that it cannot rebuild {directory}."
            ),
        }
    }
}

#[cfg(test)]
#[path = "repair_test.rs"]
mod tests;
