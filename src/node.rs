//! The node: opens the floors in order, stops them in reverse. Wiring only.
//!
//! lock → identity → find the log's end → open the engine → make the end final → replay → promote
//!
//! A member of a cluster is opened by [`crate::cluster`] first, which holds lock and identity then; the rest follows on its
//! directory ([`Node::open_member`]), and goes before it.
//!
//! The log's end is made final only after the engine was asked: an engine that has applied more than the log holds is
//! evidence that the log lost something, and then nothing may be changed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::checkpoint::{self, Checkpointer};
use crate::cluster::{self, ClusterError, ClusterNode, FIRST_MEMBER};
use crate::config::{ConfigError, NodeConfig};
use crate::disk::RealDisk;
use crate::engine::{Engine, EngineError};
use crate::ident::SystemId;
use crate::lsn::{Epoch, Lsn};
use crate::meta::client::Meta;
use crate::primary::Fence;
pub use crate::primary::Primary;
use crate::storage::{ENGINE_DIR, Storage, StorageError, Unsettled, WAL_DIR};
use crate::wal::retention::{Decision, HolderKind};
use crate::wal::{self, Evidence, Health, Hold, Layout, Scan, SegmentDirectory, Wal, WalError};

/// How many bytes of records are handed to the engine at once during replay.
const REPLAY_BATCH_BYTES: usize = 4 << 20;
/// How many records at most.
const REPLAY_BATCH_RECORDS: usize = 1024;

/// An open node. [`shutdown`](Node::shutdown) stops it cleanly; merely dropping it stops it as a crash would, and the
/// next opening recovers.
pub struct Node<E: Engine> {
    // Dropped in this order: checkpoints end, then the log, then what makes it a member, and only then the directory's lock
    // is released.
    checkpointer: Checkpointer,
    log: RunningLog,
    cluster: Option<ClusterNode>,
    storage: Arc<Storage>,
    engine: Arc<E>,
    failure: watch::Receiver<Option<Arc<NodeError>>>,
}

/// The log and the right to write to it, which end together: an engine may keep its [`Primary`] longer than the node
/// lives, and must not write into a directory that another node has opened since.
struct RunningLog {
    wal: Arc<Wal>,
    fence: Fence,
}

impl Drop for RunningLog {
    fn drop(&mut self) {
        self.fence.raise();
        self.wal.halt();
    }
}

/// Why a node did not open, or what stopped it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// *Your mistake*: settings that cannot be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// The log cannot be used.
    #[error("{0}")]
    Wal(#[from] WalError),
    /// It is, or is to be, a member of a cluster, and cannot be one.
    #[error("{0}")]
    Cluster(Arc<ClusterError>),
    /// *This node must stop*: the engine failed.
    #[error("the engine failed to {doing}: {source}")]
    Engine {
        /// What it was to do.
        doing: &'static str,
        /// Its error.
        source: EngineError,
    },
    /// *This node must stop*: the engine's files need log that has been recycled. They must be seeded from a backup
    /// or another node.
    #[error("the engine's files reach up to {applied}, but the log begins at {oldest}: they must be seeded anew")]
    EngineBehind {
        /// Up to where the engine's files reach; `0/0` if they are empty.
        applied: Lsn,
        /// The oldest position in the log.
        oldest: Lsn,
    },
    /// *Your mistake*: the engine's files belong to another system.
    #[error("the engine's files belong to system {found}, not to {expected}: were they mixed up?")]
    EngineForeign {
        /// This node's system.
        expected: SystemId,
        /// The engine's.
        found: SystemId,
    },
    /// *This node must stop*: the engine answered a checkpoint that cannot be.
    #[error(
        "the engine says that a checkpoint reaches {answered}; it must be the end of a record from {noted} to {durable}"
    )]
    BadCheckpoint {
        /// What it said.
        answered: Lsn,
        /// The checkpoint before.
        noted: Lsn,
        /// Up to where the log is durable.
        durable: Lsn,
    },
    /// *This node must stop*: the operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was to be done.
        doing: String,
        /// The cause.
        source: io::Error,
    },
    /// *This node must stop*: a thread of the node panicked.
    #[error("{0} panicked")]
    Panicked(&'static str),
}

