//! Why a node is no member of its cluster, or cannot be one any more.

use std::io;

use crate::config::ConfigError;
use crate::ident::{ClusterId, NodeId, SystemId};
use crate::meta::proto::Refused;
use crate::meta::service::MetaError;
use crate::meta::token::MalformedToken;
use crate::net::NetError;
use crate::raftstore::log_store::StoreError;
use crate::raftstore::store::{GroupFailure, OpenError};
use crate::storage::StorageError;

/// See the module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// *Your mistake*: settings that cannot be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The port for other nodes, or its TLS, cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// *This node must stop*: what it noted of itself as a member cannot be read.
    #[error("the node's record of its membership cannot be used: {0}")]
    Record(String),
    /// *Your mistake*: the directory belongs to somebody already.
    #[error(
        "the data directory holds the data of system {0}; only an empty one can join a cluster. It can become the first \
         member of one: start it without --join, and run `mainstay cluster init`"
    )]
    NotEmpty(SystemId),
    /// *Your mistake*: it is a member of a cluster already.
    #[error(
        "the data directory belongs to node {node} of cluster {cluster:016x}; {what}",
        cluster = cluster.get()
    )]
    AlreadyMember {
        /// Which node.
        node: NodeId,
        /// Of which cluster.
        cluster: ClusterId,
        /// What is to be done.
        what: &'static str,
    },
    /// *Your mistake*: the token is none.
    #[error("the join token cannot be used: {0}")]
    Token(#[from] MalformedToken),
    /// *Your mistake*: the file with the token cannot be read.
    #[error("the join token cannot be read from {path}: {source}")]
    TokenFile {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// *Your mistake*: the cluster does not let this node in, or does not let it go on.
    #[error("the cluster refuses this node: {}", .0.message)]
    Refused(Refused),
    /// *Stop*: another process runs as this node.
    #[error(
        "node {0} runs elsewhere, on a copy of this data directory, with a later incarnation: this process stops, and one of \
         the two directories has to go"
    )]
    Superseded(NodeId),
    /// *Stop*: the node was taken out of the cluster.
    #[error("node {0} was removed from the cluster; its data directory is of no use to it any more")]
    Removed(NodeId),
    /// *This node must stop*: a Raft group or its store cannot go on.
    #[error("{0}")]
    Group(std::sync::Arc<GroupFailure>),
    /// The raftstore or its group cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// *This node must stop*: the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata group cannot be asked.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// *This node must stop*: the operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// *This node must stop*: a task or thread of the node panicked.
    #[error("{0} panicked")]
    Panicked(&'static str),
}

impl ClusterError {
    pub(super) fn random(error: getrandom::Error) -> ClusterError {
        ClusterError::Io { doing: "draw random numbers", source: io::Error::other(error.to_string()) }
    }
}
