//! The few calls of SQLite's C interface that `rusqlite` does not offer, each behind a safe function. All `unsafe` of
//! this program is here.

use std::ffi::{c_int, c_void};
use std::ptr;

use rusqlite::{Connection, ffi};

/// Slots for small allocations that each connection has from its beginning: their size in bytes and their number.
const LOOKASIDE: (c_int, c_int) = (512, 8);

/// How many deferred foreign keys the open transaction violates now: COMMIT fails unless it is 0.
pub(super) fn deferred_foreign_keys(connection: &Connection) -> rusqlite::Result<i32> {
    let (mut current, mut highest) = (0, 0);
    // SAFETY: the handle is open because `connection` is; both out-parameters are live.
    check(unsafe {
        let handle = connection.handle();
        ffi::sqlite3_db_status(handle, ffi::SQLITE_DBSTATUS_DEFERRED_FKS, &mut current, &mut highest, 0)
    })?;
    Ok(current)
}

/// Keeps small what a connection of SQLite's takes at once, because each client has one: by default that is 48 KiB for small
/// allocations (lookaside) and 87 KiB for pages, used or not. What it needs beyond that, it takes when it needs it.
///
/// To be called while the process has one thread, before anything else of SQLite's; later it fails and changes nothing.
pub fn spare_memory() -> rusqlite::Result<()> {
    let (slot_bytes, slots): (c_int, c_int) = LOOKASIDE;
    // SAFETY: nobody uses SQLite meanwhile: the only caller is the start of the process, which has no other thread yet. Both
    // options take these arguments, and no memory of ours.
    unsafe {
        check(ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, slot_bytes, slots))?;
        check(ffi::sqlite3_config(ffi::SQLITE_CONFIG_PAGECACHE, ptr::null_mut::<c_void>(), 0 as c_int, 0 as c_int))
    }
}

/// Gives memory that was freed back to the system, as far as the C library does not by itself. SQLite's comes from there.
pub(super) fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> c_int;
        }
        // SAFETY: it may be called at any time from any thread, and touches nothing that is in use. Its answer, whether there
        // was anything, is of no use.
        unsafe { malloc_trim(0) };
    }
}

fn check(code: c_int) -> rusqlite::Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(failure(code)) }
}

fn failure(code: c_int) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}
