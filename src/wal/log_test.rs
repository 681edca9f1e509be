//! The open log: order, limits, waiting, following, closing.

use std::path::Path;
use std::time::Duration;

use super::testing::*;
use super::*;
use crate::disk::lossy::{Faults, Loss, LossyDisk};
use crate::disk::{Disk, RealDisk};
use crate::lsn::Lsn;

const PATIENCE: Duration = Duration::from_secs(20);

fn fresh() -> (LossyDisk, Wal) {
    let disk = LossyDisk::new(Faults::default());
    let wal = open(&disk, Evidence::default()).unwrap();
    (disk, wal)
}

/// One whose device counts as hanging at once.
fn watched() -> (LossyDisk, Wal) {
    let disk = LossyDisk::new(Faults::default());
    let sync_limit = Duration::from_millis(20);
    let wal = open_with(&disk, Evidence::default(), crate::config::WalConfig { sync_limit, ..config() }).unwrap();
    (disk, wal)
}

/// Waits until the segment is there that is prepared ahead.
fn wait_prepared(wal: &Wal) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while wal.shared.tail.supply().to_prepare().is_some() {
        assert!(std::time::Instant::now() < deadline, "no segment is prepared ahead");
        std::thread::yield_now();
    }
}

#[test]
fn many_threads_commit_and_every_record_is_there_in_order() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(&RealDisk, place.path().join("wal"));
    let wal = Wal::open(scan(directory.clone(), Evidence::default()).unwrap(), config()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let wal = &wal;
            scope.spawn(move || {
                for number in 0..50u64 {
                    let end = append(wal, &payload(thread * 1000 + number, (number * 13 % 400) as usize)).unwrap();
                    wal.make_durable(end).unwrap();
                    assert!(wal.durable() >= end);
                }
            });
        }
    });
    let records = read_all(&wal, layout().first_record()).unwrap();
    assert_eq!(records.len(), 400);
    assert!(records.windows(2).all(|pair| pair[0].end <= pair[1].start));
    drop(wal);
    // As after a kill: the same records again.
    let wal = Wal::open(scan(directory, Evidence::default()).unwrap(), config()).unwrap();
    assert_eq!(read_all(&wal, layout().first_record()).unwrap(), records);
}

#[tokio::test]
async fn tasks_wait_for_durability_and_a_reader_follows() {
    let (_disk, wal) = fresh();
    let mut reader = wal.reader(layout().first_record());
    assert_eq!(reader.next_durable().unwrap(), None);
    for number in 0..20 {
        let bytes = payload(number, 300);
        wal.room(bytes.len()).await.unwrap();
        let end = wal.append(&bytes).unwrap();
        assert_eq!(reader.next_durable().unwrap(), None, "a reader never passes the durable LSN");
        tokio::time::timeout(PATIENCE, wal.wait_durable(end)).await.unwrap().unwrap();
        reader.wait().await.unwrap();
        assert_eq!(reader.next_durable().unwrap().unwrap().payload, bytes);
    }
}

#[tokio::test]
async fn a_cancelled_wait_leaves_the_record_in_the_log() {
    let (_disk, wal) = fresh();
    wal.room(10).await.unwrap();
    let first = wal.append(b"first").unwrap();
    let cancelled = tokio::time::timeout(Duration::ZERO, wal.wait_durable(first)).await;
    drop(cancelled);
    wal.room(10).await.unwrap();
    let second = wal.append(b"second").unwrap();
    wal.wait_durable(second).await.unwrap();
    let records = read_all(&wal, layout().first_record()).unwrap();
    assert_eq!(records.iter().map(|record| record.payload.as_slice()).collect::<Vec<_>>(), [&b"first"[..], b"second"]);
}

#[test]
fn bounds_are_kept() {
    let (_disk, wal) = fresh();
    let limit = config().max_record_bytes as usize;
    assert!(matches!(wal.append(&vec![1; limit + 1]), Err(AppendError::TooLarge { .. })));
    // Larger than everything that may wait for a sync, and than many segments: admitted alone.
    let big = vec![1; config().max_unsynced_bytes as usize * 2];
    append(&wal, &big).unwrap();
    assert!(matches!(wal.append(b"x"), Err(AppendError::Busy { .. })));
    wal.room_blocking(1).unwrap();
    let end = wal.append(b"x").unwrap();
    wal.make_durable(end).unwrap();
    assert_eq!(read_all(&wal, layout().first_record()).unwrap()[0].payload, big);
    assert!(matches!(wal.make_durable(end.advanced(4096)), Err(CommitError::BeyondEnd { .. })));
}

