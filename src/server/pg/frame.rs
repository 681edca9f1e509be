//! Cutting the client's bytes into frames, within bounds.
//!
//! A frame is a type byte, a length that counts itself, and a body. Nothing here trusts the client: a length is
//! checked before a byte of its body is waited for, so memory grows with what has arrived and never with what was
//! promised. Bodies are read in [`super::message`].

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::error::{SqlError, SqlState};

/// A frame's length field counts itself.
const LENGTH_FIELD_BYTES: usize = 4;
/// A type byte and the length field.
pub(super) const HEADER_BYTES: usize = 1 + LENGTH_FIELD_BYTES;
/// The largest startup packet, as in PostgreSQL.
pub(super) const STARTUP_LIMIT_BYTES: usize = 10_000;
/// The largest message of an authentication. Those of SCRAM have a few hundred bytes.
const PASSWORD_LIMIT_BYTES: usize = 8192;
/// The smallest startup packet: its length and a code.
const STARTUP_MINIMUM_BYTES: usize = 8;
/// So many messages are handed over at once. More are left in the buffer for the next round.
const BATCH_LIMIT: usize = 1024;

/// What a client may send once it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    Flush,
    Sync,
    Terminate,
    FunctionCall,
    CopyData,
    CopyDone,
    CopyFail,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        Some(match byte {
            b'Q' => Kind::Query,
            b'P' => Kind::Parse,
            b'B' => Kind::Bind,
            b'D' => Kind::Describe,
            b'E' => Kind::Execute,
            b'C' => Kind::Close,
            b'H' => Kind::Flush,
            b'S' => Kind::Sync,
            b'X' => Kind::Terminate,
            b'F' => Kind::FunctionCall,
            b'd' => Kind::CopyData,
            b'c' => Kind::CopyDone,
            b'f' => Kind::CopyFail,
            _ => return None,
        })
    }

    /// Whether the client waits for an answer after it.
    fn ends_batch(self) -> bool {
        matches!(self, Kind::Query | Kind::Sync | Kind::Terminate | Kind::FunctionCall)
    }

    /// Whether more data of a COPY may follow it. Flush and Sync are passed over there, as in PostgreSQL.
    pub(super) fn goes_on_copying(self) -> bool {
        matches!(self, Kind::CopyData | Kind::Flush | Kind::Sync)
    }
}

/// One message, whole, its body not yet read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) body: Bytes,
}

/// Takes the next frame out of `input`, or nothing if it is not whole yet.
///
/// # Errors
/// What follows cannot be a frame. The stream has no next frame to resume at, so the error is fatal.
pub(super) fn take_frame(input: &mut BytesMut, limit_bytes: usize) -> Result<Option<Frame>, SqlError> {
    let Some(&type_byte) = input.first() else { return Ok(None) };
    let Some(kind) = Kind::of(type_byte) else {
        return Err(violation(format!("invalid frontend message type {type_byte}")));
    };
    let Some(length_bytes) = input.get(1..HEADER_BYTES) else { return Ok(None) };
    let length = usize::try_from((&mut &*length_bytes).get_i32()).unwrap_or(0);
    if length < LENGTH_FIELD_BYTES {
        return Err(violation("invalid message length"));
    }
    if length > limit_bytes {
        return Err(SqlError::fatal(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("message of {length} bytes is larger than the limit of {limit_bytes} bytes"),
        ));
    }
    if input.len() < 1 + length {
        return Ok(None);
    }
    let mut frame = input.split_to(1 + length);
    frame.advance(HEADER_BYTES);
    Ok(Some(Frame { kind, body: frame.freeze() }))
}

/// Messages that are handled in one go.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) frames: VecDeque<Frame>,
    /// What followed them and was no frame: the connection ends with it.
    pub(super) fault: Option<SqlError>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.fault.is_none()
    }
}

/// Whether [`take_frame`] has something to say about `input`.
pub(super) fn is_decided(input: &[u8], limit_bytes: usize) -> bool {
    let Some(&type_byte) = input.first() else { return false };
    let Some(length_bytes) = input.get(1..HEADER_BYTES) else { return Kind::of(type_byte).is_none() };
    let length = usize::try_from((&mut &*length_bytes).get_i32()).unwrap_or(0);
    let impossible = Kind::of(type_byte).is_none() || length < LENGTH_FIELD_BYTES || length > limit_bytes;
    impossible || input.len() > length
}

/// Takes the whole frames out of `input` that are data of a COPY, up to the one that is its end.
pub(super) fn take_copy(input: &mut BytesMut, limit_bytes: usize) -> Batch {
    take_until(input, limit_bytes, |kind| !kind.goes_on_copying())
}

/// Takes all whole frames out of `input`, up to the one after which the client waits for an answer.
pub(super) fn take_batch(input: &mut BytesMut, limit_bytes: usize) -> Batch {
    take_until(input, limit_bytes, Kind::ends_batch)
}

fn take_until(input: &mut BytesMut, limit_bytes: usize, is_last: fn(Kind) -> bool) -> Batch {
    let mut batch = Batch::default();
    while batch.frames.len() < BATCH_LIMIT {
        match take_frame(input, limit_bytes) {
            Ok(Some(frame)) => {
                let last = is_last(frame.kind);
                batch.frames.push_back(frame);
                if last {
                    break;
                }
            }
            Ok(None) => break,
            Err(fault) => {
                batch.fault = Some(fault);
                break;
            }
        }
    }
    batch
}

