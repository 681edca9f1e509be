//! The end of the node: one task for a stream, which has all of its requests under way at once and gathers what is answered.
//!
//! Commands of a message are proposed one behind the other, before anything is waited for; its reads share one barrier. What
//! a read finds is looked up when there is room to send it: who takes no answers has questions in memory, not what they
//! find. The task goes on also while nothing can be sent, so that nobody keeps what requests hold of the node.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::MAX_RESPONSE_BYTES;
use super::super::failure;
use super::super::proto::numbered_request::Call;
use super::super::proto::numbered_response::Outcome;
use super::super::proto::{BatchResponse, ExecuteRequest, NumberedRequest, NumberedResponse};
use super::super::requests::{Requests, deadline};
use super::{BatchRequest, MAX_REQUESTS, MAX_UNDER_WAY, MESSAGE_BYTES, OVERHEAD_BYTES};
use crate::meta::query::proto::Query;

/// The answers of a stream.
pub(in super::super) type Answers = ReceiverStream<Result<BatchResponse, Status>>;

/// Bytes of requests that are under way, and of answers that are not sent: while a stream has more, it is not read on.
const MAX_HELD_BYTES: usize = 8 << 20;
/// Messages that wait for a connection that takes none.
const WAITING: usize = 1;

/// Answers what comes, until nothing comes any more or nobody takes answers. `place` is kept until then.
pub(in super::super) fn answer<P: Send + 'static>(
    requests: Requests,
    incoming: impl Stream<Item = Result<BatchRequest, Status>> + Unpin + Send + 'static,
    place: P,
) -> Answers {
    let (messages, answers) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        if let Err(status) = Answerer::new(requests).run(incoming, &messages).await {
            // Who is gone needs no word.
            let _ = messages.send(Err(status)).await;
        }
        drop(place);
    });
    ReceiverStream::new(answers)
}

/// A read that waits for its barrier.
struct Asked {
    number: u64,
    bytes: usize,
    query: Option<Query>,
    deadline: Instant,
}

/// An answer that may be sent.
struct Ready {
    number: u64,
    /// What it counts for among what the stream holds.
    bytes: usize,
    say: Say,
}

enum Say {
    This(Outcome),
    /// What this finds when it is sent.
    Found(Option<Query>),
}

/// What came of something that was under way.
struct Done {
    /// Of requests, what need not be held any more.
    freed_bytes: usize,
    ready: Vec<Ready>,
    /// Reads that have time left for another barrier.
    left: Vec<Asked>,
}

enum Work {
    Execute { number: u64, bytes: usize, request: ExecuteRequest },
    Read(Vec<Asked>),
}

/// What a node tells who asked.
fn outcome(answer: Result<Outcome, Status>) -> Outcome {
    let answer = answer.unwrap_or_else(|status| Outcome::Failed(failure::failed(&status)));
    let bytes = OVERHEAD_BYTES + answer.encoded_len();
    if bytes <= MAX_RESPONSE_BYTES {
        return answer;
    }
    // As in a call of its own: in a message it would break the stream, for all.
    let why = format!("an answer of {bytes} bytes, of {MAX_RESPONSE_BYTES} at most");
    Outcome::Failed(failure::failed(&Status::out_of_range(why)))
}

fn size_bytes(outcome: &Outcome) -> usize {
    OVERHEAD_BYTES + outcome.encoded_len()
}

async fn work(requests: Arc<Requests>, work: Work) -> Done {
    match work {
        Work::Execute { number, bytes, request } => {
            let outcome = outcome(requests.execute(request).await.map(Outcome::Execute));
            let ready = Ready { number, bytes: size_bytes(&outcome), say: Say::This(outcome) };
            Done { freed_bytes: bytes, ready: vec![ready], left: Vec::new() }
        }
        Work::Read(asked) => read(&requests, asked).await,
    }
}

/// One barrier for all: as long as the first has time. When it comes to nothing, that one hears it, and the others go on.
async fn read(requests: &Requests, asked: Vec<Asked>) -> Done {
    let first = asked.iter().map(|asked| asked.deadline).min().unwrap_or_else(Instant::now);
    match requests.barrier(first).await {
        Ok(()) => {
            let find = |Asked { number, bytes, query, .. }| Ready { number, bytes, say: Say::Found(query) };
            Done { freed_bytes: 0, ready: asked.into_iter().map(find).collect(), left: Vec::new() }
        }
        Err(status) => {
            let (late, left): (Vec<_>, _) = asked.into_iter().partition(|asked| asked.deadline <= first);
            let freed_bytes = late.iter().map(|asked| asked.bytes).sum();
            let fail = |Asked { number, .. }| {
                let outcome = outcome(Err(status.clone()));
                Ready { number, bytes: size_bytes(&outcome), say: Say::This(outcome) }
            };
            Done { freed_bytes, ready: late.into_iter().map(fail).collect(), left }
        }
    }
}

