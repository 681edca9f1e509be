//! The data directory as its files say, opened without changing one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use mainstay::config::NodeConfig;
use mainstay::disk::{Access, RealDisk};
use mainstay::lsn::{Epoch, Lsn};
use mainstay::raftstore::rocks::RocksView;
use mainstay::storage::{DirectoryLock, Identity, Storage, StorageError, StorageView, WAL_DIR};
use mainstay::wal::{self, Cursor, Damage, Evidence, Layout, Scan, SegmentDirectory, SegmentNumber, WalError};

use crate::walk::{EVERYTHING, Gap};

/// An open data directory. No node starts on it while this exists.
pub struct DataDirectory {
    pub path: PathBuf,
    pub identity: Identity,
    pub segments: SegmentDirectory,
    /// What RocksDB holds, or why it cannot be read.
    pub notes: Result<Notes, StorageError>,
    /// The Raft groups, if RocksDB can be read.
    pub raft: Option<RocksView>,
    _lock: Option<DirectoryLock>,
}

/// What the node noted for itself.
#[derive(Clone, Copy, Debug)]
pub struct Notes {
    pub checkpoint: Lsn,
    pub clean_end: Option<Lsn>,
}

/// Where the log ends, as a starting node would find it.
pub enum Survey {
    Whole(Scan),
    Damaged(Damage),
}

impl Survey {
    /// Where the log ends; unknown if it is damaged.
    pub fn known_end(&self) -> Option<Lsn> {
        match self {
            Survey::Whole(scan) => Some(scan.end()),
            Survey::Damaged(_) => None,
        }
    }

    /// Where to stop reading: the log's end if it is known.
    pub fn end(&self) -> Lsn {
        self.known_end().unwrap_or(EVERYTHING)
    }

    /// With its evidence, if it is what the survey found.
    pub fn explained(&self, damage: Damage) -> Damage {
        match self {
            Survey::Damaged(known) if known.lsn == damage.lsn => known.clone(),
            _ => damage,
        }
    }

    /// Whether nothing more can be said about the place where a walk stopped: no record is there or behind it, but the
    /// log is damaged before, so that nobody knows whether it ends here.
    pub fn leaves_open(&self, gap: &Gap) -> bool {
        matches!(self, Survey::Damaged(known) if gap.blank && gap.to.is_none() && known.lsn != gap.damage.lsn)
    }
}

impl DataDirectory {
    /// Opens a data directory.
    ///
    /// # Errors
    /// A node runs on it, it is none, or its identity cannot be read.
    pub fn open(path: &Path) -> anyhow::Result<DataDirectory> {
        let metadata = fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?;
        if !metadata.is_dir() {
            return Err(StorageError::NotADirectory(path.to_owned()).into());
        }
        let lock = DirectoryLock::take_shared(path).map_err(|error| match error {
            StorageError::Locked { holder, .. } => {
                anyhow::anyhow!("a node runs on {}{holder}: stop it first", path.display())
            }
            error => error.into(),
        })?;
        let identity = Identity::read(path)?.ok_or_else(|| StorageError::NoIdentity(path.to_owned()))?;
        check_segment_size(path, identity.segment_size_bytes)?;
        let (notes, raft) = match StorageView::open(path) {
            Ok(view) => {
                let notes = Notes { checkpoint: view.checkpoint, clean_end: view.clean_end };
                (Ok(notes), Some(RocksView::new(view)))
            }
            Err(error @ (StorageError::Damaged { .. } | StorageError::RocksDb { .. } | StorageError::Io { .. })) => {
                (Err(error), None)
            }
            Err(error) => bail!(error),
        };
        let segments = segments_of(path, identity);
        check_owner(&segments)?;
        Ok(DataDirectory { path: path.to_owned(), identity, segments, notes, raft, _lock: lock })
    }

    /// The same of a directory that this program has opened for writing, and so locked, as a starting node does.
    ///
    /// # Errors
    /// RocksDB failed.
    pub fn of(path: &Path, storage: &Storage) -> Result<DataDirectory, StorageError> {
        let identity = storage.identity();
        let notes = Ok(Notes { checkpoint: storage.checkpoint()?, clean_end: storage.clean_end()? });
        let segments = segments_of(path, identity);
        Ok(DataDirectory { path: path.to_owned(), identity, segments, notes, raft: None, _lock: None })
    }

    /// The shape of its log.
    pub fn layout(&self) -> Layout {
        self.segments.layout()
    }

    /// What is known about the log from outside it, to verify it from `verify_from` on.
    pub fn evidence(&self, verify_from: Lsn) -> Evidence {
        match &self.notes {
            Ok(Notes { checkpoint, clean_end }) => {
                let reached = (*checkpoint).max(clean_end.unwrap_or(Lsn::NONE));
                Evidence { verify_from, reached, clean_end: *clean_end }
            }
            Err(_) => Evidence { verify_from, ..Evidence::default() },
        }
    }

