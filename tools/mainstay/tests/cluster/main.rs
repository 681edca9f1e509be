//! Clusters of real processes: the binary, its command line, and kills.

#![cfg(test)]

#[path = "../support/mod.rs"]
mod support;

mod nodes;

mod checking;
mod forming;
mod joining;
mod leaving;
mod operating;
mod tls;
