//! The clock of leases: it counts ticks, and goes on while the machine is suspended.

use std::time::Duration;

use crate::boot_clock::boot_time;

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct TickClock {
    tick: Duration,
}

impl TickClock {
    pub(super) fn new(tick: Duration) -> TickClock {
        TickClock { tick }
    }

    /// Thousandths of a tick since the machine was started.
    pub(super) fn thousandths(self) -> u64 {
        u64::try_from(boot_time().as_nanos() * 1000 / self.tick.as_nanos().max(1)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_ticks() {
        let (fast, slow) = (TickClock::new(Duration::from_millis(1)), TickClock::new(Duration::from_millis(1000)));
        let (before, between, after) = (fast.thousandths(), slow.thousandths() * 1000, fast.thousandths());
        // The slow one is exact to a thousandth of its tick.
        assert!(before <= between + 1000 && between <= after, "{before} {between} {after}");
    }
}
