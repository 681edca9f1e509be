//! Queries of the catalogs in SQLite's words: parsed as PostgreSQL's, changed in the tree, written out again.
//!
//! What PostgreSQL says with operators, casts and arrays that SQLite does not have becomes calls of [functions], which the
//! connection has that the query runs on. What is not understood stays as it is, and SQLite says what it thinks of it.
//!
//! [functions]: super::functions

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use mainstay::server::pg::PgType;
use mainstay::server::pg::catalog::{self, Relation, type_names};
use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, Statement, Subscript,
    TableFactor, TrimWhereField, UnaryOperator, Value, VisitMut, VisitorMut,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::super::lexer;
use super::set_returning;
use super::survey::Survey;
use super::table_functions;
use super::tableoid::{self, Scopes};
use super::types::{self, Columns};

/// Longer statements are not looked at: see the same limit in [`super::super::infer`].
const STATEMENT_LIMIT_BYTES: usize = 16 * 1024;
/// With more joins they are not even parsed: the parser nests them, and each takes kilobytes of stack.
const JOIN_LIMIT: usize = 48;

/// A query of the catalogs, in SQLite's words.
pub(super) struct Rewritten {
    pub(super) sql: String,
    /// The relations that it names.
    pub(super) relations: Vec<&'static Relation>,
    /// The types of its columns as far as the text says; nothing if it does not even say how many there are.
    pub(super) types: Option<Vec<Option<PgType>>>,
    /// The types of its parameters, as far as they are known, by number.
    pub(super) parameters: BTreeMap<usize, PgType>,
    /// It asks for what is known of tables only from the database's schema.
    pub(super) needs_schema: bool,
    /// What it names that is none of the catalogs', without the schema.
    pub(super) strangers: Vec<String>,
}

/// The query in SQLite's words, if it is one that parses and names something of the catalogs.
pub(super) fn rewrite(sql: &str) -> Option<Rewritten> {
    let joins = |sql| lexer::tokens(sql).filter(|token| token.is("join")).count();
    if sql.len() > STATEMENT_LIMIT_BYTES || joins(sql) > JOIN_LIMIT {
        return None;
    }
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
    let mut statement = statements.pop().filter(|_| statements.is_empty())?;
    let mut survey = Survey::default();
    if statement.visit(&mut survey).is_break() {
        return None;
    }
    let Statement::Query(query) = &mut statement else { return None };
    let names_function = survey.tables > 0 || (survey.functions > 0 && survey.strangers.is_empty());
    if survey.relations.is_empty() && !names_function {
        return None;
    }
    name_columns(&mut query.body);
    let mut columns = Columns::of(&survey.relations);
    columns.add_aliases(query);
    let mut rewriter = Rewriter { columns: &columns, parameters: BTreeMap::new(), scopes: Scopes::default() };
    let _ = query.visit(&mut rewriter);
    let parameters = rewriter.parameters;
    // What functions in FROM became has names of its own.
    columns.add_aliases(query);
    write_out(&mut query.body, &columns);
    let types = types::of_projection(&query.body, &columns);
    let needs_schema = survey.asks_schema || survey.relations.iter().any(|relation| is_of_schema(relation));
    let Survey { relations, strangers, .. } = survey;
    Some(Rewritten { sql: statement.to_string(), relations, types, parameters, needs_schema, strangers })
}

/// Whether a relation's rows are made of the database's schema.
fn is_of_schema(relation: &Relation) -> bool {
    const OF_SERVER: &[&str] = &["pg_stat_activity", "pg_settings", "pg_database", "pg_roles", "pg_user"];
    !OF_SERVER.contains(&relation.name)
}

/// The relation of the catalogs that a name is of.
pub(super) fn relation(name: &ObjectName) -> Option<&'static Relation> {
    match names(name).as_slice() {
        [relation] => catalog::find(None, relation),
        [schema, relation] => catalog::find(Some(schema), relation),
        _ => None,
    }
}

/// The parts of a name; none if a part of it is no name.
pub(super) fn names(name: &ObjectName) -> Vec<&str> {
    let parts: Option<Vec<&str>> =
        name.0.iter().map(|part| part.as_ident().map(|ident| ident.value.as_str())).collect();
    parts.unwrap_or_default()
}

