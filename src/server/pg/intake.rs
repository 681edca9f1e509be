//! What the client sent and is still to be done, and the data that a COPY takes from it.
//!
//! A COPY runs on a thread that may block; the socket belongs to the connection's task. So the COPY hands the task a
//! bounded channel, the *feed*, through which frames come until the one that ends the data. What a COPY that failed leaves in
//! it goes back to the messages to be done, none of them lost: the protocol says of each what becomes of it.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use super::backend::Copied;
use super::error::{SqlError, SqlState};
use super::frame::{Batch, Frame, Kind};
use super::message;
use super::outbox::Outbox;

/// Where the task puts the frames of a COPY.
pub(super) type Feed = mpsc::Sender<Batch>;

/// So many batches of frames wait for the COPY; each is as long as what is read ahead, or one message.
const BATCHES_WAITING: usize = 1;

/// See the front page.
#[derive(Default)]
pub(super) struct Intake {
    /// Messages to be done, in order.
    pub(super) batch: Batch,
    /// Who is asked to feed a COPY.
    feeders: Option<mpsc::Sender<Feed>>,
    /// The data of the COPY that runs.
    food: Option<mpsc::Receiver<Batch>>,
}

impl Intake {
    /// Answers where a COPY asks for its data.
    pub(super) fn attach(&mut self) -> mpsc::Receiver<Feed> {
        let (feeders, feeds) = mpsc::channel(1);
        self.feeders = Some(feeders);
        feeds
    }

    /// Asks the client for the data of a COPY. Blocks.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn begin_copy(&mut self, columns: usize, outbox: &mut Outbox) -> Result<(), SqlError> {
        outbox.copy_in(columns)?;
        // Sent behind the statement, before its client knew that it is a COPY.
        while self.batch.frames.front().is_some_and(|frame| matches!(frame.kind, Kind::Flush | Kind::Sync)) {
            self.batch.frames.pop_front();
        }
        let (feed, food) = mpsc::channel(BATCHES_WAITING);
        self.food = Some(food);
        let feeders = self.feeders.as_ref().ok_or_else(client_gone)?;
        feeders.blocking_send(feed).map_err(|_| client_gone())
    }

    /// The next piece of the data. Blocks for about `patience` if there is none.
    ///
    /// # Errors
    /// It ends otherwise than it should.
    pub(super) fn copied(&mut self, patience: Duration) -> Result<Copied, SqlError> {
        loop {
            if let Some(frame) = self.batch.frames.pop_front() {
                match frame.kind {
                    Kind::CopyData => return Ok(Copied::Data(frame.body)),
                    Kind::CopyDone => return Ok(Copied::End),
                    Kind::Flush | Kind::Sync => continue,
                    _ => return Err(self.ended_by(frame)),
                }
            }
            if let Some(fault) = &self.batch.fault {
                // Fatal: the connection ends with it.
                return Err(fault.clone());
            }
            let Some(food) = &mut self.food else { return Err(client_gone()) };
            match food.try_recv() {
                Ok(batch) => self.batch = batch,
                Err(TryRecvError::Disconnected) => return Err(client_gone()),
                Err(TryRecvError::Empty) if patience.is_zero() => return Ok(Copied::Nothing),
                Err(TryRecvError::Empty) => match Handle::current().block_on(timeout(patience, food.recv())) {
                    Ok(Some(batch)) => self.batch = batch,
                    Ok(None) => return Err(client_gone()),
                    Err(_) => return Ok(Copied::Nothing),
                },
            }
        }
    }

    fn ended_by(&mut self, frame: Frame) -> SqlError {
        if frame.kind == Kind::CopyFail {
            return match message::copy_failure(frame) {
                Ok(reason) => SqlError::new(SqlState::QUERY_CANCELED, format!("COPY from stdin failed: {reason}")),
                Err(error) => error,
            };
        }
        let message = format!("unexpected message during COPY from stdin: {:?}", frame.kind);
        // It is done next, so that its client gets the answer that it waits for.
        self.batch.frames.push_front(frame);
        SqlError::new(SqlState::PROTOCOL_VIOLATION, message)
    }

    /// The COPY is over, if one ran: takes back what it did not take.
    pub(super) fn end_copy(&mut self) {
        let Some(mut food) = self.food.take() else { return };
        food.close();
        while let Some(batch) = food.blocking_recv() {
            self.batch.frames.extend(batch.frames);
            if self.batch.fault.is_none() {
                self.batch.fault = batch.fault;
            }
        }
    }
}

fn client_gone() -> SqlError {
    let message = "unexpected EOF on client connection with an open COPY";
    SqlError::fatal(SqlState::CONNECTION_FAILURE, message)
}
