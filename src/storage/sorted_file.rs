//! Files of sorted pairs that RocksDB takes over as they are.
//!
//! What goes through a batch is written twice, to RocksDB's log and out of its memory, and every synced write behind it
//! waits for its part of the log. Much that nobody sees yet is better written to a file of its own, once.
//!
//! Durable facts and their order: the file, synced; its name among RocksDB's, the directory synced; RocksDB's manifest that
//! makes it a part of the family, synced. When [`Ingesting::wait`] returns, all of them are. If we die before the last, a
//! start removes the file, under both names. What the log holds decides nothing here: whoever needs a note of theirs to be
//! there whenever the file's pairs are syncs it before.
//!
//! **Evidence.** RocksDB may give the pairs of a file a sequence number (when keys or removed ranges lie under them), and the
//! manifest then says that this number was reached, whatever became of the log: a loss of synced writes would pass
//! unnoticed. So each file is followed by a write that the evidence covers, whose number no manifest knows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use rocksdb::{DBCompressionType, IngestExternalFileOptions, Options, SstFileWriter, WriteBatch};

use super::error::StorageError;
use super::notes;
use super::store::{LOCAL, Storage};
use super::tables::{Durability, Family};

/// Where files are made, below RocksDB's directory: a hard link must do to take them over.
const DIRECTORY: &str = "ingest";

/// A file that is being written. Dropped before it is taken over, it is removed.
pub struct SortedFile {
    family: Family,
    path: PathBuf,
    writer: SstFileWriter<'static>,
}

/// A file that is being taken over. Whoever drops this waits for it.
pub struct Ingesting(Option<JoinHandle<Result<(), StorageError>>>);

impl Storage {
    /// An empty file for a family.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn sorted_file(&self, family: Family) -> Result<SortedFile, StorageError> {
        /// Names of files, one for the whole process.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let directory = self.tables().path().join(DIRECTORY);
        fs::create_dir_all(&directory).map_err(StorageError::io("create", &directory))?;
        let path = directory.join(format!("{:06}.sst", NEXT.fetch_add(1, Ordering::Relaxed)));
        let writer = SstFileWriter::create(options());
        let file = SortedFile { family, path, writer };
        file.writer.open(&file.path).map_err(StorageError::rocksdb(&file.path))?;
        Ok(file)
    }

    /// Makes a file's pairs part of its family, all at once and durably, on a thread of its own: it does little but wait
    /// for the disk, and the next file can be written meanwhile.
    ///
    /// # Errors
    /// No thread could be started. The file is removed.
    pub fn ingest(self: &Arc<Storage>, file: SortedFile) -> Result<Ingesting, StorageError> {
        let storage = Arc::clone(self);
        let thread = thread::Builder::new().name("ingest".into()).spawn(move || storage.take_over(file));
        let thread = thread.map_err(StorageError::io("start a thread to fill", self.tables().path()))?;
        Ok(Ingesting(Some(thread)))
    }

    fn take_over(&self, mut file: SortedFile) -> Result<(), StorageError> {
        self.refuse_if_poisoned()?;
        let (tables, path) = (self.tables(), file.path.clone());
        let family = tables.home(file.family)?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // Who looks at an earlier moment may see them. Nobody looks there for what was not begun then, and a number of
        // their own for such pairs would cost every later reader.
        options.set_snapshot_consistency(false);
        // Up to here it is a file of ours alone: that it cannot be written leaves RocksDB as it was.
        file.writer.finish().map_err(StorageError::rocksdb(&path))?;
        let taken = tables.db.ingest_external_file_cf_opts(family, &options, vec![&path]);
        self.poisoning(taken.map_err(StorageError::rocksdb(&path)))?;
        let mut behind = WriteBatch::default();
        behind.delete_cf(tables.family(LOCAL)?, notes::FILLER);
        self.commit(behind, Durability::Evident)
    }
}

impl Ingesting {
    /// Waits for it.
    ///
    /// # Errors
    /// The file cannot be written; or RocksDB failed: then it is not known whether the pairs are part of the family, and
    /// every later write is refused.
    pub fn wait(mut self) -> Result<(), StorageError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), StorageError> {
        match self.0.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(taken)) => taken,
            Some(Err(_)) => {
                Err(StorageError::io("fill", Path::new(DIRECTORY))(io::Error::other("its thread panicked")))
            }
        }
    }
}

impl Drop for Ingesting {
    fn drop(&mut self) {
        // Nothing of it may appear later. If it failed, every later write says so.
        drop(self.join());
    }
}

impl SortedFile {
    /// The family that it is for.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Adds a pair; keys rise.
    ///
    /// # Errors
    /// The file cannot be written, or the key does not rise.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.writer.put(key, value).map_err(StorageError::rocksdb(&self.path))
    }

    /// How large it has become, about.
    pub fn size_bytes(&self) -> u64 {
        self.writer.file_size()
    }
}

