//! Each known bug of the metadata is put back, and has to be caught. `docs/meta-faults.md` is the table; it is written
//! anew by `SIM_TABLE=1 cargo nextest run -p mainstay --lib the_table_of_metadata`.

use super::super::proof::{self, Proof, prove};
use super::super::runs::Mode;
use super::runs::{forced, forced_voting, metadata, tight, voting};
use crate::meta::fault::Fault;

type Mutation = proof::Mutation<Fault>;

const fn mutation(fault: Fault, what: &'static str) -> Mutation {
    Mutation { fault, what, adjust: Some(metadata), follows: true }
}

const PROOF: Proof<Fault> = Proof {
    mutations: MUTATIONS,
    with: |fault| Mode { meta_fault: Some(fault), ..Mode::default() },
    first_seed: 34_000_000,
    seeds: 1000,
    table: concat!(env!("CARGO_MANIFEST_DIR"), "/docs/meta-faults.md"),
    head: include_str!("faults_head.md"),
};

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
    Mutation {
        adjust: Some(tight),
        ..mutation(Fault::DeletedCounts, "what is deleted goes on counting for the quota")
    },
    mutation(Fault::DeletedRemembered, "what was deleted goes on being remembered as it was"),
    Mutation {
        adjust: Some(forced),
        ..mutation(Fault::ForcedReuses, "a member that goes on alone gives the numbers of those who are gone again")
    },
    Mutation {
        adjust: Some(tight),
        ..mutation(Fault::ShortenedUntold, "a history that is too large is shortened, and watches do not hear of it")
    },
    Mutation { adjust: Some(voting), ..mutation(Fault::LastVoterGoes, "the last member that votes may lose its vote") },
    Mutation {
        adjust: Some(forced_voting),
        ..mutation(Fault::ForcedNonVoting, "a member that goes on alone is not to vote, if it was not before")
    },
    Mutation {
        adjust: Some(voting),
        ..mutation(Fault::PromotedAnyway, "leaders make voters also of those that are not to vote")
    },
    Mutation {
        adjust: Some(voting),
        ..mutation(Fault::LeaderKeepsVote, "a leader that is not to vote does not hand over")
    },
];

prove! {
    every_fault_of_metadata_is_tried;
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
    deleted_counts: DeletedCounts,
    deleted_remembered: DeletedRemembered,
    forced_reuses: ForcedReuses,
    shortened_untold: ShortenedUntold,
    last_voter_goes: LastVoterGoes,
    forced_non_voting: ForcedNonVoting,
    promoted_anyway: PromotedAnyway,
    leader_keeps_vote: LeaderKeepsVote,
}

#[test]
fn the_table_of_metadata() {
    PROOF.check_table();
}
