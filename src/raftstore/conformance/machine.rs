//! Cases of state machines: any that keeps all its state in tables.

use std::ops::Bound;

use bytes::Bytes;

use super::*;
use crate::raftstore::log_store::{AppliedTo, KeyValue, Table};
use crate::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Problem {
        Problem(error.to_string())
    }
}

/// Everything in a group's tables.
type Contents = Vec<(Table, Vec<KeyValue>)>;

/// A machine, the store that it lives in, and commands for it.
struct Trial<'a, S, M> {
    make_store: &'a mut dyn FnMut() -> S,
    make_machine: &'a mut dyn FnMut() -> M,
    commands: &'a [Vec<u8>],
}

/// What a run over all commands came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    responses: Vec<Bytes>,
    contents: Contents,
}

/// Runs all cases of a state machine that keeps its state in tables, on the given commands. Choose ones that depend on
/// each other. `make_store` makes an empty store, `make_machine` a machine that knows nothing yet.
///
/// # Errors
/// The first case that failed.
pub fn check_machine<S: GroupStore, M: StateMachine>(
    mut make_store: impl FnMut() -> S,
    mut make_machine: impl FnMut() -> M,
    commands: &[Vec<u8>],
) -> Result<(), Failure> {
    type Case<S, M> = fn(&mut Trial<'_, S, M>) -> Result<(), Problem>;
    let cases: [(&'static str, Case<S, M>); 4] = [
        ("equal_commands_give_equal_states", equal_commands_give_equal_states),
        ("how_commands_are_batched_does_not_matter", how_commands_are_batched_does_not_matter),
        ("a_machine_made_anew_goes_on", a_machine_made_anew_goes_on),
        ("effects_wait_for_the_batch", effects_wait_for_the_batch),
    ];
    let mut trial = Trial { make_store: &mut make_store, make_machine: &mut make_machine, commands };
    for (case, run) in cases {
        run(&mut trial).map_err(|Problem(what)| Failure { case, what })?;
    }
    Ok(())
}

fn equal_commands_give_equal_states<S: GroupStore, M: StateMachine>(
    trial: &mut Trial<'_, S, M>,
) -> Result<(), Problem> {
    let all = trial.commands.len().max(1);
    let (one, other) = (trial.run(all, false)?, trial.run(all, false)?);
    equal("a second run", other, one)
}

fn how_commands_are_batched_does_not_matter<S: GroupStore, M: StateMachine>(
    trial: &mut Trial<'_, S, M>,
) -> Result<(), Problem> {
    // At once, a command must see what those before it wrote to the same batch.
    let (one_by_one, at_once) = (trial.run(1, false)?, trial.run(trial.commands.len().max(1), false)?);
    equal("all commands in one batch", &at_once, &one_by_one)?;
    equal("batches of three", trial.run(3, false)?, one_by_one)
}

fn a_machine_made_anew_goes_on<S: GroupStore, M: StateMachine>(trial: &mut Trial<'_, S, M>) -> Result<(), Problem> {
    let (kept, anew) = (trial.run(2, false)?, trial.run(2, true)?);
    equal("a machine that is made anew before each batch", anew, kept)
}

fn effects_wait_for_the_batch<S: GroupStore, M: StateMachine>(trial: &mut Trial<'_, S, M>) -> Result<(), Problem> {
    let (store, untouched) = (trial.store()?, trial.store()?);
    let (mut machine, mut second) = ((trial.make_machine)(), (trial.make_machine)());
    equal("its own position", machine.own_applied()?, None)?;
    let commands: Vec<_> = trial.commands().collect();
    let mut batch = ApplyBatch::new(&store, ONE);
    machine.apply(&commands, &mut batch)?;
    equal("the tables before the batch is written", contents(&store)?, contents(&untouched)?)?;
    // As after a crash that lost it: the same commands come once more, to a machine that knows nothing of them.
    let mut again = ApplyBatch::new(&store, ONE);
    second.apply(&commands, &mut again)?;
    equal("the effects of a second attempt", again.writes(), batch.writes())
}

impl<S: GroupStore, M: StateMachine> Trial<'_, S, M> {
    /// A store with group 1, and room for all commands.
    fn store(&mut self) -> Result<S, Problem> {
        let store = (self.make_store)();
        let length = self.commands.len() as u64;
        let log = LogWrite { entries: entries(1..length + 1, 1), ..create(ONE) };
        store.write(&[LogWrite { hard_state: Some(hard_state(1, 1, length)), ..log }], true)?;
        Ok(store)
    }

    fn commands(&self) -> impl Iterator<Item = Command<'_>> {
        self.commands.iter().zip(1..).map(|(data, at)| Command { index: index(at), data })
    }

    /// Applies all commands to a new store, in batches of a size.
    fn run(&mut self, batch_len: usize, anew: bool) -> Result<Outcome, Problem> {
        let store = self.store()?;
        let mut machine = (self.make_machine)();
        let mut responses = Vec::new();
        let mut done = 0;
        while done < self.commands.len() {
            if anew {
                machine = (self.make_machine)();
            }
            let commands: Vec<_> = self.commands().skip(done).take(batch_len).collect();
            let mut batch = ApplyBatch::new(&store, ONE);
            let answers = machine.apply(&commands, &mut batch)?;
            equal("responses", answers.len(), commands.len())?;
            responses.extend(answers);
            done += commands.len();
            store.apply(ONE, batch.writes(), &AppliedTo { index: index(done as u64), membership: None })?;
        }
        consistent(&store)?;
        Ok(Outcome { responses, contents: contents(&store)? })
    }
}

fn contents<S: GroupStore>(store: &S) -> Result<Contents, Problem> {
    let everything = (Bound::Unbounded, Bound::Unbounded);
    let tables = [Table::Cluster, Table::Catalog, Table::Slots, Table::Kv];
    tables.into_iter().map(|table| Ok((table, store.scan(ONE, table, everything, usize::MAX)?))).collect()
}
