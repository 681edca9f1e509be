//! One connection, from its first byte to its end.
//!
//! A task of the runtime owns the socket, and begins each batch of messages. What may block is left to a thread that may,
//! which owns the session meanwhile; between the two goes a bounded channel of replies. While a batch runs there, or a
//! statement of it elsewhere, the task writes replies, reads ahead a little, and so notices a client that vanished or a
//! server that stops, and interrupts the session.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::coop::consume_budget;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::access;
use super::backend::{ClientInfo, Interrupt, Session};
use super::budget::Budget;
use super::conversation::{Conversation, Flow, server_stopping};
use super::error::{Severity, SqlError, SqlState};
use super::frame::{self, Batch, is_decided};
use super::intake::Feed;
use super::listener::{PgConfig, Phase, Shared, reached};
use super::startup::{self, Hello, Opening};
use super::timeouts::{Clock, Patience, Stall, Timeouts, stalled};
use super::wire::{self, Wire};
use super::work::{Begun, Finished, Work, begin, fault, session_fault};

/// So much is read ahead while a batch runs.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// A client that closed its side may still be reading; what runs for it gets this long before it is interrupted.
const VANISHED_GRACE: Duration = Duration::from_secs(1);
/// A session is interrupted again and again until it ends: one interrupt may fall between two statements.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);
/// A client has taken a good part of what it asked for when it took so much.
pub(super) const GOOD_PART_BYTES: usize = 16 * 1024;
/// A client that has asked for nothing for so long rests: it costs a timer that goes off once, and what the session needs to
/// go on is made anew when it wakes.
const REST_AFTER: Duration = Duration::from_secs(2);
/// When the server stops and waits no longer, a client gets this long to take the replies that are on their way.
const LAST_REPLIES_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves one client. `startup_permit` is given back when it is connected or gone.
pub(super) async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
    startup_permit: OwnedSemaphorePermit,
) {
    wire::prepare(&stream);
    let deadline = Instant::now() + shared.config.startup_timeout;
    let mut wire = Wire::new(stream);
    // Startup that was under way when the server began to stop is not waited for; one that came later is answered.
    let stopped_while_waiting = if *phase.borrow() == Phase::Serving { Phase::Draining } else { Phase::Forced };
    let opening = tokio::select! {
        biased;
        () = reached(&mut phase, stopped_while_waiting) => Err(cannot_connect_now()),
        opening = timeout_at(deadline, startup::receive(&mut wire, shared.access.tls())) => {
            opening.unwrap_or_else(|_| {
                Err(SqlError::fatal(SqlState::PROTOCOL_VIOLATION, "no startup packet came in time"))
            })
        }
    };
    let result = match opening {
        Ok(Opening::Left) => Ok(()),
        Ok(Opening::Cancel { process_id, secret }) => {
            shared.cancels.cancel(process_id, secret);
            Ok(())
        }
        Ok(Opening::Connect(mut hello)) => {
            let admitted = tokio::select! {
                biased;
                () = reached(&mut phase, Phase::Draining) => Err(cannot_connect_now()),
                admitted = access::admit(&shared.access, &mut wire, &mut hello.client, peer, deadline) => admitted,
            };
            hello.client.timeouts = shared.config.timeouts();
            hello.client.connection_limit = shared.config.connection_limit;
            match admitted {
                Ok(()) => connect(&mut wire, &hello, &shared, phase, startup_permit).await,
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::debug!(state = error.state.0, "connection refused");
        let stopping = error.state == SqlState::CANNOT_CONNECT_NOW;
        wire.last_word(&SqlError { severity: Severity::Fatal, ..error }).await;
        if !stopping {
            wire.let_finish().await;
        }
    }
}

/// Answers one client of too many that connect at once, without hearing what it wants.
pub(super) async fn turn_away(stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let mut wire = Wire::new(stream);
    wire.last_word(&SqlError::fatal(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients are connecting")).await;
    wire.let_finish().await;
}

fn cannot_connect_now() -> SqlError {
    SqlError::fatal(SqlState::CANNOT_CONNECT_NOW, "the server is stopping")
}

/// Opens a session and serves it to its end.
///
/// # Errors
/// What the client is told if it does not come to a session.
async fn connect(
    wire: &mut Wire,
    hello: &Hello,
    shared: &Arc<Shared>,
    phase: watch::Receiver<Phase>,
    startup_permit: OwnedSemaphorePermit,
) -> Result<(), SqlError> {
    if *phase.borrow() != Phase::Serving {
        return Err(cannot_connect_now());
    }
    let _slot = shared.slots.take(hello.client.is_superuser)?;
    let session = open_session(shared, hello.client.clone()).await?;
    let interrupt = session.interrupter();
    let status = session.transaction_status();
    let stopping = Arc::new(AtomicBool::new(false));
    let budget = Budget::new(shared.config.message_limit_bytes);
    let (timeouts, clock) = (shared.config.timeouts(), Arc::new(Clock::default()));
    let mut conversation =
        Box::new(Conversation::new(session, budget, timeouts, Arc::clone(&clock), Arc::clone(&stopping)));
    let timeouts = conversation.timeouts();
    let ready = shared.cancels.register(Arc::clone(&interrupt)).and_then(|registration| {
        let greeting = startup::greeting(hello, &registration, status)?;
        Ok((registration, greeting))
    });
    let (registration, greeting) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            close_session(Some(conversation)).await;
            return Err(error);
        }
    };
    drop(startup_permit);
    let process_id = registration.process_id;
    // Seen as long as it is here.
    let _presence = shared.backend.activities().map(|activities| {
        let presence = activities.enter(process_id, &hello.client, wire.peer());
        conversation.enter(Arc::clone(&presence.activity));
        presence
    });
    tracing::debug!(process_id, "connection opened");
    let config = &shared.config;
    let mut connection = Connection { wire, phase, interrupt, stopping, clock, timeouts, config, faulty: false };
    let left = if connection.wire.write_all(&greeting).await.is_ok() {
        connection.converse(conversation).await
    } else {
        Some(conversation)
    };
    close_session(left).await;
    tracing::debug!(process_id, "connection closed");
    Ok(())
}

/// # Errors
/// The backend's refusal.
async fn open_session(shared: &Arc<Shared>, client: ClientInfo) -> Result<Box<dyn Session>, SqlError> {
    let backend = Arc::clone(&shared.backend);
    match spawn_blocking(move || backend.connect(&client)).await {
        Ok(result) => result,
        Err(error) => Err(session_fault(&error)),
    }
}

/// Drops a session where it may block: dropping rolls back.
async fn close_session(conversation: Option<Box<Conversation>>) {
    if let Some(conversation) = conversation
        && let Err(error) = spawn_blocking(move || drop(conversation)).await
    {
        session_fault(&error);
    }
}

fn abandoned() -> SqlError {
    let message = "terminating connection due to idle-in-transaction timeout";
    SqlError::fatal(SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, message)
}

/// A connection whose session is open.
struct Connection<'a> {
    wire: &'a mut Wire,
    phase: watch::Receiver<Phase>,
    interrupt: Arc<dyn Interrupt>,
    stopping: Arc<AtomicBool>,
    clock: Arc<Clock>,
    /// Those in force since the last batch.
    timeouts: Timeouts,
    config: &'a PgConfig,
    /// The client sent what is no message.
    faulty: bool,
}

impl Connection<'_> {
    /// Answers the client until it or the server ends it. Gives back the session, if there still is one.
    async fn converse(&mut self, mut conversation: Box<Conversation>) -> Option<Box<Conversation>> {
        // When the client has been silent for too long. Parts of a message do not put it off.
        let mut silence = self.silence(&conversation);
        let (mut stall, mut patience) = (Stall::default(), Patience::default());
        let (mut rests_at, mut until_rest) = (Some(Instant::now() + REST_AFTER), Patience::default());
        loop {
            if *self.phase.borrow() != Phase::Serving {
                self.wire.last_word(&server_stopping()).await;
                return Some(conversation);
            }
            let batch = frame::take_batch(&mut self.wire.input, self.config.message_limit_bytes);
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    () = reached(&mut self.phase, Phase::Draining) => {
                        self.wire.last_word(&server_stopping()).await;
                        return Some(conversation);
                    }
                    () = patience.run_out(silence.as_ref().map(|(ends_at, _)| *ends_at)) => {
                        // The session is closed first: others wait for it to let go, not for its client to listen.
                        close_session(Some(conversation)).await;
                        if let Some((_, error)) = silence {
                            self.wire.last_word(&error).await;
                        }
                        return None;
                    }
                    () = until_rest.run_out(rests_at) => {
                        rests_at = None;
                        self.rest(&mut conversation);
                    }
                    () = at(stall.ends_at) => {
                        close_session(Some(conversation)).await;
                        self.wire.last_word(&stalled()).await;
                        return None;
                    }
                    read = self.wire.read_more() => match read {
                        Ok(count) if count > 0 => stall.took(count, self.config.send_timeout),
                        _ => return Some(conversation),
                    }
                }
                continue;
            }
            stall = Stall::default();
            let (finished, broken) = self.answer(conversation, batch).await;
            let Some(finished) = finished else {
                self.wire.last_word(&fault()).await;
                return None;
            };
            if finished.flow == Flow::End || broken {
                if self.faulty {
                    // The session is closed first: its locks must not wait for a client that talks nonsense.
                    close_session(finished.conversation).await;
                    self.wire.part().await;
                    return None;
                }
                return finished.conversation;
            }
            conversation = finished.conversation?;
            self.timeouts = conversation.timeouts();
            silence = self.silence(&conversation);
            rests_at = Some(Instant::now() + REST_AFTER);
            if !self.wire.input.is_empty() {
                stall.took(self.wire.input.len(), self.config.send_timeout);
            }
        }
    }

    /// Answers what came together; and whether the connection broke meanwhile.
    async fn answer(&mut self, conversation: Box<Conversation>, batch: Batch) -> (Option<Finished>, bool) {
        self.note_fault(batch.fault.as_ref());
        match begin(conversation, batch) {
            Begun::Over(mut finished) => {
                // A client that keeps up takes its replies at once.
                self.wire.write_now(&mut finished.rest);
                if finished.rest.is_empty() {
                    consume_budget().await;
                    (Some(finished), false)
                } else {
                    Pump::new(self, Work::over(finished)).run().await
                }
            }
            Begun::Goes(work) => Pump::new(self, work).run().await,
        }
    }

    /// Notes that the connection ends because of what the client sent, if it does.
    fn note_fault(&mut self, fault: Option<&SqlError>) {
        if let Some(fault) = fault {
            self.faulty = true;
            tracing::info!(state = fault.state.0, reason = %fault.message, "a client sent what is no message");
        }
    }

    /// When the client will have been silent for too long, and what it is told then.
    fn silence(&self, conversation: &Conversation) -> Option<(Instant, SqlError)> {
        let (timeout, error) = if conversation.is_in_transaction() {
            (self.timeouts.idle_in_transaction, abandoned())
        } else {
            let message = "terminating connection due to idle-session timeout";
            (self.timeouts.idle_session, SqlError::fatal(SqlState::IDLE_SESSION_TIMEOUT, message))
        };
        (!timeout.is_zero()).then(|| (Instant::now() + timeout, error))
    }

    /// Gives back what an idle connection does not need.
    fn rest(&mut self, conversation: &mut Conversation) {
        if self.wire.input.is_empty() {
            self.wire.input = BytesMut::new();
        }
        conversation.session.rest();
    }
}

