//! Mainstay.

mod checkpoint;
pub mod config;
pub mod disk;
pub mod engine;
pub mod ident;
pub mod lsn;
pub mod node;
mod primary;
pub mod server;
pub mod storage;
pub mod wal;
