//! What clients ask of servers.

use std::time::Duration;

use crate::common::closed_loop::{self, Seen};
use crate::servers::{Client, Servers};

/// Connections that the clients share.
const CONNECTIONS: usize = 16;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Set keys to 256 bytes, a request each.
    Put,
    /// The same, through a client library that gathers what its callers put.
    PutGathered,
    /// Read keys, linearizably.
    Get,
}

/// Lets clients work on the leader for a while.
///
/// # Errors
/// Nobody leads, or a request fails.
pub async fn run(servers: &Servers, work: Work, clients: u64, duration: Duration) -> anyhow::Result<Seen> {
    let leader = servers.leader().await?;
    let connections: Vec<Client> = match work {
        Work::PutGathered => vec![servers.batching_client(leader)?],
        _ => (0..CONNECTIONS.min(clients as usize)).map(|_| servers.client(leader)).collect::<Result<_, _>>()?,
    };
    closed_loop::run(&connections, clients, duration, move |mut client, key, byte| async move {
        match work {
            Work::Put | Work::PutGathered => client.put(key, vec![byte; 256]).await,
            Work::Get => client.get(key).await,
        }
    })
    .await
}
