use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::client::{Keys, Meta};
use super::super::memory::MemoryMetadata;
use super::super::proto::{MemberSpec, action::Kind};
use super::super::service::KvUpdates;
use super::super::service::Metadata;
use super::*;
use crate::ident::{ClusterId, SystemId};

fn formed() -> (Arc<MemoryMetadata>, Meta) {
    let metadata = Arc::new(MemoryMetadata::new());
    let meta = Meta::new(Arc::clone(&metadata) as _, "a test");
    let first = MemberSpec {
        addresses: vec!["10.0.0.1:7000".into()],
        secret_hash: vec![1; 32],
        version: 1,
        ..MemberSpec::default()
    };
    block_on(meta.members().form(ClusterId::new(7), SystemId::new(8), first)).unwrap();
    (metadata, meta)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// What can be read of a watch now.
async fn drain(watch: &mut Box<dyn KvUpdates>) -> Result<Vec<(u64, Vec<KvChange>)>, WatchError> {
    let mut found = Vec::new();
    loop {
        match watch.next().await? {
            KvUpdate::Changes { revision, changes } => found.push((revision, changes)),
            KvUpdate::Progress { .. } => return Ok(found),
        }
    }
}

const AT_ONCE: Duration = Duration::ZERO;

#[test]
fn a_revision_larger_than_a_page_comes_as_a_whole() {
    let (metadata, meta) = formed();
    let puts = |count: usize| {
        (0..count)
            .map(|n| super::super::client::ops::put(format!("k{n:05}"), "x"))
            .collect::<Vec<_>>()
            .chunks(128)
            .map(|then| Kind::Txn(super::super::proto::Txn { then: then.to_vec(), ..Default::default() }))
            .collect::<Vec<_>>()
    };
    block_on(async {
        meta.batch(puts(1500)).await.unwrap();
        assert_eq!(meta.kv().delete(Keys::Prefix(b"k".to_vec())).await.unwrap(), 1500);
        meta.kv().put("k", "last").await.unwrap();
        let mut watch = meta.kv().watch_noticed(Keys::From(vec![]), 1, AT_ONCE);
        let found = drain(&mut watch).await.unwrap();
        let sizes: Vec<_> = found.iter().map(|(_, changes)| changes.len()).collect();
        assert_eq!(sizes[..11], [128; 11]);
        assert_eq!(sizes[11..], [92, 1500, 1]);
        assert_eq!(watch.position(), 15);
    });
    drop(metadata);
}

#[test]
fn a_watch_from_now_sees_what_comes_and_one_ahead_waits() {
    let (metadata, meta) = formed();
    block_on(async {
        meta.kv().put("a", "1").await.unwrap();
        let (mut now, mut ahead) = (meta.kv().watch_noticed("a", 0, AT_ONCE), meta.kv().watch_noticed("a", 4, AT_ONCE));
        assert_eq!(now.next().await, Ok(KvUpdate::Progress { revision: 1 }));
        for _ in 0..3 {
            meta.kv().put("a", "2").await.unwrap();
        }
        assert_eq!(drain(&mut now).await.unwrap().len(), 3);
        assert_eq!(drain(&mut ahead).await.unwrap().iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), [4]);
        drop(meta);
        drop(metadata);
        let end = loop {
            match now.next().await {
                Ok(KvUpdate::Progress { .. }) => {}
                other => break other,
            }
        };
        assert_eq!(end, Err(WatchError::Stopped));
    });
}

#[test]
fn what_comes_after_a_compaction_while_changes_were_found_is_whole_or_told() {
    let (metadata, meta) = formed();
    block_on(async {
        for number in 0..10u8 {
            meta.kv().put("a", [number]).await.unwrap();
        }
        let mut watch = meta.kv().watch_noticed("a", 1, AT_ONCE);
        watch.next().await.unwrap();
        // The rest was found, but not read.
        meta.kv().compact(10).await.unwrap();
        meta.kv().put("b", "x").await.unwrap();
        assert_eq!(watch.next().await, Err(WatchError::Compacted { oldest: 11 }));
    });
    drop(metadata);
}

#[test]
fn followers_of_events_are_told_when_they_are_too_late() {
    let (metadata, meta) = formed();
    block_on(async {
        let mut late = meta.events().follow(1);
        meta.settings().set("events.max_count", "100").await.unwrap();
        for _ in 0..200 {
            meta.settings().set("kv.max_leases", "5").await.unwrap();
        }
        assert_eq!(late.next().await, Err(WatchError::Compacted { oldest: 104 }));
        let events = meta.events().list(0, 1000).await.unwrap();
        assert_eq!((events.len(), events[0].sequence), (100, 104));
        assert!(meta.events().list(204, 9).await.unwrap().is_empty());
        assert!(meta.events().list(999, 9).await.unwrap().is_empty());
    });
    drop(metadata);
}

