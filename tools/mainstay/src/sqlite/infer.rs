//! Types of what SQLite gives no type: of result columns that are expressions, and of parameters that the client did not
//! declare, where the text of a statement makes them certain.
//!
//! SQLite does not say what type an expression has, and the client wants to know before the first row; nor does it ask what
//! a parameter is, and then finds no text equal to any number. This looks at the statement with a parser that is not
//! SQLite's: what it does not understand is simply not inferred. As with any column, the type is what values are announced
//! as; SQLite may hold others in it.
//!
//! - `grammar`: how a statement is parsed
//! - `scope`: what names mean at one place of it
//! - `expressions`: the types of expressions
//! - `parameters`: the types of parameters, by what they stand beside

use mainstay::server::pg::PgType;
use rusqlite::Connection;
use sqlparser::ast::Statement;
use sqlparser::parser::Parser;

mod expressions;
mod grammar;
mod parameters;
mod scope;

pub(super) use parameters::Found;
use scope::{Context, Scope};

/// Longer statements are not looked at. The parser bounds how deep it goes into parentheses, but not how deep the tree
/// becomes that it builds of `1 IS NULL IS NULL …` or `1 + 1 + …`: one level for every few bytes, and dropping the tree
/// takes stack for every level.
const STATEMENT_LIMIT_BYTES: usize = 16 * 1024;

/// A type for each of `count` columns where it is certain.
pub(super) fn expression_types(connection: &Connection, sql: &str, count: usize) -> Vec<Option<PgType>> {
    infer(connection, sql).filter(|types| types.len() == count).unwrap_or_default()
}

fn infer(connection: &Connection, sql: &str) -> Option<Vec<Option<PgType>>> {
    let statement = parsed(sql)?;
    let context = Context::new(connection);
    let columns = expressions::statement_columns(&statement, &Scope::new(&context))?;
    Some(columns.into_iter().map(|column| column.pg_type).collect())
}

/// What the places of each of the parameters `$1` to `$count` say of its type; `None` if the statement is not understood.
pub(super) fn parameter_types(connection: &Connection, sql: &str, count: usize) -> Option<Vec<Found>> {
    let statement = parsed(sql)?;
    let context = Context::new(connection);
    Some(parameters::found(&statement, &Scope::with_open_parameters(&context), count))
}

/// The only statement of a text.
fn parsed(sql: &str) -> Option<Statement> {
    if sql.len() > STATEMENT_LIMIT_BYTES {
        return None;
    }
    let mut statements = Parser::parse_sql(&grammar::Sqlite::default(), sql).ok()?;
    if statements.len() == 1 { statements.pop() } else { None }
}

#[cfg(test)]
#[path = "infer_test.rs"]
mod tests;