#[test]
fn a_full_disk_refuses_and_resumes_by_itself() {
    let disk = LossyDisk::new(Faults { capacity_bytes: Some(12 * SEGMENT_BYTES), ..Faults::default() });
    let wal = open(&disk, Evidence::default()).unwrap();
    let bytes = payload(1, 1000);
    let mut written = 0;
    while let Ok(end) = append(&wal, &bytes) {
        wal.make_durable(end).unwrap();
        written += 1;
    }
    assert!(written > 5, "{written}");
    assert!(matches!(wal.append(b"x"), Err(AppendError::DiskFull)));
    drop(wal);
    let wal = open(&disk, Evidence::default()).unwrap();
    assert!(matches!(wal.append(b"x"), Err(AppendError::DiskFull)), "a log that opens on a full disk knows it at once");
    disk.set_capacity(None);
    let deadline = std::time::Instant::now() + PATIENCE;
    while matches!(append(&wal, &bytes), Err(AppendError::DiskFull)) {
        assert!(std::time::Instant::now() < deadline, "writes do not resume");
        std::thread::yield_now();
    }
    let end = wal.end();
    wal.make_durable(end).unwrap();
    let after = disk.crash(Loss::Everything, Faults::default());
    let wal = open(&after, Evidence::default()).unwrap();
    assert_eq!(read_all(&wal, layout().first_record()).unwrap().len(), written + 1);
}

#[test]
fn a_record_too_large_for_the_disk_is_refused_and_takes_no_space_from_others() {
    let disk = LossyDisk::new(Faults { capacity_bytes: Some(12 * SEGMENT_BYTES), ..Faults::default() });
    let wal = open(&disk, Evidence::default()).unwrap();
    let small = append(&wal, b"small").unwrap();
    assert!(matches!(append(&wal, &vec![1; 20 * SEGMENT_BYTES as usize]), Err(AppendError::DiskFull)));
    let end = append(&wal, b"small").unwrap();
    assert!(end > small);
    wal.make_durable(end).unwrap();
}

#[test]
fn spare_segments_do_not_eat_the_reserve() {
    let (disk, wal) = fresh();
    let mut end = Lsn::NONE;
    for number in 0..10 {
        end = append(&wal, &payload(number, 1000)).unwrap();
    }
    wal.make_durable(end).unwrap();
    wal.close().unwrap();
    let ours = directory(&disk, "/wal");
    let mut spares = 0;
    for number in [SegmentNumber(1), SegmentNumber(2)] {
        ours.recycle(number, &mut spares).unwrap();
    }
    assert_eq!(ours.spare_count().unwrap(), 2);
    let open = |reserve_bytes| {
        let evidence = Evidence { verify_from: end, ..Evidence::default() };
        Wal::open(scan(ours.clone(), evidence).unwrap(), crate::config::WalConfig { reserve_bytes, ..config() })
            .unwrap()
    };
    // Nothing is free but the two, and they are the reserve.
    disk.set_capacity(Some(0));
    let wal = open(2 * SEGMENT_BYTES);
    assert!(matches!(wal.append(b"x"), Err(AppendError::DiskFull)));
    assert_eq!(ours.spare_count().unwrap(), 2, "the reserve is used");
}

#[test]
fn what_would_need_too_many_open_segments_is_refused() {
    let (_disk, wal) = fresh();
    let limit = 256 * SEGMENT_BYTES;
    assert!(limit < config().max_record_bytes);
    let is_refused = |result: Result<(), AppendError>, len: u64| match result {
        Err(AppendError::TooLarge { len_bytes, limit_bytes }) => (len_bytes as u64, limit_bytes) == (len, limit),
        _ => false,
    };
    let bytes = vec![1; limit as usize + 1];
    assert!(is_refused(wal.append(&bytes).map(drop), limit + 1));
    assert!(is_refused(wal.room_blocking(bytes.len()), limit + 1));
    assert!(is_refused(wal.append_many(&[&bytes[..1], &bytes[1..], b"x"]).map(drop), limit + 2));
    let end = append(&wal, &bytes[1..]).unwrap();
    wal.make_durable(end).unwrap();
}

