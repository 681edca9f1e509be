//! SQLite's errors in PostgreSQL's words.

use mainstay::server::pg::{ErrorObject, SqlError, SqlState};
use rusqlite::{Connection, ffi};

use super::catalog::{self, Home, Twice};
use super::control::cancelled;

/// What a client is told of an error of SQLite.
pub(super) fn from_sqlite(error: &rusqlite::Error) -> SqlError {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            from_code(code.extended_code, message.as_deref().unwrap_or_default())
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => from_code(error.extended_code, msg),
        rusqlite::Error::NulError(_) => {
            SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\": 0x00")
        }
        rusqlite::Error::Utf8Error(..) => {
            SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "stored text is not valid UTF-8")
        }
        rusqlite::Error::MultipleStatement => {
            SqlError::new(SqlState::SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement")
        }
        other => SqlError::new(SqlState::INTERNAL_ERROR, other.to_string()),
    }
}

/// What a client is told of an error of a statement that changed tables of `home`: with the names of what it violated, as far as
/// SQLite says enough to find them in the schema.
pub(super) fn of_statement(connection: &Connection, home: Home, error: &rusqlite::Error) -> SqlError {
    let told = from_sqlite(error);
    let rusqlite::Error::SqliteFailure(code, Some(message)) = error else { return told };
    // Without names if the schema cannot be looked at now, as after a cancel.
    let found = violated(connection, home, code.extended_code, message).ok().flatten();
    match found {
        Some(object) => named(told, object),
        None => told,
    }
}

fn violated(connection: &Connection, home: Home, code: i32, message: &str) -> rusqlite::Result<Option<ErrorObject>> {
    let twice = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY, ffi::SQLITE_CONSTRAINT_ROWID];
    if let Some(index) = violated_index(message).filter(|_| twice.contains(&code)) {
        return catalog::index(connection, home, index);
    }
    let (table, columns) = constrained(message);
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE => {
            let columns: Vec<String> = columns.into_iter().map(str::to_owned).collect();
            catalog::key(connection, home, table, &Twice::Columns(&columns))
        }
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => catalog::key(connection, home, table, &Twice::Primary),
        ffi::SQLITE_CONSTRAINT_ROWID => catalog::key(connection, home, table, &Twice::Row),
        ffi::SQLITE_CONSTRAINT_NOTNULL => catalog::column(connection, home, table, &columns.join(", ")),
        ffi::SQLITE_CONSTRAINT_CHECK => catalog::check(connection, home, after_colon(message)),
        _ => Ok(None),
    }
}

/// With the names, in the words that PostgreSQL has for them.
fn named(told: SqlError, object: ErrorObject) -> SqlError {
    let message = match (told.state, &object.table, &object.constraint) {
        (SqlState::UNIQUE_VIOLATION, _, Some(constraint)) => {
            format!("duplicate key value violates unique constraint \"{constraint}\"")
        }
        (SqlState::CHECK_VIOLATION, Some(table), Some(constraint)) => {
            format!("new row for relation \"{table}\" violates check constraint \"{constraint}\"")
        }
        (SqlState::CHECK_VIOLATION, None, Some(constraint)) => {
            format!("new row violates check constraint \"{constraint}\"")
        }
        _ => told.message.clone(),
    };
    SqlError { message, ..told }.with_object(object)
}

fn from_code(code: i32, message: &str) -> SqlError {
    let told = |state| SqlError::new(state, plain(message, code));
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            if let Some(index) = violated_index(message) {
                let key = format!("duplicate key value violates unique constraint \"{index}\"");
                return SqlError::new(SqlState::UNIQUE_VIOLATION, key);
            }
            let (table, columns) = constrained(message);
            let columns = columns.join(", ");
            let key = format!("duplicate key value violates unique constraint on {table} ({columns})");
            // PostgreSQL tells the values, too. They stay out of what is logged.
            SqlError::new(SqlState::UNIQUE_VIOLATION, key).with_detail(format!("Key ({columns}) already exists."))
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => {
            let (table, column) = constrained(message);
            not_null(table, &column.join(", "))
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => foreign_key(),
        ffi::SQLITE_CONSTRAINT_CHECK => {
            let name = after_colon(message);
            SqlError::new(SqlState::CHECK_VIOLATION, format!("new row violates check constraint \"{name}\""))
        }
        ffi::SQLITE_CONSTRAINT_TRIGGER => told(SqlState("P0001")),
        ffi::SQLITE_CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH => told(SqlState::INVALID_TEXT_REPRESENTATION),
        ffi::SQLITE_INTERRUPT => cancelled(),
        ffi::SQLITE_ERROR => {
            let told = SqlError::new(state_of_message(message), natural(message));
            let locks = message.eq_ignore_ascii_case("near \"FOR\": syntax error");
            if locks { told.with_hint("FOR UPDATE and FOR SHARE are not supported.") } else { told }
        }
        _ => told(state_of_primary(code & 0xFF)),
    }
}

