//! The open log: appending, flushing, waiting, closing.
//!
//! Positions: `end ≥ durable`. `end` is kept in the [`Tail`] (what a crash may lose), `durable` in [`Shared`] and, for
//! readers, in [`Progress`] (what it may not); the second is published only after the syncs that make it true. A
//! cluster of one has `committed = durable`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use super::cursor::{AnyRecord, Cursor, Step};
use super::directory::SegmentDirectory;
use super::errors::{AppendError, CommitError, Failure, WalError};
use super::fault::{self, Fault, active};
use super::flush::{self, Durable};
use super::holders::{Hold, Retained};
use super::measures::Measures;
use super::prepare;
use super::reader::Reader;
use super::record::{Kind, MAX_PAYLOAD_BYTES};
use super::recovery::{CutLog, Scan};
use super::reservation::{CLOSED, FAILED, FULL, Refused};
use super::retention::{Decision, HolderKind};
use super::scrub::{self, Scrub};
use super::search::record_at_or_before;
use super::tail::{Obstacle, Tail, WritableSegment};
use super::waiters::Waiters;
use super::watchdog::{self, Health, Watchdog};
use crate::config::WalConfig;
use crate::disk::Access;
use crate::lsn::Lsn;

/// How many segments' bytes may wait for a sync, and be appended at once: each segment that is written keeps a file
/// open until it is durable, and a process may have as few as 1024 files.
const MAX_OPEN_SEGMENTS: u64 = 256;

/// How far the log got, as readers see it.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Everything before it survives a crash.
    pub durable: Lsn,
    /// Set once, for good: the log failed (rule 5), or was closed.
    pub failure: Option<Failure>,
}

/// What the log's threads share.
pub(super) struct Shared {
    pub directory: SegmentDirectory,
    pub config: WalConfig,
    pub tail: Tail,
    /// Everything before it survives a crash. Published before [`Progress`] and before anybody is woken.
    durable: AtomicU64,
    pub waiters: Waiters,
    pub watchdog: Watchdog,
    pub scrub: Scrub,
    pub progress: watch::Sender<Progress>,
    /// Changes once, after [`Progress`] has the failure: who waits for that alone is not woken at each flush.
    ended: watch::Sender<bool>,
    /// How often segments, disk space or the unflushed bytes changed.
    room: Mutex<u64>,
    /// It did; for threads that wait for room.
    room_changed: Condvar,
    /// The same, for tasks.
    room_notify: Notify,
    pub retained: Arc<Retained>,
    pub measures: Measures,
}

