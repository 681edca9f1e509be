//! `CREATE TABLE … AS`, cut where its query begins.

use super::super::lexer::{Kind, Token, tokens};

/// A `CREATE TABLE … AS`.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct TableAs<'a> {
    /// The table's name alone.
    pub(in super::super) name: String,
    /// The same, with its quotes if it has any.
    pub(in super::super) name_as_written: &'a str,
    /// From `AS` on.
    pub(in super::super) rest: &'a str,
}

impl TableAs<'_> {
    /// The statement as one, if it is one. SQLite has compiled it before.
    pub(in super::super) fn of(statement: &str) -> Option<TableAs<'_>> {
        let (name, query) = name_and_as(statement, &[])?;
        Some(TableAs {
            // Not folded: SQLite keeps names as they are written.
            name: if name.kind == Kind::Word { name.text.to_owned() } else { name.name()? },
            name_as_written: name.text,
            rest: statement.get(query.range().start..)?,
        })
    }
}

/// The table's name and the `AS` of a `CREATE [kind] TABLE … AS`.
pub(super) fn name_and_as<'a>(statement: &'a str, kinds: &[&str]) -> Option<(Token<'a>, Token<'a>)> {
    let mut words = tokens(statement).peekable();
    words.next_if(|token| token.is("CREATE"))?;
    words.next_if(|token| kinds.iter().any(|kind| token.is(kind)));
    words.next_if(|token| token.is("TABLE"))?;
    let mut name = words.next()?;
    if name.is("IF") && words.next_if(|token| token.is("NOT")).is_some() {
        words.next_if(|token| token.is("EXISTS"))?;
        name = words.next()?;
    }
    if words.next_if(|token| token.kind == Kind::Symbol('.')).is_some() {
        name = words.next()?;
    }
    Some((name, words.next_if(|token| token.is("AS"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_begins_behind_the_name() {
        for (sql, name, name_as_written, rest) in [
            ("create table T as select 1", "T", "T", "as select 1"),
            (
                "CREATE TABLE IF NOT EXISTS main . \"a \"\"b\" AS/**/ WITH x AS (VALUES (1)) SELECT * FROM x",
                "a \"b",
                "\"a \"\"b\"",
                "AS/**/ WITH x AS (VALUES (1)) SELECT * FROM x",
            ),
            ("CREATE TABLE if AS SELECT 2", "if", "if", "AS SELECT 2"),
            ("CREATE /* AS */ TABLE [as] AS SELECT ';'", "as", "[as]", "AS SELECT ';'"),
        ] {
            let name = name.to_owned();
            assert_eq!(TableAs::of(sql), Some(TableAs { name, name_as_written, rest }), "{sql}");
        }
        for sql in ["CREATE TABLE t (a AS (1))", "CREATE VIEW v AS SELECT 1", "CREATE INDEX i ON t (a)", "CREATE TABLE"]
        {
            assert_eq!(TableAs::of(sql), None, "{sql}");
        }
    }
}
