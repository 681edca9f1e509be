//! Mainstay.

pub mod config;
pub mod disk;
pub mod engine;
pub mod ident;
pub mod lsn;
pub mod node;
pub mod server;
pub mod wal;
