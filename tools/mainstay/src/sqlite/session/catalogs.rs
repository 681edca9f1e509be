//! Queries of the catalogs, with what this session sees.

use std::sync::Arc;

use mainstay::server::pg::catalog::Schema;
use mainstay::server::pg::catalog::model::{Database, Role, Setting};
use mainstay::server::pg::{CommandTag, Description, OwnedValue, PgType, ResultSink, SqlError};
use rusqlite::Connection;

use super::super::catalog::{self, View};
use super::super::control::revoked;
use super::super::engine::{ONLY_NAME, server_version};
use super::super::errors::from_sqlite;
use super::super::policy::Policy;
use super::reader::OneState;
use super::{SETTINGS, SqliteSession};

/// Identifier of the one database.
const DATABASE_OID: u32 = 5;
/// Identifier of the role that owns everything.
const OWNER_OID: u32 = 10;

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
        let mut run = || {
            let loaded = query.load(&view)?;
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
        match self.view_unless_taken(sql, false) {
            Ok(view) => Some(query.describe(&view?, declared)),
            Err(error) => Some(Err(error)),
        }
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
        let schema = if with_schema { catalog::read_schema(connection)? } else { Schema::default() };
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
            roles: vec![Role { oid: OWNER_OID, name: ONLY_NAME.to_owned(), superuser: true }],
            settings: self.settings(),
            activity: self.shared.activities.seen(),
            schema: Arc::new(schema),
            user,
        }))
    }

    /// What SHOW knows.
    fn settings(&self) -> Vec<Setting> {
        let setting = |(name, meaning, settable): &(&str, &str, bool)| {
            let value = self.setting(name).ok()?;
            Some(Setting { name: (*name).to_owned(), value, meaning: (*meaning).to_owned(), settable: *settable })
        };
        SETTINGS.iter().filter_map(setting).collect()
    }
}
