//! Queries of PostgreSQL's catalogs, run by an SQLite of their own: in memory, for one query, with the rows of the relations
//! that it names and PostgreSQL's functions. If it names tables of the database too, it is a connection that reads these, and
//! has the catalogs attached in memory.
//!
//! A query comes here only if SQLite does not take it as it stands and it names something of the catalogs: what SQLite
//! accepts is SQLite's. It is parsed as PostgreSQL's and put into SQLite's words ([`rewrite`]); the rows come from the
//! library's [`catalog`], which makes them of what this session sees of the database ([`schema`]).
//! The names that [`constraints`] have there are also those of errors.
//!
//! - Tables and catalogs of one query are of one state, the last that was committed: tables that the transaction may see
//!   otherwise cannot be queried together with the catalogs, nor can temporary ones.
//! - The connection that a query runs on can do nothing but read what was put there.

mod arrays;
mod constraints;
mod format;
mod functions;
mod intervals;
mod rewrite;
mod schema;
mod set_returning;
mod survey;
mod table_functions;
mod tableoid;
mod times;
mod types;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use mainstay::server::pg::catalog::model::{Database, Role, Setting};
use mainstay::server::pg::catalog::{self, Relation, Schema, Source};
use mainstay::server::pg::{Column, CommandTag, Description, OwnedValue, PgType, ResultSink, Seen, SqlError, SqlState};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, InterruptHandle, Statement, params_from_iter};

pub(super) use self::constraints::{Home, Twice, check, column, index, key};
use self::functions::Facts;
use self::rewrite::Rewritten;
use super::errors::from_sqlite;
use super::values::{self, Parameter};

/// The schema that the database's tables are in, as SQLite calls it.
pub(super) const SCHEMA_NAME: &str = "main";
/// Relations are not loaded beyond so many rows in all.
const ROW_LIMIT: usize = 1_000_000;
/// What almost every query of the catalogs has in it. One that has not is recognized only outside of transactions that wrote.
const WORDS: &[&str] = &["pg_", "information_schema", "::reg"];

/// Whether a statement may be a query of the catalogs. Only a first look, so that other statements pay little.
pub(super) fn is_suspected(sql: &str) -> bool {
    let has = |word: &str| sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    WORDS.iter().any(|word| has(word))
}

/// Whether an error says that SQLite did not understand a statement, or not know what it names.
pub(super) fn is_of_names(error: &SqlError) -> bool {
    [SqlState::SYNTAX_ERROR, SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_FUNCTION]
        .contains(&error.state)
}

/// A query of the catalogs.
pub(super) struct Query(Rewritten);

/// The query, if it is one of the catalogs and parses.
pub(super) fn understand(sql: &str) -> Option<Query> {
    rewrite::rewrite(sql).map(Query)
}

/// What a session knows for the catalogs.
pub(super) struct View {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) version: String,
    pub(super) process_id: i32,
    pub(super) databases: Vec<Database>,
    pub(super) roles: Arc<[Role]>,
    pub(super) settings: Vec<Setting>,
    pub(super) activity: Vec<Seen>,
    pub(super) schema: Arc<Schema>,
}

impl Source for View {
    fn schema(&self) -> Result<Arc<Schema>, SqlError> {
        Ok(Arc::clone(&self.schema))
    }

    fn schema_name(&self) -> &str {
        SCHEMA_NAME
    }

    fn database(&self) -> &str {
        &self.database
    }

    fn databases(&self) -> Result<Vec<Database>, SqlError> {
        Ok(self.databases.clone())
    }

    fn roles(&self) -> Arc<[Role]> {
        Arc::clone(&self.roles)
    }

    fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    fn activity(&self) -> Vec<Seen> {
        self.activity.clone()
    }
}

impl Query {
    /// Whether it needs [`read_schema`]: also to know whether what is none of the catalogs' is a table.
    pub(super) fn needs_schema(&self) -> bool {
        self.0.needs_schema || self.names_others()
    }

    /// Whether it names something that is none of the catalogs', such as a table, or a query of its own.
    pub(super) fn names_others(&self) -> bool {
        !self.0.strangers.is_empty()
    }

