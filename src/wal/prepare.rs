//! Preparing segments ahead of the writer, and watching the free space: disk full is met here, never half way through
//! a record.

use std::io;
use std::time::Duration;

use super::errors::WalError;
use super::layout::SegmentNumber;
use super::log::Shared;
use super::tail::WritableSegment;

/// How often free space is looked at while nothing else happens.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The preparing thread, until the log closes or has failed.
pub(super) fn run(shared: &Shared) {
    loop {
        if shared.failure().is_some() || shared.tail.lock().closed {
            return;
        }
        if let Err(error) = step(shared) {
            shared.fail(error);
            return;
        }
    }
}

/// Looks at the free space, then prepares one segment if one is wanted, else waits for something to change.
fn step(shared: &Shared) -> Result<(), WalError> {
    let affordable = affordable_segments(shared, shared.directory.free_bytes()?);
    note_space(shared, affordable);
    let wanted = if affordable == 0 { None } else { shared.tail.lock().to_prepare() };
    match wanted {
        Some(number) => prepare(shared, number),
        None => {
            let mut tail = shared.tail.lock();
            if !tail.closed && (affordable == 0 || tail.to_prepare().is_none()) {
                shared.tail_changed.wait_for(&mut tail, SPACE_CHECK_INTERVAL);
            }
            Ok(())
        }
    }
}

/// How many segments can be made while the reserve, and one segment on top of it, stay free.
fn affordable_segments(shared: &Shared, free_bytes: u64) -> u64 {
    let segment_bytes = shared.directory.layout().segment_bytes();
    (free_bytes.saturating_sub(shared.options.reserve_bytes) / segment_bytes).saturating_sub(1)
}

fn prepare(shared: &Shared, number: SegmentNumber) -> Result<(), WalError> {
    match shared.directory.prepare(number) {
        Ok(file) => {
            let map = file.map(shared.directory.layout().segment_bytes());
            let map = map.map_err(WalError::io("map", &shared.directory.segment_path(number)))?;
            shared.retained.lock().add(number);
            shared.tail.lock().add_prepared(WritableSegment { number, file, map });
            shared.notify_room();
            Ok(())
        }
        Err(error) if is_full(&error) => {
            note_space(shared, 0);
            // Without this a file system that says it has space and then has none would keep us busy.
            let mut tail = shared.tail.lock();
            if !tail.closed {
                shared.tail_changed.wait_for(&mut tail, SPACE_CHECK_INTERVAL);
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn is_full(error: &WalError) -> bool {
    matches!(error, WalError::Io { source, .. }
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn note_space(shared: &Shared, affordable: u64) {
    let full = affordable == 0;
    let changed = {
        let mut tail = shared.tail.lock();
        tail.affordable = affordable;
        std::mem::replace(&mut tail.disk_full, full) != full
    };
    if changed {
        if full {
            tracing::warn!("the disk is full: writes are refused until there is room");
        } else {
            tracing::info!("there is room on the disk again: writes resume");
        }
        shared.notify_room();
    }
}
