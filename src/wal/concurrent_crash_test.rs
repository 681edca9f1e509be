//! Every crash point of a log that is used as a node uses it, by many at once: threads append and commit; the engine reads
//! what is durable, moves its checkpoint and recycles; a standby lags behind and holds what it has not confirmed; and what
//! was recycled is filled and used again under new names. Records go on over the ends of segments.
//!
//! The seed says what everybody does. How they interleave it does not, so the same seed and operation may have to be tried
//! again until a failure is seen again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use super::fault;
use super::retention::HolderKind;
use super::testing::*;
use super::*;
use crate::config::WalConfig;
use crate::disk::lossy::{Faults, Loss, LossyDisk, Random};
use crate::lsn::Lsn;

const APPENDERS: u64 = 3;

/// How many records each of them appends in a life.
const RECORDS: u64 = 10;

/// In memory until the flush, written when they are appended, empty, over several segments.
const LENGTHS: [usize; 10] = [64, 304, 3, 600, 1504, 5000, 700, 0, 2500, 16];

/// How many records the standby may be behind.
const LAG: u64 = 12;

/// How a life ends, in every way.
const DEATHS: [fn(u64) -> Option<Loss>; 6] = [
    |_| Some(Loss::Everything),
    |_| Some(Loss::Nothing),
    |seed| Some(Loss::Older(seed)),
    |seed| Some(Loss::Random(seed)),
    |seed| Some(Loss::Pages(seed)),
    // Only the process is killed.
    |_| None,
];

/// What is known of a log beside what is on its disk.
#[derive(Clone)]
struct Known {
    /// The records by where they end, without those that were cut.
    appended: BTreeMap<Lsn, Vec<u8>>,
    /// Everything before it was called durable, to whomever.
    durable: Lsn,
    /// Everything before it is in the engine's files. Noted durably before anything is recycled for it.
    checkpoint: Lsn,
    /// What the standby needs the log from.
    confirmed: Lsn,
    keep_bytes: u64,
    /// The oldest segment that is left of what was recycled for sure.
    oldest: SegmentNumber,
    /// How many segments were recycled.
    recycled: usize,
    /// How many lives there were, so that no record is like one of another life.
    lives: u64,
}

impl Known {
    fn new(seed: u64) -> Known {
        Known {
            appended: BTreeMap::new(),
            durable: Lsn::NONE,
            checkpoint: Lsn::NONE,
            confirmed: layout().first_record(),
            // Of some logs more is kept than anybody needs.
            keep_bytes: seed % 3 * SEGMENT_BYTES,
            oldest: SegmentNumber::FIRST,
            recycled: 0,
            lives: 0,
        }
    }

    fn config(&self) -> WalConfig {
        WalConfig { keep_bytes: self.keep_bytes, ..config() }
    }

    /// From where on all must be there.
    fn needed_from(&self) -> Lsn {
        self.confirmed.min(self.checkpoint.max(layout().first_record()))
    }

    /// The oldest segment that nobody allowed to be recycled.
    fn oldest_needed(&self) -> SegmentNumber {
        let holding_last_byte = |lsn: Lsn| layout().segment_of(Lsn::new(lsn.get().saturating_sub(1)));
        let kept = Lsn::new(self.durable.get().saturating_sub(self.keep_bytes));
        let read_next = layout().segment_of(layout().record_start(self.confirmed));
        let needed = [holding_last_byte(self.checkpoint), holding_last_byte(kept), read_next];
        needed.into_iter().min().unwrap().max(SegmentNumber::FIRST)
    }
}

/// Bytes that no other record has.
fn payload(id: u64, len: usize) -> Vec<u8> {
    let mut random = Random(id);
    (0..len).map(|_| random.draw() as u8 | 1).collect()
}

/// What the engine and the standby did in a life.
struct Followed {
    known: Known,
    read: BTreeMap<Lsn, Vec<u8>>,
}

