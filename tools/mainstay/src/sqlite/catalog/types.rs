//! Types of expressions over the catalogs, as far as they are certain: what a column is sent as, and how it is shown.

use std::collections::HashMap;
use std::ops::ControlFlow;

use mainstay::server::pg::PgType;
use mainstay::server::pg::catalog::Relation;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Select,
    SelectItem, SetExpr, TableFactor, TableWithJoins, UnaryOperator, Value, VisitMut, VisitorMut,
};

use super::{functions, rewrite};

/// The columns of the relations that a query names, by name. Columns of one name are of one type in almost all of them.
/// Behind them, the names that the query itself gives.
pub(super) struct Columns(HashMap<&'static str, PgType>, HashMap<String, PgType>);

/// How often aliases of aliases are looked at.
const ALIAS_ROUNDS: usize = 4;

/// Names, in lower case, and what they are given to.
struct Aliases(Vec<(String, Expr)>);

impl VisitorMut for Aliases {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { expr, alias } = item {
                self.0.push((alias.value.to_ascii_lowercase(), expr.clone()));
            }
        }
        ControlFlow::Continue(())
    }
}

impl Columns {
    pub(super) fn of(relations: &[&'static Relation]) -> Columns {
        Columns(relations.iter().flat_map(|relation| relation.columns.iter().copied()).collect(), HashMap::new())
    }

    /// Adds the names that a query's own queries give to expressions of certain types.
    pub(super) fn add_aliases(&mut self, query: &mut Query) {
        let mut aliases = Aliases(Vec::new());
        let _ = query.visit(&mut aliases);
        // One may be made of another, which comes later in the text as a rule.
        for _ in 0..ALIAS_ROUNDS {
            let before = self.1.len();
            for (name, expression) in aliases.0.iter().rev() {
                if self.find(name).is_none()
                    && let Some(pg_type) = of(expression, self)
                {
                    self.1.insert(name.clone(), pg_type);
                }
            }
            if before == self.1.len() {
                return;
            }
        }
    }

    fn find(&self, name: &str) -> Option<PgType> {
        let name = name.to_ascii_lowercase();
        self.0.get(name.as_str()).or_else(|| self.1.get(&name)).copied()
    }
}

/// The types of a query's columns; `None` if a wildcard hides how many there are.
pub(super) fn of_projection(body: &SetExpr, columns: &Columns) -> Option<Vec<Option<PgType>>> {
    match body {
        SetExpr::Select(select) => {
            let mut types = Vec::new();
            for item in &select.projection {
                match item {
                    SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } => {
                        types.push(of(expression, columns));
                    }
                    SelectItem::Wildcard(_) => types.extend(of_tables(&select.from, columns)?),
                    _ => return None,
                }
            }
            Some(types)
        }
        SetExpr::Query(query) => of_projection(&query.body, columns),
        SetExpr::SetOperation { left, .. } => of_projection(left, columns),
        _ => None,
    }
}

/// The types of all columns of what a query reads, if it is clear how many there are.
fn of_tables(tables: &[TableWithJoins], columns: &Columns) -> Option<Vec<Option<PgType>>> {
    let mut types = Vec::new();
    for table in tables {
        match &table.relation {
            // What joins may merge columns.
            _ if !table.joins.is_empty() => return None,
            TableFactor::Derived { subquery, .. } => types.extend(of_projection(&subquery.body, columns)?),
            // Their columns say themselves what type they are.
            TableFactor::Table { name, args: None, .. } => {
                types.extend(rewrite::relation(name)?.columns.iter().map(|_| None));
            }
            _ => return None,
        }
    }
    Some(types)
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
        Expr::Interval(_) => Some(PgType::INTERVAL),
        Expr::TypedString(typed) => rewrite::cast_type(&typed.data_type),
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => Some(PgType::BOOL),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => of(expr, columns),
        Expr::BinaryOp { left, op, right } => binary(op, of(left, columns), of(right, columns)),
        Expr::Cast { data_type, .. } => match data_type {
            DataType::Integer(_) => Some(PgType::INT8),
            DataType::Real => Some(PgType::FLOAT8),
            DataType::Text => Some(PgType::TEXT),
            // As it is before it is rewritten.
            other => rewrite::cast_type(other),
        },
        Expr::Function(function) => {
            let name = rewrite::function_name(&function.name)?;
            of_call(&name, arguments(function).find_map(|argument| of(argument, columns)))
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

/// The expressions that a function is called with.
fn arguments(function: &Function) -> impl Iterator<Item = &Expr> {
    let list = match &function.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        _ => &[],
    };
    list.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
        _ => None,
    })
}

