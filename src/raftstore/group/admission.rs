//! Which messages are taken in the state that a replica is in: its bounds, and what would make raft-rs panic. What a message
//! may say at all is `validate`.

use raft::prelude::MessageType;
use raft::{StateRole, eraftpb};

use super::replica::Group;
use super::validate::Rejected;

/// Questions of followers that a leader keeps before it drops more.
const MAX_FORWARDED_READS: usize = 4096;

impl Group {
    /// Bounds, and what would make raft-rs panic in the state it is in.
    pub(super) fn admit(&self, message: &eraftpb::Message) -> Result<(), Rejected> {
        let raft = &self.node.raft;
        match message.get_msg_type() {
            MessageType::MsgAppend
                if !message.entries.is_empty() && self.unapplied_bytes() >= self.config.max_unapplied_bytes =>
            {
                Err(Rejected::Busy)
            }
            // A replica that knows nothing, or whose state is wrong, asks for a snapshot. Raft-rs goes back to nothing for it.
            MessageType::MsgAppendResponse if message.request_snapshot != 0 => Ok(()),
            // Late. Raft-rs would go back to where the follower was then, and the log may begin behind that by now.
            MessageType::MsgAppendResponse if message.reject && self.matched(message.from) >= message.index => {
                Err(Rejected::Late)
            }
            // It was asked for when all entries were durable, and none came since; raft-rs panics if there are any.
            MessageType::MsgRequestVoteResponse if raft.raft_log.persisted != raft.raft_log.last_index() => {
                Err(Rejected::Inconsistent("a vote that was not asked for"))
            }
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote if self.may_have_promised() => {
                Err(Rejected::Starting)
            }
            MessageType::MsgTimeoutNow if message.from != raft.leader_id => {
                Err(Rejected::Inconsistent("leadership handed over by somebody who does not lead"))
            }
            // Only a learner could offer it; and a sole voter elects itself at once, durable or not.
            MessageType::MsgTimeoutNow if self.is_sole_voter() => {
                Err(Rejected::Inconsistent("leadership handed over to the only voter"))
            }
            // Raft-rs panics, see `snapshots`.
            MessageType::MsgTimeoutNow if self.is_taking_over() => Err(Rejected::Starting),
            MessageType::MsgTimeoutNow if !self.may_lead() => Err(Rejected::Unfit),
            // What it cannot apply stays in memory.
            MessageType::MsgAppend if !message.entries.is_empty() && !self.can_apply() && self.is_full() => {
                Err(Rejected::Busy)
            }
            // Whoever asked will ask again, and somebody who leads. Forwarded on, it might go in circles.
            MessageType::MsgReadIndex if raft.state != StateRole::Leader => {
                Err(Rejected::Inconsistent("a read of somebody who does not lead"))
            }
            MessageType::MsgReadIndex if raft.read_only.pending_read_count() >= MAX_FORWARDED_READS => {
                Err(Rejected::Busy)
            }
            _ => Ok(()),
        }
    }

    /// Whether the entries in memory are at their bound.
    fn is_full(&self) -> bool {
        let bound = self.config.max_unapplied_bytes.saturating_add(self.config.cache_bytes);
        self.node.store().cache_bytes() >= bound
    }
}
