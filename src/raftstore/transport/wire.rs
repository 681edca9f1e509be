//! The wire format, version 1: gRPC messages of `proto/raft.proto`.
//!
//! ```text
//! caller                              node
//!   Frame { hello } ───────────────────►     once, first
//!   ◄─────────────────────────── Hello       once; or the call ends with a status that says why
//!   Frame { batch } ───────────────────►     again and again
//!
//! Frame      = 0A len Hello | 12 len Batch                                  oneof: at most 64 MiB
//! Hello      = 08 version, 11 cluster (8 bytes, little-endian), 18 node, 20 expects, 28 incarnation
//! Batch      = { 0A len Envelope }                                          at most 4 096
//! Envelope   = 08 group, 10 from, 18 to, 22 len message
//! ```
//!
//! An envelope of group 2^64 - 1, from and to replica 0, is said by the node itself, for all its groups: its message is the
//! 16 bytes of a [word](crate::raftstore::beat). Whoever does not know of those drops it, as he drops what is for a group
//! that he does not have.
//!
//! Numbers are varints unless said otherwise, a field that is 0 or empty is left out, unknown fields are skipped: protobuf
//! as everybody knows it. [`Batch`] is encoded and decoded by hand, for two reasons. A generated decoder would make a
//! value of some 60 bytes of each two bytes that say "an empty envelope"; this one keeps no more than a batch may have,
//! whatever arrives. And envelopes are not copied into another form on their way.
//!
//! Nesting ends with the envelope: the message is bytes. Unknown groups nest at most 100 deep, which prost sees to.

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType};

use super::super::message::Envelope;
use crate::ident::{ClusterId, GroupId, Incarnation, NodeId, ReplicaId};
use crate::net::identity::{Claim, Identity, Refusal};

/// What tonic makes of `proto/raft.proto`.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub(super) mod generated {
    tonic::include_proto!("mainstay.raft.v1");
}

pub(super) use generated::frame::Kind;
pub(super) use generated::{Frame, Hello, raft_client, raft_server};

/// The version of the protocol.
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest frame.
pub const FRAME_LIMIT_BYTES: usize = 64 << 20;
/// Largest message in an envelope: the frame of one envelope adds less than this to it.
pub const MESSAGE_LIMIT_BYTES: usize = FRAME_LIMIT_BYTES - 64;
/// Most envelopes in a batch.
pub const BATCH_LIMIT_ENVELOPES: usize = 4096;

const BATCH_ENVELOPE_TAG: u32 = 1;
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
        }
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The envelopes, in order.
    pub envelopes: Vec<Envelope>,
    /// Whether there were more than a batch may have when it was decoded. They were not kept.
    pub is_cut: bool,
}

/// How many bytes an envelope takes in a batch.
pub(super) fn envelope_size_bytes(envelope: &Envelope) -> usize {
    let length = body_size_bytes(envelope);
    prost::encoding::key_len(BATCH_ENVELOPE_TAG) + prost::length_delimiter_len(length) + length
}

fn body_size_bytes(envelope: &Envelope) -> usize {
    let number = |tag, value: u64| if value == 0 { 0 } else { prost::encoding::uint64::encoded_len(tag, &value) };
    let message = match envelope.message.is_empty() {
        true => 0,
        false => prost::encoding::bytes::encoded_len(MESSAGE_TAG, &envelope.message),
    };
    let (group, from, to) = (envelope.group.get(), envelope.from.get(), envelope.to.get());
    number(GROUP_TAG, group) + number(FROM_TAG, from) + number(TO_TAG, to) + message
}

fn encode_envelope(envelope: &Envelope, buf: &mut impl BufMut) {
    prost::encoding::encode_key(BATCH_ENVELOPE_TAG, WireType::LengthDelimited, buf);
    prost::encoding::encode_varint(body_size_bytes(envelope) as u64, buf);
    let (group, from, to) = (envelope.group.get(), envelope.from.get(), envelope.to.get());
    for (tag, value) in [(GROUP_TAG, group), (FROM_TAG, from), (TO_TAG, to)] {
        if value != 0 {
            prost::encoding::uint64::encode(tag, &value, buf);
        }
    }
    if !envelope.message.is_empty() {
        prost::encoding::bytes::encode(MESSAGE_TAG, &envelope.message, buf);
    }
}

fn decode_envelope(buf: &mut impl Buf, context: DecodeContext) -> Result<Envelope, DecodeError> {
    let (mut group, mut from, mut to, mut message) = (0, 0, 0, bytes::Bytes::new());
    prost::encoding::merge_loop(&mut (), buf, context, |(), buf, context| {
        let (tag, wire_type) = prost::encoding::decode_key(buf)?;
        match tag {
            GROUP_TAG => prost::encoding::uint64::merge(wire_type, &mut group, buf, context),
            FROM_TAG => prost::encoding::uint64::merge(wire_type, &mut from, buf, context),
            TO_TAG => prost::encoding::uint64::merge(wire_type, &mut to, buf, context),
            // Shares the bytes of the frame.
            MESSAGE_TAG => prost::encoding::bytes::merge(wire_type, &mut message, buf, context),
            _ => prost::encoding::skip_field(wire_type, tag, buf, context),
        }
    })?;
    Ok(Envelope { group: GroupId::new(group), from: ReplicaId::new(from), to: ReplicaId::new(to), message })
}

impl prost::Message for Batch {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for envelope in &self.envelopes {
            encode_envelope(envelope, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != BATCH_ENVELOPE_TAG {
            return prost::encoding::skip_field(wire_type, tag, buf, context);
        }
        prost::encoding::check_wire_type(WireType::LengthDelimited, wire_type)?;
        if self.envelopes.len() >= BATCH_LIMIT_ENVELOPES {
            self.is_cut = true;
            return prost::encoding::skip_field(wire_type, tag, buf, context);
        }
        let envelope = decode_envelope(buf, context)?;
        self.envelopes.push(envelope);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.envelopes.iter().map(envelope_size_bytes).sum()
    }

    fn clear(&mut self) {
        *self = Batch::default();
    }
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
