//! Statements about temporary tables, in the words of PostgreSQL that SQLite does not have: `pg_temp.`, `LOCAL`, and what is
//! to happen to a table at the end of a transaction.

use super::super::lexer::{Kind, Token, tokens};
use super::table_as::name_and_as;

/// `CREATE [UNIQUE] INDEX IF NOT EXISTS temp.` is as far in as the schema can stand.
const HEAD_TOKENS: usize = 8;

/// What happens to a temporary table at the end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum OnCommit {
    DeleteRows,
    Drop,
}

/// A statement as SQLite takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Temporary {
    pub(in super::super) sql: String,
    pub(in super::super) on_commit: Option<OnCommit>,
}

/// Whether a statement says that it makes something temporary.
pub(in super::super) fn makes_temporary(statement: &str) -> bool {
    let mut words = tokens(statement).take(HEAD_TOKENS).peekable();
    if !words.next().is_some_and(|token| token.is("CREATE")) {
        return false;
    }
    let mut behind_create = true;
    while let Some(token) = words.next() {
        let is_keyword = behind_create && ["TEMP", "TEMPORARY", "LOCAL", "GLOBAL"].iter().any(|word| token.is(word));
        let qualifies = words.peek().is_some_and(|next| next.kind == Kind::Symbol('.'));
        if is_keyword || (qualifies && is_schema(&token)) {
            return true;
        }
        behind_create = false;
    }
    false
}

fn is_schema(token: &Token<'_>) -> bool {
    token.name().is_some_and(|name| ["temp", "pg_temp"].iter().any(|schema| schema.eq_ignore_ascii_case(&name)))
}

/// Whether a name, as it is written, is one in the temporary schema.
pub(in super::super) fn is_temporary_name(written: &str) -> bool {
    let mut words = tokens(written);
    words.next().is_some_and(|token| is_schema(&token)) && words.next().is_some()
}

/// A `CREATE TEMP TABLE … AS`, in SQLite's words.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct TemporaryAs<'a> {
    /// The table's name, with its quotes if it has any.
    pub(in super::super) name: &'a str,
    /// What selects its rows.
    pub(in super::super) query: &'a str,
}

impl TemporaryAs<'_> {
    /// The statement as one, if it is one. It [makes something temporary](makes_temporary).
    pub(in super::super) fn of(statement: &str) -> Option<TemporaryAs<'_>> {
        let (name, behind) = name_and_as(statement, &["TEMP", "TEMPORARY"])?;
        Some(TemporaryAs { name: name.text, query: statement.get(behind.range().end..)? })
    }
}

/// The statement in SQLite's words.
pub(in super::super) fn in_words(statement: &str) -> Temporary {
    let all: Vec<Token<'_>> = tokens(statement).collect();
    let is = |at: usize, word: &str| all.get(at).is_some_and(|token| token.is(word));
    let mut edits: Vec<(std::ops::Range<usize>, &str)> = Vec::new();
    let makes = is(0, "CREATE");
    if makes && (is(1, "LOCAL") || is(1, "GLOBAL")) {
        edits.extend(all.get(1).map(|token| (token.range(), "")));
    }
    let (mut depth, mut in_head, mut on_commit) = (0_usize, makes, None);
    for (at, token) in all.iter().enumerate() {
        match token.kind {
            Kind::Symbol('(') => depth += 1,
            Kind::Symbol(')') => depth = depth.saturating_sub(1),
            Kind::Word | Kind::Quoted
                if token.name().is_some_and(|name| name == "pg_temp")
                    && all.get(at + 1).is_some_and(|next| next.kind == Kind::Symbol('.')) =>
            {
                edits.push((token.range(), "temp"));
            }
            // The query of CREATE TABLE … AS is none of ours.
            _ if depth == 0 && token.is("AS") => in_head = false,
            _ if depth == 0 && in_head && token.is("ON") && is(at + 1, "COMMIT") => {
                let Some((what, last)) = on_commit_clause(&all, at + 2) else { continue };
                on_commit = what;
                edits.push((token.range().start..last, ""));
            }
            _ => {}
        }
    }
    let (mut sql, mut at) = (String::with_capacity(statement.len()), 0);
    for (range, text) in edits {
        sql.push_str(statement.get(at..range.start).unwrap_or_default());
        sql.push_str(text);
        at = range.end;
    }
    sql.push_str(statement.get(at..).unwrap_or_default());
    Temporary { sql, on_commit }
}

