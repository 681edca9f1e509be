//! The watchdog: a write that does not come back is told to all replicas of the node, and when it has come back.

use super::seen::Happening;
use super::world::{Checked, TICK, World};

/// What a node's watchdog has told.
#[derive(Default)]
pub(super) struct DiskWatch {
    /// When the write that is under way began.
    pub(super) writing_since: u64,
    pub(super) is_stalled: bool,
    /// Ticks since it said so.
    pub(super) ticks: u64,
}

impl World {
    /// Somebody looks, with each tick of the node.
    pub(super) fn watch_disk(&mut self, host: usize) -> Checked {
        if self.plan.stall_ticks == 0 {
            return Ok(());
        }
        let it = &mut self.hosts[host];
        let limit = self.plan.stall_ticks * TICK;
        let is_stalled = it.is_writing() && it.disk_watch.writing_since + limit < self.now;
        it.disk_watch.ticks += 1;
        if is_stalled == it.disk_watch.is_stalled {
            return Ok(());
        }
        (it.disk_watch.is_stalled, it.disk_watch.ticks) = (is_stalled, 0);
        let life = it.life;
        self.note(|_| format!("node {}: its disk hangs: {is_stalled}", host + 1));
        for place in self.places_on(host) {
            if !self.is_up(host, life) {
                return Ok(());
            }
            if self.replicas[place].leads() {
                // Time has to pass for those that give leadership away.
                self.rouse(place, Happening::WokenByRequest);
                if is_stalled {
                    self.seen.note(Happening::LeaderStalled);
                }
            }
            if let Some(group) = &mut self.replicas[place].group {
                group.stall(is_stalled);
            }
            self.drive(place)?;
        }
        Ok(())
    }
}
