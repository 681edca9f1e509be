//! The stores of this crate, and a small machine, against the suite that any of them has to pass. And machines with the
//! usual mistakes, which it has to find. Machines that keep their own position are in `own_machines`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may stop anywhere")]

#[path = "support/ledger.rs"]
mod ledger;
#[path = "raftstore_conformance/own_machines.rs"]
mod own_machines;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use mainstay::ident::{GroupId, LogIndex, NodeId, ReplicaId, Term};
use mainstay::raftstore::check;
use mainstay::raftstore::conformance::{self, Failure};
use mainstay::raftstore::entry::{Entry, HardState, Membership, Position};
use mainstay::raftstore::log_store::{
    AppliedTo, GroupStore, LogStore, LogWrite, StoreError, StoredGroup, Table, TableStore, TableWrite,
};
use mainstay::raftstore::memory::MemoryStore;
use mainstay::raftstore::rocks::RocksStore;
use mainstay::raftstore::snapshot::{Pair, Place, Restore, SnapshotId, SnapshotMeta, SnapshotStore};
use mainstay::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};
use mainstay::storage::Storage;
use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use tempfile::TempDir;

fn open(directory: &TempDir) -> RocksStore {
    let storage = Storage::open(directory.path(), 1 << 20).expect("a data directory");
    RocksStore::open(Arc::new(storage)).expect("a store")
}

#[test]
fn memory_store() -> Result<(), Failure> {
    conformance::check_store(MemoryStore::new, |store| store)
}

#[test]
fn rocks_store() -> Result<(), Failure> {
    let directory = RefCell::new(None);
    let make = || open(directory.borrow_mut().insert(TempDir::new().expect("a directory")));
    let reopen = |store| {
        drop(store);
        open(directory.borrow().as_ref().expect("one was made"))
    };
    conformance::check_store(make, reopen)
}

/// Something to do to a store, in numbers relative to how it stands, so that many of them make sense.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Write>),
    Apply {
        ahead: u64,
    },
    /// Of one of two snapshots, so far ahead of what is applied. All of these are of group 1.
    Begin {
        id: u64,
        ahead: u64,
    },
    Fill {
        id: u64,
        from: u8,
        count: u8,
        is_last: bool,
    },
    Abandon {
        id: u64,
    },
    /// Takes over what was begun last under a name, with an entry behind it.
    Restore {
        id: u64,
    },
    Reopen,
}

#[derive(Clone, Debug)]
struct Write {
    group: u64,
    create: bool,
    term_ahead: u64,
    /// Entries begin so many before the one behind the last.
    entries: Option<(u64, u64)>,
    commit_ahead: u64,
    truncate: Option<u64>,
}

