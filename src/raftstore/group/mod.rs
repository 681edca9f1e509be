//! Pure: one replica of one group. Messages, proposals, reads, ticks and finished I/O in; [`Effects`] out. No I/O, no
//! clock, no randomness but the seed handed in, so that the simulator runs what production runs.
//!
//! | file | what it holds |
//! |---|---|
//! | `replica` | [`Group`]: raft-rs behind inputs |
//! | `rounds` | what comes out of it: a round of effects |
//! | `admission` | which messages are taken in the state it is in |
//! | `compaction` | up to where the log goes |
//! | `membership` | changes of who takes part, by joint consensus |
//! | `snapshots` | when the state is captured for a follower, and how one of another is taken over |
//! | `hibernation` | when it sleeps, and what wakes it |
//! | `consistency` | the check whether all replicas hold the same |
//! | `health` | a replica that must not lead, and how its state is repaired |
//! | `status` | how it stands |
//! | `persisting` | what is being written, and which messages wait for it (rules of durable order 1 and 2) |
//! | `lease` | reads without asking the others |
//! | `log_view` | the log as raft-rs sees it: the entry cache, and reads of what is not in it |
//! | `terms` | the terms of the whole log, in memory |
//! | `requests` | who waits for which proposal or read |
//! | `inflight` | bytes on their way to each follower |
//! | `validate` | what may reach raft-rs, which panics on broken input |
//!
//! **The driver's part.** After any input it takes [`Group::effects`] and carries them out. It writes in order and
//! reports a write once it is durable, applies in order and reports what is applied, and stops the replica when either
//! fails. Everything else, such as which message may leave before which write is durable, is decided here.
//!
//! **Positions.** `truncated ≤ applied ≤ min(committed, persisted)` and `persisted, committed ≤ last`; each only rises
//! in one life of a replica, but `persisted` and `last` fall when a new leader replaces entries that were not committed.
//! While a snapshot is taken over, `truncated` is already its entry and `applied` not yet.

mod admission;
mod compaction;
mod config;
mod consistency;
mod effects;
mod health;
#[cfg(test)]
mod health_test;
mod hibernation;
mod inflight;
mod lease;
mod log_view;
mod membership;
mod persisting;
mod replica;
#[cfg(test)]
mod replica_test;
mod requests;
mod rounds;
mod snapshots;
mod status;
mod terms;
mod validate;

pub use config::GroupConfig;
pub use effects::{
    Answer, Committed, Effects, Follower, GroupStatus, LogRead, Persist, PersistId, Positions, Refusal, RequestId,
    Role, Sending,
};
pub use health::NoRepair;
pub use hibernation::Sleep;
pub use membership::{ChangeRefusal, MembershipChange};
pub use replica::{Group, GroupError, OwnPosition};
pub use snapshots::Offered;
pub use terms::TermRuns;
pub use validate::Rejected;

use super::entry::ENTRY_OVERHEAD_BYTES;
