//! What reservation is built of. The tests of its concurrency put loom's in place of these.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
pub(super) use std::thread::yield_now;

/// Looks at the slots before a waiting thread goes to sleep: a copy of a small record is over sooner than that.
pub(super) const SPINS: usize = 64;
