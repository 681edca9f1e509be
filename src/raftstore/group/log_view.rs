//! The log as raft-rs sees it: terms of all, entries of some.
//!
//! The cache holds the end of the log without a gap, and always everything that is not applied or not persisted yet.
//! Applied and persisted entries leave it from the front when it is over its bound. What raft-rs wants to send from
//! before the cache is asked of the driver, and comes back as a chunk.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use raft::eraftpb;
use raft::storage::{GetEntriesContext, RaftState, Storage};
use raft::{Error, StorageError};

use super::config::GroupConfig;
use super::effects::LogRead;
use super::terms::TermRuns;
use crate::ident::{LogIndex, Term};
use crate::raftstore::entry::{Entry, Position};
use crate::raftstore::fault::{self, Fault};
use crate::raftstore::snapshot::SnapshotMeta;
use crate::raftstore::snapshot::header::{self, Content};

/// Parts of the log read back from the store that are kept at a time.
const MAX_CHUNKS: usize = 4;
/// Messages that fill such a part.
const CHUNK_MESSAGES: usize = 4;
/// Sends that wait for parts of the log; more are dropped, and raft-rs tries again at the next heartbeat.
const MAX_WAITING_SENDS: usize = 64;
/// Full messages that are made between two rounds of effects.
const SEND_BUDGET_MESSAGES: usize = 8;

/// See the module.
pub(super) struct LogView {
    initial: RaftState,
    terms: TermRuns,
    message_bytes: usize,
    /// Entries up to the last one, or in a replay up to what was read so far.
    cache: VecDeque<eraftpb::Entry>,
    cache_bytes: usize,
    /// The index of the first cached entry, also of an empty cache.
    cache_first: u64,
    chunks: VecDeque<Vec<eraftpb::Entry>>,
    /// Raft-rs is making a Ready, and asks for what to apply.
    pub(super) applying: Cell<bool>,
    /// How much may be handed out for applying.
    pub(super) apply_budget_bytes: Cell<usize>,
    send_budget_bytes: Cell<usize>,
    sends: RefCell<WaitingSends>,
    /// Whether the state can be captured at all.
    snapshots: bool,
    /// Of what.
    content: Content,
    /// The state is not to be given to anybody.
    withheld: bool,
    /// What is captured, for followers that are behind the log.
    captured: Option<SnapshotMeta>,
    /// One of an earlier entry is of no use.
    least_snapshot: LogIndex,
    snapshot_wanted: Cell<bool>,
    snapshot_used: Cell<bool>,
}

#[derive(Default)]
struct WaitingSends {
    /// For entries that have to be read first.
    for_log: Vec<(u64, GetEntriesContext)>,
    /// For the next round.
    for_budget: Vec<GetEntriesContext>,
    /// Reads that the driver was asked for, by their first index.
    asked: Vec<u64>,
}

impl LogView {
    /// Nothing up to `cached_from` is cached.
    pub(super) fn new(
        initial: RaftState,
        terms: TermRuns,
        cached_from: LogIndex,
        content: Content,
        config: &GroupConfig,
    ) -> LogView {
        let message_bytes = config.max_message_bytes;
        LogView {
            initial,
            cache_first: cached_from.get() + 1,
            terms,
            message_bytes,
            cache: VecDeque::new(),
            cache_bytes: 0,
            chunks: VecDeque::new(),
            applying: Cell::new(false),
            apply_budget_bytes: Cell::new(0),
            send_budget_bytes: Cell::new(SEND_BUDGET_MESSAGES * message_bytes),
            sends: RefCell::default(),
            snapshots: config.snapshots,
            content,
            withheld: false,
            captured: None,
            least_snapshot: LogIndex::default(),
            snapshot_wanted: Cell::new(false),
            snapshot_used: Cell::new(false),
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.terms.truncated().index.get() + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.terms.last().get()
    }

    pub(super) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    pub(super) fn truncated(&self) -> Position {
        self.terms.truncated()
    }

    pub(super) fn term_of(&self, index: LogIndex) -> Option<Term> {
        self.terms.get(index)
    }

    /// The index behind the last cached entry.
    pub(super) fn cached_to(&self) -> u64 {
        self.cache_first + self.cache.len() as u64
    }

    /// Takes entries that are about to be persisted: they replace everything from the first one's index on.
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        if !fault::active(Fault::CacheNotTruncated) {
            while self.cached_to() > first.index.max(self.cache_first) {
                let removed = self.cache.pop_back();
                self.cache_bytes -= removed.as_ref().map_or(0, size);
            }
        }
        if self.cache.is_empty() {
            self.cache_first = first.index;
        }
        for entry in entries {
            self.terms.push(Position::new(entry.index, entry.term));
            if self.cached_to() == entry.index {
                self.cache_bytes += size(entry);
                self.cache.push_back(entry.clone());
            }
        }
        // A chunk may hold what was just replaced.
        self.chunks.clear();
    }

