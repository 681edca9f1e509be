//! The cluster over gRPC, for processes that are no members of it: tools, applications, nodes that want to join.
//!
//! | file | what it holds |
//! |---|---|
//! | [`channel`] | a way to any node of a list, and what becomes of calls |
//!
//! It may touch `meta`, `raftstore` and `net`.

pub mod channel;
