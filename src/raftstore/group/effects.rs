//! What a replica asks of its driver.

use std::ops::Range;

use raft::StateRole;

use super::membership::ChangeRefusal;
use crate::ident::{LogIndex, ReplicaId, Term};
use crate::raftstore::consistency::{CheckMessage, GivenUp, Verdict};
use crate::raftstore::entry::{Entry, HardState, Membership, Position, Unhealthy};
use crate::raftstore::message::Message;
use crate::raftstore::snapshot::{Restore, SnapshotId};

/// A request by its driver's number: a proposal or a read. Never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The number of a [`Persist`]. They rise by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// All that a replica wants done. The order of fields is the order in which a driver may begin them; what has to wait
/// for something else is not handed out before that was reported as done.
#[derive(Debug, Default)]
pub struct Effects {
    /// Send these. Any of them may be lost.
    pub send: Vec<Message>,
    /// Write these, in order; then call [`super::Group::persisted`].
    pub persist: Vec<Persist>,
    /// The tables were replaced by those of a snapshot, as of this entry: before anything else is applied, read again what
    /// is kept in memory of them; then call [`super::Group::applied`].
    pub restored: Option<LogIndex>,
    /// Apply these, in order; then call [`super::Group::applied`].
    pub apply: Vec<Committed>,
    /// Read these from the log; then call [`super::Group::log_read`].
    pub read_log: Vec<LogRead>,
    /// Capture the state under this name, if nothing newer is captured; then call [`super::Group::captured`].
    pub capture: Option<SnapshotId>,
    /// Nobody needs what was captured any more, once those who are sent it have it.
    pub release: bool,
    /// Send these to the replicas, as it is done with messages.
    pub checks: Vec<(ReplicaId, CheckMessage)>,
    /// What became of a consistency check: tell it to who waits for one.
    pub checked: Option<Result<Verdict, GivenUp>>,
    /// Tell these to who asked.
    pub answers: Vec<Answer>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty()
            && self.persist.is_empty()
            && self.restored.is_none()
            && self.apply.is_empty()
            && self.read_log.is_empty()
            && self.capture.is_none()
            && !self.release
            && self.checks.is_empty()
            && self.checked.is_none()
            && self.answers.is_empty()
    }
}

/// One write to the log. Writes of a group are made in the order of their numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Persist {
    /// Its number.
    pub id: PersistId,
    /// Take over this snapshot first. Everything that was handed out for applying before is applied by then.
    pub restore: Option<Restore>,
    /// Term, vote and commit, if they changed.
    pub hard_state: Option<HardState>,
    /// Replace everything from the first one's index on.
    pub entries: Vec<Entry>,
    /// Compact up to here.
    pub truncate: Option<Position>,
    /// Whether `persisted` may only be called once this is durable. Without it, once it is written.
    pub must_sync: bool,
    /// Whether the term or the vote changed.
    pub votes: bool,
}

/// A committed entry, to be applied.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The entry. A conf change, or one without data, is not for the state machine but counts as applied.
    pub entry: Entry,
    /// Who waits for the response: the proposal made here as this entry.
    pub request: Option<RequestId>,
    /// The log may be compacted up to here once this entry is applied; see [`super::Group::applied`].
    pub compact_to: Option<LogIndex>,
    /// The membership from this entry on, if it changes it: to be written with the applied index.
    pub membership: Option<Membership>,
    /// Capture the state when this entry and nothing behind it is applied, hash it, and call [`super::Group::hashed`].
    pub hash: bool,
    /// The state is wrong: to be noted before the effects of this entry are written.
    pub unhealthy: Option<Unhealthy>,
}

/// A part of the log that is not in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// Which entries.
    pub range: Range<LogIndex>,
    /// How many bytes at most, but at least one entry.
    pub limit_bytes: usize,
}

/// What became of a request. Every request gets exactly one, a proposal also by being applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read: the state machine here shows everything acknowledged before it was asked.
    Readable(RequestId, LogIndex),
    /// It had no effect and will have none.
    Refused(RequestId, Refusal),
    /// It may or may not take effect: nobody will say.
    Unknown(RequestId),
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// *Retry elsewhere*: another replica leads, or none does.
    #[error("this replica does not lead the group{}", hint(*.leader))]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// *Retry here*: a bound is reached.
    #[error("too much is in flight")]
    Busy,
    /// *Retry here*: leadership is being handed over.
    #[error("leadership is being handed over")]
    Transferring,
    /// *Retry elsewhere*: what this replica holds is wrong, or the one that leadership is to go to.
    #[error("the state of the replica is wrong")]
    Unhealthy,
    /// *Retry here*: nobody could answer in time.
    #[error("the read could not be answered in time")]
    Expired,
    /// *Your mistake*: larger than an entry may be.
    #[error("the command is larger than an entry may be")]
    TooLarge,
    /// The membership cannot be changed like that, or not now.
    #[error(transparent)]
    Change(#[from] ChangeRefusal),
    /// *Your mistake*: there is no such voter.
    #[error("no such voter")]
    NoSuchVoter,
    /// *Retry here*: the target is too far behind.
    #[error("the target is {lag} entries behind")]
    TooFarBehind {
        /// How far.
        lag: u64,
    },
}

fn hint(leader: Option<ReplicaId>) -> String {
    leader.map_or(String::new(), |leader| format!("; replica {leader} does"))
}

/// The part a replica plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows, or waits for a leader.
    #[default]
    Follower,
    /// It asks whether it would be elected, without disturbing anyone.
    PreCandidate,
    /// It stands for election.
    Candidate,
}

impl From<StateRole> for Role {
    fn from(role: StateRole) -> Role {
        match role {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
        }
    }
}

/// How far a replica is: cheap to ask for after every input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Its part.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<ReplicaId>,
    /// Everything up to here is applied here.
    pub applied: LogIndex,
    /// Everything up to here is known to be committed.
    pub committed: LogIndex,
    /// Everything up to here is durable here.
    pub persisted: LogIndex,
    /// The last entry.
    pub last: LogIndex,
    /// The first entry still in the log.
    pub first: LogIndex,
    /// Bytes of entries in memory.
    pub cache_bytes: usize,
}

/// How a replica stands, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The replica.
    pub replica: ReplicaId,
    /// How far it is.
    pub positions: Positions,
    /// Who takes part.
    pub membership: Membership,
    /// Of a leader: how far each other replica is.
    pub followers: Vec<Follower>,
    /// Nobody uses the group, and it hibernates.
    pub is_asleep: bool,
    /// The state of this replica is wrong: it does not lead, and waits for a snapshot.
    pub unhealthy: Option<Unhealthy>,
    /// What the last consistency check showed since the replica was opened.
    pub last_check: Option<Verdict>,
}

/// How a follower is sent to (raft-rs calls it the state of its progress).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It is asked, append by append, where its log agrees.
    Probe,
    /// Appends are on their way without waiting for the last one's answer.
    Replicate,
    /// It is too far behind for the log, and taking a snapshot.
    Snapshot,
}

/// How far a follower is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// The replica.
    pub replica: ReplicaId,
    /// Its log is known to agree with the leader's up to here.
    pub matched: LogIndex,
    /// The next entry to send.
    pub next: LogIndex,
    /// How it is sent to.
    pub sending: Sending,
    /// Whether it was heard of since the last check of the quorum.
    pub recently_active: bool,
    /// Ticks since it was last heard of, by this leader in this term; `None` if it was not.
    pub silent_ticks: Option<u64>,
}
