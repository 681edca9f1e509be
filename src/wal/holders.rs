//! Who holds the log, and taking out of it what nobody holds. [`retention`] decides; this is done as it says.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::errors::WalError;
use super::layout::{Layout, SegmentNumber};
use super::log::Shared;
use super::retention::{self, Decision, Facts, Holder, HolderKind, Invalidation};
use crate::config::WalConfig;
use crate::lsn::Lsn;

/// How many may hold the log at once. Each of them is looked at whenever segments are recycled.
pub(super) const MAX_HOLDERS: usize = 1024;

/// The segments that are there, and who holds them.
pub(super) struct Retained {
    layout: Layout,
    /// Held for moments only, never over work on files: whoever appends, reads or asks may need it.
    state: Mutex<State>,
    /// Held while files are taken out of the directory: one thread at a time does so.
    recycling: Mutex<()>,
}

struct State {
    segments: BTreeSet<SegmentNumber>,
    entries: Vec<Arc<Entry>>,
}

/// A holder. Its position moves without a lock: readers move it with every record.
struct Entry {
    kind: HolderKind,
    name: Arc<str>,
    needs: AtomicU64,
    invalidated: OnceLock<Invalidation>,
}

impl Entry {
    fn holder(&self) -> Holder {
        let needs = Lsn::new(self.needs.load(Ordering::Acquire));
        Holder { kind: self.kind, name: Arc::clone(&self.name), needs }
    }
}

impl Retained {
    pub(super) fn new(layout: Layout, segments: BTreeSet<SegmentNumber>) -> Retained {
        let state = Mutex::new(State { segments, entries: Vec::new() });
        Retained { layout, state, recycling: Mutex::new(()) }
    }

    /// A segment was added.
    pub(super) fn add(&self, number: SegmentNumber) {
        self.state.lock().segments.insert(number);
    }

    /// The oldest position that is there; `None` in a log without segments. What is being recycled is not there any more.
    pub(super) fn oldest(&self) -> Option<Lsn> {
        self.state.lock().oldest(self.layout)
    }

    /// The oldest segment that is there, from `number` on. What is being recycled is not there any more.
    pub(super) fn next_from(&self, number: SegmentNumber) -> Option<SegmentNumber> {
        self.state.lock().segments.range(number..).next().copied()
    }

    /// Keeps the log from `from` on.
    pub(super) fn hold(self: &Arc<Self>, kind: HolderKind, name: &str, from: Lsn) -> Result<Hold, WalError> {
        let mut state = self.state.lock();
        if let Some(oldest) = state.oldest(self.layout).filter(|oldest| self.layout.record_start(from) < *oldest) {
            return Err(WalError::Recycled { wanted: from, oldest });
        }
        if state.entries.len() >= MAX_HOLDERS {
            return Err(WalError::TooManyHolders { limit: MAX_HOLDERS });
        }
        let needs = AtomicU64::new(from.get());
        let entry = Arc::new(Entry { kind, name: name.into(), needs, invalidated: OnceLock::new() });
        state.entries.push(Arc::clone(&entry));
        drop(state);
        Ok(Hold { retained: Arc::clone(self), entry })
    }

    /// What may be recycled now, and what keeps the rest.
    pub(super) fn decide(&self, checkpoint: Lsn, durable: Lsn, config: &WalConfig) -> Decision {
        self.state.lock().decide(self.layout, checkpoint, durable, config)
    }

    /// Takes out of the log what nobody needs, and answers how many segments that were.
    pub(super) fn recycle(&self, shared: &Shared, checkpoint: Lsn) -> Result<usize, WalError> {
        let (directory, durable) = (&shared.directory, shared.durable());
        let _recycling = self.recycling.lock();
        shared.watchdog.recycling.watch(|| {
            // Counted once: others only take spare ones meanwhile.
            let mut spares = directory.spare_count()?;
            let recyclable = self.give_up(checkpoint, durable, &shared.config);
            for number in &recyclable {
                shared.watchdog.recycling.restart();
                directory.recycle(*number, &mut spares)?;
            }
            Ok(recyclable.len())
        })
    }

