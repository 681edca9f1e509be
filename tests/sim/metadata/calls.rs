//! Commands on their way. Operators ask again under the same name, elsewhere, until they know what became of a command or
//! have had enough.

use super::super::clients::CLIENT_TICKS;
use super::super::oracle::{Operation, Outcome};
use super::super::seen::Happening;
use super::super::world::{Checked, Event, TICK, World, violated};
use super::commands::{command, encode, make_room, put_register};
use crate::meta::command::decode_answer;
use crate::meta::proto::{Command, Refusal, answer};
use crate::raftstore::context::Attempt;

/// Operations that set no register.
const NO_REGISTER: u8 = u8::MAX;
/// The client of an operation that nobody repeats; operators have lower numbers.
const FIRST_CLIENT: u64 = 1000;
/// How often an operator proposes a command at most.
const MAX_TRIES: u32 = 5;

/// A command.
pub(super) struct Call {
    bytes: Vec<u8>,
    attempt: Option<Attempt>,
    /// Whether somebody goes on asking.
    repeats: bool,
    /// Whether an answer is awaited, and since when.
    pub(super) waits: bool,
    since: u64,
    tries: u32,
    /// One that was proposed may still take effect.
    is_unsure: bool,
}

/// One operator: one command at a time.
#[derive(Default)]
pub(super) struct Operator {
    operation: Option<usize>,
    sequence: u64,
}

impl Call {
    fn new(command: &Command, attempt: Option<Attempt>, repeats: bool) -> Call {
        let bytes = encode(command);
        Call { bytes, attempt, repeats, waits: true, since: 0, tries: 0, is_unsure: false }
    }
}

impl World {
    pub(in super::super) fn begin_metadata(&mut self) {
        let Some(metadata) = &mut self.metadata else { return };
        metadata.operators.resize_with(super::OPERATORS, Operator::default);
        for operator in 0..super::OPERATORS {
            self.after(1 + operator as u64, Event::Operator { operator });
        }
        self.begin_watching();
    }

    /// A client's operation, if it writes, is a command of its own.
    pub(in super::super) fn call_metadata(&mut self, operation: usize) {
        let Operation { key, written, .. } = self.history.operations[operation];
        let Some(value) = written.filter(|_| self.metadata.is_some()) else { return };
        let kinds = vec![put_register(key, value, self.rng.below(self.plan.command_bytes + 1))];
        let attempt = self.rng.chance(200).then_some(Attempt { client: FIRST_CLIENT + operation as u64, sequence: 1 });
        if let Some(metadata) = &mut self.metadata {
            metadata.calls.insert(operation, Call::new(&command(operation, kinds), attempt, false));
        }
    }

    /// What is proposed for an operation.
    pub(in super::super) fn metadata_command(&mut self, operation: usize) -> Option<(Option<Attempt>, Vec<u8>)> {
        let call = self.metadata.as_mut()?.calls.get(&operation)?;
        Some((call.attempt, call.bytes.clone()))
    }

    /// A new operation that is asked for at a replica; says its number.
    pub(super) fn begin_call(&mut self, register: Option<u8>) -> usize {
        let operation = self.history.operations.len();
        let (key, written) = (register.unwrap_or(NO_REGISTER), Some(operation as u64 + 1));
        self.history.operations.push(Operation { key, written, called: self.events, outcome: Outcome::Open });
        operation
    }

    pub(super) fn propose_call(
        &mut self,
        operation: usize,
        command: &Command,
        attempt: Option<Attempt>,
        place: usize,
    ) -> Checked {
        let repeats = attempt.is_some();
        if let Some(metadata) = &mut self.metadata {
            metadata.calls.insert(operation, Call::new(command, attempt, repeats));
        }
        self.try_call(operation, place)
    }

    fn try_call(&mut self, operation: usize, place: usize) -> Checked {
        let now = self.now;
        let Some(call) = self.metadata.as_mut().and_then(|it| it.calls.get_mut(&operation)) else { return Ok(()) };
        (call.waits, call.since, call.tries) = (true, now, call.tries + 1);
        let until = self.hosts[self.replicas[place].host].paused_until;
        match until > self.now {
            true => {
                self.after(until - self.now, Event::Request { place, operation });
                Ok(())
            }
            false => self.request(place, operation),
        }
    }

    /// A command had no effect, or may have one. Says whether somebody else goes on with it.
    pub(in super::super) fn tried(&mut self, operation: usize, is_unsure: bool) -> bool {
        let is_open = self.history.operations[operation].outcome == Outcome::Open;
        let call = self.metadata.as_mut().and_then(|it| it.calls.get_mut(&operation));
        let Some(call) = call.filter(|call| call.repeats && is_open) else { return false };
        (call.waits, call.is_unsure) = (false, call.is_unsure || is_unsure);
        true
    }

