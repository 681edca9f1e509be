//! Preparing segments ahead of the writer, and watching the free space: disk full is met here, never half way through
//! a record.

use std::time::Duration;

use super::directory::{self, Pace};
use super::errors::WalError;
use super::layout::SegmentNumber;
use super::log::Shared;
use super::reservation::FULL;
use super::tail::WritableSegment;

/// How often free space is looked at while nothing else happens. More often in the tests, which wait for it.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// The preparing thread, until the log closes or has failed.
pub(super) fn run(shared: &Shared) {
    // Whether the file system had no space for the last preparation, whatever it says of its free space.
    let mut was_refused = false;
    // Whether there were no descriptors or no memory for it.
    let mut was_scarce = false;
    while !shared.tail.is_closed() {
        match step(shared, was_refused) {
            Ok(()) => (was_refused, was_scarce) = (false, false),
            Err(WalError::Closed) => return,
            Err(error) if is_full(&error) => {
                note_space(shared, 0);
                was_refused = true;
                wait(shared);
            }
            Err(error) if error.is_passing() => {
                if !was_scarce {
                    tracing::warn!("no segment can be prepared now, this is tried again: {error}");
                }
                was_scarce = true;
                wait(shared);
            }
            Err(error) => {
                shared.fail(error);
                return;
            }
        }
    }
}

/// Waits until it is time to try again what was not possible.
fn wait(shared: &Shared) {
    let mut supply = shared.tail.supply();
    if !shared.tail.is_closed() {
        shared.tail.wait_for_work(&mut supply, SPACE_CHECK_INTERVAL);
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
        return Ok(());
    };
    let segment = shared.watchdog.preparation.watch(|| prepare(shared, number))?;
    shared.retained.add(number);
    shared.tail.add_prepared(segment);
    shared.watchdog.add_segment();
    let looked = look_at_space(shared);
    // Also if that was not possible: the segment is there.
    shared.notify_room();
    looked
}

fn prepare(shared: &Shared, number: SegmentNumber) -> Result<WritableSegment, WalError> {
    // Asked before each step.
    let pace = || {
        shared.watchdog.preparation.restart();
        pace(shared)
    };
    let file = shared.directory.prepare(number, &pace)?;
    Ok(WritableSegment { number, file })
}

fn pace(shared: &Shared) -> Pace {
    if shared.tail.is_closed() {
        Pace::Cancelled
    } else if shared.tail.prepared_bytes() < shared.directory.layout().segment_bytes() / 2 {
        Pace::Urgent
    } else {
        Pace::Easy
    }
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
    matches!(error, WalError::Io { source, .. } if directory::is_full(source))
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
