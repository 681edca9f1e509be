//! What a node does with a request of `Execute` or `Read`, whichever way it came: in a call of its own, or with others over
//! a stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Extensions, Status};

use super::MAX_TIMEOUT;
use super::failure;
use super::proto::{ExecuteRequest, ExecuteResponse, ReadResponse};
use crate::meta::client::DEFAULT_TIMEOUT;
use crate::meta::limits::MAX_TEXT_BYTES;
use crate::meta::proto::action::Kind as Action;
use crate::meta::proto::result::Kind as Outcome;
use crate::meta::proto::{Command, Done, Member, Refusal, Refused, Token};
use crate::meta::query;
use crate::meta::query::proto::found::Kind as Answer;
use crate::meta::query::proto::{Found, Query};
use crate::meta::service::{MetaError, Metadata};
use crate::net::connection::PeerInfo;
use crate::raftstore::context::Attempt;

/// Requests of one connection to a metadata group.
pub(super) struct Requests {
    metadata: Arc<dyn Metadata>,
    /// Whom the connection's certificate names, if it names anybody.
    certified: Option<Arc<str>>,
}

impl Requests {
    /// Those that come with these extensions.
    pub(super) fn of(metadata: &Arc<dyn Metadata>, extensions: &Extensions) -> Requests {
        let certified = extensions.get::<PeerInfo>().and_then(|info| info.subject.clone());
        Requests { metadata: Arc::clone(metadata), certified }
    }

    /// Has a command applied.
    pub(super) async fn execute(&self, request: ExecuteRequest) -> Result<ExecuteResponse, Status> {
        let mut command = request.command.ok_or_else(|| Status::invalid_argument("there is no command"))?;
        command.actor = actor(self.certified.as_deref(), command.actor);
        let deadline = deadline(request.timeout_ms);
        let executed = async {
            check(&command)?;
            match request.client {
                0 => self.metadata.execute(command, deadline).await,
                client => {
                    let attempt = Attempt { client, sequence: request.sequence };
                    self.metadata.execute_named(attempt, command, deadline).await
                }
            }
        };
        let mut done = executed.await.map_err(|error| failure::status(&error))?;
        hide_done(&mut done);
        Ok(ExecuteResponse { done: Some(done) })
    }

    /// Waits until what is found is new enough for who asked before this was called.
    pub(super) async fn barrier(&self, deadline: Instant) -> Result<(), Status> {
        self.metadata.barrier(deadline).await.map_err(|error| failure::status(&error))
    }

    /// What the tables here say now.
    pub(super) fn find(&self, query: Option<Query>) -> Result<ReadResponse, Status> {
        let found = query::answer(&*self.metadata.view(), query.unwrap_or_default());
        let mut found = found.map_err(|error| failure::status(&error))?;
        hide_found(&mut found);
        Ok(ReadResponse { found: Some(found) })
    }
}

/// How long the node tries.
pub(in crate::cluster) fn patience(timeout_ms: u64) -> Duration {
    if timeout_ms == 0 { DEFAULT_TIMEOUT } else { patience_within(timeout_ms, MAX_TIMEOUT) }
}

/// How long the node tries something that may take up to this long; 0: as long.
pub(in crate::cluster) fn patience_within(timeout_ms: u64, limit: Duration) -> Duration {
    if timeout_ms == 0 { limit } else { Duration::from_millis(timeout_ms).min(limit) }
}

/// Until when the node tries.
pub(super) fn deadline(timeout_ms: u64) -> Instant {
    Instant::now() + patience(timeout_ms)
}

/// Who acts: whom the certificate names, if it names anybody, and whom the client says.
fn actor(certified: Option<&str>, claimed: String) -> String {
    let mut actor = match (certified, claimed.as_str()) {
        (None, _) => claimed,
        (Some(name), "") => name.to_owned(),
        (Some(name), claimed) => format!("{claimed} ({name})"),
    };
    actor.truncate(actor.floor_char_boundary(MAX_TEXT_BYTES));
    actor
}

/// What only nodes propose: what their clock finds due, and that they were forced.
fn check(command: &Command) -> Result<(), MetaError> {
    let is_ours = |action: &_| matches!(action, Some(Action::Expire(_) | Action::ForceNew(_)));
    match command.actions.iter().position(|action| is_ours(&action.kind)) {
        None => Ok(()),
        Some(place) => Err(MetaError::Refused(Refused {
            why: Refusal::Invalid.into(),
            action: u32::try_from(place).unwrap_or(u32::MAX),
            message: "only nodes let leases and tokens expire, and force clusters".to_owned(),
            number: 0,
        })),
    }
}

fn hide_member(member: &mut Member) {
    member.secret_hash.clear();
}

fn hide_token(token: &mut Token) {
    token.hash.clear();
}

/// Takes away the hashes of secrets: what is proposed with them does not ask for the secrets themselves.
fn hide_done(done: &mut Done) {
    for result in &mut done.results {
        match &mut result.kind {
            Some(Outcome::Member(member)) => hide_member(member),
            Some(Outcome::Token(token)) => hide_token(token),
            _ => {}
        }
    }
}

fn hide_found(found: &mut Found) {
    match &mut found.kind {
        Some(Answer::Member(found)) => found.member.iter_mut().for_each(hide_member),
        Some(Answer::Members(found)) => found.members.iter_mut().for_each(hide_member),
        Some(Answer::Tokens(found)) => found.tokens.iter_mut().for_each(hide_token),
        _ => {}
    }
}
