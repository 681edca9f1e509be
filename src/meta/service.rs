//! What the typed client asks of a metadata group, as a trait: [`super::raft`] has the real one, [`super::memory`] one in
//! memory, and [`super::conformance`] is what any other has to pass.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::apply::Reached;
use super::command::Unknown;
use super::proto::{Answer, Command, Done, Refusal, Refused, answer};
use super::view::View;
use super::watch::WatchError;
use crate::ident::NodeId;
use crate::raftstore::log_store::StoreError;
use crate::raftstore::store::StoreStopped;

/// A metadata group, as its users on a node have it.
#[tonic::async_trait]
pub trait Metadata: Send + Sync + 'static {
    /// Has a command applied, once, however often it takes to propose it.
    ///
    /// # Errors
    /// See [`MetaError`].
    async fn execute(&self, command: Command, deadline: Instant) -> Result<Done, MetaError>;

    /// Waits until the tables here show everything that was acknowledged, on any node, before this was called.
    ///
    /// # Errors
    /// See [`MetaError`].
    async fn barrier(&self, deadline: Instant) -> Result<(), MetaError>;

    /// The tables here, however old.
    fn view(&self) -> Arc<dyn View>;

    /// How far the tables here are. It changes after they do.
    fn progress(&self) -> watch::Receiver<Reached>;
}

/// What became of a request to the metadata group.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// *Your mistake*, or somebody else was first: the command was understood and had no effect.
    #[error("{}", .0.message)]
    Refused(Refused),
    /// *Your mistake*: larger than a command may be.
    #[error("the command is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What is allowed.
        limit_bytes: usize,
    },
    /// *Retry here*, later: until the deadline nobody led with a majority, or could be asked. It had no effect.
    #[error("the metadata group could not be asked in time: {why}")]
    Unavailable {
        /// Who leads, as far as was known in the end.
        leader: Option<NodeId>,
        /// What the last attempt heard.
        why: String,
    },
    /// It may or may not have taken effect, or may yet: the deadline passed while it was under way.
    #[error("it is not known whether the command took effect: {why}")]
    Unknown {
        /// What the last attempt heard.
        why: String,
    },
    /// It took effect; its answer was too large to be kept for a second attempt.
    #[error("the command took effect; its answer is lost")]
    AnswerLost,
    /// *Your mistake*, or start again: see [`WatchError`].
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// *This node must stop*: what it holds cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// *Retry elsewhere*: the group has stopped on this node.
    #[error(transparent)]
    Stopped(#[from] StoreStopped),
    /// *Upgrade this node*: the answer comes from a newer version.
    #[error("the answer cannot be understood: {0}")]
    Newer(#[from] Unknown),
}

impl MetaError {
    /// Why it was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            MetaError::Refused(refused) => Some(refused.why()),
            _ => None,
        }
    }
}

/// What an answer says.
pub(super) fn outcome(answer: Answer) -> Result<Done, MetaError> {
    match answer.outcome {
        Some(answer::Outcome::Done(done)) => Ok(done),
        Some(answer::Outcome::Refused(refused)) => Err(MetaError::Refused(refused)),
        None => Err(MetaError::Newer(Unknown::Unknown)),
    }
}
