//! The metadata for other processes: [`Meta`], over any node of a list.
//!
//! ```no_run
//! use mainstay::cluster::rpc::{channel::Nodes, client::Client};
//! use mainstay::net::NetConfig;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let nodes = Nodes::new(vec!["127.0.0.1:5442".parse()?, "127.0.0.1:5443".parse()?], &NetConfig::default())?;
//! let meta = Client::new(nodes).meta("ann");
//! let revision = meta.kv().put("greeting", "hello").await?;
//! let mut watch = meta.kv().watch("greeting", revision);
//! println!("{:?}", watch.next().await?);
//! # Ok(())
//! # }
//! ```
//!
//! What is under way at the same time shares a [stream](super::batch) to the node; reads of what the node has go by themselves,
//! so that they do not wait behind what waits for a leader. Commands carry a [name](crate::meta::names) of this client's, so that
//! one whose answer was lost is sent again, to
//! whichever node, and takes effect once. Watches go on at another node when theirs is lost, behind what they gave last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::channel::{CallError, Line, Nodes, Purpose, Repeat};
use super::failure;
use super::proto::follow_response::Kind as FollowKind;
use super::proto::metadata_client::MetadataClient;
use super::proto::numbered_request::Call;
use super::proto::numbered_response::Outcome;
use super::proto::watch_response::Kind as WatchKind;
use super::proto::{
    ExecuteRequest, FollowRequest, FollowResponse, ReadRequest, StatusRequest, StatusResponse, WatchRequest,
    WatchResponse, change,
};
use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, NOTICE_EVERY};
use crate::meta::client::{DEFAULT_TIMEOUT, Meta};
use crate::meta::command::{MAX_COMMAND_BYTES, Unknown};
use crate::meta::names::Names;
use crate::meta::proto::{Command, Done, Event, KeyRange};
use crate::meta::query::proto::{Found, Query};
use crate::meta::service::{Backend, EventUpdates, KvUpdates, MetaError};
use crate::meta::watch::{KvChange, KvUpdate, WatchError};
use crate::net::backoff::Backoff;

/// Commands of one client that are under way at a time.
const MAX_UNDER_WAY: usize = 512;
/// A watch that is given by no node for this long says so.
const PATIENCE: Duration = DEFAULT_TIMEOUT;
/// What is waited before a stream that ended is opened elsewhere.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(20), max: Duration::from_secs(1) };

/// See the module.
pub struct Client {
    nodes: Nodes,
    names: Names,
    under_way: Semaphore,
}

impl Client {
    /// A client of these nodes.
    pub fn new(nodes: Nodes) -> Arc<Client> {
        Arc::new(Client { nodes, names: Names::default(), under_way: Semaphore::new(MAX_UNDER_WAY) })
    }

    /// The typed client that acts in this name. Where connections have certificates, those say who acts, too.
    pub fn meta(self: &Arc<Self>, actor: &str) -> Meta {
        Meta::over(Arc::clone(self) as _, actor)
    }

    /// How the node that is asked stands.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn status(&self, deadline: Instant) -> Result<StatusResponse, MetaError> {
        let ask = |line: Line, _| async move { Ok(calls(line.channel()).status(StatusRequest {}).await?.into_inner()) };
        self.nodes.call(Purpose::Call, Repeat::Safe, deadline, ask).await.map_err(reading)
    }
}

pub(super) fn calls(channel: Channel) -> MetadataClient<Channel> {
    MetadataClient::new(channel)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
        .max_decoding_message_size(MAX_RESPONSE_BYTES)
}

/// Nobody knows what a node did that answers so.
fn not_asked() -> Status {
    Status::internal("the answer is to something else")
}

/// How long a node may try, that has to answer until then.
pub(in crate::cluster) fn timeout_ms(until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX).max(1)
}

/// A read has no effect that could be unknown.
fn reading(error: CallError) -> MetaError {
    match failure::call_error(error) {
        MetaError::Unknown { why } => MetaError::Unavailable { leader: None, why },
        error => error,
    }
}

#[tonic::async_trait]
impl Backend for Client {
    async fn execute(&self, command: Command, deadline: Instant) -> Result<Done, MetaError> {
        if command.encoded_len() > MAX_COMMAND_BYTES {
            return Err(MetaError::TooLarge { limit_bytes: MAX_COMMAND_BYTES });
        }
        let Ok(Ok(_permit)) = timeout_at(deadline.into(), self.under_way.acquire()).await else {
            let why = "too many commands of this client are under way".to_owned();
            return Err(MetaError::Unavailable { leader: None, why });
        };
        let lent = self.names.lend()?;
        let (client, sequence) = (lent.attempt().client, lent.attempt().sequence);
        let request = ExecuteRequest { command: Some(command), timeout_ms: 0, client, sequence };
        let ask = |line: Line, until| {
            let request = ExecuteRequest { timeout_ms: timeout_ms(until), ..request.clone() };
            async move {
                match line.caller().call(Call::Execute(request)).await? {
                    Outcome::Execute(answer) => Ok(answer),
                    _ => Err(not_asked()),
                }
            }
        };
        let answer = self.nodes.call(Purpose::Call, Repeat::Safe, deadline, ask).await.map_err(failure::call_error)?;
        answer.done.ok_or(MetaError::Newer(Unknown::Unknown))
    }

