//! A cluster on virtual time: a queue of events, and whose turn it is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::checks::Truth;
use super::clients::{Client, Probe};
use super::disk::{Op, Store};
use super::host::Host;
use super::metadata::Metadata;
use super::oracle::History;
use super::replica::Replica;
use super::rng::{Digest, Rng};
use super::scenario::Plan;
use super::seen::Seen;
use super::snapshots::Transfer;
use super::watch::Watch;
use crate::ident::ReplicaId;
use crate::raftstore::beat::Word;
use crate::raftstore::consistency::{CheckMessage, Digest as StateDigest};
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

/// What happens at some time. Nodes are hosts, counted from 0. Replicas are named by their places: those of a group stand
/// together, replica 1 first. What belongs to a life of either is dropped when that is over.
pub(super) enum Event {
    Tick {
        host: usize,
        life: u32,
    },
    Deliver {
        host: usize,
        group: usize,
        message: Box<Message>,
    },
    Word {
        from: usize,
        host: usize,
        word: Word,
    },
    /// A replica says something about a check of the states.
    CheckSaid {
        host: usize,
        group: usize,
        from: ReplicaId,
        to: ReplicaId,
        message: CheckMessage,
    },
    Hashed {
        place: usize,
        life: u32,
        at: u64,
        digest: Option<StateDigest>,
    },
    Written {
        host: usize,
        life: u32,
    },
    Applied {
        place: usize,
        life: u32,
    },
    LogRead {
        place: usize,
        life: u32,
        read: LogRead,
    },
    Capture {
        place: usize,
        life: u32,
        id: SnapshotId,
    },
    Part(Box<Transfer>),
    SnapshotSent {
        place: usize,
        life: u32,
        to: usize,
        arrived: bool,
    },
    Request {
        place: usize,
        operation: usize,
    },
    Client {
        client: usize,
    },
    /// Whoever asks for something else of the metadata.
    Operator {
        operator: usize,
    },
    /// Whoever watches the metadata.
    Watcher {
        watcher: usize,
    },
    Fault,
    Restart {
        host: usize,
        life: u32,
    },
    Reopen {
        place: usize,
        life: u32,
    },
    /// A replica is told by another that it was removed.
    Removed {
        place: usize,
        by: usize,
    },
    /// Somebody wants a replica to be made, perhaps not for the first time.
    Make {
        place: usize,
    },
    Unblock {
        from: usize,
        to: usize,
    },
    Probe,
}

