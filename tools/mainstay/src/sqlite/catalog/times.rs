//! Functions of times, and series of them and of numbers.

use std::ops::Range;

use mainstay::server::pg::timestamp;
use rusqlite::Result;
use rusqlite::types::{Value, ValueRef};

use super::functions::{Arguments, Facts, failed};
use super::intervals;

/// `generate_series` gives no more rows.
const SERIES_LIMIT: i64 = 1_000_000;
/// So many characters of a time are its day.
const DATE_LEN: usize = 10;

/// The numbers, or times, from one to another.
pub(super) fn series(given: &Arguments<'_>) -> Result<Vec<Option<String>>> {
    if (0..given.len()).any(|index| matches!(given.raw(index), ValueRef::Null)) {
        return Ok(Vec::new());
    }
    let step = if given.len() > 2 { given.integer(2) } else { Some(1) };
    if let (Some(from), Some(to), Some(step)) = (given.integer(0), given.integer(1), step) {
        let (from, to, step) = (i128::from(from), i128::from(to), i128::from(step));
        // Rounding would take it for a step if it goes the other way.
        let goes_back = (to > from && step < 0) || (to < from && step > 0);
        let count = steps(if goes_back { Some(-1) } else { (to - from).checked_div(step) })?;
        return Ok((0..count).map(|number| Some((from + i128::from(number) * step).to_string())).collect());
    }
    let time = |index| given.text(index).and_then(|text| intervals::parse_timestamp(&text));
    let (Some(from), Some(to), Some(step)) = (time(0), time(1), given.real(2)) else {
        return Err(failed("generate_series takes whole numbers, or two times and an interval".to_owned()));
    };
    let whole = ((to - from) / step).floor();
    let count = steps((step != 0.0).then_some(whole as i128))?;
    Ok((0..count).map(|number| intervals::write_timestamp(from + number as f64 * step)).collect())
}

/// How many elements a series has that goes on so many steps; none backwards.
fn steps(whole: Option<i128>) -> Result<i64> {
    let whole = whole.ok_or_else(|| failed("step size cannot equal zero".to_owned()))?;
    match i64::try_from(whole.max(-1)) {
        Ok(whole) if whole < SERIES_LIMIT => Ok(whole + 1),
        _ => Err(failed(format!("generate_series gives at most {SERIES_LIMIT} rows"))),
    }
}

/// A time and so many seconds.
pub(super) fn add(given: &Arguments<'_>, _: &Facts) -> Result<Value> {
    let (Some(text), Some(seconds)) = (given.text(0), given.real(1)) else { return Ok(Value::Null) };
    written(seconds_of(&text)? + seconds).map(Value::Text)
}

/// The seconds from the second time to the first.
pub(super) fn minus(given: &Arguments<'_>, _: &Facts) -> Result<Value> {
    if given.len() != 2 {
        return Err(failed("age takes two times".to_owned()));
    }
    let (Some(one), Some(other)) = (given.text(0), given.text(1)) else { return Ok(Value::Null) };
    Ok(Value::Real(seconds_of(&one)? - seconds_of(&other)?))
}

/// A time as all are written here, so that they can be compared.
pub(super) fn timestamp_in(given: &Arguments<'_>, _: &Facts) -> Result<Value> {
    let Some(text) = given.text(0) else { return Ok(Value::Null) };
    written(seconds_of(&text)?).map(Value::Text)
}

/// The day of a time.
pub(super) fn date_in(given: &Arguments<'_>, _: &Facts) -> Result<Value> {
    let Some(text) = given.text(0) else { return Ok(Value::Null) };
    let written = written(seconds_of(&text)?)?;
    Ok(written.get(..DATE_LEN).map(str::to_owned).into())
}

/// A part of the time that it is, as it is written.
pub(super) fn part_of_now(facts: &Facts, part: Range<usize>) -> Value {
    timestamp(facts.now).get(part).map(str::to_owned).into()
}

fn seconds_of(text: &str) -> Result<f64> {
    let time = intervals::parse_timestamp(text);
    time.ok_or_else(|| failed(format!("invalid input syntax for type timestamp with time zone: \"{text}\"")))
}

fn written(seconds: f64) -> Result<String> {
    intervals::write_timestamp(seconds).ok_or_else(|| failed("timestamp out of range".to_owned()))
}
