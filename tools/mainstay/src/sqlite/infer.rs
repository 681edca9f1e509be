//! Types of result columns that are expressions, where the text alone makes them certain.
//!
//! SQLite does not say what type an expression has, and the client wants to know before the first row. This looks at the
//! statement with a parser that is not SQLite's: what it does not understand is simply not inferred. As with any column, the
//! type is what values are announced as; SQLite may hold others in it.

use mainstay::server::pg::PgType;
use rusqlite::Connection;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, TableAlias, TableFactor,
    UnaryOperator, Value,
};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::Parser;

use super::functions::{self, Returns};
use super::session::stored_columns_of;
use super::values::declared_type;

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
/// Functions whose result is one of their arguments.
const CHOOSING_FUNCTIONS: &[&str] = &["coalesce", "ifnull", "max", "min"];

/// Longer statements are not looked at. The parser bounds how deep it goes into parentheses, but not how deep the tree
/// becomes that it builds of `1 IS NULL IS NULL …` or `1 + 1 + …`: one level for every few bytes, and dropping the tree
/// takes stack for every level.
const STATEMENT_LIMIT_BYTES: usize = 16 * 1024;
/// Expressions and queries within one another, as deep as they are looked at.
const DEPTH_LIMIT: usize = 32;
/// The tables of one statement whose columns are looked up.
const TABLE_LIMIT: usize = 16;

/// A type for each of `count` columns where it is certain.
pub(super) fn expression_types(connection: &Connection, sql: &str, count: usize) -> Vec<Option<PgType>> {
    infer(connection, sql).filter(|types| types.len() == count).unwrap_or_default()
}

fn infer(connection: &Connection, sql: &str) -> Option<Vec<Option<PgType>>> {
    if sql.len() > STATEMENT_LIMIT_BYTES {
        return None;
    }
    let statements = Parser::parse_sql(&SQLiteDialect {}, sql).ok()?;
    let [Statement::Query(query)] = statements.as_slice() else { return None };
    let scope = Scope { connection, named: &[], relations: &[], depth: 0 };
    Some(query_columns(query, &scope)?.into_iter().map(|column| column.pg_type).collect())
}

/// A column of a table or query.
#[derive(Clone)]
struct Column {
    /// As it may be called; nothing if that is SQLite's secret.
    name: Option<String>,
    pg_type: Option<PgType>,
}

/// What one name of a FROM clause, or of a WITH clause, stands for.
#[derive(Clone)]
struct Relation {
    name: String,
    columns: Vec<Column>,
    is_table: bool,
}

/// What names mean at one place of a statement.
#[derive(Clone, Copy)]
struct Scope<'a> {
    connection: &'a Connection,
    /// Those of WITH clauses.
    named: &'a [Relation],
    /// Those of the FROM clause.
    relations: &'a [Relation],
    depth: usize,
}

impl Scope<'_> {
    /// One level further down; `None` if that is too deep.
    fn deeper(&self) -> Option<Self> {
        (self.depth < DEPTH_LIMIT).then_some(Scope { depth: self.depth + 1, ..*self })
    }

    fn column(&self, table: Option<&Ident>, name: &Ident) -> Option<PgType> {
        let called = |relation: &&Relation| table.is_none_or(|table| relation.name.eq_ignore_ascii_case(&table.value));
        let is_rowid = ["rowid", "oid", "_rowid_"].iter().any(|rowid| rowid.eq_ignore_ascii_case(&name.value));
        let mut found = self.relations.iter().filter(called).filter_map(|relation| {
            let same = |column: &&Column| column.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(&name.value));
            let own = relation.columns.iter().find(same).map(|column| column.pg_type);
            own.or_else(|| (relation.is_table && is_rowid).then_some(Some(PgType::INT8)))
        });
        let first = found.next()??;
        // A name that two tables have is the same column only if they are joined by it, and then of one type.
        found.all(|other| other == Some(first)).then_some(first)
    }
}

fn query_columns(query: &Query, scope: &Scope<'_>) -> Option<Vec<Column>> {
    let scope = scope.deeper()?;
    let mut named = scope.named.to_vec();
    if let Some(with) = &query.with {
        for table in with.cte_tables.iter().take(TABLE_LIMIT) {
            let inner = Scope { named: &named, ..scope };
            // What is recursive names itself, of which nothing is known.
            let columns = query_columns(&table.query, &inner).unwrap_or_default();
            let relation = Relation { name: String::new(), columns, is_table: false };
            named.push(renamed(relation, &table.alias));
        }
    }
    body_columns(&query.body, &Scope { named: &named, ..scope })
}

