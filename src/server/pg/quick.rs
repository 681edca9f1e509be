//! What needs no thread of its own: messages that only touch what the conversation remembers, and statements that the
//! session runs at once or that run elsewhere.
//!
//! A way to another thread and back costs more than a short statement, so each batch of messages is begun here, on the
//! worker's thread. At the first message that may block, the rest goes to [`Conversation::handle`] on a thread that
//! may. Nothing in here blocks.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::backend::{CommandTag, Scope, Started, TransactionStatus};
use super::conversation::{Conversation, Flow};
use super::error::SqlError;
use super::extended::Taken;
use super::frame::{Batch, Frame, Kind};
use super::message::{self, Message};
use super::outbox::Outbox;
use super::sink::Reply;
use super::types::OwnedValue;

/// Statements that are longer are left to a thread that may block: to look through one takes longer than the way there, and
/// the other connections of this thread wait meanwhile.
pub(super) const STATEMENT_LIMIT_BYTES: usize = 64 * 1024;

/// How far a batch got.
pub(super) enum Advance {
    /// It is over.
    Done(Flow),
    /// A statement of it runs elsewhere.
    Waits,
    /// What is left of it may block.
    Blocks,
}

/// What is remembered of a statement while it is begun or runs elsewhere.
pub(super) struct Elsewhere {
    /// Its message, in case it has to be done again.
    frame: Frame,
    /// Its portal and parameters, if it was prepared.
    portal: Option<(String, Arc<Vec<OwnedValue>>)>,
}

/// What became of one message.
enum Step {
    Next,
    Waits,
    Blocks(Frame),
}

impl Conversation {
    /// Does what the messages say, in order, as far as nothing blocks; what is left stays in `batch`.
    pub(super) fn advance(&mut self, batch: &mut Batch, outbox: &mut Outbox) -> Advance {
        loop {
            if outbox.is_full() {
                return Advance::Blocks;
            }
            let Some(frame) = batch.frames.pop_front() else {
                return Advance::Done(self.end_batch(batch.fault.take(), outbox));
            };
            let kind = frame.kind;
            if kind == Kind::Terminate {
                return Advance::Done(Flow::End);
            }
            if self.skipping && kind != Kind::Sync {
                continue;
            }
            let sync_follows = batch.frames.front().is_some_and(|next| next.kind == Kind::Sync);
            match self.step(frame, sync_follows, outbox) {
                Ok(Step::Next) => {}
                Ok(Step::Waits) => return Advance::Waits,
                Ok(Step::Blocks(frame)) => {
                    batch.frames.push_front(frame);
                    return Advance::Blocks;
                }
                Err(error) => {
                    if self.fail(error, kind, outbox) == Flow::End {
                        return Advance::Done(Flow::End);
                    }
                }
            }
        }
    }

    /// After [`Advance::Waits`]: goes on when the statement is over.
    pub(super) fn poll_advance(
        &mut self,
        batch: &mut Batch,
        outbox: &mut Outbox,
        context: &mut Context<'_>,
    ) -> Poll<Advance> {
        loop {
            let Some(elsewhere) = self.elsewhere.take() else { return Poll::Ready(self.advance(batch, outbox)) };
            let Poll::Ready((result, reply)) = self.session.poll_started(context) else {
                self.elsewhere = Some(elsewhere);
                return Poll::Pending;
            };
            let kind = elsewhere.frame.kind;
            match self.answered(elsewhere, result, reply, outbox) {
                Ok(Step::Blocks(frame)) => {
                    batch.frames.push_front(frame);
                    return Poll::Ready(Advance::Blocks);
                }
                Ok(_) => {}
                Err(error) => {
                    if self.fail(error, kind, outbox) == Flow::End {
                        return Poll::Ready(Advance::Done(Flow::End));
                    }
                }
            }
            match self.advance(batch, outbox) {
                Advance::Waits => {}
                over => return Poll::Ready(over),
            }
        }
    }

    fn step(&mut self, frame: Frame, sync_follows: bool, outbox: &mut Outbox) -> Result<Step, SqlError> {
        let kind = frame.kind;
        if matches!(kind, Kind::Query | Kind::Parse) && frame.body.len() > STATEMENT_LIMIT_BYTES {
            return Ok(Step::Blocks(frame));
        }
        let at_once = match kind {
            Kind::Query => return self.start_query(frame, outbox),
            Kind::Execute => return self.start_portal(frame, sync_follows, outbox),
            Kind::Parse => self.session.describes_at_once(),
            Kind::Sync => !self.implicit_open,
            Kind::Bind | Kind::Describe | Kind::Close | Kind::Flush => true,
            Kind::CopyData | Kind::CopyDone | Kind::CopyFail => true,
            Kind::FunctionCall | Kind::Terminate => false,
        };
        if !at_once {
            return Ok(Step::Blocks(frame));
        }
        self.message(frame, sync_follows, outbox).map(|()| Step::Next)
    }

