//! The files of a log: making, opening, listing and removing segments, each change followed by the sync that makes it
//! hold (rule 6).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::cursor::read_exactly;
use super::errors::{Damage, WalError};
use super::fault::{Fault, active};
use super::layout::{Layout, SegmentNumber};
use super::recovery::last_nonzero;
use super::segment::{HEADER_BYTES, HeaderFault, SegmentHeader};
use crate::disk::{Access, Directory, Disk, File};
use crate::ident::SystemId;
use crate::lsn::TimelineId;

/// Name of a segment that is being prepared. It gets its own when it is durable.
const PREPARING: &str = "preparing.tmp";

/// Ending of the name of a segment that was recycled and waits to be used again. What it holds is worth nothing.
const SPARE: &str = ".spare";

/// How many of them are kept; further ones are removed.
const SPARES: usize = 2;

/// How much of a segment is filled and synced at once. A committer's sync that comes meanwhile waits for the device
/// until this is written, so it is little while there is time, and more when the writer is about to need the segment. In
/// the crash tests several steps fill a small segment, too.
const FILL_STEP_BYTES: u64 = if cfg!(test) { 512 } else { 1 << 20 };
const URGENT_FILL_STEP_BYTES: u64 = if cfg!(test) { 1024 } else { 4 << 20 };

/// How fast a segment is to be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// There is time.
    Easy,
    /// The writer is about to wait for it.
    Urgent,
    /// Not at all any more.
    Cancelled,
}

/// Whether the file system has no room, or no more for this user.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The directory of one timeline's segments.
#[derive(Clone, Debug)]
pub struct SegmentDirectory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    layout: Layout,
    system: SystemId,
    timeline: TimelineId,
    /// Opened at the first sync and kept: a process that has run out of descriptors can still sync, and what the file
    /// system failed to write since is not forgotten between two openings.
    opened: Arc<OnceLock<Arc<dyn Directory>>>,
}

impl SegmentDirectory {
    /// The segments of `system` and `timeline` in the directory `path`, which need not exist yet.
    pub fn new(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        layout: Layout,
        system: SystemId,
        timeline: TimelineId,
    ) -> SegmentDirectory {
        SegmentDirectory { disk, path, layout, system, timeline, opened: Arc::default() }
    }

    /// Its layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The timeline whose segments these are.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The disk it is on.
    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a segment, whether it exists or not.
    pub fn segment_path(&self, number: SegmentNumber) -> PathBuf {
        self.layout.path(&self.path, self.timeline, number)
    }

    /// Makes the directory itself, durably.
    pub(super) fn create(&self) -> Result<(), WalError> {
        self.disk.create_dir(&self.path).map_err(WalError::io("create", &self.path))?;
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let opened = self.disk.open_dir(parent).map_err(WalError::io("open", parent))?;
        opened.sync().map_err(WalError::io("sync", parent))
    }

