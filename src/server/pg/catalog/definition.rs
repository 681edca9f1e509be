//! Objects as the SQL that would make them: what `pg_get_indexdef` and its like answer.

use std::fmt::Write;

use super::TEMPORARY_SCHEMA;
use super::model::{Constraint, Demand, Index, Schema};

/// A name as SQL takes it: in quotes if it needs them.
pub fn quote_ident(name: &str) -> String {
    let plain = name.chars().all(|character| matches!(character, 'a'..='z' | '0'..='9' | '_'));
    if plain && name.starts_with(|first: char| !first.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Names as SQL takes them, with commas between.
fn list(names: &[String]) -> String {
    names.iter().map(|name| quote_ident(name)).collect::<Vec<_>>().join(", ")
}

/// A part of an index's key.
fn key(index: &Index, position: usize) -> Option<String> {
    let key = index.keys.get(position)?;
    Some(if key.column.is_some() { quote_ident(&key.expression) } else { key.expression.clone() })
}

/// The statement that would make an index, or, with a `column` from 1, that part of its key.
pub fn index(schema: &Schema, schema_name: &str, oid: u32, column: i64) -> Option<String> {
    let index = schema.index(oid)?;
    if column > 0 {
        return key(index, usize::try_from(column - 1).ok()?);
    }
    let table = schema.table(index.table)?;
    let keys: Vec<String> = (0..index.keys.len())
        .filter_map(|position| {
            let descending = if index.keys.get(position)?.descending { " DESC" } else { "" };
            Some(format!("{}{descending}", key(index, position)?))
        })
        .collect();
    let mut text = format!(
        "CREATE {}INDEX {} ON {}.{} USING btree ({})",
        if index.unique { "UNIQUE " } else { "" },
        quote_ident(&index.name),
        quote_ident(if table.temporary { TEMPORARY_SCHEMA } else { schema_name }),
        quote_ident(&table.name),
        keys.join(", ")
    );
    if let Some(predicate) = &index.predicate {
        // Writing to memory cannot fail.
        let _ = write!(text, " WHERE {predicate}");
    }
    Some(text)
}

/// A constraint as it stands in a table's definition.
pub fn constraint(schema: &Schema, oid: u32) -> Option<String> {
    let constraint = schema.constraints.iter().find(|constraint| constraint.oid == oid)?;
    Some(match &constraint.demand {
        Demand::Primary { index } => format!("PRIMARY KEY ({})", index_columns(schema, *index)),
        Demand::Unique { index } => format!("UNIQUE ({})", index_columns(schema, *index)),
        Demand::Check { expression } => format!("CHECK ({expression})"),
        Demand::References { columns, target, target_columns, on_update, on_delete, .. } => {
            let mut text = format!("FOREIGN KEY ({}) REFERENCES {}", list(columns), quote_ident(target));
            if !target_columns.is_empty() {
                let _ = write!(text, "({})", list(target_columns));
            }
            for (event, action) in [("UPDATE", on_update), ("DELETE", on_delete)] {
                if action != "NO ACTION" {
                    let _ = write!(text, " ON {event} {action}");
                }
            }
            text
        }
    })
}

fn index_columns(schema: &Schema, oid: u32) -> String {
    let Some(index) = schema.index(oid) else { return String::new() };
    (0..index.keys.len()).filter_map(|position| key(index, position)).collect::<Vec<_>>().join(", ")
}

/// The numbers of the columns that a constraint is about, in its order.
pub(super) fn constraint_columns(schema: &Schema, constraint: &Constraint) -> Vec<i64> {
    let Some(table) = schema.table(constraint.table) else { return Vec::new() };
    match &constraint.demand {
        Demand::Primary { index } | Demand::Unique { index } => {
            schema.index(*index).map(|index| index.keys.iter().filter_map(|key| key.column).collect())
        }
        Demand::References { columns, .. } => {
            Some(columns.iter().filter_map(|column| table.column_number(column)).collect())
        }
        Demand::Check { .. } => None,
    }
    .unwrap_or_default()
}

/// The numbers of the columns that a foreign key refers to.
pub(super) fn target_columns(schema: &Schema, constraint: &Constraint) -> Vec<i64> {
    let Demand::References { target_oid, target_columns, .. } = &constraint.demand else { return Vec::new() };
    let Some(table) = target_oid.and_then(|oid| schema.table(oid)) else { return Vec::new() };
    target_columns.iter().filter_map(|column| table.column_number(column)).collect()
}
