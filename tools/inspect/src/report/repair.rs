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
use mainstay::wal::{Cursor, Cut, CutError, Kept, Kind, SegmentNumber};
use serde::Serialize;

use super::{Exit, text};
use crate::directory::{DataDirectory, Survey};
use crate::walk::{EVERYTHING, Met, Walk};

/// What is wanted of `wal repair`.
#[derive(Clone, Copy, Debug)]
pub struct RepairWanted {
    /// Where to cut.
    pub cut_at: Lsn,
    /// Whether to do it.
    pub is_confirmed: bool,
}

/// What `wal repair` shows before anything is changed.
#[derive(Debug, Serialize)]
struct Repair {
    /// Whether it is about to be done.
    #[serde(skip)]
    is_confirmed: bool,
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
}

/// What `wal repair` shows afterwards.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    done: bool,
    /// Where what was changed is kept.
    copies: Vec<KeptFile>,
    /// Why it was not done, though it was wanted.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct KeptFile {
    path: String,
    /// How many bytes of the original could not be read: zeros stand for them.
    unread_bytes: u64,
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
    /// Segments of which only the header is damaged.
    damaged_headers: Vec<DamagedHeader>,
    /// Segments that hold something else than zeros behind the cut, whether records or not.
    not_blank: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DamagedHeader {
    #[serde(skip)]
    number: SegmentNumber,
    file: String,
    /// Whole ones that start in it.
    records: u64,
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

/// Says what a cut loses and then, if it is confirmed, makes it.
///
/// # Errors
/// The log cannot be cut there, a node runs, RocksDB cannot be read, a file cannot be written, or the output before
/// anything was changed. As JSON, what fails after that is part of the document.
pub fn repair(directory: DataDirectory, wanted: RepairWanted, json: bool, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let RepairWanted { cut_at, is_confirmed } = wanted;
    if let Err(error) = &directory.notes {
        bail!(
            "no node would start on this directory, however its log is repaired, for RocksDB cannot be read: {error}"
        );
    }
    let plan = plan(&directory, cut_at)?;
    if !is_confirmed {
        begin(&plan.report, json, out)?;
        finish(&Outcome::default(), &plan.report, json, out)?;
        // Not done: for scripts, that is no success.
        return Ok(Exit::Unreadable);
    }
    let (path, segment_size_bytes) = (directory.path.clone(), directory.identity.segment_size_bytes);
    // Our shared locks would be in the way of our own.
    drop((plan, directory));
    let storage = Storage::open(&path, segment_size_bytes).context("nothing was changed")?;
    // A node may have run in between.
    let directory = DataDirectory::of(&path, &storage)?;
    let mut plan = plan_again(&directory, cut_at)?;
    plan.report.is_confirmed = true;
    begin(&plan.report, json, out)?;
    let report = plan.report;
    let outcome = match carry_out(&storage, &directory, plan.cut, &report, plan.checkpoint) {
        Ok(copies) => Outcome { done: true, copies, error: None },
        Err(error) if json => Outcome { error: Some(format!("{error:#}")), ..Outcome::default() },
        Err(error) => return Err(error),
    };
    finish(&outcome, &report, json, out)?;
    Ok(if outcome.done { Exit::Clean } else { Exit::Unreadable })
}

/// Writes what will be lost, and makes sure that it was written.
fn begin(report: &Repair, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        let document = serde_json::to_string_pretty(report)?;
        // Without its closing brace: `finish` goes on in the document.
        write!(out, "{}", document.strip_suffix("\n}").unwrap_or(&document))?;
    } else {
        report.write_text(out)?;
    }
    Ok(out.flush()?)
}

fn finish(outcome: &Outcome, report: &Repair, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        let rest = serde_json::to_string_pretty(outcome)?;
        return Ok(writeln!(out, ",{}", rest.strip_prefix('{').unwrap_or(&rest))?);
    }
    if !outcome.done {
        return Ok(writeln!(out, "\nNothing was changed. To do this, run it again with --yes.")?);
    }
    writeln!(out, "\nDone: the log ends at {}. What was changed is kept in", report.cut_at)?;
    for KeptFile { path, unread_bytes } in &outcome.copies {
        match unread_bytes {
            0 => writeln!(out, "  {path}")?,
            bytes => writeln!(
                out,
                "  {path}, but for {} that could not be read: zeros stand for them",
                text::count(*bytes, "byte")
            )?,
        }
    }
    Ok(())
}

fn plan_again(directory: &DataDirectory, cut_at: Lsn) -> anyhow::Result<Plan> {
    plan(directory, cut_at).context("the directory has changed meanwhile")
}

