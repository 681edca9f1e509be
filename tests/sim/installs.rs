//! Machines that keep their own position install what a snapshot brought: whatever of it a crash leaves. What they
//! install survives at once; that it may be removed from the disk that the log is on does so with what follows.

use super::disk::Op;
use super::replica::{Machine, Replica};
use super::seen::Happening;
use super::world::{Violation, World};
use crate::raftstore::fault::{self, Fault};

/// Out of a thousand installs, before and behind how many the power goes.
const CRASH_IN_INSTALL: u64 = 100;

impl World {
    /// A snapshot was taken over. Says whether the node still lives.
    pub(super) fn install(&mut self, place: usize) -> Result<bool, Violation> {
        if fault::active(Fault::ClearedBeforeInstalled) {
            let (host, machine) = (self.replicas[place].host, self.staged(place));
            self.write(place, Op::Clear);
            self.hosts[host].disk.sync();
            if !self.survives_install(place)? {
                return Ok(false);
            }
            self.replicas[place].flushed = machine;
            return Ok(true);
        }
        if !self.survives_install(place)? {
            return Ok(false);
        }
        self.replicas[place].flushed = self.staged(place);
        self.seen.note(Happening::Installed);
        if !self.survives_install(place)? {
            return Ok(false);
        }
        self.write(place, Op::Clear);
        Ok(true)
    }

    /// Before a replica is opened: what was interrupted is finished. Says whether the node still lives.
    pub(super) fn finish_install(&mut self, place: usize) -> Result<bool, Violation> {
        let Replica { host, ref flushed, .. } = self.replicas[place];
        let applied = flushed.applied;
        let Some(staged) = self.hosts[host].disk.current.of(place).staged else { return Ok(true) };
        if applied > staged {
            self.note(|_| format!("{}: installed {staged} before", place + 1));
            self.seen.note(Happening::ClearedLate);
            self.write(place, Op::Clear);
            return Ok(true);
        }
        self.note(|_| format!("{}: installs {staged}, is at {applied}", place + 1));
        self.seen.note(if applied == staged { Happening::InstalledTwice } else { Happening::InstalledLate });
        self.install(place)
    }

    /// As the disk holds it.
    fn staged(&self, place: usize) -> Machine {
        Machine::of(self.store(place))
    }

    fn survives_install(&mut self, place: usize) -> Result<bool, Violation> {
        if self.healed || !self.rng.chance(CRASH_IN_INSTALL) {
            return Ok(true);
        }
        self.note(|_| format!("{}: the power goes while it installs", place + 1));
        self.seen.note(Happening::CrashedInstalling);
        self.crash(self.replicas[place].host, true)?;
        Ok(false)
    }
}
