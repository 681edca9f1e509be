//! Sending snapshots: a task for each, until its receiver has all of it or it is given up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Broken, CHUNKS_AHEAD, Promise, Retries, STALL_TIMEOUT, WAITING_LIMIT};
use crate::ident::{GroupId, ReplicaId};
use crate::net::throttle::Throttle;
use crate::net::{Address, NetConfig};
use crate::raftstore::message::Envelope;
use crate::raftstore::snapshot::chunk::{CHUNK_BYTES, Chunk};
use crate::raftstore::snapshot::{Captured, Place};
use crate::raftstore::transport::call::{Failure, Line, random};
use crate::raftstore::transport::grpc::Shared;
use crate::raftstore::transport::metrics::SnapshotsSent;
use crate::raftstore::transport::sender::Peer;
use crate::raftstore::transport::wire::{AnswerKind, FRAME_LIMIT_BYTES, SnapshotAnswer, SnapshotFrame};
use crate::raftstore::transport::{Outgoing, SnapshotRefused, SnapshotUnsent, Unsent};

/// What may gather in the throttle while nothing is sent.
const BURST: Duration = Duration::from_millis(100);

/// What all snapshots that are sent share.
pub(in super::super) struct Outbox {
    /// Those that are being sent.
    running: Arc<Semaphore>,
    max_running: u32,
    /// Those and the ones that wait.
    places: Arc<Semaphore>,
    throttle: Option<Mutex<Throttle>>,
}

impl Outbox {
    pub(in super::super) fn new(config: &NetConfig) -> Outbox {
        let max_running = config.max_snapshots_out;
        let running = usize::try_from(max_running).unwrap_or(usize::MAX);
        let throttle = match config.snapshot_bytes_per_second {
            0 => None,
            rate => Some(Mutex::new(Throttle::new(rate, BURST, Instant::now()))),
        };
        Outbox {
            running: Arc::new(Semaphore::new(running)),
            max_running,
            places: Arc::new(Semaphore::new(running.saturating_add(WAITING_LIMIT))),
            throttle,
        }
    }

    /// A place among those that may be sent or wait.
    pub(in super::super) fn place(&self) -> Result<OwnedSemaphorePermit, Unsent> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Unsent::QueueFull)
    }

    /// Waits until so many bytes may be sent.
    async fn book(&self, bytes: u64) {
        let Some(throttle) = &self.throttle else { return };
        let at = throttle.lock().book(bytes, Instant::now());
        sleep_until(at.into()).await;
    }

    /// Waits until nothing is read any more.
    pub(in super::super) async fn ended(&self) {
        let _ = self.running.acquire_many(self.max_running).await;
    }
}

/// The snapshots on their way to one peer. They end with it.
#[derive(Default)]
pub(in super::super) struct Jobs(Mutex<HashMap<(GroupId, ReplicaId), JoinHandle<()>>>);

impl Jobs {
    /// Takes a task in. One for the same replica ends: what is captured later is what the replica needs.
    pub(in super::super) fn insert(&self, (group, replica): (GroupId, ReplicaId), task: JoinHandle<()>) {
        let mut tasks = self.0.lock();
        tasks.retain(|_, task| !task.is_finished());
        if let Some(earlier) = tasks.insert((group, replica), task) {
            earlier.abort();
        }
    }

    /// Tells all of them to end.
    pub(in super::super) fn abort(&self) {
        self.0.lock().values().for_each(JoinHandle::abort);
    }

    /// Waits until all of them have ended.
    pub(in super::super) async fn ended(&self) {
        let tasks = std::mem::take(&mut *self.0.lock());
        for task in tasks.into_values() {
            let _ = task.await;
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.abort();
    }
}

/// A snapshot on its way.
pub(in super::super) struct Job {
    sending: Sending,
    /// Behind it: whoever hears how the snapshot ended finds nothing held any more, but by a read that was just begun.
    promise: Promise,
}

struct Sending {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    offer: Envelope,
    captured: Arc<dyn Captured>,
    counts: SnapshotsSent,
    _place: OwnedSemaphorePermit,
}

/// A call that goes well so far.
struct Call {
    _line: Line,
    frames: mpsc::Sender<SnapshotFrame>,
    answers: Streaming<SnapshotAnswer>,
}

impl Job {
    pub(in super::super) fn new(
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        outgoing: Outgoing,
        place: OwnedSemaphorePermit,
    ) -> Job {
        let Outgoing { offer, captured, done } = outgoing;
        let counts = SnapshotsSent::to(peer.node);
        let sending = Sending { shared, peer, offer, captured, counts, _place: place };
        Job { sending, promise: Promise::new(done) }
    }

    pub(in super::super) async fn run(self) {
        let Job { promise, mut sending } = self;
        let result = sending.send().await;
        let (peer, group, id) = (sending.peer.node, sending.offer.group, sending.captured.meta().id);
        match &result {
            Ok(()) => tracing::info!(%peer, %group, snapshot = %id, "a snapshot was sent"),
            Err(why) => tracing::warn!(%peer, %group, snapshot = %id, "{why}"),
        }
        sending.counts.ended(&result);
        drop(sending);
        promise.keep(result);
    }
}

impl Sending {
    async fn send(&self) -> Result<(), SnapshotUnsent> {
        let mut retries = Retries::new(self.shared.config.backoff());
        for address in self.peer.addresses.iter().cycle() {
            let running = Arc::clone(&self.shared.outbox.running).acquire_owned().await;
            let permit = Arc::new(running.map_err(|_| SnapshotUnsent::Failed("the transport stopped".to_owned()))?);
            let ended = self.attempt(address, &permit, &mut retries).await;
            drop(permit);
            let Err(broken) = ended else { return Ok(()) };
            let wait = retries.after(&broken, random())?;
            tracing::debug!(peer = %self.peer.node, snapshot = %self.captured.meta().id, ?wait, "again: {broken}");
            sleep(wait).await;
        }
        Err(SnapshotUnsent::Failed("no address is known".to_owned()))
    }

