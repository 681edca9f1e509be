//! The metadata over real sockets: one group in memory behind several nodes, and a Raft group of three.

#![cfg(test)]

mod hosts;
mod raft;
mod requests;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hosts::{Host, Moody, client, meta};
use mainstay::cluster::rpc::proto::metadata_client::MetadataClient;
use mainstay::cluster::rpc::proto::{FollowRequest, WatchRequest};
use mainstay::ident::{ClusterId, SystemId};
use mainstay::meta::client::{Keys, Meta, ops};
use mainstay::meta::conformance;
use mainstay::meta::proto::action::Kind;
use mainstay::meta::proto::{Expire, KeyRange, MemberSpec, Refusal, Txn};
use mainstay::meta::service::MetaError;
use mainstay::meta::watch::{KvChange, KvUpdate, WatchError};
use tonic::Code;
use tonic::transport::Endpoint;

/// No test waits longer than this for something that should happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Forms a cluster of one member.
async fn form(meta: &Meta) {
    let first = MemberSpec {
        addresses: vec!["10.0.0.1:7000".into()],
        secret_hash: vec![1; 32],
        incarnation: 1,
        version: 1,
        ..MemberSpec::default()
    };
    meta.members().form(ClusterId::new(7), SystemId::new(8), first).await.unwrap();
}

