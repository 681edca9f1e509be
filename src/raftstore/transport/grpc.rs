//! Envelopes between processes: gRPC streams, one per direction and peer; and snapshots, each on a call of its own.
//!
//! ```text
//!  driver ──send──► queue ◄─polled by─ connection ═══ HTTP/2, TLS ═══ connection ──► stream's task ──► inbox ──► driver
//!                   bounded, per peer                                                 one per peer
//! ```
//!
//! Sending puts an envelope into the queue of its peer and wakes whoever writes to the socket, which takes all that waits,
//! up to the size of a batch. A task per peer connects when the first envelope comes and from then on by itself,
//! waiting longer after each failure; after some failures in a row its [breaker](crate::net::breaker) opens, and nothing
//! is queued until an attempt succeeds. What is queued when a link is lost is dropped.
//!
//! Both sides [prove](crate::net::identity) who they are before the first envelope. A node has one stream here: a newer one
//! takes over, and an earlier life of the node is refused. A dead peer is noticed by HTTP/2's own pings. How snapshots
//! travel is told in `transport/snapshots`.
//!
//! **Metrics**, all beginning with `mainstay_raft_transport_`; `peer` is the other node's number:
//!
//! | name | kind, unit | what |
//! |---|---|---|
//! | `sent_envelopes_total` {peer} | counter, envelopes | handed to a connection |
//! | `sent_bytes_total` {peer} | counter, bytes | the same, encoded |
//! | `batch_envelopes` {peer} | histogram, envelopes | in each batch sent |
//! | `batch_bytes` {peer} | histogram, bytes | in each batch sent |
//! | `received_envelopes_total` {peer} | counter, envelopes | that arrived |
//! | `received_bytes_total` {peer} | counter, bytes | the same, encoded |
//! | `dropped_envelopes_total` {peer, reason} | counter, envelopes | `queue_full`, `unreachable` (the breaker is open), `too_large`, `disconnected` (waited when the link was lost), `unknown_node`, `inbox_full` (arrived, but the receiver was busy or not there yet) |
//! | `connects_total` {peer, outcome} | counter, attempts | `ok`, `failed` |
//! | `breaker_state` {peer} | gauge | 0 closed, 1 half-open, 2 open |
//! | `refused_total` {side} | counter, peers | not listened to: as `caller`, or as `callee` |
//! | `snapshot_sent_bytes_total` {peer} | counter, bytes | chunks handed to a connection |
//! | `snapshot_received_bytes_total` {peer} | counter, bytes | chunks that arrived |
//! | `snapshots_sent_total` {peer, outcome} | counter, snapshots | `ok`, `refused` (not wanted there), `failed` (given up), `stopped` (for a newer one, or with the transport or the peer); and those not taken over: `queue_full`, `unreachable` (the breaker is open), `too_large`, `unknown_node` |
//! | `snapshots_resumed_total` {peer} | counter, attempts | that went on behind what an earlier one had brought |
//! | `snapshots_received_total` {peer, outcome} | counter, calls | `ok`, `refused` (not wanted here), `busy`, `broken` (off) |
//!
//! And of [`crate::net`]: `mainstay_file_reloads_total` {files: `tls`, outcome: `ok`, `failed`} and
//! `mainstay_net_refused_connections_total` {reason: `handshake`, `too_many`}.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::Server;

use super::super::message::Envelope;
use super::queue::Limits;
use super::receiver::{Admissions, Receiver};
use super::sender::Peer;
use super::snapshots::sender::{Job, Jobs, Outbox};
use super::wire::raft_server::RaftServer;
use super::wire::{FRAME_LIMIT_BYTES, MESSAGE_LIMIT_BYTES};
use super::{Dropped, Inbox, Outgoing, Transport, Unsent, metrics};
use crate::ident::{Incarnation, NodeId};
use crate::net::breaker::BreakerState;
use crate::net::connection::Holder;
use crate::net::identity::Identity;
use crate::net::listener::{Listener, bind_socket};
use crate::net::tls::Tls;
use crate::net::{Address, NetConfig, NetError};

