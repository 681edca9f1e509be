//! Pure: the records of the tables as people ask for them. The client reads with it, and so does the inspector, from the
//! files of a node that is not running.

use std::ops::Range;

use prost::Message;

use super::keys::{self, Cluster, Kv};
use super::limits::SETTING_HISTORY;
use super::proto::{ClusterHeader, Event, KvHeader, Lease, Member, Setting, SettingChange, Token};
use super::settings::{DEFINITIONS, Definition, default_setting, find};
use super::view::View;
use crate::ident::NodeId;
use crate::raftstore::log_store::{StoreError, Table};

/// The cluster: its ids, its version, how many members it has. A version of 0: none is formed.
///
/// # Errors
/// The store failed, or a record is damaged; so with all the others.
pub fn cluster(view: &dyn View) -> Result<ClusterHeader, StoreError> {
    Ok(record(view, Table::Cluster, &Cluster::Header.key(&[]))?.unwrap_or_default())
}

/// How large keys and values are, and how far.
///
/// # Errors
/// See [`cluster`].
pub fn kv(view: &dyn View) -> Result<KvHeader, StoreError> {
    Ok(record(view, Table::Kv, &Kv::Header.key(&[]))?.unwrap_or_default())
}

/// A member.
///
/// # Errors
/// See [`cluster`].
pub fn member(view: &dyn View, node: NodeId) -> Result<Option<Member>, StoreError> {
    record(view, Table::Cluster, &Cluster::Member.numbered(node.get()))
}

/// All members, by number, as of one moment.
///
/// # Errors
/// See [`cluster`].
pub fn members(view: &dyn View) -> Result<Vec<Member>, StoreError> {
    records(view, Table::Cluster, Cluster::Member.all(), usize::MAX)
}

/// The join tokens that are remembered, by number, as of one moment.
///
/// # Errors
/// See [`cluster`].
pub fn tokens(view: &dyn View) -> Result<Vec<Token>, StoreError> {
    records(view, Table::Cluster, Cluster::Token.all(), usize::MAX)
}

/// Events from a number on, `limit` at most.
///
/// # Errors
/// See [`cluster`].
pub fn events(view: &dyn View, from: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
    records(view, Table::Cluster, Cluster::Event.numbered(from)..Cluster::Event.all().end, limit)
}

/// A lease.
///
/// # Errors
/// See [`cluster`].
pub fn lease(view: &dyn View, lease: u64) -> Result<Option<Lease>, StoreError> {
    record(view, Table::Kv, &Kv::Lease.numbered(lease))
}

/// Leases from a number on, `limit` at most.
///
/// # Errors
/// See [`cluster`].
pub fn leases(view: &dyn View, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
    records(view, Table::Kv, Kv::Lease.numbered(from)..Kv::Lease.all().end, limit)
}

/// The setting of a name, as it is in force; `None` if there is none.
///
/// # Errors
/// See [`cluster`].
pub fn setting(view: &dyn View, name: &str) -> Result<Option<Setting>, StoreError> {
    let version = cluster(view)?.version.max(1);
    find(name, version).map(|definition| in_force(view, definition)).transpose()
}

/// All settings that a cluster of this version has, by name.
///
/// # Errors
/// See [`cluster`].
pub fn settings(view: &dyn View) -> Result<Vec<(Setting, &'static Definition)>, StoreError> {
    let version = cluster(view)?.version.max(1);
    let known = DEFINITIONS.iter().filter(|definition| find(definition.name, version).is_some());
    known.map(|definition| Ok((in_force(view, definition)?, definition))).collect()
}

/// Who changed a setting, the oldest first.
///
/// # Errors
/// See [`cluster`].
pub fn setting_history(view: &dyn View, name: &str) -> Result<Vec<SettingChange>, StoreError> {
    let limit = usize::try_from(SETTING_HISTORY).unwrap_or(usize::MAX);
    records(view, Table::Cluster, keys::setting_changes(name), limit)
}

fn in_force(view: &dyn View, definition: &Definition) -> Result<Setting, StoreError> {
    let stored = record(view, Table::Cluster, &Cluster::Setting.key(definition.name.as_bytes()))?;
    Ok(stored.unwrap_or_else(|| default_setting(definition)))
}

/// The record of a key.
pub(super) fn record<M: Message + Default>(view: &dyn View, table: Table, key: &[u8]) -> Result<Option<M>, StoreError> {
    let value = view.get(table, key)?;
    value.map(|value| keys::decode(table, key, &value)).transpose()
}

/// The records of a range, `limit` at most.
pub(super) fn records<M: Message + Default>(
    view: &dyn View,
    table: Table,
    range: Range<Vec<u8>>,
    limit: usize,
) -> Result<Vec<M>, StoreError> {
    let pairs = view.scan(table, &range.start..&range.end, limit)?;
    pairs.iter().map(|(key, value)| keys::decode(table, key, value)).collect()
}
