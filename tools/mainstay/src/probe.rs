//! What the HTTP server is told of this node: in what phase it is, and how it is.

use std::sync::Arc;

use mainstay::server::http::{Probe, Readiness};
use parking_lot::Mutex;

use crate::sqlite::SqliteEngine;

/// The node as its HTTP server sees it. It answers before there is a node, and after.
#[derive(Default)]
pub struct NodeProbe(Mutex<Phase>);

#[derive(Default)]
enum Phase {
    #[default]
    Starting,
    Serving(Arc<SqliteEngine>),
    Draining,
}

impl NodeProbe {
    /// The node takes clients from now on.
    pub fn serve(&self, engine: Arc<SqliteEngine>) {
        *self.0.lock() = Phase::Serving(engine);
    }

    /// It takes no more.
    pub fn drain(&self) {
        *self.0.lock() = Phase::Draining;
    }

    /// The engine, while it is used; else why it is not.
    fn engine(&self) -> Result<Arc<SqliteEngine>, &'static str> {
        match &*self.0.lock() {
            Phase::Starting => Err("starting: the node recovers and replays its log"),
            Phase::Serving(engine) => Ok(Arc::clone(engine)),
            Phase::Draining => Err("draining: the node stops"),
        }
    }
}

impl Probe for NodeProbe {
    fn readiness(&self) -> Readiness {
        match self.engine().map(|engine| engine.why_not_ready()) {
            Ok(None) => Readiness::Ready,
            Ok(Some(why)) => Readiness::NotReady(why),
            Err(phase) => Readiness::NotReady(phase.to_owned()),
        }
    }

    fn observe(&self) {
        if let Ok(engine) = self.engine() {
            engine.observe();
        }
    }
}
