//! The wire format, version 1: gRPC messages of `proto/raft.proto`, in two calls.
//!
//! ```text
//! Deliver: envelopes, again and again
//!
//! caller                              node
//!   Frame { hello } ───────────────────►     once, first
//!   ◄─────────────────────────── Hello       once; or the call ends with a status that says why
//!   Frame { batch } ───────────────────►     again and again
//!
//! Frame      = 0A len Hello | 12 len Batch                                  oneof: at most 64 MiB
//! Hello      = 08 version, 11 cluster (8 bytes, little-endian), 18 node, 20 expects, 28 incarnation, 32 len address
//! Batch      = { 0A len Envelope }                                          at most 4 096
//! Envelope   = 08 group, 10 from, 18 to, 22 len message
//!
//! Snapshot: one snapshot
//!
//! caller                              node
//!   Frame { hello } ───────────────────►     as above
//!   ◄──────────────────── Answer { hello }
//!   Frame { offer } ───────────────────►     once
//!   ◄───────────────── Answer { accepted }   with the place to go on behind; or { refusal }, which ends the call
//!   Frame { chunk 0 } ─────────────────►     again and again, numbered; the chunk says which is the last
//!   Frame { chunk 1 } ─────────────────►
//!   ◄───────────────── Answer { finished }   all of it was taken; or { refusal }, at any time
//!
//! Frame      = 0A len Hello | 12 len Offer | 1A len Chunk                   oneof: at most 64 MiB
//! Offer      = 09 snapshot (8 bytes, little-endian), 12 len Envelope
//! Chunk      = 08 number, 15 checksum (4 bytes, little-endian), 1A len chunk      see snapshot/chunk.rs
//! Answer     = 0A len Hello | 12 len Accepted | 1A len Refusal | 22 len {}  oneof: at most 64 MiB, as a key may be long
//! Accepted   = 0A len { 08 table, 12 len key }
//! Refusal    = 08 is busy, 12 len reason                                    at most 512 bytes
//! ```
//!
//! An envelope of group 2^64 - 1, from and to replica 0, is said by the node itself, for all its groups: its message is the
//! 16 bytes of a [word](crate::raftstore::beat). Whoever does not know of those drops it, as he drops what is for a group
//! that he does not have.
//!
//! Numbers are varints unless said otherwise, a field that is 0 or empty is left out, unknown fields are skipped: protobuf
//! as everybody knows it. [`Batch`] and [`Envelope`] are encoded and decoded by hand: no more is kept than a
//! [batch] may have, whatever arrives, and envelopes are not copied into another form on their way.
//!
//! Nesting ends with the envelope: the message is bytes, and so is a chunk. Unknown groups nest at most 100 deep, which
//! prost sees to. Both calls have the version of the hello; a chunk also has one of its own.

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType};

use super::super::message::Envelope;
use super::super::snapshot::chunk::{Chunk, ChunkError, checksum, table, table_number};
use super::super::snapshot::{Place, SnapshotId};
use super::{Incoming, SnapshotRefused};
use crate::ident::{ClusterId, GroupId, Incarnation, NodeId, ReplicaId};
use crate::net::identity::{Claim, Identity, Refusal};
use crate::net::{Address, batch};

/// What tonic makes of `proto/raft.proto`.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, reason = "generated")]
pub(super) mod generated {
    tonic::include_proto!("mainstay.raft.v1");
}

pub(super) use generated::frame::Kind;
pub(super) use generated::snapshot_answer::Kind as AnswerKind;
pub(super) use generated::snapshot_frame::Kind as SnapshotKind;
pub(super) use generated::{
    Frame, Hello, SnapshotAnswer, SnapshotChunk, SnapshotFrame, SnapshotOffer, raft_client, raft_server,
};
use generated::{SnapshotAccepted, SnapshotFinished, SnapshotPlace, SnapshotRefusal};

/// The version of the protocol.
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest frame.
pub const FRAME_LIMIT_BYTES: usize = 64 << 20;
/// Largest message in an envelope: the frame of one envelope adds less than this to it.
pub const MESSAGE_LIMIT_BYTES: usize = FRAME_LIMIT_BYTES - 64;
/// Most envelopes in a batch.
pub const BATCH_LIMIT_ENVELOPES: usize = 4096;
/// Longest address of a node that speaks; one that is longer is passed over.
pub const ADDRESS_LIMIT_BYTES: usize = 260;
/// Longest reason of a refusal.
pub const REASON_LIMIT_BYTES: usize = 512;

const GROUP_TAG: u32 = 1;
const FROM_TAG: u32 = 2;
const TO_TAG: u32 = 3;
const MESSAGE_TAG: u32 = 4;

impl Hello {
    pub(super) fn of(claim: &Claim) -> Hello {
        let Claim { identity, expects } = claim;
        Hello {
            version: PROTOCOL_VERSION,
            cluster: identity.cluster.get(),
            node: identity.node.get(),
            expects: expects.get(),
            incarnation: identity.incarnation.get(),
            address: String::new(),
        }
    }

    /// The same, with where others reach the node that speaks.
    pub(super) fn at(self, address: Option<&Address>) -> Hello {
        Hello { address: address.map(Address::to_string).unwrap_or_default(), ..self }
    }

