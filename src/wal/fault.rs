//! Bugs that logs are known for, kept to prove that the tests find them: `docs/wal-faults.md` says which found which.
//!
//! Outside of tests no fault is ever active, and the compiler leaves nothing of this.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Records are called durable before they are synced.
    DurableBeforeSync,
    /// A sync that fails is tried again, and the second one, which has nothing left to write, is believed (rule 5).
    FailedSyncRetried,
    /// A failed sync fails its caller only (rule 5).
    PoisonForgotten,
    /// A flush over two segments syncs the newer only (rule 6).
    OlderNotSynced,
    /// A new segment's name is not made durable (rule 6).
    NameNotSynced,
    /// A new segment gets its name before its header is durable.
    HeaderNotSynced,
    /// A new segment gets its name before the last step of filling it is durable.
    LastStepNotSynced,
    /// A flush does not wait for copies under way before its end.
    HolePassed,
    /// A mark states what its own flush has yet to make durable.
    MarkTooHigh,
    /// No marks are written: nothing says how far the log once reached (rule 7).
    MarkMissing,
    /// The bytes behind the end stay when the log is opened (rule 7).
    TailNotErased,
    /// Segments behind the end stay when the log is opened (rule 7).
    LaterSegmentsKept,
    /// What was read from the page cache is taken for durable when the log is opened.
    NotSettled,
    /// A clean stop syncs nothing.
    CloseNotFlushed,
    /// Segments are recycled that the engine has not applied.
    RecycledTooFar,
    /// A sync of the directory that fails in recycling fails its caller only (rule 5).
    RecyclingFailureForgotten,
    /// A recycled segment is overwritten before it is durably out of the log.
    RecycledNotSynced,
    /// Bytes left over from an earlier use of the same space stay in it (rule 7).
    StaleBytesTrusted,
}

/// Whether this bug is to be there.
#[cfg(not(test))]
pub(super) const fn active(_fault: Fault) -> bool {
    false
}

/// What a thread hands to those it starts.
#[cfg(not(test))]
pub(super) const fn current() -> Option<Fault> {
    None
}

/// Takes over what the starting thread had.
#[cfg(not(test))]
pub(super) const fn set(_fault: Option<Fault>) {}

#[cfg(test)]
pub(super) use switch::{active, current, set};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local!(static CURRENT: Cell<Option<Fault>> = const { Cell::new(None) });

    pub(in super::super) fn active(fault: Fault) -> bool {
        current() == Some(fault)
    }

    pub(in super::super) fn current() -> Option<Fault> {
        CURRENT.with(Cell::get)
    }

    pub(in super::super) fn set(fault: Option<Fault>) {
        CURRENT.with(|current| current.set(fault));
    }
}
