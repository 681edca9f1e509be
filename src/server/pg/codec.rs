//! Values as bytes on the wire, in both of the protocol's formats. Nobody else makes or reads these bytes.
//!
//! | type | text | binary |
//! |---|---|---|
//! | `bool` | `t`, `f` | one byte, 0 or 1 |
//! | `int2`, `int4`, `int8` | decimal | 2, 4, 8 bytes, big endian |
//! | `float4`, `float8` | shortest decimal that reads back the same | IEEE 754, big endian |
//! | `bytea` | `\x` and hex digits | the bytes |
//! | `text`, `varchar`, `json`, `unknown` | the text | the text |
//! | `jsonb` | the text | the text behind a byte of 1 |
//! | `numeric` | decimal | see `numeric` |
//! | `date`, `time`, `timestamp`, `timestamptz`, `uuid` | as PostgreSQL writes them; what is none, as it is | see `temporal` |
//! | others | the text | none |
//!
//! Text of a client that is no date, time, UUID or decimal number is kept as it is where an engine takes such values
//! ([`decode_text`]), and an error where it does not ([`parse_text`]).
//!
//! An engine may announce a type and hold a value of another kind. Text then carries the value as it is; binary, which
//! the client would misread, is refused.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};

use super::error::{SqlError, SqlState};
use super::message::not_utf8;
use super::types::{OwnedValue, PgType, Value};

mod numeric;
mod temporal;

pub use temporal::{stored as stored_text, timestamp as timestamp_micros, timestamp_text};

/// What stands before the text of a `jsonb` in binary.
const JSONB_VERSION: u8 = 1;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

impl Format {
    /// # Errors
    /// The protocol has no such format.
    pub(super) fn from_code(code: i16) -> Result<Format, SqlError> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            _ => Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, format!("unsupported format code: {code}"))),
        }
    }

    pub(super) const fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }

    /// The format of item `index`: none given means text, one given is that of all.
    ///
    /// # Errors
    /// There are more codes than one and none for this item, or it is no format.
    pub(super) fn of_item(codes: &[i16], index: usize) -> Result<Format, SqlError> {
        match codes {
            [] => Ok(Format::Text),
            [all] => Format::from_code(*all),
            several => match several.get(index) {
                Some(code) => Format::from_code(*code),
                None => Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, "a format code for each item or one for all")),
            },
        }
    }
}

/// The type that a client is told: what has none is text.
pub(super) const fn told(pg_type: PgType) -> PgType {
    match pg_type {
        PgType::UNSPECIFIED => PgType::TEXT,
        other => other,
    }
}

/// The size of a type's values in bytes; negative if they vary.
pub(super) const fn type_size(pg_type: PgType) -> i16 {
    match pg_type {
        PgType::BOOL => 1,
        PgType::INT2 => 2,
        PgType::INT4 | PgType::FLOAT4 | PgType::OID | PgType::DATE => 4,
        PgType::INT8 | PgType::FLOAT8 | PgType::TIME | PgType::TIMESTAMP | PgType::TIMESTAMPTZ => 8,
        PgType::UUID => 16,
        PgType::CHAR => 1,
        PgType::NAME => 64,
        _ => -1,
    }
}

const fn is_text(pg_type: PgType) -> bool {
    matches!(
        pg_type,
        PgType::TEXT
            | PgType::VARCHAR
            | PgType::JSON
            | PgType::UNKNOWN
            | PgType::UNSPECIFIED
            | PgType::NAME
            | PgType::CHAR
    )
}

/// Whether values of a type can be written in a format.
///
/// # Errors
/// 0A000 for binary of a type that this module does not know.
pub(super) fn check_format(pg_type: PgType, format: Format) -> Result<(), SqlError> {
    let varying = matches!(pg_type, PgType::BYTEA | PgType::NUMERIC | PgType::JSONB);
    let known = is_text(pg_type) || varying || type_size(pg_type) > 0;
    if known || format == Format::Text {
        return Ok(());
    }
    let message = format!("there is no binary format for the type with OID {}", pg_type.0);
    Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message).with_hint("Ask for the text format."))
}

