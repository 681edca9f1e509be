//! What PostgreSQL's drivers and tools write and SQLite does not, where both mean the same: rewritten, token by token, before
//! SQLite compiles it. What SQLite compiles and gives a meaning is not changed, and what is not understood is left to it.
//!
//! | written | becomes |
//! |---|---|
//! | `x::int4`, `x::date` | `CAST(int4_in(x) AS int4)`, `date_in(x)`: see [`casts`] |
//! | `CAST(x AS date)`, which is a number to SQLite | likewise |
//! | `now()` | `CURRENT_TIMESTAMP`: see [`clock`] |
//! | `DEFAULT gen_random_uuid()` | `DEFAULT (gen_random_uuid())` |
//! | `x ILIKE 'y'` | `x LIKE 'y'`, which tells the cases of letters of ASCII no more apart than ILIKE does |
//! | `pg_catalog.version()` | `version()` |
//! | `(VALUES …) AS t (a, b)` | `(WITH t (a, b) AS (VALUES …) SELECT * FROM t) AS t` |
//! | `id SERIAL` of a table whose key is `id` | `id INTEGER`: SQLite counts it up by itself |

use std::borrow::Cow;
use std::ops::Range;

use super::lexer::{Kind, Token, tokens};

mod casts;
mod clock;
mod tables;

pub(super) use clock::{names_user, unfit_default, with_user};
pub(super) use tables::has_idle_serial;

/// Longer statements are left as they are.
const STATEMENT_LIMIT_BYTES: usize = 1 << 20;

/// Words without which, and without `::` and names of columns behind a query, nothing is rewritten.
const WORDS: &[&str] = &[
    "BIGSERIAL",
    "CAST",
    "DEFAULT",
    "ILIKE",
    "LOCALTIMESTAMP",
    "NOW",
    "PG_CATALOG",
    "SERIAL",
    "SMALLSERIAL",
    "STATEMENT_TIMESTAMP",
    "TRANSACTION_TIMESTAMP",
];

/// The statement as SQLite understands it.
pub(super) fn in_sqlites_words(sql: &str) -> Cow<'_, str> {
    if sql.len() > STATEMENT_LIMIT_BYTES || !may_be_rewritten(sql) {
        return Cow::Borrowed(sql);
    }
    let statement = Statement::new(sql);
    let mut edits = Edits::default();
    statement.casts(sql, &mut edits);
    statement.strange_casts(&mut edits);
    statement.clock(&mut edits);
    statement.defaults(&mut edits);
    statement.catalog_functions(&mut edits);
    statement.likes(&mut edits);
    statement.named_columns(sql, &mut edits);
    statement.serial_keys(&mut edits);
    edits.apply(sql)
}

/// A first look, so that other statements pay little: one pass over the bytes.
fn may_be_rewritten(sql: &str) -> bool {
    let bytes = sql.as_bytes();
    let mut in_word = false;
    for (at, byte) in bytes.iter().enumerate() {
        let rest = bytes.get(at..).unwrap_or_default();
        let begins = !in_word;
        in_word = byte.is_ascii_alphanumeric() || *byte == b'_';
        let found = match byte {
            b':' => rest.starts_with(b"::"),
            b')' => names_columns(rest.get(1..).unwrap_or_default()),
            _ => begins && in_word && WORDS.iter().any(|word| begins_with(rest, word)),
        };
        if found {
            return true;
        }
    }
    false
}

fn begins_with(text: &[u8], word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a name, with or without AS, and a list in parentheses may follow.
fn names_columns(behind: &[u8]) -> bool {
    let mut rest = behind.trim_ascii_start();
    if begins_with(rest, "AS ") {
        rest = rest.get(3..).unwrap_or_default().trim_ascii_start();
    }
    let name = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'"')).count();
    name > 0 && rest.get(name..).unwrap_or_default().trim_ascii_start().starts_with(b"(")
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
    /// For each `(`, where its `)` is.
    closing: Vec<Option<usize>>,
}

impl<'a> Statement<'a> {
    fn new(sql: &'a str) -> Statement<'a> {
        let tokens: Vec<Token<'a>> = tokens(sql).collect();
        let opening = opening(&tokens);
        let mut closing = vec![None; tokens.len()];
        for (close, open) in opening.iter().enumerate() {
            if let Some(place) = open.and_then(|open| closing.get_mut(open)) {
                *place = Some(close);
            }
        }
        Statement { tokens, opening, closing }
    }

    /// Whether the token there is one of these words.
    fn is(&self, at: usize, words: &[&str]) -> bool {
        self.get(at).is_some_and(|token| words.iter().any(|word| token.is(word)))
    }

    /// Where the parenthesis is closed that is opened there.
    fn closing(&self, open: usize) -> Option<usize> {
        self.closing.get(open).copied().flatten()
    }
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
}

#[cfg(test)]
#[path = "dialect_test.rs"]
mod tests;
