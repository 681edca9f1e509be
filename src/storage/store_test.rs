//! Data directories that are new, in use, foreign, mixed up, newer, or damaged.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;

const SEGMENT: u64 = 1 << 20;

fn open(directory: &Path) -> Result<Storage, StorageError> {
    Storage::open(directory, SEGMENT)
}

/// The names of all files below a directory, with their contents.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn identity_and_notes_outlive_the_process_and_a_view_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("data");
    let storage = open(&directory).unwrap();
    let identity = storage.identity();
    assert_eq!((storage.checkpoint().unwrap(), storage.clean_end().unwrap()), (Lsn::NONE, None));
    storage.note_checkpoint(Lsn::new(100)).unwrap();
    storage.note_clean_end(Lsn::new(200)).unwrap();
    assert!(matches!(StorageView::open(&directory), Err(StorageError::Locked { .. })));
    drop(storage);

    let before = contents(&directory);
    let view = StorageView::open(&directory).unwrap();
    assert_eq!((view.identity, view.checkpoint, view.clean_end), (identity, Lsn::new(100), Some(Lsn::new(200))));
    let refused = open(&directory).err().expect("no node starts while somebody looks");
    assert!(matches!(refused, StorageError::Locked { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("another process, which reads it") && !text.contains("last node"), "{text}");
    drop(view);
    assert_eq!(contents(&directory), before);

    let storage = open(&directory).unwrap();
    assert_eq!(storage.identity(), identity);
    storage.forget_clean_end().unwrap();
    assert_eq!((storage.checkpoint().unwrap(), storage.clean_end().unwrap()), (Lsn::new(100), None));
}

#[test]
fn a_second_opening_is_refused_and_names_the_process() {
    let place = tempfile::tempdir().unwrap();
    let _first = open(place.path()).unwrap();
    let error = open(place.path()).err().unwrap().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn what_is_no_data_directory_is_refused_and_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(open(&file), Err(StorageError::NotADirectory(_))));
    assert!(matches!(open(place.path()), Err(StorageError::NotEmpty { example, .. }) if example == "file"));
    assert_eq!(contents(place.path()).len(), 1);
    assert!(matches!(open(&place.path().join("a/b")), Err(StorageError::Io { .. })), "parents are not made");
    assert!(matches!(StorageView::open(place.path()), Err(StorageError::NoIdentity(_))));
}

#[test]
fn a_first_start_that_was_interrupted_is_finished_with_the_same_identity() {
    let place = tempfile::tempdir().unwrap();
    let identity = open(place.path()).unwrap().identity();
    fs::remove_file(place.path().join(IDENTITY_FILE)).unwrap();
    assert_eq!(open(place.path()).unwrap().identity(), identity);
}

#[test]
fn another_nodes_rocksdb_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop((open(one.path()).unwrap(), open(other.path()).unwrap()));
    fs::remove_dir_all(one.path().join(META_DIR)).unwrap();
    assert!(matches!(StorageView::open(one.path()), Err(StorageError::Damaged { .. })), "RocksDB is gone");
    assert!(!one.path().join(META_DIR).exists());
    assert!(matches!(open(one.path()), Err(StorageError::Damaged { .. })), "RocksDB is gone");
    fs::remove_dir_all(one.path().join(META_DIR)).ok();
    fs::rename(other.path().join(META_DIR), one.path().join(META_DIR)).unwrap();
    assert!(matches!(open(one.path()), Err(StorageError::Mismatch { .. })));
    assert!(matches!(StorageView::open(one.path()), Err(StorageError::Mismatch { .. })));
}

#[test]
fn the_segment_size_is_fixed() {
    let place = tempfile::tempdir().unwrap();
    drop(open(place.path()).unwrap());
    let error = Storage::open(place.path(), 2 * SEGMENT).err().unwrap();
    assert!(matches!(error, StorageError::SegmentSize { made_with: SEGMENT, .. }), "{error}");
}

/// A flip in the middle of RocksDB's own log silently drops what is behind it, or would.
#[test]
fn a_rocksdb_that_lost_synced_writes_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let storage = open(place.path()).unwrap();
    for number in 1..50 {
        storage.note_checkpoint(Lsn::new(number)).unwrap();
    }
    storage.note_clean_end(Lsn::new(50)).unwrap();
    drop(storage);
    let logs = contents(&place.path().join(META_DIR)).into_iter();
    let (path, bytes) = logs
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "log"))
        .max_by_key(|(_, bytes)| bytes.len())
        .unwrap();
    let middle = bytes.len() / 2;
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[middle] ^ 1], middle as u64).unwrap();
    let before = contents(place.path());
    let error = open(place.path()).err().unwrap();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    assert!(matches!(StorageView::open(place.path()), Err(StorageError::Damaged { .. })));
    let lock = |(path, _): &(PathBuf, Vec<u8>)| !path.ends_with(super::super::LOCK_FILE);
    let after = contents(place.path());
    assert!(
        before.iter().filter(|file| lock(file)).eq(after.iter().filter(|file| lock(file))),
        "something was changed"
    );
}
