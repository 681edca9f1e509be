//! How long leases and tokens still last. Every replica keeps count; only the leader says what is due.
//!
//! [`Timers`] is pure: what time it is, it is told. The promise to whoever was granted or renewed a lease is that it lasts
//! at least its time to live from then on. It holds because a replica counts from when it has applied the grant or the
//! keep-alive, which is after it was asked for, and because a leader counts everything again from when it began to lead.
//! What expires in the end is decided in the log: an `Expire` names the renewal that it saw.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::fault::{self, Fault};
use super::proto::{DueLease, Expire};
use crate::boot_clock::boot_time;
use crate::ident::Term;

/// What lasts for a limited time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limited {
    /// A lease.
    Lease(u64),
    /// A join token.
    Token(u64),
}

/// A change of what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Countdown {
    /// Of what.
    pub of: Limited,
    /// Milliseconds, and which renewal they belong to; `None`: it no longer runs.
    pub runs: Option<(u64, u64)>,
}

/// What runs out, and when.
#[derive(Debug, Default)]
pub struct Timers {
    running: HashMap<Limited, Running>,
    by_end: BTreeSet<(Duration, Limited)>,
    /// The term in which this node leads, as far as it is known here.
    leads: Option<Term>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    ttl: Duration,
    renewal: u64,
    end: Duration,
}

impl Timers {
    /// Something begins to run, was renewed, or has ended. What is said again of the same renewal goes on as it was.
    pub fn note(&mut self, countdown: Countdown, now: Duration) {
        let Countdown { of, runs } = countdown;
        let before = self.running.get(&of).copied();
        if let (Some(before), Some((_, renewal))) = (before, runs)
            && (before.renewal == renewal || fault::active(Fault::RenewalUncounted))
        {
            // The renewal is what an `Expire` has to name.
            self.running.insert(of, Running { renewal, ..before });
            return;
        }
        if let Some(before) = before {
            self.by_end.remove(&(before.end, of));
            self.running.remove(&of);
        }
        if let Some((ttl_ms, renewal)) = runs {
            let ttl = Duration::from_millis(ttl_ms);
            self.start(of, Running { ttl, renewal, end: now.saturating_add(ttl) });
        }
    }

    /// What is due, `limit` of each kind at most, if this node leads in this term. A new leader counts from now.
    pub fn due(&mut self, leads: Option<Term>, now: Duration, limit: usize) -> Expire {
        let began = leads.is_some() && leads != self.leads && !fault::active(Fault::LeaderCountsOn);
        self.leads = leads;
        if leads.is_none() {
            return Expire::default();
        }
        if began {
            self.by_end.clear();
            for (of, running) in std::mem::take(&mut self.running) {
                self.start(of, Running { end: now.saturating_add(running.ttl), ..running });
            }
        }
        let mut due = Expire::default();
        for (_, of) in self.by_end.iter().take_while(|(end, _)| *end <= now) {
            match of {
                Limited::Lease(id) if due.leases.len() < limit => {
                    let renewal = self.running.get(of).map_or(0, |running| running.renewal);
                    due.leases.push(DueLease { id: *id, renewal });
                }
                Limited::Token(id) if due.tokens.len() < limit => due.tokens.push(*id),
                _ => {}
            }
        }
        due
    }

    /// How long something still lasts, as this replica counts; `None` if it does not run.
    pub fn remaining(&self, of: Limited, now: Duration) -> Option<Duration> {
        self.running.get(&of).map(|running| running.end.saturating_sub(now))
    }

    fn start(&mut self, of: Limited, running: Running) {
        self.by_end.insert((running.end, of));
        self.running.insert(of, running);
    }
}

/// Says what time it is.
pub(crate) type Clock = fn() -> Duration;

