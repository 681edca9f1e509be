//! The durable bytes of the machine's keys and values. Nobody else makes or parses them.
//!
//! Keys, behind the prefix of group and generation that the raftstore puts before them. All numbers are big-endian, so
//! that they sort as numbers:
//!
//! ```text
//!  cluster   01                            → ClusterHeader
//!            02 ‖ id 8                     → Member
//!            03 ‖ name                     → id 8: no two members have one name,
//!            04 ‖ hash of secret           → id 8: nor one secret,
//!            05 ‖ address                  → id 8: nor one address
//!            06 ‖ name                     → Setting
//!            07 ‖ name ‖ 00 ‖ change 8     → SettingChange
//!            08 ‖ sequence 8               → Event
//!            09 ‖ id 8                     → Token
//!            0a ‖ hash of token            → id 8
//!  kv        01                            → KvHeader
//!            02 ‖ escaped key ‖ ~revision 8 → Version: the newest of a key comes first
//!            03 ‖ revision 8 ‖ place 4     → Change: what a revision changed, in order
//!            04 ‖ lease 8                  → Lease
//!            05 ‖ lease 8 ‖ key            → empty: the keys of a lease
//! ```
//!
//! An escaped key is the key with `00 ff` for each `00`, and `00 01` behind it: keys sort as they would alone, and what
//! follows never mixes with them.
//!
//! Values are a byte, 1, and a protobuf message of `proto/meta.proto`, or the number.

use std::ops::Range;

use prost::Message;

use crate::raftstore::log_store::{StoreError, Table};

const FORMAT: u8 = 1;
const ESCAPE: u8 = 0xff;
const TERMINATOR: [u8; 2] = [0, 1];

/// What kind of record a key is of: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cluster {
    Header = 1,
    Member = 2,
    MemberName = 3,
    MemberSecret = 4,
    MemberAddress = 5,
    Setting = 6,
    SettingChange = 7,
    Event = 8,
    Token = 9,
    TokenHash = 10,
}

/// The same in the table of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kv {
    Header = 1,
    Version = 2,
    Change = 3,
    Lease = 4,
    LeaseKey = 5,
}

/// Keys begin with their kind.
macro_rules! keys_of {
    ($($kind:ident),*) => {$(
        impl $kind {
            pub fn key(self, rest: &[u8]) -> Vec<u8> {
                [&[self as u8], rest].concat()
            }

            pub fn numbered(self, number: u64) -> Vec<u8> {
                self.key(&number.to_be_bytes())
            }

            /// All of this kind.
            pub fn all(self) -> Range<Vec<u8>> {
                vec![self as u8]..vec![self as u8 + 1]
            }
        }
    )*};
}
keys_of!(Cluster, Kv);

/// A change of a setting.
pub(super) fn setting_change(name: &str, change: u64) -> Vec<u8> {
    Cluster::SettingChange.key(&[name.as_bytes(), &[0], &change.to_be_bytes()].concat())
}

/// All changes of a setting.
pub(super) fn setting_changes(name: &str) -> Range<Vec<u8>> {
    let end = |byte| Cluster::SettingChange.key(&[name.as_bytes(), &[byte]].concat());
    end(0)..end(1)
}

fn escaped(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 12);
    bytes.push(Kv::Version as u8);
    for byte in key {
        bytes.push(*byte);
        if *byte == 0 {
            bytes.push(ESCAPE);
        }
    }
    bytes
}

/// The version of a key at a revision.
pub(super) fn version(key: &[u8], revision: u64) -> Vec<u8> {
    let mut bytes = escaped(key);
    bytes.extend(TERMINATOR);
    bytes.extend((!revision).to_be_bytes());
    bytes
}

/// All versions of a key from a revision down.
pub(super) fn versions(key: &[u8], from_revision: u64) -> Range<Vec<u8>> {
    let mut end = escaped(key);
    end.extend([0, 2]);
    version(key, from_revision)..end
}

/// All versions of the keys of a range; no end is no bound.
pub(super) fn versions_between(from: &[u8], to: Option<&[u8]>) -> Range<Vec<u8>> {
    escaped(from)..to.map_or_else(|| Kv::Version.all().end, escaped)
}

/// Key and revision of a version's key.
pub(super) fn decode_version(bytes: &[u8]) -> Option<(Vec<u8>, u64)> {
    let (body, revision) = bytes.split_last_chunk::<8>()?;
    let body = body.strip_prefix(&[Kv::Version as u8])?.strip_suffix(&TERMINATOR)?;
    let mut key = Vec::with_capacity(body.len());
    let mut rest = body.iter();
    while let Some(byte) = rest.next() {
        key.push(*byte);
        if *byte == 0 && rest.next() != Some(&ESCAPE) {
            return None;
        }
    }
    Some((key, !u64::from_be_bytes(*revision)))
}

/// The n-th change of a revision.
pub(super) fn change(revision: u64, place: u32) -> Vec<u8> {
    Kv::Change.key(&[&revision.to_be_bytes()[..], &place.to_be_bytes()].concat())
}

/// All changes from a revision on.
pub(super) fn changes_from(revision: u64) -> Range<Vec<u8>> {
    Kv::Change.numbered(revision)..Kv::Change.all().end
}

