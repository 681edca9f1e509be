//! Cases of logs.

use super::*;
use crate::raftstore::entry::EntryKind;
use crate::raftstore::log_store::{AppliedTo, Table, TableWrite};

pub(super) fn cases<S: GroupStore>() -> [(&'static str, Case<S>); 13] {
    named![
        a_new_store_is_empty,
        a_group_is_made_once,
        groups_are_in_order_and_apart,
        entries_are_read_within_bounds,
        every_kind_of_entry_comes_back,
        entries_replace_everything_behind_them,
        what_makes_no_log_is_refused,
        a_refused_list_writes_nothing,
        a_list_of_writes_is_written_in_order,
        term_and_vote_are_never_taken_back,
        a_truncated_log_goes_on,
        a_log_outlives_reopening,
        what_is_destroyed_stays_destroyed,
    ]
}

fn a_new_store_is_empty<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = (bench.make)();
    equal("groups", store.groups()?, vec![])?;
    equal("group 1", store.load(ONE)?, None)?;
    equal("entries", log_from(&store, ONE, 1)?, vec![])?;
    equal("the term at 1", store.term(ONE, index(1))?, None)?;
    equal("the term at 0", store.term(ONE, index(0))?, None)?;
    refused("a write to a group never made", store.write(&[set(ONE, hard_state(1, 1, 0))], true))?;
    store.write(&[], true)?;
    equal("groups", store.groups()?, vec![])
}

fn a_group_is_made_once<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = (bench.make)();
    store.write(&[create(ONE)], true)?;
    let new = StoredGroup {
        replica: ReplicaId::new(1),
        hard_state: HardState::default(),
        membership: membership(&[1, 2, 3]),
        applied: index(0),
        truncated: Position::default(),
        last: Position::default(),
        unhealthy: None,
    };
    equal("a new group", store.load(ONE)?, Some(new.clone()))?;
    equal("the term before its first entry", store.term(ONE, index(0))?, Some(Term::new(0)))?;
    let again = LogWrite { create: Some((ReplicaId::new(2), membership(&[2]))), ..LogWrite::new(ONE) };
    refused("a second creation", store.write(&[again], true))?;
    refused("two creations at once", store.write(&[create(TWO), create(TWO)], true))?;
    equal("the group", store.load(ONE)?, Some(new))?;
    // One that will learn of its membership from its leader.
    let joins = LogWrite { create: Some((ReplicaId::new(7), Membership::default())), ..LogWrite::new(TWO) };
    store.write(&[joins], true)?;
    equal("groups", store.groups()?, vec![ONE, TWO])?;
    consistent(&store)
}

fn groups_are_in_order_and_apart<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = (bench.make)();
    let ids = [256, 0, u64::MAX, 1, u64::MAX - 1, 2].map(GroupId::new);
    for (group, length) in ids.into_iter().zip(1..) {
        store
            .write(&[create(group), set(group, hard_state(1, 1, 0)), append(group, entries(1..length + 1, 1))], true)?;
    }
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    equal("groups", store.groups()?, sorted)?;
    for (group, length) in ids.into_iter().zip(1..) {
        equal(format_args!("the end of group {group}"), last(&store, group)?, Some(Position::new(length, 1)))?;
        equal(format_args!("the log of group {group}"), log_from(&store, group, 1)?, entries(1..length + 1, 1))?;
    }
    consistent(&store)
}

fn entries_are_read_within_bounds<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_group(bench)?;
    store.write(&[append(ONE, entries(1..11, 3))], true)?;
    store.write(&[append(ONE, entries(11..21, 5))], false)?;
    equal("the last entry", last(&store, ONE)?, Some(Position::new(20, 5)))?;
    let read = |range: Range<u64>, limit| store.entries(ONE, index(range.start)..index(range.end), limit);
    equal("all of it", read(1..21, usize::MAX)?, [entries(1..11, 3), entries(11..21, 5)].concat())?;
    equal("a part", read(9..13, usize::MAX)?, [entries(9..11, 3), entries(11..13, 5)].concat())?;
    equal("to behind its end", read(20..99, usize::MAX)?, entries(20..21, 5))?;
    equal("from behind its end", read(21..99, usize::MAX)?, vec![])?;
    equal("from before its start", read(0..5, usize::MAX)?, vec![])?;
    equal("nothing", read(5..5, usize::MAX)?, vec![])?;
    let (from, to) = (8, 5);
    equal("backwards", read(from..to, usize::MAX)?, vec![])?;
    // At least one, and never one that does not fit.
    let size_bytes = entry(5, 3).size_bytes();
    equal("within 0 bytes", read(5..9, 0)?, entries(5..6, 3))?;
    equal("within the bytes of two", read(5..9, 2 * size_bytes)?, entries(5..7, 3))?;
    equal("within a byte less than three", read(5..9, 3 * size_bytes - 1)?, entries(5..7, 3))?;
    for (at, term) in [(0, Some(0)), (1, Some(3)), (10, Some(3)), (11, Some(5)), (20, Some(5)), (21, None)] {
        equal(format_args!("the term at {at}"), store.term(ONE, index(at))?, term.map(Term::new))?;
    }
    consistent(&store)
}

