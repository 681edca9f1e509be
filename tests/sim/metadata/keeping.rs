//! Leaders let expire what is due, as the timekeeper of a node does; and whether it was due.

use std::time::Duration;

use super::super::oracle::Outcome;
use super::super::seen::Happening;
use super::super::world::{Checked, World, violated};
use crate::ident::GroupId;
use crate::meta::proto::action::Kind;
use crate::meta::proto::{Command, TokenState};
use crate::meta::stored;
use crate::meta::timekeeper::expiry;
use crate::meta::view::StoreView;
use crate::raftstore::entry::Entry;

impl World {
    /// Somebody begins to lead.
    pub(in super::super) fn metadata_led(&mut self, term: u64) {
        if let Some(metadata) = &mut self.metadata {
            metadata.led.insert(term, self.now);
        }
    }

    /// At each tick a node looks what is due, if it leads; one proposal at a time.
    pub(in super::super) fn keep_time(&mut self, place: usize) -> Checked {
        let host = self.replicas[place].host;
        let (now, unix_ms) = (self.time(host, self.now), self.now);
        let Some(metadata) = &mut self.metadata else { return Ok(()) };
        if let Some(waits) = metadata.keepers.get(&place).copied()
            && self.history.operations[waits].outcome == Outcome::Open
        {
            return Ok(());
        }
        let Some(meta) = &self.replicas[place].meta else { return Ok(()) };
        let due = expiry(&meta.seen.timers, &self.replicas[place].positions, now, unix_ms);
        let Some(command) = due else { return Ok(()) };
        let operation = self.begin_call(None);
        if let Some(metadata) = &mut self.metadata {
            metadata.keepers.insert(place, operation);
        }
        let command = Command { reason: operation.to_string(), ..command };
        self.propose_call(operation, &command, None, place)
    }

    /// Leases that a command let expire have lasted as long as was promised.
    pub(super) fn check_ended(&mut self, entry: &Entry, command: &Command) -> Checked {
        let Some(metadata) = &self.metadata else { return Ok(()) };
        let model = &metadata.reference.model;
        if !command.actions.iter().any(|action| matches!(action.kind, Some(Kind::Expire(_)))) {
            return Ok(());
        }
        let watch = &self.cells[0].watch;
        let (term, proposed) = (entry.term().get(), command.unix_ms);
        // One that was never heard of and forgot its vote is not known.
        let Some(leader) = watch.leaders.get(&term).copied() else { return Ok(()) };
        let host = self.plan.host_of(leader);
        let proposed = self.time(host, proposed);
        let led = metadata.led.get(&term).copied().unwrap_or_default();
        let mut happened = Vec::new();
        for (id, lease) in &model.ended {
            let ttl = Duration::from_millis(lease.ttl_ms);
            let renewed = watch.committed_at.get(lease.renewal as usize - 1).copied().unwrap_or_default();
            let lasted = proposed.saturating_sub(self.time(host, renewed));
            if lasted < ttl {
                let what = format!("lease {id} of {ttl:?} lasted {lasted:?}");
                return violated("leases last as long as promised", what);
            }
            let counted = proposed.saturating_sub(self.time(host, led));
            if self.rules && counted < ttl {
                let what = format!("lease {id} of {ttl:?} after {counted:?} of term {term}");
                return violated("a new leader counts in full", what);
            }
            happened.push(Happening::LeaseExpired);
            happened.extend((renewed < led).then_some(Happening::LeaseOfAnotherLeader));
        }
        happened.into_iter().for_each(|it| self.seen.note(it));
        Ok(())
    }

    /// In the end nothing is left that should have expired, and whoever watches has seen everything. Says what is not so.
    pub(in super::super) fn unrest(&self) -> Option<String> {
        let metadata = self.metadata.as_ref()?;
        let view = StoreView { store: metadata.reference.tables.shown(), group: GroupId::new(1) };
        let tokens = stored::tokens(&view).unwrap_or_default();
        let open: Vec<u64> = tokens.iter().filter(|it| it.state() == TokenState::Open).map(|it| it.id).collect();
        let leases = &metadata.reference.model.leases;
        let behind = self.watchers_behind();
        let votes = self.unrest_of_votes();
        let is_quiet = open.is_empty() && leases.is_empty() && behind.is_empty() && votes.is_none();
        (!is_quiet).then(|| format!("open tokens {open:?}, leases {leases:?}, watchers {behind:?}, votes {votes:?}"))
    }
}