#[test]
fn after_a_write_that_failed_half_way_it_is_not_known_what_survives() {
    let (first, second) = (payload(1, 700), payload(2, 1000));
    // Which operation the write is depends on what the preparing thread does beside it.
    for attempt in 0.. {
        assert!(attempt < 5000, "the write is never the operation that fails");
        let disk = LossyDisk::new(Faults { fail_at: Some(1 + attempt % 50), ..Faults::default() });
        let Ok(wal) = open(&disk, Evidence::default()) else { continue };
        let appended = loop {
            match wal.append_many(&[&first, &second]) {
                Err(AppendError::Busy { len_bytes }) => {
                    if wal.room_blocking(len_bytes).is_err() {
                        break Err(AppendError::Fenced);
                    }
                }
                other => break other,
            }
        };
        if !matches!(appended, Err(AppendError::Unknown(_))) {
            continue;
        }
        assert!(matches!(wal.append(b"x"), Err(AppendError::Poisoned(_))), "nothing was reserved for this one");
        assert!(matches!(wal.make_durable(wal.end()), Err(CommitError::Poisoned(_))));
        drop(wal);
        let wal = open(&disk.kill(Faults::default()), Evidence::default()).unwrap();
        let records = read_all(&wal, layout().first_record()).unwrap();
        // Else it was the first one's write that failed.
        if !records.is_empty() {
            assert!(records.len() == 1 && records[0].payload == first, "{records:?}");
            return;
        }
    }
}

#[test]
pub fn a_flush_that_waits_for_a_copy_that_hangs_is_noticed() {
    let (_disk, wal) = watched();
    append(&wal, b"x").unwrap();
    let hanging = wal.shared.tail.reserve(0, |at| Ok(at.advanced(64))).ok().unwrap();
    let fault = fault::current();
    std::thread::scope(|scope| {
        let committer = scope.spawn(|| {
            fault::set(fault);
            wal.make_durable(wal.end())
        });
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut is_noticed = false;
        while !is_noticed && !committer.is_finished() && std::time::Instant::now() < deadline {
            is_noticed = matches!(wal.health(), Health::Hangs { .. });
            std::thread::yield_now();
        }
        let is_waiting = !committer.is_finished();
        hanging.finish();
        committer.join().unwrap().unwrap();
        assert!(is_waiting, "it did not wait");
        assert!(is_noticed);
    });
    assert!(matches!(wal.health(), Health::Good));
}

/// Neither for who asks, nor for who waits, nor for who reads.
#[test]
pub fn nothing_is_durable_before_its_sync_is_over() {
    let (disk, wal) = fresh();
    let first = append(&wal, b"durable").unwrap();
    wal.make_durable(first).unwrap();
    wait_prepared(&wal);
    let mut reader = wal.reader(first);
    let end = append(&wal, b"waits for its sync").unwrap();
    let fault = fault::current();
    std::thread::scope(|scope| {
        let commit = || {
            fault::set(fault);
            wal.make_durable(end)
        };
        let hanging = disk.hang_next_sync();
        let committers = [scope.spawn(commit), scope.spawn(commit)];
        poll("nobody syncs", || hanging.is_reached());
        assert!(wal.durable() < end, "called durable before it is synced");
        assert_eq!(reader.next_durable().unwrap(), None, "shown before it is synced");
        let crashed = open(&disk.crash(Loss::Everything, Faults::default()), Evidence::default()).unwrap();
        assert_eq!(read_all(&crashed, layout().first_record()).unwrap().len(), 1, "the sync made no difference");
        assert!(!committers.iter().any(|committer| committer.is_finished()), "acknowledged before it is synced");
        drop(hanging);
        committers.into_iter().for_each(|committer| committer.join().unwrap().unwrap());
    });
    assert!(wal.durable() >= end);
    assert_eq!(reader.next_durable().unwrap().unwrap().end, end);
}

#[test]
fn recycled_log_is_named_to_readers() {
    let (disk, wal) = fresh();
    let mut end = Lsn::NONE;
    for number in 0..10 {
        end = append(&wal, &payload(number, 1000)).unwrap();
    }
    wal.make_durable(end).unwrap();
    let removed = wal.recycle(end).unwrap();
    assert!(removed >= 3, "{removed}");
    let error = wal.reader(layout().first_record()).next_durable().unwrap_err();
    assert!(matches!(error, WalError::Recycled { .. }), "{error}");
    assert!(read_all(&wal, end).unwrap().is_empty());
    drop(wal);
    let evidence = Evidence { verify_from: end, reached: end, clean_end: None };
    let found = scan(directory(&disk, Path::new("/wal")), evidence).unwrap();
    assert!(!found.reaches_start() && found.end() >= end);
}

