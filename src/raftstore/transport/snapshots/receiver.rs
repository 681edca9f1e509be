//! Taking snapshots: a task for each call, until everything was taken or the call ends otherwise.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::STALL_TIMEOUT;
use crate::ident::{GroupId, NodeId};
use crate::net::identity::Identity;
use crate::raftstore::message::Envelope;
use crate::raftstore::snapshot::SnapshotId;
use crate::raftstore::snapshot::chunk::{Chunk, ChunkError, check};
use crate::raftstore::transport::grpc::Shared;
use crate::raftstore::transport::metrics::SnapshotsReceived;
use crate::raftstore::transport::receiver::status;
use crate::raftstore::transport::wire::{SnapshotAnswer, SnapshotChunk, SnapshotFrame, SnapshotKind, SnapshotOffer};
use crate::raftstore::transport::{Incoming, SnapshotRefused};

/// What is answered on one call: hello, accepted, and how it ended.
pub(in super::super) const ANSWERS: usize = 3;

/// The snapshots that are being taken: one of each group from each node.
#[derive(Default)]
pub(in super::super) struct Takings(HashMap<(NodeId, GroupId), Option<oneshot::Sender<Infallible>>>);

impl Takings {
    /// Lets a snapshot begin, unless one is being taken already. That one is told to end: its sender would not come
    /// again if it still had a use for it.
    pub(in super::super) fn begin(&mut self, node: NodeId, group: GroupId) -> Option<oneshot::Receiver<Infallible>> {
        match self.0.entry((node, group)) {
            Entry::Occupied(mut earlier) => {
                earlier.insert(None);
                None
            }
            Entry::Vacant(vacant) => {
                let (stop, stopped) = oneshot::channel();
                vacant.insert(Some(stop));
                Some(stopped)
            }
        }
    }

    /// Tells all that come from a node to end.
    pub(in super::super) fn stop(&mut self, node: NodeId) {
        self.0.iter_mut().filter(|((from, _), _)| *from == node).for_each(|(_, stop)| *stop = None);
    }
}

/// A snapshot's place among those that are being taken.
struct Slot {
    shared: Arc<Shared>,
    key: (NodeId, GroupId),
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.admissions.lock().takings.0.remove(&self.key);
    }
}

/// A snapshot that is being taken, wherever that is just done.
struct Taking {
    incoming: Box<dyn Incoming>,
    /// Behind it: the place is free when the snapshot has been let go.
    _slot: Slot,
}

/// How a call ends before its snapshot is complete.
enum End {
    Refused(SnapshotRefused),
    Status(Status),
}

impl From<SnapshotRefused> for End {
    fn from(refused: SnapshotRefused) -> End {
        End::Refused(refused)
    }
}

impl From<Status> for End {
    fn from(status: Status) -> End {
        End::Status(status)
    }
}

impl From<ChunkError> for End {
    fn from(error: ChunkError) -> End {
        End::Status(match error {
            ChunkError::Checksum { .. } => Status::data_loss(format!("a chunk was damaged on its way: {error}")),
            _ => Status::invalid_argument(format!("a chunk cannot be read: {error}")),
        })
    }
}

/// A call of a node that proved who it is.
pub(in super::super) struct Call {
    pub(in super::super) shared: Arc<Shared>,
    pub(in super::super) peer: Identity,
    pub(in super::super) answers: mpsc::Sender<Result<SnapshotAnswer, Status>>,
}

impl Call {
    pub(in super::super) async fn run(self, mut frames: Streaming<SnapshotFrame>) {
        let counts = SnapshotsReceived::from(self.peer.node);
        let ended = self.take(&mut frames, &counts).await;
        let node = self.peer.node;
        let answer = match ended {
            Ok(()) => {
                counts.ok();
                Ok(SnapshotAnswer::finished())
            }
            Err(End::Refused(refused)) => {
                counts.refused(&refused);
                tracing::debug!(peer = %node, "a snapshot was refused: {refused}");
                Ok(SnapshotAnswer::refusal(&refused))
            }
            Err(End::Status(status)) => {
                counts.broken();
                tracing::info!(peer = %node, "a snapshot broke off: {}", status.message());
                Err(status)
            }
        };
        // There is room; or nobody waits for it.
        let _ = self.answers.try_send(answer);
    }

