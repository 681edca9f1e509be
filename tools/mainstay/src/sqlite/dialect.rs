//! What PostgreSQL's drivers and tools write and SQLite does not, where both mean the same: rewritten, token by token, before
//! SQLite compiles it. Nothing that SQLite compiles is changed, and what is not understood is left to it.
//!
//! | written | becomes |
//! |---|---|
//! | `x::int4` | `CAST(x AS int4)` |
//! | `x ILIKE 'y'` | `x LIKE 'y'`, which tells the cases of letters of ASCII no more apart than ILIKE does |
//! | `pg_catalog.version()` | `version()` |
//! | `(VALUES …) AS t (a, b)` | `(WITH t (a, b) AS (VALUES …) SELECT * FROM t) AS t` |
//! | `id SERIAL` of a table whose key is `id` | `id INTEGER`: SQLite counts it up by itself |

use std::borrow::Cow;
use std::ops::Range;

use super::lexer::{Kind, Token, tokens};

/// Longer statements are left as they are.
const STATEMENT_LIMIT_BYTES: usize = 1 << 20;

/// The statement as SQLite understands it.
pub(super) fn in_sqlites_words(sql: &str) -> Cow<'_, str> {
    let wanted = ["::", "ILIKE", "ilike", "pg_catalog.", ") AS ", ") as ", "(VALUES", "(values", "SERIAL", "serial"]
        .iter()
        .any(|mark| sql.contains(mark));
    if !wanted || sql.len() > STATEMENT_LIMIT_BYTES {
        return Cow::Borrowed(sql);
    }
    let tokens: Vec<Token<'_>> = tokens(sql).collect();
    let statement = Statement { opening: opening(&tokens), tokens };
    let mut edits = Edits::default();
    statement.casts(sql, &mut edits);
    statement.catalog_functions(&mut edits);
    statement.likes(&mut edits);
    statement.named_columns(sql, &mut edits);
    statement.serial_keys(&mut edits);
    edits.apply(sql)
}

/// Changes to a text. Of two at one place, the later one comes first.
#[derive(Default)]
struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.replace(at..at, text);
    }

    fn replace(&mut self, range: Range<usize>, text: impl Into<String>) {
        self.0.push((range, text.into()));
    }

    fn apply(mut self, sql: &str) -> Cow<'_, str> {
        if self.0.is_empty() {
            return Cow::Borrowed(sql);
        }
        self.0.reverse();
        // Stable. What is put in at a place stands before what is replaced from there on.
        self.0.sort_by_key(|(range, _)| (range.start, range.end != range.start));
        let (mut out, mut at) = (String::with_capacity(sql.len() * 2), 0);
        for (range, text) in &self.0 {
            out.push_str(sql.get(at..range.start).unwrap_or_default());
            out.push_str(text);
            at = at.max(range.end);
        }
        out.push_str(sql.get(at..).unwrap_or_default());
        Cow::Owned(out)
    }
}

struct Statement<'a> {
    tokens: Vec<Token<'a>>,
    /// For each `)`, where its `(` is.
    opening: Vec<Option<usize>>,
}

fn opening(tokens: &[Token<'_>]) -> Vec<Option<usize>> {
    let mut open = Vec::new();
    let match_of = |(at, token): (usize, &Token<'_>)| match token.kind {
        Kind::Symbol('(') => {
            open.push(at);
            None
        }
        Kind::Symbol(')') => open.pop(),
        _ => None,
    };
    tokens.iter().enumerate().map(match_of).collect()
}

/// Words that stand before a parenthesis and call nothing.
const NO_FUNCTIONS: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "BETWEEN",
    "BY",
    "CASE",
    "DISTINCT",
    "ELSE",
    "EXCEPT",
    "EXISTS",
    "FROM",
    "HAVING",
    "IN",
    "INTERSECT",
    "IS",
    "JOIN",
    "LIKE",
    "LIMIT",
    "NOT",
    "OFFSET",
    "ON",
    "OR",
    "OVER",
    "RETURNING",
    "SELECT",
    "SET",
    "THEN",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
];

