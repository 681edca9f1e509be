//! Notices a device that hangs: a flush that does not come back, in a sync or in a copy before it, fails nothing by
//! itself, and everybody waits for it. The same goes for a segment whose preparation does not come back, once somebody
//! was refused for want of it, and for recycling on a full disk.
//!
//! Health, a metric and a line in the log say so; whoever runs the node decides. When it comes back after all,
//! all is well again: what it made durable is durable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::errors::{Failure, WalError};
use super::log::Shared;
use super::reservation::FULL;

/// The longest and the shortest time between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(1));

/// Nothing is under way.
const IDLE: u64 = 0;

/// How the log is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// Nothing is wrong.
    Good,
    /// A flush, or what would make room for those who are refused now, has not come back for longer than the limit: the
    /// device hangs. It may recover.
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

/// Work of which one piece at a time is under way, and since when its present step is.
pub(super) struct Watched {
    origin: Instant,
    /// Microseconds from `origin` to the start of the step under way, plus one.
    began: AtomicU64,
}

impl Watched {
    fn new(origin: Instant) -> Watched {
        Watched { origin, began: AtomicU64::new(IDLE) }
    }

    /// Does the work under the watchdog's eyes.
    pub(super) fn watch<T>(&self, work: impl FnOnce() -> T) -> T {
        self.restart();
        let result = work();
        self.began.store(IDLE, Ordering::Relaxed);
        result
    }

    /// The next step of the work under way begins: the limit is for each, since there may be many syncs.
    pub(super) fn restart(&self) {
        self.began.store(micros(self.origin.elapsed()).saturating_add(1), Ordering::Relaxed);
    }

    /// For how long the step under way has not come back, if that is longer than `limit`.
    pub(super) fn exceeds(&self, limit: Duration) -> Option<Duration> {
        let began = self.began.load(Ordering::Relaxed);
        let since = micros(self.origin.elapsed()).saturating_sub(began.saturating_sub(1));
        (began != IDLE && since > micros(limit)).then(|| Duration::from_micros(since))
    }
}

/// Knows since when the steps of flushes, and of what makes room for records, are under way.
pub(super) struct Watchdog {
    flush: Watched,
    /// The preparation of a segment.
    pub preparation: Watched,
    /// Taking segments out of the log.
    pub recycling: Watched,
    /// Somebody was refused because the next segment is not prepared, and none was since. Before that, one that takes
    /// long keeps nobody waiting.
    is_segment_missed: AtomicBool,
    /// How long a step may take before the device counts as hanging.
    pub limit: Duration,
    reported: AtomicBool,
    stopped: Mutex<bool>,
    woken: Condvar,
}

impl Watchdog {
    pub(super) fn new(limit: Duration) -> Watchdog {
        let origin = Instant::now();
        Watchdog {
            flush: Watched::new(origin),
            preparation: Watched::new(origin),
            recycling: Watched::new(origin),
            is_segment_missed: AtomicBool::new(false),
            limit,
            reported: AtomicBool::new(false),
            stopped: Mutex::new(false),
            woken: Condvar::new(),
        }
    }

    /// Runs a flush under its eyes.
    pub(super) fn watch<T>(&self, flush: impl FnOnce() -> T) -> T {
        self.flush.watch(flush)
    }

    /// The next step of the flush under way begins.
    pub(super) fn restart(&self) {
        self.flush.restart();
    }

    /// Somebody was refused for want of a segment.
    pub(super) fn miss_segment(&self) {
        self.is_segment_missed.store(true, Ordering::Relaxed);
    }

    /// A segment was prepared.
    pub(super) fn add_segment(&self) {
        self.is_segment_missed.store(false, Ordering::Relaxed);
    }

    /// What does not come back for longer than the limit though somebody waits for it, and for how long.
    fn hangs(&self, is_full: bool) -> Option<(&'static str, Duration)> {
        let found = |what, watched: &Watched| Some((what, watched.exceeds(self.limit)?));
        let is_missed = self.is_segment_missed.load(Ordering::Relaxed);
        found("a flush", &self.flush)
            .or_else(|| found("the preparation of a segment", &self.preparation).filter(|_| is_missed))
            .or_else(|| found("recycling", &self.recycling).filter(|_| is_full))
    }

    pub(super) fn stop(&self) {
        *self.stopped.lock() = true;
        self.woken.notify_all();
    }

    fn report(&self, hangs: Option<(&'static str, Duration)>) {
        if self.reported.swap(hangs.is_some(), Ordering::Relaxed) == hangs.is_some() {
            return;
        }
        metrics::gauge!("mainstay_wal_sync_hangs").set(f64::from(u8::from(hangs.is_some())));
        match hangs {
            Some((what, since)) => {
                metrics::counter!("mainstay_wal_sync_hangs_total").increment(1);
                tracing::error!(?since, "{what} of the log does not come back: the device hangs, and commits wait");
            }
            None => tracing::info!("what hung in the log came back"),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Shared {
    /// What hangs, and for how long, if somebody waits for it.
    pub(super) fn hangs(&self) -> Option<(&'static str, Duration)> {
        self.watchdog.hangs(self.tail.gates() & FULL != 0)
    }
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
        watchdog.report(shared.hangs());
    }
}
