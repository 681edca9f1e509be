//! Who turns the driver.
//!
//! Its own thread does at every tick, and whenever there is much to do. But it takes longer to wake a thread, some 30 µs, than to
//! turn the driver, and a command alone on its way woke thirteen threads one after the other, from the client through two nodes and
//! back: five of them for the driver's sake. So while a node has next to nothing to do, whoever brings an input takes the
//! driver's seat: the task that proposes, the connection that a message came from, the thread that has written the log or
//! applied a command.
//!
//! One sits there at a time. Nobody but the driver's own thread waits for the seat; who finds it taken calls that thread. An
//! input is in the mailbox before its bringer looks at the seat, so none is left behind. With more to do, gathering is worth
//! more than a short way: then the thread is called at once.
//!
//! A turn waits for nothing, so it may happen on threads of an async runtime. Who turns one driver and brings something to
//! another, as nodes of one process do, calls the other's thread: they do not turn each other.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Instant;

use parking_lot::Mutex;

use super::driver::Driver;
use super::error::GroupFailure;

/// Inputs that someone else than the driver's thread takes before that one is called.
const MAX_INPUTS_IN_PASSING: usize = 64;

thread_local! {
    /// This thread turns a driver.
    static IS_TURNING: Cell<bool> = const { Cell::new(false) };
}

/// See the module.
#[derive(Default)]
pub(super) struct Seat {
    /// `None` before it starts, and once it has stopped.
    driver: Mutex<Option<Box<Driver>>>,
    /// There is something for the driver's thread to do.
    is_called: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Seat {
    /// The driver's thread: turns it until it stops.
    pub(super) fn run(&self, driver: Driver) {
        *self.driver.lock() = Some(Box::new(driver));
        let _ = self.thread.set(thread::current());
        loop {
            // Before it looks: who calls from now on is heard.
            self.is_called.store(false, Ordering::SeqCst);
            let Some(next_tick) = self.turn_until_tick() else { return };
            if !self.is_called.load(Ordering::SeqCst) {
                thread::park_timeout(next_tick.saturating_duration_since(Instant::now()));
            }
        }
    }

    fn turn_until_tick(&self) -> Option<Instant> {
        let mut seat = self.driver.lock();
        let driver = seat.take()?;
        *seat = turn(driver, Driver::turn_and_tick);
        seat.as_ref().map(|driver| driver.next_tick)
    }

    /// Turns the driver here and now, unless somebody does.
    pub(super) fn turn_in_passing(&self) {
        if IS_TURNING.get() {
            return self.call();
        }
        let Some(mut seat) = self.driver.try_lock() else { return self.call() };
        // Before the start its thread finds everything, after the end nobody has to.
        let Some(driver) = seat.take() else { return };
        *seat = turn(driver, |driver| driver.turn_inputs(MAX_INPUTS_IN_PASSING));
        if seat.is_none() {
            // It ends, too.
            self.call();
        }
    }

    /// Calls the driver's thread.
    pub(super) fn call(&self) {
        if !self.is_called.swap(true, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// A driver that panicked is gone, and everyone who waits hears "unknown".
fn turn(driver: Box<Driver>, act: impl FnOnce(Box<Driver>) -> Option<Box<Driver>>) -> Option<Box<Driver>> {
    let failure = driver.failure.clone();
    IS_TURNING.set(true);
    let turned = catch_unwind(AssertUnwindSafe(|| act(driver)));
    IS_TURNING.set(false);
    turned.unwrap_or_else(|_| {
        failure.send_replace(Some(Arc::new(GroupFailure::Panicked("driver"))));
        None
    })
}
