//! `raft tombstones`: the replicas that were destroyed, and may not come back.

use std::io::{self, Write};

use mainstay::ident::{GroupId, ReplicaId};
use serde::Serialize;

use super::{Exit, Findings, Report, text, write_findings};
use crate::directory::DataDirectory;

/// What `raft tombstones` shows.
#[derive(Debug, Serialize)]
pub struct Tombstones {
    tombstones: Vec<Tombstone>,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
struct Tombstone {
    group: u64,
    /// This one and all before it.
    replica: u64,
}

/// Lists the tombstones.
pub fn raft_tombstones(directory: &DataDirectory) -> anyhow::Result<Tombstones> {
    let mut findings = Findings::of(directory);
    let found = match directory.raft.as_ref().map(|view| view.tombstones()) {
        Some(Ok(found)) => found,
        Some(Err(error)) => findings.add_stored(error).map(|()| Vec::new())?,
        None => Vec::new(),
    };
    let line = |(group, replica): (GroupId, ReplicaId)| Tombstone { group: group.get(), replica: replica.get() };
    Ok(Tombstones { tombstones: found.into_iter().map(line).collect(), findings })
}

impl Report for Tombstones {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:>8}  {:>17}", "group", "destroyed through")?;
        for Tombstone { group, replica } in &self.tombstones {
            writeln!(out, "{group:>8}  {:>17}", format!("replica {replica}"))?;
        }
        writeln!(out, "{}", text::count(self.tombstones.len() as u64, "tombstone"))?;
        write_findings(&self.findings, out)
    }
}
