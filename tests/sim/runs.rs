//! The tests: many seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::rng::Rng;
use super::scenario::{Plan, Trouble};
use super::seen::{Happening, Kind, Seen};
use super::world::{Violation, World};
use crate::meta::fault as meta;
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::message::Message;

/// Seeds of each of the tests of many, unless `SIM_SEEDS` says otherwise.
const SEEDS: u64 = 1500;

/// The same of each of the tests of checks.
const CHECKED_SEEDS: u64 = 500;

/// A fault that is in force as long as this lives.
struct Broken;

impl Drop for Broken {
    fn drop(&mut self) {
        fault::set(None);
        meta::set(None);
    }
}

/// What a run came to.
pub(super) struct Outcome {
    pub(super) violation: Option<Violation>,
    pub(super) seen: Seen,
    pub(super) digest: u64,
    pub(super) lines: Vec<String>,
}

/// How to run a seed.
#[derive(Clone, Copy, Default)]
pub(super) struct Mode {
    pub(super) fault: Option<Fault>,
    pub(super) meta_fault: Option<meta::Fault>,
    pub(super) traced: bool,
    /// Only what a client or an operator would notice, not the broken rule itself.
    pub(super) black_box: bool,
    pub(super) adjust: Option<fn(&mut Plan)>,
}

impl Mode {
    /// The test that runs one seed of these.
    fn replay(self) -> &'static str {
        let mut plan = Plan::draw(&mut Rng::new(0));
        self.adjust.into_iter().for_each(|adjust| adjust(&mut plan));
        match plan {
            Plan { tight: true, .. } => "one_seed_of_tight_metadata",
            Plan { voting: true, ref faults, .. } if faults.iter().any(|(_, it)| *it == Trouble::Force) => {
                "one_seed_of_forced_voting"
            }
            Plan { voting: true, .. } => "one_seed_of_voting",
            Plan { metadata: true, ref faults, .. } if faults.iter().any(|(_, it)| *it == Trouble::Force) => {
                "one_seed_of_forced_metadata"
            }
            Plan { metadata: true, .. } => "one_seed_of_metadata",
            Plan { check_ticks: 1.., .. } => "one_seed_of_checks",
            Plan { groups: 1, .. } => "one_seed",
            _ => "one_seed_of_many",
        }
    }
}

/// Runs one seed to its end, or to the first broken promise; a panic is one.
pub(super) fn run(seed: u64, mode: Mode) -> Outcome {
    fault::set(mode.fault);
    meta::set(mode.meta_fault);
    let _broken = Broken;
    let mut world = World::new(seed, |plan| mode.adjust.into_iter().for_each(|adjust| adjust(plan)), mode.traced);
    world.rules = !mode.black_box;
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match result {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(Violation { check: "no panic", what: text.unwrap_or_default() })
        }
    };
    Outcome {
        violation,
        seen: std::mem::take(&mut world.seen),
        digest: world.trace.digest.0,
        lines: world.trace.lines.drain(..).collect(),
    }
}

/// The messages of a run.
pub(super) fn run_captured(seed: u64, mode: Mode) -> Vec<Message> {
    let mut world = World::new(seed, |plan| mode.adjust.into_iter().for_each(|adjust| adjust(plan)), mode.traced);
    world.captured = Some(Vec::new());
    let result = world.run();
    assert!(result.is_ok(), "seed {seed}: {result:?}");
    world.captured.unwrap_or_default()
}

/// The seed again, with the end of its trace.
pub(super) fn report(seed: u64, mode: Mode) -> String {
    let outcome = run(seed, Mode { traced: true, ..mode });
    let what = outcome.violation.map_or("it did not fail again".to_owned(), |it| format!("{}: {}", it.check, it.what));
    format!(
        "seed {seed} breaks a promise.\n{}\n\n{what}\nreplay: SIM_SEED={seed} cargo nextest run -p mainstay {} --no-capture",
        outcome.lines.join("\n"),
        mode.replay(),
    )
}

pub(super) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs seeds from `first` on; says what happened in them.
pub(super) fn run_many(first: u64, count: u64, adjust: Option<fn(&mut Plan)>) -> Seen {
    let mode = Mode { adjust, ..Mode::default() };
    let mut seen = Seen::default();
    for seed in first..first + number("SIM_SEEDS").unwrap_or(count) {
        let outcome = run(seed, mode);
        assert!(outcome.violation.is_none(), "{}", report(seed, mode));
        seen.add(&outcome.seen);
    }
    seen
}

/// Every kind of trouble has to have happened, and everything that the group can do about it.
fn run_and_count(first: u64) {
    let seen = run_many(first, SEEDS, None);
    let enough = number("SIM_SEEDS").unwrap_or(SEEDS) >= SEEDS;
    assert!(!enough || seen.missing(Kind::One).is_empty(), "never happened: {:?}", seen.missing(Kind::One));
}

/// Two to four groups on the same nodes, whose replicas come and go for good.
pub(super) fn many(plan: &mut Plan) {
    // From what was drawn before, so that a seed means the same of one group.
    plan.groups = 2 + plan.election_ticks % 3;
    plan.lives = 4;
    plan.clients += plan.groups;
    (plan.hibernate_after, plan.chaos_ticks) = (plan.hibernate_after.min(4), plan.chaos_ticks.min(160));
    plan.faults.extend([(4, Trouble::Change), (6, Trouble::Destroy), (6, Trouble::Remake)]);
}

