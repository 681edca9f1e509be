//! Floor 4: a node as a member of a cluster: how it becomes one, what it does as one, and how it stops being one.
//!
//! ```text
//!   data directory ──▶ Entrance ──▶ Waiting ── init, or let in ──▶ ClusterNode ── meta() ──▶ the cluster's facts
//!                         │           port: Formation               port: Raft, Peers, Formation
//!                         └──▶ a node alone: no cluster
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `config` | what a node is told about its cluster when it is started |
//! | `record` | what it notes of itself, durably |
//! | `entrance` | a node that is no member yet: it waits, forms a cluster, or joins one |
//! | `waiting` | what such a node answers |
//! | `node` | [`ClusterNode`]: opens transport, raftstore and metadata group in order, stops them in reverse |
//! | `core` | what services and tasks of a member share, and the tasks |
//! | `plan` | pure: which replicas the group should have |
//! | `book` | pure: where the other members are called |
//! | `announcing` | tells the cluster that this node has started, and where it is |
//! | `service` | what a member answers |
//! | `leading` | who leads: found, asked, handed over |
//! | `remove` | takes a member out |
//! | `vote` | has a member vote, or not |
//! | `check` | compares what the members hold |
//! | [`force`] | the last resort when the majority was lost |
//! | `metrics` | names and units |
//! | `peers` | what members ask each other beside Raft |
//! | `dial` | connections to nodes that are called by address |
//! | [`rpc`] | the metadata for other processes |
//! | [`operator`] | what an operator asks of a node |
//!
//! It may touch `meta`, `raftstore`, `net` and `storage`, and knows neither the WAL nor the engine.
//!
//! **Invariants.**
//! - *One cluster.* A cluster comes about only when somebody asks a node for it that waits and is no member; which cluster
//!   that is, and that this node is its first member, is durable before anything else of it exists. A node that was told to
//!   join never forms one, unless it stands first in the list of those to join.
//! - *One process per member.* A start raises the node's incarnation, durably, and the cluster takes notice of it before the
//!   node takes part in anything, if enough of the others are there to do so; a second one from a copy of the directory is
//!   refused then. If they are not, it takes part first: a cluster that was stopped as a whole could not start otherwise. A
//!   member that sees a later incarnation of itself stops.
//! - *Nothing waits forever.* Every call has a deadline; who waits for a cluster says so.
//! - Secrets and tokens are never logged; the cluster keeps their hashes alone.

mod announcing;
mod book;
mod check;
mod config;
mod core;
mod dial;
mod entrance;
mod error;
pub mod force;
mod leading;
mod metrics;
mod node;
pub mod operator;
mod peers;
pub(crate) mod plan;
mod record;
mod remove;
pub mod rpc;
mod service;
mod vote;
mod waiting;

pub use config::{ClusterConfig, TokenSource};
pub use entrance::{Entrance, Phase, Waiting};
pub use error::ClusterError;
pub use node::{ClusterNode, HealthView, MemberHandle};
pub use record::{Membership, membership};

use crate::ident::NodeId;

/// The member that formed the cluster. For now it holds all rows.
pub const FIRST_MEMBER: NodeId = NodeId::new(1);

/// The messages of `proto/cluster.proto`.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, reason = "generated; the proto file says what each is")]
pub mod proto {
    tonic::include_proto!("mainstay.cluster.v1");
}
