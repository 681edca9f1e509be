//! Cases of replicas whose state is wrong.

use super::snapshot::{FIRST, SECOND, apply, contents, fill_all, meta, pair, pairs, put, take_over, with_groups};
use super::*;
use crate::raftstore::entry::{Cause, Unhealthy};
use crate::raftstore::log_store::Table;

pub(super) fn cases<S: GroupStore>() -> [(&'static str, Case<S>); 2] {
    named![
        an_unhealthy_state_is_noted_until_a_snapshot_is_taken_over,
        an_unhealthy_state_is_replaced_as_of_its_own_entry,
    ]
}

fn unhealthy(cause: Cause, at: u64) -> Unhealthy {
    Unhealthy { cause, index: index(at) }
}

fn stored_unhealthy<S: GroupStore>(store: &S, group: GroupId) -> Result<Option<Unhealthy>, Problem> {
    Ok(store.load(group)?.and_then(|stored| stored.unhealthy))
}

fn an_unhealthy_state_is_noted_until_a_snapshot_is_taken_over<S: GroupStore>(
    bench: &mut Bench<'_, S>,
) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    refused("a group never made", store.mark_unhealthy(GroupId::new(3), unhealthy(Cause::Differs, 1), true))?;
    refused("what is not applied", store.mark_unhealthy(TWO, unhealthy(Cause::Differs, 3), true))?;
    equal("what was refused", stored_unhealthy(&store, TWO)?, None)?;
    store.mark_unhealthy(TWO, unhealthy(Cause::Differs, 1), false)?;
    store.mark_unhealthy(TWO, unhealthy(Cause::Damaged, 2), true)?;
    let store = (bench.reopen)(store);
    equal("after reopening", stored_unhealthy(&store, TWO)?, Some(unhealthy(Cause::Damaged, 2)))?;
    equal("the other group", stored_unhealthy(&store, ONE)?, None)?;
    // Neither log nor effects change it.
    store.write(&[append(TWO, entries(8..9, 9))], true)?;
    apply(&store, TWO, &[put(Table::Kv, b"more", "more")], 3)?;
    equal("later", stored_unhealthy(&store, TWO)?, Some(unhealthy(Cause::Damaged, 2)))?;
    consistent(&store)?;
    let meta = meta(FIRST, 10, 9);
    fill_all(&store, TWO, &meta, &pairs())?;
    equal("before it is taken over", stored_unhealthy(&store, TWO)?, Some(unhealthy(Cause::Damaged, 2)))?;
    store.write(&[take_over(TWO, &meta)], true)?;
    equal("afterwards", stored_unhealthy(&store, TWO)?, None)?;
    let store = (bench.reopen)(store);
    equal("for good", stored_unhealthy(&store, TWO)?, None)?;
    store.mark_unhealthy(TWO, unhealthy(Cause::Differs, 10), true)?;
    store.destroy(TWO)?;
    let later = LogWrite { create: Some((ReplicaId::new(2), membership(&[1, 2, 3]))), ..LogWrite::new(TWO) };
    store.write(&[later], true)?;
    equal("of a later replica", stored_unhealthy(&store, TWO)?, None)
}

fn an_unhealthy_state_is_replaced_as_of_its_own_entry<S: GroupStore>(bench: &mut Bench<'_, S>) -> Result<(), Problem> {
    let store = with_groups(bench)?;
    apply(&store, ONE, &[], 20)?;
    let same = meta(FIRST, 20, 9);
    refused("what is healthy", store.begin_fill(ONE, &same))?;
    store.mark_unhealthy(ONE, unhealthy(Cause::Differs, 20), true)?;
    refused("what lies behind", store.begin_fill(ONE, &meta(SECOND, 19, 9)))?;
    let pairs = vec![pair(Table::Kv, b"right", b"right")];
    fill_all(&store, ONE, &same, &pairs)?;
    store.write(&[take_over(ONE, &same)], true)?;
    let store = (bench.reopen)(store);
    equal("the right state", contents(&store, ONE)?, pairs)?;
    equal("its word", stored_unhealthy(&store, ONE)?, None)?;
    equal("the log", last(&store, ONE)?, Some(Position::new(20, 9)))?;
    refused("once more", store.begin_fill(ONE, &same))?;
    consistent(&store)
}
