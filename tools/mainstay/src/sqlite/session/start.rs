//! Statements that take no thread of the session's own: those that are over in a moment, and those that the clerk
//! ([`super::super::clerk`]) runs. Everything else is left to a thread that may block.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use mainstay::server::pg::{CommandTag, OwnedValue, Reply, Scope, SqlError, SqlState, Started};
use tokio::sync::oneshot;

use super::super::catalog;
use super::super::clerk::{Answer, Statement};
use super::super::command::{self, Command, Modes};
use super::super::control::{Control, Turn, not_granted};
use super::super::turnstile::Ticket;
use super::super::{dialect, lexer, literals};
use super::reader::Reader;
use super::{SqliteSession, catalogs};

/// What the clerk does for a session.
pub(super) struct Pending {
    answer: oneshot::Receiver<Answer>,
    what: What,
}

enum What {
    /// A statement that is a transaction by itself.
    Single,
    /// A statement of the transaction.
    InTransaction,
    /// The transaction's end; these were its modes.
    Commit { chain: Option<Modes> },
}

/// What a statement of SQLite's does, by its first word. The authorizer and SQLite have the last word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    ChangesRows,
    Reads,
    Else,
}

impl Does {
    fn of(sql: &str) -> Does {
        let Some(first) = lexer::tokens(sql).next() else { return Does::Else };
        let is = |words: &[&str]| words.iter().any(|word| first.is(word));
        if is(&["INSERT", "UPDATE", "DELETE", "REPLACE"]) {
            Does::ChangesRows
        } else if is(&["SELECT", "VALUES"]) {
            Does::Reads
        } else {
            Does::Else
        }
    }
}

/// A statement, to be run by the clerk with a turn to write.
struct InTurn {
    sql: String,
    parameters: Arc<Vec<OwnedValue>>,
    reply: Reply,
    control: Arc<Control>,
}

impl InTurn {
    /// Runs it. The turn is kept unless the transaction is over.
    fn run(mut self, turn: Turn) -> Answer {
        let interrupt = Arc::clone(&turn.shared().writer_interrupt);
        let (outcome, over) = {
            let Some(mut writer) = turn.writer() else { return self.failed(super::revoked(), true) };
            let work = || writer.execute(&self.sql, &self.parameters, &mut self.reply);
            let outcome = self.control.run(&interrupt, work);
            let over = outcome.is_err() && writer.is_ended();
            (outcome, over)
        };
        Answer { outcome, reply: self.reply, turn: (!over).then_some(turn), lost: over }
    }

    fn failed(self, error: SqlError, lost: bool) -> Answer {
        Answer { outcome: Err(error), reply: self.reply, turn: None, lost }
    }
}

impl SqliteSession {
    /// See [`mainstay::server::pg::Session::start`].
    pub(super) fn start_statement(
        &mut self,
        sql: &str,
        parameters: &Arc<Vec<OwnedValue>>,
        scope: Scope,
        mut reply: Reply,
    ) -> Started {
        let outcome = match command::parse(sql) {
            Ok(None) => return self.start_sql(sql, parameters, scope, reply),
            Ok(Some(Command::Commit { chain })) if self.commits_elsewhere() => return self.start_commit(chain, reply),
            Ok(Some(Command::Copy(_) | Command::Translated(_))) => return Started::Blocks(reply),
            Ok(Some(Command::Show(name))) if catalogs::is_listed(&name) => return Started::Blocks(reply),
            Ok(Some(_)) if self.turn().is_some() || self.is_in_temporary() => return Started::Blocks(reply),
            Ok(Some(command)) => self.run_command(command, scope, &mut reply),
            Err(error) => self.refuse_if_failed().and(Err(error)),
        };
        self.note_outcome(&outcome);
        Started::Done(outcome, reply)
    }