/// The name of a function that is plain or of `pg_catalog`.
pub(super) fn function_name(name: &ObjectName) -> Option<String> {
    match names(name).as_slice() {
        [name] => Some(name.to_ascii_lowercase()),
        [schema, name] if schema.eq_ignore_ascii_case(catalog::PG_CATALOG) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

/// The type that a cast is to, if it is one that the catalogs know.
pub(super) fn cast_type(data_type: &DataType) -> Option<PgType> {
    let written = match data_type {
        DataType::Custom(name, _) => (*names(name).last()?).to_owned(),
        DataType::Array(_) => return Some(PgType::TEXT_ARRAY),
        other => other.to_string(),
    };
    let plain = written.split('(').next().unwrap_or_default().trim();
    type_names::named(plain).map(|known| known.pg_type)
}

/// Gives the columns of the first SELECT the names that PostgreSQL gives them.
fn name_columns(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                let SelectItem::UnnamedExpr(expression) = item else { continue };
                // The last is not a column to SQLite, which would name it otherwise.
                match expression {
                    Expr::Identifier(ident) if ident.value != tableoid::NAME => continue,
                    Expr::CompoundIdentifier(parts) if parts.last().is_none_or(|last| last.value != tableoid::NAME) => {
                        continue;
                    }
                    _ => {}
                }
                let name = column_name(expression, types::DEPTH_LIMIT).unwrap_or_else(|| "?column?".to_owned());
                *item = SelectItem::ExprWithAlias { expr: take(expression), alias: Ident::with_quote('"', name) };
            }
        }
        SetExpr::Query(query) => name_columns(&mut query.body),
        SetExpr::SetOperation { left, .. } => name_columns(left),
        _ => {}
    }
}

/// The name that PostgreSQL gives a column of that expression, if it finds one.
fn column_name(expression: &Expr, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    match expression {
        Expr::Identifier(ident) => Some(ident.value.to_ascii_lowercase()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| ident.value.to_ascii_lowercase()),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => column_name(inner, depth),
        Expr::Cast { expr, data_type, .. } => {
            column_name(expr, depth).or_else(|| Some(type_names::of_oid(cast_type(data_type)?.0)?.name.to_owned()))
        }
        Expr::Function(function) => names(&function.name).last().map(|name| name.to_ascii_lowercase()),
        Expr::Case { .. } => Some("case".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => Some("bool".to_owned()),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expression) => column_name(expression, depth),
                SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// What is kept as a number and shown by name is shown by name where it leaves the query.
fn write_out(body: &mut SetExpr, columns: &Columns) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } = item
                    && let Some(function) = types::of(expression, columns).and_then(output_function)
                {
                    *expression = call(function, vec![take(expression)]);
                }
            }
        }
        SetExpr::Query(query) => write_out(&mut query.body, columns),
        SetExpr::SetOperation { left, right, .. } => {
            write_out(left, columns);
            write_out(right, columns);
        }
        SetExpr::Values(values) => {
            for expression in values.rows.iter_mut().flat_map(|row| row.content.iter_mut()) {
                if let Some(function) = types::of(expression, columns).and_then(output_function) {
                    *expression = call(function, vec![take(expression)]);
                }
            }
        }
        _ => {}
    }
}

/// The function that finds an object by its name, for a type that is kept as a number.
pub(super) fn input_function(pg_type: PgType) -> Option<&'static str> {
    Some(match pg_type {
        PgType::REGCLASS => "regclass_in",
        PgType::REGPROC => "regproc_in",
        PgType::REGTYPE => "regtype_in",
        PgType::REGNAMESPACE => "regnamespace_in",
        _ => return None,
    })
}

/// The function that shows a value of a type that is kept as a number.
fn output_function(pg_type: PgType) -> Option<&'static str> {
    Some(match pg_type {
        PgType::REGCLASS => "regclass_out",
        PgType::REGTYPE => "regtype_out",
        PgType::REGNAMESPACE => "regnamespace_out",
        PgType::INTERVAL => "interval_out",
        _ => return None,
    })
}

/// Takes an expression out of the tree.
pub(super) fn take(expression: &mut Expr) -> Expr {
    std::mem::replace(expression, Expr::Value(Value::Null.into()))
}

/// A call of a function.
pub(super) fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        within_group: Vec::new(),
        filter: None,
        null_treatment: None,
        over: None,
    })
}

