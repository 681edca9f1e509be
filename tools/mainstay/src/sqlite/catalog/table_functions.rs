//! Functions in FROM, as queries of SQLite's.

use sqlparser::ast::{FunctionArg, FunctionArgExpr, Ident, TableAlias, TableFactor};

use super::rewrite::{function_name, query};

/// The column of a table function that PostgreSQL names after the function.
const ORDINALITY: &str = "ordinality";

/// A call of a function in FROM, as a query of SQLite's.
pub(super) fn table_function(factor: &TableFactor) -> Option<TableFactor> {
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
            return table_of("unnest", &[argument], alias.as_ref(), *with_ordinality);
        }
        _ => return None,
    };
    table_of(&name, arguments, alias.as_ref(), numbered)
}

fn table_of(name: &str, arguments: &[FunctionArg], alias: Option<&TableAlias>, numbered: bool) -> Option<TableFactor> {
    let arguments: Vec<String> = arguments.iter().map(FunctionArg::to_string).collect();
    let arguments = arguments.join(", ");
    let rows = match name {
        "unnest" => format!("json_each(pg_array_json({arguments}))"),
        "generate_series" => format!("json_each(pg_series_json({arguments}))"),
        // There are no partitions.
        "pg_partition_ancestors" | "pg_partition_tree" => "json_each('[]')".to_owned(),
        _ => return None,
    };
    let alias_name = alias.map_or(name, |alias| &alias.name.value);
    let mut columns = alias.map(|alias| alias.columns.as_slice()).unwrap_or_default().iter();
    let quoted = |name: &str| Ident::with_quote('"', name).to_string();
    // As in PostgreSQL, the only column of an alias without columns is called like the alias.
    let value = columns.next().map_or_else(|| alias_name.to_owned(), |column| column.name.value.clone());
    let number = columns.next().map_or_else(|| ORDINALITY.to_owned(), |column| column.name.value.clone());
    let number = if numbered { format!(", key + 1 AS {}", quoted(&number)) } else { String::new() };
    let subquery = query(&format!("SELECT value AS {}{number} FROM {rows}", quoted(&value)))?;
    let alias = TableAlias { explicit: true, name: Ident::with_quote('"', alias_name), columns: Vec::new(), at: None };
    Some(TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None })
}
