//! Watches: what changes, in order, without a gap and without anything twice.
//!
//! A watch is a position in the history and nothing else. Whoever holds one asks for what comes next, and reads it from
//! the tables: there is no queue that a slow reader could fill, and one that is too slow finds that its position was
//! compacted and is told so. It resumes after a restart, or on another replica, from the revision behind the last one that
//! it was given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;

use super::apply::{self, Reached};
use super::fault::{self, Fault};
use super::keys;
use super::metrics;
use super::proto::{Change, Event, KeyRange, KeyValue};
use super::read;
use super::stored;
use super::view::View;
use crate::raftstore::log_store::{StoreError, Table};

/// Changes read at a time.
const PAGE: usize = 512;
/// Events read at a time.
const EVENTS_PAGE: usize = 64;

/// What a watch of keys gives.
#[derive(Clone, Debug, PartialEq)]
pub enum KvUpdate {
    /// All that a revision changed in the range, in order.
    Changes {
        /// The revision.
        revision: u64,
        /// At least one.
        changes: Vec<KvChange>,
    },
    /// Nothing changed for a while: everything up to here was given. It is where to resume behind.
    Progress {
        /// The revision.
        revision: u64,
    },
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum KvChange {
    /// It has this value now.
    Put(KeyValue),
    /// It was deleted.
    Deleted {
        /// The key.
        key: Vec<u8>,
    },
}

/// Why a watch ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// *Start again*: what comes next is no longer known. Read everything, and watch from the revision of that reading.
    #[error("the history begins at {oldest}; what came before was compacted")]
    Compacted {
        /// The oldest that can still be asked for.
        oldest: u64,
    },
    /// *This node must stop*: the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// *Retry elsewhere*: the group has stopped on this node.
    #[error("the metadata group has stopped on this node")]
    Stopped,
    /// *Ask again*: no other node could be watched for a while. The watch goes on where it is when it is asked again.
    #[error("no node can be watched: {why}")]
    Unreachable {
        /// What was heard last.
        why: String,
    },
    /// *Your mistake*: a node does not take this watch.
    #[error("{why}")]
    Refused {
        /// Its word.
        why: String,
    },
}

/// Watches keys.
pub struct KvWatch {
    view: Arc<dyn View>,
    progress: Receiver<Reached>,
    range: KeyRange,
    /// The first revision that was not given.
    next: u64,
    /// Changes of the range that were found, of whole revisions.
    found: VecDeque<Found>,
    /// Everything before this revision is given or in `found`.
    looked: u64,
    notice_every: Duration,
}

struct Found {
    revision: u64,
    key: Vec<u8>,
    deleted: bool,
}

impl KvWatch {
    pub(crate) fn new(
        view: Arc<dyn View>,
        progress: Receiver<Reached>,
        range: KeyRange,
        from: u64,
        notice_every: Duration,
    ) -> KvWatch {
        let next = if from == 0 { progress.borrow().revision + 1 } else { from };
        KvWatch { view, progress, range, next, found: VecDeque::new(), looked: next, notice_every }
    }

    /// Where it goes on: the first revision that was not given. A new watch from here misses nothing.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// What comes next. Waits for it; dropping the future loses nothing.
    ///
    /// # Errors
    /// The watch is over: see [`WatchError`].
    pub async fn next(&mut self) -> Result<KvUpdate, WatchError> {
        loop {
            let reached = *self.progress.borrow_and_update();
            if let Some(update) = self.ready()? {
                return Ok(update);
            }
            if self.looked <= reached.revision {
                self.look(reached.revision)?;
                // A long history is others' time, too.
                tokio::task::yield_now().await;
                continue;
            }
            self.next = self.looked;
            match tokio::time::timeout(self.notice_every, self.progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(WatchError::Stopped),
                Err(_) => return Ok(KvUpdate::Progress { revision: self.next.saturating_sub(1) }),
            }
        }
    }

    /// What was found and can be given now.
    fn ready(&mut self) -> Result<Option<KvUpdate>, WatchError> {
        let Some(revision) = self.found.front().map(|found| found.revision) else { return Ok(None) };
        let mut changes = Vec::new();
        for found in self.found.iter().take_while(|found| found.revision == revision) {
            if found.deleted {
                changes.push(KvChange::Deleted { key: found.key.clone() });
                continue;
            }
            match read::at(&*self.view, &found.key, revision)? {
                Some(pair) if pair.mod_revision == revision => changes.push(KvChange::Put(pair)),
                // It was replaced since, and compacted.
                _ => return Err(self.lost(revision)?),
            }
        }
        self.found.drain(..changes.len());
        self.next = if fault::active(Fault::WatchRepeats) { revision } else { revision + 1 };
        Ok(Some(KvUpdate::Changes { revision, changes }))
    }

