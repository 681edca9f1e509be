//! Statements that this program answers itself: transaction control, in the words of PostgreSQL's drivers and of SQLite,
//! settings, and those that have no meaning under a WAL. Everything else belongs to SQLite.

use mainstay::server::pg::{SqlError, SqlState};

use super::lexer::{Kind, Token, tokens};
use super::policy;

/// What a transaction may do and see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    /// Writes are refused.
    pub(super) read_only: bool,
    /// It sees one state from its first statement on.
    pub(super) stable: bool,
    /// The level as it was asked for.
    pub(super) isolation: Isolation,
}

/// PostgreSQL's isolation levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Isolation {
    #[default]
    ReadCommitted,
    ReadUncommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    /// As `SHOW transaction_isolation` says it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read committed",
            Isolation::ReadUncommitted => "read uncommitted",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        }
    }
}

/// A statement that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Begin { modes: Modes, tag: &'static str },
    Commit { chain: bool },
    Rollback { chain: bool },
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    SetTransaction(Modes),
    Set { tag: &'static str },
    Show(String),
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
        "BEGIN" => words.begin("BEGIN")?,
        "START" => {
            words.advance();
            words.expect("TRANSACTION")?;
            Command::Begin { modes: words.modes()?, tag: "START TRANSACTION" }
        }
        "COMMIT" | "END" => {
            words.advance();
            Command::Commit { chain: words.chain()? }
        }
        "ROLLBACK" | "ABORT" => words.rollback()?,
        "SAVEPOINT" => {
            words.advance();
            Command::Savepoint(words.name()?)
        }
        "RELEASE" => {
            words.advance();
            words.take("SAVEPOINT");
            Command::Release(words.name()?)
        }
        "SET" => return words.set().map(Some),
        "RESET" => return Ok(Some(Command::Set { tag: "RESET" })),
        "DISCARD" => return Ok(Some(Command::Set { tag: "DISCARD" })),
        "SHOW" => {
            words.advance();
            return words.show().map(Some);
        }
        "VACUUM" => {
            return Err(policy::refused("VACUUM is not supported: it rewrites the database behind the WAL"));
        }
        _ => return Ok(None),
    };
    words.end()?;
    Ok(Some(command))
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

    fn work(&mut self) {
        let _ = self.take("WORK") || self.take("TRANSACTION");
    }

    /// `AND [NO] CHAIN`
    fn chain(&mut self) -> Result<bool, SqlError> {
        self.work();
        if !self.take("AND") {
            return Ok(false);
        }
        let no = self.take("NO");
        self.expect("CHAIN")?;
        Ok(!no)
    }

    fn begin(&mut self, tag: &'static str) -> Result<Command, SqlError> {
        self.advance();
        // SQLite's own: both take the writer's place at once, which is what a stable transaction that may write does.
        let at_once = self.take("IMMEDIATE") || self.take("EXCLUSIVE");
        let _ = at_once || self.take("DEFERRED");
        self.work();
        let mut modes = self.modes()?;
        modes.stable |= at_once;
        Ok(Command::Begin { modes, tag })
    }

    fn modes(&mut self) -> Result<Modes, SqlError> {
        let mut modes = Modes::default();
        loop {
            if self.take("ISOLATION") {
                self.expect("LEVEL")?;
                modes.isolation = self.isolation()?;
            } else if self.take("READ") {
                modes.read_only = self.take("ONLY");
                if !modes.read_only {
                    self.expect("WRITE")?;
                }
            } else if self.take("NOT") {
                self.expect("DEFERRABLE")?;
            } else if !self.take("DEFERRABLE") {
                break;
            }
            if self.next.is_some_and(|token| token.kind == Kind::Symbol(',')) {
                self.advance();
            }
        }
        modes.stable = matches!(modes.isolation, Isolation::RepeatableRead | Isolation::Serializable);
        Ok(modes)
    }

    fn isolation(&mut self) -> Result<Isolation, SqlError> {
        if self.take("SERIALIZABLE") {
            return Ok(Isolation::Serializable);
        }
        if self.take("REPEATABLE") {
            self.expect("READ")?;
            return Ok(Isolation::RepeatableRead);
        }
        self.expect("READ")?;
        if self.take("UNCOMMITTED") {
            return Ok(Isolation::ReadUncommitted);
        }
        self.expect("COMMITTED")?;
        Ok(Isolation::ReadCommitted)
    }

    fn rollback(&mut self) -> Result<Command, SqlError> {
        self.advance();
        self.work();
        if self.take("TO") {
            self.take("SAVEPOINT");
            return Ok(Command::RollbackTo(self.name()?));
        }
        Ok(Command::Rollback { chain: self.chain()? })
    }

    fn set(&mut self) -> Result<Command, SqlError> {
        self.advance();
        if self.take("TRANSACTION") {
            let modes = self.modes()?;
            self.end()?;
            return Ok(Command::SetTransaction(modes));
        }
        if self.next.is_none() { Err(self.unexpected()) } else { Ok(Command::Set { tag: "SET" }) }
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
mod tests {
    use super::*;

    #[test]
    fn transaction_control_of_both_worlds_is_understood() {
        let begin = |read_only, isolation, stable| {
            Some(Command::Begin { modes: Modes { read_only, stable, isolation }, tag: "BEGIN" })
        };
        let cases = [
            ("BEGIN", begin(false, Isolation::ReadCommitted, false)),
            ("/* x */ begin -- y\n work", begin(false, Isolation::ReadCommitted, false)),
            ("BEGIN DEFERRED TRANSACTION", begin(false, Isolation::ReadCommitted, false)),
            ("BEGIN IMMEDIATE", begin(false, Isolation::ReadCommitted, true)),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY", begin(true, Isolation::Serializable, true)),
            (
                "BEGIN READ WRITE ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE",
                begin(false, Isolation::ReadCommitted, false),
            ),
            ("END TRANSACTION", Some(Command::Commit { chain: false })),
            ("COMMIT AND CHAIN", Some(Command::Commit { chain: true })),
            ("ABORT AND NO CHAIN", Some(Command::Rollback { chain: false })),
            ("ROLLBACK TRANSACTION TO \"A b\"", Some(Command::RollbackTo("A b".into()))),
            ("rollback to savepoint Ab", Some(Command::RollbackTo("ab".into()))),
            ("RELEASE x", Some(Command::Release("x".into()))),
            ("SHOW TRANSACTION ISOLATION LEVEL", Some(Command::Show("transaction_isolation".into()))),
            ("SET a = b", Some(Command::Set { tag: "SET" })),
            ("SELECT 1", None),
            ("\"begin\"", None),
            ("(SELECT 1)", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(parse(sql).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn what_only_begins_like_a_command_is_refused() {
        for sql in ["BEGIN NOW", "START", "COMMIT 1", "SAVEPOINT", "ROLLBACK TO", "SAVEPOINT 1", "SET", "SHOW"] {
            assert_eq!(parse(sql).unwrap_err().state, SqlState::SYNTAX_ERROR, "{sql}");
        }
        assert_eq!(parse("/**/VACUUM INTO 'x'").unwrap_err().state, SqlState::FEATURE_NOT_SUPPORTED);
    }

    #[test]
    fn tags_are_the_leading_words() {
        for (sql, tag) in [
            ("create unique index i on t (a)", "CREATE INDEX"),
            ("CREATE TABLE IF NOT EXISTS t (a)", "CREATE TABLE"),
            ("DROP /* a */ TRIGGER x", "DROP TRIGGER"),
            ("alter table t add a", "ALTER TABLE"),
            ("Analyze", "ANALYZE"),
        ] {
            assert_eq!(leading_words(sql), tag);
        }
    }

    #[test]
    fn conflict_clauses_are_seen_in_tokens_only() {
        assert!(has_conflict_clause("CREATE TABLE t (a UNIQUE ON /**/ conflict REPLACE)"));
        assert!(!has_conflict_clause("CREATE TABLE t (a UNIQUE ON CONFLICT ABORT)"));
        assert!(!has_conflict_clause("CREATE TABLE t (a DEFAULT 'ON CONFLICT REPLACE', \"on\" conflict, b)"));
    }
}
