//! Watches for values in declared primary keys that a session cannot keep apart or does not see.
//!
//! NULL: SQLite allows it (except in `INTEGER PRIMARY KEY` and `WITHOUT ROWID`), PostgreSQL does not, and sessions silently
//! skip such rows: they would be missing after replay. The statement that writes one fails with 23502.
//!
//! Floating point numbers in a key column without a type: 1 and 1.0 are the same key to SQLite and two to a session,
//! so that a change from one to the other would not fit any data. Refused as well.

use std::collections::HashMap;
use std::sync::Arc;

use mainstay::server::pg::SqlError;
use parking_lot::Mutex;
use rusqlite::hooks::Action;
use rusqlite::{Connection, OptionalExtension};

use super::{errors, policy};

/// Whether column `c` of `pragma_table_xinfo` of table `t` of `pragma_table_list` keeps numbers as they come, in SQL. ANY
/// does so in STRICT tables; in others it means NUMERIC.
pub(super) const UNTYPED: &str =
    "(c.type = '' OR c.type LIKE '%blob%' OR (t.strict AND c.type = 'ANY' COLLATE NOCASE))";

/// Rows of one statement that are remembered one by one; with more, whole tables are looked at.
const MAX_ROWS: usize = 1024;

/// Tables whose declared key may hold NULL, and which of their rows a statement wrote.
#[derive(Clone, Default)]
pub(super) struct KeyWatch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    tables: HashMap<String, Vec<KeyColumn>>,
    rows: Vec<(String, i64)>,
    too_many: bool,
}

/// A key column to be looked at: it can hold NULL, or has no type.
#[derive(Clone)]
struct KeyColumn {
    name: Arc<str>,
    /// Finds what may not be there: in the row `?1`, or in any row.
    in_row: Arc<str>,
    in_any: Arc<str>,
}

impl KeyColumn {
    fn new(table: &str, name: &str, untyped: bool, rowid_is_free: bool) -> KeyColumn {
        // A temporary table that is lent to the writer may have the same name.
        let (table, key) = (format!("main.{}", quoted(table)), quoted(name));
        let real = if untyped { format!("typeof({key}) = 'real'") } else { "0".to_owned() };
        let sql = |only: &str| -> Arc<str> {
            format!("SELECT {key} IS NULL FROM {table} WHERE {only} AND ({key} IS NULL OR {real}) LIMIT 1").into()
        };
        let in_any = sql("?1 IS ?1");
        // A table may have a column of its own called _rowid_; then every row is looked at.
        let in_row = if rowid_is_free { sql("_rowid_ = ?1") } else { Arc::clone(&in_any) };
        KeyColumn { name: name.into(), in_row, in_any }
    }
}

impl KeyWatch {
    /// Installs itself on `connection`. It watches nothing until [`refresh`](KeyWatch::refresh).
    pub(super) fn install(connection: &mut Connection) -> rusqlite::Result<KeyWatch> {
        let watch = KeyWatch::default();
        let shared = Arc::clone(&watch.0);
        connection.update_hook(Some(move |action: Action, schema: &str, table: &str, rowid: i64| {
            if action != Action::SQLITE_DELETE && schema == "main" {
                shared.lock().note(table, rowid);
            }
        }))?;
        Ok(watch)
    }

    /// Learns the tables again, after the schema changed.
    pub(super) fn refresh(&self, connection: &Connection) -> rusqlite::Result<()> {
        // An index of origin `pk` exists unless the key is the rowid itself or the table is WITHOUT ROWID, in which case
        // NULL is impossible.
        let sql = format!(
            "SELECT t.name, c.name, {UNTYPED} FROM pragma_table_list t, pragma_table_xinfo(t.name, 'main') c \
             WHERE t.schema = 'main' AND t.type = 'table' AND t.wr = 0 AND c.pk > 0 \
             AND (c.\"notnull\" = 0 OR {UNTYPED}) \
             AND EXISTS (SELECT 1 FROM pragma_index_list(t.name, 'main') WHERE origin = 'pk')"
        );
        let mut tables: HashMap<String, Vec<KeyColumn>> = HashMap::new();
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let (table, column): (String, String) = (row.get(0)?, row.get(1)?);
            let column = KeyColumn::new(&table, &column, row.get(2)?, rowid_is_free(connection, &table)?);
            tables.entry(table).or_default().push(column);
        }
        *self.0.lock() = Watched { tables, ..Watched::default() };
        Ok(())
    }

    /// Forgets what the last statement wrote.
    pub(super) fn forget(&self) {
        let mut watched = self.0.lock();
        watched.rows.clear();
        watched.too_many = false;
    }

    /// Fails if a row written since [`forget`](KeyWatch::forget) has such a value in its key. Tables that were `dropped`
    /// since are left out.
    pub(super) fn check(&self, connection: &Connection, dropped: &[String]) -> Result<(), SqlError> {
        let (rows, everything) = {
            let mut watched = self.0.lock();
            if watched.rows.is_empty() && !watched.too_many && dropped.is_empty() {
                return Ok(());
            }
            let is_dropped = |table: &str| dropped.iter().any(|name| name.eq_ignore_ascii_case(table));
            watched.tables.retain(|table, _| !is_dropped(table));
            let everything = watched.too_many.then(|| watched.tables.clone());
            (std::mem::take(&mut watched.rows), everything)
        };
        let found = match everything {
            Some(tables) => tables.iter().find_map(|(table, _)| self.violation(connection, table, None).transpose()),
            None => rows.iter().find_map(|(table, row)| self.violation(connection, table, Some(*row)).transpose()),
        };
        match found {
            None => Ok(()),
            Some(Ok(violation)) => Err(violation),
            Some(Err(error)) => Err(errors::from_sqlite(&error)),
        }
    }

    /// The violation in one row of a table, or in any.
    fn violation(&self, connection: &Connection, table: &str, row: Option<i64>) -> rusqlite::Result<Option<SqlError>> {
        let columns = self.0.lock().tables.get(table).cloned().unwrap_or_default();
        for column in columns {
            let sql = if row.is_some() { &column.in_row } else { &column.in_any };
            let found: Option<bool> = connection.prepare_cached(sql)?.query_row([row], |row| row.get(0)).optional()?;
            match found {
                None => {}
                Some(true) => return Ok(Some(errors::not_null(table, &column.name))),
                Some(false) => return Ok(Some(floating_key(table, &column.name))),
            }
        }
        Ok(None)
    }
}

impl Watched {
    fn note(&mut self, table: &str, rowid: i64) {
        if self.too_many || !self.tables.contains_key(table) {
            return;
        }
        self.too_many = self.rows.len() >= MAX_ROWS;
        if !self.too_many {
            self.rows.push((table.to_owned(), rowid));
        }
    }
}

fn floating_key(table: &str, column: &str) -> SqlError {
    let message =
        format!("a floating point number in key column \"{column}\" of relation \"{table}\", which has no type");
    policy::refused(message).with_hint("Declare the column as REAL or NUMERIC.")
}

fn rowid_is_free(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE name = '_rowid_' COLLATE NOCASE";
    Ok(!connection.prepare_cached(sql)?.exists([table])?)
}

/// A name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
