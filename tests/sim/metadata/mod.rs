//! The metadata's machine in place of registers: the same clusters, with the same troubles, replicate what `meta` applies.
//!
//! | file | what it holds |
//! |---|---|
//! | `machine` | a replica's machine, with the sessions that make commands apply once |
//! | `reference` | one that applies each entry for itself: what all others are compared with |
//! | `model` | what commands mean, written down a second time |
//! | `commands` | commands of all kinds, drawn at random |
//! | `calls` | operators, who ask again until they know |
//! | `forced` | the majority is lost, and one node goes on alone |
//! | `keeping` | leaders let expire what is due; nothing ends too early |
//! | `voting` | leaders make those vote who are to |
//! | `watchers` | watches of keys and events, that go on elsewhere |
//! | `runs` | the tests: many seeds |
//! | `mutations` | each known bug is put back and caught |
//!
//! **What is checked.** After every batch, start and snapshot a replica's tables are those of the reference, by hash. What
//! is refused has written nothing, what is done was done whole. An active member is to vote, always; in the end those vote that
//! are to, and nobody else. What commands come to is what the model says; numbers of
//! members, tokens and leases are given once. Watches give every revision of their range once, in order, with what the model
//! says of it, or say that it was compacted. Where room is
//! tight, puts are refused for want of it if there is none, and never else, also after deletions; and a history is shortened
//! only if it is too long. No lease ends before its time, counted by the clock of the leader that let it
//! expire, from its last renewal and from when that leader began to lead. In the end nothing is left that should have
//! expired, and every watch is through.
//!
//! Only the simulator knows both floors: the raftstore itself knows nothing of the metadata.

mod calls;
mod commands;
mod forced;
mod keeping;
mod machine;
mod model;
mod mutations;
mod reference;
mod runs;
mod voting;
mod watchers;

use std::collections::BTreeMap;
use std::time::Duration;

pub(super) use machine::MetaReplica;

use self::calls::{Call, Operator};
use self::commands::Known;
use self::machine::Told;
use self::reference::{Reference, stopped};
use self::watchers::Watchers;
use super::scenario::Plan;
use super::watch::Mark;
use super::world::{Checked, TICK, Violation, World};
use crate::meta::fault;
use crate::raftstore::group::Committed;
use crate::raftstore::log_store::TableWrite;

/// Those who ask for something.
const OPERATORS: usize = 3;

/// A cluster where room is tight has so many times less of it.
const TIGHT: u64 = 4096;

/// How much room the nodes of this run have.
pub(super) fn set_room(plan: &Plan) {
    fault::set_shrink(if plan.tight { TIGHT } else { 1 });
}

/// What is known of the metadata in the whole cluster.
#[derive(Default)]
pub(super) struct Metadata {
    reference: Reference,
    /// Commands, by the operation that each is.
    calls: BTreeMap<usize, Call>,
    operators: Vec<Operator>,
    known: Known,
    /// What a replica's keeper of the time waits for, by its place.
    keepers: BTreeMap<usize, usize>,
    /// The same of who activates members.
    activations: BTreeMap<usize, usize>,
    /// When each term was first led.
    led: BTreeMap<u64, u64>,
    watchers: Watchers,
    /// One node goes on alone.
    is_forced: bool,
}

/// What a batch writes, and the responses to requests.
type Applied = (Vec<TableWrite>, Vec<(u64, Vec<u8>)>);

impl World {
    /// What time it was on a node.
    fn time(&self, host: usize, at: u64) -> Duration {
        Duration::from_micros(at * 1000 * TICK / self.hosts[host].tick)
    }

    fn set_clock(&self, place: usize) {
        fault::set_now(self.time(self.replicas[place].host, self.now));
    }

    /// A replica is opened: its machine finds what is on the disk.
    pub(super) fn start_metadata(&mut self, place: usize) -> Checked {
        if self.metadata.is_none() {
            return Ok(());
        }
        self.set_clock(place);
        let meta = MetaReplica::open(&self.store(place).tables).map_err(|error| stopped(&error))?;
        self.replicas[place].meta = Some(meta);
        self.compare(place, self.replicas[place].machine.applied, "at its start, after")
    }

    /// A batch is applied, and about to be written.
    pub(super) fn apply_metadata(&mut self, place: usize, batch: &[Committed]) -> Result<Applied, Violation> {
        for committed in batch {
            self.refer(&committed.entry)?;
        }
        self.set_clock(place);
        let it = &mut self.replicas[place];
        let entries: Vec<_> = batch.iter().map(|committed| &committed.entry).collect();
        let Some(meta) = &mut it.meta else { return Ok(Default::default()) };
        let (writes, told) = meta.apply(&entries).map_err(|error| stopped(&error))?;
        for entry in &entries {
            let (index, id, cell) = (entry.index().get(), it.id, it.cell);
            it.machine.applied = index;
            let expected = self.metadata.as_ref().and_then(|it| it.reference.digest(index)).unwrap_or_default();
            self.cells[cell].watch.state(id, index, Mark::of(entry), expected)?;
        }
        let mut responses = Vec::new();
        for (committed, told) in batch.iter().zip(told) {
            let Some(request) = committed.request else { continue };
            let bytes = match told {
                Told::Now(bytes) | Told::Before(Some(bytes)) => bytes.to_vec(),
                Told::Nothing | Told::Before(None) | Told::Superseded => Vec::new(),
            };
            responses.push((request.0, bytes));
        }
        self.look_at(place)?;
        Ok((writes, responses))
    }

    /// A batch is written.
    pub(super) fn metadata_written(&mut self, place: usize) -> Checked {
        self.set_clock(place);
        let it = &mut self.replicas[place];
        let applied = it.machine.applied;
        match &mut it.meta {
            Some(meta) => {
                meta.written();
                self.compare(place, applied, "after")
            }
            None => Ok(()),
        }
    }

    /// The tables were replaced by a snapshot's. Says whether they are the metadata's.
    pub(super) fn restore_metadata(&mut self, place: usize) -> Result<bool, Violation> {
        self.set_clock(place);
        let it = &mut self.replicas[place];
        let applied = it.machine.applied;
        let Some(meta) = &mut it.meta else { return Ok(false) };
        meta.restored(applied).map_err(|error| stopped(&error))?;
        self.compare(place, applied, "from a snapshot after")?;
        Ok(true)
    }
}
