//! Clients that use a few registers in the KV of a cluster, through any of its nodes, until they are told to stop; and what
//! must be true of all that they did.
//!
//! A register is two keys, `VALUE` and `GONE`. While there is no value, `GONE` says which deletion it was: so each state of
//! a register has a value of its own, and what clients saw can be checked ([`crate::register`]). Besides, the store's own
//! order has to fit: each change has a revision of its own, whatever was acknowledged stands under the one that was said,
//! and the revisions are in the order in which things happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay::cluster::rpc::channel::Nodes;
use mainstay::cluster::rpc::client::Client;
use mainstay::meta::client::{Keys, Meta, compare, ops};
use mainstay::meta::proto::action::Kind;
use mainstay::meta::proto::op_done::Kind as OpOutcome;
use mainstay::meta::proto::{Delete, KeyValue, Put, Txn};
use mainstay::meta::service::MetaError;
use mainstay::net::NetConfig;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::register::{Action, History, Moment, NEVER, Operation, Value};
use crate::support::Random;
use crate::watched::{Change, Watched};

const REGISTERS: u64 = 4;
const CLIENTS: u64 = 6;
/// Operations until a client is made anew, with other nodes first.
const CLIENT_LASTS: u64 = 50;
/// What a client waits between two operations: others use the machine, too.
const PACE: Duration = Duration::from_millis(4);
/// How long a client is patient that outlives any failover.
pub const PATIENT: Duration = Duration::from_secs(20);
/// One that does not.
const HASTY: Duration = Duration::from_millis(600);

/// The keys of all registers begin so.
pub const PREFIX: &str = "r";

fn value_key(register: u64) -> String {
    format!("{PREFIX}{register}/value")
}

fn gone_key(register: u64) -> String {
    format!("{PREFIX}{register}/gone")
}

fn bytes(value: u64) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// The number that a pair holds.
pub fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// A revision that a client was told, and when.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    revision: u64,
    /// What was written there; nothing of a read.
    written: Option<u64>,
    start: Moment,
    end: Moment,
}

/// What a register is, as its keys say.
#[derive(Clone, Copy, Debug)]
enum State {
    Nothing,
    Holds(u64),
    Gone(u64),
}

impl State {
    fn of(register: u64, pairs: &[KeyValue]) -> State {
        let of = |key: String| pairs.iter().find(|pair| pair.key == key.as_bytes()).map(|pair| number(&pair.value));
        let gone = || of(gone_key(register)).map(State::Gone);
        of(value_key(register)).map(State::Holds).or_else(gone).unwrap_or(State::Nothing)
    }

    fn value(self) -> Value {
        match self {
            State::Nothing => None,
            State::Holds(value) | State::Gone(value) => Some(value),
        }
    }
}

/// What all clients share.
struct Shared {
    addresses: Vec<String>,
    history: History,
    stamps: Mutex<Vec<Stamp>>,
    /// Writes that were said to have had no effect.
    without_effect: Mutex<Vec<u64>>,
    unknown: AtomicU64,
    unread: AtomicU64,
    last: Mutex<Instant>,
    /// The longest time in which nothing was acknowledged.
    gap: Mutex<Duration>,
    stop: AtomicBool,
}

/// What became of it all.
pub struct Report {
    pub acknowledged: u64,
    pub unknown: u64,
    pub without_effect: usize,
    pub unread: u64,
    pub operations: usize,
    pub changes: usize,
    pub longest_gap: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { acknowledged, unknown, without_effect, unread, operations, changes, longest_gap } = self;
        write!(
            f,
            "{acknowledged} writes acknowledged, {unknown} unknown, {without_effect} without effect, {unread} reads without \
             answer; {operations} operations checked, {changes} changes watched; nothing was acknowledged for {longest_gap:?} \
             at the longest"
        )
    }
}

/// Clients at work, on threads of their own.
pub struct Load {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    watched: Watched,
}

/// The typed client, over these nodes.
pub fn client(addresses: &[String], within: Duration) -> Meta {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Client::new(Nodes::new(addresses, &NetConfig::default()).unwrap()).meta("a client").within(within)
}