    /// Takes the next part of a replay.
    pub(super) fn append_replayed(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if entry.0.index == self.cached_to() {
                self.cache_bytes += size(&entry.0);
                self.cache.push_back(entry.0);
            }
        }
    }

    /// Drops cached entries up to `through` while the cache is over its bound.
    pub(super) fn evict(&mut self, through: u64, bound_bytes: usize) {
        while self.cache_bytes > bound_bytes && self.cache_first <= through {
            let Some(entry) = self.cache.pop_front() else { return };
            self.cache_bytes -= size(&entry);
            self.cache_first += 1;
        }
    }

    /// Forgets everything up to a position. The store follows later.
    pub(super) fn truncate(&mut self, position: Position) {
        self.terms.truncate(position);
        while self.cache_first <= position.index.get() {
            match self.cache.pop_front() {
                Some(entry) => self.cache_bytes -= size(&entry),
                None => {
                    self.cache_first = position.index.get() + 1;
                    return;
                }
            }
            self.cache_first += 1;
        }
    }

    /// The log begins behind this entry now, and is empty: a snapshot stands for what was in it.
    pub(super) fn restore(&mut self, position: Position) {
        self.terms = TermRuns::empty(position);
        self.cache.clear();
        self.cache_bytes = 0;
        self.cache_first = position.index.get() + 1;
        self.forget_sends();
    }

    pub(super) fn set_captured(&mut self, captured: Option<SnapshotMeta>) {
        self.captured = captured;
    }

    pub(super) fn set_withheld(&mut self, withheld: bool) {
        self.withheld = withheld;
    }

    /// Snapshots have to reach this entry.
    pub(super) fn set_least_snapshot(&mut self, index: LogIndex) {
        self.least_snapshot = index;
    }

    pub(super) fn has_captured(&self) -> bool {
        self.captured.is_some()
    }

    /// Whether raft-rs asked for a snapshot when there was none to be had.
    pub(super) fn take_snapshot_wanted(&mut self) -> bool {
        self.snapshot_wanted.take()
    }

    /// Whether raft-rs was given one.
    pub(super) fn take_snapshot_used(&mut self) -> bool {
        self.snapshot_used.take()
    }

    /// Begins a round of sends: what waited for it may go on.
    pub(super) fn begin_round(&mut self) -> Vec<GetEntriesContext> {
        self.send_budget_bytes.set(SEND_BUDGET_MESSAGES * self.message_bytes);
        std::mem::take(&mut self.sends.get_mut().for_budget)
    }

    /// What the driver has to read and was not asked for yet.
    pub(super) fn wanted(&mut self) -> Vec<LogRead> {
        let (last, truncated) = (self.last(), self.truncated().index.get());
        let sends = self.sends.get_mut();
        sends.for_log.retain(|(low, _)| *low > truncated);
        let mut wanted = Vec::new();
        for (low, _) in &sends.for_log {
            if sends.asked.len() < MAX_CHUNKS && !sends.asked.contains(low) {
                sends.asked.push(*low);
                let range = LogIndex::new(*low)..LogIndex::new(last + 1);
                wanted.push(LogRead { range, limit_bytes: CHUNK_MESSAGES * self.message_bytes });
            }
        }
        wanted
    }

    /// Takes a part of the log that the driver read; the sends that waited for it may go on.
    pub(super) fn chunk_read(&mut self, low: LogIndex, entries: Vec<Entry>) -> Vec<GetEntriesContext> {
        let sends = self.sends.get_mut();
        sends.asked.retain(|asked| *asked != low.get());
        let (ready, waiting) = std::mem::take(&mut sends.for_log).into_iter().partition(|(at, _)| *at == low.get());
        sends.for_log = waiting;
        // It may have been read before the log changed.
        let current = entries.into_iter().take_while(|entry| self.terms.get(entry.index()) == Some(entry.term()));
        let chunk: Vec<eraftpb::Entry> = current.map(|entry| entry.0).collect();
        if !chunk.is_empty() {
            if self.chunks.len() == MAX_CHUNKS {
                self.chunks.pop_front();
            }
            self.chunks.push_back(chunk);
        }
        let ready: Vec<(u64, GetEntriesContext)> = ready;
        ready.into_iter().map(|(_, context)| context).collect()
    }

    /// No sends are going on any more: this replica does not lead.
    pub(super) fn forget_sends(&mut self) {
        *self.sends.get_mut() = WaitingSends::default();
        self.chunks.clear();
    }

    fn cached(&self, low: u64, high: u64, limit_bytes: u64) -> Vec<eraftpb::Entry> {
        let start = (low - self.cache_first) as usize;
        let end = ((high - self.cache_first) as usize).min(self.cache.len());
        limited(self.cache.range(start.min(end)..end), limit_bytes)
    }

    fn for_apply(&self, low: u64, high: u64, limit_bytes: u64) -> Vec<eraftpb::Entry> {
        let budget = self.apply_budget_bytes.get();
        match budget > 0 && low >= self.cache_first {
            true => self.cached(low, high, limit_bytes.min(budget as u64)),
            false => Vec::new(),
        }
    }

    fn for_send(
        &self,
        low: u64,
        high: u64,
        limit_bytes: u64,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        let sends = &mut *self.sends.borrow_mut();
        let waits = Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        if sends.for_budget.len() + sends.for_log.len() >= MAX_WAITING_SENDS {
            return waits;
        }
        if self.send_budget_bytes.get() == 0 {
            sends.for_budget.push(context);
            return waits;
        }
        let entries = if low >= self.cache_first {
            self.cached(low, high, limit_bytes)
        } else {
            let holds = |chunk: &&Vec<eraftpb::Entry>| {
                chunk.first().is_some_and(|first| first.index <= low)
                    && chunk.last().is_some_and(|last| last.index >= low)
            };
            match self.chunks.iter().find(holds) {
                Some(chunk) => {
                    let start = (low - chunk.first().map_or(low, |first| first.index)) as usize;
                    limited(chunk.iter().skip(start).take((high - low) as usize), limit_bytes)
                }
                None => {
                    sends.for_log.push((low, context));
                    return waits;
                }
            }
        };
        let bytes: usize = entries.iter().map(size).sum();
        self.send_budget_bytes.set(self.send_budget_bytes.get().saturating_sub(bytes));
        Ok(entries)
    }
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        let limit_bytes = max_size.into().unwrap_or(u64::MAX);
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if context.can_async() {
            return self.for_send(low, high, limit_bytes, context);
        }
        if self.applying.get() {
            return Ok(self.for_apply(low, high, limit_bytes));
        }
        // Raft-rs looks for membership changes among what is committed and not applied, all of which is cached.
        if low < self.cache_first || high > self.cached_to() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        Ok(self.cached(low, high, limit_bytes))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.terms.get(LogIndex::new(index)) {
            Some(term) => Ok(term.get()),
            None if index < self.first() => Err(Error::Store(StorageError::Compacted)),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<eraftpb::Snapshot> {
        // The log has to go on behind it.
        let least = request_index.max(self.truncated().index.max(self.least_snapshot).get());
        match &self.captured {
            Some(meta) if meta.position.index.get() >= least => {
                self.snapshot_used.set(true);
                Ok(header::encode(meta, self.content))
            }
            _ => {
                self.snapshot_wanted.set(self.snapshots && !self.withheld);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

pub(super) fn size(entry: &eraftpb::Entry) -> usize {
    entry.data.len() + entry.context.len() + super::ENTRY_OVERHEAD_BYTES
}

/// At least one, and as many more as fit.
fn limited<'a>(entries: impl Iterator<Item = &'a eraftpb::Entry>, limit_bytes: u64) -> Vec<eraftpb::Entry> {
    let (mut taken, mut bytes) = (Vec::new(), 0u64);
    for entry in entries {
        bytes = bytes.saturating_add(size(entry) as u64);
        if bytes > limit_bytes && !taken.is_empty() {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}
