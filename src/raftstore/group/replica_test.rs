//! The promises of one replica, each by its name. What many of them do together is the simulator's (`tests/sim`).

use raft::eraftpb;
use raft::prelude::MessageType;

use super::persisting::MAX_HELD_MESSAGES;
use super::*;
use crate::ident::{LogIndex, NodeId, ReplicaId, Term};
use crate::raftstore::consistency::{CheckMessage, GivenUp, Verdict};
use crate::raftstore::entry::{Cause, Entry, HardState, Membership, Position, Unhealthy};
use crate::raftstore::log_store::StoredGroup;
use crate::raftstore::message::Message;

/// Replica 1 of a group, and what it asked for and was not given yet.
pub(super) struct Bench {
    pub(super) group: Group,
    pub(super) sent: Vec<Message>,
    pub(super) persist: Vec<Persist>,
    pub(super) apply: Vec<Committed>,
    pub(super) checks: Vec<(ReplicaId, CheckMessage)>,
    pub(super) checked: Vec<Result<Verdict, GivenUp>>,
    pub(super) answers: Vec<Answer>,
    /// Its log as written.
    log: Vec<Entry>,
}

pub(super) fn membership(voters: u64, learner: Option<u64>) -> Membership {
    let group = Membership::of_voters((1..=voters).map(|number| (ReplicaId::new(number), NodeId::new(number))));
    match learner {
        Some(learner) => group.with_learner(ReplicaId::new(learner), NodeId::new(learner)),
        None => group,
    }
}

impl Bench {
    pub(super) fn new(membership: Membership, adjust: impl FnOnce(&mut GroupConfig)) -> Bench {
        Bench::open(membership, Vec::new(), adjust)
    }

    /// All of the log is committed, and nothing of it is applied.
    pub(super) fn open(membership: Membership, log: Vec<Entry>, adjust: impl FnOnce(&mut GroupConfig)) -> Bench {
        let mut config = GroupConfig::new(ReplicaId::new(1));
        adjust(&mut config);
        let last = log.last().map_or(Position::default(), Entry::position);
        let stored = StoredGroup {
            replica: config.replica,
            hard_state: HardState { term: last.term, vote: None, commit: last.index },
            membership,
            applied: LogIndex::default(),
            truncated: Position::default(),
            last,
            unhealthy: None,
        };
        let terms = TermRuns::find(stored.truncated, last, |index| {
            let place = index.get() as usize;
            Ok::<_, ()>(if place == 0 { Term::default() } else { log[place - 1].term() })
        });
        let group = Group::open(config, &stored, None, terms.unwrap(), 7).unwrap();
        let (sent, persist, apply, checks, checked, answers) = Default::default();
        Bench { group, sent, persist, apply, checks, checked, answers, log }
    }

    /// Takes the effects and carries none out.
    pub(super) fn round(&mut self) {
        let effects = self.group.effects().unwrap();
        self.sent.extend(effects.send);
        self.persist.extend(effects.persist);
        self.apply.extend(effects.apply);
        self.answers.extend(effects.answers);
        self.checks.extend(effects.checks);
        self.checked.extend(effects.checked);
        if let Some(index) = effects.restored {
            self.group.applied(index, index);
        }
    }

    /// Writes everything that it wants written.
    pub(super) fn write(&mut self) {
        self.round();
        while !self.persist.is_empty() {
            for persist in std::mem::take(&mut self.persist) {
                self.group.persisted(persist.id);
            }
            self.round();
        }
    }

    /// Writes and applies everything; says whose requests were applied.
    pub(super) fn work(&mut self) -> Vec<RequestId> {
        let mut requests = Vec::new();
        self.write();
        while !self.apply.is_empty() {
            for committed in std::mem::take(&mut self.apply) {
                requests.extend(committed.request);
                let index = committed.entry.index();
                self.group.applied(index, index);
            }
            self.write();
        }
        requests
    }

    pub(super) fn step(&mut self, kind: MessageType, from: u64, fill: impl FnOnce(&mut eraftpb::Message)) {
        let term = self.group.positions().term.get();
        let mut message = eraftpb::Message { from, to: 1, term, ..Default::default() };
        message.set_msg_type(kind);
        fill(&mut message);
        self.group.step(Message(message)).unwrap();
        self.round();
    }

