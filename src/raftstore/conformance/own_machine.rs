//! Cases of state machines that keep their own position: any that gives and takes snapshots.

use bytes::Bytes;

use super::*;
use crate::raftstore::log_store::KeyValue;
use crate::raftstore::memory::MemoryStore;
use crate::raftstore::state_machine::{ApplyBatch, Command, MachineSnapshots, MachineState, StateMachine};

/// Whatever a machine thinks of a page.
const PAGES: [usize; 3] = [1, 64, usize::MAX];
/// Installs are broken off at each read up to this one.
const MAX_BREAKS: usize = 64;
/// No state in a test has so many pairs.
const MAX_PAIRS: usize = 1 << 20;

/// A machine, how to get it, and commands for it.
struct Trial<'a, M> {
    make: &'a mut dyn FnMut() -> M,
    reopen: &'a mut dyn FnMut(M) -> M,
    commands: &'a [Vec<u8>],
    /// Nothing may be written into it.
    store: MemoryStore,
}

/// Runs all cases of a state machine that keeps its own position, on the given commands. Choose ones that depend on each
/// other. `make` makes a machine that knows nothing, in a place of its own; `reopen` ends one, as a crash would, and opens
/// it again in its place.
///
/// # Errors
/// The first case that failed.
pub fn check_own_machine<M: StateMachine>(
    mut make: impl FnMut() -> M,
    mut reopen: impl FnMut(M) -> M,
    commands: &[Vec<u8>],
) -> Result<(), Failure> {
    type Case<M> = fn(&mut Trial<'_, M>) -> Result<(), Problem>;
    let cases: [(&'static str, Case<M>); 8] = [
        ("a_machine_says_where_it_is", a_machine_says_where_it_is),
        ("a_machine_goes_on_from_where_it_is", a_machine_goes_on_from_where_it_is),
        ("a_captured_state_does_not_change", a_captured_state_does_not_change),
        ("a_captured_state_is_read_in_pages", a_captured_state_is_read_in_pages),
        ("an_installed_state_replaces_everything", an_installed_state_replaces_everything),
        ("a_state_may_be_installed_twice", a_state_may_be_installed_twice),
        ("an_install_that_breaks_off_is_begun_again", an_install_that_breaks_off_is_begun_again),
        ("an_installed_machine_goes_on_as_any", an_installed_machine_goes_on_as_any),
    ];
    let mut trial = Trial { make: &mut make, reopen: &mut reopen, commands, store: MemoryStore::new() };
    for (case, run) in cases {
        run(&mut trial).map_err(|Problem(what)| Failure { case, what })?;
    }
    Ok(())
}

fn a_machine_says_where_it_is<M: StateMachine>(trial: &mut Trial<'_, M>) -> Result<(), Problem> {
    let mut machine = (trial.make)();
    equal("where a new machine is", machine.own_applied()?, Some(LogIndex::default()))?;
    let last = trial.last();
    trial.apply(&mut machine, 0, usize::MAX)?;
    let flushed = machine.flush()?;
    equal("whether it flushed no more than it was given", flushed <= last, true)?;
    let machine = (trial.reopen)(machine);
    let own = trial.own(&machine)?;
    equal(
        format_args!("whether it is between {flushed} and {last} when it is opened again"),
        own,
        own.clamp(flushed, last),
    )
}

fn a_machine_goes_on_from_where_it_is<M: StateMachine>(trial: &mut Trial<'_, M>) -> Result<(), Problem> {
    let mut whole = (trial.make)();
    let expected = trial.apply(&mut whole, 0, usize::MAX)?;
    let mut machine = (trial.make)();
    for step in 0..trial.commands.len() {
        trial.apply(&mut machine, step, 1)?;
        if step % 3 == 1 {
            machine.flush()?;
        }
        if step % 4 == 2 {
            machine = (trial.reopen)(machine);
            // What it does not know it is given once more, and answers the same.
            let known = trial.known(&machine)?;
            let again = trial.apply(&mut machine, known, step + 1 - known)?;
            equal(
                "responses to what it has forgotten",
                again,
                expected.get(known..=step).unwrap_or_default().to_vec(),
            )?;
        }
    }
    same_state(&mut machine, &mut whole, "after all commands")
}

fn a_captured_state_does_not_change<M: StateMachine>(trial: &mut Trial<'_, M>) -> Result<(), Problem> {
    let half = trial.commands.len() / 2;
    let (mut machine, mut other) = ((trial.make)(), (trial.make)());
    trial.apply(&mut machine, 0, half)?;
    trial.apply(&mut other, 0, half)?;
    let captured = snapshots(&mut machine)?.capture()?;
    trial.apply(&mut machine, half, usize::MAX)?;
    machine.flush()?;
    let expected = state(&mut other)?;
    equal("what was captured, after later commands", pairs(&*captured, usize::MAX)?, expected.clone())?;
    let replaced = snapshots(&mut other)?.capture()?;
    snapshots(&mut machine)?.install(trial.last(), &*replaced)?;
    equal("what was captured, after a snapshot was installed", pairs(&*captured, usize::MAX)?, expected)
}

fn a_captured_state_is_read_in_pages<M: StateMachine>(trial: &mut Trial<'_, M>) -> Result<(), Problem> {
    let mut machine = (trial.make)();
    trial.apply(&mut machine, 0, usize::MAX)?;
    let captured = snapshots(&mut machine)?.capture()?;
    let whole = pairs(&*captured, usize::MAX)?;
    for limit_bytes in PAGES {
        let found = pairs(&*captured, limit_bytes)?;
        equal(format_args!("pages of {limit_bytes} bytes"), &found, &whole)?;
        let rise = found.is_sorted_by(|(one, _), (next, _)| one < next);
        equal(format_args!("whether keys rise in pages of {limit_bytes} bytes"), rise, true)?;
    }
    equal("what is read behind nothing at all", captured.read(Some(&[]), usize::MAX)?.is_empty(), {
        whole.iter().all(|(key, _)| key.is_empty())
    })
}

fn an_installed_state_replaces_everything<M: StateMachine>(trial: &mut Trial<'_, M>) -> Result<(), Problem> {
    let (mut donor, mut empty) = ((trial.make)(), (trial.make)());
    let half = trial.commands.len() / 2;
    trial.apply(&mut donor, half, usize::MAX)?;
    for giver in [&mut donor, &mut empty] {
        let mut machine = (trial.make)();
        trial.apply(&mut machine, 0, half)?;
        let captured = snapshots(giver)?.capture()?;
        let at = index(trial.last().get() + 9);
        snapshots(&mut machine)?.install(at, &*captured)?;
        equal("where it is", machine.own_applied()?, Some(at))?;
        same_state(&mut machine, giver, "after it was installed")?;
        let mut machine = (trial.reopen)(machine);
        equal("where it is when it is opened again", machine.own_applied()?, Some(at))?;
        same_state(&mut machine, giver, "when it is opened again")?;
    }
    Ok(())
}

fn a_state_may_be_installed_twice<M: StateMachine>(trial: &mut Trial<'_, M>) -> Result<(), Problem> {
    let mut donor = (trial.make)();
    trial.apply(&mut donor, 0, usize::MAX)?;
    let captured = snapshots(&mut donor)?.capture()?;
    let mut machine = (trial.make)();
    // Of another state, as of the same entry: as a replica whose state was found to be wrong.
    let skipped = trial.commands.len().min(1);
    trial.apply(&mut machine, skipped, usize::MAX)?;
    for round in 1..=3 {
        snapshots(&mut machine)?.install(trial.last(), &*captured)?;
        equal(format_args!("where it is, round {round}"), machine.own_applied()?, Some(trial.last()))?;
        machine = (trial.reopen)(machine);
        equal(format_args!("where it is when opened, round {round}"), machine.own_applied()?, Some(trial.last()))?;
        same_state(&mut machine, &mut donor, "as installed")?;
    }
    Ok(())
}

fn an_install_that_breaks_off_is_begun_again<M: StateMachine>(trial: &mut Trial<'_, M>) -> Result<(), Problem> {
    let mut donor = (trial.make)();
    trial.apply(&mut donor, 0, usize::MAX)?;
    let captured = snapshots(&mut donor)?.capture()?;
    let at = index(trial.last().get() + 9);
    let half = trial.commands.len() / 2;
    for reads in 0..MAX_BREAKS {
        let mut machine = (trial.make)();
        trial.apply(&mut machine, 0, half)?;
        let broken = Broken { state: &*captured, left: reads.into() };
        let is_done = snapshots(&mut machine)?.install(at, &broken).is_ok();
        machine = (trial.reopen)(machine);
        let own = trial.own(&machine)?;
        if is_done {
            equal("where it is", own, at)?;
            return same_state(&mut machine, &mut donor, "as installed");
        }
        equal(format_args!("whether it is at {at} at most, after read {reads} failed"), own.min(at), own)?;
        snapshots(&mut machine)?.install(at, &*captured)?;
        equal("where it is after a second attempt", machine.own_applied()?, Some(at))?;
        same_state(&mut machine, &mut donor, "after a second attempt")?;
    }
    Ok(())
}

fn an_installed_machine_goes_on_as_any<M: StateMachine>(trial: &mut Trial<'_, M>) -> Result<(), Problem> {
    let half = trial.commands.len() / 2;
    let (mut donor, mut machine) = ((trial.make)(), (trial.make)());
    trial.apply(&mut donor, 0, half)?;
    let captured = snapshots(&mut donor)?.capture()?;
    snapshots(&mut machine)?.install(index(half as u64), &*captured)?;
    machine = (trial.reopen)(machine);
    let expected = trial.apply(&mut donor, half, usize::MAX)?;
    equal("its responses", trial.apply(&mut machine, half, usize::MAX)?, expected)?;
    same_state(&mut machine, &mut donor, "after all commands")
}

impl<M: StateMachine> Trial<'_, M> {
    /// The index of the last command.
    fn last(&self) -> LogIndex {
        index(self.commands.len() as u64)
    }

    fn own(&self, machine: &M) -> Result<LogIndex, Problem> {
        machine.own_applied()?.ok_or_else(|| Problem("it does not say where it is".into()))
    }

    /// How many of the commands a machine knows.
    fn known(&self, machine: &M) -> Result<usize, Problem> {
        Ok(usize::try_from(self.own(machine)?.get()).unwrap_or(usize::MAX).min(self.commands.len()))
    }

    /// Applies some of the commands, behind so many, in batches of two; answers the responses.
    fn apply(&self, machine: &mut M, skip: usize, count: usize) -> Result<Vec<Bytes>, Problem> {
        let commands = self.commands.iter().zip(1..).map(|(data, at)| Command { index: index(at), data });
        let commands: Vec<_> = commands.skip(skip).take(count).collect();
        let mut responses = Vec::new();
        for commands in commands.chunks(2) {
            let mut batch = ApplyBatch::new(&self.store, ONE);
            let answers = machine.apply(commands, &mut batch)?;
            equal("responses", answers.len(), commands.len())?;
            equal("what it writes into the tables", batch.writes(), &[])?;
            responses.extend(answers);
        }
        Ok(responses)
    }
}

/// A state that cannot be read any more after some reads.
struct Broken<'a> {
    state: &'a dyn MachineState,
    left: std::sync::atomic::AtomicUsize,
}