    /// Something that it names and that is in `names`, which are in lower case.
    pub(super) fn names_one_of(&self, names: &HashSet<String>) -> Option<&str> {
        let named = |name: &&String| names.contains(&name.to_ascii_lowercase());
        self.0.strangers.iter().find(named).map(String::as_str)
    }

    /// A table or view of the database that it names.
    pub(super) fn table<'a>(&'a self, schema: &Schema) -> Option<&'a str> {
        self.0.strangers.iter().find(|name| schema.table_named(name).is_some()).map(String::as_str)
    }

    /// What it takes and returns.
    ///
    /// # Errors
    /// It names what does not exist, or SQLite does not take it in its own words either.
    pub(super) fn describe(
        &self,
        view: &View,
        tables: Option<Connection>,
        declared: &[PgType],
    ) -> Result<Description, SqlError> {
        let loaded = Loaded::open(&self.0, view, tables, false)?;
        let statement = loaded.prepare(&self.0.sql)?;
        let numbers = values::parameter_numbers(&statement, &self.0.sql)?;
        let count = numbers.into_iter().max().unwrap_or(0).max(declared.len());
        let parameters = parameter_types(&self.0.parameters, declared, count);
        Ok(Description { parameters, columns: columns(&statement, self.0.types.as_deref()) })
    }

    /// Puts what it reads before it: what is known for the catalogs, beside the `tables` that a connection reads.
    ///
    /// # Errors
    /// The catalogs are too large, or SQLite's.
    pub(super) fn load(&self, view: &View, tables: Option<Connection>) -> Result<Loaded, SqlError> {
        Loaded::open(&self.0, view, tables, true)
    }

    /// Runs it on what was loaded.
    ///
    /// # Errors
    /// SQLite's, or the sink's.
    pub(super) fn run(
        &self,
        loaded: &Loaded,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        let mut statement = loaded.prepare(&self.0.sql)?;
        values::bind(&mut statement, &self.0.sql, parameters)?;
        let columns = columns(&statement, self.0.types.as_deref());
        let rows = values::run(&mut statement, &columns, sink, from_sqlite)?;
        Ok(CommandTag(format!("SELECT {rows}")))
    }
}

/// Reads the schema of the database that `connection` sees.
///
/// # Errors
/// SQLite's.
pub(super) fn read_schema(connection: &Connection) -> Result<Schema, SqlError> {
    schema::read(connection).map_err(|error| from_sqlite(&error))
}

/// Adds the temporary tables that `connection` has.
///
/// # Errors
/// SQLite's.
pub(super) fn add_temporary(schema: &mut Schema, connection: &Connection) -> Result<(), SqlError> {
    schema::add_temporary(schema, connection).map_err(|error| from_sqlite(&error))
}

fn parameter_types(known: &BTreeMap<usize, PgType>, declared: &[PgType], count: usize) -> Vec<PgType> {
    let stated = |position: usize| declared.get(position).copied().filter(|stated| *stated != PgType::UNSPECIFIED);
    let inferred = |position: usize| known.get(&(position + 1)).copied();
    (0..count).map(|position| stated(position).or_else(|| inferred(position)).unwrap_or(PgType::TEXT)).collect()
}

/// The columns of a query's rows. Those of the catalogs' relations say in their declaration what type they are.
fn columns(statement: &Statement<'_>, types: Option<&[Option<PgType>]>) -> Vec<Column> {
    let numbered = |declared: &str| declared.rsplit_once('_')?.1.parse().ok().map(PgType);
    let known = types.filter(|types| types.len() == statement.column_count()).unwrap_or_default();
    let column = |(position, (column, origin)): (usize, (rusqlite::Column<'_>, rusqlite::ColumnMetadata<'_>))| {
        let declared = origin.origin_name().and(column.decl_type());
        let of_relation = match origin.database_name() {
            Some(SCHEMA_NAME) => declared.map(values::declared_type),
            _ => declared.and_then(numbered),
        };
        let pg_type = of_relation.or_else(|| known.get(position).copied().flatten()).unwrap_or(PgType::TEXT);
        Column { name: column.name().to_owned(), pg_type }
    };
    statement.columns().zip(statement.columns_with_metadata()).enumerate().map(column).collect()
}

