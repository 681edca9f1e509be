//! Temporary tables of a session, copied beside the database for one statement that reads them and changes what is in it.
//!
//! The copies are in the writing connection's own temporary schema, which nothing is captured from, and gone before the
//! statement is over: nobody else ever sees them, and the log holds what the statement changed.

use mainstay::server::pg::{CommandTag, OwnedValue, ResultSink, SqlError};
use rusqlite::Connection;
use rusqlite::types::ToSqlOutput;

use super::super::errors::from_sqlite;
use super::super::lexer::tokens;
use super::super::names::quoted;
use super::super::policy::Policy;
use super::Writer;

/// Temporary tables and views, and the connection that they are on.
pub(in super::super) struct Lent<'a> {
    pub(in super::super) connection: &'a Connection,
    /// As they were made: tables first, then what refers to them.
    pub(in super::super) objects: Vec<Object>,
    /// With the rows; without them, statements can be compiled.
    pub(in super::super) with_rows: bool,
}

/// Something temporary.
pub(in super::super) struct Object {
    pub(in super::super) kind: Kind,
    pub(in super::super) name: String,
    pub(in super::super) definition: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Kind {
    Table,
    View,
    Index,
}

impl Writer {
    /// As [`execute`](Writer::execute), with those beside the database.
    ///
    /// # Errors
    /// As there, or they could not be copied. If they could not be removed either, the transaction is over.
    pub(in super::super) fn execute_with(
        &mut self,
        lent: &Lent<'_>,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        self.beside(lent, |writer| writer.execute(sql, parameters, sink))
    }

    /// Looks at the schema with those beside the database.
    ///
    /// # Errors
    /// As [`execute_with`](Writer::execute_with).
    pub(in super::super) fn look_with<T>(
        &mut self,
        lent: &Lent<'_>,
        look: impl FnOnce(&Connection, &Policy) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.beside(lent, |writer| look(writer.connection(), &writer.policy))
    }

    pub(super) fn beside<T>(
        &mut self,
        lent: &Lent<'_>,
        work: impl FnOnce(&mut Writer) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        // Names in statements that are compiled already may mean something else now, and again afterwards.
        self.connection().flush_prepared_statement_cache();
        let copied = self.policy.own(|| lent.copy_to(self.connection())).map_err(|error| from_sqlite(&error));
        let outcome = copied.and_then(|()| work(self));
        self.connection().flush_prepared_statement_cache();
        if self.is_ended() {
            // Its temporary tables went with the transaction that SQLite ended.
            return outcome;
        }
        if let Err(error) = self.policy.own(|| lent.remove_from(self.connection())) {
            self.rollback();
            return outcome.and(Err(from_sqlite(&error)));
        }
        outcome
    }
}

impl Lent<'_> {
    fn copy_to(&self, writer: &Connection) -> rusqlite::Result<()> {
        for object in &self.objects {
            writer.execute_batch(&object.temporary_definition())?;
            if object.kind == Kind::Table && self.with_rows {
                self.copy_rows(&object.name, writer)?;
            }
        }
        Ok(())
    }

    /// With the rowids, if the table has any that it is not itself a column of.
    fn copy_rows(&self, table: &str, writer: &Connection) -> rusqlite::Result<()> {
        let columns = "SELECT name FROM pragma_table_xinfo(?1, 'temp') WHERE hidden = 0 ORDER BY cid";
        let mut columns = self.connection.prepare(columns)?;
        let mut names: Vec<String> = columns.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let without_rowid = "SELECT wr FROM pragma_table_list(?1) WHERE schema = 'temp'";
        let without_rowid: bool = self.connection.query_row(without_rowid, [table], |row| row.get(0))?;
        if !without_rowid && !names.iter().any(|name| name.eq_ignore_ascii_case("_rowid_")) {
            names.insert(0, "_rowid_".to_owned());
        }
        let list = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let marks = vec!["?"; names.len()].join(", ");
        let table = quoted(table);
        let mut insert = writer.prepare(&format!("INSERT INTO temp.{table} ({list}) VALUES ({marks})"))?;
        let mut select = self.connection.prepare(&format!("SELECT {list} FROM temp.{table}"))?;
        let mut rows = select.raw_query();
        while let Some(row) = rows.next()? {
            for position in 0..names.len() {
                insert.raw_bind_parameter(position + 1, ToSqlOutput::Borrowed(row.get_ref(position)?))?;
            }
            insert.raw_execute()?;
        }
        Ok(())
    }

