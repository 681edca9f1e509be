//! What an append costs, beside time.

#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::sync::Arc;

use mainstay::config::WalConfig;
use mainstay::disk::RealDisk;
use mainstay::ident::SystemId;
use mainstay::lsn::TimelineId;
use mainstay::wal::{AppendError, Evidence, Layout, SegmentDirectory, Wal, scan};

#[test]
fn an_append_allocates_nothing() {
    let place = tempfile::tempdir().unwrap();
    let config = WalConfig { segment_size_bytes: 4 << 20, reserve_bytes: 0, ..WalConfig::default() };
    let layout = Layout::new(config.segment_size_bytes);
    let path = place.path().join("wal");
    let segments = SegmentDirectory::new(Arc::new(RealDisk), path, layout, SystemId::new(1), TimelineId::FIRST);
    let wal = Wal::open(scan(segments, Evidence::default()).unwrap(), config).unwrap();
    let payload = [7; 128];
    // The first one waits for a segment to be prepared, and gets its thread a number.
    while let Err(AppendError::Busy { len_bytes }) = wal.append(&payload) {
        wal.room_blocking(len_bytes).unwrap();
    }
    let batch: [&[u8]; 8] = [&payload; 8];
    let counted = allocation_counter::measure(|| {
        for _ in 0..1000 {
            wal.append(&payload).unwrap();
        }
        for _ in 0..100 {
            wal.append_many(&batch).unwrap();
        }
    });
    assert_eq!(counted.count_total, 0, "allocations");
    // The counter counts.
    assert!(allocation_counter::measure(|| drop(vec![0; 64])).count_total > 0);
    wal.sync().unwrap();
}
