//! A disk in memory that forgets at a crash, for tests.
//!
//! Every mutating operation has a number. The disk can be told to die at one of them (that operation and all later
//! ones fail and change nothing), to fail one, to fail a sync, or to be full. [`LossyDisk::crash`] then answers the
//! disk that a machine would find after a power cut: what was synced, plus a subset of what was not, chosen by a
//! [`Loss`], sector by sector for contents and name by name for directories.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use super::gate::{Gate, Hanging};
use super::shortage::{Action, Shortage};
use super::unsynced::{Contents, NameChange, PAGE_SECTORS, SECTOR_BYTES};
use super::{Access, Directory, Disk, File};

/// Which unsynced changes survive a crash.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// None of them.
    Everything,
    /// All of them.
    Nothing,
    /// Each by the toss of a coin from this seed.
    Random(u64),
    /// The same, but whole pages: each by the toss of a coin.
    Pages(u64),
    /// Only the last ones written: the order of writes turned around.
    Older(u64),
}

/// What goes wrong, by the number of the operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The machine dies at this operation.
    pub die_at: Option<u64>,
    /// This operation fails once.
    pub fail_at: Option<u64>,
    /// It fails because the disk is full.
    pub fails_full: bool,
    /// This read of a file comes half as long as the file would allow.
    pub short_read: Option<u64>,
    /// The n-th sync of a file fails once, and loses what it was to write.
    pub fail_sync: Option<u64>,
    /// The n-th sync of a directory fails once, and loses the names that it was to write.
    pub fail_sync_dir: Option<u64>,
    /// How many bytes fit on the disk.
    pub capacity_bytes: Option<u64>,
}

/// The disk.
#[derive(Clone, Default)]
pub struct LossyDisk {
    state: Arc<Mutex<State>>,
    /// Held by a test while syncs hang.
    hang: Arc<RwLock<()>>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    operations: u64,
    reads: u64,
    syncs: u64,
    dir_syncs: u64,
    dead: bool,
    /// Parts of vectored writes until one that is never made: its thread stands still in the middle of it.
    stall_in: Option<u64>,
    /// The error that whatever needs a file descriptor gets, if lists are meant too, and how often it did.
    opening_fails: Option<(i32, bool)>,
    refused: u64,
    shortage: Shortage,
    /// The file that cannot be opened, or not be asked for its length.
    denied: Option<(PathBuf, Denied)>,
    /// Where the next sync of a directory hangs.
    gate: Option<Arc<Gate>>,
    /// Where the next sync of a file does.
    sync_gate: Option<Arc<Gate>>,
    next_write: Option<NextWrite>,
    /// Names as the running system sees them, and as they are on the disk.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    durable_directories: BTreeSet<PathBuf>,
    files: Vec<Contents>,
}

/// What of a file fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It cannot be opened.
    Opening,
    /// It can, but not be asked for its length.
    Length,
}

/// What comes of the next write that is not vectored.
enum NextWrite {
    /// It hangs there first.
    Hangs(Arc<Gate>),
    /// Its thread unwinds, and nothing is written.
    Panics,
}

impl State {
    /// Counts an operation, and fails it if it is to fail.
    fn operation(&mut self, action: Action, path: &Path) -> io::Result<u64> {
        if self.dead {
            return Err(io::Error::other("the machine is dead"));
        }
        self.operations += 1;
        if self.faults.die_at == Some(self.operations) {
            self.dead = true;
            return Err(io::Error::other("the machine died"));
        }
        if self.faults.fail_at == Some(self.operations) {
            return Err(match self.faults.fails_full {
                true => io::ErrorKind::StorageFull.into(),
                false => io::Error::other("injected failure"),
            });
        }
        self.shortage.admit(action, path)?;
        Ok(self.operations)
    }

    /// The same for one on a file.
    fn file_operation(&mut self, action: Action, file: usize) -> io::Result<u64> {
        let path = self.path_of(file);
        self.operation(action, &path)
    }

    fn path_of(&self, file: usize) -> PathBuf {
        self.names.iter().find(|(_, named)| **named == file).map(|(path, _)| path.clone()).unwrap_or_default()
    }

    /// Fails what is denied of a file.
    fn check_denied(&self, path: &Path, what: Denied) -> io::Result<()> {
        match self.denied.as_ref().is_some_and(|denied| denied.0 == path && denied.1 == what) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }

