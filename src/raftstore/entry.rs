//! What a log is made of, and what is kept beside it.

use std::collections::BTreeMap;
use std::fmt;

use raft::eraftpb;

use crate::ident::{LogIndex, NodeId, ReplicaId, Term};

/// An index and the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The index.
    pub index: LogIndex,
    /// The term of the entry there.
    pub term: Term,
}

impl Position {
    /// The entry of `term` at `index`.
    pub const fn new(index: u64, term: u64) -> Position {
        Position { index: LogIndex::new(index), term: Term::new(term) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of term {}", self.index, self.term)
    }
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A command of the state machine; a new leader's first entry is an empty one that no machine sees.
    Command,
    /// A change of the membership.
    ConfChange,
}

/// One entry of a log.
#[derive(Clone, PartialEq)]
pub struct Entry(pub(super) eraftpb::Entry);

impl Entry {
    /// An entry with a command.
    pub fn command(position: Position, data: Vec<u8>, context: Vec<u8>) -> Entry {
        Entry::new(EntryKind::Command, position, data, context)
    }

    /// An entry of any kind.
    pub fn new(kind: EntryKind, position: Position, data: Vec<u8>, context: Vec<u8>) -> Entry {
        let entry_type = match kind {
            EntryKind::Command => eraftpb::EntryType::EntryNormal,
            EntryKind::ConfChange => eraftpb::EntryType::EntryConfChangeV2,
        };
        Entry(eraftpb::Entry {
            entry_type: entry_type as i32,
            term: position.term.get(),
            index: position.index.get(),
            data,
            context,
            sync_log: false,
        })
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        Position::new(self.0.index, self.0.term)
    }

    /// Its index.
    pub fn index(&self) -> LogIndex {
        LogIndex::new(self.0.index)
    }

    /// Its term.
    pub fn term(&self) -> Term {
        Term::new(self.0.term)
    }

    /// What it is for.
    pub fn kind(&self) -> EntryKind {
        match self.0.entry_type {
            0 => EntryKind::Command,
            _ => EntryKind::ConfChange,
        }
    }

    /// Whether it is of a kind that [`Entry::new`] makes: raft-rs knows an older form of conf changes, too.
    pub(super) fn is_known(&self) -> bool {
        Entry::new(self.kind(), self.position(), Vec::new(), Vec::new()).0.entry_type == self.0.entry_type
    }

    /// The command, opaque to Raft.
    pub fn data(&self) -> &[u8] {
        &self.0.data
    }

    /// What the raftstore noted beside the command.
    pub fn context(&self) -> &[u8] {
        &self.0.context
    }

    /// How many bytes it counts for in every bound.
    pub fn size_bytes(&self) -> usize {
        self.0.data.len() + self.0.context.len() + ENTRY_OVERHEAD_BYTES
    }
}

/// What an entry takes beyond its data.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 64;

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The data are a user's, and have no place in a log line.
        write!(f, "{:?} at {} ({} bytes)", self.kind(), self.position(), self.0.data.len())
    }
}

/// What a replica must not forget: Raft's persistent state beside the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<ReplicaId>,
    /// Up to where it knows the log to be committed. A lower bound: it may be behind after a crash.
    pub commit: LogIndex,
}

impl From<&eraftpb::HardState> for HardState {
    fn from(state: &eraftpb::HardState) -> HardState {
        let vote = (state.vote != 0).then(|| ReplicaId::new(state.vote));
        HardState { term: Term::new(state.term), vote, commit: LogIndex::new(state.commit) }
    }
}

impl From<&HardState> for eraftpb::HardState {
    fn from(state: &HardState) -> eraftpb::HardState {
        let vote = state.vote.map_or(0, ReplicaId::get);
        eraftpb::HardState { term: state.term.get(), vote, commit: state.commit.get() }
    }
}

/// The state of a replica is not what it should be: kept durably until a snapshot has replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// How that is known.
    pub cause: Cause,
    /// As of which entry; it was applied here.
    pub index: LogIndex,
}

/// How it is known that a replica's state is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It differs from that of a majority.
    Differs,
    /// Something in it cannot be read.
    Damaged,
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Differs => write!(f, "its state as of entry {} differs from that of a majority", self.index),
            Cause::Damaged => write!(f, "its state as of entry {} is damaged", self.index),
        }
    }
}

/// Who takes part in a group, and on which node each lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those whose majority decides.
    pub voters: Vec<ReplicaId>,
    /// Those who only receive.
    pub learners: Vec<ReplicaId>,
    /// In a joint configuration: the voters of the old one, whose majority is needed too.
    pub voters_outgoing: Vec<ReplicaId>,
    /// In a joint configuration: who becomes a learner when the old one is left.
    pub learners_next: Vec<ReplicaId>,
    /// In a joint configuration: whether it is left by itself.
    pub auto_leave: bool,
    /// The node of each replica.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
    /// The highest number that a replica of the group ever had. None up to it is given again.
    pub highest: ReplicaId,
}

impl Membership {
    /// A group of voters, each with its node.
    pub fn of_voters(voters: impl IntoIterator<Item = (ReplicaId, NodeId)>) -> Membership {
        let nodes: BTreeMap<_, _> = voters.into_iter().collect();
        let highest = nodes.last_key_value().map(|(replica, _)| *replica).unwrap_or_default();
        Membership { voters: nodes.keys().copied().collect(), nodes, highest, ..Membership::default() }
    }

    /// The same with a learner.
    #[must_use]
    pub fn with_learner(mut self, replica: ReplicaId, node: NodeId) -> Membership {
        self.learners.push(replica);
        self.nodes.insert(replica, node);
        self.highest = self.highest.max(replica);
        self
    }

    /// Everyone, voter or not.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.nodes.keys().copied()
    }

    /// Whether a replica took part and does not any more. One that is not known yet was not removed.
    pub fn was_removed(&self, replica: ReplicaId) -> bool {
        replica <= self.highest && !self.nodes.contains_key(&replica)
    }

    /// The node of a replica.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.nodes.get(&replica).copied()
    }

    pub(super) fn to_conf_state(&self) -> eraftpb::ConfState {
        let numbers = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.get()).collect();
        eraftpb::ConfState {
            voters: numbers(&self.voters),
            learners: numbers(&self.learners),
            voters_outgoing: numbers(&self.voters_outgoing),
            learners_next: numbers(&self.learners_next),
            auto_leave: self.auto_leave,
        }
    }
}