impl From<ClusterError> for NodeError {
    fn from(error: ClusterError) -> NodeError {
        NodeError::Cluster(Arc::new(error))
    }
}

impl NodeError {
    pub(crate) fn engine(doing: &'static str) -> impl FnOnce(EngineError) -> NodeError {
        move |source| NodeError::Engine { doing, source }
    }
}

impl<E: Engine> Node<E> {
    /// Opens the node on its data directory, alone: not as a member of a cluster. `open_engine` is called with the engine's
    /// own directory, which exists and is empty at the first start.
    ///
    /// Needs a tokio runtime; the work is done on threads that may block.
    ///
    /// # Errors
    /// The node cannot run; the message is one line that says why. Opening again after the cause is gone works. The
    /// directory of a member is refused: [`Node::open_member`] opens it.
    pub async fn open<F>(config: NodeConfig, open_engine: F) -> Result<Node<E>, NodeError>
    where
        F: Fn(&Path) -> Result<E, EngineError> + Send + Sync + 'static,
    {
        let opened = move || {
            config.validate()?;
            let directory = Unsettled::open(&config.data_dir, config.wal.segment_size_bytes)?;
            if let Some(member) = cluster::membership(directory.member_note()?.as_deref())? {
                let what = "it has to be started as that";
                return Err(ClusterError::AlreadyMember { node: member.node, cluster: member.cluster, what }.into());
            }
            Node::open_blocking(&config, Arc::new(directory.settle(None)?), &open_engine)
        };
        blocking("opening the node", opened).await?
    }

    /// Opens the node on a directory that [`Entrance`](crate::cluster::Entrance) found to be no member's.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn open_alone<F>(config: NodeConfig, storage: Storage, open_engine: F) -> Result<Node<E>, NodeError>
    where
        F: Fn(&Path) -> Result<E, EngineError> + Send + Sync + 'static,
    {
        let opened = move || Node::open_blocking(&config, Arc::new(storage), &open_engine);
        blocking("opening the node", opened).await?
    }

    /// Opens the node that holds the rows of a cluster: its first member. The member is this node's from now on, and
    /// stopped with it.
    ///
    /// # Errors
    /// As [`Node::open`]; the member is dropped then.
    pub async fn open_member<F>(config: NodeConfig, member: ClusterNode, open_engine: F) -> Result<Node<E>, NodeError>
    where
        F: Fn(&Path) -> Result<E, EngineError> + Send + Sync + 'static,
    {
        let cluster::Membership { node, cluster, .. } = member.membership();
        if node != FIRST_MEMBER {
            let what = "only the first member holds rows";
            return Err(ClusterError::AlreadyMember { node, cluster, what }.into());
        }
        let storage = member.storage();
        let opened = move || Node::open_blocking(&config, storage, &open_engine);
        let mut node = blocking("opening the node", opened).await??;
        node.cluster = Some(member);
        Ok(node)
    }

