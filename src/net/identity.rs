//! Pure: what a peer has to prove before it is listened to.
//!
//! Both sides of a connection say hello: which cluster and node they are, which life of that node, and whom they believe
//! to speak to. Each refuses the other unless all of it fits. With TLS, the certificate must come from the configured
//! authority, and if it names nodes, the claimed one must be among them:
//!
//! ```text
//! DNS:node-3.00000000c0ffee00.mainstay     node 3 of cluster c0ffee00
//!          │         └ the cluster's id, 16 lower-case hexadecimal digits
//!          └ the node's id, decimal
//! ```
//!
//! A certificate that names no node may speak for any node, unless names are required. So an authority that signs for
//! others than the nodes of this cluster is safe only with [names required](super::TlsConfig::require_node_names).

use std::collections::HashMap;

use crate::ident::{ClusterId, Incarnation, NodeId};

/// What the DNS names of nodes end with.
const NAME_SUFFIX: &str = ".mainstay";
/// So many nodes are remembered; more than any cluster has.
const NODES_LIMIT: usize = 4096;

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number there.
    pub node: NodeId,
    /// Which of its lives: higher at every start.
    pub incarnation: Incarnation,
}

/// What a peer says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who it is.
    pub identity: Identity,
    /// Whom it believes to speak to.
    pub expects: NodeId,
}

/// Why a peer is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not belong here.
    #[error("it belongs to cluster {theirs:016x}, not {ours:016x}", theirs = theirs.get(), ours = ours.get())]
    Cluster {
        /// Its cluster.
        theirs: ClusterId,
        /// This node's.
        ours: ClusterId,
    },
    /// Its address book is wrong.
    #[error("it expects node {expects}, but this is node {ours}")]
    NotMe {
        /// Whom it looks for.
        expects: NodeId,
        /// Who this is.
        ours: NodeId,
    },
    /// Our address book is wrong.
    #[error("it is node {theirs}, not node {expected}")]
    NotThem {
        /// Who answered.
        theirs: NodeId,
        /// Who was called.
        expected: NodeId,
    },
    /// Two nodes have one number.
    #[error("it claims to be node {0}, which is this node")]
    Myself(NodeId),
    /// It is what is left of an earlier life of the node.
    #[error("incarnation {theirs} of node {node} is over: {seen} was seen")]
    Stale {
        /// The node.
        node: NodeId,
        /// The life it is in.
        theirs: Incarnation,
        /// The latest known.
        seen: Incarnation,
    },
    /// Its certificate is for others.
    #[error("its certificate does not name node {0} of this cluster")]
    Certificate(NodeId),
    /// It speaks another version of the protocol.
    #[error("it speaks version {theirs} of the protocol, this node {ours}")]
    Version {
        /// Its version.
        theirs: u32,
        /// This node's.
        ours: u32,
    },
    /// More nodes than a cluster has.
    #[error("too many nodes have spoken to this one")]
    TooMany,
}

/// For whom a connection's certificate speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certified {
    /// For any node: there is none, or it names no node.
    Any,
    /// For these nodes.
    Nodes(Vec<(ClusterId, NodeId)>),
}

impl Certified {
    /// What the DNS names of a certificate say. Names of other things do not matter, but what looks like a node's and is
    /// malformed names nobody.
    pub fn by_names<'a>(names: impl Iterator<Item = &'a str>) -> Certified {
        let mut nodes = Vec::new();
        let mut named = false;
        for stem in names.filter_map(|name| name.strip_suffix(NAME_SUFFIX)) {
            named = true;
            nodes.extend(parse_stem(stem));
        }
        if named { Certified::Nodes(nodes) } else { Certified::Any }
    }

    fn includes(&self, identity: &Identity) -> bool {
        match self {
            Certified::Any => true,
            Certified::Nodes(nodes) => nodes.contains(&(identity.cluster, identity.node)),
        }
    }
}

/// The DNS name in a certificate that speaks for a node.
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{:016x}{NAME_SUFFIX}", cluster.get())
}

fn parse_stem(stem: &str) -> Option<(ClusterId, NodeId)> {
    let (node, cluster) = stem.strip_prefix("node-")?.split_once('.')?;
    let (node, cluster) = (NodeId::new(node.parse().ok()?), ClusterId::new(u64::from_str_radix(cluster, 16).ok()?));
    // One name per node: no signs, no leading zeroes, no capitals.
    (node_name(cluster, node).strip_suffix(NAME_SUFFIX) == Some(stem)).then_some((cluster, node))
}

impl Identity {
    /// What this node says to another.
    pub fn claim(&self, to: NodeId) -> Claim {
        Claim { identity: *self, expects: to }
    }

