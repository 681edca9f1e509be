//! Statements that change the schema.
//!
//! Their texts are run again at replay, where they have to do the same again. What would not, because it depends on rows,
//! travels as row changes: what DROP TABLE does to other tables, and the rows of CREATE TABLE … AS.

use mainstay::server::pg::{CommandTag, OwnedValue, ResultSink, SqlError};

use super::super::command::TableAs;
use super::super::errors::from_sqlite;
use super::super::names::quoted;
use super::super::payload::Part;
use super::super::policy::{self, Actions};
use super::super::{schema, values};
use super::filling::{columns_of_rows, types_of_rows};
use super::{Writer, run};

/// The savepoint of the steps that a statement is made of.
const SET_STEPS: &str = "SAVEPOINT mainstay_steps";
const UNDO_STEPS: &str = "ROLLBACK TO mainstay_steps";
const END_STEPS: &str = "RELEASE mainstay_steps";

impl Writer {
    pub(super) fn execute_ddl(
        &mut self,
        sql: &str,
        words: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        self.drain();
        self.must_undo = true;
        self.schema_changed = true;
        let outcome = self.run_ddl(sql, words, parameters, sink);
        if outcome.is_err() && !self.is_ended() {
            // What the statement did is undone; the rest of the transaction is in the parts.
            self.start_capture().map_err(|error| from_sqlite(&error))?;
        }
        outcome
    }

    /// DROP TABLE deletes the rows first, which foreign keys may carry on to other tables. Replay has foreign keys off, so
    /// those changes travel as a changeset behind the statement; those of the dropped table itself do not. Nor would rows
    /// whose key it made NULL, so keys are looked at as after any other statement.
    fn run_ddl(
        &mut self,
        sql: &str,
        words: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        let connection = &self.connection;
        let (mut statement, actions): (_, Actions) = self.policy.watch(|| connection.prepare(sql))?;
        if let Some(table) = TableAs::of(sql) {
            drop(statement);
            // IF NOT EXISTS, and it does: nothing is selected.
            return if actions.creates_table_of_rows() {
                self.table_of_rows(&table, parameters)
            } else {
                Ok(tag(words))
            };
        }
        if actions.creates_table_of_rows() {
            return Err(policy::refused("CREATE TABLE … AS is not understood in this form"));
        }
        let failed = |error: rusqlite::Error| from_sqlite(&error);
        self.capture.start(connection, actions.dropped.clone(), self.parts.len_bytes()).map_err(failed)?;
        run(connection, &mut statement, sql, &[], sink)?;
        drop(statement);
        self.capture.check()?;
        let carried = if actions.dropped.is_empty() { Vec::new() } else { self.capture.take() };
        schema::check(self.connection())?;
        if actions.ddl {
            self.keep_ddl(sql.to_owned())?;
        }
        if !carried.is_empty() {
            self.parts.push(Part::Changeset(carried));
        }
        self.schema_moved();
        self.start_capture().map_err(failed)?;
        Ok(tag(words))
    }

    /// Its text becomes a part.
    ///
    /// # Errors
    /// 54000: the transaction has room for no more.
    fn keep_ddl(&mut self, text: String) -> Result<(), SqlError> {
        self.capture.limit().check(self.parts.len_bytes().saturating_add(text.len()))?;
        self.parts.push(Part::Ddl(text));
        Ok(())
    }

    /// `CREATE TABLE … AS`, whose query may give other rows when it runs again: it becomes a CREATE TABLE and rows.
    fn table_of_rows(&mut self, table: &TableAs<'_>, parameters: &[OwnedValue]) -> Result<CommandTag, SqlError> {
        let parts = self.parts.count();
        self.own(SET_STEPS)?;
        let made = self.make_table_of_rows(table, parameters);
        if self.is_ended() {
            return made;
        }
        let undone = if made.is_err() { self.own(UNDO_STEPS) } else { Ok(()) };
        if let Err(error) = undone.and_then(|()| self.own(END_STEPS)) {
            // Where the savepoint stands is not known, so all goes.
            self.rollback();
            return Err(error);
        }
        if made.is_err() {
            self.parts.truncate(parts);
            self.schema_moved();
        }
        made
    }

    /// The rows go into a temporary table first, of which SQLite then says what columns it has. So the query runs once, and the
    /// names and affinities of the columns are SQLite's own.
    fn make_table_of_rows(&mut self, table: &TableAs<'_>, parameters: &[OwnedValue]) -> Result<CommandTag, SqlError> {
        let failed = |error: rusqlite::Error| from_sqlite(&error);
        let name = quoted(&table.name);
        let query = table.rest.get("AS".len()..).unwrap_or_default();
        let types = self.policy.own(|| types_of_rows(self.connection(), query)).map_err(failed)?;
        let fill = format!("CREATE TEMP TABLE {} {}", table.name_as_written, table.rest);
        // Only compiled as our own: what it compiles while it runs, such as the pragma behind a table, is not.
        let mut statement = self.policy.own(|| self.connection().prepare(&fill)).map_err(failed)?;
        values::bind(&mut statement, &fill, parameters)?;
        statement.raw_execute().map_err(failed)?;
        drop(statement);
        // Temporary tables may be lent meanwhile.
        let columns = columns_of_rows(self.connection(), &table.name, &types).map_err(failed)?;
        let definition = format!("CREATE TABLE {name}{columns}");
        self.batch(&definition)?;
        schema::check(self.connection())?;
        self.keep_ddl(definition)?;
        self.schema_moved();
        self.start_capture().map_err(failed)?;
        let copy = format!("INSERT INTO main.{name} SELECT * FROM temp.{name}");
        let rows = self.policy.own(|| self.connection().execute(&copy, [])).map_err(failed)?;
        self.capture.check()?;
        self.drain();
        self.batch(&format!("DROP TABLE temp.{name}"))?;
        self.schema_moved();
        Ok(CommandTag(format!("SELECT {rows}")))
    }
}

fn tag(words: &str) -> CommandTag {
    CommandTag(words.to_owned())
}
