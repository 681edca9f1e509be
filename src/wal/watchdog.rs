//! Notices a device that hangs: a flush that does not come back, in a sync or in a copy before it, fails nothing by
//! itself, and everybody waits for it.
//!
//! Health, a metric and a line in the log say so; whoever runs the node decides. When it comes back after all,
//! all is well again: what it made durable is durable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::errors::{Failure, WalError};
use super::log::Shared;

/// The longest and the shortest time between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(1));

/// Nothing is being flushed.
const IDLE: u64 = 0;

/// How the log is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// Nothing is wrong.
    Good,
    /// A flush has not come back for longer than the limit: the device hangs. It may recover.
    Hangs {
        /// For how long by now.
        since: Duration,
    },
    /// The scrub found that an old segment is damaged or cannot be read: the oldest such damage. Writing goes on, but who
    /// needs that part of the log will not get it. It ends when the segment is whole again, or recycled.
    Damaged(WalError),
    /// It takes nothing more.
    Failed(Failure),
}

/// Knows since when a step of a flush is under way.
pub(super) struct Watchdog {
    origin: Instant,
    /// Microseconds from `origin` to the start of the step under way, plus one.
    began: AtomicU64,
    /// How long a sync, or what a flush does before it, may take before the device counts as hanging.
    limit: Duration,
    reported: AtomicBool,
    stopped: Mutex<bool>,
    woken: Condvar,
}

impl Watchdog {
    pub(super) fn new(limit: Duration) -> Watchdog {
        Watchdog {
            origin: Instant::now(),
            began: AtomicU64::new(IDLE),
            limit,
            reported: AtomicBool::new(false),
            stopped: Mutex::new(false),
            woken: Condvar::new(),
        }
    }

    /// Runs a flush under its eyes.
    pub(super) fn watch<T>(&self, flush: impl FnOnce() -> T) -> T {
        self.restart();
        let result = flush();
        self.began.store(IDLE, Ordering::Relaxed);
        result
    }

    /// The next step of the flush under way begins: the limit is for each, since a large one has many syncs.
    pub(super) fn restart(&self) {
        self.began.store(micros(self.origin.elapsed()).saturating_add(1), Ordering::Relaxed);
    }

    /// For how long a step of a flush has not come back, if that is longer than the limit.
    pub(super) fn hangs_since(&self) -> Option<Duration> {
        let began = self.began.load(Ordering::Relaxed);
        let since = micros(self.origin.elapsed()).saturating_sub(began.saturating_sub(1));
        (began != IDLE && since > micros(self.limit)).then(|| Duration::from_micros(since))
    }

    pub(super) fn stop(&self) {
        *self.stopped.lock() = true;
        self.woken.notify_all();
    }

    fn report(&self) {
        let since = self.hangs_since();
        if self.reported.swap(since.is_some(), Ordering::Relaxed) == since.is_some() {
            return;
        }
        metrics::gauge!("mainstay_wal_sync_hangs").set(f64::from(u8::from(since.is_some())));
        match since {
            Some(since) => {
                metrics::counter!("mainstay_wal_sync_hangs_total").increment(1);
                tracing::error!(?since, "a flush of the log does not come back: the device hangs, and commits wait");
            }
            None => tracing::info!("the flush of the log came back"),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The watchdog thread, until told to stop.
pub(super) fn run(shared: &Shared) {
    let watchdog = &shared.watchdog;
    loop {
        let mut stopped = watchdog.stopped.lock();
        if !*stopped {
            watchdog.woken.wait_for(&mut stopped, (watchdog.limit / 4).clamp(LOOKS.1, LOOKS.0));
        }
        if *stopped {
            return;
        }
        drop(stopped);
        watchdog.report();
    }
}
