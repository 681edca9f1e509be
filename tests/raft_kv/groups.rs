//! Many groups on few nodes: killed, moved about and replaced while clients use all of them. Every group has a register of
//! its own, and its history is linearizable by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Code;
use crate::cluster::{Cluster, PATIENCE};
use crate::operator::{Move, Operator};
use crate::proto::kv_client::KvClient;
use crate::proto::{GetRequest, PutRequest};
use crate::register::{Action, History, NEVER, Operation};

const GROUPS: u64 = 200;
/// So short that a replica that is new, or was away, needs a snapshot.
const LOG_ENTRIES: &str = "16";
const FOUNDERS: usize = 3;
/// One that takes over what is moved, and one that replaces a node that was wiped.
const SPARE: usize = 3;
const REPLACEMENT: usize = 4;
const NODES: usize = 5;
const CLIENTS: u64 = 48;
/// Groups that only those clients use that go from one to the next: they may hibernate in between.
const QUIET: u64 = 50;
/// Operations until those clients go on to the next groups, and how many they are at once.
const SWEEP_EVERY: u64 = 512;
const SWEEP_GROUPS: u64 = 4;
/// A client gives up a write after so long, and nobody knows.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// Writes between two rounds.
const CALM: u64 = 800;
/// Groups that are moved in a round.
const MOVES: u64 = 6;

/// Numbers that look random, from a seed that is printed.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A key of each group.
fn keys() -> BTreeMap<u64, Vec<u8>> {
    let mut keys = BTreeMap::new();
    for name in (0u64..).map(|number| number.to_be_bytes().to_vec()) {
        // As the example does it; that it did is seen by what it answers.
        let group = 1 + u64::from(crc32fast::hash(&name)) % GROUPS;
        keys.entry(group).or_insert(name);
        if keys.len() as u64 == GROUPS {
            break;
        }
    }
    keys
}

/// What the clients share.
struct Shared {
    keys: BTreeMap<u64, Vec<u8>>,
    clients: Vec<KvClient<tonic::transport::Channel>>,
    history: History,
    /// Operations of the clients that go from group to group.
    swept: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn choose(&self, id: u64, draw: &mut Draw) -> u64 {
        match id.is_multiple_of(2) {
            true => 1 + draw.below(GROUPS - QUIET),
            false => {
                let at = self.swept.fetch_add(1, Ordering::Relaxed) / SWEEP_EVERY;
                1 + (at * SWEEP_GROUPS + draw.below(SWEEP_GROUPS)) % GROUPS
            }
        }
    }

    async fn read(&self, group: u64, node: usize) -> Option<()> {
        let start = self.history.now();
        let request = GetRequest { key: self.keys[&group].clone() };
        let response = self.clients[node].clone().get(request).await.ok()?.into_inner();
        let bytes = response.value.first_chunk().copied().unwrap_or_default();
        let value = response.found.then_some(u64::from_be_bytes(bytes));
        self.history.note(group, Operation { action: Action::Read(value), start, end: self.history.now() });
        Some(())
    }

