//! What callers of the raftstore hear.

use std::sync::Arc;

use crate::ident::{GroupId, NodeId, ReplicaId};
use crate::raftstore::consistency::{CheckRefusal, GivenUp};
use crate::raftstore::group::{ChangeRefusal, GroupError};
use crate::raftstore::log_store::StoreError;
use crate::raftstore::state_machine::ApplyError;

/// Why a group cannot be made, opened or destroyed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// *This node must stop*: the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored or configured makes no sense.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The state machine does not start.
    #[error("the state machine does not start: {0}")]
    Machine(#[from] ApplyError),
    /// *Your mistake*: there is no such group in the store.
    #[error("group {0} was never made here")]
    NoSuchGroup(GroupId),
    /// *Your mistake*: it is open already.
    #[error("group {0} is open already")]
    AlreadyOpen(GroupId),
    /// *Your mistake*: settings that make no sense, all at once.
    #[error("the settings make no sense: {0}")]
    Config(String),
    /// The operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The raftstore has stopped.
    #[error(transparent)]
    Stopped(#[from] StoreStopped),
}

/// What became of a proposal that has no response.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// *Retry elsewhere*: it had no effect and will have none.
    #[error("this node does not lead the group{}", hint(*.leader))]
    NotLeader {
        /// The node that leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// *Retry here*, later: a bound is reached. It had no effect.
    #[error("too much is in flight")]
    Busy,
    /// *Your mistake*: larger than a command may be. It had no effect.
    #[error("the command is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What is allowed.
        limit_bytes: usize,
    },
    /// *Your mistake*: an empty command says nothing.
    #[error("the command is empty")]
    Empty,
    /// Only of a change of the membership: it was refused.
    #[error(transparent)]
    Change(ChangeRefusal),
    /// It took effect when it was proposed before; its response is no longer known.
    #[error("the command was applied before; its response is no longer known")]
    AppliedBefore,
    /// *Your mistake*: a later command of the same client was applied before this one. It has no effect now; whether it
    /// had one when it was proposed before, nobody knows.
    #[error("a later command of the same client was applied already")]
    Superseded,
    /// *Your mistake*: the group's state machine keeps its own position, and cannot tell a repeated command from a new
    /// one.
    #[error("this group's commands cannot be repeated")]
    NotRepeatable,
    /// It may or may not take effect: nobody will say. Retrying may apply it twice.
    #[error("it is not known whether the command took effect: {why}")]
    Unknown {
        /// What happened.
        why: &'static str,
    },
    /// *This node must stop*: it was not proposed.
    #[error(transparent)]
    Stopped(#[from] StoreStopped),
}

/// What became of a change of the membership that was not carried through.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// *Retry elsewhere*: it had no effect and will have none.
    #[error("this node does not lead the group{}", hint(*.leader))]
    NotLeader {
        /// The node that leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// It was refused, and why. It had no effect.
    #[error("the membership cannot be changed: {0}")]
    Refused(ChangeRefusal),
    /// *Retry here*, later: a bound is reached. It had no effect.
    #[error("too much is in flight")]
    Busy,
    /// It may or may not take effect. The membership shows what became of it.
    #[error("it is not known whether the membership changed: {why}")]
    Unknown {
        /// What happened.
        why: &'static str,
    },
    /// *This node must stop*: it was not proposed, or the group stopped before it was finished.
    #[error(transparent)]
    Stopped(#[from] StoreStopped),
}

impl From<ProposeError> for ChangeError {
    fn from(error: ProposeError) -> ChangeError {
        match error {
            ProposeError::NotLeader { leader } => ChangeError::NotLeader { leader },
            ProposeError::Change(refusal) => ChangeError::Refused(refusal),
            ProposeError::Unknown { why } => ChangeError::Unknown { why },
            ProposeError::Stopped(stopped) => ChangeError::Stopped(stopped),
            _ => ChangeError::Busy,
        }
    }
}

/// Why a read cannot be answered. Reads have no effects: each may be retried.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// *Retry here*: nobody answered in time; there may be no leader, or no majority.
    #[error("no leader with a majority answered in time")]
    Expired,
    /// *Retry elsewhere*: what the replica here holds is wrong.
    #[error("the state of the replica here is wrong")]
    Unhealthy,
    /// *Retry here*, later: a bound is reached.
    #[error("too much is in flight")]
    Busy,
    /// *This node must stop*.
    #[error(transparent)]
    Stopped(#[from] StoreStopped),
}

/// The raftstore, or this group of it, has stopped on this node.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreStopped(pub Arc<GroupFailure>);

/// Why a raftstore or a group stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupFailure {
    /// It was asked to.
    #[error("the raftstore was shut down")]
    ShutDown,
    /// Its store failed: what it holds is not known.
    #[error("the raftstore stopped: {0}")]
    Store(StoreError),
    /// A committed command could not be applied.
    #[error("group {group} stopped: a command could not be applied: {source}")]
    Apply {
        /// The group.
        group: GroupId,
        /// The cause.
        source: ApplyError,
    },
    /// What is stored of it cannot be read, and cannot be got from elsewhere: its log, its records, or the state of a group
    /// without another replica. Destroyed and added under a new number, it begins with the state of the others.
    #[error("group {group} stopped: {source}")]
    Damaged {
        /// The group.
        group: GroupId,
        /// The damage.
        source: StoreError,
    },
    /// The replica cannot go on.
    #[error("group {group} stopped: {source}")]
    Group {
        /// The group.
        group: GroupId,
        /// The cause.
        source: GroupError,
    },
    /// It was destroyed on this node.
    #[error("group {0} was destroyed on this node")]
    Destroyed(GroupId),
    /// The replica takes no part in the group any more. It may be destroyed.
    #[error("the replica of group {0} on this node was removed from the group")]
    Removed(GroupId),
    /// A bug: a thread of the raftstore panicked.
    #[error("the raftstore stopped: its {0} thread panicked")]
    Panicked(&'static str),
}

/// Why a consistency check has shown nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// *Retry elsewhere*: it was not begun.
    #[error("this node does not lead the group{}", hint(*.leader))]
    NotLeader {
        /// The node that leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// *Retry here*, later: a bound is reached, or leadership is being handed over. It was not begun.
    #[error("too much is in flight, or leadership is being handed over")]
    Busy,
    /// It was not begun, and why.
    #[error("the replicas cannot be compared: {0}")]
    Refused(CheckRefusal),
    /// *Retry here*, later: too few said what they hold.
    #[error(transparent)]
    GivenUp(GivenUp),
    /// It goes on; nobody waits for it any more.
    #[error("the check was not finished in time, and goes on")]
    Expired,
    /// *This node must stop*.
    #[error(transparent)]
    Stopped(#[from] StoreStopped),
}

fn hint(leader: Option<NodeId>) -> String {
    leader.map_or(String::new(), |leader| format!("; node {leader} does"))
}

/// Why leadership is not handed over.
#[derive(Clone, Debug, thiserror::Error)]
#[error("leadership is not handed to replica {to}: {why}")]
pub struct TransferError {
    /// To whom.
    pub to: ReplicaId,
    /// Why not.
    pub why: crate::raftstore::group::Refusal,
}
