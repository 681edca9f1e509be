//! Cases of tables, and of logs and tables at once.

use std::ops::Bound;
use std::thread;

use super::*;
use crate::raftstore::log_store::{AppliedTo, ApplyWrite, KeyValue, Table, TableWrite};
use crate::raftstore::state_machine::ApplyBatch;

/// How often each thread does what it does, in the case with several.
const ROUNDS: u64 = 200;

pub(super) fn cases<S: GroupStore>() -> [(&'static str, Case<S>); 7] {
    named![
        effects_and_applied_index_are_one_write,
        an_apply_out_of_order_is_refused,
        a_range_is_scanned_in_order,
        groups_and_tables_are_apart,
        effects_of_several_groups_are_one_write,
        a_batch_shows_its_own_writes,
        threads_do_not_hinder_each_other,
    ]
}

fn put(table: Table, key: &[u8], value: &[u8]) -> TableWrite {
    TableWrite::Put(table, key.to_vec(), value.to_vec())
}

fn delete(table: Table, key: &[u8]) -> TableWrite {
    TableWrite::Delete(table, key.to_vec())
}

fn to(applied: u64) -> AppliedTo {
    AppliedTo { index: index(applied), membership: None }
}

/// A store with group 1 and 20 committed entries.
fn with_committed<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<S, Problem> {
    let store = with_group(bench)?;
    store.write(&[LogWrite { hard_state: Some(hard_state(9, 0, 20)), ..append(ONE, entries(1..21, 9)) }], true)?;
    Ok(store)
}

fn everything<S: GroupStore>(store: &S, group: GroupId, table: Table) -> Result<Vec<KeyValue>, Problem> {
    Ok(store.scan(group, table, (Bound::Unbounded, Bound::Unbounded), usize::MAX)?)
}

fn effects_and_applied_index_are_one_write<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_committed(bench)?;
    let get = |store: &S, key: &[u8]| store.get(ONE, Table::Kv, key);
    store.apply(ONE, &[put(Table::Kv, b"a", b"1"), put(Table::Kv, b"b", b"")], &to(3))?;
    equal("a", get(&store, b"a")?, Some(b"1".to_vec()))?;
    equal("b", get(&store, b"b")?, Some(vec![]))?;
    equal("applied", store.load(ONE)?.map(|stored| stored.applied), Some(index(3)))?;
    // In order, also of the same key; and a key that is not there may be removed.
    let writes = [
        put(Table::Kv, b"a", b"2"),
        delete(Table::Kv, b"a"),
        delete(Table::Kv, b"b"),
        put(Table::Kv, b"b", b"3"),
        delete(Table::Kv, b"none"),
        put(Table::Kv, b"", b"the empty key"),
    ];
    let changed = membership(&[1, 2]).with_learner(ReplicaId::new(4), NodeId::new(104));
    store.apply(ONE, &writes, &AppliedTo { index: index(5), membership: Some(changed.clone()) })?;
    // Nothing but the index and the membership.
    store.apply(ONE, &[], &to(6))?;
    let check = |store: &S, when: &str| -> Result<(), Problem> {
        let expected = vec![(vec![], b"the empty key".to_vec()), (b"b".to_vec(), b"3".to_vec())];
        equal(format_args!("the table {when}"), everything(store, ONE, Table::Kv)?, expected)?;
        let stored = store.load(ONE)?.map(|stored| (stored.applied, stored.membership));
        equal(format_args!("applied and membership {when}"), stored, Some((index(6), changed.clone())))?;
        consistent(store)
    };
    check(&store, "at once")?;
    // The next synced write makes durable what was applied before it.
    store.write(&[append(ONE, entries(21..22, 9))], true)?;
    let store = (bench.reopen)(store);
    check(&store, "after reopening")
}

fn an_apply_out_of_order_is_refused<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_committed(bench)?;
    store.apply(ONE, &[put(Table::Kv, b"a", b"1")], &to(10))?;
    let effects = [put(Table::Kv, b"a", b"2")];
    refused("an index that goes back", store.apply(ONE, &effects, &to(9)))?;
    refused("an index beyond the last entry", store.apply(ONE, &effects, &to(21)))?;
    refused("a group never made", store.apply(TWO, &effects, &to(0)))?;
    let store = (bench.reopen)(store);
    refused("an index that goes back, after reopening", store.apply(ONE, &effects, &to(9)))?;
    equal("a", store.get(ONE, Table::Kv, b"a")?, Some(b"1".to_vec()))?;
    equal("a of a group never made", store.get(TWO, Table::Kv, b"a")?, None)?;
    equal("the table of a group never made", everything(&store, TWO, Table::Kv)?, vec![])
}

