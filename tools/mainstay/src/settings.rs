//! The settings of `mainstay start`: one table, from which everything about them follows.
//!
//! Each row of [`TABLE`] says what a setting is called, what it means, what it may be, and where its value lives.
//! Flags, environment variables, the configuration file, `config check` and `config print` are derived from the rows,
//! so that no setting can be missing from one of them. A flag beats a variable, a variable beats the file, the file
//! beats the default. All problems are reported at once, each with where it came from.

mod cluster;
mod file;
mod print;
mod table;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay::config::{CheckpointConfig, NodeConfig, WalConfig};
use mainstay::meta::token::JoinToken;
use mainstay::net::tls::Tls;
use mainstay::net::{Address, NetError};
use mainstay::server::http::HttpConfig;
use mainstay::server::pg::{ClientCertificates, PgConfig, ServerError, UsersError};

use crate::logging::LogFormat;
use crate::sqlite::SlowLog;
pub use cluster::ClusterSettings;
pub use print::{describe, print_defaults};
pub use table::TABLE;
pub use value::milliseconds;

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
    /// The cluster that the node is, or is to be, a member of.
    pub cluster: ClusterSettings,
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
            cluster: ClusterSettings::default(),
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
    /// What certificates of clients prove.
    Certificates(fn(&mut Settings) -> &mut ClientCertificates),
    /// How the log is written.
    Format(fn(&mut Settings) -> &mut LogFormat),
    /// A name, or none.
    Name(fn(&mut Settings) -> &mut Option<String>),
    /// Where a node is reached; its host may have a name. Or nowhere.
    NodeAddress(fn(&mut Settings) -> &mut Option<Address>),
    /// Where nodes are reached.
    NodeAddresses(fn(&mut Settings) -> &mut Vec<Address>),
    /// A join token, which is never shown.
    Token(fn(&mut Settings) -> &mut Option<JoinToken>),
    /// What is logged.
    Filter(fn(&mut Settings) -> &mut String),
}

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
        matches!(
            self.kind,
            Kind::File(_) | Kind::Name(_) | Kind::NodeAddress(_) | Kind::NodeAddresses(_) | Kind::Token(_)
        )
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

/// Checks one file by itself, and those that it names, as `config check` does.
///
/// # Errors
/// Every problem in it; if there is none, every problem in the others.
pub fn check_file(path: &Path) -> Result<(), Vec<Problem>> {
    let settings = gather(&Sources { flags: Vec::new(), variable: &|_| None, file: Some(path) })?;
    let problems = check_named_files(&settings);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What is wrong with the files that settings name: users, certificates and keys.
fn check_named_files(settings: &Settings) -> Vec<Problem> {
    let mut problems: Vec<Problem> = settings.sql.check_files().into_iter().map(file_problem).collect();
    // That the cluster's settings make sense was checked before.
    let tls = settings.cluster.config().ok().and_then(|cluster| cluster.tls);
    if let Some(Err(error)) = tls.map(Tls::load) {
        problems.push(file_problem(ServerError::Tls(error)));
    }
    problems
}

fn file_problem(error: ServerError) -> Problem {
    let in_file = |path: PathBuf, line, what| Problem { origin: Origin::File { path, line, key: None }, what };
    match error {
        ServerError::Users(UsersError { path, line, what }) => in_file(path, line, what),
        ServerError::Tls(NetError::TlsFile { path, what }) => in_file(path, None, what),
        other => Problem { origin: Origin::Together, what: other.to_string() },
    }
}

/// What the library finds wrong with settings that are each in range.
fn check_together(settings: &Settings, problems: &mut Vec<Problem>) {
    let mut add = |what: String| problems.push(Problem { origin: Origin::Together, what });
    // Any directory will do: a file is checked without one.
    let node = Settings { data_dir: Some(settings.data_dir.clone().unwrap_or_default()), ..settings.clone() };
    if let Some(Err(error)) = node.node_config().map(|config| config.validate()) {
        error.problems.iter().for_each(|problem| add(format!("{} {}", problem.setting, problem.what)));
    }
    match settings.cluster.config() {
        Ok(cluster) => {
            if let Err(error) = cluster.validate() {
                error.problems.iter().for_each(|problem| add(format!("{} {}", problem.setting, problem.what)));
            }
        }
        Err(problems) => problems.into_iter().for_each(&mut add),
    }
    if let Err(error) = settings.sql.validate() {
        add(error.to_string());
    }
    if let Err(error) = settings.http.validate() {
        add(error.to_string());
    }
    let listens = |name, address: Option<SocketAddr>| address.map(|address| (name, address));
    let cluster = listens("cluster.listen", settings.cluster.listen);
    let (sql, http) = (listens("sql.listen", Some(settings.sql.listen)), listens("http.listen", settings.http.listen));
    for pair in [[cluster, sql], [cluster, http], [sql, http]] {
        if let [Some((one, at)), Some((other, there))] = pair
            && is_same_port(at, there)
        {
            add(format!("{one} and {other} are the same port: {at} and {there}"));
        }
    }
}

/// Whether two cannot both listen there. Port 0 is another one each time.
pub fn is_same_port(one: SocketAddr, other: SocketAddr) -> bool {
    // On most systems all addresses of IPv6 are also those of IPv4.
    let takes_all =
        |all: SocketAddr, other: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || other.is_ipv4());
    let overlap = one.ip() == other.ip() || takes_all(one, other) || takes_all(other, one);
    one.port() == other.port() && one.port() != 0 && overlap
}

/// Those of the variables that begin like ours and that nothing here reads: likely a misspelling, but not surely, because
/// orchestrators add variables named after a service.
pub fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let is_setting = |name: &str| TABLE.iter().any(|setting| setting.variable() == name);
    let mut unknown: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(VARIABLE_PREFIX) && !name.starts_with("MAINSTAY_TEST_"))
        .filter(|name| !is_setting(name) && !crate::cli::reads_variable(name))
        .collect();
    unknown.sort();
    unknown
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
