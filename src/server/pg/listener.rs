//! Accepting connections, within limits, until the server stops.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::access::{Access, Slots, UsersError};
use super::backend::Backend;
use super::cancel::Cancels;
use super::connection;
use super::timeouts::Timeouts;
use super::workers::Workers;
use crate::net::NetError;

/// So many connections may be in their startup at once, which takes a client that speaks a moment; more are told so and
/// turned away.
const STARTUP_LIMIT: usize = 256;
/// So many are being turned away at once. More are closed without a word.
const REFUSAL_LIMIT: usize = 64;
/// The most connections a server can be set to.
const CONNECTION_LIMIT_MAXIMUM: usize = 10_000;
/// The most connections that can be kept for superusers.
const RESERVED_MAXIMUM: usize = 100;
/// The least that [`PgConfig::message_limit_bytes`] can be.
const MESSAGE_LIMIT_MINIMUM_BYTES: usize = 1024;
/// The most that [`PgConfig::message_limit_bytes`] can be, as in PostgreSQL.
const MESSAGE_LIMIT_MAXIMUM_BYTES: usize = 0x3fff_ffff;
/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After the grace, sessions get this long to end once they are interrupted.
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the certificate of a client proves, in the words of PostgreSQL's `pg_hba.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// `clientcert=verify-ca`: that an authority knows the client. Any certificate goes with any user and his password.
    VerifyCa,
    /// `clientcert=verify-full`: also that it is the user, by the common name of the certificate. The password is asked for.
    VerifyFull,
    /// `cert`: as `verify-full`, and no password is asked for.
    Cert,
}

impl ClientCertificates {
    /// All there are.
    pub const ALL: [ClientCertificates; 3] =
        [ClientCertificates::VerifyCa, ClientCertificates::VerifyFull, ClientCertificates::Cert];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ClientCertificates::VerifyCa => "verify-ca",
            ClientCertificates::VerifyFull => "verify-full",
            ClientCertificates::Cert => "cert",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<ClientCertificates> {
        ClientCertificates::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// How a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgConfig {
    /// Address to listen on. Default 127.0.0.1:5440; port 0 takes any free one. Must be a loopback address, unless there
    /// are both users and TLS, or what is missing is allowed to be.
    pub listen: SocketAddr,
    /// Clients that may be connected at once; more are refused with 53300. Default 100, from 1 to 10 000. Each running
    /// statement may hold a thread of the server's.
    pub connection_limit: usize,
    /// How many of these connections are kept for superusers. Default 3, up to 100; never all.
    pub superuser_reserved_connections: usize,
    /// Who may connect, and with what password: a line per user, `"NAME" "SECRET" [superuser]`, where the secret is a
    /// verifier in PostgreSQL's form (see [`Verifier`](super::Verifier)), or a password if nobody else can read the file.
    /// Read again when it changes. Default none: everybody is let in, as a superuser.
    pub users_file: Option<PathBuf>,
    /// The server's certificate in PEM, and what leads from it to its authority. Read again when it changes. Default none:
    /// no TLS.
    pub tls_certificate: Option<PathBuf>,
    /// The key of the certificate; nobody else may be able to read it.
    pub tls_key: Option<PathBuf>,
    /// Authorities, in PEM, of which clients must show a certificate. Default none: no certificate.
    pub tls_client_authorities: Option<PathBuf>,
    /// What such a certificate proves. Default [`ClientCertificates::VerifyCa`].
    pub tls_client_certificates: ClientCertificates,
    /// Lets everybody in who reaches the address, also beyond loopback. Default false.
    pub allow_remote_without_password: bool,
    /// Lets clients on other machines speak without TLS: whoever is on the way reads and changes everything. Default false.
    pub allow_remote_plaintext: bool,
    /// Time a client has from connecting to the end of its authentication. Default 10 s, more than 0.
    pub startup_timeout: Duration,
    /// The largest message that a client may send, in bytes; a larger one ends its connection with 54000. Default
    /// 64 MiB, from 1 KiB to 1 GiB. A connection takes about twice as much memory while it receives one.
    pub message_limit_bytes: usize,
    /// Time in which a client must take what it asked for, or a good part of it; one that does not is disconnected, and
    /// its transaction rolled back. A statement waits for its client meanwhile, and other writers for the statement.
    /// Default 60 s, more than 0.
    pub send_timeout: Duration,
    /// Time that a statement may take; then it is interrupted with 57014. Default 0: any time. This and the three below are
    /// what sessions begin with; they may set others.
    pub statement_timeout: Duration,
    /// Time that a statement may wait for what another one has locked; then it ends with 55P03. Default 5 s; 0 is any time.
    pub lock_timeout: Duration,
    /// Time that a client may let pass between two messages of a transaction; then it is disconnected with 25P03, and
    /// its transaction rolled back. A transaction that wrote keeps all other writers waiting. Default 60 s, more than 0.
    pub idle_in_transaction_timeout: Duration,
    /// Time that a client may let pass between two messages outside of a transaction; then it is disconnected with 57P05.
    /// Default 0: any time.
    pub idle_session_timeout: Duration,
}

impl Default for PgConfig {
    fn default() -> PgConfig {
        let timeouts = Timeouts::default();
        PgConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 5440)),
            connection_limit: 100,
            superuser_reserved_connections: 3,
            users_file: None,
            tls_certificate: None,
            tls_key: None,
            tls_client_authorities: None,
            tls_client_certificates: ClientCertificates::VerifyCa,
            allow_remote_without_password: false,
            allow_remote_plaintext: false,
            startup_timeout: Duration::from_secs(10),
            message_limit_bytes: 64 * 1024 * 1024,
            send_timeout: Duration::from_secs(60),
            statement_timeout: timeouts.statement,
            lock_timeout: timeouts.lock,
            idle_in_transaction_timeout: timeouts.idle_in_transaction,
            idle_session_timeout: timeouts.idle_session,
        }
    }
}

