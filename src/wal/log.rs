//! The open log: appending, flushing, waiting, closing.
//!
//! Positions: `end ≥ durable`. `end` is kept in the [`Tail`] (what a crash may lose), `durable` in [`Progress`] (what it
//! may not); the second is published only after the syncs that make it true. A cluster of one has
//! `committed = durable`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use super::cursor::{Cursor, Step};
use super::directory::SegmentDirectory;
use super::errors::{AppendError, CommitError, Failure, WalError};
use super::reader::Reader;
use super::record::{Kind, MAX_PAYLOAD_BYTES};
use super::recovery::{CutLog, Scan};
use super::retention::{self, Retained};
use super::tail::{Space, Tail, WritableSegment};
use super::{flush, prepare};
use crate::config::WalConfig;
use crate::disk::Access;
use crate::lsn::Lsn;

/// How far the log got, as waiters see it.
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
    pub tail: Mutex<Tail>,
    /// Segments, disk space or the unflushed bytes changed; for threads that wait for room.
    pub tail_changed: Condvar,
    /// The same, for tasks.
    pub room_changed: Notify,
    /// The preparing thread has something to do.
    pub prepare_wanted: Condvar,
    /// Held during a sync: one flush at a time.
    pub flushing: Mutex<()>,
    /// Up to where tasks, which cannot sync themselves, want the log flushed.
    pub flush_wanted: Mutex<FlushWanted>,
    pub flush_wanted_changed: Condvar,
    pub progress: watch::Sender<Progress>,
    pub retained: Mutex<Retained>,
}

/// What the flusher is asked for.
pub(super) struct FlushWanted {
    pub upto: Lsn,
    pub stop: bool,
}

/// A log that can be appended to.
pub struct Wal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Wal {
    /// Makes the end that was found final and opens the log for appending.
    ///
    /// # Errors
    /// The files cannot be written, synced or mapped, or a thread cannot be started.
    pub fn open(scan: Scan, config: WalConfig) -> Result<Wal, WalError> {
        let CutLog { directory, segments, end, current } = scan.cut()?;
        let layout = directory.layout();
        let current = match current {
            Some(number) => directory.open(number, Access::Write)?.map(|file| (number, file)),
            None => None,
        };
        let current = match current {
            Some((number, file)) => {
                let map = file.map(layout.segment_bytes());
                let map = map.map_err(WalError::io("map", &directory.segment_path(number)))?;
                Some(WritableSegment { number, file, map })
            }
            None => None,
        };
        let tail = Tail::new(layout, directory.timeline(), end, current);
        let shared = Arc::new(Shared {
            config,
            tail: Mutex::new(tail),
            tail_changed: Condvar::new(),
            prepare_wanted: Condvar::new(),
            room_changed: Notify::new(),
            flushing: Mutex::new(()),
            flush_wanted: Mutex::new(FlushWanted { upto: Lsn::NONE, stop: false }),
            flush_wanted_changed: Condvar::new(),
            progress: watch::Sender::new(Progress { durable: end, failure: None }),
            retained: Mutex::new(Retained::new(segments)),
            directory,
        });
        prepare::look_at_space(&shared)?;
        let wal = Wal { shared, threads: Mutex::new(Vec::new()) };
        // If the second thread does not start, dropping `wal` stops the first.
        wal.spawn("wal-prepare", prepare::run)?;
        wal.spawn("wal-flush", flush::run)?;
        Ok(wal)
    }

