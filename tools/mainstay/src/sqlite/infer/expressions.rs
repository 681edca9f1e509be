//! The types of expressions and of the columns of queries.

use mainstay::server::pg::PgType;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FromTable, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, TableFactor, TableObject, TableWithJoins,
    UnaryOperator, Value,
};

use super::super::functions::{self, Returns};
use super::super::values::declared_type;
use super::scope::{Column, FromClause, Relation, Scope, last_name};

/// Functions whose result is an integer or NULL, whatever they are given.
const INTEGER_FUNCTIONS: &[&str] = &[
    "count",
    "dense_rank",
    "instr",
    "length",
    "ntile",
    "octet_length",
    "random",
    "rank",
    "row_number",
    "sign",
    "unicode",
    "unixepoch",
];
/// Functions whose result is a floating point number or NULL.
const REAL_FUNCTIONS: &[&str] = &["avg", "cume_dist", "julianday", "percent_rank", "round", "total"];
/// Functions whose result is of the type of their first argument.
const PASSING_FUNCTIONS: &[&str] =
    &["abs", "first_value", "lag", "last_value", "lead", "likely", "nth_value", "nullif", "sum", "unlikely"];
/// Of these, the ones that make numbers of other values.
const NUMBER_FUNCTIONS: &[&str] = &["abs", "sum"];
/// Those of the above whose result is decimal, in PostgreSQL, if their argument is.
const DECIMAL_FUNCTIONS: &[&str] = &["avg", "round"];
/// Functions whose result is one of their arguments.
const CHOOSING_FUNCTIONS: &[&str] = &["coalesce", "ifnull", "max", "min"];
/// Functions that choose by their first argument among the others.
pub(super) const CONDITIONAL_FUNCTIONS: &[&str] = &["if", "iif"];
/// Functions, and words that stand for one, whose result is a date or a time, as text, or NULL.
const CLOCK_FUNCTIONS: &[(&str, PgType)] = &[
    ("current_date", PgType::DATE),
    ("current_time", PgType::TIME),
    ("current_timestamp", PgType::TIMESTAMPTZ),
    ("date", PgType::DATE),
    ("datetime", PgType::TIMESTAMP),
    ("time", PgType::TIME),
];

/// The columns of a statement's rows; `None` if it has none, or is not understood.
pub(super) fn statement_columns(statement: &Statement, scope: &Scope<'_>) -> Option<Vec<Column>> {
    let (items, target) = match statement {
        Statement::Query(query) => return query_columns(query, scope),
        Statement::Insert(insert) => {
            let TableObject::TableName(name) = &insert.table else { return None };
            let table = scope.table(last_name(name)?)?;
            let alias = insert.table_alias.as_ref().map(|alias| alias.alias.value.clone());
            (&insert.returning, table.aliased(alias))
        }
        Statement::Update(update) => (&update.returning, target_of(&update.table, scope)?),
        Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
            (&delete.returning, target_of(tables.first()?, scope)?)
        }
        _ => return None,
    };
    let from = FromClause::of(vec![target]);
    item_columns(items.as_ref()?, &scope.within(&from))
}

/// The table that an UPDATE or DELETE changes.
pub(super) fn target_of(table: &TableWithJoins, scope: &Scope<'_>) -> Option<Relation> {
    let TableFactor::Table { name, alias, .. } = &table.relation else { return None };
    Some(scope.table(last_name(name)?)?.aliased(alias.as_ref().map(|alias| alias.name.value.clone())))
}

/// The columns of a query.
pub(super) fn query_columns(query: &Query, scope: &Scope<'_>) -> Option<Vec<Column>> {
    let scope = scope.deeper()?;
    let named = scope.named_by(query);
    body_columns(&query.body, &scope.knowing(&named))
}

/// The columns of a query without its clauses.
pub(super) fn body_columns(body: &SetExpr, scope: &Scope<'_>) -> Option<Vec<Column>> {
    let scope = scope.deeper()?;
    match body {
        SetExpr::Select(select) => select_columns(select, &scope),
        SetExpr::Query(query) => query_columns(query, &scope),
        SetExpr::SetOperation { left, right, .. } => {
            let (left, right) = (body_columns(left, &scope)?, body_columns(right, &scope)?);
            let agree =
                |(left, right): (Column, Column)| Column { pg_type: both(left.pg_type, right.pg_type, &scope), ..left };
            (left.len() == right.len()).then(|| left.into_iter().zip(right).map(agree).collect())
        }
        SetExpr::Values(values) => {
            let mut rows = values.rows.iter();
            let mut types: Vec<_> = rows.next()?.content.iter().map(|value| type_of(value, &scope)).collect();
            for row in rows {
                types = types
                    .into_iter()
                    .zip(&row.content)
                    .map(|(one, other)| both(one, type_of(other, &scope), &scope))
                    .collect();
            }
            Some(types.into_iter().map(|pg_type| Column::of_query(None, pg_type)).collect())
        }
        SetExpr::Insert(statement) | SetExpr::Update(statement) | SetExpr::Delete(statement) => {
            statement_columns(statement, &scope)
        }
        _ => None,
    }
}