/// Moves bytes while a batch runs on its thread.
struct Pump<'a, 'b> {
    connection: &'a mut Connection<'b>,
    chunks: mpsc::Receiver<Bytes>,
    chunks_ended: bool,
    /// Where a COPY asks for data, until nothing can any more.
    feeds: Option<mpsc::Receiver<Feed>>,
    /// Where the data of the COPY that runs goes.
    feed: Option<Feed>,
    /// When its client has sent nothing for too long. A COPY may keep all other writers waiting.
    starves_at: Option<Instant>,
    work: Work,
    finished: Option<Result<Finished, JoinError>>,
    /// A chunk that is being written.
    pending: Bytes,
    /// How much of it was written since `stalls_at` was set.
    taken_bytes: usize,
    /// When the client has taken too little for too long.
    stalls_at: Option<Instant>,
    /// The client closed its side; when what runs for it is interrupted.
    vanishes_at: Option<Instant>,
    /// The server waits no longer; when writing ends.
    gives_up_at: Option<Instant>,
    /// The time of a statement has run out.
    overdue: bool,
    /// Nothing can be written any more.
    broken: bool,
}

impl<'a, 'b> Pump<'a, 'b> {
    fn new(connection: &'a mut Connection<'b>, mut work: Work) -> Pump<'a, 'b> {
        Pump {
            connection,
            chunks: work.chunks(),
            chunks_ended: false,
            feeds: Some(work.feeds()),
            feed: None,
            starves_at: None,
            work,
            finished: None,
            pending: Bytes::new(),
            taken_bytes: 0,
            stalls_at: None,
            vanishes_at: None,
            gives_up_at: None,
            overdue: false,
            broken: false,
        }
    }