fn state_of_primary(code: i32) -> SqlState {
    match code {
        ffi::SQLITE_FULL => SqlState::DISK_FULL,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => SqlState::DATA_CORRUPTED,
        ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN => SqlState::IO_ERROR,
        // The statement was compiled for another schema; compiled again, it may well work.
        ffi::SQLITE_SCHEMA => SqlState("40001"),
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => SqlState::LOCK_NOT_AVAILABLE,
        ffi::SQLITE_READONLY => SqlState::READ_ONLY_SQL_TRANSACTION,
        ffi::SQLITE_TOOBIG => SqlState::PROGRAM_LIMIT_EXCEEDED,
        ffi::SQLITE_NOMEM => SqlState("53200"),
        ffi::SQLITE_AUTH => SqlState("42501"),
        ffi::SQLITE_CONSTRAINT => SqlState::INTEGRITY_CONSTRAINT_VIOLATION,
        ffi::SQLITE_RANGE => SqlState::UNDEFINED_PARAMETER,
        _ => SqlState::INTERNAL_ERROR,
    }
}

/// The one place that reads SQLite's words, and those of our functions, of whose errors SQLite keeps the text alone: most
/// mistakes of a statement share one code and differ in text only. A test
/// runs each against the bundled SQLite, so that an upgrade which changes them is noticed.
fn state_of_message(message: &str) -> SqlState {
    const BEGINNINGS: &[(&str, SqlState)] = &[
        ("no such table", SqlState::UNDEFINED_TABLE),
        ("no such view", SqlState::UNDEFINED_TABLE),
        ("no such column", SqlState::UNDEFINED_COLUMN),
        ("no such function", SqlState::UNDEFINED_FUNCTION),
        ("wrong number of arguments to function", SqlState::UNDEFINED_FUNCTION),
        ("no such savepoint", SqlState("3B001")),
        ("no such index", SqlState("42704")),
        ("no such trigger", SqlState("42704")),
        ("duplicate column name", SqlState::DUPLICATE_COLUMN),
        ("ambiguous column name", SqlState("42702")),
        ("there is already", SqlState::DUPLICATE_TABLE),
        ("integer overflow", SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        ("cannot cast type", SqlState("42846")),
        ("cannot take square root of a negative number", SqlState("2201F")),
        ("zero raised to a negative power", SqlState("2201F")),
        ("a negative number raised to a non-integer power", SqlState("2201F")),
        ("division by zero", SqlState("22012")),
        ("invalid input syntax for type date", SqlState("22007")),
        ("invalid input syntax for type time", SqlState("22007")),
        ("invalid input syntax for type", SqlState::INVALID_TEXT_REPRESENTATION),
        ("value out of range", SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        ("unit \"", SqlState("22023")),
        ("NaN is not supported", SqlState::FEATURE_NOT_SUPPORTED),
        ("string or blob too big", SqlState::PROGRAM_LIMIT_EXCEEDED),
        ("too many SQL variables", SqlState::PROGRAM_LIMIT_EXCEEDED),
        ("too many columns", SqlState::PROGRAM_LIMIT_EXCEEDED),
    ];
    if let Some((_, state)) = BEGINNINGS.iter().find(|(words, _)| message.starts_with(words)) {
        *state
    } else if message.ends_with("already exists") {
        SqlState::DUPLICATE_TABLE
    } else if message.starts_with("value ") && message.contains(" is out of range for type ") {
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE
    } else if message.ends_with("may not be modified") {
        SqlState("42501")
    } else if message.contains("has no column named") {
        SqlState::UNDEFINED_COLUMN
    } else {
        // What remains is said while a statement is being compiled: it makes no sense as written.
        SqlState::SYNTAX_ERROR
    }
}

/// SQLite's message as PostgreSQL would say it, where that differs in more than taste.
fn natural(message: &str) -> String {
    let named = |beginning: &str| message.strip_prefix(beginning).map(str::trim);
    if let Some(name) = named("no such table:") {
        format!("relation \"{name}\" does not exist")
    } else if let Some(name) = named("no such column:") {
        format!("column \"{name}\" does not exist")
    } else if let Some(name) = named("no such function:") {
        format!("function {name} does not exist")
    } else if let Some(name) = message.strip_prefix("table ").and_then(|rest| rest.strip_suffix(" already exists")) {
        format!("relation \"{}\" already exists", name.trim_matches('"'))
    } else if let Some(near) = message.strip_prefix("near ").and_then(|rest| rest.strip_suffix(": syntax error")) {
        format!("syntax error at or near {near}")
    } else if message == "incomplete input" {
        "syntax error at end of input".to_owned()
    } else {
        message.to_owned()
    }
}

fn plain(message: &str, code: i32) -> String {
    if message.is_empty() { ffi::code_to_str(code).to_owned() } else { message.to_owned() }
}

fn after_colon(message: &str) -> &str {
    message.split_once(": ").map_or(message, |(_, rest)| rest)
}

/// `UNIQUE constraint failed: t.a, t.b` names `t`, and `a` and `b`.
fn constrained(message: &str) -> (&str, Vec<&str>) {
    let named = after_colon(message);
    let mut table = named;
    let mut columns = Vec::new();
    for column in named.split(", ") {
        let (of, name) = column.split_once('.').unwrap_or((named, column));
        table = of;
        columns.push(name);
    }
    (table, columns)
}

/// `UNIQUE constraint failed: index 'i'` names an index on expressions.
fn violated_index(message: &str) -> Option<&str> {
    after_colon(message).strip_prefix("index '")?.strip_suffix('\'')
}

/// A NULL where none may be.
fn not_null(table: &str, column: &str) -> SqlError {
    let message = format!("null value in column \"{column}\" of relation \"{table}\" violates not-null constraint");
    SqlError::new(SqlState::NOT_NULL_VIOLATION, message)
}

/// A NULL in a key of a table in the database.
pub(super) fn not_null_key(table: &str, column: &str) -> SqlError {
    not_null(table, column).with_object(Home::Stored.column(table, column))
}

/// A reference to nothing.
pub(super) fn foreign_key() -> SqlError {
    SqlError::new(SqlState::FOREIGN_KEY_VIOLATION, "the change violates a foreign key constraint")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    /// The error of the last of `statements` on an empty database.
    fn error_of(statements: &[&str]) -> SqlError {
        let connection = Connection::open_in_memory().unwrap();
        let (last, before) = statements.split_last().unwrap();
        for sql in before {
            connection.execute_batch(sql).unwrap();
        }
        let run = || {
            let mut statement = connection.prepare(last)?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        };
        from_sqlite(&Result::<(), rusqlite::Error>::and(run(), Ok(())).unwrap_err())
    }

    #[test]
    fn a_schema_that_moved_is_worth_another_try() {
        let moved = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_SCHEMA), None);
        assert_eq!(from_sqlite(&moved).state, SqlState("40001"));
    }

    #[test]
    fn sqlite_says_what_we_expect_it_to() {
        let t = "CREATE TABLE t (a INTEGER PRIMARY KEY, b NOT NULL UNIQUE, c CHECK (c > 0), d REFERENCES t)";
        let row = "INSERT INTO t VALUES (1, 1, 1, NULL)";
        let columns = format!("SELECT {}", vec!["1"; 2001].join(", "));
        let cases: &[(&[&str], SqlState, &str)] = &[
            (&["SELECT * FROM nowhere"], SqlState::UNDEFINED_TABLE, "relation \"nowhere\" does not exist"),
            (&[t, "SELECT missing FROM t"], SqlState::UNDEFINED_COLUMN, "column \"missing\" does not exist"),
            (&[t, "INSERT INTO t (z) VALUES (1)"], SqlState::UNDEFINED_COLUMN, "table t has no column named z"),
            (&["SELECT missing(1)"], SqlState::UNDEFINED_FUNCTION, "function missing does not exist"),
            (&["SELECT abs()"], SqlState::UNDEFINED_FUNCTION, "wrong number of arguments to function abs()"),
            (&[t, t], SqlState::DUPLICATE_TABLE, "relation \"t\" already exists"),
            (&[t, "CREATE VIEW t AS SELECT 1"], SqlState::DUPLICATE_TABLE, "relation \"t\" already exists"),
            (&[t, "CREATE INDEX t ON t (a)"], SqlState::DUPLICATE_TABLE, "there is already a table named t"),
            (&["CREATE TABLE u (a, a)"], SqlState::DUPLICATE_COLUMN, "duplicate column name: a"),
            (&[t, "SELECT x.a FROM t x, t y WHERE a = 1"], SqlState("42702"), "ambiguous column name: a"),
            (&["DROP INDEX i"], SqlState("42704"), "no such index: i"),
            (&["DROP TRIGGER i"], SqlState("42704"), "no such trigger: i"),
            (&["DROP VIEW v"], SqlState::UNDEFINED_TABLE, "no such view: v"),
            (&["DELETE FROM sqlite_schema"], SqlState("42501"), "table sqlite_master may not be modified"),
            (&["RELEASE s"], SqlState("3B001"), "no such savepoint: s"),
            (&["SELEC 1"], SqlState::SYNTAX_ERROR, "syntax error at or near \"SELEC\""),
            (&["SELECT ("], SqlState::SYNTAX_ERROR, "syntax error at end of input"),
            (&["SELECT 'a"], SqlState::SYNTAX_ERROR, "unrecognized token: \"'a\""),
            (
                &["SELECT sum(a) FROM (SELECT 9223372036854775807 a UNION ALL SELECT 1)"],
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                "integer overflow",
            ),
            (
                &[t, row, "INSERT INTO t VALUES (2, 1, 1, NULL)"],
                SqlState::UNIQUE_VIOLATION,
                "duplicate key value violates unique constraint on t (b)",
            ),
            (
                &[t, row, "INSERT INTO t VALUES (1, 2, 1, NULL)"],
                SqlState::UNIQUE_VIOLATION,
                "duplicate key value violates unique constraint on t (a)",
            ),
            (
                &["CREATE TABLE u (a, b, PRIMARY KEY (a, b))", "INSERT INTO u VALUES (1, 1), (1, 1)"],
                SqlState::UNIQUE_VIOLATION,
                "duplicate key value violates unique constraint on u (a, b)",
            ),
            (
                &[t, "INSERT INTO t VALUES (1, NULL, 1, NULL)"],
                SqlState::NOT_NULL_VIOLATION,
                "null value in column \"b\" of relation \"t\" violates not-null constraint",
            ),
            (
                &[t, "INSERT INTO t VALUES (1, 1, 0, NULL)"],
                SqlState::CHECK_VIOLATION,
                "new row violates check constraint \"c > 0\"",
            ),
            (
                &[t, "INSERT INTO t VALUES (1, 1, 1, 9)"],
                SqlState::FOREIGN_KEY_VIOLATION,
                "the change violates a foreign key constraint",
            ),
            (
                &["CREATE TABLE u (a INT) STRICT", "INSERT INTO u VALUES ('x')"],
                SqlState::INVALID_TEXT_REPRESENTATION,
                "cannot store TEXT value in INT column u.a",
            ),
            (&[t, "INSERT INTO t VALUES ('x', 1, 1, 9)"], SqlState::INVALID_TEXT_REPRESENTATION, "datatype mismatch"),
            (&[&columns], SqlState::PROGRAM_LIMIT_EXCEEDED, "too many columns in result set"),
        ];
        for (statements, state, message) in cases {
            let error = error_of(statements);
            assert_eq!((error.state, error.message.as_str()), (*state, *message), "{statements:?}");
        }
    }
}
