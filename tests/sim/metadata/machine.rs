//! A replica's machine: the real one, on the tables that its node's disk shows, behind the real sessions. What the apply
//! thread of a raftstore does with them is done here once more, in as few lines.

use std::sync::Arc;

use bytes::Bytes;

use super::super::tables::{Shown, Tables};
use crate::ident::{GroupId, LogIndex};
use crate::meta::fault;
use crate::meta::machine::{MachineView, MetaMachine};
use crate::meta::read;
use crate::meta::view::StoreView;
use crate::raftstore::context::Context;
use crate::raftstore::entry::{Entry, EntryKind};
use crate::raftstore::log_store::{TableStore, TableWrite};
use crate::raftstore::sessions::{Admitted, Sessions};
use crate::raftstore::state_machine::{ApplyBatch, ApplyError, Command, StateMachine};

/// The group, for whoever is asked for it: each replica has tables of its own.
const GROUP: GroupId = GroupId::new(1);

/// What an entry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is no command.
    Nothing,
    /// It was applied now, with this answer.
    Now(Bytes),
    /// It was applied before.
    Before(Option<Bytes>),
    /// A later one of its client was.
    Superseded,
}

/// See the module.
pub(in super::super) struct MetaReplica {
    machine: MetaMachine,
    pub(super) seen: MachineView,
    pub(super) view: Arc<StoreView>,
    shown: Arc<Shown>,
    sessions: Sessions,
}

impl MetaReplica {
    pub(super) fn open(tables: &Tables) -> Result<MetaReplica, ApplyError> {
        let shown = tables.shown();
        let store: Arc<dyn TableStore> = Arc::clone(&shown) as _;
        let view = StoreView { store, group: GROUP };
        let (machine, seen) = MetaMachine::open_by(view.clone(), fault::now)?;
        let sessions = Sessions::load(&*shown, GROUP)?;
        Ok(MetaReplica { machine, seen, view: Arc::new(view), shown, sessions })
    }

    /// The tables were replaced.
    pub(super) fn restored(&mut self, index: u64) -> Result<(), ApplyError> {
        self.sessions = Sessions::load(&*self.shown, GROUP)?;
        self.machine.restored(LogIndex::new(index))
    }

    /// What entries write, and what they came to.
    pub(super) fn apply(&mut self, entries: &[&Entry]) -> Result<(Vec<TableWrite>, Vec<Told>), ApplyError> {
        let mut commands: Vec<Command<'_>> = Vec::new();
        let mut admitted = Vec::new();
        for entry in entries {
            let is_command = entry.kind() == EntryKind::Command && !entry.data().is_empty();
            let before = match Context::decode(entry.context()) {
                Some(Context::Once(attempt)) if is_command => self.sessions.admit(attempt, entry.index()),
                _ => Admitted::Now,
            };
            if is_command && before == Admitted::Now {
                commands.push(Command { index: entry.index(), data: entry.data() });
            }
            admitted.push(is_command.then_some(before));
        }
        let mut batch = ApplyBatch::new(&*self.shown, GROUP);
        let answers = match commands.is_empty() {
            true => Vec::new(),
            false => self.machine.apply(&commands, &mut batch)?,
        };
        let answer = |index: LogIndex| {
            let place = commands.binary_search_by_key(&index, |command| command.index).ok();
            place.and_then(|place| answers.get(place)).cloned()
        };
        let mut told = Vec::new();
        for (entry, admitted) in entries.iter().zip(admitted) {
            told.push(match admitted {
                None => Told::Nothing,
                Some(Admitted::Superseded) => Told::Superseded,
                Some(Admitted::Before(at, response)) => Told::Before(answer(at).or(response)),
                Some(Admitted::Now) => {
                    let response = answer(entry.index()).unwrap_or_default();
                    if let Some(Context::Once(attempt)) = Context::decode(entry.context()) {
                        self.sessions.respond(attempt, entry.index(), &response);
                    }
                    Told::Now(response)
                }
            });
        }
        self.sessions.write(&mut batch);
        Ok((batch.writes().to_vec(), told))
    }

    /// What was to be written is.
    pub(super) fn written(&mut self) {
        self.machine.written();
    }

    /// The value of a register: the number that its key's value begins with.
    pub(in super::super) fn register(&self, key: u8) -> u64 {
        let pair = read::latest(&*self.view, &super::commands::register_key(key)).ok().flatten();
        let number = pair.and_then(|pair| pair.value.first_chunk::<8>().copied());
        number.map_or(0, u64::from_le_bytes)
    }
}