    /// Runs until the batch has ended and its replies are written. Gives back what the thread gave back, or nothing if
    /// it failed, and whether the client cannot be written to any more.
    async fn run(mut self) -> (Option<Finished>, bool) {
        let mut interrupts = interval(INTERRUPT_INTERVAL);
        interrupts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_done() {
            let running = self.finished.is_none();
            let interrupting = running && (self.broken || self.gives_up_at.is_some());
            let clock = Arc::clone(&self.connection.clock);
            self.look_after_feed();
            let limit_bytes = self.connection.config.message_limit_bytes;
            let Wire { reader, writer, input, .. } = &mut *self.connection.wire;
            let has_food = self.feed.is_some() && is_decided(input, limit_bytes);
            let hungry = self.feed.is_some() && !has_food;
            let has_room = input.len() < READ_AHEAD_BYTES || hungry;
            let reads_ahead = running && !self.broken && self.vanishes_at.is_none() && has_room;
            tokio::select! {
                written = writer.write(&self.pending), if !self.pending.is_empty() => match written {
                    Ok(count) if count > 0 => self.wrote(count),
                    _ => self.break_off(),
                },
                chunk = self.chunks.recv(), if self.pending.is_empty() && !self.chunks_ended => match chunk {
                    Some(chunk) => self.write(chunk),
                    None => self.chunks_ended = true,
                },
                feed = next_feed(&mut self.feeds), if running && self.feed.is_none() => match feed {
                    Some(feed) => self.feed = Some(feed),
                    None => self.feeds = None,
                },
                room = room_in(&self.feed), if has_food => match room {
                    Some(room) => {
                        let food = frame::take_copy(input, limit_bytes);
                        self.connection.note_fault(food.fault.as_ref());
                        let is_last = food.fault.is_some()
                            || food.frames.back().is_some_and(|frame| !frame.kind.goes_on_copying());
                        room.send(food);
                        self.starves_at = None;
                        if is_last {
                            self.feed = None;
                        }
                    }
                    None => self.feed = None,
                },
                () = at(self.starves_at), if hungry && running && !self.broken => self.starve(),
                finished = &mut self.work, if running => self.finish(finished),
                read = wire::read_more(reader, input), if reads_ahead => match read {
                    Ok(count) if count > 0 => {}
                    Ok(_) => self.vanishes_at = Some(Instant::now() + VANISHED_GRACE),
                    Err(_) => self.break_off(),
                },
                () = reached(&mut self.connection.phase, Phase::Forced), if self.gives_up_at.is_none() => self.stop(),
                () = at(self.gives_up_at), if !self.broken => self.break_off(),
                () = at(self.stalls_at), if !self.broken => {
                    tracing::info!("a client that took no replies is disconnected");
                    self.break_off();
                }
                () = at(self.vanishes_at), if running && !self.broken => self.break_off(),
                () = clock.run_out(), if running && !self.overdue => self.overdue = true,
                _ = interrupts.tick(), if interrupting || (running && self.overdue) => {
                    self.overdue = clock.interrupt(self.connection.interrupt.as_ref());
                    if interrupting {
                        self.connection.interrupt.interrupt();
                    }
                }
            }
        }
        (self.finished.take().and_then(Result::ok), self.broken)
    }

