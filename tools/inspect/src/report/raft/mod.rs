//! `raft …`: the Raft groups that RocksDB holds. Damage in one group hides no other.

mod group;
mod groups;
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

use super::{Damage, Exit, Findings, Report, text};
pub use group::raft_group;
pub use groups::raft_groups;
pub use log::{LogWanted, raft_log};
pub use recover::raft_unsafe_recover;
pub use snapshots::raft_snapshots;
pub use state::raft_state;
pub use tombstones::raft_tombstones;
pub use verify::raft_verify;

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
