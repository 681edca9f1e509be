//! The catalogs of a database's objects: tables, columns, indexes, constraints, triggers.

use super::definition;
use super::model::{Demand, Schema, Table};
use super::{Emit, NONE, PG_CATALOG, Relation, Source, columns, count, relations, row, schema_of, type_names};
use crate::server::pg::error::SqlError;
use crate::server::pg::types::PgType;

/// The access methods of tables and indexes, in `pg_am`.
pub(super) const HEAP_OID: u32 = 2;
/// See [`HEAP_OID`].
pub(super) const BTREE_OID: u32 = 403;
/// The collation that text has, in `pg_collation`.
pub(super) const DEFAULT_COLLATION: u32 = 100;
/// The role that owns everything.
pub(super) const OWNER_OID: u32 = 10;

pub(super) const RELATIONS: &[Relation] = &[
    Relation {
        schema: PG_CATALOG,
        name: "pg_class",
        columns: columns![
            oid: OID, relname: NAME, relnamespace: OID, reltype: OID, reloftype: OID, relowner: OID, relam: OID,
            relfilenode: OID, reltablespace: OID, relpages: INT4, reltuples: FLOAT4, relallvisible: INT4,
            reltoastrelid: OID, relhasindex: BOOL, relisshared: BOOL, relpersistence: CHAR, relkind: CHAR,
            relnatts: INT2, relchecks: INT2, relhasrules: BOOL, relhastriggers: BOOL, relhassubclass: BOOL,
            relrowsecurity: BOOL, relforcerowsecurity: BOOL, relispopulated: BOOL, relreplident: CHAR,
            relispartition: BOOL, relrewrite: OID, relfrozenxid: INT8, relminmxid: INT8, relacl: ACL_ARRAY,
            reloptions: TEXT_ARRAY, relpartbound: TEXT,
        ],
        rows: class,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_attribute",
        columns: columns![
            attrelid: OID, attname: NAME, atttypid: OID, attstattarget: INT4, attlen: INT2, attnum: INT2,
            attndims: INT4, attcacheoff: INT4, atttypmod: INT4, attbyval: BOOL, attalign: CHAR, attstorage: CHAR,
            attcompression: CHAR, attnotnull: BOOL, atthasdef: BOOL, atthasmissing: BOOL, attidentity: CHAR,
            attgenerated: CHAR, attisdropped: BOOL, attislocal: BOOL, attinhcount: INT4, attcollation: OID,
            attacl: ACL_ARRAY, attoptions: TEXT_ARRAY, attfdwoptions: TEXT_ARRAY, attmissingval: TEXT,
        ],
        rows: attribute,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_attrdef",
        columns: columns![oid: OID, adrelid: OID, adnum: INT2, adbin: TEXT],
        rows: defaults,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_index",
        columns: columns![
            indexrelid: OID, indrelid: OID, indnatts: INT2, indnkeyatts: INT2, indisunique: BOOL,
            indnullsnotdistinct: BOOL, indisprimary: BOOL, indisexclusion: BOOL, indimmediate: BOOL,
            indisclustered: BOOL, indisvalid: BOOL, indcheckxmin: BOOL, indisready: BOOL, indislive: BOOL,
            indisreplident: BOOL, indkey: INT2_VECTOR, indcollation: OID_VECTOR, indclass: OID_VECTOR,
            indoption: INT2_VECTOR, indexprs: TEXT, indpred: TEXT,
        ],
        rows: index,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_constraint",
        columns: columns![
            oid: OID, conname: NAME, connamespace: OID, contype: CHAR, condeferrable: BOOL, condeferred: BOOL,
            convalidated: BOOL, conrelid: OID, contypid: OID, conindid: OID, conparentid: OID, confrelid: OID,
            confupdtype: CHAR, confdeltype: CHAR, confmatchtype: CHAR, conislocal: BOOL, coninhcount: INT4,
            connoinherit: BOOL, conkey: INT2_ARRAY, confkey: INT2_ARRAY, conpfeqop: OID_ARRAY, conppeqop: OID_ARRAY,
            conffeqop: OID_ARRAY, confdelsetcols: INT2_ARRAY, conexclop: OID_ARRAY, conbin: TEXT,
        ],
        rows: constraint,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_trigger",
        columns: columns![
            oid: OID, tgrelid: OID, tgparentid: OID, tgname: NAME, tgfoid: OID, tgtype: INT2, tgenabled: CHAR,
            tgisinternal: BOOL, tgconstrrelid: OID, tgconstrindid: OID, tgconstraint: OID, tgdeferrable: BOOL,
            tginitdeferred: BOOL, tgnargs: INT2, tgattr: INT2_VECTOR, tgargs: BYTEA, tgqual: TEXT, tgoldtable: NAME,
            tgnewtable: NAME,
        ],
        rows: trigger,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_tables",
        columns: columns![
            schemaname: NAME, tablename: NAME, tableowner: NAME, tablespace: NAME, hasindexes: BOOL, hasrules: BOOL,
            hastriggers: BOOL, rowsecurity: BOOL,
        ],
        rows: tables,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_views",
        columns: columns![schemaname: NAME, viewname: NAME, viewowner: NAME, definition: TEXT],
        rows: views,
    },
    Relation {
        schema: PG_CATALOG,
        name: "pg_indexes",
        columns: columns![schemaname: NAME, tablename: NAME, indexname: NAME, tablespace: NAME, indexdef: TEXT],
        rows: indexes,
    },
];

