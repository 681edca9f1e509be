//! The clients' view: is there one order of all operations, each between its call and its return, in which every read
//! sees the last write?
//!
//! Every write of a run has its own value, so the question is decidable in a few lines (Gibbons and Korach, *Testing
//! shared memories*, 1997). A value's *zone* reaches from the first return to the last call among its write and the
//! reads that saw it. If the return comes first, the value must have been there all through the zone: no two such
//! zones may overlap. If it does not, all happened at once somewhere in the zone: it must not lie within one of the
//! others. This is necessary and sufficient.

use std::collections::{BTreeMap, BTreeSet};

/// What a client did.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) key: u8,
    /// The value written; `None` for a read.
    pub(super) written: Option<u64>,
    pub(super) called: u64,
    pub(super) outcome: Outcome,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    /// At a time; a read with the value it saw, 0 if there was none.
    Done(u64, u64),
    /// It had no effect.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// All that the clients did. Times are the numbers of events, so that no two are equal.
#[derive(Default)]
pub(super) struct History {
    pub(super) operations: Vec<Operation>,
    /// Values that some state machine took.
    applied: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// It began anew at some time, with these values, and with what may have taken effect behind that of what came before.
    start: u64,
    initial: BTreeMap<u8, u64>,
    open: BTreeSet<usize>,
    settled: usize,
}

#[derive(Clone, Copy)]
struct Zone {
    value: u64,
    first_return: u64,
    last_call: u64,
}

impl History {
    /// A value was applied somewhere.
    pub(super) fn applied(&mut self, value: u64) -> Result<(), String> {
        self.applied.insert(value);
        self.consistent(value)
    }

    /// A write was refused: it must never be seen.
    pub(super) fn refused(&mut self, value: u64) -> Result<(), String> {
        self.refused.insert(value);
        self.consistent(value)
    }

    fn consistent(&self, value: u64) -> Result<(), String> {
        match self.refused.contains(&value) && self.applied.contains(&value) {
            true => Err(format!("the write of {value} was refused, and is applied")),
            false => Ok(()),
        }
    }

    /// What was seen so far counts no more: from now on there are these values.
    pub(super) fn begin_anew(&mut self, now: u64, values: BTreeMap<u8, u64>) {
        let may_come = |it: &Operation| matches!(it.outcome, Outcome::Open | Outcome::Unknown);
        let open = self.operations.iter().enumerate().filter(|(_, it)| may_come(it)).map(|(number, _)| number);
        (self.open, self.settled) = (open.collect(), self.operations.len());
        (self.start, self.initial) = (now, values);
    }

    /// Checks the whole history, or what there is of it since it began anew.
    pub(super) fn check(&self) -> Result<(), String> {
        let keys: BTreeSet<u8> = self.operations.iter().map(|operation| operation.key).collect();
        keys.into_iter().try_for_each(|key| self.check_key(key))
    }

