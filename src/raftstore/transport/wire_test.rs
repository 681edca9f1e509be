use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::raftstore::beat::Word;
use crate::raftstore::snapshot::chunk::CHUNK_LIMIT_BYTES;

fn envelope(group: u64, from: u64, to: u64, message: &'static [u8]) -> Envelope {
    let message = Bytes::from_static(message);
    Envelope { group: GroupId::new(group), from: ReplicaId::new(from), to: ReplicaId::new(to), message }
}

fn batch(envelopes: Vec<Envelope>) -> Batch {
    Batch::of(envelopes)
}

/// Also `protoc --decode mainstay.raft.v1.Frame` reads these bytes as they are meant.
#[test]
fn golden_batch() {
    let batch = batch(vec![envelope(1, 2, 300, b"raft"), envelope(0, 7, 8, b"")]);
    let frame = Frame { kind: Some(Kind::Batch(batch)) };
    #[rustfmt::skip]
    let golden = [
        0x12, 0x15,                                     // batch, 21 bytes
        0x0a, 0x0d,                                     // envelope, 13 bytes
        0x08, 0x01, 0x10, 0x02, 0x18, 0xac, 0x02,       // group 1, from 2, to 300
        0x22, 0x04, b'r', b'a', b'f', b't',             // message
        0x0a, 0x04,                                     // envelope, 4 bytes
        0x10, 0x07, 0x18, 0x08,                         // from 7, to 8
    ];
    assert_eq!(frame.encode_to_vec(), golden);
    assert_eq!(Frame::decode(golden.as_slice()).unwrap(), frame);
}

/// That a node lives travels as an envelope of a group that there is not.
#[test]
fn golden_beat() {
    let word = Word { life: 0x0102_0304_0506_0708, epoch: 9 };
    let batch = batch(vec![word.envelope()]);
    #[rustfmt::skip]
    let golden = [
        0x0a, 0x1d,                                     // envelope, 29 bytes
        0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
        0x22, 0x10, 8, 7, 6, 5, 4, 3, 2, 1,             // life
        9, 0, 0, 0, 0, 0, 0, 0,                         // epoch
    ];
    assert_eq!(batch.encode_to_vec(), golden);
    assert_eq!(Batch::decode(golden.as_slice()).unwrap(), batch);
}

#[test]
fn golden_hello() {
    let identity = Identity {
        cluster: ClusterId::new(0x0102_0304_0506_0708),
        node: NodeId::new(2),
        incarnation: Incarnation::new(300),
    };
    let claim = identity.claim(NodeId::new(1));
    let frame = Frame { kind: Some(Kind::Hello(Hello::of(&claim))) };
    #[rustfmt::skip]
    let golden = [
        0x0a, 0x12,                                     // hello, 18 bytes
        0x08, 0x01,                                     // version
        0x11, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
        0x18, 0x02, 0x20, 0x01, 0x28, 0xac, 0x02,       // node, expects, incarnation
    ];
    assert_eq!(frame.encode_to_vec(), golden);
    assert_eq!(Hello::of(&claim).claim(), Ok(claim));
    let later = Hello { version: 2, ..Hello::of(&claim) };
    assert_eq!(later.claim(), Err(Refusal::Version { theirs: 2, ours: 1 }));
}

/// Who knows nothing of addresses reads the hello as it was before there were any, and the other way round.
#[test]
fn golden_hello_with_an_address() {
    let identity = Identity { cluster: ClusterId::new(1), node: NodeId::new(2), incarnation: Incarnation::new(3) };
    let claim = identity.claim(NodeId::new(1));
    let address: Address = "db2:7402".parse().unwrap();
    let hello = Hello::of(&claim).at(Some(&address));
    #[rustfmt::skip]
    let golden = [
        0x08, 0x01,                                     // version
        0x11, 0x01, 0, 0, 0, 0, 0, 0, 0,                // cluster
        0x18, 0x02, 0x20, 0x01, 0x28, 0x03,             // node, expects, incarnation
        0x32, 0x08, b'd', b'b', b'2', b':', b'7', b'4', b'0', b'2',
    ];
    assert_eq!(hello.encode_to_vec(), golden);
    assert_eq!(Hello::decode(golden.as_slice()).unwrap(), hello);
    assert_eq!((hello.claim(), hello.place()), (Ok(claim), Some(address)));
    assert_eq!(Hello::of(&claim).place(), None);
    let long = format!("{}:1", "a".repeat(ADDRESS_LIMIT_BYTES));
    for nonsense in ["db2", "db 2:1", ":1", "db2:99999", long.as_str()] {
        let hello = Hello { address: nonsense.to_owned(), ..Hello::of(&claim) };
        assert_eq!((hello.claim(), hello.place()), (Ok(claim), None), "{nonsense}");
    }
}

