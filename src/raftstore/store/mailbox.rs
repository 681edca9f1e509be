//! What reaches the driver. What comes from outside is bounded and shed when it does not fit; what its own threads
//! report is bounded by what they were given.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};

use tokio::sync::oneshot;

use super::checks::CheckWaiter;
use super::handle::{ProposalWaiter, ReadWaiter};
use super::hibernation::Words;
use super::metrics;
use crate::ident::{GroupId, LogIndex, NodeId, ReplicaId};
use crate::raftstore::beat::{NODE_GROUP, Word};
use crate::raftstore::consistency::{CheckMessage, Digest};
use crate::raftstore::context::Attempt;
use crate::raftstore::entry::Entry;
use crate::raftstore::group::{LogRead, MembershipChange, PersistId, Refusal};
use crate::raftstore::log_store::StoreError;
use crate::raftstore::message::{Envelope, Message};
use crate::raftstore::snapshot::Captured;
use crate::raftstore::transport::InboxFull;

use super::driver::OpenedGroup;
use super::error::GroupFailure;
use super::seat::Seat;
use super::snapshots::Offer;

/// With no more unanswered requests than this a node has next to nothing to do.
pub(super) const FEW_REQUESTS: usize = 2;
/// Nor with no more bytes of entries than this in an input, or on their way to the disk.
const FEW_BYTES: usize = 4 << 10;
/// Nor with no more messages than this in an input.
const FEW_MESSAGES: usize = 8;

/// Bounds of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxConfig {
    /// Proposals and reads that wait for the driver, 16 384 by default. More are answered "busy".
    pub max_requests: usize,
    /// The same of one group, 8 192 by default: a flooded one leaves room for others.
    pub max_group_requests: usize,
    /// Messages of peers that wait for the driver, 16 384 by default. More are dropped.
    pub max_messages: usize,
    /// The same in bytes of entries, 64 MiB by default.
    pub max_message_bytes: usize,
}

impl Default for MailboxConfig {
    fn default() -> MailboxConfig {
        MailboxConfig {
            max_requests: 16 << 10,
            max_group_requests: 8 << 10,
            max_messages: 16 << 10,
            max_message_bytes: 64 << 20,
        }
    }
}