    /// Decides what goes, and says so to whoever asks from now on. Answers the segments, oldest first.
    fn give_up(&self, checkpoint: Lsn, durable: Lsn, config: &WalConfig) -> Vec<SegmentNumber> {
        let mut state = self.state.lock();
        let decision = state.decide(self.layout, checkpoint, durable, config);
        let recyclable = decision.recyclable().to_vec();
        // Before any file goes: a reader whose segment is overwritten while it reads must find the reason here.
        state.invalidate(decision);
        for number in &recyclable {
            state.segments.remove(number);
        }
        let oldest = state.oldest(self.layout).unwrap_or(durable);
        drop(state);
        metrics::gauge!("mainstay_wal_retained_bytes").set(durable.bytes_since(oldest) as f64);
        recyclable
    }
}

impl State {
    fn oldest(&self, layout: Layout) -> Option<Lsn> {
        self.segments.first().map(|oldest| layout.first_record_in(*oldest))
    }

    fn decide(&self, layout: Layout, checkpoint: Lsn, durable: Lsn, config: &WalConfig) -> Decision {
        let holders: Vec<_> = self.entries.iter().map(|entry| entry.holder()).collect();
        retention::decide(&Facts {
            layout,
            segments: &self.segments,
            checkpoint,
            durable,
            keep_bytes: config.keep_bytes,
            max_retained_bytes: config.max_retained_bytes,
            holders: &holders,
        })
    }

    fn invalidate(&mut self, decision: Decision) {
        let invalidated = decision.into_invalidated();
        if invalidated.is_empty() {
            return;
        }
        for (place, invalidation) in invalidated {
            let Some(entry) = self.entries.get(place) else { continue };
            tracing::warn!("{invalidation}");
            metrics::counter!("mainstay_wal_holders_invalidated_total", "kind" => entry.kind.name()).increment(1);
            // Set once: who is invalidated is not asked again.
            let _ = entry.invalidated.set(invalidation);
        }
        self.entries.retain(|entry| entry.invalidated.get().is_none());
    }
}

/// Keeps the log from a position on for as long as it lives, unless it keeps more than `max_retained_bytes`: then it is
/// invalidated, and the log goes on without it.
pub struct Hold {
    retained: Arc<Retained>,
    entry: Arc<Entry>,
}

impl Hold {
    /// Nothing before `to` is needed any more. It never goes back: an older position changes nothing.
    ///
    /// # Errors
    /// [`WalError::Invalidated`]: the log may be gone.
    pub fn advance(&self, to: Lsn) -> Result<(), WalError> {
        self.entry.needs.fetch_max(to.get(), Ordering::AcqRel);
        self.check()
    }

    /// The oldest position that is kept for it, if it is valid.
    pub fn needs(&self) -> Lsn {
        Lsn::new(self.entry.needs.load(Ordering::Acquire))
    }

    /// Why the log is not kept for it any longer; `None` while it is.
    pub fn invalidated(&self) -> Option<&Invalidation> {
        self.entry.invalidated.get()
    }

    /// Whether the log is still kept for it.
    ///
    /// # Errors
    /// [`WalError::Invalidated`] with the oldest position that is there.
    pub fn check(&self) -> Result<(), WalError> {
        match self.invalidated() {
            None => Ok(()),
            Some(invalidation) => {
                let oldest = self.retained.oldest().unwrap_or(Lsn::NONE);
                Err(WalError::Invalidated { invalidation: Box::new(invalidation.clone()), oldest })
            }
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holder = self.entry.holder();
        f.debug_struct("Hold").field("holder", &holder).field("invalidated", &self.invalidated()).finish()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.retained.state.lock().entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}
