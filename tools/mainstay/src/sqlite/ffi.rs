//! The few calls of SQLite's C interface that `rusqlite` does not offer, each behind a safe function. All `unsafe` of
//! this program is here.
//!
//! `rusqlite` has a session of its own, but without the option that makes it see tables without a primary key, and it
//! borrows the connection, which a transaction that spans many calls cannot do. [`CaptureConnection`] owns both instead.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, ffi};

use super::STATE_TABLE;

/// Slots for small allocations that each connection has from its beginning: their size in bytes and their number.
const LOOKASIDE: (c_int, c_int) = (512, 8);

/// A connection and, while a transaction runs on it, the session that captures what it changes in `main`.
///
/// The session is declared first: it is dropped before the connection it belongs to.
pub(super) struct CaptureConnection {
    session: Option<RawSession>,
    connection: Connection,
}

impl CaptureConnection {
    /// Takes over a connection on which nothing is captured.
    pub(super) fn new(connection: Connection) -> CaptureConnection {
        CaptureConnection { session: None, connection }
    }

    /// The connection. A shared reference only: nobody may move it away from under its session.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Captures from now on, with or without primary keys, forgetting what was captured so far. Tables that `excluded`
    /// names when they are first touched are left out.
    ///
    /// Statements that may run while capturing must be prepared while capturing: SQLite compiles `DELETE FROM t`
    /// into an erasure that no session sees if none is there.
    pub(super) fn start(&mut self, excluded: Arc<Mutex<Vec<String>>>) -> rusqlite::Result<()> {
        self.session = None;
        self.session = Some(RawSession::new(&self.connection, excluded)?);
        Ok(())
    }

    /// Captures no more and forgets what was captured.
    pub(super) fn stop(&mut self) {
        self.session = None;
    }

    /// What was captured since the start, as a changeset; empty if nothing, or if nothing is being captured.
    pub(super) fn changeset(&self) -> rusqlite::Result<Vec<u8>> {
        self.session.as_ref().map_or(Ok(Vec::new()), RawSession::changeset)
    }
}

struct RawSession {
    raw: NonNull<ffi::sqlite3_session>,
    /// What the filter looks at. SQLite holds a pointer to it as long as `raw` lives, so it is kept here.
    excluded: Arc<Mutex<Vec<String>>>,
}

// SAFETY: SQLite asks that no two threads use a connection and its sessions at once, not that it is always the same one.
// A session lives and moves with its connection, and needs the same `&mut` or lock to be reached.
unsafe impl Send for RawSession {}

impl RawSession {
    /// The caller drops it before `connection`.
    fn new(connection: &Connection, excluded: Arc<Mutex<Vec<String>>>) -> rusqlite::Result<RawSession> {
        let mut raw = ptr::null_mut();
        // SAFETY: the handle is open because `connection` is; the name is a C string; `raw` takes the answer.
        check(unsafe { ffi::sqlite3session_create(connection.handle(), c"main".as_ptr(), &mut raw) })?;
        let raw = NonNull::new(raw).ok_or_else(|| failure(ffi::SQLITE_NOMEM))?;
        let session = RawSession { raw, excluded };
        let mut on: c_int = 1;
        // SAFETY: the session is live and has no table yet, as this option asks; the argument points to an int.
        check(unsafe {
            ffi::sqlite3session_object_config(
                session.raw.as_ptr(),
                ffi::SQLITE_SESSION_OBJCONFIG_ROWID,
                ptr::from_mut(&mut on).cast::<c_void>(),
            )
        })?;
        let context = Arc::as_ptr(&session.excluded).cast_mut().cast::<c_void>();
        // SAFETY: `context` stays valid as long as the session, which holds the Arc, and `is_captured` only reads it.
        unsafe { ffi::sqlite3session_table_filter(session.raw.as_ptr(), Some(is_captured), context) };
        // SAFETY: the session is live; a null name attaches every table.
        check(unsafe { ffi::sqlite3session_attach(session.raw.as_ptr(), ptr::null()) })?;
        Ok(session)
    }

    fn changeset(&self) -> rusqlite::Result<Vec<u8>> {
        let mut length: c_int = 0;
        let mut buffer: *mut c_void = ptr::null_mut();
        // SAFETY: the session is live; both out-parameters are.
        check(unsafe { ffi::sqlite3session_changeset(self.raw.as_ptr(), &mut length, &mut buffer) })?;
        let bytes = match usize::try_from(length) {
            // SAFETY: SQLite answered a buffer of `length` bytes, which is ours until it is freed below.
            Ok(length) if !buffer.is_null() => unsafe {
                std::slice::from_raw_parts(buffer.cast::<c_uchar>(), length).to_vec()
            },
            _ => Vec::new(),
        };
        // SAFETY: the buffer came from SQLite's allocator, or is null, which is allowed.
        unsafe { ffi::sqlite3_free(buffer) };
        Ok(bytes)
    }
}

impl Drop for RawSession {
    fn drop(&mut self) {
        // SAFETY: the session is live and this is its end; its connection still is, by the order of fields above.
        unsafe { ffi::sqlite3session_delete(self.raw.as_ptr()) };
    }
}

/// SQLite's own tables follow from the schema and the rows of the others, or travel in a part of their own; the state
/// table differs between nodes.
unsafe extern "C" fn is_captured(context: *mut c_void, table: *const c_char) -> c_int {
    // SAFETY: SQLite hands out the context given to sqlite3session_table_filter and a C string, both valid now.
    let (excluded, table) = unsafe { (&*context.cast::<Mutex<Vec<String>>>(), CStr::from_ptr(table)) };
    // SQLite stores names as it was given them, in UTF-8, because statements reach it as `str`.
    let table = table.to_string_lossy();
    let own = table.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sqlite_"));
    let left_out = excluded.lock().iter().any(|name| name.eq_ignore_ascii_case(&table));
    c_int::from(!own && !left_out && !table.eq_ignore_ascii_case(STATE_TABLE))
}

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
