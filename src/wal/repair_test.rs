//! Every crash point of a repair.

use std::path::Path;

use super::testing::*;
use super::*;
use crate::disk::lossy::{Faults, Loss, LossyDisk};
use crate::lsn::Lsn;

/// A log across several segments, every record acknowledged, stopped by a kill; and where its records end.
fn filled() -> (LossyDisk, Vec<Lsn>) {
    let disk = LossyDisk::new(Faults::default());
    let wal = open(&disk, Evidence::default()).unwrap();
    let mut ends = Vec::new();
    for number in 0..24 {
        let end = append(&wal, &payload(number, 100 + 37 * number as usize % 500)).unwrap();
        wal.make_durable(end).unwrap();
        ends.push(end);
    }
    drop(wal);
    (disk.kill(Faults::default()), ends)
}

fn repair(disk: &LossyDisk, at: Lsn) -> Result<Vec<Kept>, CutError> {
    let cut = Cut::find(directory(disk, Path::new("/wal")), Lsn::NONE, at)?;
    Ok(cut.keep()?.erase()?.finish()?)
}

/// Whether some file holds these bytes.
fn is_kept(disk: &LossyDisk, bytes: &[u8]) -> bool {
    let names = crate::disk::Disk::list(disk, Path::new("/wal")).unwrap();
    names.iter().any(|name| disk.contents(&Path::new("/wal").join(name)) == bytes)
}

#[test]
fn a_crash_anywhere_leaves_a_log_that_ends_at_the_cut_or_is_refused_or_is_as_before() {
    let (whole, ends) = filled();
    let cut_index = 7;
    let (at, flipped) = (ends[cut_index], ends[10]);
    let segment = directory(&whole, "/wal").segment_path(layout().segment_of(flipped));
    // Damage behind the cut, in what was acknowledged.
    whole.flip(&segment, (layout().offset_of(layout().record_start(flipped)) + 4) * 8);
    let names = directory(&whole, "/wal").list().unwrap();
    let later = names
        .range(layout().segment_of(Lsn::new(at.get() - 1))..)
        .map(|number| whole.contents(&directory(&whole, "/wal").segment_path(*number)));
    let later: Vec<_> = later.filter(|bytes| bytes[64..].iter().any(|byte| *byte != 0)).collect();
    assert!(later.len() >= 4, "several segments lie behind the cut: {}", later.len());
    assert!(scan(directory(&whole, "/wal"), Evidence::default()).is_err());

    let trial = whole.kill(Faults::default());
    repair(&trial, at).unwrap();
    let total = trial.operations();
    assert!(total > 15, "{total} operations");
    let (mut refused, mut ended) = (0, 0);
    for die_at in 1..=total {
        for seed in 0..8 {
            let disk = whole.kill(Faults { die_at: Some(die_at), ..Faults::default() });
            assert!(repair(&disk, at).is_err() || die_at == total, "died at {die_at}");
            let loss = match seed {
                0 => Loss::Everything,
                1 => Loss::Nothing,
                2..5 => Loss::Older(seed * 7919 + die_at),
                _ => Loss::Random(seed * 7919 + die_at),
            };
            let what = format!("died at {die_at}, lost {loss:?}");
            let disk = disk.crash(loss, Faults::default());
            match scan(directory(&disk, "/wal"), Evidence::default()) {
                Err(WalError::Damaged(_)) => {
                    refused += 1;
                    repair(&disk, at).unwrap_or_else(|error| panic!("{what}: {error}"));
                }
                Ok(found) => {
                    ended += 1;
                    assert_eq!(found.end(), at, "{what}");
                }
                Err(error) => panic!("{what}: {error}"),
            }
            for bytes in &later {
                assert!(is_kept(&disk, bytes), "{what}: something is lost that was not copied");
            }
            let wal = open(&disk, Evidence::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let records = read_all(&wal, layout().first_record()).unwrap();
            let found: Vec<_> = records.iter().map(|record| record.end).collect();
            assert_eq!(found, ends[..=cut_index], "{what}");
            let end = append(&wal, b"it goes on").unwrap();
            wal.make_durable(end).unwrap();
        }
    }
    assert!(refused > 0 && ended > 0, "{refused} refused, {ended} ended");
}

#[test]
fn only_record_boundaries_up_to_the_damage_can_be_cut_at() {
    let (disk, ends) = filled();
    let find = |at: Lsn| Cut::find(directory(&disk, "/wal"), Lsn::NONE, at);
    assert_eq!(find(ends[3]).unwrap().at(), ends[3]);
    match find(ends[3].advanced(8)) {
        Err(CutError::NoBoundary { before, after, .. }) => assert!(before == ends[3] && after > before),
        other => panic!("{other:?}"),
    }
    assert!(matches!(find(Lsn::new(8)), Err(CutError::Gone { .. })));
    let last = scan(directory(&disk, "/wal"), Evidence::default()).unwrap().end();
    match find(last.advanced(1 << 20)) {
        Err(CutError::Behind { boundary, .. }) => assert_eq!(boundary, last),
        other => panic!("{other:?}"),
    }
    // Cut again and again: an earlier copy stays.
    let copies = [9, 8, 7].map(|index: usize| repair(&disk, ends[index]).unwrap());
    let mut all = copies.concat();
    let count = all.len();
    all.sort_by(|one, other| one.path.cmp(&other.path));
    all.dedup();
    assert_eq!(all.len(), count, "{all:?}");
}

/// In the segment that the log ends in, only what is behind the cut in it says that the log once reached further.
#[test]
fn a_crash_while_the_last_segment_is_cut_leaves_no_other_end() {
    let disk = LossyDisk::new(Faults::default());
    let wal = open(&disk, Evidence::default()).unwrap();
    let mut ends = Vec::new();
    for number in 0..8 {
        // Each sector holds a part of a record and a mark.
        let end = append(&wal, &payload(number, 180)).unwrap();
        wal.make_durable(end).unwrap();
        ends.push(end);
    }
    drop(wal);
    let whole = disk.kill(Faults::default()).crash(Loss::Nothing, Faults::default());
    let before = scan(directory(&whole, "/wal"), Evidence::default()).unwrap().end();
    assert_eq!(layout().segment_of(before), layout().segment_of(ends[0]), "all of it in one segment");
    let at = ends[1];
    let trial = whole.kill(Faults::default());
    repair(&trial, at).unwrap();
    let (mut as_before, mut refused, mut ended) = (0, 0, 0);
    for die_at in 1..=trial.operations() {
        for seed in 0..32 {
            let disk = whole.kill(Faults { die_at: Some(die_at), ..Faults::default() });
            let _ = repair(&disk, at);
            let loss =
                if seed % 2 == 0 { Loss::Random(seed * 7919 + die_at) } else { Loss::Older(seed * 7919 + die_at) };
            let disk = disk.crash(loss, Faults::default());
            match scan(directory(&disk, "/wal"), Evidence::default()) {
                Ok(found) if found.end() == before => as_before += 1,
                Ok(found) => {
                    assert_eq!(found.end(), at, "died at {die_at}, lost {loss:?}");
                    ended += 1;
                }
                Err(WalError::Damaged(_)) => {
                    refused += 1;
                    repair(&disk, at).unwrap();
                    assert_eq!(scan(directory(&disk, "/wal"), Evidence::default()).unwrap().end(), at);
                }
                Err(error) => panic!("died at {die_at}, lost {loss:?}: {error}"),
            }
        }
    }
    assert!(as_before > 0 && refused > 0 && ended > 0, "{as_before} as before, {refused} refused, {ended} ended");
}
