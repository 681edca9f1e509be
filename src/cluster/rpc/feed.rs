//! The streams of the service: watches of keys and of events, from the tables of this node into a connection.
//!
//! A stream is a task that holds a position. What the client does not take is not read from the tables: a few messages wait
//! at most. Whoever hears that nothing changed can rely on it: before a node says so it asks the leader, and one that hears
//! of none ends the stream, so that the client goes on elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::failure;
use super::proto::follow_response::Kind as FollowKind;
use super::proto::watch_response::Kind as WatchKind;
use super::proto::{Change, Changes, FollowResponse, Progress, Started, WatchResponse, change};
use crate::meta::apply::Reached;
use crate::meta::proto::KeyRange;
use crate::meta::service::{Backend, Here, Metadata};
use crate::meta::watch::{KvChange, KvUpdate};

/// A stream of answers.
pub(super) type Stream<T> = ReceiverStream<Result<T, Status>>;

/// Messages that wait for one client.
const WAITING: usize = 4;
/// Changes of one revision are sent together up to this size.
const MESSAGE_BYTES: usize = 1 << 20;
/// What a change counts for beside its key and value.
const CHANGE_OVERHEAD_BYTES: usize = 64;
/// How long it may take to hear of a leader.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);
/// The leader is not asked more often for one watch.
const BARRIER_EVERY: Duration = Duration::from_secs(1);

/// A stream that is about to begin.
pub(super) struct Feed {
    pub(super) metadata: Arc<dyn Metadata>,
    pub(super) notice_every: Duration,
    /// Its place among those that may be; free again when it ends.
    pub(super) _place: OwnedSemaphorePermit,
}

/// Why a stream ends: with word to the client, or, without, because that is gone.
type End = Option<Status>;

impl Feed {
    /// What changes of keys and values.
    pub(super) fn keys(self, range: KeyRange, from: u64) -> Stream<WatchResponse> {
        let (messages, stream) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let end = self.send_keys(range, from, &messages).await;
            finish(end, &messages).await;
        });
        ReceiverStream::new(stream)
    }

    /// The event log.
    pub(super) fn events(self, from: u64) -> Stream<FollowResponse> {
        let (messages, stream) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let end = self.send_events(from, &messages).await;
            finish(end, &messages).await;
        });
        ReceiverStream::new(stream)
    }

    async fn send_keys(&self, range: KeyRange, from: u64, messages: &Sender<Result<WatchResponse, Status>>) -> End {
        let from = match self.begin(from).await {
            Ok(reached) => {
                if from == 0 {
                    reached.revision + 1
                } else {
                    from
                }
            }
            Err(status) => return Some(status),
        };
        let message = |kind| Ok(WatchResponse { kind: Some(kind) });
        messages.send(message(WatchKind::Started(Started { next: from }))).await.ok()?;
        // Notices are given here, also while other keys change.
        let mut watch = Here(Arc::clone(&self.metadata)).watch(range, from, Duration::MAX);
        let mut notices = self.notices();
        loop {
            let update = tokio::select! {
                biased;
                () = messages.closed() => return None,
                update = watch.next() => update,
                _ = notices.tick.tick() => {
                    if let Err(status) = notices.check(&*self.metadata).await {
                        return Some(status);
                    }
                    Ok(KvUpdate::Progress { revision: watch.position().saturating_sub(1) })
                }
            };
            match update {
                Err(error) => return Some(failure::watch_status(&error)),
                Ok(KvUpdate::Progress { revision }) => {
                    messages.send(message(WatchKind::Progress(Progress { last: revision }))).await.ok()?;
                }
                Ok(KvUpdate::Changes { revision, changes }) => {
                    for part in parts(revision, changes) {
                        messages.send(message(WatchKind::Changes(part))).await.ok()?;
                    }
                    notices.tick.reset();
                }
            }
        }
    }

    async fn send_events(&self, from: u64, messages: &Sender<Result<FollowResponse, Status>>) -> End {
        let mut next = match self.begin(from).await {
            Ok(reached) => {
                if from == 0 {
                    reached.next_event
                } else {
                    from
                }
            }
            Err(status) => return Some(status),
        };
        let message = |kind| Ok(FollowResponse { kind: Some(kind) });
        messages.send(message(FollowKind::Started(Started { next }))).await.ok()?;
        let mut follow = Here(Arc::clone(&self.metadata)).follow(next);
        let mut notices = self.notices();
        loop {
            let event = tokio::select! {
                biased;
                () = messages.closed() => return None,
                event = follow.next() => event,
                _ = notices.tick.tick() => {
                    if let Err(status) = notices.check(&*self.metadata).await {
                        return Some(status);
                    }
                    let last = next.saturating_sub(1);
                    messages.send(message(FollowKind::Progress(Progress { last }))).await.ok()?;
                    continue;
                }
            };
            match event {
                Err(error) => return Some(failure::watch_status(&error)),
                Ok(event) => {
                    next = event.sequence + 1;
                    messages.send(message(FollowKind::Event(event))).await.ok()?;
                    notices.tick.reset();
                }
            }
        }
    }

    /// How far the tables are. Who begins now, and not somewhere in the history, misses nothing that is acknowledged from
    /// now on, and is given nothing that was before.
    async fn begin(&self, from: u64) -> Result<Reached, Status> {
        if from == 0 {
            barrier(&*self.metadata).await?;
        }
        Ok(*self.metadata.progress().borrow())
    }

    fn notices(&self) -> Notices {
        let mut tick = interval_at(Instant::now() + self.notice_every, self.notice_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Notices { tick, asked: None }
    }
}