impl<'a> Statement<'a> {
    fn get(&self, at: usize) -> Option<&Token<'a>> {
        self.tokens.get(at)
    }

    fn symbol(&self, at: usize, symbol: char) -> bool {
        self.get(at).is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    fn is_name(&self, at: usize) -> bool {
        self.get(at).is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted))
    }

    fn adjacent(&self, one: usize, other: usize) -> bool {
        self.get(one).zip(self.get(other)).is_some_and(|(one, other)| one.range().end == other.range().start)
    }

    fn casts(&self, sql: &str, edits: &mut Edits) {
        // Where the last cast ended, and its operand began.
        let mut last = None;
        for at in 1..self.tokens.len() {
            if !(self.symbol(at, ':') && self.symbol(at + 1, ':') && self.adjacent(at, at + 1)) {
                continue;
            }
            let start =
                last.filter(|(end, _)| *end == at).map_or_else(|| self.operand(at - 1), |(_, start)| Some(start));
            let Some((start, (target, end))) = start.zip(self.type_name(at + 2)) else { continue };
            let (Some(first), Some(behind)) = (self.get(start), self.get(end - 1)) else { continue };
            let operand = sql.get(first.range().start..self.get(at).map_or(0, |token| token.range().start));
            let is_parameter = operand.is_some_and(|operand| operand.trim_start().starts_with(['$', '?']));
            let (before, after) = target.around(is_parameter && last.is_none_or(|(end, _)| end != at));
            edits.insert(first.range().start, before);
            edits.replace(self.get(at).map_or(0, |token| token.range().start)..behind.range().end, after);
            last = Some((end, start));
        }
    }

    /// Where the operand begins whose last token is there.
    fn operand(&self, end: usize) -> Option<usize> {
        let token = self.get(end)?;
        match token.kind {
            Kind::Symbol(')') => {
                let open = (*self.opening.get(end)?)?;
                let called = open.checked_sub(1).filter(|before| {
                    let word = self.get(*before).filter(|word| word.kind == Kind::Word);
                    word.is_some_and(|word| !NO_FUNCTIONS.iter().any(|known| word.is(known)))
                });
                Some(called.map_or(open, |name| self.qualified(name)))
            }
            Kind::Word if token.is("END") => {
                let mut depth = 0_usize;
                (0..=end).rev().find(|at| {
                    let Some(token) = self.get(*at) else { return false };
                    depth += usize::from(token.is("END"));
                    depth = depth.saturating_sub(usize::from(token.is("CASE")));
                    depth == 0
                })
            }
            Kind::Word if NO_FUNCTIONS.iter().any(|known| token.is(known)) => None,
            Kind::Word | Kind::Quoted => Some(self.qualified(end)),
            // x'00', ?1
            Kind::Text | Kind::Number => Some(match end.checked_sub(1) {
                Some(before) if self.adjacent(before, end) && (self.symbol(before, '?') || self.is_name(before)) => {
                    before
                }
                _ => end,
            }),
            Kind::Symbol('?') => Some(end),
            Kind::Symbol(_) => None,
        }
    }

    /// Where a name with what qualifies it begins.
    fn qualified(&self, mut at: usize) -> usize {
        while at >= 2 && self.symbol(at - 1, '.') && self.is_name(at - 2) {
            at -= 2;
        }
        at
    }

    /// The type that is named there, and where the name ends.
    fn type_name(&self, mut at: usize) -> Option<(Target, usize)> {
        if self.get(at)?.is("pg_catalog") && self.symbol(at + 1, '.') {
            at += 2;
        }
        let mut name = self.get(at)?.name()?;
        at += 1;
        for second in ["precision", "varying"] {
            if self.get(at).is_some_and(|token| token.is(second)) {
                name = format!("{name} {second}");
                at += 1;
            }
        }
        let mut arguments = Vec::new();
        if self.symbol(at, '(') {
            at += 1;
            while !self.symbol(at, ')') {
                let token = self.get(at)?;
                match token.kind {
                    Kind::Number => arguments.push(token.text.parse().ok()?),
                    Kind::Symbol(',') => {}
                    _ => return None,
                }
                at += 1;
            }
            at += 1;
        }
        let zone = self.get(at).is_some_and(|token| token.is("WITH") || token.is("WITHOUT"));
        if zone && self.get(at + 1)?.is("TIME") && self.get(at + 2)?.is("ZONE") {
            at += 3;
        }
        // An array: to SQLite, the brackets are those of a name.
        if self.get(at).is_some_and(|token| token.text.starts_with('[')) {
            return None;
        }
        Some((Target::of(&name, &arguments)?, at))
    }

    /// Functions called with the name of their schema.
    fn catalog_functions(&self, edits: &mut Edits) {
        for (at, token) in self.tokens.iter().enumerate() {
            let calls = token.is("pg_catalog") && self.symbol(at + 1, '.') && self.symbol(at + 3, '(');
            if let Some(function) = self.get(at + 2).filter(|name| calls && name.kind == Kind::Word) {
                edits.replace(token.range().start..function.range().start, "");
            }
        }
    }

    /// ILIKE between two operands; it may be a name too.
    fn likes(&self, edits: &mut Edits) {
        for (at, token) in self.tokens.iter().enumerate().filter(|(_, token)| token.is("ILIKE")) {
            let before = at.checked_sub(1).and_then(|before| self.get(before));
            let operand = before.is_some_and(|before| !matches!(before.kind, Kind::Symbol(symbol) if symbol != ')'));
            let pattern = self.get(at + 1).is_some_and(|next| match next.kind {
                Kind::Text | Kind::Symbol('?' | '(') => true,
                Kind::Word if NO_FUNCTIONS.iter().any(|known| next.is(known)) => false,
                Kind::Word => next.text.starts_with('$') || self.symbol(at + 2, '(') || self.symbol(at + 2, '.'),
                _ => false,
            });
            if operand && pattern {
                edits.replace(token.range(), "LIKE");
            }
        }
    }

    /// Names for the columns of a query in FROM.
    fn named_columns(&self, sql: &str, edits: &mut Edits) {
        for close in 0..self.tokens.len() {
            let Some(Some(open)) = self.opening.get(close).copied() else { continue };
            let name = close + 1 + usize::from(self.get(close + 1).is_some_and(|token| token.is("AS")));
            let is_word = self.get(name).is_some_and(|token| NO_FUNCTIONS.iter().any(|word| token.is(word)));
            let queries = ["VALUES", "SELECT", "WITH"];
            let in_from = open
                .checked_sub(1)
                .and_then(|before| self.get(before))
                .is_some_and(|before| before.is("FROM") || before.is("JOIN") || before.kind == Kind::Symbol(','));
            let is_query = self.get(open + 1).is_some_and(|first| queries.iter().any(|query| first.is(query)));
            if !(in_from && is_query && !is_word && self.is_name(name) && self.symbol(name + 1, '(')) {
                continue;
            }
            let Some(end) = (name + 2..self.tokens.len()).find(|at| !self.is_name(*at) && !self.symbol(*at, ','))
            else {
                continue;
            };
            let (Some(first), Some(last), Some(alias), Some(list)) =
                (self.get(open), self.get(close), self.get(name), self.get(name + 1))
            else {
                continue;
            };
            let Some(behind) = self.get(end).filter(|_| self.symbol(end, ')')) else { continue };
            let columns = list.range().start..behind.range().end;
            let names = sql.get(columns.clone()).unwrap_or_default();
            edits.insert(first.range().start, format!("(WITH {} {names} AS ", alias.text));
            edits.insert(last.range().end, format!(" SELECT * FROM {})", alias.text));
            edits.replace(columns, "");
        }
    }

    fn serial_keys(&self, edits: &mut Edits) {
        let makes = ["TABLE", "TEMP", "TEMPORARY"];
        let is = |at: usize, words: &[&str]| self.get(at).is_some_and(|token| words.iter().any(|word| token.is(word)));
        if !(is(0, &["CREATE"]) && is(1, &makes)) {
            return;
        }
        let Some(open) = (0..self.tokens.len()).find(|at| self.symbol(*at, '(')) else { return };
        let mut depth = 0_usize;
        let (mut column, mut begins) = (open + 1, false);
        let (mut serial, mut keys): (Vec<(usize, usize)>, Vec<usize>) = (Vec::new(), Vec::new());
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.kind {
                Kind::Symbol('(') => {
                    depth += 1;
                    begins = depth == 1;
                    continue;
                }
                Kind::Symbol(')') => depth = depth.saturating_sub(1),
                Kind::Symbol(',') if depth == 1 => {
                    begins = true;
                    continue;
                }
                _ if depth == 1 && token.is("PRIMARY") => {
                    // A constraint with a list of one, or behind its column.
                    let listed = self.symbol(at + 2, '(') && self.symbol(at + 4, ')');
                    keys.push(if listed { at + 3 } else { column });
                }
                _ if depth == 1 && begins => column = at,
                _ if depth == 1 && at == column + 1 && is_serial(token) => serial.push((column, at)),
                _ => {}
            }
            begins = false;
        }
        let [key] = keys[..] else { return };
        let name = |at: usize| self.get(at).and_then(Token::name);
        for (column, pg_type) in serial {
            if name(column).is_some() && name(column) == name(key) {
                edits.replace(self.get(pg_type).map_or(0..0, Token::range), "INTEGER");
            }
        }
    }
}

