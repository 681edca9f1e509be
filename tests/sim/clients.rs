//! Clients that write and read registers anywhere, and note when they called and what came back.

use super::oracle::{Operation, Outcome};
use super::replica::Replica;
use super::seen::Happening;
use super::world::{Checked, Event, TICK, Violation, World, violated};
use crate::raftstore::context::Attempt;
use crate::raftstore::group::{Refusal, RequestId};

/// After the last fault, so long may it take until everything works again.
const PATIENCE_TICKS: u64 = 400;
/// So much longer where states are to be repaired.
const REPAIR_TICKS: u64 = 600;
/// A client waits no longer for an answer: the node may be asleep.
pub(super) const CLIENT_TICKS: u64 = 60;

/// One client: one operation at a time.
#[derive(Default)]
pub(super) struct Client {
    operation: Option<usize>,
    called_at: u64,
    /// Where it found a leader last.
    leader: usize,
}

/// In the end, of each group: one write, then one read on every node, and all have applied the same.
#[derive(Default)]
pub(super) struct Probe {
    operation: Option<usize>,
    written: bool,
    read: usize,
    is_done: bool,
}

/// A command: a key, a value, and bytes that mean nothing.
fn encode(key: u8, value: u64, padding: u64) -> Vec<u8> {
    let mut data = vec![key];
    data.extend(value.to_le_bytes());
    data.resize(9 + padding as usize, 0);
    data
}

pub(super) fn decode(data: &[u8]) -> Option<(u8, u64)> {
    let value = data.get(1..9)?.try_into().ok()?;
    Some((data[0], u64::from_le_bytes(value)))
}

impl World {
    /// A client's turn.
    pub(super) fn client(&mut self, client: usize) -> Checked {
        let it = &self.clients[client];
        if let Some(operation) = it.operation {
            let late = it.called_at + CLIENT_TICKS * TICK < self.now;
            if late && self.history.operations[operation].outcome == Outcome::Open {
                self.unknown(operation);
            }
            if self.history.operations[operation].outcome == Outcome::Open {
                self.after(TICK / 2, Event::Client { client });
                return Ok(());
            }
            self.clients[client].operation = None;
        }
        if self.healed {
            return Ok(());
        }
        let reads = self.rng.chance(self.plan.read_per_mille);
        let group = self.draw_group();
        let place = if reads || self.rng.chance(150) {
            let host = self.rng.below(self.hosts.len() as u64) as usize;
            self.place_on(host, group)
        } else {
            self.find_leader(group, self.clients[client].leader)
        };
        let key = self.rng.below(self.plan.keys) as u8;
        let operation = self.call(key, reads, place)?;
        let it = &mut self.clients[client];
        (it.operation, it.called_at, it.leader) = (Some(operation), self.now, place);
        let most = self.plan.think_ticks * TICK;
        let delay = 1 + self.rng.below(most);
        self.after(delay, Event::Client { client });
        Ok(())
    }

    /// Somebody who says that he leads; else whoever was asked last.
    pub(super) fn find_leader(&mut self, group: usize, last: usize) -> usize {
        let leaders: Vec<usize> = self.places_of(group).filter(|place| self.replicas[*place].leads()).collect();
        match leaders.is_empty() {
            true => self.place_on(self.replicas[last].host, group),
            false => self.rng.pick(&leaders),
        }
    }

    /// Every group has registers of its own.
    fn call(&mut self, key: u8, reads: bool, place: usize) -> Result<usize, Violation> {
        let key = key + (self.replicas[place].cell as u64 * self.plan.keys) as u8;
        let operation = self.history.operations.len();
        let written = (!reads).then_some(operation as u64 + 1);
        self.history.operations.push(Operation { key, written, called: self.events, outcome: Outcome::Open });
        self.call_metadata(operation);
        self.note(|_| format!("client calls {operation} at {}: {}", place + 1, if reads { "read" } else { "write" }));
        let until = self.hosts[self.replicas[place].host].paused_until;
        match until > self.now {
            true => self.after(until - self.now, Event::Request { place, operation }),
            false => self.request(place, operation)?,
        }
        Ok(operation)
    }