    fn start_query(&mut self, frame: Frame, outbox: &mut Outbox) -> Result<Step, SqlError> {
        let Message::Query(sql) = message::read(frame.clone())? else { return Ok(Step::Blocks(frame)) };
        let [statement] = self.session.split(&sql)[..] else { return Ok(Step::Blocks(frame)) };
        if self.implicit_open {
            return Ok(Step::Blocks(frame));
        }
        self.refuse_if_stopping()?;
        let elsewhere = Elsewhere { frame, portal: None };
        let none = Arc::new(Vec::new());
        self.watch.begin(statement);
        self.start_clock();
        match self.session.start(statement, &none, Scope::Single, Reply::default()) {
            Started::Blocks(_) => {
                self.reset_clock();
                Ok(Step::Blocks(elsewhere.frame))
            }
            started => {
                self.forget_unnamed();
                self.started(elsewhere, started, outbox)
            }
        }
    }

    fn start_portal(&mut self, frame: Frame, sync_follows: bool, outbox: &mut Outbox) -> Result<Step, SqlError> {
        // Outside a block, what is not alone belongs to what comes after it, and is ended with it.
        let alone = sync_follows && !self.implicit_open;
        if !alone && self.session.transaction_status() == TransactionStatus::Idle {
            return Ok(Step::Blocks(frame));
        }
        let Message::Execute { portal, row_limit } = message::read(frame.clone())? else {
            return Ok(Step::Blocks(frame));
        };
        if self.is_fetched_in_parts(&portal, row_limit) || self.is_of_long_statement(&portal) {
            return Ok(Step::Blocks(frame));
        }
        self.refuse_if_stopping()?;
        let Taken { prepared, parameters, formats } = self.take_portal(&portal)?;
        let Some(statement) = prepared.statement() else {
            outbox.empty_query()?;
            return Ok(Step::Next);
        };
        let scope = if alone { Scope::Single } else { Scope::Implicit };
        self.implicit_open |= !alone;
        let reply = Reply::prepared(Arc::clone(&prepared), formats);
        self.watch.begin(statement);
        self.start_clock();
        let started = self.session.start(statement, &parameters, scope, reply);
        self.started(Elsewhere { frame, portal: Some((portal, parameters)) }, started, outbox)
    }

    fn started(&mut self, elsewhere: Elsewhere, started: Started, outbox: &mut Outbox) -> Result<Step, SqlError> {
        match started {
            Started::Done(result, reply) => self.answered(elsewhere, result, reply, outbox),
            Started::Elsewhere => {
                self.elsewhere = Some(elsewhere);
                Ok(Step::Waits)
            }
            Started::Blocks(reply) => Ok(self.again(elsewhere, reply)),
        }
    }

    /// A statement is to be run where it may block.
    fn again(&mut self, elsewhere: Elsewhere, reply: Reply) -> Step {
        self.reset_clock();
        if let Some((portal, parameters)) = elsewhere.portal {
            self.give_back(&portal, parameters, reply.into_formats());
        }
        Step::Blocks(elsewhere.frame)
    }

    /// A statement is over: tells the client.
    fn answered(
        &mut self,
        elsewhere: Elsewhere,
        result: Result<CommandTag, SqlError>,
        reply: Reply,
        outbox: &mut Outbox,
    ) -> Result<Step, SqlError> {
        let result = self.stop_clock(result);
        if reply.is_full() {
            return Ok(self.again(elsewhere, reply));
        }
        let parameters = elsewhere.portal.as_ref().map_or(&[][..], |(_, parameters)| parameters.as_slice());
        self.watch.end(self.session.slow_log(), parameters);
        let (messages, failure) = reply.parts();
        outbox.append(messages);
        let tag = failure.map_or(result, |failure| Err(failure.clone()))?;
        self.note_done(&tag);
        outbox.complete(&tag)?;
        if elsewhere.frame.kind == Kind::Query {
            self.ready(outbox)?;
        }
        Ok(Step::Next)
    }
}

/// A batch of which a statement runs elsewhere.
pub(super) struct Waiting {
    pub(super) conversation: Box<Conversation>,
    pub(super) batch: Batch,
    pub(super) outbox: Outbox,
}

impl Waiting {
    /// Goes on when the statement is over.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Advance> {
        self.conversation.poll_advance(&mut self.batch, &mut self.outbox, context)
    }
}
