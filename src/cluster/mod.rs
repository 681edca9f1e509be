//! What makes nodes a cluster, and how other processes speak to one.

pub mod rpc;
