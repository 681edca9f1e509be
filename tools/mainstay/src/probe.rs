//! What the HTTP server is told of this node: in what phase it is, and how it is.

use std::sync::Arc;

use mainstay::cluster;
use mainstay::server::http::{Probe, Readiness};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::sqlite::SqliteEngine;

/// The node as its HTTP server sees it. It answers before there is a node, and after.
#[derive(Default)]
pub struct NodeProbe(Mutex<Phase>);

#[derive(Default)]
enum Phase {
    #[default]
    Starting,
    /// On its way into a cluster.
    Entering(watch::Receiver<cluster::Phase>),
    /// A member that holds no rows, and answers what is asked of the cluster.
    Member,
    Serving(Arc<SqliteEngine>),
    Draining,
}

impl NodeProbe {
    /// The node is no member of a cluster yet.
    pub fn enter(&self, phase: watch::Receiver<cluster::Phase>) {
        *self.0.lock() = Phase::Entering(phase);
    }

    /// It is a member that holds no rows, and takes clients from now on.
    pub fn serve_member(&self) {
        *self.0.lock() = Phase::Member;
    }

    /// It is a member, and goes on starting.
    pub fn start(&self) {
        *self.0.lock() = Phase::Starting;
    }

    /// The node takes clients from now on.
    pub fn serve(&self, engine: Arc<SqliteEngine>) {
        *self.0.lock() = Phase::Serving(engine);
    }

    /// It takes no more.
    pub fn drain(&self) {
        *self.0.lock() = Phase::Draining;
    }

    /// The engine, if there is one, while clients are served; else why they are not.
    fn engine(&self) -> Result<Option<Arc<SqliteEngine>>, String> {
        match &*self.0.lock() {
            Phase::Starting => Err("starting: the node recovers and replays its log".to_owned()),
            Phase::Entering(phase) => Err(phase.borrow().to_string()),
            Phase::Member => Ok(None),
            Phase::Serving(engine) => Ok(Some(Arc::clone(engine))),
            Phase::Draining => Err("draining: the node stops".to_owned()),
        }
    }
}

impl Probe for NodeProbe {
    fn readiness(&self) -> Readiness {
        match self.engine().map(|engine| engine.and_then(|engine| engine.why_not_ready())) {
            Ok(None) => Readiness::Ready,
            Ok(Some(why)) => Readiness::NotReady(why),
            Err(phase) => Readiness::NotReady(phase),
        }
    }

    fn observe(&self) {
        if let Ok(Some(engine)) = self.engine() {
            engine.observe();
        }
    }
}
