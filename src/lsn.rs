//! Positions in the WAL, and the timeline they belong to.

use std::fmt;
use std::str::FromStr;

/// A byte position in the WAL.
///
/// Written `X/Y` in hexadecimal, high and low 32 bits, as PostgreSQL writes its own. `0/0` means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// No position: `0/0`. It sorts before every real one.
    pub const NONE: Lsn = Lsn(0);

    /// The position at byte `value`.
    pub const fn new(value: u64) -> Lsn {
        Lsn(value)
    }

    /// The byte position as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether this is [`Lsn::NONE`].
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The position `bytes` further on; the end of the address space where that does not exist.
    #[must_use]
    pub const fn advanced(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to this position; 0 if `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not an LSN: expected `X/Y`, two hexadecimal numbers of at most 32 bits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an LSN; write it as X/Y, two hexadecimal numbers of up to eight digits, such as 0/4000040")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let part = |digits: &str| {
            let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| Some((part(high)?, part(low)?)));
        let (high, low) = halves.ok_or_else(|| ParseLsnError(text.to_owned()))?;
        Ok(Lsn(high << 32 | low))
    }
}

/// A branch of the WAL's history. Each epoch writes on a timeline of its own; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(u32);

impl TimelineId {
    /// The timeline a new system starts on.
    pub const FIRST: TimelineId = TimelineId(1);

    /// The timeline with this number.
    pub const fn new(value: u32) -> TimelineId {
        TimelineId(value)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One term of office of a primary. An epoch is a timeline: the number is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// The epoch of a cluster of one.
    pub const FIRST: Epoch = Epoch(1);

    /// The timeline this epoch writes on.
    pub const fn timeline(self) -> TimelineId {
        TimelineId(self.0)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_text_round_trips() {
        for (text, value) in [("0/0", 0), ("0/4000040", 0x400_0040), ("1/0", 1 << 32), ("FFFFFFFF/FFFFFFFF", u64::MAX)]
        {
            assert_eq!(text.parse::<Lsn>().unwrap(), Lsn::new(value));
            assert_eq!(Lsn::new(value).to_string(), text);
        }
        assert_eq!("a/b".parse::<Lsn>().unwrap(), Lsn::new(0xA_0000_000B));
    }

    #[test]
    fn lsn_text_that_is_none_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "1/1/1", "g/0", "123456789/0", "+1/0", " 1/0", "-1/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }
}
