//! What must hold of a group after every step, whatever happens.

use std::collections::BTreeMap;

use raft::prelude::MessageType;

use super::rng::Digest;
use super::world::{Checked, World, violated};
use crate::ident::ReplicaId;
use crate::raftstore::entry::{Entry, Membership};
use crate::raftstore::group::{Positions, Role};
use crate::raftstore::message::Message;

/// An entry as the checks know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) term: u64,
    pub(super) digest: u64,
    pub(super) bytes: usize,
}

impl Mark {
    pub(super) fn of(entry: &Entry) -> Mark {
        let digest = Digest::new().bytes(entry.data()).number(1).bytes(entry.context()).number(entry.term().get());
        Mark { term: entry.term().get(), digest: digest.0, bytes: entry.size_bytes() }
    }
}

/// What is known of a group in the whole cluster.
pub(super) struct Watch {
    /// Who led which term.
    pub(super) leaders: BTreeMap<u64, u64>,
    /// The digest and the term before of each entry, by index and term.
    entries: BTreeMap<(u64, u64), (u64, u64)>,
    /// What is committed, from index 1 on.
    pub(super) committed: Vec<Mark>,
    /// In which term each was found to be.
    committed_in: Vec<u64>,
    /// And when.
    pub(super) committed_at: Vec<u64>,
    /// The state after each index.
    states: Vec<u64>,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch {
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: Vec::new(),
            committed_in: Vec::new(),
            committed_at: Vec::new(),
            states: Vec::new(),
        }
    }

    /// One replica goes on alone: what it has applied stays, and the states after each of these entries.
    pub(super) fn cut(&mut self, states: Vec<u64>) {
        let applied = states.len();
        self.leaders.clear();
        self.entries.clear();
        self.committed.truncate(applied);
        self.committed_in.truncate(applied);
        self.committed_at.truncate(applied);
        self.states = states;
    }

    /// Log matching: an entry is the same wherever it stands, and so is the one before it; so by induction are all.
    pub(super) fn entry(&mut self, index: u64, mark: Mark, before: u64) -> Checked {
        let now = (mark.digest, before);
        match self.entries.insert((index, mark.term), now) {
            Some(known) if known != now => {
                violated("log matching", format!("entry {index} of term {} differs", mark.term))
            }
            _ if before > mark.term => violated("log matching", format!("terms fall at entry {index}")),
            _ => Ok(()),
        }
    }

    /// A leader that was never heard of and forgot its own vote in a crash was none: the term may be led again.
    pub(super) fn forget_leader(&mut self, replica: u64, term: u64) {
        if self.leaders.get(&term) == Some(&replica) {
            self.leaders.remove(&term);
            self.entries.retain(|(_, of), _| *of != term);
        }
    }

    /// State-machine safety: the same state after the same index, everywhere.
    pub(super) fn state(&mut self, replica: u64, index: u64, mark: Mark, state: u64) -> Checked {
        let place = index as usize - 1;
        if self.committed.get(place) != Some(&mark) {
            return violated("state-machine safety", format!("{replica} applies another entry {index}"));
        }
        match self.states.get(place) {
            Some(known) if *known != state => {
                violated("state-machine safety", format!("{replica} has another state after entry {index}"))
            }
            Some(_) => Ok(()),
            None => {
                self.states.push(state);
                Ok(())
            }
        }
    }
}

impl World {
    /// Looks at a replica after its step.
    pub(super) fn watch_replica(&mut self, place: usize) -> Checked {
        let Some(group) = &self.replicas[place].group else { return Ok(()) };
        let now = group.positions();
        let before = std::mem::replace(&mut self.replicas[place].positions, now);
        self.trace.digest = self.trace.digest.number(now.term.get()).number(now.committed.get()).number(now.last.get());
        if now == before {
            return Ok(());
        }
        self.check_positions(place, &before, &now)?;
        self.check_committed(place, before.committed.get(), now.committed.get())?;
        if now.role == Role::Leader && (before.role != Role::Leader || before.term != now.term) {
            self.check_leader(place, now.term.get())?;
        }
        Ok(())
    }

    fn check_positions(&self, place: usize, before: &Positions, now: &Positions) -> Checked {
        let ordered = now.applied <= now.committed
            && now.committed <= now.last
            && now.applied <= now.persisted
            && now.persisted <= now.last
            && (now.first.get() <= now.applied.get() + 1 || self.replicas[place].is_taking_over);
        if !ordered {
            return violated("order of positions", format!("{}: {now:?}", place + 1));
        }
        let fell = now.term < before.term || now.committed < before.committed || now.applied < before.applied;
        if fell || now.first < before.first {
            return violated("monotonic positions", format!("{}: {before:?}, then {now:?}", place + 1));
        }
        let last = self.replicas[place].mirror.len() as u64;
        if last != now.last.get() {
            return violated("order of positions", format!("{}: {last} written, {now:?}", place + 1));
        }
        let persisted = now.persisted.get();
        let it = &self.replicas[place];
        let (durable, mirror) = (self.hosts[it.host].disk.durable.of(place), &it.mirror);
        let kept = persisted == 0 || durable.position(persisted).term.get() == mirror[persisted as usize - 1].term;
        if self.rules && !kept {
            return violated("rule 2: persisted is durable", format!("{}: entry {persisted} is not", place + 1));
        }
        Ok(())
    }