    /// Fails what needs a file descriptor if there are none.
    fn opening(&mut self) -> io::Result<()> {
        match self.opening_fails {
            Some((errno, _)) => {
                self.refused += 1;
                Err(io::Error::from_raw_os_error(errno))
            }
            None => Ok(()),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].live.len() as u64).sum()
    }

    fn write(&mut self, file: usize, bytes: &[u8], offset: usize) -> io::Result<()> {
        let operation = self.file_operation(Action::Write, file)?;
        let end = offset + bytes.len();
        let growth = end.saturating_sub(self.files[file].live.len()) as u64;
        if self.faults.capacity_bytes.is_some_and(|capacity| growth > 0 && self.used_bytes() + growth > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let contents = &mut self.files[file];
        if contents.live.len() < end {
            contents.live.resize(end, 0);
        }
        contents.live[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            contents.dirty.insert(sector, operation);
            contents.bad.remove(&sector);
        }
        Ok(())
    }
}

/// A small generator, so that a seed is all there is to know (SplitMix64, Steele et al. 2014).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

impl LossyDisk {
    /// An empty disk.
    pub fn new(faults: Faults) -> LossyDisk {
        let disk = LossyDisk::default();
        disk.state.lock().faults = faults;
        disk
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// How many reads of files there were.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads
    }

    /// How many files were made.
    pub fn files_made(&self) -> usize {
        self.state.lock().files.len()
    }

    /// How many syncs of files there were.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// How many syncs of directories there were.
    pub fn dir_syncs(&self) -> u64 {
        self.state.lock().dir_syncs
    }

