//! The typed client of a metadata group: what the rest of the house, and embedders, use.
//!
//! ```
//! use mainstay::meta::{client::Meta, memory::MemoryMetadata, proto::MemberSpec};
//! use mainstay::ident::{ClusterId, SystemId};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), mainstay::meta::service::MetaError> {
//! let meta = Meta::new(Arc::new(MemoryMetadata::new()), "an example");
//! let first = MemberSpec { addresses: vec!["10.0.0.1:7000".into()], secret_hash: vec![1; 32], version: 1, ..Default::default() };
//! meta.members().form(ClusterId::new(1), SystemId::new(2), first).await?;
//! let revision = meta.kv().put("greeting", "hello").await?;
//! let mut watch = meta.kv().watch("greeting", revision);
//! println!("{:?}", watch.next().await?);
//! meta.settings().set("kv.quota_bytes", "512 MiB").await?;
//! # Ok(())
//! # }
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `members` | members, join tokens, the version of the cluster |
//! | `settings` | settings and their history |
//! | `kv` | keys, values, transactions, leases, watches |
//!
//! Reads are linearizable: they show everything that was acknowledged, on any node, before they were asked. Those of
//! [`Meta::local`] show what this node has applied, without asking anybody, also when there is no majority.

mod kv;
mod members;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::command::{Unknown, action};
use super::proto::action::Kind;
use super::proto::result::Kind as Outcome;
use super::proto::{Command, Done, Event};
use super::query::proto as query;
use super::service::{Backend, EventUpdates, Here, MetaError, Metadata};

pub use kv::{Keys, Kv, Pairs, compare, ops};
pub use members::{Members, Tokens};
pub use settings::Settings;

/// How long a request may take if nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of an action, which is of the kind that the action has.
macro_rules! the {
    ($kind:ident, $outcome:expr) => {
        match $outcome {
            Outcome::$kind(record) => Ok(record),
            _ => Err(MetaError::Newer(crate::meta::command::Unknown::Unknown)),
        }
    };
}
use the;

/// What was found, which is of the kind that was asked for.
macro_rules! found {
    ($kind:ident, $found:expr) => {
        match $found {
            crate::meta::query::proto::found::Kind::$kind(found) => Ok(found),
            _ => Err(MetaError::Newer(crate::meta::command::Unknown::Unknown)),
        }
    };
}
use found;

/// A client. Cheap to clone.
#[derive(Clone)]
pub struct Meta {
    backend: Arc<dyn Backend>,
    actor: Arc<str>,
    reason: Arc<str>,
    timeout: Duration,
    is_local: bool,
}

impl Meta {
    /// A client that acts in this name: it stands in the event log beside what it changes.
    pub fn new(service: Arc<dyn Metadata>, actor: &str) -> Meta {
        Meta::over(Arc::new(Here(service)), actor)
    }

    /// The same, on whatever answers as a metadata group does.
    pub fn over(backend: Arc<dyn Backend>, actor: &str) -> Meta {
        Meta { backend, actor: actor.into(), reason: "".into(), timeout: DEFAULT_TIMEOUT, is_local: false }
    }

    /// The same in another name, for this reason.
    #[must_use]
    pub fn acting(&self, actor: &str, reason: &str) -> Meta {
        Meta { actor: actor.into(), reason: reason.into(), ..self.clone() }
    }

    /// The same, with this much time for each request.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Meta {
        Meta { timeout, ..self.clone() }
    }

    /// The same, reading what the node that is asked knows, however old.
    #[must_use]
    pub fn local(&self) -> Meta {
        Meta { is_local: true, ..self.clone() }
    }

    /// The members of the cluster.
    pub fn members(&self) -> Members<'_> {
        Members(self)
    }

    /// What lets nodes join.
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens(self)
    }

    /// The settings of the cluster.
    pub fn settings(&self) -> Settings<'_> {
        Settings(self)
    }

    /// The small KV.
    pub fn kv(&self) -> Kv<'_> {
        Kv(self)
    }

    /// The log of events.
    pub fn events(&self) -> Events<'_> {
        Events(self)
    }

    /// Does several things at once: all or none.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn batch(&self, actions: Vec<Kind>) -> Result<Done, MetaError> {
        let command = Command {
            actor: self.actor.to_string(),
            reason: self.reason.to_string(),
            unix_ms: unix_ms(),
            actions: actions.into_iter().map(action).collect(),
        };
        self.backend.execute(command, self.deadline()).await
    }

    async fn one(&self, kind: Kind) -> Result<Outcome, MetaError> {
        let results = self.batch(vec![kind]).await?.results;
        let outcome = results.into_iter().next().and_then(|result| result.kind);
        outcome.ok_or(MetaError::Newer(Unknown::Unknown))
    }

    /// What the tables say, as old as this client allows.
    async fn ask(&self, kind: query::query::Kind) -> Result<query::found::Kind, MetaError> {
        let query = query::Query { kind: Some(kind) };
        let found = self.backend.ask(query, self.is_local, self.deadline()).await?;
        found.kind.ok_or(MetaError::Newer(Unknown::Unknown))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
}

/// The log of events.
pub struct Events<'a>(&'a Meta);

impl Events<'_> {
    /// Events from a number on, `limit` at most, or 0: 10 000; from 0, those that are there.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn list(&self, from: u64, limit: usize) -> Result<Vec<Event>, MetaError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let asked = query::query::Kind::Events(query::Events { from, limit });
        Ok(found!(Events, self.0.ask(asked).await?)?.events)
    }

    /// Follows the log from a number on, or from 0, from now on.
    pub fn follow(&self, from: u64) -> Box<dyn EventUpdates> {
        self.0.backend.follow(from)
    }
}

/// The wall clock, for people.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
