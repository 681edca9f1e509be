//! What the log measures. Times are seconds.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `mainstay_wal_flush_seconds` | histogram | one flush: waiting for copies under way, writes, and the sync |
//! | `mainstay_wal_flush_bytes` | histogram | what one flush made durable |
//!
//! Positions are not counted but looked at: [`WalStatus`](super::WalStatus).

use std::time::Duration;

use metrics::{Histogram, histogram};

/// Taken once: looking them up would cost more than to record.
pub(super) struct Measures {
    flush_seconds: Histogram,
    flush_bytes: Histogram,
}

impl Measures {
    pub(super) fn new() -> Measures {
        Measures {
            flush_seconds: histogram!("mainstay_wal_flush_seconds"),
            flush_bytes: histogram!("mainstay_wal_flush_bytes"),
        }
    }

    pub(super) fn flushed(&self, took: Duration, bytes: u64) {
        self.flush_seconds.record(took.as_secs_f64());
        self.flush_bytes.record(bytes as f64);
    }
}
