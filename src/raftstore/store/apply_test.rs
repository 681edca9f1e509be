use super::*;
use crate::ident::{NodeId, ReplicaId, Term};
use crate::raftstore::context::Attempt;
use crate::raftstore::entry::{HardState, Membership, Position};
use crate::raftstore::log_store::{KeyValue, LogStore, LogWrite, Table, TableStore};
use crate::raftstore::memory::MemoryStore;
use crate::raftstore::state_machine::{MachineSnapshots, MachineState};
use proptest::prelude::*;
use std::ops::Bound;

const GROUP: GroupId = GroupId::new(1);

/// Remembers what it was given, in order.
struct Journal;

impl StateMachine for Journal {
    fn apply(&mut self, commands: &[Command<'_>], batch: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        for command in commands {
            batch.put(Table::Kv, command.index.get().to_be_bytes(), command.data);
        }
        Ok(commands.iter().map(|command| Bytes::copy_from_slice(&command.index.get().to_le_bytes())).collect())
    }
}

fn store_with(entries: &[Entry]) -> MemoryStore {
    let store = MemoryStore::new();
    let replica = ReplicaId::new(1);
    let mut write = LogWrite::new(GROUP);
    write.create = Some((replica, Membership::of_voters([(replica, NodeId::new(1))])));
    write.hard_state = Some(HardState { term: Term::new(1), vote: None, commit: LogIndex::default() });
    write.entries = entries.to_vec();
    store.write(&[write], true).unwrap();
    store
}

/// An entry as it comes from the log when nobody waits for it.
fn item(entry: &Entry) -> ApplyItem {
    ApplyItem { entry: entry.clone(), compacts: false, membership: None, hash: false, unhealthy: None, waiter: None }
}

/// Applies and writes.
fn apply(machine: &mut Machine, store: &MemoryStore, items: Vec<ApplyItem>) {
    let applied = machine.apply(store, GROUP, items).unwrap();
    store.apply_all(&[applied.write()]).unwrap();
    machine.written(applied.through, applied.compacts).unwrap();
}

