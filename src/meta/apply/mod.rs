//! Pure: a command and the tables it finds become writes and an answer. No clock, no randomness, no I/O; the same on
//! every replica, whatever the batches in which commands come.
//!
//! | file | what it holds |
//! |---|---|
//! | `members` | who belongs to the cluster, and which version it speaks |
//! | `tokens` | what lets a node join |
//! | `settings` | set, reset, and who did |
//! | `events` | the bounded log of all of that |
//! | `kv` | put, delete, transactions |
//! | `recent` | how the keys are that changed lately |
//! | `compaction` | what the history forgets, a little with each command |
//! | `leases` | grant, keep alive, revoke, expire |
//!
//! **Preconditions are checked here**, not where commands are proposed: of two that race, the one that comes first in the
//! log wins, and the other is refused and told why. A refused command writes nothing at all, however many actions it has.
//!
//! **A command that is not understood is never skipped**: it stops the replica, which may go on with a newer build.

mod compaction;
mod events;
mod kv;
mod leases;
mod members;
mod recent;
mod settings;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::command;
use super::fault::{self, Fault as Broken};
use super::keys::{self, Cluster, Kv};
use super::limits::{MAX_REASON_BYTES, MAX_TEXT_BYTES};
use super::proto::action::Kind;
use super::proto::result::Kind as Outcome;
use super::proto::{self, Action, Answer, Command, Done, Refusal, Refused};
use super::settings::{Name, Values};
use super::stored;
use super::view::{Overlay, View, Writes};
use crate::ident::LogIndex;
use crate::raftstore::log_store::{StoreError, Table};
use crate::raftstore::state_machine::ApplyError;
use recent::{Known, Recent};

/// What a batch leaves for the next. All of it stands in the tables, too.
#[derive(Default)]
pub struct Remembered {
    state: State,
    recent: Recent,
}

/// What applies to all commands of a batch, and stands in the tables.
#[derive(Clone, Default)]
struct State {
    cluster: proto::ClusterHeader,
    kv: proto::KvHeader,
    settings: Values,
}

/// Applies commands one after the other and collects what they write.
pub struct Applier<'a> {
    view: Overlay<'a>,
    /// As it was read, to see whether it has changed.
    read: State,
    state: State,
    recent: Recent,
}

/// What became visible with the writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The last revision of keys and values.
    pub revision: u64,
    /// What came before this and the next revision may be forgotten.
    pub compacted: u64,
    /// The oldest event.
    pub first_event: u64,
    /// The event that comes next.
    pub next_event: u64,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The version that the command says.
    pub version: u16,
    /// The answer.
    pub answer: Answer,
}

/// Why an action has no effect.
enum Fault {
    /// The proposer hears why.
    Refused(Box<Refused>),
    /// The replica stops.
    Stop(ApplyError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Stop(error.into())
    }
}

fn refused(why: Refusal, message: impl Into<String>) -> Fault {
    refused_with(why, message, 0)
}

fn refused_with(why: Refusal, message: impl Into<String>, number: u64) -> Fault {
    Fault::Refused(Box::new(Refused { why: why.into(), action: 0, message: message.into(), number }))
}

/// Refuses unless a condition holds.
fn ensure(holds: bool, why: Refusal, message: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(refused(why, message())) }
}

/// What the tables say of how far they are.
///
/// # Errors
/// The store failed.
pub fn reached(view: &dyn View) -> Result<Reached, StoreError> {
    Ok(State::headers(view)?.reached())
}

impl State {
    fn headers(view: &dyn View) -> Result<State, StoreError> {
        Ok(State { cluster: stored::cluster(view)?, kv: stored::kv(view)?, settings: Values::default() })
    }

    fn load(view: &dyn View) -> Result<State, StoreError> {
        let mut state = State::headers(view)?;
        let settings = stored::records(view, Table::Cluster, Cluster::Setting.all(), usize::MAX)?;
        for proto::Setting { name, number, is_default, .. } in settings {
            state.settings.set(&name, (!is_default).then_some(number));
        }
        Ok(state)
    }

    fn reached(&self) -> Reached {
        let (kv, cluster) = (&self.kv, &self.cluster);
        Reached {
            revision: kv.revision,
            compacted: kv.compacted,
            first_event: cluster.first_event.max(1),
            next_event: cluster.next_event.max(1),
        }
    }
}

