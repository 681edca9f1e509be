//! Types of parameters that the client did not declare, from the columns they are stored in or compared with.
//!
//! SQLite does not ask what a parameter is; drivers do, and encode by the answer. Only plain shapes are understood:
//! `INSERT … VALUES (…, $1, …)`, `column = $1` and other comparisons, SET, LIMIT and OFFSET. What is not certain is left
//! open. The statement has been compiled before, so nothing here judges it.

use mainstay::server::pg::PgType;
use rusqlite::Connection;

use super::super::functions;
use super::super::lexer::{Kind, Token, tokens};
use super::super::values::declared_type;

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
    let statement = Statement { tokens: tokens(sql).collect() };
    let Some(tables) = statement.tables(connection) else { return Vec::new() };
    let mut found = vec![Found::Nothing; count];
    let stored = statement.stored(&tables);
    for (at, token) in statement.tokens.iter().enumerate() {
        let Some(place) = parameter(token).and_then(|number| found.get_mut(number - 1)) else { continue };
        let here = stored.iter().find(|(position, _)| *position == at).map(|(_, pg_type)| *pg_type);
        if let Some(pg_type) = here.or_else(|| statement.compared(at, &tables)) {
            *place = match *place {
                Found::Nothing => Found::Type(pg_type),
                Found::Type(before) if before == pg_type => Found::Type(pg_type),
                _ => Found::Several,
            };
        }
    }
    let certain = |found| if let Found::Type(pg_type) = found { Some(pg_type) } else { None };
    found.into_iter().map(certain).collect()
}

/// What a parameter's places say of its type.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    Type(PgType),
    Several,
}

/// The number of the parameter `$1`, from 1.
fn parameter(token: &Token<'_>) -> Option<usize> {
    let digits = token.text.strip_prefix('$').filter(|_| token.kind == Kind::Word)?;
    digits.parse().ok().filter(|number| *number > 0)
}

/// The columns of the tables of a statement, in order; each with its name.
struct Tables(Vec<(String, Vec<(String, PgType)>)>);

impl Tables {
    fn of(&self, table: &str) -> Option<&[(String, PgType)]> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(table)).map(|(_, columns)| columns.as_slice())
    }

    /// The type of the column of that name, if all tables that have one agree.
    fn column(&self, name: &str) -> Option<PgType> {
        let mut types = self.0.iter().filter_map(|(_, columns)| column_of(columns, name));
        let first = types.next()?;
        types.all(|other| other == first).then_some(first)
    }
}

fn column_of(columns: &[(String, PgType)], name: &str) -> Option<PgType> {
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
            let columns = columns(connection, &table).ok()?;
            tables.0.push((table, columns));
        }
        Some(tables)
    }

    /// The types of the parameters that an INSERT stores as they are, each with its position.
    fn stored(&self, tables: &Tables) -> Vec<(usize, PgType)> {
        let inserts = self.tokens.first().is_some_and(|token| token.is("INSERT") || token.is("REPLACE"));
        let into = self.tokens.iter().position(|token| token.is("INTO")).filter(|_| inserts);
        let Some((table, mut at)) = into.and_then(|into| self.qualified(into + 1)) else { return Vec::new() };
        let Some(columns) = tables.of(&table) else { return Vec::new() };
        let mut types: Vec<Option<PgType>> = columns.iter().map(|(_, pg_type)| Some(*pg_type)).collect();
        if self.symbol(at, '(') {
            types.clear();
            while !self.symbol(at, ')') {
                let Some(name) = self.name(at + 1) else { return Vec::new() };
                types.push(column_of(columns, &name));
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
            return self.tokens.get(at + 2).and_then(|token| cast_type(token));
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

/// The type of a parameter that is cast: PostgreSQL takes it as what it is cast to.
fn cast_type(name: &Token<'_>) -> Option<PgType> {
    let types = [
        ("int2", PgType::INT2),
        ("int4", PgType::INT4),
        ("int8", PgType::INT8),
        ("float4", PgType::FLOAT4),
        ("float8", PgType::FLOAT8),
        ("boolean", PgType::BOOL),
        ("blob", PgType::BYTEA),
        ("varchar", PgType::VARCHAR),
    ];
    let known = types.iter().find(|(known, _)| name.is(known)).map(|(_, pg_type)| *pg_type);
    known.or_else(|| name.name().map(|name| declared_type(&name)))
}

/// The columns of a table or view that an INSERT without a list fills, in order; none if there is no such table.
pub(in super::super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, PgType)>> {
    let mut statement = connection.prepare_cached("SELECT name, type FROM pragma_table_info(?1)")?;
    let rows = statement.query_map([table], |row| {
        let declared: String = row.get(1)?;
        Ok((row.get(0)?, declared_type(&declared)))
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_the_columns() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, price REAL, data BLOB, done BOOLEAN, free);
                 CREATE TABLE u (id BIGINT, name INT)",
            )
            .unwrap();
        let (int, text, real) = (Some(PgType::INT8), Some(PgType::TEXT), Some(PgType::FLOAT8));
        let (bytes, truth) = (Some(PgType::BYTEA), Some(PgType::BOOL));
        for (sql, expected) in [
            ("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)", vec![int, text, real, bytes, truth, text]),
            ("INSERT INTO main.t (price, \"id\") VALUES ($2, $1), ($4, $3)", vec![int, real, int, real]),
            ("INSERT OR IGNORE INTO t VALUES (abs($1), $2 || 'x', 1 + $3, $4)", vec![None, None, None, bytes]),
            ("INSERT INTO t (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET price = $2", vec![int, real]),
            ("INSERT INTO t (id) SELECT $1", vec![None]),
            ("UPDATE OR IGNORE t SET price = $1, done = $2 WHERE t.id = $3", vec![real, truth, int]),
            ("DELETE FROM t WHERE $1 <= id AND (price > $2 OR done != $3)", vec![int, real, truth]),
            ("SELECT * FROM t WHERE price + id = $1 AND id = $2 + 1 AND f(id) = $3", vec![None, None, None]),
            ("SELECT * FROM t WHERE id = $1 OR name = $1 LIMIT $2 OFFSET $3", vec![None, int, int]),
            ("SELECT * FROM t JOIN u ON t.id = u.id WHERE u.id = $1 AND t.name = $2", vec![int, None]),
            ("SELECT * FROM t WHERE '$1' = id AND missing = $1 AND id = ?2", vec![None, None]),
            ("SELECT $1", vec![None]),
            (
                "SELECT CAST($1 AS int4), CAST ( $2 AS boolean), CAST($3 AS INTEGER), CAST($4 + 1 AS REAL)",
                vec![Some(PgType::INT4), truth, int, None],
            ),
            ("INSERT INTO t (id) VALUES (CAST($1 AS varchar))", vec![Some(PgType::VARCHAR)]),
        ] {
            assert_eq!(types(&connection, sql, expected.len()), expected, "{sql}");
        }
    }

    #[test]
    fn statements_that_end_early_are_no_trouble() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER)").unwrap();
        let whole =
            "INSERT OR IGNORE INTO main.t (id) VALUES ($1), ($2) ON CONFLICT DO UPDATE SET t.id >= $1 = t.id LIMIT $2";
        for end in 0..whole.len() {
            types(&connection, &whole[..end], 2);
            types(&connection, &whole[end..], 2);
        }
    }
}
