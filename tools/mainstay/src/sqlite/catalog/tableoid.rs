//! The column `tableoid`, which every relation has and `SELECT *` does not show: the number of the relation that its table is,
//! known from the query's text.

use sqlparser::ast::{Expr, Ident, Select, TableFactor, Value};

use super::rewrite::relation;

/// What the column is called.
pub(super) const NAME: &str = "tableoid";

/// The relations of the SELECTs that are being visited, innermost last: what each is called there, in lower case, and its
/// number.
#[derive(Default)]
pub(super) struct Scopes(Vec<Vec<(String, u32)>>);

impl Scopes {
    /// A SELECT begins.
    pub(super) fn enter(&mut self, select: &Select) {
        let joined = |table: &sqlparser::ast::TableWithJoins| {
            let joins = table.joins.iter().map(|join| &join.relation);
            std::iter::once(&table.relation).chain(joins).filter_map(named).collect::<Vec<_>>()
        };
        self.0.push(select.from.iter().flat_map(joined).collect());
    }

    /// It ends.
    pub(super) fn leave(&mut self) {
        self.0.pop();
    }

    /// The number that a column stands for, if it is this one and of a relation of the catalogs.
    pub(super) fn number(&self, parts: &[Ident]) -> Option<Expr> {
        let (column, table) = match parts {
            [column] => (column, None),
            [table, column] => (column, Some(table.value.to_ascii_lowercase())),
            _ => return None,
        };
        if !column.value.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut known = self.0.iter().rev().flatten();
        let found = match table {
            Some(table) => known.find(|(name, _)| *name == table),
            None => known.next(),
        };
        found.map(|(_, oid)| Expr::Value(Value::Number(oid.to_string(), false).into()))
    }
}

fn named(factor: &TableFactor) -> Option<(String, u32)> {
    let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
    let found = relation(name)?;
    let called = alias.as_ref().map_or(found.name, |alias| alias.name.value.as_str());
    Some((called.to_ascii_lowercase(), found.oid()))
}
