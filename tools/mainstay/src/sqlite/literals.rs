//! INSERTs that differ in their literals only, as one with parameters, so that SQLite compiles it once.
//!
//! Clients that send values as text, as `psql`, `pgbench` and many programs do, write another statement for each row; SQLite
//! takes longer to compile it than to run it. In `INSERT INTO t (a, b) VALUES (1, 'x')` a parameter stands as well as the
//! literal: neither has an affinity, and nothing is planned by its value. That is not so in other places (a partial index
//! is used if a literal says so), and where anything but literals stands in the rows the statement is left as it is.
//!
//! Of numbers only integers are taken: SQLite's reading of others is its own.

use std::sync::Arc;

use mainstay::server::pg::OwnedValue;

use super::lexer::{Kind, Token, Tokens, tokens};

/// A statement with more is compiled once for many rows anyway.
const LITERALS_LIMIT: usize = 64;

/// A statement with parameters, and their values.
#[derive(Debug, PartialEq)]
pub(super) struct Lifted {
    pub(super) sql: String,
    pub(super) parameters: Arc<Vec<OwnedValue>>,
}

/// The statement with parameters for its literals; `None` if it is to be left as it is.
pub(super) fn lifted(sql: &str) -> Option<Lifted> {
    let mut tokens = tokens(sql);
    into_values(&mut tokens)?;
    let mut lifting = Lifting { sql, text: String::with_capacity(sql.len()), copied: 0, values: Vec::new() };
    loop {
        lifting.row(&mut tokens)?;
        match tokens.next() {
            None => break,
            Some(token) => token.is_symbol(',').then_some(())?,
        }
    }
    lifting.text.push_str(sql.get(lifting.copied..)?);
    (!lifting.values.is_empty()).then(|| Lifted { sql: lifting.text, parameters: Arc::new(lifting.values) })
}

/// Past `INSERT INTO t (a, b) VALUES`.
fn into_values(tokens: &mut Tokens<'_>) -> Option<()> {
    let first = tokens.next()?;
    let mut next = tokens.next()?;
    if first.is("INSERT") && next.is("OR") {
        (tokens.next()?.kind == Kind::Word).then_some(())?;
        next = tokens.next()?;
    }
    ((first.is("INSERT") || first.is("REPLACE")) && next.is("INTO")).then_some(())?;
    is_name(&tokens.next()?).then_some(())?;
    next = tokens.next()?;
    if next.is_symbol('.') {
        is_name(&tokens.next()?).then_some(())?;
        next = tokens.next()?;
    }
    if next.is_symbol('(') {
        loop {
            is_name(&tokens.next()?).then_some(())?;
            next = tokens.next()?;
            if next.is_symbol(')') {
                break;
            }
            next.is_symbol(',').then_some(())?;
        }
        next = tokens.next()?;
    }
    next.is("VALUES").then_some(())
}

fn is_name(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Word | Kind::Quoted)
}

/// A statement on its way.
struct Lifting<'a> {
    sql: &'a str,
    text: String,
    /// So much of the statement is in the text.
    copied: usize,
    values: Vec<OwnedValue>,
}

impl<'a> Lifting<'a> {
    /// `(1, -2, 'x', NULL)`
    fn row(&mut self, tokens: &mut Tokens<'a>) -> Option<()> {
        tokens.next()?.is_symbol('(').then_some(())?;
        loop {
            let token = tokens.next()?;
            if !token.is("NULL") {
                self.value(token, tokens)?;
            }
            let next = tokens.next()?;
            if next.is_symbol(')') {
                return Some(());
            }
            next.is_symbol(',').then_some(())?;
        }
    }

