//! Understanding values: sizes, times, counts, addresses; and writing them so that they are understood again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mainstay::meta::token::MalformedToken;
use mainstay::net::Address;
use mainstay::server::pg::ClientCertificates;

use super::{Kind, Raw, Setting, Settings};
use crate::logging::{self, LogFormat};

const BYTE_UNITS: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("PiB", 1 << 50)];
const SECOND_UNITS: &[(&str, u64)] = &[("s", 1), ("min", 60), ("h", 3600), ("d", 86_400)];
const MILLISECOND_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// What is wrong with `true` where a number or text belongs.
const BOOLEAN: &str = "is of type boolean; must be a number or text";
/// What stands for no value.
const OFF: &str = "off";
const COUNT_UNITS: &[(&str, u64)] = &[];

impl Setting {
    /// Understands a value and puts it into its field.
    ///
    /// # Errors
    /// What is wrong with the value; `settings` are as they were.
    pub(super) fn set(&self, settings: &mut Settings, raw: Raw) -> Result<(), String> {
        match &self.kind {
            Kind::Directory(field) => *field(settings) = Some(directory(raw)?),
            Kind::File(field) => *field(settings) = Some(directory(raw)?),
            Kind::Switch(field) => *field(settings) = switch(raw)?,
            Kind::Address(field) => *field(settings) = address(raw)?,
            Kind::OptionalAddress(field) => *field(settings) = unless_off(raw, any_address)?,
            Kind::OptionalMilliseconds { high, field } => {
                let milliseconds = unless_off(raw, |raw| number(raw, MILLISECOND_UNITS, "milliseconds"))?;
                if let Some(milliseconds) = milliseconds.filter(|milliseconds| milliseconds > high) {
                    return Err(format!("{} is not {}", milliseconds_text(milliseconds), self.range_text()));
                }
                *field(settings) = milliseconds.map(Duration::from_millis);
            }
            Kind::Bytes { low, high, power_of_two, field } => {
                let bytes = number(raw, BYTE_UNITS, "bytes")?;
                if !(*low..=*high).contains(&bytes) || (*power_of_two && !bytes.is_power_of_two()) {
                    return Err(format!("{} is not {}", bytes_text(bytes), self.range_text()));
                }
                *field(settings) = bytes;
            }
            Kind::Memory { low, high, field } => {
                let bytes = number(raw, BYTE_UNITS, "bytes")?;
                *field(settings) = in_memory(bytes, *low, *high)
                    .ok_or_else(|| format!("{} is not {}", bytes_text(bytes), self.range_text()))?;
            }
            Kind::Seconds { low, high, field } => {
                let seconds = number(raw, SECOND_UNITS, "seconds")?;
                if !(*low..=*high).contains(&seconds) {
                    return Err(format!("{} is not {}", seconds_text(seconds), self.range_text()));
                }
                *field(settings) = Duration::from_secs(seconds);
            }
            Kind::Count { low, high, field } => {
                let count = number(raw, COUNT_UNITS, "")?;
                *field(settings) =
                    in_memory(count, *low, *high).ok_or_else(|| format!("{count} is not {}", self.range_text()))?;
            }
            Kind::Certificates(field) => {
                let name = text(raw)?;
                *field(settings) = ClientCertificates::from_name(&name)
                    .ok_or_else(|| format!("{name:?} is not {}", self.range_text()))?;
            }
            Kind::Format(field) => {
                let name = text(raw)?;
                *field(settings) =
                    LogFormat::from_name(&name).ok_or_else(|| format!("{name:?} is not {}", self.range_text()))?;
            }
            Kind::Name(field) => *field(settings) = Some(text(raw)?),
            Kind::NodeAddress(field) => *field(settings) = Some(node_address(&text(raw)?)?),
            Kind::NodeAddresses(field) => {
                let list = text(raw)?;
                let addresses: Result<Vec<_>, _> =
                    list.split(',').map(|address| node_address(address.trim())).collect();
                *field(settings) = addresses?;
            }
            // What it says instead is not repeated: it may be a token with a slip in it.
            Kind::Token(field) => {
                let text = text(raw).map_err(|_| MalformedToken.to_string())?;
                *field(settings) = Some(text.parse().map_err(|error: MalformedToken| error.to_string())?);
            }
            Kind::Filter(field) => {
                let filter = text(raw)?;
                logging::check_filter(&filter).map_err(|error| format!("{filter:?} is not understood: {error}"))?;
                *field(settings) = filter;
            }
        }
        Ok(())
    }

