//! Calling a peer: the connection, and what the one who answers has to prove. Both kinds of calls begin with it.

use tonic::transport::Channel;

use super::grpc::Shared;
use super::metrics;
use super::wire::raft_client::RaftClient;
use super::wire::{FRAME_LIMIT_BYTES, Hello};
use crate::ident::NodeId;
use crate::net::connection::{Connection, Holder};
use crate::net::identity::{Certified, Refusal};
use crate::net::{Address, NetError};

/// Why a peer is not reached, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("{0}")]
    Refusal(#[from] Refusal),
    #[error("HTTP/2: {0}")]
    Http(#[from] tonic::transport::Error),
    #[error("it answered: {}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("it did not answer in time")]
    Silent,
    #[error("it ended the stream")]
    Ended,
    #[error("it spoke out of turn")]
    OutOfTurn,
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Failure {
        Failure::Status(Box::new(status))
    }
}

/// A connection of one's own to a peer that has yet to prove who it is. It is cut when this is dropped.
pub(super) struct Line {
    _holder: Holder,
    certified: Certified,
    pub(super) client: RaftClient<Channel>,
}

impl Line {
    pub(super) async fn open(shared: &Shared, address: &Address) -> Result<Line, Failure> {
        let config = &shared.config;
        let holder = Holder::new();
        let connection = Connection::open(address, config, shared.tls.as_deref(), &holder).await?;
        let certified = connection.info().certified.clone();
        let channel = connection.into_channel(config).await?;
        let client = RaftClient::new(channel).max_encoding_message_size(FRAME_LIMIT_BYTES);
        Ok(Line { _holder: holder, certified, client })
    }

    /// Whether the one who answered is the node that was called, in a life that is not over.
    pub(super) fn recognise(&self, shared: &Shared, called: NodeId, answer: &Hello) -> Result<(), Refusal> {
        answer
            .claim()
            .and_then(|claim| {
                shared.identity.check(&claim, &self.certified, Some(called))?;
                shared.admissions.lock().see(claim.identity)
            })
            .inspect_err(|_| metrics::refused("callee"))
    }
}

/// For jitter. Without randomness, no jitter.
pub(super) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}