fn is_serial(token: &Token<'_>) -> bool {
    ["SERIAL", "BIGSERIAL", "SMALLSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"].iter().any(|name| token.is(name))
}

/// What a cast makes of its operand.
enum Target {
    /// SQLite's CAST to a type of this name.
    Cast(&'static str),
    Boolean,
    /// So many characters at most.
    Characters(u32),
    /// So many digits behind the point.
    Digits(u32),
}

impl Target {
    /// `None` for a type that has no counterpart.
    fn of(name: &str, arguments: &[u32]) -> Option<Target> {
        Some(match (name, arguments) {
            ("smallint" | "int2", []) => Target::Cast("int2"),
            ("int" | "integer" | "int4", []) => Target::Cast("int4"),
            ("bigint" | "int8", []) => Target::Cast("int8"),
            ("real" | "float4", []) => Target::Cast("float4"),
            ("float" | "float8" | "double precision", []) => Target::Cast("float8"),
            ("numeric" | "decimal", []) => Target::Cast("numeric"),
            ("numeric" | "decimal", [_]) => Target::Digits(0),
            ("numeric" | "decimal", [_, digits]) => Target::Digits(*digits),
            ("bool" | "boolean", []) => Target::Boolean,
            ("varchar" | "character varying", []) => Target::Cast("varchar"),
            ("varchar" | "character varying", [length]) => Target::Characters(*length),
            ("bytea", []) => Target::Cast("blob"),
            ("text" | "name" | "bpchar" | "uuid" | "json" | "jsonb" | "date", []) => Target::Cast("text"),
            ("time" | "timetz" | "timestamp" | "timestamptz", [] | [_]) => Target::Cast("text"),
            _ => return None,
        })
    }

