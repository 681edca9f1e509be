//! Cases of snapshots: captured from one group, filled into another and taken over there.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::raftstore::log_store::{AppliedTo, KeyValue, Table, TableWrite};
use crate::raftstore::snapshot::{Captured, Pair, Place, Restore, SnapshotId, SnapshotMeta};

pub(super) const FIRST: SnapshotId = SnapshotId(11);
pub(super) const SECOND: SnapshotId = SnapshotId(22);
/// How often something is tried while something else goes on.
const ROUNDS: u64 = 40;
/// How many snapshots are taken over while others read.
const FLIPS: u64 = 200;

pub(super) fn cases<S: GroupStore>() -> [(&'static str, Case<S>); 13] {
    named![
        a_captured_state_does_not_change,
        a_captured_state_is_of_one_moment,
        a_captured_state_is_read_in_pages,
        pairs_are_filled_in_order_and_unseen,
        a_fill_goes_on_where_it_stopped,
        an_abandoned_fill_leaves_nothing,
        a_snapshot_that_brings_nothing_forward_is_refused,
        a_snapshot_is_taken_over_in_one_write,
        a_snapshot_that_is_not_all_there_is_not_taken_over,
        nothing_is_taken_back,
        snapshots_follow_each_other,
        a_fill_ends_with_its_group,
        readers_see_one_state_or_the_other,
    ]
}

pub(super) fn put(table: Table, key: &[u8], value: impl Into<Vec<u8>>) -> TableWrite {
    TableWrite::Put(table, key.to_vec(), value.into())
}

pub(super) fn apply<S: GroupStore>(store: &S, group: GroupId, writes: &[TableWrite], to: u64) -> Result<(), Problem> {
    Ok(store.apply(group, writes, &AppliedTo { index: index(to), membership: None })?)
}

pub(super) fn pair(table: Table, key: &[u8], value: &[u8]) -> Pair {
    Pair { place: Place { table, key: key.to_vec() }, value: value.to_vec() }
}

/// Some in each table, among them an empty key and an empty value.
fn writes() -> Vec<TableWrite> {
    let of = |table: Table| {
        let value = format!("{table:?}");
        [put(table, b"", value.as_str()), put(table, b"key", vec![7; 300]), put(table, &[0xFF; 20], "")]
    };
    Table::ALL.into_iter().flat_map(of).collect()
}

pub(super) fn pairs() -> Vec<Pair> {
    let pairs = writes().into_iter().filter_map(|write| match write {
        TableWrite::Put(table, key, value) => Some(Pair { place: Place { table, key }, value }),
        TableWrite::Delete(..) => None,
    });
    pairs.collect()
}

/// A store with two groups in term 9. Group 1 has 20 committed entries, of which ten are applied, with pairs in each
/// table; group 2 has entries of an old term, of which two are applied, and a pair of its own.
pub(super) fn with_groups<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<S, Problem> {
    let store = (bench.make)();
    let log = [entries(1..6, 3), entries(6..21, 9)].concat();
    let one = LogWrite { hard_state: Some(hard_state(9, 1, 20)), entries: log, ..create(ONE) };
    let behind = LogWrite { hard_state: Some(hard_state(9, 0, 2)), entries: entries(1..8, 2), ..create(TWO) };
    store.write(&[one, behind], true)?;
    apply(&store, ONE, &writes(), 10)?;
    apply(&store, TWO, &[put(Table::Kv, b"old", "old")], 2)?;
    Ok(store)
}

fn all_pairs(captured: &dyn Captured, limit_bytes: usize) -> Result<Vec<Pair>, Problem> {
    let mut all: Vec<Pair> = Vec::new();
    loop {
        let page = captured.read(all.last().map(|pair| &pair.place), limit_bytes)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Everything in the tables of a group, as pairs of a snapshot.
pub(super) fn contents<S: GroupStore>(store: &S, group: GroupId) -> Result<Vec<Pair>, Problem> {
    let mut all = Vec::new();
    for table in Table::ALL {
        let pairs = store.scan(group, table, (Bound::Unbounded, Bound::Unbounded), usize::MAX)?;
        all.extend(pairs.into_iter().map(|(key, value): KeyValue| Pair { place: Place { table, key }, value }));
    }
    Ok(all)
}

pub(super) fn meta(id: SnapshotId, at: u64, term: u64) -> SnapshotMeta {
    SnapshotMeta { id, position: Position::new(at, term), membership: membership(&[1, 2, 4]) }
}

fn restore(meta: &SnapshotMeta) -> Restore {
    Restore { id: meta.id, position: meta.position, membership: meta.membership.clone() }
}

pub(super) fn take_over(group: GroupId, meta: &SnapshotMeta) -> LogWrite {
    LogWrite { restore: Some(restore(meta)), ..LogWrite::new(group) }
}

/// Fills all of a snapshot, pair by pair.
pub(super) fn fill_all<S: GroupStore>(
    store: &S,
    group: GroupId,
    meta: &SnapshotMeta,
    pairs: &[Pair],
) -> Result<(), Problem> {
    equal("the place of a new fill", store.begin_fill(group, meta)?, None)?;
    for pair in pairs {
        store.fill(group, meta.id, std::slice::from_ref(pair), false)?;
    }
    Ok(store.fill(group, meta.id, &[], true)?)
}

fn a_captured_state_does_not_change<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    refused("a group never made", store.capture(GroupId::new(3), FIRST).map(|_| ()))?;
    let captured = store.capture(ONE, FIRST)?;
    let of = |at, term, replicas| SnapshotMeta {
        id: FIRST,
        position: Position::new(at, term),
        membership: membership(replicas),
    };
    equal("what it is of", captured.meta(), &of(10, 9, &[1, 2, 3]))?;
    // The entry that it is of is compacted away.
    let changes =
        [TableWrite::Delete(Table::Kv, b"key".to_vec()), put(Table::Cluster, b"key", "2"), put(Table::Kv, b"a", "")];
    let change = AppliedTo { index: index(12), membership: Some(membership(&[1, 2])) };
    store.apply(ONE, &changes, &change)?;
    store.write(&[truncate(ONE, 12, 9)], true)?;
    let later = store.capture(ONE, SECOND)?;
    equal("what a later one is of", later.meta(), &SnapshotMeta { id: SECOND, ..of(12, 9, &[1, 2]) })?;
    equal("the pairs of a later one", all_pairs(&*later, usize::MAX)?, contents(&store, ONE)?)?;
    store.destroy(ONE)?;
    equal("the pairs", all_pairs(&*captured, usize::MAX)?, pairs())?;
    equal("what it is of", captured.meta(), &of(10, 9, &[1, 2, 3]))?;
    equal("the pairs behind the last", captured.read(pairs().last().map(|pair| &pair.place), 9)?, vec![])?;
    drop((captured, later));
    consistent(&store)
}

/// Position, membership and pairs are of the same moment, also while effects are written.
fn a_captured_state_is_of_one_moment<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let log = LogWrite { hard_state: Some(hard_state(9, 1, 20_000)), ..append(ONE, entries(21..20_001, 9)) };
    store.write(&[log], true)?;
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let applier = scope.spawn(|| -> Result<(), Problem> {
            let mut at = 10u64;
            while !is_done.load(Ordering::SeqCst) && at < 20_000 {
                at += 1;
                let value = at.to_be_bytes();
                let writes = [put(Table::Cluster, b"at", value), put(Table::Kv, b"at", value)];
                let membership = Some(membership(&[1, at]));
                store.apply(ONE, &writes, &AppliedTo { index: index(at), membership })?;
            }
            Ok(())
        });
        let checked = (0..ROUNDS).try_for_each(|round| {
            let captured = store.capture(ONE, SnapshotId(round))?;
            let at = captured.meta().position.index;
            let found = all_pairs(&*captured, usize::MAX)?.into_iter().filter(|pair| pair.place.key == b"at");
            let found: Vec<_> = found.map(|pair| pair.value).collect();
            if at > index(10) {
                equal("the effects of the last entry", found, vec![at.get().to_be_bytes().to_vec(); 2])?;
                equal("the membership", &captured.meta().membership, &membership(&[1, at.get()]))?;
            }
            Ok(())
        });
        is_done.store(true, Ordering::SeqCst);
        applier.join().map_err(|_| Problem("a thread panicked".into()))??;
        checked
    })
}