    /// An append of a leader of `term` with entries of these terms behind `after`.
    pub(super) fn append(&mut self, from: u64, term: u64, after: Position, terms: &[u64], commit: u64) {
        let entry =
            |(index, term): (u64, &u64)| Entry::command(Position::new(index, *term), vec![1; 100], Vec::new()).0;
        self.step(MessageType::MsgAppend, from, |message| {
            message.term = term;
            (message.index, message.log_term) = (after.index.get(), after.term.get());
            message.commit = commit;
            message.entries = (after.index.get() + 1..).zip(terms).map(entry).collect();
        });
    }

    /// A follower has everything up to here.
    pub(super) fn acknowledge(&mut self, from: u64, index: u64) {
        self.step(MessageType::MsgAppendResponse, from, |message| message.index = index);
    }

    /// Makes it the leader of three, with its first entry committed and applied.
    pub(super) fn lead(mut self) -> Bench {
        self.group.campaign();
        self.work();
        self.step(MessageType::MsgRequestPreVoteResponse, 2, |message| message.term += 1);
        self.work();
        self.step(MessageType::MsgRequestVoteResponse, 2, |_| {});
        self.work();
        assert_eq!(self.group.positions().role, Role::Leader);
        let last = self.group.positions().last.get();
        self.acknowledge(2, last);
        self.work();
        assert_eq!(self.group.positions().applied.get(), last);
        self.sent.clear();
        self
    }

    pub(super) fn propose(&mut self, number: u64, bytes: usize) {
        self.group.propose(RequestId(number), vec![1; bytes], None);
        self.round();
    }

    fn answers(&mut self) -> Vec<Answer> {
        self.round();
        std::mem::take(&mut self.answers)
    }

    fn appended_to(&mut self, follower: u64) -> Vec<Message> {
        self.round();
        let to = ReplicaId::new(follower);
        let sent = std::mem::take(&mut self.sent);
        let appends = sent.into_iter().filter(|it| it.kind() == MessageType::MsgAppend && it.to() == to);
        appends.filter(|it| it.entries().count() > 0).collect()
    }

    /// Time passes, while the others are alive.
    pub(super) fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.group.tick();
            self.work();
            if self.group.positions().role == Role::Leader {
                self.step(MessageType::MsgHeartbeatResponse, 2, |_| {});
            }
        }
    }
}

#[test]
fn a_sole_voter_acknowledges_only_what_is_durable() {
    let mut bench = Bench::new(membership(1, None), |_| {});
    bench.group.campaign();
    bench.work();
    bench.propose(1, 10);
    let persist = bench.persist.remove(0);
    assert!(persist.must_sync && persist.entries.len() == 1);
    bench.group.tick();
    bench.round();
    assert!(bench.apply.is_empty(), "nothing is committed before the write is done");
    bench.group.persisted(persist.id);
    assert_eq!(bench.work(), [RequestId(1)]);
}

#[test]
fn a_leader_says_nothing_before_its_vote_is_durable() {
    let mut bench = Bench::new(membership(1, Some(2)), |_| {});
    bench.group.campaign();
    bench.round();
    assert_eq!(bench.group.positions().role, Role::Leader);
    assert!(bench.sent.is_empty(), "{:?}", bench.sent);
    assert!(bench.persist.iter().any(|persist| persist.votes && persist.must_sync));
    bench.write();
    assert!(bench.sent.iter().any(|message| message.kind() == MessageType::MsgAppend));
}

/// Entries are cut off and come back while they are being written: the completion of their first write says nothing of
/// the last, for the one between removes them again.
#[test]
fn an_old_completion_says_nothing_of_entries_that_came_back() {
    let mut bench = Bench::new(membership(5, None), |_| {});
    bench.append(2, 1, Position::new(0, 0), &[1, 1], 0);
    bench.append(3, 2, Position::new(0, 0), &[2], 0);
    bench.append(2, 3, Position::new(0, 0), &[1, 1, 3], 0);
    let ids: Vec<PersistId> = bench.persist.drain(..).map(|persist| persist.id).collect();
    assert_eq!(ids.len(), 3);
    for (id, persisted) in ids.into_iter().zip([0, 0, 3]) {
        bench.group.persisted(id);
        bench.round();
        assert_eq!(bench.group.positions().persisted.get(), persisted, "{id:?}");
    }
}