fn not(expression: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expression) }
}

/// A query written in SQLite's words.
pub(super) fn query(sql: &str) -> Option<Box<Query>> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).ok()?.parse_query().ok()
}

/// Changes a query from the leaves up.
struct Rewriter<'a> {
    columns: &'a Columns,
    parameters: BTreeMap<usize, PgType>,
    scopes: Scopes,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        match expression {
            Expr::Cast { expr, data_type, .. } => self.note_parameter(expr, cast_type(data_type)),
            Expr::BinaryOp { left, right, .. } | Expr::AnyOp { left, right, .. } => {
                let (of_left, of_right) = (types::of(left, self.columns), types::of(right, self.columns));
                self.note_parameter(left, of_right);
                self.note_parameter(right, of_left);
            }
            Expr::InList { expr, list, .. } => {
                let pg_type = types::of(expr, self.columns);
                list.iter().for_each(|item| self.note_parameter(item, pg_type));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        let old = take(expression);
        *expression = self.rewritten(old);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.scopes.enter(select);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.scopes.leave();
        set_returning::move_to_from(select, self.columns);
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let Some(replacement) = table_functions::table_function(factor, self.columns) {
            *factor = replacement;
        }
        table_functions::name_columns(factor);
        table_functions::forget_lateral(factor);
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_> {
    fn note_parameter(&mut self, expression: &Expr, pg_type: Option<PgType>) {
        let Expr::Value(value) = expression else { return };
        let Value::Placeholder(name) = &value.value else { return };
        let number = name.strip_prefix('$').and_then(|digits| digits.parse().ok());
        if let (Some(number), Some(pg_type)) = (number, pg_type) {
            self.parameters.entry(number).or_insert(pg_type);
        }
    }

    fn rewritten(&self, expression: Expr) -> Expr {
        match expression {
            Expr::Value(mut value) => {
                value.value = match value.value {
                    Value::EscapedStringLiteral(text) | Value::NationalStringLiteral(text) => {
                        Value::SingleQuotedString(text)
                    }
                    Value::DollarQuotedString(text) => Value::SingleQuotedString(text.value),
                    other => other,
                };
                Expr::Value(value)
            }
            // SQLite's own collation is that of the catalogs' names.
            Expr::Collate { expr, .. } => *expr,
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, .. } => {
                self.cast(*expr, &data_type)
            }
            Expr::TypedString(typed) => self.cast(Expr::Value(typed.value), &typed.data_type),
            Expr::Interval(interval) => match (interval.leading_field, interval.last_field) {
                (None, _) => call("interval_in", vec![*interval.value]),
                (Some(unit), None) => {
                    let unit = Expr::Value(Value::SingleQuotedString(format!(" {unit}")).into());
                    let (left, right) = (interval.value, Box::new(unit));
                    call("interval_in", vec![Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right }])
                }
                (leading_field, last_field) => {
                    Expr::Interval(sqlparser::ast::Interval { leading_field, last_field, ..interval })
                }
            },
            Expr::BinaryOp { left, op, right } => self.binary(*left, op, *right),
            Expr::AnyOp { left, compare_op, right, .. } => any(*left, compare_op, *right),
            Expr::AllOp { left, compare_op, right } => all(*left, compare_op, *right),
            Expr::ILike { negated, any, expr, pattern, escape_char } => {
                let lower = |expression: Box<Expr>| Box::new(call("lower", vec![*expression]));
                Expr::Like { negated, any, expr: lower(expr), pattern: lower(pattern), escape_char }
            }
            Expr::Array(array) => call("pg_array", array.elem),
            Expr::Extract { expr, field, .. } if field.to_string().eq_ignore_ascii_case("epoch") => {
                call("pg_epoch", vec![*expr])
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let arguments = std::iter::once(expr).chain(substring_from).chain(substring_for);
                call("substr", arguments.map(|argument| *argument).collect())
            }
            Expr::Trim { expr, trim_where, trim_what, trim_characters } => {
                let name = match trim_where {
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                    Some(TrimWhereField::Both) | None => "trim",
                };
                let what = trim_what.map(|what| *what).into_iter().chain(trim_characters.into_iter().flatten());
                call(name, std::iter::once(*expr).chain(what).collect())
            }
            Expr::CompoundFieldAccess { root, access_chain } => subscript(*root, access_chain),
            Expr::CompoundIdentifier(parts) => self.scopes.number(&parts).unwrap_or(Expr::CompoundIdentifier(parts)),
            Expr::Identifier(ident) => {
                self.scopes.number(std::slice::from_ref(&ident)).unwrap_or(Expr::Identifier(ident))
            }
            Expr::Function(function) => self.called(function),
            other => other,
        }
    }

    /// A call of a function; what gathers truths says that it does, as they are numbers here.
    fn called(&self, function: Function) -> Expr {
        let gathers = function_name(&function.name).is_some_and(|name| name == "array_agg");
        let of_truths = gathers && types::of_argument(&function, self.columns) == Some(PgType::BOOL);
        let mut called = called(function);
        if let (true, Expr::Function(function)) = (of_truths, &mut called) {
            function.name = ObjectName::from(vec![Ident::new("pg_bool_array_agg")]);
        }
        called
    }

    fn cast(&self, expression: Expr, data_type: &DataType) -> Expr {
        let Some(pg_type) = cast_type(data_type) else { return expression };
        let from = types::of(&expression, self.columns);
        if let Some(function) = input_function(pg_type) {
            return call(function, vec![expression]);
        }
        match pg_type {
            PgType::INTERVAL => call("interval_in", vec![expression]),
            PgType::BOOL => call("pg_bool", vec![expression]),
            PgType::TIMESTAMPTZ | PgType::TIMESTAMP => call("timestamp_in", vec![expression]),
            PgType::DATE => call("date_in", vec![expression]),
            PgType::INT2 | PgType::INT4 | PgType::INT8 | PgType::OID => integer(expression),
            PgType::FLOAT4 | PgType::FLOAT8 | PgType::NUMERIC => sqlite(expression, DataType::Real),
            PgType::TEXT | PgType::VARCHAR | PgType::NAME | PgType::CHAR => match from.and_then(output_function) {
                Some(function) => call(function, vec![expression]),
                None if from == Some(PgType::BOOL) => call("pg_bool_out", vec![expression]),
                None => sqlite(expression, DataType::Text),
            },
            _ => expression,
        }
    }

    fn binary(&self, left: Expr, op: BinaryOperator, right: Expr) -> Expr {
        let op = match op {
            BinaryOperator::PGCustomBinaryOperator(name) => match custom(&name) {
                Some(op) => op,
                None => BinaryOperator::PGCustomBinaryOperator(name),
            },
            op => op,
        };
        let lower = |expression| call("lower", vec![expression]);
        let like = |negated, left, right| Expr::Like {
            negated,
            any: false,
            expr: Box::new(left),
            pattern: Box::new(right),
            escape_char: None,
        };
        match op {
            BinaryOperator::PGRegexMatch => call("pg_regex", vec![left, right]),
            BinaryOperator::PGRegexIMatch => call("pg_iregex", vec![left, right]),
            BinaryOperator::PGRegexNotMatch => not(call("pg_regex", vec![left, right])),
            BinaryOperator::PGRegexNotIMatch => not(call("pg_iregex", vec![left, right])),
            BinaryOperator::PGLikeMatch => like(false, left, right),
            BinaryOperator::PGNotLikeMatch => like(true, left, right),
            BinaryOperator::PGILikeMatch => like(false, lower(left), lower(right)),
            BinaryOperator::PGNotILikeMatch => like(true, lower(left), lower(right)),
            BinaryOperator::Plus | BinaryOperator::Minus => {
                let (of_left, of_right) = (types::of(&left, self.columns), types::of(&right, self.columns));
                sum(left, of_left, op, right, of_right)
            }
            BinaryOperator::StringConcat if is_array(types::of(&left, self.columns)) => {
                call("array_cat", vec![left, right])
            }
            op => Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) },
        }
    }
}

