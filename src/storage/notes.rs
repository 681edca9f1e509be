//! What the node notes for itself in the family `local`: keys and values.
//!
//! | key | value |
//! |---|---|
//! | `identity` | the bytes of [`identity`](super::identity) |
//! | `checkpoint` | LSN, 8 bytes little-endian: everything before it is in the engine's files |
//! | `clean_end` | LSN, 8 bytes little-endian: the last stop was clean and the WAL ended here; absent while a node runs |
//! | `filler` | never there: its removal is written where a write of no meaning is needed |
//! | `incarnation` | 8 bytes little-endian: how often the node was started as a member of a cluster |
//! | `member` | what the node is as a member of a cluster; the bytes are those of `cluster/record` |

use crate::ident::Incarnation;
use crate::lsn::Lsn;

pub(super) const IDENTITY: &[u8] = b"identity";
pub(super) const CHECKPOINT: &[u8] = b"checkpoint";
pub(super) const CLEAN_END: &[u8] = b"clean_end";
pub(super) const INCARNATION: &[u8] = b"incarnation";
pub(super) const MEMBER: &[u8] = b"member";
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
