//! When the engine's files are made durable: by WAL volume, by time, and when that makes room on a full disk. And
//! recycling the WAL behind them, whenever somebody who needed it does not any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::config::CheckpointConfig;
use crate::engine::Engine;
use crate::lsn::Lsn;
use crate::node::NodeError;
use crate::storage::Storage;
use crate::wal::Wal;

/// How often the volume is looked at, and what of the WAL is needed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two checkpoints for the sake of a full disk.
const RELIEF_INTERVAL: Duration = Duration::from_secs(5);

/// The thread that makes checkpoints.
pub(crate) struct Checkpointer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works on.
struct Work {
    config: CheckpointConfig,
    engine: Arc<dyn Engine>,
    wal: Arc<Wal>,
    storage: Arc<Storage>,
    /// When the last checkpoint was tried, and where the log ended.
    tried: (Instant, Lsn),
    /// The last checkpoint that was noted.
    noted: Lsn,
}

impl Checkpointer {
    /// Starts the thread. A failure that the node cannot live with goes to `failed`.
    pub(crate) fn start(
        config: CheckpointConfig,
        engine: Arc<dyn Engine>,
        wal: Arc<Wal>,
        storage: Arc<Storage>,
        failed: watch::Sender<Option<Arc<NodeError>>>,
    ) -> Result<Checkpointer, NodeError> {
        let checkpoint = storage.checkpoint()?;
        let mut work = Work { config, engine, wal, storage, tried: (Instant::now(), checkpoint), noted: checkpoint };
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let told = Arc::clone(&stop);
        let body = move || {
            while !wait(&told) {
                let done = catch_unwind(AssertUnwindSafe(|| work.step()));
                match done.unwrap_or(Err(NodeError::Panicked("a checkpoint"))) {
                    Ok(()) => {}
                    // There were no descriptors or no memory: the next look may find some.
                    Err(NodeError::Wal(error)) if error.is_passing() => {
                        tracing::warn!("no log is recycled now, this is tried again: {error}");
                    }
                    Err(error) => {
                        tracing::error!("checkpoints have stopped: {error}");
                        failed.send_replace(Some(Arc::new(error)));
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(body);
        let thread = thread.map_err(|source| NodeError::Io { doing: "start the checkpoint thread".into(), source })?;
        Ok(Checkpointer { stop, thread: Some(thread) })
    }

    /// Stops the thread, after the checkpoint it is at.
    pub(crate) fn stop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread had panicked");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Notes a checkpoint durably, if it can be one. What is noted decides which log is deleted and from where it is
/// read at the next start, so an engine's mistake must not get past this.
pub(crate) fn note(storage: &Storage, wal: &Wal, answered: Lsn) -> Result<(), NodeError> {
    let (noted, durable) = (storage.checkpoint()?, wal.durable());
    if answered == noted {
        return Ok(());
    }
    if answered < noted || answered > durable || !wal.is_boundary(answered)? {
        return Err(NodeError::BadCheckpoint { answered, noted, durable });
    }
    Ok(storage.note_checkpoint(answered)?)
}

/// Waits for the next look; answers whether to stop.
fn wait(stop: &(Mutex<bool>, Condvar)) -> bool {
    let mut stopped = stop.0.lock();
    if !*stopped {
        stop.1.wait_for(&mut stopped, LOOK_INTERVAL);
    }
    *stopped
}

impl Work {
    /// Makes a checkpoint if one is due, and recycles what nobody needs.
    fn step(&mut self) -> Result<(), NodeError> {
        let durable = self.wal.durable();
        if self.is_due(durable) {
            self.checkpoint(durable)?;
        }
        // Not only after a checkpoint: on a full disk nothing is written, so none is due, and writes resume only when
        // what a holder has let go of is recycled.
        let recycled = self.wal.recycle(self.noted)?;
        if recycled > 0 {
            tracing::info!(recycled, "recycled segments of the WAL");
        }
        Ok(())
    }

    /// Whether a checkpoint is due when the log is durable up to there.
    fn is_due(&self, durable: Lsn) -> bool {
        let (when, end) = self.tried;
        let (volume, age) = (durable.bytes_since(end), when.elapsed());
        if volume == 0 {
            return false;
        }
        // A full disk takes no more volume, so waiting for that would be waiting for the time.
        volume >= self.config.wal_bytes
            || age >= self.config.interval
            || (age >= RELIEF_INTERVAL && self.wal.is_full() && self.would_relieve(durable))
    }

    /// Whether a checkpoint would let segments go that the last one keeps.
    fn would_relieve(&self, durable: Lsn) -> bool {
        self.wal.retention(durable).recyclable().len() > self.wal.retention(self.noted).recyclable().len()
    }

    fn checkpoint(&mut self, durable: Lsn) -> Result<(), NodeError> {
        self.tried = (Instant::now(), durable);
        match self.engine.checkpoint() {
            Ok(checkpoint) => {
                note(&self.storage, &self.wal, checkpoint)?;
                self.noted = checkpoint;
                tracing::info!(%checkpoint, took_ms = when_ms(self.tried.0), "checkpoint");
            }
            // The WAL is kept, so nothing is lost by trying again when the next one is due.
            Err(error) => tracing::warn!("the engine could not make a checkpoint, the WAL is kept: {error}"),
        }
        Ok(())
    }
}

fn when_ms(start: Instant) -> u64 {
    start.elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config::WalConfig;
    use crate::disk::lossy::{Faults, LossyDisk};
    use crate::engine::EngineError;
    use crate::primary::Primary;
    use crate::wal::testing::{SEGMENT_BYTES, config, open_with, payload, poll};
    use crate::wal::{AppendError, Evidence, Record};

    /// Has applied whatever is durable, and counts its checkpoints.
    struct Counting {
        wal: Arc<Wal>,
        checkpoints: AtomicUsize,
    }

    impl Engine for Counting {
        fn applied(&self) -> Result<Lsn, EngineError> {
            Ok(self.wal.durable())
        }

        fn apply(&self, _records: &[Record]) -> Result<(), EngineError> {
            Ok(())
        }

        fn checkpoint(&self) -> Result<Lsn, EngineError> {
            self.checkpoints.fetch_add(1, Ordering::Relaxed);
            Ok(self.wal.durable())
        }

        fn promote(&self, _primary: Primary) -> Result<(), EngineError> {
            Ok(())
        }

        fn demote(&self) {}
    }

    /// What the thread works on, with a log on a disk that has room for twelve segments, and the engine.
    fn work(place: &std::path::Path, keep_bytes: u64) -> (Work, Arc<Counting>) {
        let disk = LossyDisk::new(Faults { capacity_bytes: Some(12 * SEGMENT_BYTES), ..Faults::default() });
        let wal = open_with(&disk, Evidence::default(), WalConfig { keep_bytes, ..config() }).unwrap();
        let wal = Arc::new(wal);
        let engine = Arc::new(Counting { wal: Arc::clone(&wal), checkpoints: AtomicUsize::new(0) });
        let work = Work {
            config: CheckpointConfig { wal_bytes: 1 << 30, interval: Duration::from_secs(3600) },
            engine: Arc::clone(&engine) as Arc<dyn Engine>,
            wal,
            storage: Arc::new(Storage::open(place, SEGMENT_BYTES).unwrap()),
            tried: (Instant::now(), Lsn::NONE),
            noted: Lsn::NONE,
        };
        (work, engine)
    }

    fn fill(wal: &Wal) {
        loop {
            match wal.append(&payload(1, 900)) {
                Ok(end) => wal.make_durable(end).unwrap(),
                Err(AppendError::Busy { .. }) => std::thread::yield_now(),
                Err(AppendError::DiskFull) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_full_disk_is_relieved_by_a_checkpoint_and_not_by_many() {
        let place = tempfile::tempdir().unwrap();
        let (mut work, engine) = work(place.path(), 0);
        let count = || engine.checkpoints.load(Ordering::Relaxed);
        let long_ago = || Instant::now().checked_sub(RELIEF_INTERVAL).unwrap();
        work.wal
            .make_durable(loop {
                if let Ok(end) = work.wal.append(&payload(0, 900)) {
                    break end;
                }
            })
            .unwrap();
        work.tried.0 = long_ago();
        work.step().unwrap();
        assert_eq!(count(), 0, "the disk is not full");
        fill(&work.wal);
        work.tried.0 = Instant::now();
        work.step().unwrap();
        assert_eq!(count(), 0, "one was tried a moment ago");
        work.tried.0 = long_ago();
        work.step().unwrap();
        assert_eq!(count(), 1, "the disk stays full");
        assert!(work.tried.0.elapsed() < RELIEF_INTERVAL && work.noted == work.wal.durable());
        poll("writes do not resume", || !work.wal.is_full());
        work.tried.0 = long_ago();
        work.step().unwrap();
        assert_eq!(count(), 1, "nothing was written since");
    }

    #[test]
    fn a_full_disk_is_no_reason_for_a_checkpoint_that_frees_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (mut work, engine) = work(place.path(), 1 << 30);
        fill(&work.wal);
        work.tried.0 = Instant::now().checked_sub(RELIEF_INTERVAL).unwrap();
        work.step().unwrap();
        assert_eq!(engine.checkpoints.load(Ordering::Relaxed), 0);
    }
}