    /// Where others reach the node that speaks, if it says so in a way that can be used.
    pub(super) fn place(&self) -> Option<Address> {
        let text = Some(self.address.as_str()).filter(|text| text.len() <= ADDRESS_LIMIT_BYTES)?;
        text.parse().ok()
    }

    pub(super) fn claim(&self) -> Result<Claim, Refusal> {
        // First: another version may mean something else by the rest.
        if self.version != PROTOCOL_VERSION {
            return Err(Refusal::Version { theirs: self.version, ours: PROTOCOL_VERSION });
        }
        let identity = Identity {
            cluster: ClusterId::new(self.cluster),
            node: NodeId::new(self.node),
            incarnation: Incarnation::new(self.incarnation),
        };
        Ok(Claim { identity, expects: NodeId::new(self.expects) })
    }
}

/// Envelopes that travel together.
pub type Batch = batch::Batch<Envelope, BATCH_LIMIT_ENVELOPES>;

impl Envelope {
    fn numbers(&self) -> [(u32, u64); 3] {
        [(GROUP_TAG, self.group.get()), (FROM_TAG, self.from.get()), (TO_TAG, self.to.get())]
    }
}

impl prost::Message for Envelope {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for (tag, value) in self.numbers() {
            if value != 0 {
                prost::encoding::uint64::encode(tag, &value, buf);
            }
        }
        if !self.message.is_empty() {
            prost::encoding::bytes::encode(MESSAGE_TAG, &self.message, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut number = 0;
        match tag {
            GROUP_TAG | FROM_TAG | TO_TAG => prost::encoding::uint64::merge(wire_type, &mut number, buf, context)?,
            // Shares the bytes of the frame.
            MESSAGE_TAG => return prost::encoding::bytes::merge(wire_type, &mut self.message, buf, context),
            _ => return prost::encoding::skip_field(wire_type, tag, buf, context),
        }
        match tag {
            GROUP_TAG => self.group = GroupId::new(number),
            FROM_TAG => self.from = ReplicaId::new(number),
            _ => self.to = ReplicaId::new(number),
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        let number =
            |(tag, value): (u32, u64)| if value == 0 { 0 } else { prost::encoding::uint64::encoded_len(tag, &value) };
        let message = match self.message.is_empty() {
            true => 0,
            false => prost::encoding::bytes::encoded_len(MESSAGE_TAG, &self.message),
        };
        self.numbers().into_iter().map(number).sum::<usize>() + message
    }

    fn clear(&mut self) {
        *self = Envelope::default();
    }
}

impl SnapshotFrame {
    pub(super) fn hello(claim: &Claim) -> SnapshotFrame {
        SnapshotFrame { kind: Some(SnapshotKind::Hello(Hello::of(claim))) }
    }

    pub(super) fn offer(snapshot: SnapshotId, envelope: Envelope) -> SnapshotFrame {
        let offer = SnapshotOffer { snapshot: snapshot.0, envelope: Some(envelope) };
        SnapshotFrame { kind: Some(SnapshotKind::Offer(offer)) }
    }

    /// A chunk in its place, with how many bytes it has.
    pub(super) fn chunk(snapshot: SnapshotId, number: u64, chunk: &Chunk) -> Result<(SnapshotFrame, u64), ChunkError> {
        let bytes = chunk.encode()?;
        let size_bytes = bytes.len() as u64;
        let checksum = checksum(snapshot, number, &bytes);
        let chunk = SnapshotChunk { number, checksum, chunk: bytes.into() };
        Ok((SnapshotFrame { kind: Some(SnapshotKind::Chunk(chunk)) }, size_bytes))
    }
}

impl SnapshotAnswer {
    pub(super) fn hello(claim: &Claim) -> SnapshotAnswer {
        SnapshotAnswer { kind: Some(AnswerKind::Hello(Hello::of(claim))) }
    }

    pub(super) fn accepted(incoming: &dyn Incoming) -> SnapshotAnswer {
        let resume_after = incoming
            .resume_after()
            .map(|place| SnapshotPlace { table: table_number(place.table).into(), key: place.key.clone() });
        SnapshotAnswer { kind: Some(AnswerKind::Accepted(SnapshotAccepted { resume_after })) }
    }

    pub(super) fn refusal(refused: &SnapshotRefused) -> SnapshotAnswer {
        let mut reason = refused.to_string();
        reason.truncate(reason.floor_char_boundary(REASON_LIMIT_BYTES));
        let refusal = SnapshotRefusal { is_busy: *refused == SnapshotRefused::Busy, reason };
        SnapshotAnswer { kind: Some(AnswerKind::Refusal(refusal)) }
    }

    pub(super) fn finished() -> SnapshotAnswer {
        SnapshotAnswer { kind: Some(AnswerKind::Finished(SnapshotFinished {})) }
    }
}

impl SnapshotAccepted {
    /// Where to go on; `Err` if no such table is known.
    pub(super) fn resume_after(self) -> Result<Option<Place>, ()> {
        let Some(SnapshotPlace { table: number, key }) = self.resume_after else { return Ok(None) };
        let table = u8::try_from(number).ok().and_then(table).ok_or(())?;
        Ok(Some(Place { table, key }))
    }
}

impl From<SnapshotRefusal> for SnapshotRefused {
    fn from(SnapshotRefusal { is_busy, reason }: SnapshotRefusal) -> SnapshotRefused {
        if is_busy { SnapshotRefused::Busy } else { SnapshotRefused::Unwanted(reason) }
    }
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
