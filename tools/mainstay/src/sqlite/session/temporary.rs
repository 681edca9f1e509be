//! Temporary tables: a session's own, gone with it, in no log.
//!
//! They are in the `temp` schema of a connection that the session has for them alone, from the first one on. It can read the
//! database and not write it. Where a statement runs follows from what SQLite says it does:
//!
//! | it | runs |
//! |---|---|
//! | names nothing temporary | as any other |
//! | changes nothing but temporary tables, or nothing at all | there |
//! | reads temporary tables and changes others | on the writer, where the tables that it names are [lent](super::super::writer::lent) |
//! | reads both, in a transaction that has the writer | likewise: there is what the transaction changed |
//! | makes a temporary table of what it reads of others, in such a transaction | its query there, what it makes here |
//! | reads others and changes temporary ones otherwise, in such a transaction | not at all (0A000) |
//!
//! - What happens to them is part of the session's transactions. A transaction begins there when it first names one, with
//!   its savepoints, and ends there behind the end of everything else.
//! - From then on what the block reads together with temporary tables is as it was at that moment, unless the block has the
//!   writer. Statements that name none see what is committed, as ever.

use std::collections::HashSet;
use std::sync::Arc;

use mainstay::server::pg::catalog::Schema;
use mainstay::server::pg::{CommandTag, Description, OwnedValue, PgType, ResultSink, Scope, SqlError};
use rusqlite::Connection;

use super::super::command::{self, OnCommit, TemporaryAs};
use super::super::errors::from_sqlite;
use super::super::names::quoted;
use super::super::writer::filling::Gathered;
use super::super::writer::rows::{Row, RowParameters};
use super::super::{catalog, control};
use super::SqliteSession;
use super::reader::describe;

mod space;

pub(super) use space::Temporary;
use space::{Place, Standing};

impl SqliteSession {
    /// Whether a statement may be about something temporary. Only a look at its words.
    pub(super) fn may_be_temporary(&self, sql: &str) -> bool {
        self.temporary.as_ref().is_some_and(|temporary| temporary.is_mentioned(sql)) || command::makes_temporary(sql)
    }

    /// Whether the transaction has done something with temporary tables.
    pub(super) fn is_in_temporary(&self) -> bool {
        self.temporary.as_ref().is_some_and(Temporary::is_in_transaction)
    }

