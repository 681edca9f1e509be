//! The machine of group 0: a thin driver of [`apply`] on the group's tables.
//!
//! All of its state is in the batch that it is given, so effects and applied index are one write. What it tells others,
//! how far keys, values and events are, and which leases run, it tells after that write: whoever hears of a revision
//! finds it in the tables.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::apply::{self, Applier, Reached, Remembered};
use super::clock::{BootClock, Clock, Countdown, Limited, Timers};
use super::command;
use super::fault::{self, Fault};
use super::keys::{self, Cluster, Kv};
use super::metrics;
use super::proto::{ClusterHeader, KvHeader, Lease, Token, TokenState};
use super::view::{StoreView, View, Writes};
use crate::ident::LogIndex;
use crate::raftstore::log_store::{StoreError, Table};
use crate::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};

/// Leases and tokens loaded at a time.
const PAGE: usize = 1000;

/// See the module.
pub struct MetaMachine {
    view: StoreView,
    progress: watch::Sender<Reached>,
    members: watch::Sender<()>,
    timers: Arc<Mutex<Timers>>,
    clock: Clock,
    pending: Option<Pending>,
    /// As the tables are. `None`: to be read from there.
    remembered: Option<Remembered>,
}

/// What the last batch leads to, once it is written.
struct Pending {
    reached: Reached,
    has_new_members: bool,
    countdowns: Vec<Countdown>,
    remembered: Remembered,
    cluster: ClusterHeader,
    kv: KvHeader,
}

/// What a machine tells others about itself.
#[derive(Clone)]
pub struct MachineView {
    /// How far it is; closed when the group stops.
    pub progress: watch::Receiver<Reached>,
    /// Changes when the table of members does, and not when others do; closed when the group stops.
    pub members: watch::Receiver<()>,
    /// What runs out, and when.
    pub timers: Arc<Mutex<Timers>>,
}

impl MetaMachine {
    /// The machine whose state is in these tables. The store must be the one that the group's raftstore has.
    ///
    /// # Errors
    /// The store failed, or the cluster is of a version that this build does not know.
    pub fn open(view: StoreView) -> Result<(MetaMachine, MachineView), ApplyError> {
        MetaMachine::open_by(view, || BootClock.now())
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// See [`MetaMachine::open`].
    pub(crate) fn open_by(view: StoreView, clock: Clock) -> Result<(MetaMachine, MachineView), ApplyError> {
        // A build that was put back must not wait for the first command to find out.
        let (cluster, kv) = Applier::new(&view)?.headers();
        metrics::reached(&cluster, &kv);
        let (progress, receiver) = watch::channel(apply::reached(&view)?);
        let (members, members_receiver) = watch::channel(());
        let timers = Arc::new(Mutex::new(timers_in(&view, clock)?));
        let seen = MachineView { progress: receiver, members: members_receiver, timers: Arc::clone(&timers) };
        Ok((MetaMachine { view, progress, members, timers, clock, pending: None, remembered: None }, seen))
    }
}

impl StateMachine for MetaMachine {
    fn apply(&mut self, commands: &[Command<'_>], batch: &mut ApplyBatch<'_>) -> Result<Vec<Bytes>, ApplyError> {
        // A batch that is not written, or fails, leaves none.
        let mut applier = match self.remembered.take() {
            Some(remembered) => Applier::resume(&self.view, remembered)?,
            None => Applier::new(&self.view)?,
        };
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let applied = applier.apply(command.index, command.data)?;
            metrics::answered(&applied.answer);
            answers.push(Bytes::from(command::encode_answer(applied.version, &applied.answer)));
        }
        let (cluster, kv) = applier.headers();
        let (writes, reached, remembered) = applier.finish();
        if fault::active(Fault::ToldBeforeWritten) {
            self.progress.send_replace(reached);
        }
        let has_new_members = written(&writes, Table::Cluster, Cluster::Member as u8).next().is_some();
        let countdowns = countdowns(&writes)?;
        self.pending = Some(Pending { reached, has_new_members, countdowns, remembered, cluster, kv });
        for (table, writes) in writes {
            for (key, value) in writes {
                match value {
                    Some(value) => batch.put(table, key, value),
                    None => batch.delete(table, key),
                }
            }
        }
        Ok(answers)
    }

