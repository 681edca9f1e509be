//! The scrub: reads old segments slowly, again and again, so that damage is found while the other nodes, the archive or a
//! backup still have what was lost, and not when it is needed.
//!
//! It never touches what is still written to and holds nothing back: a segment that is recycled meanwhile was not
//! damaged. What the page cache holds is read from there: a flip on the device is found once the page has been evicted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::cursor::Cursor;
use super::errors::WalError;
use super::layout::SegmentNumber;
use super::log::Shared;
use crate::lsn::Lsn;

/// How long it rests after it has read everything.
const REST: Duration = Duration::from_secs(1);

/// It waits when it is ahead of its pace by this much: not after each small record.
const STRIDE: Duration = Duration::from_millis(10);

/// What the scrub found, and its pace.
pub(super) struct Scrub {
    bytes_per_second: u64,
    /// Bounded by the segments that are there.
    damaged: Mutex<BTreeMap<SegmentNumber, WalError>>,
    stopped: Mutex<bool>,
    woken: Condvar,
}

impl Scrub {
    /// One that reads so many bytes per second; none if it is 0.
    pub(super) fn new(bytes_per_second: u64) -> Scrub {
        let damaged = Mutex::new(BTreeMap::new());
        Scrub { bytes_per_second, damaged, stopped: Mutex::new(false), woken: Condvar::new() }
    }

    /// The oldest damage that is known and was not recycled.
    pub(super) fn damage(&self) -> Option<WalError> {
        self.damaged.lock().values().next().cloned()
    }

    pub(super) fn stop(&self) {
        *self.stopped.lock() = true;
        self.woken.notify_all();
    }

    /// Waits; answers whether to stop.
    fn rest(&self, duration: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.woken.wait_for(&mut stopped, duration);
        }
        *stopped
    }

    /// Notes what was found in a segment.
    fn note(&self, number: SegmentNumber, found: Option<WalError>) {
        let mut damaged = self.damaged.lock();
        match found {
            None => drop(damaged.remove(&number)),
            Some(error) => {
                if !damaged.contains_key(&number) {
                    tracing::error!("the scrub of the log found damage: {error}");
                    metrics::counter!("mainstay_wal_scrub_damage_total").increment(1);
                }
                damaged.insert(number, error);
            }
        }
        metrics::gauge!("mainstay_wal_damaged_segments").set(damaged.len() as f64);
    }

    /// Forgets what is not there any more.
    fn forget_before(&self, oldest: SegmentNumber) {
        let mut damaged = self.damaged.lock();
        *damaged = damaged.split_off(&oldest);
        metrics::gauge!("mainstay_wal_damaged_segments").set(damaged.len() as f64);
    }
}

/// The scrubbing thread, until told to stop.
pub(super) fn run(shared: &Shared) {
    let layout = shared.directory.layout();
    let mut next = SegmentNumber::FIRST;
    if shared.scrub.bytes_per_second == 0 {
        return;
    }
    loop {
        if let Some(oldest) = shared.retained.next_from(SegmentNumber::FIRST) {
            shared.scrub.forget_before(oldest);
        }
        let last_byte = Lsn::new(shared.durable().get().saturating_sub(1));
        let found = shared.retained.next_from(next).filter(|number| *number < layout.segment_of(last_byte));
        let Some(number) = found else {
            next = SegmentNumber::FIRST;
            if shared.scrub.rest(REST) {
                return;
            }
            continue;
        };
        match check(shared, number) {
            Checked::Stopped => return,
            // That says nothing about the segment.
            Checked::Damaged(error) if error.is_scarce() => {
                if shared.scrub.rest(REST) {
                    return;
                }
                continue;
            }
            Checked::Whole => shared.scrub.note(number, None),
            Checked::Damaged(error) => {
                // Neither damaged nor there: recycled while it was read.
                let is_there = shared.retained.next_from(number) == Some(number);
                shared.scrub.note(number, Some(error).filter(|_| is_there));
            }
        }
        next = number.next();
    }
}

enum Checked {
    Whole,
    Damaged(WalError),
    Stopped,
}

