//! Dates, times and UUIDs: text in the engine, numbers in the binary format.
//!
//! | type | text | binary, big endian |
//! |---|---|---|
//! | `date` | `2026-01-31` | days since 2000-01-01, i32 |
//! | `time` | `23:59:59.999999` | microseconds since midnight, i64 |
//! | `timestamp` | `2026-01-31 23:59:59` | microseconds since 2000-01-01, i64 |
//! | `timestamptz` | `2026-01-31 23:59:59` in UTC, as SQLite's functions have it; clients see `+00` behind it | the same, in UTC |
//! | `uuid` | `01234567-89ab-cdef-0123-456789abcdef` | 16 bytes |
//!
//! Years from 1 to 9999 only. A `timestamptz` without an offset is in UTC; the offset of a `timestamp` means nothing, as in
//! PostgreSQL.

use bytes::{BufMut, BytesMut};

use super::super::types::PgType;

/// From 1970-01-01, from which civil days are counted here, to 2000-01-01, from which PostgreSQL counts.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
const HOUR_MICROS: i64 = 3_600_000_000;
const MINUTE_MICROS: i64 = 60_000_000;
const SECOND_MICROS: i64 = 1_000_000;

/// Whether this module knows the type.
pub(super) const fn knows(pg_type: PgType) -> bool {
    matches!(pg_type, PgType::DATE | PgType::TIME | PgType::TIMESTAMP | PgType::TIMESTAMPTZ | PgType::UUID)
}

/// Appends the binary form of a value in text; `None` if it has none.
pub(super) fn encode(text: &str, pg_type: PgType, out: &mut BytesMut) -> Option<()> {
    let text = text.trim_ascii();
    match pg_type {
        PgType::DATE => out.put_i32(i32::try_from(date(text)? - EPOCH_DAYS).ok()?),
        PgType::TIME => out.put_i64(time(text)?),
        PgType::TIMESTAMP => out.put_i64(timestamp(text, false)?),
        PgType::TIMESTAMPTZ => out.put_i64(timestamp(text, true)?),
        PgType::UUID => out.put_slice(&uuid(text)?),
        _ => return None,
    }
    Some(())
}

/// The text of a value in binary; `None` if it is none.
pub(super) fn decode(bytes: &[u8], pg_type: PgType) -> Option<String> {
    let micros = || Some(i64::from_be_bytes(bytes.try_into().ok()?));
    match pg_type {
        PgType::DATE => date_text(i64::from(i32::from_be_bytes(bytes.try_into().ok()?)) + EPOCH_DAYS),
        PgType::TIME => micros().filter(|micros| (0..=DAY_MICROS).contains(micros)).map(time_text),
        PgType::TIMESTAMP | PgType::TIMESTAMPTZ => timestamp_text(micros()?),
        PgType::UUID => {
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default().concat();
            Some([part(0..4), part(4..6), part(6..8), part(8..10), part(10..16)].join("-"))
        }
        _ => None,
    }
}

/// The text of a date, time, timestamp or UUID as an engine keeps it, however it was written, so that equal values are equal
/// text; `None` for other types, and for what is no value.
pub fn stored(text: &str, pg_type: PgType) -> Option<String> {
    let mut binary = BytesMut::new();
    encode(text, pg_type, &mut binary)?;
    decode(&binary, pg_type)
}

/// The text of a value as PostgreSQL would write it; `None` as of [`stored`].
pub(super) fn told(text: &str, pg_type: PgType) -> Option<String> {
    let stored = stored(text, pg_type)?;
    let zone = pg_type == PgType::TIMESTAMPTZ && !stored.ends_with("infinity");
    Some(if zone { format!("{stored}+00") } else { stored })
}

/// Days from 1970-01-01.
fn date(text: &str) -> Option<i64> {
    let [year, month, day] = *text.split('-').collect::<Vec<_>>() else { return None };
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let days = days_from_civil(year, month, day);
    // Only what comes back as it was is a day.
    ((1..=9999).contains(&year) && civil_from_days(days) == (year, month, day)).then_some(days)
}

/// So many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let all = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

/// Microseconds since midnight, of `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff`.
fn time(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let part = parts.next().unwrap_or("00");
    let (seconds, fraction) = part.split_once('.').unwrap_or((part, ""));
    let seconds = number(seconds, 2)?;
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let micros = micros.parse::<i64>().ok().filter(|_| digits)?;
    Some(hours * HOUR_MICROS + minutes * MINUTE_MICROS + seconds * SECOND_MICROS + micros)
}

/// Microseconds since 2000-01-01 of a timestamp in text, in UTC if its offset counts.
pub fn timestamp(text: &str, zoned: bool) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (day, rest) = text.split_at_checked(10)?;
    let day = (date(day)? - EPOCH_DAYS) * DAY_MICROS;
    let Some(rest) = rest.strip_prefix([' ', 'T']) else { return rest.is_empty().then_some(day) };
    let (clock, zone) = rest.split_at_checked(rest.find(['Z', '+', '-']).unwrap_or(rest.len()))?;
    let offset = offset(zone)?;
    Some(day + time(clock)? - if zoned { offset } else { 0 })
}

/// Microseconds east of UTC: `Z`, `+01`, `-0130`, `+01:30`, or nothing.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z") {
        return Some(0);
    }
    let (sign, digits) = zone.split_at_checked(1)?;
    let digits = digits.replace(':', "");
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes = if minutes.is_empty() { 0 } else { number(minutes, 2)? };
    let micros = number(hours, 2)? * HOUR_MICROS + minutes * MINUTE_MICROS;
    Some(if sign == "-" { -micros } else { micros })
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

