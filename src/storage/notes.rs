//! What the node notes for itself in the family `local`: keys and values.
//!
//! | key | value |
//! |---|---|
//! | `identity` | the bytes of [`identity`](super::identity) |
//! | `checkpoint` | LSN, 8 bytes little-endian: everything before it is in the engine's files |
//! | `clean_end` | LSN, 8 bytes little-endian: the last stop was clean and the WAL ended here; absent while a node runs |
//! | `filler` | never there: its removal is written where a write of no meaning is needed |
//! | `incarnation` | 8 bytes little-endian: how often the node was started as a member of a cluster |
//! | `homes` | 4 bytes little-endian for each family: the number of its [home](super::families); and 4 bytes: those whose old homes are kept, bits in the same order. Absent before the first was moved |
//! | `member` | what the node is as a member of a cluster; the bytes are those of `cluster/record` |

use super::families::Homes;
use crate::ident::Incarnation;
use crate::lsn::Lsn;

pub(super) const IDENTITY: &[u8] = b"identity";
pub(super) const CHECKPOINT: &[u8] = b"checkpoint";
pub(super) const CLEAN_END: &[u8] = b"clean_end";
pub(super) const INCARNATION: &[u8] = b"incarnation";
pub(super) const MEMBER: &[u8] = b"member";
pub(super) const HOMES: &[u8] = b"homes";
pub(super) const FILLER: &[u8] = b"filler";

pub(super) fn encode_lsn(lsn: Lsn) -> [u8; 8] {
    lsn.get().to_le_bytes()
}

pub(super) fn decode_lsn(value: &[u8]) -> Option<Lsn> {
    value.try_into().ok().map(|bytes| Lsn::new(u64::from_le_bytes(bytes)))
}

pub(super) fn encode_incarnation(incarnation: Incarnation) -> [u8; 8] {
    incarnation.get().to_le_bytes()
}

pub(super) fn decode_incarnation(value: &[u8]) -> Option<Incarnation> {
    value.try_into().ok().map(|bytes| Incarnation::new(u64::from_le_bytes(bytes)))
}

pub(super) fn encode_homes(homes: &Homes) -> Vec<u8> {
    homes.numbers.iter().chain([&homes.kept]).flat_map(|number| number.to_le_bytes()).collect()
}

pub(super) fn decode_homes(value: &[u8]) -> Option<Homes> {
    let (chunks, []) = value.as_chunks::<4>() else { return None };
    let (kept, numbers) = chunks.split_last()?;
    let numbers: Vec<u32> = numbers.iter().copied().map(u32::from_le_bytes).collect();
    Some(Homes { numbers: numbers.try_into().ok()?, kept: u32::from_le_bytes(*kept) })
}