    /// A command was applied where it was proposed, now or before.
    pub(in super::super) fn metadata_answered(&mut self, operation: usize, bytes: &[u8]) -> Checked {
        if bytes.is_empty() {
            // A later one of its client was.
            self.unknown(operation);
            return Ok(());
        }
        let Some(metadata) = &self.metadata else { return Ok(()) };
        let expected = metadata.reference.answers.get(&operation);
        if expected.is_none_or(|expected| expected != bytes) {
            return violated(
                "one answer each",
                format!("operation {operation}: expected {expected:?}, found {bytes:?}"),
            );
        }
        if metadata.calls.get(&operation).is_some_and(|call| call.tries > 1) {
            self.seen.note(Happening::Repeated);
        }
        match decode_answer(bytes).ok().and_then(|answer| answer.outcome) {
            Some(answer::Outcome::Done(done)) => {
                if done.results.len() > 1 {
                    self.seen.note(Happening::BatchDone);
                }
                self.settle(operation, Outcome::Done(self.events, 0))
            }
            Some(answer::Outcome::Refused(refused)) => {
                if refused.action > 0 {
                    self.seen.note(Happening::BatchRefused);
                }
                if refused.why() == Refusal::Quota {
                    self.seen.note(Happening::NoRoom);
                }
                if refused.why() == Refusal::AlreadyFormed {
                    self.seen.note(Happening::FormedBefore);
                }
                self.settle(operation, Outcome::Refused)
            }
            None => violated("one answer each", format!("operation {operation}: no outcome")),
        }
    }

    /// An operator's turn.
    pub(in super::super) fn operator(&mut self, operator: usize) -> Checked {
        let Some(metadata) = &mut self.metadata else { return Ok(()) };
        let is_formed = metadata.reference.model.is_formed;
        let mut again = None;
        if let Some(operation) = metadata.operators[operator].operation
            && self.history.operations[operation].outcome == Outcome::Open
            && let Some(call) = metadata.calls.get_mut(&operation)
        {
            if call.waits && call.since + CLIENT_TICKS * TICK < self.now {
                (call.waits, call.is_unsure) = (false, true);
            }
            again = Some((operation, call.waits, call.tries < MAX_TRIES, call.is_unsure));
        }
        match again {
            Some((_, true, ..)) => {
                self.after(TICK / 2, Event::Operator { operator });
                return Ok(());
            }
            Some((operation, false, true, _)) => {
                self.think(operator);
                let place = self.somewhere();
                return self.try_call(operation, place);
            }
            Some((operation, false, false, is_unsure)) => {
                let outcome = if is_unsure { Outcome::Unknown } else { Outcome::Refused };
                self.settle(operation, outcome)?;
            }
            None => {}
        }
        if self.healed && is_formed && !self.is_forcing() {
            // Where there is no room, somebody makes some.
            if !(self.plan.tight && operator == 0) {
                return Ok(());
            }
            if self.metadata.as_ref().is_some_and(|it| !it.reference.model.has_more_than_registers()) {
                self.think(operator);
                return Ok(());
            }
        }
        self.think(operator);
        self.new_command(operator)
    }

    fn think(&mut self, operator: usize) {
        let delay = 1 + self.rng.below(self.plan.think_ticks * TICK);
        self.after(delay, Event::Operator { operator });
    }

    /// Somebody who leads, mostly.
    fn somewhere(&mut self) -> usize {
        if self.rng.chance(150) {
            let host = self.rng.below(self.hosts.len() as u64) as usize;
            return self.place_on(host, 0);
        }
        self.find_leader(0, 0)
    }

    fn new_command(&mut self, operator: usize) -> Checked {
        let place = self.somewhere();
        let makes_room =
            self.plan.tight && self.healed && self.metadata.as_ref().is_some_and(|it| it.reference.model.is_formed);
        let sets = !makes_room && self.rng.chance(250);
        let register = sets.then(|| self.rng.below(self.plan.keys) as u8);
        let operation = self.begin_call(register);
        let Some(metadata) = &mut self.metadata else { return Ok(()) };
        let mut kinds = metadata.known.draw(&mut self.rng, &metadata.reference.model, &self.plan);
        if makes_room {
            kinds = vec![make_room()];
        }
        kinds = self.forced_command().unwrap_or(kinds);
        let Some(metadata) = &mut self.metadata else { return Ok(()) };
        if let Some(register) = register {
            let at = self.rng.below(kinds.len() as u64 + 1) as usize;
            kinds.insert(at, put_register(register, operation as u64 + 1, 0));
        }
        let it = &mut metadata.operators[operator];
        (it.operation, it.sequence) = (Some(operation), it.sequence + 1);
        let attempt = Attempt { client: operator as u64 + 1, sequence: it.sequence };
        let command = command(operation, kinds);
        self.note(|_| format!("operator {operator} calls {operation} at {}: {command:?}", place + 1));
        self.propose_call(operation, &command, Some(attempt), place)
    }
}