/// Takes the next startup packet's body (what follows its length) out of `input`, or nothing if it is not whole yet.
///
/// # Errors
/// What follows cannot be a startup packet.
pub(super) fn take_startup(input: &mut BytesMut) -> Result<Option<Bytes>, SqlError> {
    let Some(length_bytes) = input.get(..LENGTH_FIELD_BYTES) else { return Ok(None) };
    let length = usize::try_from((&mut &*length_bytes).get_i32()).unwrap_or(0);
    if !(STARTUP_MINIMUM_BYTES..=STARTUP_LIMIT_BYTES).contains(&length) {
        return Err(violation("invalid length of startup packet"));
    }
    if input.len() < length {
        return Ok(None);
    }
    let mut packet = input.split_to(length);
    packet.advance(LENGTH_FIELD_BYTES);
    Ok(Some(packet.freeze()))
}

/// Takes the body of the next message of an authentication out of `input`, or nothing if it is not whole yet.
///
/// # Errors
/// What follows is something else, or too long.
pub(super) fn take_password(input: &mut BytesMut) -> Result<Option<Bytes>, SqlError> {
    let Some(&type_byte) = input.first() else { return Ok(None) };
    if type_byte != b'p' {
        return Err(violation(format!("expected SASL response, got message type {type_byte}")));
    }
    let Some(length_bytes) = input.get(1..HEADER_BYTES) else { return Ok(None) };
    let length = usize::try_from((&mut &*length_bytes).get_i32()).unwrap_or(0);
    if !(LENGTH_FIELD_BYTES..=PASSWORD_LIMIT_BYTES).contains(&length) {
        return Err(violation("invalid length of SASL response"));
    }
    if input.len() < 1 + length {
        return Ok(None);
    }
    let mut body = input.split_to(1 + length);
    body.advance(HEADER_BYTES);
    Ok(Some(body.freeze()))
}

fn violation(message: impl Into<String>) -> SqlError {
    SqlError::fatal(SqlState::PROTOCOL_VIOLATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_BYTES: usize = 100;

    #[test]
    fn frame_is_taken_only_when_whole() {
        let whole = b"Q\0\0\0\x06a\0rest";
        for end in 0..7 {
            let mut input = BytesMut::from(&whole[..end]);
            assert!(take_frame(&mut input, LIMIT_BYTES).unwrap().is_none());
            assert_eq!(input.len(), end);
        }
        let mut input = BytesMut::from(&whole[..]);
        let frame = take_frame(&mut input, LIMIT_BYTES).unwrap().unwrap();
        assert_eq!((frame.kind, &frame.body[..]), (Kind::Query, &b"a\0"[..]));
        assert_eq!(&input[..], b"rest");
    }

    #[test]
    fn impossible_lengths_are_refused_before_the_body_arrives() {
        for (bytes, state) in [
            (&b"Q\0\0\0\x03"[..], SqlState::PROTOCOL_VIOLATION),
            (b"Q\xff\xff\xff\xff", SqlState::PROTOCOL_VIOLATION),
            (b"Q\0\0\0\x65", SqlState::PROGRAM_LIMIT_EXCEEDED),
            (b"Q\x7f\xff\xff\xff", SqlState::PROGRAM_LIMIT_EXCEEDED),
            (b"z", SqlState::PROTOCOL_VIOLATION),
        ] {
            let error = take_frame(&mut BytesMut::from(bytes), LIMIT_BYTES).unwrap_err();
            assert_eq!(error.state, state, "{bytes:?}");
        }
    }

    #[test]
    fn batch_ends_where_the_client_waits() {
        let mut input = BytesMut::from(&b"P\0\0\0\x04H\0\0\0\x04S\0\0\0\x04S\0\0\0\x04z"[..]);
        let kinds = |batch: &Batch| batch.frames.iter().map(|frame| frame.kind).collect::<Vec<_>>();
        let first = take_batch(&mut input, LIMIT_BYTES);
        assert_eq!(kinds(&first), [Kind::Parse, Kind::Flush, Kind::Sync]);
        assert_eq!(kinds(&take_batch(&mut input, LIMIT_BYTES)), [Kind::Sync]);
        assert!(take_batch(&mut input, LIMIT_BYTES).fault.is_some());
    }

    #[test]
    fn messages_of_an_authentication_have_bounds() {
        for bytes in [&b"Q"[..], b"p\0\0\0\x03", b"p\0\0\x20\x01", b"p\xff\xff\xff\xff"] {
            assert!(take_password(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
        let whole = b"p\0\0\0\x06abrest";
        for end in 0..7 {
            assert!(take_password(&mut BytesMut::from(&whole[..end])).unwrap().is_none());
        }
        let mut input = BytesMut::from(&whole[..]);
        assert_eq!(&take_password(&mut input).unwrap().unwrap()[..], b"ab");
        assert_eq!(&input[..], b"rest");
    }

    #[test]
    fn startup_packet_has_bounds() {
        for bytes in [&b"\0\0\0\x07"[..], b"\0\0\x27\x11", b"\xff\xff\xff\xff", b"GET / HTTP/1.1"] {
            assert!(take_startup(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
        assert!(take_startup(&mut BytesMut::from(&b"\0\0\0\x08abc"[..])).unwrap().is_none());
        let mut input = BytesMut::from(&b"\0\0\0\x08abcdef"[..]);
        assert_eq!(&take_startup(&mut input).unwrap().unwrap()[..], b"abcd");
        assert_eq!(&input[..], b"ef");
    }
}
