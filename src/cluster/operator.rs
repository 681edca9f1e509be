//! What an operator asks of a node: to form a cluster, to make a join token, to take a member out.
//!
//! Any member will do but for forming, which is asked of one node by name: asked of another because the first was slow to
//! answer, two clusters would come about. Those that cannot be reached, or cannot answer now, are asked in turn until the
//! time is over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::proto::formation_client::FormationClient;
use super::proto::{CreateTokenRequest, DescribeRequest, Description, InitRequest, Phase, RemoveRequest};
use crate::ident::{ClusterId, NodeId};
use crate::meta::proto::Member;
use crate::net::connection::Holder;
use crate::net::tls::Tls;
use crate::net::{Address, NetConfig, NetError, channel};

/// What is waited before the addresses are tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why nothing came of what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// *Your mistake*: these settings or files cannot be used.
    #[error("{0}")]
    Settings(String),
    /// *Your mistake*, or it cannot be done now; it had no effect.
    #[error("{0}")]
    Refused(String),
    /// *Your mistake*: there is no such thing. Asked before, it may have been done.
    #[error("{0}")]
    NotFound(String),
    /// *Retry*: nobody could be asked in time. It had no effect.
    #[error("no node could be asked in time: {0}")]
    Unavailable(String),
    /// It may or may not have been done, or may yet be.
    #[error("it is not known whether it was done: {0}")]
    Unknown(String),
}

/// A join token as it was made.
pub struct NewToken {
    /// The token: whoever has it can let one node in.
    pub token: String,
    /// Its number, by which it is revoked.
    pub id: u64,
    /// How long it is good for.
    pub ttl: Duration,
}

/// Asks nodes.
pub struct Operator {
    addresses: Vec<Address>,
    net: NetConfig,
    tls: Option<Tls>,
    timeout: Duration,
}

/// What became of one attempt.
enum Heard<T> {
    Answer(T),
    /// The next one may know better.
    Again {
        why: String,
        may_be_done: bool,
    },
    Over(OperatorError),
}

impl Operator {
    /// One that asks at these addresses, with the certificates and the permissions of these settings, for so long.
    ///
    /// # Errors
    /// [`OperatorError::Settings`].
    pub fn new(addresses: Vec<Address>, net: NetConfig, timeout: Duration) -> Result<Operator, OperatorError> {
        let settings = |error: NetError| OperatorError::Settings(error.to_string());
        if addresses.is_empty() {
            return Err(OperatorError::Settings("no address is given".to_owned()));
        }
        let tls = net.tls.clone().map(Tls::load).transpose().map_err(settings)?;
        Ok(Operator { addresses, net, tls, timeout })
    }

    /// Has the node at the one address form a cluster, and waits until it leads it.
    ///
    /// # Errors
    /// See [`OperatorError`]; refused if the node is a member already.
    pub async fn init(&self) -> Result<ClusterId, OperatorError> {
        let [address] = self.addresses.as_slice() else {
            return Err(OperatorError::Settings("a cluster is formed with one node: give one address".to_owned()));
        };
        let until = Instant::now() + self.timeout;
        let found = self.until(until, describe).await?;
        if found.phase() == Phase::Member {
            return Err(OperatorError::Refused(format!(
                "{address} is node {} of cluster {:016x} already",
                found.node, found.cluster
            )));
        }
        // A repeated request is answered as the first one was.
        let formed = self.until(until, |mut client| async move { client.init(InitRequest {}).await }).await?;
        let cluster = ClusterId::new(formed.cluster);
        // The port changes hands meanwhile.
        while !self.leads(until, cluster).await? {
            sleep(RETRY_PAUSE).await;
        }
        Ok(cluster)
    }

    async fn leads(&self, until: Instant, cluster: ClusterId) -> Result<bool, OperatorError> {
        let now = self.until(until, describe).await;
        let now =
            now.map_err(|error| OperatorError::Unknown(format!("the node does not lead its cluster yet: {error}")))?;
        if Instant::now() >= until {
            return Err(OperatorError::Unknown("the node does not lead its cluster yet".to_owned()));
        }
        Ok(now.cluster == cluster.get() && now.leader == now.node && now.member.is_some())
    }

