//! The persist thread: everything that waits goes into one batch and one sync (async ready, as TiKV does).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::apply::ApplyTask;
use super::error::GroupFailure;
use super::health::Watched;
use super::mailbox::{Closing, Input, Mailbox};
use super::metrics;
use crate::ident::GroupId;
use crate::raftstore::entry::Unhealthy;
use crate::raftstore::group::{LogRead, Persist, PersistId};
use crate::raftstore::log_store::{GroupStore, LogWrite, StoreError};
use crate::raftstore::snapshot::SnapshotId;

/// Entries gathered into one batch, in bytes; a batch may exceed it by what one turn of the driver hands over.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// With nothing written for this long, what was synced is settled.
const SETTLE_AFTER: Duration = Duration::from_millis(100);

/// What the thread is given, in order.
pub(super) enum PersistTask {
    /// What groups want written.
    Write(Vec<GroupWrites>),
    /// A group's state is wrong.
    Unhealthy(GroupId, Unhealthy),
    /// A group is destroyed. Nothing more of it comes.
    Destroy(Closing),
}

/// What a group wants written.
pub(super) struct GroupWrites {
    pub(super) group: GroupId,
    pub(super) persists: Vec<Persist>,
    pub(super) bytes: usize,
}

/// What was written to the log since the raftstore was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Synced writes.
    pub syncs: u64,
    /// Entries in all writes.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Runs until the driver is gone or a write fails.
pub(super) struct PersistThread {
    pub(super) tasks: Receiver<PersistTask>,
    pub(super) store: Arc<dyn GroupStore>,
    pub(super) mailbox: Mailbox,
    /// Bytes handed to this thread and not written.
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) written: Arc<Mutex<Written>>,
    pub(super) watched: Watched,
}

impl PersistThread {
    pub(super) fn run(self) {
        let (mut unsettled, mut next) = (false, None);
        loop {
            let first = match next.take().map_or_else(|| self.tasks.recv_timeout(SETTLE_AFTER), Ok) {
                Ok(task) => Some(task),
                Err(RecvTimeoutError::Timeout) if !unsettled => continue,
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    if let Err(error) = self.store.settle() {
                        tracing::error!(%error, "the Raft log could not be settled");
                    }
                    return;
                }
            };
            unsettled = first.is_some();
            self.watched.begin();
            let mut done = Vec::new();
            let written = match first {
                Some(PersistTask::Write(first)) => {
                    let batch;
                    (batch, next) = self.gather(first);
                    self.write(batch).map(|written| done = written)
                }
                Some(PersistTask::Unhealthy(group, unhealthy)) => self.mark_unhealthy(group, unhealthy),
                Some(PersistTask::Destroy(closing)) => self.destroy(closing),
                None => self.store.settle(),
            };
            self.watched.end();
            if !done.is_empty() {
                self.mailbox.tell(Input::Persisted(done));
            }
            if let Err(error) = written {
                // Rule of durable order 5: nothing is written after a write that failed.
                tracing::error!(%error, "a write of the Raft log failed; the raftstore stops");
                return self.mailbox.tell(Input::Stop(Arc::new(GroupFailure::Store(error))));
            }
        }
    }

    /// What waits to be written, and what else came behind it.
    fn gather(&self, first: Vec<GroupWrites>) -> (Batch, Option<PersistTask>) {
        let mut batch = Batch::default();
        first.into_iter().for_each(|writes| batch.add(writes));
        while batch.bytes < MAX_BATCH_BYTES {
            match self.tasks.try_recv() {
                Ok(PersistTask::Write(more)) => more.into_iter().for_each(|writes| batch.add(writes)),
                Ok(other) => return (batch, Some(other)),
                Err(_) => break,
            }
        }
        (batch, None)
    }

    fn mark_unhealthy(&self, group: GroupId, unhealthy: Unhealthy) -> Result<(), StoreError> {
        match self.store.mark_unhealthy(group, unhealthy, true) {
            // A snapshot took its place meanwhile, or the group is gone.
            Err(StoreError::Refused(why)) => {
                tracing::warn!(%group, why, "that its state is wrong is not noted");
                Ok(())
            }
            other => other,
        }
    }

    fn destroy(&self, closing: Closing) -> Result<(), StoreError> {
        self.store.destroy(closing.group)?;
        // Whoever waited may have gone.
        let _ = closing.answer.send(());
        Ok(())
    }

    /// Says what is done with it.
    fn write(&self, batch: Batch) -> Result<Vec<(GroupId, PersistId)>, StoreError> {
        let begun = Instant::now();
        self.store.write(&batch.writes, batch.must_sync)?;
        metrics::persisted(begun.elapsed(), batch.entries, batch.bytes, batch.must_sync);
        {
            let mut written = self.written.lock();
            written.syncs += u64::from(batch.must_sync);
            written.entries += batch.entries as u64;
            written.bytes += batch.bytes as u64;
        }
        self.queued_bytes.fetch_sub(batch.bytes, Ordering::Relaxed);
        Ok(batch.done)
    }
}

