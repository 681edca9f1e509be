//! `make bench BENCH=meta`: the KV of a cluster of three nodes of the binary `mainstay` against etcd with three members.
//!
//! Both keep every promise, on the same disk; clients speak gRPC to the leader, ours through the typed client of the library.
//! `META_ROUNDS` (5), `META_SECONDS` (4) and `META_CHANGES` (1 000, that are watched) make a run longer or shorter;
//! `META_ONLY=put` runs the measures whose names contain that. The files are made in `TMPDIR`.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use mainstay::meta::client::{Meta, ops};
use mainstay::meta::proto::Txn;
use mainstay_benches::raw::RawFile;
use mainstay_benches::{Goal, Row, add, median, number, print_head, quantile, write};
use tonic::transport::Channel;

mod common;
#[path = "meta/members.rs"]
mod members;
#[path = "meta/watching.rs"]
mod watching;

use common::closed_loop::{self, Seen};
use common::etcd::proto::kv_client::KvClient;
use common::etcd::proto::{PutRequest, RangeRequest};
use members::{Etcd, Members, NODES};

/// Connections that the clients share.
const CONNECTIONS: usize = 16;
/// Watchers of one key.
const WATCHERS: usize = 1000;
/// Keys in the cluster that a node joins, and how many are put at once.
const JOINED_KEYS: u64 = 100_000;
const KEYS_AT_ONCE: u64 = 100;

struct Settings {
    rounds: usize,
    duration: Duration,
    changes: u64,
    only: Option<String>,
}

