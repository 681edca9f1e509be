//! A network that drops, delays, duplicates, reorders and cuts, one way too.

use raft::prelude::MessageType;

use super::seen::Happening;
use super::watch::Mark;
use super::world::{Checked, Event, TICK, World};
use crate::ident::ReplicaId;
use crate::raftstore::group::Rejected;
use crate::raftstore::message::Message;

impl World {
    pub(super) fn send(&mut self, from: usize, mut message: Message) -> Checked {
        self.check_promise(from, &message)?;
        if message.kind() == MessageType::MsgAppend && self.rng.chance(self.plan.early) {
            self.begin_earlier(from, &mut message);
        }
        if !matches!(message.kind(), MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse) {
            let told = &mut self.nodes[from].told_term;
            *told = (*told).max(message.term().get());
        }
        match message.kind() {
            MessageType::MsgRequestPreVote => self.seen.note(Happening::PreVote),
            MessageType::MsgReadIndex => self.seen.note(Happening::ForwardedRead),
            MessageType::MsgTimeoutNow => self.nodes[message.to().get() as usize - 1].offered_leadership = true,
            _ => {}
        }
        if self.rng.chance(20) {
            match Message::decode(&message.encode()) {
                Some(same) if same == message => {}
                _ => return super::world::violated("codec", format!("{message:?} does not come back")),
            }
        }
        if let Some(captured) = &mut self.captured {
            captured.push(message.clone());
        }
        if message.kind() == MessageType::MsgSnapshot {
            self.send_snapshot(from, message);
            return Ok(());
        }
        let to = message.to().get() as usize - 1;
        if self.blocked[from][to] {
            if self.rng.chance(300)
                && let Some(group) = &mut self.nodes[from].group
            {
                group.unreachable(ReplicaId::new(to as u64 + 1));
            }
            return Ok(());
        }
        if !self.healed && self.rng.chance(self.plan.dropped) {
            return Ok(());
        }
        let delay = self.message_delay();
        if !self.healed && self.rng.chance(self.plan.duplicated) {
            self.seen.note(Happening::Duplicated);
            let delay = self.message_delay();
            self.after(delay, Event::Deliver { node: to, message: Box::new(message.clone()) });
        }
        self.after(delay, Event::Deliver { node: to, message: Box::new(message) });
        Ok(())
    }

    /// Raft lets a leader send entries that a follower may have. Raft-rs never does without need; others do.
    fn begin_earlier(&mut self, from: usize, message: &mut Message) {
        let first = self.nodes[from].positions.first.get();
        let index = message.0.index;
        let start = index.saturating_sub(self.rng.range(1, 4)).max(first.saturating_sub(1));
        let node = &self.nodes[from];
        let log: Vec<_> = node.disk.current.log.iter().skip(start as usize).take((index - start) as usize).collect();
        // What is not written yet is not known here.
        let known = log.len() as u64 == index - start
            && (start..).zip(&log).all(|(place, entry)| node.mirror[place as usize] == Mark::of(entry));
        if known && index > start {
            let earlier: Vec<_> = log.into_iter().map(|entry| entry.0.clone()).collect();
            message.0.entries.splice(..0, earlier);
            message.0.index = start;
            message.0.log_term = node.disk.current.position(start).term.get();
            self.seen.note(Happening::BegunEarlier);
        }
    }

    pub(super) fn message_delay(&mut self) -> u64 {
        if self.healed {
            return 1 + self.rng.below(TICK / 4);
        }
        match self.rng.chance(self.plan.delayed) {
            true => 1 + self.rng.below(self.plan.long_delay),
            false => 1 + self.rng.below(self.plan.delay),
        }
    }

    pub(super) fn deliver(&mut self, node: usize, message: Message) -> Checked {
        let from = message.from().get() as usize - 1;
        // What is on its way when a link is cut is lost as well, mostly.
        if self.blocked[from][node] && self.rng.chance(800) {
            return Ok(());
        }
        self.note(|_| format!("{message:?}"));
        if self.nodes[node].sleeps_through(&message) {
            return Ok(());
        }
        self.rouse(node, Happening::WokenByMessage);
        let Some(group) = &mut self.nodes[node].group else { return Ok(()) };
        let result = group.step(message);
        if let Err(error) = result {
            self.note(|_| format!("  refused: {error}"));
        }
        match result {
            Err(Rejected::Starting) => self.seen.note(Happening::RejectedStarting),
            Err(Rejected::Busy) => self.seen.note(Happening::RejectedBusy),
            Err(Rejected::Removed) => self.seen.note(Happening::RemovedRefused),
            // No honest sender breaks these rules.
            Err(error @ (Rejected::BeyondLog { .. } | Rejected::Kind | Rejected::TooLarge | Rejected::NotForUs)) => {
                return super::world::violated("honest messages are taken", error.to_string());
            }
            _ => {}
        }
        self.drive(node)
    }
}
