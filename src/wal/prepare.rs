//! Preparing segments ahead of the writer, and watching the free space: disk full is met here, never half way through
//! a record.
//!
//! A segment is prepared for what came lately: for small records, which go through the map, or for large ones, which go by
//! system calls (see [`Folios`]). It is filled little by little as the log grows, because a commit's sync waits for whatever
//! the device is writing.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::errors::WalError;
use super::log::Shared;
use super::reservation::FULL;
use super::tail::WritableSegment;
use crate::disk::Folios;
use crate::lsn::Lsn;

/// How often free space is looked at while nothing else happens.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How much of a segment is filled and synced at once. A commit's sync that comes meanwhile waits for the device until
/// this is written, so it is little while there is time, and more when the log grows fast or somebody waits.
const FILL_STEP_BYTES: u64 = 64 << 10;
const MAX_FILL_STEP_BYTES: u64 = 4 << 20;

/// How many bytes are filled while one is appended: a segment is ready when half of the one before it is used.
const FILLED_PER_APPENDED: u64 = 2;

/// How long the next step waits for the log to grow: beside a log that does not, nobody is kept waiting.
const STEP_INTERVAL: Duration = Duration::from_millis(1);

/// How often it is looked at meanwhile.
const STEP_LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// The preparing thread, until the log closes or has failed.
pub(super) fn run(shared: &Shared) {
    // Whether the file system had no space for the last preparation, whatever it says of its free space.
    let mut was_refused = false;
    while !shared.tail.is_closed() {
        match step(shared, was_refused) {
            Ok(()) => was_refused = false,
            Err(WalError::Closed) => return,
            Err(error) if is_full(&error) => {
                note_space(shared, 0);
                was_refused = true;
                let mut supply = shared.tail.supply();
                if !shared.tail.is_closed() {
                    shared.tail.wait_for_work(&mut supply, SPACE_CHECK_INTERVAL);
                }
            }
            Err(error) => {
                shared.fail(error);
                return;
            }
        }
    }
}

/// Notes how much space there is beside the segment that is to be prepared now, if one is.
pub(super) fn look_at_space(shared: &Shared) -> Result<(), WalError> {
    note_affordable(shared, affordable_segments(shared)?);
    Ok(())
}

fn note_affordable(shared: &Shared, affordable: u64) {
    let is_pending = shared.tail.supply().to_prepare().is_some();
    note_space(shared, affordable.saturating_sub(u64::from(is_pending)));
}

/// Looks at the free space, then prepares one segment if one is wanted, else waits for something to change.
fn step(shared: &Shared, was_refused: bool) -> Result<(), WalError> {
    // First, though there may be much to prepare: each holds a map and an open file.
    release_retired(shared);
    let affordable = affordable_segments(shared)?;
    if !was_refused {
        note_affordable(shared, affordable);
    }
    let wanted = if affordable == 0 { None } else { shared.tail.supply().to_prepare() };
    let Some(number) = wanted else {
        let mut supply = shared.tail.supply();
        if !shared.tail.is_closed() && (affordable == 0 || supply.to_prepare().is_none()) {
            shared.tail.wait_for_work(&mut supply, SPACE_CHECK_INTERVAL);
        }
        drop(supply);
        release_retired(shared);
        return Ok(());
    };
    let (folios, began_at) = (shared.tail.judge(), shared.tail.end());
    let file = shared.directory.prepare(number, folios, &|filled| next_step(shared, began_at, filled))?;
    let map = match folios {
        Folios::Small => {
            let map = file.map(shared.directory.layout().segment_bytes());
            Some(map.map_err(WalError::io("map", &shared.directory.segment_path(number)))?)
        }
        Folios::Large => None,
    };
    shared.retained.add(number);
    shared.tail.add_prepared(WritableSegment { number, file, map });
    look_at_space(shared)?;
    shared.notify_room();
    Ok(())
}

/// Unmaps and closes what is written to no more, without keeping anybody from the supply meanwhile.
fn release_retired(shared: &Shared) {
    let retired = shared.tail.supply().take_retired();
    drop(retired);
}

/// How much to fill next of a segment whose preparation began when the log ended at `began_at`, when it is time to.
fn next_step(shared: &Shared, began_at: Lsn, filled: u64) -> Option<u64> {
    let Shared { tail, directory, .. } = shared;
    let asked = Instant::now();
    while !tail.is_closed() {
        let is_urgent = tail.prepared_bytes() < directory.layout().segment_bytes() / 4 || tail.supply().is_needed();
        if is_urgent {
            return Some(MAX_FILL_STEP_BYTES);
        }
        match step_due(tail.end().bytes_since(began_at), filled) {
            None if asked.elapsed() < STEP_INTERVAL => thread::sleep(STEP_LOOK_INTERVAL),
            due => return Some(due.unwrap_or(FILL_STEP_BYTES)),
        }
    }
    None
}

/// How much to fill next when so much was appended since the filling began, and so much is filled; `None`: it is ahead.
fn step_due(appended: u64, filled: u64) -> Option<u64> {
    let behind = appended.saturating_mul(FILLED_PER_APPENDED).checked_sub(filled)?;
    Some(behind.clamp(FILL_STEP_BYTES, MAX_FILL_STEP_BYTES))
}

/// How many segments can be made while the reserve, and one segment on top of it, stay free.
fn affordable_segments(shared: &Shared) -> Result<u64, WalError> {
    let free_bytes = shared.directory.free_bytes()?;
    let segment_bytes = shared.directory.layout().segment_bytes();
    // Spare ones take no space when they are used. They count as free, not on top: the reserve holds for them, too.
    let spare_bytes = (shared.directory.spare_count()? as u64).saturating_mul(segment_bytes);
    let usable_bytes = free_bytes.saturating_add(spare_bytes).saturating_sub(shared.config.reserve_bytes);
    Ok((usable_bytes / segment_bytes).saturating_sub(1))
}

fn is_full(error: &WalError) -> bool {
    matches!(error, WalError::Io { source, .. }
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn note_space(shared: &Shared, affordable: u64) {
    let before = std::mem::replace(&mut shared.tail.supply().affordable, affordable);
    if (before == 0) != (affordable == 0) {
        if affordable == 0 {
            shared.tail.close_gates(FULL);
            tracing::warn!("the disk is full: writes are refused until there is room");
        } else {
            shared.tail.open_gates(FULL);
            tracing::info!("there is room on the disk again: writes resume");
        }
        shared.notify_room();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_keeps_just_ahead_of_what_is_appended() {
        assert_eq!(step_due(0, 0), Some(FILL_STEP_BYTES), "the first step waits for nothing");
        assert_eq!(step_due(4096, FILL_STEP_BYTES), None);
        assert_eq!(step_due(FILL_STEP_BYTES / 2, FILL_STEP_BYTES), Some(FILL_STEP_BYTES));
        assert_eq!(step_due(1 << 20, FILL_STEP_BYTES), Some((2 << 20) - FILL_STEP_BYTES), "a fast log, larger steps");
        assert_eq!(step_due(1 << 40, 0), Some(MAX_FILL_STEP_BYTES));
    }
}
