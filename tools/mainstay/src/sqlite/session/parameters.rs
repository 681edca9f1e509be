//! Types of parameters that the client did not declare, from the columns they are stored in or compared with.
//!
//! SQLite does not ask what a parameter is; drivers do, and encode by the answer. Plain shapes are read off the tokens:
//! `INSERT … VALUES (…, $1, …)`, `column = $1` and other comparisons, SET, LIMIT and OFFSET. If that is not all, the statement
//! is parsed ([`infer`]); where the parser, which is not SQLite's, does not understand it, the tokens still count. What is
//! not certain is left open. The statement has been compiled before, so nothing here judges it.

use mainstay::server::pg::PgType;
use rusqlite::Connection;

use super::super::functions;
use super::super::infer::{self, Found};
use super::super::lexer::{Kind, Token, tokens};
use super::super::values::{declared_type, is_undeclared, parameter_type};

/// Longer statements are not looked at.
const STATEMENT_LIMIT_BYTES: usize = 64 * 1024;
/// Statements that name more tables are not looked at.
const TABLE_LIMIT: usize = 16;
/// What may stand before a comparison of a column with a parameter, so that nothing else belongs to it.
const BEFORE: &[&str] = &["WHERE", "AND", "OR", "ON", "NOT", "SET", "HAVING", "WHEN"];
/// What may stand behind it.
const BEHIND: &[&str] = &[
    "AND",
    "OR",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "RETURNING",
    "THEN",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "FROM",
    "ON",
];

/// The type of each of the parameters `$1` to `$count`, where it is certain.
pub(super) fn types(connection: &Connection, sql: &str, count: usize) -> Vec<Option<PgType>> {
    if count == 0 || sql.len() > STATEMENT_LIMIT_BYTES {
        return Vec::new();
    }
    let (mut found, is_all) = plain(connection, sql, count).unwrap_or_else(|| (vec![Found::Nothing; count], false));
    if !is_all && let Some(parsed) = infer::parameter_types(connection, sql, count) {
        for (place, parsed) in found.iter_mut().zip(parsed).filter(|(_, parsed)| *parsed != Found::Nothing) {
            *place = parsed;
        }
    }
    let certain = |found| if let Found::Type(pg_type) = found { Some(pg_type) } else { None };
    found.into_iter().map(certain).collect()
}

/// What the tokens say, and whether that is something of each place and each parameter; `None` if they cannot be read.
fn plain(connection: &Connection, sql: &str, count: usize) -> Option<(Vec<Found>, bool)> {
    let statement = Statement { tokens: tokens(sql).collect() };
    let tables = statement.tables(connection)?;
    let (mut found, mut is_all) = (vec![Found::Nothing; count], true);
    let stored = statement.stored(&tables);
    for (at, token) in statement.tokens.iter().enumerate() {
        let Some(place) = parameter(token).and_then(|number| found.get_mut(number - 1)) else { continue };
        let here = stored.iter().find(|(position, _)| *position == at).map(|(_, pg_type)| *pg_type);
        match here.or_else(|| statement.compared(at, &tables)) {
            Some(pg_type) => place.note(pg_type),
            None => is_all = false,
        }
    }
    is_all &= found.iter().all(|found| matches!(found, Found::Type(_)));
    Some((found, is_all))
}

/// The number of the parameter `$1`, from 1.
fn parameter(token: &Token<'_>) -> Option<usize> {
    let digits = token.text.strip_prefix('$').filter(|_| token.kind == Kind::Word)?;
    digits.parse().ok().filter(|number| *number > 0)
}

/// A column, and the type that it declares.
type Declared = (String, Option<PgType>);

/// The columns of the tables of a statement, in order; each with its name.
struct Tables(Vec<(String, Vec<Declared>)>);

impl Tables {
    fn of(&self, table: &str) -> Option<&[Declared]> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(table)).map(|(_, columns)| columns.as_slice())
    }

    /// The type of the column of that name, if all tables that have one agree.
    fn column(&self, name: &str) -> Option<PgType> {
        let mut types = self.0.iter().filter_map(|(_, columns)| column_of(columns, name));
        let first = types.next()?;
        types.all(|other| other == first).then_some(first).flatten()
    }
}

fn column_of(columns: &[Declared], name: &str) -> Option<Option<PgType>> {
    columns.iter().find(|(column, _)| column.eq_ignore_ascii_case(name)).map(|(_, pg_type)| *pg_type)
}

struct Statement<'a> {
    tokens: Vec<Token<'a>>,
}