/// Sums and differences; those of times and intervals, which are texts and seconds here, by functions.
fn sum(left: Expr, of_left: Option<PgType>, op: BinaryOperator, right: Expr, of_right: Option<PgType>) -> Expr {
    let (is_minus, is_interval) = (op == BinaryOperator::Minus, |of: Option<PgType>| of == Some(PgType::INTERVAL));
    match (types::is_time(of_left), types::is_time(of_right)) {
        (true, true) if is_minus => call("timestamp_minus", vec![left, right]),
        (true, false) if is_interval(of_right) && is_minus => {
            let right = Box::new(Expr::Nested(Box::new(right)));
            call("timestamp_add", vec![left, Expr::UnaryOp { op: UnaryOperator::Minus, expr: right }])
        }
        (true, false) if is_interval(of_right) => call("timestamp_add", vec![left, right]),
        (false, true) if is_interval(of_left) && !is_minus => call("timestamp_add", vec![right, left]),
        _ => Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) },
    }
}

/// SQLite's own cast.
fn sqlite(expression: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expression), data_type, format: None }
}

/// A cast to whole numbers, of which it is known that they are.
pub(super) fn integer(expression: Expr) -> Expr {
    sqlite(expression, DataType::Integer(None))
}

fn is_array(pg_type: Option<PgType>) -> bool {
    pg_type.and_then(|pg_type| type_names::of_oid(pg_type.0)).is_some_and(|known| known.category == "A")
}

