//! Constraints by their names: as a definition gives them, else as PostgreSQL would, so that what an error names is what the
//! catalogs show.
//!
//! SQLite's own names for the indexes behind constraints (`sqlite_autoindex_t_1`) say nothing, and its errors name the columns of
//! a key, or the text of a check. A name that is made here gets a number if something else is called so, and so may
//! change when that comes or goes. Where what SQLite says may mean several constraints, none is named.

use mainstay::server::pg::{ErrorObject, catalog};
use rusqlite::{Connection, OptionalExtension, Result};

use super::super::lexer::tokens;
use super::SCHEMA_NAME;
use super::schema::{Text, table_text};

/// More tables are not searched for a check.
const TABLE_LIMIT: usize = 16;

/// The indexes of the table `?1` in the schema `?2`, in the order in which they were made.
pub(super) const INDEXES: &str = "FROM pragma_index_list(?1, ?2) l";
pub(super) const INDEX_ORDER: &str = "ORDER BY l.seq DESC";

/// Where a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Home {
    Stored,
    Temporary,
}

impl Home {
    /// As SQLite calls it.
    const fn name(self) -> &'static str {
        match self {
            Home::Stored => "main",
            Home::Temporary => "temp",
        }
    }

    /// As the catalogs do.
    const fn told(self) -> &'static str {
        match self {
            Home::Stored => SCHEMA_NAME,
            Home::Temporary => catalog::TEMPORARY_SCHEMA,
        }
    }

    pub(in super::super) fn column(self, table: &str, name: &str) -> ErrorObject {
        ErrorObject { column: Some(name.to_owned()), ..self.table(table) }
    }

    fn table(self, name: &str) -> ErrorObject {
        ErrorObject { schema: Some(self.told().to_owned()), table: Some(name.to_owned()), ..ErrorObject::default() }
    }
}

/// A key that a definition names.
pub(super) struct NamedKey {
    pub(super) name: String,
    pub(super) primary: bool,
    pub(super) columns: Vec<String>,
}

/// The names of a table's keys, which have to be asked for in the order of [`INDEX_ORDER`], and that of a primary key without
/// an index last.
pub(super) struct KeyNames<'a, Taken: Fn(&str) -> bool> {
    table: &'a str,
    named: &'a [NamedKey],
    /// Whether something of the schema is called so.
    is_taken: Taken,
    given: Vec<String>,
}

impl<'a, Taken: Fn(&str) -> bool> KeyNames<'a, Taken> {
    pub(super) fn new(table: &'a str, named: &'a [NamedKey], is_taken: Taken) -> KeyNames<'a, Taken> {
        KeyNames { table, named, is_taken, given: Vec::new() }
    }

    pub(super) fn primary(&mut self) -> String {
        let named = self.named.iter().find(|key| key.primary);
        self.give(named.map(|key| key.name.clone()), &format!("{}_pkey", self.table))
    }

    pub(super) fn unique(&mut self, columns: &[String]) -> String {
        let named = self.named.iter().find(|key| !key.primary && is_same(&key.columns, columns));
        self.give(named.map(|key| key.name.clone()), &format!("{}_{}_key", self.table, columns.join("_")))
    }

    fn give(&mut self, named: Option<String>, made: &str) -> String {
        let name = named.unwrap_or_else(|| {
            let is_free = |name: &String| !(self.is_taken)(name) && !self.given.contains(name);
            let numbered = (1..u32::MAX).map(|number| format!("{made}{number}"));
            std::iter::once(made.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| made.to_owned())
        });
        self.given.push(name.clone());
        name
    }
}

fn is_same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// A check.
pub(super) struct Check {
    pub(super) name: String,
    pub(super) expression: String,
    /// By the definition.
    is_named: bool,
}

/// The checks of a table.
pub(super) fn checks(table: &str, text: Text) -> Vec<Check> {
    let mut unnamed = 0;
    let mut checks = Vec::new();
    for (name, expression) in text.checks {
        let is_named = name.is_some();
        let name = name.unwrap_or_else(|| {
            unnamed += 1;
            let number = if unnamed > 1 { format!("{}", unnamed - 1) } else { String::new() };
            format!("{table}_check{number}")
        });
        checks.push(Check { name, expression, is_named });
    }
    checks
}

/// What SQLite says of a key that is there twice.
pub(in super::super) enum Twice<'a> {
    /// The columns of a table's primary key, unless it is a row's hidden number.
    Primary,
    /// Columns that a table has no more than once together.
    Columns(&'a [String]),
    /// The number of a row that has no other key.
    Row,
}

