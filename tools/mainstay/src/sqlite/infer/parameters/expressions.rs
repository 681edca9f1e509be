//! What parameters stand beside within expressions.

use mainstay::server::pg::PgType;
use sqlparser::ast::{BinaryOperator, Expr, Function, Query, UnaryOperator, Value, WindowType};

use super::super::super::functions;
use super::super::super::values::parameter_type;
use super::super::expressions::{CONDITIONAL_FUNCTIONS, arguments, common, is_number, query_columns, type_of};
use super::super::scope::Scope;
use super::Walk;

/// Functions whose arguments are all of one type.
const EVEN_FUNCTIONS: &[&str] = &["coalesce", "ifnull", "max", "min", "nullif"];
/// Functions that take an integer as the argument at that position.
const INTEGER_ARGUMENTS: &[(&str, usize)] =
    &[("lag", 1), ("lead", 1), ("nth_value", 1), ("ntile", 0), ("round", 1), ("substr", 1), ("substr", 2)];
/// Functions whose third argument stands for the first one where there is none.
const DEFAULTING_FUNCTIONS: &[&str] = &["lag", "lead"];

impl Walk {
    /// One that is stored in a column of that type, if that is known.
    pub(super) fn stored(&mut self, value: &Expr, pg_type: Option<PgType>, scope: &Scope<'_>) {
        self.expression(value, scope);
        self.open(value, pg_type, scope);
    }

    /// Several that are stored at once: `(a, b)`, or a query's.
    pub(super) fn row_stored(&mut self, value: &Expr, types: &[Option<PgType>], scope: &Scope<'_>) {
        match value {
            Expr::Tuple(values) => {
                values.iter().zip(types).for_each(|(value, pg_type)| self.stored(value, *pg_type, scope));
            }
            Expr::Subquery(query) => self.query(query, scope, types),
            other => self.expression(other, scope),
        }
    }

    pub(super) fn condition(&mut self, condition: Option<&Expr>, scope: &Scope<'_>) {
        condition.into_iter().for_each(|condition| self.stored(condition, Some(PgType::BOOL), scope));
    }

    pub(super) fn count(&mut self, count: Option<&Expr>, scope: &Scope<'_>) {
        count.into_iter().for_each(|count| self.stored(count, Some(PgType::INT8), scope));
    }

    fn all(&mut self, expressions: &[&Expr], scope: &Scope<'_>) {
        expressions.iter().for_each(|expression| self.expression(expression, scope));
    }

