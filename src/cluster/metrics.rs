//! What a member of a cluster measures. What is looked at is at most a second old.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `mainstay_cluster_members{state}` | gauge | members as this node knows them: `joining`, `active`, `draining`, `decommissioned` |
//! | `mainstay_cluster_leader` | gauge | the number of the member that leads the metadata; 0: none is known |
//! | `mainstay_cluster_is_leader` | gauge | 1 while this node does |
//! | `mainstay_cluster_is_draining` | gauge | 1 while this node drains |
//! | `mainstay_cluster_lag_entries` | gauge | entries of the metadata's log that are committed, as this node knows, and not applied here |
//! | `mainstay_cluster_joins_total` | counter | nodes that were let in by this one |
//! | `mainstay_cluster_removals_total` | counter | members that were taken out by this node, as leader |

use metrics::{counter, gauge};

use crate::meta::proto::{Member, MemberState};
use crate::raftstore::group::Role;
use crate::raftstore::store::GroupView;

const STATES: [(MemberState, &str); 4] = [
    (MemberState::Joining, "joining"),
    (MemberState::Active, "active"),
    (MemberState::Draining, "draining"),
    (MemberState::Decommissioned, "decommissioned"),
];

/// How a member sees its cluster now.
pub(super) fn observed(view: &GroupView, members: &[Member], is_draining: bool) {
    for (state, name) in STATES {
        let count = members.iter().filter(|member| member.state() == state).count();
        gauge!("mainstay_cluster_members", "state" => name).set(count as f64);
    }
    let positions = &view.status.positions;
    gauge!("mainstay_cluster_leader").set(view.leader_node().map_or(0, |leader| leader.get()) as f64);
    gauge!("mainstay_cluster_is_leader").set(f64::from(u8::from(positions.role == Role::Leader)));
    gauge!("mainstay_cluster_is_draining").set(f64::from(u8::from(is_draining)));
    let lag = positions.committed.get().saturating_sub(positions.applied.get());
    gauge!("mainstay_cluster_lag_entries").set(lag as f64);
    // So that they are there before anything happened.
    counter!("mainstay_cluster_joins_total").increment(0);
    counter!("mainstay_cluster_removals_total").increment(0);
}

/// A node was let in.
pub(super) fn let_in() {
    counter!("mainstay_cluster_joins_total").increment(1);
}

/// A member was taken out.
pub(super) fn removed() {
    counter!("mainstay_cluster_removals_total").increment(1);
}
