//! The connection on which a session reads, and the state of the database that it sees there.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mainstay::server::pg::{Description, PgType, SqlError, SqlState};
use rusqlite::{Connection, InterruptHandle};

use super::super::control::{Control, revoked};
use super::super::engine::ONLY_NAME;
use super::super::errors::from_sqlite;
use super::super::policy::{Actions, Policy};
use super::super::{STATE_TABLE, dialect, values};
use super::savepoints::lost;
use super::{SqliteSession, parameters};

/// Steps of SQLite's machine between two looks at the budget.
const BUDGET_STEPS: i32 = 1000;
/// So many looks a statement gets that runs where nothing may block: about a millisecond.
const BUDGET_LOOKS: u32 = 20;
/// A budget that does not run out.
const UNLIMITED: u32 = u32::MAX;
/// A budget that ran out, of which SQLite was told.
const SPENT: u32 = u32::MAX - 1;
/// Texts of statements that call functions, of which so many are remembered.
const CALLING_STATEMENTS: usize = 256;

/// The connection that only reads.
pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) policy: Policy,
    interrupt: Arc<InterruptHandle>,
    control: Arc<Control>,
    /// A statement runs that an interrupt is to stop.
    is_running: Arc<AtomicBool>,
    /// A transaction is to go on seeing the state that is held.
    keeps_state: Cell<bool>,
    /// The version of the schema that compiled statements are for.
    schema_version: Cell<i64>,
    /// Looks left to the statement that runs, or [`UNLIMITED`], or [`SPENT`].
    budget: Arc<AtomicU32>,
    /// Compiled statements that call functions: a call is one step, however long it takes.
    calling: RefCell<HashSet<String>>,
}

impl Reader {
    pub(super) fn new(mut connection: Connection, control: &Arc<Control>) -> rusqlite::Result<Reader> {
        let policy = Policy::install(&mut connection)?;
        let interrupt = Arc::new(connection.get_interrupt_handle());
        let budget = Arc::new(AtomicU32::new(UNLIMITED));
        let left = Arc::clone(&budget);
        let (control, is_running) = (Arc::clone(control), Arc::new(AtomicBool::new(false)));
        let (stops, runs) = (Arc::clone(&control), Arc::clone(&is_running));
        // Only the thread that runs the statement counts. A budget stops one statement, once: what runs behind that one, and
        // still before the budget is lifted, ends the transaction, and must not be stopped too.
        let exhausted = move || match left.load(Ordering::Relaxed) {
            // SQLite forgets an interrupt that comes before the first step.
            _ if runs.load(Ordering::Relaxed) && stops.is_cancelled() => true,
            UNLIMITED | SPENT => false,
            0 => {
                left.store(SPENT, Ordering::Relaxed);
                true
            }
            looks => {
                left.store(looks - 1, Ordering::Relaxed);
                false
            }
        };
        connection.progress_handler(BUDGET_STEPS, Some(exhausted))?;
        let (schema_version, keeps_state, calling) = (Cell::new(0), Cell::new(false), RefCell::default());
        Ok(Reader { connection, policy, interrupt, control, is_running, keeps_state, schema_version, budget, calling })
    }

    /// Runs `work`, a statement, which an interrupt stops.
    pub(super) fn interruptible<T>(&self, work: impl FnOnce() -> Result<T, SqlError>) -> Result<T, SqlError> {
        self.is_running.store(true, Ordering::Relaxed);
        let result = self.control.run(&self.interrupt, work);
        self.is_running.store(false, Ordering::Relaxed);
        result
    }

    /// Runs `work`, whose statement fails when it takes longer than a moment; answers whether it did.
    pub(super) fn within_budget<T>(&self, work: impl FnOnce() -> T) -> (T, bool) {
        self.budget.store(BUDGET_LOOKS, Ordering::Relaxed);
        let result = work();
        (result, self.budget.swap(UNLIMITED, Ordering::Relaxed) == SPENT)
    }

    /// Remembers whether a statement calls functions, if it was compiled just now.
    pub(super) fn note_calls(&self, sql: &str, actions: &Actions) {
        if !actions.calls {
            return;
        }
        let mut calling = self.calling.borrow_mut();
        if calling.len() >= CALLING_STATEMENTS {
            // What is not known to call must not come from the cache.
            calling.clear();
            self.connection.flush_prepared_statement_cache();
        }
        calling.insert(sql.to_owned());
    }