/// Appends a value's length and bytes to `out`.
///
/// # Errors
/// The value does not fit the type: `out` may then hold a part of it, which the caller cuts off.
pub(super) fn encode(value: Value<'_>, pg_type: PgType, format: Format, out: &mut BytesMut) -> Result<(), SqlError> {
    if value == Value::Null {
        out.put_i32(-1);
        return Ok(());
    }
    let start = out.len();
    out.put_i32(0);
    match format {
        Format::Binary if !is_text(pg_type) => encode_binary(value, pg_type, out)?,
        _ => encode_text(value, pg_type, out)?,
    }
    let length = i32::try_from(out.len() - start - 4)
        .map_err(|_| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "a value is larger than a row may be"))?;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// Appends a value as text.
///
/// # Errors
/// It does not fit the type.
pub(super) fn encode_text(value: Value<'_>, pg_type: PgType, out: &mut BytesMut) -> Result<(), SqlError> {
    match value {
        Value::Null => {}
        Value::Integer(0) if pg_type == PgType::BOOL => out.put_u8(b'f'),
        Value::Integer(1) if pg_type == PgType::BOOL => out.put_u8(b't'),
        Value::Integer(integer) => write(out, format_args!("{integer}")),
        Value::Real(real) if pg_type == PgType::FLOAT4 => put_float4(narrow(real)?, out),
        Value::Real(real) => put_float8(real, out),
        Value::Text(text) if pg_type == PgType::BYTEA => put_hex(text.as_bytes(), out),
        Value::Text(text) if temporal::knows(pg_type) => {
            let told = temporal::told(text, pg_type);
            out.put_slice(told.as_deref().unwrap_or(text).as_bytes());
        }
        Value::Text(text) => out.put_slice(text.as_bytes()),
        Value::Blob(bytes) => put_hex(bytes, out),
    }
    Ok(())
}

fn encode_binary(value: Value<'_>, pg_type: PgType, out: &mut BytesMut) -> Result<(), SqlError> {
    match (pg_type, value) {
        (PgType::BOOL, Value::Integer(integer @ (0 | 1))) => out.put_u8(u8::from(integer == 1)),
        (PgType::INT2, Value::Integer(integer)) => out.put_i16(fit(integer, "smallint")?),
        (PgType::INT4, Value::Integer(integer)) => out.put_i32(fit(integer, "integer")?),
        (PgType::INT8, Value::Integer(integer)) => out.put_i64(integer),
        (PgType::OID, Value::Integer(integer)) => out.put_u32(fit(integer, "oid")?),
        (PgType::FLOAT4, Value::Real(real)) => out.put_f32(narrow(real)?),
        (PgType::FLOAT4, Value::Integer(integer)) => out.put_f32(narrow(exact(integer)?)?),
        (PgType::FLOAT8, Value::Real(real)) => out.put_f64(real),
        (PgType::FLOAT8, Value::Integer(integer)) => out.put_f64(exact(integer)?),
        (PgType::BYTEA, Value::Blob(bytes)) => out.put_slice(bytes),
        (PgType::BYTEA, Value::Text(text)) => out.put_slice(text.as_bytes()),
        (PgType::JSONB, Value::Text(text)) => {
            out.put_u8(JSONB_VERSION);
            out.put_slice(text.as_bytes());
        }
        (PgType::NUMERIC, Value::Integer(_) | Value::Real(_) | Value::Text(_)) => {
            let mut digits = BytesMut::new();
            encode_text(value, PgType::NUMERIC, &mut digits)?;
            let text = std::str::from_utf8(&digits).map_err(not_utf8)?;
            numeric::encode(text, out).ok_or_else(|| mismatch(value, pg_type))?;
        }
        (_, Value::Text(text)) if temporal::knows(pg_type) => {
            temporal::encode(text, pg_type, out).ok_or_else(|| mismatch(value, pg_type))?;
        }
        _ => {
            check_format(pg_type, Format::Binary)?;
            return Err(mismatch(value, pg_type));
        }
    }
    Ok(())
}

