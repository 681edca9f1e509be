//! Who takes part in a group: changes from its users, and word for those that were removed.
//!
//! A replica that was removed may never hear of it from the log: nobody sends it anything any more. When it speaks up, it
//! is not listened to, but told; then its group stops on its node, which may destroy it.
//!
//! A message may come from a replica that is not known yet, because this one is behind. Where it lives is remembered
//! until the membership says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::driver::{Driver, Outside, Slot};
use super::error::{ChangeError, GroupFailure, ProposeError};
use super::handle::{GroupHandle, ProposalWaiter};
use super::mailbox::{Input, Unaccepted};
use crate::ident::{GroupId, NodeId, ReplicaId};
use crate::raftstore::entry::Membership;
use crate::raftstore::group::{ChangeRefusal, MembershipChange};
use crate::raftstore::message::Envelope;

/// Replicas whose nodes are remembered before the membership says where they live.
const MAX_MET: usize = 64;

/// Replicas that spoke here before they were known, and their nodes.
#[derive(Default)]
pub(super) struct Met(BTreeMap<ReplicaId, NodeId>);

impl Met {
    pub(super) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.0.get(&replica).copied()
    }

    pub(super) fn note(&mut self, replica: ReplicaId, node: NodeId) {
        if self.0.len() >= MAX_MET {
            // The newest replicas have the highest numbers.
            self.0.pop_first();
        }
        self.0.insert(replica, node);
    }
}

impl GroupHandle {
    /// Changes who takes part, by joint consensus (Raft thesis, chapter 4), and waits until the new configuration alone
    /// decides. Only the leader does that. A replica that is added has to be made on its node first
    /// ([`join_group`](super::RaftStore::join_group)); it begins as a learner. One that is removed may be destroyed
    /// when this has returned.
    ///
    /// # Errors
    /// See [`ChangeError`]. After `patience`, or when leadership changes, it is `Unknown`: the membership that
    /// [`view`](GroupHandle::view) shows says what became of it.
    pub async fn change_membership(
        &self,
        change: MembershipChange,
        patience: Duration,
    ) -> Result<Membership, ChangeError> {
        let begun = Instant::now();
        let unknown = || ChangeError::Unknown { why: "it was not finished in time" };
        let proposed = timeout(patience, self.submit_change(change.clone())).await;
        proposed.unwrap_or_else(|_| Err(unknown()))?;
        let mut view = self.watch();
        let is_done = |membership: &Membership| !membership.is_joint() && is_in(&change, membership);
        let left = patience.saturating_sub(begun.elapsed());
        let finished = view.wait_for(|view| view.failure.is_some() || is_done(&view.status.membership));
        match timeout(left, finished).await {
            Ok(Ok(view)) if view.failure.is_none() => Ok(view.status.membership.clone()),
            Ok(_) => Err(self.stopped().into()),
            Err(_) => Err(unknown()),
        }
    }

    /// Adds a replica and makes it a voter by itself once it keeps up. If it is a learner already, only the second. The
    /// replica has to be made on its node first.
    ///
    /// # Errors
    /// As [`change_membership`](GroupHandle::change_membership). What was begun may be gone on with by calling it again.
    pub async fn add_voter(
        &self,
        replica: ReplicaId,
        node: NodeId,
        patience: Duration,
    ) -> Result<Membership, ChangeError> {
        let begun = Instant::now();
        let left = || patience.saturating_sub(begun.elapsed());
        if !self.view().status.membership.learners.contains(&replica) {
            let add = MembershipChange { add: vec![(replica, node)], ..MembershipChange::default() };
            self.change_membership(add, patience).await?;
        }
        let promote = MembershipChange { promote: vec![replica], ..MembershipChange::default() };
        let mut view = self.watch();
        loop {
            match self.change_membership(promote.clone(), left()).await {
                Err(ChangeError::Refused(ChangeRefusal::Behind { .. } | ChangeRefusal::Pending)) => {}
                other => return other,
            }
            // How far followers are is shown with each tick.
            match timeout(left(), view.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.stopped().into()),
                Err(_) => return Err(ChangeError::Unknown { why: "the new replica did not keep up in time" }),
            }
        }
    }

    async fn submit_change(&self, change: MembershipChange) -> Result<Bytes, ChangeError> {
        let (answer, waiting) = oneshot::channel();
        let waiter = ProposalWaiter::new(answer, &self.mailbox);
        match self.mailbox.request(&self.share, Input::Change { group: self.group, change: Box::new(change), waiter }) {
            Ok(()) => {}
            Err(Unaccepted::Full) => return Err(ChangeError::Busy),
            Err(Unaccepted::Stopped) => return Err(self.stopped().into()),
        }
        let stopped = Err(ProposeError::Unknown { why: "the raftstore stopped" });
        waiting.await.unwrap_or(stopped).map_err(ChangeError::from)
    }
}

/// Whether a membership shows what a change asked for.
fn is_in(change: &MembershipChange, membership: &Membership) -> bool {
    let MembershipChange { add, promote, demote, remove } = change;
    add.iter().all(|(replica, _)| membership.nodes.contains_key(replica))
        && promote.iter().all(|replica| membership.voters.contains(replica))
        && demote.iter().all(|replica| membership.learners.contains(replica))
        && remove.iter().all(|replica| !membership.nodes.contains_key(replica))
}

impl Driver {
    pub(super) fn change(&mut self, group: GroupId, change: &MembershipChange, waiter: ProposalWaiter) {
        let request = self.request();
        let Some(slot) = self.slot(group) else {
            return waiter.resolve(Err(super::driver::destroyed(group).into()));
        };
        match &mut slot.group {
            None => waiter.resolve(Err(slot.stopped().into())),
            Some(raft) => {
                slot.proposals.insert(request, waiter);
                raft.change_membership(request, change);
            }
        }
    }

    /// A node says that a replica was removed: the one here, if the sender may know.
    pub(super) fn removed(&mut self, from: NodeId, envelope: &Envelope) {
        let Some(slot) = self.slot(envelope.group) else { return };
        let Some(raft) = &slot.group else { return };
        if raft.replica() == envelope.to && raft.node_of(envelope.from) == Some(from) {
            tracing::info!(group = %envelope.group, replica = %envelope.to, by = %from, "the replica was removed");
            self.fail(envelope.group, Arc::new(GroupFailure::Removed(envelope.group)));
        }
    }
}

impl Slot {
    /// Tells a replica that was removed.
    pub(super) fn tell_removed(&self, group: GroupId, to: ReplicaId, node: NodeId, outside: &Outside) {
        let Some(raft) = self.group.as_ref().filter(|raft| raft.knows_removed(to)) else { return };
        let envelope = Envelope { group, from: raft.replica(), to, message: Bytes::new() };
        // It will speak up again.
        let _ = outside.transport.send(node, envelope);
    }
}
