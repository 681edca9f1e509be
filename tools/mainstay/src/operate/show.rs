//! Tables, times, and bytes that do a terminal no harm.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use mainstay::server::pg::timestamp;
use serde_json::{Map, Value};

/// Bytes as text on one line: what is not text, or would steer a terminal, is written as an escape. A backslash is doubled,
/// so that nothing looks like what it is not.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                _ if is_harmful(character) => text.extend(character.escape_unicode()),
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Controls, what is not seen, and what turns the direction of writing.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The same, no longer than so many characters.
pub fn shortened(bytes: &[u8], limit: usize) -> String {
    let text = printable(bytes);
    match text.char_indices().nth(limit) {
        None => text,
        Some((end, _)) => format!("{}… ({} B)", text.get(..end).unwrap_or_default(), bytes.len()),
    }
}

/// Puts bytes into a JSON object: under a name if they are text, else in base64 under the name with `_base64`.
pub fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// A line on standard output.
///
/// # Errors
/// Whoever reads it has gone.
pub fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A value as one line of JSON.
///
/// # Errors
/// Whoever reads it has gone.
pub fn json(value: &Value) -> io::Result<()> {
    line(value)
}

/// A table without borders. The columns of these places are numbers.
pub fn table(header: &[&str], numbers: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for place in 0..header.len() {
        if let Some(column) = table.column_mut(place) {
            column.set_padding((0, 2));
            if numbers.contains(&place) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A time of the wall clock, in UTC.
pub fn date(unix_ms: u64) -> String {
    let text = timestamp(UNIX_EPOCH + Duration::from_millis(unix_ms));
    // Nobody needs the parts of a second.
    let (seconds, _) = text.split_once('.').unwrap_or((&text, ""));
    format!("{seconds}Z")
}

/// How long something lasts, in its two largest units.
pub fn lasting(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes:02}m"),
        (days, hours, ..) => format!("{days}d{hours:02}h"),
    }
}

/// A number of bytes, for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / *factor as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_a_terminal_no_harm() {
        for (bytes, text) in [
            (&b"plain"[..], "plain"),
            ("größer 日本".as_bytes(), "größer 日本"),
            (b"\x1b[2Jx", "\\u{1b}[2Jx"),
            (b"a\nb\tc\\n", "a\\nb\\tc\\\\n"),
            (b"\xff\x00", "\\xff\\u{0}"),
            ("\u{202e}x\u{9b}".as_bytes(), "\\u{202e}x\\u{9b}"),
        ] {
            assert_eq!(printable(bytes), text);
        }
        assert_eq!(shortened(b"abcdef", 3), "abc… (6 B)");
        assert_eq!(shortened(b"abc", 3), "abc");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_709_251_199, "2024-02-29 23:59:59Z"),
            (1_767_225_599, "2025-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(date(seconds * 1000), text);
        }
        assert_eq!(lasting(59_999), "59s");
        assert_eq!(lasting(61_000), "1m01s");
        assert_eq!(lasting(7_260_000), "2h01m");
        assert_eq!(lasting(90_000_000), "1d01h");
        assert_eq!(size(1536), "1.5 KiB");
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = [vec!["1".to_owned(), "a".to_owned()], vec!["22".to_owned(), "bb".to_owned()]];
        assert_eq!(table(&["n", "name"], &[0], rows), " N  NAME\n 1  a\n22  bb");
    }
}
