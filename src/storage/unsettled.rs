//! A data directory before it is settled who it belongs to.
//!
//! A node that waits to be let into a cluster has a directory, a lock and RocksDB, but is nobody yet: which system it
//! belongs to and which number it has, the cluster will say. What it must not forget until then it notes here. If it dies
//! before it is settled, the directory is as good as new, but for that note.

use std::path::{Path, PathBuf};

use rocksdb::WriteBatch;

use super::error::StorageError;
use super::identity::Identity;
use super::layout::META_DIR;
use super::lock::DirectoryLock;
use super::notes;
use super::sorted_file;
use super::store::{self, LOCAL, Storage};
use super::tables::Tables;
use crate::ident::{NodeId, SystemId};

/// See the module.
pub struct Unsettled {
    directory: PathBuf,
    segment_size_bytes: u64,
    /// What the file says.
    found: Option<Identity>,
    /// What RocksDB says.
    copy: Option<Identity>,
    tables: Tables,
    lock: DirectoryLock,
}

impl Unsettled {
    /// Takes the directory's lock and opens RocksDB. The directory is made if it does not exist; its parent must.
    ///
    /// # Errors
    /// The directory is another process's, something else's, damaged, or cannot be written.
    pub fn open(directory: &Path, segment_size_bytes: u64) -> Result<Unsettled, StorageError> {
        store::make_directory(directory)?;
        // Looked at before the lock file is made, so that a wrong path stays as it was.
        if Identity::read(directory)?.is_none() {
            store::refuse_foreign(directory)?;
        }
        let lock = DirectoryLock::take(directory)?;
        let found = Identity::read(directory)?;
        match found {
            Some(identity) => store::check_segment_size(directory, identity, segment_size_bytes)?,
            // An earlier start may have died before it made the directory's own name durable.
            None => store::sync_parent(directory)?,
        }
        let tables = store::open_checked(&directory.join(META_DIR), found.is_some())?;
        sorted_file::remove_leftovers(&tables.meta)?;
        let copy = store::read_copy(&tables)?;
        if let Some(found) = found {
            store::check_copy(directory, &tables, found)?;
        }
        Ok(Unsettled { directory: directory.to_owned(), segment_size_bytes, found, copy, tables, lock })
    }

    /// Who the directory belongs to, if that was settled, or begun to be.
    pub fn identity(&self) -> Option<Identity> {
        self.found.or(self.copy)
    }

    /// Which segments the WAL has, or will have.
    pub fn segment_size_bytes(&self) -> u64 {
        self.segment_size_bytes
    }

    /// See [`Storage::member_note`].
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn member_note(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.tables.note(notes::MEMBER, <[u8]>::to_vec)
    }

    /// See [`Storage::note_member`].
    ///
    /// # Errors
    /// RocksDB failed: it is not known which of the two holds.
    pub fn note_member(&self, note: &[u8]) -> Result<(), StorageError> {
        self.put(notes::MEMBER, note)
    }

    /// Settles who the directory belongs to, and opens it: who it belonged to before, or else this node of this system, or
    /// else the first node of a new one. The identity is the last thing written.
    ///
    /// # Errors
    /// It belongs to somebody else already, or cannot be written.
    pub fn settle(self, wanted: Option<(SystemId, NodeId)>) -> Result<Storage, StorageError> {
        let Unsettled { directory, segment_size_bytes, .. } = &self;
        let segment_size_bytes = *segment_size_bytes;
        let wanted = wanted.map(|(system, node)| Identity { system, node, segment_size_bytes });
        let identity = match (self.identity(), wanted) {
            (Some(identity), Some(wanted)) if (identity.system, identity.node) != (wanted.system, wanted.node) => {
                return Err(StorageError::Mismatch { path: directory.clone(), identity, copy: wanted });
            }
            (Some(identity), _) | (None, Some(identity)) => identity,
            (None, None) => Identity::draw(segment_size_bytes)?,
        };
        if self.copy.is_none() {
            self.put(notes::IDENTITY, &identity.encode())?;
        }
        if self.found.is_none() {
            store::check_segment_size(directory, identity, segment_size_bytes)?;
            identity.write(directory)?;
        }
        Storage::of(identity, self.tables, self.lock)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.tables.family(LOCAL)?, key, value);
        self.tables.write(batch)?;
        self.tables.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1 << 20;

    fn open(directory: &Path) -> Unsettled {
        Unsettled::open(directory, SEGMENT).unwrap()
    }

    #[test]
    fn an_unsettled_directory_keeps_its_note_and_is_nobodys() {
        let directory = tempfile::tempdir().unwrap();
        let unsettled = open(directory.path());
        assert_eq!((unsettled.identity(), unsettled.member_note().unwrap()), (None, None));
        unsettled.note_member(b"a secret").unwrap();
        drop(unsettled);
        assert!(Identity::read(directory.path()).unwrap().is_none());
        let unsettled = open(directory.path());
        assert_eq!(unsettled.member_note().unwrap().unwrap(), b"a secret");
        let storage = unsettled.settle(Some((SystemId::new(7), NodeId::new(3)))).unwrap();
        let identity = storage.identity();
        assert_eq!((identity.system, identity.node), (SystemId::new(7), NodeId::new(3)));
        storage.note_member(b"a member").unwrap();
        drop(storage);
        let unsettled = open(directory.path());
        assert_eq!(unsettled.identity(), Some(identity));
        assert_eq!(unsettled.settle(None).unwrap().member_note().unwrap().unwrap(), b"a member");
    }

    #[test]
    fn whose_it_is_does_not_change() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Storage::open(directory.path(), SEGMENT).unwrap().identity();
        let error = open(directory.path()).settle(Some((SystemId::new(7), NodeId::new(3)))).err().unwrap();
        assert!(matches!(error, StorageError::Mismatch { .. }), "{error}");
        assert_eq!(Storage::open(directory.path(), SEGMENT).unwrap().identity(), identity);
    }

    #[test]
    fn settling_that_died_before_its_last_write_goes_on_as_it_began() {
        let directory = tempfile::tempdir().unwrap();
        let storage = open(directory.path()).settle(Some((SystemId::new(7), NodeId::new(3)))).unwrap();
        let identity = storage.identity();
        drop(storage);
        std::fs::remove_file(directory.path().join(super::super::IDENTITY_FILE)).unwrap();
        assert_eq!(open(directory.path()).settle(None).unwrap().identity(), identity);
    }
}
