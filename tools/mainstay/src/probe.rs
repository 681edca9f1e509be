//! What the HTTP server is told of this node: in what phase it is, and how it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay::cluster::{self, MemberHandle};
use mainstay::meta::client::Meta;
use mainstay::net::NetConfig;
use mainstay::server::http::{Probe, Readiness, Told};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::operate::{self, Failed, printable};
use crate::sqlite::SqliteEngine;

/// How long the cluster may take to be told over HTTP: less than a connection lasts.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(5);

/// What is wrong with a member that can answer nothing.
const NO_LEADER: &str = "no leader: this node hears of none, and can answer nothing of the cluster: too few members are there, \
                         or they do not reach it";

/// The node as its HTTP server sees it. It answers before there is a node, and after.
#[derive(Default)]
pub struct NodeProbe {
    phase: Mutex<Phase>,
    /// Somebody asked it to be sent no new clients.
    is_asked_to_drain: AtomicBool,
    /// How the Raft groups of a member are.
    raft: Mutex<Option<cluster::HealthView>>,
    cluster: Mutex<Option<ClusterView>>,
    /// This node as a member of it, while clients are served.
    member: Mutex<Option<(MemberHandle, Handle)>>,
}

/// The cluster that the node is a member of.
#[derive(Clone)]
struct ClusterView {
    meta: Meta,
    net: NetConfig,
    runtime: Handle,
}

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
        *self.phase.lock() = Phase::Entering(phase);
    }

    /// It is a member that holds no rows, and takes clients from now on.
    pub fn serve_member(&self) {
        *self.phase.lock() = Phase::Member;
    }

    /// It is a member, and goes on starting.
    pub fn start(&self) {
        *self.phase.lock() = Phase::Starting;
    }

    /// The node takes clients from now on.
    pub fn serve(&self, engine: Arc<SqliteEngine>) {
        *self.phase.lock() = Phase::Serving(engine);
    }

    /// The node is this member, which is asked to drain where this node is. Must be called on the runtime that the cluster
    /// lives on.
    pub fn is_member(&self, member: MemberHandle) {
        *self.member.lock() = Some((member, Handle::current()));
    }

    /// It takes no more, and lets go of the cluster.
    pub fn drain(&self) {
        *self.cluster.lock() = None;
        *self.member.lock() = None;
        *self.phase.lock() = Phase::Draining;
    }

    /// From now on the node is as ready as its Raft groups are well.
    pub fn depend_on(&self, raft: cluster::HealthView) {
        *self.raft.lock() = Some(raft);
    }

    /// The node is a member of a cluster, whose other members are asked over this network how they stand. Must be called on
    /// the runtime that the cluster lives on.
    pub fn belongs_to(&self, meta: Meta, net: NetConfig) {
        let meta = meta.within(CLUSTER_TIMEOUT);
        *self.cluster.lock() = Some(ClusterView { meta, net, runtime: Handle::current() });
    }

    /// What the cluster says, if there is one.
    fn tell<F: Future<Output = Result<Value, Failed>>>(&self, ask: impl FnOnce(ClusterView) -> F) -> Told {
        let Some(view) = self.cluster.lock().clone() else {
            return Told::NotHere("this node is no member of a cluster".to_owned());
        };
        let runtime = view.runtime.clone();
        match runtime.block_on(ask(view)) {
            Ok(json) => Told::Json(format!("{json}\n")),
            Err(error) => Told::NotNow(printable(error.to_string().as_bytes())),
        }
    }

    fn is_leaderless(&self) -> bool {
        self.member.lock().as_ref().is_some_and(|(member, _)| member.is_leaderless())
    }

    /// The engine, if there is one, while clients are served; else why they are not.
    fn engine(&self) -> Result<Option<Arc<SqliteEngine>>, String> {
        match &*self.phase.lock() {
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
        if self.is_asked_to_drain.load(Ordering::SeqCst) {
            return Readiness::NotReady("draining: asked to take no new clients until it is restarted".to_owned());
        }
        if self.member.lock().as_ref().is_some_and(|(member, _)| member.is_draining()) {
            return Readiness::NotReady("draining: until it is restarted, or undrained".to_owned());
        }
        let raft = self.raft.lock().clone();
        let why_not = |engine: Option<Arc<SqliteEngine>>| {
            let of_node = match engine {
                Some(engine) => engine.why_not_ready(),
                // Rows are served without a leader; what is asked of the cluster is not.
                None => self.is_leaderless().then(|| NO_LEADER.to_owned()),
            };
            of_node.or_else(|| raft.and_then(|raft| raft.why_not_good()))
        };
        match self.engine().map(why_not) {
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

    fn cluster(&self) -> Told {
        self.tell(async |view| operate::cluster_json(&view.meta, &view.net, CLUSTER_TIMEOUT).await)
    }

    fn events(&self, from: Option<u64>, limit: u32) -> Told {
        self.tell(async |view| operate::events_json(&view.meta, from, limit.into()).await)
    }

    fn begin_drain(&self) {
        let Some((member, runtime)) = self.member.lock().clone() else {
            return self.is_asked_to_drain.store(true, Ordering::SeqCst);
        };
        // From here on it is not ready; its leadership follows.
        member.begin_drain();
        runtime.spawn(async move {
            if let Err(error) = member.drain("asked over HTTP").await {
                tracing::warn!(%error, "this node drains, and the cluster could not be told");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use mainstay::ident::{ClusterId, SystemId};
    use mainstay::meta::memory::MemoryMetadata;
    use mainstay::meta::proto::MemberSpec;

    use super::*;

    #[test]
    fn the_cluster_is_told_once_there_is_one() {
        let probe = NodeProbe::default();
        assert!(matches!(probe.cluster(), Told::NotHere(_)));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let meta = Meta::new(Arc::new(MemoryMetadata::new()), "a test");
        // Nobody listens at its address.
        let first = MemberSpec {
            addresses: vec!["127.0.0.1:1".into()],
            secret_hash: vec![1; 32],
            version: 1,
            ..MemberSpec::default()
        };
        runtime.block_on(meta.members().form(ClusterId::new(7), SystemId::new(8), first)).unwrap();
        let _entered = runtime.enter();
        probe.belongs_to(meta, NetConfig::default());
        let on_its_thread =
            |ask: fn(&NodeProbe) -> Told| std::thread::scope(|scope| scope.spawn(|| ask(&probe)).join().unwrap());
        let Told::Json(text) = on_its_thread(|probe| probe.cluster()) else { panic!("JSON expected") };
        let cluster: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&cluster["cluster_id"], &cluster["members"][0]["is_reached"]),
            (&"0000000000000007".into(), &false.into())
        );
        assert!(!text.contains("secret"), "{text}");
        let Told::Json(text) = on_its_thread(|probe| probe.events(Some(2), 1)) else { panic!("JSON expected") };
        let events: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((events.as_array().unwrap().len(), &events[0]["kind"]), (1, &"member added".into()));
        assert!(matches!(on_its_thread(|probe| probe.events(Some(99), 1)), Told::Json(text) if text == "[]\n"));
    }

    #[test]
    fn who_is_asked_to_drain_is_not_ready() {
        let probe = NodeProbe::default();
        probe.begin_drain();
        assert!(matches!(probe.readiness(), Readiness::NotReady(why) if why.starts_with("draining: ")));
    }
}
