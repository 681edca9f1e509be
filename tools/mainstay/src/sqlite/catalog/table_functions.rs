//! Functions in FROM, and queries whose columns are named there, as queries of SQLite's.

use mainstay::server::pg::PgType;
use sqlparser::ast::{FunctionArg, FunctionArgExpr, Ident, Query, TableAlias, TableFactor};

use super::rewrite::{function_name, query};
use super::types::{self, Columns};

/// The column of a table function that PostgreSQL names after the function.
const ORDINALITY: &str = "ordinality";

/// Whether something in FROM is a call of a function that is understood here.
pub(super) fn is_known(factor: &TableFactor) -> bool {
    let name = match factor {
        TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name,
        TableFactor::UNNEST { .. } => return true,
        _ => return false,
    };
    let known = ["unnest", "generate_series", "pg_partition_ancestors", "pg_partition_tree", "pg_options_to_table"];
    function_name(name).is_some_and(|name| known.contains(&name.as_str()))
}

/// SQLite has no word for what may look at its neighbours. It says if something does, for only functions may.
pub(super) fn forget_lateral(factor: &mut TableFactor) {
    if let TableFactor::Derived { lateral, .. } = factor {
        *lateral = false;
    }
}

/// `(VALUES …) AS t (a, b)`: gives the columns their names within the query, where SQLite takes them.
pub(super) fn name_columns(factor: &mut TableFactor) {
    let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor else { return };
    if alias.columns.is_empty() {
        return;
    }
    let names: Vec<String> = alias.columns.iter().map(|column| column.name.to_string()).collect();
    let shell = format!("WITH {0} ({1}) AS (SELECT 1) SELECT * FROM {0}", alias.name, names.join(", "));
    if let Some(mut shell) = query(&shell)
        && let Some(rows) = shell.with.as_mut().and_then(|with| with.cte_tables.first_mut())
    {
        std::mem::swap(&mut rows.query, subquery);
        *subquery = shell;
        alias.columns.clear();
    }
}

/// A call of a function in FROM, as a query of SQLite's.
pub(super) fn table_function(factor: &TableFactor, columns: &Columns) -> Option<TableFactor> {
    let (name, arguments, alias, numbered) = match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } => {
            (function_name(name)?, args.args.as_slice(), alias, *with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            (function_name(name)?, args.as_slice(), alias, *with_ordinality)
        }
        TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
            let [array] = array_exprs.as_slice() else { return None };
            let argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(array.clone()));
            return table_of("unnest", &[argument], alias.as_ref(), *with_ordinality, columns);
        }
        _ => return None,
    };
    table_of(&name, arguments, alias.as_ref(), numbered, columns)
}

fn table_of(
    name: &str,
    arguments: &[FunctionArg],
    alias: Option<&TableAlias>,
    numbered: bool,
    columns: &Columns,
) -> Option<TableFactor> {
    // So it is known of what type they are.
    let element = match name {
        "generate_series" if types::is_time(of_first(arguments, columns)) => "timestamp_in(value)",
        "generate_series" => "CAST(value AS INTEGER)",
        _ => "value",
    };
    let arguments: Vec<String> = arguments.iter().map(FunctionArg::to_string).collect();
    let arguments = arguments.join(", ");
    let rows = match name {
        "unnest" => format!("json_each(pg_array_json({arguments}))"),
        "generate_series" => format!("json_each(pg_series_json({arguments}))"),
        // There are no partitions, and nothing that has options.
        "pg_partition_ancestors" => "json_each('[]')".to_owned(),
        "pg_partition_tree" => {
            return empty(&["relid", "parentrelid", "isleaf", "level"], alias.map_or(name, of_alias));
        }
        "pg_options_to_table" => return empty(&["option_name", "option_value"], alias.map_or(name, of_alias)),
        _ => return None,
    };
    let alias_name = alias.map_or(name, of_alias);
    let mut columns = alias.map(|alias| alias.columns.as_slice()).unwrap_or_default().iter();
    let quoted = |name: &str| Ident::with_quote('"', name).to_string();
    // As in PostgreSQL, the only column of an alias without columns is called like the alias.
    let value = columns.next().map_or_else(|| alias_name.to_owned(), |column| column.name.value.clone());
    let number = columns.next().map_or_else(|| ORDINALITY.to_owned(), |column| column.name.value.clone());
    let number = if numbered { format!(", CAST(key + 1 AS INTEGER) AS {}", quoted(&number)) } else { String::new() };
    let subquery = query(&format!("SELECT {element} AS {}{number} FROM {rows}", quoted(&value)))?;
    Some(derived(subquery, alias_name))
}

fn of_alias(alias: &TableAlias) -> &str {
    &alias.name.value
}

/// No rows, of these columns.
fn empty(columns: &[&str], alias: &str) -> Option<TableFactor> {
    let columns: Vec<String> = columns.iter().map(|column| format!("NULL AS {column}")).collect();
    Some(derived(query(&format!("SELECT {} WHERE false", columns.join(", ")))?, alias))
}

fn derived(subquery: Box<Query>, alias: &str) -> TableFactor {
    let alias = TableAlias { explicit: true, name: Ident::with_quote('"', alias), columns: Vec::new(), at: None };
    TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None }
}

fn of_first(arguments: &[FunctionArg], columns: &Columns) -> Option<PgType> {
    match arguments.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => types::of(expression, columns),
        _ => None,
    }
}