    /// Whether all is written; brings on what the thread left to write.
    fn is_done(&mut self) -> bool {
        if !self.chunks_ended || !self.pending.is_empty() {
            return false;
        }
        match &mut self.finished {
            None => false,
            Some(Err(error)) => {
                tracing::error!(%error, "a connection's thread failed");
                true
            }
            Some(Ok(finished)) => {
                let rest = std::mem::take(&mut finished.rest);
                self.write(rest);
                self.pending.is_empty()
            }
        }
    }

    /// The batch is over. A client that keeps up takes its replies at once, so that no timer is set for it.
    fn finish(&mut self, finished: Result<Finished, JoinError>) {
        self.finished = Some(finished);
        self.write_now();
        while self.pending.is_empty() && !self.chunks_ended {
            match self.chunks.try_recv() {
                Ok(chunk) => self.write(chunk),
                Err(TryRecvError::Disconnected) => self.chunks_ended = true,
                Err(TryRecvError::Empty) => return,
            }
            self.write_now();
        }
        if let Some(Ok(finished)) = &mut self.finished
            && self.pending.is_empty()
        {
            let rest = std::mem::take(&mut finished.rest);
            self.write(rest);
            self.write_now();
        }
    }

    /// Writes what the client takes at once of the chunk that is being written.
    fn write_now(&mut self) {
        let before = self.pending.len();
        self.connection.wire.write_now(&mut self.pending);
        self.note_written(before - self.pending.len());
    }