fn a_captured_state_is_read_in_pages<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let captured = store.capture(ONE, FIRST)?;
    for limit_bytes in [0, 1, 330, 700, 5000] {
        equal(format_args!("pages of {limit_bytes} bytes"), all_pairs(&*captured, limit_bytes)?, pairs())?;
    }
    let two: usize = pairs().iter().take(2).map(Pair::size_bytes).sum();
    for (limit_bytes, count) in [(0, 1), (two - 1, 1), (two, 2), (usize::MAX, pairs().len())] {
        equal(format_args!("pairs within {limit_bytes} bytes"), captured.read(None, limit_bytes)?.len(), count)?;
    }
    // A place where nothing is.
    let between = Place { table: Table::Slots, key: b"kex".to_vec() };
    equal("pairs behind a place", captured.read(Some(&between), 0)?, vec![pair(Table::Slots, b"key", &[7; 300])])?;
    // A group that nothing was applied to has a state, too.
    store.write(&[create(GroupId::new(3))], true)?;
    let new = store.capture(GroupId::new(3), FIRST)?;
    equal("the position of a new group", new.meta().position, Position::default())?;
    equal("the pairs of a new group", all_pairs(&*new, usize::MAX)?, vec![])
}

fn pairs_are_filled_in_order_and_unseen<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let before = (store.load(TWO)?, contents(&store, TWO)?);
    let meta = meta(FIRST, 10, 9);
    let late = || [pair(Table::Sessions, &[0xFF; 99], b"late")];
    refused("a fill that was not begun", store.fill(TWO, FIRST, &late(), false))?;
    equal("the place of a new fill", store.begin_fill(TWO, &meta)?, None)?;
    refused("a fill of another group", store.fill(ONE, FIRST, &late(), false))?;
    refused("a fill of another snapshot", store.fill(TWO, SECOND, &late(), false))?;
    let (some, rest) = (&pairs()[..8], &pairs()[8..]);
    store.fill(TWO, FIRST, some, false)?;
    let [.., one, other] = some else { return Err(Problem("too few pairs".into())) };
    for (what, pairs) in [
        ("the last once more", vec![other.clone()]),
        ("one before the last", vec![one.clone()]),
        ("a key before the last", vec![pair(Table::Slots, b"\0", b"")]),
        ("a table before the last", vec![pair(Table::Cluster, &[0xFF; 30], b"")]),
        ("two that are not in order", vec![rest[1].clone(), rest[0].clone()]),
        ("one twice", vec![rest[0].clone(), rest[0].clone()]),
    ] {
        refused(what, store.fill(TWO, FIRST, &pairs, true))?;
    }
    equal("where it goes on", store.begin_fill(TWO, &meta)?, Some(other.place.clone()))?;
    store.fill(TWO, FIRST, &[], false)?;
    store.fill(TWO, FIRST, rest, true)?;
    refused("more than all", store.fill(TWO, FIRST, &late(), false))?;
    refused("more than all", store.fill(TWO, FIRST, &[], true))?;
    equal("what is to be seen meanwhile", (store.load(TWO)?, contents(&store, TWO)?), before)?;
    store.write(&[take_over(TWO, &meta)], true)?;
    equal("what is to be seen then", contents(&store, TWO)?, pairs())?;
    consistent(&store)
}

