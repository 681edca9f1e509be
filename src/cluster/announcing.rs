//! Tells the cluster that this node has started, and where it is, when nobody could be told before it took part.
//!
//! It goes on until the metadata have it. Whoever came back at another address hears nothing of the others that look for it
//! where it was, not even who leads: so it also asks each of them to pass it on, as before it took part.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::core::{Core, refusal};
use super::error::ClusterError;
use crate::ident::Incarnation;
use crate::meta::command::VERSION;
use crate::meta::proto::{Refusal, StartMember};
use crate::meta::service::MetaError;
use crate::net::backoff::Backoff;

/// How long one attempt may take, and asking one of the others.
const TIMEOUT: Duration = Duration::from_secs(5);
const EACH: Duration = Duration::from_millis(2500);
/// What is waited before the next one, at the most.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(200), max: Duration::from_secs(2) };
/// It is logged when it was not told for this long, and each time when it was not for twice as long as the last time.
const WARN_AFTER: Duration = Duration::from_secs(4);

/// What came of an attempt.
enum Attempt {
    /// The cluster knows, or nobody will.
    Over,
    NotYet(String),
}

impl Core {
    /// What tells the cluster that this node has started.
    pub(super) fn start_message(&self) -> StartMember {
        StartMember {
            id: self.node().get(),
            secret_hash: self.secret_hash.clone(),
            incarnation: self.incarnation.load(Ordering::Relaxed),
            version: VERSION.into(),
            addresses: self.addresses.clone(),
        }
    }

    /// Says that this node has started, until the cluster has taken notice, or refuses it.
    pub(super) async fn announce(self: Arc<Core>) {
        let begun = Instant::now();
        let mut warn_after = WARN_AFTER;
        for failures in 1.. {
            // By itself only whoever leads, or knows who does, can tell.
            let attempt = match self.leader() {
                Some(_) => self.announce_to_leader().await,
                None => self.announce_to_others().await,
            };
            let why = match attempt {
                Ok(Attempt::Over) => break,
                Ok(Attempt::NotYet(why)) => why,
                Err(error) => return self.fail(error),
            };
            tracing::debug!(why, "the start cannot be announced yet");
            if begun.elapsed() >= warn_after {
                warn_after *= 2;
                let addresses = self.addresses.join(", ");
                tracing::warn!(
                    addresses,
                    why,
                    "the cluster has not taken notice yet that this node started, and where it is; it is told again"
                );
            }
            // Never at once: a leader that refuses answers at once, too.
            let random = getrandom::u64().unwrap_or(u64::MAX);
            sleep(BACKOFF.delay(failures, random).max(BACKOFF.base)).await;
        }
        if warn_after > WARN_AFTER {
            tracing::info!("the cluster has taken notice that this node started, and where it is");
        }
    }

    async fn announce_to_leader(&self) -> Result<Attempt, ClusterError> {
        let meta = self.meta.within(TIMEOUT);
        let StartMember { secret_hash, incarnation, addresses, .. } = self.start_message();
        let members = meta.members();
        let started = members.started(self.node(), secret_hash, Incarnation::new(incarnation), VERSION, addresses);
        match started.await {
            Ok(_) | Err(MetaError::AnswerLost | MetaError::Stopped(_)) => Ok(Attempt::Over),
            Err(MetaError::Refused(refused)) => Err(refusal(self.node(), refused)),
            Err(MetaError::Unknown { why }) => {
                self.raise_incarnation().await?;
                Ok(Attempt::NotYet(why))
            }
            Err(error) => Ok(Attempt::NotYet(error.to_string())),
        }
    }

    /// Has one of the others pass it on that knows who leads.
    async fn announce_to_others(&self) -> Result<Attempt, ClusterError> {
        let mut whys = Vec::new();
        for node in self.peers.nodes() {
            match self.peers.announce(node, self.start_message(), EACH).await {
                Ok(Ok(_)) => return Ok(Attempt::Over),
                Ok(Err(refused)) if refused.why() == Refusal::NotFormed => {}
                Ok(Err(refused)) => return Err(refusal(self.node(), refused)),
                Err(error) => {
                    if error.may_have_had_effect() {
                        self.raise_incarnation().await?;
                    }
                    whys.push(format!("node {node}: {error}"));
                }
            }
        }
        Ok(Attempt::NotYet(format!("no leader is known here; {}", whys.join("; "))))
    }

    /// A start that may have been noted cannot be told from that of a copy: it is announced as one more.
    async fn raise_incarnation(&self) -> Result<(), ClusterError> {
        let storage = Arc::clone(&self.storage);
        let raised = tokio::task::spawn_blocking(move || storage.raise_incarnation()).await;
        let raised = raised.map_err(|_| ClusterError::Panicked("raising the incarnation"))??;
        self.incarnation.fetch_max(raised.get(), Ordering::Relaxed);
        Ok(())
    }
}
