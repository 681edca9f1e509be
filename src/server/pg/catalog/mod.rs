//! The system catalogs of PostgreSQL: what `pg_catalog.*` and `information_schema.*` hold, made of what a [`Source`] says.
//!
//! An engine describes its tables, databases and roles in the words of [`model`]; this room says them in PostgreSQL's
//! rows, so that psql's `\d` and the drivers' introspection find what they look for. It runs no SQL: the tool that embeds
//! it puts the rows of a [`Relation`] before an SQL engine of its own.
//!
//! - What does not exist here (policies, publications, …) is an empty relation, not a missing one.
//! - Object identifiers stay the same as long as an object exists; those below [`FIRST_OBJECT`] are the catalogs' own.
//! - A relation's rows have a value for each of its columns, in order; a test holds all of them to that.

pub mod definition;
mod fixed;
mod information;
pub mod model;
mod objects;
mod server;
pub mod type_names;

use std::sync::Arc;

pub use model::Schema;

use super::activity::Seen;
use super::error::SqlError;
use super::types::{OwnedValue, PgType};

/// Object identifiers from here on are those of a database's own objects.
pub const FIRST_OBJECT: u32 = 16_384;
/// The schema that holds the catalogs.
pub const PG_CATALOG: &str = "pg_catalog";
/// The schema of the SQL standard's views.
pub const INFORMATION_SCHEMA: &str = "information_schema";
/// Object identifier of the schema `pg_catalog`.
pub const PG_CATALOG_OID: u32 = 11;
/// Object identifier of the schema that holds a database's tables.
pub const OWN_SCHEMA_OID: u32 = 2200;
/// The schema that a session's temporary tables are in.
pub const TEMPORARY_SCHEMA: &str = "pg_temp";
/// Its object identifier.
pub const TEMPORARY_SCHEMA_OID: u32 = 16_000;
/// Object identifier of `information_schema`.
pub const INFORMATION_SCHEMA_OID: u32 = 13_000;
/// The catalogs' own relations are numbered from here on.
const FIRST_RELATION: u32 = 12_000;

/// What the catalogs are made of. It is asked while a statement runs, and what it answers should be of one state.
pub trait Source {
    /// The tables, indexes and views of the database.
    ///
    /// # Errors
    /// They cannot be read now.
    fn schema(&self) -> Result<Arc<Schema>, SqlError>;

    /// The name of the schema that they are in.
    fn schema_name(&self) -> &str;

    /// The database that the client is connected to.
    fn database(&self) -> &str;

    /// All databases.
    ///
    /// # Errors
    /// They cannot be read now.
    fn databases(&self) -> Result<Vec<model::Database>, SqlError>;

    /// The roles that may connect, and the one that owns everything.
    fn roles(&self) -> Arc<[model::Role]>;

    /// The settings that SHOW knows.
    fn settings(&self) -> Vec<model::Setting>;

    /// What the server's connections are doing.
    fn activity(&self) -> Vec<Seen>;
}

/// Takes the rows of a relation.
pub type Emit<'a> = dyn FnMut(Vec<OwnedValue>) -> Result<(), SqlError> + 'a;

/// A table or view of the catalogs.
pub struct Relation {
    /// The schema it is in.
    pub schema: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its columns, by name and type.
    pub columns: &'static [(&'static str, PgType)],
    rows: fn(&dyn Source, &mut Emit<'_>) -> Result<(), SqlError>,
}

impl Relation {
    /// Gives all its rows to `emit`: a value per column.
    ///
    /// # Errors
    /// The source's, and those of `emit`.
    pub fn rows(&self, source: &dyn Source, emit: &mut Emit<'_>) -> Result<(), SqlError> {
        (self.rows)(source, emit)
    }

    /// Its object identifier.
    pub fn oid(&self) -> u32 {
        let position = relations().position(|relation| std::ptr::eq(relation, self));
        FIRST_RELATION + u32::try_from(position.unwrap_or_default()).unwrap_or_default()
    }

    /// Whether it is made of other relations, in PostgreSQL's eyes.
    pub fn is_view(&self) -> bool {
        const VIEWS: &[&str] =
            &["pg_indexes", "pg_roles", "pg_settings", "pg_tables", "pg_user", "pg_user_mappings", "pg_views"];
        self.schema == INFORMATION_SCHEMA || self.name.starts_with("pg_stat_") || VIEWS.contains(&self.name)
    }

    fn schema_oid(&self) -> u32 {
        if self.schema == PG_CATALOG { PG_CATALOG_OID } else { INFORMATION_SCHEMA_OID }
    }
}

/// All relations of the catalogs.
pub fn relations() -> impl Iterator<Item = &'static Relation> {
    [objects::RELATIONS, server::RELATIONS, fixed::RELATIONS, information::RELATIONS].into_iter().flatten()
}

/// The relation of that name: of that schema, or, without one, of `pg_catalog`.
pub fn find(schema: Option<&str>, name: &str) -> Option<&'static Relation> {
    let schema = schema.unwrap_or(PG_CATALOG);
    relations()
        .find(|relation| relation.schema.eq_ignore_ascii_case(schema) && relation.name.eq_ignore_ascii_case(name))
}

/// The schema that temporary tables are in, or all others; its number and its name.
fn schema_of(source: &dyn Source, temporary: bool) -> (u32, &str) {
    if temporary { (TEMPORARY_SCHEMA_OID, TEMPORARY_SCHEMA) } else { (OWN_SCHEMA_OID, source.schema_name()) }
}

/// The columns of a relation: `name: TYPE` each.
macro_rules! columns {
    ($($name:ident: $pg_type:ident),* $(,)?) => {
        &[$((stringify!($name), $crate::server::pg::types::PgType::$pg_type)),*]
    };
}

/// A row of values.
macro_rules! row {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::server::pg::types::OwnedValue::from($value)),*]
    };
}

use {columns, row};

impl From<bool> for OwnedValue {
    fn from(value: bool) -> OwnedValue {
        OwnedValue::Integer(i64::from(value))
    }
}

impl From<u32> for OwnedValue {
    fn from(value: u32) -> OwnedValue {
        OwnedValue::Integer(i64::from(value))
    }
}

impl From<i64> for OwnedValue {
    fn from(value: i64) -> OwnedValue {
        OwnedValue::Integer(value)
    }
}

impl From<&str> for OwnedValue {
    fn from(value: &str) -> OwnedValue {
        OwnedValue::Text(value.to_owned())
    }
}

impl From<String> for OwnedValue {
    fn from(value: String) -> OwnedValue {
        OwnedValue::Text(value)
    }
}

impl<T: Into<OwnedValue>> From<Option<T>> for OwnedValue {
    fn from(value: Option<T>) -> OwnedValue {
        value.map_or(OwnedValue::Null, Into::into)
    }
}

/// No value, of any type.
const NONE: Option<i64> = None;

/// A count as the catalogs hold it.
fn count(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "catalog_test.rs"]
mod tests;