/// Reads a segment to which nothing is written any more, at the pace that is set.
fn check(shared: &Shared, number: SegmentNumber) -> Checked {
    let layout = shared.directory.layout();
    let (start, end) = (layout.segment_start(number), layout.segment_start(number.next()));
    let mut cursor = Cursor::new(shared.directory.clone(), start);
    let began = Instant::now();
    while cursor.position() < end {
        if let Err(error) = cursor.check_fragment(end) {
            return Checked::Damaged(error);
        }
        let read_bytes = cursor.position().bytes_since(start) as f64;
        let due = Duration::from_secs_f64(read_bytes / shared.scrub.bytes_per_second as f64);
        let ahead = due.saturating_sub(began.elapsed());
        if ahead > STRIDE && shared.scrub.rest(ahead) {
            return Checked::Stopped;
        }
    }
    // Also between segments that are read within a stride.
    if shared.scrub.rest(Duration::ZERO) { Checked::Stopped } else { Checked::Whole }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::testing::*;
    use super::super::*;
    use super::*;
    use crate::config::WalConfig;
    use crate::disk::lossy::{Faults, LossyDisk};
    use crate::disk::{Access, Disk};

    /// A log of several segments with records within them and across them.
    fn filled(scrub_bytes_per_second: u64) -> (LossyDisk, Wal, Vec<Lsn>) {
        let disk = LossyDisk::new(Faults::default());
        let wal = open_with(&disk, Evidence::default(), WalConfig { scrub_bytes_per_second, ..config() }).unwrap();
        let lens = [100, 5000, 700, 3, 900, 0, 2000, 500];
        let ends: Vec<_> =
            lens.iter().enumerate().map(|(number, len)| append(&wal, &payload(number as u64, *len)).unwrap()).collect();
        wal.make_durable(ends[7]).unwrap();
        (disk, wal, ends)
    }

    fn flip(disk: &LossyDisk, lsn: Lsn) {
        let path = directory(disk, "/wal").segment_path(layout().segment_of(lsn));
        let file = disk.open(&path, Access::Write).unwrap();
        let (mut byte, offset) = ([0], layout().offset_of(lsn));
        file.read_at(&mut byte, offset).unwrap();
        file.write_at(&[byte[0] ^ 1], offset).unwrap();
    }

    #[test]
    fn a_whole_log_is_whole_wherever_records_are_cut_into_fragments() {
        let (_disk, wal, ends) = filled(1 << 30);
        let last = layout().segment_of(ends[7]);
        assert!(last.0 > 4);
        for number in (1..last.0).map(SegmentNumber) {
            assert!(matches!(check(&wal.shared, number), Checked::Whole), "{number:?}");
        }
        assert!(matches!(wal.health(), Health::Good));
    }

    #[test]
    fn a_flipped_bit_in_an_old_segment_is_found_and_the_log_goes_on() {
        let (disk, wal, ends) = filled(1 << 30);
        // In the middle fragment of the second record, which fills a segment.
        let bad = layout().segment_start(SegmentNumber(2)).advanced(1000);
        assert!(bad < ends[1]);
        flip(&disk, bad);
        poll("not found", || matches!(wal.health(), Health::Damaged(_)));
        let Health::Damaged(WalError::Damaged(damage)) = wal.health() else { panic!("{:?}", wal.health()) };
        assert_eq!(layout().segment_of(damage.lsn), SegmentNumber(2));
        wal.make_durable(append(&wal, b"goes on").unwrap()).unwrap();
        // What is put right, or not needed any more, is not damaged any more.
        flip(&disk, bad);
        poll("not found whole", || matches!(wal.health(), Health::Good));
        flip(&disk, bad);
        poll("not found again", || matches!(wal.health(), Health::Damaged(_)));
        wal.recycle(ends[7]).unwrap();
        poll("not forgotten", || matches!(wal.health(), Health::Good));
    }

    #[test]
    fn it_keeps_its_pace_and_stops_at_once() {
        let (_disk, wal, _) = filled(5 * SEGMENT_BYTES);
        let began = Instant::now();
        assert!(matches!(check(&wal.shared, SegmentNumber(2)), Checked::Whole));
        assert!(began.elapsed() > Duration::from_millis(150), "a fifth of a second was set: {:?}", began.elapsed());

        // A segment takes a minute.
        let (_disk, wal, _) = filled(SEGMENT_BYTES / 60);
        let began = Instant::now();
        std::thread::scope(|scope| {
            let scrub = scope.spawn(|| check(&wal.shared, SegmentNumber(2)));
            wal.halt();
            assert!(matches!(scrub.join().unwrap(), Checked::Stopped));
        });
        assert!(began.elapsed() < PATIENCE, "stopping waits for the scrub");
    }
}
