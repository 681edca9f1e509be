//! The types that the catalogs know: their identifiers and names.

use crate::server::pg::types::PgType;

/// A type.
#[derive(Clone, Copy, Debug)]
pub struct TypeName {
    /// Its identifier.
    pub pg_type: PgType,
    /// Its name in `pg_type`.
    pub name: &'static str,
    /// Its name in SQL.
    pub sql: &'static str,
    /// The size of its values; -1 if they vary.
    pub length: i64,
    /// `typcategory`.
    pub category: &'static str,
    /// The type of arrays of it; 0 if there is none here.
    pub array: u32,
}

const fn of(
    oid: u32,
    name: &'static str,
    sql: &'static str,
    length: i64,
    category: &'static str,
    array: u32,
) -> TypeName {
    TypeName { pg_type: PgType(oid), name, sql, length, category, array }
}

/// All of them.
pub const TYPES: &[TypeName] = &[
    of(16, "bool", "boolean", 1, "B", 1000),
    of(17, "bytea", "bytea", -1, "U", 1001),
    of(18, "char", "\"char\"", 1, "Z", 1002),
    of(19, "name", "name", 64, "S", 1003),
    of(20, "int8", "bigint", 8, "N", 1016),
    of(21, "int2", "smallint", 2, "N", 1005),
    of(22, "int2vector", "int2vector", -1, "A", 0),
    of(23, "int4", "integer", 4, "N", 1007),
    of(24, "regproc", "regproc", 4, "N", 0),
    of(25, "text", "text", -1, "S", 1009),
    of(26, "oid", "oid", 4, "N", 1028),
    of(28, "xid", "xid", 4, "U", 0),
    of(30, "oidvector", "oidvector", -1, "A", 0),
    of(114, "json", "json", -1, "U", 199),
    of(194, "pg_node_tree", "pg_node_tree", -1, "Z", 0),
    of(700, "float4", "real", 4, "N", 1021),
    of(701, "float8", "double precision", 8, "N", 1022),
    of(705, "unknown", "unknown", -2, "X", 0),
    of(869, "inet", "inet", -1, "I", 1041),
    of(1000, "_bool", "boolean[]", -1, "A", 0),
    of(1001, "_bytea", "bytea[]", -1, "A", 0),
    of(1002, "_char", "\"char\"[]", -1, "A", 0),
    of(1003, "_name", "name[]", -1, "A", 0),
    of(1005, "_int2", "smallint[]", -1, "A", 0),
    of(1007, "_int4", "integer[]", -1, "A", 0),
    of(1009, "_text", "text[]", -1, "A", 0),
    of(1015, "_varchar", "character varying[]", -1, "A", 0),
    of(1016, "_int8", "bigint[]", -1, "A", 0),
    of(1021, "_float4", "real[]", -1, "A", 0),
    of(1022, "_float8", "double precision[]", -1, "A", 0),
    of(1028, "_oid", "oid[]", -1, "A", 0),
    of(1034, "_aclitem", "aclitem[]", -1, "A", 0),
    of(1042, "bpchar", "character", -1, "S", 1014),
    of(1043, "varchar", "character varying", -1, "S", 1015),
    of(1082, "date", "date", 4, "D", 1182),
    of(1083, "time", "time without time zone", 8, "D", 1183),
    of(1114, "timestamp", "timestamp without time zone", 8, "D", 1115),
    of(1184, "timestamptz", "timestamp with time zone", 8, "D", 1185),
    of(1186, "interval", "interval", 16, "T", 1187),
    of(1231, "_numeric", "numeric[]", -1, "A", 0),
    of(1700, "numeric", "numeric", -1, "N", 1231),
    of(2205, "regclass", "regclass", 4, "N", 2210),
    of(2206, "regtype", "regtype", 4, "N", 2211),
    of(2950, "uuid", "uuid", 16, "U", 2951),
    of(3802, "jsonb", "jsonb", -1, "U", 3807),
    of(4089, "regnamespace", "regnamespace", 4, "N", 4090),
];

/// The type of that identifier.
pub fn of_oid(oid: u32) -> Option<&'static TypeName> {
    TYPES.iter().find(|known| known.pg_type.0 == oid)
}

/// The type of that name, in `pg_type` or in SQL.
pub fn named(name: &str) -> Option<&'static TypeName> {
    let alias = match name.to_ascii_lowercase().as_str() {
        "int" => "int4",
        "decimal" => "numeric",
        "float" => "float8",
        "timestamp" => "timestamp",
        _ => name,
    };
    let is = |known: &&TypeName| known.name.eq_ignore_ascii_case(alias) || known.sql.eq_ignore_ascii_case(alias);
    TYPES.iter().find(is)
}

/// A type as SQL says it, as PostgreSQL's `format_type` does.
pub fn format_type(oid: u32) -> String {
    match of_oid(oid) {
        Some(known) => known.sql.to_owned(),
        None if oid == 0 => "-".to_owned(),
        None => "???".to_owned(),
    }
}
