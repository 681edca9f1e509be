//! A node that is no member yet: it waits for somebody to form a cluster with it, or to be let into one.
//!
//! What it is known by, its secret, is durable before it asks or answers anything; whose member it is becomes durable in one
//! write, and from then on every start goes on with that:
//!
//! ```text
//!   secret noted ── asked to form ──▶ membership noted ──▶ identity ──▶ group 0 made ──▶ formed
//!              └─── let in ─────────▶ membership noted ──▶ identity ──▶ group 0 joined
//! ```
//!
//! If it dies before its membership is noted, it asks again under the same secret, and is told the same.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tonic::{Response, Status};

use super::config::{ClusterConfig, TokenSource};
use super::dial;
use super::error::ClusterError;
use super::node::{ClusterNode, Port};
use super::proto;
use super::proto::formation_client::FormationClient;
use super::proto::{DescribeRequest, Description, JoinRequest, Joined, join_response};
use super::record::{Membership, Record};
use super::waiting::{InitCall, InitRule, WaitingServer, WaitingService};
use crate::config::{ConfigError, Problem};
use crate::ident::{ClusterId, NodeId, SystemId};
use crate::meta::command::VERSION;
use crate::meta::proto::{MemberSpec, Refused};
use crate::meta::token::JoinToken;
use crate::net::backoff::Backoff;
use crate::net::connection::Holder;
use crate::net::listener::bind_socket;
use crate::net::tls::Tls;
use crate::net::{Address, NetConfig};
use crate::storage::{Storage, Unsettled};

/// How long a member may take to let this node in.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one of those to join may take to say who it is.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);
/// What is waited before they are asked again.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(2) };
/// Requests to form a cluster that may wait.
const MAX_INITS: usize = 4;
/// Largest file with a token.
const TOKEN_FILE_LIMIT_BYTES: u64 = 4096;

/// What a data directory turned out to be.
pub enum Entrance {
    /// A node's that belongs to no cluster, and was not told to.
    Alone(Box<Storage>),
    /// A member's, or one's that is to become one.
    Waiting(Box<Waiting>),
}

/// What a node waits for on its way into a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// For somebody to form a cluster with it.
    Waiting {
        /// Where it is to be asked.
        address: String,
    },
    /// To be let in.
    Joining {
        /// Why it was not so far.
        last: Option<String>,
    },
    /// For nothing: it starts as a member.
    Starting,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Phase::Waiting { address } => write!(
                f,
                "waiting: the node is no member of a cluster yet; `mainstay cluster init --addr {address}` forms one with it, \
                 and --join lets it join one"
            ),
            Phase::Joining { last: None } => f.write_str("joining: the node asks to be let into the cluster"),
            Phase::Joining { last: Some(last) } => {
                write!(f, "joining: the node was not let into the cluster yet: {last}")
            }
            Phase::Starting => f.write_str("starting: the node starts as a member of its cluster"),
        }
    }
}

/// A node on its way to be a member. Dropped, it stops, and the next start goes on.
pub struct Waiting {
    directory: Unsettled,
    record: Record,
    config: ClusterConfig,
    port: Port,
    listen: SocketAddr,
    phase: watch::Sender<Phase>,
    server: Option<WaitingServer>,
    inits: mpsc::Receiver<InitCall>,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ClusterError::Panicked("opening the data directory"))
}

impl Entrance {
    /// Opens a data directory, and the port for other nodes if it is, or is to be, a member's.
    ///
    /// # Errors
    /// The directory, the settings or the port cannot be used.
    pub async fn open(
        directory: PathBuf,
        segment_size_bytes: u64,
        config: ClusterConfig,
    ) -> Result<Entrance, ClusterError> {
        config.validate()?;
        let (directory, note) = blocking(move || {
            let directory = Unsettled::open(&directory, segment_size_bytes)?;
            let note = directory.member_note()?;
            Ok::<_, ClusterError>((directory, note))
        })
        .await??;
        let record = note.as_deref().map(Record::decode).transpose()?;
        let is_member = record.as_ref().is_some_and(|record| record.membership().is_some());
        // One that waited, waits again: it must not become a system of its own because a flag was forgotten.
        let waited = record
            .as_ref()
            .filter(|record| is_member || (directory.identity().is_none() && !record.0.listen.is_empty()));
        let config = match waited {
            Some(record) => config.remembering(&record.0)?,
            None => config,
        };
        config.validate()?;
        let Some(listen) = config.listen else {
            if config != ClusterConfig::default() {
                return Err(mistake("cluster.listen", "must be given: the other settings of the cluster need it"));
            }
            return Ok(Entrance::Alone(Box::new(blocking(move || directory.settle(None)).await??)));
        };
        if !is_member && !config.join.is_empty() && config.token == TokenSource::None {
            return Err(mistake("join", "needs a join token: `mainstay cluster token create` makes one"));
        }
        let record = record.map_or_else(Record::draw, Ok)?;
        Waiting::open(directory, record, config, listen).await.map(|waiting| Entrance::Waiting(Box::new(waiting)))
    }
}

