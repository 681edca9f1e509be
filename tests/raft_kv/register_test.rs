//! The checker against histories that are known to be good or bad, and against a search over all orders.

use crate::groups::Draw;
use crate::register::{Action, NEVER, Operation, Value, check};

fn write(value: u64, start: u64, end: u64) -> Operation {
    Operation { action: Action::Write(value), start, end }
}

fn read(value: Value, start: u64, end: u64) -> Operation {
    Operation { action: Action::Read(value), start, end }
}

fn swap(from: Value, to: u64, start: u64, end: u64) -> Operation {
    Operation { action: Action::Swap { from, to }, start, end }
}

#[test]
fn tells_good_histories_from_bad_ones() {
    let good: [&[Operation]; 11] = [
        &[read(None, 1, 2), write(1, 3, 4), read(Some(1), 5, 6)],
        // While a write is under way both values may be read, in one order.
        &[write(1, 1, 2), write(2, 3, 10), read(Some(1), 4, 5), read(Some(2), 6, 7)],
        // An unknown write may take effect late.
        &[write(1, 1, NEVER), write(2, 2, 3), read(Some(2), 4, 5), read(Some(1), 6, 7)],
        &[write(1, 1, NEVER), write(2, 2, 3), read(Some(2), 4, 5)],
        &[write(1, 1, 9), write(2, 1, 9), read(Some(2), 2, 3), read(Some(1), 4, 5)],
        &[swap(None, 1, 1, 2), swap(Some(1), 2, 3, 4), read(Some(2), 5, 6)],
        // One waited for the other.
        &[swap(Some(1), 2, 1, 9), swap(None, 1, 2, 3), read(Some(1), 4, 5), read(Some(2), 6, 7)],
        // An unknown swap that was seen, by way of another.
        &[write(1, 1, NEVER), swap(Some(1), 2, 2, NEVER), swap(Some(2), 3, 4, 5), read(Some(3), 6, 7)],
        // One of two unknown ones.
        &[write(1, 1, 2), swap(Some(1), 2, 3, NEVER), swap(Some(1), 3, 4, NEVER), read(Some(3), 5, 6)],
        &[write(1, 1, 2), swap(Some(1), 2, 3, NEVER), write(3, 4, 5), read(Some(3), 6, 7)],
        &[write(1, 1, 2), write(3, 3, 8), swap(Some(1), 2, 4, 7), read(Some(3), 9, 10)],
    ];
    for history in good {
        assert_eq!(check(history), Ok(()), "{history:?}");
    }
    let bad: [&[Operation]; 13] = [
        // An acknowledged write is lost.
        &[write(1, 1, 2), read(None, 3, 4)],
        // A stale read.
        &[write(1, 1, 2), write(2, 3, 4), read(Some(1), 5, 6)],
        // Back and forth.
        &[write(1, 1, 20), write(2, 1, 20), read(Some(1), 2, 3), read(Some(2), 4, 5), read(Some(1), 6, 7)],
        // Out of nowhere, or before it was written.
        &[read(Some(7), 1, 2)],
        &[read(Some(1), 1, 2), write(1, 3, 4)],
        // Seen, and then not.
        &[write(1, 1, NEVER), read(Some(1), 2, 3), read(None, 4, 5)],
        // Both won.
        &[write(1, 1, 2), swap(Some(1), 2, 3, 4), swap(Some(1), 3, 3, 4)],
        // What was replaced is there again.
        &[write(1, 1, 2), swap(Some(1), 2, 3, 4), read(Some(1), 5, 6)],
        // A lost swap.
        &[swap(None, 1, 1, 2), swap(Some(1), 2, 3, 4), read(None, 5, 6)],
        // Another was written in between.
        &[write(1, 1, 2), write(3, 3, 4), swap(Some(1), 2, 5, 6)],
        &[
            write(1, 1, 2),
            read(Some(1), 3, 4),
            write(3, 5, 6),
            read(Some(3), 7, 8),
            swap(Some(1), 2, 5, 9),
            read(Some(2), 10, 11),
        ],
        // An unknown swap that was seen needs what it was made from.
        &[swap(Some(7), 2, 1, NEVER), read(Some(2), 3, 4)],
        &[swap(Some(1), 2, 1, 2), swap(Some(2), 1, 1, 2)],
    ];
    for history in bad {
        assert!(check(history).is_err(), "{history:?}");
    }
}

#[test]
fn agrees_with_a_search() {
    let (mut good, mut bad) = (0, 0);
    for seed in 1..=20_000_u64 {
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let count = 4 + draw.below(3);
        let mut times: Vec<u64> = (1..=2 * count).collect();
        let mut history = Vec::new();
        for value in 1..=count {
            let mut time = || times.remove(draw.below(times.len() as u64) as usize);
            let (one, two) = (time(), time());
            let (start, end) = (one.min(two), one.max(two));
            let mut any = || Some(draw.below(4)).filter(|value| *value != 0);
            let action = match (any(), any()) {
                (None, _) => Action::Write(value),
                (Some(1), seen) => Action::Read(seen),
                (_, from) => Action::Swap { from, to: value },
            };
            let is_read = matches!(action, Action::Read(_));
            let end = if !is_read && draw.below(4) == 0 { NEVER } else { end };
            history.push(Operation { action, start, end });
        }
        let found = search(&history, &mut vec![false; history.len()], None);
        assert_eq!(check(&history).is_ok(), found, "seed {seed}: {history:#?}");
        if found { good += 1 } else { bad += 1 }
    }
    assert!(good > 1000 && bad > 1000, "{good} {bad}");
}

/// Wing and Gong: some operation that none before it had ended comes first; then the rest. What was not answered need
/// not come at all.
fn search(history: &[Operation], taken: &mut Vec<bool>, value: Value) -> bool {
    let left: Vec<usize> = (0..history.len()).filter(|place| !taken[*place]).collect();
    let soonest = left.iter().map(|place| history[*place].end).min().unwrap_or(NEVER);
    if soonest == NEVER {
        return true;
    }
    left.into_iter().any(|place| {
        let next = match history[place].action {
            Action::Read(seen) if seen == value => value,
            Action::Swap { from, to } if from == value => Some(to),
            Action::Write(written) => Some(written),
            _ => return false,
        };
        if history[place].start > soonest {
            return false;
        }
        taken[place] = true;
        let found = search(history, taken, next);
        taken[place] = false;
        found
    })
}
