//! Functions that PostgreSQL has and SQLite does not, on every connection: on those that write and replay too, because views,
//! defaults, CHECKs, triggers, indexes and generated columns may call them.
//!
//! What they answer is part of what is stored: an index on `floor(x)` that replay makes must be the one that was made before.
//! So none may ever answer otherwise than it did. Those that cannot promise that, on every machine, say that they are not
//! deterministic, and SQLite takes them for no index and no generated column.
//!
//! The functions behind casts ([`casts`]) are called by what [`super::dialect`] writes.

use std::cmp::Ordering;

use mainstay::server::pg::{PgType, stored_text, timestamp_micros, timestamp_text};
use md5::{Digest, Md5};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};

use casts::CASTS;

mod casts;

/// A function.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// How many arguments it takes; negative for any number.
    arguments: i32,
    pub(super) returns: Returns,
    /// It answers the same whenever and wherever it is asked the same.
    is_deterministic: bool,
    run: fn(&Arguments<'_>) -> Result<Value>,
}

/// What type a function's results have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    Type(PgType),
    /// That of its arguments, if they have one.
    OneOf,
    /// A timestamp like its second argument, or with a time zone.
    Moment,
}

const fn known(name: &'static str, arguments: i32, returns: PgType, run: fn(&Arguments<'_>) -> Result<Value>) -> Known {
    Known { name, arguments, returns: Returns::Type(returns), is_deterministic: true, run }
}

const fn varying(
    name: &'static str,
    arguments: i32,
    returns: PgType,
    run: fn(&Arguments<'_>) -> Result<Value>,
) -> Known {
    Known { name, arguments, returns: Returns::Type(returns), is_deterministic: false, run }
}

const FUNCTIONS: &[Known] = &[
    known("floor", 1, PgType::FLOAT8, |given| given.real(f64::floor)),
    known("ceil", 1, PgType::FLOAT8, |given| given.real(f64::ceil)),
    known("ceiling", 1, PgType::FLOAT8, |given| given.real(f64::ceil)),
    known("sqrt", 1, PgType::FLOAT8, square_root),
    // The C library's, of which no two need answer the same last digit.
    varying("power", 2, PgType::FLOAT8, power),
    varying("pow", 2, PgType::FLOAT8, power),
    Known { name: "mod", arguments: 2, returns: Returns::OneOf, is_deterministic: true, run: remainder },
    Known { name: "greatest", arguments: -1, returns: Returns::OneOf, is_deterministic: true, run: greatest },
    Known { name: "least", arguments: -1, returns: Returns::OneOf, is_deterministic: true, run: least },
    known("left", 2, PgType::TEXT, |given| given.part(|length, count| (0, from_end(length, count)))),
    known("right", 2, PgType::TEXT, |given| given.part(|length, count| (length - from_end(length, count), length))),
    known("md5", 1, PgType::TEXT, |given| {
        let digest = match given.get(0) {
            ValueRef::Null => return Ok(Value::Null),
            ValueRef::Blob(bytes) => Md5::digest(bytes),
            _ => Md5::digest(given.text(0)?.unwrap_or_default()),
        };
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }),
    varying("gen_random_uuid", 0, PgType::UUID, random_uuid),
    Known { name: "date_trunc", arguments: 2, returns: Returns::Moment, is_deterministic: true, run: truncate },
];

/// The function of that name, in any case.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    FUNCTIONS.iter().chain(CASTS).find(|known| known.name.eq_ignore_ascii_case(name))
}

/// The type that a function behind a cast makes of its argument, if it is one.
pub(super) fn cast_type(name: &str) -> Option<PgType> {
    match CASTS.iter().find(|known| known.name.eq_ignore_ascii_case(name))?.returns {
        Returns::Type(pg_type) => Some(pg_type),
        Returns::OneOf | Returns::Moment => None,
    }
}

/// Gives a connection all functions.
///
/// # Errors
/// SQLite's.
pub(super) fn register(connection: &Connection) -> Result<()> {
    for known in FUNCTIONS.iter().chain(CASTS) {
        let mut flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        if known.is_deterministic {
            flags |= FunctionFlags::SQLITE_DETERMINISTIC;
        }
        let run = known.run;
        connection
            .create_scalar_function(known.name, known.arguments, flags, move |context| run(&Arguments(context)))?;
    }
    Ok(())
}