fn every_kind_of_entry_comes_back<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_group(bench)?;
    let bytes = |length: usize| (0..length).map(|number| number as u8).collect::<Vec<_>>();
    let kinds = vec![
        Entry::command(Position::new(1, 1), vec![], vec![]),
        Entry::command(Position::new(2, 1), bytes(300), bytes(7)),
        Entry::new(EntryKind::ConfChange, Position::new(3, 1), bytes(12), bytes(1)),
        Entry::new(EntryKind::ConfChange, Position::new(4, 2), vec![], vec![]),
        Entry::command(Position::new(5, 9), bytes(3 << 20), vec![0; 1000]),
    ];
    store.write(&[append(ONE, kinds.clone())], true)?;
    equal("entries", log_from(&store, ONE, 1)?, kinds.clone())?;
    let store = (bench.reopen)(store);
    equal("entries after reopening", log_from(&store, ONE, 1)?, kinds)
}

fn entries_replace_everything_behind_them<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_group(bench)?;
    store.write(&[append(ONE, entries(1..101, 1))], true)?;
    // In the middle, and fewer than were there.
    store.write(&[append(ONE, entries(41..43, 2))], true)?;
    equal("the last entry", last(&store, ONE)?, Some(Position::new(42, 2)))?;
    equal("the log", log_from(&store, ONE, 39)?, [entries(39..41, 1), entries(41..43, 2)].concat())?;
    equal("the term behind it", store.term(ONE, index(43))?, None)?;
    equal("entries behind it", log_from(&store, ONE, 43)?, vec![])?;
    // What comes next stands where stale ones stood, and none of them shows behind it.
    store.write(&[append(ONE, entries(43..45, 3))], true)?;
    let expected = [entries(41..43, 2), entries(43..45, 3)].concat();
    equal("the log", log_from(&store, ONE, 41)?, expected.clone())?;
    consistent(&store)?;
    let store = (bench.reopen)(store);
    equal("the last entry after reopening", last(&store, ONE)?, Some(Position::new(44, 3)))?;
    equal("the log after reopening", log_from(&store, ONE, 41)?, expected)?;
    // The very last, the very first, and exactly as many.
    store.write(&[append(ONE, entries(44..45, 4))], true)?;
    equal("the last entry", last(&store, ONE)?, Some(Position::new(44, 4)))?;
    store.write(&[append(ONE, entries(1..2, 4))], true)?;
    equal("the log", log_from(&store, ONE, 1)?, entries(1..2, 4))?;
    consistent(&store)
}

fn what_makes_no_log_is_refused<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_group(bench)?;
    store.write(&[append(ONE, entries(1..11, 5)), set(ONE, hard_state(9, 0, 8))], true)?;
    store.apply(ONE, &[], &AppliedTo { index: index(6), membership: None })?;
    store.write(&[truncate(ONE, 4, 5)], true)?;
    let joined = |one: Vec<Entry>, other: Vec<Entry>| [one, other].concat();
    for (what, entries) in [
        ("a gap before the first", entries(12..13, 5)),
        ("a gap between two", joined(entries(11..12, 5), entries(13..14, 5))),
        ("the same index twice", joined(entries(11..12, 5), entries(11..12, 5))),
        ("a truncated one", entries(4..12, 5)),
        ("a committed one", entries(8..9, 6)),
        ("index 0", entries(0..1, 5)),
        ("a term that falls", joined(entries(11..12, 7), entries(12..13, 6))),
        ("a term below that of the last", entries(11..12, 4)),
        ("a term below that of the one before", entries(9..10, 4)),
        ("a term later than the replica's", entries(11..12, 10)),
    ] {
        refused(what, store.write(&[append(ONE, entries)], true))?;
    }
    refused("a truncation beyond the last entry", store.write(&[truncate(ONE, 11, 5)], true))?;
    refused("a truncation beyond what is applied", store.write(&[truncate(ONE, 7, 5)], true))?;
    refused("a truncation at another term", store.write(&[truncate(ONE, 6, 4)], true))?;
    refused("a commit beyond the last entry", store.write(&[set(ONE, hard_state(9, 0, 11))], true))?;
    refused("a commit that goes back", store.write(&[set(ONE, hard_state(9, 0, 7))], true))?;
    equal("the log", log_from(&store, ONE, 5)?, entries(5..11, 5))?;
    // Being refused breaks nothing.
    store.write(&[append(ONE, entries(9..10, 6))], true)?;
    equal("the last entry", last(&store, ONE)?, Some(Position::new(9, 6)))?;
    consistent(&store)
}

