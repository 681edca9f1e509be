//! The driver: what turns a mailbox into effects, and effects into I/O.
//!
//! ```text
//!   handles ──▶┌─────────┐   ┌────────┐──▶ persist thread ── one batch, one sync ──┐
//!   inbox   ──▶│ mailbox │──▶│ driver │──▶ apply threads ─── effects + applied ────┤──▶ mailbox
//!   ticks   ──▶└─────────┘   └────────┘──▶ log reader ─────── parts of the log ────┘
//!                                  └─────▶ transport
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `raft_store` | [`RaftStore`]: opens groups, starts and stops the threads |
//! | `handle` | [`GroupHandle`]: proposals, reads, status; every request resolves exactly once |
//! | `mailbox` | bounded: what does not fit is shed, the loop never blocks |
//! | `driver` | turns inputs into effects: it owns the pure [`Group`](super::group::Group)s |
//! | `seat` | who turns the driver: its thread, or in calm whoever brings an input |
//! | `turn` | what one turn of the driver hands out, gathered over all groups |
//! | `hibernation` | groups that sleep, and other nodes' lives |
//! | `persist` | gathers log writes into one batch and one sync |
//! | `apply` | state machines: effects and applied indexes of several groups in one write |
//! | `checks` | consistency checks: states captured, hashed and compared |
//! | `health` | how the raftstore is; the watchdog |
//! | `membership` | who takes part: changes, and word for those that were removed |
//! | `snapshots` | states on their way to and from other nodes |
//! | `metrics` | names and units |
//!
//! **A failed write stops the store**: nothing that was promised rests on it, everyone who waits hears "unknown", and
//! [`RaftStore::failed`] resolves. A command that cannot be applied stops its group on this replica; it is never
//! skipped. **Damage** that is met in reading concerns its group alone: a state is replaced by a snapshot, a log stops the
//! group, because a replica that lost what it acknowledged must not vote or acknowledge as if it had it.

mod apply;
mod checks;
mod clock;
mod driver;
mod error;
mod handle;
mod health;
mod hibernation;
mod mailbox;
mod membership;
pub mod metrics;
mod persist;
mod raft_store;
mod seat;
mod snapshots;
mod turn;

pub use error::{
    ChangeError, CheckError, GroupFailure, OpenError, ProposeError, ReadError, StoreStopped, TransferError,
};
pub use handle::{GroupHandle, GroupView};
pub use health::{GroupTrouble, Health, Stall, Worker};
pub use mailbox::MailboxConfig;
pub use persist::Written;
pub use raft_store::{RaftStore, StoreConfig};

#[cfg(test)]
#[path = "store_test.rs"]
mod tests;
