//! Snapshots: a group's applied state, captured as of one entry, for a replica that is too far behind for the log.
//!
//! **What a snapshot is.** The pairs of all tables of a group in the order of [`Place`], with the position of the last
//! applied entry and the membership as of there. The three are captured together ([`SnapshotStore::capture`]), while
//! writes go on.
//!
//! **How it travels.** The leader's replica offers it with the message that Raft made for it. The receiver takes the
//! pairs chunk by chunk into a generation of tables that nobody sees ([`SnapshotStore::fill`]), and only when the last
//! one is there does Raft get the message. What comes out of Raft then is one [`Restore`], which makes the new generation
//! visible together with applied index, membership, and a log that begins behind it (rule of durable order 3). Until
//! then the replica is what it was before; a crash leaves nothing but tables that the next start removes.
//!
//! **A machine that keeps its own position** has a store of its own, and two stores share no batch. Its state travels and
//! is filled in the same way, as pairs of one table (`snapshot::own`). The tables of its group are otherwise empty, so what is
//! visible in them is what it still has to install:
//!
//! ```text
//!              tables of the group    applied    log             the machine
//!  1 filled    an unseen generation   old        old             at its own position, at most I
//!  2 flipped   the state as of I      I          empty, from I   the same                        one batch, synced
//!  3 installed the state as of I      I          empty           at I, durably                   the machine's own step
//!  4 cleared   empty                  I          goes on         at I                            one batch, not synced
//! ```
//!
//! Only now is the snapshot's entry said to be applied; until then nothing behind it is, nothing reads here, no other
//! snapshot is taken, and the log is not compacted. If we die
//! - before 2 is durable, the replica is what it was: a prefix of the store's batches, and a machine that knows nothing yet;
//! - between 2 and 4, the tables still hold the state: whoever opens the group installs it, once more if need be, before
//!   anything else. *That it is there decides, and not the machine's position alone*: a replica whose state was found to be
//!   wrong is given the right one as of the entry that it is at already. But a machine that says it is behind I has
//!   installed it, since nothing else brings it there, and only step 4 is missing;
//! - after 4 without its being durable, as between 3 and 4. Whatever was written later is lost with it, so the log still goes
//!   on behind I, for as far as the machine may have come meanwhile.
//!
//! So the machine is never ahead of the log, never behind what was truncated, and never told twice what it holds. The other
//! order, the machine first, would need a record of its own to complete the flip from, and a machine that can go back.
//! The price is that the state is written twice.

pub mod chunk;
pub(super) mod header;
pub(super) mod own;

use std::fmt;

use super::entry::{Membership, Position};
use super::log_store::{StoreError, Table};
use crate::ident::GroupId;

/// Names one captured state. Drawn at random when it is captured: a transfer that broke off goes on only with the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u64);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Its name.
    pub id: SnapshotId,
    /// The last entry whose effects are in it.
    pub position: Position,
    /// The membership as of that entry.
    pub membership: Membership,
}

/// Where a pair stands in a snapshot: tables in their order, keys in theirs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The table.
    pub table: Table,
    /// The machine's key.
    pub key: Vec<u8>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Where it stands.
    pub place: Place,
    /// The value.
    pub value: Vec<u8>,
}

impl Pair {
    /// How many bytes it counts for in every bound.
    pub fn size_bytes(&self) -> usize {
        self.place.key.len() + self.value.len() + PAIR_OVERHEAD_BYTES
    }
}

/// What a pair takes beyond key and value.
const PAIR_OVERHEAD_BYTES: usize = 16;

/// A captured state. It does not change, however the group goes on, and holds on to what it needs until it is dropped.
pub trait Captured: Send + Sync + 'static {
    /// What it is of. Its id is the one it was captured under.
    fn meta(&self) -> &SnapshotMeta;

    /// The pairs behind a place, or from the first on, up to `limit_bytes` but at least one. Empty at the end.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn read(&self, after: Option<&Place>, limit_bytes: usize) -> Result<Vec<Pair>, StoreError>;
}

/// Captures and takes snapshots of groups whose state machines live in tables.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Captures applied state, position and membership of a group as of one moment, without holding up its writes.
    ///
    /// # Errors
    /// See [`StoreError`]; [`Refused`](StoreError::Refused) if there is no such group.
    fn capture(&self, group: GroupId, id: SnapshotId) -> Result<Box<dyn Captured>, StoreError>;

    /// How much room there is for what is filled; `None`: nobody knows.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Begins to fill the generation behind the one to be seen, or goes on: answers the last place that is there, if
    /// this very snapshot was being filled since the store was opened. One of another id that was begun before is
    /// removed. Not synced: a fill is worth nothing after a crash.
    ///
    /// # Errors
    /// See [`StoreError`]; [`Refused`](StoreError::Refused) if there is no such group, or the snapshot does not bring it
    /// forward.
    fn begin_fill(&self, group: GroupId, meta: &SnapshotMeta) -> Result<Option<Place>, StoreError>;

    /// Adds pairs, which come in order, behind those that are there. With `is_last` the snapshot is complete.
    ///
    /// # Errors
    /// See [`StoreError`]; [`Refused`](StoreError::Refused) if this snapshot is not being filled (any more), is complete,
    /// or the pairs are not in order. Then nothing was written, and the fill is as before.
    fn fill(&self, group: GroupId, id: SnapshotId, pairs: &[Pair], is_last: bool) -> Result<(), StoreError>;

    /// Removes what was filled. Nothing happens if this snapshot is not being filled.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn abandon_fill(&self, group: GroupId, id: SnapshotId) -> Result<(), StoreError>;

    /// Removes all that the tables of a group show, in one write that is not synced. Applied index and membership stay. For
    /// machines that keep their own position and have installed what was there; called where effects are applied.
    ///
    /// # Errors
    /// See [`StoreError`]; [`Refused`](StoreError::Refused) if there is no such group.
    fn clear(&self, group: GroupId) -> Result<(), StoreError>;
}

/// Takes over a snapshot that was filled completely: part of a [`LogWrite`](super::log_store::LogWrite).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// Which.
    pub id: SnapshotId,
    /// The last entry whose effects are in it: applied and truncated are this afterwards, and the log is empty.
    pub position: Position,
    /// The membership as of that entry.
    pub membership: Membership,
}
