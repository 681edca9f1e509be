//! Each known bug is put back, and has to be caught. `docs/raft-faults.md` is the table; it is written anew by
//! `SIM_TABLE=1 cargo nextest run -p mainstay --lib the_table`.

use super::proof::{self, Proof, prove};
use super::runs::Mode;
use super::scenario::{Plan, Trouble};
use crate::raftstore::fault::Fault;

type Mutation = proof::Mutation<Fault>;

const fn mutation(fault: Fault, what: &'static str) -> Mutation {
    Mutation { fault, what, adjust: None, follows: true }
}

/// Where states are damaged and compared, and disks looked after.
const fn checked(fault: Fault, what: &'static str) -> Mutation {
    Mutation { adjust: Some(super::runs::checked), ..mutation(fault, what) }
}

const PROOF: Proof<Fault> = Proof {
    mutations: MUTATIONS,
    with: |fault| Mode { fault: Some(fault), ..Mode::default() },
    first_seed: 20_000_000,
    seeds: 8000,
    table: concat!(env!("CARGO_MANIFEST_DIR"), "/docs/raft-faults.md"),
    head: include_str!("faults_head.md"),
};

const MUTATIONS: &[Mutation] = &[
    mutation(Fault::VoteBeforeDurable, "a vote leaves before it is durable"),
    mutation(Fault::LeaderCountsItselfEarly, "a leader counts its own entries before they are durable"),
    mutation(Fault::SoleVoterEarly, "a group of one acknowledges before its entry is durable"),
    mutation(Fault::AppendBeforeDurable, "an append is acknowledged before it is durable"),
    mutation(Fault::StaleTail, "entries behind an overwritten one stay in the store"),
    mutation(Fault::AppliedFromCommit, "after a restart the applied index is taken from the commit index"),
    mutation(Fault::CacheNotTruncated, "overwritten entries stay in the entry cache"),
    Mutation {
        adjust: Some(border),
        follows: false,
        ..mutation(Fault::OldCompletion, "an old completion marks new entries durable")
    },
    mutation(Fault::ReadBeforeCommit, "a new leader answers reads before its first commit"),
    Mutation {
        adjust: Some(restarts),
        ..mutation(Fault::ReadContextReused, "contexts of reads repeat after a restart")
    },
    mutation(Fault::OldAppendTruncates, "an old append cuts off entries that match"),
    mutation(Fault::ReadBeforeApplied, "a read is answered before the state machine got there"),
    mutation(Fault::CompactBeyondApplied, "the log is compacted beyond what is durably applied"),
    mutation(Fault::ReplacedProposalDone, "a proposal whose entry was replaced is answered as done"),
    mutation(Fault::PersistErrorIgnored, "a failed write is ignored"),
    mutation(Fault::ApplyErrorSkipped, "a command that could not be applied is skipped"),
    mutation(Fault::OldSnapshotAccepted, "a snapshot older than what is committed is taken"),
    mutation(Fault::RestoredBeforeApplied, "a snapshot becomes visible while older entries are being applied"),
    mutation(Fault::FlippedIncomplete, "a snapshot becomes visible before all of it is there"),
    mutation(Fault::MembershipNotKept, "a changed membership is forgotten by a restart"),
    mutation(Fault::ChangeAppliedTwice, "a change of the membership is applied twice"),
    Mutation {
        adjust: Some(transfers),
        ..mutation(Fault::LeaseOnTransfer, "a lease is used on while leadership is handed over")
    },
    Mutation { adjust: Some(ending), ..mutation(Fault::WordUnchecked, "a beat keeps a dead leader alive") },
    Mutation { adjust: Some(idle), ..mutation(Fault::SilenceUnheard, "nobody wakes when a node falls silent") },
    Mutation {
        adjust: Some(idle),
        follows: false,
        ..mutation(Fault::SleepsBehind, "a group sleeps while a follower lacks entries")
    },
    Mutation {
        adjust: Some(idle),
        follows: false,
        ..mutation(Fault::SleepsWithRequests, "a replica sleeps while a request waits")
    },
    Mutation {
        adjust: Some(super::runs::many),
        ..mutation(Fault::TombstoneNotDurable, "that a replica was destroyed is forgotten by a restart")
    },
    Mutation {
        adjust: Some(own),
        ..mutation(Fault::InstallForgotten, "a snapshot that a machine has not yet installed is forgotten by a restart")
    },
    Mutation {
        adjust: Some(own),
        ..mutation(Fault::ClearedBeforeInstalled, "a snapshot is removed before the machine has installed it")
    },
    Mutation {
        adjust: Some(own),
        ..mutation(Fault::FlipNotDurable, "a machine installs a snapshot before it is durable that it is taken over")
    },
    // What follows from it takes a restart just then: 554 seeds once, more than 8 000 another time.
    Mutation {
        adjust: Some(marks),
        follows: false,
        ..mutation(Fault::MarkNotDurable, "that a replica's state is wrong is forgotten by a restart")
    },
    checked(Fault::MarkedStands, "a replica whose state is wrong stands for election"),
    checked(Fault::MarkedReads, "a replica whose state is wrong answers reads"),
    Mutation { follows: false, ..checked(Fault::MarkedGives, "a replica whose state is wrong gives snapshots") },
    checked(Fault::MinorityRight, "what a minority has is taken for right"),
    Mutation { follows: false, ..checked(Fault::StallIgnored, "a leader goes on although its disk hangs") },
];

