//! Which segments are kept. Pure.

use std::collections::BTreeSet;

use super::layout::{Layout, SegmentNumber};
use crate::lsn::Lsn;

/// The position before which nothing is needed: neither by the engine after a crash, nor to keep `keep_bytes` of log.
pub fn horizon(checkpoint: Lsn, durable: Lsn, keep_bytes: u64) -> Lsn {
    checkpoint.min(Lsn::new(durable.get().saturating_sub(keep_bytes)))
}

/// The segments that are there.
#[derive(Debug)]
pub(super) struct Retained {
    segments: BTreeSet<SegmentNumber>,
}

impl Retained {
    pub(super) fn new(segments: BTreeSet<SegmentNumber>) -> Retained {
        Retained { segments }
    }

    pub(super) fn add(&mut self, number: SegmentNumber) {
        self.segments.insert(number);
    }

    pub(super) fn remove(&mut self, number: SegmentNumber) {
        self.segments.remove(&number);
    }

    /// The oldest one.
    pub(super) fn oldest(&self) -> Option<SegmentNumber> {
        self.segments.first().copied()
    }

    /// Those before `horizon`, oldest first. The one with the last byte before it stays: it shows that the log was
    /// there.
    pub(super) fn recyclable(&self, layout: Layout, horizon: Lsn) -> Vec<SegmentNumber> {
        let first_kept = layout.segment_of(Lsn::new(horizon.get().saturating_sub(1)));
        self.segments.range(..first_kept).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_before_checkpoint_and_kept_bytes_go() {
        let layout = Layout::new(1024);
        let retained = Retained::new((1..=9).map(SegmentNumber).collect());
        let recyclable = |checkpoint, keep| {
            let horizon = horizon(Lsn::new(checkpoint), Lsn::new(9 * 1024 + 100), keep);
            retained.recyclable(layout, horizon).iter().map(|number| number.0).collect::<Vec<_>>()
        };
        assert_eq!(recyclable(3 * 1024 + 64, 0), [1, 2]);
        assert_eq!(recyclable(3 * 1024, 0), [1], "the byte before the checkpoint lies in segment 2");
        assert_eq!(recyclable(9 * 1024 + 100, 6 * 1024), [1, 2]);
        assert!(recyclable(0, 0).is_empty());
        assert!(recyclable(9 * 1024, u64::MAX).is_empty());
    }
}
