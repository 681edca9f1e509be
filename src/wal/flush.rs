//! Making the log durable: one sync for everything that was appended before it began.
//!
//! A committing thread that finds nobody syncing does it by itself, because handing the work to another thread and
//! back costs more than the sync on a fast device; everybody who commits meanwhile waits for the lock and mostly finds
//! his record durable when he gets it. Tasks cannot sync, so a flusher thread does it for them.

use std::io;

use super::errors::Failure;
use super::log::Shared;
use super::tail::{Flush, Tail};
use crate::lsn::Lsn;

impl Shared {
    /// Makes everything before `upto`, and whatever else was appended, durable.
    pub(super) fn flush(&self, upto: Lsn) -> Result<(), Failure> {
        let _one_at_a_time = self.flushing.lock();
        // Somebody else may have done it, or failed, while we waited.
        if self.durable() >= upto {
            return Ok(());
        }
        self.flush_locked(Tail::begin_flush)
    }

    /// Ends the log with a mark and answers where that is.
    pub(super) fn flush_last_mark(&self) -> Result<Lsn, Failure> {
        let _one_at_a_time = self.flushing.lock();
        self.flush_locked(Tail::begin_last_flush)?;
        Ok(self.durable())
    }

    fn flush_locked(&self, begin: fn(&mut Tail, Lsn) -> io::Result<Option<Flush>>) -> Result<(), Failure> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let durable = self.durable();
        let begun = {
            let mut tail = self.tail.lock();
            let begun = begin(&mut tail, durable);
            if tail.to_prepare().is_some() {
                self.prepare_wanted.notify_one();
            }
            begun
        };
        let flush = match begun.map_err(|error| self.fail_at("append a mark to", durable, error))? {
            Some(flush) => flush,
            None => return Ok(()),
        };
        // Rule 6: the older segment first. Were the newer one durable alone, a crash would leave records behind a
        // hole, and their mark would state a durable position that is none.
        for (number, file) in &flush.files {
            // Rule 5: after a failed sync nothing is ever called durable again.
            let layout = self.directory.layout();
            file.sync().map_err(|error| self.fail_at("sync", layout.segment_start(*number), error))?;
        }
        self.progress.send_modify(|progress| progress.durable = flush.upto);
        self.notify_room();
        Ok(())
    }
}

/// The flusher thread: flushes what tasks wait for, until told to stop or the log has failed.
pub(super) fn run(shared: &Shared) {
    loop {
        let upto = {
            let mut wanted = shared.flush_wanted.lock();
            while !wanted.stop && wanted.upto <= shared.durable() {
                shared.flush_wanted_changed.wait(&mut wanted);
            }
            if wanted.stop {
                return;
            }
            wanted.upto
        };
        if shared.flush(upto).is_err() {
            return;
        }
    }
}
