//! `raft unsafe-recover`: the replica here goes on alone, and says first what that may lose.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use mainstay::ident::{GroupId, ReplicaId};
use mainstay::raftstore::entry::Membership;
use mainstay::raftstore::recover::Recovery;
use mainstay::raftstore::rocks::RocksStore;
use mainstay::storage::{META_DIR, Storage};
use serde::Serialize;

use super::{Exit, Report};
use crate::directory::DataDirectory;

/// Copies that may lie beside `meta/`.
const MAX_COPIES: u32 = 100;

/// What `raft unsafe-recover` shows.
#[derive(Debug, Serialize)]
pub struct Recover {
    /// Whether it was done.
    done: bool,
    group: u64,
    replica: u64,
    /// Who took part.
    voters_before: Vec<u64>,
    others: Vec<u64>,
    was_joint: bool,
    /// What the replica has.
    applied: u64,
    commit: u64,
    last: u64,
    /// Entries of which nobody here knows whether they were acknowledged. They are committed by this.
    unsure_entries: u64,
    /// Changes of the membership in the log that will not happen, by index.
    dropped_changes: Vec<u64>,
    term: u64,
    /// Where RocksDB as it was is kept; nothing until it is done.
    copy: Option<String>,
}

/// Says what would become of a group whose replica here goes on alone and, if it is confirmed, lets it.
///
/// # Errors
/// There is no such group, it makes no sense, a node runs, or RocksDB cannot be read or written.
pub fn raft_unsafe_recover(directory: DataDirectory, group: GroupId, is_confirmed: bool) -> anyhow::Result<Recover> {
    let Some(view) = &directory.raft else {
        bail!("RocksDB cannot be read, so that nothing is known of any group");
    };
    let recovery = view.plan_recovery(group)?;
    if !is_confirmed {
        return Ok(Recover::of(&recovery));
    }
    let (path, segment_size_bytes) = (directory.path.clone(), directory.identity.segment_size_bytes);
    // Our shared lock would be in the way of our own.
    drop(directory);
    let storage = Storage::open(&path, segment_size_bytes).context("nothing was changed")?;
    let store = RocksStore::open(Arc::new(storage)).context("nothing was changed")?;
    let copy = free_name(&path)?;
    let recovery = store.recover_alone(group, &copy)?;
    Ok(Recover { done: true, copy: Some(copy.display().to_string()), ..Recover::of(&recovery) })
}

fn free_name(directory: &Path) -> anyhow::Result<PathBuf> {
    let names = (1..=MAX_COPIES).map(|number| directory.join(format!("{META_DIR}.{number}.broken")));
    let free = names.into_iter().find(|path| !path.exists());
    free.with_context(|| format!("{MAX_COPIES} copies lie in {} already; nothing was changed", directory.display()))
}

impl Recover {
    fn of(recovery: &Recovery) -> Recover {
        let Recovery { group, stored, hard_state, dropped_changes, .. } = recovery;
        let Membership { voters, nodes, .. } = &stored.membership;
        let replica = stored.replica;
        Recover {
            done: false,
            group: group.get(),
            replica: replica.get(),
            voters_before: voters.iter().copied().map(ReplicaId::get).collect(),
            others: nodes.keys().filter(|other| **other != replica).map(|other| other.get()).collect(),
            was_joint: stored.membership.is_joint(),
            applied: stored.applied.get(),
            commit: stored.hard_state.commit.get(),
            last: stored.last.index.get(),
            unsure_entries: recovery.unsure_entries(),
            dropped_changes: dropped_changes.iter().map(|position| position.index.get()).collect(),
            term: hard_state.term.get(),
            copy: None,
        }
    }
}

fn list(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

impl Report for Recover {
    fn exit(&self) -> Exit {
        // Not done: for scripts, that is no success.
        if self.done { Exit::Clean } else { Exit::Unreadable }
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Recover { group, replica, others, commit, last, .. } = self;
        let (goes, are) = if self.done { ("goes", "are") } else { ("would go", "would be") };
        writeln!(out, "Replica {replica} of group {group} {goes} on alone, in term {}.", self.term)?;
        let joint = if self.was_joint { ", in a joint configuration" } else { "" };
        writeln!(out, "\n  voters so far   {}{joint}", list(&self.voters_before))?;
        writeln!(out, "  removed         {}", if others.is_empty() { "nobody".to_owned() } else { list(others) })?;
        writeln!(out, "  log             applied {}, committed {commit}, last {last}", self.applied)?;
        if !self.dropped_changes.is_empty() {
            let changes = list(&self.dropped_changes);
            writeln!(out, "  dropped         changes of the membership in entries {changes}: they will not happen")?;
        }
        writeln!(out, "\nACKNOWLEDGED DATA MAY BE LOST")?;
        writeln!(
            out,
            "Whatever the others acknowledged without this replica is gone. Use this only if a majority of the"
        )?;
        writeln!(
            out,
            "voters will never come back, and on the replica whose log is the longest: last term first, then"
        )?;
        writeln!(out, "last entry. Do it on one replica only: two that go on alone are two groups.")?;
        if self.unsure_entries > 0 {
            let entries = if self.unsure_entries == 1 {
                "1 entry".to_owned()
            } else {
                format!("{} entries", self.unsure_entries)
            };
            writeln!(out, "\n{entries} behind the commit may never have been acknowledged; they {are} committed.")?;
        }
        match &self.copy {
            None => writeln!(out, "\nNothing was changed. To do this, run it again with --yes."),
            Some(copy) => {
                writeln!(out, "\nRocksDB as it was is kept in\n  {copy}")?;
                writeln!(out, "Destroy what is left of the other replicas before their nodes run again.")
            }
        }
    }
}
