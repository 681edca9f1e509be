//! The event log: every change of members, settings and tokens, with who did it and why. Bounded: the oldest go first.

use super::{Fault, Step};
use crate::meta::fault::{self, Fault as Broken};
use crate::meta::keys::Cluster;
use crate::meta::limits::EVENTS_REMOVED_AT_ONCE;
use crate::meta::proto::{Event, EventKind};
use crate::meta::settings::Name;
use crate::raftstore::log_store::Table;

impl Step<'_> {
    pub(super) fn event(
        &mut self,
        kind: EventKind,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) -> Result<(), Fault> {
        let header = &mut self.state.cluster;
        // The first event is number 1.
        header.first_event = header.first_event.max(1);
        header.next_event = header.next_event.max(1);
        let sequence = header.next_event;
        header.next_event += 1;
        let command = self.origin.command;
        let event = Event {
            sequence,
            index: self.origin.index,
            unix_ms: if fault::active(Broken::ClockInApply) { fault::millis() } else { command.unix_ms },
            actor: command.actor.clone(),
            reason: command.reason.clone(),
            kind: kind.into(),
            subject: subject.into(),
            detail: detail.into(),
        };
        self.put_record(Table::Cluster, Cluster::Event.numbered(sequence), &event);
        let max_count = self.setting(Name::EventsMaxCount);
        for _ in 0..EVENTS_REMOVED_AT_ONCE {
            let header = &mut self.state.cluster;
            if header.next_event - header.first_event <= max_count {
                break;
            }
            let oldest = header.first_event;
            header.first_event += 1;
            self.view.delete(Table::Cluster, Cluster::Event.numbered(oldest));
        }
        Ok(())
    }
}