    async fn attempt(
        &self,
        address: &Address,
        permit: &Arc<OwnedSemaphorePermit>,
        retries: &mut Retries,
    ) -> Result<(), Broken> {
        let greeted = timeout(self.shared.config.connect_timeout, self.call(address)).await;
        let mut call = greeted.unwrap_or(Err(Failure::Silent))?;
        let offer = SnapshotFrame::offer(self.captured.meta().id, self.offer.clone());
        // If it cannot be sent, the answer says why.
        let _ = call.frames.send(offer).await;
        let resume_after = match call.answer().await? {
            AnswerKind::Accepted(accepted) => {
                accepted.resume_after().map_err(|()| Broken::Lost("it has a table that is not known".to_owned()))?
            }
            other => return Err(unfinished(other)),
        };
        retries.accepted(resume_after.as_ref());
        if resume_after.is_some() {
            self.counts.resumed();
        }
        let Call { _line, frames, mut answers } = call;
        let answer = tokio::select! {
            // First: once the last chunk is handed over, any answer is in turn.
            biased;
            fed = self.feed(frames, resume_after, permit) => {
                fed?;
                None
            }
            early = next(&mut answers) => Some(early?),
        };
        match answer {
            Some(early) => Err(unfinished(early)),
            None => match next_in_time(&mut answers).await? {
                AnswerKind::Finished(_) => Ok(()),
                other => Err(unfinished(other)),
            },
        }
    }

    /// Connects, and has the peer prove who it is.
    async fn call(&self, address: &Address) -> Result<Call, Failure> {
        let (shared, node) = (&self.shared, self.peer.node);
        let line = Line::open(shared, address).await?;
        let (frames, queued) = mpsc::channel(CHUNKS_AHEAD);
        // There is room for the first.
        let _ = frames.try_send(SnapshotFrame::hello(&shared.identity.claim(node)));
        let mut client = line.client.clone().max_decoding_message_size(FRAME_LIMIT_BYTES);
        let mut answers = client.snapshot(ReceiverStream::new(queued)).await?.into_inner();
        match next(&mut answers).await? {
            AnswerKind::Hello(hello) => line.recognise(shared, node, &hello)?,
            _ => return Err(Failure::OutOfTurn),
        }
        Ok(Call { _line: line, frames, answers })
    }

    /// Sends everything behind a place. When the link is lost meanwhile, it ends, and the answers say why.
    async fn feed(
        &self,
        frames: mpsc::Sender<SnapshotFrame>,
        mut after: Option<Place>,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<(), Broken> {
        let mut number = 0;
        loop {
            let read = self.read(number, after, permit).await?;
            self.shared.outbox.book(read.size_bytes).await;
            match timeout(STALL_TIMEOUT, frames.send(read.frame)).await {
                Ok(Ok(())) => self.counts.sent(read.size_bytes),
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(Broken::Lost(format!("it took nothing for {STALL_TIMEOUT:?}"))),
            }
            if read.end.is_none() {
                return Ok(());
            }
            after = read.end;
            number += 1;
        }
    }

    async fn read(
        &self,
        number: u64,
        after: Option<Place>,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Read, Broken> {
        let (captured, permit) = (Arc::clone(&self.captured), Arc::clone(permit));
        let reading = spawn_blocking(move || {
            let read = Read::of(&*captured, number, after.as_ref());
            // In this order: who waits for the permit wants nothing to be read, nor held, any more.
            drop(captured);
            drop(permit);
            read
        });
        reading.await.unwrap_or_else(|error| Err(Broken::Final(format!("reading it failed: {error}"))))
    }
}

/// A chunk that was read.
struct Read {
    frame: SnapshotFrame,
    size_bytes: u64,
    /// Its last place; none in the last chunk, which is empty.
    end: Option<Place>,
}

impl Read {
    fn of(captured: &dyn Captured, number: u64, after: Option<&Place>) -> Result<Read, Broken> {
        let pairs = captured.read(after, CHUNK_BYTES)?;
        let end = pairs.last().map(|pair| pair.place.clone());
        let chunk = Chunk { is_last: pairs.is_empty(), pairs };
        let (frame, size_bytes) = SnapshotFrame::chunk(captured.meta().id, number, &chunk)?;
        Ok(Read { frame, size_bytes, end })
    }
}

impl Call {
    async fn answer(&mut self) -> Result<AnswerKind, Failure> {
        next_in_time(&mut self.answers).await
    }
}

async fn next_in_time(answers: &mut Streaming<SnapshotAnswer>) -> Result<AnswerKind, Failure> {
    timeout(STALL_TIMEOUT, next(answers)).await.unwrap_or(Err(Failure::Silent))
}

async fn next(answers: &mut Streaming<SnapshotAnswer>) -> Result<AnswerKind, Failure> {
    let answer = answers.message().await?.ok_or(Failure::Ended)?;
    answer.kind.ok_or(Failure::OutOfTurn)
}

/// What an answer means while it is not time to be finished.
fn unfinished(answer: AnswerKind) -> Broken {
    match answer {
        AnswerKind::Refusal(refusal) => Broken::Refused(SnapshotRefused::from(refusal)),
        _ => Failure::OutOfTurn.into(),
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Broken {
        Broken::Lost(failure.to_string())
    }
}
