//! What may reach raft-rs: it trusts its input and panics on what a broken or hostile peer could send, and on messages
//! that contradict what it knows. Everything that could is refused here.

use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message};
use raft::prelude::MessageType;

use super::hibernation::SLEEP_CONTEXT_BYTES;
use crate::ident::ReplicaId;
use crate::raftstore::check;
use crate::raftstore::context::Context;
use crate::raftstore::entry::{Membership, Position};
use crate::raftstore::snapshot::SnapshotMeta;
use crate::raftstore::snapshot::header::{self, Content};

/// Bytes of a read's context: its nonce and its number.
pub(super) const READ_CONTEXT_BYTES: usize = 16;

/// No cluster gets there; and from here on, there is room for elections.
const MAX_TERM: u64 = 1 << 62;

/// What a message is held against.
pub(super) struct Known<'a> {
    pub(super) replica: u64,
    pub(super) membership: &'a Membership,
    pub(super) last: u64,
    pub(super) content: Content,
    pub(super) term: u64,
    pub(super) leads: bool,
    pub(super) max_message_bytes: usize,
    pub(super) max_entry_bytes: usize,
}

/// Why a message was refused. Raft goes on as if it had been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// It is for another replica: one that lived here before, perhaps.
    #[error("the message is for another replica")]
    NotForUs,
    /// The sender cannot be one of the group.
    #[error("the sender cannot be a replica of the group")]
    NotAMember,
    /// The sender took part in the group, and does not any more.
    #[error("the sender was removed from the group")]
    Removed,
    /// A kind that never travels, or is not understood.
    #[error("the message is of a kind that never travels")]
    Kind,
    /// Its parts contradict each other.
    #[error("the message contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// It claims that entries were committed or taken over that this replica does not have. Somebody lost what he
    /// acknowledged.
    #[error("the message speaks of entry {index} as agreed upon, but the log ends with {last}: a disk lost entries")]
    BeyondLog {
        /// The index.
        index: u64,
        /// The last entry here.
        last: u64,
    },
    /// It says what was true once: the sender has acknowledged more since.
    #[error("the message comes late")]
    Late,
    /// Entries larger than agreed.
    #[error("the message is larger than agreed")]
    TooLarge,
    /// The replica is reading its own log back.
    #[error("the replica is still starting")]
    Starting,
    /// Too much waits to be applied.
    #[error("too much waits to be applied")]
    Busy,
    /// One replica's machine keeps its own position, and the other's does not.
    #[error("the snapshot is of a state machine that is not of the same kind as this replica's")]
    OtherKind,
    /// Leadership is offered to a replica that must not lead.
    #[error("the replica must not lead: its state is wrong, or its disk makes no progress")]
    Unfit,
}

