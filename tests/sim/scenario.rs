//! What a seed means: the shape of the cluster, its bounds, and what happens to it.

use super::rng::Rng;
use super::world::TICK;
use crate::ident::{NodeId, ReplicaId};
use crate::raftstore::entry::Membership;
use crate::raftstore::group::GroupConfig;

/// Everything that is drawn before a run begins.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Groups, with a replica on each node at first.
    pub(super) groups: u64,
    /// How many replicas of a group each node may have, one after the other.
    pub(super) lives: u64,
    pub(super) voters: u64,
    pub(super) learner: bool,
    /// Replicas that take no part yet.
    pub(super) spares: u64,
    /// Bounds so small that paging, reading back, compaction and refusals happen all the time.
    pub(super) small: bool,
    pub(super) cache_bytes: usize,
    /// The state machine keeps its own position, and flushes it now and then.
    pub(super) own_machine: bool,
    /// Such a machine gives and takes snapshots.
    pub(super) own_snapshots: bool,
    /// The state machine is the metadata's, and not registers.
    pub(super) metadata: bool,
    /// There is so little room for the metadata's keys, values and their history that it runs out.
    pub(super) tight: bool,
    /// The metadata's members are the nodes: it is said who votes, and leaders carry that out.
    pub(super) voting: bool,
    /// Leaders answer reads by their leases.
    pub(super) lease_reads: bool,
    pub(super) election_ticks: u64,
    pub(super) request_ticks: u64,
    /// A check of the states that takes longer goes on without those that did not say; 0: nobody checks.
    pub(super) check_ticks: u64,
    /// A write that takes longer is said to hang; 0: nobody looks.
    pub(super) stall_ticks: u64,
    /// 0: nobody ever sleeps.
    pub(super) hibernate_after: u64,
    pub(super) chaos_ticks: u64,
    pub(super) clients: u64,
    pub(super) keys: u64,
    pub(super) command_bytes: u64,
    pub(super) think_ticks: u64,
    pub(super) read_per_mille: u64,
    // Out of a thousand messages.
    pub(super) dropped: u64,
    pub(super) duplicated: u64,
    pub(super) delayed: u64,
    /// Out of a thousand appends, how many begin earlier than need be, as a leader of another version may do.
    pub(super) early: u64,
    /// The longest of the usual delays, and of the others.
    pub(super) delay: u64,
    pub(super) long_delay: u64,
    pub(super) write_delay: u64,
    /// Out of a thousand batches of writes, how many hold all that waits, and not one.
    pub(super) whole_batches: u64,
    pub(super) apply_delay: u64,
    pub(super) read_delay: u64,
    /// Out of a thousand rounds of effects, how many a crash interrupts.
    pub(super) crash_in_effects: u64,
    /// How long a node that crashed is away at most.
    pub(super) outage_ticks: u64,
    pub(super) fault_every: u64,
    pub(super) faults: Vec<(u64, Trouble)>,
}

