//! Snapshots on their way: captured from the sender's disk, sent part by part, and filled beside what the receiver shows.
//! A transfer ends when a part is lost, or either side does not live any more.

use super::disk::Op;
use super::replica::Replica;
use super::seen::Happening;
use super::tables::Tables;
use super::watch::Mark;
use super::world::{Checked, Event, World};
use crate::ident::ReplicaId;
use crate::raftstore::entry::Entry;
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::group::{Offered, Rejected};
use crate::raftstore::log_store::TableWrite;
use crate::raftstore::message::Message;
use crate::raftstore::snapshot::{SnapshotId, SnapshotMeta};

/// Parts that a snapshot is sent in, at most.
const MAX_PARTS: u64 = 4;

/// A captured state, with the log that it stands for: the checks want to know that.
#[derive(Clone)]
pub(super) struct Captured {
    pub(super) meta: SnapshotMeta,
    pub(super) tables: Tables,
    pub(super) log: Vec<Entry>,
    is_right: bool,
}

/// What a disk holds of one that is not visible yet.
#[derive(Clone)]
pub(super) struct Filling {
    pub(super) id: SnapshotId,
    /// Of which transfer: a later one of the same snapshot takes over from an earlier one.
    pub(super) transfer: u64,
    pub(super) tables: Tables,
    pub(super) log: Vec<Entry>,
    pub(super) is_complete: bool,
}

/// Part of a snapshot, as it is written.
#[derive(Clone)]
pub(super) enum Fill {
    Begin(SnapshotId, u64, Vec<Entry>),
    Part(SnapshotId, Vec<TableWrite>),
    Last(SnapshotId),
}

/// A snapshot on its way.
pub(super) struct Transfer {
    number: u64,
    from: usize,
    from_life: u32,
    pub(super) to: usize,
    to_life: u32,
    message: Message,
    captured: Captured,
    parts: Vec<Vec<TableWrite>>,
    is_begun: bool,
}

impl World {
    /// The state is captured as it is on the disk now, or in a machine that keeps its own position.
    pub(super) fn capture(&mut self, place: usize, id: SnapshotId) -> Checked {
        let own = self.plan.own_machine;
        if own && self.replicas[place].machine.applied != self.store(place).applied {
            // It gets once more what it has forgotten, or is given what it knows.
            let Replica { host, life, .. } = self.replicas[place];
            let again = self.delay(host, self.plan.read_delay);
            self.after(again, Event::Capture { place, life, id });
            return Ok(());
        }
        let is_right = self.is_right(place);
        let it = &mut self.replicas[place];
        let store = self.hosts[it.host].disk.current.of(place);
        let membership = store.membership.clone();
        let tables = if own { Tables::of(&it.machine.registers) } else { store.tables.clone() };
        let meta = SnapshotMeta { id, position: store.position(store.applied), membership };
        let log = store.log.iter().take(store.applied as usize).cloned().collect();
        it.captured = Some(Captured { meta: meta.clone(), tables, log, is_right });
        self.seen.note(Happening::Captured);
        self.note(|_| format!("{}: captured {meta:?}", place + 1));
        let Some(group) = &mut self.replicas[place].group else { return Ok(()) };
        group.captured(meta);
        self.drive(place)
    }

    /// A snapshot leaves.
    pub(super) fn send_snapshot(&mut self, from: usize, message: Message) {
        let to = self.place(self.replicas[from].cell, message.to());
        let (from_life, to_life) = (self.replicas[from].life, self.replicas[to].life);
        let offered = message.snapshot().map(|meta| meta.id);
        let captured = self.replicas[from].captured.clone().filter(|captured| Some(captured.meta.id) == offered);
        let Some(captured) = captured else { return self.report(from, from_life, to, false) };
        let count = self.rng.range(1, MAX_PARTS) as usize;
        let mut parts = vec![Vec::new(); count];
        for (place, pair) in captured.tables.contents().into_iter().enumerate() {
            parts[place % count].push(pair);
        }
        self.requests += 1;
        let number = self.requests;
        let transfer = Transfer { number, from, from_life, to, to_life, message, captured, parts, is_begun: false };
        let delay = self.message_delay();
        self.after(delay, Event::Part(Box::new(transfer)));
    }

