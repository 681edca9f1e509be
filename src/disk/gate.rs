//! An operation of the lossy disk that hangs for as long as a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

/// Where one operation hangs until it is let go.
#[derive(Default)]
pub struct Gate {
    is_reached: AtomicBool,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Hangs there.
    pub fn pass(&self) {
        self.is_reached.store(true, Ordering::Release);
        let mut is_open = self.is_open.lock();
        while !*is_open {
            self.opened.wait(&mut is_open);
        }
    }
}

/// One operation hangs while this lives; others do not.
pub struct Hanging(Arc<Gate>);

impl Hanging {
    /// At that gate.
    pub fn new(gate: &Arc<Gate>) -> Hanging {
        Hanging(Arc::clone(gate))
    }

    /// Whether somebody hangs there by now.
    pub fn is_reached(&self) -> bool {
        self.0.is_reached.load(Ordering::Acquire)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        *self.0.is_open.lock() = true;
        self.0.opened.notify_all();
    }
}
