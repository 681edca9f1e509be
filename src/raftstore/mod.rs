//! Floor 2: Raft groups on a store, in the manner of TiKV's raftstore.
//!
//! | room | what it holds |
//! |---|---|
//! | [`group`] | pure: raft-rs behind inputs and effects, all rules of one replica |
//! | [`log_store`] | where logs and tables are kept, as traits |
//! | [`memory`] | a store in memory |
//! | [`rocks`] | a store in RocksDB |
//! | [`conformance`] | what any store has to pass |
//! | [`check`] | what is always true of what is stored, in words for damage |
//! | [`beat`] | that a node lives, said for all groups together |
//! | [`consistency`] | whether all replicas hold the same: hashes, and what follows from them |
//! | [`snapshot`] | a group's state for a replica that is too far behind |
//! | [`state_machine`] | what an embedder implements |
//! | [`recover`] | the last resort for a group that lost its majority |
//! | [`store`] | the driver turns a mailbox into effects; threads persist and apply |
//! | [`transport`] | envelopes between nodes over gRPC |
//!
//! It may touch `storage` and `net`, and knows neither the WAL nor what the groups are for.

pub mod beat;
mod bridge;
pub mod check;
pub mod conformance;
pub mod consistency;
pub mod context;
pub mod entry;
mod fault;
mod format;
pub mod group;
pub mod log_store;
pub mod memory;
pub mod message;
pub mod recover;
pub mod rocks;
mod rules;
mod sessions;
mod sleepers;
pub mod snapshot;
pub mod state_machine;
pub mod store;
pub mod transport;

#[cfg(test)]
#[path = "../../tests/sim/mod.rs"]
mod sim;