    /// Whether the machine has died.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// Changes how many bytes fit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().faults.capacity_bytes = bytes;
    }

    /// Syncs hang until the answer is dropped.
    pub fn hang(&self) -> RwLockWriteGuard<'_, ()> {
        self.hang.write()
    }

    /// Whatever needs a file descriptor fails with this error, until [`allow_opening`](Self::allow_opening);
    /// listing a directory does, too, if `lists`.
    pub fn refuse_opening(&self, errno: i32, lists: bool) {
        self.state.lock().opening_fails = Some((errno, lists));
    }

    /// There are file descriptors again.
    pub fn allow_opening(&self) {
        self.state.lock().opening_fails = None;
    }

    /// How often something was refused for that.
    pub fn refused(&self) -> u64 {
        self.state.lock().refused
    }

    /// After so many more operations the disk is full for the next one and all of its kind on that path, until there is
    /// [room](Self::make_room).
    pub fn fill_in(&self, operations: u64) {
        self.state.lock().shortage = Shortage::begins_in(operations);
    }

    /// What was refused for that first.
    pub fn refused_for_space(&self) -> Option<(Action, PathBuf)> {
        self.state.lock().shortage.refused().cloned()
    }

    /// There is room again.
    pub fn make_room(&self) {
        self.state.lock().shortage = Shortage::default();
    }

    /// This fails of a file from now on.
    pub fn deny(&self, path: &Path, what: Denied) {
        self.state.lock().denied = Some((path.to_owned(), what));
    }

    /// The next operation fails once; because the disk is full, if so.
    pub fn fail_next(&self, fails_full: bool) {
        let mut state = self.state.lock();
        (state.faults.fail_at, state.faults.fails_full) = (Some(state.operations + 1), fails_full);
    }

    /// The next sync of a directory fails once, and loses the names that it was to write.
    pub fn fail_next_sync_dir(&self) {
        let mut state = self.state.lock();
        state.faults.fail_sync_dir = Some(state.dir_syncs + 1);
    }

    /// The next sync of a directory hangs until the answer is dropped, and no other one does.
    pub fn hang_next_sync_dir(&self) -> Hanging {
        let gate = Arc::new(Gate::default());
        let hanging = Hanging::new(&gate);
        self.state.lock().gate = Some(gate);
        hanging
    }

    /// The next sync of a file hangs, before anything of it is durable, until the answer is dropped.
    pub fn hang_next_sync(&self) -> Hanging {
        let gate = Arc::new(Gate::default());
        let hanging = Hanging::new(&gate);
        self.state.lock().sync_gate = Some(gate);
        hanging
    }

    /// The next write that is not vectored hangs, before it changes anything, until the answer is dropped.
    pub fn hang_next_write(&self) -> Hanging {
        let gate = Arc::new(Gate::default());
        let hanging = Hanging::new(&gate);
        self.state.lock().next_write = Some(NextWrite::Hangs(gate));
        hanging
    }

    /// The thread that makes the next write that is not vectored unwinds, and nothing is written.
    pub fn panic_next_write(&self) {
        self.state.lock().next_write = Some(NextWrite::Panics);
    }

    /// The part of a vectored write that comes after so many others is never made, and says that it was: as if its thread
    /// stood still there until the process is killed.
    pub fn stall_in(&self, parts: u64) {
        self.state.lock().stall_in = Some(parts);
    }

    /// Flips one bit of a file's contents, on the disk and in memory.
    pub fn flip(&self, path: &Path, bit: u64) {
        let mut state = self.state.lock();
        let file = state.names[path];
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        state.files[file].live[byte] ^= mask;
        state.files[file].durable[byte] ^= mask;
    }

    /// The sector that this byte of a file lies in goes bad: every read of it fails, whatever else is read with it, until
    /// it is written again.
    pub fn spoil(&self, path: &Path, offset: u64) {
        let mut state = self.state.lock();
        let file = state.names[path];
        state.files[file].bad.insert(offset as usize / SECTOR_BYTES);
    }

    /// A file's contents as the running system sees them.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.state.lock();
        state.files[state.names[path]].live.clone()
    }

    /// Makes the names in a directory durable.
    pub fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let gate = self.state.lock().gate.take();
        if let Some(gate) = gate {
            gate.pass();
        }
        let mut state = self.state.lock();
        state.operation(Action::SyncDir, directory)?;
        state.dir_syncs += 1;
        if state.faults.fail_sync_dir == Some(state.dir_syncs) {
            // As after a failed sync of a file: the system shows the names, and does not write them any more.
            state.pending.retain(|change| change.directory() != Some(directory));
            return Err(io::Error::other("injected failure of a sync"));
        }
        let pending = std::mem::take(&mut state.pending);
        let made: Vec<_> = state.directories.iter().filter(|path| path.parent() == Some(directory)).cloned().collect();
        state.durable_directories.extend(made);
        for change in pending {
            if change.directory() == Some(directory) {
                change.apply(&mut state.durable_names);
            } else {
                state.pending.push(change);
            }
        }
        Ok(())
    }

    /// The disk after the process was killed: the machine lives on, and what is not synced can still be lost.
    pub fn kill(&self, faults: Faults) -> LossyDisk {
        let state = self.state.lock();
        let after = State {
            faults,
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending: state.pending.clone(),
            directories: state.directories.clone(),
            durable_directories: state.durable_directories.clone(),
            files: state.files.clone(),
            ..State::default()
        };
        LossyDisk { state: Arc::new(Mutex::new(after)), hang: Arc::default() }
    }

    /// The disk after a power cut: nothing is unsynced on it any more.
    pub fn crash(&self, loss: Loss, faults: Faults) -> LossyDisk {
        let state = self.state.lock();
        let mut random = Random(match loss {
            Loss::Random(seed) | Loss::Pages(seed) | Loss::Older(seed) => seed,
            Loss::Everything | Loss::Nothing => 0,
        });
        let middle = random.below(state.operations.max(1));
        let mut keep = |operation: u64| match loss {
            Loss::Everything => false,
            Loss::Nothing => true,
            Loss::Random(_) | Loss::Pages(_) => random.draw() & 1 == 1,
            Loss::Older(_) => operation > middle,
        };
        let mut names = state.durable_names.clone();
        for change in state.pending.iter().filter(|_| keep(state.operations)).cloned().collect::<Vec<_>>() {
            change.apply(&mut names);
        }
        let directories = match loss {
            Loss::Nothing => state.directories.clone(),
            _ => state.durable_directories.clone(),
        };
        names.retain(|path, _| path.parent().is_some_and(|directory| directories.contains(directory)));
        let files = state.files.iter().map(|contents| {
            let mut survivor = contents.clone();
            let mut last_page = None;
            for (sector, operation) in &contents.dirty {
                let page = sector / PAGE_SECTORS;
                let is_kept = match (loss, last_page) {
                    (Loss::Pages(_), Some((last, is_kept))) if last == page => is_kept,
                    _ => keep(*operation),
                };
                last_page = Some((page, is_kept));
                if is_kept {
                    survivor.keep_sector(*sector);
                }
            }
            let Contents { durable, bad, .. } = survivor;
            Contents { live: durable.clone(), durable, dirty: BTreeMap::new(), bad }
        });
        let after = State {
            faults,
            files: files.collect(),
            durable_names: names.clone(),
            names,
            durable_directories: directories.clone(),
            directories,
            ..State::default()
        };
        LossyDisk { state: Arc::new(Mutex::new(after)), hang: Arc::default() }
    }
}

