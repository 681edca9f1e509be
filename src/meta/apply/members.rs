//! Who belongs to the cluster, and which version of commands it speaks.
//!
//! Numbers of members are given here and never used again. A member proves itself by a secret whose hash is kept: so its
//! addresses may change, and joining again under the same secret is answered with the member that it made the first time.
//! A copy of a data directory has the secret, too; it is told by its incarnation, which every start raises.
//!
//! **One active member always votes**: what would take away the last one, or have it drain, is refused. Who votes is said
//! here and carried out by whoever leads the group, sooner or later.

use std::collections::BTreeSet;

use super::{Fault, Step, ensure, refused, refused_with};
use crate::meta::command::VERSION;
use crate::meta::fault::{self, Fault as Broken};
use crate::meta::keys::Cluster;
use crate::meta::limits::{HASH_BYTES, MAX_ADDRESSES, MAX_ATTRIBUTES, MAX_MEMBERS, MAX_NAME_BYTES, MAX_TEXT_BYTES};
use crate::meta::proto::{
    AddMember, Attribute, EventKind, ForceNew, Init, Member, MemberSpec, MemberState, Refusal, SetMemberState,
    SetMemberVote, StartMember, UpdateMember,
};
use crate::meta::stored;
use crate::raftstore::log_store::Table;
use crate::raftstore::state_machine::ApplyError;

