//! Bytes on their way to each follower. Raft-rs bounds their messages only.

use std::collections::{BTreeMap, VecDeque};

/// Appends sent and not answered.
#[derive(Default)]
pub(super) struct Inflight {
    followers: BTreeMap<u64, Window>,
}

#[derive(Default)]
struct Window {
    /// The last index and the bytes of each append.
    sent: VecDeque<(u64, usize)>,
    bytes: usize,
    paused: bool,
}

/// Whether a follower may be sent more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Pause,
    Resume,
}

impl Inflight {
    pub(super) fn sent(&mut self, follower: u64, last: u64, bytes: usize, bound: usize) -> Change {
        let window = self.followers.entry(follower).or_default();
        window.sent.push_back((last, bytes));
        window.bytes += bytes;
        window.settle(bound)
    }

    /// Everything up to an index has arrived.
    pub(super) fn acknowledged(&mut self, follower: u64, index: u64, bound: usize) -> Change {
        let Some(window) = self.followers.get_mut(&follower) else { return Change::None };
        while window.sent.front().is_some_and(|(last, _)| *last <= index) {
            window.pop();
        }
        window.settle(bound)
    }

    /// The follower lives, but the oldest append may be lost: as raft-rs does, let one more go.
    pub(super) fn heard(&mut self, follower: u64, bound: usize) -> Change {
        let Some(window) = self.followers.get_mut(&follower) else { return Change::None };
        if window.paused {
            window.pop();
        }
        window.settle(bound)
    }

    /// What was sent will not arrive.
    pub(super) fn lost(&mut self, follower: u64) -> Change {
        match self.followers.remove(&follower) {
            Some(window) if window.paused => Change::Resume,
            _ => Change::None,
        }
    }

    /// Nothing is on its way any more; says who was paused.
    pub(super) fn clear(&mut self) -> Vec<u64> {
        let followers = std::mem::take(&mut self.followers);
        followers.into_iter().filter(|(_, window)| window.paused).map(|(follower, _)| follower).collect()
    }
}

impl Window {
    fn pop(&mut self) {
        if let Some((_, bytes)) = self.sent.pop_front() {
            self.bytes -= bytes;
        }
    }

    fn settle(&mut self, bound: usize) -> Change {
        let full = self.bytes >= bound;
        match (self.paused, full) {
            (false, true) => {
                self.paused = true;
                Change::Pause
            }
            (true, false) => {
                self.paused = false;
                Change::Resume
            }
            _ => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_at_the_bound_and_goes_on_below_it() {
        let mut inflight = Inflight::default();
        assert_eq!(inflight.sent(2, 10, 60, 100), Change::None);
        assert_eq!(inflight.sent(2, 20, 60, 100), Change::Pause);
        assert_eq!(inflight.sent(3, 20, 60, 100), Change::None, "each follower has its own");
        assert_eq!(inflight.acknowledged(2, 9, 100), Change::None);
        assert_eq!(inflight.acknowledged(2, 10, 100), Change::Resume);
        assert_eq!(inflight.sent(2, 30, 60, 100), Change::Pause);
        assert_eq!(inflight.heard(2, 100), Change::Resume);
        assert_eq!(inflight.sent(2, 40, 60, 100), Change::Pause);
        assert_eq!(inflight.lost(2), Change::Resume);
        assert_eq!(inflight.lost(2), Change::None);
    }
}
