//! The time and the user, which PostgreSQL has functions and words for.
//!
//! `now()` is SQLite's `CURRENT_TIMESTAMP`, the same throughout a statement and exact to the second. A query of neither tables
//! nor changes stays as it is: [`super::super::catalog`] answers it, exact to the microsecond.

use super::super::lexer::tokens;
use super::{Edits, Statement, begins_with};

/// Functions without arguments that tell the time at which something began.
const CLOCKS: &[&str] = &["NOW", "STATEMENT_TIMESTAMP", "TRANSACTION_TIMESTAMP"];
/// Words that stand for whom a session belongs to.
const USERS: &[&str] = &["CURRENT_ROLE", "CURRENT_USER", "SESSION_USER"];
/// What statements begin with that ask for rows or change them.
const OF_ROWS: &[&str] = &["SELECT", "VALUES", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE", "EXPLAIN"];

impl Statement<'_> {
    pub(super) fn clock(&self, edits: &mut Edits) {
        if self.names_no_table() {
            return;
        }
        let is_schema = self.is(0, &["CREATE", "ALTER"]);
        for (at, token) in self.tokens.iter().enumerate() {
            let alone = !self.symbol(at + 1, '.') && !self.symbol(at + 1, '(') && at > 0 && !self.symbol(at - 1, '.');
            let is_default = at > 0 && self.is(at - 1, &["DEFAULT"]);
            if self.calls(at, CLOCKS) {
                let end = self.get(at + 2).map_or(token.range().end, |close| close.range().end);
                edits.replace(token.range().start..end, "CURRENT_TIMESTAMP");
            } else if token.is("LOCALTIMESTAMP") && alone && (is_default || !is_schema) {
                edits.replace(token.range(), "CURRENT_TIMESTAMP");
            }
        }
    }

    /// Whether a function of one of these names is called there without arguments.
    fn calls(&self, at: usize, names: &[&str]) -> bool {
        let qualified = at > 0 && self.symbol(at - 1, '.') && !self.is(at.saturating_sub(2), &["pg_catalog"]);
        self.is(at, names) && self.symbol(at + 1, '(') && self.symbol(at + 2, ')') && !qualified
    }

    /// Whether it is a query without tables.
    fn names_no_table(&self) -> bool {
        let others = ["FROM", "INTO", "UPDATE", "DELETE"];
        self.is(0, &["SELECT", "VALUES", "WITH"]) && !(0..self.tokens.len()).any(|at| self.is(at, &others))
    }

    /// Defaults that are calls or casts, which SQLite wants in parentheses.
    pub(super) fn defaults(&self, edits: &mut Edits) {
        if !self.is(0, &["CREATE", "ALTER"]) {
            return;
        }
        for at in (0..self.tokens.len()).filter(|at| self.is(*at, &["DEFAULT"])) {
            let start = at + 1;
            let is_call = self.is_name(start) && self.symbol(start + 1, '(');
            let mut end = match self.closing(start + 1).filter(|_| is_call) {
                Some(close) => close + 1,
                None => start + 1,
            };
            let mut is_cast = false;
            while self.symbol(end, ':') && self.symbol(end + 1, ':') {
                let Some((_, behind)) = self.type_name(end + 2) else { break };
                (end, is_cast) = (behind, true);
            }
            let is_clock = self.calls(start, CLOCKS) && !is_cast;
            let (Some(first), Some(last)) = (self.get(start), self.get(end - 1)) else { continue };
            if (is_call || is_cast) && !is_clock {
                edits.insert(first.range().start, "(");
                edits.insert(last.range().end, ")");
            }
        }
    }
}

/// Whether a statement about rows may name the user, and is not answered from the catalogs anyway.
pub(in super::super) fn names_user(sql: &str) -> bool {
    let bytes = sql.as_bytes();
    let found = bytes.iter().enumerate().any(|(at, byte)| {
        matches!(byte, b'c' | b'C' | b's' | b'S')
            && USERS.iter().any(|word| begins_with(bytes.get(at..).unwrap_or_default(), word))
    });
    if !found {
        return false;
    }
    let statement = Statement::new(sql);
    statement.is(0, OF_ROWS) && !statement.names_no_table()
}

/// The statement with the user's name where it asks for that.
pub(in super::super) fn with_user(sql: &str, user: &str) -> String {
    let statement = Statement::new(sql);
    let literal = format!("'{}'", user.replace('\'', "''"));
    let mut edits = Edits::default();
    for (at, token) in statement.tokens.iter().enumerate().filter(|(at, _)| statement.is(*at, USERS)) {
        let is_named = at > 0 && (statement.symbol(at - 1, '.') || statement.is(at - 1, &["AS"]));
        if !(is_named || statement.symbol(at + 1, '.') || statement.symbol(at + 1, '(')) {
            edits.replace(token.range(), literal.clone());
        }
    }
    edits.apply(sql).into_owned()
}

/// A word behind DEFAULT that SQLite would take for a text, and whoever wrote it does not.
pub(in super::super) fn unfit_default(sql: &str) -> Option<&str> {
    let mut before_is_default = false;
    for token in tokens(sql) {
        let is = |words: &[&str]| words.iter().any(|word| token.is(word));
        if before_is_default && (is(USERS) || is(&["NOW"])) {
            let behind = sql.get(token.range().end..).unwrap_or_default();
            return Some(token.text).filter(|_| !behind.trim_start().starts_with('('));
        }
        before_is_default = token.is("DEFAULT");
    }
    None
}
