//! Queries of the catalogs, with what this session sees.

use std::sync::Arc;

use mainstay::server::pg::catalog::Schema;
use mainstay::server::pg::catalog::model::{Database, Role};
use mainstay::server::pg::{
    Column, CommandTag, Description, OwnedValue, PgType, ResultSink, SqlError, SqlState, Value,
};
use mainstay::wal::Health;
use rusqlite::Connection;

use super::super::catalog::{self, Query, View};
use super::super::control::revoked;
use super::super::engine::{ONLY_NAME, server_version};
use super::super::errors::from_sqlite;
use super::super::policy::Policy;
use super::SqliteSession;
use super::reader::OneState;

/// Identifier of the one database.
const DATABASE_OID: u32 = 5;
/// Identifier of the role that owns everything.
const OWNER_OID: u32 = 10;

/// Who is connected.
const SHOW_SESSIONS: &str = "sessions";
/// Where the log stands.
const SHOW_WAL: &str = "wal";
const SESSIONS: &str = "SELECT pid, usename AS user, application_name, client_addr, backend_start, state, wait_event, \
                        query_start, query FROM pg_catalog.pg_stat_activity ORDER BY pid";

/// Whether a SHOW of that name answers rows.
pub(super) fn is_listed(name: &str) -> bool {
    [SHOW_SESSIONS, SHOW_WAL].contains(&name)
}

/// The columns of SHOW WAL.
fn wal_columns() -> Vec<Column> {
    let text = ["timeline", "oldest_lsn", "durable_lsn", "end_lsn"].map(|name| (name, PgType::TEXT));
    let numbers = ["unsynced_bytes", "waiting", "prepared_bytes", "segment_size_bytes", "free_bytes", "reserve_bytes"];
    let all = text.into_iter().chain(numbers.map(|name| (name, PgType::INT8)));
    let all = all.chain([("is_full", PgType::BOOL), ("health", PgType::TEXT)]);
    all.map(|(name, pg_type)| Column { name: name.to_owned(), pg_type }).collect()
}

fn health(health: &Health) -> String {
    match health {
        Health::Good => "good".to_owned(),
        Health::Hangs { since } => format!("hangs for {} s", since.as_secs()),
        Health::Damaged(damage) => format!("damaged: {damage}"),
        Health::Failed(failure) => format!("failed: {failure}"),
        other => format!("{other:?}"),
    }
}

impl SqliteSession {
    /// Runs a query of the catalogs; `None` if the statement is none, and SQLite's.
    pub(super) fn run_catalogs(
        &mut self,
        sql: &str,
        parameters: &[OwnedValue],
        sink: &mut dyn ResultSink,
    ) -> Option<Result<CommandTag, SqlError>> {
        let query = catalog::understand(sql)?;
        let view = match self.view_unless_taken(sql, query.needs_schema()) {
            Ok(view) => view?,
            Err(error) => return Some(Err(error)),
        };
        let run = || {
            let (view, tables) = self.beside_tables(&query, view)?;
            let loaded = query.load(&view, tables)?;
            self.control.run(&loaded.interrupt, || query.run(&loaded, parameters, sink))
        };
        Some(run())
    }

