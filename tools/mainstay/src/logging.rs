//! The log on standard error. Standard output belongs to the ready line and to results.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// The name it has in settings.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<LogFormat> {
        [LogFormat::Text, LogFormat::Json].into_iter().find(|format| format.name() == name)
    }
}

/// Says whether a filter can be understood.
///
/// # Errors
/// Why not, in one line.
pub fn check_filter(filter: &str) -> Result<(), String> {
    // A lone word that is no level would be taken for a module's name, and silence everything else.
    let is_directive = |part: &str| part.contains('=') || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
    if let Some(part) = filter.split(',').find(|part| !is_directive(part.trim())) {
        return Err(format!("{part:?} is neither MODULE=LEVEL nor one of {}", LEVELS.join(", ")));
    }
    EnvFilter::builder().parse(filter).map(|_| ()).map_err(|error| error.to_string())
}

/// Starts logging; once per process.
///
/// # Errors
/// The filter is not understood, or logging runs already.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(filter)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
