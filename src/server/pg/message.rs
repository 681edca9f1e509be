//! Reading the bodies of the client's messages.
//!
//! Done here and not by `pgwire`, whose readers panic on truncated bodies, put up with a missing terminator and
//! repair text that is not UTF-8: a statement would then run that nobody sent. Every read is checked, a count is
//! believed only as far as bytes are there, and a body must end where its message does.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};

use super::error::{SqlError, SqlState};
use super::frame::{Frame, Kind};
use super::types::PgType;

/// A message of a connected client.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    Query(String),
    Parse { name: String, sql: String, parameter_types: Vec<PgType> },
    Bind(Bind),
    Describe(Target),
    Execute { portal: String, row_limit: i32 },
    Close(Target),
    Flush,
    Sync,
    Terminate,
    FunctionCall,
    Copy,
}

/// What Bind makes a portal of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    pub(super) parameter_formats: Vec<i16>,
    pub(super) parameters: Vec<Option<Bytes>>,
    pub(super) result_formats: Vec<i16>,
}

/// What Describe and Close are about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    Statement(String),
    Portal(String),
}

/// What a client sends before it is connected.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Startup {
    /// It would like TLS.
    Tls,
    /// It would like GSSAPI encryption.
    GssEncryption,
    /// It wants what another connection runs to stop.
    Cancel { process_id: i32, secret: i32 },
    /// It wants to be connected.
    Connect { major: u16, minor: u16, parameters: BTreeMap<String, String> },
}

const SSL_REQUEST: i32 = 80_877_103;
const GSS_ENCRYPTION_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;

/// The longest name of a statement or portal.
const NAME_LIMIT_BYTES: usize = 1024;

/// Reads a frame's body.
///
/// # Errors
/// 08P01 for a body that is not one of its kind, 22021 for text that is not UTF-8, 42622 for a name that is too long. The frame's end is known, so the
/// connection can go on.
pub(super) fn read(frame: Frame) -> Result<Message, SqlError> {
    let mut body = Body(frame.body);
    let message = match frame.kind {
        Kind::Query => Message::Query(body.text()?),
        Kind::Parse => {
            let (name, sql) = (body.name()?, body.text()?);
            let count = body.u16()?;
            let parameter_types = body.many(count, |body| Ok(PgType(body.u32()?)))?;
            Message::Parse { name, sql, parameter_types }
        }
        Kind::Bind => Message::Bind(bind(&mut body)?),
        Kind::Describe => Message::Describe(target(&mut body)?),
        Kind::Execute => Message::Execute { portal: body.name()?, row_limit: body.u32()?.cast_signed() },
        Kind::Close => Message::Close(target(&mut body)?),
        Kind::Flush => Message::Flush,
        Kind::Sync => Message::Sync,
        Kind::Terminate => Message::Terminate,
        // Refused or passed over whatever they hold.
        Kind::FunctionCall => return Ok(Message::FunctionCall),
        Kind::CopyData | Kind::CopyDone | Kind::CopyFail => return Ok(Message::Copy),
    };
    body.end()?;
    Ok(message)
}

/// Reads why a client ends its COPY in failure.
///
/// # Errors
/// As [`read`].
pub(super) fn copy_failure(frame: Frame) -> Result<String, SqlError> {
    let mut body = Body(frame.body);
    let reason = body.text()?;
    body.end()?;
    Ok(reason)
}

fn bind(body: &mut Body) -> Result<Bind, SqlError> {
    let (portal, statement) = (body.name()?, body.name()?);
    let count = body.u16()?;
    let parameter_formats = body.many(count, Body::i16)?;
    let count = body.u16()?;
    let parameters = body.many(count, Body::value)?;
    let count = body.u16()?;
    let result_formats = body.many(count, Body::i16)?;
    Ok(Bind { portal, statement, parameter_formats, parameters, result_formats })
}

fn target(body: &mut Body) -> Result<Target, SqlError> {
    match body.u8()? {
        b'S' => Ok(Target::Statement(body.name()?)),
        b'P' => Ok(Target::Portal(body.name()?)),
        other => Err(violation(format!("neither a statement nor a portal: {other}"))),
    }
}

