//! Join tokens. Only their hashes are here. Each lets one node join, once.

use super::{Fault, Step, ensure, refused};
use crate::meta::fault::{self, Fault as Broken};
use crate::meta::keys::Cluster;
use crate::meta::limits::{HASH_BYTES, MAX_TTL_MS, MIN_TOKEN_TTL_MS, REMEMBERED_TOKENS};
use crate::meta::proto::{CreateToken, EventKind, Refusal, Token, TokenState};
use crate::meta::settings::Name;
use crate::raftstore::log_store::Table;

impl Step<'_> {
    pub(super) fn create_token(&mut self, create: &CreateToken) -> Result<Token, Fault> {
        ensure(create.hash.len() == HASH_BYTES, Refusal::Invalid, || format!("a hash has {HASH_BYTES} bytes"))?;
        let ttl_ms = if create.ttl_ms == 0 { self.setting(Name::TokenDefaultTtl) } else { create.ttl_ms };
        ensure((MIN_TOKEN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms), Refusal::OutOfRange, || {
            format!("a token is good for {ttl_ms} ms; it must be {MIN_TOKEN_TTL_MS} ms to {MAX_TTL_MS} ms")
        })?;
        let by_hash = Cluster::TokenHash.key(&create.hash);
        ensure(self.number(&by_hash)?.is_none(), Refusal::Invalid, || "there is such a token already".to_owned())?;
        let max_open = self.setting(Name::TokenMaxOpen);
        ensure(self.state.cluster.tokens < max_open, Refusal::TooMany, || {
            format!("there are {max_open} open tokens already (token.max_open)")
        })?;
        let header = &mut self.state.cluster;
        header.next_token = header.next_token.max(1);
        let id = header.next_token;
        (header.next_token, header.tokens) = (id + 1, header.tokens + 1);
        let token = Token {
            id,
            hash: create.hash.clone(),
            ttl_ms,
            state: TokenState::Open.into(),
            created: self.origin.index,
            created_by: self.origin.command.actor.clone(),
            ..Token::default()
        };
        self.put_number(by_hash, id);
        self.put_record(Table::Cluster, Cluster::Token.numbered(id), &token);
        self.forget_token(id.saturating_sub(REMEMBERED_TOKENS))?;
        self.event(EventKind::TokenCreated, id.to_string(), format!("good for {ttl_ms} ms"))?;
        Ok(token)
    }

    pub(super) fn revoke_token(&mut self, id: u64) -> Result<Token, Fault> {
        let token = self.record::<Token>(Table::Cluster, &Cluster::Token.numbered(id))?;
        let token = token.ok_or_else(|| refused(Refusal::NoSuchToken, format!("there is no token {id}")))?;
        still_open(&token)?;
        self.end_token(token, TokenState::Revoked, 0)
    }

    /// Lets a token expire; whatever else became of it meanwhile stands.
    pub(super) fn expire_token(&mut self, id: u64) -> Result<bool, Fault> {
        match self.record::<Token>(Table::Cluster, &Cluster::Token.numbered(id))? {
            Some(token) if token.state() == TokenState::Open => {
                self.end_token(token, TokenState::Expired, 0)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The open token with this hash.
    pub(super) fn open_token(&self, hash: &[u8]) -> Result<Token, Fault> {
        let unknown = || refused(Refusal::NoSuchToken, "there is no such token");
        let id = self.number(&Cluster::TokenHash.key(hash))?.ok_or_else(unknown)?;
        let token = self.record::<Token>(Table::Cluster, &Cluster::Token.numbered(id))?.ok_or_else(unknown)?;
        still_open(&token)?;
        Ok(token)
    }

    pub(super) fn use_token(&mut self, token: Token, member: u64) -> Result<(), Fault> {
        if fault::active(Broken::TokenNotUsed) {
            return Ok(());
        }
        self.end_token(token, TokenState::Used, member).map(drop)
    }

    fn end_token(&mut self, mut token: Token, state: TokenState, member: u64) -> Result<Token, Fault> {
        token.state = state.into();
        token.ended = self.origin.index;
        token.member = member;
        self.state.cluster.tokens = self.state.cluster.tokens.saturating_sub(1);
        self.put_record(Table::Cluster, Cluster::Token.numbered(token.id), &token);
        let (kind, detail) = match state {
            TokenState::Used => (EventKind::TokenUsed, format!("by member {member}")),
            TokenState::Revoked => (EventKind::TokenRevoked, String::new()),
            _ => (EventKind::TokenExpired, String::new()),
        };
        self.event(kind, token.id.to_string(), detail)?;
        // One that outlived those that came long after it.
        if token.id + REMEMBERED_TOKENS < self.state.cluster.next_token {
            self.forget_token(token.id)?;
        }
        Ok(token)
    }

    /// Forgets a token, unless it is open.
    fn forget_token(&mut self, id: u64) -> Result<(), Fault> {
        let key = Cluster::Token.numbered(id);
        if let Some(token) =
            self.record::<Token>(Table::Cluster, &key)?.filter(|token| token.state() != TokenState::Open)
        {
            self.view.delete(Table::Cluster, key);
            self.view.delete(Table::Cluster, Cluster::TokenHash.key(&token.hash));
        }
        Ok(())
    }
}

fn still_open(token: &Token) -> Result<(), Fault> {
    let id = token.id;
    match token.state() {
        TokenState::Open => Ok(()),
        TokenState::Used => {
            Err(refused(Refusal::TokenUsed, format!("token {id} was used, by member {}", token.member)))
        }
        TokenState::Revoked => Err(refused(Refusal::TokenExpired, format!("token {id} was revoked"))),
        _ => Err(refused(Refusal::TokenExpired, format!("token {id} has expired"))),
    }
}
