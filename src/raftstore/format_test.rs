//! Golden bytes, round trips, and bytes that are wrong.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::ident::NodeId;
use crate::raftstore::entry::Membership;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry_bytes(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(encode_entry(entry, &mut bytes));
    bytes
}

fn membership() -> Membership {
    let ids = |numbers: &[u64]| numbers.iter().map(|number| ReplicaId::new(*number)).collect();
    Membership {
        voters: ids(&[1, 2]),
        learners: ids(&[3]),
        voters_outgoing: ids(&[1]),
        learners_next: ids(&[]),
        auto_leave: true,
        nodes: [(1, 11), (2, 12), (3, 13)].map(|(id, node)| (ReplicaId::new(id), NodeId::new(node))).into(),
        highest: ReplicaId::new(4),
    }
}

#[test]
fn golden_keys() {
    let (group, index) = (GroupId::new(0x0102), LogIndex::new(0x0304));
    assert_eq!(hex(&log_key(group, index)), "00000000000001020000000000000304");
    assert_eq!(hex(&state_key(group, Tag::Truncated)), "000000000000010205");
    assert_eq!(hex(&table_key(group, Generation(7), b"key")), "0000000000000102000000076b6579");
    assert_eq!(decode_table_key(&table_key(group, Generation(7), b"key")), b"key");
    assert_eq!(Tag::ALL.map(|tag| tag as u8), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn golden_values() {
    let position = Position::new(9, 0x0203);
    let command = Entry::command(position, b"data".to_vec(), b"ctx".to_vec());
    assert_eq!(hex(&entry_bytes(&command)), "0100030200000000000003000000637478".to_owned() + "64617461");
    let change = Entry::new(EntryKind::ConfChange, position, vec![0xEE], vec![]);
    assert_eq!(hex(&entry_bytes(&change)), "0101030200000000000000000000ee");
    let replica = Replica { replica: ReplicaId::new(5), generation: Generation::FIRST };
    assert_eq!(hex(&replica.encode()), "01050000000000000001000000");
    let hard_state = HardState { term: Term::new(2), vote: Some(ReplicaId::new(3)), commit: LogIndex::new(4) };
    assert_eq!(hex(&encode_hard_state(&hard_state)), "01020000000000000003000000000000000400000000000000");
    assert_eq!(hex(&encode_applied(LogIndex::new(6))), "010600000000000000");
    assert_eq!(hex(&encode_truncated(Position::new(7, 8))), "0107000000000000000800000000000000");
    let marker = Marker { generation: Generation(2), id: SnapshotId(0x0A0B), position: Position::new(7, 8) };
    assert_eq!(hex(&marker.encode()), "01020000000b0a00000000000007000000000000000800000000000000");
    assert_eq!(hex(&encode_tombstone(ReplicaId::new(9))), "010900000000000000");
    assert_eq!(decode_tombstone(&encode_tombstone(ReplicaId::new(9))), Ok(ReplicaId::new(9)));
    assert_eq!(
        hex(&encode_membership(&membership())),
        "0201\
         0200000001000000000000000200000000000000\
         010000000300000000000000\
         010000000100000000000000\
         00000000\
         03000000\
         01000000000000000b00000000000000\
         02000000000000000c00000000000000\
         03000000000000000d00000000000000\
         0400000000000000"
    );
    // Version 1 had no highest replica.
    let mut first = encode_membership(&membership());
    first[0] = 1;
    first.truncate(first.len() - 8);
    assert_eq!(decode_membership(&first), Ok(Membership { highest: ReplicaId::new(3), ..membership() }));
}

/// What is wrong with these bytes, according to a decoder.
fn fault<T>(decoded: Result<T, Mismatch>) -> String {
    decoded.err().unwrap().to_string()
}

#[test]
fn what_is_wrong_is_said_in_numbers() {
    let entry = entry_bytes(&Entry::command(Position::new(1, 1), b"secret".to_vec(), vec![]));
    let changed = |at: usize, byte: u8| {
        let mut changed = entry.clone();
        changed[at] = byte;
        fault(decode_entry(LogIndex::new(1), &changed))
    };
    assert_eq!(changed(0, 2), "expected version 1, found version 2");
    assert_eq!(changed(1, 7), "expected an entry of kind 0 or 1, found kind 7");
    assert_eq!(changed(10, 7), "expected a context of at most 6 bytes, found 7 bytes");
    assert_eq!(
        fault(decode_entry(LogIndex::new(1), &entry[..13])),
        "expected an entry of 14 bytes or more, found 13 bytes"
    );
    assert_eq!(fault(decode_applied(&[])), "expected version 1, found 0 bytes");
    assert_eq!(fault(decode_applied(&[1, 2])), "expected 9 bytes, found 2 bytes");
    assert_eq!(
        fault(Replica::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])),
        "expected a replica other than 0, found 0"
    );
    assert_eq!(fault(decode_log_key(&[0; 15])), "expected a key of 16 bytes, found 15 bytes");
    assert_eq!(fault(decode_state_key(&[0; 9])), "expected a record that this version knows, found tag 0");
    let marker = Marker { generation: Generation(2), id: SnapshotId(1), position: Position::new(0, 8) };
    assert_eq!(
        fault(Marker::decode(&marker.encode())),
        "expected a snapshot of an entry and its term, found 0 of term 8"
    );
    assert_eq!(fault(Marker::decode(&marker.encode()[..28])), "expected 29 bytes, found 28 bytes");
    assert_eq!(fault(Marker::decode(&[2])), "expected version 1, found version 2");
    let mut bytes = encode_membership(&membership());
    bytes[1] = 2;
    assert_eq!(fault(decode_membership(&bytes)), "expected auto leave to be 0 or 1, found 2");
    // Counts that nothing stands behind make no room for it.
    bytes[1..6].copy_from_slice(&[1, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert_eq!(fault(decode_membership(&bytes)), "expected a whole membership, found one cut short after 110 bytes");
    let mut bytes = encode_membership(&membership());
    let last = bytes.len() - 24;
    bytes[last] = 2;
    assert_eq!(fault(decode_membership(&bytes)), "expected a replica after 2, found 2");
}

fn replicas() -> impl Strategy<Value = Vec<ReplicaId>> {
    vec(any::<u64>().prop_map(ReplicaId::new), 0..5)
}

proptest! {
    #[test]
    fn keys_sort_as_numbers(one: (u64, u64), other: (u64, u64)) {
        let key = |(group, index): (u64, u64)| log_key(GroupId::new(group), LogIndex::new(index));
        prop_assert_eq!(key(one).cmp(&key(other)), one.cmp(&other));
        prop_assert_eq!(decode_log_key(&key(one)), Ok((GroupId::new(one.0), LogIndex::new(one.1))));
        let all = all_states();
        for tag in Tag::ALL {
            let (group, state) = (GroupId::new(one.0), state_key(GroupId::new(one.0), tag));
            prop_assert_eq!(decode_state_key(&state), Ok((group, tag)));
            prop_assert!(state_range(group).contains(&state) && all.contains(&state));
            prop_assert!(one.0 == other.0 || !state_range(GroupId::new(other.0)).contains(&state));
        }
    }

    #[test]
    fn entries_round_trip(conf_change: bool, index: u64, term: u64, data: Vec<u8>, context: Vec<u8>) {
        let kind = if conf_change { EntryKind::ConfChange } else { EntryKind::Command };
        let entry = Entry::new(kind, Position::new(index, term), data, context);
        let bytes = entry_bytes(&entry);
        prop_assert_eq!(decode_entry_term(&bytes), Ok(entry.term()));
        prop_assert_eq!(entry_size_bytes(&bytes), entry.size_bytes());
        prop_assert_eq!(decode_entry(LogIndex::new(index), &bytes), Ok(entry));
    }

    #[test]
    fn records_round_trip(numbers: [u64; 3], generation: u32) {
        let [one, two, three] = numbers;
        let replica = Replica { replica: ReplicaId::new(one.max(1)), generation: Generation(generation) };
        prop_assert_eq!(Replica::decode(&replica.encode()), Ok(replica));
        let vote = (two != 0).then(|| ReplicaId::new(two));
        let hard_state = HardState { term: Term::new(one), vote, commit: LogIndex::new(three) };
        prop_assert_eq!(decode_hard_state(&encode_hard_state(&hard_state)), Ok(hard_state));
        prop_assert_eq!(decode_applied(&encode_applied(LogIndex::new(one))), Ok(LogIndex::new(one)));
        prop_assert_eq!(decode_truncated(&encode_truncated(Position::new(one, two))), Ok(Position::new(one, two)));
        let position = Position::new(one.max(1), two.max(1));
        let marker = Marker { generation: Generation(generation), id: SnapshotId(three), position };
        prop_assert_eq!(Marker::decode(&marker.encode()), Ok(marker));
    }

    #[test]
    fn memberships_round_trip_and_no_part_of_one_passes(
        lists in [replicas(), replicas(), replicas(), replicas()],
        auto_leave: bool,
        nodes in btree_map(any::<u64>().prop_map(ReplicaId::new), any::<u64>().prop_map(NodeId::new), 0..5),
        highest: u64,
    ) {
        let [voters, learners, voters_outgoing, learners_next] = lists;
        let highest = ReplicaId::new(highest);
        let membership =
            Membership { voters, learners, voters_outgoing, learners_next, auto_leave, nodes, highest };
        let mut bytes = encode_membership(&membership);
        prop_assert_eq!(decode_membership(&bytes), Ok(membership));
        for len in 0..bytes.len() {
            prop_assert!(decode_membership(&bytes[..len]).is_err(), "{} of {} bytes", len, bytes.len());
        }
        bytes.push(0);
        prop_assert!(decode_membership(&bytes).is_err());
    }

    #[test]
    fn garbage_never_panics_and_what_passes_is_the_only_spelling(bytes in vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..100)) {
        if let Ok(entry) = decode_entry(LogIndex::new(1), &bytes) {
            prop_assert_eq!(entry_bytes(&entry), bytes.clone());
        }
        if let Some(membership) = decode_membership(&bytes).ok().filter(|_| bytes[0] == 2) {
            prop_assert_eq!(encode_membership(&membership), bytes.clone());
        }
        if let Ok(replica) = Replica::decode(&bytes) {
            prop_assert_eq!(replica.encode(), bytes.clone());
        }
        if let Ok(state) = decode_hard_state(&bytes) {
            prop_assert_eq!(encode_hard_state(&state), bytes.clone());
        }
        if let Ok(position) = decode_truncated(&bytes) {
            prop_assert_eq!(encode_truncated(position), bytes.clone());
        }
        if let Ok(marker) = Marker::decode(&bytes) {
            prop_assert_eq!(marker.encode(), bytes.clone());
        }
        if let Ok(applied) = decode_applied(&bytes) {
            prop_assert_eq!(encode_applied(applied), bytes);
        }
    }
}