impl fmt::Debug for LossyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LossyDisk")
    }
}

impl Disk for LossyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.opening()?;
        state.operation(Action::Create, path)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(Contents::default());
        state.names.insert(path.to_owned(), file);
        state.pending.push(NameChange::Add(path.to_owned(), file));
        Ok(Arc::new(LossyFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path, _access: Access) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.opening()?;
        state.check_denied(path, Denied::Opening)?;
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(LossyFile { disk: self.clone(), file }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        if matches!(state.opening_fails, Some((_, true))) {
            state.opening()?;
        }
        if !state.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(paths.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operation(Action::CreateDir, path)?;
        state.directories.insert(path.to_owned());
        // A directory's own name is lost or kept as others are; with it goes what is in it.
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operation(Action::Rename, to)?;
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), file);
        change.clone().apply(&mut state.names);
        state.pending.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.operation(Action::Remove, path)?;
        state.names.remove(path);
        state.pending.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn open_dir(&self, directory: &Path) -> io::Result<Arc<dyn Directory>> {
        self.state.lock().opening()?;
        Ok(Arc::new(LossyDirectory { disk: self.clone(), path: directory.to_owned() }))
    }

    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.faults.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }
}

#[derive(Debug)]
struct LossyDirectory {
    disk: LossyDisk,
    path: PathBuf,
}

impl Directory for LossyDirectory {
    fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.path)
    }
}

struct LossyFile {
    disk: LossyDisk,
    file: usize,
}

impl File for LossyFile {
    fn len_bytes(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.check_denied(&state.path_of(self.file), Denied::Length)?;
        Ok(state.files[self.file].live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.reads += 1;
        let is_short = state.faults.short_read == Some(state.reads);
        let live = &state.files[self.file].live;
        let rest = live.get(offset as usize..).unwrap_or(&[]);
        let count = rest.len().min(buffer.len()) / if is_short { 2 } else { 1 };
        let sectors = offset as usize / SECTOR_BYTES..(offset as usize + count).div_ceil(SECTOR_BYTES);
        if count > 0 && state.files[self.file].bad.range(sectors).next().is_some() {
            return Err(io::Error::other("a bad sector"));
        }
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let next_write = self.disk.state.lock().next_write.take();
        match next_write {
            Some(NextWrite::Hangs(gate)) => gate.pass(),
            Some(NextWrite::Panics) => std::panic::resume_unwind(Box::new("injected panic of a write")),
            None => {}
        }
        self.disk.state.lock().write(self.file, bytes, offset as usize)
    }

    fn write_vectored_at(&self, parts: &mut [io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        // An empty part is no write: it cannot fail when the others are there.
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let mut state = self.disk.state.lock();
            let left = state.stall_in;
            state.stall_in = left.and_then(|left| left.checked_sub(1));
            if left != Some(0) {
                state.write(self.file, part, at as usize)?;
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    fn zero_fill(&self, offset: u64, end: u64) -> io::Result<()> {
        self.write_at(&vec![0; (end - offset) as usize], offset)
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.disk.hang.read());
        let gate = self.disk.state.lock().sync_gate.take();
        if let Some(gate) = gate {
            gate.pass();
        }
        let mut state = self.disk.state.lock();
        state.file_operation(Action::Sync, self.file)?;
        state.syncs += 1;
        let fails = state.faults.fail_sync == Some(state.syncs);
        let contents = &mut state.files[self.file];
        let dirty = std::mem::take(&mut contents.dirty);
        if fails {
            // As on Linux: the pages are clean now, and what they held is not on the disk.
            return Err(io::Error::other("injected failure of a sync"));
        }
        for sector in dirty.into_keys() {
            contents.keep_sector(sector);
        }
        Ok(())
    }
}
