//! How long what a client does may take, and the clock of a statement.

use std::pin::Pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use super::backend::Interrupt;
use super::connection::GOOD_PART_BYTES;
use super::error::{SqlError, SqlState};

/// How long what a client does may take. Zero stands for any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A statement, from its beginning to its end; then it ends with 57014. Default any time.
    pub statement: Duration,
    /// Waiting for a lock that others hold; then the statement ends with 55P03. Default 5 s. It is up to sessions.
    pub lock: Duration,
    /// Between two messages of a transaction; then the connection ends with 25P03. Default 60 s.
    pub idle_in_transaction: Duration,
    /// Between two messages outside of transactions; then the connection ends with 57P05. Default any time.
    pub idle_session: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            statement: Duration::ZERO,
            lock: Duration::from_secs(5),
            idle_in_transaction: Duration::from_secs(60),
            idle_session: Duration::ZERO,
        }
    }
}

/// The clock of the statement that runs. The session's thread starts and stops it; the connection's task waits for it.
#[derive(Default)]
pub(super) struct Clock {
    state: Mutex<State>,
    started: Notify,
}

#[derive(Default)]
struct State {
    /// When the statement that runs is to be interrupted.
    runs_out: Option<Instant>,
    /// It was.
    ran_out: bool,
}

impl Clock {
    /// A statement begins that may take so long.
    pub(super) fn start(&self, timeout: Duration) {
        *self.state.lock() = State { runs_out: Some(Instant::now() + timeout), ran_out: false };
        self.started.notify_one();
    }

    /// The statement is over; it will not be interrupted any more. Answers whether it was.
    pub(super) fn stop(&self) -> bool {
        std::mem::take(&mut *self.state.lock()).ran_out
    }

    /// Waits until the time of a statement has run out.
    pub(super) async fn run_out(&self) {
        loop {
            let runs_out = self.state.lock().runs_out;
            match runs_out {
                Some(at) if at <= Instant::now() => return,
                Some(at) => {
                    tokio::select! {
                        () = sleep_until(at) => {}
                        () = self.started.notified() => {}
                    }
                }
                None => self.started.notified().await,
            }
        }
    }

    /// Interrupts the statement whose time has run out; answers whether there was one. It may have to be called again: an
    /// interrupt may come before there is anything to interrupt.
    pub(super) fn interrupt(&self, interrupt: &dyn Interrupt) -> bool {
        // Under the lock, so that it meets no later statement.
        let mut state = self.state.lock();
        let is_out = state.runs_out.is_some_and(|at| at <= Instant::now());
        if is_out {
            state.ran_out = true;
            interrupt.interrupt();
        }
        is_out
    }
}

/// Waits for a deadline that is put off again and again. The timer stays where it was set, and is set anew only when it goes
/// off too early: setting one wakes the thread that looks after timers, which takes longer than a short statement.
#[derive(Default)]
pub(super) struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Waits until `ends_at`; for ever without one. It may be dropped half-way.
    pub(super) async fn run_out(&mut self, ends_at: Option<Instant>) {
        let Some(ends_at) = ends_at else { return std::future::pending().await };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(ends_at)));
        if timer.deadline() > ends_at {
            timer.as_mut().reset(ends_at);
        }
        loop {
            timer.as_mut().await;
            if timer.deadline() >= ends_at {
                return;
            }
            timer.as_mut().reset(ends_at);
        }
    }
}

/// What a client is told whose message did not come on.
pub(super) fn stalled() -> SqlError {
    SqlError::fatal(SqlState::PROTOCOL_VIOLATION, "terminating connection: the rest of a message did not come in time")
}

/// Looks whether a message that has begun comes on.
#[derive(Default)]
pub(super) struct Stall {
    /// When the client will have sent too little of it for too long.
    pub(super) ends_at: Option<Instant>,
    /// So much came since that was set.
    taken_bytes: usize,
}

impl Stall {
    /// So much came, and the rest has so long.
    pub(super) fn took(&mut self, count: usize, timeout: Duration) {
        self.taken_bytes = self.taken_bytes.saturating_add(count);
        if self.ends_at.is_none() || self.taken_bytes >= GOOD_PART_BYTES {
            *self = Stall { ends_at: Some(Instant::now() + timeout), taken_bytes: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Interrupt for Count {
        fn interrupt(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn only_a_statement_whose_time_ran_out_is_interrupted() {
        let (clock, count) = (Arc::new(Clock::default()), Count::default());
        assert!(!clock.interrupt(&count) && !clock.stop());
        clock.start(Duration::from_secs(3600));
        assert!(!clock.interrupt(&count));
        assert!(!clock.stop());
        // Somebody waits before the next one begins.
        let shared = Arc::clone(&clock);
        let waits = tokio::spawn(async move { shared.run_out().await });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        let begun = Instant::now();
        clock.start(Duration::from_millis(20));
        waits.await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert!(clock.interrupt(&count) && clock.interrupt(&count));
        assert!(clock.stop());
        assert!(!clock.interrupt(&count) && !clock.stop());
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_deadline_is_kept_however_often_it_was_put_off() {
        let (mut patience, begun) = (Patience::default(), Instant::now());
        let after = |millis| Some(begun + Duration::from_millis(millis));
        for put_off in [20, 40, 60] {
            // Dropped half-way, as when a message comes first.
            tokio::select! {
                biased;
                () = patience.run_out(after(put_off)) => panic!("it ran out at once"),
                () = std::future::ready(()) => {}
            }
        }
        patience.run_out(after(80)).await;
        assert!(begun.elapsed() >= Duration::from_millis(80));
        // The timer has gone off; and a deadline that is nearer than the last one counts, too.
        let far = tokio::time::timeout(Duration::from_millis(1), patience.run_out(after(3_600_000))).await;
        assert!(far.is_err());
        patience.run_out(after(100)).await;
        assert!(begun.elapsed() >= Duration::from_millis(100));
        let never = tokio::time::timeout(Duration::from_millis(1), patience.run_out(None)).await;
        assert!(never.is_err());
    }

    #[test]
    fn a_message_that_comes_on_has_its_time_again_with_each_good_part() {
        let mut stall = Stall::default();
        stall.took(1, Duration::from_secs(60));
        let first = stall.ends_at.unwrap();
        stall.took(GOOD_PART_BYTES - 1, Duration::from_secs(60));
        assert_eq!(stall.ends_at, Some(first));
        stall.took(1, Duration::from_secs(120));
        assert!(stall.ends_at.unwrap() > first);
    }
}
