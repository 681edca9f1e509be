//! Pairs of a snapshot as they travel from node to node, version 1. Nobody else makes or parses these bytes.
//!
//! ```text
//!  chunk   version 1 │ flags 1 │ count 4 │ pair × count
//!  pair    table 1 │ length of key 4 │ key │ length of value 4 │ value
//!
//!  flags   1 the last chunk, all others 0
//!  table   1 cluster   2 catalog   3 slots   4 kv   5 sessions
//!
//!  checksum = CRC-32 of  snapshot 8 ‖ number 8 ‖ chunk
//! ```
//!
//! Numbers are little-endian. Beside a chunk go its number (0, 1, 2, … in one transfer) and its checksum, so a chunk that
//! was damaged, or belongs to another snapshot or to another place in this one, is told from the one that was expected.
//! A TCP checksum lets one damaged packet in some tens of thousands pass, and plaintext has no other.
//!
//! **Bounds.** A chunk is made from one [`read`](super::Captured::read) of [`CHUNK_BYTES`]; a larger pair travels alone.
//! A decoder takes at most [`CHUNK_LIMIT_BYTES`] and [`CHUNK_LIMIT_PAIRS`], and believes no length that the bytes at hand
//! do not bear out, so that what it allocates is never more than a small multiple of what arrived.

use super::{PAIR_OVERHEAD_BYTES, Pair, Place, SnapshotId};
use crate::raftstore::log_store::Table;

/// How much of a snapshot is read and sent at a time.
pub const CHUNK_BYTES: usize = 512 << 10;
/// Largest encoded chunk: the largest pair is below it, and it fits into what a transport carries.
pub const CHUNK_LIMIT_BYTES: usize = (64 << 20) - (1 << 10);
/// Most pairs in a chunk: no read of [`CHUNK_BYTES`] has more.
pub const CHUNK_LIMIT_PAIRS: usize = CHUNK_BYTES / PAIR_OVERHEAD_BYTES;

const VERSION: u8 = 1;
const LAST_FLAG: u8 = 1;
/// Version, flags, count.
const HEADER_BYTES: usize = 6;
/// Table and two lengths.
const PAIR_HEADER_BYTES: usize = 9;

/// Pairs that travel together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// In order, behind those of the chunk before.
    pub pairs: Vec<Pair>,
    /// Whether the snapshot is complete with it.
    pub is_last: bool,
}

/// Why there is no chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// It was damaged on its way, or is not the one that was expected.
    #[error("the checksum is {found:08x}, not {expected:08x}")]
    Checksum {
        /// What the bytes make.
        expected: u32,
        /// What came with them.
        found: u32,
    },
    /// Made by a build that this one does not know.
    #[error("version {0} of chunks is not known")]
    Version(u8),
    /// Flags or a table that are not known.
    #[error("{what} {number} is not known")]
    Unknown {
        /// Of what kind.
        what: &'static str,
        /// Which.
        number: u8,
    },
    /// More than there may be.
    #[error("{count} {unit} are more than {limit}")]
    TooMuch {
        /// How many.
        count: usize,
        /// Of what.
        unit: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The bytes end in the middle.
    #[error("it ends in the middle")]
    Short,
    /// There are more bytes than pairs.
    #[error("{0} bytes lie behind the last pair")]
    Excess(usize),
}

impl Chunk {
    /// Its bytes.
    ///
    /// # Errors
    /// [`ChunkError::TooMuch`].
    pub fn encode(&self) -> Result<Vec<u8>, ChunkError> {
        limit(self.pairs.len(), "pairs", CHUNK_LIMIT_PAIRS)?;
        let size =
            |pair: &Pair| PAIR_HEADER_BYTES.saturating_add(pair.place.key.len()).saturating_add(pair.value.len());
        let size = self.pairs.iter().map(size).fold(HEADER_BYTES, usize::saturating_add);
        limit(size, "bytes", CHUNK_LIMIT_BYTES)?;
        let mut bytes = Vec::with_capacity(size);
        bytes.push(VERSION);
        bytes.push(if self.is_last { LAST_FLAG } else { 0 });
        put_length(self.pairs.len(), &mut bytes);
        for Pair { place, value } in &self.pairs {
            bytes.push(table_number(place.table));
            for part in [&place.key, value] {
                put_length(part.len(), &mut bytes);
                bytes.extend_from_slice(part);
            }
        }
        Ok(bytes)
    }