    /// What the first node says of itself that answers.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn describe(&self) -> Result<Description, OperatorError> {
        self.until(Instant::now() + self.timeout, describe).await
    }

    /// Makes a join token, good for this long; `None`: as long as the cluster's setting says.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn create_token(&self, ttl: Option<Duration>, actor: &str) -> Result<NewToken, OperatorError> {
        let ttl_ms = ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
        let request = CreateTokenRequest { ttl_ms, actor: actor.to_owned() };
        let until = Instant::now() + self.timeout;
        let made = self
            .until(until, |mut client| {
                let request = request.clone();
                async move { client.create_token(request).await }
            })
            .await?;
        Ok(NewToken { token: made.token, id: made.id, ttl: Duration::from_millis(made.ttl_ms) })
    }

    /// Takes a member out of the cluster for good; says how it was.
    ///
    /// # Errors
    /// See [`OperatorError`]; refused if the cluster would not have a majority without it.
    pub async fn remove(&self, node: NodeId, actor: &str) -> Result<Member, OperatorError> {
        let request = RemoveRequest { node: node.get(), actor: actor.to_owned(), hops: 0 };
        let until = Instant::now() + self.timeout;
        let removed = self
            .until(until, |mut client| {
                let request = request.clone();
                async move { client.remove(request).await }
            })
            .await?;
        removed.removed.ok_or_else(|| OperatorError::Unknown("the answer says nothing".to_owned()))
    }

    /// Asks one after the other until one answers, or the time is over.
    async fn until<T, F>(&self, until: Instant, ask: impl Fn(FormationClient<Channel>) -> F) -> Result<T, OperatorError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (mut last, mut is_unsure) = ("nothing was heard".to_owned(), false);
        loop {
            for address in &self.addresses {
                let attempt = timeout_at(until, self.attempt(address, &ask)).await;
                // Whatever was asked when the time ended may have been heard.
                let heard = attempt.unwrap_or_else(|_| Heard::Again { why: "no answer".to_owned(), may_be_done: true });
                match heard {
                    Heard::Answer(answer) => return Ok(answer),
                    Heard::Over(error) => return Err(error),
                    Heard::Again { why, may_be_done } => {
                        is_unsure |= may_be_done;
                        last = format!("{address}: {why}");
                    }
                }
            }
            if Instant::now() + RETRY_PAUSE >= until {
                return Err(if is_unsure { OperatorError::Unknown(last) } else { OperatorError::Unavailable(last) });
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt<T, F>(&self, address: &Address, ask: impl Fn(FormationClient<Channel>) -> F) -> Heard<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let holder = Holder::new();
        let channel = match channel::connect(address, &self.net, self.tls.as_ref(), &holder).await {
            Ok((channel, _)) => channel,
            Err(error @ NetError::Plaintext(_)) => return Heard::Over(OperatorError::Settings(error.to_string())),
            Err(error) => return Heard::Again { why: error.to_string(), may_be_done: false },
        };
        let status = match ask(FormationClient::new(channel)).await {
            Ok(answer) => return Heard::Answer(answer.into_inner()),
            Err(status) => status,
        };
        let why = match status.message() {
            "" => status.code().to_string(),
            message => message.to_owned(),
        };
        match status.code() {
            Code::NotFound => Heard::Over(OperatorError::NotFound(why)),
            Code::Unavailable => Heard::Again { why, may_be_done: false },
            Code::DeadlineExceeded => Heard::Over(OperatorError::Unknown(why)),
            // The connection went in the middle of it.
            Code::Unknown | Code::Cancelled | Code::Internal => Heard::Again { why, may_be_done: true },
            _ => Heard::Over(OperatorError::Refused(why)),
        }
    }
}

async fn describe(mut client: FormationClient<Channel>) -> Result<Response<Description>, Status> {
    client.describe(DescribeRequest {}).await
}