/// What a function is called with.
struct Arguments<'a>(&'a Context<'a>);

impl Arguments<'_> {
    fn get(&self, index: usize) -> ValueRef<'_> {
        if index < self.0.len() { self.0.get_raw(index) } else { ValueRef::Null }
    }

    fn all(&self) -> impl Iterator<Item = ValueRef<'_>> {
        (0..self.0.len()).map(|index| self.0.get_raw(index))
    }

    /// An argument as text; `None` for NULL.
    fn text(&self, index: usize) -> Result<Option<String>> {
        Ok(Some(match self.get(index) {
            ValueRef::Null => return Ok(None),
            ValueRef::Integer(value) => value.to_string(),
            ValueRef::Real(value) => value.to_string(),
            ValueRef::Text(text) => utf8(text)?.to_owned(),
            ValueRef::Blob(_) => return Err(no_cast("bytea", "text")),
        }))
    }

    /// An argument as a number; `None` for NULL.
    fn number(&self, index: usize) -> Result<Option<f64>> {
        match casts::float8(self.get(index))? {
            Value::Real(value) => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    /// The first argument as an argument of `function`.
    fn real(&self, function: fn(f64) -> f64) -> Result<Value> {
        Ok(self.number(0)?.map(function).into())
    }

    /// So many characters of the first argument as `range` says of its length and the second argument.
    fn part(&self, range: fn(usize, i64) -> (usize, usize)) -> Result<Value> {
        let (Some(text), Value::Integer(count)) = (self.text(0)?, casts::integer(self.get(1), "integer")?) else {
            return Ok(Value::Null);
        };
        let (start, end) = range(text.chars().count(), count);
        Ok(text.chars().skip(start).take(end.saturating_sub(start)).collect::<String>().into())
    }
}

fn failed(message: impl Into<String>) -> Error {
    let message: String = message.into();
    Error::UserFunctionError(message.into())
}

fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|_| failed("stored text is not valid UTF-8"))
}

fn no_cast(from: &str, to: &str) -> Error {
    failed(format!("cannot cast type {from} to {to}"))
}

/// So many of `length` characters; a negative number leaves out as many.
fn from_end(length: usize, count: i64) -> usize {
    let number = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 { length.saturating_sub(number) } else { number.min(length) }
}

fn square_root(given: &Arguments<'_>) -> Result<Value> {
    match given.number(0)? {
        Some(value) if value < 0.0 => Err(failed("cannot take square root of a negative number")),
        value => Ok(value.map(f64::sqrt).into()),
    }
}

fn power(given: &Arguments<'_>) -> Result<Value> {
    let (Some(base), Some(exponent)) = (given.number(0)?, given.number(1)?) else { return Ok(Value::Null) };
    if base == 0.0 && exponent < 0.0 {
        return Err(failed("zero raised to a negative power is undefined"));
    }
    let power = base.powf(exponent);
    if power.is_nan() {
        return Err(failed("a negative number raised to a non-integer power yields a complex result"));
    }
    if power.is_infinite() && base.is_finite() && exponent.is_finite() {
        return Err(failed("value out of range: overflow"));
    }
    Ok(Value::Real(power))
}

fn remainder(given: &Arguments<'_>) -> Result<Value> {
    let (one, other) = (casts::numeric(given.get(0))?, casts::numeric(given.get(1))?);
    let real = |value: &Value| match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Real(value) => Some(*value),
        _ => None,
    };
    let (Some(dividend), Some(divisor)) = (real(&one), real(&other)) else { return Ok(Value::Null) };
    if divisor == 0.0 {
        return Err(failed("division by zero"));
    }
    Ok(match (one, other) {
        // The one pair that overflows has no remainder.
        (Value::Integer(dividend), Value::Integer(divisor)) => dividend.checked_rem(divisor).unwrap_or(0).into(),
        _ => (dividend % divisor).into(),
    })
}