    /// What a query of the catalogs takes and returns; `None` if the statement is none.
    pub(super) fn describe_catalogs(
        &mut self,
        sql: &str,
        declared: &[PgType],
    ) -> Option<Result<Description, SqlError>> {
        let query = catalog::understand(sql)?;
        match self.view_unless_taken(sql, query.names_others()) {
            Ok(view) => {
                let described = self.beside_tables(&query, view?);
                Some(described.and_then(|(view, tables)| query.describe(&view, tables, declared)))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Where a query of the catalogs finds the tables of the database that it names too, if it names any: on a connection of
    /// its own, with the schema of the same state.
    ///
    /// # Errors
    /// It names what may be otherwise to this transaction, or temporary.
    fn beside_tables(&self, query: &Query, mut view: View) -> Result<(View, Option<Connection>), SqlError> {
        if !query.names_others() {
            return Ok((view, None));
        }
        let refused = |what: String| {
            let message = format!("{what} cannot be queried together with the catalogs");
            Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message))
        };
        if let Some(temporary) = self.find_temporary(|names| query.names_one_of(names)) {
            return refused(format!("temporary table \"{temporary}\""));
        }
        let Some(table) = query.table(&view.schema) else { return Ok((view, None)) };
        // A transaction that sees one state throughout may have the turn too.
        if self.turn().is_some() || (self.transaction.is_some() && self.modes().stable()) {
            return refused(format!(
                "table \"{table}\", in a transaction that has written or sees one state throughout,"
            ));
        }
        let tables = self.shared.open_reader_to_attach_to()?;
        view.schema = Arc::new(self.whole_schema(&tables)?);
        Ok((view, Some(tables)))
    }

    /// What the catalogs are made of; nothing if SQLite takes the statement as it stands.
    fn view_unless_taken(&mut self, sql: &str, with_schema: bool) -> Result<Option<View>, SqlError> {
        if let Some(ticket) = self.turn() {
            // Its transaction may have changed the schema.
            let writer = self.shared.turnstile.writer(ticket).ok_or_else(revoked)?;
            let (connection, policy) = writer.for_describe();
            return self.view_of(sql, connection, policy, with_schema);
        }
        self.reader()?;
        // Taken out, so that it can be used beside the rest of the session.
        let Some(reader) = self.reader.take() else { return Ok(None) };
        let view = OneState::hold(&reader)
            .and_then(|_state| self.view_of(sql, &reader.connection, &reader.policy, with_schema));
        self.reader = Some(reader);
        view
    }

    fn view_of(
        &self,
        sql: &str,
        connection: &Connection,
        policy: &Policy,
        with_schema: bool,
    ) -> Result<Option<View>, SqlError> {
        if policy.watch(|| connection.prepare(sql)).is_ok() {
            return Ok(None);
        }
        let schema = if with_schema { self.whole_schema(connection)? } else { Schema::default() };
        let size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let size: i64 = connection.query_row(size, [], |row| row.get(0)).map_err(|error| from_sqlite(&error))?;
        let activity = self.activity.as_ref();
        let user = activity.map_or(ONLY_NAME, |activity| activity.user()).to_owned();
        Ok(Some(View {
            database: ONLY_NAME.to_owned(),
            version: format!("PostgreSQL {}", server_version()),
            process_id: activity.map_or(0, |activity| activity.process_id()),
            databases: vec![Database {
                oid: DATABASE_OID,
                name: ONLY_NAME.to_owned(),
                size_bytes: u64::try_from(size).ok(),
            }],
            roles: self.all_roles(),
            settings: self.settings(),
            activity: self.shared.activities.seen(),
            schema: Arc::new(schema),
            user,
        }))
    }

    /// The schema that a connection sees, and what the session has of temporary tables.
    fn whole_schema(&self, connection: &Connection) -> Result<Schema, SqlError> {
        let mut schema = catalog::read_schema(connection)?;
        self.add_temporary_to(&mut schema)?;
        Ok(schema)
    }

    /// Who owns everything, and who is in the users file. The owner is also one who may log in if he is in it, or if there is
    /// none.
    fn all_roles(&self) -> Arc<[Role]> {
        let mut owner = Role { oid: OWNER_OID, name: ONLY_NAME.to_owned(), superuser: true, can_login: true };
        let Some(mut users) = self.roles.list() else { return Arc::new([owner]) };
        match users.iter_mut().find(|user| user.name == ONLY_NAME) {
            Some(user) => user.oid = OWNER_OID,
            None => {
                owner.can_login = false;
                users.push(owner);
            }
        }
        users.into()
    }

    /// Runs a SHOW that answers rows.
    ///
    /// # Errors
    /// The log cannot be asked, or the sink's.
    pub(super) fn show_list(&mut self, name: &str, sink: &mut dyn ResultSink) -> Result<CommandTag, SqlError> {
        if name == SHOW_SESSIONS {
            let missing = || Err(SqlError::new(SqlState::INTERNAL_ERROR, "sessions cannot be listed"));
            self.run_catalogs(SESSIONS, &[], sink).unwrap_or_else(missing)?;
            return Ok(CommandTag("SHOW".to_owned()));
        }
        let status = self.shared.log_status().map_err(|error| SqlError::new(SqlState::IO_ERROR, error.to_string()))?;
        sink.columns(&wal_columns())?;
        if let Some(status) = status {
            let number = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
            let (timeline, oldest) = (status.timeline.to_string(), status.oldest.to_string());
            let (durable, end, health) = (status.durable.to_string(), status.end.to_string(), health(&status.health));
            sink.row(&[
                Value::Text(&timeline),
                Value::Text(&oldest),
                Value::Text(&durable),
                Value::Text(&end),
                number(status.end.bytes_since(status.durable)),
                number(status.waiting as u64),
                number(status.prepared_bytes),
                number(status.segment_size_bytes),
                number(status.free_bytes),
                number(status.reserve_bytes),
                Value::Integer(i64::from(status.is_full)),
                Value::Text(&health),
            ])?;
        }
        Ok(CommandTag("SHOW".to_owned()))
    }

    /// What such a SHOW returns.
    ///
    /// # Errors
    /// It cannot be described now.
    pub(super) fn describe_list(&mut self, name: &str) -> Result<Description, SqlError> {
        if name == SHOW_SESSIONS {
            return self.describe_catalogs(SESSIONS, &[]).unwrap_or_else(|| Ok(Description::default()));
        }
        Ok(Description { columns: wal_columns(), ..Description::default() })
    }
}
