//! Takes the rows of one statement: [`RowSink`] passes them to the [`Outbox`], [`Reply`] keeps them until the statement
//! is over.

use std::sync::Arc;
use std::time::Duration;

use super::backend::{Copied, ResultSink};
use super::codec::{self, Format};
use super::error::{SqlError, SqlState};
use super::extended::Prepared;
use super::intake::Intake;
use super::outbox::Outbox;
use super::spool::Spool;
use super::types::{Column, PgType, Value};

/// A [`Reply`] takes so much: a chunk, and a row that is not much longer.
const REPLY_LIMIT_BYTES: usize = 128 * 1024;

/// What the client knows of the rows to come.
pub(super) enum Expected<'a> {
    /// Nothing: it is told before the first row, and gets text.
    Nothing,
    /// It was, or could have been, told of these columns, and chose formats.
    Columns { columns: &'a [Column], formats: &'a [i16] },
}

/// The sink of one statement.
pub(super) struct RowSink<'a> {
    outbox: &'a mut Outbox,
    expected: Expected<'a>,
    intake: &'a mut Intake,
    rows: Rows,
}

/// How the rows of one statement are sent.
#[derive(Default)]
struct Rows {
    types: Vec<PgType>,
    formats: Vec<Format>,
    announced: bool,
    /// Why rows could not be sent. A statement that goes on all the same has not succeeded.
    failure: Option<SqlError>,
}

impl<'a> RowSink<'a> {
    pub(super) fn new(outbox: &'a mut Outbox, expected: Expected<'a>, intake: &'a mut Intake) -> RowSink<'a> {
        RowSink { outbox, expected, intake, rows: Rows::default() }
    }

    /// Why rows could not be sent, if so.
    pub(super) fn into_failure(self) -> Option<SqlError> {
        self.rows.failure
    }
}

impl ResultSink for RowSink<'_> {
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        let result = self.rows.announce(columns, &self.expected, self.outbox);
        self.rows.keep(result)
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        let result = self.rows.send(values, self.outbox);
        self.rows.keep(result)
    }

    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        let result = self.outbox.notice(notice);
        self.rows.keep(result)
    }

    fn copy_in(&mut self, columns: usize) -> Result<(), SqlError> {
        let result = self.intake.begin_copy(columns, self.outbox);
        self.rows.keep(result)
    }

    fn copied(&mut self, patience: Duration) -> Result<Copied, SqlError> {
        let result = self.intake.copied(patience);
        if let Err(error) = &result {
            self.rows.failure = Some(error.clone());
        }
        result
    }

    fn copy_out(&mut self, columns: usize) -> Result<(), SqlError> {
        let result = self.outbox.copy_out(columns);
        self.rows.keep(result)
    }

    fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError> {
        let result = self.outbox.copy_data(data);
        self.rows.keep(result)
    }

    fn copy_done(&mut self) -> Result<(), SqlError> {
        let result = self.outbox.copy_done();
        self.rows.keep(result)
    }
}

/// The sink of a statement whose rows are fetched in parts.
pub(super) struct SpoolSink<'a> {
    outbox: &'a mut Outbox,
    expected: Expected<'a>,
    rows: Rows,
    row: Outbox,
    spool: &'a mut Spool,
}

impl<'a> SpoolSink<'a> {
    pub(super) fn new(outbox: &'a mut Outbox, expected: Expected<'a>, spool: &'a mut Spool) -> SpoolSink<'a> {
        SpoolSink { outbox, expected, rows: Rows::default(), row: Outbox::new(), spool }
    }

    /// Why rows could not be kept, if so.
    pub(super) fn into_failure(self) -> Option<SqlError> {
        self.rows.failure
    }
}

impl ResultSink for SpoolSink<'_> {
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        let result = self.rows.announce(columns, &self.expected, self.outbox);
        self.rows.keep(result)
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        self.row.clear();
        let result = self.rows.send(values, &mut self.row).and_then(|()| self.spool.push(self.row.gathered()));
        self.rows.keep(result)
    }

    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        let result = self.outbox.notice(notice);
        self.rows.keep(result)
    }
}

/// The sink of a statement that was [started](super::Session::start): it takes a bounded number of rows, waits for
/// nobody, and can begin anew. Any thread may use it.
pub struct Reply {
    outbox: Outbox,
    /// What the client knows of the rows to come, if anything, and the formats that it chose.
    prepared: Option<(Arc<Prepared>, Vec<i16>)>,
    rows: Rows,
    is_full: bool,
}

