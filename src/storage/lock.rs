//! One process per directory: an advisory lock that the kernel releases when the process dies, however it dies.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::FlockOperation;

use super::error::StorageError;
use super::layout::LOCK_FILE;

/// The lock of a data directory, held until dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    /// Closing it releases the lock.
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock. The file then names this process, for people.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be written.
    pub(super) fn take(directory: &Path) -> Result<DirectoryLock, StorageError> {
        let path = directory.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(StorageError::io("open", &path))?;
        if !try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(StorageError::io("lock", &path))? {
            return Err(StorageError::Locked { path: directory.to_owned(), holder: holder(&mut file) });
        }
        let named = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        named.map_err(StorageError::io("write", &path))?;
        Ok(DirectoryLock { _file: file })
    }

    /// Takes a shared lock without creating or changing anything: no node can start while it is held. `None` if the
    /// directory has no lock file, so that no node ever ran on it.
    ///
    /// # Errors
    /// A node runs on the directory, or the file cannot be opened.
    pub fn take_shared(directory: &Path) -> Result<Option<DirectoryLock>, StorageError> {
        let path = directory.join(LOCK_FILE);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(StorageError::io("open", &path))?,
        };
        match try_lock(&file, FlockOperation::NonBlockingLockShared).map_err(StorageError::io("lock", &path))? {
            true => Ok(Some(DirectoryLock { _file: file })),
            false => Err(StorageError::Locked { path: directory.to_owned(), holder: last_node(&mut file) }),
        }
    }
}

fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Who has the lock that a node did not get. The file names the last node, which may be long gone while others read.
fn holder(file: &mut File) -> String {
    // Released with the file.
    match try_lock(file, FlockOperation::NonBlockingLockShared) {
        Ok(true) => ", which reads it, such as mainstay-inspect".to_owned(),
        _ => last_node(file),
    }
}

fn last_node(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut text));
    let process = read.ok().and_then(|_| text.trim().parse::<u32>().ok());
    process.map(|process| format!(" (the last node on it: process {process})")).unwrap_or_default()
}