/// The operator that `OPERATOR(pg_catalog.~)` names.
fn custom(name: &[String]) -> Option<BinaryOperator> {
    Some(match name.last()?.as_str() {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "||" => BinaryOperator::StringConcat,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        _ => return None,
    })
}

/// `= ANY (…)`, of an array or a query. Other comparisons stay as they are, which SQLite does not take.
fn any(left: Expr, compare_op: BinaryOperator, right: Expr) -> Expr {
    match (compare_op, right) {
        (BinaryOperator::Eq, Expr::Subquery(subquery)) => {
            Expr::InSubquery { expr: Box::new(left), subquery, negated: false }
        }
        (BinaryOperator::Eq, right) => call("pg_any", vec![left, right]),
        (compare_op, right) => Expr::AnyOp { left: Box::new(left), compare_op, right: Box::new(right), is_some: false },
    }
}

/// `<> ALL (…)`, of an array or a query.
fn all(left: Expr, compare_op: BinaryOperator, right: Expr) -> Expr {
    match (compare_op, right) {
        (BinaryOperator::NotEq, Expr::Subquery(subquery)) => {
            Expr::InSubquery { expr: Box::new(left), subquery, negated: true }
        }
        (BinaryOperator::NotEq, right) => not(call("pg_any", vec![left, right])),
        (compare_op, right) => Expr::AllOp { left: Box::new(left), compare_op, right: Box::new(right) },
    }
}

/// `array[1]`
fn subscript(root: Expr, mut access_chain: Vec<AccessExpr>) -> Expr {
    match access_chain.as_mut_slice() {
        [AccessExpr::Subscript(Subscript::Index { index })] => call("pg_array_get", vec![root, take(index)]),
        _ => Expr::CompoundFieldAccess { root: Box::new(root), access_chain },
    }
}

/// A call of a function, by its plain name.
fn called(mut function: Function) -> Expr {
    let Some(name) = function_name(&function.name) else { return Expr::Function(function) };
    if name == "array"
        && let FunctionArguments::Subquery(subquery) = &mut function.args
    {
        let shell = "WITH pg_array_rows(element) AS (SELECT 1) SELECT array_agg(element) FROM pg_array_rows";
        if let Some(mut shell) = query(shell)
            && let Some(rows) = shell.with.as_mut().and_then(|with| with.cte_tables.first_mut())
        {
            std::mem::swap(&mut rows.query, subquery);
            return call("pg_array_or_empty", vec![Expr::Subquery(shell)]);
        }
    }
    let name = match name.as_str() {
        "current_timestamp" => "now".to_owned(),
        // To SQLite, these are words that take no parentheses.
        "current_date" | "current_time" => format!("pg_{name}"),
        // Truth is a number here.
        "bool_and" | "every" => "min".to_owned(),
        "bool_or" => "max".to_owned(),
        "json_build_object" => "json_object".to_owned(),
        _ => name,
    };
    function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]);
    if matches!(function.args, FunctionArguments::None) {
        let empty = FunctionArgumentList { duplicate_treatment: None, args: Vec::new(), clauses: Vec::new() };
        function.args = FunctionArguments::List(empty);
    }
    Expr::Function(function)
}

#[cfg(test)]
#[path = "rewrite_test.rs"]
mod tests;