fn body_columns(body: &SetExpr, scope: &Scope<'_>) -> Option<Vec<Column>> {
    let scope = scope.deeper()?;
    match body {
        SetExpr::Select(select) => select_columns(select, &scope),
        SetExpr::Query(query) => query_columns(query, &scope),
        SetExpr::SetOperation { left, right, .. } => {
            let (left, right) = (body_columns(left, &scope)?, body_columns(right, &scope)?);
            let agree = |(left, right): (Column, Column)| Column { pg_type: both(left.pg_type, right.pg_type), ..left };
            (left.len() == right.len()).then(|| left.into_iter().zip(right).map(agree).collect())
        }
        SetExpr::Values(values) => {
            let mut rows = values.rows.iter();
            let mut types: Vec<_> = rows.next()?.content.iter().map(|value| type_of(value, &scope)).collect();
            for row in rows {
                types =
                    types.into_iter().zip(&row.content).map(|(one, other)| both(one, type_of(other, &scope))).collect();
            }
            Some(types.into_iter().map(|pg_type| Column { name: None, pg_type }).collect())
        }
        _ => None,
    }
}

fn both(one: Option<PgType>, other: Option<PgType>) -> Option<PgType> {
    one.filter(|_| one == other)
}

fn select_columns(select: &Select, scope: &Scope<'_>) -> Option<Vec<Column>> {
    let mut relations = Vec::new();
    for table in &select.from {
        let joined = table.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&table.relation).chain(joined).take(TABLE_LIMIT) {
            relations.extend(relation(factor, scope));
        }
    }
    let scope = Scope { relations: &relations, ..*scope };
    let mut columns = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expression) => {
                let name = match expression {
                    Expr::Identifier(name) => Some(name.value.clone()),
                    Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.clone()),
                    _ => None,
                };
                columns.push(Column { name, pg_type: type_of(expression, &scope) });
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                columns.push(Column { name: Some(alias.value.clone()), pg_type: type_of(expr, &scope) });
            }
            // If something in FROM is not known, or joined by equal names, the number of columns shows it.
            SelectItem::Wildcard(_) => columns.extend(relations.iter().flat_map(|relation| relation.columns.clone())),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let table = last_name(name)?;
                let relation = relations.iter().find(|relation| relation.name.eq_ignore_ascii_case(&table))?;
                columns.extend(relation.columns.clone());
            }
            _ => return None,
        }
    }
    Some(columns)
}

fn relation(factor: &TableFactor, scope: &Scope<'_>) -> Option<Relation> {
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let table = last_name(name)?;
            let named = scope.named.iter().rev().find(|known| known.name.eq_ignore_ascii_case(&table));
            let known = match named.filter(|_| name.0.len() == 1) {
                Some(known) => known.clone(),
                None => {
                    let columns = stored_columns_of(scope.connection, &table).ok()?;
                    let columns =
                        columns.into_iter().map(|(name, pg_type)| Column { name: Some(name), pg_type: Some(pg_type) });
                    Relation { name: table, columns: columns.collect(), is_table: true }
                }
            };
            Some(alias.as_ref().map_or(known.clone(), |alias| renamed(known, alias)))
        }
        TableFactor::Derived { subquery, alias, .. } => {
            let columns = query_columns(subquery, scope)?;
            let known = Relation { name: String::new(), columns, is_table: false };
            Some(alias.as_ref().map_or(known.clone(), |alias| renamed(known, alias)))
        }
        _ => None,
    }
}

fn renamed(relation: Relation, alias: &TableAlias) -> Relation {
    let mut columns = relation.columns;
    for (column, name) in columns.iter_mut().zip(&alias.columns) {
        column.name = Some(name.name.value.clone());
    }
    Relation { name: alias.name.value.clone(), columns, ..relation }
}

fn last_name(name: &ObjectName) -> Option<String> {
    Some(name.0.last()?.as_ident()?.value.clone())
}