    fn check_key(&self, key: u8) -> Result<(), String> {
        let (first, at) = (self.initial.get(&key).copied().unwrap_or(0), self.start);
        let mut zones = BTreeMap::from([(first, Zone { value: first, first_return: at, last_call: at })]);
        let mut called = BTreeMap::from([(first, at)]);
        let counts = |number: usize| number >= self.settled || self.open.contains(&number);
        let of_key = || {
            let of = self.operations.iter().enumerate();
            of.filter(move |(number, it)| it.key == key && counts(*number)).map(|(_, it)| it)
        };
        for operation in of_key() {
            let Some(value) = operation.written.filter(|value| *value != first) else { continue };
            let first_return = match operation.outcome {
                Outcome::Done(at, _) => at,
                Outcome::Refused => continue,
                Outcome::Open | Outcome::Unknown => u64::MAX,
            };
            called.insert(value, operation.called);
            zones.insert(value, Zone { value, first_return, last_call: operation.called });
        }
        for operation in of_key() {
            let (None, Outcome::Done(at, value)) = (operation.written, operation.outcome) else { continue };
            let Some(zone) = zones.get_mut(&value) else {
                return Err(format!("key {key}: a read saw {value}, which nobody wrote"));
            };
            if called.get(&value).is_some_and(|called| *called > at) {
                return Err(format!("key {key}: a read saw {value} before it was written"));
            }
            zone.first_return = zone.first_return.min(at);
            zone.last_call = zone.last_call.max(operation.called);
        }
        // What may not have happened and was seen by nobody did not happen.
        zones.retain(|_, zone| zone.first_return != u64::MAX);
        let (mut forward, backward): (Vec<Zone>, Vec<Zone>) =
            zones.into_values().partition(|zone| zone.first_return < zone.last_call);
        forward.sort_by_key(|zone| zone.first_return);
        for pair in forward.windows(2) {
            if pair[1].first_return < pair[0].last_call {
                return Err(format!("key {key}: {} and {} were both the last value", pair[0].value, pair[1].value));
            }
        }
        for zone in &backward {
            // Zones that do not overlap are in one order by both of their ends.
            let before = forward.partition_point(|other| other.first_return < zone.last_call);
            let within = before.checked_sub(1).map(|place| forward[place]);
            if let Some(other) = within.filter(|other| other.last_call > zone.first_return && zone.value != first) {
                let (value, other) = (zone.value, other.value);
                return Err(format!("key {key}: {value} was written while {other} was the last value all the time"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: u64, called: u64, returned: u64) -> Operation {
        Operation { key: 1, written: Some(value), called, outcome: Outcome::Done(returned, 0) }
    }

    fn read(value: u64, called: u64, returned: u64) -> Operation {
        Operation { key: 1, written: None, called, outcome: Outcome::Done(returned, value) }
    }

    fn unknown(value: u64, called: u64) -> Operation {
        Operation { key: 1, written: Some(value), called, outcome: Outcome::Unknown }
    }

    fn holds(operations: &[Operation]) -> bool {
        History { operations: operations.to_vec(), ..History::default() }.check().is_ok()
    }

    #[test]
    fn what_is_linearizable_and_what_is_not() {
        assert!(holds(&[]));
        assert!(holds(&[read(0, 1, 2), write(7, 3, 4), read(7, 5, 6)]));
        assert!(!holds(&[write(7, 1, 2), read(0, 3, 4)]), "stale: the write had returned");
        assert!(holds(&[write(7, 1, 4), read(0, 2, 3)]), "the write had not returned");
        assert!(holds(&[write(7, 1, 6), read(7, 2, 3), read(7, 4, 5)]), "seen before it returned");
        assert!(!holds(&[write(7, 1, 6), read(7, 2, 3), read(0, 4, 5)]), "seen and gone again");
        assert!(!holds(&[write(7, 1, 2), write(8, 3, 4), read(7, 5, 6)]), "stale");
        assert!(!holds(&[write(7, 1, 2), read(8, 3, 4)]), "nobody wrote it");
        assert!(!holds(&[read(7, 1, 2), write(7, 3, 4)]), "from the future");
        assert!(holds(&[unknown(7, 1), read(0, 2, 3), read(7, 4, 5)]), "took effect late");
        assert!(!holds(&[unknown(7, 1), read(7, 2, 3), read(0, 4, 5)]), "took effect and was lost");
        assert!(holds(&[unknown(7, 1), write(8, 2, 3), read(8, 4, 5)]), "never took effect");
        assert!(!holds(&[write(7, 1, 2), write(8, 3, 4), read(8, 5, 6), read(7, 7, 8), read(8, 9, 10)]));
    }

    /// The same as a search over all orders.
    #[test]
    fn agrees_with_a_search() {
        use super::super::rng::Rng;
        let (mut good, mut bad) = (0, 0);
        for seed in 0..3000 {
            let rng = &mut Rng::new(seed);
            let mut times: Vec<u64> = (1..=10).collect();
            let mut operations = Vec::new();
            for value in 1..=5u64 {
                let mut draw = || times.remove(rng.below(times.len() as u64) as usize);
                let (one, two) = (draw(), draw());
                let (called, returned) = (one.min(two), one.max(two));
                operations.push(match rng.below(5) {
                    0 | 1 => write(value, called, returned),
                    2 => unknown(value, called),
                    _ => read(rng.below(4), called, returned),
                });
            }
            let found = search(&operations, &mut vec![false; operations.len()], 0);
            assert_eq!(holds(&operations), found, "seed {seed}: {operations:#?}");
            if found { good += 1 } else { bad += 1 }
        }
        assert!(good > 300 && bad > 300, "{good} {bad}");
    }

    /// Wing and Gong: some operation that none before it had returned comes first; then the rest.
    fn search(operations: &[Operation], taken: &mut Vec<bool>, value: u64) -> bool {
        let returned = |operation: &Operation| match operation.outcome {
            Outcome::Done(at, _) => at,
            _ => u64::MAX,
        };
        let open = |taken: &[bool]| (0..operations.len()).filter(|place| !taken[*place]).collect::<Vec<_>>();
        let left = open(taken);
        let soonest = left.iter().map(|place| returned(&operations[*place])).min().unwrap_or(u64::MAX);
        if soonest == u64::MAX {
            return true;
        }
        left.into_iter().any(|place| {
            let operation = &operations[place];
            let next = match (operation.written, operation.outcome) {
                (Some(written), _) => written,
                (None, Outcome::Done(_, seen)) if seen == value => value,
                _ => return false,
            };
            if operation.called > soonest {
                return false;
            }
            taken[place] = true;
            let found = search(operations, taken, next);
            taken[place] = false;
            found
        })
    }
}
