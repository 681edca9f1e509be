//! Cursors of SQL: `DECLARE`, `FETCH`, `MOVE`, `CLOSE`. The engine's tool reads the words ([`CursorCommand`]); what they
//! mean is here, because cursors are the connection's as portals are.
//!
//! A query runs to its end when its cursor is declared, and its rows wait in a [`Scroll`]: so they are those of one moment,
//! nothing of the engine is held up by a client that takes its time, and the session can do other things in between. Every
//! cursor goes in both directions, unless it is declared NO SCROLL.
//!
//! A cursor ends with its transaction; one WITH HOLD stays, if that was committed. Rolling back to a savepoint ends none.

use std::collections::HashMap;
use std::sync::Arc;

use super::backend::{CommandTag, ResultSink, Scope, Session, TransactionStatus};
use super::budget::{Budget, Reserved};
use super::error::{SqlError, SqlState};
use super::extended::{self, Prepared};
use super::scroll::{self, Scroll};
use super::types::{Column, OwnedValue, Value};

/// A connection may keep so many cursors.
const CURSOR_LIMIT: usize = 64;

/// A statement about cursors, as [`Session::cursor_command`] reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorCommand {
    /// `DECLARE`
    Declare {
        /// The cursor's name.
        name: String,
        /// The statement whose rows it has.
        query: String,
        /// `WITH HOLD`: it stays when its transaction is committed.
        hold: bool,
        /// `NO SCROLL`: it goes forwards only.
        forwards_only: bool,
    },
    /// `FETCH`
    Fetch {
        /// The cursor's name.
        name: String,
        /// Which rows.
        steps: Steps,
    },
    /// `MOVE`
    Move {
        /// The cursor's name.
        name: String,
        /// Over which rows.
        steps: Steps,
    },
    /// `CLOSE`, of one cursor or of all.
    Close {
        /// The cursor's name; all, if there is none.
        name: Option<String>,
    },
    /// `DEALLOCATE`, of one prepared statement or of all: the other thing of SQL that is the connection's.
    Deallocate {
        /// The statement's name; all, if there is none.
        name: Option<String>,
    },
}

/// How far a cursor goes. It stands on a row, before the first, or behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// So many rows further; none is the row on which it stands, once more.
    Next(u64),
    /// All that are left, and behind the last.
    All,
    /// So many rows back, the nearest first; none is the row on which it stands.
    Prior(u64),
    /// All before it, the nearest first, and before the first.
    AllPrior,
    /// To the row that is so many further, and that one alone.
    Relative(i64),
    /// To the row of this number, and that one alone: counted from 1, or from -1, which is the last. 0 is before the first.
    Absolute(i64),
}

/// A connection's cursors.
#[derive(Default)]
pub(super) struct Cursors(HashMap<String, Cursor>);

struct Cursor {
    columns: Vec<Column>,
    rows: Scroll,
    /// The number of the row on which it stands: 0 before the first, one more than there are behind the last.
    position: u64,
    forwards_only: bool,
    hold: bool,
    /// The transaction that declared it was committed.
    settled: bool,
    _reserved: Reserved,
}

impl Cursors {
    /// The columns of a cursor's rows.
    ///
    /// # Errors
    /// There is none of that name.
    pub(super) fn columns(&self, name: &str) -> Result<&[Column], SqlError> {
        self.0.get(name).map(|cursor| cursor.columns.as_slice()).ok_or_else(|| no_cursor(name))
    }

    /// A transaction has ended.
    pub(super) fn end_transaction(&mut self, committed: bool) {
        self.0.retain(|_, cursor| cursor.hold && (committed || cursor.settled));
        self.0.values_mut().for_each(|cursor| cursor.settled = true);
    }

    /// Forgets a cursor, if there is one of that name.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A statement, wherever it came from, and where its rows go.
pub(super) struct Run<'a> {
    pub(super) statement: &'a str,
    pub(super) parameters: &'a [OwnedValue],
    pub(super) scope: Scope,
    pub(super) sink: &'a mut dyn ResultSink,
}