fn writes() -> impl Strategy<Value = Write> {
    let entries = of((0u64..4, 1u64..6).prop_map(|(back, count)| (back.saturating_sub(1), count)));
    (1u64..3, weighted(0.02, Just(())), 0u64..3, entries, 0u64..4, of(0u64..8)).prop_map(
        |(group, create, term_ahead, entries, commit_ahead, truncate)| Write {
            group,
            create: create.is_some(),
            term_ahead,
            entries,
            commit_ahead,
            truncate,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(writes(), 1..4).prop_map(Step::Write),
        3 => (0u64..4).prop_map(|ahead| Step::Apply { ahead }),
        2 => (1u64..3, 0u64..9).prop_map(|(id, ahead)| Step::Begin { id, ahead }),
        3 => (1u64..3, 0u8..40, 0u8..4, any::<bool>())
            .prop_map(|(id, from, count, is_last)| Step::Fill { id, from, count, is_last }),
        1 => (1u64..3).prop_map(|id| Step::Abandon { id }),
        2 => (1u64..3).prop_map(|id| Step::Restore { id }),
        1 => Just(Step::Reopen),
    ]
}

/// The write that is meant, if a group stands so.
fn log_write(write: &Write, stored: &StoredGroup) -> LogWrite {
    let group = GroupId::new(write.group);
    let membership = Membership::of_voters([(ReplicaId::new(1), NodeId::new(1))]);
    let create = write.create.then(|| (ReplicaId::new(1), membership));
    let term = stored.hard_state.term.get() + write.term_ahead;
    let mut last = stored.last.index.get();
    let entries: Vec<_> = write.entries.map_or_else(Vec::new, |(back, count)| {
        let from = last + 1 - back.min(last);
        (from..from + count).map(|index| Entry::command(Position::new(index, term), vec![7; 9], vec![])).collect()
    });
    last = entries.last().map_or(last, |entry| entry.index().get());
    let commit = (stored.hard_state.commit.get() + write.commit_ahead).min(last + write.commit_ahead / 3);
    let hard_state = HardState { term: Term::new(term), vote: None, commit: LogIndex::new(commit) };
    let truncate = write.truncate.map(|back| {
        let index = stored.applied.get().saturating_sub(back.saturating_sub(1));
        Position::new(index, stored.last.term.get().min(term))
    });
    LogWrite { group, create, restore: None, hard_state: Some(hard_state), entries, truncate }
}

/// What was answered, without its words.
fn kind<T>(answer: Result<T, StoreError>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(StoreError::Refused(_)) => "refused",
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever is asked of them, both stores answer and hold the same, and nothing that contradicts itself.
    #[test]
    fn both_stores_are_the_same(steps in vec(steps(), 1..40)) {
        let directory = TempDir::new().expect("a directory");
        let (memory, mut rocks) = (MemoryStore::new(), open(&directory));
        let new = [1, 2].map(|group| LogWrite {
            create: Some((ReplicaId::new(1), Membership::of_voters([(ReplicaId::new(1), NodeId::new(1))]))),
            hard_state: Some(HardState { term: Term::new(1), ..HardState::default() }),
            ..LogWrite::new(GroupId::new(group))
        });
        prop_assert_eq!((memory.write(&new, true), rocks.write(&new, true)), (Ok(()), Ok(())));
        let mut metas = HashMap::new();
        for step in steps {
            let group = GroupId::new(1);
            match &step {
                Step::Write(writes) => {
                    let load = |group| memory.load(GroupId::new(group)).expect("a group").expect("a group");
                    let writes: Vec<_> = writes.iter().map(|write| log_write(write, &load(write.group))).collect();
                    prop_assert_eq!(kind(memory.write(&writes, false)), kind(rocks.write(&writes, false)), "{:?}", writes);
                }
                Step::Apply { ahead } => {
                    let applied = memory.load(group).expect("a group").map_or(0, |stored| stored.applied.get());
                    let to = AppliedTo { index: LogIndex::new(applied + ahead), membership: None };
                    let writes = [TableWrite::Put(Table::Kv, vec![*ahead as u8], to.index.get().to_be_bytes().into())];
                    let answers = (memory.apply(group, &writes, &to), rocks.apply(group, &writes, &to));
                    prop_assert_eq!(kind(answers.0), kind(answers.1), "{:?}", to);
                }
                Step::Begin { id, ahead } => {
                    let stored = memory.load(group).expect("a group").expect("a group");
                    let position = Position::new(stored.applied.get() + ahead, stored.hard_state.term.get());
                    let meta = SnapshotMeta { id: SnapshotId(*id), position, membership: stored.membership };
                    let answers = (memory.begin_fill(group, &meta), rocks.begin_fill(group, &meta));
                    match answers {
                        (Ok(one), Ok(other)) => prop_assert_eq!(one, other, "{:?}", step),
                        (one, other) => prop_assert_eq!(kind(one), kind(other), "{:?}", step),
                    }
                    metas.insert(*id, meta);
                }
                Step::Fill { id, from, count, is_last } => {
                    let pair = |key: u8| {
                        let table = Table::ALL[usize::from(key) / 9];
                        Pair { place: Place { table, key: vec![key] }, value: vec![*count; 3] }
                    };
                    let pairs: Vec<_> = (*from..from + count).map(pair).collect();
                    let id = SnapshotId(*id);
                    let answers = (memory.fill(group, id, &pairs, *is_last), rocks.fill(group, id, &pairs, *is_last));
                    prop_assert_eq!(kind(answers.0), kind(answers.1), "{:?}", step);
                }
                Step::Abandon { id } => {
                    let id = SnapshotId(*id);
                    prop_assert_eq!(memory.abandon_fill(group, id), rocks.abandon_fill(group, id));
                }
                Step::Restore { id } => {
                    let Some(SnapshotMeta { id, position, membership }) = metas.get(id).cloned() else { continue };
                    let entry = Entry::command(Position { index: position.index.next(), ..position }, vec![], vec![]);
                    let restore = Some(Restore { id, position, membership });
                    let write = [LogWrite { restore, entries: vec![entry], ..LogWrite::new(group) }];
                    prop_assert_eq!(kind(memory.write(&write, false)), kind(rocks.write(&write, false)), "{:?}", step);
                }
                Step::Reopen => {
                    drop(rocks);
                    rocks = open(&directory);
                    // What is being filled ends with the process.
                    for id in [1, 2] {
                        prop_assert_eq!(memory.abandon_fill(group, SnapshotId(id)), Ok(()));
                    }
                }
            }
            let (one, other): (&dyn GroupStore, &dyn GroupStore) = (&memory, &rocks);
            prop_assert_eq!(one.groups(), other.groups());
            for group in one.groups().expect("groups") {
                prop_assert_eq!(one.load(group), other.load(group), "{:?}", step);
                let first = one.load(group).expect("a group").expect("a group").truncated.index.next();
                let everything = first..LogIndex::new(u64::MAX);
                let logs = (one.entries(group, everything.clone(), usize::MAX), other.entries(group, everything, usize::MAX));
                prop_assert_eq!(logs.0, logs.1, "{:?}", step);
                let all = (Bound::Unbounded, Bound::Unbounded);
                for table in Table::ALL {
                    prop_assert_eq!(one.scan(group, table, all, 99), other.scan(group, table, all, 99), "{:?}", step);
                }
                let captured = [one, other].map(|store| {
                    let captured = store.capture(group, SnapshotId(9)).expect("a snapshot");
                    (captured.meta().clone(), captured.read(None, usize::MAX).expect("pairs"))
                });
                prop_assert_eq!(&captured[0], &captured[1], "{:?}", step);
                prop_assert_eq!(check::check_group(&rocks, group), Ok(vec![]));
            }
        }
    }
}

/// Counts how often it was given each command, and all of them.
#[derive(Default)]
struct Counts {
    mistake: Mistake,
    /// What a machine must not keep.
    remembered: HashMap<Vec<u8>, u64>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Mistake {
    #[default]
    None,
    /// Keeps its state in memory alone.
    Remembers,
    /// Draws a number.
    Draws,
    /// Answers once per batch.
    AnswersOnce,
}

impl Counts {
    fn increment(batch: &mut ApplyBatch<'_>, key: &[u8]) -> Result<u64, ApplyError> {
        let stored = batch.get(Table::Kv, key)?;
        let count = stored.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?))).unwrap_or(0) + 1;
        batch.put(Table::Kv, key, count.to_be_bytes());
        Ok(count)
    }
}

