//! `make bench BENCH=raft`: three processes of `examples/raft_kv` against three of etcd, and the engine by itself.
//!
//! Both keep every promise, on the same disk; clients speak gRPC to the leader. `RAFT_ROUNDS` (5), `RAFT_SECONDS` (4)
//! and `RAFT_FAILOVERS` (50) make a run longer or shorter, `RAFT_SNAPSHOT_MB` (1 024) a snapshot larger or smaller; `RAFT_ONLY=put.256` runs the measures whose names contain
//! that. The files are made in `TMPDIR`.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use mainstay_benches::raw::RawFile;
use mainstay_benches::{Goal, On, Row, add, median, number, print_head, quantile, write};

#[path = "raft/batching.rs"]
mod batching;
mod common;
#[path = "raft/engine.rs"]
mod engine;
#[path = "raft/groups.rs"]
mod groups;
#[path = "raft/joining.rs"]
mod joining;
#[path = "raft/load.rs"]
mod load;
#[path = "raft/servers.rs"]
mod servers;

use load::Work;
use servers::{NODES, Servers};

/// What many groups are.
const MANY: u64 = 1000;
/// Entries of the log that is opened.
const OPENED_ENTRIES: u64 = 1_000_000;
/// State that a node needs that joins.
const JOINED_BYTES: u64 = 100_000_000;

struct Settings {
    rounds: usize,
    duration: Duration,
    failovers: usize,
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
        rounds: number("RAFT_ROUNDS", 5) as usize,
        duration: Duration::from_secs(number("RAFT_SECONDS", 4)),
        failovers: number("RAFT_FAILOVERS", 50) as usize,
        only: env::var("RAFT_ONLY").ok(),
    };
    let directory = tempfile::tempdir()?;
    let mut rows = Vec::new();
    print_head();
    against_etcd(&settings, directory.path(), &mut rows).await?;
    joins(&settings, directory.path(), &mut rows).await?;
    by_itself(&settings, directory.path(), &mut rows).await?;
    many_groups(&settings, directory.path(), &mut rows).await?;
    let page = [7; 4096];
    let sync_us = median(&RawFile::new(&directory.path().join("raw"), 1 << 20)?.latencies(&page, 200)?);
    write("raft", directory.path(), sync_us, &rows)
}

/// Rates, latencies and syncs of ours and etcd's, in alternating rounds.
async fn against_etcd(settings: &Settings, directory: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let measures =
        ["raft.put.256", "raft.put.256.gathered", "raft.put.1.p50", "raft.get.64", "raft.syncs_per_proposal"];
    let has_failover = settings.runs("raft.failover");
    if !has_failover && !measures.iter().any(|measure| settings.runs(measure)) {
        return Ok(());
    }
    let mut ours = Servers::start(true, directory.join("ours")).await?;
    if measures.iter().any(|measure| settings.runs(measure)) {
        // Only one of them runs while the other is measured; an idle one costs next to nothing.
        let etcd = Servers::start(false, directory.join("etcd")).await?;
        let mut put = Row::against("raft.put.256", "puts/s", "etcd", Goal::AtLeast(5.0));
        // Etcd's side is that of `raft.put.256`: its API has no puts that share a request and not their fate.
        let mut gathered = Row::against("raft.put.256.gathered", "puts/s", "etcd", Goal::AtLeast(5.0));
        let mut one = Row::against("raft.put.1.p50", "us", "etcd", Goal::AtMost(0.5));
        let mut get = Row::against("raft.get.64", "gets/s", "etcd", Goal::AtLeast(2.0));
        let mut syncs = Row::alone("raft.syncs_per_proposal", "syncs", Goal::AtMost(0.1));
        for _ in 0..settings.rounds {
            for servers in [&ours, &etcd] {
                let is_ours = std::ptr::eq(servers, &ours);
                let before = written(servers).await;
                let seen = load::run(servers, Work::Put, 256, settings.duration).await?;
                let after = written(servers).await;
                put.push(is_ours, seen.rate);
                if is_ours {
                    let most =
                        before.iter().zip(&after).map(|(before, after)| (after.0 - before.0) / (after.1 - before.1));
                    syncs.push(true, most.fold(0.0, f64::max));
                    let seen = load::run(servers, Work::PutGathered, 256, settings.duration).await?;
                    gathered.push(true, seen.rate);
                } else {
                    gathered.push(false, seen.rate);
                }
                one.push(is_ours, median(&load::run(servers, Work::Put, 1, settings.duration).await?.latencies_us));
                get.push(is_ours, load::run(servers, Work::Get, 64, settings.duration).await?.rate);
            }
        }
        for row in [put, gathered, one, get, syncs] {
            add(rows, row);
        }
    }
    if has_failover {
        let (mut p50, mut p99) = (
            Row::alone("raft.failover.p50", "s", Goal::AtMost(1.0)),
            Row::alone("raft.failover.p99", "s", Goal::AtMost(2.0)),
        );
        let gaps = failovers(&mut ours, settings.failovers).await?;
        p50.push(true, median(&gaps));
        p99.push(true, quantile(&gaps, 0.99));
        add(rows, p50);
        add(rows, p99);
    }
    Ok(())
}

