//! One replica that applies each entry for itself, as soon as anybody applies it: what all others are compared with, and
//! what the model is asked about.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::seen::Happening;
use super::super::tables::Tables;
use super::super::world::{Checked, Violation, World, violated};
use super::machine::{MetaReplica, Told};
use super::model::Model;
use crate::ident::GroupId;
use crate::meta::apply::reached;
use crate::meta::command::{decode, decode_answer};
use crate::meta::proto::{Command, MemberState, answer};
use crate::meta::stored;
use crate::meta::view::StoreView;
use crate::raftstore::entry::Entry;
use crate::raftstore::log_store::Table;
use crate::raftstore::state_machine::ApplyError;

/// The tables that the machine writes.
const OF_MACHINE: [Table; 2] = [Table::Cluster, Table::Kv];

/// See the module.
pub(super) struct Reference {
    pub(super) tables: Tables,
    machine: MetaReplica,
    /// The digest of the tables after each entry; after none at first.
    digests: Vec<u64>,
    /// The answer to each operation.
    pub(super) answers: BTreeMap<usize, Bytes>,
    pub(super) model: Model,
}

impl Default for Reference {
    fn default() -> Reference {
        let tables = Tables::default();
        let machine = MetaReplica::open(&tables).unwrap_or_else(|error| panic!("empty tables: {error}"));
        let digests = vec![tables.digest()];
        Reference { tables, machine, digests, answers: BTreeMap::new(), model: Model::default() }
    }
}

pub(super) fn stopped(error: &ApplyError) -> Violation {
    Violation { check: "the machine goes on", what: error.to_string() }
}

impl Reference {
    /// How many entries it has applied.
    fn applied(&self) -> u64 {
        self.digests.len() as u64 - 1
    }

    /// An active member is to vote, whatever was said.
    fn check_votes(&self, view: &StoreView) -> Checked {
        let members = stored::members(view).unwrap_or_default();
        let mut active = members.iter().filter(|member| member.state() == MemberState::Active);
        match !self.model.is_formed || active.any(|member| !member.non_voting) {
            true => Ok(()),
            false => violated("somebody votes", format!("{members:?}")),
        }
    }

    /// The digest after an entry.
    pub(super) fn digest(&self, index: u64) -> Option<u64> {
        self.digests.get(index as usize).copied()
    }

    pub(super) fn register(&self, key: u8) -> u64 {
        self.machine.register(key)
    }

    /// Applies an entry, if it has not yet.
    pub(super) fn apply(&mut self, entry: &Entry, rules: bool) -> Result<Option<Command>, Violation> {
        let index = entry.index().get();
        if index <= self.applied() {
            return Ok(None);
        }
        if index != self.applied() + 1 {
            violated("state-machine safety", format!("entry {index} is applied before the one before it"))?;
        }
        crate::meta::fault::set_now(std::time::Duration::ZERO);
        let before = self.tables.digest_of(&OF_MACHINE);
        let (writes, told) = self.machine.apply(&[entry]).map_err(|error| stopped(&error))?;
        self.tables.write(&writes);
        self.machine.written();
        self.digests.push(self.tables.digest());
        let after = self.tables.digest_of(&OF_MACHINE);
        let Some(Told::Now(bytes)) = told.first() else {
            return match before == after || !rules {
                true => Ok(None),
                false => Err(Violation { check: "commands apply once", what: format!("entry {index} again") }),
            };
        };
        let unreadable = |error: crate::meta::command::Unknown| Violation {
            check: "what is stored agrees",
            what: format!("entry {index}: {error}"),
        };
        let (_, command) = decode(entry.data()).map_err(unreadable)?;
        let outcome = decode_answer(bytes).map_err(unreadable)?.outcome;
        if let Some(operation) = operation_of(&command) {
            self.answers.insert(operation, bytes.clone());
        }
        match outcome {
            Some(answer::Outcome::Done(done)) => {
                self.model.apply(index, &command, &done)?;
                let view = StoreView { store: self.tables.shown(), group: GroupId::new(1) };
                self.model.shortened(reached(&view).map_or(0, |reached| reached.compacted))?;
                self.check_votes(&view)?;
                if rules {
                    self.model.check(&self.tables)?;
                }
            }
            _ if rules && before != after => {
                violated("what is refused writes nothing", format!("entry {index}: {command:?}"))?;
            }
            Some(answer::Outcome::Refused(refused)) => self.model.refused(&command, &refused)?,
            None => self.model.ended.clear(),
        }
        Ok(Some(command))
    }
}

/// Which operation a command is: what its reason says.
fn operation_of(command: &Command) -> Option<usize> {
    command.reason.parse().ok()
}

impl World {
    /// An entry is applied somewhere.
    pub(super) fn refer(&mut self, entry: &Entry) -> Checked {
        let rules = self.rules;
        let Some(metadata) = &mut self.metadata else { return Ok(()) };
        let command = metadata.reference.apply(entry, rules)?;
        if std::mem::take(&mut metadata.reference.model.was_shortened) {
            self.seen.note(Happening::HistoryShortened);
        }
        match command {
            Some(command) => self.check_ended(entry, &command),
            None => Ok(()),
        }
    }

    /// Replicas are equal: the tables of one are what the reference had after the same entry.
    pub(super) fn compare(&self, place: usize, index: u64, when: &str) -> Checked {
        let Some(metadata) = self.metadata.as_ref().filter(|_| self.rules) else { return Ok(()) };
        let found = self.store(place).tables.digest();
        match metadata.reference.digest(index) {
            Some(expected) if expected != found => {
                violated("replicas are equal", format!("{} has other tables {when} entry {index}", place + 1))
            }
            _ => Ok(()),
        }
    }
}