fn mistake(setting: &'static str, what: &str) -> ClusterError {
    ConfigError { problems: vec![Problem { setting, what: what.to_owned() }] }.into()
}

impl Waiting {
    async fn open(
        directory: Unsettled,
        mut record: Record,
        config: ClusterConfig,
        listen: SocketAddr,
    ) -> Result<Waiting, ClusterError> {
        let net = config.net(listen);
        net.validate()?;
        let tls = net.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let is_member = record.membership().is_some();
        if let (false, Some(identity), false) = (is_member, directory.identity(), config.join.is_empty()) {
            return Err(ClusterError::NotEmpty(identity.system));
        }
        let socket = bind_socket(&net)?;
        let real = |source| ClusterError::Io { doing: "ask where the port is", source };
        let listen = socket.local_addr().map_err(real)?;
        let net = NetConfig { listen, ..net };
        let address = config.advertise.as_ref().map_or_else(|| listen.to_string(), Address::to_string);
        config.note(listen, &mut record.0);
        // Before anything is asked or answered.
        let (directory, noted) = {
            let bytes = record.encode();
            blocking(move || {
                let noted = directory.note_member(&bytes);
                (directory, noted)
            })
            .await?
        };
        noted?;
        let phase = match (is_member, config.join.is_empty()) {
            (true, _) => Phase::Starting,
            (false, true) => Phase::Waiting { address: address.clone() },
            (false, false) => Phase::Joining { last: None },
        };
        let (phase, _) = watch::channel(phase);
        let (asked, inits) = mpsc::channel(MAX_INITS);
        let server = match is_member {
            true => None,
            false => {
                let service = WaitingService { asked, phase: phase.subscribe(), rule: InitRule::of(&config, &address) };
                Some(WaitingServer::start(&socket, &net, tls.clone(), service)?)
            }
        };
        let name = config.name.clone().unwrap_or_default();
        let port = Port { socket, net, tls, address, name };
        Ok(Waiting { directory, record, config, port, listen, phase, server, inits })
    }

    /// Where it listens for other nodes.
    pub fn local_addr(&self) -> SocketAddr {
        self.listen
    }

    /// What it waits for.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Waits until the node is a member, however long that takes, and starts it as one.
    ///
    /// # Errors
    /// The cluster refuses this node, or it cannot run.
    pub async fn member(mut self) -> Result<ClusterNode, ClusterError> {
        let was_member = self.record.membership();
        let membership = match was_member {
            Some(membership) => membership,
            None => self.become_member().await?,
        };
        self.phase.send_replace(Phase::Starting);
        let Waiting { directory, record, port, server, .. } = self;
        let storage = blocking(move || directory.settle(Some((membership.system, membership.node)))).await??;
        if let Some(server) = server {
            server.stop().await;
        }
        ClusterNode::start(Arc::new(storage), record, membership, port).await
    }

