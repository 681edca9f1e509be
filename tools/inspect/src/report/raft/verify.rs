//! `raft verify`: every rule, on every group and every entry.

use std::io::{self, Write};

use mainstay::raftstore::rocks::Checked;
use serde::Serialize;

use super::{Exit, Findings, Report, add_violations, groups, text, write_findings};
use crate::directory::DataDirectory;

/// What `raft verify` shows.
#[derive(Debug, Serialize)]
pub struct Verification {
    groups: Vec<GroupChecked>,
    #[serde(flatten)]
    findings: Findings,
}

#[derive(Debug, Serialize)]
struct GroupChecked {
    group: u64,
    /// Those that can be read.
    entries: u64,
    payload_bytes: u64,
    violations: usize,
}

/// Verifies all groups.
pub fn raft_verify(directory: &DataDirectory) -> anyhow::Result<Verification> {
    let mut findings = Findings::of(directory);
    let mut checked = Vec::new();
    if let Some(view) = &directory.raft {
        for group in groups(view, &mut findings)? {
            match view.check(group) {
                Ok(Checked { entries, payload_bytes, violations }) => {
                    let count = violations.len();
                    checked.push(GroupChecked { group: group.get(), entries, payload_bytes, violations: count });
                    add_violations(view, group, violations, &mut findings);
                }
                Err(error) => findings.add_stored(error)?,
            }
        }
    }
    Ok(Verification { groups: checked, findings })
}

impl Report for Verification {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:>8}  {:>10}  {:>14}  {:>10}", "group", "entries", "payload bytes", "violations")?;
        for GroupChecked { group, entries, payload_bytes, violations } in &self.groups {
            writeln!(out, "{group:>8}  {entries:>10}  {payload_bytes:>14}  {violations:>10}")?;
        }
        write_findings(&self.findings, out)?;
        match self.exit() {
            Exit::Clean => writeln!(out, "\nno damage"),
            Exit::Damage => writeln!(out, "\n{}", text::count(self.findings.damage.len() as u64, "damaged place")),
            Exit::Unreadable => writeln!(out, "\nno damage seen, but nothing could be read"),
        }
    }
}
