//! What the schema must not contain, because replay could not bring back what is done under it.
//!
//! Looked at after each statement that changes it, in what SQLite then has, whatever the statement was.

use mainstay::server::pg::SqlError;
use rusqlite::{Connection, OptionalExtension};

use super::errors::from_sqlite;
use super::{RESERVED_PREFIX, STATE_TABLE, command, policy};

/// Whether column `c` of `pragma_table_xinfo` of table `t` of `pragma_table_list` keeps numbers as they come, in SQL. ANY
/// does so in STRICT tables; in others it means NUMERIC.
pub(super) const UNTYPED: &str =
    "(c.type = '' OR c.type LIKE '%blob%' OR (t.strict AND c.type = 'ANY' COLLATE NOCASE))";

/// What the schema must not contain after a DDL statement, whatever the statement was.
pub(super) fn check(connection: &Connection) -> Result<(), SqlError> {
    let failed = |error: rusqlite::Error| from_sqlite(&error);
    let own = "SELECT name FROM sqlite_schema WHERE lower(substr(name, 1, length(?1))) = ?1 AND name <> ?2";
    let mut statement = connection.prepare_cached(own).map_err(failed)?;
    let prefix = RESERVED_PREFIX;
    let mut rows = statement.query((prefix, STATE_TABLE)).map_err(failed)?;
    if let Some(row) = rows.next().map_err(failed)? {
        return Err(policy::reserved(&row.get::<_, String>(0).map_err(failed)?));
    }
    if let Some(table) = collating_key(connection).map_err(failed)? {
        let message = format!("the primary key of table \"{table}\" has a collation other than BINARY");
        return Err(policy::refused(message).with_hint("Use a UNIQUE constraint with that collation beside the key."));
    }
    if let Some(table) = untyped_key(connection).map_err(failed)? {
        let message = format!("the primary key of table \"{table}\", which is WITHOUT ROWID, has a column of no type");
        return Err(policy::refused(message).with_hint("Declare a type: 1 and 1.0 must not be two keys."));
    }
    if let Some(table) = reference_to_reserved(connection).map_err(failed)? {
        return Err(policy::reserved(&table));
    }
    refuse_conflict_clauses(connection)?;
    // A changeset tells rows of a table without a key apart by their `_rowid_`, which must then be the real one.
    let hidden = "SELECT t.name FROM pragma_table_list t, pragma_table_xinfo(t.name, 'main') c \
                  WHERE t.schema = 'main' AND t.type = 'table' \
                  GROUP BY t.name HAVING max(c.pk) = 0 AND max(c.name = '_rowid_' COLLATE NOCASE)";
    let mut statement = connection.prepare_cached(hidden).map_err(failed)?;
    let mut rows = statement.raw_query();
    let Some(row) = rows.next().map_err(failed)? else { return Ok(()) };
    let table: String = row.get(0).map_err(failed)?;
    let message =
        format!("table \"{table}\" has no primary key and a column called _rowid_, which hides the key it has");
    Err(policy::refused(message).with_hint("Declare a primary key, or choose another name."))
}

/// A changeset tells rows apart by the bytes of their keys, SQLite by the key's collation: a key changed from `A` to `a` would
/// be one row to SQLite and two in the changeset, which then fits nowhere. ([`super::captured`] sees to 1 and 1.0.)
fn collating_key(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT t.name FROM pragma_table_list t, pragma_index_list(t.name, 'main') i, \
               pragma_index_xinfo(i.name, 'main') c \
               WHERE t.schema = 'main' AND t.type = 'table' AND i.origin = 'pk' AND c.key = 1 \
               AND c.coll <> 'BINARY' COLLATE NOCASE LIMIT 1";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
}

/// In such a key 1 and 1.0 are equal to SQLite and two rows in a changeset. Of other tables each row that gets such a key is
/// refused ([`super::captured`]).
fn untyped_key(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = format!(
        "SELECT t.name FROM pragma_table_list t, pragma_table_xinfo(t.name, 'main') c \
         WHERE t.schema = 'main' AND t.wr = 1 AND c.pk > 0 AND {UNTYPED} LIMIT 1"
    );
    connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()
}

/// A foreign key to a table of ours would be checked when we write to it, after the transaction is in the WAL.
fn reference_to_reserved(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT f.\"table\" FROM pragma_table_list t, pragma_foreign_key_list(t.name, 'main') f \
               WHERE t.schema = 'main' AND t.type = 'table' AND lower(substr(f.\"table\", 1, length(?1))) = ?1 LIMIT 1";
    connection.prepare_cached(sql)?.query_row([RESERVED_PREFIX], |row| row.get(0)).optional()
}

/// A column can get such a clause by ALTER TABLE as well.
fn refuse_conflict_clauses(connection: &Connection) -> Result<(), SqlError> {
    let failed = |error: rusqlite::Error| from_sqlite(&error);
    let mut statement = connection
        .prepare_cached("SELECT sql FROM sqlite_schema WHERE type = 'table' AND sql NOTNULL")
        .map_err(failed)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(failed)? {
        if command::has_conflict_clause(row.get_ref(0).map_err(failed)?.as_str().map_err(|error| failed(error.into()))?)
        {
            let message = "ON CONFLICT in a table's definition is not supported: it would act again at replay";
            let refusal = policy::refused(message);
            return Err(refusal.with_hint("Write INSERT OR …, or INSERT … ON CONFLICT, in the statements instead."));
        }
    }
    Ok(())
}
