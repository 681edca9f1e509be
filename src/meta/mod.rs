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
//! | [`stored`] | all other records, as people ask for them |
//! | [`view`] | what is read, and writes on top of it |
//! | [`machine`] | the driver of `apply` on a group's tables |
//! | [`watch`] | what changes, in order, without a gap |
//! | [`clock`], [`timekeeper`] | what is due, and the task that lets it expire |
//! | [`query`] | questions of the tables, and what is found |
//! | [`names`] | what makes a command that is proposed twice take effect once |
//! | [`service`] | a metadata group as a trait: [`raft`] is the real one, [`memory`] one in memory |
//! | [`conformance`] | what any of them has to pass |
//! | [`client`] | the typed client on top of them |
//! | [`token`] | join tokens as people pass them on |
//! | [`metrics`] | names and units |
//! | `fault` | known bugs that tests put back in |
//!
//! It may touch `raftstore`, and knows neither the WAL nor who serves the cluster's clients.
//!
//! **Invariants.** The whole state lies in the group's tables: a replica is what its tables are. Equal logs make equal
//! tables, byte for byte, in whatever batches they were applied. What is refused has written nothing. Secrets are kept as
//! hashes alone.

pub mod apply;
pub mod client;
pub mod clock;
pub mod command;
pub mod conformance;
pub(crate) mod fault;
mod keys;
pub mod limits;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod names;
pub mod query;
pub mod raft;
pub mod read;
pub mod service;
pub mod settings;
pub mod stored;
pub mod timekeeper;
pub mod token;
pub mod view;
pub mod watch;

use crate::ident::GroupId;

/// The Raft group that holds the cluster's metadata.
pub const METADATA_GROUP: GroupId = GroupId::new(0);

/// The messages of `proto/meta.proto`.
#[allow(missing_docs, clippy::all, reason = "generated; the proto file says what each is")]
pub mod proto {
    tonic::include_proto!("mainstay.meta.v1");
}