/// What one stream may have on its way, and one connection, without being read: HTTP/2's windows.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Largest piece of HTTP/2.
const HTTP_FRAME_BYTES: u32 = 256 << 10;
/// Largest headers of a call.
const HEADERS_LIMIT_BYTES: u32 = 16 << 10;
/// Connections that were cut get this long to notice; then they are left to themselves.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// What all tasks of a transport share.
pub(super) struct Shared {
    pub(super) config: NetConfig,
    pub(super) identity: Identity,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) admissions: Mutex<Admissions>,
    /// The tasks of incoming streams.
    pub(super) streams: Mutex<JoinSet<()>>,
    pub(super) outbox: Outbox,
    /// Snapshots that may be taken at once.
    pub(super) snapshots_in: Arc<Semaphore>,
    /// Where this node says that others reach it.
    pub(super) advertised: OnceLock<Address>,
    /// No more nodes than are admitted.
    met: watch::Sender<BTreeMap<NodeId, Met>>,
    inbox: RwLock<Option<Arc<dyn Inbox>>>,
}

/// Where a node that called, and proved who it is, says that it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Which life of the node says so.
    pub incarnation: Incarnation,
    /// Where.
    pub address: Address,
}

impl Shared {
    pub(super) fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.inbox.read().clone()
    }

    /// A node that was admitted says where it is. A life of a node has one place: what it said first holds.
    pub(super) fn meet(&self, peer: Identity, address: Address) {
        self.met.send_if_modified(|met| {
            let is_new = met.get(&peer.node).is_none_or(|known| known.incarnation < peer.incarnation);
            if is_new {
                met.insert(peer.node, Met { incarnation: peer.incarnation, address });
            }
            is_new
        });
    }
}

/// How it goes with a peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Which.
    pub node: NodeId,
    /// Its circuit breaker. Unless it is closed, nothing is queued.
    pub breaker: BreakerState,
    /// Whether there is a stream to it.
    pub is_connected: bool,
    /// Envelopes that wait.
    pub queued: usize,
    /// Why it was last not reached; nothing once it is.
    pub last_failure: Option<String>,
}

/// The transport between processes. Dropping it without [`GrpcTransport::shutdown`] ends everything and waits for nothing.
pub struct GrpcTransport {
    shared: Arc<Shared>,
    runtime: Handle,
    address: SocketAddr,
    limits: Limits,
    peers: RwLock<HashMap<NodeId, Tended>>,
    serving: Mutex<Option<Serving>>,
}

