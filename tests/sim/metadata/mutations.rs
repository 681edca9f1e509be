//! Each known bug of the metadata is put back, and has to be caught. `docs/meta-faults.md` is the table; it is written
//! anew by `SIM_TABLE=1 cargo nextest run -p mainstay --lib the_table_of_metadata`.

use std::fmt::Write;
use std::panic;

use super::super::runs::{Mode, run};
use super::runs::metadata;
use crate::meta::fault::Fault;

/// Seeds until a bug counts as not caught.
const SEEDS: u64 = 1000;

/// A bug.
struct Mutation {
    fault: Fault,
    what: &'static str,
    /// Whether what follows from it shows as well, not only the broken rule.
    follows: bool,
}

const fn mutation(fault: Fault, what: &'static str) -> Mutation {
    Mutation { fault, what, follows: true }
}

const MUTATIONS: &[Mutation] = &[
    mutation(Fault::ClockInApply, "applying reads a clock"),
    mutation(Fault::HalfBatch, "the first actions of a refused batch stay"),
    mutation(Fault::MemberNumberReused, "a member gets the number of one that was removed"),
    mutation(Fault::ExpiryInAnyOrder, "the keys of a lease are deleted in another order on another replica"),
    mutation(Fault::ExpireUnchecked, "a lease expires that was renewed since the clock looked"),
    mutation(Fault::RenewalUncounted, "a renewal does not begin the time anew"),
    Mutation { follows: false, ..mutation(Fault::LeaderCountsOn, "a new leader does not count in full") },
    mutation(Fault::TimersNotRestored, "what runs out is not read from a snapshot"),
    mutation(Fault::WatchSkipsCompacted, "a watch goes on behind what was compacted, and does not say so"),
    mutation(Fault::WatchRepeats, "a watch that goes on elsewhere is given its last revision again"),
    mutation(Fault::ToldBeforeWritten, "watches are told of a revision before it is in the tables"),
    mutation(Fault::RestoredUntold, "watches are not told of a snapshot"),
    mutation(Fault::SweepTakesPresent, "the sweep takes what a key is now along"),
    mutation(Fault::TokenNotUsed, "a join token is not used up"),
    mutation(Fault::HeaderNotWritten, "the counters of keys and leases are not always written"),
];

/// The first seed that catches a bug, and what it breaks.
struct Catch {
    seeds: u64,
    check: &'static str,
}

fn search(fault: Fault, black_box: bool) -> Option<Catch> {
    let mode = Mode { meta_fault: Some(fault), black_box, adjust: Some(metadata), ..Mode::default() };
    (0..SEEDS).find_map(|seed| {
        let violation = run(34_000_000 + seed, mode).violation?;
        Some(Catch { seeds: seed + 1, check: violation.check })
    })
}

fn caught(fault: Fault) {
    // A panic is what some of them end in: no need to print them all.
    panic::set_hook(Box::new(|_| {}));
    let follows = MUTATIONS.iter().any(|mutation| mutation.fault == fault && mutation.follows);
    let seen = search(fault, false);
    let followed = follows.then(|| search(fault, true));
    let _ = panic::take_hook();
    for (kind, catch) in [("all checks", Some(seen)), ("what follows", followed)] {
        match catch {
            Some(Some(catch)) => println!("{fault:?}: {kind}: \"{}\" after {} seeds", catch.check, catch.seeds),
            Some(None) => panic!("{fault:?} passes {kind} in {SEEDS} seeds"),
            None => {}
        }
    }
}

macro_rules! mutations {
    ($($name:ident: $fault:ident,)*) => {
        $(
            #[test]
            fn $name() {
                caught(Fault::$fault);
            }
        )*

        /// No bug without a test of its own.
        #[test]
        fn every_fault_of_metadata_is_tried() {
            let tried = [$(Fault::$fault),*];
            assert_eq!(tried.to_vec(), MUTATIONS.iter().map(|mutation| mutation.fault).collect::<Vec<_>>());
            assert_eq!(tried.len(), Fault::ALL);
        }
    };
}

mutations! {
    clock_in_apply: ClockInApply,
    half_batch: HalfBatch,
    member_number_reused: MemberNumberReused,
    expiry_in_any_order: ExpiryInAnyOrder,
    expire_unchecked: ExpireUnchecked,
    renewal_uncounted: RenewalUncounted,
    leader_counts_on: LeaderCountsOn,
    timers_not_restored: TimersNotRestored,
    watch_skips_compacted: WatchSkipsCompacted,
    watch_repeats: WatchRepeats,
    told_before_written: ToldBeforeWritten,
    restored_untold: RestoredUntold,
    sweep_takes_present: SweepTakesPresent,
    token_not_used: TokenNotUsed,
    header_not_written: HeaderNotWritten,
}

/// The table of the docs names every bug; with `SIM_TABLE=1` it is written anew.
#[test]
fn the_table_of_metadata() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/meta-faults.md");
    if std::env::var_os("SIM_TABLE").is_none() {
        let docs = std::fs::read_to_string(path).unwrap();
        let missing = MUTATIONS.iter().find(|mutation| !docs.contains(mutation.what));
        return assert!(missing.is_none(), "{path} does not know: {}", missing.map_or("", |it| it.what));
    }
    let mut table = String::from(include_str!("faults_head.md"));
    panic::set_hook(Box::new(|_| {}));
    for mutation in MUTATIONS {
        let cell = |black_box: bool| match (!black_box || mutation.follows).then(|| search(mutation.fault, black_box)) {
            None => "— | —".to_owned(),
            Some(Some(catch)) => format!("{} | {}", catch.check, catch.seeds),
            Some(None) => format!("**nothing** | {SEEDS}"),
        };
        let _ = writeln!(table, "| {} | {} | {} |", mutation.what, cell(false), cell(true));
    }
    let _ = panic::take_hook();
    std::fs::write(path, table).unwrap();
}
