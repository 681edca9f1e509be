//! Mainstay makes a database highly available.
//!
//! A database hands it bytes to make durable and a way to apply them. In this version that is one durable node, with a
//! write-ahead log with group commit that loses nothing that was acknowledged, whatever kills the process; Raft groups that
//! replicate state machines; and a cluster of nodes that keeps its members, settings and a small KV on all of them. That the
//! log is replicated, too, is what the house is built for, and comes next.
//!
//! **To embed it**, implement [`engine::Engine`], open a [`node::Node`], and write through the
//! [`node::Primary`] that your engine is given:
//!
//! ```
//! use mainstay::{config::NodeConfig, engine::{Engine, EngineError}, lsn::Lsn, node::{Node, Primary}, wal::Record};
//! use std::{error::Error, sync::Mutex};
//!
//! /// Counts. Its state is a number and the LSN up to which the log is counted in.
//! #[derive(Default)]
//! struct Counter(Mutex<(u64, Lsn, Option<Primary>)>);
//!
//! impl Counter {
//!     fn increment(&self) -> Result<u64, Box<dyn Error>> {
//!         let mut state = self.0.lock().unwrap();
//!         let primary = state.2.as_ref().ok_or("not the primary")?;
//!         primary.room_blocking(1)?;
//!         let end = primary.append(b"+")?;    // from here on it only goes forward
//!         primary.commit_blocking(end)?;      // survives a crash
//!         (state.0, state.1) = (state.0 + 1, end);
//!         Ok(state.0)
//!     }
//! }
//!
//! impl Engine for Counter {
//!     fn applied(&self) -> Result<Lsn, EngineError> { Ok(self.0.lock().unwrap().1) }
//!     fn apply(&self, records: &[Record]) -> Result<(), EngineError> {
//!         let mut state = self.0.lock().unwrap();
//!         for record in records {
//!             (state.0, state.1) = (state.0 + 1, record.end);
//!         }
//!         Ok(())
//!     }
//!     // It has no files, so nothing is ever durable in them, and the whole log is kept.
//!     fn checkpoint(&self) -> Result<Lsn, EngineError> { Ok(Lsn::NONE) }
//!     fn promote(&self, primary: Primary) -> Result<(), EngineError> {
//!         self.0.lock().unwrap().2 = Some(primary);
//!         Ok(())
//!     }
//!     fn demote(&self) { self.0.lock().unwrap().2 = None; }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! # let directory = tempfile::tempdir()?;
//! let config = NodeConfig::new(directory.path());
//! let node = Node::open(config.clone(), |_files| Ok(Counter::default())).await?;
//! assert_eq!(node.engine().increment()?, 1);
//! drop(node); // as a crash would
//!
//! let node = Node::open(config, |_files| Ok(Counter::default())).await?;
//! assert_eq!(node.engine().increment()?, 2);
//! node.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/toy_engine.rs` is the same with a checkpoint file.
//!
//! **The floors**, lower ones first; none knows one above it:
//!
//! | floor | rooms |
//! |---|---|
//! | words | [`lsn`], [`ident`], [`config`] |
//! | 1 | [`disk`]: files; [`storage`]: the data directory and RocksDB; [`net`]: connections to peers |
//! | 2 | [`wal`]: the write-ahead log; [`raftstore`]: Raft groups |
//! | 3 | [`meta`]: facts about the cluster, in Raft group 0 |
//! | 4 | [`cluster`]: a node as a member: forming, joining, leaving |
//! | wiring | [`engine`]: what a database implements; [`node`]: opens the floors in order |
//! | 6 | [`server`]: the PostgreSQL protocol and its catalogs (feature `pg`), health and metrics over HTTP (feature `http`), both on by default |

mod boot_clock;
mod checkpoint;
pub mod cluster;
pub mod config;
pub mod disk;
pub mod engine;
#[cfg(test)]
mod fuzz_test;
pub mod ident;
pub mod lsn;
pub mod meta;
pub mod net;
pub mod node;
mod primary;
pub mod raftstore;
pub mod server;
pub mod storage;
pub mod wal;

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