    fn restored(&mut self, _: LogIndex) -> Result<(), ApplyError> {
        (self.pending, self.remembered) = (None, None);
        // What runs out begins anew, as it does at a start: never earlier than promised.
        if !fault::active(Fault::TimersNotRestored) {
            *self.timers.lock() = timers_in(&self.view, self.clock)?;
        }
        if !fault::active(Fault::RestoredUntold) {
            self.progress.send_replace(apply::reached(&self.view)?);
            self.members.send_replace(());
        }
        Ok(())
    }

    fn written(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let Pending { reached, has_new_members, countdowns, remembered, cluster, kv } = pending;
        self.remembered = Some(remembered);
        metrics::reached(&cluster, &kv);
        if !countdowns.is_empty() {
            // Now, and not earlier: what was promised begins with the promise.
            let now = (self.clock)();
            let mut timers = self.timers.lock();
            countdowns.into_iter().for_each(|countdown| timers.note(countdown, now));
        }
        self.progress.send_if_modified(|known| std::mem::replace(known, reached) != reached);
        if has_new_members {
            self.members.send_replace(());
        }
    }
}

/// What runs out, of what the tables hold: all of it begins in full now.
fn timers_in(view: &dyn View, clock: Clock) -> Result<Timers, StoreError> {
    let (mut timers, now) = (Timers::default(), clock());
    each(view, Table::Kv, Kv::Lease.all(), |key, value| {
        timers.note(lease_countdown(key, Some(value))?, now);
        Ok(())
    })?;
    each(view, Table::Cluster, Cluster::Token.all(), |key, value| {
        timers.note(token_countdown(key, Some(value))?, now);
        Ok(())
    })?;
    Ok(timers)
}

/// Reads all of a range, page by page.
fn each(
    view: &dyn View,
    table: Table,
    range: std::ops::Range<Vec<u8>>,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (mut from, to) = (range.start, range.end);
    loop {
        let page = view.scan(table, &from..&to, PAGE)?;
        let is_last = page.len() < PAGE;
        for (key, value) in page {
            visit(&key, &value)?;
            from = key;
            from.push(0);
        }
        if is_last {
            return Ok(());
        }
    }
}

/// The writes of a table whose keys begin with this byte.
fn written(writes: &Writes, table: Table, first: u8) -> impl Iterator<Item = (&Vec<u8>, &Option<Vec<u8>>)> {
    let writes = writes.get(&table).into_iter();
    writes.flat_map(move |writes| writes.range(vec![first]..vec![first + 1]))
}

/// What begins to run, anew or at all, and what runs no longer.
fn countdowns(writes: &Writes) -> Result<Vec<Countdown>, StoreError> {
    let leases = written(writes, Table::Kv, Kv::Lease as u8);
    let leases = leases.map(|(key, value)| lease_countdown(key, value.as_deref()));
    let tokens = written(writes, Table::Cluster, Cluster::Token as u8);
    let tokens = tokens.map(|(key, value)| token_countdown(key, value.as_deref()));
    leases.chain(tokens).collect()
}

fn lease_countdown(key: &[u8], value: Option<&[u8]>) -> Result<Countdown, StoreError> {
    let of = Limited::Lease(number(Table::Kv, key)?);
    let lease: Option<Lease> = value.map(|value| keys::decode(Table::Kv, key, value)).transpose()?;
    Ok(Countdown { of, runs: lease.map(|lease| (lease.ttl_ms, lease.renewal)) })
}

fn token_countdown(key: &[u8], value: Option<&[u8]>) -> Result<Countdown, StoreError> {
    let of = Limited::Token(number(Table::Cluster, key)?);
    let token: Option<Token> = value.map(|value| keys::decode(Table::Cluster, key, value)).transpose()?;
    let open = token.filter(|token| token.state() == TokenState::Open);
    Ok(Countdown { of, runs: open.map(|token| (token.ttl_ms, 0)) })
}

/// The number behind the first byte of a key.
fn number(table: Table, key: &[u8]) -> Result<u64, StoreError> {
    let number = key.get(1..).and_then(|number| number.try_into().ok());
    number.map(u64::from_be_bytes).ok_or_else(|| keys::damaged(table, key, "a numbered key", key))
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;

#[cfg(test)]
#[path = "restored_test.rs"]
mod restored_tests;
