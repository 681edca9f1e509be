//! Reading the log while it is written: from any record on, up to the durable LSN and never past it.
//!
//! What a reader has not read yet is not recycled under it: it is a holder of the log. One that falls back too far is
//! invalidated, and says so. What it has read it owns, whatever becomes of the segment.
//!
//! It reads through the file, into a buffer, and not through a map. A mapped read of a sector that went bad kills
//! the process, where a read answers an error that names the place. Nor is a map faster: what system calls wrote
//! is not mapped yet, and a fault for each page costs more than the copy (4.7 GB/s
//! against 8.0 with records of 4 KiB, checksums included). Only where all pages are mapped already is it (17 GB/s), far
//! beyond what a log is written with.

use std::sync::Arc;

use tokio::sync::watch;

use super::cursor::{Cursor, Step};
use super::errors::WalError;
use super::holders::Hold;
use super::log::{Progress, Shared};
use super::record::{Kind, Record};
use super::retention::HolderKind;
use crate::lsn::Lsn;

/// Reads the engine's records in order and follows the live end.
pub struct Reader {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    cursor: Cursor,
    /// Keeps what was not read yet; or why that was not possible.
    hold: Result<Hold, WalError>,
}

impl Reader {
    /// A reader from `from` on. The segment and offset follow from the LSN alone.
    pub(super) fn new(shared: Arc<Shared>, name: &str, from: Lsn) -> Reader {
        let hold = shared.retained.hold(HolderKind::Reader, name, from);
        let cursor = Cursor::new(shared.directory.clone(), from);
        Reader { progress: shared.progress.subscribe(), cursor, hold, shared }
    }

    /// Where the next record starts, or will.
    pub fn position(&self) -> Lsn {
        self.cursor.position()
    }

    /// The next record of the engine that is durable now; `None` if there is none.
    ///
    /// # Errors
    /// The log has been recycled there, or is damaged, or cannot be read. [`WalError::Recycled`] and
    /// [`WalError::Invalidated`] say what the oldest position is that can be read.
    pub fn next_durable(&mut self) -> Result<Option<Record>, WalError> {
        let durable = self.progress.borrow_and_update().durable;
        self.check()?;
        loop {
            if self.cursor.position() >= durable {
                return Ok(None);
            }
            match self.cursor.next(durable) {
                Ok(Step::Record(record)) => {
                    if let Ok(hold) = &self.hold {
                        // What it has in hand it may keep; the next call finds out that it is invalidated.
                        let _ = hold.advance(record.end);
                    }
                    if record.kind == Kind::Data {
                        return Ok(Some(Record { start: record.start, end: record.end, payload: record.payload }));
                    }
                }
                Ok(Step::Nothing(gap)) => return Err(self.explain(WalError::Damaged(Box::new(gap.damage)))),
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    /// Waits until more is durable than at the last call of [`next_durable`](Reader::next_durable).
    ///
    /// # Errors
    /// The log has failed: nothing more will be durable.
    pub async fn wait(&mut self) -> Result<(), WalError> {
        while self.cursor.position() >= self.progress.borrow_and_update().durable {
            if let Some(failure) = self.shared.failure() {
                return Err(WalError::Poisoned(failure));
            }
            // The sender lives in `shared`, so the channel cannot close under us.
            let _ = self.progress.changed().await;
        }
        Ok(())
    }

    /// What it means that no record is where a durable one must be: its segment may have been filled anew meanwhile.
    fn explain(&self, error: WalError) -> WalError {
        self.check().err().unwrap_or(error)
    }

    /// Whether what was not read yet is kept.
    fn check(&self) -> Result<(), WalError> {
        match &self.hold {
            Ok(hold) => hold.check(),
            Err(error) => Err(error.clone()),
        }
    }
}
