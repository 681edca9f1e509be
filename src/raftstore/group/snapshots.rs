//! Snapshots: when the state is captured for followers that are behind the log, and how a leader's is taken over.
//!
//! **Out.** Raft-rs asks the log for a snapshot when a follower needs an entry that was compacted away. The first time
//! the driver is asked to capture the state; once it has, raft-rs gets the name of it, and sends that to as many followers
//! as need it. What was captured is let go of some time after nobody was sent it any more.
//!
//! **In.** A driver asks [`Group::offered`] before it takes the pairs, and calls [`Group::take_over`] when it has all of
//! them. If Raft still wants the snapshot, one [`Persist`] makes it visible. That one waits until everything that was
//! handed out before is applied, so that no effect of an older entry comes after it, and every write after it waits
//! with it. Between that and [`Group::applied`] the replica does not stand for election: raft-rs looks for membership
//! changes among what is committed and not applied, and that is gone.

use raft::{SnapshotStatus, StateRole, eraftpb};

use super::effects::{Effects, Persist, PersistId};
use super::replica::Group;
use super::validate::{self, Rejected};
use crate::ident::{LogIndex, ReplicaId};
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::message::Message;
use crate::raftstore::snapshot::{Restore, SnapshotId, SnapshotMeta, header};

/// What was captured stays for this many election time-outs after somebody was sent it.
const KEPT_ELECTIONS: u64 = 2;

/// What becomes of an offered snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Take its pairs; then call [`Group::take_over`].
    Take(SnapshotMeta),
    /// Another is being taken over.
    Busy,
    /// It holds nothing new. The sender is told how far the log is here.
    NotNeeded,
}

/// Captured for followers.
#[derive(Default)]
pub(super) struct Capturing {
    count: u64,
    asked: Option<SnapshotId>,
    used_at: u64,
    release: bool,
}

/// A snapshot on its way from Raft into the store.
pub(super) struct Takeover {
    write: PersistId,
    index: LogIndex,
    stage: Stage,
    /// Writes that wait with it.
    held: Vec<Persist>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Older entries are still being applied.
    Waiting,
    Writing,
    /// It is visible; the machine does not know yet.
    Written,
}

impl Capturing {
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// What was captured is not to be given to anybody, nor what is being captured.
    pub(super) fn withhold(&mut self) {
        self.asked = None;
        self.release = true;
    }
}

impl Group {
    /// The state was captured as asked for. Says whether it is still wanted.
    pub fn captured(&mut self, meta: SnapshotMeta) -> bool {
        if self.capturing.asked != Some(meta.id) {
            return false;
        }
        self.capturing.asked = None;
        self.capturing.used_at = self.now;
        self.node.mut_store().set_captured(Some(meta));
        true
    }

