use proptest::prelude::*;

use super::*;

/// Of the golden chunk as the second one of snapshot 7, by Python's `zlib.crc32`.
const GOLDEN_CRC: u32 = 0x736e_fc10;

fn pair(table: Table, key: &[u8], value: &[u8]) -> Pair {
    Pair { place: Place { table, key: key.to_vec() }, value: value.to_vec() }
}

#[test]
fn golden_chunk() {
    let pairs = vec![pair(Table::Cluster, b"k", b"va"), pair(Table::Sessions, b"", b"")];
    let chunk = Chunk { pairs, is_last: true };
    #[rustfmt::skip]
    let golden = [
        1, 1, 2, 0, 0, 0,                               // version, last, two pairs
        1, 1, 0, 0, 0, b'k', 2, 0, 0, 0, b'v', b'a',
        5, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(chunk.encode().unwrap(), golden);
    assert_eq!(Chunk::decode(&golden).unwrap(), chunk);
    assert_eq!(checksum(SnapshotId(7), 1, &golden), GOLDEN_CRC);
    assert_eq!(check(SnapshotId(7), 1, &golden, GOLDEN_CRC), Ok(()));
    let empty = Chunk { pairs: Vec::new(), is_last: false };
    assert_eq!(empty.encode().unwrap(), [1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_chunk_in_another_place_has_another_checksum() {
    let found = checksum(SnapshotId(7), 1, b"bytes");
    for (snapshot, number) in [(7, 2), (8, 1), (1, 7)] {
        assert!(matches!(check(SnapshotId(snapshot), number, b"bytes", found), Err(ChunkError::Checksum { .. })));
    }
}

#[test]
fn each_lie_is_refused_for_what_it_is() {
    let good = Chunk { pairs: vec![pair(Table::Kv, b"key", b"value")], is_last: false }.encode().unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Chunk::decode(&bytes)
    };
    assert_eq!(with(0, 2), Err(ChunkError::Version(2)));
    assert_eq!(with(1, 2), Err(ChunkError::Unknown { what: "flags", number: 2 }));
    assert_eq!(with(2, 2), Err(ChunkError::Short));
    assert_eq!(with(6, 0), Err(ChunkError::Unknown { what: "table", number: 0 }));
    assert_eq!(with(6, 6), Err(ChunkError::Unknown { what: "table", number: 6 }));
    assert_eq!(with(10, 0xff), Err(ChunkError::Short));
    assert_eq!(with(14, 4), Err(ChunkError::Excess(1)));
    assert_eq!(Chunk::decode(&good[..good.len() - 1]), Err(ChunkError::Short));
    assert_eq!(Chunk::decode(&[]), Err(ChunkError::Short));
}

#[test]
fn neither_side_goes_beyond_the_bounds() {
    let too_many = Chunk { pairs: vec![pair(Table::Kv, b"", b""); CHUNK_LIMIT_PAIRS + 1], is_last: false };
    assert!(matches!(too_many.encode(), Err(ChunkError::TooMuch { unit: "pairs", .. })));
    let mut bytes = vec![1, 0];
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend([4, 0, 0, 0, 0, 0, 0, 0, 0].repeat(CHUNK_LIMIT_PAIRS + 1));
    let refused = ChunkError::TooMuch { count: u32::MAX as usize, unit: "pairs", limit: CHUNK_LIMIT_PAIRS };
    assert_eq!(Chunk::decode(&bytes), Err(refused));

    let too_large = Chunk { pairs: vec![pair(Table::Kv, b"", &vec![0; CHUNK_LIMIT_BYTES])], is_last: false };
    assert!(matches!(too_large.encode(), Err(ChunkError::TooMuch { unit: "bytes", .. })));
    let large = vec![0; CHUNK_LIMIT_BYTES + 1];
    assert!(matches!(Chunk::decode(&large), Err(ChunkError::TooMuch { unit: "bytes", .. })));
    // A count that the bytes do not bear out allocates nothing.
    let mut bytes = vec![1, 0];
    bytes.extend((CHUNK_LIMIT_PAIRS as u32).to_le_bytes());
    let mut refused = None;
    let allocated = allocation_counter::measure(|| refused = Some(Chunk::decode(&bytes)));
    assert_eq!((refused, allocated.bytes_total), (Some(Err(ChunkError::Short)), 0));
}

#[test]
fn the_most_pairs_that_one_read_gives_fit() {
    let empty = pair(Table::Kv, b"", b"");
    let most = CHUNK_BYTES / empty.size_bytes();
    let chunk = Chunk { pairs: vec![empty; most], is_last: false };
    assert_eq!(Chunk::decode(&chunk.encode().unwrap()).unwrap(), chunk);
}

#[test]
fn every_table_has_a_number_of_its_own() {
    for number in 0..=u8::MAX {
        assert!(table(number).is_none_or(|table| table_number(table) == number), "{number}");
    }
    assert_eq!((0..=u8::MAX).filter_map(table).count(), 5);
}

fn chunks() -> impl Strategy<Value = Chunk> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let pair = (1_u8..=5, bytes(), bytes())
        .prop_map(|(number, key, value)| Pair { place: Place { table: table(number).unwrap(), key }, value });
    (prop::collection::vec(pair, 0..20), any::<bool>()).prop_map(|(pairs, is_last)| Chunk { pairs, is_last })
}

proptest! {
    #[test]
    fn chunks_are_read_back(chunk in chunks()) {
        prop_assert_eq!(Chunk::decode(&chunk.encode().unwrap()), Ok(chunk));
    }

    #[test]
    fn a_chunk_has_one_encoding_only(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(chunk) = Chunk::decode(&bytes) {
            prop_assert_eq!(chunk.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn a_damaged_chunk_does_no_harm_and_its_checksum_tells(chunk in chunks(), at: usize, flip in 1_u8.., cut: usize) {
        let mut bytes = chunk.encode().unwrap();
        let crc = checksum(SnapshotId(1), 2, &bytes);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        prop_assert!(check(SnapshotId(1), 2, &bytes, crc).is_err());
        if let Ok(other) = Chunk::decode(&bytes) {
            prop_assert_ne!(other, chunk);
        }
        let cut = cut % bytes.len();
        bytes.truncate(cut);
        prop_assert!(Chunk::decode(&bytes).is_err());
    }
}
