//! How a replica stands, for its driver, people and metrics.

use raft::{ProgressState, StateRole};

use super::effects::{Follower, GroupStatus, Positions, Sending};
use super::replica::Group;
use crate::ident::{LogIndex, ReplicaId, Term};

impl Group {
    /// How far it is.
    pub fn positions(&self) -> Positions {
        let raft = &self.node.raft;
        let view = self.node.store();
        Positions {
            role: raft.state.into(),
            term: Term::new(raft.term),
            leader: self.leader().filter(|_| !self.is_forsaken()),
            applied: self.applied,
            committed: LogIndex::new(raft.raft_log.committed),
            persisted: LogIndex::new(raft.raft_log.persisted),
            last: LogIndex::new(raft.raft_log.last_index()),
            first: LogIndex::new(view.first()),
            cache_bytes: view.cache_bytes(),
        }
    }

    /// Whether it does not vote and has heard nothing for so long that voters would look for another leader. It never does
    /// itself, so that Raft goes on to name the last one: also when that died, or has removed it.
    fn is_forsaken(&self) -> bool {
        let raft = &self.node.raft;
        let follows = raft.state == StateRole::Follower && !raft.promotable();
        follows && raft.election_elapsed > 2 * self.config.election_ticks
    }

    /// Whether it is still reading its log back. It takes no part until then.
    pub fn is_starting(&self) -> bool {
        self.replaying
    }

    /// How it stands.
    pub fn status(&self) -> GroupStatus {
        let raft = &self.node.raft;
        let followers = match raft.state {
            StateRole::Leader => raft
                .prs()
                .iter()
                .filter(|(id, _)| **id != self.config.replica.get())
                .map(|it| self.follower(it))
                .collect(),
            _ => Vec::new(),
        };
        GroupStatus {
            replica: self.config.replica,
            positions: self.positions(),
            membership: self.membership.clone(),
            followers,
            is_asleep: self.sleep().is_some(),
            unhealthy: self.unhealthy(),
            last_check: self.checks.last().cloned(),
        }
    }

    fn follower(&self, (id, progress): (&u64, &raft::Progress)) -> Follower {
        Follower {
            replica: ReplicaId::new(*id),
            matched: LogIndex::new(progress.matched),
            next: LogIndex::new(progress.next_idx),
            sending: match progress.state {
                ProgressState::Probe => Sending::Probe,
                ProgressState::Replicate => Sending::Replicate,
                ProgressState::Snapshot => Sending::Snapshot,
            },
            recently_active: progress.recent_active,
            silent_ticks: self.heard.silent_ticks(*id, self.now),
        }
    }
}
