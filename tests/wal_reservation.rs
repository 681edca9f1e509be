//! Reservation and completion of the WAL, and its buffer, under loom: every order in which threads can run, and every value
//! that the memory model lets them see.
//!
//! The files under test are compiled here a second time, with loom's atomics and locks in place of the real ones.

#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]
// The WAL uses more of it than the models do.
#![allow(dead_code, reason = "compiled a second time, for a part of it")]

/// What `reservation` is built of, as loom has it.
mod primitives {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
    pub use loom::thread::yield_now;
    /// Loom would follow every look.
    pub const SPINS: usize = 1;
}

#[path = "../src/wal/buffer.rs"]
mod buffer;
#[path = "../src/wal/reservation.rs"]
mod reservation;

use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

use buffer::Buffer;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use reservation::{CLOSED, FAILED, Refused, Reservations};

/// Where the log starts.
const START: u64 = 8;
/// What every record takes.
const RECORD: u64 = 8;

/// The log. The buffer has room for two records, the third one comes round to where the first was. In the file each has a
/// cell, which is written and read without any ordering of its own: a copy that reservation does not order before the flush
/// may read as nothing.
struct Log {
    reservations: Reservations,
    buffer: Buffer,
    file: [AtomicU64; 3],
}

fn index(at: u64) -> usize {
    ((at - START) / RECORD) as usize
}

impl Log {
    fn new(slots: usize) -> Arc<Log> {
        let file = [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];
        let buffer = Buffer::new(START, 2 * RECORD as usize);
        Arc::new(Log { reservations: Reservations::new(START, slots), buffer, file })
    }

    /// Appends a record, unless one of `gates` is closed, and answers where it starts.
    fn append(&self, hint: usize, gates: u64) -> Result<u64, Refused<()>> {
        let copying = self.reservations.reserve(hint, gates, |at| Ok(at + RECORD))?;
        let at = copying.start();
        if self.buffer.has_room(at + RECORD) {
            self.buffer.put(at, &at.to_ne_bytes());
        } else {
            self.file[index(at)].store(at, Ordering::Relaxed);
        }
        copying.finish();
        Ok(at)
    }

    /// What a flush does: appends its mark, waits for everything before it, and writes that. Answers where the mark is.
    fn flush(&self, hint: usize) -> u64 {
        let mark = self.append(hint, 0).unwrap();
        self.reservations.wait_complete(mark + RECORD);
        self.write(mark + RECORD);
        mark
    }

    /// Moves what lies before `upto` from the buffer to the file, and finds each record there, in one or the other.
    fn write(&self, upto: u64) {
        for at in (self.buffer.taken()..upto).step_by(RECORD as usize) {
            let mut bytes = [0; RECORD as usize];
            self.buffer.take(at, &mut bytes);
            match u64::from_ne_bytes(bytes) {
                0 => assert_eq!(self.file[index(at)].load(Ordering::Relaxed), at, "a hole at {at}"),
                found => assert_eq!(found, at, "a record of elsewhere"),
            }
        }
        self.buffer.set_taken(upto);
    }
}

/// Runs a model in all orders with so many switches at arbitrary moments, for without a bound it takes minutes. Counts
/// the orders, so that one that explores nothing is seen.
fn explore(switches: usize, least: usize, model: impl Fn() + Sync + Send + 'static) {
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(move || {
        counted.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    let orders = orders.load(StdOrdering::Relaxed);
    println!("{orders} orders");
    assert!(orders >= least, "only {orders} orders were tried");
}

#[test]
fn what_is_complete_has_no_holes() {
    explore(2, 1000, || {
        let log = Log::new(3);
        let appenders: Vec<_> = (0..2)
            .map(|hint| {
                let log = Arc::clone(&log);
                thread::spawn(move || log.append(hint, CLOSED | FAILED).unwrap())
            })
            .collect();
        let mark = log.flush(2);
        let mut starts: Vec<_> = appenders.into_iter().map(|appender| appender.join().unwrap()).collect();
        starts.push(mark);
        starts.sort_unstable();
        assert_eq!(starts, [START, START + RECORD, START + 2 * RECORD], "each got space of its own");
    });
}

#[test]
fn what_comes_round_to_where_another_was_is_neither_lost_nor_mixed_with_it() {
    explore(3, 200, || {
        let log = Log::new(2);
        let other = Arc::clone(&log);
        let appender = thread::spawn(move || other.append(0, CLOSED | FAILED).unwrap());
        let marks = [log.flush(1), log.flush(1)];
        let at = appender.join().unwrap();
        if at > marks[1] {
            log.write(at + RECORD);
        }
        assert_eq!(at + marks[0] + marks[1], 3 * START + 3 * RECORD, "each got space of its own");
    });
}

#[test]
fn more_threads_than_slots_wait_for_each_other() {
    explore(5, 50, || {
        let log = Log::new(1);
        let other = Arc::clone(&log);
        let appender = thread::spawn(move || other.append(0, CLOSED | FAILED).unwrap());
        let mark = log.flush(0);
        let at = appender.join().unwrap();
        assert_eq!((at.min(mark), at.max(mark)), (START, START + RECORD));
    });
}

#[test]
fn behind_a_closed_gate_the_position_is_final() {
    explore(5, 50, || {
        let log = Log::new(2);
        let other = Arc::clone(&log);
        let appender = thread::spawn(move || other.append(0, CLOSED | FAILED));
        let end = log.reservations.close_gates(CLOSED);
        log.reservations.wait_complete(end);
        log.write(end);
        match appender.join().unwrap() {
            Ok(at) => assert!(at < end, "a record behind the end"),
            Err(refused) => assert_eq!((refused, end), (Refused::Gates(CLOSED), START)),
        }
        assert_eq!(log.reservations.state(), (end, CLOSED));
        log.reservations.open_gates(CLOSED);
        assert_eq!(log.append(0, CLOSED), Ok(end));
    });
}

#[test]
fn a_copy_that_is_broken_off_is_never_complete() {
    explore(5, 50, || {
        let log = Log::new(2);
        let other = Arc::clone(&log);
        let appender = thread::spawn(move || drop(other.reservations.reserve(0, 0, |at| Ok::<_, ()>(at + RECORD))));
        let mark = log.append(1, 0).unwrap();
        log.reservations.wait_complete(mark + RECORD);
        let (_, gates) = log.reservations.state();
        assert!(mark == START || gates == FAILED, "a hole would become durable");
        appender.join().unwrap();
        assert_eq!(log.append(0, FAILED), Err(Refused::Gates(FAILED)));
    });
}
