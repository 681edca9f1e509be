//! A lossy disk that is full for one kind of operation on one path, while everything else goes on.

use std::io;
use std::path::{Path, PathBuf};

/// What changes a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// A file is made.
    Create,
    /// A directory is made.
    CreateDir,
    /// A file gets this name.
    Rename,
    /// A file is removed.
    Remove,
    /// A file is written to.
    Write,
    /// A file is synced.
    Sync,
    /// A directory is synced.
    SyncDir,
}

/// Which operations find the disk full.
#[derive(Debug, Default)]
pub struct Shortage {
    /// How many operations succeed before the first of them.
    begins_in: Option<u64>,
    refused: Option<(Action, PathBuf)>,
}

impl Shortage {
    /// The one that comes after so many others is the first.
    pub fn begins_in(operations: u64) -> Shortage {
        Shortage { begins_in: Some(operations), refused: None }
    }

    /// The first one that was refused.
    pub fn refused(&self) -> Option<&(Action, PathBuf)> {
        self.refused.as_ref()
    }

    /// Refuses what finds no room: the first one, and later ones like it.
    pub fn admit(&mut self, action: Action, path: &Path) -> io::Result<()> {
        if self.begins_in == Some(0) {
            self.refused = Some((action, path.to_owned()));
        }
        self.begins_in = self.begins_in.and_then(|left| left.checked_sub(1));
        match self.refused.as_ref().is_some_and(|refused| refused.0 == action && refused.1 == path) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}