    fn value(&mut self, token: Token<'a>, tokens: &mut Tokens<'a>) -> Option<()> {
        let (value, end) = match token.kind {
            Kind::Text => {
                // One that never closes is SQLite's to refuse.
                (token.text.len() > 1 && token.text.ends_with('\'')).then_some(())?;
                (OwnedValue::Text(token.name()?), token.range().end)
            }
            Kind::Number => (OwnedValue::Integer(token.text.parse().ok()?), token.range().end),
            Kind::Symbol('-') => {
                let number = tokens.next().filter(|number| number.kind == Kind::Number)?;
                (OwnedValue::Integer(format!("-{}", number.text).parse().ok()?), number.range().end)
            }
            Kind::Word | Kind::Quoted | Kind::Symbol(_) => return None,
        };
        (self.values.len() < LITERALS_LIMIT).then_some(())?;
        self.values.push(value);
        self.text.push_str(self.sql.get(self.copied..token.range().start)?);
        self.text.push_str(&format!("${}", self.values.len()));
        self.copied = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::Connection;
    use rusqlite::types::Value;

    use super::*;
    use crate::sqlite::values;

    fn integer(value: i64) -> OwnedValue {
        OwnedValue::Integer(value)
    }

    fn text(value: &str) -> OwnedValue {
        OwnedValue::Text(value.to_owned())
    }

    #[test]
    fn literals_become_parameters() {
        for (sql, expected, parameters) in [
            ("INSERT INTO t VALUES ('a', 1)", "INSERT INTO t VALUES ($1, $2)", vec![text("a"), integer(1)]),
            (
                "insert or ignore into main.\"T\" (a, [b]) /* x */ values('it''s',NULL) , (- 7,'')",
                "insert or ignore into main.\"T\" (a, [b]) /* x */ values($1,NULL) , ($2,$3)",
                vec![text("it's"), integer(-7), text("")],
            ),
            ("REPLACE INTO t VALUES (-9223372036854775808)", "REPLACE INTO t VALUES ($1)", vec![integer(i64::MIN)]),
        ] {
            let expected = Lifted { sql: expected.to_owned(), parameters: Arc::new(parameters) };
            assert_eq!(lifted(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn what_is_more_than_literals_is_left_as_it_is() {
        let many = format!("INSERT INTO t VALUES {}(1)", "(1),".repeat(LITERALS_LIMIT));
        for sql in [
            "INSERT INTO t VALUES (1.0)",
            "INSERT INTO t VALUES (9223372036854775808)",
            "INSERT INTO t VALUES (0x10)",
            "INSERT INTO t VALUES (1_0)",
            "INSERT INTO t VALUES (x'00')",
            "INSERT INTO t VALUES (+1)",
            "INSERT INTO t VALUES (1 + 1)",
            "INSERT INTO t VALUES ('a' || 'b')",
            "INSERT INTO t VALUES ('a' COLLATE nocase)",
            "INSERT INTO t VALUES (random())",
            "INSERT INTO t VALUES ($1, 2)",
            "INSERT INTO t VALUES (\"a\")",
            "INSERT INTO t VALUES ('open",
            "INSERT INTO t VALUES ('",
            "INSERT INTO t VALUES (1",
            "INSERT INTO t VALUES (1),",
            "INSERT INTO t VALUES ()",
            "INSERT INTO t VALUES (NULL)",
            "INSERT INTO t VALUES (1) RETURNING a",
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "INSERT INTO t SELECT 1",
            "INSERT INTO t DEFAULT VALUES",
            "INSERT INTO t AS u VALUES (1)",
            "INSERT t VALUES (1)",
            "EXPLAIN INSERT INTO t VALUES (1)",
            "WITH a AS (SELECT 1) INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "VALUES (1)",
            "",
            &many,
        ] {
            assert_eq!(lifted(sql), None, "{sql}");
        }
    }

    fn literal() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~äß☃]{0,6}".prop_map(|text| format!("'{}'", text.replace('\'', "''"))),
            any::<i64>().prop_map(|number| number.to_string()),
            (-10_i64..10).prop_map(|number| number.to_string()),
            "[0-9]{1,3}\\.?[0-9]{0,2}(e[0-9])?".prop_map(|number| format!("'{number}'")),
            Just("NULL".to_owned()),
        ]
    }

    proptest! {
        /// In columns of each affinity, with a key, checks and STRICT.
        #[test]
        fn what_is_stored_is_the_same(rows in prop::collection::vec([literal(), literal(), literal(), literal(), literal()], 1..4)) {
            let schema = "CREATE TABLE t (a INTEGER, b TEXT, c REAL, d NUMERIC CHECK (typeof(d) <> 'real'), e BLOB UNIQUE);
                          CREATE TABLE s (a INTEGER PRIMARY KEY, b TEXT, c REAL, d ANY, e TEXT) STRICT;";
            let contents = |lift: bool| {
                let connection = Connection::open_in_memory().unwrap();
                connection.execute_batch(schema).unwrap();
                let mut outcomes = Vec::new();
                for table in ["t", "s"] {
                    for row in &rows {
                        let sql = format!("INSERT INTO {table} VALUES ({})", row.join(", "));
                        let outcome = match lifted(&sql).filter(|_| lift) {
                            Some(Lifted { sql, parameters }) => {
                                let mut statement = connection.prepare(&sql).unwrap();
                                values::bind(&mut statement, &sql, &parameters).unwrap();
                                statement.raw_execute()
                            }
                            None => connection.execute(&sql, []),
                        };
                        outcomes.push(outcome.map_err(|error| error.to_string()));
                    }
                }
                let mut stored: Vec<[Value; 5]> = Vec::new();
                for table in ["t", "s"] {
                    let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY rowid")).unwrap();
                    let all = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]));
                    stored.extend(all.unwrap().map(Result::unwrap));
                }
                (outcomes, stored)
            };
            prop_assert_eq!(contents(true), contents(false));
        }
    }
}