    async fn ask(&self, query: Query, is_local: bool, deadline: Instant) -> Result<Found, MetaError> {
        let request = ReadRequest { query: Some(query), is_local, timeout_ms: 0 };
        let ask = |line: Line, until| {
            let request = ReadRequest { timeout_ms: timeout_ms(until), ..request.clone() };
            async move {
                if is_local {
                    // On the stream it would wait behind what waits for a leader.
                    return calls(line.channel()).read(request).await.map(Response::into_inner);
                }
                match line.caller().call(Call::Read(request)).await? {
                    Outcome::Read(answer) => Ok(answer),
                    _ => Err(not_asked()),
                }
            }
        };
        let answer = self.nodes.call(Purpose::Call, Repeat::Safe, deadline, ask).await.map_err(reading)?;
        answer.found.ok_or(MetaError::Newer(Unknown::Unknown))
    }

    fn watch(&self, range: KeyRange, from: u64, notice_every: Duration) -> Box<dyn KvUpdates> {
        let notice_every_ms = u64::try_from(notice_every.as_millis()).unwrap_or(u64::MAX).max(1);
        let request = WatchRequest { range: Some(range), from, notice_every_ms };
        Box::new(KeyWatch { request, stream: Resumed::new(self.nodes.clone()), gathered: Vec::new() })
    }

    fn follow(&self, from: u64) -> Box<dyn EventUpdates> {
        let notice_every_ms = u64::try_from(NOTICE_EVERY.as_millis()).unwrap_or(u64::MAX);
        Box::new(Follow { request: FollowRequest { from, notice_every_ms }, stream: Resumed::new(self.nodes.clone()) })
    }
}

/// A stream that is opened again, at another node, when it ends.
struct Resumed<M> {
    nodes: Nodes,
    open: Option<(Line, Streaming<M>)>,
    /// Streams in a row that gave nothing but their beginning.
    failures: u32,
    /// Since when that is so.
    lost: Option<Instant>,
    why: String,
}

impl<M> Resumed<M> {
    fn new(nodes: Nodes) -> Resumed<M> {
        Resumed { nodes, open: None, failures: 0, lost: None, why: String::new() }
    }

    /// The next message; nothing when a stream has ended, and the next one will be opened where the watch is then.
    /// Dropping the future loses nothing.
    async fn message<F>(&mut self, mut open: impl FnMut(MetadataClient<Channel>) -> F) -> Result<Option<M>, WatchError>
    where
        F: Future<Output = Result<Response<Streaming<M>>, Status>>,
    {
        if self.open.is_none() {
            if self.lost.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                self.lost = None;
                return Err(WatchError::Unreachable { why: self.why.clone() });
            }
            let random = getrandom::u64().unwrap_or(u64::MAX);
            tokio::time::sleep(BACKOFF.delay(self.failures, random)).await;
            let ask = |line: Line, _| {
                let opening = open(calls(line.channel()));
                async move { Ok((line, opening.await?.into_inner())) }
            };
            let opened = self.nodes.call(Purpose::Stream, Repeat::Safe, Instant::now() + PATIENCE, ask).await;
            self.open = Some(opened.map_err(unreachable)?);
        }
        let Some((_, stream)) = &mut self.open else { return Ok(None) };
        match stream.message().await {
            Ok(Some(message)) => return Ok(Some(message)),
            Ok(None) => self.failed("the node ended the stream").await,
            Err(status) => match failure::watch_error(&status) {
                Some(error) => {
                    self.open = None;
                    return Err(error);
                }
                None => self.failed(status.message()).await,
            },
        }
        Ok(None)
    }

    /// It gave something.
    fn held(&mut self) {
        (self.failures, self.lost) = (0, None);
    }

    /// This stream is of no more use.
    async fn failed(&mut self, why: &str) {
        self.failures = self.failures.saturating_add(1);
        if let Some((line, _)) = self.open.take() {
            self.why = format!("{}: {why}", line.address());
            tracing::debug!(address = %line.address(), "a watch goes on at another node: {why}");
            self.nodes.avoid(&line).await;
        }
    }
}

fn unreachable(error: CallError) -> WatchError {
    match error {
        CallError::Refused(status) => {
            let why = status.message().to_owned();
            failure::watch_error(&status).unwrap_or(WatchError::Unreachable { why })
        }
        error => WatchError::Unreachable { why: error.to_string() },
    }
}

