//! The database's schema as SQLite has it, in the words of the catalogs.
//!
//! What SQLite tells through its pragmas is taken from there. Expressions of checks, partial indexes and generated columns are
//! nowhere but in the text of definitions, which is read by a parser that is not SQLite's: what it does not understand is
//! left out.

use std::collections::HashMap;
use std::rc::Rc;

use mainstay::server::pg::catalog::model::{Constraint, Demand, Index, IndexKey, Table, TableColumn, Trigger};
use mainstay::server::pg::catalog::{FIRST_OBJECT, Schema};
use rusqlite::{Connection, Result, Row};
use sqlparser::ast::{ColumnOption, Expr, Ident, IndexColumn, Statement, TableConstraint};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::Parser;

use super::super::{RESERVED_PREFIX, values};
use super::constraints::{self, KeyNames, NamedKey};

/// One of the schemas of a connection.
struct Place {
    /// As SQLite calls it.
    name: &'static str,
    /// Objects are numbered from here on.
    first: u32,
    /// Those that have no row in SQLite's schema, likewise: the index that a table with an integer key is.
    first_hidden: u32,
}

const MAIN: Place = Place { name: "main", first: FIRST_OBJECT, first_hidden: 0x4000_0000 };
const TEMPORARY: Place = Place { name: "temp", first: 0x2000_0000, first_hidden: 0x5000_0000 };
/// Constraints are numbered from here on, in their order.
const FIRST_CONSTRAINT: u32 = 0x6000_0000;
/// Longer definitions are not parsed: see the same limit in [`super::super::infer`].
const DEFINITION_LIMIT_BYTES: usize = 16 * 1024;

/// What a definition says that no pragma does.
#[derive(Default)]
pub(super) struct Text {
    /// Each with its name, if it has one.
    pub(super) checks: Vec<(Option<String>, String)>,
    /// Those that have names.
    pub(super) keys: Vec<NamedKey>,
    generated: HashMap<String, String>,
}

impl Text {
    fn key(&mut self, name: Option<&Ident>, primary: bool, columns: Vec<String>) {
        self.keys.extend(name.map(|name| NamedKey { name: name.value.clone(), primary, columns }));
    }
}

/// Reads the schema of the database that `connection` sees.
///
/// # Errors
/// SQLite's.
pub(super) fn read(connection: &Connection) -> Result<Schema> {
    read_from(connection, &MAIN, Schema::default())
}

/// Adds what is temporary on `connection`. It hides what else has its names.
///
/// # Errors
/// SQLite's.
pub(super) fn add_temporary(schema: &mut Schema, connection: &Connection) -> Result<()> {
    let stored = schema.tables.len();
    *schema = read_from(connection, &TEMPORARY, std::mem::take(schema))?;
    schema.tables.rotate_left(stored);
    Ok(())
}

fn read_from(connection: &Connection, place: &'static Place, schema: Schema) -> Result<Schema> {
    let mut reader = Reader { connection, place, schema, rowids: Rc::default() };
    let objects = reader.objects()?;
    reader.rowids = Rc::new(objects.iter().map(|object| (object.name.to_ascii_lowercase(), object.rowid)).collect());
    for object in &objects {
        match object.kind.as_str() {
            "table" => reader.table(object)?,
            "view" => reader.view(object)?,
            _ => {}
        }
    }
    // Keys may refer to tables that come later.
    for object in objects.iter().filter(|object| object.kind == "table") {
        reader.references(object)?;
    }
    for object in objects.iter().filter(|object| object.kind == "trigger") {
        reader.trigger(object);
    }
    Ok(reader.schema)
}

/// A row of SQLite's schema.
struct Object {
    rowid: i64,
    kind: String,
    name: String,
    table: String,
    definition: String,
}

/// An object identifier; the highest numbers are not SQLite's to reach.
fn oid_of(first: u32, rowid: i64) -> u32 {
    first.saturating_add(u32::try_from(rowid).unwrap_or(u32::MAX / 8))
}