impl Statement<'_> {
    fn symbol(&self, at: usize, symbol: char) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    fn name(&self, at: usize) -> Option<String> {
        let token = self.tokens.get(at).filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted))?;
        token.name().filter(|_| parameter(token).is_none())
    }

    /// A name with or without the names before its points, from its first token on; and where it ends.
    fn qualified(&self, mut at: usize) -> Option<(String, usize)> {
        let mut name = self.name(at)?;
        while self.symbol(at + 1, '.') {
            at += 2;
            name = self.name(at)?;
        }
        Some((name, at + 1))
    }

    /// The tables that it names; `None` if they are too many or cannot be read.
    fn tables(&self, connection: &Connection) -> Option<Tables> {
        let mut tables = Tables(Vec::new());
        for (at, token) in self.tokens.iter().enumerate() {
            if !["INTO", "FROM", "JOIN", "UPDATE"].iter().any(|keyword| token.is(keyword)) {
                continue;
            }
            // UPDATE OR IGNORE t
            let at = if self.tokens.get(at + 1).is_some_and(|token| token.is("OR")) { at + 3 } else { at + 1 };
            let Some((table, _)) = self.qualified(at) else { continue };
            if tables.of(&table).is_some() {
                continue;
            }
            if tables.0.len() == TABLE_LIMIT {
                return None;
            }
            let certain = |(name, declared): (String, String)| {
                let pg_type = (!is_undeclared(&declared)).then(|| declared_type(&declared));
                (name, pg_type)
            };
            let columns = declared_columns(connection, &table).ok()?;
            tables.0.push((table, columns.into_iter().map(certain).collect()));
        }
        Some(tables)
    }

    /// The types of the parameters that an INSERT stores as they are, each with its position.
    fn stored(&self, tables: &Tables) -> Vec<(usize, PgType)> {
        let inserts = self.tokens.first().is_some_and(|token| token.is("INSERT") || token.is("REPLACE"));
        let into = self.tokens.iter().position(|token| token.is("INTO")).filter(|_| inserts);
        let Some((table, mut at)) = into.and_then(|into| self.qualified(into + 1)) else { return Vec::new() };
        let Some(columns) = tables.of(&table) else { return Vec::new() };
        let mut types: Vec<Option<PgType>> = columns.iter().map(|(_, pg_type)| *pg_type).collect();
        if self.symbol(at, '(') {
            types.clear();
            while !self.symbol(at, ')') {
                let Some(name) = self.name(at + 1) else { return Vec::new() };
                types.push(column_of(columns, &name).flatten());
                at += 2;
            }
            at += 1;
        }
        if !self.tokens.get(at).is_some_and(|token| token.is("VALUES")) {
            return Vec::new();
        }
        let mut stored = Vec::new();
        let (mut depth, mut column) = (0_usize, 0);
        for (at, token) in self.tokens.iter().enumerate().skip(at + 1) {
            match token.kind {
                Kind::Symbol('(') => {
                    depth += 1;
                    column = if depth == 1 { 0 } else { column };
                }
                Kind::Symbol(')') => depth = depth.saturating_sub(1),
                Kind::Symbol(',') if depth == 1 => column += 1,
                Kind::Symbol(',') => {}
                _ if depth == 0 => break,
                _ => {
                    let whole = depth == 1
                        && (self.symbol(at - 1, '(') || self.symbol(at - 1, ','))
                        && (self.symbol(at + 1, ')') || self.symbol(at + 1, ','));
                    stored.extend(types.get(column).copied().flatten().filter(|_| whole).map(|pg_type| (at, pg_type)));
                }
            }
        }
        stored
    }

    /// The type of what the parameter there is compared with, or set as.
    fn compared(&self, at: usize, tables: &Tables) -> Option<PgType> {
        let before = at.checked_sub(1)?;
        let is =
            |at: Option<usize>, word: &str| at.and_then(|at| self.tokens.get(at)).is_some_and(|token| token.is(word));
        if self.symbol(before, '(') && is(before.checked_sub(1), "CAST") && is(Some(at + 1), "AS") {
            return self.tokens.get(at + 2)?.name().map(|name| parameter_type(&name));
        }
        if self.symbol(before, '(')
            && let Some(cast) = before.checked_sub(1).and_then(|name| functions::cast_type(&self.name(name)?))
        {
            return Some(cast);
        }
        if ["LIMIT", "OFFSET"].iter().any(|keyword| self.tokens.get(before).is_some_and(|token| token.is(keyword))) {
            return Some(PgType::INT8);
        }
        let operator = |at: usize| ['=', '<', '>', '!'].into_iter().any(|symbol| self.symbol(at, symbol));
        if operator(before) {
            let mut end = before;
            while end > 0 && operator(end - 1) {
                end -= 1;
            }
            // From the column's last name to its first.
            let mut start = end.checked_sub(1)?;
            let name = self.name(start)?;
            while start >= 2 && self.symbol(start - 1, '.') {
                start -= 2;
            }
            return tables.column(&name).filter(|_| self.begins(start) && self.ends(at + 1));
        }
        let mut start = at + 1;
        while operator(start) {
            start += 1;
        }
        let (name, end) = self.qualified(start).filter(|_| start > at + 1)?;
        tables.column(&name).filter(|_| self.begins(at) && self.ends(end))
    }

    /// Whether nothing before this position belongs to the comparison that begins there.
    fn begins(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else { return true };
        let keyword = self.tokens.get(before).is_some_and(|token| BEFORE.iter().any(|keyword| token.is(keyword)));
        keyword || self.symbol(before, '(') || self.symbol(before, ',')
    }

    /// Whether nothing from this position on belongs to the comparison that ends there.
    fn ends(&self, at: usize) -> bool {
        let Some(token) = self.tokens.get(at) else { return true };
        BEHIND.iter().any(|keyword| token.is(keyword)) || self.symbol(at, ')') || self.symbol(at, ',')
    }
}

/// The columns of a table or view that an INSERT without a list fills, in order; none if there is no such table.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, PgType)>> {
    let columns = declared_columns(connection, table)?;
    Ok(columns.into_iter().map(|(name, declared)| (name, declared_type(&declared))).collect())
}

fn declared_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = connection.prepare_cached("SELECT name, type FROM pragma_table_info(?1)")?;
    let rows = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

#[cfg(test)]
#[path = "parameters_test.rs"]
mod tests;