fn mismatch(value: Value<'_>, pg_type: PgType) -> SqlError {
    let kind = match value {
        Value::Null => "a NULL",
        Value::Integer(_) => "an integer",
        Value::Real(_) => "a real number",
        Value::Text(_) => "a text",
        Value::Blob(_) => "a blob",
    };
    let message = format!("{kind} has no binary form in a column of type {}", type_name(pg_type));
    SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, message)
        .with_hint("Cast it in the query, or ask for the text format.")
}

fn fit<T: TryFrom<i64>>(integer: i64, name: &str) -> Result<T, SqlError> {
    T::try_from(integer).map_err(|_| out_of_range(&integer.to_string(), name))
}

/// An integer as a real number, if there is one for it.
fn exact(integer: i64) -> Result<f64, SqlError> {
    let real = integer as f64;
    // Wider than i64, so that the rounded number is compared as it is.
    if real as i128 == i128::from(integer) {
        Ok(real)
    } else {
        Err(out_of_range(&integer.to_string(), "double precision"))
    }
}

/// A double as a single: it may lose digits, as the type says, but not its size.
fn narrow(real: f64) -> Result<f32, SqlError> {
    let single = real as f32;
    if single.is_infinite() && real.is_finite() { Err(out_of_range(&real.to_string(), "real")) } else { Ok(single) }
}

fn out_of_range(value: &str, name: &str) -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{value}\" is out of range for type {name}"))
}

fn type_name(pg_type: PgType) -> String {
    let name = match pg_type {
        PgType::BOOL => "boolean",
        PgType::BYTEA => "bytea",
        PgType::INT2 => "smallint",
        PgType::INT4 => "integer",
        PgType::INT8 => "bigint",
        PgType::OID => "oid",
        PgType::FLOAT4 => "real",
        PgType::FLOAT8 => "double precision",
        PgType::NUMERIC => "numeric",
        PgType::DATE => "date",
        PgType::TIME => "time",
        PgType::TIMESTAMP => "timestamp",
        PgType::TIMESTAMPTZ => "timestamp with time zone",
        PgType::UUID => "uuid",
        other => return format!("OID {}", other.0),
    };
    name.to_owned()
}

/// Writing to memory cannot fail.
fn write(out: &mut BytesMut, arguments: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(arguments);
}

fn put_hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + 2 * bytes.len());
    out.put_slice(b"\\x");
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}

/// From this decimal exponent on, PostgreSQL writes a double with an exponent.
const FLOAT8_EXPONENT_FROM: i32 = 15;
/// The same for a single.
const FLOAT4_EXPONENT_FROM: i32 = 6;
/// Below this decimal exponent, PostgreSQL writes an exponent.
const EXPONENT_BELOW: i32 = -4;

fn put_float8(real: f64, out: &mut BytesMut) {
    if real.is_finite() {
        put_shortest(&format!("{real:e}"), FLOAT8_EXPONENT_FROM, out);
    } else {
        put_special(real, out);
    }
}

fn put_float4(real: f32, out: &mut BytesMut) {
    if real.is_finite() {
        put_shortest(&format!("{real:e}"), FLOAT4_EXPONENT_FROM, out);
    } else {
        put_special(f64::from(real), out);
    }
}

fn put_special(real: f64, out: &mut BytesMut) {
    out.put_slice(if real.is_nan() {
        b"NaN"
    } else if real > 0.0 {
        b"Infinity"
    } else {
        b"-Infinity"
    });
}

/// Lays out Rust's shortest scientific form (`-1.25e-7`) as PostgreSQL would.
fn put_shortest(scientific: &str, exponent_from: i32, out: &mut BytesMut) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(EXPONENT_BELOW..exponent_from).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        write(out, format_args!("{mantissa}e{sign}{:02}", exponent.unsigned_abs()));
        return;
    }
    let unsigned = mantissa.strip_prefix('-').inspect(|_| out.put_u8(b'-')).unwrap_or(mantissa);
    let digits: Vec<u8> = unsigned.bytes().filter(u8::is_ascii_digit).collect();
    let Ok(whole) = usize::try_from(exponent + 1) else {
        return put_fraction(exponent, &digits, out);
    };
    if whole == 0 {
        return put_fraction(exponent, &digits, out);
    }
    for index in 0..whole.max(digits.len()) {
        if index == whole {
            out.put_u8(b'.');
        }
        out.put_u8(digits.get(index).copied().unwrap_or(b'0'));
    }
}