    /// The value as it is written in the file, quotes and all; `None` if there is none.
    pub(super) fn toml_value(&self, settings: &Settings) -> Option<String> {
        self.plain_value(settings).map(|value| match self.kind {
            Kind::Count { .. } | Kind::Switch(_) => value,
            _ => toml::Value::String(value).to_string(),
        })
    }

    /// The value as it is given to a flag; `None` if there is none.
    pub(super) fn plain_value(&self, settings: &Settings) -> Option<String> {
        let mut settings = settings.clone();
        Some(match &self.kind {
            Kind::Directory(field) | Kind::File(field) => field(&mut settings).as_ref()?.display().to_string(),
            Kind::Switch(field) => field(&mut settings).to_string(),
            Kind::Address(field) => field(&mut settings).to_string(),
            Kind::OptionalAddress(field) => {
                field(&mut settings).map_or_else(|| OFF.to_owned(), |address| address.to_string())
            }
            Kind::OptionalMilliseconds { field, .. } => {
                let milliseconds = field(&mut settings).and_then(|time| u64::try_from(time.as_millis()).ok());
                milliseconds.map_or_else(|| OFF.to_owned(), milliseconds_text)
            }
            Kind::Bytes { field, .. } => bytes_text(*field(&mut settings)),
            Kind::Memory { field, .. } => bytes_text(*field(&mut settings) as u64),
            Kind::Seconds { field, .. } => seconds_text(field(&mut settings).as_secs()),
            Kind::Count { field, .. } => field(&mut settings).to_string(),
            Kind::Certificates(field) => field(&mut settings).name().to_owned(),
            Kind::Format(field) => field(&mut settings).name().to_owned(),
            Kind::Name(field) => field(&mut settings).clone()?,
            Kind::NodeAddress(field) => field(&mut settings).as_ref()?.to_string(),
            Kind::NodeAddresses(field) => {
                let addresses = std::mem::take(field(&mut settings));
                let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
                if texts.is_empty() {
                    return None;
                }
                texts.join(",")
            }
            // Never shown.
            Kind::Token(_) => return None,
            Kind::Filter(field) => field(&mut settings).clone(),
        })
    }

    /// What stands for its value in the help of its flag.
    pub fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Directory(_) => "DIR",
            Kind::File(_) => "FILE",
            Kind::Switch(_) => "BOOLEAN",
            Kind::Address(_) | Kind::OptionalAddress(_) => "ADDRESS:PORT",
            Kind::OptionalMilliseconds { .. } => "MILLISECONDS",
            Kind::Bytes { .. } | Kind::Memory { .. } => "BYTES",
            Kind::Seconds { .. } => "SECONDS",
            Kind::Count { .. } => "N",
            Kind::Name(_) => "NAME",
            Kind::NodeAddress(_) => "HOST:PORT",
            Kind::NodeAddresses(_) => "HOST:PORT,…",
            Kind::Token(_) => "TOKEN",
            Kind::Certificates(_) => "WHAT",
            Kind::Format(_) => "FORMAT",
            Kind::Filter(_) => "FILTER",
        }
    }

    /// What it is counted in; `None` if it is not counted.
    pub(super) fn unit_text(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Bytes { .. } | Kind::Memory { .. } => Some("bytes, or with B, KiB, MiB, GiB, TiB, PiB"),
            Kind::Seconds { .. } => Some("seconds, or with s, min, h, d"),
            Kind::OptionalMilliseconds { .. } => Some("milliseconds, or with ms, s, min, h, d"),
            _ => None,
        }
    }

    /// What it may be.
    pub(super) fn range_text(&self) -> String {
        match &self.kind {
            Kind::Directory(_) | Kind::File(_) => "a path".to_owned(),
            Kind::Switch(_) => "true or false".to_owned(),
            Kind::Address(_) => "an ADDRESS:PORT".to_owned(),
            Kind::OptionalAddress(_) => "an ADDRESS:PORT, or off".to_owned(),
            Kind::OptionalMilliseconds { high, .. } => format!("from 0 to {}, or off", milliseconds_text(*high)),
            Kind::Bytes { low, high, power_of_two, .. } => {
                let power = if *power_of_two { "a power of two " } else { "" };
                format!("{power}from {} to {}", bytes_text(*low), bytes_text(*high))
            }
            Kind::Memory { low, high, .. } => format!("from {} to {}", bytes_text(*low), bytes_text(*high)),
            Kind::Seconds { low, high, .. } => format!("from {} to {}", seconds_text(*low), seconds_text(*high)),
            Kind::Count { low, high, .. } => format!("from {low} to {high}"),
            Kind::Name(_) => "a name".to_owned(),
            Kind::NodeAddress(_) => "a HOST:PORT".to_owned(),
            Kind::NodeAddresses(_) => "one or more HOST:PORT".to_owned(),
            Kind::Token(_) => "a join token".to_owned(),
            Kind::Certificates(_) => ClientCertificates::ALL.map(ClientCertificates::name).join(", "),
            Kind::Format(_) => "text or json".to_owned(),
            Kind::Filter(_) => "a log filter".to_owned(),
        }
    }
}

