//! Statements of PostgreSQL's that are run in SQLite's words, as one.

use mainstay::server::pg::{Column, CommandTag, ResultSink, Scope, SqlError, SqlState, Value};

use super::super::command::Translated;
use super::super::errors::from_sqlite;
use super::super::policy;
use super::SqliteSession;

impl SqliteSession {
    pub(super) fn run_translated(
        &mut self,
        translated: &Translated,
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        let alone = self.transaction.is_none() && scope == Scope::Single;
        if alone {
            self.open(false, self.defaults);
        }
        let outcome = self.run_parts(translated);
        if alone {
            let ended = self.end(outcome.is_ok());
            outcome?;
            ended?;
        } else {
            outcome?;
        }
        if let Some(notice) = translated.notice {
            sink.notice(&SqlError::notice(notice))?;
        }
        Ok(CommandTag(translated.tag.to_owned()))
    }

    fn run_parts(&mut self, translated: &Translated) -> Result<(), SqlError> {
        for sql in &translated.statements {
            self.run_sql(sql, &[], Scope::Implicit, &mut Nobody)?;
        }
        for table in &translated.restarted {
            // There are two, once the session has a temporary table with a counter.
            let schema = if self.is_temporary(table) { "temp" } else { "main" };
            let name = table.replace('\'', "''");
            let sql = format!("DELETE FROM {schema}.sqlite_sequence WHERE name = '{name}' COLLATE NOCASE");
            match self.run_sql(&sql, &[], Scope::Implicit, &mut Nobody) {
                // There never was a counter.
                Err(error) if error.state == SqlState::UNDEFINED_TABLE => {}
                outcome => drop(outcome?),
            }
        }
        // Behind the statement, so that nobody changes the table in between.
        translated.key.as_ref().map_or(Ok(()), |(table, columns)| self.check_key(table, columns))
    }

    /// A key has no NULL, and a table has one key.
    fn check_key(&mut self, table: &str, columns: &[String]) -> Result<(), SqlError> {
        self.with_schema(|connection, _| {
            let failed = |error: rusqlite::Error| from_sqlite(&error);
            let sql = "SELECT name, \"notnull\", pk FROM pragma_table_xinfo(?1, 'main')";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let mut rows = statement.query([table]).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                let (name, not_null, key): (String, bool, i64) =
                    (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?, row.get(2).map_err(failed)?);
                if key > 0 {
                    let message = format!("multiple primary keys for table \"{table}\" are not allowed");
                    return Err(SqlError::new(SqlState("42P16"), message));
                }
                if !not_null && columns.iter().any(|column| column.eq_ignore_ascii_case(&name)) {
                    let message = format!("column \"{name}\" may hold NULL, which a primary key must not");
                    return Err(policy::refused(message).with_hint("Declare it NOT NULL in CREATE TABLE."));
                }
            }
            Ok(())
        })
    }
}

/// Takes rows that nobody asked for.
struct Nobody;

impl ResultSink for Nobody {
    fn columns(&mut self, _: &[Column]) -> Result<(), SqlError> {
        Ok(())
    }

    fn row(&mut self, _: &[Value<'_>]) -> Result<(), SqlError> {
        Ok(())
    }

    fn notice(&mut self, _: &SqlError) -> Result<(), SqlError> {
        Ok(())
    }
}
