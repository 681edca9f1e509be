//! What the services and tasks of a member share, and the tasks themselves.
//!
//! | task | does |
//! |---|---|
//! | address book | follows the table of members: whom to [send to](super::book), and whether this node is still one of them |
//! | [announcement](super::announcing) | says that this node has started, where nobody could be told before |
//! | doubt | when nobody leads for a while: asks the others whether this node is still a member |
//! | measures | what [`metrics`](super::metrics) says of the members, looked at once a second |
//! | keeper | while this node leads: steps aside if it drains; makes the group's replicas those of the members ([`plan`](super::plan)) |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::book::book;
use super::error::ClusterError;
use super::leading::step_aside;
use super::metrics;
use super::peers::Peers;
use super::plan::{Step, plan, replica_of};
use super::record::Membership;
use crate::ident::{Incarnation, NodeId};
use crate::meta::client::Meta;
use crate::meta::proto::{Member, MemberState, Refusal, Refused, StartMember};
use crate::meta::raft::RaftMetadata;
use crate::meta::service::Metadata;
use crate::meta::stored;
use crate::net::Address;
use crate::raftstore::group::{ChangeRefusal, MembershipChange, Role};
use crate::raftstore::log_store::StoreError;
use crate::raftstore::store::{ChangeError, GroupFailure};
use crate::raftstore::transport::{GrpcTransport, Met};
use crate::storage::Storage;

/// How often the keeper looks whether there is something to do.
const KEEP_EVERY: Duration = Duration::from_millis(200);
/// How often it is measured what is looked at rather than counted.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// How long each of its steps may take; what is not done then is found again.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// A node that has heard of no leader for this long asks whether it was removed, and how often.
const DOUBT_AFTER: Duration = Duration::from_secs(2);
/// How long each of the others may take to say so.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that was removed gets this long to pass on the answer of whoever removed it.
const FAREWELL: Duration = Duration::from_secs(2);
const FAREWELL_POLL: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Core {
    pub(super) membership: Membership,
    pub(super) secret_hash: Vec<u8>,
    /// Where others reach this node.
    pub(super) addresses: Vec<String>,
    pub(super) storage: Arc<Storage>,
    pub(super) metadata: Arc<RaftMetadata>,
    /// Acts in the cluster's own name.
    pub(super) meta: Meta,
    pub(super) peers: Arc<Peers>,
    /// When this start began.
    pub(super) begun: Instant,
    /// The last that was raised.
    pub(super) incarnation: AtomicU64,
    /// Removals that are answered here.
    removals: AtomicUsize,
    /// The cluster says that this node drains.
    drains: AtomicBool,
    /// Somebody asked this node to, whether the cluster could be told or not.
    asked_to_drain: AtomicBool,
    /// Nobody led at the last looks, or was not looked for yet.
    leaderless: AtomicBool,
    failure: watch::Sender<Option<Arc<ClusterError>>>,
}

