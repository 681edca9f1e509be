//! The settings of `mainstay start`: one table, from which everything about them follows.
//!
//! Each row of [`TABLE`] says what a setting is called, what it means, what it may be, and where its value lives.
//! Flags, environment variables, the configuration file, `config check` and `config print` are derived from the rows,
//! so that no setting can be missing from one of them. A flag beats a variable, a variable beats the file, the file
//! beats the default. All problems are reported at once, each with where it came from.

mod file;
mod print;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay::config::{CheckpointConfig, NodeConfig, WalConfig};
use mainstay::server::http::HttpConfig;
use mainstay::server::pg::PgConfig;

use crate::logging::LogFormat;
use crate::sqlite::SlowLog;
pub use print::{describe, print_defaults};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const PIB: u64 = 1 << 50;

/// The prefix of every environment variable.
const VARIABLE_PREFIX: &str = "MAINSTAY_";

/// Everything that `mainstay start` can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data directory; it has no default.
    pub data_dir: Option<PathBuf>,
    /// The SQL server.
    pub sql: PgConfig,
    /// Health and metrics.
    pub http: HttpConfig,
    /// The write-ahead log.
    pub wal: WalConfig,
    /// When checkpoints happen.
    pub checkpoint: CheckpointConfig,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// Settings of the log on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: LogFormat,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub level: String,
    /// Which statements are logged for having taken long.
    pub slow: SlowLog,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            data_dir: None,
            sql: PgConfig::default(),
            http: HttpConfig::default(),
            wal: WalConfig::default(),
            checkpoint: CheckpointConfig::default(),
            log: LogSettings { format: LogFormat::Text, level: "info".to_owned(), slow: SlowLog::default() },
        }
    }
}

impl Settings {
    /// What the node is opened with; `None` without a data directory.
    pub fn node_config(&self) -> Option<NodeConfig> {
        let mut config = NodeConfig::new(self.data_dir.clone()?);
        config.wal = self.wal.clone();
        config.checkpoint = self.checkpoint.clone();
        Some(config)
    }
}

/// One setting: a row of [`TABLE`].
pub struct Setting {
    /// The section of the file it stands in; empty for the top.
    pub section: &'static str,
    /// Its name within the section, unit last.
    pub name: &'static str,
    /// What it means, in one or two sentences.
    pub meaning: &'static str,
    /// What it may be, and where its value lives.
    kind: Kind,
}

/// What values a setting takes, and the field that holds them.
enum Kind {
    /// A directory.
    Directory(fn(&mut Settings) -> &mut Option<PathBuf>),
    /// A file.
    File(fn(&mut Settings) -> &mut Option<PathBuf>),
    /// True or false.
    Switch(fn(&mut Settings) -> &mut bool),
    /// An address and port.
    Address(fn(&mut Settings) -> &mut SocketAddr),
    /// An address and port, or off.
    OptionalAddress(fn(&mut Settings) -> &mut Option<SocketAddr>),
    /// A length of time in whole milliseconds, or off.
    OptionalMilliseconds { high: u64, field: fn(&mut Settings) -> &mut Option<Duration> },
    /// A number of bytes.
    Bytes { low: u64, high: u64, power_of_two: bool, field: fn(&mut Settings) -> &mut u64 },
    /// A number of bytes held in memory.
    Memory { low: u64, high: u64, field: fn(&mut Settings) -> &mut usize },
    /// A length of time in whole seconds.
    Seconds { low: u64, high: u64, field: fn(&mut Settings) -> &mut Duration },
    /// A number of things.
    Count { low: u64, high: u64, field: fn(&mut Settings) -> &mut usize },
    /// How the log is written.
    Format(fn(&mut Settings) -> &mut LogFormat),
    /// What is logged.
    Filter(fn(&mut Settings) -> &mut String),
}

