//! What an engine says of its objects, before they are rows of the catalogs.

use crate::server::pg::types::PgType;

/// The objects of one database, as they are at one moment.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Tables and views.
    pub tables: Vec<Table>,
    /// Indexes of the tables.
    pub indexes: Vec<Index>,
    /// Constraints of the tables.
    pub constraints: Vec<Constraint>,
    /// Triggers of the tables and views.
    pub triggers: Vec<Trigger>,
}

impl Schema {
    /// The table of that identifier.
    pub fn table(&self, oid: u32) -> Option<&Table> {
        self.tables.iter().find(|table| table.oid == oid)
    }

    /// The table of that name, in any case: the first, so those come first that hide others.
    pub fn table_named(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// Whether there are temporary tables or views.
    pub fn has_temporary(&self) -> bool {
        self.tables.iter().any(|table| table.temporary)
    }

    /// Whether the table of that identifier is temporary.
    pub fn is_temporary(&self, table: u32) -> bool {
        self.table(table).is_some_and(|table| table.temporary)
    }

    /// The index of that identifier.
    pub fn index(&self, oid: u32) -> Option<&Index> {
        self.indexes.iter().find(|index| index.oid == oid)
    }
}

/// A table or a view.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its object identifier.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// It is the session's own, and gone with it.
    pub temporary: bool,
    /// The query of a view; nothing for a table.
    pub view: Option<String>,
    /// Its columns, in order.
    pub columns: Vec<TableColumn>,
}

impl Table {
    /// The number, from 1, of the column of that name, in any case.
    pub fn column_number(&self, name: &str) -> Option<i64> {
        let position = self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))?;
        i64::try_from(position + 1).ok()
    }
}

/// A column of a table or view.
#[derive(Clone, Debug)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// The type that its values are sent as.
    pub pg_type: PgType,
    /// It takes no NULL.
    pub not_null: bool,
    /// Its default, or what it is generated from, as an expression.
    pub default: Option<String>,
    /// It is generated from other columns.
    pub generated: bool,
}

/// An index.
#[derive(Clone, Debug)]
pub struct Index {
    /// Its object identifier.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// The table that it is of.
    pub table: u32,
    /// What it is ordered by.
    pub keys: Vec<IndexKey>,
    /// No two rows have the same key.
    pub unique: bool,
    /// It is the primary key's.
    pub primary: bool,
    /// Which rows are in it; all without one.
    pub predicate: Option<String>,
}

/// A part of an index's key.
#[derive(Clone, Debug)]
pub struct IndexKey {
    /// The number of the column, from 1; nothing for an expression.
    pub column: Option<i64>,
    /// The column's name, or the expression.
    pub expression: String,
    /// From the largest to the smallest.
    pub descending: bool,
}

/// A constraint of a table.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// Its identifier among the constraints.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// The table that it is of.
    pub table: u32,
    /// What it demands.
    pub demand: Demand,
}

/// What a constraint demands.
#[derive(Clone, Debug)]
pub enum Demand {
    /// The key of the table, kept by an index.
    Primary {
        /// The index.
        index: u32,
    },
    /// No two rows alike, kept by an index.
    Unique {
        /// The index.
        index: u32,
    },
    /// What a row refers to exists.
    References {
        /// The columns that refer, by name.
        columns: Vec<String>,
        /// The table referred to, by name.
        target: String,
        /// Its identifier, if it exists.
        target_oid: Option<u32>,
        /// The columns referred to, by name.
        target_columns: Vec<String>,
        /// What happens when the row referred to gets another key, such as `CASCADE`.
        on_update: String,
        /// What happens when the row referred to is deleted.
        on_delete: String,
    },
    /// An expression that is not false.
    Check {
        /// The expression.
        expression: String,
    },
}

/// A trigger.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// Its object identifier.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// The table or view that it is of.
    pub table: u32,
    /// Its definition.
    pub definition: String,
}

/// A database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its object identifier.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// How much it takes on disk, if that is known.
    pub size_bytes: Option<u64>,
}

/// A role: who may connect, or owns something.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its object identifier.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Everything is allowed to it.
    pub superuser: bool,
    /// It may connect.
    pub can_login: bool,
}

/// A setting that SHOW knows.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value as SHOW says it.
    pub value: String,
    /// What it means.
    pub meaning: String,
    /// A session can change it for itself.
    pub settable: bool,
}
