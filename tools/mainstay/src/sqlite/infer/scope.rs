//! What names mean at one place of a statement, and how much work is spent to find that out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use mainstay::server::pg::PgType;
use rusqlite::{Connection, OptionalExtension};
use sqlparser::ast::{Ident, ObjectName, Query, SetExpr, Statement, TableAlias, TableFactor, TableWithJoins};

use super::super::values::{declared_type, is_undeclared};
use super::expressions::{body_columns, query_columns};

/// Expressions and queries within one another, as deep as they are looked at.
const DEPTH_LIMIT: usize = 32;
/// Expressions and queries of one statement that are looked at, some of them more than once.
const STEP_LIMIT: usize = 50_000;
/// The tables of one FROM clause, or of one WITH clause.
pub(super) const CLAUSE_LIMIT: usize = 16;
/// The tables of one statement whose columns are looked up, with those that its views are made of.
const TABLE_LIMIT: usize = 32;

/// A column of a table or query.
#[derive(Clone)]
pub(super) struct Column {
    /// As it may be called; nothing if that is SQLite's secret.
    pub(super) name: Option<String>,
    pub(super) pg_type: Option<PgType>,
    /// Its values are SQLite's to compute, so no INSERT gives them.
    pub(super) is_generated: bool,
}

impl Column {
    pub(super) fn of_query(name: Option<String>, pg_type: Option<PgType>) -> Column {
        Column { name, pg_type, is_generated: false }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name))
    }
}

/// What one name of a FROM clause, or of a WITH clause, stands for.
#[derive(Clone)]
pub(super) struct Relation {
    pub(super) name: String,
    /// None if they are not known.
    pub(super) columns: Vec<Column>,
    is_table: bool,
}

impl Relation {
    pub(super) fn of_query(columns: Vec<Column>) -> Relation {
        Relation { name: String::new(), columns, is_table: false }
    }

    pub(super) fn renamed(self, alias: &TableAlias) -> Relation {
        let mut columns = self.columns;
        for (column, name) in columns.iter_mut().zip(&alias.columns) {
            column.name = Some(name.name.value.clone());
        }
        Relation { name: alias.name.value.clone(), columns, ..self }
    }

    /// Under another name, if it has one.
    pub(super) fn aliased(self, alias: Option<String>) -> Relation {
        Relation { name: alias.unwrap_or(self.name), ..self }
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The type of a column, if it has one of that name.
    pub(super) fn column(&self, name: &str) -> Option<Option<PgType>> {
        let own = self.columns.iter().find(|column| column.is_called(name)).map(|column| column.pg_type);
        let is_rowid = ["rowid", "oid", "_rowid_"].iter().any(|rowid| rowid.eq_ignore_ascii_case(name));
        own.or_else(|| (self.is_table && is_rowid).then_some(Some(PgType::INT8)))
    }
}

/// What is known while one statement is looked at.
pub(super) struct Context<'a> {
    connection: &'a Connection,
    steps_left: Cell<usize>,
    /// The columns of tables and views that were looked up, by their names in lower case.
    tables: RefCell<HashMap<String, Vec<Column>>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(connection: &'a Connection) -> Context<'a> {
        Context { connection, steps_left: Cell::new(STEP_LIMIT), tables: RefCell::default() }
    }
}

/// What names mean at one place of a statement.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    context: &'a Context<'a>,
    /// Those of WITH clauses.
    named: &'a [Relation],
    /// Those of the FROM clause.
    relations: &'a [Relation],
    /// Every one of them is known.
    is_whole: bool,
    /// The query's own columns, which are meant by names that nothing in FROM has.
    results: &'a [Column],
    /// Around the query.
    outer: Option<&'a Scope<'a>>,
    depth: usize,
    /// Parameters have the type of what they stand beside, for certain: so it is while their types are looked for, but not for
    /// the columns that are announced to a client, which may have declared them otherwise.
    pub(super) open_parameters: bool,
}