fn a_range_is_scanned_in_order<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_committed(bench)?;
    let keys: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0", b"ab", b"b", b"\xFF\xFF"];
    let writes: Vec<_> = keys.iter().rev().map(|key| put(Table::Slots, key, b"v")).collect();
    store.apply(ONE, &writes, &to(1))?;
    type Ends<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);
    let scan = |range: Ends<'_>, limit| -> Result<Vec<Vec<u8>>, Problem> {
        Ok(store.scan(ONE, Table::Slots, range, limit)?.into_iter().map(|(key, _)| key).collect())
    };
    let owned = |keys: &[&[u8]]| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    let (from, after) = (|key: &'static [u8]| Bound::Included(key), |key: &'static [u8]| Bound::Excluded(key));
    let cases: [(Ends<'_>, &[&[u8]]); 9] = [
        ((Bound::Unbounded, Bound::Unbounded), &keys),
        ((from(b"a"), Bound::Unbounded), &keys[2..]),
        ((after(b"a"), Bound::Unbounded), &keys[3..]),
        ((Bound::Unbounded, after(b"b")), &keys[..5]),
        ((Bound::Unbounded, from(b"b")), &keys[..6]),
        ((from(b"a"), from(b"a")), &keys[2..3]),
        ((from(b"a"), after(b"a")), &[]),
        ((after(b"a"), after(b"a")), &[]),
        ((from(b"b"), after(b"a")), &[]),
    ];
    for (range, expected) in cases {
        equal(format_args!("{range:?}"), scan(range, usize::MAX)?, owned(expected))?;
        let few = &expected[..expected.len().min(2)];
        equal(format_args!("two of {range:?}"), scan(range, 2)?, owned(few))?;
        equal(format_args!("none of {range:?}"), scan(range, 0)?, vec![])?;
    }
    Ok(())
}

fn groups_and_tables_are_apart<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = (bench.make)();
    // Neighbours by number and, as bytes, by prefix.
    let groups = [0, 1, 2, 255, 256, u64::MAX - 1, u64::MAX].map(GroupId::new);
    let tables = [Table::Cluster, Table::Catalog, Table::Slots, Table::Kv];
    let value = |group: GroupId, table: Table| format!("{table:?} of {group}").into_bytes();
    for group in groups {
        let log = LogWrite { hard_state: Some(hard_state(1, 1, 1)), entries: entries(1..2, 1), ..create(group) };
        store.write(&[log], true)?;
        let same = tables.map(|table| put(table, b"key", &value(group, table)));
        let ends = tables.map(|table| put(table, &[0xFF; 20], b""));
        store.apply(group, &[same, ends].concat(), &to(1))?;
    }
    store.apply(groups[1], &[delete(Table::Kv, b"key")], &to(1))?;
    for group in groups {
        for table in tables {
            let mut expected = vec![(b"key".to_vec(), value(group, table)), (vec![0xFF; 20], vec![])];
            if (group, table) == (groups[1], Table::Kv) {
                expected.remove(0);
            }
            equal(format_args!("{table:?} of group {group}"), everything(&store, group, table)?, expected)?;
        }
    }
    Ok(())
}

fn effects_of_several_groups_are_one_write<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_committed(bench)?;
    let log = LogWrite { hard_state: Some(hard_state(1, 1, 2)), entries: entries(1..3, 1), ..create(TWO) };
    store.write(&[log], true)?;
    let value = |store: &S, group| store.get(group, Table::Kv, b"key");
    let of_one = [put(Table::Kv, b"key", b"of one")];
    let of_two = [put(Table::Kv, b"key", b"of two")];
    let both = |store: &S, (first, second): (u64, u64)| {
        let (first, second) = (to(first), to(second));
        let writes = [(ONE, &of_one, &first), (TWO, &of_two, &second)];
        store.apply_all(&writes.map(|(group, writes, applied)| ApplyWrite { group, writes, applied }))
    };
    refused("an index beyond the last entry of the second", both(&store, (2, 3)))?;
    equal("what the first was not given", value(&store, ONE)?, None)?;
    equal("where the first is", store.load(ONE)?.map(|stored| stored.applied), Some(index(0)))?;
    both(&store, (2, 1))?;
    for (group, expected, applied) in [(ONE, b"of one", 2), (TWO, b"of two", 1)] {
        equal(format_args!("the value of group {group}"), value(&store, group)?, Some(expected.to_vec()))?;
        let stored = store.load(group)?.map(|stored| stored.applied);
        equal(format_args!("where group {group} is"), stored, Some(index(applied)))?;
    }
    refused("an index that goes back", both(&store, (1, 2)))
}

