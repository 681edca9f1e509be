//! Rows that COPY brings, captured as they are bound where their table allows that.
//!
//! Of a row that is inserted into a [`PlainTable`], what SQLite will store is known beforehand, so the changeset is made of the
//! values as they are bound, and [`Capture`](super::super::captured::Capture) need not take the stored row apart.
//!
//! - A row of which that is not known ends this: it and those behind it are captured as any others.
//! - While rows are taken so, nothing else may run on the writer ([`Writer::execute`](super::Writer::execute) and
//!   [`Writer::commit`](super::Writer::commit) refuse).

use mainstay::server::pg::SqlError;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use super::super::catalog::Home;
use super::super::changeset::{self, By, Operation};
use super::super::errors::{from_sqlite, of_statement};
use super::super::payload::{Limit, Part};
use super::Writer;

/// What SQLite makes of values of a column (chapter 3 of its "Datatypes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    fn of(declared: &str) -> Affinity {
        let declared = declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if has("INT") {
            Affinity::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Affinity::Text
        } else if declared.is_empty() || has("BLOB") {
            Affinity::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

/// A column of a [`PlainTable`].
#[derive(Clone, Copy, Debug)]
struct PlainColumn {
    affinity: Affinity,
    /// Its position in the primary key, from 1, or 0.
    key: u8,
}

impl PlainColumn {
    /// Whether it stores that value as it is.
    fn keeps(self, value: ValueRef<'_>) -> bool {
        match (self.affinity, value) {
            // NULL in a key is refused, or a number that SQLite chooses.
            (_, ValueRef::Null) => self.key == 0,
            (_, ValueRef::Blob(_)) | (Affinity::Text | Affinity::Blob, ValueRef::Text(_)) => true,
            (Affinity::Integer | Affinity::Numeric | Affinity::Blob, ValueRef::Integer(_)) => true,
            // What is no number is NULL; in a key without a type, any such number is refused.
            (Affinity::Real, ValueRef::Real(value)) => !value.is_nan(),
            (Affinity::Blob, ValueRef::Real(value)) => !value.is_nan() && self.key == 0,
            (Affinity::Integer | Affinity::Numeric, ValueRef::Text(text)) => is_no_number(text),
            _ => false,
        }
    }
}

/// Whether text is certainly nothing that SQLite would take for a number, as dates and times are not: it has a character
/// that is in none, or a sign behind a digit.
fn is_no_number(text: &[u8]) -> bool {
    let strange = |byte: &u8| !(byte.is_ascii_digit() || byte.is_ascii_whitespace() || b"+-.eE".contains(byte));
    let sign_behind_digit = |pair: &[u8]| matches!(pair, [b'0'..=b'9', b'+' | b'-']);
    text.is_empty() || text.iter().any(strange) || text.windows(2).any(sign_behind_digit)
}

/// A table of which it is known what an INSERT of all its columns stores: it has a key, no trigger and no generated column,
/// and is not STRICT. None has `ON CONFLICT` in its definition ([`schema::check`](super::super::schema::check)).
#[derive(Debug)]
struct PlainTable {
    name: String,
    columns: Vec<PlainColumn>,
}

impl PlainTable {
    /// The table of that name, if it is one, and `columns` are all it has, in order.
    fn of(connection: &Connection, name: &str, columns: &[String]) -> rusqlite::Result<Option<PlainTable>> {
        let sql = "SELECT t.name, c.name, c.type, c.pk FROM pragma_table_list t, pragma_table_xinfo(t.name, 'main') c \
                   WHERE t.schema = 'main' AND t.type = 'table' AND NOT t.strict AND t.name = ?1 COLLATE NOCASE \
                   AND NOT EXISTS (SELECT 1 FROM pragma_table_xinfo(t.name, 'main') WHERE hidden <> 0) \
                   AND NOT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' \
                                   AND tbl_name = t.name COLLATE NOCASE) \
                   ORDER BY c.cid";
        let mut table = PlainTable { name: String::new(), columns: Vec::new() };
        let mut named = columns.iter();
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([name])?;
        while let Some(row) = rows.next()? {
            table.name = row.get(0)?;
            let (column, declared): (String, String) = (row.get(1)?, row.get(2)?);
            if !named.next().is_some_and(|named| named.eq_ignore_ascii_case(&column)) {
                return Ok(None);
            }
            let Ok(key) = u8::try_from(row.get::<_, i64>(3)?) else { return Ok(None) };
            table.columns.push(PlainColumn { affinity: Affinity::of(&declared), key });
        }
        if named.next().is_some() || table.columns.iter().all(|column| column.key == 0) {
            return Ok(None);
        }
        Ok(Some(table))
    }
}

/// The rows that were inserted into a plain table so far.
pub(super) struct PlainRows {
    columns: Vec<PlainColumn>,
    /// The table, then the rows.
    changeset: Vec<u8>,
    table_bytes: usize,
    /// Where the row begins that is being bound.
    row: usize,
    /// Its next column.
    column: usize,
    /// What would be stored of the row is not known.
    strange: bool,
    /// What the transaction did before takes so much of the limit.
    before_bytes: usize,
    limit: Limit,
}

impl PlainRows {
    /// None yet.
    fn of(table: PlainTable, before_bytes: usize, limit: Limit) -> PlainRows {
        let keys: Vec<u8> = table.columns.iter().map(|column| column.key).collect();
        let changeset = changeset::table(&table.name, &keys);
        let (table_bytes, row) = (changeset.len(), changeset.len());
        PlainRows {
            columns: table.columns,
            changeset,
            table_bytes,
            row,
            column: 0,
            strange: false,
            before_bytes,
            limit,
        }
    }

    /// A row begins.
    fn begin(&mut self) {
        self.changeset.truncate(self.row);
        changeset::put_change(&mut self.changeset, Operation::Insert, By::Statement);
        (self.column, self.strange) = (0, false);
    }

    /// The next value of the row, in the order of columns.
    fn put(&mut self, value: ValueRef<'_>) {
        let keeps = self.columns.get(self.column).is_some_and(|column| column.keeps(value));
        self.strange |= !keeps;
        self.column += 1;
        if !self.strange {
            changeset::put_value(&mut self.changeset, value);
        }
    }

    /// Whether the row that was bound is known.
    pub(super) fn is_known(&self) -> bool {
        !self.strange && self.column == self.columns.len()
    }

    /// The row was inserted.
    ///
    /// # Errors
    /// 54000: with them, the transaction did too much.
    pub(super) fn inserted(&mut self) -> Result<(), SqlError> {
        self.row = self.changeset.len();
        self.limit.check(self.before_bytes.saturating_add(self.row))
    }

    /// The changeset of the rows that were inserted; nothing if there was none.
    pub(super) fn into_changeset(mut self) -> Option<Vec<u8>> {
        self.changeset.truncate(self.row);
        (self.row > self.table_bytes).then_some(self.changeset)
    }
}

/// The parameters of an INSERT, which take the values of a row, in the order of columns.
pub(in super::super) struct RowParameters<'a, 'connection> {
    statement: &'a mut Statement<'connection>,
    plain: Option<&'a mut PlainRows>,
    column: usize,
}

impl<'a, 'connection> RowParameters<'a, 'connection> {
    /// Those of that statement.
    pub(in super::super) fn of(statement: &'a mut Statement<'connection>) -> RowParameters<'a, 'connection> {
        RowParameters { statement, plain: None, column: 0 }
    }

    /// Takes the next value.
    ///
    /// # Errors
    /// SQLite's.
    pub(in super::super) fn put(&mut self, value: ValueRef<'_>) -> Result<(), SqlError> {
        if let Some(plain) = &mut self.plain {
            plain.put(value);
        }
        self.column += 1;
        let bound = self.statement.raw_bind_parameter(self.column, ToSqlOutput::Borrowed(value));
        bound.map_err(|error| from_sqlite(&error))
    }
}

impl Writer {
    /// Rows for all `columns` of a table follow, by [`insert_rows`](Writer::insert_rows), and nothing else before
    /// [`end_rows`](Writer::end_rows). If one fails, the transaction, or what it did since its last savepoint, has to be
    /// rolled back.
    ///
    /// # Errors
    /// SQLite's.
    pub(in super::super) fn begin_rows(&mut self, table: &str, columns: &[String]) -> Result<(), SqlError> {
        let table = PlainTable::of(self.connection(), table, columns).map_err(|error| from_sqlite(&error))?;
        // Rows of others are captured as any are.
        let Some(table) = table else { return Ok(()) };
        self.drain();
        self.capture.stop();
        self.rows = Some(PlainRows::of(table, self.parts.len_bytes(), self.capture.limit()));
        Ok(())
    }

    /// All rows were inserted.
    ///
    /// # Errors
    /// SQLite's; the transaction has to be rolled back.
    pub(in super::super) fn end_rows(&mut self) -> Result<(), SqlError> {
        let Some(rows) = self.rows.take() else { return Ok(()) };
        if let Some(changeset) = rows.into_changeset() {
            self.parts.push(Part::Changeset(changeset));
        }
        self.start_capture().map_err(|error| from_sqlite(&error))
    }

    /// Runs an INSERT again and again in the open transaction, each time with the values that `next` puts, until it says
    /// that there are none; answers how often. With [`Row::Same`], it puts those of the row before once more.
    ///
    /// # Errors
    /// As [`execute`](Writer::execute), and those of `next`.
    pub(in super::super) fn insert_rows(
        &mut self,
        sql: &str,
        mut next: impl FnMut(Row, &mut RowParameters<'_, '_>) -> Result<bool, SqlError>,
    ) -> Result<u64, SqlError> {
        let outcome = self.insert_all_rows(sql, &mut next);
        self.must_undo |= outcome.is_err();
        outcome
    }

    fn insert_all_rows(
        &mut self,
        sql: &str,
        next: &mut impl FnMut(Row, &mut RowParameters<'_, '_>) -> Result<bool, SqlError>,
    ) -> Result<u64, SqlError> {
        let (mut count, is_over) = self.insert_plain_rows(sql, next)?;
        if is_over {
            return Ok(count);
        }
        let mut row = Row::Next;
        if self.rows.is_some() {
            self.end_rows()?;
            row = Row::Same;
        }
        let connection = &self.connection;
        let (mut statement, _) = self.policy.watch(|| connection.prepare_cached(sql))?;
        while next(std::mem::replace(&mut row, Row::Next), &mut RowParameters::of(&mut statement))? {
            statement.raw_execute().map_err(|error| of_statement(connection, Home::Stored, &error))?;
            self.capture.check()?;
            count += 1;
        }
        Ok(count)
    }

    /// Inserts rows as long as they are of a plain table, if that is one; answers how many, and whether those were all. Else
    /// there was one of which it is not known what it would be.
    fn insert_plain_rows(
        &mut self,
        sql: &str,
        next: &mut impl FnMut(Row, &mut RowParameters<'_, '_>) -> Result<bool, SqlError>,
    ) -> Result<(u64, bool), SqlError> {
        let Some(rows) = &mut self.rows else { return Ok((0, false)) };
        let connection = &self.connection;
        let (mut statement, _) = self.policy.watch(|| connection.prepare_cached(sql))?;
        let mut count = 0;
        loop {
            rows.begin();
            let plain = Some(&mut *rows);
            if !next(Row::Next, &mut RowParameters { statement: &mut statement, plain, column: 0 })? {
                return Ok((count, true));
            }
            if !rows.is_known() {
                return Ok((count, false));
            }
            statement.raw_execute().map_err(|error| of_statement(connection, Home::Stored, &error))?;
            rows.inserted()?;
            count += 1;
        }
    }
}

/// Which row is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Row {
    Next,
    Same,
}
