//! Moving what is wanted of a family out of files of which one is damaged.
//!
//! RocksDB cannot let go of a single file: a compaction would read the damaged block, and what deletes files in a range leaves
//! the newest level, other ranges in the file, and breaks what somebody still reads of an earlier moment. A whole column family
//! is dropped without a look into its files. So all that is wanted is copied into a new one ([why it has a
//! home](super::families)), and the last write of the copy says that the family is there from now on, synced and covered by
//! evidence. If we die before, the copy is dropped at the next opening, and nothing has happened; behind it, the old one is.
//!
//! Who copies decides what is wanted. Nothing is read or written in the family meanwhile but by him.

use std::ops::Range;
use std::sync::atomic::Ordering;

use rocksdb::{ColumnFamily, WriteBatch};

use super::error::StorageError;
use super::notes;
use super::store::{LOCAL, Storage};
use super::tables::{Durability, Family};

/// Pairs are written in batches of about this many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// The copy may take as many times the room of the original, since it is compressed less.
const GROWTH: u64 = 4;
/// And this much has to be free beyond.
const LEAVE_FREE_BYTES: u64 = 1 << 30;

/// A family on its way. Dropped before it is finished, nothing has happened.
pub struct Evacuation<'a> {
    storage: &'a Storage,
    family: Family,
    to: &'a ColumnFamily,
    changes: WriteBatch,
}

/// Whether a family can be moved.
pub enum Movable<'a> {
    /// It holds no damage.
    Whole,
    /// It does, and cannot be moved before the next opening.
    NotNow(&'static str),
    /// It can: with this.
    Now(Evacuation<'a>),
}

impl Storage {
    /// Families of tables in which damage was found. They are not compacted.
    pub fn damaged_families(&self) -> Vec<Family> {
        let families = &self.tables().families;
        Family::ALL.into_iter().filter(|family| families.is_damaged(*family)).collect()
    }

    /// Begins to move a family, once in each opening.
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn evacuate(&self, family: Family) -> Result<Movable<'_>, StorageError> {
        let tables = self.tables();
        if !tables.families.is_damaged(family) {
            return Ok(Movable::Whole);
        }
        let name = tables.families.next_name(family);
        let Some(to) = name.and_then(|name| tables.db.cf_handle(name)) else {
            return Ok(Movable::NotNow("the damage was found since this opening"));
        };
        if self.evacuated.fetch_or(1 << family as u32, Ordering::SeqCst) & (1 << family as u32) != 0 {
            return Ok(Movable::NotNow("it was tried before"));
        }
        let files = tables.db.live_files().map_err(StorageError::rocksdb(tables.path()))?;
        let own = files.iter().filter(|file| file.column_family_name == tables.families.name(family));
        let size_bytes: u64 = own.map(|file| file.size as u64).sum();
        if self.free_bytes()? < size_bytes.saturating_mul(GROWTH).saturating_add(LEAVE_FREE_BYTES) {
            return Ok(Movable::NotNow("there is too little room"));
        }
        Ok(Movable::Now(Evacuation { storage: self, family, to, changes: WriteBatch::default() }))
    }

    /// Whether something that was moved away from is kept.
    pub fn keeps_old_homes(&self) -> bool {
        self.tables().families.kept() != 0
    }

    /// Nobody needs any more what was moved away from: the next opening drops it.
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn keep_no_old_homes(&self) -> Result<(), StorageError> {
        let tables = self.tables();
        let mut changes = WriteBatch::default();
        let homes = tables.families.homes_without_kept();
        changes.put_cf(tables.family(LOCAL)?, notes::HOMES, notes::encode_homes(&homes));
        self.commit(changes, Durability::Evident)?;
        tables.families.keep_none();
        Ok(())
    }
}