impl PgConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ServerError::Open`], or [`ServerError::InvalidSettings`] with all that is wrong otherwise.
    pub fn validate(&self) -> Result<(), ServerError> {
        let mut problems = Vec::new();
        if !(1..=CONNECTION_LIMIT_MAXIMUM).contains(&self.connection_limit) {
            problems.push(format!("connection_limit must be from 1 to {CONNECTION_LIMIT_MAXIMUM}"));
        }
        for (name, timeout) in [
            ("startup_timeout", self.startup_timeout),
            ("send_timeout", self.send_timeout),
            ("idle_in_transaction_timeout", self.idle_in_transaction_timeout),
        ] {
            if timeout.is_zero() {
                problems.push(format!("{name} must be more than 0"));
            }
        }
        if !(MESSAGE_LIMIT_MINIMUM_BYTES..=MESSAGE_LIMIT_MAXIMUM_BYTES).contains(&self.message_limit_bytes) {
            problems.push(format!(
                "message_limit_bytes must be from {MESSAGE_LIMIT_MINIMUM_BYTES} to {MESSAGE_LIMIT_MAXIMUM_BYTES}"
            ));
        }
        if self.superuser_reserved_connections > RESERVED_MAXIMUM {
            problems.push(format!("superuser_reserved_connections must be from 0 to {RESERVED_MAXIMUM}"));
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            problems.push("tls_certificate and tls_key are needed together".to_owned());
        }
        if self.tls_client_authorities.is_some() && self.tls_certificate.is_none() {
            problems.push("tls_client_authorities means nothing without tls_certificate".to_owned());
        }
        if self.tls_client_certificates != ClientCertificates::VerifyCa {
            let name = self.tls_client_certificates.name();
            for (needed, is_there) in [
                ("tls_client_authorities", self.tls_client_authorities.is_some()),
                ("users_file", self.users_file.is_some()),
            ] {
                if !is_there {
                    problems.push(format!("tls_client_certificates = {name} needs {needed}"));
                }
            }
        }
        if !problems.is_empty() {
            return Err(ServerError::InvalidSettings(problems.join("; ")));
        }
        self.check_address()
    }
}

impl PgConfig {
    /// Reads the files that the settings name, as the start does; answers what is wrong with each. May block.
    pub fn check_files(&self) -> Vec<ServerError> {
        super::access::check_files(self)
    }

    /// What sessions begin with.
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            statement: self.statement_timeout,
            lock: self.lock_timeout,
            idle_in_transaction: self.idle_in_transaction_timeout,
            idle_session: self.idle_session_timeout,
        }
    }

    /// Beyond this machine, nothing is said to strangers or over wires that others read.
    fn check_address(&self) -> Result<(), ServerError> {
        if self.listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let mut missing = Vec::new();
        if self.users_file.is_none() && !self.allow_remote_without_password {
            missing.push("passwords (users_file, or allow_remote_without_password)");
        }
        if self.tls_certificate.is_none() && !self.allow_remote_plaintext {
            missing.push("TLS (tls_certificate and tls_key, or allow_remote_plaintext)");
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(ServerError::Open { address: self.listen, missing: missing.join(" and ") })
        }
    }
}

/// Why a server could not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Your mistake: whoever reached the address would be let in, or could read what others say.
    #[error("listening for SQL clients beyond loopback, on {address}, needs {missing}")]
    Open {
        /// Where.
        address: SocketAddr,
        /// What is needed there.
        missing: String,
    },
    /// Your mistake: who may connect is not known.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Your mistake: the files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] NetError),
    /// Your mistake.
    #[error("invalid settings of the SQL server: {0}")]
    InvalidSettings(String),
    /// Somebody else listens there.
    #[error("address {0} for SQL clients is already in use")]
    AddressInUse(SocketAddr),
    /// The system does not let us listen there.
    #[error("cannot listen for SQL clients on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system has no threads to serve clients with.
    #[error("cannot start the threads that serve SQL clients: {0}")]
    Threads(io::Error),
    /// Sessions went on although they were interrupted. Their connections are closed, but they still use the engine.
    #[error("SQL sessions are still running after they were interrupted")]
    StillRunning,
}

/// How far a server is in stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// Who is idle is sent away, who runs something may finish, nobody new is let in.
    Draining,
    /// What still runs is interrupted.
    Forced,
}

/// Waits until the server has come to `phase`. A server that no longer exists has.
pub(super) async fn reached(receiver: &mut watch::Receiver<Phase>, phase: Phase) {
    let _ = receiver.wait_for(|now| *now >= phase).await;
}

/// What the connections of a server share.
pub(super) struct Shared {
    pub(super) config: PgConfig,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) cancels: Arc<Cancels>,
    pub(super) slots: Arc<Slots>,
    pub(super) access: Access,
}

/// A server for PostgreSQL clients. Dropping it without [`PgServer::shutdown`] interrupts everything and waits for
/// nothing.
pub struct PgServer {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    task: Option<JoinHandle<()>>,
}

impl PgServer {
    /// Listens, and serves clients with sessions of `backend` until shut down.
    ///
    /// # Errors
    /// Every [`ServerError`] but [`ServerError::StillRunning`].
    pub async fn start(config: PgConfig, backend: Arc<dyn Backend>) -> Result<PgServer, ServerError> {
        config.validate()?;
        let access = Access::load(&config)?;
        let address = config.listen;
        let listen_error = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::AddressInUse(address),
            _ => ServerError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let (phase, receiver) = watch::channel(Phase::Serving);
        let workers = Workers::start(config.connection_limit + STARTUP_LIMIT).map_err(ServerError::Threads)?;
        let slots = Arc::new(Slots::new(config.connection_limit, config.superuser_reserved_connections));
        let shared = Arc::new(Shared { config, backend, cancels: Arc::default(), slots, access });
        let acceptor = Acceptor {
            listener,
            shared,
            workers,
            phase: receiver,
            startups: Arc::new(Semaphore::new(STARTUP_LIMIT)),
            refusals: Arc::new(Semaphore::new(REFUSAL_LIMIT)),
            clients: JoinSet::new(),
            latecomers: JoinSet::new(),
        };
        tracing::info!(%address, "listening for SQL clients");
        Ok(PgServer { address, phase, task: Some(tokio::spawn(acceptor.run())) })
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops: idle clients are sent away (57P01) and new ones refused (57P03) at once; running statements may take
    /// `grace` to finish and are then interrupted. Returns when every session has been closed, at the latest about 2 s
    /// after the grace.
    ///
    /// # Errors
    /// [`ServerError::StillRunning`] if a session does not heed interrupts.
    pub async fn shutdown(mut self, grace: Duration) -> Result<(), ServerError> {
        let Some(mut task) = self.task.take() else { return Ok(()) };
        self.phase.send_replace(Phase::Draining);
        if timeout(grace, &mut task).await.is_err() {
            tracing::info!("interrupting the SQL statements that still run");
            self.phase.send_replace(Phase::Forced);
            if timeout(INTERRUPT_TIMEOUT, &mut task).await.is_err() {
                task.abort();
                return Err(ServerError::StillRunning);
            }
        }
        tracing::info!(address = %self.address, "stopped listening for SQL clients");
        Ok(())
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Forced);
    }
}

/// The task that accepts connections and outlives them.
struct Acceptor {
    listener: TcpListener,
    shared: Arc<Shared>,
    workers: Workers,
    phase: watch::Receiver<Phase>,
    startups: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// Connections that came while the server served.
    clients: JoinSet<()>,
    /// Connections that came later, or too many at once. They are told so; nobody waits for them.
    latecomers: JoinSet<()>,
}

impl Acceptor {
    async fn run(mut self) {
        let mut phase = self.phase.clone();
        loop {
            let serving = *self.phase.borrow() == Phase::Serving;
            if !serving && self.clients.is_empty() {
                return;
            }
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.spawn(stream, peer, serving),
                    Err(error) => {
                        tracing::warn!(%error, "accepting an SQL client failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = reached(&mut phase, Phase::Draining), if serving => {}
                Some(ended) = self.clients.join_next() => note(ended),
                Some(ended) = self.latecomers.join_next() => note(ended),
            }
        }
    }

    fn spawn(&mut self, stream: TcpStream, peer: SocketAddr, serving: bool) {
        let spawned = if let Ok(permit) = Arc::clone(&self.startups).try_acquire_owned() {
            let (shared, phase) = (Arc::clone(&self.shared), self.phase.clone());
            let tasks = if serving { &mut self.clients } else { &mut self.latecomers };
            let serve = move |stream| connection::serve(stream, peer.ip(), shared, phase, permit);
            self.workers.spawn(tasks, stream, serve)
        } else if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.workers.spawn(&mut self.latecomers, stream, move |stream| connection::turn_away(stream, permit))
        } else {
            return;
        };
        if let Err(error) = spawned {
            tracing::warn!(%error, "an SQL client cannot be served");
        }
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