#[test]
fn a_clean_end_is_found_again() {
    let (disk, wal) = fresh();
    let end = append(&wal, b"last words").unwrap();
    let clean_end = wal.close().unwrap();
    assert!(clean_end > end);
    let evidence = Evidence { verify_from: end, reached: clean_end, clean_end: Some(clean_end) };
    let wal = open(&disk.crash(Loss::Everything, Faults::default()), evidence).unwrap();
    assert_eq!(wal.end(), clean_end);
    assert_eq!(read_all(&wal, layout().first_record()).unwrap().len(), 1);
}

#[test]
fn foreign_and_misplaced_segments_are_refused() {
    let (disk, wal) = fresh();
    let end = append(&wal, &payload(0, 5000)).unwrap();
    wal.make_durable(end).unwrap();
    drop(wal);
    let ours = directory(&disk, "/wal");
    let foreign = SegmentDirectory::new(
        std::sync::Arc::new(disk.clone()),
        "/wal".into(),
        layout(),
        crate::ident::SystemId::new(8),
        crate::lsn::TimelineId::FIRST,
    );
    assert!(matches!(scan(foreign, Evidence::default()), Err(WalError::Foreign { .. })));
    disk.rename(&ours.segment_path(SegmentNumber(3)), &ours.segment_path(SegmentNumber(2))).unwrap();
    disk.remove(&ours.segment_path(SegmentNumber(4))).ok();
    assert!(matches!(scan(ours, Evidence::default()), Err(WalError::Damaged(_))));
}

#[test]
fn a_scan_shows_its_records_and_says_how_much_opening_will_cut() {
    let place = tempfile::tempdir().unwrap();
    let directory = directory(&RealDisk, place.path().join("wal"));
    let torn = |directory: &SegmentDirectory| {
        let mut payloads = Vec::new();
        let mut visit =
            |record: &AnyRecord| payloads.extend((record.kind == Kind::Data).then(|| record.payload.clone()));
        let scan = scan_with(directory.clone(), Evidence::default(), &mut visit).unwrap();
        let torn_bytes = scan.torn_bytes().unwrap();
        (scan, torn_bytes, payloads)
    };
    let wal = Wal::open(scan(directory.clone(), Evidence::default()).unwrap(), config()).unwrap();
    wal.make_durable(append(&wal, b"kept").unwrap()).unwrap();
    // Closing cancels a preparation under way.
    let deadline = std::time::Instant::now() + PATIENCE;
    while directory.list().unwrap().len() < 2 {
        assert!(std::time::Instant::now() < deadline, "no segment is prepared ahead");
        std::thread::yield_now();
    }
    drop(wal);
    let (found, torn_bytes, payloads) = torn(&directory);
    assert_eq!((torn_bytes, payloads), (0, vec![b"kept".to_vec()]), "a prepared segment is no torn tail");
    let end = found.end();
    assert_eq!(found.segments().len(), 2, "one is prepared");

    let write = |number, offset, bytes: &[u8]| {
        let file = directory.open(number, crate::disk::Access::Write).unwrap().unwrap();
        file.write_at(bytes, offset).unwrap();
    };
    write(SegmentNumber(1), layout().offset_of(end) + 95, b"torn\0\0");
    assert_eq!(torn(&directory).1, 99);
    write(SegmentNumber(2), 100, b"x");
    assert_eq!(torn(&directory).1, layout().segment_start(SegmentNumber(2)).advanced(101).bytes_since(end));
    drop(Wal::open(scan(directory.clone(), Evidence::default()).unwrap(), config()).unwrap());
    let (found, torn_bytes, payloads) = torn(&directory);
    assert_eq!((found.end(), torn_bytes, payloads), (end, 0, vec![b"kept".to_vec()]));
}

#[test]
pub fn a_sync_that_has_nothing_of_its_own_makes_others_records_durable() {
    let (disk, wal) = fresh();
    append(&wal, b"not waited for").unwrap();
    let before = disk.syncs();
    let end = wal.sync().unwrap();
    assert!(wal.durable() >= end && disk.syncs() > before);
    drop(wal);
    let wal = open(&disk.crash(Loss::Everything, Faults::default()), Evidence::default()).unwrap();
    assert_eq!(read_all(&wal, layout().first_record()).unwrap().len(), 1);
}

