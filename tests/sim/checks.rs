//! States that are damaged without anybody noticing, checks that find them, and what becomes of the replicas that differ.
//!
//! The simulator knows what each state has to be: it applies every committed entry for itself, to a machine that nothing
//! happens to. What replicas hash, say to each other and conclude is the real thing.
//!
//! **What is checked.** A replica is marked if its state as of the entry differed from what a majority of the voters had, and
//! in no other case; one whose state was right is never marked, unless a majority was wrong. From then on, over crashes,
//! it answers no reads, gives no snapshots, does not come to lead, and if it leads gives that away, until a snapshot has
//! replaced its state. Nobody is held to what is read from a wrong state before that. In the end all states are right.

use std::collections::BTreeMap;

use super::disk::Op;
use super::replica::{Machine, Replica};
use super::rng::Digest as StateDigest;
use super::seen::Happening;
use super::tables::{Tables, register};
use super::watch::Mark;
use super::world::{Checked, Event, Violation, World, violated};
use crate::ident::{LogIndex, ReplicaId};
use crate::raftstore::consistency::{CheckMessage, Digest, GivenUp, StateHasher, Verdict};
use crate::raftstore::context::Context;
use crate::raftstore::group::Committed;
use crate::raftstore::log_store::TableWrite;
use crate::raftstore::snapshot::{Pair, Place, SnapshotId, SnapshotMeta};

/// A register that no client knows: what is wrong in it is never written over.
const UNKNOWN_REGISTER: u8 = 200;
/// Out of a thousand states that are to be hashed, how many find no room.
const NOT_HASHED: u64 = 50;
/// Out of a thousand times that something is damaged, how often whatever else is.
const DAMAGED_ANYWAY: u64 = 60;
/// A leader that must not lead may need so many ticks more than an election time-out to get rid of it.
const SLACK_TICKS: u64 = 3;

/// What the states of a group have to be.
#[derive(Default)]
pub(super) struct Truth {
    registers: BTreeMap<u8, u64>,
    /// After each entry, from index 1 on.
    digests: Vec<u64>,
    /// What a replica had as of an entry that asked, and whether that was right: more than once, if it was restarted.
    hashed: BTreeMap<(LogIndex, ReplicaId, Digest), bool>,
    /// What the last check showed a leader.
    pub(super) verdict: Option<Verdict>,
}

impl Truth {
    /// The digest after an entry, which sets a register or none.
    fn after(&mut self, index: u64, written: Option<(u8, u64)>) -> u64 {
        if index == self.digests.len() as u64 + 1 {
            self.registers.extend(written);
            self.digests.push(digest(&self.registers));
        }
        self.at(index)
    }

    fn at(&self, index: u64) -> u64 {
        match index {
            0 => digest(&BTreeMap::new()),
            _ => self.digests.get(index as usize - 1).copied().unwrap_or_default(),
        }
    }
}

pub(super) fn digest(registers: &BTreeMap<u8, u64>) -> u64 {
    let fold = |digest: StateDigest, (key, value): (&u8, &u64)| digest.number(u64::from(*key)).number(*value);
    registers.iter().fold(StateDigest::new(), fold).0
}

/// How far a replica is to be trusted.
#[derive(Default)]
pub(super) struct Trust {
    /// Its state was damaged, or came from one that was.
    pub(super) may_be_wrong: bool,
    /// The entry from which on everyone knows that its state is wrong.
    pub(super) marked: Option<u64>,
    /// Ticks since then.
    marked_ticks: u64,
    /// Ticks that it has led although it must not.
    led_ticks: u64,
}

impl World {
    pub(super) fn checks(&self) -> bool {
        self.plan.check_ticks > 0
    }

    /// Whether a replica's state is what it has to be.
    pub(super) fn is_right(&self, place: usize) -> bool {
        let it = &self.replicas[place];
        self.cells[it.cell].truth.at(it.machine.applied) == it.machine.digest()
    }

    /// A replica has applied an entry, or taken over a state as of it.
    pub(super) fn check_state(&mut self, place: usize, index: u64, mark: Mark, written: Option<(u8, u64)>) -> Checked {
        let checks = self.checks();
        let it = &mut self.replicas[place];
        let (own, cell) = (it.machine.digest(), &mut self.cells[it.cell]);
        let right = if checks { cell.truth.after(index, written) } else { own };
        cell.watch.state(it.id, index, mark, right)?;
        match own == right || it.trust.may_be_wrong {
            true => Ok(()),
            false => violated("state-machine safety", format!("{} has another state after entry {index}", it.id)),
        }
    }

