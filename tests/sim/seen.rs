//! What happened in a run, counted, so that no test passes because nothing happened.

use std::collections::BTreeMap;

macro_rules! happenings {
    ($($name:ident = $words:literal,)*) => {
        /// Something that has to happen in some run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Happening { $($name,)* }

        impl Happening {
            pub(super) const ALL: &[Happening] = &[$(Happening::$name,)*];

            pub(super) fn words(self) -> &'static str {
                match self { $(Happening::$name => $words,)* }
            }
        }
    };
}

happenings! {
    Elected = "a leader was elected",
    PreVote = "a replica asked whether it would be elected",
    Transferred = "leadership was handed over",
    TransferRefused = "a transfer was refused",
    Conflict = "entries that were not committed were replaced",
    Compacted = "a log was compacted",
    LogRead = "entries were read back for a follower",
    Replayed = "a restart read its log back",
    ReplayPaged = "a restart read its log back in several parts",
    RejectedStarting = "a message came while a log was read back",
    RejectedBusy = "a follower took no entries, for it had too much to apply",
    RefusedHint = "a proposal was refused with a hint",
    RefusedBusy = "a proposal was refused for want of room",
    Replaced = "a proposal was refused because another entry took its place",
    Unknown = "a proposal expired",
    ReadExpired = "a read expired",
    ReadOnFollower = "a read was answered by a follower",
    ReadAskedAgain = "a read outlived the leader that it was asked of",
    ForwardedRead = "a read was forwarded",
    Duplicated = "a message arrived twice",
    BegunEarlier = "an append began earlier than need be",
    OneWay = "one direction of a link was cut",
    Split = "the cluster was split",
    Border = "a replica was with the newest leader, alone",
    Paused = "a node was paused",
    Crashed = "a node crashed",
    CrashedInEffects = "a node crashed between two effects",
    DiskStalled = "a disk hung",
    WriteFailed = "a write failed",
    ApplyFailed = "a command could not be applied",
    LearnerCaughtUp = "a learner caught up",
    ReadByLease = "a read was answered at once, by a lease",
    Captured = "a state was captured",
    TransferBroken = "a snapshot did not get through",
    SnapshotNotNeeded = "a snapshot came too late to be needed",
    SnapshotWaited = "a snapshot waited for older entries to be applied",
    Restored = "a snapshot was taken over",
    Installed = "a machine that keeps its own position installed a snapshot",
    CrashedInstalling = "a node crashed while a machine installed a snapshot",
    InstalledLate = "a machine installed a snapshot when it was started",
    InstalledTwice = "a machine installed a snapshot that it had installed",
    ClearedLate = "a snapshot that a machine had installed was removed when it was started",
    CrashedFilling = "a node crashed while a snapshot was filled",
    ChangeRefused = "a change of the membership was refused",
    Changed = "a change of the membership was committed",
    Joined = "a new replica took over its first snapshot",
    Promoted = "a learner became a voter",
    Demoted = "a voter became a learner",
    Removed = "a replica was removed",
    LeaderRemoved = "a leader was removed",
    StartedJoint = "a node started in a joint configuration",
    RemovedRefused = "somebody who was removed was not listened to",
    LeaderSlept = "a group fell asleep",
    FollowerSlept = "a follower fell asleep",
    WokenByMessage = "a message woke a replica",
    WokenByRequest = "a request woke a replica",
    WokenBySilence = "the silence of its leader's node woke a follower",
    WokenByWord = "another word of its leader's node woke a follower",
    EndedAsleep = "a leader that slept ended on a node that lived",
    Alone = "a sole voter acknowledged a write",
    WrittenTogether = "entries of several groups were one write",
    Destroyed = "a replica was destroyed",
    CrashedDestroying = "a node crashed while a replica was destroyed",
    LateForDestroyed = "a message came for a replica that was destroyed",
    RemakeRefused = "a replica that was destroyed was not made again",
    Remade = "a node took part again, under a new number",
    Damaged = "bits flipped in a state",
    Hashed = "a state was hashed",
    Agreed = "a check showed that the states are the same",
    Differed = "a check showed which states differ from the majority's",
    Undecided = "a check showed that states differ and no majority agrees",
    CheckGivenUp = "a check was given up",
    Marked = "a replica was marked, whose state was wrong",
    LeaderMarked = "a leader was marked",
    StartedMarked = "a replica was opened that was marked",
    Repaired = "a snapshot replaced a state that was wrong",
    LeaderStalled = "the disk of a leader hung until that was noticed",
    BatchDone = "a batch of actions took effect",
    BatchRefused = "a later action of a batch was refused",
    FormedBefore = "a cluster was to be formed twice",
    Repeated = "a command that was proposed more than once took effect",
    LeaseExpired = "a lease expired",
    LeaseOfAnotherLeader = "a lease expired under another leader than it was renewed under",
    WatchMoved = "a watch went on at another replica",
    WatchTooLate = "a watch was told that its revision was compacted",
    Forced = "all nodes but one were lost, and that one went on",
    ForcedUnsure = "the one that went on had entries of which it was not known whether they were acknowledged",
    ForcedLost = "the one that went on lacked entries that were acknowledged",
    NoRoom = "a put was refused for want of room",
    HistoryShortened = "a history that was too large was shortened",
    VoteTaken = "a voter became a learner, for it was not to vote",
    VoteGiven = "a learner became a voter, for it was to vote",
    VoterHandsOver = "a leader that was not to vote handed over",
}

