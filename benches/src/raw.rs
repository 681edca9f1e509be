//! The device's own speed: `pwrite` and `fdatasync` of given sizes into a file that is already filled.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

/// A file filled beforehand, written from its start to its end and over again.
pub struct RawFile {
    file: File,
    bytes: u64,
    at: u64,
}

impl RawFile {
    /// Makes one of `bytes`, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(path: &Path, bytes: u64) -> io::Result<RawFile> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let part = vec![1u8; 1 << 20];
        for index in 0..bytes >> 20 {
            file.write_all_at(&part, index << 20)?;
        }
        file.sync_all()?;
        Ok(RawFile { file, bytes, at: 0 })
    }

    /// Writes and syncs once; answers how many microseconds that took.
    ///
    /// # Errors
    /// The device refuses.
    pub fn write_and_sync(&mut self, part: &[u8]) -> io::Result<f64> {
        if self.at + part.len() as u64 > self.bytes {
            self.at = 0;
        }
        let start = Instant::now();
        self.file.write_all_at(part, self.at)?;
        self.file.sync_data()?;
        // The next one begins on a page of its own.
        self.at += (part.len() as u64).next_multiple_of(4096);
        Ok(start.elapsed().as_secs_f64() * 1e6)
    }

    /// Writes and syncs `count` times; answers microseconds of each.
    ///
    /// # Errors
    /// The device refuses.
    pub fn latencies(&mut self, part: &[u8], count: usize) -> io::Result<Vec<f64>> {
        (0..count).map(|_| self.write_and_sync(part)).collect()
    }

    /// Writes and syncs until `total_bytes` are written; answers bytes per second.
    ///
    /// # Errors
    /// The device refuses.
    pub fn bandwidth(&mut self, part: &[u8], total_bytes: u64) -> io::Result<f64> {
        let start = Instant::now();
        let count = total_bytes / part.len() as u64;
        for _ in 0..count {
            self.write_and_sync(part)?;
        }
        Ok(count as f64 * part.len() as f64 / start.elapsed().as_secs_f64())
    }
}

/// Bytes written to the block device that holds `path` since the machine started, by anybody.
pub fn device_bytes_written(path: &Path) -> Option<u64> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    Some(stat.split_whitespace().nth(6)?.parse::<u64>().ok()? * 512)
}
