//! A message between two replicas of a group. Its bytes are raft-rs' own encoding and mean nothing to the transport:
//! raft-rs is built with an older prost than ours, so they travel as they are inside of our envelope.

use std::fmt;

use bytes::Bytes;
use raft::eraftpb;
use raft::prelude::MessageType;

use super::entry::{ENTRY_OVERHEAD_BYTES, Entry, Position};
use super::snapshot::{SnapshotMeta, header};
use crate::ident::{GroupId, ReplicaId, Term};

/// Raft messages are flat; raft-rs' decoder recurses no deeper than its messages nest (four levels).
#[derive(Clone, PartialEq)]
pub struct Message(pub(super) eraftpb::Message);

impl Message {
    /// Who sent it.
    pub fn from(&self) -> ReplicaId {
        ReplicaId::new(self.0.from)
    }

    /// Whom it is for.
    pub fn to(&self) -> ReplicaId {
        ReplicaId::new(self.0.to)
    }

    /// The sender's term; 0 for a forwarded read.
    pub fn term(&self) -> Term {
        Term::new(self.0.term)
    }

    /// Its kind, as raft-rs names it.
    pub fn kind(&self) -> MessageType {
        self.0.get_msg_type()
    }

    /// In an append: the position before the first entry.
    pub fn previous(&self) -> Position {
        Position::new(self.0.index, self.0.log_term)
    }

    /// Its entries.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.0.entries.iter().cloned().map(Entry)
    }

    /// How many bytes of entries it carries, counted as everywhere: an empty entry takes room too.
    pub fn entries_size_bytes(&self) -> usize {
        self.0.entries.iter().map(|entry| entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES).sum()
    }

    /// Of a message that offers a snapshot: what it is of. `None` of any other, and of one that contradicts itself.
    pub fn snapshot(&self) -> Option<SnapshotMeta> {
        match self.kind() {
            MessageType::MsgSnapshot => header::decode(self.0.snapshot.as_ref()?),
            _ => None,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        // An encoder of prost fails only for want of room, and a vector grows.
        let mut bytes = Vec::with_capacity(prost_0_11::Message::encoded_len(&self.0));
        let _ = prost_0_11::Message::encode(&self.0, &mut bytes);
        bytes.into()
    }

    /// The message with these bytes; `None` if they are none.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        // Two bytes on the wire become an entry of a hundred in memory.
        if count_entries(bytes)? > MAX_ENTRIES {
            return None;
        }
        let message: eraftpb::Message = prost_0_11::Message::decode(bytes).ok()?;
        // prost takes unknown numbers for the first kind.
        MessageType::from_i32(message.msg_type)?;
        Some(Message(message))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}→{} term {}", self.kind(), self.0.from, self.0.to, self.0.term)?;
        if !self.0.entries.is_empty() {
            write!(f, " {} entries after {}", self.0.entries.len(), self.previous())?;
        }
        Ok(())
    }
}

/// Entries in one message: more than the largest that a replica may send.
const MAX_ENTRIES: usize = 128 << 10;
/// The number of the field that holds an entry.
const ENTRIES_FIELD: u64 = 7;

/// How many entries an encoded message has, without decoding it; `None` if it is none. (Protocol Buffers, "Encoding".)
fn count_entries(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let length = match key & 7 {
            0 => varint(&mut bytes).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        bytes = bytes.get(length..)?;
        count += usize::from(key >> 3 == ENTRIES_FIELD);
    }
    Some(count)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl Envelope {
    /// The message in it; `None` if there is none, or it is not from and for whom the envelope says.
    pub(super) fn open(&self) -> Option<Message> {
        let message = Message::decode(&self.message)?;
        (message.from() == self.from && message.to() == self.to).then_some(message)
    }
}

/// A message on its way between two nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The group.
    pub group: GroupId,
    /// The replica that sends.
    pub from: ReplicaId,
    /// The replica it is for: what is for a replica that lived here before is dropped.
    pub to: ReplicaId,
    /// [`Message::encode`]. Empty: the replica that it is for was removed from the group. With a zero first: it is about a
    /// [check](super::consistency). Of a group that there is not,
    /// it is something [between the nodes](super::beat).
    pub message: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_of_countless_empty_entries_is_refused_before_it_is_decoded() {
        let empty_entry = [0x3a, 0x00];
        let mut bytes = Message(eraftpb::Message { msg_type: 3, ..Default::default() }).encode().to_vec();
        bytes.extend(empty_entry.repeat(MAX_ENTRIES));
        assert_eq!(Message::decode(&bytes).unwrap().entries().count(), MAX_ENTRIES);
        bytes.extend(empty_entry);
        assert!(Message::decode(&bytes).is_none());
    }

    proptest! {
        #[test]
        fn entries_are_counted_as_they_are_decoded(sizes in prop::collection::vec(0usize..300, 0..20), term: u64) {
            let entries = sizes.iter().map(|size| eraftpb::Entry { data: vec![1; *size], term, ..Default::default() });
            let message = eraftpb::Message { entries: entries.collect(), term, commit: 7, ..Default::default() };
            prop_assert_eq!(count_entries(&Message(message).encode()), Some(sizes.len()));
        }

        #[test]
        fn garbage_is_refused_without_panic(bytes: Vec<u8>) {
            let _ = Message::decode(&bytes);
        }
    }
}
