//! Which statements may run: what would change the database behind the WAL's back is refused, by what SQLite itself
//! says a statement does (its authorizer), never by its text.

use std::sync::Arc;

use mainstay::server::pg::{SqlError, SqlState};
use parking_lot::Mutex;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{CachedStatement, Connection, Statement};

use super::{RESERVED_PREFIX, errors};

/// Pragmas that only read, whatever argument they are given.
const READING_PRAGMAS: &[&str] = &[
    "collation_list",
    "compile_options",
    "database_list",
    "foreign_key_check",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "module_list",
    "pragma_list",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// Pragmas that only read if they are given no value.
const VALUE_PRAGMAS: &[&str] = &[
    "application_id",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "page_count",
    "page_size",
    "schema_version",
    "user_version",
];

/// Pragmas whose value is the client's own, kept in the database and changed with its transaction.
const CLIENT_PRAGMAS: &[&str] = &["application_id", "user_version"];

/// Functions that speak of the writing connection, which all sessions share.
const CONNECTION_FUNCTIONS: &[&str] = &["changes", "last_insert_rowid", "total_changes"];

/// How the tables begin that SQLite has for its pragmas.
const PRAGMA_TABLE_PREFIX: &str = "pragma_";

/// Where SQLite keeps what is temporary.
const TEMPORARY_SCHEMA: &str = "temp";

const TEMPORARY: &str = "a temporary table cannot be made or changed by this statement here: it looks at tables that the \
                         transaction may have changed, or its form is not understood";

/// What a statement that changes rows calls itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Insert,
    Update,
    Delete,
}

/// What SQLite said of a statement while it compiled it.
#[derive(Clone, Debug, Default)]
pub(super) struct Actions {
    /// The first change to rows: the statement's own, before those of triggers and foreign keys.
    pub(super) verb: Option<Verb>,
    /// It changes the schema.
    pub(super) ddl: bool,
    /// Tables that it drops.
    pub(super) dropped: Vec<String>,
    /// It calls functions, or reads what is made by one.
    pub(super) calls: bool,
    /// It changes rows or definitions of what is temporary.
    pub(super) changes_temporary: bool,
    /// It changes others.
    pub(super) changes_stored: bool,
    /// It asks for a pragma, which may tell of either.
    pub(super) asks_pragma: bool,
    creates_table: bool,
    selects: bool,
    internal_write: Option<String>,
    refusal: Option<SqlError>,
}

/// Watches what one connection compiles.
#[derive(Clone)]
pub(super) struct Policy(Arc<Mutex<Watch>>);

/// Whose statement is being compiled.
enum Watch {
    /// Nobody's, so it is within one that runs.
    Nobody,
    /// Ours.
    Own,
    /// A client's.
    Client(Actions),
}

/// A compiled statement that can be kept from being compiled without being watched the next time.
pub(super) trait Compiled {
    /// Drops it for good.
    fn discard(self);
}

impl Compiled for Statement<'_> {
    fn discard(self) {}
}

impl Compiled for CachedStatement<'_> {
    fn discard(self) {
        CachedStatement::discard(self);
    }
}

impl Policy {
    /// Installs itself on `connection`, whose clients change no temporary tables there.
    pub(super) fn install(connection: &mut Connection) -> rusqlite::Result<Policy> {
        Policy::install_on(connection, false)
    }

    /// Installs itself on the connection that a session keeps its temporary tables on.
    pub(super) fn install_for_temporary(connection: &mut Connection) -> rusqlite::Result<Policy> {
        Policy::install_on(connection, true)
    }

    fn install_on(connection: &mut Connection, keeps_temporary: bool) -> rusqlite::Result<Policy> {
        let policy = Policy(Arc::new(Mutex::new(Watch::Nobody)));
        let watched = policy.clone();
        let only_reads = connection.is_readonly(rusqlite::MAIN_DB)?;
        let pragma_tables = refused_pragma_tables(connection)?;
        connection.authorizer(Some(move |context: AuthContext<'_>| match &mut *watched.0.lock() {
            Watch::Client(actions) => actions.note(&context, &pragma_tables, keeps_temporary),
            Watch::Own => Authorization::Allow,
            Watch::Nobody => unwatched(&context.action, only_reads),
        }))?;
        Ok(policy)
    }

    /// Compiles a client's statement with `prepare` and answers it with what it does, unless that is refused. A
    /// `prepare` that answers from a cache does nothing that can be seen: `Actions` are empty.
    pub(super) fn watch<T: Compiled>(
        &self,
        prepare: impl FnOnce() -> rusqlite::Result<T>,
    ) -> Result<(T, Actions), SqlError> {
        *self.0.lock() = Watch::Client(Actions::default());
        let prepared = prepare();
        let Watch::Client(mut actions) = std::mem::replace(&mut *self.0.lock(), Watch::Nobody) else {
            return Err(SqlError::new(SqlState::INTERNAL_ERROR, "a statement was compiled within another"));
        };
        if let Some(refusal) = actions.refusal.take().or_else(|| actions.refusal_of_the_whole()) {
            // It may have compiled all the same, and must not come from a cache the next time.
            let _ = prepared.map(Compiled::discard);
            return Err(refusal);
        }
        Ok((prepared.map_err(|error| errors::from_sqlite(&error))?, actions))
    }

    /// Runs `work`, whose statements are our own and may do anything.
    pub(super) fn own<T>(&self, work: impl FnOnce() -> T) -> T {
        *self.0.lock() = Watch::Own;
        let _until = OwnEnds(self);
        work()
    }
}