    /// Looks at a page of the history, up to a revision that is there.
    fn look(&mut self, until: u64) -> Result<(), WatchError> {
        let from = self.looked;
        let mut range = keys::changes_from(from);
        range.end = keys::changes_from(until + 1).start;
        let mut page_size = PAGE;
        loop {
            let page = self.view.scan(Table::Kv, &range.start..&range.end, page_size)?;
            // What is swept away is compacted by the same write or an earlier one.
            let compacted = apply::reached(&*self.view)?.compacted;
            if compacted >= from && fault::active(Fault::WatchSkipsCompacted) {
                self.looked = compacted + 1;
                return Ok(());
            }
            if compacted >= from {
                return Err(self.lost(from)?);
            }
            let is_last = page.len() < page_size;
            let mut revisions = Vec::with_capacity(page.len());
            for (key, value) in &page {
                let at = keys::decode_change(key).ok_or_else(|| keys::damaged(Table::Kv, key, "a change", value))?;
                revisions.push((at.0, keys::decode::<Change>(Table::Kv, key, value)?));
            }
            let last = revisions.last().map_or(until, |(revision, _)| *revision);
            if !is_last && last == from {
                // A revision that is larger than a page: what one command may change is bounded.
                page_size *= 2;
                continue;
            }
            // The last one may go on behind the page.
            self.looked = if is_last { until + 1 } else { last };
            for (revision, change) in revisions {
                if revision < self.looked && contains(&self.range, &change.key) {
                    self.found.push_back(Found { revision, key: change.key, deleted: change.deleted });
                }
            }
            return Ok(());
        }
    }

    /// A revision is no longer known; if it is not compacted, the store is damaged.
    fn lost(&self, revision: u64) -> Result<WatchError, StoreError> {
        let compacted = apply::reached(&*self.view)?.compacted;
        if compacted >= revision {
            metrics::watch_compacted();
            return Ok(WatchError::Compacted { oldest: compacted + 1 });
        }
        Err(StoreError::Damaged {
            place: "the history of keys and values".to_owned(),
            what: format!("expected revision {revision}, found none, and compacted {compacted}"),
        })
    }
}

/// Whether a key is of a range.
pub(super) fn contains(range: &KeyRange, key: &[u8]) -> bool {
    match &range.end[..] {
        [] => key == range.key,
        [0] => key >= &range.key[..],
        end => key >= &range.key[..] && key < end,
    }
}

/// Follows the event log.
pub struct EventWatch {
    view: Arc<dyn View>,
    progress: Receiver<Reached>,
    next: u64,
    found: VecDeque<Event>,
}

impl EventWatch {
    pub(crate) fn new(view: Arc<dyn View>, progress: Receiver<Reached>, from: u64) -> EventWatch {
        let next = if from == 0 { progress.borrow().next_event } else { from };
        EventWatch { view, progress, next, found: VecDeque::new() }
    }

    /// The event that comes next. Waits for it; dropping the future loses nothing.
    ///
    /// # Errors
    /// It is over: see [`WatchError`].
    pub async fn next(&mut self) -> Result<Event, WatchError> {
        loop {
            if let Some(event) = self.found.pop_front() {
                self.next = event.sequence + 1;
                return Ok(event);
            }
            let reached = *self.progress.borrow_and_update();
            if self.next < reached.next_event {
                self.found.extend(events(&*self.view, self.next, EVENTS_PAGE)?);
                continue;
            }
            self.progress.changed().await.map_err(|_| WatchError::Stopped)?;
        }
    }
}

/// Events from a number on, `limit` at most. The first is the one asked for, if there are any.
pub(super) fn events(view: &dyn View, from: u64, limit: usize) -> Result<Vec<Event>, WatchError> {
    let events = stored::events(view, from, limit)?;
    if events.first().is_none_or(|event| event.sequence != from) {
        let reached = apply::reached(view)?;
        if from < reached.first_event {
            metrics::watch_compacted();
            return Err(WatchError::Compacted { oldest: reached.first_event });
        }
        if from < reached.next_event {
            return Err(WatchError::Store(StoreError::Damaged {
                place: "the event log".to_owned(),
                what: format!("expected event {from}, found none"),
            }));
        }
    }
    Ok(events)
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