    fn remove_from(&self, writer: &Connection) -> rusqlite::Result<()> {
        let drop = |object: &Object| match object.kind {
            Kind::Table => Some(format!("DROP TABLE IF EXISTS temp.{}", quoted(&object.name))),
            Kind::View => Some(format!("DROP VIEW IF EXISTS temp.{}", quoted(&object.name))),
            // They go with their tables.
            Kind::Index => None,
        };
        self.objects.iter().rev().filter_map(drop).try_for_each(|sql| writer.execute_batch(&sql))
    }
}

impl Object {
    /// SQLite keeps definitions as `CREATE TABLE name …`, without the schema. A counter of AUTOINCREMENT stays behind: it would
    /// make a table of its own, for good.
    fn temporary_definition(&self) -> String {
        let mut sql = String::with_capacity(self.definition.len() + " TEMP".len());
        let mut at = 0;
        for (position, token) in tokens(&self.definition).enumerate() {
            if position == 1 && self.kind != Kind::Index {
                sql.push_str(self.definition.get(at..token.range().start).unwrap_or_default());
                sql.push_str("TEMP ");
                at = token.range().start;
            } else if self.kind == Kind::Table && token.is("AUTOINCREMENT") {
                sql.push_str(self.definition.get(at..token.range().start).unwrap_or_default());
                at = token.range().end;
            }
        }
        sql.push_str(self.definition.get(at..).unwrap_or_default());
        sql
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rusqlite::ffi;
    use rusqlite::functions::{Context, FunctionFlags};

    use super::super::super::STATE_TABLE;
    use super::super::super::health::Health;
    use super::super::super::test_support::Seen;
    use super::*;

    #[test]
    fn no_statement_that_meant_what_was_lent_stays_compiled() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = format!("CREATE TABLE {STATE_TABLE} (applied); CREATE TABLE t (a); INSERT INTO t VALUES ('stored')");
        connection.execute_batch(&sql).unwrap();
        let has_space = AtomicBool::new(false);
        let space = move |_: &Context<'_>| -> rusqlite::Result<i64> {
            match has_space.swap(true, Ordering::SeqCst) {
                true => Ok(1),
                // Which ends the transaction.
                false => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None)),
            }
        };
        connection.create_scalar_function("space", 0, FunctionFlags::SQLITE_UTF8, space).unwrap();
        let mut writer = Writer::new(connection, Arc::new(Health::new())).unwrap();
        let temporary = Connection::open_in_memory().unwrap();
        temporary.execute_batch("CREATE TEMP TABLE t (a, b); INSERT INTO t VALUES ('lent', 2)").unwrap();
        let object = Object { kind: Kind::Table, name: "t".into(), definition: "CREATE TABLE t (a, b)".into() };
        let lent = Lent { connection: &temporary, objects: vec![object], with_rows: true };
        let sql = "SELECT *, space() FROM t";
        writer.begin().unwrap();
        writer.execute_with(&lent, sql, &[], &mut Seen::default()).unwrap_err();
        assert!(writer.is_ended());
        writer.rollback();
        writer.begin().unwrap();
        let mut seen = Seen::default();
        writer.execute(sql, &[], &mut seen).unwrap();
        assert_eq!(seen.rows, [["stored", "1"]]);
    }

    #[test]
    fn a_definition_is_made_anew_as_temporary() {
        for (kind, definition, expected) in [
            (Kind::Table, "CREATE TABLE t (a)", "CREATE TEMP TABLE t (a)"),
            (
                Kind::Table,
                "CREATE TABLE \"t\"(id INTEGER PRIMARY KEY autoincrement, \"AUTOINCREMENT\")",
                "CREATE TEMP TABLE \"t\"(id INTEGER PRIMARY KEY , \"AUTOINCREMENT\")",
            ),
            (Kind::View, "CREATE VIEW v AS SELECT 1", "CREATE TEMP VIEW v AS SELECT 1"),
            (Kind::Index, "CREATE UNIQUE INDEX i ON t (a)", "CREATE UNIQUE INDEX i ON t (a)"),
        ] {
            let object = Object { kind, name: String::new(), definition: definition.to_owned() };
            assert_eq!(object.temporary_definition(), expected);
        }
    }
}
