//! Snapshots between nodes: what sending and taking them have in common.
//!
//! | room | what it holds |
//! |---|---|
//! | [`sender`] | a task per snapshot: reads, throttles, sends, and tries again when the link breaks |
//! | [`receiver`] | a task per call: checks what comes, and hands it to an [`Incoming`](super::Incoming) |
//!
//! ```text
//!  Captured ─read─► chunk ─► throttle ─► two ahead ─► call, connection of its own ═══► check ─take─► Incoming
//!           blocking thread                                                                  blocking thread
//! ```
//!
//! **Heartbeats.** Each attempt has a connection of its own. On the one that carries envelopes, a snapshot whose receiver
//! is slow would fill HTTP/2's window of the whole connection, and then no heartbeat would pass until the receiver's disk
//! caught up; and what the kernel has taken stands before everything later.
//!
//! **Resuming.** What broke off is offered again, in full, and the receiver says what it has. So nothing is remembered
//! here but how often it was tried, and it does not matter which side lost what.
//!
//! **Bounds.** Snapshots at once, in both directions, are settings. Beyond `max_snapshots_out`, [`WAITING_LIMIT`] wait. A
//! snapshot is given up after [`ATTEMPTS`] failures in a row between which nothing new arrived, or when the receiver was
//! busy [`BUSY_ATTEMPTS`] times in a row. Of each, some chunks are in memory: [`CHUNKS_AHEAD`] and what HTTP/2's window
//! lets out on the sending side, the window and one chunk on the receiving side.

pub(super) mod receiver;
pub(super) mod sender;

use std::time::Duration;

use super::{SnapshotRefused, SnapshotUnsent};
use crate::net::backoff::Backoff;
use crate::raftstore::log_store::StoreError;
use crate::raftstore::snapshot::Place;
use crate::raftstore::snapshot::chunk::ChunkError;

/// So many snapshots may wait until another one is through. Each holds on to a captured state, so they are few.
pub(super) const WAITING_LIMIT: usize = 16;
/// Failures in a row until a snapshot is given up.
const ATTEMPTS: u32 = 8;
/// Refusals of a busy receiver in a row until a snapshot is given up. With the default settings that is half a minute.
const BUSY_ATTEMPTS: u32 = 64;
/// Chunks that are read before the connection has taken those before them.
const CHUNKS_AHEAD: usize = 2;
/// A call on which the other side does nothing for so long has ended. Far above what the slowest throttle makes of the
/// largest chunk; a peer that is gone is noticed much earlier, by HTTP/2's own pings.
const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// What is called when a snapshot was sent or given up. Dropped before, it says that the snapshot was given up.
pub(super) struct Promise(Option<Done>);

type Done = Box<dyn FnOnce(Result<(), SnapshotUnsent>) + Send>;

impl Promise {
    pub(super) fn new(done: Done) -> Promise {
        Promise(Some(done))
    }

    pub(super) fn keep(mut self, result: Result<(), SnapshotUnsent>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            let why = "a newer one took its place, the node was forgotten, or the transport stopped";
            done(Err(SnapshotUnsent::Failed(why.to_owned())));
        }
    }
}

/// How an attempt to send a snapshot ended, other than well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The receiver does not want it, or not now.
    #[error("{0}")]
    Refused(#[from] SnapshotRefused),
    /// The link. Another attempt may do better.
    #[error("{0}")]
    Lost(String),
    /// No other attempt can do better: it cannot be read, or a newer one took its place.
    #[error("{0}")]
    Final(String),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Broken {
        Broken::Final(error.to_string())
    }
}

impl From<ChunkError> for Broken {
    fn from(error: ChunkError) -> Broken {
        Broken::Final(error.to_string())
    }
}

/// Pure: whether and when a snapshot is tried again.
pub(super) struct Retries {
    backoff: Backoff,
    /// In a row, since something new arrived.
    failures: u32,
    /// In a row.
    busy: u32,
    /// How far the receiver was at the latest offer.
    reached: Option<Place>,
}

impl Retries {
    pub(super) fn new(backoff: Backoff) -> Retries {
        Retries { backoff, failures: 0, busy: 0, reached: None }
    }

