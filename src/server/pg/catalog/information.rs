//! The views of the SQL standard, `information_schema.*`.

use super::definition;
use super::model::{Constraint, Demand, Schema, Table};
use super::objects::owner;
use super::{
    Emit, INFORMATION_SCHEMA, NONE, PG_CATALOG, Relation, Source, TEMPORARY_SCHEMA, columns, relations, row, schema_of,
    type_names,
};
use crate::server::pg::error::SqlError;
use crate::server::pg::types::PgType;

pub(super) const RELATIONS: &[Relation] = &[
    Relation {
        schema: INFORMATION_SCHEMA,
        name: "schemata",
        columns: columns![catalog_name: NAME, schema_name: NAME, schema_owner: NAME],
        rows: schemata,
    },
    Relation {
        schema: INFORMATION_SCHEMA,
        name: "tables",
        columns: columns![
            table_catalog: NAME, table_schema: NAME, table_name: NAME, table_type: TEXT, is_insertable_into: TEXT,
        ],
        rows: tables,
    },
    Relation {
        schema: INFORMATION_SCHEMA,
        name: "views",
        columns: columns![
            table_catalog: NAME, table_schema: NAME, table_name: NAME, view_definition: TEXT, check_option: TEXT,
            is_updatable: TEXT,
        ],
        rows: views,
    },
    Relation {
        schema: INFORMATION_SCHEMA,
        name: "columns",
        columns: columns![
            table_catalog: NAME, table_schema: NAME, table_name: NAME, column_name: NAME, ordinal_position: INT4,
            column_default: TEXT, is_nullable: TEXT, data_type: TEXT, character_maximum_length: INT4,
            numeric_precision: INT4, numeric_scale: INT4, datetime_precision: INT4, collation_name: NAME,
            udt_catalog: NAME, udt_schema: NAME, udt_name: NAME, is_identity: TEXT, is_generated: TEXT,
            generation_expression: TEXT, is_updatable: TEXT,
        ],
        rows: table_columns,
    },
    Relation {
        schema: INFORMATION_SCHEMA,
        name: "table_constraints",
        columns: columns![
            constraint_catalog: NAME, constraint_schema: NAME, constraint_name: NAME, table_catalog: NAME,
            table_schema: NAME, table_name: NAME, constraint_type: TEXT, is_deferrable: TEXT,
            initially_deferred: TEXT, enforced: TEXT,
        ],
        rows: table_constraints,
    },
    Relation {
        schema: INFORMATION_SCHEMA,
        name: "key_column_usage",
        columns: columns![
            constraint_catalog: NAME, constraint_schema: NAME, constraint_name: NAME, table_catalog: NAME,
            table_schema: NAME, table_name: NAME, column_name: NAME, ordinal_position: INT4,
            position_in_unique_constraint: INT4,
        ],
        rows: key_column_usage,
    },
    Relation {
        schema: INFORMATION_SCHEMA,
        name: "referential_constraints",
        columns: columns![
            constraint_catalog: NAME, constraint_schema: NAME, constraint_name: NAME, unique_constraint_catalog: NAME,
            unique_constraint_schema: NAME, unique_constraint_name: NAME, match_option: TEXT, update_rule: TEXT,
            delete_rule: TEXT,
        ],
        rows: referential_constraints,
    },
    Relation {
        schema: INFORMATION_SCHEMA,
        name: "check_constraints",
        columns: columns![
            constraint_catalog: NAME, constraint_schema: NAME, constraint_name: NAME, check_clause: TEXT,
        ],
        rows: check_constraints,
    },
];

fn yes(value: bool) -> &'static str {
    if value { "YES" } else { "NO" }
}

fn schemata(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let owner = owner(source);
    let temporary = source.schema()?.has_temporary().then_some(TEMPORARY_SCHEMA);
    for name in [PG_CATALOG, source.schema_name(), INFORMATION_SCHEMA].into_iter().chain(temporary) {
        emit(row! { source.database(), name, owner.clone() })?;
    }
    Ok(())
}

fn tables(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let kind = |is_view| if is_view { "VIEW" } else { "BASE TABLE" };
    for table in &source.schema()?.tables {
        let is_view = table.view.is_some();
        let (name, (_, place)) = (table.name.as_str(), schema_of(source, table.temporary));
        let kind = if table.temporary && !is_view { "LOCAL TEMPORARY" } else { kind(is_view) };
        emit(row! { source.database(), place, name, kind, yes(!is_view) })?;
    }
    for relation in relations() {
        emit(row! { source.database(), relation.schema, relation.name, kind(relation.is_view()), "NO" })?;
    }
    Ok(())
}