impl Step<'_> {
    pub(super) fn init(&mut self, init: &Init) -> Result<Member, Fault> {
        let spec = init.member.as_ref().ok_or_else(|| refused(Refusal::Invalid, "a cluster needs a first member"))?;
        let ids = init.cluster_id != 0 && init.system_id != 0;
        ensure(ids, Refusal::Invalid, || "a cluster needs a cluster id and a system id".to_owned())?;
        let header = &mut self.state.cluster;
        (header.cluster_id, header.system_id) = (init.cluster_id, init.system_id);
        // The version that every build of this cluster knows from the start.
        header.version = 1;
        header.next_member = 1;
        self.event(EventKind::ClusterFormed, format!("{:016x}", init.cluster_id), "")?;
        self.new_member(spec, MemberState::Active, "the first")
    }

    pub(super) fn add_member(&mut self, add: &AddMember) -> Result<Member, Fault> {
        let spec = add.member.as_ref().ok_or_else(|| refused(Refusal::Invalid, "a member is not said"))?;
        // A node that asks again, because it never heard the answer, has used its token.
        if let Some(id) = self.number(&Cluster::MemberSecret.key(&spec.secret_hash))? {
            return self.member(id);
        }
        let token = self.open_token(&add.token_hash)?;
        ensure(self.state.cluster.members < MAX_MEMBERS, Refusal::TooMany, || {
            format!("a cluster has {MAX_MEMBERS} members at most")
        })?;
        let member = self.new_member(spec, MemberState::Joining, &format!("with token {}", token.id))?;
        self.use_token(token, member.id)?;
        Ok(member)
    }

    fn new_member(&mut self, spec: &MemberSpec, state: MemberState, how: &str) -> Result<Member, Fault> {
        ensure(spec.secret_hash.len() == HASH_BYTES, Refusal::Invalid, || format!("a hash has {HASH_BYTES} bytes"))?;
        self.knows_version(spec.version)?;
        let mut id = self.state.cluster.next_member;
        if fault::active(Broken::MemberNumberReused) {
            id = self.state.cluster.members + 1;
        }
        self.state.cluster.next_member = id + 1;
        self.state.cluster.members += 1;
        let name = if spec.name.is_empty() { format!("node{id}") } else { spec.name.clone() };
        let member = Member {
            id,
            name,
            addresses: spec.addresses.clone(),
            attributes: sorted(&spec.attributes),
            locality: spec.locality.clone(),
            state: state.into(),
            incarnation: spec.incarnation,
            version: spec.version,
            secret_hash: spec.secret_hash.clone(),
            added: self.origin.index,
            changed: self.origin.index,
            non_voting: false,
        };
        self.put_number(Cluster::MemberSecret.key(&spec.secret_hash), id);
        self.put_member(None, &member)?;
        self.event(
            EventKind::MemberAdded,
            id.to_string(),
            format!("{} at {}, {how}", member.name, addresses(&member)),
        )?;
        Ok(member)
    }

    pub(super) fn update_member(&mut self, update: &UpdateMember) -> Result<Member, Fault> {
        let before = self.member(update.id)?;
        let mut member = before.clone();
        if let Some(name) = &update.name {
            member.name.clone_from(name);
        }
        if let Some(addresses) = &update.addresses {
            member.addresses.clone_from(&addresses.values);
        }
        if let Some(attributes) = &update.attributes {
            member.attributes = sorted(&attributes.values);
        }
        if let Some(locality) = &update.locality {
            member.locality.clone_from(&locality.values);
        }
        member.changed = self.origin.index;
        self.put_member(Some(&before), &member)?;
        let detail = format!("{} at {}", member.name, addresses(&member));
        self.event(EventKind::MemberUpdated, member.id.to_string(), detail)?;
        Ok(member)
    }

    pub(super) fn start_member(&mut self, start: &StartMember) -> Result<Member, Fault> {
        let before = self.member(start.id)?;
        let id = start.id;
        ensure(before.secret_hash == start.secret_hash, Refusal::WrongSecret, || {
            format!("this node is not member {id}: its secret is another")
        })?;
        ensure(before.state() != MemberState::Decommissioned, Refusal::MemberState, || {
            format!("member {id} is decommissioned")
        })?;
        if start.incarnation <= before.incarnation {
            let message = format!(
                "member {id} has started with incarnation {} already, and this is {}: the data directory was copied, or \
                 put back to an earlier state",
                before.incarnation, start.incarnation
            );
            return Err(refused_with(Refusal::StaleIncarnation, message, before.incarnation));
        }
        self.knows_version(start.version)?;
        let mut member = before.clone();
        (member.incarnation, member.version) = (start.incarnation, start.version);
        // Draining prepares a stop: who starts again is of use again.
        let was_draining = before.state() == MemberState::Draining;
        if was_draining {
            member.state = MemberState::Active.into();
        }
        if !start.addresses.is_empty() {
            member.addresses.clone_from(&start.addresses);
        }
        member.changed = self.origin.index;
        self.put_member(Some(&before), &member)?;
        let detail = format!("incarnation {} at {}", member.incarnation, addresses(&member));
        self.event(EventKind::MemberStarted, id.to_string(), detail)?;
        if was_draining {
            let detail = format!("{} → {}", word(MemberState::Draining), word(MemberState::Active));
            self.event(EventKind::MemberState, id.to_string(), detail)?;
        }
        Ok(member)
    }

    pub(super) fn set_member_state(&mut self, set: &SetMemberState) -> Result<Member, Fault> {
        let before = self.member(set.id)?;
        let (id, from, to) = (set.id, before.state(), set.to());
        if set.from() != MemberState::Unspecified && set.from() != from {
            let message = format!("member {id} is {}, not {}", word(from), word(set.from()));
            return Err(refused(Refusal::MemberState, message));
        }
        use MemberState::{Active, Decommissioned, Draining, Joining};
        let allowed = matches!(
            (from, to),
            (Joining, Active | Decommissioned) | (Active, Draining) | (Draining, Active | Decommissioned)
        );
        ensure(allowed, Refusal::MemberState, || format!("member {id} is {} and cannot be {}", word(from), word(to)))?;
        if from == Active {
            self.another_active(&before)?;
        }
        let mut member = before.clone();
        member.state = to.into();
        member.changed = self.origin.index;
        self.put_member(Some(&before), &member)?;
        self.event(EventKind::MemberState, id.to_string(), format!("{} → {}", word(from), word(to)))?;
        Ok(member)
    }

    /// What is so already is left as it is.
    pub(super) fn set_member_vote(&mut self, set: &SetMemberVote) -> Result<Member, Fault> {
        let before = self.member(set.id)?;
        let (id, state) = (set.id, before.state());
        let is = || format!("member {id} is {}", word(state));
        ensure(state != MemberState::Decommissioned, Refusal::MemberState, is)?;
        if before.non_voting != set.votes {
            return Ok(before);
        }
        ensure(state != MemberState::Draining, Refusal::MemberState, || {
            format!("{}: whether it votes can be changed when that has ended", is())
        })?;
        if state == MemberState::Active && !set.votes {
            self.another_active(&before)?;
        }
        let mut member = before.clone();
        member.non_voting = !set.votes;
        member.changed = self.origin.index;
        self.put_member(Some(&before), &member)?;
        let detail = if set.votes { "non-voting → voting" } else { "voting → non-voting" };
        self.event(EventKind::MemberVote, id.to_string(), detail)?;
        Ok(member)
    }

    pub(super) fn remove_member(&mut self, id: u64) -> Result<Member, Fault> {
        let member = self.member(id)?;
        let state = member.state();
        ensure(matches!(state, MemberState::Decommissioned | MemberState::Joining), Refusal::MemberState, || {
            format!("member {id} is {}: it must be decommissioned before it is removed", word(state))
        })?;
        self.forget_member(&member)?;
        Ok(member)
    }

    /// The numbers of the others, who are gone for good, are not used again either.
    pub(super) fn force_new(&mut self, force: &ForceNew) -> Result<Member, Fault> {
        let before = self.member(force.survivor)?;
        let (from, to) = (self.state.cluster.cluster_id, force.cluster_id);
        ensure(to != 0 && to != from, Refusal::Invalid, || "a forced cluster needs a new cluster id".to_owned())?;
        let others = stored::members(&self.view)?.into_iter().filter(|member| member.id != before.id);
        let others: Vec<Member> = others.collect();
        self.state.cluster.cluster_id = to;
        let detail = format!("{from:016x} → {to:016x}, by member {} alone; {} others lost", before.id, others.len());
        self.event(EventKind::ClusterForced, format!("{to:016x}"), detail)?;
        for other in &others {
            self.forget_member(other)?;
        }
        if fault::active(Broken::ForcedReuses) {
            self.state.cluster.next_member = before.id + 1;
        }
        let mut member = before.clone();
        member.state = MemberState::Active.into();
        // Nobody else is there to decide.
        member.non_voting &= fault::active(Broken::ForcedNonVoting);
        member.changed = self.origin.index;
        self.put_member(Some(&before), &member)?;
        Ok(member)
    }

    fn forget_member(&mut self, member: &Member) -> Result<(), Fault> {
        let id = member.id;
        self.view.delete(Table::Cluster, Cluster::Member.numbered(id));
        self.view.delete(Table::Cluster, Cluster::MemberName.key(member.name.as_bytes()));
        self.view.delete(Table::Cluster, Cluster::MemberSecret.key(&member.secret_hash));
        for address in &member.addresses {
            self.view.delete(Table::Cluster, Cluster::MemberAddress.key(address.as_bytes()));
        }
        self.state.cluster.members = self.state.cluster.members.saturating_sub(1);
        self.event(EventKind::MemberRemoved, id.to_string(), member.name.clone())
    }

    pub(super) fn raise_version(&mut self, to: u32) -> Result<(), Fault> {
        let from = self.state.cluster.version;
        if to <= from {
            let message = format!("the cluster is of version {from} already");
            return Err(refused_with(Refusal::Version, message, from.into()));
        }
        for member in stored::members(&self.view)? {
            ensure(member.state() == MemberState::Decommissioned || member.version >= to, Refusal::Version, || {
                format!("member {} knows versions up to {}, not {to}", member.id, member.version)
            })?;
        }
        // Every member said that it knows this version. This one must have been put back to an older build.
        if to > u32::from(VERSION) {
            let what = format!("the cluster was raised to version {to}; this build knows {VERSION}");
            return Err(Fault::Stop(ApplyError::Machine(what)));
        }
        self.state.cluster.version = to;
        self.event(EventKind::VersionRaised, to.to_string(), format!("{from} → {to}"))
    }

    fn knows_version(&self, version: u32) -> Result<(), Fault> {
        let in_force = self.state.cluster.version;
        if version >= in_force {
            return Ok(());
        }
        let message = format!("the cluster is of version {in_force}; the node knows versions up to {version}");
        Err(refused_with(Refusal::Version, message, in_force.into()))
    }

    fn member(&self, id: u64) -> Result<Member, Fault> {
        let member = self.record(Table::Cluster, &Cluster::Member.numbered(id))?;
        member.ok_or_else(|| {
            let was_there = (1..self.state.cluster.next_member).contains(&id);
            let message =
                if was_there { format!("member {id} was removed") } else { format!("there is no member {id}") };
            refused(Refusal::NoSuchMember, message)
        })
    }

    /// Refuses unless an active member is left without this one, and one that votes if this one does.
    fn another_active(&self, member: &Member) -> Result<(), Fault> {
        let (id, votes) = (member.id, !member.non_voting && !fault::active(Broken::LastVoterGoes));
        let is_other = |other: &Member| other.id != id && other.state() == MemberState::Active;
        let others: Vec<_> = stored::members(&self.view)?.into_iter().filter(is_other).collect();
        ensure(!others.is_empty(), Refusal::LastMember, || format!("member {id} is the last active one"))?;
        ensure(!votes || others.iter().any(|other| !other.non_voting), Refusal::LastMember, || {
            format!("member {id} is the last active one that votes: another has to get a vote first")
        })
    }

    /// Writes a member and what leads to it; what would lead to two members is refused.
    fn put_member(&mut self, before: Option<&Member>, member: &Member) -> Result<(), Fault> {
        check(member)?;
        let id = member.id;
        if let Some(before) = before {
            self.view.delete(Table::Cluster, Cluster::MemberName.key(before.name.as_bytes()));
            for address in &before.addresses {
                self.view.delete(Table::Cluster, Cluster::MemberAddress.key(address.as_bytes()));
            }
        }
        let by_name = Cluster::MemberName.key(member.name.as_bytes());
        if let Some(other) = self.number(&by_name)? {
            return Err(refused(Refusal::NameTaken, format!("member {other} has the name {:?}", member.name)));
        }
        self.put_number(by_name, id);
        for address in &member.addresses {
            let by_address = Cluster::MemberAddress.key(address.as_bytes());
            if let Some(other) = self.number(&by_address)? {
                return Err(refused(Refusal::AddressTaken, format!("member {other} has the address {address}")));
            }
            self.put_number(by_address, id);
        }
        self.put_record(Table::Cluster, Cluster::Member.numbered(id), member);
        Ok(())
    }
}