/// An SQLite that holds what a query reads.
pub(super) struct Loaded {
    connection: Connection,
    pub(super) interrupt: Arc<InterruptHandle>,
}

impl Loaded {
    fn open(query: &Rewritten, view: &View, tables: Option<Connection>, with_rows: bool) -> Result<Loaded, SqlError> {
        let failed = |error: rusqlite::Error| from_sqlite(&error);
        let mut connection = tables.map_or_else(Connection::open_in_memory, Ok).map_err(failed)?;
        for schema in [catalog::PG_CATALOG, catalog::INFORMATION_SCHEMA] {
            // Named so, it can be written although the connection only reads.
            connection.execute_batch(&format!("ATTACH 'file:{schema}?mode=memory' AS {schema}")).map_err(failed)?;
        }
        // As in PostgreSQL; what asks for any case says so.
        connection.pragma_update(None, "case_sensitive_like", true).map_err(failed)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).map_err(failed)?;
        super::functions::register(&connection).map_err(failed)?;
        functions::register(&connection, facts(view)).map_err(failed)?;
        let mut room = ROW_LIMIT;
        for relation in &query.relations {
            create(&connection, relation).map_err(failed)?;
            if with_rows {
                fill(&connection, relation, view, &mut room)?;
            }
        }
        connection.authorizer(Some(only_reads)).map_err(failed)?;
        let interrupt = Arc::new(connection.get_interrupt_handle());
        Ok(Loaded { connection, interrupt })
    }

    fn prepare(&self, sql: &str) -> Result<Statement<'_>, SqlError> {
        self.connection.prepare(sql).map_err(|error| {
            let told = from_sqlite(&error);
            if told.state == SqlState::UNDEFINED_TABLE {
                told.with_hint("The query is read as one of the catalogs, and of the database's own tables.")
            } else {
                told
            }
        })
    }
}

fn facts(view: &View) -> Facts {
    Facts {
        schema: Arc::clone(&view.schema),
        schema_name: SCHEMA_NAME.to_owned(),
        database: view.database.clone(),
        user: view.user.clone(),
        process_id: view.process_id,
        version: view.version.clone(),
        roles: Arc::clone(&view.roles),
        databases: view.databases.clone(),
        settings: view.settings.clone(),
        now: SystemTime::now(),
    }
}

fn only_reads(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

/// A type as its columns are declared: its affinity, by a word that SQLite knows, and its number.
fn declaration(pg_type: PgType) -> String {
    let affinity = match pg_type {
        PgType::BOOL | PgType::INT2 | PgType::INT4 | PgType::INT8 | PgType::OID => "INTEGER",
        PgType::FLOAT4 | PgType::FLOAT8 => "REAL",
        PgType::BYTEA => "BLOB",
        _ => "TEXT",
    };
    format!("{affinity}_{}", pg_type.0)
}

fn create(connection: &Connection, relation: &Relation) -> rusqlite::Result<()> {
    let columns: Vec<String> =
        relation.columns.iter().map(|(name, pg_type)| format!("\"{name}\" {}", declaration(*pg_type))).collect();
    connection.execute_batch(&format!("CREATE TABLE {}.{} ({})", relation.schema, relation.name, columns.join(", ")))
}

fn fill(connection: &Connection, relation: &Relation, view: &View, room: &mut usize) -> Result<(), SqlError> {
    let marks = vec!["?"; relation.columns.len()].join(", ");
    let sql = format!("INSERT INTO {}.{} VALUES ({marks})", relation.schema, relation.name);
    connection.execute_batch("SAVEPOINT fill").map_err(|error| from_sqlite(&error))?;
    let mut insert = connection.prepare(&sql).map_err(|error| from_sqlite(&error))?;
    relation.rows(view, &mut |row| {
        *room = room.checked_sub(1).ok_or_else(|| {
            let message = format!("the catalogs have more than {ROW_LIMIT} rows");
            SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
        })?;
        insert.execute(params_from_iter(row.iter().map(Parameter))).map(drop).map_err(|error| from_sqlite(&error))
    })?;
    drop(insert);
    connection.execute_batch("RELEASE fill").map_err(|error| from_sqlite(&error))
}

#[cfg(test)]
#[path = "catalog_test.rs"]
mod tests;