/// What a row of `pg_class` tells apart.
struct Class<'a> {
    oid: u32,
    name: &'a str,
    namespace: u32,
    temporary: bool,
    kind: &'static str,
    columns: usize,
    checks: usize,
    indexed: bool,
    triggers: bool,
}

impl Class<'_> {
    fn emit(&self, emit: &mut Emit<'_>) -> Result<(), SqlError> {
        let method = match self.kind {
            "r" => HEAP_OID,
            "i" => BTREE_OID,
            _ => 0,
        };
        let is_view = self.kind == "v";
        let persistence = if self.temporary { "t" } else { "p" };
        emit(row! {
            self.oid, self.name, self.namespace, 0u32, 0u32, OWNER_OID, method, 0u32, 0u32, 0i64, -1i64, 0i64, 0u32,
            self.indexed, false, persistence, self.kind, count(self.columns), count(self.checks), is_view, self.triggers, false,
            false, false, true, if is_view { "n" } else { "d" }, false, 0u32, 0i64, 0i64, NONE, NONE, NONE,
        })
    }
}

fn class(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let schema = source.schema()?;
    for table in &schema.tables {
        let checks = schema.constraints.iter().filter(|constraint| constraint.table == table.oid);
        let class = Class {
            oid: table.oid,
            name: &table.name,
            namespace: schema_of(source, table.temporary).0,
            temporary: table.temporary,
            kind: kind(table),
            columns: table.columns.len(),
            checks: checks.filter(|constraint| matches!(constraint.demand, Demand::Check { .. })).count(),
            indexed: is_indexed(&schema, table),
            triggers: has_triggers(&schema, table),
        };
        class.emit(emit)?;
    }
    for index in &schema.indexes {
        let (oid, name, columns) = (index.oid, index.name.as_str(), index.keys.len());
        let temporary = schema.is_temporary(index.table);
        let (namespace, kind) = (schema_of(source, temporary).0, "i");
        Class { oid, name, namespace, temporary, kind, columns, checks: 0, indexed: false, triggers: false }
            .emit(emit)?;
    }
    for relation in relations() {
        let class = Class {
            oid: relation.oid(),
            name: relation.name,
            namespace: relation.schema_oid(),
            temporary: false,
            kind: if relation.is_view() { "v" } else { "r" },
            columns: relation.columns.len(),
            checks: 0,
            indexed: false,
            triggers: false,
        };
        class.emit(emit)?;
    }
    Ok(())
}

fn kind(table: &Table) -> &'static str {
    if table.view.is_some() { "v" } else { "r" }
}