    /// Everything within an expression.
    pub(super) fn expression(&mut self, expression: &Expr, scope: &Scope<'_>) {
        let Some(scope) = &scope.deeper() else { return };
        match expression {
            Expr::UnaryOp { op: UnaryOperator::Not, expr }
            | Expr::IsTrue(expr)
            | Expr::IsNotTrue(expr)
            | Expr::IsFalse(expr)
            | Expr::IsNotFalse(expr) => self.condition(Some(expr), scope),
            Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr } => self.count(Some(expr), scope),
            Expr::Nested(expr)
            | Expr::Collate { expr, .. }
            | Expr::UnaryOp { expr, .. }
            | Expr::IsNull(expr)
            | Expr::IsNotNull(expr) => self.expression(expr, scope),
            Expr::Cast { expr, data_type, .. } => {
                self.stored(expr, Some(parameter_type(&data_type.to_string())), scope);
            }
            Expr::BinaryOp { left, op, right } => self.operator(left, op, right, scope),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.compared(left, right, scope);
            }
            Expr::InList { expr, list, .. } if is_row(expr) => {
                list.iter().for_each(|item| self.compared(expr, item, scope));
            }
            Expr::InList { expr, list, .. } => {
                self.even(&std::iter::once(&**expr).chain(list).collect::<Vec<_>>(), scope)
            }
            Expr::InSubquery { expr, subquery, .. } => self.compared_with_query(expr, subquery, scope),
            Expr::Between { expr, low, high, .. } => self.even(&[&**expr, &**low, &**high], scope),
            Expr::Like { expr, pattern, escape_char, .. } => {
                for text in [Some(expr), Some(pattern), escape_char.as_ref()].into_iter().flatten() {
                    self.stored(text, Some(PgType::TEXT), scope);
                }
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let when: Vec<&Expr> = conditions.iter().map(|when| &when.condition).collect();
                match operand {
                    Some(operand) => self.even(&std::iter::once(&**operand).chain(when).collect::<Vec<_>>(), scope),
                    None => when.iter().for_each(|when| self.condition(Some(when), scope)),
                }
                let results = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
                self.even(&results.collect::<Vec<_>>(), scope);
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                self.expression(expr, scope);
                self.count(substring_from.as_deref(), scope);
                self.count(substring_for.as_deref(), scope);
            }
            Expr::Function(function) => self.function(function, scope),
            Expr::Exists { subquery: query, .. } | Expr::Subquery(query) => self.query(query, scope, &[]),
            Expr::Tuple(items) => items.iter().for_each(|item| self.expression(item, scope)),
            _ => {}
        }
    }

    fn operator(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr, scope: &Scope<'_>) {
        use BinaryOperator::{
            And, BitwiseAnd, BitwiseOr, Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or,
            PGBitwiseShiftLeft, PGBitwiseShiftRight, Plus, StringConcat,
        };
        let all = match op {
            Eq | NotEq | Gt | GtEq | Lt | LtEq => return self.compared(left, right, scope),
            Plus | Minus | Multiply | Divide | Modulo => {
                self.all(&[left, right], scope);
                let number = |side| type_of(side, scope).filter(is_number);
                self.open(left, number(right), scope);
                return self.open(right, number(left), scope);
            }
            And | Or => Some(PgType::BOOL),
            BitwiseAnd | BitwiseOr | PGBitwiseShiftLeft | PGBitwiseShiftRight => Some(PgType::INT8),
            StringConcat => Some(PgType::TEXT),
            _ => None,
        };
        self.stored(left, all, scope);
        self.stored(right, all, scope);
    }

    fn compared(&mut self, left: &Expr, right: &Expr, scope: &Scope<'_>) {
        match (left, right) {
            (Expr::Tuple(left), Expr::Tuple(right)) => {
                left.iter().zip(right).for_each(|(left, right)| self.even(&[left, right], scope));
            }
            (row @ Expr::Tuple(_), Expr::Subquery(query)) | (Expr::Subquery(query), row @ Expr::Tuple(_)) => {
                self.compared_with_query(row, query, scope);
            }
            _ => self.even(&[left, right], scope),
        }
    }

    fn compared_with_query(&mut self, value: &Expr, query: &Query, scope: &Scope<'_>) {
        let single = std::slice::from_ref(value);
        let values = if let Expr::Tuple(values) = value { values.as_slice() } else { single };
        let types: Vec<_> = values.iter().map(|value| type_of(value, scope)).collect();
        self.query(query, scope, &types);
        let columns = query_columns(query, scope).unwrap_or_default();
        let mut types = columns.into_iter().map(|column| column.pg_type);
        values.iter().for_each(|value| self.stored(value, types.next().flatten(), scope));
    }

    /// Expressions that have one type.
    fn even(&mut self, expressions: &[&Expr], scope: &Scope<'_>) {
        self.all(expressions, scope);
        self.agree(expressions, scope);
    }

    /// The same, after they were looked at one by one.
    pub(super) fn agree(&mut self, expressions: &[&Expr], scope: &Scope<'_>) {
        let mut agreed = None;
        // A text that is written out may be a date as well as a text.
        let mut written = None;
        for expression in expressions {
            match type_of(expression, scope) {
                Some(own) if matches!(expression, Expr::Value(_)) && own == PgType::TEXT => written = Some(own),
                Some(own) => agreed = agreed.map_or(Some(own), |before| common(before, own).or(Some(before))),
                None => {}
            }
        }
        expressions.iter().for_each(|expression| self.open(expression, agreed.or(written), scope));
    }

    /// What an expression that has no type of its own is taken for.
    pub(super) fn open(&mut self, expression: &Expr, pg_type: Option<PgType>, scope: &Scope<'_>) {
        let (Some(pg_type), Some(scope)) = (pg_type, &scope.deeper()) else { return };
        match expression {
            Expr::Value(value) => {
                if let Value::Placeholder(name) = &value.value {
                    self.note(name, pg_type);
                }
            }
            Expr::Nested(inner)
            | Expr::Collate { expr: inner, .. }
            | Expr::UnaryOp { op: UnaryOperator::Plus, expr: inner } => self.open(inner, Some(pg_type), scope),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } if is_number(&pg_type) => {
                self.open(expr, Some(pg_type), scope);
            }
            // What has a type gave it to its parts.
            typed if type_of(typed, scope).is_some() => {}
            Expr::Case { conditions, else_result, .. } => {
                let results = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
                results.for_each(|result| self.open(result, Some(pg_type), scope));
            }
            Expr::Function(function) => {
                let even = is_one_of(function, EVEN_FUNCTIONS);
                let skipped = usize::from(is_one_of(function, CONDITIONAL_FUNCTIONS));
                let arguments = arguments(function).filter(|_| even || skipped > 0).unwrap_or_default();
                arguments.into_iter().skip(skipped).for_each(|argument| self.open(argument, Some(pg_type), scope));
            }
            Expr::Subquery(query) => self.query(query, scope, &[Some(pg_type)]),
            _ => {}
        }
    }

    fn function(&mut self, function: &Function, scope: &Scope<'_>) {
        if let Some(filter) = &function.filter {
            self.condition(Some(filter), scope);
        }
        if let Some(WindowType::WindowSpec(window)) = &function.over {
            let by = window.partition_by.iter().chain(window.order_by.iter().map(|by| &by.expr));
            by.for_each(|by| self.expression(by, scope));
        }
        let Some(arguments) = arguments(function) else { return };
        if is_one_of(function, EVEN_FUNCTIONS) {
            return self.even(&arguments, scope);
        }
        self.all(&arguments, scope);
        // Behind a cast, which says what a parameter is.
        if let Some(cast) = functions::cast_type(&function.name.to_string())
            && let Some(value) = arguments.first()
        {
            self.open(value, Some(cast), scope);
        }
        if let [condition, results @ ..] = arguments.as_slice()
            && is_one_of(function, CONDITIONAL_FUNCTIONS)
            && results.len() <= 2
        {
            self.open(condition, Some(PgType::BOOL), scope);
            self.agree(results, scope);
        }
        for (name, position) in INTEGER_ARGUMENTS {
            if let Some(argument) = arguments.get(*position).filter(|_| is_one_of(function, &[*name])) {
                self.open(argument, Some(PgType::INT8), scope);
            }
        }
        if let [value, _, default] = arguments.as_slice()
            && is_one_of(function, DEFAULTING_FUNCTIONS)
        {
            self.agree(&[*value, *default], scope);
        }
    }

    fn note(&mut self, name: &str, pg_type: PgType) {
        let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
        if let Some(found) = number.and_then(|number| self.found.get_mut(number.checked_sub(1)?)) {
            found.note(pg_type);
        }
    }
}

fn is_row(expression: &Expr) -> bool {
    matches!(expression, Expr::Tuple(_))
}

fn is_one_of(function: &Function, names: &[&str]) -> bool {
    let name = function.name.to_string();
    names.iter().any(|known| known.eq_ignore_ascii_case(&name))
}