fn views(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for table in &source.schema()?.tables {
        let Some(query) = &table.view else { continue };
        let (_, place) = schema_of(source, table.temporary);
        emit(row! { source.database(), place, table.name.as_str(), query.as_str(), "NONE", "NO" })?;
    }
    Ok(())
}

fn table_columns(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for table in &source.schema()?.tables {
        for (number, column) in (1i64..).zip(&table.columns) {
            let default = column.default.clone().filter(|_| !column.generated);
            let generation = column.default.clone().filter(|_| column.generated);
            let precision = precision(column.pg_type);
            emit(row! {
                source.database(), schema_of(source, table.temporary).1, table.name.as_str(), column.name.as_str(),
                number, default,
                yes(!column.not_null), type_names::format_type(column.pg_type.0), NONE, precision,
                precision.filter(|bits| *bits < 65).map(|_| 0i64), NONE, NONE, source.database(), PG_CATALOG,
                type_names::of_oid(column.pg_type.0).map(|known| known.name), "NO",
                if column.generated { "ALWAYS" } else { "NEVER" }, generation, yes(table.view.is_none()),
            })?;
        }
    }
    for relation in relations() {
        for (number, (name, pg_type)) in (1i64..).zip(relation.columns) {
            emit(row! {
                source.database(), relation.schema, relation.name, *name, number, NONE, "YES",
                type_names::format_type(pg_type.0), NONE, precision(*pg_type), NONE, NONE, NONE, source.database(),
                PG_CATALOG, type_names::of_oid(pg_type.0).map(|known| known.name), "NO", "NEVER", NONE, "NO",
            })?;
        }
    }
    Ok(())
}

/// The bits of a number.
fn precision(pg_type: PgType) -> Option<i64> {
    match pg_type {
        PgType::INT2 => Some(16),
        PgType::INT4 => Some(32),
        PgType::INT8 => Some(64),
        _ => None,
    }
}

/// The constraints that have a table, with it.
fn constraints(schema: &Schema) -> impl Iterator<Item = (&Constraint, &Table)> {
    schema.constraints.iter().filter_map(|constraint| Some((constraint, schema.table(constraint.table)?)))
}

fn table_constraints(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let database = source.database();
    for (constraint, table) in constraints(source.schema()?.as_ref()) {
        let (_, own) = schema_of(source, table.temporary);
        let kind = match constraint.demand {
            Demand::Primary { .. } => "PRIMARY KEY",
            Demand::Unique { .. } => "UNIQUE",
            Demand::References { .. } => "FOREIGN KEY",
            Demand::Check { .. } => "CHECK",
        };
        let (constraint, table) = (constraint.name.as_str(), table.name.as_str());
        emit(row! { database, own, constraint, database, own, table, kind, "NO", "NO", "YES" })?;
    }
    Ok(())
}

fn key_column_usage(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let (database, schema) = (source.database(), source.schema()?);
    for (constraint, table) in constraints(&schema) {
        let (_, own) = schema_of(source, table.temporary);
        let refers = matches!(constraint.demand, Demand::References { .. });
        for (position, number) in (1i64..).zip(definition::constraint_columns(&schema, constraint)) {
            let column = usize::try_from(number - 1).ok().and_then(|index| table.columns.get(index));
            let column = column.map(|column| column.name.clone());
            let (constraint, table) = (constraint.name.as_str(), table.name.as_str());
            let referred = refers.then_some(position);
            emit(row! { database, own, constraint, database, own, table, column, position, referred })?;
        }
    }
    Ok(())
}

fn referential_constraints(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let (database, own, schema) = (source.database(), source.schema_name(), source.schema()?);
    for (constraint, _) in constraints(&schema) {
        let Demand::References { target_oid, on_update, on_delete, .. } = &constraint.demand else { continue };
        let targets = definition::target_columns(&schema, constraint);
        // The key that has the same columns, in any order.
        let same = |key: &&Constraint| {
            let is_key = matches!(key.demand, Demand::Primary { .. } | Demand::Unique { .. });
            let columns = definition::constraint_columns(&schema, key);
            let alike = columns.len() == targets.len() && columns.iter().all(|column| targets.contains(column));
            is_key && Some(key.table) == *target_oid && alike
        };
        let key = schema.constraints.iter().find(same).map(|key| key.name.clone());
        let (update, delete) = (on_update.as_str(), on_delete.as_str());
        emit(row! { database, own, constraint.name.as_str(), database, own, key, "NONE", update, delete })?;
    }
    Ok(())
}

fn check_constraints(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let schema = source.schema()?;
    for constraint in &schema.constraints {
        let Demand::Check { expression } = &constraint.demand else { continue };
        let (_, place) = schema_of(source, schema.is_temporary(constraint.table));
        emit(row! { source.database(), place, constraint.name.as_str(), expression.as_str() })?;
    }
    Ok(())
}
