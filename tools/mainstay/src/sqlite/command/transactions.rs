//! Transaction control, in the words of PostgreSQL and of SQLite.
//!
//! SQLite takes a name behind TRANSACTION and makes nothing of it; so what it accepts does not fail here.

use mainstay::server::pg::SqlError;

use super::super::lexer::{Kind, Token};
use super::{Asked, Command, Isolation, Words};

/// What goes on behind TRANSACTION, and is no name there: SQLite reserves these words.
const NO_NAMES: &[&str] = &["AND", "DEFERRABLE", "NOT", "TO"];

impl Words<'_> {
    pub(super) fn begin(&mut self) -> Result<Command, SqlError> {
        self.advance();
        // SQLite's own: both take the writer's place at once, which is what a stable transaction that may write does.
        let at_once = self.take("IMMEDIATE") || self.take("EXCLUSIVE");
        let _ = at_once || self.take("DEFERRED");
        self.work();
        let modes = Asked { at_once, ..self.modes()? };
        Ok(Command::Begin { modes, tag: "BEGIN" })
    }

    pub(super) fn start(&mut self) -> Result<Command, SqlError> {
        self.advance();
        self.expect("TRANSACTION")?;
        Ok(Command::Begin { modes: self.modes()?, tag: "START TRANSACTION" })
    }

    pub(super) fn commit(&mut self) -> Result<Command, SqlError> {
        self.advance();
        self.work();
        Ok(Command::Commit { chain: self.chain()? })
    }

    pub(super) fn rollback(&mut self) -> Result<Command, SqlError> {
        self.advance();
        self.work();
        if self.take("TO") {
            self.take("SAVEPOINT");
            return Ok(Command::RollbackTo(self.name()?));
        }
        Ok(Command::Rollback { chain: self.chain()? })
    }

    /// `WORK`, or `TRANSACTION` with the name that SQLite takes there and makes nothing of.
    fn work(&mut self) {
        if self.take("WORK") || !self.take("TRANSACTION") {
            return;
        }
        let is_last = self.rest.clone().next().is_none_or(|behind| behind.is("TO"));
        let is_name = |token: Token<'_>| token.name().is_some() && !NO_NAMES.iter().any(|word| token.is(word));
        if is_last && self.next.is_some_and(is_name) {
            self.advance();
        }
    }

    /// `AND [NO] CHAIN`
    fn chain(&mut self) -> Result<bool, SqlError> {
        if !self.take("AND") {
            return Ok(false);
        }
        let no = self.take("NO");
        self.expect("CHAIN")?;
        Ok(!no)
    }

    pub(super) fn modes(&mut self) -> Result<Asked, SqlError> {
        let mut modes = Asked::default();
        loop {
            if self.take("ISOLATION") {
                self.expect("LEVEL")?;
                modes.isolation = Some(self.isolation()?);
            } else if self.take("READ") {
                let read_only = self.take("ONLY");
                if !read_only {
                    self.expect("WRITE")?;
                }
                modes.read_only = Some(read_only);
            } else if self.take("NOT") {
                self.expect("DEFERRABLE")?;
            } else if !self.take("DEFERRABLE") {
                break;
            }
            if self.next.is_some_and(|token| token.kind == Kind::Symbol(',')) {
                self.advance();
            }
        }
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
}