#[test]
fn a_batch_keeps_no_more_envelopes_than_allowed() {
    // Two bytes each.
    let mut bytes = [0x0a, 0x00].repeat(BATCH_LIMIT_ENVELOPES);
    assert!(!Batch::decode(bytes.as_slice()).unwrap().is_cut);
    bytes.extend([0x0a, 0x00].repeat(1_000_000));
    let decoded = Batch::decode(bytes.as_slice()).unwrap();
    assert!(decoded.is_cut);
    assert_eq!(decoded.messages.len(), BATCH_LIMIT_ENVELOPES);
}

#[test]
fn unknown_fields_are_skipped_and_deep_nesting_is_not_followed() {
    let known = batch(vec![envelope(1, 2, 3, b"raft")]);
    let mut bytes = known.encode_to_vec();
    bytes.extend([0x7a, 0x02, 0xff, 0xff, 0x78, 0x01]);
    assert_eq!(Batch::decode(bytes.as_slice()).unwrap(), known);
    let mut nested = vec![0x7b; 100_000];
    nested.extend([0x7c; 100_000]);
    assert!(Batch::decode(nested.as_slice()).is_err());
    let mut within = vec![0x0a];
    prost::encoding::encode_varint(nested.len() as u64, &mut within);
    within.extend(nested);
    assert!(Batch::decode(within.as_slice()).is_err());
}

#[test]
fn the_largest_message_fits_into_a_frame() {
    let largest = Envelope {
        group: GroupId::new(u64::MAX),
        from: ReplicaId::new(u64::MAX),
        to: ReplicaId::new(u64::MAX),
        message: vec![0; MESSAGE_LIMIT_BYTES].into(),
    };
    let offer = SnapshotFrame::offer(SnapshotId(u64::MAX), largest.clone());
    assert!(offer.encoded_len() <= FRAME_LIMIT_BYTES, "{}", offer.encoded_len());
    let frame = Frame { kind: Some(Kind::Batch(batch(vec![largest]))) };
    assert!(frame.encoded_len() <= FRAME_LIMIT_BYTES, "{}", frame.encoded_len());
    let chunk = SnapshotChunk { number: u64::MAX, checksum: u32::MAX, chunk: vec![0; CHUNK_LIMIT_BYTES].into() };
    let frame = SnapshotFrame { kind: Some(SnapshotKind::Chunk(chunk)) };
    assert!(frame.encoded_len() <= FRAME_LIMIT_BYTES, "{}", frame.encoded_len());
}

/// Also `protoc --decode mainstay.raft.v1.SnapshotFrame` reads these bytes as they are meant.
#[test]
fn golden_snapshot_frames() {
    let id = SnapshotId(0x0102_0304_0506_0708);
    #[rustfmt::skip]
    let golden = [
        0x12, 0x14,                                     // offer, 20 bytes
        0x09, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
        0x12, 0x09,                                     // envelope, 9 bytes
        0x08, 0x01, 0x10, 0x02, 0x18, 0x03,             // group 1, from 2, to 3
        0x22, 0x01, b'm',                               // message
    ];
    let offer = SnapshotFrame::offer(id, envelope(1, 2, 3, b"m"));
    assert_eq!(offer.encode_to_vec(), golden);
    assert_eq!(SnapshotFrame::decode(golden.as_slice()).unwrap(), offer);

    let (frame, size_bytes) = SnapshotFrame::chunk(id, 300, &Chunk { pairs: Vec::new(), is_last: true }).unwrap();
    let crc = checksum(id, 300, &[1, 1, 0, 0, 0, 0]).to_le_bytes();
    #[rustfmt::skip]
    let golden = [
        0x1a, 0x10,                                     // chunk, 16 bytes
        0x08, 0xac, 0x02,                               // number 300
        0x15, crc[0], crc[1], crc[2], crc[3],
        0x1a, 0x06, 1, 1, 0, 0, 0, 0,
    ];
    assert_eq!((frame.encode_to_vec().as_slice(), size_bytes), (golden.as_slice(), 6));
    assert_eq!(SnapshotFrame::decode(golden.as_slice()).unwrap(), frame);
}

