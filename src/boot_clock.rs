//! Time since the machine was started, also while it slept. Wall clocks jump; this one does not.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What time it is.
pub(crate) fn boot_time() -> Duration {
    // Where there is no such clock, the monotonic one counts sleep.
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}