/// Syncs and entries written by each node so far.
async fn written(servers: &Servers) -> Vec<(f64, f64)> {
    let mut written = Vec::new();
    for node in 0..NODES {
        let status = servers.status(node).await;
        written.push(status.map_or((0.0, 0.0), |status| (status.syncs as f64, status.entries_written as f64)));
    }
    written
}

/// Seconds from the death of a leader to the next acknowledged write.
async fn failovers(servers: &mut Servers, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut gaps = Vec::new();
    for _ in 0..count {
        let leader = servers.leader().await?;
        servers.kill(leader)?;
        let begun = Instant::now();
        servers.leader().await?;
        gaps.push(begun.elapsed().as_secs_f64());
        servers.spawn(leader)?;
        // It has to be back before the next one dies.
        while servers.status(leader).await.is_none_or(|status| status.leader == 0 || status.applied < status.last) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(gaps)
}

/// Many groups on the nodes of this process.
async fn many_groups(settings: &Settings, directory: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    if settings.runs("raft.groups.16") {
        let mut rate = Row::against("raft.groups.16", "props/s", "1 group", Goal::AtLeast(0.95));
        let mut syncs = Row::against("raft.groups.16.syncs", "per prop", "1 group", Goal::AtMost(1.0));
        for round in 0..settings.rounds {
            for (is_many, count) in [(true, 16), (false, 1)] {
                let mut nodes = groups::Nodes::start(&directory.join(format!("groups.{round}.{count}")))?;
                nodes.open(count).await?;
                let (seen, synced) = nodes.load(256, settings.duration).await?;
                rate.push(is_many, seen);
                syncs.push(is_many, synced);
                nodes.stop().await?;
            }
        }
        add(rows, rate);
        add(rows, syncs);
    }
    if settings.runs("raft.idle.1000") {
        let mut share = Row::alone("raft.idle.1000", "% core", Goal::AtMost(2.0));
        let mut memory = Row::alone("raft.idle.1000.memory", "KiB", Goal::AtMost(16.0));
        // What a round leaves in the allocator is there for the next: only the first says what groups take.
        let (cpu, bytes) = groups::idle(&directory.join("idle"), MANY, 3 * settings.duration).await?;
        share.push(true, cpu * 100.0);
        memory.push(true, bytes / 1024.0);
        add(rows, share);
        add(rows, memory);
    }
    if settings.runs("raft.wake") {
        let mut row = Row::alone("raft.wake", "us", Goal::AtMost(1.0));
        row.goal.1 = On::Ratio;
        let page = [7; 4096];
        let mut ceiling = Vec::new();
        for round in 0..settings.rounds {
            let (write, trips) = groups::wake(&directory.join(format!("wake.{round}")), 200).await?;
            let syncs = RawFile::new(&directory.join(format!("wake.{round}.raw")), 1 << 20)?.latencies(&page, 200)?;
            row.push(true, write);
            ceiling.push(trips + quantile(&syncs, 0.99));
        }
        row.ceiling = Some(ceiling);
        add(rows, row);
    }
    if settings.runs("raft.open.1000") {
        let mut row = Row::alone("raft.open.1000", "s", Goal::AtMost(1.0));
        let path = directory.join("many");
        groups::make_logs(&path, MANY, 1000)?;
        for _ in 0..settings.rounds {
            row.push(true, groups::open_all(&path, MANY).await?);
        }
        add(rows, row);
    }
    Ok(())
}

/// A node joins, and gets a snapshot.
async fn joins(settings: &Settings, directory: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    if settings.runs("raft.member.add") {
        let mut row = Row::alone("raft.member.add", "s", Goal::AtMost(3.0));
        for round in 0..settings.rounds.min(3) {
            row.push(true, joining::join(directory.join(format!("member{round}")), JOINED_BYTES).await?.voter_s);
        }
        add(rows, row);
    }
    if settings.runs("raft.snapshot") {
        let mut rate = Row::alone("raft.snapshot", "MB/s", Goal::AtLeast(200.0));
        let mut disturbance = Row::alone("raft.snapshot.p99", "x", Goal::AtMost(3.0));
        let bytes = number("RAFT_SNAPSHOT_MB", 1024) << 20;
        let path = directory.join("snapshot");
        let joined = joining::join(path.clone(), bytes).await?;
        std::fs::remove_dir_all(&path)?;
        rate.push(true, bytes as f64 / 1e6 / joined.caught_up_s);
        disturbance.push(true, joined.disturbance);
        add(rows, rate);
        add(rows, disturbance);
    }
    Ok(())
}

/// What needs no peer.
async fn by_itself(settings: &Settings, directory: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    if settings.runs("raft.open") {
        let mut row = Row::alone("raft.open", "s", Goal::AtMost(1.0));
        let path = directory.join("long");
        engine::make_log(&path, OPENED_ENTRIES)?;
        for _ in 0..settings.rounds {
            row.push(true, engine::open(&path).await?);
        }
        add(rows, row);
    }
    if settings.runs("raft.engine_ceiling") {
        let mut row = Row::alone("raft.engine_ceiling", "props/s", Goal::AtLeast(300_000.0));
        for _ in 0..settings.rounds {
            row.push(true, engine::ceiling(256, settings.duration).await?);
        }
        add(rows, row);
    }
    Ok(())
}
