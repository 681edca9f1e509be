//! Statements of which `sqlparser` knows every form. It reads them, and what they mean here is told from its tree.
//!
//! It is given the tokens as SQLite cuts them, not the text: blanks, comments and the quotes of names are what they are in
//! every other statement.

use mainstay::server::pg::{CursorCommand, SqlError, SqlState};
use sqlparser::ast::{CloseCursor, DiscardObject, Ident, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::super::lexer::{self, Kind};
use super::{Command, translated};

/// A SAVEPOINT, RELEASE, DISCARD or TRUNCATE.
///
/// # Errors
/// 42601, or it asks for what is not possible here.
pub(super) fn command(statement: &str) -> Result<Command, SqlError> {
    Ok(match parse(statement)? {
        Statement::Savepoint { name } => Command::Savepoint(folded(&name)),
        Statement::ReleaseSavepoint { name } => Command::Release(folded(&name)),
        Statement::Discard { object_type: DiscardObject::ALL } => Command::Discard { all: true },
        Statement::Discard { object_type: DiscardObject::TEMP } => Command::Discard { all: false },
        // Plans follow the schema by themselves, and sequences keep nothing in a session.
        Statement::Discard { object_type } => Command::Set { what: format!("DISCARD {object_type}"), tag: "DISCARD" },
        Statement::Truncate(truncate) => translated::truncate(&truncate)?.into(),
        other => return Err(syntax_error(&other)),
    })
}

/// A CLOSE or DEALLOCATE.
///
/// # Errors
/// 42601.
pub(super) fn cursor_command(statement: &str) -> Result<CursorCommand, SqlError> {
    Ok(match parse(statement)? {
        Statement::Close { cursor: CloseCursor::All } => CursorCommand::Close { name: None },
        Statement::Close { cursor: CloseCursor::Specific { name } } => {
            CursorCommand::Close { name: Some(folded(&name)) }
        }
        Statement::Deallocate { name, .. } => {
            let all = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("ALL");
            CursorCommand::Deallocate { name: (!all).then(|| folded(&name)) }
        }
        other => return Err(syntax_error(&other)),
    })
}

/// The tree of a statement, which is one to its end.
fn parse(statement: &str) -> Result<Statement, SqlError> {
    let tokens = lexer::tokens(statement).map(token).collect();
    let mut parser = Parser::new(&PostgreSqlDialect {}).with_tokens(tokens);
    let parsed = parser.parse_statement().and_then(|parsed| parser.expect_token(&Token::EOF).map(|_| parsed));
    parsed.map_err(|error| match error {
        ParserError::ParserError(what) | ParserError::TokenizerError(what) => syntax_error(&what),
        ParserError::RecursionLimitExceeded => SqlError::new(SqlState("54001"), "the statement is nested too deeply"),
    })
}

/// With what was found, and what was expected.
pub(super) fn syntax_error(what: &impl std::fmt::Display) -> SqlError {
    SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {what}"))
}

fn token(token: lexer::Token<'_>) -> Token {
    match (token.kind, token.name()) {
        (Kind::Word, _) => Token::make_word(token.text, None),
        (Kind::Quoted, Some(name)) => Token::make_word(&name, Some('"')),
        (Kind::Text, Some(text)) => Token::SingleQuotedString(text),
        (Kind::Number, _) => Token::Number(token.text.to_owned(), false),
        (Kind::Symbol('.'), _) => Token::Period,
        (Kind::Symbol(','), _) => Token::Comma,
        (Kind::Symbol('*'), _) => Token::Mul,
        (Kind::Symbol('('), _) => Token::LParen,
        (Kind::Symbol(')'), _) => Token::RParen,
        // Nothing else has a place in these statements, and no quote that never closes.
        _ => Token::Char(token.text.chars().next().unwrap_or_default()),
    }
}

/// A name as PostgreSQL takes it: in lower case, unless it is quoted.
pub(super) fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, parse};
    use super::{Parser, PostgreSqlDialect};

    /// See the table in [`super::super`]: when one of these is parsed, it may be time to let go of a grammar of our own.
    #[test]
    fn what_has_a_grammar_here_is_not_known_there() {
        for sql in [
            "BEGIN READ ONLY NOT DEFERRABLE",
            "SET TRANSACTION READ ONLY, DEFERRABLE",
            "BEGIN IMMEDIATE",
            "BEGIN TRANSACTION x",
            "COMMIT TRANSACTION x",
            "ROLLBACK TRANSACTION x TO y",
            "SET CONSTRAINTS ALL DEFERRED",
            "SET XML OPTION DOCUMENT",
            "SET SCHEMA 'x'",
            "RESET TIME ZONE",
            "RESET TRANSACTION ISOLATION LEVEL",
            "COPY BINARY t FROM STDIN",
            "COPY t FROM STDIN USING DELIMITERS ','",
            "COPY t FROM STDIN WHERE a > 1",
            "COPY t FROM STDIN (HEADER off)",
            "COPY t FROM STDIN (HEADER MATCH)",
            "COPY t FROM STDIN (FREEZE on)",
            "COPY t TO STDOUT (FORMAT csv, FORCE_QUOTE *)",
            "COPY (SELECT a GLOB 'x') TO STDOUT",
            "DECLARE c SCROLL BINARY CURSOR FOR SELECT 1",
            "DECLARE c CURSOR FOR SELECT a FROM t INDEXED BY i",
            "FETCH c",
            "FETCH 1 c",
            "FETCH -1 FROM c",
            "FETCH FORWARD FROM c",
            "MOVE NEXT FROM c",
            "VACUUM VERBOSE t",
            "VACUUM (ANALYZE)",
            "VACUUM a, b",
            "VACUUM ANALYZE t",
            "ALTER TABLE a ADD CHECK (b GLOB 'x')",
            "CREATE TABLE t (a)",
            "CREATE TABLE t (a INT UNIQUE ON CONFLICT REPLACE)",
            "CREATE TABLE t (a MEDIUM RARE TYPE (1, 2))",
            "CREATE TABLE t AS SELECT a FROM u INDEXED BY i",
            "CHECKPOINT",
            "CREATE CAST (a AS b) WITHOUT FUNCTION",
        ] {
            let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql);
            assert!(parsed.is_err(), "{sql}: {parsed:?}");
        }
    }

    #[test]
    fn tokens_are_those_of_sqlite() {
        for sql in [
            "SAVEPOINT [A b]",
            "savepoint/* /* */`A b`",
            "\u{feff}SAVEPOINT 'A b' -- ; \"",
            "SAVEPOINT\n\"A b\" /* never closed",
        ] {
            assert_eq!(parse(sql).unwrap(), Some(Command::Savepoint("A b".into())), "{sql}");
        }
        for (sql, name) in [("SAVEPOINT \"a\"\"b\"", "a\"b"), ("SAVEPOINT Select", "select"), ("SAVEPOINT Ä$1", "Ä$1")]
        {
            assert_eq!(parse(sql).unwrap(), Some(Command::Savepoint(name.into())), "{sql}");
        }
        assert_eq!(parse("RELEASE SAVEPOINT savepoint").unwrap(), Some(Command::Release("savepoint".into())));
    }

    #[test]
    fn what_was_found_is_told() {
        for (sql, message) in [
            ("SAVEPOINT", "syntax error: Expected: identifier, found: EOF"),
            ("SAVEPOINT a b", "syntax error: Expected: EOF, found: b"),
            ("RELEASE 1", "syntax error: Expected: identifier, found: 1"),
            ("RELEASE \"a", "syntax error: Expected: identifier, found: \""),
            ("DISCARD \"all\"", "found: \"all\""),
            ("TRUNCATE a, (b)", "syntax error: Expected: identifier, found: ("),
            ("TRUNCATE a RESTART", "syntax error: Expected: EOF, found: RESTART"),
            ("TRUNCATE a PARTITION (b)", "TRUNCATE with IF EXISTS, PARTITION or ON CLUSTER"),
            ("TRUNCATE IF EXISTS a", "TRUNCATE with IF EXISTS, PARTITION or ON CLUSTER"),
        ] {
            let error = parse(sql).unwrap_err();
            assert_eq!(error.state.0, "42601", "{sql}");
            assert!(error.message.ends_with(message), "{sql}: {}", error.message);
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let sql = format!("TRUNCATE a PARTITION {}", "(".repeat(100_000));
        assert_eq!(parse(&sql).unwrap_err().state.0, "54001");
    }
}
