//! Envelopes between nodes of one process: handed straight to the receiver's inbox, in the sender's thread.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;

use super::super::message::Envelope;
use super::{Inbox, Transport, Unsent};
use crate::ident::NodeId;

/// Nodes of one process that reach each other, until a link is cut.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<RwLock<Links>>);

#[derive(Default)]
struct Links {
    inboxes: HashMap<NodeId, Arc<dyn Inbox>>,
    /// From, to.
    cut: HashSet<(NodeId, NodeId)>,
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

impl Transport for MemoryTransport {
    fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), Unsent> {
        let links = self.network.0.read();
        if links.cut.contains(&(self.node, to)) {
            return Err(Unsent::Unreachable);
        }
        let inbox = Arc::clone(links.inboxes.get(&to).ok_or(Unsent::UnknownNode)?);
        // An inbox may send in turn.
        drop(links);
        inbox.deliver(self.node, envelope).map_err(|_| Unsent::QueueFull)
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