fn text(raw: Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        Raw::Integer(integer) => Err(format!("{integer} is a number; must be text")),
        Raw::Boolean(_) => Err(BOOLEAN.to_owned()),
    }
}

fn switch(raw: Raw) -> Result<bool, String> {
    match raw {
        Raw::Boolean(boolean) => Ok(boolean),
        Raw::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Raw::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Raw::Text(text) => Err(format!("{text:?} is not true or false")),
        Raw::Integer(integer) => Err(format!("{integer} is not true or false")),
    }
}

/// What `understand` makes of a value; nothing if it is off.
fn unless_off<T>(raw: Raw, understand: impl FnOnce(Raw) -> Result<T, String>) -> Result<Option<T>, String> {
    match raw {
        Raw::Text(text) if text.eq_ignore_ascii_case(OFF) => Ok(None),
        raw => understand(raw).map(Some),
    }
}

fn node_address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|_| format!("{text:?} is not a HOST:PORT such as db1.example.com:5442"))
}

/// A length of time as people write it, in milliseconds if it has no unit.
///
/// # Errors
/// It is none.
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    number(Raw::Text(text.to_owned()), MILLISECOND_UNITS, "milliseconds").map(Duration::from_millis)
}

fn directory(raw: Raw) -> Result<PathBuf, String> {
    let path = text(raw)?;
    if path.is_empty() { Err("is empty; must be a path".to_owned()) } else { Ok(PathBuf::from(path)) }
}

fn address(raw: Raw) -> Result<SocketAddr, String> {
    any_address(raw)
}

fn any_address(raw: Raw) -> Result<SocketAddr, String> {
    let text = text(raw)?;
    let spelled_out = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    spelled_out
        .as_deref()
        .unwrap_or(&text)
        .parse()
        .map_err(|_| format!("{text:?} is not an ADDRESS:PORT such as 127.0.0.1:5440"))
}

/// A whole number, bare or followed by one of `units`.
fn number(raw: Raw, units: &[(&str, u64)], bare: &str) -> Result<u64, String> {
    let text = match raw {
        Raw::Integer(integer) => {
            return u64::try_from(integer).map_err(|_| format!("{integer} is below 0 or far too large"));
        }
        Raw::Text(text) => text,
        Raw::Boolean(_) => return Err(BOOLEAN.to_owned()),
    };
    let trimmed = text.trim();
    let digits_end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(digits_end);
    let unit = unit.trim_start();
    let factor = match units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((_, factor)) => Some(*factor),
        None if unit.is_empty() => Some(1),
        None => None,
    };
    let (false, Some(factor)) = (digits.is_empty(), factor) else {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        let with = if names.is_empty() { String::new() } else { format!(" of {bare}, or with {}", names.join(", ")) };
        return Err(format!("{text:?} is not a whole number{with}"));
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is far too large"))
}

/// A number in its range, as what counts things in memory.
fn in_memory(number: u64, low: u64, high: u64) -> Option<usize> {
    usize::try_from(number).ok().filter(|_| (low..=high).contains(&number))
}

fn bytes_text(bytes: u64) -> String {
    with_unit(bytes, BYTE_UNITS)
}

fn milliseconds_text(milliseconds: u64) -> String {
    with_unit(milliseconds, MILLISECOND_UNITS)
}

fn seconds_text(seconds: u64) -> String {
    with_unit(seconds, SECOND_UNITS)
}

/// The number in the largest unit that divides it.
fn with_unit(number: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().rev().find(|(_, factor)| number != 0 && number.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", number / factor),
        None => number.to_string(),
    }
}
