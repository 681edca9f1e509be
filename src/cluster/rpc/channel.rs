//! A way to the nodes of a cluster, any of which will do, for those who are none of them.
//!
//! ```text
//!  call ──▶ the node that answered last ── no answer, or none that leads? ──▶ the next ── … ── a pause ──▶ …
//! ```
//!
//! **One policy for all retries.** What surely had no effect is asked of the next node, until the deadline. What may have
//! had one is asked again only if the caller says that it may be ([`Repeat`]). A node's own word, that the request is
//! wrong or was refused, is final. Each node of the list gets its turn before the deadline, however long another takes.
//!
//! Connections are those of `net`: mutual TLS, or plaintext to loopback unless it is allowed. Which node answers does not
//! matter, so nobody proves to be a certain one; with TLS all hold a certificate of the authority.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout_at;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::batch::caller::Caller;
use super::failure;
use crate::net::connection::{Connection, Fault, Holder, tls_fault};
use crate::net::tls::Tls;
use crate::net::{Address, NetConfig, NetError};

/// Most addresses of a list.
pub const MAX_ADDRESSES: usize = 64;
/// A node gets at least this long to answer, if there is as much.
const MIN_TURN: Duration = Duration::from_millis(500);
/// A node that was told until when to answer may be this much later.
const GRACE: Duration = Duration::from_millis(250);
/// Streams that stay open share a connection up to this number: below what a node allows of one.
const STREAMS_PER_CONNECTION: usize = 100;
/// Nodes of which it is told what was heard, if none could answer.
const MAX_TOLD: usize = 4;

/// Whether a call that may have taken effect may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing, or takes effect once, however often it is made.
    Safe,
    /// It may not.
    Never,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A call that is answered soon.
    Call,
    /// A stream that stays open. It lasts as long as its [`Line`] is held.
    Stream,
}

/// What became of a call that has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// *Your mistake*: the addresses, or what this side or the other has for TLS, cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// *Your mistake*, or somebody else was first: a node understood the call, and this is its word.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// *Retry later*: until the deadline no node took it. It had no effect.
    #[error("no node could answer in time: {why}")]
    Unavailable {
        /// What was heard last of each node.
        why: String,
    },
    /// It may or may not have taken effect.
    #[error("it is not known whether it took effect: {why}")]
    Unknown {
        /// What was heard last of each node.
        why: String,
    },
}

/// A connection to a node. Cheap to clone; the connection is cut when the last one that holds it is gone.
#[derive(Clone)]
pub struct Line(Arc<Held>);

struct Held {
    channel: Channel,
    address: Address,
    fault: Fault,
    /// The stream that its requests share.
    caller: parking_lot::Mutex<Option<Arc<Caller>>>,
    _holder: Holder,
}

impl Line {
    /// What requests that may go together go over: one stream, and another when that has ended.
    pub(super) fn caller(&self) -> Arc<Caller> {
        let mut held = self.0.caller.lock();
        match held.as_ref().filter(|caller| !caller.has_ended()) {
            Some(caller) => Arc::clone(caller),
            None => Arc::clone(held.insert(Arc::new(Caller::open(self.channel())))),
        }
    }

    /// What calls go over.
    pub fn channel(&self) -> Channel {
        self.0.channel.clone()
    }

    /// Where the node is.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    fn is(&self, other: &Line) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The nodes of a list. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    inner: Arc<Inner>,
    /// How often each is asked at most.
    rounds: usize,
}

struct Inner {
    config: NetConfig,
    tls: Option<Tls>,
    nodes: Vec<Node>,
    /// The place of the node that answered last.
    preferred: AtomicUsize,
}

struct Node {
    address: Address,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    call: Option<Line>,
    streams: Vec<Line>,
}