/// Digits of a number below one, whose first one stands at `exponent`.
fn put_fraction(exponent: i32, digits: &[u8], out: &mut BytesMut) {
    out.put_slice(b"0.");
    for _ in exponent..-1 {
        out.put_u8(b'0');
    }
    out.put_slice(digits);
}

/// Reads a parameter.
///
/// # Errors
/// 22P02 for text that is no value of the type, 22P03 for bytes that are none, 22003 for a number out of range, 22021
/// for text that is not UTF-8, 0A000 for a binary format that is not known here.
pub(super) fn decode(bytes: &[u8], pg_type: PgType, format: Format) -> Result<OwnedValue, SqlError> {
    match format {
        Format::Binary if !is_text(pg_type) => decode_binary(bytes, pg_type),
        _ => decode_text(std::str::from_utf8(bytes).map_err(not_utf8)?, pg_type),
    }
}

/// Reads a value in text.
///
/// # Errors
/// As [`decode`].
pub(super) fn decode_text(text: &str, pg_type: PgType) -> Result<OwnedValue, SqlError> {
    let trimmed = text.trim_ascii();
    Ok(match pg_type {
        PgType::BOOL => OwnedValue::Integer(i64::from(parse_bool(trimmed).ok_or_else(|| invalid_text(text, pg_type))?)),
        PgType::INT2 => OwnedValue::Integer(parse_integer(trimmed, pg_type, i64::from(i16::MIN), i64::from(i16::MAX))?),
        PgType::INT4 => OwnedValue::Integer(parse_integer(trimmed, pg_type, i64::from(i32::MIN), i64::from(i32::MAX))?),
        PgType::INT8 => OwnedValue::Integer(parse_integer(trimmed, pg_type, i64::MIN, i64::MAX)?),
        PgType::OID => OwnedValue::Integer(parse_integer(trimmed, pg_type, 0, i64::from(u32::MAX))?),
        PgType::FLOAT4 => OwnedValue::Real(f64::from(narrow(parse_real(trimmed, pg_type)?)?)),
        PgType::FLOAT8 => OwnedValue::Real(parse_real(trimmed, pg_type)?),
        PgType::BYTEA => OwnedValue::Blob(parse_bytea(text).ok_or_else(|| invalid_text(text, pg_type))?),
        PgType::NUMERIC => numeric::value(numeric::stored(text).unwrap_or_else(|| text.to_owned())),
        _ => OwnedValue::Text(temporal::stored(text, pg_type).unwrap_or_else(|| text.to_owned())),
    })
}

/// Reads a value in text that must be one of its type.
///
/// # Errors
/// As [`decode`], and 22007 for what is no date or time.
pub(super) fn parse_text(text: &str, pg_type: PgType) -> Result<OwnedValue, SqlError> {
    let stored = |pg_type| temporal::stored(text, pg_type);
    // A timestamp may stand for its day, as PostgreSQL takes it. One that is infinite has none.
    let moment = || stored(PgType::TIMESTAMP).filter(|moment| !moment.ends_with("infinity"));
    let part = |part: std::ops::Range<usize>| Some(moment()?.get(part)?.to_owned());
    let value = match pg_type {
        PgType::NUMERIC => numeric::stored(text).map(numeric::value),
        PgType::DATE => stored(pg_type).or_else(|| part(0..10)).map(OwnedValue::Text),
        PgType::UUID => {
            let plain = text.trim_ascii();
            let plain = plain.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(plain);
            temporal::stored(plain, pg_type).map(OwnedValue::Text)
        }
        _ if temporal::knows(pg_type) => stored(pg_type).map(OwnedValue::Text),
        _ => return decode_text(text, pg_type),
    };
    value.ok_or_else(|| invalid_text(text, pg_type))
}

fn invalid_text(text: &str, pg_type: PgType) -> SqlError {
    /// More of a client's text is not repeated to it.
    const SHOWN_CHARACTERS: usize = 64;
    let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    let message = format!("invalid input syntax for type {}: \"{shown}\"", type_name(pg_type));
    let is_moment = matches!(pg_type, PgType::DATE | PgType::TIME | PgType::TIMESTAMP | PgType::TIMESTAMPTZ);
    SqlError::new(
        if is_moment { SqlState::INVALID_DATETIME_FORMAT } else { SqlState::INVALID_TEXT_REPRESENTATION },
        message,
    )
}