/// What happens only where there are many groups, and replicas are destroyed.
const OF_MANY: [Happening; 6] = [
    Happening::WrittenTogether,
    Happening::Destroyed,
    Happening::CrashedDestroying,
    Happening::LateForDestroyed,
    Happening::RemakeRefused,
    Happening::Remade,
];

/// What happens only where states are damaged and compared, and somebody looks after the disks.
const OF_CHECKS: [Happening; 11] = [
    Happening::Damaged,
    Happening::Hashed,
    Happening::Agreed,
    Happening::Differed,
    Happening::Undecided,
    Happening::CheckGivenUp,
    Happening::Marked,
    Happening::LeaderMarked,
    Happening::StartedMarked,
    Happening::Repaired,
    Happening::LeaderStalled,
];

/// What is rare, and has runs of its own.
const RARE: [Happening; 1] = [Happening::ClearedLate];
/// What happens only where the metadata's machine is.
const OF_METADATA: [Happening; 8] = [
    Happening::BatchDone,
    Happening::BatchRefused,
    Happening::FormedBefore,
    Happening::Repeated,
    Happening::LeaseExpired,
    Happening::LeaseOfAnotherLeader,
    Happening::WatchMoved,
    Happening::WatchTooLate,
];

/// What happens only where nodes are lost.
const OF_FORCED: [Happening; 3] = [Happening::Forced, Happening::ForcedUnsure, Happening::ForcedLost];

/// What happens only where room is tight.
const OF_TIGHT: [Happening; 2] = [Happening::NoRoom, Happening::HistoryShortened];

/// What happens only where it is said who votes.
const OF_VOTING: [Happening; 3] = [Happening::VoteTaken, Happening::VoteGiven, Happening::VoterHandsOver];

/// What runs are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    One,
    Many,
    Metadata,
    Tight,
    Forced,
    Voting,
    Checks,
}

/// How often each happened.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(pub(super) BTreeMap<Happening, u64>);

impl Seen {
    pub(super) fn note(&mut self, happening: Happening) {
        *self.0.entry(happening).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Seen) {
        for (happening, count) in &other.0 {
            *self.0.entry(*happening).or_default() += count;
        }
    }

    /// What should have happened in runs of a kind.
    pub(super) fn missing(&self, of: Kind) -> Vec<&'static str> {
        let kind = |happening: &Happening| match happening {
            it if OF_MANY.contains(it) => Kind::Many,
            it if OF_CHECKS.contains(it) => Kind::Checks,
            it if OF_FORCED.contains(it) => Kind::Forced,
            it if OF_TIGHT.contains(it) => Kind::Tight,
            it if OF_VOTING.contains(it) => Kind::Voting,
            it if OF_METADATA.contains(it) => Kind::Metadata,
            _ => Kind::One,
        };
        let wanted = Happening::ALL.iter().filter(|it| kind(it) == of && !RARE.contains(it));
        wanted.filter(|happening| !self.0.contains_key(happening)).map(|it| it.words()).collect()
    }
}
