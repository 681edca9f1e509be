//! Known bugs that tests put back in, to see that they are caught. Outside of tests none of them exists.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests break rules"))]
pub(super) enum Fault {
    /// A vote leaves before it is durable.
    VoteBeforeDurable,
    /// A leader counts its own entries before they are durable.
    LeaderCountsItselfEarly,
    /// A group of one acknowledges before its entry is durable.
    SoleVoterEarly,
    /// An append is acknowledged before it is durable.
    AppendBeforeDurable,
    /// Entries behind an overwritten one stay in the store.
    StaleTail,
    /// After a restart the applied index is taken from the commit index.
    AppliedFromCommit,
    /// Overwritten entries stay in the entry cache.
    CacheNotTruncated,
    /// A completed write marks entries of a later one as durable.
    OldCompletion,
    /// A new leader answers reads before its first commit.
    ReadBeforeCommit,
    /// Contexts of reads repeat after a restart.
    ReadContextReused,
    /// An old append cuts off entries that match.
    OldAppendTruncates,
    /// A read is answered before the state machine got there.
    ReadBeforeApplied,
    /// The log is compacted beyond what was applied.
    CompactBeyondApplied,
    /// A proposal whose entry was replaced is answered as done.
    ReplacedProposalDone,
    /// A failed write is ignored.
    PersistErrorIgnored,
    /// A command that could not be applied is skipped.
    ApplyErrorSkipped,
    /// A snapshot is taken that is older than what is committed.
    OldSnapshotAccepted,
    /// A snapshot becomes visible while older entries are still being applied.
    RestoredBeforeApplied,
    /// A snapshot becomes visible before all of it is there.
    FlippedIncomplete,
    /// A change of the membership is not kept with what is applied.
    MembershipNotKept,
    /// A change of the membership is taken once more by a replica that kept it.
    ChangeAppliedTwice,
    /// A lease is used on while leadership is handed over.
    LeaseOnTransfer,
    /// Whoever sleeps goes on when his leader's node says another word: it has lost its leader.
    WordUnchecked,
    /// Whoever sleeps goes on when his leader's node is silent.
    SilenceUnheard,
    /// A leader sleeps while a follower lacks entries.
    SleepsBehind,
    /// A replica sleeps while somebody waits for it.
    SleepsWithRequests,
    /// That a replica was destroyed is forgotten by a restart.
    TombstoneNotDurable,
    /// What a machine that keeps its own position was to install is not, after a crash.
    InstallForgotten,
    /// It is removed before the machine has it.
    ClearedBeforeInstalled,
    /// A snapshot counts as taken over before that is durable.
    FlipNotDurable,
    /// That a replica's state is wrong is forgotten by a restart.
    MarkNotDurable,
    /// A replica whose state is wrong stands for election.
    MarkedStands,
    /// A replica whose state is wrong answers reads.
    MarkedReads,
    /// A replica whose state is wrong gives snapshots.
    MarkedGives,
    /// What any replica has is right, whatever the majority has.
    MinorityRight,
    /// Who leads goes on although his disk hangs.
    StallIgnored,
}

#[cfg(test)]
impl Fault {
    /// How many there are.
    pub(super) const ALL: usize = Fault::StallIgnored as usize + 1;
}

#[cfg(test)]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Breaks a rule on this thread, or with `None` none any more.
#[cfg(test)]
pub(super) fn set(fault: Option<Fault>) {
    ACTIVE.set(fault);
}

/// Whether this rule is broken now.
#[cfg(test)]
pub(super) fn active(fault: Fault) -> bool {
    ACTIVE.get() == Some(fault)
}

/// Whether this rule is broken now: never.
#[cfg(not(test))]
pub(super) const fn active(_: Fault) -> bool {
    false
}
