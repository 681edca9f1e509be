//! `CREATE TEMP TABLE … AS` of what the transaction sees on the writing connection, for a table on another one.
//!
//! The query runs once, into a temporary table of the writing connection, of which SQLite then says how it is defined; from there
//! the rows go where the table is to be. Nothing of it is captured, and it is gone before the statement is over.

use mainstay::server::pg::{OwnedValue, SqlError};
use rusqlite::{Connection, Statement};

use super::super::errors::from_sqlite;
use super::super::policy;
use super::super::values;
use super::Writer;
use super::lent::Lent;

/// The table on the writing connection. Clients can have none of that name.
const GATHERED: &str = "mainstay_gathered";

/// The columns and rows that a query gave.
pub(in super::super) struct Gathered<'a> {
    connection: &'a Connection,
    /// The columns as a definition has them, with the parentheses.
    pub(in super::super) columns: String,
}

impl<'a> Gathered<'a> {
    /// What selects the rows.
    pub(in super::super) fn rows(&self) -> rusqlite::Result<Statement<'a>> {
        self.connection.prepare(&format!("SELECT * FROM temp.{GATHERED}"))
    }
}

impl Writer {
    /// Runs a query, with what is lent beside the database, and hands what it gave to `fill`.
    ///
    /// # Errors
    /// It is no query, or fails, or `fill` does. If what was made here could not be removed, the transaction is over.
    pub(in super::super) fn gather_with<T>(
        &mut self,
        lent: &Lent<'_>,
        query: &str,
        parameters: &[OwnedValue],
        fill: impl FnOnce(&Gathered<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.refuse_among_rows()?;
        self.beside(lent, |writer| {
            let outcome = writer.gather(query, parameters, fill);
            if writer.is_ended() {
                return outcome;
            }
            if let Err(error) = writer.batch(&format!("DROP TABLE IF EXISTS temp.{GATHERED}")) {
                writer.rollback();
                return outcome.and(Err(error));
            }
            outcome
        })
    }

    fn gather<T>(
        &mut self,
        query: &str,
        parameters: &[OwnedValue],
        fill: impl FnOnce(&Gathered<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let failed = |error: rusqlite::Error| from_sqlite(&error);
        let connection = self.connection();
        // By itself it is a client's; what is made of it is ours.
        let (statement, actions) = self.policy.watch(|| connection.prepare(query))?;
        if !statement.readonly() || statement.column_count() == 0 || actions.ddl {
            return Err(policy::refused("CREATE TEMP TABLE … AS is not understood in this form"));
        }
        drop(statement);
        let gather = format!("CREATE TEMP TABLE {GATHERED} AS {query}");
        let mut statement = self.policy.own(|| connection.prepare(&gather)).map_err(failed)?;
        values::bind(&mut statement, &gather, parameters)?;
        statement.raw_execute().map_err(failed)?;
        drop(statement);
        let definition = "SELECT sql FROM sqlite_temp_schema WHERE type = 'table' AND name = ?1";
        let definition: String = connection.query_row(definition, [GATHERED], |row| row.get(0)).map_err(failed)?;
        let columns = definition.split_once(GATHERED).map(|(_, columns)| columns.to_owned()).unwrap_or_default();
        fill(&Gathered { connection, columns })
    }
}
