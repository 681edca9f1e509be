//! The functions behind casts: each makes a value of its type, in the form that this type is stored in, or fails as PostgreSQL
//! does.

use mainstay::server::pg::{PgType, stored_text, timestamp_micros, timestamp_text};
use rusqlite::Result;
use rusqlite::types::{Value, ValueRef};

use super::{Arguments, Known, failed, known, no_cast, utf8};

/// Of more digits behind the second, there is nothing to round.
const SECOND_DIGITS: u32 = 6;

pub(super) const CASTS: &[Known] = &[
    known("bool_in", 1, PgType::BOOL, |given| boolean(given.get(0))),
    known("int2_in", 1, PgType::INT2, |given| ranged(given.get(0), "smallint", i16::MIN.into()..=i16::MAX.into())),
    known("int4_in", 1, PgType::INT4, |given| ranged(given.get(0), "integer", i32::MIN.into()..=i32::MAX.into())),
    known("int8_in", 1, PgType::INT8, |given| integer(given.get(0), "bigint")),
    known("float8_in", 1, PgType::FLOAT8, |given| float8(given.get(0))),
    known("numeric_in", 1, PgType::NUMERIC, |given| numeric(given.get(0))),
    known("bytea_in", 1, PgType::BYTEA, |given| bytea(given.get(0))),
    known("uuid_in", 1, PgType::UUID, |given| stored(given, PgType::UUID, "uuid")),
    known("date_in", 1, PgType::DATE, date),
    known("time_in", 1, PgType::TIME, clock),
    known("timestamp_in", -1, PgType::TIMESTAMP, |given| moment(given, "timestamp", false)),
    known("timestamptz_in", -1, PgType::TIMESTAMPTZ, |given| moment(given, "timestamp with time zone", true)),
    known("json_in", 1, PgType::JSON, json),
];

fn invalid(name: &str, text: &str) -> rusqlite::Error {
    failed(format!("invalid input syntax for type {name}: \"{text}\""))
}

fn out_of_range(name: &str, value: impl std::fmt::Display) -> rusqlite::Error {
    failed(format!("value \"{value}\" is out of range for type {name}"))
}

fn boolean(value: ValueRef<'_>) -> Result<Value> {
    let text = match value {
        ValueRef::Null => return Ok(Value::Null),
        ValueRef::Integer(number) => return Ok(i64::from(number != 0).into()),
        ValueRef::Real(_) => return Err(no_cast("double precision", "boolean")),
        ValueRef::Blob(_) => return Err(no_cast("bytea", "boolean")),
        ValueRef::Text(text) => utf8(text)?,
    };
    let word = text.trim().to_ascii_lowercase();
    let begins = |whole: &[&str]| whole.iter().any(|whole| !word.is_empty() && whole.starts_with(word.as_str()));
    match word.as_str() {
        "on" | "1" => Ok(Value::Integer(1)),
        "of" | "off" | "0" => Ok(Value::Integer(0)),
        _ if begins(&["true", "yes"]) => Ok(Value::Integer(1)),
        _ if begins(&["false", "no"]) => Ok(Value::Integer(0)),
        _ => Err(invalid("boolean", text)),
    }
}

fn ranged(value: ValueRef<'_>, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Value> {
    match integer(value, name)? {
        Value::Integer(number) if !range.contains(&number) => Err(out_of_range(name, number)),
        number => Ok(number),
    }
}

/// A fraction is rounded, its half away from zero, as PostgreSQL does with decimals.
pub(super) fn integer(value: ValueRef<'_>, name: &str) -> Result<Value> {
    // The first that is too large.
    const END: f64 = 9_223_372_036_854_775_808.0;
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(number.into()),
        ValueRef::Real(number) => {
            let rounded = number.round();
            let fits = (-END..END).contains(&rounded);
            if fits { Ok(Value::Integer(rounded as i64)) } else { Err(out_of_range(name, number)) }
        }
        ValueRef::Text(text) => {
            let text = utf8(text)?;
            let trimmed = text.trim_ascii();
            let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number {
                return Err(invalid(name, text));
            }
            trimmed.parse().map(Value::Integer).map_err(|_| out_of_range(name, trimmed))
        }
        ValueRef::Blob(_) => Err(no_cast("bytea", name)),
    }
}

pub(super) fn float8(value: ValueRef<'_>) -> Result<Value> {
    match numeric_as(value, "double precision")? {
        Value::Integer(number) => Ok((number as f64).into()),
        other => Ok(other),
    }
}

pub(super) fn numeric(value: ValueRef<'_>) -> Result<Value> {
    numeric_as(value, "numeric")
}