async fn soon<T>(next: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, next).await.expect("nothing came in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_passes_what_every_metadata_group_passes() {
    let hosts = parking_lot::Mutex::new(Vec::new());
    let made = conformance::check_clients(async || {
        let group = Moody::new();
        let here = vec![Host::start(&group).await, Host::start(&group).await];
        let meta = meta(&here);
        hosts.lock().extend(here);
        meta
    });
    made.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_of_no_leader_begins_no_watch_from_now_on() {
    let group = Moody::new();
    let host = Host::start(&group).await;
    form(&meta([&host])).await;
    group.lose_the_leader();
    // What it holds may be old: "now" could lie behind what was acknowledged long ago.
    let endpoint = Endpoint::from_shared(format!("http://{}", host.address)).unwrap();
    let mut calls = MetadataClient::new(endpoint.connect().await.unwrap());
    let range = Some(KeyRange { key: b"k".to_vec(), end: Vec::new() });
    let mut keys = calls.watch(WatchRequest { range, ..WatchRequest::default() }).await.unwrap().into_inner();
    let mut events = calls.follow(FollowRequest::default()).await.unwrap().into_inner();
    let (keys, events) = tokio::join!(soon(keys.message()), soon(events.message()));
    assert_eq!(keys.unwrap_err().code(), Code::Unavailable);
    assert_eq!(events.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_answer_was_lost_takes_effect_once() {
    let group = Moody::new();
    let hosts = [Host::start(&group).await, Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    meta.kv().put("a", "0").await.unwrap();
    for number in 0..20u8 {
        group.lose_the_next_answer();
        meta.kv().put("a", [number]).await.unwrap();
    }
    let pair = meta.kv().get("a").await.unwrap().unwrap();
    assert_eq!((pair.version, pair.mod_revision, pair.value), (21, 21, vec![19]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_after_it_applied_loses_the_answer_and_nothing_else() {
    let group = Moody::new();
    let mut hosts = vec![Host::start(&group).await, Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    for number in 1..=10u8 {
        let applied = group.hold_the_next_answer();
        let putting = tokio::spawn({
            let meta = meta.clone();
            async move { meta.kv().put("a", [number]).await }
        });
        applied.await.unwrap();
        // It is not known which of them was asked: cut both, one after the other.
        for host in &mut hosts {
            host.stop().await;
            host.restart().await;
        }
        assert_eq!(soon(putting).await.unwrap().unwrap(), u64::from(number));
    }
    assert_eq!(meta.kv().get("a").await.unwrap().unwrap().version, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_go_on_when_their_node_dies_without_gap_or_duplicate() {
    const COUNT: u64 = 400;
    let group = Moody::new();
    let mut hosts = vec![Host::start(&group).await, Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    let mut watch = meta.kv().watch(Keys::Prefix(b"w".to_vec()), 1);
    let mut follow = meta.events().follow(1);
    let writer = group.meta();
    let written = tokio::spawn(async move {
        for number in 0..COUNT {
            writer.kv().put(format!("w{}", number % 7), number.to_be_bytes()).await.unwrap();
            writer.settings().set("kv.max_leases", &(number + 1).to_string()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let watched = tokio::spawn(async move {
        let mut values = Vec::new();
        while values.len() < COUNT as usize {
            if let KvUpdate::Changes { changes, .. } = soon(watch.next()).await.unwrap() {
                values.extend(changes.into_iter().map(|change| match change {
                    KvChange::Put(pair) => u64::from_be_bytes(pair.value.try_into().unwrap()),
                    KvChange::Deleted { .. } => panic!("nothing is deleted"),
                }));
            }
        }
        values
    });
    let followed = tokio::spawn(async move {
        let mut numbers = Vec::new();
        while numbers.len() < COUNT as usize + 2 {
            numbers.push(soon(follow.next()).await.unwrap().sequence);
        }
        numbers
    });
    let mut deaths = 0;
    while !written.is_finished() {
        let host = &mut hosts[deaths % 2];
        host.stop().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        host.restart().await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        deaths += 1;
    }
    written.await.unwrap();
    assert_eq!(watched.await.unwrap(), (0..COUNT).collect::<Vec<_>>());
    assert_eq!(followed.await.unwrap(), (1..=COUNT + 2).collect::<Vec<_>>());
    assert!(deaths >= 4, "only {deaths}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_revision_arrives_as_one() {
    let group = Moody::new();
    let hosts = [Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    let put = |number: u8| ops::put(vec![b'l', number], vec![number; 900 << 10]);
    let txn = Txn { then: (0..4).map(put).collect(), ..Txn::default() };
    meta.kv().txn(txn).await.unwrap();
    let KvUpdate::Changes { revision: 1, changes } = soon(meta.kv().watch(Keys::From(vec![]), 1).next()).await.unwrap()
    else {
        panic!("changes expected")
    };
    assert_eq!(changes.len(), 4);
    // From 0: nothing of what was before.
    let mut watch = meta.kv().watch(Keys::From(vec![]), 0);
    let begun = tokio::spawn(async move { soon(watch.next()).await });
    let mut number = 0u64;
    while !begun.is_finished() {
        meta.kv().put("n", number.to_be_bytes()).await.unwrap();
        number += 1;
    }
    assert!(matches!(begun.await.unwrap(), Ok(KvUpdate::Changes { revision: 2.., .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn local_reads_do_not_wait_behind_what_waits_for_a_leader() {
    let lost = Moody::new();
    let host = Host::start(&lost).await;
    form(&lost.meta()).await;
    lost.lose_the_leader();
    let client = meta([&host]).within(Duration::from_secs(60));
    // Twice as many as a stream has under way.
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..512 {
        let client = client.clone();
        puts.spawn(async move { client.kv().put(format!("key {number}"), "1").await });
    }
    for _ in 0..200 {
        let local = client.local();
        assert_eq!(soon(local.kv().get("key 1")).await.unwrap(), None);
    }
    assert!(puts.try_join_next().is_none(), "the puts wait all the while");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_nothing_hangs_and_a_node_that_has_one_is_found() {
    let (lost, fine) = (Moody::new(), Moody::new());
    let (alone, other) = (Host::start(&lost).await, Host::start(&fine).await);
    form(&lost.meta()).await;
    form(&fine.meta()).await;
    lost.lose_the_leader();
    let alone_ = meta([&alone]).within(Duration::from_secs(1));
    let begun = Instant::now();
    let put = alone_.kv().put("a", "1").await;
    assert!(matches!(put, Err(MetaError::Unavailable { .. })), "{put:?}");
    let read = alone_.kv().get("a").await;
    assert!(matches!(read, Err(MetaError::Unavailable { .. })), "{read:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // Local reads need no leader.
    assert_eq!(alone_.local().kv().get("a").await.unwrap(), None);
    let both = meta([&alone, &other]).within(Duration::from_secs(10));
    both.kv().put("b", "2").await.unwrap();
    assert_eq!(fine.meta().kv().get("b").await.unwrap().unwrap().value, b"2");
    // A watch that cannot know ends, and says so; it goes on when it is asked again.
    let mut watch = alone_.kv().watch_noticed("a", 0, Duration::from_millis(20));
    let error = soon(watch.next()).await.unwrap_err();
    assert!(matches!(error, WatchError::Unreachable { .. }), "{error}");
    lost.find_the_leader();
    assert!(matches!(soon(watch.next()).await, Ok(KvUpdate::Progress { revision: 0 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_stands_hears_when_its_node_loses_the_leader() {
    let group = Moody::new();
    let host = Host::start(&group).await;
    let meta = meta([&host]);
    form(&meta).await;
    let mut watch = meta.kv().watch_noticed("a", 1, Duration::from_millis(20));
    assert!(matches!(soon(watch.next()).await, Ok(KvUpdate::Progress { revision: 0 })));
    group.lose_the_leader();
    let error = loop {
        match soon(watch.next()).await {
            Ok(KvUpdate::Progress { .. }) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WatchError::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_said_within_the_deadline() {
    let group = Moody::new();
    let mut host = Host::start(&group).await;
    let meta = meta([&host]).within(Duration::from_millis(700));
    host.stop().await;
    let error = meta.kv().get("a").await.unwrap_err();
    // The last attempt may have begun too late to hear even that.
    let says = |why: &str| ["refused", "did not answer in time"].iter().any(|reason| why.contains(reason));
    assert!(matches!(&error, MetaError::Unavailable { why, .. } if says(why)), "{error}");
    host.restart().await;
    form(&meta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_for_what_it_is() {
    let group = Moody::new();
    let hosts = [Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    let large = meta.kv().put("a", vec![0; 5 << 20]).await;
    assert!(matches!(large, Err(MetaError::TooLarge { limit_bytes: 4_194_304 })), "{large:?}");
    let large = meta.kv().put("a", vec![0; (1 << 20) + 1]).await.unwrap_err();
    assert_eq!(large.refusal(), Some(Refusal::TooLarge));
    let setting = meta.settings().set("kv.quota_bytes", "9 GiB").await.unwrap_err();
    assert_eq!(setting.refusal(), Some(Refusal::OutOfRange));
    assert!(setting.to_string().contains("1 MiB to 8 GiB"), "{setting}");
    assert_eq!(meta.settings().get("no.such").await.unwrap_err().refusal(), Some(Refusal::NoSuchSetting));
    assert_eq!(meta.settings().history("no.such").await.unwrap_err().refusal(), Some(Refusal::NoSuchSetting));
    let lease = meta.kv().grant_lease(PATIENCE).await.unwrap();
    let due = mainstay::meta::proto::DueLease { id: lease.id, renewal: lease.renewal };
    let expire = Expire { leases: vec![due], tokens: vec![] };
    assert_eq!(meta.batch(vec![Kind::Expire(expire)]).await.unwrap_err().refusal(), Some(Refusal::Invalid));
    assert!(meta.kv().lease(lease.id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_secrets_stay_in_the_node() {
    let group = Moody::new();
    let hosts = [Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    let (token, created) = meta.tokens().create(0).await.unwrap();
    let second = MemberSpec { addresses: vec!["10.0.0.2:7000".into()], secret_hash: vec![2; 32], ..spec() };
    let joined = meta.members().join(second, &token).await.unwrap();
    assert!(created.hash.is_empty() && joined.secret_hash.is_empty());
    assert!(meta.tokens().list().await.unwrap().iter().all(|token| token.hash.is_empty()));
    assert!(meta.members().list().await.unwrap().iter().all(|member| member.secret_hash.is_empty()));
    assert!(meta.members().get(mainstay::ident::NodeId::new(1)).await.unwrap().unwrap().secret_hash.is_empty());
    assert_eq!(group.meta().members().list().await.unwrap()[1].secret_hash, vec![2; 32]);
}

fn spec() -> MemberSpec {
    MemberSpec { incarnation: 1, version: 1, ..MemberSpec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_how_it_stands() {
    let group = Moody::new();
    let hosts = [Host::start(&group).await];
    let status = client(&hosts).status(Instant::now() + PATIENCE).await.unwrap();
    assert_eq!((status.node, status.version.as_str()), (1, "9.9.9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watches_of_one_client() {
    const WATCHES: usize = 300;
    let group = Moody::new();
    let hosts = [Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    let watches: Vec<_> = (0..WATCHES)
        .map(|_| {
            let mut watch = meta.kv().watch("key", 1);
            tokio::spawn(async move { soon(watch.next()).await })
        })
        .collect();
    meta.kv().put("key", "value").await.unwrap();
    for watch in watches {
        assert!(matches!(watch.await.unwrap(), Ok(KvUpdate::Changes { revision: 1, .. })));
    }
}