    fn start_sql(&mut self, sql: &str, parameters: &Arc<Vec<OwnedValue>>, scope: Scope, reply: Reply) -> Started {
        if let Err(error) = self.refuse_if_failed() {
            return Started::Done(Err(error), reply);
        }
        let sql = &*dialect::in_sqlites_words(sql);
        if self.may_be_temporary(sql) || dialect::names_user(sql) {
            return Started::Blocks(reply);
        }
        let modes = self.modes();
        let does = Does::of(sql);
        let in_turn = self.turn().is_some();
        // With rows that do not fit the reply, the statement runs again; so it must not have changed anything.
        let returning = does == Does::ChangesRows && lexer::tokens(sql).any(|token| token.is("RETURNING"));
        // What the transaction did to the schema is seen on the writer, by a statement that is not for it.
        if in_turn && does == Does::Reads && catalog::is_suspected(sql) {
            return Started::Blocks(reply);
        }
        let to_writer = in_turn || does == Does::ChangesRows;
        if does == Does::Else || (to_writer && modes.read_only) {
            return Started::Blocks(reply);
        }
        if !to_writer {
            return self.start_reading(sql, parameters, scope, reply);
        }
        let lifted = parameters.is_empty().then(|| literals::lifted(sql)).flatten();
        let (sql, parameters) =
            lifted.as_ref().map_or((sql, parameters), |lifted| (lifted.sql.as_str(), &lifted.parameters));
        let is_primary = self.shared.log.try_read().is_some_and(|log| log.is_some());
        let Some(transaction) = &mut self.transaction else {
            if scope == Scope::Single && is_primary {
                return self.start_single(sql, parameters, reply);
            }
            return Started::Blocks(reply);
        };
        if returning || !is_primary {
            return Started::Blocks(reply);
        }
        // What it has seen may have to be compared with what is there now.
        if transaction.turn.is_none() && modes.snapshot() {
            return Started::Blocks(reply);
        }
        transaction.started = true;
        let (turn, savepoints) = (transaction.turn.take(), transaction.savepoints.clone());
        self.start_in_transaction(sql, parameters, turn, savepoints, reply)
    }

    /// Reads on the session's own connection, unless that takes more than a moment.
    fn start_reading(
        &mut self,
        sql: &str,
        parameters: &Arc<Vec<OwnedValue>>,
        scope: Scope,
        mut reply: Reply,
    ) -> Started {
        let modes = self.modes();
        let opens = self.transaction.is_none() && scope == Scope::Implicit;
        let holds_state = self.reader.as_ref().is_some_and(Reader::holds_state);
        if opens || (modes.stable() && self.transaction.is_some() && !holds_state) {
            return Started::Blocks(reply);
        }
        let Some(reader) = self.reader.take() else { return Started::Blocks(reply) };
        let (outcome, took_long) = reader.within_budget(|| self.run_reading_on(&reader, sql, parameters, &mut reply));
        self.reader = Some(reader);
        let is_unknown = matches!(&outcome, Err(error) if catalog::is_of_names(error));
        if took_long || reply.is_full() || is_unknown || matches!(outcome, Ok(None)) {
            reply.restart();
            return Started::Blocks(reply);
        }
        self.note_read();
        let outcome = outcome.and_then(|tag| {
            tag.ok_or_else(|| SqlError::new(SqlState::INTERNAL_ERROR, "a statement that only reads did not"))
        });
        self.note_outcome(&outcome);
        Started::Done(outcome, reply)
    }

    /// Queues a statement that is a transaction by itself.
    fn start_single(&mut self, sql: &str, parameters: &Arc<Vec<OwnedValue>>, reply: Reply) -> Started {
        let (answer, receiver) = oneshot::channel();
        let (sql, parameters) = (sql.to_owned(), Arc::clone(parameters));
        let (control, since) = (Arc::clone(&self.control), Instant::now());
        let statement = Statement { sql, parameters, reply, control, answer, since };
        self.pending = Some(Pending { answer: receiver, what: What::Single });
        self.control.queue(|| self.shared.turnstile.queue_statement(self.timeouts.lock(), statement));
        Started::Elsewhere
    }