    /// The receiver took the offer, and has everything up to a place.
    pub(super) fn accepted(&mut self, resume_after: Option<&Place>) {
        self.busy = 0;
        // However often a link breaks: what gets on, ends.
        if resume_after > self.reached.as_ref() {
            self.failures = 0;
            self.reached = resume_after.cloned();
        }
    }

    /// How long to wait after an attempt that failed.
    ///
    /// # Errors
    /// It is given up.
    pub(super) fn after(&mut self, broken: &Broken, random: u64) -> Result<Duration, SnapshotUnsent> {
        match broken {
            Broken::Refused(SnapshotRefused::Unwanted(reason)) => Err(SnapshotUnsent::Refused(reason.clone())),
            Broken::Final(what) => Err(SnapshotUnsent::Failed(what.clone())),
            Broken::Refused(SnapshotRefused::Busy) => {
                self.busy += 1;
                if self.busy >= BUSY_ATTEMPTS {
                    return Err(SnapshotUnsent::Failed(format!("the receiver was busy {} times in a row", self.busy)));
                }
                Ok(self.backoff.delay(self.busy, random))
            }
            Broken::Lost(why) => {
                self.failures += 1;
                if self.failures >= ATTEMPTS {
                    return Err(SnapshotUnsent::Failed(format!(
                        "{} attempts failed, the last one: {why}",
                        self.failures
                    )));
                }
                Ok(self.backoff.delay(self.failures, random))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raftstore::log_store::Table;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(1) };

    fn lost() -> Broken {
        Broken::Lost("cut".to_owned())
    }

    #[test]
    fn a_link_that_gets_nowhere_is_given_up_and_one_that_gets_on_is_not() {
        let mut retries = Retries::new(BACKOFF);
        for _ in 1..ATTEMPTS {
            retries.accepted(None);
            assert!(retries.after(&lost(), 0).is_ok());
        }
        let given_up = retries.after(&lost(), 0).unwrap_err();
        assert_eq!(given_up.to_string(), "the snapshot could not be sent: 8 attempts failed, the last one: cut");

        let mut retries = Retries::new(BACKOFF);
        for key in 0..100 {
            let place = Place { table: Table::Kv, key: vec![key] };
            retries.accepted(Some(&place));
            assert_eq!(retries.after(&lost(), 1 << 63).unwrap(), BACKOFF.delay(1, 1 << 63));
            retries.accepted(Some(&place));
            assert_eq!(retries.after(&lost(), 1 << 63).unwrap(), BACKOFF.delay(2, 1 << 63));
        }
    }

    #[test]
    fn a_busy_receiver_is_asked_again_for_a_while_and_others_only_once() {
        let busy = Broken::Refused(SnapshotRefused::Busy);
        let mut retries = Retries::new(BACKOFF);
        for _ in 1..BUSY_ATTEMPTS {
            assert!(retries.after(&busy, 0).is_ok());
        }
        retries.accepted(None);
        for _ in 1..BUSY_ATTEMPTS {
            assert!(retries.after(&busy, 0).is_ok());
        }
        assert!(matches!(retries.after(&busy, 0), Err(SnapshotUnsent::Failed(_))));

        let refused = |broken| Retries::new(BACKOFF).after(&broken, 0).unwrap_err();
        let unwanted = SnapshotRefused::Unwanted("old".to_owned());
        assert_eq!(refused(unwanted.into()), SnapshotUnsent::Refused("old".to_owned()));
        assert!(matches!(refused(StoreError::Failed("disk".to_owned()).into()), SnapshotUnsent::Failed(_)));
    }

    #[test]
    fn a_promise_is_kept_once_whatever_happens() {
        let (sender, kept) = std::sync::mpsc::channel();
        let promise = |sender: &std::sync::mpsc::Sender<_>| {
            let sender = sender.clone();
            Promise::new(Box::new(move |result| sender.send(result).unwrap()))
        };
        promise(&sender).keep(Ok(()));
        drop(promise(&sender));
        drop(sender);
        let kept: Vec<_> = kept.iter().collect();
        assert!(matches!(kept.as_slice(), [Ok(()), Err(SnapshotUnsent::Failed(_))]), "{kept:?}");
    }
}
