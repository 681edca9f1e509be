//! Where the log stands, for people and their tools.

use super::Wal;
use super::errors::WalError;
use super::reservation::FULL;
use super::watchdog::Health;
use crate::lsn::{Lsn, TimelineId};

/// Where a log stands at one moment. Positions are in the order in which they are read: a later one may be further on.
#[derive(Clone, Debug)]
pub struct WalStatus {
    /// The timeline that is written.
    pub timeline: TimelineId,
    /// Where the oldest record that is still there may start.
    pub oldest: Lsn,
    /// Everything before this survives a crash.
    pub durable: Lsn,
    /// Everything before this was appended.
    pub end: Lsn,
    /// How many wait for a sync.
    pub waiting: usize,
    /// How much can be appended before a segment has to be prepared.
    pub prepared_bytes: u64,
    /// The size of a segment.
    pub segment_size_bytes: u64,
    /// What is free on the disk.
    pub free_bytes: u64,
    /// What has to stay free, apart from two segments: with less, writes are refused.
    pub reserve_bytes: u64,
    /// Writes are refused for want of space.
    pub is_full: bool,
    /// Whether anything is wrong.
    pub health: Health,
}

impl Wal {
    /// Whether writes are refused for want of space.
    pub fn is_full(&self) -> bool {
        self.shared.tail.gates() & FULL != 0
    }

    /// Where the log stands. Asks the file system for its free space, so it may block.
    ///
    /// # Errors
    /// The free space cannot be read.
    pub fn status(&self) -> Result<WalStatus, WalError> {
        let shared = &self.shared;
        let (durable, directory) = (self.durable(), &shared.directory);
        Ok(WalStatus {
            timeline: directory.timeline(),
            oldest: shared.retained.oldest().unwrap_or(durable),
            durable,
            end: self.end(),
            waiting: shared.waiters.len(),
            prepared_bytes: shared.tail.prepared_bytes(),
            segment_size_bytes: directory.layout().segment_bytes(),
            free_bytes: directory.free_bytes()?,
            reserve_bytes: shared.config.reserve_bytes,
            is_full: self.is_full(),
            health: self.health(),
        })
    }
}