    /// Finds the end of the log as a starting node does: from the last checkpoint on.
    ///
    /// # Errors
    /// The directory cannot be listed, or there are no file descriptors.
    pub fn survey(&self) -> Result<Survey, WalError> {
        let checkpoint = self.notes.as_ref().map_or(Lsn::NONE, |notes| notes.checkpoint);
        match wal::scan(self.segments.clone(), self.evidence(checkpoint)) {
            Ok(scan) => Ok(Survey::Whole(scan)),
            Err(error) => Ok(Survey::Damaged(error.into_damage()?)),
        }
    }

    /// Where the first record starts that can be read; `None` if there is no segment. A record that began before the
    /// oldest segment is not one of them.
    ///
    /// # Errors
    /// The directory cannot be listed, or there are no file descriptors.
    pub fn oldest(&self) -> Result<Option<Lsn>, WalError> {
        let Some(first) = self.segments.list()?.first().copied() else { return Ok(None) };
        self.first_record_from(first).map(|cursor| Some(cursor.position()))
    }

    /// A cursor at the first record that starts in a segment or, as far as it is damaged, at the damage.
    ///
    /// # Errors
    /// The directory cannot be listed, or there are no file descriptors.
    pub fn first_record_from(&self, number: SegmentNumber) -> Result<Cursor, WalError> {
        let mut cursor = Cursor::new(self.segments.clone(), self.layout().first_record_in(number));
        if let Err(error) = cursor.skip_continued(EVERYTHING) {
            // Met again by whoever reads on.
            error.into_damage()?;
        }
        Ok(cursor)
    }

    /// The segments in groups without a gap; none is empty.
    pub fn runs(&self, segments: &BTreeSet<SegmentNumber>) -> Vec<Vec<SegmentNumber>> {
        let mut runs: Vec<Vec<SegmentNumber>> = Vec::new();
        for number in segments {
            match runs.last_mut().filter(|run| run.last().is_some_and(|last| last.next() == *number)) {
                Some(run) => run.push(*number),
                None => runs.push(vec![*number]),
            }
        }
        runs
    }

    /// Segments that must be there and are not: between others, or between the checkpoint and the oldest.
    pub fn missing(&self, segments: &BTreeSet<SegmentNumber>) -> Vec<Damage> {
        let mut missing = Vec::new();
        let mut needed = self.notes.as_ref().ok().map(|notes| {
            // The segment with the last byte before the checkpoint is kept, and all of them before the first one.
            let checkpoint = notes.checkpoint.max(self.layout().first_record());
            self.layout().segment_of(Lsn::new(checkpoint.get() - 1))
        });
        for run in self.runs(segments) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            if let Some(needed) = needed.filter(|needed| needed < first) {
                missing.push(self.missing_between(needed, *first));
            }
            needed = Some(last.next());
        }
        missing
    }

    fn missing_between(&self, needed: SegmentNumber, next: SegmentNumber) -> Damage {
        // The last one missing: the same as a starting node names.
        let number = SegmentNumber(next.0 - 1);
        let found = match next.0 - needed.0 {
            1 => "no such file".into(),
            count => format!("no such file, nor any of the {} before it", count - 1),
        };
        Damage {
            path: self.segments.segment_path(number),
            offset: 0,
            lsn: self.layout().segment_start(number),
            expected: "a segment".into(),
            found,
        }
    }
}

/// Refuses a log of which every segment belongs to another system: the directories were mixed up. A single one among
/// others is damage, and the rest can be read.
fn check_owner(segments: &SegmentDirectory) -> Result<(), WalError> {
    for number in segments.list()?.iter().rev() {
        match segments.open(*number, Access::Read) {
            Err(WalError::Foreign { .. }) => {}
            _ => return Ok(()),
        }
    }
    match segments.list()?.first() {
        Some(first) => segments.open(*first, Access::Read).map(drop),
        None => Ok(()),
    }
}

fn segments_of(path: &Path, identity: Identity) -> SegmentDirectory {
    SegmentDirectory::new(
        Arc::new(RealDisk),
        path.join(WAL_DIR),
        Layout::new(identity.segment_size_bytes),
        identity.system,
        Epoch::FIRST.timeline(),
    )
}

/// The arithmetic of the log needs a size that a node could have been started with.
fn check_segment_size(path: &Path, segment_size_bytes: u64) -> anyhow::Result<()> {
    let mut config = NodeConfig::new(path);
    config.wal.segment_size_bytes = segment_size_bytes;
    config.validate().with_context(|| format!("the identity of {} cannot be used", path.display()))
}
