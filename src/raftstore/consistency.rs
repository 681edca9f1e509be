//! Whether the replicas of a group hold the same: a hash of each one's state as of one entry, and what follows from them.
//!
//! **Course.** An entry of the log asks for it ([`Context::Hash`](super::context::Context::Hash)). Each replica captures its
//! state at the very moment at which that entry, and nothing behind it, is applied, and hashes it while everything goes on.
//! Each tells its leader; a second entry ([`Context::Verify`](super::context::Context::Verify)) carries what they told, and
//! every replica draws the same conclusion from it: what a majority of the voters has is right.
//!
//! **What is hashed**, version 1, as one stream of bytes, numbers little-endian:
//!
//! ```text
//!  version 1 │ index 8 │ term 8 │ membership │ pair × n │ n 8
//!
//!  membership   auto leave 1 │ voters │ learners │ voters outgoing │ learners next │ nodes │ highest replica 8
//!     the first four: count 8, then a replica 8 each, rising; nodes: count 8, then replica 8 and node 8 each, rising
//!  pair         table 1 │ length of key 8 │ key │ length of value 8 │ value; in the order of a snapshot
//!
//!  digest = FNV-1a of 64 bits │ CRC-32
//! ```
//!
//! It must not change within a version, whatever becomes of the bytes in the store: nodes of different builds compare.
//! Generations, the log, term and vote are not part of it: they differ rightfully. Nobody who can forge state is
//! defended against, only bugs and disks.
//!
//! **What replicas say to each other** about it travels in envelopes of their group, beside Raft's messages:
//!
//! ```text
//!  zero 1 │ kind 1 │ index 8 │ term 8, of the entry that asked │ digest 12, of kind 1
//!
//!  kind 1 my state has this digest   2 I have none   3 what is yours?
//!  kind 4 do you know checks?        5 I do          both with index and term 0
//! ```
//!
//! No message of Raft begins with a zero, so a build that does not know this drops it.
//!
//! **Builds that know no checks** stop at the entries of one: an entry that is not known cannot be skipped. So a leader asks each
//! member of the group, learners too, whether it knows them, and proposes neither entry before all have said so.
//!
//! Pure: it reads and sends nothing itself.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::entry::{Membership, Position};
use super::fault::{self, Fault};
use super::snapshot::chunk::table_number;
use super::snapshot::{Pair, SnapshotMeta};
use crate::ident::{LogIndex, ReplicaId};

/// What this build makes of a state.
pub(super) const DIGEST_VERSION: u8 = 1;
pub(super) const DIGEST_BYTES: usize = 12;

/// What every message about a check begins with, and none of Raft's.
const NO_RAFT: u8 = 0;
const REPORT: u8 = 1;
const NONE: u8 = 2;
const QUESTION: u8 = 3;
const ASK: u8 = 4;
const KNOWN: u8 = 5;

/// The hash of a state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub(super) [u8; DIGEST_BYTES]);

#[cfg(test)]
impl Digest {
    /// One that says nothing, for tests elsewhere.
    pub(crate) fn of_byte(byte: u8) -> Digest {
        Digest([byte; DIGEST_BYTES])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes a captured state, pair by pair.
pub(super) struct StateHasher {
    fnv: u64,
    crc: crc32fast::Hasher,
    pairs: u64,
}

/// Fowler, Noll, Vo: offset basis and prime of 64 bits.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl StateHasher {
    pub(super) fn new(meta: &SnapshotMeta) -> StateHasher {
        let mut hasher = StateHasher { fnv: FNV_BASIS, crc: crc32fast::Hasher::new(), pairs: 0 };
        hasher.bytes(&[DIGEST_VERSION]);
        hasher.number(meta.position.index.get());
        hasher.number(meta.position.term.get());
        hasher.membership(&meta.membership);
        hasher
    }

    /// The next pairs.
    pub(super) fn add(&mut self, pairs: &[Pair]) {
        for Pair { place, value } in pairs {
            self.bytes(&[table_number(place.table)]);
            for part in [&place.key, value] {
                self.number(part.len() as u64);
                self.bytes(part);
            }
        }
        self.pairs += pairs.len() as u64;
    }

    pub(super) fn finish(mut self) -> Digest {
        self.number(self.pairs);
        let mut digest = [0; DIGEST_BYTES];
        let (fnv, crc) = digest.split_at_mut(8);
        fnv.copy_from_slice(&self.fnv.to_le_bytes());
        crc.copy_from_slice(&self.crc.finalize().to_le_bytes());
        Digest(digest)
    }

    fn membership(&mut self, membership: &Membership) {
        // Spelled out, so that a field that is added later is not forgotten here.
        let Membership { voters, learners, voters_outgoing, learners_next, auto_leave, nodes, highest } = membership;
        self.bytes(&[u8::from(*auto_leave)]);
        for replicas in [voters, learners, voters_outgoing, learners_next] {
            let mut replicas = replicas.clone();
            replicas.sort_unstable();
            self.number(replicas.len() as u64);
            replicas.iter().for_each(|replica| self.number(replica.get()));
        }
        self.number(nodes.len() as u64);
        for (replica, node) in nodes {
            self.number(replica.get());
            self.number(node.get());
        }
        self.number(highest.get());
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.fnv = bytes.iter().fold(self.fnv, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME));
    }
}