/// When the next notice is due, and when the leader was asked, if it was.
struct Notices {
    tick: Interval,
    asked: Option<Instant>,
}

impl Notices {
    /// Before it is said that nothing changed: whether anybody would know.
    async fn check(&mut self, metadata: &dyn Metadata) -> Result<(), Status> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= BARRIER_EVERY) {
            barrier(metadata).await?;
            self.asked = Some(Instant::now());
        }
        Ok(())
    }
}

async fn barrier(metadata: &dyn Metadata) -> Result<(), Status> {
    let deadline = std::time::Instant::now() + BARRIER_TIMEOUT;
    metadata.barrier(deadline).await.map_err(|error| failure::status(&error))
}

async fn finish<T>(end: End, messages: &Sender<Result<T, Status>>) {
    if let Some(status) = end {
        // Who is gone needs no word.
        let _ = messages.send(Err(status)).await;
    }
}

/// The changes of a revision, in messages.
fn parts(revision: u64, changes: Vec<KvChange>) -> Vec<Changes> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for change in changes {
        let (kind, size) = match change {
            KvChange::Put(pair) => {
                let size = pair.key.len() + pair.value.len();
                (change::Kind::Put(pair), size)
            }
            KvChange::Deleted { key } => {
                let size = key.len();
                (change::Kind::Deleted(key), size)
            }
        };
        if bytes > 0 && bytes + size > MESSAGE_BYTES {
            parts.push(Changes { revision, changes: std::mem::take(&mut part), more: true });
            bytes = 0;
        }
        bytes += size + CHANGE_OVERHEAD_BYTES;
        part.push(Change { kind: Some(kind) });
    }
    parts.push(Changes { revision, changes: part, more: false });
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_revision_comes_in_parts() {
        let change = |size| KvChange::Deleted { key: vec![0; size] };
        let sizes = |changes| {
            let parts = parts(7, changes);
            assert!(parts.iter().all(|part| part.revision == 7));
            parts.iter().map(|part| (part.changes.len(), part.more)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(vec![change(1), change(1)]), [(2, false)]);
        assert_eq!(sizes(vec![change(MESSAGE_BYTES), change(1), change(1)]), [(1, true), (2, false)]);
        assert_eq!(sizes((0..3).map(|_| change(MESSAGE_BYTES / 2)).collect()), [(1, true), (1, true), (1, false)]);
    }
}
