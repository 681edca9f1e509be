//! The tests: many seeds.

use super::super::runs::{Mode, number, report, run, run_many};
use super::super::scenario::{Plan, Trouble};
use super::super::seen::Kind;

/// Seeds of each of the tests of many, unless `SIM_SEEDS` says otherwise.
const SEEDS: u64 = 400;

/// Where nodes are lost.
const FORCED_SEEDS: u64 = 150;
/// Where it is said who votes.
const VOTING_SEEDS: u64 = 250;
/// Where room runs out.
const TIGHT_SEEDS: u64 = 150;

/// One group, whose machine is the metadata's.
pub(super) fn metadata(plan: &mut Plan) {
    (plan.metadata, plan.own_machine) = (true, false);
}

fn run_and_count(first: u64) {
    let seen = run_many(first, SEEDS, Some(metadata));
    let enough = number("SIM_SEEDS").unwrap_or(SEEDS) >= SEEDS;
    assert!(!enough || seen.missing(Kind::Metadata).is_empty(), "never happened: {:?}", seen.missing(Kind::Metadata));
}

#[test]
fn metadata_a() {
    run_and_count(30_000_000);
}

#[test]
fn metadata_b() {
    run_and_count(31_000_000);
}

/// The same, where room runs out.
pub(super) fn tight(plan: &mut Plan) {
    metadata(plan);
    (plan.tight, plan.command_bytes) = (true, 0);
}

/// The same, where all nodes but one are lost at some time.
pub(super) fn forced(plan: &mut Plan) {
    metadata(plan);
    plan.voters = plan.voters.max(2);
    plan.faults.push((12, Trouble::Force));
}

#[test]
fn forced_metadata() {
    let seen = run_many(36_000_000, FORCED_SEEDS, Some(forced));
    let enough = number("SIM_SEEDS").unwrap_or(FORCED_SEEDS) >= FORCED_SEEDS;
    assert!(!enough || seen.missing(Kind::Forced).is_empty(), "never happened: {:?}", seen.missing(Kind::Forced));
}

/// Replays `SIM_SEED` of it.
#[test]
fn one_seed_of_forced_metadata() {
    super::super::runs::replay(Some(forced));
}

#[test]
fn tight_metadata() {
    let seen = run_many(35_000_000, TIGHT_SEEDS, Some(tight));
    let enough = number("SIM_SEEDS").unwrap_or(TIGHT_SEEDS) >= TIGHT_SEEDS;
    assert!(!enough || seen.missing(Kind::Tight).is_empty(), "never happened: {:?}", seen.missing(Kind::Tight));
}

/// Replays `SIM_SEED` of it.
#[test]
fn one_seed_of_tight_metadata() {
    super::super::runs::replay(Some(tight));
}

/// The same, where the members are the nodes, and it is said who votes. Nobody else changes who does.
pub(super) fn voting(plan: &mut Plan) {
    metadata(plan);
    // All become members by one command.
    (plan.voting, plan.small) = (true, false);
    plan.faults.retain(|(_, trouble)| *trouble != Trouble::Change);
}

/// The same, where all nodes but one are lost at some time.
pub(super) fn forced_voting(plan: &mut Plan) {
    voting(plan);
    plan.voters = plan.voters.max(2);
    plan.faults.push((12, Trouble::Force));
}

#[test]
fn voting_metadata() {
    let seen = run_many(37_000_000, VOTING_SEEDS, Some(voting));
    let enough = number("SIM_SEEDS").unwrap_or(VOTING_SEEDS) >= VOTING_SEEDS;
    assert!(!enough || seen.missing(Kind::Voting).is_empty(), "never happened: {:?}", seen.missing(Kind::Voting));
}

#[test]
fn forced_voting_metadata() {
    run_many(38_000_000, FORCED_SEEDS, Some(forced_voting));
}

/// Replays `SIM_SEED` of it.
#[test]
fn one_seed_of_voting() {
    super::super::runs::replay(Some(voting));
}

/// Replays `SIM_SEED` of it where nodes are lost.
#[test]
fn one_seed_of_forced_voting() {
    super::super::runs::replay(Some(forced_voting));
}

#[test]
#[ignore = "soak: 20 000 seeds, about ten minutes"]
fn voting_soak() {
    run_many(39_000_000, 20_000, Some(voting));
}

#[test]
#[ignore = "soak: 60 000 seeds, about twenty minutes"]
fn metadata_soak() {
    run_many(32_000_000, 60_000, Some(metadata));
}

/// Seeds that once broke a promise.
#[test]
fn seeds_of_metadata_that_were_found() {
    // A node was added twice by one command.
    run_many(32_001_351, 1, Some(metadata));
}

/// Replays `SIM_SEED` of the metadata.
#[test]
fn one_seed_of_metadata() {
    super::super::runs::replay(Some(metadata));
}

/// A seed says everything, also of the machine.
#[test]
fn a_seed_of_metadata_repeats_exactly() {
    for seed in 33_000_000..33_000_010 {
        let mode = Mode { adjust: Some(metadata), ..Mode::default() };
        let (once, again) = (run(seed, mode), run(seed, Mode { traced: true, ..mode }));
        assert!(once.violation.is_none(), "{}", report(seed, mode));
        assert_eq!(once.digest, again.digest, "seed {seed}");
    }
}
