//! Statements that this program answers itself: transaction control, in the words of PostgreSQL's drivers and of SQLite,
//! settings, and those that have no meaning under a WAL. Everything else belongs to SQLite.
//!
//! The first word says whether a statement can be ours. SAVEPOINT, RELEASE, DISCARD, TRUNCATE, CLOSE and DEALLOCATE are
//! [read by `sqlparser`](parsed), which knows every form of them. The others have a grammar here, over SQLite's tokens: that of
//! `sqlparser` refuses forms of them that work, and nothing that SQLite accepts may fail here.
//!
//! | statements | what it does not know (0.63; a test says when it does) |
//! |---|---|
//! | BEGIN, START, SET TRANSACTION | `[NOT] DEFERRABLE`; IMMEDIATE, outside its own SQLite |
//! | BEGIN, COMMIT, END, ROLLBACK, ABORT | SQLite's name behind TRANSACTION. A bare one takes ten times as long, too |
//! | SET, RESET | CONSTRAINTS, XML OPTION, SCHEMA; of RESET, TIME ZONE and TRANSACTION ISOLATION LEVEL |
//! | SHOW | what MySQL shows is no setting (SHOW TABLES); it leaves SESSION out |
//! | COPY | BINARY, USING DELIMITERS, WHERE; HEADER off or MATCH, FREEZE on, FORCE_QUOTE *; SQLite's queries |
//! | DECLARE | options in any order; SQLite's queries |
//! | FETCH, MOVE | a cursor alone or without FROM, counts below zero, FORWARD without one; MOVE |
//! | VACUUM | VERBOSE, options in parentheses, several tables; a table behind ANALYZE |
//! | DROP, ALTER TABLE | SQLite's expressions. So that it fails does not say whose a statement is |
//! | CREATE TABLE | columns without a type, ON CONFLICT, SQLite's types and queries |
//! | those that nobody has | CHECKPOINT, CLUSTER, DO, IMPORT, REASSIGN, REFRESH, SECURITY LABEL, CREATE CAST |

use std::time::Duration;

use mainstay::server::pg::{SqlError, SqlState};

use super::lexer::{Kind, Token, tokens};
use super::session::SlowSetting;
use super::{dialect, policy};

mod copy;
mod cursor;
mod modes;
mod parsed;
mod slow;
mod table_as;
mod temporary;
mod timeouts;
mod transactions;
mod translated;
mod unsupported;

pub(super) use copy::{Copy, Direction, Source};
pub(super) use cursor::parse_cursor;
pub(super) use modes::{Asked, Isolation, Modes};
pub(super) use table_as::TableAs;
pub(super) use temporary::{OnCommit, TemporaryAs, in_words as temporary_in_words, is_temporary_name, makes_temporary};
pub(super) use timeouts::{Timeout, show as show_timeout};
pub(super) use translated::Translated;

/// A statement that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Begin {
        modes: Asked,
        tag: &'static str,
    },
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    SetTransaction(Asked),
    /// Sets the modes that the session's transactions have from now on, unless they ask for others.
    SetDefaults {
        modes: Asked,
        tag: &'static str,
    },
    /// Sets which statements are logged for having taken long; without a value, to what it was at first.
    SetSlow {
        setting: SlowSetting,
        value: Option<String>,
        tag: &'static str,
    },
    /// Sets a timeout of the session, or of the transaction alone; without a value, to what it was at first.
    SetTimeout {
        timeout: Timeout,
        value: Option<Duration>,
        is_local: bool,
        tag: &'static str,
    },
    /// Sets everything to what it was at first.
    ResetAll {
        tag: &'static str,
    },
    /// Drops the session's temporary tables, and sets everything to what it was at first if that is `all`.
    Discard {
        all: bool,
    },
    /// Sets what the client calls itself; without a value, to what it was at first.
    SetName {
        value: Option<String>,
        is_local: bool,
        tag: &'static str,
    },
    /// Sets what has no meaning here.
    Set {
        /// What that is, as the client is told.
        what: String,
        tag: &'static str,
    },
    Show(String),
    Copy(Box<Copy>),
    Translated(Box<Translated>),
}

impl From<Translated> for Command {
    fn from(translated: Translated) -> Command {
        Command::Translated(Box::new(translated))
    }
}

