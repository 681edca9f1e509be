//! `CREATE TEMP TABLE … AS` of what the transaction sees on the writing connection, for a table on another one.
//!
//! The query runs once, into a temporary table of the writing connection, of which SQLite then says what columns it has; from there
//! the rows go where the table is to be. Nothing of it is captured, and it is gone before the statement is over.

use mainstay::server::pg::{OwnedValue, PgType, SqlError};
use rusqlite::{Connection, Statement};

use super::super::errors::from_sqlite;
use super::super::names::quoted;
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
        let types = self.policy.own(|| types_of_rows(connection, query)).map_err(failed)?;
        let gather = format!("CREATE TEMP TABLE {GATHERED} AS {query}");
        let mut statement = self.policy.own(|| connection.prepare(&gather)).map_err(failed)?;
        values::bind(&mut statement, &gather, parameters)?;
        statement.raw_execute().map_err(failed)?;
        drop(statement);
        let columns = columns_of_rows(connection, GATHERED, &types).map_err(failed)?;
        fill(&Gathered { connection, columns })
    }
}

/// The types of a query's columns, as they are announced.
pub(super) fn types_of_rows(connection: &Connection, query: &str) -> rusqlite::Result<Vec<PgType>> {
    let statement = connection.prepare(query)?;
    let columns = values::columns(connection, &statement, query);
    Ok(columns.into_iter().map(|column| column.pg_type).collect())
}

/// The name of a type that SQLite has one word for with many others, or none. Values that are of the type stay as they are in a
/// column that is declared so.
fn name_of(pg_type: PgType, given: &str) -> Option<&'static str> {
    let is_free = given.is_empty();
    if !is_free && !given.eq_ignore_ascii_case("NUM") {
        return None;
    }
    Some(match pg_type {
        // A number that is a whole JSON would become one.
        PgType::NUMERIC | PgType::JSON if is_free => return None,
        PgType::BOOL => "BOOLEAN",
        PgType::INT2 | PgType::INT4 | PgType::INT8 => "BIGINT",
        PgType::NUMERIC => "NUMERIC",
        PgType::DATE => "DATE",
        PgType::TIME => "TIME",
        PgType::TIMESTAMP => "TIMESTAMP",
        PgType::TIMESTAMPTZ => "TIMESTAMPTZ",
        PgType::UUID => "UUID",
        PgType::JSON => "JSON",
        _ => return None,
    })
}

/// The columns of a temporary table that SQLite made of rows, as a definition has them, with the parentheses. SQLite gives
/// them the affinities of what they were made of, by words of its own, such as `NUM` for a date, and none to what
/// functions answer.
pub(super) fn columns_of_rows(connection: &Connection, table: &str, types: &[PgType]) -> rusqlite::Result<String> {
    let mut statement = connection.prepare("SELECT name, type FROM pragma_table_xinfo(?1, 'temp') ORDER BY cid")?;
    let columns = statement.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut definition = Vec::new();
    for (column, pg_type) in columns.zip(types) {
        let (name, given) = column?;
        let kept = name_of(*pg_type, &given).unwrap_or(&given);
        definition.push(format!("{} {kept}", quoted(&name)).trim_end().to_owned());
    }
    Ok(format!("({})", definition.join(", ")))
}
