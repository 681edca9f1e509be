//! Reads without asking the others: the leader's lease (Raft thesis, 6.4.1), on a clock that goes on while the machine is
//! suspended.
//!
//! When a question of ReadIndex comes back from a majority, each of them has heard from this leader after it was asked,
//! and gives no vote to anybody else for an election time-out from then on. So nobody else can lead, and nothing can be
//! committed without this replica, until that time has passed on the fastest clock among them: three quarters of it on
//! this one's, which allows clocks to differ by a third. Until then a read needs no round.
//!
//! What breaks the argument, and what is done about it:
//! - *A transfer of leadership* makes others vote at once: once one was begun there is no lease in that term any more.
//! - *A restart* makes a replica forget whom it heard: where leases are in use it gives no vote for its first election
//!   time-out.
//! - *A pause* of this process: the time is looked at anew for each read, when it is asked.
//!
//! Raft-rs has a lease of its own, which has no clock; it is never used. Time is handed in, in thousandths of a tick.

use raft::StateRole;

use super::effects::RequestId;
use super::replica::Group;
use crate::ident::LogIndex;
use crate::raftstore::fault::{self, Fault};

/// A lease lasts this much of an election time-out, in thousandths.
const LASTS: u64 = 750;

/// A leader's lease.
#[derive(Default)]
pub(super) struct Lease {
    /// What time it is.
    now: u64,
    /// Until when nobody else can lead.
    until: u64,
    /// There is none in this term, for a transfer was begun.
    void_in: u64,
    /// Somebody read by it since it was renewed last.
    used: bool,
}

impl Group {
    /// What time it is, in thousandths of a tick since some point, on a clock that never stops. To be called before each
    /// read and each tick.
    pub fn clock(&mut self, now: u64) {
        self.lease.now = self.lease.now.max(now);
    }

    /// The time at which a question is asked.
    pub(super) fn lease_asked_at(&self) -> u64 {
        self.lease.now
    }

    /// A question that was asked at this time came back from a majority.
    pub(super) fn renew_lease(&mut self, asked_at: u64) {
        let raft = &self.node.raft;
        if self.config.lease_reads && raft.state == StateRole::Leader {
            let lasts = self.config.election_ticks as u64 * LASTS;
            self.lease.until = self.lease.until.max(asked_at + lasts);
            self.lease.used = false;
        }
    }

    /// Answers a read by the lease, if there is one.
    pub(super) fn read_by_lease(&mut self, request: RequestId) -> bool {
        let raft = &self.node.raft;
        let may = self.config.lease_reads && raft.state == StateRole::Leader && raft.commit_to_current_term();
        let is_void = self.lease.void_in == raft.term && !fault::active(Fault::LeaseOnTransfer);
        if !may || is_void || self.lease.now >= self.lease.until {
            return false;
        }
        let index = LogIndex::new(raft.raft_log.committed);
        self.reads.leased(index, request, self.now + self.config.request_ticks);
        self.lease.used = true;
        true
    }

    /// Whether the lease is to be renewed: it is used, and half over.
    pub(super) fn wants_lease(&self) -> bool {
        let half = self.config.election_ticks as u64 * LASTS / 2;
        self.lease.used && !self.reads.are_asked() && self.lease.until < self.lease.now + half
    }

    /// Leadership changes, or may: at once, or in this term.
    pub(super) fn end_lease(&mut self) {
        self.lease.until = 0;
        self.lease.used = false;
    }

    /// A transfer of leadership was begun.
    pub(super) fn void_lease(&mut self) {
        self.lease.void_in = self.node.raft.term;
    }

    /// Whether votes are not given yet, because somebody may have a lease that this replica has forgotten.
    pub(super) fn may_have_promised(&self) -> bool {
        self.config.lease_reads && self.now < self.config.election_ticks as u64
    }
}
