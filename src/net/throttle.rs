//! Pure: a token bucket. Time is handed in.

use std::time::{Duration, Instant};

const SECOND_NANOSECONDS: u128 = 1_000_000_000;

/// Lets through so many bytes per second, and so many at once after a pause. Bytes are paid for before they are sent, so
/// over any time `t` no more go out than `rate · t + burst`, however large the pieces are.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// What may have gathered during a pause, as the time it takes.
    burst: Duration,
    /// When all that was booked is paid for. In the past while there is room.
    paid_at: Instant,
}

impl Throttle {
    /// One that has paused. A rate of 0 is taken for 1.
    pub fn new(bytes_per_second: u64, burst: Duration, now: Instant) -> Throttle {
        let paid_at = now.checked_sub(burst).unwrap_or(now);
        Throttle { bytes_per_second: bytes_per_second.max(1), burst, paid_at }
    }

    /// Books bytes behind those booked before, and says when they may be sent.
    pub fn book(&mut self, bytes: u64, now: Instant) -> Instant {
        let earliest = now.checked_sub(self.burst).unwrap_or(now);
        let begun = self.paid_at.max(earliest);
        let nanoseconds = (u128::from(bytes) * SECOND_NANOSECONDS).div_ceil(u128::from(self.bytes_per_second));
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        // A clock that cannot go on means at once.
        self.paid_at = begun.checked_add(cost).unwrap_or(begun);
        self.paid_at.max(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u64 = 1_000_000;
    const BURST: Duration = Duration::from_millis(100);

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let now = Instant::now();
        let mut throttle = Throttle::new(RATE, BURST, now);
        assert_eq!(throttle.book(100_000, now), now);
        assert_eq!(throttle.book(50_000, now), now + Duration::from_millis(50));
        assert_eq!(throttle.book(50_000, now), now + Duration::from_millis(100));
        // A pause gathers a burst, and no more.
        let later = now + Duration::from_secs(60);
        assert_eq!(throttle.book(100_000, later), later);
        assert_eq!(throttle.book(1, later), later + Duration::from_micros(1));
    }

    #[test]
    fn one_large_piece_waits_until_it_is_paid_for() {
        let now = Instant::now();
        let mut throttle = Throttle::new(RATE, BURST, now);
        assert_eq!(throttle.book(10 * RATE, now), now + Duration::from_millis(9900));
    }

    proptest! {
        #[test]
        fn no_span_of_time_sees_more_than_rate_and_burst(
            pieces in prop::collection::vec((0_u64..3 * RATE, 0_u64..2000), 1..50),
        ) {
            let mut now = Instant::now();
            let mut throttle = Throttle::new(RATE, BURST, now);
            let mut sent: Vec<(Instant, u64)> = Vec::new();
            for (bytes, pause_ms) in pieces {
                now += Duration::from_millis(pause_ms);
                // A sender waits until then.
                now = throttle.book(bytes, now);
                sent.push((now, bytes));
            }
            for first in 0..sent.len() {
                // What came out at the first instant may have been paid for before it.
                for last in first + 1..sent.len() {
                    let bytes: u64 = sent[first + 1..=last].iter().map(|(_, bytes)| bytes).sum();
                    let span = sent[last].0 - sent[first].0 + BURST;
                    prop_assert!(bytes as f64 <= span.as_secs_f64() * RATE as f64 + 1.0);
                }
            }
        }
    }
}
