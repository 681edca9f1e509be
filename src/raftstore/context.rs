//! What the raftstore notes beside a command: the context of an entry.
//!
//! ```text
//!  empty                                  a command, nothing noted
//!  offset  bytes
//!       0      1  kind
//!  kind 1: compact the log; the entry has no command
//!       1      8  up to this index
//!  kind 2: a command that is applied once, however often it is proposed
//!       1      8  client
//!       9      8  sequence: of one client, they rise
//!  kind 3: of an entry that changes the membership: the nodes of new replicas
//!       1     16  replica 8, node 8; as many as there are
//!  kind 4: hash the state as of this entry; the entry has no command
//!       1      1  version of the digest
//!  kind 5: compare digests of the state; the entry has no command
//!       1      8  index of the entry as of which they are
//!       9      8  its term
//!      17     20  replica 8, digest 12; as many as there are
//! ```
//!
//! All numbers are little-endian. A kind that is not known comes from a newer version: the replica stops instead of
//! skipping it.

use super::consistency::{DIGEST_BYTES, Digest};
use super::entry::Position;
use crate::ident::{LogIndex, NodeId, ReplicaId};

const COMPACT: u8 = 1;
const ONCE: u8 = 2;
const MEMBERS: u8 = 3;
const HASH: u8 = 4;
const VERIFY: u8 = 5;
const MEMBER_BYTES: usize = 16;
const VERIFY_HEADER_BYTES: usize = 17;
const DIGESTED_BYTES: usize = 8 + DIGEST_BYTES;

/// What was noted beside a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// Nothing.
    Plain,
    /// Compact the log.
    Compact(LogIndex),
    /// Apply once.
    Once(Attempt),
    /// New replicas and their nodes.
    Members(Vec<(ReplicaId, NodeId)>),
    /// Hash the state as of this entry, in this version.
    Hash(u8),
    /// Compare the states as of an entry.
    Verify {
        /// Which.
        at: Position,
        /// What is known of them.
        digests: Vec<(ReplicaId, Digest)>,
    },
}

/// Names a command of a client, however often it is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The client: a number that it drew at random, or was given.
    pub client: u64,
    /// Which of its commands. They rise; a client waits for one before it proposes the next.
    pub sequence: u64,
}

impl Context {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Context::Plain => Vec::new(),
            Context::Compact(index) => [&[COMPACT][..], &index.get().to_le_bytes()].concat(),
            Context::Once(attempt) => {
                [&[ONCE][..], &attempt.client.to_le_bytes(), &attempt.sequence.to_le_bytes()].concat()
            }
            Context::Members(members) => {
                let mut bytes = vec![MEMBERS];
                for (replica, node) in members {
                    bytes.extend([replica.get().to_le_bytes(), node.get().to_le_bytes()].concat());
                }
                bytes
            }
            Context::Hash(version) => vec![HASH, *version],
            Context::Verify { at, digests } => {
                let mut bytes = vec![VERIFY];
                bytes.extend([at.index.get().to_le_bytes(), at.term.get().to_le_bytes()].concat());
                for (replica, Digest(digest)) in digests {
                    bytes.extend(replica.get().to_le_bytes());
                    bytes.extend(digest);
                }
                bytes
            }
        }
    }

    /// What these bytes say; `None` if no version so far writes them.
    pub fn decode(bytes: &[u8]) -> Option<Context> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        match (bytes.first(), bytes.len()) {
            (None, _) => Some(Context::Plain),
            (Some(&COMPACT), 9) => Some(Context::Compact(LogIndex::new(number(1)?))),
            (Some(&ONCE), 17) => Some(Context::Once(Attempt { client: number(1)?, sequence: number(9)? })),
            (Some(&MEMBERS), length) if length % MEMBER_BYTES == 1 => {
                let member = |at| Some((ReplicaId::new(number(at)?), NodeId::new(number(at + 8)?)));
                (1..length).step_by(MEMBER_BYTES).map(member).collect::<Option<Vec<_>>>().map(Context::Members)
            }
            (Some(&HASH), 2) => bytes.get(1).map(|version| Context::Hash(*version)),
            (Some(&VERIFY), length)
                if length >= VERIFY_HEADER_BYTES && (length - VERIFY_HEADER_BYTES).is_multiple_of(DIGESTED_BYTES) =>
            {
                let at = Position::new(number(1)?, number(9)?);
                let digested = |from: usize| {
                    let digest = bytes.get(from + 8..from + DIGESTED_BYTES)?;
                    Some((ReplicaId::new(number(from)?), Digest(digest.try_into().ok()?)))
                };
                let digests = (VERIFY_HEADER_BYTES..length).step_by(DIGESTED_BYTES).map(digested);
                digests.collect::<Option<Vec<_>>>().map(|digests| Context::Verify { at, digests })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let cases: [(Context, &[u8]); 6] = [
            (Context::Plain, &[]),
            (Context::Compact(LogIndex::new(0x0102)), &[1, 2, 1, 0, 0, 0, 0, 0, 0]),
            (
                Context::Once(Attempt { client: 3, sequence: 0x0405 }),
                &[2, 3, 0, 0, 0, 0, 0, 0, 0, 5, 4, 0, 0, 0, 0, 0, 0],
            ),
            (
                Context::Members(vec![(ReplicaId::new(6), NodeId::new(7))]),
                &[3, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
            ),
            (Context::Hash(1), &[4, 1]),
            (
                Context::Verify { at: Position::new(8, 9), digests: vec![(ReplicaId::new(10), Digest([11; 12]))] },
                &[
                    5, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 11, 11, 11, 11, 11, 11,
                    11, 11, 11, 11, 11, 11,
                ],
            ),
        ];
        for (context, bytes) in cases {
            assert_eq!(context.encode(), bytes, "{context:?}");
            assert_eq!(Context::decode(bytes), Some(context));
        }
    }

    #[test]
    fn what_no_version_writes_is_not_understood() {
        for bytes in [
            &[6][..],
            &[4],
            &[4, 1, 1],
            &[5; 16],
            &[5; 18],
            &[3, 0],
            &[1],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0],
            &[0],
        ] {
            assert_eq!(Context::decode(bytes), None, "{bytes:?}");
        }
    }
}
