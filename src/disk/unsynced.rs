//! What a lossy disk tells apart: as the running system sees it, and as it is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a disk writes at once: a write of several is torn between them.
pub(super) const SECTOR_BYTES: usize = 512;

/// What the page cache writes back at once. The segments of the crash tests are two pages long, so that a page can be lost
/// where the next one is kept, and no page is lost in part.
pub(super) const PAGE_SECTORS: usize = 2;

/// A change to a directory that is not synced yet.
#[derive(Clone, Debug)]
pub enum NameChange {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

#[derive(Clone, Default)]
pub struct Contents {
    /// As the running system sees it.
    pub live: Vec<u8>,
    /// As it is on the disk.
    pub durable: Vec<u8>,
    /// Sectors that differ, with the operation that last changed them.
    pub dirty: BTreeMap<usize, u64>,
    /// Sectors that cannot be read until they are written again.
    pub bad: BTreeSet<usize>,
}

impl NameChange {
    /// The directory.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            NameChange::Add(path, _) | NameChange::Remove(path) | NameChange::Rename(_, path, _) => path.parent(),
        }
    }

    /// Makes it.
    pub fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Add(path, file) => {
                names.insert(path, file);
            }
            NameChange::Remove(path) => {
                names.remove(&path);
            }
            NameChange::Rename(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
        }
    }
}

impl Contents {
    /// Makes a sector durable.
    pub fn keep_sector(&mut self, sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.live.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.live[start..end]);
    }
}
