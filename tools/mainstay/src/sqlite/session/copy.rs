//! `COPY`: rows from the client into a table, and rows of a table or query to the client.
//!
//! Rows that come are inserted as any other rows, by one compiled statement, in the transaction that is open or one of their
//! own. The writer is borrowed for one piece of the data at a time: while the client is waited for, a node that is demoted
//! can take it back.

use std::sync::Arc;
use std::time::Duration;

use mainstay::server::pg::copy::{CopyDecoder, CopyEncoder, CopyFormat};
use mainstay::server::pg::{
    Column, CommandTag, Copied, OwnedValue, PgType, ResultSink, Scope, Session, SqlError, SqlState, Value,
};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::super::command::{Copy, Direction, Source, temporary_in_words};
use super::super::control::{Control, cancelled, revoked};
use super::super::errors::from_sqlite;
use super::super::names::quoted;
use super::super::policy::{self, Policy};
use super::super::turnstile::Ticket;
use super::super::values::storable;
use super::super::writer::rows::{Row, RowParameters};
use super::parameters;
use super::reader::OneState;
use super::{SqliteSession, read_only};

/// How often a COPY that waits for its client looks whether it was interrupted.
const PATIENCE: Duration = Duration::from_millis(50);
/// The writer is borrowed for about so much data at a time, if so much is there.
const PIECE_BYTES: usize = 256 * 1024;