    /// The same attempt until it is answered; says where that was.
    async fn write(&self, id: u64, group: u64, first: usize) -> usize {
        let value = self.history.new_value();
        let (start, deadline) = (self.history.now(), Instant::now() + CLIENT_PATIENCE);
        let key = self.keys[&group].clone();
        let put = PutRequest { key, value: value.to_be_bytes().into(), client: id + 1, sequence: value };
        let (mut node, mut end) = (first, NEVER);
        while Instant::now() < deadline {
            match self.clients[node].clone().put(put.clone()).await {
                Ok(response) => {
                    assert_eq!(response.into_inner().group, group, "the key is in another group");
                    end = self.history.now();
                    self.history.acknowledged.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Err(status) => {
                    assert_ne!(status.code(), Code::InvalidArgument, "{status}");
                    node = (node + 1) % NODES;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        self.history.note(group, Operation { action: Action::Write(value), start, end });
        node
    }

    async fn client(self: Arc<Self>, id: u64) {
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15 ^ (id + 1));
        // Where each group was led last.
        let mut led = vec![id as usize % FOUNDERS; GROUPS as usize + 1];
        while !self.stop.load(Ordering::Relaxed) {
            let group = self.choose(id, &mut draw);
            let last = led[group as usize];
            if draw.below(2) == 0 {
                // On any node: also on those that do not lead, or have just been removed.
                let node = if draw.below(2) == 0 { last } else { draw.below(NODES as u64) as usize };
                self.read(group, node).await;
            } else {
                led[group as usize] = self.write(id, group, last).await;
            }
        }
    }
}

/// A cluster in trouble.
struct Trouble {
    cluster: Cluster,
    operator: Operator,
    shared: Arc<Shared>,
    draw: Draw,
    /// The nodes that take part now.
    nodes: Vec<usize>,
    kills: u64,
}

impl Trouble {
    fn start(seed: u64) -> (Trouble, JoinSet<()>) {
        let (groups, spares) = (GROUPS.to_string(), NODES - FOUNDERS);
        let options = ["--groups", &groups, "--log-entries", LOG_ENTRIES];
        let mut cluster = Cluster::with_options(FOUNDERS, spares, &options);
        cluster.restart(SPARE);
        let clients: Vec<_> = (0..NODES).map(|node| cluster.client(node)).collect();
        let shared = Arc::new(Shared {
            keys: keys(),
            clients: clients.clone(),
            history: History::default(),
            swept: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for id in 0..CLIENTS {
            tasks.spawn(Arc::clone(&shared).client(id));
        }
        let (operator, nodes) = (Operator::new(clients), (0..=SPARE).collect());
        (Trouble { cluster, operator, shared, draw: Draw(seed), nodes, kills: 0 }, tasks)
    }

    /// Somewhere else for a replica of each of some groups.
    async fn draw_moves(&mut self) -> Vec<Move> {
        let mut groups = BTreeSet::new();
        while groups.len() < MOVES as usize {
            groups.insert(1 + self.draw.below(GROUPS));
        }
        let mut moves = Vec::new();
        for group in groups {
            let members = self.operator.members(group).await;
            let others: Vec<usize> = self.nodes.iter().copied().filter(|node| !members.contains(node)).collect();
            let from = members[self.draw.below(members.len() as u64) as usize];
            // More than three take part while an earlier one is not finished.
            if let Some(to) = others.first().copied().filter(|_| members.len() == FOUNDERS) {
                moves.push(Move { group, from, to });
            }
        }
        moves
    }

    /// Killed once writes go on after what was done before, and started again once they go on without it.
    async fn kill(&mut self, node: usize) {
        self.await_write(&[]).await;
        self.cluster.kill(node);
        self.kills += 1;
        self.await_write(&[node]).await;
        self.cluster.restart(node);
    }

    async fn kill_all(&mut self) {
        for node in self.nodes.clone() {
            self.cluster.kill(node);
        }
        self.kills += 1;
        for node in self.nodes.clone() {
            self.cluster.restart(node);
        }
    }

    /// Returns once a write of each of a few groups was acknowledged, by whoever is there.
    async fn await_write(&mut self, without: &[usize]) {
        for _ in 0..3 {
            let group = 1 + self.draw.below(GROUPS);
            let deadline = Instant::now() + PATIENCE;
            // A key of nobody: a write that is not in the history must not touch a register.
            let key = (0u64..).map(|number| [&b"probe"[..], &number.to_be_bytes()].concat());
            let key = key.into_iter().find(|key| 1 + u64::from(crc32fast::hash(key)) % GROUPS == group).unwrap();
            let put = PutRequest { key, value: b"probe".to_vec(), client: 0, sequence: 0 };
            'acknowledged: loop {
                for node in self.nodes.iter().filter(|node| !without.contains(node)) {
                    if self.shared.clients[*node].clone().put(put.clone()).await.is_ok() {
                        break 'acknowledged;
                    }
                }
                assert!(Instant::now() < deadline, "group {group} acknowledges nothing:\n{}", self.cluster.logs());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Some replicas move, and somebody is killed in the middle of it.
    async fn round(&mut self, number: u64) {
        self.cluster.await_clients(&self.shared.history, CALM).await;
        let moves = self.draw_moves().await;
        let mut moving = self.operator.begin(moves);
        match number % 5 {
            4 => self.kill_all().await,
            _ => {
                let victim = self.nodes[self.draw.below(self.nodes.len() as u64) as usize];
                self.kill(victim).await;
            }
        }
        while let Some(moved) = moving.join_next().await {
            moved.unwrap();
        }
    }

    /// A node loses its disk, and another takes its place in every group; somebody is killed meanwhile.
    async fn replace(&mut self, wiped: usize) {
        let mut moves = Vec::new();
        for group in 1..=GROUPS {
            if self.operator.members(group).await.contains(&wiped) {
                moves.push(Move { group, from: wiped, to: REPLACEMENT });
            }
        }
        assert!(moves.len() as u64 > GROUPS / 4, "node {} has {} groups only", wiped + 1, moves.len());
        self.cluster.kill(wiped);
        std::fs::remove_dir_all(self.cluster.data(wiped)).unwrap();
        self.nodes.retain(|node| *node != wiped);
        self.cluster.restart(REPLACEMENT);
        self.nodes.push(REPLACEMENT);
        let mut moving = self.operator.begin(moves);
        self.await_write(&[]).await;
        // Groups that had a replica on both have no majority until it is back.
        self.cluster.kill(SPARE);
        self.kills += 1;
        self.cluster.restart(SPARE);
        while let Some(moved) = moving.join_next().await {
            moved.unwrap();
        }
    }

    /// All replicas of all groups get to the same end, and show it.
    async fn settle(&mut self, wiped: usize) {
        for group in 1..=GROUPS {
            self.operator.await_caught_up(group).await;
            let members = self.operator.members(group).await;
            assert!(members.len() == FOUNDERS && !members.contains(&wiped), "group {group}: {members:?}");
            for node in members {
                let deadline = Instant::now() + PATIENCE;
                while self.shared.read(group, node).await.is_none() {
                    assert!(Instant::now() < deadline, "no read of group {group} on node {}", node + 1);
                }
            }
        }
    }
}

async fn survives(duration: Duration) {
    let seed = std::process::id().into();
    let begun = Instant::now();
    let (mut trouble, mut tasks) = Trouble::start(seed);
    trouble.await_write(&[]).await;
    let (mut rounds, mut wiped) = (0, None);
    // However slow the machine: until each group was used.
    let has_swept =
        |trouble: &Trouble| trouble.shared.swept.load(Ordering::Relaxed) / SWEEP_EVERY > GROUPS / SWEEP_GROUPS;
    while begun.elapsed() < duration || wiped.is_none() || !has_swept(&trouble) {
        trouble.round(rounds).await;
        rounds += 1;
        if wiped.is_none() && begun.elapsed() >= duration / 3 {
            let victim = trouble.draw.below(FOUNDERS as u64) as usize;
            trouble.replace(victim).await;
            // It comes back under its old number, with an empty disk: nobody may take it for the one that voted.
            trouble.cluster.restart(victim);
            wiped = Some(victim);
        }
    }
    trouble.shared.stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    trouble.settle(wiped.unwrap()).await;
    let operations = trouble.shared.history.check();
    let acknowledged = trouble.shared.history.acknowledged.load(Ordering::SeqCst);
    let (moved, by_snapshot) = (&trouble.operator.moved, &trouble.operator.by_snapshot);
    let (moved, by_snapshot) = (moved.load(Ordering::SeqCst), by_snapshot.load(Ordering::SeqCst));
    let removed = (0..NODES).map(|node| trouble.cluster.count_in_log(node, "was removed")).sum::<usize>();
    let least = operations.values().min().copied().unwrap_or(0);
    println!(
        "seed {seed}, {:?}: {rounds} rounds, {} kills, {moved} replicas moved, {by_snapshot} by snapshot, {removed} destroyed, {acknowledged} writes acknowledged, at least {least} operations of each of {} groups",
        begun.elapsed(),
        trouble.kills,
        operations.len(),
    );
    assert_eq!(operations.len() as u64, GROUPS, "every group was used");
    assert!(least >= 5 && acknowledged > 10 * GROUPS, "{least}, {acknowledged}");
    assert!(by_snapshot > GROUPS / 4 && removed > 0, "{by_snapshot} by snapshot, {removed} destroyed");
}

/// Three nodes and a spare with 200 groups: nodes are killed, one or all, replicas move, a node loses its disk and is
/// replaced. Every group's register is linearizable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_groups_survive_kills_moves_and_a_wiped_disk() {
    survives(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: five minutes"]
async fn two_hundred_groups_for_five_minutes() {
    survives(Duration::from_secs(300)).await;
}