#[test]
fn leadership_goes_to_who_is_not_far_behind_and_not_twice_in_a_row() {
    let mut bench = Bench::new(membership(3, None), |config| config.max_transfer_lag = 2).lead();
    let two = ReplicaId::new(2);
    for number in 1..=4 {
        bench.propose(number, 10);
    }
    assert_eq!(bench.group.transfer_leader(two), Err(Refusal::TooFarBehind { lag: 4 }));
    assert_eq!(bench.group.transfer_leader(ReplicaId::new(9)), Err(Refusal::NoSuchVoter));
    bench.work();
    bench.acknowledge(2, 4);
    assert_eq!(bench.group.transfer_leader(two), Ok(()));
    bench.propose(5, 10);
    assert_eq!(bench.answers(), [Answer::Refused(RequestId(5), Refusal::Transferring)]);
    bench.pass(6);
    bench.propose(6, 10);
    assert_eq!(bench.answers(), [], "it failed, and proposals are taken again");
    assert_eq!(bench.group.transfer_leader(two), Err(Refusal::Transferring), "not at once");
    bench.pass(5);
    bench.acknowledge(2, 6);
    assert_eq!(bench.group.transfer_leader(two), Ok(()));
}

#[test]
fn proposals_are_refused_by_who_does_not_lead_with_a_hint() {
    let mut bench = Bench::new(membership(3, None), |_| {});
    bench.propose(1, 10);
    assert_eq!(bench.answers(), [Answer::Refused(RequestId(1), Refusal::NotLeader { leader: None })]);
    bench.append(2, 1, Position::new(0, 0), &[1], 0);
    bench.propose(2, 10);
    let leader = Some(ReplicaId::new(2));
    assert_eq!(bench.answers(), [Answer::Refused(RequestId(2), Refusal::NotLeader { leader })]);
}

#[test]
fn proposals_are_refused_over_a_bound() {
    let adjust = |config: &mut GroupConfig| {
        config.max_entry_bytes = 1000;
        config.max_message_bytes = 1 << 10;
        config.max_uncommitted_bytes = 1500;
    };
    let mut bench = Bench::new(membership(3, None), adjust).lead();
    bench.propose(1, 1001);
    bench.propose(2, 1000);
    bench.propose(3, 600);
    let refused = |number, refusal| Answer::Refused(RequestId(number), refusal);
    assert_eq!(bench.answers(), [refused(1, Refusal::TooLarge), refused(3, Refusal::Busy)]);
    bench.work();
    bench.acknowledge(2, 2);
    assert_eq!(bench.work(), [RequestId(2)]);
    bench.propose(4, 600);
    assert_eq!(bench.answers(), []);
}

#[test]
fn a_proposal_whose_entry_is_replaced_is_refused() {
    let mut bench = Bench::new(membership(3, None), |_| {}).lead();
    bench.propose(1, 10);
    bench.work();
    bench.append(2, 5, Position::new(1, 1), &[5], 2);
    assert_eq!(bench.work(), []);
    let leader = Some(ReplicaId::new(2));
    assert_eq!(bench.answers(), [Answer::Refused(RequestId(1), Refusal::NotLeader { leader })]);
}

#[test]
fn a_proposal_that_expires_is_unknown_once_and_may_take_effect() {
    let mut bench = Bench::new(membership(3, None), |config| config.request_ticks = 10).lead();
    bench.propose(1, 10);
    bench.pass(9);
    assert_eq!(bench.answers(), []);
    bench.pass(30);
    assert_eq!(bench.answers(), [Answer::Unknown(RequestId(1))]);
    bench.acknowledge(2, 2);
    assert_eq!(bench.work(), [], "it is applied, and nobody waits for it");
    assert_eq!(bench.group.positions().applied.get(), 2);
    assert_eq!(bench.group.stop(), []);
}

#[test]
fn bytes_on_their_way_are_bounded() {
    let adjust = |config: &mut GroupConfig| {
        config.max_message_bytes = 1 << 10;
        config.max_inflight_bytes = 3 << 10;
    };
    let mut bench = Bench::new(membership(3, None), adjust).lead();
    for number in 1..=20 {
        bench.propose(number, 500);
    }
    bench.work();
    let sent = bench.appended_to(2);
    let bytes: usize = sent.iter().map(Message::entries_size_bytes).sum();
    assert!((2 << 10..=4 << 10).contains(&bytes), "{bytes}");
    assert!(sent.iter().all(|message| message.entries_size_bytes() <= 1 << 10));
    let last = sent.last().and_then(|message| message.entries().last()).unwrap().index().get();
    assert!(last < 21);
    bench.acknowledge(2, last);
    let more = bench.appended_to(2);
    assert_eq!(more[0].entries().next().unwrap().index().get(), last + 1, "it goes on where it paused");
}

