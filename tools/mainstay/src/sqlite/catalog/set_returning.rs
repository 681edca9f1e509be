//! Functions that give many rows in the list of columns, which SQLite has in FROM only.
//!
//! All of one SELECT go on in step, as in PostgreSQL: `SELECT a, unnest(b), generate_subscripts(b, 1) FROM t` becomes
//!
//! ```text
//! SELECT a, json_extract(pg_rows.value, '$[0]'), json_extract(pg_rows.value, '$[1]')
//!   FROM t, json_each(pg_rows_json(b, pg_subscripts(b, 1))) AS pg_rows
//! ```

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, Value, VisitMut, VisitorMut,
};

use super::rewrite::{call, function_name, integer, query, take};
use super::types::{self, Columns};

/// The rows that the functions of a SELECT give.
const ROWS: &str = "pg_rows";

/// Whether a function, whose name is in lower case, is one of these.
pub(super) fn is_known(name: &str) -> bool {
    ["unnest", "generate_subscripts", "generate_series"].contains(&name)
}

/// Moves such functions of a SELECT, whose expressions are rewritten, to its FROM.
pub(super) fn move_to_from(select: &mut Select, columns: &Columns) {
    let mut found = Found { arrays: Vec::new(), queries: 0, columns };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } = item {
            let _ = expression.visit(&mut found);
        }
    }
    if found.arrays.is_empty() {
        return;
    }
    if let Some(rows) = rows_of(found.arrays) {
        select.from.push(rows);
    }
}

/// The arrays whose elements are to be rows.
struct Found<'a> {
    arrays: Vec<Expr>,
    /// Within so many queries of their own, whose functions are theirs.
    queries: usize,
    columns: &'a Columns,
}

impl VisitorMut for Found<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        if self.queries == 0
            && let Expr::Function(function) = expression
            && let Some((array, kind)) = array_of(function, self.columns)
        {
            let place = format!("$[{}]", self.arrays.len());
            self.arrays.push(array);
            let rows = Expr::CompoundIdentifier(vec![ROWS.into(), "value".into()]);
            let element = call("json_extract", vec![rows, Expr::Value(Value::SingleQuotedString(place).into())]);
            *expression = match kind {
                Kind::Number => integer(element),
                Kind::Time => call("timestamp_in", vec![element]),
                Kind::Any => element,
            };
        }
        ControlFlow::Continue(())
    }
}

/// What is known of elements.
enum Kind {
    Number,
    Time,
    Any,
}

/// The array whose elements a function gives one by one, if it is such a function.
fn array_of(function: &mut Function, columns: &Columns) -> Option<(Expr, Kind)> {
    let name = function_name(&function.name)?;
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let mut arguments = Vec::new();
    for argument in &mut list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) = argument else { return None };
        arguments.push(expression);
    }
    match (name.as_str(), arguments.as_mut_slice()) {
        ("unnest", [array]) => Some((take(array), Kind::Any)),
        ("generate_subscripts", [array, dimension]) => {
            Some((call("pg_subscripts", vec![take(array), take(dimension)]), Kind::Number))
        }
        ("generate_series", [from, _] | [from, _, _]) => {
            let kind = if types::is_time(types::of(from, columns)) { Kind::Time } else { Kind::Number };
            Some((call("pg_series", arguments.into_iter().map(take).collect()), kind))
        }
        _ => None,
    }
}

fn rows_of(arrays: Vec<Expr>) -> Option<TableWithJoins> {
    let mut shell = query(&format!("SELECT 1 FROM json_each(1) AS {ROWS}"))?;
    let SetExpr::Select(select) = shell.body.as_mut() else { return None };
    let mut rows = select.from.pop()?;
    let TableFactor::Table { args: Some(arguments), .. } = &mut rows.relation else { return None };
    arguments.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(call("pg_rows_json", arrays)))];
    Some(rows)
}
