//! `raft …`: the Raft groups that RocksDB holds. Damage in one group hides no other.

mod log;
mod recover;
mod snapshots;
mod state;
mod tombstones;
mod verify;

use std::io::{self, Write};

use mainstay::ident::{GroupId, ReplicaId};
use mainstay::raftstore::check::{self, Violation};
use mainstay::raftstore::entry::Membership;
use mainstay::raftstore::log_store::StoredGroup;
use mainstay::raftstore::rocks::RocksView;
use serde::Serialize;

use super::{Damage, Exit, Findings, Report, text};
use crate::directory::DataDirectory;
pub use log::{LogWanted, raft_log};
pub use recover::raft_unsafe_recover;
pub use snapshots::raft_snapshots;
pub use state::raft_state;
pub use tombstones::raft_tombstones;
pub use verify::raft_verify;

/// What `raft groups` shows.
#[derive(Debug, Serialize)]
pub struct Groups {
    groups: Vec<GroupLine>,
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
    /// Absent if the log is empty.
    first: Option<u64>,
    last: u64,
    entries: u64,
    voters: usize,
    learners: usize,
}

/// Lists the groups.
pub fn raft_groups(directory: &DataDirectory) -> anyhow::Result<Groups> {
    let mut findings = Findings::of(directory);
    let mut lines = Vec::new();
    if let Some(view) = &directory.raft {
        for group in groups(view, &mut findings)? {
            let known = load(view, group, &mut findings)?.as_ref().map(Known::of);
            lines.push(GroupLine { group: group.get(), known });
        }
    }
    Ok(Groups { groups: lines, findings })
}

/// The groups; damage that belongs to none of them is noted.
pub fn groups(view: &RocksView, findings: &mut Findings) -> anyhow::Result<Vec<GroupId>> {
    match view.groups() {
        Ok((groups, damage)) => {
            damage.into_iter().try_for_each(|error| findings.add_stored(error))?;
            Ok(groups)
        }
        Err(error) => findings.add_stored(error).map(|()| Vec::new()),
    }
}

/// What is stored of a group; damage is noted, and rules that do not hold.
fn load(view: &RocksView, group: GroupId, findings: &mut Findings) -> anyhow::Result<Option<StoredGroup>> {
    match view.load(group) {
        Ok(stored) => {
            let violations = stored.as_ref().map(check::check_bounds).unwrap_or_default();
            add_violations(view, group, violations, findings);
            Ok(stored)
        }
        Err(error) => findings.add_stored(error).map(|()| None),
    }
}

fn add_violations(view: &RocksView, group: GroupId, violations: Vec<Violation>, findings: &mut Findings) {
    for Violation { expected, found } in violations {
        let place = format!("group {group} in {}", view.path().display());
        findings.damage.push(Damage::of_stored(place, Some(expected), &found));
    }
}

impl Known {
    fn of(stored: &StoredGroup) -> Known {
        let StoredGroup { replica, hard_state, membership, applied, truncated, last, unhealthy: _ } = stored;
        let entries = last.index.get().saturating_sub(truncated.index.get());
        Known {
            replica: replica.get(),
            term: hard_state.term.get(),
            vote: hard_state.vote.map(ReplicaId::get),
            commit: hard_state.commit.get(),
            applied: applied.get(),
            first: (entries > 0).then(|| truncated.index.next().get()),
            last: last.index.get(),
            entries,
            voters: membership.voters.len(),
            learners: membership.learners.len(),
        }
    }
}

/// A number, or a dash.
fn or_dash(number: Option<u64>) -> String {
    number.map_or("-".into(), |number| number.to_string())
}

/// Replicas of a list with their nodes, such as `1 on node 11, 2 on node 12`.
fn with_nodes(membership: &Membership, replicas: &[ReplicaId]) -> String {
    let one = |replica: &ReplicaId| match membership.node_of(*replica) {
        Some(node) => format!("{replica} on node {node}"),
        None => format!("{replica} on no node"),
    };
    if replicas.is_empty() { "none".into() } else { replicas.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// What is wrong, of the groups alone: the WAL is not looked at.
fn write_findings(findings: &Findings, out: &mut dyn Write) -> io::Result<()> {
    findings.write_damage(out)?;
    match &findings.rocksdb_error {
        Some(error) => writeln!(out, "\nRocksDB cannot be read: {error}\nNothing is known of the Raft groups."),
        None => Ok(()),
    }
}

impl Report for Groups {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:>8}  {:>8}  {:>8}  {:>8}  {:>10}  {:>10}  {:>10}  {:>10}  {:>8}  {:>6}  {:>8}",
            "group", "replica", "term", "vote", "commit", "applied", "first", "last", "entries", "voters", "learners"
        )?;
        for GroupLine { group, known } in &self.groups {
            let Some(known) = known else {
                writeln!(out, "{group:>8}  damaged, see below")?;
                continue;
            };
            let Known { replica, term, vote, commit, applied, first, last, entries, voters, learners } = known;
            let (vote, first) = (or_dash(*vote), or_dash(*first));
            writeln!(
                out,
                "{group:>8}  {replica:>8}  {term:>8}  {vote:>8}  {commit:>10}  {applied:>10}  {first:>10}  {last:>10}  \
                 {entries:>8}  {voters:>6}  {learners:>8}"
            )?;
        }
        writeln!(out, "{}", text::count(self.groups.len() as u64, "group"))?;
        write_findings(&self.findings, out)
    }
}