/// What the driver is told.
pub(super) enum Input {
    Propose {
        group: GroupId,
        command: Vec<u8>,
        attempt: Option<Attempt>,
        waiter: ProposalWaiter,
    },
    Read {
        group: GroupId,
        waiter: ReadWaiter,
    },
    Change {
        group: GroupId,
        change: Box<MembershipChange>,
        waiter: ProposalWaiter,
    },
    /// A node says that a replica was removed from its group.
    Removed {
        from: NodeId,
        envelope: Envelope,
    },
    /// What a peer sent at once.
    Messages {
        from: NodeId,
        messages: Vec<(GroupId, Message)>,
    },
    Unreachable(NodeId),
    Transfer {
        group: GroupId,
        to: ReplicaId,
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    Campaign(GroupId),
    Persisted(Vec<(GroupId, PersistId)>),
    /// Groups have applied up to the first entry, and would not lose what was done up to the second.
    Applied(Vec<(GroupId, LogIndex, LogIndex)>),
    ApplyFailed {
        group: GroupId,
        failure: Arc<GroupFailure>,
    },
    LogRead {
        group: GroupId,
        read: LogRead,
        entries: Vec<Entry>,
    },
    /// A peer has a snapshot for a group.
    Offer(Box<Offer>),
    /// All of it is in the store.
    Filled {
        group: GroupId,
        message: Box<Message>,
    },
    Captured {
        group: GroupId,
        captured: Arc<dyn Captured>,
    },
    SnapshotSent {
        group: GroupId,
        to: ReplicaId,
        arrived: bool,
    },
    /// Compare what the replicas of a group hold.
    Check {
        group: GroupId,
        waiter: CheckWaiter,
    },
    /// A replica says something about a check.
    CheckSaid {
        from: NodeId,
        envelope: Envelope,
    },
    /// A state that was captured for a check has this digest, or none.
    Hashed {
        group: GroupId,
        at: LogIndex,
        digest: Option<Digest>,
    },
    /// Something in a group's state, as of an entry, cannot be read.
    Damaged {
        group: GroupId,
        at: LogIndex,
        error: StoreError,
    },
    /// A group's log or records cannot be read.
    LogDamaged {
        group: GroupId,
        error: StoreError,
    },
    /// The disk makes no progress, or does again.
    Stalled(bool),
    Open(Box<OpenedGroup>),
    /// Removes a group for good: its replica first, then what the threads still hold of it, one after the other, then
    /// what is stored. Nothing of this life reaches a later one, and nothing is written behind the tombstone.
    Destroy(Closing),
    /// The apply thread has nothing of the group any more.
    NothingToApply(Closing),
    /// Nor has the log reader.
    NothingToRead(Closing),
    /// The whole store fails or is shut down.
    Stop(Arc<GroupFailure>),
}

/// A group on its way out, and who waits for that. Dropped unanswered it says that the raftstore stopped.
pub(super) struct Closing {
    pub(super) group: GroupId,
    pub(super) answer: Sender<()>,
}

/// The sending end.
#[derive(Clone)]
pub(super) struct Mailbox {
    sender: Sender<Input>,
    config: MailboxConfig,
    waiting: Arc<Waiting>,
    pub(super) words: Words,
    seat: Arc<Seat>,
}

/// How many of the requests that wait are those of one group.
#[derive(Clone, Default)]
pub(super) struct Share(Arc<AtomicUsize>);

impl Share {
    /// The driver took one out.
    pub(super) fn taken(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Input {
    /// How many things it says.
    pub(super) fn len(&self) -> usize {
        match self {
            Input::Messages { messages, .. } => messages.len(),
            _ => 1,
        }
    }

    /// Whose request it is.
    pub(super) fn requests(&self) -> Option<GroupId> {
        match self {
            Input::Propose { group, .. } | Input::Read { group, .. } | Input::Change { group, .. } => Some(*group),
            _ => None,
        }
    }

    /// Whether it takes the driver no time worth mentioning.
    fn is_light(&self) -> bool {
        match self {
            Input::Propose { command, .. } => command.len() <= FEW_BYTES,
            Input::Messages { messages, .. } => messages.len() <= FEW_MESSAGES && entries_bytes(messages) <= FEW_BYTES,
            Input::Persisted(done) => done.len() <= FEW_MESSAGES,
            Input::Applied(done) => done.len() <= FEW_MESSAGES,
            Input::Read { .. } => true,
            _ => false,
        }
    }
}

fn entries_bytes(messages: &[(GroupId, Message)]) -> usize {
    messages.iter().map(|(_, message)| message.entries_size_bytes()).sum()
}

/// A request that is not answered yet.
pub(super) struct Unanswered(Arc<Waiting>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.unanswered.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
pub(super) struct Waiting {
    /// Requests whose waiters have no answer yet, in the mailbox or behind it.
    unanswered: AtomicUsize,
    /// Bytes handed to the persist thread and not written.
    pub(super) queued_bytes: Arc<AtomicUsize>,
    requests: AtomicUsize,
    messages: AtomicUsize,
    message_bytes: AtomicUsize,
}

impl Waiting {
    /// The driver took an input out.
    pub(super) fn taken(&self, input: &Input) {
        match input {
            Input::Propose { .. } | Input::Read { .. } | Input::Change { .. } => {
                self.requests.fetch_sub(1, Ordering::Relaxed);
            }
            Input::Removed { .. } | Input::CheckSaid { .. } => {
                self.messages.fetch_sub(1, Ordering::Relaxed);
            }
            Input::Messages { messages, .. } => {
                let bytes = entries_bytes(messages);
                self.messages.fetch_sub(messages.len(), Ordering::Relaxed);
                self.message_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Whether there is next to nothing to do.
    fn is_calm(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) <= FEW_REQUESTS
            && self.queued_bytes.load(Ordering::Relaxed) <= FEW_BYTES
    }
}

impl Mailbox {
    pub(super) fn new(config: MailboxConfig) -> (Mailbox, Receiver<Input>, Arc<Waiting>) {
        let (sender, receiver) = channel();
        let waiting = Arc::new(Waiting::default());
        let (words, seat) = (Words::default(), Arc::default());
        (Mailbox { sender, config, waiting: Arc::clone(&waiting), words, seat }, receiver, waiting)
    }

    /// What is turned by who brings inputs.
    pub(super) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }

    /// There is something for the driver's thread to do.
    pub(super) fn call_driver(&self) {
        self.seat.call();
    }

    /// Begins a request: it counts as unanswered until this is dropped.
    pub(super) fn begin_request(&self) -> Unanswered {
        self.waiting.unanswered.fetch_add(1, Ordering::Relaxed);
        Unanswered(Arc::clone(&self.waiting))
    }

    /// Puts an input into the mailbox and has the driver turned: here and now if there is next to nothing to do.
    fn bring(&self, input: Input) -> Result<(), SendError<Input>> {
        let in_passing = input.is_light() && self.waiting.is_calm();
        self.sender.send(input)?;
        match in_passing {
            true => self.seat.turn_in_passing(),
            false => self.seat.call(),
        }
        Ok(())
    }

    /// A proposal or read; given back if the mailbox is full or the driver gone.
    pub(super) fn request(&self, share: &Share, input: Input) -> Result<(), Unaccepted> {
        if share.0.fetch_add(1, Ordering::Relaxed) >= self.config.max_group_requests {
            share.taken();
            metrics::shed("request");
            return Err(Unaccepted::Full);
        }
        self.request_of_any(input).inspect_err(|_| share.taken())
    }

    fn request_of_any(&self, input: Input) -> Result<(), Unaccepted> {
        if self.waiting.requests.fetch_add(1, Ordering::Relaxed) >= self.config.max_requests {
            self.waiting.requests.fetch_sub(1, Ordering::Relaxed);
            metrics::shed("request");
            return Err(Unaccepted::Full);
        }
        self.bring(input).map_err(|_| {
            self.waiting.requests.fetch_sub(1, Ordering::Relaxed);
            Unaccepted::Stopped
        })
    }

    /// What one of the driver's own threads, or an operator, has to say. A driver that is gone needs no news.
    pub(super) fn tell(&self, input: Input) {
        let _ = self.bring(input);
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unaccepted {
    Full,
    Stopped,
}

impl Mailbox {
    fn deliver_beat(&self, from: NodeId, envelope: &Envelope) -> Result<(), InboxFull> {
        match Word::decode(&envelope.message) {
            Some(word) => self.words.note(from, word),
            None => {
                metrics::shed("garbage");
                Ok(())
            }
        }
    }

    /// What a peer sent. Says which of it was dropped, by place.
    pub(super) fn deliver(&self, from: NodeId, envelopes: &[Envelope]) -> Vec<usize> {
        let (mut messages, mut places, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
        for (place, envelope) in envelopes.iter().enumerate() {
            // Decoded here, on the thread that received it: the driver has enough to do.
            let taken = if envelope.group == NODE_GROUP {
                self.deliver_beat(from, envelope).is_ok()
            } else if envelope.message.is_empty() {
                self.deliver_word(Input::Removed { from, envelope: envelope.clone() })
            } else if CheckMessage::is_one(&envelope.message) {
                self.deliver_word(Input::CheckSaid { from, envelope: envelope.clone() })
            } else if let Some(message) = envelope.open() {
                let has_room = self.reserve(message.entries_size_bytes());
                if has_room {
                    messages.push((envelope.group, message));
                    places.push(place);
                }
                has_room
            } else {
                metrics::shed("garbage");
                true
            };
            if !taken {
                dropped.push(place);
            }
        }
        if !messages.is_empty()
            && let Err(SendError(input)) = self.bring(Input::Messages { from, messages })
        {
            self.waiting.taken(&input);
            dropped.extend(places);
        }
        dropped
    }

    /// Room for a message of a peer.
    fn reserve(&self, bytes: usize) -> bool {
        let messages = self.waiting.messages.fetch_add(1, Ordering::Relaxed);
        let before = self.waiting.message_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_full =
            messages >= self.config.max_messages || (before > 0 && before + bytes > self.config.max_message_bytes);
        if is_full {
            self.waiting.messages.fetch_sub(1, Ordering::Relaxed);
            self.waiting.message_bytes.fetch_sub(bytes, Ordering::Relaxed);
            metrics::shed("message");
        }
        !is_full
    }

    /// A peer's message that is none of Raft's.
    fn deliver_word(&self, input: Input) -> bool {
        if !self.reserve(0) {
            return false;
        }
        self.bring(input).map_err(|SendError(input)| self.waiting.taken(&input)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flooded_group_leaves_room_for_others() {
        let config = MailboxConfig { max_requests: 10, max_group_requests: 4, ..MailboxConfig::default() };
        let (mailbox, receiver, waiting) = Mailbox::new(config);
        let read = |group: u64| {
            let waiter = ReadWaiter::new(oneshot::channel().0, &mailbox);
            Input::Read { group: GroupId::new(group), waiter }
        };
        let (flooded, quiet) = (Share::default(), Share::default());
        for _ in 0..4 {
            mailbox.request(&flooded, read(1)).unwrap();
        }
        assert_eq!(mailbox.request(&flooded, read(1)), Err(Unaccepted::Full));
        mailbox.request(&quiet, read(2)).unwrap();
        let taken = receiver.recv().unwrap();
        assert_eq!(taken.requests(), Some(GroupId::new(1)));
        waiting.taken(&taken);
        flooded.taken();
        mailbox.request(&flooded, read(1)).unwrap();
        assert_eq!(waiting.requests(), 5);
        drop(receiver);
        assert_eq!(mailbox.request(&quiet, read(2)), Err(Unaccepted::Stopped));
        assert_eq!((waiting.requests(), quiet.0.load(Ordering::Relaxed)), (5, 1), "what was not taken takes no room");
    }
}
