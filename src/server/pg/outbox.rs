//! What goes to a client: whole messages, gathered into chunks, through a bounded channel to whoever writes them.
//!
//! On a thread that may block, [`Outbox`] hands chunks over, and blocks when the client reads more slowly than the session
//! sends. Elsewhere it only gathers; whoever runs there looks between messages whether it [is full](Outbox::is_full). A
//! chunk ends where a message ends, so a connection may stop after any chunk.

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    TransactionStatus as WireTransactionStatus,
};
use pgwire::messages::startup::ParameterStatus;
use tokio::sync::mpsc;

use super::backend::{CommandTag, TransactionStatus};
use super::codec::{self, Format};
use super::error::{Severity, SqlError, SqlState};
use super::types::{Column, PgType, Value};

/// A chunk is handed over when it has this size.
const CHUNK_BYTES: usize = 32 * 1024;
/// So many chunks wait for the writer before the sender does.
const CHUNKS_WAITING: usize = 4;
/// The largest row, as in PostgreSQL, whichever way it goes.
pub(super) const ROW_LIMIT_BYTES: usize = 0x3fff_ffff;

/// Gathers messages for one client.
pub(super) struct Outbox {
    buffer: BytesMut,
    /// Where chunks go, on a thread that may block.
    writer: Option<mpsc::Sender<Bytes>>,
    /// Whether the thread that uses this may block.
    may_block: bool,
    writer_gone: bool,
}

impl Outbox {
    /// An empty one, which only gathers.
    pub(super) fn new() -> Outbox {
        Outbox { buffer: BytesMut::new(), writer: None, may_block: false, writer_gone: false }
    }

    /// Answers where chunks come out from when it [may block](Outbox::may_block) on.
    pub(super) fn attach(&mut self) -> mpsc::Receiver<Bytes> {
        let (writer, chunks) = mpsc::channel(CHUNKS_WAITING);
        self.writer = Some(writer);
        chunks
    }

    /// From now on it is used by a thread that may block, and hands chunks over.
    pub(super) fn may_block(&mut self) {
        self.may_block = true;
    }

