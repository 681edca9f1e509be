//! The timeouts of a session and what its client calls itself, which transactions and savepoints take back with what else they
//! take back.

use std::sync::Arc;
use std::time::Duration;

use mainstay::server::pg::{ClientInfo, ResultSink, SqlError, SqlState, Timeouts};

use super::super::command::Timeout;
use super::{SqliteSession, warning};

/// Stands for any time where a time is needed: about 24 days, PostgreSQL's longest.
const ANY_TIME: Duration = Duration::from_millis(i32::MAX as u64);

/// The setting that says what a client calls itself.
pub(super) const APPLICATION_NAME: &str = "application_name";
/// More of it is not kept, as in PostgreSQL.
const NAME_LIMIT_BYTES: usize = 63;

/// The timeouts of a session, and what its client calls itself.
pub(super) struct SessionTimeouts {
    /// What RESET goes back to.
    original: Values,
    now: Level,
    /// As they were when the transaction began.
    before: Level,
    /// As they were at each of its savepoints.
    at_savepoints: Vec<Level>,
    /// What the client was told last that it is called.
    told_name: Arc<str>,
}

#[derive(Clone)]
struct Values {
    timeouts: Timeouts,
    application_name: Arc<str>,
}

#[derive(Clone)]
struct Level {
    /// Of the session.
    session: Values,
    /// Of the transaction, which SET LOCAL changes.
    local: Values,
}

impl Level {
    fn of(values: Values) -> Level {
        Level { session: values.clone(), local: values }
    }
}

impl SessionTimeouts {
    /// Those that the server gives, changed as the client's startup packet says.
    ///
    /// # Errors
    /// 22023 for a value that is none.
    pub(super) fn new(client: &ClientInfo) -> Result<SessionTimeouts, SqlError> {
        let mut timeouts = client.timeouts;
        let mut application_name = String::new();
        let options = client.parameters.get("options").map(|options| assignments(options)).unwrap_or_default();
        let named = client.parameters.iter().map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in options.into_iter().chain(named) {
            if let Some(timeout) = Timeout::of(&name) {
                *timeout.field(&mut timeouts) = timeout.parse(&value)?;
            } else if name == APPLICATION_NAME {
                application_name = value;
            }
        }
        // As it was greeted with.
        let told_name = client.parameters.get(APPLICATION_NAME).map_or("", String::as_str).into();
        let original = Values { timeouts, application_name: cut(&application_name).into() };
        let now = Level::of(original.clone());
        Ok(SessionTimeouts { original, before: now.clone(), now, at_savepoints: Vec::new(), told_name })
    }

    /// Those in force.
    pub(super) fn now(&self) -> Timeouts {
        self.now.local.timeouts
    }

    /// What the client calls itself.
    pub(super) fn application_name(&self) -> &Arc<str> {
        &self.now.local.application_name
    }

    /// The same, if the client does not know.
    pub(super) fn untold_name(&mut self) -> Option<Arc<str>> {
        let name = Arc::clone(self.application_name());
        (std::mem::replace(&mut self.told_name, Arc::clone(&name)) != name).then_some(name)
    }

    /// How long to wait for a lock.
    pub(super) fn lock(&self) -> Duration {
        if self.now().lock.is_zero() { ANY_TIME } else { self.now().lock }
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.before = self.now.clone();
        self.at_savepoints.clear();
    }

    /// The transaction ends.
    pub(super) fn end(&mut self, committed: bool) {
        let ended = if committed { &self.now } else { &self.before };
        self.now = Level::of(ended.session.clone());
        self.at_savepoints.clear();
    }

    /// A savepoint is set.
    pub(super) fn savepoint(&mut self) {
        self.at_savepoints.push(self.now.clone());
    }

    /// The savepoint at that position, and those behind it, are forgotten.
    pub(super) fn release(&mut self, position: usize) {
        self.at_savepoints.truncate(position);
    }

    /// Goes back to the savepoint at that position, which stays.
    pub(super) fn roll_back_to(&mut self, position: usize) {
        if let Some(then) = self.at_savepoints.get(position) {
            self.now = then.clone();
        }
        self.at_savepoints.truncate(position + 1);
    }

    /// Sets one; without a value, to what it was at first.
    pub(super) fn set(&mut self, timeout: Timeout, value: Option<Duration>, is_local: bool) {
        let value = value.unwrap_or_else(|| *timeout.field(&mut self.original.timeouts));
        *timeout.field(&mut self.now.local.timeouts) = value;
        if !is_local {
            *timeout.field(&mut self.now.session.timeouts) = value;
        }
    }

    /// Sets what the client calls itself; without a name, to what it was at first.
    fn set_name(&mut self, name: Option<&str>, is_local: bool) {
        let name = name.map_or_else(|| Arc::clone(&self.original.application_name), |name| cut(name).into());
        if !is_local {
            self.now.session.application_name = Arc::clone(&name);
        }
        self.now.local.application_name = name;
    }

    /// Sets all to what they were at first.
    pub(super) fn reset(&mut self) {
        self.now = Level::of(self.original.clone());
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

    /// Sets what the client calls itself; without a name, to what it was at first.
    pub(super) fn set_name(
        &mut self,
        name: Option<&str>,
        is_local: bool,
        sink: &mut dyn ResultSink,
    ) -> Result<(), SqlError> {
        if is_local && self.transaction.is_none() {
            let message = "SET LOCAL can only be used in transaction blocks";
            return sink.notice(&warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, message));
        }
        self.timeouts.set_name(name, is_local);
        Ok(())
    }

    /// What clients are told of without asking, as far as it changed.
    pub(super) fn untold_settings(&mut self) -> Vec<(&'static str, String)> {
        let Some(name) = self.timeouts.untold_name() else { return Vec::new() };
        if let Some(activity) = &self.activity {
            activity.rename(&name);
        }
        vec![(APPLICATION_NAME, name.to_string())]
    }
}

/// As much of a name as is kept.
fn cut(name: &str) -> &str {
    let end = (0..=NAME_LIMIT_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    name.get(..end).unwrap_or_default()
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