/// The key that a row of a table would have had twice; nothing if there is no such table.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn key(
    connection: &Connection,
    home: Home,
    table: &str,
    twice: &Twice<'_>,
) -> Result<Option<ErrorObject>> {
    let sql = format!("SELECT coalesce(sql, '') FROM {}.sqlite_schema WHERE type = 'table' AND name = ?1", home.name());
    let definition: Option<String> =
        connection.prepare_cached(&sql)?.query_row([table], |row| row.get(0)).optional()?;
    let Some(definition) = definition else { return Ok(None) };
    let mut object = home.table(table);
    if matches!(twice, Twice::Row) {
        return Ok(Some(object));
    }
    // Most definitions name nothing, and need not be parsed for that.
    let has_names = tokens(&definition).any(|token| token.is("CONSTRAINT"));
    let named = if has_names { table_text(&definition).keys } else { Vec::new() };
    let sql = format!("SELECT 1 FROM {}.sqlite_schema WHERE name = ?1 COLLATE NOCASE", home.name());
    let exists = |name: &str| connection.prepare_cached(&sql)?.exists([name]);
    let mut names = KeyNames::new(table, &named, |name| exists(name).unwrap_or(false));
    let mut found = Vec::new();
    let mut has_primary = false;
    for (index, origin, columns) in unique_indexes(connection, home, table)? {
        let name = match origin.as_str() {
            "pk" => names.primary(),
            "u" => names.unique(&columns),
            _ => index,
        };
        has_primary |= origin == "pk";
        let is_meant = match twice {
            Twice::Primary => origin == "pk",
            Twice::Columns(violated) => origin != "pk" && is_same(&columns, violated),
            Twice::Row => false,
        };
        found.extend(is_meant.then_some(name));
    }
    if matches!(twice, Twice::Primary) && !has_primary {
        found.push(names.primary());
    }
    if found.len() == 1 {
        object.constraint = found.pop();
    }
    Ok(Some(object))
}

/// The unique indexes of a table, each with where it comes from and its columns; an expression has no name.
fn unique_indexes(connection: &Connection, home: Home, table: &str) -> Result<Vec<(String, String, Vec<String>)>> {
    let sql = format!("SELECT l.name, l.origin {INDEXES} WHERE l.\"unique\" {INDEX_ORDER}");
    let mut indexes = connection.prepare_cached(&sql)?;
    let sql = "SELECT coalesce(name, '') FROM pragma_index_xinfo(?1, ?2) WHERE key = 1 ORDER BY seqno";
    let mut columns = connection.prepare_cached(sql)?;
    let indexes = indexes.query_map([table, home.name()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let with_columns = |index: Result<(String, String)>| {
        let (name, origin) = index?;
        let columns = columns.query_map([&*name, home.name()], |row| row.get(0))?.collect::<Result<_>>()?;
        Ok((name, origin, columns))
    };
    indexes.map(with_columns).collect()
}

/// The index of that name, which is not a constraint's.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn index(connection: &Connection, home: Home, index: &str) -> Result<Option<ErrorObject>> {
    let sql = format!("SELECT tbl_name FROM {}.sqlite_schema WHERE type = 'index' AND name = ?1", home.name());
    let table: Option<String> = connection.prepare_cached(&sql)?.query_row([index], |row| row.get(0)).optional()?;
    Ok(table.map(|table| ErrorObject { constraint: Some(index.to_owned()), ..home.table(&table) }))
}

/// The column of a table; nothing if there is none of that name.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn column(
    connection: &Connection,
    home: Home,
    table: &str,
    column: &str,
) -> Result<Option<ErrorObject>> {
    let sql = "SELECT 1 FROM pragma_table_xinfo(?1, ?2) WHERE name = ?3";
    let exists = connection.prepare_cached(sql)?.exists([table, home.name(), column])?;
    Ok(exists.then(|| home.column(table, column)))
}

/// The check that SQLite calls by its name, or by its text if it has none; its table, too, if only one has it.
///
/// # Errors
/// SQLite's.
pub(in super::super) fn check(connection: &Connection, home: Home, called: &str) -> Result<Option<ErrorObject>> {
    let sql = format!(
        "SELECT name, sql FROM {}.sqlite_schema WHERE type = 'table' AND instr(sql, ?1) > 0 LIMIT {}",
        home.name(),
        TABLE_LIMIT + 1
    );
    let mut tables = connection.prepare_cached(&sql)?;
    let tables: Vec<(String, String)> =
        tables.query_map([called], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    if tables.len() > TABLE_LIMIT {
        return Ok(None);
    }
    let mut found = Vec::new();
    for (table, definition) in tables {
        for check in checks(&table, table_text(&definition)) {
            let is_meant = if check.is_named { check.name == called } else { is_same_text(&check.expression, called) };
            found.extend(is_meant.then(|| (table.clone(), check.name)));
        }
    }
    let Some((table, name)) = found.pop() else { return Ok(None) };
    if found.is_empty() {
        return Ok(Some(ErrorObject { constraint: Some(name), ..home.table(&table) }));
    }
    let all = found.iter().all(|(_, other)| *other == name);
    Ok(all.then(|| ErrorObject { constraint: Some(name), ..ErrorObject::default() }))
}

/// Whether two expressions are written the same, but for blanks and the case of words.
fn is_same_text(one: &str, other: &str) -> bool {
    tokens(one)
        .map(|token| token.text.to_ascii_lowercase())
        .eq(tokens(other).map(|token| token.text.to_ascii_lowercase()))
}

#[cfg(test)]
#[path = "constraints_test.rs"]
mod tests;