#[derive(Default)]
struct Batch {
    writes: Vec<LogWrite>,
    done: Vec<(GroupId, PersistId)>,
    must_sync: bool,
    bytes: usize,
    entries: usize,
}

impl Batch {
    fn add(&mut self, task: GroupWrites) {
        self.bytes += task.bytes;
        for persist in task.persists {
            self.must_sync |= persist.must_sync;
            self.entries += persist.entries.len();
            // Only the last number of a group matters: it stands for all before it.
            match self.done.last_mut() {
                Some((group, id)) if *group == task.group => *id = persist.id,
                _ => self.done.push((task.group, persist.id)),
            }
            self.push(task.group, persist);
        }
    }

    /// Continues the group's last write where that means the same, so that a batch has few of them.
    fn push(&mut self, group: GroupId, persist: Persist) {
        if let Some(last) = self.writes.last_mut() {
            let follows = match (last.entries.last(), persist.entries.first()) {
                (Some(last), Some(first)) => last.index().next() == first.index(),
                (None, Some(_)) | (_, None) => true,
            };
            let apart = last.truncate.is_some() || persist.truncate.is_some() || persist.restore.is_some();
            if last.group == group && follows && !apart {
                last.hard_state = persist.hard_state.or(last.hard_state);
                last.entries.extend(persist.entries);
                return;
            }
        }
        let mut write = LogWrite::new(group);
        (write.restore, write.hard_state) = (persist.restore, persist.hard_state);
        (write.entries, write.truncate) = (persist.entries, persist.truncate);
        self.writes.push(write);
    }
}

/// What the log reader is given, in order.
pub(super) enum ReadTask {
    /// A part of a group's log.
    Read(GroupId, LogRead),
    /// Captures a group's state.
    Capture(GroupId, SnapshotId),
    /// A snapshot that was filled is not wanted.
    Abandon(GroupId, SnapshotId),
    /// A group is destroyed.
    Close(Closing),
}

/// Reads parts of the log for followers that are behind, off the driver's thread, and captures states for those that
/// are further behind.
pub(super) struct LogReader {
    pub(super) tasks: Receiver<ReadTask>,
    pub(super) store: Arc<dyn GroupStore>,
    pub(super) mailbox: Mailbox,
}

impl LogReader {
    pub(super) fn run(self) {
        while let Ok(task) = self.tasks.recv() {
            if let Err(error) = self.carry_out(task) {
                tracing::error!(%error, "a read of the Raft log failed; the raftstore stops");
                return self.mailbox.tell(Input::Stop(Arc::new(GroupFailure::Store(error))));
            }
        }
    }

    fn carry_out(&self, task: ReadTask) -> Result<(), StoreError> {
        let input = match task {
            ReadTask::Read(group, read) => match self.store.entries(group, read.range.clone(), read.limit_bytes) {
                Ok(entries) => Input::LogRead { group, read, entries },
                Err(error) => of_group(group, error)?,
            },
            ReadTask::Capture(group, id) => match self.store.capture(group, id) {
                Ok(captured) => Input::Captured { group, captured: Arc::from(captured) },
                Err(error) => of_group(group, error)?,
            },
            ReadTask::Abandon(group, id) => return self.store.abandon_fill(group, id),
            ReadTask::Close(closing) => Input::NothingToRead(closing),
        };
        self.mailbox.tell(input);
        Ok(())
    }
}

/// Damage concerns its group alone; any other failure is that of the store.
fn of_group(group: GroupId, error: StoreError) -> Result<Input, StoreError> {
    match error {
        StoreError::Damaged { .. } => Ok(Input::LogDamaged { group, error }),
        other => Err(other),
    }
}

/// What the driver's threads are reached by.
pub(super) struct Workers {
    pub(super) persist: Sender<PersistTask>,
    /// One for each apply thread; never none.
    pub(super) apply: Vec<Sender<ApplyTask>>,
    pub(super) log_reader: Sender<ReadTask>,
}

impl Workers {
    /// The thread that applies a group's commands: always the same one.
    pub(super) fn apply(&self, group: GroupId) -> &Sender<ApplyTask> {
        &self.apply[self.apply_thread(group)]
    }

    /// Its number.
    pub(super) fn apply_thread(&self, group: GroupId) -> usize {
        (group.get() % self.apply.len().max(1) as u64) as usize
    }
}
