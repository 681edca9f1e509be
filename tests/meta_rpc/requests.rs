//! Requests that share a stream, and those that are calls of their own.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use mainstay::cluster::rpc::failure;
use mainstay::cluster::rpc::proto::{ExecuteRequest, ReadRequest};
use mainstay::meta::command::action;
use mainstay::meta::proto::{Command, Put};
use mainstay::meta::query::proto::found::Kind as Found;
use mainstay::meta::query::proto::{Get, Query, query};

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_of_one_client_get_each_their_own_answers() {
    const CALLERS: u64 = 600;
    let group = Moody::new();
    let hosts = [Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let meta = meta.clone();
            tokio::spawn(async move {
                let (key, mut revisions) = (format!("caller/{caller}"), Vec::new());
                for round in 0..5u64 {
                    let value = [caller.to_be_bytes(), round.to_be_bytes()].concat();
                    let revision = meta.kv().put(key.as_str(), value.clone()).await.unwrap();
                    // What is wrong in between is heard by who said it.
                    let wrong = meta.kv().put("", "no key").await.unwrap_err();
                    assert_eq!(wrong.refusal(), Some(Refusal::Invalid));
                    let found = meta.kv().get(key.as_str()).await.unwrap().unwrap();
                    assert_eq!((found.value, found.mod_revision, found.version), (value, revision, round + 1));
                    revisions.push(revision);
                }
                revisions
            })
        })
        .collect();
    let mut revisions = Vec::new();
    for caller in callers {
        revisions.extend(soon(caller).await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=CALLERS * 5).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_give_up_disturb_no_others() {
    let group = Moody::new();
    let hosts = [Host::start(&group).await];
    let meta = meta(&hosts);
    form(&meta).await;
    let stop = Arc::new(AtomicBool::new(false));
    let hasty: Vec<_> = (0..8u64)
        .map(|caller| {
            let (meta, stop) = (meta.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut round = caller;
                while !stop.load(Ordering::Relaxed) {
                    // Dropped somewhere on its way: not begun, in the line, sent, or answered just now.
                    let _ = tokio::time::timeout(Duration::from_micros(round % 900), meta.kv().put("hasty", "x")).await;
                    round += 7;
                }
            })
        })
        .collect();
    for number in 0..300u64 {
        let revision = soon(meta.kv().put("patient", number.to_be_bytes())).await.unwrap();
        let found = soon(meta.kv().get("patient")).await.unwrap().unwrap();
        assert_eq!((found.mod_revision, found.version), (revision, number + 1));
    }
    stop.store(true, Ordering::Relaxed);
    for hasty in hasty {
        hasty.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_when_a_node_died_for_good_is_not_called_undone() {
    const CALLERS: u8 = 5;
    let group = Moody::new();
    let mut host = Host::start(&group).await;
    let meta = meta([&host]);
    form(&meta).await;
    meta.kv().put("before", "1").await.unwrap();
    group.lose_the_leader();
    let putting: Vec<_> = (0..CALLERS)
        .map(|number| {
            let meta = meta.within(Duration::from_secs(3));
            tokio::spawn(async move { meta.kv().put("a", [number]).await })
        })
        .collect();
    group.until_waiting(CALLERS.into()).await;
    host.stop().await;
    for putting in putting {
        let error = soon(putting).await.unwrap().unwrap_err();
        assert!(matches!(error, MetaError::Unknown { .. }), "{error}");
    }
    // A read changes nothing: of that there is nothing to wonder about.
    let read = meta.within(Duration::from_millis(600)).kv().get("a").await.unwrap_err();
    assert!(matches!(read, MetaError::Unavailable { .. }), "{read}");
    // The same client goes on when the node is there again.
    group.find_the_leader();
    host.restart().await;
    soon(meta.kv().put("after", "2")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_their_own_do_the_same() {
    let group = Moody::new();
    let host = Host::start(&group).await;
    form(&meta([&host])).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", host.address)).unwrap();
    let mut calls = MetadataClient::new(endpoint.connect().await.unwrap());
    let put = |key: &str, sequence| {
        let put = Put { key: key.into(), value: b"v".to_vec(), lease: 0 };
        let command = Command { actions: vec![action(Kind::Put(put))], ..Command::default() };
        ExecuteRequest { command: Some(command), client: 7, sequence, ..ExecuteRequest::default() }
    };
    for _ in 0..2 {
        // The second time it is the same command.
        let done = calls.execute(put("a", 1)).await.unwrap().into_inner().done.unwrap();
        assert_eq!(done.revision, 1);
    }
    let get = query::Kind::Get(Get { key: b"a".to_vec() });
    let read = |is_local| ReadRequest { query: Some(Query { kind: Some(get.clone()) }), is_local, timeout_ms: 100 };
    let found = calls.read(read(false)).await.unwrap().into_inner().found.unwrap().kind;
    assert!(matches!(&found, Some(Found::Get(found)) if found.pair.as_ref().unwrap().version == 1), "{found:?}");
    let refused = calls.execute(put("", 2)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(failure::error(&refused).refusal(), Some(Refusal::Invalid));
    group.lose_the_leader();
    assert_eq!(calls.read(read(false)).await.unwrap_err().code(), Code::Unavailable);
    assert!(calls.read(read(true)).await.is_ok());
}
