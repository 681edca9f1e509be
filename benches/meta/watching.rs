//! How soon a change is delivered.
//!
//! Counted from the call that makes the change, because the moment of its commit is not to be seen from outside.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mainstay::meta::client::Meta;
use mainstay::meta::service::KvUpdates;
use mainstay::meta::watch::{KvChange, KvUpdate};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::common::etcd::proto::kv_client::KvClient;
use crate::common::etcd::proto::watch_client::WatchClient;
use crate::common::etcd::proto::watch_request::RequestUnion;
use crate::common::etcd::proto::{PutRequest, WatchCreateRequest, WatchRequest};

/// The key that is watched.
const KEY: &str = "watched";
/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The next value of the key.
async fn next_value(watch: &mut Box<dyn KvUpdates>) -> anyhow::Result<Vec<u8>> {
    loop {
        if let KvUpdate::Changes { changes, .. } = watch.next().await?
            && let Some(KvChange::Put(pair)) = changes.into_iter().next_back()
        {
            return Ok(pair.value);
        }
    }
}

/// Changes a key so many times, one after the other; a watcher of another connection sees each. In microseconds.
///
/// # Errors
/// A call fails, or something else is seen.
pub async fn ours(writer: &Meta, reader: &Meta, changes: u64) -> anyhow::Result<Vec<f64>> {
    let from = writer.kv().put(KEY, "before").await?;
    let mut watch = reader.kv().watch(KEY, from);
    anyhow::ensure!(next_value(&mut watch).await? == b"before", "the watch begins elsewhere");
    let (sender, mut seen) = mpsc::unbounded_channel();
    let watcher = tokio::spawn(async move {
        while let Ok(value) = next_value(&mut watch).await {
            if sender.send((value, Instant::now())).is_err() {
                break;
            }
        }
    });
    let mut took = Vec::new();
    for change in 0..changes {
        let begun = Instant::now();
        writer.kv().put(KEY, change.to_be_bytes()).await?;
        let (value, at) = tokio::time::timeout(PATIENCE, seen.recv()).await?.context("the watch ended")?;
        anyhow::ensure!(value == change.to_be_bytes(), "another change was seen");
        took.push((at - begun).as_secs_f64() * 1e6);
    }
    watcher.abort();
    Ok(took)
}

/// The same of etcd.
///
/// # Errors
/// As [`ours`].
pub async fn etcd(writer: Channel, reader: Channel, changes: u64) -> anyhow::Result<Vec<f64>> {
    let mut writer = KvClient::new(writer);
    let create =
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest { key: KEY.into() })) };
    let (requests, receiver) = mpsc::channel(1);
    requests.send(create).await?;
    let mut watch = WatchClient::new(reader).watch(ReceiverStream::new(receiver)).await?.into_inner();
    anyhow::ensure!(watch.message().await?.is_some_and(|first| first.created), "the watch does not begin");
    let mut took = Vec::new();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let watcher = tokio::spawn(async move {
        while let Ok(Some(response)) = watch.message().await {
            for event in response.events {
                let value = event.kv.unwrap_or_default().value;
                if sender.send((value, Instant::now())).is_err() {
                    return;
                }
            }
        }
    });
    for change in 0..changes {
        let value = change.to_be_bytes().to_vec();
        let begun = Instant::now();
        writer.put(PutRequest { key: KEY.into(), value: value.clone() }).await?;
        let (found, at) = tokio::time::timeout(PATIENCE, seen.recv()).await?.context("the watch ended")?;
        anyhow::ensure!(found == value, "another change was seen");
        took.push((at - begun).as_secs_f64() * 1e6);
    }
    watcher.abort();
    Ok(took)
}

/// One change of a key that so many watch: until the last has it, in milliseconds. The watchers share connections as the
/// client library has them share.
///
/// # Errors
/// As [`ours`].
pub async fn fanout(writer: &Meta, reader: &Meta, watchers: usize) -> anyhow::Result<f64> {
    let from = writer.kv().put(KEY, "before").await?;
    let (ready, mut readies) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let (mut watch, ready) = (reader.kv().watch(KEY, from), ready.clone());
        tasks.spawn(async move {
            next_value(&mut watch).await?;
            let _ = ready.send(());
            next_value(&mut watch).await?;
            anyhow::Ok(Instant::now())
        });
    }
    for _ in 0..watchers {
        tokio::time::timeout(PATIENCE, readies.recv()).await?.context("a watch ended")?;
    }
    let begun = Instant::now();
    writer.kv().put(KEY, "after").await?;
    let mut last = begun;
    while let Some(seen) = tokio::time::timeout(PATIENCE, tasks.join_next()).await? {
        last = last.max(seen??);
    }
    if last == begun {
        bail!("nobody watched");
    }
    Ok((last - begun).as_secs_f64() * 1e3)
}