impl Drop for SortedFile {
    fn drop(&mut self) {
        // Taken over, it has another name only. What cannot be removed now is removed at the next start.
        drop(fs::remove_file(&self.path));
    }
}

/// Removes files that an earlier life left.
pub(super) fn remove_leftovers(meta: &Path) -> Result<(), StorageError> {
    let directory = meta.join(DIRECTORY);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", &directory)(error)),
        _ => Ok(()),
    }
}

/// RocksDB's writer copies them, though its type says that it borrows.
fn options() -> &'static Options {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    OPTIONS.get_or_init(|| {
        let mut options = Options::default();
        options.set_compression_type(DBCompressionType::Lz4);
        options
    })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::storage::{Frozen, StorageView};

    fn open(directory: &Path) -> Result<Storage, StorageError> {
        Storage::open(directory, 1 << 20)
    }

    fn made(storage: &Storage, keys: std::ops::Range<u8>) -> SortedFile {
        let mut file = storage.sorted_file(Family::Kv).unwrap();
        keys.for_each(|key| file.put(&[key], &[key; 100]).unwrap());
        file
    }

    fn keys(storage: &Storage) -> Vec<u8> {
        let mut keys = Vec::new();
        let visit = |key: &[u8], _: &[u8]| {
            keys.push(key[0]);
            ControlFlow::Continue(())
        };
        storage.tables().now().scan(Family::Kv, &[0]..&[255], visit).unwrap();
        keys
    }

    fn files_in(directory: &Path) -> usize {
        fs::read_dir(directory.join("meta").join(DIRECTORY)).map_or(0, Iterator::count)
    }

    #[test]
    fn a_file_is_taken_over_or_gone() {
        let place = tempfile::tempdir().unwrap();
        let storage = Arc::new(open(place.path()).unwrap());
        let (taken, dropped) = (made(&storage, 0..9), made(&storage, 20..29));
        assert_eq!((files_in(place.path()), keys(&storage).len()), (2, 0));
        storage.ingest(taken).unwrap().wait().unwrap();
        drop(dropped);
        assert_eq!(files_in(place.path()), 0);
        // A moment goes on showing what was there.
        let moment = Frozen::new(Arc::clone(&storage)).unwrap();
        let mut batch = storage.batch().unwrap();
        batch.delete_range(Family::Kv, &[0]..&[5]);
        storage.write(batch, Durability::Buffered).unwrap();
        let first = moment.read(|tables| tables.get(Family::Kv, &[0], |value| value.len()).unwrap());
        assert_eq!((first.unwrap(), keys(&storage)), (Some(100), (5..9).collect()));
        // A kill between file and manifest: what was copied then has the file still.
        std::mem::forget(made(&storage, 40..50));
        drop(moment);
        drop(storage);
        assert_eq!(files_in(place.path()), 1);
        drop(StorageView::open(place.path()).unwrap());
        assert_eq!(files_in(place.path()), 1, "a look changes nothing");
        assert_eq!(keys(&open(place.path()).unwrap()), (5..9).collect::<Vec<_>>());
        assert_eq!(files_in(place.path()), 0);
    }

    #[test]
    fn keys_that_do_not_rise_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let storage = Arc::new(open(place.path()).unwrap());
        assert!(made(&storage, 3..5).put(&[4], &[]).is_err());
        // That is no failure of what was written.
        storage.ingest(made(&storage, 3..5)).unwrap().wait().unwrap();
        assert_eq!(keys(&storage), [3, 4]);
    }

    /// The pairs lie over others and get a number, which RocksDB's manifest knows from then on.
    #[test]
    fn a_loss_of_what_was_synced_is_noticed_behind_a_file_too() {
        let place = tempfile::tempdir().unwrap();
        let storage = Arc::new(open(place.path()).unwrap());
        storage.ingest(made(&storage, 0..9)).unwrap().wait().unwrap();
        let mut batch = storage.batch().unwrap();
        batch.put(Family::Slots, b"slot", &[7; 5000]);
        storage.write(batch, Durability::Evident).unwrap();
        let before = storage.tables().db.latest_sequence_number();
        drop(storage.ingest(made(&storage, 5..20)).unwrap());
        assert!(storage.tables().db.latest_sequence_number() > before + 1, "the file got no number");
        drop(storage);
        let logs = fs::read_dir(place.path().join("meta")).unwrap().map(|entry| entry.unwrap().path());
        let log = logs.filter(|path| path.extension().is_some_and(|end| end == "log"));
        let log = log.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let at = fs::read(&log).unwrap().windows(50).position(|bytes| bytes == [7; 50]).unwrap();
        fs::File::options().write(true).open(&log).unwrap().write_all_at(&[8], at as u64).unwrap();
        assert!(matches!(open(place.path()), Err(StorageError::Damaged { .. })));
    }
}
