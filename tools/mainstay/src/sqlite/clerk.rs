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
//! again and the culprit alone gets its error. Whoever is to run, or to run again, can be cancelled meanwhile, and a
//! [second thread](super::turnstile::Turnstile::late) tells those whose time to wait has run out.
//!
//! **No word of what never was.** A statement that fails behind others may have failed by what they wrote, as with a key that
//! one of them took. So its error counts only if that was committed; else it hears why not, or runs again, alone. What one
//! statement did can also make the commit of all impossible before the log is asked; then each runs alone.
//!
//! The next group does not run while the last one is synced: it would have to do so in the same transaction of SQLite, which
//! could then not be committed without it, and clients must not be answered before readers can see what they wrote.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mainstay::server::pg::{CommandTag, OwnedValue, Reply, SqlError, SqlState};
use tokio::sync::oneshot;

use super::control::{Control, Turn, cancelled, is_demoted, not_granted, revoked, unless_demoted};
use super::engine::Shared;
use super::turnstile::{GROUP_STATEMENTS, Single, Standing, Ticket, Waited, Work};
use super::writer::{NotCommitted, Writer};

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
    /// When it was queued.
    pub(super) since: Instant,
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

/// The threads; they end when this is dropped.
pub(super) struct Clerk {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clerk {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Clerk> {
        let mut clerk = Clerk { shared, threads: Vec::new() };
        clerk.spawn("sqlite-clerk", run)?;
        clerk.spawn("sqlite-alarm", run_alarm)?;
        Ok(clerk)
    }

    fn spawn(&mut self, name: &str, run: fn(&Arc<Shared>)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))?);
        Ok(())
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.shared.turnstile.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("the thread that writes, or the one that looks at the time, had panicked");
            }
        }
    }
}

fn run(shared: &Arc<Shared>) {
    while let Some(work) = shared.turnstile.next(GROUP_BYTES) {
        let perform = || {
            perform(shared, work);
            shared.copy_if_long();
        };
        // Whoever waits hears of a panic by the end of its channel; its turn is given back as it unwinds.
        if catch_unwind(AssertUnwindSafe(perform)).is_err() {
            tracing::error!("the thread that writes panicked; it goes on");
            // The rest of the group hears in the same way.
            drop(shared.turnstile.end_group());
        }
    }
}

fn run_alarm(shared: &Arc<Shared>) {
    while let Some(late) = shared.turnstile.late() {
        for late in late {
            if catch_unwind(AssertUnwindSafe(|| late.tell(Waited::TooLong))).is_err() {
                tracing::error!("the thread that looks at the time panicked; it goes on");
            }
        }
    }
}

fn perform(shared: &Arc<Shared>, work: Work) {
    match work {
        Work::Errand(errand) => errand(),
        Work::Transaction(start, ticket) => start(Ok(ticket)),
        Work::Group(ticket) => run_group(Turn::new(Arc::clone(shared), ticket), Instant::now()),
    }
}

/// What became of one try to run statements together.
enum Tried {
    /// They are over, each with its outcome.
    Over(Vec<(Statement, Result<CommandTag, SqlError>)>),
    /// The last one ended the transaction of all, with this error unless that may come of what others wrote.
    Culprit(Vec<(Ticket, Statement)>, Box<(Ticket, Statement)>, Option<SqlError>),
    /// They cannot be committed together, by what one of them did or by what they are together.
    Unfit(Vec<(Ticket, Statement)>),
}

fn run_group(turn: Turn, began: Instant) {
    let turnstile = &turn.shared().turnstile;
    let mut restarts = 0;
    let mut over = Vec::new();
    while let Some(is_alone) = turnstile.next_is_alone() {
        answer(&mut over);
        let together = if is_alone || restarts > GROUP_RESTARTS { 1 } else { GROUP_STATEMENTS };
        match try_together(&turn, together, began) {
            Tried::Over(those) => over = those,
            Tried::Culprit(others, culprit, error) => {
                let (ticket, culprit) = *culprit;
                match error {
                    Some(error) => culprit.answer(Err(error)),
                    None => {
                        culprit.control.note_waiting(true);
                        turnstile.put_last(ticket, culprit);
                    }
                }
                run_again(&turn, others);
                restarts += 1;
            }
            Tried::Unfit(others) => {
                run_again(&turn, others);
                restarts = GROUP_RESTARTS + 1;
            }
        }
    }
    // Who is answered comes back with the next statement, and should not meet this at the queue.
    drop(turn);
    answer(&mut over);
}