/// Appends, commits, checkpoints and recycles until the machine dies or all is done; `wal` is the log as it was opened.
fn live(wal: Wal, known: &mut Known, seed: u64, what: &str) {
    known.lives += 1;
    let (life, fault) = (known.lives, fault::current());
    thread::scope(|scope| {
        let (acknowledgements, acknowledged) = mpsc::channel();
        let appender = |appender: u64| {
            let (wal, acknowledgements) = (&wal, acknowledgements.clone());
            scope.spawn(move || {
                fault::set(fault);
                append_and_commit(wal, appender, (life * APPENDERS + appender) << 32, seed, &acknowledgements)
            })
        };
        let appenders: Vec<_> = (0..APPENDERS).map(appender).collect();
        drop(acknowledgements);
        let (wal, before) = (&wal, known.clone());
        let engine = scope.spawn(move || {
            fault::set(fault);
            follow_and_recycle(wal, before, seed ^ life, &acknowledged)
        });
        let appended: Vec<_> = appenders.into_iter().flat_map(|appender| appender.join().unwrap()).collect();
        let Followed { known: after, read } = engine.join().unwrap();
        *known = after;
        known.appended.extend(appended);
        for (end, payload) in &read {
            assert_eq!(
                known.appended.get(end),
                Some(payload),
                "{what}: the engine read what nobody appended, at {end}"
            );
        }
    });
    known.durable = known.durable.max(wal.durable());
}

/// One appender. Answers its records and where they end, and says of each that was acknowledged where that is.
fn append_and_commit(
    wal: &Wal,
    appender: u64,
    first_id: u64,
    seed: u64,
    acknowledgements: &mpsc::Sender<Lsn>,
) -> Vec<(Lsn, Vec<u8>)> {
    let mut random = Random(seed ^ first_id);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut appended = Vec::new();
    for number in 0..RECORDS {
        let bytes = payload(first_id + number, LENGTHS[random.below(LENGTHS.len() as u64) as usize]);
        let Ok(end) = append(wal, &bytes) else { break };
        appended.push((end, bytes));
        // Some wait for each record, some for every third; one as a task.
        if number % (1 + appender) != 0 {
            continue;
        }
        let durable = if appender == 0 { runtime.block_on(wal.wait_durable(end)) } else { wal.make_durable(end) };
        if durable.is_err() {
            break;
        }
        assert!(wal.durable() >= end);
        // Nobody listens when recycling has failed.
        let _ = acknowledgements.send(end);
    }
    appended
}

/// The engine and the standby, for as long as something is acknowledged.
fn follow_and_recycle(wal: &Wal, mut known: Known, seed: u64, acknowledged: &mpsc::Receiver<Lsn>) -> Followed {
    let mut random = Random(seed);
    let mut read = BTreeMap::new();
    // What is needed is there: nobody has recycled it.
    let standby = wal.hold(HolderKind::Slot, "standby", known.confirmed).unwrap();
    let mut engine = wal.named_reader("engine", known.needed_from());
    for end in acknowledged {
        while let Some(record) = engine.next_durable().unwrap() {
            read.insert(record.end, record.payload);
        }
        assert!(engine.position() >= end, "what is acknowledged can be read");
        let behind = random.below(LAG) as usize;
        if let Some(confirmed) = read.keys().rev().nth(behind) {
            known.confirmed = known.confirmed.max(*confirmed);
        }
        if random.below(3) == 0 {
            known.checkpoint = read.keys().next_back().copied().unwrap_or(Lsn::NONE).max(known.checkpoint);
        }
        standby.advance(known.confirmed).unwrap();
        match wal.recycle(known.checkpoint) {
            Ok(recycled) => known.recycled += recycled,
            Err(_) => break,
        }
        known.oldest = wal.shared.retained.next_from(SegmentNumber::FIRST).unwrap_or(known.oldest);
    }
    Followed { known, read }
}