    /// What stands before and behind the operand.
    fn around(&self, is_parameter: bool) -> (String, String) {
        match self {
            Target::Cast(name) => ("CAST(".to_owned(), format!(" AS {name})")),
            // The client's own truth arrives as a number.
            Target::Boolean if is_parameter => ("CAST(".to_owned(), " AS boolean)".to_owned()),
            Target::Boolean => {
                let after = " AS text)) NOT IN ('0', 'f', 'false', 'n', 'no', 'off'))";
                ("(lower(CAST(".to_owned(), after.to_owned())
            }
            Target::Characters(length) => ("substr(CAST(".to_owned(), format!(" AS text), 1, {length})")),
            Target::Digits(digits) => ("round(CAST(".to_owned(), format!(" AS numeric), {digits})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn what_postgresql_writes_becomes_what_sqlite_compiles() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (a INT, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, '12')").unwrap();
        for (sql, written, value) in [
            ("SELECT '5'::int4 + 1", "SELECT CAST('5' AS int4) + 1", "Integer(6)"),
            ("SELECT $1::INTEGER, 7", "SELECT CAST($1 AS int4), 7", "Null"),
            ("SELECT '1'::text::int8::text", "SELECT CAST(CAST(CAST('1' AS text) AS int8) AS text)", "Text(\"1\")"),
            (
                "SELECT t.b::int FROM t WHERE a::text = '2'",
                "SELECT CAST(t.b AS int4) FROM t WHERE CAST(a AS text) = '2'",
                "Integer(12)",
            ),
            ("SELECT max(a)::double precision FROM t", "SELECT CAST(max(a) AS float8) FROM t", "Real(2.0)"),
            (
                "SELECT (a > 1)::bool FROM t",
                "SELECT (lower(CAST((a > 1) AS text)) NOT IN ('0', 'f', 'false', 'n', 'no', 'off')) FROM t",
                "Integer(0)",
            ),
            (
                "SELECT 'f'::boolean",
                "SELECT (lower(CAST('f' AS text)) NOT IN ('0', 'f', 'false', 'n', 'no', 'off'))",
                "Integer(0)",
            ),
            ("SELECT $1::boolean", "SELECT CAST($1 AS boolean)", "Null"),
            ("SELECT 'größer'::varchar(3)", "SELECT substr(CAST('größer' AS text), 1, 3)", "Text(\"grö\")"),
            ("SELECT '2.345'::numeric(10, 2)", "SELECT round(CAST('2.345' AS numeric), 2)", "Real(2.35)"),
            (
                "SELECT '2026-01-02'::timestamp(3) without time zone",
                "SELECT CAST('2026-01-02' AS text)",
                "Text(\"2026-01-02\")",
            ),
            (
                "SELECT CASE WHEN 1 THEN CASE WHEN 1 THEN 2 END END::text",
                "SELECT CAST(CASE WHEN 1 THEN CASE WHEN 1 THEN 2 END END AS text)",
                "Text(\"2\")",
            ),
            ("SELECT pg_catalog.abs(-3)", "SELECT abs(-3)", "Integer(3)"),
            ("SELECT x'4142'::pg_catalog.text", "SELECT CAST(x'4142' AS text)", "Text(\"AB\")"),
            ("SELECT 'Ab' NOT ILIKE 'aB'", "SELECT 'Ab' NOT LIKE 'aB'", "Integer(0)"),
            ("SELECT b ilike $1::VARCHAR FROM t", "SELECT b LIKE CAST($1 AS varchar) FROM t", "Null"),
            (
                "SELECT y::int4 FROM (VALUES ('1', 2), ('3', 4)) AS v(x, y) ORDER BY x DESC",
                "SELECT CAST(y AS int4) FROM (WITH v (x, y) AS (VALUES ('1', 2), ('3', 4)) SELECT * FROM v) AS v ORDER BY x DESC",
                "Integer(4)",
            ),
            (
                "SELECT s.b FROM (VALUES (1, 2)) s(a,b)",
                "SELECT s.b FROM (WITH s (a,b) AS (VALUES (1, 2)) SELECT * FROM s) s",
                "Integer(2)",
            ),
        ] {
            assert_eq!(in_sqlites_words(sql), written, "{sql}");
            let mut statement = connection.prepare(written).unwrap();
            let mut rows = statement.raw_query();
            let found =
                rows.next().unwrap().map(|row| format!("{:?}", row.get::<_, rusqlite::types::Value>(0).unwrap()));
            assert_eq!(found.unwrap_or_default(), value, "{sql}");
        }
    }

    #[test]
    fn keys_that_count_are_sqlites_own() {
        for (sql, written) in [
            (
                "CREATE TABLE t (id SERIAL NOT NULL, a TEXT, PRIMARY KEY (id))",
                "CREATE TABLE t (id INTEGER NOT NULL, a TEXT, PRIMARY KEY (id))",
            ),
            (
                "create table t (a decimal(5, 2), \"Id\" bigserial primary key)",
                "create table t (a decimal(5, 2), \"Id\" INTEGER primary key)",
            ),
            (
                "CREATE TABLE t (id SERIAL, b INT, CONSTRAINT c PRIMARY KEY (id, b))",
                "CREATE TABLE t (id SERIAL, b INT, CONSTRAINT c PRIMARY KEY (id, b))",
            ),
            ("CREATE TABLE t (id INT PRIMARY KEY, b SERIAL)", "CREATE TABLE t (id INT PRIMARY KEY, b SERIAL)"),
        ] {
            assert_eq!(in_sqlites_words(sql), written, "{sql}");
        }
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        for sql in [
            "SELECT '::int4', \"a::b\", [c::d] /* x::int */ -- y::int",
            "SELECT 'x'::regclass",
            "SELECT '{}'::int[]",
            "SELECT ::int",
            "SELECT a ilike, 'x' AS ilike FROM t ilike WHERE (ilike.a)",
            "SELECT a::",
            "SELECT (a::int",
            "SELECT a : : int",
            "SELECT * FROM pg_catalog.pg_class",
            "SELECT count(*) AS n FROM t",
            "SELECT * FROM (SELECT 1) AS x WHERE (a) AS y (b)",
            "SELECT * FROM (VALUES (1)) WHERE (column1)",
            "SELECT * FROM (VALUES (1)) JOIN (VALUES (1)) USING (column1)",
            "INSERT INTO t (a) SELECT 1) AS x (",
        ] {
            assert_eq!(in_sqlites_words(sql), if sql == "SELECT (a::int" { "SELECT (CAST(a AS int4)" } else { sql });
        }
        let whole = "SELECT pg_catalog.f(x::varchar(3)), END::int FROM (VALUES (1)) AS v (a, b)::text";
        for end in 0..=whole.len() {
            in_sqlites_words(&whole[..end]);
            in_sqlites_words(&whole[end..]);
        }
    }
}
