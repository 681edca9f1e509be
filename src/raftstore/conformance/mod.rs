//! What any store and any state machine has to pass, for whoever implements one. Nothing here panics: a failing case is
//! answered by its name and what it found.
//!
//! ```
//! use mainstay::raftstore::{conformance, memory::MemoryStore};
//!
//! // A store in memory outlives nothing, so reopening it is keeping it.
//! conformance::check_store(MemoryStore::new, |store| store)?;
//! # Ok::<(), conformance::Failure>(())
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `log` | cases of logs |
//! | `tables` | cases of tables, and of logs and tables at once |
//! | `snapshot` | cases of snapshots |
//! | `clear` | cases of tables that a machine with a store of its own has no more use for |
//! | `unhealthy` | cases of replicas whose state is wrong |
//! | `machine` | cases of state machines in tables |
//! | `own_machine` | cases of those that keep their own position |

mod clear;
mod log;
mod machine;
mod own_machine;
mod snapshot;
mod tables;
mod unhealthy;

use std::fmt::{self, Debug};
use std::ops::Range;

use super::check;
use super::entry::{Entry, HardState, Membership, Position};
use super::log_store::{GroupStore, LogWrite, StoreError, StoredGroup};
use crate::ident::{GroupId, LogIndex, NodeId, ReplicaId, Term};
pub use machine::check_machine;
pub use own_machine::check_own_machine;

/// A case that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{case}: {what}")]
pub struct Failure {
    /// Its name.
    pub case: &'static str,
    /// What was expected, and what was found.
    pub what: String,
}

/// A store and how to get one.
struct Bench<'a, S> {
    make: &'a mut dyn FnMut() -> S,
    reopen: &'a mut dyn FnMut(S) -> S,
}

type Case<S> = fn(&mut Bench<'_, S>) -> Result<(), Problem>;

/// What is wrong.
#[derive(Debug)]
struct Problem(String);

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        Problem(error.to_string())
    }
}

/// Runs all cases of a store. `make` makes an empty one; `reopen` closes the one that was made last and opens it
/// again, after it was written with a sync.
///
/// # Errors
/// The first case that failed.
pub fn check_store<S: GroupStore>(mut make: impl FnMut() -> S, mut reopen: impl FnMut(S) -> S) -> Result<(), Failure> {
    let mut bench = Bench { make: &mut make, reopen: &mut reopen };
    let cases = log::cases()
        .into_iter()
        .chain(tables::cases())
        .chain(snapshot::cases())
        .chain(clear::cases())
        .chain(unhealthy::cases());
    for (case, run) in cases {
        run(&mut bench).map_err(|Problem(what)| Failure { case, what })?;
    }
    Ok(())
}

const ONE: GroupId = GroupId::new(1);
const TWO: GroupId = GroupId::new(2);

/// Named functions.
macro_rules! named {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), $name as super::Case<_>)),*] };
}
use named;

fn equal<T: PartialEq + Debug>(what: impl fmt::Display, found: T, expected: T) -> Result<(), Problem> {
    if found == expected {
        return Ok(());
    }
    Err(Problem(format!("{what}: expected {expected:?}, found {found:?}")))
}

fn refused<T: Debug>(what: impl fmt::Display, answer: Result<T, StoreError>) -> Result<(), Problem> {
    match answer {
        Err(StoreError::Refused(_)) => Ok(()),
        other => Err(Problem(format!("{what}: expected a refusal, found {other:?}"))),
    }
}

fn membership(replicas: &[u64]) -> Membership {
    Membership::of_voters(replicas.iter().map(|id| (ReplicaId::new(*id), NodeId::new(id + 100))))
}

fn create(group: GroupId) -> LogWrite {
    LogWrite { create: Some((ReplicaId::new(1), membership(&[1, 2, 3]))), ..LogWrite::new(group) }
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let vote = (vote != 0).then(|| ReplicaId::new(vote));
    HardState { term: Term::new(term), vote, commit: LogIndex::new(commit) }
}

/// An entry whose data say where it stands.
fn entry(index: u64, term: u64) -> Entry {
    Entry::command(Position::new(index, term), format!("{index}/{term}").into_bytes(), Vec::new())
}

fn entries(range: Range<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term)).collect()
}

/// A write of entries, by a replica in their last term.
fn append(group: GroupId, entries: Vec<Entry>) -> LogWrite {
    LogWrite { entries, ..LogWrite::new(group) }
}

fn set(group: GroupId, hard_state: HardState) -> LogWrite {
    LogWrite { hard_state: Some(hard_state), ..LogWrite::new(group) }
}

fn truncate(group: GroupId, index: u64, term: u64) -> LogWrite {
    LogWrite { truncate: Some(Position::new(index, term)), ..LogWrite::new(group) }
}

/// A store with group 1 in term 9.
fn with_group<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<S, Problem> {
    let store = (bench.make)();
    store.write(&[create(ONE), set(ONE, hard_state(9, 0, 0))], true)?;
    Ok(store)
}

fn index(index: u64) -> LogIndex {
    LogIndex::new(index)
}

/// The whole log from an index on.
fn log_from<S: GroupStore>(store: &S, group: GroupId, from: u64) -> Result<Vec<Entry>, Problem> {
    Ok(store.entries(group, index(from)..index(u64::MAX), usize::MAX)?)
}

fn last<S: GroupStore>(store: &S, group: GroupId) -> Result<Option<Position>, Problem> {
    Ok(store.load(group)?.map(|stored| stored.last))
}

/// Nothing contradicts itself.
fn consistent<S: GroupStore>(store: &S) -> Result<(), Problem> {
    for group in store.groups()? {
        equal(format_args!("what is wrong with group {group}"), check::check_group(store, group)?, Vec::new())?;
    }
    Ok(())
}
