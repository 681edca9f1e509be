//! Checks that a history of reads and writes of one register is linearizable, when no two writes write the same value.
//!
//! The test of Gibbons and Korach ("Testing Shared Memories", 1997): the operations of each value form a *zone* between
//! the first end and the last start of any of them. If the first end comes before the last start (a *forward* zone), the
//! register must have held the value all that time, so no two forward zones may overlap; otherwise (a *backward* zone) it
//! held the value at some moment in between, so the zone may not lie within a forward one of another value.

use std::collections::BTreeMap;

/// A moment. All that matters is which is earlier.
pub type Moment = u64;
/// The end of what was never answered.
pub const NEVER: Moment = Moment::MAX;

/// One operation. The register holds `None` at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub is_write: bool,
    pub value: Option<u64>,
    pub start: Moment,
    /// [`NEVER`] if a write may still take effect.
    pub end: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    #[allow(dead_code, reason = "for the message")]
    value: Option<u64>,
    first_end: Moment,
    last_start: Moment,
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.first_end < self.last_start
    }
}

/// Says what is wrong with a history, if anything is.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut clusters: BTreeMap<Option<u64>, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        clusters.entry(operation.value).or_default().push(*operation);
    }
    // As if it had been written before everything else.
    clusters.entry(None).or_default().push(Operation { is_write: true, value: None, start: 0, end: 0 });
    let mut zones = Vec::new();
    for (value, operations) in clusters {
        let mut writes = operations.iter().filter(|operation| operation.is_write);
        let write = writes.next().ok_or_else(|| format!("{value:?} was read, and written by nobody"))?;
        if let Some(twice) = writes.next() {
            return Err(format!("the test wrote {value:?} twice: {write:?} and {twice:?}"));
        }
        if let Some(read) = operations.iter().find(|operation| operation.end < write.start) {
            return Err(format!("{read:?} saw what {write:?} wrote later"));
        }
        if write.end == NEVER && operations.len() == 1 {
            // Nobody saw it: it need not have happened.
            continue;
        }
        let first_end = operations.iter().map(|operation| operation.end).min().unwrap_or(NEVER);
        let last_start = operations.iter().map(|operation| operation.start).max().unwrap_or(0);
        zones.push(Zone { value, first_end, last_start });
    }
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) = zones.into_iter().partition(Zone::is_forward);
    forward.sort_by_key(|zone| zone.first_end);
    for pair in forward.windows(2) {
        if pair[1].first_end < pair[0].last_start {
            return Err(format!("both values were current at once: {:?} and {:?}", pair[0], pair[1]));
        }
    }
    for zone in backward {
        let at = forward.partition_point(|other| other.first_end < zone.last_start);
        if let Some(around) =
            at.checked_sub(1).map(|at| forward[at]).filter(|around| zone.first_end < around.last_start)
        {
            return Err(format!("{zone:?} has no room within {around:?}"));
        }
    }
    Ok(())
}

#[test]
fn tells_good_histories_from_bad_ones() {
    let write = |value, start, end| Operation { is_write: true, value: Some(value), start, end };
    let read = |value, start, end| Operation { is_write: false, value, start, end };
    let good: [&[Operation]; 5] = [
        &[read(None, 1, 2), write(1, 3, 4), read(Some(1), 5, 6)],
        // While a write is under way both values may be read, in one order.
        &[write(1, 1, 2), write(2, 3, 10), read(Some(1), 4, 5), read(Some(2), 6, 7)],
        // An unknown write may take effect late.
        &[write(1, 1, NEVER), write(2, 2, 3), read(Some(2), 4, 5), read(Some(1), 6, 7)],
        &[write(1, 1, NEVER), write(2, 2, 3), read(Some(2), 4, 5)],
        &[write(1, 1, 9), write(2, 1, 9), read(Some(2), 2, 3), read(Some(1), 4, 5)],
    ];
    for history in good {
        assert_eq!(check(history), Ok(()), "{history:?}");
    }
    let bad: [&[Operation]; 6] = [
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
    ];
    for history in bad {
        assert!(check(history).is_err(), "{history:?}");
    }
}