fn type_of(expression: &Expr, scope: &Scope<'_>) -> Option<PgType> {
    let scope = &scope.deeper()?;
    match expression {
        Expr::Nested(inner)
        | Expr::UnaryOp { op: UnaryOperator::Plus, expr: inner }
        | Expr::Collate { expr: inner, .. } => type_of(inner, scope),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => type_of(expr, scope).filter(is_number),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) if digits.parse::<i64>().is_ok() => Some(PgType::INT8),
            Value::Number(digits, _) if digits.parse::<f64>().is_ok() => Some(PgType::FLOAT8),
            Value::SingleQuotedString(_) => Some(PgType::TEXT),
            Value::HexStringLiteral(_) => Some(PgType::BYTEA),
            Value::Boolean(_) => Some(PgType::BOOL),
            _ => None,
        },
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
        | Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::Like { .. } => Some(PgType::BOOL),
        Expr::Cast { data_type: DataType::Boolean | DataType::Bool, expr, .. } => {
            let is_parameter = matches!(&**expr, Expr::Value(value) if matches!(value.value, Value::Placeholder(_)));
            is_parameter.then_some(PgType::BOOL)
        }
        Expr::Cast { data_type, .. } => cast_type(data_type),
        Expr::Case { conditions, else_result, .. } => {
            let results = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
            same_type(results, scope)
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

fn is_number(pg_type: &PgType) -> bool {
    matches!(*pg_type, PgType::INT8 | PgType::FLOAT8)
}

/// The type that all these have, but for those that are NULL.
fn same_type<'a>(expressions: impl Iterator<Item = &'a Expr>, scope: &Scope<'_>) -> Option<PgType> {
    let is_null = |expression: &&Expr| matches!(expression, Expr::Value(value) if value.value == Value::Null);
    let mut types = expressions.filter(|expression| !is_null(expression)).map(|expression| type_of(expression, scope));
    let first = types.next()??;
    types.all(|other| other == Some(first)).then_some(first)
}

fn operator_type(left: &Expr, op: &BinaryOperator, right: &Expr, scope: &Scope<'_>) -> Option<PgType> {
    use BinaryOperator::{
        And, BitwiseAnd, BitwiseOr, Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or, Plus,
        StringConcat,
    };
    match op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or => Some(PgType::BOOL),
        StringConcat => Some(PgType::TEXT),
        BitwiseAnd | BitwiseOr => Some(PgType::INT8),
        Plus | Minus | Multiply | Divide | Modulo => {
            let (left, right) = (type_of(left, scope).filter(is_number)?, type_of(right, scope).filter(is_number)?);
            Some(if left == right { left } else { PgType::FLOAT8 })
        }
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
    if is(REAL_FUNCTIONS) {
        return Some(PgType::FLOAT8);
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    let arguments: Option<Vec<&Expr>> = list.args.iter().map(argument).collect();
    let arguments = arguments?;
    let passed = || type_of(arguments.first()?, scope);
    if is(&["abs", "sum"]) {
        passed().filter(is_number)
    } else if is(PASSING_FUNCTIONS) {
        passed()
    } else if is(CHOOSING_FUNCTIONS) {
        same_type(arguments.into_iter(), scope)
    } else {
        None
    }
}

/// The type that a function of ours makes of these arguments.
fn returned(returns: Returns, function: &Function, scope: &Scope<'_>) -> Option<PgType> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match returns {
        Returns::Type(pg_type) => Some(pg_type),
        Returns::OneOf => {
            let arguments: Option<Vec<&Expr>> = list.args.iter().map(argument).collect();
            same_type(arguments?.into_iter(), scope)
        }
        Returns::Moment => match list.args.get(1).and_then(argument).and_then(|moment| type_of(moment, scope)) {
            Some(PgType::TIMESTAMP) => Some(PgType::TIMESTAMP),
            _ => Some(PgType::TIMESTAMPTZ),
        },
    }
}

