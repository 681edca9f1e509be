//! Who takes part changes.

use super::seen::Happening;
use super::world::{Checked, World, violated};
use crate::ident::{NodeId, ReplicaId};
use crate::raftstore::entry::Membership;
use crate::raftstore::group::{MembershipChange, Refusal, RequestId};

impl World {
    /// A leader is asked for some change, whether it makes sense now or not.
    pub(super) fn change(&mut self) -> Checked {
        let group = self.draw_group();
        let Some(leader) = self.leader_of(group) else { return Ok(()) };
        let paused_until = self.hosts[self.replicas[leader].host].paused_until;
        let Some(group) = self.replicas[leader].group.as_ref().filter(|_| paused_until <= self.now) else {
            return Ok(());
        };
        let membership = group.status().membership;
        let change = self.draw_change(self.replicas[leader].cell, &membership);
        self.rouse(leader, Happening::WokenByRequest);
        self.requests += 1;
        let request = RequestId(self.requests);
        self.note(|_| format!("{}: {change:?}", leader + 1));
        if let Some(group) = &mut self.replicas[leader].group {
            group.change_membership(request, &change);
        }
        self.replicas[leader].changes.insert(request.0);
        self.drive(leader)
    }

    fn draw_change(&mut self, group: usize, now: &Membership) -> MembershipChange {
        let mut change = MembershipChange::default();
        // One that waits to be added.
        let waits = |place: &usize| {
            let it = &self.replicas[*place];
            it.id > now.highest.get() && self.is_made(*place) && !self.hosts[it.host].is_gone
        };
        let next = self.places_of(group).find(waits).map(|place| &self.replicas[place]);
        if let Some((next, host)) = next.map(|next| (next.id, next.host))
            && self.rng.chance(500)
        {
            change.add.push((ReplicaId::new(next), NodeId::new(host as u64 + 1)));
        }
        for learner in &now.learners {
            match self.rng.below(4) {
                0 | 1 => change.promote.push(*learner),
                2 => change.remove.push(*learner),
                _ => {}
            }
        }
        for voter in &now.voters {
            match self.rng.below(8) {
                0 => change.remove.push(*voter),
                1 => change.demote.push(*voter),
                _ => {}
            }
        }
        change
    }

    /// The answer to such a request, if it is one.
    pub(super) fn change_answered(&mut self, place: usize, request: u64, refusal: Option<&Refusal>) -> bool {
        let is_one = self.replicas[place].changes.remove(&request);
        if is_one && matches!(refusal, Some(Refusal::Change(_))) {
            self.seen.note(Happening::ChangeRefused);
        }
        is_one
    }

    /// A change is committed here.
    pub(super) fn changed(&mut self, place: usize, before: &Membership, now: &Membership) -> Checked {
        let own = ReplicaId::new(self.replicas[place].id);
        self.seen.note(Happening::Changed);
        let led = self.replicas[place].positions.role == crate::raftstore::group::Role::Leader;
        for (replica, happening) in [
            (now.voters.iter().find(|replica| before.learners.contains(replica)), Happening::Promoted),
            (now.learners.iter().find(|replica| before.nodes.contains_key(replica)), Happening::Demoted),
            (before.nodes.keys().find(|replica| !now.nodes.contains_key(replica)), Happening::Removed),
        ] {
            if replica.is_some() {
                self.seen.note(happening);
            }
        }
        if led && !now.nodes.contains_key(&own) {
            self.seen.note(Happening::LeaderRemoved);
        }
        // Joint consensus only: what changes at once keeps a majority of the voters before.
        if before.is_joint() == now.is_joint() {
            return violated("joint consensus", format!("{}: {before:?}, then {now:?}", place + 1));
        }
        let kept = if now.is_joint() { now.voters_outgoing == before.voters } else { now.voters == before.voters };
        match kept {
            true => Ok(()),
            false => violated("joint consensus", format!("{}: {before:?}, then {now:?}", place + 1)),
        }
    }
}
