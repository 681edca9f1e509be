//! `raft snapshots`: what was being filled when the node stopped.

use std::io::{self, Write};

use mainstay::raftstore::rocks::StoredFill;
use serde::Serialize;

use super::{Exit, Findings, Report, groups, load, text, write_findings};
use crate::directory::DataDirectory;

/// What `raft snapshots` shows.
#[derive(Debug, Serialize)]
pub struct Snapshots {
    snapshots: Vec<Snapshot>,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    group: u64,
    replica: u64,
    /// The set of tables that it is filled into, and that nobody sees.
    generation: u32,
    /// The last entry whose effects are in it.
    index: u64,
    term: u64,
    id: String,
}

/// Lists the snapshots that were being filled. The next start removes them.
pub fn raft_snapshots(directory: &DataDirectory) -> anyhow::Result<Snapshots> {
    let mut findings = Findings::of(directory);
    let mut snapshots = Vec::new();
    if let Some(view) = &directory.raft {
        for group in groups(view, &mut findings)? {
            let Some(stored) = load(view, group, &mut findings)? else { continue };
            let Some(StoredFill { generation, id, position }) = view.filling(group)? else { continue };
            snapshots.push(Snapshot {
                group: group.get(),
                replica: stored.replica.get(),
                generation,
                index: position.index.get(),
                term: position.term.get(),
                id: id.to_string(),
            });
        }
    }
    Ok(Snapshots { snapshots, findings })
}

impl Report for Snapshots {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:>8}  {:>8}  {:>10}  {:>10}  {:>8}  {:>16}",
            "group", "replica", "generation", "index", "term", "snapshot"
        )?;
        for Snapshot { group, replica, generation, index, term, id } in &self.snapshots {
            writeln!(out, "{group:>8}  {replica:>8}  {generation:>10}  {index:>10}  {term:>8}  {id:>16}")?;
        }
        writeln!(out, "{}", text::count(self.snapshots.len() as u64, "snapshot"))?;
        write_findings(&self.findings, out)
    }
}