impl<'a> Scope<'a> {
    /// That of a whole statement.
    pub(super) fn new(context: &'a Context<'a>) -> Scope<'a> {
        Scope {
            context,
            named: &[],
            relations: &[],
            is_whole: true,
            results: &[],
            outer: None,
            depth: 0,
            open_parameters: false,
        }
    }

    pub(super) fn with_open_parameters(context: &'a Context<'a>) -> Scope<'a> {
        Scope { open_parameters: true, ..Scope::new(context) }
    }

    /// One level further down; `None` if that is too deep, or enough was looked at.
    pub(super) fn deeper(&self) -> Option<Scope<'a>> {
        let left = self.context.steps_left.get().checked_sub(1)?;
        self.context.steps_left.set(left);
        (self.depth < DEPTH_LIMIT).then_some(Scope { depth: self.depth + 1, ..*self })
    }

    /// Behind a WITH clause.
    pub(super) fn knowing(self, named: &'a [Relation]) -> Scope<'a> {
        Scope { named, ..self }
    }

    /// Within a query that stands here, behind its FROM clause.
    pub(super) fn within(&'a self, from: &'a FromClause) -> Scope<'a> {
        let FromClause { relations, is_whole } = from;
        Scope { relations, is_whole: *is_whole, results: &[], outer: Some(self), ..*self }
    }

    /// Behind the columns of the query.
    pub(super) fn with_results(self, results: &'a [Column]) -> Scope<'a> {
        Scope { results, ..self }
    }

    pub(super) fn relations(&self) -> &'a [Relation] {
        self.relations
    }

    /// The type of the column that a name means.
    pub(super) fn column(&self, table: Option<&Ident>, name: &Ident) -> Option<PgType> {
        let called = |relation: &&Relation| table.is_none_or(|table| relation.is_called(&table.value));
        let mut found = self.relations.iter().filter(called).filter_map(|relation| relation.column(&name.value));
        let Some(first) = found.next() else { return self.column_beyond(table, name) };
        // A name that two tables have is the same column only if they are joined by it, and then of one type.
        found.all(|other| other == first).then_some(first).flatten()
    }

    fn column_beyond(&self, table: Option<&Ident>, name: &Ident) -> Option<PgType> {
        if !self.is_whole {
            return None;
        }
        let result = self.results.iter().find(|column| table.is_none() && column.is_called(&name.value));
        match result {
            Some(column) => column.pg_type,
            None => self.outer?.column(table, name),
        }
    }

    /// What the WITH clauses up to a query's own one name.
    pub(super) fn named_by(&self, query: &Query) -> Vec<Relation> {
        let mut named = self.named.to_vec();
        for table in query.with.iter().flat_map(|with| &with.cte_tables).take(CLAUSE_LIMIT) {
            let relation = |columns: Option<_>| Relation::of_query(columns.unwrap_or_default()).renamed(&table.alias);
            // What names itself begins with something that does not.
            let mut first = &*table.query.body;
            while let SetExpr::SetOperation { left, .. } = first {
                first = left;
            }
            if !std::ptr::eq(first, &*table.query.body) && table.query.with.is_none() {
                let begun = relation(body_columns(first, &self.knowing(&named)));
                named.push(begun);
                let whole = relation(query_columns(&table.query, &self.knowing(&named)));
                named.pop();
                named.push(whole);
            } else {
                let whole = relation(query_columns(&table.query, &self.knowing(&named)));
                named.push(whole);
            }
        }
        named
    }

    /// What a FROM clause names.
    pub(super) fn from(&self, tables: &[TableWithJoins]) -> FromClause {
        let mut from = FromClause { relations: Vec::new(), is_whole: true };
        for table in tables {
            self.add_joined(table, &mut from);
        }
        from
    }

    fn add_joined(&self, table: &TableWithJoins, from: &mut FromClause) {
        let joined = table.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&table.relation).chain(joined).take(CLAUSE_LIMIT) {
            match (factor, self.deeper()) {
                (TableFactor::NestedJoin { table_with_joins, alias: None }, Some(scope)) => {
                    scope.add_joined(table_with_joins, from);
                }
                (_, Some(scope)) => from.add(scope.relation(factor)),
                (_, None) => from.add(None),
            }
        }
        from.is_whole &= table.joins.len() < CLAUSE_LIMIT;
    }

    fn relation(&self, factor: &TableFactor) -> Option<Relation> {
        let (known, alias) = match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let table = last_name(name)?;
                let named = self.named.iter().rev().find(|known| known.is_called(&table));
                let known = match named.filter(|_| name.0.len() == 1) {
                    Some(known) => known.clone(),
                    None => self.table(table)?,
                };
                (known, alias)
            }
            TableFactor::Derived { subquery, alias, .. } => (Relation::of_query(query_columns(subquery, self)?), alias),
            _ => return None,
        };
        Some(match alias {
            Some(alias) => known.renamed(alias),
            None => known,
        })
    }

    /// A table or view of the database.
    pub(super) fn table(&self, name: String) -> Option<Relation> {
        let key = name.to_ascii_lowercase();
        let known = self.context.tables.borrow().get(&key).cloned();
        let columns = match known {
            Some(columns) => columns,
            None => {
                if self.context.tables.borrow().len() >= TABLE_LIMIT {
                    return None;
                }
                let columns = self.stored_columns(&name).ok()?;
                self.context.tables.borrow_mut().insert(key, columns.clone());
                columns
            }
        };
        Some(Relation { name, columns, is_table: true })
    }

    fn stored_columns(&self, table: &str) -> rusqlite::Result<Vec<Column>> {
        // Hidden are 1 what only virtual tables have, 2 and 3 what is generated.
        let sql = "SELECT name, type, hidden FROM pragma_table_xinfo(?1) WHERE hidden <> 1";
        let mut statement = self.context.connection.prepare_cached(sql)?;
        let rows = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let declared: Vec<(String, String, i64)> = rows.collect::<rusqlite::Result<_>>()?;
        let is_suspected = declared.iter().any(|(_, declared, _)| is_undeclared(declared));
        let mut computed = if is_suspected { self.view_columns(table)? } else { None };
        if let Some(computed) = computed.as_mut().filter(|computed| computed.len() != declared.len()) {
            computed.clear();
        }
        let column = |(position, (name, declared, hidden)): (usize, (String, String, i64))| {
            let pg_type = match &computed {
                Some(computed) if is_undeclared(&declared) => computed.get(position).and_then(|column| column.pg_type),
                _ => Some(declared_type(&declared)),
            };
            Column { name: Some(name), pg_type, is_generated: hidden != 0 }
        };
        Ok(declared.into_iter().enumerate().map(column).collect())
    }

    /// The columns of the query that a view is made of, none if they are not known; `None` if it is a table.
    fn view_columns(&self, name: &str) -> rusqlite::Result<Option<Vec<Column>>> {
        const SQL: &str = "SELECT type, sql FROM sqlite_temp_schema WHERE name = ?1 COLLATE NOCASE
            UNION ALL SELECT type, sql FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE";
        let mut statement = self.context.connection.prepare_cached(SQL)?;
        let found = statement.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some(definition) = found.and_then(|(kind, sql): (String, String)| (kind == "view").then_some(sql)) else {
            return Ok(None);
        };
        let Some(Statement::CreateView(view)) = super::parsed(&definition) else { return Ok(Some(Vec::new())) };
        let scope = Scope { depth: self.depth, ..Scope::new(self.context) };
        Ok(Some(query_columns(&view.query, &scope).unwrap_or_default()))
    }
}

/// What a FROM clause names.
pub(super) struct FromClause {
    relations: Vec<Relation>,
    is_whole: bool,
}

impl FromClause {
    pub(super) fn of(relations: Vec<Relation>) -> FromClause {
        FromClause { relations, is_whole: true }
    }

    fn add(&mut self, relation: Option<Relation>) {
        self.is_whole &= relation.as_ref().is_some_and(|relation| !relation.columns.is_empty());
        self.relations.extend(relation);
    }
}

pub(super) fn last_name(name: &ObjectName) -> Option<String> {
    Some(name.0.last()?.as_ident()?.value.clone())
}