    /// An operation has reached a node.
    pub(super) fn request(&mut self, place: usize, operation: usize) -> Checked {
        let Operation { key, written, outcome, .. } = self.history.operations[operation].clone();
        if self.replicas[place].group.is_none() {
            return self.finish(operation, Outcome::Refused);
        }
        // A client that gave up does not matter to the node, but the write counts as unknown from then on.
        if outcome != Outcome::Open && outcome != Outcome::Unknown {
            return Ok(());
        }
        self.rouse(place, Happening::WokenByRequest);
        self.requests += 1;
        let request = RequestId(self.requests);
        let most = self.plan.command_bytes + 1;
        let (attempt, data) = match self.metadata_command(operation) {
            Some((attempt, data)) => (attempt, Some(data)),
            None => {
                let attempt = self.rng.chance(200).then_some(Attempt { client: 1, sequence: operation as u64 });
                (attempt, written.map(|value| encode(key, value, self.rng.below(most))))
            }
        };
        let clock = self.clock(self.replicas[place].host);
        let Replica { group, requests, positions, .. } = &mut self.replicas[place];
        let Some(group) = group else { return Ok(()) };
        group.clock(clock);
        requests.insert(request.0, (operation, positions.term.get()));
        match data {
            Some(data) => group.propose(request, data, attempt),
            None => group.read(request),
        }
        self.drive(place)
    }

    /// Every request gets one answer: takes the one that is answered now.
    pub(super) fn take_request(&mut self, place: usize, request: u64) -> Result<(usize, u64), Violation> {
        match self.replicas[place].requests.remove(&request) {
            Some(waiting) => Ok(waiting),
            None => {
                let what = format!("{}: request {request} has none to get", place + 1);
                Err(Violation { check: "one answer each", what })
            }
        }
    }

    fn finish(&mut self, operation: usize, outcome: Outcome) -> Checked {
        if outcome == Outcome::Refused && self.tried(operation, false) {
            return Ok(());
        }
        self.settle(operation, outcome)
    }

