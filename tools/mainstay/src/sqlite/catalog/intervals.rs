//! Differences of times, as seconds: how they are read, and how PostgreSQL writes them.

/// The seconds that `5 minutes`, `1 day 02:03:04.5` or `90` stand for.
pub(super) fn parse(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    let mut words = text.split_ascii_whitespace().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            let (sign, clock) = word.strip_prefix('-').map_or((1.0, word), |rest| (-1.0, rest));
            let parts: Option<Vec<f64>> = clock.split(':').map(|part| part.parse().ok()).collect();
            let [hours, minutes, rest @ ..] = parts.as_deref()? else { return None };
            seconds += sign * (hours * 3600.0 + minutes * 60.0 + rest.first().copied().unwrap_or(0.0));
            continue;
        }
        // A number and a unit, together or apart.
        let split = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, unit) = word.split_at_checked(split)?;
        let number: f64 = number.parse().ok()?;
        let unit = if unit.is_empty() { words.next().unwrap_or("s") } else { unit };
        seconds += number * unit_seconds(unit)?;
    }
    seconds.is_finite().then_some(seconds)
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

/// As PostgreSQL writes them: `1 day 02:03:04.5`.
pub(super) fn write(seconds: f64) -> String {
    let micros = (seconds.abs() * 1e6).round() as u64;
    let (whole, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (days, rest) = (whole / 86_400, whole % 86_400);
    let sign = if seconds < 0.0 { "-" } else { "" };
    let mut text = match days {
        0 => String::new(),
        1 => format!("{sign}1 day "),
        days => format!("{sign}{days} days "),
    };
    text.push_str(&format!("{sign}{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60));
    if micros > 0 {
        text.push_str(format!(".{micros:06}").trim_end_matches('0'));
    }
    text
}

/// The seconds since the first of 1970 of a time as [`mainstay::server::pg::timestamp`] writes it, or with another zone,
/// or of a date.
pub(super) fn parse_timestamp(text: &str) -> Option<f64> {
    let (date, clock) = text.trim().split_once([' ', 'T']).unwrap_or((text.trim(), "00:00"));
    let (clock, ahead) = without_zone(clock)?;
    let date: Option<Vec<i64>> = date.split('-').map(|part| part.parse().ok()).collect();
    let [year, month, day] = date.as_deref()? else { return None };
    let (year, month, day) = (*year, *month, *day);
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Howard Hinnant's `days_from_civil`: years begin in March, in eras of 400 years.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(days as f64 * 86_400.0 + parse(clock)? - ahead)
}

/// A clock's time without its zone, and how many seconds that zone is ahead of UTC.
fn without_zone(clock: &str) -> Option<(&str, f64)> {
    let clock = clock.strip_suffix(['Z', 'z']).unwrap_or(clock);
    let Some(at) = clock.find(['+', '-']) else { return Some((clock, 0.0)) };
    let (clock, zone) = clock.split_at_checked(at)?;
    let sign = if zone.starts_with('-') { -1.0 } else { 1.0 };
    let digits: String = zone.chars().skip(1).filter(|c| *c != ':').collect();
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes: u32 = if minutes.is_empty() { 0 } else { minutes.parse().ok()? };
    let seconds = hours.parse::<u32>().ok()? * 3600 + minutes * 60;
    Some((clock, sign * f64::from(seconds)))
}

/// A time so many seconds after the first of 1970, as [`mainstay::server::pg::timestamp`] writes it; nothing outside of
/// the years that have four digits.
pub(super) fn write_timestamp(seconds: f64) -> Option<String> {
    // The first moments of the years 1 and 10000.
    if !(-62_135_596_800.0..253_402_300_800.0).contains(&seconds) {
        return None;
    }
    let micros = (seconds * 1e6).round() as i64;
    let (whole, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, rest) = (whole.div_euclid(86_400), whole.rem_euclid(86_400));
    // Howard Hinnant's `civil_from_days`: years begin in March, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    Some(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}+00"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use mainstay::server::pg::timestamp;

    use super::*;

    #[test]
    fn intervals_are_read_and_written() {
        for (text, seconds, written) in [
            ("5 minutes", 300.0, "00:05:00"),
            ("1 day 02:03:04.5", 93_784.5, "1 day 02:03:04.5"),
            ("90", 90.0, "00:01:30"),
            ("2days 1h", 176_400.0, "2 days 01:00:00"),
            ("-00:00:01", -1.0, "-00:00:01"),
            ("250 ms", 0.25, "00:00:00.25"),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
            assert_eq!(write(seconds), written);
        }
        for text in ["", "x", "5 parsecs", "1:2x", ":", "é5"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for seconds in [0, 951_827_696, 1_709_164_800, 4_107_542_399, 4_107_542_400] {
            let text = timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(parse_timestamp(&text), Some(seconds as f64), "{text}");
            assert_eq!(write_timestamp(seconds as f64), Some(text));
        }
        for (text, written) in [
            ("1969-12-31 23:59:59.75", "1969-12-31 23:59:59.750000+00"),
            ("0001-01-01", "0001-01-01 00:00:00.000000+00"),
            ("1600-02-29 12:00", "1600-02-29 12:00:00.000000+00"),
            ("2026-01-01T00:30:00+01", "2025-12-31 23:30:00.000000+00"),
            ("2026-01-01 00:30:00.5-05:30", "2026-01-01 06:00:00.500000+00"),
            ("9999-12-31T23:59:59Z", "9999-12-31 23:59:59.000000+00"),
        ] {
            assert_eq!(parse_timestamp(text).and_then(write_timestamp).as_deref(), Some(written), "{text}");
        }
        for seconds in [-62_135_596_801.0, 253_402_300_800.0, f64::NAN, f64::INFINITY] {
            assert_eq!(write_timestamp(seconds), None, "{seconds}");
        }
        for text in ["2026-01-01 00:00+", "2026-01-01 00:00+é", "2026-01-01 00:00+1", "é"] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
        assert_eq!(parse_timestamp("2026-13-01 00:00:00"), None);
    }
}