/// An old completion matters if an entry is cut off and comes back while it is being written: for a replica with a slow
/// disk that is always on the side of the newest leader, and only if leaders send more than need be. Otherwise the
/// replica has to refuse an append before it gets the entry again, and what it says waits for the write.
fn border(plan: &mut Plan) {
    plan.voters = 5;
    plan.early = 500;
    plan.whole_batches = 0;
    plan.fault_every = 40 * super::world::TICK;
    plan.faults.push((100, Trouble::Border));
}

/// An answer to a read of an earlier life matters if it comes when that read has been asked again: short lives, under
/// leaders that stay, and answers that take long.
fn restarts(plan: &mut Plan) {
    plan.voters = 3;
    (plan.keys, plan.clients, plan.think_ticks, plan.read_per_mille) = (1, 12, 1, 600);
    (plan.dropped, plan.delayed, plan.long_delay) = (0, 200, 15 * super::world::TICK);
    (plan.write_delay, plan.apply_delay, plan.delay) = (5, 5, 30);
    plan.fault_every = 4 * super::world::TICK;
    plan.faults = vec![(1, Trouble::Crash)];
}

/// Leases matter while others lead: leaders hand over, to nodes that they do not hear of for a while.
fn transfers(plan: &mut Plan) {
    (plan.voters, plan.learner, plan.lease_reads) = (3, false, true);
    (plan.keys, plan.clients, plan.think_ticks, plan.read_per_mille) = (1, 12, 1, 500);
    (plan.dropped, plan.delayed, plan.delay) = (0, 0, 60);
    (plan.write_delay, plan.apply_delay) = (5, 5);
    plan.election_ticks = 6;
    plan.fault_every = 3 * super::world::TICK;
    plan.faults = vec![(10, Trouble::Transfer), (1, Trouble::OneWay), (1, Trouble::IsolateLeader)];
}

/// Groups that are used now and then, and otherwise sleep; and nodes that stay away long enough for nobody to take it
/// for an election.
fn idle(plan: &mut Plan) {
    (plan.hibernate_after, plan.outage_ticks, plan.chaos_ticks) = (3, 150, 220);
    (plan.clients, plan.think_ticks) = (2, 80);
}

/// The same where it is often only the leader that ends, and its node goes on.
fn ending(plan: &mut Plan) {
    idle(plan);
    plan.faults.push((20, Trouble::StopReplica));
}

/// Marks matter while no snapshot has come, to who is restarted and read from.
fn marks(plan: &mut Plan) {
    super::runs::checked(plan);
    (plan.dropped, plan.outage_ticks) = (200, 3);
    (plan.think_ticks, plan.read_per_mille) = (1, 700);
    plan.faults.push((60, Trouble::Crash));
}

/// Machines that keep their own position, and often need a snapshot.
fn own(plan: &mut Plan) {
    (plan.own_machine, plan.own_snapshots, plan.small) = (true, true, true);
    plan.faults.push((10, Trouble::Crash));
}

prove! {
    every_fault_is_tried;
    vote_before_durable: VoteBeforeDurable,
    leader_counts_itself_early: LeaderCountsItselfEarly,
    sole_voter_early: SoleVoterEarly,
    append_before_durable: AppendBeforeDurable,
    stale_tail: StaleTail,
    applied_from_commit: AppliedFromCommit,
    cache_not_truncated: CacheNotTruncated,
    old_completion: OldCompletion,
    read_before_commit: ReadBeforeCommit,
    read_context_reused: ReadContextReused,
    old_append_truncates: OldAppendTruncates,
    read_before_applied: ReadBeforeApplied,
    compact_beyond_applied: CompactBeyondApplied,
    replaced_proposal_done: ReplacedProposalDone,
    persist_error_ignored: PersistErrorIgnored,
    apply_error_skipped: ApplyErrorSkipped,
    old_snapshot_accepted: OldSnapshotAccepted,
    restored_before_applied: RestoredBeforeApplied,
    flipped_incomplete: FlippedIncomplete,
    membership_not_kept: MembershipNotKept,
    change_applied_twice: ChangeAppliedTwice,
    lease_on_transfer: LeaseOnTransfer,
    word_unchecked: WordUnchecked,
    silence_unheard: SilenceUnheard,
    sleeps_behind: SleepsBehind,
    sleeps_with_requests: SleepsWithRequests,
    tombstone_not_durable: TombstoneNotDurable,
    install_forgotten: InstallForgotten,
    cleared_before_installed: ClearedBeforeInstalled,
    flip_not_durable: FlipNotDurable,
    mark_not_durable: MarkNotDurable,
    marked_stands: MarkedStands,
    marked_reads: MarkedReads,
    marked_gives: MarkedGives,
    minority_right: MinorityRight,
    stall_ignored: StallIgnored,
}

#[test]
fn the_table() {
    PROOF.check_table();
}
