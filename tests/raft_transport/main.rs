//! The gRPC transport over real sockets, and snapshots also within a process.

#![cfg(test)]

mod fake;
mod links;
mod memory;
mod metrics;
mod shelf;
mod snapshot_bounds;
mod snapshot_links;
mod snapshot_strangers;
mod strangers;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay::ident::{ClusterId, GroupId, Incarnation, NodeId, ReplicaId};
use mainstay::net::identity::Identity;
use mainstay::net::{Address, NetConfig, NetError};
use mainstay::raftstore::message::Envelope;
use mainstay::raftstore::transport::{
    GrpcTransport, Inbox, InboxFull, Incoming, PeerStatus, SnapshotRefused, SnapshotUnsent, Transport, Unsent,
};
use parking_lot::Mutex;
use shelf::{Made, Shelf};

/// No test waits longer than this for something that should happen.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
const CLUSTER: u64 = 7;

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(POLL).await;
    }
}

fn identity(node: u64, incarnation: u64) -> Identity {
    Identity { cluster: ClusterId::new(CLUSTER), node: NodeId::new(node), incarnation: Incarnation::new(incarnation) }
}

/// Retries quickly, and listens on any free port.
fn config() -> NetConfig {
    NetConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        backoff_base: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
        ..NetConfig::default()
    }
}

fn envelope(number: u64, size: usize) -> Envelope {
    let message = Bytes::from(vec![b'm'; size]);
    Envelope { group: GroupId::new(number), from: ReplicaId::new(1), to: ReplicaId::new(2), message }
}

/// Keeps what arrives, up to a limit.
#[derive(Default)]
struct Arrivals {
    envelopes: Mutex<Vec<(NodeId, Envelope)>>,
    unreachable: Mutex<Vec<NodeId>>,
    limit: Option<usize>,
    shelf: Arc<Shelf>,
}

impl Inbox for Arrivals {
    fn deliver(&self, from: NodeId, envelope: Envelope) -> Result<(), InboxFull> {
        let mut envelopes = self.envelopes.lock();
        if self.limit.is_some_and(|limit| envelopes.len() >= limit) {
            return Err(InboxFull);
        }
        envelopes.push((from, envelope));
        Ok(())
    }

    fn offer(&self, from: NodeId, offer: Envelope) -> Result<Box<dyn Incoming>, SnapshotRefused> {
        self.shelf.offer(from, &offer)
    }

    fn unreachable(&self, node: NodeId) {
        self.unreachable.lock().push(node);
    }
}

impl Arrivals {
    fn count(&self) -> usize {
        self.envelopes.lock().len()
    }

    fn numbers(&self) -> Vec<u64> {
        self.envelopes.lock().iter().map(|(_, envelope)| envelope.group.get()).collect()
    }
}

struct Node {
    transport: GrpcTransport,
    arrivals: Arc<Arrivals>,
}

impl Node {
    async fn start(config: NetConfig, identity: Identity) -> Node {
        Node::start_with(config, identity, Arrivals::default()).await
    }

    async fn start_with(config: NetConfig, identity: Identity, arrivals: Arrivals) -> Node {
        let transport = GrpcTransport::start(config, identity, None).await.unwrap();
        let arrivals = Arc::new(arrivals);
        transport.receive_into(Arc::clone(&arrivals) as Arc<dyn Inbox>);
        Node { transport, arrivals }
    }

    fn address(&self) -> SocketAddr {
        self.transport.local_addr()
    }

    fn knows(&self, node: u64, address: SocketAddr) {
        self.transport.set_peer(NodeId::new(node), vec![Address::from(address)]).unwrap();
    }

    fn send(&self, to: u64, envelope: Envelope) -> Result<(), Unsent> {
        self.transport.send(NodeId::new(to), envelope)
    }

    fn send_snapshot(&self, to: u64, made: &Arc<Made>, group: u64) -> Result<Outcome, Unsent> {
        let (outgoing, outcome) = made.outgoing(group);
        self.transport.send_snapshot(NodeId::new(to), outgoing)?;
        Ok(Outcome(outcome))
    }

    fn shelf(&self) -> &Arc<Shelf> {
        &self.arrivals.shelf
    }

    fn peer(&self, node: u64) -> PeerStatus {
        let peers = self.transport.peers();
        peers.into_iter().find(|status| status.node == NodeId::new(node)).unwrap()
    }

    fn last_failure(&self, node: u64) -> String {
        self.peer(node).last_failure.unwrap_or_default()
    }

    /// Sends until something arrives there that was sent from now on.
    async fn reaches(&self, to: u64, other: &Node) {
        let before = other.arrivals.count();
        eventually("an envelope arrives", || {
            let _ = self.send(to, envelope(0, 1));
            other.arrivals.count() > before
        })
        .await;
    }

    /// Sends until the reason why the peer is not reached contains this.
    async fn is_kept_from(&self, to: u64, reason: &str) {
        eventually(reason, || {
            let _ = self.send(to, envelope(0, 1));
            self.last_failure(to).contains(reason)
        })
        .await;
        assert!(!self.peer(to).is_connected);
    }

    /// Sends until the peer was not reached several times, for whatever reason.
    async fn never_reaches(&self, to: u64) {
        let failures = || self.arrivals.unreachable.lock().iter().filter(|node| node.get() == to).count();
        let before = failures();
        eventually("attempts fail", || {
            let _ = self.send(to, envelope(0, 1));
            assert!(!self.peer(to).is_connected);
            failures() >= before + 4
        })
        .await;
    }
}

/// What becomes of a snapshot.
struct Outcome(std::sync::mpsc::Receiver<Result<(), SnapshotUnsent>>);

impl Outcome {
    /// Waits until it was said, and whoever might say it again is gone.
    async fn get(self) -> Result<(), SnapshotUnsent> {
        let mut said = None;
        eventually("the end of a snapshot is told", || {
            said = said.take().or_else(|| self.0.try_recv().ok());
            said.is_some()
        })
        .await;
        eventually("nobody can say it again", || match self.0.try_recv() {
            Ok(again) => panic!("said again: {again:?}"),
            Err(error) => error == std::sync::mpsc::TryRecvError::Disconnected,
        })
        .await;
        said.unwrap()
    }

    /// What was said, if it was.
    fn now(&self) -> Option<Result<(), SnapshotUnsent>> {
        self.0.try_recv().ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_stays_on_loopback_unless_it_is_allowed() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let started = GrpcTransport::start(NetConfig { listen: everywhere, ..config() }, identity(1, 1), None).await;
    assert!(matches!(&started, Err(NetError::Config(error)) if error.problems[0].setting == "net.listen"));

    let node = Node::start(config(), identity(1, 1)).await;
    let elsewhere = Address::from(SocketAddr::from(([192, 0, 2, 1], 1)));
    let refused = node.transport.set_peer(NodeId::new(2), vec![elsewhere.clone()]);
    assert!(matches!(refused, Err(NetError::Plaintext(_))));
    assert!(matches!(node.transport.set_peer(NodeId::new(2), vec![]), Err(NetError::NoAddress(_))));
    assert_eq!(node.send(2, envelope(0, 1)), Err(Unsent::UnknownNode));

    let trusting = NetConfig { listen: everywhere, allow_plaintext: true, ..config() };
    let trusting = Node::start(trusting, identity(1, 1)).await;
    trusting.transport.set_peer(NodeId::new(2), vec![elsewhere]).unwrap();
}
