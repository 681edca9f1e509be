//! Pure: keys and values as they were at a revision. The machine reads with it and so do those who ask.

use super::keys;
use super::proto::{KeyRange, KeyValue, Version};
use super::view::View;
use crate::raftstore::log_store::{StoreError, Table};

/// Versions read at a time, to begin with: each may have a value of 1 MiB.
const FIRST_PAGE: usize = 4;
/// And at most.
const MAX_PAGE: usize = 1024;
/// A page that is smaller than this may be followed by a larger one.
const SMALL_PAGE_BYTES: usize = 256 << 10;

/// The pair of a key; `None` if there is none now.
///
/// # Errors
/// The store failed.
pub fn latest(view: &dyn View, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
    at(view, key, u64::MAX)
}

/// The pair of a key at a revision; `None` if there was none.
///
/// # Errors
/// The store failed.
pub fn at(view: &dyn View, key: &[u8], revision: u64) -> Result<Option<KeyValue>, StoreError> {
    let versions = keys::versions(key, revision);
    let found = view.scan(Table::Kv, &versions.start..&versions.end, 1)?;
    found.first().map_or(Ok(None), |(at, value)| pair(at, value).map(|(_, pair)| pair))
}

/// The pairs of a range at a revision, in order: `limit` at most, and of no more bytes than said unless it is one. Says
/// whether there are more.
///
/// # Errors
/// The store failed.
pub fn range(
    view: &dyn View,
    range: &KeyRange,
    revision: u64,
    limit: usize,
    max_bytes: usize,
) -> Result<(Vec<KeyValue>, bool), StoreError> {
    if range.end.is_empty() {
        return Ok((at(view, &range.key, revision)?.into_iter().collect(), false));
    }
    let unbounded = range.end == [0];
    let between = keys::versions_between(&range.key, (!unbounded).then_some(&range.end[..]));
    let (mut from, to) = (between.start, between.end);
    let (mut pairs, mut bytes, mut page_size) = (Vec::new(), 0, FIRST_PAGE);
    // The key whose pair is decided: older versions of it are passed over.
    let mut decided: Option<Vec<u8>> = None;
    loop {
        let page = view.scan(Table::Kv, &from..&to, page_size)?;
        let is_last = page.len() < page_size;
        let page_bytes: usize = page.iter().map(|(key, value)| key.len() + value.len()).sum();
        for (at, value) in page {
            let (found_at, found) = pair(&at, &value)?;
            from = behind(at);
            if found_at.revision > revision || decided.as_deref() == Some(&found_at.key[..]) {
                continue;
            }
            decided = Some(found_at.key);
            let Some(found) = found else { continue };
            bytes += pair_bytes(&found);
            if pairs.len() == limit || (bytes > max_bytes && !pairs.is_empty()) {
                return Ok((pairs, true));
            }
            pairs.push(found);
        }
        if is_last {
            return Ok((pairs, false));
        }
        page_size = if page_bytes < SMALL_PAGE_BYTES { MAX_PAGE.min(page_size * 2) } else { FIRST_PAGE };
    }
}

/// What a pair counts for in an answer.
pub fn pair_bytes(pair: &KeyValue) -> usize {
    pair.key.len() + pair.value.len() + 32
}

/// The least key behind another.
fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

struct At {
    key: Vec<u8>,
    revision: u64,
}

/// Where a stored version stands, and its pair; `None` if the key was deleted there.
fn pair(at: &[u8], value: &[u8]) -> Result<(At, Option<KeyValue>), StoreError> {
    let (key, revision) =
        keys::decode_version(at).ok_or_else(|| keys::damaged(Table::Kv, at, "a version's key", at))?;
    let Version { create_revision, version, lease, value } = keys::decode(Table::Kv, at, value)?;
    let pair = KeyValue { key: key.clone(), value, create_revision, mod_revision: revision, version, lease };
    Ok((At { key, revision }, (version != 0).then_some(pair)))
}