/// Also when our own work panics, what clients do next is not taken for ours.
struct OwnEnds<'a>(&'a Policy);

impl Drop for OwnEnds<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = Watch::Nobody;
    }
}

/// What SQLite may compile while a statement runs: that statement anew, or the pragma behind one of its tables. Of our own,
/// those that only look need not say that they are ours.
fn unwatched(action: &AuthAction<'_>, only_reads: bool) -> Authorization {
    let allowed = match action {
        AuthAction::Select
        | AuthAction::Read { .. }
        | AuthAction::Function { .. }
        | AuthAction::Recursive
        | AuthAction::Insert { .. }
        | AuthAction::Update { .. }
        | AuthAction::Delete { .. } => true,
        AuthAction::Pragma { pragma_name, pragma_value } => pragma(pragma_name, *pragma_value).is_ok(),
        AuthAction::Transaction { .. } => only_reads,
        _ => false,
    };
    if allowed { Authorization::Allow } else { Authorization::Deny }
}

/// The tables of pragmas that are refused; a client's own table may begin with the same letters.
fn refused_pragma_tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_pragma_list")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| pragma(name, None).is_err()).collect())
}

impl Actions {
    fn note(&mut self, context: &AuthContext<'_>, refused_pragmas: &[String], keeps_temporary: bool) -> Authorization {
        self.calls |= match context.action {
            AuthAction::Function { .. } | AuthAction::Pragma { .. } => true,
            AuthAction::Read { table_name, .. } => starts_with(table_name, PRAGMA_TABLE_PREFIX),
            _ => false,
        };
        self.note_place(context);
        let checked = if self.changes_temporary && !keeps_temporary {
            Err(refused(TEMPORARY))
        } else {
            self.check(context, refused_pragmas)
        };
        match checked {
            Ok(()) => Authorization::Allow,
            Err(refusal) => {
                self.refusal.get_or_insert(refusal);
                Authorization::Deny
            }
        }
    }

    /// Notes in which schema something is done. SQLite's own tables follow from what is done to others.
    fn note_place(&mut self, context: &AuthContext<'_>) {
        let changes = match context.action {
            AuthAction::Insert { table_name }
            | AuthAction::Update { table_name, .. }
            | AuthAction::Delete { table_name } => !is_internal(table_name),
            AuthAction::Pragma { .. } => {
                self.asks_pragma = true;
                false
            }
            AuthAction::Select
            | AuthAction::Read { .. }
            | AuthAction::Function { .. }
            | AuthAction::Recursive
            | AuthAction::Transaction { .. }
            | AuthAction::Savepoint { .. } => false,
            // The rest changes the schema.
            _ => true,
        };
        if is_of_temporary(context) {
            self.changes_temporary |= changes;
        } else {
            self.changes_stored |= changes;
        }
    }