    /// Waits for one of both ways in.
    async fn become_member(&mut self) -> Result<Membership, ClusterError> {
        let mut failures = 0;
        let mut retry = Duration::ZERO;
        loop {
            let joins = !self.config.join.is_empty();
            tokio::select! {
                Some(InitCall(answer)) = self.inits.recv() => {
                    if let Some(membership) = self.init(answer).await? {
                        return Ok(membership);
                    }
                }
                () = sleep(retry), if joins => {
                    match self.ask_all().await? {
                        Ok(joined) => return self.joined(joined).await,
                        Err(why) => {
                            failures += 1;
                            retry = BACKOFF.delay(failures, getrandom::u64().unwrap_or(u64::MAX)).max(BACKOFF.base);
                            let now = Phase::Joining { last: Some(why) };
                            if *self.phase.borrow() != now {
                                tracing::info!("{now}");
                                self.phase.send_replace(now);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Forms a cluster, unless there is one already that this node should join.
    async fn init(
        &mut self,
        answer: oneshot::Sender<Result<Description, Status>>,
    ) -> Result<Option<Membership>, ClusterError> {
        for address in &self.config.join {
            if let Ok(Description { cluster, .. }) = describe(address, &self.port).await
                && cluster != 0
            {
                let why = format!("{address} is a member of cluster {cluster:016x}: this node is to join that one");
                let _ = answer.send(Err(Status::failed_precondition(why)));
                return Ok(None);
            }
        }
        let draw = || getrandom::u64().map(|number| number.max(1)).map_err(ClusterError::random);
        let (system, node) = match self.directory.identity() {
            Some(identity) => (identity.system, identity.node),
            None => (SystemId::new(draw()?), super::FIRST_MEMBER),
        };
        let membership = Membership { cluster: ClusterId::new(draw()?), system, node };
        self.record.0.is_founder = true;
        self.note(membership)?;
        tracing::info!(cluster = format!("{:016x}", membership.cluster.get()), %system, "forms a cluster");
        let description = Description {
            phase: proto::Phase::Member.into(),
            cluster: membership.cluster.get(),
            node: node.get(),
            system: system.get(),
            leader: node.get(),
            member: None,
        };
        // Whoever asked may be gone; it is done.
        let _ = answer.send(Ok(description));
        Ok(Some(membership))
    }

    async fn joined(&mut self, joined: Joined) -> Result<Membership, ClusterError> {
        let Joined { cluster, system, node, members } = joined;
        if [cluster, system, node].contains(&0) {
            return Err(ClusterError::Record("the cluster's answer says nothing".to_owned()));
        }
        let membership =
            Membership { cluster: ClusterId::new(cluster), system: SystemId::new(system), node: NodeId::new(node) };
        self.record.0.peers = members;
        self.note(membership)?;
        tracing::info!(cluster = format!("{cluster:016x}"), node, "the cluster has let this node in");
        Ok(membership)
    }

    /// From here on it is a member.
    fn note(&mut self, membership: Membership) -> Result<(), ClusterError> {
        self.record.set_membership(membership);
        let (directory, bytes) = (&self.directory, self.record.encode());
        // A sync or two, once in a node's life.
        Ok(directory.note_member(&bytes)?)
    }

    /// Asks one after the other of those to join; the inner error says why none let this node in so far.
    async fn ask_all(&self) -> Result<Result<Joined, String>, ClusterError> {
        let token = match token(&self.config.token)? {
            Ok(token) => token,
            Err(why) => return Ok(Err(why)),
        };
        let mut whys = Vec::new();
        for address in self.config.join.iter().filter(|address| address.as_str() != self.port.address) {
            match self.ask(address, &token).await {
                Ok(Ok(joined)) => return Ok(Ok(joined)),
                Ok(Err(refused)) => return Err(ClusterError::Refused(refused)),
                Err(why) => whys.push(format!("{address}: {why}")),
            }
        }
        Ok(Err(whys.join("; ")))
    }

    async fn ask(&self, address: &Address, token: &JoinToken) -> Result<Result<Joined, Refused>, String> {
        let Port { net, tls, .. } = &self.port;
        let holder = Holder::new();
        let (channel, _) =
            dial::connect(address, net, tls.as_deref(), &holder).await.map_err(|error| error.to_string())?;
        let member = MemberSpec {
            name: self.config.name.clone().unwrap_or_default(),
            addresses: vec![self.port.address.clone()],
            secret_hash: self.record.secret_hash(),
            version: VERSION.into(),
            ..MemberSpec::default()
        };
        let request = JoinRequest {
            member: Some(member),
            token: token.reveal(),
            segment_size_bytes: self.directory.segment_size_bytes(),
        };
        let mut client = FormationClient::new(channel);
        let answer = timeout(JOIN_TIMEOUT, client.join(request)).await;
        let answer = answer.map_err(|_| "it did not answer in time".to_owned())?;
        match answer.map_err(|status| said(&status))?.into_inner().outcome {
            Some(join_response::Outcome::Joined(joined)) => Ok(Ok(joined)),
            Some(join_response::Outcome::Refused(refused)) => Ok(Err(refused)),
            None => Err("its answer says nothing".to_owned()),
        }
    }
}

fn said(status: &Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    }
}

async fn describe(address: &Address, port: &Port) -> Result<Description, String> {
    let holder = Holder::new();
    let asking = async {
        let connected = dial::connect(address, &port.net, port.tls.as_deref(), &holder).await;
        let (channel, _) = connected.map_err(|error| error.to_string())?;
        FormationClient::new(channel).describe(DescribeRequest {}).await.map_err(|status| said(&status))
    };
    let answer = timeout(DESCRIBE_TIMEOUT, asking).await.map_err(|_| "it did not answer in time".to_owned())?;
    answer.map(Response::into_inner)
}

/// The token; the inner error says that it is not there yet.
fn token(source: &TokenSource) -> Result<Result<JoinToken, String>, ClusterError> {
    let path = match source {
        TokenSource::Given(token) => return Ok(Ok(token.clone())),
        TokenSource::None => return Ok(Err("there is no join token".to_owned())),
        TokenSource::File(path) => path,
    };
    match read_bounded(path) {
        Ok(text) if text.trim().is_empty() => Ok(Err(format!("the join token's file {} is empty", path.display()))),
        Ok(text) => Ok(Ok(text.parse()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Err(format!("the join token's file {} is not there yet", path.display())))
        }
        Err(source) => Err(ClusterError::TokenFile { path: path.clone(), source }),
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(TOKEN_FILE_LIMIT_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_waited_for_in_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let source = TokenSource::File(path.clone());
        assert!(token(&source).unwrap().unwrap_err().contains("not there yet"));
        std::fs::write(&path, "\n").unwrap();
        assert!(token(&source).unwrap().unwrap_err().contains("empty"));
        let drawn = JoinToken::draw().unwrap();
        std::fs::write(&path, format!("{}\n", drawn.reveal())).unwrap();
        assert_eq!(token(&source).unwrap(), Ok(drawn));
        std::fs::write(&path, "secret nonsense").unwrap();
        let error = token(&source).unwrap_err();
        assert!(matches!(error, ClusterError::Token(_)) && !error.to_string().contains("nonsense"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(token(&source).unwrap_err(), ClusterError::TokenFile { .. }));
    }
}
