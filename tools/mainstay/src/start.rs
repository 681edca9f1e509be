//! `mainstay start`: a node with the bundled engine, and the SQL server in front of it, until a signal ends them.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use mainstay::cluster::{ClusterNode, Entrance, FIRST_MEMBER, Phase};
use mainstay::config::NodeConfig;
use mainstay::node::Node;
use mainstay::server::http::{Exposition, HttpServer, Probe};
use mainstay::server::pg::{Backend, PgServer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cluster::Face;
use crate::cluster_sql::ClusterBackend;
use crate::logging;
use crate::probe::NodeProbe;
use crate::settings::{self, Settings, is_same_port};
use crate::sqlite::{SqliteEngine, spare_memory};

/// How long clients get to finish what they run once the node is told to stop; the server may take 2 s more to interrupt
/// the rest. The node's own shutdown follows, and all has to fit into the 5 s that an operator waits.
const GRACE: Duration = Duration::from_millis(1500);
/// Files that a connection opens, as a rule at the most: its socket; two for SQLite to read with, the database and its WAL;
/// four for temporary tables, which are on a connection of their own with a file and its journal; two for a query of the
/// catalogs beside tables; three to sort in what does not fit into memory, or to keep the rows of a cursor.
const FILES_PER_CONNECTION: u64 = 12;
/// Files that are open beside those, at the most: RocksDB's, segments, the engine's.
const FILES: u64 = 512;
/// What a second signal makes the process exit with: it did not stop cleanly.
const EXIT_IMPATIENT: i32 = 1;

/// Runs a node until SIGTERM or SIGINT, or until it fails.
///
/// # Errors
/// It could not start, failed while it ran, or did not stop cleanly.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    logging::start(settings.log.format, &settings.log.level)?;
    for variable in settings::unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!(variable, "no setting has this variable; it is ignored");
    }
    if let Err(error) = spare_memory() {
        tracing::warn!(%error, "SQLite takes more memory for each connection than it should");
    }
    raise_file_limit(settings.sql.connection_limit);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let result = runtime.block_on(serve(settings));
    // Whatever is left waits for clients that were told to go; the data is closed.
    runtime.shutdown_background();
    result
}

/// Lets the process open as many files as it may; says so if that is too few for the connections.
fn raise_file_limit(connection_limit: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files cannot be raised");
    }
    let needed = (connection_limit as u64).saturating_mul(FILES_PER_CONNECTION).saturating_add(FILES);
    if let Some(maximum) = limit.maximum.filter(|maximum| *maximum < needed) {
        tracing::warn!(maximum, needed, "with all connections in use, there may be too few open files");
    }
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let probe = Arc::new(NodeProbe::default());
    // First, so that it can be seen what a node does that takes long to start.
    let http = start_http(settings, &probe).await?;
    let config = settings.node_config().context("no data directory")?;
    let http_address = http.as_ref().map(HttpServer::local_addr);
    let mut places = Places { http: http_address, cluster: None, data_dir: config.data_dir.display().to_string() };
    let opening = open(settings, config, &probe, &mut places);
    let opened = tokio::select! {
        opened = opening => opened?,
        name = signals.next() => {
            // Nothing was acknowledged yet, so there is nothing to finish: the next start recovers.
            tracing::info!(signal = name, "stopped while starting");
            return Ok(());
        }
    };
    let (ended, closed) = match opened {
        Opened::Node(node) => {
            node.engine().log_slow(settings.log.slow);
            probe.serve(Arc::clone(node.engine()));
            let ended = serve_node(settings, &node, &mut signals, &probe, &places).await;
            probe.drain();
            (ended, node.shutdown().await)
        }
        Opened::Member(member) => {
            let ended = serve_member(settings, &member, &mut signals, &probe, &places).await;
            probe.drain();
            member.shutdown().await;
            (ended, Ok(()))
        }
    };
    ended?;
    closed.context("the node did not stop cleanly")?;
    tracing::info!("stopped");
    Ok(())
}

/// What a data directory was opened as.
enum Opened {
    /// A node with rows: alone, or the first member of a cluster.
    Node(Box<Node<SqliteEngine>>),
    /// A member without.
    Member(Box<ClusterNode>),
}

/// Opens the data directory, and waits until the node is a member if it is to be one.
async fn open(
    settings: &Settings,
    config: NodeConfig,
    probe: &NodeProbe,
    places: &mut Places,
) -> anyhow::Result<Opened> {
    let cluster = settings.cluster.config().map_err(|problems| anyhow!(problems.join("; ")))?;
    let segment_size_bytes = config.wal.segment_size_bytes;
    let waiting = match Entrance::open(config.data_dir.clone(), segment_size_bytes, cluster).await? {
        Entrance::Alone(storage) => {
            return Ok(Opened::Node(Box::new(Node::open_alone(config, *storage, SqliteEngine::open).await?)));
        }
        Entrance::Waiting(waiting) => waiting,
    };
    // What it remembers is known only now; it would fail when the node is a member.
    let (cluster, sql) = (waiting.local_addr(), settings.sql.listen);
    if is_same_port(sql, cluster) {
        bail!("the node listens for other nodes at {cluster}, as before, and sql.listen is the same port: {sql}");
    }
    places.cluster = Some(cluster);
    let phase = waiting.phase();
    let now = phase.borrow().clone();
    probe.enter(phase);
    if now != Phase::Starting {
        tracing::info!("{now}");
        announce("waiting", None, places);
    }
    let member = waiting.member().await?;
    probe.start();
    probe.depend_on(member.health());
    if member.membership().node == FIRST_MEMBER {
        return Ok(Opened::Node(Box::new(Node::open_member(config, member, SqliteEngine::open).await?)));
    }
    Ok(Opened::Member(Box::new(member)))
}

