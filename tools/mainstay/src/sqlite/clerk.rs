//! The thread that writes for sessions which do not wait on threads of their own.
//!
//! **Groups.** Statements that are transactions by themselves, and wait at the same time, share one transaction of SQLite and
//! one record of the WAL; each runs in a savepoint of its own, with all its constraints checked there, deferred ones too.
//! While a group's record is synced, the next group gathers. The order of a commit is that of any transaction
//! ([`Writer::commit`](super::writer::Writer::commit)): in the WAL first, in SQLite second, answered third. So a reader
//! sees of a group nothing that a crash could take back, and after a crash a group is there whole or not at all.
//!
//! **Culprits.** Some errors end SQLite's transaction despite savepoints: an interrupt, `INSERT OR ROLLBACK`,
//! `RAISE(ROLLBACK)`, no space. Then nothing of the group was appended and nobody was answered, so the others are run
//! again and the culprit alone gets its error.
//!
//! The next group does not run while the last one is synced: it would have to do so in the same transaction of SQLite, which
//! could then not be committed without it, and clients must not be answered before readers can see what they wrote.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use mainstay::server::pg::{CommandTag, OwnedValue, Reply, SqlError, SqlState};
use tokio::sync::oneshot;

use super::control::{Control, Turn, cancelled, not_granted, revoked};
use super::engine::Shared;
use super::turnstile::{Single, Ticket, Waited, Work};

/// Text and parameters of the statements that share a record. One alone may have more.
const GROUP_BYTES: usize = 1 << 20;
/// So often a group is run again without its culprit. Then each of the rest runs alone.
const GROUP_RESTARTS: usize = 3;

/// A statement that is a transaction by itself.
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) parameters: Arc<Vec<OwnedValue>>,
    pub(super) reply: Reply,
    pub(super) control: Arc<Control>,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What a session is told of a statement that the clerk ran.
pub(super) struct Answer {
    pub(super) outcome: Result<CommandTag, SqlError>,
    pub(super) reply: Reply,
    /// The turn to write, if the transaction goes on with it.
    pub(super) turn: Option<Turn>,
    /// What the transaction wrote is gone.
    pub(super) lost: bool,
}

impl Statement {
    fn answer(self, outcome: Result<CommandTag, SqlError>) {
        // A session that is gone needs no answer.
        let _ = self.answer.send(Answer { outcome, reply: self.reply, turn: None, lost: false });
    }
}

impl Single for Statement {
    fn give_up(self, waited: Waited) {
        self.answer(Err(not_granted(waited)));
    }

    fn len_bytes(&self) -> usize {
        let parameter = |value: &OwnedValue| match value {
            OwnedValue::Text(text) => text.len(),
            OwnedValue::Blob(bytes) => bytes.len(),
            OwnedValue::Null | OwnedValue::Integer(_) | OwnedValue::Real(_) => size_of::<OwnedValue>(),
        };
        self.sql.len() + self.parameters.iter().map(parameter).sum::<usize>()
    }
}

/// The thread; it ends when this is dropped.
pub(super) struct Clerk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Clerk {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Clerk> {
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("sqlite-clerk".to_owned()).spawn(move || run(&of_thread))?;
        Ok(Clerk { shared, thread: Some(thread) })
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.shared.turnstile.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes had panicked");
        }
    }
}

fn run(shared: &Arc<Shared>) {
    while let Some(work) = shared.turnstile.next(GROUP_BYTES) {
        // Whoever waits hears of a panic by the end of its channel; its turn is given back as it unwinds.
        if catch_unwind(AssertUnwindSafe(|| perform(shared, work))).is_err() {
            tracing::error!("the thread that writes panicked; it goes on");
        }
        shared.copy_if_long();
    }
}

fn perform(shared: &Arc<Shared>, work: Work<Statement>) {
    match work {
        Work::Errand(errand) => errand(),
        Work::Transaction(start, ticket) => start(Ok(ticket)),
        Work::Late(late) => late.tell(if shared.turnstile.is_closed() { Waited::Closed } else { Waited::TooLong }),
        Work::Group(ticket, statements) => run_group(Turn::new(Arc::clone(shared), ticket), statements),
    }
}

/// What became of one try to run statements together.
enum Tried {
    /// They are over, each with its outcome.
    Over(Vec<(Statement, Result<CommandTag, SqlError>)>),
    /// The one at this position ended the transaction of all.
    Culprit(Vec<(Ticket, Statement)>, usize, SqlError),
    /// They fit no record together.
    TooLarge(Vec<(Ticket, Statement)>),
}

fn run_group(turn: Turn, mut statements: Vec<(Ticket, Statement)>) {
    let mut restarts = 0;
    let mut answers = Vec::with_capacity(statements.len());
    while !statements.is_empty() {
        let together = if restarts > GROUP_RESTARTS { 1 } else { statements.len() };
        let rest = statements.split_off(together);
        match try_together(&turn, statements) {
            Tried::Over(over) => {
                answers.extend(over);
                statements = rest;
            }
            Tried::Culprit(mut others, position, error) => {
                let (_, culprit) = others.remove(position);
                answers.push((culprit, Err(error)));
                others.extend(rest);
                statements = others;
                restarts += 1;
            }
            Tried::TooLarge(others) => {
                statements = others;
                statements.extend(rest);
                restarts = GROUP_RESTARTS + 1;
            }
        }
    }
    drop(turn);
    for (statement, outcome) in answers {
        statement.answer(outcome);
    }
}

fn try_together(turn: &Turn, mut statements: Vec<(Ticket, Statement)>) -> Tried {
    let all = |statements: Vec<(Ticket, Statement)>, error: &SqlError| {
        Tried::Over(statements.into_iter().map(|(_, statement)| (statement, Err(error.clone()))).collect())
    };
    let shared = turn.shared();
    let Some(mut writer) = turn.writer().filter(|_| shared.log.read().is_some()) else {
        return all(statements, &revoked());
    };
    if let Err(error) = writer.begin() {
        return all(statements, &error);
    }
    let alone = statements.len() == 1;
    let mut outcomes = Vec::with_capacity(statements.len());
    for (position, (ticket, statement)) in statements.iter_mut().enumerate() {
        let Statement { sql, parameters, reply, control, .. } = statement;
        reply.restart();
        shared.turnstile.set_running(Some(*ticket));
        let outcome = if control.is_cancelled() {
            Err(cancelled())
        } else if alone {
            writer.execute(sql, parameters, reply)
        } else {
            writer.execute_apart(sql, parameters, reply)
        };
        shared.turnstile.set_running(None);
        match outcome {
            Err(error) if !alone && writer.is_ended() => {
                writer.rollback();
                return Tried::Culprit(statements, position, error);
            }
            outcome => outcomes.push(outcome),
        }
    }
    let committed = if outcomes.iter().any(Result::is_ok) {
        // Held until the commit is over: demoting waits for it, so that the log is not used afterwards.
        let log = shared.log.read();
        log.as_deref().ok_or_else(revoked).and_then(|log| writer.commit(log))
    } else {
        Ok(())
    };
    writer.rollback();
    drop(writer);
    if let Err(error) = committed {
        if error.state == SqlState::PROGRAM_LIMIT_EXCEEDED && !alone {
            return Tried::TooLarge(statements);
        }
        outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| *outcome = Err(error.clone()));
    }
    Tried::Over(statements.into_iter().map(|(_, statement)| statement).zip(outcomes).collect())
}