fn a_fill_goes_on_where_it_stopped<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let (first, second) = (meta(FIRST, 10, 9), meta(SECOND, 11, 9));
    equal("a new fill", store.begin_fill(TWO, &first)?, None)?;
    equal("one that is empty yet", store.begin_fill(TWO, &first)?, None)?;
    store.fill(TWO, FIRST, &pairs()[..3], false)?;
    equal("one that goes on", store.begin_fill(TWO, &first)?, Some(pairs()[2].place.clone()))?;
    let renamed = meta(FIRST, 11, 9);
    refused("another of the same name", store.begin_fill(TWO, &renamed))?;
    equal("one that goes on", store.begin_fill(TWO, &first)?, Some(pairs()[2].place.clone()))?;
    // Another takes its place.
    equal("another", store.begin_fill(TWO, &second)?, None)?;
    refused("the one before", store.fill(TWO, FIRST, &pairs()[3..], true))?;
    let other = [pair(Table::Kv, b"other", b"1")];
    store.fill(TWO, SECOND, &other, true)?;
    refused("the one before", store.write(&[take_over(TWO, &first)], true))?;
    store.write(&[take_over(TWO, &second)], true)?;
    equal("what is to be seen", contents(&store, TWO)?, other.to_vec())?;
    consistent(&store)
}

