//! A member of a cluster, running.
//!
//! incarnation → store → announcement → raftstore → metadata group → port → tasks
//!
//! The group is opened before the port is, so that whatever is asked there finds it; what it sends before is lost, as any
//! message may be.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::service::Routes;

use super::book::parsed;
use super::core::{Core, Parts, refusal};
use super::error::ClusterError;
use super::leading::{resign, step_aside};
use super::operator::{OperatorError, Vote};
use super::peers::Peers;
use super::plan::replica_of;
use super::proto::{RemoveRequest, SetVoteRequest};
use super::record::{Membership, Record};
use super::remove::remove;
use super::rpc::proto::StatusResponse;
use super::rpc::service::Observed;
use super::service::Services;
use super::vote::set_vote;
use crate::ident::{GroupId, NodeId};
use crate::meta::METADATA_GROUP;
use crate::meta::client::Meta;
use crate::meta::command::VERSION;
use crate::meta::proto::{Member, MemberSpec, Refusal, StartMember};
use crate::meta::raft::{Forward, RaftMetadata};
use crate::meta::service::MetaError;
use crate::meta::stored;
use crate::meta::timekeeper::Timekeeper;
use crate::meta::view::StoreView;
use crate::net::identity::Identity;
use crate::net::tls::Tls;
use crate::net::{Address, NetConfig};
use crate::raftstore::entry;
use crate::raftstore::group::GroupConfig;
use crate::raftstore::log_store::{GroupStore, TableStore};
use crate::raftstore::message::Envelope;
use crate::raftstore::rocks::RocksStore;
use crate::raftstore::store::{GroupView, OpenError, RaftStore, StoreConfig};
use crate::raftstore::transport::{Dropped, GrpcTransport, Outgoing, Transport, Unsent};
use crate::storage::Storage;

/// How long a start waits for members that may take notice of it, all together and each of them.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(4);
const ANNOUNCE_EACH: Duration = Duration::from_millis(2500);
/// How long forming the cluster may take, once it is decided.
const FORM_TIMEOUT: Duration = Duration::from_secs(15);
/// What was asked of a member that stops gets this long to be let go.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(2);
const LET_GO_POLL: Duration = Duration::from_millis(2);

/// A member of a cluster. [`shutdown`](ClusterNode::shutdown) stops it cleanly; merely dropping it stops it as a crash
/// would, and blocks as long.
pub struct ClusterNode {
    // Dropped in this order.
    tasks: JoinSet<()>,
    timekeeper: Option<Timekeeper>,
    transport: Arc<GrpcTransport>,
    core: Arc<Core>,
    raft: Arc<RaftStore>,
    failure: watch::Receiver<Option<Arc<ClusterError>>>,
    address: SocketAddr,
    net: NetConfig,
}

/// What others than the owner of a member need of it. Cheap to clone; the directory is free once all are dropped.
#[derive(Clone)]
pub struct MemberHandle(Arc<Core>);

/// How a member's Raft groups are, for those who only look.
#[derive(Clone, Debug)]
pub struct HealthView(Weak<RaftStore>);

impl HealthView {
    /// What is wrong, in a line; nothing if all is well, or the member has stopped.
    pub fn why_not_good(&self) -> Option<String> {
        self.0.upgrade()?.health().why_not_good()
    }
}

impl MemberHandle {
    /// See [`ClusterNode::meta`].
    pub fn meta(&self) -> Meta {
        self.0.meta.clone()
    }

    /// See [`ClusterNode::membership`].
    pub fn membership(&self) -> Membership {
        self.0.membership
    }

    /// How this node stands in its Raft groups.
    pub fn status(&self) -> StatusResponse {
        Observed::status(&*self.0)
    }

    /// The members as far as they are known here.
    ///
    /// # Errors
    /// The store failed.
    pub fn members(&self) -> Result<Vec<Member>, ClusterError> {
        Ok(self.0.members()?)
    }

    /// Whether nobody leads the cluster as far as this node hears, for longer than an election takes.
    pub fn is_leaderless(&self) -> bool {
        self.0.is_leaderless()
    }

    /// Whether this node drains: it is to lead nothing, and to be sent no new clients.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    /// From now on this node drains, whoever has heard of it. [`drain`](MemberHandle::drain) tells the cluster.
    pub fn begin_drain(&self) {
        self.0.ask_to_drain();
    }

    /// Drains this node from now on, until it starts again or the cluster is told that it is active: its leadership goes to an
    /// active member, and the cluster is told.
    ///
    /// # Errors
    /// The cluster was not told, for example because no other member is active. The node drains all the same.
    pub async fn drain(&self, reason: &str) -> Result<(), MetaError> {
        self.0.ask_to_drain();
        let told = self.0.meta.acting("mainstay", reason).members().drain(self.0.node()).await;
        step_aside(&self.0).await;
        told.map(drop)
    }

