//! The durable bytes of the raftstore: keys and values in RocksDB's families. Nobody else makes or parses them.
//!
//! Keys, all numbers big-endian so that they sort as numbers:
//!
//! ```text
//!  raft_log     group 8 ‖ index 8                     → entry
//!  raft_state   group 8 ‖ tag 1                       → the record of that tag
//!  the others   group 8 ‖ generation 4 ‖ a machine's  → a machine's
//!
//!  tag 1 replica   2 hard state   3 membership   4 applied   5 truncated   6 snapshot marker   7 tombstone
//!      8 unhealthy
//! ```
//!
//! Of a group that was destroyed the tombstone stays alone, also beside the records of a later replica. A machine's keys
//! carry a generation because a snapshot fills a later one bit by bit, and becomes visible by flipping the number in the
//! replica's record. While it is filled, the snapshot marker says which: what a start finds of it is removed. Taking it over
//! removes the word that the replica is unhealthy, too; versions before that word refuse a directory in which there is one.
//!
//! Values, all numbers little-endian. Each begins with a version, which is 1 unless it says otherwise:
//!
//! ```text
//!  entry        version 1 │ kind 1 │ term 8 │ length of context 4 │ context │ data
//!  replica      version 1 │ replica 8 │ generation 4
//!  hard state   version 1 │ term 8 │ vote 8, 0 for none │ commit 8
//!  membership   see `membership`
//!  applied      version 1 │ index 8
//!  truncated    version 1 │ index 8 │ term 8
//!  marker       version 1 │ generation 4, being filled │ snapshot id 8 │ index 8 │ term 8, of its last entry
//!  tombstone    version 1 │ replica 8, the highest that was destroyed
//!  unhealthy    see `unhealthy`
//!
//!  kind 0 command   1 conf change
//! ```
//!
//! An entry's index stands in its key alone. There is no checksum here: RocksDB has one over each block and each record
//! of its log, and checks it whenever it reads.

mod membership;
mod unhealthy;

use std::fmt;
use std::ops::{Bound, Range};

use super::entry::{Entry, EntryKind, HardState, Position};
use super::snapshot::SnapshotId;
use crate::ident::{GroupId, LogIndex, ReplicaId, Term};
pub(super) use membership::{decode_membership, encode_membership};
pub(super) use unhealthy::{decode_unhealthy, encode_unhealthy};

/// The version of all values that this build makes and knows.
const VERSION: u8 = 1;

const GROUP_BYTES: usize = 8;
const LOG_KEY_BYTES: usize = 16;
const STATE_KEY_BYTES: usize = 9;
const TABLE_PREFIX_BYTES: usize = 12;
/// Version, kind, term, length of the context.
const ENTRY_HEADER_BYTES: usize = 14;

/// Which of a group's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Tag {
    Replica = 1,
    HardState = 2,
    Membership = 3,
    Applied = 4,
    Truncated = 5,
    Marker = 6,
    Tombstone = 7,
    Unhealthy = 8,
}

impl Tag {
    const ALL: [Tag; 8] = [
        Tag::Replica,
        Tag::HardState,
        Tag::Membership,
        Tag::Applied,
        Tag::Truncated,
        Tag::Marker,
        Tag::Tombstone,
        Tag::Unhealthy,
    ];
    /// What every group has that is there.
    pub const OF_A_GROUP: [Tag; 5] = [Tag::Replica, Tag::HardState, Tag::Membership, Tag::Applied, Tag::Truncated];
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tag::Replica => "replica",
            Tag::HardState => "hard state",
            Tag::Membership => "membership",
            Tag::Applied => "applied index",
            Tag::Truncated => "truncated position",
            Tag::Marker => "snapshot marker",
            Tag::Tombstone => "tombstone",
            Tag::Unhealthy => "word that it is unhealthy",
        })
    }
}

/// Which of a group's sets of tables is the one to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(pub u32);

impl Default for Generation {
    fn default() -> Generation {
        Generation::FIRST
    }
}