struct At(Option<Place>);

impl Incoming for At {
    fn resume_after(&self) -> Option<&Place> {
        self.0.as_ref()
    }

    fn take(&mut self, _: Vec<crate::raftstore::snapshot::Pair>, _: bool) -> Result<(), SnapshotRefused> {
        Ok(())
    }
}

#[test]
fn golden_snapshot_answers() {
    let place = Place { table: crate::raftstore::log_store::Table::Kv, key: b"key".to_vec() };
    let answers: [(SnapshotAnswer, &[u8]); 5] = [
        (SnapshotAnswer::accepted(&At(None)), &[0x12, 0x00]),
        (
            SnapshotAnswer::accepted(&At(Some(place))),
            &[0x12, 0x09, 0x0a, 0x07, 0x08, 0x04, 0x12, 0x03, b'k', b'e', b'y'],
        ),
        (
            SnapshotAnswer::refusal(&SnapshotRefused::Busy),
            &[0x1a, 0x08, 0x08, 0x01, 0x12, 0x04, b'b', b'u', b's', b'y'],
        ),
        (
            SnapshotAnswer::refusal(&SnapshotRefused::Unwanted("old".to_owned())),
            &[0x1a, 0x05, 0x12, 0x03, b'o', b'l', b'd'],
        ),
        (SnapshotAnswer::finished(), &[0x22, 0x00]),
    ];
    for (answer, golden) in answers {
        assert_eq!(answer.encode_to_vec(), golden);
        assert_eq!(SnapshotAnswer::decode(golden).unwrap(), answer);
    }
}

#[test]
fn what_an_answer_says_is_read_back_within_bounds() {
    for refused in [SnapshotRefused::Busy, SnapshotRefused::Unwanted("old".to_owned())] {
        let Some(AnswerKind::Refusal(refusal)) = SnapshotAnswer::refusal(&refused).kind else { panic!() };
        assert_eq!(SnapshotRefused::from(refusal), refused);
    }
    let long = SnapshotRefused::Unwanted("ä".repeat(REASON_LIMIT_BYTES));
    let Some(AnswerKind::Refusal(refusal)) = SnapshotAnswer::refusal(&long).kind else { panic!() };
    assert_eq!(refusal.reason.len(), REASON_LIMIT_BYTES);
    for (number, expected) in [(0, Err(())), (4, Ok(())), (6, Err(())), (260, Err(()))] {
        let place = SnapshotPlace { table: number, key: Vec::new() };
        let accepted = SnapshotAccepted { resume_after: Some(place) };
        assert_eq!(accepted.resume_after().map(|_| ()), expected, "{number}");
    }
}

fn envelopes() -> impl Strategy<Value = Vec<Envelope>> {
    let envelope = (any::<u64>(), any::<u64>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..50));
    let envelope = envelope.prop_map(|(group, from, to, message)| Envelope {
        group: GroupId::new(group),
        from: ReplicaId::new(from),
        to: ReplicaId::new(to),
        message: message.into(),
    });
    prop::collection::vec(envelope, 0..20)
}

proptest! {
    #[test]
    fn batches_are_read_back(envelopes in envelopes()) {
        let batch = batch(envelopes);
        let bytes = batch.encode_to_vec();
        prop_assert_eq!(bytes.len(), batch.encoded_len());
        prop_assert_eq!(Batch::decode(bytes.as_slice()).unwrap(), batch);
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(bytes.as_slice());
        let _ = SnapshotFrame::decode(bytes.as_slice());
        let _ = SnapshotAnswer::decode(bytes.as_slice());
        if let Ok(batch) = Batch::decode(bytes.as_slice()) {
            prop_assert!(batch.encoded_len() <= bytes.len());
        }
    }

    #[test]
    fn a_damaged_batch_is_refused_or_read_without_harm(envelopes in envelopes(), at: usize, flip in 1_u8..) {
        let mut bytes = batch(envelopes).encode_to_vec();
        if !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let _ = Batch::decode(bytes.as_slice());
        }
    }
}
