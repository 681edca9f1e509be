//! Several members in one process: real directories, real sockets on loopback.

#![cfg(test)]
#![allow(clippy::cloned_ref_to_slice_refs, reason = "one address is a list of one, however it is held")]

mod nodes;

mod forming;
mod joining;
mod leaving;
mod strangers;
