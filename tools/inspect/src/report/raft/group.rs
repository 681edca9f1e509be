//! `raft group`: everything that is stored of one group.

use std::io::{self, Write};
use std::ops::Bound;

use anyhow::bail;
use mainstay::ident::{GroupId, ReplicaId};
use mainstay::raftstore::log_store::{StoreError, StoredGroup, Table};
use mainstay::raftstore::rocks::{RocksView, StoredFill};
use serde::Serialize;

use super::groups::log_bytes;
use super::state::State;
use super::{Exit, Findings, Report, load, text, write_findings};
use crate::directory::DataDirectory;

/// Sessions that are counted: no group remembers as many.
const MAX_SESSIONS: usize = 100_000;

/// What `raft group` shows.
#[derive(Debug, Serialize)]
pub struct OneGroup {
    group: u64,
    /// Of the replica that is here. Absent if there is none, or a record is damaged.
    state: Option<State>,
    log: Option<Log>,
    /// One that was being filled when the node stopped. The next start removes it.
    snapshot: Option<Fill>,
    /// One that was taken over, and that a state machine which keeps its own position has yet to install. The next start does.
    install: Option<Install>,
    /// Clients whose last commands are remembered.
    sessions: Option<u64>,
    /// The last replica that was destroyed here: neither it nor an earlier one is made again.
    destroyed: Option<u64>,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
struct Log {
    /// Absent if it is empty.
    first: Option<u64>,
    last: u64,
    entries: u64,
    /// Data and context of all entries.
    bytes: u64,
    /// Committed, and not applied.
    unapplied: u64,
    /// Not known here to be committed.
    uncommitted: u64,
}

#[derive(Debug, Serialize)]
struct Fill {
    id: String,
    index: u64,
    term: u64,
    generation: u32,
}

#[derive(Debug, Serialize)]
struct Install {
    index: u64,
    term: u64,
}

/// Shows one group.
///
/// # Errors
/// There neither is nor was such a group, or RocksDB failed.
pub fn raft_group(directory: &DataDirectory, group: GroupId) -> anyhow::Result<OneGroup> {
    let findings = Findings::of(directory);
    let mut shown = OneGroup {
        group: group.get(),
        state: None,
        log: None,
        snapshot: None,
        install: None,
        sessions: None,
        destroyed: None,
        findings,
    };
    let Some(view) = &directory.raft else { return Ok(shown) };
    let known = shown.findings.damage.len();
    match view.tombstones() {
        Ok(tombstones) => shown.destroyed = tombstone(&tombstones, group),
        Err(error) => shown.findings.add_stored(error)?,
    }
    let undamaged = shown.findings.damage.len();
    match load(view, group, &mut shown.findings)? {
        Some(stored) => shown.add(view, group, stored)?,
        None if shown.destroyed.is_none() && shown.findings.damage.len() == undamaged && undamaged == known => {
            bail!("there is no group {group}, and none was destroyed here");
        }
        None => {}
    }
    Ok(shown)
}

fn tombstone(tombstones: &[(GroupId, ReplicaId)], group: GroupId) -> Option<u64> {
    tombstones.iter().find(|(other, _)| *other == group).map(|(_, replica)| replica.get())
}

impl OneGroup {
    fn add(&mut self, view: &RocksView, group: GroupId, stored: StoredGroup) -> anyhow::Result<()> {
        let (commit, applied) = (stored.hard_state.commit.get(), stored.applied.get());
        let (last, truncated) = (stored.last.index.get(), stored.truncated.index);
        let entries = last.saturating_sub(truncated.get());
        self.log = Some(Log {
            first: (entries > 0).then(|| truncated.next().get()),
            last,
            entries,
            bytes: log_bytes(view, group, &mut self.findings)?,
            unapplied: commit.saturating_sub(applied),
            uncommitted: last.saturating_sub(commit),
        });
        self.state = Some(State::of(group, stored, view.generation(group)?.unwrap_or_default()));
        self.snapshot = view.filling(group)?.map(|StoredFill { generation, id, position }| Fill {
            id: id.to_string(),
            index: position.index.get(),
            term: position.term.get(),
            generation,
        });
        match view.waiting_install(group) {
            Ok(position) => {
                self.install = position.map(|at| Install { index: at.index.get(), term: at.term.get() });
            }
            Err(error) => self.findings.add_stored(error)?,
        }
        self.sessions = match count_sessions(view, group) {
            Ok(sessions) => Some(sessions),
            Err(error) => self.findings.add_stored(error).map(|()| None)?,
        };
        Ok(())
    }
}

fn count_sessions(view: &RocksView, group: GroupId) -> Result<u64, StoreError> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    Ok(view.scan(group, Table::Sessions, all, MAX_SESSIONS)?.len() as u64)
}

impl Report for OneGroup {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        match (&self.state, self.destroyed) {
            (Some(state), _) => state.write_text(out)?,
            (None, Some(_)) => writeln!(out, "group {}\n  replica          none, it was destroyed here", self.group)?,
            (None, None) => writeln!(out, "group {}", self.group)?,
        }
        if let Some(log) = &self.log {
            log.write_text(out)?;
            match &self.snapshot {
                None => writeln!(out, "  snapshot         none was being filled")?,
                Some(Fill { id, index, term, generation }) => writeln!(
                    out,
                    "  snapshot         {id}, as of {index} of term {term}, was being filled into generation \
                     {generation}; the next start removes it"
                )?,
            }
        }
        if let Some(Install { index, term }) = &self.install {
            writeln!(
                out,
                "  install          the state as of {index} of term {term} was taken over, and its state machine has yet to \
                 install it; the next start does"
            )?;
        }
        if let Some(sessions) = self.sessions {
            writeln!(out, "  sessions         {}", text::count(sessions, "client"))?;
        }
        if let Some(replica) = self.destroyed {
            writeln!(out, "  tombstone        no replica up to {replica} is made here again")?;
        }
        write_findings(&self.findings, out)
    }
}

impl Log {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Log { first, last, entries, bytes, unapplied, uncommitted } = self;
        match first {
            None => writeln!(out, "  log              empty")?,
            Some(first) => {
                let entries = match entries {
                    1 => "1 entry".to_owned(),
                    _ => format!("{entries} entries"),
                };
                writeln!(out, "  log              {first} to {last}: {entries}, {}", text::size(*bytes))?;
            }
        }
        writeln!(out, "  not applied      {unapplied} of the committed")?;
        writeln!(out, "  not committed    {uncommitted}, as far as this replica knows")
    }
}