fn numeric_as(value: ValueRef<'_>, name: &str) -> Result<Value> {
    let text = match value {
        ValueRef::Null => return Ok(Value::Null),
        ValueRef::Integer(number) => return Ok(number.into()),
        ValueRef::Real(number) => return Ok(number.into()),
        ValueRef::Blob(_) => return Err(no_cast("bytea", name)),
        ValueRef::Text(text) => utf8(text)?,
    };
    let trimmed = text.trim_ascii();
    match trimmed.to_ascii_lowercase().as_str() {
        "nan" => return Err(failed("NaN is not supported: SQLite has no such value")),
        "infinity" | "+infinity" | "inf" | "+inf" => return Ok(f64::INFINITY.into()),
        "-infinity" | "-inf" => return Ok(f64::NEG_INFINITY.into()),
        _ => {}
    }
    if let Ok(number) = trimmed.parse::<i64>() {
        return Ok(number.into());
    }
    match trimmed.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number.into()),
        // All words for these were above.
        Ok(number) if number.is_infinite() && trimmed.bytes().any(|byte| byte.is_ascii_digit()) => {
            Err(out_of_range(name, trimmed))
        }
        _ => Err(invalid(name, text)),
    }
}

/// Hexadecimal digits behind `\x`, or characters of which a backslash makes others.
fn bytea(value: ValueRef<'_>) -> Result<Value> {
    let text = match value {
        ValueRef::Null => return Ok(Value::Null),
        ValueRef::Blob(bytes) => return Ok(bytes.to_vec().into()),
        ValueRef::Integer(_) => return Err(no_cast("integer", "bytea")),
        ValueRef::Real(_) => return Err(no_cast("double precision", "bytea")),
        ValueRef::Text(text) => utf8(text)?,
    };
    let bytes = match text.strip_prefix("\\x") {
        Some(digits) => from_hex(digits),
        None => from_escapes(text.as_bytes()),
    };
    bytes.map(Value::Blob).ok_or_else(|| invalid("bytea", text))
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = digits.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let pair = |pair: &[char]| match pair {
        [high, low] => u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok(),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

/// `\\` is a backslash, `\ooo` the byte of that octal number.
fn from_escapes(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (b'\\', [b'\\', behind @ ..]) => {
                bytes.push(b'\\');
                behind
            }
            (b'\\', [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', behind @ ..]) => {
                bytes.push((high - b'0') * 64 + (middle - b'0') * 8 + (low - b'0'));
                behind
            }
            (b'\\', _) => return None,
            _ => {
                bytes.push(*first);
                behind
            }
        };
    }
    Some(bytes)
}

/// The text of an argument that must be one; `None` for NULL.
fn text_of(given: &Arguments<'_>, name: &str) -> Result<Option<String>> {
    match given.get(0) {
        ValueRef::Integer(_) => Err(no_cast("integer", name)),
        ValueRef::Real(_) => Err(no_cast("double precision", name)),
        ValueRef::Blob(_) => Err(no_cast("bytea", name)),
        ValueRef::Null | ValueRef::Text(_) => given.text(0),
    }
}

fn stored(given: &Arguments<'_>, pg_type: PgType, name: &str) -> Result<Value> {
    let Some(text) = text_of(given, name)? else { return Ok(Value::Null) };
    let plain = text.trim_ascii().trim_start_matches('{').trim_end_matches('}');
    stored_text(plain, pg_type).map(Value::Text).ok_or_else(|| invalid(name, &text))
}

/// A day, of a day or a timestamp.
fn date(given: &Arguments<'_>) -> Result<Value> {
    let Some(text) = text_of(given, "date")? else { return Ok(Value::Null) };
    let moment = stored_text(&text, PgType::TIMESTAMP).filter(|moment| !moment.ends_with("infinity"));
    let day = moment.and_then(|moment| moment.get(..10).map(str::to_owned));
    day.map(Value::Text).ok_or_else(|| invalid("date", &text))
}

/// A time of day, of one or of a timestamp.
fn clock(given: &Arguments<'_>) -> Result<Value> {
    let Some(text) = text_of(given, "time")? else { return Ok(Value::Null) };
    let of_moment = || {
        let micros = timestamp_micros(text.trim_ascii(), false).filter(|micros| !is_infinite(*micros))?;
        Some(timestamp_text(micros)?.get(11..)?.to_owned())
    };
    stored_text(&text, PgType::TIME).or_else(of_moment).map(Value::Text).ok_or_else(|| invalid("time", &text))
}

fn is_infinite(micros: i64) -> bool {
    matches!(micros, i64::MIN | i64::MAX)
}

/// A timestamp, of a timestamp or a day; rounded to as many digits behind the second as the second argument says.
fn moment(given: &Arguments<'_>, name: &str, zoned: bool) -> Result<Value> {
    let Some(text) = text_of(given, name)? else { return Ok(Value::Null) };
    let micros = timestamp_micros(text.trim_ascii(), zoned).ok_or_else(|| invalid(name, &text))?;
    let digits = match given.get(1) {
        ValueRef::Integer(digits) => u32::try_from(digits).unwrap_or(SECOND_DIGITS).min(SECOND_DIGITS),
        _ => SECOND_DIGITS,
    };
    let unit = 10_i64.pow(SECOND_DIGITS - digits);
    let rounded = if is_infinite(micros) { micros } else { (micros + unit / 2).div_euclid(unit) * unit };
    timestamp_text(rounded).map(Value::Text).ok_or_else(|| out_of_range(name, &text))
}

fn json(given: &Arguments<'_>) -> Result<Value> {
    let Some(text) = text_of(given, "json")? else { return Ok(Value::Null) };
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) => Ok(text.into()),
        Err(_) => Err(invalid("json", &text)),
    }
}
