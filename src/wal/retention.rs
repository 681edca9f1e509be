//! Which segments are kept, and by whom. Pure: positions in, a decision that explains itself out.
//!
//! A segment may go when nobody needs it any more: neither the checkpoint, because the engine's files hold everything
//! before it, nor the bytes to keep, nor any holder. The first two are promises and always kept. A holder is somebody who
//! may be gone for good, a standby or a reader that hangs: one that keeps more than `max_retained_bytes` is
//! invalidated, so that it does not fill the disk for all.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::layout::{Layout, SegmentNumber};
use crate::lsn::Lsn;

/// What somebody needs the log for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HolderKind {
    /// It is being read, by a [`Reader`](super::Reader).
    Reader,
    /// A replication slot: somebody who comes back and goes on where he was.
    Slot,
    /// It is still to be copied into an archive.
    Archive,
}

impl HolderKind {
    /// Its name, for people and metrics.
    pub fn name(self) -> &'static str {
        match self {
            HolderKind::Reader => "reader",
            HolderKind::Slot => "slot",
            HolderKind::Archive => "archive",
        }
    }
}

/// Somebody who needs the log from a position on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What for.
    pub kind: HolderKind,
    /// What people call it.
    pub name: Arc<str>,
    /// The oldest position it still needs.
    pub needs: Lsn,
}

/// What the decision follows from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The shape of the log.
    pub layout: Layout,
    /// The segments that are there.
    pub segments: &'a BTreeSet<SegmentNumber>,
    /// The engine's files hold everything before it.
    pub checkpoint: Lsn,
    /// Where the log ends, durably.
    pub durable: Lsn,
    /// How many bytes before `durable` are kept in any case.
    pub keep_bytes: u64,
    /// How many bytes before `durable` holders may keep, to within a segment; 0: any number.
    pub max_retained_bytes: u64,
    /// Who else needs the log.
    pub holders: &'a [Holder],
}

/// Who keeps a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keeper {
    /// It is written to now, or prepared to be written to.
    Writer,
    /// The engine's files do not hold all of it yet, or it shows that the log reached the checkpoint.
    Checkpoint,
    /// The setting `keep_bytes`.
    KeepBytes,
    /// A holder.
    Holder {
        /// What it needs the log for.
        kind: HolderKind,
        /// What people call it.
        name: Arc<str>,
    },
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keeper::Writer => f.write_str("the writer"),
            Keeper::Checkpoint => f.write_str("the checkpoint"),
            Keeper::KeepBytes => f.write_str("keep_bytes"),
            Keeper::Holder { kind, name } => write!(f, "{} {name}", kind.name()),
        }
    }
}

/// Why a holder's log is not kept for it any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// Who it was.
    pub holder: Holder,
    /// How many bytes of log it kept.
    pub retained_bytes: u64,
    /// How many were allowed.
    pub max_retained_bytes: u64,
}

impl fmt::Display for Invalidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { kind, name, needs } = &self.holder;
        let (retained, max) = (self.retained_bytes, self.max_retained_bytes);
        write!(f, "{} {name} was invalidated: it needed the log from {needs} on, ", kind.name())?;
        write!(f, "which kept {retained} bytes, and max_retained_bytes is {max}")
    }
}

/// From which segment on somebody keeps all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    first: SegmentNumber,
    keeper: Keeper,
}

/// What goes, what stays, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Sorted by the first segment that they keep.
    claims: Vec<Claim>,
    recyclable: Vec<SegmentNumber>,
    /// Each with its place among the holders that were asked about.
    invalidated: Vec<(usize, Invalidation)>,
}

impl Decision {
    /// The segments that nobody needs, oldest first.
    pub fn recyclable(&self) -> &[SegmentNumber] {
        &self.recyclable
    }

    /// Who keeps a segment, whoever keeps most first; nobody if it may go.
    pub fn keepers(&self, segment: SegmentNumber) -> impl Iterator<Item = &Keeper> {
        self.claims.iter().take_while(move |claim| claim.first <= segment).map(|claim| &claim.keeper)
    }

