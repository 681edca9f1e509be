//! The last resort: most members are gone for good, and one of those that are left goes on alone, as another cluster.
//!
//! Offline, and by the word of an operator alone: nothing here can know whether the others are gone or only out of sight. So
//! that both may live on without harm, the one that is forced is another cluster from then on: the others refuse it, and it
//! refuses them. Its system stays the same, for its WAL is what it was.
//!
//! ```text
//!   copy of RocksDB ──▶ record: the new cluster ──▶ group 0: this replica alone ──▶ (start) ──▶ metadata: the new cluster
//! ```
//!
//! If it dies behind the copy and before group 0 is changed, no majority of the old members would listen to this node any
//! more; forced again, it goes on with the same new cluster. The last step is a command in the log of the group, which the
//! next start proposes: so that whoever joins later finds it there.
//!
//! What was acknowledged by a majority without this member is lost, and what was not may have come to stay: see
//! [`crate::raftstore::recover`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ClusterError;
use super::record::{Membership, Record};
use crate::ident::ClusterId;
use crate::meta::METADATA_GROUP;
use crate::meta::proto::Member;
use crate::meta::stored;
use crate::meta::view::OfflineView;
use crate::raftstore::rocks::{RocksStore, RocksView};
use crate::storage::{Identity, META_DIR, Storage, StorageError, StorageView};

/// Copies of earlier times that may lie beside RocksDB.
const MAX_COPIES: usize = 100;

/// What forcing a member means.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// Who it is.
    pub membership: Membership,
    /// The other members, who are lost.
    pub others: Vec<Member>,
    /// Entries of the log of which it is not known whether they were acknowledged; they stay.
    pub unsure_entries: u64,
    /// The rows of the cluster are in this directory.
    pub holds_rows: bool,
    /// An earlier attempt did not come to its end.
    pub is_begun: bool,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Forced {
    /// The new cluster.
    pub cluster: ClusterId,
    /// RocksDB as it was before.
    pub copy: PathBuf,
}

/// Says what forcing the member of a directory would mean. Changes nothing.
///
/// # Errors
/// It is no member's, a node runs on it, it is alone already, or damaged.
pub fn forecast(directory: &Path) -> Result<Forecast, ClusterError> {
    let storage = StorageView::open(directory)?;
    let (record, membership) = member(storage.member_note()?.as_deref())?;
    let view = RocksView::new(storage);
    let recovery = view.plan_recovery(METADATA_GROUP)?;
    let tables = OfflineView { store: &view, group: METADATA_GROUP };
    let (members, cluster) = (stored::members(&tables)?, stored::cluster(&tables)?.cluster_id);
    Ok(Forecast {
        membership,
        others: members.into_iter().filter(|member| member.id != membership.node.get()).collect(),
        unsure_entries: recovery.unsure_entries(),
        holds_rows: membership.node == super::FIRST_MEMBER,
        is_begun: record.0.forced_from != 0 && record.0.forced_from == cluster,
    })
}

/// Forces the member of a directory. The node has to be started then, and the others never again.
///
/// # Errors
/// As [`forecast`]; or the copy cannot be made, and nothing was changed.
pub fn force_new(directory: &Path) -> Result<Forced, ClusterError> {
    let is_begun = forecast(directory)?.is_begun;
    let identity = Identity::read(directory)?.ok_or_else(|| StorageError::NoIdentity(directory.to_owned()))?;
    let storage = Arc::new(Storage::open(directory, identity.segment_size_bytes)?);
    let (mut record, mut membership) = member(storage.member_note()?.as_deref())?;
    let store = RocksStore::open(Arc::clone(&storage))?;
    let copy = free_name(directory)?;
    storage.copy_tables(&copy)?;
    if !is_begun {
        let drawn = getrandom::u64().map_err(ClusterError::random)?.max(1);
        record.0.forced_from = membership.cluster.get();
        membership.cluster = ClusterId::new(drawn);
        record.set_membership(membership);
        storage.note_member(&record.encode())?;
    }
    // It wants a copy of its own; ours is older, and the one to keep.
    let second = copy.with_extension("second");
    store.recover_alone(METADATA_GROUP, &second)?;
    let removed = std::fs::remove_dir_all(&second);
    removed.map_err(|source| ClusterError::Io { doing: "remove the second copy of RocksDB", source })?;
    Ok(Forced { cluster: membership.cluster, copy })
}

fn member(note: Option<&[u8]>) -> Result<(Record, Membership), ClusterError> {
    let no_member = || ClusterError::Record("this node is no member of a cluster".to_owned());
    let record = Record::decode(note.ok_or_else(no_member)?)?;
    let membership = record.membership().ok_or_else(no_member)?;
    Ok((record, membership))
}

fn free_name(directory: &Path) -> Result<PathBuf, ClusterError> {
    let names = (1..=MAX_COPIES).map(|number| directory.join(format!("{META_DIR}.{number}.before-force-new")));
    let free = names.into_iter().find(|path| !path.exists());
    free.ok_or_else(|| ClusterError::Io {
        doing: "find a name for a copy of RocksDB",
        source: std::io::Error::other(format!("{MAX_COPIES} lie in {} already", directory.display())),
    })
}