    /// How an operation ended.
    pub(super) fn settle(&mut self, operation: usize, outcome: Outcome) -> Checked {
        let it = &mut self.history.operations[operation];
        let value = it.written;
        // Somebody who gave up is told no more.
        if it.outcome == Outcome::Open {
            it.outcome = outcome;
        }
        match (value, outcome) {
            (Some(value), Outcome::Refused) => {
                self.history.refused(value).or_else(|what| violated("refused has no effect", what))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn unknown(&mut self, operation: usize) {
        if self.tried(operation, true) {
            return;
        }
        let it = &mut self.history.operations[operation];
        if it.outcome == Outcome::Open {
            it.outcome = Outcome::Unknown;
        }
    }

    /// A proposal was applied where it was made.
    pub(super) fn acknowledged(&mut self, place: usize, request: u64, data: &[u8]) -> Checked {
        let (operation, _) = self.take_request(place, request)?;
        if self.plan.voters == 1 {
            self.seen.note(Happening::Alone);
        }
        if self.metadata.is_some() {
            return self.metadata_answered(operation, data);
        }
        let written = self.history.operations[operation].written;
        if self.rules && decode(data).map(|(_, value)| value) != written {
            return violated("one answer each", format!("{}: the response to another request", place + 1));
        }
        self.finish(operation, Outcome::Done(self.events, 0))
    }

    pub(super) fn refused(&mut self, place: usize, request: u64, refusal: Refusal) -> Checked {
        let (operation, _) = self.take_request(place, request)?;
        let it = &self.history.operations[operation];
        match refusal {
            Refusal::Expired => self.seen.note(Happening::ReadExpired),
            Refusal::Busy => self.seen.note(Happening::RefusedBusy),
            // One that is refused at once was never in the log.
            Refusal::NotLeader { .. } if it.called < self.events => self.seen.note(Happening::Replaced),
            Refusal::NotLeader { leader: Some(_) } => self.seen.note(Happening::RefusedHint),
            _ => {}
        }
        self.finish(operation, Outcome::Refused)
    }

    pub(super) fn readable(&mut self, place: usize, request: u64, index: u64) -> Checked {
        let (operation, term) = self.take_request(place, request)?;
        if !self.check_read(place)? {
            self.unknown(operation);
            return Ok(());
        }
        let it = &self.replicas[place];
        if it.positions.term.get() != term {
            self.seen.note(Happening::ReadAskedAgain);
        }
        if !it.leads() {
            self.seen.note(Happening::ReadOnFollower);
        }
        let called = self.history.operations[operation].called;
        if self.plan.lease_reads && self.replicas[place].leads() && called == self.events && self.plan.voters > 1 {
            self.seen.note(Happening::ReadByLease);
        }
        let it = &self.replicas[place];
        if self.rules && it.machine.applied < index {
            return violated("a read waits for the state machine", format!("{}: {index}", place + 1));
        }
        let key = self.history.operations[operation].key;
        let value = match &it.meta {
            Some(meta) => meta.register(key),
            None => it.machine.registers.get(&key).copied().unwrap_or(0),
        };
        self.finish(operation, Outcome::Done(self.events, value))
    }

    /// Everything works again. Whether it does is asked from now on.
    pub(super) fn heal(&mut self) -> Checked {
        self.healed = true;
        self.note(|_| "everything heals".to_owned());
        for row in &mut self.blocked {
            row.fill(false);
        }
        for host in 0..self.hosts.len() {
            let it = &mut self.hosts[host];
            (it.paused_until, it.stalled_until, it.next_write_fails) = (0, 0, false);
            if !it.is_up {
                self.start_host(host)?;
            }
        }
        for place in 0..self.replicas.len() {
            let it = &mut self.replicas[place];
            it.next_apply_fails = false;
            let is_up = self.hosts[it.host].is_up;
            if is_up && it.group.is_none() && !it.is_closing && self.is_made(place) {
                self.start(place)?;
            }
        }
        self.after(TICK, Event::Probe);
        Ok(())
    }

    /// Those who take part, as their leader knows.
    pub(super) fn members(&self, group: usize) -> Vec<usize> {
        let replicas = self.places_of(group).map(|place| &self.replicas[place]);
        let leader = replicas.filter(|it| it.leads()).max_by_key(|it| it.positions.term);
        let members = leader.into_iter().flat_map(|leader| leader.membership.replicas());
        members.map(|replica| self.place(group, replica)).collect()
    }

    /// Progress: a write, a read everywhere, and everybody has applied everything, in each group.
    pub(super) fn probe(&mut self) -> Checked {
        self.after(TICK, Event::Probe);
        for group in 0..self.cells.len() {
            if self.now > (self.plan.chaos_ticks + self.patience_ticks()) * TICK && !self.cells[group].probe.is_done {
                let running = self.places_of(group).filter_map(|place| self.replicas[place].group.as_ref());
                let running: Vec<_> = running.map(|it| it.status()).collect();
                let written = self.cells[group].probe.written;
                return violated("progress", format!("written {written}, {:?}, {running:#?}", self.unrest()));
            }
            self.probe_group(group)?;
        }
        self.done = self.cells.iter().all(|cell| cell.probe.is_done);
        Ok(())
    }

    /// Those who are wrong are found and repaired one after the other.
    fn patience_ticks(&self) -> u64 {
        PATIENCE_TICKS + if self.checks() { REPAIR_TICKS } else { 0 }
    }

    fn probe_group(&mut self, group: usize) -> Checked {
        let is_hopeless = self.is_hopeless(group);
        let probe = &mut self.cells[group].probe;
        if let Some(operation) = probe.operation.take() {
            match self.history.operations[operation].outcome {
                Outcome::Open => {
                    probe.operation = Some(operation);
                    return Ok(());
                }
                Outcome::Done(..) if !probe.written => probe.written = true,
                Outcome::Done(..) => probe.read += 1,
                // From a state that is wrong, and that nobody can repair, nobody reads.
                Outcome::Unknown if probe.written && is_hopeless => probe.read += 1,
                Outcome::Refused | Outcome::Unknown => {}
            }
        }
        let (written, read) = (probe.written, probe.read);
        if !written {
            let leader = self.find_leader(group, 0);
            self.cells[group].probe.operation = Some(self.call(0, false, leader)?);
        } else if !self.is_repaired(group)? {
            return Ok(());
        } else if let Some(member) = self.members(group).get(read) {
            self.cells[group].probe.operation = Some(self.call(0, true, *member)?);
        } else {
            let end = self.cells[group].watch.committed.len() as u64;
            let members = self.members(group);
            let is_done = |place: &usize| self.replicas[*place].machine.applied == end;
            let quiet = !members.is_empty()
                && members.iter().all(is_done)
                && self.places_of(group).all(|place| self.replicas[place].requests.is_empty())
                && !self.replicas[members[0]].membership.is_joint()
                && self.unrest().is_none();
            if quiet && self.plan.learner {
                self.seen.note(Happening::LearnerCaughtUp);
            }
            self.cells[group].probe.is_done = quiet;
        }
        Ok(())
    }
}