/// Waits until something is done, and takes all that is.
async fn finished<F: Future<Output = Done>>(under_way: &mut FuturesUnordered<F>, done: &mut Vec<Done>) {
    poll_fn(|cx| {
        loop {
            match under_way.poll_next_unpin(cx) {
                Poll::Ready(Some(next)) => done.push(next),
                Poll::Pending if done.is_empty() => return Poll::Pending,
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}

struct Answerer {
    requests: Arc<Requests>,
    ready: VecDeque<Ready>,
    /// Requests that came and whose answers are not sent, and their bytes.
    held: usize,
    held_bytes: usize,
}

impl Answerer {
    fn new(requests: Requests) -> Answerer {
        Answerer { requests: Arc::new(requests), ready: VecDeque::new(), held: 0, held_bytes: 0 }
    }

    async fn run(
        mut self,
        mut incoming: impl Stream<Item = Result<BatchRequest, Status>> + Unpin,
        messages: &Sender<Result<BatchResponse, Status>>,
    ) -> Result<(), Status> {
        let (mut under_way, mut done) = (FuturesUnordered::new(), Vec::new());
        let mut is_open = true;
        while is_open || self.held > 0 {
            let has_room = self.held < MAX_UNDER_WAY && self.held_bytes < MAX_HELD_BYTES;
            tokio::select! {
                biased;
                () = messages.closed() => return Ok(()),
                () = finished(&mut under_way, &mut done), if !under_way.is_empty() => {
                    for done in done.drain(..) {
                        let left = self.take(done);
                        under_way.extend(left.map(|left| work(Arc::clone(&self.requests), left)));
                    }
                }
                place = messages.reserve(), if !self.ready.is_empty() => match place {
                    Ok(place) => place.send(Ok(self.message())),
                    Err(_) => return Ok(()),
                },
                request = incoming.next(), if is_open && has_room => match request {
                    Some(request) => {
                        let begun = self.begin(request?)?;
                        under_way.extend(begun.into_iter().map(|begun| work(Arc::clone(&self.requests), begun)));
                    }
                    None => is_open = false,
                },
            }
        }
        Ok(())
    }

    /// Takes the requests of a message. Those that are begun count as held until their answers are sent.
    fn begin(&mut self, message: BatchRequest) -> Result<Vec<Work>, Status> {
        if message.is_cut {
            return Err(Status::invalid_argument(format!("more than {MAX_REQUESTS} requests in a message")));
        }
        let (mut begun, mut reads) = (Vec::with_capacity(message.messages.len()), Vec::new());
        for NumberedRequest { number, call } in message.messages {
            let bytes = OVERHEAD_BYTES + call.as_ref().map_or(0, Call::encoded_len);
            self.held += 1;
            self.held_bytes += bytes;
            match call {
                Some(Call::Execute(request)) => begun.push(Work::Execute { number, bytes, request }),
                Some(Call::Read(request)) if request.is_local => {
                    self.ready.push_back(Ready { number, bytes, say: Say::Found(request.query) });
                }
                Some(Call::Read(request)) => {
                    let (query, deadline) = (request.query, deadline(request.timeout_ms));
                    reads.push(Asked { number, bytes, query, deadline });
                }
                None => {
                    let unknown = Status::unimplemented("the request is of a kind that is not known here");
                    self.ready.push_back(Ready { number, bytes, say: Say::This(outcome(Err(unknown))) });
                }
            }
        }
        if !reads.is_empty() {
            begun.push(Work::Read(reads));
        }
        Ok(begun)
    }

    /// Takes what came of something; what is left of it is to go on.
    fn take(&mut self, done: Done) -> Option<Work> {
        self.held_bytes = self.held_bytes.saturating_sub(done.freed_bytes);
        for ready in done.ready {
            if let Say::This(_) = ready.say {
                self.held_bytes += ready.bytes;
            }
            self.ready.push_back(ready);
        }
        (!done.left.is_empty()).then_some(Work::Read(done.left))
    }

    /// The next message: what is ready, as far as it fits.
    fn message(&mut self) -> BatchResponse {
        let (mut answers, mut bytes) = (Vec::new(), 0);
        while let Some(Ready { number, bytes: held_bytes, say }) = self.ready.pop_front() {
            let outcome = match say {
                Say::This(outcome) => outcome,
                Say::Found(query) => outcome(self.requests.find(query).map(Outcome::Read)),
            };
            let size = size_bytes(&outcome);
            self.held_bytes = self.held_bytes.saturating_sub(held_bytes);
            if bytes > 0 && bytes + size > MESSAGE_BYTES {
                self.held_bytes += size;
                self.ready.push_front(Ready { number, bytes: size, say: Say::This(outcome) });
                break;
            }
            self.held -= 1;
            bytes += size;
            answers.push(NumberedResponse { number, outcome: Some(outcome) });
        }
        BatchResponse { answers }
    }
}

#[cfg(test)]
#[path = "answerer_test.rs"]
mod tests;
