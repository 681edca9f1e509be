//! The timeouts of a session, which transactions and savepoints take back with what else they take back.

use std::time::Duration;

use mainstay::server::pg::{ClientInfo, ResultSink, SqlError, SqlState, Timeouts};

use super::super::command::Timeout;
use super::{SqliteSession, warning};

/// Stands for any time where a time is needed: about 24 days, PostgreSQL's longest.
const ANY_TIME: Duration = Duration::from_millis(i32::MAX as u64);

/// The timeouts of a session.
pub(super) struct SessionTimeouts {
    /// What RESET goes back to.
    original: Timeouts,
    now: Level,
    /// As they were when the transaction began.
    before: Level,
    /// As they were at each of its savepoints.
    at_savepoints: Vec<Level>,
}

#[derive(Clone, Copy)]
struct Level {
    /// Of the session.
    session: Timeouts,
    /// Of the transaction, which SET LOCAL changes.
    local: Timeouts,
}

impl SessionTimeouts {
    /// Those that the server gives, changed as the client's startup packet says.
    ///
    /// # Errors
    /// 22023 for a value that is none.
    pub(super) fn new(client: &ClientInfo) -> Result<SessionTimeouts, SqlError> {
        let mut original = client.timeouts;
        let options = client.parameters.get("options").map(|options| assignments(options)).unwrap_or_default();
        let named = client.parameters.iter().map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in options.into_iter().chain(named) {
            if let Some(timeout) = Timeout::of(&name) {
                *timeout.field(&mut original) = timeout.parse(&value)?;
            }
        }
        let now = Level { session: original, local: original };
        Ok(SessionTimeouts { original, now, before: now, at_savepoints: Vec::new() })
    }

    /// Those in force.
    pub(super) fn now(&self) -> Timeouts {
        self.now.local
    }

    /// How long to wait for a lock.
    pub(super) fn lock(&self) -> Duration {
        if self.now.local.lock.is_zero() { ANY_TIME } else { self.now.local.lock }
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.before = self.now;
        self.at_savepoints.clear();
    }

    /// The transaction ends.
    pub(super) fn end(&mut self, committed: bool) {
        let session = if committed { self.now.session } else { self.before.session };
        self.now = Level { session, local: session };
        self.at_savepoints.clear();
    }

    /// A savepoint is set.
    pub(super) fn savepoint(&mut self) {
        self.at_savepoints.push(self.now);
    }

    /// The savepoint at that position, and those behind it, are forgotten.
    pub(super) fn release(&mut self, position: usize) {
        self.at_savepoints.truncate(position);
    }

    /// Goes back to the savepoint at that position, which stays.
    pub(super) fn roll_back_to(&mut self, position: usize) {
        if let Some(then) = self.at_savepoints.get(position) {
            self.now = *then;
        }
        self.at_savepoints.truncate(position + 1);
    }

    /// Sets one; without a value, to what it was at first.
    pub(super) fn set(&mut self, timeout: Timeout, value: Option<Duration>, is_local: bool) {
        let value = value.unwrap_or_else(|| *timeout.field(&mut self.original));
        *timeout.field(&mut self.now.local) = value;
        if !is_local {
            *timeout.field(&mut self.now.session) = value;
        }
    }

    /// Sets all to what they were at first.
    pub(super) fn reset(&mut self) {
        self.now = Level { session: self.original, local: self.original };
    }
}

impl SqliteSession {
    /// Sets a timeout; without a value, to what it was at first.
    pub(super) fn set_timeout(
        &mut self,
        timeout: Timeout,
        value: Option<Duration>,
        is_local: bool,
        sink: &mut dyn ResultSink,
    ) -> Result<(), SqlError> {
        if is_local && self.transaction.is_none() {
            let message = "SET LOCAL can only be used in transaction blocks";
            return sink.notice(&warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, message));
        }
        self.timeouts.set(timeout, value, is_local);
        Ok(())
    }
}

/// The settings in the startup parameter `options`, which is written like arguments of PostgreSQL's server: `-c NAME=VALUE`,
/// `-cNAME=VALUE` or `--NAME=VALUE`, where a backslash takes from a blank its meaning.
fn assignments(options: &str) -> Vec<(String, String)> {
    let (mut words, mut word, mut is_open) = (Vec::new(), String::new(), false);
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                word.extend(characters.next());
                is_open = true;
            }
            blank if blank.is_ascii_whitespace() => {
                if std::mem::take(&mut is_open) {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => {
                word.push(other);
                is_open = true;
            }
        }
    }
    if is_open {
        words.push(word);
    }
    let mut words = words.into_iter();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(rest) => Some(rest.to_owned()),
            None => word.strip_prefix("--").map(str::to_owned),
        };
        if let Some((name, value)) = assignment.as_deref().and_then(|text| text.split_once('=')) {
            found.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_like_arguments() {
        let of = |options: &str| {
            assignments(options).into_iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>()
        };
        assert_eq!(of("-c a=1 -cb=2  --c-d=3"), ["a:1", "b:2", "c_d:3"]);
        assert_eq!(of("-c a=1\\ min -c b=\\\\ -c"), ["a:1 min", "b:\\"]);
        assert_eq!(of("-B 5 a=1 \\"), Vec::<String>::new());
    }
}
