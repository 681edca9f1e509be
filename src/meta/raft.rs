//! The metadata group as a Raft group on this node.
//!
//! **One policy for all retries.** What had no effect is tried again, at the leader if it is known, until the deadline;
//! what may have had one is tried again under the same [name](super::names), and takes effect once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout_at;

use super::METADATA_GROUP;
use super::apply::Reached;
use super::command::{self, MAX_COMMAND_BYTES};
use super::machine::{MachineView, MetaMachine};
use super::names::Names;
use super::proto::{Command, Done};
use super::service::{MetaError, Metadata, outcome};
use super::view::{StoreView, View};
use crate::ident::NodeId;
use crate::net::backoff::Backoff;
use crate::raftstore::context::Attempt;
use crate::raftstore::group::GroupConfig;
use crate::raftstore::log_store::TableStore;
use crate::raftstore::store::{GroupHandle, OpenError, ProposeError, RaftStore, ReadError};

/// Commands under way from one node at a time. Each has a client of the group's sessions to itself, of which there are
/// 10 000 for all nodes together.
const MAX_UNDER_WAY: usize = 512;
/// What is waited before a command that had no effect is tried again.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(10), max: Duration::from_millis(500) };

/// A way to the leader, when it is another node.
#[tonic::async_trait]
pub trait Forward: Send + Sync + 'static {
    /// Proposes a command on that node, as [`GroupHandle::propose_once`] would there.
    ///
    /// # Errors
    /// As there. A node that surely took nothing, because it could not be reached, is one that does not lead; of one that
    /// may have taken it nobody knows: [`ProposeError::Unknown`].
    async fn propose(&self, leader: NodeId, attempt: Attempt, command: Vec<u8>) -> Result<Bytes, ProposeError>;
}

/// See the module.
pub struct RaftMetadata {
    group: GroupHandle,
    view: Arc<StoreView>,
    machine: MachineView,
    forward: Option<Arc<dyn Forward>>,
    under_way: Semaphore,
    names: Names,
}

impl RaftMetadata {
    /// Opens the metadata group, which was made here before. The tables are those of the raftstore's own store. Without a
    /// way to forward, commands wait until this node leads.
    ///
    /// # Errors
    /// See [`RaftStore::open_group`].
    pub fn open(
        raft: &RaftStore,
        store: Arc<dyn TableStore>,
        config: GroupConfig,
        forward: Option<Arc<dyn Forward>>,
    ) -> Result<RaftMetadata, OpenError> {
        let view = StoreView { store, group: METADATA_GROUP };
        let (machine, seen) = MetaMachine::open(view.clone())?;
        let group = raft.open_group(METADATA_GROUP, config, machine)?;
        let (under_way, names) = (Semaphore::new(MAX_UNDER_WAY), Names::default());
        Ok(RaftMetadata { group, view: Arc::new(view), machine: seen, forward, under_way, names })
    }

    /// The group.
    pub fn group(&self) -> &GroupHandle {
        &self.group
    }

    /// What the machine says of itself.
    pub fn machine(&self) -> &MachineView {
        &self.machine
    }

    async fn propose(&self, leader: Option<NodeId>, attempt: Attempt, command: &[u8]) -> Result<Bytes, ProposeError> {
        match (leader, &self.forward) {
            (Some(leader), Some(forward)) => forward.propose(leader, attempt, command.to_vec()).await,
            _ => self.group.propose_once(attempt, command).await,
        }
    }
}

/// Without random numbers everybody waits as long as may be.
fn jitter() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}

/// How the attempts of one command went so far.
struct Attempts {
    failures: u32,
    leader: Option<NodeId>,
    /// One of them may have taken effect.
    is_unsure: bool,
    why: String,
}

impl Attempts {
    fn gave_up(self) -> MetaError {
        match self {
            Attempts { is_unsure: true, why, .. } => MetaError::Unknown { why },
            Attempts { leader, why, .. } => MetaError::Unavailable { leader, why },
        }
    }