    /// A snapshot that was sent to a replica has arrived, or will not.
    pub fn snapshot_sent(&mut self, to: ReplicaId, arrived: bool) {
        self.rouse();
        if arrived {
            self.checks.trust(to.get());
        }
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to.get(), status);
        let change = self.inflight.lost(to.get());
        self.pace(to.get(), change);
        self.settle();
    }

    /// Whether its state can be that of a snapshot.
    pub fn takes_snapshots(&self) -> bool {
        self.config.snapshots
    }

    /// A snapshot is offered: is it wanted?
    ///
    /// # Errors
    /// The message was dropped, and why.
    pub fn offered(&mut self, message: &Message) -> Result<Offered, Rejected> {
        let meta = validate::check_snapshot(&message.0, &self.known())?;
        self.rouse_for(&message.0);
        if self.replaying || self.is_taking_over() {
            return Ok(Offered::Busy);
        }
        if !self.is_new(&message.0, &meta) {
            // Raft-rs takes over none of these, and answers; but any whatever, if it asked for one.
            if self.node.raft.pending_request_snapshot == 0 {
                let _ = self.node.step(message.0.clone());
                self.settle();
            }
            return Ok(Offered::NotNeeded);
        }
        Ok(Offered::Take(meta))
    }

    /// All pairs of an offered snapshot are there. Says whether it will be taken over; if not, they are worth nothing.
    pub fn take_over(&mut self, message: Message) -> bool {
        let checked = validate::check_snapshot(&message.0, &self.known());
        let Ok(meta) = checked else { return false };
        if self.replaying || self.is_taking_over() {
            return false;
        }
        // It was new when it was offered. Raft-rs would take over any, if it asked for one.
        let is_new = self.is_new(&message.0, &meta);
        if !is_new && self.node.raft.pending_request_snapshot != 0 {
            return false;
        }
        if is_new && self.is_repaired_by(meta.position.index) {
            self.expect_repair();
        }
        self.rouse_for(&message.0);
        // What raft-rs refuses here it refuses because nothing is to be done.
        let _ = self.node.step(message.0);
        self.settle();
        self.is_taking_over()
    }

    /// Whether Raft might take it over.
    fn is_new(&self, message: &eraftpb::Message, meta: &SnapshotMeta) -> bool {
        let raft = &self.node.raft;
        let (index, term) = (meta.position.index.get(), meta.position.term.get());
        let brings_forward = index > raft.raft_log.committed && !raft.raft_log.match_term(index, term);
        (brings_forward || self.is_repaired_by(meta.position.index))
            && meta.membership.nodes.contains_key(&self.config.replica)
            && message.term >= raft.term
            && raft.state != StateRole::Leader
    }

    /// Whether a snapshot is on its way from Raft to the machine.
    pub(super) fn is_taking_over(&self) -> bool {
        self.takeover.is_some() || self.node.raft.raft_log.unstable_snapshot().is_some()
    }

    /// Raft takes over a snapshot: the log begins behind it now.
    pub(super) fn begin_takeover(&mut self, snapshot: &eraftpb::Snapshot) -> Option<Restore> {
        // Checked before raft-rs saw it.
        let SnapshotMeta { id, position, membership } = header::decode(snapshot)?;
        self.node.mut_store().restore(position);
        self.log_bytes.restart();
        self.membership = membership.clone();
        self.membership_at = position.index;
        self.heal(position.index);
        self.proposals.lose_track(position.index, &mut self.answers);
        Some(Restore { id, position, membership })
    }

    /// The write that takes over a snapshot was begun.
    pub(super) fn hold_writes(&mut self, write: PersistId, index: LogIndex) {
        self.takeover = Some(Takeover { write, index, stage: Stage::Waiting, held: Vec::new() });
    }

    /// Hands out a write, or keeps it back while a snapshot waits before it.
    pub(super) fn hand_write(&mut self, persist: Persist, effects: &mut Effects) {
        match &mut self.takeover {
            Some(Takeover { stage: Stage::Waiting, held, .. }) => held.push(persist),
            _ => effects.persist.push(persist),
        }
    }

    /// The writes that wait for a takeover.
    #[cfg(test)]
    pub(in crate::raftstore) fn held_writes(&self) -> &[Persist] {
        self.takeover.as_ref().map_or(&[], |takeover| &takeover.held)
    }

    /// Goes on with a takeover as far as it can go.
    pub(super) fn advance_takeover(&mut self, effects: &mut Effects) {
        let Some(takeover) = &mut self.takeover else { return };
        let early = fault::active(Fault::RestoredBeforeApplied);
        if takeover.stage == Stage::Waiting && (self.applying.is_empty() || early) {
            takeover.stage = Stage::Writing;
            effects.persist.append(&mut takeover.held);
        }
        effects.restored = std::mem::take(&mut self.restored);
    }

    /// Of a takeover: its write is done.
    pub(super) fn takeover_written(&mut self, through: PersistId) {
        let Some(takeover) = &mut self.takeover else { return };
        if takeover.stage == Stage::Writing && takeover.write <= through {
            takeover.stage = Stage::Written;
            self.restored = Some(takeover.index);
        }
    }

    /// Of a takeover: the machine knows.
    pub(super) fn takeover_applied(&mut self, through: LogIndex) {
        let done = self.takeover.take_if(|takeover| takeover.stage == Stage::Written && takeover.index <= through);
        if done.is_some() {
            self.replaced();
        }
    }

    /// What is to be captured, or let go of.
    pub(super) fn capture(&mut self, effects: &mut Effects) {
        let view = self.node.mut_store();
        if view.take_snapshot_used() {
            self.capturing.used_at = self.now;
        }
        if view.take_snapshot_wanted() && self.capturing.asked.is_none() {
            self.capturing.count += 1;
            let id = SnapshotId(super::replica::mix(self.seed ^ self.capturing.count.rotate_left(32)));
            self.capturing.asked = Some(id);
            effects.capture = Some(id);
        }
        effects.release = std::mem::take(&mut self.capturing.release);
    }

    /// Lets go of what was captured once nobody is sent it.
    pub(super) fn age_captured(&mut self) {
        if !self.node.store().has_captured() {
            return;
        }
        let is_sent = self.node.raft.prs().iter().any(|(_, progress)| progress.state == raft::ProgressState::Snapshot);
        let kept = KEPT_ELECTIONS * self.config.election_ticks as u64;
        if is_sent && self.node.raft.state == StateRole::Leader {
            self.capturing.used_at = self.now;
        } else if self.capturing.used_at + kept <= self.now {
            self.node.mut_store().set_captured(None);
            self.capturing.release = true;
        }
    }
}