fn parse_bool(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, at_least: usize| text.len() >= at_least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || text == "on" || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

fn parse_integer(text: &str, pg_type: PgType, least: i64, greatest: i64) -> Result<i64, SqlError> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match text.parse::<i64>() {
        Ok(integer) if (least..=greatest).contains(&integer) => Ok(integer),
        Ok(integer) => Err(out_of_range(&integer.to_string(), &type_name(pg_type))),
        Err(error) if matches!(error.kind(), PosOverflow | NegOverflow) => Err(out_of_range(text, &type_name(pg_type))),
        Err(_) => Err(invalid_text(text, pg_type)),
    }
}

fn parse_real(text: &str, pg_type: PgType) -> Result<f64, SqlError> {
    let real: f64 = text.parse().map_err(|_| invalid_text(text, pg_type))?;
    // Rust reads a number beyond the range as infinity; only the word may mean it.
    if real.is_infinite() && text.contains(|character: char| character.is_ascii_digit()) {
        return Err(out_of_range(text, &type_name(pg_type)));
    }
    Ok(real)
}

/// `\x` and hex digits, or the older form in which `\\` is a backslash and `\ooo` a byte in octal.
fn parse_bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        return parse_hex(digits);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', tail @ ..] => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                rest = tail;
            }
            [b'\\', ..] => return None,
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
}

/// Pairs of hex digits, with blanks between pairs if any.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut characters = text.bytes();
    while let Some(first) = characters.next() {
        if first.is_ascii_whitespace() {
            continue;
        }
        bytes.push(digit(first)? << 4 | digit(characters.next()?)?);
    }
    Some(bytes)
}

fn decode_binary(bytes: &[u8], pg_type: PgType) -> Result<OwnedValue, SqlError> {
    check_format(pg_type, Format::Binary)?;
    let invalid = || {
        let message = format!("{} bytes are no binary value of type {}", bytes.len(), type_name(pg_type));
        SqlError::new(SqlState::INVALID_BINARY_REPRESENTATION, message)
    };
    Ok(match pg_type {
        PgType::NUMERIC => numeric::value(numeric::decode(bytes).ok_or_else(invalid)?),
        PgType::JSONB => {
            let text = bytes.strip_prefix(&[JSONB_VERSION]).ok_or_else(invalid)?;
            OwnedValue::Text(std::str::from_utf8(text).map_err(not_utf8)?.to_owned())
        }
        known if temporal::knows(known) => OwnedValue::Text(temporal::decode(bytes, known).ok_or_else(invalid)?),
        PgType::BOOL => OwnedValue::Integer(i64::from(u8::from_be_bytes(array(bytes, pg_type)?) != 0)),
        PgType::INT2 => OwnedValue::Integer(i64::from(i16::from_be_bytes(array(bytes, pg_type)?))),
        PgType::INT4 => OwnedValue::Integer(i64::from(i32::from_be_bytes(array(bytes, pg_type)?))),
        PgType::INT8 => OwnedValue::Integer(i64::from_be_bytes(array(bytes, pg_type)?)),
        PgType::OID => OwnedValue::Integer(i64::from(u32::from_be_bytes(array(bytes, pg_type)?))),
        PgType::FLOAT4 => OwnedValue::Real(f64::from(f32::from_be_bytes(array(bytes, pg_type)?))),
        PgType::FLOAT8 => OwnedValue::Real(f64::from_be_bytes(array(bytes, pg_type)?)),
        _ => OwnedValue::Blob(bytes.to_vec()),
    })
}

fn array<const SIZE: usize>(bytes: &[u8], pg_type: PgType) -> Result<[u8; SIZE], SqlError> {
    bytes.try_into().map_err(|_| {
        let message = format!("{} bytes are no binary value of type {}", bytes.len(), type_name(pg_type));
        SqlError::new(SqlState::INVALID_BINARY_REPRESENTATION, message)
    })
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
