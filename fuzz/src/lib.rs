//! The library's rooms that read bytes which nobody vouches for, compiled a second time: with the compiler's coverage
//! counters, and without RocksDB, which they do not know. What the fuzzer runs stands beside the code, in files named
//! `fuzz.rs`; each file in `targets/` calls one of its functions.

#![allow(dead_code, reason = "compiled a second time, for a part of it")]

#[path = "../../src/config.rs"]
pub mod config;
#[path = "../../src/disk/mod.rs"]
pub mod disk;
#[path = "../../src/ident.rs"]
pub mod ident;
#[path = "../../src/lsn.rs"]
pub mod lsn;
#[path = "../../src/server/pg/mod.rs"]
pub mod pg;
#[path = "../../src/wal/mod.rs"]
pub mod wal;
