//! Messages that no honest replica sends: they may break the group that they claim to be of, but raft-rs, which panics
//! on much, must never be given one that it panics on. This is the proof that `validate` and `admit` are complete.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::eraftpb;
use raft::prelude::MessageType;

use super::disk::{Op, Store};
use super::rng::Rng;
use super::runs::{Mode, run_captured};
use super::scenario::Plan;
use crate::ident::{LogIndex, ReplicaId};
use crate::raftstore::context::Context;
use crate::raftstore::group::{Committed, Group, LogRead, Persist, PersistId, RequestId, TermRuns};
use crate::raftstore::message::Message;

/// Victims of each test, and what is done to each.
const VICTIMS: u64 = 2500;
const STEPS: u64 = 400;

/// One replica, and a driver that does as it should, but slowly.
struct Victim {
    id: u64,
    /// Out of a thousand steps, how many are its own disk's.
    pace: u64,
    /// Terms are mostly its own: who hears of others all the time never leads for long.
    calm: bool,
    plan: Plan,
    group: Group,
    disk: Store,
    to_write: VecDeque<Persist>,
    written: VecDeque<PersistId>,
    to_apply: VecDeque<Committed>,
    to_read: VecDeque<LogRead>,
    applied: u64,
    requests: u64,
    taken: u64,
    has_stopped: bool,
}

impl Victim {
    fn new(rng: &mut Rng) -> Victim {
        let mut plan = Plan::draw(rng);
        plan.small = rng.chance(800);
        let id = 1 + rng.below(plan.replicas());
        let disk = Store::of(plan.membership());
        let group = open(&plan, id, &disk, rng.next());
        Victim {
            id,
            pace: rng.pick(&[30, 125, 400]),
            calm: rng.chance(600),
            plan,
            group,
            disk,
            to_write: VecDeque::new(),
            written: VecDeque::new(),
            to_apply: VecDeque::new(),
            to_read: VecDeque::new(),
            applied: 0,
            requests: 0,
            taken: 0,
            has_stopped: false,
        }
    }

    fn restart(&mut self, rng: &mut Rng) {
        self.to_write.clear();
        self.written.clear();
        self.to_apply.clear();
        self.to_read.clear();
        self.applied = self.disk.applied;
        self.group = open(&self.plan, self.id, &self.disk, rng.next());
    }

    /// Something happens to it.
    fn act(&mut self, captured: &[Message], rng: &mut Rng) {
        self.requests += 1;
        let request = RequestId(self.requests);
        if rng.chance(self.pace) {
            return self.work();
        }
        match rng.below(40) {
            0..=5 => self.group.tick(),
            6 | 7 => {
                let bytes = rng.below(300) as usize;
                self.group.propose(request, vec![7; bytes], None);
            }
            8 => self.group.read(request),
            9 => drop(self.group.transfer_leader(ReplicaId::new(rng.below(7)))),
            10 => self.group.campaign(),
            11 => self.group.unreachable(ReplicaId::new(rng.below(7))),
            12 if rng.chance(300) => self.restart(rng),
            13..=21 if !captured.is_empty() => {
                let mut message = captured[rng.below(captured.len() as u64) as usize].0.clone();
                message.to = self.id;
                for _ in 0..rng.below(3) {
                    self.mutate(&mut message, rng);
                }
                self.step(message);
            }
            22 if !captured.is_empty() => {
                let mut bytes = captured[rng.below(captured.len() as u64) as usize].encode().to_vec();
                for _ in 0..rng.range(1, 4) {
                    let place = rng.below(bytes.len() as u64) as usize;
                    bytes[place] = rng.next() as u8;
                }
                if let Some(message) = Message::decode(&bytes) {
                    self.step(message.0);
                }
            }
            _ => {
                let message = self.invent(rng);
                self.step(message);
            }
        }
        if rng.chance(700) {
            self.round();
        }
    }

    fn step(&mut self, message: eraftpb::Message) {
        self.taken += u64::from(self.group.step(Message(message)).is_ok());
    }