/// All settings, in the order in which they are printed.
pub const TABLE: &[Setting] = &[
    Setting {
        section: "",
        name: "data_dir",
        meaning: "The data directory. Made if it does not exist; its parent must.",
        kind: Kind::Directory(|settings| &mut settings.data_dir),
    },
    Setting {
        section: "sql",
        name: "listen",
        meaning: "Where PostgreSQL clients connect. Port 0 takes any free port. Addresses beyond loopback need a users file and \
                  TLS, or that what is missing is allowed to be.",
        kind: Kind::Address(|settings| &mut settings.sql.listen),
    },
    Setting {
        section: "sql",
        name: "connection_limit",
        meaning: "How many clients may be connected at once; more are told so and turned away.",
        kind: Kind::Count { low: 1, high: 10_000, field: |settings| &mut settings.sql.connection_limit },
    },
    Setting {
        section: "sql",
        name: "superuser_reserved_connections",
        meaning: "How many of the connections are kept for superusers, so that one of them can look when all others are taken. \
                  Never all.",
        kind: Kind::Count { low: 0, high: 100, field: |settings| &mut settings.sql.superuser_reserved_connections },
    },
    Setting {
        section: "sql",
        name: "users_file",
        meaning: "Who may connect: a line per user as `mainstay user` makes it, \"NAME\" \"VERIFIER\" [superuser]. Instead of a \
                  verifier it may hold the password itself, if nobody else can read the file. Read again when it changes. \
                  Without it everybody who reaches the server is let in.",
        kind: Kind::File(|settings| &mut settings.sql.users_file),
    },
    Setting {
        section: "sql",
        name: "tls_certificate",
        meaning: "The server's certificate and what leads from it to its authority, in PEM. Read again when it changes. Then \
                  clients on other machines must use TLS.",
        kind: Kind::File(|settings| &mut settings.sql.tls_certificate),
    },
    Setting {
        section: "sql",
        name: "tls_key",
        meaning: "The key of the certificate, in PEM. Nobody else may be able to read it.",
        kind: Kind::File(|settings| &mut settings.sql.tls_key),
    },
    Setting {
        section: "sql",
        name: "tls_client_authorities",
        meaning: "Authorities, in PEM, of which every client must show a certificate, beside its password.",
        kind: Kind::File(|settings| &mut settings.sql.tls_client_authorities),
    },
    Setting {
        section: "sql",
        name: "allow_remote_without_password",
        meaning: "Lets everybody in who reaches the server from another machine, and do everything.",
        kind: Kind::Switch(|settings| &mut settings.sql.allow_remote_without_password),
    },
    Setting {
        section: "sql",
        name: "allow_remote_plaintext",
        meaning: "Lets clients on other machines speak without TLS. Whoever is on the way can read and change everything.",
        kind: Kind::Switch(|settings| &mut settings.sql.allow_remote_plaintext),
    },
    Setting {
        section: "sql",
        name: "startup_timeout_s",
        meaning: "How long a client may take from connecting to the end of its authentication.",
        kind: Kind::Seconds { low: 1, high: 3600, field: |settings| &mut settings.sql.startup_timeout },
    },
    Setting {
        section: "sql",
        name: "message_limit_bytes",
        meaning: "Largest message that a client may send; a larger one ends its connection. A connection takes about twice \
                  as much memory while it receives one.",
        kind: Kind::Memory { low: 1 << 10, high: GIB - 1, field: |settings| &mut settings.sql.message_limit_bytes },
    },
    Setting {
        section: "sql",
        name: "send_timeout_s",
        meaning: "How long a client may leave untaken what it asked for. Then it is disconnected and its transaction rolled \
                  back: a statement waits for its client, and other writers for the statement.",
        kind: Kind::Seconds { low: 1, high: 86_400, field: |settings| &mut settings.sql.send_timeout },
    },
    Setting {
        section: "sql",
        name: "statement_timeout_s",
        meaning: "How long a statement may take before it is cancelled. 0 means any time. Sessions may SET statement_timeout.",
        kind: Kind::Seconds { low: 0, high: 86_400, field: |settings| &mut settings.sql.statement_timeout },
    },
    Setting {
        section: "sql",
        name: "lock_timeout_s",
        meaning: "How long a statement may wait for its turn to write before it fails. 0 means any time. Sessions may SET \
                  lock_timeout.",
        kind: Kind::Seconds { low: 0, high: 86_400, field: |settings| &mut settings.sql.lock_timeout },
    },
    Setting {
        section: "sql",
        name: "idle_session_timeout_s",
        meaning: "How long a client may be silent outside of a transaction before it is disconnected. 0 means any time. \
                  Sessions may SET idle_session_timeout.",
        kind: Kind::Seconds { low: 0, high: 86_400, field: |settings| &mut settings.sql.idle_session_timeout },
    },
    Setting {
        section: "sql",
        name: "idle_in_transaction_timeout_s",
        meaning: "How long a client may leave a transaction open without sending anything. Then it is disconnected and the \
                  transaction rolled back: one that wrote keeps all other writers waiting. Sessions may SET \
                  idle_in_transaction_session_timeout.",
        kind: Kind::Seconds { low: 1, high: 86_400, field: |settings| &mut settings.sql.idle_in_transaction_timeout },
    },
    Setting {
        section: "http",
        name: "listen",
        meaning: "Where health (/livez, /readyz, /healthz) and metrics (/metrics) are told. Nobody is asked who he is. Port 0 \
                  takes any free port.",
        kind: Kind::OptionalAddress(|settings| &mut settings.http.listen),
    },
    Setting {
        section: "http",
        name: "allow_remote",
        meaning: "Lets http.listen be an address that other machines reach: whoever does can read what is measured.",
        kind: Kind::Switch(|settings| &mut settings.http.allow_remote),
    },
    Setting {
        section: "http",
        name: "connection_limit",
        meaning: "How many HTTP connections there may be at once; more are closed.",
        kind: Kind::Count { low: 1, high: 1024, field: |settings| &mut settings.http.connection_limit },
    },
    Setting {
        section: "http",
        name: "drain_token_file",
        meaning: "A file with a token of 16 to 1024 characters, which nobody else may read. Who shows it at POST \
                  /health/drain (Authorization: Bearer TOKEN) makes the node not ready, so that no new clients are sent to it.",
        kind: Kind::File(|settings| &mut settings.http.drain_token_file),
    },
    Setting {
        section: "wal",
        name: "segment_size_bytes",
        meaning: "Size of a segment file. Fixed when the data directory is made; one made with another size is refused.",
        kind: Kind::Bytes {
            low: MIB,
            high: GIB,
            power_of_two: true,
            field: |settings| &mut settings.wal.segment_size_bytes,
        },
    },
    Setting {
        section: "wal",
        name: "max_record_bytes",
        meaning: "Largest record, and so the largest transaction. A larger one is refused.",
        kind: Kind::Bytes {
            low: 1 << 10,
            high: GIB,
            power_of_two: false,
            field: |settings| &mut settings.wal.max_record_bytes,
        },
    },
    Setting {
        section: "wal",
        name: "max_unsynced_bytes",
        meaning: "How much may be written and not yet synced; writers beyond it wait.",
        kind: Kind::Bytes {
            low: 64 << 10,
            high: GIB,
            power_of_two: false,
            field: |settings| &mut settings.wal.max_unsynced_bytes,
        },
    },
    Setting {
        section: "wal",
        name: "keep_bytes",
        meaning: "How much WAL is kept behind the last checkpoint. While it reaches back to its start, the engine's files \
                  can be rebuilt from it.",
        kind: Kind::Bytes { low: 0, high: PIB, power_of_two: false, field: |settings| &mut settings.wal.keep_bytes },
    },
    Setting {
        section: "wal",
        name: "max_retained_bytes",
        meaning: "How much WAL slots, readers and the archive may keep before its end. Who keeps more is told why and left \
                  without it, so that it does not fill the disk. 0 means any amount; else not less than keep_bytes.",
        kind: Kind::Bytes {
            low: 0,
            high: PIB,
            power_of_two: false,
            field: |settings| &mut settings.wal.max_retained_bytes,
        },
    },
    Setting {
        section: "wal",
        name: "reserve_bytes",
        meaning: "Free space below which writes are refused, plus two segments, so that what was accepted can finish.",
        kind: Kind::Bytes { low: 0, high: TIB, power_of_two: false, field: |settings| &mut settings.wal.reserve_bytes },
    },
    Setting {
        section: "wal",
        name: "sync_limit_s",
        meaning: "How long a sync may take before the device counts as hanging: the log says so, and the node's health is bad.",
        kind: Kind::Seconds { low: 1, high: 3600, field: |settings| &mut settings.wal.sync_limit },
    },
    Setting {
        section: "wal",
        name: "scrub_bytes_per_second",
        meaning: "How fast old segments are read, again and again, to find damage early; the node's log and health say what \
                  was found. 0 means never.",
        kind: Kind::Bytes {
            low: 0,
            high: GIB,
            power_of_two: false,
            field: |settings| &mut settings.wal.scrub_bytes_per_second,
        },
    },
    Setting {
        section: "checkpoint",
        name: "wal_bytes",
        meaning: "How much WAL is written before a checkpoint. A restart replays at most about this much.",
        kind: Kind::Bytes {
            low: MIB,
            high: TIB,
            power_of_two: false,
            field: |settings| &mut settings.checkpoint.wal_bytes,
        },
    },
    Setting {
        section: "checkpoint",
        name: "interval_s",
        meaning: "How long after a checkpoint the next one follows, if anything was written.",
        kind: Kind::Seconds { low: 1, high: 86_400, field: |settings| &mut settings.checkpoint.interval },
    },
    Setting {
        section: "log",
        name: "format",
        meaning: "How the log on standard error is written: for people or for programs.",
        kind: Kind::Format(|settings| &mut settings.log.format),
    },
    Setting {
        section: "log",
        name: "level",
        meaning: "What is logged: error, warn, info, debug or trace, for all or as in \"info,mainstay::wal=debug\".",
        kind: Kind::Filter(|settings| &mut settings.log.level),
    },
    Setting {
        section: "log",
        name: "min_duration_statement_ms",
        meaning: "From how long on a statement is logged, with its time and text but not with what was bound to its \
                  parameters. Sessions may SET log_min_duration_statement.",
        kind: Kind::OptionalMilliseconds { high: 86_400_000, field: |settings| &mut settings.log.slow.at_least },
    },
    Setting {
        section: "log",
        name: "parameter_max_length_bytes",
        meaning: "How much of each parameter is logged with such a statement. 0 means nothing. Sessions may SET \
                  log_parameter_max_length.",
        kind: Kind::Memory { low: 0, high: MIB, field: |settings| &mut settings.log.slow.parameter_bytes },
    },
];

