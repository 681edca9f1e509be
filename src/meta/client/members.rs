//! Members, join tokens, the version of the cluster.

use super::{Meta, Outcome, found, the};
use crate::ident::{ClusterId, Incarnation, NodeId, SystemId};
use crate::meta::proto::action::Kind;
use crate::meta::proto::{
    AddMember, ClusterHeader, CreateToken, ForceNew, Init, Member, MemberSpec, MemberState, RaiseVersion, Refusal,
    RemoveMember, RevokeToken, SetMemberState, SetMemberVote, StartMember, Token, UpdateMember,
};
use crate::meta::query::proto::query::Kind as Query;
use crate::meta::query::proto::{Everything, Numbered};
use crate::meta::service::MetaError;
use crate::meta::token::JoinToken;

/// The members of the cluster.
pub struct Members<'a>(pub(super) &'a Meta);

impl Members<'_> {
    /// Forms the cluster, with its first member.
    ///
    /// # Errors
    /// See [`MetaError`]; refused if there is one already.
    pub async fn form(&self, cluster: ClusterId, system: SystemId, first: MemberSpec) -> Result<Member, MetaError> {
        let init = Init { cluster_id: cluster.get(), system_id: system.get(), member: Some(first) };
        the!(Member, self.0.one(Kind::Init(init)).await?)
    }

    /// Adds a member that has a token. One that was added before under the same secret is answered, and the token kept.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn join(&self, member: MemberSpec, token: &JoinToken) -> Result<Member, MetaError> {
        let add = AddMember { member: Some(member), token_hash: token.hash() };
        the!(Member, self.0.one(Kind::AddMember(add)).await?)
    }

    /// Says that a member has started: with a higher incarnation than ever before. No addresses: those it has.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn started(
        &self,
        node: NodeId,
        secret_hash: Vec<u8>,
        incarnation: Incarnation,
        version: u16,
        addresses: Vec<String>,
    ) -> Result<Member, MetaError> {
        let (id, incarnation, version) = (node.get(), incarnation.get(), version.into());
        let start = StartMember { id, secret_hash, incarnation, version, addresses };
        the!(Member, self.0.one(Kind::StartMember(start)).await?)
    }

    /// Changes what is given.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn update(&self, update: UpdateMember) -> Result<Member, MetaError> {
        the!(Member, self.0.one(Kind::UpdateMember(update)).await?)
    }

    /// Changes a member's state, if it is `from`; [`MemberState::Unspecified`] is any.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn set_state(&self, node: NodeId, from: MemberState, to: MemberState) -> Result<Member, MetaError> {
        let set = SetMemberState { id: node.get(), from: from.into(), to: to.into() };
        the!(Member, self.0.one(Kind::SetMemberState(set)).await?)
    }

    /// Has a member drain: it leads nothing and is to be sent no new clients, until it starts again or is [told
    /// otherwise](Members::undrain). One that does already goes on.
    ///
    /// # Errors
    /// See [`MetaError`]; refused if no other member is active.
    pub async fn drain(&self, node: NodeId) -> Result<Member, MetaError> {
        self.become_state(node, MemberState::Active, MemberState::Draining).await
    }

    /// Ends draining. A member that is active stays so.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn undrain(&self, node: NodeId) -> Result<Member, MetaError> {
        self.become_state(node, MemberState::Draining, MemberState::Active).await
    }

    async fn become_state(&self, node: NodeId, from: MemberState, to: MemberState) -> Result<Member, MetaError> {
        match self.set_state(node, from, to).await {
            Err(error) if error.refusal() == Some(Refusal::MemberState) => match self.get(node).await? {
                Some(member) if member.state() == to => Ok(member),
                _ => Err(error),
            },
            other => other,
        }
    }

    /// Says whether a member's replica is to vote in the metadata group, or to follow as a learner. The leader carries it out
    /// once it can; what is so already stays as it is.
    ///
    /// # Errors
    /// See [`MetaError`]; refused if no other active member votes.
    pub async fn set_vote(&self, node: NodeId, votes: bool) -> Result<Member, MetaError> {
        the!(Member, self.0.one(Kind::SetMemberVote(SetMemberVote { id: node.get(), votes })).await?)
    }

    /// Removes a member that is decommissioned, or has not finished joining. Its number is not used again.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn remove(&self, node: NodeId) -> Result<Member, MetaError> {
        the!(Member, self.0.one(Kind::RemoveMember(RemoveMember { id: node.get() })).await?)
    }

    /// Raises the version of commands that may be proposed, once all members know it. There is no way back.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn raise_version(&self, to: u16) -> Result<(), MetaError> {
        the!(Nothing, self.0.one(Kind::RaiseVersion(RaiseVersion { to: to.into() })).await?).map(drop)
    }

    /// Makes another cluster of the one member that is left, when the majority was lost and an operator has
    /// forced it: all other members are gone.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn force_new(&self, cluster: ClusterId, survivor: NodeId) -> Result<Member, MetaError> {
        let force = ForceNew { cluster_id: cluster.get(), survivor: survivor.get() };
        the!(Member, self.0.one(Kind::ForceNew(force)).await?)
    }

    /// A member.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn get(&self, node: NodeId) -> Result<Option<Member>, MetaError> {
        Ok(found!(Member, self.0.ask(Query::Member(Numbered { number: node.get() })).await?)?.member)
    }

    /// All members, by number.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn list(&self) -> Result<Vec<Member>, MetaError> {
        Ok(found!(Members, self.0.ask(Query::Members(Everything {})).await?)?.members)
    }

    /// The cluster: its ids, its version, how many members it has. A version of 0: none is formed.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn cluster(&self) -> Result<ClusterHeader, MetaError> {
        found!(Cluster, self.0.ask(Query::Cluster(Everything {})).await?)
    }
}

/// Join tokens.
pub struct Tokens<'a>(pub(super) &'a Meta);

impl Tokens<'_> {
    /// Makes a token, good for this long; 0: as long as the setting `token.default_ttl` says. The token itself is known
    /// to the caller alone.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn create(&self, ttl_ms: u64) -> Result<(JoinToken, Token), MetaError> {
        let token = JoinToken::draw().map_err(|error| MetaError::Unavailable {
            leader: None,
            why: format!("the operating system has no random numbers: {error}"),
        })?;
        let create = CreateToken { hash: token.hash(), ttl_ms };
        Ok((token, the!(Token, self.0.one(Kind::CreateToken(create)).await?)?))
    }

    /// Makes a token useless.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn revoke(&self, id: u64) -> Result<Token, MetaError> {
        the!(Token, self.0.one(Kind::RevokeToken(RevokeToken { id })).await?)
    }

    /// The tokens that are remembered, by number.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn list(&self) -> Result<Vec<Token>, MetaError> {
        Ok(found!(Tokens, self.0.ask(Query::Tokens(Everything {})).await?)?.tokens)
    }
}