/// Revision and place of a change's key.
pub(super) fn decode_change(bytes: &[u8]) -> Option<(u64, u32)> {
    let (revision, place) = bytes.strip_prefix(&[Kv::Change as u8])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*revision), u32::from_be_bytes(place.try_into().ok()?)))
}

/// A key that a lease holds.
pub(super) fn lease_key(lease: u64, key: &[u8]) -> Vec<u8> {
    Kv::LeaseKey.key(&[&lease.to_be_bytes(), key].concat())
}

/// All keys that a lease holds.
pub(super) fn lease_keys(lease: u64) -> Range<Vec<u8>> {
    let end = lease.checked_add(1).map_or_else(|| Kv::LeaseKey.all().end, |next| Kv::LeaseKey.numbered(next));
    Kv::LeaseKey.numbered(lease)..end
}

/// The key behind the lease.
pub(super) fn decode_lease_key(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(&[Kv::LeaseKey as u8])?.split_first_chunk::<8>().map(|(_, key)| key)
}

/// A record's value.
pub(super) fn encode(record: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + record.encoded_len());
    bytes.push(FORMAT);
    // An encoder of prost fails only for want of room, and a vector grows.
    let _ = record.encode(&mut bytes);
    bytes
}

/// The record of a value.
pub(super) fn decode<M: Message + Default>(table: Table, key: &[u8], value: &[u8]) -> Result<M, StoreError> {
    let body = value.strip_prefix(&[FORMAT]);
    body.and_then(|body| M::decode(body).ok()).ok_or_else(|| damaged(table, key, "a record", value))
}

/// A number's value.
pub(super) fn encode_number(number: u64) -> Vec<u8> {
    [&[FORMAT][..], &number.to_be_bytes()].concat()
}

/// The number of a value.
pub(super) fn decode_number(table: Table, key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    let body = value.strip_prefix(&[FORMAT]).and_then(|body| body.try_into().ok());
    body.map(u64::from_be_bytes).ok_or_else(|| damaged(table, key, "a number", value))
}

/// Stored bytes are not what they must be. Values are shown by their length alone: they may be secret.
pub(super) fn damaged(table: Table, key: &[u8], expected: &str, value: &[u8]) -> StoreError {
    let kind = key.first().copied().unwrap_or_default();
    StoreError::Damaged {
        place: format!("a record of kind {kind} in the metadata table {table:?}"),
        what: format!("expected {expected}, found {} bytes that are none", value.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(version(b"a\0b", 1), [&[2][..], b"a\0\xffb\0\x01", &[0xff; 7], &[0xfe]].concat());
        assert_eq!(change(258, 3), [3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        assert_eq!(lease_key(1, b"k"), [5, 0, 0, 0, 0, 0, 0, 0, 1, b'k']);
        assert_eq!(setting_change("s", 1), [7, b's', 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Cluster::Member.numbered(2), [2, 0, 0, 0, 0, 0, 0, 0, 2]);
        let lease = proto::Lease { id: 1, ttl_ms: 2, renewal: 3, keys: 4 };
        assert_eq!(encode(&lease), [1, 8, 1, 16, 2, 24, 3, 32, 4]);
        let member = proto::Member { id: 2, non_voting: true, ..proto::Member::default() };
        assert_eq!(encode(&member), [1, 8, 2, 96, 1]);
        assert_eq!(encode_number(5), [1, 0, 0, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn damage_is_named_and_shows_no_value() {
        let error = decode::<proto::Lease>(Table::Kv, &[4, 0], b"secret").unwrap_err();
        assert!(!error.to_string().contains("secret") && error.to_string().contains("kind 4"), "{error}");
        assert!(decode_number(Table::Kv, &[4], &[1, 2]).is_err());
        assert!(decode::<proto::Lease>(Table::Kv, &[4], &[]).is_err());
    }

    proptest! {
        #[test]
        fn keys_sort_as_they_would_alone(
            one in prop::collection::vec(0u8..4, 0..5), two in prop::collection::vec(0u8..4, 0..5),
            older: u64, newer: u64,
        ) {
            prop_assert_eq!(decode_version(&version(&one, older)), Some((one.clone(), older)));
            if one != two {
                prop_assert_eq!(version(&one, older).cmp(&version(&two, newer)), one.cmp(&two));
            } else {
                prop_assert_eq!(version(&one, older).cmp(&version(&two, newer)), newer.cmp(&older));
            }
            // A range of versions holds exactly those of the keys in the range.
            let range = versions_between(&one, Some(&two));
            let key = version(&one, older);
            prop_assert_eq!(range.contains(&key), one < two);
            prop_assert!(!range.contains(&version(&two, newer)));
            prop_assert!(versions_between(&one, None).contains(&key));
            prop_assert!(versions(&one, older).contains(&key));
            prop_assert_eq!(versions(&one, older).contains(&version(&one, newer)), newer <= older);
            prop_assert_eq!(versions(&one, u64::MAX).contains(&version(&two, newer)), one == two);
        }

        #[test]
        fn garbage_is_refused_without_panic(bytes: Vec<u8>) {
            let _ = (decode_version(&bytes), decode_change(&bytes), decode_lease_key(&bytes));
            let _ = decode::<proto::Member>(Table::Cluster, &bytes, &bytes);
        }
    }
}
