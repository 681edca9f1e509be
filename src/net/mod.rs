//! Floor 1: connections between the nodes of a cluster, and what a node has to prove to be spoken to.
//!
//! | room | what it holds |
//! |---|---|
//! | [`config`] | the settings, and where plaintext is allowed |
//! | [`address`] | where a peer listens |
//! | [`identity`] | pure: what peers prove to each other: certificates, hellos, incarnations |
//! | [`tls`] | mutual TLS between nodes |
//! | [`endpoint_tls`] | TLS towards clients that are no nodes |
//! | [`subject`], `der` | pure: for whom a client's certificate speaks |
//! | `files` | small files that are read again when they change |
//! | [`connection`] | a connection, plain or TLS, that is cut when its owner goes |
//! | [`listener`] | accepting connections, within limits |
//! | [`batch`] | messages that travel together, counted while they are decoded |
//! | [`backoff`], [`breaker`] | pure: when a peer that fails is tried again, and whether it is sent to meanwhile |
//! | [`throttle`] | pure: so many bytes per second |
//!
//! It knows the words ([`crate::ident`], [`crate::config`]) and itself; what is said over a connection is not its
//! business.
//!
//! - Nothing is read from or written to a peer in plaintext unless it is on a loopback address or the operator said so.
//! - A peer has a bounded time for each step until it has proved who it is, and there is a bounded number of connections.
//! - Keys are never logged, and nothing here prints them.

pub mod address;
pub mod backoff;
pub mod batch;
pub mod breaker;
pub mod config;
pub mod connection;
pub(crate) mod der;
pub mod endpoint_tls;
mod error;
pub(crate) mod files;
pub mod identity;
pub mod listener;
pub mod subject;
pub mod throttle;
pub mod tls;

pub use address::Address;
pub use config::NetConfig;
pub use endpoint_tls::EndpointTlsConfig;
pub use error::NetError;
pub use tls::TlsConfig;
