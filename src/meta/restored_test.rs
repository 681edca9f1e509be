//! A machine whose tables were replaced beneath it, as a snapshot does.

use std::ops::Bound;

use super::super::proto::action::Kind;
use super::super::proto::{self, GrantLease, Init, MemberSpec, Put};
use super::super::view::{MemoryTables, Writes};
use super::*;
use crate::ident::GroupId;
use crate::raftstore::log_store::{ApplyWrite, KeyValue, TableStore, TableWrite};

const TTL_MS: u64 = 3_600_000;

#[derive(Default)]
struct Tables(Mutex<MemoryTables>);

impl TableStore for Tables {
    fn get(&self, _: GroupId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.lock().get(table, key)
    }

    fn scan(
        &self,
        _: GroupId,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let (Bound::Included(from), Bound::Excluded(to)) = range else { panic!("{range:?}") };
        self.0.lock().scan(table, from..to, limit)
    }

    fn apply_all(&self, _: &[ApplyWrite<'_>]) -> Result<(), StoreError> {
        panic!("nothing is applied here")
    }
}

fn init() -> Init {
    let first = MemberSpec {
        addresses: vec!["10.0.0.1:7000".into()],
        secret_hash: vec![1; 32],
        version: 1,
        ..MemberSpec::default()
    };
    Init { cluster_id: 7, system_id: 8, member: Some(first) }
}

/// Applies an action; says which revision that leads to, and what is to be written.
fn apply(machine: &mut MetaMachine, view: &StoreView, index: u64, kind: Kind) -> (u64, Writes) {
    let command = proto::Command { actions: vec![command::action(kind)], ..Default::default() };
    let data = command::encode(&command);
    let mut batch = ApplyBatch::new(&*view.store, view.group);
    let answers = machine.apply(&[Command { index: LogIndex::new(index), data: &data }], &mut batch).unwrap();
    let mut writes = Writes::new();
    for write in batch.writes() {
        let (table, key, value) = match write.clone() {
            TableWrite::Put(table, key, value) => (table, key, Some(value)),
            TableWrite::Delete(table, key) => (table, key, None),
        };
        writes.entry(table).or_default().insert(key, value);
    }
    match command::decode_answer(&answers[0]).unwrap().outcome {
        Some(proto::answer::Outcome::Done(done)) => (done.revision, writes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_goes_on_where_its_tables_are() {
    let tables = Arc::new(Tables::default());
    let view = StoreView { store: Arc::clone(&tables) as _, group: GroupId::new(1) };
    let (mut machine, _) = MetaMachine::open(view.clone()).unwrap();
    let put = || Kind::Put(Put { key: b"a".to_vec(), value: b"1".to_vec(), lease: 0 });
    let mut go_on = |index, kind, is_written| {
        let (revision, writes) = apply(&mut machine, &view, index, kind);
        if is_written {
            tables.0.lock().write(writes);
            machine.written();
        }
        revision
    };
    assert_eq!(go_on(1, Kind::Init(init()), true), 0);
    let formed = tables.0.lock().clone();
    assert_eq!(go_on(2, put(), true), 1);
    assert_eq!(go_on(3, put(), true), 2);
    assert_eq!(go_on(4, put(), false), 3);
    assert_eq!(go_on(4, put(), true), 3, "what was not written is not there");
    *tables.0.lock() = formed;
    machine.restored(LogIndex::new(1)).unwrap();
    assert_eq!(apply(&mut machine, &view, 2, put()).0, 1, "what was replaced is not there");
}

#[test]
fn who_follows_the_members_hears_of_them_alone() {
    let tables = Arc::new(Tables::default());
    let view = StoreView { store: Arc::clone(&tables) as _, group: GroupId::new(1) };
    let (mut machine, mut seen) = MetaMachine::open(view.clone()).unwrap();
    let mut go_on = |index, kind| {
        let (_, writes) = apply(&mut machine, &view, index, kind);
        assert!(!seen.members.has_changed().unwrap(), "nothing is written yet");
        tables.0.lock().write(writes);
        machine.written();
        let has_changed = seen.members.has_changed().unwrap();
        seen.members.mark_unchanged();
        has_changed
    };
    let rename = |name: &str| {
        Kind::UpdateMember(proto::UpdateMember { id: 1, name: Some(name.to_owned()), ..Default::default() })
    };
    assert!(go_on(1, Kind::Init(init())));
    assert!(!go_on(2, Kind::Put(Put { key: b"a".to_vec(), value: b"1".to_vec(), lease: 0 })));
    assert!(go_on(3, rename("other")));
    let setting = proto::SetSetting { name: "token.default_ttl".to_owned(), value: "2h".to_owned() };
    assert!(!go_on(4, Kind::SetSetting(setting)), "that of settings is another table's concern");
}

#[test]
fn what_came_with_a_snapshot_is_told_and_runs() {
    let tables = Arc::new(Tables::default());
    let view = StoreView { store: Arc::clone(&tables) as _, group: GroupId::new(1) };
    let (mut machine, mut seen) = MetaMachine::open(view.clone()).unwrap();
    let actions = vec![
        Kind::Init(init()),
        Kind::Put(Put { key: b"a".to_vec(), value: b"1".to_vec(), lease: 0 }),
        Kind::GrantLease(GrantLease { id: 5, ttl_ms: TTL_MS }),
    ];
    let actions = actions.into_iter().map(command::action).collect();
    let mut applier = Applier::new(&view).unwrap();
    applier.apply(LogIndex::new(1), &command::encode(&proto::Command { actions, ..Default::default() })).unwrap();
    let (writes, reached, _) = applier.finish();
    assert_eq!(reached.revision, 1);
    tables.0.lock().write(writes);
    machine.restored(LogIndex::new(1)).unwrap();
    assert!(seen.progress.has_changed().unwrap(), "who watches looks again");
    assert_eq!(*seen.progress.borrow_and_update(), reached);
    assert!(seen.members.has_changed().unwrap(), "there are members now");
    let remaining = || seen.timers.lock().remaining(Limited::Lease(5), BootClock.now());
    let whole = std::time::Duration::from_millis(TTL_MS);
    let runs = remaining().unwrap();
    assert!(runs <= whole && runs > whole / 2, "it runs from now on: {runs:?}");

    // And what a later one no longer has, no longer runs.
    *tables.0.lock() = MemoryTables::default();
    machine.restored(LogIndex::new(2)).unwrap();
    assert_eq!(remaining(), None);
}
