//! Who a data directory belongs to.
//!
//! ```text
//!  offset  bytes
//!       0      8  magic "MAINSTID"
//!       8      4  format version of the directory, 1
//!      12      4  zero, reserved
//!      16      8  system id
//!      24      8  node id
//!      32      8  WAL segment size in bytes
//!      40     20  zero, reserved
//!      60      4  CRC-32 of bytes 0..60
//! ```
//!
//! All numbers are little-endian. The same 64 bytes are the file `identity` and RocksDB's copy.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::error::StorageError;
use super::layout::IDENTITY_FILE;
use crate::ident::{NodeId, SystemId};

/// The format that this build makes and knows.
pub const FORMAT_VERSION: u32 = 1;
/// Name of the file while it is being written.
pub(super) const TEMPORARY_FILE: &str = "identity.tmp";

const BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"MAINSTID";
const CRC_OFFSET: usize = 60;

/// Who a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The lineage of its WAL.
    pub system: SystemId,
    /// The node.
    pub node: NodeId,
    /// Its WAL's segment size.
    pub segment_size_bytes: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of system {}", self.node, self.system)
    }
}

impl Identity {
    /// A new system's first node.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub(super) fn draw(segment_size_bytes: u64) -> Result<Identity, StorageError> {
        // Zero is kept free to mean "none" in places where PostgreSQL's tools show it.
        let number = getrandom::u64().map_err(|error| StorageError::Io {
            doing: "draw a system id from",
            path: "the operating system".into(),
            source: io::Error::other(error.to_string()),
        })?;
        Ok(Identity { system: SystemId::new(number.max(1)), node: NodeId::new(1), segment_size_bytes })
    }

    pub(super) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.system.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.node.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.segment_size_bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the bytes that stand at `path`.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Identity, StorageError> {
        let damaged = |what: String| StorageError::Damaged { path: path.to_owned(), what };
        let Ok(bytes) = <&[u8; BYTES]>::try_from(bytes) else {
            return Err(damaged(format!("expected an identity of {BYTES} bytes, found {}", bytes.len())));
        };
        if bytes[0..8] != MAGIC {
            return Err(damaged("expected an identity at offset 0, found something else".into()));
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let (crc, stored) = (crc32fast::hash(&bytes[..CRC_OFFSET]), u32_at(CRC_OFFSET));
        if crc != stored {
            return Err(damaged(format!("expected CRC {crc:08x} at offset {CRC_OFFSET}, found {stored:08x}")));
        }
        if u32_at(8) != FORMAT_VERSION {
            return Err(StorageError::Newer { path: path.to_owned(), found: u32_at(8), known: FORMAT_VERSION });
        }
        let segment_size_bytes = u64_at(32);
        if !crate::config::is_segment_size(segment_size_bytes) {
            return Err(damaged(format!("expected a WAL segment size at offset 32, found {segment_size_bytes}")));
        }
        Ok(Identity { system: SystemId::new(u64_at(16)), node: NodeId::new(u64_at(24)), segment_size_bytes })
    }

    /// Reads a directory's identity; `None` if it has none.
    ///
    /// # Errors
    /// It cannot be read, is damaged or of a later version.
    pub fn read(directory: &Path) -> Result<Option<Identity>, StorageError> {
        let path = directory.join(IDENTITY_FILE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io("read", &path)(error)),
            Ok(bytes) => Identity::decode(&bytes, &path).map(Some),
        }
    }

    /// Writes a directory's identity, durably and at once: a reader finds it whole or not at all.
    pub(super) fn write(&self, directory: &Path) -> Result<(), StorageError> {
        replace_file(directory, TEMPORARY_FILE, IDENTITY_FILE, &self.encode())
    }
}

/// Writes a small file under a temporary name, syncs it, gives it its name and syncs that.
pub(super) fn replace_file(directory: &Path, temporary: &str, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let (from, to) = (directory.join(temporary), directory.join(name));
    let mut file = File::create(&from).map_err(StorageError::io("create", &from))?;
    file.write_all(bytes).map_err(StorageError::io("write", &from))?;
    file.sync_all().map_err(StorageError::io("sync", &from))?;
    fs::rename(&from, &to).map_err(StorageError::io("rename to", &to))?;
    sync_directory(directory)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StorageError> {
    let synced = File::open(directory).and_then(|opened| opened.sync_all());
    synced.map_err(StorageError::io("sync", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { system: SystemId::new(0x0123_4567_89AB_CDEF), node: NodeId::new(1), segment_size_bytes: 64 << 20 }
    }

    #[test]
    fn golden_bytes() {
        let hex: String = identity().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "4d41494e535449440100000000000000efcdab896745230101000000000000000000000400000000\
             00000000000000000000000000000000000000007b7f1435"
        );
    }

    #[test]
    fn any_flipped_bit_or_length_is_found() {
        let bytes = identity().encode();
        let path = Path::new("identity");
        assert_eq!(Identity::decode(&bytes, path).unwrap(), identity());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Identity::decode(&flipped, path), Err(StorageError::Damaged { .. })), "bit {bit}");
        }
        assert!(Identity::decode(&bytes[..63], path).is_err());
        assert!(Identity::decode(&[], path).is_err());
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = identity().encode();
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..CRC_OFFSET]).to_le_bytes();
        bytes[CRC_OFFSET..].copy_from_slice(&crc);
        let error = Identity::decode(&bytes, Path::new("identity")).unwrap_err();
        assert!(matches!(error, StorageError::Newer { found: 9, known: 1, .. }), "{error}");
    }
}
