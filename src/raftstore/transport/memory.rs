//! Envelopes and snapshots between nodes of one process. Envelopes are handed straight to the receiver's inbox, in the
//! sender's thread; each snapshot has a thread of its own, which hands chunk after chunk to the receiver while the links
//! both ways stand, and begins again behind what arrived when they do not. It is tried as often as between processes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::super::message::Envelope;
use super::super::snapshot::Captured;
use super::super::snapshot::chunk::CHUNK_BYTES;
use super::call::random;
use super::snapshots::{Broken, Promise, Retries};
use super::{Dropped, Inbox, Outgoing, SnapshotUnsent, Transport, Unsent};
use crate::ident::{GroupId, NodeId};
use crate::net::backoff::Backoff;

/// Snapshots that are on their way at once.
const SNAPSHOTS_LIMIT: usize = 64;
/// Between two attempts to send a snapshot.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) };

/// Nodes of one process that reach each other, until a link is cut.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<RwLock<Links>>);

#[derive(Default)]
struct Links {
    inboxes: HashMap<NodeId, Arc<dyn Inbox>>,
    /// From, to.
    cut: HashSet<(NodeId, NodeId)>,
    /// The snapshots on their way: from, to, group.
    snapshots: HashMap<(NodeId, NodeId, GroupId), Latest>,
    last_snapshot: u64,
}

/// The latest snapshot of a group from one node to another.
struct Latest {
    number: u64,
    /// Held by the one that is being taken: the next one waits until it is let go.
    turn: Arc<Mutex<()>>,
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> MemoryNetwork {
        MemoryNetwork::default()
    }

    /// What a node sends with. It can be had before the node has joined.
    pub fn transport(&self, node: NodeId) -> MemoryTransport {
        MemoryTransport { network: self.clone(), node }
    }

    /// From now on, what is for the node goes into this inbox.
    pub fn join(&self, node: NodeId, inbox: Arc<dyn Inbox>) {
        self.0.write().inboxes.insert(node, inbox);
    }

    /// From now on, the node is unknown.
    pub fn leave(&self, node: NodeId) {
        self.0.write().inboxes.remove(&node);
    }

    /// Cuts the way from one node to another; the way back stays.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.0.write().cut.insert((from, to));
    }

    /// Undoes [`cut`](MemoryNetwork::cut).
    pub fn mend(&self, from: NodeId, to: NodeId) {
        self.0.write().cut.remove(&(from, to));
    }

    /// Cuts a node off from all others, both ways, or undoes all cuts of it.
    pub fn isolate(&self, node: NodeId, isolated: bool) {
        let mut links = self.0.write();
        if !isolated {
            links.cut.retain(|&(from, to)| from != node && to != node);
            return;
        }
        let others: Vec<NodeId> = links.inboxes.keys().copied().filter(|&other| other != node).collect();
        links.cut.extend(others.into_iter().flat_map(|other| [(node, other), (other, node)]));
    }
}

/// A node's way into a [`MemoryNetwork`].
#[derive(Clone)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    node: NodeId,
}

impl MemoryTransport {
    /// Where it goes, while the link stands. To be used without the links: an inbox may send in turn.
    fn inbox(&self, to: NodeId) -> Result<Arc<dyn Inbox>, Unsent> {
        let links = self.network.0.read();
        if links.cut.contains(&(self.node, to)) {
            return Err(Unsent::Unreachable);
        }
        links.inboxes.get(&to).cloned().ok_or(Unsent::UnknownNode)
    }
}

impl Transport for MemoryTransport {
    fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), Unsent> {
        self.inbox(to)?.deliver(self.node, envelope).map_err(|_| Unsent::QueueFull)
    }

    fn send_all(&self, to: NodeId, envelopes: Vec<Envelope>) -> Vec<Dropped> {
        match self.inbox(to) {
            Ok(inbox) => {
                let dropped = inbox.deliver_all(self.node, envelopes).into_iter();
                dropped.map(|place| Dropped { place, why: Unsent::QueueFull }).collect()
            }
            Err(why) => Dropped::all(envelopes.len(), why),
        }
    }

    fn send_snapshot(&self, to: NodeId, outgoing: Outgoing) -> Result<(), Unsent> {
        let Outgoing { offer, captured, done } = outgoing;
        let key = (self.node, to, offer.group);
        let mut links = self.network.0.write();
        if links.is_cut(self.node, to) {
            return Err(Unsent::Unreachable);
        }
        if !links.inboxes.contains_key(&to) {
            return Err(Unsent::UnknownNode);
        }
        if links.snapshots.len() >= SNAPSHOTS_LIMIT {
            return Err(Unsent::QueueFull);
        }
        links.last_snapshot += 1;
        let number = links.last_snapshot;
        // One that was on its way ends when it looks.
        let latest = links.snapshots.entry(key).or_insert_with(|| Latest { number, turn: Arc::default() });
        latest.number = number;
        let turn = Arc::clone(&latest.turn);
        drop(links);
        let journey = Journey { transport: self.clone(), to, offer, captured, number, turn };
        let promise = Promise::new(done);
        // Without a thread the promise is dropped, which says that the snapshot was given up.
        let begun = thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let result = journey.send();
            drop(journey);
            promise.keep(result);
        });
        if let Err(error) = begun {
            tracing::warn!(%error, "no thread for a snapshot");
        }
        Ok(())
    }
}