/// What stands behind `ON COMMIT`, and where it ends.
fn on_commit_clause(all: &[Token<'_>], at: usize) -> Option<(Option<OnCommit>, usize)> {
    let (first, second) = (all.get(at)?, all.get(at + 1).filter(|token| token.is("ROWS")));
    if first.is("DROP") {
        return Some((Some(OnCommit::Drop), first.range().end));
    }
    let end = second?.range().end;
    if first.is("DELETE") {
        Some((Some(OnCommit::DeleteRows), end))
    } else {
        first.is("PRESERVE").then_some((None, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_something_temporary_is_seen() {
        for sql in [
            "create temp table t (a)",
            "/* x */ CREATE TEMPORARY VIEW v AS SELECT 1",
            "CREATE LOCAL TEMP TABLE t (a)",
            "CREATE TABLE IF NOT EXISTS pg_temp.t (a)",
            "CREATE UNIQUE INDEX IF NOT EXISTS \"temp\".i ON t (a)",
        ] {
            assert!(makes_temporary(sql), "{sql}");
        }
        for sql in ["CREATE TABLE temp (a)", "CREATE TABLE t (temp)", "SELECT temp.a FROM temp", "INSERT", ""] {
            assert!(!makes_temporary(sql), "{sql}");
        }
    }

    #[test]
    fn a_table_of_rows_is_cut_where_its_query_begins() {
        for (sql, expected) in [
            ("CREATE TEMP TABLE t AS SELECT 1", Some(("t", " SELECT 1"))),
            ("create table if not exists temp . \"a b\" as values (1)", Some(("\"a b\"", " values (1)"))),
            ("CREATE TEMPORARY TABLE if AS WITH x AS (SELECT 1) SELECT", Some(("if", " WITH x AS (SELECT 1) SELECT"))),
            ("CREATE TEMP TABLE t (a AS (1))", None),
            ("CREATE TEMP VIEW v AS SELECT 1", None),
        ] {
            let expected = expected.map(|(name, query)| TemporaryAs { name, query });
            assert_eq!(TemporaryAs::of(sql), expected, "{sql}");
        }
    }

    #[test]
    fn the_words_become_sqlites() {
        for (sql, expected, on_commit) in [
            ("CREATE TEMP TABLE t (a) ON COMMIT DROP", "CREATE TEMP TABLE t (a) ", Some(OnCommit::Drop)),
            (
                "create local temp table t on commit delete rows as select 1 AS x",
                "create  temp table t  as select 1 AS x",
                Some(OnCommit::DeleteRows),
            ),
            ("CREATE TEMP TABLE t (a) ON COMMIT PRESERVE ROWS", "CREATE TEMP TABLE t (a) ", None),
            ("SELECT pg_temp.t.a FROM pg_temp.t", "SELECT temp.t.a FROM temp.t", None),
            ("CREATE TEMP TABLE t (a REFERENCES b ON DELETE CASCADE)", "", None),
            ("CREATE TEMP TABLE t AS SELECT * FROM a JOIN b ON commit", "", None),
            ("INSERT INTO t VALUES ('pg_temp.x')", "", None),
        ] {
            let expected = if expected.is_empty() { sql } else { expected };
            assert_eq!(in_words(sql), Temporary { sql: expected.to_owned(), on_commit }, "{sql}");
        }
    }
}