fn an_abandoned_fill_leaves_nothing<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let meta = meta(FIRST, 10, 9);
    store.abandon_fill(TWO, FIRST)?;
    store.abandon_fill(GroupId::new(3), FIRST)?;
    store.begin_fill(TWO, &meta)?;
    store.fill(TWO, FIRST, &pairs()[..9], false)?;
    store.abandon_fill(TWO, SECOND)?;
    store.fill(TWO, FIRST, &pairs()[9..], true)?;
    store.abandon_fill(TWO, FIRST)?;
    refused("an abandoned fill", store.fill(TWO, FIRST, &[], true))?;
    refused("an abandoned snapshot", store.write(&[take_over(TWO, &meta)], true))?;
    let few = [pair(Table::Catalog, b"new", b"1")];
    fill_all(&store, TWO, &meta, &few)?;
    store.write(&[take_over(TWO, &meta)], true)?;
    equal("what is to be seen", contents(&store, TWO)?, few.to_vec())?;
    let store = (bench.reopen)(store);
    equal("what is to be seen after reopening", contents(&store, TWO)?, few.to_vec())?;
    consistent(&store)
}

fn a_snapshot_that_brings_nothing_forward_is_refused<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let begin = |group, at, term| store.begin_fill(group, &meta(FIRST, at, term));
    refused("a group never made", begin(GroupId::new(3), 30, 9))?;
    refused("a snapshot of what is applied", begin(TWO, 2, 2))?;
    refused("a snapshot of less", begin(TWO, 1, 2))?;
    refused("a snapshot that lacks what is committed", begin(ONE, 19, 9))?;
    refused("a snapshot of nothing", begin(TWO, 0, 0))?;
    refused("a snapshot of no term", begin(TWO, 10, 0))?;
    let no_voter = SnapshotMeta { membership: Membership::default(), ..meta(FIRST, 10, 9) };
    refused("a snapshot without a voter", store.begin_fill(TWO, &no_voter))?;
    refused("what was not begun", store.fill(TWO, FIRST, &[], true))?;
    // As much as is committed, and more than is applied.
    equal("a new fill", begin(ONE, 20, 9)?, None)?;
    store.fill(ONE, FIRST, &[], true)?;
    store.write(&[take_over(ONE, &meta(FIRST, 20, 9))], true)?;
    equal("an empty snapshot", contents(&store, ONE)?, vec![])?;
    refused("a term below that truncated", begin(ONE, 30, 8))?;
    consistent(&store)
}