    /// Bits flip in a state.
    pub(super) fn damage(&mut self, host: usize) {
        let group = self.draw_group();
        let place = self.place_on(host, group);
        if !self.is_made(place) || self.replicas[place].group.is_none() {
            return;
        }
        let members = self.members(group);
        let is_wrong = |place: &&usize| !self.is_right(**place) || self.replicas[**place].trust.marked.is_some();
        let wrong = members.iter().filter(is_wrong).count();
        let voters = members.first().map_or(0, |member| self.replicas[*member].membership.voters.len());
        if wrong >= voters.saturating_sub(1) / 2 && !self.rng.chance(DAMAGED_ANYWAY) {
            return;
        }
        let keys: Vec<u8> = self.replicas[place].machine.registers.keys().copied().collect();
        let key = if keys.is_empty() || self.rng.chance(500) { UNKNOWN_REGISTER } else { self.rng.pick(&keys) };
        let bit = 1 << self.rng.range(40, 62);
        let it = &mut self.replicas[place];
        let value = it.machine.registers.get(&key).copied().unwrap_or_default() ^ bit;
        it.machine.registers.insert(key, value);
        it.flushed.registers.insert(key, value);
        it.trust.may_be_wrong = true;
        if !self.plan.own_machine {
            self.hosts[host].disk.damage(place, &[register(key, value)]);
        }
        self.seen.note(Happening::Damaged);
        self.note(|_| format!("{}: register {key} is {value:x} from now on", place + 1));
    }

    /// Some leader is to compare the states.
    pub(super) fn begin_check(&mut self, group: usize) -> Checked {
        let Some(leader) = self.leader_of(group) else { return Ok(()) };
        if self.hosts[self.replicas[leader].host].paused_until > self.now {
            return Ok(());
        }
        self.rouse(leader, Happening::WokenByRequest);
        let begun = self.replicas[leader].group.as_mut().map(|group| group.check_consistency());
        self.note(|_| format!("{}: is to check: {begun:?}", leader + 1));
        self.drive(leader)
    }

    /// The state is as of an entry that asks for its hash.
    pub(super) fn hash(&mut self, place: usize, at: u64) {
        let no_room = self.rng.chance(NOT_HASHED);
        let is_right = self.is_right(place);
        let it = &self.replicas[place];
        let (store, own) = (self.store(place), self.plan.own_machine);
        let is_there = store.applied == at && it.machine.applied == at;
        let digest = (is_there && !no_room).then(|| {
            let membership = store.membership.clone();
            let meta = SnapshotMeta { id: SnapshotId::default(), position: store.position(at), membership };
            let mut hasher = StateHasher::new(&meta);
            hasher.add(&pairs(if own { Tables::of(&it.machine.registers) } else { store.tables.clone() }));
            hasher.finish()
        });
        let (life, cell, id) = (it.life, it.cell, ReplicaId::new(it.id));
        if let Some(digest) = digest {
            self.seen.note(Happening::Hashed);
            self.cells[cell].truth.hashed.insert((LogIndex::new(at), id, digest), is_right);
        }
        let delay = self.delay(self.replicas[place].host, 4 * self.plan.read_delay);
        self.after(delay, Event::Hashed { place, life, at, digest });
    }

    pub(super) fn hashed(&mut self, place: usize, at: u64, digest: Option<Digest>) -> Checked {
        let Some(group) = &mut self.replicas[place].group else { return Ok(()) };
        group.hashed(LogIndex::new(at), digest);
        self.note(|_| format!("{}: state as of {at} has {digest:?}", place + 1));
        self.drive(place)
    }

    /// What replicas say to each other about a check, and what became of one.
    pub(super) fn carry_out_checks(
        &mut self,
        place: usize,
        say: Vec<(ReplicaId, CheckMessage)>,
        checked: Option<Result<Verdict, GivenUp>>,
    ) -> Checked {
        let Replica { host, cell, id, .. } = self.replicas[place];
        for (to, message) in say {
            if CheckMessage::decode(&message.encode()) != Some(message) {
                return violated("codec", format!("{message:?} does not come back"));
            }
            let other = self.plan.host_of(to.get());
            if self.blocked[host][other] || (!self.healed && self.rng.chance(self.plan.dropped)) {
                continue;
            }
            for _ in 0..1 + u64::from(!self.healed && self.rng.chance(self.plan.duplicated)) {
                let delay = self.message_delay();
                let from = ReplicaId::new(id);
                self.after(delay, Event::CheckSaid { host: other, group: cell, from, to, message });
            }
        }
        if let Some(checked) = checked {
            self.note(|_| format!("{}: {checked:?}", place + 1));
            self.note_checked(cell, checked);
        }
        Ok(())
    }

