//! `raft log`: the entries of a log, written as they are read, so that memory is bounded by the largest one.

use std::io::Write;
use std::ops::ControlFlow;

use anyhow::bail;
use mainstay::ident::{GroupId, LogIndex};
use mainstay::raftstore::entry::{Entry, EntryKind};
use mainstay::raftstore::rocks::{RocksView, StoredEntry};
use serde::Serialize;

use super::{Exit, Findings, load, text, write_findings};
use crate::directory::DataDirectory;

/// Which entries, and how much of them.
#[derive(Debug)]
pub struct LogWanted {
    pub group: GroupId,
    /// The first; without it, the oldest.
    pub from: Option<LogIndex>,
    /// How many at most.
    pub limit: u64,
    /// Whether to show what is in them: a user's data, which nobody sees by accident.
    pub payload: bool,
}

/// Why it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Stop {
    /// As many entries as wanted were shown; more follow.
    Limit,
    /// The log ends here.
    End,
    /// RocksDB cannot be read.
    Error,
}

#[derive(Serialize)]
struct EntryLine {
    index: u64,
    /// The rest is absent if it is damaged.
    #[serde(flatten)]
    known: Option<Known>,
}

#[derive(Serialize)]
struct Known {
    term: u64,
    kind: &'static str,
    data_bytes: usize,
    context_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_hex: Option<String>,
}

/// What follows the entries.
#[derive(Serialize)]
struct Trailer {
    shown: u64,
    /// The entry to go on with; absent at the end.
    next: Option<u64>,
    stopped_by: Stop,
    /// What could not be read, if that stopped it.
    error: Option<String>,
    #[serde(flatten)]
    findings: Findings,
}

/// Writes the entries of a log.
///
/// # Errors
/// There is no such group or no such entry, RocksDB failed, or the output cannot be written. Once entries were
/// written, what cannot be read is part of the document.
pub fn raft_log(
    directory: &DataDirectory,
    wanted: &LogWanted,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let mut findings = Findings::of(directory);
    let Some(view) = &directory.raft else {
        let mut printer = Printer { json, payload: false, out, shown: 0 };
        printer.begin(wanted.group)?;
        return printer.finish(Trailer { shown: 0, next: None, stopped_by: Stop::Error, error: None, findings });
    };
    let known = findings.damage.len();
    match load(view, wanted.group, &mut findings)? {
        Some(stored) if wanted.from.is_some_and(|from| from > stored.last.index) && findings.damage.len() == known => {
            let from = wanted.from.unwrap_or_default();
            bail!("no entry at or behind {from}: the log of group {} ends at {}", wanted.group, stored.last.index);
        }
        None if findings.damage.len() == known => bail!("there is no group {}", wanted.group),
        _ => {}
    }
    dump(view, wanted, json, out, findings)
}

fn dump(
    view: &RocksView,
    wanted: &LogWanted,
    json: bool,
    out: &mut dyn Write,
    mut findings: Findings,
) -> anyhow::Result<Exit> {
    let mut printer = Printer { json, payload: wanted.payload, out, shown: 0 };
    printer.begin(wanted.group)?;
    let (mut next, mut failure) = (None, None);
    let visited = view.visit_log(wanted.group, wanted.from.unwrap_or_default(), |entry| {
        let (index, entry, damage) = match entry {
            StoredEntry::Whole(entry) => (entry.index(), Some(entry), None),
            StoredEntry::Damaged(index, error) => (index, None, Some(error)),
        };
        if printer.shown == wanted.limit {
            next = Some(index.get());
            return ControlFlow::Break(());
        }
        let shown = damage.map_or(Ok(()), |error| findings.add_stored(error));
        match shown.and_then(|()| printer.entry(index, entry.as_ref())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    let error = visited.err().map(|error| {
        let text = error.to_string();
        // What is no damage stands in the text alone.
        drop(findings.add_stored(error));
        text
    });
    let stopped_by = match (&error, next) {
        (Some(_), _) => Stop::Error,
        (None, Some(_)) => Stop::Limit,
        (None, None) => Stop::End,
    };
    let shown = printer.shown;
    printer.finish(Trailer { shown, next, stopped_by, error, findings })
}

/// Writes the two forms piece by piece.
struct Printer<'a> {
    json: bool,
    payload: bool,
    out: &'a mut dyn Write,
    shown: u64,
}

impl Printer<'_> {
    fn begin(&mut self, group: GroupId) -> anyhow::Result<()> {
        if self.json {
            write!(self.out, "{{\n  \"group\": {group},\n  \"entries\": [")?;
        } else {
            writeln!(self.out, "{:>10}  {:>8}  {:<11}  {:>10}", "index", "term", "kind", "bytes")?;
        }
        Ok(())
    }

    fn entry(&mut self, index: LogIndex, entry: Option<&Entry>) -> anyhow::Result<()> {
        let line = EntryLine { index: index.get(), known: entry.map(|entry| Known::of(entry, self.payload)) };
        if self.json {
            write!(self.out, "{}\n    ", if self.shown == 0 { "" } else { "," })?;
            serde_json::to_writer(&mut *self.out, &line)?;
        } else {
            match &line.known {
                None => write!(self.out, "{index:>10}  damaged, see below")?,
                Some(Known { term, kind, data_bytes, context_bytes, .. }) => {
                    write!(self.out, "{index:>10}  {term:>8}  {kind:<11}  {:>10}", data_bytes + context_bytes)?;
                }
            }
            for hex in line.known.iter().flat_map(|known| [&known.context_hex, &known.data_hex]).flatten() {
                write!(self.out, "  {}", if hex.is_empty() { "-" } else { hex })?;
            }
            writeln!(self.out)?;
        }
        self.shown += 1;
        Ok(())
    }

    fn finish(self, trailer: Trailer) -> anyhow::Result<Exit> {
        let exit = match trailer.findings.exit() {
            Exit::Clean if trailer.error.is_some() => Exit::Unreadable,
            exit => exit,
        };
        if self.json {
            let rest = serde_json::to_string_pretty(&trailer)?;
            // Without its opening brace: the trailer's fields go on in the document that `begin` opened.
            let rest = rest.strip_prefix('{').unwrap_or(&rest);
            let close = if self.shown == 0 { "]," } else { "\n  ]," };
            writeln!(self.out, "{close}{rest}")?;
            return Ok(exit);
        }
        let shown = match trailer.shown {
            1 => "1 entry".to_owned(),
            shown => format!("{shown} entries"),
        };
        match trailer.next {
            Some(next) => writeln!(self.out, "{shown} shown; go on with --from {next}")?,
            None if trailer.stopped_by == Stop::Error => writeln!(self.out, "{shown}; cannot read on")?,
            None => writeln!(self.out, "{shown}; the log ends here")?,
        }
        if let Some(error) = &trailer.error {
            writeln!(self.out, "{error}")?;
        }
        write_findings(&trailer.findings, self.out)?;
        Ok(exit)
    }
}

impl Known {
    fn of(entry: &Entry, payload: bool) -> Known {
        let kind = match entry.kind() {
            EntryKind::Command => "command",
            EntryKind::ConfChange => "conf change",
        };
        Known {
            term: entry.term().get(),
            kind,
            data_bytes: entry.data().len(),
            context_bytes: entry.context().len(),
            data_hex: payload.then(|| text::hex(entry.data())),
            context_hex: payload.then(|| text::hex(entry.context())),
        }
    }
}
