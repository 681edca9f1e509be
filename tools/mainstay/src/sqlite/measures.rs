//! What the engine measures, beside the log's own. Times are seconds.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `mainstay_sql_commit_seconds{stage}` | histogram | a transaction, or a group of statements that share one, from stage to stage |
//! | `mainstay_sql_group_statements` | histogram | statements that shared a transaction |
//! | `mainstay_sql_connections{state}` | gauge | connections, by what they do |
//! | `mainstay_sql_writers_waiting` | gauge | statements and transactions in the queue before the writer |
//! | `mainstay_wal_…` | gauge | where the log stands; see [`observe`] |
//!
//! The stages: `queue` (a statement by itself, until its turn came), `execute` (all statements of a group), `append` (what was
//! captured is put together and into the log), `sync` (until it is committed there), `store` (SQLite's own commit).

use std::time::{Duration, Instant};

use mainstay::server::pg::Seen;
use mainstay::wal::WalStatus;
use metrics::{Histogram, gauge, histogram};

/// Taken once: looking them up would cost more than to record.
pub(super) struct Measures {
    queue: Histogram,
    execute: Histogram,
    append: Histogram,
    sync: Histogram,
    store: Histogram,
    group: Histogram,
}

fn stage(name: &'static str) -> Histogram {
    histogram!("mainstay_sql_commit_seconds", "stage" => name)
}

impl Measures {
    pub(super) fn new() -> Measures {
        Measures {
            queue: stage("queue"),
            execute: stage("execute"),
            append: stage("append"),
            sync: stage("sync"),
            store: stage("store"),
            group: histogram!("mainstay_sql_group_statements"),
        }
    }

    pub(super) fn queued(&self, took: Duration) {
        self.queue.record(took.as_secs_f64());
    }

    pub(super) fn executed(&self, took: Duration, statements: usize) {
        self.execute.record(took.as_secs_f64());
        self.group.record(statements as f64);
    }

    /// A commit: when it began, when its record was in the log, when it was committed there; SQLite has it now.
    pub(super) fn committed(&self, began: Instant, appended: Instant, synced: Instant) {
        self.append.record((appended - began).as_secs_f64());
        self.sync.record((synced - appended).as_secs_f64());
        self.store.record(synced.elapsed().as_secs_f64());
    }
}

/// Notes what is looked at rather than counted.
pub(super) fn observe(log: Option<&WalStatus>, waiting: usize, seen: &[Seen]) {
    gauge!("mainstay_sql_writers_waiting").set(waiting as f64);
    for state in ["active", "idle", "idle in transaction", "idle in transaction (aborted)"] {
        let count = seen.iter().filter(|seen| seen.state == state).count();
        gauge!("mainstay_sql_connections", "state" => state).set(count as f64);
    }
    let Some(log) = log else { return };
    gauge!("mainstay_wal_oldest_lsn").set(log.oldest.get() as f64);
    gauge!("mainstay_wal_durable_lsn").set(log.durable.get() as f64);
    gauge!("mainstay_wal_end_lsn").set(log.end.get() as f64);
    gauge!("mainstay_wal_waiting").set(log.waiting as f64);
    gauge!("mainstay_wal_prepared_bytes").set(log.prepared_bytes as f64);
    gauge!("mainstay_wal_free_bytes").set(log.free_bytes as f64);
    gauge!("mainstay_wal_reserve_bytes").set(log.reserve_bytes as f64);
    gauge!("mainstay_wal_full").set(f64::from(u8::from(log.is_full)));
}