/// What every member has to be.
fn check(member: &Member) -> Result<(), Fault> {
    let Member { name, addresses, attributes, locality, .. } = member;
    let invalid = |holds, message: &str| ensure(holds, Refusal::Invalid, || message.to_owned());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    invalid(
        (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain),
        "a name has 1 to 63 letters, digits, dots, dashes or underscores",
    )?;
    invalid((1..=MAX_ADDRESSES).contains(&addresses.len()), "a member has 1 to 8 addresses")?;
    let is_address = |address: &String| {
        let port = address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        port && address.len() <= MAX_TEXT_BYTES && address.bytes().all(|byte| byte.is_ascii_graphic())
    };
    invalid(addresses.iter().all(is_address), "an address is HOST:PORT")?;
    for list in [attributes, locality] {
        invalid(list.len() <= MAX_ATTRIBUTES, "a member has 32 attributes and 32 tiers of locality at most")?;
        let is_short = |attribute: &Attribute| {
            !attribute.key.is_empty() && attribute.key.len() + attribute.value.len() <= MAX_TEXT_BYTES
        };
        invalid(list.iter().all(is_short), "an attribute is KEY=VALUE, of 256 bytes at most")?;
        let keys: BTreeSet<_> = list.iter().map(|attribute| &attribute.key).collect();
        invalid(keys.len() == list.len(), "an attribute is said twice")?;
    }
    Ok(())
}

fn sorted(attributes: &[Attribute]) -> Vec<Attribute> {
    let mut attributes = attributes.to_vec();
    attributes.sort_by(|one, two| one.key.cmp(&two.key));
    attributes
}

fn addresses(member: &Member) -> String {
    member.addresses.join(", ")
}

/// A state as it is shown.
fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Unspecified => "unknown",
        MemberState::Joining => "joining",
        MemberState::Active => "active",
        MemberState::Draining => "draining",
        MemberState::Decommissioned => "decommissioned",
    }
}
