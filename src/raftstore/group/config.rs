//! The bounds and times of a replica. Times are ticks: the driver says how long one is.

use crate::ident::ReplicaId;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The bounds and times of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Which replica it is.
    pub replica: ReplicaId,
    /// Heartbeats of a leader: one every so many ticks, 1 by default.
    pub heartbeat_ticks: usize,
    /// A follower that hears nothing for this long, plus as much again at most, stands for election. 5 by default; more
    /// than `heartbeat_ticks`.
    pub election_ticks: usize,
    /// A group that nobody has used for this many ticks hibernates: it sends nothing, and takes no time, until it is used
    /// again. 100 by default; 0: never. As long as a member cannot be reached, it stays awake.
    pub hibernate_after_ticks: u64,
    /// Among candidates with equal logs those of a higher priority win. 0 by default.
    pub priority: i64,
    /// Largest command in bytes, 1 B to 32 MiB, 8 MiB by default. The same on all nodes: a replica refuses larger ones.
    pub max_entry_bytes: usize,
    /// Entries in one message, in bytes, 1 KiB to 4 MiB, 1 MiB by default; a larger entry travels alone.
    pub max_message_bytes: usize,
    /// Messages with entries on their way to one follower, 256 by default.
    pub max_inflight_messages: usize,
    /// Bytes of entries on their way to one follower, 16 MiB by default. One more batch may be sent when it is reached.
    pub max_inflight_bytes: usize,
    /// Bytes of commands proposed and not yet committed, 64 MiB by default. Beyond it proposals are refused.
    pub max_uncommitted_bytes: usize,
    /// Bytes of entries committed but not yet applied here, 64 MiB by default. Beyond it a leader refuses proposals and
    /// a follower takes no entries.
    pub max_unapplied_bytes: usize,
    /// Bytes of entries handed to the state machine at once, 4 MiB by default.
    pub max_apply_batch_bytes: usize,
    /// Bytes of applied entries kept in memory for followers that lack them and can be reached, 16 MiB by default. What
    /// nobody lacks does not stay.
    pub cache_bytes: usize,
    /// Requests that may wait, 65 536 by default.
    pub max_waiting_requests: usize,
    /// A proposal or read not answered after this many ticks is answered "unknown" or "expired", 50 by default.
    pub request_ticks: u64,
    /// Whether a leader answers reads by its lease, without asking the others each time; `false` by default. The same on
    /// all nodes: replicas that promised a lease give no vote for their first election time-out. Safe as long as clocks
    /// run at rates that differ by less than a third.
    pub lease_reads: bool,
    /// Leadership is not handed to a voter further behind than this many entries, 10 000 by default.
    pub max_transfer_lag: u64,
    /// A learner that lacks no more entries than this for an election time-out keeps up, and may become a voter; 1 000 by
    /// default.
    pub max_promotion_lag: u64,
    /// The log is compacted when this many applied entries could go, 10 000 by default.
    pub compact_entries: u64,
    /// The same in bytes, 64 MiB by default.
    pub compact_bytes: u64,
    /// Applied entries that stay in the log when it is compacted, for followers that are a little late, 1 000 by
    /// default.
    pub keep_entries: u64,
    /// Whether a follower that is too far behind for the log gets a snapshot, `true` by default. Never of a machine that
    /// keeps its own position and gives none. Without, the log is kept for the slowest follower, however long.
    pub snapshots: bool,
    /// The log is not kept for a follower that lacks more applied entries than this, 100 000 by default, or four times
    /// as many while it takes a snapshot.
    pub max_lag_entries: u64,
    /// The same in bytes, 256 MiB by default.
    pub max_lag_bytes: u64,
    /// A consistency check that is not finished after this many ticks goes on with the replicas that have said what they
    /// hold, or is given up if they are no majority; 18 000 by default.
    pub check_ticks: u64,
}

impl GroupConfig {
    /// The defaults.
    pub fn new(replica: ReplicaId) -> GroupConfig {
        GroupConfig {
            replica,
            heartbeat_ticks: 1,
            election_ticks: 5,
            hibernate_after_ticks: 100,
            priority: 0,
            max_entry_bytes: 8 * MIB,
            max_message_bytes: MIB,
            max_inflight_messages: 256,
            max_inflight_bytes: 16 * MIB,
            max_uncommitted_bytes: 64 * MIB,
            max_unapplied_bytes: 64 * MIB,
            max_apply_batch_bytes: 4 * MIB,
            cache_bytes: 16 * MIB,
            max_waiting_requests: 64 * KIB,
            request_ticks: 50,
            lease_reads: false,
            max_transfer_lag: 10_000,
            max_promotion_lag: 1_000,
            compact_entries: 10_000,
            compact_bytes: 64 * MIB as u64,
            keep_entries: 1_000,
            snapshots: true,
            max_lag_entries: 100_000,
            max_lag_bytes: 256 * MIB as u64,
            check_ticks: 18_000,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// All problems at once, in words.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, what: &str| {
            if !holds {
                problems.push(what.to_owned());
            }
        };
        require(self.replica.get() != 0, "replica must not be 0");
        require(self.heartbeat_ticks >= 1, "heartbeat_ticks must be 1 or more");
        require(self.election_ticks > self.heartbeat_ticks, "election_ticks must be more than heartbeat_ticks");
        require(self.max_message_bytes >= KIB, "max_message_bytes must be 1 KiB or more");
        // What travels has to fit into a frame of the transport, and a peer refuses what it would not send itself.
        require(self.max_message_bytes <= 4 * MIB, "max_message_bytes must be 4 MiB or less");
        require((1..=32 * MIB).contains(&self.max_entry_bytes), "max_entry_bytes must be 1 B to 32 MiB");
        require(self.max_inflight_messages >= 1, "max_inflight_messages must be 1 or more");
        require(self.max_inflight_bytes >= self.max_message_bytes, "max_inflight_bytes must hold one message");
        require(self.max_uncommitted_bytes >= self.max_entry_bytes, "max_uncommitted_bytes must hold one entry");
        require(self.max_uncommitted_bytes >= self.max_message_bytes, "max_uncommitted_bytes must hold one message");
        require(self.max_unapplied_bytes >= self.max_entry_bytes, "max_unapplied_bytes must hold one entry");
        require(self.max_apply_batch_bytes >= 1, "max_apply_batch_bytes must be 1 or more");
        require(self.max_waiting_requests >= 1, "max_waiting_requests must be 1 or more");
        require(self.request_ticks >= 1, "request_ticks must be 1 or more");
        require(self.check_ticks >= 1, "check_ticks must be 1 or more");
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}