impl Default for Reply {
    /// The reply to a simple query.
    fn default() -> Reply {
        Reply { outbox: Outbox::new(), prepared: None, rows: Rows::default(), is_full: false }
    }
}

impl Reply {
    /// The reply to a prepared statement.
    pub(super) fn prepared(prepared: Arc<Prepared>, formats: Vec<i16>) -> Reply {
        Reply { prepared: Some((prepared, formats)), ..Reply::default() }
    }

    /// Forgets what it was sent, because the statement runs again.
    pub fn restart(&mut self) {
        self.outbox.clear();
        self.rows = Rows::default();
        self.is_full = false;
    }

    /// Whether it was sent more rows than it takes. The statement has failed and should be
    /// [executed](super::Session::execute).
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// The messages for the client, and why rows could not be sent, if so.
    pub(super) fn parts(&self) -> (&[u8], Option<&SqlError>) {
        (self.outbox.gathered(), self.rows.failure.as_ref())
    }

    /// What is needed to run the statement again: the formats that the client chose.
    pub(super) fn into_formats(self) -> Vec<i16> {
        self.prepared.map(|(_, formats)| formats).unwrap_or_default()
    }
}

impl ResultSink for Reply {
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        let expected = match &self.prepared {
            None => Expected::Nothing,
            Some((prepared, formats)) => Expected::Columns { columns: prepared.columns(), formats },
        };
        let result = self.rows.announce(columns, &expected, &mut self.outbox);
        self.rows.keep(result)
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        if self.outbox.is_full() {
            self.is_full = true;
            return Err(fault("there are too many rows for a statement that runs at once"));
        }
        let result = self.rows.send(values, &mut self.outbox);
        if self.outbox.gathered().len() > REPLY_LIMIT_BYTES {
            self.is_full = true;
            return Err(fault("a row is too long for a statement that runs at once"));
        }
        self.rows.keep(result)
    }

    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        let result = self.outbox.notice(notice);
        self.rows.keep(result)
    }
}

impl Rows {
    fn announce(&mut self, columns: &[Column], expected: &Expected<'_>, outbox: &mut Outbox) -> Result<(), SqlError> {
        if self.announced {
            return Err(fault("columns were announced twice"));
        }
        self.announced = true;
        match expected {
            Expected::Nothing => {
                self.types = columns.iter().map(|column| column.pg_type).collect();
                self.formats = vec![Format::Text; columns.len()];
                outbox.columns(columns, &self.formats)
            }
            Expected::Columns { columns: expected, formats } => {
                let same = |(one, other): (&Column, &Column)| one.name == other.name;
                if expected.len() != columns.len() || !expected.iter().zip(columns).all(same) {
                    let message = "the columns of the result have changed since the statement was prepared";
                    return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message).with_hint("Prepare it again."));
                }
                // The client reads values as what it was told, whatever they have become.
                self.types = expected.iter().map(|column| column.pg_type).collect();
                self.formats = result_formats(expected, formats)?;
                Ok(())
            }
        }
    }

    fn send(&mut self, values: &[Value<'_>], outbox: &mut Outbox) -> Result<(), SqlError> {
        if !self.announced || values.len() != self.types.len() {
            return Err(fault("a row does not match the columns that were announced"));
        }
        outbox.row(values, &self.types, &self.formats)
    }

    fn keep(&mut self, result: Result<(), SqlError>) -> Result<(), SqlError> {
        if let Err(error) = &result {
            self.failure = Some(error.clone());
        }
        result
    }
}

/// The format of each column, from the codes that came with Bind.
///
/// # Errors
/// The codes do not match the columns (08P01), or a type has no such format (0A000).
pub(super) fn result_formats(columns: &[Column], codes: &[i16]) -> Result<Vec<Format>, SqlError> {
    if codes.len() > 1 && codes.len() != columns.len() {
        let message =
            format!("bind message has {} result formats but query has {} columns", codes.len(), columns.len());
        return Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, message));
    }
    let format_of = |(index, column): (usize, &Column)| {
        let format = Format::of_item(codes, index)?;
        codec::check_format(column.pg_type, format)?;
        Ok(format)
    };
    columns.iter().enumerate().map(format_of).collect()
}

fn fault(message: &str) -> SqlError {
    SqlError::new(SqlState::INTERNAL_ERROR, message)
}
