//! Who waits for what: proposals by the entry they became, reads by the context they were sent with.

use std::collections::VecDeque;

use super::effects::{Answer, Refusal, RequestId};
use crate::ident::{LogIndex, ReplicaId};
use crate::raftstore::entry::Position;
use crate::raftstore::fault::{self, Fault};

/// Proposals made here whose entries are not committed yet, by index.
#[derive(Default)]
pub(super) struct Proposals {
    waiting: VecDeque<Proposal>,
}

struct Proposal {
    position: Position,
    request: RequestId,
    deadline: u64,
}

impl Proposals {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A leader of a later term may reuse indexes. What waited for them goes on waiting, in its place by index: its
    /// entry may be in another log, and come back.
    pub(super) fn push(&mut self, position: Position, request: RequestId, deadline: u64) {
        let place = self.waiting.partition_point(|proposal| proposal.position.index <= position.index);
        self.waiting.insert(place, Proposal { position, request, deadline });
    }

    /// An entry is committed: who waits for it? Whose entry it replaced is refused, for good.
    pub(super) fn committed(
        &mut self,
        position: Position,
        leader: Option<ReplicaId>,
        answers: &mut Vec<Answer>,
    ) -> Option<RequestId> {
        let mut found = None;
        while self.waiting.front().is_some_and(|proposal| proposal.position.index <= position.index) {
            let proposal = self.waiting.pop_front()?;
            if proposal.position == position || (found.is_none() && fault::active(Fault::ReplacedProposalDone)) {
                found = Some(proposal.request);
            } else {
                answers.push(Answer::Refused(proposal.request, Refusal::NotLeader { leader }));
            }
        }
        found
    }

    /// A snapshot stands for all entries up to an index: who was committed among them is not known here.
    pub(super) fn lose_track(&mut self, through: LogIndex, answers: &mut Vec<Answer>) {
        while let Some(proposal) = self.waiting.pop_front_if(|proposal| proposal.position.index <= through) {
            answers.push(Answer::Unknown(proposal.request));
        }
    }

    pub(super) fn expire(&mut self, now: u64, answers: &mut Vec<Answer>) {
        // They are in order of index, which need not be that of their deadlines.
        self.waiting.retain(|proposal| {
            let expired = proposal.deadline <= now;
            if expired {
                answers.push(Answer::Unknown(proposal.request));
            }
            !expired
        });
    }

    pub(super) fn fail_all(&mut self, answers: &mut Vec<Answer>) {
        answers.extend(self.waiting.drain(..).map(|proposal| Answer::Unknown(proposal.request)));
    }
}

/// Reads that wait for an index, and then for the state machine to get there.
pub(super) struct Reads {
    /// Tells this life of the replica from earlier ones: an answer to one of theirs is not taken for ours.
    nonce: u64,
    next: u64,
    waiting: Vec<Read>,
    asked: VecDeque<Batch>,
    indexed: Vec<(LogIndex, Read)>,
}

#[derive(Clone, Copy)]
struct Read {
    request: RequestId,
    deadline: u64,
}

struct Batch {
    number: u64,
    asked_at: u64,
    /// The same on the lease's clock.
    time: u64,
    reads: Vec<Read>,
}

/// Questions to the leader that may be open at a time; what comes then waits for the next.
const MAX_OPEN_BATCHES: usize = 64;

impl Reads {
    pub(super) fn new(nonce: u64) -> Reads {
        let nonce = if fault::active(Fault::ReadContextReused) { 0 } else { nonce };
        Reads { nonce, next: 0, waiting: Vec::new(), asked: VecDeque::new(), indexed: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.indexed.len() + self.asked.iter().map(|batch| batch.reads.len()).sum::<usize>()
    }

    pub(super) fn push(&mut self, request: RequestId, deadline: u64) {
        self.waiting.push(Read { request, deadline });
    }

    /// Whether somebody waits to be asked for.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty() && self.asked.len() < MAX_OPEN_BATCHES
    }

    /// Puts all that wait into one question, and says its context.
    pub(super) fn ask(&mut self, now: u64, time: u64) -> Vec<u8> {
        self.next += 1;
        let reads = std::mem::take(&mut self.waiting);
        self.asked.push_back(Batch { number: self.next, asked_at: now, time, reads });
        [self.nonce.to_le_bytes(), self.next.to_le_bytes()].concat()
    }

