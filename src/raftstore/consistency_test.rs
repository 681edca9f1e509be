use proptest::prelude::*;

use super::*;
use crate::ident::NodeId;
use crate::raftstore::log_store::Table;
use crate::raftstore::message::Message;
use crate::raftstore::snapshot::{Place, SnapshotId};

fn membership(voters: &[u64]) -> Membership {
    Membership::of_voters(voters.iter().map(|voter| (ReplicaId::new(*voter), NodeId::new(voter + 10))))
}

fn meta() -> SnapshotMeta {
    SnapshotMeta { id: SnapshotId(1), position: Position::new(7, 3), membership: membership(&[1, 2, 3]) }
}

fn pair(table: Table, key: &[u8], value: &[u8]) -> Pair {
    Pair { place: Place { table, key: key.to_vec() }, value: value.to_vec() }
}

fn digest_of(meta: &SnapshotMeta, pages: &[&[Pair]]) -> Digest {
    let mut hasher = StateHasher::new(meta);
    pages.iter().for_each(|page| hasher.add(page));
    hasher.finish()
}

fn digest(number: u8) -> Digest {
    Digest([number; DIGEST_BYTES])
}

/// By a few lines of Python around `zlib.crc32`, from the layout on the front page.
#[test]
fn golden_digest() {
    let pairs = [pair(Table::Cluster, b"k", b"va"), pair(Table::Sessions, b"", b"")];
    assert_eq!(digest_of(&meta(), &[&pairs]).to_string(), GOLDEN);
    assert_eq!(digest_of(&meta(), &[&pairs[..1], &[], &pairs[1..]]).to_string(), GOLDEN, "pages make no difference");
}

const GOLDEN: &str = "8aab72f2ce0ff862d411c479";

#[test]
fn everything_counts_but_what_differs_rightfully() {
    let pairs = [pair(Table::Kv, b"ab", b"c")];
    let good = digest_of(&meta(), &[&pairs]);
    let named = SnapshotMeta { id: SnapshotId(2), ..meta() };
    assert_eq!(digest_of(&named, &[&pairs]), good);
    let unsorted = Membership { voters: [3, 1, 2].map(ReplicaId::new).to_vec(), ..membership(&[1, 2, 3]) };
    assert_eq!(digest_of(&SnapshotMeta { membership: unsorted, ..meta() }, &[&pairs]), good);
    let later = SnapshotMeta { position: Position::new(8, 3), ..meta() };
    let others = [
        digest_of(&later, &[&pairs]),
        digest_of(&SnapshotMeta { membership: membership(&[1, 2]), ..meta() }, &[&pairs]),
        digest_of(&meta(), &[&[pair(Table::Kv, b"a", b"bc")]]),
        digest_of(&meta(), &[&[pair(Table::Slots, b"ab", b"c")]]),
        digest_of(&meta(), &[&[pair(Table::Kv, b"ab", b"d")]]),
        digest_of(&meta(), &[]),
    ];
    assert!(others.iter().all(|other| *other != good), "{others:?}");
}