    /// What an attempt came to, unless there is to be another.
    fn heard(&mut self, answer: Result<Bytes, ProposeError>) -> Option<Result<Bytes, MetaError>> {
        let error = match answer {
            Ok(bytes) => return Some(Ok(bytes)),
            Err(error) => error,
        };
        self.failures += 1;
        self.why = error.to_string();
        match error {
            ProposeError::NotLeader { leader } => self.leader = leader,
            ProposeError::Busy => {}
            ProposeError::Unknown { .. } => self.is_unsure = true,
            ProposeError::AppliedBefore => return Some(Err(MetaError::AnswerLost)),
            ProposeError::TooLarge { limit_bytes } => return Some(Err(MetaError::TooLarge { limit_bytes })),
            ProposeError::Stopped(_) if self.is_unsure => {
                return Some(Err(MetaError::Unknown { why: self.why.clone() }));
            }
            ProposeError::Stopped(stopped) => return Some(Err(stopped.into())),
            // A later command has the name already: whoever named this one has given it up.
            _ => return Some(Err(MetaError::Unknown { why: self.why.clone() })),
        }
        None
    }
}

#[tonic::async_trait]
impl Metadata for RaftMetadata {
    async fn execute(&self, command: Command, deadline: Instant) -> Result<Done, MetaError> {
        let lent = self.names.lend()?;
        self.execute_named(lent.attempt(), command, deadline).await
    }

    async fn execute_named(&self, attempt: Attempt, command: Command, deadline: Instant) -> Result<Done, MetaError> {
        let command = command::encode(&command);
        if command.len() > MAX_COMMAND_BYTES {
            return Err(MetaError::TooLarge { limit_bytes: MAX_COMMAND_BYTES });
        }
        let why = "too many commands are under way from this node".to_owned();
        let mut attempts = Attempts { failures: 0, leader: None, is_unsure: false, why };
        let until = deadline.into();
        let Ok(Ok(_permit)) = timeout_at(until, self.under_way.acquire()).await else {
            return Err(attempts.gave_up());
        };
        loop {
            // The hint is about the group; whether that is here, the group here knows best.
            let leads_elsewhere = attempts.leader.filter(|_| attempts.failures % 2 == 1);
            let Ok(answer) = timeout_at(until, self.propose(leads_elsewhere, attempt, &command)).await else {
                (attempts.is_unsure, attempts.why) = (true, "the deadline passed".to_owned());
                return Err(attempts.gave_up());
            };
            if let Some(heard) = attempts.heard(answer) {
                return outcome(command::decode_answer(&heard?)?);
            }
            // The first time, the hint is fresh.
            let is_hinted = attempts.failures == 1 && attempts.leader.is_some() && self.forward.is_some();
            let delay = if is_hinted { Duration::ZERO } else { BACKOFF.delay(attempts.failures, jitter()) };
            if Instant::now() + delay >= deadline {
                return Err(attempts.gave_up());
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn barrier(&self, deadline: Instant) -> Result<(), MetaError> {
        let mut failures = 0;
        loop {
            let leader = || self.group.view().leader_node();
            let Ok(answer) = timeout_at(deadline.into(), self.group.read_barrier()).await else {
                return Err(MetaError::Unavailable { leader: leader(), why: ReadError::Expired.to_string() });
            };
            let why = match answer {
                Ok(_) => return Ok(()),
                Err(ReadError::Stopped(stopped)) => return Err(stopped.into()),
                Err(error) => error.to_string(),
            };
            failures += 1;
            let delay = BACKOFF.delay(failures, jitter());
            if Instant::now() + delay >= deadline {
                return Err(MetaError::Unavailable { leader: leader(), why });
            }
            tokio::time::sleep(delay).await;
        }
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::clone(&self.view) as Arc<dyn View>
    }

    fn progress(&self) -> watch::Receiver<Reached> {
        self.machine.progress.clone()
    }
}
