//! Why a connection cannot be had.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::Address;
use crate::config::ConfigError;
use crate::ident::NodeId;

/// Why a connection, or listening for some, failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Your mistake.
    #[error("invalid settings of the network: {0}")]
    Config(#[from] ConfigError),
    /// Your mistake.
    #[error("{0:?} is no address: host:port is expected, where the host is a name, an IPv4 or an [IPv6] address")]
    Address(String),
    /// Your mistake.
    #[error("node {0} has no address")]
    NoAddress(NodeId),
    /// Your mistake: whoever is on the way could read and change what nodes tell each other.
    #[error("{0} is not a loopback address: configure TLS, or allow plaintext if the network is trusted")]
    Plaintext(SocketAddr),
    /// Your mistake: a file of the TLS settings cannot be used.
    #[error("TLS file {path}: {what}", path = path.display())]
    TlsFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Your mistake: the files can be read but do not fit together.
    #[error("TLS settings: {0}")]
    Tls(rustls::Error),
    /// Somebody else listens there.
    #[error("address {0} for other nodes is already in use")]
    AddressInUse(SocketAddr),
    /// The system does not let us listen there.
    #[error("cannot listen for other nodes on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Your mistake: it was called outside of a tokio runtime.
    #[error("no tokio runtime")]
    NoRuntime,
    /// Retry here: the peer cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
}
