//! The end of who asks: one stream of a connection, which all callers share, and who waits for which answer.
//!
//! Callers put their requests in a line; whoever sends over the connection takes what stands there when it can send. One
//! task hands out the answers as they come.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::super::MAX_REQUEST_BYTES;
use super::super::client::calls;
use super::super::failure;
use super::super::proto::numbered_request::Call;
use super::super::proto::numbered_response::Outcome;
use super::super::proto::{BatchResponse, NumberedRequest};
use super::{BatchRequest, MAX_REQUESTS, MAX_UNDER_WAY, MESSAGE_BYTES, OVERHEAD_BYTES};

/// What a caller hears. A failure is what a call of its own would have had as its status.
type Answer = Result<Outcome, Status>;

/// One stream of a connection. When it is dropped, it ends.
pub(in super::super) struct Caller {
    shared: Arc<Shared>,
    /// How many more may be under way.
    places: Arc<Semaphore>,
}

/// What callers, the sender and the receiver share.
#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    /// Not sent yet, in the order in which they came.
    line: VecDeque<Waiting>,
    /// Sent, and not answered.
    unanswered: HashMap<u64, Asked>,
    /// The number of the last request.
    last: u64,
    /// Who sends, while there is nothing to send.
    sender: Option<Waker>,
    /// Why nothing is sent any more.
    end: Option<Status>,
}

struct Waiting {
    call: Call,
    bytes: usize,
    asked: Asked,
}

/// Who asked, with a place among those under way.
struct Asked {
    answer: oneshot::Sender<Answer>,
    _place: OwnedSemaphorePermit,
}

impl Caller {
    /// A stream over this connection. Its first request opens it.
    pub(in super::super) fn open(channel: Channel) -> Caller {
        let (caller, outgoing) = Caller::new();
        tokio::spawn(receive(channel, outgoing));
        caller
    }

    fn new() -> (Caller, Outgoing) {
        let shared = Arc::new(Shared::default());
        let outgoing = Outgoing(Arc::clone(&shared));
        (Caller { shared, places: Arc::new(Semaphore::new(MAX_UNDER_WAY)) }, outgoing)
    }

    /// Whether nothing can be asked over it any more.
    pub(in super::super) fn has_ended(&self) -> bool {
        self.shared.0.lock().end.is_some()
    }

    /// Asks, and waits for the answer. Dropping the future takes nothing back that was sent, and disturbs nobody else.
    pub(in super::super) async fn call(&self, call: Call) -> Answer {
        let bytes = OVERHEAD_BYTES + call.encoded_len();
        if bytes > MAX_REQUEST_BYTES {
            // As a call of its own would: in a message it would break the stream, for all.
            return Err(Status::out_of_range(format!("a request of {bytes} bytes, of {MAX_REQUEST_BYTES} at most")));
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| unsure("the stream was closed"))?;
        let (answer, answered) = oneshot::channel();
        self.shared.ask(Waiting { call, bytes, asked: Asked { answer, _place: place } })?;
        answered.await.unwrap_or_else(|_| Err(unsure("nobody waits for the answer any more")))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.shared.end(&unsure("the stream was closed"));
    }
}

/// What may have had an effect.
fn unsure(why: &str) -> Status {
    Status::cancelled(why)
}

impl Shared {
    /// Puts a request in the line.
    fn ask(&self, waiting: Waiting) -> Result<(), Status> {
        let sender = {
            let mut state = self.0.lock();
            if let Some(end) = &state.end {
                return Err(end.clone());
            }
            state.line.push_back(waiting);
            state.sender.take()
        };
        if let Some(sender) = sender {
            sender.wake();
        }
        Ok(())
    }

    /// Hands out answers. What was not asked, or was answered before, is nobody's.
    fn answer(&self, response: BatchResponse) {
        let mut state = self.0.lock();
        for answer in response.answers {
            let Some(asked) = state.unanswered.remove(&answer.number) else { continue };
            let answer = match answer.outcome {
                Some(Outcome::Failed(failed)) => Err(failure::from_failed(failed)),
                Some(outcome) => Ok(outcome),
                None => Err(Status::unimplemented("the answer is of a kind that is not known")),
            };
            // Whoever waited may have gone.
            let _ = asked.answer.send(answer);
        }
    }

    /// Whoever has no answer yet gets this one. The first end counts.
    fn end(&self, status: &Status) {
        let (line, unanswered, sender) = {
            let mut state = self.0.lock();
            if state.end.is_some() {
                return;
            }
            state.end = Some(status.clone());
            (std::mem::take(&mut state.line), std::mem::take(&mut state.unanswered), state.sender.take())
        };
        let line = line.into_iter().map(|waiting| waiting.asked);
        for asked in line.chain(unanswered.into_values()) {
            let _ = asked.answer.send(Err(status.clone()));
        }
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}

impl State {
    /// The next message: what stands in the line, as far as it fits.
    fn message(&mut self) -> Option<BatchRequest> {
        let (mut requests, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.line.front() {
            if requests.len() >= MAX_REQUESTS || (bytes > 0 && bytes + next.bytes > MESSAGE_BYTES) {
                break;
            }
            let Some(Waiting { call, bytes: size, asked }) = self.line.pop_front() else { break };
            // Who gave up before it was sent asks nothing.
            if asked.answer.is_closed() {
                continue;
            }
            bytes += size;
            self.last += 1;
            self.unanswered.insert(self.last, asked);
            requests.push(NumberedRequest { number: self.last, call: Some(call) });
        }
        (!requests.is_empty()).then_some(BatchRequest::of(requests))
    }
}

/// What is sent: asked for a message whenever the connection takes one.
struct Outgoing(Arc<Shared>);

impl Stream for Outgoing {
    type Item = BatchRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BatchRequest>> {
        let mut state = self.0.0.lock();
        if state.end.is_some() {
            return Poll::Ready(None);
        }
        match state.message() {
            Some(message) => Poll::Ready(Some(message)),
            None => {
                state.sender = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// However the receiver ends, nobody waits any more.
struct Receiving(Arc<Shared>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.end(&unsure("nobody takes answers any more"));
    }
}

async fn receive(channel: Channel, outgoing: Outgoing) {
    let receiving = Receiving(Arc::clone(&outgoing.0));
    let shared = &receiving.0;
    let opened = calls(channel).batch(outgoing).await;
    let mut answers = match opened {
        Ok(answers) => answers.into_inner(),
        // The node's own word, or the connection's, before anything was taken: it means to each what it would alone.
        Err(status) => return shared.end(&status),
    };
    loop {
        match answers.message().await {
            Ok(Some(response)) => shared.answer(response),
            Ok(None) => return shared.end(&unsure("the node ended the stream")),
            Err(status) => return shared.end(&broken(status)),
        }
    }
}

/// What a stream that broke means to those without an answer: nobody knows what the node did, whatever it ended with. What
/// the connection says of itself stays with it.
fn broken(status: Status) -> Status {
    use std::error::Error;
    match status.source() {
        Some(_) => status,
        None => Status::new(Code::Cancelled, format!("the stream ended: {}", status.message())),
    }
}

#[cfg(test)]
#[path = "caller_test.rs"]
mod tests;