fn a_snapshot_is_taken_over_in_one_write<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let captured = store.capture(ONE, FIRST)?;
    let meta = captured.meta().clone();
    fill_all(&store, TWO, &meta, &all_pairs(&*captured, 500)?)?;
    // Some of the old log lies behind the snapshot, some entries follow it, and one of those is compacted later.
    store.write(&[append(TWO, entries(8..15, 2))], true)?;
    let log = LogWrite {
        hard_state: Some(hard_state(12, 3, 11)),
        entries: [entries(11..12, 9), entries(12..13, 12)].concat(),
        ..take_over(TWO, &meta)
    };
    store.write(&[log, append(TWO, entries(13..14, 12))], true)?;
    let expected = StoredGroup {
        replica: ReplicaId::new(1),
        hard_state: hard_state(12, 3, 11),
        membership: meta.membership.clone(),
        applied: index(10),
        truncated: Position::new(10, 9),
        last: Position::new(13, 12),
        unhealthy: None,
    };
    let check = |store: &S, when: &str| -> Result<(), Problem> {
        equal(format_args!("the group {when}"), store.load(TWO)?, Some(expected.clone()))?;
        equal(format_args!("its tables {when}"), contents(store, TWO)?, pairs())?;
        equal(format_args!("the other's tables {when}"), contents(store, ONE)?, pairs())?;
        let log = [entries(11..12, 9), entries(12..14, 12)].concat();
        equal(format_args!("its log {when}"), log_from(store, TWO, 11)?, log)?;
        for (at, term) in [(1, None), (9, None), (10, Some(9)), (11, Some(9)), (13, Some(12)), (14, None)] {
            equal(format_args!("the term at {at} {when}"), store.term(TWO, index(at))?, term.map(Term::new))?;
        }
        equal(format_args!("entries before it {when}"), log_from(store, TWO, 1)?, vec![])?;
        consistent(store)
    };
    check(&store, "at once")?;
    drop(captured);
    let store = (bench.reopen)(store);
    check(&store, "after reopening")?;
    // It goes on: applied, appended, compacted, and captured.
    apply(&store, TWO, &[put(Table::Kv, b"new", "1")], 11)?;
    store.write(&[truncate(TWO, 11, 9), append(TWO, entries(14..15, 12))], true)?;
    let again = store.capture(TWO, SECOND)?;
    equal("the position", again.meta().position, Position::new(11, 9))?;
    equal("the pairs", all_pairs(&*again, usize::MAX)?, contents(&store, TWO)?)?;
    equal("how many", contents(&store, TWO)?.len(), pairs().len() + 1)?;
    consistent(&store)
}

fn a_snapshot_that_is_not_all_there_is_not_taken_over<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let before = (store.load(TWO)?, contents(&store, TWO)?, log_from(&store, TWO, 1)?);
    let meta = meta(FIRST, 10, 9);
    refused("one that was never begun", store.write(&[take_over(TWO, &meta)], true))?;
    store.begin_fill(TWO, &meta)?;
    refused("one that is empty", store.write(&[take_over(TWO, &meta)], true))?;
    store.fill(TWO, FIRST, &pairs()[..14], false)?;
    refused("one that lacks its end", store.write(&[take_over(TWO, &meta)], true))?;
    store.fill(TWO, FIRST, &pairs()[14..], true)?;
    let changed = |change: fn(&mut Restore)| {
        let mut changed = restore(&meta);
        change(&mut changed);
        LogWrite { restore: Some(changed), ..LogWrite::new(TWO) }
    };
    refused("another snapshot", store.write(&[changed(|restore| restore.id = SECOND)], true))?;
    refused("another position", store.write(&[changed(|restore| restore.position = Position::new(9, 9))], true))?;
    refused("another term", store.write(&[changed(|restore| restore.position = Position::new(10, 8))], true))?;
    refused("no voter", store.write(&[changed(|restore| restore.membership.voters.clear())], true))?;
    refused("another group", store.write(&[take_over(ONE, &meta)], true))?;
    refused(
        "a gap behind it",
        store.write(&[LogWrite { entries: entries(12..13, 9), ..take_over(TWO, &meta) }], true),
    )?;
    refused("what it holds", store.write(&[LogWrite { entries: entries(10..12, 9), ..take_over(TWO, &meta) }], true))?;
    refused("it twice", store.write(&[take_over(TWO, &meta), take_over(TWO, &meta)], true))?;
    refused(
        "a list that ends with a gap",
        store.write(&[take_over(TWO, &meta), append(ONE, entries(99..100, 9))], true),
    )?;
    let stands = (store.load(TWO)?, contents(&store, TWO)?, log_from(&store, TWO, 1)?);
    equal("the group that refused it all", stands, before)?;
    store.write(&[take_over(TWO, &meta)], true)?;
    equal("its tables", contents(&store, TWO)?, pairs())?;
    // What a replica takes over is of no term that it has not heard of.
    let three = GroupId::new(3);
    let later = SnapshotMeta { position: Position::new(10, 10), ..meta.clone() };
    store.write(&[create(three), set(three, hard_state(9, 0, 0))], true)?;
    fill_all(&store, three, &later, &pairs())?;
    refused("a later term", store.write(&[take_over(three, &later)], true))?;
    let with_term = LogWrite { hard_state: Some(hard_state(10, 0, 10)), ..take_over(three, &later) };
    store.write(&[with_term], true)?;
    consistent(&store)
}

