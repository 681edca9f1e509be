//! Statements of PostgreSQL's that have no counterpart here, which are told so rather than that they make no sense.

use mainstay::server::pg::SqlError;

use super::super::lexer::{Token, tokens};
use super::super::policy;

/// First words that SQLite knows no statement by.
const STATEMENTS: &[&str] = &[
    "CALL",
    "CHECKPOINT",
    "CLUSTER",
    "COMMENT",
    "DO",
    "EXECUTE",
    "GRANT",
    "IMPORT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "NOTIFY",
    "PREPARE",
    "REASSIGN",
    "REFRESH",
    "REVOKE",
    "SECURITY",
];
/// What CREATE, ALTER and DROP are about in PostgreSQL alone.
const OBJECTS: &[&str] = &[
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "CONVERSION",
    "DATABASE",
    "DOMAIN",
    "EVENT",
    "EXTENSION",
    "FOREIGN",
    "FUNCTION",
    "GROUP",
    "LANGUAGE",
    "MATERIALIZED",
    "OPERATOR",
    "OWNED",
    "POLICY",
    "PROCEDURE",
    "PUBLICATION",
    "ROLE",
    "ROUTINE",
    "RULE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLESPACE",
    "TRANSFORM",
    "TYPE",
    "USER",
];
/// Words between CREATE and what is created.
const BETWEEN: &[&str] = &["OR", "REPLACE", "UNIQUE", "TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "RECURSIVE", "TRUSTED"];
/// `CREATE OR REPLACE TEMP RECURSIVE VIEW` has the most.
const BETWEEN_LIMIT: usize = 4;

/// Refuses what neither SQLite nor this program has.
///
/// # Errors
/// 0A000.
pub(super) fn refuse(statement: &str) -> Result<(), SqlError> {
    let mut words = tokens(statement);
    let Some(first) = words.next() else { return Ok(()) };
    let is = |token: &Token<'_>, list: &[&str]| list.iter().any(|word| token.is(word));
    if is(&first, STATEMENTS) {
        return refused(&first.text.to_ascii_uppercase());
    }
    if !is(&first, &["CREATE", "ALTER", "DROP"]) {
        return Ok(());
    }
    let object = words.take(BETWEEN_LIMIT + 1).find(|token| !is(token, BETWEEN));
    match object {
        Some(object) if is(&object, OBJECTS) => {
            refused(&format!("{} {}", first.text, object.text).to_ascii_uppercase())
        }
        _ => Ok(()),
    }
}

fn refused(what: &str) -> Result<(), SqlError> {
    let hint = match what {
        "LOCK" => "A transaction that writes is the only one that does.",
        "PREPARE" | "EXECUTE" => "Prepare statements in the driver.",
        "CREATE SEQUENCE" => "INTEGER PRIMARY KEY counts by itself.",
        "LISTEN" | "NOTIFY" => "Nothing is notified here.",
        _ => return Err(policy::refused(format!("{what} is not supported"))),
    };
    Err(policy::refused(format!("{what} is not supported")).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn what_nobody_has_is_told_so() {
        for (sql, message) in [
            ("create sequence s", "CREATE SEQUENCE is not supported"),
            (
                "CREATE OR REPLACE FUNCTION f() RETURNS int AS $$ SELECT 1 $$ LANGUAGE sql",
                "CREATE FUNCTION is not supported",
            ),
            ("DROP EXTENSION IF EXISTS x", "DROP EXTENSION is not supported"),
            ("alter role a", "ALTER ROLE is not supported"),
            ("CREATE MATERIALIZED VIEW v AS SELECT 1", "CREATE MATERIALIZED is not supported"),
            ("LOCK TABLE t", "LOCK is not supported"),
            ("listen x", "LISTEN is not supported"),
            ("PREPARE p AS SELECT 1", "PREPARE is not supported"),
            ("checkpoint", "CHECKPOINT is not supported"),
        ] {
            assert_eq!(parse(sql).unwrap_err().message, message, "{sql}");
        }
        for sql in [
            "CREATE UNIQUE INDEX i ON t (a)",
            "CREATE TEMP VIEW v AS SELECT 1",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END",
            "CREATE TABLE sequence (role)",
            "DROP TABLE role",
            "DROP",
            "SELECT 1",
            "REINDEX t",
        ] {
            assert_eq!(refuse(sql), Ok(()), "{sql}");
        }
    }
}