    /// Ends a feed that nothing comes for any more, and sees to it that the client has a limited time for the next piece.
    fn look_after_feed(&mut self) {
        if self.feed.is_none() {
            self.starves_at = None;
            return;
        }
        let input = &self.connection.wire.input;
        let comes_no_more =
            self.vanishes_at.is_some() && !is_decided(input, self.connection.config.message_limit_bytes);
        if self.broken || self.gives_up_at.is_some() || self.finished.is_some() || comes_no_more {
            self.feed = None;
        } else if self.starves_at.is_none() {
            let timeout = self.connection.timeouts.idle_in_transaction;
            self.starves_at = (!timeout.is_zero()).then(|| Instant::now() + timeout);
        }
    }

    /// The client of a COPY has sent nothing for too long.
    fn starve(&mut self) {
        if let Some(feed) = self.feed.take() {
            // If there is no room, the COPY has not even taken what was sent before, and hears of the end next.
            let _ = feed.try_send(Batch { fault: Some(abandoned()), ..Batch::default() });
        }
    }

    fn write(&mut self, chunk: Bytes) {
        if !self.broken {
            self.pending = chunk;
            self.expect_progress();
        }
    }

    fn wrote(&mut self, count: usize) {
        self.pending.advance(count);
        self.note_written(count);
    }

    fn note_written(&mut self, count: usize) {
        self.taken_bytes += count;
        if self.pending.is_empty() || self.taken_bytes >= GOOD_PART_BYTES {
            self.expect_progress();
        }
    }

    /// Gives the client the whole time again for what is still to be written, if anything is.
    fn expect_progress(&mut self) {
        self.taken_bytes = 0;
        let waits = !self.pending.is_empty();
        self.stalls_at = waits.then(|| Instant::now() + self.connection.config.send_timeout);
    }

    /// The client is gone: the thread is told when it sends the next time, and is interrupted.
    fn break_off(&mut self) {
        self.broken = true;
        self.pending.clear();
        self.chunks.close();
    }

    /// The server waits no longer: the thread is told likewise, but the client may still get what is on its way.
    fn stop(&mut self) {
        self.connection.stopping.store(true, Ordering::Release);
        self.gives_up_at = Some(Instant::now() + LAST_REPLIES_TIMEOUT);
        self.chunks.close();
    }
}

impl Drop for Pump<'_, '_> {
    /// A task that is dropped with its runtime leaves no statement running.
    fn drop(&mut self) {
        if self.finished.is_none() && !self.work.is_over() {
            self.connection.stopping.store(true, Ordering::Release);
            self.connection.interrupt.interrupt();
        }
    }
}

/// Waits until a COPY asks for data; for ever if none can.
async fn next_feed(feeds: &mut Option<mpsc::Receiver<Feed>>) -> Option<Feed> {
    match feeds {
        Some(feeds) => feeds.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits until the COPY takes data; nothing if it takes none any more.
async fn room_in(feed: &Option<Feed>) -> Option<OwnedPermit<Batch>> {
    match feed {
        Some(feed) => feed.clone().reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

/// Waits until `instant`; for ever without one.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
