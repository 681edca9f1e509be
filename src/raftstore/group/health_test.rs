//! A replica that must not lead, and checks of consistency, as one replica sees them.

use raft::eraftpb;
use raft::prelude::MessageType;

use super::replica_test::{Bench, membership};
use super::*;
use crate::ident::{LogIndex, ReplicaId, Term};
use crate::raftstore::consistency::{CheckMessage, CheckRefusal, CheckWord, DIGEST_BYTES, DIGEST_VERSION, Digest};
use crate::raftstore::context::Context;
use crate::raftstore::entry::{Cause, Entry, Position, Unhealthy};
use crate::raftstore::message::Message;
use crate::raftstore::snapshot::header::{self, Content};
use crate::raftstore::snapshot::{SnapshotId, SnapshotMeta};

const DIFFERS: Unhealthy = Unhealthy { cause: Cause::Differs, index: LogIndex::new(1) };

fn digest(number: u8) -> Digest {
    Digest([number; DIGEST_BYTES])
}

fn role(bench: &Bench) -> Role {
    bench.group.positions().role
}

fn sent(bench: &Bench, kind: MessageType) -> impl Iterator<Item = &Message> {
    bench.sent.iter().filter(move |message| message.kind() == kind)
}

/// Replica 1 of three, behind a leader 2, with three entries of which all are committed and applied.
fn follower() -> Bench {
    let mut bench = Bench::new(membership(3, None), |_| {});
    bench.append(2, 1, Position::default(), &[1, 1, 1], 3);
    bench.work();
    assert_eq!(bench.group.positions().applied.get(), 3);
    bench.sent.clear();
    bench
}

/// What a leader appends behind an entry.
fn append(bench: &mut Bench, after: u64, contexts: &[Context]) {
    let entry =
        |(index, context): (u64, &Context)| Entry::command(Position::new(index, 1), Vec::new(), context.encode()).0;
    bench.step(MessageType::MsgAppend, 2, |message| {
        (message.index, message.log_term, message.term) = (after, 1, 1);
        message.commit = after + contexts.len() as u64;
        message.entries = (after + 1..).zip(contexts).map(entry).collect();
    });
}

fn verify(at: u64, digests: &[(u64, u8)]) -> Context {
    let digests = digests.iter().map(|(replica, number)| (ReplicaId::new(*replica), digest(*number))).collect();
    Context::Verify { at: Position::new(at, 1), digests }
}