impl Links {
    /// Whether a snapshot cannot pass: chunks go one way, answers the other.
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to)) || self.cut.contains(&(to, from))
    }
}

/// A snapshot on its way.
struct Journey {
    transport: MemoryTransport,
    to: NodeId,
    offer: Envelope,
    captured: Arc<dyn Captured>,
    number: u64,
    turn: Arc<Mutex<()>>,
}

impl Journey {
    fn send(&self) -> Result<(), SnapshotUnsent> {
        let mut retries = Retries::new(BACKOFF);
        loop {
            let Err(broken) = self.attempt(&mut retries) else { return Ok(()) };
            thread::sleep(retries.after(&broken, random())?);
        }
    }

    fn attempt(&self, retries: &mut Retries) -> Result<(), Broken> {
        let _turn = self.turn.lock();
        let inbox = self.inbox()?;
        let mut incoming = inbox.offer(self.transport.node, self.offer.clone())?;
        let mut after = incoming.resume_after().cloned();
        retries.accepted(after.as_ref());
        loop {
            let pairs = self.captured.read(after.as_ref(), CHUNK_BYTES)?;
            self.check(&inbox)?;
            let end = pairs.last().map(|pair| pair.place.clone());
            incoming.take(pairs, end.is_none())?;
            if end.is_none() {
                // The receiver's word that it has everything can be lost too.
                return self.check(&inbox);
            }
            after = end;
        }
    }

    /// Where it goes, while it may.
    fn inbox(&self) -> Result<Arc<dyn Inbox>, Broken> {
        let links = self.transport.network.0.read();
        let lost = |why: &str| Broken::Lost(why.to_owned());
        if links.snapshots.get(&self.key()).is_none_or(|latest| latest.number != self.number) {
            return Err(Broken::Final("a newer one took its place".to_owned()));
        }
        if links.is_cut(self.transport.node, self.to) {
            return Err(lost("the link is cut"));
        }
        links.inboxes.get(&self.to).cloned().ok_or_else(|| lost("the node has left"))
    }

    /// Whether it may still go there.
    fn check(&self, inbox: &Arc<dyn Inbox>) -> Result<(), Broken> {
        if Arc::ptr_eq(&self.inbox()?, inbox) {
            return Ok(());
        }
        Err(Broken::Lost("the node has started again".to_owned()))
    }

    fn key(&self) -> (NodeId, NodeId, GroupId) {
        (self.transport.node, self.to, self.offer.group)
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        let mut links = self.transport.network.0.write();
        if links.snapshots.get(&self.key()).is_some_and(|latest| latest.number == self.number) {
            links.snapshots.remove(&self.key());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parking_lot::Mutex;

    use super::super::InboxFull;
    use super::*;
    use crate::ident::{GroupId, ReplicaId};

    #[derive(Default)]
    struct Taken(Mutex<Vec<NodeId>>);

    impl Inbox for Taken {
        fn deliver(&self, from: NodeId, _envelope: Envelope) -> Result<(), InboxFull> {
            let mut taken = self.0.lock();
            if taken.len() == 2 {
                return Err(InboxFull);
            }
            taken.push(from);
            Ok(())
        }
    }

    #[test]
    fn envelopes_arrive_until_the_link_is_cut_or_the_inbox_full() {
        let [one, two] = [NodeId::new(1), NodeId::new(2)];
        let envelope = Envelope {
            group: GroupId::new(0),
            from: ReplicaId::new(1),
            to: ReplicaId::new(2),
            message: Bytes::from_static(b"hello"),
        };
        let network = MemoryNetwork::new();
        let transport = network.transport(one);
        assert_eq!(transport.send(two, envelope.clone()), Err(Unsent::UnknownNode));
        let inbox = Arc::new(Taken::default());
        network.join(two, Arc::clone(&inbox) as Arc<dyn Inbox>);
        network.join(one, Arc::clone(&inbox) as Arc<dyn Inbox>);
        transport.send(two, envelope.clone()).unwrap();
        network.cut(one, two);
        assert_eq!(transport.send(two, envelope.clone()), Err(Unsent::Unreachable));
        network.transport(two).send(one, envelope.clone()).unwrap();
        network.mend(one, two);
        assert_eq!(transport.send(two, envelope.clone()), Err(Unsent::QueueFull));
        assert_eq!(*inbox.0.lock(), [one, two]);
        network.isolate(one, true);
        assert_eq!(transport.send(two, envelope.clone()), Err(Unsent::Unreachable));
        assert_eq!(network.transport(two).send(one, envelope.clone()), Err(Unsent::Unreachable));
        network.isolate(one, false);
        assert_eq!(transport.send(two, envelope.clone()), Err(Unsent::QueueFull));
        network.leave(two);
        assert_eq!(transport.send(two, envelope), Err(Unsent::UnknownNode));
    }
}