    /// The chunk with these bytes.
    ///
    /// # Errors
    /// Any but [`ChunkError::Checksum`].
    pub fn decode(mut bytes: &[u8]) -> Result<Chunk, ChunkError> {
        limit(bytes.len(), "bytes", CHUNK_LIMIT_BYTES)?;
        let version = take_byte(&mut bytes)?;
        if version != VERSION {
            return Err(ChunkError::Version(version));
        }
        let flags = take_byte(&mut bytes)?;
        if flags & !LAST_FLAG != 0 {
            return Err(ChunkError::Unknown { what: "flags", number: flags });
        }
        let count = take_length(&mut bytes)?;
        limit(count, "pairs", CHUNK_LIMIT_PAIRS)?;
        if count > bytes.len() / PAIR_HEADER_BYTES {
            return Err(ChunkError::Short);
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            let number = take_byte(&mut bytes)?;
            let table = table(number).ok_or(ChunkError::Unknown { what: "table", number })?;
            let key = take_part(&mut bytes)?;
            let value = take_part(&mut bytes)?;
            pairs.push(Pair { place: Place { table, key }, value });
        }
        if !bytes.is_empty() {
            return Err(ChunkError::Excess(bytes.len()));
        }
        Ok(Chunk { pairs, is_last: flags & LAST_FLAG != 0 })
    }
}

/// The checksum of a chunk in its place.
pub fn checksum(snapshot: SnapshotId, number: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&snapshot.0.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Whether these bytes are what was sent in this place.
///
/// # Errors
/// [`ChunkError::Checksum`].
pub fn check(snapshot: SnapshotId, number: u64, bytes: &[u8], found: u32) -> Result<(), ChunkError> {
    let expected = checksum(snapshot, number, bytes);
    if expected == found { Ok(()) } else { Err(ChunkError::Checksum { expected, found }) }
}

/// The number that stands for a table between nodes.
pub(crate) fn table_number(table: Table) -> u8 {
    match table {
        Table::Cluster => 1,
        Table::Catalog => 2,
        Table::Slots => 3,
        Table::Kv => 4,
        Table::Sessions => 5,
    }
}

/// The table that a number stands for.
pub(crate) fn table(number: u8) -> Option<Table> {
    match number {
        1 => Some(Table::Cluster),
        2 => Some(Table::Catalog),
        3 => Some(Table::Slots),
        4 => Some(Table::Kv),
        5 => Some(Table::Sessions),
        _ => None,
    }
}

fn limit(count: usize, unit: &'static str, limit: usize) -> Result<(), ChunkError> {
    if count > limit { Err(ChunkError::TooMuch { count, unit, limit }) } else { Ok(()) }
}

/// Of something that is below the limit of a chunk.
fn put_length(length: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, ChunkError> {
    let (first, rest) = bytes.split_first().ok_or(ChunkError::Short)?;
    *bytes = rest;
    Ok(*first)
}

fn take_length(bytes: &mut &[u8]) -> Result<usize, ChunkError> {
    let (first, rest) = bytes.split_first_chunk().ok_or(ChunkError::Short)?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*first)).map_err(|_| ChunkError::Short)
}

fn take_part(bytes: &mut &[u8]) -> Result<Vec<u8>, ChunkError> {
    let length = take_length(bytes)?;
    let (part, rest) = bytes.split_at_checked(length).ok_or(ChunkError::Short)?;
    *bytes = rest;
    Ok(part.to_vec())
}

#[cfg(test)]
#[path = "chunk_test.rs"]
mod tests;
