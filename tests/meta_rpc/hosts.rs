//! Nodes that serve metadata, and a group in memory with moods.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mainstay::cluster::rpc::channel::Nodes;
use mainstay::cluster::rpc::client::Client;
use mainstay::cluster::rpc::proto::StatusResponse;
use mainstay::cluster::rpc::service::{MetadataService, Observed};
use mainstay::meta::apply::Reached;
use mainstay::meta::client::Meta;
use mainstay::meta::memory::MemoryMetadata;
use mainstay::meta::proto::{Command, Done};
use mainstay::meta::service::{MetaError, Metadata};
use mainstay::meta::view::View;
use mainstay::net::connection::Holder;
use mainstay::net::listener::Listener;
use mainstay::net::tls::Tls;
use mainstay::net::{Address, NetConfig, TlsConfig};
use mainstay::raftstore::context::Attempt;
use parking_lot::Mutex;
use tokio::net::TcpSocket;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Retries quickly.
pub fn net() -> NetConfig {
    NetConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        backoff_base: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
        max_connections: 4096,
        ..NetConfig::default()
    }
}

/// A node that serves.
pub struct Host {
    pub address: SocketAddr,
    metadata: Arc<dyn Metadata>,
    config: NetConfig,
    serving: Option<(Arc<Holder>, oneshot::Sender<()>, JoinHandle<()>)>,
    /// While it does not serve: bound and not listening, so that whoever connects is refused and nobody else gets the port.
    kept: Option<TcpSocket>,
}

struct Stands;

impl Observed for Stands {
    fn status(&self) -> StatusResponse {
        StatusResponse { node: 1, version: "9.9.9".into(), ..StatusResponse::default() }
    }
}

impl Host {
    pub async fn start(metadata: &Arc<impl Metadata>) -> Host {
        Host::start_with(Arc::clone(metadata) as _, net()).await
    }

    pub async fn start_with(metadata: Arc<dyn Metadata>, config: NetConfig) -> Host {
        let mut host = Host { address: config.listen, metadata, config, serving: None, kept: None };
        host.restart().await;
        host
    }

    /// Serves again, where it did.
    pub async fn restart(&mut self) {
        let holder = Arc::new(Holder::new());
        let tls = self.config.tls.clone().map(|config| Arc::new(Tls::load(config).unwrap()));
        let config = NetConfig { listen: self.address, ..self.config.clone() };
        drop(self.kept.take());
        let listener = Listener::bind(&config, tls, &holder).unwrap();
        self.address = listener.local_addr();
        let service = MetadataService::new(Arc::clone(&self.metadata), Arc::new(Stands)).into_server();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().max_concurrent_streams(config.max_calls_per_connection);
            let stopped = async { drop(stopped.await) };
            server.clone().add_service(service).serve_with_incoming_shutdown(listener, stopped).await.unwrap();
        });
        self.serving = Some((holder, stop, server));
    }

    /// Cuts all connections and stops listening. Its port stays its own.
    pub async fn stop(&mut self) {
        let Some((holder, stop, server)) = self.serving.take() else { return };
        drop(stop);
        drop(holder);
        server.await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.kept = Some(socket);
    }
}

/// A client of these nodes.
pub fn client<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Arc<Client> {
    client_with(hosts, None)
}

pub fn client_with<'a>(hosts: impl IntoIterator<Item = &'a Host>, tls: Option<TlsConfig>) -> Arc<Client> {
    let addresses = hosts.into_iter().map(|host| Address::from(host.address)).collect();
    Client::new(Nodes::new(addresses, &NetConfig { tls, ..net() }).unwrap())
}

pub fn meta<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Meta {
    client(hosts).meta("a test")
}

/// A group in memory that can lose answers, and its leader.
pub struct Moody {
    group: Arc<MemoryMetadata>,
    loses: AtomicBool,
    /// Told when the next command is applied; its answer never comes.
    holds: Mutex<Option<oneshot::Sender<()>>>,
    is_lost: AtomicBool,
    /// Requests that wait for a leader.
    waiting: AtomicUsize,
}

impl Moody {
    pub fn new() -> Arc<Moody> {
        let (loses, holds, is_lost, waiting) = Default::default();
        Arc::new(Moody { group: Arc::new(MemoryMetadata::new()), loses, holds, is_lost, waiting })
    }

    /// Without a network.
    pub fn meta(&self) -> Meta {
        Meta::new(Arc::clone(&self.group) as _, "beside the network")
    }

    pub fn lose_the_next_answer(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    pub fn hold_the_next_answer(&self) -> oneshot::Receiver<()> {
        let (applied, heard) = oneshot::channel();
        *self.holds.lock() = Some(applied);
        heard
    }

    pub fn lose_the_leader(&self) {
        self.is_lost.store(true, Ordering::SeqCst);
    }

    pub fn find_the_leader(&self) {
        self.is_lost.store(false, Ordering::SeqCst);
    }

    /// Waits until so many requests have begun to wait for a leader.
    pub async fn until_waiting(&self, count: usize) {
        let looking = async {
            while self.waiting.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        super::soon(looking).await;
    }

    /// What becomes of an answer, named or not.
    async fn answer(&self, done: Result<Done, MetaError>) -> Result<Done, MetaError> {
        let holds = self.holds.lock().take();
        if let Some(applied) = holds {
            applied.send(()).unwrap();
            std::future::pending::<()>().await;
        }
        match self.loses.swap(false, Ordering::SeqCst) {
            true => Err(MetaError::Unknown { why: "the answer is lost".into() }),
            false => done,
        }
    }

    async fn lead(&self, deadline: Instant) -> Result<(), MetaError> {
        if !self.is_lost.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep_until(deadline.into()).await;
        Err(MetaError::Unavailable { leader: None, why: "nobody leads".into() })
    }
}

#[tonic::async_trait]
impl Metadata for Moody {
    async fn execute(&self, command: Command, deadline: Instant) -> Result<Done, MetaError> {
        self.lead(deadline).await?;
        let done = self.group.execute(command, deadline).await;
        self.answer(done).await
    }

    async fn execute_named(&self, attempt: Attempt, command: Command, deadline: Instant) -> Result<Done, MetaError> {
        self.lead(deadline).await?;
        let done = self.group.execute_named(attempt, command, deadline).await;
        self.answer(done).await
    }

    async fn barrier(&self, deadline: Instant) -> Result<(), MetaError> {
        self.lead(deadline).await
    }

    fn view(&self) -> Arc<dyn View> {
        self.group.view()
    }

    fn progress(&self) -> watch::Receiver<Reached> {
        self.group.progress()
    }
}