fn nothing_is_taken_back<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let (first, second) = (meta(FIRST, 5, 2), meta(SECOND, 6, 2));
    fill_all(&store, TWO, &first, &pairs())?;
    // Meanwhile the entries themselves came, and were applied.
    store.write(&[set(TWO, hard_state(9, 0, 5))], true)?;
    apply(&store, TWO, &[put(Table::Kv, b"new", "1")], 5)?;
    let before = (store.load(TWO)?, contents(&store, TWO)?);
    refused("a snapshot of what was applied meanwhile", store.write(&[take_over(TWO, &first)], true))?;
    refused("to go on with it", store.begin_fill(TWO, &first).map(|_| ()))?;
    // Or were committed.
    fill_all(&store, TWO, &second, &pairs())?;
    store.write(&[set(TWO, hard_state(9, 0, 7))], true)?;
    refused("a snapshot that lacks what was committed meanwhile", store.write(&[take_over(TWO, &second)], true))?;
    let committed = before.0.map(|stored| StoredGroup { hard_state: hard_state(9, 0, 7), ..stored });
    equal("the group", (store.load(TWO)?, contents(&store, TWO)?), (committed, before.1))?;
    equal("its log", log_from(&store, TWO, 1)?, entries(1..8, 2))?;
    consistent(&store)
}

fn snapshots_follow_each_other<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let mut store = with_groups(bench)?;
    // One takes the place of another that was all there.
    let (first, second) = (meta(FIRST, 10, 9), meta(SECOND, 12, 9));
    fill_all(&store, TWO, &first, &pairs())?;
    fill_all(&store, TWO, &second, &pairs()[..4])?;
    refused("the one before", store.write(&[take_over(TWO, &first)], true))?;
    store.write(&[take_over(TWO, &second)], true)?;
    equal("its tables", contents(&store, TWO)?, pairs()[..4].to_vec())?;
    // And one behind the other, with entries and effects between them.
    for round in 1..6 {
        let at = 12 + round * 10;
        let next = meta(SnapshotId(100 + round), at, 9);
        let own = [pair(Table::Kv, &round.to_be_bytes(), b"")];
        fill_all(&store, TWO, &next, &own)?;
        store.write(&[LogWrite { entries: entries(at + 1..at + 4, 9), ..take_over(TWO, &next) }], round % 2 == 0)?;
        store.write(&[set(TWO, hard_state(9, 0, at + 3))], true)?;
        equal("its tables", contents(&store, TWO)?, own.to_vec())?;
        apply(&store, TWO, &[put(Table::Cluster, b"between", "1")], at + 2)?;
        equal("the last entry", last(&store, TWO)?, Some(Position::new(at + 3, 9)))?;
        consistent(&store)?;
        if round == 3 {
            store = (bench.reopen)(store);
        }
    }
    refused("one that was taken over", store.write(&[take_over(TWO, &second)], true))?;
    consistent(&store)
}

