//! Snapshots between driver, store and transport.
//!
//! Out: the log reader captures the state when a group wants one, or the apply thread that of a machine that keeps its own
//! position; the driver keeps it and hands it to the transport with each message that offers it. In: the transport asks through the inbox, the driver says whether the group wants the
//! snapshot, its pairs go from the transport's thread into the store, and the message goes to the group behind the last.
//! With too little room on the disk none is taken, and one that is being filled goes on later.
//! Of each group one is filled at a time; one that nobody goes on with is removed after a while.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::apply::ApplyTask;
use super::checks::Overheard;
use super::driver::{Driver, Outside, Slot};
use super::error::GroupFailure;
use super::mailbox::{Input, Mailbox};
use super::metrics;
use super::persist::ReadTask;
use crate::ident::{GroupId, NodeId, ReplicaId, Term};
use crate::raftstore::group::{Group, Offered};
use crate::raftstore::log_store::{GroupStore, StoreError};
use crate::raftstore::message::{Envelope, Message};
use crate::raftstore::snapshot::{Captured, Pair, Place, SnapshotId, SnapshotMeta};
use crate::raftstore::transport::{Inbox, InboxFull, Incoming, Outgoing, SnapshotRefused, SnapshotUnsent};

/// A snapshot whose transfer broke off is kept for this many ticks.
const KEPT_TICKS: u32 = 300;
/// The driver never waits for long: one that does not answer hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Where the transport hands over what arrives.
pub(super) struct StoreInbox {
    pub(super) mailbox: Mailbox,
    pub(super) store: Arc<dyn GroupStore>,
    /// With less room than this no snapshot is taken.
    pub(super) reserve_bytes: u64,
}

/// A snapshot that a peer wants to send.
pub(super) struct Offer {
    from: NodeId,
    pub(super) group: GroupId,
    message: Message,
    /// Whether its transfer goes on.
    lives: Weak<()>,
    answer: Sender<Result<SnapshotMeta, SnapshotRefused>>,
}

/// What a group is being filled with.
pub(super) struct Filling {
    id: SnapshotId,
    term: Term,
    lives: Weak<()>,
    idle_ticks: u32,
}

impl Inbox for StoreInbox {
    fn deliver(&self, from: NodeId, envelope: Envelope) -> Result<(), InboxFull> {
        if self.mailbox.deliver(from, &[envelope]).is_empty() { Ok(()) } else { Err(InboxFull) }
    }

    fn deliver_all(&self, from: NodeId, envelopes: Vec<Envelope>) -> Vec<usize> {
        self.mailbox.deliver(from, &envelopes)
    }

    fn unreachable(&self, node: NodeId) {
        self.mailbox.tell(Input::Unreachable(node));
    }

    fn offer(&self, from: NodeId, offer: Envelope) -> Result<Box<dyn Incoming>, SnapshotRefused> {
        let garbage = || SnapshotRefused::Unwanted("the offer is no message of its sender".into());
        let message = offer.open().ok_or_else(garbage)?;
        check_room(&*self.store, self.reserve_bytes).inspect_err(|_| {
            let group = offer.group;
            tracing::warn!(%group, reserve_bytes = self.reserve_bytes, "too little room for a snapshot: it is put off");
            metrics::snapshot("no_room");
        })?;
        let (answer, answered) = channel();
        let alive = Arc::new(());
        let (group, lives) = (offer.group, Arc::downgrade(&alive));
        self.mailbox.tell(Input::Offer(Box::new(Offer { from, group, message: message.clone(), lives, answer })));
        let meta = answered.recv_timeout(ANSWER_LIMIT).unwrap_or(Err(SnapshotRefused::Busy))?;
        let resume_after = self.store.begin_fill(group, &meta).map_err(|error| refused(&self.mailbox, error))?;
        let (store, mailbox) = (Arc::clone(&self.store), self.mailbox.clone());
        let message = Some(message);
        let (id, reserve_bytes) = (meta.id, self.reserve_bytes);
        Ok(Box::new(Fill { store, mailbox, group, id, message, resume_after, reserve_bytes, _alive: alive }))
    }
}

/// A disk that fills up stops the whole node: what is left is for logs. A snapshot comes again.
fn check_room(store: &dyn GroupStore, reserve_bytes: u64) -> Result<(), SnapshotRefused> {
    match store.free_bytes() {
        Ok(Some(free_bytes)) if free_bytes < reserve_bytes => Err(SnapshotRefused::Busy),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "it is not known whether there is room for a snapshot");
            Err(SnapshotRefused::Busy)
        }
    }
}

/// What the store says to a fill: its own failure stops the raftstore, anything else only this transfer.
fn refused(mailbox: &Mailbox, error: StoreError) -> SnapshotRefused {
    let what = error.to_string();
    if !matches!(error, StoreError::Refused(_)) {
        tracing::error!(%error, "a snapshot could not be written; the raftstore stops");
        mailbox.tell(Input::Stop(Arc::new(GroupFailure::Store(error))));
    }
    SnapshotRefused::Unwanted(what)
}

/// Takes the pairs of one transfer.
struct Fill {
    store: Arc<dyn GroupStore>,
    mailbox: Mailbox,
    group: GroupId,
    id: SnapshotId,
    /// Goes to the group behind the last pair.
    message: Option<Message>,
    resume_after: Option<Place>,
    reserve_bytes: u64,
    _alive: Arc<()>,
}

impl Incoming for Fill {
    fn resume_after(&self) -> Option<&Place> {
        self.resume_after.as_ref()
    }