    fn open_blocking(
        config: &NodeConfig,
        storage: Arc<Storage>,
        open_engine: &dyn Fn(&Path) -> Result<E, EngineError>,
    ) -> Result<Node<E>, NodeError> {
        config.validate()?;
        let scan = find_end(config, &storage)?;
        let engine = Arc::new(open_engine_dir(&config.data_dir, open_engine)?);
        check_engine_system(engine.as_ref(), storage.identity().system)?;
        let applied = engine.applied().map_err(NodeError::engine("say what it has applied"))?;
        let applied = replay_start(&scan, applied)?;
        if storage.clean_end()?.is_some() {
            // From here on the log may end elsewhere.
            storage.forget_clean_end()?;
        }
        let wal = Arc::new(Wal::open(scan, config.wal.clone())?);
        replay(&wal, engine.as_ref(), applied)?;
        let log = RunningLog { wal, fence: Fence::default() };
        let primary = Primary::new(Arc::clone(&log.wal), storage.identity().system, Epoch::FIRST, log.fence.clone());
        engine.promote(primary).map_err(NodeError::engine("become primary"))?;
        let (failed, failure) = watch::channel(None);
        let checkpointer = Checkpointer::start(
            config.checkpoint.clone(),
            Arc::clone(&engine) as Arc<dyn Engine>,
            Arc::clone(&log.wal),
            Arc::clone(&storage),
            failed,
        )?;
        tracing::info!(data_dir = %config.data_dir.display(), end = %log.wal.end(), "the node is primary");
        Ok(Node { checkpointer, log, cluster: None, storage, engine, failure })
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<E> {
        &self.engine
    }

    /// The facts of the cluster that this node is a member of; `None` if it is alone.
    pub fn meta(&self) -> Option<Meta> {
        self.cluster.as_ref().map(ClusterNode::meta)
    }

    /// This node as a member of its cluster; `None` if it is alone.
    pub fn cluster(&self) -> Option<&ClusterNode> {
        self.cluster.as_ref()
    }

    /// Everything before this survives a crash of this node.
    pub fn durable(&self) -> Lsn {
        self.log.wal.durable()
    }

    /// How the log is: good, failed, waiting for a device that hangs, or damaged in an old part. The last two fail nothing by
    /// themselves: whoever runs the node asks here and decides. Cheap enough to be asked every second.
    pub fn health(&self) -> Health {
        self.log.wal.health()
    }

    /// Reads the log's records from `from` on, which must be where a record starts or the one before it ends, and follows
    /// the live end. `name` is what it is called where it is said who keeps the log: what it has not read is kept for
    /// it, up to `max_retained_bytes`.
    pub fn read_log(&self, name: &str, from: Lsn) -> wal::Reader {
        self.log.wal.named_reader(name, from)
    }

    /// Keeps the log from `from` on for somebody called `name`, until what is answered is dropped, or invalidated because
    /// it keeps more than `max_retained_bytes`. It does not outlive the process.
    ///
    /// # Errors
    /// [`WalError::Recycled`]: it is not there any more, and what is.
    pub fn hold_log(&self, kind: HolderKind, name: &str, from: Lsn) -> Result<Hold, WalError> {
        self.log.wal.hold(kind, name, from)
    }

    /// Who keeps which segments of the log.
    ///
    /// # Errors
    /// The last checkpoint cannot be read.
    pub fn retention(&self) -> Result<Decision, NodeError> {
        Ok(self.log.wal.retention(self.storage.checkpoint()?))
    }

    /// Resolves when the node has failed, such as after a failed sync; it should then be shut down. Never resolves
    /// otherwise.
    pub async fn failed(&self) -> Arc<NodeError> {
        let mut failure = self.failure.clone();
        let checkpoints = async {
            match failure.wait_for(Option::is_some).await {
                Ok(failure) => failure.clone(),
                Err(_) => std::future::pending().await,
            }
        };
        let member = async {
            match &self.cluster {
                Some(cluster) => cluster.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            cause = member => Arc::new(NodeError::Cluster(cause)),
            cause = self.log.wal.failed() => Arc::new(NodeError::Wal(WalError::Poisoned(cause))),
            Some(cause) = checkpoints => cause,
        }
    }

    /// Stops the node: no more writes, a last checkpoint, the log ended and noted as such, everything closed. Opening
    /// again works in the same process once the engine's own handles, and those of [`meta`](Node::meta), are dropped too.
    ///
    /// # Errors
    /// Something could not be made durable or closed. Nothing acknowledged is lost; the next opening recovers.
    pub async fn shutdown(mut self) -> Result<(), NodeError> {
        let cluster = self.cluster.take();
        let stopped = blocking("stopping the node", move || self.shutdown_blocking()).await;
        if let Some(cluster) = cluster {
            cluster.shutdown().await;
        }
        stopped?
    }

    fn shutdown_blocking(mut self) -> Result<(), NodeError> {
        self.log.fence.raise();
        self.engine.demote();
        self.checkpointer.stop();
        let checkpoint = self.engine.checkpoint().map_err(NodeError::engine("make a checkpoint"))?;
        checkpoint::note(&self.storage, &self.log.wal, checkpoint)?;
        let end = self.log.wal.close()?;
        self.storage.note_clean_end(end)?;
        tracing::info!(%end, "the node has stopped cleanly");
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NodeError::Panicked(doing))
}

fn find_end(config: &NodeConfig, storage: &Storage) -> Result<Scan, NodeError> {
    let identity = storage.identity();
    let directory = SegmentDirectory::new(
        Arc::new(RealDisk),
        config.data_dir.join(WAL_DIR),
        Layout::new(identity.segment_size_bytes),
        identity.system,
        Epoch::FIRST.timeline(),
    );
    let (checkpoint, clean_end) = (storage.checkpoint()?, storage.clean_end()?);
    let reached = checkpoint.max(clean_end.unwrap_or(Lsn::NONE));
    Ok(wal::scan(directory, Evidence { verify_from: checkpoint, reached, clean_end })?)
}

fn open_engine_dir<E>(data_dir: &Path, open_engine: &dyn Fn(&Path) -> Result<E, EngineError>) -> Result<E, NodeError> {
    let directory = data_dir.join(ENGINE_DIR);
    let made = match fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // What the engine makes durable in a directory is lost with the directory's own name.
        _ => fs::File::open(data_dir).and_then(|opened| opened.sync_all()),
    };
    made.map_err(|source| NodeError::Io { doing: format!("make {}", directory.display()), source })?;
    open_engine(&directory).map_err(NodeError::engine("open"))
}

fn check_engine_system(engine: &dyn Engine, expected: SystemId) -> Result<(), NodeError> {
    match engine.system().map_err(NodeError::engine("say what system it belongs to"))? {
        Some(found) if found != expected => Err(NodeError::EngineForeign { expected, found }),
        _ => Ok(()),
    }
}

/// Where replay starts, if the log reaches back that far and on to there.
fn replay_start(scan: &Scan, applied: Lsn) -> Result<Lsn, NodeError> {
    scan.require(applied, "the engine's files")?;
    let start = if applied.is_none() && scan.reaches_start() { scan.oldest() } else { applied };
    if !scan.reaches_back_to(start) {
        return Err(NodeError::EngineBehind { applied, oldest: scan.oldest() });
    }
    Ok(start)
}

/// Applies everything from `from` to the log's end.
fn replay(wal: &Wal, engine: &dyn Engine, from: Lsn) -> Result<(), NodeError> {
    let mut reader = wal.reader(from);
    let (mut batch, mut batch_bytes, mut replayed) = (Vec::new(), 0, 0u64);
    loop {
        let record = reader.next_durable()?;
        let is_last = record.is_none();
        if let Some(record) = record {
            batch_bytes += record.payload.len();
            batch.push(record);
        }
        let is_full = batch_bytes >= REPLAY_BATCH_BYTES || batch.len() >= REPLAY_BATCH_RECORDS;
        if !batch.is_empty() && (is_last || is_full) {
            engine.apply(&batch).map_err(NodeError::engine("apply a record of the log"))?;
            replayed += batch.len() as u64;
            batch.clear();
            batch_bytes = 0;
        }
        if is_last {
            tracing::info!(%from, end = %wal.end(), records = replayed, "replayed the log");
            return Ok(());
        }
    }
}
