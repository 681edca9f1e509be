//! The real program on real directories. Each run is also checked to change no file, name or modification time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop anywhere")]

mod damaged;
mod goes_on;
mod groups;
mod meta;
mod others;
mod raft;
mod recover;
mod refused;
mod repair;
mod support;
mod whole;
