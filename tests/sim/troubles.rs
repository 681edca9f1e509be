//! What goes wrong.

use super::scenario::Trouble;
use super::seen::Happening;
use super::world::{Checked, Event, TICK, World};
use crate::ident::ReplicaId;

/// How many times the longest election time-out the replica at the border stays there.
const BORDER_ELECTIONS: u64 = 6;

impl World {
    /// The next thing goes wrong.
    pub(super) fn fault(&mut self) -> Checked {
        let after = 1 + self.rng.below(2 * self.plan.fault_every);
        self.after(after, Event::Fault);
        let trouble = self.rng.weighted(&self.plan.faults.clone());
        let host = self.rng.below(self.hosts.len() as u64) as usize;
        self.note(|_| format!("trouble: {trouble:?} {}", host + 1));
        match trouble {
            Trouble::Crash => {
                self.seen.note(Happening::Crashed);
                return self.crash(host, true);
            }
            Trouble::CrashAll => {
                return (0..self.hosts.len()).try_for_each(|host| self.crash(host, true));
            }
            Trouble::Pause => {
                self.seen.note(Happening::Paused);
                self.hosts[host].paused_until = self.now + self.rng.range(1, 30) * TICK;
            }
            Trouble::Split => self.split(),
            Trouble::OneWay => {
                let to = self.rng.below(self.hosts.len() as u64) as usize;
                self.seen.note(Happening::OneWay);
                self.cut(host, to);
            }
            Trouble::IsolateLeader => self.isolate(),
            Trouble::Border => self.begin_border(),
            Trouble::Heal => self.unblock_all(),
            Trouble::Transfer => return self.transfer(host),
            Trouble::DiskStall => {
                self.seen.note(Happening::DiskStalled);
                self.hosts[host].stalled_until = self.now + self.rng.range(2, 40) * TICK;
            }
            Trouble::WriteFails => self.hosts[host].next_write_fails = true,
            Trouble::ApplyFails => {
                let group = self.draw_group();
                let place = self.place_on(host, group);
                self.replicas[place].next_apply_fails = true;
            }
            Trouble::Check => {
                let group = self.draw_group();
                return self.begin_check(group);
            }
            Trouble::Force => return self.force(host),
            Trouble::Damage => self.damage(host),
            Trouble::Change => return self.change(),
            Trouble::StopReplica => return self.stop_replica(host),
            Trouble::Destroy => return self.destroy_removed(),
            Trouble::Remake => return self.remake(host),
        }
        Ok(())
    }

    fn unblock_all(&mut self) {
        for row in &mut self.blocked {
            row.fill(false);
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.blocked[from][to] = true;
            let after = self.rng.range(2, 60) * TICK;
            self.after(after, Event::Unblock { from, to });
        }
    }

    /// Cuts between those for whom `left` says the same and all others.
    fn cut_between(&mut self, left: impl Fn(usize) -> bool) {
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                if left(from) != left(to) {
                    self.cut(from, to);
                }
            }
        }
    }

    fn split(&mut self) {
        self.seen.note(Happening::Split);
        let sides = self.rng.next();
        self.cut_between(|host| sides >> host & 1 == 1);
    }

    fn isolate(&mut self) {
        let group = self.draw_group();
        let Some(leader) = self.leader_of(group).map(|place| self.replicas[place].host) else { return };
        let (out, into) = self.rng.pick(&[(true, true), (true, false), (false, true)]);
        for other in 0..self.hosts.len() {
            if out {
                self.cut(leader, other);
            }
            if into {
                self.cut(other, leader);
            }
        }
    }

    fn transfer(&mut self, to: usize) -> Checked {
        let group = self.draw_group();
        let Some(leader) = self.leader_of(group) else { return Ok(()) };
        if self.hosts[self.replicas[leader].host].paused_until > self.now {
            return Ok(());
        }
        self.rouse(leader, Happening::WokenByRequest);
        let to = ReplicaId::new(self.replicas[self.place_on(to, group)].id);
        if self.replicas[leader].group.as_mut().is_some_and(|group| group.transfer_leader(to).is_err()) {
            self.seen.note(Happening::TransferRefused);
        }
        self.drive(leader)
    }

    /// From now on the newest leader loses all others at once, but one node whose disk hangs. So the others elect the
    /// next, and that replica's log is replaced again and again while it is being written.
    fn begin_border(&mut self) {
        let stalled = self.rng.below(self.hosts.len() as u64) as usize;
        self.seen.note(Happening::Border);
        let until = self.now + BORDER_ELECTIONS * 2 * self.plan.election_ticks * TICK;
        self.border = Some((stalled, until));
        self.hosts[stalled].stalled_until = until;
        let group = self.draw_group();
        if let Some(leader) = self.leader_of(group) {
            self.at_border(self.replicas[leader].host);
        }
    }

    /// Somebody leads now.
    pub(super) fn at_border(&mut self, leader: usize) {
        let Some((stalled, _)) = self.border.filter(|(stalled, until)| *until > self.now && *stalled != leader) else {
            return;
        };
        if !self.healed {
            self.unblock_all();
            self.cut_between(|host| host == stalled || host == leader);
        }
    }
}
