//! How far RocksDB is known to have got: the file `meta/durable`.
//!
//! ```text
//!  offset  bytes
//!       0      8  magic "MAINSTDU"
//!       8      8  sequence number that was synced
//!      16      4  zero, reserved
//!      20      4  CRC-32 of bytes 0..20
//! ```
//!
//! All numbers are little-endian. RocksDB's point-in-time recovery drops everything behind a flipped bit in its own log
//! without a word. So a sequence number known to be durable is kept beside it, and a directory that recovers to less
//! is damaged. The number is a lower bound: an old one is weaker evidence, never wrong, so it is written in place and
//! unsynced at most every [`INTERVAL`], and synced at a clean stop. It lies within one sector and is never torn.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::StorageError;
use super::identity::replace_file;

pub(super) const FILE: &str = "durable";
const TEMPORARY_FILE: &str = "durable.tmp";
const BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"MAINSTDU";
const CRC_OFFSET: usize = 20;

/// How often the number is written at most.
const INTERVAL: Duration = Duration::from_millis(100);

/// The file, open for writing.
pub(super) struct SequenceEvidence {
    path: PathBuf,
    file: File,
    written: Instant,
}

/// The sequence number that the directory `meta` is known to have reached; `None` if nothing was noted yet.
pub(super) fn read(meta: &Path) -> Result<Option<u64>, StorageError> {
    let path = meta.join(FILE);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StorageError::io("read", &path))?,
    };
    match decode(&bytes) {
        Some(sequence) => Ok(Some(sequence)),
        None => Err(StorageError::Damaged { path, what: format!("expected a sequence number, found {bytes:02x?}") }),
    }
}

impl SequenceEvidence {
    /// Opens the file, making it if it is not there.
    pub(super) fn open(meta: &Path, sequence: u64) -> Result<SequenceEvidence, StorageError> {
        let path = meta.join(FILE);
        replace_file(meta, TEMPORARY_FILE, FILE, &encode(sequence))?;
        let file = File::options().write(true).open(&path).map_err(StorageError::io("open", &path))?;
        Ok(SequenceEvidence { path, file, written: Instant::now() })
    }

    /// Notes a sequence number that was synced, unless one was noted just now.
    pub(super) fn note(&mut self, sequence: u64) -> Result<(), StorageError> {
        if self.written.elapsed() >= INTERVAL { self.write(sequence) } else { Ok(()) }
    }

    /// Notes the sequence number exactly, and durably.
    pub(super) fn settle(&mut self, sequence: u64) -> Result<(), StorageError> {
        self.write(sequence)?;
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))
    }

    fn write(&mut self, sequence: u64) -> Result<(), StorageError> {
        self.file.write_all_at(&encode(sequence), 0).map_err(StorageError::io("write", &self.path))?;
        self.written = Instant::now();
        Ok(())
    }
}

fn encode(sequence: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..CRC_OFFSET]);
    bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let (body, crc) = bytes.split_at(CRC_OFFSET);
    let whole = bytes[0..8] == MAGIC && crc32fast::hash(body).to_le_bytes() == crc;
    let number = body.get(8..16)?.try_into().ok()?;
    whole.then(|| u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let hex: String = encode(0x0102_0304).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4d41494e53544455040302010000000000000000e63cd468");
        assert_eq!(decode(&encode(77)), Some(77));
        for bit in 0..BYTES * 8 {
            let mut flipped = encode(77);
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }
}