impl SqliteSession {
    pub(super) fn run_copy(
        &mut self,
        copy: &Copy,
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<CommandTag, SqlError> {
        let rows = match (&copy.source, copy.direction) {
            (Source::Query(sql), _) => self.copy_out(sql, &copy.format, scope, sink)?,
            (Source::Table { name, sql, columns }, Direction::ToClient) => {
                let names = match columns {
                    Some(columns) => columns.clone(),
                    None => {
                        let look = |connection: &Connection| stored_columns(connection, name, None);
                        match self.look_at_temporary(name, sql, look) {
                            Some(found) => found?.0,
                            None => self.with_schema(|connection, _| look(connection))?.0,
                        }
                    }
                };
                // Without a column the table does not exist, and SQLite says so best.
                let names = if names.is_empty() { "*".to_owned() } else { list(&names) };
                self.copy_out(&format!("SELECT {names} FROM {sql}"), &copy.format, scope, sink)?
            }
            (Source::Table { name, sql, columns }, Direction::FromClient) => {
                self.open_if_implicit(scope);
                if self.may_be_temporary(sql)
                    && let Some(rows) = self.in_transaction(|session| {
                        session.copy_in_temporary(name, sql, columns.as_deref(), copy, sink)
                    })?
                {
                    return Ok(CommandTag(format!("COPY {rows}")));
                }
                self.refuse_copy_in(scope)?;
                let (names, types) = self.with_schema(|connection, policy| {
                    let stored = stored_columns(connection, name, columns.as_deref())?;
                    // What it may not, or cannot, insert into shows before the client is asked for data.
                    policy.watch(|| connection.prepare(&insert_into(sql, &stored.0)))?;
                    Ok(stored)
                })?;
                let decoder = CopyDecoder::new(copy.format.clone(), name, names.clone());
                let control = Arc::clone(&self.control);
                let mut input = Input { decoder, types, sink, control, is_over: false };
                self.copy_in(&Target { table: name, columns: &names, insert: &insert_into(sql, &names) }, &mut input)?
            }
        };
        Ok(CommandTag(format!("COPY {rows}")))
    }

    fn refuse_copy_in(&mut self, scope: Scope) -> Result<(), SqlError> {
        self.open_if_implicit(scope);
        if self.modes().read_only {
            return Err(read_only("COPY"));
        }
        self.refuse_unless_primary("COPY")
    }

    /// Looks at the schema as the transaction sees it.
    pub(super) fn with_schema<T>(
        &mut self,
        look: impl FnOnce(&Connection, &Policy) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        if let Some(ticket) = self.turn() {
            let writer = self.shared.turnstile.writer(ticket).ok_or_else(revoked)?;
            let (connection, policy) = writer.for_describe();
            return look(connection, policy);
        }
        let reader = self.reader()?;
        let _state = OneState::hold(reader)?;
        look(&reader.connection, &reader.policy)
    }

    fn copy_in(&mut self, target: &Target<'_>, input: &mut Input<'_>) -> Result<u64, SqlError> {
        self.note_started();
        input.sink.copy_in(input.types.len())?;
        // Nobody waits for a client that has nothing to say.
        input.take_piece()?;
        if self.transaction.is_some() {
            return self.with_turn(|session, ticket| session.insert_pieces(ticket, target, input));
        }
        let turn = self.take_turn(&[])?;
        let rows = self.insert_pieces(turn.ticket(), target, input)?;
        self.commit(turn)?;
        Ok(rows)
    }

    /// Into a temporary table; `None` if it is not one.
    fn copy_in_temporary(
        &mut self,
        name: &str,
        sql: &str,
        columns: Option<&[String]>,
        copy: &Copy,
        sink: &mut dyn ResultSink,
    ) -> Result<Option<u64>, SqlError> {
        if !self.inserts_temporary(&insert_into(sql, columns.unwrap_or_default()))? {
            return Ok(None);
        }
        let look = |connection: &Connection| stored_columns(connection, name, columns);
        let Some(stored) = self.look_at_temporary(name, sql, look) else { return Ok(None) };
        let (names, types) = stored?;
        let insert = temporary_in_words(&insert_into(sql, &names)).sql;
        let decoder = CopyDecoder::new(copy.format.clone(), name, names);
        let mut input = Input { decoder, types, sink, control: Arc::clone(&self.control), is_over: false };
        self.note_started();
        input.sink.copy_in(input.types.len())?;
        let mut rows = 0;
        while !input.is_over {
            input.take_piece()?;
            let inserted = self.insert_temporary(&insert, |row, parameters| input.bind(row, parameters));
            rows += inserted.map_err(|error| error.with_context(input.decoder.context(None)))?;
        }
        Ok(Some(rows))
    }

    fn insert_pieces(&self, ticket: Ticket, target: &Target<'_>, input: &mut Input<'_>) -> Result<u64, SqlError> {
        let writer = || self.shared.turnstile.writer(ticket).ok_or_else(revoked);
        writer()?.begin_rows(target.table, target.columns)?;
        let mut rows = 0;
        loop {
            let inserted = {
                let mut writer = writer()?;
                let work = || writer.insert_rows(target.insert, |row, parameters| input.bind(row, parameters));
                self.control.run(&self.shared.writer_interrupt, work)
            };
            rows += inserted.map_err(|error| error.with_context(input.decoder.context(None)))?;
            if input.is_over {
                writer()?.end_rows()?;
                return Ok(rows);
            }
            input.take_piece()?;
        }
    }

    fn copy_out(
        &mut self,
        sql: &str,
        format: &CopyFormat,
        scope: Scope,
        sink: &mut dyn ResultSink,
    ) -> Result<u64, SqlError> {
        if self.describe(sql, &[])?.columns.is_empty() {
            return Err(policy::refused("COPY query must return rows").with_hint("Use RETURNING."));
        }
        let mut output = Output { sink, format, encoder: None, rows: 0 };
        self.run_sql(sql, &[], scope, &mut output)?;
        let rows = output.rows;
        sink.copy_done()?;
        Ok(rows)
    }
}

/// The columns of a table that hold values of their own, or those of them that are named, with their types.
fn stored_columns(
    connection: &Connection,
    table: &str,
    named: Option<&[String]>,
) -> Result<(Vec<String>, Vec<PgType>), SqlError> {
    let stored = parameters::columns(connection, table).map_err(|error| from_sqlite(&error))?;
    let Some(named) = named else { return Ok(stored.into_iter().unzip()) };
    let type_of = |name: &String| {
        let column = stored.iter().find(|(column, _)| column.eq_ignore_ascii_case(name));
        column.map_or(PgType::TEXT, |(_, pg_type)| *pg_type)
    };
    Ok((named.to_vec(), named.iter().map(type_of).collect()))
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn insert_into(table: &str, columns: &[String]) -> String {
    if columns.is_empty() {
        // There is no such table, and SQLite says so best.
        return format!("INSERT INTO {table} DEFAULT VALUES");
    }
    let values: Vec<String> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", list(columns), values.join(", "))
}

/// Where rows go.
struct Target<'a> {
    table: &'a str,
    columns: &'a [String],
    insert: &'a str,
}

/// The rows that come from the client.
struct Input<'a> {
    decoder: CopyDecoder,
    types: Vec<PgType>,
    sink: &'a mut dyn ResultSink,
    control: Arc<Control>,
    is_over: bool,
}

