//! Lets expire what is due, while this node leads.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::clock::{BootClock, Timers};
use super::command::{self, action};
use super::limits::MAX_EXPIRED;
use super::proto::Command;
use super::proto::action::Kind;
use super::raft::RaftMetadata;
use crate::raftstore::group::{Positions, Role};
use crate::raftstore::store::{GroupView, ProposeError};

/// How often it is looked what is due: what has run out lasts this much longer at most, and the time that a proposal takes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A task that runs on each node of the group. Dropped, it stops.
pub struct Timekeeper(JoinHandle<()>);

impl Timekeeper {
    /// Begins. Has to be called on a tokio runtime.
    pub fn start(metadata: Arc<RaftMetadata>) -> Timekeeper {
        Timekeeper(tokio::spawn(keep_time(metadata)))
    }

    /// Stops, and waits until the task holds nothing any more.
    pub async fn stop(mut self) {
        self.0.abort();
        // It was told to end like this.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Timekeeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What this node has to propose now, if it leads and anything is due.
pub(crate) fn expiry(timers: &Mutex<Timers>, positions: &Positions, now: Duration, unix_ms: u64) -> Option<Command> {
    let leads = (positions.role == Role::Leader).then_some(positions.term);
    let expire = timers.lock().due(leads, now, MAX_EXPIRED);
    let is_due = !expire.leases.is_empty() || !expire.tokens.is_empty();
    is_due.then(|| Command {
        actor: "mainstay".to_owned(),
        reason: "its time was over".to_owned(),
        unix_ms,
        actions: vec![action(Kind::Expire(expire))],
    })
}

async fn keep_time(metadata: Arc<RaftMetadata>) {
    let group = metadata.group();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let GroupView { status, failure } = group.view();
        if failure.is_some() {
            return;
        }
        let timers = &metadata.machine().timers;
        let Some(command) = expiry(timers, &status.positions, BootClock.now(), super::client::unix_ms()) else {
            continue;
        };
        // Whatever became of it: what is still due then is found again, and what was renewed meanwhile stays.
        match group.propose(command::encode(&command)).await {
            Ok(_) | Err(ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::Unknown { .. }) => {}
            Err(error) => tracing::warn!(%error, "what is due cannot expire"),
        }
    }
}