    /// Whether what has gathered is enough for a chunk.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= CHUNK_BYTES
    }

    /// Appends whole messages.
    pub(super) fn append(&mut self, messages: &[u8]) {
        self.buffer.extend_from_slice(messages);
    }

    /// Appends a whole message, and hands over what has gathered, if it is enough.
    pub(super) fn pass(&mut self, message: &[u8]) -> Result<(), SqlError> {
        self.append(message);
        self.pass_on()
    }

    /// Forgets all that has gathered.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// What has gathered.
    pub(super) fn gathered(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether somebody gave up writing: what is sent from now on goes nowhere.
    pub(super) fn is_closed(&self) -> bool {
        self.writer_gone
    }

    /// What has not been handed over yet.
    pub(super) fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }

    /// Makes `error` the last word to a client that does not get all that was sent before.
    pub(super) fn end_with(&mut self, error: &SqlError) {
        self.buffer.clear();
        // Should it be too long, the client only sees the connection end.
        let _ = put_error(&mut self.buffer, error);
    }

    /// Hands over what has gathered, if it is enough. Blocks while the client is slow.
    fn pass_on(&mut self) -> Result<(), SqlError> {
        if self.writer_gone {
            return Err(client_gone());
        }
        if self.buffer.len() >= CHUNK_BYTES { self.hand_over() } else { Ok(()) }
    }

    /// Hands over what has gathered, because the client is waited for next.
    fn hand_over(&mut self) -> Result<(), SqlError> {
        let Some(writer) = self.writer.as_ref().filter(|_| self.may_block) else { return Ok(()) };
        let chunk = self.buffer.split().freeze();
        writer.blocking_send(chunk).map_err(|_| {
            self.writer_gone = true;
            client_gone()
        })
    }

    fn put(&mut self, message: &impl Message) -> Result<(), SqlError> {
        put(&mut self.buffer, message)?;
        self.pass_on()
    }

    pub(super) fn columns(&mut self, columns: &[Column], formats: &[Format]) -> Result<(), SqlError> {
        if i16::try_from(columns.len()).is_err() {
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many columns"));
        }
        let fields = columns.iter().zip(formats).map(|(column, format)| {
            let pg_type = codec::told(column.pg_type);
            FieldDescription::new(clean(&column.name), 0, 0, pg_type.0, codec::type_size(pg_type), -1, format.code())
        });
        self.put(&RowDescription::new(fields.collect()))
    }

    /// # Errors
    /// A value does not fit its column (then nothing of the row is sent), or the client is gone.
    pub(super) fn row(&mut self, values: &[Value<'_>], types: &[PgType], formats: &[Format]) -> Result<(), SqlError> {
        let start = self.buffer.len();
        if let Err(error) = put_row(&mut self.buffer, values, types, formats) {
            self.buffer.truncate(start);
            return Err(error);
        }
        self.pass_on()
    }

    /// Asks the client for data of so many columns, in text.
    pub(super) fn copy_in(&mut self, columns: usize) -> Result<(), SqlError> {
        let (count, formats) = text_columns(columns)?;
        self.put(&CopyInResponse::new(0, count, formats))?;
        self.hand_over()
    }

    /// Announces data of so many columns, in text.
    pub(super) fn copy_out(&mut self, columns: usize) -> Result<(), SqlError> {
        let (count, formats) = text_columns(columns)?;
        self.put(&CopyOutResponse::new(0, count, formats))
    }

    pub(super) fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError> {
        if data.len() > ROW_LIMIT_BYTES {
            return Err(row_too_large());
        }
        self.buffer.put_u8(b'd');
        // Cannot be cut: the limit is below it.
        self.buffer.put_u32(data.len() as u32 + 4);
        self.buffer.put_slice(data);
        self.pass_on()
    }

    pub(super) fn copy_done(&mut self) -> Result<(), SqlError> {
        self.put(&CopyDone::new())
    }

    pub(super) fn notice(&mut self, notice: &SqlError) -> Result<(), SqlError> {
        self.put(&NoticeResponse::new(fields(notice)))
    }

    pub(super) fn error(&mut self, error: &SqlError) -> Result<(), SqlError> {
        put_error(&mut self.buffer, error)?;
        self.pass_on()
    }

    pub(super) fn complete(&mut self, tag: &CommandTag) -> Result<(), SqlError> {
        self.put(&CommandComplete::new(clean(&tag.0)))
    }

    pub(super) fn suspended(&mut self) -> Result<(), SqlError> {
        self.put(&PortalSuspended::new())
    }

    pub(super) fn empty_query(&mut self) -> Result<(), SqlError> {
        self.put(&EmptyQueryResponse::new())
    }

    pub(super) fn parse_complete(&mut self) -> Result<(), SqlError> {
        self.put(&ParseComplete::new())
    }

    pub(super) fn bind_complete(&mut self) -> Result<(), SqlError> {
        self.put(&BindComplete::new())
    }

    pub(super) fn close_complete(&mut self) -> Result<(), SqlError> {
        self.put(&CloseComplete::new())
    }

    pub(super) fn no_data(&mut self) -> Result<(), SqlError> {
        self.put(&NoData::new())
    }

    pub(super) fn parameters(&mut self, types: &[PgType]) -> Result<(), SqlError> {
        self.put(&ParameterDescription::new(types.iter().map(|pg_type| codec::told(*pg_type).0).collect()))
    }

    /// Tells the value of a setting.
    pub(super) fn setting(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        self.put(&ParameterStatus::new(name.to_owned(), clean(value)))
    }

    pub(super) fn ready(&mut self, status: TransactionStatus) -> Result<(), SqlError> {
        self.put(&ready_for_query(status))
    }
}

/// Appends a message.
///
/// # Errors
/// It is longer than its kind may be.
pub(super) fn put(buffer: &mut BytesMut, message: &impl Message) -> Result<(), SqlError> {
    let start = buffer.len();
    message.encode(buffer).map_err(|error| {
        buffer.truncate(start);
        SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("a message for the client is too long: {error}"))
    })
}

/// Appends an error.
///
/// # Errors
/// It is longer than a message may be.
pub(super) fn put_error(buffer: &mut BytesMut, error: &SqlError) -> Result<(), SqlError> {
    put(buffer, &ErrorResponse::new(fields(error)))
}

