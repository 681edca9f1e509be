//! Takes the rows of one statement and passes them to the [`Outbox`].

use super::backend::ResultSink;
use super::codec::{self, Format};
use super::error::{SqlError, SqlState};
use super::outbox::Outbox;
use super::types::{Column, PgType, Value};

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
    types: Vec<PgType>,
    formats: Vec<Format>,
    announced: bool,
    /// Why rows could not be sent. A statement that goes on all the same has not succeeded.
    failure: Option<SqlError>,
}

impl<'a> RowSink<'a> {
    pub(super) fn new(outbox: &'a mut Outbox, expected: Expected<'a>) -> RowSink<'a> {
        RowSink { outbox, expected, types: Vec::new(), formats: Vec::new(), announced: false, failure: None }
    }

    /// Why rows could not be sent, if so.
    pub(super) fn into_failure(self) -> Option<SqlError> {
        self.failure
    }

    fn announce(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        if self.announced {
            return Err(fault("columns were announced twice"));
        }
        self.announced = true;
        match &self.expected {
            Expected::Nothing => {
                self.types = columns.iter().map(|column| column.pg_type).collect();
                self.formats = vec![Format::Text; columns.len()];
                self.outbox.columns(columns, &self.formats)
            }
            Expected::Columns { columns: expected, formats } => {
                let names = |columns: &[Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
                if names(expected) != names(columns) {
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

    fn send(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        if !self.announced || values.len() != self.types.len() {
            return Err(fault("a row does not match the columns that were announced"));
        }
        self.outbox.row(values, &self.types, &self.formats)
    }

    fn keep(&mut self, result: Result<(), SqlError>) -> Result<(), SqlError> {
        if let Err(error) = &result {
            self.failure = Some(error.clone());
        }
        result
    }
}

impl ResultSink for RowSink<'_> {
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        let result = self.announce(columns);
        self.keep(result)
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        let result = self.send(values);
        self.keep(result)
    }

    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        let result = self.outbox.notice(notice);
        self.keep(result)
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