impl StateMachine for Counts {
    fn apply(&mut self, commands: &[Command<'_>], batch: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        let mut responses = Vec::new();
        for command in commands {
            let all = Counts::increment(batch, b"")?;
            let mut count = Counts::increment(batch, command.data)?;
            match self.mistake {
                Mistake::Remembers => {
                    let remembered = self.remembered.entry(command.data.to_vec()).or_default();
                    *remembered += 1;
                    count = *remembered;
                }
                Mistake::Draws => {
                    let number = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                    count = number.expect("a clock").subsec_nanos().into();
                }
                Mistake::None | Mistake::AnswersOnce => {}
            }
            responses.push(format!("{count} of {all}").into());
        }
        if self.mistake == Mistake::AnswersOnce {
            responses.truncate(1);
        }
        Ok(responses)
    }
}

fn check(mistake: Mistake) -> Result<(), Failure> {
    let commands = ["a", "b", "a", "c", "a", "b", "a"].map(|command| command.as_bytes().to_vec());
    let machine = || Counts { mistake, ..Counts::default() };
    conformance::check_machine(MemoryStore::new, machine, &commands)
}

#[test]
fn a_deterministic_machine_passes_and_others_do_not() {
    assert_eq!(check(Mistake::None), Ok(()));
    let case = |mistake| check(mistake).expect_err("a mistake").case;
    assert_eq!(case(Mistake::Remembers), "a_machine_made_anew_goes_on");
    assert_eq!(case(Mistake::Draws), "equal_commands_give_equal_states");
    assert_eq!(case(Mistake::AnswersOnce), "equal_commands_give_equal_states");
}