#[test]
fn a_follower_reads_by_asking_its_leader() {
    let mut bench = Bench::new(membership(3, None), |_| {});
    bench.append(2, 1, Position::new(0, 0), &[1], 0);
    bench.write();
    bench.group.read(RequestId(1));
    bench.write();
    let asked = bench.sent.iter().find(|message| message.kind() == MessageType::MsgReadIndex).unwrap();
    assert_eq!(asked.to(), ReplicaId::new(2));
    let entries = asked.0.entries.clone();
    bench.step(MessageType::MsgReadIndexResp, 2, |message| (message.index, message.entries) = (1, entries));
    assert_eq!(bench.answers(), [], "the state machine is not there yet");
    bench.work();
    assert_eq!(bench.answers(), [Answer::Readable(RequestId(1), LogIndex::new(1))]);
}

/// It looks for no other leader itself, and Raft names the last one forever.
#[test]
fn a_learner_that_hears_nothing_knows_of_no_leader() {
    let voters = [2, 3].map(|number| (ReplicaId::new(number), NodeId::new(number)));
    let group = Membership::of_voters(voters).with_learner(ReplicaId::new(1), NodeId::new(1));
    let mut bench = Bench::new(group, |_| {});
    bench.append(2, 1, Position::new(0, 0), &[1], 0);
    let patience = 2 * GroupConfig::new(ReplicaId::new(1)).election_ticks as u64;
    bench.pass(patience);
    assert_eq!(bench.group.positions().leader, Some(ReplicaId::new(2)));
    bench.pass(1);
    assert_eq!(bench.group.positions().leader, None);
    bench.step(MessageType::MsgHeartbeat, 2, |_| {});
    assert_eq!(bench.group.positions().leader, Some(ReplicaId::new(2)));
}

#[test]
fn reads_expire_when_nobody_leads() {
    let mut bench = Bench::new(membership(3, None), |config| config.request_ticks = 10);
    bench.group.read(RequestId(1));
    bench.pass(9);
    assert_eq!(bench.answers(), []);
    bench.pass(10);
    assert_eq!(bench.answers(), [Answer::Refused(RequestId(1), Refusal::Expired)]);
}

#[test]
fn what_is_applied_leaves_memory() {
    let mut bench = Bench::new(membership(1, None), |config| config.cache_bytes = 1000);
    bench.group.campaign();
    bench.work();
    for number in 1..=100 {
        bench.propose(number, 100);
        bench.work();
        assert!(bench.group.positions().cache_bytes <= 1000);
    }
    assert_eq!(bench.group.positions().applied.get(), 101);
}

#[test]
fn memory_holds_what_followers_lack_that_can_be_reached_and_no_more() {
    const ENTRY_BYTES: usize = 10_000;
    let mut bench = Bench::new(membership(3, None), |config| config.cache_bytes = 100 * ENTRY_BYTES).lead();
    let last = |bench: &Bench| bench.group.positions().last.get();
    let first = last(&bench);
    bench.acknowledge(2, first);
    bench.acknowledge(3, first);
    let fill = |bench: &mut Bench, count: u64, followers: &[u64]| {
        for number in 0..count {
            bench.propose(number + 1, ENTRY_BYTES);
            bench.work();
            for follower in followers {
                bench.acknowledge(*follower, last(bench));
            }
            bench.work();
        }
        assert_eq!(bench.group.positions().applied.get(), last(bench));
        bench.group.positions().cache_bytes
    };
    assert!(fill(&mut bench, 50, &[2, 3]) < 10 * ENTRY_BYTES, "all have it");
    let kept = fill(&mut bench, 50, &[2]);
    assert!((50 * ENTRY_BYTES..70 * ENTRY_BYTES).contains(&kept), "the third lacks 50, and may get them: {kept}");
    let kept = fill(&mut bench, 100, &[2]);
    assert!((80 * ENTRY_BYTES..=100 * ENTRY_BYTES).contains(&kept), "up to the bound: {kept}");
    // Two check quorums without a word of it.
    bench.group.unreachable(ReplicaId::new(3));
    for _ in 0..20 {
        bench.pass(1);
        bench.acknowledge(2, last(&bench));
        bench.work();
    }
    assert!(fill(&mut bench, 1, &[2]) < 10 * ENTRY_BYTES, "it cannot be reached");
}

