//! Types of result columns that are expressions, where the text alone makes them certain.
//!
//! SQLite does not say what type an expression has, and the client wants to know before the first row. This looks at the
//! statement with a parser that is not SQLite's: what it does not understand is simply not inferred.

use mainstay::server::pg::PgType;
use sqlparser::ast::{Expr, SelectItem, SetExpr, Statement, UnaryOperator, Value};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::Parser;

/// Functions whose result is an integer or NULL, whatever they are given.
const INTEGER_FUNCTIONS: &[&str] = &[
    "count",
    "length",
    "octet_length",
    "changes",
    "last_insert_rowid",
    "total_changes",
    "unixepoch",
    "row_number",
    "rank",
    "dense_rank",
];

/// A type for each of `count` columns where it is certain.
pub(super) fn expression_types(sql: &str, count: usize) -> Vec<Option<PgType>> {
    infer(sql).filter(|types| types.len() == count).unwrap_or_default()
}

fn infer(sql: &str) -> Option<Vec<Option<PgType>>> {
    let statements = Parser::parse_sql(&SQLiteDialect {}, sql).ok()?;
    let [Statement::Query(query)] = statements.as_slice() else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    select.projection.iter().map(item_type).collect()
}

/// `None` for a wildcard, which stands for an unknown number of columns.
fn item_type(item: &SelectItem) -> Option<Option<PgType>> {
    match item {
        SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } => {
            Some(type_of(expression))
        }
        _ => None,
    }
}

fn type_of(expression: &Expr) -> Option<PgType> {
    match expression {
        Expr::Nested(inner) | Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => type_of(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) if digits.parse::<i64>().is_ok() => Some(PgType::INT8),
            Value::Number(digits, _) if digits.parse::<f64>().is_ok() => Some(PgType::FLOAT8),
            _ => None,
        },
        Expr::Function(function) => {
            let name = function.name.to_string();
            let integer = INTEGER_FUNCTIONS.iter().any(|known| known.eq_ignore_ascii_case(&name));
            integer.then_some(PgType::INT8)
        }
        Expr::Exists { .. } => Some(PgType::INT8),
        _ => None,
    }
}