pub(super) fn ready_for_query(status: TransactionStatus) -> ReadyForQuery {
    ReadyForQuery::new(match status {
        TransactionStatus::Idle => WireTransactionStatus::Idle,
        TransactionStatus::InTransaction => WireTransactionStatus::Transaction,
        TransactionStatus::Failed => WireTransactionStatus::Error,
    })
}

fn fields(error: &SqlError) -> Vec<(u8, String)> {
    let word = error.severity.word().to_owned();
    let mut fields =
        vec![(b'S', word.clone()), (b'V', word), (b'C', error.state.0.to_owned()), (b'M', clean(&error.message))];
    fields.extend(error.detail.iter().map(|detail| (b'D', clean(detail))));
    fields.extend(error.hint.iter().map(|hint| (b'H', clean(hint))));
    fields.extend(error.context.iter().map(|context| (b'W', clean(context))));
    if let Some(object) = &error.object {
        let names = [
            (b's', &object.schema),
            (b't', &object.table),
            (b'c', &object.column),
            (b'd', &object.data_type),
            (b'n', &object.constraint),
        ];
        fields.extend(names.into_iter().filter_map(|(field, name)| Some((field, clean(name.as_deref()?)))));
    }
    fields
}

/// Text for a field that ends at a zero byte, and so can hold none.
pub(super) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn put_row(buffer: &mut BytesMut, values: &[Value<'_>], types: &[PgType], formats: &[Format]) -> Result<(), SqlError> {
    let count =
        u16::try_from(values.len()).map_err(|_| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many columns"))?;
    buffer.put_u8(b'D');
    let start = buffer.len();
    buffer.put_i32(0);
    buffer.put_u16(count);
    for ((value, pg_type), format) in values.iter().zip(types).zip(formats) {
        codec::encode(*value, *pg_type, *format, buffer)?;
        if buffer.len() - start > ROW_LIMIT_BYTES {
            return Err(row_too_large());
        }
    }
    // Cannot be cut: the limit is below it.
    let length = (buffer.len() - start) as u32;
    if let Some(field) = buffer.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// A row beyond [`ROW_LIMIT_BYTES`].
pub(super) fn row_too_large() -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "a row is larger than 1 GiB")
}

fn text_columns(columns: usize) -> Result<(i16, Vec<i16>), SqlError> {
    let count =
        i16::try_from(columns).map_err(|_| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many columns"))?;
    Ok((count, vec![Format::Text.code(); columns]))
}

fn client_gone() -> SqlError {
    SqlError { severity: Severity::Fatal, ..SqlError::new(SqlState::CONNECTION_FAILURE, "the client is gone") }
}

#[cfg(test)]
mod tests {
    use super::super::error::ErrorObject;
    use super::*;

    /// The fields are those of PostgreSQL's documentation, chapter 55.8, in the order in which PostgreSQL sends them.
    #[test]
    fn golden_bytes_of_an_error() {
        let object = ErrorObject {
            schema: Some("main".to_owned()),
            table: Some("t\0".to_owned()),
            column: Some("a".to_owned()),
            data_type: Some("int8".to_owned()),
            constraint: Some("t_pkey".to_owned()),
        };
        let error = SqlError::new(SqlState::UNIQUE_VIOLATION, "twice")
            .with_detail("Key (a) already exists.")
            .with_hint("Choose another.")
            .with_context("COPY t, line 2")
            .with_object(object);
        let mut bytes = BytesMut::new();
        put_error(&mut bytes, &error).unwrap();
        let body = "SERROR\0VERROR\0C23505\0Mtwice\0DKey (a) already exists.\0HChoose another.\0WCOPY t, line 2\0\
                    smain\0tt\u{fffd}\0ca\0dint8\0nt_pkey\0\0";
        let length = u8::try_from(body.len() + 4).unwrap();
        assert_eq!(bytes, [&[b'E', 0, 0, 0, length], body.as_bytes()].concat());
    }

    #[test]
    fn names_that_are_not_known_have_no_field() {
        let table = ErrorObject { table: Some("t".to_owned()), ..ErrorObject::default() };
        let named = |object| fields(&SqlError::new(SqlState::CHECK_VIOLATION, "no").with_object(object)).split_off(4);
        assert_eq!(named(table), [(b't', "t".to_owned())]);
        assert_eq!(named(ErrorObject::default()), []);
        // Each result of the server has room for an error; that stays so.
        assert!(size_of::<SqlError>() < 128);
    }
}