impl Load {
    /// Begins. Every second client is hasty, if some may be.
    pub fn start(addresses: &[String], random: &mut Random, some_are_hasty: bool) -> Load {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shared = Arc::new(Shared {
            addresses: addresses.to_vec(),
            history: History::default(),
            stamps: Mutex::default(),
            without_effect: Mutex::default(),
            unknown: AtomicU64::new(0),
            unread: AtomicU64::new(0),
            last: Mutex::new(Instant::now()),
            gap: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let (clients, watched) = runtime.block_on(async {
            let watched = Watched::start(addresses).await;
            let mut clients = JoinSet::new();
            for id in 0..CLIENTS {
                let patience = if some_are_hasty && id % 2 == 1 { HASTY } else { PATIENT };
                clients.spawn(Arc::clone(&shared).work(random.split(), patience));
            }
            (clients, watched)
        });
        Load { runtime, shared, clients, watched }
    }

    /// Writes that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.history.acknowledged.load(Ordering::SeqCst)
    }

    /// Lets the clients end what they do, and checks everything.
    pub fn end(mut self) -> Report {
        self.shared.stop.store(true, Ordering::SeqCst);
        let (shared, clients) = (Arc::clone(&self.shared), &mut self.clients);
        self.runtime.block_on(async {
            while let Some(client) = clients.join_next().await {
                client.unwrap();
            }
        });
        let meta = client(&shared.addresses, PATIENT);
        let changes = self.runtime.block_on(self.watched.end(&meta));
        shared.check_revisions(&Revisions::of(&changes));
        let operations = shared.history.check();
        assert_eq!(operations.len() as u64, REGISTERS, "all were used: {operations:?}");
        Report {
            acknowledged: shared.history.acknowledged.load(Ordering::SeqCst),
            unknown: shared.unknown.load(Ordering::SeqCst),
            without_effect: shared.without_effect.lock().len(),
            unread: shared.unread.load(Ordering::SeqCst),
            operations: operations.values().sum(),
            changes: changes.len(),
            longest_gap: *shared.gap.lock(),
        }
    }
}

/// In which revision each value was written.
struct Revisions(BTreeMap<u64, u64>);

impl Revisions {
    fn of(changes: &[Change]) -> Revisions {
        let mut of_value = BTreeMap::new();
        for Change { revision, key, value } in changes {
            // The end of it all is no register.
            if let Some(value) = value.as_ref().filter(|_| key.contains(&b'/')) {
                let before = of_value.insert(number(value), *revision);
                assert_eq!(before, None, "{} was written twice, the second time in {revision}", number(value));
            }
        }
        Revisions(of_value)
    }
}

impl Shared {
    fn check_revisions(&self, revisions: &Revisions) {
        for value in self.without_effect.lock().iter() {
            assert_eq!(revisions.0.get(value), None, "{value} was said to have had no effect");
        }
        let mut stamps = self.stamps.lock().clone();
        for stamp in &stamps {
            if let Some(value) = stamp.written {
                assert_eq!(revisions.0.get(&value), Some(&stamp.revision), "{value} was acknowledged: {stamp:?}");
            }
        }
        // What began after another had ended is not of an earlier revision; if it changed something, of a later one.
        let mut ended = stamps.clone();
        ended.sort_by_key(|stamp| stamp.end);
        stamps.sort_by_key(|stamp| stamp.start);
        let mut ended = ended.into_iter().peekable();
        let mut latest = 0;
        for stamp in stamps {
            while let Some(before) = ended.next_if(|before| before.end < stamp.start) {
                latest = latest.max(before.revision);
            }
            let least = latest + u64::from(stamp.written.is_some());
            assert!(stamp.revision >= least, "{stamp:?} came after revision {latest} was told");
        }
    }

    async fn work(self: Arc<Self>, mut random: Random, patience: Duration) {
        // What this client saw last of each register.
        let mut seen = [State::Nothing; REGISTERS as usize];
        while !self.stop.load(Ordering::SeqCst) {
            let mut addresses = self.addresses.clone();
            let first = random.below(addresses.len() as u64) as usize;
            addresses.rotate_left(first);
            let meta = client(&addresses, patience);
            for _ in 0..CLIENT_LASTS {
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                let register = random.below(REGISTERS);
                let seen = &mut seen[register as usize];
                match random.below(8) {
                    0..3 => self.read(&meta, register, seen).await,
                    3 => self.read_value(&meta, register, seen).await,
                    4 => self.put(&meta, register, seen).await,
                    5..7 => self.swap(&meta, register, seen).await,
                    _ => self.delete(&meta, register, seen, random.below(2) == 0).await,
                }
                tokio::time::sleep(PACE).await;
            }
        }
    }

    /// A register as a range of two keys.
    async fn read(&self, meta: &Meta, register: u64, seen: &mut State) {
        let start = self.history.now();
        let keys = Keys::Prefix(format!("{PREFIX}{register}/").into_bytes());
        match meta.kv().range(keys, 0).await {
            Ok(found) => {
                *seen = State::of(register, &found.pairs);
                let end = self.history.now();
                self.history.note(register, Operation { action: Action::Read(seen.value()), start, end });
                self.stamps.lock().push(Stamp { revision: found.revision, written: None, start, end });
            }
            Err(error) => self.not_read(&error),
        }
    }

