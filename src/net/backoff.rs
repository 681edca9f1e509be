//! Pure: how long to wait before a peer that failed is tried again.

use std::time::Duration;

/// Exponential back-off with full jitter: after n failures anything from nothing to `base · 2ⁿ⁻¹`, at most `max`. So the
/// nodes that lost the same peer do not come back to it all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The most that is waited after the first failure.
    pub base: Duration,
    /// The most that is ever waited.
    pub max: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row; `random` is any number, evenly drawn.
    pub fn delay(&self, failures: u32, random: u64) -> Duration {
        let nanoseconds = u64::try_from(self.ceiling(failures).as_nanos()).unwrap_or(u64::MAX);
        // The product of two 64-bit numbers, divided by 2⁶⁴: below the first of them.
        let drawn = (u128::from(nanoseconds) * u128::from(random)) >> u64::BITS;
        Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
    }

    /// The most that is waited after so many failures in a row.
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).and_then(|factor| self.base.checked_mul(factor));
        doubled.map_or(self.max, |delay| delay.min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) };

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let ceilings: Vec<_> = (0..8).map(|failures| BACKOFF.ceiling(failures).as_millis()).collect();
        assert_eq!(ceilings, [50, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(BACKOFF.ceiling(u32::MAX), BACKOFF.max);
    }

    #[test]
    fn the_jitter_is_full() {
        assert_eq!(BACKOFF.delay(1, 0), Duration::ZERO);
        assert_eq!(BACKOFF.delay(1, 1 << 63), Duration::from_millis(25));
        assert_eq!(BACKOFF.delay(5, 1 << 63), Duration::from_millis(400));
        assert!(BACKOFF.delay(1, u64::MAX) > Duration::from_millis(49));
    }

    proptest! {
        #[test]
        fn no_delay_is_beyond_its_ceiling(
            base in 1_u64..10_000, max in 1_u64..100_000, failures: u32, random: u64, other: u64,
        ) {
            let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
            let (lower, higher) = (random.min(other), random.max(other));
            prop_assert!(backoff.delay(failures, lower) <= backoff.delay(failures, higher));
            prop_assert!(backoff.delay(failures, higher) < backoff.ceiling(failures));
            prop_assert!(backoff.ceiling(failures) <= backoff.max);
        }
    }
}