/// Counts a removal while it lasts.
pub(super) struct Removal<'a>(&'a Core);

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.0.removals.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a core is made of.
pub(super) struct Parts {
    pub(super) membership: Membership,
    pub(super) secret_hash: Vec<u8>,
    pub(super) addresses: Vec<String>,
    pub(super) storage: Arc<Storage>,
    pub(super) metadata: Arc<RaftMetadata>,
    pub(super) peers: Arc<Peers>,
    pub(super) incarnation: Incarnation,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Core {
        let Parts { membership, secret_hash, addresses, storage, metadata, peers, incarnation } = parts;
        let meta = Meta::new(Arc::clone(&metadata) as Arc<dyn Metadata>, "mainstay");
        Core {
            membership,
            secret_hash,
            addresses,
            storage,
            metadata,
            meta,
            peers,
            begun: Instant::now(),
            incarnation: AtomicU64::new(incarnation.get()),
            removals: AtomicUsize::new(0),
            drains: AtomicBool::new(false),
            asked_to_drain: AtomicBool::new(false),
            leaderless: AtomicBool::new(true),
            failure: watch::channel(None).0,
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.membership.node
    }

    /// The members as far as they are known here.
    pub(super) fn members(&self) -> Result<Vec<Member>, StoreError> {
        stored::members(&*self.metadata.view())
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        self.metadata.group().view().leader_node()
    }

    /// Whether this node has heard of no leader for longer than an election takes, or not yet.
    pub(super) fn is_leaderless(&self) -> bool {
        self.leaderless.load(Ordering::Relaxed) && self.leader().is_none()
    }

    pub(super) fn failure(&self) -> watch::Receiver<Option<Arc<ClusterError>>> {
        self.failure.subscribe()
    }

    /// The first failure is the one that counts.
    pub(super) fn fail(&self, error: ClusterError) {
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            if is_first {
                tracing::error!(%error, "this node cannot go on as a member");
                *failure = Some(Arc::new(error));
            }
            is_first
        });
    }

    /// Whether this node is to lead nothing, and be sent no new clients.
    pub(super) fn is_draining(&self) -> bool {
        self.drains.load(Ordering::SeqCst) || self.asked_to_drain.load(Ordering::SeqCst)
    }

    pub(super) fn ask_to_drain(&self) {
        self.asked_to_drain.store(true, Ordering::SeqCst);
    }

    /// The cluster says in which state this node is.
    fn note_state(&self, state: MemberState) {
        let drains = state == MemberState::Draining;
        if self.drains.swap(drains, Ordering::SeqCst) && !drains {
            // Whoever ends it means also what this node was asked itself.
            self.asked_to_drain.store(false, Ordering::SeqCst);
        }
    }

    pub(super) fn begin_removal(&self) -> Removal<'_> {
        self.removals.fetch_add(1, Ordering::Relaxed);
        Removal(self)
    }

    /// Follows the table of members until the group stops.
    pub(super) async fn follow_members(self: Arc<Core>, transport: Arc<GrpcTransport>) {
        let mut changes = self.metadata.machine().members.clone();
        let mut met = transport.met();
        let mut was_member = false;
        loop {
            changes.borrow_and_update();
            let met_so_far = met.borrow_and_update().clone();
            match self.members() {
                Ok(members) => {
                    let own = members.iter().find(|member| member.id == self.node().get());
                    match own {
                        Some(own) if own.incarnation > self.incarnation.load(Ordering::Relaxed) => {
                            return self.fail(ClusterError::Superseded(self.node()));
                        }
                        None if was_member => return self.was_removed().await,
                        own => {
                            was_member = own.is_some();
                            self.note_state(own.map_or(MemberState::Unspecified, Member::state));
                        }
                    }
                    self.note_addresses(&members, &met_so_far, &transport);
                }
                Err(error) => return self.fail(error.into()),
            }
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                changed = met.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn note_addresses(&self, members: &[Member], met: &BTreeMap<NodeId, Met>, transport: &GrpcTransport) {
        if members.is_empty() {
            // A new member knows those that let it in.
            return;
        }
        let addresses = book(self.node(), members, met);
        for gone in self.peers.nodes().into_iter().filter(|node| !addresses.contains_key(node)) {
            transport.remove_peer(gone);
        }
        for (node, addresses) in &addresses {
            if let Err(error) = transport.set_peer(*node, addresses.clone()) {
                tracing::warn!(%node, %error, "a member cannot be reached");
            }
        }
        let first = |all: &BTreeMap<NodeId, Vec<Address>>, node| all.get(node).and_then(|all| all.first()).cloned();
        let before = self.peers.set(addresses.clone());
        for node in addresses.keys() {
            let (was, is) = (first(&before, node), first(&addresses, node));
            if let (Some(was), Some(is)) = (&was, &is)
                && was != is
            {
                tracing::info!(%node, %was, %is, "a member is reached elsewhere from now on");
            }
        }
    }

    /// Waits until the group has stopped here, and says why.
    pub(super) async fn watch_group(self: Arc<Core>) {
        let mut view = self.metadata.group().watch();
        let failure = match view.wait_for(|view| view.failure.is_some()).await {
            Ok(view) => view.failure.clone(),
            Err(_) => None,
        };
        match failure.as_deref() {
            None | Some(GroupFailure::ShutDown) => {}
            Some(GroupFailure::Removed(_)) => self.was_removed().await,
            Some(_) => failure.into_iter().for_each(|failure| self.fail(ClusterError::Group(failure))),
        }
    }

    /// Asks the others whether this node is still a member, when it hears of no leader: nobody speaks any more to one that was
    /// removed, or as whom another process runs.
    pub(super) async fn doubt(self: Arc<Core>) {
        let mut leaderless = 0_u64;
        let mut looks = looks_every(DOUBT_AFTER / 2);
        loop {
            looks.tick().await;
            let view = self.metadata.group().view();
            if view.failure.is_some() {
                return;
            }
            leaderless = if view.leader_node().is_none() { leaderless + 1 } else { 0 };
            match leaderless {
                0 => self.leaderless.store(false, Ordering::Relaxed),
                1 => {}
                _ => self.leaderless.store(true, Ordering::Relaxed),
            }
            if leaderless == 0 || !leaderless.is_multiple_of(2) {
                continue;
            }
            for node in self.peers.nodes() {
                // It changes nothing: this start was announced, or will be.
                match self
                    .peers
                    .announce(node, StartMember { incarnation: 0, ..self.start_message() }, DOUBT_TIMEOUT)
                    .await
                {
                    Ok(Err(refused)) if refused.why() == Refusal::StaleIncarnation => {
                        if refused.number > self.incarnation.load(Ordering::Relaxed) {
                            return self.fail(ClusterError::Superseded(self.node()));
                        }
                        break;
                    }
                    Ok(Err(refused)) if matches!(refused.why(), Refusal::NoSuchMember | Refusal::WrongSecret) => {
                        return self.fail(refusal(self.node(), refused));
                    }
                    answer => tracing::debug!(%node, ?answer, "whether this node is still a member is not known there"),
                }
            }
        }
    }

    async fn was_removed(&self) {
        // Whoever asked this node to remove itself is still to be answered.
        let begun = Instant::now();
        while self.removals.load(Ordering::Relaxed) > 0 && begun.elapsed() < FAREWELL {
            sleep(FAREWELL_POLL).await;
        }
        self.fail(ClusterError::Removed(self.node()));
    }

    /// Measures what is looked at rather than counted.
    pub(super) async fn measure(self: Arc<Core>) {
        let mut looks = looks_every(MEASURE_EVERY);
        loop {
            looks.tick().await;
            let view = self.metadata.group().view();
            if view.failure.is_some() {
                return;
            }
            match self.members() {
                Ok(members) => metrics::observed(&view, &members, self.is_draining()),
                Err(error) => return self.fail(error.into()),
            }
        }
    }

    /// Keeps the replicas those of the members, while this node leads.
    pub(super) async fn keep_replicas(self: Arc<Core>) {
        let mut ticks = looks_every(KEEP_EVERY);
        loop {
            ticks.tick().await;
            let view = self.metadata.group().view();
            if view.failure.is_some() {
                return;
            }
            if view.status.positions.role != Role::Leader {
                continue;
            }
            let members = match self.members() {
                Ok(members) => members,
                Err(error) => return self.fail(error.into()),
            };
            if self.is_draining() {
                step_aside(&self).await;
            }
            for step in plan(&view.status, &members) {
                match self.take(step).await {
                    Ok(()) => {
                        tracing::info!(?step, "changed who takes part");
                        // What follows was planned before.
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(?step, error, "who takes part cannot be changed now");
                        if !matches!(step, Step::Promote(_) | Step::Demote(_)) {
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn take(&self, step: Step) -> Result<(), String> {
        let change = match step {
            Step::Add(node) => MembershipChange { add: vec![(replica_of(node), node)], ..MembershipChange::default() },
            Step::Promote(replica) => MembershipChange { promote: vec![replica], ..MembershipChange::default() },
            Step::Remove(replica) => MembershipChange { remove: vec![replica], ..MembershipChange::default() },
            Step::Demote(replica) => MembershipChange { demote: vec![replica], ..MembershipChange::default() },
            Step::HandOver(to) => {
                return self.metadata.group().transfer_leader(to).await.map_err(|error| error.to_string());
            }
            Step::Activate(node) => {
                let meta = self.meta.within(STEP_TIMEOUT).acting("mainstay", "it keeps up");
                let activated = meta.members().set_state(node, MemberState::Joining, MemberState::Active).await;
                return activated.map(drop).map_err(|error| error.to_string());
            }
        };
        let changed = self.metadata.group().change_membership(change, STEP_TIMEOUT).await;
        match changed {
            Ok(_) => Ok(()),
            Err(ChangeError::Refused(ChangeRefusal::Used { replica, .. })) => {
                Err(format!("replica {replica} was overtaken and cannot take part any more"))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// After a pause what is looked at is looked at once, and not as often as it was missed.
fn looks_every(period: Duration) -> Interval {
    let mut looks = interval(period);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Why the cluster does not let this node go on.
pub(super) fn refusal(node: NodeId, refused: Refused) -> ClusterError {
    match refused.why() {
        Refusal::NoSuchMember => ClusterError::Removed(node),
        _ => ClusterError::Refused(refused),
    }
}
