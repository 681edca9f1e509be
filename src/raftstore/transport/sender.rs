//! The task that keeps one peer reached: connects, says hello, lets the queue flow, and starts over when that ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{sleep_until, timeout};
use tokio_stream::Stream;
use tonic::Streaming;

use super::call::{Failure, Line, random};
use super::grpc::Shared;
use super::metrics::Sent;
use super::queue::{Limits, LinkId, Queue};
use super::wire::{Frame, Hello, Kind};
use crate::ident::NodeId;
use crate::net::Address;
use crate::net::breaker::{Breaker, BreakerState};

/// A connection that lasts this long counts as a success.
const HELD_AFTER: Duration = Duration::from_secs(1);
/// The largest answer of a node.
const ANSWER_LIMIT_BYTES: usize = 1024;

/// A peer that is sent to.
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) addresses: Vec<Address>,
    pub(super) queue: Queue,
    pub(super) counts: Sent,
    state: Mutex<LinkState>,
}

/// How it goes with a peer.
#[derive(Clone, Debug)]
pub(super) struct LinkState {
    pub(super) breaker: BreakerState,
    pub(super) is_connected: bool,
    pub(super) last_failure: Option<String>,
}

/// A stream to a peer that proved who it is. The connection ends with it.
struct Link {
    _line: Line,
    answers: Streaming<Hello>,
}

impl Peer {
    pub(super) fn new(node: NodeId, addresses: Vec<Address>, limits: Limits) -> Peer {
        let state = LinkState { breaker: BreakerState::Closed, is_connected: false, last_failure: None };
        Peer { node, addresses, queue: Queue::new(limits), counts: Sent::to(node), state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> LinkState {
        self.state.lock().clone()
    }

    fn show(&self, breaker: &Breaker, is_connected: bool) {
        self.counts.breaker(breaker.state());
        let mut state = self.state.lock();
        state.breaker = breaker.state();
        state.is_connected = is_connected;
        if is_connected {
            state.last_failure = None;
        }
    }

    /// Keeps the peer reached from the first envelope on.
    pub(super) async fn run(self: Arc<Peer>, shared: Arc<Shared>) {
        let mut breaker = Breaker::new(shared.config.backoff(), shared.config.breaker_failures);
        self.queue.filled().await;
        for address in self.addresses.iter().cycle() {
            breaker.attempt(Instant::now());
            self.show(&breaker, false);
            let attempt = timeout(shared.config.connect_timeout, self.connect(&shared, address));
            let failure = match attempt.await.unwrap_or(Err(Failure::Silent)) {
                Ok(link) => {
                    breaker.connected();
                    self.counts.connect(true);
                    self.show(&breaker, true);
                    tracing::info!(peer = %self.node, %address, "connected");
                    hold(link, &mut breaker).await
                }
                Err(failure) => {
                    self.counts.connect(false);
                    failure
                }
            };
            let retry_at = breaker.failed(Instant::now(), random());
            self.fail(&shared, &failure, address, &breaker);
            sleep_until(retry_at.into()).await;
        }
    }

    fn fail(&self, shared: &Shared, failure: &Failure, address: &Address, breaker: &Breaker) {
        let lost = self.queue.end_link(breaker.state() == BreakerState::Closed);
        self.counts.lost(lost);
        self.show(breaker, false);
        let text = failure.to_string();
        let known = self.state.lock().last_failure.replace(text.clone());
        // Said once, not at every attempt.
        if known.as_ref() == Some(&text) {
            tracing::debug!(peer = %self.node, %address, lost, "still not reached: {text}");
        } else {
            tracing::warn!(peer = %self.node, %address, lost, "not reached: {text}");
        }
        if let Some(inbox) = shared.inbox() {
            inbox.unreachable(self.node);
        }
    }

    async fn connect(self: &Arc<Peer>, shared: &Shared, address: &Address) -> Result<Link, Failure> {
        let line = Line::open(shared, address).await?;
        let link = self.queue.begin_link();
        let hello = Hello::of(&shared.identity.claim(self.node)).at(shared.advertised.get());
        let hello = Frame { kind: Some(Kind::Hello(hello)) };
        let outgoing = Outgoing { peer: Arc::clone(self), link, hello: Some(hello) };
        let mut client = line.client.clone().max_decoding_message_size(ANSWER_LIMIT_BYTES);
        let mut answers = client.deliver(outgoing).await?.into_inner();
        let answer = answers.message().await?.ok_or(Failure::Ended)?;
        line.recognise(shared, self.node, &answer)?;
        self.queue.prove_link(link);
        Ok(Link { _line: line, answers })
    }
}

/// Waits until the link is lost. Meanwhile the queue flows by itself.
async fn hold(mut link: Link, breaker: &mut Breaker) -> Failure {
    if let Ok(ended) = timeout(HELD_AFTER, link.answers.message()).await {
        return after(ended);
    }
    breaker.held();
    after(link.answers.message().await)
}

fn after(answer: Result<Option<Hello>, tonic::Status>) -> Failure {
    match answer {
        Ok(Some(_)) => Failure::OutOfTurn,
        Ok(None) => Failure::Ended,
        Err(status) => status.into(),
    }
}

/// What is sent on a link: the hello, and then whatever waits. Polled by the connection, so that no task and no copy
/// stands between queue and socket.
struct Outgoing {
    peer: Arc<Peer>,
    link: LinkId,
    hello: Option<Frame>,
}

impl Stream for Outgoing {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let this = self.get_mut();
        if let Some(hello) = this.hello.take() {
            return Poll::Ready(Some(hello));
        }
        this.peer.queue.poll_batch(this.link, cx).map(|next| {
            let (batch, bytes) = next?;
            this.peer.counts.batch(batch.messages.len(), bytes);
            Some(Frame { kind: Some(Kind::Batch(batch)) })
        })
    }
}