/// The type of a column of two queries, or rows, at once.
fn both(one: Option<PgType>, other: Option<PgType>, scope: &Scope<'_>) -> Option<PgType> {
    if scope.open_parameters && (one.is_none() || other.is_none()) { one.or(other) } else { common(one?, other?) }
}

fn select_columns(select: &Select, scope: &Scope<'_>) -> Option<Vec<Column>> {
    let from = scope.from(&select.from);
    item_columns(&select.projection, &scope.within(&from))
}

/// The columns that a list of results makes.
pub(super) fn item_columns(items: &[SelectItem], scope: &Scope<'_>) -> Option<Vec<Column>> {
    let mut columns = Vec::new();
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expression) => {
                let name = match expression {
                    Expr::Identifier(name) => Some(name.value.clone()),
                    Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.clone()),
                    _ => None,
                };
                columns.push(Column::of_query(name, type_of(expression, scope)));
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                columns.push(Column::of_query(Some(alias.value.clone()), type_of(expr, scope)));
            }
            // If something in FROM is not known, or joined by equal names, the number of columns shows it.
            SelectItem::Wildcard(_) => {
                columns.extend(scope.relations().iter().flat_map(|relation| relation.columns.clone()));
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let table = last_name(name)?;
                let relation = scope.relations().iter().find(|relation| relation.is_called(&table))?;
                columns.extend(relation.columns.clone());
            }
            _ => return None,
        }
    }
    Some(columns)
}

/// The type of an expression.
pub(super) fn type_of(expression: &Expr, scope: &Scope<'_>) -> Option<PgType> {
    let scope = &scope.deeper()?;
    match expression {
        Expr::Nested(inner)
        | Expr::UnaryOp { op: UnaryOperator::Plus, expr: inner }
        | Expr::Collate { expr: inner, .. } => type_of(inner, scope),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => type_of(expr, scope).filter(is_number),
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, .. } => Some(PgType::INT8),
        Expr::Value(value) => literal_type(&value.value),
        Expr::Identifier(name) => scope.column(None, name),
        Expr::CompoundIdentifier(names) => match names.as_slice() {
            [table, name] | [_, table, name] => scope.column(Some(table), name),
            _ => None,
        },
        Expr::BinaryOp { left, op, right } => operator_type(left, op, right, scope),
        Expr::UnaryOp { op: UnaryOperator::Not, .. }
        | Expr::Exists { .. }
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::Like { .. } => Some(PgType::BOOL),
        Expr::Cast { data_type: DataType::Boolean | DataType::Bool, expr, .. } => {
            is_parameter(expr).then_some(PgType::BOOL)
        }
        Expr::Cast { data_type, .. } => cast_type(data_type),
        Expr::Case { conditions, else_result, .. } => {
            let results = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
            common_type(results, scope)
        }
        Expr::Subquery(query) => match query_columns(query, scope)?.as_slice() {
            [column] => column.pg_type,
            _ => None,
        },
        // The parser has them apart from other functions.
        Expr::Floor { .. } | Expr::Ceil { .. } => Some(PgType::FLOAT8),
        Expr::Function(function) => function_type(function, scope),
        _ => None,
    }
}

fn literal_type(value: &Value) -> Option<PgType> {
    match value {
        Value::Number(digits, _) if digits.parse::<i64>().is_ok() => Some(PgType::INT8),
        Value::Number(digits, _) if digits.parse::<f64>().is_ok() => Some(PgType::FLOAT8),
        Value::SingleQuotedString(_) => Some(PgType::TEXT),
        Value::HexStringLiteral(_) => Some(PgType::BYTEA),
        Value::Boolean(_) => Some(PgType::BOOL),
        _ => None,
    }
}

/// Whether it is a parameter, and nothing else.
pub(super) fn is_parameter(expression: &Expr) -> bool {
    matches!(expression, Expr::Value(value) if matches!(value.value, Value::Placeholder(_)))
}

pub(super) fn is_number(pg_type: &PgType) -> bool {
    matches!(*pg_type, PgType::INT8 | PgType::FLOAT8 | PgType::NUMERIC)
}

