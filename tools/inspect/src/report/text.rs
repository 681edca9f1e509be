//! Numbers and bytes for people.

use std::fmt::Write;

/// `17 bytes`, `12.5 KiB`, `64 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        None => count(bytes, "byte"),
        Some((name, unit)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
    }
}

/// `1 record`, `2 records`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Bytes as two hexadecimal digits each, without anything in between.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes as characters, a dot for each that is none.
pub fn ascii(bytes: &[u8]) -> String {
    let show = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
    bytes.iter().map(show).collect()
}

/// Text of a user on one line of a terminal: a dot for each control character.
pub fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '.' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1, 1023, 1024, 1536, 64 << 20, (1 << 30) + 1, 3 << 40].map(size);
        assert_eq!(
            sizes,
            ["0 bytes", "1 byte", "1023 bytes", "1 KiB", "1.5 KiB", "64 MiB", "1.0 GiB", "3 TiB"].map(String::from)
        );
    }

    #[test]
    fn bytes_are_shown_on_one_line() {
        assert_eq!((hex(b"a\n\xff"), ascii(b"a b\n\xff|")), ("610aff".into(), "a b..|".into()));
    }
}