impl MachineState for Broken<'_> {
    fn read(&self, after: Option<&[u8]>, _: usize) -> Result<Vec<KeyValue>, StoreError> {
        use std::sync::atomic::Ordering::SeqCst;
        let left = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        left.map_err(|_| StoreError::Failed("broken off".into()))?;
        // In small pages, so that there are many of them.
        self.state.read(after, 1)
    }
}

fn snapshots<M: StateMachine>(machine: &mut M) -> Result<&mut dyn MachineSnapshots, Problem> {
    machine.snapshots().ok_or_else(|| Problem("it gives and takes no snapshots".into()))
}

fn pairs(state: &dyn MachineState, limit_bytes: usize) -> Result<Vec<KeyValue>, Problem> {
    let mut all: Vec<KeyValue> = Vec::new();
    while all.len() < MAX_PAIRS {
        let page = state.read(all.last().map(|(key, _)| key.as_slice()), limit_bytes)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
    Err(Problem(format!("its state has no end: more than {MAX_PAIRS} pairs were read")))
}

fn state<M: StateMachine>(machine: &mut M) -> Result<Vec<KeyValue>, Problem> {
    pairs(&*snapshots(machine)?.capture()?, usize::MAX)
}

fn same_state<M: StateMachine>(machine: &mut M, as_of: &mut M, when: &str) -> Result<(), Problem> {
    equal(format_args!("its state {when}"), state(machine)?, state(as_of)?)
}
