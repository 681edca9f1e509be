//! Types of expressions over the catalogs, as far as they are certain: what a column is sent as, and how it is shown.

use std::collections::HashMap;

use mainstay::server::pg::PgType;
use mainstay::server::pg::catalog::Relation;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, SelectItem,
    SetExpr, UnaryOperator, Value,
};

use super::functions;

/// The columns of the relations that a query names, by name. Columns of one name are of one type in almost all of them.
pub(super) struct Columns(HashMap<&'static str, PgType>);

impl Columns {
    pub(super) fn of(relations: &[&'static Relation]) -> Columns {
        Columns(relations.iter().flat_map(|relation| relation.columns.iter().copied()).collect())
    }

    fn find(&self, name: &str) -> Option<PgType> {
        self.0.get(name.to_ascii_lowercase().as_str()).copied()
    }
}

/// The types of a query's columns; `None` if a wildcard hides how many there are.
pub(super) fn of_projection(body: &SetExpr, columns: &Columns) -> Option<Vec<Option<PgType>>> {
    match body {
        SetExpr::Select(select) => select
            .projection
            .iter()
            .map(|item| match item {
                SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } => {
                    Some(of(expression, columns))
                }
                _ => None,
            })
            .collect(),
        SetExpr::Query(query) => of_projection(&query.body, columns),
        SetExpr::SetOperation { left, .. } => of_projection(left, columns),
        _ => None,
    }
}

/// Expressions are looked into so deep: they grow as deep as they are long, and a session's stack does not.
pub(super) const DEPTH_LIMIT: usize = 32;

/// The type of an expression, if it is certain.
pub(super) fn of(expression: &Expr, columns: &Columns) -> Option<PgType> {
    within(expression, columns, DEPTH_LIMIT)
}

fn within(expression: &Expr, columns: &Columns, depth: usize) -> Option<PgType> {
    let depth = depth.checked_sub(1)?;
    let of = |expression: &Expr, columns: &Columns| within(expression, columns, depth);
    match expression {
        Expr::Identifier(ident) => columns.find(&ident.value),
        Expr::CompoundIdentifier(parts) => columns.find(&parts.last()?.value),
        Expr::Nested(inner) => of(inner, columns),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => Some(if digits.parse::<i64>().is_ok() { PgType::INT8 } else { PgType::FLOAT8 }),
            Value::Boolean(_) => Some(PgType::BOOL),
            Value::SingleQuotedString(_) => Some(PgType::TEXT),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => Some(PgType::BOOL),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => of(expr, columns),
        Expr::BinaryOp { left, op, right } => binary(op, of(left, columns), of(right, columns)),
        Expr::Cast { data_type, .. } => match data_type {
            DataType::Integer(_) => Some(PgType::INT8),
            DataType::Real => Some(PgType::FLOAT8),
            DataType::Text => Some(PgType::TEXT),
            _ => None,
        },
        Expr::Function(function) => {
            let first = |list: &FunctionArgumentList| {
                list.args.iter().find_map(|argument| match argument {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => of(expression, columns),
                    _ => None,
                })
            };
            of_call(
                &function.name.to_string(),
                match &function.args {
                    FunctionArguments::List(list) => first(list),
                    _ => None,
                },
            )
        }
        Expr::Case { conditions, else_result, .. } => {
            let results = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
            results.into_iter().find_map(|result| of(result, columns))
        }
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } => {
                    of(expression, columns)
                }
                _ => None,
            },
            _ => None,
        },
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::Exists { .. }
        | Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::Like { .. } => Some(PgType::BOOL),
        _ => None,
    }
}

fn binary(op: &BinaryOperator, left: Option<PgType>, right: Option<PgType>) -> Option<PgType> {
    match op {
        BinaryOperator::Eq
        | BinaryOperator::NotEq
        | BinaryOperator::Lt
        | BinaryOperator::LtEq
        | BinaryOperator::Gt
        | BinaryOperator::GtEq
        | BinaryOperator::And
        | BinaryOperator::Or => Some(PgType::BOOL),
        BinaryOperator::StringConcat => Some(PgType::TEXT),
        BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Multiply | BinaryOperator::Divide => {
            let integer = |side| matches!(side, Some(PgType::INT2 | PgType::INT4 | PgType::INT8 | PgType::OID));
            (integer(left) && integer(right)).then_some(PgType::INT8)
        }
        _ => None,
    }
}

/// The type of a call, of which one argument has this type.
fn of_call(name: &str, argument: Option<PgType>) -> Option<PgType> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "min" | "max" | "coalesce" | "nullif" => argument,
        "count" | "length" | "row_number" | "rank" => Some(PgType::INT8),
        "lower" | "upper" | "substr" | "string_agg" | "concat" | "replace" | "trim" => Some(PgType::TEXT),
        "array_agg" | "pg_array_or_empty" => Some(PgType::TEXT_ARRAY),
        name => functions::find(name).map(|known| known.returns),
    }
}