impl Settings {
    fn runs(&self, measure: &str) -> bool {
        self.only.as_ref().is_none_or(|only| measure.contains(only.as_str()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings {
        rounds: number("META_ROUNDS", 5) as usize,
        duration: Duration::from_secs(number("META_SECONDS", 4)),
        changes: number("META_CHANGES", 1000),
        only: env::var("META_ONLY").ok(),
    };
    let directory = tempfile::tempdir()?;
    let mut rows = Vec::new();
    print_head();
    let mut ours = Members::start(directory.path().join("ours")).await?;
    against_etcd(&settings, directory.path(), &ours, &mut rows).await?;
    by_itself(&settings, &mut ours, &mut rows).await?;
    let page = [7; 4096];
    let sync_us = median(&RawFile::new(&directory.path().join("raw"), 1 << 20)?.latencies(&page, 200)?);
    write("meta", directory.path(), sync_us, &rows)
}

/// Ours and etcd's, in alternating rounds. Only one of them is loaded at a time; an idle one costs next to nothing.
async fn against_etcd(
    settings: &Settings,
    directory: &Path,
    members: &Members,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let mut put = Row::against("meta.put.256", "puts/s", "etcd", Goal::AtLeast(4.0));
    let mut one = Row::against("meta.put.1.p50", "us", "etcd", Goal::AtMost(0.5));
    let mut get = Row::against("meta.get.64", "gets/s", "etcd", Goal::AtLeast(2.0));
    let mut watch = Row::against("meta.watch.p99", "us", "etcd", Goal::AtMost(1.0));
    let measures = ["meta.put.256", "meta.put.1.p50", "meta.get.64", "meta.watch.p99"];
    if !measures.iter().any(|measure| settings.runs(measure)) {
        return Ok(());
    }
    let etcd = Etcd::start(&directory.join("etcd")).await?;
    for _ in 0..settings.rounds {
        let (ours, theirs) = (members.clients(CONNECTIONS).await?, etcd.connections(CONNECTIONS).await?);
        let duration = settings.duration;
        if settings.runs("meta.put.256") {
            put.push(true, puts(&ours, 256, duration).await?.rate);
            put.push(false, etcd_puts(&theirs, 256, duration).await?.rate);
        }
        if settings.runs("meta.put.1.p50") {
            one.push(true, median(&puts(&ours, 1, duration).await?.latencies_us));
            one.push(false, median(&etcd_puts(&theirs, 1, duration).await?.latencies_us));
        }
        if settings.runs("meta.get.64") {
            get.push(true, gets(&ours, 64, duration).await?.rate);
            get.push(false, etcd_gets(&theirs, 64, duration).await?.rate);
        }
        if settings.runs("meta.watch.p99") {
            watch.push(true, quantile(&watching::ours(&ours[0], &ours[1], settings.changes).await?, 0.99));
            let seen = watching::etcd(theirs[0].clone(), theirs[1].clone(), settings.changes).await?;
            watch.push(false, quantile(&seen, 0.99));
        }
    }
    for (row, measure) in [put, one, get, watch].into_iter().zip(measures) {
        if settings.runs(measure) {
            add(rows, row);
        }
    }
    Ok(())
}

/// What etcd is not asked for.
async fn by_itself(settings: &Settings, members: &mut Members, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    if settings.runs("meta.watch.fanout") {
        let mut row = Row::alone("meta.watch.fanout", "ms", Goal::AtMost(100.0));
        for _ in 0..settings.rounds {
            let clients = members.clients(2).await?;
            row.push(true, watching::fanout(&clients[0], &clients[1], WATCHERS).await?);
        }
        add(rows, row);
    }
    if settings.runs("meta.cold_start") {
        let mut row = Row::alone("meta.cold_start", "s", Goal::AtMost(2.0));
        for _ in 0..settings.rounds {
            (0..NODES).try_for_each(|node| members.kill(node))?;
            let begun = Instant::now();
            (0..NODES).try_for_each(|node| members.restart(node))?;
            members.leader().await?;
            row.push(true, begun.elapsed().as_secs_f64());
        }
        add(rows, row);
    }
    if settings.runs("meta.join") {
        let mut row = Row::alone("meta.join", "s", Goal::AtMost(5.0));
        fill(&members.clients(1).await?[0]).await?;
        row.push(true, members.join().await?.as_secs_f64());
        add(rows, row);
    }
    Ok(())
}

async fn puts(ours: &[Meta], clients: u64, duration: Duration) -> anyhow::Result<Seen> {
    let put = |meta: Meta, key, byte| async move { meta.kv().put(key, vec![byte; 256]).await.map(drop) };
    closed_loop::run(ours, clients, duration, put).await
}

async fn gets(ours: &[Meta], clients: u64, duration: Duration) -> anyhow::Result<Seen> {
    closed_loop::run(ours, clients, duration, |meta: Meta, key, _| async move { meta.kv().get(key).await.map(drop) })
        .await
}

async fn etcd_puts(theirs: &[Channel], clients: u64, duration: Duration) -> anyhow::Result<Seen> {
    let theirs: Vec<_> = theirs.iter().cloned().map(KvClient::new).collect();
    let put = |mut client: KvClient<Channel>, key, byte| async move {
        client.put(PutRequest { key, value: vec![byte; 256] }).await.map(drop)
    };
    closed_loop::run(&theirs, clients, duration, put).await
}

async fn etcd_gets(theirs: &[Channel], clients: u64, duration: Duration) -> anyhow::Result<Seen> {
    let theirs: Vec<_> = theirs.iter().cloned().map(KvClient::new).collect();
    let get = |mut client: KvClient<Channel>, key, _| async move { client.range(RangeRequest { key }).await.map(drop) };
    closed_loop::run(&theirs, clients, duration, get).await
}

/// Puts the keys that a new node has to get.
async fn fill(meta: &Meta) -> anyhow::Result<()> {
    for first in (0..JOINED_KEYS).step_by(KEYS_AT_ONCE as usize) {
        let puts = (first..first + KEYS_AT_ONCE).map(|key| ops::put(format!("joined/{key:06}"), vec![7; 256]));
        meta.kv().txn(Txn { then: puts.collect(), ..Txn::default() }).await?;
    }
    Ok(())
}