    fn round(&mut self) {
        // An entry that makes no sense stops it, if liars have it committed. That is not a panic.
        let Ok(effects) = self.group.effects() else {
            self.has_stopped = true;
            return;
        };
        self.to_write.extend(effects.persist);
        self.to_apply.extend(effects.apply);
        self.to_read.extend(effects.read_log);
    }

    /// Does one thing of each kind that waits.
    fn work(&mut self) {
        if let Some(persist) = self.to_write.pop_front() {
            self.written.push_back(persist.id);
            self.disk.write(&Op::Log(persist));
        }
        if let Some(id) = self.written.pop_front() {
            self.group.persisted(id);
        }
        if let Some(committed) = self.to_apply.pop_front() {
            self.applied = committed.entry.index().get();
            self.disk.write(&Op::Apply { index: self.applied, writes: Vec::new(), membership: None });
            self.group.applied(LogIndex::new(self.applied), LogIndex::new(self.applied));
        }
        if let Some(read) = self.to_read.pop_front() {
            let (start, end) = (read.range.start.get(), read.range.end.get());
            let entries = self.disk.entries(start, end, read.limit_bytes);
            self.group.log_read(&read, entries);
        }
    }

    /// A number as a liar would choose it: near what matters.
    fn index(&self, rng: &mut Rng) -> u64 {
        let now = self.group.positions();
        let near = rng.pick(&[now.first, now.applied, now.committed, now.persisted, now.last]).get();
        match rng.below(16) {
            0 => rng.pick(&[0, 1, u64::MAX, u64::MAX - 1, u64::MAX / 2]),
            _ => (near + rng.below(5)).saturating_sub(2),
        }
    }

    fn term(&self, rng: &mut Rng) -> u64 {
        let now = self.group.positions().term.get();
        match rng.below(if self.calm { 600 } else { 24 }) {
            0 => rng.pick(&[0, u64::MAX, u64::MAX - 1, 1 << 62, (1 << 62) + 1]),
            1..=3 => (now + 1) + rng.below(2),
            4 | 5 => now.saturating_sub(1),
            _ => now,
        }
    }

    /// The term of an entry, mostly.
    fn term_at(&self, index: u64, rng: &mut Rng) -> u64 {
        match rng.chance(800) {
            true => self.disk.position(index).term.get(),
            false => self.term(rng),
        }
    }

    fn entries(&self, after: u64, log_term: u64, term: u64, rng: &mut Rng) -> Vec<eraftpb::Entry> {
        let mut last = log_term;
        let contexts = [
            Context::Plain.encode(),
            Context::Compact(LogIndex::new(self.index(rng))).encode(),
            vec![9; rng.below(20) as usize],
        ];
        (1..=rng.below(4))
            .map(|place| {
                let index = after.wrapping_add(if rng.chance(980) { place } else { self.index(rng) });
                last = if rng.chance(500) { self.term_at(index, rng) } else { rng.pick(&[last, term]) };
                let context = rng.weighted(&[(40, 0), (10, 1), (1, 2)]);
                eraftpb::Entry {
                    entry_type: if rng.chance(990) { 0 } else { rng.below(4) as i32 },
                    term: last,
                    index,
                    data: vec![1; rng.pick(&[0, 9, 9, 200, 2000])],
                    context: contexts[context].clone(),
                    sync_log: rng.chance(10),
                }
            })
            .collect()
    }