    async fn take(&self, frames: &mut Streaming<SnapshotFrame>, counts: &SnapshotsReceived) -> Result<(), End> {
        let offered = timeout(self.shared.config.connect_timeout, frames.message()).await;
        let offered = offered.map_err(|_| Status::deadline_exceeded("no offer came"))??;
        let Some(SnapshotKind::Offer(SnapshotOffer { snapshot, envelope: Some(offer) })) =
            offered.and_then(|frame| frame.kind)
        else {
            return Err(Status::invalid_argument("an offer was expected").into());
        };
        let snapshot = SnapshotId(snapshot);
        let (slot, mut stopped) = self.begin(offer.group)?;
        let mut taking = self.accept(offer, slot).await?;
        let mut number = 0;
        loop {
            let frame = tokio::select! {
                biased;
                _ = &mut stopped => return Err(Status::aborted("a newer call of your node took over").into()),
                frame = timeout(STALL_TIMEOUT, frames.message()) => frame,
            };
            let frame =
                frame.map_err(|_| Status::deadline_exceeded(format!("nothing came for {STALL_TIMEOUT:?}")))??;
            let Some(SnapshotKind::Chunk(chunk)) = frame.and_then(|frame| frame.kind) else {
                return Err(Status::invalid_argument("a chunk was expected").into());
            };
            if chunk.number != number {
                let gap = format!("chunk {number} was expected, and {} came", chunk.number);
                return Err(Status::invalid_argument(gap).into());
            }
            counts.chunk(chunk.chunk.len());
            let is_last;
            (taking, is_last) = off_thread(move || taking.take(snapshot, chunk)).await?;
            if is_last {
                // Let go before its sender hears of it, who may have the next one ready.
                return off_thread(move || {
                    drop(taking);
                    Ok(())
                })
                .await;
            }
            number += 1;
        }
    }

    /// Finds a place for a snapshot of a group.
    fn begin(&self, group: GroupId) -> Result<(Slot, oneshot::Receiver<Infallible>), End> {
        let begun = self.shared.admissions.lock().begin_snapshot(self.peer, group);
        let stopped = begun.map_err(|refusal| status(&refusal))?;
        let stopped = stopped.ok_or(SnapshotRefused::Busy)?;
        let mut slot = Slot { shared: Arc::clone(&self.shared), key: (self.peer.node, group), _permit: None };
        let permit = Arc::clone(&self.shared.snapshots_in).try_acquire_owned();
        slot._permit = Some(permit.map_err(|_| SnapshotRefused::Busy)?);
        Ok((slot, stopped))
    }

    async fn accept(&self, offer: Envelope, slot: Slot) -> Result<Taking, End> {
        // As envelopes, which are dropped then.
        let inbox = self.shared.inbox().ok_or(SnapshotRefused::Busy)?;
        let node = self.peer.node;
        let (taking, answer) = off_thread(move || {
            let incoming = inbox.offer(node, offer)?;
            let answer = SnapshotAnswer::accepted(&*incoming);
            Ok((Taking { incoming, _slot: slot }, answer))
        })
        .await?;
        // There is room; or nobody waits for it.
        let _ = self.answers.try_send(Ok(answer));
        Ok(taking)
    }
}

impl Taking {
    /// Takes a chunk. Says whether it was the last.
    fn take(mut self, snapshot: SnapshotId, chunk: SnapshotChunk) -> Result<(Taking, bool), End> {
        let SnapshotChunk { number, checksum, chunk } = chunk;
        check(snapshot, number, &chunk, checksum)?;
        let Chunk { pairs, is_last } = decode(chunk)?;
        self.incoming.take(pairs, is_last)?;
        Ok((self, is_last))
    }
}

/// The bytes are let go as soon as there are pairs.
fn decode(bytes: Bytes) -> Result<Chunk, ChunkError> {
    Chunk::decode(&bytes)
}

/// Does what may block. Once begun, it ends, also when nobody waits for it any more.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, End> + Send + 'static) -> Result<T, End> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(format!("taking it failed: {error}")).into()))
}
