//! Snapshots that are made up, and an inbox's shelf for those that arrive.

use std::collections::HashMap;
use std::sync::mpsc;

use mainstay::ident::{LogIndex, Term};
use mainstay::raftstore::entry::{Membership, Position};
use mainstay::raftstore::log_store::{StoreError, Table};
use mainstay::raftstore::snapshot::{Captured, Pair, Place, SnapshotId, SnapshotMeta};
use mainstay::raftstore::transport::{Incoming, Outgoing, SnapshotRefused, SnapshotUnsent};
use parking_lot::Condvar;

use super::*;

pub const VALUE_BYTES: usize = 1000;

/// So many pairs in two tables, each with its number for a key and a value to be known by.
pub struct Made {
    meta: SnapshotMeta,
    count: u64,
    /// What fails when it is read.
    damaged: Option<u64>,
}

fn pair(number: u64, count: u64) -> Pair {
    let table = if number < count / 2 { Table::Catalog } else { Table::Kv };
    let place = Place { table, key: number.to_be_bytes().to_vec() };
    Pair { place, value: vec![(number % 251) as u8; VALUE_BYTES] }
}

fn number(place: &Place) -> u64 {
    u64::from_be_bytes(place.key.as_slice().try_into().unwrap())
}

impl Made {
    pub fn new(id: u64, size_bytes: usize) -> Arc<Made> {
        Made::damaged(id, size_bytes, None)
    }

    pub fn damaged(id: u64, size_bytes: usize, damaged: Option<u64>) -> Arc<Made> {
        let position = Position { index: LogIndex::new(7), term: Term::new(3) };
        let meta = SnapshotMeta { id: SnapshotId(id), position, membership: Membership::default() };
        Arc::new(Made { meta, count: (size_bytes / VALUE_BYTES) as u64, damaged })
    }

    /// Its offer to a replica of a group, with what becomes of it.
    pub fn outgoing(self: &Arc<Made>, group: u64) -> (Outgoing, mpsc::Receiver<Result<(), SnapshotUnsent>>) {
        let (sender, result) = mpsc::channel();
        let message = [self.meta.id.0.to_le_bytes(), self.count.to_le_bytes()].concat();
        let offer = Envelope { message: message.into(), ..envelope(group, 0) };
        let done = Box::new(move |result| sender.send(result).unwrap_or_default());
        (Outgoing { offer, captured: Arc::clone(self) as Arc<dyn Captured>, done }, result)
    }
}

impl Captured for Made {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn read(&self, after: Option<&Place>, limit_bytes: usize) -> Result<Vec<Pair>, StoreError> {
        let (mut pairs, mut size_bytes) = (Vec::new(), 0);
        for number in after.map_or(0, |place| number(place) + 1)..self.count {
            if self.damaged == Some(number) {
                return Err(StoreError::Failed("the disk is on fire".to_owned()));
            }
            let pair = pair(number, self.count);
            size_bytes += pair.size_bytes();
            if size_bytes > limit_bytes && !pairs.is_empty() {
                break;
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// What arrived.
#[derive(Default)]
pub struct Shelf {
    pub stored: Mutex<HashMap<u64, Stored>>,
    /// What is answered to every offer.
    pub refusal: Mutex<Option<SnapshotRefused>>,
    gate: Gate,
}

#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// So many pairs, the first ones.
    pub pairs: u64,
    pub is_complete: bool,
    pub from: Vec<NodeId>,
    /// How many pairs were there at each offer.
    pub offers: Vec<u64>,
}

/// How many chunks may be taken, and how many snapshots are being taken.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    limit: Option<usize>,
    taken: usize,
    waiting: usize,
    open: usize,
    most_open: usize,
}

impl Shelf {
    /// Takes so many chunks more; then whoever brings one waits.
    pub fn stop_after(&self, chunks: usize) {
        let mut state = self.gate.state.lock();
        state.limit = Some(state.taken + chunks);
        self.gate.changed.notify_all();
    }

    pub fn go_on(&self) {
        self.gate.state.lock().limit = None;
        self.gate.changed.notify_all();
    }

    /// Whether so many wait for that.
    pub fn holds_up(&self, snapshots: usize) -> bool {
        self.gate.state.lock().waiting == snapshots
    }

    /// How many are being taken, and how many were at once.
    pub fn open(&self) -> (usize, usize) {
        let state = self.gate.state.lock();
        (state.open, state.most_open)
    }

    pub fn stored(&self, id: u64) -> Stored {
        self.stored.lock().get(&id).cloned().unwrap_or_default()
    }

    pub fn offer(self: &Arc<Shelf>, from: NodeId, offer: &Envelope) -> Result<Box<dyn Incoming>, SnapshotRefused> {
        if let Some(refused) = self.refusal.lock().clone() {
            return Err(refused);
        }
        let number = |range: std::ops::Range<usize>| u64::from_le_bytes(offer.message[range].try_into().unwrap());
        let (id, count) = (number(0..8), number(8..16));
        let mut all = self.stored.lock();
        let stored = all.entry(id).or_default();
        stored.from.push(from);
        stored.offers.push(stored.pairs);
        let resume_after = stored.pairs.checked_sub(1).map(|last| pair(last, count).place);
        let mut state = self.gate.state.lock();
        state.open += 1;
        state.most_open = state.most_open.max(state.open);
        Ok(Box::new(Taking { shelf: Arc::clone(self), id, count, resume_after }))
    }
}

struct Taking {
    shelf: Arc<Shelf>,
    id: u64,
    count: u64,
    resume_after: Option<Place>,
}

impl Incoming for Taking {
    fn resume_after(&self) -> Option<&Place> {
        self.resume_after.as_ref()
    }

    fn take(&mut self, pairs: Vec<Pair>, is_last: bool) -> Result<(), SnapshotRefused> {
        let gate = &self.shelf.gate;
        let mut state = gate.state.lock();
        while state.limit.is_some_and(|limit| state.taken >= limit) {
            state.waiting += 1;
            // Bounded, so that a test that fails meanwhile ends.
            let waited = gate.changed.wait_for(&mut state, PATIENCE + PATIENCE / 2);
            state.waiting -= 1;
            if waited.timed_out() {
                return Err(SnapshotRefused::Unwanted("it was held up for too long".to_owned()));
            }
        }
        state.taken += 1;
        drop(state);
        let mut all = self.shelf.stored.lock();
        let stored = all.get_mut(&self.id).unwrap();
        for found in pairs {
            if stored.pairs >= self.count || found != pair(stored.pairs, self.count) {
                return Err(SnapshotRefused::Unwanted(format!("{:?} is not next", found.place)));
            }
            stored.pairs += 1;
        }
        if is_last {
            assert_eq!(stored.pairs, self.count, "complete too early");
            stored.is_complete = true;
        }
        Ok(())
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.shelf.gate.state.lock().open -= 1;
    }
}