    /// A message that looks well, nearly.
    fn invent(&self, rng: &mut Rng) -> eraftpb::Message {
        let now = self.group.positions();
        let leader = now.leader.map_or(0, ReplicaId::get);
        let mut message = eraftpb::Message {
            to: self.id,
            from: if rng.chance(300) { leader } else { rng.below(self.plan.replicas() + 2) },
            term: self.term(rng),
            index: self.index(rng),
            commit: self.index(rng),
            reject: rng.chance(300),
            reject_hint: self.index(rng),
            priority: rng.below(3) as i64,
            ..Default::default()
        };
        message.log_term = self.term_at(message.index, rng);
        message.commit_term = self.term_at(message.commit, rng);
        let kind = rng.weighted(&[
            (8, MessageType::MsgAppend),
            (4, MessageType::MsgAppendResponse),
            (3, MessageType::MsgHeartbeat),
            (2, MessageType::MsgHeartbeatResponse),
            (2, MessageType::MsgRequestVote),
            (5, MessageType::MsgRequestVoteResponse),
            (2, MessageType::MsgRequestPreVote),
            (5, MessageType::MsgRequestPreVoteResponse),
            (2, MessageType::MsgTimeoutNow),
            (2, MessageType::MsgReadIndex),
            (2, MessageType::MsgReadIndexResp),
            (1, MessageType::MsgSnapshot),
        ]);
        message.set_msg_type(kind);
        match kind {
            MessageType::MsgAppend => {
                message.entries = self.entries(message.index, message.log_term, message.term, rng);
            }
            MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
                let data = vec![rng.below(3) as u8; if rng.chance(900) { 16 } else { 3 }];
                message.entries = vec![eraftpb::Entry { data, ..Default::default() }; rng.pick(&[1, 1, 1, 0, 2])];
                message.term = if kind == MessageType::MsgReadIndex { 0 } else { message.term };
            }
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => {
                message.context = vec![rng.below(3) as u8; rng.pick(&[0, 16, 16, 5])];
            }
            MessageType::MsgRequestPreVoteResponse if rng.chance(700) => {
                (message.term, message.reject) = (now.term.get() + 1, false);
            }
            MessageType::MsgRequestVoteResponse if rng.chance(700) => {
                (message.term, message.reject) = (now.term.get(), false);
            }
            MessageType::MsgAppendResponse if rng.chance(200) => message.reject_hint = u64::MAX,
            MessageType::MsgRequestVote if rng.chance(300) => message.context = b"CampaignTransfer".to_vec(),
            _ => {}
        }
        if rng.chance(100) {
            self.mutate(&mut message, rng);
        }
        message
    }

    fn mutate(&self, message: &mut eraftpb::Message, rng: &mut Rng) {
        match rng.below(14) {
            0 => message.msg_type = rng.below(24) as i32 - 2,
            1 => message.from = rng.below(8),
            2 => message.to = rng.below(8),
            3 | 4 => message.term = self.term(rng),
            5 => message.log_term = self.term(rng),
            6 | 7 => message.index = self.index(rng),
            8 => message.commit = self.index(rng),
            9 => message.reject = !message.reject,
            10 => message.reject_hint = self.index(rng),
            11 => message.request_snapshot = rng.below(2),
            12 => message.context = vec![0; rng.below(20) as usize],
            _ => message.entries = self.entries(message.index, message.log_term, message.term, rng),
        }
    }
}

fn open(plan: &Plan, id: u64, disk: &Store, seed: u64) -> Group {
    let store = disk;
    let stored = store.stored(id, store.applied);
    let terms = TermRuns::find(stored.truncated, stored.last, |index| store.term(index).ok_or(index)).unwrap();
    Group::open(plan.config(id), &stored, None, terms, seed).unwrap()
}

fn torment(first: u64) {
    let captured = run_captured(first, Mode::default());
    let (mut taken, mut stopped) = (0, 0);
    for seed in first..first + VICTIMS {
        let rng = &mut Rng::new(seed);
        let mut victim = Victim::new(rng);
        let result = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                if !victim.has_stopped {
                    victim.act(&captured, rng);
                }
            }
            (victim.taken, victim.has_stopped)
        }));
        let (took, has_stopped) = result.unwrap_or_else(|_| panic!("victim {seed} panicked"));
        taken += took;
        stopped += u64::from(has_stopped);
    }
    assert!(stopped < VICTIMS / 20, "nearly all go on: {stopped} stopped");
    assert!(taken > VICTIMS * STEPS / 10, "nearly all messages are refused: {taken}");
}

#[test]
fn lies_do_not_make_it_panic_a() {
    torment(0);
}

#[test]
fn lies_do_not_make_it_panic_b() {
    torment(1_000_000);
}