    /// Takes a member out of the cluster for good, asked of any of them; says how it was.
    ///
    /// # Errors
    /// See [`OperatorError`]; refused if the cluster would not have a majority without it.
    pub async fn remove(&self, node: NodeId, actor: &str) -> Result<Member, OperatorError> {
        let request = RemoveRequest::of(node, actor);
        let removed = remove(&self.0, request).await.map_err(|status| OperatorError::from(&status))?;
        removed.ok_or_else(|| OperatorError::Unknown("the answer says nothing".to_owned()))
    }

    /// Has a member vote in a Raft group, or only follow, asked of any of them.
    ///
    /// # Errors
    /// See [`OperatorError`]; refused if nobody else votes, or no majority would without it.
    pub async fn set_vote(
        &self,
        group: GroupId,
        node: NodeId,
        votes: bool,
        actor: &str,
        reason: &str,
    ) -> Result<Vote, OperatorError> {
        let request = SetVoteRequest::of(group, node, votes, actor, reason);
        let set = set_vote(&self.0, request).await.map_err(|status| OperatorError::from(&status))?;
        Vote::try_from(set)
    }
}

/// Where a member listens.
pub(super) struct Port {
    pub(super) socket: std::net::TcpListener,
    pub(super) net: NetConfig,
    pub(super) tls: Option<Arc<Tls>>,
    /// Where others reach it.
    pub(super) address: String,
    /// What the first member of a cluster is called, if not by its number.
    pub(super) name: String,
}

/// The transport, which comes after those who send with it.
#[derive(Default)]
struct Later(OnceLock<Arc<GrpcTransport>>);

impl Transport for Later {
    fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), Unsent> {
        self.0.get().ok_or(Unsent::Unreachable)?.send(to, envelope)
    }

    fn send_all(&self, to: NodeId, envelopes: Vec<Envelope>) -> Vec<Dropped> {
        match self.0.get() {
            Some(transport) => transport.send_all(to, envelopes),
            None => Dropped::all(envelopes.len(), Unsent::Unreachable),
        }
    }

    fn send_snapshot(&self, to: NodeId, outgoing: Outgoing) -> Result<(), Unsent> {
        self.0.get().ok_or(Unsent::Unreachable)?.send_snapshot(to, outgoing)
    }
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ClusterError::Panicked(doing))
}

/// Tells the transport where this node is reached, and where the others are.
fn tell_places(transport: &GrpcTransport, own: &str, others: impl IntoIterator<Item = (NodeId, Vec<Address>)>) {
    if let Ok(own) = own.parse() {
        transport.advertise(own);
    }
    for (node, addresses) in others {
        if let Err(error) = transport.set_peer(node, addresses) {
            tracing::warn!(%node, %error, "a member cannot be reached");
        }
    }
}

impl ClusterNode {
    /// Starts the member that the record says.
    pub(super) async fn start(
        storage: Arc<Storage>,
        record: Record,
        membership: Membership,
        port: Port,
    ) -> Result<ClusterNode, ClusterError> {
        let at = Arc::clone(&storage);
        let (incarnation, store) = blocking("opening the store", move || {
            let incarnation = at.raise_incarnation()?;
            Ok::<_, ClusterError>((incarnation, Arc::new(RocksStore::open(at)?)))
        })
        .await??;
        let identity = Identity { cluster: membership.cluster, node: membership.node, incarnation };
        let peers = Arc::new(Peers::new(identity, port.net.clone(), port.tls.clone()));
        peers.set(known_peers(&store, &record, membership.node)?);

        let start = StartMember {
            id: membership.node.get(),
            secret_hash: record.secret_hash(),
            incarnation: incarnation.get(),
            version: VERSION.into(),
            addresses: vec![port.address.clone()],
        };
        let was_announced = announce_before(&peers, &storage, start).await?;
        let later = Arc::new(Later::default());
        let (raft, metadata) = {
            let (store, later, peers) = (Arc::clone(&store), Arc::clone(&later), Arc::clone(&peers));
            let is_founder = record.0.is_founder;
            blocking("opening the metadata group", move || open_group(store, later, peers, membership, is_founder))
                .await??
        };
        let raft = Arc::new(raft);
        let identity = peers.identity();
        let core = Arc::new(Core::new(Parts {
            membership,
            secret_hash: record.secret_hash(),
            addresses: vec![port.address.clone()],
            storage,
            metadata: Arc::clone(&metadata),
            peers,
            incarnation: identity.incarnation,
        }));
        let routes: Routes = Services::routes(&core);
        let net = port.net.clone();
        let transport = Arc::new(GrpcTransport::start_on(port.socket, port.net, identity, Some(routes))?);
        let address = transport.local_addr();
        // Nobody else has set it.
        let _ = later.0.set(Arc::clone(&transport));
        transport.receive_into(raft.inbox());
        tell_places(&transport, &port.address, known_peers(&store, &record, membership.node)?);
        drop(store);
        let mut node = ClusterNode {
            tasks: JoinSet::new(),
            timekeeper: Some(Timekeeper::start(metadata)),
            failure: core.failure(),
            transport,
            core,
            raft,
            address,
            net,
        };
        let was_formed = record.0.is_founder && node.form(&port.name).await?;
        node.force(record.0.forced_from).await?;
        node.spawn_tasks(was_announced || was_formed);
        tracing::info!(
            cluster = format!("{:016x}", membership.cluster.get()),
            node = %membership.node,
            incarnation = %identity.incarnation,
            %address,
            "this node is a member of the cluster"
        );
        Ok(node)
    }

