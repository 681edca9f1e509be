//! Floor 1: files, as the WAL needs them and no more.
//!
//! A narrow seam with two sides: [`RealDisk`] is the operating system, `LossyDisk` (in tests) forgets at a crash
//! whatever was not synced, in any combination. Whoever writes through this seam gets his crash tests from it.
//!
//! What holds on both sides: bytes written to a file are seen by every later read of it; they survive a crash only after
//! [`File::sync`] returned; a name survives only after [`Directory::sync`] did. A sync that failed
//! may have lost what it was to write, and a later one that succeeds does not bring it back.

mod real;

#[cfg(any(test, fuzzing))]
mod gate;
#[cfg(any(test, fuzzing))]
pub mod lossy;
#[cfg(test)]
mod lossy_test;
#[cfg(any(test, fuzzing))]
pub mod shortage;
#[cfg(any(test, fuzzing))]
mod unsynced;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;

/// Directories and files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a file that does not exist yet.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file that exists.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// The names of the regular files in a directory, in order. Names that are not UTF-8 are left out.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory; nothing happens if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name in the same directory, replacing what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Who has it open goes on reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Opens a directory, to sync it. Needs a file descriptor, and keeps it.
    fn open_dir(&self, directory: &Path) -> io::Result<Arc<dyn Directory>>;

    /// Bytes that may still be written to the file system of this directory.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// An open directory.
pub trait Directory: fmt::Debug + Send + Sync {
    /// Makes the names in it durable. Opens nothing: a process that has no file descriptors left can still do it.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait File: Send + Sync {
    /// Its length in bytes.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Reads at `offset` until `buffer` is full or the file ends; answers how many bytes that were.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all bytes of all `parts` at `offset`, one part behind the other.
    fn write_vectored_at(&self, parts: &mut [io::IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Writes zeros from `offset` up to `end`, so that the space is allocated and later writes to it cannot find the
    /// disk full.
    fn zero_fill(&self, offset: u64, end: u64) -> io::Result<()>;

    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;
}
