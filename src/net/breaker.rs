//! Pure: a circuit breaker for one peer. Time and randomness are handed in.
//!
//! ```text
//!            connected                          so many failures in a row
//!   ┌─────► CLOSED ◄──────────────── HALF-OPEN ◄─────────┐
//!   │         │ failed, too often       │  ▲             │
//!   │         ▼                  failed │  │ its time has come
//!   │        OPEN ◄─────────────────────┘  │
//!   └── failed, not yet too often          └── OPEN
//! ```
//!
//! Closed, the peer is sent to. Open, nothing is sent and nothing waits for it. Half-open, one attempt is on its way to
//! find out; the owner makes it by itself, without traffic. A connection that holds only for a moment does not count: a
//! peer that takes connections and drops them opens the breaker as one that takes none.

use std::time::Instant;

use super::backoff::Backoff;

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// One attempt.
    HalfOpen,
    /// Nothing.
    Open,
}

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    backoff: Backoff,
    threshold: u32,
    /// In a row, since a connection last held.
    failures: u32,
    state: BreakerState,
    /// When the next attempt may be made.
    retry_at: Option<Instant>,
}

impl Breaker {
    /// A closed one, which opens after `threshold` failures in a row.
    pub fn new(backoff: Backoff, threshold: u32) -> Breaker {
        Breaker { backoff, threshold: threshold.max(1), failures: 0, state: BreakerState::Closed, retry_at: None }
    }

    /// What it lets through.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Failures in a row, since a connection last held.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether an attempt may be made now; an open breaker becomes half-open by it.
    pub fn attempt(&mut self, now: Instant) -> bool {
        if self.retry_at.is_some_and(|retry_at| now < retry_at) {
            return false;
        }
        if self.state == BreakerState::Open {
            self.state = BreakerState::HalfOpen;
        }
        true
    }

    /// The attempt succeeded. The failures before it stay counted until the connection [held](Breaker::held).
    pub fn connected(&mut self) {
        self.state = BreakerState::Closed;
        self.retry_at = None;
    }

    /// The connection has held for a while.
    pub fn held(&mut self) {
        self.failures = 0;
    }

    /// The attempt failed, or the connection broke. Says when the next attempt may be made.
    pub fn failed(&mut self, now: Instant, random: u64) -> Instant {
        self.failures = self.failures.saturating_add(1);
        self.state = match self.failures >= self.threshold {
            true => BreakerState::Open,
            false => BreakerState::Closed,
        };
        // A clock that cannot go on means at once.
        let retry_at = now.checked_add(self.backoff.delay(self.failures, random)).unwrap_or(now);
        self.retry_at = Some(retry_at);
        retry_at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) };
    const LATEST: u64 = u64::MAX;

    #[test]
    fn it_opens_after_so_many_failures_and_closes_after_one_success() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BACKOFF, 3);
        assert!(breaker.attempt(now));
        let retry_at = breaker.failed(now, LATEST);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(!breaker.attempt(now));
        let retry_at = breaker.failed(retry_at, LATEST);
        assert_eq!(breaker.state(), BreakerState::Closed);
        let retry_at = breaker.failed(retry_at, LATEST);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(!breaker.attempt(retry_at - Duration::from_nanos(1)));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.attempt(retry_at));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        let retry_at = breaker.failed(retry_at, LATEST);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.attempt(retry_at));
        breaker.connected();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_connection_that_does_not_hold_counts_as_failure() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(BACKOFF, 3);
        for _ in 0..3 {
            assert!(breaker.attempt(now));
            breaker.connected();
            now = breaker.failed(now, LATEST);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.attempt(now));
        breaker.connected();
        breaker.held();
        breaker.failed(now, LATEST);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Attempt,
        Connected,
        Held,
        Failed(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..2_000).prop_map(Step::Wait),
            Just(Step::Attempt),
            Just(Step::Connected),
            Just(Step::Held),
            any::<u64>().prop_map(Step::Failed),
        ]
    }

    proptest! {
        #[test]
        fn it_is_never_stuck_and_opens_only_at_its_threshold(
            threshold in 1_u32..6, steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(BACKOFF, threshold);
            for step in steps {
                match step {
                    Step::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
                    Step::Attempt => {
                        let before = breaker.state();
                        let expected = match (before, breaker.attempt(now)) {
                            (BreakerState::Open, true) => BreakerState::HalfOpen,
                            _ => before,
                        };
                        prop_assert_eq!(breaker.state(), expected);
                    }
                    Step::Connected => breaker.connected(),
                    Step::Held => breaker.held(),
                    Step::Failed(random) => {
                        let failures = breaker.failures();
                        let retry_at = breaker.failed(now, random);
                        prop_assert!(retry_at <= now + BACKOFF.max);
                        prop_assert_eq!(breaker.state() == BreakerState::Open, failures + 1 >= threshold);
                    }
                }
            }
            // However it went, an attempt is allowed soon, and a success closes it.
            prop_assert!(breaker.attempt(now + BACKOFF.max));
            prop_assert!(breaker.state() != BreakerState::Open);
            breaker.connected();
            prop_assert_eq!(breaker.state(), BreakerState::Closed);
        }
    }
}
