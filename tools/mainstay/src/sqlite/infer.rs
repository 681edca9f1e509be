//! Types of result columns that are expressions, where the text alone makes them certain.
//!
//! SQLite does not say what type an expression has, and the client wants to know before the first row. This looks at the
//! statement with a parser that is not SQLite's: what it does not understand is simply not inferred.

use mainstay::server::pg::PgType;
use sqlparser::ast::{Expr, SelectItem, SetExpr, Statement, UnaryOperator, Value};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::Parser;

/// Functions whose result is an integer or NULL, whatever they are given.
const INTEGER_FUNCTIONS: &[&str] =
    &["count", "length", "octet_length", "unixepoch", "row_number", "rank", "dense_rank"];

/// Longer statements are not looked at. The parser bounds how deep it goes into parentheses, but not how deep the tree
/// becomes that it builds of `1 IS NULL IS NULL …` or `1 + 1 + …`: one level for every few bytes, and dropping the tree
/// takes stack for every level.
const STATEMENT_LIMIT_BYTES: usize = 16 * 1024;

/// A type for each of `count` columns where it is certain.
pub(super) fn expression_types(sql: &str, count: usize) -> Vec<Option<PgType>> {
    infer(sql).filter(|types| types.len() == count).unwrap_or_default()
}

fn infer(sql: &str) -> Option<Vec<Option<PgType>>> {
    if sql.len() > STATEMENT_LIMIT_BYTES {
        return None;
    }
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
            for sql in deep(STATEMENT_LIMIT_BYTES).iter().chain(&deep(100 * STATEMENT_LIMIT_BYTES)) {
                infer(sql);
            }
        };
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(infers).unwrap().join().unwrap();
    }

    #[test]
    fn certain_types_are_inferred() {
        let integer = Some(PgType::INT8);
        assert_eq!(
            expression_types("SELECT count(*), -2, 1.5, 'x'", 4),
            [integer, integer, Some(PgType::FLOAT8), None]
        );
    }
}