    /// The numbers of the segments that are there; none if there is no directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<BTreeSet<SegmentNumber>, WalError> {
        let names = match self.disk.list(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(WalError::io("list", &self.path))?,
        };
        let parsed = names.iter().filter_map(|name| self.layout.parse_file_name(name));
        Ok(parsed.filter(|(timeline, _)| *timeline == self.timeline).map(|(_, number)| number).collect())
    }

    /// Opens a segment and checks its length and header; `None` if there is no such file.
    ///
    /// # Errors
    /// It cannot be read, or is not the segment that its name says.
    pub fn open(&self, number: SegmentNumber, access: Access) -> Result<Option<Arc<dyn File>>, WalError> {
        let path = self.segment_path(number);
        let Some(file) = self.open_file(number, access)? else { return Ok(None) };
        let damage = |offset: u64, expected: String, found: String| {
            let lsn = self.layout.segment_start(number).advanced(offset);
            WalError::Damaged(Box::new(Damage { path: path.clone(), offset, lsn, expected, found }))
        };
        let len = self.len_bytes(number, file.as_ref())?;
        if len != self.layout.segment_bytes() {
            let expected = format!("a segment of {} bytes", self.layout.segment_bytes());
            return Err(damage(len.min(self.layout.segment_bytes()), expected, format!("{len} bytes")));
        }
        let mut bytes = [0; HEADER_BYTES];
        read_exactly(file.as_ref(), &mut bytes, 0).map_err(|error| self.unreadable(number, 0, error))?;
        let lsn = self.layout.segment_start(number);
        let header = SegmentHeader::decode(&bytes).map_err(|fault| match fault {
            HeaderFault::Damaged { offset, expected, found } => damage(offset, expected, found),
            HeaderFault::Newer { version } => {
                WalError::Newer { path: path.clone(), offset: 0, lsn, what: format!("segment format {version}") }
            }
        })?;
        if header.system != self.system {
            return Err(WalError::Foreign { path, lsn, expected: self.system, found: header.system });
        }
        let expected = SegmentHeader::new(self.layout, self.system, self.timeline, number);
        match header.difference(&expected) {
            Some((offset, expected, found)) => Err(damage(offset, expected, found)),
            None => Ok(Some(file)),
        }
    }

    /// Whether these first bytes of a segment say, and a checksum confirms it, that what follows them is not this
    /// log's, or not in a format that this version reads.
    pub(super) fn is_of_others(&self, header: &[u8; HEADER_BYTES]) -> bool {
        match SegmentHeader::decode(header) {
            Ok(header) => header.system != self.system,
            Err(HeaderFault::Newer { .. }) => true,
            Err(HeaderFault::Damaged { .. }) => false,
        }
    }

    /// What it means that a segment could not be read at `offset`: a read that came short says nothing about the device.
    pub(super) fn unreadable(&self, number: SegmentNumber, offset: u64, error: impl Into<Arc<io::Error>>) -> WalError {
        let (path, source) = (self.segment_path(number), error.into());
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return WalError::Io { doing: "read", path, source };
        }
        let lsn = self.layout.segment_start(number).advanced(offset);
        WalError::Unreadable { path, offset, lsn, source }
    }

    /// Whether a segment holds nothing but zeros from `offset` on.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn is_blank_from(&self, number: SegmentNumber, offset: u64) -> Result<bool, WalError> {
        let Some(file) = self.open_unchecked(number)? else {
            return Err(WalError::io("open", &self.segment_path(number))(io::ErrorKind::NotFound.into()));
        };
        let found = file.len_bytes().and_then(|len| last_nonzero(file.as_ref(), offset, len));
        Ok(found.map_err(|error| self.unreadable(number, offset, error))?.is_none())
    }

    /// Whether a segment holds nothing behind its header, as those that were prepared ahead.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn is_blank(&self, number: SegmentNumber) -> Result<bool, WalError> {
        self.is_blank_from(number, HEADER_BYTES as u64)
    }

    /// Opens a segment for reading whatever it holds; `None` if there is no such file.
    pub(super) fn open_unchecked(&self, number: SegmentNumber) -> Result<Option<Arc<dyn File>>, WalError> {
        self.open_file(number, Access::Read)
    }

    fn open_file(&self, number: SegmentNumber, access: Access) -> Result<Option<Arc<dyn File>>, WalError> {
        let path = self.segment_path(number);
        match self.disk.open(&path, access) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if access == Access::Read => Err(self.inaccessible(number, "open", error)),
            other => other.map(Some).map_err(WalError::io("open", &path)),
        }
    }

    /// The length of a segment that is open, whatever it holds.
    pub(super) fn len_bytes(&self, number: SegmentNumber, file: &dyn File) -> Result<u64, WalError> {
        file.len_bytes().map_err(|error| self.inaccessible(number, "read the length of", error))
    }

    /// What it means that a segment cannot be opened for reading, or not be asked for its length: nothing of it can be
    /// read. That there are no descriptors or no memory says nothing about the segment.
    fn inaccessible(&self, number: SegmentNumber, doing: &'static str, error: io::Error) -> WalError {
        let refused = WalError::io(doing, &self.segment_path(number))(error);
        let is_scarce = refused.is_scarce();
        match refused {
            WalError::Io { source, .. } if !is_scarce => self.unreadable(number, 0, source),
            other => other,
        }
    }

    /// Makes an empty segment, of a spare one if there is any: zeros in place and header written, both durable before it
    /// gets its name, and the name durable before it is used. Ends early with [`WalError::Closed`] when cancelled.
    ///
    /// # Errors
    /// Something failed, such as for want of space. Nothing of it is left, but for an empty segment if only the last
    /// sync failed.
    pub(super) fn prepare(&self, number: SegmentNumber, pace: &dyn Fn() -> Pace) -> Result<Arc<dyn File>, WalError> {
        let temporary = self.path.join(PREPARING);
        self.remove_leftover()?;
        let prepared = self.blank(&temporary).and_then(|file| {
            self.fill(file.as_ref(), &temporary, number, pace)?;
            let path = self.segment_path(number);
            self.disk.rename(&temporary, &path).map_err(WalError::io("rename to", &path))?;
            if !active(Fault::NameNotSynced) {
                self.sync()?;
            }
            Ok(file)
        });
        if prepared.is_err() {
            // Best effort: what is left is removed before the next attempt, and ignored by everybody else.
            let _ = self.disk.remove(&temporary);
        }
        prepared
    }

    /// A file to fill, new or a spare one.
    ///
    /// Nothing is written to a spare one before it is durably out of the log: [`recycle`](Self::recycle) may be between
    /// its renaming and its sync on another thread, or its sync may have failed. If we died then, the segment would be
    /// back under its name with zeros in it.
    fn blank(&self, temporary: &Path) -> Result<Arc<dyn File>, WalError> {
        if let Some(spare) = self.spares()?.pop() {
            let path = self.path.join(spare);
            self.disk.rename(&path, temporary).map_err(WalError::io("rename", &path))?;
            if !active(Fault::RecycledNotSynced) {
                self.sync()?;
            }
            let file = self.disk.open(temporary, Access::Write).map_err(WalError::io("open", temporary))?;
            if file.len_bytes().map_err(WalError::io("read the length of", temporary))? == self.layout.segment_bytes() {
                return Ok(file);
            }
            self.remove_leftover()?;
        }
        self.disk.create(temporary).map_err(WalError::io("create", temporary))
    }

    fn fill(
        &self,
        file: &dyn File,
        path: &Path,
        number: SegmentNumber,
        pace: &dyn Fn() -> Pace,
    ) -> Result<(), WalError> {
        let header = SegmentHeader::new(self.layout, self.system, self.timeline, number);
        let mut at = 0;
        while at < self.layout.segment_bytes() {
            let step_bytes = match pace() {
                Pace::Easy => FILL_STEP_BYTES,
                Pace::Urgent => URGENT_FILL_STEP_BYTES,
                Pace::Cancelled => return Err(WalError::Closed),
            };
            let end = (at + step_bytes).min(self.layout.segment_bytes());
            if !(active(Fault::StaleBytesTrusted) && file.len_bytes().is_ok_and(|len| len >= end)) {
                file.zero_fill(at, end).map_err(WalError::io("fill", path))?;
            }
            if end == self.layout.segment_bytes() {
                file.write_at(&header.encode(), 0).map_err(WalError::io("write", path))?;
            }
            let is_forgotten = active(Fault::LastStepNotSynced) && end == self.layout.segment_bytes();
            if !active(Fault::HeaderNotSynced) && !is_forgotten {
                file.sync().map_err(WalError::io("sync", path))?;
            }
            at = end;
        }
        Ok(())
    }

    /// The names of the spare segments.
    fn spares(&self) -> Result<Vec<String>, WalError> {
        let mut names = self.disk.list(&self.path).map_err(WalError::io("list", &self.path))?;
        names.retain(|name| name.ends_with(SPARE));
        Ok(names)
    }

    /// How many segments can be prepared without taking space.
    pub(super) fn spare_count(&self) -> Result<usize, WalError> {
        Ok(self.spares()?.len())
    }

    /// Takes a segment out of the log, durably, and keeps its file as a spare one if there are not enough of them: there
    /// are no more than `spares`, which is counted on.
    ///
    /// If we die before the sync, the segment may be back with its name and all it holds: nobody has written to it,
    /// because only what is durably out of the log is used again. Opening a log syncs the directory for the same reason.
    ///
    /// # Errors
    /// It could not be taken out, or it is not known to be.
    pub(super) fn recycle(&self, number: SegmentNumber, spares: &mut usize) -> Result<(), WalError> {
        if *spares >= SPARES {
            return self.remove(number);
        }
        *spares += 1;
        let path = self.segment_path(number);
        let spare = self.path.join(format!("{}{SPARE}", self.layout.file_name(self.timeline, number)));
        match self.disk.rename(&path, &spare) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A full directory has no place for a longer name.
            Err(error) if is_full(&error) => return self.remove(number),
            other => other.map_err(WalError::io("rename", &path))?,
        }
        if active(Fault::RecycledNotSynced) {
            return Ok(());
        }
        self.sync()
    }

    /// Removes what an interrupted preparation left.
    fn remove_leftover(&self) -> Result<(), WalError> {
        let temporary = self.path.join(PREPARING);
        match self.disk.remove(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(WalError::io("remove", &temporary)),
        }
    }

    /// Removes a segment, durably.
    ///
    /// # Errors
    /// It could not be removed, or it is not known to be.
    pub(super) fn remove(&self, number: SegmentNumber) -> Result<(), WalError> {
        let path = self.segment_path(number);
        match self.disk.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(WalError::io("remove", &path))?,
        }
        self.sync()
    }

    /// Makes the names durable.
    pub(super) fn sync(&self) -> Result<(), WalError> {
        let opened = match self.opened.get() {
            Some(opened) => opened,
            None => {
                let opened = self.disk.open_dir(&self.path).map_err(WalError::io("open", &self.path))?;
                self.opened.get_or_init(|| opened)
            }
        };
        opened.sync().map_err(WalError::io("sync", &self.path))
    }

    /// Free space of the file system.
    pub(super) fn free_bytes(&self) -> Result<u64, WalError> {
        self.disk.free_bytes(&self.path).map_err(WalError::io("read the free space of", &self.path))
    }
}