#[test]
fn a_restart_reads_its_log_back_in_parts() {
    let entry = |index| Entry::command(Position::new(index, 1), vec![1; 100], Vec::new());
    let adjust = |config: &mut GroupConfig| {
        config.max_entry_bytes = 600;
        config.max_apply_batch_bytes = 512;
        config.max_unapplied_bytes = 600;
        config.cache_bytes = 300;
    };
    let mut bench = Bench::open(membership(3, None), (1..=50).map(entry).collect(), adjust);
    let (mut parts, mut most) = (0, 0);
    while bench.group.is_starting() {
        let mut effects = bench.group.effects().unwrap();
        for read in effects.read_log {
            parts += 1;
            assert_eq!(read.limit_bytes, 512);
            let start = read.range.start.get() as usize - 1;
            bench.group.log_read(&read, bench.log[start..].iter().take(3).cloned().collect());
            most = most.max(bench.group.positions().cache_bytes);
        }
        for committed in effects.apply.drain(..) {
            bench.group.applied(committed.entry.index(), committed.entry.index());
        }
    }
    bench.work();
    assert_eq!(bench.group.positions().applied.get(), 50);
    assert!(parts >= 17 && most <= 600 + 300 + 512, "{parts} parts, {most} bytes");
}

#[test]
fn messages_that_wait_for_a_disk_are_bounded() {
    let mut bench = Bench::new(membership(3, None), |_| {});
    bench.append(2, 1, Position::new(0, 0), &[1], 0);
    for _ in 0..3 * MAX_HELD_MESSAGES {
        bench.step(MessageType::MsgHeartbeat, 2, |_| {});
    }
    assert!(bench.sent.is_empty());
    bench.write();
    assert_eq!(bench.sent.len(), MAX_HELD_MESSAGES);
}

#[test]
fn a_late_rejection_takes_nobody_back() {
    let mut bench = Bench::new(membership(3, None), |_| {}).lead();
    bench.step(MessageType::MsgAppendResponse, 3, |message| {
        (message.index, message.reject) = (1, true);
    });
    bench.acknowledge(3, 1);
    bench.group.unreachable(ReplicaId::new(3));
    let mut late = eraftpb::Message { from: 3, to: 1, term: 1, index: 1, reject: true, ..Default::default() };
    late.set_msg_type(MessageType::MsgAppendResponse);
    assert_eq!(bench.group.step(Message(late)), Err(Rejected::Late));
    let status = bench.group.status();
    let three = status.followers.iter().find(|follower| follower.replica == ReplicaId::new(3)).unwrap();
    assert_eq!((three.matched.get(), three.next.get()), (1, 2));
}

/// A restart makes a replica forget that it heard from a leader, which may have a lease for that: where leases are in use it
/// gives no vote for an election time-out.
#[test]
fn a_replica_that_may_have_promised_a_lease_gives_no_vote_right_after_its_start() {
    for lease_reads in [true, false] {
        let mut bench = Bench::new(membership(3, None), |config| config.lease_reads = lease_reads);
        let ask = || {
            let mut message = eraftpb::Message { from: 2, to: 1, term: 1, ..Default::default() };
            message.set_msg_type(MessageType::MsgRequestPreVote);
            Message(message)
        };
        let election_ticks = GroupConfig::new(ReplicaId::new(1)).election_ticks;
        for _ in 0..election_ticks {
            assert_eq!(bench.group.step(ask()).is_err(), lease_reads);
            bench.group.tick();
        }
        assert_eq!(bench.group.step(ask()), Ok(()), "the lease is over by then");
    }
}

/// A machine that keeps its own position may have forgotten what its replica has noted as applied. That was committed all the
/// same, whatever of the commit index has survived: the membership is as of there.
#[test]
fn what_was_noted_as_applied_was_committed() {
    let stored = StoredGroup {
        replica: ReplicaId::new(1),
        hard_state: HardState { term: Term::new(1), vote: None, commit: LogIndex::new(1) },
        membership: membership(3, None),
        applied: LogIndex::new(3),
        truncated: Position::default(),
        last: Position::new(4, 1),
        // Nor is it a contradiction that its state was found to be wrong as of an entry that it has forgotten.
        unhealthy: Some(Unhealthy { cause: Cause::Differs, index: LogIndex::new(3) }),
    };
    let terms = TermRuns::find(stored.truncated, stored.last, |index| Ok::<_, ()>(Term::new(index.get().min(1))));
    let own = OwnPosition { applied: LogIndex::new(2), gives_snapshots: true };
    let group = Group::open(GroupConfig::new(ReplicaId::new(1)), &stored, Some(own), terms.unwrap(), 7).unwrap();
    let now = group.positions();
    assert_eq!((now.applied.get(), now.committed.get(), now.last.get()), (2, 3, 4));
    assert!(group.unhealthy().is_some());
}