fn is_indexed(schema: &Schema, table: &Table) -> bool {
    schema.indexes.iter().any(|index| index.table == table.oid)
}

/// As in PostgreSQL, a foreign key has triggers too; psql asks for neither without this.
fn has_triggers(schema: &Schema, table: &Table) -> bool {
    schema.triggers.iter().any(|trigger| trigger.table == table.oid)
        || schema.constraints.iter().any(|constraint| match &constraint.demand {
            Demand::References { target_oid, .. } => constraint.table == table.oid || *target_oid == Some(table.oid),
            _ => false,
        })
}

/// What a row of `pg_attribute` tells apart.
struct Attribute<'a> {
    relation: u32,
    number: i64,
    name: &'a str,
    pg_type: PgType,
    not_null: bool,
    has_default: bool,
    generated: bool,
}

impl Attribute<'_> {
    fn emit(&self, emit: &mut Emit<'_>) -> Result<(), SqlError> {
        let known = type_names::of_oid(self.pg_type.0);
        let length = known.map_or(-1, |known| known.length);
        let collation = if known.is_some_and(|known| known.category == "S") { DEFAULT_COLLATION } else { 0 };
        let storage = if length < 0 { "x" } else { "p" };
        emit(row! {
            self.relation, self.name, self.pg_type.0, -1i64, length, self.number, 0i64, -1i64, -1i64, length > 0, "i",
            storage, "", self.not_null, self.has_default, false, "", if self.generated { "s" } else { "" }, false, true,
            0i64, collation, NONE, NONE, NONE, NONE,
        })
    }
}

fn attribute(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let schema = source.schema()?;
    for table in &schema.tables {
        for (number, column) in (1..).zip(&table.columns) {
            let attribute = Attribute {
                relation: table.oid,
                number,
                name: &column.name,
                pg_type: column.pg_type,
                not_null: column.not_null,
                has_default: column.default.is_some(),
                generated: column.generated,
            };
            attribute.emit(emit)?;
        }
    }
    for index in &schema.indexes {
        let table = schema.table(index.table);
        for (number, key) in (1..).zip(&index.keys) {
            let position = key.column.and_then(|column| usize::try_from(column - 1).ok());
            let column = position.zip(table).and_then(|(position, table)| table.columns.get(position));
            let attribute = Attribute {
                relation: index.oid,
                number,
                name: column.map_or("expr", |column| &column.name),
                pg_type: column.map_or(PgType::TEXT, |column| column.pg_type),
                not_null: false,
                has_default: false,
                generated: false,
            };
            attribute.emit(emit)?;
        }
    }
    for relation in relations() {
        let oid = relation.oid();
        for (number, (name, pg_type)) in (1..).zip(relation.columns) {
            let (not_null, has_default, generated) = (false, false, false);
            let attribute =
                Attribute { relation: oid, number, name, pg_type: *pg_type, not_null, has_default, generated };
            attribute.emit(emit)?;
        }
    }
    Ok(())
}

fn defaults(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let schema = source.schema()?;
    let mut oid = 1u32;
    for table in &schema.tables {
        for (number, column) in (1i64..).zip(&table.columns) {
            let Some(default) = &column.default else { continue };
            emit(row! { oid, table.oid, number, default.as_str() })?;
            oid = oid.saturating_add(1);
        }
    }
    Ok(())
}

fn index(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let schema = source.schema()?;
    for index in &schema.indexes {
        let each = |value: &dyn Fn(&super::model::IndexKey) -> i64| {
            index.keys.iter().map(|key| value(key).to_string()).collect::<Vec<_>>().join(" ")
        };
        let keys = count(index.keys.len());
        let expressions: Vec<&str> =
            index.keys.iter().filter(|key| key.column.is_none()).map(|key| key.expression.as_str()).collect();
        let expressions = (!expressions.is_empty()).then(|| expressions.join(", "));
        emit(row! {
            index.oid, index.table, keys, keys, index.unique, false, index.primary, false, true, false, true, false,
            true, true, false, each(&|key| key.column.unwrap_or(0)), each(&|_| i64::from(DEFAULT_COLLATION)),
            each(&|_| 0), each(&|key| if key.descending { 3 } else { 0 }), expressions, index.predicate.clone(),
        })?;
    }
    Ok(())
}

