//! The timeouts as settings of a session: their names, and their values as PostgreSQL reads and writes them.

use std::time::Duration;

use mainstay::server::pg::{SqlError, SqlState, Timeouts};

/// The largest value, as in PostgreSQL.
const LIMIT_MS: u64 = i32::MAX as u64;
/// The units, smallest first, in microseconds.
const UNITS: &[(&str, u64)] =
    &[("us", 1), ("ms", 1000), ("s", 1_000_000), ("min", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// A timeout that a session can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Timeout {
    Statement,
    Lock,
    IdleInTransaction,
    IdleSession,
}

impl Timeout {
    const ALL: [Timeout; 4] = [Timeout::Statement, Timeout::Lock, Timeout::IdleInTransaction, Timeout::IdleSession];

    /// Its name as a setting.
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Timeout::Statement => "statement_timeout",
            Timeout::Lock => "lock_timeout",
            Timeout::IdleInTransaction => "idle_in_transaction_session_timeout",
            Timeout::IdleSession => "idle_session_timeout",
        }
    }

    /// The one of that name.
    pub(in super::super) fn of(name: &str) -> Option<Timeout> {
        Timeout::ALL.into_iter().find(|timeout| timeout.name().eq_ignore_ascii_case(name))
    }

    /// Where its value is.
    pub(in super::super) fn field(self, timeouts: &mut Timeouts) -> &mut Duration {
        match self {
            Timeout::Statement => &mut timeouts.statement,
            Timeout::Lock => &mut timeouts.lock,
            Timeout::IdleInTransaction => &mut timeouts.idle_in_transaction,
            Timeout::IdleSession => &mut timeouts.idle_session,
        }
    }

    /// Reads a value: a number of milliseconds, or of another unit that follows it. Zero turns the timeout off.
    ///
    /// # Errors
    /// 22023.
    pub(in super::super) fn parse(self, text: &str) -> Result<Duration, SqlError> {
        let invalid = || {
            let message = format!("invalid value for parameter \"{}\": \"{text}\"", self.name());
            let hint = "Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\".";
            SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(hint)
        };
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+')).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let unit = if unit.is_empty() { "ms" } else { unit.trim_start() };
        let (_, unit_us) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        // Rounded as in PostgreSQL, to even. All values in range are exact.
        let milliseconds = (number * *unit_us as f64 / 1000.0).round_ties_even();
        if !(0.0..=LIMIT_MS as f64).contains(&milliseconds) {
            let message = format!(
                "{milliseconds} ms is outside the valid range for parameter \"{}\" (0 .. {LIMIT_MS})",
                self.name()
            );
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
        Ok(Duration::from_millis(milliseconds as u64))
    }
}

/// A value as SHOW writes it: in the largest unit that divides it.
pub(in super::super) fn show(value: Duration) -> String {
    let microseconds = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    let unit = UNITS.iter().rev().find(|(_, unit_us)| microseconds != 0 && microseconds.is_multiple_of(*unit_us));
    unit.map_or_else(|| "0".to_owned(), |(name, unit_us)| format!("{}{name}", microseconds / unit_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_shown_as_postgresql_does() {
        for (text, shown) in [
            ("0", "0"),
            ("5000", "5s"),
            ("1500", "1500ms"),
            ("1.5s", "1500ms"),
            (" 90 s ", "90s"),
            ("60s", "1min"),
            ("2h", "2h"),
            ("1d", "1d"),
            ("0.4", "0"),
            ("700us", "1ms"),
            ("2500us", "2ms"),
            ("2147483647", "2147483647ms"),
        ] {
            assert_eq!(Timeout::Statement.parse(text).map(show).unwrap(), shown, "{text}");
        }
        for text in ["", "s", "5 S", "5sec", "1s2", "--5", "1e3", "on", "2147483648", "-1", "25d"] {
            let error = Timeout::Lock.parse(text).unwrap_err();
            assert_eq!(error.state, SqlState::INVALID_PARAMETER_VALUE, "{text}");
        }
        let error = Timeout::IdleSession.parse("25d").unwrap_err();
        let expected =
            "2160000000 ms is outside the valid range for parameter \"idle_session_timeout\" (0 .. 2147483647)";
        assert_eq!(error.message, expected);
    }
}
