//! Floor 3: facts about the cluster, in Raft group 0: members, settings, join tokens, a small KV, and a log of events.
//!
//! ```text
//!   client ── Command ──▶ raftstore, group 0 ──▶ machine ──▶ apply (pure) ──▶ tables
//!      ▲                                            │                           │
//!      └──────────── Answer ◀──────────────────────┴── hub: how far ──▶ watches ┘
//! ```
//!
//! | room | what it holds |
//! |---|---|
//! | [`command`] | commands and answers as bytes, and their version |
//! | [`apply`] | pure: a command and the tables become writes and an answer |
//! | [`settings`] | which settings there are |
//! | [`limits`] | the bounds that are not settings |
//! | [`read`] | keys and values as they were at a revision |
//! | [`view`] | what is read, and writes on top of it |
//!
//! It may touch `raftstore`, and knows neither the WAL nor who serves the cluster's clients.
//!
//! **Invariants.** The whole state lies in the group's tables: a replica is what its tables are. Equal logs make equal
//! tables, byte for byte, in whatever batches they were applied. What is refused has written nothing. Secrets are kept as
//! hashes alone.

pub mod apply;
pub mod command;
mod keys;
pub mod limits;
pub mod read;
pub mod settings;
pub mod view;

/// The messages of `proto/meta.proto`.
#[allow(missing_docs, clippy::all, reason = "generated; the proto file says what each is")]
pub mod proto {
    tonic::include_proto!("mainstay.meta.v1");
}