struct Reader<'a> {
    connection: &'a Connection,
    place: &'static Place,
    schema: Schema,
    /// Rows of SQLite's schema by name, in lower case.
    rowids: Rc<HashMap<String, i64>>,
}

impl Reader<'_> {
    fn oid(&self, object: &Object) -> u32 {
        oid_of(self.place.first, object.rowid)
    }

    fn is_temporary(&self) -> bool {
        self.place.name == TEMPORARY.name
    }

    fn objects(&self) -> Result<Vec<Object>> {
        let sql = format!(
            "SELECT rowid, type, name, tbl_name, coalesce(sql, '') FROM {}.sqlite_schema \
             WHERE lower(substr(tbl_name, 1, length(?1))) <> ?1 AND tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             ORDER BY rowid",
            self.place.name
        );
        let object = |row: &Row<'_>| {
            let (rowid, kind, name, table) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Object { rowid, kind, name, table, definition: row.get(4)? })
        };
        self.connection.prepare(&sql)?.query_map([RESERVED_PREFIX], object)?.collect()
    }

    fn table(&mut self, object: &Object) -> Result<()> {
        let text = table_text(&object.definition);
        let columns = self.columns(&object.name, &text)?;
        let mut key: Vec<(i64, IndexKey)> = columns
            .iter()
            .zip(1..)
            .filter(|((_, key), _)| *key > 0)
            .map(|((column, key), number)| {
                (*key, IndexKey { column: Some(number), expression: column.name.clone(), descending: false })
            })
            .collect();
        key.sort_by_key(|(position, _)| *position);
        let table = Table {
            oid: self.oid(object),
            name: object.name.clone(),
            temporary: self.is_temporary(),
            view: None,
            columns: columns.into_iter().map(|(column, _)| column).collect(),
        };
        self.schema.tables.push(table);
        let primary = self.indexes(object, &text)?;
        if let Some(name) = primary.filter(|_| !key.is_empty()) {
            // The table itself is ordered by it.
            let oid = oid_of(self.place.first_hidden, object.rowid);
            let keys = key.into_iter().map(|(_, key)| key).collect();
            let index = Index {
                oid,
                name: name.clone(),
                table: self.oid(object),
                keys,
                unique: true,
                primary: true,
                predicate: None,
            };
            self.schema.indexes.push(index);
            self.constraint(name, self.oid(object), Demand::Primary { index: oid });
        }
        for check in constraints::checks(&object.name, text) {
            self.constraint(check.name, self.oid(object), Demand::Check { expression: check.expression });
        }
        Ok(())
    }

    fn view(&mut self, object: &Object) -> Result<()> {
        // A view over what is gone has no columns.
        let columns = self.columns(&object.name, &Text::default()).unwrap_or_default();
        let columns = columns.into_iter().map(|(column, _)| TableColumn { not_null: false, ..column }).collect();
        let view = Some(view_query(&object.definition));
        let (oid, temporary) = (self.oid(object), self.is_temporary());
        self.schema.tables.push(Table { oid, name: object.name.clone(), temporary, view, columns });
        Ok(())
    }

    /// The columns of a table or view, each with its position in the primary key, from 1, or 0.
    fn columns(&self, table: &str, text: &Text) -> Result<Vec<(TableColumn, i64)>> {
        let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, ?2) \
                   WHERE hidden <> 1 ORDER BY cid";
        let column = |row: &Row<'_>| {
            let name: String = row.get(0)?;
            let declared: String = row.get(1)?;
            let (key, hidden): (i64, i64) = (row.get(4)?, row.get(5)?);
            // SQLite would take NULL in a key that is no rowid; what is logged has none there.
            let in_key = key > 0 && (declared.eq_ignore_ascii_case("integer") || !self.is_temporary());
            let generated = hidden > 1;
            let default: Option<String> = row.get(3)?;
            let default = if generated { text.generated.get(&name.to_ascii_lowercase()).cloned() } else { default };
            let not_null = row.get::<_, bool>(2)? || in_key;
            let pg_type = values::declared_type(&declared);
            Ok((TableColumn { name, pg_type, not_null, default, generated }, key))
        };
        self.connection.prepare_cached(sql)?.query_map([table, self.place.name], column)?.collect()
    }

    /// The indexes of a table; answers the name of its primary key, if none is that.
    fn indexes(&mut self, object: &Object, text: &Text) -> Result<Option<String>> {
        let sql = format!(
            "SELECT l.name, l.\"unique\", l.origin, coalesce(s.sql, '') {} \
             LEFT JOIN {}.sqlite_schema s ON s.name = l.name AND s.type = 'index' {}",
            constraints::INDEXES,
            self.place.name,
            constraints::INDEX_ORDER
        );
        let found = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let found: Vec<(String, bool, String, String)> = self
            .connection
            .prepare_cached(&sql)?
            .query_map([&*object.name, self.place.name], found)?
            .collect::<Result<_>>()?;
        let mut has_primary = false;
        let rowids = Rc::clone(&self.rowids);
        let is_taken = |name: &str| rowids.contains_key(&name.to_ascii_lowercase());
        let mut names = KeyNames::new(&object.name, &text.keys, is_taken);
        for (name, unique, origin, text) in found {
            let rowid = self.rowids.get(&name.to_ascii_lowercase());
            let oid = rowid.map_or_else(
                || oid_of(self.place.first_hidden, object.rowid),
                |rowid| oid_of(self.place.first, *rowid),
            );
            let (expressions, predicate) = index_text(&text);
            let (primary, table) = (origin == "pk", self.oid(object));
            let keys = self.keys(&name, table, &expressions)?;
            let name = match origin.as_str() {
                "pk" => names.primary(),
                "u" => names.unique(&keys.iter().map(|key| key.expression.clone()).collect::<Vec<_>>()),
                _ => name,
            };
            self.schema.indexes.push(Index { oid, name: name.clone(), table, keys, unique, primary, predicate });
            match origin.as_str() {
                "pk" => self.constraint(name, table, Demand::Primary { index: oid }),
                "u" => self.constraint(name, table, Demand::Unique { index: oid }),
                _ => {}
            }
            has_primary |= primary;
        }
        Ok((!has_primary).then(|| names.primary()))
    }

    fn keys(&self, index: &str, table: u32, expressions: &[String]) -> Result<Vec<IndexKey>> {
        let sql = "SELECT seqno, name, \"desc\" FROM pragma_index_xinfo(?1, ?2) WHERE key = 1 ORDER BY seqno";
        let table = self.schema.table(table);
        let key = |row: &Row<'_>| {
            let (position, name): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            let column = name.as_ref().and_then(|name| table?.column_number(name));
            let written = || expressions.get(position).map_or_else(|| "(…)".to_owned(), |text| format!("({text})"));
            Ok(IndexKey { column, expression: name.unwrap_or_else(written), descending: row.get(2)? })
        };
        self.connection.prepare_cached(sql)?.query_map([index, self.place.name], key)?.collect()
    }

    fn references(&mut self, object: &Object) -> Result<()> {
        let sql = "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list(?1, ?2) \
                   ORDER BY id DESC, seq";
        type Found = (i64, String, String, Option<String>, String, String);
        let found = |row: &Row<'_>| -> Result<Found> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        };
        let found: Vec<Found> = self
            .connection
            .prepare_cached(sql)?
            .query_map([&*object.name, self.place.name], found)?
            .collect::<Result<_>>()?;
        for key in found.chunk_by(|one, next| one.0 == next.0) {
            let Some((_, target, _, _, on_update, on_delete)) = key.first() else { continue };
            let columns: Vec<String> = key.iter().map(|part| part.2.clone()).collect();
            let named: Option<Vec<String>> = key.iter().map(|part| part.3.clone()).collect();
            let target_table = self.schema.table_named(target);
            let target_oid = target_table.map(|table| table.oid);
            let target_columns = named.or_else(|| self.primary_columns(target_oid?)).unwrap_or_default();
            let name = format!("{}_{}_fkey", object.name, columns.join("_"));
            let demand = Demand::References {
                columns,
                target: target_table.map_or(target, |table| &table.name).clone(),
                target_oid,
                target_columns,
                on_update: on_update.clone(),
                on_delete: on_delete.clone(),
            };
            self.constraint(name, self.oid(object), demand);
        }
        Ok(())
    }

    fn primary_columns(&self, table: u32) -> Option<Vec<String>> {
        let index = self.schema.indexes.iter().find(|index| index.table == table && index.primary)?;
        Some(index.keys.iter().map(|key| key.expression.clone()).collect())
    }

    fn trigger(&mut self, object: &Object) {
        let Some(table) = self.schema.table_named(&object.table).map(|table| table.oid) else { return };
        let (oid, name, definition) = (self.oid(object), object.name.clone(), object.definition.clone());
        self.schema.triggers.push(Trigger { oid, name, table, definition });
    }

    fn constraint(&mut self, name: String, table: u32, demand: Demand) {
        let position = u32::try_from(self.schema.constraints.len()).unwrap_or(u32::MAX);
        let oid = FIRST_CONSTRAINT.saturating_add(position);
        self.schema.constraints.push(Constraint { oid, name, table, demand });
    }
}

