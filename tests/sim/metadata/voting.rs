//! The members are the nodes, with the numbers of their replicas. Operators say who votes, and whoever leads brings it about,
//! as the keeper of a member does: by the same plan, one step after the other.

use std::collections::BTreeSet;

use super::super::oracle::Outcome;
use super::super::seen::Happening;
use super::super::world::{Checked, TICK, Violation, World};
use super::commands::command;
use crate::cluster::plan::{MAX_VOTERS, Step, plan};
use crate::ident::{GroupId, NodeId, ReplicaId};
use crate::meta::proto::action::Kind;
use crate::meta::proto::{Member, MemberState, SetMemberState};
use crate::meta::stored;
use crate::meta::view::StoreView;
use crate::raftstore::entry::Membership;
use crate::raftstore::group::{MembershipChange, RequestId};

/// How often a keeper looks, in ticks.
const KEEP_TICKS: u64 = 2;

impl World {
    /// Now and then a node looks whether those vote that are to, if it leads.
    pub(in super::super) fn keep_voters(&mut self, place: usize) -> Checked {
        let looks = self.plan.voting && (self.now / TICK).is_multiple_of(KEEP_TICKS);
        let waits = !self.replicas[place].changes.is_empty();
        if !looks || waits {
            return Ok(());
        }
        for step in self.steps(place) {
            if !self.replicas[place].leads() {
                return Ok(());
            }
            let mut change = MembershipChange::default();
            match step {
                Step::HandOver(to) => return self.hand_over(place, to),
                Step::Activate(node) => return self.activate(place, node),
                Step::Add(node) => change.add.push((ReplicaId::new(node.get()), node)),
                Step::Promote(replica) => change.promote.push(replica),
                Step::Demote(replica) => change.demote.push(replica),
                Step::Remove(replica) => change.remove.push(replica),
            }
            if self.take_step(place, &change)? {
                self.note(|_| format!("{}: {step:?}", place + 1));
                return Ok(());
            }
        }
        Ok(())
    }

    /// A member takes part in full; one proposal at a time.
    fn activate(&mut self, place: usize, node: NodeId) -> Checked {
        let Some(metadata) = &self.metadata else { return Ok(()) };
        let waits = metadata.activations.get(&place).copied();
        if waits.is_some_and(|waits| self.history.operations[waits].outcome == Outcome::Open) {
            return Ok(());
        }
        let (from, to) = (MemberState::Joining.into(), MemberState::Active.into());
        let operation = self.begin_call(None);
        if let Some(metadata) = &mut self.metadata {
            metadata.activations.insert(place, operation);
        }
        let set = command(operation, vec![Kind::SetMemberState(SetMemberState { id: node.get(), from, to })]);
        self.propose_call(operation, &set, None, place)
    }

    /// What a node has to do, if it leads, as far as it knows.
    fn steps(&self, place: usize) -> Vec<Step> {
        let it = &self.replicas[place];
        let (Some(meta), Some(group)) = (&it.meta, &it.group) else { return Vec::new() };
        if !it.leads() {
            return Vec::new();
        }
        plan(&group.status(), &stored::members(&*meta.view).unwrap_or_default())
    }

    fn hand_over(&mut self, place: usize, to: ReplicaId) -> Checked {
        self.rouse(place, Happening::WokenByRequest);
        if self.replicas[place].group.as_mut().is_some_and(|group| group.transfer_leader(to).is_ok()) {
            self.seen.note(Happening::VoterHandsOver);
        }
        self.drive(place)
    }

    /// Says whether it was not refused at once.
    fn take_step(&mut self, place: usize, change: &MembershipChange) -> Result<bool, Violation> {
        self.rouse(place, Happening::WokenByRequest);
        self.requests += 1;
        let request = self.requests;
        if let Some(group) = &mut self.replicas[place].group {
            group.change_membership(RequestId(request), change);
        }
        self.replicas[place].changes.insert(request);
        self.drive(place)?;
        let is_taken = self.replicas[place].changes.contains(&request);
        if is_taken && !change.promote.is_empty() {
            self.seen.note(Happening::VoteGiven);
        }
        if is_taken && !change.demote.is_empty() {
            self.seen.note(Happening::VoteTaken);
        }
        Ok(is_taken)
    }

    /// The node that goes on alone.
    pub(super) fn survivor(&self) -> Option<u64> {
        let host = self.hosts.iter().position(|host| !host.is_gone)?;
        Some(self.replicas[self.place_on(host, 0)].id)
    }

    /// In the end those vote that are to, and leaders have nothing left to do. Says what is not so.
    pub(super) fn unrest_of_votes(&self) -> Option<String> {
        let metadata = self.metadata.as_ref().filter(|_| self.plan.voting)?;
        let model = &metadata.reference.model;
        // Whoever goes on alone may have lost that there are members.
        if metadata.is_forced && !model.knows_forced {
            return None;
        }
        let view = StoreView { store: metadata.reference.tables.shown(), group: GroupId::new(1) };
        let members = stored::members(&view).unwrap_or_default();
        let leading = self.places_of(0).filter(|place| self.replicas[*place].leads());
        let Some(leader) = leading.max_by_key(|place| self.replicas[*place].positions.term) else {
            return Some("nobody leads".to_owned());
        };
        let left = self.steps(leader);
        let membership = &self.replicas[leader].membership;
        let are_right = those_vote_that_are_to(membership, &members);
        (!are_right || !left.is_empty()).then(|| format!("{members:?} and {membership:?}, to be done {left:?}"))
    }
}

fn those_vote_that_are_to(membership: &Membership, members: &[Member]) -> bool {
    let voters: BTreeSet<u64> = membership.voters.iter().map(|voter| voter.get()).collect();
    let wanted = |id: &u64| members.iter().any(|member| member.id == *id && !member.non_voting);
    // One that drains stays what it is.
    let active = members.iter().filter(|member| member.state() == MemberState::Active && !member.non_voting);
    let mut missing = active.filter(|member| !voters.contains(&member.id));
    !voters.is_empty() && voters.iter().all(wanted) && (voters.len() >= MAX_VOTERS || missing.next().is_none())
}