fn a_refused_list_writes_nothing<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_group(bench)?;
    store.write(&[append(ONE, entries(1..4, 1))], true)?;
    let before = store.load(ONE)?;
    let list =
        [create(TWO), append(ONE, entries(2..9, 2)), set(ONE, hard_state(10, 1, 1)), append(ONE, entries(99..100, 2))];
    refused("a list with a gap at its end", store.write(&list, true))?;
    equal("the group", store.load(ONE)?, before)?;
    equal("the log", log_from(&store, ONE, 1)?, entries(1..4, 1))?;
    equal("groups", store.groups()?, vec![ONE])?;
    // What the list had planned is forgotten, too.
    store.write(&[append(ONE, entries(4..5, 1)), create(TWO)], true)?;
    consistent(&store)
}

fn a_list_of_writes_is_written_in_order<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = (bench.make)();
    let list = [
        LogWrite { hard_state: Some(hard_state(1, 1, 0)), entries: entries(1..9, 1), ..create(ONE) },
        create(TWO),
        // Behind an entry that the same list has put.
        LogWrite { hard_state: Some(hard_state(2, 2, 2)), entries: entries(4..6, 2), ..LogWrite::new(ONE) },
        append(ONE, entries(6..7, 2)),
    ];
    store.write(&list, true)?;
    let expected = [entries(1..4, 1), entries(4..7, 2)].concat();
    equal("the log", log_from(&store, ONE, 1)?, expected.clone())?;
    equal("the hard state", store.load(ONE)?.map(|stored| stored.hard_state), Some(hard_state(2, 2, 2)))?;
    equal("groups", store.groups()?, vec![ONE, TWO])?;
    refused(
        "a term below that of an entry of the same list",
        store.write(&[append(ONE, entries(5..8, 2)), append(ONE, entries(7..8, 1))], true),
    )?;
    // Entries and the truncation of one of them.
    store.apply(ONE, &[], &AppliedTo { index: index(2), membership: None })?;
    store.write(&[LogWrite { truncate: Some(Position::new(2, 1)), ..append(ONE, entries(7..8, 2)) }], true)?;
    equal("the log", log_from(&store, ONE, 3)?, [entries(3..4, 1), entries(4..8, 2)].concat())?;
    consistent(&store)?;
    let store = (bench.reopen)(store);
    consistent(&store)
}

fn term_and_vote_are_never_taken_back<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = (bench.make)();
    store.write(&[create(ONE), set(ONE, hard_state(3, 0, 0))], true)?;
    store.write(&[set(ONE, hard_state(3, 2, 0))], true)?;
    refused("a term that falls", store.write(&[set(ONE, hard_state(2, 2, 0))], true))?;
    refused("another vote in the same term", store.write(&[set(ONE, hard_state(3, 1, 0))], true))?;
    refused("no vote in the same term", store.write(&[set(ONE, hard_state(3, 0, 0))], true))?;
    let store = (bench.reopen)(store);
    equal("the hard state", store.load(ONE)?.map(|stored| stored.hard_state), Some(hard_state(3, 2, 0)))?;
    refused("another vote after reopening", store.write(&[set(ONE, hard_state(3, 1, 0))], true))?;
    store.write(&[set(ONE, hard_state(4, 1, 0))], true)?;
    equal("the hard state", store.load(ONE)?.map(|stored| stored.hard_state), Some(hard_state(4, 1, 0)))
}