/// The one statement of a definition, if it is understood.
fn parsed(definition: &str) -> Option<Statement> {
    if definition.len() > DEFINITION_LIMIT_BYTES {
        return None;
    }
    let mut statements = Parser::parse_sql(&SQLiteDialect {}, definition).ok()?;
    statements.pop().filter(|_| statements.is_empty())
}

pub(super) fn table_text(definition: &str) -> Text {
    let mut text = Text::default();
    let Some(Statement::CreateTable(table)) = parsed(definition) else { return text };
    for column in &table.columns {
        for option in &column.options {
            match &option.option {
                ColumnOption::Check(check) => {
                    let name = option.name.as_ref().or(check.name.as_ref()).map(|name| name.value.clone());
                    text.checks.push((name, check.expr.to_string()));
                }
                ColumnOption::Unique(_) => text.key(option.name.as_ref(), false, vec![column.name.value.clone()]),
                ColumnOption::PrimaryKey(_) => text.key(option.name.as_ref(), true, vec![column.name.value.clone()]),
                ColumnOption::Generated { generation_expr: Some(expression), .. } => {
                    text.generated.insert(column.name.value.to_ascii_lowercase(), expression.to_string());
                }
                _ => {}
            }
        }
    }
    for constraint in &table.constraints {
        match constraint {
            TableConstraint::Check(check) => {
                text.checks.push((check.name.as_ref().map(|name| name.value.clone()), check.expr.to_string()));
            }
            TableConstraint::Unique(key) => text.key(key.name.as_ref(), false, columns_of(&key.columns)),
            TableConstraint::PrimaryKey(key) => text.key(key.name.as_ref(), true, columns_of(&key.columns)),
            _ => {}
        }
    }
    text
}

fn columns_of(columns: &[IndexColumn]) -> Vec<String> {
    let name = |column: &IndexColumn| match &column.column.expr {
        Expr::Identifier(name) => name.value.clone(),
        other => other.to_string(),
    };
    columns.iter().map(name).collect()
}

/// The expressions of an index's key, by position, and which rows are in it.
fn index_text(definition: &str) -> (Vec<String>, Option<String>) {
    let Some(Statement::CreateIndex(index)) = parsed(definition) else { return (Vec::new(), None) };
    let key = |expression: &Expr| match expression {
        Expr::Nested(inner) => inner.to_string(),
        other => other.to_string(),
    };
    let keys = index.columns.iter().map(|column| key(&column.column.expr)).collect();
    (keys, index.predicate.map(|predicate| predicate.to_string()))
}

/// The query of a view; its whole definition if that is not understood.
fn view_query(definition: &str) -> String {
    match parsed(definition) {
        Some(Statement::CreateView(view)) => format!(" {};", view.query),
        _ => definition.to_owned(),
    }
}
