//! Those who watch keys and events, at one replica and then at another. What they are given is what the model says, each
//! revision once, in order.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::super::seen::{Happening, Seen};
use super::super::world::{Checked, Event, TICK, Violation, World, violated};
use super::model::{Model, is_in};
use crate::meta::apply;
use crate::meta::proto::{self, KeyRange};
use crate::meta::watch::{EventWatch, KvChange, KvUpdate, KvWatch, WatchError};

/// How often somebody who is polled may say that he is not ready: where he lets others have their turn.
const MAX_PENDING: usize = 8;
/// Out of a thousand looks, how often a watch goes on at another replica.
const MOVES: u64 = 150;

/// All that watch.
#[derive(Default)]
pub(super) struct Watchers {
    of_keys: Vec<OfKeys>,
    of_events: Vec<OfEvents>,
    /// Each event as it was seen first.
    events: BTreeMap<u64, proto::Event>,
}

impl Watchers {
    /// Of another cluster they know nothing.
    pub(super) fn begin_anew(&mut self) {
        for it in &mut self.of_keys {
            (it.next, it.given, it.is_through, it.at) = (1, 0, false, None);
        }
        for it in &mut self.of_events {
            (it.next, it.at) = (1, None);
        }
        self.events.clear();
    }

    /// What somebody waits for next, and at which place.
    fn place_of(&self, watcher: usize) -> (u64, Option<usize>) {
        match self.of_keys.get(watcher) {
            Some(it) => (it.next, it.at.as_ref().map(|at| at.0)),
            None => {
                let it = &self.of_events[watcher - self.of_keys.len()];
                (it.next, it.at.as_ref().map(|at| at.0))
            }
        }
    }
}

/// Somebody who watches a range.
struct OfKeys {
    range: KeyRange,
    /// Where it goes on, as its watch says.
    next: u64,
    /// The last revision that it was given, or told to be lost.
    given: u64,
    /// It was told that there is nothing more now.
    is_through: bool,
    at: Option<(usize, u32, KvWatch)>,
}

/// Somebody who follows the events.
struct OfEvents {
    next: u64,
    at: Option<(usize, u32, EventWatch)>,
}