/// Opens the log after its machine died, and looks whether it holds all that it must and nothing that it must not. Answers
/// it with the records that were cut; nothing if the machine died meanwhile.
fn check(disk: &LossyDisk, known: &mut Known, what: &str) -> Option<(Wal, Vec<Vec<u8>>)> {
    let there = directory(disk, Path::new("/wal")).list().unwrap();
    let evidence = Evidence { verify_from: known.checkpoint, reached: known.checkpoint, clean_end: None };
    let wal = match open_with(disk, evidence, known.config()) {
        Err(_) if disk.is_dead() => return None,
        other => other.unwrap_or_else(|error| panic!("{what}: {error}")),
    };
    if let Some(first) = there.first() {
        assert!(*first <= known.oldest_needed(), "{what}: {first:?} is the oldest left, and nobody allowed that");
        assert!(*first >= known.oldest, "{what}: {first:?} was recycled, and is back");
        let newest = layout().segment_of(Lsn::new(wal.end().get() - 1));
        let missing = (first.0..=newest.0).find(|number| !there.contains(&SegmentNumber(*number)));
        assert!(missing.is_none() || wal.end() == layout().first_record(), "{what}: {missing:?} is missing");
    }
    assert_blank_behind(disk, wal.end(), what);
    let from = known.needed_from();
    let records = read_all(&wal, from).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut expected = known.appended.range((Bound::Excluded(from), Bound::Unbounded));
    for record in &records {
        let found = (&record.end, &record.payload);
        assert_eq!(Some(found), expected.next(), "{what}: lost, invented or back, at {}", record.start);
    }
    let end = records.last().map_or(from, |record| record.end);
    let mut cut = known.appended.split_off(&end.advanced(1));
    if let Some(lost) = cut.keys().find(|end| **end <= known.durable) {
        panic!("{what}: the record that ends at {lost} was durable, and the log ends at {end}");
    }
    // What was found is durable now.
    known.durable = end.max(known.durable.min(wal.end()));
    let cut = std::mem::take(&mut cut).into_values().collect();
    Some((wal, cut))
}

/// Nothing is left behind the end of what was cut there, nor of what recycled segments held: one is blank when it has its name.
fn assert_blank_behind(disk: &LossyDisk, end: Lsn, what: &str) {
    let directory = directory(disk, Path::new("/wal"));
    for number in directory.list().unwrap() {
        let from = end.max(layout().first_record_in(number)).bytes_since(layout().segment_start(number)) as usize;
        let contents = disk.contents(&directory.segment_path(number));
        let is_blank = contents.get(from..).unwrap_or(&[]).iter().all(|byte| *byte == 0);
        assert!(is_blank, "{what}: something is left behind {end} in {number:?}");
    }
}

/// What was tried in all, so that it is not too little.
#[derive(Debug, Default)]
struct Tried {
    crashes: u64,
    /// Lives that began with a log of an earlier one.
    second_lives: u64,
    recycled: usize,
    /// Names that segments got whose file had another name before.
    reused: u64,
    /// Crashes with records that were cut.
    torn: u64,
}

impl Tried {
    fn add(&mut self, more: &Tried) {
        self.crashes += more.crashes;
        self.second_lives += more.second_lives;
        self.recycled += more.recycled;
        self.reused += more.reused;
        self.torn += more.torn;
    }
}