    fn spawn_tasks(&mut self, was_announced: bool) {
        let core = || Arc::clone(&self.core);
        self.tasks.spawn(core().follow_members(Arc::clone(&self.transport)));
        self.tasks.spawn(core().watch_group());
        self.tasks.spawn(core().keep_replicas());
        self.tasks.spawn(core().doubt());
        self.tasks.spawn(core().measure());
        if !was_announced {
            self.tasks.spawn(core().announce());
        }
    }

    /// Forms the cluster that was decided on, if that is still to be done; says whether this start did.
    async fn form(&self, name: &str) -> Result<bool, ClusterError> {
        let core = &self.core;
        if stored::cluster(&*self.view())?.version != 0 {
            return Ok(false);
        }
        let first = MemberSpec {
            name: name.to_owned(),
            addresses: core.addresses.clone(),
            secret_hash: core.secret_hash.clone(),
            incarnation: core.peers.identity().incarnation.get(),
            version: VERSION.into(),
            ..MemberSpec::default()
        };
        let Membership { cluster, system, .. } = core.membership;
        let meta = core.meta.acting("mainstay", "cluster init").within(FORM_TIMEOUT);
        match meta.members().form(cluster, system, first).await {
            Ok(_) => Ok(true),
            Err(error) if error.refusal() == Some(Refusal::AlreadyFormed) => Ok(false),
            Err(MetaError::Refused(refused)) => Err(refusal(core.node(), refused)),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes in the cluster's own facts that it was [forced](super::force) out of another, if that is still to be done.
    async fn force(&self, from: u64) -> Result<(), ClusterError> {
        let Membership { cluster, node, .. } = self.core.membership;
        let found = stored::cluster(&*self.view())?.cluster_id;
        if found == 0 || found == cluster.get() {
            return Ok(());
        }
        if found != from {
            let what = format!("it says cluster {:016x}, the metadata say {found:016x}", cluster.get());
            return Err(ClusterError::Record(what));
        }
        let meta = self.core.meta.acting("mainstay", "cluster force-new").within(FORM_TIMEOUT);
        match meta.members().force_new(cluster, node).await {
            Ok(_) => Ok(()),
            // An earlier attempt came to its end.
            Err(MetaError::AnswerLost) => Ok(()),
            Err(MetaError::Refused(_)) if stored::cluster(&*self.view())?.cluster_id == cluster.get() => Ok(()),
            Err(MetaError::Refused(refused)) => Err(refusal(node, refused)),
            Err(error) => Err(error.into()),
        }
    }

    fn view(&self) -> Arc<dyn crate::meta::view::View> {
        use crate::meta::service::Metadata;
        self.core.metadata.view()
    }

    /// The cluster's facts. What is asked for is found, or forwarded, from any member.
    pub fn meta(&self) -> Meta {
        self.core.meta.clone()
    }

    /// What others than the owner of this need of it.
    pub fn handle(&self) -> MemberHandle {
        MemberHandle(Arc::clone(&self.core))
    }

    /// Which member of which cluster this is.
    pub fn membership(&self) -> Membership {
        self.core.membership
    }

    /// The data directory.
    pub fn storage(&self) -> Arc<Storage> {
        Arc::clone(&self.core.storage)
    }

    /// Where it listens for other nodes.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How it speaks to other nodes.
    pub fn net(&self) -> &NetConfig {
        &self.net
    }

    /// How the metadata group stands here.
    pub fn group(&self) -> GroupView {
        self.core.metadata.group().view()
    }

    /// The transport to the other members.
    pub fn transport(&self) -> &GrpcTransport {
        &self.transport
    }

    /// Resolves when this node cannot go on as a member; it should then be shut down. Never resolves otherwise.
    pub async fn failed(&self) -> Arc<ClusterError> {
        let mut failure = self.failure.clone();
        let member = async {
            match failure.wait_for(Option::is_some).await {
                Ok(failure) => failure.clone(),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(error) = member => error,
            failure = self.raft.failed() => Arc::new(ClusterError::Group(failure)),
        }
    }

    /// How its Raft groups are. It does not keep the member.
    pub fn health(&self) -> HealthView {
        HealthView(Arc::downgrade(&self.raft))
    }

    /// Stops: leadership is handed over; then nothing is asked, answered or decided any more, and the port is free. The directory is, too, once others let
    /// go of what [`storage`](ClusterNode::storage), [`meta`](ClusterNode::meta) and [`handle`](ClusterNode::handle) gave
    /// them.
    pub async fn shutdown(mut self) {
        resign(&self.core).await;
        self.tasks.shutdown().await;
        if let Some(timekeeper) = self.timekeeper.take() {
            timekeeper.stop().await;
        }
        self.transport.shutdown().await;
        let raft = Arc::clone(&self.raft);
        if blocking("stopping the raftstore", move || raft.shutdown()).await.is_err() {
            tracing::error!("the raftstore did not stop cleanly");
        }
        // Calls that were cut let go of what they held a moment later.
        let core = Arc::downgrade(&self.core);
        drop(self);
        let begun = Instant::now();
        while core.strong_count() > 0 && begun.elapsed() < LET_GO_TIMEOUT {
            sleep(LET_GO_POLL).await;
        }
    }
}

/// The other members: those of the table, or those that were named when this node joined.
fn known_peers(
    store: &Arc<RocksStore>,
    record: &Record,
    own: NodeId,
) -> Result<std::collections::BTreeMap<NodeId, Vec<Address>>, ClusterError> {
    let view = StoreView { store: Arc::clone(store) as Arc<dyn TableStore>, group: METADATA_GROUP };
    let members = stored::members(&view)?;
    let table = members.iter().map(|member| (member.id, &member.addresses));
    let noted = record.0.peers.iter().map(|peer| (peer.node, &peer.addresses));
    let all: Vec<_> = if members.is_empty() { noted.collect() } else { table.collect() };
    let others = all.into_iter().filter(|(node, _)| *node != own.get());
    Ok(others.map(|(node, addresses)| (NodeId::new(node), parsed(addresses))).collect())
}

/// Has this start noted before the node takes part in anything, if the others can do so; says whether they did.
async fn announce_before(peers: &Peers, storage: &Arc<Storage>, mut start: StartMember) -> Result<bool, ClusterError> {
    let own = NodeId::new(start.id);
    let all = async {
        for node in peers.nodes() {
            match peers.announce(node, start.clone(), ANNOUNCE_EACH).await {
                Ok(Ok(_)) => return Ok(true),
                Ok(Err(refused)) if refused.why() == Refusal::NotFormed => {}
                Ok(Err(refused)) => return Err(refusal(own, refused)),
                Err(error) => {
                    tracing::debug!(%node, %error, "the start is not noted there");
                    if error.may_have_had_effect() {
                        // It cannot be told from that of a copy if it is announced again: it is one more then.
                        let storage = Arc::clone(storage);
                        let raised = blocking("raising the incarnation", move || storage.raise_incarnation()).await??;
                        start.incarnation = raised.get();
                        peers.set_incarnation(raised);
                    }
                }
            }
        }
        Ok(false)
    };
    match timeout(ANNOUNCE_TIMEOUT, all).await {
        Ok(noted) => noted,
        Err(_) => {
            // What was begun may have been noted, or may yet be.
            let storage = Arc::clone(storage);
            peers.set_incarnation(blocking("raising the incarnation", move || storage.raise_incarnation()).await??);
            Ok(false)
        }
    }
}

/// Opens the raftstore and the metadata group, which is made if this is the first time.
fn open_group(
    store: Arc<RocksStore>,
    transport: Arc<Later>,
    peers: Arc<Peers>,
    membership: Membership,
    is_founder: bool,
) -> Result<(RaftStore, Arc<RaftMetadata>), ClusterError> {
    let raft = RaftStore::start(
        StoreConfig::default(),
        Arc::clone(&store) as Arc<dyn GroupStore>,
        transport as Arc<dyn Transport>,
    )?;
    let replica = replica_of(membership.node);
    if !raft.groups()?.contains(&METADATA_GROUP) {
        let made = match is_founder {
            true => {
                let alone = entry::Membership::of_voters([(replica, membership.node)]);
                raft.create_group(METADATA_GROUP, replica, alone)
            }
            false => raft.join_group(METADATA_GROUP, replica),
        };
        made.map_err(OpenError::from)?;
    }
    let forward = Some(peers as Arc<dyn Forward>);
    let metadata = RaftMetadata::open(&raft, store as Arc<dyn TableStore>, GroupConfig::new(replica), forward)?;
    Ok((raft, Arc::new(metadata)))
}