/// As its leader offers it.
fn offer(index: u64, id: u64) -> Message {
    let meta = SnapshotMeta { id: SnapshotId(id), position: Position::new(index, 1), membership: membership(3, None) };
    let snapshot = Some(header::encode(&meta, Content::Tables));
    let mut message = eraftpb::Message { from: 2, to: 1, term: 1, snapshot, ..Default::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    Message(message)
}

#[test]
fn whoever_must_not_lead_never_stands_but_votes() {
    for is_stalled in [true, false] {
        let mut bench = follower();
        match is_stalled {
            true => bench.group.stall(true),
            false => bench.group.set_unhealthy(DIFFERS),
        }
        bench.pass(100);
        bench.group.campaign();
        bench.work();
        assert_eq!((role(&bench), bench.group.positions().term), (Role::Follower, Term::new(1)));
        // Its leader is silent, and somebody else stands.
        bench.step(MessageType::MsgRequestPreVote, 3, |message| {
            (message.term, message.index, message.log_term) = (2, 3, 1);
        });
        bench.work();
        let vote = sent(&bench, MessageType::MsgRequestPreVoteResponse).next().unwrap();
        assert!(!vote.0.reject, "it votes for nobody");
        // Nor does it take what is offered.
        let mut offered = eraftpb::Message { from: 2, to: 1, term: 1, ..Default::default() };
        offered.set_msg_type(MessageType::MsgTimeoutNow);
        assert_eq!(bench.group.step(Message(offered)), Err(Rejected::Unfit));
    }
    let mut bench = follower();
    bench.group.stall(true);
    bench.pass(20);
    bench.group.stall(false);
    bench.pass(20);
    assert_eq!(role(&bench), Role::PreCandidate, "once it is well it stands again");
}

#[test]
fn a_leader_that_must_not_lead_hands_over_to_who_has_most() {
    let mut bench = Bench::new(membership(3, None), |_| {}).lead();
    bench.propose(1, 10);
    bench.work();
    let last = bench.group.positions().last.get();
    bench.acknowledge(3, last);
    bench.work();
    bench.sent.clear();
    bench.group.stall(true);
    bench.group.tick();
    bench.work();
    let to: Vec<_> = sent(&bench, MessageType::MsgTimeoutNow).map(Message::to).collect();
    assert_eq!(to, [ReplicaId::new(3)], "replica 2 was heard of, too, but lacks an entry");
}

#[test]
fn a_leader_that_must_not_lead_steps_down_when_nobody_takes_over() {
    let mut bench = Bench::new(membership(3, None), |_| {}).lead();
    bench.group.stall(true);
    let election = GroupConfig::new(ReplicaId::new(1)).election_ticks as u64;
    bench.pass(election + 2);
    assert_eq!(role(&bench), Role::Follower);
    bench.sent.clear();
    bench.pass(3 * election);
    assert_eq!(sent(&bench, MessageType::MsgHeartbeat).count(), 0, "it holds the others back");
    assert_eq!(role(&bench), Role::Follower);
    // Of a group of one nobody else could lead.
    let mut alone = Bench::new(membership(1, None), |_| {});
    alone.group.campaign();
    alone.work();
    alone.group.stall(true);
    alone.pass(3 * election);
    assert_eq!(role(&alone), Role::Leader);
}

#[test]
fn an_unhealthy_replica_answers_nothing_and_asks_for_a_snapshot_at_intervals() {
    let mut bench = follower();
    bench.group.set_unhealthy(DIFFERS);
    bench.group.read(RequestId(1));
    bench.work();
    let asks =
        |bench: &Bench| sent(bench, MessageType::MsgAppendResponse).filter(|it| it.0.request_snapshot == 3).count();
    assert_eq!(asks(&bench), 0);
    bench.pass(1);
    assert_eq!(asks(&bench), 1);
    // While it asks it takes nothing, and after a while it does.
    append(&mut bench, 3, &[Context::Plain]);
    assert_eq!(bench.group.positions().last.get(), 3);
    for _ in 0..100 {
        bench.pass(1);
        bench.step(MessageType::MsgHeartbeat, 2, |message| message.term = 1);
    }
    append(&mut bench, 3, &[Context::Plain]);
    bench.work();
    assert_eq!(bench.group.positions().applied.get(), 4);
    bench.sent.clear();
    bench.pass(101);
    assert!(sent(&bench, MessageType::MsgAppendResponse).any(|it| it.0.request_snapshot == 4), "it asks again");
}

/// Whoever waits when the state turns out to be wrong is not told to read it.
#[test]
fn reads_that_wait_are_refused_when_the_state_is_wrong() {
    let mut bench = Bench::new(membership(3, None), |_| {}).lead();
    let applied = bench.group.positions().applied;
    // One waits for the quorum, one for the state machine, and one does not know yet that it may read.
    bench.group.read(RequestId(1));
    bench.group.reads.leased(LogIndex::new(applied.get() + 1), RequestId(2), 100);
    bench.group.answers.push(Answer::Readable(RequestId(3), applied));
    bench.group.set_unhealthy(DIFFERS);
    let mut answers = bench.group.effects().unwrap().answers;
    answers.sort_by_key(|answer| match answer {
        Answer::Refused(request, _) | Answer::Readable(request, _) | Answer::Unknown(request) => request.0,
    });
    let refused = |number| Answer::Refused(RequestId(number), Refusal::Unhealthy);
    assert_eq!(answers, [refused(1), refused(2), refused(3)]);
}

/// Taking over a snapshot is forgetting the log, and what is in it may be acknowledged.
#[test]
fn a_repair_loses_nothing_that_was_acknowledged() {
    let mut healthy = follower();
    assert!(matches!(healthy.group.offered(&offer(3, 1)), Ok(Offered::NotNeeded)), "it is well");
    let mut bench = follower();
    // Two more that are acknowledged here and not known to be committed.
    bench.append(2, 1, Position::new(3, 1), &[1, 1], 3);
    bench.work();
    bench.group.set_unhealthy(DIFFERS);
    bench.pass(1);
    for index in [3, 4] {
        assert!(matches!(bench.group.offered(&offer(index, index)), Ok(Offered::NotNeeded)), "{index}");
        assert!(!bench.group.take_over(offer(index, index)), "{index}");
    }
    bench.work();
    assert_eq!(bench.group.positions().last.get(), 5);
    assert!(matches!(bench.group.offered(&offer(5, 9)), Ok(Offered::Take(_))));
    assert!(bench.group.take_over(offer(5, 9)));
    bench.work();
    let positions = bench.group.positions();
    assert_eq!((positions.applied.get(), positions.last.get(), positions.first.get()), (5, 5, 6));
    assert_eq!(bench.group.unhealthy(), None);
    bench.append(2, 1, Position::new(5, 1), &[1], 6);
    bench.work();
    assert_eq!(bench.group.positions().applied.get(), 6);
}

/// The state is replaced as of the very entry that it is of, though nobody writes.
#[test]
fn a_repair_may_be_as_of_the_entry_applied_last() {
    let mut bench = follower();
    bench.group.set_unhealthy(DIFFERS);
    bench.pass(1);
    assert!(bench.group.take_over(offer(3, 1)));
    bench.round();
    let [persist] = bench.persist.as_slice() else { panic!("{:?}", bench.persist) };
    assert_eq!(persist.restore.as_ref().unwrap().position, Position::new(3, 1));
    assert!(persist.must_sync, "what the machine installs must not be lost again");
    // Its applied index says nothing of whether it has the right state yet.
    bench.group.read(RequestId(1));
    bench.round();
    assert_eq!(bench.answers, [Answer::Refused(RequestId(1), Refusal::Unhealthy)]);
    bench.work();
    assert_eq!(bench.group.unhealthy(), None);
    bench.group.read(RequestId(2));
    bench.work();
    assert_eq!(bench.answers.len(), 1, "it is asked of the leader");
    bench.append(2, 1, Position::new(3, 1), &[1], 4);
    bench.work();
    assert_eq!(bench.group.positions().applied.get(), 4);
}

/// What a machine that keeps its own position gave is no content of tables.
#[test]
fn a_snapshot_of_another_kind_is_refused() {
    let mut bench = follower();
    let meta = SnapshotMeta { id: SnapshotId(1), position: Position::new(9, 1), membership: membership(3, None) };
    let mut offered = offer(9, 1);
    assert!(matches!(bench.group.offered(&offered), Ok(Offered::Take(_))));
    offered.0.snapshot = Some(header::encode(&meta, Content::Machine));
    assert_eq!(bench.group.offered(&offered), Err(Rejected::OtherKind));
    assert!(!bench.group.take_over(offered));
}

#[test]
fn a_damaged_state_is_applied_to_no_more_and_holds_up_no_repair() {
    let mut bench = follower();
    append(&mut bench, 3, &[Context::Plain, Context::Plain]);
    bench.write();
    assert_eq!(bench.apply.len(), 2);
    let damaged = bench.group.cannot_apply().unwrap().unwrap();
    assert_eq!(damaged, Unhealthy { cause: Cause::Damaged, index: LogIndex::new(3) });
    bench.apply.clear();
    append(&mut bench, 5, &[Context::Plain]);
    bench.write();
    assert_eq!((bench.group.positions().committed.get(), bench.apply.len()), (6, 0));
    bench.pass(1);
    assert!(bench.group.take_over(offer(6, 1)));
    bench.work();
    assert_eq!((bench.group.positions().applied.get(), bench.group.unhealthy()), (6, None));
    append(&mut bench, 6, &[Context::Plain]);
    bench.work();
    assert_eq!(bench.group.positions().applied.get(), 7);
    // What was read before the snapshot says nothing of what came with it.
    assert_eq!(bench.group.damaged(LogIndex::new(5)), Ok(None));
    let mut alone = Bench::new(membership(1, None), |_| {});
    assert_eq!(alone.group.damaged(LogIndex::new(0)), Err(NoRepair));
}

/// A word about checks as such.
fn of_build(word: CheckWord) -> CheckMessage {
    CheckMessage { at: Position::default(), word }
}

fn know_checks(bench: &mut Bench, replicas: impl IntoIterator<Item = u64>) {
    for replica in replicas {
        bench.group.check_said(ReplicaId::new(replica), of_build(CheckWord::Known));
    }
}

/// A leader whose state is hashed as of an entry, which it says.
fn checking() -> (Bench, Position) {
    let mut bench = Bench::new(membership(3, None), |config| config.check_ticks = 50).lead();
    know_checks(&mut bench, 2..=3);
    bench.group.check_consistency().unwrap();
    bench.group.check_consistency().unwrap();
    bench.work();
    let last = bench.group.positions().last.get();
    bench.acknowledge(2, last);
    bench.acknowledge(3, last);
    bench.write();
    let [committed] = bench.apply.as_slice() else { panic!("one entry asks, though two asked: {:?}", bench.apply) };
    assert!(committed.hash);
    let at = committed.entry.position();
    bench.work();
    (bench, at)
}

fn verified(bench: &mut Bench) -> Option<Context> {
    let last = bench.group.positions().last.get();
    bench.acknowledge(2, last);
    bench.write();
    let context = bench.apply.last().and_then(|committed| Context::decode(committed.entry.context()));
    bench.work();
    context
}

#[test]
fn a_leader_waits_for_all_that_can_be_reached_and_says_what_they_said() {
    let (mut bench, at) = checking();
    bench.group.hashed(at.index, Some(digest(7)));
    bench.group.check_said(ReplicaId::new(2), CheckMessage { at, word: CheckWord::Digest(digest(7)) });
    // About another check, and by nobody.
    let other = Position { index: at.index.next(), ..at };
    bench.group.check_said(ReplicaId::new(3), CheckMessage { at: other, word: CheckWord::Digest(digest(8)) });
    bench.group.check_said(ReplicaId::new(9), CheckMessage { at, word: CheckWord::Digest(digest(8)) });
    bench.step(MessageType::MsgHeartbeatResponse, 3, |_| {});
    bench.pass(1);
    assert_eq!(verified(&mut bench), None, "replica 3 has not said");
    bench.group.check_said(ReplicaId::new(3), CheckMessage { at, word: CheckWord::Digest(digest(8)) });
    let expected = [(1, 7), (2, 7), (3, 8)].map(|(replica, number)| (ReplicaId::new(replica), digest(number)));
    assert_eq!(verified(&mut bench), Some(Context::Verify { at, digests: expected.to_vec() }));
    let [Ok(verdict)] = bench.checked.as_slice() else { panic!("{:?}", bench.checked) };
    assert_eq!(verdict.differing(), [ReplicaId::new(3)]);
    assert_eq!(bench.group.status().last_check.as_ref(), Some(verdict));
    let refused = bench.group.transfer_leader(ReplicaId::new(3));
    assert_eq!(refused, Err(Refusal::Unhealthy));
    // A next one can be begun.
    bench.group.check_consistency().unwrap();
    bench.round();
    assert_eq!(bench.group.positions().last.get(), at.index.get() + 2);
}

#[test]
fn whoever_does_not_say_is_asked_and_not_waited_for_for_ever() {
    let (mut bench, at) = checking();
    bench.group.hashed(at.index, Some(digest(7)));
    bench.group.check_said(ReplicaId::new(2), CheckMessage { at, word: CheckWord::Digest(digest(7)) });
    for _ in 0..30 {
        bench.step(MessageType::MsgHeartbeatResponse, 3, |_| {});
        bench.pass(1);
    }
    let question = (ReplicaId::new(3), CheckMessage { at, word: CheckWord::Question });
    assert!(bench.checks.len() >= 2 && bench.checks.iter().all(|said| *said == question), "{:?}", bench.checks);
    assert_eq!(verified(&mut bench), None);
    for _ in 0..25 {
        bench.step(MessageType::MsgHeartbeatResponse, 3, |_| {});
        bench.pass(1);
    }
    let Some(Context::Verify { digests, .. }) = verified(&mut bench) else { panic!("it waits for ever") };
    assert_eq!(digests.len(), 2);
    let [Ok(verdict)] = bench.checked.as_slice() else { panic!("{:?}", bench.checked) };
    assert_eq!((verdict.is_good(), verdict.missing.clone()), (true, vec![ReplicaId::new(3)]));
    // Replica 2 alone is heard of: too few, and soon.
    let (mut bench, at) = checking();
    bench.group.hashed(at.index, None);
    bench.group.check_said(ReplicaId::new(2), CheckMessage { at, word: CheckWord::Digest(digest(7)) });
    bench.pass(30);
    let [Err(given_up)] = bench.checked.as_slice() else { panic!("{:?}", bench.checked) };
    assert_eq!((given_up.index, given_up.heard, given_up.voters), (at.index, 1, 3));
}

#[test]
fn a_follower_says_what_it_has_to_its_leader_and_to_who_asks() {
    let mut bench = follower();
    let at = Position::new(4, 1);
    let (two, three) = (ReplicaId::new(2), ReplicaId::new(3));
    let question = CheckMessage { at, word: CheckWord::Question };
    bench.group.check_said(three, question);
    bench.round();
    assert_eq!(bench.checks, [], "it will get there");
    append(&mut bench, 3, &[Context::Hash(DIGEST_VERSION)]);
    bench.write();
    assert!(bench.apply.iter().all(|committed| committed.hash));
    bench.work();
    bench.group.check_said(three, question);
    bench.group.hashed(LogIndex::new(3), Some(digest(1)));
    bench.round();
    assert_eq!(bench.checks, [], "it still hashes");
    bench.group.hashed(at.index, Some(digest(7)));
    bench.round();
    let said = CheckMessage { at, word: CheckWord::Digest(digest(7)) };
    assert_eq!(std::mem::take(&mut bench.checks), [(two, said)]);
    bench.group.check_said(three, question);
    bench.round();
    assert_eq!(std::mem::take(&mut bench.checks), [(three, said)]);
    // What it got past without hashing it, it will not hash.
    let before = Position::new(2, 1);
    bench.group.check_said(three, CheckMessage { at: before, word: CheckWord::Question });
    bench.round();
    assert_eq!(bench.checks, [(three, CheckMessage { at: before, word: CheckWord::None })]);
    assert_eq!(bench.group.check_consistency(), Err(CheckRefusal::NotLeader { leader: Some(two) }));
    // A version that is not known here.
    append(&mut bench, 4, &[Context::Hash(DIGEST_VERSION + 1)]);
    bench.write();
    assert!(bench.apply.iter().all(|committed| !committed.hash));
}

#[test]
fn who_differs_is_unhealthy_unless_a_snapshot_came_since() {
    let mut bench = follower();
    append(&mut bench, 3, &[Context::Hash(DIGEST_VERSION), verify(4, &[(1, 7), (2, 8), (3, 8)])]);
    bench.write();
    let marks: Vec<_> = bench.apply.iter().map(|committed| committed.unhealthy).collect();
    let unhealthy = Unhealthy { cause: Cause::Differs, index: LogIndex::new(4) };
    assert_eq!(marks, [None, Some(unhealthy)]);
    assert_eq!(bench.group.unhealthy(), Some(unhealthy));
    bench.work();
    bench.pass(1);
    assert!(bench.group.take_over(offer(5, 1)));
    bench.work();
    assert_eq!(bench.group.unhealthy(), None);
    // A verdict about what the snapshot has replaced comes late.
    append(&mut bench, 5, &[verify(4, &[(1, 7), (2, 8), (3, 8)])]);
    bench.work();
    assert_eq!(bench.group.unhealthy(), None);
    assert_eq!(bench.checked.len(), 2);
    // Without a majority nobody is.
    append(&mut bench, 6, &[verify(6, &[(1, 7), (2, 8), (3, 9)])]);
    bench.work();
    assert_eq!((bench.group.unhealthy(), bench.group.undecided()), (None, Some(LogIndex::new(6))));
}

/// A build that does not know checks drops what it does not understand, and would stop at their entries.
#[test]
fn no_check_is_begun_before_all_members_know_what_it_is() {
    let mut bench = Bench::new(membership(3, Some(4)), |_| {}).lead();
    let last = bench.group.positions().last;
    let refused = |replica| Err(CheckRefusal::NotKnown { replica: ReplicaId::new(replica) });
    for _ in 0..50 {
        bench.step(MessageType::MsgHeartbeatResponse, 2, |_| {});
        bench.pass(1);
        assert_eq!(bench.group.check_consistency(), refused(2));
    }
    for replica in 2..=4 {
        let asked = (ReplicaId::new(replica), of_build(CheckWord::Ask));
        let times = bench.checks.iter().filter(|said| **said == asked).count();
        assert!((2..=6).contains(&times), "replica {replica} is asked {times} times");
    }
    know_checks(&mut bench, [2, 3, 9]);
    assert_eq!(bench.group.check_consistency(), refused(4));
    bench.round();
    assert_eq!(bench.group.positions().last, last, "an entry that replica 4 may not know");
    know_checks(&mut bench, [4]);
    bench.group.check_consistency().unwrap();
    bench.round();
    assert_eq!(bench.group.positions().last, last.next());
    // Whoever knows says so, also to one that is not known to lead.
    let mut bench = follower();
    bench.checks.clear();
    bench.group.check_said(ReplicaId::new(3), of_build(CheckWord::Ask));
    bench.round();
    assert_eq!(bench.checks, [(ReplicaId::new(3), of_build(CheckWord::Known))]);
}

/// What is wrong is not handed on.
#[test]
fn an_unhealthy_leader_gives_no_snapshots() {
    for is_unhealthy in [false, true] {
        let mut bench = Bench::new(membership(3, None), |_| {}).lead();
        let last = bench.group.positions().last.get();
        if is_unhealthy {
            bench.group.set_unhealthy(DIFFERS);
        }
        let mut asks = eraftpb::Message { from: 2, to: 1, term: 1, index: last, reject: true, ..Default::default() };
        (asks.reject_hint, asks.log_term, asks.request_snapshot) = (last, 1, last);
        asks.set_msg_type(MessageType::MsgAppendResponse);
        bench.group.step(Message(asks.clone())).unwrap();
        assert_eq!(bench.group.effects().unwrap().capture.is_some(), !is_unhealthy);
        // Nor is one waited for that cannot be.
        asks.request_snapshot = last + 1;
        assert!(matches!(bench.group.step(Message(asks)), Err(Rejected::BeyondLog { .. })));
    }
}