impl Generation {
    /// That of a group that was never filled from a snapshot.
    pub const FIRST: Generation = Generation(1);

    /// The next one. The last number is no generation's: none is filled behind 2³² snapshots.
    pub fn next(self) -> Option<Generation> {
        self.0.checked_add(1).filter(|next| *next < u32::MAX).map(Generation)
    }
}

/// The record of tag 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    pub replica: ReplicaId,
    pub generation: Generation,
}

/// The record of tag 6: a snapshot is being filled into a generation that nobody sees yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub generation: Generation,
    pub id: SnapshotId,
    pub position: Position,
}

/// Bytes that are not what must be there. It shows lengths and numbers of the header, never a user's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub expected: String,
    pub found: String,
}

impl Mismatch {
    pub fn new(expected: impl Into<String>, found: impl fmt::Display) -> Mismatch {
        Mismatch { expected: expected.into(), found: found.to_string() }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

/// Where an entry lies in `raft_log`.
pub(super) fn log_key(group: GroupId, index: LogIndex) -> [u8; LOG_KEY_BYTES] {
    let mut key = [0; LOG_KEY_BYTES];
    key[..GROUP_BYTES].copy_from_slice(&group.get().to_be_bytes());
    key[GROUP_BYTES..].copy_from_slice(&index.get().to_be_bytes());
    key
}

/// The keys of a range of a log.
pub(super) fn log_range(group: GroupId, range: Range<LogIndex>) -> Range<[u8; LOG_KEY_BYTES]> {
    log_key(group, range.start)..log_key(group, range.end)
}

/// The keys of all logs from one group on. No entry has the last index there is.
pub(super) fn logs_from(group: GroupId) -> Range<[u8; LOG_KEY_BYTES]> {
    log_key(group, LogIndex::default())..[u8::MAX; LOG_KEY_BYTES]
}

/// Group and index of a key of `raft_log`.
pub(super) fn decode_log_key(key: &[u8]) -> Result<(GroupId, LogIndex), Mismatch> {
    let mut reader = Reader::new(key);
    match (reader.u64_be(), reader.u64_be(), reader.rest()) {
        (Some(group), Some(index), []) => Ok((GroupId::new(group), LogIndex::new(index))),
        _ => Err(Mismatch::new(format!("a key of {LOG_KEY_BYTES} bytes"), format_args!("{} bytes", key.len()))),
    }
}

/// Where a record lies in `raft_state`.
pub(super) fn state_key(group: GroupId, tag: Tag) -> [u8; STATE_KEY_BYTES] {
    raw_state_key(group, tag as u8)
}

/// All keys of `raft_state`.
pub(super) fn all_states() -> Range<[u8; STATE_KEY_BYTES]> {
    [0; STATE_KEY_BYTES]..[u8::MAX; STATE_KEY_BYTES]
}

/// The keys of one group in `raft_state`. No tag is 255.
pub(super) fn state_range(group: GroupId) -> Range<[u8; STATE_KEY_BYTES]> {
    raw_state_key(group, 0)..raw_state_key(group, u8::MAX)
}

fn raw_state_key(group: GroupId, tag: u8) -> [u8; STATE_KEY_BYTES] {
    let mut key = [0; STATE_KEY_BYTES];
    key[..GROUP_BYTES].copy_from_slice(&group.get().to_be_bytes());
    key[GROUP_BYTES] = tag;
    key
}

/// Group and tag of a key of `raft_state`.
pub(super) fn decode_state_key(key: &[u8]) -> Result<(GroupId, Tag), Mismatch> {
    let mut reader = Reader::new(key);
    match (reader.u64_be(), reader.u8(), reader.rest()) {
        (Some(group), Some(number), []) => match Tag::ALL.into_iter().find(|tag| *tag as u8 == number) {
            Some(tag) => Ok((GroupId::new(group), tag)),
            None => Err(Mismatch::new("a record that this version knows", format_args!("tag {number}"))),
        },
        _ => Err(Mismatch::new(format!("a key of {STATE_KEY_BYTES} bytes"), format_args!("{} bytes", key.len()))),
    }
}

/// What the keys of a group's tables begin with.
pub(super) fn table_prefix(group: GroupId, generation: Generation) -> [u8; TABLE_PREFIX_BYTES] {
    let mut prefix = [0; TABLE_PREFIX_BYTES];
    prefix[..GROUP_BYTES].copy_from_slice(&group.get().to_be_bytes());
    prefix[GROUP_BYTES..].copy_from_slice(&generation.0.to_be_bytes());
    prefix
}

/// A machine's key as it lies in a table.
pub(super) fn table_key(group: GroupId, generation: Generation, key: &[u8]) -> Vec<u8> {
    [&table_prefix(group, generation), key].concat()
}

/// The keys of a range of a machine's as they lie in a table.
pub(super) fn table_range(
    group: GroupId,
    generation: Generation,
    (from, to): (Bound<&[u8]>, Bound<&[u8]>),
) -> Range<Vec<u8>> {
    let key = |key| table_key(group, generation, key);
    // Nothing lies between a key and the same with a zero behind it.
    let behind = |key| [&table_key(group, generation, key), &[0][..]].concat();
    let start = match from {
        Bound::Included(from) => key(from),
        Bound::Excluded(from) => behind(from),
        Bound::Unbounded => key(&[]),
    };
    let end = match to {
        Bound::Included(to) => behind(to),
        Bound::Excluded(to) => key(to),
        Bound::Unbounded => match generation.0.checked_add(1) {
            Some(next) => table_key(group, Generation(next), &[]),
            None => table_key(GroupId::new(group.get().saturating_add(1)), Generation(0), &[]),
        },
    };
    start..end
}

/// All keys of a group's generation in a table.
pub(super) fn generation_range(group: GroupId, generation: Generation) -> Range<Vec<u8>> {
    table_range(group, generation, (Bound::Unbounded, Bound::Unbounded))
}

/// All keys of a group in a table.
pub(super) fn tables_of(group: GroupId) -> Range<Vec<u8>> {
    table_key(group, Generation(0), &[])..table_key(group, Generation(u32::MAX), &[])
}

/// All keys of a group in a table, up to and with a generation's.
pub(super) fn tables_through(group: GroupId, generation: Generation) -> Range<Vec<u8>> {
    table_key(group, Generation(0), &[])..generation_range(group, generation).end
}

/// All keys of a group in a table, from a generation's on. Beyond them is the next group, or nothing.
pub(super) fn tables_from(group: GroupId, generation: Generation) -> Range<Vec<u8>> {
    let end = match group.get().checked_add(1) {
        Some(next) => table_prefix(GroupId::new(next), Generation(0)).to_vec(),
        None => vec![u8::MAX; TABLE_PREFIX_BYTES + 1],
    };
    table_key(group, generation, &[])..end
}

/// A machine's key, of one that lies in a table.
pub(super) fn decode_table_key(key: &[u8]) -> &[u8] {
    key.get(TABLE_PREFIX_BYTES..).unwrap_or_default()
}

/// The generation of a key that lies in a table; `None` if no group has such a key.
pub(super) fn decode_generation(key: &[u8]) -> Option<Generation> {
    let mut reader = Reader::new(key);
    reader.u64_be()?;
    reader.u32_be().map(Generation)
}

/// Appends an entry's value to `bytes`; `false`, and nothing is appended, if no value can hold it.
#[must_use]
pub(super) fn encode_entry(entry: &Entry, bytes: &mut Vec<u8>) -> bool {
    let Ok(context_len) = u32::try_from(entry.context().len()) else { return false };
    bytes.reserve(ENTRY_HEADER_BYTES + entry.context().len() + entry.data().len());
    bytes.push(VERSION);
    bytes.push(match entry.kind() {
        EntryKind::Command => 0,
        EntryKind::ConfChange => 1,
    });
    bytes.extend_from_slice(&entry.term().get().to_le_bytes());
    bytes.extend_from_slice(&context_len.to_le_bytes());
    bytes.extend_from_slice(entry.context());
    bytes.extend_from_slice(entry.data());
    true
}

/// The header of an entry, without a copy of what is in it.
struct EntryHeader<'a> {
    kind: EntryKind,
    term: Term,
    context: &'a [u8],
    data: &'a [u8],
}

impl<'a> EntryHeader<'a> {
    fn decode(value: &'a [u8]) -> Result<EntryHeader<'a>, Mismatch> {
        let mut reader = Reader::versioned(value)?;
        let (Some(kind), Some(term), Some(context_len)) = (reader.u8(), reader.u64(), reader.u32()) else {
            return Err(Mismatch::new(
                format!("an entry of {ENTRY_HEADER_BYTES} bytes or more"),
                format_args!("{} bytes", value.len()),
            ));
        };
        let kind = match kind {
            0 => EntryKind::Command,
            1 => EntryKind::ConfChange,
            other => return Err(Mismatch::new("an entry of kind 0 or 1", format_args!("kind {other}"))),
        };
        let body = reader.rest();
        let Some((context, data)) = body.split_at_checked(context_len as usize) else {
            let expected = format!("a context of at most {} bytes", body.len());
            return Err(Mismatch::new(expected, format_args!("{context_len} bytes")));
        };
        Ok(EntryHeader { kind, term: Term::new(term), context, data })
    }
}

/// The entry of a value that lies at `index`.
pub(super) fn decode_entry(index: LogIndex, value: &[u8]) -> Result<Entry, Mismatch> {
    let EntryHeader { kind, term, context, data } = EntryHeader::decode(value)?;
    Ok(Entry::new(kind, Position { index, term }, data.to_vec(), context.to_vec()))
}

/// The term of an entry's value; the rest is not copied.
pub(super) fn decode_entry_term(value: &[u8]) -> Result<Term, Mismatch> {
    Ok(EntryHeader::decode(value)?.term)
}

/// What [`Entry::size_bytes`] will be of an entry's value.
pub(super) fn entry_size_bytes(value: &[u8]) -> usize {
    payload_bytes(value) + super::entry::ENTRY_OVERHEAD_BYTES
}

/// Data and context of an entry's value.
pub(super) fn payload_bytes(value: &[u8]) -> usize {
    value.len().saturating_sub(ENTRY_HEADER_BYTES)
}

impl Replica {
    pub fn encode(&self) -> Vec<u8> {
        Writer::new().u64(self.replica.get()).u32(self.generation.0).0
    }

