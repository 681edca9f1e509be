//! A network that drops, delays, duplicates, reorders and cuts, one way too.

use raft::prelude::MessageType;

use super::seen::Happening;
use super::watch::Mark;
use super::world::{Checked, Event, TICK, World};
use crate::raftstore::group::Rejected;
use crate::raftstore::message::Message;

impl World {
    pub(super) fn send(&mut self, from: usize, mut message: Message) -> Checked {
        self.check_promise(from, &message)?;
        if message.kind() == MessageType::MsgAppend && self.rng.chance(self.plan.early) {
            self.begin_earlier(from, &mut message);
        }
        if !matches!(message.kind(), MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse) {
            let told = &mut self.replicas[from].told_term;
            *told = (*told).max(message.term().get());
        }
        match message.kind() {
            MessageType::MsgRequestPreVote => self.seen.note(Happening::PreVote),
            MessageType::MsgReadIndex => self.seen.note(Happening::ForwardedRead),
            MessageType::MsgTimeoutNow => {
                let to = self.place(self.replicas[from].cell, message.to());
                self.replicas[to].offered_leadership = true;
            }
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
            self.check_gives(from)?;
            self.send_snapshot(from, message);
            return Ok(());
        }
        let (host, to) = (self.replicas[from].host, self.plan.host_of(message.to().get()));
        if self.blocked[host][to] {
            if self.rng.chance(300)
                && let Some(group) = &mut self.replicas[from].group
            {
                group.unreachable(message.to());
            }
            return Ok(());
        }
        if !self.healed && self.rng.chance(self.plan.dropped) {
            return Ok(());
        }
        let (delay, group) = (self.message_delay(), self.replicas[from].cell);
        if !self.healed && self.rng.chance(self.plan.duplicated) {
            self.seen.note(Happening::Duplicated);
            let delay = self.message_delay();
            self.after(delay, Event::Deliver { host: to, group, message: Box::new(message.clone()) });
        }
        self.after(delay, Event::Deliver { host: to, group, message: Box::new(message) });
        Ok(())
    }

    /// Raft lets a leader send entries that a follower may have. Raft-rs never does without need; others do.
    fn begin_earlier(&mut self, from: usize, message: &mut Message) {
        let first = self.replicas[from].positions.first.get();
        let index = message.0.index;
        let start = index.saturating_sub(self.rng.range(1, 4)).max(first.saturating_sub(1));
        let (mirror, store) = (&self.replicas[from].mirror, self.store(from));
        let log: Vec<_> = store.log.iter().skip(start as usize).take((index - start) as usize).collect();
        // What is not written yet is not known here.
        let known = log.len() as u64 == index - start
            && (start..).zip(&log).all(|(at, entry)| mirror.get(at as usize) == Some(&Mark::of(entry)));
        if known && index > start {
            let earlier: Vec<_> = log.into_iter().map(|entry| entry.0.clone()).collect();
            message.0.entries.splice(..0, earlier);
            message.0.index = start;
            message.0.log_term = store.position(start).term.get();
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

    pub(super) fn deliver(&mut self, host: usize, group: usize, message: Message) -> Checked {
        let from = self.plan.host_of(message.from().get());
        // What is on its way when a link is cut is lost as well, mostly.
        if self.blocked[from][host] && self.rng.chance(800) {
            return Ok(());
        }
        self.note(|_| format!("{message:?}"));
        // A node has one replica of a group, whichever the message is for.
        let Some(place) = self.made_on(host, group) else { return Ok(()) };
        if self.replicas[place].sleeps_through(&message) {
            return Ok(());
        }
        self.rouse(place, Happening::WokenByMessage);
        let (sender, is_late) = (message.from(), message.to().get() != self.replicas[place].id);
        let Some(raft) = &mut self.replicas[place].group else { return Ok(()) };
        let result = raft.step(message);
        if let Err(error) = result {
            self.note(|_| format!("  refused: {error}"));
        }
        match result {
            Err(Rejected::Starting) => self.seen.note(Happening::RejectedStarting),
            Err(Rejected::Busy) => self.seen.note(Happening::RejectedBusy),
            Err(Rejected::Removed) => {
                self.seen.note(Happening::RemovedRefused);
                self.tell_removed(place, self.place(group, sender));
            }
            Err(Rejected::NotForUs) if is_late => self.seen.note(Happening::LateForDestroyed),
            // No honest sender breaks these rules.
            Err(error @ (Rejected::BeyondLog { .. } | Rejected::Kind | Rejected::TooLarge | Rejected::NotForUs)) => {
                return super::world::violated("honest messages are taken", error.to_string());
            }
            _ => {}
        }
        self.drive(place)
    }
}