/// What the tables hold after the entries were applied in batches of these sizes.
fn applied(entries: &[Entry], sizes: &[usize]) -> Vec<KeyValue> {
    let store = store_with(entries);
    let sessions = || {
        let mut sessions = Sessions::load(&store, GROUP).unwrap();
        sessions.max_clients = 3;
        Some(sessions)
    };
    let mut machine = Machine::new(Box::new(Journal), sessions(), None, LogIndex::default(), false);
    let (mut rest, mut sizes) = (entries, sizes.iter().cycle());
    while !rest.is_empty() {
        let (batch, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        rest = later;
        apply(&mut machine, &store, batch.iter().map(item).collect());
        // A restart in between changes nothing either.
        machine.sessions = sessions();
    }
    let table = |table| store.scan(GROUP, table, (Bound::Unbounded, Bound::Unbounded), usize::MAX).unwrap();
    [table(Table::Kv), table(Table::Sessions)].concat()
}

proptest! {
    /// Replicas apply the same entries in different batches. Who was seen before, and who is forgotten, must not depend
    /// on where a batch ends. Three clients are remembered here, of six.
    #[test]
    fn batches_make_no_difference(
        attempts in prop::collection::vec((0u64..6, 0u64..4), 1..60),
        sizes in prop::collection::vec(1usize..20, 1..8),
    ) {
        let entry = |(at, (client, sequence)): (usize, &(u64, u64))| {
            let sequence = if *sequence == 3 { u64::MAX } else { *sequence };
            let context = Context::Once(Attempt { client: *client, sequence }).encode();
            Entry::command(Position::new(at as u64 + 1, 1), vec![at as u8], context)
        };
        let entries: Vec<Entry> = attempts.iter().enumerate().map(entry).collect();
        let one_by_one = applied(&entries, &[1]);
        prop_assert!(!one_by_one.is_empty());
        prop_assert_eq!(applied(&entries, &sizes), one_by_one);
    }
}

/// Keeps its own position, and in snapshots the same.
struct Own(LogIndex);

impl MachineState for Own {
    fn read(&self, after: Option<&[u8]>, _: usize) -> Result<Vec<KeyValue>, StoreError> {
        let pair = (b"applied".to_vec(), self.0.get().to_be_bytes().to_vec());
        Ok(if after.is_none() { vec![pair] } else { vec![] })
    }
}

impl MachineSnapshots for Own {
    fn capture(&mut self) -> Result<Box<dyn MachineState>, ApplyError> {
        Ok(Box::new(Own(self.0)))
    }

    fn install(&mut self, index: LogIndex, _: &dyn MachineState) -> Result<(), ApplyError> {
        self.0 = index;
        Ok(())
    }
}

impl StateMachine for Own {
    fn own_applied(&self) -> Result<Option<LogIndex>, ApplyError> {
        Ok(Some(self.0))
    }

    fn apply(&mut self, commands: &[Command<'_>], _: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        self.0 = commands.last().map_or(self.0, |command| command.index);
        Ok(commands.iter().map(|_| Bytes::new()).collect())
    }

    fn snapshots(&mut self) -> Option<&mut dyn MachineSnapshots> {
        Some(self)
    }
}

#[test]
fn a_machine_behind_what_was_noted_catches_up_in_small_steps() {
    let entries: Vec<Entry> =
        (1..=9).map(|index| Entry::command(Position::new(index, 1), vec![1], Vec::new())).collect();
    let store = store_with(&entries);
    store.apply(GROUP, &[], &AppliedTo { index: LogIndex::new(8), membership: None }).unwrap();
    let noted = LogIndex::new(8);
    let own = LogIndex::new(2);
    let mut machine = Machine::new(Box::new(Own(own)), None, Some(own), noted, false);
    for entry in &entries[2..] {
        apply(&mut machine, &store, vec![item(entry)]);
    }
    assert_eq!(store.load(GROUP).unwrap().unwrap().applied, LogIndex::new(9));
    assert_eq!(machine.machine.own_applied().unwrap(), Some(LogIndex::new(9)));
}

/// A snapshot and a hash say as of which entry they are. A machine behind what was noted, or ahead of what it was given,
/// is as of another.
#[test]
fn a_machine_is_captured_only_as_of_the_entry_that_is_noted() {
    let entries: Vec<Entry> =
        (1..=9).map(|index| Entry::command(Position::new(index, 1), vec![1], Vec::new())).collect();
    for (own, noted) in [(2, 8), (8, 2), (4, 4)] {
        let store = store_with(&entries);
        let (own, noted) = (LogIndex::new(own), LogIndex::new(noted));
        store.apply(GROUP, &[], &AppliedTo { index: noted, membership: None }).unwrap();
        let mut machine = Machine::new(Box::new(Own(own)), None, Some(own), noted, false);
        for entry in [None].into_iter().chain(entries.iter().map(Some)) {
            // As the group gives them: from the lesser of the two on.
            if let Some(entry) = entry {
                if entry.index() <= own.min(noted) {
                    continue;
                }
                apply(&mut machine, &store, vec![item(entry)]);
            }
            let through = entry.map_or(own.min(noted), Entry::index);
            let captured = machine.capture(&store, GROUP, SnapshotId(1)).unwrap();
            let expected = (through >= own.max(noted)).then_some(through);
            assert_eq!(captured.as_ref().map(|it| it.meta().position.index), expected, "{own}, {noted}: {through}");
            if let Some(captured) = captured {
                let pairs = captured.read(None, usize::MAX).unwrap();
                assert_eq!(pairs[1].value, through.get().to_be_bytes(), "{own}, {noted}");
            }
        }
    }
}

/// Its effects in the tables would come once more after a crash, and not at all with a snapshot.
#[test]
fn a_machine_that_keeps_its_own_position_writes_nothing_into_the_tables() {
    let entry = Entry::command(Position::new(1, 1), vec![1], Vec::new());
    let store = store_with(std::slice::from_ref(&entry));
    let mut machine = Machine::new(Box::new(Journal), None, Some(LogIndex::default()), LogIndex::default(), false);
    let refused = machine.apply(&store, GROUP, vec![item(&entry)]);
    assert!(matches!(refused, Err(Unapplied::Read(ApplyError::Machine(_)))));
    assert_eq!(store.scan(GROUP, Table::Kv, (Bound::Unbounded, Bound::Unbounded), 1).unwrap(), []);
}
