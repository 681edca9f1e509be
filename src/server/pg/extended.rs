//! The extended query protocol: statements prepared and described, parameters bound, portals run.

use std::sync::Arc;

use super::backend::{CommandTag, Description, Scope};
use super::budget::Reserved;
use super::codec::{self, Format};
use super::conversation::Conversation;
use super::cursors::{self, CursorCommand};
use super::error::{SqlError, SqlState};
use super::message::{Bind, Target};
use super::outbox::Outbox;
use super::quick::STATEMENT_LIMIT_BYTES;
use super::sink::{self, Expected, SpoolSink};
use super::spool::{self, Spool};
use super::types::{Column, OwnedValue, PgType};

/// A connection may keep so many prepared statements.
const STATEMENT_LIMIT: usize = 1024;
/// A connection may keep so many portals.
const PORTAL_LIMIT: usize = 64;

/// A prepared statement.
pub(super) struct Prepared {
    /// Its text; nothing if it was blank.
    statement: Option<String>,
    parameters: Vec<PgType>,
    columns: Vec<Column>,
    _reserved: Reserved,
}

impl Prepared {
    /// Its text; nothing if it was blank.
    pub(super) fn statement(&self) -> Option<&str> {
        self.statement.as_deref()
    }

    /// The columns of its rows.
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }
}

/// A prepared statement with its parameters, run once.
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    /// Gone once it has run.
    parameters: Option<Arc<Vec<OwnedValue>>>,
    result_formats: Vec<i16>,
    /// Its rows, if they are fetched in parts.
    fetched: Option<Fetched>,
    _reserved: Reserved,
}

/// A portal that has run, and whose rows are fetched in parts.
struct Fetched {
    spool: Spool,
    tag: CommandTag,
}

/// What a portal's run needs.
pub(super) struct Taken {
    pub(super) prepared: Arc<Prepared>,
    pub(super) parameters: Arc<Vec<OwnedValue>>,
    pub(super) formats: Vec<i16>,
}

