//! Errors as PostgreSQL clients expect them: a severity, a SQLSTATE and a message.

use std::fmt;

/// A five-character error code (PostgreSQL documentation, appendix A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

macro_rules! sql_states {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        impl SqlState {
            $(#[doc = $doc] pub const $name: SqlState = SqlState($code);)*
        }
    };
}

sql_states! {
    WARNING = "01000", "A warning without a code of its own.";
    CONNECTION_FAILURE = "08006", "The connection broke.";
    PROTOCOL_VIOLATION = "08P01", "The client broke the protocol.";
    FEATURE_NOT_SUPPORTED = "0A000", "What was asked for does not exist here.";
    NUMERIC_VALUE_OUT_OF_RANGE = "22003", "A number does not fit its type.";
    INVALID_DATETIME_FORMAT = "22007", "Text is no date or time.";
    CHARACTER_NOT_IN_REPERTOIRE = "22021", "Text is not valid UTF-8.";
    INVALID_PARAMETER_VALUE = "22023", "A setting or argument cannot have that value.";
    INVALID_TEXT_REPRESENTATION = "22P02", "Text does not stand for a value of its type.";
    BAD_COPY_FILE_FORMAT = "22P04", "The data of a COPY does not have the form that it should have.";
    INVALID_BINARY_REPRESENTATION = "22P03", "Bytes do not stand for a value of their type.";
    INTEGRITY_CONSTRAINT_VIOLATION = "23000", "A constraint without a code of its own was violated.";
    NOT_NULL_VIOLATION = "23502", "NULL where none may be.";
    FOREIGN_KEY_VIOLATION = "23503", "A reference to a row that does not exist.";
    UNIQUE_VIOLATION = "23505", "A value that exists already.";
    CHECK_VIOLATION = "23514", "A check constraint was violated.";
    ACTIVE_SQL_TRANSACTION = "25001", "A transaction block is open already.";
    READ_ONLY_SQL_TRANSACTION = "25006", "Writes are not possible here or now.";
    NO_ACTIVE_SQL_TRANSACTION = "25P01", "No transaction block is open.";
    IN_FAILED_SQL_TRANSACTION = "25P02", "The transaction block has failed and can only be ended.";
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = "25P03", "A transaction was left open for too long.";
    INVALID_SQL_STATEMENT_NAME = "26000", "No prepared statement of that name.";
    OBJECT_NOT_IN_PREREQUISITE_STATE = "55000", "It cannot be used so in the state it is in.";
    INVALID_PASSWORD = "28P01", "The password is wrong, or the user unknown.";
    INVALID_AUTHORIZATION = "28000", "This role may not connect.";
    INVALID_CURSOR_NAME = "34000", "No portal of that name.";
    INVALID_CATALOG_NAME = "3D000", "No database of that name.";
    TRANSACTION_RESOLUTION_UNKNOWN = "08007", "Whether the transaction committed is not known; it may still.";
    SYNTAX_ERROR = "42601", "The statement does not parse.";
    NAME_TOO_LONG = "42622", "A name is longer than names may be.";
    UNDEFINED_COLUMN = "42703", "No column of that name.";
    UNDEFINED_FUNCTION = "42883", "No function of that name.";
    UNDEFINED_TABLE = "42P01", "No table of that name.";
    DUPLICATE_TABLE = "42P07", "A table of that name exists already.";
    DUPLICATE_CURSOR = "42P03", "A portal of that name exists already.";
    DUPLICATE_PREPARED_STATEMENT = "42P05", "A prepared statement of that name exists already.";
    UNDEFINED_PARAMETER = "42P02", "A parameter that was not given.";
    DUPLICATE_COLUMN = "42701", "A column of that name exists already.";
    DISK_FULL = "53100", "The disk is full.";
    TOO_MANY_CONNECTIONS = "53300", "The limit on connections is reached.";
    PROGRAM_LIMIT_EXCEEDED = "54000", "Larger than anything may be.";
    LOCK_NOT_AVAILABLE = "55P03", "Somebody else holds what this needs.";
    QUERY_CANCELED = "57014", "The statement was cancelled.";
    ADMIN_SHUTDOWN = "57P01", "The server is stopping.";
    CANNOT_CONNECT_NOW = "57P03", "The server takes no connections now.";
    IDLE_SESSION_TIMEOUT = "57P05", "A client was silent for too long.";
    IO_ERROR = "58030", "Reading or writing a file failed.";
    DATA_CORRUPTED = "XX001", "Stored data is damaged.";
    INTERNAL_ERROR = "XX000", "A fault of the server itself.";
}

/// How much an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement.
    Error,
    /// The connection.
    Fatal,
    /// Nothing: the client is told and goes on.
    Notice,
    /// Nothing, but the client should look at it.
    Warning,
}

impl Severity {
    /// The protocol's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Notice => "NOTICE",
            Severity::Warning => "WARNING",
        }
    }
}

/// An error or notice for the client. It never carries a secret: clients and logs both see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What it ends.
    pub severity: Severity,
    /// Its code, which programs look at.
    pub state: SqlState,
    /// One line for people.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where it happened, such as the line of the data.
    pub context: Option<Box<str>>,
    /// What of the database it is about, by name. Boxed, as most errors are about nothing of it and each `Result` has room for
    /// one.
    pub object: Option<Box<ErrorObject>>,
}

/// What of the database an error is about, as far as the engine knows: programs look at the names, such as that of the
/// constraint that was violated, where they would have to read them off the message (PostgreSQL documentation, chapter
/// "Error and Notice Message Fields"). Names only: no value of a client's is among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorObject {
    /// The schema that the table is in.
    pub schema: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The column of the table.
    pub column: Option<String>,
    /// The data type.
    pub data_type: Option<String>,
    /// The constraint, or the index that stands for one.
    pub constraint: Option<String>,
}

impl SqlError {
    /// An error that ends the statement.
    pub fn new(state: SqlState, message: impl Into<String>) -> SqlError {
        let message = message.into();
        SqlError { severity: Severity::Error, state, message, detail: None, hint: None, context: None, object: None }
    }

    /// An error that ends the connection.
    pub fn fatal(state: SqlState, message: impl Into<String>) -> SqlError {
        SqlError { severity: Severity::Fatal, ..SqlError::new(state, message) }
    }

    /// A notice that ends nothing.
    pub fn notice(message: impl Into<String>) -> SqlError {
        SqlError { severity: Severity::Notice, ..SqlError::new(SqlState("00000"), message) }
    }

    /// With more about it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> SqlError {
        self.detail = Some(detail.into());
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    /// With where it happened, unless that is known more closely already.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> SqlError {
        self.context.get_or_insert_with(|| context.into().into_boxed_str());
        self
    }

    /// With what of the database it is about.
    #[must_use]
    pub fn with_object(mut self, object: ErrorObject) -> SqlError {
        self.object = Some(Box::new(object));
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.state.0)
    }
}

impl std::error::Error for SqlError {}