/// States are damaged and compared, and somebody looks after the disks.
pub(super) fn checked(plan: &mut Plan) {
    (plan.check_ticks, plan.stall_ticks) = (10 + plan.request_ticks, 3 + plan.election_ticks);
    plan.own_snapshots = true;
    plan.voters = if plan.voters == 1 { 3 } else { plan.voters };
    plan.fault_every = plan.fault_every.min(12 * super::world::TICK);
    plan.faults.extend([(40, Trouble::Check), (12, Trouble::Damage), (6, Trouble::DiskStall), (4, Trouble::Crash)]);
}

fn run_checks(first: u64) {
    let seen = run_many(first, CHECKED_SEEDS, Some(checked));
    let enough = number("SIM_SEEDS").unwrap_or(CHECKED_SEEDS) >= CHECKED_SEEDS;
    assert!(!enough || seen.missing(Kind::Checks).is_empty(), "never happened: {:?}", seen.missing(Kind::Checks));
}

#[test]
fn checks_a() {
    run_checks(12_000_000);
}

#[test]
fn checks_b() {
    run_checks(13_000_000);
}

#[test]
#[ignore = "soak: 50 000 seeds, about ten minutes"]
fn checks_soak() {
    run_many(14_000_000, 50_000, Some(checked));
}

/// Replays `SIM_SEED` of checks.
#[test]
fn one_seed_of_checks() {
    replay(Some(checked));
}

/// A crash while a replica is destroyed comes once in a thousand seeds.
const MANY_SEEDS: u64 = 2200;

fn run_many_groups(first: u64) {
    let seen = run_many(first, MANY_SEEDS, Some(many));
    let enough = number("SIM_SEEDS").unwrap_or(MANY_SEEDS) >= MANY_SEEDS;
    assert!(!enough || seen.missing(Kind::Many).is_empty(), "never happened: {:?}", seen.missing(Kind::Many));
}

#[test]
fn many_groups_a() {
    run_many_groups(7_000_000);
}

#[test]
fn many_groups_b() {
    run_many_groups(8_000_000);
}

#[test]
fn seeds_a() {
    run_and_count(0);
}

#[test]
fn seeds_b() {
    run_and_count(1_000_000);
}

#[test]
fn seeds_c() {
    run_and_count(2_000_000);
}

#[test]
fn seeds_d() {
    run_and_count(3_000_000);
}

/// Seeds that once broke a promise.
#[test]
fn seeds_that_were_found() {
    // A snapshot of a leader arrived where it was known already that he had been removed.
    run_many(10_002_002, 1, None);
    // A machine that keeps its own position had forgotten the entry by which a learner became a voter, and its replica
    // that the entry was committed; the learner did not know, had more of the log, and so nobody could be elected.
    run_many(10_010_327, 1, None);
    // One that was marked could not be opened when its machine had forgotten the entry that asked.
    run_many(12_000_396, 1, Some(checked));
}

#[test]
#[ignore = "soak: 200 000 seeds, about twenty minutes"]
fn seeds_soak() {
    run_many(10_000_000, 200_000, None);
}

#[test]
#[ignore = "soak: 50 000 seeds, about twenty minutes"]
fn many_groups_soak() {
    run_many(11_000_000, 50_000, Some(many));
}

/// Replays `SIM_SEED` of many groups.
#[test]
fn one_seed_of_many() {
    replay(Some(many));
}

/// Replays `SIM_SEED`.
#[test]
fn one_seed() {
    replay(None);
}

pub(super) fn replay(adjust: Option<fn(&mut Plan)>) {
    let seed = number("SIM_SEED").unwrap_or(1);
    let outcome = run(seed, Mode { traced: true, adjust, ..Mode::default() });
    let happened = outcome.seen.0.iter().map(|(it, count)| format!("{count} × {}", it.words()));
    println!("{}\n{}", outcome.lines.join("\n"), happened.collect::<Vec<_>>().join("\n"));
    assert!(outcome.violation.is_none(), "{:#?}", outcome.violation);
}

/// A seed says everything: the same run comes out of it twice, traced or not.
#[test]
fn a_seed_repeats_exactly() {
    for seed in 500..540 {
        let once = run(seed, Mode::default());
        let again = run(seed, Mode { traced: true, ..Mode::default() });
        assert_eq!(once.digest, again.digest, "seed {seed}");
        assert_ne!(once.digest, run(seed + 1000, Mode::default()).digest, "seed {seed}");
    }
}

/// Rule of durable order 1 for leaders: a sole voter's first Ready carries its vote, its first entry and an append to
/// the learner at once.
#[test]
fn one_voter_and_one_learner() {
    run_many(
        5_000_000,
        100,
        Some(|plan| {
            plan.voters = 1;
            plan.learner = true;
        }),
    );
}

/// Machines with a store of their own, entries behind a snapshot that come while it is installed, and much that is lost
/// soon after.
#[test]
fn machines_that_keep_their_own_position() {
    let seen = run_many(
        9_000_000,
        1600,
        Some(|plan| {
            (plan.own_machine, plan.own_snapshots, plan.small) = (true, true, true);
            (plan.write_delay, plan.apply_delay, plan.crash_in_effects) = (5, 2 * super::world::TICK, 10);
            plan.faults.extend([(10, Trouble::Crash), (10, Trouble::Change)]);
        }),
    );
    let wanted = [Happening::InstalledLate, Happening::InstalledTwice, Happening::ClearedLate];
    let missing = wanted.iter().find(|it| !seen.0.contains_key(it));
    assert!(number("SIM_SEEDS").is_some() || missing.is_none(), "never happened: {missing:?} {seen:?}");
}

#[test]
fn one_voter_alone() {
    run_many(
        6_000_000,
        60,
        Some(|plan| {
            plan.voters = 1;
            plan.learner = false;
        }),
    );
}