/// The type of a value that may have either type: the wider one of numbers.
pub(super) fn common(one: PgType, other: PgType) -> Option<PgType> {
    if one == other {
        Some(one)
    } else if !(is_number(&one) && is_number(&other)) {
        None
    } else if one == PgType::FLOAT8 || other == PgType::FLOAT8 {
        Some(PgType::FLOAT8)
    } else {
        Some(PgType::NUMERIC)
    }
}

/// The type that all these have, but for those that are NULL and for parameters: these have it too, unless the client
/// declares a parameter as a number of another type, which an integer may become but nothing else.
fn common_type<'a>(expressions: impl Iterator<Item = &'a Expr>, scope: &Scope<'_>) -> Option<PgType> {
    let is_null = |expression: &Expr| matches!(expression, Expr::Value(value) if value.value == Value::Null);
    let (parameters, others): (Vec<&Expr>, Vec<&Expr>) =
        expressions.filter(|expression| !is_null(expression)).partition(|expression| is_parameter(expression));
    let mut types = others.into_iter().map(|expression| type_of(expression, scope));
    let first = types.next()??;
    let all = types.try_fold(first, |one, other| common(one, other?))?;
    (scope.open_parameters || parameters.is_empty() || all != PgType::INT8).then_some(all)
}

fn operator_type(left: &Expr, op: &BinaryOperator, right: &Expr, scope: &Scope<'_>) -> Option<PgType> {
    use BinaryOperator::{
        And, BitwiseAnd, BitwiseOr, Divide, Eq, Glob, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or,
        PGBitwiseShiftLeft, PGBitwiseShiftRight, Plus, StringConcat,
    };
    match op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or | Glob => Some(PgType::BOOL),
        StringConcat => Some(PgType::TEXT),
        BitwiseAnd | BitwiseOr | PGBitwiseShiftLeft | PGBitwiseShiftRight => Some(PgType::INT8),
        Plus | Minus | Multiply | Divide | Modulo => common_type([left, right].into_iter(), scope).filter(is_number),
        _ => None,
    }
}

/// CAST makes every value that is not NULL one of these; as to other types, it depends on the value.
fn cast_type(data_type: &DataType) -> Option<PgType> {
    let pg_type = declared_type(&data_type.to_string());
    let is_text = ["char", "clob", "text"].iter().any(|name| data_type.to_string().to_ascii_lowercase().contains(name));
    (is_number(&pg_type) || pg_type == PgType::BYTEA || is_text).then_some(pg_type)
}

fn function_type(function: &Function, scope: &Scope<'_>) -> Option<PgType> {
    let name = function.name.to_string();
    if let Some(known) = functions::find(&name) {
        return returned(known.returns, function, scope);
    }
    let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(&name));
    if is(INTEGER_FUNCTIONS) {
        return Some(PgType::INT8);
    }
    if let Some((_, pg_type)) = CLOCK_FUNCTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
        return Some(*pg_type);
    }
    let arguments = arguments(function);
    let passed = || type_of(arguments.as_ref()?.first()?, scope);
    if is(REAL_FUNCTIONS) {
        let is_decimal = is(DECIMAL_FUNCTIONS) && passed() == Some(PgType::NUMERIC);
        return Some(if is_decimal { PgType::NUMERIC } else { PgType::FLOAT8 });
    }
    if is(NUMBER_FUNCTIONS) {
        return passed().filter(is_number);
    }
    if is(PASSING_FUNCTIONS) {
        return passed();
    }
    let arguments = arguments.as_deref()?;
    if is(CHOOSING_FUNCTIONS) {
        return common_type(arguments.iter().copied(), scope);
    }
    match arguments {
        [_, results @ ..] if is(CONDITIONAL_FUNCTIONS) && (1..=2).contains(&results.len()) => {
            common_type(results.iter().copied(), scope)
        }
        _ => None,
    }
}

/// The type that a function of ours makes of these arguments.
fn returned(returns: Returns, function: &Function, scope: &Scope<'_>) -> Option<PgType> {
    match returns {
        Returns::Type(pg_type) => Some(pg_type),
        Returns::OneOf => common_type(arguments(function)?.into_iter(), scope),
        Returns::Moment => match type_of(arguments(function)?.get(1)?, scope) {
            Some(PgType::TIMESTAMP) => Some(PgType::TIMESTAMP),
            _ => Some(PgType::TIMESTAMPTZ),
        },
    }
}

/// What a function is called with; `None` if that is more than expressions.
pub(super) fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    list.args.iter().map(argument).collect()
}

fn argument(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
        _ => None,
    }
}
