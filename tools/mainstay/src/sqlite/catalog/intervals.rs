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

/// The seconds since the first of 1970 of a time as [`mainstay::server::pg::timestamp`] writes it.
pub(super) fn parse_timestamp(text: &str) -> Option<f64> {
    let text = text.strip_suffix("+00").unwrap_or(text);
    let (date, clock) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
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
    Some(days as f64 * 86_400.0 + parse(clock)?)
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
        }
        assert_eq!(parse_timestamp("2026-13-01 00:00:00"), None);
    }
}
