//! The tests: many seeds.

use super::super::runs::{Mode, number, report, run, run_many};
use super::super::scenario::Plan;
use super::super::seen::Kind;

/// Seeds of each of the tests of many, unless `SIM_SEEDS` says otherwise.
const SEEDS: u64 = 400;

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

#[test]
#[ignore = "soak: 60 000 seeds, about twenty minutes"]
fn metadata_soak() {
    run_many(32_000_000, 60_000, Some(metadata));
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
