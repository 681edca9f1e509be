//! What the raftstore measures. Times are seconds, from the moment that the row says.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `mainstay_raft_queue_seconds` | histogram | a proposal or read in the mailbox, until the driver took it |
//! | `mainstay_raft_commit_seconds` | histogram | a proposal from submission until it was committed |
//! | `mainstay_raft_propose_to_apply_seconds` | histogram | a proposal from submission until its response |
//! | `mainstay_raft_read_seconds` | histogram | a linearizable read from submission until it could be made |
//! | `mainstay_raft_persist_seconds` | histogram | one batch of log writes, with its sync |
//! | `mainstay_raft_persist_entries` | histogram | entries in such a batch |
//! | `mainstay_raft_persist_bytes_total` | counter | bytes of entries written |
//! | `mainstay_raft_syncs_total` | counter | synced writes |
//! | `mainstay_raft_apply_seconds` | histogram | one batch of commands, with the write of its effects |
//! | `mainstay_raft_apply_commands` | histogram | entries in such a batch |
//! | `mainstay_raft_requests_waiting` | gauge | proposals and reads in the mailbox |
//! | `mainstay_raft_messages_waiting` | gauge | messages of peers in the mailbox |
//! | `mainstay_raft_persist_queue_bytes` | gauge | bytes handed out for writing and not written |
//! | `mainstay_raft_shed_total{what}` | counter | dropped: `request`, `message` for want of room, `garbage`, `refused` |
//! | `mainstay_raft_groups{state}` | gauge | groups that are `awake`, or `asleep` because nobody uses them |
//! | `mainstay_raft_leader_changes_total{group}` | counter | how often another leader was seen |
//! | `mainstay_raft_log_entries{group}` | gauge | entries in the log |
//! | `mainstay_raft_snapshots_total{outcome}` | counter | states `captured`, `sent`, `not_sent`, `taken_over`, arrived and `not_needed` any more, or put off for want of room: `no_room` |
//! | `mainstay_raft_consistency_checks_total{outcome}` | counter | checks heard of: the replicas `agrees`, one `differs`, `undecided` without a majority, `given_up` |
//! | `mainstay_raft_hash_seconds` | histogram | one state, read and hashed for a check |
//! | `mainstay_raft_unhealthy{group}` | gauge | 1 while the state of the replica here is wrong, or no majority agrees |
//! | `mainstay_raft_stalled{what}` | gauge | 1 while the `driver`, `persist` or an `apply` thread does not get on |
//! | `mainstay_raft_stalls_total{what}` | counter | how often that was so |
//! | `mainstay_raft_lag_entries{group,replica}` | gauge | of a leader: how far a follower is behind |

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::mailbox::Waiting;
use crate::ident::GroupId;
use crate::raftstore::group::GroupStatus;

pub(super) fn shed(what: &'static str) {
    counter!("mainstay_raft_shed_total", "what" => what).increment(1);
}

pub(super) fn persisted(took: Duration, entries: usize, bytes: usize, synced: bool) {
    histogram!("mainstay_raft_persist_seconds").record(took.as_secs_f64());
    histogram!("mainstay_raft_persist_entries").record(entries as f64);
    counter!("mainstay_raft_persist_bytes_total").increment(bytes as u64);
    if synced {
        counter!("mainstay_raft_syncs_total").increment(1);
    }
}

pub(super) fn applied(took: Duration, commands: usize) {
    histogram!("mainstay_raft_apply_seconds").record(took.as_secs_f64());
    histogram!("mainstay_raft_apply_commands").record(commands as f64);
}

pub(super) fn taken(waited: Duration) {
    histogram!("mainstay_raft_queue_seconds").record(waited.as_secs_f64());
}

pub(super) fn committed(since: Duration) {
    histogram!("mainstay_raft_commit_seconds").record(since.as_secs_f64());
}

pub(super) fn proposal_done(since: Duration) {
    histogram!("mainstay_raft_propose_to_apply_seconds").record(since.as_secs_f64());
}

pub(super) fn read_done(since: Duration) {
    histogram!("mainstay_raft_read_seconds").record(since.as_secs_f64());
}

pub(super) fn snapshot(outcome: &'static str) {
    counter!("mainstay_raft_snapshots_total", "outcome" => outcome).increment(1);
}

pub(super) fn checked(outcome: &'static str) {
    counter!("mainstay_raft_consistency_checks_total", "outcome" => outcome).increment(1);
}

pub(super) fn hashed(took: Duration) {
    histogram!("mainstay_raft_hash_seconds").record(took.as_secs_f64());
}

pub(super) fn unhealthy(group: GroupId, is_unhealthy: bool) {
    gauge!("mainstay_raft_unhealthy", "group" => group.to_string()).set(f64::from(u8::from(is_unhealthy)));
}

pub(super) fn stalled(what: &'static str, is_stalled: bool) {
    gauge!("mainstay_raft_stalled", "what" => what).set(f64::from(u8::from(is_stalled)));
    if is_stalled {
        counter!("mainstay_raft_stalls_total", "what" => what).increment(1);
    }
}

pub(super) fn leader_changed(group: &str) {
    counter!("mainstay_raft_leader_changes_total", "group" => group.to_owned()).increment(1);
}

pub(super) fn queues(waiting: &Waiting, persist_bytes: usize) {
    gauge!("mainstay_raft_requests_waiting").set(waiting.requests() as f64);
    gauge!("mainstay_raft_messages_waiting").set(waiting.messages() as f64);
    gauge!("mainstay_raft_persist_queue_bytes").set(persist_bytes as f64);
}

pub(super) fn groups(awake: usize, asleep: usize) {
    gauge!("mainstay_raft_groups", "state" => "awake").set(awake as f64);
    gauge!("mainstay_raft_groups", "state" => "asleep").set(asleep as f64);
}

pub(super) fn group(name: &str, status: &GroupStatus) {
    let entries = (status.positions.last.get() + 1).saturating_sub(status.positions.first.get());
    gauge!("mainstay_raft_log_entries", "group" => name.to_owned()).set(entries as f64);
    for follower in &status.followers {
        let lag = status.positions.last.get().saturating_sub(follower.matched.get());
        let replica = follower.replica.to_string();
        gauge!("mainstay_raft_lag_entries", "group" => name.to_owned(), "replica" => replica).set(lag as f64);
    }
}