impl<'a> Applier<'a> {
    /// Begins where the tables are.
    ///
    /// # Errors
    /// The replica must stop: the store failed, or the cluster is of a version that this build does not know.
    pub fn new(base: &'a dyn View) -> Result<Applier<'a>, ApplyError> {
        Applier::resume(base, Remembered { state: State::load(base)?, recent: Recent::default() })
    }

    /// Goes on where an earlier batch has ended. All that it wrote is in the tables, and nothing else since.
    ///
    /// # Errors
    /// See [`Applier::new`].
    pub fn resume(base: &'a dyn View, remembered: Remembered) -> Result<Applier<'a>, ApplyError> {
        let Remembered { state, recent } = remembered;
        let (in_force, known) = (state.cluster.version, command::VERSION);
        if in_force > known.into() {
            let what = format!("the cluster is of version {in_force}; this build knows {known}");
            return Err(ApplyError::Machine(what));
        }
        Ok(Applier { view: Overlay::new(base), read: state.clone(), state, recent })
    }

    /// Applies a command. One that is refused has written nothing.
    ///
    /// # Errors
    /// The replica must stop: the store failed, or the command is of a newer version.
    pub fn apply(&mut self, index: LogIndex, bytes: &[u8]) -> Result<Applied, ApplyError> {
        let unknown = |error: command::Unknown| ApplyError::Machine(format!("metadata command {index}: {error}"));
        let (version, command) = command::decode(bytes).map_err(unknown)?;
        let mut step = Step {
            view: Overlay::new(&self.view),
            state: self.state.clone(),
            recent: &self.recent,
            changed: BTreeMap::new(),
            origin: Origin { index: index.get(), command: &command },
            change: ChangeSet::default(),
            answer_bytes: 0,
        };
        match step.run(version, &command.actions) {
            Ok(done) => {
                let Step { view, state, changed, .. } = step;
                let writes = view.into_writes();
                self.view.absorb(writes);
                self.state = state;
                changed.into_iter().for_each(|(key, known)| self.recent.note(key, known));
                Ok(answered(version, proto::answer::Outcome::Done(done)))
            }
            Err(Fault::Refused(refused)) => {
                if fault::active(Broken::HalfBatch) {
                    let Step { view, state, .. } = step;
                    let writes = view.into_writes();
                    self.view.absorb(writes);
                    self.state = state;
                }
                Ok(answered(version, proto::answer::Outcome::Refused(*refused)))
            }
            Err(Fault::Stop(error)) => Err(error),
        }
    }

    /// What the tables say of themselves, once all that was written so far is.
    pub fn headers(&self) -> (proto::ClusterHeader, proto::KvHeader) {
        (self.state.cluster, self.state.kv)
    }

    /// All that was written, how far that reaches, and where the next batch goes on, once that is in the tables.
    pub fn finish(mut self) -> (Writes, Reached, Remembered) {
        if self.state.cluster != self.read.cluster {
            self.view.put(Table::Cluster, Cluster::Header.key(&[]), keys::encode(&self.state.cluster));
        }
        let of_leases_alone =
            self.state.kv.revision == self.read.kv.revision && fault::active(Broken::HeaderNotWritten);
        if self.state.kv != self.read.kv && !of_leases_alone {
            self.view.put(Table::Kv, Kv::Header.key(&[]), keys::encode(&self.state.kv));
        }
        let reached = self.state.reached();
        (self.view.into_writes(), reached, Remembered { state: self.state, recent: self.recent })
    }
}

fn answered(version: u16, outcome: proto::answer::Outcome) -> Applied {
    Applied { version, answer: Answer { outcome: Some(outcome) } }
}

/// Who proposed what is applied, and where it stands.
#[derive(Clone, Copy)]
struct Origin<'a> {
    index: u64,
    command: &'a Command,
}

/// What one action changes of keys and values: one revision, each key once.
#[derive(Default)]
struct ChangeSet {
    /// None before the first change.
    revision: u64,
    keys: BTreeSet<Vec<u8>>,
}

/// One command at work.
struct Step<'a> {
    view: Overlay<'a>,
    state: State,
    recent: &'a Recent,
    /// What this command changes of it.
    changed: BTreeMap<Vec<u8>, Option<Known>>,
    origin: Origin<'a>,
    change: ChangeSet,
    answer_bytes: usize,
}