/// A watch of keys: its request says where it is.
struct KeyWatch {
    request: WatchRequest,
    stream: Resumed<WatchResponse>,
    /// The changes so far of a revision that comes in parts.
    gathered: Vec<KvChange>,
}

#[tonic::async_trait]
impl KvUpdates for KeyWatch {
    fn position(&self) -> u64 {
        self.request.from
    }

    async fn next(&mut self) -> Result<KvUpdate, WatchError> {
        loop {
            let request = &self.request;
            let open = |mut client: MetadataClient<Channel>| {
                let request = request.clone();
                async move { client.watch(request).await }
            };
            let Some(message) = self.stream.message(open).await? else { continue };
            match self.take(message) {
                Ok(Some(update)) => {
                    self.stream.held();
                    return Ok(update);
                }
                Ok(None) => {}
                Err(why) => self.stream.failed(why).await,
            }
        }
    }
}

impl KeyWatch {
    /// What a message says to the watcher. An error: the node does not keep to what it should do.
    fn take(&mut self, message: WatchResponse) -> Result<Option<KvUpdate>, &'static str> {
        let from = self.request.from;
        match message.kind {
            Some(WatchKind::Started(started)) if from == 0 || started.next == from => {
                self.request.from = started.next;
                // A revision of which the stream before brought a part comes again as a whole.
                self.gathered.clear();
                Ok(None)
            }
            Some(WatchKind::Progress(progress)) if progress.last.saturating_add(1) >= from => {
                self.request.from = progress.last + 1;
                Ok(Some(KvUpdate::Progress { revision: progress.last }))
            }
            Some(WatchKind::Changes(changes)) if changes.revision >= from => {
                for change in changes.changes {
                    self.gathered.push(match change.kind {
                        Some(change::Kind::Put(pair)) => KvChange::Put(pair),
                        Some(change::Kind::Deleted(key)) => KvChange::Deleted { key },
                        None => return Err("it sent a change of a kind that is not known"),
                    });
                }
                if changes.more {
                    return Ok(None);
                }
                self.request.from = changes.revision + 1;
                Ok(Some(KvUpdate::Changes { revision: changes.revision, changes: std::mem::take(&mut self.gathered) }))
            }
            _ => Err("it sent what was given before, or is not known"),
        }
    }
}

/// A position in the event log.
struct Follow {
    request: FollowRequest,
    stream: Resumed<FollowResponse>,
}

#[tonic::async_trait]
impl EventUpdates for Follow {
    async fn next(&mut self) -> Result<Event, WatchError> {
        loop {
            let request = self.request;
            let open = |mut client: MetadataClient<Channel>| async move { client.follow(request).await };
            let Some(message) = self.stream.message(open).await? else { continue };
            let from = self.request.from;
            match message.kind {
                Some(FollowKind::Started(started)) if from == 0 || started.next == from => {
                    self.request.from = started.next;
                }
                Some(FollowKind::Progress(progress)) if progress.last.saturating_add(1) == from => self.stream.held(),
                Some(FollowKind::Event(event)) if event.sequence == from => {
                    self.request.from += 1;
                    self.stream.held();
                    return Ok(event);
                }
                _ => self.stream.failed("it sent an event out of order, or what is not known").await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Change, Changes, Started};
    use super::*;
    use crate::net::NetConfig;

    #[test]
    fn a_revision_of_which_a_stream_brought_a_part_comes_as_a_whole_from_the_next() {
        let nodes = Nodes::new(vec!["127.0.0.1:1".parse().unwrap()], &NetConfig::default()).unwrap();
        let request = WatchRequest { range: None, from: 5, notice_every_ms: 1 };
        let mut watch = KeyWatch { request, stream: Resumed::new(nodes), gathered: Vec::new() };
        let message = |kind| WatchResponse { kind: Some(kind) };
        let started = |next| message(WatchKind::Started(Started { next }));
        let changes = |revision, keys: &[&str], more| {
            let deleted = |key: &&str| Change { kind: Some(change::Kind::Deleted(key.as_bytes().to_vec())) };
            message(WatchKind::Changes(Changes { revision, changes: keys.iter().map(deleted).collect(), more }))
        };
        assert_eq!(watch.take(started(5)), Ok(None));
        assert_eq!(watch.take(changes(7, &["a"], true)), Ok(None));
        // That stream ended here.
        assert_eq!(watch.take(started(5)), Ok(None));
        assert_eq!(watch.take(changes(7, &["a"], true)), Ok(None));
        let Ok(Some(KvUpdate::Changes { revision, changes: given })) = watch.take(changes(7, &["b"], false)) else {
            panic!("a revision is whole")
        };
        assert_eq!((revision, given.len(), watch.position()), (7, 2, 8));
        // A node that begins elsewhere, or goes back, is not listened to.
        assert!(watch.take(started(9)).is_err());
        assert!(watch.take(changes(7, &["a"], false)).is_err());
    }
}