impl Conversation {
    pub(super) fn parse(
        &mut self,
        name: String,
        sql: &str,
        declared: &[PgType],
        outbox: &mut Outbox,
    ) -> Result<(), SqlError> {
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(SqlError::new(SqlState::DUPLICATE_PREPARED_STATEMENT, message));
        }
        if self.statements.len() >= STATEMENT_LIMIT {
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many prepared statements")
                .with_hint("Close those that are not needed any more."));
        }
        let (statement, described) = match self.session.split(sql).as_slice() {
            [] => (None, Description { parameters: declared.to_vec(), columns: Vec::new() }),
            [statement] => (Some(*statement), self.description(statement, declared)?),
            _ => {
                let message = "cannot insert multiple commands into a prepared statement";
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
            }
        };
        let reserved = self.budget.reserve(prepared_bytes(&name, statement, &described))?;
        let Description { parameters, columns } = described;
        let prepared = Prepared { statement: statement.map(str::to_owned), parameters, columns, _reserved: reserved };
        self.statements.insert(name, Arc::new(prepared));
        outbox.parse_complete()
    }

    /// Says what a statement takes and returns.
    fn description(&mut self, statement: &str, declared: &[PgType]) -> Result<Description, SqlError> {
        let Some(command) = self.session.cursor_command(statement)? else {
            return self.session.describe(statement, declared);
        };
        cursors::refuse_if_failed(self.session.as_ref())?;
        Ok(match command {
            CursorCommand::Declare { query, .. } => {
                Description { columns: Vec::new(), ..self.session.describe(&query, declared)? }
            }
            CursorCommand::Fetch { name, .. } => {
                Description { columns: self.cursors.columns(&name)?.to_vec(), ..Description::default() }
            }
            CursorCommand::Move { .. } | CursorCommand::Close { .. } | CursorCommand::Deallocate { .. } => {
                Description::default()
            }
        })
    }

    pub(super) fn bind(&mut self, bind: Bind, outbox: &mut Outbox) -> Result<(), SqlError> {
        let prepared = Arc::clone(self.prepared(&bind.statement)?);
        if bind.portal.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&bind.portal) {
            let message = format!("portal \"{}\" already exists", bind.portal);
            return Err(SqlError::new(SqlState::DUPLICATE_CURSOR, message));
        }
        if self.portals.len() >= PORTAL_LIMIT {
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many portals"));
        }
        let parameters = parameters(&bind, &prepared)?;
        sink::result_formats(&prepared.columns, &bind.result_formats)?;
        let reserved = self.budget.reserve(portal_bytes(&bind, &parameters))?;
        let portal = Portal {
            prepared,
            parameters: Some(Arc::new(parameters)),
            result_formats: bind.result_formats,
            fetched: None,
            _reserved: reserved,
        };
        self.portals.insert(bind.portal, portal);
        outbox.bind_complete()
    }

    pub(super) fn describe(&mut self, target: &Target, outbox: &mut Outbox) -> Result<(), SqlError> {
        let (columns, formats) = match target {
            Target::Statement(name) => {
                let prepared = self.prepared(name)?;
                outbox.parameters(&prepared.parameters)?;
                // The formats are not chosen before Bind.
                (&prepared.columns, vec![Format::Text; prepared.columns.len()])
            }
            Target::Portal(name) => {
                let Some(portal) = self.portals.get(name) else {
                    // Cursors are portals to clients.
                    let columns = self.cursors.columns(name).map_err(|_| no_portal(name))?;
                    return outbox.columns(columns, &vec![Format::Text; columns.len()]);
                };
                let columns = &portal.prepared.columns;
                (columns, sink::result_formats(columns, &portal.result_formats)?)
            }
        };
        if columns.is_empty() { outbox.no_data() } else { outbox.columns(columns, &formats) }
    }

    pub(super) fn execute_portal(
        &mut self,
        name: &str,
        row_limit: i32,
        scope: Scope,
        outbox: &mut Outbox,
    ) -> Result<(), SqlError> {
        if self.is_fetched_in_parts(name, row_limit) {
            return self.fetch(name, row_limit, scope, outbox);
        }
        let Taken { prepared, parameters, formats } = self.take_portal(name)?;
        let Some(statement) = &prepared.statement else {
            return outbox.empty_query();
        };
        let expected = Expected::Columns { columns: &prepared.columns, formats: &formats };
        let tag = self.run(statement, &parameters, scope, expected, outbox)?;
        outbox.complete(&tag)
    }

    /// Whether a portal's rows come in parts, or came so before.
    pub(super) fn is_fetched_in_parts(&self, name: &str, row_limit: i32) -> bool {
        row_limit > 0 || self.portals.get(name).is_some_and(|portal| portal.fetched.is_some())
    }

    /// Whether its statement is too long to be looked at where other connections wait.
    pub(super) fn is_of_long_statement(&self, name: &str) -> bool {
        let statement = self.portals.get(name).and_then(|portal| portal.prepared.statement());
        statement.is_some_and(|statement| statement.len() > STATEMENT_LIMIT_BYTES)
    }

    /// Sends some of a portal's rows, or all that are left; runs it if it has not run.
    fn fetch(&mut self, name: &str, row_limit: i32, scope: Scope, outbox: &mut Outbox) -> Result<(), SqlError> {
        if self.portals.get(name).is_some_and(|portal| portal.fetched.is_none()) {
            let Taken { prepared, parameters, formats } = self.take_portal(name)?;
            let Some(statement) = &prepared.statement else {
                return outbox.empty_query();
            };
            let mut spool = Spool::new(self.budget.reserve(spool::MEMORY_BYTES)?);
            let expected = Expected::Columns { columns: &prepared.columns, formats: &formats };
            let tag = self.run_into(statement, &parameters, scope, SpoolSink::new(outbox, expected, &mut spool))?;
            match self.portals.get_mut(name) {
                Some(portal) => portal.fetched = Some(Fetched { spool, tag }),
                // DISCARD ALL forgets its own portal, too, and gives no rows.
                None => return outbox.complete(&tag),
            }
        }
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let Some(Fetched { spool, tag }) = &mut portal.fetched else { return Err(no_portal(name)) };
        let limit = u64::try_from(row_limit).ok().filter(|limit| *limit > 0);
        let sent = spool.send(limit, outbox)?;
        if limit == Some(sent) {
            // As in PostgreSQL, also if none are left: nobody has looked yet.
            return outbox.suspended();
        }
        match tag.0.strip_prefix("SELECT ") {
            Some(_) => outbox.complete(&CommandTag(format!("SELECT {sent}"))),
            None => outbox.complete(tag),
        }
    }

    /// Takes what a portal's only run needs.
    pub(super) fn take_portal(&mut self, name: &str) -> Result<Taken, SqlError> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let Some(parameters) = portal.parameters.take() else {
            let message = format!("portal \"{name}\" cannot be run again");
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        };
        let formats = std::mem::take(&mut portal.result_formats);
        Ok(Taken { prepared: Arc::clone(&portal.prepared), parameters, formats })
    }

    /// Gives back what was taken from a portal that did not run.
    pub(super) fn give_back(&mut self, name: &str, parameters: Arc<Vec<OwnedValue>>, formats: Vec<i16>) {
        if let Some(portal) = self.portals.get_mut(name) {
            portal.parameters = Some(parameters);
            portal.result_formats = formats;
        }
    }

    /// Closing what does not exist is no error.
    pub(super) fn close(&mut self, target: &Target, outbox: &mut Outbox) -> Result<(), SqlError> {
        match target {
            Target::Portal(name) => {
                self.portals.remove(name);
                self.cursors.forget(name);
            }
            Target::Statement(name) => {
                if let Some(prepared) = self.statements.remove(name) {
                    self.portals.retain(|_, portal| !Arc::ptr_eq(&portal.prepared, &prepared));
                }
            }
        }
        outbox.close_complete()
    }

    fn prepared(&self, name: &str) -> Result<&Arc<Prepared>, SqlError> {
        self.statements.get(name).ok_or_else(|| no_statement(name))
    }
}