/// What a future has to say now; `None`: it waits.
fn poll<T>(future: impl Future<Output = T>) -> Option<T> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap_or_else(|error| panic!("a runtime: {error}"));
    }
    RUNTIME.with(|runtime| {
        let _guard = runtime.enter();
        let mut future = pin!(future);
        (0..MAX_PENDING).find_map(|_| match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
}

fn everything() -> KeyRange {
    KeyRange { key: Vec::new(), end: vec![0] }
}

impl World {
    pub(super) fn begin_watching(&mut self) {
        let Some(metadata) = &mut self.metadata else { return };
        let ranges = [
            everything(),
            everything(),
            KeyRange { key: b"k/2".to_vec(), end: b"k/5".to_vec() },
            KeyRange { key: b"r/0".to_vec(), end: Vec::new() },
        ];
        let of_keys = ranges.map(|range| OfKeys { range, next: 1, given: 0, is_through: false, at: None });
        metadata.watchers.of_keys.extend(of_keys);
        metadata.watchers.of_events.extend((0..2).map(|_| OfEvents { next: 1, at: None }));
        let count = metadata.watchers.of_keys.len() + metadata.watchers.of_events.len();
        for watcher in 0..count {
            self.after(TICK, Event::Watcher { watcher });
        }
    }

    /// The turn of somebody who watches.
    pub(in super::super) fn watcher(&mut self, watcher: usize) -> Checked {
        let delay = 1 + self.rng.below(4 * TICK);
        self.after(delay, Event::Watcher { watcher });
        let mut moves = self.rng.chance(MOVES);
        let host = self.rng.below(self.hosts.len() as u64) as usize;
        let mut place = self.place_on(host, 0);
        // In the end it is asked of those who take part: others may never hear of anything.
        let members = if self.healed { self.members(0) } else { Vec::new() };
        if !members.is_empty() {
            place = self.rng.pick(&members);
            let at = self.metadata.as_ref().and_then(|it| it.watchers.place_of(watcher).1);
            moves |= at.is_some_and(|at| !members.contains(&at));
        }
        let most = if self.rng.chance(300) { self.rng.range(1, 3) as usize } else { usize::MAX };
        self.look(watcher, moves.then_some(place), place, most)?;
        self.note(|world| {
            let (next, at) = world.metadata.as_ref().map(|it| it.watchers.place_of(watcher)).unwrap_or_default();
            format!("watcher {watcher}: waits for {next} at {:?}", at.map(|at| at + 1))
        });
        self.check_told(watcher)
    }

    /// Whoever watches at this replica looks, now that it is about to write.
    pub(super) fn look_at(&mut self, place: usize) -> Checked {
        let Some(metadata) = &self.metadata else { return Ok(()) };
        // Who follows events would ask again and again for one that he was told of too early.
        let places = metadata.watchers.of_keys.iter().map(|it| it.at.as_ref().map(|at| at.0));
        let here: Vec<usize> = places.enumerate().filter(|(_, at)| *at == Some(place)).map(|(it, _)| it).collect();
        here.into_iter().try_for_each(|watcher| self.look(watcher, None, place, usize::MAX))
    }

    /// Somebody looks where he is, or goes elsewhere, or to `place` if he is nowhere.
    fn look(&mut self, watcher: usize, elsewhere: Option<usize>, place: usize, most: usize) -> Checked {
        let World { metadata, replicas, seen, .. } = self;
        let Some(metadata) = metadata else { return Ok(()) };
        let model = &metadata.reference.model;
        let Watchers { of_keys, of_events, events } = &mut metadata.watchers;
        let lives = |at: usize, life: u32| replicas[at].life == life && replicas[at].meta.is_some();
        let now_at = match of_keys.get_mut(watcher) {
            Some(it) => {
                it.is_through = false;
                it.at.as_ref().map(|(at, life, _)| (*at, *life))
            }
            None => of_events[watcher - of_keys.len()].at.as_ref().map(|(at, life, _)| (*at, *life)),
        };
        let stays = now_at.filter(|(at, life)| elsewhere.is_none() && lives(*at, *life));
        let goes_to = elsewhere.unwrap_or(place);
        let opened = match stays {
            Some(_) => None,
            None => match &replicas[goes_to].meta {
                Some(meta) => Some((goes_to, replicas[goes_to].life, meta)),
                None => return Ok(()),
            },
        };
        if opened.is_some() && now_at.is_some() {
            seen.note(Happening::WatchMoved);
        }
        if let Some(it) = of_keys.get_mut(watcher) {
            if let Some((at, life, meta)) = opened {
                let (view, progress) = (std::sync::Arc::clone(&meta.view), meta.seen.progress.clone());
                let watch = KvWatch::new(view, progress, it.range.clone(), it.next, Duration::from_secs(3600));
                it.at = Some((at, life, watch));
            }
            return it.look(model, seen, most);
        }
        let it = &mut of_events[watcher - of_keys.len()];
        if let Some((at, life, meta)) = opened {
            let (view, progress) = (std::sync::Arc::clone(&meta.view), meta.seen.progress.clone());
            it.at = Some((at, life, EventWatch::new(view, progress, it.next)));
        }
        it.look(events)
    }

    /// Whoever is told that there is nothing more has seen all that the tables show there.
    fn check_told(&self, watcher: usize) -> Checked {
        let watchers = self.metadata.as_ref().map(|it| &it.watchers.of_keys);
        let Some(it) = watchers.and_then(|all| all.get(watcher)).filter(|it| it.is_through) else { return Ok(()) };
        let Some((place, ..)) = it.at else { return Ok(()) };
        let Some(meta) = self.replicas[place].meta.as_ref().filter(|_| !self.replicas[place].is_taking_over) else {
            return Ok(());
        };
        let revision = apply::reached(&*meta.view).map_or(0, |reached| reached.revision);
        match it.next <= revision {
            true => violated("watches are told what is there", format!("{revision}, and only up to {}", it.next)),
            false => Ok(()),
        }
    }

    /// Those who have not seen everything, and where they are.
    pub(super) fn watchers_behind(&self) -> Vec<(usize, u64)> {
        let Some(metadata) = &self.metadata else { return Vec::new() };
        let Watchers { of_keys, of_events, events } = &metadata.watchers;
        let last = events.last_key_value().map_or(0, |(last, _)| *last);
        let revision = metadata.reference.model.revision;
        let keys = of_keys.iter().map(|it| (it.next, revision));
        let all = keys.chain(of_events.iter().map(|it| (it.next, last))).enumerate();
        all.filter(|(_, (next, last))| next <= last).map(|(watcher, (next, _))| (watcher, next)).collect()
    }
}

impl OfKeys {
    /// Takes so many updates at most.
    fn look(&mut self, model: &Model, seen: &mut Seen, most: usize) -> Checked {
        for _ in 0..most {
            let Some((_, _, watch)) = &mut self.at else { return Ok(()) };
            let (update, position) = (poll(watch.next()), watch.position());
            match update {
                None => {
                    // What lies before its position was given.
                    self.check_gap(model, position)?;
                    (self.next, self.is_through) = (position, true);
                    return Ok(());
                }
                Some(Ok(KvUpdate::Changes { revision, changes })) => {
                    self.check_gap(model, revision)?;
                    if revision <= self.given {
                        return violated("watches give nothing twice", format!("revision {revision} again"));
                    }
                    let expected = self.of(model, revision);
                    if changes != expected {
                        let what = format!("revision {revision}: expected {expected:?}, found {changes:?}");
                        return violated("watches give what changed", what);
                    }
                    (self.next, self.given) = (position, revision);
                }
                Some(Ok(KvUpdate::Progress { revision })) => {
                    self.check_gap(model, revision + 1)?;
                }
                Some(Err(WatchError::Compacted { oldest })) => {
                    if oldest > model.compacted + 1 || oldest <= self.given {
                        let what =
                            format!("at {} the oldest is {oldest}, and {} compacted", self.next, model.compacted);
                        return violated("only what is compacted is lost", what);
                    }
                    seen.note(Happening::WatchTooLate);
                    // It reads everything, and goes on behind that.
                    (self.next, self.given, self.at) = (oldest, oldest - 1, None);
                    return Ok(());
                }
                Some(Err(WatchError::Stopped)) => {
                    self.at = None;
                    return Ok(());
                }
                Some(Err(error)) => {
                    return Err(Violation { check: "watches go on", what: error.to_string() });
                }
            }
        }
        Ok(())
    }

    /// Nothing between what was given and a revision has changed in the range.
    fn check_gap(&self, model: &Model, revision: u64) -> Checked {
        let skipped = (self.given + 1..revision).find(|revision| !self.of(model, *revision).is_empty());
        match skipped {
            Some(skipped) => {
                let what = format!("revision {skipped} of {:?} was skipped, for {revision} came", self.range);
                violated("watches have no gap", what)
            }
            None if revision > model.revision + 1 => {
                violated("watches have no gap", format!("{revision} after {}", model.revision))
            }
            None => Ok(()),
        }
    }

    fn of(&self, model: &Model, revision: u64) -> Vec<KvChange> {
        let changes = model.history.get(&revision).into_iter().flatten();
        let is_here = |change: &&KvChange| match change {
            KvChange::Put(pair) => is_in(&self.range, &pair.key),
            KvChange::Deleted { key } => is_in(&self.range, key),
        };
        changes.filter(is_here).cloned().collect()
    }
}

impl OfEvents {
    fn look(&mut self, events: &mut BTreeMap<u64, proto::Event>) -> Checked {
        loop {
            let Some((_, _, watch)) = &mut self.at else { return Ok(()) };
            match poll(watch.next()) {
                None => return Ok(()),
                Some(Ok(event)) => {
                    if event.sequence != self.next {
                        return violated("events have no gap", format!("expected {}, found {event:?}", self.next));
                    }
                    let first = events.entry(event.sequence).or_insert_with(|| event.clone());
                    if *first != event {
                        return violated("events are the same everywhere", format!("{first:?}, {event:?}"));
                    }
                    self.next += 1;
                }
                Some(Err(WatchError::Compacted { oldest })) => {
                    if oldest <= self.next {
                        return violated("only what is compacted is lost", format!("event {} for {oldest}", self.next));
                    }
                    (self.next, self.at) = (oldest, None);
                    return Ok(());
                }
                Some(Err(WatchError::Stopped)) => {
                    self.at = None;
                    return Ok(());
                }
                Some(Err(error)) => {
                    return Err(Violation { check: "watches go on", what: error.to_string() });
                }
            }
        }
    }
}