/// The statement as a command of ours; `None` if it is SQLite's.
///
/// # Errors
/// It begins like one of ours and goes on otherwise, or it is refused.
pub(super) fn parse(statement: &str) -> Result<Option<Command>, SqlError> {
    let mut words = Words::new(statement);
    let Some(first) = words.next else { return Ok(None) };
    if first.kind != Kind::Word {
        return Ok(None);
    }
    let command = match first.text.to_ascii_uppercase().as_str() {
        "BEGIN" => words.begin()?,
        "START" => words.start()?,
        "COMMIT" | "END" => words.commit()?,
        "ROLLBACK" | "ABORT" => words.rollback()?,
        "SAVEPOINT" | "RELEASE" | "DISCARD" | "TRUNCATE" => return parsed::command(statement).map(Some),
        "SET" => return words.set().map(Some),
        "RESET" => return Ok(Some(words.reset())),
        "SHOW" => {
            words.advance();
            return words.show().map(Some);
        }
        "COPY" => {
            words.advance();
            Command::Copy(Box::new(words.copy(statement)?))
        }
        "VACUUM" => words.vacuum()?.into(),
        "DROP" => {
            unsupported::refuse(statement)?;
            return Ok(words.drop_many()?.map(Command::from));
        }
        "ALTER" => {
            unsupported::refuse(statement)?;
            refuse_unfit_default(statement)?;
            return Ok(words.add_constraint()?.map(Command::from));
        }
        "CREATE" => {
            unsupported::refuse(statement)?;
            refuse_unfit_default(statement)?;
            let translated = translated::without_storage(statement).or_else(|| translated::idle_serial(statement));
            return Ok(translated.map(Command::from));
        }
        "UNLISTEN" => {
            words.advance();
            // Nobody can listen to anything, so this is done.
            return Ok(Some(Command::Set { what: "UNLISTEN".to_owned(), tag: "UNLISTEN" }));
        }
        _ => {
            unsupported::refuse(statement)?;
            return Ok(None);
        }
    };
    words.end()?;
    Ok(Some(command))
}

/// SQLite would store the word.
fn refuse_unfit_default(statement: &str) -> Result<(), SqlError> {
    let Some(word) = dialect::unfit_default(statement) else { return Ok(()) };
    let hint =
        if word.eq_ignore_ascii_case("now") { "Write DEFAULT now()." } else { "Store it in the statements instead." };
    Err(policy::refused(format!("DEFAULT {word} is not supported")).with_hint(hint))
}

/// A cursor over a statement's tokens.
struct Words<'a> {
    next: Option<Token<'a>>,
    rest: super::lexer::Tokens<'a>,
}

