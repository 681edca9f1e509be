//! Accepting connections, within limits.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, sleep, timeout};

use super::exposition::UPKEEP_INTERVAL;
use super::routes::{Sources, router};
use super::token::DrainToken;
use super::{Exposition, Probe};

/// A client has this long from connecting to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection lasts no longer, whatever it does: who asks again connects again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// A request's head is no larger; the least that hyper can be set to.
const HEAD_LIMIT_BYTES: usize = 8 * 1024;
/// A request has no more headers.
const HEADER_LIMIT: usize = 64;
/// The most connections that a server can be set to.
const CONNECTION_LIMIT_MAXIMUM: usize = 1024;
/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address to listen on; without one, which is the default, there is no HTTP. Port 0 takes any free one.
    pub listen: Option<SocketAddr>,
    /// Whether it may listen beyond loopback, where anybody who reaches it may read what is measured. Default no.
    pub allow_remote: bool,
    /// Connections at once; more are closed without an answer. Default 32, from 1 to 1024.
    pub connection_limit: usize,
    /// A file with the token of who may drain the node: 16 to 1024 bytes of text, read at the start. Nobody but its owner
    /// may read it; if root owns it, its group may. Default none: nobody may.
    pub drain_token_file: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig { listen: None, allow_remote: false, connection_limit: 32, drain_token_file: None }
    }
}

impl HttpConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`HttpError::NotLoopback`] or [`HttpError::InvalidSettings`].
    pub fn validate(&self) -> Result<(), HttpError> {
        if !(1..=CONNECTION_LIMIT_MAXIMUM).contains(&self.connection_limit) {
            return Err(HttpError::InvalidSettings(format!(
                "connection_limit must be from 1 to {CONNECTION_LIMIT_MAXIMUM}"
            )));
        }
        match self.listen {
            Some(address) if !address.ip().is_loopback() && !self.allow_remote => Err(HttpError::NotLoopback(address)),
            _ => Ok(()),
        }
    }
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// *Your mistake*: anybody who reached the address could read what is measured.
    #[error("HTTP listens on loopback addresses only, not on {0}, unless http.allow_remote says otherwise")]
    NotLoopback(SocketAddr),
    /// *Your mistake*.
    #[error("invalid settings of the HTTP server: {0}")]
    InvalidSettings(String),
    /// *Your mistake*: it was started without an address.
    #[error("the HTTP server has no address to listen on")]
    NoAddress,
    /// *Your mistake*: the file with the token cannot be used.
    #[error("the token file {path}: {what}", path = path.display())]
    Token {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Somebody else listens there, or the system does not let us.
    #[error("cannot listen for HTTP on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A server of health and metrics, until it is dropped.
pub struct HttpServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Listens, and answers from `probe` and `exposition` until it is dropped.
    ///
    /// # Errors
    /// Every [`HttpError`].
    pub async fn start(
        config: HttpConfig,
        probe: Arc<dyn Probe>,
        exposition: Exposition,
    ) -> Result<HttpServer, HttpError> {
        config.validate()?;
        let address = config.listen.ok_or(HttpError::NoAddress)?;
        let drain_token = config.drain_token_file.as_deref().map(DrainToken::read).transpose()?.map(Arc::new);
        let listen_error = |source: io::Error| HttpError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let permits = Arc::new(Semaphore::new(config.connection_limit));
        let acceptor = Acceptor { listener, permits, sources: Sources { probe, exposition, drain_token } };
        tracing::info!(%address, "listening for HTTP");
        Ok(HttpServer { address, task: tokio::spawn(acceptor.run()) })
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task that accepts connections. They end with it.
struct Acceptor {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    sources: Sources,
}

impl Acceptor {
    async fn run(self) {
        let service = TowerToHyperService::new(router(self.sources.clone()));
        let mut connections = JoinSet::new();
        let mut upkeep = interval(UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // Closed without an answer if there are too many.
                        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { continue };
                        let served = serve(stream, service.clone());
                        connections.spawn(async move {
                            served.await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting an HTTP client failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                _ = upkeep.tick() => self.sources.exposition.keep_up(),
                Some(ended) = connections.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "an HTTP connection's task failed");
                },
            }
        }
    }
}

/// Answers one client until it leaves or its time is over.
async fn serve(stream: TcpStream, service: TowerToHyperService<axum::Router>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LIMIT_BYTES)
        .max_headers(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended"),
        Err(_) => tracing::debug!("an HTTP connection's time is over"),
    }
}