    /// Does something on the connection for temporary tables, which is taken out so that it can be used beside the rest.
    fn with_temporary<T>(
        &mut self,
        work: impl FnOnce(&mut SqliteSession, &mut Temporary) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let mut temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => Temporary::open(&self.shared).map_err(|error| from_sqlite(&error))?,
        };
        let outcome = work(self, &mut temporary);
        self.temporary = Some(temporary);
        outcome
    }

    fn standing(&self) -> Standing {
        let modes = self.modes();
        let stable = modes.stable() && self.transaction.is_some();
        Standing { has_turn: self.turn().is_some(), read_only: modes.read_only, stable }
    }

    fn savepoints(&self) -> Vec<String> {
        self.transaction.as_ref().map(|transaction| transaction.savepoints.clone()).unwrap_or_default()
    }

    /// Where a statement runs; a transaction is open there unless it is elsewhere.
    fn place_of(&mut self, sql: &str) -> Result<Place, SqlError> {
        let (standing, savepoints) = (self.standing(), self.savepoints());
        self.with_temporary(|_, temporary| {
            let begun = temporary.enter(&savepoints)?;
            let place = temporary.place(sql, standing);
            if begun && !matches!(place, Ok(Place::Here | Place::Writer | Place::Filled)) {
                temporary.end(false).map_err(|error| from_sqlite(&error))?;
            }
            place
        })
    }

    /// Runs a statement about temporary tables; `None` if it is not about any.
    pub(super) fn run_temporary(
        &mut self,
        statement: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Option<Result<CommandTag, SqlError>> {
        if !self.may_be_temporary(statement) {
            return None;
        }
        let words = command::temporary_in_words(statement);
        let place = match self.place_of(&words.sql) {
            Ok(Place::Elsewhere) => return None,
            Ok(place) => place,
            Err(error) if catalog::is_of_names(&error) => {
                return Some(self.run_catalogs(statement, parameters, sink).unwrap_or(Err(error)));
            }
            Err(error) => return Some(Err(error)),
        };
        Some(self.in_transaction(|session| {
            session.note_started();
            if place == Place::Writer {
                return session.run_lent(&words.sql, parameters, sink);
            }
            if let (Place::Filled, Some(table)) = (place, TemporaryAs::of(&words.sql)) {
                return session.run_filled(&table, words.on_commit, parameters);
            }
            session.with_temporary(|session, temporary| {
                let interrupt = Arc::clone(&temporary.interrupt);
                let work = || temporary.run(&words.sql, words.on_commit, parameters, sink);
                let outcome = session.control.run(&interrupt, work);
                outcome.and_then(|tag| temporary.refuse_references().map(|()| tag))
            })
        }))
    }

    /// Runs `work` in the transaction that is open, or one of its own.
    pub(super) fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut SqliteSession) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let alone = self.transaction.is_none();
        if alone {
            self.open(false, self.defaults);
        }
        let outcome = work(self);
        if alone {
            let ended = self.end(outcome.is_ok());
            return outcome.and_then(|value| ended.map(|_| value));
        }
        outcome
    }

    fn run_lent(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        self.refuse_unless_primary(sql)?;
        self.with_temporary(|session, temporary| {
            let lent = temporary.lend(sql, true)?;
            session.with_turn(|session, ticket| {
                let mut writer = session.shared.turnstile.writer(ticket).ok_or_else(control::revoked)?;
                let work = || writer.execute_with(&lent, sql, parameters, sink);
                session.control.run(&session.shared.writer_interrupt, work)
            })
        })
    }

    /// Makes a temporary table of what a query gives on the writer.
    fn run_filled(
        &mut self,
        table: &TemporaryAs<'_>,
        on_commit: Option<OnCommit>,
        parameters: &[OwnedValue],
    ) -> Result<CommandTag, SqlError> {
        self.refuse_unless_primary("CREATE TABLE AS")?;
        self.with_temporary(|session, temporary| {
            let rows = session.with_turn(|session, ticket| {
                let lent = temporary.lend(table.query, true)?;
                let mut writer = session.shared.turnstile.writer(ticket).ok_or_else(control::revoked)?;
                let fill = |gathered: &Gathered<'_>| temporary.fill(table.name, gathered);
                let work = || writer.gather_with(&lent, table.query, parameters, fill);
                session.control.run(&session.shared.writer_interrupt, work)
            })?;
            temporary.made(on_commit)?;
            Ok(CommandTag(format!("SELECT {rows}")))
        })
    }

    /// What a statement about temporary tables takes and returns; `None` if it is not about any.
    pub(super) fn describe_temporary(
        &mut self,
        statement: &str,
        declared: &[PgType],
    ) -> Option<Result<Description, SqlError>> {
        if !self.may_be_temporary(statement) {
            return None;
        }
        let sql = command::temporary_in_words(statement).sql;
        let place = match self.place_of(&sql) {
            Ok(Place::Elsewhere) => return None,
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        let turn = self.turn().filter(|_| matches!(place, Place::Writer | Place::Filled));
        let filled = TemporaryAs::of(&sql).filter(|_| place == Place::Filled);
        let described = self.with_temporary(|session, temporary| {
            let Some(ticket) = turn else {
                return describe(&temporary.connection, &temporary.policy, &sql, declared);
            };
            let there = filled.as_ref().map_or(&*sql, |table| table.query);
            let lent = temporary.lend(there, false)?;
            let mut writer = session.shared.turnstile.writer(ticket).ok_or_else(control::revoked)?;
            let description =
                writer.look_with(&lent, |connection, policy| describe(connection, policy, there, declared))?;
            // What makes a table returns none of its rows.
            let columns = if filled.is_some() { Vec::new() } else { description.columns };
            Ok(Description { columns, ..description })
        });
        if self.transaction.is_none() {
            self.end_temporary(false);
        }
        Some(described)
    }

    /// Does something to a savepoint of the transaction, if it has one here.
    pub(super) fn at_temporary_savepoint(&mut self, words: &str, name: &str) -> Result<(), SqlError> {
        self.temporary.as_mut().map_or(Ok(()), |temporary| temporary.at_savepoint(words, name))
    }

    /// Ends what the transaction did here. Everything else of it is over, so there is no way back: if this fails, for want
    /// of disk or memory, the session has no temporary tables any more.
    pub(super) fn end_temporary(&mut self, commit: bool) {
        if let Some(temporary) = &mut self.temporary
            && let Err(error) = temporary.end(commit)
        {
            tracing::warn!(%error, "the temporary tables of a session are gone: a transaction did not end there");
            self.temporary = None;
        }
    }

    /// Drops all temporary tables.
    pub(super) fn discard_temporary(&mut self, scope: Scope) -> Result<(), SqlError> {
        self.open_if_implicit(scope);
        let savepoints = self.savepoints();
        match &mut self.temporary {
            Some(temporary) if self.transaction.is_some() => {
                temporary.enter(&savepoints)?;
                temporary.drop_all().map_err(|error| from_sqlite(&error))
            }
            _ => {
                self.temporary = None;
                Ok(())
            }
        }
    }

    /// Whether rows that this INSERT brings go to a temporary table; a transaction is open there if so.
    pub(super) fn inserts_temporary(&mut self, insert: &str) -> Result<bool, SqlError> {
        if !self.may_be_temporary(insert) {
            return Ok(false);
        }
        Ok(self.place_of(&command::temporary_in_words(insert).sql)? == Place::Here)
    }

    /// Adds what is temporary to what the catalogs tell.
    pub(super) fn add_temporary_to(&self, schema: &mut Schema) -> Result<(), SqlError> {
        self.temporary.as_ref().map_or(Ok(()), |temporary| catalog::add_temporary(schema, &temporary.connection))
    }

    /// A temporary table, or what else is temporary, of which `find` finds the name among all there are, in lower case.
    pub(super) fn find_temporary<'a>(&self, find: impl FnOnce(&HashSet<String>) -> Option<&'a str>) -> Option<&'a str> {
        self.temporary.as_ref().and_then(|temporary| find(&temporary.names))
    }

    /// Whether that name, alone, is that of a temporary table.
    pub(super) fn is_temporary(&self, table: &str) -> bool {
        self.temporary.as_ref().is_some_and(|temporary| temporary.names.contains(&table.to_ascii_lowercase()))
    }

    /// Looks at the schema where temporary tables are; nothing if the table, which is also given as it is written, is none.
    pub(super) fn look_at_temporary<T>(
        &self,
        table: &str,
        written: &str,
        look: impl FnOnce(&Connection) -> Result<T, SqlError>,
    ) -> Option<Result<T, SqlError>> {
        let temporary = self.temporary.as_ref()?;
        let is_unqualified = written == quoted(table) || command::is_temporary_name(written);
        let is_there = is_unqualified && temporary.names.contains(&table.to_ascii_lowercase());
        is_there.then(|| look(&temporary.connection))
    }

    /// Inserts rows into a temporary table, in the transaction that is open.
    pub(super) fn insert_temporary(
        &mut self,
        insert: &str,
        next: impl FnMut(Row, &mut RowParameters<'_, '_>) -> Result<bool, SqlError>,
    ) -> Result<u64, SqlError> {
        self.with_temporary(|session, temporary| {
            let interrupt = Arc::clone(&temporary.interrupt);
            session.control.run(&interrupt, || temporary.insert_rows(insert, next))
        })
    }
}

#[cfg(test)]
#[path = "losses_test.rs"]
mod losses_tests;