/// Crashes, checks, appends more, crashes again at some operation, checks again: what was cut never comes back. With
/// `is_busy`, the second life is as busy as the first one was.
fn crash_and_go_on(
    disk: &LossyDisk,
    mut known: Known,
    loss: Option<Loss>,
    seed: u64,
    is_busy: bool,
    what: &str,
) -> Tried {
    let mut random = Random(seed);
    let mut tried = Tried { crashes: 2, ..Tried::default() };
    let faults = Faults { die_at: Some(1 + random.below(if is_busy { 400 } else { 60 })), ..Faults::default() };
    let disk = match loss {
        Some(loss) => disk.crash(loss, faults),
        None => disk.kill(faults),
    };
    let what = format!("{what}, lost {loss:?}");
    // The second crash may come during recovery; then recovery is tried again on what that left.
    if let Some((wal, cut)) = check(&disk, &mut known, &what) {
        tried.torn += u64::from(!cut.is_empty());
        // Each new record and the mark behind it are as long as one that was cut: were its bytes still there, the
        // records behind it would fit on again.
        let mark_bytes = record::HEADER_BYTES + record::MARK_PAYLOAD_BYTES;
        for (number, lost) in cut.iter().take(1 + random.below(3) as usize).enumerate() {
            let bytes = payload((known.lives << 48) + number as u64, lost.len().saturating_sub(mark_bytes));
            let Ok(end) = append(&wal, &bytes) else { break };
            known.appended.insert(end, bytes);
            if wal.make_durable(end).is_err() {
                break;
            }
            known.durable = end;
        }
        if is_busy {
            tried.second_lives += 1;
            live(wal, &mut known, seed, &what);
        }
    }
    tried.recycled = known.recycled;
    // The log's files are numbered on, whatever their names.
    let newest = directory(&disk, Path::new("/wal")).list().unwrap().last().map_or(0, |newest| newest.0);
    tried.reused = newest.saturating_sub(disk.files_made() as u64);
    let second_loss = match (loss, random.below(2)) {
        (None, _) | (_, 0) => Loss::Everything,
        _ => Loss::Random(random.draw()),
    };
    let what = format!("{what}; then died again, lost {second_loss:?}");
    check(&disk.crash(second_loss, Faults::default()), &mut known, &what);
    tried
}

fn try_every_crash_point(seed: u64) -> Tried {
    // Shown when something fails.
    println!("seed {seed}");
    let begin = |faults| {
        let disk = LossyDisk::new(faults);
        let mut known = Known::new(seed);
        if let Some((wal, _)) = check(&disk, &mut known, &format!("seed {seed}")) {
            live(wal, &mut known, seed, &format!("seed {seed}"));
        }
        (disk, known)
    };
    let (whole, known) = begin(Faults::default());
    assert_eq!(known.appended.len() as u64, APPENDERS * RECORDS);
    let mut tried = Tried::default();
    for die_at in 1..=whole.operations() + 20 {
        let (disk, known) = begin(Faults { die_at: Some(die_at), ..Faults::default() });
        for (index, death) in DEATHS.into_iter().enumerate() {
            let seed = seed.wrapping_mul(die_at).wrapping_mul(7919).wrapping_add(index as u64);
            let is_busy = die_at as usize % DEATHS.len() == index;
            let what = format!("seed {seed}, died at {die_at}");
            let more = crash_and_go_on(&disk, known.clone(), death(seed), seed, is_busy, &what);
            tried.add(&more);
        }
    }
    tried
}

#[test]
pub fn every_crash_point_with_concurrent_appenders() {
    let mut all = Tried::default();
    (1..=3).for_each(|seed| all.add(&try_every_crash_point(seed)));
    println!("{all:?}");
    let Tried { crashes, second_lives, recycled, reused, torn } = all;
    assert!(crashes > 6000, "too few crashes to show anything: {crashes}");
    assert!(second_lives > 300, "too few second lives to show anything: {second_lives}");
    assert!(recycled > 3000, "too few recycled segments to show anything: {recycled}");
    assert!(reused > 300, "too few segments used again to show anything: {reused}");
    assert!(torn > 300, "too few unfinished flushes to show anything: {torn}");
}

#[test]
#[ignore = "soak: every crash point with concurrent appenders, with a hundred seeds"]
fn every_crash_point_with_concurrent_appenders_with_a_hundred_seeds() {
    for seed in 4..104 {
        println!("{:?}", try_every_crash_point(seed));
    }
}
