//! The tables as of one moment, for as long as somebody needs them.
//!
//! A snapshot of RocksDB borrows the database, so nobody can own both in safe code. A thread can have both on its stack: it
//! takes the snapshot, and then reads for whoever asks, one after the other. It waits for nothing but them, and ends with
//! the value that stands for it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::error::StorageError;
use super::store::Storage;
use super::tables::TablesAt;

type Job = Box<dyn FnOnce(TablesAt<'_>) + Send>;

/// The tables as of one moment. RocksDB keeps what was in them until this is dropped.
pub struct Frozen {
    storage: Arc<Storage>,
    /// `None` only while it is dropped.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Frozen {
    /// The tables as of a moment between call and return.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn new(storage: Arc<Storage>) -> Result<Frozen, StorageError> {
        let (jobs, received) = sync_channel(0);
        let (begun, begins) = sync_channel(1);
        let of_thread = Arc::clone(&storage);
        let serve = move || {
            of_thread.tables().at_this_moment(|tables| {
                // Whoever waits for this gave up: there will be no jobs either.
                let _ = begun.send(());
                serve(tables, &received);
            });
        };
        let path = storage.tables().path();
        let thread = thread::Builder::new().name("snapshot".into()).spawn(serve);
        let thread = thread.map_err(StorageError::io("start a thread to read", path))?;
        let frozen = Frozen { jobs: Some(jobs), thread: Some(thread), storage };
        match begins.recv() {
            Ok(()) => Ok(frozen),
            Err(_) => Err(frozen.ended()),
        }
    }

    /// Reads, behind those who asked before.
    ///
    /// # Errors
    /// The thread ended, which it does only if an earlier reader panicked.
    pub fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(TablesAt<'_>) -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        let (answer, answered) = sync_channel(1);
        let job: Job = Box::new(move |tables| {
            let _ = answer.send(read(tables));
        });
        // A job that nobody takes is dropped, and no answer comes.
        drop(self.jobs.as_ref().map(|jobs| jobs.send(job)));
        answered.recv().map_err(|_| self.ended())
    }

    fn ended(&self) -> StorageError {
        StorageError::io("read a snapshot of", self.storage.tables().path())(io::Error::other("its thread ended"))
    }
}

fn serve(tables: TablesAt<'_>, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job(tables);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // Waited for, so that whoever drops this and then the storage can open the directory again.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Durability, Family};

    #[test]
    fn a_moment_outlasts_changes_and_a_reader_that_panics_and_lets_go_of_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let storage = Arc::new(Storage::open(place.path(), 1 << 20).unwrap());
        let write = |value: &[u8]| {
            let mut batch = storage.batch().unwrap();
            batch.put(Family::Kv, b"key", value);
            storage.write(batch, Durability::Buffered).unwrap();
        };
        write(b"old");
        let frozen = Frozen::new(Arc::clone(&storage)).unwrap();
        write(b"new");
        let value = |frozen: &Frozen| frozen.read(|tables| tables.get(Family::Kv, b"key", <[u8]>::to_vec).unwrap());
        assert_eq!(value(&frozen).unwrap(), Some(b"old".to_vec()));
        assert!(frozen.read(|_| panic!("a reader's mistake")).is_err());
        assert!(value(&frozen).is_err(), "its thread is gone");
        let (other, last) = (Frozen::new(Arc::clone(&storage)).unwrap(), storage.clone());
        drop((frozen, storage, last));
        assert_eq!(value(&other).unwrap(), Some(b"new".to_vec()));
        drop(other);
        Storage::open(place.path(), 1 << 20).unwrap();
    }
}