    fn spawn(&self, name: &str, body: fn(&Shared)) -> Result<(), WalError> {
        let shared = Arc::clone(&self.shared);
        let guarded = move || {
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

    /// Puts one record into the log and answers where it ends. Never waits and does no I/O.
    ///
    /// # Errors
    /// Nothing was appended.
    pub fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        self.shared.append(payload)
    }

    /// Waits until [`append`](Wal::append) of `len_bytes` would not be busy.
    ///
    /// # Errors
    /// Waiting is pointless.
    pub async fn room(&self, len_bytes: usize) -> Result<(), AppendError> {
        loop {
            let changed = self.shared.room_changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change is missed in between.
            changed.as_mut().enable();
            let (admitted, end) = {
                let mut tail = self.shared.tail.lock();
                (self.shared.admit(&mut tail, len_bytes), tail.end())
            };
            match admitted {
                Err(AppendError::Busy { .. }) => self.shared.want_flush(end),
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
        let mut tail = self.shared.tail.lock();
        loop {
            match self.shared.admit(&mut tail, len_bytes) {
                Err(AppendError::Busy { .. }) => self.shared.want_flush(tail.end()),
                other => return other,
            }
            self.shared.tail_changed.wait(&mut tail);
        }
    }

    /// Where the log ends: what was appended, durable or not.
    pub fn end(&self) -> Lsn {
        self.shared.tail.lock().end()
    }

    /// Everything before this survives a crash.
    pub fn durable(&self) -> Lsn {
        self.shared.progress.borrow().durable
    }

    /// Waits until everything before `upto` is durable. Cancelling the wait changes nothing in the log.
    ///
    /// # Errors
    /// It is not known to be, and will not be.
    pub async fn wait_durable(&self, upto: Lsn) -> Result<(), CommitError> {
        let mut progress = self.shared.progress.subscribe();
        if self.shared.is_durable(upto)? {
            return Ok(());
        }
        self.shared.want_flush(upto);
        // The sender lives in `self`, so the channel cannot close under us.
        let reached = progress.wait_for(|progress| progress.durable >= upto || progress.failure.is_some()).await;
        match reached.ok().and_then(|progress| progress.failure.clone()) {
            // What was durable before the failure stays so.
            Some(_) if self.durable() >= upto => Ok(()),
            Some(failure) => Err(CommitError::Poisoned(failure)),
            None => Ok(()),
        }
    }

    /// Makes everything before `upto` durable, syncing by itself if nobody else is.
    ///
    /// # Errors
    /// It is not known to be, and will not be.
    pub fn make_durable(&self, upto: Lsn) -> Result<(), CommitError> {
        while !self.shared.is_durable(upto)? {
            self.shared.flush(upto).map_err(CommitError::Poisoned)?;
        }
        Ok(())
    }

    /// Resolves when the log has failed; never, if it does not.
    pub async fn failed(&self) -> Failure {
        let mut progress = self.shared.progress.subscribe();
        loop {
            if let Some(failure) = progress.borrow_and_update().failure.clone() {
                return failure;
            }
            if progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reads records from `from` on, which must be where a record starts or the one before it ends, and follows the
    /// live end. It never passes the durable LSN.
    pub fn reader(&self, from: Lsn) -> Reader {
        Reader::new(Arc::clone(&self.shared), from)
    }

    /// Removes segments that neither `checkpoint` nor the bytes to keep need any more, and answers how many.
    ///
    /// # Errors
    /// A file could not be removed, or it is not known to be: the disk is failing.
    pub fn recycle(&self, checkpoint: Lsn) -> Result<usize, WalError> {
        let layout = self.shared.directory.layout();
        let mut retained = self.shared.retained.lock();
        let horizon = retention::horizon(checkpoint, self.durable(), self.shared.config.keep_bytes);
        let recyclable = retained.recyclable(layout, horizon);
        for number in &recyclable {
            self.shared.directory.remove(*number)?;
            retained.remove(*number);
        }
        Ok(recyclable.len())
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
        let end = {
            let mut tail = self.shared.tail.lock();
            tail.closed = true;
            tail.end()
        };
        let closed = self.shared.flush(end).and_then(|()| self.shared.flush_last_mark());
        self.halt();
        closed.map_err(WalError::Poisoned)
    }

    /// Stops the log where it stands, as a crash would: on return nothing is written to its files any more by this
    /// process, nothing more becomes durable, and everybody who waits has been told.
    pub fn halt(&self) {
        self.shared.halt();
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
    fn append(&self, payload: &[u8]) -> Result<Lsn, AppendError> {
        let mut tail = self.tail.lock();
        self.admit(&mut tail, payload.len())?;
        let (at, appended) = (tail.end(), tail.append(Kind::Data, payload));
        if tail.to_prepare().is_some() {
            self.prepare_wanted.notify_one();
        }
        drop(tail);
        appended.map_err(|error| AppendError::Poisoned(self.fail_at("append to", at, error)))
    }

    /// Whether a record of this length may be appended now.
    fn admit(&self, tail: &mut Tail, len_bytes: usize) -> Result<(), AppendError> {
        if let Some(failure) = self.failure() {
            return Err(AppendError::Poisoned(failure));
        }
        if tail.closed {
            return Err(AppendError::Fenced);
        }
        let limit_bytes = self.config.max_record_bytes.min(MAX_PAYLOAD_BYTES);
        if len_bytes as u64 > limit_bytes {
            return Err(AppendError::TooLarge { len_bytes, limit_bytes });
        }
        if tail.affordable == 0 {
            return Err(AppendError::DiskFull);
        }
        // A record larger than the bound is admitted when nothing else waits.
        let unsynced = tail.end().bytes_since(self.durable());
        let too_much = unsynced > 0 && unsynced + len_bytes as u64 > self.config.max_unsynced_bytes;
        match tail.space_for(len_bytes) {
            Space::DiskFull => Err(AppendError::DiskFull),
            Space::Prepared if !too_much => Ok(()),
            Space::Prepared => Err(AppendError::Busy { len_bytes }),
            Space::InPreparation => {
                self.prepare_wanted.notify_one();
                Err(AppendError::Busy { len_bytes })
            }
        }
    }

    pub(super) fn durable(&self) -> Lsn {
        self.progress.borrow().durable
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.progress.borrow().failure.clone()
    }

    /// Whether everything before `upto` is durable.
    fn is_durable(&self, upto: Lsn) -> Result<bool, CommitError> {
        let progress = self.progress.borrow().clone();
        if progress.durable >= upto {
            return Ok(true);
        }
        if let Some(failure) = progress.failure {
            return Err(CommitError::Poisoned(failure));
        }
        let end = self.tail.lock().end();
        if upto > end { Err(CommitError::BeyondEnd { wanted: upto, end }) } else { Ok(false) }
    }

    fn want_flush(&self, upto: Lsn) {
        let mut wanted = self.flush_wanted.lock();
        if wanted.upto < upto {
            wanted.upto = upto;
            self.flush_wanted_changed.notify_one();
        }
    }

    /// Tells everybody who waits for room to look again. The caller does not hold the tail.
    pub(super) fn notify_room(&self) {
        // A thread between looking and waiting holds the tail: passing through it means that it is told.
        drop(self.tail.lock());
        self.tail_changed.notify_all();
        self.room_changed.notify_waiters();
    }

    /// [`fail`](Shared::fail) for an operation on the segment that holds `at`.
    pub(super) fn fail_at(&self, doing: &'static str, at: Lsn, error: io::Error) -> Failure {
        let path = self.directory.segment_path(self.directory.layout().segment_of(at));
        self.fail(WalError::io(doing, &path)(error))
    }

    /// Poisons the log (rule 5): the first cause stays, every later call gets it. The caller does not hold the tail.
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
        self.tail.lock().closed = true;
        self.flush_wanted.lock().stop = true;
        self.flush_wanted_changed.notify_all();
        // A flush under way ends first; none begins afterwards.
        let _no_flush = self.flushing.lock();
        self.end_with(Failure::new(WalError::Closed));
    }

    /// Notes why the log takes nothing more, unless that is known already, and tells everybody. Answers the first
    /// cause.
    fn end_with(&self, failure: Failure) -> Failure {
        let mut first = failure.clone();
        self.progress.send_modify(|progress| first = progress.failure.get_or_insert(failure).clone());
        self.prepare_wanted.notify_all();
        self.notify_room();
        first
    }
}
