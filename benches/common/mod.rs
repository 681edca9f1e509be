//! What several families need.

use std::net::TcpListener;

pub mod closed_loop;
pub mod etcd;

/// Addresses on loopback that nobody listens at.
///
/// # Errors
/// There are none.
pub fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    let listeners: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    listeners?.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}