impl Setting {
    /// Its name in the file: `section.name`.
    pub fn key(&self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// Its flag, without the two hyphens.
    pub fn flag(&self) -> String {
        self.key().replace(['.', '_'], "-")
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key().replace('.', "_").to_uppercase())
    }

    /// Whether it may be left out although it has no default.
    fn is_optional(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// Finds the setting of that key.
    pub fn find(key: &str) -> Option<&'static Setting> {
        TABLE.iter().find(|setting| setting.key() == key)
    }
}

/// A value before it is understood.
pub enum Raw {
    /// Text, as from a flag, a variable, or a quoted string in the file.
    Text(String),
    /// A bare integer in the file.
    Integer(i128),
    /// A bare `true` or `false` in the file.
    Boolean(bool),
}

/// Where a setting was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag(String),
    /// In the environment.
    Variable(String),
    /// In a file, on a line counted from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line; `None` if the problem has none.
        line: Option<usize>,
        /// `section.name`; `None` if the problem is not about one setting.
        key: Option<String>,
    },
    /// In how several settings fit together.
    Together,
}

/// One thing that is wrong with the settings given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What: a sentence that continues the name of the setting.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Flag(flag) => write!(f, "--{flag}: ")?,
            Origin::Variable(variable) => write!(f, "{variable}: ")?,
            Origin::File { path, line, key } => {
                write!(f, "{}:", path.display())?;
                if let Some(line) = line {
                    write!(f, "{line}:")?;
                }
                f.write_str(" ")?;
                if let Some(key) = key {
                    write!(f, "{key}: ")?;
                }
            }
            Origin::Together => {}
        }
        f.write_str(&self.what)
    }
}