/// Checks a message that arrived.
pub(super) fn check(message: &Message, known: &Known<'_>) -> Result<(), Rejected> {
    check_ends(message, known)?;
    let kind = MessageType::from_i32(message.msg_type).ok_or(Rejected::Kind)?;
    let reads = matches!(kind, MessageType::MsgReadIndex);
    // Term 0 makes a message local: it would pass all checks of terms. Raft-rs adds one to a term in every election.
    if (message.term == 0) != reads || message.term > MAX_TERM {
        return Err(Rejected::Inconsistent("term"));
    }
    match kind {
        MessageType::MsgAppend => check_append(message, known),
        MessageType::MsgAppendResponse => check_append_response(message, known),
        MessageType::MsgHeartbeat => {
            // Of an older leader it is answered without being believed.
            if message.commit > known.last && message.term >= known.term {
                return Err(Rejected::BeyondLog { index: message.commit, last: known.last });
            }
            check_read_context(message)
        }
        MessageType::MsgHeartbeatResponse => check_read_context(message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => check_read(message),
        MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => no_entries(message),
        // Proposals and transfers are not forwarded, and snapshots come another way.
        _ => Err(Rejected::Kind),
    }
}

/// Checks a message that offers a snapshot, and says of what.
pub(super) fn check_snapshot(message: &Message, known: &Known<'_>) -> Result<SnapshotMeta, Rejected> {
    check_ends(message, known)?;
    let snapshot = match (message.get_msg_type(), &message.snapshot) {
        (MessageType::MsgSnapshot, Some(snapshot)) => snapshot,
        _ => return Err(Rejected::Kind),
    };
    let meta = header::decode(snapshot).ok_or(Rejected::Inconsistent("what the snapshot is of"))?;
    if header::content(snapshot) != Some(known.content) {
        return Err(Rejected::OtherKind);
    }
    let Position { index, term } = meta.position;
    if !(1..=MAX_TERM).contains(&message.term) || term.get() == 0 || term.get() > message.term || index.get() == 0 {
        return Err(Rejected::Inconsistent("position of the snapshot"));
    }
    // Raft-rs panics on a membership that makes no sense.
    if !check::check_members(&meta.membership).is_empty() {
        return Err(Rejected::Inconsistent("membership of the snapshot"));
    }
    no_entries(message)?;
    Ok(meta)
}

/// A replica that knows nothing yet listens to anyone; so does one that may not have heard of a new replica.
fn check_ends(message: &Message, known: &Known<'_>) -> Result<(), Rejected> {
    if message.to != known.replica {
        return Err(Rejected::NotForUs);
    }
    let from = ReplicaId::new(message.from);
    if message.from == 0 || message.from == known.replica {
        return Err(Rejected::NotAMember);
    }
    if known.membership.was_removed(from) {
        return Err(Rejected::Removed);
    }
    Ok(())
}

fn no_entries(message: &Message) -> Result<(), Rejected> {
    match message.entries.is_empty() {
        true => Ok(()),
        false => Err(Rejected::Inconsistent("entries")),
    }
}

/// A heartbeat carries the context of a read, or a request to sleep, or nothing.
fn check_read_context(message: &Message) -> Result<(), Rejected> {
    match message.context.len() {
        0 | READ_CONTEXT_BYTES | SLEEP_CONTEXT_BYTES => no_entries(message),
        _ => Err(Rejected::Inconsistent("context of a heartbeat")),
    }
}

fn check_append(message: &Message, known: &Known<'_>) -> Result<(), Rejected> {
    let (mut index, mut term) = (message.index, message.log_term);
    let mut bytes = 0usize;
    // Raft-rs takes term 0 for that of every entry that it does not have.
    if term > message.term || (term == 0 && index != 0) {
        return Err(Rejected::Inconsistent("term of the previous entry"));
    }
    for entry in &message.entries {
        index = index.checked_add(1).ok_or(Rejected::Inconsistent("index"))?;
        if entry.index != index || entry.term < term || entry.term > message.term || entry.term == 0 {
            return Err(Rejected::Inconsistent("position of an entry"));
        }
        term = entry.term;
        if !is_known(entry) {
            return Err(Rejected::Inconsistent("kind of an entry"));
        }
        if entry.data.len() > known.max_entry_bytes {
            return Err(Rejected::TooLarge);
        }
        bytes = bytes.saturating_add(entry.data.len());
    }
    let limit =
        known.max_message_bytes.saturating_mul(2).max(known.max_entry_bytes.saturating_add(known.max_message_bytes));
    if bytes > limit { Err(Rejected::TooLarge) } else { Ok(()) }
}

/// An older form of changes is not ours, and what does not decode could not be applied.
fn is_known(entry: &Entry) -> bool {
    let context = Context::decode(&entry.context);
    match EntryType::from_i32(entry.entry_type) {
        Some(EntryType::EntryNormal) => context.is_some_and(|context| !matches!(context, Context::Members(_))),
        Some(EntryType::EntryConfChangeV2) => {
            let change: Result<ConfChangeV2, _> = prost_0_11::Message::decode(entry.data.as_slice());
            matches!(context, Some(Context::Plain | Context::Members(_))) && change.is_ok()
        }
        _ => false,
    }
}

fn check_append_response(message: &Message, known: &Known<'_>) -> Result<(), Rejected> {
    // What is said to a leader of another term is not about this log; nor what is said to one that lost entries in a
    // crash before they were durable, and does not lead any more.
    if known.leads && message.term == known.term && message.index > known.last {
        return Err(Rejected::BeyondLog { index: message.index, last: known.last });
    }
    // Whoever asks for a snapshot says in passing where his log ends.
    let asks = message.request_snapshot != 0;
    if asks && known.leads && message.term == known.term && message.request_snapshot > known.last {
        return Err(Rejected::BeyondLog { index: message.request_snapshot, last: known.last });
    }
    if (asks && !message.reject) || (message.reject && !asks && message.reject_hint > message.index) {
        return Err(Rejected::Inconsistent("rejection"));
    }
    no_entries(message)
}

fn check_read(message: &Message) -> Result<(), Rejected> {
    match message.entries.as_slice() {
        [entry] if entry.data.len() == READ_CONTEXT_BYTES => Ok(()),
        _ => Err(Rejected::Inconsistent("context of a read")),
    }
}
