//! Checks that a history of one register is linearizable: reads, writes, and swaps, which write only if the register holds
//! a certain value. No two operations write the same value.
//!
//! The test of Gibbons and Korach ("Testing Shared Memories", 1997), with swaps. What was swapped in for a value follows
//! it directly. So a value that was written blindly, the reads that saw it, the swap that replaced it, the reads of what
//! that brought, and so on, are one *block* of the order. Within a block the order is given, and nothing may have ended
//! before what comes earlier has begun. Between blocks: those operations form a *zone* between the first end and the last
//! start of any of them. If the first end comes before the last start (a *forward* zone), the register was the block's all
//! that time, so no two forward zones may overlap; otherwise (a *backward* zone) all happened at some moment in between, so
//! the zone may not lie within a forward one of another block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// A moment. All that matters is which is earlier.
pub type Moment = u64;
/// The end of what was never answered.
pub const NEVER: Moment = Moment::MAX;
/// What the register holds; `None` at first.
pub type Value = Option<u64>;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Saw a value. A swap that found another value than it expects is one.
    Read(Value),
    /// Wrote, whatever was there.
    Write(u64),
    /// Wrote `to` where `from` was.
    #[allow(dead_code, reason = "not every store has one")]
    Swap { from: Value, to: u64 },
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub action: Action,
    pub start: Moment,
    /// [`NEVER`] if a write or a swap may or may not take effect, or may yet.
    pub end: Moment,
}

/// What all clients did, and in which order: starts and ends are numbered as they happen.
#[derive(Default)]
pub struct History {
    clock: AtomicU64,
    operations: Mutex<Vec<(u64, Operation)>>,
    pub acknowledged: AtomicU64,
    next_value: AtomicU64,
}

impl History {
    pub fn now(&self) -> Moment {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A value that nobody else writes.
    pub fn new_value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn note(&self, register: u64, operation: Operation) {
        self.operations.lock().push((register, operation));
    }

    /// Checks every register by itself; says how many operations there were of each.
    pub fn check(&self) -> BTreeMap<u64, usize> {
        let mut registers = BTreeMap::<u64, Vec<Operation>>::new();
        for (register, operation) in self.operations.lock().iter() {
            registers.entry(*register).or_default().push(*operation);
        }
        for (register, operations) in &registers {
            if let Err(what) = check(operations) {
                panic!("register {register}: {what}\n{} operations", operations.len());
            }
        }
        registers.into_iter().map(|(register, operations)| (register, operations.len())).collect()
    }
}

/// Says what is wrong with a history, if anything is.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let values = Values::of(history)?;
    let mut zones = Vec::new();
    let mut in_order = 0;
    // As if it had been written before everything else.
    let nothing = Operation { action: Action::Read(None), start: 0, end: 0 };
    zones.push(values.block(None, nothing, &mut in_order)?);
    for (value, made) in &values.made {
        if let Action::Write(_) = made.action {
            zones.push(values.block(Some(*value), *made, &mut in_order)?);
        }
    }
    if in_order != values.made.len() {
        return Err("values were swapped for each other in a circle".to_owned());
    }
    compare(zones)
}

/// Who wrote, saw and replaced each value.
struct Values {
    /// What took effect, for sure or because somebody saw it.
    made: BTreeMap<u64, Operation>,
    reads: BTreeMap<Value, Vec<Operation>>,
    swapped: BTreeMap<Value, (u64, Operation)>,
}

impl Values {
    fn of(history: &[Operation]) -> Result<Values, String> {
        let mut made = BTreeMap::new();
        let mut reads = BTreeMap::<Value, Vec<Operation>>::new();
        for operation in history {
            match operation.action {
                Action::Read(value) => reads.entry(value).or_default().push(*operation),
                Action::Write(value) | Action::Swap { to: value, .. } => {
                    if let Some(twice) = made.insert(value, *operation) {
                        return Err(format!("the test wrote {value} twice: {operation:?} and {twice:?}"));
                    }
                }
            }
        }
        // What may not have happened and was seen by nobody need not have happened.
        let answered = made.values().filter(|made| made.end != NEVER).map(|made| made.action);
        let mut seen: Vec<Value> = reads.keys().copied().chain(answered.flat_map(involved)).collect();
        let mut happened = BTreeSet::new();
        while let Some(value) = seen.pop() {
            let Some(value) = value.filter(|value| happened.insert(*value)) else { continue };
            let made = made.get(&value).ok_or_else(|| format!("{value} was seen, and written by nobody"))?;
            seen.extend(involved(made.action));
        }
        made.retain(|value, _| happened.contains(value));
        let mut swapped = BTreeMap::new();
        for operation in made.values() {
            let Action::Swap { from, to } = operation.action else { continue };
            if let Some((_, twice)) = swapped.insert(from, (to, *operation)) {
                return Err(format!("both replaced {from:?}: {operation:?} and {twice:?}"));
            }
        }
        Ok(Values { made, reads, swapped })
    }

    /// A value and all that was swapped in on top of it.
    fn block(&self, first: Value, made: Operation, in_order: &mut usize) -> Result<Zone, String> {
        let mut zone = Zone { first, first_end: made.end, last_start: made.start };
        let mut value = first;
        *in_order += usize::from(first.is_some());
        loop {
            let reads = self.reads.get(&value).map(Vec::as_slice).unwrap_or_default();
            let before = zone;
            for read in reads {
                zone.take(read, &before)?;
            }
            let Some((to, swap)) = self.swapped.get(&value) else { return Ok(zone) };
            let before = zone;
            zone.take(swap, &before)?;
            value = Some(*to);
            *in_order += 1;
        }
    }
}

/// The values that must have been there.
fn involved(action: Action) -> Vec<Value> {
    match action {
        Action::Read(value) => vec![value],
        Action::Write(value) => vec![Some(value)],
        Action::Swap { from, to } => vec![from, Some(to)],
    }
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    /// What the block begins with.
    #[allow(dead_code, reason = "for the message")]
    first: Value,
    first_end: Moment,
    last_start: Moment,
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.first_end < self.last_start
    }

    /// An operation that comes behind all that were there before.
    fn take(&mut self, operation: &Operation, before: &Zone) -> Result<(), String> {
        if operation.end < before.last_start {
            return Err(format!("{operation:?} ended before what it builds on had begun: {before:?}"));
        }
        self.first_end = self.first_end.min(operation.end);
        self.last_start = self.last_start.max(operation.start);
        Ok(())
    }
}

fn compare(zones: Vec<Zone>) -> Result<(), String> {
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