/// No prepared statement of that name.
pub(super) fn no_statement(name: &str) -> SqlError {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    };
    SqlError::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
}

/// About so much memory a prepared statement takes.
fn prepared_bytes(name: &str, statement: Option<&str>, described: &Description) -> usize {
    let columns: usize = described.columns.iter().map(|column| size_of::<Column>() + column.name.len()).sum();
    let parameters = size_of_val(described.parameters.as_slice());
    size_of::<Prepared>() + name.len() + statement.map_or(0, str::len) + parameters + columns
}

/// About so much memory a portal takes beside its statement.
fn portal_bytes(bind: &Bind, parameters: &[OwnedValue]) -> usize {
    let contents = parameters.iter().map(|value| match value {
        OwnedValue::Text(text) => text.len(),
        OwnedValue::Blob(bytes) => bytes.len(),
        OwnedValue::Null | OwnedValue::Integer(_) | OwnedValue::Real(_) => 0,
    });
    let formats = size_of_val(bind.result_formats.as_slice());
    size_of::<Portal>() + bind.portal.len() + size_of_val(parameters) + formats + contents.sum::<usize>()
}

fn parameters(bind: &Bind, prepared: &Prepared) -> Result<Vec<OwnedValue>, SqlError> {
    let (given, wanted) = (bind.parameters.len(), prepared.parameters.len());
    if given != wanted {
        let message = format!("bind message supplies {given} parameters, but the prepared statement requires {wanted}");
        return Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, message));
    }
    let codes = &bind.parameter_formats;
    if codes.len() > 1 && codes.len() != given {
        let message = format!("bind message has {} parameter formats but {given} parameters", codes.len());
        return Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, message));
    }
    let values = bind.parameters.iter().zip(&prepared.parameters).enumerate();
    values
        .map(|(index, (bytes, pg_type))| match bytes {
            None => Ok(OwnedValue::Null),
            Some(bytes) => codec::decode(bytes, *pg_type, Format::of_item(codes, index)?)
                .map_err(|error| error.with_detail(format!("It is parameter ${}.", index + 1))),
        })
        .collect()
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