/// Runs a statement: here, if it is about cursors, else in the session.
///
/// # Errors
/// It failed, and the transaction with it.
pub(super) fn execute(
    session: &mut dyn Session,
    cursors: &mut Cursors,
    statements: &mut HashMap<String, Arc<Prepared>>,
    budget: &Budget,
    run: Run<'_>,
) -> Result<CommandTag, SqlError> {
    let Some(command) = session.cursor_command(run.statement)? else {
        return session.execute(run.statement, run.parameters, run.scope, run.sink);
    };
    refuse_if_failed(session)?;
    let tag = match command {
        CursorCommand::Declare { name, query, hold, forwards_only } => {
            let Run { parameters, scope, sink, .. } = run;
            let declared = Declared { name, hold, forwards_only };
            declare(session, cursors, budget, Run { statement: &query, parameters, scope, sink }, declared)?;
            "DECLARE CURSOR".to_owned()
        }
        CursorCommand::Fetch { name, steps } => {
            let cursor = cursors.0.get_mut(&name).ok_or_else(|| no_cursor(&name))?;
            run.sink.columns(&cursor.columns)?;
            format!("FETCH {}", cursor.advance(steps, Some(run.sink))?)
        }
        CursorCommand::Move { name, steps } => {
            let cursor = cursors.0.get_mut(&name).ok_or_else(|| no_cursor(&name))?;
            format!("MOVE {}", cursor.advance(steps, None)?)
        }
        CursorCommand::Close { name: Some(name) } => {
            cursors.0.remove(&name).ok_or_else(|| no_cursor(&name))?;
            "CLOSE CURSOR".to_owned()
        }
        CursorCommand::Close { name: None } => {
            cursors.clear();
            "CLOSE CURSOR ALL".to_owned()
        }
        CursorCommand::Deallocate { name: Some(name) } => {
            statements.remove(&name).ok_or_else(|| extended::no_statement(&name))?;
            "DEALLOCATE".to_owned()
        }
        CursorCommand::Deallocate { name: None } => {
            statements.retain(|name, _| name.is_empty());
            "DEALLOCATE ALL".to_owned()
        }
    };
    Ok(CommandTag(tag))
}

/// # Errors
/// The transaction has failed.
pub(super) fn refuse_if_failed(session: &dyn Session) -> Result<(), SqlError> {
    if session.transaction_status() != TransactionStatus::Failed {
        return Ok(());
    }
    let message = "current transaction is aborted, commands ignored until end of transaction block";
    Err(SqlError::new(SqlState::IN_FAILED_SQL_TRANSACTION, message))
}

/// What a cursor is declared as.
struct Declared {
    name: String,
    hold: bool,
    forwards_only: bool,
}

fn declare(
    session: &mut dyn Session,
    cursors: &mut Cursors,
    budget: &Budget,
    run: Run<'_>,
    Declared { name, hold, forwards_only }: Declared,
) -> Result<(), SqlError> {
    let alone = run.scope == Scope::Single && session.transaction_status() == TransactionStatus::Idle;
    if alone && !hold {
        let message = "DECLARE CURSOR can only be used in transaction blocks";
        return Err(SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, message));
    }
    if cursors.0.contains_key(&name) {
        return Err(SqlError::new(SqlState::DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists")));
    }
    if cursors.0.len() >= CURSOR_LIMIT {
        return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many cursors"));
    }
    let reserved = budget.reserve(size_of::<Cursor>() + name.len())?;
    let rows = Scroll::new(budget.reserve(scroll::MEMORY_BYTES)?);
    let mut filling = Filling { columns: Vec::new(), rows, row: Vec::new(), notices: run.sink, failure: None };
    session.execute(run.statement, run.parameters, run.scope, &mut filling)?;
    if let Some(failure) = filling.failure {
        return Err(failure);
    }
    let Filling { columns, mut rows, .. } = filling;
    rows.finish()?;
    if columns.is_empty() {
        return Err(SqlError::new(SqlState("42P11"), "a cursor is declared for a statement that returns rows"));
    }
    cursors
        .0
        .insert(name, Cursor { columns, rows, position: 0, forwards_only, hold, settled: alone, _reserved: reserved });
    Ok(())
}

impl Cursor {
    /// Goes where it is told, and sends the rows if they are wanted; answers how many.
    fn advance(&mut self, steps: Steps, mut sink: Option<&mut dyn ResultSink>) -> Result<u64, SqlError> {
        if self.forwards_only && self.goes_back(steps) {
            return Err(only_forwards());
        }
        let (mut next, way, wanted) = match steps {
            Steps::Next(0) | Steps::Prior(0) => (self.position, Way::Forth, 1),
            Steps::Next(count) => (self.position.saturating_add(1), Way::Forth, count),
            Steps::All => (self.position.saturating_add(1), Way::Forth, u64::MAX),
            Steps::Prior(count) => (self.position.saturating_sub(1), Way::Back, count),
            Steps::AllPrior => (self.position.saturating_sub(1), Way::Back, u64::MAX),
            Steps::Relative(offset) => (self.position.saturating_add_signed(offset), Way::Forth, 1),
            Steps::Absolute(number) if number >= 0 => (number.unsigned_abs(), Way::Forth, 1),
            Steps::Absolute(number) => (self.behind_the_last().saturating_add_signed(number), Way::Forth, 1),
        };
        let mut count = 0;
        while count < wanted {
            self.position = next.min(self.behind_the_last());
            let Some(row) = self.rows.row(next)? else { break };
            if let Some(sink) = &mut sink {
                sink.row(&row::decode(row).ok_or_else(row::damaged)?)?;
            }
            count += 1;
            next = match way {
                Way::Forth => next + 1,
                Way::Back => next - 1,
            };
        }
        Ok(count)
    }

    fn behind_the_last(&self) -> u64 {
        self.rows.count() + 1
    }

    /// Whether it would have to see a row again, or one that it has gone over.
    fn goes_back(&self, steps: Steps) -> bool {
        match steps {
            Steps::Next(count) => count == 0,
            Steps::All => false,
            Steps::Prior(_) | Steps::AllPrior => true,
            Steps::Relative(offset) => offset <= 0,
            Steps::Absolute(number) => u64::try_from(number).map_or(true, |number| number <= self.position),
        }
    }
}

/// In which direction.
#[derive(Clone, Copy)]
enum Way {
    Forth,
    Back,
}

fn no_cursor(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

fn only_forwards() -> SqlError {
    SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
        .with_hint("Declare it with SCROLL option to enable backward scan.")
}

/// Takes the rows of a cursor while its query runs.
struct Filling<'a> {
    columns: Vec<Column>,
    rows: Scroll,
    /// The row that is being written, whose memory is used again.
    row: Vec<u8>,
    notices: &'a mut dyn ResultSink,
    failure: Option<SqlError>,
}

impl ResultSink for Filling<'_> {
    fn columns(&mut self, columns: &[Column]) -> Result<(), SqlError> {
        self.columns = columns.to_vec();
        Ok(())
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), SqlError> {
        let kept = row::encode(values, &mut self.row).and_then(|()| self.rows.push(&self.row));
        kept.inspect_err(|error| self.failure = Some(error.clone()))
    }

    fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        self.notices.notice(notice)
    }
}