    /// Runs a statement of the transaction with its turn, or waits for the turn first.
    fn start_in_transaction(
        &mut self,
        sql: &str,
        parameters: &Arc<Vec<OwnedValue>>,
        turn: Option<Turn>,
        savepoints: Vec<String>,
        reply: Reply,
    ) -> Started {
        let (answer, receiver) = oneshot::channel();
        let control = Arc::clone(&self.control);
        let work = InTurn { sql: sql.to_owned(), parameters: Arc::clone(parameters), reply, control };
        self.pending = Some(Pending { answer: receiver, what: What::InTransaction });
        // A session that is gone needs no answer; its turn ends with the answer.
        let tell = move |told: Answer| drop(answer.send(told));
        if let Some(turn) = turn {
            self.shared.turnstile.send(Box::new(move || tell(work.run(turn))));
            return Started::Elsewhere;
        }
        let shared = Arc::clone(&self.shared);
        let start = move |granted: Result<Ticket, _>| match granted {
            Err(waited) => tell(work.failed(not_granted(waited), false)),
            Ok(ticket) => {
                let turn = Turn::new(shared, ticket);
                match turn.begin(&savepoints) {
                    Ok(()) => tell(work.run(turn)),
                    Err(error) => {
                        drop(turn);
                        tell(work.failed(error, false));
                    }
                }
            }
        };
        self.control.queue(|| self.shared.turnstile.queue_transaction(self.timeouts.lock(), Box::new(start)));
        Started::Elsewhere
    }

    /// Whether the transaction is to be committed and has nothing else to end.
    fn commits_elsewhere(&self) -> bool {
        let reads = self.reader.as_ref().is_some_and(|reader| !reader.connection.is_autocommit());
        let block = self.transaction.as_ref().filter(|transaction| transaction.block && !transaction.failed);
        block.is_some_and(|block| block.turn.is_some()) && !reads && !self.is_in_temporary()
    }

    fn start_commit(&mut self, chain: bool, reply: Reply) -> Started {
        let modes = self.modes();
        let Some(turn) = self.transaction.as_mut().and_then(|transaction| transaction.turn.take()) else {
            return Started::Blocks(reply);
        };
        let (answer, receiver) = oneshot::channel();
        self.pending = Some(Pending { answer: receiver, what: What::Commit { chain: chain.then_some(modes) } });
        let commit = move || {
            let outcome = turn.commit().map(|()| CommandTag("COMMIT".to_owned()));
            // A session that is gone needs no answer.
            drop(answer.send(Answer { outcome, reply, turn: None, lost: false }));
        };
        self.shared.turnstile.send(Box::new(commit));
        Started::Elsewhere
    }

    /// See [`mainstay::server::pg::Session::poll_started`].
    pub(super) fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<(Result<CommandTag, SqlError>, Reply)> {
        let Some(pending) = &mut self.pending else { return Poll::Pending };
        let answer = ready!(Pin::new(&mut pending.answer).poll(context));
        let Some(Pending { what, .. }) = self.pending.take() else { return Poll::Pending };
        self.control.leave_queue();
        let Answer { outcome, reply, turn, lost } = answer.unwrap_or_else(|_| Answer {
            outcome: Err(SqlError::new(SqlState::INTERNAL_ERROR, "the statement ended by a fault of the server")),
            reply: Reply::default(),
            turn: None,
            lost: true,
        });
        match what {
            What::Single => {}
            What::InTransaction => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.lost |= lost;
                    transaction.turn = turn;
                }
            }
            What::Commit { chain } => {
                let ended = self.transaction.take();
                self.timeouts.end(outcome.is_ok());
                if let (Err(_), Some(ended)) = (&outcome, ended) {
                    self.defaults = ended.defaults_before;
                    self.slow = ended.slow_before;
                } else if let Some(modes) = chain {
                    self.open(true, modes);
                }
            }
        }
        if !reply.is_full() {
            self.note_outcome(&outcome);
        }
        Poll::Ready((outcome, reply))
    }
}