fn a_fill_ends_with_its_group<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let meta = meta(FIRST, 10, 9);
    store.begin_fill(TWO, &meta)?;
    store.fill(TWO, FIRST, &pairs()[..9], false)?;
    store.destroy(TWO)?;
    let late = |store: &S| {
        refused("a late fill", store.fill(TWO, FIRST, &pairs()[9..], true))?;
        refused("a late begin", store.begin_fill(TWO, &meta))?;
        refused("a late end", store.write(&[take_over(TWO, &meta)], true))?;
        store.abandon_fill(TWO, FIRST)?;
        equal("the group", store.load(TWO)?, None)?;
        equal("its tables", contents(store, TWO)?, vec![])
    };
    late(&store)?;
    let store = (bench.reopen)(store);
    late(&store)?;
    // A later replica knows nothing of it, and what was destroyed does not show in what it takes over.
    let later = LogWrite { create: Some((ReplicaId::new(5), membership(&[3, 5]))), ..LogWrite::new(TWO) };
    store.write(&[later, set(TWO, hard_state(9, 0, 0))], true)?;
    refused("a late fill for a later replica", store.fill(TWO, FIRST, &pairs()[9..], true))?;
    equal("a new fill", store.begin_fill(TWO, &meta)?, None)?;
    store.fill(TWO, FIRST, &pairs()[9..], true)?;
    store.write(&[take_over(TWO, &meta)], true)?;
    equal("its tables", contents(&store, TWO)?, pairs()[9..].to_vec())?;
    equal("its replica", store.load(TWO)?.map(|stored| stored.replica), Some(ReplicaId::new(5)))?;
    consistent(&store)?;
    // What is being filled is forgotten at the end of the process, and so is what was all there.
    let next = SnapshotMeta { id: SECOND, position: Position::new(15, 9), ..meta.clone() };
    fill_all(&store, TWO, &next, &pairs())?;
    store.destroy(TWO)?;
    refused("one that was all there", store.write(&[take_over(TWO, &next)], true))?;
    equal("groups", store.groups()?, vec![ONE])
}

fn readers_see_one_state_or_the_other<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let state = |round: u64| {
        let value = round.to_be_bytes();
        [pair(Table::Cluster, b"one", &value), pair(Table::Kv, b"one", &value), pair(Table::Kv, b"other", &value)]
    };
    let first = meta(SnapshotId(1000), 10, 9);
    fill_all(&store, TWO, &first, &state(0))?;
    store.write(&[take_over(TWO, &first)], true)?;
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<u64, Problem> {
            let mut reads = 0;
            while !is_done.load(Ordering::SeqCst) || reads == 0 {
                let pairs = store.scan(TWO, Table::Kv, (Bound::Unbounded, Bound::Unbounded), usize::MAX)?;
                let values: Vec<_> = pairs.into_iter().map(|(_, value)| value).collect();
                let all_there = matches!(values.as_slice(), [one, other] if one == other);
                equal(format_args!("two keys of one snapshot, in {values:?}"), all_there, true)?;
                equal("a key of each snapshot", store.get(TWO, Table::Cluster, b"one")?.is_some(), true)?;
                reads += 1;
            }
            Ok(reads)
        });
        let flipped = (1..FLIPS).try_for_each(|round| {
            let next = meta(SnapshotId(1000 + round), 10 + round, 9);
            fill_all(&store, TWO, &next, &state(round))?;
            Ok(store.write(&[take_over(TWO, &next)], round % 40 == 0)?)
        });
        is_done.store(true, Ordering::SeqCst);
        reader.join().map_err(|_| Problem("a thread panicked".into()))??;
        flipped
    })
}