    pub fn decode(value: &[u8]) -> Result<Replica, Mismatch> {
        let mut reader = Reader::versioned(value)?;
        match (reader.u64(), reader.u32(), reader.rest()) {
            (Some(replica @ 1..), Some(generation), []) => {
                Ok(Replica { replica: ReplicaId::new(replica), generation: Generation(generation) })
            }
            (Some(0), Some(_), []) => Err(Mismatch::new("a replica other than 0", "0")),
            _ => Err(wrong_length(13, value)),
        }
    }
}

impl Marker {
    pub fn encode(&self) -> Vec<u8> {
        let Marker { generation, id, position } = self;
        Writer::new().u32(generation.0).u64(id.0).u64(position.index.get()).u64(position.term.get()).0
    }

    pub fn decode(value: &[u8]) -> Result<Marker, Mismatch> {
        let mut reader = Reader::versioned(value)?;
        match (reader.u32(), reader.u64(), reader.u64(), reader.u64(), reader.rest()) {
            (Some(_), Some(_), Some(index), Some(term), []) if index == 0 || term == 0 => {
                Err(Mismatch::new("a snapshot of an entry and its term", Position::new(index, term)))
            }
            (Some(generation), Some(id), Some(index), Some(term), []) => Ok(Marker {
                generation: Generation(generation),
                id: SnapshotId(id),
                position: Position::new(index, term),
            }),
            _ => Err(wrong_length(29, value)),
        }
    }
}

pub(super) fn encode_hard_state(state: &HardState) -> Vec<u8> {
    let vote = state.vote.map_or(0, ReplicaId::get);
    Writer::new().u64(state.term.get()).u64(vote).u64(state.commit.get()).0
}

pub(super) fn decode_hard_state(value: &[u8]) -> Result<HardState, Mismatch> {
    let mut reader = Reader::versioned(value)?;
    match (reader.u64(), reader.u64(), reader.u64(), reader.rest()) {
        (Some(term), Some(vote), Some(commit), []) => Ok(HardState {
            term: Term::new(term),
            vote: (vote != 0).then(|| ReplicaId::new(vote)),
            commit: LogIndex::new(commit),
        }),
        _ => Err(wrong_length(25, value)),
    }
}

pub(super) fn encode_applied(index: LogIndex) -> Vec<u8> {
    Writer::new().u64(index.get()).0
}

pub(super) fn decode_applied(value: &[u8]) -> Result<LogIndex, Mismatch> {
    let mut reader = Reader::versioned(value)?;
    match (reader.u64(), reader.rest()) {
        (Some(index), []) => Ok(LogIndex::new(index)),
        _ => Err(wrong_length(9, value)),
    }
}

pub(super) fn encode_truncated(position: Position) -> Vec<u8> {
    Writer::new().u64(position.index.get()).u64(position.term.get()).0
}

pub(super) fn decode_truncated(value: &[u8]) -> Result<Position, Mismatch> {
    let mut reader = Reader::versioned(value)?;
    match (reader.u64(), reader.u64(), reader.rest()) {
        (Some(index), Some(term), []) => Ok(Position::new(index, term)),
        _ => Err(wrong_length(17, value)),
    }
}

pub(super) fn encode_tombstone(replica: ReplicaId) -> Vec<u8> {
    Writer::new().u64(replica.get()).0
}

pub(super) fn decode_tombstone(value: &[u8]) -> Result<ReplicaId, Mismatch> {
    let mut reader = Reader::versioned(value)?;
    match (reader.u64(), reader.rest()) {
        (Some(replica @ 1..), []) => Ok(ReplicaId::new(replica)),
        (Some(0), []) => Err(Mismatch::new("a replica other than 0", "0")),
        _ => Err(wrong_length(9, value)),
    }
}

fn wrong_length(expected: usize, value: &[u8]) -> Mismatch {
    Mismatch::new(format!("{expected} bytes"), format_args!("{} bytes", value.len()))
}

/// Makes a value.
struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Writer {
        Writer(vec![VERSION])
    }

    fn u8(mut self, number: u8) -> Writer {
        self.0.push(number);
        self
    }

    fn u32(mut self, number: u32) -> Writer {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn u64(mut self, number: u64) -> Writer {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    /// How many follow. A membership is a few replicas: more than fit here fit into no memory.
    fn count(self, count: usize) -> Writer {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

/// Takes a key or value apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// Behind the version of a value.
    fn versioned(value: &'a [u8]) -> Result<Reader<'a>, Mismatch> {
        let mut reader = Reader(value);
        match reader.u8() {
            Some(VERSION) => Ok(reader),
            Some(other) => Err(Mismatch::new(format!("version {VERSION}"), format_args!("version {other}"))),
            None => Err(Mismatch::new(format!("version {VERSION}"), "0 bytes")),
        }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32_be(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64_be(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// How many follow, if there is room for so many of this size.
    fn count(&mut self, size_bytes: usize) -> Option<usize> {
        self.u32().map(|count| count as usize).filter(|count| *count <= self.0.len() / size_bytes)
    }

    fn rest(&self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
#[path = "format_test.rs"]
mod tests;