fn argument(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of the stack that the runtime gives the threads that sessions run on.
    const STACK_BYTES: usize = 1024 * 1024;

    /// Statements as long as `length` that grow in depth and not in nesting.
    fn deep(length: usize) -> Vec<String> {
        let shapes = [
            ("SELECT 1", " IS NULL", ""),
            ("SELECT 1", "+1", ""),
            ("SELECT a", "||a", ""),
            ("SELECT 1", "::a", ""),
            ("SELECT a", " AND a", ""),
            ("SELECT a", "[1]", ""),
            ("SELECT a", ".a", ""),
            ("SELECT a", " COLLATE b", ""),
            ("SELECT a", " NOTNULL", ""),
            ("SELECT a", " IN()", ""),
            ("SELECT a", "->a", ""),
            ("SELECT 1", " UNION SELECT 1", ""),
            ("SELECT 1 FROM a", " JOIN a", ""),
            ("SELECT 1", ",1", ""),
            ("SELECT ", "-", "1"),
            ("SELECT ", "- ", "1"),
            ("SELECT ", "NOT ", "1"),
            ("SELECT ", "(", ""),
            ("SELECT ", "CASE WHEN ", ""),
            ("SELECT 1 FROM ", "(SELECT 1 FROM ", ""),
        ];
        let whole = |(head, part, tail): (&str, &str, &str)| {
            let count = (length - head.len() - tail.len()) / part.len();
            format!("{head}{}{tail}", part.repeat(count))
        };
        shapes.into_iter().map(whole).collect()
    }

    #[test]
    fn no_statement_takes_more_stack_than_a_session_has() {
        let infers = || {
            let connection = Connection::open_in_memory().unwrap();
            for sql in deep(STATEMENT_LIMIT_BYTES).iter().chain(&deep(100 * STATEMENT_LIMIT_BYTES)) {
                infer(&connection, sql);
            }
        };
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(infers).unwrap().join().unwrap();
    }

    #[test]
    fn certain_types_are_inferred() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, price REAL, data BLOB, done BOOLEAN, amount NUMERIC);
                 CREATE TABLE u (id BIGINT, price INT); CREATE VIEW v AS SELECT id, name FROM t",
            )
            .unwrap();
        let (int, real, text) = (Some(PgType::INT8), Some(PgType::FLOAT8), Some(PgType::TEXT));
        let (bytes, truth) = (Some(PgType::BYTEA), Some(PgType::BOOL));
        for (sql, expected) in [
            ("SELECT count(*), -2, 1.5, 'x', x'00', TRUE", vec![int, int, real, text, bytes, truth]),
            ("SELECT max(id), min(price), max(name), max(data), max(done) FROM t", vec![int, real, text, bytes, truth]),
            ("SELECT sum(id), sum(price), avg(id), total(id), sum(name) FROM t", vec![int, real, real, real, None]),
            ("SELECT MAX(x.id) + 1, x.price * 2, id / 2, name || id FROM t AS x", vec![int, real, int, text]),
            ("SELECT max(rowid), max(t.rowid), max(missing) FROM t", vec![int, int, None]),
            ("SELECT max(id), max(price), max(u.price) FROM t JOIN u USING (id)", vec![int, None, int]),
            ("SELECT max(n), m FROM (SELECT count(*) AS n, max(price) AS m FROM t)", vec![int, real]),
            (
                "WITH w (a) AS (SELECT max(id) FROM t) SELECT a, a > 1, (SELECT max(a) FROM w) FROM w",
                vec![int, truth, int],
            ),
            ("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n", vec![None]),
            ("SELECT coalesce(max(id), 0), ifnull(name, 0), coalesce(NULL, 1) FROM t", vec![int, None, int]),
            (
                "SELECT CASE WHEN id > 1 THEN price ELSE 0.5 END, CASE id WHEN 1 THEN 'a' ELSE 2 END FROM t",
                vec![real, None],
            ),
            ("SELECT CAST(name AS INTEGER), CAST(id AS varchar(9)), CAST(id AS NUMERIC) FROM t", vec![int, text, None]),
            ("SELECT id IS NULL, name LIKE 'a', id IN (1), NOT id, EXISTS (SELECT 1) FROM t", vec![truth; 5]),
            ("SELECT max(id) FROM t UNION ALL SELECT 1", vec![int]),
            ("SELECT max(id) FROM t UNION ALL SELECT 'x'", vec![None]),
            ("VALUES (1, 'a'), (2, 3)", vec![int, None]),
            ("SELECT *, count(*) FROM u", vec![int, int, int]),
            ("SELECT u.*, max(v.id) FROM u, v", vec![int, int, int]),
            ("SELECT row_number() OVER (ORDER BY id), lag(price) OVER (ORDER BY id) FROM t", vec![int, real]),
        ] {
            assert_eq!(expression_types(&connection, sql, expected.len()), expected, "{sql}");
        }
        assert!(expression_types(&connection, "SELECT *, 1 FROM t JOIN u USING (id)", 8).is_empty());
    }
}