    fn take(&mut self, pairs: Vec<Pair>, is_last: bool) -> Result<(), SnapshotRefused> {
        check_room(&*self.store, self.reserve_bytes)?;
        let filled = self.store.fill(self.group, self.id, &pairs, is_last);
        filled.map_err(|error| refused(&self.mailbox, error))?;
        if let Some(message) = self.message.take_if(|_| is_last) {
            self.mailbox.tell(Input::Filled { group: self.group, message: Box::new(message) });
        }
        Ok(())
    }
}

impl Driver {
    pub(super) fn offered(&mut self, offer: Offer) {
        let answer = self.judge(&offer);
        if let Err(why) = &answer {
            tracing::debug!(group = %offer.group, from = %offer.from, %why, "a snapshot is not taken");
        }
        // Whoever asked may have gone.
        let _ = offer.answer.send(answer);
    }

    fn judge(&mut self, offer: &Offer) -> Result<SnapshotMeta, SnapshotRefused> {
        let unwanted = |what: &str| Err(SnapshotRefused::Unwanted(what.into()));
        let Some(slot) = self.slot(offer.group) else { return unwanted("there is no such group here") };
        if slot.node_of(offer.message.from()).is_some_and(|node| node != offer.from) {
            return unwanted("the sender lives on another node");
        }
        let Some(raft) = &mut slot.group else { return unwanted("the group has stopped here") };
        if !raft.takes_snapshots() {
            return unwanted(
                "this replica takes none: that is set so, or its state machine keeps its own position and has none",
            );
        }
        match raft.offered(&offer.message) {
            Ok(Offered::Take(meta)) => {
                let term = offer.message.term();
                let holds = |filling: &Filling| filling.id != meta.id && filling.term >= term;
                if slot.filling.as_ref().is_some_and(|filling| holds(filling) && filling.lives.strong_count() > 0) {
                    return Err(SnapshotRefused::Busy);
                }
                slot.filling = Some(Filling { id: meta.id, term, lives: offer.lives.clone(), idle_ticks: 0 });
                Ok(meta)
            }
            Ok(Offered::Busy) => Err(SnapshotRefused::Busy),
            Ok(Offered::NotNeeded) => unwanted("nothing in it is new here"),
            Err(why) => Err(SnapshotRefused::Unwanted(why.to_string())),
        }
    }

    /// All pairs of a snapshot are in the store.
    pub(super) fn filled(&mut self, group: GroupId, message: Message) {
        let Some(slot) = self.slot(group) else { return };
        let Some(meta) = message.snapshot() else { return };
        slot.filling.take_if(|filling| filling.id == meta.id);
        let taken = slot.group.as_mut().is_some_and(|raft| raft.take_over(message));
        metrics::snapshot(if taken { "taken_over" } else { "not_needed" });
        if !taken {
            drop(self.outside.workers.log_reader.send(ReadTask::Abandon(group, meta.id)));
        }
    }

    pub(super) fn captured(&mut self, group: GroupId, captured: Arc<dyn Captured>) {
        let mailbox = self.outside.mailbox.clone();
        let Some(slot) = self.slot(group) else { return };
        let Some(raft) = &mut slot.group else { return };
        metrics::snapshot("captured");
        if raft.captured(captured.meta().clone()) {
            slot.captured = Some(Arc::new(Overheard { captured, group, mailbox }));
        }
    }

    pub(super) fn snapshot_sent(&mut self, group: GroupId, to: ReplicaId, arrived: bool) {
        metrics::snapshot(if arrived { "sent" } else { "not_sent" });
        if let Some(raft) = self.running(group) {
            raft.snapshot_sent(to, arrived);
        }
    }
}

impl Slot {
    /// Hands a snapshot to the transport. Says whether that took it.
    pub(super) fn send_snapshot(&self, node: NodeId, message: &Message, offer: Envelope, outside: &Outside) -> bool {
        // What was captured since is another one, and this message comes late.
        let offered = message.snapshot().map(|meta| meta.id);
        let Some(captured) = self.captured.as_ref().filter(|captured| Some(captured.meta().id) == offered) else {
            return false;
        };
        let (group, to, mailbox) = (offer.group, message.to(), outside.mailbox.clone());
        let done = Box::new(move |result: Result<(), SnapshotUnsent>| {
            if let Err(why) = &result {
                tracing::debug!(%group, %to, %why, "a snapshot was not sent");
            }
            mailbox.tell(Input::SnapshotSent { group, to, arrived: result.is_ok() });
        });
        let outgoing = Outgoing { offer, captured: Arc::clone(captured), done };
        outside.transport.send_snapshot(node, outgoing).is_ok()
    }

    /// A snapshot that nobody goes on with is given up.
    pub(super) fn age_filling(&mut self, group: GroupId, outside: &Outside) {
        let Some(filling) = &mut self.filling else { return };
        if filling.lives.strong_count() > 0 {
            filling.idle_ticks = 0;
            return;
        }
        filling.idle_ticks += 1;
        if filling.idle_ticks > KEPT_TICKS {
            drop(outside.workers.log_reader.send(ReadTask::Abandon(group, filling.id)));
            self.filling = None;
        }
    }

    /// What a group wants captured, or let go of.
    pub(super) fn capture(&mut self, group: GroupId, wanted: Option<SnapshotId>, release: bool, outside: &Outside) {
        if release {
            self.captured = None;
        }
        let Some(id) = wanted else { return };
        match self.group.as_ref().is_some_and(Group::keeps_own_position) {
            // Only between two batches of commands is it known as of which entry it is.
            true => drop(outside.workers.apply(group).send(ApplyTask::Capture { group, id })),
            false => drop(outside.workers.log_reader.send(ReadTask::Capture(group, id))),
        }
    }
}
