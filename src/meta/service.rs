//! A metadata group as traits. [`Metadata`] is one with its tables at hand: [`super::raft`] has the real one,
//! [`super::memory`] one in memory. [`Backend`] is what the typed client stands on: any of these, or one that other nodes
//! have. [`super::conformance`] is what all of them have to pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::apply::Reached;
use super::command::Unknown;
use super::proto::{Answer, Command, Done, Event, KeyRange, Refusal, Refused, answer};
use super::query::{self, proto::Found, proto::Query};
use super::view::View;
use super::watch::{EventWatch, KvUpdate, KvWatch, WatchError};
use crate::ident::NodeId;
use crate::net::NetError;
use crate::raftstore::context::Attempt;
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

    /// Has a command applied that somebody else named. Under the same name it takes effect once, whichever node is asked,
    /// and however often.
    ///
    /// # Errors
    /// See [`MetaError`].
    async fn execute_named(&self, attempt: Attempt, command: Command, deadline: Instant) -> Result<Done, MetaError>;

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

/// What the typed client stands on: a metadata group, wherever its tables are.
#[tonic::async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Has a command applied, once, however often it takes to propose it.
    ///
    /// # Errors
    /// See [`MetaError`].
    async fn execute(&self, command: Command, deadline: Instant) -> Result<Done, MetaError>;

    /// What the tables say: if `is_local`, those of the node that is asked, however old.
    ///
    /// # Errors
    /// See [`MetaError`].
    async fn ask(&self, query: Query, is_local: bool, deadline: Instant) -> Result<Found, MetaError>;

    /// Watches keys from a revision on; from 0, from now on.
    fn watch(&self, range: KeyRange, from: u64, notice_every: Duration) -> Box<dyn KvUpdates>;

    /// Follows the event log from a number on; from 0, from now on.
    fn follow(&self, from: u64) -> Box<dyn EventUpdates>;
}

/// A watch of keys: a position in their history.
#[tonic::async_trait]
pub trait KvUpdates: Send {
    /// Where it goes on: the first revision that was not given. A new watch from here misses nothing. 0: that is not known
    /// yet, of a watch from now on of another node.
    fn position(&self) -> u64;

    /// What comes next. Waits for it; dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`].
    async fn next(&mut self) -> Result<KvUpdate, WatchError>;
}

/// A position in the event log.
#[tonic::async_trait]
pub trait EventUpdates: Send {
    /// The event that comes next. Waits for it; dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`].
    async fn next(&mut self) -> Result<Event, WatchError>;
}

/// A metadata group whose tables are here.
pub struct Here(pub Arc<dyn Metadata>);

#[tonic::async_trait]
impl Backend for Here {
    async fn execute(&self, command: Command, deadline: Instant) -> Result<Done, MetaError> {
        self.0.execute(command, deadline).await
    }

    async fn ask(&self, query: Query, is_local: bool, deadline: Instant) -> Result<Found, MetaError> {
        if !is_local {
            self.0.barrier(deadline).await?;
        }
        query::answer(&*self.0.view(), query)
    }

    fn watch(&self, range: KeyRange, from: u64, notice_every: Duration) -> Box<dyn KvUpdates> {
        Box::new(KvWatch::new(self.0.view(), self.0.progress(), range, from, notice_every))
    }

    fn follow(&self, from: u64) -> Box<dyn EventUpdates> {
        Box::new(EventWatch::new(self.0.view(), self.0.progress(), from))
    }
}

#[tonic::async_trait]
impl KvUpdates for KvWatch {
    fn position(&self) -> u64 {
        self.position()
    }

    async fn next(&mut self) -> Result<KvUpdate, WatchError> {
        self.next().await
    }
}

#[tonic::async_trait]
impl EventUpdates for EventWatch {
    async fn next(&mut self) -> Result<Event, WatchError> {
        self.next().await
    }
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
    /// *Your mistake*: what other nodes are asked over cannot be used, such as a certificate.
    #[error(transparent)]
    Net(Arc<NetError>),
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