    fn check(&mut self, context: &AuthContext<'_>, refused_pragmas: &[String]) -> Result<(), SqlError> {
        match context.action {
            AuthAction::Select => self.selects = true,
            AuthAction::Insert { table_name } => self.writes(Verb::Insert, table_name, None)?,
            AuthAction::Update { table_name, column_name } => {
                self.writes(Verb::Update, table_name, Some(column_name))?;
            }
            AuthAction::Delete { table_name } => self.writes(Verb::Delete, table_name, None)?,
            AuthAction::CreateTable { table_name } | AuthAction::CreateTempTable { table_name } => {
                self.creates_table = true;
                self.changes_schema(table_name)?;
            }
            AuthAction::DropTable { table_name } | AuthAction::DropTempTable { table_name } => {
                self.changes_schema(table_name)?;
                self.dropped.push(table_name.to_owned());
            }
            AuthAction::CreateTempTrigger { .. } => {
                return Err(refused("triggers on temporary tables, and temporary ones, are not supported"));
            }
            AuthAction::CreateIndex { index_name: name, table_name }
            | AuthAction::DropIndex { index_name: name, table_name }
            | AuthAction::CreateTempIndex { index_name: name, table_name }
            | AuthAction::DropTempIndex { index_name: name, table_name }
            | AuthAction::DropTempTrigger { trigger_name: name, table_name }
            | AuthAction::CreateTrigger { trigger_name: name, table_name }
            | AuthAction::DropTrigger { trigger_name: name, table_name } => {
                self.changes_schema(name)?;
                self.changes_schema(table_name)?;
            }
            AuthAction::CreateView { view_name: name }
            | AuthAction::DropView { view_name: name }
            | AuthAction::CreateTempView { view_name: name }
            | AuthAction::DropTempView { view_name: name }
            | AuthAction::AlterTable { table_name: name, .. } => self.changes_schema(name)?,
            AuthAction::Analyze { .. } | AuthAction::Reindex { .. } => self.ddl = true,
            AuthAction::Pragma { pragma_name, pragma_value: Some(_) } if is_listed(CLIENT_PRAGMAS, pragma_name) => {
                self.ddl = true;
            }
            AuthAction::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value)?,
            AuthAction::CreateVtable { .. } | AuthAction::DropVtable { .. } => {
                return Err(refused("virtual tables are not supported: their changes cannot be captured for the WAL"));
            }
            AuthAction::Read { table_name, .. } => {
                let name = table_name.get(PRAGMA_TABLE_PREFIX.len()..).unwrap_or_default();
                if starts_with(table_name, PRAGMA_TABLE_PREFIX) && is_listed(refused_pragmas, name) {
                    return pragma(name, None);
                }
            }
            AuthAction::Function { function_name } if is_listed(CONNECTION_FUNCTIONS, function_name) => {
                let message = format!("{function_name}() is not supported: sessions share the connection it speaks of");
                return Err(refused(message).with_hint("Use RETURNING."));
            }
            AuthAction::Function { .. } | AuthAction::Recursive => {}
            // What is a command of ours never gets here.
            AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
                return Err(refused("transaction control is not possible here"));
            }
            // ATTACH with an expression for a name arrives as unknown; so would whatever a newer SQLite adds.
            _ => return Err(refused("ATTACH and DETACH are not supported: the WAL carries one database")),
        }
        Ok(())
    }

    fn writes(&mut self, verb: Verb, table: &str, column: Option<&str>) -> Result<(), SqlError> {
        refuse_reserved(table)?;
        let internal = is_internal(table);
        let counter = table.eq_ignore_ascii_case("sqlite_sequence")
            && match verb {
                Verb::Insert => false,
                Verb::Update => column.is_some_and(|column| column.eq_ignore_ascii_case("seq")),
                Verb::Delete => true,
            };
        if internal && !counter {
            // DDL does so too, but whether this is DDL is only known at the end.
            self.internal_write.get_or_insert_with(|| table.to_owned());
        } else {
            self.verb.get_or_insert(verb);
        }
        Ok(())
    }

    fn changes_schema(&mut self, name: &str) -> Result<(), SqlError> {
        self.ddl = true;
        refuse_reserved(name)
    }

    /// It creates a table of the rows of a query.
    pub(super) fn creates_table_of_rows(&self) -> bool {
        self.creates_table && self.selects
    }

    fn refusal_of_the_whole(&self) -> Option<SqlError> {
        let table = self.internal_write.as_ref().filter(|_| !self.ddl)?;
        let message = format!("permission denied: \"{table}\" belongs to SQLite");
        Some(SqlError::new(SqlState("42501"), message))
    }
}

/// Whether something is done to what is temporary. `CREATE TABLE temp.t` arrives as any CREATE TABLE, but for the schema.
fn is_of_temporary(context: &AuthContext<'_>) -> bool {
    match context.action {
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::DropTempIndex { .. }
        | AuthAction::DropTempTable { .. }
        | AuthAction::DropTempTrigger { .. }
        | AuthAction::DropTempView { .. } => true,
        AuthAction::AlterTable { database_name, .. } => database_name.eq_ignore_ascii_case(TEMPORARY_SCHEMA),
        _ => context.database_name.is_some_and(|schema| schema.eq_ignore_ascii_case(TEMPORARY_SCHEMA)),
    }
}

fn is_internal(table: &str) -> bool {
    starts_with(table, "sqlite_")
}

fn pragma(name: &str, value: Option<&str>) -> Result<(), SqlError> {
    if is_listed(READING_PRAGMAS, name) || (is_listed(VALUE_PRAGMAS, name) && value.is_none()) {
        return Ok(());
    }
    let message = format!("PRAGMA {name} is not supported here: it may change the database behind the WAL");
    Err(refused(message).with_hint("Pragmas that only read, such as table_info, work."))
}

fn is_listed(list: &[impl AsRef<str>], name: &str) -> bool {
    list.iter().any(|known| known.as_ref().eq_ignore_ascii_case(name))
}

fn refuse_reserved(name: &str) -> Result<(), SqlError> {
    if starts_with(name, RESERVED_PREFIX) {
        return Err(reserved(name));
    }
    Ok(())
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The name is Mainstay's own.
pub(super) fn reserved(name: &str) -> SqlError {
    SqlError::new(SqlState("42939"), format!("\"{name}\": names that begin with {RESERVED_PREFIX} are Mainstay's own"))
}

/// Something that is not done here, and why.
pub(super) fn refused(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message)
}
