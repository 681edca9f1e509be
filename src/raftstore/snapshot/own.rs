//! The state of a machine that keeps its own position, as pairs of a snapshot, version 1; and bringing it from there into
//! the machine. Nobody else makes or parses these bytes. In which order, and why, the [module above](super) tells.
//!
//! ```text
//!  table kv   0                        → version 1 │ index 8 │ term 8, of the last entry whose effects are in it
//!             1 ‖ the machine's key    → the machine's value
//! ```
//!
//! Numbers are little-endian. The first pair is what distinguishes a machine that has to install nothing from one that has
//! to install an empty state. Equal states of one entry have equal pairs, so that they can be hashed.

use super::{Captured, Pair, Place, SnapshotId, SnapshotMeta};
use crate::ident::{GroupId, LogIndex};
use crate::raftstore::entry::Position;
use crate::raftstore::log_store::{GroupStore, KeyValue, StoreError, StoredGroup, Table};
use crate::raftstore::state_machine::{ApplyError, MachineState, StateMachine};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 17;
const HEADER_KEY: &[u8] = &[0];
const MACHINE_PREFIX: u8 = 1;
/// Where the pairs are.
const TABLE: Table = Table::Kv;

/// A captured machine.
struct OwnCaptured {
    meta: SnapshotMeta,
    state: Box<dyn MachineState>,
}

/// Puts together what a machine holds, and what the store says as of which entry that is.
///
/// # Errors
/// The store, or the machine. `None`: the two are not as of one entry, `through`, now.
pub(in crate::raftstore) fn capture(
    store: &dyn GroupStore,
    group: GroupId,
    machine: &mut dyn StateMachine,
    through: LogIndex,
    id: SnapshotId,
) -> Result<Option<Box<dyn Captured>>, ApplyError> {
    let meta = store.capture(group, id)?.meta().clone();
    // A snapshot may just be being taken over, of which the machine does not know yet.
    if meta.position.index != through {
        return Ok(None);
    }
    let Some(snapshots) = machine.snapshots() else { return Ok(None) };
    let state = snapshots.capture()?;
    Ok(Some(Box::new(OwnCaptured { meta, state })))
}

impl Captured for OwnCaptured {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn read(&self, after: Option<&Place>, limit_bytes: usize) -> Result<Vec<Pair>, StoreError> {
        let header = Pair { place: place(HEADER_KEY.to_vec()), value: encode(self.meta.position) };
        let (mut pairs, mut left, mut last) = (Vec::new(), limit_bytes, None);
        match after {
            // Behind all that there is.
            Some(after) if after.table > TABLE => return Ok(pairs),
            Some(after) if *after >= header.place => match after.key.split_first() {
                Some((&MACHINE_PREFIX, key)) => last = Some(key),
                Some((prefix, _)) if *prefix > MACHINE_PREFIX => return Ok(pairs),
                _ => {}
            },
            _ => {
                left = left.saturating_sub(header.size_bytes());
                pairs.push(header);
                if left == 0 {
                    return Ok(pairs);
                }
            }
        }
        let read = self.state.read(last, left)?;
        // Whoever takes it refuses what is not in order, but does not know whose mistake it is.
        let keys = last.into_iter().chain(read.iter().map(|(key, _)| key.as_slice()));
        if !keys.is_sorted_by(|one, next| one < next) {
            let what = "a state machine that keeps its own position gave keys of its state that do not rise";
            return Err(StoreError::Refused(what.into()));
        }
        pairs.extend(read.into_iter().map(|(key, value)| Pair { place: place(machine_key(&key)), value }));
        Ok(pairs)
    }
}

/// What lies in the tables to be installed.
struct Staged<'a> {
    captured: Box<dyn Captured>,
    /// Called with each page.
    progress: &'a (dyn Fn() + Sync),
}

impl MachineState for Staged<'_> {
    fn read(&self, after: Option<&[u8]>, limit_bytes: usize) -> Result<Vec<KeyValue>, StoreError> {
        (self.progress)();
        let after = place(after.map_or_else(|| HEADER_KEY.to_vec(), machine_key));
        let own = |pair: Pair| match (pair.place.table, pair.place.key.split_first()) {
            (TABLE, Some((&MACHINE_PREFIX, key))) => Ok((key.to_vec(), pair.value)),
            _ => Err(damaged("pairs of the machine", format_args!("{:?}", pair.place))),
        };
        self.captured.read(Some(&after), limit_bytes)?.into_iter().map(own).collect()
    }
}

/// Whether the tables of a group hold what its machine has to install, and as of which entry.
///
/// # Errors
/// The store, or what is there is not ours.
pub(in crate::raftstore) fn pending(store: &dyn GroupStore, group: GroupId) -> Result<Option<Position>, StoreError> {
    let header = store.get(group, TABLE, HEADER_KEY)?;
    header
        .map(|bytes| decode(&bytes).ok_or_else(|| damaged("its first pair", format_args!("{bytes:02x?}"))))
        .transpose()
}