    /// The value alone. If there is none, nobody says since when.
    async fn read_value(&self, meta: &Meta, register: u64, seen: &mut State) {
        let start = self.history.now();
        match meta.kv().get(value_key(register)).await {
            Ok(Some(pair)) => {
                *seen = State::Holds(number(&pair.value));
                let end = self.history.now();
                self.history.note(register, Operation { action: Action::Read(seen.value()), start, end });
            }
            Ok(None) => {}
            Err(error) => self.not_read(&error),
        }
    }

    fn not_read(&self, error: &MetaError) {
        assert!(matches!(error, MetaError::Unavailable { .. }), "{error:?}");
        self.unread.fetch_add(1, Ordering::SeqCst);
    }

    async fn put(&self, meta: &Meta, register: u64, seen: &mut State) {
        let (value, start) = (self.history.new_value(), self.history.now());
        let put = meta.kv().put(value_key(register), bytes(value)).await;
        if self.wrote(register, Action::Write(value), start, put).is_some() {
            *seen = State::Holds(value);
        }
    }

    /// Writes if the register is what this client saw last.
    async fn swap(&self, meta: &Meta, register: u64, seen: &mut State) {
        let (from, to, start) = (seen.value(), self.history.new_value(), self.history.now());
        let (value, gone) = (value_key(register), gone_key(register));
        let compares = match *seen {
            State::Holds(from) => vec![compare::value(value.clone(), bytes(from))],
            State::Gone(from) => vec![compare::absent(value.clone()), compare::value(gone.clone(), bytes(from))],
            State::Nothing => vec![compare::absent(value.clone()), compare::absent(gone.clone())],
        };
        let then = vec![ops::put(value.clone(), bytes(to))];
        let txn = Txn { compares, then, otherwise: vec![ops::get(value.as_str()), ops::get(gone.as_str())] };
        let done = match meta.kv().txn(txn).await {
            Ok(done) if !done.succeeded => {
                let got = done.ops.into_iter().flat_map(|op| match op.kind {
                    Some(OpOutcome::Get(got)) => got.pairs,
                    _ => Vec::new(),
                });
                *seen = State::of(register, &got.collect::<Vec<_>>());
                let end = self.history.now();
                self.history.note(register, Operation { action: Action::Read(seen.value()), start, end });
                self.stamps.lock().push(Stamp { revision: done.revision, written: None, start, end });
                return;
            }
            done => done.map(|done| done.revision),
        };
        if self.wrote(register, Action::Swap { from, to }, start, done).is_some() {
            *seen = State::Holds(to);
        }
    }

    /// As two actions of a batch, or as a transaction that says what was there.
    async fn delete(&self, meta: &Meta, register: u64, seen: &mut State, as_batch: bool) {
        let (gone, start) = (self.history.new_value(), self.history.now());
        let (value, marker) = (value_key(register), gone_key(register));
        let mut action = Action::Write(gone);
        let done = if as_batch {
            let range = Some(Keys::One(value.into_bytes()).into());
            let put = Put { key: marker.into_bytes(), value: bytes(gone), lease: 0 };
            meta.batch(vec![Kind::Delete(Delete { range }), Kind::Put(put)]).await.map(|done| done.revision)
        } else {
            let then = vec![ops::get(value.as_str()), ops::delete(value.as_str()), ops::put(marker, bytes(gone))];
            let done = meta.kv().txn(Txn { then, ..Txn::default() }).await;
            if let Ok(done) = &done
                && let Some(OpOutcome::Get(got)) = &done.ops[0].kind
                && let Some(pair) = got.pairs.first()
            {
                action = Action::Swap { from: Some(number(&pair.value)), to: gone };
            }
            done.map(|done| done.revision)
        };
        if self.wrote(register, action, start, done).is_some() {
            *seen = State::Gone(gone);
        }
    }

    /// Notes what became of a write.
    fn wrote(&self, register: u64, action: Action, start: Moment, done: Result<u64, MetaError>) -> Option<()> {
        let (Action::Write(value) | Action::Swap { to: value, .. }) = action else { return None };
        match done {
            Ok(revision) => {
                let end = self.history.now();
                self.history.note(register, Operation { action, start, end });
                self.stamps.lock().push(Stamp { revision, written: Some(value), start, end });
                self.history.acknowledged.fetch_add(1, Ordering::SeqCst);
                let now = Instant::now();
                let waited = now.saturating_duration_since(std::mem::replace(&mut *self.last.lock(), now));
                let mut gap = self.gap.lock();
                *gap = waited.max(*gap);
                Some(())
            }
            Err(MetaError::Unknown { .. } | MetaError::AnswerLost) => {
                self.history.note(register, Operation { action, start, end: NEVER });
                self.unknown.fetch_add(1, Ordering::SeqCst);
                None
            }
            Err(MetaError::Unavailable { .. }) => {
                self.without_effect.lock().push(value);
                None
            }
            Err(error) => panic!("{action:?}: {error:?}"),
        }
    }
}