impl Evacuation<'_> {
    /// Copies a pair.
    ///
    /// # Errors
    /// RocksDB failed: it is not known what was written, and every later write is refused.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.changes.put_cf(self.to, key, value);
        if self.changes.size_in_bytes() < BATCH_BYTES {
            return Ok(());
        }
        self.storage.commit(std::mem::take(&mut self.changes), Durability::Buffered)
    }

    /// Removes what was copied of a range.
    pub fn forget(&mut self, range: Range<&[u8]>) {
        self.changes.delete_range_cf(self.to, range.start, range.end);
    }

    /// All that is wanted was copied: that is the family from here on, durably. With `keeps_old` what it was moved away from stays,
    /// unread, until [`Storage::keep_no_old_homes`].
    ///
    /// # Errors
    /// As of [`put`](Evacuation::put).
    pub fn finish(self, keeps_old: bool) -> Result<(), StorageError> {
        let Evacuation { storage, family, mut changes, .. } = self;
        let tables = storage.tables();
        let homes = tables.families.homes_with_moved(family, keeps_old);
        changes.put_cf(tables.family(LOCAL)?, notes::HOMES, notes::encode_homes(&homes));
        // Were RocksDB to lose this write, what was moved away from would be believed, however old it has become.
        storage.commit(changes, Durability::Evident)?;
        tables.families.moved(tables.path(), family, keeps_old)?;
        tracing::info!(family = family.name(), "what a damaged table file held was moved away from it");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rocksdb::{DB, Options};

    use super::*;

    fn open(directory: &Path) -> Storage {
        Storage::open(directory, 1 << 20).unwrap()
    }

    fn value(storage: &Storage, key: &[u8]) -> Option<Vec<u8>> {
        storage.tables().now().get(Family::Kv, key, <[u8]>::to_vec).unwrap()
    }

    fn begin(storage: &Storage) -> Evacuation<'_> {
        match storage.evacuate(Family::Kv).unwrap() {
            Movable::Now(evacuation) => evacuation,
            Movable::Whole => panic!("it is whole"),
            Movable::NotNow(why) => panic!("{why}"),
        }
    }

    fn homes(directory: &Path) -> Vec<String> {
        let all = DB::list_cf(&Options::default(), directory.join("meta")).unwrap();
        all.into_iter().filter(|name| name.starts_with("kv")).collect()
    }

    /// A directory with two pairs, in whose family damage was found.
    fn damaged(directory: &Path) {
        let storage = open(directory);
        let mut batch = storage.batch().unwrap();
        batch.put(Family::Kv, b"wanted", b"1");
        batch.put(Family::Kv, b"not", b"2");
        storage.write(batch, Durability::Synced).unwrap();
        assert!(matches!(storage.evacuate(Family::Kv), Ok(Movable::Whole)));
        storage.tables().note_damage(&[Family::Kv]);
        assert!(matches!(storage.evacuate(Family::Kv), Ok(Movable::NotNow(_))), "it would be in the middle of things");
    }

    #[test]
    fn what_was_not_finished_has_not_happened() {
        let place = tempfile::tempdir().unwrap();
        damaged(place.path());
        let storage = open(place.path());
        begin(&storage).put(b"wanted", &vec![7; 2 * BATCH_BYTES]).unwrap();
        assert!(matches!(storage.evacuate(Family::Kv), Ok(Movable::NotNow(_))), "on top of what is there");
        assert_eq!(value(&storage, b"wanted"), Some(b"1".to_vec()));
        drop(storage);
        let storage = open(place.path());
        assert_eq!(value(&storage, b"wanted"), Some(b"1".to_vec()));
        let mut evacuation = begin(&storage);
        evacuation.put(b"other", b"3").unwrap();
        evacuation.finish(false).unwrap();
        assert_eq!((value(&storage, b"other"), value(&storage, b"wanted")), (Some(b"3".to_vec()), None));
        assert_eq!(storage.damaged_families(), []);
    }

    #[test]
    fn what_was_moved_away_from_goes_and_what_is_moved_stays() {
        let place = tempfile::tempdir().unwrap();
        damaged(place.path());
        let note = place.path().join("meta/damaged");
        let before = fs::read(&note).unwrap();
        for number in 1..=2 {
            let storage = open(place.path());
            let mut evacuation = begin(&storage);
            evacuation.put(b"wanted", b"1").unwrap();
            evacuation.finish(false).unwrap();
            let mut batch = storage.batch().unwrap();
            batch.put(Family::Kv, b"later", &[number]);
            storage.write(batch, Durability::Synced).unwrap();
            drop(storage);
            let storage = open(place.path());
            assert_eq!((value(&storage, b"wanted"), value(&storage, b"not")), (Some(b"1".to_vec()), None));
            assert_eq!(value(&storage, b"later"), Some(vec![number]));
            assert_eq!((homes(place.path()), storage.damaged_families()), (vec![format!("kv.{number}")], vec![]));
            drop(storage);
            // If we die before the note is changed, it is done once more.
            fs::write(&note, &before).unwrap();
        }
    }

    #[test]
    fn what_was_moved_away_from_is_kept_as_long_as_it_is_wanted() {
        let place = tempfile::tempdir().unwrap();
        damaged(place.path());
        let storage = open(place.path());
        let mut evacuation = begin(&storage);
        evacuation.put(b"wanted", b"1").unwrap();
        evacuation.put(b"partly", b"3").unwrap();
        evacuation.forget(&b"p"[..]..&b"q"[..]);
        evacuation.finish(true).unwrap();
        assert_eq!((value(&storage, b"wanted"), value(&storage, b"partly")), (Some(b"1".to_vec()), None));
        drop(storage);
        for _ in 0..2 {
            assert!(open(place.path()).keeps_old_homes());
            assert_eq!(homes(place.path()), ["kv", "kv.1"]);
        }
        let storage = open(place.path());
        storage.keep_no_old_homes().unwrap();
        assert!(!storage.keeps_old_homes());
        drop(storage);
        let storage = open(place.path());
        assert_eq!((homes(place.path()), storage.keeps_old_homes()), (vec!["kv.1".to_owned()], false));
        assert_eq!(value(&storage, b"wanted"), Some(b"1".to_vec()));
    }
}
