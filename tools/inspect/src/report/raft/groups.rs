//! `raft groups`: one line for each, of thousands, in the order that was asked for.

use std::cmp::Reverse;
use std::io::{self, Write};
use std::ops::ControlFlow;

use mainstay::ident::{GroupId, LogIndex, ReplicaId};
use mainstay::raftstore::log_store::StoredGroup;
use mainstay::raftstore::rocks::{RocksView, StoredEntry};
use serde::Serialize;

use super::{Exit, Findings, Report, groups, load, or_dash, text, write_findings};
use crate::args::GroupsBy;
use crate::directory::DataDirectory;

/// What `raft groups` shows.
#[derive(Debug, Serialize)]
pub struct Groups {
    groups: Vec<GroupLine>,
    /// How many there are, shown or not.
    total: u64,
    #[serde(skip)]
    with_bytes: bool,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
struct GroupLine {
    group: u64,
    /// Unknown if a record is damaged.
    #[serde(flatten)]
    known: Option<Known>,
}

#[derive(Debug, Serialize)]
struct Known {
    replica: u64,
    term: u64,
    vote: Option<u64>,
    commit: u64,
    applied: u64,
    /// Committed, and not applied.
    unapplied: u64,
    /// Absent if the log is empty.
    first: Option<u64>,
    last: u64,
    /// In the log.
    entries: u64,
    /// Theirs, if the logs were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_bytes: Option<u64>,
    voters: usize,
    learners: usize,
}

/// Lists the groups.
pub fn raft_groups(directory: &DataDirectory, by: GroupsBy, limit: Option<u64>) -> anyhow::Result<Groups> {
    let mut findings = Findings::of(directory);
    let (mut lines, with_bytes) = (Vec::new(), by == GroupsBy::Bytes);
    if let Some(view) = &directory.raft {
        for group in groups(view, &mut findings)? {
            let mut known = load(view, group, &mut findings)?.as_ref().map(Known::of);
            if let Some(known) = known.as_mut().filter(|_| with_bytes) {
                known.log_bytes = Some(log_bytes(view, group, &mut findings)?);
            }
            lines.push(GroupLine { group: group.get(), known });
        }
    }
    if by != GroupsBy::Group {
        // Those that are damaged come first, whatever is looked for.
        lines.sort_by_key(|line| (line.known.as_ref().map(|known| Reverse(known.key(by))), line.group));
    }
    let total = lines.len() as u64;
    lines.truncate(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX));
    Ok(Groups { groups: lines, total, with_bytes, findings })
}

/// Data and context of all entries of a log; those that are damaged are noted.
pub fn log_bytes(view: &RocksView, group: GroupId, findings: &mut Findings) -> anyhow::Result<u64> {
    let (mut bytes, mut noted) = (0, Ok(()));
    let visited = view.visit_log(group, LogIndex::default(), |entry| {
        match entry {
            StoredEntry::Whole(entry) => bytes += (entry.data().len() + entry.context().len()) as u64,
            StoredEntry::Damaged(_, error) => noted = findings.add_stored(error),
        }
        if noted.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    noted?;
    visited.or_else(|error| findings.add_stored(error))?;
    Ok(bytes)
}

impl Known {
    fn of(stored: &StoredGroup) -> Known {
        let StoredGroup { replica, hard_state, membership, applied, truncated, last, .. } = stored;
        let entries = last.index.get().saturating_sub(truncated.index.get());
        Known {
            replica: replica.get(),
            term: hard_state.term.get(),
            vote: hard_state.vote.map(ReplicaId::get),
            commit: hard_state.commit.get(),
            applied: applied.get(),
            unapplied: hard_state.commit.get().saturating_sub(applied.get()),
            first: (entries > 0).then(|| truncated.index.next().get()),
            last: last.index.get(),
            entries,
            log_bytes: None,
            voters: membership.voters.len(),
            learners: membership.learners.len(),
        }
    }

    /// What is largest comes first.
    fn key(&self, by: GroupsBy) -> u64 {
        match by {
            GroupsBy::Group => 0,
            GroupsBy::Entries => self.entries,
            GroupsBy::Bytes => self.log_bytes.unwrap_or(0),
            GroupsBy::Unapplied => self.unapplied,
            GroupsBy::Uncommitted => self.last.saturating_sub(self.commit),
            GroupsBy::Last => self.last,
            GroupsBy::Term => self.term,
        }
    }
}

impl Report for Groups {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(
            out,
            "{:>8}  {:>8}  {:>8}  {:>8}  {:>10}  {:>10}  {:>9}  {:>10}  {:>10}  {:>8}  {:>6}  {:>8}",
            "group",
            "replica",
            "term",
            "vote",
            "commit",
            "applied",
            "unapplied",
            "first",
            "last",
            "entries",
            "voters",
            "learners"
        )?;
        writeln!(out, "{}", if self.with_bytes { "       log bytes" } else { "" })?;
        for GroupLine { group, known } in &self.groups {
            match known {
                Some(known) => known.write_text(*group, out)?,
                None => writeln!(out, "{group:>8}  damaged, see below")?,
            }
        }
        let shown = self.groups.len() as u64;
        match shown == self.total {
            true => writeln!(out, "{}", text::count(shown, "group"))?,
            false => writeln!(out, "{shown} of {}", text::count(self.total, "group"))?,
        }
        write_findings(&self.findings, out)
    }
}

impl Known {
    fn write_text(&self, group: u64, out: &mut dyn Write) -> io::Result<()> {
        let Known {
            replica,
            term,
            vote,
            commit,
            applied,
            unapplied,
            first,
            last,
            entries,
            log_bytes,
            voters,
            learners,
        } = self;
        let (vote, first) = (or_dash(*vote), or_dash(*first));
        write!(
            out,
            "{group:>8}  {replica:>8}  {term:>8}  {vote:>8}  {commit:>10}  {applied:>10}  {unapplied:>9}  \
             {first:>10}  {last:>10}  {entries:>8}  {voters:>6}  {learners:>8}"
        )?;
        log_bytes.map_or(Ok(()), |bytes| write!(out, "  {bytes:>14}"))?;
        writeln!(out)
    }
}
