//! Memory that nobody uses and the allocator keeps.
//!
//! What one connection frees lies between what others use, so the allocator can reuse it and does not give it back to the
//! system by itself. After many clients read much at once, that may be megabytes for each, for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::ffi;

/// Sessions that rest are waited for so long: looking through all memory takes a while, and is done once for all of them.
const GATHER: Duration = Duration::from_secs(3);

/// Somebody is about to give memory back.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// Gives memory that was freed back to the system, soon, on a thread of its own.
pub(super) fn give_back_soon() {
    if UNDER_WAY.swap(true, Ordering::AcqRel) {
        return;
    }
    let started = thread::Builder::new().name("memory".to_owned()).spawn(|| {
        thread::sleep(GATHER);
        // Before, so that whoever frees something meanwhile begins anew.
        UNDER_WAY.store(false, Ordering::Release);
        ffi::give_back_freed_memory();
    });
    if let Err(error) = started {
        UNDER_WAY.store(false, Ordering::Release);
        tracing::debug!(%error, "freed memory was not given back to the system");
    }
}
