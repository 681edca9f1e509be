//! What a transaction may do and see: as asked for in words, and as settled.

use mainstay::server::pg::{SqlError, SqlState};

/// What a transaction may do and see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Modes {
    /// Writes are refused.
    pub(in super::super) read_only: bool,
    /// The level as it was asked for.
    pub(in super::super) isolation: Isolation,
    /// It takes the writer's place with its first statement, as SQLite's `BEGIN IMMEDIATE` says.
    pub(in super::super) at_once: bool,
}

/// Modes as a statement names them. Those that it does not name stay what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Asked {
    pub(in super::super) read_only: Option<bool>,
    pub(in super::super) isolation: Option<Isolation>,
    pub(in super::super) at_once: bool,
}

impl Asked {
    /// Those of a session for which nothing was asked.
    pub(in super::super) const ORIGINAL: Asked =
        Asked { read_only: Some(false), isolation: Some(Isolation::ReadCommitted), at_once: false };
}

impl Modes {
    /// Whether it sees one state from its first statement on.
    pub(in super::super) fn stable(self) -> bool {
        self.at_once || matches!(self.isolation, Isolation::RepeatableRead | Isolation::Serializable)
    }

    /// Whether it sees that state without keeping others from writing, until it writes itself.
    pub(in super::super) fn snapshot(self) -> bool {
        self.stable() && (self.read_only || !self.at_once)
    }

    /// These, changed as asked.
    pub(in super::super) fn with(self, asked: Asked) -> Modes {
        Modes {
            read_only: asked.read_only.unwrap_or(self.read_only),
            isolation: asked.isolation.unwrap_or(self.isolation),
            at_once: self.at_once || asked.at_once,
        }
    }

    /// These, changed as asked in a transaction that has `started` or not.
    ///
    /// # Errors
    /// 25001: what was asked cannot be had any more. Writing can be forsworn at any time.
    pub(in super::super) fn changed(self, asked: Asked, started: bool) -> Result<Modes, SqlError> {
        let changed = self.with(asked);
        let late = if changed.isolation != self.isolation {
            "SET TRANSACTION ISOLATION LEVEL must be called before any query"
        } else if self.read_only && !changed.read_only {
            "transaction read-write mode must be set before any query"
        } else {
            return Ok(changed);
        };
        if started { Err(SqlError::new(SqlState::ACTIVE_SQL_TRANSACTION, late)) } else { Ok(changed) }
    }
}

/// PostgreSQL's isolation levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Isolation {
    #[default]
    ReadCommitted,
    ReadUncommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    const ALL: [Isolation; 4] =
        [Isolation::ReadCommitted, Isolation::ReadUncommitted, Isolation::RepeatableRead, Isolation::Serializable];

    /// As `SHOW transaction_isolation` says it.
    pub(in super::super) fn words(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read committed",
            Isolation::ReadUncommitted => "read uncommitted",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        }
    }

    pub(super) fn from_words(words: &str) -> Option<Isolation> {
        Isolation::ALL.into_iter().find(|level| level.words().eq_ignore_ascii_case(words))
    }
}