#[test]
fn golden_messages() {
    let at = Position::new(0x0102, 3);
    let place = [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
    let cases = [
        (CheckWord::Digest(digest(9)), [&[0, 1][..], &place, &[9; 12]].concat()),
        (CheckWord::None, [&[0, 2][..], &place].concat()),
        (CheckWord::Question, [&[0, 3][..], &place].concat()),
        (CheckWord::Ask, [&[0, 4][..], &place].concat()),
        (CheckWord::Known, [&[0, 5][..], &place].concat()),
    ];
    for (word, bytes) in cases {
        let message = CheckMessage { at, word };
        assert_eq!(message.encode(), bytes);
        assert_eq!(CheckMessage::decode(&bytes), Some(message));
        assert_eq!(CheckMessage::decode(&bytes[..bytes.len() - 1]), None);
        assert!(Message::decode(&bytes).is_none(), "Raft takes it for one of its own");
    }
}

fn judged(voters: &[u64], outgoing: &[u64], said: &[(u64, u8)]) -> Verdict {
    let mut membership = membership(voters);
    membership.voters_outgoing = outgoing.iter().copied().map(ReplicaId::new).collect();
    for replica in outgoing {
        membership.nodes.insert(ReplicaId::new(*replica), NodeId::new(replica + 10));
    }
    let said: Vec<_> = said.iter().map(|(replica, number)| (ReplicaId::new(*replica), digest(*number))).collect();
    Verdict::of(LogIndex::new(5), &said, &membership)
}

#[test]
fn the_majority_of_all_voters_is_right() {
    let ids = |numbers: &[u64]| numbers.iter().copied().map(ReplicaId::new).collect::<Vec<_>>();
    let one_differs = judged(&[1, 2, 3], &[], &[(1, 7), (2, 8), (3, 7)]);
    assert_eq!((one_differs.right, one_differs.differing()), (Some(digest(7)), ids(&[2])));
    assert!(!one_differs.is_good());
    // Who leads does not matter, nor who says it first.
    let first_differs = judged(&[1, 2, 3], &[], &[(1, 8), (2, 7), (3, 7)]);
    assert_eq!(first_differs.differing(), ids(&[1]));
    let one_is_away = judged(&[1, 2, 3], &[], &[(1, 7), (3, 7)]);
    assert!(one_is_away.is_good());
    assert_eq!(one_is_away.missing, ids(&[2]));
    // A learner is judged, and judges nobody.
    let mut with_learner = membership(&[1, 2, 3]).with_learner(ReplicaId::new(4), NodeId::new(14));
    let said = |numbers: &[(u64, u8)]| -> Vec<_> {
        numbers.iter().map(|(replica, number)| (ReplicaId::new(*replica), digest(*number))).collect()
    };
    let learner = Verdict::of(LogIndex::new(5), &said(&[(1, 7), (2, 7), (4, 8)]), &with_learner);
    assert_eq!(learner.differing(), ids(&[4]));
    let outvoted = Verdict::of(LogIndex::new(5), &said(&[(1, 7), (2, 8), (4, 8)]), &with_learner);
    assert_eq!((outvoted.right, outvoted.differing()), (None, vec![]), "two of three voters do not agree");
    // Somebody who takes no part any more is not asked.
    with_learner.nodes.remove(&ReplicaId::new(4));
    with_learner.learners.clear();
    let removed = Verdict::of(LogIndex::new(5), &said(&[(1, 7), (2, 7), (4, 8)]), &with_learner);
    assert!(removed.is_good());
}

#[test]
fn without_a_majority_nobody_is_wrong() {
    for (voters, said) in [
        (&[1, 2][..], &[(1, 7), (2, 8)][..]),
        (&[1, 2, 3], &[(1, 7), (2, 8), (3, 9)]),
        (&[1, 2, 3, 4], &[(1, 7), (2, 7), (3, 8), (4, 8)]),
        (&[1, 2, 3, 4, 5], &[(1, 7), (2, 7), (3, 8)]),
        (&[1, 2, 3], &[(1, 7)]),
    ] {
        let verdict = judged(voters, &[], said);
        assert_eq!((verdict.right, verdict.differing()), (None, vec![]), "{said:?}");
        assert!(!verdict.is_good());
    }
}

#[test]
fn in_a_joint_configuration_both_majorities_have_to_agree() {
    let verdict = judged(&[1, 2, 3], &[3, 4, 5], &[(1, 7), (2, 7), (3, 7), (4, 8), (5, 8)]);
    assert_eq!(verdict.right, None);
    let verdict = judged(&[1, 2, 3], &[3, 4, 5], &[(1, 7), (2, 7), (3, 7), (4, 7), (5, 8)]);
    assert_eq!(verdict.differing(), [ReplicaId::new(5)]);
}

proptest! {
    #[test]
    fn garbage_is_refused_without_panic(mut bytes: Vec<u8>, zero: bool) {
        if let (true, Some(first)) = (zero, bytes.first_mut()) {
            *first = 0;
        }
        if let Some(message) = CheckMessage::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    /// What begins as a message of a check does is none of Raft's: neither takes the other's.
    #[test]
    fn no_message_of_raft_begins_as_that_of_a_check(mut bytes: Vec<u8>) {
        bytes.insert(0, 0);
        prop_assert!(Message::decode(&bytes).is_none());
    }

    #[test]
    fn a_flip_anywhere_is_seen(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..10), place: usize, flip in 1u8..,
    ) {
        let mut pairs: Vec<Pair> =
            values.iter().enumerate().map(|(key, value)| pair(Table::Kv, &[key as u8], value)).collect();
        let before = digest_of(&meta(), &[&pairs]);
        let count = pairs.len();
        let value = &mut pairs[place % count].value;
        let at = place / count % value.len();
        value[at] ^= flip;
        prop_assert_ne!(digest_of(&meta(), &[&pairs]), before);
    }
}