    /// The next part of a snapshot arrives.
    pub(super) fn part(&mut self, mut transfer: Box<Transfer>) -> Checked {
        let (from, to) = (transfer.from, transfer.to);
        let lost = self.blocked[self.replicas[from].host][self.replicas[to].host]
            || (!self.healed && self.rng.chance(self.plan.dropped));
        let lives = self.replicas[to].life == transfer.to_life && self.replicas[to].group.is_some();
        if lost || !lives || self.replicas[from].life != transfer.from_life {
            self.seen.note(Happening::TransferBroken);
            self.report(from, transfer.from_life, to, false);
            return Ok(());
        }
        let id = transfer.captured.meta.id;
        if !std::mem::replace(&mut transfer.is_begun, true) {
            if !self.offer(to, &transfer)? {
                self.report(from, transfer.from_life, to, false);
                return self.drive(to);
            }
            self.write(to, Op::Fill(Fill::Begin(id, transfer.number, transfer.captured.log.clone())));
        }
        let is_current = self
            .store(to)
            .filling
            .as_ref()
            .is_some_and(|filling| filling.id == id && filling.transfer == transfer.number);
        if !is_current {
            self.report(from, transfer.from_life, to, false);
            return Ok(());
        }
        if let Some(part) = transfer.parts.pop() {
            self.write(to, Op::Fill(Fill::Part(id, part)));
        }
        let early = fault::active(Fault::FlippedIncomplete) && transfer.parts.len() == 1;
        if !transfer.parts.is_empty() && !early {
            let delay = self.message_delay();
            self.after(delay, Event::Part(transfer));
            return Ok(());
        }
        self.write(to, Op::Fill(Fill::Last(id)));
        self.take_over(to, &transfer)?;
        self.report(from, transfer.from_life, to, true);
        self.drive(to)
    }

    /// Says whether the receiver wants it.
    fn offer(&mut self, place: usize, transfer: &Transfer) -> Result<bool, super::world::Violation> {
        self.rouse(place, Happening::WokenByMessage);
        let busy = self.store(place).filling.is_some() && self.rng.chance(500);
        let Some(group) = &mut self.replicas[place].group else { return Ok(false) };
        let offered = group.offered(&transfer.message);
        self.note(|_| format!("{}: offered {:?}: {offered:?}", place + 1, transfer.captured.meta.position));
        match offered {
            Ok(Offered::Take(_)) if busy => Ok(false),
            Ok(Offered::Take(meta)) if meta == transfer.captured.meta => Ok(true),
            Ok(Offered::NotNeeded) if fault::active(Fault::OldSnapshotAccepted) => Ok(true),
            Ok(Offered::NotNeeded) => {
                self.seen.note(Happening::SnapshotNotNeeded);
                Ok(false)
            }
            Ok(Offered::Busy) | Err(Rejected::NotAMember) => Ok(false),
            // It left while the sender was a member, and arrives when the receiver knows that it is none any more.
            Err(Rejected::Removed) => {
                self.seen.note(Happening::RemovedRefused);
                Ok(false)
            }
            other => {
                super::world::violated("honest messages are taken", format!("{other:?}"))?;
                Ok(false)
            }
        }
    }

    fn take_over(&mut self, place: usize, transfer: &Transfer) -> Checked {
        self.rouse(place, Happening::WokenByMessage);
        let it = &mut self.replicas[place];
        let Some(group) = &mut it.group else { return Ok(()) };
        let taken = group.take_over(transfer.message.clone());
        let position = transfer.captured.meta.position;
        self.note(|_| format!("{}: filled {position:?}, taken over: {taken}", place + 1));
        let it = &mut self.replicas[place];
        if taken {
            it.taking = Some(transfer.captured.log.iter().map(Mark::of).collect());
            it.trust.may_be_wrong |= !transfer.captured.is_right;
        } else if fault::active(Fault::OldSnapshotAccepted) {
            self.hosts[it.host].disk.write(place, Op::Moved(transfer.captured.meta.id, position));
            it.machine.applied = position.index.get();
            it.machine.registers = transfer.captured.tables.registers();
        }
        Ok(())
    }

    /// The sender hears what became of it.
    fn report(&mut self, place: usize, life: u32, to: usize, arrived: bool) {
        let delay = self.message_delay();
        self.after(delay, Event::SnapshotSent { place, life, to, arrived });
    }

    pub(super) fn snapshot_sent(&mut self, place: usize, to: usize, arrived: bool) -> Checked {
        self.rouse(place, Happening::WokenByMessage);
        let to_id = ReplicaId::new(self.replicas[to].id);
        let Some(group) = &mut self.replicas[place].group else { return Ok(()) };
        group.snapshot_sent(to_id, arrived);
        self.drive(place)
    }
}