/// Where settings are taken from.
pub struct Sources<'a> {
    /// The flags given: setting and value.
    pub flags: Vec<(&'static Setting, String)>,
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The configuration file, if there is one.
    pub file: Option<&'a Path>,
}

/// Puts the settings together.
///
/// # Errors
/// Every problem of every source.
pub fn gather(sources: &Sources<'_>) -> Result<Settings, Vec<Problem>> {
    let mut settings = Settings::default();
    let mut problems = Vec::new();
    if let Some(path) = sources.file {
        file::read(path, &mut settings, &mut problems);
    }
    for setting in TABLE {
        let variable = setting.variable();
        let Some(text) = (sources.variable)(&variable) else { continue };
        let result = match text.into_string() {
            Ok(text) => setting.set(&mut settings, Raw::Text(text)),
            Err(_) => Err("is not valid UTF-8".to_owned()),
        };
        if let Err(what) = result {
            problems.push(Problem { origin: Origin::Variable(variable), what });
        }
    }
    for (setting, text) in &sources.flags {
        if let Err(what) = setting.set(&mut settings, Raw::Text(text.clone())) {
            problems.push(Problem { origin: Origin::Flag(setting.flag()), what });
        }
    }
    if problems.is_empty() {
        check_together(&settings, &mut problems);
    }
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// Checks one file by itself, as `config check` does.
///
/// # Errors
/// Every problem in it.
pub fn check_file(path: &Path) -> Result<(), Vec<Problem>> {
    gather(&Sources { flags: Vec::new(), variable: &|_| None, file: Some(path) }).map(|_| ())
}

/// What the library finds wrong with settings that are each in range.
fn check_together(settings: &Settings, problems: &mut Vec<Problem>) {
    let mut add = |what: String| problems.push(Problem { origin: Origin::Together, what });
    // Any directory will do: a file is checked without one.
    let node = Settings { data_dir: Some(settings.data_dir.clone().unwrap_or_default()), ..settings.clone() };
    if let Some(Err(error)) = node.node_config().map(|config| config.validate()) {
        error.problems.iter().for_each(|problem| add(format!("{} {}", problem.setting, problem.what)));
    }
    if let Err(error) = settings.sql.validate() {
        add(error.to_string());
    }
    if let Err(error) = settings.http.validate() {
        add(error.to_string());
    }
}

/// The variables that begin like ours and set nothing: likely a misspelling, but not surely, because orchestrators add
/// variables named after a service.
pub fn unknown_variables() -> Vec<String> {
    let known = |name: &str| TABLE.iter().any(|setting| setting.variable() == name);
    let mut unknown: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with(VARIABLE_PREFIX) && !name.starts_with("MAINSTAY_TEST_"))
        .filter(|name| name != crate::cli::CONFIG_VARIABLE && !known(name))
        .collect();
    unknown.sort();
    unknown
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