impl<'a> Words<'a> {
    fn new(statement: &'a str) -> Words<'a> {
        let mut rest = tokens(statement);
        Words { next: rest.next(), rest }
    }

    fn advance(&mut self) {
        self.next = self.rest.next();
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = self.next.is_some_and(|token| token.is(keyword));
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, keyword: &str) -> Result<(), SqlError> {
        if self.take(keyword) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> SqlError {
        let message = self.next.map_or_else(
            || "syntax error at end of input".to_owned(),
            |token| format!("syntax error at or near \"{}\"", token.text),
        );
        SqlError::new(SqlState::SYNTAX_ERROR, message)
    }

    fn end(&self) -> Result<(), SqlError> {
        if self.next.is_none() { Ok(()) } else { Err(self.unexpected()) }
    }

    fn name(&mut self) -> Result<String, SqlError> {
        let name = self.next.and_then(|token| token.name()).ok_or_else(|| self.unexpected())?;
        self.advance();
        Ok(name)
    }

    fn set(&mut self) -> Result<Command, SqlError> {
        self.advance();
        let local = self.take("LOCAL");
        let session = self.take("SESSION");
        if self.take("TRANSACTION") {
            return self.modes_to_the_end().map(Command::SetTransaction);
        }
        if session && self.take("CHARACTERISTICS") {
            self.expect("AS")?;
            self.expect("TRANSACTION")?;
            return Ok(Command::SetDefaults { modes: self.modes_to_the_end()?, tag: "SET" });
        }
        let Some(token) = self.next else { return Err(self.unexpected()) };
        let name = token.name().unwrap_or_default();
        if let Some(timeout) = Timeout::of(&name) {
            return self.set_timeout(timeout, local);
        }
        if let Some(setting) = SlowSetting::of(&name) {
            return self.set_slow(setting, local);
        }
        if name == APPLICATION_NAME {
            self.assignment()?;
            let is_default = self.next.is_some_and(|token| token.is("DEFAULT"));
            let value = Some(self.value()?).filter(|_| !is_default);
            self.end()?;
            return Ok(Command::SetName { value, is_local: local, tag: "SET" });
        }
        let Some(mode) = ModeSetting::of(&name) else {
            return Ok(Command::Set { what: without_effect(&name), tag: "SET" });
        };
        self.assignment()?;
        let value = self.value()?;
        self.end()?;
        let modes = mode.asked(&name, &value)?;
        match name.starts_with(DEFAULT_PREFIX) {
            true if local => Err(policy::refused(format!("SET LOCAL {name} is not supported"))
                .with_hint("Use SET TRANSACTION for the modes of this transaction.")),
            true => Ok(Command::SetDefaults { modes, tag: "SET" }),
            false => Ok(Command::SetTransaction(modes)),
        }
    }

    /// Past the name of a setting, and TO or `=`.
    fn assignment(&mut self) -> Result<(), SqlError> {
        self.advance();
        if self.take("TO") { Ok(()) } else { self.symbol('=') }
    }

    fn modes_to_the_end(&mut self) -> Result<Asked, SqlError> {
        let modes = self.modes()?;
        self.end()?;
        Ok(modes)
    }

    fn symbol(&mut self, symbol: char) -> Result<(), SqlError> {
        if self.next.is_none_or(|token| token.kind != Kind::Symbol(symbol)) {
            return Err(self.unexpected());
        }
        self.advance();
        Ok(())
    }

    /// A name, text or number.
    fn value(&mut self) -> Result<String, SqlError> {
        let Some(token) = self.next.filter(|token| token.kind == Kind::Number) else { return self.name() };
        self.advance();
        Ok(token.text.to_owned())
    }

    /// `RESET`, of one setting or all.
    fn reset(&mut self) -> Command {
        let tag = "RESET";
        self.advance();
        let name = self.next.and_then(|token| token.name()).unwrap_or_default();
        if let Some(timeout) = Timeout::of(&name) {
            return Command::SetTimeout { timeout, value: None, is_local: false, tag };
        }
        if let Some(setting) = SlowSetting::of(&name) {
            return Command::SetSlow { setting, value: None, tag };
        }
        match ModeSetting::of(&name).filter(|_| name.starts_with(DEFAULT_PREFIX)) {
            Some(ModeSetting::ReadOnly) => {
                Command::SetDefaults { modes: Asked { isolation: None, ..Asked::ORIGINAL }, tag }
            }
            Some(ModeSetting::Isolation) => {
                Command::SetDefaults { modes: Asked { read_only: None, ..Asked::ORIGINAL }, tag }
            }
            None if name == "all" => Command::ResetAll { tag },
            None if name == APPLICATION_NAME => Command::SetName { value: None, is_local: false, tag },
            None => Command::Set { what: without_effect(&name), tag },
        }
    }

    fn show(&mut self) -> Result<Command, SqlError> {
        let mut name = Vec::new();
        while self.next.is_some() {
            name.push(self.name()?);
        }
        let name = name.join(" ");
        match name.as_str() {
            "" => Err(self.unexpected()),
            "transaction isolation level" => Ok(Command::Show("transaction_isolation".to_owned())),
            _ => Ok(Command::Show(name)),
        }
    }
}

/// The setting that says what a client calls itself.
const APPLICATION_NAME: &str = "application_name";

/// A setting, or what is set without being one, as a client is told of it.
fn without_effect(name: &str) -> String {
    match name {
        "authorization" => "SET SESSION AUTHORIZATION".to_owned(),
        "constraints" | "role" => format!("SET {}", name.to_ascii_uppercase()),
        "time" => "setting \"timezone\"".to_owned(),
        _ => format!("setting \"{name}\""),
    }
}

/// Settings with this prefix are about the transactions to come, those without about the one that is open.
const DEFAULT_PREFIX: &str = "default_";

/// A mode of transactions as a setting.
#[derive(Clone, Copy)]
enum ModeSetting {
    ReadOnly,
    Isolation,
}

impl ModeSetting {
    fn of(name: &str) -> Option<ModeSetting> {
        match name.strip_prefix(DEFAULT_PREFIX).unwrap_or(name) {
            "transaction_read_only" => Some(ModeSetting::ReadOnly),
            "transaction_isolation" => Some(ModeSetting::Isolation),
            _ => None,
        }
    }

    fn asked(self, name: &str, value: &str) -> Result<Asked, SqlError> {
        let original = value.eq_ignore_ascii_case("default").then_some(Asked::ORIGINAL);
        let (read_only, isolation) = match self {
            ModeSetting::ReadOnly => (original.map_or_else(|| boolean(value), |modes| modes.read_only), None),
            ModeSetting::Isolation => {
                (None, original.map_or_else(|| Isolation::from_words(value), |modes| modes.isolation))
            }
        };
        if read_only.is_none() && isolation.is_none() {
            let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
            return Err(SqlError::new(SqlState("22023"), message));
        }
        Ok(Asked { read_only, isolation, at_once: false })
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// The tag of a statement of SQLite's that changes the schema or has no rows: its leading words, as PostgreSQL says them.
pub(super) fn leading_words(statement: &str) -> String {
    let words: Vec<String> = tokens(statement)
        .take(6)
        .map_while(|token| (token.kind == Kind::Word).then(|| token.text.to_ascii_uppercase()))
        .collect();
    let Some(first) = words.first() else { return String::new() };
    if !matches!(first.as_str(), "CREATE" | "DROP" | "ALTER") {
        return first.clone();
    }
    let object = words.iter().skip(1).find(|word| matches!(word.as_str(), "TABLE" | "INDEX" | "VIEW" | "TRIGGER"));
    object.map_or_else(|| first.clone(), |object| format!("{first} {object}"))
}

/// Whether a table's definition says what to do on a conflict, other than to fail.
pub(super) fn has_conflict_clause(definition: &str) -> bool {
    let mut before = [None, None];
    for token in tokens(definition) {
        let [on, conflict]: [Option<Token<'_>>; 2] = before;
        let clause = on.is_some_and(|token| token.is("ON")) && conflict.is_some_and(|token| token.is("CONFLICT"));
        if clause && !token.is("ABORT") {
            return true;
        }
        before = [conflict, Some(token)];
    }
    false
}

#[cfg(test)]
#[path = "command_test.rs"]
mod tests;