/// Makes the cut; answers what is kept.
fn carry_out(
    storage: &Storage,
    directory: &DataDirectory,
    cut: Cut,
    report: &Repair,
    checkpoint: Option<Lsn>,
) -> anyhow::Result<Vec<KeptFile>> {
    let at = cut.at();
    let kept = cut.keep().context("cannot make the copies; the log is as it was")?;
    let interrupted = "the repair is not finished: run it again";
    let is_guarded = move_checkpoint(storage, &report.notes, checkpoint).context(interrupted)?;
    let erased = kept.erase().context(interrupted)?;
    if is_guarded {
        storage.forget_clean_end().context(interrupted)?;
    }
    let copies = erased.finish().context(interrupted)?;
    let copies = copies.into_iter();
    let copies = copies.map(|Kept { path, unread_bytes }| KeptFile { path: path.display().to_string(), unread_bytes });
    match DataDirectory::of(&directory.path, storage)?.survey()? {
        Survey::Whole(scan) if scan.end() == at => Ok(copies.collect()),
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
    let cut = find(directory, checkpoint, cut_at)?;
    let at = cut.at();
    let name = |number: &SegmentNumber| layout.file_name(timeline, *number);
    let mut lost = lost(directory, at)?;
    lost.segments_taken_out = cut.later().iter().map(name).collect();
    lost.not_blank = cut.not_blank()?.iter().map(name).collect();
    let beyond = |lsn: Lsn| (lsn > at).then(|| lsn.to_string());
    let notes = NotesBeyond { checkpoint: beyond(checkpoint), clean_end: clean_end.and_then(beyond) };
    let engine = EngineAdvice {
        directory: directory.path.join(ENGINE_DIR).display().to_string(),
        is_beyond_the_cut: checkpoint > at,
        can_be_rebuilt: cut.oldest() == layout.first_record(),
    };
    let new_checkpoint = (checkpoint > at).then(|| cut.oldest());
    let report = Repair {
        is_confirmed: false,
        cut_at: at.to_string(),
        file: name(&cut.last()),
        offset: at.bytes_since(layout.segment_start(cut.last())),
        lost,
        known_durable: known_durable(&cut, checkpoint, clean_end)?,
        notes,
        engine,
    };
    Ok(Plan { cut, report, checkpoint: new_checkpoint })
}

/// Looks for the cut. Whoever cannot have it where he wants it hears what the nearest one would lose.
fn find(directory: &DataDirectory, checkpoint: Lsn, cut_at: Lsn) -> anyhow::Result<Cut> {
    let error = match Cut::find(directory.segments.clone(), checkpoint, cut_at) {
        Ok(cut) => return Ok(cut),
        Err(error) => error,
    };
    if let CutError::Behind { boundary, .. } = &error {
        let records = lost(directory, *boundary)?.records;
        if records > 0 {
            bail!("{error}, by which {} behind it would be lost", text::count(records, "whole record"));
        }
    }
    Err(error.into())
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
    let (layout, mut lost) = (directory.layout(), Lost::default());
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
                let number = layout.segment_of(record.start);
                if let Some(header) = lost.damaged_headers.last_mut().filter(|header| header.number == number) {
                    header.records += 1;
                }
            }
            Met::Gap(gap) => {
                let Some(skipped) = gap.skipped() else { return Ok(lost) };
                lost.damaged_places += 1;
                lost.damaged_bytes += skipped.bytes;
                let number = layout.segment_of(gap.damage.lsn);
                if gap.damage.lsn < layout.first_record_in(number) {
                    let file = layout.file_name(directory.segments.timeline(), number);
                    lost.damaged_headers.push(DamagedHeader { number, file, records: 0 });
                }
            }
            Met::End => return Ok(lost),
        }
    }
}

impl Repair {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Repair { file, offset, lost, .. } = self;
        let will = self.will();
        writeln!(out, "The log {will} end at {}: {file}, offset {offset} ({offset:#x}).", self.cut_at)?;
        writeln!(out, "\nWhat {will} be lost")?;
        let payload = text::size(lost.data_payload_bytes);
        let others = lost.records - lost.data_records;
        writeln!(out, "  records   {} of data with {payload}, {others} of other kinds", lost.data_records)?;
        if lost.damaged_places > 0 {
            let places = text::count(lost.damaged_places, "damaged place");
            writeln!(out, "            {places} between them, {}", text::size(lost.damaged_bytes))?;
        }
        for DamagedHeader { file, records, .. } in lost.damaged_headers.iter().filter(|header| header.records > 0) {
            let records = text::count(*records, "whole record");
            writeln!(out, "  header    of {file} is damaged; {records} start behind it, and no cut keeps them")?;
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
        self.engine.write_text(out)
    }

    fn will(&self) -> &'static str {
        if self.is_confirmed { "will" } else { "would" }
    }

    fn write_acknowledged(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.known_durable {
            Some(Known { lsn, by }) => {
                writeln!(out, "\nACKNOWLEDGED DATA {} BE LOST", self.will().to_uppercase())?;
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
            None if !self.lost.not_blank.is_empty() => {
                writeln!(
                    out,
                    "\nNo whole record lies there, but bytes that are something else, or cannot be read, in"
                )?;
                self.lost.not_blank.iter().try_for_each(|file| writeln!(out, "  {file}"))?;
                writeln!(out, "What they were, and whether it was acknowledged, nothing says.")
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
