//! Known bugs that tests put back in, to see that they are caught, and the clock that simulated nodes go by. Outside of
//! tests none of them exists.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests break rules"))]
pub(crate) enum Fault {
    /// An event says when it was applied, and not when it was proposed.
    ClockInApply,
    /// What the first actions of a refused command wrote stays.
    HalfBatch,
    /// A member gets the number behind how many there are: that of one that was removed.
    MemberNumberReused,
    /// Keys of a lease that ends are deleted in an order that depends on the replica.
    ExpiryInAnyOrder,
    /// An `Expire` ends also what was renewed since the clock looked.
    ExpireUnchecked,
    /// A renewal does not begin the time anew.
    RenewalUncounted,
    /// A new leader goes on counting where it was as a follower.
    LeaderCountsOn,
    /// What runs out is not read again from a snapshot.
    TimersNotRestored,
    /// A watch that finds its position compacted goes on behind.
    WatchSkipsCompacted,
    /// A watch resumes at the revision that it was given last.
    WatchRepeats,
    /// How far the machine is, is told before the tables show it.
    ToldBeforeWritten,
    /// Watches do not hear of a snapshot.
    RestoredUntold,
    /// The sweep takes what a key is now along.
    SweepTakesPresent,
    /// A token is not used up.
    TokenNotUsed,
    /// The header of keys and values is not written if only leases changed it.
    HeaderNotWritten,
    /// What is deleted goes on counting for the quota.
    DeletedCounts,
    /// What was deleted goes on being remembered as it was.
    DeletedRemembered,
    /// A history that is too large is shortened, and nobody hears of it.
    ShortenedUntold,
    /// A member that goes on alone gives the numbers of those who are gone again.
    ForcedReuses,
    /// The last member that votes may lose its vote, or drain.
    LastVoterGoes,
    /// A member that goes on alone does not vote if it did not before.
    ForcedNonVoting,
    /// The leader makes voters also of those that are not to vote.
    PromotedAnyway,
    /// A leader that is not to vote goes on leading.
    LeaderKeepsVote,
}

#[cfg(test)]
impl Fault {
    /// How many there are.
    pub(crate) const ALL: usize = Fault::LeaderKeepsVote as usize + 1;
}

#[cfg(test)]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
    static SHRINK: std::cell::Cell<u64> = const { std::cell::Cell::new(1) };
    static NOW: std::cell::Cell<std::time::Duration> = const { std::cell::Cell::new(std::time::Duration::ZERO) };
}

/// Breaks a rule on this thread, or with `None` none any more.
#[cfg(test)]
pub(crate) fn set(fault: Option<Fault>) {
    ACTIVE.set(fault);
}

/// Whether this rule is broken now.
#[cfg(test)]
pub(crate) fn active(fault: Fault) -> bool {
    ACTIVE.get() == Some(fault)
}

/// Whether this rule is broken now: never.
#[cfg(not(test))]
pub(crate) const fn active(_: Fault) -> bool {
    false
}

/// Makes the bounds of what is kept so many times smaller: simulated clusters do not live long enough to fill them.
#[cfg(test)]
pub(crate) fn set_shrink(times: u64) {
    SHRINK.set(times);
}

/// A bound of what is kept, as a simulated node has it.
#[cfg(test)]
pub(crate) fn shrunk(bytes: u64) -> u64 {
    bytes / SHRINK.get()
}

/// A bound as it is.
#[cfg(not(test))]
pub(crate) const fn shrunk(bytes: u64) -> u64 {
    bytes
}

/// Sets the clock of the simulated node whose turn it is.
#[cfg(test)]
pub(crate) fn set_now(now: std::time::Duration) {
    NOW.set(now);
}

/// That clock.
#[cfg(test)]
pub(crate) fn now() -> std::time::Duration {
    NOW.get()
}

/// That clock in milliseconds.
#[cfg(test)]
pub(crate) fn millis() -> u64 {
    NOW.get().as_millis() as u64
}

/// There is none.
#[cfg(not(test))]
pub(crate) const fn millis() -> u64 {
    0
}
