//! What the gRPC transport counts. All names begin with `mainstay_raft_transport_`; [`super::grpc`] has the table.

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::{SnapshotRefused, SnapshotUnsent, Unsent};
use crate::ident::NodeId;
use crate::net::breaker::BreakerState;

/// What is counted of sending to one peer.
pub(super) struct Sent {
    envelopes: Counter,
    bytes: Counter,
    batch_envelopes: Histogram,
    batch_bytes: Histogram,
    queue_full: Counter,
    unreachable: Counter,
    too_large: Counter,
    disconnected: Counter,
    connected: Counter,
    failed: Counter,
    breaker: Gauge,
}

fn dropped(peer: &str, reason: &'static str) -> Counter {
    counter!("mainstay_raft_transport_dropped_envelopes_total", "peer" => peer.to_owned(), "reason" => reason)
}

fn connects(peer: &str, outcome: &'static str) -> Counter {
    counter!("mainstay_raft_transport_connects_total", "peer" => peer.to_owned(), "outcome" => outcome)
}

impl Sent {
    pub(super) fn to(node: NodeId) -> Sent {
        let peer = node.to_string();
        Sent {
            envelopes: counter!("mainstay_raft_transport_sent_envelopes_total", "peer" => peer.clone()),
            bytes: counter!("mainstay_raft_transport_sent_bytes_total", "peer" => peer.clone()),
            batch_envelopes: histogram!("mainstay_raft_transport_batch_envelopes", "peer" => peer.clone()),
            batch_bytes: histogram!("mainstay_raft_transport_batch_bytes", "peer" => peer.clone()),
            queue_full: dropped(&peer, "queue_full"),
            unreachable: dropped(&peer, "unreachable"),
            too_large: dropped(&peer, "too_large"),
            disconnected: dropped(&peer, "disconnected"),
            connected: connects(&peer, "ok"),
            failed: connects(&peer, "failed"),
            breaker: gauge!("mainstay_raft_transport_breaker_state", "peer" => peer),
        }
    }

    pub(super) fn batch(&self, envelopes: usize, bytes: usize) {
        self.envelopes.increment(envelopes as u64);
        self.bytes.increment(bytes as u64);
        self.batch_envelopes.record(envelopes as f64);
        self.batch_bytes.record(bytes as f64);
    }

    pub(super) fn unsent(&self, why: Unsent) {
        match why {
            Unsent::QueueFull => self.queue_full.increment(1),
            Unsent::Unreachable => self.unreachable.increment(1),
            Unsent::TooLarge => self.too_large.increment(1),
            // Has no peer to count at.
            Unsent::UnknownNode => {}
        }
    }

    pub(super) fn lost(&self, envelopes: usize) {
        self.disconnected.increment(envelopes as u64);
    }

    pub(super) fn connect(&self, succeeded: bool) {
        if succeeded { self.connected.increment(1) } else { self.failed.increment(1) }
    }

    pub(super) fn breaker(&self, state: BreakerState) {
        self.breaker.set(match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        });
    }
}

/// What is counted of receiving from one peer.
pub(super) struct Received {
    envelopes: Counter,
    bytes: Counter,
    inbox_full: Counter,
}

impl Received {
    pub(super) fn from(node: NodeId) -> Received {
        let peer = node.to_string();
        Received {
            envelopes: counter!("mainstay_raft_transport_received_envelopes_total", "peer" => peer.clone()),
            bytes: counter!("mainstay_raft_transport_received_bytes_total", "peer" => peer.clone()),
            inbox_full: dropped(&peer, "inbox_full"),
        }
    }

    pub(super) fn batch(&self, envelopes: usize, bytes: usize, dropped: usize) {
        self.envelopes.increment(envelopes as u64);
        self.bytes.increment(bytes as u64);
        self.inbox_full.increment(dropped as u64);
    }
}

/// What is counted of snapshots for one peer.
pub(super) struct SnapshotsSent {
    bytes: Counter,
    resumed: Counter,
    ok: Counter,
    refused: Counter,
    failed: Counter,
    stopped: Counter,
    has_ended: bool,
}

fn snapshots_sent(peer: &str, outcome: &'static str) -> Counter {
    counter!("mainstay_raft_transport_snapshots_sent_total", "peer" => peer.to_owned(), "outcome" => outcome)
}

impl SnapshotsSent {
    pub(super) fn to(node: NodeId) -> SnapshotsSent {
        let peer = node.to_string();
        SnapshotsSent {
            bytes: counter!("mainstay_raft_transport_snapshot_sent_bytes_total", "peer" => peer.clone()),
            resumed: counter!("mainstay_raft_transport_snapshots_resumed_total", "peer" => peer.clone()),
            ok: snapshots_sent(&peer, "ok"),
            refused: snapshots_sent(&peer, "refused"),
            failed: snapshots_sent(&peer, "failed"),
            stopped: snapshots_sent(&peer, "stopped"),
            has_ended: false,
        }
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.bytes.increment(bytes);
    }

    pub(super) fn resumed(&self) {
        self.resumed.increment(1);
    }

    pub(super) fn ended(&mut self, result: &Result<(), SnapshotUnsent>) {
        self.has_ended = true;
        match result {
            Ok(()) => self.ok.increment(1),
            Err(SnapshotUnsent::Refused(_)) => self.refused.increment(1),
            Err(SnapshotUnsent::Failed(_)) => self.failed.increment(1),
        }
    }
}

impl Drop for SnapshotsSent {
    fn drop(&mut self) {
        if !self.has_ended {
            self.stopped.increment(1);
        }
    }
}

/// A snapshot that was not taken over.
pub(super) fn snapshot_unsent(to: NodeId, why: Unsent) {
    match why {
        Unsent::QueueFull => snapshots_sent(&to.to_string(), "queue_full"),
        Unsent::Unreachable => snapshots_sent(&to.to_string(), "unreachable"),
        Unsent::TooLarge => snapshots_sent(&to.to_string(), "too_large"),
        Unsent::UnknownNode => snapshots_sent("unknown", "unknown_node"),
    }
    .increment(1);
}

/// What is counted of snapshots from one peer.
pub(super) struct SnapshotsReceived {
    bytes: Counter,
    peer: String,
}

impl SnapshotsReceived {
    pub(super) fn from(node: NodeId) -> SnapshotsReceived {
        let peer = node.to_string();
        let bytes = counter!("mainstay_raft_transport_snapshot_received_bytes_total", "peer" => peer.clone());
        SnapshotsReceived { bytes, peer }
    }

    pub(super) fn chunk(&self, bytes: usize) {
        self.bytes.increment(bytes as u64);
    }

    pub(super) fn ok(&self) {
        self.ended("ok");
    }

    pub(super) fn refused(&self, refused: &SnapshotRefused) {
        self.ended(match refused {
            SnapshotRefused::Busy => "busy",
            SnapshotRefused::Unwanted(_) => "refused",
        });
    }

    pub(super) fn broken(&self) {
        self.ended("broken");
    }

    fn ended(&self, outcome: &'static str) {
        let peer = self.peer.clone();
        counter!("mainstay_raft_transport_snapshots_received_total", "peer" => peer, "outcome" => outcome).increment(1);
    }
}

/// Envelopes for a node without address.
pub(super) fn unknown_node(envelopes: usize) {
    counter!("mainstay_raft_transport_dropped_envelopes_total", "peer" => "unknown", "reason" => "unknown_node")
        .increment(envelopes as u64);
}

/// A peer was not listened to, or not spoken to.
pub(super) fn refused(side: &'static str) {
    counter!("mainstay_raft_transport_refused_total", "side" => side).increment(1);
}