/// Starts the HTTP server if there is to be one. What measures takes its place before anything is measured.
async fn start_http(settings: &Settings, probe: &Arc<NodeProbe>) -> anyhow::Result<Option<HttpServer>> {
    if settings.http.listen.is_none() {
        return Ok(None);
    }
    let exposition = Exposition::install()?;
    let probe = Arc::clone(probe) as Arc<dyn Probe>;
    Ok(Some(HttpServer::start(settings.http.clone(), probe, exposition).await?))
}

/// What the ready line tells beside the address for SQL.
struct Places {
    http: Option<SocketAddr>,
    cluster: Option<SocketAddr>,
    data_dir: String,
}

/// Serves SQL from an open node until something ends it; the node is still open afterwards.
async fn serve_node(
    settings: &Settings,
    node: &Node<SqliteEngine>,
    signals: &mut Signals,
    probe: &NodeProbe,
    places: &Places,
) -> anyhow::Result<()> {
    let face = node.cluster().map(|member| Face::new(member.handle()));
    let server = match &face {
        Some(face) => {
            if let Some(member) = node.cluster() {
                probe.belongs_to(member.meta(), member.net().clone());
                probe.is_member(member.handle());
            }
            let backend = ClusterBackend::new(face.shared(), Some(node.engine().clone() as Arc<dyn Backend>));
            PgServer::start(settings.sql.clone(), Arc::new(backend)).await?
        }
        None => PgServer::start(settings.sql.clone(), node.engine().clone()).await?,
    };
    let _published = face.map(|face| face.publish(server.local_addr()));
    announce("ready", Some(server.local_addr()), places);

    let failed: Option<anyhow::Error> = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping; a second signal exits at once");
            None
        }
        error = node.failed() => {
            tracing::error!(%error, "the node failed; stopping");
            Some(anyhow::Error::new(error).context("the node failed"))
        }
        reason = node.engine().failed() => {
            tracing::error!(%reason, "the engine failed; stopping");
            Some(anyhow!("the engine failed: {reason}; the next start brings it back from the log"))
        }
    };
    end(server, signals, probe, failed).await
}

/// Serves SQL from a member that holds no rows: it answers what is asked of the cluster, and says who holds them.
async fn serve_member(
    settings: &Settings,
    member: &ClusterNode,
    signals: &mut Signals,
    probe: &NodeProbe,
    places: &Places,
) -> anyhow::Result<()> {
    let face = Face::new(member.handle());
    let backend = ClusterBackend::new(face.shared(), None);
    let server = PgServer::start(settings.sql.clone(), Arc::new(backend)).await?;
    let _published = face.publish(server.local_addr());
    probe.belongs_to(member.meta(), member.net().clone());
    probe.is_member(member.handle());
    probe.serve_member();
    announce("ready", Some(server.local_addr()), places);
    let failed = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping; a second signal exits at once");
            None
        }
        error = member.failed() => Some(anyhow::Error::new(error)),
    };
    end(server, signals, probe, failed).await
}

/// Lets clients go, and says what ended it all.
async fn end(
    server: PgServer,
    signals: &Signals,
    probe: &NodeProbe,
    failed: Option<anyhow::Error>,
) -> anyhow::Result<()> {
    probe.drain();
    signals.exit_on_next();
    let drained = server.shutdown(GRACE).await;
    if let Some(error) = failed {
        return Err(error);
    }
    drained.context("the SQL server did not stop cleanly")
}

/// A line on standard output: that the node waits to be a member, and that it takes clients. Nobody may be reading it, which
/// is no reason to stop.
fn announce(what: &str, sql: Option<SocketAddr>, places: &Places) {
    let data_dir = places.data_dir.as_str();
    let place = |name: &str, address: Option<SocketAddr>| {
        address.map(|address| format!(" {name}={address}")).unwrap_or_default()
    };
    let (at, http, cluster) = (place("sql", sql), place("http", places.http), place("cluster", places.cluster));
    let mut out = io::stdout().lock();
    let written = writeln!(out, "mainstay {what}{at}{http}{cluster} data-dir={data_dir}").and_then(|()| out.flush());
    if let Err(error) = written {
        tracing::warn!(%error, "the line that says {what:?} could not be written");
    }
    tracing::info!(sql = at.trim(), cluster = cluster.trim(), data_dir, "{what}");
}

/// The signals that ask a node to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one and says its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// From now on a signal ends the process at once, as a crash would.
    fn exit_on_next(&self) {
        tokio::spawn(async {
            let Ok(mut signals) = Signals::new() else { return };
            let name = signals.next().await;
            eprintln!("mainstay: {name} again; exiting without a clean stop");
            process::exit(EXIT_IMPATIENT);
        });
    }
}