    fn note_checked(&mut self, cell: usize, checked: Result<Verdict, GivenUp>) {
        let Ok(verdict) = checked else { return self.seen.note(Happening::CheckGivenUp) };
        self.seen.note(match &verdict {
            verdict if verdict.right.is_none() => Happening::Undecided,
            verdict if verdict.is_good() => Happening::Agreed,
            _ => Happening::Differed,
        });
        self.cells[cell].truth.verdict = Some(verdict);
    }

    pub(super) fn check_said(
        &mut self,
        host: usize,
        group: usize,
        (from, to): (ReplicaId, ReplicaId),
        message: CheckMessage,
    ) -> Checked {
        let Some(place) = self.made_on(host, group).filter(|place| self.replicas[*place].id == to.get()) else {
            return Ok(());
        };
        self.rouse(place, Happening::WokenByMessage);
        self.note(|_| format!("{from} says to {to}: {message:?}"));
        let Some(raft) = &mut self.replicas[place].group else { return Ok(()) };
        raft.check_said(from, message);
        self.drive(place)
    }

    /// An entry with the digests of a check is committed: who was wrong is marked, and nobody else.
    pub(super) fn judged(&mut self, place: usize, committed: &Committed) -> Checked {
        let Some(Context::Verify { at, digests }) = Context::decode(committed.entry.context()) else { return Ok(()) };
        let it = &self.replicas[place];
        let membership = &it.config_now;
        let (id, truth) = (ReplicaId::new(it.id), &self.cells[it.cell].truth);
        let said = |replica: ReplicaId| digests.iter().find(|(who, _)| *who == replica).map(|(_, digest)| *digest);
        let was_right = |replica: ReplicaId| truth.hashed.get(&(at.index, replica, said(replica)?)).copied();
        let untrue = digests.iter().find(|(replica, _)| was_right(*replica).is_none());
        if let Some(untrue) = untrue.filter(|_| self.rules) {
            return violated("a check says what was hashed", format!("{untrue:?} as of {at:?}"));
        }
        let most = |voters: &[ReplicaId], is_such: &dyn Fn(ReplicaId) -> bool| {
            voters.iter().filter(|voter| is_such(**voter)).count() * 2 > voters.len()
        };
        let majority = |is_such: &dyn Fn(ReplicaId) -> bool| {
            most(&membership.voters, is_such) && (!membership.is_joint() || most(&membership.voters_outgoing, is_such))
        };
        let right =
            digests.iter().map(|(_, digest)| *digest).find(|digest| majority(&|who| said(who) == Some(*digest)));
        let own = said(id).filter(|_| membership.nodes.contains_key(&id));
        let differs = right.is_some_and(|right| own.is_some_and(|own| own != right));
        let is_marked = committed.unhealthy.is_some();
        let majority_is_right = majority(&|who| was_right(who) == Some(true));
        if is_marked && was_right(id) == Some(true) && majority_is_right {
            return violated("nobody is marked who is right", format!("{id} as of {at:?}: {digests:?}"));
        }
        // A snapshot since then has replaced what was hashed.
        let must = differs && !it.is_taking_over && it.restored_to < at.index.get();
        if self.rules && ((is_marked && !differs) || (must && !is_marked)) {
            return violated("the majority is right", format!("{id}, marked: {is_marked}: {digests:?} as of {at:?}"));
        }
        if is_marked {
            self.seen.note(Happening::Marked);
            if self.replicas[place].leads() {
                self.seen.note(Happening::LeaderMarked);
            }
            let trust = &mut self.replicas[place].trust;
            (trust.marked, trust.marked_ticks) = (Some(committed.entry.index().get()), 0);
        }
        Ok(())
    }

    /// What says that a replica is marked is written with what it has applied.
    pub(super) fn write_mark(&mut self, place: usize, batch: &[Committed]) {
        if let Some(unhealthy) = batch.iter().find_map(|committed| committed.unhealthy) {
            self.write(place, Op::Mark(unhealthy));
        }
    }

    /// A replica was opened: it is marked, if that was durable and no snapshot came since.
    pub(super) fn start_checked(&mut self, place: usize) -> Checked {
        let store = self.store(place);
        let (applied, restored, is_marked) = (store.applied, store.restored, store.unhealthy.is_some());
        let it = &mut self.replicas[place];
        it.trust.marked = it.trust.marked.filter(|marked| applied >= *marked && restored < *marked);
        if is_marked {
            self.seen.note(Happening::StartedMarked);
        }
        match it.trust.marked {
            Some(marked) if self.rules && it.group.as_ref().is_some_and(|group| group.unhealthy().is_none()) => {
                violated("a mark is durable", format!("{}: that of entry {marked} is gone", it.id))
            }
            _ => Ok(()),
        }
    }

