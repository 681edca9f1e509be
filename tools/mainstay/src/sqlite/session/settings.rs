//! What SHOW knows, and `pg_settings` lists.

use mainstay::server::pg::catalog::model::Setting;
use mainstay::server::pg::{
    Column, CommandTag, Description, PgType, ResultSink, SERVER_VERSION, SqlError, SqlState, Value,
};

use super::super::command::{Timeout, show_timeout};
use super::super::engine::ONLY_NAME;
use super::timeouts::APPLICATION_NAME;
use super::{SlowSetting, SqliteSession, catalogs};

/// SHOW of this name answers all settings.
const ALL: &str = "all";
/// The version of PostgreSQL that is spoken, as a number.
const SERVER_VERSION_NUMBER: &str = "150000";

/// Name, meaning, and whether a session can change it for itself.
const SETTINGS: &[(&str, &str, bool)] = &[
    (APPLICATION_NAME, "What the client calls itself.", true),
    ("bytea_output", "How bytes are written.", false),
    ("client_encoding", "The encoding of text sent and received.", false),
    ("client_min_messages", "Which messages are sent to clients.", false),
    ("datestyle", "How dates are written.", false),
    ("default_table_access_method", "How the rows of tables are kept.", false),
    ("default_transaction_isolation", "The isolation level of transactions that ask for none.", true),
    ("default_transaction_read_only", "Whether transactions that do not say so may only read.", true),
    ("log_min_duration_statement", "From how long on statements are logged; -1 means never.", true),
    ("log_parameter_max_length", "So many bytes of each parameter are logged with them.", true),
    ("extra_float_digits", "Floating-point numbers are written so that they read back the same.", false),
    ("in_hot_standby", "Whether this node only follows another one.", false),
    ("integer_datetimes", "Times are kept as integers.", false),
    (
        "idle_in_transaction_session_timeout",
        "How long a client may leave a transaction open and idle; 0 means any time.",
        true,
    ),
    ("idle_session_timeout", "How long a client may be silent outside of a transaction; 0 means any time.", true),
    ("intervalstyle", "How intervals are written.", false),
    ("lock_timeout", "How long a statement waits for its turn to write; 0 means any time.", true),
    ("max_connections", "So many clients may be connected at a time.", false),
    ("search_path", "The schema where names are looked up.", false),
    ("server_encoding", "The encoding of stored text.", false),
    ("server_version", "The version of PostgreSQL that is spoken, and what it really is.", false),
    ("server_version_num", "The same as a number.", false),
    ("session_authorization", "The role that the client logged in as.", false),
    ("standard_conforming_strings", "A backslash in a string is a backslash.", false),
    ("statement_timeout", "How long a statement may take; 0 means any time.", true),
    ("timezone", "The time zone in which times are shown.", false),
    ("transaction_isolation", "The isolation level of this transaction.", true),
    ("transaction_read_only", "Whether this transaction may only read.", true),
];

impl SqliteSession {
    /// The value of a setting, as SHOW says it.
    ///
    /// # Errors
    /// 42704: there is none of that name.
    pub(super) fn setting(&self, name: &str) -> Result<String, SqlError> {
        if let Some(setting) = SlowSetting::of(name) {
            return Ok(self.slow.show(setting));
        }
        if let Some(timeout) = Timeout::of(name) {
            return Ok(show_timeout(*timeout.field(&mut self.timeouts.now())));
        }
        let modes = self.modes();
        let on_or_off = |on: bool| if on { "on" } else { "off" }.to_owned();
        Ok(match name {
            APPLICATION_NAME => self.timeouts.application_name().to_string(),
            "server_version" => SERVER_VERSION.to_owned(),
            "server_version_num" => SERVER_VERSION_NUMBER.to_owned(),
            "max_connections" => self.connection_limit.to_string(),
            "session_authorization" => self.activity.as_ref().map_or(ONLY_NAME, |activity| activity.user()).to_owned(),
            "bytea_output" => "hex".to_owned(),
            "client_min_messages" => "notice".to_owned(),
            "extra_float_digits" => "1".to_owned(),
            "in_hot_standby" => "off".to_owned(),
            "intervalstyle" => "postgres".to_owned(),
            "transaction_isolation" => modes.isolation.words().to_owned(),
            "default_transaction_isolation" => self.defaults.isolation.words().to_owned(),
            "transaction_read_only" => on_or_off(modes.read_only),
            "default_transaction_read_only" => on_or_off(self.defaults.read_only),
            "server_encoding" | "client_encoding" => "UTF8".to_owned(),
            "standard_conforming_strings" | "integer_datetimes" => "on".to_owned(),
            "search_path" => "main".to_owned(),
            "default_table_access_method" => "heap".to_owned(),
            "timezone" => "UTC".to_owned(),
            "datestyle" => "ISO, MDY".to_owned(),
            _ => {
                let message = format!("unrecognized configuration parameter \"{name}\"");
                return Err(SqlError::new(SqlState("42704"), message));
            }
        })
    }

    /// Answers SHOW of a setting, of all, or of something else that is shown as a list.
    pub(super) fn show(&mut self, name: String, sink: &mut dyn ResultSink) -> Result<CommandTag, SqlError> {
        if catalogs::is_listed(&name) {
            return self.show_list(&name, sink);
        }
        if name == ALL {
            self.show_all(sink)?;
        } else {
            let value = self.setting(&name)?;
            sink.columns(&[Column { name, pg_type: PgType::TEXT }])?;
            sink.row(&[Value::Text(&value)])?;
        }
        Ok(CommandTag("SHOW".to_owned()))
    }

    /// What that returns.
    pub(super) fn describe_show(&mut self, name: String) -> Result<Description, SqlError> {
        if catalogs::is_listed(&name) {
            return self.describe_list(&name);
        }
        let columns = if name == ALL { columns_of_all() } else { vec![Column { name, pg_type: PgType::TEXT }] };
        Ok(Description { columns, ..Description::default() })
    }

    /// Answers all of them.
    fn show_all(&self, sink: &mut dyn ResultSink) -> Result<(), SqlError> {
        sink.columns(&columns_of_all())?;
        self.settings().iter().try_for_each(|setting| {
            sink.row(&[Value::Text(&setting.name), Value::Text(&setting.value), Value::Text(&setting.meaning)])
        })
    }

    /// All of them, by name.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let setting = |(name, meaning, settable): &(&str, &str, bool)| {
            let value = self.setting(name).ok()?;
            Some(Setting { name: (*name).to_owned(), value, meaning: (*meaning).to_owned(), settable: *settable })
        };
        let mut settings: Vec<Setting> = SETTINGS.iter().filter_map(setting).collect();
        settings.sort_by(|one, other| one.name.cmp(&other.name));
        settings
    }
}

/// What SHOW ALL returns.
fn columns_of_all() -> Vec<Column> {
    let text = |name: &str| Column { name: name.to_owned(), pg_type: PgType::TEXT };
    ["name", "setting", "description"].map(text).to_vec()
}