/// A row as it waits, in the frame of a message as the [`Scroll`] has them.
///
/// ```text
///  D | length u32, itself included | per value: kind u8 | integer i64, or real f64, or length u32 and bytes
/// ```
mod row {
    use bytes::{Buf, BufMut};

    use super::super::error::{SqlError, SqlState};
    use super::super::outbox;
    use super::super::types::Value;

    const NULL: u8 = 0;
    const INTEGER: u8 = 1;
    const REAL: u8 = 2;
    const TEXT: u8 = 3;
    const BLOB: u8 = 4;
    /// A type byte and the length field.
    const HEAD_BYTES: usize = 5;

    pub(super) fn encode(values: &[Value<'_>], out: &mut Vec<u8>) -> Result<(), SqlError> {
        out.clear();
        out.put_slice(b"D\0\0\0\0");
        for value in values {
            match value {
                Value::Null => out.put_u8(NULL),
                Value::Integer(integer) => {
                    out.put_u8(INTEGER);
                    out.put_i64(*integer);
                }
                Value::Real(real) => {
                    out.put_u8(REAL);
                    out.put_f64(*real);
                }
                Value::Text(text) => put_bytes(TEXT, text.as_bytes(), out)?,
                Value::Blob(bytes) => put_bytes(BLOB, bytes, out)?,
            }
        }
        let length = u32::try_from(out.len() - 1).map_err(|_| outbox::row_too_large())?;
        if let Some(field) = out.get_mut(1..HEAD_BYTES) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    fn put_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), SqlError> {
        out.put_u8(kind);
        out.put_u32(u32::try_from(bytes.len()).map_err(|_| outbox::row_too_large())?);
        out.put_slice(bytes);
        Ok(())
    }

    /// `None` if it is no row.
    pub(super) fn decode(message: &[u8]) -> Option<Vec<Value<'_>>> {
        let mut rest = message.get(HEAD_BYTES..)?;
        let mut values = Vec::new();
        while !rest.is_empty() {
            values.push(match rest.try_get_u8().ok()? {
                NULL => Value::Null,
                INTEGER => Value::Integer(rest.try_get_i64().ok()?),
                REAL => Value::Real(rest.try_get_f64().ok()?),
                TEXT => Value::Text(std::str::from_utf8(take_bytes(&mut rest)?).ok()?),
                BLOB => Value::Blob(take_bytes(&mut rest)?),
                _ => return None,
            });
        }
        Some(values)
    }

    fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let length = rest.try_get_u32().ok()? as usize;
        let (taken, behind) = rest.split_at_checked(length)?;
        *rest = behind;
        Some(taken)
    }

    pub(super) fn damaged() -> SqlError {
        SqlError::new(SqlState::INTERNAL_ERROR, "a row of a cursor cannot be read")
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn rows_come_back_and_other_bytes_are_no_row() {
            let values = [
                Value::Null,
                Value::Integer(i64::MIN),
                Value::Real(-0.5),
                Value::Text("größer"),
                Value::Text(""),
                Value::Blob(&[0, 255]),
            ];
            let mut bytes = Vec::new();
            encode(&values, &mut bytes).unwrap();
            assert_eq!(decode(&bytes).unwrap(), values);
            for length in 0..bytes.len() {
                assert_ne!(decode(&bytes[..length]).as_deref(), Some(&values[..]), "{length}");
            }
            bytes[HEAD_BYTES] = 9;
            assert_eq!(decode(&bytes), None);
            encode(&[], &mut bytes).unwrap();
            assert_eq!(decode(&bytes), Some(Vec::new()));
        }
    }
}