/// The same of tables that are only looked at, where nobody says which kind of machine they are of: those of any other look
/// like this by chance at most.
///
/// # Errors
/// The tables cannot be read.
pub(in crate::raftstore) fn seen(
    stored: &StoredGroup,
    first_pairs: impl Fn(Table) -> Result<Vec<KeyValue>, StoreError>,
) -> Result<Option<Position>, StoreError> {
    for table in Table::ALL.into_iter().filter(|table| *table != TABLE) {
        if !first_pairs(table)?.is_empty() {
            return Ok(None);
        }
    }
    let pairs = first_pairs(TABLE)?;
    let Some(((HEADER_KEY, header), rest)) =
        pairs.split_first().map(|((key, value), rest)| ((key.as_slice(), value), rest))
    else {
        return Ok(None);
    };
    let is_machines = rest.iter().all(|(key, _)| key.first() == Some(&MACHINE_PREFIX));
    let is_taken_over = |position: &Position| *position == stored.truncated && position.index == stored.applied;
    Ok(decode(header).filter(|position| is_machines && is_taken_over(position)))
}

/// Steps 3 and 4, behind a flip that is durable: the machine installs what the tables hold, as of this entry.
///
/// # Errors
/// The machine, or the store. It is installed when the group is opened next.
pub(in crate::raftstore) fn install(
    store: &dyn GroupStore,
    group: GroupId,
    machine: &mut dyn StateMachine,
    index: LogIndex,
    progress: &(dyn Fn() + Sync),
) -> Result<(), ApplyError> {
    let pending = pending(store, group)?;
    if pending.map(|position| position.index) != Some(index) {
        let found = format!("{:?}", pending.map(|position| position.to_string()));
        return Err(damaged(&format!("a state as of entry {index}"), found).into());
    }
    let staged = Staged { captured: store.capture(group, SnapshotId::default())?, progress };
    let Some(snapshots) = machine.snapshots() else {
        return Err(ApplyError::Machine("a snapshot is to be installed, and the state machine takes none".into()));
    };
    snapshots.install(index, &staged)?;
    // Were it somewhere else, what is removed now would be missing.
    match machine.own_applied()? {
        Some(own) if own == index => Ok(store.clear(group)?),
        other => {
            let found = other.map_or("nowhere".into(), |own| format!("at {own}"));
            Err(ApplyError::Machine(format!("with a snapshot at {index} installed, the state machine is {found}")))
        }
    }
}

/// Before a group is opened: finishes what a crash interrupted. Says where the machine is then.
///
/// # Errors
/// As of [`install`]; or the group's machine was of another kind when the tables were written.
pub(in crate::raftstore) fn complete(
    store: &dyn GroupStore,
    group: GroupId,
    machine: &mut dyn StateMachine,
    own: LogIndex,
    stored: &StoredGroup,
) -> Result<LogIndex, ApplyError> {
    let Some(pending) = pending(store, group)? else { return Ok(own) };
    if pending != stored.truncated || pending.index != stored.applied {
        let found = format!("one at {pending}: truncated {}, applied {}", stored.truncated, stored.applied);
        return Err(damaged("no state that was to be installed before", found).into());
    }
    if own > pending.index {
        // It came there from what it installed.
        store.clear(group)?;
        return Ok(own);
    }
    tracing::info!(%group, at = %pending, "the state machine installs a snapshot that was taken over before");
    install(store, group, machine, pending.index, &|| ())?;
    Ok(pending.index)
}

fn place(key: Vec<u8>) -> Place {
    Place { table: TABLE, key }
}

fn machine_key(key: &[u8]) -> Vec<u8> {
    let mut prefixed = Vec::with_capacity(key.len() + 1);
    prefixed.push(MACHINE_PREFIX);
    prefixed.extend_from_slice(key);
    prefixed
}

fn encode(position: Position) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.push(VERSION);
    bytes.extend(position.index.get().to_le_bytes());
    bytes.extend(position.term.get().to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let (version, rest) = bytes.split_first()?;
    let (index, term) = rest.split_first_chunk()?;
    let term: [u8; 8] = term.try_into().ok()?;
    (*version == VERSION).then(|| Position::new(u64::from_le_bytes(*index), u64::from_le_bytes(term)))
}

fn damaged(expected: &str, found: impl std::fmt::Display) -> StoreError {
    let place = "what a state machine is to install".into();
    StoreError::Damaged { place, what: format!("expected {expected}, found {found}") }
}

#[cfg(test)]
#[path = "own_test.rs"]
mod tests;