/// The type of the first argument of a call whose type is certain.
pub(super) fn of_argument(function: &Function, columns: &Columns) -> Option<PgType> {
    arguments(function).find_map(|argument| of(argument, columns))
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
        BinaryOperator::Minus if is_time(left) && is_time(right) => Some(PgType::INTERVAL),
        BinaryOperator::Plus | BinaryOperator::Minus if is_time(left) && right == Some(PgType::INTERVAL) => {
            Some(PgType::TIMESTAMPTZ)
        }
        BinaryOperator::Plus if left == Some(PgType::INTERVAL) && is_time(right) => Some(PgType::TIMESTAMPTZ),
        BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Multiply | BinaryOperator::Divide
            if left == Some(PgType::INTERVAL) || right == Some(PgType::INTERVAL) =>
        {
            Some(PgType::INTERVAL)
        }
        BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Multiply | BinaryOperator::Divide => {
            let integer = |side| matches!(side, Some(PgType::INT2 | PgType::INT4 | PgType::INT8 | PgType::OID));
            (integer(left) && integer(right)).then_some(PgType::INT8)
        }
        _ => None,
    }
}

/// Whether values of this type are texts that name a time.
pub(super) fn is_time(pg_type: Option<PgType>) -> bool {
    matches!(pg_type, Some(PgType::TIMESTAMPTZ | PgType::TIMESTAMP | PgType::DATE))
}

/// The type of a call, of which one argument has this type.
fn of_call(name: &str, argument: Option<PgType>) -> Option<PgType> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "min" | "max" | "coalesce" | "nullif" | "bool_and" | "bool_or" | "every" => argument,
        "json_object" | "json_build_object" => Some(PgType::JSON),
        "generate_subscripts" => Some(PgType::INT4),
        "generate_series" if is_time(argument) => Some(PgType::TIMESTAMPTZ),
        "generate_series" => Some(PgType::INT8),
        "current_timestamp" => Some(PgType::TIMESTAMPTZ),
        "current_date" => Some(PgType::DATE),
        "unnest" => Some(match argument? {
            PgType::INT2_VECTOR | PgType::INT2_ARRAY => PgType::INT2,
            PgType::OID_VECTOR | PgType::OID_ARRAY => PgType::OID,
            PgType::NAME_ARRAY => PgType::NAME,
            _ => PgType::TEXT,
        }),
        "pg_bool_array_agg" => Some(PgType::BOOL_ARRAY),
        "array_agg" => Some(match argument {
            Some(PgType::BOOL) => PgType::BOOL_ARRAY,
            Some(PgType::INT2 | PgType::INT4 | PgType::INT8) => PgType::INT8_ARRAY,
            Some(PgType::OID) => PgType::OID_ARRAY,
            _ => PgType::TEXT_ARRAY,
        }),
        "count" | "length" | "row_number" | "rank" => Some(PgType::INT8),
        "lower" | "upper" | "substr" | "string_agg" | "concat" | "replace" | "trim" => Some(PgType::TEXT),
        "pg_array_or_empty" => Some(PgType::TEXT_ARRAY),
        name => functions::find(name).map(|known| known.returns),
    }
}
