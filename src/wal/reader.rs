//! Reading the log while it is written: from any record on, up to the durable LSN and never past it.

use std::sync::Arc;

use tokio::sync::watch;

use super::cursor::{Cursor, Gap, Step};
use super::errors::WalError;
use super::log::{Progress, Shared};
use super::record::{Kind, Record};
use crate::lsn::Lsn;

/// Reads the engine's records in order and follows the live end.
pub struct Reader {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    cursor: Cursor,
}

impl Reader {
    /// A reader from `from` on. The segment and offset follow from the LSN alone.
    pub(super) fn new(shared: Arc<Shared>, from: Lsn) -> Reader {
        let cursor = Cursor::new(shared.directory.clone(), from);
        Reader { progress: shared.progress.subscribe(), cursor, shared }
    }

    /// Where the next record starts, or will.
    pub fn position(&self) -> Lsn {
        self.cursor.position()
    }

    /// The next record of the engine that is durable now; `None` if there is none.
    ///
    /// # Errors
    /// The log is damaged there, has been recycled, or cannot be read.
    pub fn next_durable(&mut self) -> Result<Option<Record>, WalError> {
        let durable = self.progress.borrow_and_update().durable;
        loop {
            if self.cursor.position() >= durable {
                return Ok(None);
            }
            match self.cursor.next(durable)? {
                Step::Record(record) if record.kind == Kind::Data => {
                    return Ok(Some(Record { start: record.start, end: record.end, payload: record.payload }));
                }
                Step::Record(_) => {}
                Step::Nothing(gap) => return Err(self.explain(*gap)),
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

    /// What it means that no record is where a durable one must be.
    fn explain(&self, gap: Gap) -> WalError {
        let layout = self.shared.directory.layout();
        let oldest = self.shared.retained.lock().oldest();
        match oldest.filter(|oldest| layout.segment_of(gap.start) < *oldest) {
            Some(oldest) => {
                let oldest = layout.record_start(layout.segment_start(oldest));
                WalError::Recycled { wanted: gap.start, oldest }
            }
            None => WalError::Damaged(Box::new(gap.damage)),
        }
    }
}
