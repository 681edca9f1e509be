//! A group as its users on this node hold it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::error::{GroupFailure, ProposeError, ReadError, StoreStopped, TransferError};
use super::mailbox::{Input, Mailbox, Share, Unaccepted, Unanswered};
use crate::ident::{GroupId, LogIndex, NodeId, ReplicaId};
use crate::raftstore::context::Attempt;
use crate::raftstore::group::GroupStatus;

/// How a group stands on this node.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// The replica here. At most a tick old; role, term and leader are never.
    pub status: GroupStatus,
    /// Why the group has stopped here, if it has.
    pub failure: Option<Arc<GroupFailure>>,
}

impl GroupView {
    /// The node that leads, as far as is known.
    pub fn leader_node(&self) -> Option<NodeId> {
        self.status.positions.leader.and_then(|leader| self.status.membership.node_of(leader))
    }
}

/// A group as its users on this node hold it. Cheap to clone. It does not keep the raftstore alive.
#[derive(Clone)]
pub struct GroupHandle {
    pub(super) group: GroupId,
    pub(super) mailbox: Mailbox,
    pub(super) share: Share,
    pub(super) view: watch::Receiver<GroupView>,
    pub(super) max_command_bytes: usize,
    pub(super) is_repeatable: bool,
}

/// Who waits for a proposal. Dropped unanswered it says "unknown".
pub(super) struct ProposalWaiter {
    answer: oneshot::Sender<Result<Bytes, ProposeError>>,
    pub(super) since: Instant,
    unanswered: Unanswered,
}

/// Who waits for a read.
pub(super) struct ReadWaiter {
    answer: oneshot::Sender<Result<LogIndex, ReadError>>,
    pub(super) since: Instant,
    unanswered: Unanswered,
}

impl ProposalWaiter {
    pub(super) fn new(answer: oneshot::Sender<Result<Bytes, ProposeError>>, mailbox: &Mailbox) -> ProposalWaiter {
        ProposalWaiter { answer, since: Instant::now(), unanswered: mailbox.begin_request() }
    }

    /// Whoever waited may have gone.
    pub(super) fn resolve(self, answer: Result<Bytes, ProposeError>) {
        drop(self.unanswered);
        let _ = self.answer.send(answer);
    }
}

impl ReadWaiter {
    pub(super) fn new(answer: oneshot::Sender<Result<LogIndex, ReadError>>, mailbox: &Mailbox) -> ReadWaiter {
        ReadWaiter { answer, since: Instant::now(), unanswered: mailbox.begin_request() }
    }

    /// Whoever waited may have gone.
    pub(super) fn resolve(self, answer: Result<LogIndex, ReadError>) {
        drop(self.unanswered);
        let _ = self.answer.send(answer);
    }
}

/// What a submitted proposal waits on.
type Waiting = oneshot::Receiver<Result<Bytes, ProposeError>>;

async fn answered(submitted: Result<Waiting, ProposeError>) -> Result<Bytes, ProposeError> {
    submitted?.await.unwrap_or(Err(ProposeError::Unknown { why: "the raftstore stopped" }))
}

impl GroupHandle {
    /// Which group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Proposes a command and waits until it is applied here; the response is the state machine's. Only the leader
    /// takes proposals.
    ///
    /// Dropping the future takes nothing back.
    ///
    /// # Errors
    /// See [`ProposeError`]: all but `Unknown`, `AppliedBefore` and `Superseded` mean that the command had no effect.
    pub async fn propose(&self, command: impl Into<Vec<u8>>) -> Result<Bytes, ProposeError> {
        answered(self.submit(command.into(), None)).await
    }

    /// The same for a command that takes effect once, however often it is proposed and wherever: after `Unknown` or
    /// `NotLeader` it can be proposed again under the same name, and a repeated one gets the first one's response.
    ///
    /// A client proposes one at a time, with rising sequences. The last command of each of 10 000 clients is remembered;
    /// one that has been silent while so many others came is a new client.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_once(&self, attempt: Attempt, command: impl Into<Vec<u8>>) -> Result<Bytes, ProposeError> {
        answered(self.submit(command.into(), Some(attempt))).await
    }

    /// Proposes several commands at once, in this order, and waits for all: what carries many commands per request of a
    /// client is bounded by the log, not by the tasks that wait. Each is answered by itself, in the same order; that one
    /// was refused says nothing of the next. A command with an attempt takes effect once, as in
    /// [`propose_once`](GroupHandle::propose_once).
    ///
    /// Dropping the future takes nothing back.
    pub async fn propose_many(
        &self,
        commands: impl IntoIterator<Item = (Vec<u8>, Option<Attempt>)>,
    ) -> Vec<Result<Bytes, ProposeError>> {
        let submitted: Vec<_> = commands.into_iter().map(|(command, attempt)| self.submit(command, attempt)).collect();
        let mut answers = Vec::with_capacity(submitted.len());
        for waiting in submitted {
            answers.push(answered(waiting).await);
        }
        answers
    }

    /// Hands a command to the driver, without waiting.
    fn submit(&self, command: Vec<u8>, attempt: Option<Attempt>) -> Result<Waiting, ProposeError> {
        if attempt.is_some() && !self.is_repeatable {
            return Err(ProposeError::NotRepeatable);
        }
        if command.is_empty() {
            return Err(ProposeError::Empty);
        }
        if command.len() > self.max_command_bytes {
            return Err(ProposeError::TooLarge { limit_bytes: self.max_command_bytes });
        }
        let (answer, waiting) = oneshot::channel();
        let waiter = ProposalWaiter::new(answer, &self.mailbox);
        match self.mailbox.request(&self.share, Input::Propose { group: self.group, command, attempt, waiter }) {
            Ok(()) => Ok(waiting),
            Err(Unaccepted::Full) => Err(ProposeError::Busy),
            Err(Unaccepted::Stopped) => Err(self.stopped().into()),
        }
    }

    /// Waits until the state machine here shows everything that was acknowledged, on any node, before this was called
    /// (ReadIndex). What is then read here is linearizable. Works on every replica that can reach the leader. Says up
    /// to which entry it was waited.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self) -> Result<LogIndex, ReadError> {
        let (answer, answered) = oneshot::channel();
        let waiter = ReadWaiter::new(answer, &self.mailbox);
        match self.mailbox.request(&self.share, Input::Read { group: self.group, waiter }) {
            Ok(()) => {}
            Err(Unaccepted::Full) => return Err(ReadError::Busy),
            Err(Unaccepted::Stopped) => return Err(self.stopped().into()),
        }
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(self.stopped().into()),
        }
    }

    /// How the group stands here; changes can be waited for.
    pub fn watch(&self) -> watch::Receiver<GroupView> {
        self.view.clone()
    }

    /// How the group stands here.
    pub fn view(&self) -> GroupView {
        self.view.borrow().clone()
    }

    /// Begins to hand leadership to another voter. The view says when it has happened.
    ///
    /// # Errors
    /// Nothing was begun.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), TransferError> {
        use crate::raftstore::group::Refusal;
        let (answer, answered) = oneshot::channel();
        self.mailbox.tell(Input::Transfer { group: self.group, to, answer });
        let refused = answered.await.unwrap_or(Err(Refusal::NotLeader { leader: None }));
        refused.map_err(|why| TransferError { to, why })
    }

    pub(super) fn stopped(&self) -> StoreStopped {
        let failure = self.view.borrow().failure.clone();
        StoreStopped(failure.unwrap_or_else(|| Arc::new(GroupFailure::ShutDown)))
    }
}