    /// Whether a peer that claims this, over a connection with such a certificate, is who it says and means this node.
    /// `called` is the node that this one called, if it did.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, claim: &Claim, certified: &Certified, called: Option<NodeId>) -> Result<(), Refusal> {
        let theirs = claim.identity;
        if theirs.cluster != self.cluster {
            return Err(Refusal::Cluster { theirs: theirs.cluster, ours: self.cluster });
        }
        if !certified.includes(&theirs) {
            return Err(Refusal::Certificate(theirs.node));
        }
        if let Some(expected) = called
            && theirs.node != expected
        {
            return Err(Refusal::NotThem { theirs: theirs.node, expected });
        }
        if claim.expects != self.node {
            return Err(Refusal::NotMe { expects: claim.expects, ours: self.node });
        }
        if theirs.node == self.node {
            return Err(Refusal::Myself(theirs.node));
        }
        Ok(())
    }
}

/// The latest life seen of each node.
#[derive(Debug, Default)]
pub struct Incarnations {
    seen: HashMap<NodeId, Incarnation>,
}

impl Incarnations {
    /// Notes a node's incarnation. Says whether it is later than any before.
    ///
    /// # Errors
    /// [`Refusal::Stale`], or [`Refusal::TooMany`].
    pub fn admit(&mut self, node: NodeId, incarnation: Incarnation) -> Result<bool, Refusal> {
        match self.seen.get(&node) {
            Some(&seen) if incarnation < seen => Err(Refusal::Stale { node, theirs: incarnation, seen }),
            Some(&seen) if incarnation == seen => Ok(false),
            None if self.seen.len() >= NODES_LIMIT => Err(Refusal::TooMany),
            _ => {
                self.seen.insert(node, incarnation);
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(cluster: u64, node: u64) -> Identity {
        Identity { cluster: ClusterId::new(cluster), node: NodeId::new(node), incarnation: Incarnation::new(1) }
    }

    #[test]
    fn each_lie_is_refused_for_what_it_is() {
        let me = identity(7, 1);
        let check = |theirs: Identity, expects, called| {
            me.check(&theirs.claim(NodeId::new(expects)), &Certified::Any, Option::map(called, NodeId::new))
        };
        assert_eq!(check(identity(7, 2), 1, None), Ok(()));
        assert_eq!(check(identity(7, 2), 1, Some(2)), Ok(()));
        assert!(matches!(check(identity(8, 2), 1, None), Err(Refusal::Cluster { .. })));
        assert!(matches!(check(identity(7, 2), 3, None), Err(Refusal::NotMe { .. })));
        assert!(matches!(check(identity(7, 2), 1, Some(3)), Err(Refusal::NotThem { .. })));
        assert!(matches!(check(identity(7, 1), 1, None), Err(Refusal::Myself(_))));
    }

    #[test]
    fn certificates_with_node_names_speak_for_those_nodes_only() {
        let me = identity(7, 1);
        let check = |names: &[&str], theirs: Identity| {
            me.check(&theirs.claim(me.node), &Certified::by_names(names.iter().copied()), None)
        };
        let name = node_name(ClusterId::new(7), NodeId::new(2));
        assert_eq!(name, "node-2.0000000000000007.mainstay");
        assert_eq!(check(&["db2.example.com"], identity(7, 2)), Ok(()));
        assert_eq!(check(&["db2.example.com", &name], identity(7, 2)), Ok(()));
        assert_eq!(check(&["db2.example.com", &name], identity(7, 3)), Err(Refusal::Certificate(NodeId::new(3))));
        for malformed in [
            "node-2.0000000000000008.mainstay",
            "node-02.0000000000000007.mainstay",
            "node-+2.0000000000000007.mainstay",
            "node-2.7.mainstay",
            "*.mainstay",
            ".mainstay",
        ] {
            assert_eq!(check(&[malformed], identity(7, 2)), Err(Refusal::Certificate(NodeId::new(2))), "{malformed}");
        }
    }

    #[test]
    fn no_life_comes_back() {
        let node = NodeId::new(2);
        let mut incarnations = Incarnations::default();
        assert_eq!(incarnations.admit(node, Incarnation::new(5)), Ok(true));
        assert_eq!(incarnations.admit(node, Incarnation::new(5)), Ok(false));
        assert_eq!(incarnations.admit(node, Incarnation::new(6)), Ok(true));
        assert!(matches!(incarnations.admit(node, Incarnation::new(5)), Err(Refusal::Stale { .. })));
        assert_eq!(incarnations.admit(NodeId::new(3), Incarnation::new(1)), Ok(true));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut incarnations = Incarnations::default();
        for node in 0..NODES_LIMIT as u64 {
            incarnations.admit(NodeId::new(node), Incarnation::new(1)).unwrap();
        }
        assert_eq!(incarnations.admit(NodeId::new(u64::MAX), Incarnation::new(1)), Err(Refusal::TooMany));
        assert_eq!(incarnations.admit(NodeId::new(0), Incarnation::new(2)), Ok(true));
    }

    proptest! {
        #[test]
        fn node_names_are_read_back(cluster: u64, node: u64) {
            let name = node_name(ClusterId::new(cluster), NodeId::new(node));
            let expected = Certified::Nodes(vec![(ClusterId::new(cluster), NodeId::new(node))]);
            prop_assert_eq!(Certified::by_names([name.as_str()].into_iter()), expected);
        }
    }
}