fn greatest(given: &Arguments<'_>) -> Result<Value> {
    chosen(given, Ordering::Greater)
}

fn least(given: &Arguments<'_>) -> Result<Value> {
    chosen(given, Ordering::Less)
}

/// The first of the arguments that stands so to all others. Those that are NULL do not count, as they do to SQLite's `max`.
fn chosen(given: &Arguments<'_>, ordering: Ordering) -> Result<Value> {
    let mut chosen = ValueRef::Null;
    for value in given.all().filter(|value| *value != ValueRef::Null) {
        if chosen == ValueRef::Null || compare(value, chosen) == ordering {
            chosen = value;
        }
    }
    Ok(Value::try_from(chosen)?)
}

/// How SQLite orders values: numbers, texts by their bytes, blobs.
fn compare(one: ValueRef<'_>, other: ValueRef<'_>) -> Ordering {
    use ValueRef::{Blob, Integer, Real, Text};
    let rank = |value| match value {
        ValueRef::Null => 0,
        Integer(_) | Real(_) => 1,
        Text(_) => 2,
        Blob(_) => 3,
    };
    match (one, other) {
        (Integer(one), Integer(other)) => one.cmp(&other),
        (Real(one), Real(other)) => one.total_cmp(&other),
        (Integer(one), Real(other)) => (one as f64).total_cmp(&other),
        (Real(one), Integer(other)) => one.total_cmp(&(other as f64)),
        (Text(one), Text(other)) | (Blob(one), Blob(other)) => one.cmp(other),
        _ => rank(one).cmp(&rank(other)),
    }
}

fn random_uuid(_: &Arguments<'_>) -> Result<Value> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| failed(format!("no random numbers: {error}")))?;
    // Version 4 of the variant of RFC 9562.
    let random = (u128::from_be_bytes(bytes) & !(0xF << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{random:032x}");
    Ok(stored_text(&digits, PgType::UUID).map_or(Value::Null, Value::Text))
}

const SECOND_MICROS: i64 = 1_000_000;
const DAY_MICROS: i64 = 86_400 * SECOND_MICROS;

/// `date_trunc`
fn truncate(given: &Arguments<'_>) -> Result<Value> {
    let (Some(unit), Some(text)) = (given.text(0)?, given.text(1)?) else { return Ok(Value::Null) };
    let invalid = || failed(format!("invalid input syntax for type timestamp: \"{text}\""));
    let micros = timestamp_micros(text.trim_ascii(), true).ok_or_else(invalid)?;
    if matches!(micros, i64::MIN | i64::MAX) {
        return Ok(timestamp_text(micros).into());
    }
    let down = |unit: i64| micros - micros.rem_euclid(unit);
    let unit = unit.to_ascii_lowercase();
    let down_to = match unit.as_str() {
        "microsecond" | "microseconds" => micros,
        "millisecond" | "milliseconds" => down(SECOND_MICROS / 1000),
        "second" => down(SECOND_MICROS),
        "minute" => down(60 * SECOND_MICROS),
        "hour" => down(3600 * SECOND_MICROS),
        "day" => down(DAY_MICROS),
        // Microseconds are counted from a Saturday; weeks begin on Mondays.
        "week" => down(DAY_MICROS) - (micros.div_euclid(DAY_MICROS) + 5).rem_euclid(7) * DAY_MICROS,
        "month" | "quarter" | "year" => {
            let text = timestamp_text(micros).ok_or_else(invalid)?;
            let (year, month) = (text.get(..4).unwrap_or_default(), text.get(5..7).unwrap_or_default());
            let month: u32 = match unit.as_str() {
                "month" => month.parse().map_err(|_| invalid())?,
                "quarter" => (month.parse::<u32>().map_err(|_| invalid())?.max(1) - 1) / 3 * 3 + 1,
                _ => 1,
            };
            return Ok(format!("{year}-{month:02}-01 00:00:00").into());
        }
        _ => return Err(failed(format!("unit \"{unit}\" not recognized for type timestamp"))),
    };
    Ok(timestamp_text(down_to).ok_or_else(invalid)?.into())
}

#[cfg(test)]
#[path = "functions_test.rs"]
mod tests;