#[test]
fn many_records_go_in_together_or_not_at_all() {
    let (_disk, wal) = fresh();
    let payloads: Vec<_> = (0..20).map(|number| payload(number, number as usize * 37)).collect();
    let mut slices: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
    let total = slices.iter().map(|slice| slice.len()).sum();
    let end = loop {
        match wal.append_many(&slices) {
            Err(AppendError::Busy { len_bytes }) => {
                assert_eq!(len_bytes, total);
                std::thread::yield_now();
            }
            other => break other.unwrap(),
        }
    };
    wal.make_durable(end).unwrap();
    let too_large = vec![1; config().max_record_bytes as usize + 1];
    slices.push(&too_large);
    let before = wal.end();
    assert!(matches!(wal.append_many(&slices), Err(AppendError::TooLarge { .. })));
    assert_eq!(wal.end(), before);
    let records = read_all(&wal, layout().first_record()).unwrap();
    assert_eq!(records.last().unwrap().end, end);
    assert!(records.iter().map(|record| &record.payload).eq(&payloads));
    assert!(records.windows(2).all(|pair| layout().record_start(pair[0].end) == pair[1].start), "one behind the other");
}

#[test]
fn a_device_that_hangs_is_noticed_and_recovers() {
    let (disk, wal) = watched();
    let end = append(&wal, b"x").unwrap();
    wal.make_durable(end).unwrap();
    assert!(matches!(wal.health(), Health::Good));
    let poll = |what: &str, is_reached: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !is_reached() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let hang = disk.hang();
        let committer = scope.spawn(|| wal.make_durable(wal.append(b"y").unwrap()));
        poll("not noticed", &|| matches!(wal.health(), Health::Hangs { .. }));
        drop(hang);
        committer.join().unwrap().unwrap();
    });
    assert!(matches!(wal.health(), Health::Good));
    wal.halt();
    assert!(matches!(wal.health(), Health::Failed(_)));
}

#[test]
pub fn recycled_segments_are_filled_and_used_again() {
    let (disk, wal) = fresh();
    let mut checkpoint = layout().first_record();
    for number in 0..40 {
        let end = append(&wal, &payload(number, 900)).unwrap();
        wal.make_durable(end).unwrap();
        wal.recycle(checkpoint).unwrap();
        checkpoint = end;
    }
    let files = Disk::list(&disk, Path::new("/wal")).unwrap();
    assert!(files.len() <= 8, "recycled files pile up: {files:?}");
    assert!(disk.files_made() < 12, "{} files were made for 20 segments", disk.files_made());
    // What was used before is blank before it is used again.
    let end = wal.end();
    drop(wal);
    let found = scan(directory(&disk, "/wal"), Evidence { verify_from: checkpoint, ..Evidence::default() }).unwrap();
    assert_eq!((found.end(), found.torn_bytes().unwrap()), (end, 0));
}

#[test]
fn small_records_are_written_with_one_call_when_they_are_flushed() {
    let (disk, wal) = fresh();
    wal.make_durable(append(&wal, b"first").unwrap()).unwrap();
    wait_prepared(&wal);
    let before = disk.operations();
    for number in 0..4 {
        wal.append(&payload(number, 20)).unwrap();
    }
    assert_eq!(disk.operations(), before, "an append touches the disk");
    wal.sync().unwrap();
    assert_eq!(disk.operations() - before, 2, "one write and one sync");
    // A large one is there before the flush, which writes what lies on both sides of it.
    wal.append(&payload(4, 40)).unwrap();
    wal.append(&payload(5, 700)).unwrap();
    let before = disk.operations();
    wal.sync().unwrap();
    assert_eq!(disk.operations() - before, 3, "two writes and one sync");
    assert_eq!(read_all(&wal, layout().first_record()).unwrap().len(), 7);
}

#[test]
pub fn nothing_behind_the_checkpoint_is_recycled() {
    let (_disk, wal) = fresh();
    let ends: Vec<_> = (0..12).map(|number| append(&wal, &payload(number, 1000)).unwrap()).collect();
    wal.make_durable(ends[11]).unwrap();
    assert!(wal.recycle(ends[3]).unwrap() > 0);
    assert_eq!(read_all(&wal, ends[3]).unwrap().len(), 8);
}
