//! Where a batch of messages runs: at once on the task's own thread, elsewhere while the task waits, or on a thread that
//! may block.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::conversation::{Conversation, Flow};
use super::error::{SqlError, SqlState};
use super::frame::Batch;
use super::intake::Feed;
use super::outbox::Outbox;
use super::quick::{Advance, Waiting};

/// What is given back after a batch.
pub(super) struct Finished {
    /// Nothing if it panicked.
    pub(super) conversation: Option<Box<Conversation>>,
    /// Replies that were not handed over.
    pub(super) rest: Bytes,
    pub(super) flow: Flow,
}

/// A batch that has been begun.
pub(super) enum Begun {
    Over(Finished),
    Goes(Work),
}

/// A batch that is not over; a future of its end.
pub(super) struct Work {
    stage: Stage,
    chunks: Option<mpsc::Receiver<Bytes>>,
    feeds: Option<mpsc::Receiver<Feed>>,
}

enum Stage {
    /// A statement runs elsewhere.
    Elsewhere(Waiting),
    Thread(JoinHandle<Finished>),
    /// It is over and was not asked for yet.
    Ready(Finished),
    Over,
}

/// Runs a batch as far as nothing blocks, and sees to it that the rest runs.
pub(super) fn begin(conversation: Box<Conversation>, batch: Batch) -> Begun {
    let mut waiting = Waiting { conversation, batch, outbox: Outbox::new() };
    let advance = |waiting: &mut Waiting| {
        // Nothing ran when the batch came. From now on an interrupt is meant for what it brings, on whatever thread that is.
        waiting.conversation.session.forget_interrupts();
        waiting.conversation.advance(&mut waiting.batch, &mut waiting.outbox)
    };
    match catch_unwind(AssertUnwindSafe(|| advance(&mut waiting))) {
        Ok(Advance::Done(flow)) => Begun::Over(finished(waiting, flow)),
        Ok(Advance::Waits) => Begun::Goes(Work::going(waiting, Stage::Elsewhere)),
        Ok(Advance::Blocks) => Begun::Goes(Work::going(waiting, |waiting| Stage::Thread(on_thread(waiting)))),
        Err(_) => Begun::Over(panicked(waiting)),
    }
}

fn on_thread(waiting: Waiting) -> JoinHandle<Finished> {
    spawn_blocking(move || handle(waiting))
}

fn handle(mut waiting: Waiting) -> Finished {
    let Waiting { conversation, batch, outbox } = &mut waiting;
    outbox.may_block();
    // After a panic the session is used no more, only dropped.
    match catch_unwind(AssertUnwindSafe(|| conversation.handle(std::mem::take(batch), outbox))) {
        Ok(flow) => finished(waiting, flow),
        Err(_) => panicked(waiting),
    }
}

fn finished(waiting: Waiting, flow: Flow) -> Finished {
    Finished { conversation: Some(waiting.conversation), rest: waiting.outbox.into_rest(), flow }
}

fn panicked(waiting: Waiting) -> Finished {
    let Waiting { conversation, mut outbox, .. } = waiting;
    tracing::error!("a session panicked; its connection ends");
    if catch_unwind(AssertUnwindSafe(|| drop(conversation))).is_err() {
        tracing::error!("a session panicked again while it was closed");
    }
    // If it cannot be sent, the connection ends all the same.
    let _ = outbox.error(&fault());
    Finished { conversation: None, rest: outbox.into_rest(), flow: Flow::End }
}

impl Work {
    fn going(mut waiting: Waiting, stage: impl FnOnce(Waiting) -> Stage) -> Work {
        let chunks = Some(waiting.outbox.attach());
        let feeds = Some(waiting.conversation.intake.attach());
        Work { stage: stage(waiting), chunks, feeds }
    }

    /// One whose replies alone are left.
    pub(super) fn over(finished: Finished) -> Work {
        Work { stage: Stage::Ready(finished), chunks: None, feeds: None }
    }

    /// Where replies come out that are handed over before the end; nowhere if nothing does.
    pub(super) fn chunks(&mut self) -> mpsc::Receiver<Bytes> {
        self.chunks.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Where a COPY asks for data.
    pub(super) fn feeds(&mut self) -> mpsc::Receiver<Feed> {
        self.feeds.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_over(&self) -> bool {
        match &self.stage {
            Stage::Elsewhere(_) => false,
            Stage::Thread(task) => task.is_finished(),
            Stage::Ready(_) | Stage::Over => true,
        }
    }
}

impl Future for Work {
    type Output = Result<Finished, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Elsewhere(mut waiting) => match catch_unwind(AssertUnwindSafe(|| waiting.poll(context))) {
                    Ok(Poll::Pending | Poll::Ready(Advance::Waits)) => {
                        self.stage = Stage::Elsewhere(waiting);
                        return Poll::Pending;
                    }
                    Ok(Poll::Ready(Advance::Done(flow))) => return Poll::Ready(Ok(finished(waiting, flow))),
                    Ok(Poll::Ready(Advance::Blocks)) => self.stage = Stage::Thread(on_thread(waiting)),
                    Err(_) => return Poll::Ready(Ok(panicked(waiting))),
                },
                Stage::Thread(mut task) => {
                    let done = Pin::new(&mut task).poll(context);
                    if done.is_pending() {
                        self.stage = Stage::Thread(task);
                    }
                    return done;
                }
                Stage::Ready(finished) => return Poll::Ready(Ok(finished)),
                Stage::Over => return Poll::Pending,
            }
        }
    }
}

/// What a client is told when its session failed.
pub(super) fn fault() -> SqlError {
    SqlError::fatal(SqlState::INTERNAL_ERROR, "the session ended by a fault of the server")
}

/// Reports a session that failed, and what its client is told.
pub(super) fn session_fault(error: &JoinError) -> SqlError {
    tracing::error!(%error, "a session failed");
    fault()
}
