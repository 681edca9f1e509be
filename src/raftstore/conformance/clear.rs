//! Cases of tables that are cleared: what a machine that keeps its own position has installed.

use super::snapshot::{FIRST, apply, contents, fill_all, meta, pair, pairs, put, take_over, with_groups};
use super::*;
use crate::raftstore::log_store::Table;

pub(super) fn cases<S: GroupStore>() -> [(&'static str, Case<S>); 2] {
    named![what_is_cleared_is_gone_and_nothing_else_is, a_clear_comes_between_two_snapshots]
}

fn what_is_cleared_is_gone_and_nothing_else_is<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    refused("a group never made", store.clear(GroupId::new(3)))?;
    let (one, two) = (store.load(ONE)?, (store.load(TWO)?, contents(&store, TWO)?));
    let captured = store.capture(ONE, FIRST)?;
    store.clear(ONE)?;
    equal("what is to be seen", contents(&store, ONE)?, vec![])?;
    equal("the group", store.load(ONE)?, one.clone())?;
    equal("the other group", (store.load(TWO)?, contents(&store, TWO)?), two)?;
    equal("what was captured before", captured.read(None, usize::MAX)?, pairs())?;
    drop(captured);
    store.clear(ONE)?;
    apply(&store, ONE, &[put(Table::Kv, b"later", "1")], 11)?;
    store.write(&[set(ONE, hard_state(10, 0, 20))], true)?;
    let store = (bench.reopen)(store);
    equal("what was put later", contents(&store, ONE)?, vec![pair(Table::Kv, b"later", b"1")])?;
    consistent(&store)
}

fn a_clear_comes_between_two_snapshots<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    let (first, second) = (meta(FIRST, 30, 9), meta(super::snapshot::SECOND, 40, 9));
    fill_all(&store, ONE, &first, &pairs())?;
    store.write(&[take_over(ONE, &first)], true)?;
    equal("the place of a new fill", store.begin_fill(ONE, &second)?, None)?;
    let (some, rest) =
        pairs().split_at_checked(5).map(|(some, rest)| (some.to_vec(), rest.to_vec())).unwrap_or_default();
    store.fill(ONE, second.id, &some, false)?;
    // What is being filled is not what is shown.
    store.clear(ONE)?;
    equal("what is to be seen", contents(&store, ONE)?, vec![])?;
    store.fill(ONE, second.id, &rest, true)?;
    equal("what is to be seen meanwhile", contents(&store, ONE)?, vec![])?;
    store.write(&[take_over(ONE, &second)], true)?;
    equal("what is to be seen then", contents(&store, ONE)?, pairs())?;
    store.clear(ONE)?;
    store.write(&[set(ONE, hard_state(10, 0, 40))], true)?;
    let store = (bench.reopen)(store);
    equal("what is to be seen after all", contents(&store, ONE)?, vec![])?;
    consistent(&store)
}