/// A log that can be appended to.
pub struct Wal {
    pub(super) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Wal {
    /// Makes the end that was found final and opens the log for appending.
    ///
    /// # Errors
    /// The files cannot be written or synced, or a thread cannot be started.
    pub fn open(scan: Scan, config: WalConfig) -> Result<Wal, WalError> {
        let CutLog { directory, segments, end, current } = scan.cut()?;
        let layout = directory.layout();
        let current = match current {
            Some(number) => directory.open(number, Access::Write)?.map(|file| (number, file)),
            None => None,
        };
        let current = current.map(|(number, file)| WritableSegment { number, file });
        let tail = Tail::new(layout, directory.timeline(), end, current);
        let shared = Arc::new(Shared {
            tail,
            durable: AtomicU64::new(end.get()),
            waiters: Waiters::new(),
            watchdog: Watchdog::new(config.sync_limit),
            scrub: Scrub::new(config.scrub_bytes_per_second),
            progress: watch::Sender::new(Progress { durable: end, failure: None }),
            ended: watch::Sender::new(false),
            room: Mutex::new(0),
            room_changed: Condvar::new(),
            room_notify: Notify::new(),
            retained: Arc::new(Retained::new(layout, segments)),
            measures: Measures::new(),
            directory,
            config,
        });
        prepare::look_at_space(&shared)?;
        let wal = Wal { shared, threads: Mutex::new(Vec::new()) };
        // If one thread does not start, dropping `wal` stops the others.
        wal.spawn("wal-prepare", prepare::run)?;
        wal.spawn("wal-flush", flush::run)?;
        wal.spawn("wal-watchdog", watchdog::run)?;
        wal.spawn("wal-scrub", scrub::run)?;
        Ok(wal)
    }

    fn spawn(&self, name: &str, body: fn(&Shared)) -> Result<(), WalError> {
        let shared = Arc::clone(&self.shared);
        let fault = fault::current();
        let guarded = move || {
            fault::set(fault);
            // Whoever waits for this thread must hear of its end.
            if catch_unwind(AssertUnwindSafe(|| body(&shared))).is_err() {
                shared.fail_at("work on", Lsn::NONE, io::Error::other("a thread of the log panicked"));
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(guarded);
        let path = self.shared.directory.segment_path(super::SegmentNumber::FIRST);
        self.threads.lock().push(thread.map_err(WalError::io("start a thread for", &path))?);
        Ok(())
    }

    /// Puts one record into the log and answers where it ends. Never waits; a small record takes no allocation and no system
    /// call, unless megabytes wait for a flush already. Many threads may do so at once.
    ///
    /// # Errors
    /// Nothing was appended, but for [`AppendError::Unknown`].
    pub fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        self.shared.append(&[payload])
    }

    /// Puts records into the log, one behind the other with nothing between them but marks of no other, all or none,
    /// and answers where the last one ends. A crash before they are durable may keep any number of the first of them.
    /// All of them together may not be longer than 256 segments.
    ///
    /// # Errors
    /// Nothing was appended, but for [`AppendError::Unknown`]: then any number of the first of them may be found when
    /// the log is opened again.
    pub fn append_many(&self, payloads: &[&[u8]]) -> Result<Lsn, AppendError> {
        self.shared.append(payloads)
    }

    /// Waits until [`append`](Wal::append) of `len_bytes` would not be busy.
    ///
    /// # Errors
    /// Waiting is pointless.
    pub async fn room(&self, len_bytes: usize) -> Result<(), AppendError> {
        loop {
            let changed = self.shared.room_notify.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change is missed in between.
            changed.as_mut().enable();
            match self.shared.admit(len_bytes) {
                Err(AppendError::Busy { .. }) => self.shared.waiters.want(self.end()),
                other => return other,
            }
            changed.await;
        }
    }

    /// [`room`](Wal::room) for plain threads.
    ///
    /// # Errors
    /// Waiting is pointless.
    pub fn room_blocking(&self, len_bytes: usize) -> Result<(), AppendError> {
        loop {
            let seen = *self.shared.room.lock();
            match self.shared.admit(len_bytes) {
                Err(AppendError::Busy { .. }) => self.shared.waiters.want(self.end()),
                other => return other,
            }
            let mut changes = self.shared.room.lock();
            while *changes == seen {
                self.shared.room_changed.wait(&mut changes);
            }
        }
    }

    /// Where the log ends: what was appended, durable or not.
    pub fn end(&self) -> Lsn {
        self.shared.tail.end()
    }

    /// Everything before this survives a crash.
    pub fn durable(&self) -> Lsn {
        self.shared.durable()
    }

    /// Waits until everything before `upto` is durable. Cancelling the wait changes nothing in the log.
    ///
    /// # Errors
    /// It is not known to be, and will not be.
    pub async fn wait_durable(&self, upto: Lsn) -> Result<(), CommitError> {
        Durable::new(&self.shared, upto).await
    }

    /// Makes everything before `upto` durable, syncing by itself if nobody else is.
    ///
    /// # Errors
    /// It is not known to be, and will not be.
    pub fn make_durable(&self, upto: Lsn) -> Result<(), CommitError> {
        self.shared.make_durable(upto)
    }

    /// Makes everything durable that was appended before, by whomever, and answers up to where that is.
    ///
    /// # Errors
    /// It is not known to be, and will not be.
    pub fn sync(&self) -> Result<Lsn, CommitError> {
        let end = self.end();
        self.shared.make_durable(end)?;
        Ok(end)
    }

    /// How the log is.
    pub fn health(&self) -> Health {
        match (self.shared.failure(), self.shared.hangs()) {
            (Some(failure), _) => Health::Failed(failure),
            (None, Some((_, since))) => Health::Hangs { since },
            (None, None) => self.shared.scrub.damage().map_or(Health::Good, Health::Damaged),
        }
    }

    /// Resolves when the log has failed; never, if it does not.
    pub async fn failed(&self) -> Failure {
        let mut ended = self.shared.ended.subscribe();
        loop {
            if let Some(failure) = self.shared.failure() {
                return failure;
            }
            if ended.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reads records from `from` on, which must be where a record starts or the one before it ends, and follows the
    /// live end. It never passes the durable LSN. What it has not read is kept for it, as for any [`Hold`].
    pub fn reader(&self, from: Lsn) -> Reader {
        self.named_reader(&format!("from {from}"), from)
    }

    /// A [`reader`](Wal::reader) that is called `name` where it is said who keeps the log.
    pub fn named_reader(&self, name: &str, from: Lsn) -> Reader {
        Reader::new(Arc::clone(&self.shared), name, from)
    }

    /// Keeps the log from `from` on for somebody called `name`, until what is answered is dropped or invalidated.
    ///
    /// # Errors
    /// [`WalError::Recycled`]: it is not there any more. [`WalError::TooManyHolders`]: too many hold it already.
    pub fn hold(&self, kind: HolderKind, name: &str, from: Lsn) -> Result<Hold, WalError> {
        self.shared.retained.hold(kind, name, from)
    }

    /// What could be recycled now, and who keeps the rest.
    pub fn retention(&self, checkpoint: Lsn) -> Decision {
        self.shared.retained.decide(checkpoint, self.durable(), &self.shared.config)
    }

    /// The last record, of whatever kind, that starts at `lsn` or before it and is durable; `None` if there is none.
    ///
    /// # Errors
    /// [`WalError::Recycled`] where the log does not reach back far enough; or it is damaged or cannot be read.
    pub fn record_at_or_before(&self, lsn: Lsn) -> Result<Option<AnyRecord>, WalError> {
        let Shared { directory, retained, .. } = self.shared.as_ref();
        let found = record_at_or_before(directory, lsn, self.durable());
        found.map_err(|error| match (&error, retained.oldest()) {
            // Recycled while it was read.
            (WalError::Damaged(damage), Some(oldest)) if damage.lsn < oldest => {
                WalError::Recycled { wanted: lsn, oldest }
            }
            _ => error,
        })
    }

    /// Takes segments out of the log that nobody needs any more, as [`retention`](super::retention) decides, and answers
    /// how many. Holders that keep too much are invalidated. Some segments are filled again in the background and come
    /// back as later ones.
    ///
    /// # Errors
    /// [`WalError::Io`]: there were no file descriptors or no memory left, and nothing was done. Any other: a file could
    /// not be renamed or removed, or is not known to be, and the log has failed.
    pub fn recycle(&self, checkpoint: Lsn) -> Result<usize, WalError> {
        let shared = &self.shared;
        if let Some(failure) = shared.failure() {
            return Err(WalError::Poisoned(failure));
        }
        let checkpoint = if active(Fault::RecycledTooFar) { self.durable() } else { checkpoint };
        shared.retained.recycle(shared, checkpoint).map_err(|error| {
            if error.is_passing() || active(Fault::RecyclingFailureForgotten) {
                return error;
            }
            // Rule 5: what the directory's sync was to write may be lost, and a later one would succeed without it.
            WalError::Poisoned(shared.fail(error))
        })
    }

    /// Whether a record starts or ends at `lsn`, within what is durable.
    ///
    /// # Errors
    /// The log cannot be read there.
    pub fn is_boundary(&self, lsn: Lsn) -> Result<bool, WalError> {
        let durable = self.durable();
        if lsn == durable || lsn == self.shared.directory.layout().first_record() {
            return Ok(true);
        }
        let mut cursor = Cursor::new(self.shared.directory.clone(), lsn);
        Ok(lsn < durable && matches!(cursor.next(durable)?, Step::Record(_)))
    }

    /// Makes everything durable, ends the log with a last mark, stops as [`halt`](Wal::halt) does, and answers where
    /// the log ends: evidence of a clean stop, if the caller notes it.
    ///
    /// # Errors
    /// Something could not be made durable.
    pub fn close(&self) -> Result<Lsn, WalError> {
        // With the gate closed the position moves no more but by marks.
        self.shared.tail.close_gates(CLOSED);
        let closed = if active(Fault::CloseNotFlushed) { Ok(self.end()) } else { self.shared.flush_all() };
        self.halt();
        closed.map_err(WalError::Poisoned)
    }

    /// Stops the log where it stands, as a crash would: on return nothing is written to its files any more by this
    /// process, nothing more becomes durable, and everybody who waits has been told.
    pub fn halt(&self) {
        self.shared.halt();
        self.shared.watchdog.stop();
        self.shared.scrub.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log had panicked");
            }
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Shared {
    fn append(&self, payloads: &[&[u8]]) -> Result<Lsn, AppendError> {
        let len_bytes = self.check_len(payloads)?;
        let lens = || payloads.iter().map(|payload| payload.len());
        let reserved = self.tail.reserve(CLOSED | FAILED | FULL, |at| self.admit_at(at, lens()));
        let copying = reserved.map_err(|refused| self.explain(refused, len_bytes))?;
        let mut at = Lsn::new(copying.start());
        for payload in payloads {
            match self.tail.copy(Kind::Data, at, payload) {
                Ok(end) => at = end,
                Err(error) => {
                    // Poisoned first: who waits for this copy must not take it for complete.
                    let failure = self.fail_at("append to", at, error);
                    copying.finish();
                    // What was copied before may be found again, whole, as far as nothing before it is missing.
                    return Err(AppendError::Unknown(failure));
                }
            }
        }
        copying.finish();
        Ok(at)
    }

    /// Whether no record is too long, nor all of them together; answers the sum of their lengths.
    fn check_len(&self, payloads: &[&[u8]]) -> Result<usize, AppendError> {
        let lens = || payloads.iter().map(|payload| payload.len());
        let sum = lens().fold(0, usize::saturating_add);
        let record_limit = self.max_record_bytes();
        let too_large = lens().find(|len| *len as u64 > record_limit).map(|len| (len, record_limit));
        let (len_bytes, limit_bytes) = match too_large {
            Some(too_large) => too_large,
            None if sum as u64 > self.max_open_bytes() => (sum, self.max_open_bytes()),
            None => return Ok(sum),
        };
        // What will never be accepted again comes before what is wrong with this record.
        Err(match self.tail.gates() & (CLOSED | FAILED) {
            0 => AppendError::TooLarge { len_bytes, limit_bytes },
            gates => self.explain(Refused::Gates(gates), len_bytes),
        })
    }

    /// The longest record that is accepted.
    fn max_record_bytes(&self) -> u64 {
        self.config.max_record_bytes.min(MAX_PAYLOAD_BYTES).min(self.max_open_bytes())
    }

    /// The length of the segments that may be open for writing.
    fn max_open_bytes(&self) -> u64 {
        MAX_OPEN_SEGMENTS.saturating_mul(self.directory.layout().segment_bytes())
    }

    /// Where records of these lengths end if they are appended at `at` now.
    fn admit_at(&self, at: Lsn, lens: impl Iterator<Item = usize> + Clone) -> Result<Lsn, Obstacle> {
        let end = self.tail.fit(at, lens.clone())?;
        // What is larger than the bound is admitted when nothing else waits.
        let unsynced = at.bytes_since(self.durable());
        let len_bytes: u64 = lens.map(|len| len as u64).sum();
        let limit_bytes = self.config.max_unsynced_bytes.min(self.max_open_bytes());
        if unsynced > 0 && unsynced + len_bytes > limit_bytes {
            return Err(Obstacle::Unsynced);
        }
        Ok(end)
    }

    /// Whether a record of this length may be appended now.
    fn admit(&self, len_bytes: usize) -> Result<(), AppendError> {
        let limit_bytes = self.max_record_bytes();
        let (at, gates) = (self.tail.end(), self.tail.gates());
        if gates & (CLOSED | FAILED) == 0 && len_bytes as u64 > limit_bytes {
            return Err(AppendError::TooLarge { len_bytes, limit_bytes });
        }
        let admitted = match gates {
            0 => self.admit_at(at, std::iter::once(len_bytes)).map_err(Refused::Decided),
            gates => Err(Refused::Gates(gates)),
        };
        admitted.map(|_| ()).map_err(|refused| self.explain(refused, len_bytes))
    }

    /// Why nothing of `len_bytes` was appended; asks for the segments that it needs.
    fn explain(&self, refused: Refused<Obstacle>, len_bytes: usize) -> AppendError {
        match refused {
            Refused::Gates(gates) if gates & FAILED != 0 => AppendError::Poisoned(self.why_failed()),
            Refused::Gates(gates) if gates & CLOSED != 0 => AppendError::Fenced,
            Refused::Gates(_) => AppendError::DiskFull,
            Refused::Decided(Obstacle::Unprepared(last)) if !self.tail.want_if_affordable(last) => {
                AppendError::DiskFull
            }
            Refused::Decided(obstacle) => {
                if let Obstacle::Unprepared(_) = obstacle {
                    self.watchdog.miss_segment();
                }
                AppendError::Busy { len_bytes }
            }
        }
    }

    pub(super) fn durable(&self) -> Lsn {
        Lsn::new(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.progress.borrow().failure.clone()
    }

    /// The failure of a log that is known to have failed.
    pub(super) fn why_failed(&self) -> Failure {
        let broken_off = || io::Error::other("a thread died in the middle of a record");
        self.failure().unwrap_or_else(|| self.fail_at("append to", self.tail.end(), broken_off()))
    }

    /// Whether everything before `upto` is durable.
    pub(super) fn is_durable(&self, upto: Lsn) -> Result<bool, CommitError> {
        if self.durable() >= upto {
            return Ok(true);
        }
        if let Some(failure) = self.failure() {
            // What was durable before the failure stays so.
            return if self.durable() >= upto { Ok(true) } else { Err(CommitError::Poisoned(failure)) };
        }
        let end = self.tail.end();
        if upto > end { Err(CommitError::BeyondEnd { wanted: upto, end }) } else { Ok(false) }
    }

    /// Everything before `upto` is durable now: says so, then wakes who waited for it.
    pub(super) fn publish(&self, upto: Lsn) {
        self.durable.store(upto.get(), Ordering::Release);
        self.progress.send_modify(|progress| progress.durable = upto);
        self.waiters.wake(upto);
        self.notify_room();
    }

    fn flush_all(&self) -> Result<Lsn, Failure> {
        let Some(turn) = self.waiters.take_turn() else { return Err(self.why_failed()) };
        self.flush(&turn)?;
        self.flush_last_mark(&turn)
    }

    /// Tells everybody who waits for room to look again.
    pub(super) fn notify_room(&self) {
        *self.room.lock() += 1;
        self.room_changed.notify_all();
        self.room_notify.notify_waiters();
    }

    /// [`fail`](Shared::fail) for an operation on the segment that holds `at`.
    pub(super) fn fail_at(&self, doing: &'static str, at: Lsn, error: io::Error) -> Failure {
        let path = self.directory.segment_path(self.directory.layout().segment_of(at));
        self.fail(WalError::io(doing, &path)(error))
    }

    /// Poisons the log (rule 5): the first cause stays, every later call gets it.
    pub(super) fn fail(&self, cause: WalError) -> Failure {
        let failure = Failure::new(cause);
        let first = self.end_with(failure.clone());
        if first.is(&failure) {
            tracing::error!("{failure}");
        }
        first
    }

    /// Ends the log without a fault.
    fn halt(&self) {
        let end = self.tail.close_gates(CLOSED);
        // Nobody writes to the files any more: copies under way end, and so does a flush.
        self.tail.wait_complete(end);
        self.waiters.stop();
        self.end_with(Failure::new(WalError::Closed));
    }

    /// Notes why the log takes nothing more, unless that is known already, and tells everybody. Answers the first
    /// cause.
    fn end_with(&self, failure: Failure) -> Failure {
        let mut first = failure.clone();
        self.progress.send_modify(|progress| first = progress.failure.get_or_insert(failure).clone());
        self.ended.send_replace(true);
        self.tail.close_gates(FAILED);
        self.waiters.wake(Lsn::new(u64::MAX));
        self.notify_room();
        first
    }
}