    /// Committed entries never change, and are durable on a majority.
    fn check_committed(&mut self, place: usize, from: u64, to: u64) -> Checked {
        let mut is_new = false;
        let it = &self.replicas[place];
        let cell = it.cell;
        let watch = &mut self.cells[cell].watch;
        for index in from + 1..=to {
            let mark = it.mirror[index as usize - 1];
            match watch.committed.get(index as usize - 1) {
                Some(known) if *known != mark => {
                    return violated("committed is immutable", format!("{}: entry {index} changed", place + 1));
                }
                Some(_) => {}
                None => {
                    is_new = true;
                    watch.committed.push(mark);
                    watch.committed_in.push(it.positions.term.get());
                    watch.committed_at.push(self.now);
                }
            }
        }
        let now = self.replicas[place].group.as_ref().map(|group| group.status().membership).unwrap_or_default();
        let before = std::mem::replace(&mut self.replicas[place].membership, now.clone());
        if !is_new {
            return Ok(());
        }
        // Raft-rs may have moved its commit before it took over a change that this committed, or behind that.
        match self.is_on_quorum(cell, to, &before) || self.is_on_quorum(cell, to, &now) {
            true => Ok(()),
            false => violated("committed is durable on a quorum", format!("entry {to}, of {before:?} or {now:?}")),
        }
    }

    /// One configuration's majority at a time, or in a joint one both; a learner never counts.
    fn is_on_quorum(&self, cell: usize, index: u64, membership: &Membership) -> bool {
        let mark = self.cells[cell].watch.committed[index as usize - 1];
        let holds = |replica: &&ReplicaId| {
            let place = self.place(cell, **replica);
            let durable = self.hosts[self.replicas[place].host].disk.durable.get(place);
            durable.is_some_and(|durable| durable.position(index).term.get() == mark.term)
        };
        let majority = |voters: &[ReplicaId]| voters.iter().filter(holds).count() * 2 > voters.len();
        majority(&membership.voters) && (!membership.is_joint() || majority(&membership.voters_outgoing))
    }

    /// Election safety and leader completeness.
    fn check_leader(&mut self, place: usize, term: u64) -> Checked {
        let id = self.replicas[place].id;
        self.note(|_| format!("{id} leads term {term}"));
        self.seen.note(super::seen::Happening::Elected);
        self.at_border(self.replicas[place].host);
        self.check_may_lead(place)?;
        self.metadata_led(term);
        if std::mem::take(&mut self.replicas[place].offered_leadership) {
            self.seen.note(super::seen::Happening::Transferred);
        }
        let watch = &mut self.cells[self.replicas[place].cell].watch;
        if let Some(other) = watch.leaders.insert(term, id).filter(|other| *other != id) {
            return violated("election safety", format!("{other} and {id} lead term {term}"));
        }
        // One that is elected late, when a later one has committed already, need not have what that one committed.
        let mirror = &self.replicas[place].mirror;
        let before = watch.committed_in.iter().take_while(|committed_in| **committed_in < term).count();
        let mut committed = watch.committed.iter().take(before).enumerate();
        match committed.find(|(at, mark)| mirror.get(*at) != Some(mark)) {
            Some((at, _)) => {
                violated("leader completeness", format!("{id} leads term {term} without entry {}", at + 1))
            }
            None => Ok(()),
        }
    }

    /// Rules of durable order 1 and 2: what a message says is durable where it leaves.
    pub(super) fn check_promise(&self, place: usize, message: &Message) -> Checked {
        let durable = self.hosts[self.replicas[place].host].disk.durable.of(place);
        let (term, kind) = (message.term().get(), message.kind());
        let known = durable.hard_state.term.get();
        let asks = matches!(
            kind,
            MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse | MessageType::MsgReadIndex
        );
        if !self.rules || asks {
            return Ok(());
        }
        if known < term {
            return violated(
                "rule 1: term and vote first",
                format!("{message:?} leaves while term {known} is durable"),
            );
        }
        let vote = match kind {
            MessageType::MsgRequestVote => Some(message.from()),
            MessageType::MsgRequestVoteResponse if !message.0.reject => Some(message.to()),
            _ => None,
        };
        if known == term && vote.is_some_and(|vote: ReplicaId| durable.hard_state.vote != Some(vote)) {
            return violated("rule 1: term and vote first", format!("{message:?} leaves before its vote is durable"));
        }
        let acknowledged = match kind {
            MessageType::MsgAppendResponse if !message.0.reject && known == term => message.0.index,
            _ => 0,
        };
        if acknowledged > durable.log.len() as u64 {
            return violated("rule 2: entries first", format!("{message:?} acknowledges {acknowledged} too early"));
        }
        Ok(())
    }
}
