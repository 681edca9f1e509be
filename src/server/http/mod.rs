//! What operators' tools ask over HTTP: is it alive, is it ready, what does it measure.
//!
//! | path | answer |
//! |---|---|
//! | `/livez`, `/health/live` | 200 as long as the process answers |
//! | `/readyz`, `/healthz` | 200 if it can serve; 503 and a line that says why not |
//! | `/metrics` | everything measured, in the Prometheus text format |
//! | `/v1/cluster` | the cluster and its members, in JSON; 404 if this node is a member of none |
//! | `/v1/events?from=N&limit=M` | its log of events, in JSON |
//! | `POST /health/drain` | from now on the node is not ready, so that no new clients are sent to it, and leads nothing; with a token only |
//!
//! It answers before the node is ready, so that one can see what it waits for. It knows no node and no engine: it asks a
//! [`Probe`]. Nothing is encrypted, so it listens on loopback only unless it is told otherwise. Nobody who reads is asked who
//! he is, and nothing that is told is a secret; who drains has to show the [token](HttpConfig::drain_token_file).
//!
//! - Connections, the time each may last, and the size of a request's head are bounded; bodies are not read.
//! - `listener` accepts and bounds, `routes` answers, `exposition` keeps what is measured, `token` knows who may drain.

mod exposition;
mod listener;
mod routes;
mod token;

pub use exposition::{Exposition, ExpositionError};
pub use listener::{HttpConfig, HttpError, HttpServer};

/// What the server asks of whoever runs it.
pub trait Probe: Send + Sync + 'static {
    /// Whether clients can be served now. Called on a thread that may block.
    fn readiness(&self) -> Readiness;

    /// Brings those metrics up to date that are looked at rather than counted, such as positions. Called before each
    /// answer to `/metrics`, on a thread that may block.
    fn observe(&self);

    /// The cluster and its members. Called on a thread that may block.
    fn cluster(&self) -> Told {
        Told::NotHere("this node is no member of a cluster".to_owned())
    }

    /// Events of the cluster from a number on, or the last ones, so many at most. Called on a thread that may block.
    fn events(&self, from: Option<u64>, limit: u32) -> Told {
        let _ = (from, limit);
        Told::NotHere("this node is no member of a cluster".to_owned())
    }

    /// From now on it is not ready. Who asks has shown the token. Must not block.
    fn begin_drain(&self);
}

/// What is told in JSON, or why it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The text of it.
    Json(String),
    /// There is nothing of the kind on this node; one line says why.
    NotHere(String),
    /// It cannot be told now; one line says why.
    NotNow(String),
}

/// Whether clients can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They can.
    Ready,
    /// They cannot; one line says why.
    NotReady(String),
}

#[cfg(test)]
#[path = "http_test.rs"]
mod tests;