fn answer(over: &mut Vec<(Statement, Result<CommandTag, SqlError>)>) {
    over.drain(..).for_each(|(statement, outcome)| statement.answer(outcome));
}

/// What ran has to run again, unless it was cancelled while it stood nowhere.
fn run_again(turn: &Turn, statements: Vec<(Ticket, Statement)>) {
    let turnstile = &turn.shared().turnstile;
    let stand = |(ticket, statement): &(Ticket, Statement)| (*ticket, Arc::clone(&statement.control));
    let standing: Vec<(Ticket, Arc<Control>)> = statements.iter().map(stand).collect();
    standing.iter().for_each(|(_, control)| control.note_waiting(true));
    turnstile.put_back(statements);
    // A cancel notes itself first and looks for the place second, so that none is missed.
    for (ticket, _) in standing.iter().filter(|(_, control)| control.is_cancelled()) {
        turnstile.cancel(*ticket, || ());
    }
}

fn try_together(turn: &Turn, together: usize, began: Instant) -> Tried {
    let shared = turn.shared();
    let all = |error: &SqlError| {
        Tried::Over(shared.turnstile.end_group().into_iter().map(|statement| (statement, Err(error.clone()))).collect())
    };
    if is_demoted(shared) {
        return all(&revoked());
    }
    let Some(mut writer) = turn.writer() else { return all(&revoked()) };
    if let Err(error) = writer.begin() {
        return all(&unless_demoted(shared, error));
    }
    let begun = Instant::now();
    let mut alone = together == 1;
    let (mut statements, mut outcomes) = (Vec::new(), Vec::new());
    while statements.len() < together {
        let is_first = statements.is_empty();
        let run = |statement: &mut Statement, standing: Standing| {
            if !standing.ran_before {
                shared.measures.queued(began.saturating_duration_since(statement.since));
            }
            alone |= is_first && standing.is_last;
            run_one(&mut writer, statement, alone)
        };
        match shared.turnstile.run_next(is_first, run) {
            None => break,
            Some((ticket, culprit, Err(error))) if !alone && writer.is_ended() => {
                writer.rollback();
                let is_own = is_cancel(&error) || !outcomes.iter().any(Result::is_ok);
                return Tried::Culprit(statements, Box::new((ticket, culprit)), is_own.then_some(error));
            }
            Some((ticket, statement, outcome)) => {
                statements.push((ticket, statement));
                outcomes.push(outcome);
            }
        }
    }
    if !statements.is_empty() {
        shared.measures.executed(begun.elapsed(), statements.len());
    }
    let first_written = outcomes.iter().position(Result::is_ok);
    let committed = if first_written.is_some() {
        // Held until the commit is over: demoting waits for it, so that the log is not used afterwards.
        let log = shared.log.try_read();
        let log = log.as_ref().and_then(|log| log.as_deref()).ok_or_else(|| NotCommitted::Refused(revoked()));
        log.and_then(|log| writer.commit(log))
    } else {
        Ok(())
    };
    writer.rollback();
    drop(writer);
    match committed {
        Err(NotCommitted::Unfit(_)) if !alone => return Tried::Unfit(statements),
        Err(NotCommitted::Unfit(error) | NotCommitted::Refused(error)) => {
            // What failed before the first that wrote saw nothing of the others.
            let behind = outcomes.iter_mut().skip(first_written.unwrap_or_default());
            let depends = |outcome: &&mut Result<_, SqlError>| !outcome.as_ref().is_err_and(is_cancel);
            behind.filter(depends).for_each(|outcome| *outcome = Err(error.clone()));
        }
        Ok(()) => {}
    }
    Tried::Over(statements.into_iter().map(|(_, statement)| statement).zip(outcomes).collect())
}

fn run_one(writer: &mut Writer, statement: &mut Statement, alone: bool) -> Result<CommandTag, SqlError> {
    let Statement { sql, parameters, reply, control, .. } = statement;
    reply.restart();
    control.note_waiting(false);
    let outcome = if control.is_cancelled() {
        Err(cancelled())
    } else if alone {
        writer.execute(sql, parameters, reply)
    } else {
        writer.execute_apart(sql, parameters, reply)
    };
    outcome.map_err(|error| control.cause_of(error))
}

/// What was cancelled would have been so in any company.
fn is_cancel(error: &SqlError) -> bool {
    error.state == SqlState::QUERY_CANCELED
}
