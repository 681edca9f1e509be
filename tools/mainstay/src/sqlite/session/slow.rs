//! Which of a session's statements are logged for having taken long: as configured, or as it set.

use std::time::Duration;

use mainstay::server::pg::{self, SqlError, SqlState};

use super::SqliteSession;

/// Which statements are logged for having taken long, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowLog {
    /// Those that took at least so long; none without.
    pub at_least: Option<Duration>,
    /// So many bytes of each parameter are logged with them; with 0, which is the default, none.
    pub parameter_bytes: usize,
}

/// A part of [`SlowLog`], as a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum SlowSetting {
    MinDuration,
    ParameterLength,
}

/// The longest that can be set, as in PostgreSQL.
const LONGEST_MS: i64 = i32::MAX as i64;
/// The most of a parameter that can be logged.
const PARAMETER_BYTES: i64 = 1 << 20;
const UNITS: &[(&str, f64)] =
    &[("", 1.0), ("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("min", 6e4), ("h", 3.6e6), ("d", 8.64e7)];

impl SlowSetting {
    /// Both, by PostgreSQL's names for them.
    const ALL: [(SlowSetting, &'static str); 2] = [
        (SlowSetting::MinDuration, "log_min_duration_statement"),
        (SlowSetting::ParameterLength, "log_parameter_max_length"),
    ];

    /// The setting of that name, which is in lower case.
    pub(in super::super) fn of(name: &str) -> Option<SlowSetting> {
        SlowSetting::ALL.into_iter().find(|(_, known)| *known == name).map(|(setting, _)| setting)
    }

    fn name(self) -> &'static str {
        SlowSetting::ALL.into_iter().find(|(setting, _)| *setting == self).map_or("", |(_, name)| name)
    }

    fn invalid(self, value: &str) -> SqlError {
        SqlError::new(SqlState("22023"), format!("invalid value for parameter \"{}\": \"{value}\"", self.name()))
    }
}

impl SlowLog {
    /// With a setting set to a value, as SQL has it; without one, as in `original`.
    ///
    /// # Errors
    /// 22023: it cannot be that.
    pub(super) fn with(
        mut self,
        setting: SlowSetting,
        value: Option<&str>,
        original: SlowLog,
    ) -> Result<SlowLog, SqlError> {
        match (setting, value) {
            (SlowSetting::MinDuration, None) => self.at_least = original.at_least,
            (SlowSetting::ParameterLength, None) => self.parameter_bytes = original.parameter_bytes,
            (SlowSetting::MinDuration, Some(value)) => {
                let milliseconds = milliseconds(value).ok_or_else(|| setting.invalid(value))?;
                self.at_least = u64::try_from(milliseconds).ok().map(Duration::from_millis);
            }
            (SlowSetting::ParameterLength, Some(value)) => {
                let bytes = value.trim().parse().ok().filter(|bytes| (0..=PARAMETER_BYTES).contains(bytes));
                let bytes = bytes.and_then(|bytes: i64| usize::try_from(bytes).ok());
                self.parameter_bytes = bytes.ok_or_else(|| setting.invalid(value))?;
            }
        }
        Ok(self)
    }

    /// As SHOW says it.
    pub(super) fn show(self, setting: SlowSetting) -> String {
        match setting {
            SlowSetting::MinDuration => {
                self.at_least.map_or_else(|| "-1".to_owned(), |at_least| format!("{}ms", at_least.as_millis()))
            }
            SlowSetting::ParameterLength => self.parameter_bytes.to_string(),
        }
    }

    /// As the server takes it.
    pub(super) fn for_server(self) -> Option<pg::SlowLog> {
        self.at_least.map(|at_least| pg::SlowLog { at_least, parameter_bytes: self.parameter_bytes })
    }
}

/// `-1`, which means never, or a length of time in milliseconds unless it says otherwise.
fn milliseconds(value: &str) -> Option<i64> {
    let value = value.trim();
    let digits = value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len());
    let (number, unit) = value.split_at_checked(digits)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    let milliseconds = (number.trim().parse::<f64>().ok()? * factor).round();
    let fits = milliseconds.is_finite() && (-1.0..=LONGEST_MS as f64).contains(&milliseconds);
    fits.then_some(milliseconds as i64)
}

impl SqliteSession {
    /// Sets one of them for this session; it comes back if the transaction is rolled back.
    ///
    /// # Errors
    /// 22023: it cannot be that.
    pub(super) fn set_slow(&mut self, setting: SlowSetting, value: Option<&str>) -> Result<(), SqlError> {
        let original = *self.shared.slow_log.lock();
        self.slow = self.slow.with(setting, value, original)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_understood_as_postgresql_does() {
        for (value, expected) in [
            ("250", Some(250)),
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("1.5s", Some(1500)),
            ("2 min", Some(120_000)),
            ("1500us", Some(2)),
            ("-2", None),
            ("soon", None),
            ("5 parsecs", None),
            ("", None),
            ("30d", None),
            ("nan", None),
        ] {
            assert_eq!(milliseconds(value), expected, "{value}");
        }
    }

    #[test]
    fn settings_are_set_shown_and_brought_back() {
        let original = SlowLog { at_least: Some(Duration::from_secs(1)), parameter_bytes: 7 };
        let set = |value| SlowLog::default().with(SlowSetting::MinDuration, value, original);
        assert_eq!(set(Some("250ms")).unwrap().show(SlowSetting::MinDuration), "250ms");
        assert_eq!(set(Some("-1")).unwrap().for_server(), None);
        assert_eq!(set(None).unwrap().at_least, original.at_least);
        assert_eq!(set(Some("x")).unwrap_err().state.0, "22023");
        let length = |value| original.with(SlowSetting::ParameterLength, Some(value), original);
        assert_eq!(length("64").unwrap().show(SlowSetting::ParameterLength), "64");
        assert!(length("-1").is_err() && length("99999999").is_err());
        for (setting, name) in SlowSetting::ALL {
            assert_eq!((SlowSetting::of(name), setting.name()), (Some(setting), name));
        }
    }
}
