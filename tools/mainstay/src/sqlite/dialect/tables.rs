//! Names for the columns of a query in FROM, and keys that count by themselves.

use super::super::lexer::{Kind, Token};
use super::{Edits, NO_FUNCTIONS, Statement};

impl Statement<'_> {
    /// Names for the columns of a query in FROM.
    pub(super) fn named_columns(&self, sql: &str, edits: &mut Edits) {
        for close in 0..self.tokens.len() {
            let Some(Some(open)) = self.opening.get(close).copied() else { continue };
            let name = close + 1 + usize::from(self.get(close + 1).is_some_and(|token| token.is("AS")));
            let is_word = self.is(name, NO_FUNCTIONS);
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

    /// SERIAL keys.
    pub(super) fn serial_keys(&self, edits: &mut Edits) {
        for (at, _) in self.serials().into_iter().filter(|(_, is_key)| *is_key) {
            edits.replace(self.get(at).map_or(0..0, Token::range), "INTEGER");
        }
    }

    /// Where a CREATE TABLE says SERIAL, and whether that is the table's key.
    fn serials(&self) -> Vec<(usize, bool)> {
        if !(self.is(0, &["CREATE"]) && self.is(1, &["TABLE", "TEMP", "TEMPORARY"])) {
            return Vec::new();
        }
        let Some(open) = (0..self.tokens.len()).find(|at| self.symbol(*at, '(')) else { return Vec::new() };
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
        let name = |at: usize| self.get(at).and_then(Token::name);
        let is_key = |column| matches!(keys[..], [key] if name(column).is_some() && name(column) == name(key));
        serial.into_iter().map(|(column, pg_type)| (pg_type, is_key(column))).collect()
    }
}

/// Whether a CREATE TABLE has a SERIAL column that is not its key, and so does not count.
pub(in super::super) fn has_idle_serial(sql: &str) -> bool {
    let may = sql.as_bytes().windows("SERIAL".len()).any(|part| part.eq_ignore_ascii_case(b"SERIAL"));
    may && Statement::new(sql).serials().iter().any(|(_, is_key)| !is_key)
}

fn is_serial(token: &Token<'_>) -> bool {
    ["SERIAL", "BIGSERIAL", "SMALLSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"].iter().any(|name| token.is(name))
}
