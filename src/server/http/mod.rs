//! What operators' tools ask over HTTP: is it alive, is it ready, what does it measure.
//!
//! | path | answer |
//! |---|---|
//! | `/livez`, `/health/live` | 200 as long as the process answers |
//! | `/readyz`, `/healthz` | 200 if it can serve; 503 and a line that says why not |
//! | `/metrics` | everything measured, in the Prometheus text format |
//!
//! It answers before the node is ready, so that one can see what it waits for. It knows no node and no engine: it asks a
//! [`Probe`]. Nobody is asked who he is, and nothing is encrypted, so it listens on loopback only unless it is told otherwise;
//! nothing that is told is a secret, and nothing can be changed through it.
//!
//! - Connections, the time each may last, and the size of a request's head are bounded; bodies are not read.
//! - `listener` accepts and bounds, `routes` answers, `exposition` keeps what is measured.

mod exposition;
mod listener;
mod routes;

pub use exposition::{Exposition, ExpositionError};
pub use listener::{HttpConfig, HttpError, HttpServer};

/// What the server asks of whoever runs it.
pub trait Probe: Send + Sync + 'static {
    /// Whether clients can be served now. Called on a thread that may block.
    fn readiness(&self) -> Readiness;

    /// Brings those metrics up to date that are looked at rather than counted, such as positions. Called before each
    /// answer to `/metrics`, on a thread that may block.
    fn observe(&self);
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