    /// Whether a question is open.
    pub(super) fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// A read that needs no question.
    pub(super) fn leased(&mut self, index: LogIndex, request: RequestId, deadline: u64) {
        self.indexed.push((index, Read { request, deadline }));
    }

    /// The answer to a question. Says when that was asked, on the lease's clock.
    pub(super) fn indexed(&mut self, context: &[u8], index: LogIndex) -> Option<u64> {
        let (nonce, number) = context.split_at_checked(8)?;
        if nonce != self.nonce.to_le_bytes() {
            return None;
        }
        let place = self.asked.iter().position(|batch| batch.number.to_le_bytes() == number)?;
        let batch = self.asked.remove(place)?;
        self.indexed.extend(batch.reads.into_iter().map(|read| (index, read)));
        Some(batch.time)
    }

    /// Answers what the state machine has got to.
    pub(super) fn applied(&mut self, applied: LogIndex, answers: &mut Vec<Answer>) {
        self.indexed.retain(|(index, read)| {
            let reached = *index <= applied || fault::active(Fault::ReadBeforeApplied);
            if reached {
                answers.push(Answer::Readable(read.request, *index));
            }
            !reached
        });
    }

    /// Whoever was asked will not answer: ask again.
    pub(super) fn ask_again(&mut self) {
        for batch in self.asked.drain(..) {
            self.waiting.extend(batch.reads);
        }
    }

    /// Questions as old as this are asked again; reads past their deadline expire.
    pub(super) fn tick(&mut self, now: u64, patience: u64, answers: &mut Vec<Answer>) {
        while self.asked.front().is_some_and(|batch| batch.asked_at + patience <= now) {
            let reads = self.asked.pop_front().map_or(Vec::new(), |batch| batch.reads);
            self.waiting.extend(reads);
        }
        let mut keep = |read: &Read| {
            let expired = read.deadline <= now;
            if expired {
                answers.push(Answer::Refused(read.request, Refusal::Expired));
            }
            !expired
        };
        self.waiting.retain(&mut keep);
        self.indexed.retain(|(_, read)| keep(read));
        for batch in &mut self.asked {
            batch.reads.retain(&mut keep);
        }
    }

    /// Nobody who waits, or has not heard yet that he may, reads the state here.
    pub(super) fn refuse_all(&mut self, answers: &mut Vec<Answer>) {
        for answer in &mut *answers {
            if let Answer::Readable(request, _) = *answer {
                *answer = Answer::Refused(request, Refusal::Unhealthy);
            }
        }
        self.end_all(Refusal::Unhealthy, answers);
    }

    pub(super) fn fail_all(&mut self, answers: &mut Vec<Answer>) {
        self.end_all(Refusal::Expired, answers);
    }

    fn end_all(&mut self, refusal: Refusal, answers: &mut Vec<Answer>) {
        self.ask_again();
        let indexed = self.indexed.drain(..).map(|(_, read)| read);
        let all = self.waiting.drain(..).chain(indexed);
        answers.extend(all.map(|read| Answer::Refused(read.request, refusal)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader that lost its log's tail and leads again uses indexes anew, while older proposals wait for the same.
    #[test]
    fn a_proposal_finds_its_entry_also_behind_older_ones() {
        let (mut proposals, mut answers) = (Proposals::default(), Vec::new());
        for (number, (index, term)) in (1..).zip([(10, 1), (11, 1), (8, 3), (9, 3), (10, 3)]) {
            proposals.push(Position::new(index, term), RequestId(number), 100);
        }
        let mut committed = |index, term| {
            let found = proposals.committed(Position::new(index, term), None, &mut answers);
            found.map(|request| request.0)
        };
        assert_eq!(committed(7, 2), None);
        assert_eq!(committed(8, 3), Some(3));
        assert_eq!(committed(9, 3), Some(4));
        assert_eq!(committed(10, 3), Some(5), "and who had the index before is refused");
        assert_eq!(committed(11, 4), None);
        let refused = |number| Answer::Refused(RequestId(number), Refusal::NotLeader { leader: None });
        assert_eq!(answers, [refused(1), refused(2)]);
    }
}
