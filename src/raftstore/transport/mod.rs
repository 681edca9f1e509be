//! How envelopes get from node to node, as the driver sees it: [`Transport`] to send, [`Inbox`] to receive.
//!
//! | room | what it holds |
//! |---|---|
//! | [`grpc`] | between processes: gRPC streams, one per direction and peer, and a call for each snapshot |
//! | [`memory`] | within a process, without any network |
//! | [`wire`] | what is said on a stream |
//!
//! Raft expects loss and disorder, not lies: a transport may drop and delay, and it hands over nothing whose sender did
//! not prove to be the node it says.

mod call;
pub mod grpc;
pub mod memory;
mod metrics;
mod queue;
mod receiver;
mod sender;
mod snapshots;
pub mod wire;

use std::sync::Arc;

use super::message::Envelope;
use super::snapshot::{Captured, Pair, Place};
use crate::ident::NodeId;

pub use grpc::{GrpcTransport, Met, PeerStatus};
pub use memory::MemoryNetwork;

/// Sends envelopes. Raft expects loss, so a transport never blocks and never buffers without bound: what does not fit
/// is dropped, and the caller is told, so that Raft probes instead of filling the pipe further.
pub trait Transport: Send + Sync + 'static {
    /// Hands an envelope over for sending.
    ///
    /// # Errors
    /// It was dropped.
    fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), Unsent>;

    /// Hands over several at once, and says which of them were dropped.
    fn send_all(&self, to: NodeId, envelopes: Vec<Envelope>) -> Vec<Dropped> {
        let send = |(place, envelope)| self.send(to, envelope).err().map(|why| Dropped { place, why });
        envelopes.into_iter().enumerate().filter_map(send).collect()
    }

    /// Hands a snapshot over for sending. It is tried again while that makes sense; a snapshot for the same replica that
    /// is still on its way is given up for it. Never blocks.
    ///
    /// # Errors
    /// It was not taken, and its `done` will not be called.
    fn send_snapshot(&self, to: NodeId, outgoing: Outgoing) -> Result<(), Unsent>;
}

/// A snapshot on its way to a replica.
pub struct Outgoing {
    /// Whom it is for, with the message of Raft that offers it.
    pub offer: Envelope,
    /// What is sent.
    pub captured: Arc<dyn Captured>,
    /// Called once, when the receiver has taken all of it or it is given up, which includes that the transport stops.
    /// Must not block.
    pub done: Box<dyn FnOnce(Result<(), SnapshotUnsent>) + Send>,
}

/// Why a snapshot was not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotUnsent {
    /// The receiver does not want it.
    #[error("the receiver refused the snapshot: {0}")]
    Refused(String),
    /// The link was lost, more often than it was tried again; or the receiver was busy for that long.
    #[error("the snapshot could not be sent: {0}")]
    Failed(String),
}

/// Takes what arrives of one snapshot. Dropped before the end, what arrived is kept for a while: a later offer of the same
/// snapshot goes on behind it. Its calls block as long as the store takes.
pub trait Incoming: Send {
    /// The last place that is there already: the sender goes on behind it.
    fn resume_after(&self) -> Option<&Place>;

    /// Takes pairs, which come in order; with `is_last` the snapshot is complete.
    ///
    /// # Errors
    /// It is not wanted any more.
    fn take(&mut self, pairs: Vec<Pair>, is_last: bool) -> Result<(), SnapshotRefused>;
}

/// Why a snapshot is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotRefused {
    /// Try again in a while.
    #[error("busy")]
    Busy,
    /// Not this one.
    #[error("{0}")]
    Unwanted(String),
}

/// Takes what arrives from other nodes. Never blocks, but for snapshots.
pub trait Inbox: Send + Sync + 'static {
    /// Takes an envelope from a node that proved to be `from`.
    ///
    /// # Errors
    /// The receiver is busy, and the envelope was dropped.
    fn deliver(&self, from: NodeId, envelope: Envelope) -> Result<(), InboxFull>;

    /// Takes several that arrived at once, and says which of them were dropped, by place.
    fn deliver_all(&self, from: NodeId, envelopes: Vec<Envelope>) -> Vec<usize> {
        let deliver = |(place, envelope)| self.deliver(from, envelope).is_err().then_some(place);
        envelopes.into_iter().enumerate().filter_map(deliver).collect()
    }

    /// A node that proved to be `from` offers a snapshot. Called on a thread that may block for a while. No two of a group
    /// come from the same node at once.
    ///
    /// # Errors
    /// It is not taken, or not now.
    fn offer(&self, from: NodeId, offer: Envelope) -> Result<Box<dyn Incoming>, SnapshotRefused> {
        let _ = (from, offer);
        Err(SnapshotRefused::Unwanted("this inbox takes no snapshots".to_owned()))
    }

    /// A node cannot be reached, and envelopes that were taken for it may be lost. Told at every failed attempt to reach
    /// it, so more than once.
    fn unreachable(&self, node: NodeId) {
        let _ = node;
    }
}

/// One of several envelopes that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its place among them.
    pub place: usize,
    /// Why.
    pub why: Unsent,
}

impl Dropped {
    /// All of so many.
    pub fn all(count: usize, why: Unsent) -> Vec<Dropped> {
        (0..count).map(|place| Dropped { place, why }).collect()
    }
}

/// Why an envelope was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// No address is known.
    #[error("the node is not known")]
    UnknownNode,
    /// What waits for the node is at its bound.
    #[error("the queue to the node is full")]
    QueueFull,
    /// The node did not answer lately.
    #[error("the node cannot be reached")]
    Unreachable,
    /// Your mistake: no node would take a message of this size.
    #[error("the message is larger than any that can be sent")]
    TooLarge,
}

/// The receiver's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiver is busy")]
pub struct InboxFull;