impl Input<'_> {
    /// Waits for the next piece of the data, and takes what came with it.
    fn take_piece(&mut self) -> Result<(), SqlError> {
        let (mut taken_bytes, mut patience) = (0, PATIENCE);
        while taken_bytes < PIECE_BYTES {
            if self.control.is_cancelled() {
                return Err(cancelled().with_context(self.decoder.context(None)));
            }
            let copied = self.sink.copied(patience);
            match copied.map_err(|error| error.with_context(self.decoder.context(None)))? {
                Copied::Data(data) => {
                    taken_bytes += data.len();
                    patience = Duration::ZERO;
                    self.decoder.push(&data);
                }
                Copied::Nothing if taken_bytes > 0 => break,
                Copied::Nothing => {}
                Copied::End => {
                    self.decoder.finish();
                    self.is_over = true;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Binds the values of a row; answers whether there is one.
    fn bind(&mut self, row: Row, parameters: &mut RowParameters<'_, '_>) -> Result<bool, SqlError> {
        let mut at = 0;
        let row = match row {
            Row::Next => self.decoder.next_row()?,
            Row::Same => Some(self.decoder.row()?),
        };
        let bound = match row {
            None => return Ok(false),
            Some(row) => self.types.iter().enumerate().try_for_each(|(column, pg_type)| {
                at = column;
                bind(parameters, row.field(column)?, *pg_type)
            }),
        };
        bound.map_err(|error| error.with_context(self.decoder.context(Some(at))))?;
        Ok(true)
    }
}

/// Binds a field as the value of its column. What is no value of the column's type is refused, as PostgreSQL does, although
/// SQLite would keep the text: a client that copies does not see what it was taken for.
fn bind(parameters: &mut RowParameters<'_, '_>, field: Option<&str>, pg_type: PgType) -> Result<(), SqlError> {
    match field {
        Some(text) if pg_type == PgType::JSON => {
            check_json(text)?;
            parameters.put(ValueRef::Text(text.as_bytes()))
        }
        Some(text) if pg_type != PgType::TEXT => parameters.put(storable(&OwnedValue::parse(text, pg_type)?)?),
        Some(text) => parameters.put(ValueRef::Text(text.as_bytes())),
        None => parameters.put(ValueRef::Null),
    }
}

fn check_json(text: &str) -> Result<(), SqlError> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let told = SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json");
            Err(told.with_detail(error.to_string()))
        }
    }
}

/// Makes data of rows.
struct Output<'a> {
    sink: &'a mut dyn ResultSink,
    format: &'a CopyFormat,
    encoder: Option<CopyEncoder>,
    rows: u64,
}

impl ResultSink for Output<'_> {
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        let encoder = self.encoder.insert(CopyEncoder::new(self.format.clone(), columns));
        self.sink.copy_out(columns.len())?;
        encoder.header(columns).map_or(Ok(()), |header| self.sink.copy_data(header))
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        self.rows += 1;
        self.sink.copy_data(encoder.row(values)?)
    }

    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        self.sink.notice(notice)
    }
}