fn a_batch_shows_its_own_writes<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_committed(bench)?;
    store.apply(ONE, &[put(Table::Kv, b"old", b"1"), put(Table::Kv, b"gone", b"1")], &to(1))?;
    let mut batch = ApplyBatch::new(&store, ONE);
    equal("a stored value", batch.get(Table::Kv, b"old")?, Some(b"1".to_vec()))?;
    batch.put(Table::Kv, b"old".as_slice(), b"2".as_slice());
    batch.delete(Table::Kv, b"gone".as_slice());
    batch.put(Table::Kv, b"new".as_slice(), b"1".as_slice());
    batch.delete(Table::Kv, b"new".as_slice());
    batch.put(Table::Kv, b"new".as_slice(), b"2".as_slice());
    equal("a value it set", batch.get(Table::Kv, b"old")?, Some(b"2".to_vec()))?;
    equal("a key it removed", batch.get(Table::Kv, b"gone")?, None)?;
    equal("a key it set last", batch.get(Table::Kv, b"new")?, Some(b"2".to_vec()))?;
    equal("the same key of another table", batch.get(Table::Slots, b"new")?, None)?;
    equal("what the store shows meanwhile", store.get(ONE, Table::Kv, b"old")?, Some(b"1".to_vec()))?;
    store.apply(ONE, batch.writes(), &to(2))?;
    let expected = [(b"new".to_vec(), b"2".to_vec()), (b"old".to_vec(), b"2".to_vec())];
    equal("the table", everything(&store, ONE, Table::Kv)?, expected.to_vec())
}

/// As a node uses it: one thread writes logs, one applies, others read.
fn threads_do_not_hinder_each_other<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_committed(bench)?;
    store.write(&[create(TWO), set(TWO, hard_state(1, 1, 0))], true)?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_and_truncate(&store));
        let applier = scope.spawn(|| -> Result<(), Problem> {
            for round in 0..ROUNDS {
                let value = round.to_be_bytes();
                let writes = [put(Table::Kv, b"one", &value), put(Table::Kv, b"other", &value)];
                store.apply(ONE, &writes, &to(1 + round * 19 / ROUNDS))?;
            }
            Ok(())
        });
        let reader = scope.spawn(|| -> Result<(), Problem> {
            for _ in 0..ROUNDS {
                let pair = everything(&store, ONE, Table::Kv)?;
                let values = (pair.first().map(|(_, value)| value), pair.get(1).map(|(_, value)| value));
                equal("two keys that are always written together", values.0, values.1)?;
                read_as_it_moves(&store)?;
            }
            Ok(())
        });
        for thread in [writer, applier, reader] {
            thread.join().map_err(|_| Problem("a thread panicked".into()))??;
        }
        Ok::<(), Problem>(())
    })?;
    equal("the last entry of group 2", last(&store, TWO)?, Some(Position::new(ROUNDS * 3, 1)))?;
    consistent(&store)?;
    let store = (bench.reopen)(store);
    equal("the last entry of group 2", last(&store, TWO)?, Some(Position::new(ROUNDS * 3, 1)))?;
    consistent(&store)
}

fn write_and_truncate<S: GroupStore>(store: &S) -> Result<(), Problem> {
    for round in 0..ROUNDS {
        let (from, end) = (round * 3 + 1, round * 3 + 4);
        let log = LogWrite { hard_state: Some(hard_state(1, 1, end - 1)), ..append(TWO, entries(from..end, 1)) };
        store.write(&[log], round % 10 == 9)?;
        store.apply(TWO, &[], &to(end - 1))?;
        store.write(&[truncate(TWO, from, 1)], false)?;
    }
    Ok(())
}

/// Whatever is read was true at some moment.
fn read_as_it_moves<S: GroupStore>(store: &S) -> Result<(), Problem> {
    let Some(stored) = store.load(TWO)? else { return Err(Problem("group 2 is gone".into())) };
    let found = log_from(store, TWO, stored.truncated.index.next().get())?;
    for (entry, expected) in found.iter().zip(stored.truncated.index.next().get()..) {
        equal("an index", entry.index(), index(expected))?;
    }
    // It may have been truncated since, and others after it.
    match store.term(TWO, stored.last.index)? {
        Some(term) => equal("the term of the last entry", term, stored.last.term),
        None => Ok(()),
    }
}