    /// Why a segment stays, for people: "kept by the checkpoint, slot standby-2", or that it may go.
    pub fn explain(&self, segment: SegmentNumber) -> String {
        let keepers: Vec<_> = self.keepers(segment).map(Keeper::to_string).collect();
        if keepers.is_empty() { "needed by nobody".to_owned() } else { format!("kept by {}", keepers.join(", ")) }
    }

    /// The holders that have to be invalidated for this, the worst first.
    pub fn invalidated(&self) -> impl Iterator<Item = &Invalidation> {
        self.invalidated.iter().map(|(_, invalidation)| invalidation)
    }

    /// The places of those among the holders that were asked about.
    pub(super) fn into_invalidated(self) -> Vec<(usize, Invalidation)> {
        self.invalidated
    }
}

/// Decides what is kept.
///
/// A holder is invalidated only if that makes room: not where the checkpoint or `keep_bytes` keep the same segments.
pub fn decide(facts: &Facts<'_>) -> Decision {
    let Facts { layout, durable, .. } = *facts;
    let back = |bytes| Lsn::new(durable.get().saturating_sub(bytes));
    // The segment with the last byte before a position shows that the log was there.
    let holding_last_byte = |position: Lsn| layout.segment_of(Lsn::new(position.get().saturating_sub(1)));
    let mut claims = vec![
        Claim { first: holding_last_byte(facts.checkpoint.min(durable)), keeper: Keeper::Checkpoint },
        Claim { first: holding_last_byte(durable), keeper: Keeper::Writer },
    ];
    if facts.keep_bytes > 0 {
        claims.push(Claim { first: holding_last_byte(back(facts.keep_bytes)), keeper: Keeper::KeepBytes });
    }
    let promised = claims.iter().map(|claim| claim.first).min().unwrap_or(SegmentNumber(0));
    let allowed = match facts.max_retained_bytes {
        0 => SegmentNumber(0),
        bytes => layout.segment_of(back(bytes)),
    };
    let mut invalidated = Vec::new();
    for (place, holder) in facts.holders.iter().enumerate() {
        let first = layout.segment_of(layout.record_start(holder.needs.min(durable)));
        if first < promised.min(allowed) {
            let retained_bytes = durable.bytes_since(holder.needs);
            let max_retained_bytes = facts.max_retained_bytes;
            invalidated.push((place, Invalidation { holder: holder.clone(), retained_bytes, max_retained_bytes }));
        } else {
            let keeper = Keeper::Holder { kind: holder.kind, name: Arc::clone(&holder.name) };
            claims.push(Claim { first, keeper });
        }
    }
    claims.sort_by_key(|claim| claim.first);
    invalidated.sort_by_key(|(_, invalidation)| invalidation.holder.needs);
    let first_kept = claims.first().map_or(SegmentNumber(0), |claim| claim.first);
    Decision { recyclable: facts.segments.range(..first_kept).copied().collect(), claims, invalidated }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEGMENT: u64 = 1024;

    /// A log as it may be.
    #[derive(Clone, Debug)]
    struct Log {
        segments: BTreeSet<SegmentNumber>,
        checkpoint: Lsn,
        durable: Lsn,
        keep_bytes: u64,
        max_retained_bytes: u64,
        holders: Vec<Holder>,
    }

    impl Log {
        fn decide(&self) -> Decision {
            decide(&Facts {
                layout: Layout::new(SEGMENT),
                segments: &self.segments,
                checkpoint: self.checkpoint,
                durable: self.durable,
                keep_bytes: self.keep_bytes,
                max_retained_bytes: self.max_retained_bytes,
                holders: &self.holders,
            })
        }
    }

    fn log(checkpoint: u64, keep_bytes: u64) -> Log {
        Log {
            segments: (1..=10).map(SegmentNumber).collect(),
            checkpoint: Lsn::new(checkpoint),
            durable: Lsn::new(9 * SEGMENT + 100),
            keep_bytes,
            max_retained_bytes: 0,
            holders: Vec::new(),
        }
    }

    fn slot(name: &str, needs: u64) -> Holder {
        Holder { kind: HolderKind::Slot, name: name.into(), needs: Lsn::new(needs) }
    }

    fn numbers(decision: &Decision) -> Vec<u64> {
        decision.recyclable().iter().map(|number| number.0).collect()
    }

    #[test]
    fn only_whole_segments_before_checkpoint_and_kept_bytes_go() {
        let recyclable = |checkpoint, keep| numbers(&log(checkpoint, keep).decide());
        assert_eq!(recyclable(3 * SEGMENT + 64, 0), [1, 2]);
        assert_eq!(recyclable(3 * SEGMENT, 0), [1], "the byte before the checkpoint lies in segment 2");
        assert_eq!(recyclable(9 * SEGMENT + 100, 6 * SEGMENT), [1, 2]);
        assert_eq!(recyclable(0, 0), []);
        assert_eq!(recyclable(9 * SEGMENT, u64::MAX), []);
        assert_eq!(recyclable(u64::MAX, 0), [1, 2, 3, 4, 5, 6, 7, 8], "whatever is asked, the end stays");
    }

    #[test]
    fn each_segment_says_who_keeps_it() {
        let mut log = log(6 * SEGMENT + 64, 4 * SEGMENT);
        log.holders = vec![slot("b", 7 * SEGMENT + 64), slot("a", 3 * SEGMENT)];
        let decision = log.decide();
        assert_eq!(numbers(&decision), [1, 2]);
        let explained: Vec<_> = [2, 3, 5, 6, 7, 9].map(|number| decision.explain(SegmentNumber(number))).into();
        assert_eq!(
            explained,
            [
                "needed by nobody",
                "kept by slot a",
                "kept by slot a, keep_bytes",
                "kept by slot a, keep_bytes, the checkpoint",
                "kept by slot a, keep_bytes, the checkpoint, slot b",
                "kept by slot a, keep_bytes, the checkpoint, slot b, the writer",
            ]
            .map(|text| text.to_owned())
        );
    }

    #[test]
    fn who_keeps_too_much_is_invalidated_with_the_reason() {
        let mut log = log(8 * SEGMENT, 0);
        log.holders = vec![slot("near", 7 * SEGMENT), slot("far", 3 * SEGMENT), slot("farther", SEGMENT + 64)];
        assert_eq!(numbers(&log.decide()), []);
        log.max_retained_bytes = 4 * SEGMENT;
        let decision = log.decide();
        assert_eq!(numbers(&decision), [1, 2, 3, 4, 5, 6]);
        let said: Vec<_> = decision.invalidated().map(Invalidation::to_string).collect();
        assert_eq!(said.len(), 2);
        assert_eq!(
            said[0],
            "slot farther was invalidated: it needed the log from 0/440 on, which kept 8228 bytes, and \
             max_retained_bytes is 4096"
        );
        assert!(said[1].starts_with("slot far "), "{}", said[1]);
    }

    #[test]
    fn nobody_is_invalidated_for_what_the_checkpoint_keeps_anyway() {
        let mut log = log(2 * SEGMENT + 64, 0);
        log.max_retained_bytes = SEGMENT;
        log.holders = vec![slot("a", 3 * SEGMENT)];
        assert_eq!(log.decide().invalidated().count(), 0);
    }

    fn logs() -> impl Strategy<Value = Log> {
        let positions = (1u64..30, 0u64..20 * SEGMENT).prop_flat_map(|(oldest, len)| {
            let (start, durable) = (oldest * SEGMENT + 64, oldest * SEGMENT + 64 + len);
            let holders = prop::collection::vec(start..=durable, 0..6);
            let bytes = || prop_oneof![Just(0), 1..22 * SEGMENT, Just(u64::MAX)];
            (Just((oldest, durable)), start..=durable, holders, bytes(), bytes(), 0u64..3)
        });
        positions.prop_map(|((oldest, durable), checkpoint, needs, keep_bytes, max_retained_bytes, ahead)| Log {
            segments: (oldest..=(durable - 1) / SEGMENT + ahead).map(SegmentNumber).collect(),
            checkpoint: Lsn::new(checkpoint),
            durable: Lsn::new(durable),
            keep_bytes,
            max_retained_bytes,
            holders: needs.iter().enumerate().map(|(place, needs)| slot(&place.to_string(), *needs)).collect(),
        })
    }

    proptest! {
        /// Everything that a promise or a valid holder needs is there, byte by byte.
        #[test]
        fn nothing_that_is_needed_goes(log in logs()) {
            let decision = log.decide();
            let invalid: Vec<_> = decision.invalidated().map(|invalidation| invalidation.holder.clone()).collect();
            let valid = log.holders.iter().filter(|holder| !invalid.contains(holder));
            let kept = log.durable.get().saturating_sub(log.keep_bytes);
            // In the filler at a segment's end there is nothing to need.
            let layout = Layout::new(SEGMENT);
            let needed = valid.map(|holder| layout.record_start(holder.needs).get()).chain([log.checkpoint.get() - 1, kept]);
            let needed = needed.min().unwrap();
            for number in decision.recyclable() {
                prop_assert!((number.0 + 1) * SEGMENT <= needed, "{number:?} holds {needed}");
            }
        }

        /// What stays has a reason, what goes has none, and what goes is the oldest part.
        #[test]
        fn a_segment_stays_exactly_if_somebody_keeps_it(log in logs()) {
            let decision = log.decide();
            for number in &log.segments {
                let is_kept = decision.keepers(*number).next().is_some();
                prop_assert_eq!(is_kept, !decision.recyclable().contains(number), "{:?}", number);
                prop_assert_eq!(is_kept, decision.explain(*number).starts_with("kept by"));
            }
            let oldest: Vec<_> = log.segments.iter().copied().take(decision.recyclable().len()).collect();
            prop_assert_eq!(decision.recyclable(), oldest);
        }

        /// Holders keep no more than they may, beside what is kept anyway; and nobody is invalidated in vain.
        #[test]
        fn the_bound_holds_and_costs_nobody_who_is_not_beyond_it(log in logs()) {
            let decision = log.decide();
            let without = Log { holders: Vec::new(), ..log.clone() }.decide();
            let held = without.recyclable().iter().filter(|number| !decision.recyclable().contains(number));
            let bound = log.durable.get().saturating_sub(log.max_retained_bytes);
            for number in held {
                prop_assert!(log.max_retained_bytes == 0 || (number.0 + 1) * SEGMENT > bound, "{number:?} is held");
            }
            for invalidation in decision.invalidated() {
                prop_assert!(log.max_retained_bytes > 0 && invalidation.retained_bytes > log.max_retained_bytes);
                let layout = Layout::new(SEGMENT);
                let first = layout.segment_of(layout.record_start(invalidation.holder.needs));
                prop_assert!(without.recyclable().contains(&first), "nothing is won by invalidating {invalidation}");
            }
        }

        /// One more holder never makes more go, and one that moved on never makes less go.
        #[test]
        fn more_needs_keep_more(log in logs(), needs: prop::sample::Index, step in 0u64..4096) {
            let log = Log { max_retained_bytes: 0, ..log };
            let before = log.decide().recyclable().len();
            if !log.holders.is_empty() {
                let mut moved = log.clone();
                let holder = needs.get(&log.holders).name.parse::<usize>().unwrap();
                moved.holders[holder].needs = moved.holders[holder].needs.advanced(step);
                prop_assert!(moved.decide().recyclable().len() >= before);
                moved.holders.remove(holder);
                prop_assert!(moved.decide().recyclable().len() >= before);
            }
        }
    }
}