impl Nodes {
    /// These nodes. Nothing is connected yet. Of the settings, the TLS files, whether plaintext is allowed, and the times
    /// matter here.
    ///
    /// # Errors
    /// Your mistake: no addresses, too many, plaintext to others than loopback, or TLS files that cannot be used.
    pub fn new(addresses: Vec<Address>, config: &NetConfig) -> Result<Nodes, NetError> {
        if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
            let given: Vec<_> = addresses.iter().map(Address::as_str).take(3).collect();
            return Err(NetError::Address(format!("{} ({} addresses)", given.join(","), addresses.len())));
        }
        config.validate()?;
        for literal in addresses.iter().filter_map(Address::literal) {
            config.check_address(literal)?;
        }
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        let nodes = addresses.into_iter().map(|address| Node { address, lines: Mutex::default() }).collect();
        let inner = Inner { config: config.clone(), tls, nodes, preferred: AtomicUsize::new(0) };
        Ok(Nodes { inner: Arc::new(inner), rounds: usize::MAX })
    }

    /// The same, each asked once: for who wants to know whether they are there, and not to wait for them.
    #[must_use]
    pub fn asked_once(&self) -> Nodes {
        Nodes { rounds: 1, ..self.clone() }
    }

    /// The addresses, as they were given.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.inner.nodes.iter().map(|node| &node.address)
    }

    /// Asks the nodes, one after the other, until one answers. `ask` is given the connection, and until when the node
    /// should answer: it has to tell the node, so that a node that knows no leader says so in time.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<T, F>(
        &self,
        purpose: Purpose,
        repeat: Repeat,
        deadline: Instant,
        mut ask: impl FnMut(Line, Instant) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let count = self.inner.nodes.len();
        let first = self.inner.preferred.load(Ordering::Relaxed);
        let mut tries = Tries::default();
        for failures in 0.. {
            let place = (first + failures) % count;
            let until = turn(deadline, count - failures % count);
            let Some(node) = self.inner.nodes.get(place) else { break };
            match self.inner.line(node, purpose, until).await {
                Err(error) => tries.not_reached(place, &node.address, error),
                Ok(line) => {
                    let asked = timeout_at((until + GRACE).into(), ask(line.clone(), until)).await;
                    let answer = asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not answer in time")));
                    match answer {
                        Ok(answer) => {
                            self.inner.preferred.store(place, Ordering::Relaxed);
                            return Ok(answer);
                        }
                        Err(status) => {
                            let verdict = Verdict::of(&status, &line);
                            match verdict {
                                Verdict::Final => return Err(CallError::Refused(Box::new(status))),
                                Verdict::Elsewhere => {}
                                Verdict::Unsure | Verdict::Stranger => node.retire(&line).await,
                            }
                            tries.not_answered(place, &line, verdict, &status);
                        }
                    }
                }
            }
            if tries.is_unsure && repeat == Repeat::Never {
                break;
            }
            if tries.mistakes.len() == count {
                return Err(tries.mistakes.swap_remove(0).1.into());
            }
            if !self.pause(failures + 1, deadline).await {
                break;
            }
        }
        Err(tries.gave_up())
    }

    /// A stream of this node ended before its time: others are asked first.
    pub async fn avoid(&self, line: &Line) {
        let count = self.inner.nodes.len();
        let Some(place) = self.inner.nodes.iter().position(|node| node.address == *line.address()) else { return };
        let _ = self.inner.preferred.compare_exchange(place, (place + 1) % count, Ordering::Relaxed, Ordering::Relaxed);
        if let Some(node) = self.inner.nodes.get(place) {
            node.retire(line).await;
        }
    }

    /// Waits before a new round. Says whether there is time for it.
    async fn pause(&self, failures: usize, deadline: Instant) -> bool {
        let count = self.inner.nodes.len();
        let delay = match failures.is_multiple_of(count) {
            true => self.inner.config.backoff().delay(u32::try_from(failures / count).unwrap_or(u32::MAX), jitter()),
            false => Duration::ZERO,
        };
        if failures >= count.saturating_mul(self.rounds) || Instant::now() + delay >= deadline {
            return false;
        }
        tokio::time::sleep(delay).await;
        true
    }
}

/// Without random numbers everybody waits as long as may be.
fn jitter() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}

/// Until when the next node may answer, so that as many as are left of the round get their turn.
fn turn(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1).max(1);
    deadline.min(now + share.max(MIN_TURN))
}

impl Inner {
    /// A connection to a node: the one there is, or a new one. Whoever comes while one is made waits for it.
    async fn line(&self, node: &Node, purpose: Purpose, until: Instant) -> Result<Line, Unreached> {
        let until = until.min(Instant::now() + self.config.connect_timeout);
        let connecting = async {
            let mut lines = node.lines.lock().await;
            if let Some(line) = lines.usable(purpose) {
                return Ok(line);
            }
            let line = self.connect(&node.address).await?;
            lines.add(purpose, &line);
            Ok(line)
        };
        timeout_at(until.into(), connecting).await.unwrap_or(Err(Unreached::Silent))
    }

    async fn connect(&self, address: &Address) -> Result<Line, Unreached> {
        let holder = Holder::new();
        let connection = Connection::open(address, &self.config, self.tls.as_ref(), &holder).await;
        let connection = connection.map_err(|error| match &error {
            NetError::Plaintext(_) => Unreached::Mistake(error),
            NetError::Connect { source, .. } if tls_fault(source).is_some() => Unreached::Mistake(error),
            _ => Unreached::Net(error),
        })?;
        let fault = connection.fault();
        let channel = connection.into_channel(&self.config).await.map_err(|source| match fault.get() {
            Some(fault) => Unreached::Mistake(stranger(address, fault)),
            None => Unreached::Http(source),
        })?;
        let caller = parking_lot::Mutex::default();
        Ok(Line(Arc::new(Held { channel, address: address.clone(), fault, caller, _holder: holder })))
    }
}

impl Node {
    /// A connection that did not do what it should is not used again.
    async fn retire(&self, line: &Line) {
        let mut lines = self.lines.lock().await;
        lines.call.take_if(|held| held.is(line));
        lines.streams.retain(|held| !held.is(line));
    }
}

