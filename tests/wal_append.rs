//! What an append costs, beside time.

#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::path::Path;
use std::sync::Arc;

use mainstay::config::WalConfig;
use mainstay::disk::RealDisk;
use mainstay::ident::SystemId;
use mainstay::lsn::TimelineId;
use mainstay::wal::{AppendError, Evidence, Layout, SegmentDirectory, Wal, scan};

/// A log in a directory, with a segment prepared.
fn open(place: &Path) -> Wal {
    let config = WalConfig { segment_size_bytes: 4 << 20, reserve_bytes: 0, ..WalConfig::default() };
    let layout = Layout::new(config.segment_size_bytes);
    let path = place.join("wal");
    let segments = SegmentDirectory::new(Arc::new(RealDisk), path, layout, SystemId::new(1), TimelineId::FIRST);
    let wal = Wal::open(scan(segments, Evidence::default()).unwrap(), config).unwrap();
    append_first(&wal);
    wal
}

/// The first record waits for a segment to be prepared, and a thread's first one gets it a number.
fn append_first(wal: &Wal) {
    while let Err(AppendError::Busy { len_bytes }) = wal.append(&[7; 128]) {
        wal.room_blocking(len_bytes).unwrap();
    }
}

#[test]
fn an_append_allocates_nothing() {
    let place = tempfile::tempdir().unwrap();
    let wal = open(place.path());
    let payload = [7; 128];
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

/// The kernel ends a thread in strict mode at its first system call other than reading, writing and exiting.
#[cfg(target_os = "linux")]
mod strict {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use rustix::thread::{SecureComputingMode, gettid, set_secure_computing_mode};

    use super::{append_first, open};

    /// Runs `work` in a thread in strict mode, and answers how often it said that it came further before the kernel ended
    /// it.
    fn steps(prepare: impl FnOnce() + Send + 'static, work: impl FnOnce(&AtomicU32) + Send + 'static) -> u32 {
        let (steps, thread) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (its_steps, its_thread) = (Arc::clone(&steps), Arc::clone(&thread));
        std::thread::spawn(move || {
            prepare();
            its_thread.store(gettid().as_raw_nonzero().get().cast_unsigned(), Ordering::SeqCst);
            set_secure_computing_mode(SecureComputingMode::Strict).unwrap();
            work(&its_steps);
            // Here at the latest it ends.
            std::thread::park();
        });
        let begun = Instant::now();
        loop {
            let id = thread.load(Ordering::SeqCst);
            if id != 0 && !Path::new(&format!("/proc/self/task/{id}")).exists() {
                return steps.load(Ordering::SeqCst);
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "the thread goes on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_append_makes_no_system_call() {
        const COUNT: u32 = 1000;
        let place = tempfile::tempdir().unwrap();
        let wal = Arc::new(open(place.path()));
        let (first, its_wal) = (Arc::clone(&wal), Arc::clone(&wal));
        let appended = steps(
            move || append_first(&first),
            move |steps| {
                for _ in 0..COUNT {
                    if its_wal.append(&[7; 128]).is_ok() {
                        steps.fetch_add(1, Ordering::SeqCst);
                    }
                }
            },
        );
        assert_eq!(appended, COUNT);
        wal.sync().unwrap();
    }

    #[test]
    fn a_thread_that_makes_one_is_ended() {
        let work = |steps: &AtomicU32| {
            steps.fetch_add(1, Ordering::SeqCst);
            let _ = std::fs::metadata("/");
            steps.fetch_add(1, Ordering::SeqCst);
        };
        assert_eq!(steps(|| (), work), 1);
    }
}
