//! What ends the engine's trust in its own files, and whoever watches for it.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi;
use tokio::sync::watch;

/// How the engine's files are.
pub(super) struct Health {
    /// A sync failed: what it should have made durable may be gone from memory too, so no later one is believed.
    sync_failed: AtomicBool,
    /// Why the engine cannot go on.
    failure: watch::Sender<Option<String>>,
}

impl Health {
    /// As it is after opening.
    pub(super) fn new() -> Health {
        Health { sync_failed: AtomicBool::new(false), failure: watch::Sender::new(None) }
    }

    /// Takes note of an error of SQLite: whether it was a sync that failed.
    pub(super) fn note(&self, error: &rusqlite::Error) {
        let code = error.sqlite_error().map(|error| error.extended_code);
        if matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)) {
            self.note_failed_sync();
        }
    }

    /// A sync failed.
    pub(super) fn note_failed_sync(&self) {
        self.sync_failed.store(true, Ordering::SeqCst);
    }

    /// Whether a sync ever failed.
    pub(super) fn has_failed_sync(&self) -> bool {
        self.sync_failed.load(Ordering::SeqCst)
    }

    /// The engine cannot go on: what clients were told is not what they would read.
    pub(super) fn fail(&self, reason: &str) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| reason.to_owned());
            first
        });
    }

    /// Resolves with the reason when the engine cannot go on.
    pub(super) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        // The sender is ours, so it is there as long as anybody can wait.
        let failed = failure.wait_for(Option::is_some).await;
        failed.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_sync_ends_trust_in_syncs() {
        let health = Health::new();
        let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_INTERRUPT] {
            health.note(&failure(code));
        }
        assert!(!health.has_failed_sync());
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC] {
            let health = Health::new();
            health.note(&failure(code));
            assert!(health.has_failed_sync());
        }
    }

    #[tokio::test]
    async fn the_first_reason_is_told_also_to_who_comes_late() {
        let health = Health::new();
        health.fail("one");
        health.fail("two");
        assert_eq!(health.failed().await, "one");
    }
}