/// Reads the first message of an authentication: the mechanism that the client chose, and what it says first.
///
/// # Errors
/// It is not one; the connection cannot go on.
pub(super) fn read_sasl_initial(body: Bytes) -> Result<(String, Bytes), SqlError> {
    let mut body = Body(body);
    let mechanism = body.text()?;
    let data = body.value()?.unwrap_or_default();
    body.end()?;
    Ok((mechanism, data))
}

/// Reads a startup packet's body (what follows its length).
///
/// # Errors
/// It is not one; the connection cannot go on.
pub(super) fn read_startup(body: Bytes) -> Result<Startup, SqlError> {
    let mut body = Body(body);
    let code = body.u32()?.cast_signed();
    let startup = match code {
        SSL_REQUEST => Startup::Tls,
        GSS_ENCRYPTION_REQUEST => Startup::GssEncryption,
        CANCEL_REQUEST => Startup::Cancel { process_id: body.u32()?.cast_signed(), secret: body.u32()?.cast_signed() },
        _ => {
            let version = code.cast_unsigned();
            let (major, minor) = ((version >> 16) as u16, (version & 0xffff) as u16);
            // Only version 3 is known to have parameters of this form.
            let parameters = if major == 3 { parameters(&mut body)? } else { BTreeMap::new() };
            return Ok(Startup::Connect { major, minor, parameters });
        }
    };
    body.end()?;
    Ok(startup)
}

fn parameters(body: &mut Body) -> Result<BTreeMap<String, String>, SqlError> {
    let mut parameters = BTreeMap::new();
    loop {
        let name = body.text()?;
        if name.is_empty() {
            body.end()?;
            return Ok(parameters);
        }
        let value = body.text()?;
        parameters.insert(name, value);
    }
}

/// A body that is being read, front to back.
struct Body(Bytes);

impl Body {
    /// Makes sure of `count` more bytes: the readers of `bytes` panic without them.
    fn need(&self, count: usize) -> Result<(), SqlError> {
        if self.0.len() < count { Err(violation("insufficient data left in message")) } else { Ok(()) }
    }

    fn u8(&mut self) -> Result<u8, SqlError> {
        self.need(1).map(|()| self.0.get_u8())
    }

    fn u16(&mut self) -> Result<u16, SqlError> {
        self.need(2).map(|()| self.0.get_u16())
    }

    fn i16(&mut self) -> Result<i16, SqlError> {
        self.need(2).map(|()| self.0.get_i16())
    }

    fn u32(&mut self) -> Result<u32, SqlError> {
        self.need(4).map(|()| self.0.get_u32())
    }

    /// Text up to a zero byte.
    fn text(&mut self) -> Result<String, SqlError> {
        let Some(end) = self.0.iter().position(|&byte| byte == 0) else {
            return Err(violation("invalid string in message"));
        };
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(not_utf8(error)),
        }
    }

    /// The name of a statement or portal. It is kept, and repeated in errors.
    fn name(&mut self) -> Result<String, SqlError> {
        let name = self.text()?;
        if name.len() > NAME_LIMIT_BYTES {
            let message =
                format!("a name of {} bytes is longer than the limit of {NAME_LIMIT_BYTES} bytes", name.len());
            return Err(SqlError::new(SqlState::NAME_TOO_LONG, message));
        }
        Ok(name)
    }

    /// A length and so many bytes; a negative length stands for NULL.
    fn value(&mut self) -> Result<Option<Bytes>, SqlError> {
        let length = self.u32()?.cast_signed();
        match usize::try_from(length) {
            Ok(length) => self.need(length).map(|()| Some(self.0.split_to(length))),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(violation("invalid length of a parameter")),
        }
    }

    /// `count` items. Memory is taken as they turn out to be there, not by their count.
    fn many<T>(&mut self, count: u16, read: fn(&mut Body) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn end(&self) -> Result<(), SqlError> {
        if self.0.is_empty() { Ok(()) } else { Err(violation("invalid message format")) }
    }
}

/// What a client is told whose text is not UTF-8.
pub(super) fn not_utf8(error: std::str::Utf8Error) -> SqlError {
    SqlError::new(
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        format!("invalid byte sequence for encoding \"UTF8\" at byte {}", error.valid_up_to()),
    )
}

fn violation(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, message)
}

#[cfg(test)]
#[path = "message_test.rs"]
mod tests;
