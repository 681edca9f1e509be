//! Three nodes under load while they are killed, paused, and restarted: nothing acknowledged is lost, no read is stale, no
//! watch has a gap.

use std::time::{Duration, Instant};

use crate::nodes::*;
use crate::registers::{Load, Report};
use crate::support::{LIMIT, Random, eventually};

const NODES: usize = 3;
const NAMES: [&str; NODES] = ["a", "b", "c"];
/// Writes between two rounds, and after somebody was killed.
const CALM: u64 = 40;
/// Until writes go on: longer than a start and an election take when the machine has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than an election takes.
const PAUSE: Duration = Duration::from_millis(2500);
/// What a rolling restart may cost those who write.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// A cluster in trouble.
struct Trouble {
    place: Place,
    nodes: [Option<Node>; NODES],
    addresses: Vec<String>,
    random: Random,
    kills: u64,
    pauses: u64,
}

impl Trouble {
    fn form(test: &str) -> Trouble {
        let place = Place::new();
        let first = place.form(NAMES[0]);
        let others = [place.join(NAMES[1], &first), place.join(NAMES[2], &first)];
        let mut nodes = [Some(first), None, None];
        nodes.iter_mut().skip(1).zip(others).for_each(|(place, node)| *place = Some(node));
        let addresses: Vec<String> = nodes.iter().flatten().map(|node| node.cluster.clone()).collect();
        settled(&addresses.iter().map(String::as_str).collect::<Vec<_>>(), &[1, 2, 3]);
        Trouble { place, nodes, addresses, random: Random::new(test), kills: 0, pauses: 0 }
    }

    fn load(&mut self, some_are_hasty: bool) -> Load {
        let load = Load::start(&self.addresses, &mut self.random, some_are_hasty);
        self.progress(&load);
        load
    }

    /// Returns once writes were acknowledged.
    fn progress(&self, load: &Load) {
        let goal = load.acknowledged() + CALM;
        eventually("writes are acknowledged", PATIENCE, || load.acknowledged() >= goal);
    }

    /// The place of the node that leads, of those that run.
    fn leader(&self) -> usize {
        let mut leads = None;
        eventually("somebody leads", PATIENCE, || {
            let mut running = (0..NODES).filter(|node| self.nodes[*node].is_some());
            let known = running.find_map(|node| leader(&[&self.addresses[node]]));
            leads = known.map(|id| id as usize - 1).filter(|node| self.nodes[*node].is_some());
            leads.is_some()
        });
        leads.unwrap()
    }

    /// SIGKILL to each. If a majority is left, writes go on without them.
    fn kill(&mut self, victims: &[usize], load: &Load) {
        for victim in victims {
            self.nodes[*victim].take().unwrap().kill();
            self.kills += 1;
        }
        match victims {
            [_] => self.progress(load),
            // As long as clients wait, more or less.
            _ => std::thread::sleep(Duration::from_millis(self.random.below(1000))),
        }
    }

    /// Starts those that do not run, without flags.
    fn restart(&mut self) {
        for (node, name) in self.nodes.iter_mut().zip(NAMES) {
            node.get_or_insert_with(|| self.place.start(name, &[]));
        }
        for (node, address) in self.nodes.iter_mut().flatten().zip(&self.addresses) {
            node.ready();
            assert_eq!(node.cluster, *address);
        }
    }

    fn round(&mut self, load: &Load) {
        let leader = self.leader();
        let other = (leader + 1 + self.random.below(2) as usize) % NODES;
        match self.random.below(10) {
            0..4 => self.kill(&[leader], load),
            4 | 5 => self.kill(&[other], load),
            6 => self.kill(&[leader, other], load),
            7 => self.kill(&[0, 1, 2], load),
            8 => {
                // It must not take itself for the leader when it goes on.
                let node = self.nodes[leader].as_ref().unwrap();
                node.signal("-STOP");
                std::thread::sleep(PAUSE);
                node.signal("-CONT");
                self.pauses += 1;
            }
            _ => {
                self.kill(&[leader], load);
                let starting = self.place.start(NAMES[leader], &[]);
                std::thread::sleep(Duration::from_millis(self.random.below(800)));
                starting.kill();
                self.kills += 1;
            }
        }
        self.restart();
        self.progress(load);
    }
}

/// `CLUSTER_KILLS_S` sets another number of seconds.
fn survives(seconds: u64) {
    let seconds = std::env::var("CLUSTER_KILLS_S").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(seconds);
    let (begun, duration) = (Instant::now(), Duration::from_secs(seconds));
    let mut trouble = Trouble::form("kills");
    let load = trouble.load(true);
    let mut rounds = 0;
    while begun.elapsed() < duration {
        trouble.round(&load);
        rounds += 1;
    }
    let report = load.end();
    println!("{:?}: {rounds} rounds, {} kills, {} pauses; {report}", begun.elapsed(), trouble.kills, trouble.pauses);
    assert!(rounds >= 3 && report.acknowledged > 10 * rounds, "{rounds} rounds");
    settled(&[&trouble.addresses[0]], &[1, 2, 3]);
}

#[test]
fn a_minute_of_kills_loses_nothing_and_lets_no_stale_read_through() {
    survives(60);
}

#[test]
#[ignore = "soak: ten minutes"]
fn ten_minutes_of_kills_lose_nothing() {
    survives(600);
}

/// Each node is stopped and started again, without flags, while others write. Nobody notices but by waiting.
#[test]
fn a_rolling_restart_under_load_fails_nobody() {
    let mut trouble = Trouble::form("rolling restart");
    let load = trouble.load(false);
    for node in (0..NODES).cycle().take(2 * NODES) {
        let stopped = trouble.nodes[node].take().unwrap().stop();
        assert_eq!(stopped.code, Some(0), "{stopped:?}");
        trouble.progress(&load);
        trouble.restart();
        // As whoever does this waits before the next one.
        let started = trouble.nodes[node].as_ref().unwrap();
        eventually("it is ready", LIMIT, || started.get("/readyz").0 == 200);
        trouble.progress(&load);
    }
    let report = load.end();
    println!("{report}");
    let Report { unknown, without_effect, unread, longest_gap, .. } = report;
    assert_eq!((unknown, without_effect, unread), (0, 0, 0));
    assert!(longest_gap < LONGEST_GAP, "{longest_gap:?}");
}
