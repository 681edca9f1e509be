//! Making the log durable: one sync for everything that was appended before it began. See `waiters` for who does it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use super::errors::{CommitError, Failure, WalError};
use super::fault::{Fault, active};
use super::log::Shared;
use super::record::{self, Kind};
use super::reservation::{Copying, FAILED, Refused};
use super::tail::{Obstacle, Tail};
use super::waiters::{Flushing, Place, Turn, Waiters};
use crate::lsn::Lsn;

/// Below so many waiters, none is kept waiting for others.
const GATHERED_FROM: usize = 8;

/// Which part of the waiters seen lately a flush waits for, in percent.
const GATHERED_PERCENT: usize = 75;

/// The longest that a flush waits for more waiters, however slow the device.
const GATHER_LIMIT: Duration = Duration::from_micros(200);

impl Shared {
    /// Makes everything before `upto`, and whatever else was appended, durable.
    pub(super) fn make_durable(&self, upto: Lsn) -> Result<(), CommitError> {
        let is_settled = || self.durable() >= upto || self.failure().is_some();
        while !self.is_durable(upto)? {
            match self.waiters.enter(upto, is_settled) {
                Turn::Settled => {}
                Turn::Flush(turn) => self.flush(&turn).map_err(CommitError::Poisoned)?,
                Turn::Wait => {
                    while !is_settled() {
                        thread::park();
                    }
                }
            }
        }
        Ok(())
    }

    /// Flushes what is not durable, if anything, however little the caller itself appended.
    pub(super) fn flush(&self, turn: &Flushing<'_>) -> Result<(), Failure> {
        let durable = self.durable();
        self.flush_with_mark(turn, |tail| {
            let mark = tail.reserve_mark(durable)?;
            Ok((mark, durable))
        })
    }

    /// Ends the log with a mark and answers where that is.
    pub(super) fn flush_last_mark(&self, turn: &Flushing<'_>) -> Result<Lsn, Failure> {
        let durable = self.durable();
        self.flush_with_mark(turn, |tail| {
            let mark = tail.reserve_last_mark()?;
            Ok((mark, durable))
        })?;
        Ok(self.durable())
    }

    /// All of it is watched: a copy that hangs, of somebody else or of the mark, keeps a flush as long as a sync does.
    fn flush_with_mark<'a>(
        &'a self,
        _turn: &Flushing<'_>,
        reserve: impl FnOnce(&'a Tail) -> Result<(Copying<'a>, Lsn), Refused<Obstacle>>,
    ) -> Result<(), Failure> {
        let (before, began) = (self.durable(), Instant::now());
        let flushed = self.watchdog.watch(|| self.flush_watched(reserve));
        self.measures.flushed(began.elapsed(), self.durable().bytes_since(before));
        flushed
    }

    fn flush_watched<'a>(
        &'a self,
        reserve: impl FnOnce(&'a Tail) -> Result<(Copying<'a>, Lsn), Refused<Obstacle>>,
    ) -> Result<(), Failure> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let Ok((mark, durable)) = reserve(&self.tail) else { return Ok(()) };
        let upto = Lsn::new(mark.end());
        let start = Lsn::new(mark.start());
        let stated = if active(Fault::MarkTooHigh) { start } else { durable };
        let kind = if active(Fault::MarkMissing) { Kind::Pad } else { Kind::Mark };
        let copied = self.tail.copy(kind, start, &record::encode_mark(stated));
        let copied = copied.map_err(|error| self.fail_at("append a mark to", durable, error));
        mark.finish();
        copied?;
        // Copies under way before the mark end first: behind a hole nothing is durable.
        if !active(Fault::HolePassed) {
            self.tail.wait_complete(upto);
        }
        if self.tail.gates() & FAILED != 0 {
            return Err(self.why_failed());
        }
        self.tail.write(upto).map_err(|(at, error)| self.fail_at("write to", at, error))?;
        if active(Fault::DurableBeforeSync) {
            self.publish(upto);
        }
        let layout = self.directory.layout();
        // Rule 6: the older segment first. Were the newer one durable alone, a crash would leave records behind a
        // hole, and their mark would state a durable position that is none.
        let mut files = self.tail.files(durable, upto);
        if active(Fault::OlderNotSynced) {
            files.drain(..files.len() - 1);
        }
        for segment in files {
            // Rule 5: after a failed sync nothing is ever called durable again.
            self.watchdog.restart();
            let mut synced = segment.file.sync();
            if active(Fault::FailedSyncRetried) {
                synced = synced.or_else(|_| segment.file.sync());
            }
            if let (true, Err(error)) = (active(Fault::PoisonForgotten), &synced) {
                return Err(Failure::new(WalError::io("sync", &self.directory.segment_path(segment.number))(
                    error.kind().into(),
                )));
            }
            synced.map_err(|error| self.fail_at("sync", layout.segment_start(segment.number), error))?;
        }
        self.publish(upto);
        self.tail.retire(upto);
        Ok(())
    }
}

/// Waits until the log is durable up to a position. Dropping it changes nothing in the log.
pub(super) struct Durable<'a> {
    shared: &'a Arc<Shared>,
    upto: Lsn,
    place: Option<Place>,
}

impl<'a> Durable<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, upto: Lsn) -> Durable<'a> {
        Durable { shared, upto, place: None }
    }
}

impl Future for Durable<'_> {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Durable { shared, upto, place } = &mut *self;
        loop {
            match shared.is_durable(*upto) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            let is_settled = || shared.durable() >= *upto || shared.failure().is_some();
            if shared.waiters.enqueue(*upto, place, context.waker(), is_settled) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Durable<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shared.waiters.leave(place);
        }
    }
}

/// The flusher thread: flushes what somebody waits for and nobody flushes, until told to stop or the log has failed.
pub(super) fn run(shared: &Shared) {
    let mut sync_took = Duration::ZERO;
    while let Some(turn) = shared.waiters.next_turn(|| shared.durable()) {
        gather(&shared.waiters, sync_took);
        let began = Instant::now();
        if shared.flush(&turn).is_err() {
            return;
        }
        sync_took = began.elapsed();
    }
}

/// Under load, waits a moment for committers who were just woken and are about to append again: they go into one sync
/// with those who wait already, and not each half into its own.
fn gather(waiters: &Waiters, sync_took: Duration) {
    let expected = waiters.last_seen() * GATHERED_PERCENT / 100;
    let limit = (sync_took / 2).min(GATHER_LIMIT);
    if expected < GATHERED_FROM || waiters.len() >= expected {
        return;
    }
    let began = Instant::now();
    while waiters.len() < expected && began.elapsed() < limit {
        // They need the processor more than we do.
        thread::yield_now();
    }
}
