//! The cluster over gRPC, for processes that are no members of it: tools, applications, nodes that want to join.
//!
//! ```text
//!  Meta ── client ── batch ── channel ══ any node of a list ══ service ── batch ── requests ── Metadata ── group 0
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | [`channel`] | a way to any node of a list, and what becomes of calls |
//! | [`client`] | the typed client of `meta`, over that way |
//! | [`service`] | what a node answers: `proto/meta_rpc.proto` |
//! | [`batch`] | many requests over one stream: both ends of it |
//! | `requests` | what a node does with a request |
//! | [`failure`] | errors as statuses, and back |
//! | `feed` | the streams of a service |
//!
//! It may touch `meta`, `raftstore` and `net`.
//!
//! **Invariants.** Every call has a deadline, on both sides. What a client sends twice because an answer was lost takes
//! effect once: the client names it. No hash of a secret leaves the node: who knows it could pass for its owner.

pub mod batch;
pub mod channel;
pub mod client;
pub mod failure;
mod feed;
pub(in crate::cluster) mod requests;
pub mod service;

/// The messages of `proto/meta_rpc.proto`.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, reason = "generated; the proto file says what each is")]
pub mod proto {
    tonic::include_proto!("mainstay.meta.rpc.v1");
}

use std::time::Duration;

/// Largest message that a node takes: a command, and what surrounds it.
pub const MAX_REQUEST_BYTES: usize = crate::meta::command::MAX_COMMAND_BYTES + (64 << 10);
/// Largest message that a client takes: all members, with all that may be said of each.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// What a node tries for at most, whatever it is told.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// A watch says how far it is after this long without a change, if nothing else is said.
const NOTICE_EVERY: Duration = Duration::from_secs(10);