/// What is known of a group, and how it ends.
pub(super) struct Cell {
    pub(super) watch: Watch,
    pub(super) probe: Probe,
    pub(super) truth: Truth,
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
    pub(super) hosts: Vec<Host>,
    pub(super) replicas: Vec<Replica>,
    /// One for each group.
    pub(super) cells: Vec<Cell>,
    /// Whether broken rules of durable order are reported themselves, or only what follows from them.
    pub(super) rules: bool,
    /// From, to.
    pub(super) blocked: Vec<Vec<bool>>,
    /// Who is alone with every new leader, and until when.
    pub(super) border: Option<(usize, u64)>,
    pub(super) healed: bool,
    pub(super) done: bool,
    pub(super) clients: Vec<Client>,
    pub(super) history: History,
    pub(super) requests: u64,
    pub(super) metadata: Option<Box<Metadata>>,
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
        super::metadata::set_room(&plan);
        let count = plan.replicas() as usize;
        let mut hosts: Vec<Host> = (0..count).map(|_| Host::new(&mut rng)).collect();
        let mut replicas = Vec::new();
        for group in 0..plan.groups as usize {
            for id in 1..=plan.numbers() {
                replicas.push(Replica::new(group, id, &plan));
                if id <= plan.replicas() {
                    hosts[plan.host_of(id)].disk.write(replicas.len() - 1, Op::Make(plan.founding(id)));
                }
            }
        }
        hosts.iter_mut().for_each(|host| host.disk.sync());
        let cell = |_| Cell { watch: Watch::new(), probe: Probe::default(), truth: Truth::default() };
        let cells = (0..plan.groups).map(cell).collect();
        let clients = (0..plan.clients).map(|_| Client::default()).collect();
        World {
            rng,
            now: 0,
            events: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            hosts,
            replicas,
            cells,
            rules: true,
            blocked: vec![vec![false; count]; count],
            border: None,
            healed: false,
            done: false,
            clients,
            history: History::default(),
            requests: 0,
            metadata: plan.metadata.then(Box::default),
            seen: Seen::default(),
            trace: Trace { on: traced, lines: VecDeque::new(), digest: Digest::new() },
            captured: None,
            plan,
        }
    }

    /// Runs until everything healed and went on.
    pub(super) fn run(&mut self) -> Checked {
        for host in 0..self.hosts.len() {
            self.start_host(host)?;
        }
        for client in 0..self.clients.len() {
            let after = self.rng.below(10 * TICK);
            self.after(after, Event::Client { client });
        }
        self.begin_metadata();
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
            Event::Tick { host, life } if self.is_up(host, life) => self.tick(host),
            Event::Deliver { host, group, message } => self.deliver(host, group, *message),
            Event::Word { from, host, word } => {
                self.word(from, host, word);
                Ok(())
            }
            Event::CheckSaid { host, group, from, to, message } => self.check_said(host, group, (from, to), message),
            Event::Hashed { place, life, at, digest } if self.lives(place, life) => self.hashed(place, at, digest),
            Event::Written { host, life } if self.is_up(host, life) => self.written(host),
            Event::Applied { place, life } if self.lives(place, life) => self.applied(place),
            Event::LogRead { place, life, read } if self.lives(place, life) => self.log_read(place, &read),
            Event::Capture { place, life, id } if self.lives(place, life) => self.capture(place, id),
            Event::Part(transfer) => self.part(transfer),
            Event::SnapshotSent { place, life, to, arrived } if self.lives(place, life) => {
                self.snapshot_sent(place, to, arrived)
            }
            Event::Request { place, operation } => self.request(place, operation),
            Event::Client { client } => self.client(client),
            Event::Operator { operator } => self.operator(operator),
            Event::Watcher { watcher } => self.watcher(watcher),
            Event::Fault if !self.healed => self.fault(),
            Event::Restart { host, life } if self.hosts[host].life == life => self.start_host(host),
            Event::Reopen { place, life } if self.is_stopped(place, life) => self.start(place),
            Event::Removed { place, by } => self.removed(place, by),
            Event::Make { place } => self.make_again(place),
            Event::Unblock { from, to } => {
                self.blocked[from][to] = false;
                Ok(())
            }
            Event::Probe => self.probe(),
            _ => Ok(()),
        }
    }

    pub(super) fn is_up(&self, host: usize, life: u32) -> bool {
        self.hosts[host].life == life && self.hosts[host].is_up
    }

    pub(super) fn lives(&self, place: usize, life: u32) -> bool {
        self.replicas[place].life == life && self.replicas[place].group.is_some()
    }

    /// Whether a replica is down on a node that is up.
    fn is_stopped(&self, place: usize, life: u32) -> bool {
        let it = &self.replicas[place];
        it.life == life && it.group.is_none() && !it.is_closing && self.hosts[it.host].is_up
    }

    /// Whose event it is, if he is asleep.
    fn paused_until(&self, event: &Event) -> Option<u64> {
        let host = match event {
            Event::Tick { host, .. }
            | Event::Deliver { host, .. }
            | Event::Word { host, .. }
            | Event::CheckSaid { host, .. }
            | Event::Written { host, .. } => *host,
            Event::Applied { place, .. }
            | Event::LogRead { place, .. }
            | Event::Hashed { place, .. }
            | Event::Capture { place, .. }
            | Event::SnapshotSent { place, .. }
            | Event::Removed { place, .. }
            | Event::Make { place }
            | Event::Request { place, .. } => self.replicas[*place].host,
            Event::Part(transfer) => self.replicas[transfer.to].host,
            _ => return None,
        };
        let until = self.hosts[host].paused_until;
        (until > self.now).then_some(until)
    }

    /// Where the replica of a group with this number stands.
    pub(super) fn place(&self, group: usize, replica: ReplicaId) -> usize {
        group * self.plan.numbers() as usize + replica.get() as usize - 1
    }

    /// The places of a group.
    pub(super) fn places_of(&self, group: usize) -> std::ops::Range<usize> {
        let numbers = self.plan.numbers() as usize;
        group * numbers..(group + 1) * numbers
    }

    /// The replica of a group that a node has, or would have at first.
    pub(super) fn place_on(&self, host: usize, group: usize) -> usize {
        let made = self.made_on(host, group);
        made.unwrap_or_else(|| self.place(group, ReplicaId::new(host as u64 + 1)))
    }

    /// The replica of a group that a node has.
    pub(super) fn made_on(&self, host: usize, group: usize) -> Option<usize> {
        let disk = &self.hosts[host].disk.current;
        self.places_of(group).find(|place| disk.get(*place).is_some())
    }

    /// What the disk shows of a replica.
    pub(super) fn store(&self, place: usize) -> &Store {
        self.hosts[self.replicas[place].host].disk.current.of(place)
    }

    pub(super) fn write(&mut self, place: usize, op: Op) {
        self.hosts[self.replicas[place].host].disk.write(place, op);
    }

    /// Some group.
    pub(super) fn draw_group(&mut self) -> usize {
        if self.cells.len() == 1 { 0 } else { self.rng.below(self.cells.len() as u64) as usize }
    }

    /// Somebody who leads a group.
    pub(super) fn leader_of(&self, group: usize) -> Option<usize> {
        self.places_of(group).find(|place| self.replicas[*place].leads())
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