fn date_text(days: i64) -> Option<String> {
    let (year, month, day) = civil_from_days(days);
    (1..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

fn time_text(micros: i64) -> String {
    let (hours, minutes) = (micros / HOUR_MICROS, micros % HOUR_MICROS / MINUTE_MICROS);
    let (seconds, fraction) = (micros % MINUTE_MICROS / SECOND_MICROS, micros % SECOND_MICROS);
    let text = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if fraction == 0 {
        return text;
    }
    let fraction = format!("{fraction:06}");
    format!("{text}.{}", fraction.trim_end_matches('0'))
}

/// The text of a timestamp, from its microseconds since 2000-01-01; `None` beyond the years that are known.
pub fn timestamp_text(micros: i64) -> Option<String> {
    match micros {
        i64::MAX => return Some("infinity".to_owned()),
        i64::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    let day = date_text(micros.div_euclid(DAY_MICROS) + EPOCH_DAYS)?;
    Some(format!("{day} {}", time_text(micros.rem_euclid(DAY_MICROS))))
}

/// Howard Hinnant's algorithm: years begin in March, eras have 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(text: &str, pg_type: PgType) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        encode(text, pg_type, &mut out).map(|()| out.to_vec())
    }

    #[test]
    fn values_are_postgresqls() {
        for (pg_type, text, bytes) in [
            (PgType::DATE, "2000-01-01", &[0, 0, 0, 0][..]),
            (PgType::DATE, "2026-11-21", &[0, 0, 0x26, 0x5D]),
            (PgType::DATE, "1999-12-31", &[255, 255, 255, 255]),
            (PgType::TIME, "00:00:01.5", &[0, 0, 0, 0, 0, 0x16, 0xE3, 0x60]),
            (PgType::TIMESTAMP, "2000-01-02 00:00:00", &[0, 0, 0, 0x14, 0x1D, 0xD7, 0x60, 0]),
            (PgType::TIMESTAMPTZ, "1999-12-31 23:59:59.999999", &[255; 8]),
            (
                PgType::UUID,
                "00112233-4455-6677-8899-aabbccddeeff",
                &[0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF],
            ),
        ] {
            assert_eq!(binary(text, pg_type).as_deref(), Some(bytes), "{text}");
            assert_eq!(decode(bytes, pg_type).as_deref(), Some(text), "{text}");
        }
    }

    #[test]
    fn every_day_comes_back() {
        let (first, last) = (date("0001-01-01").unwrap(), date("9999-12-31").unwrap());
        assert_eq!(last - first + 1, 3_652_059);
        for days in (first..=last).step_by(97) {
            assert_eq!(date(&date_text(days).unwrap()), Some(days));
        }
        assert_eq!((date_text(first - 1), date_text(last + 1)), (None, None));
    }

    #[test]
    fn other_ways_to_write_it_mean_the_same() {
        for (pg_type, text, same) in [
            (PgType::TIMESTAMPTZ, "2026-01-01T00:30:00+01:30", "2025-12-31 23:00:00+00"),
            (PgType::TIMESTAMPTZ, "2026-01-01 00:30:00.25Z", "2026-01-01 00:30:00.25+00"),
            (PgType::TIMESTAMPTZ, "2026-01-01 12:00-05", "2026-01-01 17:00:00+00"),
            (PgType::TIMESTAMPTZ, "2026-01-01 12:00:00", "2026-01-01 12:00:00+00"),
            (PgType::TIMESTAMP, "2026-01-01", "2026-01-01 00:00:00"),
            (PgType::TIMESTAMP, "2026-01-01 12:00:00.5+01", "2026-01-01 12:00:00.5"),
            (PgType::TIMESTAMP, "infinity", "infinity"),
        ] {
            assert_eq!(told(text, pg_type).as_deref(), Some(same), "{text}");
        }
        assert_eq!(stored("2026-01-01T00:30:00+01:30", PgType::TIMESTAMPTZ).as_deref(), Some("2025-12-31 23:00:00"));
        assert_eq!(stored("01:02:03.450000", PgType::TIME).as_deref(), Some("01:02:03.45"));
        assert_eq!(stored("2026-01-01", PgType::TEXT), None);
    }

    #[test]
    fn what_is_none_is_none() {
        for (pg_type, text) in [
            (PgType::DATE, "2026-02-29"),
            (PgType::DATE, "2026-1-1"),
            (PgType::DATE, "0000-01-01"),
            (PgType::DATE, "now"),
            (PgType::TIME, "24:00"),
            (PgType::TIME, "1:2:3"),
            (PgType::TIME, "00:00:00.x"),
            (PgType::TIMESTAMP, "2026-01-01 00:00:00+0x"),
            (PgType::TIMESTAMP, "2026-01-01x00:00"),
            (PgType::TIMESTAMPTZ, "2026-01-01 00:00:00+1"),
            (PgType::TIMESTAMPTZ, "größer als zehn"),
            (PgType::UUID, "00112233-4455-6677-8899-aabbccddeef"),
            (PgType::UUID, "+0112233445566778899aabbccddeeff"),
            (PgType::TEXT, "2026-01-01"),
        ] {
            assert_eq!(binary(text, pg_type), None, "{text}");
        }
        for (pg_type, bytes) in [
            (PgType::DATE, &[0; 3][..]),
            (PgType::DATE, &[0x7F, 255, 255, 255]),
            (PgType::TIME, &[255; 8]),
            (PgType::TIMESTAMP, &[0x70, 0, 0, 0, 0, 0, 0, 0]),
            (PgType::UUID, &[0; 15]),
        ] {
            assert_eq!(decode(bytes, pg_type), None, "{bytes:?}");
        }
    }
}