/// A peer and the task that keeps it reached, which ends with this.
struct Tended {
    peer: Arc<Peer>,
    task: JoinHandle<()>,
    snapshots: Arc<Jobs>,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What ends when it is dropped.
struct Serving {
    holder: Arc<Holder>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl GrpcTransport {
    /// Listens as the settings say, on the runtime of the caller. `services` are further gRPC services on the same port,
    /// under the same TLS.
    ///
    /// Until [`receive_into`](GrpcTransport::receive_into) what arrives is dropped.
    ///
    /// # Errors
    /// Settings, TLS files or address cannot be used, or there is no runtime.
    pub async fn start(
        config: NetConfig,
        identity: Identity,
        services: Option<Routes>,
    ) -> Result<GrpcTransport, NetError> {
        config.validate()?;
        Handle::try_current().map_err(|_| NetError::NoRuntime)?;
        GrpcTransport::start_on(bind_socket(&config)?, config, identity, services)
    }

    /// The same on a socket that is bound already.
    ///
    /// # Errors
    /// Settings or TLS files cannot be used, or there is no runtime.
    pub fn start_on(
        socket: std::net::TcpListener,
        config: NetConfig,
        identity: Identity,
        services: Option<Routes>,
    ) -> Result<GrpcTransport, NetError> {
        config.validate()?;
        let runtime = Handle::try_current().map_err(|_| NetError::NoRuntime)?;
        let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let holder = Arc::new(Holder::new());
        let listener = Listener::on(socket, &config, tls.clone(), &holder)?;
        let address = listener.local_addr();
        let limits = Limits {
            envelopes: usize::try_from(config.queue_envelopes).unwrap_or(usize::MAX),
            bytes: usize::try_from(config.queue_bytes).unwrap_or(usize::MAX),
            batch_bytes: usize::try_from(config.batch_bytes).unwrap_or(usize::MAX),
        };
        let snapshots_in = usize::try_from(config.max_snapshots_in).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            outbox: Outbox::new(&config),
            snapshots_in: Arc::new(Semaphore::new(snapshots_in)),
            config,
            identity,
            tls,
            admissions: Mutex::default(),
            streams: Mutex::default(),
            advertised: OnceLock::new(),
            met: watch::channel(BTreeMap::new()).0,
            inbox: RwLock::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let server = runtime.spawn(serve(Arc::clone(&shared), services.unwrap_or_default(), listener, stopped));
        tracing::info!(%address, tls = shared.tls.is_some(), "listening for other nodes");
        let serving = Mutex::new(Some(Serving { holder, stop, server }));
        Ok(GrpcTransport { shared, runtime, address, limits, peers: RwLock::default(), serving })
    }

    /// From now on, what arrives goes into this inbox, which also hears of nodes that cannot be reached. It is let go at
    /// [`shutdown`](GrpcTransport::shutdown).
    pub fn receive_into(&self, inbox: Arc<dyn Inbox>) {
        *self.shared.inbox.write() = Some(inbox);
    }

    /// Tells the nodes that are called from now on where they reach this one. Said once.
    pub fn advertise(&self, address: Address) {
        let _ = self.shared.advertised.set(address);
    }

    /// Where the nodes that called say that they are reached. It is for the owner to decide whether they are called there.
    pub fn met(&self) -> watch::Receiver<BTreeMap<NodeId, Met>> {
        self.shared.met.subscribe()
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Says where a node is. Its addresses are tried in turn. With the same addresses as before, nothing happens; with
    /// others, it is connected to anew, what waited for it is dropped, and snapshots to it are given up.
    ///
    /// # Errors
    /// [`NetError::NoAddress`], or [`NetError::Plaintext`]: an address is not on loopback. Names are checked when they are
    /// looked up.
    pub fn set_peer(&self, node: NodeId, addresses: Vec<Address>) -> Result<(), NetError> {
        if addresses.is_empty() {
            return Err(NetError::NoAddress(node));
        }
        for literal in addresses.iter().filter_map(Address::literal) {
            self.shared.config.check_address(literal)?;
        }
        // Holds back a shutdown, so that no task begins after it.
        let serving = self.serving.lock();
        if serving.is_none() {
            return Ok(());
        }
        let mut peers = self.peers.write();
        if peers.get(&node).is_some_and(|known| known.peer.addresses == addresses) {
            return Ok(());
        }
        let peer = Arc::new(Peer::new(node, addresses, self.limits));
        let task = self.runtime.spawn(Arc::clone(&peer).run(Arc::clone(&self.shared)));
        let before = peers.insert(node, Tended { peer, task, snapshots: Arc::default() });
        drop(peers);
        drop(before);
        Ok(())
    }

    fn begin_snapshot(&self, to: NodeId, outgoing: Outgoing) -> Result<(), Unsent> {
        let (peer, jobs) = match self.peers.read().get(&to) {
            None => return Err(Unsent::UnknownNode),
            Some(Tended { peer, snapshots, .. }) => (Arc::clone(peer), Arc::clone(snapshots)),
        };
        if !peer.queue.is_open() {
            return Err(Unsent::Unreachable);
        }
        if outgoing.offer.message.len() > MESSAGE_LIMIT_BYTES {
            return Err(Unsent::TooLarge);
        }
        let place = self.shared.outbox.place()?;
        let replica = (outgoing.offer.group, outgoing.offer.to);
        let job = Job::new(Arc::clone(&self.shared), peer, outgoing, place);
        // Without any lock: on a runtime that is gone the job ends here and now, and says so.
        jobs.insert(replica, self.runtime.spawn(job.run()));
        Ok(())
    }

    /// Forgets where a node is. What waited for it is dropped, snapshots to it are given up; it may still call.
    pub fn remove_peer(&self, node: NodeId) {
        let forgotten = self.peers.write().remove(&node);
        drop(forgotten);
    }

    /// How it goes with each peer, by number.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.peers.read();
        let mut statuses: Vec<_> = peers.values().map(|tended| status(&tended.peer)).collect();
        statuses.sort_unstable_by_key(|status| status.node);
        statuses
    }

    /// Stops: nothing is sent, accepted or delivered any more, and the port is free. Connections are cut, so that this
    /// takes a moment whatever the peers do.
    pub async fn shutdown(&self) {
        let Some(Serving { holder, stop, server }) = self.serving.lock().take() else { return };
        let mut peers = std::mem::take(&mut *self.peers.write());
        for tended in peers.values() {
            tended.task.abort();
            tended.snapshots.abort();
        }
        drop(stop);
        drop(holder);
        let abort = server.abort_handle();
        let ended = timeout(SHUTDOWN_TIMEOUT, async {
            let _ = server.await;
            for tended in peers.values_mut() {
                tended.snapshots.ended().await;
                let _ = (&mut tended.task).await;
            }
        });
        if ended.await.is_err() {
            tracing::warn!(address = %self.address, "calls of other nodes did not end when they were cut");
            abort.abort();
        }
        let mut streams = std::mem::take(&mut *self.shared.streams.lock());
        streams.shutdown().await;
        // What was begun on other threads ends by itself.
        let shared = &self.shared;
        let blocked = async {
            shared.outbox.ended().await;
            let _ = shared.snapshots_in.acquire_many(shared.config.max_snapshots_in).await;
        };
        if timeout(SHUTDOWN_TIMEOUT, blocked).await.is_err() {
            tracing::warn!(address = %self.address, "a snapshot is still being read or written");
        }
        // The inbox's owner usually owns the transport.
        *self.shared.inbox.write() = None;
        tracing::info!(address = %self.address, "stopped listening for other nodes");
    }
}

fn status(peer: &Peer) -> PeerStatus {
    let state = peer.state();
    PeerStatus {
        node: peer.node,
        breaker: state.breaker,
        is_connected: state.is_connected,
        queued: peer.queue.len(),
        last_failure: state.last_failure,
    }
}

async fn serve(shared: Arc<Shared>, services: Routes, listener: Listener, stopped: oneshot::Receiver<()>) {
    let config = &shared.config;
    let receiver =
        RaftServer::new(Receiver { shared: Arc::clone(&shared) }).max_decoding_message_size(FRAME_LIMIT_BYTES);
    let served = Server::builder()
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP_FRAME_BYTES)
        .http2_max_header_list_size(HEADERS_LIMIT_BYTES)
        .max_concurrent_streams(config.max_calls_per_connection)
        .add_routes(services.add_service(receiver))
        .serve_with_incoming_shutdown(listener, async {
            let _ = stopped.await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serving other nodes ended");
    }
}

impl Transport for GrpcTransport {
    fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), Unsent> {
        self.send_all(to, vec![envelope]).first().map_or(Ok(()), |dropped| Err(dropped.why))
    }

    fn send_all(&self, to: NodeId, envelopes: Vec<Envelope>) -> Vec<Dropped> {
        let peers = self.peers.read();
        let Some(Tended { peer, .. }) = peers.get(&to) else {
            metrics::unknown_node(envelopes.len());
            return Dropped::all(envelopes.len(), Unsent::UnknownNode);
        };
        let dropped = peer.queue.push(envelopes);
        dropped.iter().for_each(|dropped| peer.counts.unsent(dropped.why));
        dropped
    }

    fn send_snapshot(&self, to: NodeId, outgoing: Outgoing) -> Result<(), Unsent> {
        self.begin_snapshot(to, outgoing).inspect_err(|why| metrics::snapshot_unsent(to, *why))
    }
}
