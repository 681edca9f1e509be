//! A cluster on virtual time: a queue of events, and whose turn it is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::clients::{Client, Probe};
use super::node::Node;
use super::oracle::History;
use super::rng::{Digest, Rng};
use super::scenario::Plan;
use super::seen::Seen;
use super::snapshots::Transfer;
use super::watch::Watch;
use crate::ident::ReplicaId;
use crate::raftstore::beat::Word;
use crate::raftstore::entry::Membership;
use crate::raftstore::group::LogRead;
use crate::raftstore::message::Message;
use crate::raftstore::snapshot::SnapshotId;

/// Parts of a tick.
pub(super) const TICK: u64 = 100;
/// Lines of the trace that a failure shows.
const TRACE_LINES: usize = 60;
/// Events of one run: more is an endless loop.
const MAX_EVENTS: u64 = 400_000;

/// A broken promise.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) check: &'static str,
    pub(super) what: String,
}

pub(super) type Checked = Result<(), Violation>;

pub(super) fn violated(check: &'static str, what: impl Into<String>) -> Checked {
    Err(Violation { check, what: what.into() })
}

/// What happens at some time. Nodes are named by their place, replica 1 at 0. What belongs to a life of a node is
/// dropped when that is over.
pub(super) enum Event {
    Tick { node: usize, life: u32 },
    Deliver { node: usize, message: Box<Message> },
    Word { from: usize, node: usize, word: Word },
    Written { node: usize, life: u32 },
    Applied { node: usize, life: u32 },
    LogRead { node: usize, life: u32, read: LogRead },
    Capture { node: usize, life: u32, id: SnapshotId },
    Part(Box<Transfer>),
    SnapshotSent { node: usize, life: u32, to: usize, arrived: bool },
    Request { node: usize, operation: usize },
    Client { client: usize },
    Fault,
    Restart { node: usize, life: u32 },
    Unblock { from: usize, to: usize },
    Probe,
}

struct Scheduled {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// The last lines of what happened, if anybody wants to read them.
pub(super) struct Trace {
    on: bool,
    pub(super) lines: VecDeque<String>,
    pub(super) digest: Digest,
}

/// The cluster.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now: u64,
    /// Events so far: the clock of the clients' history.
    pub(super) events: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    pub(super) nodes: Vec<Node>,
    /// From, to.
    pub(super) blocked: Vec<Vec<bool>>,
    /// Who is alone with every new leader, and until when.
    pub(super) border: Option<(usize, u64)>,
    pub(super) healed: bool,
    pub(super) done: bool,
    pub(super) clients: Vec<Client>,
    pub(super) probe: Probe,
    pub(super) history: History,
    pub(super) requests: u64,
    pub(super) watch: Watch,
    pub(super) seen: Seen,
    pub(super) trace: Trace,
    /// Messages that passed, if a test wants them.
    pub(super) captured: Option<Vec<Message>>,
}

impl World {
    pub(super) fn new(seed: u64, adjust: impl FnOnce(&mut Plan), traced: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::draw(&mut rng);
        adjust(&mut plan);
        let replicas = plan.replicas() as usize;
        let membership = plan.membership();
        let founded = |id| {
            if membership.nodes.contains_key(&ReplicaId::new(id)) { membership.clone() } else { Membership::default() }
        };
        let nodes = (1..=plan.replicas()).map(|id| Node::new(id, plan.config(id), founded(id), &mut rng)).collect();
        let clients = (0..plan.clients).map(|_| Client::default()).collect();
        World {
            rng,
            now: 0,
            events: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            nodes,
            blocked: vec![vec![false; replicas]; replicas],
            border: None,
            healed: false,
            done: false,
            clients,
            probe: Probe::default(),
            history: History::default(),
            requests: 0,
            watch: Watch::new(),
            seen: Seen::default(),
            trace: Trace { on: traced, lines: VecDeque::new(), digest: Digest::new() },
            captured: None,
            plan,
        }
    }

    /// Runs until everything healed and went on.
    pub(super) fn run(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            self.start(node)?;
        }
        for client in 0..self.clients.len() {
            let after = self.rng.below(10 * TICK);
            self.after(after, Event::Client { client });
        }
        let first = self.rng.below(self.plan.fault_every) + 5 * TICK;
        self.after(first, Event::Fault);
        while !self.done {
            self.next()?;
        }
        self.history.check().or_else(|what| violated("linearizability", what))
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled { at: self.now + delay, sequence: self.sequence, event }));
    }

    pub(super) fn next(&mut self) -> Checked {
        let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() else {
            return violated("progress", "nothing will ever happen");
        };
        self.now = at;
        self.events += 1;
        if self.events > MAX_EVENTS {
            return violated("progress", "too much happens");
        }
        if !self.healed && self.now >= self.plan.chaos_ticks * TICK {
            self.heal()?;
        }
        if let Some(until) = self.paused_until(&event) {
            self.after(until - self.now, event);
            return Ok(());
        }
        self.trace.digest = self.trace.digest.number(at);
        self.handle(event)
    }

    fn handle(&mut self, event: Event) -> Checked {
        match event {
            Event::Tick { node, life } if self.is_up(node, life) => self.tick(node),
            Event::Deliver { node, message } => self.deliver(node, *message),
            Event::Word { from, node, word } => {
                self.word(from, node, word);
                Ok(())
            }
            Event::Written { node, life } if self.lives(node, life) => self.written(node),
            Event::Applied { node, life } if self.lives(node, life) => self.applied(node),
            Event::LogRead { node, life, read } if self.lives(node, life) => self.log_read(node, &read),
            Event::Capture { node, life, id } if self.lives(node, life) => self.capture(node, id),
            Event::Part(transfer) => self.part(transfer),
            Event::SnapshotSent { node, life, to, arrived } if self.lives(node, life) => {
                self.snapshot_sent(node, to, arrived)
            }
            Event::Request { node, operation } => self.request(node, operation),
            Event::Client { client } => self.client(client),
            Event::Fault if !self.healed => self.fault(),
            Event::Restart { node, life } if self.nodes[node].life == life => self.start(node),
            Event::Unblock { from, to } => {
                self.blocked[from][to] = false;
                Ok(())
            }
            Event::Probe => self.probe(),
            _ => Ok(()),
        }
    }

    fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].life == life && self.nodes[node].group.is_some()
    }

    /// Whose event it is, if he is asleep.
    fn paused_until(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Tick { node, .. }
            | Event::Deliver { node, .. }
            | Event::Word { node, .. }
            | Event::Written { node, .. }
            | Event::Applied { node, .. }
            | Event::LogRead { node, .. }
            | Event::Capture { node, .. }
            | Event::SnapshotSent { node, .. }
            | Event::Request { node, .. } => *node,
            Event::Part(transfer) => transfer.to,
            _ => return None,
        };
        let until = self.nodes[node].paused_until;
        (until > self.now).then_some(until)
    }

    /// A line of the trace. What is formatted is only made if somebody reads it.
    pub(super) fn note(&mut self, line: impl FnOnce(&World) -> String) {
        if self.trace.on {
            let line = format!("{:>7}.{:02} {}", self.now / TICK, self.now % TICK, line(self));
            if self.trace.lines.len() == TRACE_LINES {
                self.trace.lines.pop_front();
            }
            self.trace.lines.push_back(line);
        }
    }
}