fn constraint(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let schema = source.schema()?;
    for constraint in &schema.constraints {
        let (kind, index, target) = match &constraint.demand {
            Demand::Primary { index } => ("p", *index, 0),
            Demand::Unique { index } => ("u", *index, 0),
            Demand::References { target_oid, .. } => ("f", 0, target_oid.unwrap_or(0)),
            Demand::Check { .. } => ("c", 0, 0),
        };
        let (on_update, on_delete, matching) = match &constraint.demand {
            Demand::References { on_update, on_delete, .. } => (action(on_update), action(on_delete), "s"),
            _ => (" ", " ", " "),
        };
        let expression = match &constraint.demand {
            Demand::Check { expression } => Some(expression.as_str()),
            _ => None,
        };
        let (namespace, _) = schema_of(source, schema.is_temporary(constraint.table));
        let columns = array(&definition::constraint_columns(&schema, constraint));
        let target_columns = array(&definition::target_columns(&schema, constraint));
        emit(row! {
            constraint.oid, constraint.name.as_str(), namespace, kind, false, false, true, constraint.table, 0u32,
            index, 0u32, target, on_update, on_delete, matching, true, 0i64, true, columns, target_columns, NONE, NONE,
            NONE, NONE, NONE, expression,
        })?;
    }
    Ok(())
}

/// The letter that `pg_constraint` has for what happens to those who refer.
fn action(words: &str) -> &'static str {
    match words {
        "RESTRICT" => "r",
        "CASCADE" => "c",
        "SET NULL" => "n",
        "SET DEFAULT" => "d",
        _ => "a",
    }
}

/// Numbers as an array in text; nothing if there are none.
fn array(numbers: &[i64]) -> Option<String> {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    (!numbers.is_empty()).then(|| format!("{{{}}}", numbers.join(",")))
}

fn trigger(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    for trigger in &source.schema()?.triggers {
        emit(row! {
            trigger.oid, trigger.table, 0u32, trigger.name.as_str(), 0u32, 0i64, "O", false, 0u32, 0u32, 0u32, false,
            false, 0i64, "", NONE, NONE, NONE, NONE,
        })?;
    }
    Ok(())
}

/// The name of the role that owns everything.
pub(super) fn owner(source: &dyn Source) -> Option<String> {
    source.roles().iter().find(|role| role.oid == OWNER_OID).map(|role| role.name.clone())
}

fn tables(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let (schema, owner) = (source.schema()?, owner(source));
    for table in schema.tables.iter().filter(|table| table.view.is_none()) {
        let (indexed, triggers) = (is_indexed(&schema, table), has_triggers(&schema, table));
        let name = table.name.as_str();
        emit(
            row! { schema_of(source, table.temporary).1, name, owner.clone(), NONE, indexed, false, triggers, false },
        )?;
    }
    for relation in relations().filter(|relation| !relation.is_view()) {
        emit(row! { relation.schema, relation.name, owner.clone(), NONE, false, false, false, false })?;
    }
    Ok(())
}

fn views(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let (schema, owner) = (source.schema()?, owner(source));
    for table in &schema.tables {
        let Some(query) = &table.view else { continue };
        emit(row! { schema_of(source, table.temporary).1, table.name.as_str(), owner.clone(), query.as_str() })?;
    }
    Ok(())
}

fn indexes(source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
    let schema = source.schema()?;
    for index in &schema.indexes {
        let table = schema.table(index.table).map(|table| table.name.clone());
        let (_, place) = schema_of(source, schema.is_temporary(index.table));
        let text = definition::index(&schema, source.schema_name(), index.oid, 0);
        emit(row! { place, table, index.name.as_str(), NONE, text })?;
    }
    Ok(())
}