impl Step<'_> {
    fn run(&mut self, version: u16, actions: &[Action]) -> Result<Done, Fault> {
        let Command { actor, reason, .. } = self.origin.command;
        ensure(actor.len() <= MAX_TEXT_BYTES && reason.len() <= MAX_REASON_BYTES, Refusal::TooLarge, || {
            format!("an actor has {MAX_TEXT_BYTES} bytes at most, a reason {MAX_REASON_BYTES}")
        })?;
        ensure((1..=command::MAX_ACTIONS).contains(&actions.len()), Refusal::TooMany, || {
            format!("a command has 1 to {} actions, not {}", command::MAX_ACTIONS, actions.len())
        })?;
        let mut results = Vec::with_capacity(actions.len());
        for (place, action) in actions.iter().enumerate() {
            let result = self.allowed(version, action).and_then(|kind| self.act(kind));
            let kind = result.map_err(|fault| match fault {
                Fault::Refused(refused) => {
                    Fault::Refused(Box::new(Refused { action: u32::try_from(place).unwrap_or(u32::MAX), ..*refused }))
                }
                stop => stop,
            })?;
            results.push(proto::Result { kind: Some(kind) });
        }
        Ok(Done { results, revision: self.state.kv.revision })
    }

    /// Whether the cluster is there, and takes commands of this version.
    fn allowed<'b>(&self, version: u16, action: &'b Action) -> Result<&'b Kind, Fault> {
        let in_force = self.state.cluster.version;
        let kind = action.kind.as_ref().ok_or_else(|| refused(Refusal::Invalid, "an action that says nothing"))?;
        let forms = matches!(kind, Kind::Init(_));
        ensure(in_force != 0 || forms, Refusal::NotFormed, || "the cluster is not formed yet".to_owned())?;
        ensure(in_force == 0 || !forms, Refusal::AlreadyFormed, || "the cluster is formed already".to_owned())?;
        if !forms && u32::from(version) > in_force {
            let message = format!("the cluster takes commands up to version {in_force}, not {version}");
            return Err(refused_with(Refusal::Version, message, in_force.into()));
        }
        Ok(kind)
    }

    fn act(&mut self, kind: &Kind) -> Result<Outcome, Fault> {
        self.change = ChangeSet::default();
        let outcome = match kind {
            Kind::Init(init) => self.init(init).map(Outcome::Member),
            Kind::AddMember(add) => self.add_member(add).map(Outcome::Member),
            Kind::UpdateMember(update) => self.update_member(update).map(Outcome::Member),
            Kind::StartMember(start) => self.start_member(start).map(Outcome::Member),
            Kind::SetMemberState(set) => self.set_member_state(set).map(Outcome::Member),
            Kind::RemoveMember(remove) => self.remove_member(remove.id).map(Outcome::Member),
            Kind::RaiseVersion(raise) => self.raise_version(raise.to).map(nothing),
            Kind::ForceNew(force) => self.force_new(force).map(Outcome::Member),
            Kind::SetMemberVote(set) => self.set_member_vote(set).map(Outcome::Member),
            Kind::SetSetting(set) => self.set_setting(&set.name, Some(&set.value)).map(Outcome::Setting),
            Kind::ResetSetting(reset) => self.set_setting(&reset.name, None).map(Outcome::Setting),
            Kind::CreateToken(create) => self.create_token(create).map(Outcome::Token),
            Kind::RevokeToken(revoke) => self.revoke_token(revoke.id).map(Outcome::Token),
            Kind::Put(put) => self.put(put).map(Outcome::Put),
            Kind::Delete(delete) => self.delete(delete).map(Outcome::Delete),
            Kind::Txn(txn) => self.txn(txn).map(Outcome::Txn),
            Kind::Compact(compact) => self.compact(compact.revision).map(nothing),
            Kind::GrantLease(grant) => self.grant_lease(grant).map(Outcome::Lease),
            Kind::KeepAlive(keep) => self.keep_alive(keep.id).map(Outcome::Lease),
            Kind::RevokeLease(revoke) => self.revoke_lease(revoke.id).map(Outcome::Delete),
            Kind::Expire(expire) => self.expire(expire).map(Outcome::Expired),
        }?;
        self.sweep()?;
        Ok(outcome)
    }

    fn record<M: Message + Default>(&self, table: Table, key: &[u8]) -> Result<Option<M>, Fault> {
        Ok(stored::record(&self.view, table, key)?)
    }

    fn put_record(&mut self, table: Table, key: Vec<u8>, record: &impl Message) {
        self.view.put(table, key, keys::encode(record));
    }

    /// The number that an index of the cluster's table leads to.
    fn number(&self, key: &[u8]) -> Result<Option<u64>, Fault> {
        let value = self.view.get(Table::Cluster, key)?;
        Ok(value.map(|value| keys::decode_number(Table::Cluster, key, &value)).transpose()?)
    }

    fn put_number(&mut self, key: Vec<u8>, number: u64) {
        self.view.put(Table::Cluster, key, keys::encode_number(number));
    }

    fn setting(&self, name: Name) -> u64 {
        self.state.settings.get(name)
    }
}

fn nothing((): ()) -> Outcome {
    Outcome::Nothing(proto::Nothing {})
}

#[cfg(test)]
#[path = "../apply_test/mod.rs"]
mod tests;