impl Lines {
    fn usable(&mut self, purpose: Purpose) -> Option<Line> {
        match purpose {
            Purpose::Call => self.call.clone(),
            Purpose::Stream => {
                // Those that only this holds have no stream left.
                let has_room = |line: &&Line| Arc::strong_count(&line.0) <= STREAMS_PER_CONNECTION;
                let line = self.streams.iter().find(has_room).cloned();
                self.streams.retain(|line| Arc::strong_count(&line.0) > 1);
                line
            }
        }
    }

    fn add(&mut self, purpose: Purpose, line: &Line) {
        match purpose {
            Purpose::Call => self.call = Some(line.clone()),
            Purpose::Stream => self.streams.push(line.clone()),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Unreached {
    /// What no retry will mend.
    #[error(transparent)]
    Mistake(NetError),
    #[error(transparent)]
    Net(NetError),
    #[error("HTTP/2: {}", last_cause(.0))]
    Http(tonic::transport::Error),
    #[error("it did not answer in time")]
    Silent,
}

/// The two sides do not take each other's certificates.
fn stranger(address: &Address, fault: &str) -> NetError {
    NetError::Connect { address: address.clone(), source: io::Error::other(fault.to_owned()) }
}

fn last_cause(error: &dyn Error) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        (last, next) = (error.to_string(), error.source());
    }
    last
}

/// What a status says of what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It had no effect there; another node may do better.
    Elsewhere,
    /// Nobody knows what it did.
    Unsure,
    /// It had no effect: the node did not take our certificate. In TLS 1.3 that is heard after the handshake only.
    Stranger,
    /// The caller has to hear it.
    Final,
}

impl Verdict {
    fn of(status: &Status, line: &Line) -> Verdict {
        match (status.source(), status.code()) {
            // It did not come from the node, but from the connection.
            (Some(_), _) if line.0.fault.get().is_some() => Verdict::Stranger,
            (Some(_), _) => Verdict::Unsure,
            (None, Code::Unavailable) => Verdict::Elsewhere,
            (None, Code::DeadlineExceeded | Code::Cancelled | Code::Internal) => Verdict::Unsure,
            _ => Verdict::Final,
        }
    }
}

/// How it went so far.
#[derive(Default)]
struct Tries {
    /// What no retry will mend: the place of the node, and what is wrong.
    mistakes: Vec<(usize, NetError)>,
    is_unsure: bool,
    /// What was heard last of each node, by its place.
    heard: BTreeMap<usize, Heard>,
}

/// What was heard of a node. That there is no leader explains more than that somebody is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    /// It is there, and knows of no leader.
    NoLeader(String),
    /// It is there, and said this.
    Said(String),
    /// It was not reached.
    Unreached(String),
}

impl Heard {
    fn text(&self) -> &str {
        match self {
            Heard::NoLeader(text) | Heard::Said(text) | Heard::Unreached(text) => text,
        }
    }
}

impl Tries {
    fn not_reached(&mut self, place: usize, address: &Address, error: Unreached) {
        let why = match &error {
            Unreached::Net(error) | Unreached::Mistake(error) => error.to_string(),
            error => format!("{address}: {error}"),
        };
        self.heard.insert(place, Heard::Unreached(why));
        if let Unreached::Mistake(error) = error {
            self.mistake(place, error);
        }
    }

    fn not_answered(&mut self, place: usize, line: &Line, verdict: Verdict, status: &Status) {
        self.is_unsure |= verdict == Verdict::Unsure;
        let fault = line.0.fault.get().filter(|_| verdict == Verdict::Stranger);
        let cause = fault.cloned().or_else(|| status.source().map(last_cause));
        let is_its_word = cause.is_none();
        let cause = cause.as_deref().unwrap_or(status.message());
        let text = format!("{}: {cause}", line.address());
        let heard = match is_its_word {
            true if failure::knows_no_leader(status) => Heard::NoLeader(text),
            true => Heard::Said(text),
            false => Heard::Unreached(text),
        };
        self.heard.insert(place, heard);
        if verdict == Verdict::Stranger {
            self.mistake(place, stranger(line.address(), cause));
        }
    }

    /// What was heard last of each node; who is there comes first.
    fn why(&self) -> String {
        let mut heard: Vec<&Heard> = self.heard.values().collect();
        heard.sort();
        let nobody_leads = matches!(heard.first(), Some(Heard::NoLeader(_)));
        let told: Vec<_> = heard.iter().take(MAX_TOLD).map(|heard| heard.text()).collect();
        let more = match heard.len().saturating_sub(MAX_TOLD) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("{}{}{more}", if nobody_leads { "no leader answered: " } else { "" }, told.join("; "))
    }

    fn mistake(&mut self, place: usize, mistake: NetError) {
        if self.mistakes.iter().all(|(known, _)| *known != place) {
            self.mistakes.push((place, mistake));
        }
    }

    fn gave_up(self) -> CallError {
        let why = self.why();
        match self.is_unsure {
            true => CallError::Unknown { why },
            false => CallError::Unavailable { why },
        }
    }
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod tests;
