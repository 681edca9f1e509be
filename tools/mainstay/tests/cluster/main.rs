//! Clusters of real processes: the binary, its command line, and kills.

#![cfg(test)]

#[path = "../../../../tests/raft_kv/register.rs"]
mod register;
#[path = "../support/mod.rs"]
mod support;

mod nodes;
mod registers;
mod watched;

mod checking;
mod forming;
mod joining;
mod kills;
mod leaving;
mod moving;
mod operating;
mod refused;
mod tls;
mod voting;