/// Time since the machine was started, also while it slept. Wall clocks jump; this one does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl BootClock {
    /// What time it is.
    pub fn now(self) -> Duration {
        boot_time()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn lease(id: u64, ttl_ms: u64, renewal: u64) -> Countdown {
        Countdown { of: Limited::Lease(id), runs: Some((ttl_ms, renewal)) }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_lease_is_due_when_its_time_is_over_and_only_to_a_leader() {
        let mut timers = Timers::default();
        let one = Some(Term::new(1));
        assert_eq!(timers.due(one, at(0), 9), Expire::default());
        timers.note(lease(1, 100, 1), at(0));
        timers.note(Countdown { of: Limited::Token(5), runs: Some((50, 0)) }, at(0));
        assert_eq!(timers.due(one, at(99), 9).leases, []);
        assert_eq!(timers.due(one, at(99), 9).tokens, [5]);
        assert_eq!(timers.due(one, at(100), 9).leases, [DueLease { id: 1, renewal: 1 }]);
        // A key was attached: no renewal.
        timers.note(lease(1, 100, 1), at(90));
        assert_eq!(timers.remaining(Limited::Lease(1), at(40)), Some(at(60)));
        timers.note(lease(1, 100, 2), at(100));
        assert_eq!(timers.due(one, at(199), 9).leases, []);
        assert_eq!(timers.due(one, at(200), 0).leases, []);
        assert_eq!(timers.due(None, at(500), 9), Expire::default());
        // It leads again: everything begins in full.
        assert_eq!(timers.due(Some(Term::new(3)), at(600), 9), Expire::default());
        assert_eq!(timers.due(Some(Term::new(3)), at(699), 9).leases, []);
        timers.note(Countdown { of: Limited::Token(5), runs: None }, at(600));
        assert_eq!(timers.due(Some(Term::new(3)), at(700), 9).leases.len(), 1);
        assert!(timers.due(Some(Term::new(3)), at(700), 9).tokens.is_empty());
        timers.note(Countdown { of: Limited::Lease(1), runs: None }, at(700));
        assert_eq!(timers.due(Some(Term::new(3)), at(800), 9), Expire::default());
    }

    #[test]
    fn the_boot_clock_goes_on() {
        let first = BootClock.now();
        assert!(first > Duration::ZERO);
        assert!(BootClock.now() >= first);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Grant(u64, u64),
        Renew(u64),
        End(u64),
        Lead(Option<u64>),
        Look,
    }

    fn event() -> impl Strategy<Value = (u64, Event)> {
        let event = prop_oneof![
            (0u64..4, 1u64..50).prop_map(|(id, ttl)| Event::Grant(id, ttl)),
            (0u64..4).prop_map(Event::Renew),
            (0u64..4).prop_map(Event::End),
            prop::option::of(0u64..4).prop_map(Event::Lead),
            Just(Event::Look),
            Just(Event::Look),
        ];
        (0u64..30, event)
    }

    proptest! {
        /// Against the simplest model: for each lease when it was promised last, and when this node began to lead.
        #[test]
        fn no_lease_is_shorter_than_promised_and_none_lasts_forever(events in prop::collection::vec(event(), 1..80)) {
            let mut timers = Timers::default();
            let mut promised: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
            let (mut now, mut leads, mut since) = (0, None, 0);
            for (later, event) in events {
                now += later;
                match event {
                    Event::Grant(id, ttl) => {
                        if promised.contains_key(&id) {
                            continue;
                        }
                        promised.insert(id, (now, ttl, 1));
                        timers.note(lease(id, ttl, 1), at(now));
                    }
                    Event::Renew(id) => {
                        let Some((from, ttl, renewal)) = promised.get_mut(&id) else { continue };
                        (*from, *renewal) = (now, *renewal + 1);
                        timers.note(lease(id, *ttl, *renewal), at(now));
                    }
                    Event::End(id) => {
                        promised.remove(&id);
                        timers.note(Countdown { of: Limited::Lease(id), runs: None }, at(now));
                    }
                    Event::Lead(term) => {
                        // Time passes before it is noticed; what is said again of a lease changes nothing.
                        let term = term.map(|term| term + 1);
                        if term != leads {
                            (leads, since) = (term, now);
                            timers.due(leads.map(Term::new), at(now), 9);
                        }
                    }
                    Event::Look => {
                        let due: BTreeMap<_, _> = timers
                            .due(leads.map(Term::new), at(now), 9).leases.iter().map(|due| (due.id, due.renewal)).collect();
                        let expected: BTreeMap<_, _> = promised
                            .iter()
                            .filter(|(_, (from, ttl, _))| leads.is_some() && (*from).max(since) + ttl <= now)
                            .map(|(id, (_, _, renewal))| (*id, *renewal))
                            .collect();
                        prop_assert_eq!(due, expected);
                    }
                }
            }
        }
    }
}