/// What may happen to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Crash,
    CrashAll,
    Pause,
    /// Nothing gets from one side to the other.
    Split,
    /// One direction of one link is cut.
    OneWay,
    /// The leader loses all others, or is not heard by them.
    IsolateLeader,
    /// One replica whose disk hangs is always on the side of the newest leader, alone with it.
    Border,
    Heal,
    Transfer,
    DiskStall,
    WriteFails,
    ApplyFails,
    /// A leader is to compare the states of all replicas.
    Check,
    /// All nodes but one are lost for good.
    Force,
    /// Bits flip in a replica's state.
    Damage,
    /// Members are added, promoted, demoted, removed.
    Change,
    /// A replica ends on a node that goes on.
    StopReplica,
    /// One that was removed is destroyed.
    Destroy,
    /// A node takes part in a group again, under a new number.
    Remake,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng) -> Plan {
        let voters = rng.weighted(&[(10, 1), (15, 2), (45, 3), (30, 5)]);
        let fault = |rng: &mut Rng, most: u64| if rng.chance(250) { 0 } else { rng.below(most + 1) };
        let faults = vec![
            (1 + fault(rng, 10), Trouble::Crash),
            (fault(rng, 2), Trouble::CrashAll),
            (fault(rng, 6), Trouble::Pause),
            (fault(rng, 6), Trouble::Split),
            (fault(rng, 6), Trouble::OneWay),
            (fault(rng, 6), Trouble::IsolateLeader),
            (fault(rng, 5), Trouble::Border),
            (fault(rng, 6), Trouble::Heal),
            (fault(rng, 6), Trouble::Transfer),
            (fault(rng, 5), Trouble::DiskStall),
            (fault(rng, 2), Trouble::WriteFails),
            (fault(rng, 2), Trouble::ApplyFails),
            (fault(rng, 12), Trouble::Change),
            (fault(rng, 5), Trouble::StopReplica),
        ];
        let hibernate_after = if rng.chance(400) { rng.range(2, 10) } else { 0 };
        let is_idle = hibernate_after > 0 && rng.chance(250);
        let mut plan = Plan {
            groups: 1,
            lives: 1,
            voters,
            learner: rng.chance(300),
            spares: rng.below(4),
            small: rng.chance(500),
            cache_bytes: rng.pick(&[600, 6000]),
            own_machine: rng.chance(300),
            own_snapshots: false,
            metadata: false,
            tight: false,
            voting: false,
            lease_reads: rng.chance(400),
            election_ticks: rng.range(3, 6),
            request_ticks: rng.range(8, 60),
            check_ticks: 0,
            stall_ticks: 0,
            hibernate_after,
            chaos_ticks: rng.range(80, 220),
            clients: rng.pick(&[2, 3, 5, 12]),
            keys: rng.range(1, 3),
            command_bytes: rng.pick(&[0, 40, 300]),
            think_ticks: if is_idle { rng.range(20, 100) } else { rng.range(1, 4) },
            read_per_mille: rng.pick(&[300, 500, 700]),
            dropped: rng.pick(&[0, 0, 10, 50, 150]),
            duplicated: rng.pick(&[0, 10, 50, 200]),
            delayed: rng.pick(&[0, 5, 20, 60]),
            early: rng.pick(&[0, 20, 300]),
            delay: rng.range(5, 2 * TICK),
            long_delay: rng.range(5, 40) * TICK,
            write_delay: rng.pick(&[5, 30, TICK, 4 * TICK]),
            whole_batches: 700,
            apply_delay: rng.pick(&[5, 30, 2 * TICK]),
            read_delay: rng.pick(&[5, 2 * TICK]),
            crash_in_effects: rng.pick(&[0, 0, 1, 3]),
            outage_ticks: 30,
            fault_every: rng.range(4, 25) * TICK,
            faults,
        };
        // From what was drawn before.
        plan.own_snapshots = !(plan.election_ticks + plan.request_ticks).is_multiple_of(4);
        plan
    }

    /// Nodes; each has a replica with its own number at first.
    pub(super) fn replicas(&self) -> u64 {
        self.founders() + self.spares
    }

    /// Numbers that replicas of a group may have.
    pub(super) fn numbers(&self) -> u64 {
        self.replicas() * self.lives
    }

    /// The node of a replica, from 0.
    pub(super) fn host_of(&self, replica: u64) -> usize {
        ((replica - 1) % self.replicas()) as usize
    }

    /// The membership that a replica is made with: those that join know nothing.
    pub(super) fn founding(&self, replica: u64) -> Membership {
        let membership = self.membership();
        if membership.nodes.contains_key(&ReplicaId::new(replica)) { membership } else { Membership::default() }
    }

    fn founders(&self) -> u64 {
        self.voters + u64::from(self.learner)
    }

    pub(super) fn membership(&self) -> Membership {
        let voters = (1..=self.voters).map(|number| (ReplicaId::new(number), NodeId::new(number)));
        let membership = Membership::of_voters(voters);
        let learner = self.founders();
        match self.learner {
            true => membership.with_learner(ReplicaId::new(learner), NodeId::new(learner)),
            false => membership,
        }
    }

    pub(super) fn config(&self, replica: u64) -> GroupConfig {
        let mut config = GroupConfig::new(ReplicaId::new(replica));
        config.election_ticks = self.election_ticks as usize;
        config.request_ticks = self.request_ticks;
        config.hibernate_after_ticks = self.hibernate_after;
        config.lease_reads = self.lease_reads;
        if self.check_ticks > 0 {
            config.check_ticks = self.check_ticks;
        }
        if self.small {
            config.max_lag_entries = 15;
            config.max_entry_bytes = 1 << 10;
            config.max_message_bytes = 1 << 10;
            config.max_inflight_messages = 4;
            config.max_inflight_bytes = 2 << 10;
            config.max_uncommitted_bytes = 2 << 10;
            config.max_unapplied_bytes = 1 << 10;
            config.max_apply_batch_bytes = 512;
            config.cache_bytes = self.cache_bytes;
            config.max_waiting_requests = 16;
            config.max_transfer_lag = 20;
            config.max_promotion_lag = 10;
            config.compact_entries = 12;
            config.keep_entries = 3;
        } else {
            config.compact_entries = 40;
            config.keep_entries = 10;
            config.max_lag_entries = 60;
        }
        config
    }
}