#[derive(Clone, Debug)]
enum Act {
    Put(u8, u8),
    Delete(u8, u8),
    Compact(u64),
    /// Read on, a few updates at most.
    Read(usize),
    /// Begin again where the watch is.
    Resume,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0u8..6, any::<u8>()).prop_map(|(key, value)| Act::Put(key, value)),
        2 => (0u8..6, 0u8..7).prop_map(|(from, to)| Act::Delete(from, to)),
        1 => (0u64..60).prop_map(Act::Compact),
        3 => (1usize..6).prop_map(Act::Read),
        1 => Just(Act::Resume),
    ]
}

proptest! {
    /// Against the list of all that happened: each revision of the range once, in order; or it is said that there is a gap.
    #[test]
    fn a_watch_gives_every_revision_once(acts in prop::collection::vec(act(), 1..80), from in 0u8..6, to in 0u8..7) {
        let (metadata, meta) = formed();
        let range = Keys::Between(vec![from], vec![to.max(1)]);
        let in_range = |key: u8| from <= key && key < to.max(1);
        let mut happened: BTreeMap<u64, Vec<(u8, Option<u8>)>> = BTreeMap::new();
        let mut present: BTreeMap<u8, u8> = BTreeMap::new();
        let mut given: u64 = 0;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut watch = meta.kv().watch_noticed(range.clone(), 1, AT_ONCE);
            for act in acts.into_iter().chain([Act::Read(usize::MAX)]) {
                match act {
                    Act::Put(key, value) => {
                        let revision = meta.kv().put([key], [value]).await.unwrap();
                        present.insert(key, value);
                        happened.insert(revision, vec![(key, Some(value))]);
                    }
                    Act::Delete(from, to) => {
                        let keys: Vec<_> = present.keys().copied().filter(|key| from <= *key && *key < to.max(1)).collect();
                        let deleted = meta.kv().delete(Keys::Between(vec![from], vec![to.max(1)])).await.unwrap();
                        assert_eq!(deleted as usize, keys.len());
                        if deleted > 0 {
                            let revision = metadata.progress().borrow().revision;
                            happened.insert(revision, keys.iter().map(|key| (*key, None)).collect());
                            present.retain(|key, _| !keys.contains(key));
                        }
                    }
                    Act::Compact(revision) => drop(meta.kv().compact(revision).await),
                    Act::Resume => watch = meta.kv().watch_noticed(range.clone(), watch.position(), AT_ONCE),
                    Act::Read(count) => {
                        for _ in 0..count {
                            match watch.next().await {
                                Ok(KvUpdate::Changes { revision, changes }) => {
                                    let skipped = happened.range(given + 1..revision);
                                    let missed: Vec<_> = skipped.flat_map(|(_, changes)| changes).filter(|(key, _)| in_range(*key)).collect();
                                    assert!(missed.is_empty(), "missed {missed:?}");
                                    assert!(revision > given, "revision {revision} after {given}");
                                    let found: Vec<_> = changes.iter().map(|change| match change {
                                        KvChange::Put(pair) => (pair.key[0], Some(pair.value[0])),
                                        KvChange::Deleted { key } => (key[0], None),
                                    }).collect();
                                    let expected: Vec<_> = happened[&revision].iter().copied().filter(|(key, _)| in_range(*key)).collect();
                                    assert_eq!(found, expected);
                                    given = revision;
                                }
                                Ok(KvUpdate::Progress { revision }) => {
                                    let all = happened.range(given + 1..).flat_map(|(_, changes)| changes);
                                    assert_eq!(all.filter(|(key, _)| in_range(*key)).count(), 0);
                                    assert_eq!(revision, metadata.progress().borrow().revision);
                                    given = revision;
                                    break;
                                }
                                Err(WatchError::Compacted { oldest }) => {
                                    assert!(oldest > watch.position(), "{oldest} is no reason at {}", watch.position());
                                    assert_eq!(oldest, metadata.progress().borrow().compacted + 1);
                                    given = oldest - 1;
                                    watch = meta.kv().watch_noticed(range.clone(), oldest, AT_ONCE);
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                }
            }
        });
    }
}
