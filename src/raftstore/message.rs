//! A message between two replicas of a group. Its bytes are raft-rs' own encoding and mean nothing to the transport:
//! raft-rs is built with an older prost than ours, so they travel as they are inside of our envelope.

use std::fmt;

use bytes::Bytes;
use raft::eraftpb;
use raft::prelude::MessageType;

use super::entry::{Entry, Position};
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

    /// How many bytes of entries it carries.
    pub fn entries_size_bytes(&self) -> usize {
        self.0.entries.iter().map(|entry| entry.data.len() + entry.context.len()).sum()
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

/// A message on its way between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The group.
    pub group: GroupId,
    /// The replica that sends.
    pub from: ReplicaId,
    /// The replica it is for: what is for a replica that lived here before is dropped.
    pub to: ReplicaId,
    /// [`Message::encode`].
    pub message: Bytes,
}