/// What replicas say to each other about the check of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckMessage {
    /// The entry that asked for it; none, if it is about checks as such.
    pub at: Position,
    /// What is said.
    pub word: CheckWord,
}

/// What is said about a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckWord {
    /// To a leader: the state of the sender.
    Digest(Digest),
    /// To a leader: the sender has no digest, and will have none.
    None,
    /// From a leader: what is yours?
    Question,
    /// From a leader: does your build know checks?
    Ask,
    /// To whoever asked: it does.
    Known,
}

impl CheckMessage {
    pub(super) fn encode(&self) -> Bytes {
        let kind = match self.word {
            CheckWord::Digest(_) => REPORT,
            CheckWord::None => NONE,
            CheckWord::Question => QUESTION,
            CheckWord::Ask => ASK,
            CheckWord::Known => KNOWN,
        };
        let mut bytes = vec![NO_RAFT, kind];
        bytes.extend(self.at.index.get().to_le_bytes());
        bytes.extend(self.at.term.get().to_le_bytes());
        if let CheckWord::Digest(Digest(digest)) = self.word {
            bytes.extend(digest);
        }
        bytes.into()
    }

    /// Whether these bytes are no message of Raft, but of a check, of this version or a later one.
    pub(super) fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&NO_RAFT)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<CheckMessage> {
        let (&[NO_RAFT, kind], rest) = bytes.split_first_chunk()? else { return None };
        let (index, rest) = rest.split_first_chunk()?;
        let (term, rest) = rest.split_first_chunk()?;
        let at = Position::new(u64::from_le_bytes(*index), u64::from_le_bytes(*term));
        let word = match (kind, rest.len()) {
            (REPORT, _) => CheckWord::Digest(Digest(rest.try_into().ok()?)),
            (NONE, 0) => CheckWord::None,
            (QUESTION, 0) => CheckWord::Question,
            (ASK, 0) => CheckWord::Ask,
            (KNOWN, 0) => CheckWord::Known,
            _ => return None,
        };
        Some(CheckMessage { at, word })
    }
}

/// What a check has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The states are as of this entry.
    pub index: LogIndex,
    /// What a majority of the voters has. `None`: no majority agrees, and nobody can say which replica is right.
    pub right: Option<Digest>,
    /// The state of each replica that said.
    pub digests: BTreeMap<ReplicaId, Digest>,
    /// Replicas that did not say: they were away, were starting or taking a snapshot, or had too much to do.
    pub missing: Vec<ReplicaId>,
}

impl Verdict {
    /// The same on every replica.
    pub(super) fn of(index: LogIndex, digests: &[(ReplicaId, Digest)], membership: &Membership) -> Verdict {
        let is_member = |replica: &ReplicaId| membership.nodes.contains_key(replica);
        let digests: BTreeMap<_, _> = digests.iter().copied().filter(|(replica, _)| is_member(replica)).collect();
        let has = |digest: &Digest| is_majority(membership, |replica| digests.get(&replica) == Some(digest));
        let right = match fault::active(Fault::MinorityRight) {
            true => digests.values().min().copied(),
            false => digests.values().find(|digest| has(digest)).copied(),
        };
        let missing = membership.replicas().filter(|replica| !digests.contains_key(replica)).collect();
        Verdict { index, right, digests, missing }
    }

    /// The replicas whose state is not that of the majority; none if there is no such majority.
    pub fn differing(&self) -> Vec<ReplicaId> {
        let Some(right) = self.right else { return Vec::new() };
        self.digests.iter().filter(|(_, digest)| **digest != right).map(|(replica, _)| *replica).collect()
    }

    /// Whether a majority agrees and nobody who said differs.
    pub fn is_good(&self) -> bool {
        self.right.is_some() && self.differing().is_empty()
    }
}

/// Whether a majority of the voters, and in a joint configuration one of the old voters too, is such.
pub(super) fn is_majority(membership: &Membership, is_such: impl Fn(ReplicaId) -> bool) -> bool {
    let of = |voters: &[ReplicaId]| voters.iter().filter(|voter| is_such(**voter)).count() * 2 > voters.len();
    of(&membership.voters) && (membership.voters_outgoing.is_empty() || of(&membership.voters_outgoing))
}

/// Why a check is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckRefusal {
    /// *Retry elsewhere*: another replica leads, or none does.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// *Retry here*, later.
    #[error("too much is in flight, or leadership is being handed over")]
    Busy,
    /// *Retry here*, later.
    #[error("the membership is being changed")]
    Changing,
    /// *Retry here*, later: a member is away since this replica leads, or runs a build that would stop at the check's entry.
    #[error("replica {replica} has not said yet that its build knows consistency checks")]
    NotKnown {
        /// The first of them.
        replica: ReplicaId,
    },
    /// *Your mistake*: nobody knows its state.
    #[error(
        "the state machine keeps its own position and gives no snapshots: its state cannot be hashed as of an entry"
    )]
    KeepsOwnPosition,
}

/// A check was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the check of the state as of entry {index} was given up: {heard} of {voters} voters said what theirs is")]
pub struct GivenUp {
    /// As of which entry.
    pub index: LogIndex,
    /// Voters that said, as far as is known here.
    pub heard: usize,
    /// How many there are.
    pub voters: usize,
}

#[cfg(test)]
#[path = "consistency_test.rs"]
mod tests;