    /// A snapshot has replaced the state.
    pub(super) fn replaced(&mut self, place: usize) {
        let is_right = self.is_right(place);
        let trust = &mut self.replicas[place].trust;
        trust.may_be_wrong &= !is_right;
        if trust.marked.take().is_some() {
            self.seen.note(Happening::Repaired);
        }
    }

    /// A replica leads from now on.
    pub(super) fn check_may_lead(&self, place: usize) -> Checked {
        let it = &self.replicas[place];
        let told = &self.hosts[it.host].disk_watch;
        if !self.rules {
            return Ok(());
        }
        // What was on its way when it heard of it may still come.
        if it.trust.marked.is_some() && it.trust.marked_ticks > 1 {
            return violated("who is marked does not come to lead", format!("{}: {:?}", it.id, it.trust.marked));
        }
        match told.is_stalled && told.ticks > 1 {
            true => violated("whose disk hangs does not come to lead", it.id.to_string()),
            false => Ok(()),
        }
    }

    /// Time has passed for a replica.
    pub(super) fn tick_checked(&mut self, place: usize) -> Checked {
        let (bound, rules) = (self.plan.election_ticks + SLACK_TICKS, self.rules);
        let it = &mut self.replicas[place];
        let is_stalled = self.hosts[it.host].disk_watch.is_stalled;
        let (is_marked, leads) = (it.trust.marked.is_some(), it.leads());
        let trust = &mut it.trust;
        trust.marked_ticks += u64::from(is_marked);
        let is_alone = it.membership.voters == [ReplicaId::new(it.id)] && !it.membership.is_joint();
        let must_not = (is_marked || is_stalled) && leads && !is_alone;
        trust.led_ticks = if must_not { trust.led_ticks + 1 } else { 0 };
        match rules && trust.led_ticks > bound {
            true => violated("who must not lead gives it away", format!("{}: marked {is_marked}", it.id)),
            false => Ok(()),
        }
    }

    /// A read is to be answered from a replica's state. Says whether it counts: nobody is held to what is wrong and not known.
    pub(super) fn check_read(&mut self, place: usize) -> Result<bool, Violation> {
        let it = &self.replicas[place];
        if self.rules && it.trust.marked.is_some() {
            violated("who is marked answers no reads", it.id.to_string())?;
        }
        Ok(!self.checks() || it.trust.marked.is_some() || self.is_right(place))
    }

    /// A snapshot leaves a replica.
    pub(super) fn check_gives(&self, place: usize) -> Checked {
        let it = &self.replicas[place];
        match self.rules && it.trust.marked.is_some() && it.trust.marked_ticks > 0 {
            true => violated("who is marked gives no snapshot", it.id.to_string()),
            false => Ok(()),
        }
    }

    /// Whether no majority of the voters is right, so that no check can say who is.
    pub(super) fn is_hopeless(&self, group: usize) -> bool {
        let Some(leader) = self.leader_of(group).filter(|_| self.checks()) else { return false };
        let voters = &self.replicas[leader].membership.voters;
        let right = voters.iter().filter(|voter| self.is_right(self.place(group, **voter))).count();
        right * 2 <= voters.len()
    }

    /// In the end: says whether a check has shown that everybody is right, or cannot show who is.
    pub(super) fn is_repaired(&mut self, group: usize) -> Result<bool, Violation> {
        if !self.checks() {
            return Ok(true);
        }
        let members = self.members(group);
        let is_marked = |place: &usize| self.replicas[*place].group.as_ref().is_none_or(|it| it.unhealthy().is_some());
        let is_good = self.cells[group].truth.verdict.as_ref().is_some_and(Verdict::is_good)
            && !members.iter().any(is_marked)
            && members.iter().all(|place| self.is_right(*place));
        if !members.is_empty() && (is_good || (self.is_hopeless(group) && self.cells[group].truth.verdict.is_some())) {
            return Ok(true);
        }
        self.begin_check(group)?;
        Ok(false)
    }
}

/// All pairs, in the order of a snapshot.
fn pairs(tables: Tables) -> Vec<Pair> {
    let pair = |write| match write {
        TableWrite::Put(table, key, value) => Some(Pair { place: Place { table, key }, value }),
        TableWrite::Delete(..) => None,
    };
    tables.contents().into_iter().filter_map(pair).collect()
}

impl Machine {
    pub(super) fn digest(&self) -> u64 {
        digest(&self.registers)
    }
}