fn a_truncated_log_goes_on<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_group(bench)?;
    let (one, two) = (entries(1..6, 1), entries(6..11, 2));
    store.write(&[append(ONE, [one, two].concat()), set(ONE, hard_state(9, 0, 10))], true)?;
    store.apply(ONE, &[], &AppliedTo { index: index(10), membership: None })?;
    store.write(&[truncate(ONE, 5, 1)], true)?;
    let truncated = |store: &S| store.load(ONE).map(|stored| stored.map(|stored| stored.truncated));
    equal("truncated", truncated(&store)?, Some(Position::new(5, 1)))?;
    for (at, term) in [(0, None), (4, None), (5, Some(1)), (6, Some(2))] {
        equal(format_args!("the term at {at}"), store.term(ONE, index(at))?, term.map(Term::new))?;
    }
    equal("entries from a truncated one on", log_from(&store, ONE, 5)?, vec![])?;
    equal("entries", log_from(&store, ONE, 6)?, entries(6..11, 2))?;
    // What is truncated already is left alone, whatever is said of its term.
    store.write(&[truncate(ONE, 3, 1), truncate(ONE, 5, 7)], true)?;
    equal("truncated", truncated(&store)?, Some(Position::new(5, 1)))?;
    // All of it.
    store.write(&[truncate(ONE, 10, 2)], true)?;
    equal("the last entry", last(&store, ONE)?, Some(Position::new(10, 2)))?;
    equal("entries", log_from(&store, ONE, 10)?, vec![])?;
    equal("the term at 10", store.term(ONE, index(10))?, Some(Term::new(2)))?;
    consistent(&store)?;
    let store = (bench.reopen)(store);
    equal("truncated after reopening", truncated(&store)?, Some(Position::new(10, 2)))?;
    refused("a truncated one", store.write(&[append(ONE, entries(10..12, 3))], true))?;
    refused("a term below that truncated", store.write(&[append(ONE, entries(11..12, 1))], true))?;
    store.write(&[append(ONE, entries(11..13, 3))], true)?;
    equal("entries", log_from(&store, ONE, 11)?, entries(11..13, 3))?;
    consistent(&store)
}

fn a_log_outlives_reopening<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_group(bench)?;
    for round in 0..50 {
        store.write(&[append(ONE, entries(round * 10 + 1..round * 10 + 11, 9))], round % 5 == 4)?;
    }
    let (before, log) = (store.load(ONE)?, log_from(&store, ONE, 1)?);
    equal("the length of the log", log.len(), 500)?;
    let store = (bench.reopen)(store);
    equal("the group", store.load(ONE)?, before)?;
    equal("the log", log_from(&store, ONE, 1)?, log)?;
    store.write(&[append(ONE, entries(501..502, 9))], true)?;
    consistent(&store)
}

fn what_is_destroyed_stays_destroyed<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_group(bench)?;
    refused("destroying a group never made", store.destroy(TWO))?;
    equal("tombstones", store.tombstones()?, vec![])?;
    store.write(&[append(ONE, entries(1..11, 3)), set(ONE, hard_state(9, 2, 10))], true)?;
    store.write(&[create(TWO), set(TWO, hard_state(3, 0, 0)), append(TWO, entries(1..2, 3))], true)?;
    let put = |key: &[u8]| TableWrite::Put(Table::Kv, key.to_vec(), b"value".to_vec());
    store.apply(ONE, &[put(b""), put(&[0xFF; 9])], &AppliedTo { index: index(10), membership: None })?;
    store.apply(TWO, &[put(b"key")], &AppliedTo { index: index(1), membership: None })?;
    store.destroy(ONE)?;
    let gone = |store: &S| {
        equal("groups", store.groups()?, vec![TWO])?;
        equal("the group", store.load(ONE)?, None)?;
        equal("its log", log_from(store, ONE, 1)?, vec![])?;
        equal("its term at 10", store.term(ONE, index(10))?, None)?;
        equal("a value of it", store.get(ONE, Table::Kv, &[0xFF; 9])?, None)?;
        equal("tombstones", store.tombstones()?, vec![(ONE, ReplicaId::new(1))])?;
        refused("a late write", store.write(&[append(ONE, entries(11..12, 3))], true))?;
        refused("late effects", store.apply(ONE, &[], &AppliedTo { index: index(10), membership: None }))?;
        refused("destroying it again", store.destroy(ONE))?;
        refused("the same replica", store.write(&[create(ONE)], true))?;
        equal("a value of the other", store.get(TWO, Table::Kv, b"key")?, Some(b"value".to_vec()))?;
        equal("the log of the other", log_from(store, TWO, 1)?, entries(1..2, 3))?;
        consistent(store)
    };
    gone(&store)?;
    let store = (bench.reopen)(store);
    gone(&store)?;
    // A later replica begins with nothing, and its end is remembered instead.
    let later = LogWrite { create: Some((ReplicaId::new(4), membership(&[2, 3, 4]))), ..LogWrite::new(ONE) };
    store.write(&[later], true)?;
    equal("the last entry", last(&store, ONE)?, Some(Position::default()))?;
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    equal("its table", store.scan(ONE, Table::Kv, all, usize::MAX)?, vec![])?;
    let store = (bench.reopen)(store);
    equal("groups", store.groups()?, vec![ONE, TWO])?;
    store.destroy(ONE)?;
    equal("tombstones", store.tombstones()?, vec![(ONE, ReplicaId::new(4))])?;
    let between = LogWrite { create: Some((ReplicaId::new(3), membership(&[3]))), ..LogWrite::new(ONE) };
    refused("a replica between the two", store.write(&[between], true))
}