    /// Whether a transaction goes on seeing the same state here.
    pub(super) fn holds_state(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Whether the state is gone that a transaction was to go on seeing: SQLite ends what it holds when a read fails for want of
    /// disk or memory.
    pub(super) fn has_lost_state(&self) -> bool {
        self.keeps_state.get() && !self.holds_state()
    }

    /// Sees what is committed again, if it held a state.
    pub(super) fn leave_state(&self) -> Result<(), SqlError> {
        self.keeps_state.set(false);
        if self.holds_state() {
            self.connection.execute_batch("ROLLBACK").map_err(|error| from_sqlite(&error))?;
        }
        Ok(())
    }

    /// Whether the statement has a budget and may take longer nevertheless.
    pub(super) fn must_block(&self, sql: &str) -> bool {
        self.budget.load(Ordering::Relaxed) != UNLIMITED && self.calling.borrow().contains(sql)
    }
}

/// Up to where the log is applied in the state that a connection sees. All that changes data changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(i64);

impl Position {
    pub(super) fn of(connection: &Connection) -> Result<Position, SqlError> {
        // Not kept compiled: a client's statement of the same text has to be looked at.
        let position = connection.query_row(&format!("SELECT applied FROM {STATE_TABLE}"), [], |row| row.get(0));
        position.map(Position).map_err(|error| from_sqlite(&error))
    }
}

/// What a transaction is told that cannot go on from the state that it has seen.
pub(super) fn overtaken() -> SqlError {
    SqlError::new(SqlState("40001"), "could not serialize access due to concurrent update")
        .with_detail(
            "Others have committed since this transaction first read; it sees one state and has not written yet.",
        )
        .with_hint("The transaction might succeed if retried.")
}

/// One state of the database, seen until this is dropped; part of a longer one if such is held already.
///
/// SQLite compiles against the schema it knows and looks only at the first step whether it is still the one. Columns and
/// errors are taken from the compiled statement before, so the schema must be read first and stay.
pub(super) struct OneState<'a>(Option<&'a Reader>);

impl OneState<'_> {
    pub(super) fn hold(reader: &Reader) -> Result<OneState<'_>, SqlError> {
        let connection = &reader.connection;
        if reader.holds_state() {
            return Ok(OneState(None));
        }
        if reader.has_lost_state() {
            return Err(lost());
        }
        let begin = || -> rusqlite::Result<OneState<'_>> {
            // First, because BEGIN may fail behind its effect, if it is interrupted.
            let state = OneState(Some(reader));
            connection.prepare_cached("BEGIN")?.execute([])?;
            let version = connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
            if reader.schema_version.replace(version) != version {
                connection.flush_prepared_statement_cache();
                // The first step of anything reads the schema.
                connection.prepare("SELECT 1 FROM sqlite_schema")?.exists([])?;
            }
            Ok(state)
        };
        begin().map_err(|error| from_sqlite(&error))
    }

    /// Goes on seeing it until the transaction of the connection is ended.
    pub(super) fn keep(mut self) {
        if let Some(reader) = self.0.take() {
            reader.keeps_state.set(true);
        }
    }
}

impl Drop for OneState<'_> {
    fn drop(&mut self) {
        let Some(Reader { connection, .. }) = self.0.filter(|reader| reader.holds_state()) else { return };
        let cached = connection.prepare_cached("ROLLBACK").and_then(|mut rollback| rollback.execute([])).map(drop);
        // Once more, compiled anew: a state that is held for ever is an old one for ever, and SQLite's WAL file grows.
        let ended = cached.or_else(|_| match connection.is_autocommit() {
            true => Ok(()),
            false => connection.execute_batch("ROLLBACK"),
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "a reading transaction did not end");
        }
    }
}

impl SqliteSession {
    /// The statement with the user's name where it asks for that, unless SQLite takes it as it stands: a column may be called so.
    pub(super) fn with_user<'a>(&mut self, sql: Cow<'a, str>) -> Cow<'a, str> {
        if !dialect::names_user(&sql) {
            return sql;
        }
        let user = self.activity.as_ref().map_or(ONLY_NAME, |activity| activity.user()).to_owned();
        match self.describe_sql(&sql, &[]) {
            Err(error) if error.state == SqlState::UNDEFINED_COLUMN => Cow::Owned(dialect::with_user(&sql, &user)),
            _ => sql,
        }
    }

    /// What a statement of SQLite's takes and returns.
    pub(super) fn describe_sql(
        &mut self,
        statement: &str,
        parameter_types: &[PgType],
    ) -> Result<Description, SqlError> {
        if let Some(ticket) = self.turn() {
            let writer = self.shared.turnstile.writer(ticket).ok_or_else(revoked)?;
            let (connection, policy) = writer.for_describe();
            return describe(connection, policy, statement, parameter_types);
        }
        let reader = self.reader()?;
        let _state = OneState::hold(reader)?;
        describe(&reader.connection, &reader.policy, statement, parameter_types)
    }
}

/// What a statement takes and returns, without running it.
///
/// # Errors
/// It is not valid, or refused.
pub(super) fn describe(
    connection: &Connection,
    policy: &Policy,
    sql: &str,
    declared: &[PgType],
) -> Result<Description, SqlError> {
    let (statement, _) = policy.watch(|| connection.prepare(sql))?;
    let count = values::parameter_numbers(&statement, sql)?.into_iter().max().unwrap_or(0).max(declared.len());
    let stated = |position: usize| declared.get(position).copied().filter(|stated| *stated != PgType::UNSPECIFIED);
    let inferred = if (0..count).all(|position| stated(position).is_some()) {
        Vec::new()
    } else {
        parameters::types(connection, sql, count)
    };
    let inferred = |position: usize| inferred.get(position).copied().flatten();
    let parameters =
        (0..count).map(|position| stated(position).or_else(|| inferred(position)).unwrap_or(PgType::TEXT)).collect();
    Ok(Description { parameters, columns: values::columns(connection, &statement, sql) })
}
